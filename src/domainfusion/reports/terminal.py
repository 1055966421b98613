"""The report in a terminal: the verdict, then the tables that it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from domainfusion.distillation.results import EvaluationReport
from domainfusion.errors import printable
from domainfusion.reports import evaluation_tables, run_tables
from domainfusion.reports.run_tables import refinement_sentence, refinement_tables
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.tables import Cell, Table
from domainfusion.reports.verdict import verdict


def render_terminal(summary: RunSummary) -> RenderableType:
    """Returns the report for `rich.console.Console.print`.

    Text that models or users wrote is never taken as console markup, and control characters in it
    are shown, not obeyed.

    Args:
        summary: The run; what is empty in it has no table.

    Returns:
        The renderable.
    """
    blocks: list[RenderableType] = [_text(summary.heading, "bold")]
    blocks += (
        [_text("The student of this run has not been evaluated.")]
        if summary.evaluation is None
        else _evaluation(summary.evaluation)
    )
    found = [
        run_tables.generation_table(summary.generation) if summary.generation else None,
        run_tables.records_table(summary.records) if summary.records else None,
        *(refinement_tables(summary.refinement) if summary.refinement else ()),
        run_tables.savings_table(summary.savings, len(summary.teachers))
        if summary.savings
        else None,
        run_tables.stages_table(summary.stages, summary.peak_memory_bytes)
        if summary.stages
        else None,
        run_tables.usage_table(summary.usage) if summary.usage else None,
    ]
    blocks += [_table(item) for item in found if item]
    blocks += (
        [_text(f"Refinement: {refinement_sentence(summary.refinement)}")]
        if summary.refinement
        else []
    )
    spaced = [part for block in blocks for part in (block, Text())]
    return Group(*spaced[:-1])


def render_tables(tables: Sequence[Table]) -> RenderableType:
    """Returns tables for `rich.console.Console.print`, with a blank line between them."""
    spaced = [part for table in tables for part in (_table(table), Text())]
    return Group(*spaced[:-1])


def _evaluation(report: EvaluationReport) -> list[RenderableType]:
    found = verdict(report)
    blocks: list[RenderableType] = [_text(found.headline, "bold cyan")]
    blocks += (
        [Group(*(_bullet(sentence) for sentence in found.conclusions))] if found.conclusions else []
    )
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


def _table(found: Table) -> RichTable:
    shown = RichTable(
        title=_text(found.caption),
        title_justify="left",
        title_style="italic",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for title, side in zip(found.header, found.align, strict=True):
        shown.add_column(_text(title), justify="right" if side == "r" else "left", overflow="fold")
    for row in found.rows:
        shown.add_row(*map(_cell, row), style="bold" if row[0].text == "student" else "")
    return shown


def _cell(cell: Cell) -> Text:
    text = _text(cell.text)
    return text.append(f"\n{printable(cell.note)}", style="dim not bold") if cell.note else text


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)
