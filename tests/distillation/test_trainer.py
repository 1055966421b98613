"""Trainers: no record is lost between phases, the student learns what it is shown, and a killed
training ends as an unkilled one.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distillation.builders import record
from domainfusion.description import describe
from domainfusion.distillation.trainer import (
    ExecutionSettings,
    IntegrationTrainer,
    MergeSettings,
    MultiTaskTrainer,
    Phase,
    SequentialTrainer,
    Trainer,
)
from domainfusion.errors import (
    ConfigurationError,
    TrainingError,
)
from domainfusion.models import LlamaModel
from domainfusion.models.base import LanguageModel
from domainfusion.training.batching import encode_record
from domainfusion.training.losses import divergence_from
from domainfusion.training.mixtures import interleaved_order
from domainfusion.training.objectives import SequenceObjective
from domainfusion.types import (
    Sampling,
    TrainingRecord,
    user,
)

from .trainings import (
    CURRICULA,
    FACTS,
    QUICK,
    RECORDS,
    Killed,
    dying_after,
    same,
    without_the_students_of_other_tests,  # noqa: F401
)

combinations = st.lists(
    st.lists(
        st.sampled_from(["aviation", "chemistry", "geography"]), min_size=1, max_size=3, unique=True
    ),
    min_size=1,
    max_size=30,
)


def records_of(domain_lists: Sequence[Sequence[str]]) -> list[TrainingRecord]:
    return [
        record(f"Question {number}?", "Yes.", domains)
        for number, domains in enumerate(domain_lists)
    ]


def ids(records: Sequence[TrainingRecord]) -> list[str]:
    return [own.example.id for own in records]


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
            )
            for value in (0, 1.5)
        ],
        ("epochs", True),
        *[("learning_rate", value) for value in (0, -1e-3, 1, float("nan"))],
        ("adaptation", "lorra"),
        ("initialization", "merged"),
        ("objective", "sequences"),
        ("replay", 1.1),
        ("replay", -0.1),
        ("frozen_share", 1.0),
        ("frozen_share", -0.1),
        ("known_share", 1.1),
        ("known_share", float("nan")),
    ],
)
def test_an_argument_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        IntegrationTrainer(**{name: value})


@pytest.mark.parametrize("weight", ["best", [], [0.5, "1"], float("nan"), True])
def test_a_weight_of_a_merge_is_a_number_a_list_or_auto(weight: Any) -> None:
    with pytest.raises(ConfigurationError, match="merge_weight is not a number"):
        MergeSettings(weight=weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge": "tsv"}, r"merge is not known; received 'tsv'; allowed: MergeSettings"),
        ({"merge": None}, r"merge is not known; .*MergeSettings"),
        ({"execution": 4}, r"execution is not known; received 4; allowed: ExecutionSettings"),
    ],
)
def test_settings_of_another_kind_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        IntegrationTrainer(**settings)


def test_one_weight_in_a_list_leaves_nothing_to_choose() -> None:
    assert MergeSettings("sum", weight=[0.5]) == MergeSettings("sum", weight=0.5)
    assert not MergeSettings("sum", weight=[0.5]).is_open
    assert MergeSettings("sum", weight=[0.5, 1]).weights == (0.5, 1.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"checkpoint_steps": 0},
        {"checkpoint_steps": 1.5},
        {"device_batch_size": 0},
        {"activation_checkpointing": "no"},
        {"report_to": 3},
    ],
)
def test_how_a_training_is_run_is_checked_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        ExecutionSettings(**settings)


@pytest.mark.parametrize("rows", [5, 32])
def test_what_a_device_holds_at_once_divides_the_batch(rows: int) -> None:
    with pytest.raises(ConfigurationError, match="does not divide batch_size"):
        IntegrationTrainer(execution=ExecutionSettings(device_batch_size=rows))


def test_trackers_decide_nothing_that_a_resumed_training_is_compared_by() -> None:
    told = IntegrationTrainer(execution=ExecutionSettings(report_to="tensorboard"))
    assert describe(told) == describe(IntegrationTrainer())


@pytest.mark.parametrize(
    "shares",
    [{}, {"aviation": 0.0}, {"aviation": -1.0, "chemistry": 2.0}, {"aviation": float("nan")}],
)
def test_shares_that_are_not_a_mixture_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="shares do not make a mixture"):
        MultiTaskTrainer(shares=shares)


@pytest.mark.parametrize(("name", "value"), [("replay", 1.5), ("replay", -1.0)])
def test_a_protection_out_of_range_is_refused(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=name):
        SequentialTrainer(**options)


@pytest.mark.parametrize("order", [(), "aviation", ("aviation", "aviation")])
def test_an_order_that_is_invalid_is_refused(order: Any) -> None:
    with pytest.raises(ConfigurationError, match="exactly once"):
        SequentialTrainer(order=order)


def test_a_word_that_is_not_an_argument_is_refused() -> None:
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
def test_a_handful_of_records_is_trained_with_cross_entropy(
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
    trainer = IntegrationTrainer(**{**QUICK, "execution": ExecutionSettings(checkpoint_steps=1)})

    def train() -> set[str]:
        trainer.train(base, RECORDS, directory=tmp_path, validate=lambda _: {"a": 0.5})
        return {path.name for path in (tmp_path / "phase-1-domains").iterdir()}

    assert train() == {"finished.safetensors", "checksums.json"}
    folder = tmp_path / "phase-1-domains"
    (folder / "best.json").write_text("{}")
    (folder / "best.safetensors").write_bytes(b"")
    (folder / "checkpoint-1").mkdir()
    assert train() == {"finished.safetensors", "checksums.json"}


def test_a_log_that_is_lost_is_warned_of(
    base: LlamaModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for expected in (False, True):
        IntegrationTrainer(**QUICK).train(base, RECORDS, directory=tmp_path)
        assert ("log.jsonl is missing" in caplog.text) is expected
        (tmp_path / "log.jsonl").unlink(missing_ok=True)


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


def test_what_is_known_is_replayed_anyway(learned: LlamaModel, tmp_path: Path) -> None:
    records = [*RECORDS[:2], RECORDS[4]]  # the phase of single domains has nothing to teach
    IntegrationTrainer(**QUICK, replay=1.0, known_share=0.0).train(
        learned, records, directory=tmp_path
    )
    assert {line["phase"] for line in log_of(tmp_path) if "phase" in line} == {"integration"}
    assert set(shown_in(tmp_path)) == {"aviation", "cross-domain"}


def test_what_skipping_leaves_of_a_phase_joins_the_next_one_where_it_fills_no_step(
    learned: LlamaModel, tmp_path: Path
) -> None:
    lesson = RECORDS[2]  # of chemistry, which the start does not know
    records = [*RECORDS[:2], lesson, RECORDS[4]]
    settings = {**QUICK, "batch_size": 2}
    IntegrationTrainer(**settings, replay=1.0, known_share=0.0).train(
        learned, records, directory=tmp_path
    )
    assert {line["phase"] for line in log_of(tmp_path) if "phase" in line} == {"integration"}
    tokens = len(encode_record(lesson, learned).answer)
    assert shown_in(tmp_path)["chemistry"] == QUICK["epochs"] * tokens


def test_a_phase_that_was_small_from_the_beginning_stands_alone(
    learned: LlamaModel, tmp_path: Path
) -> None:
    IntegrationTrainer(**{**QUICK, "batch_size": 8}).train(
        learned, [RECORDS[2], RECORDS[4]], directory=tmp_path
    )
    phases = [line["phase"] for line in log_of(tmp_path) if "step" in line]
    assert list(dict.fromkeys(phases)) == ["domains", "integration"]


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


def test_a_tracker_receives_every_figure_of_the_log_on_one_axis_of_steps(
    base: LlamaModel, tmp_path: Path
) -> None:
    trainer = IntegrationTrainer(
        **{**QUICK, "execution": ExecutionSettings(report_to="tensorboard")}
    )
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
        ExecutionSettings(report_to=["tensorboard", name])
