"""Laws of reading an answer: what is there is read whole, reasoning is kept apart, and what is no answer is never taken for one."""

import json
from typing import Any

import pytest
from faulty_server import completion
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.models.api.answers import UnreadableAnswer, brief, read_reply, split_reasoning
from domainfusion.models.api.costs import TokenCount

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "x"]), inner),
    max_leaves=10,
)


def read(message: Any, finish_reason: Any = "stop", usage: Any = None, **options: Any) -> Any:
    return read_reply(json.dumps(completion(message, finish_reason, usage)), **options)


@given(st.text())
def test_a_text_comes_as_it_was_sent_but_for_the_space_around_it(text: str) -> None:
    assert read({"content": "a" + text + "z"}).generation.text == "a" + text + "z"
    assert read({"content": f" \n{text.strip()}\n"}).generation.text == text.strip()


@given(json_values)
def test_anything_at_all_is_an_answer_or_a_clear_failure(payload: Any) -> None:
    for candidate in (payload, {"choices": payload}, {"choices": [payload]}, {"choices": [{"message": payload}]}, completion(payload)):
        try:
            reply = read_reply(json.dumps(candidate))
        except UnreadableAnswer as error:
            assert error.what
        else:
            assert isinstance(reply.generation.text, str)


@given(st.integers(0, 40))
def test_a_body_that_is_cut_anywhere_is_no_answer(missing: int) -> None:
    body = json.dumps(completion({"content": "A long enough answer"}))
    with pytest.raises(UnreadableAnswer):
        read_reply(body[: len(body) - 1 - missing])


def test_a_body_that_is_nested_too_deeply_is_no_answer() -> None:
    with pytest.raises(UnreadableAnswer):
        read_reply("[" * 200_000)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        [],
        "text",
        None,
        {"choices": []},
        {"choices": None},
        {"choices": {"0": 1}},
        {"choices": ["text"]},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"finish_reason": "stop", "message": None}]},
        completion({"content": None}),
        completion({}),
        completion({"content": 3}),
        completion({"content": []}),
        completion({"content": "half"}, None),
        completion({"content": "half"}, "insufficient_system_resource"),
        completion({"content": None, "tool_calls": [{}]}, "tool_calls"),
        {"error": {"message": "overloaded", "code": 502}},
    ],
)
def test_what_lacks_an_answer_is_none(payload: object) -> None:
    with pytest.raises(UnreadableAnswer):
        read_reply(json.dumps(payload))


def test_an_error_in_place_of_an_answer_is_shown() -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        read_reply(json.dumps({"error": {"message": "overloaded"}}))
    assert "overloaded" in caught.value.seen


@pytest.mark.parametrize(
    ("given_reason", "reason"),
    [("stop", "stop"), ("eos_token", "stop"), ("length", "length"), ("max_tokens", "length"), ("content_filter", "filtered")],
)
def test_why_an_answer_ended_is_told_in_the_projects_words(given_reason: str, reason: str) -> None:
    assert read({"content": "a"}, given_reason).generation.finish_reason == reason


def test_a_refusal_is_no_answer_that_stopped() -> None:
    reply = read({"content": None, "refusal": "I can't help with that."})
    assert (reply.generation.finish_reason, reply.generation.text) == ("refused", "I can't help with that.")


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_before_its_first_word_is_empty(reason: str) -> None:
    assert read({"content": None, "reasoning_content": "Hm"}, reason).generation.text == ""


def test_content_in_parts_is_one_text() -> None:
    assert read({"content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}).generation.text == "one two"


def test_half_a_character_does_not_get_in() -> None:
    text = read_reply('{"choices": [{"finish_reason": "stop", "message": {"content": "a\\ud800b \\ud83d\\ude00"}}]}').generation.text
    assert text == "a\N{REPLACEMENT CHARACTER}b 😀"
    text.encode("utf-8")


# Reasoning

WITHOUT_TAGS = st.text().filter(lambda text: "think>" not in text)


@given(WITHOUT_TAGS, WITHOUT_TAGS)
def test_reasoning_and_answer_are_told_apart(reasoning: str, answer: str) -> None:
    expected = (reasoning.strip(), answer.strip())
    assert split_reasoning(f"<think>{reasoning}</think>{answer}") == expected
    assert split_reasoning(f"\n{reasoning}</think>\n\n{answer}\n") == expected
    assert split_reasoning(f"<think>{reasoning}") == (reasoning.strip(), "")
    assert split_reasoning(answer) == ("", answer.strip())


@pytest.mark.parametrize(
    "message",
    [
        {"content": "4", "reasoning_content": "2 and 2"},
        {"content": "4", "reasoning": "2 and 2"},
        {"content": "<think>\n2 and 2\n</think>\n\n4"},
        {"content": "2 and 2</think>4"},
    ],
)
def test_reasoning_is_kept_apart_and_put_into_the_text_on_demand(message: dict[str, str]) -> None:
    generation = read(message).generation
    assert (generation.reasoning, generation.text) == ("2 and 2", "4")
    generation = read(message, include_reasoning=True).generation
    assert (generation.reasoning, generation.text) == ("2 and 2", "<think>\n2 and 2\n</think>\n\n4")


# Counts


def test_tokens_are_counted_as_the_server_says() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    reply = read({"content": "a"}, usage=usage)
    assert reply.tokens == TokenCount(prompt=100, completion=40, cached=60, reasoning=30)
    assert (reply.generation.prompt_tokens, reply.generation.completion_tokens) == (100, 40)


@pytest.mark.parametrize("prompt", [-1, "3", None, 0.5, True, 10**30])
def test_a_number_that_makes_no_sense_is_no_count(prompt: object) -> None:
    assert read({"content": "a"}, usage={"prompt_tokens": prompt, "completion_tokens": 2}).tokens is None


@pytest.mark.parametrize("usage", ["none", [1], {"prompt_tokens": 3}])
def test_a_usage_that_makes_no_sense_is_no_count(usage: object) -> None:
    assert read({"content": "a"}, usage=usage).tokens is None


@given(st.text(), st.integers(1, 50))
def test_what_is_shown_of_a_body_is_short_and_on_one_line(text: str, limit: int) -> None:
    shown = brief(text, limit)
    assert len(shown) <= limit + 1
    assert "\n" not in shown
    shown.encode("utf-8")
