"""Losses over answer tokens only: the vocabulary is never projected where nothing is learnt."""

from __future__ import annotations

from typing import cast

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

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


def project(module: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Returns float32 logits of shape (tokens, vocabulary), with the scaling and soft-capping that the architecture applies."""
    head = cast(torch.nn.Module, module.get_output_embeddings())  # type: ignore[no-untyped-call]
    logits: torch.Tensor = head(hidden).float()
    config = module.config
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def sequence_loss(module: PreTrainedModel, batch: Batch, answer_tokens: int) -> torch.Tensor:
    """Returns the cross-entropy of the batch's answer tokens, summed and divided by `answer_tokens`.

    Args:
        module: The student.
        batch: Rows of any number; a batch without an answer token has loss 0.
        answer_tokens: Answer tokens of the whole global batch, of which this may be a part.
    """
    hidden, targets = answer_hidden_states(module, batch)
    return cross_entropy(project(module, hidden), targets, reduction="sum") / max(answer_tokens, 1)
