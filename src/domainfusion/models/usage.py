"""What the models of a run were asked and what that took, over all of its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """What one model wrote for a run since the run began, whichever process asked.

    Attributes:
        name: What people call the model.
        roles: What it was asked as: `generation`, `judge`, `expert of …`, `integration`, `base`,
            `merge`, `student`.
        calls: Answers that it wrote; what the run had already is not counted again.
        prompt_tokens: Tokens read for them.
        completion_tokens: Tokens written.
        seconds: Wall-clock time in which the run waited for them.
        cost: What is known to be paid, retries included; None where its prices are not known.
        unknown_cost: At most this much more: for requests whose answer was lost, or came without a
            count of tokens.
    """

    name: str
    roles: tuple[str, ...] = ()
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None = None
    unknown_cost: float = 0.0


def total_cost(usage: Sequence[ModelUsage]) -> float | None:
    """Returns what all of the models are known to have cost; None where no price is known."""
    known = [model.cost for model in usage if model.cost is not None]
    return sum(known) if known else None
