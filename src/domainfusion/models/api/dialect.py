"""What a request looks like to one server: the fields that it knows, and what to do without those that it does not."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

from domainfusion.errors import ConfigurationError
from domainfusion.models.api.answers import whole_characters
from domainfusion.models.api.failures import AttemptFailed
from domainfusion.prompts import fill
from domainfusion.types import Conversation, Message, Sampling

logger = logging.getLogger("domainfusion")

OPTIONAL_FIELDS = ("temperature", "top_p", "seed")
"""Fields that can be left out for a server, or a model, that refuses them."""

SCHEMA_PROMPT = "Answer with JSON alone, without any other word. It has to fit this JSON schema:\n{schema}"
"""Asks a server without structured output for JSON; `{schema}` is filled."""

_OWN_FIELDS = {"model", "messages", "max_tokens", "max_completion_tokens", "response_format", "stream", "n", *OPTIONAL_FIELDS}
_WORDS_OF_STRUCTURE = ("response_format", "json_schema", "schema", "grammar", "structured")


class Dialect:
    """Writes the body of a request.

    Args:
        model: The model's name on the server.
        system_prompt: Put before every conversation that has no system message.
        json_schema: What answers have to look like; None for plain text.
        extra_body: Further fields.
        omit: Fields that are left out.
        token_field: How the server calls the limit of tokens to write; the other name is tried where it is refused.

    Raises:
        ConfigurationError: A field to leave out that can't be, or one to add that is written already.
    """

    def __init__(
        self,
        model: str,
        *,
        system_prompt: str | None = None,
        json_schema: Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        omit: Collection[str] = (),
        token_field: str = "max_tokens",
    ) -> None:
        strange = set(omit) - set(OPTIONAL_FIELDS)
        if isinstance(omit, str) or strange:
            raise ConfigurationError("omit names fields that can't be left out", received=omit, allowed=f"some of {OPTIONAL_FIELDS}")
        taken = sorted((_OWN_FIELDS - set(omit)) & set(extra_body or {}))
        if taken:
            raise ConfigurationError(
                f"extra_body sets {taken[0]!r}, which follows from other arguments",
                received=taken,
                allowed="other fields",
                fix=f"set it where it belongs, or leave it out with omit=({taken[0]!r},)" if taken[0] in OPTIONAL_FIELDS else "",
            )
        self.model = model
        self.system_prompt = system_prompt
        self.json_schema = None if json_schema is None else dict(json_schema)
        self.extra_body = dict(extra_body or {})
        self.omit = frozenset(omit)
        self._token_field = token_field
        self._structured = json_schema is not None

    def with_json_schema(self, json_schema: Mapping[str, Any]) -> Dialect:
        """Returns the dialect that asks for JSON of this schema."""
        return Dialect(
            self.model,
            system_prompt=self.system_prompt,
            json_schema=json_schema,
            extra_body=self.extra_body,
            omit=self.omit,
            token_field=self._token_field,
        )

    def settings(self) -> list[object]:
        """Returns what decides the answers, for a fingerprint."""
        return [self.model, self.system_prompt, self.json_schema, self.extra_body, sorted(self.omit)]

    def body(self, conversation: Conversation, sampling: Sampling, seed: int) -> dict[str, Any]:
        """Returns the body of the request that asks for one answer."""
        messages = [{"role": m.role, "content": whole_characters(m.content)} for m in self.conversation(conversation)]
        body: dict[str, Any] = {"model": self.model, "messages": messages, self._token_field: sampling.max_new_tokens}
        body["temperature"] = sampling.temperature
        if sampling.temperature > 0:
            body["seed"] = seed
            if sampling.top_p < 1:
                body["top_p"] = sampling.top_p
        if self._structured:
            name = str((self.json_schema or {}).get("title", "answer"))
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": self.json_schema, "strict": True}}
        return {key: value for key, value in body.items() if key not in self.omit} | self.extra_body

    def conversation(self, conversation: Conversation) -> Conversation:
        """Returns the conversation as the server gets it, with its system message."""
        has_own = bool(conversation) and conversation[0].role == "system"
        system, turns = (conversation[0].content, conversation[1:]) if has_own else (self.system_prompt, conversation)
        if self.json_schema is not None and not self._structured:
            demand = fill(SCHEMA_PROMPT, {"schema": json.dumps(self.json_schema, ensure_ascii=False)})
            system = demand if system is None else f"{system}\n\n{demand}"
        return turns if system is None else (Message("system", system), *turns)

    def adapt(self, body: Mapping[str, Any], failure: AttemptFailed) -> bool:
        """Learns from a request that the server refused; whether the next one looks different."""
        if failure.scope != "request":
            return False
        complaint = failure.reason.lower()
        if "max_tokens" in body and "max_completion_tokens" in complaint:
            self._token_field = "max_completion_tokens"
            return True
        if "response_format" in body and any(word in complaint for word in _WORDS_OF_STRUCTURE):
            if self._structured:
                logger.warning("%s takes no JSON schema; it is asked for one in words.", self.model)
            self._structured = False
            return True
        return False
