"""Liger's fused kernels on CUDA, where the extra `liger` is installed; elsewhere the losses are
computed by our own code.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

ENABLED = True
"""Whether the kernels are used where they can be; a benchmark turns them off to compare."""

_BETAS: Mapping[str, float | None] = {
    "forward_kl": 0.0,
    "reverse_kl": 1.0,
    "jensen_shannon": None,
}
"""Divergences that Liger's generalized Jensen-Shannon kernel computes, with its β at which it does;
None stands for the β that was asked for.
"""


class Weighted(NamedTuple):
    """Losses of tokens, and the gradients of their weighted sum.

    Attributes:
        losses: Of shape (tokens,), in float32, not weighted.
        hidden: Of shape (tokens, hidden).
        weight: Of shape (vocabulary, hidden); None where the head is not trained.
        bias: Of shape (vocabulary,); None where there is none.
    """

    losses: torch.Tensor
    hidden: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None


def is_used(tensor: torch.Tensor) -> bool:
    """Whether losses of this tensor are computed by Liger."""
    if not ENABLED or not tensor.is_cuda or tensor.dtype == torch.float64:
        return False
    return _module("ops.fused_linear_cross_entropy") is not None


def weighted_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    cap: float | None,
    trains_head: bool,
) -> Weighted:
    """Computes Σ wᵢ·CEᵢ and its gradients in one pass that never holds (tokens, vocabulary).

    Args:
        hidden: Of shape (tokens, hidden), in the head's data type.
        weight: The head's, of shape (vocabulary, hidden).
        bias: The head's, of shape (vocabulary,), or None.
        targets: The tokens that are written, of shape (tokens,).
        weights: What each token counts, of shape (tokens,).
        cap: Bound of the logits, or None.
        trains_head: Whether the head's gradients are wanted.
    """
    module: Any = _module("ops.fused_linear_cross_entropy")
    # The gradient of the logits is scaled by each token's weight before tokens are summed.
    losses, _, _, _, for_hidden, for_weight, for_bias = module.fused_linear_cross_entropy_forward(
        hidden.contiguous(),
        weight,
        targets.contiguous(),
        bias=bias,
        reduction="none",
        softcap=cap,
        accum_dtype=torch.float32,
        token_grad_output=weights,
        compute_gradients=True,
        weight_requires_grad=trains_head,
    )
    return Weighted(losses, for_hidden, for_weight, for_bias)


def computes(divergence: str) -> bool:
    """Whether Liger has a kernel for a divergence."""
    return divergence in _BETAS


def compare(
    divergence: str, beta: float, log_p: torch.Tensor, log_q: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the divergence of each token, of shape (tokens,), and u = q·∂D/∂q up to a multiple of
    q, of shape (tokens, vocabulary).

    Args:
        divergence: One that Liger computes.
        beta: The teacher's weight in the mixture of `jensen_shannon`.
        log_p: The teacher's log-probabilities, of shape (tokens, vocabulary).
        log_q: The student's, likewise.
    """
    _module("functional")  # registers the kernels
    backends: Any = _module("backends")
    fixed = _BETAS[divergence]
    # The kernel writes the derivative over its first argument; there are no labels to ignore, and
    # nothing is averaged (a count of 1).
    parts, slope = backends.dispatch(
        "jsd_loss_and_grad",
        log_q.float().clone().contiguous(),
        log_p.float().contiguous(),
        None,
        beta if fixed is None else fixed,
        -100,
        1.0,
    )
    return parts.sum(-1), slope


@functools.cache
def _module(name: str) -> Any:
    """Returns a module of Liger, or None where it is not installed."""
    try:
        return importlib.import_module(f"liger_kernel.{name}")
    except ImportError:
        return None
