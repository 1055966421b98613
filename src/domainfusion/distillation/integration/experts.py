"""The experts: each is asked its question and, in a rebuttal, once more on a point on which another
one contradicts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from domainfusion.distillation.integration.reading import Task
from domainfusion.distillation.integration.settling import Settled
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.prompts import REBUTTAL_PROMPT, fenced, fill
from domainfusion.types import Conversation, Example, Message, Response, Sampling

KEEP, WITHDRAW = "I stay with it", "I withdraw"
"""What an expert's reply to a rebuttal begins with."""
REBUTTAL_TOKENS = 96
# What a reply that withdraws begins with, as it was asked to.
_WITHDRAWN = re.compile(r"\W*I (?:hereby )?withdraw\b", re.IGNORECASE)


class Dispute(NamedTuple):
    """A point of conflict that nothing has settled yet.

    Attributes:
        task: The example and its responses.
        settled: The point.
    """

    task: Task
    settled: Settled


class Rebuttal(NamedTuple):
    """What an expert says on a point when it is shown what the others say.

    Attributes:
        domain: Whose expert it is.
        claim: The words that it was asked about.
        reply: What it says.
        withdraws: Whether it takes them back.
    """

    domain: str
    claim: str
    reply: str
    withdraws: bool


@dataclass(frozen=True)
class Experts:
    """The teachers of a distillation, as those who answer.

    Attributes:
        teachers: The expert of each domain.
        ask: How a model is called.
        sampling: How the experts answer.
    """

    teachers: Mapping[str, LanguageModel]
    ask: Ask
    sampling: Sampling

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
                responses[domain] = Response(
                    domain=domain,
                    example_id=example.id,
                    question=example.question_for(domain),
                    teacher=teacher.fingerprint,
                    sampling=self.sampling,
                    **asdict(answer),
                )
        return [
            Task(example, responses) for example, responses in zip(examples, collected, strict=True)
        ]

    def rebut(self, disputes: Sequence[Dispute]) -> list[tuple[Rebuttal, ...]]:
        """Shows every expert of a disputed point what the others say on it, and asks whether it
        stays with what it said.

        All of them speak at the same time, so that their order does not matter. One that says
        neither stays with what it said.
        """
        rebuttals: list[list[Rebuttal]] = [[] for _ in disputes]
        sampling = Sampling(max_new_tokens=REBUTTAL_TOKENS, seed=self.sampling.seed)
        for domain, teacher in self.teachers.items():
            asked = [
                (conversation, found)
                for dispute, found in zip(disputes, rebuttals, strict=True)
                if (conversation := rebuttal_prompt(dispute, domain)) is not None
            ]
            replies = self.ask(
                teacher,
                [conversation for conversation, _ in asked],
                sampling,
                label=f"asking {domain} to rebut",
            )
            for (_, found), reply in zip(asked, replies, strict=True):
                found.append(Rebuttal(domain, "", reply.text.strip(), _withdraws(reply.text)))
        return [
            tuple(
                rebuttal._replace(claim=_words_of(dispute.settled, rebuttal.domain))
                for rebuttal in found
            )
            for dispute, found in zip(disputes, rebuttals, strict=True)
        ]


def rebuttal_prompt(dispute: Dispute, domain: str) -> Conversation | None:
    """Returns what an expert is asked in a rebuttal: its question, its answer, and what the others
    say on the point.

    None where the expert says nothing on the point.
    """
    point = dispute.settled.point
    own_side = next(
        (side for side in point.sides if any(claim.domain == domain for claim in side)), None
    )
    if own_side is None:
        return None
    others = {
        claim.domain: _words_of(dispute.settled, claim.domain)
        for side in point.sides
        if side is not own_side
        for claim in side
    }
    about = f", which is about {point.about}" if point.about else ""
    own = f'. You said: "{_words_of(dispute.settled, domain)}"'
    told = fill(
        REBUTTAL_PROMPT,
        {"about": about + own, "responses": fenced(others), "keep": KEEP, "withdraw": WITHDRAW},
    )
    said = Message("assistant", dispute.task.responses[domain].text)
    return (*dispute.task.example.conversation_for(domain), said, Message("user", told))


def _words_of(settled: Settled, domain: str) -> str:
    return " … ".join(claim.quote for claim in settled.point.claims if claim.domain == domain)


def _withdraws(reply: str) -> bool:
    """Whether a reply begins by withdrawing the claim.

    Example:
        >>> _withdraws("I withdraw. It is 232 °C."), _withdraws("I stay with it: I do not withdraw."), _withdraws("Maybe.")
        (True, False, False)
    """
    return _WITHDRAWN.match(reply) is not None
