from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import Estimate
from domainfusion.reports import GenerationCount, RunSummary, render_markdown, render_model_card
from domainfusion.reports.markdown import code, inline

HOSTILE = "a|b\n| --- |\n<script>alert(1)</script> [x](http://e.org) `c` *d* ~~e~~ $f$ \\| &lt;"


def tables_of(text: str) -> list[list[str]]:
    """Returns each run of lines that begin with a pipe."""
    return [
        block.strip().splitlines()
        for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    ]


def columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


@pytest.mark.parametrize("render", [render_markdown, render_model_card])
@pytest.mark.parametrize("hostile", [False, True])
def test_tables_are_well_formed(
    run: RunSummary,
    evaluation: EvaluationReport,
    render: Callable[[RunSummary], str],
    hostile: bool,
) -> None:
    if hostile:
        student = evaluation.student
        answers = tuple(replace(answer, text=HOSTILE) for answer in student.answers)
        models = (
            replace(student, answers=answers),
            *(replace(model, name=f"{model.name} {HOSTILE}") for model in evaluation.models[1:]),
        )
        run = replace(
            run,
            title=HOSTILE,
            evaluation=replace(evaluation, models=models, notes=(HOSTILE,)),
            settings={HOSTILE: HOSTILE, "command": HOSTILE},
            generation=(GenerationCount(HOSTILE, HOSTILE, 1, 0, {HOSTILE: 1}),),
        )
    text = re.sub(
        r"```.*?```|\A---\n.*?\n---\n", "", render(run), flags=re.DOTALL
    )  # code, and the card's metadata, are no markup
    tables = tables_of(text)
    assert len(tables) >= 5
    for table in tables:
        assert len({columns(line) for line in table}) == 1
        assert re.fullmatch(r"\|( (---|---:) \|)+", table[1])
        assert len(table) >= 3
    assert "<script>" not in text


@given(st.text())
def test_inline_text_is_one_line_without_live_markup(text: str) -> None:
    shown = inline(text)
    assert len(shown.splitlines()) <= 1
    assert "<" not in shown and ">" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*_\[\]~$#]", shown)


@given(st.text())
def test_code_can_not_leave_its_fence(text: str) -> None:
    fence, *_, last = code(text, "sh").split("\n")
    assert last == fence.removesuffix("sh")
    assert last not in code(text, "sh").split("\n", 1)[1].rsplit("\n", 1)[0]


def test_the_matrix_holds_the_figures_of_the_evaluation(
    run: RunSummary, evaluation: EvaluationReport
) -> None:
    table = next(
        table
        for table in tables_of(render_markdown(run))
        if table[0].startswith("| Model | aviation")
    )
    for line, model in zip(table[2:], evaluation.models, strict=True):
        cells = [cell.split(" (")[0].strip() for cell in line.strip("|").split("|")[1:]]
        scores = [model.slices.get(name) for name in evaluation.slices]
        shares = [None if score is None else score.strict.value for score in scores]
        assert cells == ["–" if share is None else f"{100 * share:.1f}" for share in shares]


def test_an_undefined_figure_gives_its_reason(
    run: RunSummary, evaluation: EvaluationReport
) -> None:
    nothing = Estimate(value=None, reason="the expert got nothing right")
    rows = (
        replace(evaluation.retention[0], retention=nothing, headroom=nothing),
        *evaluation.retention[1:],
    )
    text = render_markdown(replace(run, evaluation=replace(evaluation, retention=rows)))
    assert text.count("| undefined (the expert got nothing right) |") == 2


@pytest.mark.parametrize(
    ("fields", "heading"),
    [
        ({"generation": (), "records": ()}, "## What the data was"),
        ({"records": ()}, "## Conflicts"),
        ({"training_log": ()}, "## Training"),
        ({"refinement": None}, "## Refinement"),
        ({"stages": ()}, "## Time and memory"),
        ({"usage": ()}, "## Calls and cost"),
        (
            {"settings": {}, "student": {}, "teachers": {}, "inputs": {}, "recipe": ""},
            "## To repeat this run",
        ),
        ({"evaluation": None}, "## Results"),
    ],
)
def test_a_section_without_data_is_left_out(
    run: RunSummary, fields: dict[str, Any], heading: str
) -> None:
    assert heading in render_markdown(run)
    assert heading not in render_markdown(replace(run, **fields))


def test_the_cost_of_all_models_is_that_of_each_whose_price_is_known(run: RunSummary) -> None:
    [*_, aviation, clinic, together] = [
        line for line in render_markdown(run).splitlines() if line.count("|") == 8
    ]
    assert aviation.split(" | ")[2:] == ["228", "9,400", "5,100", "1 min 11 s", "– |"]
    assert clinic.split(" | ")[2:] == [
        "36",
        "14,200",
        "2,900",
        "20 s",
        "0.065 (and at most 0.002 more) |",
    ]
    assert together.split(" | ")[2:] == [
        "264",
        "23,600",
        "8,000",
        "1 min 31 s",
        "0.065 (and at most 0.002 more) |",
    ]


def test_an_empty_run_has_a_title_and_says_what_is_missing() -> None:
    assert (
        render_markdown(RunSummary())
        == "# Distillation run\n\nThe student of this run has not been evaluated.\n"
    )


def test_nobody_is_called_by_a_name_in_a_report() -> None:
    assert inline("Thanks to @octocat and (@a/team), mail me@example.com") == (
        "Thanks to @\u200boctocat and (@\u200ba/team), mail me@example.com"
    )


@pytest.mark.parametrize(
    ("accepted", "across", "said"),
    [(12, 6, False), (11, 6, False), (12, 3, True), (0, 0, False)],
)
def test_a_share_of_cross_domain_questions_that_does_not_hold_is_told(
    accepted: int, across: int, said: bool
) -> None:
    count = GenerationCount(
        "Writer",
        "synthetic",
        30,
        accepted,
        {"duplicate": 9},
        24,
        cross_domain={"wanted": 12, "accepted": across},
    )
    text = render_markdown(RunSummary(title="A run", generation=(count,)))
    assert f"{across} of 12" in text
    assert ("25 % need several domains where 50 % were asked for" in text) == said
