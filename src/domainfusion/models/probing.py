"""What a model has to be like to be used here, tried on a few tokens as soon as it is loaded."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from domainfusion.errors import ModelError

_ROW = (1, 2, 3)
"""Tokens that every vocabulary has; what comes after them, or stands before them as padding, must
not matter.
"""


@torch.no_grad()
def check_order(module: PreTrainedModel, received: str) -> None:
    """Looks at whether a model reads from left to right: no token may change what was found at
    those before it.

    Raises:
        ModelError: It looks ahead, as encoders such as BERT do; or it can't be run at all.
    """
    tokens = torch.tensor([[*_ROW, 0], [*_ROW, 1]])
    logits = _logits(module, received, input_ids=tokens)
    if _differ(module, logits[0, : len(_ROW)], logits[1, : len(_ROW)]):
        raise ModelError(
            f"{type(module).__name__} looks at tokens that come later, so it does not write text"
            " from left to right",
            received=received,
            allowed="a causal language model",
        )


@torch.no_grad()
def masks_padding(module: PreTrainedModel, received: str) -> bool:
    """Whether padding before a row changes nothing in it: some recurrent models read it as they
    read words.
    """
    mask = torch.tensor([[0, 0, *(1 for _ in _ROW)]])
    padded = {"input_ids": torch.tensor([[0, 0, *_ROW]]), "attention_mask": mask}
    if "position_ids" in inspect.signature(module.forward).parameters:
        padded["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)  # as generation numbers them
    alone = _logits(
        module,
        received,
        input_ids=torch.tensor([_ROW]),
        attention_mask=torch.ones(1, len(_ROW), dtype=torch.long),
    )
    return not _differ(module, _logits(module, received, **padded)[0, -1], alone[0, -1])


def _logits(module: PreTrainedModel, received: str, **inputs: torch.Tensor) -> torch.Tensor:
    try:
        on_device = {name: tensor.to(module.device) for name, tensor in inputs.items()}
        return cast(torch.Tensor, cast(Any, module)(**on_device, use_cache=False).logits.float())
    except Exception as error:  # whatever a model of a strange kind stumbles over
        raise ModelError(
            f"The model can't be run: {type(error).__name__}: {error}", received=received
        ) from error


def _differ(module: PreTrainedModel, one: torch.Tensor, other: torch.Tensor) -> bool:
    is_narrow = module.dtype != torch.float32 or getattr(module, "is_quantized", False)
    allowed = (5e-2 if is_narrow else 1e-4) * float(other.abs().max())
    return not float((one - other).abs().max()) <= allowed
