"""Faults of a server: those that pass, those that stay with one question, those of the endpoint."""

import time
from pathlib import Path

import pytest

import models.faulty_server as faulty
from domainfusion.errors import ModelError
from domainfusion.models import ResponseStore
from domainfusion.types import user
from models.faulty_server import FaultyServer, message, raw, status

from .api_calls import (
    PRICED,
    model_at,
    no_keys_around,  # noqa: F401
    questions,
    right_texts,
    texts,
)

# Faults that pass

PASSING = {
    "throttled": status(429),
    "throttled, with a wait": status(429, Retry_After="0.05"),
    "broken": status(500),
    "bad gateway": status(502),
    "busy, with a wait": status(503, Retry_After="0"),
    "no answer": faulty.hang,
    "byte by byte": faulty.drip,
    "hung up": faulty.hang_up,
    "cut off": faulty.cut_off,
    "malformed": raw(b'{"choices": ['),
    "no UTF-8": raw(b'{"choices": "\xff"}'),
    "not JSON": raw(b"<html>Bad gateway</html>", Content_Type="text/html"),
    "empty": raw(b""),
    "no choices": faulty.says({"choices": []}),
    "no text": message(content=None),
    "empty text": message(content=" "),
    "all of it is reasoning": message(content="", reasoning_content="Hm"),
    "not finished": message("abort", content="half"),
    "a stream that breaks off": raw(
        b'data: {"choices": [{"delta": {"content": "The"}}]}\n\n', Content_Type="text/event-stream"
    ),
    "error inside": faulty.says({"error": {"message": "overloaded"}}),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes_leaves_no_trace(fault: faulty.Behavior, tmp_path: Path) -> None:
    script = {"question 2": [fault], "question 5": [fault, fault], "question 7": [fault]}
    with FaultyServer(script) as server, ResponseStore(tmp_path / "s.sqlite") as store:
        # Only a server that never ends its answer is to run into the limit.
        is_endless = fault in (faulty.hang, faulty.drip)
        model = model_at(server, timeout_seconds=1 if is_endless else 20)
        assert texts(store.ask(model, questions(12))) == right_texts(12)
        assert server.asked == {
            f"question {n}": 1 + len(script.get(f"question {n}", ())) for n in range(12)
        }
        assert (model.usage.answers, model.usage.failed) == (12, 4)


def test_a_long_run_through_all_faults_at_once_ends_complete_and_right() -> None:
    faults = list(PASSING.values())
    script = {f"question {n}": [faults[n % len(faults)]] * (n % 3) for n in range(100)}
    with FaultyServer(script) as server:
        model = model_at(server, max_concurrency=16, timeout_seconds=2, max_failures_in_a_row=50)
        assert texts(model.generate(questions(100))) == right_texts(100)


# Faults that stay with one question

STAYING = {
    "bad request": (status(400, text="too many tokens"), "too many tokens"),
    "too large": (status(413), "HTTP 413"),
    "unprocessable": (status(422), "HTTP 422"),
    "10 MB of text": (faulty.huge, "longer than 10,000,000 bytes"),
}


@pytest.mark.parametrize(("fault", "told"), STAYING.values(), ids=STAYING.keys())
def test_a_question_that_can_not_be_answered_costs_no_other(
    fault: faulty.Behavior, told: str, tmp_path: Path
) -> None:
    with (
        FaultyServer({"question 4": [fault]}) as server,
        ResponseStore(tmp_path / "s.sqlite") as store,
    ):
        model = model_at(server)
        with pytest.raises(ModelError, match=told) as caught:
            store.ask(model, questions(12))
        assert caught.value.unanswered.keys() == {user("question 4")}
        assert "1 of 12" in str(caught.value)
        assert (len(store), server.asked["question 4"]) == (11, 1)
        assert texts(store.ask(model, questions(12))) == right_texts(12)
        assert len(server.exchanges) == 13


def test_a_fault_that_does_not_pass_is_told_after_the_last_attempt_and_costs_no_other(
    tmp_path: Path,
) -> None:
    with (
        FaultyServer({"question 4": [status(500, text="always me")] * 4}) as server,
        ResponseStore(tmp_path / "s.sqlite") as store,
    ):
        model = model_at(server, max_retries=3)
        with pytest.raises(ModelError, match="always me"):
            store.ask(model, questions(12))
        assert (len(store), server.asked["question 4"]) == (11, 4)
        assert texts(store.ask(model, questions(12))) == right_texts(12)


CONTEXT_ERRORS = [
    status(
        400,
        text=(
            "This model's maximum context length is 4096 tokens. However, you requested 5000"
            " tokens."
        ),
    ),
    status(500, text="the request exceeds the available context size (4096 tokens)"),
    status(400, text="prompt is too long: 5000 tokens > 4096 maximum"),
    faulty.says({"error": {"message": "maximum context length is 4096 tokens", "code": 400}}),
    faulty.says({"object": "error", "message": "maximum context length is 4096", "code": 40303}),
]


@pytest.mark.parametrize("fault", CONTEXT_ERRORS)
def test_a_prompt_that_does_not_fit_is_asked_once_and_the_window_is_named(
    fault: faulty.Behavior,
) -> None:
    with FaultyServer({"question 4": [fault]}) as server:
        with pytest.raises(ModelError, match="context window") as caught:
            model_at(server).generate(questions(12))
        assert "OLLAMA_CONTEXT_LENGTH" in str(caught.value) and "4096" in str(caught.value)
        assert server.asked["question 4"] == 1 and len(server.exchanges) == 12


def counted(prompt_tokens: int, cached: int = 0) -> faulty.Behavior:
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return faulty.says(faulty.completion({"role": "assistant", "content": "Filler."}, usage=usage))


LONG = "The password is PEAR. " + "Filler words go on. " * 3_000 + "What is the password?"


@pytest.mark.parametrize("long", [LONG, "密码是梨。" * 4_000], ids=["words", "characters"])
@pytest.mark.parametrize("window", [512, 2_050])
def test_a_prompt_that_the_server_cut_is_an_error_that_names_the_window(
    long: str, window: int, tmp_path: Path
) -> None:
    with (
        FaultyServer({long: [counted(window)] * 9}) as server,
        ResponseStore(tmp_path / "s.sqlite") as store,
    ):
        model = model_at(server, **PRICED)
        with pytest.raises(ModelError, match=f"read {window:,} tokens") as caught:
            store.ask(model, [*questions(3), user(long)])
        assert "OLLAMA_CONTEXT_LENGTH" in str(caught.value)
        assert server.asked[long] == 1 and len(store) == 3
        assert model.usage.cost == 3 * 15 + window + 5 and model.usage.unknown_cost == 0
        assert texts(model_at(server, check_prompt_tokens=False).generate([user(long)])) == [
            "Filler."
        ]


@pytest.mark.parametrize(
    "count", [counted(12_010), counted(15_000), counted(30), counted(0), counted(30, cached=30)]
)
def test_a_prompt_that_was_read_whole_or_from_a_cache_is_none(count: faulty.Behavior) -> None:
    with FaultyServer(default=count) as server:
        assert texts(model_at(server).generate([user(LONG)])) == ["Filler."]


MODERATED = {
    "OpenRouter": status(403, text="Your input was flagged by moderation"),
    "Azure": status(400, text="The response was filtered", error_code="content_filter"),
    "OpenAI": status(
        400,
        text="Invalid prompt: your prompt was flagged as potentially violating our usage policy",
    ),
    "DeepSeek": status(400, text="Content Exists Risk"),
    "DashScope": status(
        400,
        text="Input data may contain inappropriate content.",
        error_code="data_inspection_failed",
    ),
    "in a body of success": faulty.says(
        {"error": {"message": "Your input was flagged by moderation", "code": 403}}
    ),
}


@pytest.mark.parametrize("fault", MODERATED.values(), ids=MODERATED.keys())
def test_a_question_that_a_filter_holds_back_costs_no_other(fault: faulty.Behavior) -> None:
    with FaultyServer({f"question {n}": [fault] * 9 for n in range(12)}) as server:
        model = model_at(server, max_failures_in_a_row=2, max_concurrency=1)
        answers = model.generate(questions(14))
        assert [answer.finish_reason for answer in answers] == ["filtered"] * 12 + ["stop"] * 2
        assert len(server.exchanges) == 14 and model.usage.filtered == 12


@pytest.mark.parametrize(
    "text", ["Your account was flagged", "Unknown parameter: 'moderation'", "no"]
)
def test_what_is_not_about_the_question_is_not_taken_for_moderation(text: str) -> None:
    for code in (400, 403):
        with (
            FaultyServer(default=status(code, text=text)) as server,
            pytest.raises(ModelError, match=text),
        ):
            model_at(server).generate(questions(1))


def test_an_empty_answer_is_asked_again_and_then_a_gap_and_never_kept(tmp_path: Path) -> None:
    empty = message(content="", reasoning_content="Hm")
    script = {"question 1": [empty] * 9, "question 2": [empty] * 9, "question 3": [empty]}
    with FaultyServer(script) as server, ResponseStore(tmp_path / "s.sqlite") as store:
        model = model_at(server, **PRICED, max_concurrency=1, max_failures_in_a_row=3)
        with pytest.raises(
            ModelError, match=r"2 of 6 questions unanswered.*all of it is reasoning"
        ) as caught:
            store.ask(model, questions(6))
        assert set(caught.value.unanswered) == {user("question 1"), user("question 2")}
        assert (
            server.asked["question 1"] == server.asked["question 2"] == 3
            and server.asked["question 3"] == 2
        )
        assert len(store) == 4
        assert model.usage.cost == 15 * len(server.exchanges) and model.usage.unknown_cost == 0


def test_a_server_that_answers_nothing_but_empty_texts_is_given_up() -> None:
    with FaultyServer(default=message(content="")) as server:
        with pytest.raises(ModelError, match="given up"):
            model_at(server, max_concurrency=1, max_failures_in_a_row=3).generate(questions(50))
        assert len(server.exchanges) == 9


# Faults of the endpoint

FATAL = {
    "wrong key": (status(401, text="Incorrect API key"), "Incorrect API key"),
    "no credit": (status(402), "credit"),
    "forbidden": (status(403), "HTTP 403"),
    "no such model": (status(404, text="model teacher not found"), "model teacher not found"),
    "no quota": (
        status(429, text="You exceeded your quota", error_code="insufficient_quota"),
        "exceeded your quota",
    ),
    "a wait of a day": (status(429, Retry_After="86400"), "86,400 s"),
    "redirect": (
        status(307, Location="http://localhost:9/v1/chat/completions"),
        "redirect to http://localhost:9",
    ),
    "redirect to another scheme": (status(301, Location="https://127.0.0.1/v1"), "redirect"),
    "compressed": (raw(b"\x1f\x8b", Content_Encoding="gzip"), "encoded"),
}


@pytest.mark.parametrize(("fault", "told"), FATAL.values(), ids=FATAL.keys())
def test_an_endpoint_that_can_not_answer_is_asked_no_more(
    fault: faulty.Behavior, told: str, tmp_path: Path
) -> None:
    with (
        FaultyServer({"question 3": [fault]}) as server,
        ResponseStore(tmp_path / "s.sqlite") as store,
    ):
        model = model_at(server, max_concurrency=1)
        started = time.monotonic()
        with pytest.raises(ModelError, match=told) as caught:
            store.ask(model, questions(12))
        assert time.monotonic() - started < 2
        assert "3 of 12" in str(caught.value)
        assert set(caught.value.unanswered) == set(questions(12)[3:])
        assert (len(store), len(server.exchanges)) == (3, 4)
        if "wait" not in told and "86,400" not in told:
            assert texts(store.ask(model, questions(12))) == right_texts(12)
            assert len(server.exchanges) == 13


def test_a_wait_of_a_day_leaves_the_model_usable() -> None:
    with FaultyServer({"question 0": [status(429, Retry_After="86400")]}) as server:
        model = model_at(server, max_wait_seconds=0.1)
        with pytest.raises(ModelError):
            model.generate(questions(1))
        assert texts(model.generate(questions(1))) == right_texts(1)


def test_requests_in_flight_are_finished_and_kept_where_the_endpoint_is_given_up(
    tmp_path: Path,
) -> None:
    with (
        FaultyServer({"question 5": [status(401)]}, seconds=0.3) as server,
        ResponseStore(tmp_path / "s.sqlite") as store,
    ):
        with pytest.raises(ModelError):
            store.ask(model_at(server, max_concurrency=6), questions(50))
        assert len(store) == 5 == sum(server.answered.values())
        assert len(server.exchanges) == 6


def test_a_redirect_is_not_followed() -> None:
    with (
        FaultyServer() as other,
        FaultyServer(default=status(307, Location=f"{other.url}/chat/completions")) as server,
    ):
        with pytest.raises(ModelError, match="redirect"):
            model_at(server).generate(questions(3))
        assert other.exchanges == []


@pytest.mark.parametrize(
    "fault", [status(500), faulty.hang_up, raw(b"no"), status(429), status(400)]
)
@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_run_of_failures_ends_soon(fault: faulty.Behavior, concurrency: int) -> None:
    with FaultyServer(default=fault) as server:
        with pytest.raises(ModelError, match="5 failures in a row"):
            model_at(server, max_concurrency=concurrency, max_failures_in_a_row=5).generate(
                questions(500)
            )
        assert 5 <= len(server.exchanges) <= 2 * concurrency + 5


def test_no_server_at_all_is_a_clear_error() -> None:
    with FaultyServer() as server:
        model = model_at(server, max_failures_in_a_row=3)
    with pytest.raises(ModelError, match="connection failed") as caught:
        model.generate(questions(3))
    assert "127.0.0.1" in str(caught.value)
    assert model.usage.unknown_cost == 0


def test_a_server_that_comes_back_is_asked_on() -> None:
    script = {f"question {n}": [faulty.hang_up] * 2 for n in range(30)}
    with FaultyServer(script) as server:
        model = model_at(server, max_concurrency=30, max_failures_in_a_row=100)
        assert texts(model.generate(questions(60))) == right_texts(60)


def test_the_wait_that_a_server_asks_for_holds_for_all() -> None:
    with FaultyServer({"question 0": [status(429, Retry_After="0.4")]}) as server:
        model_at(server, max_concurrency=1).generate(questions(5))
        first, *others = sorted(time for times in server.times.values() for time in times)
    assert min(others) - first >= 0.4
