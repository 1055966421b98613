"""The experts in a run: what becomes of a point on which they disagree."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillation.builders import example, grouped
from domainfusion.distillation import Screening, outcomes
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.integration import Experts, ResponseIntegrator
from domainfusion.distillation.integration.reading import CHATTER, REFUSED
from domainfusion.distillation.trainer import MultiTaskTrainer
from domainfusion.errors import ConfigurationError, TemplateError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.store import ask_directly
from domainfusion.types import Sampling

HEIGHT = example("How high is K2?", domains=("aviation", "geography"))
RIGHT, WRONG = "K2 is 8611 m high.", "K2 is 5000 m high."
REPORTED = f"The experts disagree. According to aviation: {WRONG} According to geography: {RIGHT}"


def teachers() -> dict[str, ScriptedModel]:
    return {
        "aviation": ScriptedModel(WRONG, name="aviation"),
        "geography": ScriptedModel(RIGHT, name="geography"),
    }


def test_experts_who_disagree_are_both_reported_and_nobody_is_asked_again() -> None:
    given = teachers()
    tasks = Experts(given, ask_directly, Sampling()).answer([HEIGHT])
    (answer,) = ResponseIntegrator().integrate_all(tasks)
    assert (answer.text, answer.ledger.conflicts[0].kept) == (REPORTED, None)
    assert [len(model.calls) for model in given.values()] == [1, 1]


# In a run


def distiller(
    base: LlamaModel, directory: Path, given: dict[str, ScriptedModel], **changes: object
) -> Distiller:
    trainer, generators = MultiTaskTrainer(epochs=1), [CuratedDataGenerator([HEIGHT])]
    return Distiller(base, given, generators, trainer, output_dir=directory, **grouped(**changes))


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


def test_an_integrator_that_abstains_leaves_a_record_that_says_why(
    base: LlamaModel, tmp_path: Path
) -> None:
    run = distiller(
        base, tmp_path, teachers(), integrator=ResponseIntegrator(on_disagreement="abstain")
    )
    (record,) = run.integrate(run.collect(run.generate()))
    assert (record.verification, record.reason) == ("rejected", "the experts disagree")


def test_a_target_that_is_not_verified_can_be_left_out_of_the_training(
    base: LlamaModel, tmp_path: Path
) -> None:
    integrator = ResponseIntegrator(ScriptedModel("K2 is 7000 m high."), on_unverified="reject")
    run = distiller(base, tmp_path, teachers(), integrator=integrator)
    (record,) = run.integrate(run.collect(run.generate()))
    assert (record.verification, record.reason) == (
        "rejected",
        "the integrated answer was not verified",
    )
    assert (record.target, record.is_usable) == ("K2 is 7000 m high.", False)


def test_a_misspelt_placeholder_is_one_clear_error_at_once(
    base: LlamaModel, tmp_path: Path
) -> None:
    misspelt = ResponseIntegrator(ScriptedModel("x"), "{query} {reponses} {aviation} {geography}")
    with pytest.raises(TemplateError, match=r"\{reponses\}, which is not a domain"):
        distiller(base, tmp_path, teachers(), integrator=misspelt)


# Refusals and chatter

REFUSAL = "I'm sorry, but as an AI language model, I can't help with that."
CHATTY = f"Great question! {RIGHT} Let me know if you have any other questions."


def test_an_expert_that_refuses_is_left_out_where_another_one_answers() -> None:
    answer = ResponseIntegrator().integrate("How high is K2?", {"law": REFUSAL, "geography": RIGHT})
    assert (answer.text, answer.method) == (RIGHT, "single")
    (dropped,) = answer.ledger.dropped
    assert (dropped.domain, dropped.text, dropped.reason) == ("law", REFUSAL, REFUSED)


def test_chatter_of_several_experts_is_left_out_and_noted() -> None:
    others = "Basecamp is cold. I hope this helps!"
    answer = ResponseIntegrator().integrate("How high?", {"geography": CHATTY, "travel": others})
    assert answer.text == f"{RIGHT} Basecamp is cold."
    assert [each.reason for each in answer.ledger.dropped] == [CHATTER] * 3


def test_one_answer_without_chatter_is_the_target_byte_for_byte() -> None:
    text = "  K2 is  8611 m high:\n\n- I'm sorry to say so.\n"
    answer = ResponseIntegrator().integrate("How high?", {"geography": text})
    assert (answer.text, answer.ledger.dropped) == (text, ())


def test_what_is_screened_is_the_users_to_say() -> None:
    off = ResponseIntegrator(screening=Screening(refusals=False, chatter=False))
    assert off.integrate("How high?", {"geography": CHATTY}).text == CHATTY
    with pytest.raises(ConfigurationError, match="screening is not known"):
        ResponseIntegrator(screening="off")  # type: ignore[arg-type]


def test_refusals_are_counted_and_never_targets_in_a_run(
    base: LlamaModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("K2", "Everest", "Lhotse")
    questions = [example(f"How high is {name}?", domains=("geography",)) for name in names]
    answers = {
        questions[0].query: CHATTY,
        questions[1].query: REFUSAL,
        questions[2].query: "No comment.",
    }
    expert = ScriptedModel(answers.__getitem__, name="geography")
    run = Distiller(
        base,
        {"geography": expert},
        [CuratedDataGenerator(questions)],
        MultiTaskTrainer(epochs=1),
        integrator=ResponseIntegrator(screening=Screening(patterns=("^no comment",))),
        output_dir=tmp_path,
    )
    collected = run.collect(run.generate())
    records = {record.example.query: record for record in run.integrate(collected)}
    assert [records[each.query].is_usable for each in questions] == [True, False, False]
    assert records[questions[0].query].target == RIGHT
    assert records[questions[0].query].responses[0].text == CHATTY, "what was said is kept"
    assert records[questions[1].query].reason == "the expert of geography refused"
    assert "2 answers of the expert of geography are refusals" in caplog.text
    responses = [response for _, given in collected for response in given.values()]
    assert "2 refused" in outcomes.collected(responses)
    assert outcomes.integrated(list(records.values())).endswith(
        "1 without the chatter around an answer; 2 rejected (2 × the expert of geography refused)"
    )
