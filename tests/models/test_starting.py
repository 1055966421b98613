"""Where students start: from sums of adapters and of whole fine-tunes, from an adapter of their
own, from quantized weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MambaConfig, MixtralConfig, Qwen3MoeConfig

from domainfusion.errors import CapabilityError
from domainfusion.models import Adaptation, HuggingFaceModel
from domainfusion.types import Sampling, user

MakeAdapter = Callable[..., Path]
MakeLlama = Callable[..., Path]

ROWS = [list(range(5, 25)), list(range(40, 52))]
SHORT = Sampling(max_new_tokens=4)


def load(path: Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, **{"dtype": "float32", **options})


def logits_of(model: HuggingFaceModel) -> torch.Tensor:
    return torch.cat([model.project(states) for states in model.hidden_states(ROWS)])


def weights_of(model: HuggingFaceModel) -> dict[str, torch.Tensor]:
    """Returns the weights that a model computes with, adapters merged."""
    with model._load().using(model._adapter or None) as module:
        state = {
            name.replace(".base_layer", ""): tensor.double().clone()
            for name, tensor in module.state_dict().items()
        }
    return {name: tensor for name, tensor in state.items() if "lora_" not in name}


def plain_logits(folder: Path, adapter: Path | None = None) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    with torch.no_grad():
        return torch.cat([model.eval()(input_ids=torch.tensor([row])).logits[0] for row in ROWS])


def is_the_sum(
    student: HuggingFaceModel,
    base: HuggingFaceModel,
    experts: list[HuggingFaceModel],
    weight: float,
) -> None:
    """Checks θ + λ·Σ(θₖ − θ), weight by weight."""
    bare, own = weights_of(base), weights_of(student)
    single = [weights_of(expert) for expert in experts]
    for name, tensor in bare.items():
        torch.testing.assert_close(
            own[name],
            tensor + weight * sum(one[name] - tensor for one in single),
            rtol=0,
            atol=2e-5,
        )


def train_a_little(student: HuggingFaceModel) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in student.trainable_module().parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


# Sums of adapters


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (
            {"target_modules": ["q_proj"], "layers_to_transform": [0]},
            {"target_modules": ["q_proj", "down_proj"]},
        ),
        (
            {"target_modules": "all-linear", "exclude_modules": ["v_proj"]},
            {"target_modules": ".*layers.1.*(up|gate)_proj"},
        ),
        (
            {"rank_pattern": {"k_proj": 2, "layers.1.self_attn.q_proj": 7}},
            {"alpha_pattern": {"up_proj": 1}, "use_rslora": True, "r": 3},
        ),
        (
            {"target_modules": ".*self_attn.o_proj"},
            {"target_modules": ["embed_tokens", "lm_head", "v_proj"]},
        ),
    ],
    ids=["a layer and a list", "all but one and a pattern", "ranks and scales", "embeddings"],
)
def test_the_sum_is_the_sum_and_can_be_saved(
    tiny_llama: Path,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    one: dict[str, Any],
    two: dict[str, Any],
) -> None:
    base, experts = (
        load(tiny_llama),
        [load(make_adapter("one", 1, **one)), load(make_adapter("two", 2, **two))],
    )
    student = base.trainable_copy(Adaptation(start_from=tuple(experts), merge_weight=0.4))
    is_the_sum(student, base, experts, 0.4)
    unmerged = student._load()
    with unmerged.using(student._adapter, merge=False) as module, torch.no_grad():
        apart = torch.cat([module(input_ids=torch.tensor([row])).logits[0] for row in ROWS])
    torch.testing.assert_close(apart, logits_of(student), rtol=1e-3, atol=1e-3)
    student.save(tmp_path / "whole")
    student.save(tmp_path / "adapter", merge=False)
    for found in (
        plain_logits(tmp_path / "whole"),
        plain_logits(tiny_llama, tmp_path / "adapter"),
        logits_of(load(tmp_path / "adapter")),
    ):
        torch.testing.assert_close(found, logits_of(student), rtol=1e-3, atol=1e-3)


def test_what_can_not_be_summed_is_told_without_loading_anything(
    tiny_llama: Path, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, experts = (
        load(tiny_llama),
        (load(make_adapter("one", 1)), load(make_adapter("two", 2, use_dora=True))),
    )
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    with pytest.raises(CapabilityError, match=r"DoRA.*initialization='base'"):
        base.check_start(Adaptation(start_from=experts))


def test_the_sum_of_adapters_can_start_a_full_training(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    base, experts = (
        load(tiny_llama),
        [load(make_adapter("one", 1)), load(make_adapter("two", 2, target_modules=["lm_head"]))],
    )
    student = base.trainable_copy(
        Adaptation(start_from=tuple(experts), merge_weight=0.7, all_weights=True)
    )
    is_the_sum(student, base, experts, 0.7)
    assert all(parameter.requires_grad for parameter in student.trainable_module().parameters())
    assert student.fingerprint not in {base.fingerprint, base.trainable_copy(None).fingerprint}


# Whole fine-tunes


def fine_tune(base: Path, folder: Path, seed: int, *, shards: str = "5GB") -> Path:
    """Writes a copy of a model whose weights were moved a little."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=generator)
                * 0.1
                * parameter.std().nan_to_num(0.1)
            )
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size=shards)
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("all_weights", [True, False])
def test_whole_fine_tunes_start_a_student_as_the_sum_of_their_task_vectors(
    make_llama: MakeLlama, tmp_path: Path, tied: bool, all_weights: bool
) -> None:
    folder = make_llama("base", tie_word_embeddings=tied)
    experts = [
        load(fine_tune(folder, tmp_path / "a", 1)),
        load(fine_tune(folder, tmp_path / "b", 2, shards="100KB")),
    ]
    base = load(folder)
    student = base.trainable_copy(
        Adaptation(start_from=tuple(experts), merge_weight=0.3, all_weights=all_weights)
    )
    is_the_sum(student, base, experts, 0.3)
    train_a_little(student)
    student.save(tmp_path / "trained")
    torch.testing.assert_close(
        plain_logits(tmp_path / "trained"), logits_of(student), rtol=1e-3, atol=2e-3
    )
    torch.testing.assert_close(logits_of(base), plain_logits(folder), rtol=1e-4, atol=1e-4)
    if not all_weights:
        with pytest.raises(CapabilityError, match="merge=True"):
            student.save(tmp_path / "adapter", merge=False)


def test_fine_tunes_and_adapters_add_up(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base, experts = (
        load(tiny_llama),
        [load(fine_tune(tiny_llama, tmp_path / "a", 1)), load(make_adapter("one", 1))],
    )
    for all_weights in (True, False):
        student = base.trainable_copy(
            Adaptation(start_from=tuple(experts), merge_weight=0.5, all_weights=all_weights)
        )
        is_the_sum(student, base, experts, 0.5)


def test_a_model_that_is_not_a_fine_tune_is_refused(
    tiny_llama: Path, make_llama: MakeLlama, tmp_path: Path
) -> None:
    base = load(tiny_llama)
    other = {
        "another seed": make_llama("seed", seed=9),
        "another depth": make_llama("deep", num_hidden_layers=3),
    }
    wider = shutil.copytree(tiny_llama, tmp_path / "wider")
    weights = load_file(wider / "model.safetensors")
    weights["model.embed_tokens.weight"] = torch.cat([weights["model.embed_tokens.weight"]] * 2)
    save_file(weights, wider / "model.safetensors", metadata={"format": "pt"})
    for folder in (*other.values(), wider):
        with pytest.raises(CapabilityError, match="is not a fine-tune of the student's base"):
            base.check_start(Adaptation(start_from=(load(folder),)))


# A student that is an adapter


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "target_modules": ["q_proj"]},
        {"target_modules": ["lm_head", "up_proj"]},
    ],
)
def test_an_adapter_is_trained_on_in_an_adapter(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path, options: dict[str, Any]
) -> None:
    expert = load(make_adapter("one", 1, **options))
    before = logits_of(expert)
    student = expert.trainable_copy(Adaptation(rank=3, alpha=6))
    torch.testing.assert_close(logits_of(student), before, rtol=1e-4, atol=1e-3)
    trained = {
        name
        for name, parameter in student.trainable_module().named_parameters()
        if parameter.requires_grad
    }
    assert any("gate_proj" in name for name in trained), "the new ranks stand on every layer"
    train_a_little(student)
    assert not torch.allclose(logits_of(student), before, atol=1e-2)
    assert torch.equal(logits_of(expert), before)
    student.save(tmp_path / "on", merge=False)
    torch.testing.assert_close(
        plain_logits(tiny_llama, tmp_path / "on"), logits_of(student), rtol=1e-3, atol=1e-3
    )


def test_an_adapter_is_trained_on_in_all_weights(
    make_llama: MakeLlama, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_llama("tied", tie_word_embeddings=True)
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        folder = make_adapter(
            "whole", 1, base=base, target_modules=["q_proj", "embed_tokens"], use_dora=True
        )
    expert = load(folder)
    before = logits_of(expert)
    student = expert.trainable_copy(None)
    torch.testing.assert_close(logits_of(student), before, rtol=1e-4, atol=1e-3)
    assert not any("lora" in name for name, _ in student.trainable_module().named_parameters())
    train_a_little(student)
    student.save(tmp_path / "whole")
    torch.testing.assert_close(
        plain_logits(tmp_path / "whole"), logits_of(student), rtol=1e-3, atol=1e-3
    )
    assert torch.equal(logits_of(expert), before)


def test_a_student_that_is_an_adapter_counts_itself_once(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    one, two = load(make_adapter("one", 1)), load(make_adapter("two", 2))
    student = one.trainable_copy(Adaptation(start_from=(one, two), merge_weight=0.5))
    bare, first, second, own = (
        weights_of(model) for model in (load(tiny_llama), one, two, student)
    )
    for name, tensor in bare.items():
        torch.testing.assert_close(
            own[name], first[name] + 0.5 * (second[name] - tensor), rtol=0, atol=2e-5
        )


# Quantized students


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)
def test_a_quantized_student_is_trained_in_an_adapter_and_saved_in_full_precision(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path, quantization: Any
) -> None:
    small = load(tiny_llama, quantization=quantization)
    expert = load(make_adapter("one", 1), quantization=quantization)
    before = logits_of(small)
    for start in ((), (expert,)):
        student = small.trainable_copy(Adaptation(rank=2, alpha=4, start_from=start))
        train_a_little(student)
        assert student.generate([user("Why?")], SHORT)
        student.save(tmp_path / f"whole{len(start)}")
        student.save(tmp_path / f"adapter{len(start)}", merge=False)
        whole = plain_logits(tmp_path / f"whole{len(start)}")
        torch.testing.assert_close(
            whole, plain_logits(tiny_llama, tmp_path / f"adapter{len(start)}"), rtol=1e-3, atol=1e-3
        )
        again = load(
            tmp_path / f"adapter{len(start)}", base_model=tiny_llama, quantization=quantization
        )
        torch.testing.assert_close(logits_of(again), logits_of(student), rtol=1e-3, atol=1e-3)
    assert torch.equal(logits_of(small), before)
    with pytest.raises(CapabilityError, match="quantized student stay"):
        small.check_start(Adaptation(all_weights=True))


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)
def test_the_gradient_of_a_quantized_student_is_the_slope_of_its_loss(tiny_llama: Path) -> None:
    small = load(tiny_llama, quantization="4bit")
    logits_of(small)  # what was computed without gradients before must not matter
    student = small.trainable_copy(Adaptation(rank=2, alpha=4))
    train_a_little(student)
    module = student.trainable_module()
    tokens = torch.tensor([ROWS[0]])

    def loss() -> torch.Tensor:
        found: torch.Tensor = module(input_ids=tokens, labels=tokens).loss
        return found

    loss().backward()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    slope = sum(
        float((parameter.grad.double() ** 2).sum())
        for parameter in trained
        if parameter.grad is not None
    )

    def beside(step: float) -> float:
        with torch.no_grad():
            for parameter in trained:
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=step)
            found = float(loss())
            for parameter in trained:
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=step)
        return found

    step = 1e-2 / slope
    assert (beside(step) - beside(-step)) / (2 * step) == pytest.approx(slope, rel=0.05)


# Kinds of models


def write_model(config: Any, like: Path, folder: Path) -> Path:
    shutil.copytree(like, folder)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.save_pretrained(folder)
    return folder


def sizes(like: Path) -> dict[str, Any]:
    return {
        "vocab_size": load(like).vocabulary_size,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


MIXTURE = {
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
@pytest.mark.filterwarnings("ignore:.*did not match any targeted module:RuntimeWarning")
def test_a_mixture_of_experts_is_a_student_and_has_experts(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path, kind: str
) -> None:
    shared = {**sizes(tiny_llama), **MIXTURE}
    if kind == "qwen3_moe":
        shared |= {"num_experts": 4, "moe_intermediate_size": 32, "head_dim": 16}
    config = (
        MixtralConfig(num_local_experts=4, **shared)
        if kind == "mixtral"
        else Qwen3MoeConfig(**shared)
    )
    folder = write_model(config, tiny_llama, tmp_path / kind)
    base = load(folder)
    bare = logits_of(base)
    student = base.trainable_copy(Adaptation(rank=2, alpha=4))
    assert any(
        "experts" in name
        for name, parameter in student.trainable_module().named_parameters()
        if parameter.requires_grad
    )
    train_a_little(student)
    assert student.generate([user("Why?"), user("What is the capital of France?")], SHORT)
    student.save(tmp_path / "whole")
    student.save(tmp_path / "adapter", merge=False)
    trained = logits_of(student)
    for found in (
        logits_of(load(tmp_path / "whole")),
        logits_of(load(tmp_path / "adapter")),
        plain_logits(folder, tmp_path / "adapter"),
    ):
        torch.testing.assert_close(found, trained, rtol=1e-3, atol=2e-3)
    experts = [load(tmp_path / "adapter"), load(make_adapter("two", 2, base=folder))]
    summed = base.trainable_copy(Adaptation(start_from=tuple(experts), merge_weight=0.5))
    is_the_sum(summed, base, experts, 0.5)
    summed.save(tmp_path / "sum", merge=False)
    torch.testing.assert_close(
        logits_of(load(tmp_path / "sum")), logits_of(summed), rtol=1e-3, atol=2e-3
    )
    torch.testing.assert_close(logits_of(base), bare, rtol=1e-4, atol=1e-4)


def test_a_model_that_can_not_have_lora_says_so_before_it_is_loaded(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(
        MambaConfig(state_size=8, **sizes(tiny_llama)), tiny_llama, tmp_path / "mamba"
    )
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    with pytest.raises(CapabilityError, match="adaptation='full'"):
        load(folder).check_start(Adaptation())
