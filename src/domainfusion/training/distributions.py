"""What teachers find probable at some tokens: exactly, from their hidden states and heads, or estimated from draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from domainfusion.models.projection import Head
from domainfusion.training.losses import Exact, Sampled


@dataclass(frozen=True, eq=False)
class HiddenTargets:
    """The distributions of one teacher, or the weighted mean of several ones'.

    Attributes:
        teachers: For each teacher its final hidden states at the tokens, of shape (tokens, hidden), its head, and its weight; the
            weights sum to 1.
    """

    teachers: Sequence[tuple[torch.Tensor, Head, float]]

    def of(self, tokens: slice, vocabulary: int, temperature: float, computed_in: torch.dtype | None) -> Exact:
        """Returns the distributions at `tokens`; see `losses.TeacherDistributions`."""
        found = []
        for hidden, head, weight in self.teachers:
            own = head.to(dtype=computed_in)
            logits = own.logits(hidden[tokens].to(own.weight))[:, :vocabulary]
            found.append((logits / temperature).log_softmax(-1) + math.log(weight))
        return Exact(found[0] if len(found) == 1 else torch.stack(found).logsumexp(0))


@dataclass(frozen=True, eq=False)
class SampledTargets:
    """Estimates from draws: random-sampling distillation (Anshumann et al., 2025, arXiv 2503.16870).

    Attributes:
        ids: The tokens that were drawn, of shape (tokens, most different ones).
        shares: The share of the draws that each is; 0 where fewer were drawn.
        entropies: The entropy of the teacher's distribution, of shape (tokens,).
    """

    ids: torch.Tensor
    shares: torch.Tensor
    entropies: torch.Tensor

    def of(self, tokens: slice, vocabulary: int, temperature: float, computed_in: torch.dtype | None) -> Sampled:
        """Returns the estimates at `tokens`; vocabulary and temperature are those of the draws."""
        shares = self.shares[tokens]
        estimates = torch.zeros((len(shares), vocabulary), dtype=shares.dtype, device=shares.device)
        return Sampled(estimates.scatter_add_(-1, self.ids[tokens], shares), self.entropies[tokens])
