"""What an integration model is asked, what it is told when its answer does not hold, and what is made of its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from domainfusion.distillation.integration.checking import Check, check_answer, find_contributions
from domainfusion.distillation.integration.claims import Claim as Sentence
from domainfusion.distillation.integration.claims import claims_of, one_claim
from domainfusion.distillation.integration.merge import render
from domainfusion.distillation.integration.planning import Plan, ledger_of
from domainfusion.distillation.integration.reading import Claim
from domainfusion.distillation.integration.task import Task, primary_first
from domainfusion.errors import TemplateError
from domainfusion.prompts import INTEGRATION_RETRY_PROMPT, fields_of, fill
from domainfusion.types import Conversation, Dropped, Generation, Integration, Message, transcript, user

ABSENT = "(this expert was not asked)"
MERGED = "the responses were merged instead"
TOO_LONG = Generation(text="", finish_reason="failed")
"""In place of the answer to a prompt that does not fit into the model's context."""

LEFT_OUT = "left out by the integration model"
RESERVED = ("query", "responses")
"""The placeholders of a template that are no domains."""

_TICKS = re.compile(r"`+")


@dataclass(frozen=True, slots=True)
class Draft:
    """A model's answer to one task.

    Attributes:
        conversation: What the model was asked.
        generation: What it wrote.
        check: What is wrong with it; None where it was not checked.
    """

    conversation: Conversation
    generation: Generation
    check: Check | None

    @property
    def is_empty(self) -> bool:
        """Whether there is no answer."""
        return not self.generation.text.strip() or self.generation.finish_reason in ("refused", "filtered", "failed")

    @property
    def is_sound(self) -> bool:
        """Whether there is an answer, and nothing wrong with it as far as it was checked."""
        return not self.is_empty and (self.check is None or self.check.is_sound)


def conversation_for(template: str, task: Task) -> Conversation:
    """Returns what the model is asked: the template with the query and the experts' responses.

    Raises:
        TemplateError: The template has no place for a response.
    """
    names = set(fields_of(template))
    texts = {domain: response.text for domain, response in primary_first(task).items()}
    homeless = [domain for domain in texts if domain not in names.difference(RESERVED)]
    if homeless and "responses" not in names:
        raise TemplateError(
            f"The prompt template has no place for the response of {homeless[0]!r}",
            received=sorted(names),
            fix=f"write {{{homeless[0]}}} or {{responses}} where it belongs",
        )
    absent = dict.fromkeys(absent_in(template, task), ABSENT)
    query = transcript(task.example.conversation)
    return user(fill(template, {**absent, **texts, "query": query, "responses": fenced(texts)}))


def absent_in(template: str, task: Task) -> list[str]:
    """Returns the experts that a template has a place for and that have no response."""
    return [name for name in fields_of(template) if name not in RESERVED and name not in task.responses]


def fenced(texts: Mapping[str, str]) -> str:
    """Returns the experts' responses, each between two fences that none of them contains, so that none can end its own.

    Example:
        >>> print(fenced({"law": "Ask ```first```."}))
        [law expert]
        ````
        Ask ```first```.
        ````
    """
    longest = max((len(run) for text in texts.values() for run in _TICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n\n".join(f"[{domain} expert]\n{fence}\n{text}\n{fence}" for domain, text in texts.items())


def retry_of(draft: Draft) -> Conversation:
    """Returns the conversation that tells the model what is wrong with its answer."""
    problems = []
    if draft.check is not None:
        problems += [f"- It leaves out what the {claim.domain} expert says: {claim.bare}" for claim in draft.check.missing]
        problems += [f"- It says: {text} But {problem}." for text, problem in draft.check.unfounded]
    told = fill(INTEGRATION_RETRY_PROMPT, {"problems": "\n".join(problems)})
    return (*draft.conversation, Message("assistant", draft.generation.text), Message("user", told))


def check_draft(conversation: Conversation, generation: Generation, plan: Plan) -> Draft:
    """Returns a model's answer with what is wrong with it."""
    said = [claim for domain, response in plan.task.responses.items() for claim in claims_of(domain, response.text)]
    query = transcript(plan.task.example.conversation)
    check = check_answer(generation.text, query, said, _sentences(plan.stated), _sentences(plan.losers))
    return Draft(conversation, generation, check)


def _sentences(claims: Sequence[Claim]) -> list[Sentence]:
    return [one_claim(claim.domain, claim.quote, place, is_alone=False) for place, claim in enumerate(claims)]


def merged(plan: Plan) -> Integration:
    """Returns what the rules write from a plan."""
    text, contributions = render(plan)
    cut = any(response.finish_reason == "length" for response in plan.task.responses.values())
    ledger = ledger_of(plan, contributions)
    return Integration(text=text, method="merge", ledger=ledger, finish_reason="length" if cut else "stop")


def integration_of(drafts: Sequence[Draft], plan: Plan, notes: Sequence[str] = ()) -> Integration:
    """Returns the last answer if it is sound, else the merge; the ledger says what was wrong with the others.

    Args:
        drafts: The model's answers, oldest first.
        plan: What it was to state.
        notes: What else the ledger is to say.
    """
    last, merge = drafts[-1], merged(plan)
    said = [*merge.ledger.notes, *notes, *(_complaint(draft) for draft in drafts if not draft.is_sound)]
    if not last.is_sound:
        return replace(merge, ledger=replace(merge.ledger, notes=(*said, MERGED)), messages=last.conversation)
    text = last.generation.text
    kept = _sentences(plan.stated)
    contributions = find_contributions(text, kept)
    taken = {(part.domain, part.text) for part in contributions}
    absent = [claim for claim in kept if (claim.domain, claim.bare) not in taken]
    left_out = [Dropped(domain=claim.domain, text=claim.text, reason=LEFT_OUT) for claim in absent]
    ledger = replace(merge.ledger, contributions=contributions, dropped=(*merge.ledger.dropped, *left_out), notes=tuple(said))
    return Integration(
        text=text, method="model", ledger=ledger, messages=last.conversation, finish_reason=last.generation.finish_reason
    )


def _complaint(draft: Draft) -> str:
    if draft.generation == TOO_LONG:
        return "the responses are too long for the integration model's context"
    if draft.is_empty or draft.check is None:
        return "the integration model gave no answer"
    missing = [f"it left out what {claim.domain} says ({claim.bare})" for claim in draft.check.missing]
    unfounded = [f"{problem} ({text})" for text, problem in draft.check.unfounded]
    return f"an answer of the integration model was not taken: {'; '.join(missing + unfounded)}"
