"""The store of answers: every model call of a run is kept the moment it arrives, and is never made
again.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from domainfusion.errors import StoreError, advice_on
from domainfusion.files import network_file_system
from domainfusion.models.base import SAMPLE_STRIDE, LanguageModel
from domainfusion.models.costs import ModelUsage, PaidModel, StoredBooks, transaction
from domainfusion.progress import Advance, Progress, silent
from domainfusion.records import from_json, whole_characters
from domainfusion.types import Conversation, Generation, Sampling, fingerprint

logger = logging.getLogger("domainfusion")


STORE_VERSION = 1
_PATIENCE_SECONDS = 60.0
"""How long to wait for another process that is writing."""
_TABLES = {
    "answers": (
        "key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL"
    ),
    "calls": (
        "model TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, calls INTEGER NOT NULL,"
        " prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, seconds REAL NOT"
        " NULL, PRIMARY KEY (model, role)"
    ),
    "payments": StoredBooks.COLUMNS,
}


class Ask(Protocol):
    """The one way in which the stages of a run call a model."""

    def __call__(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
    ) -> list[Generation]:
        """Returns the model's answer to each conversation, in order; `label` names the work where
        its progress is shown.
        """
        ...


def ask_directly(
    model: LanguageModel,
    conversations: Sequence[Conversation],
    sampling: Sampling = Sampling(),
    *,
    label: str = "",
) -> list[Generation]:
    """Asks the model and keeps nothing: what a stage does when it is used without a run."""
    return model.generate(conversations, sampling)


class ResponseStore:
    """Answers on disk (SQLite), keyed by model, conversation, sampling and sample index, with what
    asking for them took.

    Args:
        path: The file; it is made if it is not there.
        progress: Shows how far a call has got.
        read_only: Leave the file as it is; it has to be there.
        shared: A store that several runs share: what it has is not asked again, and it gets every
            new answer. It has to stay open as long as this one.

    Raises:
        StoreError: The file is damaged, is not a store, or was written by another version.

    Attributes:
        asked: Answers that a model had to write since the store was opened.
        reused: Answers that were there already.
        taken_over: Answers among those reused that the shared store had, and this one had not.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        progress: Progress = silent,
        read_only: bool = False,
        shared: ResponseStore | None = None,
    ) -> None:
        self.path = Path(path)
        self.asked = 0
        self.reused = 0
        self.taken_over = 0
        self._shared = shared
        self._progress = progress
        if not read_only:
            _warn_of_network(self.path)
        with _read_errors(self.path):
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _open_to_read(self.path) if read_only else _connect(self.path)
            try:
                tables = self._known_tables()
                if read_only:
                    self._make_tables(_TABLES.keys() - tables, "CREATE TEMP TABLE")
                    self._connection.execute("PRAGMA query_only=ON")
                else:
                    self._prepare()
            except BaseException:
                self.close()
                raise

    def _prepare(self) -> None:
        self._use_write_ahead_log()
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._make_tables(_TABLES, "CREATE TABLE IF NOT EXISTS")
        self._connection.execute(f"PRAGMA user_version={STORE_VERSION}")

    def _make_tables(self, names: Iterable[str], command: str) -> None:
        for name in names:
            self._connection.execute(f"{command} {name} ({_TABLES[name]})")

    def _use_write_ahead_log(self) -> None:
        """Changes the journal, for which SQLite, unlike elsewhere, does not wait where another
        process opens the same new file.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    def _known_tables(self) -> set[str]:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        tables = {
            name
            for (name,) in self._connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            )
        }
        if version not in (0, STORE_VERSION):
            raise StoreError(
                "The store of answers was written by another version of domainfusion",
                received=version,
                allowed=str(STORE_VERSION),
                fix="use that version of domainfusion; the answers in the file stay readable to it",
            )
        if not tables <= _TABLES.keys():
            raise StoreError(
                "The file is a database, but not a store of answers",
                received=str(self.path),
                fix="give another path",
            )
        return tables

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def missing(
        self,
        model_fingerprint: str,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
    ) -> int:
        """Returns how many of these answers of a model are not stored."""
        return sum(
            self._read(request.key) is None
            for request in _requests(model_fingerprint, conversations, sampling)
        )

    def copy_from(self, other: str | Path) -> None:
        """Copies the answers of another store that are not here; what they took stays with it.

        Raises:
            StoreError: There is no store, or it can't be read.
        """
        with ResponseStore(other, read_only=True) as found, _write_errors(self.path):
            rows = found._connection.execute("SELECT key, model, request, answer FROM answers")
            with transaction(self._connection):
                self._connection.executemany(
                    "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows
                )

    def flush(self) -> None:
        """Has all that is stored on the disk, so that a power cut takes none of it back.

        Raises:
            StoreError: It can't be written.
        """
        with _write_errors(self.path):
            self._connection.execute("PRAGMA wal_checkpoint").fetchall()

    def usage(self) -> tuple[ModelUsage, ...]:
        """Returns what each model was asked since the store was made, and what that took, in the
        order in which they were first asked.
        """
        with _read_errors(self.path):
            rows = self._connection.execute(
                "SELECT model, max(name), group_concat(role, char(10)), sum(calls),"
                " sum(prompt_tokens), sum(completion_tokens), sum(seconds) FROM (SELECT rowid AS"
                " place, * FROM calls ORDER BY place) GROUP BY model ORDER BY min(place)"
            ).fetchall()
            payments = self._connection.execute(
                "SELECT model, total(paid), total(noted) FROM payments GROUP BY model"
            )
            paid = {model: (cost, noted) for model, cost, noted in payments}
        return tuple(
            ModelUsage(
                name=name,
                roles=tuple(role for role in roles.split("\n") if role),
                calls=calls,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                seconds=round(seconds, 2),
                cost=paid[model][0] if model in paid else None,
                unknown_cost=paid[model][1] if model in paid else 0.0,
            )
            for model, name, roles, calls, prompt_tokens, completion_tokens, seconds in rows
        )

    def ask(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
        role: str = "",
        is_shared: bool = True,
    ) -> list[Generation]:
        """Returns the model's answers: those that are stored from the store, the others from the
        model.

        Args:
            model: The model; one that costs money notes in the store what it spends.
            conversations: See `Ask`, as for the rest.
            sampling: How to write the answers.
            label: Names the work where its progress is shown.
            role: What `usage` says that the model is asked as.
            is_shared: Whether the shared store is used too, where there is one.
        """
        requests = list(_requests(model.fingerprint, conversations, sampling))
        answers = {
            request.key: found
            for request in requests
            if (found := self._read(request.key)) is not None
        }
        writer = _Writer(whole_characters(model.name), model.fingerprint, role, is_shared)
        if is_shared:
            self._take_over(writer, requests, sampling, answers)
        missing = list(
            {request.key: request for request in requests if request.key not in answers}.values()
        )
        self.reused += len(requests) - len(missing)
        if missing:
            with self._progress(
                label or f"asking {model.name}", len(requests), len(requests) - len(missing)
            ) as advance:
                for first_sample, batch in _runs(missing).items():
                    self._ask_model(model, writer, first_sample, batch, sampling, answers, advance)
        return [answers[request.key] for request in requests]

    def _take_over(
        self,
        writer: _Writer,
        requests: Iterable[_Request],
        sampling: Sampling,
        answers: dict[str, Generation],
    ) -> None:
        """Adds to the answers, and to this store, what the shared one has.

        An answer that this store asked for is counted: whoever asked was stopped, or found no room
        on the disk, between its being shared and its being kept here.
        """
        if self._shared is None:
            return
        for request in requests:
            if request.key in answers:
                continue
            found = self._shared._read(request.shared_key)
            if found is None:
                continue
            is_own = self._shared._asker_of(request.shared_key) == self._name
            with _write_errors(self.path), transaction(self._connection):
                answers[request.key] = self._keep(
                    request.key, writer.name, request, sampling, found
                )
                if is_own:
                    self._note_asked(writer)
                    self._count(writer, found, seconds=0.0)
            self.taken_over += not is_own

    def _share(
        self, name: str, request: _Request, sampling: Sampling, generation: Generation
    ) -> Generation:
        """Puts an answer into the shared store and returns the one that is kept there, so that
        runs that asked at once agree. One that can't be written to is not used again.
        """
        if self._shared is None:
            return generation
        own_name = self._name
        try:
            with _write_errors(self._shared.path), transaction(self._shared._connection):
                return self._shared._keep(
                    request.shared_key, name, request, sampling, generation, asker=own_name
                )
        except StoreError as error:
            logger.warning("Answers are kept with this run alone from now on: %s", error)
            self._shared = None
            return generation

    def _keep(
        self,
        key: str,
        name: str,
        request: _Request,
        sampling: Sampling,
        generation: Generation,
        *,
        asker: str | None = None,
    ) -> Generation:
        """Writes an answer where none is there, and returns the one that is, which another process
        may have written. In a shared store the request says which store asked.
        """
        asked: dict[str, Any] = {
            "messages": [asdict(message) for message in request.conversation],
            "sampling": asdict(sampling),
        }
        if asker is not None:
            asked[_ASKER] = asker
        answer = asdict(generation)
        answer[_DIGEST] = _digest(key, answer)
        row = (
            key,
            name,
            whole_characters(json.dumps(asked, ensure_ascii=False)),
            json.dumps(answer, ensure_ascii=False),
        )
        insert = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)"
        is_new = self._connection.execute(insert, row).rowcount
        return generation if is_new else self._read(key) or generation

    def _ask_model(
        self,
        model: LanguageModel,
        writer: _Writer,
        first_sample: int,
        batch: Sequence[_Request],
        sampling: Sampling,
        answers: dict[str, Generation],
        advance: Advance,
    ) -> None:
        waited_since = time.monotonic()

        def keep(position: int, generation: Generation) -> None:
            nonlocal waited_since
            request, now = batch[position], time.monotonic()
            generation = replace(
                generation,
                text=whole_characters(generation.text),
                reasoning=whole_characters(generation.reasoning),
            )
            if request.key not in answers:
                answers[request.key] = self._write(
                    request, writer, sampling, generation, now - waited_since
                )
                waited_since = now
                self.asked += 1
                advance(1)

        shifted = replace(sampling, seed=sampling.seed + first_sample * SAMPLE_STRIDE)
        with self._noting(model, writer):
            for position, generation in enumerate(
                model.generate([request.conversation for request in batch], shifted, keep)
            ):
                keep(position, generation)

    @contextmanager
    def _noting(self, model: LanguageModel, writer: _Writer) -> Iterator[None]:
        """Notes that a model is asked and, while it is, what it spends."""
        with _write_errors(self.path):
            self._note_asked(writer)
        if not isinstance(model, PaidModel):
            yield
            return
        # The model writes its books in a thread of its own, so they have their own connection.
        with (
            _write_errors(self.path),
            closing(_connect(self.path, check_same_thread=False)) as connection,
            model.charging(StoredBooks(connection, model=writer.fingerprint, role=writer.role)),
        ):
            yield

    @contextmanager
    def counting(self, model: LanguageModel, role: str) -> Iterator[Callable[[int, int], None]]:
        """Notes that a model is asked for what is kept elsewhere, such as scores, and what it
        spends in this block.

        Args:
            model: The model.
            role: What `usage` says that it is asked as.

        Yields:
            A function that counts a reply, by the tokens read and written for it.
        """
        writer = _Writer(model.name, model.fingerprint, role, is_shared=False)
        waited_since = time.monotonic()

        def count(prompt_tokens: int, completion_tokens: int) -> None:
            nonlocal waited_since
            now = time.monotonic()
            reply = Generation(
                text="", prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
            )
            with _write_errors(self.path):
                self._count(writer, reply, now - waited_since)
            waited_since = now

        with self._noting(model, writer):
            yield count

    def _read(self, key: str) -> Generation | None:
        with _read_errors(self.path):
            row = self._connection.execute(
                "SELECT answer FROM answers WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                return None
            answer = from_json(row[0])
            if not isinstance(answer, dict):
                raise ValueError(f"row {key} holds no answer")
            # Stores of before this was written have rows without one.
            if answer.pop(_DIGEST, None) not in (None, _digest(key, answer)):
                raise StoreError(
                    "An answer in the store is damaged, or was changed",
                    received=f"{self.path}, row {key}",
                    fix=(
                        "restore the file from a copy; to ask that question again, delete the row:"
                        f" sqlite3 {self.path.name} \"DELETE FROM answers WHERE key = '{key}'\""
                    ),
                )
            return Generation(**answer)

    def _write(
        self,
        request: _Request,
        writer: _Writer,
        sampling: Sampling,
        generation: Generation,
        seconds: float,
    ) -> Generation:
        """Keeps an answer, and returns the one that is kept: another process may have been
        faster.
        """
        kept = generation
        if writer.is_shared:
            kept = self._share(writer.name, request, sampling, generation)
        with _write_errors(self.path), transaction(self._connection):
            kept = self._keep(request.key, writer.name, request, sampling, kept)
            self._count(writer, generation, seconds)
        return kept

    def _note_asked(self, writer: _Writer) -> None:
        """Gives a model its line among the calls, in the order in which models are first asked."""
        self._connection.execute(
            "INSERT OR IGNORE INTO calls VALUES (?, ?, ?, 0, 0, 0, 0)",
            (writer.fingerprint, writer.role, writer.name),
        )

    def _count(self, writer: _Writer, generation: Generation, seconds: float) -> None:
        """Counts an answer that a model wrote for this store."""
        self._connection.execute(
            "UPDATE calls SET calls = calls + 1, prompt_tokens = prompt_tokens + ?,"
            " completion_tokens = completion_tokens + ?, seconds = seconds + ? WHERE model = ?"
            " AND role = ?",
            (
                generation.prompt_tokens,
                generation.completion_tokens,
                seconds,
                writer.fingerprint,
                writer.role,
            ),
        )

    def _asker_of(self, key: str) -> str | None:
        """Returns which store asked for an answer of this one; None where it is not noted."""
        with _read_errors(self.path):
            [request] = self._connection.execute(
                "SELECT request FROM answers WHERE key = ?", (key,)
            ).fetchone()
            asked = from_json(request)
            return asked.get(_ASKER) if isinstance(asked, dict) else None

    @cached_property
    def _name(self) -> str:
        """What tells this store from others, a copy of it and a later one in its place too."""
        with _write_errors(self.path), transaction(self._connection):
            [number] = self._connection.execute("PRAGMA application_id").fetchone()
            if not number:
                number = secrets.randbelow(2**31 - 1) + 1
                self._connection.execute(f"PRAGMA application_id={number}")
        return fingerprint([number, str(self.path.resolve())], length=16)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Who writes an answer, and as what it was asked."""

    name: str
    fingerprint: str
    role: str
    is_shared: bool


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, and its keys in a run's own store and in a shared one."""

    key: str
    shared_key: str
    conversation: Conversation
    sample: int


_DIGEST = "digest"
"""The field of a stored answer by which damage is noticed."""
_ASKER = "asked_by"
"""The field of a request in a shared store that says which store asked."""


def _digest(key: str, answer: Mapping[str, Any]) -> str:
    return fingerprint([key, answer], length=16)


def _requests(
    model_fingerprint: str, conversations: Sequence[Conversation], sampling: Sampling
) -> Iterator[_Request]:
    """Yields what is asked; a conversation that comes twice gets a second sample, unless decoding
    is greedy.
    """
    # Greedy decoding draws nothing, so another seed of a run asks for the same answer.
    drawn = sampling if sampling.temperature > 0 else replace(sampling, seed=0, top_p=1.0)
    samples = Counter[Conversation]()
    for conversation in conversations:
        sample = samples[conversation] if sampling.temperature > 0 else 0
        samples[conversation] += 1
        own, shared = (
            fingerprint([model_fingerprint, conversation, settings, sample], length=32)
            for settings in (sampling, drawn)
        )
        yield _Request(own, shared, conversation, sample)


def _runs(missing: Sequence[_Request]) -> dict[int, list[_Request]]:
    """Groups requests by the sample with which their run of consecutive samples begins.

    A model takes the repeats in one call as consecutive samples, so each group is one call, and the
    missing samples of a conversation come out as they would have if all had been asked at once.
    Without stored answers there is one group.
    """
    runs: dict[int, list[_Request]] = {}
    latest: dict[Conversation, tuple[int, int]] = {}
    for request in missing:
        sample, first = latest.get(request.conversation, (-1, 0))
        if request.sample != sample + 1:
            first = request.sample
        latest[request.conversation] = (request.sample, first)
        runs.setdefault(first, []).append(request)
    return runs


def _connect(path: Path, *, check_same_thread: bool = True) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=check_same_thread
    )


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Opens a store without changing or making a file, as far as SQLite allows: with a log beside
    it, that log's index is shared memory.
    """
    log = path.with_name(f"{path.name}-wal")
    mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=_PATIENCE_SECONDS,
        isolation_level=None,
    )


def _warn_of_network(path: Path) -> None:
    if kind := network_file_system(path):
        warnings.warn(
            f"The store of answers {path} lies on a network file system ({kind}), where SQLite"
            " can't keep several machines apart: never let two use it at once. Better, put"
            " output_dir on a local disk and copy it when it is done.",
            stacklevel=3,
        )


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a store that was closed is not a damaged one
    except (sqlite3.Error, ValueError, TypeError, OSError) as error:
        raise StoreError(
            f"The store of answers can't be read: {error}", received=str(path), fix=_advice(error)
        ) from error


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(
            f"An answer could not be kept: {error}", received=str(path), fix=_advice(error)
        ) from error


_DAMAGED = (
    "copy the file first; what can be read is saved by: sqlite3 responses.sqlite .recover | sqlite3"
    " recovered.sqlite. Without it, the run asks its models again, and max_cost no longer knows"
    " what was spent"
)
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process is writing to it: wait until that is done, and run again",
    sqlite3.SQLITE_LOCKED: (
        "another process is writing to it: wait until that is done, and run again"
    ),
    sqlite3.SQLITE_FULL: "free disk space and run again; the answers so far are kept",
    sqlite3.SQLITE_READONLY: "allow this user to write to the file and to its folder",
    sqlite3.SQLITE_PERM: "allow this user to read and write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: (
        "check the path, and allow this user to read and write the file and its folder"
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk is full, or reports an error: free some space, or check it (the system's log says"
        " more), and run again; leave the file where it is"
    ),
    sqlite3.SQLITE_NOMEM: "free some memory and run again; the answers so far are kept",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
"""What to do, by the cause. Only a damaged file may have to go, and never without a word of what it
holds.
"""


def _advice(error: Exception) -> str:
    if isinstance(error, OSError):
        return advice_on(error)
    if isinstance(error, sqlite3.Error):
        # The lowest byte of an extended code is the primary one. Errors that Python's own module
        # raises, such as that of a closed connection, have no code.
        code = getattr(error, "sqlite_errorcode", None)
        return _ADVICE.get(
            -1 if code is None else code & 0xFF,
            "run again; leave the file where it is, as it holds the answers so far",
        )
    return _DAMAGED  # an entry that is not what was written
