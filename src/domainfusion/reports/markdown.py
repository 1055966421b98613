"""The report as Markdown, for an issue, a wiki or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import yaml

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.errors import printable
from domainfusion.reports import answers, evaluation_tables, run_tables, tables
from domainfusion.reports.answers import Comparison, comparisons
from domainfusion.reports.charts import training_curves
from domainfusion.reports.run_tables import refinement_sentence, refinement_tables
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.tables import Cell, Table, clipped, command_line
from domainfusion.reports.verdict import Verdict, verdict
from domainfusion.wording import counted, listed

MOST_WRONG_ANSWERS = 10
LONGEST_TEXT = 300

_SPECIAL = re.compile(r"([\\`*_\[\]|~$#])")
_MENTION = re.compile(r"(?<![A-Za-z0-9])@(?=[A-Za-z0-9])")
"""`@name`, with which GitHub would call somebody; a zero-width space keeps it from that. Addresses
are left.
"""


def render_markdown(summary: RunSummary) -> str:
    """Returns the report as GitHub-flavored Markdown.

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
            table(
                run_tables.savings_table(summary.savings, len(summary.teachers), summary.shipped)
            ),
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
    blocks += [inline(found.merge)] if found.merge else []
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
        run_tables.records_table(summary.records, summary.samples) if summary.records else None,
        run_tables.sources_table(summary.records),
        tables.tally_table("Rejected records, by reason", "Reason", rejected),
    ]
    blocks = [table(item) for item in found if item]
    return ["## What the data was", *blocks] if blocks else []


def _conflicts(summary: RunSummary) -> list[str]:
    found = answers.conflicts_in(summary.records)
    several = answers.integrated_from_several(summary.records)
    dropped = tables.tally_table(
        "Left out of integrated answers, by reason",
        "Reason",
        answers.dropped_reasons(summary.records),
    )
    if not (found or several or dropped):
        return []
    rules = tables.tally_table(
        "Conflicts, by the rule that settled them", "Rule", (item.conflict.rule for item in found)
    )
    sentence = answers.conflicts_sentence(summary.records)
    counts = answers.ledger_counts(summary.records)
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
    notes = run_tables.training_notes_table(summary.training_log)
    found = (*run_tables.training_tables(curves, summary.training_log), *([notes] if notes else ()))
    return ["## Training", *map(table, found)]


def repeat_blocks(summary: RunSummary) -> list[str]:
    """Returns the settings and versions that repeat the run."""
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


# A repository's name on the hub, with or without its owner.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

_LOAD = """
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
model = AutoModelForCausalLM.from_pretrained(folder)
""".lstrip()

_LOAD_ADAPTER = """
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

folder = "path/to/this/folder"
model = AutoPeftModelForCausalLM.from_pretrained(folder)
""".lstrip()

_ASK = """
tokenizer = AutoTokenizer.from_pretrained(folder)
question = [{"role": "user", "content": "…"}]
inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
""".strip()


def render_model_card(summary: RunSummary) -> str:
    """Returns the model card of the student.

    Args:
        summary: The run, whose title is that of the card. From `student` come `name` where there is
            no title, `base_model`, `license` and `library_name` (`transformers` if not given;
            `peft` for a folder that holds an adapter).

    Returns:
        Markdown with a YAML header, ending in a line break.
    """
    name = _one_line(summary.title or summary.about_student("name") or summary.heading)
    blocks = [f"---\n{_header(summary, name)}---", f"# {inline(name)}", _introduction(summary)]
    if summary.evaluation is not None:
        blocks += verdict_blocks(verdict(summary.evaluation))
    blocks += [
        "## Use",
        code((_LOAD_ADAPTER if _library(summary) == "peft" else _LOAD) + _ASK, "python"),
    ]
    if summary.evaluation is not None:
        blocks += [
            "## Results",
            *result_blocks(summary.evaluation),
            *measurement_blocks(summary.evaluation),
        ]
    if summary.records:
        blocks += [
            "## Training data",
            table(run_tables.records_table(summary.records, summary.samples)),
        ]
    blocks += repeat_blocks(summary)
    return "\n\n".join(blocks) + "\n"


def _header(summary: RunSummary, name: str) -> str:
    base = summary.about_student("base_model")
    # The hub refuses a base model that is not a name on the hub, such as a folder.
    is_on_hub = isinstance(base, str) and _HUB_NAME.fullmatch(base) is not None
    metadata: dict[str, Any] = {
        "license": _one_line(summary.about_student("license") or ""),
        "base_model": base if is_on_hub else None,
        "base_model_relation": (
            ("adapter" if _library(summary) == "peft" else "finetune") if is_on_hub else None
        ),
        "library_name": _library(summary),
        "pipeline_tag": "text-generation",
        "tags": ["domainfusion", "distillation", *_domains(summary)],
        "model-index": _model_index(summary.evaluation, name) if summary.evaluation else None,
    }
    return yaml.safe_dump(
        {key: value for key, value in metadata.items() if value},
        sort_keys=False,
        allow_unicode=True,
    )


def _library(summary: RunSummary) -> str:
    return _one_line(summary.about_student("library_name") or "transformers")


def _one_line(value: object) -> str:
    """A line of its own in a metadata value could end the header."""
    return " ".join(printable(str(value)).split())


def _domains(summary: RunSummary) -> list[str]:
    named = list(summary.teachers) or [
        row.domain for row in (summary.evaluation.retention if summary.evaluation else ())
    ]
    return [re.sub(r"[^\w]+", "-", domain.lower()).strip("-") for domain in named]


def _model_index(report: EvaluationReport, name: str) -> list[dict[str, Any]]:
    kept = {row.domain: row.retention.value for row in report.retention}
    results = []
    for slice_name, score in report.student.slices.items():
        figures = (
            ("accuracy", "every part right", score.strict.value),
            (
                "domain_expertise_retention",
                "accuracy, as a share of the expert's",
                kept.get(slice_name),
            ),
        )
        metrics = [
            {"type": kind, "name": title, "value": value}
            for kind, title, value in figures
            if value is not None
        ]
        dataset = {"name": f"held-out {slice_name} questions", "type": "domainfusion"}
        results += (
            [{"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}]
            if metrics
            else []
        )
    return [{"name": name, "results": results}] if results else []


def _introduction(summary: RunSummary) -> str:
    sentence = "This model was distilled from domain experts"
    if summary.teachers:
        experts = listed(
            f"{inline(teacher)} ({inline(domain)})" for domain, teacher in summary.teachers.items()
        )
        sentence = (
            f"This model was distilled from {counted(len(summary.teachers), 'domain expert')}:"
            f" {experts}"
        )
    base = summary.about_student("base_model")
    trained = f" It was trained from {inline(str(base))}." if base else ""
    licensed = (
        ""
        if summary.about_student("license")
        else " Its license is not stated: those of the base, the experts and the data decide."
    )
    return f"{sentence}.{trained}{licensed}"
