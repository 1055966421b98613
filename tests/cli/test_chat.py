from __future__ import annotations

import io
from pathlib import Path

import pytest

from domainfusion.cli.ask import Chat, Panel
from domainfusion.cli.main import main
from domainfusion.cli.terminal import Terminal
from domainfusion.errors import ModelError
from domainfusion.models import ScriptedModel
from domainfusion.types import Conversation, Sampling


def echo(name: str) -> ScriptedModel:
    """Answers with its name and the last words that it was given."""
    return ScriptedModel(lambda question: f"{name} heard {question}", name=name)


class Recorder(ScriptedModel):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__("yes", name="recorder")
        self.asked: list[Conversation] = []

    def generate(self, conversations, sampling=Sampling(), on_result=None):  # type: ignore[no-untyped-def]
        self.asked += conversations
        return super().generate(conversations, sampling, on_result)


class Broken(ScriptedModel):
    """Gives no answer."""

    def generate(self, conversations, sampling=Sampling(), on_result=None):  # type: ignore[no-untyped-def]
        raise ModelError("The server is away")


def talk(panel: Panel, *lines: str) -> None:
    with Terminal() as terminal:
        chat = Chat(panel, Sampling(), terminal)
        for line in lines:
            if not chat.take(line):
                return


def test_earlier_turns_are_remembered_until_the_conversation_is_new() -> None:
    student = Recorder()
    talk(Panel(models={"student": student}), "one", "two", "/new", "three")
    said = [[(turn.role, turn.content) for turn in turns] for turns in student.asked]
    assert said == [
        [("user", "one")],
        [("user", "one"), ("assistant", "yes"), ("user", "two")],
        [("user", "three")],
    ]


def test_a_system_prompt_comes_first_and_can_be_taken_back() -> None:
    student = Recorder()
    talk(Panel(models={"student": student}), "/system Be brief.", "one", "/system", "two")
    first, second = student.asked
    assert [turn.role for turn in first] == ["system", "user"]
    assert first[0].content == "Be brief."
    assert [turn.role for turn in second] == ["user"]


def test_experts_are_asked_by_name_and_all_of_them_side_by_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    panel = Panel(models={"student": echo("student"), "law": echo("law")}, experts=("law",))
    talk(panel, "one", "/expert law", "two", "/all", "/all three", "/expert nobody")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "student heard one",
        "law heard two",
        "student: student heard two",
        "law: law heard two",
        "student: student heard three",
        "law: law heard three",
    ]
    assert "There is no 'nobody' here. There are: student, law." in captured.err


def test_quit_ends_and_an_unknown_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    talk(Panel(models={"student": echo("s")}), "/help", "/quit", "unheard")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "/expert NAME" in captured.err


def test_a_model_that_fails_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    panel = Panel(models={"student": echo("s"), "law": Broken("", name="law")})
    talk(panel, "/all one", "two")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["student: s heard one", "s heard two"]
    assert "law gives no answer: The server is away" in captured.err


def test_a_run_is_talked_to_through_a_pipe(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/all What does a cow eat?\n/quit\n"))
    assert main(["chat", str(finished_run), "--max-new-tokens", "4", "--quiet"]) == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert [name for name in names if name in {"student", "base", "animals", "colours"}] == [
        "student",
        "base",
        "animals",
        "colours",
    ]
