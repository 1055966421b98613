"""LoRA adapters: their weights as they lie in a file, and how they come onto a base: all of them,
in the right places, or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from domainfusion.errors import CapabilityError, ModelError
from domainfusion.models.adapter_settings import (
    EXACT_INITIALIZATIONS,
    WEIGHTS_FILE,
    beyond_lora,
    check_kind,
    check_settings,
    read_settings,
)
from domainfusion.models.locate import read_whole_config

UNTRAINED = "changes_nothing"
"""The note in the file of an adapter that was saved before it had learned anything: no other
adapter may change nothing.
"""

_PREFIX = "base_model.model."
"""What PEFT writes before the name of a layer."""

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing write into the names of the layers that
they wrap.
"""

_ADAPTER_NAME = re.compile(
    # the kind of weight
    r"\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    # the adapter's name, which PEFT takes out when it saves and some other tools leave in
    r"\.(?!weight$)[^.]+"
    r"(?=\.weight$|$)"
)

_USED = (
    *(
        "r",
        "lora_alpha",
        "target_modules",
        "exclude_modules",
        "fan_in_fan_out",
        "use_rslora",
        "layers_to_transform",
    ),
    *("layers_pattern", "rank_pattern", "alpha_pattern", "use_dora", "target_parameters"),
)
"""The settings of an adapter that say what it computes; others say how it was trained, or are
refused (`check_settings`).
"""

_checked: set[tuple[str, str, str]] = set()


class AdapterWeights(NamedTuple):
    """The weights in the file of an adapter.

    Attributes:
        factors: Those of the adapter, under PEFT's names.
        copies: Weights of its base that lie in the file too, under the base's names.
    """

    factors: dict[str, torch.Tensor]
    copies: dict[str, torch.Tensor]


def check_adapter(adapter: Path, base: Path, adapter_hash: str) -> None:
    """Looks at whether an adapter fits its base, of which nothing but the configuration is read.

    Args:
        adapter: The adapter's folder.
        base: Folder or GGUF file of its base.
        adapter_hash: Hash of the adapter's files: what was found right once is not looked at again.

    Raises:
        ModelError: Its settings or weights are not those of a LoRA adapter on this base, or some of
            its numbers are not finite.
    """
    config = read_whole_config(base)
    key = (str(adapter), adapter_hash, config.to_json_string())
    if key in _checked:
        return
    settings = read_settings(adapter)
    check_kind(settings)
    weights = read_weights(adapter)
    skeleton = skeleton_of(config)
    untie = _stands_on_tied(skeleton, weights.factors)
    check_settings(settings, adapter, untie=untie)
    known = {
        name: parameter.shape
        for name, parameter in skeleton.named_parameters(remove_duplicate=False)
    }
    for name, tensor in weights.copies.items():
        if known.get(name) != tensor.shape:
            raise beyond_lora(name, adapter, untie=untie)
    refuse_slow_patterns(settings, [name for name, _ in skeleton.named_modules()], adapter)
    empty = {name: tensor.to("meta") for name, tensor in weights.factors.items()}
    put_on(skeleton, None, "adapter_to_check", lora_config(settings, adapter), empty, adapter)
    _checked.add(key)


PATTERN_SECONDS = 10.0
"""The time that the patterns of an adapter may take to be compared with the names of a model's
layers.
"""

_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for name in names:
        re.fullmatch(pattern, name), re.match(pattern, name), re.search(pattern, name)
"""


def refuse_slow_patterns(settings: Mapping[str, Any], layers: Sequence[str], adapter: Path) -> None:
    """Raises where the patterns that choose an adapter's layers take too long: a few characters
    such as `(a+)+$` can take years, and nothing ends a match that is under way but the end of its
    process. So they are tried in a process of its own.

    Args:
        settings: The adapter's settings.
        layers: The names of the model's layers.
        adapter: The adapter's folder.

    Raises:
        ModelError: They take longer than `PATTERN_SECONDS`, or are not patterns.
    """
    found: list[str] = []
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = settings.get(name)
        # A list holds endings of names, which are compared as they are.
        found += [value] if isinstance(value, str) else []
    for name in ("rank_pattern", "alpha_pattern"):
        found += list(settings.get(name) or {})
    # Without something that repeats there is nothing to try in many ways.
    repeating = [each for each in found if isinstance(each, str) and re.search(r"[*+{]", each)]
    if not repeating:
        return
    command = [sys.executable, "-I", "-S", "-c", _MATCH]
    asked = json.dumps([repeating, list(layers)]).encode()
    try:
        tried = subprocess.run(command, input=asked, timeout=PATTERN_SECONDS, capture_output=True)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            "The patterns by which the adapter chooses its layers were not done after"
            f" {PATTERN_SECONDS:g} s",
            received=", ".join(repeating)[:200],
            fix=f"write the layers as a list in {adapter / 'adapter_config.json'}",
        ) from error
    if tried.returncode:
        lines = tried.stderr.decode(errors="replace").strip().splitlines()
        raise ModelError(
            f"The adapter's settings hold no pattern: {lines[-1] if lines else 'no reason given'}",
            received=", ".join(repeating)[:200],
            fix=f"correct {adapter / 'adapter_config.json'}",
        )


def skeleton_of(config: Any) -> PreTrainedModel:
    """Returns the model of a configuration without numbers in its weights: names and shapes
    alone.
    """
    with torch.device("meta"):
        return cast(PreTrainedModel, cast(Any, AutoModelForCausalLM).from_config(config))


def lora_config(settings: Mapping[str, Any], adapter: Path) -> LoraConfig:
    """Returns PEFT's settings for an adapter whose weights are known: what it computes, and nothing
    about how it was begun or trained.

    Raises:
        ModelError: A setting is not known here, or not one that PEFT takes.
    """
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    if strange := sorted(name for name, value in settings.items() if name not in known and value):
        raise ModelError(
            "The adapter has a setting that the installed PEFT does not know:"
            f" {strange[0]}={settings[strange[0]]!r}",
            received=str(adapter),
            fix=(
                "upgrade peft; or take the setting out of adapter_config.json, if it does not"
                " change what the adapter computes"
            ),
        )
    used = {name: settings[name] for name in _USED if settings.get(name) is not None}
    try:
        return LoraConfig(**used, task_type="CAUSAL_LM", bias="none")
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"The adapter's settings are invalid: {error}", received=str(adapter)
        ) from error


def read_weights(adapter: Path) -> AdapterWeights:
    """Returns the weights in an adapter's folder, under the names that PEFT gives them.

    Names that torch's wrappers, or the adapter's own name, have got into are put right: that
    changes no weight and no place.

    Raises:
        ModelError: They can't be read, some are not finite, or they change nothing.
    """
    file = adapter / WEIGHTS_FILE
    try:
        with cast(Any, safe_open)(file, framework="pt") as stored:
            found = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - the file is not a mapping
            note = stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The adapter's weights can't be read: {error}", received=str(file), fix="save it again"
        ) from error
    if bad := first_not_finite(found.items()):
        raise ModelError(
            f"The adapter holds numbers that are not finite, in {bad}",
            received=str(file),
            fix="train it again, with a lower learning rate",
        )
    weights = AdapterWeights({}, {})
    for name, tensor in found.items():
        right = _ADAPTER_NAME.sub(r".\1", _without_wrappers(name))
        if "lora_" in right:
            place, key = weights.factors, right
        else:
            place, key = weights.copies, right.removeprefix(_PREFIX).replace(".base_layer.", ".")
        if key in place:
            raise ModelError(
                f"The adapter's file holds two weights for {key}",
                received=str(file),
                fix="save one adapter to a file",
            )
        place[key] = tensor
    if UNTRAINED not in note and changes_nothing(weights.factors):
        raise ModelError(
            "The adapter changes nothing: its weights are zero, or there are none",
            received=str(file),
            fix=(
                "train it, or save it again: sharded training (DeepSpeed ZeRO-3, FSDP) has to"
                " gather the weights first"
            ),
        )
    return weights


def first_not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """Returns the name of the first tensor that holds an infinity or no number at all; None where
    there is none.
    """
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel() and tensor.device.type != "meta":
            low, high = torch.aminmax(tensor.detach())  # both are NaN where one of the numbers is
            if not (math.isfinite(low) and math.isfinite(high)):
                return name
    return None


def _without_wrappers(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def changes_nothing(factors: Mapping[str, torch.Tensor]) -> bool:
    """Whether on every layer one of the two factors is zero; the magnitudes of a DoRA adapter may
    change it anyway.
    """
    if any("magnitude" in name for name in factors):
        return False
    second = {
        name: name.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")
        for name in factors
    }
    pairs = [
        (name, second[name]) for name in factors if second[name] != name and second[name] in factors
    ]
    return not any(bool(factors[a].any()) and bool(factors[b].any()) for a, b in pairs) and len(
        pairs
    ) * 2 == len(factors)


def put_on(
    module: PreTrainedModel,
    peft: PeftModel | None,
    name: str,
    config: LoraConfig,
    factors: Mapping[str, torch.Tensor],
    adapter: Path,
) -> PeftModel:
    """Puts an adapter beside those that are on a module, with its weights.

    Args:
        module: The base; its weights may be on the meta device, as long as the adapter's are.
        peft: What earlier adapters were put on with; None for the first.
        name: Its name on the base.
        config: Its settings.
        factors: Its weights, under PEFT's names.
        adapter: Its folder, for the message.

    Raises:
        ModelError: The weights are not exactly those that the settings ask for on this base.
    """
    on_meta = module.device.type == "meta"
    # What PEFT draws for a start is overwritten: it must not change anybody's random numbers.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter(
            "ignore"
        )  # about initial values, unused patterns and tied weights, all of which are looked at here
        try:
            peft = add_adapter(module, peft, name, config, on_meta=on_meta)
            places = _places(peft, name)
            shapes = {place.removesuffix(".weight"): shape for place, shape in places.items()}
            for key, tensor in factors.items():
                if (wanted := shapes.get(key.removesuffix(".weight"))) not in (None, tensor.shape):
                    raise ModelError(
                        f"The adapter does not fit its base: {key} has the shape"
                        f" {tuple(tensor.shape)}",
                        received=str(adapter),
                        allowed=f"the shape {tuple(wanted)}",
                        fix=(
                            "give the base that it was trained on with base_model=..., and the"
                            " adapter_config.json it was saved with"
                        ),
                    )
            wide = {
                key: tensor.float() if tensor.is_floating_point() else tensor
                for key, tensor in factors.items()
            }
            result = cast(Any, set_peft_model_state_dict)(
                peft, wide, adapter_name=name, low_cpu_mem_usage=on_meta
            )
        except ModelError:
            raise
        except Exception as error:  # PEFT raises whatever it stumbles over
            raise ModelError(
                f"The adapter does not fit its base: {_first_lines(error)}",
                received=str(adapter),
                fix="give the base that it was trained on with base_model=...",
            ) from error
    missing = sorted({key.replace(f".{name}", "") for key in result.missing_keys} & set(places))
    unexpected = sorted(key.replace(f".{name}", "") for key in result.unexpected_keys)
    if missing or unexpected:
        raise ModelError(
            "The adapter does not fit its base: "
            + " and ".join(_misfits(missing, unexpected, len(places))),
            received=str(adapter),
            allowed="exactly the weights that its settings ask for on this base",
            fix=(
                "give the base that it was trained on with base_model=..., or save the adapter"
                " again with PEFT's save_pretrained"
            ),
        )
    return peft


def add_adapter(
    module: PreTrainedModel,
    peft: PeftModel | None,
    name: str,
    config: LoraConfig,
    *,
    on_meta: bool = False,
) -> PeftModel:
    """Puts a new adapter beside those that are on a module, without weights that mean anything
    yet.
    """
    if peft is None:
        return cast(
            PeftModel, get_peft_model(module, config, adapter_name=name, low_cpu_mem_usage=on_meta)
        )
    peft.add_adapter(name, config, low_cpu_mem_usage=on_meta)
    return peft


def add_new_adapter(
    module: PreTrainedModel,
    peft: PeftModel | None,
    name: str,
    config: LoraConfig,
    *,
    on_meta: bool = False,
) -> PeftModel:
    """Puts an adapter that changes nothing yet beside those that are on a module.

    Raises:
        CapabilityError: PEFT has no such adapter for this kind of model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # about patterns of fused experts, which PEFT itself has made
        try:
            return add_adapter(module, peft, name, config, on_meta=on_meta)
        except (ValueError, TypeError, NotImplementedError, RuntimeError, AttributeError) as error:
            raise CapabilityError(
                f"This LoRA adapter can't be created on this model: {_first_lines(error)}",
                received=type(module).__name__,
                allowed="a model with linear layers in transformer blocks",
                fix="train all weights with adaptation='full'",
            ) from error


def check_new_adapter(config: LoraConfig, base: Path) -> None:
    """Looks at whether a model can have a new adapter; nothing but its configuration is read.

    Raises:
        CapabilityError: It can't.
    """
    add_new_adapter(
        skeleton_of(read_whole_config(base)), None, "adapter_to_check", config, on_meta=True
    )


def _places(peft: PeftModel, name: str) -> dict[str, torch.Size]:
    """Returns the names and shapes of the weights of the adapter `name`, without its name."""
    return {
        key.replace(f".{name}", ""): parameter.shape
        for key, parameter in peft.named_parameters()
        if f".{name}." in f"{key}."
    }


def _misfits(missing: list[str], unexpected: list[str], places: int) -> Iterable[str]:
    if unexpected:
        yield f"{len(unexpected)} of its weights have no place there ({_some(unexpected)})"
    if missing:
        yield (
            f"{len(missing)} of {places} places that its settings name get no weights"
            f" ({_some(missing)})"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2])[:300]


def check_copies(weights: AdapterWeights, module: PreTrainedModel, adapter: Path) -> None:
    """Refuses an adapter in whose file a weight of the base lies that is not as the base has it.

    PEFT saves embeddings beside an adapter that stands on them: they are the base's own, or they
    were trained or resized too.

    Raises:
        ModelError: One of them differs.
    """
    own = {
        name.replace(".base_layer.", "."): weight
        for name, weight in module.named_parameters(remove_duplicate=False)
    }
    for name, tensor in weights.copies.items():
        weight = own.get(name)
        if weight is None or not torch.equal(weight.detach().to("cpu", tensor.dtype), tensor):
            raise beyond_lora(name, adapter, untie=_stands_on_tied(module, weights.factors))


def _stands_on_tied(module: PreTrainedModel, factors: Mapping[str, torch.Tensor]) -> bool:
    """Whether an adapter stands on one of two embeddings that are one matrix."""
    embeddings = [module.get_input_embeddings(), module.get_output_embeddings()]  # type: ignore[no-untyped-call]
    if not cast(Any, module.config).get_text_config().tie_word_embeddings:
        return False
    names = {name for name, layer in module.named_modules() if layer in embeddings}
    return any(key.startswith(f"{_PREFIX}{name}.") for key in factors for name in names)


def as_plain_lora(
    module: PreTrainedModel,
    settings: Mapping[str, Any],
    config: LoraConfig,
    factors: Mapping[str, torch.Tensor],
    adapter: Path,
) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """Returns an adapter as plain LoRA, which leaves the base as it is, whatever it was initialized
    with.

    PiSSA (Meng et al., 2024, arXiv 2404.02948) and OLoRA (Büyükakyüz, 2024, arXiv 2406.01775) split
    each weight W into factors B₀A₀ and a rest W − s·B₀A₀, and train the factors. The result (W −
    s·B₀A₀) + s·BA is W + s·[B, −B₀][A; A₀]: an adapter of twice the rank on W.

    Args:
        module: The base.
        settings: The adapter's settings.
        config: The same, as `lora_config` returns them.
        factors: Its weights.
        adapter: Its folder, for the message.
    """
    method = settings.get("init_lora_weights")
    if method not in EXACT_INITIALIZATIONS:
        return config, dict(factors)
    doubled: dict[str, torch.Tensor] = {}
    for key, a in factors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        other = key.replace("lora_A", "lora_B")
        weight = _base_weight(module, name, adapter)
        b0, a0 = _INITIAL[str(method)](weight, len(a), scaling_of(config, name))
        b = factors[other].to(b0)
        doubled[key] = torch.cat([a.to(a0), a0]).contiguous()
        doubled[other] = torch.cat([b, -b0], dim=1).contiguous()
    # The scale is alpha / rank, or alpha / √rank: it stays as it was.
    factor = math.sqrt(2) if config.use_rslora else 2
    alphas = {key: cast(int, alpha * factor) for key, alpha in (config.alpha_pattern or {}).items()}
    ranks = {key: rank * 2 for key, rank in (config.rank_pattern or {}).items()}
    plain = dataclasses.replace(
        config,
        r=config.r * 2,
        lora_alpha=cast(int, config.lora_alpha * factor),
        rank_pattern=ranks,
        alpha_pattern=alphas,
    )
    return plain, doubled


def _base_weight(module: PreTrainedModel, name: str, adapter: Path) -> torch.Tensor:
    """Returns the weight of a layer in float32, of shape (out, in)."""
    layer = module.get_submodule(name)
    if isinstance(layer, BaseTunerLayer):
        layer = layer.get_base_layer()
    weight = cast(torch.Tensor, layer.weight).detach()
    if not weight.is_floating_point() or hasattr(weight, "quant_state"):
        raise ModelError(
            "What the adapter's initialization moved out of its base can't be found in a"
            " quantized one",
            received=str(adapter),
            fix="leave quantization out, or save the adapter as plain LoRA",
        )
    weight = weight.float()
    return weight.T if isinstance(layer, Conv1D) else weight


def scaling_of(config: LoraConfig, name: str) -> float:
    """Returns what the product of a layer's two factors is multiplied by."""
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(list(ranks), name), config.r)
    alpha = alphas.get(get_pattern_key(list(alphas), name), config.lora_alpha)
    return float(alpha / math.sqrt(rank) if config.use_rslora else alpha / rank)


def _pissa(weight: torch.Tensor, rank: int, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    root = (s[:rank] / scaling).sqrt()
    return u[:, :rank] * root, root[:, None] * vh[:rank]


def _olora(weight: torch.Tensor, rank: int, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    q, r = torch.linalg.qr(weight)
    return q[:, :rank], r[:rank]


_INITIAL = {"pissa": _pissa, "olora": _olora}
"""What an initialization gives for a weight, the rank and the scale: the factors B₀ and A₀."""
