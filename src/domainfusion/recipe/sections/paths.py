"""Files, folders and models that a recipe names by their path."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from domainfusion.errors import ModelError
from domainfusion.models import adapter_settings
from domainfusion.recipe.sections.problems import problem


def _folder(info: ValidationInfo) -> Path:
    """Returns what relative paths are relative to."""
    return Path((info.context or {}).get("folder", ""))


def from_recipe(path: str, info: ValidationInfo) -> str:
    """Returns the absolute path of what a recipe names relative to its own folder."""
    return _absolute(_folder(info) / Path(path).expanduser())


def _existing_file(path: str, info: ValidationInfo) -> str:
    file = _folder(info) / Path(path).expanduser()
    if not file.is_file():
        raise problem(
            "names a file that is not there",
            received=path,
            allowed=f"a file; this one would be {_absolute(file)}",
        )
    return _absolute(file)


def _existing_folder(path: str, info: ValidationInfo) -> str:
    folder = _folder(info) / Path(path).expanduser()
    if not folder.is_dir():
        raise problem(
            "names a folder that is not there",
            received=path,
            allowed=f"a folder; this one would be {_absolute(folder)}",
        )
    return _absolute(folder)


def _existing_model(path: str, info: ValidationInfo) -> str:
    found = _folder(info) / Path(path).expanduser()
    if found.is_dir() and not any(
        (found / name).is_file() for name in ("config.json", "adapter_config.json")
    ):
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
    return os.path.abspath(
        path
    )  # not resolve(): a link to a model keeps the name that its owner gave it


ExistingFile = Annotated[str, AfterValidator(_existing_file)]
ExistingFolder = Annotated[str, AfterValidator(_existing_folder)]
ModelPath = Annotated[str, AfterValidator(_existing_model)]
