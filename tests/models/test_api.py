"""Laws of models behind an API, on a server that fails on command: complete and right, or a clear
error and all that was finished.
"""

import asyncio
import base64
import json
import logging
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import models.faulty_server as faulty
from domainfusion.errors import ConfigurationError, ModelError, StoreError
from domainfusion.models import APIModel, LanguageModel, ResponseStore, TrainableModel
from domainfusion.models.api import limits
from domainfusion.models.api.endpoint import Key
from domainfusion.models.base import SAMPLE_STRIDE, SchemaModel
from domainfusion.types import Conversation, Generation, Message, Sampling, user
from models.api_settings import api_model
from models.faulty_server import FaultyServer, answer_to, message, raw, status

KEY = "sk-test-0123456789abcdefghijklmnop"

PRICED = {"price_per_million_input_tokens": 1e6, "price_per_million_output_tokens": 1e6}
"""A unit of money a token; the server counts 15 an answer."""


@pytest.fixture(autouse=True)
def no_keys_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_ADMIN_KEY",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "OPENAI_BASE_URL",
        "OPENAI_CUSTOM_HEADERS",
    ):
        monkeypatch.delenv(name, raising=False)


def questions(count: int) -> list[Conversation]:
    return [user(f"question {number}") for number in range(count)]


def model_at(server: FaultyServer, **settings: Any) -> APIModel:
    return api_model(
        "teacher",
        base_url=server.url,
        **{"backoff_seconds": 0.001, "timeout_seconds": 5.0, **settings},
    )


def texts(generations: Sequence[Generation]) -> list[str]:
    return [generation.text for generation in generations]


def right_texts(count: int) -> list[str]:
    return [answer_to(f"question {number}") for number in range(count)]


# What it is


def test_it_is_a_language_model_and_can_not_be_trained() -> None:
    model = APIModel("m", base_url="http://localhost/v1")
    assert isinstance(model, LanguageModel)
    assert not isinstance(model, TrainableModel)


def test_answers_come_in_the_order_of_the_questions_whatever_the_order_in_which_they_arrive() -> (
    None
):
    def late(exchange: faulty.Exchange) -> None:
        time.sleep(0.2 - 0.02 * int(exchange.question.split()[-1]))
        faulty.right(exchange)

    with FaultyServer(default=late) as server:
        arrived: list[int] = []
        answers = model_at(server).generate(
            questions(8), on_result=lambda index, _: arrived.append(index)
        )
    assert texts(answers) == right_texts(8)
    assert sorted(arrived) == list(range(8)) and arrived != list(range(8))


def test_each_answer_is_reported_once_in_the_thread_that_asked() -> None:
    seen: dict[int, Generation] = {}

    def take(index: int, generation: Generation) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert index not in seen
        seen[index] = generation

    with FaultyServer() as server:
        answers = model_at(server).generate(questions(20), on_result=take)
    assert [seen[index] for index in range(20)] == answers


def test_it_can_be_asked_where_an_event_loop_runs() -> None:
    async def notebook(server: FaultyServer) -> list[Generation]:
        return model_at(server).generate(questions(3))

    with FaultyServer() as server:
        assert texts(asyncio.run(notebook(server))) == right_texts(3)


def test_nothing_to_ask_is_nothing_sent() -> None:
    with FaultyServer() as server:
        assert model_at(server).generate([]) == []
        assert server.exchanges == []


def test_one_question_can_be_asked_by_itself() -> None:
    with FaultyServer() as server:
        assert model_at(server).ask("Why?") == answer_to("Why?")


# What is sent


def body_of(
    conversation: Conversation = user("Why?"), sampling: Sampling = Sampling(), **settings: Any
) -> dict[str, Any]:
    with FaultyServer() as server:
        model_at(server, **settings).generate([conversation], sampling)
        return server.exchanges[0].body


def test_a_greedy_question_carries_what_it_needs_and_no_more() -> None:
    assert body_of(sampling=Sampling(max_new_tokens=7)) == {
        "model": "teacher",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 7,
        "stream": False,
        "temperature": 0,
    }


def test_samples_of_one_question_have_seeds_of_their_own() -> None:
    with FaultyServer() as server:
        model_at(server, max_concurrency=1).generate(
            [user("a"), user("a"), user("b")], Sampling(temperature=0.7, top_p=0.9, seed=3)
        )
        bodies = [exchange.body for exchange in server.exchanges]
    assert [body["seed"] for body in bodies] == [3, 3 + SAMPLE_STRIDE, 3]
    assert {(body["temperature"], body["top_p"]) for body in bodies} == {(0.7, 0.9)}


def test_the_system_prompt_is_put_before_conversations_without_one() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert body_of(system_prompt="Be brief.")["messages"][0] == system
    own = (Message("system", "Be long."), Message("user", "Why?"))
    assert body_of(own, system_prompt="Be brief.")["messages"] == [
        {"role": "system", "content": "Be long."},
        {"role": "user", "content": "Why?"},
    ]


def test_fields_can_be_left_out_and_added() -> None:
    warm = Sampling(temperature=0.5, top_p=0.5, seed=1)
    body = body_of(
        sampling=warm,
        omit=("temperature", "seed"),
        extra_body={"reasoning_effort": "low", "seed": "own"},
    )
    assert "temperature" not in body
    assert (body["seed"], body["reasoning_effort"], body["top_p"]) == ("own", "low", 0.5)


@pytest.mark.parametrize(
    "extra",
    [
        {"model": "x"},
        {"messages": []},
        {"stream": True},
        {"n": 3},
        {"temperature": 1},
        {"max_tokens": 3},
    ],
)
def test_a_field_that_follows_from_elsewhere_is_not_overridden_in_silence(
    extra: dict[str, Any],
) -> None:
    with pytest.raises(ConfigurationError, match="extra_body"):
        api_model("m", base_url="http://localhost/v1", extra_body=extra)


def test_a_server_that_calls_the_limit_otherwise_is_asked_in_its_words() -> None:
    def picky(exchange: faulty.Exchange) -> None:
        refusal = status(
            400, text="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        )
        (refusal if "max_tokens" in exchange.body else faulty.right)(exchange)

    with FaultyServer(default=picky) as server:
        model = model_at(server, max_retries=0, max_failures_in_a_row=1)
        assert texts(model.generate(questions(20))) == right_texts(20)
        before = len(server.exchanges)
        model.generate(questions(5))
        assert len(server.exchanges) == before + 5
        assert server.exchanges[-1].body["max_completion_tokens"] == 256


REFUSED = {
    "temperature": (
        "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default"
        " (1) value is supported."
    ),
    "top_p": "Unsupported parameter: 'top_p' is not supported with this model.",
    "seed": "Unrecognized request argument supplied: seed",
    "stream": "Unknown field: stream",
    "system": "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_is_refused_is_left_out_and_told_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def has(body: dict[str, Any]) -> bool:
        return body["messages"][0]["role"] == "system" if name == "system" else name in body

    def picky(exchange: faulty.Exchange) -> None:
        (status(400, text=REFUSED[name]) if has(exchange.body) else faulty.right)(exchange)

    warm = Sampling(temperature=0.5, top_p=0.5)
    with FaultyServer(default=picky) as server:
        model = model_at(server, system_prompt="Be brief.", max_retries=0, max_failures_in_a_row=1)
        assert len(model.generate(questions(20), warm)) == 20
        before = len(server.exchanges)
        model.generate(questions(5), warm)
        assert len(server.exchanges) == before + 5
        first_message = server.exchanges[-1].body["messages"][0]["content"]
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(said) == 1 and f"omit=('{name}',)" in said[0]
        told = model_at(server, system_prompt="Be brief.", omit=(name,), max_retries=0)
        assert len(told.generate(questions(5), warm)) == 5
        assert len(server.exchanges) == before + 10
    assert "Be brief." in first_message  # also where it is no message of its own


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        (
            422,
            {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "seed"],
                        "msg": "Extra inputs are not permitted",
                        "input": 0,
                    }
                ]
            },
        ),
        (
            400,
            {
                "error": {
                    "message": "This parameter is not supported",
                    "param": "seed",
                    "code": "unsupported_parameter",
                }
            },
        ),
        (500, {"error": {"code": 500, "message": "Unknown argument: seed"}}),
        (200, {"error": {"code": 400, "message": "seed: unknown field"}}),
        (400, {"error": "Additional properties are not allowed ('seed' was unexpected)"}),
        (
            422,
            {
                "message": {
                    "detail": [
                        {
                            "type": "extra_forbidden",
                            "loc": ["body", "seed"],
                            "msg": "Extra inputs are not permitted",
                        }
                    ]
                }
            },
        ),
        (
            400,
            {
                "error": {
                    "message": (
                        'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
                    )
                }
            },
        ),
    ],
)
def test_a_refusal_is_understood_in_any_form(code: int, payload: object) -> None:
    def picky(exchange: faulty.Exchange) -> None:
        exchange.send_json(payload, code) if "seed" in exchange.body else faulty.right(exchange)

    with FaultyServer(default=picky) as server:
        model = model_at(server, max_retries=0, max_failures_in_a_row=1)
        assert len(model.generate(questions(3), Sampling(temperature=0.5))) == 3


@pytest.mark.parametrize(
    "text",
    [
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "System role not supported",
        "roles: unknown 'system'",
        "Only user and assistant roles are supported!",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
    ],
)
def test_a_template_without_a_system_message_gets_it_in_the_question(text: str) -> None:
    def gemma(exchange: faulty.Exchange) -> None:
        is_system = exchange.body["messages"][0]["role"] == "system"
        (status(500, text=text) if is_system else faulty.right)(exchange)

    with FaultyServer(default=gemma) as server:
        model_at(server, system_prompt="Be brief.", max_retries=0).generate([user("Why?")])
        assert server.exchanges[-1].body["messages"] == [
            {"role": "user", "content": "Be brief.\n\nWhy?"}
        ]


def test_of_two_fields_that_exclude_each_other_the_temperature_stays() -> None:
    def picky(exchange: faulty.Exchange) -> None:
        both = {"temperature", "top_p"} <= exchange.body.keys()
        (
            status(400, text="`temperature` and `top_p` cannot both be specified for this model.")
            if both
            else faulty.right
        )(exchange)

    with FaultyServer(default=picky) as server:
        model_at(server, max_retries=0).generate(questions(1), Sampling(temperature=0.5, top_p=0.5))
        assert (
            "temperature" in server.exchanges[-1].body and "top_p" not in server.exchanges[-1].body
        )


def test_a_server_that_refuses_both_names_of_the_limit_is_told_so_and_not_asked_forever() -> None:
    def picky(exchange: faulty.Exchange) -> None:
        name = "max_tokens" if "max_tokens" in exchange.body else "max_completion_tokens"
        status(400, text=f"Unknown parameter: '{name}'")(exchange)

    with FaultyServer(default=picky) as server:
        with pytest.raises(ModelError, match="Unknown parameter"):
            model_at(server, max_retries=0).generate(questions(1))
        assert len(server.exchanges) == 2


def test_a_field_of_the_users_own_is_named_and_not_left_out() -> None:
    with FaultyServer(default=status(400, text="Unknown parameter: 'top_k'")) as server:
        with pytest.raises(ModelError, match="'top_k' in extra_body"):
            model_at(server, extra_body={"top_k": 3}).generate(questions(1))
        assert len(server.exchanges) == 1


def test_a_limit_that_is_too_large_is_told() -> None:
    with FaultyServer(default=status(400, text="max_tokens must be at most 4096")) as server:
        with pytest.raises(ModelError, match="lower max_new_tokens"):
            model_at(server).generate(questions(1))
        assert len(server.exchanges) == 1


def test_half_a_character_in_a_question_does_not_stop_the_run() -> None:
    assert body_of(user("a\ud800b"))["messages"][0]["content"] == "a\N{REPLACEMENT CHARACTER}b"


SCHEMA = {
    "title": "city",
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


def test_structured_output_is_asked_for_in_the_servers_form() -> None:
    wanted = body_of(json_schema=SCHEMA)["response_format"]
    assert wanted == {
        "type": "json_schema",
        "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
    }


def test_a_model_held_to_a_schema_is_another_one_and_shares_what_was_spent() -> None:
    with FaultyServer() as server:
        model, born = (
            model_at(server, system_prompt="Be brief."),
            model_at(server, system_prompt="Be brief.", json_schema=SCHEMA),
        )
        held = model.with_json_schema(SCHEMA)
        assert isinstance(model, SchemaModel)
        assert held.fingerprint == born.fingerprint != model.fingerprint
        held.generate([user("Why?")])
        model.generate([user("Why?")])
        assert [
            exchange.body.get("response_format") is not None for exchange in server.exchanges
        ] == [True, False]
        assert server.exchanges[0].body["messages"][0]["content"] == "Be brief."
        assert model.usage == held.usage
        assert model.usage.answers == 2


def test_a_server_without_structured_output_is_asked_in_words() -> None:
    def plain(exchange: faulty.Exchange) -> None:
        refusal = status(400, text="'response_format' of type 'json_schema' is not supported")
        (refusal if "response_format" in exchange.body else faulty.right)(exchange)

    with FaultyServer(default=plain) as server:
        model = model_at(
            server, json_schema=SCHEMA, system_prompt="Be brief.", max_failures_in_a_row=1
        )
        assert texts(model.generate(questions(20))) == right_texts(20)
        before = len(server.exchanges)
        model.generate(questions(5))
        assert len(server.exchanges) == before + 5
        system = server.exchanges[-1].body["messages"][0]["content"]
    assert system.startswith("Be brief.") and '"required": ["city"]' in system


def test_another_complaint_does_not_cost_the_structure() -> None:
    with FaultyServer({"question 0": [status(400, text="too long")]}) as server:
        model = model_at(server, json_schema=SCHEMA, max_concurrency=1)
        with pytest.raises(ModelError, match="too long"):
            model.generate(questions(2))
        assert "response_format" in server.exchanges[-1].body


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
        model = model_at(server, timeout_seconds=0.3)
        assert texts(store.ask(model, questions(12))) == right_texts(12)
        assert server.asked == {
            f"question {n}": 1 + len(script.get(f"question {n}", ())) for n in range(12)
        }
        assert (model.usage.answers, model.usage.failed) == (12, 4)


def test_a_long_run_through_all_faults_at_once_ends_complete_and_right() -> None:
    faults = list(PASSING.values())
    script = {f"question {n}": [faults[n % len(faults)]] * (n % 3) for n in range(100)}
    with FaultyServer(script) as server:
        model = model_at(server, max_concurrency=16, timeout_seconds=0.3, max_failures_in_a_row=50)
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


# Limits


@pytest.mark.parametrize("most", [1, 3, 8])
def test_no_more_requests_are_in_flight_than_allowed(most: int) -> None:
    with FaultyServer(seconds=0.02) as server:
        model_at(server, max_concurrency=most).generate(questions(30))
        assert server.most_in_flight == most


def test_sixty_four_requests_in_flight_take_little_longer_than_the_server() -> None:
    with FaultyServer(seconds=0.5, slots=64) as server:
        model = model_at(server, max_concurrency=64)
        started = time.monotonic()
        assert texts(model.generate(questions(128))) == right_texts(128)
        seconds = time.monotonic() - started
        assert server.most_in_flight == 64
    assert (
        seconds < 3 * 1.0
        # two rounds of half a second are the server's own limit; server and client may share one core
        # here
    )


def test_the_server_sees_no_more_requests_in_a_minute_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WINDOW_SECONDS", 0.4)
    with FaultyServer() as server:
        started = time.monotonic()
        model_at(server, requests_per_minute=5).generate(questions(14))
        assert 0.8 <= time.monotonic() - started < 2.5
        times = sorted(exchange.started for exchange in server.exchanges)
    assert all(later - earlier >= 0.3 for earlier, later in zip(times, times[5:], strict=False))


def test_no_more_answers_are_on_their_way_than_requests_may_be_in_flight() -> None:
    """What is asked and not kept yet is what a crash would cost."""
    kept = 0

    def keep(index: int, generation: Generation) -> None:
        nonlocal kept
        time.sleep(0.02)
        assert len(server.exchanges) - kept <= 4
        kept += 1

    with FaultyServer() as server:
        model_at(server, max_concurrency=4).generate(questions(30), on_result=keep)
    assert kept == 30


# Stopping


def test_an_interruption_keeps_what_has_arrived_and_ends_at_once(tmp_path: Path) -> None:
    class Impatient(ResponseStore):
        def _write(self, *arguments: Any) -> Any:
            if len(self) == 5:
                raise KeyboardInterrupt
            return super()._write(*arguments)

    with FaultyServer({f"question {n}": [faulty.hang] for n in range(6, 20)}) as server:
        with Impatient(tmp_path / "s.sqlite") as store, pytest.raises(KeyboardInterrupt):
            started = time.monotonic()
            store.ask(model_at(server, max_concurrency=1), questions(20))
        assert time.monotonic() - started < 3
        assert not [thread for thread in threading.enumerate() if thread.name == "domainfusion-api"]
        assert sum(server.asked.values()) <= 7
    with FaultyServer() as server, ResponseStore(tmp_path / "s.sqlite") as kept:
        assert len(kept) == 5


def test_answers_that_wait_to_be_kept_are_kept_where_the_run_is_interrupted() -> None:
    kept: list[int] = []

    def keep(index: int, generation: Generation) -> None:
        if not kept:
            while sum(server.answered.values()) < 4:
                time.sleep(0.01)
            time.sleep(0.3)  # the other three arrive
            kept.append(-1)
            raise KeyboardInterrupt
        kept.append(index)

    with FaultyServer() as server:
        with pytest.raises(KeyboardInterrupt):
            model_at(server, max_concurrency=4).generate(questions(50), on_result=keep)
        assert len(kept) == 4 == len(server.exchanges)


def test_an_answer_that_can_not_be_kept_stops_the_asking() -> None:
    def full(index: int, generation: Generation) -> None:
        raise StoreError("the disk is full")

    with FaultyServer() as server:
        with pytest.raises(StoreError, match="the disk is full"):
            model_at(server, max_concurrency=2).generate(questions(50), on_result=full)
        assert len(server.exchanges) <= 3


# Money


def test_usage_is_what_the_server_counted() -> None:
    with FaultyServer({"question 1": [status(500)]}) as server:
        model = model_at(server, **PRICED, max_retries=1)
        model.generate(questions(4))
        usage = model.usage
    assert (usage.requests, usage.failed, usage.answers) == (5, 1, 4)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cost, usage.unknown_cost) == (
        40,
        20,
        60.0,
        0,
    )


def test_an_estimate_sends_nothing_and_is_no_less_than_what_comes() -> None:
    with FaultyServer() as server:
        model = model_at(server, **PRICED)
        estimate = model.estimate(questions(4), Sampling(max_new_tokens=5))
        assert server.exchanges == []
        model.generate(questions(4), Sampling(max_new_tokens=5))
    assert estimate.cost is not None and model.usage.cost is not None
    assert (
        estimate.requests == 4 and estimate.max_completion_tokens == model.usage.completion_tokens
    )
    with_prompt = APIModel(
        "m", base_url="http://localhost/v1", system_prompt="Be brief. " * 50
    ).estimate(questions(4))
    assert with_prompt.prompt_tokens > estimate.prompt_tokens + 4 * 100


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_run_stops_before_it_costs_too_much_and_keeps_what_it_paid_for(
    concurrency: int, tmp_path: Path
) -> None:
    sampling = Sampling(max_new_tokens=5)
    with FaultyServer(seconds=0.02) as server, ResponseStore(tmp_path / "s.sqlite") as store:
        model = model_at(server, **PRICED, max_cost=200, max_concurrency=concurrency)
        with pytest.raises(ModelError, match="max_cost") as caught:
            store.ask(model, questions(100), sampling)
        assert model.usage.cost is not None and 200 - 30 < model.usage.cost <= 200
        assert len(store) == model.usage.answers == len(server.exchanges) == model.usage.cost / 15
        assert len(caught.value.unanswered) == 100 - len(store)
        kept = len(store)
        assert texts(
            store.ask(model_at(server, **PRICED, max_cost=5_000), questions(100), sampling)
        ) == right_texts(100)
        assert len(server.exchanges) == 100
        assert store.reused == kept


def test_a_lost_answer_may_have_been_charged() -> None:
    with FaultyServer({"question 0": [faulty.hang]}) as server:
        model = model_at(server, **PRICED, max_cost=1_000, timeout_seconds=0.3)
        model.generate(questions(1), Sampling(max_new_tokens=5))
        assert model.usage.cost == 15 and 5 < model.usage.unknown_cost < 40


# Refusals, reasoning


def test_refused_and_filtered_answers_are_answers_and_are_counted() -> None:
    script = {
        "question 0": [message(content=None, refusal="I can't help.")],
        "question 1": [message("content_filter", content="It is")],
        "question 2": [status(400, text="The response was filtered", error_code="content_filter")],
    }
    with FaultyServer(script) as server:
        model = model_at(server)
        answers = model.generate(questions(4))
    assert [answer.finish_reason for answer in answers] == [
        "refused",
        "filtered",
        "filtered",
        "stop",
    ]
    assert (model.usage.refused, model.usage.filtered, model.usage.failed) == (1, 2, 0)


def test_reasoning_is_kept_in_the_store_and_out_of_the_text(tmp_path: Path) -> None:
    with FaultyServer(default=message(content="<think>2 and 2</think>4")) as server:
        for _ in range(2):
            with ResponseStore(tmp_path / "s.sqlite") as store:
                [answer] = store.ask(model_at(server), questions(1))
                assert (answer.text, answer.reasoning) == ("4", "2 and 2")
        assert len(server.exchanges) == 1
        [whole] = model_at(server, include_reasoning=True).generate(questions(1))
        assert whole.text == "<think>\n2 and 2\n</think>\n\n4"


# The key


def everything_about(error: BaseException) -> str:
    """Returns all that a traceback, a log or a debugger would show of an error."""
    shown = ["".join(traceback.format_exception(error)), repr(error), str(vars(error))]
    for chained in (error.__cause__, error.__context__):
        if chained is not None:
            shown.append(everything_about(chained))
    return "\n".join(shown)


ECHOES = {
    "401": faulty.echo_headers(401),
    "400": faulty.echo_headers(400),
    "500": faulty.echo_headers(500),
    "plain text": status(401, text=KEY),
    "at the cut": raw((" ".join("x" * 135) + KEY).encode(), Content_Type="text/html"),
    "bad JSON": raw(b'{"' + KEY.encode()),
    "wrong type": raw(b"{}", Content_Type=KEY),
    "redirect": status(302, Location=f"http://localhost/?key={KEY}"),
    "an error inside": faulty.says({"error": KEY}),
    "an end that is not known": message(KEY, content="a"),
    "escaped, cut JSON": raw(
        b'{"' + "".join(f"\\u{ord(character):04x}" for character in KEY).encode()
    ),
    "escaped, an error": raw(
        b'{"error": "' + "".join(f"\\u{ord(character):04X}" for character in KEY).encode() + b'"}'
    ),
    "base64": status(401, text=base64.b64encode(f"user:{KEY}".encode()).decode()),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_a_key_that_the_server_echoes_is_not_shown(
    echo: faulty.Behavior,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with FaultyServer(default=echo) as server, ResponseStore(tmp_path / "s.sqlite") as store:
        model = model_at(server, api_key_env="TEACHER_KEY", max_failures_in_a_row=2)
        with pytest.raises(ModelError) as caught:
            store.ask(model, questions(3))
        assert server.exchanges[0].headers["authorization"] == f"Bearer {KEY}"
    shown = (
        everything_about(caught.value)
        + caplog.text
        + repr(model)
        + repr(vars(model))
        + str(caught.value.unanswered)
    )
    assert KEY[:12] not in shown
    assert not [path for path in tmp_path.iterdir() if KEY.encode() in path.read_bytes()]


SLASHED = "sk-test/0123456789+abcdef\\ghijkl"
"""A key whose characters JSON, URLs and HTML escape."""


def in_json(text: str, escape: Callable[[str], str]) -> bytes:
    """Returns a completion with this text in it, in which every character is escaped."""
    body = json.dumps(
        faulty.completion(
            {"role": "assistant", "content": "CONTENT", "reasoning_content": "CONTENT"}
        )
    )
    return body.replace("CONTENT", "".join(map(escape, text))).encode()


def in_pieces(text: str) -> bytes:
    chunks = [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in text]
    lines = [
        f"data: {json.dumps(chunk)}\n\n"
        for chunk in (*chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
    ]
    return "".join(lines).encode()


ECHOES_IN_ANSWERS = {
    "plain": lambda key: in_json(key, lambda character: json.dumps(character)[1:-1]),
    "slashes": lambda key: in_json(
        key, lambda character: {"/": "\\/", "\\": "\\\\"}.get(character, character)
    ),
    "code points": lambda key: in_json(key, lambda character: f"\\u{ord(character):04x}"),
    "in parts": lambda key: json.dumps(faulty.completion({"content": list(key)})).encode(),
    "in pieces of a stream": in_pieces,
    "JSON in JSON": (
        lambda key: json.dumps(
            faulty.completion({"content": json.dumps({"key": key}).replace("/", "\\/")})
        ).encode()
    ),
    "in a URL": (
        lambda key: json.dumps(
            faulty.completion({"content": "".join(f"%{ord(c):02X}" for c in key)})
        ).encode()
    ),
    "in HTML": (
        lambda key: json.dumps(
            faulty.completion({"content": "".join(f"&#{ord(c)};" for c in key)})
        ).encode()
    ),
    "hexadecimal": (
        lambda key: json.dumps(faulty.completion({"content": key.encode().hex()})).encode()
    ),
    "base64": (
        lambda key: json.dumps(
            faulty.completion({"content": base64.b64encode(key.encode()).decode()})
        ).encode()
    ),
    "base64, with a name": lambda key: in_json(
        base64.b64encode(f"me:{key}!".encode()).decode(), str
    ),
}


@pytest.mark.parametrize("key", [KEY, SLASHED])
@pytest.mark.parametrize("echo", ECHOES_IN_ANSWERS.values(), ids=ECHOES_IN_ANSWERS.keys())
def test_a_key_in_an_answer_reaches_no_file(
    echo: Callable[[str], bytes], key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEACHER_KEY", key)
    with FaultyServer(default=raw(echo(key))) as server:
        with ResponseStore(tmp_path / "s.sqlite") as store:
            [answer] = store.ask(model_at(server, api_key_env="TEACHER_KEY"), questions(1))
        assert "***" in answer.text
        for path in tmp_path.iterdir():
            held = path.read_bytes()
            secrets = (
                key,
                key.encode().hex(),
                json.dumps(key)[1:-1],
                base64.b64encode(key.encode()).decode()[:20],
            )
            assert not [secret for secret in secrets if secret.encode() in held]


def test_no_text_makes_hiding_a_key_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    started = time.monotonic()
    for text in ("\\" * 50_000, "%25" * 20_000, KEY[:-1] * 2_000, "&#0" * 20_000):
        assert Key("TEACHER_KEY").hide(text) == text
    assert time.monotonic() - started < 5


def test_a_placeholder_for_a_key_does_not_change_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "ollama")
    with FaultyServer(default=message(content="Install ollama.")) as server:
        assert texts(model_at(server, api_key_env="TEACHER_KEY").generate(questions(1))) == [
            "Install ollama."
        ]


def test_the_key_is_held_nowhere_and_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    for key in (KEY, KEY[::-1]):
        monkeypatch.setenv("TEACHER_KEY", key)
        models.append(APIModel("m", base_url="https://example.com/v1", api_key_env="TEACHER_KEY"))
        assert key not in repr(vars(models[-1])) + repr(models[-1])
    assert models[0].fingerprint == models[1].fingerprint


def test_a_key_that_is_changed_counts_from_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as server:
        monkeypatch.setenv("TEACHER_KEY", "first")
        model = model_at(server, api_key_env="TEACHER_KEY")
        monkeypatch.setenv("TEACHER_KEY", "second")
        model.generate(questions(1))
        assert server.exchanges[0].headers["authorization"] == "Bearer second"


def test_another_host_gets_nothing_that_was_meant_for_openai(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "X-Private: header-secret\nAuthorization: Bearer other-secret"
    )
    with FaultyServer() as server:
        model_at(server).generate(questions(1))
        headers = server.exchanges[0].headers
    assert set(headers) <= {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
    }
    assert "secret" not in str(headers) and KEY not in str(headers)


def test_a_proxy_is_no_way_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as proxy, FaultyServer() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        assert texts(model_at(server).generate(questions(1))) == right_texts(1)
        assert proxy.exchanges == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_learns_no_key_by_itself_and_its_password_is_not_shown(
    scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with FaultyServer(default=faulty.echo_headers(407)) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(
                name, proxy.url.removesuffix("/v1").replace("//", "//me:a-long-password@")
            )
        settings: dict[str, Any] = {
            "allow_insecure_http": True,
            "api_key_env": "TEACHER_KEY",
            "max_retries": 0,
        }
        model = api_model("m", base_url=f"{scheme}://models.example.com/v1", **settings)
        with pytest.raises(ModelError) as caught:
            model.generate(questions(1))
    shown = everything_about(caught.value) + caplog.text
    assert not [
        secret
        for secret in (KEY, "a-long-password", base64.b64encode(b"me:a-long-password").decode())
        if secret in shown
    ]


@pytest.mark.parametrize(
    "proxy", ["ftp://me:a-long-password@127.0.0.1:9", "http://me:a-long-password@127.0.0.1:port"]
)
def test_a_proxy_that_is_none_is_a_clear_error_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
        APIModel("m", base_url="https://models.example.com/v1").generate(questions(1))
    assert "a-long-password" not in str(caught.value) + repr(caught.value.__cause__)


def test_a_key_that_is_not_set_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        APIModel("gpt-5-mini")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert APIModel("gpt-5-mini").base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize("key", ["schlüssel-0123456789", "one\ntwo: three", "a\x00b"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domainfusion.models.api.endpoint.os.environ", {"TEACHER_KEY": key})
    with pytest.raises(ConfigurationError, match="TEACHER_KEY") as caught:
        APIModel("m", base_url="http://localhost/v1", api_key_env="TEACHER_KEY")
    assert key not in everything_about(caught.value)


def test_a_server_that_wants_a_key_says_how_to_give_one() -> None:
    with (
        FaultyServer(default=status(401)) as server,
        pytest.raises(ModelError, match="api_key_env"),
    ):
        model_at(server).generate(questions(1))


# Where it may go


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1/v1",
        "http://127.0.0.1/v1",
        "http://127.9.9.9/v1",
        "http://[::1]:8080/v1",
        "https://example.com/v1/",
    ],
)
def test_addresses_that_are_safe(url: str) -> None:
    assert APIModel("m", base_url=url).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/v1",
        "http://10.0.0.1/v1",
        "http://localhost.example.com/v1",
        "http://0.0.0.0/v1",
    ],
)
def test_plain_http_to_another_machine_needs_a_word(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allow_insecure_http"):
        APIModel("m", base_url=url)
    assert APIModel("m", base_url=url, allow_insecure_http=True).base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "ftp://localhost/v1",
        "file:///etc/passwd",
        "https://",
        "https://host:99999/v1",
        "https://[::1/v1",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        APIModel("m", base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{KEY}@host/v1",
        f"https://{KEY}@host/v1",
        f"https://host/v1?key={KEY}",
        f"https://host/v1#{KEY}",
    ],
)
def test_a_secret_in_the_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        APIModel("m", base_url=url)
    assert KEY not in everything_about(caught.value)


def test_an_address_of_one_call_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave out"):
        APIModel("m", base_url="http://localhost/v1/chat/completions")


# Settings


@pytest.mark.parametrize(
    "setting",
    [
        {"max_concurrency": 0},
        {"requests_per_minute": 0},
        {"tokens_per_minute": -1},
        {"timeout_seconds": 0},
        {"timeout_seconds": float("nan")},
        {"max_retries": -1},
        {"max_failures_in_a_row": 0},
        {"max_wait_seconds": -1},
        {"backoff_seconds": 0},
        {"price_per_million_input_tokens": 1.0},
        {"price_per_million_cached_tokens": 1.0},
        {"price_per_million_input_tokens": -1.0, "price_per_million_output_tokens": 1.0},
        {"max_cost": 1.0},
        {**PRICED, "max_cost": 0},
        {"omit": ("model",)},
        {"omit": "seed"},
        {"model": " "},
    ],
)
def test_a_setting_that_can_not_be_right_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        api_model(**{"model": "m", "base_url": "http://localhost/v1", **setting})


def test_the_fingerprint_changes_with_what_may_change_the_answers_and_with_nothing_else() -> None:
    def fingerprint(**settings: Any) -> str:
        return api_model(
            **{"model": "m", "base_url": "http://localhost/v1", **settings}
        ).fingerprint

    different: list[dict[str, Any]] = [
        {},
        {"model": "n"},
        {"base_url": "http://localhost/v2"},
        {"system_prompt": "Be brief."},
        {"json_schema": SCHEMA},
        {"include_reasoning": True},
        {"omit": ("temperature",)},
        {"extra_body": {"reasoning_effort": "low"}},
    ]
    assert len({fingerprint(**settings) for settings in different}) == len(different)
    same: list[dict[str, Any]] = [
        {"base_url": "http://localhost/v1/"},
        {"name": "other"},
        {"max_concurrency": 3, "requests_per_minute": 5, "timeout_seconds": 7},
        {**PRICED, "max_cost": 3},
    ]
    assert {fingerprint(**settings) for settings in same} == {fingerprint()}


def test_without_the_client_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['openai'] = None; from domainfusion.models import ScriptedModel;"
        " print('so far'); "
    )
    code += "from domainfusion.models import APIModel"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "so far\n"
    assert 'pip install "domainfusion[api]"' in done.stderr
    assert "MissingDependencyError" in done.stderr


def test_the_client_is_loaded_for_those_alone_who_use_it() -> None:
    code = (
        "import sys, domainfusion.models; assert 'openai' not in sys.modules and 'torch' not in"
        " sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
