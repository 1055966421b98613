"""The loop that trains one phase: steps over a fixed order of rows, with checkpoints, validation
and a log line a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from transformers import PreTrainedModel

from domainfusion.errors import TrainingError
from domainfusion.interruption import DeferredSignals
from domainfusion.models.base import PartlyTrained, TrainableModel
from domainfusion.models.decoding import decodes_alike
from domainfusion.models.projection import head_of
from domainfusion.models.threads import MOST_THREADS, SideBySide
from domainfusion.progress import Notes, Progress, silent
from domainfusion.training.batching import Row, collate, passes_of
from domainfusion.training.checkpoints import (
    BestState,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from domainfusion.training.distributed import (
    SHORT_ROWS,
    TrainedWeights,
    all_gather,
    attention_to_train,
    broadcast,
    broadcast_parameters,
    is_main_process,
    main_process_first,
    make_accelerator,
    rank,
    shard,
    world_size,
)
from domainfusion.training.losses import (
    answer_hidden_states,
    answer_hidden_states_of_tree,
    token_losses,
)
from domainfusion.training.objectives import Answers, Objective, SequenceObjective, Tally

Validate = Callable[[TrainableModel], Mapping[str, float]]
"""Scores the student on held-out examples: a figure from 0 to 1 per domain or slice."""

PASS_OVERHEAD = {"cpu": 64, "cuda": 4096}
"""The cost of one more pass through the model, in tokens: a CPU reads the weights again, a GPU
waits for the kernels of all layers.
"""

FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""The optimizer's state as one process alone would have it, so that any number of processes can
resume.
"""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a phase is trained.

    Attributes:
        learning_rate: Peak of the schedule: linear warm-up, then a cosine down to 0.
        warmup_share: Share of the steps spent warming up; a phase of few steps has none.
        batch_size: Rows per optimizer step, over all processes.
        device_batch_size: Rows that go through the model at once, a divisor of `batch_size`;
            gradients are accumulated.
        max_gradient_norm: Gradients are scaled down to this norm.
        evaluation_steps: Steps between two validations.
        patience: Validations without a better mean after which the phase ends, as it does where
            every score is 1; None trains it to its end.
        checkpoint_steps: Steps between two checkpoints.
        activation_checkpointing: Compute activations again in the backward pass instead of keeping
            them: less memory, more time (Chen et al., 2016, arXiv 1604.06174).
        seed: Seed of the dropout.
    """

    learning_rate: float
    warmup_share: float = 0.05
    batch_size: int = 16
    device_batch_size: int = 16
    max_gradient_norm: float = 1.0
    evaluation_steps: int = 500
    patience: int | None = None
    checkpoint_steps: int = 50
    activation_checkpointing: bool = False
    seed: int = 0


class PhaseEnd(NamedTuple):
    """How a phase ended.

    Attributes:
        is_early: Whether patience ended it before its last step.
        scores: The student's scores after the last step; None where that was not validated.
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
    accelerator: Accelerator | None = None,
    validate: Validate | None = None,
    log: Callable[[Mapping[str, Any]], None] = lambda _: None,
    before_checkpoint: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> PhaseEnd:
    """Trains the student in place on `rows` in the given order, resuming from the last checkpoint
    in `directory` if there is one.

    SIGINT and SIGTERM wait for the current step, which is kept in a checkpoint; a second one does
    not wait.

    Args:
        student: The model to train.
        rows: The phase's rows.
        order: Indices of rows, all epochs one after the other.
        name: The phase's name, for log and progress.
        settings: How it is trained.
        directory: Where checkpoints go.
        objective: Makes the loss; by default cross-entropy on the rows' answers.
        accelerator: The engine; by default one as the launch configures it.
        validate: Scores the student every `evaluation_steps`; the best state is kept as
            `best.safetensors`.
        log: Receives a dict every step, and for every validation.
        before_checkpoint: Called before a checkpoint is written, as what was logged until then is
            not logged again.
        progress: Shows the steps.

    Returns:
        How the phase ended.

    Raises:
        TrainingError: The loss is not finite; the message names the records of the batch. Or a
            checkpoint can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    accelerator = accelerator or make_accelerator(student.device)
    best = BestState(
        directory, patience=settings.patience, evaluation_steps=settings.evaluation_steps
    )
    steps = math.ceil(len(order) / settings.batch_size)

    checkpoint = load_checkpoint(directory)
    start = 0 if checkpoint is None else checkpoint.step
    if checkpoint is not None:
        student.load_trained_state(checkpoint.student)
        if best.is_exhausted(start):
            return PhaseEnd(is_early=True, scores=None)

    engine = _Engine.prepared(student, objective or SequenceObjective(), accelerator, settings)
    if checkpoint is not None:
        engine.load_optimizer(checkpoint.optimizer)

    started, is_early, scores = time.perf_counter(), False, None
    with (
        progress(phase_label(name), steps, start) as advance,
        engine.threads,
        DeferredSignals() as signals,
    ):
        for step in range(start, steps):
            planned = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            learning_rate = settings.learning_rate * scheduled(step, steps, settings.warmup_share)
            loss, tally = engine.step(
                step, [rows[index] for index in planned], learning_rate, filler=rows[0]
            )

            done = step + 1
            figures = {
                "loss": loss,
                "learning_rate": learning_rate,
                "seconds": round(time.perf_counter() - started, 2),
            }
            log({"phase": name, "step": done, **figures, **tally.take()})
            advance(1)
            if isinstance(progress, Notes):
                progress.note(f"loss {loss:.3f}")
            if validate is not None and (done % settings.evaluation_steps == 0 or done == steps):
                with engine.weights.whole():
                    # Every process validates, so that none waits for the others; the main one's
                    # scores count.
                    scores = broadcast(dict(validate(student)))
                    log({"phase": name, "step": done, "validation": scores})
                    if is_main_process():
                        best.consider(student, done, scores)
                is_early = broadcast(best.is_exhausted(done))
            is_stopped = any(received is not None for received in all_gather(signals.received))
            if done % settings.checkpoint_steps == 0 or done == steps or is_early or is_stopped:
                before_checkpoint()
                engine.save(directory, done, student)
            if is_early or is_stopped:
                break
    engine.release()
    return PhaseEnd(is_early=is_early, scores=scores)


VALIDATING = "validating"
"""The label of a validation's progress."""


def phase_label(name: str) -> str:
    """Returns the label of a phase's progress."""
    return f"training: {name}"


def scheduled(step: int, steps: int, warmup_share: float) -> float:
    """Returns the share of the peak learning rate at a step, counted from 0: linear warm-up, then a
    cosine down to 0.

    Example:
        >>> [round(scheduled(step, 40, 0.05), 2) for step in (0, 1, 2, 21, 39)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = math.floor(steps * warmup_share)
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class _LossModule(torch.nn.Module):
    """The student's loss on a batch as a module's forward pass: that is what DDP, FSDP and mixed
    precision wrap.
    """

    def __init__(self, module: PreTrainedModel, objective: Objective, *, reads_trees: bool) -> None:
        super().__init__()
        self.module = module
        self._objective = objective
        self._reads_trees = reads_trees
        self._no_split_modules = module._no_split_modules  # the layers that FSDP shards one by one

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
        rows: tuple[Row, ...],
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        if self._reads_trees and rows:
            hidden, targets = answer_hidden_states_of_tree(self.module, rows)
        else:
            hidden, targets = answer_hidden_states(
                self.module, {"input_ids": input_ids, "labels": labels}
            )
        head = head_of(self.module)
        if not rows:
            return token_losses(hidden, head, targets, hidden.new_zeros(len(targets))).total, {}
        losses = self._objective.losses(Answers(hidden, head, targets, weights, rows))
        return losses.total, losses.terms


@dataclass(frozen=True, kw_only=True)
class _Engine:
    """The student as Accelerate trains it: what a step, a checkpoint and the end of a phase need.

    Attributes:
        accelerator: Accelerate.
        model: The prepared `_LossModule`.
        optimizer: The prepared optimizer.
        weights: The weights that are trained.
        settings: How they are trained.
        threads: What computes the gradients of a step.
        reads_trees: Whether the rows of a pass are read as one tree; see `models.tree`.
    """

    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: AcceleratedOptimizer
    weights: TrainedWeights
    settings: LoopSettings
    threads: SideBySide
    reads_trees: bool

    @classmethod
    def prepared(
        cls,
        student: TrainableModel,
        objective: Objective,
        accelerator: Accelerator,
        settings: LoopSettings,
    ) -> _Engine:
        """Returns the student with its optimizer, wrapped as the launch configures it."""
        module = student.trainable_module()
        if settings.activation_checkpointing:
            module.activation_checkpointing_enable()
        trained = {
            key: parameter
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        broadcast_parameters(trained.values())
        optimizer = torch.optim.AdamW(
            trained.values(), lr=settings.learning_rate, weight_decay=0.0, fused=True
        )
        reads_trees = _reads_trees(module, settings)
        model, optimizer = accelerator.prepare(
            _LossModule(module, objective, reads_trees=reads_trees), optimizer
        )
        masks = student.gradient_masks() if isinstance(student, PartlyTrained) else {}
        weights = TrainedWeights(trained, module, masks)
        return cls(
            accelerator=accelerator,
            model=model,
            optimizer=optimizer,
            weights=weights,
            settings=settings,
            threads=SideBySide(_threads(module, objective, settings), "training"),
            reads_trees=reads_trees,
        )

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Continues with an optimizer's state, as `save` keeps it."""
        set_optimizer_state_dict(self.model, self.optimizer.optimizer, state, options=FULL_STATE)

    def step(
        self, number: int, rows: Sequence[Row], learning_rate: float, *, filler: Row
    ) -> tuple[float, Tally]:
        """Makes one optimizer step, and returns its loss and the terms of it.

        Args:
            number: The step's number in its phase, from 0.
            rows: The rows of the step, over all processes.
            learning_rate: Of this step.
            filler: Any row; see `_backward`.
        """
        # What is random in a step follows from its number, so a resumed phase draws what an
        # undisturbed one does.
        torch.manual_seed(self.settings.seed * 1_000_003 + number * world_size() + rank())
        own = shard(rows)
        answer_tokens = sum(all_gather(sum(len(row.answer) for row in own)))
        if self.threads.count > 1:
            loss, tally = self._backward_side_by_side(number, own, answer_tokens)
        else:
            loss, tally = 0.0, Tally()
            overhead = self._overhead_of_pass(own)
            for rows_of_pass, is_last in _passes(own, self.settings.device_batch_size, overhead):
                with self._gradients_stay_here(is_last):
                    loss += self._backward(number, rows_of_pass, answer_tokens, tally, filler)
        loss = sum(all_gather(loss))

        self.weights.mask_gradients()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.accelerator.clip_grad_norm_(self.weights.parameters, self.settings.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, Tally.over(all_gather(tally))

    @contextmanager
    def _gradients_stay_here(self, is_last: bool) -> Iterator[None]:
        """Keeps DDP from averaging gradients before the last pass; FSDP reduces them in each, as no
        process can hold them all.
        """
        waits = not is_last and not self.accelerator.is_fsdp2
        with self.accelerator.no_sync(self.model) if waits else nullcontext():
            yield

    def _backward(
        self, number: int, rows: Sequence[Row], answer_tokens: int, tally: Tally, filler: Row
    ) -> float:
        """Adds the gradient of a pass, and returns its part of the step's loss: the mean over the
        step's answer tokens.

        Args:
            number: The step's, for the message of a loss that is not finite.
            rows: The rows of the pass; a process without any computes with `filler`, which counts
                nothing.
            answer_tokens: Answer tokens of the whole step, over all processes.
            tally: Counts the terms of the loss.
            filler: Any row.
        """
        longest = max(len(row.tokens) for row in rows or [filler])
        with attention_to_train(self.accelerator.device, longest):
            loss, terms = self._loss(number, rows, answer_tokens, filler)
            # DDP and FSDP average over the processes; the loss is a sum over them.
            self.accelerator.backward(loss * world_size())
        tally.add(rows, terms)
        return float(loss.detach())

    def _backward_side_by_side(
        self, number: int, rows: Sequence[Row], answer_tokens: int
    ) -> tuple[float, Tally]:
        """Adds the gradients of a step whose rows are dealt to threads; returns the step's loss and
        the terms of it. The gradients are added in the order of the hands.
        """
        trained = self.weights.parameters
        most = max(1, self.settings.device_batch_size // self.threads.count)

        def compute(hand: list[Row]) -> tuple[float, Tally, list[torch.Tensor]]:
            tally, total, sums = Tally(), 0.0, list[torch.Tensor]()
            overhead = self._overhead_of_pass(hand)
            for places in passes_of([len(row.tokens) for row in hand], most, overhead):
                chosen = [hand[place] for place in places]
                loss, terms = self._loss(number, chosen, answer_tokens, chosen[0])
                gradients = torch.autograd.grad(loss, trained, materialize_grads=True)
                if sums:
                    torch._foreach_add_(sums, gradients)
                else:
                    sums = list(gradients)
                tally.add(chosen, terms)
                total += float(loss.detach())
            return total, tally, sums

        with attention_to_train(self.accelerator.device, max(len(row.tokens) for row in rows)):
            hands = deal(rows, self.threads.count)
            found = self.threads.call([partial(compute, hand) for hand in hands])
        sums = found[0][2]
        for _, _, others in found[1:]:
            torch._foreach_add_(sums, others)
        for parameter, gradient in zip(trained, sums, strict=True):
            parameter.grad = gradient
        return sum(loss for loss, _, _ in found), Tally.over([tally for _, tally, _ in found])

    def _overhead_of_pass(self, rows: Sequence[Row]) -> int:
        """Returns what one more pass over such rows costs, in tokens of padding. A tree has no
        padding but in attention, which costs little where rows are short.
        """
        if self.reads_trees and all(len(row.tokens) <= SHORT_ROWS for row in rows):
            return sum(len(row.tokens) for row in rows) * len(rows)
        return PASS_OVERHEAD.get(self.accelerator.device.type, PASS_OVERHEAD["cuda"])

    def _loss(
        self, number: int, rows: Sequence[Row], answer_tokens: int, filler: Row
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Returns the part of a step's loss that a pass makes, and its terms; see `_backward`."""
        device = self.accelerator.device
        padded = collate(rows or [filler], pad_token=0)
        count = sum(len(row.answer) for row in rows)
        loss, terms = self.model(
            input_ids=padded["input_ids"].to(device),
            labels=padded["labels"].to(device),
            weights=torch.full((count,), 1 / max(answer_tokens, 1), device=device),
            rows=tuple(rows),
        )
        if not torch.isfinite(loss):
            named = ", ".join(row.record_id for row in rows)
            raise TrainingError(
                f"The loss is {loss.item()} at step {number}, in a batch with the records {named}",
                fix="lower the learning rate, or look at these records; the last checkpoint is kept",
            )
        return loss, terms

    def save(self, directory: Path, step: int, student: TrainableModel) -> None:
        """Writes a checkpoint from the main process; every process has to call it."""
        state = get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=FULL_STATE)
        with self.weights.whole(), main_process_first():
            if is_main_process():
                save_checkpoint(directory, Checkpoint(step, student.trained_state(), state))

    def release(self) -> None:
        """Gathers the weights in every process, and lets Accelerate forget the student."""
        self.weights.gather()
        self.accelerator.free_memory()


# Threads with rows of their own

_LARGEST_TRAINED_SHARE = 0.25
"""The share of the weights up to which each thread may hold gradients of its own."""


def _threads(module: PreTrainedModel, objective: Objective, settings: LoopSettings) -> int:
    """Returns how many threads compute gradients of their own: on a CPU, where one process trains a
    small share of the weights, without anything drawn.
    """
    parameters = list(module.parameters())
    trained = sum(each.numel() for each in parameters if each.requires_grad)
    allowed = (
        # A class that inherits it may keep something of its own between calls.
        vars(type(objective)).get("allows_threads", False)
        and world_size() == 1
        and _is_on_cpu(module)
        and not settings.activation_checkpointing
        and not _draws(module)
        and trained <= _LARGEST_TRAINED_SHARE * sum(each.numel() for each in parameters)
    )
    return min(torch.get_num_threads(), MOST_THREADS, settings.batch_size) if allowed else 1


def _reads_trees(module: PreTrainedModel, settings: LoopSettings) -> bool:
    """Returns whether the rows of a pass are read as one tree: on a CPU, where nothing is drawn, as
    every row draws its own, and nothing computed twice.
    """
    return (
        _is_on_cpu(module)
        and not settings.activation_checkpointing
        and not _draws(module)
        and decodes_alike(module)
    )


def _is_on_cpu(module: PreTrainedModel) -> bool:
    return all(each.device.type == "cpu" for each in module.parameters())


def _draws(module: PreTrainedModel) -> bool:
    """Returns whether a training step draws something, as dropout does."""
    return any(
        isinstance(part, torch.nn.Dropout) and part.p > 0 for part in module.modules()
    ) or any(
        isinstance(value, float) and value > 0
        for name, value in vars(module.config).items()
        if "drop" in name
    )


def deal(rows: Sequence[Row], hands: int) -> list[list[Row]]:
    """Returns the rows in hands of about as many tokens: the longest are dealt first, there and
    back.
    """
    longest_first = sorted(rows, key=lambda row: -len(row.tokens))
    dealt: list[list[Row]] = [[] for _ in range(hands)]
    for place, row in enumerate(longest_first):
        around, hand = divmod(place, hands)
        dealt[hand if around % 2 == 0 else hands - 1 - hand].append(row)
    return [hand for hand in dealt if hand]


def _passes(rows: Sequence[Row], most: int, overhead: int) -> Iterator[tuple[list[Row], bool]]:
    """Yields the rows of each pass of a step, and whether it is the last; each process makes as
    many passes as the busiest one.
    """
    passes = passes_of([len(row.tokens) for row in rows], most, overhead)
    count = max(all_gather(len(passes)))
    for number in range(count):
        chosen = passes[number] if number < len(passes) else []
        yield [rows[index] for index in chosen], number == count - 1
