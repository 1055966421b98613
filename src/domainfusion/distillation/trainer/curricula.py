"""Trainers by curriculum: one domain after another, all as one mixture, or domains first and their
integration after.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

from domainfusion.distillation.trainer.phase import Phase, check_share
from domainfusion.distillation.trainer.trainer import Trainer
from domainfusion.distillation.trainer.training import Training
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import TokenScorer
from domainfusion.training.mixtures import check_shares, natural_shares
from domainfusion.types import Message, TrainingRecord


class IntegrationTrainer(Trainer):
    """Two phases: first each domain by itself, then cross-domain integration with a replay of the
    first.

    The phase `domains` holds the single-domain records. The phase `integration` holds the
    cross-domain records, the adversarial ones, which teach where a domain ends, and a random share
    of the first phase, so that expertise is not forgotten. A phase without records is left out.

    Args:
        replay: Share of the first phase's records that the second phase sees again.
        **settings: See `Trainer`.
    """

    def __init__(self, *, replay: float = 0.25, **settings: Any) -> None:
        super().__init__(**settings)
        check_share("replay", replay)
        self.replay = replay

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the phases `domains` and `integration`."""
        across = tuple(record for record in records if _is_across(record))
        single = tuple(record for record in records if not _is_across(record))
        phases = [
            Phase(name="domains", records=single),
            Phase(name="integration", records=across, earlier=single, replay=self.replay),
        ]
        return [phase for phase in phases if phase.records]


def _is_across(record: TrainingRecord) -> bool:
    """Whether a record teaches more than one domain's own questions do."""
    return record.example.is_cross_domain or record.example.is_adversarial


RECORDS_SCORED = 64
"""Records of a domain whose likelihood tells how well the student knows it."""


class SequentialTrainer(Trainer):
    """One phase a domain, from general to special.

    A replay of earlier domains keeps it from forgetting, beside LoRA (`adaptation`).

    A cross-domain record is seen in the phase of the last of its domains.

    Args:
        order: The domains from general to special. By default the one comes first whose records the
            student, before it is trained, finds most probable per token; where a student can't
            tell, the order is that in which the records name the domains.
        replay: Share of the records of earlier phases that each phase sees again.
        **settings: See `Trainer`.

    Raises:
        ConfigurationError: The order is empty or names a domain twice, or a setting is out of
            range.
    """

    def __init__(
        self, *, order: Sequence[str] | None = None, replay: float = 0.1, **settings: Any
    ) -> None:
        super().__init__(**settings)
        if order is not None and (
            isinstance(order, str) or not order or len(set(order)) < len(order)
        ):
            raise ConfigurationError(
                "order must list each domain exactly once",
                received=order,
                fix="leave it out to infer it",
            )
        check_share("replay", replay)
        self.order = None if order is None else tuple(order)
        self.replay = replay

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns a phase for each domain, named after it; without an order, as the records name
        the domains.
        """
        found = _domains_of(records)
        order = found if self.order is None else self.order
        missing = set(found) - set(order)
        if missing:
            raise ConfigurationError(
                f"The order leaves out {', '.join(sorted(missing))}",
                received=order,
                allowed=", ".join(found),
            )
        phases: list[Phase] = []
        seen: tuple[TrainingRecord, ...] = ()
        for domain in order:
            own = tuple(
                record
                for record in records
                if max(record.example.domains, key=order.index) == domain
            )
            if own:
                phases.append(Phase(name=domain, records=own, earlier=seen, replay=self.replay))
            seen += own
        return phases

    def decided(self, training: Training) -> Self:
        """Returns this trainer with its order, and what any trainer leaves to be chosen; see
        `Trainer.decided`.
        """
        decided = copy(super().decided(training))
        scorer, records, seed = training.student, training.records, training.seed
        if self.order is None and isinstance(scorer, TokenScorer):
            order = training.choices.make(
                "order",
                _domains_of(records),
                lambda domain: _mean_log_probability(scorer, records, domain, seed),
                lambda known: sorted(known, key=known.__getitem__, reverse=True),
            )
            decided.order = tuple(order)
        return decided


def _domains_of(records: Sequence[TrainingRecord]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(domain for record in records for domain in record.example.domains))


def _mean_log_probability(
    scorer: TokenScorer, records: Sequence[TrainingRecord], domain: str, seed: int
) -> float:
    """Returns the mean log-probability per token of the domain's own targets; of cross-domain ones
    where it has no others.
    """
    own = [record for record in records if domain in record.example.domains]
    own = [record for record in own if not record.example.is_cross_domain] or own
    sample = random.Random(f"{seed}/{domain}").sample(own, min(RECORDS_SCORED, len(own)))
    scores = scorer.score(
        [(*record.example.conversation, Message("assistant", record.target)) for record in sample]
    )
    return sum(score.total for score in scores) / sum(len(score.tokens) for score in scores)


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
