"""What a student knows before a step is made: it reads questions with their answers in one forward
pass, without decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from domainfusion.models.base import TrainableModel
from domainfusion.models.projection import Head, head_of
from domainfusion.progress import Progress, silent
from domainfusion.training.batching import Row, collate
from domainfusion.training.distributed import (
    all_gather,
    attention_to_train,
    mixed_precision,
    shard,
)
from domainfusion.training.losses import CHUNK_ELEMENTS, answer_hidden_states


@torch.no_grad()
def find_known(
    student: TrainableModel,
    rows: Sequence[Row],
    *,
    batch_size: int,
    progress: Progress = silent,
) -> list[bool]:
    """Returns for each row whether the student knows its answer: whether every token of it is the
    most probable one after those before it, so that decoding greedily would write it.

    Several processes read a part each, in the same batches as one process would, and all return the
    same.

    Args:
        student: A trainable copy, as it starts.
        rows: What it reads.
        batch_size: Rows that go through the model at once.
        progress: Shows the batches.
    """
    by_length = sorted(range(len(rows)), key=lambda place: len(rows[place].tokens))
    batches = [by_length[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    module = student.trainable_module().eval()  # type: ignore[no-untyped-call]
    head = head_of(module)
    device = student.device
    found: dict[int, bool] = {}
    own = shard(batches)
    with progress("training: what the start knows", len(own), 0) as advance:
        for batch in own:
            padded = collate([rows[place] for place in batch], pad_token=0)
            tokens, labels = padded["input_ids"].to(device), padded["labels"].to(device)
            with mixed_precision(device), attention_to_train(device, tokens.shape[1]):
                hidden, targets = answer_hidden_states(
                    module, {"input_ids": tokens, "labels": labels}
                )
                is_right = (_most_probable(hidden, head) == targets).cpu()
            lengths = [len(rows[place].answer) for place in batch]
            for place, own_tokens in zip(batch, torch.split(is_right, lengths), strict=True):
                found[place] = bool(own_tokens.all())
            advance(1)
    everywhere = {place: knows for part in all_gather(found) for place, knows in part.items()}
    return [everywhere[place] for place in range(len(rows))]


def _most_probable(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """Returns the most probable token after each hidden state; logits are made chunk by chunk."""
    size = max(1, CHUNK_ELEMENTS // head.vocabulary_size)
    return torch.cat(
        [
            head.logits(states.to(head.weight.dtype)).argmax(-1)
            for states in torch.split(hidden, size)
        ]
    )
