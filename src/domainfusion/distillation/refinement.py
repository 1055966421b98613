"""Refinement: more data where validation shows the student weakest, kept only where it helps."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from domainfusion.distillation.data_generation import Focus
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.metrics import AccuracyMetric
from domainfusion.distillation.results import Refinement, RefinementRound, Shortfall
from domainfusion.distillation.run import StageFiles, read_refinement
from domainfusion.errors import CapabilityError, ConfigurationError, DataError, TrainingError
from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.progress import VALIDATING, Advance, Progress, silent
from domainfusion.records import read_records, write_json
from domainfusion.types import Conversation, Example, Generation, Sampling, TrainingRecord
from domainfusion.wording import counted


@dataclass(frozen=True)
class Validation:
    """The validation examples of a run. Called with a student, it returns the student's accuracy by
    slice.

    Attributes:
        examples: The examples.
        metric: Grades an answer.
        sampling: How models answer.
        progress: Shows how far a student is.
    """

    examples: Sequence[Example]
    metric: AccuracyMetric
    sampling: Sampling
    progress: Progress = silent

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, student: LanguageModel) -> dict[str, float]:
        """Returns the mean grade of every slice that has one."""
        with self.progress(VALIDATING, len(self.examples)) as advance:
            ask = partial(_ask_counting, advance)
            return self.by_slice(self.grades(student, self.examples, ask=ask))

    def grades(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        *,
        ask: Ask = ask_directly,
        label: str = "",
    ) -> list[float | None]:
        """Asks a model and grades its answers; None where it did not answer, or the metric could
        not grade.
        """
        answers = ask(
            model, [example.conversation for example in examples], self.sampling, label=label
        )
        return [
            None if answer.finish_reason == "failed" else self.metric(example, answer.text).value
            for example, answer in zip(examples, answers, strict=True)
        ]

    def by_slice(self, grades: Sequence[float | None]) -> dict[str, float]:
        """Returns the mean by slice of what was graded, of grades in the order of the examples."""
        found: dict[str, list[float]] = {}
        for example, grade in zip(self.examples, grades, strict=True):
            if grade is not None:
                found.setdefault(slice_of(example), []).append(grade)
        return {name: mean_of(values) for name, values in found.items()}


def _ask_counting(
    advance: Advance,
    model: LanguageModel,
    conversations: Sequence[Conversation],
    sampling: Sampling = Sampling(),
    *,
    label: str = "",
) -> list[Generation]:
    """Asks the model, keeps nothing, and tells of each answer."""
    seen: set[int] = set()

    def on_answer(position: int, _: Generation) -> None:
        if position not in seen:
            seen.add(position)
            advance(1)

    return model.generate(conversations, sampling, on_answer)


def mean_of(values: Sequence[float]) -> float:
    """Returns the mean; 0 of nothing."""
    return sum(values) / max(len(values), 1)


logger = logging.getLogger("domainfusion")

REPLAY = 1.0
"""Earlier records that a round sees again for each new one: as many as are new keep what is known,
and hold the round short.
"""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What a round goes through, each as the run itself does it; a stage that is done is read from
    the round's files.

    Attributes:
        make: Makes new examples where a focus says.
        integrate: Asks the experts, and makes a target of their answers.
        train: Trains on records, from the student that is given last.
    """

    make: Callable[[Focus, StageFiles], Sequence[Example]]
    integrate: Callable[[Sequence[Example], StageFiles], Sequence[TrainingRecord]]
    train: Callable[[Sequence[TrainingRecord], StageFiles, TrainableModel], TrainableModel]


@dataclass(frozen=True, kw_only=True)
class Refiner:
    """Goes through rounds until nothing improves. What it decides is in `refinement.json`, and is
    not decided again.

    Attributes:
        rounds: The most rounds.
        files: The files of the run.
        stages: What a round goes through.
        validation: Tells where the student is weak, and whether a round helped. Nothing else does;
            the test set is not read.
        teachers: The expert of each domain.
        ask: How the experts are asked.
        seed: Seed of what is replayed.
    """

    rounds: int
    files: StageFiles
    stages: Stages
    validation: Validation
    teachers: Mapping[str, LanguageModel]
    ask: Ask
    seed: int

    def refine(self, student: TrainableModel) -> TrainableModel:
        """Returns the student of the last round that was kept; the one that is given where none
        was.
        """
        for entry in self._found.kept:
            student = self._trained(entry.number, student)
        while self._begin_round(student):
            student = self._go_through_round(student)
        return student

    @property
    def _found(self) -> Refinement:
        return read_refinement(self.files)

    def _begin_round(self, student: TrainableModel) -> bool:
        """Notes where the student is weak, unless a round is begun already; returns whether there
        is a round to go through.
        """
        found = self._found
        if found.stopped:
            return False
        if found.rounds and found.rounds[-1].is_kept is None:
            return True
        if len(found.rounds) == self.rounds:
            return self._stop(found, "all rounds that were asked for are over")
        grades = self.validation.grades(student, self.validation.examples)
        shortfalls = self._shortfalls(grades)
        if not any(shortfall.missing > 0 for shortfall in shortfalls):
            return self._stop(
                found,
                "nothing is missing on validation"
                if shortfalls
                else "no validation answer could be graded",
            )
        entry = RefinementRound(
            number=len(found.rounds) + 1,
            shortfalls=shortfalls,
            before=self.validation.by_slice(grades),
        )
        write_json(
            self.files.refinement, replace(found, rounds=(*found.rounds, entry)), listed=True
        )
        return True

    def _go_through_round(self, student: TrainableModel) -> TrainableModel:
        """Makes data, trains on it, and returns the better of the two students by validation."""
        entry = self._found.rounds[-1]
        files = self.files.round(entry.number)
        examples = self.stages.make(self._focus(entry), files)
        new = (
            [record for record in self.stages.integrate(examples, files) if record.is_usable]
            if examples
            else []
        )
        entry = replace(entry, examples=len(examples), records=len(new))
        if not new:
            what = (
                "no new example was made"
                if not examples
                else f"none of {counted(len(examples), 'new example')} has a target to learn"
            )
            self._close(replace(entry, is_kept=False), what)
            return student
        entry = replace(entry, replayed=len(self._lesson(entry.number)) - len(new))
        try:
            trained = self._trained(entry.number, student)
        except (ConfigurationError, CapabilityError, DataError, TrainingError) as error:
            if (
                error.__cause__ is not None
            ):  # the machine's doing, which may be fixed, and not the round's
                raise
            self._close(
                replace(entry, is_kept=False),
                f"the round could not be trained, so the student before it is kept: {error}",
            )
            return student
        entry = replace(entry, after=self.validation(trained))
        self._close(
            replace(entry, is_kept=entry.improves),
            ""
            if entry.improves
            else "the round did not improve validation, so the student before it is kept",
        )
        return trained if entry.improves else student

    def _close(self, entry: RefinementRound, stopped: str) -> None:
        found = self._found
        logger.info("refinement, round %d: %s", entry.number, stopped or "kept")
        write_json(
            self.files.refinement,
            replace(found, rounds=(*found.rounds[:-1], entry), stopped=stopped),
            listed=True,
        )

    def _stop(self, found: Refinement, why: str) -> bool:
        logger.info("The refinement stops: %s", why)
        write_json(self.files.refinement, replace(found, stopped=why), listed=True)
        return False

    def _shortfalls(self, student: Sequence[float | None]) -> tuple[Shortfall, ...]:
        examples = self.validation.examples
        experts: dict[str, dict[int, float | None]] = {}
        for domain, teacher in self.teachers.items():
            places = [
                place for place, example in enumerate(examples) if example.domains == (domain,)
            ]
            asked = [examples[place] for place in places]
            grades = (
                self.validation.grades(teacher, asked, ask=self.ask, label=f"validating {domain}")
                if asked
                else []
            )
            experts[domain] = dict(zip(places, grades, strict=True))
        return shortfalls_of(examples, student, experts)

    def _focus(self, entry: RefinementRound) -> Focus:
        earlier = [self.files, *(self.files.round(number) for number in range(1, entry.number))]
        return Focus(
            weights={shortfall.domains: shortfall.missing for shortfall in entry.shortfalls},
            round=entry.number,
            earlier=tuple(
                example for files in earlier for example in read_records(files.examples, Example)
            ),
        )

    def _trained(self, number: int, student: TrainableModel) -> TrainableModel:
        return self.stages.train(self._lesson(number), self.files.round(number), student)

    def _lesson(self, number: int) -> list[TrainingRecord]:
        """Returns the records of a round: its own, and some of earlier ones."""
        new = _usable(self.files.round(number))
        earlier = [
            record
            for files in (self.files, *map(self.files.round, range(1, number)))
            for record in _usable(files)
        ]
        return [
            *new,
            *replayed(
                earlier, round(REPLAY * len(new)), random.Random(f"{self.seed}/refinement/{number}")
            ),
        ]


def shortfalls_of(
    examples: Sequence[Example],
    student: Sequence[float | None],
    experts: Mapping[str, Mapping[int, float | None]],
) -> tuple[Shortfall, ...]:
    """Returns the shortfall of each domain and combination of domains, the largest first.

    Args:
        examples: The validation examples.
        student: The student's grades, in their order; None where there is none.
        experts: Each domain's expert's grades on the examples of that domain alone, by their
            places.
    """
    places: dict[tuple[str, ...], list[int]] = {}
    for place, example in enumerate(examples):
        own = experts.get(example.domains[0], {}).get(place) if not example.is_cross_domain else 0.0
        if student[place] is not None and own is not None:
            places.setdefault(
                tuple(domain for domain in experts if domain in example.domains), []
            ).append(place)
    found = [_shortfall(domains, own, student, experts) for domains, own in places.items()]
    return tuple(sorted(found, key=lambda shortfall: -shortfall.missing))


def _shortfall(
    domains: tuple[str, ...],
    places: Sequence[int],
    student: Sequence[float | None],
    experts: Mapping[str, Mapping[int, float | None]],
) -> Shortfall:
    reached = mean_of([student[place] or 0.0 for place in places])
    if len(domains) > 1:
        return Shortfall(
            domains=domains, items=len(places), student=reached, expert=None, missing=1 - reached
        )
    best = mean_of([experts[domains[0]][place] or 0.0 for place in places])
    missing = max(0.0, 1 - reached / best) if best > 0 else 0.0
    return Shortfall(
        domains=domains, items=len(places), student=reached, expert=best, missing=missing
    )


def replayed(
    earlier: Sequence[TrainingRecord], count: int, rng: random.Random
) -> list[TrainingRecord]:
    """Draws earlier records, one at least of each kind, as a trainer may have given each domain its
    share; at most all there are.
    """
    drawn = rng.sample(earlier, len(earlier))
    kinds: dict[tuple[str, ...], int] = {}
    for place, record in enumerate(drawn):
        kinds.setdefault((record.example.primary_domain, *sorted(record.example.domains)), place)
    first = set(kinds.values())
    others = [place for place in range(len(drawn)) if place not in first]
    return [drawn[place] for place in (*kinds.values(), *others)[: max(count, len(first))]]


def trained_records(directory: Path) -> list[TrainingRecord]:
    """Returns the records that the student of a run was made with: its own and those of the rounds
    that were kept, rejected ones too.
    """
    files = StageFiles(directory)
    rounds = [files.round(entry.number) for entry in read_refinement(files).kept]
    return [
        record for each in (files, *rounds) for record in read_records(each.records, TrainingRecord)
    ]


def _usable(files: StageFiles) -> list[TrainingRecord]:
    return [record for record in read_records(files.records, TrainingRecord) if record.is_usable]
