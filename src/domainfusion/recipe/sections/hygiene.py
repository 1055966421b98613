"""What is removed from the generated examples."""

from __future__ import annotations

from typing import Annotated

from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import within


class HygieneSection(Section):
    """What is removed from the generated examples."""

    duplicate_threshold: Annotated[
        float, within(lambda number: 0.5 <= number <= 1, "a number from 0.5 to 1")
    ] = 0.8
    ngram_words: Annotated[
        int, within(lambda number: number == 0 or number >= 4, "0, or a whole number from 4")
    ] = 8
    containment: Annotated[
        float, within(lambda number: 0 < number <= 1, "a number above 0, up to 1")
    ] = 0.7
