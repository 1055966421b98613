"""How a run asks its models: through its store, each in its role, and where it may, on past what an
expert leaves unanswered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from domainfusion.distillation.data_generation import DataGenerator
from domainfusion.distillation.forecast import Forecast, kind_of
from domainfusion.distillation.integration import ResponseIntegrator
from domainfusion.distillation.run import RunDirectory
from domainfusion.errors import DomainFusionError, ModelError, StoreError
from domainfusion.models.base import (
    LanguageModel,
    OnPieces,
    OnResult,
    OnScores,
    PieceScores,
    ServedScorer,
    TokenScorer,
    TopScores,
)
from domainfusion.models.costs import PaidModel
from domainfusion.models.store import Ask, ResponseStore
from domainfusion.progress import Progress
from domainfusion.records import write_json
from domainfusion.types import Conversation, Generation, Sampling, user
from domainfusion.wording import counted

logger = logging.getLogger("domainfusion")


class Roles:
    """The roles in which a run asks its models, for `usage.json`.

    Args:
        teachers: The teacher of each domain.
        generators: The data generators, whose models write questions or judge them.
        integrator: The integrator, whose models write targets or verify them.

    Attributes:
        measured: The models that are evaluated, by their role.
    """

    def __init__(
        self,
        teachers: Mapping[str, LanguageModel],
        generators: Sequence[DataGenerator],
        integrator: ResponseIntegrator,
    ) -> None:
        self._teachers = teachers
        self._writers = [generator.generation_model for generator in generators]
        self._judges = [generator.judge for generator in generators]
        self._integrator = integrator
        self.measured: Mapping[str, LanguageModel] = {}

    def of(self, model: LanguageModel, stage: str) -> str:
        """Returns the role of a model that is asked in a stage."""
        if stage == "generate":
            is_judge = _is_among(model, self._judges) and not _is_among(model, self._writers)
            return "judge" if is_judge else "generation"
        domains = [domain for domain, teacher in self._teachers.items() if teacher is model]
        writer = self._integrator.integration_model
        if stage == "integrate" and (not domains or model is writer):
            return "verification" if _is_named(model, self._integrator.verifier) else "integration"
        if domains:
            return f"expert of {' and '.join(domains)}"
        if _is_named(model, writer):
            return "integration"  # of the ensemble's answers, with which the student is compared
        return next((role for role, one in self.measured.items() if one is model), "judge")


def _is_among(model: LanguageModel, models: Iterable[LanguageModel | None]) -> bool:
    return any(model is one for one in models)


def _is_named(model: LanguageModel, other: object) -> bool:
    """Whether a model is another one, by its name: with a JSON schema it is another object."""
    return isinstance(other, LanguageModel) and model.name == other.name


class RunAsk:
    """An `Ask` through the store of a run, which is open for as long as the run's directory is
    held.

    After each call, `usage.json` says what all sessions have taken so far.

    Args:
        run: The directory of the run.
        roles: What a model is asked as.
        progress: Shows how far a call has got; a `Forecast` also learns how long answers take.
        shared: The file of a store that other runs use too; None for none. What the trained student
            answers is not kept there.
    """

    def __init__(
        self, run: RunDirectory, roles: Roles, progress: Progress, shared: Path | None = None
    ) -> None:
        self._run = run
        self._roles = roles
        self._progress = progress
        self._shared_file = shared
        self._store: ResponseStore | None = None
        self._shared: ResponseStore | None = None

    def __call__(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
    ) -> list[Generation]:
        """See `Ask`."""
        store = self._open_store()
        if isinstance(self._progress, Forecast):
            self._progress.name(label, kind_of(model))
        try:
            role = self._roles.of(model, self._run.current_stage)
            answers = store.ask(
                model,
                conversations,
                sampling,
                label=label,
                role=role,
                is_shared=role != "student",
            )
        except BaseException:
            # A second error, such as of a full disk, must not hide the first.
            with suppress(DomainFusionError):
                self._note(store)
            raise
        self._note(store)
        return answers

    def booked(self, model: LanguageModel, whose: str) -> LanguageModel:
        """Returns a model whose scores this run counts too, as it counts its answers; the model
        itself where no server scores for it.

        Args:
            model: A model that teaches a student.
            whose: What it teaches, for the role in `usage.json`.
        """
        if isinstance(model, ServedScorer) and model.scores:
            return _BookedScorer(model, f"scoring for {whose}", self)
        return model

    @contextmanager
    def counting(self, model: LanguageModel, role: str) -> Iterator[Callable[[int, int], None]]:
        """See `ResponseStore.counting`; `usage.json` is written when the block ends."""
        store = self._open_store()
        try:
            with store.counting(model, role) as count:
                yield count
        except BaseException:
            with suppress(DomainFusionError):
                self._note(store)
            raise
        self._note(store)

    def has_asked_experts(self) -> bool:
        """Whether this run asked an expert, and did not find every answer in the shared store."""
        roles = [role for model in self._open_store().usage() for role in model.roles]
        return any(role.startswith("expert of ") for role in roles)

    def flush(self) -> None:
        """Has all answers on the disk; see `ResponseStore.flush`."""
        self._open_store().flush()

    def _note(self, store: ResponseStore) -> None:
        write_json(self._run.usage, list(store.usage()), listed=True)

    def _open_store(self) -> ResponseStore:
        if self._store is None:
            self._shared = self._open_shared()
            self._store = ResponseStore(
                self._run.responses, progress=self._progress, shared=self._shared
            )
            self._run.when_let_go(self._close_store)
        return self._store

    def _open_shared(self) -> ResponseStore | None:
        """Opens the shared store; a run needs none, so one that can't be used is left out."""
        if self._shared_file is None:
            return None
        try:
            return ResponseStore(self._shared_file)
        except StoreError as error:
            logger.warning("Answers of other runs are not used: %s", error)
            return None

    def _close_store(self) -> None:
        if self._store is not None:
            if self._store.taken_over:
                logger.info(
                    "%d answers were taken from other runs, in %s.",
                    self._store.taken_over,
                    self._shared_file,
                )
            self._store.close()
            self._store = None
        if self._shared is not None:
            self._shared.close()
            self._shared = None


class _BookedScorer:
    """A served teacher of a training, whose scores a run counts.

    Args:
        model: The teacher.
        role: What `usage.json` says that it is asked as.
        ask: How the run asks its models.
    """

    def __init__(self, model: ServedScorer, role: str, ask: RunAsk) -> None:
        self._model, self._role, self._ask = model, role, ask
        self.name = model.name
        self.fingerprint = model.fingerprint
        self.scores = model.scores
        self.scored_tokens = model.scored_tokens

    def __repr__(self) -> str:
        return repr(self._model)

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """See `LanguageModel`."""
        return self._model.generate(conversations, sampling, on_result)

    def score_answers(
        self,
        answers: Sequence[tuple[Conversation, Sequence[int]]],
        student: TokenScorer,
        on_scores: OnScores,
    ) -> dict[int, str]:
        """See `ServedScorer`."""
        if not answers:
            return {}
        with self._ask.counting(self._model, self._role) as count:

            def take(index: int, scores: TopScores) -> None:
                count(scores.prompt_tokens, scores.completion_tokens)
                on_scores(index, scores)

            return self._model.score_answers(answers, student, take)

    def score_pieces(
        self, conversations: Sequence[Conversation], on_pieces: OnPieces
    ) -> dict[int, str]:
        """See `ServedScorer`."""
        if not conversations:
            return {}
        with self._ask.counting(self._model, self._role) as count:

            def take(index: int, scores: PieceScores) -> None:
                count(scores.prompt_tokens, scores.completion_tokens)
                on_pieces(index, scores)

            return self._model.score_pieces(conversations, take)


class Gap(NamedTuple):
    """Questions that an expert left unanswered."""

    domain: str
    missing: int
    asked: int

    def __str__(self) -> str:
        return f"The expert of {self.domain} left {self.missing} of {counted(self.asked, 'question')} unanswered"


class AskOverGaps:
    """An `Ask` for which the questions that an expert leaves unanswered come back as failed; they
    are never stored.

    An expert that answers nothing at all is an error here too, as is any other model that fails.

    Args:
        ask: How models are called.
        experts: The models whose unanswered questions are skipped, by domain.

    Attributes:
        gaps: What was left unanswered so far.
    """

    def __init__(self, ask: Ask, experts: Mapping[str, LanguageModel]) -> None:
        self.gaps: list[Gap] = []
        self._ask = ask
        self._experts = experts

    def __call__(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
    ) -> list[Generation]:
        """See `Ask`."""
        try:
            return self._ask(model, conversations, sampling, label=label)
        except ModelError as error:
            domains = [domain for domain, expert in self._experts.items() if expert is model]
            answered = [
                conversation
                for conversation in conversations
                if conversation not in error.unanswered
            ]
            if not domains or not answered or len(answered) == len(conversations):
                raise
            gap = Gap(" and ".join(domains), len(conversations) - len(answered), len(conversations))
            logger.warning("%s: %s", gap, error)
            unanswered = error.unanswered
        stored = iter(self._ask(model, answered, sampling, label=label))
        self.gaps.append(gap)
        return [
            Generation(text="", finish_reason="failed") if each in unanswered else next(stored)
            for each in conversations
        ]


FIRST_QUESTION = user("Please answer this with one word: are you there?")


def ask_first(
    ask: Ask, experts: Mapping[str, LanguageModel], sampling: Sampling, *, stops: bool
) -> None:
    """Asks every expert behind an API one question, so that a wrong key, address or name shows
    before anything else is done.

    Args:
        ask: How models are called.
        experts: The experts by domain; those that run on this machine are not asked.
        sampling: How they answer.
        stops: Whether one that does not answer ends the run; else a warning names it.

    Raises:
        ModelError: One did not answer, and `stops` is set.
    """
    for domain, expert in experts.items():
        if not isinstance(expert, PaidModel):
            continue
        try:
            label = f"asking the expert of {domain} a first question"
            ask(expert, [FIRST_QUESTION], sampling, label=label)
        except ModelError as error:
            if stops:
                raise
            logger.warning("The expert of %s did not answer: %s", domain, error)
