"""Answers from a pool of Ray actors on a cluster of two nodes, one of which is lost."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from domainfusion.errors import ModelError
from domainfusion.models import ResponseStore
from domainfusion.models.base import AnswersForModels, OnResult
from domainfusion.models.ray_pool import RayPool, stop_pools
from domainfusion.types import Conversation, Generation, Sampling, user

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(1_800),  # an actor imports torch, which takes a minute on a busy machine
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

QUESTIONS = [user(f"What is {number} plus one?") for number in range(24)]
BATCH = 2


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head has no room for actors; tests add the nodes that have."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
    made = Cluster(initialize_head=True, head_node_args=head)
    # Actors know this file's class from what they are sent, not from a module that they can't find.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield made
    stop_pools()  # their actors are of this session alone
    ray.shutdown()
    made.shutdown()
    # Ray does not wait for its processes, and their handles warn when they are collected.
    for one in gc.get_objects():
        if type(one) is subprocess.Popen:  # others warn when they are asked for their class
            one.wait(120)


def add_node(cluster: Any) -> Any:
    """Adds a node with room for one actor."""
    return cluster.add_node(num_cpus=1, object_store_memory=100_000_000)


class Echo:
    """Answers with the question, slowly, and notes in a file what it was asked."""

    def __init__(self, asked: Path) -> None:
        self.name = self.fingerprint = "echo"
        self.asked = asked
        self.pool: AnswersForModels | None = None

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        if self.pool is not None:
            return self.pool.answer(self, conversations, sampling, on_result)
        found = []
        for conversation in conversations:
            text = conversation[-1].content
            with self.asked.open("a") as file:
                file.write(f"{text}\n")
            time.sleep(0.2)
            found.append(Generation(text=text))
        return found

    def answered_by(self, pool: AnswersForModels) -> Echo:
        spread = copy(self)
        spread.pool = pool
        pool.add(spread)
        return spread

    def unloaded(self) -> Echo:
        sent = copy(self)
        sent.pool = None
        return sent

    def on_this_machine(self) -> Echo:
        return self


def make_pool(cluster: Any, **settings: Any) -> RayPool:
    return RayPool(replicas=(2, 2), cpus=1, batch_size=BATCH, address=cluster.address, **settings)


def test_a_node_that_is_lost_while_answers_come_costs_what_it_worked_at(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost, asked = add_node(cluster), tmp_path / "asked"
    add_node(cluster)
    model = make_pool(cluster).spread(Echo(asked))
    told: list[int] = []
    before: list[str] = []

    def lose_it_after_a_third(index: int, _: Generation) -> None:
        told.append(index)
        if len(told) == len(QUESTIONS) // 3:
            before.extend(QUESTIONS[one][-1].content for one in told)
            cluster.remove_node(lost, allow_graceful=False)

    found = model.generate(QUESTIONS, Sampling(), lose_it_after_a_third)
    assert [one.text for one in found] == [each[-1].content for each in QUESTIONS]
    assert sorted(told) == list(range(len(QUESTIONS)))
    assert "An actor died, and its questions are asked again" in caplog.text
    counts = asked.read_text().splitlines()
    again = {text for text in counts if counts.count(text) > 1}
    assert not again & set(before), "what was answered was asked again"
    # An actor has two batches at once.
    assert len(again) <= 2 * BATCH


def test_the_last_node_that_is_lost_is_one_error_and_a_new_one_is_asked_the_rest(
    cluster: Any, tmp_path: Path
) -> None:
    only, asked = add_node(cluster), tmp_path / "asked"
    model = make_pool(cluster, start_seconds=60).spread(Echo(asked))
    told: list[int] = []

    def lose_it(index: int, _: Generation) -> None:
        told.append(index)
        if len(told) == 2 * BATCH:
            model.pool._start_seconds = 5
            cluster.remove_node(only, allow_graceful=False)

    class Watched(Echo):
        def generate(
            self, conversations: Any, sampling: Any = Sampling(), on_result: Any = None
        ) -> Any:
            def tell(index: int, generation: Generation) -> None:
                on_result(index, generation)
                lose_it(index, generation)

            return model.generate(conversations, sampling, tell)

    with ResponseStore(tmp_path / "answers.sqlite") as store:
        with pytest.raises(ModelError, match=r"gave no actor within 5 s.*is kept; run again"):
            store.ask(Watched(asked), QUESTIONS)
        kept = [QUESTIONS[index][-1].content for index in told]
        assert len(kept) >= 2 * BATCH
        add_node(cluster)
        model.pool._start_seconds = 600
        found = store.ask(model, QUESTIONS)
    assert [one.text for one in found] == [each[-1].content for each in QUESTIONS]
    counts = asked.read_text().splitlines()
    assert all(counts.count(text) == 1 for text in kept)
