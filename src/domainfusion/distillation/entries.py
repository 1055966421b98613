"""Entries as they stand in files, tables and lists, each with its place: JSON Lines, JSON, CSV,
Parquet, Hugging Face datasets.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from domainfusion.errors import DataError, MissingDependencyError
from domainfusion.records import read_json, read_lines, read_text

EntrySource = str | Path | Iterable[Any]
"""A file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`; any other is read as JSON Lines), a
Hugging Face dataset, a pandas.DataFrame, or a list.
"""

_DEEPEST = 100
"""Levels of lists and dicts that are looked through."""


class Entry(NamedTuple):
    """One entry.

    Attributes:
        place: Where it stands: `file:line`, or its position.
        value: What stands there.
        columns: The columns of the table that it is a row of; None where there is none, as in a
            list.
        is_text: Whether every value is a text, as in CSV.
    """

    place: str
    value: Any
    columns: tuple[str, ...] | None = None
    is_text: bool = False


def read_entries(source: EntrySource) -> Iterator[Entry]:
    """Yields the entries of a file, a dataset, a table of pandas or a list.

    Values that are missing (`NaN`, and pandas' `NA` and `NaT`) are None.

    Raises:
        DataError: The file can't be read, a line of it is broken, or the dataset has several
            splits.
        MissingDependencyError: A Parquet file, and the package pyarrow is not installed.
    """
    if isinstance(source, str | Path):
        yield from _entries_of_file(Path(source))
    elif isinstance(source, Mapping):
        allowed = "a list, or one split of a dataset"
        raise DataError(
            "The examples are a mapping",
            received=list(source),
            allowed=allowed,
            fix='choose one: data["train"]',
        )
    else:
        columns, items = getattr(source, "column_names", None), source
        if (
            columns is None and hasattr(source, "to_dict") and hasattr(source, "columns")
        ):  # a pandas.DataFrame
            columns, items = list(source.columns), source.to_dict("records")
        names = tuple(map(str, columns)) if columns else None
        for position, item in enumerate(items):
            yield Entry(f"example {position}", without_missing(item), names)


def without_missing(value: Any, depth: int = 0) -> Any:
    """Returns a value with None for what is missing in it, and lists for arrays.

    Example:
        >>> without_missing({"query": "Why?", "reference": float("nan"), "answers": ["yes", float("nan")]})
        {'query': 'Why?', 'reference': None, 'answers': ['yes', None]}
    """
    if isinstance(value, float) and math.isnan(value):
        return None
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas', which is not imported for it
        return None
    if depth > _DEEPEST:
        return value
    if isinstance(value, dict):
        return {name: without_missing(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_missing(item, depth + 1) for item in value]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return without_missing(value.tolist(), depth + 1)
    return value


def _entries_of_file(path: Path) -> Iterator[Entry]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        yield from _entries_of_json(path)
    elif suffix in (".csv", ".tsv"):
        yield from _entries_of_csv(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        yield from _entries_of_parquet(path)
    elif _begins_with(path, "["):  # a JSON list under another name
        yield from _entries_of_json(path)
    else:
        yield from (
            Entry(place, value) for place, value in read_lines(path, parse_constant=_constant)
        )


def _begins_with(path: Path, mark: str) -> bool:
    return read_text(path).lstrip().startswith(mark)


def _constant(name: str) -> None:
    """Reads `NaN`, which pandas writes for a missing value; infinity is not a value of an
    example.
    """
    if name != "NaN":
        raise ValueError(f"{name} is not a value in JSON")


def _entries_of_json(path: Path) -> Iterator[Entry]:
    try:
        content = read_json(path, parse_constant=_constant)
    except DataError as error:
        if _begins_with(path, "{") and "Extra data" in str(error):  # JSON Lines under another name
            yield from (
                Entry(place, value) for place, value in read_lines(path, parse_constant=_constant)
            )
            return
        raise
    if not isinstance(content, list):
        raise DataError(
            "The file does not hold a list of examples",
            received=str(path),
            fix=_how_to_list(content),
        )
    for position, value in enumerate(content):
        yield Entry(f"{path}: entry {position}", value)


def _how_to_list(content: object) -> str:
    """Returns how to make a list of what a JSON file holds instead."""
    inner = content if isinstance(content, dict) else {}
    name = next((name for name, value in inner.items() if isinstance(value, list)), None)
    if name is not None:
        return f"write the list alone that stands under {name!r}, such as with: jq '.[\"{name}\"]'"
    if inner and all(isinstance(value, dict) for value in inner.values()):
        return (
            'write a row each instead of a column each; in pandas: to_json(path, orient="records")'
        )
    return "write [{...}, {...}], or use JSON Lines"


def _entries_of_csv(path: Path, delimiter: str) -> Iterator[Entry]:
    """Yields the rows of a table with a header; an empty cell is not a value."""
    text = read_text(path)
    rows = _rows_of_csv(path, text, _delimiter_of(text, delimiter))
    _, header = next(rows, (1, ()))
    header = tuple(name.strip() for name in header)
    names = tuple(name for name in header if name)
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{path}:1 is not a header",
            received=header,
            allowed="a name for each column, each once",
        )
    for line, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            what = f"{path}:{line} has {len(row)} cells, and the header {len(header)}"
            raise DataError(
                what, received=row, fix="put a text with commas or line breaks in double quotes"
            )
        # A first column without a name is an index, as pandas writes it; further ones are margins
        # of a sheet.
        if any(cell.strip() and not name for name, cell in zip(header[1:], row[1:], strict=True)):
            raise DataError(
                f"{path}:{line} has a cell in a column without a name",
                received=row,
                fix="name the column in the first line",
            )
        cells = {
            name: cell for name, cell in zip(header, row, strict=True) if name and cell.strip()
        }
        yield Entry(f"{path}:{line}", cells, names, is_text=True)


def _delimiter_of(text: str, usual: str) -> str:
    """Returns what separates the cells of a table, by its header: Excel writes semicolons where
    commas are decimal.
    """
    header = text.lstrip().partition("\n")[0]
    if usual in header:
        return usual
    return next((mark for mark in (";", "\t") if mark in header), usual)


def _rows_of_csv(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields the rows, each with the line that it begins in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        # The limit is one of the whole process: it is raised for each row alone.
        before = csv.field_size_limit(max(len(text), 1))
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}:{line} is not CSV: {error}", received=str(path), fix="fix the quotes there"
            ) from error
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield line, tuple(row)
        line = reader.line_num + 1


def _entries_of_parquet(path: Path) -> Iterator[Entry]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        what = "Parquet needs the package pyarrow"
        raise MissingDependencyError(
            what, received=str(path), fix="run: pip install 'domainfusion[data]'"
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(path)
        names = tuple(table.schema_arrow.names)
        position = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                yield Entry(f"{path}: row {position}", without_missing(row), names)
                position += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"The file is no Parquet file that can be read: {error}", received=str(path)
        ) from error
