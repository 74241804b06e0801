"""The training goes on, whatever happens: copies, pickles, failures, leaving."""
import copy
import gc
import pickle
import subprocess
import sys
import weakref

import pytest
import torch

import fake_guest
import models


def hooks_of(model):
    return [hook for module in model.modules()
            for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())]


def test_deepcopy_is_another_model(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=1)
    twin = copy.deepcopy(model)
    before = len(guest.events)
    ids = torch.randint(0, 96, (1, 8))
    assert torch.equal(twin(input_ids=ids).logits, model(input_ids=ids).logits)
    events = guest.events[before:]
    assert [event[0] for event in events].count("micro_begin") == 1
    assert not [hook for hook in hooks_of(twin) if type(hook).__module__ == "moeprof_hook"]


def test_whole_model_pickles(guest, tmp_path):
    model = models.make("qwen3_moe")
    models.train(model, steps=1)
    torch.save(model, tmp_path / "model.pt")
    pickle.dumps(model)
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    ids = torch.randint(0, 96, (1, 8))
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    assert hooks_of(again)


def test_pickle_loads_without_a_guest(guest, tmp_path):
    model = models.HandWritten(models.ListMoe)
    models.train(model, steps=1)
    for block in model.blocks:
        block.ffn.chosen = []
    torch.save(model, tmp_path / "model.pt")
    code = ("import torch, models\n"
            "m = torch.load(%r, weights_only=False)\n"
            "i = torch.zeros(1, 4, dtype=torch.long)\n"
            "m(i, i).backward()\n" % str(tmp_path / "model.pt"))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=fake_guest.HOOK.parents[1] / "tests" / "bridge")


def test_state_dict_is_untouched(guest):
    model = models.make("qwen3_moe")
    before = list(model.state_dict())
    models.train(model, steps=1)
    assert list(model.state_dict()) == before


@pytest.mark.parametrize("broken, feature", [
    ("micro_begin", "python"), ("micro", "tokens"), ("pairs", "tokens"), ("set_spec", "python"), ("set_ranges", "python"),
    ("scope_hooks", "python"), ("step_end", "python"), ("optimizer_begin", "python"), ("optimizer_end", "python"),
    ("micro_end", "python"), ("wake", "python")])
def test_a_failure_is_said_once_and_costs_nothing(broken, feature):
    without = models.train(models.make("qwen3_moe"), steps=3)
    fake = fake_guest.FakeGuest()

    def fail(*args):
        raise ValueError("on purpose")
    setattr(fake, broken, fail)
    scope = fake_guest.load(fake)
    losses = models.train(models.make("qwen3_moe"), steps=3)
    scope["detach"]()
    assert losses == without
    assert [name for name, _ in fake.off] == [feature] and "on purpose" in fake.off[0][1]


def test_detach_leaves_everything_as_it_was():
    optim = sys.modules["torch.optim.optimizer"]
    before = len(optim._global_optimizer_pre_hooks), len(optim._global_optimizer_post_hooks)
    scope = fake_guest.load(fake_guest.FakeGuest())
    model = models.make("qwen3_moe")
    models.train(model, steps=2)
    assert hooks_of(model)
    scope["detach"]()
    assert not hooks_of(model)
    assert (len(optim._global_optimizer_pre_hooks), len(optim._global_optimizer_post_hooks)) == before
    assert not torch.nn.modules.module._has_any_global_hook()


def test_a_second_guest_may_come_after_the_first_left():
    model = models.make("qwen3_moe")
    for _ in range(2):
        fake = fake_guest.FakeGuest()
        scope = fake_guest.load(fake)
        models.train(model, steps=2)
        scope["detach"]()
        assert fake.step == 1 and fake.awake == 1


def test_train_and_eval_keep_the_hooks(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=1)
    count = len(hooks_of(model))
    model.eval().train()
    assert len(hooks_of(model)) == count


def test_an_exception_in_forward_reaches_the_job(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=1)
    with pytest.raises(IndexError):
        model(input_ids=torch.full((1, 4), 10 ** 6))
    assert guest.events[-1][0] == "micro_end"
    models.train(model, steps=1)
    assert not guest.off


def test_no_module_is_imported():
    code = ("import sys, torch\n"
            "import models, fake_guest\n"
            "model = models.HandWritten(models.ListMoe)\n"
            "before = set(sys.modules)\n"
            "fake_guest.load(fake_guest.FakeGuest())\n"
            "models.train(model, steps=3)\n"
            "new = set(sys.modules) - before\n"
            "clean = {m for m in new if 'moeprof' in m}\n"
            "assert not clean, clean\n")
    plain = code.replace("fake_guest.load(fake_guest.FakeGuest())\n", "").replace(
        "assert not clean, clean\n", "print(*sorted(new))\n")
    hooked = code.replace("assert not clean, clean\n", "print(*sorted(new))\n")
    folder = fake_guest.HOOK.parents[1] / "tests" / "bridge"

    def imported(text):
        return subprocess.run([sys.executable, "-c", text], check=True, cwd=folder, capture_output=True, text=True).stdout
    assert imported(plain) == imported(hooked)


def test_nothing_is_printed(guest, capfd):
    models.train(models.make("qwen3_moe"), steps=2)
    assert capfd.readouterr().out == ""


def test_freed_copy_of_a_running_model(guest):
    model = models.make("qwen3_moe")
    models.train(model, steps=1)
    twin = copy.deepcopy(model)
    ref = weakref.ref(twin)
    del twin
    gc.collect()
    assert ref() is None
    models.train(model, steps=1)
    assert guest.step == 1
