"""Coherence as a judge sees it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from domainfusion.distillation.metrics.judge import NO_VERDICT, VERDICT_TOKENS
from domainfusion.errors import TemplateError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import COHERENCE_PROMPT, fields_of, fill, unindent
from domainfusion.types import Sampling, Score, user

_BEST = 5


@dataclass(frozen=True)
class JudgedCoherence:
    """A model's grade, 1 to 5, of how well a text holds together, as a share: (grade − 1) / 4.

    A reply that is not a grade leaves the text unscored. `domainfusion evaluate --check-metrics` measures what a judge's grades are worth.

    Args:
        model: The judge. It is called through `ask`, so that a run keeps its replies.
        prompt_template: What it is asked; `{text}` is filled.
        sampling: How it answers; by default greedily, up to 16 tokens.

    Raises:
        TemplateError: The template has no place for the text.
    """

    model: LanguageModel
    prompt_template: str = field(default=COHERENCE_PROMPT, repr=False)
    sampling: Sampling = field(default=Sampling(max_new_tokens=VERDICT_TOKENS), repr=False)

    def __post_init__(self) -> None:
        if "text" not in fields_of(self.prompt_template):
            raise TemplateError("The judge's prompt has no place for {text}", received=self.prompt_template)

    def grade_all(self, texts: Sequence[str], *, ask: Ask = ask_directly) -> list[Score]:
        """Grades each text that is not empty."""
        places = [place for place, text in enumerate(texts) if text.strip()]
        template = unindent(self.prompt_template)
        prompts = [user(fill(template, {"text": texts[place]})) for place in places]
        replies = ask(self.model, prompts, self.sampling, label="judging coherence") if prompts else []
        found = {place: read_grade(reply.text) for place, reply in zip(places, replies, strict=True)}
        return [_score(found[place]) if place in found else Score.unscored("the answer is empty") for place in range(len(texts))]


def read_grade(reply: str) -> int | None:
    """Returns the grade that a judge's reply gives; None where it gives none, or several.

    Example:
        >>> read_grade("4"), read_grade("**Grade: 2/5**"), read_grade("From 1 to 5? It is fine."), read_grade("7")
        (4, 2, None, None)
    """
    numbers = {int(number) for number in re.findall(r"(?<![\d.])(\d+)(?!\.?\d)", re.sub(rf"(?:/| out of ){_BEST}\b", "", reply))}
    return next(iter(numbers)) if len(numbers) == 1 and 1 <= min(numbers) <= _BEST else None


def _score(grade: int | None) -> Score:
    return Score.unscored(NO_VERDICT) if grade is None else Score((grade - 1) / (_BEST - 1))
