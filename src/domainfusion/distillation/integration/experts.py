"""The experts: each is asked its question and, in a discussion, once more with what the others said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from domainfusion.distillation.integration.task import Task
from domainfusion.distillation.integration.writing import fenced
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.prompts import DISCUSSION_PROMPT, fill
from domainfusion.types import Conversation, Example, Message, Response, Sampling


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
        """Asks the expert of each of an example's domains: its sub-question if there is one, else the whole query."""
        collected: list[dict[str, Response]] = [{} for _ in examples]
        for domain, teacher in self.teachers.items():
            asked = [(example, responses) for example, responses in zip(examples, collected, strict=True) if domain in example.domains]
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
        return [Task(example, responses) for example, responses in zip(examples, collected, strict=True)]

    def discuss(self, tasks: Sequence[Task]) -> list[Task]:
        """Shows every expert who answered what the others said, and lets it revise its answer; all of them speak at the same time.

        An expert who says nothing then, or refuses, stays with what it said before, which `Response.earlier` keeps otherwise.
        """
        revised = [dict(task.responses) for task in tasks]
        for domain, teacher in self.teachers.items():
            asked = [
                (conversation, responses)
                for task, responses in zip(tasks, revised, strict=True)
                if (conversation := discussion_of(task, domain)) is not None
            ]
            conversations = [conversation for conversation, _ in asked]
            answers = self.ask(teacher, conversations, self.sampling, label=f"discussing with {domain}")
            for (_, responses), answer in zip(asked, answers, strict=True):
                before = responses[domain]
                if answer.text.strip() and answer.finish_reason in ("stop", "length"):
                    responses[domain] = replace(before, **asdict(answer), earlier=(*before.earlier, before.text))
        return [Task(task.example, responses) for task, responses in zip(tasks, revised, strict=True)]


def discussion_of(task: Task, domain: str) -> Conversation | None:
    """Returns what an expert is asked in a discussion; None where it gave no answer itself, or nobody else did."""
    own = task.responses.get(domain)
    others = {name: response.text for name, response in task.responses.items() if name != domain and response.text.strip()}
    if own is None or not own.text.strip() or not others:
        return None
    told = fill(DISCUSSION_PROMPT, {"responses": fenced(others), "question": task.example.question_for(domain)})
    return (*task.example.conversation_for(domain), Message("assistant", own.text), Message("user", told))
