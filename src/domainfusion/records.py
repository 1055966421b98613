"""Records on disk: JSON and JSON Lines with a schema version, written whole or not at all, read
with line-numbered errors.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from domainfusion.errors import DataError, advice_on
from domainfusion.files import checksum_of, replacing
from domainfusion.types import SCHEMA_VERSION, Example, fingerprint

T = TypeVar("T")


CHECKSUMS = "checksums.json"
"""The list of a folder: for each file that a run reads again, the SHA-256 of its bytes, and of
those before. Whoever changes a file on purpose deletes its line.
"""


def write_text(path: Path, text: str, *, listed: bool = False) -> None:
    """Writes `text` to `path` so that a reader, or a crash, sees the old file or the new one and
    nothing between.

    Args:
        path: The file.
        text: What it is to contain.
        listed: Whether its checksum is kept, so that reading it finds damage; see `CHECKSUMS`.

    Raises:
        DataError: The file can't be written, or the text can't be: half a character (a lone
            surrogate) has no UTF-8.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            if listed:
                expect(path, checksum_of(temporary))
    except OSError as error:
        raise DataError(
            f"The file could not be written: {error.strerror or error}",
            received=str(path),
            fix=advice_on(error),
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text for {path} contains half a character (a lone surrogate)",
            received=text[error.start : error.end],
            fix="remove the lone surrogate",
        ) from error


def whole_characters(text: str) -> str:
    r"""Returns a text with half characters (lone surrogates), which JSON can spell and no file can
    hold, replaced.

    Example:
        >>> whole_characters("a\ud83d\ude00b\ud800") == "a\N{GRINNING FACE}b\N{REPLACEMENT CHARACTER}"
        True
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def expect(path: Path, checksum: str) -> None:
    """Adds to the list of the file's folder what the file will be, before it is put in its place.

    What it was before stays on the list: a process that is killed between the two leaves either.

    Raises:
        DataError: The list is damaged, or can't be written.
    """
    sums = _checksums_in(path.parent)
    before = [known for known in sums.get(path.name, [])[:1] if known != checksum]
    sums[path.name] = [checksum, *before]
    write_text(path.parent / CHECKSUMS, to_json(sums, indent=1) + "\n")


def is_changed(path: Path) -> bool:
    """Whether a file has other bytes than a run wrote; one that is not listed has not.

    Raises:
        DataError: The list is damaged.
    """
    known = _checksums_in(path.parent).get(path.name)
    if not known or not path.is_file() or checksum_of(path) in known:
        return False
    # Another process may have written it just now.
    return checksum_of(path) not in _checksums_in(path.parent).get(path.name, [])


def refuse_changed(folder: Path, *names: str) -> None:
    """Raises where a file of a folder has other bytes than a run wrote, or the list is damaged.

    Args:
        folder: The folder.
        names: The files that are looked at; by default all that are listed.

    Raises:
        DataError: The first such file.
    """
    for name in names or _checksums_in(folder):
        _refuse_changed(folder / name)


def _refuse_changed(path: Path) -> None:
    if path.name != CHECKSUMS and is_changed(path):
        raise DataError(
            "The file is damaged, or was changed after the run wrote it",
            received=str(path),
            fix=(
                f"restore it from a copy; to use it as it is, delete its lines in {CHECKSUMS} beside"
                " it; to have the run make it again, delete what the stage that wrote it made, as"
                " the guide on resuming lists it"
            ),
        )


def _checksums_in(folder: Path) -> dict[str, list[str]]:
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    try:
        return {
            name: [sums] if isinstance(sums, str) else sums
            for name, sums in _CHECKSUMS.validate_json(path.read_bytes(), strict=True).items()
        }
    except OSError as error:
        raise DataError(
            f"The file can't be read: {error.strerror or error}",
            received=str(path),
            fix=advice_on(error),
        ) from error
    except ValidationError as error:
        raise DataError(
            "The list of checksums is damaged",
            received=str(path),
            fix="restore it from a copy, or delete it: then the files beside it are not checked",
        ) from error


_CHECKSUMS = TypeAdapter(dict[str, list[str] | str])
"""What a list of checksums holds; a single one is how an earlier version wrote it."""


def file_name(name: str) -> str:
    """Returns a name for a file or folder that stands for any text, such as a domain's name.

    It is a name on every file system: short, without separators and final dots, not reserved on
    Windows, and different for texts that differ only in case.

    Example:
        >>> file_name("aviation"), file_name("../Law"), file_name("CON")
        ('aviation', 'law-330a61df', 'con-f8830758')
    """
    plain = _OTHER_THAN_PLAIN.sub("-", name.lower()).strip("-")[:_LONGEST_NAME]
    is_itself = plain == name != "" and name not in _RESERVED and not _LOOKS_MADE.search(name)
    return plain if is_itself else f"{plain or 'name'}-{fingerprint(name, length=8)}"


_LONGEST_NAME = 60
# What a file name made of a text does not keep.
_OTHER_THAN_PLAIN = re.compile(r"[^a-z0-9_]+")
_LOOKS_MADE = re.compile(r"-[0-9a-f]{8}$")
"""How a made name ends, which another text could have as its own."""
_RESERVED = frozenset(
    {
        "con",
        "prn",
        "aux",
        "nul",
        *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
    }
)
"""Names of devices on Windows."""


def write_json(path: Path, value: object, *, listed: bool = False) -> None:
    """Writes one JSON document; dataclasses become objects, by their own `to_dict` where they have
    one, and NaN and infinity null. `listed` is that of `write_text`.
    """
    if hasattr(value, "to_dict"):
        plain = value.to_dict()
    else:
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    write_text(path, to_json(plain, indent=1) + "\n", listed=listed)


def to_json(value: object, *, indent: int | None = None) -> str:
    """Returns a value as JSON. NaN and infinity, which JSON does not have, become null.

    Example:
        >>> to_json({"loss": float("nan"), "step": 1})
        '{"loss": null, "step": 1}'
    """
    try:
        return json.dumps(
            value, indent=indent, ensure_ascii=False, default=_fields_of, allow_nan=False
        )
    except ValueError:  # seldom: so the way without a copy comes first
        text = json.dumps(value, default=_fields_of)
        plain = from_json(text, parse_constant=lambda constant: None)
        return json.dumps(plain, indent=indent, ensure_ascii=False)


def _fields_of(value: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass as they are; `asdict` copies all that is in them."""
    if isinstance(value, type):
        raise TypeError(f"A class has no JSON: {value}")
    return {each.name: getattr(value, each.name) for each in fields(value)}


def from_json(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Returns what a JSON text of anybody's says.

    Args:
        text: The text, or its bytes.
        parse_constant: What `NaN`, `Infinity` and `-Infinity` are; by default the float.

    Raises:
        ValueError: It is not JSON, or not UTF-8, or is nested more deeply than `DEEPEST`.

    Example:
        >>> from_json("[" * 100_000)
        Traceback (most recent call last):
            ...
        ValueError: it is nested too deeply
    """
    try:
        found = json.loads(text, parse_constant=parse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    opening = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    # Few brackets can't be nested deeply, and nearly all texts have few.
    if sum(map(text.count, opening)) > DEEPEST and _is_deep(found):  # type: ignore[arg-type]
        raise ValueError("it is nested too deeply")
    return found


DEEPEST = 100
"""How deeply lists and objects may be nested in JSON. What Python just manages to read would stop
whatever walks through it, such as `repr`, from further down the stack.
"""


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                below.extend(each.values())
            elif isinstance(each, list):
                below.extend(each)
        level = [each for each in below if isinstance(each, dict | list)]
        if not level:
            return False
    return True


@overload
def read_json(path: Path, *, parse_constant: Callable[[str], Any] | None = None) -> Any: ...


@overload
def read_json(path: Path, kind: type[T]) -> T: ...


def read_json(
    path: Path, kind: Any = None, *, parse_constant: Callable[[str], Any] | None = None
) -> Any:
    """Reads one JSON document.

    Args:
        path: The file.
        kind: What it has to hold, to its innermost field: a dataclass, a pydantic model, or a type
            of them such as `list[StageTime]`. Fields that it does not know are left out. With a
            kind, a number that is none (`NaN`, `1e999`) is refused. None returns the plain value.
        parse_constant: What `NaN`, `Infinity` and `-Infinity` are without a kind; by default the
            float.

    Raises:
        DataError: The file is not there, can't be read, is not JSON or holds another kind.
    """
    text = read_text(path)
    try:
        if kind is None:
            return from_json(text, parse_constant=parse_constant)
        plain = from_json(text, parse_constant=_refuse_constant)
        # From the text: JSON has no tuples, which a strict reader of Python values asks for.
        found = TypeAdapter(kind).validate_json(text, strict=True)
        refuse_immense(found, "")
    except ValidationError as error:
        raise of_another_kind(str(path), error, _FIX_DOCUMENT) from error
    except ValueError as error:
        raise DataError(
            f"The file is not JSON: {error}",
            received=str(path),
            fix="correct it there, or restore it from a copy",
        ) from error
    return plain if kind in (dict, list) else found


_FIX_DOCUMENT = (
    "restore the file from a copy, or remove it and run the command that writes it again"
)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


def refuse_immense(value: object, place: str) -> None:
    """Raises where a field of a dataclass is a number that no float holds, which JSON can spell.

    Raises:
        ValueError: The number, with its place.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place} is {value}, which is not a number in JSON")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError(f"{place} is a number of more than 308 digits")
    if isinstance(value, list | tuple):
        for each in value:
            refuse_immense(each, place)
    elif is_dataclass(value) and not isinstance(value, Example):  # which holds what users write
        for each in fields(value):
            refuse_immense(getattr(value, each.name), f"{place}.{each.name}".removeprefix("."))
    elif isinstance(value, Mapping):
        for name, each in value.items():
            refuse_immense(each, f"{place}.{name}".removeprefix("."))


def of_another_kind(place: str, error: ValidationError, fix: str) -> DataError:
    """Returns the error for a value that is not what a file has to hold there.

    Args:
        place: The file, and its line if it has lines.
        error: What pydantic says of it.
        fix: What to do about it.
    """
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "json_invalid":  # which Python reads: half a character
        what = problem["msg"].removeprefix("Invalid JSON: ")
        return DataError(f"The file is not JSON: {what}", received=place, fix=fix)
    where = ".".join(str(step) for step in problem["loc"]) or "the whole of it"
    return DataError(
        f"{place}: {where} is not what belongs there",
        received=problem["input"],
        allowed=problem["msg"].removeprefix("Input should be ").removeprefix("Value error, "),
        fix=fix,
    )


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
        DataError: The file is not there, can't be read or is not UTF-8; the message says how to
            convert it. Or it has other bytes than a run wrote; see `CHECKSUMS`.
    """
    _refuse_changed(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The file can't be read: {error.strerror or error}",
            received=str(path),
            fix=advice_on(error),
        ) from error
    try:
        if not content.startswith(_SIGNATURES):
            return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"line {content.count(10, 0, error.start) + 1}"
        raise DataError(
            f"The file is not UTF-8, but perhaps Windows-1252 or Latin-1: {error.reason} in"
            f" {place}",
            received=str(path),
            fix=(
                f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > converted{path.suffix}; from Excel,"
                " save as 'CSV UTF-8'"
            ),
        ) from error
    raise _not_text(path, content)


_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_SIGNATURES = (*_UTF_16, _GZIP, _ZIP)
"""First bytes of files that are not text in UTF-8."""


def _not_text(path: Path, content: bytes) -> DataError:
    if content.startswith(_GZIP):
        return DataError(
            "The file is compressed with gzip", received=str(path), fix=f"gunzip {path.name}"
        )
    if content.startswith(_ZIP):
        what = "The file is a ZIP archive, as Excel workbooks are"
        return DataError(what, received=str(path), fix="unpack it; from Excel, save as 'CSV UTF-8'")
    fix = (
        f"iconv -f UTF-16 -t UTF-8 {path.name} > converted{path.suffix}; in PowerShell, write with"
        " Out-File -Encoding utf8"
    )
    return DataError("The file is UTF-16, not UTF-8", received=str(path), fix=fix)


def write_records(path: Path, records: Iterable[Any], *, listed: bool = False) -> None:
    """Writes dataclasses as JSON Lines, each with its schema version. `listed` is that of
    `write_text`.
    """
    lines = (to_json({"schema": SCHEMA_VERSION, **_fields_of(record)}) for record in records)
    write_text(path, "".join(f"{line}\n" for line in lines), listed=listed)


def read_records(path: Path, kind: type[T]) -> list[T]:
    """Reads what `write_records` wrote.

    Raises:
        DataError: A line is not a record of `kind`, or was written by a later version; it names
            file and line.
    """
    adapter = TypeAdapter(kind)
    known = {field.name for field in fields(kind)} if is_dataclass(kind) else None
    return [_to_record(line, adapter, known, place) for place, line in read_lines(path)]


def read_lines(
    path: Path, *, parse_constant: Callable[[str], Any] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects of a JSON Lines file, each with its place as `file:line`.

    Args:
        path: The file.
        parse_constant: What `NaN`, `Infinity` and `-Infinity` are; by default the float.

    Raises:
        DataError: The file can't be read, or a line is not a JSON object.
    """
    # Not splitlines(): it also splits at characters such as U+2028 and U+0085, which may stand
    # inside a JSON string.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            record = from_json(line, parse_constant=parse_constant)
        except ValueError as error:
            raise DataError(
                f"{place} is not JSON: {error}", received=line, fix="correct or remove the line"
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{place} is not a JSON object", received=line, fix="write one object a line"
            )
        yield place, record


def _to_record(
    line: dict[str, Any], adapter: TypeAdapter[T], known: set[str] | None, place: str
) -> T:
    version = line.pop("schema", SCHEMA_VERSION)
    if not isinstance(version, int):
        raise DataError(
            f"{place}: schema is not a number",
            received="null" if version is None else version,
            allowed=f"a whole number up to {SCHEMA_VERSION}",
        )
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{place} was written by a later version of domainfusion",
            received=version,
            allowed=f"schema {SCHEMA_VERSION} or lower",
            fix="upgrade domainfusion",
        )
    if known is not None and (unknown := sorted(line.keys() - known)):
        raise DataError(
            f"{place}: there is no field of this name",
            received=unknown[0],
            allowed=", ".join(sorted(known)),
        )
    try:
        return adapter.validate_python(line)
    except ValidationError as error:
        raise of_another_kind(place, error, "correct or remove the line") from error
