"""The experts: a rebuttal shows each the point and the other side's words, goes through the store,
and settles what nothing else did.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from distillation.builders import example, responses
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.integration import Experts, ResponseIntegrator, Task
from domainfusion.distillation.trainer import MultiTaskTrainer
from domainfusion.errors import TemplateError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.store import ask_directly
from domainfusion.records import read_records
from domainfusion.types import Revision, Sampling, TrainingRecord

HEIGHT = example("How high is K2?", domains=("aviation", "geography"))
RIGHT, WRONG = "K2 is 8611 m high.", "K2 is 5000 m high."
REPORTED = f"The experts disagree. According to aviation: {WRONG} According to geography: {RIGHT}"


def expert(first: str, later: str, name: str = "expert") -> ScriptedModel:
    """An expert who says one thing when it is asked, and another when it is contradicted."""
    return ScriptedModel(
        lambda question: later if "another expert contradicts you" in question else first, name=name
    )


def teachers(
    aviation: str = "I withdraw. I mixed it up.",
    geography: str = "I stay with it. It was measured.",
) -> dict[str, ScriptedModel]:
    return {
        "aviation": expert(WRONG, aviation, "aviation"),
        "geography": expert(RIGHT, geography, "geography"),
    }


def panel(given: dict[str, ScriptedModel]) -> Experts:
    return Experts(given, ask_directly, Sampling())


def test_who_stays_alone_with_a_claim_after_a_rebuttal_is_believed_and_the_ledger_says_so() -> None:
    experts = panel(teachers())
    tasks = experts.answer([HEIGHT])
    assert ResponseIntegrator().integrate_all(tasks)[0].text == REPORTED
    (answer,) = ResponseIntegrator().integrate_all(tasks, rebut=experts.rebut)
    (conflict,) = answer.ledger.conflicts
    assert (answer.text, conflict.kept, conflict.rule) == (
        RIGHT,
        "geography",
        "the other side withdrew",
    )
    assert answer.ledger.revisions == (
        Revision(domain="aviation", before=WRONG, after="I withdraw. I mixed it up."),
        Revision(domain="geography", before=RIGHT, after="I stay with it. It was measured."),
    )


@pytest.mark.parametrize(
    ("aviation", "geography"),
    [
        ("I stay with it.", "I stay with it."),
        ("I withdraw.", "I withdraw."),
        ("", " "),
        ("They should withdraw.", "No idea."),
        ("I would never say: I withdraw.", "I do not withdraw."),
    ],
    ids=["both stay", "both withdraw", "nobody says a thing", "in other words", "only mentioned"],
)
def test_a_rebuttal_that_leaves_no_side_alone_settles_nothing(
    aviation: str, geography: str
) -> None:
    experts = panel(teachers(aviation, geography))
    (answer,) = ResponseIntegrator().integrate_all(experts.answer([HEIGHT]), rebut=experts.rebut)
    assert (answer.text, answer.ledger.conflicts[0].kept) == (REPORTED, None)


def test_an_expert_sees_its_question_its_answer_the_point_and_the_other_sides_words_fenced() -> (
    None
):
    given = teachers()
    experts = panel(given)
    ResponseIntegrator().integrate_all(experts.answer([HEIGHT]), rebut=experts.rebut)
    question, own, told = given["geography"].calls[-1]
    assert (question.content, own.role, own.content) == (HEIGHT.query, "assistant", RIGHT)
    assert f"[aviation expert]\n```\n{WRONG}\n```" in told.content
    assert "How high is K2" in told.content


def test_the_order_of_the_experts_does_not_matter_in_a_rebuttal() -> None:
    for order in (("aviation", "geography"), ("geography", "aviation")):
        given = teachers()
        experts = panel({domain: given[domain] for domain in order})
        (answer,) = ResponseIntegrator().integrate_all(
            experts.answer([HEIGHT]), rebut=experts.rebut
        )
        assert answer.text == RIGHT


def test_only_who_speaks_on_an_open_point_is_asked_again() -> None:
    given = {**teachers(), "law": ScriptedModel("Climbing it takes a permit.")}
    asked = example("How high is K2?", domains=("aviation", "geography", "law"))
    experts = panel(given)
    ResponseIntegrator().integrate_all(experts.answer([asked]), rebut=experts.rebut)
    assert [len(model.calls) for model in given.values()] == [2, 2, 1]


def test_what_a_rule_settles_is_not_asked_again() -> None:
    given = teachers()
    task = Task(
        example(HEIGHT.query, domains=HEIGHT.domains, primary_domain="geography"),
        responses(aviation=WRONG, geography=RIGHT),
    )
    (answer,) = ResponseIntegrator().integrate_all([task], rebut=panel(given).rebut)
    assert (answer.text, [model.calls for model in given.values()]) == (RIGHT, [[], []])


# In a run


def distiller(
    base: LlamaModel, directory: Path, given: dict[str, ScriptedModel], **changes: object
) -> Distiller:
    trainer, generators = MultiTaskTrainer(epochs=1), [CuratedDataGenerator([HEIGHT])]
    return Distiller(base, given, generators, trainer, output_dir=directory, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


def test_a_run_with_a_rebuttal_asks_nothing_twice(base: LlamaModel, tmp_path: Path) -> None:
    given = teachers()
    run = distiller(base, tmp_path, given, rebuttal=True)
    records = run.integrate(run.collect(run.generate()))
    assert [record.target for record in records] == [RIGHT]
    assert read_records(tmp_path / "records.jsonl", TrainingRecord) == records
    (tmp_path / "records.jsonl").unlink()
    again = teachers()
    resumed = distiller(base, tmp_path, again, rebuttal=True)
    assert resumed.integrate(resumed.collect(resumed.generate())) == records
    assert [model.calls for model in again.values()] == [[], []]


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
