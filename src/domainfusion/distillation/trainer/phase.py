"""A phase: a stretch of training with records and a mixture of its own."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from domainfusion.errors import ConfigurationError
from domainfusion.types import TrainingRecord

MOST = {"epochs": 1_000, "lora_rank": 8_192}
"""Above these a number is a slip of the pen, which would fill the memory before the first step."""


def check_count(name: str, count: object) -> None:
    """Refuses anything but a whole number from 1 to what is plausible.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigurationError(
            f"{name} is not a positive number", received=count, allowed="a whole number from 1"
        )
    if name in MOST and count > MOST[name]:
        raise ConfigurationError(
            f"{name} is too high",
            received=count,
            allowed=f"a whole number from 1 to {MOST[name]:,}",
        )


def check_seed(seed: object) -> None:
    """Refuses a seed that NumPy and PyTorch don't both take.

    Raises:
        ConfigurationError: It is not a whole number from 0, below 2³².
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigurationError(
            "The seed is out of range",
            received=seed,
            allowed=f"a whole number from 0 to {2**32 - 1:,}",
        )


def check_share(name: str, share: float) -> None:
    """Refuses anything but a number from 0 to 1.

    Raises:
        ConfigurationError: It is none.
    """
    if not 0 <= share <= 1:
        raise ConfigurationError(
            f"{name} is not a share", received=share, allowed="a number from 0 to 1"
        )


def check_weight(name: str, weight: float) -> None:
    """Refuses anything but a finite number from 0.

    Raises:
        ConfigurationError: It is none.
    """
    if not 0 <= weight < math.inf:
        raise ConfigurationError(
            f"{name} is not a weight", received=weight, allowed="a number from 0"
        )


def check_word(name: str, word: str, allowed: Sequence[str]) -> None:
    """Refuses a word that is not among those allowed.

    Raises:
        ConfigurationError: It is not.
    """
    if word not in allowed:
        raise ConfigurationError(f"{name} is not known", received=word, allowed=", ".join(allowed))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training.

    Attributes:
        name: What log and report call it.
        records: What is seen in it for the first time.
        earlier: Records of phases before it.
        replay: The share of `earlier` that is seen again, drawn with the run's seed.
        shares: The share of each group of records in every batch; None shows every record once an
            epoch, in random order.
        group_of: Which group a record belongs to, for `shares`; by default its primary domain.

    Raises:
        ConfigurationError: `replay` is not between 0 and 1.
    """

    name: str
    records: tuple[TrainingRecord, ...]
    earlier: tuple[TrainingRecord, ...] = ()
    replay: float = 0.0
    shares: Mapping[str, float] | None = None
    group_of: Callable[[TrainingRecord], str] = lambda record: record.example.primary_domain

    def __post_init__(self) -> None:
        check_share("replay", self.replay)

    def shown(self, rng: random.Random) -> tuple[TrainingRecord, ...]:
        """Returns the records of the phase and those that it replays."""
        return (*self.records, *rng.sample(self.earlier, round(self.replay * len(self.earlier))))

    def without(self, skipped: Collection[str]) -> Phase | None:
        """Returns the phase without some of its records, or None where nothing is left to learn.

        What it replays stays: a record that needs no lesson is still good to remember. The share of
        a group shrinks with the records that it loses, so that the few that it keeps are not shown
        over and over.

        Args:
            skipped: The ids of the examples that are left out.
        """
        kept = tuple(record for record in self.records if record.example.id not in skipped)
        if self.shares is None:
            return replace(self, records=kept) if kept else None
        before = Counter(self.group_of(record) for record in self.records)
        after = Counter(self.group_of(record) for record in kept)
        shares = {
            group: share * after[group] / before[group] if before[group] else share
            for group, share in self.shares.items()
        }
        if not any(share > 0 for share in shares.values()):
            return None
        return replace(self, records=kept, shares=shares)
