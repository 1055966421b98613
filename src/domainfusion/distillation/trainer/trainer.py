"""The trainer: its settings and where the student starts; and the three curricula, which differ in
their phases.
"""

from __future__ import annotations

import random
import time
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, Self, cast

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from domainfusion.checks import check_count, check_kind, check_number, check_seed, check_word
from domainfusion.distillation.trainer.merging import (
    Choices,
    MergeSettings,
    choose_merge,
    keep_choice,
    made_choice,
    material_of,
    merging,
)
from domainfusion.distillation.trainer.training import (
    CHOICES,
    PRODUCT,
    Phase,
    Training,
)
from domainfusion.errors import (
    CapabilityError,
    ConfigurationError,
    TrainingError,
)
from domainfusion.merging import Candidate, MergeMethod
from domainfusion.models.base import (
    Adaptation,
    LanguageModel,
    SizedModel,
    StartChecker,
    TokenScorer,
    TrainableModel,
)
from domainfusion.models.huggingface import HuggingFaceModel
from domainfusion.progress import Progress, silent
from domainfusion.training import distributed
from domainfusion.training.distribution import DistributionObjective
from domainfusion.training.likelihood import LikelihoodObjective
from domainfusion.training.loop import Validate
from domainfusion.training.mixtures import check_shares, natural_shares
from domainfusion.training.objectives import Objective, SequenceObjective
from domainfusion.types import Message, TrainingRecord
from domainfusion.wording import counted

LORA_FROM_PARAMETERS = 100_000_000
"""From this size on, `adaptation="auto"` trains a LoRA adapter instead of all weights."""

OBJECTIVES: Mapping[str, Callable[[], Objective]] = {
    "sequence": SequenceObjective,
    "distribution": DistributionObjective,
    "likelihood": LikelihoodObjective,
}
"""Objectives by name, each as it is without settings."""

MOST = {"epochs": 1_000, "lora_rank": 8_192}
"""Above these a number is a slip of the pen, which would fill the memory before the first step."""

USUAL_LORA_RATE = 1e-4
"""LoRA takes about ten times the learning rate of full fine-tuning (Schulman et al., "LoRA Without
Regret", 2025).
"""


@dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
    """How a training is run: what the device holds at once, when it is saved, and who follows it.
    What is learned does not depend on it, but for the rounding of sums.

    Attributes:
        device_batch_size: Rows that go through the model at once, a divisor of `batch_size`; by
            default `batch_size` itself.
        activation_checkpointing: Computes activations again in the backward pass instead of keeping
            them: less memory, more time.
        checkpoint_steps: Optimizer steps between two checkpoints.
        report_to: Trackers that receive every figure of the training log as it is made, by name:
            `tensorboard` (written to `directory`), `wandb`, `trackio`, `mlflow` and whatever else
            Accelerate knows. Their packages have to be installed. A resumed training may have
            others.

    Raises:
        ConfigurationError: A number is not positive, or a tracker is unknown or not installed.
    """

    device_batch_size: int | None = None
    activation_checkpointing: bool = False
    checkpoint_steps: int = 50
    report_to: str | Sequence[str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_count("device_batch_size", self.device_batch_size, optional=True)
        check_kind("activation_checkpointing", self.activation_checkpointing, bool)
        check_count("checkpoint_steps", self.checkpoint_steps)
        if not isinstance(self.report_to, str | list | tuple | None):
            raise ConfigurationError(
                "report_to is not known",
                received=self.report_to,
                allowed="the name of a tracker, or a list of names",
            )
        for name in self.trackers:
            check_word("report_to", name, sorted(LOGGER_TYPE_TO_CLASS))
        installed = [str(tracker) for tracker in get_available_trackers()] if self.trackers else []
        if missing := [name for name in self.trackers if name not in installed]:
            raise ConfigurationError(
                f"The tracker {missing[0]!r} is not installed",
                received=self.trackers,
                fix=f"pip install {missing[0]}, or leave it out",
            )

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of the trackers."""
        given = self.report_to
        return (given,) if isinstance(given, str) else tuple(given or ())

    def check_rows(self, batch_size: int) -> None:
        """Refuses a `device_batch_size` that does not divide `batch_size`."""
        if batch_size % (self.device_batch_size or batch_size):
            raise ConfigurationError(
                "device_batch_size does not divide batch_size",
                received=self.device_batch_size,
                allowed=f"a divisor of {batch_size}",
            )


class Start(NamedTuple):
    """Where a student starts.

    Attributes:
        adaptation: What of it is trained, and from what.
        why_not_merged: Why it does not start from the merge of its experts, where it might have;
            empty where it does, or was not to.
    """

    adaptation: Adaptation
    why_not_merged: str = ""


class Trainer(ABC):
    """Trains a student on records. A trainer of your own implements `phases`.

    Args:
        learning_rate: Peak of the schedule (linear warm-up over 5 % of a phase, then a cosine down
            to 0). It is used as given; 2e-5 is usual for full fine-tuning, 1e-4 to 1e-3 for LoRA.
        epochs: Passes over the records of each phase.
        batch_size: Rows per optimizer step, over all devices.
        evaluation_steps: Optimizer steps between two validations; by default as many as an epoch of
            the phase has. The best state by validation is the one that is kept.
        early_stopping_patience: Validations without a better mean score after which a phase ends,
            at its best state. By default 3 where there is validation; without any, a phase is
            trained to its end. A phase also ends where every validated slice scores 1, as nothing
            is left to gain.
        adaptation: `lora` trains an adapter, `full` all weights; `auto` takes LoRA from 100 million
            parameters on, and for a quantized student.
        lora_rank: Rank of the adapter where it starts from nothing.
        frozen_share: Share of the layers, from the input on, that are not trained, in [0, 1): with
            1/3 the first 10 of 30 stay as they are, and the embeddings. A step is faster, as the
            backward pass ends above them.
        initialization: `merge` starts from a merge of the experts (which have to be LoRA adapters
            on the student's base, or whole fine-tunes of it), `base` from the student as it is;
            `auto` merges for a LoRA student where that is possible.
        merge: How the experts are merged for that start, and whether the merge is kept.
        known_share: Share of the records whose target the student would already write at its start
            that phases show anyway; the others are skipped. Before the first step the start
            reads the targets in one forward pass. Only slices of which it knows 95 % lose records:
            one that is known in part is learned whole. A phase to which less than one step is left
            joins the next. 1 shows every record, and asks nothing. Replay is not touched by it, nor
            a training that continues an earlier student.
        objective: The training objective: `sequence` (cross-entropy on the targets), `distribution`
            (what the teachers find probable at every token), or an `Objective` with settings.
            `auto` takes the richest one that the teachers allow and that a benchmark of ours has
            shown to win, which so far is `sequence`.
        execution: How the training is run, which decides nothing about what is learned.

    Raises:
        ConfigurationError: A number is not positive or a word is not known.
    """

    def __init__(
        self,
        *,
        learning_rate: float = 2e-5,
        epochs: int = 3,
        batch_size: int = 16,
        evaluation_steps: int | None = None,
        early_stopping_patience: int | None = None,
        adaptation: Literal["auto", "lora", "full"] = "auto",
        lora_rank: int = 16,
        frozen_share: float = 0.0,
        initialization: Literal["auto", "base", "merge"] = "auto",
        merge: MergeSettings = MergeSettings(),
        known_share: float = 1.0,
        objective: str | Objective = "sequence",
        execution: ExecutionSettings = ExecutionSettings(),
    ) -> None:
        check_number("learning_rate", learning_rate, "(0, 1)")
        check_count("epochs", epochs, most=MOST["epochs"])
        check_count("batch_size", batch_size)
        check_count("evaluation_steps", evaluation_steps, optional=True)
        check_count("early_stopping_patience", early_stopping_patience, optional=True)
        check_word("adaptation", adaptation, ("auto", "lora", "full"))
        check_count("lora_rank", lora_rank, most=MOST["lora_rank"])
        check_number("frozen_share", frozen_share, "[0, 1)")
        check_word("initialization", initialization, ("auto", "base", "merge"))
        check_number("known_share", known_share, "[0, 1]")
        check_kind("merge", merge, MergeSettings)
        check_kind("execution", execution, ExecutionSettings)
        _check_merge(merge, adaptation, initialization)
        execution.check_rows(batch_size)
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.evaluation_steps = evaluation_steps
        self.early_stopping_patience = early_stopping_patience
        self.adaptation = adaptation
        self.lora_rank = lora_rank
        self.frozen_share = frozen_share
        self.initialization = initialization
        self.merge = merge
        self.known_share = known_share
        self.objective = objective if isinstance(objective, Objective) else _objective(objective)
        self.execution = execution

    @property
    def device_batch_size(self) -> int:
        """Rows that go through the model at once."""
        return self.execution.device_batch_size or self.batch_size

    @abstractmethod
    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the phases in which the student sees `records`."""

    def adapt(
        self,
        student: TrainableModel,
        teachers: Mapping[str, LanguageModel],
        records: Sequence[TrainingRecord] = (),
        directory: Path | None = None,
        *,
        progress: Progress = silent,
    ) -> tuple[TrainableModel, Adaptation | None]:
        """Returns the copy of the student that is trained, and the adapter it is trained in (None
        where all weights are).

        Args:
            student: Where training starts.
            teachers: The experts.
            records: What they answered, which `MergeSettings("regmean")` has them read.
            directory: The training's; see `merging`.
            progress: Shows how far a merge is.

        Raises:
            CapabilityError: The student can't be trained, or a merge is asked for and the experts
                don't allow it.
        """
        start = self.start_of(student, teachers).adaptation
        if not start.all_weights and self.learning_rate < USUAL_LORA_RATE:
            warnings.warn(
                f"learning_rate={self.learning_rate:g} is low for LoRA, which usually takes 1e-4 to"
                " 1e-3; it is used as given. To train all weights instead, set adaptation='full'.",
                stacklevel=3,
            )
        if start.all_weights and not start.start_from:
            return student.trainable_copy(None), None
        if not (start.start_from and isinstance(student, HuggingFaceModel)):
            return student.trainable_copy(start), start
        material = material_of(teachers, records, self.merge)
        with merging(
            start, student, teachers, material.read, progress, directory=directory
        ) as merger:
            chosen = choose_merge(merger, self.merge, material.compared).start
            return merger.merge(chosen.method, chosen.weight), start

    def merged(
        self,
        student: TrainableModel,
        teachers: Mapping[str, LanguageModel],
        records: Sequence[TrainingRecord],
        directory: Path,
        *,
        progress: Progress = silent,
    ) -> tuple[TrainableModel, Candidate]:
        """Returns the experts' merge as a model by itself, with nothing trained, and how it was
        made: the best as it is, of those that the training in `directory` chose its start from.

        Args:
            student: Where training starts.
            teachers: The experts.
            records: What they answered.
            directory: The training's.
            progress: Shows how far the merge is.

        Raises:
            CapabilityError: The experts can't be merged.
        """
        start = Adaptation(
            start_from=tuple(teachers.values()), merge_weight=self.merge.usual_weight
        )
        if not isinstance(student, StartChecker) or not teachers:
            raise CapabilityError("The experts can't be merged", received=list(teachers.values()))
        student.check_start(start)
        began = time.perf_counter()
        if not isinstance(student, HuggingFaceModel):
            chosen = Candidate(method="sum", weight=start.merge_weight)
            model = student.trainable_copy(start)
            return model, replace(chosen, seconds=time.perf_counter() - began)
        material = material_of(teachers, records, self.merge)
        # Kept apart from the training's own choices, as nothing is trained from this one.
        kept = Choices(directory / PRODUCT)
        known = made_choice(kept)
        earlier = made_choice(Choices(directory / CHOICES)) or known
        searched = sum(one.seconds for one in earlier.candidates) if earlier else 0.0
        with merging(
            start, student, teachers, material.read, progress, directory=directory
        ) as merger:
            choice = earlier or choose_merge(merger, self.merge, material.compared)
            merged = merger.merge(choice.product.method, choice.product.weight)
            # Where candidates were measured, making the merge was a part of it.
            before = searched or merger.seconds_before
        if known is not None:
            return merged, known.product
        seconds = before + time.perf_counter() - began
        product = replace(choice.product, seconds=round(seconds, 1))
        if directory.is_dir():
            keep_choice(kept, replace(choice, product=product))
        return merged, product

    def start_of(self, student: TrainableModel, teachers: Mapping[str, LanguageModel]) -> Start:
        """Returns which weights are trained and where they start, without loading any.

        Raises:
            CapabilityError: The student can't be trained so, or a merge is asked for and the
                experts don't allow it.
        """
        _refuse_untrainable(student)
        all_weights = self._trains_all_weights(student)
        plain = Adaptation(
            rank=self.lora_rank,
            alpha=2 * self.lora_rank,
            all_weights=all_weights,
            frozen_share=self.frozen_share,
        )
        if isinstance(student, StartChecker):
            student.check_start(plain)
        may_merge = self.initialization == "merge" or (
            self.initialization == "auto" and not all_weights
        )
        if not (teachers and may_merge):
            return Start(plain)
        merged = replace(
            plain,
            start_from=tuple(teachers.values()),
            merge_weight=self.merge.usual_weight,
            keeps_start=self.merge.keep and not all_weights,
        )
        try:
            if not isinstance(student, StartChecker):
                raise CapabilityError(
                    "The student does not say whether it can start from a merge", received=student
                )
            student.check_start(merged)
        except CapabilityError as error:
            if self.initialization == "merge":
                raise
            return Start(plain, str(error))
        return Start(merged)

    def _trains_all_weights(self, student: TrainableModel) -> bool:
        if self.adaptation != "auto":
            return self.adaptation == "full"
        if isinstance(student, HuggingFaceModel) and student.quantization:
            return False
        return _parameter_count(student) < LORA_FROM_PARAMETERS

    def train(
        self,
        student: TrainableModel,
        records: Sequence[TrainingRecord],
        *,
        start: TrainableModel | None = None,
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
            records: What is learned; rejected records and empty targets are left out.
            start: What an earlier training of this student returned, with settings that train the
                same weights: the copy continues from there, and `start` stays as it is. None starts
                as `initialization` says.
            teachers: The experts: for a start from their merge, and for objectives that learn from
                what they find probable.
            integrator: The model that wrote the targets of cross-domain records: the teacher of
                those.
            validate: Scores the student on held-out examples, for `evaluation_steps`.
            directory: Keeps checkpoints; the same call with the same directory resumes. None keeps
                nothing. Several processes that train together, as `torchrun` starts them, need one
                that all of them see.
            seed: Seed of the order and of everything random.
            progress: Shows the steps.

        Raises:
            TrainingError: There is nothing to train on, or the loss stops being a number.
            RunError: The directory holds a training with other records, settings or seed, or of
                another student.
        """
        check_seed(seed)
        _refuse_untrainable(student)
        self.check_validation(given=validate is not None)
        usable = [record for record in records if record.is_usable]
        if not usable:
            reasons = Counter(
                record.reason or "there is no answer" for record in records
            ).most_common(3)
            raise TrainingError(
                f"There is nothing to train on: none of {counted(len(records), 'record')} is usable",
                received=dict(reasons) or None,
                fix="look at what the experts answered",
            )
        if directory is None and distributed.world_size() > 1:
            raise ConfigurationError(
                "Training in several processes needs a directory",
                fix="give directory=...",
            )
        distributed.init_process_group()
        with TemporaryDirectory() as temporary:
            return Training(
                trainer=self,
                student=student,
                records=usable,
                start=start,
                teachers=teachers or {},
                integrator=integrator,
                validate=validate,
                directory=Path(directory or temporary),
                seed=seed,
                progress=progress if distributed.is_main_process() else silent,
            ).run()

    def check_validation(self, *, given: bool) -> None:
        """Refuses a training without validation where a setting needs one.

        Args:
            given: Whether there is a validation.

        Raises:
            ConfigurationError: There is none, and when to stop early is to be decided by it.
        """
        if not given and self.early_stopping_patience is not None:
            what = "Validation decides when to stop early, and there is none"
            fix = "leave it out, or give validation examples, such as by validation_holdout=0.1"
            raise ConfigurationError(
                what,
                received=self.early_stopping_patience,
                fix=fix,
                field="early_stopping_patience",
            )

    def decided(self, training: Training) -> Self:
        """Returns this trainer with every setting decided that it leaves to be chosen by what is
        measured before the first step.

        Args:
            training: What there is to measure; what is chosen is kept in its `choices`.
        """
        if not self.merge.is_open:
            return self
        decided = copy(self)
        if training.start is not None:
            # What was trained replaces all but the weights below an adapter: those it was on.
            method, weight = "sum", 1.0
            if isinstance(training.start, HuggingFaceModel) and training.start.merged_as:
                method, weight = training.start.merged_as  # as they were given to the merge
            decided.merge = replace(self.merge, method=cast(MergeMethod, method), weight=weight)
            return decided
        start = self.start_of(training.student, training.teachers).adaptation
        if not (start.start_from and isinstance(training.student, HuggingFaceModel)):
            return self
        material = material_of(training.teachers, training.records, self.merge)
        with merging(
            start,
            training.student,
            training.teachers,
            material.read,
            training.progress,
            training.directory,
        ) as merger:
            chosen = choose_merge(merger, self.merge, material.compared, training.choices).start
        decided.merge = replace(self.merge, method=chosen.method, weight=chosen.weight)
        return decided


def _check_merge(merge: MergeSettings, adaptation: str, initialization: str) -> None:
    if isinstance(merge.weight, tuple) and initialization == "base":
        raise ConfigurationError(
            "merge_weight applies only to a start from the merge",
            received="initialization='base'",
            fix="set initialization='auto'",
        )
    if merge.keep and (adaptation == "full" or initialization == "base"):
        raise ConfigurationError(
            "keep_merge adds an adapter to the merge of LoRA experts",
            received=f"adaptation={adaptation!r}, initialization={initialization!r}",
            fix="leave keep_merge out, or set adaptation='lora', initialization='merge'",
        )


def _objective(name: str) -> Objective:
    check_word("objective", name, ("auto", *OBJECTIVES))
    return OBJECTIVES["sequence" if name == "auto" else name]()


def _refuse_untrainable(student: object) -> None:
    if not isinstance(student, TrainableModel):
        raise CapabilityError(
            "The student can't be trained",
            received=student,
            allowed="a local model, such as LlamaModel(...)",
        )


def _parameter_count(student: TrainableModel) -> int:
    return student.parameter_count if isinstance(student, SizedModel) else 0


class IntegrationTrainer(Trainer):
    """Two phases: first each domain by itself, then cross-domain integration with a replay of the
    first.

    The phase `domains` holds the single-domain records. The phase `integration` holds the
    cross-domain records, the adversarial ones, which teach where a domain ends, and a random share
    of the first phase, so that expertise is not forgotten. A phase without records is left out.

    Args:
        replay: Share of the first phase's records that the second phase sees again.
        **settings: See `Trainer`.
    """

    def __init__(self, *, replay: float = 0.25, **settings: Any) -> None:
        super().__init__(**settings)
        check_number("replay", replay, "[0, 1]")
        self.replay = replay

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the phases `domains` and `integration`."""
        across = tuple(record for record in records if _is_across(record))
        single = tuple(record for record in records if not _is_across(record))
        phases = [
            Phase(name="domains", records=single),
            Phase(name="integration", records=across, earlier=single, replay=self.replay),
        ]
        return [phase for phase in phases if phase.records]


def _is_across(record: TrainingRecord) -> bool:
    """Whether a record teaches more than one domain's own questions do."""
    return record.example.is_cross_domain or record.example.is_adversarial


RECORDS_SCORED = 64
"""Records of a domain whose likelihood tells how well the student knows it."""


class SequentialTrainer(Trainer):
    """One phase a domain, from general to special.

    A replay of earlier domains keeps it from forgetting, beside LoRA (`adaptation`).

    A cross-domain record is seen in the phase of the last of its domains.

    Args:
        order: The domains from general to special. By default the one comes first whose records the
            student, before it is trained, finds most probable per token; where a student can't
            tell, the order is that in which the records name the domains.
        replay: Share of the records of earlier phases that each phase sees again.
        **settings: See `Trainer`.

    Raises:
        ConfigurationError: The order is empty or names a domain twice, or a setting is out of
            range.
    """

    def __init__(
        self, *, order: Sequence[str] | None = None, replay: float = 0.1, **settings: Any
    ) -> None:
        super().__init__(**settings)
        if order is not None and (
            isinstance(order, str) or not order or len(set(order)) < len(order)
        ):
            raise ConfigurationError(
                "order must list each domain exactly once",
                received=order,
                fix="leave it out to infer it",
            )
        check_number("replay", replay, "[0, 1]")
        self.order = None if order is None else tuple(order)
        self.replay = replay

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns a phase for each domain, named after it; without an order, as the records name
        the domains.
        """
        found = _domains_of(records)
        order = found if self.order is None else self.order
        missing = set(found) - set(order)
        if missing:
            raise ConfigurationError(
                f"The order leaves out {', '.join(sorted(missing))}",
                received=order,
                allowed=", ".join(found),
            )
        phases: list[Phase] = []
        seen: tuple[TrainingRecord, ...] = ()
        for domain in order:
            own = tuple(
                record
                for record in records
                if max(record.example.domains, key=order.index) == domain
            )
            if own:
                phases.append(Phase(name=domain, records=own, earlier=seen, replay=self.replay))
            seen += own
        return phases

    def decided(self, training: Training) -> Self:
        """Returns this trainer with its order, and what any trainer leaves to be chosen; see
        `Trainer.decided`.
        """
        decided = copy(super().decided(training))
        scorer, records, seed = training.student, training.records, training.seed
        if self.order is None and isinstance(scorer, TokenScorer):
            order = training.choices.make(
                "order",
                _domains_of(records),
                lambda domain: _mean_log_probability(scorer, records, domain, seed),
                lambda known: sorted(known, key=known.__getitem__, reverse=True),
            )
            decided.order = tuple(order)
        return decided


def _domains_of(records: Sequence[TrainingRecord]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(domain for record in records for domain in record.example.domains))


def _mean_log_probability(
    scorer: TokenScorer, records: Sequence[TrainingRecord], domain: str, seed: int
) -> float:
    """Returns the mean log-probability per token of the domain's own targets; of cross-domain ones
    where it has no others.
    """
    own = [record for record in records if domain in record.example.domains]
    own = [record for record in own if not record.example.is_cross_domain] or own
    sample = random.Random(f"{seed}/{domain}").sample(own, min(RECORDS_SCORED, len(own)))
    scores = scorer.score(
        [(*record.example.conversation, Message("assistant", record.target)) for record in sample]
    )
    return sum(score.total for score in scores) / sum(len(score.tokens) for score in scores)


class MultiTaskTrainer(Trainer):
    """One phase in which every batch mixes the domains.

    Args:
        shares: The share of each domain, by the primary domain of the records; by default as many
            as there are.
        **settings: See `Trainer`.

    Raises:
        ConfigurationError: The shares are none, negative, or all 0.
    """

    def __init__(self, *, shares: Mapping[str, float] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        if shares is not None:
            check_shares(shares)
        self.shares = None if shares is None else dict(shares)

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the one phase, `mixture`."""
        shares = self.shares or natural_shares(
            [record.example.primary_domain for record in records]
        )
        return [Phase(name="mixture", records=tuple(records), shares=shares)]
