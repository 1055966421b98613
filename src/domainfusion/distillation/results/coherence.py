"""Integration Coherence, always beside its coverage."""

from __future__ import annotations

from dataclasses import dataclass

from domainfusion.distillation.results.estimate import Estimate
from domainfusion.distillation.results.validation import CoherenceValidation


@dataclass(frozen=True, slots=True, kw_only=True)
class Coherence:
    """Integration Coherence: whether the student's cross-domain answers hold together.

    Attributes:
        score: Mean of the coherence metric over the cross-domain answers.
        coverage: Mean share of right parts in the same answers; coherence without coverage means little.
        validated: Whether the metric has been shown to tell sound texts from every kind of corrupted ones.
        items: Answers measured.
        validation: What was measured of the metric; None where nobody has measured it.
    """

    score: Estimate
    coverage: Estimate
    validated: bool
    items: int
    validation: CoherenceValidation | None = None

    @property
    def standing(self) -> str:
        """What is known of the metric, in words."""
        if self.validation is not None:
            return str(self.validation)
        return "validated" if self.validated else "not validated"
