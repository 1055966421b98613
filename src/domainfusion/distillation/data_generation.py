"""Generators of training examples: written by a model, adversarial at the borders of domains, or curated by people."""

from __future__ import annotations

import itertools
import json
import random
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from domainfusion.distillation.examples import ExampleLike, read_examples
from domainfusion.distillation.metrics import normalize
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import ADVERSARIAL_PROMPT, CROSS_DOMAIN_PROMPT, QUESTION_PROMPT, fill
from domainfusion.types import Example, Generation, Sampling, Source, domains_of, user

Check = Callable[[Example], str | None]
"""Looks at a new example and returns why it is rejected, or None."""


@dataclass(frozen=True)
class Generated:
    """The examples of one generator, with what it took to get them.

    Attributes:
        examples: The accepted examples.
        asked: Questions that the generation model was asked for.
        rejected: How many were turned down, by reason.
    """

    examples: tuple[Example, ...]
    asked: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)


class DataGenerator(ABC):
    """Makes training examples. A generator of your own implements `generate`.

    A run keeps a generator's attributes in its `run.json`, to know its inputs again, but for those whose names begin with an underscore:
    that is where a secret belongs.
    """

    @abstractmethod
    def generate(self, ask: Ask = ask_directly) -> Iterable[Example]:
        """Returns the examples.

        Args:
            ask: How a model is called. Within a run, answers asked for through it are kept, and a run that was interrupted does
                not ask for them again.

        Returns:
            The examples, in any iterable; `Generated` also says what was rejected.
        """


@dataclass(frozen=True)
class _Slot:
    """An example that is wanted: its domains, primary first, and the prompt that asks for it."""

    domains: tuple[str, ...]
    prompt: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class _WrittenByModel(DataGenerator):
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
            sampling = Sampling(**{**_fields(self.sampling), "seed": self.sampling.seed + self.seed + 1000 * round_number})
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
    def _slots(self) -> list[_Slot]: ...

    def _read(self, slot: _Slot, reply: Generation) -> tuple[Example | None, str | None]:
        if reply.finish_reason in ("refused", "filtered"):
            return None, "the model refused"
        question = find_question(reply.text)
        if question is None:
            return None, "cut before its end" if reply.finish_reason == "length" else "no question"
        return Example(query=question, domains=slot.domains, source=self.source, metadata=slot.metadata), None

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


class SyntheticDataGenerator(_WrittenByModel):
    """Lets a language model write questions in and across domains.

    Args:
        generation_model: Writes the questions.
        domains: A one-line description of each domain.
        num_examples: How many examples are wanted.
        cross_domain_ratio: Share of them that need two domains; domains and pairs of domains are covered in turn.
        prompt_template: Asks for a question in one domain; `{domain}` and `{description}` are filled.
        cross_domain_template: Asks for one across domains; `{domains}` and `{subjects}` are filled.
        sampling: How the model writes; by default at temperature 0.8.
        max_rounds: How often at most a question is asked for: a rejected one is asked for again in the next round.
        check: A check of your own: returns why an example is rejected, or None.
        seed: Seed of the sampling.

    Raises:
        ConfigurationError: A number is out of range, or the domains are empty or have no description.
    """

    source = "synthetic"

    def __init__(
        self,
        generation_model: LanguageModel,
        domains: Mapping[str, str],
        num_examples: int = 100,
        cross_domain_ratio: float = 0.5,
        *,
        prompt_template: str = QUESTION_PROMPT,
        cross_domain_template: str = CROSS_DOMAIN_PROMPT,
        sampling: Sampling | None = None,
        max_rounds: int = 3,
        check: Check | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(generation_model, domains, num_examples, sampling=sampling, max_rounds=max_rounds, check=check, seed=seed)
        if not 0 <= cross_domain_ratio <= 1:
            raise ConfigurationError("cross_domain_ratio is no share", received=cross_domain_ratio, allowed="a number from 0 to 1")
        if cross_domain_ratio > 0 and len(self.domains) < 2:
            raise ConfigurationError(
                "Cross-domain examples need two domains",
                received=list(self.domains),
                fix="name another domain, or set cross_domain_ratio=0",
            )
        self.cross_domain_ratio = cross_domain_ratio
        self.prompt_template = prompt_template
        self.cross_domain_template = cross_domain_template

    def _slots(self) -> list[_Slot]:
        crossing = round(self.num_examples * self.cross_domain_ratio)
        singles = itertools.islice(itertools.cycle(self.domains), self.num_examples - crossing)
        slots = [_Slot((name,), fill(self.prompt_template, {"domain": name, "description": self.domains[name]})) for name in singles]
        for pair in itertools.islice(itertools.cycle(itertools.permutations(self.domains, 2)), crossing):
            subjects = "\n".join(f"- {name}: {self.domains[name]}" for name in pair)
            slots.append(_Slot(pair, fill(self.cross_domain_template, {"domains": " and ".join(pair), "subjects": subjects})))
        return slots


class AdversarialDataGenerator(_WrittenByModel):
    """Lets a language model write questions that look like one domain and need another.

    Every ordered pair of domains is covered in turn. The example's domain is the one that is needed; the one that it looks like is
    kept as `metadata["apparent_domain"]`.

    Args:
        generation_model: Writes the questions.
        domains: A one-line description of each domain; at least two.
        num_examples: How many examples are wanted.
        prompt_template: `{apparent}`, `{needed}` and their names, `{apparent_domain}` and `{needed_domain}`, are filled.
        sampling: How the model writes; by default at temperature 0.8.
        max_rounds: How often at most a question is asked for: a rejected one is asked for again in the next round.
        check: A check of your own: returns why an example is rejected, or None.
        seed: Seed of the sampling.

    Raises:
        ConfigurationError: A number is out of range, or there are fewer than two domains.
    """

    source = "adversarial"

    def __init__(
        self,
        generation_model: LanguageModel,
        domains: Mapping[str, str],
        num_examples: int = 50,
        *,
        prompt_template: str = ADVERSARIAL_PROMPT,
        sampling: Sampling | None = None,
        max_rounds: int = 3,
        check: Check | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(generation_model, domains, num_examples, sampling=sampling, max_rounds=max_rounds, check=check, seed=seed)
        if len(self.domains) < 2:
            raise ConfigurationError("Adversarial examples need two domains", received=list(self.domains), fix="name another domain")
        self.prompt_template = prompt_template

    def _slots(self) -> list[_Slot]:
        pairs = itertools.islice(itertools.cycle(itertools.permutations(self.domains, 2)), self.num_examples)
        return [_Slot((needed,), self._prompt(apparent, needed), {"apparent_domain": apparent}) for apparent, needed in pairs]

    def _prompt(self, apparent: str, needed: str) -> str:
        values = {
            "apparent": self.domains[apparent],
            "needed": self.domains[needed],
            "apparent_domain": apparent,
            "needed_domain": needed,
        }
        return fill(self.prompt_template, values)


class CuratedDataGenerator(DataGenerator):
    """Gives examples that people wrote.

    Args:
        examples: Examples, dicts with the fields of `Example` (`query` and `domains` at least), or the path of a JSON Lines or JSON
            file of such dicts; see `read_examples`.
        num_examples: Take a random sample of this size; by default all.
        seed: Seed of the sample.

    Raises:
        DataError: An entry can't be read; the message names its file and line, or its position.
    """

    def __init__(self, examples: str | Path | Sequence[ExampleLike], *, num_examples: int | None = None, seed: int = 0) -> None:
        self.examples = tuple(read_examples(examples))
        if not self.examples:
            raise DataError("There are no curated examples", received=str(examples), fix="give at least one")
        if num_examples is not None and not 1 <= num_examples <= len(self.examples):
            raise ConfigurationError("num_examples is out of range", received=num_examples, allowed=f"1 to {len(self.examples)}")
        self.num_examples = num_examples
        self.seed = seed

    @property
    def domains(self) -> tuple[str, ...]:
        """Every domain that the examples name."""
        return domains_of(self.examples)

    def generate(self, ask: Ask = ask_directly) -> Generated:
        """Returns the curated examples; no model is asked."""
        if self.num_examples is None:
            return Generated(self.examples)
        return Generated(tuple(random.Random(self.seed).sample(self.examples, self.num_examples)))


def find_question(reply: str) -> str | None:
    r"""Returns the first question in a model's reply: plain, in a numbered list, in quotes or in JSON; None if there is none.

    Example:
        >>> find_question('Sure!\n1. "What is the symbol of gold?"\n2. Why?')
        'What is the symbol of gold?'
        >>> find_question('{"question": "Where is Rome?"}')
        'Where is Rome?'
    """
    for line in _lines_of(reply):
        text = re.sub(r"^\s*(?:[-*•]|\(?\d+[.):]|Q(?:uestion)?\s*\d*[:.])\s*", "", line).strip().strip("\"'“”`*").strip()
        match = re.match(r"[^?]*\?", text)
        if match:
            question = re.split(r"(?<=[.!:])\s+(?=[A-Z])", match.group(0))[-1]
            return question.strip().strip("\"'“”").strip()
    return None


def _lines_of(reply: str) -> Iterator[str]:
    try:
        parsed = json.loads(re.sub(r"^```\w*|```$", "", reply.strip(), flags=re.MULTILINE))
    except ValueError:
        yield from reply.splitlines()
        return
    stack = [parsed]
    while stack:
        value = stack.pop(0)
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack = [*value.values(), *stack]
        elif isinstance(value, list):
            stack = [*value, *stack]


def check_domains(domains: Mapping[str, str]) -> dict[str, str]:
    """Returns the domains as a dict.

    Raises:
        ConfigurationError: There are none, one has no name or no description, or two have the same name.
    """
    check_names(domains)
    for name, description in domains.items():
        if not isinstance(description, str) or not description.strip():
            raise ConfigurationError(f"The domain {name!r} has no description", received=description, fix="describe it in one line")
    return dict(domains)


def check_names(domains: Mapping[str, Any]) -> None:
    """Raises a `ConfigurationError` where there are no domains, one has no name, or two differ in case and white space alone."""
    if not isinstance(domains, Mapping) or not domains:
        raise ConfigurationError("There are no domains", received=domains, fix='give {"name": ...}')
    seen: dict[str, str] = {}
    for name in domains:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError("A domain has no name", received=name, allowed="a text")
        other = seen.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            raise ConfigurationError("Two domains have the same name", received=[other, name], fix="name each domain once")


def _fields(sampling: Sampling) -> dict[str, Any]:
    return {item.name: getattr(sampling, item.name) for item in fields(sampling)}
