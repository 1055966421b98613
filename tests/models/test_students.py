"""A trainable copy of a model: it starts as the model, leaves it alone, and its trained state comes
and goes whole.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig

from domainfusion.errors import CapabilityError, ModelError
from domainfusion.models import (
    Adaptation,
    HuggingFaceModel,
    ScriptedModel,
)

from .local_models import (
    CONVERSATIONS,
    MERGING_TOLERANCE,
    SHORT,
    MakeAdapter,
    load,
    logits_of,
    perturb,
)


@pytest.mark.parametrize(
    "adaptation", [None, Adaptation(rank=2, alpha=4)], ids=["all weights", "adapter"]
)
def test_a_trainable_copy_starts_as_the_model_and_leaves_it_alone(
    tiny_llama: Path, adaptation: Adaptation | None
) -> None:
    original = load(tiny_llama)
    before, fingerprint = logits_of(original), original.fingerprint
    student = original.trainable_copy(adaptation)
    torch.testing.assert_close(logits_of(student), before, rtol=0, atol=0)
    perturb(student)
    assert (logits_of(student) - before).abs().max() > 100 * MERGING_TOLERANCE
    assert torch.equal(logits_of(original), before)
    assert original.fingerprint == fingerprint
    assert student.name == "student" and original.name != "student"


def test_two_students_of_one_base_do_not_meet(tiny_llama: Path) -> None:
    original = load(tiny_llama)
    students = [
        original.trainable_copy(Adaptation(rank=2)),
        original.trainable_copy(Adaptation(rank=4)),
    ]
    untrained = logits_of(students[1])
    perturb(students[0])
    assert torch.equal(logits_of(students[1]), untrained)
    assert [
        parameter.shape[0] for parameter in _trained(students[1]) if parameter.shape[0] < 10
    ] == [4] * 14


def _trained(student: HuggingFaceModel) -> list[torch.Tensor]:
    return [
        parameter
        for parameter in student.trainable_module().parameters()
        if parameter.requires_grad
    ]


def test_only_what_is_trained_requires_gradients(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    original, expert = load(tiny_llama), load(make_adapter("one", 1))
    student, whole = original.trainable_copy(Adaptation(rank=2)), original.trainable_copy(None)
    assert sum(p.numel() for p in _trained(student)) == sum(
        t.numel() for t in student.trained_state().values()
    )
    assert sum(p.numel() for p in _trained(whole)) == original.parameter_count
    expert.generate(CONVERSATIONS[:1], SHORT)
    assert sum(p.numel() for p in _trained(student)) == sum(
        t.numel() for t in student.trained_state().values()
    )
    with pytest.raises(CapabilityError, match="trainable_copy"):
        original.trainable_module()


@pytest.mark.parametrize(
    "adaptation",
    [
        Adaptation(rank=2, frozen_share=0.5),
        Adaptation(rank=2, frozen_share=0.5, keeps_start=True),
        Adaptation(all_weights=True, frozen_share=0.5),
    ],
    ids=["adapter", "beside a merge", "all weights"],
)
def test_the_lowest_layers_are_not_trained_where_a_share_of_them_is_frozen(
    tiny_llama: Path, make_adapter: MakeAdapter, adaptation: Adaptation
) -> None:
    original = load(tiny_llama)
    if adaptation.keeps_start:
        experts = (load(make_adapter("one", 1)), load(make_adapter("two", 2)))
        adaptation = replace(adaptation, start_from=experts)
    student = original.trainable_copy(adaptation)
    before = student.trained_state()
    tokens = torch.tensor([student.encode(CONVERSATIONS[0])])
    module = student.trainable_module()
    optimizer = torch.optim.AdamW(_trained(student), lr=0.1, weight_decay=0.0)
    module(input_ids=tokens, labels=tokens).loss.backward()
    masks = student.gradient_masks()
    for name, parameter in module.named_parameters():
        if name in masks and parameter.grad is not None:
            parameter.grad *= masks[name]
    optimizer.step()
    moved = {
        name
        for name, tensor in student.trained_state().items()
        if not torch.equal(tensor, before[name])
    }
    first, last = "layers.0.", "layers.1."  # of the two that the tiny Llama has
    assert any(last in name for name in moved)
    assert not [name for name in moved if first in name or "embed_tokens" in name]
    assert any(first in name for name in before)


def test_a_model_without_a_list_of_layers_has_none_to_freeze(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = load(tiny_llama).trainable_copy(Adaptation(rank=2, frozen_share=0.5))
    monkeypatch.setattr(
        LlamaConfig, "get_text_config", lambda _: SimpleNamespace(num_hidden_layers=7)
    )
    with pytest.raises(CapabilityError, match="frozen_share=0"):
        student.trainable_module()


def test_a_gradient_step_moves_the_student_alone(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    original, expert = load(tiny_llama), load(make_adapter("one", 1))
    before = [logits_of(original), logits_of(expert)]
    student = original.trainable_copy(Adaptation(rank=2))
    untrained = logits_of(student)
    for _ in range(2):
        tokens = torch.tensor([student.encode(CONVERSATIONS[0])])
        module = student.trainable_module()
        optimizer = torch.optim.SGD(_trained(student), lr=1.0)
        module(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        expert.generate(CONVERSATIONS[:1], SHORT)  # a teacher that is asked between two steps
        student.generate(CONVERSATIONS[:1], SHORT)
    assert not torch.equal(logits_of(student), untrained)
    assert torch.equal(logits_of(original), before[0]) and torch.equal(logits_of(expert), before[1])


def test_a_student_that_starts_as_a_merge_is_the_sum_of_its_experts(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    original, experts = (
        load(tiny_llama),
        (load(make_adapter("one", 1)), load(make_adapter("two", 2, r=8))),
    )
    student = original.trainable_copy(Adaptation(start_from=experts, merge_weight=0.4))

    def head(model: HuggingFaceModel) -> torch.Tensor:
        with model._load().using(model._adapter or None) as module:
            return module.model.layers[0].self_attn.q_proj.weight.detach().double().clone()

    bare = head(original)
    expected = bare + 0.4 * sum(head(expert) - bare for expert in experts)
    torch.testing.assert_close(head(student), expected, rtol=0, atol=1e-5)
    assert {parameter.shape[0] for parameter in _trained(student)} >= {4 + 8}
    assert (logits_of(student) - logits_of(original)).abs().max() > 100 * MERGING_TOLERANCE


def test_strangers_can_not_be_merged_into_a_start(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    elsewhere = load(
        make_adapter("one", 1), base_model=shutil.copytree(tiny_llama, tmp_path / "elsewhere")
    )
    for stranger in (
        elsewhere,
        load(tiny_llama),
        ScriptedModel("no", name="no-adapter"),
        load(make_adapter("one", 1), dtype="bfloat16"),
    ):
        with pytest.raises(CapabilityError, match="initialization='base'") as raised:
            load(tiny_llama).trainable_copy(
                Adaptation(start_from=(load(make_adapter("two", 2)), stranger))
            )
        assert repr(stranger)[:20] in str(raised.value)


def test_a_student_in_training_can_not_be_copied(tiny_llama: Path) -> None:
    for adaptation in (None, Adaptation(rank=2)):
        student = load(tiny_llama).trainable_copy(adaptation)
        for again in (None, Adaptation(rank=2)):
            with pytest.raises(CapabilityError, match="in training"):
                student.trainable_copy(again)


@pytest.mark.parametrize(
    "adaptation", [None, Adaptation(rank=2, alpha=4)], ids=["all weights", "adapter"]
)
def test_the_trained_state_comes_back_as_it_was(
    tiny_llama: Path, adaptation: Adaptation | None
) -> None:
    student = load(tiny_llama).trainable_copy(adaptation)
    perturb(student)
    state, answers = student.trained_state(), student.generate(CONVERSATIONS, SHORT)
    fingerprint, found = student.fingerprint, logits_of(student)
    perturb(student)
    assert student.fingerprint != fingerprint
    assert student.generate(CONVERSATIONS, SHORT) != answers
    student.load_trained_state(state)
    assert (student.generate(CONVERSATIONS, SHORT), student.fingerprint) == (answers, fingerprint)
    assert torch.equal(logits_of(student), found)


def test_a_trained_state_fits_another_student_of_the_same_kind(tiny_llama: Path) -> None:
    first, second = (load(tiny_llama).trainable_copy(Adaptation(rank=2)) for _ in range(2))
    perturb(first)
    second.load_trained_state(first.trained_state())
    assert torch.equal(logits_of(second), logits_of(first))
    assert second.fingerprint == first.fingerprint


def test_a_state_of_another_model_is_refused_and_nothing_is_changed(tiny_llama: Path) -> None:
    student = load(tiny_llama).trainable_copy(Adaptation(rank=2))
    before = student.fingerprint
    larger, whole = (
        load(tiny_llama).trainable_copy(Adaptation(rank=4)),
        load(tiny_llama).trainable_copy(None),
    )
    for state in ({}, whole.trained_state(), larger.trained_state()):
        with pytest.raises(ModelError, match="another model"):
            student.load_trained_state(state)
    assert student.fingerprint == before


@pytest.mark.parametrize("writer", ["weights", "tokenizer"])
def test_a_model_that_can_not_be_written_is_one_clear_error(
    tiny_llama: Path, tmp_path: Path, writer: str
) -> None:
    """A folder lies where a file has to come: safetensors and tokenizers raise errors of their own."""
    name = {"weights": "model.safetensors", "tokenizer": "tokenizer.json"}[writer]
    (tmp_path / name / "inner").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"could not be saved: .*os error"):
        HuggingFaceModel(tiny_llama).save(tmp_path)
