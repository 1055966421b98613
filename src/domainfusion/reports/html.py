"""The report as one HTML file: no network, no script needed to read a figure, light and dark, on a
phone and on paper.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files as package_files
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.run import RunFiles
from domainfusion.errors import printable
from domainfusion.records import write_text
from domainfusion.reports import (
    answers,
    charts,
    evaluation_tables,
    run_tables,
    tables,
)
from domainfusion.reports.answers import Comparison, comparisons
from domainfusion.reports.markdown import render_markdown, render_model_card
from domainfusion.reports.run_tables import refinement_sentence, refinement_tables
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.tables import capitalised, clipped, command_line, counted, percent
from domainfusion.reports.verdict import introduction, verdict

MOST_COMPARISONS = 1000
"""Questions shown side by side; a browser searches this many at once without a pause."""

MOST_CHARACTERS = 3_000_000
"""Characters of the questions and answers shown side by side: where answers are long, fewer
questions are shown.
"""

OPEN_COMPARISONS = 8
"""Wrong answers that need no click."""

MOST_EDGE_CASES = 100
OPEN_EDGE_CASES = 3
MOST_CONFLICTS = 100
OPEN_CONFLICTS = 3
OPEN_RECORDS = 3
_MODEL_CARD = "README.md"
LONGEST_TEXT = 4000
"""Characters of one text; what is longer is cut, with its length named."""


def render_html(summary: RunSummary) -> str:
    """Returns the report as a self-contained HTML document.

    Text that models or users wrote is escaped, and a content security policy forbids the page every
    request and every script but its own.

    Args:
        summary: The run; what is empty in it has no section.

    Returns:
        The document.
    """
    style, script = _asset("report.css"), _asset("report.js")
    context = _context(summary)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            **context,
            style=Markup(style),
            script=Markup(script),
            policy=(
                f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}';"
                " base-uri 'none'; form-action 'none'"
            ),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("domainfusion.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {
        "tie": lambda text: str(text).replace(" %", "\u202f%"),
        "percent": percent,
        "counted": counted,
        "capitalised": capitalised,
        "clip": lambda text: clipped(text, LONGEST_TEXT),
        "slice": slice_of,
    }
    return environment


def _printable(value: Any) -> Any:
    """Every text that enters the page passes here, before it is escaped; markup of our own does
    not.
    """
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> str:
    return package_files("domainfusion.reports").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _context(summary: RunSummary) -> dict[str, Any]:
    report = summary.evaluation
    parts: dict[str, Any] = {
        "summary": summary,
        "report": report,
        "introduction": introduction(summary),
        "evaluation": None if report is None else _evaluation(report),
        "data": _data(summary),
        "conflicts": _conflicts(summary),
        "training": _training(summary),
        "refinement": _refinement(summary),
        "savings": (
            run_tables.savings_table(summary.savings, len(summary.teachers))
            if summary.savings
            else None
        ),
        "cost": (
            run_tables.stages_table(summary.stages, summary.peak_memory_bytes)
            if summary.stages
            else None
        ),
        "usage": run_tables.usage_table(summary.usage) if summary.usage else None,
        "repeat": _repeat(summary),
    }
    return {**parts, "sections": _sections(parts)}


def _sections(parts: dict[str, Any]) -> list[tuple[str, str]]:
    found = parts["evaluation"] or {}
    named = [
        ("retention", "Retention by domain", found.get("retention")),
        ("accuracy", "Every model on every slice", found.get("matrix")),
        ("cross-domain", "Across domains", found.get("cross_domain") or found.get("coherence")),
        (
            "borders",
            "At the borders of domains",
            found.get("adversarial") or found.get("edge_cases"),
        ),
        (
            "agreement",
            "Where nobody says what is right",
            found.get("agreement") or found.get("shared_words"),
        ),
        ("benchmarks", "Benchmarks", any(found.get("benchmarks", ()))),
        ("overall", "Overall score", found.get("overall")),
        ("measurement", "How it was measured", found.get("measurement")),
        ("answers", "Answers side by side", found.get("answers")),
        ("data", "What the data was", parts["data"]),
        ("conflicts", "Conflicts and how they were settled", parts["conflicts"]),
        ("training", "Training", parts["training"]),
        ("refinement", "Refinement", parts["refinement"]),
        ("savings", "What one student saves", parts["savings"] or parts["evaluation"]),
        ("cost", "Time and memory", parts["cost"]),
        ("usage", "Calls and cost", parts["usage"]),
        ("repeat", "To repeat this run", parts["repeat"]),
    ]
    return [(name, title) for name, title, content in named if content]


def _evaluation(report: EvaluationReport) -> dict[str, Any]:
    measurement, goal = (
        evaluation_tables.measurement_table(report),
        evaluation_tables.goal_of(report),
    )
    graded = evaluation_tables.is_graded(report)
    present = [
        role
        for role in evaluation_tables.ROLES
        if any(model.role == role for model in report.models)
    ]
    return {
        "verdict": verdict(report),
        "retention": (
            evaluation_tables.retention_table(report) if report.retention and graded else None
        ),
        "goal": goal,
        "tested": [row for row in report.retention if row.non_inferiority is not None and graded],
        "retention_chart": charts.retention_chart(report.retention, goal),
        "learning_chart": charts.learning_chart(report.retention),
        "matrix": evaluation_tables.matrix(report) if report.slices and graded else None,
        "roles": [(role, evaluation_tables.ROLES[role]) for role in present],
        "apart": evaluation_tables.apart_table(report),
        "cross_domain": evaluation_tables.cross_domain_table(report),
        "coherence": report.coherence,
        "cost": evaluation_tables.cost_table(report),
        "shared_words": evaluation_tables.overlap_table(report),
        "validation": evaluation_tables.validation_table(report),
        "overall": evaluation_tables.overall_table(report),
        "adversarial": evaluation_tables.adversarial_table(report),
        "edge_cases": _edge_cases(report),
        "agreement": evaluation_tables.agreement_table(report),
        "benchmarks": [
            maker(report)
            for maker in (evaluation_tables.benchmarks_table, evaluation_tables.regressions_table)
        ],
        "measurement": measurement if measurement.rows or report.notes else None,
        "answers": _answers(report),
    }


def _edge_cases(report: EvaluationReport) -> dict[str, Any] | None:
    """The adversarial questions that the student misses; one that the experts know comes first, as
    it could have learned that.
    """
    by_id = {comparison.example.id: comparison for comparison in comparisons(report)}
    found = [
        (case, by_id[case.example_id]) for case in report.edge_cases if case.example_id in by_id
    ]
    found.sort(key=lambda pair: pair[0].experts_know is not True)
    return (
        {"shown": found[:MOST_EDGE_CASES], "total": len(found), "open": OPEN_EDGE_CASES}
        if found
        else None
    )


def _answers(report: EvaluationReport) -> dict[str, Any] | None:
    found = comparisons(report)
    if not found:
        return None
    shown = _fitting(found)
    groups: dict[str, list[Comparison]] = {}
    for comparison in shown:
        groups.setdefault(comparison.grade, []).append(comparison)
    return {
        "groups": groups,
        "counts": {grade: sum(item.grade == grade for item in found) for grade in groups},
        "slices": list(dict.fromkeys(slice_of(comparison.example) for comparison in shown)),
        "first": next(iter(groups)),
        "open": OPEN_COMPARISONS,
        "total": len(found),
        "left_out": len(found) - len(shown),
    }


def _fitting(found: Sequence[Comparison]) -> list[Comparison]:
    """Returns as many of the first comparisons as a page holds."""
    lengths = ((min(len(text), LONGEST_TEXT) for text in item.texts) for item in found)
    fitting = takewhile(lambda total: total <= MOST_CHARACTERS, accumulate(map(sum, lengths)))
    return list(found[: min(MOST_COMPARISONS, max(1, sum(1 for _ in fitting)))])


def _data(summary: RunSummary) -> dict[str, Any] | None:
    if not (summary.generation or summary.records):
        return None
    rejected = (record.reason for record in summary.records if record.verification == "rejected")
    return {
        "generation": (
            run_tables.generation_table(summary.generation) if summary.generation else None
        ),
        "rejects": run_tables.rejects_table(summary.generation),
        "records": run_tables.records_table(summary.records) if summary.records else None,
        "sources": run_tables.sources_table(summary.records),
        "rejected": tables.tally_table("Rejected records, by reason", "Reason", rejected),
        "methods": tables.tally_table(
            "How the targets were made",
            "Method",
            (record.integration.method for record in summary.records),
        ),
        "examples": answers.worth_reading(summary.records),
        "open": OPEN_RECORDS,
    }


def _conflicts(summary: RunSummary) -> dict[str, Any] | None:
    found = answers.conflicts_in(summary.records)
    dropped = tables.tally_table(
        "Left out of integrated answers, by reason",
        "Reason",
        answers.dropped_reasons(summary.records),
    )
    several, counts = (
        answers.integrated_from_several(summary.records),
        answers.ledger_counts(summary.records),
    )
    if not (found or dropped or several):
        return None
    return {
        "found": found[:MOST_CONFLICTS],
        "open": OPEN_CONFLICTS,
        "total": len(found),
        "sentence": answers.conflicts_sentence(summary.records),
        "counts": run_tables.ledger_table(counts) if counts else None,
        "rules": tables.tally_table(
            "Conflicts, by the rule that settled them",
            "Rule",
            (item.conflict.rule for item in found),
        ),
        "dropped": dropped,
    }


def _training(summary: RunSummary) -> dict[str, Any] | None:
    found = charts.training_curves(summary.training_log)
    loss, validation = charts.loss_chart(found), charts.validation_chart(found)
    if not (loss or validation or found.not_finite):
        return None
    return {
        "loss": loss,
        "domains": charts.domain_charts(found),
        "validation": validation,
        "curves": found,
        "tables": run_tables.training_tables(found, summary.training_log),
        "notes": run_tables.training_notes_table(summary.training_log),
    }


def _refinement(summary: RunSummary) -> dict[str, Any] | None:
    found = summary.refinement
    return (
        {"sentence": refinement_sentence(found), "tables": refinement_tables(found)}
        if found
        else None
    )


def _repeat(summary: RunSummary) -> dict[str, Any] | None:
    found = {
        "command": command_line(summary.settings),
        "participants": run_tables.participants_table(summary),
        "settings": run_tables.settings_table(summary),
        "recipe": summary.recipe,
        "inputs": (
            json.dumps(summary.inputs, indent=2, ensure_ascii=False) if summary.inputs else ""
        ),
    }
    return found if any(found.values()) else None


def write_reports(run_directory: Path) -> RunSummary:
    """Writes `report.html`, `report.md` and, where the run holds its student, the model card in the
    student's folder.

    Args:
        run_directory: The directory of the run, finished or not.

    Returns:
        What the reports are made of.

    Raises:
        DataError: The directory, or a file in it, can't be read or written.
    """
    summary, files = RunSummary.read(run_directory), RunFiles(run_directory)
    write_text(files.html_report, render_html(summary))
    write_text(files.markdown_report, render_markdown(summary))
    if files.student.is_dir():
        write_text(files.student / _MODEL_CARD, render_model_card(summary))
    return summary


def write_model_card(folder: Path, run_directory: Path) -> None:
    """Writes the model card of a student that was saved to `folder`: a whole model, or an adapter
    for PEFT.

    Args:
        folder: Where the student was saved.
        run_directory: The directory of the run that trained it.

    Raises:
        DataError: The directory, or a file in it, can't be read or written.
    """
    summary = RunSummary.read(run_directory)
    is_adapter = (folder / "adapter_config.json").is_file()
    student = {**summary.student, "library_name": "peft" if is_adapter else "transformers"}
    write_text(folder / _MODEL_CARD, render_model_card(replace(summary, student=student)))
