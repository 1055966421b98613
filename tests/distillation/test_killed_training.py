"""A training whose process is killed, at any instant and more than once, ends with the weights of
one that was left in peace.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SOURCE = Path(__file__).parents[2] / "src"

TRAINING = """
import json, sys
from pathlib import Path
from domainfusion.distillation import ExecutionSettings, IntegrationTrainer, MergeSettings, MultiTaskTrainer, SequentialTrainer
from domainfusion.models import LlamaModel
from domainfusion.types import Example, Integration, TrainingRecord

def record(query, target, *domains):
    return TrainingRecord(example=Example(query=query, domains=domains), responses=(), integration=Integration(text=target, method="given"))

records = [record(f"Where is airport {n}?", "one two", "aviation") for n in range(6)]
records += [record(f"The symbol of element {n}?", "Fe " * (n + 1), "chemistry") for n in range(6)]
records += [record(f"Where is airport {n}, and element {n}?", "Paris. Fe.", "aviation", "chemistry") for n in range(4)]
base, directory, experts, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
kind = {"integration": IntegrationTrainer, "sequential": SequentialTrainer, "multi_task": MultiTaskTrainer}[settings.pop("type")]

def validate(student):
    sizes = sum(float(tensor.norm()) for tensor in student.trained_state().values())
    return {"aviation": -sizes, "chemistry": 0.5}

teachers = {f"expert{n}": LlamaModel(path, base_model=base, dtype="float32") for n, path in enumerate(experts)}
merge, execution = MergeSettings(**settings.pop("merge", {})), ExecutionSettings(checkpoint_steps=1)
trainer = kind(learning_rate=2e-3, epochs=4, batch_size=4, evaluation_steps=3, merge=merge, execution=execution, **settings)
trainer.train(LlamaModel(base, dtype="float32"), records, teachers=teachers, validate=validate, directory=directory, seed=3)
(Path(directory) / "done").touch()
"""

SETTINGS: dict[str, dict[str, Any]] = {
    "integration": {
        "type": "integration",
        "adaptation": "lora",
        "merge": {"weight": [0.3, 0.6, 1.0]},
    },
    "multi-task": {"type": "multi_task", "adaptation": "full", "early_stopping_patience": 2},
    "sequential": {"type": "sequential", "adaptation": "lora", "replay": 0.5},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_whenever_it_is_killed_it_ends_alike(
    tiny_llama: Path, make_adapter: Any, tmp_path: Path, name: str
) -> None:
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    experts = json.dumps([str(make_adapter(f"expert{seed}", seed)) for seed in range(2)])

    def start(directory: Path) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            str(script),
            str(tiny_llama),
            str(directory),
            experts,
            json.dumps(SETTINGS[name]),
        ]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(timeout=300) == 0
    rng, kills = random.Random(name), 0
    while not (killed / "done").exists():
        process = start(killed)
        while process.poll() is None and not (killed / "inputs.json").is_file():
            time.sleep(0.01)  # libraries are being loaded
        lines = _lines(killed)
        while process.poll() is None and _lines(killed) < lines + 1:
            time.sleep(0.002)  # until it gets somewhere, or the test would never end
        time.sleep(rng.uniform(0, 0.3))
        if kills < 6 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        code = process.wait(timeout=300)
        assert code in (0, -signal.SIGKILL)
    assert kills > 0
    for folder in sorted(whole.glob("phase-*")):
        states = [
            load_file(root / folder.name / "finished.safetensors") for root in (whole, killed)
        ]
        assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
        assert states[0].keys() == states[1].keys()


def _lines(directory: Path) -> int:
    log = directory / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0
