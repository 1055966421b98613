"""Sampling in which each row of a batch draws from a stream of its own, so that batching changes no
answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from domainfusion.types import Sampling


class RowSampler(LogitsProcessor):
    """Turns greedy decoding into sampling: adds Gumbel noise to the logits, whose argmax is then a
    draw from their softmax.

    Source: the Gumbel-max trick, Maddison et al., "A* Sampling", 2014.

    Args:
        sampling: Temperature (above 0) and top_p.
        seeds: One seed per row.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Returns the noisy logits of shape (rows, vocabulary)."""
        logits = scores.float() / self._temperature
        if self._top_p < 1:
            logits = _keep_top_p(logits, self._top_p)
        draws = torch.empty(logits.shape)
        for row, generator in zip(draws, self._generators, strict=True):
            torch.rand(row.shape, generator=generator, out=row)
        noise = (
            draws.clamp_(1e-20, 1 - 1e-7).log_().neg_().log_()
        )  # in place: the vocabulary is wide, and there is a step a token
        return logits.sub_(noise.to(logits.device))  # type: ignore[return-value]


def _keep_top_p(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered, order = logits.softmax(-1).sort(-1, descending=True)
    dropped = ordered.cumsum(-1) - ordered >= top_p
    return logits.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))
