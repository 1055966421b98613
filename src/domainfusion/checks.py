"""Checks of arguments: a number in a range, a whole number, a word of a list, an object of a class.
Each rule has one message, so that the same mistake is told in the same words everywhere.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Literal, TypeGuard

from domainfusion.errors import ConfigurationError, suggestion

Interval = Literal["(0, 1)", "[0, 1)", "(0, 1]", "[0, 1]", "(0, inf)", "[0, inf)"]
"""A range as mathematics writes it: a square bracket takes its end in, a round one leaves it out."""

_IN_WORDS: dict[Interval, str] = {
    "(0, 1)": "a number between 0 and 1",
    "[0, 1)": "a number from 0 to below 1",
    "(0, 1]": "a number above 0, up to 1",
    "[0, 1]": "a number from 0 to 1",
    "(0, inf)": "a number above 0",
    "[0, inf)": "a number from 0",
}

LARGEST_SEED = 2**32 - 1
"""The largest seed that NumPy and PyTorch both take."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number; True and False are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_number(name: str, value: object, within: Interval, *, optional: bool = False) -> None:
    """Refuses what is not a number in a range; a text, infinity and NaN are in none.

    Args:
        name: What the message calls it, the argument's name.
        value: What was given.
        within: The range.
        optional: Whether None is right too.

    Raises:
        ConfigurationError: It is not in the range.

    Example:
        >>> check_number("alpha", 0.5, "(0, 1]")
        >>> check_number("alpha", 0, "(0, 1]")
        Traceback (most recent call last):
        ...
        domainfusion.errors.ConfigurationError: alpha is out of range; received 0; allowed: a number above 0, up to 1.
    """
    if optional and value is None:
        return
    highest = float(within[1:-1].split(", ")[1])
    is_inside = is_number(value) and (
        0 < value < highest
        or (value == 0 and within.startswith("["))
        or (value == highest and within.endswith("]"))
    )
    if not is_inside:
        raise ConfigurationError(
            f"{name} is out of range",
            received=value,
            allowed=_IN_WORDS[within],
        )


def check_count(
    name: str, value: object, least: int = 1, most: int | None = None, *, optional: bool = False
) -> None:
    """Refuses what is not a whole number in a range.

    Args:
        name: What the message calls it, the argument's name.
        value: What was given.
        least: The smallest that is right.
        most: The largest; None where there is none.
        optional: Whether None is right too.

    Raises:
        ConfigurationError: It is not in the range.
    """
    if optional and value is None:
        return
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < least
        or (most is not None and value > most)
    ):
        upwards = "" if most is None else f" to {most:,}"
        raise ConfigurationError(
            f"{name} is out of range",
            received=value,
            allowed=f"a whole number from {least:,}{upwards}",
        )


def check_seed(seed: object) -> None:
    """Refuses a seed that NumPy and PyTorch don't both take.

    Raises:
        ConfigurationError: It is not a whole number from 0, below 2³².
    """
    check_count("seed", seed, 0, LARGEST_SEED)


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuses what is not an object of a class, such as settings.

    Args:
        name: What the message calls it, the argument's name.
        value: What was given.
        kind: The class.

    Raises:
        ConfigurationError: It is of another kind.
    """
    if not isinstance(value, kind):
        allowed = "True or False" if kind is bool else f"{kind.__name__}(...)"
        raise ConfigurationError(f"{name} is not known", received=value, allowed=allowed)


def check_word(name: str, word: object, allowed: Iterable[str]) -> None:
    """Refuses a word that is not among those allowed.

    Args:
        name: What the message calls it, the argument's name.
        word: What was given.
        allowed: The words that are right, as they are listed in the message.

    Raises:
        ConfigurationError: It is not among them.
    """
    known = tuple(allowed)
    if word not in known:
        raise ConfigurationError(
            f"{name} is not known",
            received=word,
            allowed=", ".join(known),
            fix=suggestion(str(word), known),
        )
