"""Coherence as a judge sees it: a grade, or the sentences that contradict each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from domainfusion.distillation.metrics.judge import NO_VERDICT, VERDICT_TOKENS
from domainfusion.distillation.text.sentences import sentences
from domainfusion.errors import TemplateError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import COHERENCE_PROMPT, CONSISTENCY_PROMPT, fields_of, fill, unindent
from domainfusion.types import Sampling, Score, user

_BEST = 5

MOST_SENTENCES = 30
"""Sentences of a text that a judge compares."""

# A pair of numbers in brackets, as in [[1, 3], [2, 4]].
_PAIR = re.compile(r"[\[(]\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[\])]")
# What says that there is no pair: an empty list, or the word.
_NO_PAIRS = re.compile(r"\[\s*\]|\bnone\b|\bno (?:pairs?|contradictions?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class JudgedCoherence:
    """A model's grade, 1 to 5, of how well a text holds together, as a share: (grade − 1) / 4.

    A reply that is not a grade leaves the text unscored. `domainfusion evaluate --check-metrics`
    measures what a judge's grades are worth.

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
            raise TemplateError(
                "The judge's prompt has no place for {text}", received=self.prompt_template
            )

    def grade_all(self, texts: Sequence[str], *, ask: Ask = ask_directly) -> list[Score]:
        """Grades each text that is not empty."""
        places = [place for place, text in enumerate(texts) if text.strip()]
        template = unindent(self.prompt_template)
        prompts = [user(fill(template, {"text": texts[place]})) for place in places]
        replies = (
            ask(self.model, prompts, self.sampling, label="judging coherence") if prompts else []
        )
        found = {
            place: read_grade(reply.text) for place, reply in zip(places, replies, strict=True)
        }
        return [
            _score(found[place]) if place in found else Score.unscored("the answer is empty")
            for place in range(len(texts))
        ]


def read_grade(reply: str) -> int | None:
    """Returns the grade that a judge's reply gives; None where it gives none, or several.

    Example:
        >>> read_grade("4"), read_grade("**Grade: 2/5**"), read_grade("From 1 to 5? It is fine."), read_grade("7")
        (4, 2, None, None)
    """
    numbers = {
        int(number)
        for number in re.findall(
            r"(?<![\d.])(\d+)(?!\.?\d)", re.sub(rf"(?:/| out of ){_BEST}\b", "", reply)
        )
    }
    return next(iter(numbers)) if len(numbers) == 1 and 1 <= min(numbers) <= _BEST else None


def _score(grade: int | None) -> Score:
    return Score.unscored(NO_VERDICT) if grade is None else Score((grade - 1) / (_BEST - 1))


@dataclass(frozen=True)
class JudgedConsistency:
    """The share of a text's sentences that no other one contradicts, as a model sees it in a
    context of its own.

    It sees contradictions in other words, which rules do not. A reply that names no pairs and does
    not say that there are none leaves the text unscored; a text of one sentence can't contradict
    itself and is not asked about.

    Args:
        model: The judge, such as the verifier of an integrator. It is called through `ask`, so that
            a run keeps its replies.
        sampling: How it answers; by default greedily, up to 64 tokens.
    """

    model: LanguageModel
    sampling: Sampling = field(default=Sampling(max_new_tokens=64), repr=False)

    sees = ("contradicted", "contradicted in the same words")

    def grade_all(self, texts: Sequence[str], *, ask: Ask = ask_directly) -> list[Score]:
        """Grades each text that is not empty."""
        given = [list(dict.fromkeys(sentences(text)))[:MOST_SENTENCES] for text in texts]
        places = [place for place, found in enumerate(given) if len(found) > 1]
        prompts = [
            user(fill(CONSISTENCY_PROMPT, {"sentences": _numbered(given[place])}))
            for place in places
        ]
        replies = (
            ask(self.model, prompts, self.sampling, label="judging consistency") if prompts else []
        )
        asked = dict(zip(places, replies, strict=True))
        scores = []
        for place, found in enumerate(given):
            if not found:
                scores.append(Score.unscored("the answer is empty"))
            elif place not in asked:
                scores.append(Score(1.0))
            else:
                scores.append(_consistency(asked[place].text, len(found)))
        return scores


def _numbered(found: Sequence[str]) -> str:
    return "\n".join(
        f"{number}. {' '.join(sentence.split())}" for number, sentence in enumerate(found, start=1)
    )


def _consistency(reply: str, count: int) -> Score:
    """Returns the score that a reply gives a text of so many sentences; pairs of numbers that do
    not exist are left out.
    """
    pairs = [(int(first), int(second)) for first, second in _PAIR.findall(reply)]
    named = {
        number
        for pair in pairs
        if pair[0] != pair[1] and 1 <= min(pair) <= max(pair) <= count
        for number in pair
    }
    if not named and (pairs or not _NO_PAIRS.search(reply)):
        return Score.unscored(NO_VERDICT)
    return Score(1 - len(named) / count)
