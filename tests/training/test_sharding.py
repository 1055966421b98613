"""Weights that are shared out (FSDP2): the losses of one process, a part in each, files of the main
one, a plain student at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

SOURCE = Path(__file__).parents[2] / "src"

TRAINING = """
import gc, json, os, sys, torch
from contextlib import contextmanager
import safetensors.torch
folder, settings, directory = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
torch.cpu._is_avx512_bf16_supported = lambda: False  # in float32, that the order of sums is all that differs
written, held = set(), []

def note(path):
    if str(path).startswith(directory + "/"):
        written.add(os.path.basename(path))

def noting(save, place):
    def noted(*arguments, **options):
        note(arguments[place])
        return save(*arguments, **options)
    return noted

sys.addaudithook(lambda event, given: note(given[0]) if event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR) else None)
torch.save, safetensors.torch.save_file = noting(torch.save, 1), noting(safetensors.torch.save_file, 1)

def parts_of(optimizer):
    yield from (each for each in gc.get_objects() if issubclass(type(each), torch.nn.Parameter) or type(each).__name__ == "DTensor")
    for parameter in (each for group in optimizer.param_groups for each in group["params"]):
        yield parameter.grad
        yield from optimizer.state[parameter].values()

step = torch.optim.AdamW.step
def measured(self, *arguments, **options):
    result = step(self, *arguments, **options)
    tensors = [each.to_local() if hasattr(each, "to_local") else each for each in parts_of(self)]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    held.append(sum(storages.values()))
    return result
torch.optim.AdamW.step = measured

from domainfusion.distillation import ExecutionSettings, MultiTaskTrainer, SequentialTrainer
from domainfusion.models import LlamaModel
from domainfusion.training import distributed
from domainfusion.types import Example, Integration, TrainingRecord

def record(query, target, *domains):
    return TrainingRecord(example=Example(query=query, domains=domains), responses=(), integration=Integration(text=target, method="given"))

records = [record(f"Where is airport {n}?", "one two three"[: 3 + 2 * n], "aviation") for n in range(5)]
records += [record(f"The symbol of element {n}?", "Fe " * (n + 1), "chemistry") for n in range(4)]
records += [record(f"Where is airport {n}, and element {n}?", "Paris. Fe.", "aviation", "chemistry") for n in range(2)]

def validate(student):
    for _ in range(1 + distributed.rank()):  # as if this process had to ask more
        student.ask("Where is airport 1?")
    return {"a": 0.5}

@contextmanager
def progress(label, total, done=0):
    steps = [done]
    def advance(count):
        steps[0] += count
        if label.startswith("training") and str(steps[0]) == os.environ.get("DIES_AT"):
            os._exit(9)
    yield advance

kind = {"sequential": SequentialTrainer, "multi_task": MultiTaskTrainer}[settings.pop("type")]
teachers = {}
if "teacher" in settings:
    teachers = dict.fromkeys(("aviation", "chemistry"), LlamaModel(settings.pop("teacher"), dtype="float32"))
base = LlamaModel(folder, dtype="float32")
execution = ExecutionSettings(checkpoint_steps=2, **settings.pop("execution", {}))
trainer = kind(learning_rate=1e-3, epochs=2, batch_size=4, execution=execution, evaluation_steps=2, **{"adaptation": "full", **settings})
student = trainer.train(base, records, teachers=teachers, directory=directory, validate=validate, progress=progress, seed=3)
wrote = sorted(written)
parameters = list(student.trainable_module().parameters())
found = {
    "wrote": wrote,
    "held": max(held) - sum(weight.nbytes for weight in base.weights()),
    "is_plain": all(type(parameter) is torch.nn.Parameter for parameter in parameters),
    "fingerprint": student.fingerprint,
    "answer": student.ask("Where is airport 1?"),
}
if distributed.is_main_process():
    student.save(f"{directory}-model")
with open(f"{directory}-{distributed.rank()}.json", "w") as stream:
    json.dump(found, stream)
"""

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}

SETTINGS: dict[str, dict[str, Any]] = {
    # Rows that go through one by one, domain by domain: in a step one process has two of them, or
    # none, where the other has one.
    "mixed": {
        "type": "multi_task",
        "execution": {"device_batch_size": 1, "activation_checkpointing": True},
    },
    "sequential": {"type": "sequential", "execution": {"device_batch_size": 2}},
    "lora": {"type": "multi_task", "adaptation": "lora", "execution": {"device_batch_size": 2}},
    "distribution": {"type": "multi_task", "objective": "distribution"},
}


class Run(NamedTuple):
    """What a training left behind."""

    directory: Path
    process: subprocess.CompletedProcess[str]

    @property
    def log(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (self.directory / "log.jsonl").read_text().splitlines()
        ]

    @property
    def outcome(self) -> dict[str, torch.Tensor]:
        return load_file(max(self.directory.glob("phase-*")) / "finished.safetensors")

    def found(self, rank: int) -> dict[str, Any]:
        return dict(json.loads(Path(f"{self.directory}-{rank}.json").read_text()))


@pytest.fixture(scope="module")
def train(
    tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]
) -> Callable[..., Run]:
    """Runs a training of `SETTINGS` in so many processes; with `directory` it goes on there."""
    base, teacher = make_llama("tied", tie_word_embeddings=True), make_llama("teacher", 1)

    def run(name: str, count: int, directory: Path | None = None, **environment: str) -> Run:
        directory = directory or tmp_path_factory.mktemp("run") / name
        script = directory.with_suffix(".py")
        script.write_text(TRAINING)
        settings = {
            **SETTINGS[name],
            **({"teacher": str(teacher)} if "objective" in SETTINGS[name] else {}),
        }
        launcher = (
            ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
            if count > 1
            else []
        )
        done = subprocess.run(
            [
                sys.executable,
                *launcher,
                str(script),
                str(base),
                json.dumps(settings),
                str(directory),
            ],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        return Run(directory, done)

    return run


@pytest.fixture(scope="module")
def finished(train: Callable[..., Run]) -> Callable[..., Run]:
    """Gives the training of `SETTINGS` in so many processes, run once, with the weights shared out
    or not.
    """

    @cache
    def run(name: str, count: int, is_shared_out: bool) -> Run:
        kept = {"FSDP_RESHARD_AFTER_FORWARD": "false"} if name == "distribution" else {}
        found = train(name, count, **({**FSDP, **kept} if is_shared_out else {}))
        assert found.process.returncode == 0, found.process.stderr
        return found

    return run


def assert_alike(one: Run, two: Run) -> None:
    assert [line.get("step") for line in one.log] == [line.get("step") for line in two.log]
    for first, second in zip(one.log, two.log, strict=True):
        assert first.keys() == second.keys()
        for figure in first.keys() & {"loss", "learning_rate"}:
            assert first[figure] == pytest.approx(second[figure], rel=1e-5)
        for figure in first.keys() & {"divergence_from_base", "validation", "terms"}:
            assert first[figure] == pytest.approx(second[figure], rel=1e-3, abs=1e-6)
    assert one.outcome.keys() == two.outcome.keys()
    assert all(
        torch.allclose(tensor, two.outcome[name], atol=1e-4) for name, tensor in one.outcome.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_weights_that_are_shared_out_have_the_losses_of_whole_ones(
    finished: Callable[..., Run], name: str
) -> None:
    assert_alike(finished(name, 1, False), finished(name, 2, True))


@pytest.mark.slow
def test_each_process_holds_half_of_what_is_trained_and_of_the_optimizer(
    finished: Callable[..., Run],
) -> None:
    whole = finished("mixed", 1, False).found(0)["held"]
    for rank in range(2):
        assert finished("mixed", 2, True).found(rank)["held"] == pytest.approx(whole / 2, rel=0.02)


@pytest.mark.slow
def test_the_main_process_alone_writes_whole_states(finished: Callable[..., Run]) -> None:
    for run in (finished("mixed", 2, True), finished("distribution", 2, False)):
        assert run.found(1)["wrote"] == []
        wrote = run.found(0)["wrote"]
        assert {"student.safetensors", "optimizer.pt", "log.jsonl"} <= set(wrote)


@pytest.mark.slow
def test_at_the_end_every_process_has_a_plain_student(finished: Callable[..., Run]) -> None:
    run = finished("mixed", 2, True)
    first, second = run.found(0), run.found(1)
    assert first["is_plain"] and second["is_plain"]
    assert [first["fingerprint"], first["answer"]] == [second["fingerprint"], second["answer"]]
    saved = load_file(Path(f"{run.directory}-model") / "model.safetensors")
    assert all(torch.equal(tensor, run.outcome[name]) for name, tensor in saved.items())


@pytest.mark.slow
def test_a_training_that_was_killed_continues_with_any_number_of_processes(
    finished: Callable[..., Run], train: Callable[..., Run], tmp_path: Path
) -> None:
    killed = train("mixed", 2, tmp_path / "two", DIES_AT="5", **FSDP)
    assert killed.process.returncode != 0
    assert [path.name for path in sorted(killed.directory.glob("phase-*/checkpoint-*"))] == [
        "checkpoint-2",
        "checkpoint-4",
    ]
    shutil.copytree(killed.directory, tmp_path / "one")
    for resumed in (
        train("mixed", 2, killed.directory, **FSDP),
        train("mixed", 1, tmp_path / "one"),
    ):
        assert resumed.process.returncode == 0, resumed.process.stderr
        whole = finished("mixed", 2, True)
        atol = 0.0 if resumed.directory == killed.directory else 1e-4
        assert all(
            torch.allclose(tensor, whole.outcome[name], rtol=0, atol=atol)
            for name, tensor in resumed.outcome.items()
        )
