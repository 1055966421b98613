"""Whether a text says one sequence of words over and over, as a model does that can't find an end."""

from __future__ import annotations

LONGEST_PERIOD = 50
"""Words of the longest sequence that is looked for."""

FEWEST_WORDS = 12
"""Words that the repetitions take together: fewer are a figure of speech."""


def is_repetitive(text: str) -> bool:
    """Whether some sequence of up to 50 words comes three times or more in a row, over 12 words or more.

    Example:
        >>> is_repetitive("It is in Japan. " * 3), is_repetitive("It is in Japan. It is in Japan."), is_repetitive("No, no, no!")
        (True, False, False)
    """
    words = text.casefold().split()
    return any(_has_run(words, period) for period in range(1, min(LONGEST_PERIOD, len(words) // 3) + 1))


def _has_run(words: list[str], period: int) -> bool:
    needed, run = max(2 * period, FEWEST_WORDS - period), 0
    for word, later in zip(words, words[period:], strict=False):
        run = run + 1 if word == later else 0
        if run >= needed:
            return True
    return False
