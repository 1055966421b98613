"""Values of a recipe: their types, and how a value that is of none of them is refused."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic import ValidationInfo as Info
from pydantic_core import PydanticCustomError

from domainfusion.errors import ModelError
from domainfusion.models import adapter_settings


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
