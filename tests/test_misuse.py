"""Misuse of the Python API, by kind: each is an error of this package that says what was given and
what is allowed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

import domainfusion.distillation
import domainfusion.models
from domainfusion.distillation import (
    BenchmarkEvaluator,
    CuratedDataGenerator,
    DomainRetentionEvaluator,
    ResponseIntegrator,
)
from domainfusion.distillation.settings import RunSettings
from domainfusion.errors import ConfigurationError, DataError, DomainFusionError
from domainfusion.merging import merge
from domainfusion.models import APIModel, ScriptedModel
from domainfusion.types import Message, user

MODEL = ScriptedModel("x")
DOMAINS = {"law": "Laws", "tax": "Taxes"}
TEST = {"law": [{"query": "Q?", "domain": "law", "answers": {"law": "x"}}]}


def wrong(given: object) -> Any:
    """Returns what a checker of types would not let through."""
    return given


REQUIRED: Mapping[str, tuple[Any, ...]] = {
    "APIModel": ("name",),
    "AdversarialDataGenerator": (MODEL, DOMAINS, 4),
    "BenchmarkEvaluator": (TEST,),
    "CuratedDataGenerator": ([{"query": "Q?", "domain": "law"}],),
    "SyntheticDataGenerator": (MODEL, DOMAINS, 4),
}
"""What classes can't be made without."""

LEFT_OUT = {"Adaptation", "Trainer"}
"""A plan that a trainer makes, and a class without objects."""


class Number(NamedTuple):
    """An argument that takes a number."""

    kind: type
    name: str

    def __str__(self) -> str:
        return f"{self.kind.__name__}.{self.name}"


def numbers() -> Iterator[Number]:
    """Yields every argument of a public class that takes a number."""
    packages = (domainfusion.distillation, domainfusion.models)
    public = [getattr(package, name) for package in packages for name in package.__all__]
    classes = [one for one in (*public, RunSettings) if inspect.isclass(one)]
    for kind in classes:
        if kind.__name__ in LEFT_OUT or issubclass(kind, Exception) or not _can_be_made(kind):
            continue
        for name, argument in inspect.signature(kind).parameters.items():
            kinds = str(argument.annotation).replace("|", " ").split()
            if {"int", "float"} & set(kinds):
                yield Number(kind, name)


def _can_be_made(kind: type) -> bool:
    try:
        inspect.signature(kind).bind(*REQUIRED.get(kind.__name__, ()))
    except (TypeError, ValueError):
        return False
    return True


NUMBERS = list(dict.fromkeys(numbers()))


def test_numbers_of_every_part_are_looked_at() -> None:
    seen = {number.kind.__name__ for number in NUMBERS}
    parts = ("IntegrationTrainer", "SyntheticDataGenerator", "DomainRetentionEvaluator", "Hygiene")
    assert seen >= {*parts, "RunSettings", "Engine"}


@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_a_number_as_text_is_refused_with_its_name(number: Number) -> None:
    made = inspect.signature(number.kind).bind(*REQUIRED.get(number.kind.__name__, ()))
    with pytest.raises(DomainFusionError) as failure:
        number.kind(**{**made.arguments, number.name: "2"})
    told = str(failure.value)
    assert "'2'" in told and ("allowed: " in told or "To fix it: " in told)
    assert number.name in told


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (lambda: MODEL.generate(wrong("Hi")), ConfigurationError, "received 'Hi'; allowed: a list of tuples of messages"),
        (lambda: MODEL.generate(wrong(["Hi"])), ConfigurationError, "conversations are not conversations; received ['Hi']"),
        (lambda: MODEL.generate(wrong(None)), ConfigurationError, "conversations are not conversations"),
        (lambda: MODEL.generate([user("Hi")], wrong({"top_p": 1})), ConfigurationError, "not a Sampling; received {'top_p': 1}"),
        (lambda: APIModel("m", base_url="http://127.0.0.1:1/v1").generate(wrong("Hi")), ConfigurationError, "received 'Hi'"),
        (lambda: user(wrong(None)), DataError, "not a text"),
        (lambda: Message("user", wrong(["a"])), DataError, "received ['a']; allowed: a text"),
        (lambda: APIModel(wrong(None)), ConfigurationError, "model"),
        (lambda: ScriptedModel(wrong(None)), ConfigurationError, "The script can't answer"),
        (lambda: CuratedDataGenerator(wrong(None)), DataError, "allowed: a path, a list of examples"),
        (lambda: CuratedDataGenerator(wrong(5)), DataError, "received 5; allowed: a path"),
        (lambda: BenchmarkEvaluator(benchmarks=wrong(["mmlu"])), ConfigurationError, "benchmarks names no domains; received ['mmlu']"),
        (lambda: ResponseIntegrator().integrate(wrong(None), {"law": "x"}), DataError, "The query is not a text"),
        (lambda: merge(wrong(None), wrong([MODEL])), ConfigurationError, "experts names no domains"),
        (lambda: DomainRetentionEvaluator(metric="acuracy"), ConfigurationError, "received 'acuracy'"),
        (lambda: RunSettings(response_sampling=wrong({"top_p": 1})), ConfigurationError, "write Sampling("),
        (lambda: RunSettings(verifier=wrong("exact")), ConfigurationError, "verifier is not a function; received 'exact'"),
        (lambda: RunSettings(answers=wrong(3)), ConfigurationError, "answers is not a path; received 3"),
    ],
)  # fmt: skip
def test_what_is_of_the_wrong_kind_is_named(
    build: Callable[[], object], error: type[DomainFusionError], said: str
) -> None:
    with pytest.raises(error) as failure:
        build()
    assert said in str(failure.value)
