"""Examples as people write them: what is right is read, and what is wrong is named with its
place.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillation.builders import example
from domainfusion.distillation.examples import read_examples, refuse_shared_ids, slice_of
from domainfusion.errors import DataError
from domainfusion.types import Example, Part

GOOD = {"query": "Where is NRT?", "domains": ["aviation"]}


def read(entry: Any, **options: Any) -> Example:
    (found,) = read_examples([entry], **options)
    return found


def test_an_entry_becomes_the_example_it_describes() -> None:
    entry = {
        "query": "Where is NRT, and what is gold?",
        "domains": ["aviation", "chemistry"],
        "primary_domain": "chemistry",
        "sub_questions": {"aviation": "Where is NRT?"},
        "answers": {"aviation": "Japan", "chemistry": ["Au", "gold"]},
        "group": "NRT",
        "metadata": {"level": 3},
        "schema": 1,
    }
    assert read(entry) == Example(
        query="Where is NRT, and what is gold?",
        domains=("aviation", "chemistry"),
        primary_domain="chemistry",
        source="curated",
        sub_questions={"aviation": "Where is NRT?"},
        parts=(
            Part(domain="aviation", answers=("Japan",)),
            Part(domain="chemistry", answers=("Au", "gold")),
        ),
        group="NRT",
        metadata={"level": 3},
    )


def test_shorter_ways_to_write_the_same() -> None:
    parts = (Part(domain="aviation", answers=("Japan",)),)
    assert (
        read({**GOOD, "answers": ["Japan"]}).parts
        == read({**GOOD, "answers": "Japan"}).parts
        == parts
    )
    assert (
        read({"query": "Where is NRT?", "domain": "aviation"})
        == read({"query": "Where is NRT?"}, domain="aviation")
        == read(GOOD)
    )
    assert read({**GOOD, "parts": [{"domain": "aviation", "answers": ["Japan"]}]}).parts == parts


def test_an_example_is_taken_as_it_is() -> None:
    given = example("Where is NRT?", {"aviation": "Japan"})
    assert read(given) is given


BROKEN = [
    pytest.param(3, "is not an object", id="no object"),
    pytest.param("Where is NRT?", "names no domain", id="text without a domain"),
    pytest.param({**GOOD, "querry": "x"}, "unknown field 'querry'", id="unknown field"),
    pytest.param({"domains": ["aviation"]}, "has no query", id="no query"),
    pytest.param({**GOOD, "query": " "}, "has no query", id="blank query"),
    pytest.param({**GOOD, "query": 3}, "has no query", id="query of another type"),
    pytest.param({"query": "Where?"}, "names no domain", id="no domain"),
    pytest.param({**GOOD, "domains": []}, "names no domain", id="empty domains"),
    pytest.param({**GOOD, "domains": ["a", "a"]}, "empty or repeated domain", id="repeated domain"),
    pytest.param({**GOOD, "domains": ["a", ""]}, "empty or repeated domain", id="empty domain"),
    pytest.param({**GOOD, "domains": [["a"]]}, "empty or repeated domain", id="nested domain"),
    pytest.param({**GOOD, "domain": "aviation"}, "domains and domain", id="domain beside domains"),
    pytest.param({**GOOD, "domains": 3}, "empty or repeated domain", id="domain of another type"),
    pytest.param(
        {**GOOD, "primary_domain": "b"}, "a domain that is not its own", id="strange primary domain"
    ),
    pytest.param(
        {**GOOD, "sub_questions": {"b": "?"}},
        "a domain that is not its own",
        id="strange sub-question",
    ),
    pytest.param(
        {**GOOD, "sub_questions": "?"}, "sub_questions", id="sub-questions of another type"
    ),
    pytest.param(
        {**GOOD, "answers": True}, "answers that can't be read", id="answers of another type"
    ),
    pytest.param(
        {"query": "?", "domains": ["a", "b"], "answers": ["x"]},
        "answers that can't be read",
        id="answers of nobody",
    ),
    pytest.param(
        {**GOOD, "answers": {"aviation": ""}}, "accepts an empty answer", id="empty answer"
    ),
    pytest.param({**GOOD, "answers": {"aviation": []}}, "accepts an empty answer", id="no answer"),
    pytest.param(
        {**GOOD, "answers": {"aviation": True}}, "parts.0.answers", id="answer of another type"
    ),
    pytest.param(
        {**GOOD, "parts": [{"domain": "aviation"}]}, "parts.0.answers", id="part without answers"
    ),
    pytest.param({**GOOD, "parts": 3}, "parts", id="parts of another type"),
    pytest.param(
        {**GOOD, "parts": [], "answers": "x"}, "parts and answers", id="parts beside answers"
    ),
    pytest.param({**GOOD, "reference": True}, "reference", id="reference of another type"),
    pytest.param({**GOOD, "source": "dreamt"}, "source", id="unknown source"),
]


@pytest.mark.parametrize(("entry", "what"), BROKEN)
def test_a_broken_entry_is_an_error_that_names_its_position(entry: Any, what: str) -> None:
    with pytest.raises(DataError, match=f"^example 1.*{what}"):
        list(read_examples([GOOD, entry]))


@pytest.mark.parametrize(("entry", "what"), BROKEN)
def test_a_broken_line_is_an_error_that_names_file_and_line(
    entry: Any, what: str, tmp_path: Path
) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(entry)}\n", encoding="utf-8")
    if not isinstance(entry, dict):
        what = "is not a JSON object"
    with pytest.raises(DataError, match=f"questions.jsonl:3.*{what}"):
        list(read_examples(file))


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{{'query': 1}}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"questions\.jsonl:2 is not JSON"):
        list(read_examples(file))


def test_a_json_file_holds_a_list(tmp_path: Path) -> None:
    file = tmp_path / "questions.json"
    file.write_text(json.dumps([GOOD, {**GOOD, "query": "Where is CDG?"}]), encoding="utf-8")
    assert [found.query for found in read_examples(file)] == ["Where is NRT?", "Where is CDG?"]
    file.write_text(json.dumps([GOOD, {"query": "?"}]), encoding="utf-8")
    with pytest.raises(DataError, match="entry 1 names no domain"):
        list(read_examples(file))
    file.write_text(json.dumps(GOOD), encoding="utf-8")
    with pytest.raises(DataError, match="list of examples"):
        list(read_examples(file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        list(read_examples(tmp_path / "nothing.jsonl"))


def test_two_examples_may_not_share_an_id() -> None:
    refuse_shared_ids([example("One?", domains=["a"]), example("Two?", domains=["a"])])
    with pytest.raises(DataError, match="the same id"):
        refuse_shared_ids(
            [example("One?", domains=["a"], id="x"), example("Two?", domains=["a"], id="x")]
        )


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (example("?", domains=["a"]), "a"),
        (example("?", domains=["a", "b"]), "cross-domain"),
        (example("?", domains=["a"], source="adversarial"), "adversarial"),
        (example("?", domains=["a"], apparent_domain="b"), "adversarial"),
        (example("?", domains=["a", "b"], metadata={"slice": "two hops"}), "two hops"),
    ],
)
def test_an_example_is_reported_in_its_slice(given: Example, name: str) -> None:
    assert slice_of(given) == name


# As other tools write them


@pytest.mark.parametrize("fields", [None, {"query": "instruction", "reference": "output"}])
def test_an_alpaca_entry_keeps_its_input_in_the_question(fields: dict[str, str] | None) -> None:
    found = read(
        {"instruction": "Name the symbol.", "input": "iron", "output": "Fe", "source_id": 7},
        domain="chem",
        fields=fields,
    )
    assert (found.query, found.reference, dict(found.metadata)) == (
        "Name the symbol.\n\niron",
        "Fe",
        {"source_id": 7},
    )


def test_a_system_column_beside_messages_is_kept_in_the_metadata() -> None:
    turns = [{"from": "human", "value": "What is Fe?"}, {"from": "gpt", "value": "Iron."}]
    found = read({"conversations": turns, "system": "Be brief.", "tools": "[]"}, domain="chem")
    assert (found.query, found.reference, dict(found.metadata)) == (
        "What is Fe?",
        "Iron.",
        {"system": "Be brief."},
    )


@pytest.mark.parametrize("name", ["image", "images", "video", "audio", "tools"])
@pytest.mark.parametrize("fields", [None, {}])
def test_a_question_with_an_image_or_tools_is_not_asked_without_them(
    name: str, fields: dict[str, str] | None
) -> None:
    with pytest.raises(DataError, match=f"'{name}'.*text alone"):
        read({**GOOD, name: ["x.png"]}, fields=fields)
    empties: list[Any] = [None, "", [], "[]"]
    for empty in empties:
        assert read({**GOOD, name: empty}, fields=fields) == read(GOOD)


def test_an_unknown_column_proposes_all_fields() -> None:
    with pytest.raises(DataError) as caught:
        read({"question": "What is Fe?", "answer": "Iron.", "level": 3}, domain="chem")
    proposed = "fields={'query': 'question', 'reference': 'answer'}"
    assert proposed in str(caught.value)
    found = read(
        {"question": "What is Fe?", "answer": "Iron.", "level": 3},
        domain="chem",
        fields=eval(proposed[len("fields=") :]),
    )
    assert (found.query, found.reference, dict(found.metadata)) == (
        "What is Fe?",
        "Iron.",
        {"level": 3},
    )


def test_reasoning_in_a_reference_is_left_out() -> None:
    assert read({**GOOD, "reference": "<think>Tokyo.</think>In Japan."}).reference == "In Japan."
    assert (
        read({**GOOD, "reference": "The tag `<think>` opens it."}).reference
        == "The tag `<think>` opens it."
    )
    with pytest.raises(DataError, match="reasoning alone"):
        read({**GOOD, "reference": "<think>Tokyo, so"})


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_what_is_missing_is_left_out(missing: Any) -> None:
    plain = read(GOOD)
    assert (
        read({**GOOD, "reference": missing, "answers": missing, "group": missing, "id": missing})
        == plain
    )
    assert (
        read({**GOOD, "answers": [missing]})
        == read({**GOOD, "answers": {"aviation": missing}})
        == plain
    )
    assert read({**GOOD, "answers": ["Japan", missing]}) == read({**GOOD, "answers": ["Japan"]})
    assert read({**GOOD, "level": missing}, fields={}) == plain


def test_cells_that_say_that_they_are_empty_are_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks = ["nan", "NaN", "<NA>", "None", "NULL", "N/A", " nan "]
    file = tmp_path / "rows.csv"
    rows = [f"What is {number}?,{mark},{mark}" for number, mark in enumerate(marks)]
    file.write_text(
        "\n".join(["query,reference,answers", *rows, "What is sodium?,Na,NA"]) + "\n",
        encoding="utf-8",
    )
    *empty, last = read_examples(file, domain="chem")
    assert all(found.reference is None and found.parts == () for found in empty)
    assert (last.reference, last.parts[0].answers) == ("Na", ("NA",))
    assert f"{2 * len(marks)} cells" in caplog.text


def test_numbers_are_read_as_text() -> None:
    found = read({**GOOD, "id": 17, "group": 3, "reference": 7, "answers": [7, 7.5]})
    assert (found.id, found.group, found.reference, found.parts[0].answers) == (
        "17",
        "3",
        "7",
        ("7", "7.5"),
    )


def test_half_a_character_is_told_where_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "1", "query": "What \\ud83d is Fe?", "domain": "chem"}\n'
    )
    with pytest.raises(DataError, match=r"rows\.jsonl:1 contains half a character.*ud83d"):
        list(read_examples(tmp_path / "rows.jsonl"))
