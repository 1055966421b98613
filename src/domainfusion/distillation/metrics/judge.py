"""A model as judge: which of two answers is better, asked in both orders, and how far it agrees
with people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from domainfusion.distillation.metrics.accuracy import (
    EMPTY,
    NO_REFERENCE,
    accepted_answers,
    is_the_answer,
)
from domainfusion.distillation.results import Estimate
from domainfusion.distillation.statistics import Resampling, Values
from domainfusion.distillation.text.sentences import sentences
from domainfusion.errors import DataError, TemplateError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import (
    COHERENCE_PROMPT,
    CONSISTENCY_PROMPT,
    JUDGE_PROMPT,
    fields_of,
    fill,
    unindent,
)
from domainfusion.records import read_lines
from domainfusion.types import Conversation, Example, Sampling, Score, transcript, user

Preference = Literal["first", "second", "tie"]
PREFERENCES: tuple[Preference, ...] = ("first", "second", "tie")

NO_VERDICT = "the judge gave no verdict"
VERDICT_TOKENS = 16
"""As long as a judge's reply may be, unless its `sampling` says otherwise."""

_FIELDS = ("query", "first", "second")
_LABELS = {"a": "first", "b": "second", "same": "tie", "tie": "tie"}
_SWAPPED: dict[Preference, Preference] = {"first": "second", "second": "first", "tie": "tie"}
# A verdict and nothing else: "A", "Answer B.", "tie".
_ALONE = re.compile(r"\W*(?:answer\W+)?(a|b|same|tie)\W*", re.IGNORECASE)
# A verdict in a sentence: "the better answer is B".
_IN_WORDS = re.compile(
    r"\b(?:answer|verdict|better|winner)\b(?:\W+is\b)?\W+(?:answer\W+)?(A|B|same|tie)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """A judge's preference between two answers.

    Attributes:
        preferred: The better one; `tie` where both are as good or the judge contradicted itself;
            None where it gave no verdict.
        consistent: Whether the judge said the same in both orders.
    """

    preferred: Preference | None
    consistent: bool


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Two answers to one query.

    Attributes:
        query: What was asked.
        first: An answer.
        second: Another.
    """

    query: str
    first: str
    second: str


@dataclass(frozen=True)
class Judge:
    """A model that compares an answer with the accepted one.

    Every pair is shown in both orders, since judges prefer a place (Zheng et al., 2023, arXiv
    2306.05685). An answer that is preferred, or found as good, both times has full marks; one that
    loses both times has none; where the judge contradicts itself it is a tie, and worth one half.
    An answer that is the accepted one word for word is right without a question. A reply that is
    not a verdict leaves the answer unscored. Whether the judge can be trusted is for
    `judge_agreement` to say.

    Args:
        model: The judge. It is called through `ask`, so that a run keeps its replies.
        prompt_template: What it is asked: `{query}`, `{first}` and `{second}` are filled.
        sampling: How it answers; by default greedily, up to 16 tokens.

    Raises:
        TemplateError: The template lacks a placeholder.
    """

    model: LanguageModel
    prompt_template: str = field(default=JUDGE_PROMPT, repr=False)
    sampling: Sampling = field(default=Sampling(max_new_tokens=VERDICT_TOKENS), repr=False)

    def __post_init__(self) -> None:
        missing = [name for name in _FIELDS if name not in fields_of(self.prompt_template)]
        if missing:
            raise TemplateError(
                f"The judge's prompt has no place for {{{missing[0]}}}",
                received=self.prompt_template,
            )

    def grade_all(
        self, examples: Sequence[Example], texts: Sequence[str], *, ask: Ask = ask_directly
    ) -> list[Score]:
        """Grades each text against its example's first accepted answer; an example in parts against
        all of them in one.
        """
        golds = [_gold_of(example) for example in examples]
        scores = [
            _without_asking(example, gold, text)
            for example, gold, text in zip(examples, golds, texts, strict=True)
        ]
        open_places = [place for place, score in enumerate(scores) if score is None]
        pairs = [
            AnswerPair(transcript(examples[place].conversation), texts[place], golds[place] or "")
            for place in open_places
        ]
        judged = {
            place: _score(found)
            for place, found in zip(open_places, self.compare(pairs, ask=ask), strict=True)
        }
        return [score or judged[place] for place, score in enumerate(scores)]

    def compare(self, pairs: Sequence[AnswerPair], *, ask: Ask = ask_directly) -> list[PairVerdict]:
        """Returns which answer of each pair the judge prefers; each pair is shown in both
        orders.
        """
        prompts = [
            prompt
            for pair in pairs
            for prompt in (self._prompt(pair.query, pair.first, pair.second), self._swapped(pair))
        ]
        replies = (
            [reply.text for reply in ask(self.model, prompts, self.sampling, label="judging")]
            if prompts
            else []
        )
        return [
            _conclude(read_verdict(one), read_verdict(other))
            for one, other in zip(replies[::2], replies[1::2], strict=True)
        ]

    def _prompt(self, query: str, first: str, second: str) -> Conversation:
        return user(
            fill(unindent(self.prompt_template), {"query": query, "first": first, "second": second})
        )

    def _swapped(self, pair: AnswerPair) -> Conversation:
        return self._prompt(pair.query, pair.second, pair.first)


def read_verdict(reply: str) -> Preference | None:
    """Returns the preference in a judge's reply; None where there is none that can be read, or two
    things.

    Example:
        >>> read_verdict("A"), read_verdict("The better answer is **B**."), read_verdict("[same]"), read_verdict("A fine question!")
        ('first', 'second', 'tie', None)
    """
    last = reply.strip().rpartition("\n")[2]
    alone = _ALONE.fullmatch(last)
    named = {alone[1].lower()} if alone else {label.lower() for label in _IN_WORDS.findall(reply)}
    verdicts = {_LABELS[label] for label in named}
    return next((preference for preference in PREFERENCES if verdicts == {preference}), None)


def _without_asking(example: Example, gold: str | None, text: str) -> Score | None:
    """Returns the grade that is known before the judge is asked; None where it has to be asked."""
    if gold is None:
        return Score.unscored(NO_REFERENCE)
    if not text.strip():
        return Score.not_readable(EMPTY)
    return Score(1.0) if _is_one(example, text) else None


def _conclude(straight: Preference | None, swapped: Preference | None) -> PairVerdict:
    if straight is None or swapped is None:
        return PairVerdict(None, consistent=False)
    agrees = straight == _SWAPPED[swapped]
    return PairVerdict(straight if agrees else "tie", consistent=agrees)


def _score(comparison: PairVerdict) -> Score:
    if comparison.preferred is None:
        return Score.unscored(NO_VERDICT)
    if not comparison.consistent:
        return Score(0.5)
    return Score(float(comparison.preferred != "second"))


def _gold_of(example: Example) -> str | None:
    if example.reference is not None:
        return example.reference
    wanted = [answers[0] for answers in accepted_answers(example) if answers]
    return "; ".join(wanted) or None


def _is_one(example: Example, text: str) -> bool:
    wanted = accepted_answers(example)
    alternatives = wanted[0] if len(wanted) == 1 else (_gold_of(example) or "",)
    return any(is_the_answer(text, answer) for answer in alternatives)


# Agreement with people


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeAgreement:
    """How far a judge agrees with people on the same pairs.

    Attributes:
        items: Pairs that people labeled.
        raw: Share of the judged pairs on which judge and people prefer the same.
        kappa: Cohen's kappa: the agreement beyond chance, (observed − expected) / (1 − expected)
            (Cohen, 1960, doi 10.1177/001316446002000104). Undefined where chance alone would make
            them agree on all.
        contradicted_itself: Pairs on which the judge changed its mind with the order; they count as
            ties.
        without_verdict: Pairs on which its reply was not a verdict; they are in neither figure.
    """

    items: int
    raw: Estimate
    kappa: Estimate
    contradicted_itself: int
    without_verdict: int

    def __str__(self) -> str:
        return (
            f"The judge agrees with people on {self.raw} of {self.items} pairs (Cohen's kappa"
            f" {self.kappa}); it contradicted itself on {self.contradicted_itself} and gave no"
            f" verdict on {self.without_verdict}."
        )


def judge_agreement(
    judge: Judge,
    labeled: str | Path,
    *,
    ask: Ask = ask_directly,
    resamples: int = 10_000,
    seed: int = 0,
) -> JudgeAgreement:
    """Measures how far a judge agrees with people.

    Args:
        judge: The judge.
        labeled: A JSON Lines file; each line has `query`, `first`, `second`, and as `preferred`
            what people said: `first`, `second` or `tie`.
        ask: How the judge is called.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the bootstrap.

    Raises:
        DataError: The file is empty, or a line can't be read.
    """
    pairs, wanted = _read_labeled(Path(labeled))
    found = judge.compare(pairs, ask=ask)
    judged = [
        (person, one.preferred)
        for person, one in zip(wanted, found, strict=True)
        if one.preferred is not None
    ]
    without = len(found) - len(judged)
    nothing = Estimate(value=None, reason=NO_VERDICT)
    raw, kappa = _agreement_of(judged, resamples, seed) if judged else (nothing, nothing)
    changed = sum(one.preferred is not None and not one.consistent for one in found)
    return JudgeAgreement(
        items=len(pairs), raw=raw, kappa=kappa, contradicted_itself=changed, without_verdict=without
    )


def _agreement_of(
    judged: Sequence[tuple[Preference, Preference]], resamples: int, seed: int
) -> tuple[Estimate, Estimate]:
    bootstrap = Resampling(resamples=resamples, seed=seed).over(
        [str(place) for place in range(len(judged))]
    )
    agree = [float(person == judge) for person, judge in judged]
    people = [[float(person == label) for person, _ in judged] for label in PREFERENCES]
    judges = [[float(judge == label) for _, judge in judged] for label in PREFERENCES]
    kappa = bootstrap.formula(_cohens_kappa, [[1.0] * len(judged), agree, *people, *judges])
    return bootstrap.mean(agree), (
        kappa
        if kappa.value is not None
        else Estimate(value=None, reason="both always prefer the same")
    )


def _cohens_kappa(sums: Sequence[Values]) -> Values:
    items, agree, *shares = [column / sums[0] for column in sums]
    half = len(shares) // 2
    expected = sum(
        (one * other for one, other in zip(shares[:half], shares[half:], strict=True)),
        start=0 * items,
    )
    return (agree - expected) / (1 - expected)


def _read_labeled(path: Path) -> tuple[list[AnswerPair], list[Preference]]:
    pairs: list[AnswerPair] = []
    wanted: list[Preference] = []
    for place, entry in read_lines(path):
        label = next(
            (preference for preference in PREFERENCES if entry.get("preferred") == preference), None
        )
        if label is None or not all(isinstance(entry.get(name), str) for name in _FIELDS):
            raise DataError(
                f"{place} is not a labeled pair",
                received=entry,
                allowed=(
                    '{"query": "...", "first": "...", "second": "...", "preferred": "first",'
                    ' "second" or "tie"}'
                ),
            )
        pairs.append(AnswerPair(entry["query"], entry["first"], entry["second"]))
        wanted.append(label)
    if not pairs:
        raise DataError("The file has no labeled pairs", received=str(path), fix="add some lines")
    return pairs, wanted


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
            _coherence_score(found[place])
            if place in found
            else Score.unscored("the answer is empty")
            for place in range(len(texts))
        ]


def read_grade(reply: str) -> int | None:
    """Returns the grade that a judge's reply gives; None where it gives none, or several.

    Example:
        >>> read_grade("4"), read_grade("**Grade: 2/5**"), read_grade("From 1 to 5? It is fine."), read_grade("7")
        (4, 2, None, None)
    """
    # Numbers of digits that are no part of a decimal, without the scale: 2/5, 4 out of 5.
    numbers = {
        int(number)
        for number in re.findall(
            r"(?<![\d.])(\d+)(?!\.?\d)", re.sub(rf"(?:/| out of ){_BEST}\b", "", reply)
        )
    }
    return next(iter(numbers)) if len(numbers) == 1 and 1 <= min(numbers) <= _BEST else None


def _coherence_score(grade: int | None) -> Score:
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
    named: set[int] = set()
    for first, second in pairs:
        if first != second and min(first, second) >= 1 and max(first, second) <= count:
            named |= {first, second}
    if not named and (pairs or not _NO_PAIRS.search(reply)):
        return Score.unscored(NO_VERDICT)
    return Score(1 - len(named) / count)
