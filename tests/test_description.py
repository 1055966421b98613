"""Descriptions: what decides an object's behavior is in them, and nothing is copied to make
them.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from domainfusion.description import LONGEST_LIST, describe
from domainfusion.models import LanguageModel, ScriptedModel
from domainfusion.types import Example, Part


@dataclass
class _Generator:
    """A generator of a user's, whose model can't be copied."""

    model: LanguageModel
    count: int = 3
    _busy: Any = field(default_factory=threading.Lock)


def test_a_dataclass_is_described_by_its_fields_and_its_models_by_fingerprint() -> None:
    model = ScriptedModel("yes", name="oracle")
    model.calls = threading.Lock()  # type: ignore[assignment]
    assert describe(_Generator(model)) == {
        "model": {"model": "oracle", "fingerprint": model.fingerprint},
        "count": 3,
    }


def test_data_is_described_as_it_is_stored() -> None:
    example = Example(
        query="Where?", domains=("a", "b"), parts=(Part(domain="a", answers=("here", "there")),)
    )
    assert describe(example) == describe(asdict(example))


def test_a_long_list_is_described_by_its_content() -> None:
    numbers = list(range(LONGEST_LIST + 1))
    assert describe(numbers)["items"] == len(numbers)
    assert describe(numbers) == describe(list(numbers)) != describe(numbers[::-1])
