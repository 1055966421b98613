"""Reading and relating by a model: it quotes the experts' claims, and says in both orders of the
experts how these stand to each other.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any, Literal, NamedTuple, TypeVar

from domainfusion.distillation.integration.conflicts import rule_claims
from domainfusion.distillation.integration.reading import (
    Claim,
    Kind,
    Quotable,
    Relation,
    Task,
    uncovered,
)
from domainfusion.distillation.integration.words import Date, Quantity, compare, find_values
from domainfusion.distillation.text.refusals import Screening
from domainfusion.distillation.text.sentences import Block, Span, blocks_of
from domainfusion.distillation.text.structures import structures_in
from domainfusion.models.base import LanguageModel, SchemaModel, TokenScorer
from domainfusion.models.reasoning import split_reasoning
from domainfusion.models.store import Ask
from domainfusion.prompts import READING_PROMPT, RELATING_PROMPT, fenced, fill
from domainfusion.records import whole_characters
from domainfusion.types import (
    Conversation,
    Example,
    Generation,
    Response,
    Sampling,
    transcript,
    user,
)

logger = logging.getLogger("domainfusion")

LONGEST_PROMPT = 400_000
"""Characters of a prompt, about 100,000 tokens of English: few models read more, and few of these
tell how much.
"""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Caller:
    """A model, and how a step of an integration calls it.

    Attributes:
        model: The model.
        ask: How it is called.
    """

    model: LanguageModel
    ask: Ask

    def call(
        self,
        conversations: Mapping[Key, Conversation],
        sampling: Sampling,
        label: str,
        schema: Mapping[str, Any] | None = None,
    ) -> dict[Key, Generation]:
        """Returns the model's replies; a conversation that does not fit into its context has none.

        Args:
            conversations: What it is asked, each under a key.
            sampling: How it writes.
            label: Names the work where its progress is shown.
            schema: The JSON schema that a model which can be held to one is held to.
        """
        fitting = {
            key: conversation
            for key, conversation in conversations.items()
            if self._fits(conversation, sampling)
        }
        if len(fitting) < len(conversations):
            logger.warning(
                "%s: %d of %d prompts do not fit into the context of %s.",
                label,
                len(conversations) - len(fitting),
                len(conversations),
                self.model.name,
            )
        if not fitting:
            return {}
        model = (
            self.model.with_json_schema(schema)
            if schema is not None and isinstance(self.model, SchemaModel)
            else self.model
        )
        replies = self.ask(model, list(fitting.values()), sampling, label=label)
        return dict(zip(fitting, replies, strict=True))

    def _fits(self, conversation: Conversation, sampling: Sampling) -> bool:
        """Whether prompt and reply fit into the model's context."""
        if sum(len(message.content) for message in conversation) > LONGEST_PROMPT:
            return False
        if not isinstance(self.model, TokenScorer) or self.model.context_length is None:
            return True
        return (
            len(self.model.encode(conversation)) + sampling.max_new_tokens
            <= self.model.context_length
        )


def is_answer(reply: Generation | None) -> bool:
    """Whether there is a reply with something in it."""
    return (
        reply is not None and bool(reply.text.strip()) and reply.finish_reason in ("stop", "length")
    )


LONGEST_REPLY = 100_000
"""Characters of a reply that are read."""


def structure_in(reply: str) -> Any:
    r"""Returns the data of the first JSON object or list in a reply; None where there is none that
    can be read.

    Example:
        >>> structure_in('Sure!\n```json\n{"claims": [{"quote": "It is red."}]}\n```')
        {'claims': [{'quote': 'It is red.'}]}
        >>> structure_in("{'claims': [{'quote': 'It is r"), structure_in("[" * 100_000), structure_in("It is red.")
        ({'claims': [{'quote': 'It is r'}]}, None, None)
    """
    return next(structures_in(split_reasoning(reply[:LONGEST_REPLY]).answer), None)


def entries_of(structure: Any, name: str) -> list[dict[str, Any]]:
    """Returns the objects that a structure lists under a name; a list without a name is taken for
    them.

    Example:
        >>> entries_of({"claims": [{"quote": "a"}, "b"]}, "claims"), entries_of([{"quote": "a"}], "claims"), entries_of(1, "claims")
        ([{'quote': 'a'}], [{'quote': 'a'}], [])
    """
    listed = structure.get(name) if isinstance(structure, dict) else structure
    return (
        [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )


def text_of(entry: dict[str, Any], name: str) -> str:
    """Returns the text that an object has under a name; a number as text, and anything else as an
    empty text.

    Half characters (lone surrogates) are replaced.
    """
    value = entry.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return ""
    return whole_characters(value).strip()


@dataclass(frozen=True)
class Experts:
    """The teachers of a distillation, as those who answer.

    Attributes:
        teachers: The expert of each domain.
        ask: How a model is called.
        sampling: How the experts answer.
        screening: What is taken for a refusal; such a response ends as `refused`.
    """

    teachers: Mapping[str, LanguageModel]
    ask: Ask
    sampling: Sampling
    screening: Screening = field(default_factory=Screening)

    def answer(self, examples: Sequence[Example]) -> list[Task]:
        """Asks the expert of each of an example's domains: its sub-question if there is one, else
        the whole query.
        """
        collected: list[dict[str, Response]] = [{} for _ in examples]
        for domain, teacher in self.teachers.items():
            asked = [
                (example, responses)
                for example, responses in zip(examples, collected, strict=True)
                if domain in example.domains
            ]
            conversations = [example.conversation_for(domain) for example, _ in asked]
            answers = self.ask(teacher, conversations, self.sampling, label=f"asking {domain}")
            for (example, responses), answer in zip(asked, answers, strict=True):
                question = example.question_for(domain)
                if answer.finish_reason == "stop" and self.screening.is_refused(
                    question, answer.text
                ):
                    answer = replace(answer, finish_reason="refused")
                responses[domain] = Response(
                    domain=domain,
                    example_id=example.id,
                    question=question,
                    teacher=teacher.fingerprint,
                    sampling=self.sampling,
                    **asdict(answer),
                )
        return [
            Task(example, responses) for example, responses in zip(examples, collected, strict=True)
        ]


READING_TOKENS = 2048
RELATING_TOKENS = 1024
MOST_CLAIMS = 400
"""Claims of one expert that are taken from a reply."""
MOST_RELATIONS = 400
"""Relations of one task that are taken from a reply."""

Order = Literal["forwards", "backwards"]
ORDERS: tuple[Order, ...] = ("forwards", "backwards")
"""The experts in alphabetical order and in the opposite one, whatever the order of the responses:
so that this decides nothing.
"""

# The mark of a list's item.
_ITEM = re.compile(r"(?:[-*+•◦▪–]|\(?\d{1,3}[.)])\s+")
_KINDS: dict[str, Kind] = {
    "same": "same",
    "contradicts": "contradicts",
    "other scope": "other scope",
    "other_scope": "other scope",
}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
READING_SCHEMA = {
    "title": "claims",
    **_object(
        claims={
            "type": "array",
            "items": _object(expert=_TEXT, quote=_TEXT, scope=_TEXT, hedged={"type": "boolean"}),
        }
    ),
}
RELATING_SCHEMA = {
    "title": "relations",
    **_object(
        relations={
            "type": "array",
            "items": _object(
                first=_TEXT,
                second=_TEXT,
                kind={"type": "string", "enum": ["same", "contradicts", "other scope"]},
                about=_TEXT,
                owner=_TEXT,
                values={"type": "array", "items": _TEXT},
            ),
        }
    ),
}


# Reading


@dataclass(frozen=True)
class ModelReader:
    """Lets a model quote what the experts claim.

    A quote that does not stand in the expert's response is dropped. What no quote covers is a claim
    all the same, sentence by sentence, so that nothing is lost by a model that reads badly.

    Attributes:
        model: The model.
    """

    model: LanguageModel

    def read(self, tasks: Sequence[Task], *, ask: Ask) -> list[tuple[Claim, ...] | None]:
        """Returns the claims of each task; None where the model's reply can't be used."""
        conversations = {place: reading_prompt(task) for place, task in enumerate(tasks)}
        sampling = Sampling(max_new_tokens=READING_TOKENS)
        replies = Caller(self.model, ask).call(
            conversations, sampling, "reading responses", READING_SCHEMA
        )
        return [_claims(task, replies.get(place)) for place, task in enumerate(tasks)]


def reading_prompt(task: Task) -> Conversation:
    """Returns the prompt that asks for the claims in a task's responses."""
    texts = {domain: task.responses[domain].text for domain in sorted(task.responses)}
    return user(
        fill(
            READING_PROMPT,
            {"query": transcript(task.example.conversation), "responses": fenced(texts)},
        )
    )


class _Quoted(NamedTuple):
    """A quote that stands in a response, or a part of it that no quote covers."""

    span: Span
    scope: str = ""
    hedged: bool = False
    unsure: bool = False


def _claims(task: Task, reply: Generation | None) -> tuple[Claim, ...] | None:
    if reply is None or not is_answer(reply):
        return None
    found = _quotes(task, entries_of(structure_in(reply.text), "claims"))
    if not any(found.values()):
        return None
    by_rules = rule_claims(task)
    claims: list[Claim] = []
    for number, domain in enumerate(sorted(task.responses), start=1):
        text = task.responses[domain].text
        spans = [quoted.span for quoted in found[domain]]
        own = [claim for claim in by_rules if claim.domain == domain]
        said = list(found[domain])
        for claim in own:
            said += [
                _Quoted(part, unsure=claim.unsure)
                for part in uncovered(text, Span(claim.start, claim.end), spans)
            ]
        items = [block for block in blocks_of(text) if block.kind == "list"]
        for place, quoted in enumerate(sorted(said), start=1):
            start, end = _without_mark(text, quoted.span, items)
            quote = text[start:end]
            claims.append(
                Claim(
                    f"{number}.{place}",
                    domain,
                    quote,
                    start,
                    end,
                    quoted.scope,
                    quoted.hedged,
                    quoted.unsure,
                )
            )
    return tuple(claims)


def _without_mark(text: str, span: Span, lists: Sequence[Block]) -> Span:
    """Returns a span in a list without the mark of the item that it begins with."""
    if not any(block.start <= span.start < block.end for block in lists):
        return span
    mark = _ITEM.match(text, span.start, span.end)
    return span if mark is None or mark.end() >= span.end else Span(mark.end(), span.end)


def _quotes(task: Task, entries: Sequence[dict[str, Any]]) -> dict[str, list[_Quoted]]:
    """Returns the quotes in a reply that stand in the response of the expert that they are said to
    be of, each once.
    """
    texts = {domain: Quotable(response.text) for domain, response in task.responses.items()}
    names = {domain.casefold(): domain for domain in task.responses}
    found: dict[str, dict[Span, _Quoted]] = {domain: {} for domain in task.responses}
    reached = dict.fromkeys(task.responses, 0)
    for entry in entries:
        domain = names.get(text_of(entry, "expert").casefold().removesuffix(" expert"))
        if domain is None or len(found[domain]) >= MOST_CLAIMS:
            continue
        span = texts[domain].find(text_of(entry, "quote"), after=reached[domain])
        if span is not None:
            found[domain].setdefault(
                span, _Quoted(span, text_of(entry, "scope"), entry.get("hedged") is True)
            )
            reached[domain] = span.end
    return {domain: list(quoted.values()) for domain, quoted in found.items()}


# Relating


class _Said(NamedTuple):
    """A model's relation of two claims, in one order of the experts."""

    kind: Kind
    about: str
    owner: str
    values: tuple[str, str] | None


@dataclass(frozen=True)
class ModelRelater:
    """Lets a model say how claims stand to each other, with the experts in one order and in the
    other.

    A relation counts where both replies have it. A contradiction that only one of them has, that a
    claim with a hedge is part of, or that the quantities of the claims speak against, is possible
    and not sure. Numbers, units and dates are compared by the rules.

    Attributes:
        model: The model.
        domains: What the domains are about, where that is known: a point can belong to one of them.
    """

    model: LanguageModel
    domains: Mapping[str, str] = field(default_factory=dict)

    def relate(
        self, tasks: Sequence[Task], claims: Sequence[Sequence[Claim]], *, ask: Ask
    ) -> list[tuple[Relation, ...] | None]:
        """Returns the relations of each task; None where a reply of the model can't be used."""
        conversations = {
            (place, order): relating_prompt(task, said, order, self.domains)
            for place, (task, said) in enumerate(zip(tasks, claims, strict=True))
            for order in ORDERS
        }
        sampling = Sampling(max_new_tokens=RELATING_TOKENS)
        replies = Caller(self.model, ask).call(
            conversations, sampling, "relating claims", RELATING_SCHEMA
        )
        found = []
        for place, (task, said) in enumerate(zip(tasks, claims, strict=True)):
            forwards, backwards = (
                _relations_in(replies.get((place, order)), task, said) for order in ORDERS
            )
            usable = forwards is not None and backwards is not None
            found.append(_joined(said, forwards, backwards) if usable else None)
        return found


def relating_prompt(
    task: Task, claims: Sequence[Claim], order: Order, domains: Mapping[str, str]
) -> Conversation:
    """Returns the prompt that asks for the relations among claims."""
    experts = sorted(task.responses, reverse=order == "backwards")
    listed = "\n\n".join(
        "\n".join(
            [
                f"[{expert} expert]",
                *(claim_line(claim) for claim in claims if claim.domain == expert),
            ]
        )
        for expert in experts
    )
    described = "\n".join(
        f"- {expert}: {domains[expert]}" if domains.get(expert) else f"- {expert}"
        for expert in experts
    )
    query = transcript(task.example.conversation)
    return user(fill(RELATING_PROMPT, {"query": query, "claims": listed, "domains": described}))


def claim_line(claim: Claim) -> str:
    r"""Returns a claim in one line that its quote can't leave.

    Example:
        >>> claim_line(Claim("1.1", "law", 'Say "yes".\nAlways.', 0, 18, scope="in Peru", hedged=True))
        '1.1 "Say \\"yes\\".\\nAlways." (holds for: in Peru; hedged)'
    """
    limits = "; ".join(
        [
            *([f"holds for: {_one_line(claim.scope)}"] if claim.scope else []),
            *(["hedged"] if claim.hedged else []),
        ]
    )
    return f"{claim.id} {json.dumps(claim.quote, ensure_ascii=False)}" + (
        f" ({limits})" if limits else ""
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _relations_in(
    reply: Generation | None, task: Task, claims: Sequence[Claim]
) -> dict[tuple[str, str], _Said] | None:
    """Returns a reply's relations of pairs of claims, by their ids in order; None where it is not
    an answer.
    """
    if reply is None or not is_answer(reply):
        return None
    structure = structure_in(reply.text)
    if not isinstance(structure, list) and not (
        isinstance(structure, dict) and isinstance(structure.get("relations"), list)
    ):
        return None
    by_id = {claim.id: claim for claim in claims}
    owners = {
        domain.casefold(): domain for domain in task.example.domains if domain in task.responses
    }
    found: dict[tuple[str, str], _Said] = {}
    for entry in entries_of(structure, "relations")[:MOST_RELATIONS]:
        first, second = (
            by_id.get(text_of(entry, name).strip("[]() ")) for name in ("first", "second")
        )
        kind = _KINDS.get(text_of(entry, "kind").casefold())
        if first is None or second is None or kind is None or first.domain == second.domain:
            continue
        one, other = sorted((first, second), key=lambda claim: claim.id)
        owner = owners.get(text_of(entry, "owner").casefold().removesuffix(" expert"), "")
        said = _Said(
            kind,
            _one_line(text_of(entry, "about"))[:200],
            owner,
            _values_in(entry, first, second, is_swapped=one is second),
        )
        # Where a reply says two things of one pair, the contradiction is what has to be looked at.
        if (one.id, other.id) not in found or kind == "contradicts":
            found[one.id, other.id] = said
    return found


def _values_in(
    entry: dict[str, Any], first: Claim, second: Claim, *, is_swapped: bool
) -> tuple[str, str] | None:
    """Returns the two values that a relation is about, where each stands in its claim."""
    listed = entry.get("values")
    if not isinstance(listed, list) or len(listed) != 2:
        return None
    values = [text_of({"value": value}, "value") for value in listed]
    if (
        not values[0]
        or not values[1]
        or values[0] not in first.quote
        or values[1] not in second.quote
    ):
        return None
    return (values[1], values[0]) if is_swapped else (values[0], values[1])


def _joined(
    claims: Sequence[Claim],
    forwards: Mapping[tuple[str, str], _Said] | None,
    backwards: Mapping[tuple[str, str], _Said] | None,
) -> tuple[Relation, ...]:
    """Joins what a model says in the two orders of the experts."""
    forwards, backwards = forwards or {}, backwards or {}
    by_id = {claim.id: claim for claim in claims}
    joined: list[Relation] = []
    for pair in sorted({*forwards, *backwards}):
        one, other = (by_id[name] for name in pair)
        joined += _relations(one, other, forwards.get(pair), backwards.get(pair))
    return tuple(joined)


def _relations(
    one: Claim, other: Claim, forwards: _Said | None, backwards: _Said | None
) -> Iterator[Relation]:
    """Yields what holds of two claims, of which each order of the experts says something or
    nothing.
    """
    said = [each for each in (forwards, backwards) if each is not None]
    kinds = {each.kind for each in said}
    is_sure = len(said) == 2 and len(kinds) == 1
    point = next((each.about for each in said if each.about), "")
    owner = said[0].owner if len({each.owner for each in said}) == 1 and len(said) == 2 else ""
    relation = Relation(one.id, other.id, "agrees", point=point, owner=owner, found_by="model")
    values = next((each.values for each in said if each.values), None)
    verdict = _compare(*values) if values else "unrelated"
    if "contradicts" in kinds:
        speaks_against = (
            verdict == "same" or one.hedged or other.hedged or _hold_for_others(one, other)
        )
        yield replace(relation, kind="contradicts", sure=is_sure and not speaks_against)
    elif "other scope" in kinds:
        yield replace(relation, kind="other scope", sure=is_sure)
    elif verdict == "different":
        yield replace(relation, kind="contradicts", sure=False)
    elif is_sure:
        yield replace(relation, kind="same" if _has_quantities_of(one, other) else "agrees")
        yield replace(
            relation,
            first=other.id,
            second=one.id,
            kind="same" if _has_quantities_of(other, one) else "agrees",
        )


def _hold_for_others(one: Claim, other: Claim) -> bool:
    """Whether both claims are limited, and to different things."""
    return bool(one.scope and other.scope) and one.scope.casefold() != other.scope.casefold()


def _compare(first: str, second: str) -> str:
    """Compares two values as the rules read them: `same` in other words, `different`, or
    `unrelated` where they can't be compared.
    """
    if first == second:
        return "unrelated"
    verdicts = {
        compare(one, other) for one, other in product(_quantities(first), _quantities(second))
    }
    return "same" if "same" in verdicts else "different" if "different" in verdicts else "unrelated"


def _has_quantities_of(one: Claim, other: Claim) -> bool:
    """Whether a claim has every quantity and date of another one, so that it can stand for that."""
    own = _quantities(one.quote)
    return all(
        any(compare(value, mine) == "same" for mine in own) for value in _quantities(other.quote)
    )


def _quantities(text: str) -> list[Quantity | Date]:
    return [
        found.value
        for found in find_values(text[:1000])
        if isinstance(found.value, Quantity | Date)
    ]
