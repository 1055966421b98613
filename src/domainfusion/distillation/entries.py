"""Entries as they stand in files, tables and lists, each with its place, and as other tools write
them: dialogues, Alpaca, and tables whose columns have other names.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from domainfusion.errors import DataError, MissingDependencyError
from domainfusion.models.reasoning import read_content, split_reasoning
from domainfusion.records import read_json, read_lines, read_text
from domainfusion.types import Conversation, Message

EntrySource = str | Path | Iterable[Any]
"""A file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, `.txt`; any other is read as JSON Lines), a
folder that a Hugging Face dataset was saved to, such a dataset, a table (pandas, polars, pyarrow), or
a list.
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
        items, columns = _rows_of(source)
        if not isinstance(items, Iterable):
            raise DataError(
                "The examples can't be read",
                received=source,
                allowed="a path, a list of examples or texts, a DataFrame or a data set",
            )
        names = tuple(map(str, columns)) if columns else None
        for position, item in enumerate(items):
            yield Entry(f"example {position}", without_missing(item), names)


def _rows_of(source: Any) -> tuple[Iterable[Any], Sequence[Any] | None]:
    """Returns the rows of a table or a list, and the columns of a table.

    The kinds of tables are told apart by their methods: none of their packages is imported for it.
    """
    columns = getattr(source, "column_names", None)
    if columns is not None:  # a dataset of Hugging Face, or a table of pyarrow
        return (source.to_pylist() if hasattr(source, "to_pylist") else source), columns
    columns = getattr(source, "columns", None)
    if columns is not None and hasattr(source, "to_dicts"):  # polars
        return source.to_dicts(), columns
    if columns is not None and hasattr(source, "to_dict"):  # pandas
        return source.to_dict("records"), list(columns)
    return source, None


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
    if path.is_dir():
        yield from _entries_of_folder(path)
    elif suffix == ".json":
        yield from _entries_of_json(path)
    elif suffix in (".csv", ".tsv"):
        yield from _entries_of_csv(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        yield from _entries_of_parquet(path)
    elif _begins_with(path, "["):  # a JSON list under another name
        yield from _entries_of_json(path)
    elif suffix == ".txt" and not _begins_with(path, "{"):
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if line.strip():
                yield Entry(f"{path}:{number}", line.strip())
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
    """Returns the delimiter of a table, by its header: Excel writes semicolons where
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


def _missing_pyarrow(what: str, path: Path) -> MissingDependencyError:
    return MissingDependencyError(
        f"{what} needs the package pyarrow",
        received=str(path),
        fix="run: pip install 'domainfusion[data]'",
    )


def _entries_of_folder(path: Path) -> Iterator[Entry]:
    """Yields the rows of a dataset that `save_to_disk` of `datasets` wrote: Arrow streams, named in
    `state.json`.
    """
    if (path / "dataset_dict.json").is_file():
        splits = read_json(path / "dataset_dict.json", dict).get("splits", [])
        raise DataError(
            "The folder holds several splits of a dataset",
            received=str(path),
            allowed=", ".join(splits),
            fix=f"choose one: {path / (splits or ['train'])[0]}",
        )
    if not (path / "state.json").is_file():
        held = sorted(inner.name for inner in path.iterdir())
        raise DataError(
            "The folder is not a dataset that save_to_disk wrote",
            received=f"{path} with {', '.join(held[:5]) or 'nothing in it'}",
            fix="name a file, or the folder with state.json",
        )
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise _missing_pyarrow("A dataset on disk", path) from error
    position = 0
    for part in read_json(path / "state.json", dict).get("_data_files", []):
        file = path / part["filename"]
        try:
            with pyarrow.memory_map(str(file)) as stream:
                reader = pyarrow.ipc.open_stream(stream)
                names = tuple(reader.schema.names)
                for batch in reader:
                    for row in batch.to_pylist():
                        yield Entry(f"{path}: row {position}", without_missing(row), names)
                        position += 1
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(
                f"A file of the dataset can't be read: {error}",
                received=str(file),
                fix="save the dataset again",
            ) from error


def _entries_of_parquet(path: Path) -> Iterator[Entry]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise _missing_pyarrow("Parquet", path) from error
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
            f"The file is not a readable Parquet file: {error}", received=str(path)
        ) from error


_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",  # OpenAssistant
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    **dict.fromkeys(
        ("chatgpt", "gpt4", "bing", "bard", "claude", "chatbot", "bot", "ai"), "assistant"
    ),
}
_TOOL_ROLES = frozenset(
    {"tool", "function", "function_call", "function_response", "observation", "ipython"}
)

_UNREADABLE: Mapping[str, str] = {
    **dict.fromkeys(
        ("image", "images", "videos", "video", "audio", "audios"), "images, videos and sounds"
    ),
    **dict.fromkeys(("tools", "tool_calls", "functions"), "tools"),
}
"""Columns of what no model here is asked with: an example without them would be another
question.
"""

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "query": ("question", "prompt", "instruction", "input", "problem", "user", "text", "q"),
    "reference": (
        "answer",
        "output",
        "response",
        "completion",
        "solution",
        "target",
        "chosen",
        "assistant",
        "gold",
        "a",
    ),
    "answers": (
        "gold_answers",
        "accepted",
        "accepted_answers",
        "answer_aliases",
        "aliases",
        "labels",
    ),
    "domain": ("category", "subject", "topic", "field"),
}
"""Other tools' names for the fields of an example, the likeliest first."""


# Dialogues


class Dialogue(NamedTuple):
    """A dialogue that ends with a question, or with its answer.

    Attributes:
        query: The last thing that the user said.
        history: The turns before.
        reference: What the assistant answered; None where the dialogue ends with the question.
        system: The system message; None where there is none.
    """

    query: str
    history: Conversation
    reference: str | None
    system: str | None


def read_dialogue(turns: object, place: str) -> Dialogue:
    """Reads a list of turns: `{"role": ..., "content": ...}`, or `{"from": ..., "value": ...}` as
    in ShareGPT.

    Reasoning in an assistant's turn is left out.

    Args:
        turns: The turns.
        place: Where they stand, for errors.

    Raises:
        DataError: A turn can't be read, or the turns do not alternate from the user's to the
            assistant's.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(
            f"{place} has no turns", received=turns, allowed='[{"role": "user", "content": "..."}]'
        )
    messages = [_message(turn, place) for turn in turns]
    system = messages.pop(0).content if messages[0].role == "system" else None
    reference = messages.pop().content if messages and messages[-1].role == "assistant" else None
    roles = [message.role for message in messages]
    if not messages or roles != [*["user", "assistant"] * (len(roles) // 2), "user"]:
        received = [*roles, *(["assistant"] if reference is not None else [])]
        raise DataError(
            f"{place}: the turns do not alternate",
            received=received,
            allowed="user, assistant, user, assistant …",
        )
    return Dialogue(messages[-1].content, tuple(messages[:-1]), reference, system)


def _message(turn: object, place: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(
            f"{place} has a turn that is not an object",
            received=turn,
            allowed='{"role": "user", "content": "..."}',
        )
    name = turn.get("role", turn.get("from"))
    if isinstance(name, str) and name.lower() in _TOOL_ROLES:
        raise _no_text_alone(place, "tools", name)
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise DataError(
            f"{place} has a turn of an unknown role", received=name, allowed=", ".join(_ROLES)
        )
    if turn.get("tool_calls") or turn.get("function_call"):
        raise _no_text_alone(place, "tools", turn)
    content = turn.get("content", turn.get("value"))
    read = read_content("" if content is None else content)
    if read.others:
        raise _no_text_alone(place, f"parts of the type {read.others[0]!r}", content)
    text = "\n".join(read.texts)
    if role == "assistant":
        text = without_reasoning(text, place)
    if not text.strip():
        raise DataError(
            f"{place} has a turn without text",
            received=turn,
            fix="leave the turn out, or the entry",
        )
    return Message(role, text)


def _no_text_alone(place: str, what: str, received: object) -> DataError:
    return DataError(
        f"{place} has {what}, and models are asked here with text alone",
        received=received,
        fix="leave the entry out, or remove them where the question does not need them",
    )


def without_reasoning(text: str, place: str) -> str:
    """Returns an answer without the reasoning that stands before it, which is nothing to be
    learned.

    Raises:
        DataError: It is reasoning alone, without an end.
    """
    split = split_reasoning(text)
    if split.is_cut:
        raise DataError(
            f"{place} has an answer that is reasoning alone",
            received=text,
            fix="add the answer, or leave the entry out",
        )
    return split.answer if split.reasoning else text


# Alpaca, and questions with their answers


_PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "response"),
)
"""Other tools' names for a question and its answer."""


def read_plain(value: Any) -> Any:
    """Reads a text, which is a question, and two texts, which are a question and its answer; returns
    anything else as it is.

    Example:
        >>> read_plain(("Where is NRT?", "Japan"))
        {'query': 'Where is NRT?', 'reference': 'Japan'}
    """
    if isinstance(value, str):
        return {"query": value}
    is_short = isinstance(value, list | tuple) and 1 <= len(value) <= 2
    if is_short and all(isinstance(text, str) for text in value):
        return dict(zip(("query", "reference"), value, strict=False))
    return value


def read_pair(entry: Mapping[str, Any], own: Collection[str]) -> dict[str, Any] | None:
    """Reads a question and its answer under the names that other tools give them; None where it is
    not such an entry.

    There may be fields of an example beside them, and nothing else: choices or a context, say, belong to the
    question. A prompt and its completion may be turns of a dialogue, as TRL has them.

    Args:
        entry: The entry.
        own: The fields of an example.

    Example:
        >>> read_pair({"question": "Where is NRT?", "answer": "Japan", "domain": "aviation"}, ["domain"])
        {'domain': 'aviation', 'query': 'Where is NRT?', 'reference': 'Japan'}
        >>> read_pair({"question": "Where is NRT?", "answer": 1, "choices": ["Japan"]}, ["domain"])
    """
    if "query" in entry:
        return None
    names = {name.lower(): name for name in entry}
    for question, answer in _PAIRS:
        if not {question, answer} <= names.keys():
            continue
        asked, answered = entry[names[question]], entry[names[answer]]
        others = {
            name: value for name, value in entry.items() if name.lower() not in (question, answer)
        }
        if not others.keys() <= set(own):
            return None
        if isinstance(asked, list) and isinstance(answered, list):
            return {**others, "messages": [*asked, *answered]}
        return {**others, "query": asked, "reference": answered}
    return None


def read_alpaca(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    r"""Reads `instruction`, `input`, `output`, `system` and `history`; None where it is not such an
    entry. One of `input` and `output` may be missing.

    What else is there is kept in the metadata.

    Example:
        >>> read_alpaca({"instruction": "Name the symbol.", "input": "iron", "output": "Fe"})
        {'query': 'Name the symbol.\n\niron', 'reference': 'Fe'}
    """
    if "query" in entry or "instruction" not in entry or not {"input", "output"} & entry.keys():
        return None
    found: dict[str, Any] = {"query": with_input(entry["instruction"], entry.get("input"))}
    if "output" in entry:
        found["reference"] = entry["output"]
    pairs = entry.get("history")
    if isinstance(pairs, list) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):  # LLaMA-Factory
        found["history"] = [turn for asked, answered in pairs for turn in _turns(asked, answered)]
    elif pairs:
        found["history"] = pairs
    used = {"instruction", "input", "output", "history"}
    return {name: value for name, value in entry.items() if name not in used} | found


def _turns(asked: object, answered: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def with_input(instruction: Any, given: Any) -> Any:
    """Returns an instruction with what it is about, as Alpaca has them apart."""
    if isinstance(instruction, str) and isinstance(given, str) and given.strip():
        return f"{instruction}\n\n{given}"
    return instruction


# Columns


def is_unreadable(name: str) -> bool:
    """Whether a column holds what no model here is asked with, such as images."""
    return name in _UNREADABLE


def refuse_unreadable(entry: Mapping[str, Any], place: str) -> None:
    """Raises a `DataError` where an entry has images or tools: without them, it would be another
    question.
    """
    for name, what in _UNREADABLE.items():
        value = entry.get(name)
        if value is not None and value not in ("", "[]", "{}", "null", [], {}):
            raise _no_text_alone(place, f"{what} in {name!r}", value)


def proposed_fields(columns: Collection[str], own: Collection[str]) -> str:
    """Returns how to write the `fields` that columns of other names most likely need.

    Args:
        columns: The columns that there are.
        own: The fields of an example.

    Example:
        >>> proposed_fields(["question", "answer", "difficulty"], ["query", "reference"])
        "fields={'query': 'question', 'reference': 'answer'} (in a recipe, fields: {query: question, reference: answer})"
    """
    free = [name for name in columns if name not in own]
    found: dict[str, str] = {}
    for name, synonyms in _SYNONYMS.items():
        has_it = name in columns or (
            name == "query" and ({"messages", "conversations"} & set(columns))
        )
        by_name = {column.lower(): column for column in reversed(free)}
        other = next((by_name[synonym] for synonym in synonyms if synonym in by_name), None)
        if other is not None and not has_it and other not in found.values():
            found[name] = other
    has_query = not {"query", "messages", "conversations"}.isdisjoint({*columns, *found})
    if not has_query and free:
        found = {"query": free[0], **found}  # which one it is, only the reader knows
    in_yaml = ", ".join(f"{name}: {_in_yaml(column)}" for name, column in found.items())
    return f"fields={found!r} (in a recipe, fields: {{{in_yaml}}})"


# What YAML reads as a text without quotes.
_PLAIN = re.compile(r"[A-Za-z_][\w-]*")
_YAML_VALUES = ("null", "true", "false", "yes", "no", "on", "off")


def _in_yaml(name: str) -> str:
    is_plain = _PLAIN.fullmatch(name) is not None and name.lower() not in _YAML_VALUES
    return name if is_plain else json.dumps(name, ensure_ascii=False)
