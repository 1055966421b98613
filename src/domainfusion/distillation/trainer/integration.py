"""Two phases: each domain by itself, then what lies across them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from domainfusion.distillation.trainer.phase import Phase
from domainfusion.distillation.trainer.trainer import Trainer
from domainfusion.errors import ConfigurationError
from domainfusion.types import TrainingRecord


class IntegrationTrainer(Trainer):
    """Two phases: first each domain by itself, then cross-domain integration with a replay of the first.

    The phase `domains` holds the single-domain records, the phase `integration` the cross-domain ones and a random share of the
    first, so that expertise is not forgotten. A phase without records is left out.

    Args:
        replay: Share of the single-domain records that the second phase sees again.
        **settings: See `Trainer`.
    """

    def __init__(self, *, replay: float = 0.25, **settings: Any) -> None:
        super().__init__(**settings)
        if not 0 <= replay <= 1:
            raise ConfigurationError("replay is no share", received=replay, allowed="a number from 0 to 1")
        self.replay = replay

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the phases `domains` and `integration`."""
        single, cross = _split(records)
        replayed = random.Random(0).sample(single, round(self.replay * len(single)))
        phases = [Phase(name="domains", records=tuple(single)), Phase(name="integration", records=(*cross, *replayed))]
        return [phase for phase in phases if phase.records] if cross else phases[:1]


def _split(records: Sequence[TrainingRecord]) -> tuple[list[TrainingRecord], list[TrainingRecord]]:
    single = [record for record in records if not record.example.is_cross_domain]
    return single, [record for record in records if record.example.is_cross_domain]
