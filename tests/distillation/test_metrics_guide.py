"""The guide to metrics: its code runs from its first line to its last, its recipes are read, and
the names it gives exist.
"""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from domainfusion.distillation import metrics
from domainfusion.distillation.metrics.grading import METRICS, metric_named
from domainfusion.models import ScriptedModel
from domainfusion.recipe.sections import EvaluationSection

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "metrics.md"
TEXT = GUIDE.read_text(encoding="utf-8")
KNOWLEDGE = {
    "At how many °C does gold melt?": "At 1948 °F.",
    "What is the capital of Kenya?": "It is Nairobi.",
    "Which of them is a noble gas: argon, boron or iron?": "Argon.",
    "How long is the Nile?": "It is long.",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs the guide, and gives the names that it leaves behind."""
    experts = {
        domain: ScriptedModel(KNOWLEDGE, name=domain) for domain in ("chemistry", "geography")
    }
    judge = ScriptedModel(
        lambda prompt: (
            "A"
            if "Answer A: In Japan." in prompt
            else "B"
            if "Answer B: In Japan." in prompt
            else "same"
        )
    )
    found: dict[str, Any] = {
        "student": ScriptedModel(KNOWLEDGE, name="student"),
        "teachers": experts,
        "judge_model": judge,
    }
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.chdir(tmp_path_factory.mktemp("guide"))
        pair = json.loads(blocks("json")[0])
        swapped = {**pair, "first": pair["second"], "second": pair["first"], "preferred": "second"}
        Path("labeled.jsonl").write_text(
            "".join(f"{json.dumps(line)}\n" for line in [pair, swapped] * 3)
        )
        for block in blocks("python"):
            exec(compile(block, str(GUIDE), "exec"), found)
    return found | {"printed": printed.getvalue()}


def test_the_guides_code_runs_and_grades_as_it_says(names: dict[str, Any]) -> None:
    answers = {answer.text: answer for answer in names["report"].student.answers}
    assert [answers[text].correct for text in ("At 1948 °F.", "It is Nairobi.", "Argon.")] == [
        True
    ] * 3
    assert (answers["It is long."].correct, answers["It is long."].readable) == (False, False)
    assert (
        names["agreement"].items,
        names["agreement"].raw.value,
        names["agreement"].kappa.value,
    ) == (6, 1, 1)
    assert str(names["validation"]) in names["printed"]
    assert names["evaluator"].coherence_validation is names["validation"]


@pytest.mark.parametrize("block", blocks("yaml"))
def test_its_recipes_are_read(block: str) -> None:
    section = EvaluationSection(**yaml.safe_load(block)["evaluation"])
    assert section.metrics or section.coherence == "model"


def test_it_names_every_metric_and_only_those() -> None:
    table = TEXT.split("## For all")[0]
    named = {
        word
        for row in re.findall(r"^\|.*?\|(.*?)\|", table, re.MULTILINE)
        for word in re.findall(r"`(\w+)`", row)
    }
    assert named - {"answers"} == set(METRICS)


def test_every_setting_that_it_names_exists() -> None:
    table = TEXT.split("## For all")[0]
    settings = {
        word
        for row in re.findall(r"^\|.*?\|.*?\|(.*)\|$", table, re.MULTILINE)
        for word in re.findall(r"`(\w+)`", row)
    }
    embedding = metric_named({"name": "embedding", "model": "m"})
    made = [
        metrics.Numeric(),
        metrics.LikelyChoice(),
        metrics.TokenF1(),
        metrics.RougeL(),
        embedding,
    ]
    known = {item.name for metric in made for item in fields(metric)}  # type: ignore[arg-type]
    assert settings - {"any", "first", "last", "characters", "tokens", "nothing"} == known
