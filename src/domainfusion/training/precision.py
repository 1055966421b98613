"""How a student computes while it is trained: bfloat16 where the machine computes in it, and
attention whose gradient is quick.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORT_ROWS = 128
"""Tokens of a row up to which attention is computed with its scores in memory on a CPU.

Measured on SmolLM2-135M with LoRA, 16 rows, two cores with bfloat16 units, forward and backward:
plain products take 0.74 of the fused kernel's time at 40 tokens, 0.83 at 70, 0.89 at 128, and 1.3
at 256.
"""


def mixed_precision(device: torch.device) -> torch.autocast:
    """Returns the context in which a student on `device` computes: bfloat16 for products, where the
    device has units for it.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(device))


def attention_to_train(device: torch.device, tokens: int) -> AbstractContextManager[None]:
    """Returns the context in which attention over rows of `tokens` is computed forward and
    backward.

    On a CPU the fused kernel's backward pass is slow, and plain products are faster where rows are
    short.
    """
    return (
        sdpa_kernel(SDPBackend.MATH)
        if device.type == "cpu" and tokens <= SHORT_ROWS
        else nullcontext()
    )


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for products in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())
