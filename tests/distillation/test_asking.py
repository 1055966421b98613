"""Laws of asking within a run: what it takes is written down in every role, and what an expert
leaves unanswered has no grade.
"""

import json
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distillation.builders import grouped
from domainfusion.distillation import (
    CuratedDataGenerator,
    Distiller,
    DomainRetentionEvaluator,
    IntegrationTrainer,
    ResponseIntegrator,
)
from domainfusion.distillation.asking import AskOverGaps
from domainfusion.distillation.integration.integrator import MOST_CALLS
from domainfusion.errors import ModelError
from domainfusion.models import LlamaModel, ScriptedModel, ask_directly
from domainfusion.models.base import OnResult
from domainfusion.reports import RunSummary
from domainfusion.types import Conversation, Example, Generation, Part, Sampling, user

SHORT = Sampling(max_new_tokens=4)


def example(query: str, *domains: str) -> Example:
    return Example(
        query=query,
        domains=domains,
        parts=tuple(Part(domain=domain, answers=(f"the {domain}",)) for domain in domains),
    )


TRAIN = [
    *(example(f"Question {n} of {domain}?", domain) for n in range(3) for domain in "ab"),
    example("Of both?", "a", "b"),
]
TEST = [
    *(example(f"Test {n} of {domain}?", domain) for n in range(4) for domain in "ab"),
    example("Test of both?", "a", "b"),
]


class Patchy:
    """Knows its domain, and leaves the questions unanswered in which there is one of these
    words.
    """

    def __init__(self, domain: str, *unknown: str) -> None:
        self.name = f"patchy {domain}"
        self.fingerprint = f"patchy {domain}"
        self.answered: list[str] = []
        self._domain = domain
        self._unknown = unknown

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        unanswered = {}
        answers = []
        for index, conversation in enumerate(conversations):
            question = conversation[-1].content
            if any(word in question for word in self._unknown):
                unanswered[conversation] = "overloaded"
                continue
            self.answered.append(question)
            answers.append(
                Generation(text=f"It is the {self._domain}.", prompt_tokens=3, completion_tokens=5)
            )
            if on_result is not None:
                on_result(index, answers[-1])
        if unanswered:
            error = ModelError("overloaded")
            error.unanswered = unanswered
            raise error
        return answers


def distiller(
    student: Path, directory: Path, experts: dict[str, Any], **settings: Any
) -> Distiller:
    return Distiller(
        LlamaModel(student, dtype="float32"),
        experts,
        [CuratedDataGenerator(TRAIN)],
        IntegrationTrainer(epochs=1, learning_rate=1e-3),
        DomainRetentionEvaluator(sampling=SHORT, resamples=100),
        output_dir=directory,
        test_examples=TEST,
        **grouped(response_sampling=SHORT, **settings),
    )


# Gaps


def test_a_test_question_that_an_expert_leaves_unanswered_has_no_grade_and_is_told(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experts = {"a": Patchy("a", "Test 1", "Test 2"), "b": Patchy("b")}
    with caplog.at_level(logging.WARNING, logger="domainfusion"):
        run = distiller(tiny_llama, tmp_path / "run", experts, on_teacher_failure="continue")
        run.distill()
    report = run.report
    assert report is not None
    expert = next(model for model in report.models if model.name == "a")
    unanswered = {
        answer.example_id: answer for answer in expert.answers if answer.finish_reason == "failed"
    }
    assert unanswered.keys() == {
        item.id for item in TEST if "Test 1" in item.query or "Test 2" in item.query
    }
    assert {(answer.score, answer.correct, answer.reason) for answer in unanswered.values()} == {
        (None, None, "the model did not answer")
    }
    # Four answers have no grade; of those of its own domain, two of four; what is left is all
    # right, so that no gap is a zero.
    assert expert.slices["a"].unscored == 2 and expert.slices["a"].partial.value == 1.0
    [retention] = [row for row in report.retention if row.domain == "a"]
    assert retention.items == 2 and retention.expert == 1.0
    assert "The expert of a left 4 of 9 questions unanswered; these have no grade." in report.notes
    assert "overloaded" in caplog.text
    kept = RunSummary.read(tmp_path / "run").evaluation
    assert kept is not None and kept.notes == report.notes


def test_a_gap_in_the_evaluation_stops_a_run_that_is_to_stop_and_the_same_run_continues(
    tiny_llama: Path, tmp_path: Path
) -> None:
    patchy = Patchy("a", "Test 1")
    with pytest.raises(ModelError, match="overloaded"):
        distiller(tiny_llama, tmp_path / "run", {"a": patchy, "b": Patchy("b")}).distill()
    whole = Patchy("a")
    run = distiller(tiny_llama, tmp_path / "run", {"a": whole, "b": Patchy("b")})
    run.distill()
    assert whole.answered == ["Test 1 of a?", "Test 1 of b?"]
    assert run.report is not None and run.report.notes == ()


def test_only_an_experts_gaps_are_gone_over_and_never_its_silence() -> None:
    expert, judge = Patchy("a", "1"), Patchy("b", "1")
    ask = AskOverGaps(ask_directly, {"a": expert})
    with pytest.raises(ModelError):
        ask(judge, [user("1"), user("2")])
    with pytest.raises(ModelError):
        ask(expert, [user("1")])
    assert ask.gaps == []
    assert [answer.finish_reason for answer in ask(expert, [user("1"), user("2"), user("1")])] == [
        "failed",
        "stop",
        "failed",
    ]
    assert ask.gaps == [("a", 2, 3)]


# What it took


def test_usage_names_every_model_of_a_run_in_its_roles(tiny_llama: Path, tmp_path: Path) -> None:
    integrator = ScriptedModel(lambda question: "It is the a and the b.", name="integrator")
    experts = {"a": Patchy("a"), "b": Patchy("b")}
    run = distiller(
        tiny_llama, tmp_path / "run", experts, integrator=ResponseIntegrator(integrator)
    )
    run.distill()
    usage = {
        usage.name: (usage.roles, usage.calls) for usage in RunSummary.read(tmp_path / "run").usage
    }
    of_one, of_test = 4, len(TEST)
    integrated = usage["integrator"][1]
    assert 2 <= integrated <= 2 * MOST_CALLS, (
        "of the training question across domains, and of the ensemble's answer to one"
    )
    assert usage == {
        "patchy a": (("expert of a",), of_one + of_test),
        "patchy b": (("expert of b",), of_one + of_test),
        "integrator": (("integration",), integrated),
        "tiny-llama": (("base",), of_test),
        "student": (("student",), of_test),
    }
    written = json.loads((tmp_path / "run" / "usage.json").read_text())
    assert written[0]["completion_tokens"] == 5 * (of_one + of_test) and written[0]["cost"] is None


def test_a_run_that_is_done_asks_nobody_and_its_usage_stays(
    tiny_llama: Path, tmp_path: Path
) -> None:
    def experts() -> dict[str, Patchy]:
        return {"a": Patchy("a"), "b": Patchy("b")}

    distiller(tiny_llama, tmp_path / "run", experts()).distill()
    before = RunSummary.read(tmp_path / "run").usage
    again = experts()
    distiller(tiny_llama, tmp_path / "run", again).distill()
    assert RunSummary.read(tmp_path / "run").usage == before
    assert not any(expert.answered for expert in again.values())


# The store and the directory


def test_the_store_is_closed_when_the_run_is_let_go_of(tiny_llama: Path, tmp_path: Path) -> None:
    run = distiller(tiny_llama, tmp_path / "run", {"a": Patchy("a"), "b": Patchy("b")})
    with run.hold():
        run.collect(run.generate())
        assert (tmp_path / "run" / "responses.sqlite-wal").exists()
    # SQLite takes its log away with the last connection.
    assert not (tmp_path / "run" / "responses.sqlite-wal").exists()
    run.collect(run.generate())
    with sqlite3.connect(tmp_path / "run" / "responses.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (8,)
    connection.close()
