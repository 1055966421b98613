from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from domainfusion.distillation.results import EvaluationReport
from domainfusion.reports import RunSummary, render_terminal


def printed(summary: RunSummary, width: int = 200) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(render_terminal(summary))
    return capture.get()


def test_the_figures_of_every_model_are_printed(
    run: RunSummary, evaluation: EvaluationReport
) -> None:
    lines = printed(run).splitlines()
    for name in ("student", "base", "expert: aviation", "routed oracle"):
        model = next(model for model in evaluation.models if name.endswith(model.name))
        row = next(line for line in lines if line.startswith(name) and "questions" not in line)
        assert row.removeprefix(name).split() == [
            f"{100 * score.strict.value:.1f}"
            for score in model.slices.values()
            if score.strict.value is not None
        ]


def test_coherence_is_printed_as_not_validated(run: RunSummary) -> None:
    words = " ".join(printed(run).split())
    assert "Integration Coherence 0.814" in words and "by the metric alone (not validated)" in words


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(run: RunSummary, width: int) -> None:
    assert max(map(len, printed(run, width).splitlines())) <= width


def test_markup_in_text_is_printed_and_control_characters_are_not_obeyed(run: RunSummary) -> None:
    hostile = "[red]bold[/red] [/] \x1b[2J\x07"
    shown = printed(replace(run, title=hostile))
    assert "[red]bold[/red] [/] �[2J�" in shown
    assert "\x1b" not in shown


def test_an_empty_run_prints_that_it_has_not_been_evaluated() -> None:
    assert printed(RunSummary()).split("\n\n") == [
        "Distillation run",
        "The student of this run has not been evaluated.\n",
    ]


def test_what_is_not_there_has_no_table(run: RunSummary) -> None:
    shown = printed(replace(run, stages=(), usage=(), generation=(), records=()))
    assert "What the models were asked" not in shown
    assert (
        "Time by stage" not in shown
        and "Examples by generator" not in shown
        and "Training records" not in shown
    )
