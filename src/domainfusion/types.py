"""The data that flows through a run: frozen, free of behavior, and the same in memory and on
disk.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from html import escape
from typing import Any, Literal

from domainfusion.checks import check_count, check_number, is_number
from domainfusion.errors import ConfigurationError, DataError

__all__ = [
    "Agreement",
    "Conflict",
    "Contribution",
    "Conversation",
    "Dropped",
    "Example",
    "FinishReason",
    "Generation",
    "Integration",
    "IntegrationVerdict",
    "Ledger",
    "Message",
    "Part",
    "Response",
    "Sampling",
    "Score",
    "Source",
    "TrainingRecord",
    "Verification",
    "domains_of",
    "fingerprint",
    "transcript",
    "user",
]

SCHEMA_VERSION = 1
"""Version of the records on disk. A reader refuses a higher one and upgrades a lower one."""

Source = Literal["synthetic", "adversarial", "curated", "custom"]
FinishReason = Literal["stop", "length", "refused", "filtered", "failed"]


def _no_metadata() -> dict[str, Any]:
    return {}


def fingerprint(value: object, *, length: int = 16) -> str:
    """Returns a short SHA-256 of `value`'s canonical JSON: equal values, equal fingerprints, on
    every machine.

    Lists and tuples are the same to it, as are 1 and 1.0; a dataclass is the mapping of its fields.

    Example:
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
        True
    """
    canonical = json.dumps(
        _canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:length]


def _canonical(value: object) -> object:
    if is_dataclass(value):
        return {part.name: _canonical(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: `system`, `user` or `assistant`.
        content: The text.
    """

    role: Literal["system", "user", "assistant"]
    content: str

    def __post_init__(self) -> None:
        if not isinstance(self.content, str):
            raise DataError(
                "The content of a message is not a text",
                received=self.content,
                allowed="a text",
                fix="give one question at a time; several are several conversations",
            )


Conversation = tuple[Message, ...]


def user(text: str) -> Conversation:
    """Returns the conversation that consists of one question."""
    return (Message("user", text),)


def check_conversations(conversations: object, sampling: object) -> None:
    """Refuses what a model can't be asked, such as texts in place of conversations.

    Raises:
        ConfigurationError: `conversations` are not tuples of messages, or `sampling` is not a
            `Sampling`.
    """
    if not isinstance(sampling, Sampling):
        raise ConfigurationError(
            "sampling is not a Sampling",
            received=sampling,
            allowed="an object of Sampling",
            fix="write Sampling(max_new_tokens=...)",
        )
    if (
        not isinstance(conversations, Sequence)
        or isinstance(conversations, str)
        or not all(map(_is_conversation, conversations))
    ):
        raise ConfigurationError(
            "conversations are not conversations",
            received=conversations,
            allowed="a list of tuples of messages",
            fix='write [user("a question")], with user from domainfusion.types',
        )


def _is_conversation(given: object) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(turn, Message) for turn in given)


def transcript(conversation: Conversation) -> str:
    """Returns a conversation as one text: a question by itself as it is, several turns each with
    who says it.

    Example:
        >>> transcript(user("Where is it?"))
        'Where is it?'
        >>> print(transcript((*user("What is NRT?"), Message("assistant", "An airport."), *user("Where is it?"))))
        User: What is NRT?
        Assistant: An airport.
        User: Where is it?
    """
    if len(conversation) == 1:
        return conversation[0].content
    return "\n".join(f"{message.role.capitalize()}: {message.content}" for message in conversation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a model writes its answer.

    Attributes:
        max_new_tokens: Tokens after which the answer is cut; its finish reason is then `length`.
        temperature: 0 is greedy; above 0, tokens are drawn from the distribution sharpened by
            1/temperature.
        top_p: Draw only from the smallest set of tokens whose probabilities reach this sum.
        seed: Seed of the draws. Each conversation draws from its own stream, so that batching
            changes nothing.

    Raises:
        ConfigurationError: A setting is outside of what is allowed.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("max_new_tokens", self.max_new_tokens)
        check_number("temperature", self.temperature, "[0, inf)")
        check_number("top_p", self.top_p, "(0, 1]")
        if not is_number(self.seed):
            raise ConfigurationError(
                "seed is not a number", received=self.seed, allowed="a whole number, such as 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a model wrote in answer to one conversation.

    Attributes:
        text: The answer, without special tokens and surrounding white space.
        finish_reason: `stop` where the model ended by itself, `length` where it was cut, `refused`
            or `filtered` where a server says so, `failed` where no answer came and the run went on
            without it.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written, the end token counted.
        reasoning: What the model thought before it answered, where it says so; it is not part of
            the answer.
    """

    text: str
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that a right answer has to state.

    Attributes:
        domain: The domain that knows it.
        answers: Accepted ways to write it, the preferred one first.
    """

    domain: str
    answers: tuple[str, ...]


_LONGEST_IN_REPR = 80


def _shortened(text: str) -> str:
    """Returns one line of a text, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_IN_REPR else f"{line[:_LONGEST_IN_REPR]}…"


def _html_table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Returns a table as a notebook shows it, with every text escaped."""
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows
    )
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One query with all that is known about it.

    Attributes:
        id: Unique in a run; left empty, it is the fingerprint of the query, the turns before it and
            its domains, whatever the order of the domains, white space, and the way in which
            Unicode composes a letter.
        query: What the student is asked.
        history: The turns of the dialogue before the query, the user's and the assistant's in turn;
            empty for a single question. The system message of a dialogue is none of them: each
            model has its own.
        domains: The domains whose expertise it needs; several make it cross-domain.
        primary_domain: The leading one of `domains`; left empty, the first.
        primary_is_named: Whether somebody named the primary domain, so that its expert may settle a
            conflict. Left None, it is true where `primary_domain` is given; the order of `domains`
            settles nothing.
        apparent_domain: The domain that an adversarial query looks like, and does not need; empty
            for others.
        source: The kind of generator that made it.
        sub_questions: For some domains, the part of the query that its expert is asked instead of
            the whole.
        parts: What a right answer states. Empty where that is not known.
        reference: A right answer in words. None where there is none.
        group: What it belongs to (a fact, a template, a passage); left empty, the query itself.
            Where examples are held out, a group goes as a whole, and intervals resample whole
            groups.
        metadata: Whatever else its maker wants kept; values are JSON.

    Raises:
        DataError: There are no domains, `domains` is one string instead of several, it looks like a
            domain that it needs, the turns of the history do not alternate from a user's to an
            assistant's, or the metadata are not JSON.
    """

    query: str
    domains: tuple[str, ...]
    primary_domain: str = ""
    primary_is_named: bool | None = None
    apparent_domain: str = ""
    history: Conversation = ()
    source: Source = "custom"
    sub_questions: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    reference: str | None = None
    group: str = ""
    metadata: Mapping[str, Any] = field(default_factory=_no_metadata)
    id: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.domains, str):
            raise DataError(
                "domains is one string",
                received=self.domains,
                allowed="names in a list or tuple",
                fix="write (domain,)",
            )
        object.__setattr__(self, "domains", tuple(self.domains))
        if not self.domains:
            raise DataError(
                "An example names no domain",
                received=self.query,
                fix="name the domains whose expertise the query needs",
            )
        if self.apparent_domain and self.apparent_domain in self.domains:
            raise DataError(
                "An example looks like a domain that it needs",
                received=self.apparent_domain,
                fix="name another, or none",
            )
        if self.primary_is_named is None:
            object.__setattr__(self, "primary_is_named", bool(self.primary_domain))
        object.__setattr__(self, "primary_domain", self.primary_domain or self.domains[0])
        object.__setattr__(self, "history", tuple(self.history))
        _check_turns(self.history)
        _check_metadata(self.metadata)
        object.__setattr__(self, "id", self.id or _id_of(self))
        object.__setattr__(self, "group", self.group or self.query)

    @property
    def is_cross_domain(self) -> bool:
        """Whether the query needs more than one domain."""
        return len(self.domains) > 1

    @property
    def is_adversarial(self) -> bool:
        """Whether the query looks like a domain that it does not need."""
        return bool(self.apparent_domain) or self.source == "adversarial"

    @property
    def has_reference(self) -> bool:
        """Whether an answer to it can be graded."""
        return bool(self.parts) or self.reference is not None

    def __repr__(self) -> str:
        return f"Example({_shortened(self.query)!r}, {' + '.join(self.domains)}, {self.source})"

    def _repr_html_(self) -> str:
        rows = [("domains", " + ".join(self.domains)), ("source", self.source)]
        for part in self.parts:
            rows.append(("expected", f"{part.domain}: {' | '.join(part.answers)}"))
        if self.reference is not None:
            rows.append(("reference", self.reference))
        return _html_table(self.query, rows)

    def question_for(self, domain: str) -> str:
        """Returns what the expert of `domain` is asked: its sub-question if there is one, else the
        whole query.
        """
        return self.sub_questions.get(domain, self.query)

    @property
    def conversation(self) -> Conversation:
        """What the student is asked: the earlier turns and the query."""
        return (*self.history, Message("user", self.query))

    def conversation_for(self, domain: str) -> Conversation:
        """Returns what the expert of `domain` is asked: the earlier turns and its question."""
        return (*self.history, Message("user", self.question_for(domain)))


def _check_turns(history: Conversation) -> None:
    roles = [message.role for message in history]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError(
            "The turns before a query do not alternate",
            received=roles,
            allowed="user, assistant, user, assistant …",
        )


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    try:
        json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"The metadata of an example can't be kept: {error}",
            received=metadata,
            allowed=(
                "what JSON has: texts, numbers (NaN is none), true, false and None, lists and dicts"
                " of them"
            ),
            fix="turn the value into one of these",
        ) from error


def _id_of(example: Example) -> str:
    turns = [[message.role, _without_form(message.content)] for message in example.history]
    return fingerprint([_without_form(example.query), sorted(example.domains), *turns])


def _without_form(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What one expert said to one Example.

    Attributes:
        domain: The domain whose expert answered.
        text: The answer.
        example_id: The Example it answers; empty for a response given by hand.
        question: What the expert was asked.
        finish_reason: See `Generation`.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        reasoning: What the expert thought before it answered; it is never trained on.
        teacher: Fingerprint of the model that answered; empty for a response given by hand.
        sampling: How it was written; None for a response given by hand.
    """

    domain: str
    text: str
    example_id: str = ""
    question: str = ""
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning: str = ""
    teacher: str = ""
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """A sentence of an expert that entered the integrated answer.

    Attributes:
        domain: Whose sentence it was.
        text: The sentence.
        start: Where it begins in the integrated text, in characters.
        end: Where it ends, exclusive.
    """

    domain: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Several experts stated the same.

    Attributes:
        claims: Each expert's sentence, by domain.
    """

    claims: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Experts contradict each other.

    Attributes:
        claims: Each expert's words, by domain.
        kept: A domain whose claim stands; None where the experts are reported to disagree, or no
            answer is given.
        rule: The rule that settled it, or that none did.
        question: What it is about, in a few words; empty where the claims alone show the conflict.
        sides: The domains, those that agree with each other together.
        owner: The domain that the point belongs to; empty where that is not known.
        found_by: `rules` or `model`.
    """

    claims: Mapping[str, str]
    kept: str | None
    rule: str
    question: str = ""
    sides: tuple[tuple[str, ...], ...] = ()
    owner: str = ""
    found_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A sentence, or a whole response, that did not enter the integrated answer.

    Attributes:
        domain: Whose it was.
        text: The words.
        reason: Why it was left out.
    """

    domain: str
    text: str
    reason: str


IntegrationVerdict = Literal["", "verified", "repaired", "unverified", "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Who contributed what to an integrated answer, how each conflict was settled, and whether the
    answer was verified.

    Attributes:
        contributions: The experts' words in the answer, each with its place there.
        agreements: What several experts stated alike.
        conflicts: Where they contradicted each other, both sides, and the rule that settled it.
        possible_conflicts: Where they may contradict each other. The answer is as if they did not.
        dropped: What did not enter the answer, and why.
        copies: Groups of domains whose answers are copies of each other and count as one.
        read_by: Who looked for conflicts: `model`, or `rules`, which compare values and negations
            alone; empty where nobody did.
        verdict: Whether a model's answer says what the experts say: `verified`, at once;
            `repaired`, after it was told what was wrong; `unverified`, and kept anyway;
            `rejected`, so that it is never trained on. Empty where nobody verified it, as a merge
            is made of the experts' own words.
        problems: What is wrong with an answer that is not verified.
        notes: What else there is to know, such as why a model's answer was not taken.
    """

    contributions: tuple[Contribution, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    possible_conflicts: tuple[Conflict, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    read_by: str = ""
    verdict: IntegrationVerdict = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Integration:
    """Several responses made one: `str()` of it is the text.

    Attributes:
        text: The integrated answer; empty where the integrator abstained.
        method: What made it: `single`, `merge`, `model`, or the name of a custom strategy.
        ledger: The record of contributions, conflicts and what was dropped.
        messages: What the integration model was asked, up to where the answer begins; empty without
            one.
        model: Fingerprint of the integration model; empty without one.
        finish_reason: `length` where the text was cut.
    """

    text: str
    method: str
    ledger: Ledger = field(default_factory=Ledger)
    messages: Conversation = ()
    model: str = ""
    finish_reason: FinishReason = "stop"

    def __str__(self) -> str:
        return self.text


Verification = Literal["verified", "unverified", "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What the trainer eats: an Example, what the experts said, and the one answer made of it.

    Attributes:
        example: The Example.
        responses: What the experts said, primary domain first.
        integration: The target and how it came about.
        verification: `verified` where a reference confirms the target, `rejected` where one
            contradicts it or nothing usable was said, `unverified` where there is no reference.
            Rejected records are kept for the report and never trained on.
        reason: Why it was rejected.
    """

    example: Example
    responses: tuple[Response, ...]
    integration: Integration
    verification: Verification = "unverified"
    reason: str = ""

    def __repr__(self) -> str:
        return (
            f"TrainingRecord({_shortened(self.example.query)!r} → {_shortened(self.target)!r},"
            f" {self.verification})"
        )

    def _repr_html_(self) -> str:
        rows = [(response.domain, response.text) for response in self.responses]
        outcome = f"{self.verification}: {self.reason}" if self.reason else self.verification
        return _html_table(self.example.query, [*rows, ("target", self.target), ("", outcome)])

    @property
    def target(self) -> str:
        """The text that the student is trained to answer."""
        return self.integration.text

    @property
    def is_usable(self) -> bool:
        """Whether it can be trained on: it has a target, and was not rejected."""
        return self.verification != "rejected" and bool(self.target.strip())


@dataclass(frozen=True, slots=True)
class Score:
    """A grade between 0 and 1, or the reason why there is none: unscored is not zero.

    An answer in which there is nothing to grade is wrong, and counted as not readable; unscored is
    what could not be measured, because there is no reference or a judge failed.

    Attributes:
        value: The grade; None where it could not be measured.
        reason: Why there is no grade, or why the answer is not readable.
        parts: The grade of each part, where the metric grades parts.
        readable: False where the answer has nothing to grade: it is empty, or has no number where
            one is asked for.
    """

    value: float | None
    reason: str = ""
    parts: tuple[float, ...] = ()
    readable: bool = True

    @classmethod
    def unscored(cls, reason: str) -> Score:
        """Returns the score that says why there is none."""
        return cls(None, reason)

    @classmethod
    def not_readable(cls, reason: str, *, parts: int = 1) -> Score:
        """Returns the score of an answer with nothing to grade in it: 0 for each of its parts.

        Example:
            >>> Score.not_readable("the answer has no number")
            Score(value=0.0, reason='the answer has no number', parts=(0.0,), readable=False)
        """
        return cls(0.0, reason, (0.0,) * parts, readable=False)


def domains_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """Returns every domain of `examples` once, in order of first appearance."""
    return tuple(dict.fromkeys(domain for example in examples for domain in example.domains))
