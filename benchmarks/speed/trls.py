"""TRL's side of the speed benchmark: its `DistillationTrainer` as anyone would call it, without
what only costs time here.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from setting import (
    GOAL,
    Race,
    RaceOver,
    Referee,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DistillationConfig, DistillationTrainer

from domainfusion.demo.world import base_folder, world_folder
from domainfusion.models import LlamaModel
from domainfusion.models.placement import DataType


def load(dtype: DataType, adapter: str | Path | None = None, *, merge: bool = False) -> Any:
    """Returns the base, with an adapter to train on it (which PEFT keeps in float32), or with one
    merged into it.
    """
    model = AutoModelForCausalLM.from_pretrained(base_folder(), dtype=getattr(torch, dtype))
    if adapter is None:
        return model
    found = PeftModel.from_pretrained(model, str(adapter), is_trainable=not merge)
    return found.merge_and_unload() if merge else found


def prompts(queries: Sequence[str]) -> Dataset:
    return Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": query}] for query in queries]}
    )


def configuration(
    directory: Path, dtype: DataType, seed: int, **settings: Any
) -> DistillationConfig:
    """Returns the settings with which TRL is fastest here: no activations computed twice, no
    bfloat16 where the processor lacks it.
    """
    given = {
        "output_dir": str(directory),
        "gradient_checkpointing": False,
        "bf16": dtype == "bfloat16",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "shuffle_dataset": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "temperature": 1.0,
        "beta": 1.0,  # the reverse KL, as ours
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": seed,
        **settings,
    }
    return DistillationConfig(**given)


def build(
    student: Any,
    teacher: Any,
    queries: Sequence[str],
    settings: DistillationConfig,
    kind: type = DistillationTrainer,
    **more: Any,
) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(base_folder(), padding_side="left")
    return kind(
        model=student,
        teacher_model=teacher,
        args=settings,
        train_dataset=prompts(queries),
        processing_class=tokenizer,
        **more,
    )


class Routed(TrainerCallback):
    """Gives each step the teacher of its domain: TRL takes one teacher, and reads it anew in every
    step.
    """

    def __init__(self, teachers: Sequence[Any]) -> None:
        self._teachers = itertools.cycle(teachers)
        self.trainer: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Changes the teacher."""
        self.trainer.teacher_model = next(self._teachers)


class Scored(TrainerCallback):
    """Has a checkpoint scored every few steps, by the code that scores the other side."""

    def __init__(
        self, student: Any, referee: Referee, every: int, directory: Path, dtype: DataType
    ) -> None:
        self._student, self._referee, self._every, self._directory, self._dtype = (
            student,
            referee,
            every,
            directory,
            dtype,
        )

    def score(self, step: int) -> None:
        """Scores the student as it is, read back from disk."""
        folder = self._directory / f"checkpoint-{step}"
        self._student.save_pretrained(folder)
        model = LlamaModel(folder, base_model=base_folder(), dtype=self._dtype)
        try:
            self._referee.score(model, step)
        finally:
            model.release()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Scores when it is time."""
        if state.global_step % self._every == 0:
            self.score(state.global_step)


def race(
    *,
    questions: Race,
    of_experts: Mapping[str, float],
    dtype: DataType,
    rate: float,
    limit: float,
    every: int,
    seed: int,
    start: Path,
    directory: Path,
) -> dict[str, Any]:
    """Trains on-policy, the domains' experts in turn, from the sum of the experts."""
    torch.manual_seed(seed)
    student = load(dtype, start)
    domains = sorted({example.primary_domain for example in questions.train})
    teachers = [
        load(dtype, world_folder() / "adapters" / domain, merge=True).eval().requires_grad_(False)
        for domain in domains
    ]
    routed = Routed(teachers)
    settings = configuration(
        directory,
        dtype,
        seed,
        max_steps=100_000,
        per_device_train_batch_size=16,
        max_completion_length=32,
        learning_rate=rate,
        lr_scheduler_type="constant",
    )
    shared = LlamaModel(
        base_folder(), dtype=dtype
    )  # the scored checkpoints' base, loaded off the clock and held to the end
    shared._load()
    queries = batches_by_domain(questions, domains, seed)
    referee = Referee(questions, of_experts, limit)
    scored = Scored(student, referee, every, directory, dtype)
    trainer = build(student, teachers[0], queries, settings, callbacks=[routed, scored])
    routed.trainer = trainer
    with contextlib.suppress(RaceOver):
        trainer.train()
    return {**referee.outcome(), "ended": "stopped", "goal": GOAL}


def batches_by_domain(
    questions: Race, domains: Sequence[str], seed: int, batch: int = 16, passes: int = 16
) -> list[str]:
    """Returns the questions of several passes in batches of one domain each, the domains in turn,
    each pass in a new order.
    """
    rng = random.Random(seed)
    by_domain = {}
    for domain in domains:
        own = [example.query for example in questions.train if example.primary_domain == domain]
        by_domain[domain] = [query for _ in range(passes) for query in rng.sample(own, len(own))]
    batches = min(len(own) for own in by_domain.values()) // batch
    return [
        query
        for at in range(batches)
        for domain in domains
        for query in by_domain[domain][at * batch : (at + 1) * batch]
    ]
