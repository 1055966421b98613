"""The examples run as a reader would run them, in seconds and without a network, and show what they
promise.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
EXTENSION_POINTS = ("generator", "trainer", "evaluator", "metrics", "integration")


Run = Callable[[str], tuple[list[str], dict[str, Any]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example as a script, in this process, which has loaded torch already: gives what it
    printed, and its names.
    """
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run_script(name: str) -> tuple[list[str], dict[str, Any]]:
        file = str(EXAMPLES / f"custom_{name}.py")
        monkeypatch.setattr(sys, "argv", [file])
        names = runpy.run_path(file, run_name="__main__")
        return [line for line in capsys.readouterr().out.splitlines() if line.strip()], names

    return run_script


def test_there_is_an_example_for_each_extension_point() -> None:
    assert {file.name for file in EXAMPLES.glob("custom_*.py")} == {
        f"custom_{name}.py" for name in EXTENSION_POINTS
    }


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_an_example_is_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 95


def test_an_example_runs_from_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "custom_integration.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("How can sprinters recover")
    assert done.stderr == ""


def test_the_generator_covers_both_tables_and_their_join(run: Run) -> None:
    lines, _ = run("generator")
    assert sum(line.startswith("geography ") and "telephony" not in line for line in lines) == 3
    assert sum(line.startswith("geography + telephony") for line in lines) == 3


def test_the_trainer_teaches_every_answer(run: Run) -> None:
    lines, names = run("trainer")
    assert lines[:2] == ["phase 'short': 2 records", "phase 'all': 4 records"]
    assert lines[2:] == [f"{query}  {answer}" for query, answer in names["ANSWERS"].items()]


def test_the_evaluator_finds_the_question_that_is_answered_in_two_ways(run: Run) -> None:
    (heading, _, student), _ = run("evaluator")
    assert heading.split()[-4:] == ["chemistry", "(1)", "geography", "(1)"]
    assert student.split() == ["student", "0.000", "1.000"]


def test_the_metrics_grade_numbers_and_links(run: Run) -> None:
    lines, _ = run("metrics")
    (chemistry,) = (line for line in lines if line.startswith("chemistry"))
    assert chemistry.split()[1:6] == ["2", "–", "1.000", "0.500", "0.500"], (
        "the student knows gold within 1 %, and not iron"
    )
    assert any(line.startswith("Integration Coherence 1.000 over 1 answer") for line in lines)


def test_the_strategy_names_its_experts_and_what_it_left_out(run: Run) -> None:
    lines, _ = run("integration")
    assert lines[1:] == [
        "Physiology: Jog easily for ten minutes.",
        "Biomechanics: Land softly on the way out of the blocks.",
        "Nutrition: Eat carbohydrates within 30 minutes.",
        "left out: coaching (said before)",
    ]
