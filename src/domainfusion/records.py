"""Records on disk: JSON and JSON Lines with a schema version, written whole or not at all, read with line-numbered errors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from domainfusion.errors import DataError
from domainfusion.types import SCHEMA_VERSION

T = TypeVar("T")


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` so that a reader, or a crash, sees the old file or the new one and nothing between.

    Raises:
        DataError: The file can't be written, or the text can't be: half a character (a lone surrogate) has no UTF-8.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"The file could not be written: {error.strerror or error}", received=str(path), fix="free disk space or check the permissions"
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text for {path} holds half a character", received=text[error.start : error.end], fix="remove the lone surrogate"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Writes one JSON document; dataclasses become objects."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    write_text(path, json.dumps(plain, indent=1, ensure_ascii=False, default=asdict) + "\n")


def read_json(path: Path) -> Any:
    """Reads one JSON document.

    Raises:
        DataError: The file is not there, can't be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"The file can't be read: {error.strerror or error}", received=str(path), fix="check the path") from error
    except ValueError as error:
        raise DataError(f"The file is not JSON: {error}", received=str(path)) from error


def write_records(path: Path, records: Iterable[Any]) -> None:
    """Writes dataclasses as JSON Lines, each with its schema version."""
    lines = (json.dumps({"schema": SCHEMA_VERSION, **asdict(record)}, ensure_ascii=False) for record in records)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_records(path: Path, kind: type[T]) -> list[T]:
    """Reads what `write_records` wrote.

    Raises:
        DataError: A line is not a record of `kind`, or was written by a later version; it names file and line.
    """
    adapter = TypeAdapter(kind)
    known = {field.name for field in fields(kind)} if is_dataclass(kind) else None
    return [_to_record(line, adapter, known, place) for place, line in read_lines(path)]


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects of a JSON Lines file, each with its place as `file:line`.

    Raises:
        DataError: The file can't be read, or a line is not a JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file can't be read: {error}", received=str(path)) from error
    # Not splitlines(): it also splits at characters such as U+2028 and U+0085, which may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{place} is not JSON: {error}", received=line, fix="mend or remove the line") from error
        if not isinstance(record, dict):
            raise DataError(f"{place} is not a JSON object", received=record, fix="write one object a line")
        yield place, record


def _to_record(line: dict[str, Any], adapter: TypeAdapter[T], known: set[str] | None, place: str) -> T:
    version = line.pop("schema", SCHEMA_VERSION)
    if not isinstance(version, int):
        raise DataError(f"{place}: schema is not a number", received=version, allowed=f"a whole number up to {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{place} was written by a later version of domainfusion",
            received=version,
            allowed=f"schema {SCHEMA_VERSION} or lower",
            fix="upgrade domainfusion",
        )
    if known is not None and (unknown := sorted(line.keys() - known)):
        raise DataError(f"{place}: there is no field of this name", received=unknown[0], allowed=", ".join(sorted(known)))
    try:
        return adapter.validate_python(line)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(step) for step in problem["loc"])
        raise DataError(f"{place}: {where or 'the record'}: {problem['msg']}", received=problem["input"]) from error
