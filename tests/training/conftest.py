"""What keeps tests that train fast."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


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
