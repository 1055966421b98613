"""Laws of a distillation with teachers behind an API: what is no answer is no target, and a gap is
told, never hidden.
"""

import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import models.faulty_server as faulty
from distillation.builders import grouped
from domainfusion.distillation import (
    CuratedDataGenerator,
    Distiller,
    IntegrationTrainer,
    SyntheticDataGenerator,
    WritingSettings,
)
from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import APIModel, LlamaModel, ResponseStore, Retries, ScriptedModel
from domainfusion.types import Example, Sampling, TrainingRecord
from models.faulty_server import FaultyServer, answer_to, message, status

EXAMPLES = [
    *(Example(query=f"Question {number}?", domains=("physiology",)) for number in range(6)),
    *(Example(query=f"Both {number}?", domains=("physiology", "nutrition")) for number in range(4)),
]


def distiller(server: FaultyServer, student: Path, folder: Path, **settings: Any) -> Distiller:
    teachers: dict[str, Any] = {
        "physiology": APIModel(
            "teacher",
            base_url=server.url,
            retries=Retries(backoff_seconds=0.001, max_retries=0, timeout_seconds=5),
        ),
        "nutrition": ScriptedModel(lambda question: f"Eat {question}"),
    }
    return Distiller(
        LlamaModel(student, dtype="float32"),
        teachers,
        [CuratedDataGenerator(EXAMPLES)],
        IntegrationTrainer(),
        output_dir=folder / "run",
        **grouped(**settings),
    )


def records_of(run: Distiller) -> list[TrainingRecord]:
    return run.integrate(run.collect(run.generate()))


def rejected(records: Sequence[TrainingRecord]) -> dict[str, str]:
    return {
        record.example.query: record.reason
        for record in records
        if record.verification == "rejected"
    }


def test_local_and_remote_teachers_answer_in_one_run(tiny_llama: Path, tmp_path: Path) -> None:
    with FaultyServer() as server:
        records = records_of(distiller(server, tiny_llama, tmp_path))
    assert rejected(records) == {}
    for record in records:
        assert answer_to(record.example.query) in record.target
        assert ("Eat" in record.target) == record.example.is_cross_domain


def test_refused_and_filtered_answers_are_never_targets(tiny_llama: Path, tmp_path: Path) -> None:
    script = {
        "Question 1?": [message(content=None, refusal="I can't help with that.")],
        "Question 2?": [message("content_filter", content="It is")],
        "Both 3?": [message(content="", refusal="I can't help with that.")],
    }
    with FaultyServer(script) as server:
        records = records_of(distiller(server, tiny_llama, tmp_path))
    assert rejected(records).keys() == script.keys()
    assert (
        "refused" in rejected(records)["Question 1?"]
        and "filter" in rejected(records)["Question 2?"]
    )


def test_a_refusal_is_not_a_question() -> None:
    refusal = message(
        content=None, refusal="Could you please ask me for something that is more harmless?"
    )
    with FaultyServer(default=refusal) as server:
        writer = APIModel("writer", base_url=server.url)
        made = SyntheticDataGenerator(
            writer,
            {"a": "The first", "b": "The second"},
            num_examples=4,
            writing=WritingSettings(max_rounds=1),
        ).generate()
    assert len(made) == 0 and made.rejected == {"the model refused": 4}


def test_a_server_writes_several_questions_in_json_of_a_schema_and_each_is_asked_for_once(
    tmp_path: Path,
) -> None:
    domains = {"a": "The first subject", "b": "The second subject"}
    numbers = itertools.count()

    def write(exchange: faulty.Exchange) -> None:
        if "response_format" not in exchange.body:
            message(content="- rivers\n- towns")(exchange)
            return
        number = next(numbers)
        questions = [
            {"question": f"Where does river {number} meet town {place}?"} for place in range(5)
        ]
        message(content=json.dumps({"questions": questions}))(exchange)

    with FaultyServer(default=write) as server, ResponseStore(tmp_path / "answers.sqlite") as store:
        made = SyntheticDataGenerator(
            APIModel("writer", base_url=server.url),
            domains,
            num_examples=20,
            cross_domain_ratio=0.5,
        )
        outcome = made.generate(store.ask)
        asked = len(server.exchanges)
        assert made.generate(store.ask) == outcome
        assert len(server.exchanges) == asked == 2 + 4 + 20, (
            "topics of two domains, two prompts for each domain and for each order of both, and a"
            " verdict on each question"
        )
    assert (len(outcome), outcome.asked, sum(example.is_cross_domain for example in outcome)) == (
        20,
        20,
        10,
    )


def test_reasoning_is_kept_in_the_record_and_out_of_the_target(
    tiny_llama: Path, tmp_path: Path
) -> None:
    with FaultyServer(
        default=message(content="It rests.", reasoning_content="Muscles, hm.")
    ) as server:
        records = records_of(distiller(server, tiny_llama, tmp_path))
    for record in records:
        assert "Muscles, hm." in {response.reasoning for response in record.responses}
        assert "Muscles, hm." not in record.target


GAPS = {"Question 3?": [status(400, text="too long")], "Both 2?": [status(500, text="broken")]}


def test_a_teacher_that_fails_stops_the_run_and_the_same_run_continues(
    tiny_llama: Path, tmp_path: Path
) -> None:
    with FaultyServer(GAPS) as server:
        run = distiller(server, tiny_llama, tmp_path)
        with pytest.raises(ModelError, match="2 of 10"):
            records_of(run)
        assert not (run.output_dir / "records.jsonl").exists()
        assert rejected(records_of(distiller(server, tiny_llama, tmp_path))) == {}
        assert sum(server.asked.values()) == 12


def test_a_run_can_go_on_without_what_a_teacher_left_out(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyServer(GAPS) as server, caplog.at_level(logging.WARNING, logger="domainfusion"):
        records = records_of(distiller(server, tiny_llama, tmp_path, on_teacher_failure="continue"))
        assert sum(server.asked.values()) == 10
    assert rejected(records) == dict.fromkeys(GAPS, "the expert of physiology did not answer")
    assert len(records) == len(EXAMPLES)
    assert "2 of 10 questions unanswered" in caplog.text and (
        "too long" in caplog.text or "broken" in caplog.text
    )


def test_a_gap_is_never_stored_as_an_answer_and_does_not_disturb_a_resumed_run(
    tiny_llama: Path, tmp_path: Path
) -> None:
    with FaultyServer(GAPS) as server:
        first = records_of(distiller(server, tiny_llama, tmp_path, on_teacher_failure="continue"))
        assert (
            records_of(distiller(server, tiny_llama, tmp_path, on_teacher_failure="continue"))
            == first
        )
        assert (
            server.answered["Question 3?"] == server.answered["Both 2?"] == 1
        )  # asked again, as nothing was stored


def test_a_run_does_not_go_on_without_a_teacher(tiny_llama: Path, tmp_path: Path) -> None:
    with FaultyServer(default=status(401)) as server, pytest.raises(ModelError, match="401"):
        records_of(distiller(server, tiny_llama, tmp_path, on_teacher_failure="continue"))


def test_what_a_teacher_was_given_up_for_halfway_is_a_gap_too(
    tiny_llama: Path, tmp_path: Path
) -> None:
    with FaultyServer({"Both 1?": [status(402)]}) as server:
        run = distiller(
            server,
            tiny_llama,
            tmp_path,
            on_teacher_failure="continue",
            response_sampling=Sampling(max_new_tokens=9),
        )
        records = records_of(run)
    assert "Both 1?" in rejected(records)
    assert len(rejected(records)) < len(EXAMPLES)


def test_an_unknown_word_for_failures_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    with (
        FaultyServer(default=faulty.right) as server,
        pytest.raises(ConfigurationError, match="on_teacher_failure"),
    ):
        distiller(server, tiny_llama, tmp_path, on_teacher_failure="ignore")
