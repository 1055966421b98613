"""Where the student starts, and what is chosen before the first step."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from domainfusion.distillation.trainer import (
    IntegrationTrainer,
    MergeSettings,
    MultiTaskTrainer,
    SequentialTrainer,
)
from domainfusion.distillation.trainer.merging import material_of
from domainfusion.errors import (
    CapabilityError,
    ConfigurationError,
)
from domainfusion.merging import fit, merger
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.base import Adaptation
from domainfusion.types import (
    Example,
    Integration,
    Message,
    Response,
    Sampling,
    TrainingRecord,
    user,
)

from .trainings import (
    QUICK,
    RECORDS,
    Killed,
    dying_after,
    same,
    without_the_students_of_other_tests,  # noqa: F401
)

# Where the student starts


def test_a_small_student_is_trained_in_full_and_a_large_one_in_an_adapter(
    base: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IntegrationTrainer(learning_rate=1e-3).adapt(base, {})[1] is None
    monkeypatch.setattr("domainfusion.distillation.trainer.trainer.LORA_FROM_PARAMETERS", 1000)
    _, adaptation = IntegrationTrainer(learning_rate=1e-3, lora_rank=3).adapt(base, {})
    assert adaptation is not None
    assert (adaptation.rank, adaptation.start_from) == (3, ())


def test_experts_on_the_student_s_base_are_merged_into_its_start(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    trainer = IntegrationTrainer(
        learning_rate=1e-3, adaptation="lora", merge=MergeSettings("sum", weight=0.5)
    )
    student, adaptation = trainer.adapt(base, experts)
    assert adaptation is not None
    assert adaptation.start_from == tuple(experts.values())
    assert adaptation.merge_weight == 0.5
    assert student.fingerprint != base.fingerprint


KEPT: dict[str, Any] = {**QUICK, "adaptation": "lora", "lora_rank": 3}


def test_a_merge_that_is_kept_stays_to_the_bit_while_what_is_added_learns(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    trainer = IntegrationTrainer(**KEPT, merge=MergeSettings(keep=True))
    torch.manual_seed(0)
    start, _ = trainer.adapt(base, experts)
    before = start.trained_state()
    after = trainer.train(base, RECORDS, teachers=experts).trained_state()
    merged, _ = IntegrationTrainer(**KEPT).adapt(base, experts)
    ranks = {name: min(state.shape) for name, state in merged.trained_state().items()}
    learned = []
    for name, state in after.items():
        added, kept = (
            (state[ranks[name] :], state[: ranks[name]])
            if "lora_A" in name
            else (state[:, ranks[name] :], state[:, : ranks[name]])
        )
        assert min(added.shape) == 3
        own = before[name][: ranks[name]] if "lora_A" in name else before[name][:, : ranks[name]]
        assert torch.equal(kept, own)
        learned.append("lora_A" in name or bool(added.any()))
    assert all(learned), "an adapter that is added begins at 0, and each layer's has moved"


@pytest.mark.parametrize("method", ["sum", "tsv", "regmean"])
def test_a_kept_merge_begins_where_a_trained_one_does(
    base: LlamaModel, experts: dict[str, LlamaModel], method: Any
) -> None:
    told = [replace_responses(own, experts) for own in RECORDS]
    logits = []
    for keep in (True, False):
        trainer = IntegrationTrainer(**KEPT, merge=MergeSettings(method, keep=keep))
        student, _ = trainer.adapt(base, experts, told)
        assert isinstance(student, LlamaModel)
        [states] = student.hidden_states([student.encode(user("Where is NRT?"))])
        logits.append(student.project(states))
    kept, trained = logits
    assert torch.allclose(kept, trained, atol=1e-5)


def test_a_merge_by_reading_is_made_once_for_training_resume_and_evaluation(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = [replace_responses(own, experts) for own in RECORDS]
    trainer = IntegrationTrainer(**KEPT, merge=MergeSettings("regmean", weight=0.7, keep=True))
    alone, _ = trainer.merged(base, experts, told, tmp_path / "nothing is kept here")
    read: list[str] = []
    real = merger.read_layers

    def counted(*given: Any, is_fixed: bool) -> None:
        read.append(given[-1])
        real(*given, is_fixed=is_fixed)

    monkeypatch.setattr(merger, "read_layers", counted)
    first = trainer.train(base, told, teachers=experts, directory=tmp_path)
    once = len(experts) + 1
    assert len(read) == once, "each expert, and the merge"
    again = trainer.train(base, told, teachers=experts, directory=tmp_path)
    merged, how = trainer.merged(base, experts, told, tmp_path)
    assert len(read) == once
    assert same(first, again) and same(alone, merged)
    assert how.seconds > 0

    kept = tmp_path / "merge.safetensors"
    damaged = kept.read_bytes()
    kept.write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    anew, _ = trainer.merged(base, experts, told, tmp_path)
    assert len(read) == 2 * once, "a damaged file is made again"
    assert same(alone, anew)


def replace_responses(own: TrainingRecord, experts: dict[str, LlamaModel]) -> TrainingRecord:
    """Returns a record with an answer of each of its experts."""
    answers = tuple(
        Response(domain=domain, text="An answer.", finish_reason="stop")
        for domain in own.example.domains
        if domain in experts
    )
    return replace(own, responses=answers)


@pytest.mark.parametrize("settings", [{"adaptation": "full"}, {"initialization": "base"}])
def test_a_merge_that_there_is_not_can_t_be_kept(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="keep_merge"):
        IntegrationTrainer(merge=MergeSettings(keep=True), **settings)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_killed_training_beside_a_kept_merge_ends_as_an_undisturbed_one(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path, steps: int
) -> None:
    trainer = IntegrationTrainer(**KEPT)
    whole = trainer.train(base, RECORDS, teachers=experts)
    with pytest.raises(Killed):
        trainer.train(
            base, RECORDS, teachers=experts, directory=tmp_path, progress=dying_after(steps)
        )
    assert same(whole, trainer.train(base, RECORDS, teachers=experts, directory=tmp_path))


@pytest.mark.parametrize("start", ["base", "auto"])
def test_other_experts_leave_the_student_at_its_base(base: LlamaModel, start: Any) -> None:
    student, adaptation = IntegrationTrainer(
        learning_rate=1e-3, adaptation="lora", initialization=start
    ).adapt(base, {"aviation": ScriptedModel("x")})
    assert adaptation is not None
    assert adaptation.start_from == ()
    asked, sampling = [user("Where is NRT?")], Sampling(max_new_tokens=6)
    assert student.generate(asked, sampling) == base.generate(asked, sampling)


def test_a_merge_that_is_asked_for_and_not_possible_is_an_error(base: LlamaModel) -> None:
    with pytest.raises(CapabilityError, match="own base"):
        IntegrationTrainer(learning_rate=1e-3, adaptation="lora", initialization="merge").adapt(
            base, {"aviation": ScriptedModel("x")}
        )
    with pytest.raises(CapabilityError, match="own base"):
        IntegrationTrainer(adaptation="full", initialization="merge").adapt(
            base, {"aviation": ScriptedModel("x")}
        )


def test_a_student_that_can_t_be_trained_is_an_error() -> None:
    with pytest.raises(CapabilityError, match="can't be trained"):
        IntegrationTrainer().train(ScriptedModel("x"), RECORDS)  # type: ignore[arg-type]


# What is chosen before the first step


def chosen(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "choices.json").read_text())


def test_the_order_goes_from_what_the_student_knows_to_what_it_does_not(
    base: LlamaModel, tmp_path: Path
) -> None:
    knowing = MultiTaskTrainer(
        learning_rate=5e-3, epochs=30, batch_size=2, adaptation="full"
    ).train(base, RECORDS[2:4])
    knowing.save(tmp_path / "chemist")
    chemist = LlamaModel(tmp_path / "chemist", dtype="float32")
    SequentialTrainer(**QUICK).train(chemist, RECORDS, directory=tmp_path / "run")
    made = chosen(tmp_path / "run")["order"]
    assert made["value"] == ["chemistry", "aviation"]
    assert 0 > made["measured"]["chemistry"] > made["measured"]["aviation"]
    assert [folder.name for folder in sorted((tmp_path / "run").glob("phase-*"))] == [
        "phase-1-chemistry",
        "phase-2-aviation",
    ]
    assert {"chosen": "order", **made} in [
        json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize(
    "name", ["a/../../../escaped", "/tmp/escaped", "..", "con", "Law.", "x" * 300, "法律 / Recht\0"]
)
def test_the_name_of_a_domain_is_not_a_path(name: str, base: LlamaModel, tmp_path: Path) -> None:
    records = [
        replace(record, example=replace(record.example, domains=(name,), primary_domain=name))
        for record in RECORDS[:2]
    ]
    run = tmp_path / "deep" / "run"
    SequentialTrainer(**QUICK, order=[name]).train(base, records, directory=run)
    (phase,) = run.glob("phase-*")
    assert (phase / "finished.safetensors").is_file() and phase.parent == run
    assert [path.name for path in tmp_path.iterdir()] == ["deep"] and [
        path.name for path in run.parent.iterdir()
    ] == ["run"]


def test_the_likelihood_of_a_domain_is_the_mean_over_the_tokens_of_its_own_records(
    base: LlamaModel, tmp_path: Path
) -> None:
    SequentialTrainer(**QUICK).train(base, RECORDS, directory=tmp_path)
    scores = base.score(
        [(*own.example.conversation, Message("assistant", own.target)) for own in RECORDS[:2]]
    )
    tokens = [value for score in scores for value in score.log_probabilities]
    assert chosen(tmp_path)["order"]["measured"]["aviation"] == pytest.approx(
        sum(tokens) / len(tokens)
    )


def test_an_order_that_is_given_is_not_measured(base: LlamaModel, tmp_path: Path) -> None:
    SequentialTrainer(**QUICK, order=("chemistry", "aviation")).train(
        base, RECORDS, directory=tmp_path
    )
    assert not (tmp_path / "choices.json").exists()


SWEPT: dict[str, Any] = {
    **QUICK,
    "adaptation": "lora",
    "merge": MergeSettings("sum", weight=[0.2, 0.9, 0.5]),
}


def test_the_start_is_the_merge_of_lowest_loss_on_the_targets(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    trainer = IntegrationTrainer(**SWEPT)
    trainer.train(base, RECORDS, teachers=experts, directory=tmp_path)
    made = chosen(tmp_path)["merge"]
    losses = {
        candidate["weight"]: mean(candidate["loss"].values())
        for candidate in made["measured"].values()
    }
    assert set(losses) == {0.2, 0.5, 0.9}
    assert made["value"]["start"]["weight"] == min(losses, key=losses.__getitem__)
    compared = material_of(experts, RECORDS, trainer.merge).compared
    for weight, loss in losses.items():
        merge = base.trainable_copy(
            Adaptation(start_from=tuple(experts.values()), merge_weight=weight)
        )
        assert mean(fit(merge, compared).loss.values()) == pytest.approx(loss, rel=1e-4)


def test_the_merge_to_compare_with_is_the_one_that_is_right_most_often(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    made = {
        name: {"method": "sum", "weight": weight, "right": {}, "loss": {}, "seconds": 2.0}
        for name, weight in (("start", 0.5), ("product", 0.9))
    }
    entry = {"measured": {"one": made["start"], "other": made["product"]}, "value": made}
    (tmp_path / "choices.json").write_text(json.dumps({"merge": entry}))
    merged, how = IntegrationTrainer(**SWEPT).merged(base, experts, RECORDS, tmp_path)
    assert (how.method, how.weight) == ("sum", 0.9) and how.seconds > 4
    start = Adaptation(start_from=tuple(experts.values()), merge_weight=0.9)
    expected = base.trainable_copy(start).trained_state()
    for name, tensor in merged.trained_state().items():
        assert torch.allclose(tensor, expected[name])


def test_the_merge_to_compare_with_is_chosen_once(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = IntegrationTrainer(**SWEPT)
    first, how = trainer.merged(base, experts, RECORDS, tmp_path)
    monkeypatch.setattr(merger, "fit", lambda *_: pytest.fail("it was measured again"))
    again, how_again = trainer.merged(base, experts, RECORDS, tmp_path)
    assert same(first, again) and how_again == how
    assert not (tmp_path / "choices.json").exists(), "the training made no choice"


def test_what_was_measured_and_chosen_is_not_measured_again(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []
    real = fit

    def counted(*given: Any) -> Any:
        measured.append(1)
        if len(measured) == 2:
            raise Killed
        return real(*given)

    trainer = IntegrationTrainer(**SWEPT)
    whole = trainer.train(base, RECORDS, teachers=experts)
    monkeypatch.setattr(merger, "fit", counted)
    with suppress(Killed):
        trainer.train(base, RECORDS, teachers=experts, directory=tmp_path)
    for _ in range(2):
        resumed = trainer.train(base, RECORDS, teachers=experts, directory=tmp_path)
    assert len(measured) == 1 + 1 + 2, "one, a kill, and the two that were left"
    assert same(whole, resumed)


def test_a_weight_to_be_chosen_needs_a_merge(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    with pytest.raises(ConfigurationError, match="initialization='base'"):
        IntegrationTrainer(merge=MergeSettings(weight=[0.5, 1.0]), initialization="base")
    with pytest.raises(CapabilityError, match="own base"):
        IntegrationTrainer(**SWEPT, initialization="merge").train(
            base,
            RECORDS,
            teachers={"aviation": ScriptedModel("x")},
        )


def test_targets_to_compare_by_are_not_read_for_the_merge() -> None:
    records = [
        TrainingRecord(
            example=Example(query=f"What is {n}?", domains=("law",)),
            responses=(Response(domain="law", text=f"It is {n}."),),
            integration=Integration(text=f"It is {n}.", method="given"),
        )
        for n in range(200)
    ]
    found = material_of(["law"], records, MergeSettings())
    assert len(found.read["law"]) == 64 and len(found.compared["law"]) == 16
    read = {conversation[-1].content for conversation in found.read["law"]}
    assert read.isdisjoint(conversation[-1].content for conversation in found.compared["law"])
    few = material_of(["law"], records[:3], MergeSettings())
    assert (len(few.read["law"]), len(few.compared["law"])) == (2, 1)
    assert not material_of(["law"], records, MergeSettings("sum", weight=1.0)).compared
