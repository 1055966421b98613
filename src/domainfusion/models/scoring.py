"""How probable a model finds given tokens: final hidden states of rows of any lengths, and exact
log-probabilities from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from domainfusion.models.generation import buckets
from domainfusion.models.projection import project

TOKENS_AT_ONCE = 512
"""Tokens whose distributions over the whole vocabulary are in memory at a time."""


def final_hidden_states(
    module: PreTrainedModel, rows: Sequence[Sequence[int]], batch_size: int
) -> list[torch.Tensor]:
    """Returns for each row of token ids the final hidden states, of shape (tokens, hidden), in the
    order of `rows`.

    Rows of similar length share a batch. They are padded on the right, where causal attention never
    looks.
    """
    states: dict[int, torch.Tensor] = {}
    for batch in buckets([len(row) for row in rows], batch_size):
        padded = torch.zeros(
            (len(batch), max(1, *(len(rows[index]) for index in batch))), dtype=torch.long
        )
        for place, index in enumerate(batch):
            padded[place, : len(rows[index])] = torch.tensor(rows[index], dtype=torch.long)
        hidden = cast(Any, module.base_model)(
            input_ids=padded.to(module.device), use_cache=False
        ).last_hidden_state
        for place, index in enumerate(batch):
            states[index] = hidden[
                place, : len(rows[index])
            ].clone()  # a view would keep the padding in memory
    return [states[index] for index in range(len(rows))]


def token_log_probabilities(
    module: PreTrainedModel, hidden: torch.Tensor, tokens: Sequence[int]
) -> list[float]:
    """Returns the natural logarithm of each token's probability under the distribution that its
    hidden state stands for.

    Args:
        module: The model.
        hidden: The hidden states that predict the tokens, of shape (tokens, hidden).
        tokens: The tokens.
    """
    wanted = torch.tensor(tokens, dtype=torch.long)
    found: list[float] = []
    for states, targets in zip(
        torch.split(hidden, TOKENS_AT_ONCE), torch.split(wanted, TOKENS_AT_ONCE), strict=True
    ):
        distribution = project(module, states).log_softmax(-1)
        found += distribution.gather(-1, targets[:, None].to(distribution.device))[:, 0].tolist()
    return found
