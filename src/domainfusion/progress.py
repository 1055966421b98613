"""How long work tells how far it is: the library is silent, and whoever wants to see progress
passes a `Progress`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of items finished since the last call."""


class Progress(Protocol):
    """Shows one piece of work."""

    def __call__(self, label: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Opens a display of `total` items, `done` of which are finished, and gives the function
        that moves it on.
        """
        ...


@contextmanager
def silent(label: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda _: None
