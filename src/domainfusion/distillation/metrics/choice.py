"""Multiple choice: by what the answer names, or by what the model finds most likely."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from domainfusion.distillation.metrics.accuracy import NO_REFERENCE, accepted_answers, is_the_answer
from domainfusion.distillation.metrics.metric import Graded
from domainfusion.distillation.text.sentences import Span
from domainfusion.distillation.text.statements import MOST_SPANS, is_denied, spans_of, states
from domainfusion.distillation.text.words import render
from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.store import Ask
from domainfusion.types import Conversation, Example, Generation, Message, Sampling, Score

_END = r"(?=\W*$|[).:：,;\]]|\s+(?:because|since|as|and|but|is|was|seems|would)\b|\s*[（(–—-])"
"""What follows a letter that is a label and no word: A city is none."""
_LABEL = rf"[\W_]{{0,4}}(?:(?P<upper>[A-Z])(?![\w'])(?:{_END}|(?<=[B-HJ-Z])(?=\s))|(?P<lower>[a-z])(?=[).:：]|\W*$))"
_CONCLUSION = re.compile(
    # the answer is B, Answer: B, option B, it is B, I choose B
    r"(?:(?:\b(?:answer|option|choice|antwort|lösung|respuesta|réponse|resposta|risposta|ответ)\b|答案|选项|選択肢|正解|答え?)"
    r"(?:\s*(?:is|was|must be|should be|would"
    r" be|ist|lautet|es|est|é|è|[:：=]|是|は|为)){0,2}(?:\s*not\s\W?[A-Z]\W?,?\s?but(?=\s))?"
    r"|\b(?:it is|it's|it must be|i choose|i pick|i select|i'd go with|go"
    rf" with|hence|therefore|thus|so))(?:{_LABEL})"
    r"|(?<![\w'])(?P<named>[A-Z])[).\]]{0,2}\s(?:is|seems|must"
    r" be)\s(?:the\s)?(?:correct|right|best|true|answer)\b",
    re.MULTILINE | re.IGNORECASE,
)
_AT_LINE = re.compile(rf"^(?:{_LABEL})", re.MULTILINE)


@dataclass(frozen=True)
class NamedChoice:
    """Multiple choice by what the answer says: right is one that names the right choice and no
    other.

    An example lists its choices in `metadata["choices"]`, and its reference is one of them, word
    for word or by its letter (the first is A). An answer names a choice by its letter, at its
    beginning or after "answer", or in its own words. A choice that it denies does not count, and
    what it concludes with counts before what it goes through. One that names several is wrong; one
    that names none is wrong, and not readable.

    Example:
        >>> choices = {"choices": ["Paris", "Rome", "Bern"]}
        >>> example = Example(query="What is the capital of Italy?", domains=("geography",), reference="Rome", metadata=choices)
        >>> NamedChoice()(example, "B) Rome").value, NamedChoice()(example, "The answer is C.").value
        (1.0, 0.0)
        >>> NamedChoice()(example, "It can't be Paris; it is Rome.").value, NamedChoice()(example, "Rome or Bern").value
        (1.0, 0.0)
        >>> NamedChoice()(example, "I don't know.").reason
        'the answer names none of the choices'
    """

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        choices = choices_of(example)
        right = _right_choices(example, choices)
        if isinstance(right, Score):
            return right
        named = _named(text, choices)
        if not named:
            return Score.not_readable("the answer names none of the choices")
        return _score(named[0] in right and len(named) == 1)


@dataclass(frozen=True)
class LikelyChoice:
    """Multiple choice by likelihood: the model's answer is the choice to which it gives the highest
    probability.

    Nothing is generated: each of `metadata["choices"]` is scored as the answer to the example's
    conversation. So it measures models whose probabilities can be had, and every model of a
    comparison has to be one; `NamedChoice` measures the others too.

    Args:
        per: What the log-probability of a choice is divided by, so that long choices have a chance:
            its `characters`, as in lm-evaluation-harness's acc_norm, its `tokens`, or `nothing`.

    Raises:
        ConfigurationError: `per` is none of the three.
    """

    per: Literal["characters", "tokens", "nothing"] = "characters"

    def __post_init__(self) -> None:
        if self.per not in ("characters", "tokens", "nothing"):
            raise ConfigurationError(
                "There is no such normalization",
                received=self.per,
                allowed="characters, tokens, nothing",
            )

    def ask_and_grade(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        *,
        sampling: Sampling,
        ask: Ask,
        label: str = "",
    ) -> list[Graded]:
        """Scores every choice of every example; the answer is the likeliest one. Nothing is asked.

        Raises:
            CapabilityError: The model gives text alone.
            ConfigurationError: An example has no choices.
        """
        if not isinstance(model, TokenScorer):
            raise CapabilityError(
                f"The probabilities of {model.name} can't be had, which multiple choice by"
                " likelihood needs",
                received=model,
                allowed="a local model",
                fix='use the metric "choice", which reads the answer',
            )
        choices = [choices_of(example) for example in examples]
        rows = [
            _with_answer(example, choice)
            for example, listed in zip(examples, choices, strict=True)
            for choice in listed
        ]
        scores = iter(model.score(rows))
        graded = []
        for example, listed in zip(examples, choices, strict=True):
            found = [next(scores) for _ in listed]
            lengths = [
                {"characters": len(c), "tokens": len(s.tokens), "nothing": 1}[self.per]
                for c, s in zip(listed, found, strict=True)
            ]
            values = [
                score.total / max(1, length) for score, length in zip(found, lengths, strict=True)
            ]
            best = max(range(len(listed)), key=values.__getitem__)
            right = _right_choices(example, listed)
            score = right if isinstance(right, Score) else _score(best in right)
            graded.append(Graded(Generation(text=listed[best]), score))
        return graded


def choices_of(example: Example) -> tuple[str, ...]:
    """Returns the choices that an example lists.

    Raises:
        ConfigurationError: It lists none, or two that are the same.
    """
    listed = example.metadata.get("choices")
    texts = tuple(listed) if isinstance(listed, list | tuple) else ()
    if (
        len(texts) < 2
        or not all(isinstance(text, str) and text.strip() for text in texts)
        or len(set(texts)) < len(texts)
    ):
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
        return Score.unscored(
            NO_REFERENCE
            if not wanted
            else "an example with choices has one right answer, and this one has parts"
        )
    right = {
        index
        for index, choice in enumerate(choices)
        if any(is_the_answer(choice, answer) for answer in wanted[0])
    }
    letters = {
        ord(answer.strip()) - ord("A")
        for answer in wanted[0]
        if re.fullmatch(r"\s*[A-Z]\s*", answer)
    }
    right = right or letters & set(range(len(choices)))
    return right or Score.unscored("the reference is none of the choices")


def _named(text: str, choices: Sequence[str]) -> list[int]:
    """Returns the choices that an answer names as its own: by its conclusion, else by letters at
    its lines, else in words.
    """
    exact = [index for index, choice in enumerate(choices) if is_the_answer(text, choice)]
    if exact:
        return exact
    seen = render(text).text
    concluded = _letters(_CONCLUSION, seen, len(choices))
    if concluded:
        return concluded[-1:]
    return sorted(set(_letters(_AT_LINE, seen, len(choices)))) or _stated(seen, choices)


def _letters(pattern: re.Pattern[str], seen: str, choices: int) -> list[int]:
    """Returns the choices whose letters a pattern finds and that are not denied, in their order."""
    found = []
    for match in islice(pattern.finditer(seen), MOST_SPANS):
        groups = match.groupdict()
        name = next(name for name in ("upper", "lower", "named") if groups.get(name))
        index = ord(match[name].upper()) - ord("A")
        span = Span(match.start(name), match.end(name))
        if index < choices and not is_denied(seen, span):
            found.append(index)
    return found


def _stated(seen: str, choices: Sequence[str]) -> list[int]:
    """Returns the choices that a text states, leaving out one that is only part of another: "acid"
    in "nitric acid".
    """
    found = [
        index
        for index, choice in enumerate(choices)
        if any(not is_denied(seen, span) for span in islice(spans_of(seen, choice), MOST_SPANS))
    ]
    return [i for i in found if not any(i != j and states(choices[j], choices[i]) for j in found)]


def _with_answer(example: Example, choice: str) -> Conversation:
    return (*example.conversation, Message("assistant", choice))


def _score(right: bool) -> Score:
    return Score(float(right), parts=(float(right),))
