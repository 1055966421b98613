"""How experts, and then their merge, read the experts' dialogues: as one batch, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from domainfusion.models.huggingface import HuggingFaceModel
from domainfusion.progress import Progress
from domainfusion.types import Conversation

TOKENS_READ = 32_768
"""Tokens that are read together, padding included; they bound the memory of a pass."""

LONGEST_READ = 512
"""Tokens of a dialogue that are read, from its beginning."""

Spoken = tuple[HuggingFaceModel, Sequence[Conversation]]
"""Dialogues, and the model that held them: its system prompt and template are part of them."""


class DialogueBatch(NamedTuple):
    """Rows that are read together, padded on the right.

    Attributes:
        rows: Token ids of each row, the shortest first.
        owners: Whose dialogue each row is.
    """

    rows: list[list[int]]
    owners: list[str]

    @classmethod
    def of(cls, dialogues: Mapping[str, Sequence[Spoken]]) -> DialogueBatch:
        """Returns the dialogues of all experts; where they are more than can be read together, as
        many of each expert, evenly spread.

        Args:
            dialogues: The dialogues of each expert, by its key.
        """
        rows = {
            key: [
                model.encode(conversation, reply=False)[:LONGEST_READ]
                for model, own in spoken
                for conversation in own
            ]
            for key, spoken in dialogues.items()
        }
        longest = max(len(row) for own in rows.values() for row in own)
        most = max(1, TOKENS_READ // (longest * len(rows)))
        placed = [(row, key) for key, own in rows.items() for row in _spread(own, most)]
        placed.sort(key=lambda one: len(one[0]))
        return cls([row for row, _ in placed], [key for _, key in placed])

    def part(self, owner: str) -> DialogueBatch:
        """Returns the rows of one expert, in the same order."""
        rows = [row for row, key in zip(self.rows, self.owners, strict=True) if key == owner]
        return DialogueBatch(rows, [owner] * len(rows))

    def tokens_of(self, owner: str) -> torch.Tensor:
        """Returns which places of the batch hold a token of an expert's dialogues, of shape (rows,
        longest row).
        """
        lengths = torch.tensor([len(row) for row in self.rows])
        is_own = torch.tensor([key == owner for key in self.owners])
        return (torch.arange(len(self.rows[-1])) < lengths[:, None]) & is_own[:, None]


def _spread(rows: Sequence[list[int]], most: int) -> list[list[int]]:
    count = min(most, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


@torch.no_grad()
def read_layers(
    model: HuggingFaceModel,
    batch: DialogueBatch,
    layers: Collection[str],
    see: Callable[[str, torch.Tensor], None],
    progress: Progress,
    label: str,
) -> None:
    """Lets a model read a batch once, and shows the inputs of each layer before it computes.

    A layer that does not read the batch's tokens in their places, such as one that a router sends
    some of them to, is not shown.

    Args:
        model: The model.
        batch: What it reads.
        layers: Names of linear layers.
        see: Receives a layer's name and inputs, of shape (rows, longest row, in). It may change the
            layer.
        progress: Shows the layers.
        label: What they are called there.
    """
    seen = set[str]()
    shape = (len(batch.rows), len(batch.rows[-1]))

    def show(layer: str, inputs: torch.Tensor) -> None:
        if layer not in seen and inputs.shape[:-1] == shape:
            seen.add(layer)
            see(layer, inputs)
            advance(1)

    head = model.head_name()
    with (
        progress(label, len(layers)) as advance,
        model.watching_inputs([layer for layer in layers if layer != head], show),
    ):
        states = model.hidden_states(batch.rows, at_once=len(batch.rows), merge=False)
        if head in layers:
            show(head, torch.nn.utils.rnn.pad_sequence(states, batch_first=True))


@contextmanager
def released_after(expert: HuggingFaceModel) -> Iterator[None]:
    """Lets go of a whole model's weights after this block, if it was loaded for it: one expert is
    in memory at a time.
    """
    was_loaded = expert.is_loaded
    try:
        yield
    finally:
        if expert.is_whole and not was_loaded:
            expert.release()
