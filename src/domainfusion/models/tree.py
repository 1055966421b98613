"""Rows of tokens as one tree: what they begin with alike, such as a system prompt, is computed once,
and padding is not computed at all.

Every layer but attention reads its tokens one by one, so it may read the tree's nodes in one row;
attention goes from each row to itself. The arithmetic is that of the rows alone, and so is its
gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, NamedTuple, cast

import torch
from torch.nn.functional import embedding
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface


class Tree(NamedTuple):
    """Rows as one tree.

    Attributes:
        tokens: The token of each node, of shape (nodes,).
        positions: How deep each node stands, of shape (nodes,).
        nodes: The nodes of each row, padded on one side, of shape (rows, length).
        padding: Where `nodes` is padding, of the same shape.
        places: For each node one place among rows × length where it stands, of shape (nodes,).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    nodes: torch.Tensor
    padding: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[int]], device: torch.device, *, pads_left: bool = False
    ) -> Tree:
        """Builds the tree of rows of any lengths; those on the left of padding need no mask, as
        causal attention never looks there.
        """
        length = max(map(len, rows))
        children: dict[tuple[int, int], int] = {}
        tokens, positions, places = list[int](), list[int](), list[int]()
        nodes = torch.zeros((len(rows), length), dtype=torch.long)
        padding = torch.ones((len(rows), length), dtype=torch.bool)
        for number, row in enumerate(rows):
            start, path, node = length - len(row) if pads_left else 0, list[int](), -1
            for position, token in enumerate(row):
                node = children.setdefault((node, token), len(tokens))
                if node == len(tokens):
                    tokens.append(token)
                    positions.append(position)
                    places.append(number * length + start + position)
                path.append(node)
            nodes[number, start : start + len(row)] = torch.tensor(path, dtype=torch.long)
            padding[number, start : start + len(row)] = False
        listed = [torch.tensor(values, dtype=torch.long) for values in (tokens, positions, places)]
        return cls(
            *(values.to(device) for values in (listed[0], listed[1], nodes, padding, listed[2]))
        )


_TREE_ATTENTION = "domainfusion_tree"
"""The name of `_attend_by_row` among the attention functions of Transformers."""

_tree_being_read: ContextVar[Tree | None] = ContextVar("_tree_being_read", default=None)
"""What this thread reads: threads share a model, and each reads rows of its own."""

_readers: Counter[int] = Counter()
"""How many threads read a tree with a model, by the id of its configuration."""

_counting_readers = Lock()


def _attend_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attends from each row of a tree to itself, while everything else is computed by node.

    Args:
        module: The attention layer.
        query: By node, of shape (1, heads, nodes, size).
        key: By row, as a cache returns it, of shape (rows, heads, length, size), or by node.
        value: The same.
        attention_mask: Of shape (rows, 1, length, length); None where no row is padded, or all
            are on the right.
        settings: What PyTorch's attention takes.

    Returns:
        What was found, by node, of shape (1, nodes, heads, size); in a thread that reads no tree
        what PyTorch's attention finds.
    """
    tree, attend = _tree_being_read.get(), ALL_ATTENTION_FUNCTIONS["sdpa"]
    if tree is None:  # another thread reads a tree, this one writes
        return cast(
            tuple[torch.Tensor, None], attend(module, query, key, value, attention_mask, **settings)
        )
    if key.shape[::2] != tree.nodes.shape:
        key, value = by_row(key, tree.nodes), by_row(value, tree.nodes)
    found, _ = attend(module, by_row(query, tree.nodes), key, value, attention_mask, **settings)
    return _picked(found.flatten(0, 1), tree.places)[None], None


AttentionInterface.register(_TREE_ATTENTION, _attend_by_row)


def by_row(states: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """Returns states by node, of shape (1, heads, nodes, size), by row: of shape (rows, heads,
    length, size).
    """
    return _picked(states[0].transpose(0, 1), nodes).transpose(1, 2)


def _picked(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Returns `states[places]`, as an embedding: its gradient is summed in one order by any number
    of threads, that of an index is not.
    """
    found = embedding(places, states.flatten(1))
    return found.view(*places.shape, *states.shape[1:])


@contextmanager
def reading(module: PreTrainedModel, tree: Tree) -> Iterator[None]:
    """Has the model attend by the rows of a tree while this thread has it read the nodes."""
    config = cast(Any, module.config)
    token = _tree_being_read.set(tree)
    with _counting_readers:
        _readers[id(config)] += 1
        config._attn_implementation = _TREE_ATTENTION
    try:
        yield
    finally:
        with _counting_readers:
            _readers[id(config)] -= 1
            if not _readers[id(config)]:
                del _readers[id(config)]
                config._attn_implementation = "sdpa"
        _tree_being_read.reset(token)


def read_tree(
    module: PreTrainedModel, rows: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Reads rows at once.

    Returns:
        The final hidden states of the tree's nodes, of shape (nodes, hidden), and the nodes of each
        row, of shape (tokens,).
    """
    tree = Tree.of(rows, module.device)
    with reading(module, tree):
        states: torch.Tensor = module.base_model(
            input_ids=tree.tokens[None], position_ids=tree.positions[None], use_cache=False
        ).last_hidden_state[0]
    paths = [path[: len(row)] for path, row in zip(tree.nodes, rows, strict=True)]
    return states, paths
