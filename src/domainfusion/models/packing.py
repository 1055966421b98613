"""Weights in the order in which oneDNN multiplies them: in bfloat16 on a CPU, PyTorch would
otherwise bring them into it anew in every product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

LARGEST_PACKED = 2 * 2**30
"""Bytes of weights up to which a model is packed, as its weights then lie in memory twice."""

Packed = Mapping[str, torch.Tensor]
"""The packed weights by the name of their layer."""

_ROWS = 128
"""The number of rows for which oneDNN chooses the order; other numbers are right, too."""


def pack(module: PreTrainedModel) -> Packed:
    """Returns the packed weights of the linear layers that gain by it: none unless the model is in
    bfloat16 on a CPU, small enough, and oneDNN there.
    """
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) is torch.nn.Linear and ".lora_" not in name
    }
    weights = [layer.weight for layer in layers.values()]
    if (
        not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        or any(weight.dtype != torch.bfloat16 or weight.device.type != "cpu" for weight in weights)
        or sum(weight.nbytes for weight in weights) > LARGEST_PACKED
    ):
        return {}
    reorder: Callable[..., torch.Tensor] = torch.ops.mkldnn._reorder_linear_weight
    with torch.inference_mode():
        return {name: reorder(layer.weight, _ROWS) for name, layer in layers.items()}


@contextmanager
def computing_with(module: PreTrainedModel, packed: Packed) -> Iterator[None]:
    """Has the layers compute with their packed weights for the time of a block, in which no
    gradient is asked for.
    """
    layers: list[Any] = [module.get_submodule(name) for name in packed]
    for layer, weight in zip(layers, packed.values(), strict=True):
        layer.forward = _multiplied_by(weight, layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _multiplied_by(
    weight: torch.Tensor, bias: torch.Tensor | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    multiply: Callable[..., torch.Tensor] = torch.ops.mkldnn._linear_pointwise
    return lambda states: multiply(states, weight, bias, "none", [], "")
