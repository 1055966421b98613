"""What the generators share that let a model write: wanted examples, rounds of asking, checks, and counts."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from domainfusion.distillation.data_generation.domains import check_domains
from domainfusion.distillation.data_generation.generator import DataGenerator, Generated
from domainfusion.distillation.data_generation.replies import find_question
from domainfusion.distillation.metrics import normalize
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Generation, Sampling, Source, user

Check = Callable[[Example], str | None]
"""Looks at a new example and returns why it is rejected, or None."""


@dataclass(frozen=True)
class Slot:
    """An example that is wanted: its domains, primary first, the prompt that asks for it, and the domain that it shall look like."""

    domains: tuple[str, ...]
    prompt: str
    apparent: str = ""


class WrittenByModel(DataGenerator):
    """What the generators that ask a model share: wanted slots, rounds of asking, checks, and counts."""

    source: Source

    def __init__(
        self,
        generation_model: LanguageModel,
        domains: Mapping[str, str],
        num_examples: int,
        *,
        sampling: Sampling | None,
        max_rounds: int,
        check: Check | None,
        seed: int,
    ) -> None:
        if num_examples < 1:
            raise ConfigurationError("num_examples is not positive", received=num_examples, allowed="a whole number from 1")
        if max_rounds < 1:
            raise ConfigurationError("max_rounds is not positive", received=max_rounds, allowed="a whole number from 1")
        self.generation_model = generation_model
        self.domains = check_domains(domains)
        self.num_examples = num_examples
        self.sampling = sampling or Sampling(max_new_tokens=96, temperature=0.8, top_p=0.95)
        self.max_rounds = max_rounds
        self.check = check
        self.seed = seed

    def generate(self, ask: Ask = ask_directly) -> Generated:
        """Asks the model in rounds until every slot is filled or `max_rounds` is reached; see `DataGenerator.generate`."""
        accepted: dict[int, Example] = {}
        seen: set[str] = set()
        rejected: Counter[str] = Counter()
        asked = 0
        slots = self._slots()
        for round_number in range(self.max_rounds):
            open_slots = [index for index in range(len(slots)) if index not in accepted]
            if not open_slots:
                break
            sampling = replace(self.sampling, seed=self.sampling.seed + self.seed + 1000 * round_number)
            replies = ask(
                self.generation_model, [user(slots[index].prompt) for index in open_slots], sampling, label=f"{self.source} questions"
            )
            asked += len(open_slots)
            for index, reply in zip(open_slots, replies, strict=True):
                example, problem = self._read(slots[index], reply)
                problem = problem or self._judge(example, seen)
                if problem or example is None:
                    rejected[problem or "no question"] += 1
                else:
                    accepted[index] = example
                    seen.add(normalize(example.query))
        return Generated(tuple(accepted[index] for index in sorted(accepted)), asked, dict(rejected))

    @abstractmethod
    def _slots(self) -> list[Slot]: ...

    def _read(self, slot: Slot, reply: Generation) -> tuple[Example | None, str | None]:
        if reply.finish_reason in ("refused", "filtered"):
            return None, "the model refused"
        question = find_question(reply.text)
        if question is None:
            return None, "cut before its end" if reply.finish_reason == "length" else "no question"
        return Example(query=question, domains=slot.domains, source=self.source, apparent_domain=slot.apparent), None

    def _judge(self, example: Example | None, seen: set[str]) -> str | None:
        if example is None:
            return "no question"
        words = len(example.query.split())
        if words < 4:
            return "too short"
        if words > 80:
            return "too long"
        if normalize(example.query) in seen:
            return "duplicate"
        if any(normalize(description) in normalize(example.query) for description in self.domains.values()):
            return "repeats the prompt"
        return self.check(example) if self.check else None
