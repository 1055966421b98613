"""Grading by whether an answer is, or states, what a right one does."""

from __future__ import annotations

from dataclasses import dataclass

from domainfusion.distillation.metrics.overlap import token_f1
from domainfusion.distillation.metrics.references import NO_REFERENCE, against_each
from domainfusion.distillation.metrics.text import normalize, states
from domainfusion.types import Example, Score

_WRAPPING = " \t\r\n\"'“”‘’`*.!?"


def stated_parts(example: Example, text: str) -> Score:
    """Grades an answer by the share of the example's parts that it states.

    Where an example has no parts but a reference, the grade is the token F1 with the reference (Rajpurkar et al., 2016,
    arXiv 1606.05250), and the answer counts as right only where it is the reference.
    """
    if example.parts:
        grades = tuple(float(any(states(text, answer) for answer in part.answers)) for part in example.parts)
        return Score(sum(grades) / len(grades), parts=grades)
    if example.reference is None:
        return Score.unscored(NO_REFERENCE)
    grade = token_f1(text, example.reference)
    return Score(grade, parts=(float(normalize(text) == normalize(example.reference)),))


@dataclass(frozen=True)
class Exact:
    """Right is an answer that is the accepted one, but for case, accents, articles, and the quotes and full stop around it.

    Example:
        >>> example = Example(query="What is the capital of Italy?", domains=("geography",), reference="Rome")
        >>> Exact()(example, "“Rome”.").value, Exact()(example, "It is Rome.").value
        (1.0, 0.0)
    """

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        return against_each(example, text, lambda one, other: float(_bare(one) == _bare(other)))


@dataclass(frozen=True)
class Contains:
    """Right is an answer in which the accepted one stands as whole words; see `states`.

    Example:
        >>> example = Example(query="What is the capital of Italy?", domains=("geography",), reference="Rome")
        >>> Contains()(example, "It is Rome.").value, Contains()(example, "It is Romeo.").value
        (1.0, 0.0)
    """

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        return against_each(example, text, lambda one, other: float(states(one, other)))


def _bare(text: str) -> str:
    return normalize(text.strip(_WRAPPING))
