"""Two processes train as one: the same losses at every step, and files of the main process
alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from domainfusion.errors import ConfigurationError
from domainfusion.training import distributed

SOURCE = Path(__file__).parents[2] / "src"

TRAINING = """
import json, sys, torch
torch.cpu._is_avx512_bf16_supported = lambda: False  # in float32, that the order of sums is all that differs
from domainfusion.distillation import ExecutionSettings, IntegrationTrainer, MergeSettings, MultiTaskTrainer, SequentialTrainer
from domainfusion.models import LlamaModel
from domainfusion.types import Example, Integration, TrainingRecord

def record(query, target, *domains):
    return TrainingRecord(example=Example(query=query, domains=domains), responses=(), integration=Integration(text=target, method="given"))

records = [record(f"Where is airport {n}?", "one two three"[: 3 + 2 * n], "aviation") for n in range(5)]
records += [record(f"The symbol of element {n}?", "Fe " * (n + 1), "chemistry") for n in range(4)]
records += [record(f"Where is airport {n}, and element {n}?", "Paris. Fe.", "aviation", "chemistry") for n in range(2)]
folder, settings = sys.argv[1], json.loads(sys.argv[2])
kind = {"integration": IntegrationTrainer, "sequential": SequentialTrainer, "multi_task": MultiTaskTrainer}[settings.pop("type")]
base = LlamaModel(folder, dtype="float32")
experts = zip(("aviation", "chemistry"), settings.pop("experts", ()))
teachers = {domain: LlamaModel(expert, dtype="float32") for domain, expert in experts}
merge = MergeSettings(**settings.pop("merge", {}))
execution = ExecutionSettings(checkpoint_steps=2, **settings.pop("execution", {}))
trainer = kind(learning_rate=1e-3, epochs=2, batch_size=4, merge=merge, execution=execution, **settings)
calls = iter(range(99))
student = trainer.train(base, records, teachers=teachers, directory=sys.argv[3], validate=lambda _: {"a": next(calls) / 10}, seed=3)
"""


def train(
    base: Path, directory: Path, settings: dict[str, Any], count: int, **environment: str
) -> subprocess.CompletedProcess[str]:
    script = directory.with_suffix(".py")
    script.write_text(TRAINING)
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        if count > 1
        else []
    )
    return subprocess.run(
        [sys.executable, *launcher, str(script), str(base), json.dumps(settings), str(directory)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def log_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


SETTINGS: dict[str, dict[str, Any]] = {
    "integration": {"type": "integration", "adaptation": "full"},
    "mixed": {"type": "multi_task", "adaptation": "lora", "known_share": 0.0},
    "sequential": {
        "type": "sequential",
        "adaptation": "lora",
        "execution": {"device_batch_size": 1},
    },
    "kept": {"type": "integration", "adaptation": "lora", "merge": {"keep": True}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_have_the_losses_of_one_with_the_same_batch(
    tiny_llama: Path, make_adapter: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    logs, states = [], []
    settings = dict(SETTINGS[name])
    if name == "kept":
        settings["experts"] = [str(make_adapter(domain)) for domain in ("aviation", "chemistry")]
    for count in (1, 2):
        directory = tmp_path / str(count)
        done = train(tiny_llama, directory, settings, count)
        assert done.returncode == 0, done.stderr
        logs.append(log_of(directory))
        states.append(load_file(max(directory.glob("phase-*")) / "finished.safetensors"))
    assert [line.get("step") for line in logs[0]] == [line.get("step") for line in logs[1]], (
        "one process writes the log"
    )
    for one, two in zip(*logs, strict=True):
        assert one.keys() == two.keys()
        for figure in one.keys() & {"loss", "learning_rate"}:
            assert one[figure] == pytest.approx(two[figure], rel=1e-5)
        for figure in one.keys() & {"divergence_from_base", "validation", "terms"}:
            assert one[figure] == pytest.approx(two[figure], rel=1e-3, abs=1e-6)
        assert {name: own["tokens"] for name, own in one.get("domains", {}).items()} == {
            name: own["tokens"] for name, own in two.get("domains", {}).items()
        }
    assert all(
        torch.allclose(tensor, states[1][name], atol=1e-4) for name, tensor in states[0].items()
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, r"DeepSpeed is not supported.*launch with FSDP2"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"},
            r"one flat tensor.*FSDP_VERSION=1.*--fsdp_version 2",
        ),
        ({"ACCELERATE_USE_FSDP": "true"}, r"one flat tensor"),
    ],
)
def test_a_launch_that_is_not_supported_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in {"WORLD_SIZE": "2", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        distributed.check_launch()
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    distributed.check_launch()


def test_in_one_process_every_collective_returns_its_own_value() -> None:
    distributed.init_process_group()
    distributed.broadcast_parameters([torch.nn.Parameter(torch.ones(2))])
    distributed.barrier()
    assert distributed.broadcast("x") == "x"
    assert distributed.all_gather(3) == [3]
    assert distributed.shard([1, 2, 3]) == [1, 2, 3]
    assert (distributed.world_size(), distributed.is_main_process()) == (1, True)
    with distributed.main_process_first():
        pass


def test_every_item_is_the_part_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(list(distributed.shard(list(range(8)))))
    assert sorted(item for part in parts for item in part) == list(range(8))
    assert {len(part) for part in parts} == {2, 3}


def test_a_student_on_the_gpu_of_another_process_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed.check_device(torch.device("cuda:1"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    for device in ("cpu", "cuda", "cuda:1"):
        distributed.check_device(torch.device(device))
    with pytest.raises(ConfigurationError, match="name no device"):
        distributed.check_device(torch.device("cuda:0"))


RUN = """
import sys
from domainfusion.distillation import CuratedDataGenerator, DataSettings, Distiller, DomainRetentionEvaluator, MultiTaskTrainer
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.training import distributed

examples = [{"query": f"Where is airport {n}?", "domain": "aviation", "answers": {"aviation": "France"}} for n in range(8)]
asked = []

def answer(question):
    asked.append(question)
    return "France."

distiller = Distiller(
    LlamaModel(sys.argv[1], dtype="float32"),
    {"aviation": ScriptedModel(answer)},
    [CuratedDataGenerator(examples)],
    MultiTaskTrainer(learning_rate=1e-3, epochs=1, batch_size=4),
    DomainRetentionEvaluator(resamples=100),
    output_dir=sys.argv[2],
    data=DataSettings(holdout=0.25),
)
student = distiller.distill()
distiller.save(sys.argv[2] + "/model")
assert bool(asked) == distributed.is_main_process(), "the main process alone asks"
with open(f"{sys.argv[2]}/student-{distributed.rank()}", "w") as stream:
    stream.write(student.fingerprint)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", [{}, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}], ids=["copies", "shards"]
)
def test_the_main_process_asks_and_writes_and_all_have_the_student(
    tiny_llama: Path, tmp_path: Path, launch: dict[str, str]
) -> None:
    (tmp_path / "run.py").write_text(RUN)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(tmp_path / "run.py"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **launch}
    done = subprocess.run(
        [*command, str(tiny_llama), str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "evaluation.json").is_file()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    one, other = ((tmp_path / "run" / f"student-{rank}").read_text() for rank in range(2))
    assert one == other
