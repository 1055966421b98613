"""The experts in a run: what becomes of a point on which they disagree."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillation.builders import example, grouped
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.integration import Experts, ResponseIntegrator
from domainfusion.distillation.trainer import MultiTaskTrainer
from domainfusion.errors import TemplateError
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
    return Distiller(base, given, generators, trainer, output_dir=directory, **grouped(**changes))  # type: ignore[arg-type]


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
