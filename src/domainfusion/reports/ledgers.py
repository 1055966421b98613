"""What the training records tell: how conflicts were settled, and a few records worth reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from domainfusion.types import Conflict, Example, TrainingRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledConflict:
    """One conflict, with the question it arose in."""

    example: Example
    conflict: Conflict


def conflicts_in(records: Sequence[TrainingRecord]) -> list[SettledConflict]:
    """Returns every conflict of the records' ledgers, in order."""
    return [
        SettledConflict(example=record.example, conflict=conflict) for record in records for conflict in record.integration.ledger.conflicts
    ]


def dropped_reasons(records: Sequence[TrainingRecord]) -> list[str]:
    """Returns the reason of each sentence or response that did not enter an integrated answer."""
    return [dropped.reason for record in records for dropped in record.integration.ledger.dropped]


def integrated_from_several(records: Sequence[TrainingRecord]) -> int:
    """Returns how many records have the responses of several experts."""
    return sum(len(record.responses) > 1 for record in records)


def worth_reading(records: Sequence[TrainingRecord], most: int = 9) -> list[TrainingRecord]:
    """Returns the first records of each kind in turn: of one domain, cross-domain, rejected; of each kind no domains twice.

    Args:
        records: All records.
        most: How many to return at most.
    """
    first: dict[tuple[str, frozenset[str]], TrainingRecord] = {}
    for record in records:
        first.setdefault((_kind(record), frozenset(record.example.domains)), record)
    kinds = [[record for (kind, _), record in first.items() if kind == wanted] for wanted in ("single", "cross-domain", "rejected")]
    turns = zip_longest(*kinds)
    return [record for turn in turns for record in turn if record is not None][:most]


def _kind(record: TrainingRecord) -> str:
    return "rejected" if record.verification == "rejected" else "cross-domain" if record.example.is_cross_domain else "single"
