"""A phase: a stretch of training with records and a mixture of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from domainfusion.types import TrainingRecord


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training.

    Attributes:
        name: What log and report call it.
        records: What is seen in it.
        shares: The share of each group of records in every batch; None shows every record once an epoch, in random order.
        group_of: Which group a record belongs to, for `shares`; by default its primary domain.
    """

    name: str
    records: tuple[TrainingRecord, ...]
    shares: Mapping[str, float] | None = None
    group_of: Callable[[TrainingRecord], str] = lambda record: record.example.primary_domain
