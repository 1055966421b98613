"""Saved models: what plain Transformers and PEFT load again."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from domainfusion.errors import ConfigurationError
from domainfusion.models import (
    Adaptation,
    HuggingFaceModel,
)

from .local_models import (
    CLOSED_BY_END_OF_TEXT,
    CONVERSATIONS,
    SHORT,
    MakeAdapter,
    _assert_plain_transformers_gives,
    load,
    logits_of,
    perturb,
    plain_logits,
)


def _make(kind: str, tiny_llama: Path, make_adapter: MakeAdapter) -> HuggingFaceModel:
    if kind == "base":
        return load(tiny_llama)
    if kind == "expert":
        return load(make_adapter("one", 1))
    adaptations = {
        "full student": None,
        "adapter student": Adaptation(rank=2),
        "merged student": Adaptation(
            start_from=(load(make_adapter("one", 1)), load(make_adapter("two", 2))),
            merge_weight=0.5,
        ),
    }
    student = load(tiny_llama).trainable_copy(adaptations[kind])
    perturb(student)
    return student


KINDS = ["base", "expert", "full student", "adapter student", "merged student"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_loaded_by_plain_transformers_and_is_the_same(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path, kind: str
) -> None:
    neighbour, model = load(make_adapter("two", 2)), _make(kind, tiny_llama, make_adapter)
    neighbour.generate(
        CONVERSATIONS[:1], SHORT
    )  # its adapter is merged now, and must not be saved with the model
    expected, bare = logits_of(model), logits_of(load(tiny_llama))
    neighbour.generate(CONVERSATIONS[:1], SHORT)
    model.save(tmp_path / "saved")
    assert (kind == "base") == torch.equal(expected, bare)
    _assert_plain_transformers_gives(tmp_path / "saved", expected)
    assert torch.equal(logits_of(model), expected)
    assert torch.equal(logits_of(load(tiny_llama)), bare)
    assert load(tmp_path / "saved").generate(CONVERSATIONS, SHORT) == model.generate(
        CONVERSATIONS, SHORT
    )
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(
        load_file(tiny_llama / "model.safetensors")
    )


@pytest.mark.parametrize("kind", ["expert", "adapter student", "merged student"])
def test_an_adapter_saved_as_one_is_loaded_by_plain_peft_and_is_the_same(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path, kind: str
) -> None:
    model = _make(kind, tiny_llama, make_adapter)
    expected = logits_of(model, merge=False)
    model.save(tmp_path / "saved", merge=False)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    peft = PeftModel.from_pretrained(base, str(tmp_path / "saved"))
    torch.testing.assert_close(
        plain_logits(peft, AutoTokenizer.from_pretrained(tmp_path / "saved")),
        expected,
        rtol=0,
        atol=1e-5,
    )
    assert torch.equal(logits_of(load(tmp_path / "saved"), merge=False), expected)
    assert not (tmp_path / "saved" / "model.safetensors").exists()


def test_an_adapter_is_saved_in_the_same_words_by_every_process(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    load(make_adapter("one", 1)).save(tmp_path / "saved", merge=False)
    targets = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(
        targets
    )  # the order of a set would differ from one process to the next, and the fingerprint with it


def test_whole_weights_are_not_saved_beside_an_adapter(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    expert = load(make_adapter("one", 1))
    expert.save(tmp_path / "saved", merge=False)
    before = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    for model, merge in ((expert, True), (load(tiny_llama), True), (load(tiny_llama), False)):
        with pytest.raises(ConfigurationError, match="holds an adapter"):
            model.save(tmp_path / "saved", merge=merge)
    assert {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()} == before
    expert.save(tmp_path / "saved", merge=False)


def test_an_expert_of_two_domains_counts_once_in_a_merge(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    one, other = load(make_adapter("one", 1)), load(make_adapter("two", 2))
    base = load(tiny_llama)
    once = base.trainable_copy(Adaptation(start_from=(one, other)))
    twice = base.trainable_copy(Adaptation(start_from=(one, other, one)))
    assert {name: tensor.shape for name, tensor in once.trained_state().items()} == {
        name: tensor.shape for name, tensor in twice.trained_state().items()
    }
    assert all(
        torch.equal(tensor, twice.trained_state()[name])
        for name, tensor in once.trained_state().items()
    )


def test_an_adapter_whose_targets_are_a_pattern_keeps_it(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    expert = load(make_adapter("one", 1, target_modules=r".*\.(q_proj|up_proj)"))
    expert.save(tmp_path / "saved", merge=False)
    assert (
        json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["target_modules"]
        == r".*\.(q_proj|up_proj)"
    )
    assert torch.equal(logits_of(load(tmp_path / "saved")), logits_of(expert))


def test_a_whole_model_saved_without_merging_is_saved_whole(
    tiny_llama: Path, tmp_path: Path
) -> None:
    student = load(tiny_llama).trainable_copy(None)
    perturb(student)
    student.save(tmp_path / "saved", merge=False)
    _assert_plain_transformers_gives(tmp_path / "saved", logits_of(student))


@pytest.mark.parametrize("merge", [True, False])
def test_a_saved_model_brings_its_tokenizer_template_and_end_tokens(
    tiny_llama: Path, tmp_path: Path, merge: bool
) -> None:
    student = load(tiny_llama, chat_template=CLOSED_BY_END_OF_TEXT).trainable_copy(
        Adaptation(rank=2)
    )
    student.save(tmp_path / "saved", merge=merge)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer.chat_template == CLOSED_BY_END_OF_TEXT
    assert (
        tokenizer("The capital of France 😀")["input_ids"]
        == student.tokenizer("The capital of France 😀")["input_ids"]
    )
    if merge:
        settings = GenerationConfig.from_pretrained(tmp_path / "saved")
        assert set(settings.eos_token_id) == student.end_tokens
        assert len(student.end_tokens) == 2
        assert settings.pad_token_id == tokenizer.pad_token_id


def test_tied_weights_are_saved_tied(make_llama: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_llama("tied", tie_word_embeddings=True)
    student = load(folder).trainable_copy(Adaptation(rank=2))
    perturb(student)
    student.save(tmp_path / "saved")
    _assert_plain_transformers_gives(tmp_path / "saved", logits_of(student))
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(
        load_file(folder / "model.safetensors")
    )
    whole = load(folder).trainable_copy(None)
    perturb(whole)
    whole.save(tmp_path / "whole")
    _assert_plain_transformers_gives(tmp_path / "whole", logits_of(whole))


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_is_saved_in_the_numbers_of_its_base_or_in_others(
    make_llama: Callable[..., Path], tmp_path: Path, tied: bool
) -> None:
    whole = make_llama("numbers", 4, tie_word_embeddings=tied)
    HuggingFaceModel(whole).save(tmp_path / "half", dtype="bfloat16")
    # Computing in wider numbers does not make a file larger.
    HuggingFaceModel(tmp_path / "half", dtype="float32").save(tmp_path / "again")
    sizes = {}
    for name in ("half", "again"):
        assert json.loads((tmp_path / name / "config.json").read_text())["dtype"] == "bfloat16"
        state = load_file(tmp_path / name / "model.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
        assert ("lm_head.weight" in state) is not tied
        sizes[name] = (tmp_path / name / "model.safetensors").stat().st_size
        assert AutoModelForCausalLM.from_pretrained(tmp_path / name).dtype == torch.bfloat16
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / name).iterdir()}
        assert modes == {0o666 & ~current_umask()}
    assert sizes["half"] == sizes["again"]
    HuggingFaceModel(tmp_path / "half").save(tmp_path / "wide", dtype="float32")
    assert load_file(tmp_path / "wide" / "model.safetensors")["model.norm.weight"].dtype == (
        torch.float32
    )


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_saved_model_says_the_data_type_that_it_has(tiny_llama: Path, tmp_path: Path) -> None:
    load(tiny_llama, dtype="bfloat16").save(tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "bfloat16"


def test_saving_is_silent(
    tiny_llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load(tiny_llama).trainable_copy(Adaptation(rank=2))
    model.generate(CONVERSATIONS[:2], SHORT)
    model.save(tmp_path / "whole")
    model.save(tmp_path / "adapter", merge=False)
    assert capfd.readouterr() == ("", "")
