"""The log of a training: what happened, as JSON lines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainfusion.errors import TrainingError, advice_on
from domainfusion.records import to_json


class JsonLog:
    """A log of JSON lines. A line that a crash left unfinished is dropped before the next one is
    written.

    Raises:
        TrainingError: A line can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_file():
            whole, newline, _ = path.read_bytes().rpartition(b"\n")
            os.truncate(path, len(whole + newline))

    def __call__(self, fields: Mapping[str, Any]) -> None:
        """Adds a line."""
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(to_json(dict(fields)) + "\n")
        except OSError as error:
            raise TrainingError(
                f"The training log could not be written: {error.strerror or error}",
                received=str(self._path),
                fix=f"{advice_on(error)}; the last checkpoint is kept",
            ) from error
