"""What is known of a coherence metric: how well it tells sound texts from corrupted ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domainfusion.distillation.results.estimate import Estimate

WANTED_AUROC = 0.9
"""The AUROC from which a metric is taken to see a corruption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoherenceValidation:
    """How well a coherence metric tells sound texts from corrupted ones, on texts that it was not made on.

    Attributes:
        metric: The metric, as reports call it.
        auroc: For each corruption the area under the ROC curve: the chance that a sound text is graded above a corrupted one.
        texts: Sound texts measured.
        text_set: Fingerprint of these texts.
        seed: Seed of the corruptions and of the bootstrap behind the intervals.
        unscored: Texts, sound or corrupted, that the metric gave no grade; they are left out, with their other versions.
        date: The day of the measurement.
        command: What measured it; empty where a program did.
    """

    metric: str
    auroc: Mapping[str, Estimate]
    texts: int
    text_set: str
    seed: int = 0
    unscored: int = 0
    date: str = ""
    command: str = ""

    @property
    def reached(self) -> tuple[str, ...]:
        """The corruptions that the metric sees: an AUROC of 0.90 or more."""
        return tuple(name for name, found in self.auroc.items() if found.value is not None and found.value >= WANTED_AUROC)

    @property
    def missed(self) -> tuple[str, ...]:
        """The corruptions that it does not see."""
        return tuple(name for name in self.auroc if name not in self.reached)

    @property
    def passed(self) -> bool:
        """Whether it sees every corruption."""
        return bool(self.auroc) and not self.missed

    def __str__(self) -> str:
        if self.passed:
            return f"validated: AUROC {self._listed(self.reached)}"
        seen = f"AUROC {self._listed(self.reached)}; " if self.reached else ""
        return f"validated in part: {seen}not reached on {self._listed(self.missed)}"

    def _listed(self, names: tuple[str, ...]) -> str:
        return ", ".join(f"{name} {_two_digits(self.auroc[name])}" for name in names)


def _two_digits(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{estimate.value:.2f}"
