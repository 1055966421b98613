"""Laws of the shared base: its own values come back to the bit, and each adapter computes as it
would alone.
"""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from domainfusion.errors import CapabilityError, ModelError
from domainfusion.models.shared_base import BaseKey, SharedBase

MakeAdapter = Callable[..., Path]

TOKENS = torch.tensor([[5, 70, 200, 31, 8, 150, 12], [90, 33, 61, 44, 7, 300, 2]])
MERGING_TOLERANCE = 1e-3
"""How far a logit (of size 10) may move when (x·W + x·A·B) is computed as x·(W + A·B) in
float32.
"""


@pytest.fixture
def key(tiny_llama: Path) -> BaseKey:
    return BaseKey(str(tiny_llama), torch.float32, "cpu")


@pytest.fixture
def base(key: BaseKey) -> SharedBase:
    return SharedBase(key)


def logits(base: SharedBase, adapter: str | None, *, merge: bool = True) -> torch.Tensor:
    with torch.inference_mode(), base.using(adapter, merge=merge) as module:
        return module(TOKENS).logits.clone()


def alone(tiny_llama: Path, adapter: Path) -> torch.Tensor:
    """Returns the logits of an adapter as plain PEFT computes them."""
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32), str(adapter)
    )
    with torch.inference_mode():
        return model.eval()(TOKENS).logits


# Sharing


def test_one_key_is_one_base(key: BaseKey) -> None:
    first = SharedBase.get(key)
    assert SharedBase.get(key) is first
    assert SharedBase.get(BaseKey(key.path, torch.float32, "cpu", owner="someone")) is not first
    assert SharedBase.get(BaseKey(key.path, torch.bfloat16, "cpu")) is not first


def test_a_base_that_nobody_holds_is_let_go(key: BaseKey) -> None:
    from domainfusion.models import shared_base

    kept = BaseKey(key.path, torch.float32, "cpu", owner="for a moment")
    base = SharedBase.get(kept)
    assert kept in shared_base._loaded
    del base
    gc.collect()
    assert kept not in shared_base._loaded


def test_eight_experts_hold_seven_adapters_more_than_one(
    key: BaseKey, make_adapter: MakeAdapter
) -> None:
    def held(base: SharedBase) -> int:
        """Returns the bytes of every tensor that the base holds, each storage once, the weights
        kept aside included.
        """
        aside = [replaced.original for replaced in base._replaced]
        tensors = [*base.module.state_dict().values(), *base._copies.values(), *aside]
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in tensors
        }
        return sum(storages.values())

    sizes = []
    for count in (1, 8):
        base = SharedBase(key)
        for seed in range(count):
            base.load_adapter(make_adapter("expert", seed), f"expert {seed}")
            logits(base, f"expert {seed}")
        sizes.append(held(base))
    adapter = load_file(make_adapter("expert", 0) / "adapter_model.safetensors")
    assert sizes[1] - sizes[0] == 7 * sum(tensor.nbytes for tensor in adapter.values())


# The base stays what it is


def test_the_bare_base_computes_as_the_plain_model(
    base: SharedBase, tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    with torch.inference_mode():
        plain = (
            AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
            .eval()(TOKENS)
            .logits
        )
    assert torch.equal(logits(base, None), plain)
    base.load_adapter(make_adapter("one", 1), "one")
    assert torch.equal(logits(base, None), plain)


uses = st.tuples(st.sampled_from(["all", "attention", "embeddings", None]), st.booleans())


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(uses, max_size=8))
def test_no_sequence_of_uses_changes_any_model(
    tiny_llama: Path, make_adapter: MakeAdapter, sequence: list[tuple[str | None, bool]]
) -> None:
    base = SharedBase(BaseKey(str(tiny_llama), torch.float32, "cpu"))
    untouched = {name: tensor.clone() for name, tensor in base.module.state_dict().items()}
    bare = logits(base, None)
    folders = {
        "all": make_adapter("all", 1),
        "attention": make_adapter("attention", 2, target_modules=["q_proj", "v_proj"]),
        "embeddings": make_adapter("embeddings", 3, target_modules=["embed_tokens", "down_proj"]),
    }
    seen: dict[tuple[str | None, bool], torch.Tensor] = {}
    for adapter, merge in sequence:
        if adapter is not None:
            base.load_adapter(
                folders[adapter], adapter
            )  # late, so that adapters meet a base that has one merged
        found = logits(base, adapter, merge=merge)
        assert torch.equal(found, seen.setdefault((adapter, merge), found))
    assert torch.equal(logits(base, None), bare)
    state = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in base.module.state_dict().items()
        if "lora_" not in name
    }
    assert state.keys() == untouched.keys()
    assert all(torch.equal(state[name], untouched[name]) for name in untouched)


def test_an_error_inside_a_use_leaves_the_base_as_it_was(
    base: SharedBase, make_adapter: MakeAdapter
) -> None:
    bare = logits(base, None)
    base.load_adapter(make_adapter("one", 1), "one")
    for adapter in ("one", None):
        with pytest.raises(KeyboardInterrupt), base.using(adapter):
            raise KeyboardInterrupt
    assert torch.equal(logits(base, None), bare)


# Adapters


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_modules": ["q_proj", "down_proj"]},
        {"use_rslora": True},
        {"lora_dropout": 0.5},
        {"use_dora": True},
    ],
)
def test_an_adapter_computes_as_it_does_alone(
    base: SharedBase, tiny_llama: Path, make_adapter: MakeAdapter, options: dict[str, object]
) -> None:
    base.load_adapter(make_adapter("other", 9), "other")
    base.load_adapter(make_adapter("one", 1, **options), "one")
    expected = alone(tiny_llama, make_adapter("one", 1, **options))
    torch.testing.assert_close(logits(base, "one", merge=False), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        logits(base, "one", merge=True), expected, rtol=0, atol=MERGING_TOLERANCE
    )


def test_adapters_differ_from_the_base_and_from_each_other(
    base: SharedBase, make_adapter: MakeAdapter
) -> None:
    for seed, name in enumerate(("one", "two")):
        base.load_adapter(make_adapter(name, seed), name)
    found = [logits(base, adapter) for adapter in (None, "one", "two")]
    for place, one in enumerate(found):
        for other in found[place + 1 :]:
            assert (one - other).abs().max() > 100 * MERGING_TOLERANCE


def test_an_adapter_that_stays_merged_is_not_merged_again(
    base: SharedBase, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.load_adapter(make_adapter("one", 1), "one")
    first = logits(base, "one")
    assert base.peft is not None
    monkeypatch.setattr(base.peft, "merge_adapter", lambda *_: pytest.fail("merged again"))
    base.load_adapter(make_adapter("one", 1), "one")
    assert torch.equal(logits(base, "one"), first)


def test_an_adapter_that_was_removed_is_gone_and_its_neighbours_stay(
    base: SharedBase, make_adapter: MakeAdapter
) -> None:
    for seed, name in enumerate(("one", "two")):
        base.load_adapter(make_adapter(name, seed), name)
    bare, two = logits(base, None), logits(base, "two")
    logits(base, "one")
    base.remove_adapter("one")
    base.remove_adapter("never there")
    assert not [name for name, _ in base.module.named_parameters() if ".one." in name]
    assert torch.equal(logits(base, "two"), two)
    assert torch.equal(logits(base, None), bare)
    base.remove_adapter("two")
    assert torch.equal(logits(base, None), bare)
    base.load_adapter(make_adapter("two", 1), "two")
    assert torch.equal(logits(base, "two"), two)


def test_an_adapter_that_nobody_holds_makes_room_for_the_next_one(
    base: SharedBase, make_adapter: MakeAdapter
) -> None:
    plain = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")

    def there() -> set[str]:
        return set() if base.peft is None else set(base.peft.peft_config)

    base.load_adapter(make_adapter("one", 1), "one")
    one = logits(base, "one")
    for name in ("held", "dropped"):
        base.create_adapter(name, plain)
    held, dropped = base.lend("held"), base.lend("dropped")
    with base.using("dropped"):
        del dropped
        assert there() == {"one", "held", "dropped"}, "it went in the midst of a call"
    base.combine_adapters("sum", ["one"], [1.0])
    assert there() == {"one", "held", "sum"}
    assert torch.equal(logits(base, "one"), one)
    del held
    base.load_adapter(make_adapter("two", 2), "two")
    assert there() == {"one", "sum", "two"}


def test_a_new_adapter_changes_nothing(base: SharedBase, make_adapter: MakeAdapter) -> None:
    bare = logits(base, None)
    base.create_adapter("new", LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert torch.equal(logits(base, "new", merge=False), bare)
    base.load_adapter(make_adapter("one", 1), "one")
    base.create_adapter(
        "newer", LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    assert torch.equal(logits(base, "newer", merge=False), bare)


# Sums of adapters


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 0.7), (1.0, -0.5), (1.0, 0.0)])
@pytest.mark.parametrize(
    "options",
    [
        ({}, {}),
        ({"use_rslora": True}, {"r": 2}),
        ({"target_modules": ["q_proj"]}, {"lora_alpha": 1, "lora_dropout": 0.5}),
    ],
)
def test_a_combination_is_the_weighted_sum_of_the_changes(
    base: SharedBase,
    make_adapter: MakeAdapter,
    weights: tuple[float, float],
    options: tuple[dict[str, object], dict[str, object]],
) -> None:
    for seed, name in enumerate(("one", "two")):
        base.load_adapter(make_adapter(name, seed, **options[seed]), name)

    def weights_with(adapter: str | None) -> dict[str, torch.Tensor]:
        with base.using(adapter) as module:
            state = module.state_dict()
            return {
                name: tensor.double().clone()
                for name, tensor in state.items()
                if "lora_" not in name
            }

    base.combine_adapters("sum", ["one", "two"], weights)
    bare, one, two, combined = (weights_with(adapter) for adapter in (None, "one", "two", "sum"))
    for name, tensor in bare.items():
        expected = tensor + weights[0] * (one[name] - tensor) + weights[1] * (two[name] - tensor)
        torch.testing.assert_close(combined[name], expected, rtol=0, atol=1e-5)
    assert (
        base.adapter_config("sum").r == base.adapter_config("one").r + base.adapter_config("two").r
    )


def test_a_combination_has_the_dropout_that_was_asked_for(
    base: SharedBase, make_adapter: MakeAdapter
) -> None:
    base.load_adapter(make_adapter("one", 1, lora_dropout=0.5), "one")
    base.combine_adapters("plain", ["one"], [1.0])
    base.combine_adapters("dropping", ["one"], [1.0], dropout=0.25)
    dropped = {
        name: module.p
        for name, module in base.module.named_modules()
        if isinstance(module, torch.nn.Dropout)
    }
    assert not [name for name in dropped if name.endswith("lora_dropout.plain")]
    assert {rate for name, rate in dropped.items() if name.endswith("lora_dropout.dropping")} == {
        0.25
    }


def test_a_dora_adapter_can_not_be_summed(base: SharedBase, make_adapter: MakeAdapter) -> None:
    base.load_adapter(make_adapter("one", 1, use_dora=True), "one")
    with pytest.raises(CapabilityError, match="DoRA"):
        base.combine_adapters("sum", ["one", "one"], [1.0, 1.0])


# Gradients


def test_what_is_trained_is_nobody_elses_choice(
    base: SharedBase, make_adapter: MakeAdapter
) -> None:
    base.create_adapter(
        "student", LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    assert not [
        name for name, parameter in base.module.named_parameters() if parameter.requires_grad
    ]
    wanted = {name for name, _ in base.module.named_parameters() if ".student." in name}
    for name, parameter in base.module.named_parameters():
        parameter.requires_grad_(name in wanted)
    base.load_adapter(make_adapter("one", 1), "one")
    for adapter in ("one", None, "student", "one"):
        for merge in (True, False):
            logits(base, adapter, merge=merge)
    base.combine_adapters("sum", ["one", "student"], [1.0, 1.0])
    base.activate("student", merge=False)
    assert {
        name for name, parameter in base.module.named_parameters() if parameter.requires_grad
    } == wanted
    base.module(TOKENS).logits.sum().backward()
    assert {
        name for name, parameter in base.module.named_parameters() if parameter.grad is not None
    } == wanted


def test_an_adapter_that_is_loaded_in_the_midst_of_training_does_not_end_it(
    base: SharedBase, make_adapter: MakeAdapter
) -> None:
    base.create_adapter(
        "student",
        LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for training in (True, False):
        base.module.train(training)
        base.load_adapter(make_adapter("one", int(training)), f"one {training}")
        base.combine_adapters(f"sum {training}", [f"one {training}", "student"], [1.0, 1.0])
        with base.using(f"one {training}"), base.using(None):
            assert base.module.training is training
        base.remove_adapter(f"one {training}")
        assert {
            module.training for name, module in base.module.named_modules() if "student" in name
        } == {training}


# Loading


def test_loading_is_silent(tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    SharedBase(BaseKey(str(tiny_llama), torch.float32, "cpu"))
    assert capfd.readouterr() == ("", "")


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_weights_that_end_too_early_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_llama, tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cut"):
        SharedBase(BaseKey(str(folder), torch.float32, "cpu"))


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = _copy(tiny_llama, tmp_path / "holey")
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        SharedBase(BaseKey(str(folder), torch.float32, "cpu"))


def test_weights_of_other_shapes_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_llama, tmp_path / "odd")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"intermediate_size": 128', '"intermediate_size": 96')
    )
    with pytest.raises(ModelError, match="odd"):
        SharedBase(BaseKey(str(folder), torch.float32, "cpu"))
