"""Laws of models behind an API, on a server that fails on command: complete and right, or a clear
error and all that was finished.
"""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import models.faulty_server as faulty
from domainfusion.errors import ConfigurationError, ModelError, StoreError
from domainfusion.models import APIModel, LanguageModel, ResponseStore, TrainableModel
from domainfusion.models.api import limits
from domainfusion.models.base import SAMPLE_STRIDE, SchemaModel
from domainfusion.types import Conversation, Generation, Message, Sampling, user
from models.api_settings import api_model
from models.faulty_server import FaultyServer, answer_to, message, status

from .api_calls import (
    PRICED,
    model_at,
    no_keys_around,  # noqa: F401
    questions,
    right_texts,
    texts,
)

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


# Limits


@pytest.mark.parametrize("most", [1, 3, 8])
def test_no_more_requests_are_in_flight_than_allowed(most: int) -> None:
    with FaultyServer(seconds=0.02) as server:
        model_at(server, max_concurrency=most).generate(questions(30))
        assert server.most_in_flight == most


def test_sixty_four_requests_in_flight_take_little_longer_than_the_server() -> None:
    with FaultyServer(seconds=1, slots=64) as server:
        model = model_at(server, max_concurrency=64)
        started, computed = time.monotonic(), time.process_time()
        assert texts(model.generate(questions(128))) == right_texts(128)
        seconds, computing = time.monotonic() - started, time.process_time() - computed
        assert server.most_in_flight == 64
    # Two rounds of a second are the server's own limit. It computes in this process too, and waits
    # for its turn where other processes are busy.
    assert computing < 2
    assert seconds < 12


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
