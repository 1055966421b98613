"""The average of two states of one training, as weights: what lies part-way back from the one to the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def part_way_back(trained: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Returns (1 − share)·trained + share·start (Wortsman et al., 2021, arXiv 2109.01903).

    What is averaged is the weights that the model computes with. The update of an adapter is a product B·A, and the average of two
    products has up to twice their rank: it is the best approximation of the adapter's own rank (Eckart and Young, 1936), which is
    exact where the start's update is 0.

    Args:
        trained: A state, by name, as `TrainableModel.trained_state` returns it.
        start: Another one of the same model.
        share: How far back, from 0 to 1.
    """
    average = {name: torch.lerp(tensor, start[name], share) for name, tensor in trained.items() if "lora_" not in name}
    for down in (name for name in trained if "lora_A" in name):
        up = down.replace("lora_A", "lora_B")
        if not start[up].any():
            average[up], average[down] = (1 - share) * trained[up], trained[down]
            continue
        ups = [(1 - share) * trained[up].double(), share * start[up].double()]
        downs = [trained[down].double(), start[down].double()]
        found = _low_rank(torch.cat(ups, dim=1), torch.cat(downs), len(trained[down]))
        average[up], average[down] = (factor.to(trained[down]).contiguous() for factor in found)
    return {name: average[name] for name in trained}


def _low_rank(up: torch.Tensor, down: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns factors of the given rank whose product is nearest to up · down; up is of shape (out, n), down of shape (n, in)."""
    left, inner_left = torch.linalg.qr(up)
    right, inner_right = torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(inner_left @ inner_right.T)
    roots = values[:rank].sqrt()
    return left @ u[:, :rank] * roots, roots[:, None] * (v[:rank] @ right.T)
