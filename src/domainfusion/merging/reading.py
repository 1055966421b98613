"""The pass in which each expert reads its dialogues: Gram matrices of the inputs of linear layers,
as many at once as fit the memory that is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from domainfusion.merging.methods import damped
from domainfusion.models.huggingface import HuggingFaceModel
from domainfusion.progress import Progress
from domainfusion.types import Conversation

GRAM_MEMORY = 4 * 2**30
"""Bytes that Gram matrices may take at once, by default."""

BYTES_PER_ELEMENT = 2 * 4
"""A layer's Gram matrix of one expert and the experts' sum, both in float32."""

READ_AT_ONCE = 4096
"""Tokens of equal rows that are read together."""


class GramReader(NamedTuple):
    """An expert, and what it reads.

    Attributes:
        expert: The model.
        rows: Token ids of each dialogue.
    """

    expert: HuggingFaceModel
    rows: list[list[int]]

    @classmethod
    def of(
        cls,
        expert: HuggingFaceModel,
        dialogues: Sequence[tuple[HuggingFaceModel, Sequence[Conversation]]],
    ) -> GramReader:
        """Returns the reader of dialogues, each encoded by the model that held it: two that differ
        in their system prompt alone have the same weights.
        """
        rows = [
            model.encode(conversation, reply=False)
            for model, own in dialogues
            for conversation in own
        ]
        return cls(expert, rows)


def groups_of(sizes: Mapping[str, int], memory: int) -> Iterator[list[str]]:
    """Yields layers in groups whose Gram matrices fit the memory; one that does not fit it alone is
    a group by itself.

    Args:
        sizes: The width of each layer's inputs.
        memory: Bytes.

    Example:
        >>> list(groups_of({"q": 10, "k": 10, "down": 40}, 1600))
        [['q', 'k'], ['down']]
    """
    group: list[str] = []
    used = 0
    for layer, size in sizes.items():
        needed = BYTES_PER_ELEMENT * size**2
        if group and used + needed > memory:
            yield group
            group, used = [], 0
        group.append(layer)
        used += needed
    if group:
        yield group


class LayerGrams(NamedTuple):
    """The Gram matrices of one expert's inputs to a group of layers.

    Attributes:
        source: For each layer that was called, the one whose inputs it shares; q, k and v share
            theirs.
        grams: G̃ of each source, of shape (in, in).
    """

    source: dict[str, str]
    grams: dict[str, torch.Tensor]


@torch.no_grad()
def read_grams(
    reader: GramReader, layers: Sequence[str], progress: Progress, label: str
) -> LayerGrams:
    """Lets an expert read its dialogues once, and returns the damped Gram matrices of the inputs of
    some layers, each divided by the number of tokens.

    Args:
        reader: The expert and what it reads.
        layers: Names of linear layers.
        progress: Shows the dialogues.
        label: What they are called there.
    """
    sums, source = dict[str, torch.Tensor](), dict[str, str]()
    latest: tuple[str, torch.Tensor | None] = ("", None)

    def see(layer: str, inputs: torch.Tensor) -> None:
        nonlocal latest
        if inputs is latest[1]:
            source[layer] = latest[0]
            return
        latest = (layer, inputs)
        source[layer] = layer
        flat = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        if layer not in sums:
            sums[layer] = torch.zeros(flat.shape[1], flat.shape[1], device=flat.device)
        sums[layer].addmm_(flat.T, flat)

    head = reader.expert.head_name()
    with (
        progress(label, len(reader.rows)) as advance,
        reader.expert.watching_inputs([layer for layer in layers if layer != head], see),
    ):
        # Rows of one length need no padding, which would count as inputs.
        for batch in _equal_rows(reader.rows):
            states = reader.expert.hidden_states(batch)
            if head in layers:
                see(head, torch.stack(states))
            latest = ("", None)
            advance(len(batch))
    tokens = sum(map(len, reader.rows))
    return LayerGrams(source, {layer: damped(gram / tokens) for layer, gram in sums.items()})


def _equal_rows(rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    by_length: dict[int, list[list[int]]] = {}
    for row in rows:
        by_length.setdefault(len(row), []).append(row)
    for length, own in sorted(by_length.items()):
        size = max(1, READ_AT_ONCE // length)
        for start in range(0, len(own), size):
            yield own[start : start + size]


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
