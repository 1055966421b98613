"""How models answer."""

from __future__ import annotations

from typing import Annotated

from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Count, within
from domainfusion.types import Sampling


class SamplingSection(Section):
    """How the experts answer."""

    max_new_tokens: Count = 256
    temperature: Annotated[
        float, within(lambda number: number >= 0, "0 (greedy) or a number above it")
    ] = 0.0
    top_p: Annotated[float, within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = (
        1.0
    )

    def sampling(self, seed: int) -> Sampling:
        """Returns the settings with the seed of the draws."""
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=seed,
        )


class QuestionSamplingSection(SamplingSection):
    """How a model writes questions: by default with some variety."""

    max_new_tokens: Count = 96
    temperature: Annotated[
        float, within(lambda number: number >= 0, "0 (greedy) or a number above it")
    ] = 0.8
    top_p: Annotated[float, within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = (
        0.95
    )
