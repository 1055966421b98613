"""Replies: questions are found however a model writes them, and no reply breaks the reader."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.data_generation.replies import (
    LONGEST_REPLY,
    WrittenQuestion,
    find_items,
    find_questions,
    without_thoughts,
)

TWO = ["Where is Rome?", 'Is it "far"?']


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
        '<think>Where should I look? ["Here?"]</think>\nWhere is Rome?',
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
    reply = {
        "topic": "Sleep and its phases, of course.",
        "item": "How long do cats sleep?",
        "why": "This needs one domain alone.",
    }
    assert texts(json.dumps([reply])) == ["How long do cats sleep?"]


def test_sub_questions_are_read_as_a_mapping_and_as_a_list() -> None:
    wanted = [WrittenQuestion("Both?", {"a": "First?"})]
    assert (
        find_questions('{"question": "Both?", "sub_questions": {"a": "First?", "b": ""}}') == wanted
    )
    assert (
        find_questions(
            '{"question": "Both?", "sub_questions": [{"domain": "a", "question": "First?"}, 3]}'
        )
        == wanted
    )
    assert find_questions('{"question": "Both?", "sub_questions": "none"}') == [
        WrittenQuestion("Both?")
    ]


def test_brackets_in_a_plain_question_are_words() -> None:
    assert texts('1. What does {"a": 1} mean in Python?') == ['What does {"a": 1} mean in Python?']
    assert texts("[easy] Where is Rome?") == ["[easy] Where is Rome?"]


@pytest.mark.parametrize(
    "reply", ["", "Rome is in Italy.", "{}", "[1, 2]", '{"question": 3}', '["Where is', "null"]
)
def test_no_question_is_found_where_there_is_none(reply: str) -> None:
    assert texts(reply) == []


@given(reply=st.text() | st.text(alphabet="[]{}\",:'?a \n/*#"))
def test_any_reply_can_be_read(reply: str) -> None:
    assert all(text.rstrip("\"'*`_)]") and text == text.strip() for text in texts(reply))
    assert all(find_items(reply))


@pytest.mark.parametrize(
    "part",
    [
        "x",
        "[",
        "{",
        '{"a":',
        '["a?",',
        "\"?'",
        "a? ",
        "\\",
        "[{",
        "<think>",
        "```json\n",
        "//",
        "1. ",
        "'",
    ],
)
def test_an_endless_reply_is_read_in_no_time(part: str) -> None:
    started = time.process_time()
    assert len(texts(part * 100_000)) <= LONGEST_REPLY
    find_items(part * 100_000)
    without_thoughts(part * 100_000)
    assert time.process_time() - started < 20, "a reply that is read whole would take minutes"


# Marks and markup


@pytest.mark.parametrize(
    "reply",
    [
        "| # | Question | Level |\n|---|:-:|---|\n| 1 | Where is Rome? | easy |",
        "Where is Rome? |",
        "1 | Where is Rome? | easy",
        "<question>Where is Rome?</question>",
        "<question_1>\nWhere is Rome?\n</question_1>",
        "<questions><q>Where is Rome?</q></questions>",
        "<p>Where is <b>Rome</b>?</p>",
        "Where is Rome?</s>",
        "Where is Rome?<|im_end|>\n<|im_start|>user\nIn Italy.",
        "[INST] Where is Rome? [/INST]",
        "Where is Rome?<｜end▁of▁sentence｜>",
        "**Question 1:** *Where is Rome?*",
        "### Question: Where is Rome?",
        "> Where is **Rome**?",
        '1) "Where is Rome?"',
        "（1）「Where is Rome?」",
        "Q1. Where is Rome?",
        "[Question] Where is Rome?",
        "(Where is Rome?)",
        '"Where is Rome?',
        "Where is Rome?\u200b",
        "Topic in geography: Italy. Question: Where is Rome?",
        "Here's a question for a beginner: Where is Rome?",
        '{"question": "**Question:** <q>Where is Rome?</q></s>"}',
        '["| 1 | Where is Rome? | easy |"]',
    ],
)
def test_markup_does_not_stay_in_a_question(reply: str) -> None:
    assert texts(reply) == ["Where is Rome?"]


@pytest.mark.parametrize(
    "question",
    [
        "What does the <table> tag mean in HTML?",
        "What is a List<String> in Java?",
        "What do *args and **kwargs mean in Python?",
        "What does __init__ do?",
        "What is P(A | B)?",
        "What does `ls | grep x | wc` print?",
        "How much is 2**3**4?",
        "How much is 1.5 times 2?",
        'Who wrote "Dune"?',
        '"Dune" was written by whom?',
        "Is C# older than C++?",
        "A runner weighs 70 kg. How much water does she need?",
        "Where is Rome? And who founded it?",
    ],
)
def test_what_a_question_is_about_stays_in_it(question: str) -> None:
    assert (
        texts(question)
        == texts(f"1. **{question}**" if "*" not in question else question)
        == [question]
    )


@pytest.mark.parametrize(
    "question",
    [
        "法国的首都是哪里？",
        "法国的首都是什么",
        "日本の首都はどこですか。",
        "日本の首都はどこですか？",
        "프랑스의 수도는 어디입니까",
        "ما هي عاصمة فرنسا؟",
        "هل باريس عاصمة فرنسا",
        "Ποια είναι η πρωτεύουσα της Γαλλίας;",
        "Ποια είναι η πρωτεύουσα της Γαλλίας\u037e",
        "เมืองหลวงของฝรั่งเศสคืออะไร",
        "Որտե՞ղ է Հռոմը։",
        "¿Cuál es la capital de Francia?",
    ],
)
def test_questions_in_other_languages_are_questions(question: str) -> None:
    assert (
        texts(question) == texts(f"1. {question}\n") == texts(json.dumps([question])) == [question]
    )


@pytest.mark.parametrize(
    "reply",
    [
        "Το Παρίσι είναι πρωτεύουσα.",
        "巴黎是法国的首都。",
        "パリはフランスの首都です。",
        "Rome; Paris; Athens",
    ],
)
def test_a_statement_is_not_a_question_in_any_language(reply: str) -> None:
    assert texts(reply) == []


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
