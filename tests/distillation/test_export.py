"""Export: other trainers read what the student is trained on, and nothing that it is not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import datasets
import pytest

from distillation.builders import example, record
from domainfusion.cli import export as verb
from domainfusion.distillation import to_pandas
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.export import ExportFormat, export_messages
from domainfusion.distillation.results import Estimate, ModelResult, SliceScore
from domainfusion.errors import ConfigurationError, MissingDependencyError
from domainfusion.types import Integration, Message, Response, TrainingRecord, user

TURNS = (Message("user", "I fly to NRT."), Message("assistant", "Good."))
PLAIN = record("Where is CDG?", "In France.")
TALK = replace(
    record("Where is it?", "In Japan."),
    example=example("Where is it?", domains=["aviation"], history=TURNS),
)
LEFT_OUT = [
    record("Where is LHR?", "In Spain.", verification="rejected", reason="wrong"),
    record("Where is FCO?", " "),
    record("Where is BCN?", "In the north of", finish_reason="length"),
]


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_messages_hold_the_whole_dialogue(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    done = export_messages([PLAIN, *LEFT_OUT, TALK], path, system_prompt="Be brief.")
    assert (done.written, done.left_out) == (
        2,
        {"rejected": 1, "without an answer": 1, "cut at the token limit": 1},
    )
    system = {"role": "system", "content": "Be brief."}
    turns = [
        {"role": "user", "content": "Where is CDG?"},
        {"role": "assistant", "content": "In France."},
    ]
    assert rows(path)[0] == {"messages": [system, *turns]}
    assert [message["role"] for message in rows(path)[1]["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


def test_prompt_and_completion_are_apart(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export_messages([PLAIN], path, format="prompt-completion")
    assert rows(path) == [
        {
            "prompt": [{"role": "user", "content": "Where is CDG?"}],
            "completion": [{"role": "assistant", "content": "In France."}],
        }
    ]


def test_sharegpt_keeps_the_system_message_apart(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export_messages([TALK], path, format="sharegpt", system_prompt="Be brief.")
    (row,) = rows(path)
    assert row["system"] == "Be brief."
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt", "human", "gpt"]


@pytest.mark.parametrize("format", ["messages", "sharegpt"])
def test_what_is_exported_can_be_read_as_curated_examples(
    format: ExportFormat, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    export_messages([PLAIN, TALK], path, format=format)
    found = CuratedDataGenerator(path, domain="aviation").examples
    assert [given.conversation for given in found] == [
        PLAIN.example.conversation,
        TALK.example.conversation,
    ]
    assert [given.reference for given in found] == ["In France.", "In Japan."]


@pytest.mark.parametrize("format", get_args(ExportFormat))
def test_the_datasets_library_that_trl_uses_reads_it(format: ExportFormat, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export_messages([PLAIN, TALK], path, format=format)
    loaded = datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 2
    assert loaded.column_names == list(rows(path)[0])


def test_examples_are_exported_with_their_references(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    done = export_messages(
        [
            example("Where is it?", domains=["a"], reference="There."),
            example("Why?", domains=["a"]),
        ],
        path,
    )
    assert (done.written, done.left_out) == (1, {"without a reference": 1})
    assert rows(path)[0]["messages"][-1] == {"role": "assistant", "content": "There."}


def test_a_format_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="received 'alpaca'"):
        export_messages([PLAIN], tmp_path / "out.jsonl", format="alpaca")  # type: ignore[arg-type]


def test_the_command_line_knows_the_same_formats() -> None:
    assert get_args(ExportFormat) == verb._DATA


def test_a_single_question_is_a_dialogue_of_one_turn() -> None:
    assert PLAIN.example.conversation == user("Where is CDG?")


# Frames


LAW = example("What is 1?", {"law": "one"})
SCORE = SliceScore(
    items=4, strict=Estimate(value=0.75, low=0.3, high=0.9), partial=Estimate(value=0.8)
)
REPORT = EvaluationReport(
    models=tuple(
        ModelResult(name=name, role=name, slices={"law": SCORE, "<b>art": SCORE})
        for name in ("student", "base")
    ),
    examples=(LAW,),
)


def test_a_report_is_a_row_for_each_model_and_slice() -> None:
    table = REPORT.to_pandas()
    assert list(table["model"]) == ["student", "student", "base", "base"]
    assert list(table["slice"]) == ["law", "<b>art"] * 2
    assert set(table["accuracy"]) == {0.75} and set(table["low"]) == {0.3}


def test_examples_and_records_are_a_row_each() -> None:
    record = TrainingRecord(
        example=LAW,
        responses=(Response(domain="law", text="It is one."),),
        integration=Integration(text="It is one.", method="single"),
        verification="verified",
    )
    [row] = to_pandas([record]).to_dict("records")
    assert (row["query"], row["target"], row["verification"]) == (
        "What is 1?",
        "It is one.",
        "verified",
    )
    assert row["responses"] == {"law": "It is one."}
    [plain] = to_pandas([LAW]).to_dict("records")
    assert plain["parts"] == {"law": ["one"]} and "target" not in plain


def test_without_pandas_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'domainfusion\[data\]'"):
        to_pandas([LAW])


def test_a_report_shows_itself_shortly_and_in_a_notebook_as_its_tables() -> None:
    assert repr(REPORT) == f"EvaluationReport(2 models, 1 example; {REPORT.headline})"
    shown = REPORT._repr_html_()
    assert "&lt;b&gt;art" in shown and "<b>" not in shown and "0.750" in shown
