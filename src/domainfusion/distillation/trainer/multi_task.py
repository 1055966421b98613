"""One phase in which every batch mixes the domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domainfusion.distillation.trainer.phase import Phase
from domainfusion.distillation.trainer.trainer import Trainer
from domainfusion.training.mixtures import check_shares, natural_shares
from domainfusion.types import TrainingRecord


class MultiTaskTrainer(Trainer):
    """One phase in which every batch mixes the domains.

    Args:
        shares: The share of each domain, by the primary domain of the records; by default as many
            as there are.
        **settings: See `Trainer`.

    Raises:
        ConfigurationError: The shares are none, negative, or all 0.
    """

    def __init__(self, *, shares: Mapping[str, float] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        if shares is not None:
            check_shares(shares)
        self.shares = None if shares is None else dict(shares)

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the one phase, `mixture`."""
        shares = self.shares or natural_shares(
            [record.example.primary_domain for record in records]
        )
        return [Phase(name="mixture", records=tuple(records), shares=shares)]
