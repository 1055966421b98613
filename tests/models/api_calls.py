"""Questions, models and answers that the tests of API models share."""

from collections.abc import Sequence
from typing import Any

import pytest

from domainfusion.models import APIModel
from domainfusion.types import Conversation, Generation, user
from models.api_settings import api_model
from models.faulty_server import FaultyServer, answer_to

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
