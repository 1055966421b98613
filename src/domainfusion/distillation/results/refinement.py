"""What a refinement found on validation, round by round, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """What is missing of a domain's retention, or of the accuracy across a combination of domains, on validation.

    Attributes:
        domains: The domain, or the domains that the examples need together.
        items: Validation examples that were graded.
        student: Accuracy of the student.
        expert: Accuracy of the domain's expert on the same examples; None for several domains, as no expert knows them all.
        missing: What is missing: of one domain 1 − student / expert, not below 0; of several 1 − student.
    """

    domains: tuple[str, ...]
    items: int
    student: float
    expert: float | None
    missing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementRound:
    """One round: where the student was weak, what was made there, and whether training on it helped.

    Attributes:
        number: Which round, from 1.
        shortfalls: What was missing, of every domain and combination that validation tells about.
        before: The student's accuracy on validation by slice, before the round.
        examples: New examples that the round trains on, after what the hygiene removes.
        records: How many of these have a target to learn.
        replayed: Earlier records that were seen again.
        after: The accuracy by slice after it; None where nothing was trained, or the round is not over.
        is_kept: Whether the student of this round is the one that the run goes on with; None while the round is not over.
    """

    number: int
    shortfalls: tuple[Shortfall, ...]
    before: Mapping[str, float]
    examples: int = 0
    records: int = 0
    replayed: int = 0
    after: Mapping[str, float] | None = None
    is_kept: bool | None = None

    @property
    def means(self) -> tuple[float, float] | None:
        """The mean over slices before and after it, of slices that could be graded both times; None where there is none."""
        shared = [(grade, self.after[name]) for name, grade in self.before.items() if name in self.after] if self.after else []
        return (sum(old for old, _ in shared) / len(shared), sum(new for _, new in shared) / len(shared)) if shared else None

    @property
    def improves(self) -> bool:
        """Whether the mean rises."""
        return self.means is not None and self.means[1] > self.means[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """All rounds, and why there are no more.

    Attributes:
        rounds: The rounds, in order; each starts from the student of those before it that were kept.
        stopped: Why there is no further round; empty while the refinement goes on.
    """

    rounds: tuple[RefinementRound, ...] = field(default=())
    stopped: str = ""

    @property
    def kept(self) -> tuple[RefinementRound, ...]:
        """The rounds whose student was kept."""
        return tuple(entry for entry in self.rounds if entry.is_kept)
