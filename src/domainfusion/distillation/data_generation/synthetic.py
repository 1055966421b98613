"""Questions that a model writes: in and across domains, and such that look like one domain and need
another.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from domainfusion.checks import check_number
from domainfusion.distillation.data_generation.generator import Focus
from domainfusion.distillation.data_generation.writing import (
    CheckedCandidate,
    Slot,
    WritingSettings,
    WrittenByModel,
    mixed,
    noted,
)
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.prompts import (
    ADVERSARIAL_PROMPT,
    APPARENT_DOMAIN_PROMPT,
    CROSS_DOMAIN_PROMPT,
    NEEDED_DOMAIN_PROMPT,
    NEEDED_DOMAINS_PROMPT,
    QUESTION_PROMPT,
    check_fields,
    fill,
)
from domainfusion.types import Example


def combinations_in_turn(domains: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yields combinations of domains without end, the primary domain first.

    Sizes take turns. Of each size every combination comes once before any comes again; each time
    another of its domains leads, and the leads are as even as that allows.

    Args:
        domains: The domains.
        sizes: How many of them a combination has.

    Example:
        >>> [" ".join(found) for found in itertools.islice(combinations_in_turn("abc", [2]), 6)]
        ['a b', 'c a', 'b c', 'b a', 'a c', 'c b']
    """
    leads: Counter[str] = Counter()
    streams = [_of_size(domains, size, leads) for size in sizes]
    for stream in itertools.cycle(streams):
        yield next(stream)


def _of_size(domains: Sequence[str], size: int, leads: Counter[str]) -> Iterator[tuple[str, ...]]:
    combinations = list(itertools.combinations(domains, size))
    left = {combination: list(combination) for combination in combinations}
    for combination in itertools.cycle(combinations):
        waiting = left[combination]
        lead = min(waiting, key=lambda domain: leads[domain])
        waiting.remove(lead)
        left[combination] = waiting or list(combination)
        leads[lead] += 1
        yield (lead, *(domain for domain in combination if domain != lead))


DomainClassifier = Callable[[str], str | Collection[str]]
"""Tells which domains a question needs, by their names."""


class SyntheticDataGenerator(WrittenByModel):
    """Lets a language model write questions in and across domains.

    Domains are covered in turn, as are all combinations of them, each led by another of its domains
    every time. The model is asked in rounds; what is rejected (no question, cut, too short or long,
    a duplicate, a near-duplicate, turned down by `check`, or not in its domains) is counted by its
    reason and asked for again in the next round, in other words. Where a `Focus` is given, it says
    which domains and combinations are covered, in place of `cross_domain_ratio` and
    `domains_per_example`.

    Each question is checked for its domains: the judge, or the classifier, names those that it
    needs. One that needs fewer or others is rejected. Where the judge's reply names no domain and
    does not say "none", the question is kept and says so (`metadata["domain_check"]`).

    Args:
        generation_model: Writes the questions; by default, in a `Distiller`, its student as it is
            before the training.
        domains: A one-line description of each domain.
        num_examples: How many examples are wanted; there may be fewer where what may be asked is
            spent, never more.
        cross_domain_ratio: Share of them that need several domains.
        domains_per_example: How many domains these need; several numbers take turns.
        prompt_template: Asks for questions in one domain; `{count}`, `{domain}` and `{description}`
            are filled.
        cross_domain_template: Asks for questions across domains; `{count}`, `{domains}` and
            `{subjects}` are filled.
        judge: The model that says which domains a question needs; by default the generation model.
        classifier: Tells instead of the judge which domains a question needs: a function from its
            text to a name or several.
        verify: Check the domains of the questions; without it they are as good as the model's word.
        writing: How the model is asked, and which questions are kept.
        seed: Seed of sampling and variety.

    Raises:
        ConfigurationError: A number is out of range, or the domains are empty, have no description
            or are too few to cross.
        CapabilityError: The generation model can't write.
        TemplateError: A template has a placeholder that nothing fills.
    """

    source = "synthetic"

    def __init__(
        self,
        generation_model: LanguageModel | None = None,
        domains: Mapping[str, str] | None = None,
        num_examples: int = 100,
        cross_domain_ratio: float = 0.5,
        *,
        domains_per_example: int | Sequence[int] = 2,
        prompt_template: str = QUESTION_PROMPT,
        cross_domain_template: str = CROSS_DOMAIN_PROMPT,
        judge: LanguageModel | None = None,
        classifier: DomainClassifier | None = None,
        verify: bool = True,
        writing: WritingSettings = WritingSettings(),
        seed: int = 0,
    ) -> None:
        super().__init__(
            generation_model,
            domains,
            num_examples,
            judge=judge,
            classifier=classifier,
            verify=verify,
            writing=writing,
            seed=seed,
        )
        check_number("cross_domain_ratio", cross_domain_ratio, "[0, 1]")
        sizes = (
            (domains_per_example,)
            if isinstance(domains_per_example, int)
            else tuple(domains_per_example)
        )
        if not sizes or not all(isinstance(size, int) and size >= 2 for size in sizes):
            raise ConfigurationError(
                "domains_per_example is out of range",
                received=domains_per_example,
                allowed="a whole number from 2, or several",
            )
        if cross_domain_ratio > 0 and len(self.domains) < max(sizes):
            needed = {2: "two", 3: "three"}.get(max(sizes), str(max(sizes)))
            raise ConfigurationError(
                f"Cross-domain examples need {needed} domains",
                received=list(self.domains),
                fix="name more domains, lower domains_per_example, or set cross_domain_ratio=0",
                field="cross_domain_ratio" if sizes == (2,) else "domains_per_example",
            )
        check_fields("prompt_template", prompt_template, ("count", "domain", "description"))
        check_fields(
            "cross_domain_template", cross_domain_template, ("count", "domains", "subjects")
        )
        self.cross_domain_ratio = cross_domain_ratio
        self.domains_per_example = sizes
        self.prompt_template = prompt_template
        self.cross_domain_template = cross_domain_template

    def _slots(self) -> list[Slot]:
        crossing = round(self.num_examples * self.cross_domain_ratio)
        singles = itertools.islice(itertools.cycle(self.domains), self.num_examples - crossing)
        combined = itertools.islice(
            combinations_in_turn(tuple(self.domains), self.domains_per_example), crossing
        )
        return mixed([Slot((name,)) for name in singles], [Slot(domains) for domains in combined])

    def _focused_slots(self, focus: Focus) -> list[Slot]:
        counts = focus.apportion(self.num_examples, self.domains)
        return mixed(
            *(
                [Slot(_led_by(needed, turn)) for turn in range(count)]
                for needed, count in counts.items()
            )
        )

    def _task(self, slot: Slot, count: str) -> str:
        if len(slot.domains) == 1:
            (name,) = slot.domains
            return fill(
                self.prompt_template,
                {"count": count, "domain": name, "description": self.domains[name]},
            )
        subjects = "\n".join(f"- {name}: {self.domains[name]}" for name in slot.domains)
        return fill(
            self.cross_domain_template,
            {"count": count, "domains": " and ".join(slot.domains), "subjects": subjects},
        )

    def _verdicts(self, examples: Sequence[Example], ask: Ask) -> list[CheckedCandidate]:
        if not self.verify or not examples:
            return super()._verdicts(examples, ask)
        if self.classifier is None:
            replies = self._ask_judge(NEEDED_DOMAINS_PROMPT, examples, ask)
            needed = [self._read(reply) for reply in replies]
        else:
            needed = [self._classified(self.classifier, example) for example in examples]
        return list(map(_verdict, examples, needed))

    def _read(self, reply: str) -> set[str] | None:
        """Returns the domains that a reply names; None where it is not a verdict."""
        named = self._named_in(reply)
        return set(named) if named or re.search(r"\bnone\b", reply, re.IGNORECASE) else None

    def _classified(self, classifier: DomainClassifier, example: Example) -> set[str]:
        found = classifier(example.query)
        named = {found} if isinstance(found, str) else set(found)
        if strange := sorted(named - set(self.domains)):
            raise DataError(
                "The classifier named something that is not a domain",
                received=strange[0],
                allowed=", ".join(self.domains),
            )
        return named


def _verdict(example: Example, needed: set[str] | None) -> CheckedCandidate:
    if needed is None:
        return CheckedCandidate(noted(example, False))
    if not needed:
        return CheckedCandidate(example, "is in none of the domains", judged=True)
    if not set(example.domains) <= needed:
        return CheckedCandidate(example, "does not need each of its domains", judged=True)
    if not needed <= set(example.domains):
        return CheckedCandidate(example, "needs another domain too", judged=True)
    return CheckedCandidate(noted(example, True), judged=True)


def _led_by(domains: tuple[str, ...], turn: int) -> tuple[str, ...]:
    """Returns the domains with another one leading in each turn."""
    lead = domains[turn % len(domains)]
    return (lead, *(domain for domain in domains if domain != lead))


Classifier = Callable[[str], str]
"""Tells the domain that a question looks like, by its name."""


class AdversarialDataGenerator(WrittenByModel):
    """Lets a language model write questions that look like one domain and need another.

    Every ordered pair of domains is covered in turn. The example's domain is the one that is
    needed; the one that it looks like is its `apparent_domain`. Each question is then judged twice,
    independently: which domain it looks like, and which it needs. One that looks like another
    domain, or needs another, is rejected and asked for again; where the judge names no single
    domain, the question is kept and says so (`metadata["domain_check"]`).
    `Generated.acceptance_rate` is the share of judged questions that passed. Where a `Focus` is
    given, its weights of single domains say how often each is the one that is needed.

    Args:
        generation_model: Writes the questions; by default, in a `Distiller`, its student as it is
            before the training.
        domains: A one-line description of each domain; at least two.
        num_examples: How many examples are wanted.
        judge: The model that says what a question looks like and needs; by default the generation
            model.
        classifier: Tells instead of the judge which domain a question looks like.
        verify: Judge the questions; without it they are as good as the model's word, which suits a
            model too small to judge.
        prompt_template: `{count}`, `{apparent}`, `{needed}` and their names, `{apparent_domain}`
            and `{needed_domain}`, are filled.
        writing: How the model is asked, and which questions are kept.
        seed: Seed of sampling and variety.

    Raises:
        ConfigurationError: A number is out of range, there are fewer than two domains, or a judge
            is given and not used.
        CapabilityError: Writer or judge can't answer.
        TemplateError: The template has a placeholder that nothing fills.
    """

    source = "adversarial"

    def __init__(
        self,
        generation_model: LanguageModel | None = None,
        domains: Mapping[str, str] | None = None,
        num_examples: int = 50,
        *,
        judge: LanguageModel | None = None,
        classifier: Classifier | None = None,
        verify: bool = True,
        prompt_template: str = ADVERSARIAL_PROMPT,
        writing: WritingSettings = WritingSettings(),
        seed: int = 0,
    ) -> None:
        super().__init__(
            generation_model,
            domains,
            num_examples,
            judge=judge,
            classifier=classifier,
            verify=verify,
            writing=writing,
            seed=seed,
        )
        if writing.sub_questions:
            raise ConfigurationError(
                "Adversarial questions need one expert each, and have no sub-questions",
                received="sub_questions=True",
                fix="leave sub_questions out",
                field="sub_questions",
            )
        if len(self.domains) < 2:
            raise ConfigurationError(
                "Adversarial examples need two domains",
                received=list(self.domains),
                fix="name another domain, or leave these examples out",
            )
        known = ("count", "apparent", "needed", "apparent_domain", "needed_domain")
        check_fields("prompt_template", prompt_template, known)
        self.prompt_template = prompt_template

    def _slots(self) -> list[Slot]:
        pairs = itertools.islice(
            itertools.cycle(itertools.permutations(self.domains, 2)), self.num_examples
        )
        return [Slot((needed,), apparent) for apparent, needed in pairs]

    def _focused_slots(self, focus: Focus) -> list[Slot]:
        parts: list[list[Slot]] = []
        for needed, count in focus.apportion(self.num_examples, self.domains, most=1).items():
            others = itertools.cycle(domain for domain in self.domains if domain not in needed)
            parts.append([Slot(needed, apparent) for apparent in itertools.islice(others, count)])
        return mixed(*parts)

    def _task(self, slot: Slot, count: str) -> str:
        (needed,) = slot.domains
        values = {
            "count": count,
            "apparent": self.domains[slot.apparent],
            "needed": self.domains[needed],
            "apparent_domain": slot.apparent,
            "needed_domain": needed,
        }
        return fill(self.prompt_template, values)

    def _verdicts(self, examples: Sequence[Example], ask: Ask) -> list[CheckedCandidate]:
        if not self.verify or not examples:
            return super()._verdicts(examples, ask)
        if self.classifier is None:
            looks = self._judged(APPARENT_DOMAIN_PROMPT, examples, ask)
        else:
            looks = [self._classified(self.classifier, example) for example in examples]
        return list(
            map(
                _adversarial_verdict,
                examples,
                looks,
                self._judged(NEEDED_DOMAIN_PROMPT, examples, ask),
            )
        )

    def _judged(self, template: str, examples: Sequence[Example], ask: Ask) -> list[str | None]:
        """Returns the domain that the judge names for each example; None where it names none, or
        several.
        """
        named = [self._named_in(reply) for reply in self._ask_judge(template, examples, ask)]
        return [names[0] if len(names) == 1 else None for names in named]

    def _classified(self, classifier: Classifier, example: Example) -> str:
        found = classifier(example.query)
        if found not in self.domains:
            raise DataError(
                "The classifier named something that is not a domain",
                received=found,
                allowed=", ".join(self.domains),
            )
        return found


def _adversarial_verdict(
    example: Example, looks_like: str | None, needs: str | None
) -> CheckedCandidate:
    if looks_like not in (None, example.apparent_domain):
        return CheckedCandidate(example, "does not look like the apparent domain", judged=True)
    if needs not in (None, example.primary_domain):
        return CheckedCandidate(example, "does not need the domain", judged=True)
    judged = looks_like is not None and needs is not None
    return CheckedCandidate(noted(example, judged), judged=judged)
