"""A phase, and one training: phase after phase, in a directory from which a killed training
resumes.
"""

from __future__ import annotations

import logging
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import set_seed

from domainfusion.checks import check_number
from domainfusion.description import describe, differences
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.trainer.merging import Choices
from domainfusion.errors import RunError, TrainingError, advice_on
from domainfusion.files import flush_names, flush_to_disk, remove_unfinished
from domainfusion.models.base import LanguageModel, LocalWeights, TokenScorer, TrainableModel
from domainfusion.progress import VALIDATING, Foresees, Progress, doing
from domainfusion.records import file_name, from_json, read_json, to_json, write_json, write_text
from domainfusion.training import distributed
from domainfusion.training.batching import Row, encode_record, refuse_overlong
from domainfusion.training.checkpoints import (
    BEST,
    BEST_SCORES,
    BestState,
    is_damaged,
    remove_states_between,
    save_state,
)
from domainfusion.training.distributed import make_accelerator
from domainfusion.training.loop import (
    LoopSettings,
    Validate,
    phase_label,
    train_phase,
)
from domainfusion.training.losses import divergence_from, find_known, sample_by_domain
from domainfusion.training.mixtures import interleaved_order
from domainfusion.training.objectives import Objective, Setting
from domainfusion.types import TrainingRecord, fingerprint

if TYPE_CHECKING:
    from domainfusion.distillation.trainer.trainer import Trainer

logger = logging.getLogger("domainfusion")

LOG = "log.jsonl"
"""A line a step, and one for each validation and choice."""

CHOICES = "choices.json"
"""The choices of a training before its first step."""

KNOWN = "known.json"
"""Which records the start knows, counted by slice, and which of them are skipped."""

FINISHED = "finished.safetensors"
"""The outcome of a phase; its presence says that the phase is done."""

OBJECTIVE = "objective"
"""The folder in which an objective keeps files; it goes when the training is finished."""

PRODUCT = "merge_as_model.json"
"""The choice of the merge that the student is compared with, where the training made none."""

USUAL_PATIENCE = 3
"""Validations without a better mean score after which a phase ends, where nothing else is said."""

MASTERED = 0.95
"""Share of a slice's records that the start has to know for any of them to be skipped."""

READ_FIRST, READ_ON_FROM = 32, 0.75
"""Records of a slice that the start reads before all others of it, and the share of them that it has
to know for the others to be read.
"""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training.

    Attributes:
        name: What log and report call it.
        records: What is seen in it for the first time.
        earlier: Records of phases before it.
        replay: The share of `earlier` that is seen again, drawn with the run's seed.
        shares: The share of each group of records in every batch; None shows every record once an
            epoch, in random order.
        group_of: Which group a record belongs to, for `shares`; by default its primary domain.

    Raises:
        ConfigurationError: `replay` is not between 0 and 1.
    """

    name: str
    records: tuple[TrainingRecord, ...]
    earlier: tuple[TrainingRecord, ...] = ()
    replay: float = 0.0
    shares: Mapping[str, float] | None = None
    group_of: Callable[[TrainingRecord], str] = lambda record: record.example.primary_domain

    def __post_init__(self) -> None:
        check_number("replay", self.replay, "[0, 1]")

    def shown(self, rng: random.Random) -> tuple[TrainingRecord, ...]:
        """Returns the records of the phase and those that it replays."""
        return (*self.records, *rng.sample(self.earlier, round(self.replay * len(self.earlier))))

    def without(self, skipped: Collection[str]) -> Phase | None:
        """Returns the phase without some of its records, or None where nothing is left to learn.

        What it replays stays: a record that needs no lesson is still good to remember. The share of
        a group shrinks with the records that it loses, so that the few that it keeps are not shown
        over and over.

        Args:
            skipped: The ids of the examples that are left out.
        """
        kept = tuple(record for record in self.records if record.example.id not in skipped)
        if self.shares is None:
            return replace(self, records=kept) if kept else None
        before = Counter(self.group_of(record) for record in self.records)
        after = Counter(self.group_of(record) for record in kept)
        shares = {
            group: share * after[group] / before[group] if before[group] else share
            for group, share in self.shares.items()
        }
        if not any(share > 0 for share in shares.values()):
            return None
        return replace(self, records=kept, shares=shares)

    def joined_by(self, records: Sequence[TrainingRecord]) -> Phase:
        """Returns the phase with records of an earlier one, which it then does not replay.

        Args:
            records: The records, which are shown like those of the phase.
        """
        joined = {record.example.id for record in records}
        earlier = tuple(record for record in self.earlier if record.example.id not in joined)
        return replace(self, records=(*records, *self.records), earlier=earlier)


class Turn(NamedTuple):
    """A phase as it is trained.

    Attributes:
        number: Its number among those that are trained, from 1.
        phase: The phase, without the records that are skipped.
        folder: Where its checkpoints and its outcome lie.
        is_last: Whether none comes after it.
    """

    number: int
    phase: Phase
    folder: Path
    is_last: bool

    @property
    def is_finished(self) -> bool:
        """Whether its outcome is there."""
        return (self.folder / FINISHED).is_file()


@dataclass(frozen=True)
class _KnownRecords:
    """What `known.json` says: the ids of the examples that no phase shows."""

    skipped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The arguments of one training, and its directory; see `Trainer.train`."""

    trainer: Trainer
    student: TrainableModel
    records: Sequence[TrainingRecord]
    start: TrainableModel | None
    teachers: Mapping[str, LanguageModel]
    integrator: LanguageModel | None
    validate: Validate | None
    directory: Path
    seed: int
    progress: Progress

    @cached_property
    def log(self) -> JsonLog | Callable[[Mapping[str, Any]], None]:
        """The log of the training, which the main process writes."""
        return JsonLog(self.directory / LOG) if distributed.is_main_process() else lambda _: None

    @cached_property
    def choices(self) -> Choices:
        """The choices that were left to the training."""
        return Choices(self.directory / CHOICES, self.log)

    @cached_property
    def compared(self) -> dict[str, list[Row]]:
        """A few rows of each domain, at which the student is compared with its base."""
        return sample_by_domain(
            [encode_record(record, self.student) for record in self.records], self.seed
        )

    def run(self) -> TrainableModel:
        """Trains a copy of the student and returns it."""
        rows = self._rows(self._phases())  # checked before the directory is claimed
        with distributed.main_process_first():
            self._claim()
            if distributed.is_main_process():
                remove_unfinished(self.directory)
                self._remove_damaged()
                self._warn_of_lost_log()
            decided = replace(self, trainer=self.trainer.decided(self))
            objective = decided._begin(rows)
        return decided._train(objective)

    def _phases(self) -> list[Phase]:
        phases = self.trainer.phases(self.records)
        empty = [phase.name for phase in phases if not phase.records]
        if empty or not phases:
            raise TrainingError(
                f"The phase {', '.join(empty) or 'list'} is empty",
                received=type(self.trainer).__name__,
                fix="give it records",
            )
        return phases

    def _rows(self, phases: Sequence[Phase]) -> dict[Row, TrainingRecord]:
        """Returns every record of the phases by the row that it becomes; each fits the student."""
        rows: dict[Row, TrainingRecord] = {}
        for phase in phases:
            for record in (*phase.records, *phase.earlier):
                rows[encode_record(record, self.student)] = record
        refuse_overlong(list(rows), self.student.context_length)
        return rows

    def _begin(self, rows: Mapping[Row, TrainingRecord]) -> Objective:
        """Returns the objective, ready where there is a phase to train."""
        objective = copy(self.trainer.objective)  # what it makes ready is of this training alone
        skipped = self._skipped_before()
        is_finished = skipped is not None and all(turn.is_finished for turn in self._turns(skipped))
        if not is_finished:
            setting = Setting(
                student=self.student,
                records=rows,
                teachers=self.teachers,
                integrator=self.integrator,
                directory=self.directory / OBJECTIVE,
                seed=self.seed,
                progress=self.progress,
            )
            if found := objective.begin(setting):
                self.log(found)
        return objective

    def _train(self, objective: Objective) -> TrainableModel:
        """Trains phase after phase and returns the student."""
        student = self._student_at_start()
        turns = self._turns(self._skipped(student))
        if isinstance(self.progress, Foresees):
            self.progress.expect(self._pieces(turns))
        accelerator = make_accelerator(
            student.device,
            log_with=list(self.trainer.execution.trackers) or None,
            project_dir=self.directory,
        )
        if self.trainer.execution.trackers:
            accelerator.init_trackers("domainfusion", config=_settings_of(self.trainer))
        steps_before = 0
        for turn in turns:
            if not turn.is_finished:
                log = self._log_to_trackers(accelerator, steps_before)
                self._train_phase(student, turn, objective, accelerator, log)
            student.load_trained_state(load_file(turn.folder / FINISHED))
            if distributed.is_main_process():
                remove_states_between(turn.folder)
            steps_before += math.ceil(len(self._order(turn)) / self.trainer.batch_size)
        accelerator.end_training()
        if distributed.is_main_process():
            shutil.rmtree(self.directory / OBJECTIVE, ignore_errors=True)
        return student

    def _student_at_start(self) -> TrainableModel:
        """Returns the copy of the student that is trained."""
        if isinstance(self.student, LocalWeights):
            # loads the student: loading draws from the stream that the adapter starts from
            self.student.weights()
        if why := self.trainer.start_of(self.student, self.teachers).why_not_merged:
            self.log({"start": "base", "why_not_merged": why})
        set_seed(self.seed)
        with doing("setting up the student to train"):
            student, _ = self.trainer.adapt(
                self.student, self.teachers, self.records, self.directory, progress=self.progress
            )
        if self.start is not None:
            student.load_trained_state(self.start.trained_state())
        return student

    def _turns(self, skipped: Collection[str]) -> list[Turn]:
        """Returns the phases as they are trained, without those whose every record is skipped.

        A phase to which skipping leaves less than one step joins the next one: what surrounds a
        phase (its validations, its outcome on disk) takes longer than such a step.
        """
        found: dict[Path, Phase] = {}
        small: tuple[Path, Phase] | None = None
        for number, phase in enumerate(self._phases(), start=1):
            lessons = phase.without(skipped) if skipped else phase
            if lessons is None:
                continue
            folder = self.directory / f"phase-{number}-{file_name(phase.name)}"
            if small is not None and lessons.shares is None:
                lessons, small = lessons.joined_by(small[1].records), None
            elif small is not None:
                found[small[0]], small = small[1], None
            if len(lessons.records) < min(self.trainer.batch_size, len(phase.records)):
                small = folder, lessons
            else:
                found[folder] = lessons
        if small is not None:
            found[small[0]] = small[1]
        return [
            Turn(number, phase, folder, is_last=number == len(found))
            for number, (folder, phase) in enumerate(found.items(), start=1)
        ]

    def _pieces(self, turns: Sequence[Turn]) -> Iterator[tuple[str, int]]:
        """Yields the work of training and validation: labels with their number of items."""
        trainer = self.trainer
        for turn in turns:
            if turn.is_finished:
                continue
            rows = len(self._shown(turn))
            steps = math.ceil(rows * trainer.epochs / trainer.batch_size)
            yield phase_label(turn.phase.name), steps
            if isinstance(self.validate, Sized):
                yield from [(VALIDATING, len(self.validate))] * validations(trainer, rows)

    def _remove_damaged(self) -> None:
        """Removes the phases whose outcome or best state is damaged: nothing else holds these
        weights, so the phase is trained again.
        """
        for folder in self.directory.glob("phase-*"):
            names = [FINISHED] if (folder / FINISHED).is_file() else [BEST, BEST_SCORES]
            if any(is_damaged(folder / name) for name in names):
                shutil.rmtree(folder)

    def _warn_of_lost_log(self) -> None:
        """Warns where steps were trained that no log tells of: they are not trained again."""
        path = self.directory / LOG
        if not path.is_file() and any(self.directory.glob("phase-*/*")):
            logger.warning("%s is missing; the report shows no step before this one.", path)

    def _skipped_before(self) -> Collection[str] | None:
        """Returns the ids of the examples that no phase shows; None where the start has yet to be
        asked what it knows.
        """
        if self.trainer.known_share == 1 or self.start is not None:
            return ()
        path = self.directory / KNOWN
        return read_json(path, _KnownRecords).skipped if path.is_file() else None

    def _skipped(self, student: TrainableModel) -> Collection[str]:
        """Returns the ids of the examples that no phase shows, as the start knows their answers; it
        is asked once, and the outcome kept.

        Args:
            student: The copy that is trained, at its start.
        """
        before = distributed.broadcast(self._skipped_before())
        if before is not None:
            return before
        counts: dict[str, dict[str, int]] = {}
        skipped: list[str] = []
        for kind, (own, known) in self._known(student).items():
            ids = [self.records[place].example.id for place in own if place in known]
            rng = random.Random(f"{self.seed}/known/{kind}")
            count = len(ids) - round(self.trainer.known_share * len(ids))
            # A slice that is known in part is one that the start guesses at: all of it is a lesson.
            left_out = rng.sample(ids, count) if len(ids) >= MASTERED * len(own) else []
            counts[kind] = {"records": len(own), "known": len(ids), "skipped": len(left_out)}
            skipped += left_out
        if distributed.is_main_process():
            write_json(self.directory / KNOWN, {"kinds": counts, "skipped": skipped}, listed=True)
        self.log({"known": counts})
        logger.info("Of %d records the start knows %d; %d are skipped.", *_totals(counts))
        distributed.barrier()
        return skipped

    def _known(self, student: TrainableModel) -> dict[str, tuple[list[int], set[int]]]:
        """Returns the places of the records of each slice, and of those among them that the student
        knows.

        Of each slice a few records are read first. One that these show to be far from mastered is
        read no further, so that a start that knows little costs little.
        """
        places: dict[str, list[int]] = {}
        for place, record in enumerate(self.records):
            places.setdefault(slice_of(record.example), []).append(place)

        def found(asked: list[int]) -> set[int]:
            rows = [encode_record(self.records[place], student) for place in asked]
            knows = find_known(student, rows, progress=self.progress)
            return {place for place, is_known in zip(asked, knows, strict=True) if is_known}

        first: dict[str, list[int]] = {}
        for kind, own in places.items():
            rng = random.Random(f"{self.seed}/known first/{kind}")
            first[kind] = rng.sample(own, min(READ_FIRST, len(own)))
        known = found([place for own in first.values() for place in own])
        rest: list[int] = []
        for kind, own in places.items():
            if len(known.intersection(first[kind])) >= READ_ON_FROM * len(first[kind]):
                rest += sorted(set(own) - set(first[kind]))
        known |= found(rest)
        return {kind: (own, known.intersection(own)) for kind, own in places.items()}

    def _claim(self) -> None:
        """Notes what is trained in the directory, or refuses where that is something else: its
        checkpoints would be taken for these.
        """
        note = self.directory / "inputs.json"
        inputs: dict[str, Any] = {
            "student": describe(self.student),
            **({} if self.start is None else {"start": describe(self.start)}),
            "teachers": describe(self.teachers),
            "integrator": describe(self.integrator),
            "trainer": describe(self.trainer),
            "records": {"count": len(self.records), "fingerprint": fingerprint(self.records)},
            "seed": self.seed,
        }
        if not note.is_file():
            write_json(note, inputs, listed=True)
        elif found := differences(read_json(note, dict), inputs):
            raise RunError(
                f"This directory holds a training with other inputs ({found})",
                received=str(self.directory),
                fix="use another directory, or delete this one to train afresh",
            )

    def _shown(self, turn: Turn) -> tuple[TrainingRecord, ...]:
        """Returns the records of a phase, with those that it replays."""
        return turn.phase.shown(random.Random(f"{self.seed}/{turn.number}/replay"))

    def _order(self, turn: Turn) -> list[int]:
        """Returns the order in which a phase goes through its records, all epochs one after the
        other.
        """
        records, shares = self._shown(turn), turn.phase.shares
        groups = [] if shares is None else [turn.phase.group_of(record) for record in records]
        rng = random.Random(f"{self.seed}/{turn.number}")
        order: list[int] = []
        for _ in range(self.trainer.epochs):
            if shares is None:
                order += rng.sample(range(len(records)), len(records))
            else:
                order += interleaved_order(groups, shares, rng)
        return order

    def _log_to_trackers(
        self, accelerator: Accelerator, steps_before: int
    ) -> Callable[[Mapping[str, Any]], None]:
        """Returns what logs a line of a phase, to trackers as well: they count the steps of all
        phases.
        """

        def log(line: Mapping[str, Any]) -> None:
            self.log(line)
            if self.trainer.execution.trackers and "step" in line:
                accelerator.log(dict(_figures(line)), step=steps_before + line["step"])

        return log

    def _train_phase(
        self,
        student: TrainableModel,
        turn: Turn,
        objective: Objective,
        accelerator: Accelerator,
        log: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Trains one phase and leaves its outcome in its folder: its best state by validation, if
        it is the last or ended early.
        """
        trainer, order = self.trainer, self._order(turn)
        epoch = math.ceil(len(order) / trainer.epochs / trainer.batch_size)
        settings = LoopSettings(
            learning_rate=trainer.learning_rate,
            batch_size=trainer.batch_size,
            device_batch_size=trainer.device_batch_size,
            evaluation_steps=trainer.evaluation_steps or epoch,
            patience=trainer.early_stopping_patience or USUAL_PATIENCE,
            checkpoint_steps=trainer.execution.checkpoint_steps,
            activation_checkpointing=trainer.execution.activation_checkpointing,
            seed=self.seed,
        )
        end = train_phase(
            student,
            [encode_record(record, student) for record in self._shown(turn)],
            order,
            name=turn.phase.name,
            settings=settings,
            directory=turn.folder,
            objective=objective,
            accelerator=accelerator,
            validate=self.validate,
            log=log,
            before_checkpoint=self._flush_log,
            progress=self.progress,
        )
        scores = end.scores
        if (turn.is_last or end.is_early) and (turn.folder / BEST).is_file():
            student.load_trained_state(load_file(turn.folder / BEST))
            scores = BestState.scores_in(turn.folder)
        self._log_outcome(student, turn.phase, scores)
        if distributed.is_main_process():
            save_state(student.trained_state(), turn.folder / FINISHED)
        distributed.barrier()

    def _flush_log(self) -> None:
        if isinstance(self.log, JsonLog):
            self.log.flush()

    def _log_outcome(
        self, student: TrainableModel, phase: Phase, scores: Mapping[str, float] | None
    ) -> None:
        """Logs the held-out score of every domain at the end of a phase, and how far from its base
        the student went in each.
        """
        found: dict[str, Any] = {}
        if self.validate is not None:
            found["validation"] = distributed.broadcast(
                dict(self.validate(student) if scores is None else scores)
            )
        if (
            distributed.is_main_process()
            and isinstance(self.student, TokenScorer)
            and isinstance(student, TokenScorer)
        ):
            with doing("comparing the student with its base"):
                found["divergence_from_base"] = divergence_from(
                    self.student, student, self.compared
                )
        self.log({"phase": phase.name, "finished": True, **found})


# What trackers and logs show


def _totals(counts: Mapping[str, Mapping[str, int]]) -> list[int]:
    """Returns how many records there are, are known, and are skipped, over all slices."""
    return [sum(own[name] for own in counts.values()) for name in ("records", "known", "skipped")]


def _figures(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers of a log line, named by their path, as trackers want them."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield f"{prefix}{name}", value


def _settings_of(trainer: Trainer) -> dict[str, Any]:
    """Returns the settings of a trainer that trackers can show: numbers and words."""
    settings = vars(trainer) | vars(trainer.merge) | vars(trainer.execution)
    return {name: value for name, value in settings.items() if isinstance(value, int | float | str)}


def validations(trainer: Trainer, rows: int) -> int:
    """Returns how often a phase of so many rows is validated, if it is trained to its end."""
    epoch = math.ceil(rows / trainer.batch_size)
    steps = math.ceil(rows * trainer.epochs / trainer.batch_size)
    return math.ceil(steps / (trainer.evaluation_steps or epoch))


# The log


class JsonLog:
    """A log of JSON lines. A line that a crash left unfinished, or that is damaged, is dropped
    before the next one is written, and no other. What is there already, but for the seconds it
    took, is not written again: a resumed training repeats the steps since its last checkpoint.

    Raises:
        TrainingError: A line can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[str] = set()
        if not path.is_file():
            return
        lines = path.read_bytes().split(b"\n")
        whole = [line for line in lines if _is_json(line)]
        self._known = {_without_seconds(from_json(line)) for line in whole}
        if lines != [*whole, b""]:
            logger.warning("A damaged line is dropped from %s.", path)
            write_text(path, b"".join(line + b"\n" for line in whole).decode())

    def __call__(self, fields: Mapping[str, Any]) -> None:
        """Adds a line that is not there; one that is not of a step is on the disk at once."""
        line = _without_seconds(fields)
        if line in self._known:
            return
        self._known.add(line)
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(to_json(dict(fields)) + "\n")
        except OSError as error:
            raise self._failure(error) from error
        if "step" not in fields:
            self.flush()

    def flush(self) -> None:
        """Waits until every line is on the disk."""
        if not self._path.is_file():
            return
        try:
            flush_to_disk(self._path)
            flush_names(self._path.parent)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"The training log could not be written: {error.strerror or error}",
            received=str(self._path),
            fix=f"{advice_on(error)}; the last checkpoint is kept",
        )


def _without_seconds(fields: Mapping[str, Any]) -> str:
    return to_json({name: value for name, value in fields.items() if name != "seconds"})


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        return False
