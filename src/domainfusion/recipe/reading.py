"""Recipes in and out of files: every mistake names its line, and all that are found are reported
together.

A recipe is checked in four steps, each of them only if the one before found nothing: the kinds of
its values; what its parts have to be to each other; the constructors of what its parts stand for,
which are called with stand-ins for models; and, since they import torch, the trainer and what a
distiller asks of its parts together.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from domainfusion.distillation.examples import read_examples
from domainfusion.errors import (
    ConfigurationError,
    DomainFusionError,
    MissingDependencyError,
    suggestion,
)
from domainfusion.recipe.building import (
    STUDENT,
    build_evaluator,
    build_generator,
    build_hygiene,
    build_integrator,
    build_model,
    build_trainer,
    stand_ins,
)
from domainfusion.recipe.derivation import Location, Section
from domainfusion.recipe.document import Change, Document, changed, read_document, to_yaml
from domainfusion.recipe.sections import (
    APISection,
    CuratedSection,
    ModelName,
    MultiTaskSection,
    RaySection,
    Recipe,
    SequentialSection,
    StudentSection,
)
from domainfusion.recipe.values import base_of, is_adapter, is_hub_id
from domainfusion.records import write_text
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
        elif not base or not (os.path.exists(base) or is_hub_id(base)):
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
        yield problem_at(
            at,
            "the file holds no examples",
            received=file,
            allowed="one example a line, such as"
            """ {"query": "…", "domain": "law", "answers": {"law": "…"}}""",
        )
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


MOST_PROBLEMS = 10
"""Problems that one error reports."""

_KINDS = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping, a line `key: value` for each",
    "model_type": "a mapping, a line `key: value` for each",
    "model_attributes_type": "a mapping, a line `key: value` for each",
}
_TYPES = {
    "generators": "synthetic, adversarial, curated",
    "integrator": "merge, model",
    "trainer": "integration, multi_task, sequential",
}
_HEADING = "# The recipe of this run, with every default and full paths.\n"


def read_recipe(path: str | Path, changes: Sequence[Change] = ()) -> Recipe:
    """Reads a recipe and checks all that can be checked without loading a model.

    Relative paths in it are relative to its own folder.

    Args:
        path: A YAML file.
        changes: Values in place of those in the file; they are read and checked as those are.

    Returns:
        The recipe; its paths are absolute.

    Raises:
        ConfigurationError: Something in it can't be right; the message names file, line and column
            of everything that was found.
    """
    document = changed(read_document(Path(path)), changes)
    try:
        recipe = Recipe.model_validate(document.content, context={"folder": document.path.parent})
    except ValidationError as error:
        raise _as_error(document, [_as_problem(item) for item in error.errors()]) from error
    for step in (problems_of, _Trials(document).of_parts, _Trials(document).of_the_whole):
        if found := list(step(recipe)):
            raise _as_error(document, found)
    return recipe


def write_recipe(recipe: Recipe, path: Path, *, listed: bool = False) -> None:
    """Writes a recipe that `read_recipe` reads back as the same, from whatever folder. `listed` is
    that of `write_text`.
    """
    plain = _written_out(recipe)
    if recipe.evaluation is None:
        plain["evaluation"] = False
    first = {name: plain[name] for name in ("title", "seed")}
    write_text(path, _HEADING + to_yaml(first | plain), listed=listed)


def _written_out(value: Any) -> Any:
    """Returns plain data; what was not given and has no default is left out."""
    if isinstance(value, Section):
        return {name: _written_out(item) for name, item in value.arguments(without=()).items()}
    if isinstance(value, dict):
        return {name: _written_out(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_written_out(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _as_error(document: Document, found: Sequence[Problem]) -> ConfigurationError:
    """Returns the error that reports the problems in the order of the file."""
    placed = sorted(found, key=lambda problem: document.place_of(problem.at))
    lines = []
    for problem in placed[:MOST_PROBLEMS]:
        lines.append(f"{document.source_of(problem.at)}: {problem.text}")
    if len(placed) > MOST_PROBLEMS:
        lines.append(f"{len(placed) - MOST_PROBLEMS} more problems follow from or beside these.")
    return ConfigurationError("\n".join(dict.fromkeys(lines)))


# What constructors say


class _Trials:
    """Calls the constructors that a recipe's parts stand for, with stand-ins for the models.

    Args:
        document: Where the recipe stands.
    """

    def __init__(self, document: Document) -> None:
        self._document = document

    def of_parts(self, recipe: Recipe) -> Iterator[Problem]:
        """Yields the errors of the constructors of single parts."""
        model = stand_ins(recipe)
        yield from self._said(recipe.hygiene, ("hygiene",), lambda: build_hygiene(recipe))
        yield from self._said(
            recipe.responses, ("responses",), lambda: recipe.responses.sampling(0)
        )
        for place, named in recipe.models():
            if isinstance(named, APISection):
                yield from self._said(named, place, _trial_of_model(named))
            elif isinstance(named, StudentSection) and named.engine is not None:
                engine = named.engine
                trial = engine.pool if isinstance(engine, RaySection) else engine.engine
                yield from self._said(engine, (*place, "engine"), trial)
                if isinstance(engine, RaySection) and engine.server is not None:
                    server = engine.server
                    yield from self._said(server, (*place, "engine", "server"), server.engine)
        for position, section in enumerate(recipe.generators):
            at: Location = ("generators", position)
            if isinstance(section, CuratedSection):
                key = "file" if section.file else "review" if section.review else "examples"
                yield from self._curated(recipe, position, (*at, key))
            else:
                yield from self._said(section, at, _trial_of_generator(recipe, position))

        def integrator() -> None:
            build_integrator(recipe, model).check_domains(recipe.domains)

        yield from self._said(recipe.integrator, ("integrator",), integrator)
        if recipe.evaluation is not None:
            yield from self._said(
                recipe.evaluation, ("evaluation",), lambda: build_evaluator(recipe, model)
            )

    def _curated(self, recipe: Recipe, position: int, at: Location) -> Iterator[Problem]:
        """Yields what is wrong with curated examples; where nothing else is named, `at` is."""
        section = recipe.generators[position]
        made: list[Any] = []

        def build() -> None:
            made.append(build_generator(recipe, position, stand_ins(recipe)))

        for found in self._said(section, at[:2], build):
            yield Problem(at, found.text) if found.at == at[:2] else found
        for generator in made:
            yield from domains_needed(recipe, at, generator.examples)

    def of_the_whole(self, recipe: Recipe) -> Iterator[Problem]:
        """Yields what the trainer's constructor says, and what a distiller would say of the parts
        together.
        """
        parts = import_module("domainfusion.distillation.parts")
        settings = import_module("domainfusion.distillation.settings")
        evaluation, model = recipe.evaluation, stand_ins(recipe)
        generators = [
            build_generator(recipe, position, model) for position in range(len(recipe.generators))
        ]
        teachers = {domain: model(section) for domain, section in recipe.teachers.items()}
        shares = {} if evaluation is None else evaluation.arguments()
        shares = {name: shares.get(name, 0) for name in ("holdout", "validation_holdout")}
        has_validation = bool(evaluation and evaluation.validation_examples) or bool(
            shares["validation_holdout"]
        )
        rounds = recipe.refinement_rounds
        checks: list[Callable[[], object]] = [
            lambda: parts.check_coverage(teachers, generators),
            lambda: settings.check_shares(shares),
            lambda: settings.check_samples(recipe.samples),
            lambda: parts.check_refinement(rounds, generators, has_validation=has_validation),
        ]
        if not recipe.generators:
            yield problem_at(
                ("generators",),
                "there are no generators",
                fix="add one, such as {type: curated, file: examples.jsonl}",
            )
            checks = []

        def trainer() -> None:
            build_trainer(recipe.trainer).check_validation(given=has_validation)

        yield from self._said(recipe.trainer, ("trainer",), trainer)
        for check in checks:
            yield from self._said(recipe, (), check)

    def _said(
        self, section: Section, at: Location, trial: Callable[[], object]
    ) -> Iterator[Problem]:
        """Yields the error of a constructor that is called for a section."""
        try:
            trial()
        except MissingDependencyError:
            return  # what is not installed is said when it is needed
        except DomainFusionError as error:
            place = self._place(section, at, error)
            yield Problem(place, _in_yaml(str(error), _written(place)))

    def _place(self, section: Section, at: Location, error: DomainFusionError) -> Location:
        """Returns where the value stands that an error is about.

        That is the argument that the error names as its field; else a file that it speaks of; else,
        in a recipe as a whole, a domain that it quotes; else the first key in it that the file has.
        """
        values = sorted(section.inner(at), key=lambda item: len(item[0]))
        text = str(error)
        for place, _ in values:
            if error.field and place[-1] == error.field:
                return place
        for place, value in values:
            if isinstance(value, str) and "/" in value and value in text:
                return place
        written: dict[str, Location] = {
            str(place[-1]): place for place, _ in reversed(values) if self._document.has(place)
        }
        if isinstance(section, Recipe):
            for domain in section.domains:
                if repr(domain) in text:
                    return ("domains", domain)
        what = _what(text)
        mentions = [(found.start(), key) for key in written if (found := _key(key, what))]
        return written[min(mentions)[1]] if mentions else at


def _trial_of_model(section: APISection) -> Callable[[], object]:
    def build() -> None:
        try:
            build_model(section)
        except DomainFusionError as error:
            # Keys need not be there yet: what a recipe would take can be asked without them.
            if error.field != "api_key_env":
                raise

    return build


def _trial_of_generator(recipe: Recipe, position: int) -> Callable[[], object]:
    return lambda: build_generator(recipe, position, stand_ins(recipe))


def _what(text: str) -> str:
    """Returns the part of an error's text that says what is wrong."""
    # The joints of a `DomainFusionError`'s message.
    return re.split(r"; received |; allowed: |\. To fix it: ", text, maxsplit=1)[0]


# An argument as Python writes it: name='text', name=True, name=0.1
_ARGUMENT = re.compile(r"\b([a-z_]+)=(?:'([^']*)'|(True|False|None|[\d.]+\d|\d+))")


def _in_yaml(text: str, where: str) -> str:
    """Puts what a constructor says into the words of a recipe.

    Example:
        >>> _in_yaml("epochs is not positive; received 0. To fix it: set epochs=3.", "trainer.epochs")
        'trainer.epochs is not positive; received 0. To fix it: set epochs: 3.'
    """

    def replaced(match: re.Match[str]) -> str:
        word = match.group(2) if match.group(2) is not None else match.group(3)
        word = {"True": "true", "False": "false", "None": "null"}.get(word, word)
        return f"{match.group(1)}: {word}"

    text = _ARGUMENT.sub(replaced, text)
    key = where.rpartition(".")[2]
    named = _key(key, text) if key else None
    if named and text[: named.start()].casefold() in ("", "the "):
        return where + text[named.end() :]
    return f"{where}: {text}" if where else text


def _key(key: str, text: str) -> re.Match[str] | None:
    """Finds a key in a text, which may write it as words: `sub_questions` as Sub-questions."""
    pattern = re.escape(key).replace("_", "[ _-]")
    return re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE)


# What pydantic says


def _as_problem(error: Mapping[str, Any]) -> Problem:
    """Puts what pydantic found into the words of a recipe."""
    kind, at, context, received = (
        error["type"],
        _without_tags(error["loc"]),
        error.get("ctx", {}),
        error["input"],
    )
    where = _written(at)
    if kind == "recipe":
        if context["key"]:
            at = (*at, context["key"])
        return problem_at(
            at,
            f"{_written(at)} {context['what']}",
            received=context["received"],
            allowed=context["allowed"],
            fix=context["fix"],
        )
    if kind == "missing":
        what = f"{_written(at[:-1]) or 'the recipe'} has no {at[-1]}"
        return problem_at(at, what, fix=f"add {at[-1]}: ...")
    if kind == "union_tag_not_found":
        allowed = _TYPES.get(str(at[0]), "")
        return problem_at(at, f"{where} has no type", allowed=allowed, fix="add type: ...")
    if kind in ("union_tag_invalid", "literal_error"):
        at = (*at, "type") if kind == "union_tag_invalid" else at
        expected = str(context.get("expected_tags") or context.get("expected"))
        expected = expected.replace(" or ", ", ").replace("'", "")
        given = context.get("tag", received)
        fix = suggestion(str(given), expected.split(", "))
        what = f"{_written(at)} is not known"
        return problem_at(at, what, received=given, allowed=expected, fix=fix)
    allowed = _KINDS.get(kind, str(error["msg"]))
    if received is None:
        fix = "write one, or remove the key"
        return problem_at(at, f"{where} has no value", allowed=allowed, fix=fix)
    what = f"{where or 'the recipe'} is of the wrong kind"
    return problem_at(at, what, received=received, allowed=allowed)


def _without_tags(location: Sequence[Any]) -> Location:
    """Leaves out the names of union members, which pydantic puts into a location."""
    tags = ("(name)", "(model)", "(api)", "(file)", "(task)", "(server)", "(ray)", "[key]")
    steps = [step for step in location if step not in tags]
    tag = {"generators": 2, "trainer": 1, "integrator": 1}.get(str(steps[0]) if steps else "")
    steps = [step for position, step in enumerate(steps) if position != tag]
    if steps[:2] == ["trainer", "objective"]:
        del steps[2:3]
    return tuple(steps)


def _written(location: Sequence[Any]) -> str:
    """Returns a location as people write it: generators[0].num_examples."""
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in location
    ).removeprefix(".")
