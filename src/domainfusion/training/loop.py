"""The loop that trains one phase, on `transformers.Trainer`: checkpoints, resume, and a log line every few steps."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers import Trainer as TransformersTrainer

from domainfusion.errors import TrainingError
from domainfusion.models.base import TrainableModel
from domainfusion.models.projection import head_of
from domainfusion.progress import Advance, Progress, silent
from domainfusion.training import processes
from domainfusion.training.batching import Batch, Row, collate, passes_of
from domainfusion.training.best import BestState
from domainfusion.training.checkpoints import checkpoints, last_checkpoint, steps_done, write_errors
from domainfusion.training.losses import answer_hidden_states, token_losses
from domainfusion.training.objectives import Answers, Objective, SequenceObjective
from domainfusion.training.precision import attention_to_train, mixed_precision
from domainfusion.training.sharding import Copies, Shards, laid_out
from domainfusion.training.signals import DeferredSignals
from domainfusion.training.tally import Tally

Validate = Callable[[TrainableModel], Mapping[str, float]]
"""Scores the student on held-out examples: a figure per domain or slice."""

STUDENT_FILE = "student.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
SCHEDULER_FILE = "scheduler.pt"

PASS_OVERHEAD = {"cpu": 64, "cuda": 4096}
"""What one more pass through the model costs, in tokens: a CPU reads the weights again, a GPU waits for the kernels of all layers."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a phase is trained.

    Attributes:
        learning_rate: Peak of the schedule: linear warm-up, then a cosine down to 0.
        warmup_share: Share of the steps spent warming up; a phase of few steps has none.
        batch_size: Rows per optimiser step.
        device_batch_size: Rows that go through the model at once, a divisor of `batch_size`, up to which gradients are summed.
        weight_decay: AdamW's decoupled weight decay.
        max_gradient_norm: Gradients are scaled down to this norm.
        evaluation_steps: Steps between two validations.
        patience: Validations without a better mean after which the phase ends; None trains it to its end.
        checkpoint_steps: Steps between two checkpoints.
        activation_checkpointing: Compute activations again in the backward pass instead of keeping them: less memory, more time
            (Chen et al., 2016, arXiv 1604.06174).
        seed: Seed of the dropout.
    """

    learning_rate: float
    warmup_share: float = 0.05
    batch_size: int = 16
    device_batch_size: int = 16
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    evaluation_steps: int = 500
    patience: int | None = None
    checkpoint_steps: int = 50
    activation_checkpointing: bool = False
    seed: int = 0


class PhaseEnd(NamedTuple):
    """How a phase ended.

    Attributes:
        is_early: Whether it ended before its time, for want of patience.
        scores: What the student scored after the last step; None where that is not known.
    """

    is_early: bool
    scores: Mapping[str, float] | None


def train_phase(
    student: TrainableModel,
    rows: Sequence[Row],
    order: Sequence[int],
    *,
    name: str,
    settings: LoopSettings,
    directory: Path,
    objective: Objective | None = None,
    validate: Validate | None = None,
    log: Callable[[Mapping[str, Any]], None] = lambda _: None,
    progress: Progress = silent,
) -> PhaseEnd:
    """Trains the student in place on `rows` in the given order, going on from the last checkpoint in `directory` if there is one.

    Args:
        student: What is trained.
        rows: The phase's rows.
        order: Indices of rows, all epochs one after the other.
        name: The phase's name, for log and progress.
        settings: How.
        directory: Where checkpoints go.
        objective: Toward what, ready to be used; by default the rows' answers word for word.
        validate: Scores the student every `evaluation_steps`; the best state is kept as `best.safetensors`.
        log: Receives a dict every few steps.
        progress: Shows the steps.

    Returns:
        How the phase ended.

    SIGINT and SIGTERM wait for the step that is under way, whose outcome is kept; a second one does not wait.

    Raises:
        TrainingError: The loss is not a number; the message names the records of the batch. Or a checkpoint can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    processes.join()
    steps = math.ceil(len(order) / settings.batch_size)
    module = student.trainable_module()
    device = next(module.parameters()).device
    processes.check_device(device)
    pad_token = int(student.tokenizer.pad_token_id or 0)
    arguments = _Arguments(
        output_dir=str(directory),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.floor(steps * settings.warmup_share),  # its first step learns nothing: a single step must not be it
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        per_device_train_batch_size=settings.batch_size,  # a step's rows; how many go through the model at once is our business
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    # Beside a second GPU, Transformers would give each step twice the rows, and run through the order twice.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    objective = objective or SequenceObjective()
    last = last_checkpoint(directory)
    best = BestState(directory, patience=settings.patience, evaluation_steps=settings.evaluation_steps)
    if last is not None:
        student.load_trained_state(load_file(last / STUDENT_FILE))
        if best.is_exhausted(steps_done(last)):
            return PhaseEnd(is_early=True, scores=None)
    if last is None and (found := objective.begin_phase(student, rows)):
        log({"phase": name, **found})
    student.trainable_module()  # where it was asked, its adapter is merged into the weights
    with (
        progress(f"training: {name}", steps, steps_done(last)) as advance,
        DeferredSignals() as signals,
        laid_out(module) as weights,
        _activation_checkpointing(weights.module, settings.activation_checkpointing),
        ExitStack() as stack,
    ):
        tally = Tally()
        reporter = _Reporter(student, weights, name, settings.evaluation_steps, best, validate, log, advance, signals, tally)
        trainer = _PhaseTrainer(
            student, weights, rows, order, pad_token, settings, objective, tally, args=arguments, callbacks=[reporter]
        )
        trainer.remove_callback(PrinterCallback)
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))  # whose random numbers a checkpoint keeps
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    return PhaseEnd(is_early=best.is_exhausted(trainer.state.global_step), scores=reporter.last_scores)


@contextmanager
def _activation_checkpointing(module: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Switches it on for the time of a phase: experts may share the module."""
    if wanted:
        module.activation_checkpointing_enable()
    try:
        yield
    finally:
        if wanted:
            module.activation_checkpointing_disable()  # type: ignore[no-untyped-call]


class _Arguments(TrainingArguments):
    @property
    def place_model_on_device(self) -> bool:
        """Never: the student stays on the device that it is on, and its experts with it."""
        return False


class _Positions(Dataset[int]):
    """The order of the phase: which row comes when."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> int:
        return self._order[index]


def _places(indices: Sequence[int]) -> dict[str, torch.Tensor]:
    return {"places": torch.tensor(indices)}


class _PhaseTrainer(TransformersTrainer):
    """The library's trainer with three things of ours: a fixed order of rows, our loss, and checkpoints.

    A checkpoint holds the trained weights alone, and stands under its name only when it is whole.
    """

    def __init__(
        self,
        student: TrainableModel,
        weights: Copies | Shards,
        rows: Sequence[Row],
        order: Sequence[int],
        pad_token: int,
        settings: LoopSettings,
        objective: Objective,
        tally: Tally,
        **options: Any,
    ) -> None:
        positions = _Positions(order)
        super().__init__(model=weights.module, train_dataset=positions, **options)
        self._student = student
        self._weights = weights
        self._rows = rows
        self._positions = positions
        self._pad_token = pad_token
        self._device_batch_size = settings.device_batch_size
        self._objective = objective
        self._tally = tally
        self._directory = Path(self.args.output_dir or "")
        self.accelerator.prepare_model = lambda module, **_: module  # experts share it, or it is shared out already

    def get_train_dataloader(self) -> DataLoader[int]:
        return DataLoader(self._positions, batch_size=self._train_batch_size, shuffle=False, collate_fn=_places)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Adds up the gradient of a step's rows, a few at a time, once the objective has had its say about the rows."""
        planned = processes.own_part([self._rows[place] for place in inputs["places"].tolist()])
        rows = list(self._shown(planned))
        answer_tokens = sum(processes.gathered(sum(len(row.answer) for row in rows)))
        model.train()
        loss = self._add_gradient(rows, answer_tokens)
        processes.add_up([loss])
        self._weights.add_up_gradients()
        return loss

    def _shown(self, planned: Sequence[Row]) -> Sequence[Row]:
        if type(self._objective).rows is Objective.rows:
            return planned
        with self._weights.whole():
            rows = self._objective.rows(planned, self.state.global_step, self._student)
            self._student.trainable_module()  # where it was asked, its adapter is merged into the weights; training needs it apart again
            return rows

    def _add_gradient(self, rows: Sequence[Row], answer_tokens: int) -> torch.Tensor:
        loss = torch.zeros((), device=self.args.device)
        overhead = PASS_OVERHEAD.get(self.args.device.type, PASS_OVERHEAD["cuda"])
        passes = passes_of([len(row.tokens) for row in rows], self._device_batch_size, overhead)
        for number in range(self._weights.passes(len(passes))):
            own = [rows[index] for index in passes[number]] if number < len(passes) else []
            loss += self._backward(own, answer_tokens).to(loss.device)
        return loss

    def _backward(self, rows: Sequence[Row], answer_tokens: int) -> torch.Tensor:
        module = self._weights.module
        device = module.device
        # A process that has no more rows goes along with the others, with a row that counts nothing.
        padded = collate(rows or [min(self._rows, key=lambda row: len(row.tokens))], self._pad_token)
        batch: Batch = {"input_ids": padded["input_ids"].to(device), "labels": padded["labels"].to(device)}
        weights = torch.full((sum(len(row.answer) for row in rows),), 1 / answer_tokens, device=device)

        def losses() -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
            hidden, targets = answer_hidden_states(module, batch)
            if not rows:
                return token_losses(hidden, head_of(module), targets, hidden.new_zeros(len(targets))).total, {}
            found = self._objective.losses(Answers(hidden, head_of(module), targets, weights, tuple(rows)))
            return found.total, found.terms

        # Mixed precision is entered here, not by Accelerate: that would wrap the module's forward, and the experts share the module.
        with attention_to_train(device, batch["input_ids"].shape[1]):
            with mixed_precision(device):
                total, terms = self._weights.forward(losses)
            if not torch.isfinite(total):
                named = ", ".join(row.record_id for row in rows)
                raise TrainingError(
                    f"The loss is {total.item()} at step {self.state.global_step}, in a batch with the records {named}",
                    fix="lower the learning rate, or look at these records; the last checkpoint is kept",
                )
            total.backward()  # type: ignore[no-untyped-call]
        self._tally.add(rows, terms)
        return total.detach()

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # not counted: a step's rows differ in length

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes the checkpoint aside and moves it to its place, then removes the one before."""
        staging = Path(self._get_output_dir(trial))
        with processes.main_first():
            if processes.is_main():
                shutil.rmtree(staging, ignore_errors=True)
        with self._weights.whole(), write_errors(self._directory):
            super()._save_checkpoint(model, trial)
        processes.wait()
        with processes.main_first():
            if processes.is_main():
                self._publish_checkpoint(staging)

    def _publish_checkpoint(self, staging: Path) -> None:
        with write_errors(self._directory):
            (written,) = staging.iterdir()
            written.replace(self._directory / written.name)
            staging.rmdir()
        for older in checkpoints(self._directory):
            if older.name != written.name:
                shutil.rmtree(older)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._directory / ".checkpoint")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not processes.is_main():  # Transformers asks each of them
            return
        folder = Path(output_dir or self._directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._student.trained_state(), folder / STUDENT_FILE)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        assert self.optimizer is not None and self.lr_scheduler is not None
        state = self._weights.optimizer_state(self.optimizer)
        if processes.is_main():
            torch.save(state, Path(output_dir) / OPTIMIZER_FILE)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None and self.lr_scheduler is not None
        state = torch.load(Path(checkpoint) / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        self._weights.load_optimizer_state(self.optimizer, state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_FILE, weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Does nothing: the weights were loaded before they were laid out."""


class _Reporter(TrainerCallback):
    """Logs each step, moves the progress on, validates, and keeps the best state."""

    def __init__(
        self,
        student: TrainableModel,
        weights: Copies | Shards,
        name: str,
        evaluation_steps: int,
        best: BestState,
        validate: Validate | None,
        log: Callable[[Mapping[str, Any]], None],
        advance: Advance,
        signals: DeferredSignals,
        tally: Tally,
    ) -> None:
        self._signals, self._tally = signals, tally
        self._student, self._weights, self._name, self._evaluation_steps = student, weights, name, evaluation_steps
        self._best, self._validate, self._log, self._advance = best, validate, log, advance
        self._started = time.perf_counter()
        self.last_scores: Mapping[str, float] | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._advance(1)
        if self._validate is not None and (state.global_step % self._evaluation_steps == 0 or state.global_step == state.max_steps):
            self._validate_now(state.global_step)
            control.should_training_stop |= processes.from_main(self._best.is_exhausted(state.global_step))
        if any(received is not None for received in processes.gathered(self._signals.received)):
            control.should_save = control.should_training_stop = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            figures = {name: float(logs[name]) for name in ("loss", "learning_rate")}
            found = Tally.over(processes.gathered(self._tally)).take()
            self._tally.take()
            figures["seconds"] = round(time.perf_counter() - self._started, 2)
            self._log({"phase": self._name, "step": state.global_step, **figures, **found})

    def _validate_now(self, step: int) -> None:
        assert self._validate is not None
        with self._weights.whole():
            scores = processes.from_main(dict(self._validate(self._student)))  # all ask, so that none waits for the others
            self._student.trainable_module()  # answering merged the adapter into the weights; training needs it apart again
            self._log({"phase": self._name, "step": step, "validation": scores})
            if processes.is_main():
                self._best.consider(self._student, step, scores)
        self.last_scores = scores
