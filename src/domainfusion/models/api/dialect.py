"""What a request looks like to one server: the fields that it knows, and what to do without those
that it does not.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from domainfusion.checks import check_count, check_word
from domainfusion.errors import ConfigurationError
from domainfusion.models.api.failures import CONTEXT_FIX, AttemptFailed
from domainfusion.prompts import fill
from domainfusion.records import whole_characters
from domainfusion.types import Conversation, Message, Sampling

logger = logging.getLogger("domainfusion")

OPTIONAL_FIELDS = ("temperature", "top_p", "seed", "stream", "response_format", "system")
"""What can be left out for a server, or a model, that refuses it. Without `response_format`, JSON
is asked for in words; without `system`, the system message stands before the first question.
"""

SCHEMA_PROMPT = (
    "Answer with JSON alone, without any other word. It has to fit this JSON schema:\n{schema}"
)
"""Asks a server without structured output for JSON; `{schema}` is filled."""

_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
_OWN_FIELDS = {"model", "messages", "n", *_TOKEN_FIELDS, *OPTIONAL_FIELDS}
_WORDS_OF_STRUCTURE = ("response_format", "json_schema", "schema", "grammar", "structured")
_REFUSALS = frozenset({400, 422, 500, 501})
"""Statuses with which servers refuse a field; llama.cpp says 500 where a chat template does."""

_UNKNOWN = r"""unsupported | not[ ]support | n't[ ]support | unknown | unrecogni[sz]ed | unexpected | extra | permitted
               | not[ ](?:allowed|enabled|available|accepted) | instead"""
# What servers say of a field that they do not know.
_REFUSED_FIELD = re.compile(_UNKNOWN, re.VERBOSE | re.IGNORECASE)
# The same, and what they say of a value that they do not take.
_REFUSED = re.compile(
    rf"{_UNKNOWN} | invalid | must[ ]be | only[ ]the[ ]default | fixed[ ]at | greater[ ]than |"
    r" strictly | deprecated | cannot | can't",
    re.VERBOSE | re.IGNORECASE,
)
_REFUSED_SYSTEM = re.compile(
    r"""system.{0,30}(?:role|message|prompt|instruction) | roles?\b.{0,120}\bsystem
      | developer[ ]instruction | roles[ ]must[ ]alternate | roles[ ]are[ ]supported""",
    re.VERBOSE | re.IGNORECASE,
)
"""A system message refused: by OpenAI, Google, and the chat templates of Gemma and Mistral."""


@dataclass
class _Learned:
    """What a server turned out to refuse; shared by all that ask it.

    Attributes:
        token_field: How it calls the limit of tokens to write.
        is_settled: Whether the other name was refused, too.
        refused: Of `OPTIONAL_FIELDS`, those that it refused.
    """

    token_field: str
    is_settled: bool = False
    refused: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """In what a server differs from OpenAI's chat API, and how its answers are read.

    Args:
        include_reasoning: Keep the reasoning in the text, between `<think>` and `</think>`. By
            default it is kept apart, in `Generation.reasoning`, and not trained on.
        omit: What the server or the model refuses: `temperature`, `top_p`, `seed`, `stream`;
            `response_format`, so that JSON is asked for in words; `system`, so that the system
            message stands before the first question. What is refused and is not named here is left
            out once that is known, with a warning.
        extra_body: Further fields of each request, such as `{"reasoning_effort": "low"}`.
        require_finish_reason: Take no answer of which the server does not say why it ended. By
            default such an answer is whole unless it has as many tokens as it was allowed.
        check_prompt_tokens: Take no answer where the server counts far fewer tokens than the prompt
            has, since its context window was too small. False for a server that counts otherwise.
        accept_empty: Take an answer without text for what it is. By default it is a fault: the
            question is asked again, and then given up.

        scoring: How a server is asked for scores, where `APIModel(scores=True)` says so: as `vllm`
            or as `sglang`.
        scored_tokens: How many of the most probable tokens are scored at each place; vLLM gives up
            to 20 unless `--max-logprobs` allows more. The rest of the probability is one share.

    Raises:
        ConfigurationError: A field to leave out that can't be, or one to add that is written
            already; a word that is not known, or a number that is not positive.
    """

    include_reasoning: bool = False
    omit: Collection[str] = ()
    extra_body: Mapping[str, Any] | None = None
    require_finish_reason: bool = False
    check_prompt_tokens: bool = True
    accept_empty: bool = False
    scoring: Literal["vllm", "sglang"] = "vllm"
    scored_tokens: int = 20

    def __post_init__(self) -> None:
        check_word("scoring", self.scoring, ("vllm", "sglang"))
        check_count("scored_tokens", self.scored_tokens)
        strange = set(self.omit) - set(OPTIONAL_FIELDS)
        if isinstance(self.omit, str) or strange:
            raise ConfigurationError(
                "omit names fields that can't be left out",
                received=self.omit,
                allowed=f"some of {OPTIONAL_FIELDS}",
            )
        taken = sorted((_OWN_FIELDS - set(self.omit)) & set(self.extra_body or {}))
        if taken:
            raise ConfigurationError(
                f"extra_body sets {taken[0]!r}, which follows from other arguments",
                received=taken,
                allowed="other fields",
                fix=(
                    f"set it where it belongs, or leave it out with omit=({taken[0]!r},)"
                    if taken[0] in OPTIONAL_FIELDS
                    else ""
                ),
            )


class RequestWriter:
    """Writes the body of a request.

    Args:
        model: The model's name on the server.
        dialect: In what the server differs.
        system_prompt: Put before every conversation that has no system message.
        json_schema: What answers have to look like; None for plain text.
        token_field: How the server calls the limit of tokens to write; the other name is tried
            where it is refused.
    """

    def __init__(
        self,
        model: str,
        dialect: Dialect = Dialect(),
        *,
        system_prompt: str | None = None,
        json_schema: Mapping[str, Any] | None = None,
        token_field: str = "max_tokens",
    ) -> None:
        self.model = model
        self.dialect = dialect
        self.system_prompt = system_prompt
        self.json_schema = None if json_schema is None else dict(json_schema)
        self.extra_body = dict(dialect.extra_body or {})
        self.omit = frozenset(dialect.omit)
        self._learned = _Learned(token_field)

    def with_json_schema(self, json_schema: Mapping[str, Any]) -> RequestWriter:
        """Returns one that asks for JSON of this schema; what the server refuses stays
        known.
        """
        constrained = RequestWriter(
            self.model,
            self.dialect,
            system_prompt=self.system_prompt,
            json_schema=json_schema,
        )
        constrained._learned = self._learned
        return constrained

    def settings(self) -> list[object]:
        """Returns what decides the answers, for a fingerprint."""
        return [
            self.model,
            self.system_prompt,
            self.json_schema,
            self.extra_body,
            sorted(self.omit),
            self.dialect.include_reasoning,
        ]

    def body(self, conversation: Conversation, sampling: Sampling, seed: int) -> dict[str, Any]:
        """Returns the body of the request that asks for one answer."""
        messages = [
            {"role": m.role, "content": whole_characters(m.content)}
            for m in self.conversation(conversation)
        ]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            self._learned.token_field: sampling.max_new_tokens,
        }
        body["stream"] = False  # some servers stream unless they are told not to
        body["temperature"] = sampling.temperature
        if sampling.temperature > 0:
            body["seed"] = seed
            if sampling.top_p < 1:
                body["top_p"] = sampling.top_p
        if self.json_schema is not None:
            name = str(self.json_schema.get("title", "answer"))
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": name, "schema": self.json_schema, "strict": True},
            }
        return {
            key: value for key, value in body.items() if not self._leaves_out(key)
        } | self.extra_body

    def conversation(self, conversation: Conversation) -> Conversation:
        """Returns the conversation as the server gets it, with its system message."""
        has_own = bool(conversation) and conversation[0].role == "system"
        system, turns = (
            (conversation[0].content, conversation[1:])
            if has_own
            else (self.system_prompt, conversation)
        )
        if self.json_schema is not None and self._leaves_out("response_format"):
            demand = fill(
                SCHEMA_PROMPT, {"schema": json.dumps(self.json_schema, ensure_ascii=False)}
            )
            system = demand if system is None else f"{system}\n\n{demand}"
        if system is None:
            return turns
        if self._leaves_out("system") and turns and turns[0].role == "user":
            return (Message("user", f"{system}\n\n{turns[0].content}"), *turns[1:])
        return (Message("system", system), *turns)

    def _leaves_out(self, name: str) -> bool:
        return name in self.omit or name in self._learned.refused

    def adapt(self, body: Mapping[str, Any], failure: AttemptFailed) -> bool:
        """Learns from a request that the server refused; whether the next one looks different."""
        if failure.status not in _REFUSALS or failure.fix == CONTEXT_FIX:
            return False
        complaint = failure.complaint
        if "response_format" in body and any(
            word in complaint.lower() for word in _WORDS_OF_STRUCTURE
        ):
            return self._leave_out("response_format", "JSON is asked for in words instead")
        limit = next((name for name in _TOKEN_FIELDS if name in body), "")
        if limit and _names(complaint, limit) and _REFUSED_FIELD.search(complaint):
            return self._rename_limit(limit)
        if any(
            message["role"] == "system" for message in body["messages"]
        ) and _REFUSED_SYSTEM.search(complaint):
            return self._leave_out(
                "system", "the system message stands before the first question instead"
            )
        # top_p before temperature: some models take one of the two.
        for name in ("top_p", "temperature", "seed", "stream"):
            if (
                name in body
                and name not in self.extra_body
                and _names(complaint, name)
                and _REFUSED.search(complaint)
            ):
                return self._leave_out(name, "the server's own value holds instead")
        return False

    def _rename_limit(self, refused: str) -> bool:
        """Calls the limit of tokens by its other name; once, as a server may refuse both."""
        learned = self._learned
        if learned.token_field == refused:
            if learned.is_settled:
                return False
            learned.token_field = next(name for name in _TOKEN_FIELDS if name != refused)
            learned.is_settled = True
        return True

    def _leave_out(self, name: str, instead: str) -> bool:
        if name not in self._learned.refused:
            self._learned.refused.add(name)
            logger.warning(
                "%s refuses %s: %s. Say omit=(%r,) to do so from the start.",
                self.model,
                name,
                instead,
                name,
            )
        return True

    def advice(self, failure: AttemptFailed) -> str:
        """Returns what to do about a request that stays refused, as far as a field in it is
        named.
        """
        if failure.status not in _REFUSALS:
            return ""
        named = next((name for name in self.extra_body if _names(failure.complaint, name)), None)
        if named is not None:
            return f"change {named!r} in extra_body, or remove it"
        if any(_names(failure.complaint, name) for name in _TOKEN_FIELDS):
            return "lower max_new_tokens"
        return ""


def _names(complaint: str, name: str) -> bool:
    """Whether a complaint names a field, as a word of its own."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", complaint, re.IGNORECASE) is not None
