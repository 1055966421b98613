"""The tables of a report, free of any form: terminal, HTML and Markdown print the same cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from domainfusion.distillation.results import DomainRetention, Estimate, EvaluationReport, ModelResult, Role
from domainfusion.reports.charts import TrainingCurves
from domainfusion.reports.figures import capitalised, command_line, duration, flattened, interval, percent, points, size
from domainfusion.reports.summary import GenerationCount, RunSummary, StageTime
from domainfusion.types import TrainingRecord, Verification

RETENTION_GOAL = 0.95
"""The share of an expert that a student has to keep to replace it: the margin of the non-inferiority column."""

HEAT_STEPS = 9
"""Shades of the heat map."""

ROLES: dict[Role, str] = {
    "student": "the model that this run trained",
    "base": "the student before training",
    "expert": "one domain's expert, asked the questions of every domain",
    "merge": "the experts' weights added up, with no training after it",
    "oracle": "the best that the experts could do together: each part of a question is graded on the answer of its own expert",
    "baseline": "something else to compare with",
}
"""What each row of the matrix is."""


class Cell(NamedTuple):
    """One cell: what it says, and in smaller type its interval or the reason why there is no figure."""

    text: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table ready to print.

    Attributes:
        caption: What it shows, in words.
        header: Column titles.
        align: `l` or `r` for each column.
        rows: As many cells a row as there are columns.
        bars: For each row, a share between 0 and 1 that HTML draws as a bar; empty for none.
    """

    caption: str
    header: tuple[str, ...]
    align: str
    rows: tuple[tuple[Cell, ...], ...]
    bars: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """One model on one slice.

    Attributes:
        cell: The figure and its interval.
        shade: Step of the heat map, 0 to `HEAT_STEPS` − 1; None where there is no figure.
        home: Whether the slice is the domain of the model, an expert.
    """

    cell: Cell
    shade: int | None
    home: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """One model on every slice."""

    label: str
    role: Role
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Every model on every slice: columns are slices with their number of questions."""

    columns: tuple[tuple[str, int], ...]
    rows: tuple[MatrixRow, ...]


def label_of(model: ModelResult) -> str:
    """Returns what a reader calls the model."""
    known = {("oracle", "oracle"): "routed oracle", ("merge", "merge"): "merge of the experts"}
    return f"expert: {model.name}" if model.role == "expert" else known.get((model.role, model.name), model.name)


def matrix(report: EvaluationReport) -> Matrix:
    """Returns the share of answers with every part right, model by slice."""
    student = report.student
    return Matrix(
        columns=tuple((name, score.items) for name, score in student.slices.items()),
        rows=tuple(
            MatrixRow(label=label_of(model), role=model.role, cells=tuple(_matrix_cell(model, name) for name in report.slices))
            for model in report.models
        ),
    )


def _matrix_cell(model: ModelResult, slice_name: str) -> MatrixCell:
    home = model.role == "expert" and model.name == slice_name
    score = model.slices.get(slice_name)
    if score is None:
        return MatrixCell(cell=Cell("–", "not measured"), shade=None, home=home)
    value = score.strict.value
    shade = None if value is None else min(HEAT_STEPS - 1, max(0, int(value * HEAT_STEPS)))
    return MatrixCell(cell=_bare(score.strict), shade=shade, home=home)


def matrix_table(report: EvaluationReport) -> Table:
    """Returns the matrix as a plain table."""
    found = matrix(report)
    return Table(
        caption="Answers with every part right, in per cent, with 95 % intervals unless all answers were graded alike",
        header=("Model", *(f"{name} ({items:,})" for name, items in found.columns)),
        align="l" + "r" * len(found.columns),
        rows=tuple((Cell(row.label), *(cell.cell for cell in row.cells)) for row in found.rows),
    )


def retention_table(report: EvaluationReport) -> Table:
    """Returns Domain Expertise Retention and headroom, a row a domain."""
    return Table(
        caption="Domain Expertise Retention (DER): the student's accuracy divided by its expert's, on the same held-out questions",
        header=("Domain", "DER", f"{percent(RETENTION_GOAL)} kept?", "Student", "Expert", "Base", "Headroom recovered", "Questions"),
        align="lrlrrrrr",
        rows=tuple(
            (
                Cell(row.domain),
                _figure(row.retention),
                Cell(keeps_goal(row)),
                *(_accuracy(value) for value in (row.student, row.expert, row.base)),
                _figure(row.headroom),
                Cell(f"{row.items:,}"),
            )
            for row in report.retention
        ),
    )


def keeps_goal(row: DomainRetention) -> str:
    """Says whether the interval settles that the student keeps `RETENTION_GOAL` of its expert: yes, no, not settled or undefined.

    Resamples of answers that are all graded alike are all alike, and their interval has no width. Then the rule of three decides:
    after n answers without a failure, the rate of failures is below 3/n with 95 % confidence (Hanley and Lippman-Hand, 1983).
    """
    low, high = row.retention.low, row.retention.high
    if row.retention.value is None:
        return "undefined"
    if low is not None and low == high:
        low -= 3 / row.items
    if low is not None and low >= RETENTION_GOAL:
        return "yes"
    if high is not None and high < RETENTION_GOAL:
        return "no"
    return "not settled"


def cross_domain_table(report: EvaluationReport) -> Table | None:
    """Returns every model on the cross-domain questions, by combination of domains; None where there are none."""
    models = [model for model in report.models if "cross-domain" in model.slices]
    if "cross-domain" not in report.slices:
        return None
    pairs = tuple(report.student.pairs)
    rows = []
    for model in models:
        overall = model.slices["cross-domain"]
        by_pair = (model.pairs.get(pair) for pair in pairs)
        rows.append(
            (
                Cell(label_of(model)),
                _bare(overall.strict),
                _bare(overall.partial),
                *(_bare(score.strict) if score else Cell("–", "not measured") for score in by_pair),
            )
        )
    items = report.student.slices["cross-domain"].items
    return Table(
        caption="Cross-Domain Accuracy (CDA), in per cent: strict counts an answer when every part is right, partial counts the parts",
        header=("Model", f"strict ({items:,})", "partial", *(f"{pair} ({score.items:,})" for pair, score in report.student.pairs.items())),
        align="lrr" + "r" * len(pairs),
        rows=tuple(rows),
    )


def apart_table(report: EvaluationReport) -> Table | None:
    """Returns the answers that were not graded or were cut; None where there are none."""
    rows = tuple(
        (Cell(label_of(model)), Cell(name), Cell(f"{score.items:,}"), Cell(f"{score.unscored:,}"), Cell(f"{score.truncated:,}"))
        for model in report.models
        for name, score in model.slices.items()
        if score.unscored or score.truncated
    )
    if not rows:
        return None
    return Table(
        caption="Counted apart from wrong answers",
        header=("Model", "Questions", "Asked", "Not graded", "Cut at the token limit"),
        align="llrrr",
        rows=rows,
    )


def measurement_table(report: EvaluationReport) -> Table:
    """Returns how the figures came about."""
    rows = [
        ("Test questions", f"{len(report.examples):,}" if report.examples else ""),
        ("Fingerprint of the test set, taken before any model answered", report.test_set),
        ("Accuracy metric", report.metric),
        ("Coherence metric", report.coherence_metric),
        ("Bootstrap resamples behind each interval", f"{report.resamples:,}" if report.resamples else ""),
        ("Seed of the bootstrap", str(report.seed) if report.resamples else ""),
    ]
    return _pairs("How the figures were measured", [row for row in rows if row[1]])


def generation_table(counts: Sequence[GenerationCount]) -> Table:
    """Returns what became of the examples asked for, a row a generator."""
    return Table(
        caption="Examples by generator; kept is the share of its candidates that entered the run",
        header=("Generator", "Kind", "Asked for", "Accepted", "Rejected", "Kept"),
        align="llrrrr",
        rows=tuple(
            (
                Cell(count.generator),
                Cell(count.kind),
                Cell(f"{count.asked:,}"),
                Cell(f"{count.accepted:,}"),
                Cell(f"{sum(count.rejected.values()):,}"),
                Cell(_kept(count)),
            )
            for count in counts
        ),
    )


def _kept(count: GenerationCount) -> str:
    candidates = count.accepted + sum(count.rejected.values())
    return percent(count.accepted / candidates) if candidates else "–"


def rejects_table(counts: Sequence[GenerationCount]) -> Table | None:
    """Returns the candidates left out, by generator and reason; None where all were accepted."""
    found = [(count.generator, reason, number) for count in counts for reason, number in _descending(count.rejected) if number]
    if not found:
        return None
    most = max(number for _, _, number in found)
    return Table(
        caption="Candidates left out, by reason",
        header=("Generator", "Reason", "Candidates"),
        align="llr",
        rows=tuple((Cell(generator), Cell(reason), Cell(f"{number:,}")) for generator, reason, number in found),
        bars=tuple(number / most for _, _, number in found),
    )


def records_table(records: Sequence[TrainingRecord]) -> Table:
    """Returns the training records by domains and verification."""
    kinds: tuple[Verification, ...] = ("verified", "unverified", "rejected")
    counts = Counter((" + ".join(record.example.domains), record.verification) for record in records)
    names = list(dict.fromkeys(domains for domains, _ in counts))
    rows = [(name, [counts[name, kind] for kind in kinds]) for name in sorted(names, key=lambda name: name.count(" + "))]
    if len(rows) > 1:
        rows.append(("all", [sum(numbers[column] for _, numbers in rows) for column in range(len(kinds))]))
    return Table(
        caption="Training records: verified against a reference, without a reference, or rejected and never trained on",
        header=("Domains", *(capitalised(kind) for kind in kinds), "Together"),
        align="lrrrr",
        rows=tuple((Cell(name), *(Cell(f"{number:,}") for number in (*numbers, sum(numbers)))) for name, numbers in rows),
    )


def tally_table(caption: str, noun: str, reasons: Iterable[str]) -> Table | None:
    """Returns how often each of `reasons` occurs, the most frequent first; None where there are none."""
    found = _descending(Counter(reasons))
    if not found:
        return None
    return Table(
        caption=caption,
        header=(noun, "Number"),
        align="lr",
        rows=tuple((Cell(reason or "no reason given"), Cell(f"{number:,}")) for reason, number in found),
        bars=tuple(number / found[0][1] for _, number in found),
    )


def training_table(curves: TrainingCurves) -> Table:
    """Returns the steps and the first, lowest and last loss of each phase."""
    ends = [*(start for _, start in curves.phases[1:]), curves.steps]
    rows = []
    for (name, start), end in zip(curves.phases, ends, strict=True):
        losses = [loss for _, loss in curves.losses.get(name, ())]
        figures = (f"{losses[0]:.4g}", f"{min(losses):.4g}", f"{losses[-1]:.4g}") if losses else ("–",) * 3
        rows.append((Cell(name), Cell(f"{end - start:,}"), *map(Cell, figures)))
    return Table(
        caption="Training loss by phase", header=("Phase", "Steps", "First loss", "Lowest", "Last"), align="lrrrr", rows=tuple(rows)
    )


def stages_table(stages: Sequence[StageTime], peak_memory_bytes: int | None) -> Table:
    """Returns time and memory, a row a stage, and their total."""
    total = sum(stage.seconds for stage in stages)
    measured = peak_memory_bytes is not None or any(stage.peak_memory_bytes is not None for stage in stages)
    rows = [(stage.stage, stage.seconds, stage.peak_memory_bytes) for stage in stages]
    if len(stages) > 1:
        rows.append(("all", total, peak_memory_bytes))
    longest = max((stage.seconds for stage in stages), default=0.0)
    return Table(
        caption="Time by stage" + (", and the most memory that was resident up to its end" if measured else ""),
        header=("Stage", "Time", *(["Peak memory"] if measured else [])),
        align="lrr" if measured else "lr",
        rows=tuple(
            (Cell(name), Cell(duration(seconds)), *([Cell("–" if memory is None else size(memory))] if measured else []))
            for name, seconds, memory in rows
        ),
        bars=tuple(stage.seconds / longest for stage in stages) + (0.0,) * (len(rows) - len(stages)) if longest else (),
    )


def participants_table(summary: RunSummary) -> Table | None:
    """Returns the student and its teachers; None where neither is known."""
    known = {key: value for key, value in summary.student.items() if value is not None}
    rows = [(f"Student: {key.replace('_', ' ')}", _parameters(key, text)) for key, text in flattened(known)]
    rows += [(f"Expert: {domain}", name) for domain, name in summary.teachers.items()]
    return _pairs("Student and experts", rows) if rows else None


def _parameters(key: str, text: str) -> str:
    return f"{int(text):,}" if key == "parameters" and text.isdigit() else text


def settings_table(summary: RunSummary) -> Table | None:
    """Returns the settings of the run but for its command; None where none is known."""
    rows = flattened({key: value for key, value in summary.settings.items() if key != "command" or not command_line(summary.settings)})
    return _pairs("Settings of the run", rows) if rows else None


def _pairs(caption: str, rows: Sequence[tuple[str, str]]) -> Table:
    return Table(caption=caption, header=("", ""), align="ll", rows=tuple((Cell(name), Cell(text)) for name, text in rows))


def _descending(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _accuracy(value: float | None) -> Cell:
    return Cell("–", "not measured") if value is None else Cell(f"{points(value)} %")


def _figure(estimate: Estimate) -> Cell:
    if estimate.value is None:
        return Cell("undefined", estimate.reason)
    return Cell(f"{points(estimate.value)} %", interval(estimate))


def _bare(estimate: Estimate) -> Cell:
    return Cell("undefined", estimate.reason) if estimate.value is None else Cell(points(estimate.value), interval(estimate))
