"""What a model is known by: hashes of its files and of its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from domainfusion.types import fingerprint

_HASHED = (".safetensors", ".json", ".gguf", ".jinja", ".model", ".txt")
"""The files of a folder that decide what its model answers."""

_hashes: dict[tuple[str, int, int], str] = {}


def hash_files(path: Path) -> str:
    """Returns a hash of the weights and settings at `path`, a file or a folder; a file that did not
    change is not read twice.
    """
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.iterdir() if file.suffix in _HASHED)
    )
    return fingerprint([[file.name, _hash_file(file)] for file in files])


def _hash_file(file: Path) -> str:
    stat = file.stat()
    key = (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with file.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _hashes[key]


def hash_tensors(state: dict[str, torch.Tensor]) -> str:
    """Returns a hash of weights by name, whatever their data types and wherever they are."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
