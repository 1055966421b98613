"""What the parts of a recipe have to be to each other: domains, their teachers, and all that names
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from domainfusion.distillation.examples import read_examples
from domainfusion.errors import ConfigurationError, DataError, MissingDependencyError
from domainfusion.prompts import fields_of
from domainfusion.recipe.document import Location
from domainfusion.recipe.sections import (
    AdversarialSection,
    APISection,
    CuratedSection,
    EvaluationSection,
    ModelIntegratorSection,
    ModelSection,
    MultiTaskSection,
    Recipe,
    SequentialSection,
    SyntheticSection,
    base_of,
    is_adapter,
    is_hub_id,
    suggestion,
)
from domainfusion.types import Example, domains_of

STUDENT = "student"
"""The name under which generators and integrator find the student; no domain may have it."""


@dataclass(frozen=True)
class Problem:
    """Something that can't be right, and where it stands.

    Attributes:
        at: The keys that lead there.
        what: What is wrong.
        received: The value.
        allowed: What is allowed instead.
        fix: What to do.
    """

    at: Location
    what: str
    received: object = None
    allowed: str = ""
    fix: str = ""


def problems_of(recipe: Recipe) -> Iterator[Problem]:
    """Yields what does not fit together in a recipe whose values are right one by one. Files of
    examples are read, models are not.
    """
    parts = (_domains, _models, _generators, _integrator, _trainer, _evaluation)
    found = [problem for part in parts for problem in part(recipe)]
    yield from found or (*_idle(recipe), *_refinement(recipe))


def _domains(recipe: Recipe) -> Iterator[Problem]:
    if not recipe.domains:
        yield Problem(
            ("domains",),
            "there are no domains",
            fix='write a line "name: what it is about" for each',
        )
    seen: dict[str, str] = {}
    for domain in recipe.domains:
        other = seen.setdefault(" ".join(domain.casefold().split()), domain)
        if other != domain:
            what = f"the domain {other!r} is listed twice, but for case or white space"
            yield Problem(("domains", domain), what, received=domain, fix="name each domain once")
        elif not domain.strip() or domain == STUDENT:
            allowed = f"a text that is not empty and not {STUDENT!r}"
            yield Problem(
                ("domains", domain),
                "a domain can't have this name",
                received=domain,
                allowed=allowed,
            )
        elif domain not in recipe.teachers:
            yield Problem(
                ("domains", domain),
                f"the domain {domain!r} has no teacher",
                fix=f"add {domain}: to the teachers",
            )
    for domain in recipe.teachers:
        if domain not in recipe.domains:
            yield _unknown(
                ("teachers", domain),
                "a teacher's domain is not among the domains",
                domain,
                recipe.domains,
            )


def _models(recipe: Recipe) -> Iterator[Problem]:
    for at, model in ((("student",), recipe.student), *models_of(recipe)):
        if isinstance(model, APISection):
            continue
        base = model.base_model or base_of(model.path)
        if not is_adapter(model.path):
            if model.base_model is not None:
                what = "base_model goes with an adapter, and the path is none"
                yield Problem((*at, "base_model"), what, received=model.path)
        elif not base or not (Path(base).exists() or is_hub_id(base)):
            what, fix = (
                "the base of this adapter is not there",
                "say where it is with base_model: ...",
            )
            yield Problem(at, what, received=base or None, fix=fix)


def models_of(recipe: Recipe) -> Iterator[tuple[Location, ModelSection | APISection]]:
    """Yields the teachers and all further models, each with its place; the student is not among
    them.
    """
    for domain, teacher in recipe.teachers.items():
        yield ("teachers", domain), teacher
    for position, generator in enumerate(recipe.generators):
        for key in ("model", "judge"):
            if isinstance(model := getattr(generator, key, None), ModelSection | APISection):
                yield ("generators", position, key), model
    for key in ("model", "verifier"):
        if isinstance(model := getattr(recipe.integrator, key, None), ModelSection | APISection):
            yield ("integrator", key), model
    for key in ("judge", "reference_model", "agreement_judge"):
        if isinstance(model := getattr(recipe.evaluation, key, None), ModelSection | APISection):
            yield ("evaluation", key), model


def _generators(recipe: Recipe) -> Iterator[Problem]:
    if not recipe.generators:
        yield Problem(
            ("generators",),
            "there are no generators",
            fix="add one, such as {type: curated, file: examples.jsonl}",
        )
    for position, generator in enumerate(recipe.generators):
        at = ("generators", position)
        if isinstance(generator, CuratedSection):
            yield from _curated(recipe, at, generator)
            continue
        yield from _known_model(recipe, at, generator.model)
        if generator.judge is not None:
            yield from _known_model(recipe, at, generator.judge, key="judge")
            if not generator.verify:
                yield Problem(
                    (*at, "judge"),
                    "with verify: false, a judge has nothing to do",
                    fix="remove one of the two",
                )
        topics = (generator.variety.topics if generator.variety else None) or {}
        for domain in topics:
            if domain not in recipe.domains:
                allowed = ", ".join(recipe.domains)
                yield Problem(
                    (*at, "variety", "topics", domain),
                    "these are topics of an unknown domain",
                    received=domain,
                    allowed=allowed,
                )
        if isinstance(generator, AdversarialSection):
            fields = ("count", "apparent", "needed", "apparent_domain", "needed_domain")
            yield from _template((*at, "prompt_template"), generator.prompt_template, fields)
            if len(recipe.domains) < 2:
                yield Problem(
                    at,
                    "adversarial examples need two domains",
                    fix="name another domain, or remove this generator",
                )
        elif isinstance(generator, SyntheticSection):
            yield from _template(
                (*at, "prompt_template"),
                generator.prompt_template,
                ("count", "domain", "description"),
            )
            yield from _template(
                (*at, "cross_domain_template"),
                generator.cross_domain_template,
                ("count", "domains", "subjects"),
            )
            yield from _crossing(recipe, at, generator)


def _crossing(recipe: Recipe, at: Location, generator: SyntheticSection) -> Iterator[Problem]:
    sizes = generator.domains_per_example
    if not sizes:
        yield Problem(
            (*at, "domains_per_example"),
            "domains_per_example is empty",
            fix="write domains_per_example: 2",
        )
    elif generator.cross_domain_ratio > 0 and len(recipe.domains) < max(sizes):
        key = "cross_domain_ratio" if sizes == [2] else "domains_per_example"
        what = f"cross-domain examples need {'two' if max(sizes) == 2 else max(sizes)} domains"
        yield Problem((*at, key), what, fix="name another domain, or write cross_domain_ratio: 0")
    if generator.sub_questions and generator.reply_format == "lines":
        yield Problem(
            (*at, "sub_questions"), "sub-questions come in JSON", fix="write reply_format: json"
        )


def _curated(recipe: Recipe, at: Location, generator: CuratedSection) -> Iterator[Problem]:
    key = next(
        name for name in ("file", "examples", "review") if getattr(generator, name) is not None
    )
    count = 0
    for found in _examples(recipe, (*at, key), generator.read):
        if isinstance(found, Problem):
            yield found
            return
        count += 1
    if not count:
        yield Problem(
            (*at, key), "there are no examples" if key != "review" else "the review accepts nothing"
        )
    if generator.num_examples is not None and generator.num_examples > count:
        what = "num_examples is out of range"
        yield Problem(
            (*at, "num_examples"), what, received=generator.num_examples, allowed=f"1 to {count}"
        )


def _idle(recipe: Recipe) -> Iterator[Problem]:
    """Looks for domains of which nobody makes an example; a generator that lets a model write
    covers them all.
    """
    curated = [
        generator for generator in recipe.generators if isinstance(generator, CuratedSection)
    ]
    if len(curated) < len(recipe.generators):
        return
    covered = domains_of([example for generator in curated for example in generator.read()])
    for domain in recipe.domains:
        if domain not in covered:
            what = f"no example needs the domain {domain!r}, so its teacher would never be asked"
            yield Problem(
                ("domains", domain), what, fix="add examples of it, or leave the domain out"
            )


def _has_validation(recipe: Recipe) -> bool:
    evaluation = recipe.evaluation
    return evaluation is not None and not (
        evaluation.validation_examples is None and evaluation.validation_holdout is None
    )


def _refinement(recipe: Recipe) -> Iterator[Problem]:
    if not recipe.refinement_rounds:
        return
    at = ("refinement_rounds",)
    if not _has_validation(recipe):
        what, fix = (
            "validation says where to refine, and there is none",
            "write evaluation.validation_holdout: 0.1, or leave it out",
        )
        yield Problem(at, what, received=recipe.refinement_rounds, fix=fix)
    if not any(generator.makes_more for generator in recipe.generators):
        allowed = (
            "a synthetic or adversarial generator, or a curated one with num_examples below what"
            " there is"
        )
        what = "no generator can make more examples for a refinement"
        yield Problem(
            at,
            what,
            received=recipe.refinement_rounds,
            allowed=allowed,
            fix="add one, or leave refinement_rounds out",
        )


def _integrator(recipe: Recipe) -> Iterator[Problem]:
    integrator = recipe.integrator
    if not isinstance(integrator, ModelIntegratorSection):
        return
    yield from _known_model(recipe, ("integrator",), integrator.model)
    if integrator.verifier is not None:
        yield from _known_model(recipe, ("integrator",), integrator.verifier, key="verifier")
    at, template = ("integrator", "prompt_template"), integrator.prompt_template
    if template is None:
        return
    yield from _template(at, template, ("query", "responses", *recipe.domains))
    fields = fields_of(template)
    if "query" not in fields:
        yield Problem(
            at, "the prompt has no place for the query", fix="write {query} where it belongs"
        )
    homeless = [domain for domain in recipe.domains if domain not in fields]
    if homeless and "responses" not in fields:
        what = f"the prompt has no place for the response of {homeless[0]!r}"
        yield Problem(at, what, fix=f"write {{responses}} or {{{homeless[0]}}}")


def _trainer(recipe: Recipe) -> Iterator[Problem]:
    trainer = recipe.trainer
    if trainer.initialization == "merge":
        remote = [
            domain for domain, teacher in recipe.teachers.items() if isinstance(teacher, APISection)
        ]
        if remote:
            what = (
                "only experts with weights on this machine can be merged, and the teacher of"
                f" {remote[0]!r} has none"
            )
            yield Problem(("trainer", "initialization"), what, fix="write initialization: auto")
    if trainer.adaptation == "full" and recipe.student.quantization:
        what, fix = (
            "the weights of a quantized student stay as they are",
            "write adaptation: lora, or leave quantization out",
        )
        yield Problem(
            ("trainer", "adaptation"), what, received=recipe.student.quantization, fix=fix
        )
    if trainer.initialization == "base" and isinstance(trainer.merge_weight, list):
        yield Problem(
            ("trainer", "merge_weight"),
            "it is chosen for a start from the merge",
            fix="write initialization: auto",
        )
    if not _has_validation(recipe) and trainer.early_stopping_patience is not None:
        what = "validation decides when to stop early, and there is none"
        fix = "leave it out, or write evaluation.validation_holdout: 0.1"
        yield Problem(("trainer", "early_stopping_patience"), what, fix=fix)
    if trainer.device_batch_size is not None and trainer.batch_size % trainer.device_batch_size:
        what, allowed = (
            "batch_size is not a multiple of device_batch_size",
            f"a divisor of {trainer.batch_size}",
        )
        yield Problem(
            ("trainer", "device_batch_size"),
            what,
            received=trainer.device_batch_size,
            allowed=allowed,
        )
    if isinstance(trainer, SequentialSection) and trainer.order is not None:
        yield from _order(recipe, trainer.order)
    if isinstance(trainer, MultiTaskSection) and trainer.shares is not None:
        for domain in trainer.shares:
            if domain not in recipe.domains:
                yield _unknown(
                    ("trainer", "shares", domain),
                    "a share is not of a domain",
                    domain,
                    recipe.domains,
                )
        if not sum(trainer.shares.values()) > 0:
            yield Problem(
                ("trainer", "shares"), "no share is above 0", received=dict(trainer.shares)
            )


def _order(recipe: Recipe, order: Sequence[str]) -> Iterator[Problem]:
    for position, domain in enumerate(order):
        if domain not in recipe.domains:
            yield _unknown(
                ("trainer", "order", position),
                "order contains an unknown domain",
                domain,
                recipe.domains,
            )
        elif domain in order[:position]:
            yield Problem(
                ("trainer", "order", position),
                f"the domain {domain!r} is listed twice",
                fix="remove one of the two",
            )
    left_out = [domain for domain in recipe.domains if domain not in order]
    if left_out:
        what = f"the order leaves out {left_out[0]!r}"
        yield Problem(("trainer", "order"), what, fix="name every domain, the most general first")


def _evaluation(recipe: Recipe) -> Iterator[Problem]:
    evaluation = recipe.evaluation
    if evaluation is None:
        return
    yield from _benchmarks(recipe, evaluation)
    for domain in evaluation.metrics:
        if domain not in recipe.domains:
            yield _unknown(
                ("evaluation", "metrics", domain),
                "a metric is not of a domain",
                domain,
                recipe.domains,
            )
    for key in ("agreement_judge", "judge", "reference_model"):
        if (model := getattr(evaluation, key)) is not None:
            yield from _known_model(recipe, ("evaluation",), model, key=key)
    for key in ("test_examples", "validation_examples"):
        file = getattr(evaluation, key)
        if file is None:
            continue
        ids: Counter[str] = Counter()
        for found in _examples(recipe, ("evaluation", key), partial(read_examples, file)):
            if isinstance(found, Problem):
                yield found
                break
            ids[found] += 1
        twice = [identity for identity, count in ids.items() if count > 1]
        if twice:
            yield Problem(
                ("evaluation", key),
                "two of the examples are the same, or have the same id",
                received=twice[0],
            )
        if not ids:
            yield Problem(("evaluation", key), "the file holds no examples", received=file)


def _benchmarks(recipe: Recipe, evaluation: EvaluationSection) -> Iterator[Problem]:
    for domain, sources in evaluation.benchmarks.items():
        if domain not in recipe.domains:
            yield _unknown(
                ("evaluation", "benchmarks", domain),
                "a benchmark is not of a domain",
                domain,
                recipe.domains,
            )
            continue
        for position, source in enumerate(sources):
            if isinstance(source, str):
                at = ("evaluation", "benchmarks", domain, position)
                found = list(_examples(recipe, at, partial(read_examples, source, domain=domain)))
                yield from (problem for problem in found if isinstance(problem, Problem))
                if not found:
                    yield Problem(at, "the file holds no examples", received=source)
    if evaluation.baseline_scores and not (evaluation.benchmarks or evaluation.general):
        yield Problem(
            ("evaluation", "baseline_scores"),
            "there are scores and no benchmarks",
            fix="add benchmarks",
        )


def _examples(
    recipe: Recipe, at: Location, read: Callable[[], Iterable[Example]]
) -> Iterator[str | Problem]:
    """Yields the id of each example, or the first problem with them."""
    try:
        for example in read():
            strange = [domain for domain in example.domains if domain not in recipe.domains]
            if strange:
                what = (
                    f"the example {example.query[:60]!r} needs a domain that the recipe does not"
                    " have"
                )
                yield _unknown(at, what, strange[0], recipe.domains)
                return
            yield example.id
    except (
        DataError,
        ConfigurationError,
        MissingDependencyError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        yield Problem(at, f"an example can't be read: {error}".removesuffix("."))


def _known_model(
    recipe: Recipe, at: Location, model: str | ModelSection | APISection, *, key: str = "model"
) -> Iterator[Problem]:
    if isinstance(model, str) and model != STUDENT and model not in recipe.teachers:
        what = "there is no model of this name"
        fix = "give a model of its own as {path: ...}, or one behind an API as {model: ...}"
        yield _unknown((*at, key), what, model, (*recipe.teachers, STUDENT), fix=fix)


def _template(at: Location, template: str | None, known: Sequence[str]) -> Iterator[Problem]:
    strange = [name for name in fields_of(template or "") if name not in known]
    if strange:
        allowed = ", ".join(f"{{{name}}}" for name in known)
        yield Problem(
            at,
            f"the prompt has the placeholder {{{strange[0]}}}, which nothing fills",
            allowed=allowed,
        )


def _unknown(
    at: Location,
    what: str,
    name: str,
    known: Iterable[str] | Mapping[str, object],
    *,
    fix: str = "",
) -> Problem:
    return Problem(
        at, what, received=name, allowed=", ".join(known), fix=suggestion(name, known) or fix
    )
