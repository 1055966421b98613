"""One phase a domain, from general to special."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from domainfusion.distillation.trainer.phase import Phase
from domainfusion.distillation.trainer.trainer import Trainer
from domainfusion.errors import ConfigurationError
from domainfusion.types import TrainingRecord


class SequentialTrainer(Trainer):
    """One phase a domain, from general to special, each with a replay of the domains before it.

    A cross-domain record is seen in the phase of the last of its domains.

    Args:
        order: The domains from general to special; by default in the order in which the records name them.
        replay: Share of the records of earlier phases that each phase sees again.
        **settings: See `Trainer`.
    """

    def __init__(self, *, order: Sequence[str] | None = None, replay: float = 0.1, **settings: Any) -> None:
        super().__init__(**settings)
        if not 0 <= replay <= 1:
            raise ConfigurationError("replay is no share", received=replay, allowed="a number from 0 to 1")
        self.order = tuple(order) if order else None
        self.replay = replay

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns a phase for each domain, named after it."""
        found = tuple(dict.fromkeys(domain for record in records for domain in record.example.domains))
        order = self.order or found
        missing = set(found) - set(order)
        if missing:
            raise ConfigurationError(f"The order leaves out {', '.join(sorted(missing))}", received=order, allowed=", ".join(found))
        phases: list[Phase] = []
        seen: list[TrainingRecord] = []
        for domain in order:
            own = [r for r in records if max(r.example.domains, key=order.index) == domain]
            if not own:
                continue
            replayed = random.Random(domain).sample(seen, round(self.replay * len(seen)))
            phases.append(Phase(name=domain, records=(*own, *replayed)))
            seen += own
        return phases
