"""The tables of an evaluation: retention, every model on every slice, across and between domains,
and how it was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import (
    DomainRetention,
    Estimate,
    ModelResult,
    Overlap,
    Role,
    SliceScore,
)
from domainfusion.distillation.statistics import PairedComparison
from domainfusion.reports.tables import Cell, Table, bare, figure, pairs_table, percent, share
from domainfusion.types import Example
from domainfusion.wording import counted

RETENTION_GOAL = 0.95
"""The share of an expert that is marked where no share was tested."""

HEAT_STEPS = 9
"""Shades of the heat map."""

ROLES: dict[Role, str] = {
    "student": "the model that this run trained",
    "base": "the student before training",
    "expert": "one domain's expert, asked the questions of every domain",
    "merge": "the experts' weights merged, with no training after it",
    "oracle": (
        "the most that the experts' answers hold: each is asked its own question, and each part is"
        " graded on its own expert's answer"
    ),
    "ensemble": (
        "the experts and the integrator at run time, asked as the targets were made: what the"
        " student replaces"
    ),
    "baseline": "something else to compare with",
}
"""The meaning of each row of the matrix."""


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
    """Returns the model's name for a reader."""
    known = {
        ("oracle", "oracle"): "routed oracle",
        ("ensemble", "ensemble"): "ensemble of the experts",
        ("merge", "merge"): "merge of the experts",
    }
    return (
        f"expert: {model.name}"
        if model.role == "expert"
        else known.get((model.role, model.name), model.name)
    )


def matrix(report: EvaluationReport) -> Matrix:
    """Returns the share of answers with every part right, model by slice."""
    student = report.student
    return Matrix(
        columns=tuple((name, score.items) for name, score in student.slices.items()),
        rows=tuple(
            MatrixRow(
                label=label_of(model),
                role=model.role,
                cells=tuple(_matrix_cell(model, name) for name in report.slices),
            )
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
    cell = bare(score.strict)
    return MatrixCell(
        cell=Cell(cell.text, cell.note or "given") if model.given else cell, shade=shade, home=home
    )


def matrix_table(report: EvaluationReport) -> Table:
    """Returns the matrix as a plain table."""
    found = matrix(report)
    return Table(
        caption=(
            "Answers with every part right, in per cent, with 95 % intervals unless all answers"
            " were graded alike"
        ),
        header=("Model", *(f"{name} ({items:,})" for name, items in found.columns)),
        align="l" + "r" * len(found.columns),
        rows=tuple((Cell(row.label), *(cell.cell for cell in row.cells)) for row in found.rows),
    )


def is_graded(report: EvaluationReport) -> bool:
    """Whether any answer could be graded: without one, tables of accuracy would say nothing, cell
    by cell.
    """
    return any(
        score.strict.value is not None for model in report.models for score in model.slices.values()
    )


def goal_of(report: EvaluationReport) -> float:
    """Returns the share of an expert that the student has to keep: the margin of the
    non-inferiority test.
    """
    tested = (row.non_inferiority for row in report.retention)
    return next((found.margin for found in tested if found is not None), RETENTION_GOAL)


def retention_table(report: EvaluationReport) -> Table:
    """Returns Domain Expertise Retention, its verdict and headroom, a row a domain."""
    corrected = any(row.chance_corrected is not None for row in report.retention)
    header = [
        "Domain",
        "DER",
        f"{percent(goal_of(report))} kept?",
        "Student",
        "Expert",
        "Base",
        "Headroom recovered",
    ]
    header += ["Above chance", "Questions"] if corrected else ["Questions"]
    return Table(
        caption=(
            "Domain Expertise Retention (DER): the student's strict accuracy divided by its"
            " expert's, on the same held-out questions"
        ),
        header=tuple(header),
        align="lrlrrr" + "r" * (len(header) - 6),
        rows=tuple(_retention_row(row, corrected=corrected) for row in report.retention),
    )


def _retention_row(row: DomainRetention, *, corrected: bool) -> tuple[Cell, ...]:
    above_chance = (
        Cell("–", "chance is not known")
        if row.chance_corrected is None
        else figure(row.chance_corrected)
    )
    return (
        Cell(row.domain),
        figure(row.retention),
        kept(row),
        *(share(value) for value in (row.student, row.expert, row.base)),
        figure(row.headroom),
        *([above_chance] if corrected else []),
        Cell(f"{row.items:,}"),
    )


def kept(row: DomainRetention) -> Cell:
    """Returns whether the student keeps the share of its expert that was asked for, and how many
    more questions would settle it.
    """
    if row.non_inferiority is None:
        return Cell("not tested")
    more, reason = row.non_inferiority.more_items, row.non_inferiority.reason
    note = (
        f"about {counted(more, 'more question', 'more questions')} would settle it"
        if more
        else reason
    )
    return Cell(row.non_inferiority.verdict, note)


def cross_domain_table(report: EvaluationReport) -> Table | None:
    """Returns every model on the cross-domain questions, by combination of domains; None where
    there are none.
    """
    models = [model for model in report.models if "cross-domain" in model.slices]
    if "cross-domain" not in report.slices or not is_graded(report):
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
        caption=(
            "Cross-Domain Accuracy (CDA), in per cent: strict counts an answer when every part is"
            " right, partial counts the parts"
        ),
        header=(
            "Model",
            f"strict ({items:,})",
            "partial",
            *(f"{pair} ({score.items:,})" for pair, score in report.student.pairs.items()),
        ),
        align="lrr" + "r" * len(pairs),
        rows=tuple(rows),
    )


def adversarial_table(report: EvaluationReport) -> Table | None:
    """Returns the adversarial questions by what they look like and need; None where there are
    none.
    """
    pairs = report.student.adversarial
    if not pairs or not is_graded(report):
        return None
    experts = {model.name: model for model in report.models if model.role == "expert"}
    base = next((model for model in report.models if model.role == "base"), None)
    rows = []
    for pair, score in pairs.items():
        apparent, _, needed = pair.partition(" → ")
        others = [base, experts.get(needed), experts.get(apparent)]
        cells = [
            (
                bare(model.adversarial[pair].strict)
                if model and pair in model.adversarial
                else Cell("–")
            )
            for model in others
        ]
        rows.append(
            (Cell(apparent), Cell(needed), Cell(f"{score.items:,}"), bare(score.strict), *cells)
        )
    return Table(
        caption=(
            "Adversarial questions, which look like one domain and need another: answers with every"
            " part right, in per cent"
        ),
        header=(
            "Looks like",
            "Needs",
            "Questions",
            "Student",
            "Base",
            "Expert it needs",
            "Expert it looks like",
        ),
        align="llrrrrr",
        rows=tuple(rows),
    )


def overlap_table(report: EvaluationReport) -> Table | None:
    """Returns every model's overlap with references in words; None where nothing else but `answers`
    is graded.
    """
    if not report.overlap_slices:
        return None
    rows = []
    for model in report.models:
        scores = [model.slices.get(name) for name in report.overlap_slices]
        cells = [
            Cell("–") if score is None or score.overlap is None else figure(score.overlap)
            for score in scores
        ]
        rows.append((Cell(label_of(model)), *cells))
    columns = [
        f"{name} ({report.student.slices[name].overlap_items:,})" for name in report.overlap_slices
    ]
    return Table(
        caption=(
            "Overlap with references in words, which is not accuracy: an answer that says the"
            " opposite shares nearly all words"
        ),
        header=("Model", *columns),
        align="l" + "r" * len(columns),
        rows=tuple(rows),
    )


def cost_table(report: EvaluationReport) -> Table | None:
    """Returns what the student and the ensemble that it replaces take to answer; None where that
    was not counted.
    """
    models = [model for model in report.models if model.cost is not None and model.cost.questions]
    if len(models) < 2:
        return None
    rows = []
    for model in models:
        cost = model.cost
        if cost is None:
            continue
        tokens = (cost.prompt_tokens / cost.questions, cost.completion_tokens / cost.questions)
        rows.append(
            (
                Cell(label_of(model)),
                Cell(f"{cost.calls / cost.questions:.2f}"),
                *(Cell(f"{count:,.1f}") for count in tokens),
            )
        )
    return Table(
        caption=(
            "What an answer takes, on average over"
            f" {counted(models[0].cost.questions if models[0].cost else 0, 'question')}"
        ),
        header=("Model", "Model calls", "Tokens read", "Tokens written"),
        align="lrrr",
        rows=tuple(rows),
    )


def agreement_table(report: EvaluationReport) -> Table | None:
    """Returns the agreement with the experts where nobody says what is right; None where none was
    measured.
    """
    if not report.agreement:
        return None
    return Table(
        caption=(
            "Agreement with the experts on questions that have no reference, which is not accuracy;"
            " an expert's agreement with a second answer of its own is the most that can be asked"
        ),
        header=(
            "Questions",
            "Measure",
            "Student",
            "Expert with itself",
            "Base",
            "Student ÷ expert",
            "Compared",
            "Not comparable",
        ),
        align="llrrrrrr",
        rows=tuple(
            (
                Cell(row.slice),
                Cell(row.measure),
                figure(row.student),
                figure(row.expert),
                Cell("–", "not measured") if row.base is None else figure(row.base),
                figure(row.relative),
                Cell(f"{row.items:,}"),
                Cell(f"{row.unscored:,}"),
            )
            for row in report.agreement
        ),
    )


def benchmarks_table(report: EvaluationReport) -> Table | None:
    """Returns which benchmarks were run; their scores are in the matrix. None where there were
    none.
    """
    if not report.benchmarks:
        return None
    return Table(
        caption="Benchmarks; their scores stand under their names where every model is compared",
        header=("Benchmark", "Domain", "Source", "Graded by", "Items"),
        align="llllr",
        rows=tuple(
            (
                Cell(found.slice, " ".join(found.notes)),
                Cell(found.domain or "general ability"),
                Cell(found.source),
                Cell(found.metric),
                Cell(f"{found.items:,}"),
            )
            for found in report.benchmarks
        ),
    )


def regressions_table(report: EvaluationReport) -> Table | None:
    """Returns whether the student lost general ability against its base; None where that was not
    measured.
    """
    if not report.regressions:
        return None
    return Table(
        caption=(
            "General ability: the student against its base, in per cent, with the paired interval"
            " of the difference"
        ),
        header=("Benchmark", "Student", "Base", "Difference", "Loss?", "Items"),
        align="lrrrlr",
        rows=tuple(
            (
                Cell(row.slice),
                share(row.student),
                share(row.base),
                figure(row.difference),
                Cell(row.verdict, f"a loss up to {percent(row.tolerance)} counts as none"),
                Cell(f"{row.items:,}"),
            )
            for row in report.regressions
        ),
    )


def overall_table(report: EvaluationReport) -> Table | None:
    """Returns the weighted overall score and what it is made of; None where none was asked for."""
    if report.overall is None:
        return None
    rows = [
        (Cell(part.name, part.about), Cell(f"{part.weight:g}"), figure(part.score))
        for part in report.overall.components
    ]
    return Table(
        caption="Overall score: the weighted mean of its components",
        header=("Component", "Weight", "Score"),
        align="lrr",
        rows=(*rows, (Cell("all"), Cell("1"), figure(report.overall.score))),
    )


def apart_table(report: EvaluationReport) -> Table | None:
    """Returns the answers that were not graded, cut, empty of anything to grade or repetitive; None
    where there are none.
    """
    kinds: tuple[tuple[str, Callable[[SliceScore], int]], ...] = (
        ("Not graded", lambda score: score.unscored),
        ("Cut at the token limit", lambda score: score.truncated),
        ("Not readable (wrong)", lambda score: score.not_readable),
        ("Repetitive", lambda score: score.repetitive),
    )
    scores = [
        (model, name, score) for model in report.models for name, score in model.slices.items()
    ]
    if not is_graded(report):
        kinds = kinds[1:]  # that nothing was graded is said once
    present = [
        (title, count) for title, count in kinds if any(count(score) for _, _, score in scores)
    ]
    rows = tuple(
        (
            Cell(label_of(model)),
            Cell(name),
            Cell(f"{score.items:,}"),
            *(Cell(f"{count(score):,}") for _, count in present),
        )
        for model, name, score in scores
        if any(count(score) for _, count in present)
    )
    if not rows:
        return None
    return Table(
        caption="Answers counted apart from plainly wrong ones",
        header=("Model", "Questions", "Asked", *(title for title, _ in present)),
        align="llr" + "r" * len(present),
        rows=rows,
    )


def paired_difference(
    examples: Sequence[Example], before: ModelResult, after: ModelResult, name: str
) -> tuple[Estimate, int]:
    """Compares two models on the questions of a slice on which both were graded.

    Args:
        examples: The questions.
        before: The one model.
        after: The other.
        name: The slice.

    Returns:
        The second's accuracy less the first's, with its 95 % interval, and the number of questions.
    """
    comparison = _paired(examples, before, after, name)
    return comparison.difference(), comparison.items


def retention_before(report: EvaluationReport, start: ModelResult) -> tuple[DomainRetention, ...]:
    """Returns the rows of a report as they are of the model that its student was trained from.

    Args:
        report: The report.
        start: That model's results in it.

    Returns:
        DER of the model where the report has the student's, on the same questions.
    """
    experts = {model.name: model for model in report.models if model.role == "expert"}
    rows = []
    for row in report.retention:
        kept = row.retention
        # What leaves it undefined, such as an expert that knows nothing, does so before too.
        if kept.value is not None:
            comparison = _paired(report.examples, experts[row.domain], start, row.domain)
            is_whole = comparison.items == row.items
            kept = comparison.ratio() if is_whole else Estimate(value=None)
        rows.append(replace(row, student=row.base, retention=kept))
    return tuple(rows)


def _paired(
    examples: Sequence[Example], before: ModelResult, after: ModelResult, name: str
) -> PairedComparison:
    groups = {item.id: item.group for item in examples if slice_of(item) == name}
    first, second = _right(before), _right(after)
    shared = [item for item in groups if item in first and item in second]
    return PairedComparison(
        [second[item] for item in shared],
        [first[item] for item in shared],
        [groups[item] for item in shared],
    )


def _right(model: ModelResult) -> dict[str, bool]:
    return {
        answer.example_id: answer.correct for answer in model.answers if answer.correct is not None
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The gain of training over the untrained merge of the experts on one slice.

    Attributes:
        slice: The slice.
        merge: The merge's accuracy.
        student: The student's.
        difference: The student's less the merge's, with its paired interval.
    """

    slice: str
    merge: float | None
    student: float | None
    difference: Estimate

    @property
    def outcome(self) -> str:
        """`gained`, `lost` or `not settled`, by the interval."""
        if self.difference.low is not None and self.difference.low > 0:
            return "gained"
        if self.difference.high is not None and self.difference.high < 0:
            return "lost"
        return "not settled"


def gains(report: EvaluationReport) -> list[Gain]:
    """Returns the gain of training over the untrained merge, a slice each; empty where no merge was
    measured.
    """
    merge = next((model for model in report.models if model.role == "merge"), None)
    if merge is None:
        return []
    found = []
    for name, score in report.student.slices.items():
        if name not in merge.slices:
            continue
        difference, items = paired_difference(report.examples, merge, report.student, name)
        if items:
            found.append(
                Gain(
                    slice=name,
                    merge=merge.slices[name].strict.value,
                    student=score.strict.value,
                    difference=difference,
                )
            )
    return found


def gains_table(report: EvaluationReport) -> Table | None:
    """Returns the student beside the untrained merge of its experts; None where there is none."""
    rows = gains(report)
    if not rows:
        return None
    return Table(
        caption=(
            "Would the untrained merge have been enough? Answers with every part right, and the"
            " paired difference with its 95 % interval"
        ),
        header=("Questions", "Merge", "Student", "Difference", "By training"),
        align="lrrrl",
        rows=tuple(
            (
                Cell(row.slice),
                share(row.merge),
                share(row.student),
                figure(row.difference),
                Cell(row.outcome),
            )
            for row in rows
        ),
    )


def domain_table(report: EvaluationReport, domain: str) -> Table:
    """Returns each model's share of right answers to the questions of one domain."""
    rows = []
    for model in report.models:
        score = model.slices.get(domain)
        # What the experts of other domains say here is in the table of all models.
        if score is None or (model.role == "expert" and model.name != domain):
            continue
        rows.append((Cell(label_of(model)), figure(score.strict)))
    return Table(
        caption="Answers with every part right, with 95 % intervals",
        header=("Model", "Right"),
        align="lr",
        rows=tuple(rows),
    )


def further_tables(report: EvaluationReport) -> list[Table]:
    """Returns every table but those of retention, the matrix and the measurement, as far as there
    is something in them.
    """
    across = (gains_table, cost_table, cross_domain_table, adversarial_table)
    others = (
        overlap_table,
        agreement_table,
        benchmarks_table,
        regressions_table,
        overall_table,
        apart_table,
    )
    return [table for maker in (*across, *others) if (table := maker(report))]


def measurement_table(report: EvaluationReport) -> Table:
    """Returns how the figures came about."""
    rows = [
        ("Test questions", f"{len(report.examples):,}" if report.examples else ""),
        ("Fingerprint of the test set, taken before any model answered", report.test_set),
        ("Accuracy metric", report.metric),
        ("Coherence metric", report.coherence_metric),
        *_overlap_rows(report.overlap),
        ("How it is settled that enough is kept", "; ".join(_methods(report))),
        (
            "Bootstrap resamples behind each interval",
            f"{report.resamples:,}" if report.resamples else "",
        ),
        ("Seed of the bootstrap", str(report.seed) if report.resamples else ""),
    ]
    return pairs_table("How the figures were measured", [row for row in rows if row[1]])


def _overlap_rows(overlap: Overlap | None) -> list[tuple[str, str]]:
    if overlap is None:
        return []
    against = f"of {counted(overlap.trained, 'training query', 'training queries')}"
    return [
        ("Test questions that were trained on", f"{len(overlap.same):,}, {against}"),
        (
            "Test questions that nearly were",
            f"{len(overlap.near):,}{f' ({overlap.method})' if overlap.method else ''}",
        ),
    ]


def _methods(report: EvaluationReport) -> list[str]:
    tested = (row.non_inferiority for row in report.retention)
    return list(
        dict.fromkeys(found.method for found in tested if found is not None and found.method)
    )
