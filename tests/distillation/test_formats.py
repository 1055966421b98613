"""Dialogues: those of every tool end up as a query, the turns before it and the answer."""

from __future__ import annotations

from typing import Any

import pytest

from domainfusion.distillation.formats import proposed_fields, read_alpaca, read_dialogue
from domainfusion.errors import DataError
from domainfusion.types import Message

TURNS = [
    ("user", "What is NRT?"),
    ("assistant", "An airport."),
    ("user", "Where is it?"),
    ("assistant", "In Japan."),
]


def openai(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def sharegpt(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text}
        for role, text in turns
    ]


def in_parts(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]


@pytest.mark.parametrize("form", [openai, sharegpt, in_parts])
def test_the_last_question_has_the_turns_before_it_and_its_answer(form: Any) -> None:
    whole = read_dialogue(form([("system", "Be brief."), *TURNS]), "here")
    assert (whole.query, whole.reference, whole.system) == (
        "Where is it?",
        "In Japan.",
        "Be brief.",
    )
    assert whole.history == (Message("user", "What is NRT?"), Message("assistant", "An airport."))
    asked = read_dialogue(form(TURNS[:3]), "here")
    assert (asked.query, asked.reference, asked.system, asked.history) == (
        "Where is it?",
        None,
        None,
        whole.history,
    )
    assert read_dialogue(form(TURNS[:1]), "here").history == ()


@pytest.mark.parametrize(
    ("turns", "what"),
    [
        ([], "no turns"),
        (3, "no turns"),
        ("Why?", "no turns"),
        ([3], "not an object"),
        (openai([("wizard", "x")]), "unknown role.*'wizard'"),
        (openai([("tool", "x")]), "tools.*text alone.*'tool'"),
        ([{"from": "function_call", "value": "{}"}], "tools.*text alone"),
        ([{"from": "observation", "value": "sun"}], "tools.*text alone"),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "tool_calls": [{}]},
            ],
            "tools.*text alone",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}],
            "'image_url'.*text alone",
        ),
        (openai([("user", "a"), ("assistant", "<think>Hm, so it")]), "reasoning alone"),
        ([{"content": "x"}], "unknown role"),
        ([{"role": ["user"], "content": "x"}], "unknown role"),
        (openai([("user", " ")]), "without text"),
        ([{"role": "user"}], "without text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "'image'.*text alone"),
        (openai([("assistant", "Hello!")]), "do not alternate"),
        (openai([("system", "Be brief.")]), "do not alternate"),
        (openai([("user", "a"), ("user", "b")]), "do not alternate"),
        (openai([("assistant", "a"), ("user", "b")]), "do not alternate"),
        (openai([("user", "a"), ("system", "b"), ("user", "c")]), "do not alternate"),
    ],
)
def test_a_dialogue_that_can_not_be_read_is_one_error_that_names_its_place(
    turns: Any, what: str
) -> None:
    with pytest.raises(DataError, match=f"^file:7.*{what}"):
        read_dialogue(turns, "file:7")


@pytest.mark.parametrize(
    "name", ["gpt", "assistant", "model", "chatgpt", "bing", "bard", "GPT", "Assistant"]
)
def test_an_assistant_has_many_names(name: str) -> None:
    assert (
        read_dialogue(
            [{"from": "human", "value": "What is Fe?"}, {"from": name, "value": "Iron."}], "here"
        ).reference
        == "Iron."
    )


def test_the_developers_message_is_the_systems() -> None:
    assert read_dialogue(openai([("developer", "Be brief."), *TURNS]), "here").system == "Be brief."


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "<think>Easy.</think>Iron."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Easy."},
                {"type": "text", "text": "Iron."},
            ],
        },
        {"role": "assistant", "content": "Iron.", "reasoning_content": "Easy."},
    ],
)
def test_reasoning_is_no_part_of_the_answer(answer: dict[str, Any]) -> None:
    question = {"role": "user", "content": "What is Fe?"}
    assert read_dialogue([question, answer], "here").reference == "Iron."
    assert read_dialogue([question, answer, question], "here").history[1].content == "Iron."


# Alpaca


@pytest.mark.parametrize("given", ["", None, "  "])
def test_an_instruction_may_stand_alone(given: str | None) -> None:
    assert read_alpaca({"instruction": "Why?", "input": given, "output": "So."}) == {
        "query": "Why?",
        "reference": "So.",
    }


def test_an_instruction_has_its_input_its_history_and_the_rest() -> None:
    entry = {
        "instruction": "Name it.",
        "input": "Fe",
        "output": "iron",
        "history": [["Hi", "Hello"]],
        "system": "Be brief.",
        "id": "7",
    }
    assert read_alpaca(entry) == {
        "query": "Name it.\n\nFe",
        "reference": "iron",
        "history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        "system": "Be brief.",
        "id": "7",
    }


@pytest.mark.parametrize(
    "entry",
    [{"query": "Why?"}, {"instruction": "Why?"}, {"query": "a", "instruction": "b", "output": "c"}],
)
def test_what_is_no_alpaca_is_left(entry: dict[str, str]) -> None:
    assert read_alpaca(entry) is None


# Columns


@pytest.mark.parametrize(
    ("columns", "proposed"),
    [
        (["question", "answer"], {"query": "question", "reference": "answer"}),
        (
            ["Question", "Category", "Answer"],
            {"query": "Question", "reference": "Answer", "domain": "Category"},
        ),
        (
            ["prompt", "completion", "labels"],
            {"query": "prompt", "reference": "completion", "answers": "labels"},
        ),
        (["query", "answer", "source_id"], {"reference": "answer"}),
        (["messages", "question"], {}),
        (["query", "model"], {}),
    ],
)
def test_the_fields_that_are_proposed_are_the_likeliest(
    columns: list[str], proposed: dict[str, str]
) -> None:
    assert (
        proposed_fields(columns, ["query", "reference", "answers", "domain", "messages"])
        == f"fields={proposed!r}"
    )
