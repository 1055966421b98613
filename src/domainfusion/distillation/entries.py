"""Entries as they stand in files, tables and lists, each with its place: JSON Lines, JSON, CSV, Parquet, Hugging Face datasets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from domainfusion.errors import DataError, MissingDependencyError
from domainfusion.records import read_json, read_lines

EntrySource = str | Path | Iterable[Any]
"""A file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`; any other is read as JSON Lines), a Hugging Face dataset, or a list."""


class Entry(NamedTuple):
    """One entry.

    Attributes:
        place: Where it stands: `file:line`, or its position.
        value: What stands there.
        columns: The columns of the table that it is a row of; None where there is none, as in a list.
        is_text: Whether every value is a text, as in CSV.
    """

    place: str
    value: Any
    columns: tuple[str, ...] | None = None
    is_text: bool = False


def read_entries(source: EntrySource) -> Iterator[Entry]:
    """Yields the entries of a file, a dataset or a list.

    Raises:
        DataError: The file can't be read, a line of it is broken, or the dataset has several splits.
        MissingDependencyError: A Parquet file, and the package pyarrow is not installed.
    """
    if isinstance(source, str | Path):
        yield from _entries_of_file(Path(source))
    elif isinstance(source, Mapping):
        allowed = "a list, or one split of a dataset"
        raise DataError("The examples are a mapping", received=list(source), allowed=allowed, fix='choose one: data["train"]')
    else:
        columns = getattr(source, "column_names", None)
        names = tuple(columns) if columns else None
        for position, item in enumerate(source):
            yield Entry(f"example {position}", item, names)


def _entries_of_file(path: Path) -> Iterator[Entry]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        yield from _entries_of_json(path)
    elif suffix in (".csv", ".tsv"):
        yield from _entries_of_csv(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        yield from _entries_of_parquet(path)
    else:
        yield from (Entry(place, value) for place, value in read_lines(path))


def _entries_of_json(path: Path) -> Iterator[Entry]:
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError("The file does not hold a list of examples", received=str(path), fix="write [{...}, {...}], or use JSON Lines")
    for position, value in enumerate(content):
        yield Entry(f"{path}: entry {position}", value)


def _entries_of_csv(path: Path, delimiter: str) -> Iterator[Entry]:
    """Yields the rows of a table with a header; an empty cell is no value."""
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = tuple(name.strip() for name in next(reader, []))
            if not header or len(set(header)) < len(header) or "" in header:
                raise DataError(f"{path}:1 is no header", received=header, allowed="a name for each column, each once")
            line = reader.line_num
            for row in reader:
                place, line = f"{path}:{line + 1}", reader.line_num
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    what = f"{place} has {len(row)} cells, and the header {len(header)}"
                    raise DataError(what, received=row, fix="put a text with commas or line breaks in double quotes")
                yield Entry(place, {name: cell for name, cell in zip(header, row, strict=True) if cell.strip()}, header, is_text=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file can't be read: {error}", received=str(path)) from error
    except csv.Error as error:
        raise DataError(f"{path}:{line + 1} is not CSV: {error}", received=str(path), fix="mend the quotes there") from error


def _entries_of_parquet(path: Path) -> Iterator[Entry]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        what = "Parquet needs the package pyarrow"
        raise MissingDependencyError(what, received=str(path), fix="run: pip install 'domainfusion[data]'") from error
    try:
        table = pyarrow.parquet.ParquetFile(path)
        names = tuple(table.schema_arrow.names)
        position = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                yield Entry(f"{path}: row {position}", row, names)
                position += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"The file is no Parquet file that can be read: {error}", received=str(path)) from error
