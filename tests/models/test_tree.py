"""Laws of rows that are read as one tree: states and gradients are those of the rows alone, and
nothing is computed twice.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from domainfusion.models.rows import final_hidden_states
from domainfusion.models.tree import Tree, read_tree

ROWS = [
    [5, 6, 7, 8],
    [5, 6, 7, 9, 10, 11],
    [5, 6],
    [12],
    [5, 6, 7, 8],
    [5, 6, 7, 8, 8, 8, 8, 8, 8],
]
"""Rows of which some begin alike, one begins another, and two are the same."""


@pytest.fixture(scope="module")
def module(tiny_llama: Path) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float64)
    return loaded.eval()


def alone(module: PreTrainedModel, row: list[int]) -> torch.Tensor:
    found: torch.Tensor = module.base_model(input_ids=torch.tensor([row])).last_hidden_state[0]
    return found


def gradients(module: PreTrainedModel, loss: torch.Tensor) -> list[torch.Tensor]:
    module.zero_grad()
    loss.backward()
    return [each.grad.clone() for each in module.parameters() if each.grad is not None]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[3:4], [ROWS[0]] * 3, ROWS[::-1]])
def test_states_and_gradients_are_those_of_the_rows_alone(
    module: PreTrainedModel, rows: list[list[int]]
) -> None:
    weights = [
        torch.linspace(-1, 1, len(row) * 64, dtype=torch.float64).view(len(row), 64) for row in rows
    ]
    by_node, paths = read_tree(module, rows)
    found = [by_node[path] for path in paths]
    expected = [alone(module, row) for row in rows]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    own, others = (
        gradients(
            module,
            torch.stack([(a * b).sum() for a, b in zip(states, weights, strict=True)]).sum(),
        )
        for states in (found, expected)
    )
    assert own
    for one, other in zip(own, others, strict=True):
        # the model's norms compute in float32
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_every_beginning_is_computed_once(module: PreTrainedModel) -> None:
    read: list[int] = []
    hook = module.get_input_embeddings().register_forward_hook(
        lambda _, given, __: read.append(given[0].numel())
    )
    read_tree(module, ROWS)
    hook.remove()
    assert read == [len({tuple(row[:end]) for row in ROWS for end in range(1, len(row) + 1)})]


def test_the_same_step_twice_is_the_same_to_the_bit(make_llama: Callable[..., Path]) -> None:
    """Many rows with one beginning: its gradient is a sum whose order must not vary with
    threads.
    """
    module = AutoModelForCausalLM.from_pretrained(make_llama("same"), dtype=torch.float32)
    rows = [[5, 6, 7, 8, *(9 + row % 7, 20 + row % 11, row)] for row in range(64)]

    def step() -> list[torch.Tensor]:
        by_node, paths = read_tree(module, rows)
        return gradients(module, by_node[torch.cat(paths)].square().sum())

    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        first, *others = [step() for _ in range(5)]
    finally:
        torch.set_num_threads(threads)
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8),
    pads_left=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_tree_holds_its_rows_and_nothing_twice(rows: list[list[int]], pads_left: bool) -> None:
    tree = Tree.of(rows, torch.device("cpu"), pads_left=pads_left)
    for number, row in enumerate(rows):
        path = tree.nodes[number][~tree.padding[number]]
        assert tree.tokens[path].tolist() == row
        assert tree.positions[path].tolist() == list(range(len(row)))
    beginnings = {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}
    assert len(tree.tokens) == len(beginnings)
    # each node is found again where it stands first
    assert tree.nodes.flatten()[tree.places].tolist() == list(range(len(tree.tokens)))
    sides = tree.padding if pads_left else tree.padding.flip(-1)
    assert all(before or not after for row in sides.tolist() for before, after in pairwise(row))


def test_hidden_states_are_the_same_with_and_without_a_tree(module: PreTrainedModel) -> None:
    with torch.no_grad():
        for size in (1, 2, 6):
            plain = final_hidden_states(module, ROWS, size)
            tree = final_hidden_states(module, ROWS, size, as_tree=True)
            side_by_side = final_hidden_states(module, ROWS, size, as_tree=True, threads=3)
            assert not any(states.requires_grad for states in side_by_side)
            for one, two, three in zip(plain, tree, side_by_side, strict=True):
                torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
                torch.testing.assert_close(one, three, rtol=0, atol=1e-6)
