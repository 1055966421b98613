"""What teachers find probable, kept on disk: computed once for each row and teacher, and found by
what was asked, never by a step.

A folder of signals holds shards (`shard-….safetensors`: the signals of some rows one after the
other, and in the header which row's are where), and heads (`head-….safetensors`, one for all
teachers that have it in common). Each file is written aside and then renamed, so a process that is
killed leaves whole files, and what is there is not computed again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from domainfusion.errors import TrainingError, advice_on
from domainfusion.files import replacing
from domainfusion.models.fingerprints import hash_tensors
from domainfusion.models.projection import Head
from domainfusion.types import fingerprint

SHARD_BYTES = 16 << 20
"""A shard is written when it has reached this size: about what a kill costs."""


class _Place(NamedTuple):
    """Where a row's signals are: the file, the head that goes with them, their size, and where each
    tensor begins and ends there.
    """

    shard: Path
    head: str
    bytes: int
    spans: Mapping[str, tuple[int, int]]


class SignalStore:
    """Teacher signals in a folder, memory-mapped.

    Args:
        directory: The folder; it is made if it is not there.

    Raises:
        TrainingError: A file in it is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._places: dict[str, _Place] = {}
        self._opened: dict[Path, Any] = {}
        self._heads: dict[tuple[str, torch.device, torch.dtype | None], Head] = {}
        self._waiting: dict[str, tuple[str, Mapping[str, torch.Tensor]]] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for shard in sorted(directory.glob("shard-*.safetensors")):
            self._index(shard)

    def _index(self, shard: Path) -> None:
        header = json.loads(self._open(shard).metadata()["rows"])
        self._places |= {key: _Place(shard, *about) for key, about in header.items()}

    def _open(self, file: Path) -> Any:
        if file not in self._opened:
            try:
                self._opened[file] = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as error:
                fix = "delete this file; what was in it is computed again"
                raise TrainingError(
                    f"A file of teacher signals can't be read: {error}", received=str(file), fix=fix
                ) from error
        return self._opened[file]

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._waiting

    def read(self, key: str) -> dict[str, torch.Tensor]:
        """Returns the tensors that were kept under `key`."""
        place = self._places[key]
        file = self._open(place.shard)
        return {
            name: file.get_slice(name)[first:last] for name, (first, last) in place.spans.items()
        }

    def bytes_of(self, key: str) -> int:
        """Returns how much disk the signals under `key` take, the head apart."""
        return self._places[key].bytes

    def head(self, key: str, device: torch.device, dtype: torch.dtype | None = None) -> Head:
        """Returns the head that goes with the signals under `key`; one object for all that share
        it.

        Args:
            key: The key of the signals.
            device: Where the head is wanted.
            dtype: Data type that it is wanted in; None for its own.
        """
        name = self._places[key].head
        wanted = (name, device, dtype)
        if wanted not in self._heads:
            file = self._open(self._head_file(name))
            settings = json.loads(file.metadata()["settings"])
            bias = file.get_tensor("bias") if "bias" in file.keys() else None  # noqa: SIM118 - the file is not a mapping
            head = Head(file.get_tensor("weight"), bias, settings["scale"], settings["cap"])
            self._heads[wanted] = head.to(device, dtype)
        return self._heads[wanted]

    def _head_file(self, name: str) -> Path:
        return self._directory / f"head-{name}.safetensors"

    def keep_head(self, head: Head) -> str:
        """Writes a head unless it is there, and returns its name."""
        state = {"weight": head.weight.detach().cpu().contiguous()}
        if head.bias is not None:
            state["bias"] = head.bias.detach().cpu().contiguous()
        settings = {"scale": head.scale, "cap": head.cap}
        name = fingerprint([hash_tensors(state), settings])
        if not self._head_file(name).is_file():
            self._write(self._head_file(name), state, {"settings": json.dumps(settings)})
        return name

    def keep(self, key: str, head: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps the signals of a row, on disk when enough are together or `flush` is called.

        Args:
            key: What they are found by.
            head: The name of the head that goes with them.
            tensors: The signals, by name, on the CPU.
        """
        self._waiting[key] = (head, tensors)

    @property
    def is_full(self) -> bool:
        """Whether what waits would make a shard."""
        return (
            sum(
                tensor.nbytes
                for _, tensors in self._waiting.values()
                for tensor in tensors.values()
            )
            >= SHARD_BYTES
        )

    def flush(self) -> None:
        """Writes what waits as one shard."""
        if not self._waiting:
            return
        header: dict[str, tuple[str, int, dict[str, tuple[int, int]]]] = {}
        columns: dict[str, list[torch.Tensor]] = {}
        lengths: dict[str, int] = {}
        for key, (head, tensors) in self._waiting.items():
            spans: dict[str, tuple[int, int]] = {}
            header[key] = (head, sum(tensor.nbytes for tensor in tensors.values()), spans)
            for name, tensor in tensors.items():
                first = lengths.get(name, 0)
                lengths[name] = first + len(tensor)
                spans[name] = (first, lengths[name])
                columns.setdefault(name, []).append(tensor)
        shard = self._directory / f"shard-{uuid.uuid4().hex}.safetensors"
        self._write(
            shard,
            {name: torch.cat(parts) for name, parts in columns.items()},
            {"rows": json.dumps(header)},
        )
        self._waiting = {}
        self._index(shard)

    def _write(
        self, file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
    ) -> None:
        try:
            with replacing(file) as temporary:
                save_file(tensors, temporary, metadata)
        except (OSError, SafetensorError) as error:
            fix = f"{advice_on(error)}; what was kept before is not computed again"
            raise TrainingError(
                f"Teacher signals could not be kept: {error}", received=str(file), fix=fix
            ) from error
