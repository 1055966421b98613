"""The average of two states: as weights, not as factors."""

from __future__ import annotations

import pytest
import torch

from domainfusion.training.averaging import part_way_back

State = dict[str, torch.Tensor]


def adapter(seed: int, rank: int = 3) -> State:
    random = torch.Generator().manual_seed(seed)
    return {
        "layer.lora_A.weight": torch.randn(rank, 7, generator=random),
        "layer.lora_B.weight": torch.randn(5, rank, generator=random),
        "head.weight": torch.randn(4, 4, generator=random),
    }


def update(state: State) -> torch.Tensor:
    return state["layer.lora_B.weight"] @ state["layer.lora_A.weight"]


@pytest.mark.parametrize(("share", "same_as"), [(0.0, 0), (1.0, 1)])
def test_not_back_at_all_and_all_the_way_back(share: float, same_as: int) -> None:
    states = adapter(0), adapter(1)
    found = part_way_back(*states, share)
    assert torch.allclose(update(found), update(states[same_as]), atol=1e-5)
    assert torch.allclose(found["head.weight"], states[same_as]["head.weight"])
    assert {name: tensor.shape for name, tensor in found.items()} == {name: tensor.shape for name, tensor in states[0].items()}


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_the_update_is_the_nearest_of_its_rank_to_the_average_of_the_updates(share: float) -> None:
    trained, start = adapter(0), adapter(1)
    average = (1 - share) * update(trained) + share * update(start)
    left, values, right = torch.linalg.svd(average)
    nearest = left[:, :3] * values[:3] @ right[:3]
    assert torch.allclose(update(part_way_back(trained, start, share)), nearest, atol=1e-5)


def test_going_back_to_where_nothing_was_changed_scales_the_update() -> None:
    trained, start = adapter(0), adapter(1)
    start["layer.lora_B.weight"].zero_()
    found = part_way_back(trained, start, 0.4)
    assert torch.allclose(update(found), 0.6 * update(trained))
    assert torch.equal(found["layer.lora_A.weight"], trained["layer.lora_A.weight"])


def test_between_equals_there_is_no_way() -> None:
    state = adapter(0)
    assert torch.allclose(update(part_way_back(state, adapter(0), 0.5)), update(state), atol=1e-5)
