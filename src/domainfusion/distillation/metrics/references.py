"""What an example accepts as right, and the grade of a text against it."""

from __future__ import annotations

from collections.abc import Callable

from domainfusion.distillation.metrics.text import normalize
from domainfusion.types import Example, Score

NO_REFERENCE = "the example has no reference"


def accepted_answers(example: Example) -> tuple[tuple[str, ...], ...]:
    """Returns for each thing that a right answer states the accepted ways to write it: the example's parts, else its reference."""
    if example.parts:
        return tuple(part.answers for part in example.parts)
    return () if example.reference is None else ((example.reference,),)


def against_each(example: Example, text: str, similarity: Callable[[str, str], float], *, right_from: float = 1.0) -> Score:
    """Grades a text against each part of an example, or its reference, by the accepted answer that it is most like.

    Args:
        example: The example.
        text: The answer.
        similarity: Of the answer and an accepted one, 0 to 1.
        right_from: The similarity that is worth full marks. The accepted answer itself always is.

    Returns:
        The mean over the parts, and the grade of each; unscored where nobody knows what is right.
    """

    def grade(answer: str) -> float:
        if normalize(text) == normalize(answer):
            return 1.0
        found = similarity(text, answer)
        return 1.0 if found >= right_from else max(0.0, found)

    wanted = accepted_answers(example)
    if not wanted:
        return Score.unscored(NO_REFERENCE)
    grades = tuple(max((grade(answer) for answer in answers), default=0.0) for answers in wanted)
    return Score(sum(grades) / len(grades), parts=grades)
