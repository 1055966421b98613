"""What the tests of Ray's pools share: models that answer in actors, and the end of Ray."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import pytest

from domainfusion.models.base import AnswersForModels, OnResult
from domainfusion.models.ray_pool import outlive_the_cluster
from domainfusion.types import Conversation, Generation, Sampling

# As a pool does, but the test files load Ray first.
outlive_the_cluster()
START_SECONDS = 60

MARKS = [
    pytest.mark.engines,
    pytest.mark.timeout(1_800),  # an actor imports torch, which takes a minute on a busy machine
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("own_address"),
]


class Spreadable:
    """Answers in an actor, or alone in this process, by `reply`, which subclasses have."""

    def __init__(self, name: str) -> None:
        self.name = self.fingerprint = name
        self.pool: AnswersForModels | None = None

    def reply(self, text: str, sampling: Sampling) -> str:
        raise NotImplementedError

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        if self.pool is not None:
            return self.pool.answer(self, conversations, sampling, on_result)
        texts = [conversation[-1].content for conversation in conversations]
        return [Generation(text=self.reply(text, sampling)) for text in texts]

    def answered_by(self, pool: AnswersForModels) -> Self:
        spread = copy(self)
        spread.pool = pool
        pool.add(spread)
        return spread

    def unloaded(self) -> Self:
        sent = copy(self)
        sent.pool = None
        return sent

    def on_this_machine(self) -> Self:
        return self


def send_classes_of(*modules: str) -> None:
    """Has actors get the classes of test files with what they are sent: they can't find the files."""
    from ray import cloudpickle

    for module in (__name__, *modules):
        cloudpickle.register_pickle_by_value(sys.modules[module])


def wait_for_slow_nodes() -> None:
    """Has Ray wait longer for a node to start: its 30 s are not a setting, and too short beside
    other work.
    """
    from ray._private import services

    ask = services.get_node

    def ask_until_it_is_there(*address: Any) -> Any:
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit:
            try:
                return ask(*address)
            except RuntimeError:
                time.sleep(0.2)
        return ask(*address)

    if ask.__name__ != ask_until_it_is_there.__name__:
        services.get_node = ask_until_it_is_there


def leave_ray(*clusters: Any) -> None:
    """Leaves Ray, ends the clusters, and waits for their processes."""
    import ray

    ray.shutdown()
    for cluster in clusters:
        cluster.shutdown()
    # Ray does not wait for its processes, and their handles warn when they are collected.
    for one in gc.get_objects():
        # Others warn when they are asked for their class.
        if type(one) is subprocess.Popen and "/ray/" in str(one.args):
            _end(one)


def _end(process: subprocess.Popen[Any]) -> None:
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:  # a node that did not start leaves its processes
        process.kill()
        process.wait()
