import sys, os
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

folder, lora = sys.argv[1], "lora" in sys.argv[2:]
peft_config = None
if lora:
    from peft import LoraConfig
    peft_config = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                             target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], task_type="CAUSAL_LM")
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(folder + "/m", dtype=torch.bfloat16),
    args=SFTConfig(output_dir=folder + "/out_trl", max_steps=int(os.environ.get("FW_STEPS", 40)), per_device_train_batch_size=2,
                   gradient_accumulation_steps=1, max_length=2048, learning_rate=1e-4, logging_steps=10,
                   save_strategy="no", report_to="none", bf16=True, gradient_checkpointing=True),
    train_dataset=load_dataset("json", data_files=folder + "/d.jsonl", split="train"),
    processing_class=AutoTokenizer.from_pretrained(folder + "/m"), peft_config=peft_config)
trainer.train()
