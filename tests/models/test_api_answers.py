"""Laws of reading an answer: what is there is read whole, reasoning is kept apart, and what is no
answer is never taken for one.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.models.api.answers import Reply, UnreadableAnswer, brief, parse_body, read_reply
from domainfusion.models.api.failures import error_in, error_of_body
from domainfusion.models.costs import TokenCount
from models.faulty_server import completion

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "x"]), inner)
    ),
    max_leaves=10,
)


def read(message: Any, finish_reason: Any = "stop", usage: Any = None, **options: Any) -> Any:
    return read_body(json.dumps(completion(message, finish_reason, usage)), **options)


def read_body(body: str, **options: Any) -> Reply:
    return read_reply(parse_body(body), **options)


@given(st.text())
def test_a_text_comes_as_it_was_sent_but_for_the_space_around_it(text: str) -> None:
    assert read({"content": "a" + text + "z"}).generation.text == "a" + text + "z"
    assert read({"content": f" \n.{text}.\n"}).generation.text == f".{text}."


@given(json_values)
def test_anything_at_all_is_an_answer_or_a_clear_failure(payload: Any) -> None:
    for candidate in (
        payload,
        {"choices": payload},
        {"choices": [payload]},
        {"choices": [{"message": payload}]},
        completion(payload),
    ):
        try:
            reply = read_body(json.dumps(candidate))
        except UnreadableAnswer as error:
            assert error.what
        else:
            assert isinstance(reply.generation.text, str)


@given(st.integers(0, 40))
def test_a_body_that_is_cut_anywhere_is_not_an_answer(missing: int) -> None:
    body = json.dumps(completion({"content": "A long enough answer"}))
    with pytest.raises(UnreadableAnswer):
        read_body(body[: len(body) - 1 - missing])


def test_a_body_that_is_nested_too_deeply_is_not_an_answer() -> None:
    with pytest.raises(UnreadableAnswer):
        read_body("[" * 200_000)


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
        completion({"content": ""}, None),
        completion({"content": " \u200b\n"}),
        completion({"content": "", "reasoning_content": "Hm"}),
        completion({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        completion({"content": "half"}, "insufficient_system_resource"),
        completion({"content": None, "tool_calls": [{}]}, "tool_calls"),
        {"error": {"message": "overloaded", "code": 502}},
    ],
)
def test_what_lacks_an_answer_is_none(payload: object) -> None:
    with pytest.raises(UnreadableAnswer):
        read_body(json.dumps(payload))


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        *(
            (word, "stop")
            for word in (
                "stop",
                "STOP",
                "eos",
                "eos_token",
                "end",
                "end_turn",
                "stop_sequence",
                "stop_token",
                "COMPLETE",
            )
        ),
        *(
            (word, "stop")
            for word in (
                "FINISH_REASON_STOP",
                "eosFound",
                "stopStringFound",
                "endoftext",
                "normal",
                {"type": "stop"},
            )
        ),
        *(
            (word, "stop")
            for word in ("<|eot_id|>", "<|im_end|>", "</s>", "<end_of_turn>", "[EOS]", " Stop ")
        ),
        *(
            (word, "length")
            for word in (
                "length",
                "MAX_TOKENS",
                "model_length",
                "max_tokens",
                "maxPredictedTokensReached",
            )
        ),
        *(
            (word, "length")
            for word in (
                "model_context_window_exceeded",
                "contextLengthReached",
                "token_limit",
                {"type": "length"},
            )
        ),
        *(
            (word, "filtered")
            for word in (
                "content_filter",
                "SAFETY",
                "sensitive",
                "PROHIBITED_CONTENT",
                "guardrail_intervened",
            )
        ),
        ("refusal", "refused"),
    ],
    ids=str,
)
def test_why_an_answer_ended_is_told_in_the_projects_words(stated: object, reason: str) -> None:
    assert read({"content": "a"}, stated).generation.finish_reason == reason


@pytest.mark.parametrize(
    "stated",
    [
        *(
            "tool_calls",
            "function_call",
            "tool_use",
            "error",
            "abort",
            "load",
            "userStopped",
            "cancelled",
            "network_error",
            "unknown",
        ),
        *("insufficient_system_resource", "not_finished", "<|call|>", "128009", 3, True, ["stop"]),
    ],
    ids=str,
)
def test_an_answer_that_ended_in_another_way_is_none(stated: object) -> None:
    with pytest.raises(UnreadableAnswer, match="reason"):
        read({"content": "half"}, stated)


UNSTATED: list[Any] = [None, "", " ", "null", "NONE", "FINISH_REASON_UNSPECIFIED", {}]


@pytest.mark.parametrize("stated", UNSTATED, ids=str)
@given(limit=st.integers(1, 100), written=st.integers(1, 100))
def test_an_answer_of_an_unstated_end_is_whole_below_its_limit(
    stated: object, limit: int, written: int
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": written}
    reply = read({"content": "Iron."}, stated, usage, max_new_tokens=limit)
    assert reply.generation.finish_reason == ("stop" if written < limit else "length")
    with pytest.raises(UnreadableAnswer, match="does not say why") as caught:
        read({"content": "Iron."}, stated, usage, max_new_tokens=limit, require_finish_reason=True)
    assert caught.value.tokens == reply.tokens  # it has to be paid for


def test_without_a_finish_reason_field_the_same_holds() -> None:
    payload = completion({"content": "Iron."})
    del payload["choices"][0]["finish_reason"], payload["usage"]
    assert read_reply(payload, max_new_tokens=256).generation.finish_reason == "stop"
    payload["choices"][0]["message"]["content"] = (
        "Iron. " * 256
    )  # no count says that it was not cut
    assert read_reply(payload, max_new_tokens=256).generation.finish_reason == "length"


# Errors in place of answers


@pytest.mark.parametrize(
    ("payload", "status", "told"),
    [
        ({"error": {"message": "slow down", "code": 429}}, 429, "slow down"),
        ({"error": {"message": "slow down", "code": "429"}}, 429, "slow down"),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429, "slow down"),
        ({"error": {"message": "Rate limit exceeded"}}, 429, "Rate limit"),
        ({"error": {"message": "no", "type": "invalid_request_error"}}, 400, "no"),
        ({"error": {"message": "maximum context length is 4096 tokens", "code": 502}}, 400, "4096"),
        (
            {"object": "error", "message": "maximum context length is 4096", "code": 40303},
            400,
            "4096",
        ),
        ({"object": "error", "message": "slow down", "code": 42901}, 429, "slow down"),
        ({"error": "Incorrect API key provided"}, 401, "Incorrect API key"),
        ({"error": {"message": "The model 'm' does not exist"}}, 404, "does not exist"),
        ({"detail": "overloaded"}, 503, "overloaded"),
        ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, 404, "endpoint"),
        ({"error": {"error": {"message": "inner"}}}, 500, "inner"),
        ({"errors": [{"message": "first"}]}, 500, "first"),
        (
            [
                {
                    "error": {
                        "code": 400,
                        "message": "API key not valid.",
                        "status": "INVALID_ARGUMENT",
                    }
                }
            ],
            400,
            "API key not valid.",
        ),
        (
            {
                "choices": [
                    {
                        "error": {"message": "upstream overloaded", "code": 503},
                        "message": {"content": "Iron is"},
                    }
                ]
            },
            503,
            "upstream",
        ),
        ({"error": {"message": "no idea"}}, 500, "no idea"),
    ],
)
def test_an_error_in_place_of_an_answer_has_its_message_and_its_status(
    payload: object, status: int, told: str
) -> None:
    error = error_in(parse_body(json.dumps(payload)))
    assert error is not None and told in error.message and error.meant_status == status
    assert error_of_body(json.dumps(payload)) == error


@pytest.mark.parametrize(
    "payload",
    [
        completion({"content": "a"}),
        {"choices": []},
        {},
        {"choices": [{"error": None}]},
        {**completion({"content": "a"}), "error": None},
    ],
)
def test_what_is_not_an_error_is_none(payload: object) -> None:
    assert error_in(payload) is None


# Streams

PIECES = st.lists(st.text(), min_size=1, max_size=5)


def stream(*chunks: object, newline: str = "\n", done: bool = True) -> str:
    lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}" for chunk in chunks] + [
        "data: [DONE]"
    ] * done
    return f"{newline}{newline}".join([": keep-alive", *lines, ""])


def chunk(finish_reason: str | None = None, **delta: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


@given(PIECES, st.sampled_from(["\n", "\r\n"]))
def test_a_stream_is_read_as_the_whole_that_it_is_cut_from(pieces: list[str], newline: str) -> None:
    whole = read({"content": f"a{''.join(pieces)}z", "reasoning_content": "Hm, well"})
    chunks = [
        chunk(role="assistant", content=""),
        chunk(reasoning_content="Hm, "),
        chunk(reasoning_content="well"),
    ]
    chunks += [chunk(content=piece) for piece in ("a", *pieces, "z")]
    usage = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    assert read_body(stream(*chunks, chunk("stop"), usage, newline=newline)) == whole


def test_a_whole_answer_may_be_framed_as_a_stream() -> None:
    whole = completion({"content": "Fe."})
    assert read_body(json.dumps(whole) + "\n\ndata: [DONE]\n\n") == read({"content": "Fe."})
    assert read_body(stream(whole)) == read({"content": "Fe."})


def test_a_stream_that_breaks_off_is_not_an_answer() -> None:
    body = stream(chunk(content="Iron "), chunk(content="is"), chunk("stop"))
    ends = [place for place in range(len(body)) if place < body.index('"stop"') + 6]
    for end in ends:
        with pytest.raises(UnreadableAnswer):
            read_body(body[:end])


def test_an_error_in_a_stream_is_told() -> None:
    payload = parse_body(
        stream(
            chunk(content="Iron "), {"error": {"message": "overloaded", "code": 503}}, done=False
        )
    )
    error = error_in(payload)
    assert error is not None and (error.message, error.meant_status) == ("overloaded", 503)


def test_a_refusal_is_not_an_answer_that_stopped() -> None:
    reply = read({"content": None, "refusal": "I can't help with that."})
    assert (reply.generation.finish_reason, reply.generation.text) == (
        "refused",
        "I can't help with that.",
    )


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_before_its_first_word_is_empty(reason: str) -> None:
    assert read({"content": None, "reasoning_content": "Hm"}, reason).generation.text == ""


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}],
        ["one ", "two"],
        [{"text": "one "}, {"type": "output_text", "text": "two"}],
        {"parts": [{"text": "one "}, {"text": "two"}]},
        {"type": "text", "text": "one two"},
    ],
)
def test_content_in_parts_is_one_text(content: object) -> None:
    assert read({"content": content}).generation.text == "one two"


@pytest.mark.parametrize(
    "thought",
    [
        {"type": "thinking", "thinking": [{"type": "text", "text": "2 and 2"}]},
        {"type": "thinking", "thinking": "2 and 2"},
        {"type": "reasoning", "text": "2 and 2"},
    ],
)
def test_a_part_that_is_reasoning_is_not_the_answer(thought: object) -> None:
    generation = read({"content": [thought, {"type": "text", "text": "4"}]}).generation
    assert (generation.reasoning, generation.text) == ("2 and 2", "4")


def test_half_a_character_does_not_get_in() -> None:
    text = read_body(
        '{"choices": [{"finish_reason": "stop", "message": {"content": "a\\ud800b'
        ' \\ud83d\\ude00"}}]}'
    ).generation.text
    assert text == "a\N{REPLACEMENT CHARACTER}b 😀"
    text.encode("utf-8")


# Reasoning


@pytest.mark.parametrize(
    "message",
    [
        {"content": "4", "reasoning_content": "2 and 2"},
        {"content": "4", "reasoning": "2 and 2"},
        {"content": "4", "thinking": "2 and 2"},
        {"content": "4", "reasoning_details": [{"type": "reasoning.text", "text": "2 and 2"}]},
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
def test_a_number_that_makes_no_sense_is_not_a_count(prompt: object) -> None:
    assert (
        read({"content": "a"}, usage={"prompt_tokens": prompt, "completion_tokens": 2}).tokens
        is None
    )


@pytest.mark.parametrize("usage", ["none", [1], {"prompt_tokens": 3}])
def test_a_usage_that_makes_no_sense_is_not_a_count(usage: object) -> None:
    assert read({"content": "a"}, usage=usage).tokens is None


@given(st.text(), st.integers(1, 50))
def test_what_is_shown_of_a_body_is_short_and_on_one_line(text: str, limit: int) -> None:
    shown = brief(text, limit)
    assert len(shown) <= limit + 1
    assert "\n" not in shown
    shown.encode("utf-8")
