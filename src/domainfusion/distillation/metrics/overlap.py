"""Grading by the words that an answer shares with a reference."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from domainfusion.distillation.metrics.references import against_each
from domainfusion.distillation.metrics.text import normalize
from domainfusion.errors import ConfigurationError
from domainfusion.types import Example, Score


def words_of(text: str) -> list[str]:
    """Returns the words of a text, without case, accents and articles."""
    return re.findall(r"\w+", normalize(text))


def token_f1(text: str, reference: str) -> float:
    """Returns the harmonic mean of precision and recall of `text`'s words against `reference`'s.

    Example:
        >>> token_f1("the capital is Rome", "Rome")
        0.5
    """
    words, wanted = Counter(words_of(text)), Counter(words_of(reference))
    shared = sum((words & wanted).values())
    if not shared:
        return float(not words and not wanted)
    precision, recall = shared / sum(words.values()), shared / sum(wanted.values())
    return 2 * precision * recall / (precision + recall)


def check_share(name: str, value: float) -> None:
    """Refuses a threshold that no grade, or every grade, would reach.

    Raises:
        ConfigurationError: It is not above 0 and up to 1.
    """
    if not 0 < value <= 1:
        raise ConfigurationError(f"{name} is out of range", received=value, allowed="a number above 0, up to 1")


@dataclass(frozen=True)
class TokenF1:
    """The F1 of the answer's words against the accepted answer's (Rajpurkar et al., 2016, arXiv 1606.05250).

    Args:
        right_from: The F1 from which an answer counts as right.

    Raises:
        ConfigurationError: `right_from` is not above 0 and up to 1.
    """

    right_from: float = 1.0

    def __post_init__(self) -> None:
        check_share("right_from", self.right_from)

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        return against_each(example, text, token_f1, right_from=self.right_from)
