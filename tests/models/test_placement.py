"""Laws of placement: what a device computes in, what can't be had is refused at once, and quantized
teachers answer like teachers.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from domainfusion.errors import CapabilityError, ConfigurationError, MissingDependencyError
from domainfusion.models import HuggingFaceModel, generate_with
from domainfusion.models import placement as placement_module
from domainfusion.models.placement import (
    check_quantization,
    quantization_settings,
    resolve_device,
    resolve_dtype,
)
from domainfusion.types import Message, Sampling, user


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets this machine seem to have GPUs."""

    def pretend(count: int, *, bfloat16: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bfloat16)

    return pretend


@pytest.mark.parametrize(
    ("asked", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_the_device_is_a_gpu_where_there_is_one(
    gpus: Callable[..., None], asked: str, count: int, expected: str
) -> None:
    gpus(count)
    assert resolve_device(asked) == expected


@pytest.mark.parametrize(
    ("asked", "count"),
    [("cuda", 0), ("cuda:1", 1), ("gpu", 1), ("cuda:x", 1), ("cpu:0", 1), ("", 1)],
)
def test_a_device_that_is_not_there_is_refused(
    gpus: Callable[..., None], asked: str, count: int
) -> None:
    gpus(count)
    with pytest.raises(ConfigurationError, match="cpu"):
        resolve_device(asked)


@pytest.mark.parametrize(
    ("device", "flags", "bfloat16", "expected"),
    [
        ("cuda:0", "", True, torch.bfloat16),
        ("cuda", "", False, torch.float16),
        ("cpu", "flags : avx avx512_bf16 sse", False, torch.bfloat16),
        ("cpu", "flags : avx avx512f", True, torch.float32),
    ],
)
def test_the_data_type_is_the_one_that_the_device_computes_in(
    gpus: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    flags: str,
    bfloat16: bool,
    expected: torch.dtype,
) -> None:
    gpus(1, bfloat16=bfloat16)
    monkeypatch.setattr(
        placement_module, "Path", lambda _: SimpleNamespace(read_text=lambda **_: flags)
    )
    assert resolve_dtype("auto", device) is expected
    assert resolve_dtype("float32", device) is torch.float32


# Quantization


def test_a_model_is_quantized_only_where_it_is_asked_for() -> None:
    check_quantization(None, Path("model"))


@pytest.mark.parametrize("asked", ["4-bit", "2bit", "", 4])
def test_a_quantization_that_is_not_known_is_refused(tiny_llama: Path, asked: Any) -> None:
    with pytest.raises(ConfigurationError, match="4bit"):
        HuggingFaceModel(tiny_llama, quantization=asked)


def test_without_bitsandbytes_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'domainfusion\[quantization\]'"):
        check_quantization("8bit", Path("model"))


def test_a_file_that_is_quantized_already_is_not_quantized_again() -> None:
    with pytest.raises(ConfigurationError, match="GGUF"):
        check_quantization("4bit", Path("model.gguf"))


def test_four_bits_are_normal_floats_and_computing_is_done_in_the_data_type() -> None:
    four, eight = (quantization_settings(kind, torch.bfloat16) for kind in ("4bit", "8bit"))
    assert (four.load_in_4bit, four.bnb_4bit_quant_type, four.bnb_4bit_compute_dtype) == (
        True,
        "nf4",
        torch.bfloat16,
    )
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_a_quantized_teacher_answers_scores_and_shares_its_base(
    make_llama: Callable[..., Path], make_adapter: Callable[..., Path], quantization: Any
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = make_llama("base")
    options: dict[str, Any] = {"dtype": "float32", "device": device}
    whole, small = (
        HuggingFaceModel(base, **options),
        HuggingFaceModel(base, **options, quantization=quantization),
    )
    assert small._load().module is not whole._load().module
    assert (
        small._load().module.get_memory_footprint()
        < 0.8 * whole._load().module.get_memory_footprint()
    )
    assert small.fingerprint != whole.fingerprint

    asked = [user("What is the capital of France?"), user("Why?")]
    answered = [(*conversation, Message("assistant", "Paris.")) for conversation in asked]
    for found, expected in zip(small.score(answered), whole.score(answered), strict=True):
        assert found != expected
        assert found.total == pytest.approx(expected.total, rel=0.5)

    experts = [
        HuggingFaceModel(
            make_adapter(name, seed), base_model=base, **options, quantization=quantization
        )
        for seed, name in enumerate("ab")
    ]
    assert {id(expert._load().module) for expert in experts} == {id(small._load().module)}
    before = small.score(answered)
    answers = [expert.generate([asked[0]], Sampling(max_new_tokens=6))[0] for expert in experts]
    assert generate_with(experts, [asked[0]] * 2, Sampling(max_new_tokens=6)) == answers
    assert small.score(answered) == before  # nothing was merged into quantized weights

    with pytest.raises(CapabilityError, match="quantized student stay"):
        small.trainable_copy(None)
    with pytest.raises(CapabilityError, match="not saved"):
        small.save("never")
    small.release()
    assert small.generate([asked[0]], Sampling(max_new_tokens=6))
