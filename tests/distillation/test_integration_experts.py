"""The experts: a discussion shows each what the others said, goes through the store, and leaves what it changed in the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillation.builders import Cut, example, responses
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.integration import Experts, ResponseIntegrator, Task
from domainfusion.distillation.trainer import MultiTaskTrainer
from domainfusion.errors import ConfigurationError, TemplateError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.store import ask_directly
from domainfusion.records import read_records
from domainfusion.types import Response, Revision, Sampling, TrainingRecord

TWO_HOPS = example("What is the capital of the country where NRT is?", {"geography": "Tokyo"}, domains=("aviation", "geography"))
SINGLE = example("What is the capital of Peru?", {"geography": "Lima"})


def aviator(question: str) -> str:
    return "NRT is in Japan."


def geographer(question: str) -> str:
    """Knows capitals, and no airports."""
    return "Its capital is Tokyo." if "Japan" in question else "It is Lima." if "Peru" in question else "I do not know that."


def teachers() -> dict[str, ScriptedModel]:
    return {"aviation": ScriptedModel(aviator, name="aviation"), "geography": ScriptedModel(geographer, name="geography")}


def experts(given: dict[str, ScriptedModel]) -> Experts:
    return Experts(given, ask_directly, Sampling())


def test_two_hops_need_a_discussion_and_what_it_changed_is_in_the_ledger() -> None:
    given = experts(teachers())
    (before,) = given.answer([TWO_HOPS])
    assert ResponseIntegrator().integrate_all([before])[0].text == "NRT is in Japan."
    (after,) = given.discuss([before])
    (answer,) = ResponseIntegrator().integrate_all([after])
    assert answer.text == "NRT is in Japan. Its capital is Tokyo."
    assert answer.ledger.revisions == (Revision(domain="geography", before="I do not know that.", after="Its capital is Tokyo."),)
    assert {domain: response.earlier for domain, response in after.responses.items()} == {
        "aviation": ("NRT is in Japan.",),
        "geography": ("I do not know that.",),
    }


def test_an_expert_sees_its_own_question_and_answer_and_the_others_answers_fenced() -> None:
    given = teachers()
    panel = experts(given)
    panel.discuss(panel.answer([TWO_HOPS]))
    question, own, told = given["geography"].calls[-1]
    assert (question.content, own.role, own.content) == (TWO_HOPS.query, "assistant", "I do not know that.")
    assert "[aviation expert]\n```\nNRT is in Japan.\n```" in told.content
    assert "I do not know that." not in told.content


def test_experts_speak_at_the_same_time_so_that_their_order_does_not_matter() -> None:
    def agreeable(question: str) -> str:
        return "Yes." if "Yes." in question else "No." if "No." in question else "?"

    given = {"a": Response(domain="a", text="Yes."), "b": Response(domain="b", text="No.")}
    task = Task(example("Is it so?", domains=("a", "b")), given)
    for order in ("ab", "ba"):
        (after,) = experts({domain: ScriptedModel(agreeable) for domain in order}).discuss([task])
        assert {domain: response.text for domain, response in after.responses.items()} == {"a": "No.", "b": "Yes."}


def test_who_is_alone_has_nothing_to_discuss() -> None:
    given = teachers()
    panel = experts(given)
    tasks = panel.answer([SINGLE])
    asked = len(given["geography"].calls)
    assert panel.discuss(tasks) == tasks
    assert len(given["geography"].calls) == asked


class Refusing(Cut):
    finish_reason = "refused"


@pytest.mark.parametrize("model", [ScriptedModel(" "), Refusing("I can't.")], ids=["empty", "refused"])
def test_who_says_nothing_more_stays_with_what_it_said(model: ScriptedModel) -> None:
    task = Task(TWO_HOPS, responses(aviation="Japan.", geography="Tokyo."))
    (after,) = experts({"geography": model}).discuss([task])
    assert after == task


# In a run


def distiller(base: LlamaModel, directory: Path, given: dict[str, ScriptedModel], **changes: object) -> Distiller:
    trainer, generators = MultiTaskTrainer(epochs=1), [CuratedDataGenerator([TWO_HOPS, SINGLE])]
    return Distiller(base, given, generators, trainer, output_dir=directory, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


def test_a_run_that_discusses_verifies_two_hops_and_asks_nothing_twice(base: LlamaModel, tmp_path: Path) -> None:
    given = teachers()
    run = distiller(base, tmp_path, given, discussion_rounds=1)
    records = run.integrate(run.collect(run.generate()))
    assert {record.example.query: record.verification for record in records} == {TWO_HOPS.query: "verified", SINGLE.query: "verified"}
    assert read_records(tmp_path / "records.jsonl", TrainingRecord) == records
    again = teachers()
    resumed = distiller(base, tmp_path, again, discussion_rounds=1)
    assert resumed.integrate(resumed.collect(resumed.generate())) == records
    assert [model.calls for model in again.values()] == [[], []]


def test_without_a_discussion_the_expert_of_the_second_hop_says_nothing(base: LlamaModel, tmp_path: Path) -> None:
    run = distiller(base, tmp_path, teachers())
    records = run.integrate(run.collect(run.generate()))
    assert {record.example.query: record.verification for record in records} == {TWO_HOPS.query: "rejected", SINGLE.query: "verified"}


def test_an_integrator_that_abstains_leaves_a_record_that_says_why(base: LlamaModel, tmp_path: Path) -> None:
    asked = example("How high is K2?", domains=("law", "geography", "aviation"))
    given = {
        "law": ScriptedModel("Ask."),
        "geography": ScriptedModel("K2 is 8611 m high."),
        "aviation": ScriptedModel("K2 is 5000 m high."),
    }
    run = Distiller(
        base, given, [CuratedDataGenerator([asked])], MultiTaskTrainer(), integrator=ResponseIntegrator(on_disagreement="abstain"),
        output_dir=tmp_path,
    )
    (record,) = run.integrate(run.collect(run.generate()))
    assert (record.verification, record.reason) == ("rejected", "the experts disagree")


def test_bad_settings_are_one_clear_error_at_once(base: LlamaModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="discussion_rounds is negative"):
        distiller(base, tmp_path, teachers(), discussion_rounds=-1)
    misspelt = ResponseIntegrator(ScriptedModel("x"), "{query} {reponses} {aviation} {geography}")
    with pytest.raises(TemplateError, match=r"\{reponses\}, which is no domain"):
        distiller(base, tmp_path, teachers(), integrator=misspelt)
