"""Replies: questions are found however a model writes them, and no reply breaks the reader."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.data_generation import Question, find_items, find_questions
from domainfusion.distillation.data_generation.replies import LONGEST_REPLY, without_thoughts

TWO = ["Where is Rome?", "Is it \"far\"?"]


def texts(reply: str) -> list[str]:
    return [question.text for question in find_questions(reply)]


@pytest.mark.parametrize(
    "reply",
    [
        "Where is Rome?",
        "Sure, here is one: Where is Rome?",
        "- **Where is Rome?**",
        "Question: “Where is Rome?”",
        '{"question": "Where is Rome?", "answer": "In Italy."}',
        '```json\n["Where is Rome?"]\n```',
        "Here you are.\n\nWhere is Rome? It is in Italy.",
        "<think>Where should I look? [\"Here?\"]</think>\nWhere is Rome?",
        '{"questions": ["Where is Rome?", "What is',
        "{'questions': ['Where is Rome?',]}",
        "{questions: [{question: 'Where is Rome?'}]}",
    ],
)
def test_a_question_is_found_however_a_model_writes_it(reply: str) -> None:
    assert texts(reply) == ["Where is Rome?"]


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps(TWO),
        json.dumps({"questions": TWO}, indent=2),
        json.dumps({"questions": [{"question": text, "difficulty": 1} for text in TWO]}),
        json.dumps({"1": TWO[0], "2": TWO[1]}),
        "\n".join(json.dumps({"query": text}) for text in TWO),
        f"Of course! Here are two:\n```json\n{json.dumps(TWO, indent=1)}\n```\nDo you want [more]?",
        f"[\n  // the first\n  {json.dumps(TWO[0])}, /* and */\n  {json.dumps(TWO[1])}\n]",
        f"[\n  {json.dumps(TWO[0])}\n  {json.dumps(TWO[1])}",
        f"1. {TWO[0]}\n2. {TWO[1]}",
        f"Two questions:\n\n(1) {TWO[0]}\n(2) {TWO[1]}\n",
        f"* {TWO[0]}\n* {TWO[1]}",
        f"Q1: {TWO[0]}\nQ2: {TWO[1]}",
    ],
)
def test_several_questions_are_found_in_their_order(reply: str) -> None:
    assert texts(reply) == TWO


def test_a_question_in_json_may_be_a_request_or_have_a_sentence_before_it() -> None:
    written = ["A runner weighs 70 kg. How much water does she need?", "Compare sleep and food."]
    assert texts(json.dumps(written)) == written


def test_what_a_model_says_about_a_question_is_none() -> None:
    reply = {"topic": "Sleep and its phases, of course.", "item": "How long do cats sleep?", "why": "This needs one domain alone."}
    assert texts(json.dumps([reply])) == ["How long do cats sleep?"]


def test_sub_questions_are_read_as_a_mapping_and_as_a_list() -> None:
    wanted = [Question("Both?", {"a": "First?"})]
    assert find_questions('{"question": "Both?", "sub_questions": {"a": "First?", "b": ""}}') == wanted
    assert find_questions('{"question": "Both?", "sub_questions": [{"domain": "a", "question": "First?"}, 3]}') == wanted
    assert find_questions('{"question": "Both?", "sub_questions": "none"}') == [Question("Both?")]


def test_brackets_in_a_plain_question_are_words() -> None:
    assert texts('1. What does {"a": 1} mean in Python?') == ['What does {"a": 1} mean in Python?']
    assert texts("[easy] Where is Rome?") == ["[easy] Where is Rome?"]


@pytest.mark.parametrize("reply", ["", "Rome is in Italy.", "{}", "[1, 2]", '{"question": 3}', '["Where is', "null"])
def test_no_question_is_found_where_there_is_none(reply: str) -> None:
    assert texts(reply) == []


@given(reply=st.text() | st.text(alphabet='[]{}",:\'?a \n/*#'))
def test_any_reply_can_be_read(reply: str) -> None:
    assert all(text and text[-1] in "?.!" for text in texts(reply))
    assert all(find_items(reply))


@pytest.mark.parametrize("part", ["x", "[", "{", '{"a":', '["a?",', "\"?'", "a? ", "\\", "[{", "<think>", "```json\n", "//", "1. ", "'"])
def test_an_endless_reply_is_read_in_no_time(part: str) -> None:
    started = time.process_time()
    assert len(texts(part * 100_000)) <= LONGEST_REPLY
    find_items(part * 100_000)
    without_thoughts(part * 100_000)
    assert time.process_time() - started < 20, "a reply that is read whole would take minutes"


# Lists


@pytest.mark.parametrize(
    "reply",
    [
        "1. Sprinting\n2. Sleep",
        "Here you go:\n- Sprinting.\n- Sleep",
        '["Sprinting", "Sleep"]',
        '{"topics": ["Sprinting", "Sleep"]}',
        "Sprinting\nSleep\nSprinting",
    ],
)
def test_a_list_is_read_however_a_model_writes_it(reply: str) -> None:
    assert find_items(reply) == ["Sprinting", "Sleep"]
