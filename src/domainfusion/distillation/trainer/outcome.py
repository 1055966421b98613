"""What a phase came to: how far the student went from its base, domain by domain. It predicts what
is forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch

from domainfusion.models.base import TokenScorer
from domainfusion.training.batching import Row
from domainfusion.training.losses import Taught, token_losses

ROWS_COMPARED = 16
"""Rows of a domain at which base and student are compared."""


def sample_by_domain(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Returns a few rows of each domain, drawn with the seed."""
    domains = {
        domain: [row for row in rows if row.domain == domain]
        for domain in sorted({row.domain for row in rows})
    }
    return {
        domain: random.Random(f"{seed}/{domain}").sample(own, min(ROWS_COMPARED, len(own)))
        for domain, own in domains.items()
    }


def divergence_from(
    base: TokenScorer, student: TokenScorer, rows: Mapping[str, Sequence[Row]]
) -> dict[str, float]:
    """Returns KL(base‖student) for each domain, in nats, as the mean over the answer tokens of its
    rows.

    Args:
        base: The model before it was trained.
        student: The model as it is now, with the base's tokenizer.
        rows: Rows of each domain.
    """
    return {domain: _divergence(base, student, own) for domain, own in rows.items()}


@torch.no_grad()
def _divergence(base: TokenScorer, student: TokenScorer, rows: Sequence[Row]) -> float:
    known, learned = (_answer_states(model, rows) for model in (base, student))
    targets = torch.tensor([token for row in rows for token in row.answer], device=learned.device)
    taught = Taught(
        places=torch.arange(len(targets), device=learned.device),
        hidden=known,
        head=base.head(),
        vocabulary=min(base.vocabulary_size, student.vocabulary_size),
    )
    found = token_losses(
        learned,
        student.head(),
        targets,
        torch.ones(len(targets), device=learned.device),
        taught=[taught],
    )
    return float(found.divergence.mean())


def _answer_states(model: TokenScorer, rows: Sequence[Row]) -> torch.Tensor:
    states = model.hidden_states([row.tokens for row in rows])
    return torch.cat(
        [hidden[row.prompt_length - 1 : -1] for hidden, row in zip(states, rows, strict=True)]
    )
