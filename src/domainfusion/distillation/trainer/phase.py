"""A phase: a stretch of training with records and a mixture of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from domainfusion.distillation.trainer.checks import check_share
from domainfusion.types import TrainingRecord


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
