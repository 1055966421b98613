"""A training that is killed, resumed or continued."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from domainfusion.distillation.trainer import (
    IntegrationTrainer,
    MergeSettings,
    MultiTaskTrainer,
    SequentialTrainer,
)
from domainfusion.distillation.trainer.merging import Choices
from domainfusion.distillation.trainer.training import JsonLog
from domainfusion.errors import (
    DataError,
    RunError,
)
from domainfusion.models import LlamaModel
from domainfusion.types import (
    TrainingRecord,
)

from .trainings import (
    CURRICULA,
    QUICK,
    RECORDS,
    Killed,
    dying_after,
    same,
    without_the_students_of_other_tests,  # noqa: F401
)


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
def test_a_training_continues_from_its_start_and_leaves_it_as_it_is(
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
        **QUICK, adaptation="lora", merge=MergeSettings("sum", weight=[0.3, 1.0])
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
