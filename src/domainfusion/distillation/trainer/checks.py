"""What a setting of a trainer may be; anything else is refused when the trainer is made."""

from __future__ import annotations

import math
from collections.abc import Sequence

from domainfusion.errors import ConfigurationError


def check_count(name: str, count: object) -> None:
    """Refuses anything but a whole number from 1.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigurationError(
            f"{name} is not a positive number", received=count, allowed="a whole number from 1"
        )


def check_share(name: str, share: float) -> None:
    """Refuses anything but a number from 0 to 1.

    Raises:
        ConfigurationError: It is none.
    """
    if not 0 <= share <= 1:
        raise ConfigurationError(
            f"{name} is not a share", received=share, allowed="a number from 0 to 1"
        )


def check_weight(name: str, weight: float) -> None:
    """Refuses anything but a finite number from 0.

    Raises:
        ConfigurationError: It is none.
    """
    if not 0 <= weight < math.inf:
        raise ConfigurationError(
            f"{name} is not a weight", received=weight, allowed="a number from 0"
        )


def check_word(name: str, word: str, allowed: Sequence[str]) -> None:
    """Refuses a word that is not among those allowed.

    Raises:
        ConfigurationError: It is not.
    """
    if word not in allowed:
        raise ConfigurationError(f"{name} is not known", received=word, allowed=", ".join(allowed))
