"""Grading by what an answer states of what a right one states."""

from __future__ import annotations

from domainfusion.distillation.metrics.overlap import token_f1
from domainfusion.distillation.metrics.text import normalize, states
from domainfusion.types import Example, Score


def stated_parts(example: Example, text: str) -> Score:
    """Grades an answer by the share of the example's parts that it states.

    Where an example has no parts but a reference, the grade is the token F1 with the reference (Rajpurkar et al., 2016,
    arXiv 1606.05250), and the answer counts as right only where it is the reference.
    """
    if example.parts:
        grades = tuple(float(any(states(text, answer) for answer in part.answers)) for part in example.parts)
        return Score(sum(grades) / len(grades), parts=grades)
    if example.reference is None:
        return Score.unscored("the example has no reference")
    grade = token_f1(text, example.reference)
    return Score(grade, parts=(float(normalize(text) == normalize(example.reference)),))
