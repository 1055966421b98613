"""How a run asks its models: through its store, each in its role, and where it may, on past what an
expert leaves unanswered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from domainfusion.distillation.run import RunDirectory
from domainfusion.errors import DomainFusionError, ModelError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ResponseStore
from domainfusion.progress import Progress
from domainfusion.records import write_json
from domainfusion.types import Conversation, Generation, Sampling

logger = logging.getLogger("domainfusion")


class RunAsk:
    """An `Ask` through the store of a run, which is open for as long as the run's directory is
    held.

    After each call, `usage.json` says what all sessions have taken so far.

    Args:
        run: The directory of the run.
        role_of: What a model is asked as.
        progress: Shows how far a call has got.
    """

    def __init__(
        self, run: RunDirectory, role_of: Callable[[LanguageModel], str], progress: Progress
    ) -> None:
        self._run = run
        self._role_of = role_of
        self._progress = progress
        self._store: ResponseStore | None = None

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
        try:
            answers = store.ask(
                model, conversations, sampling, label=label, role=self._role_of(model)
            )
        except BaseException:
            with suppress(
                DomainFusionError
            ):  # such as of a full disk: what went wrong first is what is told
                self._note(store)
            raise
        self._note(store)
        return answers

    def _note(self, store: ResponseStore) -> None:
        write_json(self._run.usage, list(store.usage()), listed=True)

    def _open_store(self) -> ResponseStore:
        if self._store is None:
            self._store = ResponseStore(self._run.responses, progress=self._progress)
            self._run.when_let_go(self._close_store)
        return self._store

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


class Gap(NamedTuple):
    """Questions that an expert left unanswered."""

    domain: str
    missing: int
    asked: int

    def __str__(self) -> str:
        return (
            f"The expert of {self.domain} left {self.missing} of {self.asked} questions unanswered"
        )


class AskOverGaps:
    """An `Ask` for which the questions that an expert leaves unanswered come back as failed; they
    are never stored.

    An expert that answers nothing at all is an error here too, as is any other model that fails.

    Args:
        ask: How models are called.
        experts: The models whose gaps are gone over, by domain.

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
