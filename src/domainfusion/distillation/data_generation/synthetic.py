"""Questions in and across domains, written by a model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from domainfusion.distillation.data_generation.writing import Check, Slot, WrittenByModel
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.prompts import CROSS_DOMAIN_PROMPT, QUESTION_PROMPT, fill
from domainfusion.types import Sampling


class SyntheticDataGenerator(WrittenByModel):
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

    def _slots(self) -> list[Slot]:
        crossing = round(self.num_examples * self.cross_domain_ratio)
        singles = itertools.islice(itertools.cycle(self.domains), self.num_examples - crossing)
        slots = [Slot((name,), fill(self.prompt_template, {"domain": name, "description": self.domains[name]})) for name in singles]
        for pair in itertools.islice(itertools.cycle(itertools.permutations(self.domains, 2)), crossing):
            subjects = "\n".join(f"- {name}: {self.domains[name]}" for name in pair)
            slots.append(Slot(pair, fill(self.cross_domain_template, {"domains": " and ".join(pair), "subjects": subjects})))
        return slots
