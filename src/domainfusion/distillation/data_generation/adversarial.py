"""Questions that look like one domain and need another, written by a model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from domainfusion.distillation.data_generation.writing import Check, Slot, WrittenByModel
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.prompts import ADVERSARIAL_PROMPT, fill
from domainfusion.types import Sampling


class AdversarialDataGenerator(WrittenByModel):
    """Lets a language model write questions that look like one domain and need another.

    Every ordered pair of domains is covered in turn. The example's domain is the one that is needed; the one that it looks like is
    its `apparent_domain`.

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

    def _slots(self) -> list[Slot]:
        pairs = itertools.islice(itertools.cycle(itertools.permutations(self.domains, 2)), self.num_examples)
        return [Slot((needed,), self._prompt(apparent, needed), apparent) for apparent, needed in pairs]

    def _prompt(self, apparent: str, needed: str) -> str:
        values = {
            "apparent": self.domains[apparent],
            "needed": self.domains[needed],
            "apparent_domain": apparent,
            "needed_domain": needed,
        }
        return fill(self.prompt_template, values)
