"""Learning from distributions: what is kept is what the teachers find probable, whoever teaches;
and what is learned is that.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from domainfusion.description import describe
from domainfusion.distillation import IntegrationTrainer, MultiTaskTrainer
from domainfusion.errors import CapabilityError, ConfigurationError, TrainingError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.base import TrainableModel
from domainfusion.models.projection import head_of
from domainfusion.progress import Advance
from domainfusion.training import losses
from domainfusion.training import reading as teacher_signals
from domainfusion.training.batching import collate, encode_record
from domainfusion.training.distribution import DistributionObjective
from domainfusion.training.losses import answer_hidden_states
from domainfusion.training.objectives import Answers, Losses
from domainfusion.types import Sampling, TrainingRecord, user
from training.lessons import (
    QUICK,
    SHOWN,
    Killed,
    begun,
    cross_domain,
    dying_after,
    log_distributions,
    same,
    some_records,
)


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def experts(base: LlamaModel, make_adapter: Callable[..., Path]) -> dict[str, LlamaModel]:
    return {
        domain: LlamaModel(make_adapter(domain, seed), dtype="float32")
        for seed, domain in enumerate(("aviation", "chemistry"), 1)
    }


def losses_of(
    objective: DistributionObjective, student: TrainableModel, records: Sequence[TrainingRecord]
) -> Losses:
    rows = tuple(encode_record(own, student) for own in records)
    module = student.trainable_module()
    hidden, targets = answer_hidden_states(module, collate(rows, 0))
    return objective.losses(
        Answers(hidden, head_of(module), targets, torch.ones(len(targets)), rows)
    )


@pytest.fixture
def student(base: LlamaModel) -> TrainableModel:
    return base.trainable_copy(None)


# What is learned from


def test_the_loss_from_what_is_kept_is_the_loss_from_the_teachers_themselves(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    records = some_records(base)
    objective = DistributionObjective(temperature=1.5, alpha=1.0)
    begun(objective, base, experts, records, tmp_path)
    found = losses_of(objective, student, records).terms["forward_kl"]
    expected = []
    for own in records:
        row = encode_record(own, base)
        teacher = base if own.example.is_cross_domain else experts[own.example.primary_domain]
        log_p = log_distributions(
            teacher,
            SHOWN if own.example.is_cross_domain else own.example.conversation,
            row.answer,
            1.5,
        )
        log_q = log_distributions(base, own.example.conversation, row.answer, 1.5)
        expected.append((log_p.exp() * (log_p - log_q)).sum(-1))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-4)
    assert (found > 1e-3).all(), "the teachers differ from the student"


def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    base: LlamaModel, student: TrainableModel, tmp_path: Path
) -> None:
    records = some_records(base)[:3]
    objective = DistributionObjective(alpha=1.0, divergence="reverse_kl")
    begun(objective, base, {"aviation": base, "chemistry": base}, records, tmp_path)
    found = losses_of(objective, student, records)
    assert found.terms["reverse_kl"].abs().max() < 1e-5


def test_the_share_of_the_divergence_is_alpha(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    records = some_records(base)
    objective = DistributionObjective(alpha=0.25, temperature=2.0)
    begun(objective, base, experts, records, tmp_path)
    found = losses_of(objective, student, records)
    expected = (
        0.75 * found.terms["cross_entropy"].sum() + 0.25 * 4.0 * found.terms["forward_kl"].sum()
    )
    torch.testing.assert_close(found.total.detach(), expected)


def test_a_teacher_that_gives_text_alone_teaches_word_for_word_in_the_same_training(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    records = some_records(base)
    objective = DistributionObjective(alpha=1.0)
    found = begun(
        objective,
        base,
        {**experts, "chemistry": ScriptedModel("Au.", name="remote")},
        records,
        tmp_path,
    )
    assert found["word_for_word"] == {"remote gives text alone": 2}
    assert found["taught"] == {"aviation": 1, base.name: 1}
    terms = losses_of(objective, student, records).terms
    lengths = [len(encode_record(own, base).answer) for own in records]
    for kl, ce, own in zip(
        terms["forward_kl"].split(lengths),
        terms["cross_entropy"].split(lengths),
        records,
        strict=True,
    ):
        by_text = own.example.domains == ("chemistry",)
        assert kl.isnan().all() == by_text
        assert ce.isnan().all() != by_text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda own: replace(own, integration=replace(own.integration, messages=(), model="")),
            "no model integrated it",
        ),
        (
            lambda own: replace(own, integration=replace(own.integration, method="merge")),
            "its integrator's answer was not taken",
        ),
        (
            lambda own: replace(own, integration=replace(own.integration, model="another")),
            "the model that integrated it is not here",
        ),
    ],
)
def test_a_cross_domain_record_without_its_integrator_is_trained_with_cross_entropy(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    tmp_path: Path,
    change: Callable[[TrainingRecord], TrainingRecord],
    reason: str,
) -> None:
    records = some_records(base)
    found = begun(
        DistributionObjective(), base, experts, [*records[:3], change(records[3])], tmp_path
    )
    assert found["word_for_word"] == {reason: 1}


def test_the_integrator_teaches_what_it_integrated_though_it_is_not_an_expert(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    make_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    integrator = LlamaModel(make_adapter("integrator", 7), dtype="float32")
    found = begun(
        DistributionObjective(),
        base,
        experts,
        [cross_domain(integrator)],
        tmp_path,
        integrator=integrator,
    )
    assert found["taught"] == {"integrator": 1}


def test_teachers_with_weights_of_their_own_are_in_memory_one_at_a_time(
    base: LlamaModel,
    make_llama: Callable[..., Path],
    make_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    loaded: list[set[str]] = []

    class Watched(LlamaModel):
        def hidden_states(self, rows: Any, **how: Any) -> list[torch.Tensor]:
            loaded.append({domain for domain, model in teachers.items() if model._base is not None})
            return super().hidden_states(rows, **how)

    teachers = {
        domain: Watched(make_llama(domain, seed), dtype="float32")
        for seed, domain in enumerate(("aviation", "chemistry"), 1)
    }
    integrator = Watched(make_adapter("integrator", 7), dtype="float32")
    base.ask("Where is NRT?", sampling=Sampling(max_new_tokens=1))
    begun(
        DistributionObjective(),
        base,
        teachers,
        [*some_records(base)[:3], cross_domain(integrator)],
        tmp_path,
        integrator=integrator,
    )
    assert loaded == [{"aviation"}, {"chemistry"}, set()]
    assert all(model._base is None for model in teachers.values())
    assert integrator._base is base._base is not None, (
        "an adapter on the student's base takes no memory to speak of"
    )


# What can't be


def test_a_teacher_with_other_tokens_is_refused_with_the_difference(
    base: LlamaModel, make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_llama("other")
    settings = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = settings["model"]["vocab"]
    first, second = list(vocabulary)[100:102]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(
        CapabilityError, match=r"ids that stand for different tokens(.|\n)*objective='sequence'"
    ):
        begun(
            DistributionObjective(),
            base,
            {"aviation": LlamaModel(folder)},
            some_records(base)[:1],
            tmp_path,
        )


def test_a_teacher_whose_vocabulary_is_padded_further_is_learned_from(
    base: LlamaModel, student: TrainableModel, make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    padded = LlamaModel(
        make_llama("padded", 3, vocab_size=base.vocabulary_size + 64), dtype="float32"
    )
    own = some_records(base)[0]
    objective = DistributionObjective(alpha=1.0, divergence="jensen_shannon")
    begun(objective, base, {"aviation": padded}, [own], tmp_path)
    found = losses_of(objective, student, [own]).terms["jensen_shannon"]
    assert ((found > 0) & (found < math.log(2))).all()


def test_where_no_teacher_scores_tokens_there_is_nothing_to_learn_from(
    base: LlamaModel, tmp_path: Path
) -> None:
    with pytest.raises(CapabilityError, match=r"remote gives text alone': 1.*objective='sequence'"):
        begun(
            DistributionObjective(),
            base,
            {"aviation": ScriptedModel("x", name="remote")},
            some_records(base)[:1],
            tmp_path,
        )


def test_a_prompt_that_does_not_fit_its_teacher_is_counted_and_named(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    long = cross_domain(base, user("one two " * 600))
    with pytest.raises(
        TrainingError,
        match=f"1 record is longer than the context of the teacher .*first {long.example.id}",
    ):
        begun(DistributionObjective(), base, experts, [long, *some_records(base)[:3]], tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"divergence": "kl"}, "divergence is not known"),
        ({"beta": 0.5}, "forward_kl has no beta"),
        ({"divergence": "skew_kl", "beta": 1.0}, "beta is out of range"),
        ({"temperature": 0.0}, "temperature is out of range"),
        ({"alpha": 0.0}, "alpha is out of range"),
        ({"alpha": 1.1}, "alpha is out of range"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DistributionObjective(**settings)


def test_every_setting_that_decides_what_is_learned_is_described() -> None:
    plain = describe(DistributionObjective())
    changed: list[dict[str, Any]] = [
        {"divergence": "skew_kl"},
        {"temperature": 2.0},
        {"alpha": 0.7},
    ]
    assert all(describe(DistributionObjective(**settings)) != plain for settings in changed)
    assert describe(DistributionObjective(keep_in="elsewhere")) == plain, (
        "where signals are kept decides nothing"
    )


# What is kept


def test_bytes_per_token_are_told(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    records = some_records(base)
    found = begun(DistributionObjective(), base, experts, records, tmp_path)["signals"]
    tokens = sum(len(encode_record(own, base).answer) for own in records)
    assert found["tokens"] == tokens
    assert found["bytes_per_token"] == pytest.approx(found["bytes"] / tokens, abs=0.1)
    assert found["bytes"] == 4 * 64 * tokens
    on_disk = sum(file.stat().st_size for file in tmp_path.rglob("shard-*"))
    assert found["bytes"] < on_disk < found["bytes"] + 4096


def counting(counts: Counter[str]) -> Callable[..., Any]:
    @contextmanager
    def progress(shown: str, total: int, done: int = 0) -> Iterator[Advance]:
        def advance(number: int) -> None:
            counts[shown] += number

        yield advance

    return progress


@pytest.mark.parametrize("read", [0, 1, 2, 3])
def test_a_reading_that_was_killed_reads_the_rest_and_nothing_twice(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    student: TrainableModel,
    tmp_path: Path,
    read: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(teacher_signals, "SHARD_BYTES", 1)
    monkeypatch.setattr(experts["chemistry"], "batch_size", 1)
    records = some_records(base)
    whole, resumed = DistributionObjective(), DistributionObjective()
    begun(whole, base, experts, records, tmp_path / "whole")
    with pytest.raises(Killed):
        begun(
            DistributionObjective(),
            base,
            experts,
            records,
            tmp_path / "killed",
            progress=dying_after(read),
        )
    kept = sum(len(json.loads(_metadata(file))) for file in (tmp_path / "killed").rglob("shard-*"))
    assert kept == read
    counts: Counter[str] = Counter()
    begun(resumed, base, experts, records, tmp_path / "killed", progress=counting(counts))
    assert counts.total() == len(records) - kept
    assert torch.equal(
        losses_of(whole, student, records).total, losses_of(resumed, student, records).total
    )
    again: Counter[str] = Counter()
    begun(
        DistributionObjective(),
        base,
        experts,
        records,
        tmp_path / "killed",
        progress=counting(again),
    )
    assert again.total() == 0


def _metadata(file: Path) -> str:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return str(opened.metadata()["rows"])


def test_another_target_another_teacher_or_another_prompt_is_read_anew(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    own = some_records(base)[0]
    others: list[tuple[TrainingRecord, dict[str, LlamaModel]]] = [
        (own, experts),
        (replace(own, integration=replace(own.integration, text="China.")), experts),
        (own, {"aviation": experts["chemistry"]}),
        (replace(own, example=replace(own.example, query="Where is NRT really?")), experts),
    ]
    for number, (changed, teachers) in enumerate(others, start=1):
        begun(
            DistributionObjective(keep_in=tmp_path / "kept"),
            base,
            teachers,
            [changed],
            tmp_path / "own",
        )
        assert len(list((tmp_path / "kept").glob("shard-*"))) == number
    assert not (tmp_path / "own").exists()


# Training


@pytest.mark.parametrize("settings", [{}, {"divergence": "jensen_shannon"}], ids=str)
def test_the_student_comes_nearer_to_its_teachers(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path, settings: dict[str, Any]
) -> None:
    objective = DistributionObjective(alpha=1.0, **settings)
    pace = {"epochs": 15, "batch_size": 4, "learning_rate": 1e-2}
    trainer = MultiTaskTrainer(**{**QUICK, **pace}, objective=objective, initialization="base")
    before = [expert.fingerprint for expert in experts.values()]
    trainer.train(base, some_records(base), teachers=experts, directory=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["objective"] == "distribution"
    steps = [line["terms"][objective.divergence] for line in lines if "terms" in line]
    assert steps[-1] < 0.5 * steps[0]
    assert set(lines[1]["domains"]) == {"aviation", "chemistry", "cross-domain"}
    assert [expert.fingerprint for expert in experts.values()] == before
    assert not (tmp_path / "objective").exists(), "signals go with the training"


@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize(("label", "count"), [("reading", 2), ("training", 3)])
def test_a_training_that_is_killed_and_called_again_ends_as_one_that_was_not(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    tmp_path: Path,
    adaptation: Any,
    label: str,
    count: int,
) -> None:
    trainer = IntegrationTrainer(
        **{**QUICK, "adaptation": adaptation}, objective="distribution", replay=0.5
    )
    whole = trainer.train(base, some_records(base), teachers=experts, seed=5)
    with pytest.raises(Killed):
        trainer.train(
            base,
            some_records(base),
            teachers=experts,
            directory=tmp_path,
            seed=5,
            progress=dying_after(count, label),
        )
    assert same(
        whole, trainer.train(base, some_records(base), teachers=experts, directory=tmp_path, seed=5)
    )


def test_a_finished_training_asks_nobody_again(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    trainer = IntegrationTrainer(**QUICK, objective="distribution")
    first = trainer.train(base, some_records(base), teachers=experts, directory=tmp_path)
    assert same(
        first,
        trainer.train(
            base, some_records(base), teachers=experts, directory=tmp_path, progress=dying_after(0)
        ),
    )


def test_the_loss_from_teachers_is_the_same_in_chunks(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    student: TrainableModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = some_records(base)
    objective = DistributionObjective()
    begun(objective, base, experts, records, tmp_path)
    whole = losses_of(objective, student, records)
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 3 * base.vocabulary_size)
    torch.testing.assert_close(losses_of(objective, student, records).total, whole.total)
