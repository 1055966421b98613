"""Threads that compute side by side on a CPU.

Small products gain little from several threads of PyTorch, which wait for each other after each of
them. Threads that compute something of their own do not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Self, TypeVar

import torch

MOST_THREADS = 4
"""The most threads that compute at once: they take turns at Python's own part of the work."""

Result = TypeVar("Result")


class SideBySide:
    """Calls functions at once, each in a thread of its own with its share of PyTorch's threads; one
    alone is called in the thread of the caller. A context, which ends the threads.

    Args:
        count: How many functions are called at once at most.
        name: What the threads are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self.count = count
        self._all_threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(count, name, self._begin) if count > 1 else None

    def _begin(self) -> None:
        torch.get_num_threads()  # PyTorch sets a new thread's number when it is first asked for
        torch.set_num_threads(max(1, self._all_threads // self.count))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            torch.set_num_threads(self._all_threads)  # of threads to come

    def call(
        self, calls: Sequence[Callable[[], Result]], stop: Callable[[], None] = lambda: None
    ) -> list[Result]:
        """Returns what the functions return.

        Args:
            calls: The functions.
            stop: Called where one of them fails or the user stops it all, so that the others end
                soon; they are waited for.
        """
        if self._pool is None:
            return [call() for call in calls]

        def stopping(call: Callable[[], Result]) -> Result:
            try:
                return call()
            except BaseException:
                stop()
                raise

        running = [self._pool.submit(stopping, call) for call in calls]
        try:
            return [one.result() for one in running]
        except BaseException:
            stop()
            wait(running)
            raise
