"""The exact sum of experts: LoRA adapters as one adapter, and whole fine-tunes as their task
vectors.

With θ for the base and θₖ for the experts, a merge of weight λ is θ + λ·Σ(θₖ − θ) (task arithmetic;
Ilharco et al., 2022, arXiv 2212.04089).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Embedding, LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from domainfusion.errors import CapabilityError, ModelError
from domainfusion.records import from_json

LARGEST_STEP = 0.5
"""The largest ‖θₖ − θ‖ / ‖θ‖ of a matrix that is taken for fine-tuning; independent weights differ
by about √2.
"""

MATRICES_COMPARED = 8
"""Matrices at which an expert is compared with the base before anything is summed."""


# LoRA adapters


class LoraFactors(NamedTuple):
    """A layer's low-rank update Δ = B·A, the adapter's scale included.

    Attributes:
        a: Of shape (rank, in).
        b: Of shape (out, rank).
    """

    a: torch.Tensor
    b: torch.Tensor


def factors_of(layer: Any, adapter: str) -> LoraFactors:
    """Returns an adapter's update of a linear layer."""
    return LoraFactors(
        _factor(layer, "lora_A", adapter).detach() * layer.scaling[adapter],
        _factor(layer, "lora_B", adapter).detach(),
    )


@torch.no_grad()
def write_factors(layer: Any, adapter: str, factors: LoraFactors) -> None:
    """Puts `factors` in the place of as many of the first ranks of an adapter's update of a linear
    layer; further ranks stay.
    """
    rank = len(factors.a)
    _factor(layer, "lora_A", adapter)[:rank].copy_(factors.a / layer.scaling[adapter])
    _factor(layer, "lora_B", adapter)[:, :rank].copy_(factors.b)


def is_linear(layer: Any) -> bool:
    """Whether a LoRA layer multiplies vectors with a matrix: an embedding looks rows up, and fused
    experts are several matrices.
    """
    return hasattr(layer, "lora_A") and not isinstance(layer, Embedding | ParamWrapper)


def is_matrix(layer: Any) -> bool:
    """Whether a layer, adapted or not, multiplies vectors with one matrix."""
    if isinstance(layer, BaseTunerLayer):
        return is_linear(layer)
    return isinstance(layer, torch.nn.Linear | Conv1D)


def adapted_layers(module: PreTrainedModel, adapters: Sequence[str]) -> dict[str, list[str]]:
    """Returns for each layer, by its name among a model's modules, which of the adapters stand on
    it.

    Raises:
        CapabilityError: One of them is a DoRA adapter, whose change depends on the weights that it
            changes.
    """
    layers: dict[str, list[str]] = {}
    for name, layer in module.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        own = [adapter for adapter in adapters if adapter in layer.r]
        if scaled := [adapter for adapter in own if cast(Any, layer).use_dora.get(adapter)]:
            raise CapabilityError(
                "A DoRA adapter can't be summed with others",
                received=scaled[0],
                allowed="LoRA adapters",
            )
        if own:
            layers[name] = own
    return layers


def sum_config(
    module: PreTrainedModel,
    layers: Mapping[str, Sequence[str]],
    configs: Sequence[LoraConfig],
    dropout: float,
) -> LoraConfig:
    """Returns the settings of an adapter that stands on exactly these layers, on each with the
    ranks of its adapters together.

    Every layer is named in full, with its own rank: adapters may stand on different layers, as
    lists, patterns or ranges say. Its scale is 1 everywhere, as the factors hold the scales of
    their adapters.
    """
    ranks = {
        name: sum(cast(Any, module.get_submodule(name)).r[adapter] for adapter in own)
        for name, own in layers.items()
    }
    fused = {name for name in layers if isinstance(module.get_submodule(name), ParamWrapper)}
    largest = max(ranks.values())
    pattern = {
        re.escape(_full_name(module, name)): rank for name, rank in ranks.items() if rank != largest
    }
    # PEFT wants the fused weights of a mixture named by every adapter in the same words.
    parameters = (
        sorted({parameter for config in configs for parameter in config.target_parameters or ()})
        if fused
        else None
    )
    return LoraConfig(
        r=largest,
        lora_alpha=largest,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        target_modules=sorted(set(layers) - fused),
        target_parameters=parameters,
        lora_dropout=dropout,
        fan_in_fan_out=any(config.fan_in_fan_out for config in configs),
        task_type="CAUSAL_LM",
    )


def _full_name(module: PreTrainedModel, name: str) -> str:
    layer = module.get_submodule(name)
    return (
        f"{name.replace('.base_layer', '')}.{layer.parameter_name}"
        if isinstance(layer, ParamWrapper)
        else name
    )


@torch.no_grad()
def write_sum(layer: Any, name: str, adapters: Sequence[str], weights: Sequence[float]) -> None:
    """Writes the weighted sum of a layer's adapters into its adapter `name`: Σ wₖ·sₖ·BₖAₖ = [B₁ …
    Bₙ]·[w₁s₁A₁; …; wₙsₙAₙ].
    """
    first, second = _factor_names(layer)
    a = [
        _factor(layer, first, adapter) * (weight * layer.scaling[adapter])
        for adapter, weight in zip(adapters, weights, strict=True)
    ]
    b = [_factor(layer, second, adapter) for adapter in adapters]
    experts = layer.num_experts if isinstance(layer, ParamWrapper) else 1
    # PEFT lays the factors of several experts out as (experts · rank, in) and (out, rank ·
    # experts): ranks are put together per expert.
    parts = [part.reshape(experts, -1, part.shape[-1]) for part in a]
    _factor(layer, first, name).copy_(torch.cat(parts, dim=1).flatten(0, 1))
    parts = [part.reshape(part.shape[0], -1, experts) for part in b]
    _factor(layer, second, name).copy_(torch.cat(parts, dim=1).flatten(1, 2))


def ranks_of(module: PreTrainedModel, adapters: Sequence[str]) -> dict[str, int]:
    """Returns the rank that some adapters have together, for each layer that one stands on."""
    return {
        name: sum(cast(Any, module.get_submodule(name)).r[adapter] for adapter in own)
        for name, own in adapted_layers(module, adapters).items()
    }


def masks_of(layer: Any, name: str, kept: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns the two factors of a layer's adapter `name`, each with a mask that is 0 at its first
    `kept` ranks and 1 at the others.
    """
    first, second = _factor_names(layer)
    rank = layer.r[name]
    a, b = _factor(layer, first, name), _factor(layer, second, name)
    is_new = (torch.arange(rank, device=a.device) >= kept).to(a.dtype)
    experts = layer.num_experts if isinstance(layer, ParamWrapper) else 1
    # As in `write_sum`: (experts · rank, in) and (out, rank · experts).
    return [(a, is_new.repeat(experts)[:, None]), (b, is_new.repeat_interleave(experts)[None])]


def _factor_names(layer: Any) -> tuple[str, str]:
    if isinstance(layer, Embedding):
        return "lora_embedding_A", "lora_embedding_B"
    return "lora_A", "lora_B"


def _factor(layer: Any, kind: str, adapter: str) -> torch.Tensor:
    found = getattr(layer, kind)[adapter]
    return cast(torch.Tensor, found if isinstance(found, torch.Tensor) else found.weight)


# Whole fine-tunes


class WeightsFolder:
    """The weights in a folder, each read from the memory-mapped file when it is asked for.

    Args:
        folder: A folder of safetensors weights.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        if (folder / "model.safetensors").is_file() or not index.is_file():
            files = sorted(folder.glob("*.safetensors"))
            self._files = {name: file for file in files for name in _names(file)}
        else:
            placed = from_json(index.read_bytes())["weight_map"]
            self._files = {name: folder / file for name, file in placed.items()}

    def names(self) -> list[str]:
        """Returns the names of the weights."""
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a weight, from the header of its file."""
        with cast(Any, safe_open)(self._files[name], framework="pt") as file:
            return tuple(file.get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        """Returns a weight."""
        with cast(Any, safe_open)(self._files[name], framework="pt") as file:
            return cast(torch.Tensor, file.get_tensor(name))


def _names(file: Path) -> list[str]:
    with cast(Any, safe_open)(file, framework="pt") as opened:
        return list(opened.keys())


def check_fine_tune(base: Path, expert: Path, name: str) -> None:
    """Looks at whether a whole model is a fine-tune of a base, as far as a few of its weights show.

    Args:
        base: The base's folder.
        expert: The expert's folder.
        name: What the message calls the expert.

    Raises:
        CapabilityError: Its weights have other names or shapes, or are too far from the base's to
            have come from them.
    """
    if base.is_file() or expert.is_file():
        raise CapabilityError(
            "A GGUF file has no task vector",
            received=name,
            allowed="folders of safetensors weights",
            fix="give the originals' folders",
        )
    ours, theirs = WeightsFolder(base), WeightsFolder(expert)
    shapes, others = (
        {name: found.shape(name) for name in found.names()} for found in (ours, theirs)
    )
    if shapes != others:
        odd = sorted(key for key in {**shapes, **others} if shapes.get(key) != others.get(key))[0]
        raise CapabilityError(
            f"{name} is not a fine-tune of the student's base: {odd} has the shape"
            f" {others.get(odd)} there, and {shapes.get(odd)} in the base",
            received=str(expert),
            fix="use initialization='base'",
        )
    matrices = [key for key, shape in shapes.items() if len(shape) > 1]
    for key in matrices[:: max(1, len(matrices) // MATRICES_COMPARED)]:
        start, end = ours.read(key).float(), theirs.read(key).float()
        if not float((end - start).norm()) <= LARGEST_STEP * float(start.norm()):
            raise CapabilityError(
                f"{name} is not a fine-tune of the student's base: {key} differs by more than half"
                " of its size",
                received=str(expert),
                fix="use initialization='base'",
            )


@torch.no_grad()
def add_task_vectors(
    module: PreTrainedModel, base: Path, experts: Sequence[Path], weight: float
) -> None:
    """Adds λ·Σ(θₖ − θ) to a model's weights, which are θ or differ from it by adapters; each weight
    is rounded once, at the end.

    Args:
        module: The model.
        base: The base's folder.
        experts: The experts' folders.
        weight: λ.

    Raises:
        CapabilityError: Transformers loads this kind of model under other names than those in its
            files.
        ModelError: A weight of an expert is not finite.
    """
    own = own_weights(module, base)
    vectors = [TaskVector(base, expert) for expert in experts]
    if weight == 0:
        return
    for name, target in own.items():
        change = torch.zeros(target.shape, dtype=torch.float64)
        for vector in vectors:
            change += vector.change(name)
        target.copy_(target.double() + (weight * change).to(target.device))


class TaskVector:
    """What a whole fine-tune changes of its base: θₖ − θ, each weight read from the memory-mapped
    files when it is asked for.

    Args:
        base: The base's folder.
        expert: The expert's folder.
    """

    def __init__(self, base: Path, expert: Path) -> None:
        self._base, self._expert, self._folder = WeightsFolder(base), WeightsFolder(expert), expert

    def change(self, name: str) -> torch.Tensor:
        """Returns what is changed of a weight, in float64.

        Raises:
            ModelError: The expert's weight is not finite.
        """
        weight = self._expert.read(name).double()
        if not torch.isfinite(weight).all():
            raise ModelError(
                f"The model holds numbers that are not finite, in {name}",
                received=str(self._folder),
                fix="copy or train it again",
            )
        return weight - self._base.read(name).double()


def own_weights(module: PreTrainedModel, base: Path) -> dict[str, torch.nn.Parameter]:
    """Returns a model's own weights, without adapters, by their names in its base's files; one that
    is used twice, as that of tied embeddings, once.

    Raises:
        CapabilityError: Transformers loads this kind of model under other names than those in its
            files.
    """
    files = WeightsFolder(base)
    weights = module.named_parameters(remove_duplicate=False)
    own = {
        name.replace(".base_layer", ""): weight for name, weight in weights if "lora_" not in name
    }
    left_out = set(files.names()) ^ set(own)
    # A head that is tied to the input embedding may lie in the files a second time, or stand in for
    # it.
    if strange := sorted(
        name for name in left_out if name not in own or not _is_tied(name, own, files)
    ):
        raise CapabilityError(
            f"Task vectors can't be added to a {type(module).__name__}: Transformers puts its"
            " weights together otherwise than its files",
            received=strange[0],
            allowed="models whose weights have the same names in files and in memory",
            fix="give the experts as LoRA adapters, or use initialization='base'",
        )
    found: dict[int, str] = {}
    for name in files.names():
        found.setdefault(id(own[name]), name)
    return {name: own[name] for name in found.values()}


def _is_tied(name: str, own: Mapping[str, torch.Tensor], files: WeightsFolder) -> bool:
    others = [other for other, tensor in own.items() if tensor is own[name] and other != name]
    return any(other in files.names() or name in files.names() for other in others)
