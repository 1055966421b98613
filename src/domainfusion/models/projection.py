"""From final hidden states to logits: the one place that knows what stands between a model's last
layer and its distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.functional import linear
from transformers import PreTrainedModel

from domainfusion.errors import CapabilityError

_PROBE = (0, 1, 2, 3)
"""Tokens that every vocabulary has, to compare the projection with the model's own logits."""


@dataclass(frozen=True, eq=False)
class Head:
    """What turns a model's final hidden states into logits: cap · tanh(scale · (W h + b) / cap).

    Attributes:
        weight: W, of shape (vocabulary, hidden).
        bias: b, of shape (vocabulary,); None for most models.
        scale: What the product is multiplied by.
        cap: Bound of the logits, as in Gemma 2; None leaves them unbounded.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    @property
    def vocabulary_size(self) -> int:
        """The width of the distributions, padding included."""
        return int(self.weight.shape[0])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the logits of hidden states of shape (…, hidden), at least in float32, of shape
        (…, vocabulary).
        """
        logits = linear(hidden, self.weight, self.bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Head:
        """Returns the head on another device or in another data type."""
        bias = None if self.bias is None else self.bias.to(device=device, dtype=dtype)
        return Head(self.weight.to(device=device, dtype=dtype), bias, self.scale, self.cap)


def head_of(module: PreTrainedModel) -> Head:
    """Returns the head that the module computes with at this moment; gradients flow back to what of
    it is trained.
    """
    layer = cast(Any, module.get_output_embeddings())  # type: ignore[no-untyped-call]
    weight = _weight_of(layer)
    if isinstance(layer, BaseTunerLayer) and not layer.merged and not layer.disable_adapters:
        for adapter in set(layer.active_adapters) & set(cast(Any, layer).lora_A):
            weight = weight + cast(Any, layer).get_delta_weight(adapter).to(weight.dtype)
    config = cast(Any, module.config).get_text_config()
    # Each of these is a setting of few architectures: Cohere scales by one name, Granite by the
    # other, Gemma caps; and heads without a bias have no such attribute where they are quantized.
    scale = (getattr(config, "logit_scale", None) or 1.0) / (
        getattr(config, "logits_scaling", None) or 1.0
    )
    return Head(
        weight,
        getattr(layer, "bias", None),
        scale,
        getattr(config, "final_logit_softcapping", None),
    )


def _weight_of(layer: Any) -> torch.Tensor:
    """Returns the weight of a layer, also where Accelerate keeps it elsewhere until it is used."""
    weight = cast(torch.Tensor, layer.weight)
    # Accelerate's own attribute, on layers that it hooks and no others.
    hook = getattr(layer, "_hf_hook", None)
    if not weight.is_meta or hook is None:
        return weight
    return cast(torch.Tensor, hook.weights_map["weight"]).to(hook.execution_device, weight.dtype)


def project(module: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Returns float32 logits of shape (…, vocabulary), with the scaling and soft-capping that the
    architecture applies.

    Args:
        module: The model.
        hidden: Final hidden states, of shape (…, hidden).
    """
    head = head_of(module)
    return head.logits(hidden.to(head.weight.device))  # a model may be spread over several devices


def check_projection(module: PreTrainedModel) -> None:
    """Holds `project` against the logits that the model itself computes.

    Raises:
        CapabilityError: They differ: the architecture does something else between its last layer
            and its logits.
    """
    tokens = torch.tensor([_PROBE], device=module.device)
    with torch.no_grad():
        expected = cast(Any, module)(input_ids=tokens, use_cache=False).logits.float()
        found = project(
            module,
            cast(Any, module.base_model)(input_ids=tokens, use_cache=False).last_hidden_state,
        )
    allowed = (1e-4 if module.dtype == torch.float32 else 5e-2) * float(expected.abs().max())
    if expected.shape != found.shape or not float((expected - found).abs().max()) <= allowed:
        raise CapabilityError(
            "The model's logits are not its head's output in a way that is known here, so it can be"
            " neither scored nor trained",
            received=type(module).__name__,
            allowed=(
                "architectures whose logits are scaled by logits_scaling or logit_scale, or capped"
                " by final_logit_softcapping"
            ),
            fix="use it as a teacher that answers in text",
        )
