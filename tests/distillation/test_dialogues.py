"""Dialogues: those of every tool end up as a query, the turns before it and the answer."""

from __future__ import annotations

from typing import Any

import pytest

from domainfusion.distillation.dialogues import read_dialogue
from domainfusion.errors import DataError
from domainfusion.types import Message

TURNS = [("user", "What is NRT?"), ("assistant", "An airport."), ("user", "Where is it?"), ("assistant", "In Japan.")]


def openai(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def sharegpt(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text} for role, text in turns]


def in_parts(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]


@pytest.mark.parametrize("form", [openai, sharegpt, in_parts])
def test_the_last_question_has_the_turns_before_it_and_its_answer(form: Any) -> None:
    whole = read_dialogue(form([("system", "Be brief."), *TURNS]), "here")
    assert (whole.query, whole.reference, whole.system) == ("Where is it?", "In Japan.", "Be brief.")
    assert whole.history == (Message("user", "What is NRT?"), Message("assistant", "An airport."))
    asked = read_dialogue(form(TURNS[:3]), "here")
    assert (asked.query, asked.reference, asked.system, asked.history) == ("Where is it?", None, None, whole.history)
    assert read_dialogue(form(TURNS[:1]), "here").history == ()


@pytest.mark.parametrize(
    ("turns", "what"),
    [
        ([], "no turns"),
        (3, "no turns"),
        ("Why?", "no turns"),
        ([3], "no object"),
        (openai([("tool", "x")]), "unknown role.*'tool'"),
        ([{"content": "x"}], "unknown role"),
        ([{"role": ["user"], "content": "x"}], "unknown role"),
        (openai([("user", " ")]), "without text"),
        ([{"role": "user"}], "without text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "without text"),
        (openai([("assistant", "Hello!")]), "do not alternate"),
        (openai([("system", "Be brief.")]), "do not alternate"),
        (openai([("user", "a"), ("user", "b")]), "do not alternate"),
        (openai([("assistant", "a"), ("user", "b")]), "do not alternate"),
        (openai([("user", "a"), ("system", "b"), ("user", "c")]), "do not alternate"),
    ],
)
def test_a_dialogue_that_can_not_be_read_is_one_error_that_names_its_place(turns: Any, what: str) -> None:
    with pytest.raises(DataError, match=f"^file:7.*{what}"):
        read_dialogue(turns, "file:7")
