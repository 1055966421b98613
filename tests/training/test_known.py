"""What a student knows: exactly what it would write greedily."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from domainfusion.models import LlamaModel
from domainfusion.training import losses
from domainfusion.training.batching import Row
from domainfusion.training.losses import find_known
from domainfusion.types import user


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves rounding out: the logits of a random model are close to each other."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)


QUESTIONS = [f"{'Very ' * length}where is airport {length}?" for length in range(7)]


@pytest.fixture(scope="module")
def student(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32").trainable_copy(None)


def greedy(model: LlamaModel, prompt: list[int], count: int) -> list[int]:
    """Returns the tokens that follow a prompt, each computed from the logits of all before it."""
    tokens = list(prompt)
    for _ in range(count):
        [states] = model.hidden_states([tokens])
        tokens.append(int(model.project(states[-1]).argmax()))
    return tokens


def rows(model: LlamaModel, wrong_at: int | None = None) -> list[Row]:
    """Returns rows whose answers the model would write, or would but for one token."""
    found = []
    for number, question in enumerate(QUESTIONS):
        prompt = model.encode(user(question))
        tokens = greedy(model, prompt, 4)
        if wrong_at is not None:
            tokens[len(prompt) + wrong_at] = (tokens[len(prompt) + wrong_at] + 1) % 50
        found.append(Row(f"r{number}", tuple(tokens), len(prompt)))
    return found


def test_what_is_written_greedily_is_known(student: LlamaModel) -> None:
    assert find_known(student, rows(student)) == [True] * len(QUESTIONS)


@pytest.mark.parametrize("place", [0, 2, 3])
def test_one_token_that_would_be_another_is_enough_not_to_know(
    student: LlamaModel, place: int
) -> None:
    right, wrong = rows(student), rows(student, wrong_at=place)
    mixed = [row for pair in zip(right, wrong, strict=True) for row in pair]
    assert find_known(student, mixed) == [True, False] * len(QUESTIONS)


def test_how_many_are_read_together_changes_nothing(
    student: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = [*rows(student), *rows(student, wrong_at=1)]
    found = []
    for together in (1, 5, 100):
        monkeypatch.setattr(losses, "ROWS_READ", together)
        found.append(find_known(student, mixed))
    assert found[0] == found[1] == found[2]
    assert find_known(student, []) == []
