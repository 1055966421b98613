"""The settings of a class, as its source states them: names, types, defaults, and what its docstring
says of each.

The source is read and the class is not imported: importing a trainer imports torch, which takes
seconds, and a mistake in a recipe is to be reported at once. A test compares what is read here with
`inspect.signature`.
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
from typing import Any, Literal, NamedTuple

from domainfusion.models.base import LanguageModel

_PACKAGE = Path(__file__).parents[1]


class Default(Enum):
    """What stands for a default that is not a plain value."""

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
            (item.target.id, item.annotation, item.value)
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


def _parameters(
    arguments: ast.arguments,
) -> list[tuple[str, ast.expr | None, ast.expr | None]]:
    """Returns name, annotation and default of each parameter but `self`."""
    plain = arguments.args[1:]
    missing = len(plain) - len(arguments.defaults)
    defaults = [*[None] * missing, *arguments.defaults, *arguments.kw_defaults]
    return [
        (item.arg, item.annotation, default)
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
