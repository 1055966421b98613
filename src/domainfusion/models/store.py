"""The store of answers: every model call of a run is kept the moment it arrives, and is never made again."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, Self

from domainfusion.errors import StoreError
from domainfusion.models.base import LanguageModel
from domainfusion.progress import Progress, silent
from domainfusion.types import Conversation, Generation, Sampling, fingerprint

STORE_VERSION = 1


class Ask(Protocol):
    """The one way in which the stages of a run call a model."""

    def __call__(
        self, model: LanguageModel, conversations: Sequence[Conversation], sampling: Sampling = Sampling(), *, label: str = ""
    ) -> list[Generation]:
        """Returns the model's answer to each conversation, in order; `label` names the work where its progress is shown."""
        ...


def ask_directly(
    model: LanguageModel, conversations: Sequence[Conversation], sampling: Sampling = Sampling(), *, label: str = ""
) -> list[Generation]:
    """Asks the model and keeps nothing: what a stage does when it is used without a run."""
    return model.generate(conversations, sampling)


class ResponseStore:
    """Answers on disk (SQLite), keyed by model, conversation, sampling and sample index.

    Args:
        path: The file; it is made if it is not there.
        progress: Shows how far a call has got.

    Raises:
        StoreError: The file is damaged, is no store, or was written by another version.

    Attributes:
        asked: Answers that a model had to write since the store was opened.
        reused: Answers that were there already.
    """

    def __init__(self, path: str | Path, *, progress: Progress = silent) -> None:
        self.path = Path(path)
        self.asked = 0
        self.reused = 0
        self._progress = progress
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"The store of answers can't be read: {error}",
                received=str(self.path),
                fix="move the file away; the run then asks its models again",
            ) from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, STORE_VERSION):
            raise StoreError(
                "The store of answers was written by another version of domainfusion",
                received=version,
                allowed=str(STORE_VERSION),
                fix=f"move {self.path} away, or use that version",
            )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL)"
        )
        connection.execute(f"PRAGMA user_version={STORE_VERSION}")
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def ask(
        self, model: LanguageModel, conversations: Sequence[Conversation], sampling: Sampling = Sampling(), *, label: str = ""
    ) -> list[Generation]:
        """Returns the model's answers: those that are stored from the store, the others from the model; see `Ask`."""
        keys = list(_keys(model, conversations, sampling))
        answers = {key: found for key in keys if (found := self._read(key)) is not None}
        missing = [index for index, key in enumerate(keys) if key not in answers]
        self.reused += len(keys) - len(missing)
        if missing:
            with self._progress(label or f"asking {model.name}", len(keys), len(keys) - len(missing)) as advance:

                def keep(position: int, generation: Generation) -> None:
                    index = missing[position]
                    if keys[index] not in answers:
                        answers[keys[index]] = generation
                        self._write(keys[index], model, conversations[index], sampling, generation)
                        self.asked += 1
                        advance(1)

                written = model.generate([conversations[index] for index in missing], sampling, keep)
                for position, generation in enumerate(written):
                    keep(position, generation)
        return [answers[key] for key in keys]

    def _read(self, key: str) -> Generation | None:
        row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else Generation(**json.loads(row[0]))

    def _write(self, key: str, model: LanguageModel, conversation: Conversation, sampling: Sampling, generation: Generation) -> None:
        request = {"messages": [asdict(message) for message in conversation], "sampling": asdict(sampling)}
        with _disk_errors(self.path):
            self._connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)",
                (key, model.name, json.dumps(request, ensure_ascii=False), json.dumps(asdict(generation), ensure_ascii=False)),
            )


def _keys(model: LanguageModel, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[str]:
    """Yields the key of each conversation; one that is asked twice in a call gets a second sample."""
    model_fingerprint, samples = model.fingerprint, Counter[Conversation]()
    for conversation in conversations:
        sample = samples[conversation] if sampling.temperature > 0 else 0
        samples[conversation] += 1
        yield fingerprint([model_fingerprint, conversation, sampling, sample], length=32)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"An answer could not be kept: {error}", received=str(path), fix="free disk space and start again; the answers so far are kept"
        ) from error
