"""Integration Coherence, always beside its coverage."""

from __future__ import annotations

from dataclasses import dataclass

from domainfusion.distillation.results.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Coherence:
    """Integration Coherence: whether the student's cross-domain answers hold together.

    Attributes:
        score: Mean of the coherence metric over the cross-domain answers.
        coverage: Mean share of right parts in the same answers; coherence without coverage means little.
        validated: Whether the metric has been shown to tell sound texts from corrupted ones.
        items: Answers measured.
    """

    score: Estimate
    coverage: Estimate
    validated: bool
    items: int
