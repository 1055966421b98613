"""Learning on-policy: the student's own words, its prompt's teacher, no cold start, and a killed
training that ends as an unkilled one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from domainfusion.description import describe
from domainfusion.distillation import IntegrationTrainer, MultiTaskTrainer
from domainfusion.errors import ConfigurationError, TrainingError
from domainfusion.models import Adaptation, LlamaModel, ScriptedModel
from domainfusion.models.base import TrainableModel
from domainfusion.models.projection import head_of
from domainfusion.training.batching import Row, collate, encode_record
from domainfusion.training.losses import answer_hidden_states
from domainfusion.training.objectives import Answers
from domainfusion.training.on_policy import OnPolicyObjective
from training.lessons import (
    QUICK,
    SHOWN,
    Killed,
    begun,
    dying_after,
    log_distributions,
    same,
    some_records,
)

NEAR_TIE = 0.2
"""How far a logit may be off where the machine computes products in bfloat16: 8 bits of figures up
to 32.
"""

ANY: dict[str, Any] = {"max_new_tokens": 6, "max_initial_kl": None}


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def experts(base: LlamaModel, make_adapter: Callable[..., Path]) -> dict[str, LlamaModel]:
    return {
        domain: LlamaModel(make_adapter(domain, seed), dtype="float32")
        for seed, domain in enumerate(("aviation", "chemistry"), 1)
    }


@pytest.fixture(params=["lora", "full"])
def student(base: LlamaModel, request: pytest.FixtureRequest) -> TrainableModel:
    torch.manual_seed(0)
    return base.trainable_copy(Adaptation(rank=4) if request.param == "lora" else None)


def rows_of(base: LlamaModel) -> list[Row]:
    return [encode_record(own, base) for own in some_records(base)]


def losses_of(objective: OnPolicyObjective, student: TrainableModel, rows: list[Row]) -> Any:
    hidden, targets = answer_hidden_states(student.trainable_module(), collate(rows, 0))
    weights = torch.ones(len(targets))
    return objective.losses(
        Answers(hidden, head_of(student.trainable_module()), targets, weights, tuple(rows))
    )


# What is learned from


def test_the_loss_is_the_divergence_from_the_prompt_s_teacher_at_what_the_student_wrote(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    records = some_records(base)
    objective = OnPolicyObjective(**ANY)
    begun(objective, base, experts, records, tmp_path)
    written = list(objective.rows(rows_of(base), 0, student))
    found = losses_of(objective, student, written).terms["reverse_kl"]
    expected = []
    for own, row in zip(records, written, strict=True):
        assert 1 <= len(row.answer) <= 6
        teacher = base if own.example.is_cross_domain else experts[own.example.primary_domain]
        log_p = log_distributions(
            teacher, SHOWN if own.example.is_cross_domain else own.example.conversation, row.answer
        )
        log_q = log_distributions(
            base, own.example.conversation, row.answer
        )  # an adapter that is new changes nothing
        expected.append((log_q.exp() * (log_q - log_p)).sum(-1))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-4)


def test_what_the_student_writes_is_its_own_greedy_answer_at_temperature_0(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    objective = OnPolicyObjective(**ANY, sampling_temperature=0)
    begun(objective, base, experts, some_records(base), tmp_path)
    for row in objective.rows(rows_of(base), 0, student):
        logits = student.project(student.hidden_states([row.tokens])[0][row.prompt_length - 1 : -1])  # type: ignore[attr-defined]
        chosen = logits.gather(-1, torch.tensor(row.answer)[:, None])[:, 0]
        assert (logits.max(-1).values - chosen).max() < NEAR_TIE


def test_draws_follow_from_step_and_row_alone(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    objective = OnPolicyObjective(**ANY)
    begun(objective, base, experts, some_records(base), tmp_path)
    rows = rows_of(base)
    first = list(objective.rows(rows, 3, student))
    torch.rand(5)
    assert list(objective.rows(rows, 3, student)) == first
    for part in (rows[:2], rows[2:], rows[::-1]):
        assert list(objective.rows(part, 3, student)) == [first[rows.index(row)] for row in part]
    assert list(objective.rows(rows, 4, student)) != first


def test_a_row_that_comes_twice_in_a_step_is_written_twice(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    objective = OnPolicyObjective(**ANY)
    begun(objective, base, experts, some_records(base), tmp_path)
    first, second = objective.rows([rows_of(base)[0]] * 2, 0, student)
    assert first.prompt == second.prompt
    assert first != second


def test_rows_of_a_teacher_that_gives_text_alone_are_learnt_word_for_word(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    objective = OnPolicyObjective(**ANY)
    found = begun(
        objective,
        base,
        {**experts, "chemistry": ScriptedModel("Au.", name="remote")},
        some_records(base),
        tmp_path,
    )
    assert found["word_for_word"] == {"remote gives text alone": 2}
    rows = rows_of(base)
    written = list(objective.rows(rows, 0, student))
    assert written[1:3] == rows[1:3]
    terms = losses_of(objective, student, written).terms
    by_text = torch.cat([torch.full((len(row.answer),), row in rows) for row in written])
    assert terms["cross_entropy"].isnan().equal(~by_text)
    assert terms["reverse_kl"].isnan().equal(by_text)


def test_taking_turns_changes_nobody(
    base: LlamaModel, experts: dict[str, LlamaModel], student: TrainableModel, tmp_path: Path
) -> None:
    weights = {
        name: tensor.clone() for name, tensor in student.trainable_module().state_dict().items()
    }
    objective = OnPolicyObjective(**ANY)
    begun(objective, base, experts, some_records(base), tmp_path)
    trained = [
        name
        for name, parameter in student.trainable_module().named_parameters()
        if parameter.requires_grad
    ]
    objective.rows(rows_of(base), 0, student)
    state = student.trainable_module().state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    assert [
        name
        for name, parameter in student.trainable_module().named_parameters()
        if parameter.requires_grad
    ] == trained


# No cold start


def test_a_student_that_is_far_from_its_teachers_is_refused_with_the_figures(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    trainer = IntegrationTrainer(
        **QUICK, initialization="base", objective=OnPolicyObjective(max_new_tokens=6)
    )
    with pytest.raises(
        TrainingError,
        match=r"too far.*'aviation': .*'chemistry': .*max_initial_kl=0\.1.*initialization='merge'",
    ):
        trainer.train(base, some_records(base), teachers=experts, directory=tmp_path)
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_a_student_that_is_near_its_teachers_starts_and_the_log_says_how_near(
    base: LlamaModel, tmp_path: Path
) -> None:
    trainer = MultiTaskTrainer(
        **{**QUICK, "epochs": 1},
        initialization="base",
        objective=OnPolicyObjective(max_new_tokens=6),
    )
    trainer.train(
        base,
        some_records(base)[:3],
        teachers={"aviation": base, "chemistry": base},
        directory=tmp_path,
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["objective"] == "on_policy"
    assert abs(lines[1]["pilot"]["kl"]) < 0.01, (
        "it is its own teacher, but for the rounding of bfloat16"
    )
    assert lines[1]["pilot"]["prompts"] == 3


def test_the_pilot_measures_the_divergence_that_training_starts_from(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    objective = OnPolicyObjective(
        **{**ANY, "max_new_tokens": 40}, divergence="jensen_shannon", temperature=2.0
    )
    begun(objective, base, experts, some_records(base), tmp_path)
    student = base.trainable_copy(None)
    found = objective.begin_phase(student, rows_of(base))["pilot"]
    reverse = OnPolicyObjective(**{**ANY, "max_new_tokens": 40})
    begun(reverse, base, experts, some_records(base), tmp_path)
    figures = [
        losses_of(reverse, student, list(reverse.rows(rows_of(base), step, student))).terms[
            "reverse_kl"
        ]
        for step in range(4)
    ]
    assert found["kl"] == pytest.approx(float(torch.cat(figures).mean()), rel=0.5)
    assert objective.divergence == "jensen_shannon"


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0}, {"pilot_prompts": 0}, {"sampling_temperature": -1}, {"max_initial_kl": 0},
        {"divergence": "kl"},
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        OnPolicyObjective(**settings)


def test_every_setting_that_decides_what_is_learnt_is_described() -> None:
    plain = describe(OnPolicyObjective())
    changed: list[dict[str, Any]] = [
        {"divergence": "forward_kl"}, {"temperature": 2.0}, {"max_new_tokens": 5}, {"sampling_temperature": 0.5},
        {"max_initial_kl": None},
    ]  # fmt: skip
    assert all(describe(OnPolicyObjective(**settings)) != plain for settings in changed)


@pytest.mark.parametrize("length", [480, 600])
def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path, length: int
) -> None:
    with pytest.raises(TrainingError, match="longer than the context of"):
        begun(OnPolicyObjective(max_new_tokens=length), base, experts, some_records(base), tmp_path)


# Training


def test_the_student_comes_nearer_to_its_teachers(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path
) -> None:
    # Small random teachers say something else after every word: at temperature 0 the student comes
    # by few of them.
    pace = {"epochs": 50, "batch_size": 4, "adaptation": "full", "checkpoint_steps": 100}
    trainer = MultiTaskTrainer(
        **{**QUICK, **pace}, objective=OnPolicyObjective(**ANY, sampling_temperature=0)
    )
    before = [expert.fingerprint for expert in experts.values()]
    trainer.train(base, some_records(base), teachers=experts, directory=tmp_path)
    lines = [
        line
        for line in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
        if "step" in line
    ]
    figures = [line["terms"]["reverse_kl"] for line in lines]
    assert max(figures[-5:]) < min(figures[:5])
    assert set(lines[-1]["domains"]) == {"aviation", "chemistry", "cross-domain"}
    assert [expert.fingerprint for expert in experts.values()] == before


@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_training_that_is_killed_and_called_again_ends_as_one_that_was_not(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path, adaptation: Any, steps: int
) -> None:
    settings = {**QUICK, "adaptation": adaptation, "device_batch_size": 1}
    trainer = IntegrationTrainer(**settings, objective=OnPolicyObjective(**ANY), replay=0.5)
    whole = trainer.train(base, some_records(base), teachers=experts, seed=5)
    with pytest.raises(Killed):
        trainer.train(
            base,
            some_records(base),
            teachers=experts,
            directory=tmp_path,
            seed=5,
            progress=dying_after(steps, "training"),
        )
    assert same(
        whole, trainer.train(base, some_records(base), teachers=experts, directory=tmp_path, seed=5)
    )
