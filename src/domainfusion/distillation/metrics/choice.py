"""Multiple choice: by what the answer names, or by what the model finds most likely."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from domainfusion.distillation.metrics.metric import Graded, not_extracted
from domainfusion.distillation.metrics.references import NO_REFERENCE, accepted_answers
from domainfusion.distillation.metrics.text import normalize, states
from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.store import Ask
from domainfusion.types import Conversation, Example, Generation, Message, Sampling, Score

_LETTER = re.compile(
    r"(?:^\W*(?:option |choice |answer )?|\b(?:answer|option|choice)(?: is)?\W+)\(?([A-Z])(?:[).:]|\*\*|\s*$)", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True)
class NamedChoice:
    """Multiple choice by what the answer says: right is one that names the right choice and no other.

    An example lists its choices in `metadata["choices"]`, and its reference is one of them, word for word or by its letter (the
    first is A). An answer names a choice by its letter, at its beginning or after "answer", or in its own words. One that names none,
    or several, is unscored, as an extraction failure.

    Example:
        >>> choices = {"choices": ["Paris", "Rome", "Bern"]}
        >>> example = Example(query="What is the capital of Italy?", domains=("geography",), reference="Rome", metadata=choices)
        >>> NamedChoice()(example, "B) Rome").value, NamedChoice()(example, "The answer is C.").value
        (1.0, 0.0)
        >>> NamedChoice()(example, "Rome or Bern").reason
        'extraction: the answer names 2 of the choices'
    """

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        choices = choices_of(example)
        right = _right_choices(example, choices)
        if isinstance(right, Score):
            return right
        named = _named(text, choices)
        if len(named) != 1:
            return not_extracted(f"the answer names {len(named) or 'none'} of the choices")
        return _score(example, named[0] in right)


@dataclass(frozen=True)
class LikelyChoice:
    """Multiple choice by likelihood: the model's answer is the choice to which it gives the highest probability.

    Nothing is generated: each of `metadata["choices"]` is scored as the answer to the example's conversation. So it measures models
    whose probabilities can be had, and every model of a comparison has to be one; `NamedChoice` measures the others too.

    Args:
        per: What the log-probability of a choice is divided by, so that long choices have a chance: its `characters`, as in
            lm-evaluation-harness's acc_norm, its `tokens`, or `nothing`.

    Raises:
        ConfigurationError: `per` is none of the three.
    """

    per: Literal["characters", "tokens", "nothing"] = "characters"

    def __post_init__(self) -> None:
        if self.per not in ("characters", "tokens", "nothing"):
            raise ConfigurationError("There is no such normalization", received=self.per, allowed="characters, tokens, nothing")

    def ask_and_grade(
        self, model: LanguageModel, examples: Sequence[Example], *, sampling: Sampling, ask: Ask, label: str = ""
    ) -> list[Graded]:
        """Scores every choice of every example; the answer is the likeliest one. Nothing is asked.

        Raises:
            CapabilityError: The model gives text alone.
            ConfigurationError: An example has no choices.
        """
        if not isinstance(model, TokenScorer):
            raise CapabilityError(
                f"The probabilities of {model.name} can't be had, which multiple choice by likelihood needs",
                received=model,
                allowed="a local model",
                fix='use the metric "choice", which reads the answer',
            )
        choices = [choices_of(example) for example in examples]
        rows = [_with_answer(example, choice) for example, listed in zip(examples, choices, strict=True) for choice in listed]
        scores = iter(model.score(rows))
        graded = []
        for example, listed in zip(examples, choices, strict=True):
            found = [next(scores) for _ in listed]
            lengths = [{"characters": len(c), "tokens": len(s.tokens), "nothing": 1}[self.per] for c, s in zip(listed, found, strict=True)]
            values = [score.total / max(1, length) for score, length in zip(found, lengths, strict=True)]
            best = max(range(len(listed)), key=values.__getitem__)
            right = _right_choices(example, listed)
            score = right if isinstance(right, Score) else _score(example, best in right)
            graded.append(Graded(Generation(text=listed[best]), score))
        return graded


def choices_of(example: Example) -> tuple[str, ...]:
    """Returns the choices that an example lists.

    Raises:
        ConfigurationError: It lists none, or two that are the same.
    """
    listed = example.metadata.get("choices")
    texts = tuple(listed) if isinstance(listed, list | tuple) else ()
    if len(texts) < 2 or not all(isinstance(text, str) and text.strip() for text in texts) or len(set(texts)) < len(texts):
        raise ConfigurationError(
            f"The example {example.query[:60]!r} has no choices",
            received=listed,
            allowed="two or more different texts in metadata",
            fix='give it metadata={"choices": ["...", "..."]}',
        )
    return texts


def _right_choices(example: Example, choices: Sequence[str]) -> set[int] | Score:
    wanted = accepted_answers(example)
    if len(wanted) != 1:
        return Score.unscored(NO_REFERENCE if not wanted else "an example with choices has one right answer, and this one has parts")
    right = {index for index, choice in enumerate(choices) if any(normalize(choice) == normalize(answer) for answer in wanted[0])}
    letters = {ord(answer.strip()) - ord("A") for answer in wanted[0] if re.fullmatch(r"\s*[A-Z]\s*", answer)}
    right = right or letters & set(range(len(choices)))
    return right or Score.unscored("the reference is none of the choices")


def _named(text: str, choices: Sequence[str]) -> list[int]:
    exact = [index for index, choice in enumerate(choices) if normalize(text) == normalize(choice)]
    if exact:
        return exact
    letters = {ord(letter.upper()) - ord("A") for letter in _LETTER.findall(text)} & set(range(len(choices)))
    return sorted(letters) or _stated(text, choices)


def _stated(text: str, choices: Sequence[str]) -> list[int]:
    """Returns the choices that a text states, leaving out one that is only part of another: "acid" in "nitric acid"."""
    found = [index for index, choice in enumerate(choices) if states(text, choice)]
    return [i for i in found if not any(i != j and states(choices[j], choices[i]) for j in found)]


def _with_answer(example: Example, choice: str) -> Conversation:
    return (*example.conversation, Message("assistant", choice))


def _score(example: Example, right: bool) -> Score:
    return Score(float(right), parts=(float(right),))
