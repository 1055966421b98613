"""The geometry of the charts: shares of the plot's width and height, for SVG that keeps its type
size at any width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from domainfusion.distillation.results import DomainRetention
from domainfusion.reports.tables import interval, percent, points

LEFT, RIGHT = 4.0, 96.0
"""Where a horizontal axis begins and ends, in per cent of the width; the rest is room for half a
label.
"""

MarkKind = Literal["student", "expert", "base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labelled place on an axis, in per cent of its length."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One model's figure in a row."""

    kind: MarkKind
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DotRow:
    """One domain: its label, its figure in words, marks, and the stretch between `low` and
    `high`.
    """

    label: str
    figure: str
    marks: tuple[Mark, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DotChart:
    """Rows of dots on a common axis.

    Attributes:
        rows: From top to bottom.
        ticks: The axis.
        references: Places that a reader compares with.
        description: The chart in words.
    """

    rows: tuple[DotRow, ...]
    ticks: tuple[Tick, ...]
    references: tuple[Tick, ...]
    description: str


def retention_chart(rows: Sequence[DomainRetention], goal: float) -> DotChart | None:
    """Returns DER by domain with its intervals; None where it is defined nowhere.

    Args:
        rows: Retention by domain.
        goal: The share of the expert that is marked on the axis, beside the expert itself.
    """
    found = [(row, row.retention.value) for row in rows if row.retention.value is not None]
    if not found:
        return None
    figures = [_retention_words(row) for row in rows]
    rows = [_without_long_tail(row) for row in rows]
    found = [(row, row.retention.value) for row in rows if row.retention.value is not None]
    ends = [
        end
        for row, value in found
        for end in (row.retention.low, value, row.retention.high)
        if end is not None
    ]
    axis = _Axis.around([*ends, goal, 1.0])
    return DotChart(
        rows=tuple(
            _retention_row(row, figure, axis) for row, figure in zip(rows, figures, strict=True)
        ),
        ticks=axis.ticks(),
        references=(
            Tick(at=axis.place(1.0), label="the expert"),
            Tick(at=axis.place(goal), label=percent(goal)),
        ),
        description="; ".join(
            f"{row.domain}: {figure}" for row, figure in zip(rows, figures, strict=True)
        ),
    )


def _without_long_tail(row: DomainRetention) -> DomainRetention:
    """Cuts the line of an interval far above the figure: of a few questions, it would press all
    else together.
    """
    value, high = row.retention.value, row.retention.high
    if value is None or high is None:
        return row
    return replace(row, retention=replace(row.retention, high=min(high, max(1.5, 1.2 * value))))


def _retention_row(row: DomainRetention, figure: str, axis: _Axis) -> DotRow:
    estimate = row.retention
    if estimate.value is None:
        return DotRow(label=row.domain, figure=figure)
    return DotRow(
        label=row.domain,
        figure=figure,
        marks=(Mark(kind="student", at=axis.place(estimate.value)),),
        low=None if estimate.low is None else axis.place(estimate.low),
        high=None if estimate.high is None else axis.place(estimate.high),
    )


def _retention_words(row: DomainRetention) -> str:
    if row.retention.value is None:
        return "undefined"
    inside = interval(row.retention)
    return f"{points(row.retention.value)} %" + (f" ({inside})" if inside else "")


def learning_chart(rows: Sequence[DomainRetention]) -> DotChart | None:
    """Returns the accuracy of base, student and expert by domain; None where the base was not
    measured.
    """
    if not any(row.base is not None for row in rows):
        return None
    axis = _Axis(low=0.0, high=1.0, step=0.2)
    return DotChart(
        rows=tuple(_learning_row(row, axis) for row in rows),
        ticks=axis.ticks(),
        references=(),
        description="; ".join(f"{row.domain}: {_learning_words(row)}" for row in rows),
    )


def _learning_row(row: DomainRetention, axis: _Axis) -> DotRow:
    named: list[tuple[MarkKind, float | None]] = [
        ("base", row.base),
        ("expert", row.expert),
        ("student", row.student),
    ]
    return DotRow(
        label=row.domain,
        figure=_learning_words(row),
        marks=tuple(
            Mark(kind=kind, at=axis.place(value)) for kind, value in named if value is not None
        ),
        low=None if row.base is None else axis.place(row.base),
        high=None if row.student is None else axis.place(row.student),
    )


def _learning_words(row: DomainRetention) -> str:
    named = (("base", row.base), ("student", row.student), ("expert", row.expert))
    return ", ".join(f"{name} {points(value)} %" for name, value in named if value is not None)


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Sequence[float]) -> _Axis:
        spread = max(values) - min(values)
        step = next(
            step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, math.inf) if spread / step <= 7
        )
        if math.isinf(step):
            step = 10.0 ** math.ceil(math.log10(spread / 7))
        low, high = (
            math.floor(min(values) / step + 1e-9) * step,
            math.ceil(max(values) / step - 1e-9) * step,
        )
        return cls(low, high, step) if high > low else cls(low - step, high + step, step)

    def place(self, value: float) -> float:
        return round(LEFT + (value - self.low) / (self.high - self.low) * (RIGHT - LEFT), 2)

    def ticks(self) -> tuple[Tick, ...]:
        number = round((self.high - self.low) / self.step)
        values = (self.low + index * self.step for index in range(number + 1))
        return tuple(Tick(at=self.place(value), label=percent(round(value, 6))) for value in values)
