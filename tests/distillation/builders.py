"""Small records, examples and models, so that a test shows only what it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from domainfusion.distillation import DataSettings, RunSettings
from domainfusion.models import ScriptedModel
from domainfusion.models.base import OnResult, sample_seeds
from domainfusion.types import (
    Contribution,
    Conversation,
    Dropped,
    Example,
    FinishReason,
    Generation,
    Integration,
    Ledger,
    Part,
    Response,
    Sampling,
    TrainingRecord,
    fingerprint,
)

DOMAINS = {
    "aviation": "Airports and the countries they are in",
    "chemistry": "Elements and their symbols",
}


def grouped(**settings: Any) -> dict[str, Any]:
    """Returns arguments of `Distiller`: those of its settings are put into their groups."""
    settings = {"answers": "off", **settings}
    groups: dict[str, Any] = {"data": DataSettings, "settings": RunSettings}
    for name, kind in groups.items():
        own = {field.name for field in fields(kind)} & settings.keys()
        if own:
            settings[name] = kind(**{key: settings.pop(key) for key in own})
    return settings


def parts_of(ledger: Ledger) -> list[Contribution | Dropped]:
    """Returns what the experts said: what is in the answer, and what was left out."""
    return [*ledger.contributions, *ledger.dropped]


def record(
    query: str = "Where is NRT?",
    target: str = "Japan.",
    domains: Sequence[str] = ("aviation",),
    *,
    id: str = "",
    finish_reason: FinishReason = "stop",
    **fields: Any,
) -> TrainingRecord:
    """Returns a record whose target was given by hand."""
    integration = Integration(text=target, method="given", finish_reason=finish_reason)
    return TrainingRecord(
        example=Example(query=query, domains=tuple(domains), id=id),
        responses=(),
        integration=integration,
        **fields,
    )


def example(
    query: str,
    answers: Mapping[str, str] | None = None,
    *,
    domains: Sequence[str] = (),
    **fields: Any,
) -> Example:
    """Returns an example with a part for each of `answers`."""
    parts = tuple(
        Part(domain=domain, answers=(answer,)) for domain, answer in (answers or {}).items()
    )
    return Example(
        query=query, domains=tuple(domains) or tuple(answers or ()), parts=parts, **fields
    )


def responses(**texts: str) -> dict[str, Response]:
    """Returns a response for each domain."""
    return {domain: Response(domain=domain, text=text) for domain, text in texts.items()}


class Cut(ScriptedModel):
    """Answers from a script, and for a given reason stops where it does."""

    finish_reason: FinishReason = "length"

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        return [
            Generation(text=given.text, finish_reason=self.finish_reason)
            for given in super().generate(conversations, sampling)
        ]


class Writer(ScriptedModel):
    """Writes a question for every prompt: another for each repeat, as a model that draws does, and
    the same ones each time.
    """

    def __init__(self) -> None:
        super().__init__("", name="writer")

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        questions = []
        for place, seed in enumerate(sample_seeds(sampling.seed, conversations)):
            self.calls.append(conversations[place])
            questions.append(
                Generation(
                    text=f"What do people ask about {fingerprint([seed, conversations[place]])}?"
                )
            )
            if on_result is not None:
                on_result(place, questions[-1])
        return questions


class Failing(ScriptedModel):
    """Answers from a script until it has answered so many questions, and then breaks down; `mend`
    makes it whole.
    """

    def __init__(
        self,
        script: Mapping[str, str] | Callable[[str], str] | str,
        *,
        after: int,
        name: str = "scripted",
    ) -> None:
        super().__init__(script, name=name)
        self._left: float = after

    def mend(self) -> None:
        self._left = float("inf")

    def _answer(self, question: str) -> str:
        if self._left <= 0:
            raise ConnectionError("the line is dead")
        self._left -= 1
        return super()._answer(question)
