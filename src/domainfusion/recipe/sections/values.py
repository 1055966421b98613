"""Texts and numbers, each with the values that it may have."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from domainfusion.recipe.sections.problems import problem


def within(test: Callable[[Any], bool], allowed: str) -> AfterValidator:
    """Returns the validator that refuses what fails `test`; `allowed` says what passes."""

    def check(value: Any) -> Any:
        if not test(value):
            raise problem("is out of range", received=value, allowed=allowed)
        return value

    return AfterValidator(check)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise problem("is empty", allowed="a text")
    return text


def _a_day(given: object) -> str:
    """Returns a day as text; YAML reads one that is written without quotation marks as a date."""
    try:
        return datetime.date.fromisoformat(str(given)).isoformat()
    except ValueError as error:
        raise problem(
            "is not a date", received=given, allowed="YYYY-MM-DD, such as 2026-01-31"
        ) from error


Day = Annotated[str, BeforeValidator(_a_day)]
Text = Annotated[str, AfterValidator(_not_blank)]
Count = Annotated[int, within(lambda number: number >= 1, "a whole number from 1")]
Positive = Annotated[float, within(lambda number: number > 0, "a number above 0")]
Share = Annotated[float, within(lambda number: 0 <= number <= 1, "a number from 0 to 1")]
Weight = Annotated[float, within(lambda number: number >= 0, "a number from 0")]
Price = Annotated[float, within(lambda number: number >= 0, "a number from 0")]
Device = Annotated[
    str,
    within(
        lambda name: re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is not None,
        "auto, cpu, cuda or cuda:N",
    ),
]
