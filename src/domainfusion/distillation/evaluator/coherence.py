"""Integration Coherence: whether an answer across domains is whole, and free of contradictions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from domainfusion.distillation.evaluator.agreement import claim_coverage
from domainfusion.distillation.integration import Task, contradict
from domainfusion.distillation.metrics import Graded, measures_overlap, sentences
from domainfusion.distillation.metrics.metric import MetricChoice
from domainfusion.distillation.results import Coherence, CoherenceValidation, Estimate
from domainfusion.distillation.statistics import Resampling
from domainfusion.types import Example, Score

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
