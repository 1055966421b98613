"""The tables of an evaluation: retention, every model on every slice, across and between domains, and how it was measured."""

from __future__ import annotations

from dataclasses import dataclass

from domainfusion.distillation.results import DomainRetention, EvaluationReport, ModelResult, Role
from domainfusion.reports.figures import percent
from domainfusion.reports.tables import Cell, Table, bare, figure, pairs_table, share

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
    return MatrixCell(cell=bare(score.strict), shade=shade, home=home)


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
                figure(row.retention),
                Cell(keeps_goal(row)),
                *(share(value) for value in (row.student, row.expert, row.base)),
                figure(row.headroom),
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
                bare(overall.strict),
                bare(overall.partial),
                *(bare(score.strict) if score else Cell("–", "not measured") for score in by_pair),
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
    return pairs_table("How the figures were measured", [row for row in rows if row[1]])


