"""The loop: it learns, it can be killed at any instant and ends as if it had not been, and it says
what went wrong where.
"""

from __future__ import annotations

import errno
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from distillation.builders import record
from domainfusion import files
from domainfusion.errors import TrainingError
from domainfusion.models import Adaptation, LlamaModel
from domainfusion.models.base import TrainableModel
from domainfusion.progress import Advance
from domainfusion.training import checkpoints as states
from domainfusion.training import loop
from domainfusion.training.batching import Row, encode_record
from domainfusion.training.checkpoints import save_state, write_errors
from domainfusion.training.loop import LoopSettings, deal, train_phase
from domainfusion.training.losses import answer_hidden_states_of_tree
from domainfusion.training.objectives import Answers, Losses, Objective, SequenceObjective
from domainfusion.types import Sampling, user

State = dict[str, torch.Tensor]
SETTINGS = LoopSettings(
    learning_rate=1e-2, batch_size=4, device_batch_size=4, checkpoint_steps=2, evaluation_steps=2
)
ORDER = [index % 8 for index in range(24)]
"""Three epochs of eight rows: six steps."""


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def rows(base: LlamaModel) -> list[Row]:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    return [
        encode_record(record(f"Say {word}.", f"{word} " * (place % 3 + 1), id=word), base)
        for place, word in enumerate(words)
    ]


def student_of(base: LlamaModel, kind: str) -> TrainableModel:
    torch.manual_seed(0)
    return base.trainable_copy(
        None
        if kind == "full"
        else Adaptation(rank=4, alpha=8, dropout=0.1 if kind == "dropout" else 0.0)
    )


def trained(student: TrainableModel, rows: list[Row], directory: Path, **options: Any) -> State:
    settings = options.pop("settings", SETTINGS)
    train_phase(
        student,
        rows,
        options.pop("order", ORDER),
        name="test",
        settings=settings,
        directory=directory,
        **options,
    )
    return student.trained_state()


@pytest.fixture(scope="module")
def whole(
    base: LlamaModel, rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], State]:
    """Gives what a training that was left in peace ends with, for each kind of student."""

    @cache
    def state_of(kind: str) -> State:
        return trained(student_of(base, kind), rows, tmp_path_factory.mktemp("whole"))

    return state_of


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


class Killed(BaseException):
    """What stops a process at any instant."""


def dying_at(step: int) -> Callable[..., Any]:
    """A display of progress that kills the training when it has made `step` steps."""

    @contextmanager
    def progress(label: str, total: int, done: int = 0) -> Iterator[Advance]:
        steps = done

        def advance(count: int) -> None:
            nonlocal steps
            steps += count
            if steps == step:
                raise Killed

        yield advance

    return progress


def checkpoints(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.glob("checkpoint-*"))


# Learning


def test_the_loss_falls_and_every_step_is_logged_in_numbers(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    log: list[Mapping[str, Any]] = []
    trained(student_of(base, "full"), rows, tmp_path, log=log.append, order=ORDER * 3)
    assert [line["step"] for line in log] == list(range(1, 19))
    assert all(
        isinstance(line[name], float)
        for line in log
        for name in ("loss", "learning_rate", "seconds")
    )
    assert json.loads(json.dumps(log)) == log
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]


def test_nothing_is_printed(
    base: LlamaModel, rows: list[Row], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    student = student_of(base, "full")
    capfd.readouterr()
    trained(student, rows, tmp_path)
    assert capfd.readouterr().out == ""


def test_a_phase_of_one_step_learns(base: LlamaModel, rows: list[Row], tmp_path: Path) -> None:
    student = student_of(base, "full")
    before = student.trained_state()
    assert not same(before, trained(student, rows, tmp_path, order=[0, 1, 2, 3]))


def test_the_rate_warms_up_and_falls_to_nothing(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    log: list[Mapping[str, Any]] = []
    trained(
        student_of(base, "full"),
        rows,
        tmp_path,
        log=log.append,
        order=ORDER * 10,
        settings=replace(SETTINGS, checkpoint_steps=99),
    )
    rates = [line["learning_rate"] for line in log]
    assert max(rates) == rates[3] == pytest.approx(1e-2), "5 % of 60 steps"
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 1e-4


def test_what_is_not_trained_stays_as_it_is(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    asked, sampling = [user("Say one."), user("What is iron?")], Sampling(max_new_tokens=8)
    before = base.generate(asked, sampling)
    student = student_of(base, "adapter")
    trained(student, rows, tmp_path)
    assert student.generate(asked, sampling) != before
    assert base.generate(asked, sampling) == before


@pytest.mark.parametrize("size", [1, 2])
def test_the_rows_on_the_device_at_once_do_not_matter(
    base: LlamaModel, rows: list[Row], tmp_path: Path, size: int
) -> None:
    plain = replace(SETTINGS, learning_rate=1e-3)
    whole = trained(student_of(base, "full"), rows, tmp_path / "whole", settings=plain)
    parts = trained(
        student_of(base, "full"),
        rows,
        tmp_path / "parts",
        settings=replace(plain, device_batch_size=size),
    )
    moved = sum(
        (whole[name] - start).norm()
        for name, start in student_of(base, "full").trained_state().items()
    )
    apart = sum((whole[name] - parts[name]).norm() for name in whole)
    assert (
        apart < 0.05 * moved
    )  # not equal: the processor may round products to 8 bits, in another order


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_threads_with_rows_of_their_own_learn_what_one_learns(
    base: LlamaModel, rows: list[Row], tmp_path: Path, two_threads: None, size: int
) -> None:
    class Watched(SequenceObjective):
        allows_threads = True

        def losses(self, answers: Answers) -> Losses:
            seen.append((threading.current_thread().name, answers.rows))
            return super().losses(answers)

    class InOneThread(Watched):
        pass

    settings = replace(SETTINGS, learning_rate=1e-3, device_batch_size=size, batch_size=4)
    states, logs = [], []
    for objective in (Watched(), InOneThread()):
        seen: list[tuple[str, tuple[Row, ...]]] = []
        log: list[Mapping[str, Any]] = []
        states.append(
            trained(
                student_of(base, "adapter"),
                rows,
                tmp_path / type(objective).__name__,
                settings=settings,
                objective=objective,
                log=log.append,
            )
        )
        logs.append(log)
        names = {name for name, _ in seen}
        assert len(names) == (2 if type(objective) is Watched else 1)
        shown = [row.record_id for _, some in seen for row in some]
        assert sorted(shown) == sorted(rows[index].record_id for index in ORDER)
        assert max(len(some) for _, some in seen) <= size
    start = student_of(base, "adapter").trained_state()
    moved = sum((states[1][name] - start[name]).norm() for name in start)
    apart = sum((states[0][name] - states[1][name]).norm() for name in start)
    assert apart < 0.05 * moved  # sums are rounded in another order
    for first, second in zip(*logs, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-3)
        assert first["domains"].keys() == second["domains"].keys()
        for domain, figures in first["domains"].items():
            assert figures == pytest.approx(second["domains"][domain], rel=1e-3)


@pytest.mark.parametrize("kind", ["full", "dropout"])
def test_what_is_drawn_or_large_is_trained_in_one_thread(
    base: LlamaModel, rows: list[Row], tmp_path: Path, two_threads: None, kind: str
) -> None:
    class Watched(SequenceObjective):
        allows_threads = True

        def losses(self, answers: Answers) -> Losses:
            names.add(threading.current_thread().name)
            return super().losses(answers)

    names: set[str] = set()
    trained(student_of(base, kind), rows, tmp_path, objective=Watched(), order=ORDER[:4])
    assert names == {"MainThread"}


def test_threads_killed_and_continued_end_as_threads_that_were_not(
    base: LlamaModel, rows: list[Row], tmp_path: Path, two_threads: None
) -> None:
    whole = trained(student_of(base, "adapter"), rows, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(student_of(base, "adapter"), rows, tmp_path / "parts", progress=dying_at(3))
    assert same(trained(student_of(base, "adapter"), rows, tmp_path / "parts"), whole)


@pytest.mark.parametrize("kind", ["full", "adapter", "dropout"])
def test_rows_as_a_tree_teach_what_padded_rows_teach(
    base: LlamaModel, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With dropout they are padded either way: every row draws for itself."""
    read: list[int] = []

    def counted(module: PreTrainedModel, some: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        read.append(len(some))
        return answer_hidden_states_of_tree(module, some)

    monkeypatch.setattr(loop, "answer_hidden_states_of_tree", counted)
    settings = replace(SETTINGS, learning_rate=1e-3)
    by_tree = trained(student_of(base, kind), rows, tmp_path / "tree", settings=settings)
    assert sum(read) == (0 if kind == "dropout" else len(ORDER))
    monkeypatch.setattr(loop, "decodes_alike", lambda _: False)
    padded = trained(student_of(base, kind), rows, tmp_path / "padded", settings=settings)
    assert sum(read) == (0 if kind == "dropout" else len(ORDER))
    start = student_of(base, kind).trained_state()
    moved = sum((padded[name] - start[name]).norm() for name in start)
    apart = sum((padded[name] - by_tree[name]).norm() for name in start)
    assert apart < 0.05 * moved  # sums are rounded in another order


def test_rows_are_dealt_to_hands_of_about_as_many_tokens(rows: list[Row]) -> None:
    for count in range(1, 9):
        for hands in range(1, 5):
            dealt = deal(rows[:count], hands)
            assert len(dealt) == min(count, hands)
            assert sorted(row.record_id for hand in dealt for row in hand) == sorted(
                row.record_id for row in rows[:count]
            )
            sizes = [len(hand) for hand in dealt]
            assert max(sizes) - min(sizes) <= 1


def test_a_loss_that_is_not_a_number_is_named_by_a_thread_too(
    base: LlamaModel, rows: list[Row], tmp_path: Path, two_threads: None
) -> None:
    class Poisoned(SequenceObjective):
        allows_threads = True

        def losses(self, answers: Answers) -> Losses:
            found = super().losses(answers)
            broken = float("nan") if rows[6] in answers.rows else 1.0
            return Losses(found.total * broken, found.terms)

    with pytest.raises(TrainingError, match=r"The loss is nan at step 1, .*seven"):
        trained(student_of(base, "adapter"), rows, tmp_path, objective=Poisoned())


def test_computing_activations_again_changes_nothing_and_is_over_with_the_phase(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    kept = trained(student_of(base, "dropout"), rows, tmp_path / "kept")
    student = student_of(base, "dropout")
    again = trained(
        student, rows, tmp_path / "again", settings=replace(SETTINGS, activation_checkpointing=True)
    )
    assert same(kept, again)
    assert not student.trainable_module().is_activation_checkpointing


@pytest.mark.parametrize("size", [1, 2, 4])
def test_terms_and_domains_are_logged_apart_and_add_up(
    base: LlamaModel, rows: list[Row], tmp_path: Path, size: int
) -> None:
    log: list[Mapping[str, Any]] = []
    mixed = [
        replace(row, domain="even" if place % 2 == 0 else "odd") for place, row in enumerate(rows)
    ]
    settings = replace(SETTINGS, device_batch_size=size, learning_rate=1e-9)
    trained(student_of(base, "full"), mixed, tmp_path, log=log.append, settings=settings)
    for line in log:
        assert line["terms"] == {"cross_entropy": pytest.approx(line["loss"], rel=1e-4)}
        shares = [
            figures["tokens"] * figures["cross_entropy"] for figures in line["domains"].values()
        ]
        assert sum(shares) / sum(
            figures["tokens"] for figures in line["domains"].values()
        ) == pytest.approx(line["loss"], rel=1e-4)
    assert {name for line in log for name in line["domains"]} == {"even", "odd"}


def test_an_objective_of_one_s_own_needs_one_method(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    class Smoothed(Objective):
        def losses(self, answers: Answers) -> Losses:
            log_q = answers.head.logits(answers.hidden).log_softmax(-1)
            likelihood = log_q.gather(-1, answers.targets[:, None])[:, 0]
            return answers.weighted(
                cross_entropy=-0.9 * likelihood, smoothing=-0.1 * log_q.mean(-1)
            )

    log: list[Mapping[str, Any]] = []
    trained(
        student_of(base, "full"),
        rows,
        tmp_path,
        log=log.append,
        objective=Smoothed(),
        order=ORDER * 3,
    )
    assert set(log[0]["terms"]) == {"cross_entropy", "smoothing"}
    assert log[0]["loss"] == pytest.approx(sum(log[0]["terms"].values()), rel=1e-4)
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]


def test_an_incomplete_last_batch_is_trained_on(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    log: list[Mapping[str, Any]] = []
    trained(student_of(base, "full"), rows, tmp_path, order=[0, 1, 2, 3, 4], log=log.append)
    assert len(log) == 2


# Going on


@pytest.mark.parametrize("kind", ["full", "adapter", "dropout"])
@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_training_that_was_killed_and_continues_ends_as_one_that_was_not(
    base: LlamaModel,
    rows: list[Row],
    whole: Callable[[str], State],
    tmp_path: Path,
    kind: str,
    step: int,
) -> None:
    with pytest.raises(Killed):
        trained(student_of(base, kind), rows, tmp_path / "killed", progress=dying_at(step))
    assert checkpoints(tmp_path / "killed")[-1:] == (
        [f"checkpoint-{(step - 1) // 2 * 2}"] if step > 2 else []
    )
    log: list[Mapping[str, Any]] = []
    resumed = trained(student_of(base, kind), rows, tmp_path / "killed", log=log.append)
    assert [line["step"] for line in log] == list(range((step - 1) // 2 * 2 + 1, 7))
    assert same(whole(kind), resumed)


@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_training_that_is_asked_to_stop_finishes_its_step_and_keeps_it(
    base: LlamaModel, rows: list[Row], whole: Callable[[str], State], tmp_path: Path, step: int
) -> None:
    @contextmanager
    def interrupting(label: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        steps = iter(range(done + 1, total + 1))

        def advance(count: int) -> None:
            if next(steps) == step:
                signal.raise_signal(signal.SIGINT)

        yield advance

    with pytest.raises(KeyboardInterrupt):
        trained(student_of(base, "adapter"), rows, tmp_path / "stopped", progress=interrupting)
    assert checkpoints(tmp_path / "stopped")[-1] == f"checkpoint-{step}"
    assert same(whole("adapter"), trained(student_of(base, "adapter"), rows, tmp_path / "stopped"))


@pytest.mark.parametrize(
    ("module", "instant"), [(states, "save_file"), (states, "write_json"), (files, "flush_to_disk")]
)
def test_a_checkpoint_that_was_not_finished_is_not_a_checkpoint(
    base: LlamaModel,
    rows: list[Row],
    whole: Callable[[str], State],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    instant: str,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        original = getattr(module, instant)

        def once(*arguments: Any) -> None:
            if checkpoints(tmp_path / "killed"):
                raise Killed
            original(*arguments)

        patch.setattr(module, instant, once)
        trained(student_of(base, "full"), rows, tmp_path / "killed")
    assert checkpoints(tmp_path / "killed") == ["checkpoint-2"]
    assert same(whole("full"), trained(student_of(base, "full"), rows, tmp_path / "killed"))
    assert not list((tmp_path / "killed").glob(".*"))


@pytest.mark.parametrize("name", ["student.safetensors", "optimizer.pt", "checksums.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "lost", "emptied"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(
    base: LlamaModel,
    rows: list[Row],
    whole: Callable[[str], State],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: str,
) -> None:
    with pytest.raises(Killed):
        trained(student_of(base, "adapter"), rows, tmp_path, progress=dying_at(5))
    assert checkpoints(tmp_path) == ["checkpoint-2", "checkpoint-4"]
    file = tmp_path / "checkpoint-4" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damages: dict[str, Callable[[], object]] = {
        "flipped": lambda: file.write_bytes(content),
        "cut": lambda: file.write_bytes(content[: len(content) // 2]),
        "lost": file.unlink,
        "emptied": lambda: file.write_bytes(b""),
    }
    damages[damage]()
    log: list[Mapping[str, Any]] = []
    resumed = trained(student_of(base, "adapter"), rows, tmp_path, log=log.append)
    assert log[0]["step"] == 3 and "checkpoint-4 is damaged" in caplog.text
    assert same(whole("adapter"), resumed)


def test_a_finished_phase_keeps_its_last_checkpoint_and_is_not_trained_again(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    finished = trained(student_of(base, "full"), rows, tmp_path)
    assert checkpoints(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    assert not list(tmp_path.glob(".*"))
    log: list[Mapping[str, Any]] = []
    assert same(finished, trained(student_of(base, "full"), rows, tmp_path, log=log.append))
    assert log == []


# A full disk


@pytest.mark.parametrize("failing", ["weights", "optimizer"])
def test_a_full_disk_is_one_clear_error_and_loses_nothing(
    base: LlamaModel,
    rows: list[Row],
    whole: Callable[[str], State],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    if failing == "optimizer":
        full = RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed")  # type: ignore[assignment]
    writes = 0

    def write_once(*arguments: Any, **options: Any) -> None:
        nonlocal writes
        writes += 1
        if writes > 1:
            raise full

    target, name = (states, "save_file") if failing == "weights" else (torch, "save")
    original = getattr(target, name)
    with (
        monkeypatch.context() as patch,
        pytest.raises(
            TrainingError, match=r"not be written: .*(free disk space|space that is left)"
        ),
    ):

        def failing_once(*given: Any, **options: Any) -> Any:
            write_once()
            return original(*given, **options)

        patch.setattr(target, name, failing_once)
        trained(student_of(base, "full"), rows, tmp_path / "full")
    assert checkpoints(tmp_path / "full") == ["checkpoint-2"]
    assert same(whole("full"), trained(student_of(base, "full"), rows, tmp_path / "full"))


def test_a_state_is_written_whole_or_not_at_all(
    base: LlamaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = student_of(base, "adapter")
    save_state(student.trained_state(), tmp_path / "state.safetensors")
    before = load_file(tmp_path / "state.safetensors")

    def half_written(state: State, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("domainfusion.training.checkpoints.save_file", half_written)
    with pytest.raises(TrainingError, match="No space left"):
        save_state(student.trained_state(), tmp_path / "state.safetensors")
    assert same(before, load_file(tmp_path / "state.safetensors"))


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_full_memory_is_not_told_as_a_full_disk(full: RuntimeError, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught, write_errors(tmp_path):
        raise full
    assert caught.value is full


# What goes wrong


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_loss_that_is_not_a_number_names_the_records(
    base: LlamaModel, rows: list[Row], tmp_path: Path, size: int
) -> None:
    class Poisoned(SequenceObjective):
        def losses(self, answers: Answers) -> Losses:
            found = super().losses(answers)
            if rows[6] not in answers.rows:
                return found
            poisoned.extend(row.record_id for row in answers.rows)
            return Losses(found.total * float("nan"), found.terms)

    poisoned: list[str] = []
    with pytest.raises(TrainingError) as caught:
        trained(
            student_of(base, "full"),
            rows,
            tmp_path,
            objective=Poisoned(),
            settings=replace(SETTINGS, device_batch_size=size),
        )
    named = str(caught.value).split("with the records ")[1].split(". To fix it")[0].split(", ")
    assert named == poisoned
    assert len(named) == size
    assert "The loss is nan at step 1" in str(caught.value)


# Validation


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_validating_changes_nothing_that_is_learned(
    base: LlamaModel, rows: list[Row], whole: Callable[[str], State], tmp_path: Path, kind: str
) -> None:
    def ask(student: TrainableModel) -> dict[str, float]:
        asked.append(
            student.generate([user("Say one.")], Sampling(max_new_tokens=4, temperature=1.0))[
                0
            ].text
        )
        return {"a": 0.5}

    asked: list[str] = []
    watched = trained(student_of(base, kind), rows, tmp_path, validate=ask)
    assert len(asked) == 3
    assert same(whole(kind), watched)


def test_the_best_state_by_validation_is_kept(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    scores = iter([0.2, 0.9, 0.4])
    states: list[Any] = []
    log: list[dict[str, Any]] = []

    def validate(student: TrainableModel) -> dict[str, float]:
        states.append(student.trained_state())
        return {"a": next(scores), "b": 0.0}

    trained(student_of(base, "full"), rows, tmp_path, validate=validate, log=log.append)
    assert same(states[1], load_file(tmp_path / "best.safetensors"))
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 4
    assert [(line["step"], line["validation"]["a"]) for line in log if "validation" in line] == [
        (2, 0.2),
        (4, 0.9),
        (6, 0.4),
    ]


def test_the_last_step_is_validated_whatever_the_interval(
    base: LlamaModel, rows: list[Row], tmp_path: Path
) -> None:
    steps: list[Mapping[str, Any]] = []
    settings = replace(SETTINGS, evaluation_steps=500)
    trained(
        student_of(base, "full"),
        rows,
        tmp_path,
        validate=lambda student: {},
        settings=settings,
        log=steps.append,
    )
    assert [line["step"] for line in steps if "validation" in line] == [6]


@pytest.mark.parametrize(
    ("means", "patience", "steps"),
    [
        ((0.5, 0.4, 0.6, 0.5, 0.5, 0.9), 2, 10),
        ((0.5, 0.5, 0.5, 0.9), 2, 6),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 1, 12),
        ((0.5, 0.4), None, 12),
        ((0.5, 1.0, 0.9, 0.9), 2, 4),
        ((1.0, 1.0), None, 12),
    ],
)
def test_a_phase_ends_when_the_mean_has_not_risen_for_as_long_as_there_is_patience_or_is_1(
    base: LlamaModel,
    rows: list[Row],
    tmp_path: Path,
    means: tuple[float, ...],
    patience: int | None,
    steps: int,
) -> None:
    scores = iter(means)
    log: list[dict[str, Any]] = []
    settings = replace(SETTINGS, patience=patience)
    trained(
        student_of(base, "adapter"), rows, tmp_path, order=ORDER * 2, settings=settings, log=log.append,
        validate=lambda _: {"a": next(scores, 0.0)},
    )  # fmt: skip
    assert max(line["step"] for line in log) == steps


@pytest.mark.parametrize("step", [3, 4, 6, 8])
def test_a_phase_that_ends_early_ends_alike_whenever_it_was_killed(
    base: LlamaModel, rows: list[Row], tmp_path: Path, step: int
) -> None:
    sizes: dict[float, int] = {}

    def validate(student: TrainableModel) -> dict[str, float]:
        """Rises up to the second validation and falls from then on: it knows states again, and so
        follows from the state alone.
        """
        size = float(sum(tensor.norm() for tensor in student.trained_state().values()))
        return {"a": [0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4][sizes.setdefault(size, len(sizes))]}

    options = {
        "order": ORDER * 2,
        "settings": replace(SETTINGS, patience=2, checkpoint_steps=3),
        "validate": validate,
    }
    whole = trained(student_of(base, "adapter"), rows, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        trained(
            student_of(base, "adapter"),
            rows,
            tmp_path / "killed",
            progress=dying_at(step),
            **options,
        )
    assert same(whole, trained(student_of(base, "adapter"), rows, tmp_path / "killed", **options))
    assert same(
        whole, trained(student_of(base, "adapter"), rows, tmp_path / "killed", **options)
    ), "nor is it gone on with"
    for directory in (tmp_path / "whole", tmp_path / "killed"):
        assert json.loads((directory / "best.json").read_text())["step"] == 4


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_training_that_was_killed_in_its_validation_continues(
    base: LlamaModel, rows: list[Row], whole: Callable[[str], State], tmp_path: Path, step: int
) -> None:
    countdown = iter(range(2, 99, 2))

    def validate(student: TrainableModel) -> dict[str, float]:
        if next(countdown) == step:
            raise Killed
        return {"a": 0.5}

    with pytest.raises(Killed):
        trained(student_of(base, "adapter"), rows, tmp_path, validate=validate)
    resumed = trained(
        student_of(base, "adapter"), rows, tmp_path, validate=lambda student: {"a": 0.5}
    )
    assert same(whole("adapter"), resumed)
    assert same(whole("adapter"), load_file(tmp_path / "best.safetensors")), (
        "of equals, the latest is the best"
    )
