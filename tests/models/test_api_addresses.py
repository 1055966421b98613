"""Several addresses of one model: shared by load, and one may fail."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import APIModel
from domainfusion.types import user
from models.api_settings import api_model
from models.faulty_server import FaultyServer, answer_to, hang_up, status

QUESTIONS = [user(f"question {number}") for number in range(60)]
RIGHT = [answer_to(f"question {number}") for number in range(60)]


def at(*servers: FaultyServer | str, **settings: Any) -> APIModel:
    urls = [each if isinstance(each, str) else each.url for each in servers]
    return api_model(
        "teacher", base_url=urls, **{"backoff_seconds": 0.001, "timeout_seconds": 5.0, **settings}
    )


def asked(server: FaultyServer) -> int:
    return len(server.exchanges)


def closed_address() -> str:
    with FaultyServer() as server:
        return server.url


def test_addresses_share_the_questions() -> None:
    with ExitStack() as opened:
        servers = [opened.enter_context(FaultyServer()) for _ in range(3)]
        answers = at(*servers, max_concurrency=12).generate(QUESTIONS)
        assert [answer.text for answer in answers] == RIGHT
        assert sum(map(asked, servers)) == len(QUESTIONS)
        assert all(asked(server) >= 10 for server in servers)


def test_an_address_that_is_not_there_costs_no_answer_and_no_retry() -> None:
    with FaultyServer() as server:
        model = at(closed_address(), server, max_retries=0)
        assert [answer.text for answer in model.generate(QUESTIONS)] == RIGHT
        assert asked(server) == len(QUESTIONS)


@pytest.mark.parametrize("fault", [hang_up, status(500), status(401), status(404)])
def test_one_address_that_fails_is_left_and_every_question_is_answered(fault: Any) -> None:
    with FaultyServer(default=fault) as faulty, FaultyServer() as server:
        answers = at(faulty, server, max_concurrency=8).generate(QUESTIONS)
        assert [answer.text for answer in answers] == RIGHT
        # Those that were on their way when it failed, and one each time that it is tried again.
        assert asked(faulty) <= 20


def test_addresses_that_are_all_gone_are_an_error_that_says_so() -> None:
    model = at(closed_address(), closed_address(), max_retries=1, max_failures_in_a_row=3)
    with pytest.raises(ModelError, match=r"and 1 more.*the connection failed"):
        model.generate(QUESTIONS[:4])


def test_the_first_address_names_the_model() -> None:
    one, two = "http://localhost:1/v1", "http://localhost:2/v1"
    assert at(one).fingerprint == at(one, two).fingerprint
    assert at(one, two).fingerprint != at(two, one).fingerprint
    assert at(one, two).base_url == one


@pytest.mark.parametrize("addresses", [[], ["http://localhost:1/v1", "http://localhost:1/v1/"]])
def test_no_address_and_one_twice_are_refused(addresses: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        APIModel("m", base_url=addresses)


def test_plain_http_to_another_machine_is_refused_in_any_place() -> None:
    with pytest.raises(ConfigurationError, match="Plain http"):
        APIModel("m", base_url=["http://localhost/v1", "http://models.example.com/v1"])
