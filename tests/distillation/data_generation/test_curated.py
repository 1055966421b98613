"""Examples that people wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import example
from distillation.test_entries import KINDS, write
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.data_generation.curated import read_review, write_review
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.types import Example, Message, Part


def entries(count: int) -> list[dict[str, object]]:
    return [
        {"query": f"Where is airport {number}?", "domains": ["aviation"]} for number in range(count)
    ]


def test_curated_examples_are_given_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries(3)), encoding="utf-8")
    from_file, from_list = (
        CuratedDataGenerator(file).generate(),
        CuratedDataGenerator(entries(3)).generate(),
    )
    assert from_file == from_list
    assert [example.query for example in from_list] == [entry["query"] for entry in entries(3)]
    assert {example.source for example in from_list} == {"curated"}
    assert CuratedDataGenerator(file).domains == ("aviation",)


def test_a_sample_of_curated_examples_has_its_size_and_its_seed() -> None:
    samples = [
        CuratedDataGenerator(entries(30), num_examples=10, seed=seed).generate().examples
        for seed in (0, 0, 1)
    ]
    assert samples[0] == samples[1] != samples[2]
    assert len({example.id for example in samples[0]}) == 10


@pytest.mark.parametrize("count", [0, 4])
def test_a_sample_larger_than_there_is_or_empty_is_refused(count: int) -> None:
    with pytest.raises(ConfigurationError, match="num_examples"):
        CuratedDataGenerator(entries(3), num_examples=count)


def test_no_curated_examples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no curated examples"):
        CuratedDataGenerator([])
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no curated examples"):
        CuratedDataGenerator(tmp_path / "empty.jsonl")


# Formats and fields


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_examples_come_from_every_format(kind: str, tmp_path: Path) -> None:
    rows = [
        {"question": "Where is NRT?", "topic": "aviation", "gold": "Japan", "level": "1"},
        {"question": "Where is CDG, and why?", "topic": "aviation", "gold": "France", "level": "2"},
    ]
    fields = {"query": "question", "domains": "topic", "answers": "gold"}
    examples = CuratedDataGenerator(write(tmp_path, kind, rows), fields=fields).generate().examples
    assert [(example.query, example.domains) for example in examples] == [
        (row["question"], ("aviation",)) for row in rows
    ]
    assert [example.parts for example in examples] == [
        (Part(domain="aviation", answers=(row["gold"],)),) for row in rows
    ]
    assert [example.metadata for example in examples] == [{"level": "1"}, {"level": "2"}], (
        "what is not mapped is kept"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapped_column_that_is_not_there_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    source = write(tmp_path, kind, [{"query": "Where is NRT?", "domain": "aviation"}])
    with pytest.raises(DataError, match="'gold', which is said to hold the reference"):
        CuratedDataGenerator(source, fields={"reference": "gold"})


def test_fields_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown field name; received 'questoin'"):
        CuratedDataGenerator(entries(1), fields={"questoin": "query"})


def test_an_unknown_column_without_a_mapping_says_how_to_map_it(tmp_path: Path) -> None:
    source = write(tmp_path, "csv", [{"question": "Where is NRT?", "domain": "aviation"}])
    with pytest.raises(DataError, match=r"rows.csv:2 has the unknown field 'question'.*fields="):
        CuratedDataGenerator(source)


def test_metadata_of_its_own_is_kept_beside_what_is_not_mapped(tmp_path: Path) -> None:
    row = {
        "question": "Where is NRT?",
        "domain": "aviation",
        "metadata": '{"source": "quiz"}',
        "level": "3",
    }
    (example,) = CuratedDataGenerator(
        write(tmp_path, "csv", [row]), fields={"query": "question"}
    ).examples
    assert example.metadata == {"source": "quiz", "level": "3"}
    with pytest.raises(DataError, match=r"rows\.csv:2: metadata is not an object; received 'quiz'"):
        CuratedDataGenerator(
            write(tmp_path, "csv", [{**row, "metadata": "quiz"}]), fields={"query": "question"}
        )


def test_a_path_leads_into_nested_fields() -> None:
    squad = [
        {
            "question": "Where is NRT?",
            "answers": {"text": ["Japan", "Nippon"], "answer_start": [3, 9]},
            "id": "q1",
        }
    ]
    (example,) = CuratedDataGenerator(
        squad, domain="aviation", fields={"query": "question", "answers": "answers.text"}
    ).examples
    assert example.parts[0].answers == ("Japan", "Nippon")
    assert example.id == "q1"


def test_several_domains_and_what_has_structure_fit_into_a_table(tmp_path: Path) -> None:
    row = {
        "query": "Where is NRT, and what is gold?",
        "domains": "aviation; chemistry",
        "answers": '{"aviation": ["Japan", "Nippon"], "chemistry": "Au"}',
        "sub_questions": '{"chemistry": "What is gold?"}',
        "reference": "",
    }
    (example,) = CuratedDataGenerator(write(tmp_path, "csv", [row])).examples
    assert example.domains == ("aviation", "chemistry")
    assert [part.answers for part in example.parts] == [("Japan", "Nippon"), ("Au",)]
    assert (example.question_for("chemistry"), example.reference) == ("What is gold?", None)
    with pytest.raises(DataError, match=r"rows\.csv:2: answers is not JSON"):
        CuratedDataGenerator(write(tmp_path, "csv", [{**row, "answers": '{"aviation": '}]))


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "dataset", "stream", "list"])
@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_messages_become_a_query_with_the_turns_before_it_and_a_reference(
    kind: str, name: str, tmp_path: Path
) -> None:
    turns = [("system", "Be brief."), ("user", "I fly to NRT."), ("assistant", "Good.")]
    turns += [("user", "Where is it?"), ("assistant", "In Japan.")]
    rows = [{name: [{"role": role, "content": text} for role, text in turns], "domain": "aviation"}]
    (example,) = CuratedDataGenerator(write(tmp_path, kind, rows)).examples
    assert example.history == (Message("user", "I fly to NRT."), Message("assistant", "Good."))
    assert (example.query, example.reference) == ("Where is it?", "In Japan.")
    assert example.metadata == {"system": "Be brief."}


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"query": "Where?"}, "messages and query"),
        ({"history": []}, "messages and history"),
        ({"conversations": []}, "messages and conversations"),
        ({"reference": "In Japan."}, "a reference, and messages that end with an answer"),
    ],
)
def test_messages_beside_what_they_say_are_one_clear_error(more: dict[str, Any], what: str) -> None:
    turns = [
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "In Japan."},
    ]
    with pytest.raises(DataError, match=f"^example 0 has {what}"):
        CuratedDataGenerator([{"messages": turns, "domain": "aviation", **more}])


# Review


def decide(path: Path, *decisions: dict[str, str]) -> None:
    """Edits the rows of a review file as a spreadsheet would, and writes it back."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, changes in zip(rows, decisions, strict=True):
        row.update(changes)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def test_a_review_accepts_edits_and_rejects(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    generator = CuratedDataGenerator(entries(4))
    generator.write_review(path)
    edited = {
        "decision": "edit",
        "query": "Where is gate 2?",
        "answers": "aviation: left | to the left",
        "comment": "clearer",
    }
    decide(path, {"decision": "accept"}, edited, {"decision": "Reject"}, {})
    outcome = CuratedDataGenerator.from_review(path).generate()
    first, second = outcome.examples
    assert first == generator.examples[0]
    assert (second.query, second.parts) == (
        "Where is gate 2?",
        (Part(domain="aviation", answers=("left", "to the left")),),
    )
    assert second.metadata == {"review": "clearer"}
    assert second.id != generator.examples[1].id
    assert (outcome.asked, outcome.rejected) == (
        4,
        {"rejected in the review": 1, "not reviewed": 1},
    )


def test_a_review_that_accepts_nothing_is_one_clear_error(tmp_path: Path) -> None:
    CuratedDataGenerator(entries(2)).write_review(tmp_path / "review.csv")
    with pytest.raises(DataError, match=r"accepts nothing.*'not reviewed': 2"):
        CuratedDataGenerator.from_review(tmp_path / "review.csv")


# Review


FULL = Example(
    query="Where is NRT, and what is gold?",
    domains=("aviation", "chemistry"),
    primary_domain="chemistry",
    apparent_domain="geography",
    history=(Message("user", "Hello!"), Message("assistant", "Hello.\nHow can I help?")),
    source="adversarial",
    sub_questions={"aviation": "Where is NRT?", "chemistry": "What is gold?"},
    parts=(
        Part(domain="aviation", answers=("Japan", "Nippon")),
        Part(domain="chemistry", answers=("Au",)),
    ),
    reference="In Japan; Au.",
    group="NRT",
    metadata={"level": 3, "tags": ["a", "b"]},
)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(query=texts, reference=st.none() | texts, answer=texts, domain=texts)
def test_what_is_accepted_comes_back_as_it_was(
    query: str,
    reference: str | None,
    answer: str,
    domain: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("review") / "review.csv"
    given_examples = [
        Example(
            query=query,
            domains=(domain,),
            parts=(Part(domain=domain, answers=(answer,)),),
            reference=reference,
        ),
        FULL,
    ]
    write_review(given_examples, path)
    decide(path, {"decision": "accept"}, {"decision": "accept"})
    assert list(read_review(path).examples) == given_examples


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+33", "-5 °C", "@home", "'=quoted", "''+twice", "'plain'", "＝1", "＋33", "＠home"],
)
def test_no_cell_is_a_formula_or_a_number_to_a_spreadsheet(text: str, tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    write_review([example(text, domains=["a"], reference=text)], path)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        assert not any(
            cell.startswith(tuple("=+-@＝＋－＠\t\r\n"))
            for row in csv.reader(stream)
            for cell in row
        )
    decide(path, {"decision": "accept"})
    (found,) = read_review(path).examples
    assert (found.query, found.reference) == (text, text)


@pytest.mark.parametrize("text", ["\t=1+1", "\r=1+1", "\n=1+1", " \t@home"])
def test_a_cell_that_begins_with_a_control_character_is_not_a_formula(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "review.csv"
    write_review([example("What?", domains=["a"], reference=text)], path)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        assert not any(
            cell.lstrip(" ").startswith(tuple("=+-@\t\r\n"))
            for row in csv.reader(stream)
            for cell in row
        )
    decide(path, {"decision": "accept"})
    assert [found.reference for found in read_review(path).examples] == [text]


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_cell_of_any_size_is_read_again_and_a_spreadsheet_may_write_semicolons(
    mark: str, tmp_path: Path
) -> None:
    path = tmp_path / "review.csv"
    given_examples = [
        example("What?", domains=["a"], reference="x; y, " * 50_000),
        example("None", domains=["a"], reference="nan"),
    ]
    write_review(given_examples, path)
    csv.field_size_limit(10_000_000)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream))
    finally:
        csv.field_size_limit(131_072)
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=mark).writerows(
            [rows[0], *(["accept", *row[1:]] for row in rows[1:])]
        )
    assert list(read_review(path).examples) == given_examples


def test_an_edit_changes_what_was_edited_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    write_review([FULL], path)
    decide(path, {"decision": "edit", "domains": "aviation", "answers": "aviation: Japan"})
    (found,) = read_review(path).examples
    assert (found.query, found.history, found.group, found.reference) == (
        FULL.query,
        FULL.history,
        FULL.group,
        FULL.reference,
    )
    assert (found.domains, found.primary_domain, dict(found.sub_questions)) == (
        ("aviation",),
        "aviation",
        {"aviation": "Where is NRT?"},
    )
    assert found.parts == (Part(domain="aviation", answers=("Japan",)),)
    assert found.id != FULL.id


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"decision": "accept", "query": "Where?"}, r"was edited \(query\), and says accept"),
        ({"decision": "maybe"}, "the decision is not known; received 'maybe'"),
        ({"decision": "accept", "example": "{}"}, "the column example was changed"),
        ({"decision": "edit", "query": " "}, "has no query"),
        ({"decision": "edit", "domains": ";"}, "has no domains"),
        ({"decision": "edit", "answers": "Japan"}, "answers that can't be read"),
        ({"decision": "edit", "answers": "aviation: |"}, "answers that can't be read"),
    ],
)
def test_a_row_that_can_not_be_read_is_one_error_with_its_line(
    changes: dict[str, str], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "review.csv"
    write_review([example("One?", domains=["aviation"]), FULL], path)
    decide(path, {"decision": "accept"}, changes)
    with pytest.raises(DataError, match=rf"review\.csv:3.*{what}"):
        read_review(path)


def test_a_file_that_is_not_a_review_says_so(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("query,domain\nWhere?,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no column 'decision'.*write_review"):
        read_review(tmp_path / "other.csv")


def test_a_review_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    write_review([FULL], path)
    decide(path, {"decision": "accept"})
    decided = path.read_bytes()
    with pytest.raises(DataError, match="there already"):
        write_review([FULL], path)
    assert path.read_bytes() == decided
