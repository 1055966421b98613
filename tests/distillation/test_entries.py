"""Entries: each format gives the same entries, and what is broken is named with its file and
line.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.entries import (
    proposed_fields,
    read_alpaca,
    read_dialogue,
    read_entries,
)
from domainfusion.distillation.examples import read_examples
from domainfusion.errors import DataError
from domainfusion.types import Message

ROWS = [
    {"query": "Where is NRT?", "answer": "Japan"},
    {"query": 'A "quoted", and\nbroken line?', "answer": "Élan; yes"},
]


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Any:
    """Writes the rows in a format, and gives what is read."""
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif kind in ("csv", "tsv"):
        with path.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "dataset":
        return datasets.Dataset.from_list(rows)
    elif kind == "stream":
        return datasets.Dataset.from_list(rows).to_iterable_dataset()
    else:
        return rows
    return path


KINDS = ("jsonl", "json", "csv", "tsv", "parquet", "dataset", "stream", "list")


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_entries(kind: str, tmp_path: Path) -> None:
    found = list(read_entries(write(tmp_path, kind, ROWS)))
    assert [entry.value for entry in found] == ROWS
    assert len({entry.place for entry in found}) == 2
    assert all(entry.columns in (None, ("query", "answer")) for entry in found)
    assert [entry.is_text for entry in found] == [kind in ("csv", "tsv")] * 2


def test_a_row_is_named_by_the_line_that_it_begins_in(tmp_path: Path) -> None:
    found = [*read_entries(write(tmp_path, "csv", [*ROWS, ROWS[0]]))]
    assert [entry.place.rsplit(":", 1)[1] for entry in found] == ["2", "3", "5"]


@given(cells=st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=5))
def test_what_the_csv_module_writes_is_read(
    cells: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["a", "b"], *cells])
    except UnicodeEncodeError:
        return
    found = [entry.value for entry in read_entries(path)]
    wanted = [
        {name: cell for name, cell in zip("ab", row, strict=True) if cell.strip()} for row in cells
    ]
    assert found == [row for row in wanted if row]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("short.csv", "query,answer\nWhere?\n", r"short\.csv:2 has 1 cells, and the header 2"),
        ("long.csv", "query,answer\nfine?,yes\nWhere, then?,Japan\n", r"long\.csv:3 has 3 cells"),
        ("quote.csv", 'query,answer\n"Where?,Japan\n', r"quote\.csv:2 is not CSV"),
        ("empty.csv", "", r"empty\.csv:1 is not a header"),
        ("twice.csv", "query,query\na,b\n", r"twice\.csv:1 is not a header"),
        ("broken.jsonl", '{"query": "a"}\n{"query": \n', r"broken\.jsonl:2 is not JSON"),
        ("none.parquet", "no parquet", "not a readable Parquet file"),
    ],
)
def test_a_broken_file_is_one_error_that_names_the_line(
    name: str, content: str, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=what):
        list(read_entries(tmp_path / name))


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet", "gone.json", "gone.jsonl"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=name):
        list(read_entries(tmp_path / name))


LINE = json.dumps({"query": "Wo ist Zürich?"}, ensure_ascii=False)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
@pytest.mark.parametrize(
    ("encoded", "told"),
    [
        (
            lambda text: text.encode("latin-1"),
            r"Windows-1252 or Latin-1.*line \d.*iconv -f WINDOWS-1252 -t UTF-8 rows",
        ),
        (lambda text: text.encode("utf-16"), r"UTF-16.*iconv -f UTF-16 -t UTF-8 rows"),
        (lambda text: b"\xfe\xff" + text.encode("utf-16-be"), "UTF-16"),
        (lambda text: gzip.compress(text.encode()), "gzip.*gunzip"),
        (lambda text: b"PK\x03\x04" + text.encode(), "ZIP.*Excel"),
    ],
)
def test_a_file_that_is_not_utf8_is_named_with_how_to_convert_it(
    name: str, encoded: Any, told: str, tmp_path: Path
) -> None:
    text = {".jsonl": LINE, ".json": f"[{LINE}]", ".csv": "query\nWo ist Zürich?\n"}[
        Path(name).suffix
    ]
    (tmp_path / name).write_bytes(encoded(text))
    with pytest.raises(DataError, match=told):
        list(read_entries(tmp_path / name))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
def test_a_byte_order_mark_changes_nothing(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    assert [entry.value for entry in read_entries(path)] == ROWS


@pytest.mark.parametrize("size", [131_072, 131_073, 2_000_000])
def test_a_cell_may_have_any_size(size: int, tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "huge.csv").write_text(
        "query,answer\n" + "a" * size + ",b\nc,d\n", encoding="utf-8"
    )
    found = [entry.value for entry in read_entries(tmp_path / "huge.csv")]
    assert found == [{"query": "a" * size, "answer": "b"}, {"query": "c", "answer": "d"}]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_may_be_separated_by_something_else(mark: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        f'query{mark}answer\r\n"Where, now{mark} then?"{mark}1,5\r\n', encoding="utf-8"
    )
    assert [entry.value for entry in read_entries(tmp_path / "rows.csv")] == [
        {"query": f"Where, now{mark} then?", "answer": "1,5"}
    ]


def test_an_index_and_empty_margins_are_not_columns(tmp_path: Path) -> None:
    pandas.DataFrame(ROWS).to_csv(tmp_path / "index.csv")
    (tmp_path / "margin.csv").write_text("query,answer,,\nWhere?,Japan,,\n", encoding="utf-8")
    assert [entry.value for entry in read_entries(tmp_path / "index.csv")] == ROWS
    assert [entry.value for entry in read_entries(tmp_path / "margin.csv")] == [
        {"query": "Where?", "answer": "Japan"}
    ]
    (tmp_path / "margin.csv").write_text("query,answer,\nWhere?,Japan,more\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"margin\.csv:2 has a cell in a column without a name"):
        list(read_entries(tmp_path / "margin.csv"))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(newline: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(f"query,answer{newline}Where?,Japan{newline}".encode())
    assert [entry.value for entry in read_entries(tmp_path / "rows.csv")] == [
        {"query": "Where?", "answer": "Japan"}
    ]


def test_json_is_known_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    (tmp_path / "lines.json").write_text(
        "".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8"
    )
    for name in ("list.jsonl", "lines.json"):
        assert [entry.value for entry in read_entries(tmp_path / name)] == ROWS


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"data": ROWS}, r"stands under 'data'.*jq '.\[\\?\"data\\?\"\]'"),
        ({"query": {"0": "a"}, "answer": {"0": "b"}}, 'orient="records"'),
        ({"query": "a"}, "JSON Lines"),
        (3, "JSON Lines"),
    ],
)
def test_a_json_file_of_something_else_says_how_to_make_a_list(
    content: object, told: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    with pytest.raises(DataError, match=told):
        list(read_entries(tmp_path / "rows.json"))


def test_what_is_nested_without_end_is_one_clear_error(tmp_path: Path) -> None:
    for name in ("deep.json", "deep.jsonl"):
        (tmp_path / name).write_text('{"a":' * 100_000, encoding="utf-8")
        with pytest.raises(DataError, match="nested too deeply"):
            list(read_entries(tmp_path / name))


# Missing values


def missing_values() -> list[Any]:
    return [None, float("nan"), numpy.float32("nan"), pandas.NA, pandas.NaT]


@pytest.mark.parametrize("missing", missing_values(), ids=repr)
def test_what_is_missing_is_none(missing: Any) -> None:
    rows = [
        {
            "query": "Why?",
            "answer": missing,
            "answers": ["yes", missing],
            "metadata": {"level": missing},
        }
    ]
    (entry,) = read_entries(rows)
    assert entry.value == {
        "query": "Why?",
        "answer": None,
        "answers": ["yes", None],
        "metadata": {"level": None},
    }


def test_a_table_of_pandas_is_read_as_what_it_writes(tmp_path: Path) -> None:
    table = pandas.DataFrame(
        {"query": ["Why?", "How?"], "answer": ["So.", None], "level": [1.0, float("nan")]}
    )
    table.to_json(tmp_path / "rows.json", orient="records")
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    wanted: list[dict[str, Any]] = [
        {"query": "Why?", "answer": "So.", "level": 1.0},
        {"query": "How?", "answer": None, "level": None},
    ]
    for source in (table, tmp_path / "rows.json", tmp_path / "rows.parquet"):
        assert [entry.value for entry in read_entries(source)] == wanted
    assert [entry.value for entry in read_entries(tmp_path / "rows.csv")] == [
        {**wanted[0], "level": "1.0"},
        {"query": "How?"},
    ]


def test_nan_in_json_is_missing_and_infinity_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "Why?", "reference": NaN}\n', encoding="utf-8")
    (tmp_path / "rows.json").write_text('[{"query": "Why?", "reference": NaN}]', encoding="utf-8")
    for name in ("rows.jsonl", "rows.json"):
        assert [entry.value for entry in read_entries(tmp_path / name)] == [
            {"query": "Why?", "reference": None}
        ]
    (tmp_path / "endless.jsonl").write_text(
        '{"query": "Why?", "reference": -Infinity}\n', encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"endless\.jsonl:1 is not JSON.*-Infinity"):
        list(read_entries(tmp_path / "endless.jsonl"))


def test_of_several_splits_one_has_to_be_chosen() -> None:
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    with pytest.raises(DataError, match=r"mapping.*\['train'\].*choose one"):
        list(read_entries(splits))


# Formats


TURNS = [
    ("user", "What is NRT?"),
    ("assistant", "An airport."),
    ("user", "Where is it?"),
    ("assistant", "In Japan."),
]


def openai(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def sharegpt(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text}
        for role, text in turns
    ]


def in_parts(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]


@pytest.mark.parametrize("form", [openai, sharegpt, in_parts])
def test_the_last_question_has_the_turns_before_it_and_its_answer(form: Any) -> None:
    whole = read_dialogue(form([("system", "Be brief."), *TURNS]), "here")
    assert (whole.query, whole.reference, whole.system) == (
        "Where is it?",
        "In Japan.",
        "Be brief.",
    )
    assert whole.history == (Message("user", "What is NRT?"), Message("assistant", "An airport."))
    asked = read_dialogue(form(TURNS[:3]), "here")
    assert (asked.query, asked.reference, asked.system, asked.history) == (
        "Where is it?",
        None,
        None,
        whole.history,
    )
    assert read_dialogue(form(TURNS[:1]), "here").history == ()


@pytest.mark.parametrize(
    ("turns", "what"),
    [
        ([], "no turns"),
        (3, "no turns"),
        ("Why?", "no turns"),
        ([3], "not an object"),
        (openai([("wizard", "x")]), "unknown role.*'wizard'"),
        (openai([("tool", "x")]), "tools.*text alone.*'tool'"),
        ([{"from": "function_call", "value": "{}"}], "tools.*text alone"),
        ([{"from": "observation", "value": "sun"}], "tools.*text alone"),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "tool_calls": [{}]},
            ],
            "tools.*text alone",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}],
            "'image_url'.*text alone",
        ),
        (openai([("user", "a"), ("assistant", "<think>Hm, so it")]), "reasoning alone"),
        ([{"content": "x"}], "unknown role"),
        ([{"role": ["user"], "content": "x"}], "unknown role"),
        (openai([("user", " ")]), "without text"),
        ([{"role": "user"}], "without text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "'image'.*text alone"),
        (openai([("assistant", "Hello!")]), "do not alternate"),
        (openai([("system", "Be brief.")]), "do not alternate"),
        (openai([("user", "a"), ("user", "b")]), "do not alternate"),
        (openai([("assistant", "a"), ("user", "b")]), "do not alternate"),
        (openai([("user", "a"), ("system", "b"), ("user", "c")]), "do not alternate"),
    ],
)
def test_a_dialogue_that_can_not_be_read_is_one_error_that_names_its_place(
    turns: Any, what: str
) -> None:
    with pytest.raises(DataError, match=f"^file:7.*{what}"):
        read_dialogue(turns, "file:7")


@pytest.mark.parametrize(
    "name", ["gpt", "assistant", "model", "chatgpt", "bing", "bard", "GPT", "Assistant"]
)
def test_an_assistant_has_many_names(name: str) -> None:
    assert (
        read_dialogue(
            [{"from": "human", "value": "What is Fe?"}, {"from": name, "value": "Iron."}], "here"
        ).reference
        == "Iron."
    )


def test_the_developers_message_is_the_systems() -> None:
    assert read_dialogue(openai([("developer", "Be brief."), *TURNS]), "here").system == "Be brief."


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "<think>Easy.</think>Iron."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Easy."},
                {"type": "text", "text": "Iron."},
            ],
        },
        {"role": "assistant", "content": "Iron.", "reasoning_content": "Easy."},
    ],
)
def test_reasoning_is_not_part_of_the_answer(answer: dict[str, Any]) -> None:
    question = {"role": "user", "content": "What is Fe?"}
    assert read_dialogue([question, answer], "here").reference == "Iron."
    assert read_dialogue([question, answer, question], "here").history[1].content == "Iron."


# Alpaca


@pytest.mark.parametrize("given", ["", None, "  "])
def test_an_instruction_may_stand_alone(given: str | None) -> None:
    assert read_alpaca({"instruction": "Why?", "input": given, "output": "So."}) == {
        "query": "Why?",
        "reference": "So.",
    }


def test_an_instruction_has_its_input_its_history_and_the_rest() -> None:
    entry = {
        "instruction": "Name it.",
        "input": "Fe",
        "output": "iron",
        "history": [["Hi", "Hello"]],
        "system": "Be brief.",
        "id": "7",
    }
    assert read_alpaca(entry) == {
        "query": "Name it.\n\nFe",
        "reference": "iron",
        "history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        "system": "Be brief.",
        "id": "7",
    }


@pytest.mark.parametrize(
    "entry",
    [
        {"query": "Why?"},
        {"instruction": "Why?"},
        {"input": "x", "output": "y"},
        {"query": "a", "instruction": "b", "output": "c"},
    ],
)
def test_what_is_not_an_alpaca_is_left(entry: dict[str, str]) -> None:
    assert read_alpaca(entry) is None


# Columns


@pytest.mark.parametrize(
    ("columns", "proposed"),
    [
        (["question", "answer"], {"query": "question", "reference": "answer"}),
        (
            ["Question", "Category", "Answer"],
            {"query": "Question", "reference": "Answer", "domain": "Category"},
        ),
        (
            ["prompt", "completion", "labels"],
            {"query": "prompt", "reference": "completion", "answers": "labels"},
        ),
        (["query", "answer", "source_id"], {"reference": "answer"}),
        (["messages", "question"], {}),
        (["query", "model"], {}),
    ],
)
def test_the_fields_that_are_proposed_are_the_likeliest(
    columns: list[str], proposed: dict[str, str]
) -> None:
    said = proposed_fields(columns, ["query", "reference", "answers", "domain", "messages"])
    assert said.startswith(f"fields={proposed!r} (in a recipe, fields: {{")


# Data as people have it

PAIR = ("Where is NRT?", "In Japan.")
TURNS_OF_PAIR = [
    {"role": "user", "content": PAIR[0]},
    {"role": "assistant", "content": PAIR[1]},
]
SHAPES = {
    "question and answer": {"question": PAIR[0], "answer": PAIR[1]},
    "capitals, as in a spreadsheet": {"Question": PAIR[0], "Answer": PAIR[1]},
    "prompt and completion": {"prompt": PAIR[0], "completion": PAIR[1]},
    "prompt and completion as turns": {
        "prompt": TURNS_OF_PAIR[:1],
        "completion": TURNS_OF_PAIR[1:],
    },
    "Alpaca": {"instruction": PAIR[0], "input": "", "output": PAIR[1]},
    "messages": {"messages": TURNS_OF_PAIR},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["list", "jsonl", "parquet", "saved", "frame", "table"])
def test_a_question_and_its_answer_are_read_from_what_people_have(
    shape: str, kind: str, tmp_path: Path
) -> None:
    rows: list[Any] = [SHAPES[shape]]
    source: Any = rows
    if kind in ("jsonl", "parquet"):
        source = write(tmp_path, kind, rows)
    elif kind == "saved":
        source = tmp_path / "saved"
        datasets.Dataset.from_list(rows).save_to_disk(str(source))
    elif kind == "frame":
        source = pandas.DataFrame(rows)
    elif kind == "table":
        source = pyarrow.Table.from_pylist(rows)
    (found,) = read_examples(source, domain="aviation")
    assert (found.query, found.reference, found.domains) == (*PAIR, ("aviation",))


@pytest.mark.parametrize("pair", [PAIR, list(PAIR)])
def test_two_texts_are_a_question_and_its_answer(pair: Any) -> None:
    (found,) = read_examples([pair], domain="aviation")
    assert (found.query, found.reference) == PAIR


def test_a_text_alone_is_a_question_and_so_is_a_line_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("Where is NRT?\n\nWhere is LHR?\n", encoding="utf-8")
    from_file = [found.query for found in read_examples(path, domain="aviation")]
    from_list = [found.query for found in read_examples(from_file, domain="aviation")]
    assert from_file == from_list == ["Where is NRT?", "Where is LHR?"]
    with pytest.raises(DataError, match=r"questions.txt:1 names no domain.*domain="):
        list(read_examples(path))


def test_what_belongs_to_a_question_is_not_lost_beside_it() -> None:
    """A question with choices or a context is another one without them."""
    for more in ({"choices": ["Japan", "Peru"]}, {"context": "NRT is near Tokyo."}):
        with pytest.raises(DataError, match="unknown field") as caught:
            list(read_examples([{"question": "Where?", "answer": "Japan", **more}], domain="a"))
        assert "fields={'query': 'question', 'reference': 'answer'}" in str(caught.value)
        assert "fields: {query: question, reference: answer}" in str(caught.value)


def test_the_proposed_fields_are_those_of_the_table_and_can_be_pasted(tmp_path: Path) -> None:
    rows = [{"Frage": "Wo?", "Gold answer": "", "topic": "aviation"}]
    path = write(tmp_path, "csv", rows)
    with pytest.raises(DataError) as caught:
        list(read_examples(path))
    written = re.search(r"fields=(\{.*?\}) \(in a recipe, fields: (\{.*?\})\)", str(caught.value))
    assert written is not None
    fields = ast.literal_eval(written[1])
    assert yaml.safe_load(written[2]) == fields
    (found,) = read_examples(path, fields=fields)
    assert (found.query, found.domains) == ("Wo?", ("aviation",))


def test_several_splits_on_disk_are_named(tmp_path: Path) -> None:
    part = datasets.Dataset.from_list([SHAPES["question and answer"]])
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(DataError, match=r"several splits.*train, test.*choose one: .*both/train"):
        list(read_examples(tmp_path / "both", domain="aviation"))
    assert len(list(read_examples(tmp_path / "both" / "train", domain="aviation"))) == 1


def test_another_folder_is_told_from_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"not a dataset that save_to_disk wrote.*notes\.md"):
        list(read_examples(tmp_path))


def test_a_broken_dataset_on_disk_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    datasets.Dataset.from_list([SHAPES["Alpaca"]]).save_to_disk(str(folder))
    (file,) = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"can't be read.*\.arrow"):
        list(read_examples(folder, domain="aviation"))


def test_semicolons_and_latin_1_in_one_table(tmp_path: Path) -> None:
    table = "question;answer\nWo liegt Zürich?;Schweiz\n"
    path = tmp_path / "fragen.csv"
    path.write_bytes(table.encode("latin-1"))
    with pytest.raises(DataError, match=r"Latin-1.*line 2.*fragen\.csv.*iconv"):
        list(read_examples(path, domain="geography"))
    path.write_text(table, encoding="utf-8")
    (found,) = read_examples(path, domain="geography")
    assert (found.query, found.reference) == ("Wo liegt Zürich?", "Schweiz")
