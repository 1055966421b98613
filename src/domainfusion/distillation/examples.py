"""Examples as people write them: files and dicts, read into `Example`s with errors that name the place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from domainfusion.errors import DataError
from domainfusion.records import read_json, read_lines
from domainfusion.types import Example, Part

ExampleLike = Example | Mapping[str, Any]


def read_examples(source: str | Path | Sequence[ExampleLike]) -> Iterator[Example]:
    """Yields examples from a file, or from a list of examples or dicts.

    Raises:
        DataError: An entry can't be read.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        entries = _entries_of_json(path) if path.suffix == ".json" else read_lines(path)
        for place, entry in entries:
            yield _to_example(entry, place)
        return
    for position, item in enumerate(source):
        yield item if isinstance(item, Example) else _to_example(item, f"example {position}")


def _entries_of_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError("The file does not hold a list of examples", received=str(path), fix="write [{...}, {...}], or use JSON Lines")
    for position, entry in enumerate(content):
        yield f"{path}: entry {position}", entry


def _to_example(entry: Mapping[str, Any], place: str) -> Example:
    known = {item.name for item in fields(Example)} | {"answers", "domain", "schema"}
    if not isinstance(entry, Mapping):
        raise DataError(f"{place} is no object", received=entry)
    unknown = set(entry) - known
    if unknown:
        raise DataError(f"{place} has the unknown field {sorted(unknown)[0]!r}", allowed=", ".join(sorted(known)), fix="move it to metadata")
    values = {name: value for name, value in entry.items() if name not in ("schema", "answers", "domain")}
    domains = values.get("domains") or entry.get("domain") or ()
    values["domains"] = (domains,) if isinstance(domains, str) else tuple(domains)
    if not isinstance(values.get("query"), str) or not values["query"].strip():
        raise DataError(f"{place} has no query", received=entry.get("query"), fix="give the question as text")
    if not values["domains"]:
        raise DataError(f"{place} names no domain", received=entry.get("domains"), fix='add "domains": ["..."]')
    parts = values.pop("parts", ())
    values["parts"] = tuple(Part(domain=part["domain"], answers=tuple(part["answers"])) for part in parts)
    for domain, answers in (entry.get("answers") or {}).items():
        values["parts"] += (Part(domain=domain, answers=(answers,) if isinstance(answers, str) else tuple(answers)),)
    return Example(**{"source": "curated", **values})
