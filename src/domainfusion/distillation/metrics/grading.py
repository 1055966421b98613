"""Asking and grading: which metric grades which example, metrics by their names, and one way to use
every kind of metric.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, cast

from domainfusion.distillation.metrics.accuracy import (
    BatchCoherence,
    BatchMetric,
    CoherenceMetric,
    Graded,
    MayBeOverlap,
    Metric,
    MetricChoice,
    ModelMetric,
    stated_parts,
)
from domainfusion.errors import ConfigurationError, suggestion
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Sampling, Score

METRICS = {
    "stated_parts": "stated_parts",
    "exact": "Exact",
    "contains": "Contains",
    "numeric": "Numeric",
    "choice": "NamedChoice",
    "likelihood": "LikelyChoice",
    "token_f1": "TokenF1",
    "rouge_l": "RougeL",
    "embedding": "EmbeddingSimilarity",
}
"""The public name in this package that a metric's name stands for, loaded when it is asked for. A
judge has no name: it needs a model.
"""

_NO_ANSWER = Score.unscored("the model did not answer")


def grade(
    metric: MetricChoice,
    model: LanguageModel,
    examples: Sequence[Example],
    *,
    sampling: Sampling = Sampling(),
    ask: Ask = ask_directly,
    label: str = "",
) -> list[Graded]:
    """Puts examples to a model and grades its answers.

    An example whose `metadata["metric"]` names a metric, with settings or without, is graded by
    that one. Else, where there is one for each domain, by that of its domain: an example with parts
    part by part, each by the metric of the part's domain. A domain without one is graded by
    `stated_parts`.

    Args:
        metric: A metric, the name of one, or one for each domain.
        model: The model that answers.
        examples: What is asked.
        sampling: How it answers.
        ask: How models are called.
        label: Names the work where its progress is shown.

    Returns:
        The answers with their grades, in the order of the examples.

    Raises:
        ConfigurationError: There is no metric of a name, or a metric that needs the model itself
            would grade a part of an example.
        CapabilityError: A metric needs more of the model than it can do.
    """
    chosen = [_pieces(metric, example) for example in examples]
    graded: dict[int, Graded] = {}
    by_model = {
        place: pieces[0][0]
        for place, pieces in enumerate(chosen)
        if isinstance(pieces[0][0], ModelMetric)
    }
    for own, places in _groups(by_model.items()):
        assert isinstance(own, ModelMetric)
        found = own.ask_and_grade(
            model, [examples[place] for place in places], sampling=sampling, ask=ask, label=label
        )
        graded.update(zip(places, found, strict=True))
    rest = [place for place in range(len(examples)) if place not in graded]
    answers = (
        ask(model, [examples[place].conversation for place in rest], sampling, label=label)
        if rest
        else []
    )
    graded.update(
        {place: Graded(answer, _NO_ANSWER) for place, answer in zip(rest, answers, strict=True)}
    )
    answered = [place for place in rest if graded[place].generation.finish_reason != "failed"]
    scores = grade_texts(
        metric,
        [examples[place] for place in answered],
        [graded[place].generation.text for place in answered],
        ask=ask,
    )
    graded.update(
        {
            place: Graded(graded[place].generation, score)
            for place, score in zip(answered, scores, strict=True)
        }
    )
    return [
        Graded(graded[place].generation, _checked(graded[place].score))
        for place in range(len(examples))
    ]


def grade_texts(
    metric: MetricChoice,
    examples: Sequence[Example],
    texts: Sequence[str],
    *,
    ask: Ask = ask_directly,
) -> list[Score]:
    """Grades answers that are there already; see `grade`.

    Raises:
        ConfigurationError: There is no metric of a name, or the metric needs the model itself.
    """
    pieces = [
        (place, own, part)
        for place, example in enumerate(examples)
        for own, part in _pieces(metric, example)
    ]
    found: dict[int, Score] = {}
    for own, numbers in _groups((number, own) for number, (_, own, _) in enumerate(pieces)):
        asked, given = (
            [pieces[number][2] for number in numbers],
            [texts[pieces[number][0]] for number in numbers],
        )
        found.update(zip(numbers, _apply(own, asked, given, ask), strict=True))
    of_place: dict[int, list[Score]] = {}
    for number, (place, _, _) in enumerate(pieces):
        of_place.setdefault(place, []).append(_checked(found[number]))
    return [_join(of_place[place]) for place in range(len(examples))]


def reads_texts(metric: MetricChoice, example: Example) -> bool:
    """Whether the metric of an example grades a text, whoever wrote it, and needs no model that is
    measured.
    """
    return not any(isinstance(own, ModelMetric) for own, _ in _pieces(metric, example))


def grade_coherence(
    metric: CoherenceMetric | BatchCoherence, texts: Sequence[str], *, ask: Ask = ask_directly
) -> list[Score]:
    """Grades how well each text holds together."""
    found = (
        metric.grade_all(texts, ask=ask)
        if isinstance(metric, BatchCoherence)
        else [metric(text) for text in texts]
    )
    return [_checked(score) for score in found]


def check_metric(metric: MetricChoice, domains: Iterable[str] | None = None) -> None:
    """Refuses anything but a metric, and a metric of a domain that is none of `domains`.

    Raises:
        ConfigurationError: With what is allowed.
    """
    known = None if domains is None else list(domains)
    for domain, own in metric.items() if isinstance(metric, Mapping) else [("", metric)]:
        if known is not None and domain and domain not in known:
            raise ConfigurationError(
                "There is a metric for an unknown domain", received=domain, allowed=", ".join(known)
            )
        if isinstance(own, str):
            metric_named(own)
        elif not (callable(own) or isinstance(own, BatchMetric | ModelMetric)):
            raise ConfigurationError(
                "This is not a metric",
                received=own,
                allowed="a function of example and text, an object of domainfusion's, or a name",
            )


def metric_named(wanted: str | Mapping[str, Any]) -> Metric:
    """Returns a metric by its name, or by a mapping of its name and its settings.

    Raises:
        ConfigurationError: There is no metric of this name, or it does not have this setting.

    Example:
        >>> metric_named("exact"), metric_named({"name": "token_f1", "right_from": 0.8})
        (Exact(), TokenF1(right_from=0.8))
    """
    given = dict(wanted) if isinstance(wanted, Mapping) else {"name": wanted}
    name = str(given.pop("name", ""))
    if name not in METRICS:
        raise ConfigurationError(
            "There is no metric of this name",
            received=name,
            allowed=", ".join(METRICS),
            fix=suggestion(name, METRICS),
        )
    found = getattr(importlib.import_module(str(__package__)), METRICS[name])
    try:
        return cast(Metric, found(**given) if isinstance(found, type) or given else found)
    except TypeError as error:
        raise ConfigurationError(
            f"The metric {name} can't be made: {error}",
            received=given,
            fix="see docs/guides/metrics.md",
        ) from error


def measures_overlap(metric: MetricChoice, example: Example) -> bool:
    """Whether the grade of an example is an overlap of words or a nearness, from which nothing
    follows about accuracy.

    So are token F1, ROUGE-L and the similarity of embeddings, what `stated_parts` gives for an
    example with a reference and no parts, and a metric of your own with an attribute `is_overlap`
    that is true.

    Example:
        >>> words = Example(query="Why?", domains=("d",), reference="Because it melts.")
        >>> [measures_overlap(metric, words) for metric in (stated_parts, "token_f1", "exact", {"d": "rouge_l"})]
        [True, True, False, True]
    """
    return any(_is_overlap(own, part) for own, part in _pieces(metric, example))


def _is_overlap(metric: Metric, example: Example) -> bool:
    if metric is stated_parts:
        return not example.parts and example.reference is not None
    return isinstance(metric, MayBeOverlap) and bool(metric.is_overlap)


def name_of(metric: object) -> str:
    """Returns the name of a metric in reports.

    Example:
        >>> name_of({"chemistry": "numeric", "law": stated_parts})
        'chemistry: numeric, law: stated_parts'
    """
    if isinstance(metric, str):
        return metric
    if isinstance(metric, Mapping):
        return ", ".join(f"{domain}: {name_of(own)}" for domain, own in metric.items())
    if is_dataclass(metric):
        return repr(metric)
    # A function has a name; any other object is known by its class.
    return str(getattr(metric, "__name__", type(metric).__name__))


def _pieces(metric: MetricChoice, example: Example) -> list[tuple[Metric, Example]]:
    """Returns the metric of an example or, where its parts have several, of each part of it."""
    named = example.metadata.get("metric")
    if named is not None:
        return [(metric_named(named), example)]
    if not isinstance(metric, Mapping):
        return [(_as_metric(metric), example)]
    own = [_as_metric(metric.get(part.domain, stated_parts)) for part in example.parts]
    if all(other == own[0] for other in own):
        return [
            (
                own[0] if own else _as_metric(metric.get(example.primary_domain, stated_parts)),
                example,
            )
        ]
    if any(isinstance(one, ModelMetric) for one in own):
        raise ConfigurationError(
            f"The parts of {example.query[:60]!r} have several metrics, one of which needs the"
            " model itself",
            received=[name_of(one) for one in own],
            fix='name one metric for this example in metadata["metric"]',
        )
    return [
        (one, replace(example, parts=(part,))) for one, part in zip(own, example.parts, strict=True)
    ]


def _as_metric(metric: Metric | str) -> Metric:
    return metric_named(metric) if isinstance(metric, str) else metric


def _groups(metrics: Iterable[tuple[int, Metric]]) -> list[tuple[Metric, list[int]]]:
    """Puts those together that have the same metric, so that each metric works on all of its own at
    once.
    """
    groups: list[tuple[Metric, list[int]]] = []
    for place, metric in metrics:
        group = next((places for other, places in groups if other == metric), None)
        if group is None:
            groups.append((metric, [place]))
        else:
            group.append(place)
    return groups


def _apply(
    metric: Metric, examples: Sequence[Example], texts: Sequence[str], ask: Ask
) -> list[Score]:
    if isinstance(metric, ModelMetric):
        raise ConfigurationError(
            "This metric needs the model itself and can't grade text",
            received=metric,
            fix="grade with another, such as choice",
        )
    if isinstance(metric, BatchMetric):
        return metric.grade_all(examples, texts, ask=ask)
    return [metric(example, text) for example, text in zip(examples, texts, strict=True)]


def _checked(score: Score | float) -> Score:
    """Takes a plain number for a grade, and refuses one that is none."""
    found = score if isinstance(score, Score) else Score(float(score))
    if found.value is not None and not 0 <= found.value <= 1:
        return Score.unscored(f"the metric gave {found.value}, which is outside of 0 to 1")
    return found


def _join(scores: Sequence[Score]) -> Score:
    """Returns the grade of an example from those of its parts."""
    if len(scores) == 1:
        return scores[0]
    unscored = next((score for score in scores if score.value is None), None)
    if unscored is not None:
        return unscored
    values = tuple(score.value or 0.0 for score in scores)
    readable = any(score.readable for score in scores)
    return Score(sum(values) / len(values), "" if readable else scores[0].reason, values, readable)
