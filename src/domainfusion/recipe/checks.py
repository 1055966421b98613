"""What the parts of a recipe have to be to each other: domains, their teachers, and all that names
them.

What a part has to be by itself is said by the constructor of what it stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from domainfusion.distillation.examples import read_examples
from domainfusion.errors import ConfigurationError, DomainFusionError
from domainfusion.recipe.building import STUDENT
from domainfusion.recipe.sections import (
    APISection,
    Location,
    ModelName,
    MultiTaskSection,
    Recipe,
    SequentialSection,
)
from domainfusion.recipe.values import base_of, is_adapter, is_hub_id, suggestion
from domainfusion.types import Example


@dataclass(frozen=True)
class Problem:
    """Something that can't be right, and where it stands.

    Attributes:
        at: The keys that lead there.
        text: What is wrong, what is allowed, and what to do.
    """

    at: Location
    text: str


def problem_at(
    at: Location, what: str, *, received: object = None, allowed: str = "", fix: str = ""
) -> Problem:
    """Returns a problem in the words of `DomainFusionError`."""
    error = ConfigurationError(what, received=received, allowed=allowed, fix=fix)
    return Problem(at, str(error))


def problems_of(recipe: Recipe) -> Iterator[Problem]:
    """Yields what does not fit together in a recipe whose values are of the right kinds. Files of
    examples are read, models are not.
    """
    yield from _domains(recipe)
    yield from _models(recipe)
    yield from _trainer(recipe)
    yield from _evaluation(recipe)


def _domains(recipe: Recipe) -> Iterator[Problem]:
    if not recipe.domains:
        fix = 'write a line "name: what it is about" for each'
        yield problem_at(("domains",), "there are no domains", fix=fix)
    seen: dict[str, str] = {}
    for domain in recipe.domains:
        at = ("domains", domain)
        other = seen.setdefault(" ".join(domain.casefold().split()), domain)
        if other != domain:
            what = f"the domain {other!r} is listed twice, but for case or white space"
            yield problem_at(at, what, received=domain, fix="name each domain once")
        elif not domain.strip() or domain == STUDENT:
            allowed = f"a text that is not empty and not {STUDENT!r}"
            what = "a domain can't have this name"
            yield problem_at(at, what, received=domain, allowed=allowed)
        elif domain not in recipe.teachers:
            fix = f"add {domain}: to the teachers"
            yield problem_at(at, f"the domain {domain!r} has no teacher", fix=fix)
    for domain in recipe.teachers:
        if domain not in recipe.domains:
            what = "a teacher's domain is not among the domains"
            yield _unknown(("teachers", domain), what, domain, recipe.domains)


def _models(recipe: Recipe) -> Iterator[Problem]:
    known = (*recipe.teachers, STUDENT)
    for at, model in ((("student",), recipe.student), *recipe.models()):
        if isinstance(model, ModelName):
            if model not in known:
                fix = "give a model of its own as {path: ...}, or one behind an API as {model: ...}"
                yield _unknown(at, "there is no model of this name", model, known, fix=fix)
            continue
        if isinstance(model, APISection):
            continue
        base = model.base_model or base_of(model.path)
        if not is_adapter(model.path):
            if model.base_model is not None:
                what = "base_model goes with an adapter, and the path is none"
                yield problem_at((*at, "base_model"), what, received=model.path)
        elif not base or not (Path(base).exists() or is_hub_id(base)):
            what = "the base of this adapter is not there"
            fix = "say where it is with base_model: ..."
            yield problem_at(at, what, received=base or None, fix=fix)


def _trainer(recipe: Recipe) -> Iterator[Problem]:
    trainer = recipe.trainer
    remote = [
        domain for domain, teacher in recipe.teachers.items() if isinstance(teacher, APISection)
    ]
    if trainer.initialization == "merge" and remote:
        what = (
            "only experts with weights on this machine can be merged, and the teacher of"
            f" {remote[0]!r} has none"
        )
        yield problem_at(("trainer", "initialization"), what, fix="write initialization: auto")
    if trainer.adaptation == "full" and recipe.student.quantization:
        yield problem_at(
            ("trainer", "adaptation"),
            "the weights of a quantized student stay as they are",
            received=recipe.student.quantization,
            fix="write adaptation: lora, or leave quantization out",
        )
    if isinstance(trainer, MultiTaskSection):
        for domain in trainer.shares or {}:
            if domain not in recipe.domains:
                at = ("trainer", "shares", domain)
                yield _unknown(at, "a share is not of a domain", domain, recipe.domains)
    if isinstance(trainer, SequentialSection) and trainer.order is not None:
        for position, domain in enumerate(trainer.order):
            if domain not in recipe.domains:
                at = ("trainer", "order", position)
                yield _unknown(at, "order contains an unknown domain", domain, recipe.domains)
        left_out = [domain for domain in recipe.domains if domain not in trainer.order]
        if left_out:
            fix = "name every domain, the most general first"
            yield problem_at(("trainer", "order"), f"the order leaves out {left_out[0]!r}", fix=fix)


def _evaluation(recipe: Recipe) -> Iterator[Problem]:
    evaluation = recipe.evaluation
    if evaluation is None:
        return
    for key, what in (("benchmarks", "benchmark"), ("metrics", "metric")):
        for domain in getattr(evaluation, key):
            if domain not in recipe.domains:
                at = ("evaluation", key, domain)
                yield _unknown(at, f"a {what} is not of a domain", domain, recipe.domains)
    for domain, sources in evaluation.benchmarks.items():
        for position, source in enumerate(sources):
            if isinstance(source, str) and domain in recipe.domains:
                place = ("evaluation", "benchmarks", domain, position)
                yield from examples_in(recipe, place, source, domain=domain)
    for key in ("test_examples", "validation_examples"):
        file = getattr(evaluation, key)
        if file is not None:
            yield from examples_in(recipe, ("evaluation", key), file, are_unique=True)


def examples_in(
    recipe: Recipe, at: Location, file: str, *, domain: str = "", are_unique: bool = False
) -> Iterator[Problem]:
    """Yields the first thing that is wrong with a file of examples."""
    try:
        found = list(read_examples(file, domain=domain))
    except (DomainFusionError, TypeError, KeyError, AttributeError) as error:
        yield problem_at(at, f"an example can't be read: {error}".removesuffix("."))
        return
    if not found:
        yield problem_at(at, "the file holds no examples", received=file)
    yield from domains_needed(recipe, at, found)
    twice = [name for name, count in Counter(item.id for item in found).items() if count > 1]
    if twice and are_unique:
        what = "two of the examples are the same, or have the same id"
        yield problem_at(at, what, received=twice[0])


def domains_needed(recipe: Recipe, at: Location, examples: Iterable[Example]) -> Iterator[Problem]:
    """Yields the first example that needs a domain that the recipe does not have."""
    for example in examples:
        strange = [domain for domain in example.domains if domain not in recipe.domains]
        if strange:
            query = example.query[:60]
            what = f"the example {query!r} needs a domain that the recipe does not have"
            yield _unknown(at, what, strange[0], recipe.domains)
            return


def _unknown(
    at: Location,
    what: str,
    name: str,
    known: Iterable[str] | Mapping[str, object],
    *,
    fix: str = "",
) -> Problem:
    advice = suggestion(name, known) or fix
    return problem_at(at, what, received=str(name), allowed=", ".join(known), fix=advice)
