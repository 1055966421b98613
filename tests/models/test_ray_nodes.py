"""Answers from a pool of Ray actors on a cluster that loses a node, its head, or its driver."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from domainfusion.errors import ModelError
from domainfusion.models import ResponseStore, ray_pool
from domainfusion.models.base import OnResult
from domainfusion.models.ray_pool import RayPool, stop_pools
from domainfusion.types import Generation, Sampling, user
from models.ray_actors import (
    MARKS,
    Spreadable,
    leave_ray,
    send_classes_of,
    wait_for_slow_nodes,
)

ray = pytest.importorskip("ray")
pytestmark = MARKS

QUESTIONS = [user(f"What is {number} plus one?") for number in range(24)]
TEXTS = [question[-1].content for question in QUESTIONS]
BATCH = 2

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_log_monitor": False}
HEAD = {**NODE, "num_cpus": 0, "include_dashboard": False}


@pytest.fixture
def start_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Starts clusters whose head has no room for actors; tests add the nodes that have."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    wait_for_slow_nodes()
    made: list[Any] = []

    def start() -> Any:
        made.append(Cluster(initialize_head=True, head_node_args=HEAD))
        return made[-1]

    send_classes_of(__name__)
    yield start
    stop_pools()  # their actors are of this session alone
    leave_ray(*made)


@pytest.fixture
def cluster(start_cluster: Callable[[], Any]) -> Any:
    return start_cluster()


def add_node(cluster: Any) -> Any:
    """Adds a node with room for one actor."""
    return cluster.add_node(**NODE)


class Echo(Spreadable):
    """Answers with the question, slowly, and notes in a file what it was asked."""

    def __init__(self, asked: Path) -> None:
        super().__init__("echo")
        self.asked = asked

    def reply(self, text: str, sampling: Sampling) -> str:
        with self.asked.open("a") as file:
            file.write(f"{text}\n")
        time.sleep(0.2)
        return text


class Watched:
    """A model whose user does something after a number of answers.

    Args:
        model: The model.
        after: The number of answers.
        act: What is done.
    """

    def __init__(self, model: Echo, after: int, act: Callable[[], object]) -> None:
        self.name, self.fingerprint = model.name, model.fingerprint
        self.model, self.after, self.act = model, after, act
        self.told: list[int] = []

    def generate(
        self,
        conversations: Any,
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        def tell(index: int, generation: Generation) -> None:
            if on_result is not None:
                on_result(index, generation)
            self.told.append(index)
            if len(self.told) == self.after:
                self.act()

        return self.model.generate(conversations, sampling, tell)

    def kept(self) -> list[str]:
        """Returns the questions whose answers were told."""
        return [TEXTS[index] for index in self.told]


def make_pool(cluster: Any, **settings: Any) -> RayPool:
    return RayPool(replicas=(2, 2), cpus=1, batch_size=BATCH, address=cluster.address, **settings)


def test_a_node_that_is_lost_while_answers_come_costs_what_it_worked_at(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost, asked = add_node(cluster), tmp_path / "asked"
    add_node(cluster)
    before: list[str] = []

    def lose_it() -> None:
        before.extend(model.kept())
        cluster.remove_node(lost, allow_graceful=False)

    model = Watched(make_pool(cluster).spread(Echo(asked)), len(QUESTIONS) // 3, lose_it)
    found = model.generate(QUESTIONS)
    assert [one.text for one in found] == TEXTS
    assert sorted(model.told) == list(range(len(QUESTIONS)))
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
    pool = make_pool(cluster, start_seconds=60)
    spread = pool.spread(Echo(asked))

    def lose_it() -> None:
        pool._start_seconds = 5
        cluster.remove_node(only, allow_graceful=False)

    model = Watched(spread, 2 * BATCH, lose_it)
    with ResponseStore(tmp_path / "answers.sqlite") as store:
        with pytest.raises(ModelError, match=r"gave no actor within 5 s.*is kept; run again"):
            store.ask(model, QUESTIONS)
        assert len(model.told) >= 2 * BATCH
        add_node(cluster)
        pool._start_seconds = 600
        found = store.ask(spread, QUESTIONS)
    assert [one.text for one in found] == TEXTS
    counts = asked.read_text().splitlines()
    assert all(counts.count(text) == 1 for text in model.kept())


LOST = r"(head node .* not answered for \d+ s|node on this machine.*ended)"
"""Either is found first: this process is in the cluster through its head node, or another."""

CLUSTER = f"""
import sys
from ray.cluster_utils import Cluster
from models.ray_actors import wait_for_slow_nodes
wait_for_slow_nodes()
made = Cluster(initialize_head=True, head_node_args={HEAD})
made.add_node(**{NODE})
print(made.address, flush=True)
for one in [made.head_node, *made.worker_nodes]:
    sys.stdin.readline()
    one.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
"""
"""A cluster in a process of its own, which Ray ends when the head is gone. Each line that it reads
is the end of a node, the head first.
"""


def test_the_head_node_that_is_lost_is_one_error_and_another_cluster_is_asked_the_rest(
    start_cluster: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "HEAD_SECONDS", 2.0)
    asked = tmp_path / "asked"
    with (
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as cluster,
        ResponseStore(tmp_path / "answers.sqlite") as store,
    ):
        address = cluster.stdout.readline().strip()
        pool = RayPool(address=address, batch_size=BATCH)
        lose_the_head = partial(cluster.stdin.write, "\n")
        model = Watched(pool.spread(Echo(asked)), BATCH, lose_the_head)
        said = rf"{LOST}.*{address}.*run the same command"
        with pytest.raises(ModelError, match=said):
            store.ask(model, QUESTIONS)
        # Ray ends a process that stays in a cluster without a head.
        assert not ray.is_initialized()
        cluster.stdin.write("\n")
        kept = model.kept()
        assert BATCH <= len(kept) < len(QUESTIONS)
        asked.unlink()
        other = start_cluster()
        add_node(other)
        found = store.ask(make_pool(other).spread(Echo(asked)), QUESTIONS)
    assert [one.text for one in found] == TEXTS
    assert sorted(asked.read_text().splitlines()) == sorted(set(TEXTS) - set(kept))


ORPHAN = f"""
import os, sys, time
from pathlib import Path
address, folder = sys.argv[1], Path(sys.argv[2])
if os.fork():
    os._exit(0)
while os.getppid() != 1:
    time.sleep(0.1)
from domainfusion.models import ray_pool
from domainfusion.types import user
from models import test_ray_nodes as nodes
from models.ray_actors import send_classes_of
ray_pool.HEAD_SECONDS = 2.0
send_classes_of(nodes.__name__)
pool = ray_pool.RayPool(address=address, batch_size={BATCH})
try:
    pool.spread(nodes.Echo(folder / "asked")).generate(nodes.QUESTIONS * 20)
except BaseException as error:
    (folder / "new").write_text(f"{{type(error).__name__}}: {{error}}")
(folder / "new").rename(folder / "said")
"""
"""A process whose parent has ended, and that is asked by a shell, systemd or `docker --init`."""


def test_a_process_under_an_init_process_ends_with_the_error_too(
    cluster: Any, tmp_path: Path
) -> None:
    """Ray takes such a process for one of a node that has died, and ends it without a word."""
    add_node(cluster)
    command = [sys.executable, "-c", ORPHAN, cluster.address, str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True)
    wait_until((tmp_path / "asked").exists, 600)
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    wait_until((tmp_path / "said").exists, 60)
    assert re.match(f"ModelError: .*{LOST}", (tmp_path / "said").read_text())


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < limit, f"not so within {seconds:g} s"
        time.sleep(0.1)


def test_an_address_where_no_cluster_is_is_refused_at_once(tmp_path: Path) -> None:
    pool = RayPool(address="127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"can't be reached.*127\.0\.0\.1:1.*check the address"):
        pool.spread(Echo(tmp_path / "asked")).generate(QUESTIONS)
    # Ray itself would try for two minutes, and end this process.
    assert time.monotonic() - started < 20


def test_a_user_who_leaves_ray_may_stop_and_ask_again(cluster: Any, tmp_path: Path) -> None:
    add_node(cluster)
    pool = make_pool(cluster)
    model = pool.spread(Echo(tmp_path / "asked"))
    two = QUESTIONS[:2]
    first = model.generate(two)
    ray.shutdown()
    stop_pools()
    assert not ray.is_initialized(), "stopping began Ray"
    assert model.generate(two) == first
    ray.shutdown()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    # The actors of the session before are gone.
    assert model.generate(two) == first
    stop_pools()
    assert ray.is_initialized(), "the user's session was closed"


def test_a_cluster_that_a_pool_joined_is_left_when_pools_stop(cluster: Any, tmp_path: Path) -> None:
    add_node(cluster)
    make_pool(cluster).spread(Echo(tmp_path / "asked")).generate(QUESTIONS[:2])
    assert ray.is_initialized()
    stop_pools()
    assert not ray.is_initialized()
