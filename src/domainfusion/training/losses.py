"""Losses over answer tokens only: the vocabulary is never projected where nothing is learnt."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from domainfusion.models.projection import project
from domainfusion.training.batching import IGNORED, Batch


def answer_hidden_states(module: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs the model and keeps what predicts answer tokens.

    Returns:
        Final hidden states of shape (answer tokens, hidden) and the tokens they predict, of shape (answer tokens,).
    """
    hidden: torch.Tensor = module.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state[:, :-1]
    targets = batch["labels"][:, 1:]
    answers = targets != IGNORED
    return hidden[answers], targets[answers]


def sequence_loss(module: PreTrainedModel, batch: Batch, answer_tokens: int) -> torch.Tensor:
    """Returns the cross-entropy of the batch's answer tokens, summed and divided by `answer_tokens`.

    Args:
        module: The student.
        batch: Rows of any number; a batch without an answer token has loss 0.
        answer_tokens: Answer tokens of the whole global batch, of which this may be a part.
    """
    hidden, targets = answer_hidden_states(module, batch)
    return cross_entropy(project(module, hidden), targets, reduction="sum") / max(answer_tokens, 1)
