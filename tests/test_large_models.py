"""The page on large models: its arithmetic, and the recipes that it is about."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import large_models

PAGE = Path(large_models.__file__).with_suffix(".md")


def test_the_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == large_models.render()


@pytest.mark.parametrize(("name", "billions"), [("1b", 1.236), ("8b", 8.030), ("70b", 70.554)])
def test_the_shapes_are_those_of_llama(name: str, billions: float) -> None:
    """Llama 3's own counts of weights: 1.24, 8.03 and 70.6 billion."""
    shapes = large_models.shapes_of(large_models.SIZES[name])
    assert sum(map(math.prod, shapes.values())) / 1e9 == pytest.approx(billions, abs=0.001)


def test_memory_is_that_of_the_dry_run_for_each_recipe() -> None:
    """Base, the copy beside a merged adapter, and the adapters in float32; training has 16 bytes a
    weight of the experts' sum.
    """
    size = large_models.SIZES["1b"]
    base = sum(map(math.prod, large_models.shapes_of(size).values()))
    adapter = sum(map(math.prod, large_models.adapter_shapes(size).values()))
    weights, training = large_models.memory_by_recipe("1b", size, experts=3)
    assert weights == pytest.approx((2 * 2 * base + 3 * 4 * adapter) / 1e9)
    assert training == pytest.approx(16 * 3 * adapter / 1e9)
