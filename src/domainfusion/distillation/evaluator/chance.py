"""What an answer drawn blindly would score, where that is known."""

from __future__ import annotations

from collections.abc import Sequence

from domainfusion.types import Example


def chance_of(example: Example, metric: object) -> float | None:
    """Returns the mean score of a blind answer.

    The metric says it (an attribute `chance`: a number, or a function of the example), or the example's `metadata["choices"]` do: one of
    them is right. None where neither does.
    """
    said = getattr(metric, "chance", None)
    found = said(example) if callable(said) else said
    if isinstance(found, int | float):
        return float(found)
    choices = example.metadata.get("choices")
    return 1 / len(choices) if isinstance(choices, Sequence) and not isinstance(choices, str) and len(choices) > 1 else None


def mean_chance(examples: Sequence[Example], metric: object) -> float | None:
    """Returns the mean over examples; None where it is not known of each."""
    known = [chance_of(example, metric) for example in examples]
    values = [value for value in known if value is not None]
    return sum(values) / len(values) if values and len(values) == len(known) else None
