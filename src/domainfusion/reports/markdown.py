"""The report as Markdown, for an issue, a wiki or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from domainfusion.distillation.results import EvaluationReport
from domainfusion.errors import printable
from domainfusion.reports import evaluation_tables, ledgers, run_tables, tables, training_tables
from domainfusion.reports.comparisons import Comparison, comparisons
from domainfusion.reports.curves import training_curves
from domainfusion.reports.figures import clipped, command_line
from domainfusion.reports.refinement_tables import refinement_sentence, refinement_tables
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.tables import Cell, Table
from domainfusion.reports.verdict import Verdict, verdict

MOST_WRONG_ANSWERS = 10
LONGEST_TEXT = 300

_SPECIAL = re.compile(r"([\\`*_\[\]|~$#])")
_MENTION = re.compile(r"(?<![A-Za-z0-9])@(?=[A-Za-z0-9])")
"""`@name`, with which GitHub would call somebody; a zero-width space keeps it from that. Addresses
are left.
"""


def render_markdown(summary: RunSummary) -> str:
    """Returns the report as GitHub-flavoured Markdown.

    Text that models or users wrote is escaped, so it neither makes markup nor breaks a table.

    Args:
        summary: The run; what is empty in it has no section.

    Returns:
        The document, ending in a line break.
    """
    blocks = [f"# {inline(summary.heading)}"]
    if summary.evaluation is None:
        blocks.append("The student of this run has not been evaluated.")
    else:
        blocks += _evaluation(summary.evaluation)
    blocks += _data(summary)
    blocks += _conflicts(summary)
    blocks += _training(summary)
    if summary.refinement:
        shown = (table(found) for found in refinement_tables(summary.refinement))
        blocks += ["## Refinement", inline(refinement_sentence(summary.refinement)), *shown]
    if summary.savings:
        blocks += [
            "## What one student saves",
            table(run_tables.savings_table(summary.savings, len(summary.teachers))),
        ]
    if summary.stages:
        blocks += [
            "## Time and memory",
            table(run_tables.stages_table(summary.stages, summary.peak_memory_bytes)),
        ]
    blocks += (
        ["## Calls and cost", table(run_tables.usage_table(summary.usage))] if summary.usage else []
    )
    blocks += repeat_blocks(summary)
    blocks += (
        ["The recipe, with every default:", code(summary.recipe.rstrip(), "yaml")]
        if summary.recipe
        else []
    )
    return "\n\n".join(blocks) + "\n"


def inline(text: str) -> str:
    r"""Returns `text` as one line of Markdown that reads as it is written.

    Example:
        >>> print(inline("<b>a|b</b>"))
        &lt;b&gt;a\|b&lt;/b&gt;
    """
    escaped = escape(_SPECIAL.sub(r"\\\1", " ".join(printable(text).split())), quote=False)
    return _MENTION.sub("@\u200b", escaped)


def table(found: Table) -> str:
    """Returns a table with its caption above it."""
    rule = "|".join(" ---: " if side == "r" else " --- " for side in found.align)
    lines = [_row(inline(title) for title in found.header), f"|{rule}|"]
    lines += [_row(map(_cell, row)) for row in found.rows]
    return f"{inline(found.caption)}:\n\n" + "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return f"{inline(cell.text)} ({inline(cell.note)})" if cell.note else inline(cell.text)


def bullets(sentences: Sequence[str]) -> str:
    """Returns a list, a line a sentence."""
    return "\n".join(f"- {inline(sentence)}" for sentence in sentences)


def verdict_blocks(found: Verdict) -> list[str]:
    """Returns the verdict: its headline in bold and the two lists."""
    blocks = [f"**{inline(found.headline)}**"]
    blocks += [bullets(found.conclusions)] if found.conclusions else []
    for title, sentences in (("What it keeps", found.keeps), ("What it misses", found.misses)):
        blocks += [f"{title}:", bullets(sentences)] if sentences else []
    return blocks


def result_blocks(report: EvaluationReport) -> list[str]:
    """Returns the tables of an evaluation."""
    graded = evaluation_tables.is_graded(report)
    blocks = (
        [table(evaluation_tables.retention_table(report))] if report.retention and graded else []
    )
    blocks += [table(evaluation_tables.matrix_table(report))] if report.slices and graded else []
    blocks += [table(found) for found in evaluation_tables.further_tables(report)]
    blocks += [inline(report.coherence.conclusion)] if report.coherence else []
    return blocks


def measurement_blocks(report: EvaluationReport) -> list[str]:
    """Returns how the figures were measured, and what a reader has to know."""
    measured = evaluation_tables.measurement_table(report)
    return [
        *([table(measured)] if measured.rows else []),
        *([bullets(report.notes)] if report.notes else []),
    ]


def _evaluation(report: EvaluationReport) -> list[str]:
    blocks = [*verdict_blocks(verdict(report)), "## Results", *result_blocks(report)]
    measured = measurement_blocks(report)
    blocks += ["## How it was measured", *measured] if measured else []
    wrong = [item for item in comparisons(report) if item.grade == "wrong"]
    if wrong:
        blocks += [f"## Wrong answers ({min(len(wrong), MOST_WRONG_ANSWERS)} of {len(wrong):,})"]
        blocks += [table(_wrong_answers(wrong[:MOST_WRONG_ANSWERS]))]
    return blocks


def _wrong_answers(wrong: Sequence[Comparison]) -> Table:
    return Table(
        caption="What the student got wrong, at least in part",
        header=("Question", "Expected", "Student", "Its domains' experts"),
        align="llll",
        rows=tuple(
            (
                Cell(clipped(item.example.query, LONGEST_TEXT)),
                Cell(_expected(item)),
                Cell(clipped(item.student.answer.text, LONGEST_TEXT)),
                Cell("; ".join(clipped(found.answer.text, LONGEST_TEXT) for found in item.experts)),
            )
            for item in wrong
        ),
    )


def _expected(item: Comparison) -> str:
    parts = "; ".join(part.answers[0] for part in item.example.parts if part.answers)
    return parts or clipped(item.example.reference or "", LONGEST_TEXT)


def _data(summary: RunSummary) -> list[str]:
    rejected = (record.reason for record in summary.records if record.verification == "rejected")
    found = [
        run_tables.generation_table(summary.generation) if summary.generation else None,
        run_tables.rejects_table(summary.generation),
        run_tables.records_table(summary.records) if summary.records else None,
        run_tables.sources_table(summary.records),
        tables.tally_table("Rejected records, by reason", "Reason", rejected),
    ]
    blocks = [table(item) for item in found if item]
    return ["## What the data was", *blocks] if blocks else []


def _conflicts(summary: RunSummary) -> list[str]:
    found = ledgers.conflicts_in(summary.records)
    several = ledgers.integrated_from_several(summary.records)
    dropped = tables.tally_table(
        "Left out of integrated answers, by reason",
        "Reason",
        ledgers.dropped_reasons(summary.records),
    )
    if not (found or several or dropped):
        return []
    rules = tables.tally_table(
        "Conflicts, by the rule that settled them", "Rule", (item.conflict.rule for item in found)
    )
    sentence = ledgers.conflicts_sentence(summary.records)
    counts = ledgers.ledger_counts(summary.records)
    held = run_tables.ledger_table(counts) if counts else None
    return [
        "## Conflicts and how they were settled",
        sentence,
        *(table(item) for item in (held, rules, dropped) if item),
    ]


def _training(summary: RunSummary) -> list[str]:
    curves = training_curves(summary.training_log)
    if not curves.losses:
        return []
    notes = training_tables.training_notes_table(summary.training_log)
    found = (*training_tables.all_tables(curves, summary.training_log), *([notes] if notes else ()))
    return ["## Training", *map(table, found)]


def repeat_blocks(summary: RunSummary) -> list[str]:
    """Returns what is needed to repeat the run."""
    command = command_line(summary.settings)
    found = [
        item
        for item in (run_tables.participants_table(summary), run_tables.settings_table(summary))
        if item
    ]
    blocks = [code(command, "sh")] if command else []
    blocks += [table(item) for item in found]
    return ["## To repeat this run", *blocks] if blocks else []


def code(text: str, language: str) -> str:
    """Returns a fenced block whose fence is longer than any in `text`."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable(text)}\n{fence}"
