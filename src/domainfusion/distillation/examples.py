"""Examples as people write them: files and dicts, read into `Example`s with errors that name the
place.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields as fields_of_class
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from domainfusion.checks import is_number
from domainfusion.distillation.entries import (
    Dialogue,
    Entry,
    is_unreadable,
    proposed_fields,
    read_alpaca,
    read_dialogue,
    read_entries,
    read_pair,
    read_plain,
    refuse_unreadable,
    with_input,
    without_missing,
    without_reasoning,
)
from domainfusion.distillation.text.words import identity
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.records import from_json, of_another_kind
from domainfusion.types import Example, transcript

ExampleLike = Example | Mapping[str, Any] | tuple[str, ...] | str
ExampleSource = str | Path | Iterable[ExampleLike]
"""A file (JSON Lines, JSON, CSV, Parquet, text), a Hugging Face dataset, or a list of examples,
dicts, tuples and texts.
"""

CROSS_DOMAIN = "cross-domain"
ADVERSARIAL = "adversarial"

_DIALOGUES = ("messages", "conversations")
_FIELDS = {item.name for item in fields_of_class(Example)} | {
    "answers",
    "domain",
    "schema",
    *_DIALOGUES,
}
_STRUCTURED = {"domains", "answers", "parts", "sub_questions", "history", "metadata", *_DIALOGUES}
_TEXTS = ("id", "group", "reference")
_MISSING = frozenset(
    {
        "nan",
        "NaN",
        "NAN",
        "-nan",
        "-NaN",
        "<NA>",
        "#N/A",
        "N/A",
        "n/a",
        "NULL",
        "null",
        "None",
        "NaT",
    }
)
"""What pandas, R and databases write into a table for a missing value. `NA` is not among them: it
may be an answer.
"""
_READER = TypeAdapter(Example)

logger = logging.getLogger("domainfusion")


def read_examples(
    source: ExampleSource, *, domain: str = "", fields: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """Yields examples from a file, a dataset or a list.

    Args:
        source: The examples. In a dict or a file, `answers` may stand for `parts`: accepted answers
            by domain, or, where there is one domain, the answers alone. `messages` (or
            `conversations`, as in ShareGPT) may stand for `query`, `history` and `reference`: the
            last question, the turns before it, and its answer where there is one. A system message
            is not a turn: it is kept in the metadata as `system`. `instruction`, `input` and
            `output` (Alpaca) are a query and its reference, and so are `question` and `answer`,
            `prompt` and `completion`, and a tuple of two texts; a text alone is a query. In CSV,
            several domains are separated by semicolons, what has structure is JSON, and cells such
            as `nan`, `None` and `NULL` are empty. Reasoning before a reference is left out. Entries
            with images or tools are refused.
        domain: The domain of entries that name none.
        fields: Where the source calls a field otherwise: its name there, or a path such as
            `answers.text`, by the name here. Whatever is neither named here nor a field of an
            example is then kept in the metadata; without it, that is an error.

    Raises:
        DataError: An entry can't be read; the message names its file and line, or its position. Or
            a column that `fields` names is nowhere.
        ConfigurationError: `fields` contains an unknown field name.
        MissingDependencyError: A Parquet file, and the package pyarrow is not installed.

    Example:
        >>> (found,) = read_examples([{"q": "Where is NRT?", "a": "Japan"}], domain="aviation", fields={"query": "q", "answers": "a"})
        >>> found.query, found.parts[0].answers
        ('Where is NRT?', ('Japan',))
    """
    strange = sorted(set(fields or {}) - _FIELDS)
    if strange:
        raise ConfigurationError(
            "fields contains an unknown field name",
            received=strange[0],
            allowed=", ".join(sorted(_FIELDS)),
        )
    missing = dict(fields or {})
    place = ""
    empty_cells = 0
    for entry in read_entries(source):
        place = entry.place
        if isinstance(entry.value, Example):
            missing.clear()
            yield entry.value
            continue
        entry = entry._replace(value=read_plain(entry.value))
        value, rest = (
            _renamed(entry, fields, missing)
            if isinstance(entry.value, Mapping)
            else (entry.value, {})
        )
        if entry.is_text:
            value, emptied = _structured(value, place)
            empty_cells += emptied
        yield _to_example(_with_metadata(value, rest, place), domain, place, entry.columns)
    if empty_cells:
        logger.warning(
            "%s: %d cells such as nan, None or NULL were taken for empty ones", source, empty_cells
        )
    if missing and place:
        name, column = next(iter(missing.items()))
        raise DataError(
            f"No entry has {column!r}, which is said to hold the {name}",
            received=place,
            fix="correct fields=...",
        )


def _renamed(
    entry: Entry, fields: Mapping[str, str] | None, missing: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns an entry under the names of an example's fields, and the rest of it for
    the metadata.
    """
    refuse_unreadable(entry.value, entry.place)
    value = {
        name: item
        for name, item in entry.value.items()
        if item is not None and not is_unreadable(name)
    }
    if fields is None:
        alpaca = read_alpaca(value)
        if alpaca is not None:
            return _parted(alpaca)
        pair = read_pair(value, _FIELDS)
        if pair is not None:
            return pair, {}
        if any(name in value for name in _DIALOGUES) and isinstance(value.get("system"), str):
            return {name: item for name, item in value.items() if name != "system"}, {
                "system": value["system"]
            }
        return value, {}
    found = {}
    heads = {
        name: column if column in entry.value else column.split(".")[0]
        for name, column in fields.items()
    }
    for name, column in fields.items():
        if entry.columns is not None and heads[name] not in entry.columns:
            what = f"{entry.place} has no column {column!r}, which is said to hold the {name}"
            raise DataError(what, allowed=", ".join(entry.columns), fix="correct fields=...")
        if heads[name] in entry.value:
            missing.pop(name, None)
        found[name] = _at(entry.value, column)
    others = {name: item for name, item in value.items() if name not in heads.values()}
    if fields.get("query") == "instruction":
        found["query"] = with_input(found["query"], others.pop("input", None))
    own, rest = _parted(others)
    return {**{name: item for name, item in own.items() if name not in fields}, **found}, rest


def _parted(value: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the fields of an example, and what is none."""
    own = {name: item for name, item in value.items() if name in _FIELDS}
    return own, {name: item for name, item in value.items() if name not in _FIELDS}


def _with_metadata(value: Any, more: Mapping[str, Any], place: str) -> Any:
    """Returns an entry with more in its metadata; a date, say, as a text."""
    if not more:
        return value
    metadata = value.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise DataError(
            f"{place}: metadata is not an object", received=metadata, allowed='{"name": "value"}'
        )
    return {**value, "metadata": {**json.loads(json.dumps(more, default=str)), **metadata}}


def _at(value: Mapping[str, Any], path: str) -> Any:
    """Returns the value at a key, or at a path of keys with dots between."""
    if path in value or "." not in path:
        return value.get(path)
    first, rest = path.split(".", 1)
    inner = value.get(first)
    return _at(inner, rest) if isinstance(inner, Mapping) else None


def _structured(value: Mapping[str, Any], place: str) -> tuple[dict[str, Any], int]:
    """Reads what has structure in a table of texts; returns how many cells say that they are empty,
    too.
    """
    read = {
        name: text
        for name, text in value.items()
        if not (isinstance(text, str) and text.strip() in _MISSING)
    }
    emptied = len(value) - len(read)
    for name in _STRUCTURED & read.keys():
        text = read[name]
        if isinstance(text, str) and text.lstrip().startswith(("[", "{")):
            try:
                read[name] = without_missing(from_json(text))
            except ValueError as error:
                raise DataError(f"{place}: {name} is not JSON: {error}", received=text) from error
        elif name == "domains" and isinstance(text, str):
            read[name] = [part.strip() for part in text.split(";") if part.strip()]
    return read, emptied


def refuse_shared_ids(examples: Sequence[Example]) -> None:
    """Raises a `DataError` where two examples have the same id: what is kept by id would be mixed
    up.
    """
    seen: dict[str, Example] = {}
    for example in examples:
        other = seen.setdefault(example.id, example)
        if other is not example:
            raise DataError(
                "Two examples have the same id",
                received=[other.query, example.query],
                fix="give each query once, or set ids",
            )


def _to_example(
    entry: object, domain: str, place: str, columns: Sequence[str] | None = None
) -> Example:
    if not isinstance(entry, Mapping):
        raise DataError(
            f"{place} is not an object",
            received=entry,
            allowed='{"query": "...", "domains": ["..."]}, or ("a question", "its answer")',
        )
    unknown = sorted(set(map(str, entry)) - _FIELDS)
    if unknown:
        names = list(columns or map(str, entry))
        fix = f"give {proposed_fields(names, _FIELDS)}; other columns are then kept in the metadata"
        raise DataError(
            f"{place} has the unknown field {unknown[0]!r}",
            allowed=", ".join(sorted(_FIELDS)),
            fix=fix,
        )
    _refuse_half_characters(entry, place)
    entry = _with_dialogue(
        {name: value for name, value in entry.items() if value is not None}, place
    )
    if not isinstance(entry.get("query"), str) or not entry["query"].strip():
        raise DataError(
            f"{place} has no query", received=entry.get("query"), fix="give the question as text"
        )
    values = {
        name: value for name, value in entry.items() if name not in ("schema", "answers", "domain")
    }
    values.update({name: str(values[name]) for name in _TEXTS if is_number(values.get(name))})
    if isinstance(values.get("reference"), str):
        values["reference"] = without_reasoning(values["reference"], place)
    values["domains"] = _domains_of(entry, domain, place)
    if "answers" in entry:
        if "parts" in entry:
            raise DataError(
                f"{place} has parts and answers, which say the same",
                received=entry,
                fix="leave out one of them",
            )
        values["parts"] = list(_parts_of(entry["answers"], values["domains"], place))
    try:
        example = _READER.validate_python({"source": "curated", **values})
    except ValidationError as error:
        raise of_another_kind(place, error, "correct or remove the entry") from error
    strange = sorted({example.primary_domain, *example.sub_questions} - set(example.domains))
    if strange:
        raise DataError(
            f"{place} leads with or asks a domain that is not its own",
            received=strange[0],
            allowed=", ".join(example.domains),
        )
    return example


def _refuse_half_characters(entry: Mapping[str, Any], place: str) -> None:
    """Raises a `DataError` where a text contains half a character (a lone surrogate), which no file
    can hold.
    """
    text = json.dumps(entry, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = ascii(text[max(0, error.start - 20) : error.end + 20])
        raise DataError(
            f"{place} contains half a character (a lone surrogate)",
            received=around,
            fix="remove it",
        ) from error


def _with_dialogue(entry: dict[str, Any], place: str) -> dict[str, Any]:
    """Returns an entry with its messages as a query, the turns before it and a reference."""
    names = [name for name in _DIALOGUES if name in entry]
    if not names:
        return entry
    twice = [name for name in ("query", "history", *names[1:]) if name in entry]
    if twice:
        raise DataError(
            f"{place} has {names[0]} and {twice[0]}, which say the same",
            received=entry[twice[0]],
            fix="leave out one of them",
        )
    dialogue: Dialogue = read_dialogue(entry.pop(names[0]), place)
    if dialogue.reference is not None and "reference" in entry:
        raise DataError(
            f"{place} has a reference, and messages that end with an answer",
            received=entry["reference"],
            fix="leave out one",
        )
    found: dict[str, Any] = {"query": dialogue.query, "history": dialogue.history}
    if dialogue.reference is not None:
        found["reference"] = dialogue.reference
    return dict(
        _with_metadata(
            {**entry, **found},
            {} if dialogue.system is None else {"system": dialogue.system},
            place,
        )
    )


def _domains_of(entry: Mapping[str, Any], default: str, place: str) -> list[str]:
    if entry.get("domains") and entry.get("domain"):
        raise DataError(
            f"{place} has domains and domain, which say the same",
            received=entry["domain"],
            fix="leave out one of them",
        )
    given = entry.get("domains") or entry.get("domain") or default
    if not given:
        raise DataError(
            f"{place} names no domain",
            received=entry.get("domains"),
            fix='give domain="..." if all are of one, or add "domains": ["..."] to each',
        )
    domains = list(given) if isinstance(given, list | tuple) else [given]
    if not all(isinstance(name, str) and name.strip() for name in domains) or len(
        set(domains)
    ) < len(domains):
        raise DataError(
            f"{place} has an empty or repeated domain",
            received=domains,
            fix="name each domain once, as a text",
        )
    return domains


def _parts_of(answers: object, domains: Sequence[str], place: str) -> Iterator[dict[str, Any]]:
    if (isinstance(answers, str | list | tuple) or is_number(answers)) and len(domains) == 1:
        answers = {domains[0]: answers}
    if not isinstance(answers, Mapping | None):
        raise DataError(
            f"{place} has answers that can't be read",
            received=answers,
            allowed='{"domain": ["an accepted answer", "..."]}',
        )
    for domain, accepted in (answers or {}).items():
        given = _given(accepted)
        if given is None:
            continue
        if not given or (
            isinstance(given, list)
            and any(isinstance(answer, str) and not answer.strip() for answer in given)
        ):
            raise DataError(
                f"{place} accepts an empty answer of {domain!r}",
                received=accepted,
                fix="leave the domain out",
            )
        yield {"domain": domain, "answers": given}


def _given(accepted: Any) -> Any:
    """Returns accepted answers as a list of texts; None where all of them are missing."""
    if not isinstance(accepted, list | tuple):
        accepted = [accepted]
    elif not accepted:
        return []
    given = [
        str(answer) if is_number(answer) else answer for answer in accepted if answer is not None
    ]
    return given or None


def slice_of(example: Example) -> str:
    """Returns the slice of the test set that an example is reported in.

    It is `metadata["slice"]` where its maker set one, `adversarial` for adversarial examples and
    for all that look like another domain, `cross-domain` for several domains, else the domain.
    """
    if "slice" in example.metadata:
        return str(example.metadata["slice"])
    if example.is_adversarial:
        return ADVERSARIAL
    return CROSS_DOMAIN if example.is_cross_domain else example.domains[0]


def query_key(example: Example) -> str:
    """Returns what two examples share that ask the same: the turns and the query, as far as
    `identity` tells them apart.
    """
    return identity(transcript(example.conversation))
