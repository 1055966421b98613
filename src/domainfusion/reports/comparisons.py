"""The answers side by side: what each model said to each test question, the student's misses
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domainfusion.distillation.results import Answer, EvaluationReport, ModelResult
from domainfusion.reports.evaluation_tables import label_of
from domainfusion.types import Example

ORDER = ("wrong", "not graded", "right")
"""What comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """One model's answer under the name that a reader knows it by."""

    label: str
    answer: Answer

    @property
    def grade(self) -> str:
        """`right`, `wrong` or `not graded`."""
        return grade_of(self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One question and what was said to it.

    Attributes:
        example: The question, and what a right answer states.
        student: The student's answer.
        experts: The answers of the experts whose domains the question names.
        others: All other answers.
    """

    example: Example
    student: ModelAnswer
    experts: tuple[ModelAnswer, ...]
    others: tuple[ModelAnswer, ...]

    @property
    def grade(self) -> str:
        """The student's grade."""
        return self.student.grade

    @property
    def texts(self) -> tuple[str, ...]:
        """The question and every answer."""
        return (
            self.example.query,
            *(found.answer.text for found in (self.student, *self.experts, *self.others)),
        )


def grade_of(answer: Answer) -> str:
    """Returns the grade in words: unscored is not wrong."""
    return "not graded" if answer.correct is None else "right" if answer.correct else "wrong"


def comparisons(report: EvaluationReport) -> list[Comparison]:
    """Returns a comparison for each question that the student answered, its wrong answers first,
    then those that were not graded.
    """
    answers = [
        (model, {answer.example_id: answer for answer in model.answers}) for model in report.models
    ]
    found = [
        _comparison(
            example, [(model, by_id[example.id]) for model, by_id in answers if example.id in by_id]
        )
        for example in report.examples
    ]
    return sorted(
        (item for item in found if item is not None), key=lambda item: ORDER.index(item.grade)
    )


def _comparison(
    example: Example, answers: Sequence[tuple[ModelResult, Answer]]
) -> Comparison | None:
    students = [answer for model, answer in answers if model.role == "student"]
    if not students:
        return None
    others = [(model, answer) for model, answer in answers if model.role != "student"]
    return Comparison(
        example=example,
        student=ModelAnswer(label="student", answer=students[0]),
        experts=tuple(
            ModelAnswer(label=label_of(model), answer=answer)
            for model, answer in others
            if _is_asked(model, example)
        ),
        others=tuple(
            ModelAnswer(label=label_of(model), answer=answer)
            for model, answer in others
            if not _is_asked(model, example)
        ),
    )


def _is_asked(model: ModelResult, example: Example) -> bool:
    return model.role == "expert" and model.name in example.domains
