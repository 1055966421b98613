"""The base, its experts and a world; and what keeps tests that train fast."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domainfusion.distillation import (
    MultiTaskTrainer,
)
from domainfusion.models import LlamaModel

from .trainings import RECORDS
from .world import World


@pytest.fixture(scope="module", autouse=True)
def little_garbage() -> Iterator[None]:
    """Keeps what is loaded out of the garbage collection with which the library begins every
    training.
    """
    import transformers.trainer  # noqa: F401  # or it would be loaded, and looked through, later

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def experts(tiny_llama: Path, make_adapter: Callable[..., Path]) -> dict[str, LlamaModel]:
    return {
        domain: LlamaModel(make_adapter(domain, seed), dtype="float32")
        for seed, domain in enumerate(("aviation", "chemistry"))
    }


# What the start knows


@pytest.fixture(scope="module")
def learned(base: LlamaModel, tmp_path_factory: pytest.TempPathFactory) -> LlamaModel:
    """A base that knows what aviation asks, and nothing else."""
    trainer = MultiTaskTrainer(learning_rate=5e-3, epochs=40, batch_size=5)
    path = tmp_path_factory.mktemp("learned")
    trainer.train(base, RECORDS[:2]).save(path)
    return LlamaModel(path, dtype="float32")


@pytest.fixture
def world(base: LlamaModel, tmp_path: Path) -> World:
    return World(base, tmp_path / "run")
