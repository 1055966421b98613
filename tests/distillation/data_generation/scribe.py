"""A model that writes questions, for tests: a new one each time, or what a script says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from domainfusion.distillation.data_generation import Variety, WritingSettings
from domainfusion.models import ScriptedModel
from domainfusion.models.base import OnResult
from domainfusion.types import Conversation, Generation, Sampling

DOMAINS = {
    "biomechanics": "How living things move",
    "physiology": "What the body does when it works",
    "nutrition": "What athletes eat",
}

NO_VARIETY = Variety(topics_per_domain=0, personas=(), difficulties=(), forms=())
"""Prompts that differ in their domains alone."""


def in_groups(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments of a generator, those of how a model writes in their group."""
    own = {field.name for field in fields(WritingSettings)} & options.keys()
    rest = {name: value for name, value in options.items() if name not in own}
    return {**rest, "writing": WritingSettings(**{name: options[name] for name in own})}


class Scribe(ScriptedModel):
    """Writes another question each time, with its seed and its count in it; or what a function of
    the count says.
    """

    def __init__(self, reply: Callable[[int], str] | None = None) -> None:
        super().__init__("", name="scribe")
        self._reply = reply
        self.written = 0

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        self.calls += conversations
        return [
            Generation(text=self._write(sampling.seed + place))
            for place, _ in enumerate(conversations)
        ]

    def _write(self, seed: int) -> str:
        self.written += 1
        return (
            self._reply(self.written)
            if self._reply
            else f"How does the body of number {seed} move?"
        )

    @property
    def prompts(self) -> list[str]:
        return [conversation[-1].content for conversation in self.calls]


class SchemaScribe(Scribe):
    """One that can be held to a JSON schema; it keeps the schemas that it was given."""

    def __init__(self, reply: Callable[[int], str] | None = None) -> None:
        super().__init__(reply)
        self.schemas: list[Mapping[str, Any]] = []

    def with_json_schema(self, json_schema: Mapping[str, Any]) -> SchemaScribe:
        self.schemas.append(json_schema)
        return self
