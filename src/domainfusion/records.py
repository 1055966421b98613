"""Records on disk: JSON and JSON Lines with a schema version, written whole or not at all, read with line-numbered errors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from domainfusion.errors import DataError
from domainfusion.types import SCHEMA_VERSION

T = TypeVar("T")


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(
            f"The file could not be written: {error.strerror or error}", received=str(path), fix="free disk space or check the permissions"
        ) from error


def write_json(path: Path, value: object) -> None:
    """Writes one JSON document; dataclasses become objects."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    write_text(path, json.dumps(plain, indent=1, ensure_ascii=False, default=asdict) + "\n")


def read_json(path: Path) -> Any:
    """Reads one JSON document."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("There is no such file", received=str(path)) from error
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
    return [_to_record(fields, kind, place) for place, fields in read_lines(path)]


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects of a JSON Lines file, each with its place as `file:line`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file can't be read: {error}", received=str(path)) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise DataError(f"{place} is not JSON: {error}", received=line, fix="mend or remove the line") from error
        if not isinstance(fields, dict):
            raise DataError(f"{place} is not a JSON object", received=fields, fix="write one object a line")
        yield place, fields


def _to_record(fields: dict[str, Any], kind: type[T], place: str) -> T:
    version = fields.pop("schema", SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{place} was written by a later version of domainfusion",
            received=version,
            allowed=f"schema {SCHEMA_VERSION} or lower",
            fix="upgrade domainfusion",
        )
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(step) for step in problem["loc"])
        raise DataError(f"{place}: {where or 'the record'}: {problem['msg']}", received=problem["input"]) from error
