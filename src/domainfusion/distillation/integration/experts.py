"""The experts: each is asked its part of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from domainfusion.distillation.integration.reading import Task
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.types import Example, Response, Sampling


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
