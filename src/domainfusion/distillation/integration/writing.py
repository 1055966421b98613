"""Writing by a model: the prompt with the plan of the answer, the marks that stand for blocks, and
what a reply says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from domainfusion.distillation.integration.model_reading import (
    Caller,
    claim_line,
    entries_of,
    is_answer,
    structure_in,
    text_of,
)
from domainfusion.distillation.integration.planning import Plan, Settled
from domainfusion.distillation.integration.reading import Claim, Task, overlaps, primary_first
from domainfusion.distillation.integration.words import content
from domainfusion.distillation.text.sentences import blocks_of, sentences
from domainfusion.errors import TemplateError
from domainfusion.models.base import LanguageModel, SchemaModel
from domainfusion.models.reasoning import split_reasoning
from domainfusion.models.store import Ask
from domainfusion.prompts import (
    ANSWER_JSON,
    ANSWER_ONLY,
    INTEGRATION_RETRY_PROMPT,
    PLAN_PROMPT,
    fenced,
    fields_of,
    fill,
)
from domainfusion.records import whole_characters
from domainfusion.types import (
    Contribution,
    Conversation,
    FinishReason,
    Generation,
    Message,
    Sampling,
    transcript,
    user,
)

ABSENT = "(this expert was not asked)"
RESERVED = ("query", "responses")
"""The placeholders of a template that are not domains."""
ALWAYS_WHOLE = ("code", "table", "math", "html")
"""Blocks of which nothing can be left out: they are put in whole even where a claim in them is
disputed.
"""

ANSWER_SCHEMA: dict[str, Any] = {
    "title": "answer",
    "type": "object",
    "properties": {
        "sentences": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "claims": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["text", "claims"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["sentences"],
    "additionalProperties": False,
}
_LEAST_SHARED = 0.5
"""Share of a claim's words that a sentence has at least, so that the ledger calls it that claim's
place in an answer in prose.
"""


class DraftSentence(NamedTuple):
    """A sentence of an answer.

    Attributes:
        text: The sentence.
        claims: The ids of the claims that it is said to rest on.
    """

    text: str
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """An answer that a model wrote.

    Attributes:
        text: The answer, with blocks put back.
        marked: The answer with the marks that stand for them.
        sentences: Its sentences, where the model says which claims they rest on; empty for an
            answer in prose.
        reply: What the model wrote, as it wrote it.
        finish_reason: `length` where it was cut.
    """

    text: str
    marked: str
    sentences: tuple[DraftSentence, ...]
    reply: str
    finish_reason: FinishReason


class NoDraft(NamedTuple):
    """The reason why there is no draft.

    Attributes:
        reason: Why.
    """

    reason: str


TOO_LONG = NoDraft("the prompt is too long for the integration model's context")
REFUSED_TO_WRITE = NoDraft("the integration model refused to write an answer")
NO_ANSWER = NoDraft("the integration model gave no answer")


class Assignment(NamedTuple):
    """The task of a writer.

    Attributes:
        plan: The plan of the answer.
        earlier: An earlier draft, which is to be repaired.
        problems: What is wrong with it.
    """

    plan: Plan
    earlier: Draft | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelWriter:
    """Lets a model write.

    Attributes:
        model: The model.
        template: What it is asked; the plan follows.
        sampling: How it writes.
    """

    model: LanguageModel
    template: str
    sampling: Sampling

    def write(self, assignments: Sequence[Assignment], *, ask: Ask) -> list[Draft | NoDraft]:
        """Returns a draft for each assignment; none where the model gave no answer, or the prompt
        does not fit into its context.
        """
        writes_json = isinstance(self.model, SchemaModel)
        kept = [whole_blocks(each.plan) for each in assignments]
        conversations = {
            place: _conversation(
                self.template, each, blocks, ANSWER_JSON if writes_json else ANSWER_ONLY
            )
            for place, (each, blocks) in enumerate(zip(assignments, kept, strict=True))
        }
        label = (
            "integrating once more" if any(each.earlier for each in assignments) else "integrating"
        )
        replies = Caller(self.model, ask).call(conversations, self.sampling, label, ANSWER_SCHEMA)
        return [
            _read(replies.get(place), each.plan, kept[place])
            for place, each in enumerate(assignments)
        ]


# Blocks


class WholeBlock(NamedTuple):
    """A part of a response that goes into the answer as it is: a table, code, a list.

    Attributes:
        mark: What stands for it in a prompt and in what a model writes.
        kind: What it is.
        domain: Whose it is.
        text: The block.
        start: Where it begins in the response, in characters.
        end: Where it ends, exclusive.
    """

    mark: str
    kind: str
    domain: str
    text: str
    start: int
    end: int

    def holds(self, claim: Claim) -> bool:
        """Whether a claim stands in this block, so that the answer states it by having the
        block.
        """
        return self.domain == claim.domain and self.start <= claim.start and claim.end <= self.end


def whole_blocks(plan: Plan) -> tuple[WholeBlock, ...]:
    """Returns the blocks that go into the answer as they are: what is not prose, and has no claim
    that is disputed.

    What can't be taken apart, such as code, goes in even so.
    """
    disputed: list[Claim] = []
    for each in plan.settled:
        disputed += each.point.claims if each.winner is None else each.losers
    responses = primary_first(plan.task)
    name = _free_name(
        [plan.task.example.query, *(response.text for response in responses.values())]
    )
    found: list[WholeBlock] = []
    for domain, response in responses.items():
        contested = [(claim.start, claim.end) for claim in disputed if claim.domain == domain]
        for block in blocks_of(response.text):
            is_disputed = any(overlaps((block.start, block.end), span) for span in contested)
            if (
                block.is_prose
                or not block.text.strip()
                or (is_disputed and block.kind not in ALWAYS_WHOLE)
            ):
                continue
            mark = f"[[{name} {len(found) + 1}]]"
            found.append(WholeBlock(mark, block.kind, domain, block.text, block.start, block.end))
    return tuple(found)


def put_back(text: str, blocks: Sequence[WholeBlock]) -> str:
    r"""Returns a text with each block in the place of its mark, byte for byte; one whose mark is
    not there comes at the end.

    Example:
        >>> table = WholeBlock("[[block 1]]", "table", "law", "| a |\n|---|", 0, 11)
        >>> put_back("See this: [[block 1]] It is short.", [table])
        'See this:\n\n| a |\n|---|\n\nIt is short.'
        >>> put_back("See this.", [table])
        'See this.\n\n| a |\n|---|'
    """
    by_number = {_number(block.mark): block for block in blocks}
    if not by_number:
        return text
    name = blocks[0].mark.removeprefix("[[").rpartition(" ")[0]
    pieces: list[str] = []
    position = 0
    left = dict(by_number)
    # A model may change the spaces and the case of a mark; one that it repeats, or makes up, is
    # dropped.
    for match in re.finditer(
        rf"\[\[\s*{re.escape(name)}\s*(\d{{1,6}})\s*\]\]", text, re.IGNORECASE
    ):
        pieces.append(text[position : match.start()].strip())
        position = match.end()
        block = left.pop(int(match[1]), None)
        if block is not None:
            pieces.append(block.text)
    pieces += [text[position:].strip(), *(block.text for block in left.values())]
    return "\n\n".join(piece for piece in pieces if piece)


def _number(mark: str) -> int:
    return int(mark.removesuffix("]]").rpartition(" ")[2])


def _free_name(texts: Sequence[str]) -> str:
    """Returns a name for marks that no text has as a mark of its own."""
    number, name = 1, "block"
    while any(f"[[{name}".casefold() in text.casefold() for text in texts):
        number += 1
        name = f"block {number}."
    return name


# Prompts


def writing_prompt(
    template: str, plan: Plan, blocks: Sequence[WholeBlock] = (), form: str = ANSWER_ONLY
) -> Conversation:
    """Returns the prompt: the template with query and responses, and then the plan.

    Raises:
        TemplateError: The template has no place for a response.
    """
    task = plan.task
    require_places(template, task.responses)
    texts = {
        domain: _with_marks(response.text, domain, blocks)
        for domain, response in primary_first(task).items()
    }
    absent = dict.fromkeys(absent_in(template, task), ABSENT)
    query = transcript(task.example.conversation)
    asked = fill(template, {**absent, **texts, "query": query, "responses": fenced(texts)})
    claims = [
        f"- {claim_line(claim)}"
        for claim in plan.stated
        if not any(block.holds(claim) for block in blocks)
    ]
    lines = [*claims, *map(_decision, plan.settled), *_about_blocks(blocks)]
    planned = fill(PLAN_PROMPT, {"plan": "\n".join(lines), "form": form})
    return user(f"{asked}\n\n{planned}")


def require_places(template: str, domains: Iterable[str]) -> None:
    """Checks that a template has a place for the response of each domain.

    Raises:
        TemplateError: One has none.
    """
    names = set(fields_of(template))
    homeless = [domain for domain in domains if domain in RESERVED or domain not in names]
    if homeless and "responses" not in names:
        raise TemplateError(
            f"The prompt template has no place for the response of {homeless[0]!r}",
            received=sorted(names),
            fix=f"write {{{homeless[0]}}} or {{responses}} where it belongs",
            field="prompt_template",
        )


def absent_in(template: str, task: Task) -> list[str]:
    """Returns the experts that a template has a place for and that have no response."""
    return [
        name for name in fields_of(template) if name not in RESERVED and name not in task.responses
    ]


def _conversation(
    template: str, assignment: Assignment, blocks: Sequence[WholeBlock], form: str
) -> Conversation:
    asked = writing_prompt(template, assignment.plan, blocks, form)
    if assignment.earlier is None:
        return asked
    told = fill(
        INTEGRATION_RETRY_PROMPT,
        {"problems": "\n".join(f"- {problem}" for problem in assignment.problems)},
    )
    return (*asked, Message("assistant", assignment.earlier.reply), Message("user", told))


def _with_marks(text: str, domain: str, blocks: Sequence[WholeBlock]) -> str:
    for block in sorted(blocks, key=lambda block: block.start, reverse=True):
        if block.domain == domain:
            text = text[: block.start] + block.mark + text[block.end :]
    return text


def _decision(settled: Settled) -> str:
    about = f"On {settled.point.about}: " if settled.point.about else ""
    if settled.winner is not None:
        stands = " and ".join(claim.id for claim in settled.winner)
        return (
            f"- {about}{stands} is right. Do not state"
            f" {' or '.join(claim.id for claim in settled.losers)}."
        )
    sides = "; ".join(_side(side) for side in settled.point.sides)
    return (
        f"- {about}the experts disagree, and nobody knows who is right. Say so, and what each side"
        f" says: {sides}."
    )


def _side(claims: Sequence[Claim]) -> str:
    return (
        f"{' and '.join(dict.fromkeys(claim.domain for claim in claims))}"
        f" ({', '.join(claim.id for claim in claims)})"
    )


def _about_blocks(blocks: Sequence[WholeBlock]) -> Iterator[str]:
    if blocks:
        marks = ", ".join(f"{block.mark} ({block.kind} of {block.domain})" for block in blocks)
        yield (
            "- Write each of these marks once, on a line by itself, where its block belongs; it is"
            f" put in as it is: {marks}."
        )


# Replies


def _read(reply: Generation | None, plan: Plan, blocks: Sequence[WholeBlock]) -> Draft | NoDraft:
    """Reads what a model wrote: sentences in JSON, or prose."""
    if reply is None:
        return TOO_LONG
    if not is_answer(reply):
        return NO_ANSWER
    written = split_reasoning(reply.text).answer.strip()
    found = tuple(_sentences_in(written, plan))
    marked = _laid_out(found) if found else "" if _looks_like_json(written) else written
    if not marked:
        return NO_ANSWER
    return Draft(put_back(marked, blocks), marked, found, reply.text, reply.finish_reason)


def _sentences_in(written: str, plan: Plan) -> Iterator[DraftSentence]:
    if "sentences" not in written and not _looks_like_json(written):
        return
    known = {claim.id for claim in plan.claims}
    structure = structure_in(written)
    for entry in entries_of(structure, "sentences"):
        text = entry.get("text")
        if isinstance(text, str) and text.strip():
            listed = entry.get("claims")
            named = (
                [text_of({"id": name}, "id").strip("[]() ") for name in listed]
                if isinstance(listed, list)
                else []
            )
            yield DraftSentence(
                whole_characters(text),
                tuple(dict.fromkeys(name for name in named if name in known)),
            )


def _looks_like_json(written: str) -> bool:
    bare = written.removeprefix("```json").removeprefix("```").lstrip()
    return bare.startswith("{") or (bare.startswith("[") and not bare.startswith("[["))


def _laid_out(found: Sequence[DraftSentence]) -> str:
    """Returns sentences as a text: with a space between them, unless a line break stands there."""
    text = ""
    for sentence in found:
        between = "" if not text or text.endswith("\n") or sentence.text.startswith("\n") else " "
        text += between + sentence.text
    return text.strip()


# Where a model's answer took over what an expert says


def contributions_to(draft: Draft, plan: Plan) -> tuple[Contribution, ...]:
    """Returns where in an answer the experts' claims stand: as the model says, else where a
    sentence has the claim's words.
    """
    placed = list(
        _placed(
            draft.text, [each.text.strip() for each in draft.sentences] or sentences(draft.text)
        )
    )
    resting: Mapping[str, list[int]] = {}
    if draft.sentences:
        resting = {claim.id: [] for claim in plan.claims}
        for place, sentence in enumerate(draft.sentences):
            for name in sentence.claims:
                resting[name].append(place)
    found = []
    for claim in plan.stated:
        start = draft.text.find(claim.quote)
        if start >= 0:
            found.append(
                Contribution(
                    domain=claim.domain, text=claim.quote, start=start, end=start + len(claim.quote)
                )
            )
            continue
        places = resting.get(claim.id) or _most_alike(claim.quote, [text for text, _ in placed])
        for place in places[:1]:
            text, start = placed[place]
            if start >= 0:
                found.append(
                    Contribution(
                        domain=claim.domain, text=claim.quote, start=start, end=start + len(text)
                    )
                )
    return tuple(found)


def _placed(text: str, parts: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yields each part of a text with its place; -1 where it is not there as it is."""
    position = 0
    for part in parts:
        start = text.find(part, position)
        if start >= 0:
            position = start + len(part)
        yield part, start


def _most_alike(quote: str, parts: Sequence[str]) -> list[int]:
    words = content(quote)
    shared = [len(words & content(part)) for part in parts]
    most = max(shared, default=0)
    return [shared.index(most)] if most and most >= _LEAST_SHARED * len(words) else []
