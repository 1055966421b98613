"""Values of a recipe: texts, numbers, days and paths, and how a validator refuses one; and the
settings of a class as its source states them (names, types, defaults, docstrings).

The source is read and the class is not imported: importing a trainer imports torch, which takes
seconds, and a mistake in a recipe is to be reported at once. A test compares what is read here with
`inspect.signature`.
"""

from __future__ import annotations

import ast
import datetime
import inspect
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, cast, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic import ValidationInfo as Info
from pydantic_core import PydanticCustomError

from domainfusion.errors import ModelError
from domainfusion.models import adapter_settings
from domainfusion.models.base import LanguageModel


def problem(
    what: str, *, key: str = "", received: object = None, allowed: str = "", fix: str = ""
) -> PydanticCustomError:
    """Returns the error with which a validator refuses a value; `key` names the one that is wrong
    inside of it.
    """
    return PydanticCustomError(
        "recipe",
        "{what}",
        {"what": what, "key": key, "received": received, "allowed": allowed, "fix": fix},
    )


# Texts, days and devices


def _not_blank(text: str) -> str:
    if not text.strip():
        raise problem("is empty", allowed="a text")
    return text


def _a_day(given: object) -> str:
    try:
        return datetime.date.fromisoformat(str(given)).isoformat()
    except ValueError as error:
        raise problem(
            "is not a date", received=given, allowed="YYYY-MM-DD, such as 2026-01-31"
        ) from error


def _a_device(name: str) -> str:
    # Whether there is such a device is a question to the machine that runs the recipe.
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is None:
        raise problem("is not known", received=name, allowed="auto, cpu, cuda or cuda:N")
    return name


Text = Annotated[str, AfterValidator(_not_blank)]
Day = Annotated[str, BeforeValidator(_a_day), "a date"]
Device = Annotated[str, AfterValidator(_a_device), "auto, cpu, cuda, cuda:N"]


# Values of one of several types


def one_of(kinds: tuple[Any, ...]) -> Any:
    """Returns the type of a value that has one of several types; what is refused is refused in one
    error, not in one for each of them.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(
        cast(Any, Union[kinds]),  # noqa: UP007 - a union of a tuple
        config=ConfigDict(strict=True, allow_inf_nan=False),
    )
    allowed = in_words(Union[kinds])  # noqa: UP007 - a union of a tuple

    def check(given: Any) -> Any:
        try:
            return adapter.validate_python(given)
        except ValidationError as error:
            what = "has no value" if given is None else "is of the wrong kind"
            raise problem(what, received=given, allowed=allowed) from error

    return Annotated[Any, AfterValidator(check), allowed]


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def in_words(kind: Any) -> str:
    """Returns what a type allows.

    Example:
        >>> in_words(int), in_words(list[float]), in_words(Literal["a", "b"])
        ('a whole number', 'a list of numbers', 'a, b')
        >>> in_words(int | list[int] | None), in_words(list[Text])
        ('a whole number or a list of whole numbers', 'a list of texts')
    """
    if kind in _WORDS:
        return _WORDS[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is Annotated:
        said = [item for item in arguments[1:] if isinstance(item, str)]
        return said[0] if said else in_words(arguments[0])
    if origin in (Union, UnionType):
        kinds = [item for item in arguments if item is not type(None)]
        *others, last = dict.fromkeys(map(in_words, kinds))
        return f"{', '.join(others)} or {last}" if others else last
    if origin is list:
        item = in_words(arguments[0])
        is_of_one_kind = item.startswith("a ") and " or " not in item
        return f"a list of {item.removeprefix('a ')}s" if is_of_one_kind else "a list"
    return "a mapping"


# Files, folders and models


def _folder(info: Info) -> Path:
    """Returns the folder that relative paths start from."""
    return Path((info.context or {}).get("folder", ""))


def _from_recipe(path: str, info: Info) -> str:
    return _absolute(_folder(info) / Path(path).expanduser())


def _existing(kind: str, is_there: Callable[[Path], bool]) -> Callable[[str, Info], str]:
    def check(path: str, info: Info) -> str:
        found = _folder(info) / Path(path).expanduser()
        if not is_there(found):
            raise problem(
                f"names a {kind} that is not there",
                received=path,
                allowed=f"a {kind}; this one would be {_absolute(found)}",
            )
        return _absolute(found)

    return check


def _existing_model(path: str, info: Info) -> str:
    found = _folder(info) / Path(path).expanduser()
    settings = ("config.json", "adapter_config.json")
    if found.is_dir() and not any((found / name).is_file() for name in settings):
        raise problem(
            "names a folder that is not a model",
            received=path,
            allowed="a folder with config.json or adapter_config.json",
        )
    if found.is_file() and found.suffix != ".gguf":
        raise problem(
            "names a file that is not a model",
            received=path,
            allowed="a folder, a .gguf file or a hub id",
        )
    if found.exists():
        return _absolute(found)
    if not is_hub_id(path) or (_folder(info) / path.split("/", 1)[0]).is_dir():
        raise problem(
            "names a model that is not there",
            received=path,
            allowed=(
                "a folder, a .gguf file or a hub id such as owner/name; this one would be"
                f" {_absolute(found)}"
            ),
        )
    return path


def is_hub_id(path: str) -> bool:
    """Whether `path` has the form of a hub id, owner/name.

    Example:
        >>> is_hub_id("HuggingFaceTB/SmolLM2-135M-Instruct"), is_hub_id("./expert"), is_hub_id("a/b/c"), is_hub_id("a/b.gguf")
        (True, False, False, False)
    """
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path) is not None and not path.endswith(".gguf")


def is_adapter(path: str) -> bool:
    """Whether the folder at `path` holds a PEFT adapter."""
    return (Path(path) / "adapter_config.json").is_file()


def base_of(adapter: str) -> str:
    """Returns where the adapter at `adapter` says its base is; empty where it does not say."""
    try:
        return adapter_settings.base_of(Path(adapter))
    except ModelError:
        return ""


def _absolute(path: Path) -> str:
    # Not resolve(): a link to a model keeps the name that its owner gave it.
    return os.path.abspath(path)


ExistingFile = Annotated[str, AfterValidator(_existing("file", Path.is_file)), "a path"]
ExistingFolder = Annotated[str, AfterValidator(_existing("folder", Path.is_dir)), "a path"]
ExistingPath = Annotated[str, AfterValidator(_existing("file", Path.exists)), "a path"]
ModelPath = Annotated[str, AfterValidator(_existing_model), "a path or a hub id"]
BESIDE, OFF = "beside", "off"
"""Where shared answers are kept, but for a path."""


def _answers(path: str, info: Info) -> str:
    return path if path in (BESIDE, OFF) else _from_recipe(path, info)


AnswersPath = Annotated[
    str,
    BeforeValidator(lambda given: OFF if given is False else given),
    AfterValidator(_answers),
    "a path, beside, off",
]
NewPath = Annotated[str, AfterValidator(_from_recipe), "a path"]
"""A path that need not be there; it becomes absolute."""


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
