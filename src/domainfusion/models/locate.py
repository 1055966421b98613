"""Where a model's files are, and whether they are what they have to be: looked at before anything
is loaded.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from domainfusion.errors import ConfigurationError, ModelError, advice_on
from domainfusion.models.adapter_settings import SETTINGS_FILE, WEIGHTS_FILE, base_of, read_settings
from domainfusion.progress import doing
from domainfusion.records import from_json
from domainfusion.types import fingerprint
from domainfusion.wording import counted

DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""What is fetched from the hub: no pickles and no code."""

NOT_DOWNLOADED = ("*/*", "consolidated*")
"""Other formats of the same weights, which some repositories hold beside those that are loaded."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model.

    Attributes:
        base: Folder or GGUF file of the weights.
        base_path: What the user, or the adapter, called it.
        adapter: Folder of the PEFT adapter on it; None without one.
    """

    base: Path
    base_path: str
    adapter: Path | None = None


def find_model(model_path: str, base_model: str | Path | None, revision: str | None) -> ModelFiles:
    """Returns the files of a model, after a look at whether they can be loaded.

    Args:
        model_path: A folder, a `.gguf` file, a hub id, or the folder or hub id of a PEFT adapter.
        base_model: Where an adapter's base is, in place of what its own configuration says.
        revision: Branch, tag or commit of a hub id.

    Raises:
        ModelError: There is no model, or it is of a kind that is not loaded.
        ConfigurationError: The arguments do not go together.
    """
    found = locate(model_path, revision)
    if not (found / SETTINGS_FILE).is_file():
        if base_model is not None:
            raise ConfigurationError(
                "base_model goes with an adapter, and there is none here",
                received=model_path,
                allowed="a folder with adapter_config.json",
                fix="give the adapter's folder, or leave base_model out",
            )
        check_model(found)
        return ModelFiles(found, model_path)
    check_adapter_files(found)
    base_path, base_revision = _base_of(found, base_model)
    try:
        base = locate(base_path, base_revision)
        check_model(base)
    except ModelError as error:
        source = (
            "that base_model says" if base_model is not None else f"that its {SETTINGS_FILE} names"
        )
        raise ModelError(
            f"The base {source} for the adapter {model_path} can't be loaded:"
            f" {str(error).removesuffix('.')}",
            received=base_path,
            fix=(
                "give base_model=..., the folder, .gguf file or hub id of the model that the"
                " adapter was trained on"
            ),
        ) from error
    return ModelFiles(base, base_path, found)


def locate(path: str, revision: str | None = None) -> Path:
    """Returns the local folder or file of a model; a hub id is downloaded, weights in safetensors
    only.

    However a local path is written, the result is the same, so that models with one base find each
    other.

    Raises:
        ModelError: There is nothing at `path`, or it is a pickle.
        ConfigurationError: A revision is given for a local path.
    """
    local = Path(path)
    is_there = os.path.exists(local)  # which a path that no file system can have is not
    if is_there and revision is not None:
        raise ConfigurationError(
            "revision goes with a hub id, and this is on the disk",
            received=path,
            fix="leave revision out",
        )
    if local.suffix == ".gguf" and os.path.isfile(local):
        return local.parent.resolve() / local.name
    if os.path.isdir(local):
        return local.resolve()
    if is_there and local.suffix in PICKLES:
        raise ModelError(
            f"{local.name} is a pickle, which can run code",
            received=path,
            allowed="a folder with *.safetensors, a .gguf file or a hub id",
            fix="convert the weights to safetensors with save_pretrained and give their folder",
        )
    if is_there or local.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise ModelError(
            "There is no model here",
            received=path,
            allowed="a folder, a .gguf file or a hub id",
            fix="check the path",
        )
    return _download(path, revision)


def _download(hub_id: str, revision: str | None) -> Path:
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=[*DOWNLOADED],
                ignore_patterns=[*NOT_DOWNLOADED],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            "There is no folder of this name, and the hub did not give a model:"
            f" {type(error).__name__}",
            received=hub_id if revision is None else f"{hub_id}@{revision}",
            allowed="a folder, a .gguf file or a hub id",
            fix=(
                "check the name, the revision, the connection and, for a gated model, the token in"
                " HF_TOKEN"
            ),
        ) from error


def check_model(files: Path) -> None:
    """Looks at whether a folder holds a model that is loaded without running code of its own: its
    kind is known, its weights are there.

    Raises:
        ModelError: It does not.
    """
    if files.suffix == ".gguf" and files.is_file():
        return
    if not (files / "config.json").is_file():
        raise ModelError(
            "The folder is not a model",
            received=str(files),
            allowed="a folder with config.json and *.safetensors",
            fix="check the path",
        )
    config = read_whole_config(files)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"A model of the kind {config.model_type} does not write text from left to right",
            received=str(files),
            allowed="a causal language model",
        )
    if not list(files.glob("*.safetensors")):
        raise ModelError(
            f"The folder holds no safetensors weights{_and_its_pickle(files)}",
            received=str(files),
            fix="convert the weights to safetensors with save_pretrained",
        )
    if absent := _absent_parts(files):
        raise ModelError(
            f"{absent[0]} and {counted(len(absent) - 1, 'more file')} of weights are missing",
            received=str(files),
            fix="copy them too",
        )


def read_config(files: Path) -> Any:
    """Returns the configuration of a model, the one of the text model where there are several; see
    `read_whole_config`.
    """
    return read_whole_config(files).get_text_config()


def read_whole_config(files: Path) -> Any:
    """Returns the configuration of a model.

    Raises:
        ModelError: It can't be read, or the model is of a kind that only code of its own could
            load.
    """
    source, options = (
        (files.parent, {"gguf_file": files.name}) if files.suffix == ".gguf" else (files, {})
    )
    _refuse_many_layers(files)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        if _brings_code(files):
            raise ModelError(
                "The model can only be loaded by running code that lies in its folder, and that is"
                " never done",
                received=str(files),
                allowed="a model of a kind that Transformers knows",
                fix="upgrade transformers, which may know it by now, or serve it and use APIModel",
            ) from error
        raise ModelError(
            f"The configuration can't be read: {str(error).rstrip('. ')}",
            received=str(files),
            allowed="a model of a kind that Transformers knows, or a GGUF file",
            fix="check that the path is the model's, and that its files were copied whole",
        ) from error


_MOST_LAYERS = 10_000
"""Far more than any model has; Transformers makes all that a configuration names, for hours."""


def _refuse_many_layers(folder: Path) -> None:
    try:
        settings = from_json((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return  # whoever reads it next says what is wrong; a GGUF file has none
    if not isinstance(settings, dict):
        return
    inner = [value for value in settings.values() if isinstance(value, dict)]
    for found in (settings, *inner):
        layers = found.get("num_hidden_layers")
        if isinstance(layers, int) and layers > _MOST_LAYERS:
            raise ModelError(
                "The configuration names more layers than any model has",
                received=layers,
                allowed=f"up to {_MOST_LAYERS:,}",
                fix=f"copy {folder / 'config.json'} again",
            )


def _brings_code(files: Path) -> bool:
    try:
        return "auto_map" in from_json((files / "config.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _and_its_pickle(folder: Path) -> str:
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    return f"; {pickles[0]} is a pickle, which can run code" if pickles else ""


def _absent_parts(folder: Path) -> list[str]:
    """Returns the files that the index of a sharded model names and that are not there."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or (folder / "model.safetensors").is_file():
        return []
    try:
        named = set(from_json(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{index.name} can't be read: {error}",
            received=str(folder),
            fix="copy the whole model again",
        ) from error
    return sorted(name for name in named if not (folder / name).is_file())


def check_adapter_files(adapter: Path) -> None:
    """Looks at whether the folder of an adapter holds weights that can be read without running
    code.

    Raises:
        ModelError: It does not.
    """
    if not (adapter / WEIGHTS_FILE).is_file():
        raise ModelError(
            f"The adapter holds no {WEIGHTS_FILE}{_and_its_pickle(adapter)}",
            received=str(adapter),
            fix="save it as safetensors",
        )


def _base_of(adapter: Path, base_model: str | Path | None) -> tuple[str, str | None]:
    """Returns where the base of an adapter is, and which revision of it."""
    if base_model is not None:
        return str(base_model), None
    base = base_of(adapter)
    if not base:
        raise ModelError(
            "The adapter does not say what its base is",
            received=str(adapter),
            fix="give base_model=...",
        )
    return base, None if os.path.exists(base) else read_settings(adapter).get("revision")


DECISIVE = (".safetensors", ".json", ".gguf", ".jinja", ".model", ".txt")
"""The files of a folder that decide what its model answers."""

_hashes: dict[tuple[str, int, int], str] = {}


def hash_files(path: Path) -> str:
    """Returns a hash of the weights and settings at `path`, a file or a folder; a file that did not
    change is not read twice.
    """
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.iterdir() if file.suffix in DECISIVE)
    )
    return fingerprint([[file.name, hash_file(file)] for file in files])


def hash_file(file: Path) -> str:
    """Returns the SHA-256 of a file; one that did not change is not read twice.

    Raises:
        ModelError: It can't be read.
    """
    try:
        stat = file.stat()
        key = (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
        if key not in _hashes:
            with (
                file.open("rb") as stream,
                doing(f"reading {file.name}, to know it by its contents"),
            ):
                _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"A file of the model can't be read: {error.strerror or error}",
            received=str(file),
            fix=advice_on(error),
        ) from error
    return _hashes[key]


def hash_tensors(state: dict[str, torch.Tensor]) -> str:
    """Returns a hash of weights by name, whatever their data types and wherever they are."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
