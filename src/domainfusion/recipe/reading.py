"""Recipes in and out of files: every mistake is one error that names the line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from domainfusion.recipe.checks import Problem, problems_of
from domainfusion.recipe.document import Document, read_document, to_yaml
from domainfusion.recipe.sections import Recipe, suggestion
from domainfusion.records import write_text

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


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe and checks all that can be checked without loading a model.

    Relative paths in it are relative to its own folder.

    Args:
        path: A YAML file.

    Returns:
        The recipe; its paths are absolute.

    Raises:
        ConfigurationError: Something in it can't be right; the message names file and line.
    """
    document = read_document(Path(path))
    try:
        recipe = Recipe.model_validate(document.content, context={"folder": document.path.parent})
    except ValidationError as error:
        found = [_as_problem(item) for item in error.errors()]
        raise _as_error(document, found) from error
    found = list(problems_of(recipe))
    if found:
        raise _as_error(document, found)
    return recipe


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Writes a recipe that `read_recipe` reads back as the same, from whatever folder."""
    plain = recipe.model_dump(exclude_none=True)
    if recipe.evaluation is None:
        plain["evaluation"] = False
    write_text(path, _HEADING + to_yaml(plain))


def _as_error(document: Document, found: Sequence[Problem]) -> Exception:
    """Returns the error for the first problem in the file: the others may be its consequences."""
    first = min(found, key=lambda problem: document.line_of(problem.at))
    return document.error_at(
        first.at, first.what, received=first.received, allowed=first.allowed, fix=first.fix
    )


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
        given = context["received"]
        at, where = (
            ((*at, context["key"]), _written((*at, context["key"])))
            if context["key"]
            else (at, where)
        )
        return Problem(
            at,
            f"{where} {context['what']}",
            received=given,
            allowed=context["allowed"],
            fix=context["fix"],
        )
    if kind == "missing":
        return Problem(
            at, f"{_written(at[:-1]) or 'the recipe'} has no {at[-1]}", fix=f"add {at[-1]}: ..."
        )
    if kind == "union_tag_not_found":
        return Problem(
            at, f"{where} has no type", allowed=_TYPES.get(str(at[0]), ""), fix="add type: ..."
        )
    if kind in ("union_tag_invalid", "literal_error"):
        at = (*at, "type") if kind == "union_tag_invalid" else at
        expected = (
            str(context.get("expected_tags") or context.get("expected"))
            .replace(" or ", ", ")
            .replace("'", "")
        )
        given = context.get("tag", received)
        fix = suggestion(str(given), expected.split(", "))
        return Problem(
            at, f"{_written(at)} is not known", received=given, allowed=expected, fix=fix
        )
    allowed = _KINDS.get(kind, str(error["msg"]))
    if received is None:
        return Problem(
            at, f"{where} has no value", allowed=allowed, fix="write one, or remove the key"
        )
    return Problem(
        at, f"{where or 'the recipe'} is of the wrong kind", received=received, allowed=allowed
    )


def _without_tags(location: Sequence[Any]) -> tuple[Any, ...]:
    """Leaves out the names of union members, which pydantic puts into a location."""
    steps = [
        step
        for step in location
        if step not in ("(name)", "(model)", "(api)", "(weights)", "[key]")
    ]
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
