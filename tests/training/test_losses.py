"""The loss is the library's own, on answer tokens alone, however rows are padded or split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)

from domainfusion.models import LlamaModel
from domainfusion.models.projection import project
from domainfusion.training.batching import IGNORED, Batch, Row, collate
from domainfusion.training.losses import answer_hidden_states, sequence_loss

ROWS = [
    Row("short", (5, 6, 7, 8), 2),
    Row("long", tuple(range(10, 40)), 11),
    Row("one token", (3, 4, 50), 2),
    Row("middle", tuple(range(60, 75)), 4),
]


@pytest.fixture(scope="module")
def module(tiny_llama: Path) -> PreTrainedModel:
    return LlamaModel(tiny_llama, dtype="float32").trainable_copy(None).trainable_module()


def answers(rows: list[Row]) -> int:
    return sum(len(row.tokens) - row.prompt_length for row in rows)


def loss_of(module: PreTrainedModel, rows: list[Row], answer_tokens: int | None = None, pad: int = 0) -> torch.Tensor:
    return sequence_loss(module, collate(rows, pad), answers(rows) if answer_tokens is None else answer_tokens)


def gradients(module: PreTrainedModel, *parts: torch.Tensor) -> list[torch.Tensor]:
    module.zero_grad()
    for part in parts:
        part.backward()  # type: ignore[no-untyped-call]
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.record_id)
def test_the_loss_of_a_row_is_the_one_that_transformers_computes(module: PreTrainedModel, row: Row) -> None:
    batch = collate([row], 0)
    theirs = module(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    torch.testing.assert_close(loss_of(module, [row]), theirs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.record_id)
def test_the_loss_of_a_row_is_its_answer_s_negative_log_probability(module: PreTrainedModel, row: Row) -> None:
    tokens = torch.tensor([row.tokens])
    log_probabilities = module(input_ids=tokens).logits.float().log_softmax(-1)
    places = range(row.prompt_length, len(row.tokens))
    expected = -sum(log_probabilities[0, place - 1, row.tokens[place]] for place in places) / len(places)
    torch.testing.assert_close(loss_of(module, [row]), expected)


def test_what_the_prompt_s_own_tokens_would_have_cost_does_not_count(module: PreTrainedModel) -> None:
    batch = collate(ROWS, 0)
    everything: Batch = {"input_ids": batch["input_ids"], "labels": batch["input_ids"].clone()}
    assert sequence_loss(module, everything, answers(ROWS)) > loss_of(module, ROWS)
    hidden, targets = answer_hidden_states(module, batch)
    assert len(hidden) == len(targets) == answers(ROWS)


def test_padding_changes_nothing(module: PreTrainedModel) -> None:
    together = loss_of(module, ROWS)
    alone = sum(loss_of(module, [row], answers(ROWS)) for row in ROWS)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, loss_of(module, ROWS, pad=77))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(module: PreTrainedModel, size: int) -> None:
    parts = [ROWS[at : at + size] for at in range(0, len(ROWS), size)]
    whole = gradients(module, loss_of(module, ROWS))
    summed = gradients(module, *(loss_of(module, part, answers(ROWS)) for part in parts))
    for one, other in zip(whole, summed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_batch_without_an_answer_has_no_loss(module: PreTrainedModel) -> None:
    batch = collate([Row("empty", (5, 6, 7), 3)], 0)
    assert (batch["labels"] == IGNORED).all()
    loss = sequence_loss(module, batch, 0)
    assert loss.item() == 0
    assert all(gradient.abs().sum() == 0 for gradient in gradients(module, loss))


SMALL = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.5, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        pytest.param(Gemma2ForCausalLM, Gemma2Config(**SMALL, final_logit_softcapping=2.0), id="soft cap"),
        pytest.param(GraniteForCausalLM, GraniteConfig(**SMALL, logits_scaling=4.0), id="scaling"),
        pytest.param(CohereForCausalLM, CohereConfig(**SMALL, logit_scale=0.25), id="scale"),
    ],
)
def test_logits_are_those_of_the_architecture(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    model = kind(config).eval()
    batch = collate([Row("r", tuple(range(5, 15)), 3)], 0)
    with torch.no_grad():
        hidden, _ = answer_hidden_states(model, batch)
        expected = model(input_ids=batch["input_ids"]).logits[0, 2:-1].float()
    torch.testing.assert_close(project(model, hidden), expected)
