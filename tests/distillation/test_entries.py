"""Entries: each format gives the same entries, and what is broken is named with its file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.entries import read_entries
from domainfusion.errors import DataError

ROWS = [{"query": "Where is NRT?", "answer": "Japan"}, {"query": 'A "quoted", and\nbroken line?', "answer": "Élan; yes"}]


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
def test_what_the_csv_module_writes_is_read(cells: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["a", "b"], *cells])
    except UnicodeEncodeError:
        return
    found = [entry.value for entry in read_entries(path)]
    wanted = [{name: cell for name, cell in zip("ab", row, strict=True) if cell.strip()} for row in cells]
    assert found == [row for row in wanted if row]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("short.csv", "query,answer\nWhere?\n", r"short\.csv:2 has 1 cells, and the header 2"),
        ("long.csv", "query,answer\nfine?,yes\nWhere, then?,Japan\n", r"long\.csv:3 has 3 cells"),
        ("quote.csv", 'query,answer\n"Where?,Japan\n', r"quote\.csv:2 is not CSV"),
        ("empty.csv", "", r"empty\.csv:1 is no header"),
        ("twice.csv", "query,query\na,b\n", r"twice\.csv:1 is no header"),
        ("broken.jsonl", '{"query": "a"}\n{"query": \n', r"broken\.jsonl:2 is not JSON"),
        ("none.parquet", "no parquet", "no Parquet file that can be read"),
    ],
)
def test_a_broken_file_is_one_error_that_names_the_line(name: str, content: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=what):
        list(read_entries(tmp_path / name))


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet", "gone.json", "gone.jsonl"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=name):
        list(read_entries(tmp_path / name))


def test_a_table_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("query\nWo ist Zürich?\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"can't be read.*utf-8"):
        list(read_entries(tmp_path / "latin.csv"))


def test_a_cell_of_a_million_characters_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "huge.csv").write_text("query\n" + "a" * 1_000_000 + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"huge\.csv:2 is not CSV: field larger"):
        list(read_entries(tmp_path / "huge.csv"))


def test_of_several_splits_one_has_to_be_chosen() -> None:
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    with pytest.raises(DataError, match=r"mapping.*\['train'\].*choose one"):
        list(read_entries(splits))
