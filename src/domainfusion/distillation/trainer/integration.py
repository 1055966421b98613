"""Two phases: each domain by itself, then what lies across them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainfusion.distillation.trainer.checks import check_share
from domainfusion.distillation.trainer.phase import Phase
from domainfusion.distillation.trainer.trainer import Trainer
from domainfusion.types import TrainingRecord


class IntegrationTrainer(Trainer):
    """Two phases: first each domain by itself, then cross-domain integration with a replay of the
    first.

    The phase `domains` holds the single-domain records, the phase `integration` the cross-domain
    ones and a random share of the first, so that expertise is not forgotten. A phase without
    records is left out.

    Args:
        replay: Share of the single-domain records that the second phase sees again.
        **settings: See `Trainer`.
    """

    def __init__(self, *, replay: float = 0.25, **settings: Any) -> None:
        super().__init__(**settings)
        check_share("replay", replay)
        self.replay = replay

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the phases `domains` and `integration`."""
        single = tuple(record for record in records if not record.example.is_cross_domain)
        cross = tuple(record for record in records if record.example.is_cross_domain)
        phases = [
            Phase(name="domains", records=single),
            Phase(name="integration", records=cross, earlier=single, replay=self.replay),
        ]
        return [phase for phase in phases if phase.records]
