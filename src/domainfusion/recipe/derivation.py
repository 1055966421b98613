"""Keys that are derived from the arguments of constructors: `derived_from` gives a section those of
a class, with the names, types, defaults and docstrings that its source states.

The source is read and the class is not imported: importing a trainer imports torch, which takes
seconds, and a mistake in a recipe is to be reported at once. A test compares what is read here with
what `inspect` finds.
"""

from __future__ import annotations

import ast
import datetime
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel, ConfigDict, create_model, model_validator

from domainfusion.errors import suggestion
from domainfusion.models.base import LanguageModel
from domainfusion.recipe.values import one_of, problem

# Sections

Location = tuple[Any, ...]
"""The keys and positions that lead to a value, from the top."""


class KeySource(NamedTuple):
    """A class whose constructor's arguments are keys.

    Attributes:
        place: The class; see `settings_of`.
        keys: The keys of arguments that a recipe calls otherwise, by argument.
    """

    place: str
    keys: Mapping[str, str]


class Section(BaseModel):
    """A mapping of the recipe: it has the keys named here and no others, each of its exact type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    sources: ClassVar[tuple[KeySource, ...]] = ()
    """The classes whose constructors the keys are derived from."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # keys that are derived from a constructor

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, given: Any) -> Any:
        if isinstance(given, str) and "path" in cls.model_fields:
            return {"path": given}
        if isinstance(given, dict):
            known = list(cls.model_fields)
            for key in given:
                if key not in cls.model_fields:
                    raise problem(
                        "is not a key of a recipe",
                        key=key,
                        allowed=", ".join(known),
                        fix=cls._home_of(str(key)) or suggestion(str(key), known),
                    )
        return given

    @classmethod
    def _home_of(cls, key: str) -> str:
        """Says under which sections of this one a key belongs; empty where under none."""
        homes = [
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Section) and key in type(field.default).model_fields
        ]
        return f"write it under {' or '.join(homes)}" if homes else ""

    def arguments(self, *, without: Collection[str] = ("type",)) -> dict[str, Any]:
        """Returns the values as they are given to a constructor; where nothing was given and the
        recipe has no default, the constructor's own holds.
        """
        found = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name not in without and not (value is None and field.default is None):
                found[name] = value
        return found

    def inner(self, at: Location = ()) -> Iterator[tuple[Location, Any]]:
        """Yields every value in the section with its place, sections themselves included."""
        for name in type(self).model_fields:
            yield from _inner((*at, name), getattr(self, name))


def _inner(at: Location, value: Any) -> Iterator[tuple[Location, Any]]:
    yield at, value
    if isinstance(value, Section):
        yield from value.inner(at)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _inner((*at, key), item)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _inner((*at, position), item)


Derived = TypeVar("Derived", bound=Section)


def derived_from(
    place: str,
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    models: Any = None,
    keys: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[type[Derived]], type[Derived]]:
    """Returns a decorator that adds the arguments of a constructor to a section's keys.

    Keys that the section has itself stay as they are there. Arguments that YAML can't express, such
    as functions, are not keys.

    Args:
        place: The class; see `settings_of`.
        only: The arguments to add; by default all.
        without: Arguments that are not keys.
        models: What a recipe may hold for a model; None where models are not keys.
        keys: The keys of arguments that a recipe calls otherwise.
    """

    def add(section: type[Derived]) -> type[Derived]:
        fields: dict[str, Any] = {}
        for setting in settings_of(place):
            key = keys.get(setting.name, setting.name)
            wanted = setting.name in only if only else setting.name not in without
            if not wanted or key in section.model_fields:
                continue
            kind = plain_type(setting.annotation, models)
            if kind is None:
                continue
            if setting.default is Default.NONE_GIVEN:
                fields[key] = (kind, ...)
            elif setting.default is None or setting.default is Default.ITS_OWN:
                fields[key] = (kind | None, None)
            else:
                default = setting.default
                is_optional = type(None) in get_args(setting.annotation)
                default = list(default) if isinstance(default, tuple) else default
                fields[key] = (kind | None if is_optional else kind, default)
        made = create_model(
            section.__name__,
            __base__=section,
            __module__=section.__module__,
            __doc__=section.__doc__,
            **fields,
        )
        made.sources = (KeySource(place, keys), *section.sources)
        return made

    return add


def plain_type(annotation: Any, models: Any = None) -> Any | None:
    """Returns what a recipe may hold for an argument of this type, None left out; None where YAML
    can't express it.

    Args:
        annotation: The type.
        models: What a recipe may hold for a model.
    """
    if annotation in (str, int, float, bool, Any):
        return annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is LanguageModel:
        return models
    if origin is Literal:
        return annotation
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence | Collection)):
        if issubclass(origin, Mapping):
            key, value = (plain_type(argument, models) for argument in arguments)
            return None if key is None or value is None else dict[key, value]  # type: ignore[valid-type]
        item = plain_type(arguments[0], models)
        return None if item is None else list[item]  # type: ignore[valid-type]
    if arguments and origin is not Callable and (origin is Union or _is_union(annotation)):
        found = (plain_type(argument, models) for argument in arguments)
        kinds = [kind for kind in found if kind is not None]
        return (one_of(tuple(kinds)) if len(kinds) > 1 else kinds[0]) if kinds else None
    return None


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, type(int | str))


# Constructors, read from their source

_PACKAGE = Path(__file__).parents[1]


class Default(Enum):
    """A default that is not a plain value."""

    NONE_GIVEN = "the argument is required"
    ITS_OWN = "the class has a default that is not a plain value"


class Foreign:
    """Stands for a type that YAML can't express, such as a class of ours."""


@dataclass(frozen=True)
class Argument:
    """An argument of a constructor.

    Attributes:
        name: Its name.
        annotation: Its type; `Foreign` stands for types that are not plain data.
        default: Its default, or a `Default`.
        about: What the docstring says of it.
    """

    name: str
    annotation: Any
    default: Any
    about: str


class _Definition(NamedTuple):
    """Where a name is defined, and as what."""

    module: str
    node: ast.ClassDef | ast.expr


@cache
def settings_of(place: str) -> tuple[Argument, ...]:
    """Returns the settings of a class, in the order of its signature; those that it hands on to its
    base come first.

    Args:
        place: Its module below `domainfusion` and its name, such as `types:Sampling`.

    Example:
        >>> [setting.name for setting in settings_of("types:Sampling")]
        ['max_new_tokens', 'temperature', 'top_p', 'seed']
    """
    module, _, name = place.partition(":")
    found = _definition(module, name)
    assert found is not None and isinstance(found.node, ast.ClassDef), place
    return tuple(_settings(found.module, found.node))


def _settings(module: str, node: ast.ClassDef) -> Iterator[Argument]:
    about = _described(module, node)
    init = next((item for item in node.body if _is_constructor(item)), None)
    if isinstance(init, ast.FunctionDef):
        if init.args.kwarg is not None:
            yield from _inherited(module, node)
        parameters = _parameters(init.args)
    elif node.decorator_list:  # a dataclass, whose fields are its arguments
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
        parameters = [
            _Parameter(item.target.id, item.annotation, item.value)
            for item in fields
            if isinstance(item.target, ast.Name)
        ]
    else:  # the constructor is the base's
        for setting in _inherited(module, node):
            yield replace(setting, about=about.get(setting.name, setting.about))
        return
    for name, annotation, default in parameters:
        yield Argument(name, _type(module, annotation), _value(default), about.get(name, ""))


def _is_constructor(item: ast.stmt) -> bool:
    return isinstance(item, ast.FunctionDef) and item.name == "__init__"


class _Parameter(NamedTuple):
    """A parameter of a constructor, as it is written."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None


def _parameters(arguments: ast.arguments) -> list[_Parameter]:
    """Returns each parameter but `self`."""
    plain = arguments.args[1:]
    missing = len(plain) - len(arguments.defaults)
    defaults = [*[None] * missing, *arguments.defaults, *arguments.kw_defaults]
    return [
        _Parameter(item.arg, item.annotation, default)
        for item, default in zip((*plain, *arguments.kwonlyargs), defaults, strict=True)
    ]


def _inherited(module: str, node: ast.ClassDef) -> Iterator[Argument]:
    base = _base(module, node)
    if base is not None and isinstance(base.node, ast.ClassDef):
        yield from _settings(base.module, base.node)


def _base(module: str, node: ast.ClassDef) -> _Definition | None:
    first = node.bases[0] if node.bases else None
    return _definition(module, first.id) if isinstance(first, ast.Name) else None


# An entry of "Args:" or "Attributes:": a name at its indentation, and lines that stand further in.
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def entries_of(docstring: str, *headings: str) -> dict[str, str]:
    r"""Returns the entries under headings of a Google-style docstring: text by name.

    Example:
        >>> entries_of("A model.\n\nArgs:\n    path: A folder, or\n        a file.\n", "Args")
        {'path': 'A folder, or a file.'}
    """
    # From a heading to the next one or the end: lines that are indented, or empty.
    part = re.compile(rf"^(?:{'|'.join(headings)}):\n((?:    .*\n?|\n)*)", re.MULTILINE)
    found: dict[str, str] = {}
    for block in part.findall(inspect.cleandoc(docstring)):
        for name, text in _ENTRY.findall(block):
            found.setdefault(name, " ".join(text.split()))
    return found


def _described(module: str, node: ast.ClassDef) -> dict[str, str]:
    """Returns what the docstring says of each argument; where it says "See …", that of the base."""
    found = entries_of(ast.get_docstring(node) or "", "Args", "Attributes")
    base = _base(module, node)
    if base is not None and isinstance(base.node, ast.ClassDef):
        for name, text in _described(base.module, base.node).items():
            if found.get(name, "See ").startswith("See "):
                found[name] = text
    return found


def _value(node: ast.expr | None) -> Any:
    if node is None:
        return Default.NONE_GIVEN
    try:
        return ast.literal_eval(node)
    except ValueError:
        return Default.ITS_OWN


# Types

_KNOWN: Mapping[str, Any] = {
    "Any": Any,
    "Callable": Callable,
    "Collection": Collection,
    "LanguageModel": LanguageModel,
    "Literal": Literal,
    "Mapping": Mapping,
    "Path": Path,
    "Sequence": Sequence,
    "bool": bool,
    "datetime": datetime,
    "float": float,
    "int": int,
    "str": str,
    "tuple": tuple,
}


class _Names(dict[str, Any]):
    """The names in an annotation of a module: plain types, aliases that it defines or imports, and
    `Foreign` for all others.
    """

    def __init__(self, module: str) -> None:
        super().__init__(_KNOWN)
        self._module = module

    def __missing__(self, name: str) -> Any:
        found = _definition(self._module, name)
        if found is None or isinstance(found.node, ast.ClassDef):
            return Foreign
        return _type(found.module, found.node)


def _type(module: str, node: ast.expr | None) -> Any:
    """Evaluates an annotation; only names of types stand in it."""
    if node is None:
        return Foreign
    code = compile(ast.Expression(body=node), f"<annotation in {module}>", "eval")
    try:
        return eval(code, {"__builtins__": {}}, _Names(module))
    except TypeError:  # such as Foreign[str]: a type of ours with a parameter
        return Foreign


@cache
def _tree(module: str) -> ast.Module:
    place = _PACKAGE.joinpath(*module.split("."))
    file = place.with_suffix(".py")
    text = (file if file.is_file() else place / "__init__.py").read_text(encoding="utf-8")
    return ast.parse(text)


@cache
def _definition(module: str, name: str) -> _Definition | None:
    """Finds a class or a type alias in a module, or in the module of ours that it is imported
    from.
    """
    for item in ast.walk(_tree(module)):
        if isinstance(item, ast.ClassDef) and item.name == name:
            return _Definition(module, item)
        if isinstance(item, ast.Assign) and _assigns(item, name):
            return _Definition(module, item.value)
        if isinstance(item, ast.ImportFrom) and (item.module or "").startswith("domainfusion."):
            for alias in item.names:
                if (alias.asname or alias.name) == name:
                    return _definition(str(item.module).removeprefix("domainfusion."), alias.name)
    return None


def _assigns(item: ast.Assign, name: str) -> bool:
    target = item.targets[0]
    return isinstance(target, ast.Name) and target.id == name
