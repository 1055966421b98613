"""Agreement with the experts where no reference says what is right: never called accuracy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from domainfusion.checks import check_number
from domainfusion.distillation.evaluator.evaluator import by_slice
from domainfusion.distillation.integration import Task, contradict
from domainfusion.distillation.metrics import Graded, measures_overlap, token_f1
from domainfusion.distillation.metrics.accuracy import MetricChoice
from domainfusion.distillation.results import (
    AgreementScore,
    Coherence,
    CoherenceValidation,
    Estimate,
)
from domainfusion.distillation.statistics import Bootstrap, Resampling
from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.words import content_words, words_of
from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.prompts import AGREEMENT_PROMPT, fill
from domainfusion.types import Example, Generation, Sampling, Score, user

Similarity = Callable[[str, str], float]
"""How like two texts are, 0 to 1; the second is the expert's."""

COVERED_FROM = 2 / 3
"""The share of a claim's content words from which on an answer covers it."""

AGREEMENT_TOKENS = 8
"""As long as the judge's yes, partly or no may be."""

_GRADES = {"yes": 1.0, "partly": 0.5, "no": 0.0}


@dataclass(frozen=True, kw_only=True)
class AgreementSettings:
    """How a student's agreement with the experts is measured on examples without a reference.

    Attributes:
        similarity: How like an answer is to the expert's, 0 to 1; by default the F1 of their words.
        judge: A model that says whether an answer agrees with the expert's; None asks none.
        second_temperature: Temperature of the experts' second answers, which show how far an expert
            agrees with itself.

    Raises:
        ConfigurationError: The temperature is not above 0, or the similarity is not a function.
        CapabilityError: The judge can't answer.
    """

    similarity: Similarity = token_f1
    judge: LanguageModel | None = None
    second_temperature: float = 0.7

    def __post_init__(self) -> None:
        if not callable(self.similarity):
            raise ConfigurationError(
                "The similarity is not a function",
                received=self.similarity,
                allowed="a function of two texts",
                field="similarity",
            )
        if self.judge is not None and not isinstance(self.judge, LanguageModel):
            raise CapabilityError(
                "The judge can't answer",
                received=self.judge,
                allowed="a model with generate(...)",
            )
        check_number("second_temperature", self.second_temperature, "(0, inf)")


class ExpertPair(NamedTuple):
    """An answer and the expert's to the same query."""

    query: str
    answer: str
    expert: str


@dataclass(frozen=True)
class Sides:
    """The models that answered: each has one answer an example, in order.

    Attributes:
        student: The student's answers.
        base: The student's before training; None where it was not measured.
        experts: The experts' answers by domain.
        again: A second answer of each expert, drawn at a temperature, by domain and by the place of
            each example of that domain.
    """

    student: Sequence[Generation]
    base: Sequence[Generation] | None
    experts: Mapping[str, Sequence[Generation]]
    again: Mapping[str, Mapping[int, Generation]]


def ask_again(
    examples: Sequence[Example],
    teachers: Mapping[str, LanguageModel],
    sampling: Sampling,
    ask: Ask,
) -> dict[str, dict[int, Generation]]:
    """Asks each expert the examples of its domain once more.

    Args:
        examples: The examples.
        teachers: The experts by domain.
        sampling: How the second answers are drawn.
        ask: How a model is called.

    Returns:
        The answers by domain and by the place of each example; only domains that some example
        needs.
    """
    second = {}
    for domain, teacher in teachers.items():
        own = [place for place, example in enumerate(examples) if domain in example.domains]
        if own:
            conversations = [examples[place].conversation for place in own]
            label = f"asking the expert of {domain} again"
            answers = ask(teacher, conversations, sampling, label=label)
            second[domain] = dict(zip(own, answers, strict=True))
    return second


Measure = Callable[[Sequence[ExpertPair]], list[Score]]


def claim_coverage(answer: str, expert: str) -> float | None:
    """Returns the share of the expert's sentences that an answer covers; None where the expert
    claims nothing.

    A sentence is covered where the answer has two thirds of its content words, and all those with a
    digit. Whether it is affirmed or denied is not looked at.

    Example:
        >>> claim_coverage("NRT lies in Japan.", "NRT is in Japan. It opened in 1978.")
        0.5
    """
    said = content_words(answer)
    claims = [words for sentence in sentences(expert) if (words := content_words(sentence))]
    if not claims:
        return None
    return sum(_covers(said, claim) for claim in claims) / len(claims)


def _covers(said: frozenset[str], claim: frozenset[str]) -> bool:
    numbers = {word for word in claim if re.search(r"\d", word)}
    return numbers <= said and len(claim & said) >= COVERED_FROM * len(claim)


def by_similarity(similarity: Similarity) -> Measure:
    """Returns the measure of how like two answers are."""

    def measure(pairs: Sequence[ExpertPair]) -> list[Score]:
        return [_checked(similarity(pair.answer, pair.expert)) for pair in pairs]

    return measure


def by_coverage(pairs: Sequence[ExpertPair]) -> list[Score]:
    """Measures claim coverage."""
    found = [claim_coverage(pair.answer, pair.expert) for pair in pairs]
    return [
        Score.unscored("the expert claims nothing") if value is None else Score(value)
        for value in found
    ]


def by_judge(judge: LanguageModel, ask: Ask) -> Measure:
    """Returns the measure that asks a model, in both orders, whether two answers say the same: yes,
    partly or no.

    Where it says neither, there is no grade; where the two orders differ, their mean counts.
    """

    def measure(pairs: Sequence[ExpertPair]) -> list[Score]:
        prompts = [
            user(fill(AGREEMENT_PROMPT, {"query": pair.query, "first": first, "second": second}))
            for pair in pairs
            for first, second in ((pair.answer, pair.expert), (pair.expert, pair.answer))
        ]
        replies = ask(
            judge, prompts, Sampling(max_new_tokens=AGREEMENT_TOKENS), label="judging agreement"
        )
        grades = [_verdict(reply.text) for reply in replies]
        return [
            _both(first, second) for first, second in zip(grades[::2], grades[1::2], strict=True)
        ]

    return measure


def _verdict(reply: str) -> float | None:
    words = words_of(reply)
    return _GRADES.get(words[0]) if words else None


def _both(first: float | None, second: float | None) -> Score:
    if first is None or second is None:
        return Score.unscored("the judge did not say yes, partly or no")
    return Score((first + second) / 2)


def _checked(value: float) -> Score:
    return (
        Score(float(value))
        if 0 <= value <= 1
        else Score.unscored(f"the similarity is {value}, which is outside of 0 to 1")
    )


def measure_agreement(
    examples: Sequence[Example],
    sides: Sides,
    measures: Mapping[str, Measure],
    bootstrap: Callable[[Sequence[int]], Bootstrap],
) -> tuple[AgreementScore, ...]:
    """Measures each slice by each measure.

    Args:
        examples: The examples, which have no reference.
        sides: The models that answered them.
        measures: The measures by name.
        bootstrap: Resamples the examples at the given places.
    """
    rows = []
    for name, measure in measures.items():
        grades = {
            "student": _grades(
                examples, dict.fromkeys(sides.experts, sides.student), sides.experts, measure
            ),
            "expert": _grades(examples, sides.again, sides.experts, measure),
        }
        if sides.base is not None:
            grades["base"] = _grades(
                examples, dict.fromkeys(sides.experts, sides.base), sides.experts, measure
            )
        rows += [
            _row(slice_name, name, places, grades, bootstrap)
            for slice_name, places in by_slice(examples).items()
        ]
    return tuple(rows)


def _grades(
    examples: Sequence[Example],
    answers: Mapping[str, Sequence[Generation] | Mapping[int, Generation]],
    experts: Mapping[str, Sequence[Generation]],
    measure: Measure,
) -> list[float | None]:
    """Returns an example's mean grade over its experts; None where one of them left nothing to
    compare with.
    """
    pairs = [
        ExpertPair(example.query, answers[domain][place].text, experts[domain][place].text)
        for place, example in enumerate(examples)
        for domain in example.domains
    ]
    kept = [pair for pair in pairs if pair.expert.strip()]
    graded = iter(measure(kept) if kept else [])
    scores = iter(
        [
            next(graded) if pair.expert.strip() else Score.unscored("the expert said nothing")
            for pair in pairs
        ]
    )
    found: list[float | None] = []
    for example in examples:
        values = [next(scores).value for _ in example.domains]
        known = [value for value in values if value is not None]
        found.append(sum(known) / len(known) if len(known) == len(values) else None)
    return found


def _row(
    slice_name: str,
    measure: str,
    places: Sequence[int],
    grades: Mapping[str, Sequence[float | None]],
    bootstrap: Callable[[Sequence[int]], Bootstrap],
) -> AgreementScore:
    measured = [
        place for place in places if all(side[place] is not None for side in grades.values())
    ]
    unscored = len(places) - len(measured)
    if not measured:
        nothing = Estimate(value=None, reason="there is nothing to compare")
        return AgreementScore(
            slice=slice_name,
            measure=measure,
            items=0,
            student=nothing,
            expert=nothing,
            base=None,
            relative=nothing,
            unscored=unscored,
        )
    resampled = bootstrap(measured)
    values = {name: [side[place] or 0.0 for place in measured] for name, side in grades.items()}
    relative = resampled.ratio(values["student"], values["expert"])
    return AgreementScore(
        slice=slice_name,
        measure=measure,
        items=len(measured),
        student=resampled.mean(values["student"]),
        expert=resampled.mean(values["expert"]),
        base=resampled.mean(values["base"]) if "base" in values else None,
        relative=relative
        if relative.value is not None
        else Estimate(value=None, reason="the expert does not agree with itself"),
        unscored=unscored,
    )


MOST_SENTENCES = 30
"""Sentences of an answer that are compared, each with each other."""


def consistency(text: str) -> Score:
    """Grades a text by the share of its sentences that no other one contradicts, by the rules of
    integration.

    The rules see a sentence that says another one with a different value, name or negation. A
    contradiction in other words they do not see: `benchmarks/coherence.md` has the figures.

    Example:
        >>> round(consistency("Gold melts at 1064 °C. It is dense. Gold melts at 961 °C.").value, 3)
        0.333
    """
    given = list(dict.fromkeys(sentences(text)))[:MOST_SENTENCES]
    if not given:
        return Score.unscored("the answer is empty")
    contradicted: set[int] = set()
    for (place, sentence), (other_place, other) in combinations(enumerate(given), 2):
        if contradict(sentence, other):
            contradicted |= {place, other_place}
    return Score(1 - len(contradicted) / len(given))


consistency.sees = ("contradicted", "contradicted in the same words")  # type: ignore[attr-defined]


def integration_coherence(
    examples: Sequence[Example],
    graded: Sequence[Graded],
    tasks: Sequence[Task],
    grades: Sequence[Score],
    metric: MetricChoice,
    resampling: Resampling,
    *,
    name: str,
    validation: CoherenceValidation | None,
) -> Coherence:
    """Returns the mean over answers of coverage × the grade of a coherence metric.

    Leaving a part out and contradicting oneself are what an integration can do wrong; so a refusal,
    which covers nothing, has 0 however smoothly it is put, and a second expert that agrees lowers
    nothing.

    Args:
        examples: The cross-domain examples.
        graded: The student's answers and how right they are.
        tasks: What the experts said to them: where an example says nothing of its parts, an answer
            has to cover that.
        grades: The coherence metric's grade of each answer.
        metric: The accuracy metric.
        resampling: Draws the resamples.
        name: The coherence metric, as reports call it.
        validation: What was measured of it.
    """
    covered = [
        0.0 if not answer.generation.text.strip() else _coverage(example, answer, task, metric)
        for example, answer, task in zip(examples, graded, tasks, strict=True)
    ]
    values: list[tuple[str, float, float]] = []
    for example, coverage, grade in zip(examples, covered, grades, strict=True):
        # What covers nothing has no coherence to lose, and needs no grade of it.
        if coverage == 0:
            values.append((example.group, 0.0, grade.value or 0.0))
        elif coverage is not None and grade.value is not None:
            values.append((example.group, coverage, grade.value))
    if not values:
        reasons = [grade.reason for grade in grades if grade.value is None]
        reason = reasons[0] if reasons else "there is no reference answer"
        nothing = Estimate(value=None, reason=reason)
        return Coherence(
            score=nothing,
            coverage=nothing,
            consistency=nothing,
            items=0,
            unscored=len(examples),
            metric=name,
            validation=validation,
        )
    bootstrap = resampling.over([group for group, _, _ in values])
    return Coherence(
        score=bootstrap.mean([coverage * grade for _, coverage, grade in values]),
        coverage=bootstrap.mean([coverage for _, coverage, _ in values]),
        consistency=bootstrap.mean([grade for _, _, grade in values]),
        items=len(values),
        unscored=len(examples) - len(values),
        metric=name,
        validation=validation,
    )


def _coverage(example: Example, answer: Graded, task: Task, metric: MetricChoice) -> float | None:
    """Returns the share of what belongs into an answer that stands in it; None where nobody says
    what does.
    """
    if answer.score.value is not None and not measures_overlap(metric, example):
        return answer.score.value
    said = [response.text for response in task.responses.values()]
    shares = [claim_coverage(answer.generation.text, text) for text in said]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None
