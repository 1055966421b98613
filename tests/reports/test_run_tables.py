"""The section on a refinement: each round with what was weak, what was made, what came of it, and
why there is no further one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from domainfusion.distillation.results import Refinement, RefinementRound
from domainfusion.reports import RunSummary, render_html, render_markdown, render_terminal
from domainfusion.reports.run_tables import refinement_sentence, refinement_tables
from reports.pages import Page


def in_terminal(summary: RunSummary) -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        console.print(render_terminal(summary, details=True))
    return capture.get()


def in_html(summary: RunSummary) -> str:
    return " ".join(Page(render_html(summary)).root.one("section", id="refinement").text.split())


def test_each_round_tells_what_was_weak_what_was_made_and_what_came_of_it(run: RunSummary) -> None:
    assert run.refinement is not None
    rounds, scores, shortfalls = refinement_tables(run.refinement)
    assert [[cell.text for cell in row] for row in rounds.rows] == [
        ["1", "24", "21", "20", "kept"],
        ["2", "17", "17", "17", "undone"],
    ]
    assert scores.header == ("Round", "aviation", "chemistry", "cross-domain", "Mean")
    assert [cell.text for cell in scores.rows[0]] == [
        "1",
        "100.0 → 100.0",
        "50.0 → 66.7",
        "25.0 → 50.0",
        "58.3 → 72.2",
    ]
    assert [cell.text for cell in shortfalls.rows[0]] == [
        "1",
        "aviation + geography",
        "8",
        "25.0 %",
        "–",
        "75.0 %",
    ]
    assert [cell.text for cell in shortfalls.rows[1]] == [
        "1",
        "chemistry",
        "6",
        "50.0 %",
        "80.0 %",
        "37.5 %",
    ]
    assert len(shortfalls.rows) == 4


@pytest.mark.parametrize("form", [render_markdown, in_terminal, in_html])
def test_every_form_of_the_report_shows_the_rounds_and_why_they_ended(
    run: RunSummary, form: object
) -> None:
    assert callable(form)
    shown = form(run)
    for part in (
        "aviation + geography",
        "50.0 → 66.7",
        "58.3 → 72.2",
        "undone",
        "The round did not improve validation",
    ):
        assert part in shown, part


@pytest.mark.parametrize("form", [render_markdown, in_terminal, in_html])
def test_a_refinement_that_had_no_round_says_why(run: RunSummary, form: object) -> None:
    assert callable(form)
    shown = form(replace(run, refinement=Refinement(stopped="nothing is missing on validation")))
    assert "Nothing is missing on validation." in shown
    assert "Rounds of refinement" not in shown


def test_a_round_that_is_not_over_has_no_figure_after_it() -> None:
    begun = Refinement(rounds=(RefinementRound(number=1, shortfalls=(), before={"law": 0.5}),))
    rounds, scores, _ = refinement_tables(begun)
    assert rounds.rows[0][-1].text == "not over"
    assert [cell.text for cell in scores.rows[0][1:]] == ["50.0 → –", "50.0 → –"]
    assert refinement_sentence(begun) == "The refinement is not over."
