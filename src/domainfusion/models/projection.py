"""From final hidden states to logits: the one place that knows what stands between a model's last layer and its distribution."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import PreTrainedModel

from domainfusion.errors import CapabilityError

_PROBE = (0, 1, 2, 3)
"""Tokens that every vocabulary has, to hold the projection against the model's own logits."""


def project(module: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Returns float32 logits of shape (…, vocabulary), with the scaling and soft-capping that the architecture applies.

    Args:
        module: The model.
        hidden: Final hidden states, of shape (…, hidden).
    """
    head = cast(torch.nn.Module, module.get_output_embeddings())  # type: ignore[no-untyped-call]
    logits: torch.Tensor = head(hidden).float()
    config = cast(Any, module.config).get_text_config()
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def check_projection(module: PreTrainedModel) -> None:
    """Holds `project` against the logits that the model itself computes.

    Raises:
        CapabilityError: They differ: the architecture does something else between its last layer and its logits.
    """
    tokens = torch.tensor([_PROBE], device=module.device)
    with torch.no_grad():
        expected = cast(Any, module)(input_ids=tokens, use_cache=False).logits.float()
        found = project(module, cast(Any, module.base_model)(input_ids=tokens, use_cache=False).last_hidden_state)
    allowed = (1e-4 if module.dtype == torch.float32 else 5e-2) * float(expected.abs().max())
    if expected.shape != found.shape or not float((expected - found).abs().max()) <= allowed:
        raise CapabilityError(
            "The model's logits are not its head's output in a way that is known here, so it can be neither scored nor trained",
            received=type(module).__name__,
            allowed="architectures whose logits are scaled by logits_scaling or logit_scale, or capped by final_logit_softcapping",
            fix="use it as a teacher that answers in text",
        )
