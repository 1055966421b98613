"""The report as one HTML file: no network, no script needed to read a figure, light and dark, on a
phone and on paper.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files as package_files
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import DomainRetention
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
from domainfusion.reports.answers import Comparison, Item, comparisons
from domainfusion.reports.markdown import render_markdown, render_model_card
from domainfusion.reports.run_tables import refinement_sentence, refinement_tables
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.tables import capitalised, clipped, command_line, percent
from domainfusion.reports.verdict import (
    cross_domain_sentence,
    introduction,
    merge_sentence,
    savings_sentence,
    verdict,
)
from domainfusion.wording import counted

MOST_QUESTIONS = 1000
"""Questions of a list to page through; a browser searches this many at once without a pause."""

MOST_CHARACTERS = 3_000_000
"""Characters of such a list: where texts are long, it has fewer questions."""

FIRST_QUESTIONS = 8
"""Questions of such a list that are shown without scripts."""

MOST_WRONG_ANSWERS = 20
"""Wrong answers in the part of one domain."""

MOST_CURVES = 6
"""Curves of one chart that can be told apart."""

MOST_MORE = 10_000
"""Questions beyond which it does not matter how many would settle a verdict."""

MOST_EDGE_CASES = 100
OPEN_EDGE_CASES = 3
MOST_CONFLICTS = 100
OPEN_CONFLICTS = 3
_MODEL_CARD = "README.md"


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


@cache  # compiling the templates takes longer than filling them
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
        "clip": lambda text: clipped(text, answers.LONGEST_TEXT),
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
    found = [] if report is None else comparisons(report)
    parts: dict[str, Any] = {
        "summary": summary,
        "report": report,
        "introduction": introduction(summary),
        "evaluation": None if report is None else _evaluation(report, found),
        "facts": [] if report is None else _facts(summary, report),
        "data": _data(summary),
        "conflicts": _conflicts(summary),
        "training": _training(summary),
        "refinement": _refinement(summary),
        "savings": (
            run_tables.savings_table(summary.savings, len(summary.teachers), summary.shipped)
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
    domains = [] if report is None else _domain_parts(summary, report, found)
    return {**parts, "sections": [*domains, *_sections(parts)]}


class PagePart(NamedTuple):
    """A part of the page that is folded.

    Attributes:
        id: Its anchor.
        title: Its heading.
        short: The heading in the table of contents.
        gist: What stands in it, beside the heading.
        domain: What a part about one domain shows; None of other parts.
    """

    id: str
    title: str
    short: str
    gist: str = ""
    domain: dict[str, Any] | None = None


def _sections(parts: dict[str, Any]) -> list[PagePart]:
    found = parts["evaluation"] or {}
    named = [
        ("retention", "Retention by domain", "Retention", found.get("retention")),
        ("accuracy", "Every model on every slice", "Every model", found.get("matrix")),
        ("merge", "Beside the untrained merge", "Untrained merge", found.get("gains")),
        (
            "cross-domain",
            "Across domains",
            "Across domains",
            found.get("cross_domain") or found.get("coherence"),
        ),
        (
            "borders",
            "At the borders of domains",
            "Borders",
            found.get("adversarial") or found.get("edge_cases"),
        ),
        (
            "agreement",
            "Where no reference says what is right",
            "Without references",
            found.get("agreement") or found.get("shared_words"),
        ),
        ("benchmarks", "Benchmarks", "Benchmarks", any(found.get("benchmarks", ()))),
        ("overall", "Overall score", "Overall score", found.get("overall")),
        ("answers", "Answers side by side", "Answers", found.get("answers")),
        (
            "savings",
            "What one student saves",
            "Savings",
            parts["savings"] or parts["evaluation"],
        ),
        ("data", "Training questions", "Training questions", parts["data"]),
        ("conflicts", "Conflicts and how they were settled", "Conflicts", parts["conflicts"]),
        ("training", "Training", "Training", parts["training"]),
        ("refinement", "Refinement", "Refinement", parts["refinement"]),
        ("cost", "Time and memory", "Time and memory", parts["cost"]),
        ("usage", "Calls and cost", "Calls and cost", parts["usage"]),
        ("measurement", "How it was measured", "Measurement", found.get("measurement")),
        ("repeat", "To repeat this run", "Repeat", parts["repeat"]),
    ]
    return [PagePart(name, title, short) for name, title, short, content in named if content]


def _facts(summary: RunSummary, report: EvaluationReport) -> list[tuple[str, str]]:
    """Returns what a reader wants to know beside the retention of each domain."""
    across = cross_domain_sentence(report)
    facts = [
        ("Across domains", across),
        ("Without training", merge_sentence(report)),
        ("What it saves", savings_sentence(summary)),
    ]
    return [(title, words) for title, words in facts if words]


def _domain_parts(
    summary: RunSummary, report: EvaluationReport, found: Sequence[Comparison]
) -> list[PagePart]:
    """Returns a part for each domain: its figures, its loss and its wrong answers."""
    if not evaluation_tables.is_graded(report):
        return []
    curves = charts.training_curves(summary.training_log)
    parts = []
    for number, row in enumerate(report.retention, start=1):
        wrong = [
            item for item in found if slice_of(item.example) == row.domain and item.grade == "wrong"
        ]
        value = row.retention.value
        kept = "can't be judged" if value is None else f"keeps {percent(value)} of its expert"
        parts.append(
            PagePart(
                id=f"domain-{number}",
                title=row.domain,
                short=row.domain,
                gist=f"{kept}, {counted(row.items, 'question')}",
                domain={
                    "name": row.domain,
                    "asked": row.items if found else 0,
                    "conclusion": row.conclusion,
                    "table": evaluation_tables.domain_table(report, row.domain),
                    "charts": _charts_of(curves, row.domain),
                    "wrong": [answers.comparison_item(item) for item in wrong[:MOST_WRONG_ANSWERS]],
                    "wrong_total": len(wrong),
                },
            )
        )
    return parts


def _charts_of(curves: charts.TrainingCurves, domain: str) -> list[tuple[str, charts.LineChart]]:
    own = replace(
        curves,
        terms={
            term: {domain: by_domain[domain]}
            for term, by_domain in curves.terms.items()
            if domain in by_domain
        },
    )
    return [(_caption(term, own), chart) for term, chart in charts.domain_charts(own).items()]


def _caption(term: str, curves: charts.TrainingCurves) -> str:
    name = capitalised(term.replace("_", " "))
    steps = f", each point the mean over {curves.window} steps" if curves.window > 1 else ""
    return f"{name} of the training, per answer token{steps}"


def _evaluation(report: EvaluationReport, found: Sequence[Comparison]) -> dict[str, Any]:
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
        "kept": [_kept(row) for row in report.retention],
        "retention_chart": charts.retention_chart(report.retention, goal) if graded else None,
        "learning_chart": charts.learning_chart(report.retention),
        "matrix": evaluation_tables.matrix(report) if report.slices and graded else None,
        "roles": [(role, evaluation_tables.ROLES[role]) for role in present],
        "gains": evaluation_tables.gains_table(report),
        "apart": evaluation_tables.apart_table(report),
        "cross_domain": evaluation_tables.cross_domain_table(report),
        "coherence": report.coherence,
        "cost": evaluation_tables.cost_table(report),
        "shared_words": evaluation_tables.overlap_table(report),
        "overall": evaluation_tables.overall_table(report),
        "adversarial": evaluation_tables.adversarial_table(report),
        "edge_cases": _edge_cases(report, found),
        "agreement": evaluation_tables.agreement_table(report),
        "benchmarks": [
            maker(report)
            for maker in (evaluation_tables.benchmarks_table, evaluation_tables.regressions_table)
        ],
        "measurement": measurement if measurement.rows or report.notes else None,
        "answers": _pager("answers", [answers.comparison_item(item) for item in found]),
    }


def _kept(row: DomainRetention) -> dict[str, str]:
    """Returns the verdict on one domain, and in a few words how it could be settled."""
    test = row.non_inferiority
    if test is None:
        return {"verdict": "", "note": ""}
    note = ""
    if test.more_items:
        many = test.more_items > MOST_MORE
        number = f"over {MOST_MORE:,}" if many else f"about {test.more_items:,}"
        note = f"{number} more question{'' if test.more_items == 1 else 's'} would settle it"
    if test.verdict == "undefined":
        note = test.reason or row.retention.reason
    return {"verdict": test.verdict, "note": note}


def _edge_cases(
    report: EvaluationReport, comparisons: Sequence[Comparison]
) -> dict[str, Any] | None:
    """The adversarial questions that the student misses; one that the experts know comes first, as
    it could have learned that.
    """
    by_id = {comparison.example.id: comparison for comparison in comparisons}
    found = [
        (case, by_id[case.example_id]) for case in report.edge_cases if case.example_id in by_id
    ]
    if not found:
        return None
    found.sort(key=lambda pair: pair[0].experts_know is not True)
    words = {True: "; the experts know it", False: "; the experts do not know it either"}
    shown = [
        answers.comparison_item(
            comparison,
            f"looks like {case.apparent}, needs {case.needed}"
            + ("" if case.experts_know is None else words[case.experts_know]),
        )
        for case, comparison in found[:MOST_EDGE_CASES]
    ]
    return {"shown": shown, "total": len(found), "open": OPEN_EDGE_CASES}


def _pager(name: str, items: Sequence[Item]) -> dict[str, Any] | None:
    """Returns a list to page through: its data for the page's script, and the first items."""
    if not items:
        return None
    totals = accumulate(item.size for item in items)
    fitting = sum(1 for _ in takewhile(lambda total: total <= MOST_CHARACTERS, totals))
    shown = items[: min(MOST_QUESTIONS, max(1, fitting))]
    return {
        "id": name,
        "data": _script_data([item.plain() for item in shown]),
        "first": shown[:FIRST_QUESTIONS],
        "states": Counter(item.state for item in shown),
        "groups": list(dict.fromkeys(item.group for item in shown)),
        "total": len(items),
        "left_out": len(items) - len(shown),
    }


def _script_data(content: object) -> Markup:
    """Writes JSON that can stand in a script element: no text in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _data(summary: RunSummary) -> dict[str, Any] | None:
    if not (summary.generation or summary.records):
        return None
    rejected = (record.reason for record in summary.records if record.verification == "rejected")
    # What was left out comes first, then one record of each kind.
    first = answers.worth_reading(summary.records)
    seen = {id(record) for record in first}
    records = [*first, *(record for record in summary.records if id(record) not in seen)]
    items = [*map(answers.record_item, records), *answers.left_out_items(summary.generation)]
    return {
        "generation": (
            run_tables.generation_table(summary.generation) if summary.generation else None
        ),
        "rejects": run_tables.rejects_table(summary.generation),
        "records": run_tables.records_table(summary.records, summary.samples)
        if summary.records
        else None,
        "sources": run_tables.sources_table(summary.records),
        "rejected": tables.tally_table("Rejected records, by reason", "Reason", rejected),
        "methods": tables.tally_table(
            "How the targets were made",
            "Method",
            (record.integration.method for record in summary.records),
        ),
        "questions": _pager("questions", items),
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
        "found": [answers.conflict_item(item) for item in found[:MOST_CONFLICTS]],
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
    by_domain = [
        (f"{_caption(term, found)}, by domain", chart)
        for term, chart in charts.domain_charts(found).items()
        # More curves can't be told apart; each domain has its own in its part.
        if len(chart.curves) <= MOST_CURVES
    ]
    return {
        "loss": loss,
        "domains": by_domain,
        "validation": validation if validation and len(validation.curves) <= MOST_CURVES else None,
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
