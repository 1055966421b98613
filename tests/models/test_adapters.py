"""An adapter fits its base exactly or is refused before the base is loaded, and none ever writes
into its base.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from domainfusion.errors import ModelError
from domainfusion.models import HuggingFaceModel, adapters

MakeAdapter = Callable[..., Path]

ROWS = [list(range(5, 25)), list(range(40, 52))]

SOME = {"target_modules": ["q_proj", "o_proj", "up_proj"]}
"""Layers named by their last part, so that a base of any depth has them."""


def logits_of(model: HuggingFaceModel) -> torch.Tensor:
    return torch.cat([model.project(states) for states in model.hidden_states(ROWS)])


def plain_peft(base: Path, adapter: Path | None = None) -> torch.Tensor:
    """Returns what plain PEFT computes with the adapter, unmerged."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    with torch.no_grad():
        return torch.cat([model.eval()(input_ids=torch.tensor([row])).logits[0] for row in ROWS])


def load(path: Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, dtype="float32", **options)


def changed(
    source: Path,
    folder: Path,
    *,
    rename: Callable[[str], str] = lambda key: key,
    change: Callable[[str, torch.Tensor], torch.Tensor] = lambda _, tensor: tensor,
    **settings: Any,
) -> Path:
    """Copies an adapter with other names (an empty one leaves the weight out), numbers or
    settings.
    """
    shutil.copytree(source, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {
        rename(key): change(key, tensor).contiguous()
        for key, tensor in weights.items()
        if rename(key)
    }
    save_file(kept, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    return folder


# Names


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda key: key.replace(".layers.0.", ".layers.0._checkpoint_wrapped_module."),
        lambda key: key.replace(".layers.", "._fsdp_wrapped_module.layers."),
        lambda key: key.replace(".weight", ".default.weight"),
    ],
    ids=["torch.compile", "activation checkpointing", "FSDP", "the adapter's own name"],
)
def test_a_name_that_a_wrapper_got_into_is_put_right(
    make_adapter: MakeAdapter, tmp_path: Path, rename: Any
) -> None:
    expert = make_adapter("one", 1)
    assert torch.equal(
        logits_of(load(changed(expert, tmp_path / "a", rename=rename))), logits_of(load(expert))
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"rename": lambda key: key.replace("model.model.model.", "model.model.")},
            r"base_model\.model\.layers\.0",
        ),
        (
            {"rename": lambda key: key.replace("model.layers", "model.language_model.layers")},
            r"language_model\.layers",
        ),
        ({"rename": lambda key: key.replace("layers.1.", "layers.7.")}, r"layers\.7"),
        ({"rename": lambda key: "" if "layers.1." in key else key}, r"layers\.1.*"),
        ({"rename": lambda key: "" if "lora_B" in key else key}, "lora_B"),
        ({"r": 16}, r"shape \(4, 64\).*allowed: the shape \(16, 64\)"),
        (
            {"change": lambda key, tensor: tensor[:, :32] if "q_proj.lora_A" in key else tensor},
            r"q_proj.*\(4, 32\)",
        ),
        ({"target_modules": ["c_attn"]}, "c_attn"),
        ({"layers_to_transform": [0]}, r"layers\.1"),
        ({"some_new_switch": True}, "some_new_switch"),
        ({"r": "four"}, "."),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens.*APIModel"),
        ({"init_lora_weights": "corda"}, "corda.*path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "lora_ga"}, "lora_ga"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16"),
        ({"init_lora_weights": "pissa", "use_dora": True}, "DoRA"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config.*merge_and_unload"),
        (
            {
                "change": lambda key, tensor: (
                    tensor * float("nan") if "layers.1.mlp.up_proj.lora_B" in key else tensor
                )
            },
            r"finite.*up_proj",
        ),
        (
            {"change": lambda key, tensor: tensor + float("inf") if "o_proj" in key else tensor},
            "finite.*o_proj",
        ),
        ({"change": lambda _, tensor: tensor * 0}, "changes nothing"),
        (
            {"change": lambda key, tensor: tensor * 0 if "lora_B" in key else tensor},
            "changes nothing",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_its_base_is_loaded(
    make_adapter: MakeAdapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    named: str,
) -> None:
    folder = changed(make_adapter("some", 1, **SOME), tmp_path / "odd", **changes)
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    with pytest.raises(ModelError, match=f"(?s){named}"):
        load(folder)


def test_a_file_with_two_weights_for_a_place_is_refused(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    folder = changed(make_adapter("some", 1, **SOME), tmp_path / "odd")
    weights = load_file(folder / "adapter_model.safetensors")
    twice = {
        key.replace(".weight", ".second.weight"): tensor.clone() for key, tensor in weights.items()
    }
    save_file({**weights, **twice}, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="two weights for"):
        load(folder)


def test_a_deeper_base_is_not_filled_by_half_an_adapter(
    make_llama: Callable[..., Path], make_adapter: MakeAdapter
) -> None:
    deep = make_llama("deep", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"layers\.2"):
        load(make_adapter("some", 1, **SOME), base_model=deep)


def test_settings_of_training_are_not_an_obstacle(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    expert = make_adapter("one", 1)
    training: dict[str, Any] = {
        "bias": "all",
        "init_lora_weights": "eva",
        "lora_dropout": 0.3,
        "some_new_switch": None,
        "inference_mode": False,
    }
    same = changed(expert, tmp_path / "a", **training)
    assert torch.equal(logits_of(load(same)), logits_of(load(expert)))


def test_loading_an_adapter_moves_no_random_numbers(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    load(tiny_llama)._load()
    expert = load(make_adapter("one", 1))
    state = torch.random.get_rng_state()
    expert._load()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_of_a_model_that_are_not_finite_are_refused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"not finite.*layers\.1\.mlp\.up_proj"):
        load(folder)._load()


# Bases


def test_a_base_beside_the_adapter_is_found_wherever_one_works(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_llama, tmp_path / "models" / "base")
    expert = changed(
        make_adapter("one", 1), tmp_path / "models" / "expert", base_model_name_or_path="../base"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(logits_of(load(expert)), logits_of(load(make_adapter("one", 1))))


@pytest.mark.parametrize("base", ["/no/such/base", "nobody/nothing", "./gone"])
def test_a_base_that_is_missing_is_told_as_the_adapters(
    make_adapter: MakeAdapter, tmp_path: Path, base: str
) -> None:
    folder = changed(make_adapter("one", 1), tmp_path / "lost", base_model_name_or_path=base)
    with pytest.raises(ModelError, match=rf"base .* for the adapter .*lost .*{base}.*base_model="):
        load(folder)


def test_a_given_base_that_is_missing_is_told_as_the_given_one(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="that base_model says for the adapter"):
        load(make_adapter("one", 1), base_model=tmp_path / "gone")


# What an initialization wrote into the base


@pytest.mark.parametrize(
    ("initialization", "settings"),
    [
        ("pissa", {"use_rslora": True}),
        ("pissa", {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"k_proj": 5, "q_proj": 3}}),
        ("olora", {"alpha_pattern": {"k_proj": 5, "q_proj": 3}}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*changes the base weights:UserWarning")
def test_an_adapter_that_took_a_part_of_its_base_leaves_everybody_as_he_is(
    tiny_llama: Path, make_adapter: MakeAdapter, initialization: str, settings: dict[str, Any]
) -> None:
    special = make_adapter("special", 2, init_lora_weights=initialization, **settings)
    neighbour = make_adapter("plain", 1)
    expected = {folder: plain_peft(tiny_llama, folder) for folder in (None, neighbour, special)}
    models = {None: load(tiny_llama), neighbour: load(neighbour), special: load(special)}
    first = {folder: logits_of(model) for folder, model in models.items()}
    for folder in (special, None, special, neighbour, special, None, neighbour):
        found = logits_of(models[folder])
        torch.testing.assert_close(found, expected[folder], rtol=1e-3, atol=2e-3)
        assert torch.equal(found, first[folder])


@pytest.mark.filterwarnings("ignore:.*changes the base weights:UserWarning")
def test_an_adapter_that_took_a_part_is_saved_as_plain_lora(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    special = make_adapter("special", 2, init_lora_weights="pissa", use_rslora=True)
    expert = load(special)
    expert.save(tmp_path / "plain", merge=False)
    torch.testing.assert_close(
        plain_peft(tiny_llama, tmp_path / "plain"), logits_of(expert), rtol=1e-3, atol=2e-3
    )
    assert torch.equal(logits_of(load(tmp_path / "plain")), logits_of(expert))


# Tied embeddings


@pytest.mark.parametrize(
    ("tied", "targets"),
    [
        (True, ["q_proj", "lm_head"]),
        (True, ["q_proj", "embed_tokens"]),
        (True, ["embed_tokens", "lm_head"]),
        (False, ["embed_tokens", "lm_head"]),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:(?s).*tie_word_embeddings:UserWarning", "ignore:.*save_embedding_layers:UserWarning"
)
def test_an_adapter_on_embeddings_is_what_peft_computes_unmerged(
    make_llama: Callable[..., Path],
    make_adapter: MakeAdapter,
    tmp_path: Path,
    tied: bool,
    targets: list[str],
) -> None:
    base = make_llama("tied", tie_word_embeddings=tied)
    folder = make_adapter("embedding", 1, base=base, target_modules=targets)
    expected, bare = plain_peft(base, folder), plain_peft(base)
    expert, original = load(folder), load(base)
    for _ in range(2):
        torch.testing.assert_close(logits_of(expert), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits_of(original), bare, rtol=1e-4, atol=1e-4)
    expert.save(tmp_path / "whole")
    torch.testing.assert_close(plain_peft(tmp_path / "whole"), expected, rtol=1e-4, atol=1e-4)
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    expert.save(tmp_path / "again", merge=False)
    assert torch.equal(logits_of(load(tmp_path / "again")), logits_of(expert))


@pytest.mark.filterwarnings(
    "ignore:(?s).*tie_word_embeddings:UserWarning", "ignore:.*save_embedding_layers:UserWarning"
)
def test_embeddings_that_lie_beside_an_adapter_are_the_bases_own_or_it_is_refused(
    make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_llama("tied", tie_word_embeddings=True)
    torch.manual_seed(3)
    config = LoraConfig(target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(tmp_path / "full"))
    assert any(
        "base_layer" in key for key in load_file(tmp_path / "full" / "adapter_model.safetensors")
    )
    torch.testing.assert_close(
        logits_of(load(tmp_path / "full")),
        plain_peft(base, tmp_path / "full"),
        rtol=1e-4,
        atol=1e-4,
    )
    trained = changed(
        tmp_path / "full",
        tmp_path / "trained",
        change=lambda key, t: t + 0.01 if "base_layer" in key else t,
    )
    with pytest.raises(ModelError, match=r"lm_head.*tie_word_embeddings=False"):
        load(trained)._load()


# Advice


def _trained(model: Any) -> Any:
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name or "trainable_tokens" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize(
    ("tied", "settings"),
    [
        (True, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
        (True, {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["embed_tokens"]}),
        (True, {"target_modules": ["q_proj"], "trainable_token_indices": [3, 4]}),
        (False, {"target_modules": ["q_proj"], "lora_bias": True}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_a_refusal_advises_gives_the_expert(
    make_llama: Callable[..., Path], tmp_path: Path, tied: bool, settings: dict[str, Any]
) -> None:
    base = make_llama("tied", tie_word_embeddings=tied, attention_bias="lora_bias" in settings)
    config = LoraConfig(task_type="CAUSAL_LM", **settings)
    _trained(get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)).save_pretrained(
        tmp_path / "expert"
    )
    with pytest.raises(ModelError, match="merge_and_unload") as refused:
        load(tmp_path / "expert")
    model: Any
    if "tie_word_embeddings=False" in str(refused.value):
        model = AutoModelForCausalLM.from_pretrained(base, tie_word_embeddings=False)
        model.lm_head.weight.data = model.get_input_embeddings().weight.data.clone()
    else:
        model = AutoModelForCausalLM.from_pretrained(base)
    with_adapter = PeftModel.from_pretrained(model, str(tmp_path / "expert"))
    with_adapter.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        logits_of(load(tmp_path / "merged")),
        plain_peft(base, tmp_path / "expert"),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (r"(.*.*.*.*)*(a+)+X", "not done after 1 s"),
        (r"(model+|layers+|[a-z.0-9]+)+X", "not done after 1 s"),
        ("*proj", "hold no pattern: .*nothing to repeat"),
    ],
)
def test_patterns_that_take_years_or_are_none_are_one_error_in_time(
    pattern: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "PATTERN_SECONDS", 1.0)
    layers = [f"model.layers.{number}.self_attn.q_proj" for number in range(30)]
    started = time.monotonic()
    with pytest.raises(ModelError, match=told):
        adapters.refuse_slow_patterns({"target_modules": pattern}, layers, tmp_path)
    assert time.monotonic() - started < 15
    usual = {"target_modules": r"model\.layers\.\d+\..*(q|v)_proj", "rank_pattern": {"q_proj": 4}}
    adapters.refuse_slow_patterns(usual, layers, tmp_path)
