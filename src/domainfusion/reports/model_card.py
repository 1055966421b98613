"""The model card: the README.md of the student's folder, with the metadata that the Hugging Face
hub reads.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from domainfusion.distillation.results import EvaluationReport
from domainfusion.errors import printable
from domainfusion.reports import run_tables
from domainfusion.reports.figures import counted, listed
from domainfusion.reports.markdown import (
    code,
    inline,
    measurement_blocks,
    repeat_blocks,
    result_blocks,
    table,
    verdict_blocks,
)
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.verdict import verdict

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
        blocks += ["## Training data", table(run_tables.records_table(summary.records))]
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
