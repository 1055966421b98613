"""Where more examples are wanted, and who can make them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from domainfusion.distillation.calling import options_for
from domainfusion.distillation.data_generation.generator import DataGenerator
from domainfusion.errors import ConfigurationError
from domainfusion.training.mixtures import apportion
from domainfusion.types import Example

Domains = tuple[str, ...]
"""One domain, or several that an example needs together."""


@dataclass(frozen=True, kw_only=True)
class Focus:
    """Where more examples are wanted.

    Attributes:
        weights: How much is wanted of each domain, and of each combination of domains, in any unit.
        round: Which time it is that more are wanted, from 1: another one has other examples.
        earlier: The examples that are there already.

    Raises:
        ConfigurationError: A weight is not a number from 0, or none is above 0.
    """

    weights: Mapping[Domains, float]
    round: int = 1
    earlier: tuple[Example, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        weights = self.weights.values()
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ConfigurationError(
                "A focus has no weight above 0",
                received=dict(self.weights),
                allowed="numbers from 0, one above 0",
            )

    def apportion(
        self, count: int, domains: Collection[str], *, most: int | None = None
    ) -> dict[Domains, int]:
        """Splits a number of examples by the weights, the largest remainders first.

        Args:
            count: How many examples are wanted.
            domains: What there can be examples of: weights of other domains count for nothing.
            most: How many domains an example can need at most; None for any number.

        Returns:
            The number of each domain and combination, without those of which none is wanted; their
            sum is `count`, or 0 where there can be no example of what is wanted.

        Example:
            >>> Focus(weights={("law",): 0.6, ("law", "tax"): 0.2, ("art",): 0.9}).apportion(4, ["law", "tax"])
            {('law',): 3, ('law', 'tax'): 1}
        """
        possible = {
            needed: weight
            for needed, weight in self.weights.items()
            if weight > 0 and set(needed) <= set(domains) and (most is None or len(needed) <= most)
        }
        return (
            {needed: number for needed, number in apportion(count, possible).items() if number}
            if possible
            else {}
        )


def makes_more(generator: DataGenerator) -> bool:
    """Whether a generator can make more examples: its `generate` takes a `focus`, and its
    `has_more` is not False.
    """
    return bool(options_for(generator.generate, focus=None)) and bool(
        getattr(generator, "has_more", True)
    )
