"""The trainer: phases over one loop, from where the student starts to where it ends."""

from __future__ import annotations

import random
import shutil
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from safetensors.torch import load_file
from transformers import set_seed

from domainfusion.description import describe
from domainfusion.distillation.trainer.log import JsonLog
from domainfusion.distillation.trainer.phase import Phase
from domainfusion.errors import CapabilityError, ConfigurationError, RunError, TrainingError
from domainfusion.models.base import Adaptation, LanguageModel, TrainableModel
from domainfusion.progress import Progress, silent
from domainfusion.records import read_json, write_json
from domainfusion.training.batching import bucketed_order, encode_record, refuse_overlong
from domainfusion.training.distribution import DistributionObjective
from domainfusion.training.loop import LoopSettings, Validate, save_state, train_phase
from domainfusion.training.mixtures import interleaved_order
from domainfusion.training.objectives import Objective, SequenceObjective, Setting
from domainfusion.training.on_policy import OnPolicyObjective
from domainfusion.types import TrainingRecord, fingerprint

LORA_FROM_PARAMETERS = 100_000_000
"""From this size on, `adaptation="auto"` trains a LoRA adapter instead of all weights."""

OBJECTIVE = "objective"
"""The folder in which an objective keeps files; it goes when the training is finished."""

OBJECTIVES: Mapping[str, Callable[[], Objective]] = {
    "sequence": SequenceObjective,
    "distribution": DistributionObjective,
    "on_policy": OnPolicyObjective,
}
"""Objectives by name, each as it is without settings."""

FINISHED = "finished.safetensors"
"""The outcome of a phase; its presence says that the phase is done."""

USUAL_LORA_RATE = 1e-4
"""LoRA takes about ten times the learning rate of full fine-tuning (Schulman et al., "LoRA Without Regret", 2025)."""


class Trainer(ABC):
    """Trains a student on records. A trainer of your own implements `phases`.

    Args:
        learning_rate: Peak of the schedule (linear warm-up over 5 % of a phase, then a cosine down to 0). It is used as given;
            2e-5 is usual for full fine-tuning, 1e-4 to 1e-3 for LoRA.
        epochs: Passes over the records of each phase.
        batch_size: Rows per optimiser step, over all devices.
        evaluation_steps: Optimiser steps between two validations; the best state by validation is the one that is kept.
        adaptation: `lora` trains an adapter, `full` all weights; `auto` takes LoRA from 100 million parameters on.
        lora_rank: Rank of the adapter where it starts from nothing.
        initialization: `merge` starts from the weighted sum of the experts (which have to be LoRA adapters on the student's base),
            `base` from the student as it is; `auto` merges where that is possible.
        merge_weight: Weight λ of each expert in that sum.
        device_batch_size: Rows that go through the model at once, a divisor of `batch_size`; by default `batch_size` itself.
        checkpoint_steps: Optimiser steps between two checkpoints.
        objective: Toward what the student is trained: `sequence` (the targets word for word), `distribution` (what the teachers find
            probable at every token), `on_policy` (what they find probable where the student writes by itself), or an `Objective` with
            settings. `auto` takes the richest one that the teachers allow and that a benchmark of ours has shown to win, which so far is
            `sequence`.
        activation_checkpointing: Computes activations again in the backward pass instead of keeping them: less memory, more time.

    Raises:
        ConfigurationError: A number is not positive or a word is not known.
    """

    def __init__(
        self,
        *,
        learning_rate: float = 2e-5,
        epochs: int = 3,
        batch_size: int = 16,
        evaluation_steps: int = 500,
        adaptation: Literal["auto", "lora", "full"] = "auto",
        lora_rank: int = 16,
        initialization: Literal["auto", "base", "merge"] = "auto",
        merge_weight: float = 1.0,
        device_batch_size: int | None = None,
        checkpoint_steps: int = 50,
        objective: str | Objective = "sequence",
        activation_checkpointing: bool = False,
    ) -> None:
        counts = {
            "epochs": epochs,
            "batch_size": batch_size,
            "evaluation_steps": evaluation_steps,
            "lora_rank": lora_rank,
            "device_batch_size": batch_size if device_batch_size is None else device_batch_size,
            "checkpoint_steps": checkpoint_steps,
        }
        for name, count in counts.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ConfigurationError(f"{name} is not a positive number", received=count, allowed="a whole number from 1")
        if batch_size % counts["device_batch_size"]:
            raise ConfigurationError("device_batch_size does not divide batch_size", received=device_batch_size, fix=f"divide {batch_size}")
        if not 0 < learning_rate < 1:
            raise ConfigurationError("learning_rate is out of range", received=learning_rate, allowed="a number between 0 and 1")
        _check_word("adaptation", adaptation, ("auto", "lora", "full"))
        _check_word("initialization", initialization, ("auto", "base", "merge"))
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.evaluation_steps = evaluation_steps
        self.adaptation = adaptation
        self.lora_rank = lora_rank
        self.initialization = initialization
        self.merge_weight = merge_weight
        self.device_batch_size = counts["device_batch_size"]
        self.checkpoint_steps = checkpoint_steps
        self.objective = objective if isinstance(objective, Objective) else _objective(objective)
        self.activation_checkpointing = activation_checkpointing

    @abstractmethod
    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the phases in which the student sees `records`."""

    def adapt(self, student: TrainableModel, teachers: Mapping[str, LanguageModel]) -> tuple[TrainableModel, Adaptation | None]:
        """Returns the copy of the student that is trained, and the adapter it is trained in (None where all weights are).

        Raises:
            CapabilityError: The student can't be trained, or a merge is asked for and the experts don't allow it.
        """
        _refuse_untrainable(student)
        if self.adaptation == "full" or (self.adaptation == "auto" and _parameter_count(student) < LORA_FROM_PARAMETERS):
            if self.initialization == "merge":
                raise ConfigurationError(
                    "A merge of adapters starts a LoRA student", received="initialization='merge'", fix="set adaptation='lora'"
                )
            return student.trainable_copy(None), None
        if self.learning_rate < USUAL_LORA_RATE:
            warnings.warn(
                f"learning_rate={self.learning_rate:g} is low for LoRA, which usually takes 1e-4 to 1e-3; it is used as given. "
                "To train all weights instead, set adaptation='full'.",
                stacklevel=3,
            )
        plain = Adaptation(rank=self.lora_rank, alpha=2 * self.lora_rank)
        merged = Adaptation(start_from=tuple(teachers.values()), merge_weight=self.merge_weight)
        if self.initialization == "base" or not teachers:
            return student.trainable_copy(plain), plain
        try:
            return student.trainable_copy(merged), merged
        except CapabilityError:
            if self.initialization == "merge":
                raise
            return student.trainable_copy(plain), plain

    def train(
        self,
        student: TrainableModel,
        records: Sequence[TrainingRecord],
        *,
        teachers: Mapping[str, LanguageModel] | None = None,
        integrator: LanguageModel | None = None,
        validate: Validate | None = None,
        directory: str | Path | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> TrainableModel:
        """Trains a copy of the student and returns it; the student itself stays as it is.

        Args:
            student: Where training starts.
            records: What is learnt; rejected records and empty targets are left out.
            teachers: The experts: for a start from their merge, and for objectives that learn from what they find probable.
            integrator: The model that wrote the targets of cross-domain records: the teacher of those.
            validate: Scores the student on held-out examples, for `evaluation_steps`.
            directory: Keeps checkpoints; the same call with the same directory goes on where it was. None keeps nothing.
            seed: Seed of the order and of everything random.
            progress: Shows the steps.

        Raises:
            TrainingError: There is nothing to train on, or the loss stops being a number.
            RunError: The directory holds a training with other records, settings or seed, or of another student.
        """
        with TemporaryDirectory() as temporary:
            return self._train(student, records, teachers or {}, integrator, validate, Path(directory or temporary), seed, progress)

    def _train(
        self,
        student: TrainableModel,
        records: Sequence[TrainingRecord],
        teachers: Mapping[str, LanguageModel],
        integrator: LanguageModel | None,
        validate: Validate | None,
        directory: Path,
        seed: int,
        progress: Progress,
    ) -> TrainableModel:
        _refuse_untrainable(student)
        usable = [record for record in records if record.verification != "rejected" and record.target.strip()]
        if not usable:
            reasons = Counter(record.reason or "there is no answer" for record in records).most_common(3)
            raise TrainingError(
                f"There is nothing to train on: none of {len(records)} records is usable",
                received=dict(reasons) or None,
                fix="look at what the experts answered",
            )
        phases = self.phases(usable)
        empty = [phase.name for phase in phases if not phase.records]
        if empty or not phases:
            raise TrainingError(f"The phase {', '.join(empty) or 'list'} is empty", received=type(self).__name__, fix="give it records")
        models = {"student": describe(student), "teachers": describe(teachers), "integrator": describe(integrator)}
        _claim(directory, {**models, "trainer": describe(self), "records": fingerprint(usable), "seed": seed})
        folders = [directory / f"phase-{number}-{phase.name}" for number, phase in enumerate(phases, start=1)]
        log = JsonLog(directory / "log.jsonl")
        objective = copy(self.objective)  # what it makes ready belongs to this training alone
        if not all((folder / FINISHED).is_file() for folder in folders):
            rows = {encode_record(record, student): record for phase in phases for record in phase.records}
            refuse_overlong(list(rows), student.context_length)
            setting = Setting(
                student=student,
                records=rows,
                teachers=teachers,
                integrator=integrator,
                directory=directory / OBJECTIVE,
                seed=seed,
                progress=progress,
            )
            if found := objective.begin(setting):
                log(found)
        _parameter_count(student)  # loads the student: loading draws from the stream that the adapter starts from
        set_seed(seed)
        trained, _ = self.adapt(student, teachers)
        for number, (phase, folder) in enumerate(zip(phases, folders, strict=True), start=1):
            if not (folder / FINISHED).is_file():
                last = number == len(phases)
                self._train_phase(trained, phase, objective, folder, seed, number, validate, last, log, progress)
            trained.load_trained_state(load_file(folder / FINISHED))
        shutil.rmtree(directory / OBJECTIVE, ignore_errors=True)
        return trained

    def _train_phase(
        self,
        student: TrainableModel,
        phase: Phase,
        objective: Objective,
        folder: Path,
        seed: int,
        number: int,
        validate: Validate | None,
        is_last: bool,
        log: JsonLog,
        progress: Progress,
    ) -> None:
        """Trains one phase and leaves its outcome in `folder`; the last phase leaves its best state by validation."""
        rows = [encode_record(record, student) for record in phase.records]
        order = self._order(phase, [len(row.tokens) for row in rows], random.Random(f"{seed}/{number}"))
        settings = LoopSettings(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            device_batch_size=self.device_batch_size,
            evaluation_steps=self.evaluation_steps,
            checkpoint_steps=self.checkpoint_steps,
            activation_checkpointing=self.activation_checkpointing,
            seed=seed,
        )
        train_phase(
            student,
            rows,
            order,
            name=phase.name,
            settings=settings,
            directory=folder,
            objective=objective,
            validate=validate,
            log=log,
            progress=progress,
        )
        if is_last and (folder / "best.safetensors").is_file():
            student.load_trained_state(load_file(folder / "best.safetensors"))
        save_state(student, folder / FINISHED)
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    def _order(self, phase: Phase, lengths: Sequence[int], rng: random.Random) -> list[int]:
        if phase.shares is None:
            return [index for _ in range(self.epochs) for index in bucketed_order(lengths, self.batch_size, rng)]
        groups = [phase.group_of(record) for record in phase.records]
        return [index for _ in range(self.epochs) for index in interleaved_order(groups, phase.shares, rng)]


def _claim(directory: Path, inputs: Mapping[str, Any]) -> None:
    """Notes what is trained in `directory`, or refuses where that is something else: its checkpoints would be taken for these."""
    note = directory / "inputs.json"
    if not note.is_file():
        write_json(note, inputs)
        return
    stored = read_json(note)
    changed = [name for name in inputs if fingerprint(stored.get(name)) != fingerprint(inputs[name])]
    if changed:
        raise RunError(
            f"This directory holds a training with other inputs: {', '.join(changed)}",
            received=str(directory),
            fix="use another directory, or delete this one to train afresh",
        )


def _objective(name: str) -> Objective:
    _check_word("objective", name, ("auto", *OBJECTIVES))
    return OBJECTIVES["sequence" if name == "auto" else name]()


def _check_word(name: str, word: str, allowed: Sequence[str]) -> None:
    if word not in allowed:
        raise ConfigurationError(f"{name} is not known", received=word, allowed=", ".join(allowed))


def _refuse_untrainable(student: object) -> None:
    if not isinstance(student, TrainableModel):
        raise CapabilityError("The student can't be trained", received=student, allowed="a local model, such as LlamaModel(...)")


def _parameter_count(student: TrainableModel) -> int:
    return int(getattr(student, "parameter_count", 0))
