"""The geometry of the charts, of dots by domain and of curves over the steps of a training: shares
of the plot's width and height, for SVG that keeps its type size at any width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from domainfusion.checks import is_number
from domainfusion.distillation.results import DomainRetention
from domainfusion.reports.tables import interval, percent, points

LEFT, RIGHT = 4.0, 96.0
"""Where a horizontal axis begins and ends, in per cent of the width; the rest is room for half a
label.
"""

MarkKind = Literal["student", "expert", "base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labeled place on an axis, in per cent of its length."""

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
    is_cut: bool = False
    """Whether the interval goes on beyond `high`."""


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

    @property
    def labeled(self) -> tuple[Tick, ...]:
        """The ticks that have a label: more than six would touch each other on a phone."""
        return self.ticks[:: -(-len(self.ticks) // 6)]

    @property
    def crowded(self) -> bool:
        """Whether the references are too near to each other for a label each."""
        places = [reference.at for reference in self.references]
        return len(places) > 1 and max(places) - min(places) < 25


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
    whole, rows = rows, [_without_long_tail(row) for row in rows]
    found = [(row, row.retention.value) for row in rows if row.retention.value is not None]
    ends: list[float] = []
    for row, value in found:
        bounds = (row.retention.low, row.retention.high)
        ends += [value, *(bound for bound in bounds if bound is not None)]
    axis = _Axis.around([*ends, goal, 1.0])
    return DotChart(
        rows=tuple(
            replace(_retention_row(row, figure, axis), is_cut=row != before)
            for row, figure, before in zip(rows, figures, whole, strict=True)
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


MOST_POINTS = 400
"""Points of a curve; more can't be told apart on a page."""

WINDOWS = 30
"""Points of a curve of means: a batch has few rows of a domain, so that single steps would be
noise.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line of (x, y), both in per cent, y counted from the top.

    Attributes:
        name: What it shows.
        points: Where it goes.
        style: Which color, dash and mark it has: a domain has the same ones in every chart of a
            training.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    style: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMark:
    """Where a phase begins, and where its name stands: in one of two rows, so that the names of
    short phases do not run into each other.

    Attributes:
        at: Where it begins, in per cent of the width.
        label: Its name; empty where there is no room for it.
        row: The row of the name, 0 or 1.
        is_right: Whether the name ends at the right edge of the chart.
    """

    at: float
    label: str
    row: int = 0
    is_right: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Curves over the steps of training.

    Attributes:
        curves: The lines.
        y_ticks: From bottom to top; `at` is counted from the top.
        x_ticks: Steps.
        phases: Where each phase begins, and its name.
        logarithmic: Whether the vertical axis is.
        description: The chart in words.
    """

    curves: tuple[Curve, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    phases: tuple[PhaseMark, ...]
    logarithmic: bool
    description: str


class Stretch(NamedTuple):
    """A phase with the step that it begins after and its last step."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCurves:
    """What the training log holds, on one axis of steps: phases follow each other.

    Attributes:
        phases: Each phase with the step it begins after, in order.
        losses: By phase, (step, loss).
        validation: By domain or slice, (step, figure).
        terms: By term of the loss and domain, (step, mean over the answer tokens of a window that
            ends there).
        window: Steps in such a window.
        not_finite: Logged losses that were not finite.
        steps: The last step.
    """

    phases: tuple[tuple[str, int], ...]
    losses: Mapping[str, tuple[tuple[int, float], ...]]
    validation: Mapping[str, tuple[tuple[int, float], ...]]
    terms: Mapping[str, Mapping[str, tuple[tuple[int, float], ...]]]
    window: int
    not_finite: int
    steps: int

    def styles(self) -> dict[str, int]:
        """Returns a number for each domain and slice, by which every chart draws it."""
        names = dict.fromkeys(
            domain for by_domain in (*self.terms.values(), self.validation) for domain in by_domain
        )
        return {name: number for number, name in enumerate(names)}

    def stretches(self) -> tuple[Stretch, ...]:
        """Returns the phases with their steps."""
        ends = [*(start for _, start in self.phases[1:]), self.steps]
        return tuple(
            Stretch(name, start, end) for (name, start), end in zip(self.phases, ends, strict=True)
        )


def training_curves(log: Sequence[Mapping[str, Any]]) -> TrainingCurves:
    """Reads the log of a training. Steps that a resumed run took again count once, as they were
    taken last.
    """
    lines = [line for line in log if isinstance(line.get("step"), int)]
    names = list(dict.fromkeys(str(line.get("phase", "")) for line in lines))
    losses: dict[str, tuple[tuple[int, float], ...]] = {}
    validation: dict[str, dict[int, float]] = {}
    phases: list[tuple[str, int]] = []
    start = not_finite = 0
    window = (
        math.ceil(
            sum(
                max(line["step"] for line in lines if str(line.get("phase", "")) == name)
                for name in names
            )
            / WINDOWS
        )
        or 1
    )
    terms: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name in names:
        own = [line for line in lines if str(line.get("phase", "")) == name]
        logged = {
            start + line["step"]: float(line["loss"]) for line in own if is_number(line.get("loss"))
        }
        finite = {step: loss for step, loss in logged.items() if math.isfinite(loss)}
        not_finite += len(logged) - len(finite)
        losses[name] = tuple(sorted(finite.items()))
        for line in own:
            for domain, figure in _figures(line.get("validation")):
                validation.setdefault(domain, {})[start + line["step"]] = figure
        for mean in _window_means(own, start, window):
            terms.setdefault(mean.term, {}).setdefault(mean.domain, []).append(mean.point)
        phases.append((name, start))
        start += max(line["step"] for line in own)
    return TrainingCurves(
        phases=tuple(phases),
        losses={name: found for name, found in losses.items() if found},
        validation={domain: tuple(sorted(found.items())) for domain, found in validation.items()},
        terms={
            term: {domain: tuple(found) for domain, found in by_domain.items()}
            for term, by_domain in terms.items()
        },
        window=window,
        not_finite=not_finite,
        steps=start,
    )


class _WindowMean(NamedTuple):
    """The mean of a loss term over a domain's tokens in a window of steps: the window's last step,
    and the mean.
    """

    term: str
    domain: str
    point: tuple[int, float]


def _window_means(lines: Sequence[Mapping[str, Any]], start: int, window: int) -> list[_WindowMean]:
    """Returns the means of a phase's loss terms by term and domain, over windows of its steps, each
    answer token counting once.
    """
    logged = {
        line["step"]: line["domains"] for line in lines if isinstance(line.get("domains"), Mapping)
    }
    sums: dict[tuple[str, str, int], tuple[float, int]] = {}
    for step, domains in sorted(logged.items()):
        end = min(math.ceil(step / window) * window, max(logged))
        for domain, found in domains.items():
            tokens = int(found.get("tokens", 0))
            for term, mean in found.items():
                if term != "tokens" and is_number(mean) and math.isfinite(mean):
                    total, count = sums.get((term, domain, end), (0.0, 0))
                    sums[term, domain, end] = total + mean * tokens, count + tokens
    return [
        _WindowMean(term, str(domain), (start + end, total / count))
        for (term, domain, end), (total, count) in sums.items()
        if count
    ]


def _figures(by_name: object) -> list[tuple[str, float]]:
    found = by_name.items() if isinstance(by_name, Mapping) else ()
    return [
        (str(domain), float(figure))
        for domain, figure in found
        if is_number(figure) and math.isfinite(figure)
    ]


def loss_chart(curves: TrainingCurves) -> LineChart | None:
    """Returns the training loss by phase; None where none was logged."""
    values = [loss for found in curves.losses.values() for _, loss in found]
    if not values:
        return None
    logarithmic = min(values) > 0 and max(values) / min(values) > 20
    scale = _log_scale(values) if logarithmic else _linear_scale([0.0, *values])
    ends = ((name, found[0][1], found[-1][1]) for name, found in curves.losses.items())
    return _line_chart(
        curves,
        curves.losses,
        scale,
        logarithmic=logarithmic,
        description="; ".join(
            f"{name}: from {first:.3g} to {last:.3g}" for name, first, last in ends
        ),
    )


def domain_charts(curves: TrainingCurves) -> dict[str, LineChart]:
    """Returns the curves by domain of each term of the loss; empty where none was logged."""
    return {term: _domain_chart(curves, by_domain) for term, by_domain in curves.terms.items()}


def _domain_chart(
    curves: TrainingCurves, by_domain: Mapping[str, Sequence[tuple[int, float]]]
) -> LineChart:
    values = [mean for found in by_domain.values() for _, mean in found]
    logarithmic = min(values) > 0 and max(values) / min(values) > 20
    ends = ((domain, found[0][1], found[-1][1]) for domain, found in by_domain.items())
    return _line_chart(
        curves,
        by_domain,
        _log_scale(values) if logarithmic else _linear_scale([0.0, *values]),
        logarithmic=logarithmic,
        description="; ".join(
            f"{domain}: from {first:.3g} to {last:.3g}" for domain, first, last in ends
        ),
    )


def validation_chart(curves: TrainingCurves) -> LineChart | None:
    """Returns the validation figure of each domain; None where none was logged."""
    values = [figure for found in curves.validation.values() for _, figure in found]
    if not values:
        return None
    ends = ((name, found[-1][1]) for name, found in curves.validation.items())
    return _line_chart(
        curves,
        curves.validation,
        _linear_scale([*values, 1.0]),
        logarithmic=False,
        description="at the end " + ", ".join(f"{name} {last:.3f}" for name, last in ends),
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        if self.logarithmic:
            share = (math.log10(value) - math.log10(self.low)) / (
                math.log10(self.high) - math.log10(self.low)
            )
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(100 * (1 - share), 2)


def _linear_scale(values: Sequence[float]) -> _Scale:
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    raw = spread / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return _Scale(
        first * step,
        last * step,
        tuple(round(index * step, 10) for index in range(first, last + 1)),
    )


def _log_scale(values: Sequence[float]) -> _Scale:
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    bounds = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    low = max(bound for bound in bounds if bound <= min(values) * (1 + 1e-9))
    high = min(bound for bound in bounds if bound >= max(values) * (1 - 1e-9))
    ticks = (10.0**power for power in range(first, last + 1))
    return _Scale(low, high, tuple(tick for tick in ticks if low <= tick <= high), logarithmic=True)


def _line_chart(
    curves: TrainingCurves,
    lines: Mapping[str, Sequence[tuple[int, float]]],
    scale: _Scale,
    *,
    logarithmic: bool,
    description: str,
) -> LineChart:
    def placed(found: Sequence[tuple[int, float]]) -> tuple[tuple[float, float], ...]:
        return tuple((_across(curves, step), scale.place(value)) for step, value in thinned(found))

    styles = curves.styles()
    return LineChart(
        curves=tuple(
            Curve(name=name, points=placed(found), style=styles.get(name, place))
            for place, (name, found) in enumerate(lines.items())
        ),
        y_ticks=tuple(Tick(at=scale.place(value), label=f"{value:g}") for value in scale.ticks),
        x_ticks=tuple(
            Tick(at=_across(curves, step), label=f"{step:,}") for step in _steps(curves.steps)
        ),
        phases=phase_marks([(name, _across(curves, start)) for name, start in curves.phases]),
        logarithmic=logarithmic,
        description=description,
    )


_WIDTH_OF_A_LETTER = 1.7
"""In per cent of a chart on a phone, which is some 350 pixels wide."""


def phase_marks(phases: Sequence[tuple[str, float]]) -> tuple[PhaseMark, ...]:
    """Returns where the names of phases stand; one that fits into neither row is left out.

    Args:
        phases: Each phase with where it begins, in per cent of the width.
    """
    free_from = [0.0, 0.0]
    marks = []
    for name, at in phases:
        width = _WIDTH_OF_A_LETTER * (len(name) + 1)
        is_right = at + width > 100
        begin = max(0.0, 100 - width) if is_right else at
        row = next((row for row, free in enumerate(free_from) if free <= begin), None)
        if row is None:
            marks.append(PhaseMark(at=at, label=""))
            continue
        free_from[row] = begin + width
        marks.append(PhaseMark(at=at, label=name, row=row, is_right=is_right))
    return tuple(marks)


def _across(curves: TrainingCurves, step: int) -> float:
    return round(100 * step / max(curves.steps, 1), 2)


def thinned(found: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Returns at most about `MOST_POINTS` of the points, evenly taken, the last one among them."""
    stride = math.ceil(len(found) / MOST_POINTS) or 1
    kept = list(found[::stride])
    return kept if not found or kept[-1] == found[-1] else [*kept, found[-1]]


def _steps(last: int) -> list[int]:
    if last < 4:
        return sorted({0, last})
    raw = last / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw)
    ticks = [*range(0, last, step), last]
    crowded = any(after - before < step / 2 for before, after in pairwise(ticks))
    return [*ticks[:-2], last] if crowded else ticks
