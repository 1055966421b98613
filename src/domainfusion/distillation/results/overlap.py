"""Test queries that were found among the training records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What the test set was held against, and what was found.

    Attributes:
        trained: How many training queries the test set was held against.
        same: Ids of test examples whose query was trained on, case, accents, articles and white space aside.
        near: Ids of test examples whose query is nearly one that was trained on.
        method: What nearly means.
    """

    trained: int
    same: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    method: str = ""
