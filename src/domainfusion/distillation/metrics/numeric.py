"""Grading numbers, with a tolerance and in any unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from domainfusion.checks import check_number, check_word
from domainfusion.distillation.metrics.accuracy import (
    NO_REFERENCE,
    Graded,
    accepted_answers,
    is_the_answer,
    parts_unknown,
)
from domainfusion.distillation.text.denial import MOST_SPANS, is_denied, is_one_of_guesses
from domainfusion.distillation.text.digits import as_listed
from domainfusion.distillation.text.quantities import (
    Quantity,
    Stated,
    in_unit,
    read_quantities,
)
from domainfusion.distillation.text.sentences import Span
from domainfusion.distillation.text.statements import spans_of, states
from domainfusion.distillation.text.units import (
    NO_UNIT,
    PERCENT,
    BaseUnits,
    base_units_of,
    parse_unit,
)
from domainfusion.distillation.text.words import render
from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.store import Ask
from domainfusion.types import Conversation, Example, Generation, Message, Sampling, Score

_LONGEST_WANTED = 10_000
"""Characters of an accepted answer in which its number is looked for."""
_MOST_NUMBERS = 200
"""Numbers that are looked at for what is said of them."""


@dataclass(frozen=True)
class Numeric:
    """Right is an answer that gives the accepted number, within a tolerance and in any unit of the
    same kind.

    The first number of an accepted answer is the one that counts. A number without a unit is taken
    to be in the wanted unit, unless the answer gives another in a unit of that kind: in "Gold,
    element 79, melts at 1948 °F" only the temperature counts. A number that the answer denies, or
    guesses beside others ("40, 42 or 44"), does not count; an answer without any number is wrong,
    and not readable.

    Args:
        relative_tolerance: How far off a number may be, as a share of the accepted one.
        absolute_tolerance: How far off it may be in any case, in the accepted answer's unit. The
            larger of the two holds.
        unit: The unit of accepted answers that name none, such as `km/h`; empty leaves them
            without.
        which: Which of the answer's numbers is compared with the accepted one: `any` of them, the
            `first`, or the `last`, which is what a model that reasons aloud ends with. With `any`,
            an answer passes that has the number among others in its course.

    Raises:
        ConfigurationError: A tolerance is negative, the unit is not known, or `which` is none of
            the three.

    Example:
        >>> example = Example(query="At how many °C does gold melt?", domains=("chemistry",), reference="1064 °C")
        >>> Numeric()(example, "At 1,064.2 °C.").value, Numeric()(example, "At 1948 °F.").value, Numeric()(example, "At 961 °C.").value
        (1.0, 1.0, 0.0)
        >>> Numeric()(example, "Not 1064 °C.").value, Numeric()(example, "I don't know.")
        (0.0, Score(value=0.0, reason='the answer has no number', parts=(0.0,), readable=False))
    """

    relative_tolerance: float = 0.01
    absolute_tolerance: float = 0.0
    unit: str = ""
    which: Literal["any", "first", "last"] = "any"

    def __post_init__(self) -> None:
        check_number("relative_tolerance", self.relative_tolerance, "[0, inf)")
        check_number("absolute_tolerance", self.absolute_tolerance, "[0, inf)")
        if self.unit and not parse_unit(self.unit):
            raise ConfigurationError(
                "The unit is not known",
                received=self.unit,
                allowed="a unit that pint knows, such as °C, km/h or kJ",
            )
        check_word("which", self.which, ("any", "first", "last"))

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        accepted = [
            [self._wanted(answer) for answer in answers] for answers in accepted_answers(example)
        ]
        if not accepted:
            return Score.unscored(NO_REFERENCE)
        golds = [[number for number in numbers if number is not None] for numbers in accepted]
        if not all(golds):
            return Score.unscored("the reference has no number")
        seen = render(text).text
        stated = read_quantities(seen)
        if any(_is_share(number) for numbers in golds for number in numbers):
            stated = sorted([*stated, *_portions(seen, stated)], key=lambda number: number.start)
        if not stated:
            return Score.not_readable("the answer has no number", parts=len(golds))
        committed = [
            number
            for number in stated[:_MOST_NUMBERS]
            if not is_denied(seen, _span(number), query=example.query)
        ]
        known = [answer for answers in accepted_answers(example) for answer in answers]

        def is_given(gold: Stated) -> bool:
            found = self._found(gold, committed + stated[_MOST_NUMBERS:])
            return any(
                not is_one_of_guesses(
                    seen, _span(number), known, example.query, spare=parts_unknown(example)
                )
                for number in found[:_MOST_NUMBERS]
            )

        grades = tuple(float(any(is_given(gold) for gold in numbers)) for numbers in golds)
        return Score(sum(grades) / len(grades), parts=grades)

    def _wanted(self, answer: str) -> Stated | None:
        """Returns what an accepted answer gives: its first quantity, in the unit of the metric
        where it names none.
        """
        found = read_quantities(answer[:_LONGEST_WANTED])
        if not found:
            return None
        unit = parse_unit(self.unit)
        return found[0] if found[0].unit or not unit else in_unit(found[0], unit)

    def _found(self, gold: Stated, stated: Sequence[Stated]) -> list[Stated]:
        """Returns the quantities of an answer that are the accepted one: both ends of it, where it
        is a range.
        """
        base = base_units_of(gold.unit) or NO_UNIT
        if gold.unit:
            measured = [number for number in stated if _measures(number, gold)]
            chosen = measured or [number for number in stated if not number.unit]
        else:
            chosen = list(stated)
        chosen = {"any": chosen, "first": chosen[:1], "last": chosen[-1:]}[self.which]
        return [number for number in chosen if self._is(number, gold, base)]

    def _is(self, number: Stated, gold: Stated, base: BaseUnits) -> bool:
        ends = (
            _converted(number, base) if gold.unit and number.unit else (number.first, number.last)
        )
        if self._is_near(ends[0], gold.first) and self._is_near(ends[1], gold.last):
            return True
        # 50 % of a whole is 0.5 of it
        if number.unit == PERCENT and not gold.unit:
            scale = 0.01
        elif gold.unit == PERCENT and not number.unit and 0 < abs(number.first) < 1:
            scale = 100.0
        else:
            return False
        return self._is_near(ends[0] * scale, gold.first) and self._is_near(
            ends[1] * scale, gold.last
        )

    def _is_near(self, value: float, wanted: float) -> bool:
        allowed = max(self.absolute_tolerance, self.relative_tolerance * abs(wanted))
        return value == wanted or abs(value - wanted) <= allowed


_PORTION = re.compile(
    r"(?<![\w-])(?<!first )(?<!second )(?<!last )(?<!latter )(?<!other )(?<!and a )"
    r"(?:(?:an?|one)\s)?(?P<name>half|third|quarter|fifth|tenth)\b(?!-)(?=\s+of\b|\W*$|[.,;!)])",
    re.IGNORECASE,
)
"""A share in words, with nothing that it is a unit of: about half of it, a third."""
_PORTIONS = {"half": 2, "third": 3, "quarter": 4, "fifth": 5, "tenth": 10}


def _is_share(gold: Stated) -> bool:
    return gold.unit == PERCENT or (not gold.unit and 0 < abs(gold.first) < 1)


def _portions(seen: str, stated: Sequence[Stated]) -> list[Stated]:
    """Returns the shares of a text in words that are not among its quantities."""
    found = []
    for match in islice(_PORTION.finditer(seen), _MOST_NUMBERS):
        if any(number.start < match.end() and match.start() < number.end for number in stated):
            continue
        value = 1 / _PORTIONS[as_listed(match["name"])]
        quantity = Quantity(value, value, value, "")
        found.append(Stated(match.start(), match.end(), value, value, "", quantity, in_words=True))
    return found


def _span(number: Stated) -> Span:
    return Span(number.start, number.end)


def _measures(number: Stated, gold: Stated) -> bool:
    """Whether a quantity is of the kind that is wanted."""
    own, wanted = base_units_of(number.unit), base_units_of(gold.unit)
    return (
        bool(number.unit)
        and own is not None
        and wanted is not None
        and own.dimension == wanted.dimension
    )


def _converted(number: Stated, wanted: BaseUnits) -> tuple[float, float]:
    """Returns both ends of a quantity in the wanted unit."""
    own = base_units_of(number.unit) or NO_UNIT
    first, last = (
        (value * own.factor + own.offset - wanted.offset) / wanted.factor
        for value in (number.first, number.last)
    )
    return first, last


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
# A choice's letter at the beginning of a line: "B) …".
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
        check_word("per", self.per, ("characters", "tokens", "nothing"))

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
    # A reference that is one capital, such as "B", names a choice.
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
