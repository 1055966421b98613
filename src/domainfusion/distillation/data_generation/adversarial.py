"""Questions that look like one domain and need another, written by a model and checked by a
judge.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from domainfusion.distillation.data_generation.generator import Focus
from domainfusion.distillation.data_generation.variety import Variety
from domainfusion.distillation.data_generation.writing import (
    Check,
    CheckedCandidate,
    ReplyFormat,
    Slot,
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
    NEEDED_DOMAIN_PROMPT,
    check_fields,
    fill,
)
from domainfusion.types import Example, Sampling

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
        generation_model: Writes the questions.
        domains: A one-line description of each domain; at least two.
        num_examples: How many examples are wanted.
        judge: The model that says what a question looks like and needs; by default the generation
            model.
        classifier: Tells instead of the judge which domain a question looks like.
        verify: Judge the questions; without it they are as good as the model's word, which suits a
            model too small to judge.
        prompt_template: `{count}`, `{apparent}`, `{needed}` and their names, `{apparent_domain}`
            and `{needed_domain}`, are filled.
        sampling: How the model writes, `max_new_tokens` for each question; by default 96 tokens at
            temperature 0.8.
        reply_format: `json` or `lines`, one question a line; by default JSON where the model can be
            held to a schema (`SchemaModel`).
        questions_per_reply: How many questions of one kind a prompt asks for at most.
        variety: What the prompts differ in.
        max_rounds: How often at most a question is asked for.
        max_questions: How many questions are asked for at most, over all rounds.
        duplicate_threshold: Share of content words from which on two questions are near-duplicates.
        check: A check of your own: returns why an example is rejected, or None.
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
        generation_model: LanguageModel,
        domains: Mapping[str, str],
        num_examples: int = 50,
        *,
        judge: LanguageModel | None = None,
        classifier: Classifier | None = None,
        verify: bool = True,
        prompt_template: str = ADVERSARIAL_PROMPT,
        sampling: Sampling | None = None,
        reply_format: ReplyFormat = "auto",
        questions_per_reply: int | None = None,
        variety: Variety | None = None,
        max_rounds: int = 5,
        max_questions: int | None = None,
        duplicate_threshold: float = 0.8,
        check: Check | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            generation_model,
            domains,
            num_examples,
            sampling=sampling,
            reply_format=reply_format,
            questions_per_reply=questions_per_reply,
            sub_questions=False,
            variety=variety,
            max_rounds=max_rounds,
            max_questions=max_questions,
            duplicate_threshold=duplicate_threshold,
            check=check,
            judge=judge,
            classifier=classifier,
            verify=verify,
            seed=seed,
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
            map(_verdict, examples, looks, self._judged(NEEDED_DOMAIN_PROMPT, examples, ask))
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


def _verdict(example: Example, looks_like: str | None, needs: str | None) -> CheckedCandidate:
    if looks_like not in (None, example.apparent_domain):
        return CheckedCandidate(example, "does not look like the apparent domain", judged=True)
    if needs not in (None, example.primary_domain):
        return CheckedCandidate(example, "does not need the domain", judged=True)
    judged = looks_like is not None and needs is not None
    return CheckedCandidate(noted(example, judged), judged=judged)
