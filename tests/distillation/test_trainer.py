"""Trainers: no record is lost between phases, the student learns what it is shown, and a killed
training ends as an unkilled one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distillation.builders import record
from domainfusion.description import describe
from domainfusion.distillation.trainer import (
    IntegrationTrainer,
    MultiTaskTrainer,
    Phase,
    SequentialTrainer,
    Trainer,
)
from domainfusion.distillation.trainer.merging import Choices, MergeSettings, material_of
from domainfusion.distillation.trainer.training import JsonLog, divergence_from
from domainfusion.errors import (
    CapabilityError,
    ConfigurationError,
    DataError,
    RunError,
    TrainingError,
)
from domainfusion.merging import fit, merger
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.base import Adaptation, LanguageModel, TrainableModel
from domainfusion.progress import Advance
from domainfusion.training.batching import encode_record, interleaved_order
from domainfusion.training.objectives import SequenceObjective
from domainfusion.types import (
    Example,
    Integration,
    Message,
    Response,
    Sampling,
    TrainingRecord,
    user,
)

FACTS = {
    "Where is NRT?": ("Japan.", ("aviation",)),
    "Where is CDG?": ("France.", ("aviation",)),
    "The symbol of gold?": ("Au.", ("chemistry",)),
    "The symbol of iron?": ("Fe.", ("chemistry",)),
    "Where is NRT, and the symbol of gold?": ("Japan. Au.", ("aviation", "chemistry")),
}
RECORDS = [record(query, target, domains) for query, (target, domains) in FACTS.items()]
QUICK: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 2, "batch_size": 2, "checkpoint_steps": 2}

combinations = st.lists(
    st.lists(
        st.sampled_from(["aviation", "chemistry", "geography"]), min_size=1, max_size=3, unique=True
    ),
    min_size=1,
    max_size=30,
)


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def experts(tiny_llama: Path, make_adapter: Callable[..., Path]) -> dict[str, LlamaModel]:
    return {
        domain: LlamaModel(make_adapter(domain, seed), dtype="float32")
        for seed, domain in enumerate(("aviation", "chemistry"))
    }


@pytest.fixture(autouse=True)
def without_the_students_of_other_tests(base: LlamaModel) -> Iterator[None]:
    """Takes what a test trained off the base that all share: PEFT looks through every adapter at
    every turn.
    """
    yield
    shared = base._load()
    for name in [
        name
        for name in (shared.peft.peft_config if shared.peft else {})
        if name.startswith("student_")
    ]:
        shared.remove_adapter(name)


def records_of(domain_lists: Sequence[Sequence[str]]) -> list[TrainingRecord]:
    return [
        record(f"Question {number}?", "Yes.", domains)
        for number, domains in enumerate(domain_lists)
    ]


def ids(records: Sequence[TrainingRecord]) -> list[str]:
    return [own.example.id for own in records]


def same(first: TrainableModel, second: TrainableModel) -> bool:
    one, other = first.trained_state(), second.trained_state()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Phases


@given(domain_lists=combinations, replay=st.floats(0, 1))
def test_the_integration_trainer_shows_every_record_and_replays_its_share(
    domain_lists: list[list[str]], replay: float
) -> None:
    records = records_of(domain_lists)
    phases = {phase.name: phase for phase in IntegrationTrainer(replay=replay).phases(records)}
    single = [own for own in records if not own.example.is_cross_domain]
    cross = [own for own in records if own.example.is_cross_domain]
    assert list(phases) == ["domains"] * bool(single) + ["integration"] * bool(cross)
    if single:
        assert ids(phases["domains"].records) == ids(single)
    if cross:
        shown = ids(phases["integration"].shown(random.Random(0)))
        assert shown[: len(cross)] == ids(cross)
        replayed = shown[len(cross) :]
        assert len(replayed) == len(set(replayed)) == round(replay * len(single))
        assert set(replayed) <= set(ids(single))


def test_adversarial_records_are_shown_in_the_integration_phase() -> None:
    plain, other = records_of([["aviation"], ["aviation"]])
    adversarial = replace(
        other,
        example=replace(other.example, apparent_domain="chemistry", id="looks like chemistry"),
    )
    domains, integration = IntegrationTrainer(replay=0).phases([plain, adversarial])
    assert ids(domains.records) == ids([plain])
    assert ids(integration.shown(random.Random(0))) == ["looks like chemistry"]


@given(domain_lists=combinations, batch_size=st.integers(2, 6))
def test_the_multi_task_trainer_shows_every_record_once_an_epoch(
    domain_lists: list[list[str]], batch_size: int
) -> None:
    records = records_of(domain_lists)
    (phase,) = MultiTaskTrainer().phases(records)
    assert phase.shares is not None
    groups = [phase.group_of(own) for own in phase.records]
    assert groups == [own.example.primary_domain for own in records]
    assert sorted(interleaved_order(groups, phase.shares, random.Random(0))) == list(
        range(len(records))
    )


def test_the_multi_task_trainer_mixes_domains_in_each_batch() -> None:
    (phase,) = MultiTaskTrainer().phases(records_of([["aviation"]] * 32 + [["chemistry"]] * 32))
    assert phase.shares is not None
    groups = [phase.group_of(own) for own in phase.records]
    order = interleaved_order(groups, phase.shares, random.Random(0))
    for start in range(0, 64, 8):
        assert set(Counter(groups[index] for index in order[start : start + 8]).values()) == {4}


def test_shares_of_the_multi_task_trainer_are_those_given() -> None:
    (phase,) = MultiTaskTrainer(shares={"aviation": 3, "chemistry": 1}).phases(RECORDS)
    assert phase.shares == {"aviation": 3, "chemistry": 1}


@given(domain_lists=combinations, replay=st.floats(0, 1))
def test_the_sequential_trainer_shows_every_record_first_in_the_phase_of_its_last_domain(
    domain_lists: list[list[str]], replay: float
) -> None:
    records, order = records_of(domain_lists), ("geography", "aviation", "chemistry")
    phases = SequentialTrainer(order=order, replay=replay).phases(records)
    assert [phase.name for phase in phases] == [
        name for name in order if any(max(own, key=order.index) == name for own in domain_lists)
    ]  # fmt: skip
    seen: set[str] = set()
    for phase in phases:
        assert all(max(own.example.domains, key=order.index) == phase.name for own in phase.records)
        replayed = ids(phase.shown(random.Random(0)))[len(phase.records) :]
        assert len(replayed) == len(set(replayed)) == round(replay * len(seen))
        assert set(replayed) <= seen
        seen |= set(ids(phase.records))
    assert seen == set(ids(records))


def test_what_is_replayed_is_drawn_with_the_seed_of_the_run(
    base: LlamaModel, tmp_path: Path
) -> None:
    records = records_of([["aviation"]] * 12 + [["aviation", "chemistry"]] * 2)
    _, integration = IntegrationTrainer(replay=0.5).phases(records)
    draws = [ids(integration.shown(random.Random(seed))) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_the_sequential_trainer_follows_the_records_where_no_order_is_given() -> None:
    phases = SequentialTrainer().phases(
        records_of([["chemistry"], ["aviation"], ["chemistry", "geography"]])
    )
    assert [phase.name for phase in phases] == ["chemistry", "aviation", "geography"]


def test_an_order_that_leaves_a_domain_out_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="leaves out chemistry"):
        SequentialTrainer(order=("aviation",)).phases(RECORDS)


# Arguments


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in (
                "epochs",
                "batch_size",
                "evaluation_steps",
                "lora_rank",
                "checkpoint_steps",
            )
            for value in (0, 1.5)
        ],
        ("epochs", True),
        ("device_batch_size", 0),
        ("device_batch_size", 5),
        ("device_batch_size", 32),
        *[("learning_rate", value) for value in (0, -1e-3, 1, float("nan"))],
        ("adaptation", "lorra"),
        ("initialization", "merged"),
        ("objective", "sequences"),
        ("replay", 1.1),
        ("replay", -0.1),
        ("known_share", 1.1),
        ("known_share", float("nan")),
        *[("merge_weight", value) for value in ("best", [], [0.5, "1"], float("nan"), True)],
    ],
)
def test_an_argument_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        IntegrationTrainer(**{name: value})


@pytest.mark.parametrize(
    "shares",
    [{}, {"aviation": 0.0}, {"aviation": -1.0, "chemistry": 2.0}, {"aviation": float("nan")}],
)
def test_shares_that_are_no_mixture_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="shares do not make a mixture"):
        MultiTaskTrainer(shares=shares)


@pytest.mark.parametrize(("name", "value"), [("replay", 1.5), ("replay", -1.0)])
def test_a_protection_out_of_range_is_refused(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=name):
        SequentialTrainer(**options)


@pytest.mark.parametrize("order", [(), "aviation", ("aviation", "aviation")])
def test_an_order_that_is_none_is_refused(order: Any) -> None:
    with pytest.raises(ConfigurationError, match="exactly once"):
        SequentialTrainer(order=order)


def test_a_word_that_is_no_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="learnign_rate"):
        IntegrationTrainer(learnign_rate=1e-3)


def test_the_usual_rate_of_full_training_is_low_for_lora_and_used_as_given(
    base: LlamaModel,
) -> None:
    with pytest.warns(
        UserWarning,
        match=(
            "learning_rate=2e-05 is low for LoRA, which usually takes 1e-4 to 1e-3; it is used as"
            " given"
        ),
    ):
        IntegrationTrainer(learning_rate=2e-5, adaptation="lora").adapt(base, {})


@pytest.mark.parametrize(("rate", "adaptation"), [(1e-4, "lora"), (2e-5, "full"), (2e-5, "auto")])
def test_other_rates_earn_no_warning(
    base: LlamaModel, rate: float, adaptation: Any, recwarn: pytest.WarningsRecorder
) -> None:
    IntegrationTrainer(learning_rate=rate, adaptation=adaptation).adapt(base, {})
    assert not [warning for warning in recwarn if "learning_rate" in str(warning.message)]


def test_auto_is_the_objective_that_a_benchmark_has_shown_to_win() -> None:
    assert describe(IntegrationTrainer(objective="auto")) == describe(IntegrationTrainer())


def test_the_objective_is_among_what_a_training_is_known_by() -> None:
    class Own(SequenceObjective):
        pass

    assert describe(IntegrationTrainer(objective=Own())) != describe(IntegrationTrainer())


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
        learning_rate=1e-3, adaptation="lora", merge_method="sum", merge_weight=0.5
    )
    student, adaptation = trainer.adapt(base, experts)
    assert adaptation is not None
    assert adaptation.start_from == tuple(experts.values())
    assert adaptation.merge_weight == 0.5
    assert student.fingerprint != base.fingerprint


KEPT: dict[str, Any] = {**QUICK, "adaptation": "lora", "keep_merge": True, "lora_rank": 3}


def test_a_merge_that_is_kept_stays_to_the_bit_while_what_is_added_learns(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    trainer = IntegrationTrainer(**KEPT)
    torch.manual_seed(0)
    start, _ = trainer.adapt(base, experts)
    before = start.trained_state()
    after = trainer.train(base, RECORDS, teachers=experts).trained_state()
    merged, _ = IntegrationTrainer(**{**KEPT, "keep_merge": False}).adapt(base, experts)
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
    for keep_merge in (True, False):
        trainer = IntegrationTrainer(**{**KEPT, "keep_merge": keep_merge}, merge_method=method)
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
    trainer = IntegrationTrainer(**KEPT, merge_method="regmean", merge_weight=0.7)
    alone, _ = trainer.merged(base, experts, told, tmp_path / "nothing is kept here")
    read: list[str] = []
    real = merger.read_layers

    def counted(*given: Any) -> None:
        read.append(given[-1])
        real(*given)

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
        IntegrationTrainer(keep_merge=True, **settings)


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
def test_the_name_of_a_domain_is_no_path(name: str, base: LlamaModel, tmp_path: Path) -> None:
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
    "merge_method": "sum",
    "merge_weight": [0.2, 0.9, 0.5],
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
    settings = trainer._merge_settings
    compared = material_of(experts, RECORDS, settings).compared
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
        IntegrationTrainer(merge_weight=[0.5, 1.0], initialization="base")
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
    found = material_of(["law"], records, MergeSettings("auto", None))
    assert len(found.read["law"]) == 64 and len(found.compared["law"]) == 16
    read = {conversation[-1].content for conversation in found.read["law"]}
    assert read.isdisjoint(conversation[-1].content for conversation in found.compared["law"])
    few = material_of(["law"], records[:3], MergeSettings("auto", None))
    assert (len(few.read["law"]), len(few.compared["law"])) == (2, 1)
    assert not material_of(["law"], records, MergeSettings("sum", (1.0,))).compared


# Learning


@pytest.mark.parametrize(
    "settings",
    [{"adaptation": "full"}, {"adaptation": "lora", "learning_rate": 2e-2}],
    ids=["full", "lora"],
)
@pytest.mark.parametrize(
    "kind",
    [partial(IntegrationTrainer, replay=1.0), MultiTaskTrainer],
    ids=["integration", "multi-task"],
)
def test_a_handful_of_records_is_learnt_word_for_word(
    base: LlamaModel, kind: Any, settings: dict[str, Any]
) -> None:
    before = base.fingerprint
    trainer = kind(**{"learning_rate": 5e-3, "epochs": 40, "batch_size": 5, **settings})
    student = trainer.train(base, RECORDS)
    answers = student.generate([user(query) for query in FACTS], Sampling(max_new_tokens=12))
    assert [(answer.text, answer.finish_reason) for answer in answers] == [
        (target, "stop") for target, _ in FACTS.values()
    ]
    assert base.fingerprint == before


def test_the_student_and_its_experts_stay_as_they_are(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    asked, sampling = [user("Where is NRT?")], Sampling(max_new_tokens=8)
    models = [base, *experts.values()]
    before = [model.generate(asked, sampling) for model in models]
    student = IntegrationTrainer(**QUICK, adaptation="lora").train(base, RECORDS, teachers=experts)
    assert [model.generate(asked, sampling) for model in models] == before
    assert student.fingerprint not in {model.fingerprint for model in models}


def test_rejected_records_and_empty_targets_are_never_trained_on(base: LlamaModel) -> None:
    trainer = MultiTaskTrainer(**QUICK)
    others = [
        record("Where is LHR?", "China.", verification="rejected", reason="wrong"),
        record("Where is FCO?", " "),
    ]
    assert same(trainer.train(base, RECORDS), trainer.train(base, [others[0], *RECORDS, others[1]]))


def test_nothing_usable_is_an_error_that_says_why(base: LlamaModel) -> None:
    rejected = [
        record(f"{number}?", "No.", verification="rejected", reason="the expert refused")
        for number in range(3)
    ]
    with pytest.raises(
        TrainingError, match=r"none of 3 records is usable; received \{'the expert refused': 3\}"
    ):
        MultiTaskTrainer().train(base, rejected)
    with pytest.raises(TrainingError, match="none of 0 records"):
        MultiTaskTrainer().train(base, [])


def test_a_record_beyond_the_context_is_refused(base: LlamaModel) -> None:
    with pytest.raises(TrainingError, match="longer than the context of the student"):
        MultiTaskTrainer(**QUICK).train(base, [*RECORDS, record("Count.", "one two " * 600)])


def test_the_seed_decides_the_outcome(base: LlamaModel) -> None:
    trainer = IntegrationTrainer(**QUICK, adaptation="lora")
    first = trainer.train(base, RECORDS, seed=1)
    torch.rand(3)
    assert same(first, trainer.train(base, RECORDS, seed=1))
    assert not same(first, trainer.train(base, RECORDS, seed=2))


def test_it_does_not_matter_whether_the_student_was_loaded_before(
    tiny_llama: Path, tmp_path: Path
) -> None:
    class DrawingAsItLoads(LlamaModel):
        """Draws random numbers when it is loaded, as a model from a GGUF file does, which is built
        anew.
        """

        def _load(self) -> Any:
            if self._base is None:
                torch.rand(7)
            return super()._load()

    students = [
        DrawingAsItLoads(shutil.copytree(tiny_llama, tmp_path / name), dtype="float32")
        for name in ("fresh", "loaded")
    ]
    students[1].ask("Where is NRT?", sampling=Sampling(max_new_tokens=1))
    trainer = IntegrationTrainer(**QUICK, adaptation="lora")
    first, second = (trainer.train(student, RECORDS) for student in students)
    assert same(first, second)


def test_an_epoch_is_a_pass_over_the_records_of_a_phase(base: LlamaModel, tmp_path: Path) -> None:
    IntegrationTrainer(**{**QUICK, "epochs": 3}, replay=0.5).train(
        base, RECORDS, directory=tmp_path
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert Counter(line["phase"] for line in lines if "loss" in line) == {
        "domains": 3 * 4 / 2,
        "integration": -(-3 * 3 // 2),
    }


def test_a_trainer_without_records_in_a_phase_is_an_error(base: LlamaModel) -> None:
    class Empty(Trainer):
        def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
            return [Phase(name="nothing", records=())]

    class None_(Trainer):
        def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
            return []

    with pytest.raises(TrainingError, match="nothing is empty"):
        Empty().train(base, RECORDS)
    with pytest.raises(TrainingError, match="list is empty"):
        None_().train(base, RECORDS)


def keeping(
    scores: Iterator[float], kept: list[dict[str, torch.Tensor]]
) -> Callable[[LanguageModel], dict[str, float]]:
    """Validates with these scores, and keeps the state that each was given to."""

    def validate(student: LanguageModel) -> dict[str, float]:
        assert isinstance(student, LlamaModel)
        kept.append({name: each.clone() for name, each in student.trained_state().items()})
        return {"a": next(scores, 0.0)}

    return validate


def is_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_only_the_last_phase_goes_back_to_its_best_state(base: LlamaModel, tmp_path: Path) -> None:
    states: list[dict[str, torch.Tensor]] = []
    trainer = IntegrationTrainer(**{**QUICK, "evaluation_steps": 2, "epochs": 2}, replay=1.0)
    student = trainer.train(
        base, RECORDS, directory=tmp_path, validate=keeping(iter([0.9, 0.1, 0.8, 0.2]), states)
    )
    first, last = tmp_path / "phase-1-domains", tmp_path / "phase-2-integration"
    steps = [
        (line["phase"], line["step"])
        for line in log_of(tmp_path)
        if "validation" in line and "step" in line
    ]
    assert [phase for phase, _ in steps] == 2 * ["domains"] + 3 * ["integration"]
    assert is_same(_load(first / "finished.safetensors"), states[1])
    assert is_same(_load(last / "finished.safetensors"), states[2])
    assert is_same(student.trained_state(), states[2])


def test_a_phase_that_is_done_keeps_its_outcome_alone(base: LlamaModel, tmp_path: Path) -> None:
    """What a process left that was killed before it removed the rest goes when it is resumed."""
    trainer = IntegrationTrainer(**{**QUICK, "checkpoint_steps": 1})

    def train() -> set[str]:
        trainer.train(base, RECORDS, directory=tmp_path, validate=lambda _: {"a": 0.5})
        return {path.name for path in (tmp_path / "phase-1-domains").iterdir()}

    assert train() == {"finished.safetensors", "checksums.json"}
    folder = tmp_path / "phase-1-domains"
    (folder / "best.json").write_text("{}")
    (folder / "best.safetensors").write_bytes(b"")
    (folder / "checkpoint-1").mkdir()
    assert train() == {"finished.safetensors", "checksums.json"}


def _load(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def log_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def test_every_phase_ends_with_the_score_of_every_domain_and_the_way_from_the_base(
    base: LlamaModel, tmp_path: Path
) -> None:
    scores = iter([{"aviation": 0.1, "chemistry": 0.2}, {"aviation": 0.3, "chemistry": 0.4}])
    trainer = SequentialTrainer(**QUICK, order=("aviation", "chemistry"), evaluation_steps=100)
    trainer.train(base, RECORDS, validate=lambda _: next(scores), directory=tmp_path)
    ends = [line for line in log_of(tmp_path) if line.get("finished")]
    assert [(line["phase"], line["validation"]["aviation"]) for line in ends] == [
        ("aviation", 0.1),
        ("chemistry", 0.3),
    ]
    assert all(
        set(line["divergence_from_base"]) == {"aviation", "chemistry", "cross-domain"}
        for line in ends
    )
    assert all(value > 0 for line in ends for value in line["divergence_from_base"].values())


def test_the_way_from_the_base_is_the_divergence_of_the_distributions(base: LlamaModel) -> None:
    student = MultiTaskTrainer(**QUICK).train(base, RECORDS)
    assert isinstance(student, LlamaModel)
    row = encode_record(RECORDS[0], base)
    logits = [
        model.project(model.hidden_states([row.tokens])[0][row.prompt_length - 1 : -1]).double()
        for model in (base, student)
    ]
    log_p, log_q = (found.log_softmax(-1) for found in logits)
    expected = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    assert divergence_from(base, student, {"a": [row]})["a"] == pytest.approx(expected, rel=1e-4)
    assert divergence_from(base, base, {"a": [row]})["a"] == pytest.approx(0, abs=1e-6)


def test_a_phase_that_ends_early_goes_back_to_its_best_state(
    base: LlamaModel, tmp_path: Path
) -> None:
    states: list[dict[str, torch.Tensor]] = []
    trainer = IntegrationTrainer(
        **{**QUICK, "epochs": 6, "evaluation_steps": 2}, early_stopping_patience=2
    )
    validate = keeping(iter([0.9, 0.1, 0.2, 0.8]), states)
    trainer.train(base, RECORDS, directory=tmp_path, validate=validate)
    assert is_same(_load(tmp_path / "phase-1-domains" / "finished.safetensors"), states[0])
    assert (
        max(
            line["step"]
            for line in log_of(tmp_path)
            if line["phase"] == "domains" and "step" in line
        )
        == 6
    )
    assert next(line for line in log_of(tmp_path) if line.get("finished"))["validation"] == {
        "a": 0.9
    }


def test_a_phase_validates_once_an_epoch_and_ends_after_three_without_a_better_score(
    base: LlamaModel, tmp_path: Path
) -> None:
    trainer = MultiTaskTrainer(**{**QUICK, "epochs": 8})
    trainer.train(base, RECORDS, directory=tmp_path, validate=lambda _: {"a": 0.5})
    validated = [
        line["step"] for line in log_of(tmp_path) if "validation" in line and "step" in line
    ]
    epoch = -(-len(RECORDS) // QUICK["batch_size"])
    assert validated == [epoch, 2 * epoch, 3 * epoch, 4 * epoch]


def test_stopping_early_needs_a_validation(base: LlamaModel) -> None:
    with pytest.raises(ConfigurationError, match="when to stop early"):
        IntegrationTrainer(**QUICK, early_stopping_patience=1).train(base, RECORDS)


# Going on


class Killed(BaseException):
    """What stops a process at any instant."""


def dying_after(steps: int) -> Callable[..., Any]:
    """A display of progress that kills the training after `steps` steps, over all phases."""
    left = steps

    @contextmanager
    def progress(label: str, total: int, done: int = 0) -> Iterator[Advance]:
        def advance(count: int) -> None:
            nonlocal left
            left -= count
            if left < 0:
                raise Killed

        yield advance

    return progress


CURRICULA: dict[str, Callable[..., Trainer]] = {
    "integration": IntegrationTrainer,
    "multi-task": partial(MultiTaskTrainer, shares={"aviation": 2, "chemistry": 1}),
    "sequential": partial(SequentialTrainer, replay=0.5),
}


@pytest.mark.parametrize(
    ("curriculum", "adaptation", "steps"),
    [
        *[
            ("integration", adaptation, steps)
            for adaptation in ("full", "lora")
            for steps in (0, 2, 4, 5)
        ],
        *[("multi-task", "lora", steps) for steps in (1, 3)],
        *[("sequential", "lora", steps) for steps in (1, 3, 5)],
    ],
)
def test_a_training_that_is_killed_and_called_again_ends_as_one_that_was_not(
    base: LlamaModel, tmp_path: Path, curriculum: str, adaptation: Any, steps: int
) -> None:
    trainer = CURRICULA[curriculum](**QUICK, adaptation=adaptation)
    whole = trainer.train(base, RECORDS, seed=5)
    with pytest.raises(Killed):
        trainer.train(base, RECORDS, directory=tmp_path, seed=5, progress=dying_after(steps))
    assert same(whole, trainer.train(base, RECORDS, directory=tmp_path, seed=5))


def test_what_a_killed_process_had_begun_to_write_is_removed(
    base: LlamaModel, tmp_path: Path
) -> None:
    trainer = IntegrationTrainer(**QUICK)
    with pytest.raises(Killed):
        trainer.train(base, RECORDS, directory=tmp_path, progress=dying_after(2))
    [folder] = tmp_path.glob("phase-1-*")
    own, parent = (
        os.getpid(),
        os.getppid(),
    )  # an id may come again; another process that lives may be writing
    (folder / f".checkpoint-9.unfinished-{own}").mkdir()
    for left in (
        folder / f".best.json.unfinished-{own}",
        tmp_path / f".inputs.json.unfinished-{own}",
    ):
        left.touch()
    kept = [tmp_path / f".inputs.json.unfinished-{parent}", folder / ".notes"]
    for file in kept:
        file.touch()
    trainer.train(base, RECORDS, directory=tmp_path)
    assert sorted(tmp_path.rglob(".*")) == sorted(kept)


# What the start knows


@pytest.fixture(scope="module")
def learned(base: LlamaModel, tmp_path_factory: pytest.TempPathFactory) -> LlamaModel:
    """A base that knows what aviation asks, and nothing else."""
    trainer = MultiTaskTrainer(learning_rate=5e-3, epochs=40, batch_size=5)
    path = tmp_path_factory.mktemp("learned")
    trainer.train(base, RECORDS[:2]).save(path)
    return LlamaModel(path, dtype="float32")


def shown_in(directory: Path) -> dict[str, int]:
    """Returns the answer tokens of each domain that were trained on, over all phases."""
    tokens: Counter[str] = Counter()
    for line in log_of(directory):
        for domain, own in line.get("domains", {}).items():
            tokens[domain] += own["tokens"]
    return tokens


@pytest.mark.parametrize(
    "kind",
    [
        partial(IntegrationTrainer, replay=0.0),
        MultiTaskTrainer,
        partial(MultiTaskTrainer, shares={"aviation": 1, "chemistry": 1}),
        partial(SequentialTrainer, order=("aviation", "chemistry"), replay=0.0),
    ],
    ids=["integration", "multi-task", "multi-task with shares", "sequential"],
)
def test_what_the_start_knows_is_skipped_and_counted(
    learned: LlamaModel, tmp_path: Path, kind: Any
) -> None:
    single = RECORDS[:4]
    kind(**QUICK, known_share=0.0).train(learned, single, directory=tmp_path)
    assert next(line for line in log_of(tmp_path) if "known" in line)["known"] == {
        "aviation": {"records": 2, "known": 2, "skipped": 2},
        "chemistry": {"records": 2, "known": 0, "skipped": 0},
    }
    chemistry = sum(len(encode_record(own, learned).answer) for own in single[2:])
    assert shown_in(tmp_path) == {"chemistry": QUICK["epochs"] * chemistry}


def test_a_share_of_what_is_known_is_shown(learned: LlamaModel, tmp_path: Path) -> None:
    MultiTaskTrainer(**QUICK, known_share=0.5).train(learned, RECORDS[:4], directory=tmp_path)
    known = next(line for line in log_of(tmp_path) if "known" in line)["known"]
    assert known["aviation"] == {"records": 2, "known": 2, "skipped": 1}
    assert set(shown_in(tmp_path)) == {"aviation", "chemistry"}


def test_a_slice_that_is_known_in_part_is_learned_whole(
    learned: LlamaModel, tmp_path: Path
) -> None:
    records = [*RECORDS[:2], record("Where is LHR?", "United Kingdom."), *RECORDS[2:4]]
    MultiTaskTrainer(**QUICK, known_share=0.0).train(learned, records, directory=tmp_path)
    known = next(line for line in log_of(tmp_path) if "known" in line)["known"]
    assert known["aviation"]["skipped"] == 0
    aviation = sum(len(encode_record(own, learned).answer) for own in records[:3])
    assert shown_in(tmp_path)["aviation"] == QUICK["epochs"] * aviation


def test_what_is_known_is_replayed_all_the_same(learned: LlamaModel, tmp_path: Path) -> None:
    records = [*RECORDS[:2], RECORDS[4]]  # the phase of single domains has nothing to teach
    IntegrationTrainer(**QUICK, replay=1.0, known_share=0.0).train(
        learned, records, directory=tmp_path
    )
    assert {line["phase"] for line in log_of(tmp_path) if "phase" in line} == {"integration"}
    assert set(shown_in(tmp_path)) == {"aviation", "cross-domain"}


def test_a_start_that_knows_everything_is_returned_as_it_is(
    learned: LlamaModel, tmp_path: Path
) -> None:
    trainer = IntegrationTrainer(**QUICK, known_share=0.0)
    student = trainer.train(learned, RECORDS[:2], directory=tmp_path)
    assert same(student, learned.trainable_copy(None))
    assert not list(tmp_path.glob("phase-*"))
    again = trainer.train(learned, RECORDS[:2], directory=tmp_path, progress=dying_after(0))
    assert same(again, student)


def test_every_record_is_shown_where_the_start_is_not_asked(
    learned: LlamaModel, tmp_path: Path
) -> None:
    MultiTaskTrainer(**QUICK).train(learned, RECORDS[:4], directory=tmp_path)
    assert not any("known" in line for line in log_of(tmp_path))
    assert set(shown_in(tmp_path)) == {"aviation", "chemistry"}


def test_a_training_that_continues_another_skips_nothing(
    learned: LlamaModel, tmp_path: Path
) -> None:
    trainer = MultiTaskTrainer(**QUICK, known_share=0.0)
    start = trainer.train(learned, RECORDS[2:4])
    trainer.train(learned, RECORDS[:4], start=start, directory=tmp_path)
    assert set(shown_in(tmp_path)) == {"aviation", "chemistry"}


@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("steps", [0, 1, 3, 5])
def test_a_killed_training_skips_what_an_undisturbed_one_does(
    learned: LlamaModel, tmp_path: Path, curriculum: str, steps: int
) -> None:
    trainer = CURRICULA[curriculum](**QUICK, known_share=0.5)
    whole = trainer.train(learned, RECORDS, seed=5)
    with pytest.raises(Killed):
        trainer.train(learned, RECORDS, directory=tmp_path, seed=5, progress=dying_after(steps))
    assert same(whole, trainer.train(learned, RECORDS, directory=tmp_path, seed=5))


@given(domain_lists=combinations, data=st.data())
def test_a_phase_without_some_records_keeps_the_others_and_what_it_replays(
    domain_lists: list[list[str]], data: st.DataObject
) -> None:
    records = records_of(domain_lists)
    skipped = set(ids(data.draw(st.lists(st.sampled_from(records)))))
    trainers = (IntegrationTrainer(), MultiTaskTrainer(), SequentialTrainer())
    for phase in (phase for trainer in trainers for phase in trainer.phases(records)):
        left = phase.without(skipped)
        kept = [own for own in ids(phase.records) if own not in skipped]
        if left is None:
            assert not kept
            continue
        assert ids(left.records) == kept
        assert left.earlier == phase.earlier
        if left.shares is not None:
            groups = [left.group_of(own) for own in left.records]
            assert sorted(interleaved_order(groups, left.shares, random.Random(0))) == list(
                range(len(kept))
            )


# Resuming


def test_a_finished_training_is_not_done_again(base: LlamaModel, tmp_path: Path) -> None:
    trainer = IntegrationTrainer(**QUICK)
    first = trainer.train(base, RECORDS, directory=tmp_path)
    assert same(first, trainer.train(base, RECORDS, directory=tmp_path, progress=dying_after(0)))
    assert not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.parametrize(
    ("what", "settings", "records", "seed"),
    [
        ("trainer", {"epochs": 3}, RECORDS, 0),
        ("records", {}, RECORDS[1:], 0),
        ("seed", {}, RECORDS, 1),
    ],
)
def test_a_directory_of_another_training_is_refused(
    base: LlamaModel,
    tmp_path: Path,
    what: str,
    settings: dict[str, Any],
    records: list[TrainingRecord],
    seed: int,
) -> None:
    with pytest.raises(Killed):
        IntegrationTrainer(**QUICK).train(
            base, RECORDS, directory=tmp_path, progress=dying_after(0)
        )
    with pytest.raises(RunError, match=rf"other inputs \({what}: .*was .*, is "):
        IntegrationTrainer(**{**QUICK, **settings}).train(
            base, records, directory=tmp_path, seed=seed
        )


def test_a_line_that_a_crash_left_unfinished_is_dropped_from_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    JsonLog(path)({"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_what_a_resumed_training_repeats_is_logged_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for seconds in (1.0, 2.0):
        log = JsonLog(path)
        log({"start": "base"})
        log({"step": 1, "loss": 0.5, "seconds": seconds})
    log({"step": 1, "loss": 0.25, "seconds": seconds})
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("loss") for line in found] == [None, 0.5, 0.25]


@pytest.mark.parametrize("damage", [b"\xff{}\n", b'{"st\n', b"[1]\n"])
def test_a_damaged_line_of_the_log_is_lost_alone(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage + b'{"step": 2}\n')
    JsonLog(path)({"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_phase_with_a_damaged_outcome_is_trained_again_to_the_same_weights(
    base: LlamaModel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    number: int,
    damage: str,
) -> None:
    trainer = SequentialTrainer(**QUICK)
    trainer.train(base, RECORDS, directory=tmp_path)
    outcomes = {path: path.read_bytes() for path in sorted(tmp_path.glob("phase-*/finished.*"))}
    whole = outcomes[damaged := list(outcomes)[number - 1]]
    flipped = bytearray(whole)
    flipped[-9] ^= 4
    damaged.write_bytes({"flipped": bytes(flipped), "cut": whole[:-5], "empty": b""}[damage])
    trainer.train(base, RECORDS, directory=tmp_path)
    assert {path: path.read_bytes() for path in outcomes} == outcomes
    assert f"{damaged} is damaged" in caplog.text


def test_what_a_training_chose_is_not_read_where_it_was_damaged(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    Choices(path).make("weight", ["1", "2"], lambda option: 0.5, lambda measured: 1)
    assert Choices(path).made("weight") == 1
    path.write_text(path.read_text().replace('"value": 1', '"value": 2'))
    with pytest.raises(DataError, match=r"damaged, or was changed .*choices\.json"):
        Choices(path)


# Going on from what an earlier training reached


@pytest.mark.filterwarnings("ignore:learning_rate=1e-09 is low for LoRA")
@pytest.mark.parametrize("settings", [{"adaptation": "full"}, {"adaptation": "lora"}])
def test_a_training_goes_on_from_its_start_and_leaves_it_as_it_is(
    base: LlamaModel, experts: dict[str, LlamaModel], settings: dict[str, Any]
) -> None:
    first = MultiTaskTrainer(**QUICK, **settings).train(base, RECORDS[:3], teachers=experts)
    before = first.trained_state()
    standing = MultiTaskTrainer(**{**QUICK, "learning_rate": 1e-9, "epochs": 1}, **settings)
    second = standing.train(base, RECORDS[3:], start=first, teachers=experts)
    moved = second.trained_state()
    assert second is not first
    assert all(torch.allclose(moved[name], tensor, atol=1e-6) for name, tensor in before.items())
    afresh = standing.train(base, RECORDS[3:], teachers=experts).trained_state()
    assert not all(
        torch.allclose(moved[name], tensor, atol=1e-6) for name, tensor in afresh.items()
    )
    learning = MultiTaskTrainer(**QUICK, **settings).train(
        base, RECORDS[3:], start=first, teachers=experts
    )
    assert not all(
        torch.equal(learning.trained_state()[name], tensor) for name, tensor in before.items()
    )
    assert all(torch.equal(first.trained_state()[name], tensor) for name, tensor in before.items())


def test_a_training_from_another_start_is_another_one(base: LlamaModel, tmp_path: Path) -> None:
    trainer = MultiTaskTrainer(**QUICK)
    first, other = (trainer.train(base, records) for records in (RECORDS[:2], RECORDS[2:4]))
    trained = trainer.train(base, RECORDS, start=first, directory=tmp_path)
    assert (
        trainer.train(base, RECORDS, start=first, directory=tmp_path).fingerprint
        == trained.fingerprint
    )
    for start in (other, None):
        with pytest.raises(RunError, match=r"other inputs .*start"):
            trainer.train(base, RECORDS, start=start, directory=tmp_path)


def test_the_weight_of_a_merge_is_not_chosen_anew_for_a_start_that_has_one(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    trainer = MultiTaskTrainer(
        **QUICK, adaptation="lora", merge_method="sum", merge_weight=[0.3, 1.0]
    )
    first = trainer.train(
        base,
        RECORDS[:3],
        teachers=experts,
        validate=lambda _: {"all": 0.5},
        directory=tmp_path / "first",
    )
    assert (tmp_path / "first" / "choices.json").is_file()
    trainer.train(
        base,
        RECORDS,
        start=first,
        teachers=experts,
        validate=lambda _: {"all": 0.5},
        directory=tmp_path / "second",
    )
    assert not (tmp_path / "second" / "choices.json").exists()


def test_a_tracker_receives_every_figure_of_the_log_on_one_axis_of_steps(
    base: LlamaModel, tmp_path: Path
) -> None:
    trainer = IntegrationTrainer(**QUICK, report_to="tensorboard")
    trainer.train(base, RECORDS, directory=tmp_path, validate=lambda _: {"a": 0.5})
    logged = [line for line in log_of(tmp_path) if "loss" in line]
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents.*")).parent))
    events.Reload()
    scalars = events.Scalars("loss")
    assert [event.step for event in scalars] == list(range(1, len(logged) + 1)), (
        "the second phase goes on where the first ended"
    )
    assert [event.value for event in scalars] == pytest.approx([line["loss"] for line in logged])
    assert {"learning_rate", "terms/cross_entropy", "validation/a"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("tensorbord", "report_to is not known"), ("clearml", "'clearml' is not installed")],
)
def test_a_tracker_that_is_unknown_or_missing_is_refused_at_once(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MultiTaskTrainer(report_to=["tensorboard", name])
