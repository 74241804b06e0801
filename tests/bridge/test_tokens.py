"""Tokens and attended pairs of a micro-batch, with padding, packing, windows and a head that keeps few rows."""
import pytest
import torch

import fake_guest
import models

IDS = torch.arange(24).view(2, 12) + 3


def run(guest, family="qwen3_moe", ids=IDS, **inputs):
    model = models.make(family)
    model(input_ids=ids, **inputs).logits.sum().backward()
    assert not guest.off
    return guest.micros[-1]


def pairs(guest):
    return {entry[1]: entry[2:4] for entry in guest.pairs_seen}


def test_full_sequences(guest):
    micro = run(guest)
    assert micro == dict(step=0, processed=24, useful=24, trainable=None, head_rows=None, n_segment=2, batch=2,
                         basis=fake_guest.MEASURED)
    assert pairs(guest) == {0: (156, 156)}


def test_padding(guest):
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 5:] = 0
    labels = IDS.masked_fill(mask == 0, -100)
    micro = run(guest, attention_mask=mask, labels=labels)
    assert (micro["processed"], micro["useful"], micro["trainable"]) == (24, 17, 17)
    assert micro["basis"] == fake_guest.MEASURED and micro["n_segment"] == 2
    assert pairs(guest) == {0: (78 + 15, 156)}


def test_left_padding_with_positions(guest):
    """Positions of padding are no restarts of a segment."""
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[0, :4] = 0
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    micro = run(guest, attention_mask=mask, position_ids=positions)
    assert (micro["useful"], micro["n_segment"]) == (20, 2)
    assert pairs(guest) == {0: (36 + 78, 156)}


def test_packing(guest):
    positions = torch.cat([torch.arange(5), torch.arange(4), torch.arange(3)])[None]
    micro = run(guest, ids=IDS[:1], position_ids=positions, labels=IDS[:1])
    assert (micro["processed"], micro["useful"], micro["trainable"], micro["n_segment"]) == (12, 12, 12, 3)
    assert pairs(guest) == {0: (15 + 10 + 6, 78)}


def test_packing_by_bounds_on_the_host(guest):
    hook = fake_guest.load(fake_guest.FakeGuest())
    fake = hook["guest"]
    hook["count_tokens"]({"input_ids": IDS[:1], "cu_seq_lens_q": torch.tensor([0, 5, 12], dtype=torch.int32)}, [0])
    hook["detach"]()
    assert fake.micros[-1]["n_segment"] == 2 and fake.pairs_seen[-1][1:4] == (0, 15 + 28, 78)


def test_sliding_windows(guest):
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 10:] = 0
    run(guest, family="gpt_oss", attention_mask=mask)
    full, window = 78 + 55, (12 * 8 - 28) + (10 * 8 - 28)
    assert pairs(guest) == {0: (full, 156), 8: (window, 2 * (12 * 8 - 28))}


@pytest.mark.parametrize("length, window", [(12, 0), (12, 8), (12, 12), (12, 20), (1, 1)])
def test_closed_form_of_pairs(length, window):
    assert fake_guest.load()["causal_pairs"](length, window) == fake_guest.pairs_of(length, window)


@pytest.mark.parametrize("keep, rows", [(0, None), (1, 2), (5, 10), (100, 24), (torch.tensor([0, 3, 4]), 6)])
def test_head_rows(guest, keep, rows):
    assert run(guest, logits_to_keep=keep)["head_rows"] == rows


def test_embeddings_instead_of_ids(guest):
    model = models.make("qwen3_moe")
    model(inputs_embeds=torch.randn(3, 7, 32)).logits.sum().backward()
    assert (guest.micros[0]["processed"], guest.micros[0]["batch"]) == (21, 3)


def test_positional_arguments_and_mappings(guest):
    model = models.make("qwen3_moe")
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[0, 3:] = 0
    model(IDS, mask).logits.sum().backward()
    assert guest.micros[-1]["useful"] == 15


def test_a_mask_of_another_shape_is_left_alone(guest):
    mask = torch.zeros(2, 1, 12, 12)
    micro = run(guest, attention_mask=mask)
    assert (micro["useful"], micro["basis"]) == (24, fake_guest.MEASURED)


def test_labels_elsewhere_are_not_read(guest):
    """The guest is handed tensors of one device only."""
    hook = fake_guest.load()
    meta = IDS.to("meta")
    assert hook["beside"](IDS, (2, 12), meta) is None and hook["beside"](IDS, (2, 12), IDS) is IDS
    assert not guest.off


def test_hand_written_targets(guest):
    targets = IDS.clone()
    targets[0, :4] = -100
    models.HandWritten(models.ListMoe)(IDS, targets).backward()
    assert guest.micros[0]["trainable"] == 20


def test_unknown_inputs(guest):
    class Odd(models.HandWritten):
        def forward(self, batch):
            return super().forward(batch.ids, batch.ids)
    Odd(models.ListMoe)(type("Batch", (), {"ids": IDS})()).backward()
    assert guest.micros[0]["processed"] is None and not guest.off
