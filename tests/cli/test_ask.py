from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from domainfusion.cli.main import main
from domainfusion.errors import printable
from domainfusion.models import HuggingFaceModel
from domainfusion.records import read_json, write_json
from domainfusion.types import Sampling

from .test_distill import copy_of

QUESTION = "What does a cow eat?"


def test_a_run_a_folder_and_an_adapter_answer(
    finished_run: Path,
    tiny_llama: Path,
    make_adapter: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for asked, model in (
        (finished_run, finished_run / "model"),
        (tiny_llama, tiny_llama),
        (make_adapter("animals", 1),) * 2,
    ):
        assert main(["ask", str(asked), QUESTION, "--max-new-tokens", "4"]) == 0
        captured = capsys.readouterr()
        assert (
            captured.out
            == printable(HuggingFaceModel(model).ask(QUESTION, sampling=Sampling(max_new_tokens=4)))
            + "\n"
        )


def test_the_student_of_a_run_is_asked_with_the_system_prompt_that_it_learned_with(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    description = read_json(directory / "run.json")
    description["student"]["system_prompt"] = "Cows eat grass, and so do geese."
    write_json(directory / "run.json", description)
    (directory / "checksums.json").unlink()  # changed on purpose
    assert main(["ask", str(directory), QUESTION, "--max-new-tokens", "4"]) == 0
    student = HuggingFaceModel(
        directory / "model", system_prompt="Cows eat grass, and so do geese."
    )
    assert (
        capsys.readouterr().out
        == printable(student.ask(QUESTION, sampling=Sampling(max_new_tokens=4))) + "\n"
    )


def test_an_answer_that_is_cut_says_so_on_stderr(
    tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(tiny_llama), QUESTION, "--max-new-tokens", "1"]) == 0
    assert "cut after 1 token;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["./gone", QUESTION], "There is no model here"),
        (["{tiny}", " "], "The question is empty"),
        (["{tiny}"], "There is no question"),
    ],
)
def test_what_can_not_be_asked_is_one_error(
    words: list[str],
    message: str,
    tiny_llama: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n \n"))
    assert main(["ask", *(word.format(tiny=tiny_llama) for word in words)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {message}")
    assert error.count("\n") == 1


def test_a_run_without_a_student_can_not_be_asked(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "model" / "config.json").unlink()
    for verb in (["ask", str(directory), QUESTION], ["evaluate", str(directory)]):
        assert main(verb) == 1
        assert "This run has no student yet" in capsys.readouterr().err


def test_questions_on_stdin_are_those_of_the_command_line(
    tiny_llama: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [QUESTION, "What does a goose eat?"]
    options = ["--max-new-tokens", "3", "--json"]
    assert main(["ask", str(tiny_llama), *several, *options]) == 0
    given = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(several) + "\n\n"))
    assert main(["ask", str(tiny_llama), "-", *options]) == 0
    assert capsys.readouterr().out == given
    found = [json.loads(line) for line in given.splitlines()]
    assert [fields["question"] for fields in found] == several
    alone = HuggingFaceModel(tiny_llama).ask(several[1], sampling=Sampling(max_new_tokens=3))
    assert found[1]["answer"] == alone


def test_a_system_prompt_of_the_command_line_is_the_one_that_is_used(
    tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", str(tiny_llama), QUESTION, "--system", "Be brief.", "--max-new-tokens", "3"]
    assert main([*words, "--temperature", "0.7", "--seed", "5"]) == 0
    sampling = Sampling(max_new_tokens=3, temperature=0.7, seed=5)
    model = HuggingFaceModel(tiny_llama, system_prompt="Be brief.")
    assert capsys.readouterr().out == printable(model.ask(QUESTION, sampling=sampling)) + "\n"
