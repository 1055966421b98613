"""How long the whole of a run takes: from what its pieces took so far, and from a few answers and
steps that were timed.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from domainfusion.distillation.dataset import read_held_out
from domainfusion.distillation.evaluator import DomainRetentionEvaluator
from domainfusion.distillation.parts import Parts
from domainfusion.distillation.run import RunDirectory
from domainfusion.distillation.trainer import Trainer
from domainfusion.distillation.trainer.training import validations
from domainfusion.errors import DomainFusionError
from domainfusion.models.base import LanguageModel, LocalWeights, SizedModel, TrainableModel
from domainfusion.models.scripted import ScriptedModel
from domainfusion.progress import (
    VALIDATING,
    Advance,
    Notes,
    Pace,
    Progress,
    Speaks,
    doing,
    seconds_spent,
    silent,
    watching,
)
from domainfusion.training import distributed
from domainfusion.training.batching import encode_record
from domainfusion.training.loop import LoopSettings, phase_label, train_phase
from domainfusion.types import Example, Integration, Sampling, TrainingRecord
from domainfusion.wording import in_words

logger = logging.getLogger("domainfusion")

STEP = "step"
"""The kind of a training's pieces, whose items are optimizer steps."""

MOST_WEIGHTS = 2_000_000_000
"""Weights of a student up to which a step is timed beforehand: a larger one takes minutes to load."""

MOST_SECONDS = 15.0
"""Seconds of a first step after which no second one is waited for."""

QUESTIONS_TIMED = 16
"""Questions that a model is asked to see how long an answer takes."""


class Piece(NamedTuple):
    """A piece of work that is to come.

    Attributes:
        label: What it is called where it is shown.
        items: How many items it has.
        kind: Pieces of one kind take as long for an item.
    """

    label: str
    items: int
    kind: str


@dataclass(eq=False)
class _Open:
    """A piece of work under way."""

    kind: str
    total: int
    began: float
    pace: Pace
    done: int
    done_before: int
    inside: float = 0.0
    """Seconds that other pieces took within this one, such as a validation within a training."""
    thread: int = field(default_factory=threading.get_ident)


class Forecast:
    """A display of a run's work that also knows what is to come, and so how long all of it takes.

    Args:
        shown: Shows the pieces.
        stages: The names of the stages, in order.
        stage: Tells which of them is under way; empty between two.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        shown: Progress,
        stages: Sequence[str],
        stage: Callable[[], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shown = shown
        self._stages = tuple(stages)
        self._stage = stage
        self._clock = clock
        self._place, self._has_begun = 0, False
        self._coming: dict[str, list[Piece]] = {}
        self._kinds: dict[str, str] = {}
        self._open: list[_Open] = []
        self._timed: dict[str, float] = {}
        self._took: dict[str, tuple[float, int]] = {}

    @property
    def is_shown(self) -> bool:
        """Whether somebody looks on."""
        return self._shown is not silent

    @property
    def is_planned(self) -> bool:
        """Whether it is known what work there is."""
        return bool(self._coming)

    def plan(self, stage: str, pieces: Iterable[Piece]) -> None:
        """Says what a stage has to do, in place of what was said of it before."""
        self._coming[stage] = list(pieces)
        self._kinds |= {piece.label: piece.kind for piece in self._coming[stage]}

    def name(self, label: str, kind: str) -> None:
        """Says of which kind the pieces of a label are."""
        self._kinds[label] = kind

    def knows(self, kind: str) -> bool:
        """Whether it is known how long an item of a kind takes."""
        return self._each(kind) is not None

    def time(self, kind: str, seconds: float | None) -> None:
        """Says how long an item of a kind takes, for as long as none was done; None says nothing."""
        if seconds is not None:
            self._timed[kind] = seconds

    def expect(self, pieces: Iterable[tuple[str, int]]) -> None:
        """See `domainfusion.progress.Foresees`."""
        stage = self._stages[self._now()]
        self.plan(stage, [Piece(label, items, self._kind(label)) for label, items in pieces])

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Shows one piece of work, and times it."""
        own = self._coming.get(self._stages[self._now()], [])
        planned = next((piece for piece in own if piece.label == label), None)
        if planned is not None:
            own.remove(planned)
        began = self._worked()
        piece = _Open(self._kind(label), total, began, Pace(began), done, done)
        self._open.append(piece)
        try:
            with self._shown(label, total, done) as show:

                def advance(count: int) -> None:
                    piece.done += count
                    piece.pace.advance(count, self._time_of(piece))
                    show(count)

                yield advance
        finally:
            took = self._time_of(piece) - piece.began
            self._open.remove(piece)
            for outer in self._open:
                if outer.thread == piece.thread:
                    outer.inside += took
            seconds, items = self._took.get(piece.kind, (0.0, 0))
            self._took[piece.kind] = (seconds + took, items + piece.done - piece.done_before)

    def say(self, message: str) -> None:
        """Shows a line."""
        if isinstance(self._shown, Speaks):
            self._shown.say(message)

    def note(self, text: str) -> None:
        """Shows a few words beside the work under way."""
        if isinstance(self._shown, Notes):
            self._shown.note(text)

    def over(self, whole: Callable[[], str] | None = None) -> AbstractContextManager[None]:
        """Watches the run; see `domainfusion.progress.Watches`."""
        return watching(self._shown, whole or self.words)

    def words(self) -> str:
        """Says at which stage of how many the run is, and how long all of it takes from now on;
        nothing before its first stage, as an evaluation begins with another.
        """
        place = self._now()
        if not self._has_begun:
            return ""
        where = f"stage {place + 1} of {len(self._stages)}, {self._stages[place]}"
        left = self.seconds_left()
        return where if left is None else f"{where}, {in_words(left)} left"

    def seconds_left(self) -> float | None:
        """Returns the seconds until the run is over; None where they are not known."""
        place = self._now()
        if any(stage not in self._coming for stage in self._stages[place:]):
            return None
        total = 0.0
        for piece in self._open:
            left = piece.pace.left(piece.total - piece.done, self._time_of(piece))
            each = self._each(piece.kind)
            if left is None and each is None:
                return None
            total += (piece.total - piece.done) * (each or 0.0) if left is None else left
        for stage in self._stages[place:]:
            for coming in self._coming[stage]:
                each = self._each(coming.kind)
                if each is None and coming.items:
                    return None
                total += coming.items * (each or 0.0)
        return total

    def _worked(self) -> float:
        return self._clock() - seconds_spent()

    def _time_of(self, piece: _Open) -> float:
        """Returns the time by a piece's own clock, which stands still while a piece within it is
        under way.
        """
        later = [
            other
            for other in self._open[self._open.index(piece) + 1 :]
            if other.thread == piece.thread
        ]
        now = later[0].began + later[0].inside if later else self._worked()
        return now - piece.inside

    def _now(self) -> int:
        """Returns the place of the stage that is under way, or was last."""
        stage = self._stage()
        if stage in self._stages:
            self._place, self._has_begun = self._stages.index(stage), True
        return self._place

    def _kind(self, label: str) -> str:
        return self._kinds.get(label, label)

    def _each(self, kind: str) -> float | None:
        """Returns the seconds that an item of a kind takes; None where that is not known."""
        rates = [
            piece.pace.rate(self._time_of(piece)) for piece in self._open if piece.kind == kind
        ]
        if rates and rates[-1] > 0:
            return 1 / rates[-1]
        seconds, items = self._took.get(kind, (0.0, 0))
        return seconds / items if items else self._timed.get(kind)


def kind_of(model: LanguageModel) -> str:
    """Returns the kind of a model's answers: models of one class are taken to be about as fast,
    for as long as nothing better is known.
    """
    return f"answer of {type(model).__name__}"


def stages_of(parts: Parts) -> tuple[str, ...]:
    """Returns the names of the stages that a run goes through."""
    refine = ("refine",) if parts.settings.refinement_rounds else ()
    evaluate = () if parts.evaluator is None else ("evaluate",)
    return ("generate", "collect", "integrate", "train", *refine, *evaluate)


def foresee(
    forecast: Forecast, parts: Parts, files: RunDirectory, examples: Sequence[Example]
) -> None:
    """Says what work there is in each stage, as far as that is known once there are examples; for
    nobody, nothing.

    Args:
        forecast: Is told.
        parts: What the run is made of.
        files: Of the run.
        examples: What is trained on.
    """
    if not forecast.is_shown or forecast.is_planned:
        return
    with doing("counting the work"):
        for stage in ("generate", "integrate", "refine"):
            forecast.plan(stage, [])
        forecast.plan("collect", collecting_pieces(parts.teachers, examples))
        validation = len(read_held_out(files, "validation"))
        with suppress(Exception):
            # A trainer of a user's own may need targets to say its phases; then the time of all is
            # not known before it trains.
            pieces = training_pieces(
                parts.trainer, examples, validation=validation, student=parts.student
            )
            forecast.plan("train", pieces)
        if isinstance(parts.evaluator, DomainRetentionEvaluator):
            test = len(read_held_out(files, "test"))
            forecast.plan("evaluate", evaluating_pieces(parts, parts.evaluator, test))
        for model in (*parts.teachers.values(), *_baselines(parts)):
            if isinstance(model, ScriptedModel):
                forecast.time(kind_of(model), 0.0)


def _baselines(parts: Parts) -> Iterable[LanguageModel]:
    return () if parts.evaluator is None else parts.evaluator.baselines.values()


def time_a_step(
    forecast: Forecast, parts: Parts, files: RunDirectory, examples: Sequence[Example]
) -> None:
    """Times a step of the training, and the student's answers where the experts' will say nothing
    of them; for nobody, and once the training has begun, nothing. See `foresee` for the arguments.
    """
    if not forecast.is_shown or files.training.is_dir():
        return
    with doing("timing a step of the training"):
        records = unwritten_records(examples)
        forecast.time(STEP, seconds_of_a_step(parts.student, parts.trainer, records))
    if kind_of(parts.student) not in map(kind_of, parts.teachers.values()):
        time_answers(forecast, parts, files, examples)


def time_answers(
    forecast: Forecast, parts: Parts, files: RunDirectory, examples: Sequence[Example]
) -> None:
    """Times the student's answers, where no expert's were timed as they were there from another
    run. See `foresee` for the arguments.
    """
    kind = kind_of(parts.student)
    if forecast.is_shown and not forecast.knows(kind) and not files.evaluation.is_file():
        with doing("timing a few answers"):
            forecast.time(kind, seconds_of_an_answer(parts.student, examples, parts.sampling))


def collecting_pieces(
    teachers: Mapping[str, LanguageModel], examples: Sequence[Example]
) -> list[Piece]:
    """Returns the questions that each expert is asked."""
    asked = {domain: sum(domain in example.domains for example in examples) for domain in teachers}
    return [
        Piece(f"asking {domain}", asked[domain], kind_of(teacher))
        for domain, teacher in teachers.items()
    ]


def evaluating_pieces(
    parts: Parts, evaluator: DomainRetentionEvaluator, questions: int
) -> list[Piece]:
    """Returns the questions that each model is measured on."""
    measured = {
        "the student": parts.student,
        "base": parts.student,
        **evaluator.baselines,
        **{f"the expert of {domain}": teacher for domain, teacher in parts.teachers.items()},
    }
    if parts.trainer.start_of(parts.student, parts.teachers).adaptation.start_from:
        measured["merge"] = parts.student
    pieces = [
        Piece(f"evaluating {name}", questions, kind_of(model)) for name, model in measured.items()
    ]
    # The student and its experts are timed on a few of them, alone and together.
    timed = 3 * min(questions, QUESTIONS_TIMED)
    return [*pieces, Piece("timing the student against its experts", timed, kind_of(parts.student))]


def training_pieces(
    trainer: Trainer,
    examples: Sequence[Example],
    *,
    validation: int,
    student: LanguageModel,
) -> list[Piece]:
    """Returns the pieces of a training on examples whose targets are not there yet.

    Args:
        trainer: The trainer.
        examples: What is trained on.
        validation: How many validation examples there are.
        student: Who is trained.
    """
    pieces = []
    for phase in trainer.phases(unwritten_records(examples)):
        rows = len(phase.shown(random.Random(0)))
        steps = math.ceil(rows * trainer.epochs / trainer.batch_size)
        pieces.append(Piece(phase_label(phase.name), steps, STEP))
        if validation:
            once = Piece(VALIDATING, validation, kind_of(student))
            pieces += [once] * validations(trainer, rows)
    return pieces


def unwritten_records(examples: Iterable[Example]) -> list[TrainingRecord]:
    """Returns records whose targets are not there yet; the question stands in their place."""
    return [
        TrainingRecord(
            example=example,
            responses=(),
            integration=Integration(text=example.query, method="single"),
        )
        for example in examples
    ]


def seconds_of_a_step(
    student: TrainableModel, trainer: Trainer, records: Sequence[TrainingRecord]
) -> float | None:
    """Trains a copy of the student for two steps, throws it away, and returns what the second one
    took; where the first one took more than `MOST_SECONDS`, it is enough.

    The copy is trained from the base, as a merge would take its own time.

    Returns:
        The seconds; None where the student is not on this machine, is larger than `MOST_WEIGHTS`,
        is trained by several processes, or could not be trained so.
    """
    is_small = isinstance(student, SizedModel) and (student.parameter_count or 0) <= MOST_WEIGHTS
    if distributed.world_size() > 1 or not is_small or not isinstance(student, LocalWeights):
        return None
    usual = sorted(records, key=lambda record: len(record.example.query) + len(record.target))
    # Two batches from around the middle: a step's time follows from the length of its texts.
    count = min(len(usual), 2 * trainer.batch_size)
    first = (len(usual) - count) // 2
    chosen = usual[first : first + count]
    if not chosen:
        return None
    settings = LoopSettings(
        learning_rate=trainer.learning_rate,
        batch_size=max(1, min(trainer.batch_size, len(chosen) // 2)),
        device_batch_size=trainer.device_batch_size,
        activation_checkpointing=trainer.execution.activation_checkpointing,
    )
    ends: list[float] = []
    began = time.perf_counter()

    def log(fields: Mapping[str, Any]) -> None:
        ends.append(time.perf_counter())
        if len(ends) == 2 or ends[0] - began > MOST_SECONDS:
            # Before anything is saved: nobody wants this copy.
            raise _EnoughError

    try:
        start = trainer.start_of(student, {}).adaptation
        copy = student.trainable_copy(None if start.all_weights else start)
        rows = [encode_record(record, copy) for record in chosen]
        order = [place % len(rows) for place in range(2 * settings.batch_size)]
        with TemporaryDirectory() as folder:
            began = time.perf_counter()
            train_phase(
                copy, rows, order, name="", settings=settings, directory=Path(folder), log=log
            )
    except _EnoughError:
        scale = trainer.batch_size / settings.batch_size
        return (ends[-1] - (ends[0] if len(ends) > 1 else began)) * scale
    except (DomainFusionError, RuntimeError) as error:  # RuntimeError: there is no memory for it
        logger.debug("No step could be timed: %s", error)
    return None


class _EnoughError(Exception):
    """Ends a training of which enough was seen."""


def seconds_of_an_answer(
    model: LanguageModel, examples: Sequence[Example], sampling: Sampling, domain: str = ""
) -> float | None:
    """Asks a local model a few questions, keeps nothing, and returns the seconds per answer, with
    the weights loaded before.

    Args:
        model: The model.
        examples: The questions, of which up to `QUESTIONS_TIMED` are taken, evenly spread.
        sampling: How it answers.
        domain: The domain whose part of a question it is asked; empty for the whole of it.

    Returns:
        The seconds; None where the model is not on this machine, or there are no questions.
    """
    if not isinstance(model, LocalWeights) or not examples:
        return None
    picked = examples[:: -(-len(examples) // QUESTIONS_TIMED)]
    asked = [
        example.conversation_for(domain) if domain else example.conversation for example in picked
    ]
    model.generate(asked[:1], Sampling(max_new_tokens=1))
    began = time.perf_counter()
    model.generate(asked, sampling)
    return (time.perf_counter() - began) / len(asked)
