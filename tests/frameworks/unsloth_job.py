import sys, os
import unsloth
from unsloth import FastLanguageModel
import torch
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

folder = sys.argv[1]
model, tokenizer = FastLanguageModel.from_pretrained(folder + "/m", max_seq_length=2048, load_in_4bit=False, dtype=torch.bfloat16)
model = FastLanguageModel.get_peft_model(
    model, r=16, lora_alpha=16, lora_dropout=0,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj"],
    use_gradient_checkpointing="unsloth")
trainer = SFTTrainer(
    model=model, processing_class=tokenizer,
    train_dataset=load_dataset("json", data_files=folder + "/d.jsonl", split="train"),
    args=SFTConfig(output_dir=folder + "/out_uns", max_steps=int(os.environ.get("FW_STEPS", 40)), per_device_train_batch_size=2,
                   gradient_accumulation_steps=1, max_length=2048, learning_rate=1e-4, logging_steps=10,
                   save_strategy="no", report_to="none", bf16=True, dataset_num_proc=1))
trainer.train()
