"""Which benchmarks were run, and whether the student lost general ability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domainfusion.distillation.results.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark that was run; its scores are in the slice of every model.

    Attributes:
        slice: The slice of the test set that it is.
        domain: The domain that it measures; empty for one of general ability.
        source: `examples`, the path of a file, or the name of a task of lm-evaluation-harness.
        items: How many items it has.
        metric: What graded the answers.
        notes: What a reader has to know: how a task was run, what was left out.
    """

    slice: str
    domain: str
    source: str
    items: int
    metric: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Whether the student lost general ability against its base, on one benchmark.

    Attributes:
        slice: The benchmark's slice.
        items: Items that both were graded on.
        student: Mean score of the student; None where nothing could be graded.
        base: Mean score of the base.
        difference: student − base over the same items, with the paired interval.
        tolerance: The loss up to which none is spoken of.
        verdict: `loss` where the whole interval lies below 0, else `no measurable loss` where it stays above −tolerance, else
            `not enough data`.
    """

    slice: str
    items: int
    student: float | None
    base: float | None
    difference: Estimate
    tolerance: float
    verdict: Literal["no measurable loss", "loss", "not enough data"]
