"""A phase: a stretch of training with records and a mixture of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from domainfusion.distillation.trainer.checks import check_share, check_weight
from domainfusion.types import TrainingRecord


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training.

    Attributes:
        name: What log and report call it.
        records: What is seen in it for the first time.
        earlier: Records of phases before it.
        replay: The share of `earlier` that is seen again, drawn with the run's seed.
        anchor: Weight β of KL(start‖student) beside the objective, with the student before its first phase as the start.
        merge_back: How far the weights go back, when the phase is over, to where they were when it began: 0 not at all, 1 all the way.
        shares: The share of each group of records in every batch; None shows every record once an epoch, in random order.
        group_of: Which group a record belongs to, for `shares`; by default its primary domain.

    Raises:
        ConfigurationError: `replay` or `merge_back` is no share, or `anchor` is negative.
    """

    name: str
    records: tuple[TrainingRecord, ...]
    earlier: tuple[TrainingRecord, ...] = ()
    replay: float = 0.0
    anchor: float = 0.0
    merge_back: float = 0.0
    shares: Mapping[str, float] | None = None
    group_of: Callable[[TrainingRecord], str] = lambda record: record.example.primary_domain

    def __post_init__(self) -> None:
        check_share("replay", self.replay)
        check_share("merge_back", self.merge_back)
        check_weight("anchor", self.anchor)

    def shown(self, rng: random.Random) -> tuple[TrainingRecord, ...]:
        """Returns the records of the phase and those that it replays."""
        return (*self.records, *rng.sample(self.earlier, round(self.replay * len(self.earlier))))
