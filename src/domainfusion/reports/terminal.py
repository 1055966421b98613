"""A run in the terminal, and several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import Estimate
from domainfusion.errors import printable
from domainfusion.reports import evaluation_tables, run_tables
from domainfusion.reports.evaluation_tables import paired_difference
from domainfusion.reports.run_tables import refinement_sentence, refinement_tables
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.tables import Cell, Table, clipped, flattened, interval, percent, points
from domainfusion.reports.verdict import (
    cross_domain_sentence,
    merge_sentence,
    savings_sentence,
    verdict,
)
from domainfusion.wording import counted, duration

MOST_LINES = 16
"""Lines of the verdict; with those about files and the next command, twenty end a run."""

_MOST_ROWS = 5


def render_terminal(summary: RunSummary, *, details: bool = False) -> RenderableType:
    """Returns the verdict for `rich.console.Console.print`, in 16 lines at most.

    Text that models or users wrote is never taken as console markup, and control characters in it
    are shown, not obeyed.

    Args:
        summary: The run; what is empty in it has no table.
        details: Print every table of the run before the verdict.

    Returns:
        The renderable.
    """
    verdict_lines = _Brief(_verdict_blocks(summary))
    if not details:
        return verdict_lines
    blocks = [] if summary.evaluation is None else _evaluation(summary.evaluation)
    found = [
        run_tables.generation_table(summary.generation) if summary.generation else None,
        run_tables.records_table(summary.records, summary.samples) if summary.records else None,
        *(refinement_tables(summary.refinement) if summary.refinement else ()),
        run_tables.savings_table(summary.savings, len(summary.teachers), summary.shipped)
        if summary.savings
        else None,
        run_tables.stages_table(summary.stages, summary.peak_memory_bytes)
        if summary.stages
        else None,
        run_tables.usage_table(summary.usage) if summary.usage else None,
    ]
    blocks += [_table(item) for item in found if item]
    if summary.refinement:
        blocks.append(_text(f"Refinement: {refinement_sentence(summary.refinement)}"))
    spaced = [part for block in blocks for part in (block, Text())]
    return Group(*spaced, verdict_lines)


class _Brief:
    """Prints as many of its blocks, the first ones before the others, as `MOST_LINES` hold."""

    def __init__(self, blocks: Sequence[RenderableType]) -> None:
        self._blocks = blocks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = MOST_LINES
        for place, block in enumerate(self._blocks):
            lines = len(console.render_lines(block, options.update(height=None), pad=False))
            if place and lines > room:
                continue
            room -= lines
            yield block


def _verdict_blocks(summary: RunSummary) -> list[RenderableType]:
    report = summary.evaluation
    if report is None:
        return [
            Group(
                _text(summary.heading, "bold"),
                Text(),
                _text("The student of this run has not been evaluated."),
            )
        ]
    blocks: list[RenderableType] = [
        Group(_text(summary.heading, "bold"), _text(report.headline, "bold cyan"))
    ]
    if report.retention and evaluation_tables.is_graded(report):
        blocks.append(_brief_table(report))
    elif report.conclusions:
        blocks.append(Group(*map(_bullet, report.conclusions)))
    facts = [cross_domain_sentence(report), merge_sentence(report), savings_sentence(summary)]
    return [*blocks, *(_bullet(sentence) for sentence in facts if sentence)]


def _brief_table(report: EvaluationReport) -> RenderableType:
    """Returns the retention of each domain; of many, those that are not settled for the student."""
    rows = list(report.retention)
    rest = 0
    if len(rows) > _MOST_ROWS:
        order = ("no", "undefined", "not enough data", "yes")
        verdicts = {
            row.domain: row.non_inferiority.verdict if row.non_inferiority else "yes"
            for row in rows
        }
        rows.sort(key=lambda row: order.index(verdicts[row.domain]))
        rest = len(rows) - _MOST_ROWS
        rows = rows[:_MOST_ROWS]
    grid = RichTable.grid(padding=(0, 2))
    for row in rows:
        found = row.retention
        value = "undefined" if found.value is None else f"{percent(found.value)} of its expert"
        inside = interval(found)
        kept = row.non_inferiority.verdict if row.non_inferiority else ""
        grid.add_row(
            _text(f"  {row.domain}"),
            _text(value),
            _text(f"({inside})" if inside else ""),
            _text(kept),
            _text(counted(row.items, "question")),
        )
    if not rest:
        return grid
    return Group(grid, _text(f"  and {counted(rest, 'more domain')}", "dim"))


def render_tables(tables: Sequence[Table]) -> RenderableType:
    """Returns tables for `rich.console.Console.print`, with a blank line between them."""
    spaced = [part for table in tables for part in (_table(table), Text())]
    return Group(*spaced[:-1])


def _evaluation(report: EvaluationReport) -> list[RenderableType]:
    found = verdict(report)
    blocks: list[RenderableType] = []
    if found.conclusions:
        blocks.append(Group(*(_bullet(sentence) for sentence in found.conclusions)))
    blocks += [
        Group(_text(title, "bold"), *(_bullet(sentence) for sentence in sentences))
        for title, sentences in (("What it keeps", found.keeps), ("What it misses", found.misses))
        if sentences
    ]
    graded = evaluation_tables.is_graded(report)
    blocks += (
        [_table(evaluation_tables.retention_table(report))] if report.retention and graded else []
    )
    blocks += [_table(evaluation_tables.matrix_table(report))] if report.slices and graded else []
    blocks += [_table(table) for table in evaluation_tables.further_tables(report)]
    blocks += [_text(report.coherence.conclusion)] if report.coherence else []
    return blocks


def _bullet(sentence: str) -> RenderableType:
    grid = RichTable.grid(padding=(0, 1))
    grid.add_row("•", _text(sentence))
    return grid


def _table(found: Table) -> RenderableType:
    # The caption stands apart: a title of rich's is wrapped to the width of the table.
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title, side in zip(found.header, found.align, strict=True):
        shown.add_column(_text(title), justify="right" if side == "r" else "left", overflow="fold")
    for row in found.rows:
        shown.add_row(*map(_cell, row), style="bold" if row[0].text == "student" else "")
    return Group(_text(found.caption, "italic"), shown)


def _cell(cell: Cell) -> Text:
    text = _text(cell.text)
    return text.append(f"\n{printable(cell.note)}", style="dim not bold") if cell.note else text


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


_LONGEST_VALUE = 60


def compare_runs(runs: Mapping[str, RunSummary]) -> list[Table]:
    """Returns the tables that set several runs beside the first of them.

    Differences in accuracy are paired: over the questions, found by their ids, that both runs
    asked and both students' answers were graded on. Their intervals are those of
    `domainfusion.distillation.statistics.PairedComparison`.

    Args:
        runs: At least two runs by name; the first is the one that the others are compared with.

    Returns:
        The inputs that differ, the accuracy of each slice, and the retention of each domain;
        without those in which nothing can be compared.
    """
    found = [_inputs(runs), _accuracies(runs), _retention(runs), _times(runs)]
    return [table for table in found if table and table.rows]


def _inputs(runs: Mapping[str, RunSummary]) -> Table:
    settings = [dict(flattened(_all_inputs(run))) for run in runs.values()]
    names = dict.fromkeys(name for found in settings for name in found)
    rows = []
    for name in names:
        values = [found.get(name, "–") for found in settings]
        if len(set(values)) > 1:
            rows.append((Cell(name), *(Cell(clipped(value, _LONGEST_VALUE)) for value in values)))
    return Table(
        caption="What differs in the inputs",
        header=("Setting", *runs),
        align="l" * (1 + len(runs)),
        rows=tuple(rows),
    )


def _all_inputs(run: RunSummary) -> dict[str, object]:
    versions = run.settings.get("versions")
    return {**run.inputs, **({"versions": versions} if versions else {})}


def _accuracies(runs: Mapping[str, RunSummary]) -> Table:
    """A row a slice: the student's accuracy in each run, with the paired difference below it."""
    reports = [run.evaluation for run in runs.values()]
    evaluated = [report for report in reports if report]
    names = dict.fromkeys(name for report in evaluated for name in report.slices)
    rows = []
    for name in names:
        cells = [_accuracy(report, name) for report in reports]
        for place, report in enumerate(reports[1:], start=1):
            if reports[0] and report:
                difference, items = paired_difference(
                    reports[0].examples, reports[0].student, report.student, name
                )
                cells[place] = Cell(cells[place].text, _difference_in_words(difference, items))
        rows.append((Cell(name), *cells))
    return Table(
        caption="The student's accuracy; below it, the difference from the first run in points",
        header=("Slice", *runs),
        align="l" + "r" * len(runs),
        rows=tuple(rows),
    )


def _accuracy(report: EvaluationReport | None, name: str) -> Cell:
    score = report.student.slices.get(name) if report else None
    if score is None or score.strict.value is None:
        return Cell("–")
    return Cell(f"{percent(score.strict.value)} of {score.items}")


def _difference_in_words(difference: Estimate, items: int) -> str:
    if difference.value is None or difference.low is None or difference.high is None:
        return "no shared questions"
    interval = f"{_signed(difference.low)} to {_signed(difference.high)}"
    settled = difference.low > 0 or difference.high < 0
    doubt = "" if settled else ", within chance"
    return f"{_signed(difference.value)} ({interval}) on {items}{doubt}"


def _signed(value: float) -> str:
    text = points(abs(value))
    return f"−{text}" if value < 0 else f"+{text}"


def _retention(runs: Mapping[str, RunSummary]) -> Table:
    """A row a domain: the share of its expert's accuracy that each student keeps."""
    reports = [run.evaluation for run in runs.values()]
    kept = [
        {row.domain: row.retention for row in report.retention} if report else {}
        for report in reports
    ]
    domains = dict.fromkeys(domain for found in kept for domain in found)
    rows = [(Cell(domain), *(_kept(found.get(domain)) for found in kept)) for domain in domains]
    return Table(
        caption="Domain Expertise Retention, with its 95 % interval",
        header=("Domain", *runs),
        align="l" + "r" * len(runs),
        rows=tuple(rows),
    )


def _kept(estimate: Estimate | None) -> Cell:
    if estimate is None or estimate.value is None:
        return Cell("–")
    if estimate.low is None or estimate.high is None:
        return Cell(percent(estimate.value))
    return Cell(percent(estimate.value), f"{points(estimate.low)} to {points(estimate.high)}")


def _times(runs: Mapping[str, RunSummary]) -> Table:
    taken: Sequence[dict[str, float]] = [
        {stage.stage: stage.seconds for stage in run.stages} for run in runs.values()
    ]
    stages = dict.fromkeys(stage for found in taken for stage in found)
    rows = [
        (
            Cell(stage),
            *(Cell(duration(found[stage]) if stage in found else "–") for found in taken),
        )
        for stage in stages
    ]
    return Table(
        caption="Time of each stage",
        header=("Stage", *runs),
        align="l" + "r" * len(runs),
        rows=tuple(rows),
    )
