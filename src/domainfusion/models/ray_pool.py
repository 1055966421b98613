"""Local models that answer on many GPUs or machines: a pool of Ray actors, each with the weights.

The process of the run alone hands out questions and takes answers, so that its store has all that
was answered whatever dies. Ray's own pools (Ray Data) start their actors anew for every call and
try a question that kills its actor for ever; here actors keep the weights between calls, and a
question that killed three of them is given up.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from weakref import WeakSet

from domainfusion.checks import check_count, check_number
from domainfusion.errors import (
    ConfigurationError,
    MissingDependencyError,
    ModelError,
)
from domainfusion.models.base import LanguageModel, OnResult, SpreadModel, sample_seeds
from domainfusion.types import Conversation, Generation, Sampling
from domainfusion.wording import counted

logger = logging.getLogger("domainfusion")

MOST_DEATHS = 3
"""Actors that one question may take with it before it is given up."""

HEAD_SECONDS = 30.0
"""The longest that a cluster's head node may be away: Ray ends this process without a Python error,
after 60 s where it was loaded before a pool was made.
"""

_IN_FLIGHT = 2
"""Batches that an actor has at once: the next one lies there when one is done."""

Spread = TypeVar("Spread", bound=SpreadModel)


class RayPool:
    """Actors on a Ray cluster, or on this machine, that answer for local models.

    All models of a pool are in every actor; LoRA experts on one base share its weights there. A
    model of a pool still trains, scores and merges in this process.

    Args:
        replicas: The fewest and the most actors: more are started while questions wait.
        gpus: GPUs of each actor; 0 computes on the CPU, a fraction shares one.
        cpus: CPU cores of each actor.
        batch_size: Questions that an actor gets at once.
        address: The cluster, as `ray.init` takes it; by default that of `RAY_ADDRESS`, else one
            that is started on this machine.
        start_seconds: The longest to wait for a first actor.

    Raises:
        ConfigurationError: A number is outside of what is allowed.
        MissingDependencyError: Ray is not installed.

    Example:
        ```python
        pool = RayPool(replicas=(1, 8), gpus=1)
        teachers = {name: pool.spread(model) for name, model in experts.items()}
        ```
    """

    def __init__(
        self,
        *,
        replicas: tuple[int, int] = (1, 1),
        gpus: float = 0,
        cpus: float = 1,
        batch_size: int = 16,
        address: str | None = None,
        start_seconds: float = 900.0,
    ) -> None:
        is_pair = isinstance(replicas, tuple | list) and len(replicas) == 2
        if (
            not is_pair
            or any(type(count) is not int for count in replicas)
            or not 1 <= replicas[0] <= replicas[1]
        ):
            raise ConfigurationError(
                "replicas are not a range of actors",
                received=replicas,
                allowed="two whole numbers from 1, the smaller first, such as (1, 8)",
                field="replicas",
            )
        check_number("gpus", gpus, "[0, inf)")
        check_number("cpus", cpus, "[0, inf)")
        check_count("batch_size", batch_size)
        check_number("start_seconds", start_seconds, "(0, inf)")
        # Nothing is reported to anybody.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        outlive_the_cluster()
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise MissingDependencyError(
                "A pool of actors needs Ray", fix="run: pip install 'domainfusion[ray]'"
            ) from error
        self.replicas = replicas
        self.gpus = gpus
        self._cpus = cpus
        self._batch_size = batch_size
        self._address = address
        self._start_seconds = start_seconds
        self._members: list[LanguageModel] = []
        self._actors: list[_Actor] = []
        self._session: _Session | None = None
        self._started_for: tuple[str, ...] = ()
        self._failed_starts = 0
        _pools.add(self)

    def spread(self, model: Spread) -> Spread:
        """Returns a model that answers from the pool; weights, adapter and fingerprint are those
        of `model`.

        Raises:
            CapabilityError: Its weights were trained in this process, and lie in no file.
        """
        return model.answered_by(self)

    def add(self, model: LanguageModel) -> None:
        """Has the pool answer for a model; its actors are started again with it."""
        self._members.append(model)

    def answer(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers for a model of the pool; see `LanguageModel.generate`.

        Raises:
            ModelError: The cluster can't be reached, or has lost its head node; no actor could be
                started; or some questions were given up: then every other one was answered and
                told to `on_result`.
        """
        if not any(one is model for one in self._members):
            self.add(model)  # a copy that was changed since
        place = next(place for place, one in enumerate(self._members) if one is model)
        seeds = sample_seeds(sampling.seed, conversations)
        # Long questions first: at the end no actor is left alone with a long batch.
        order = sorted(
            range(len(conversations)),
            key=lambda index: -sum(len(message.content) for message in conversations[index]),
        )
        starts = range(0, len(order), self._batch_size)
        waiting = deque(_Batch(order[start : start + self._batch_size]) for start in starts)
        answers: dict[int, Generation] = {}
        given_up: dict[int, str] = {}
        self._start()
        idle_since = time.monotonic()
        while waiting or any(actor.batches for actor in self._actors):
            if self._has_head():
                self._grow(len(waiting))
            self._hand_out(waiting, place, conversations, seeds, sampling)
            flying = [ref for actor in self._actors for ref in actor.batches]
            if not flying:
                self._wait_for_an_actor(idle_since)
                continue
            idle_since = time.monotonic()
            done, _ = self._ray.wait(flying, num_returns=1, timeout=1.0)
            for ref in done:
                for index, generation in self._collect(ref, waiting, given_up).items():
                    answers[index] = generation
                    if on_result is not None:
                        on_result(index, generation)
        if given_up:
            error = ModelError(
                f"{len(given_up)} of {counted(len(conversations), 'question')} to {model.name} were given up,"
                f" as each ended {MOST_DEATHS} actors: {next(iter(given_up.values()))}",
                fix="give the actors more memory, a smaller batch_size, or leave the questions out",
            )
            error.unanswered = {conversations[index]: why for index, why in given_up.items()}
            raise error
        return [answers[index] for index in range(len(conversations))]

    def stop(self) -> None:
        """Ends the actors, which frees their memory; they are started again on the next question."""
        # Those of a session that the user has closed ended with it.
        if self._session is not None and self._session.is_open():
            for actor in self._actors:
                self._ray.kill(actor.handle)
        self._actors.clear()

    # The cluster

    def _start(self) -> None:
        fingerprints = tuple(model.fingerprint for model in self._members)
        is_open = self._session is not None and self._session.is_open()
        if fingerprints != self._started_for or not is_open:
            self.stop()
        self._started_for = fingerprints
        if not self._ray.is_initialized():
            self._join()
        if not is_open:
            self._session = _Session(self._ray)

    def _join(self) -> None:
        address = self._address or os.environ.get("RAY_ADDRESS", "")
        # Ray itself tries for two minutes, and ends this process then.
        if _is_host_and_port(address) and not _listens(address):
            raise _not_reached(address, "nothing listens there")
        local = {"include_dashboard": False} if self._is_local() else {}
        try:
            self._ray.init(
                address=self._address, log_to_driver=False, logging_level="ERROR", **local
            )
        except Exception as error:  # also a bare one, where a node takes more than 30 s to start
            raise _not_reached(address, _first_line(error)) from error
        _joined.append(_Session(self._ray))

    def _is_local(self) -> bool:
        return self._address in (None, "local") and not os.environ.get("RAY_ADDRESS")

    def _has_head(self) -> bool:
        """Whether the cluster's head node answers: without it, actors answer, and none is started.

        Raises:
            ModelError: It has been away for `HEAD_SECONDS`, or the node on this machine is gone.
        """
        session = self._session
        assert session is not None
        away = session.seconds_without_head()
        if session.has_node() and away < HEAD_SECONDS:
            return away == 0
        lost = f"The head node of the Ray cluster has not answered for {away:.0f} s"
        if not session.has_node():
            lost = "Ray's node on this machine, through which the cluster is asked, has ended"
        # Ray would end this process, whatever it does by then.
        self._actors.clear()
        session.close()
        raise ModelError(
            lost,
            received=session.address,
            allowed="a cluster whose head node, and node on this machine, live as long as the run",
            fix="start the cluster again and run the same command: whatever was answered is kept,"
            " and only the rest is asked",
        )

    # Actors

    def _grow(self, waiting: int) -> None:
        fewest, most = self.replicas
        wanted = min(most, max(fewest, -(-waiting // _IN_FLIGHT)))
        while len(self._actors) < wanted:
            remote = self._ray.remote(_Replica).options(
                num_gpus=self.gpus, num_cpus=self._cpus, max_restarts=0
            )
            handle = remote.remote([_as_sent(model) for model in self._members], self.gpus > 0)
            self._actors.append(_Actor(handle, handle.ready.remote()))

    def _hand_out(
        self,
        waiting: deque[_Batch],
        place: int,
        conversations: Sequence[Conversation],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> None:
        for actor in list(self._actors):
            if not self._is_ready(actor):
                continue
            while waiting and len(actor.batches) < _IN_FLIGHT:
                batch = waiting.popleft()
                asked = [(conversations[index], seeds[index]) for index in batch.rows]
                ref = actor.handle.answer.remote(place, asked, sampling)
                actor.batches[ref] = batch

    def _is_ready(self, actor: _Actor) -> bool:
        if not actor.is_ready:
            done, _ = self._ray.wait([actor.ready], timeout=0)
            if not done:
                return False
            try:
                self._ray.get(actor.ready)
            except Exception as error:
                self._lose(actor)
                self._failed_starts += 1
                is_lost = (
                    isinstance(error, self._ray.exceptions.RayActorError)
                    and not error.actor_init_failed
                )
                if is_lost and self._failed_starts < MOST_DEATHS:
                    logger.warning("An actor died while it started: %s", _first_line(error))
                    return False
                raise ModelError(
                    f"An actor could not be started: {_first_line(error)}",
                    fix="check that domainfusion and the models' files are on every machine",
                ) from error
            actor.is_ready, self._failed_starts = True, 0
        return True

    def _wait_for_an_actor(self, idle_since: float) -> None:
        """Waits a second for an actor to be ready; with none for too long, gives up.

        Args:
            idle_since: When an actor last had a question, or the first of them was started.
        """
        if starting := [actor.ready for actor in self._actors]:
            self._ray.wait(starting, num_returns=1, timeout=1.0)
        if time.monotonic() - idle_since > self._start_seconds and not any(
            actor.is_ready for actor in self._actors
        ):
            self.stop()
            raise ModelError(
                f"The cluster gave no actor within {self._start_seconds:g} s",
                received={"gpus": self.gpus, "cpus": self._cpus},
                allowed="what `ray status` shows as free",
                fix="whatever was answered is kept; run again once the cluster has room",
            )

    def _collect(
        self, ref: Any, waiting: deque[_Batch], given_up: dict[int, str]
    ) -> dict[int, Generation]:
        """Returns the answers of a batch by question; none where its actor died."""
        actor = next((one for one in self._actors if ref in one.batches), None)
        if actor is None:
            return {}  # its actor died, and it waits once more
        batch = actor.batches[ref]
        try:
            generations = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            if _is_of_memory(error.cause):
                self._take_back(actor, error.cause, waiting, given_up)
                return {}
            self.stop()
            # What the model itself raised, as it would have in this process.
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except self._ray.exceptions.RayError as error:
            self._take_back(actor, error, waiting, given_up)
            return {}
        del actor.batches[ref]
        return dict(zip(batch.rows, generations, strict=True))

    def _take_back(
        self, actor: _Actor, error: Exception, waiting: deque[_Batch], given_up: dict[int, str]
    ) -> None:
        """Puts what a dead actor had back in the line; of what it worked at, each question alone,
        to find the one that ends actors.
        """
        logger.warning("An actor died, and its questions are asked again: %s", _first_line(error))
        at_work, *behind = actor.batches.values()
        for batch in behind:
            waiting.appendleft(batch)
        for index in at_work.rows:
            alone = _Batch([index], at_work.deaths + 1)
            if alone.deaths < MOST_DEATHS:
                waiting.append(alone)
            else:
                given_up[index] = _first_line(error)
        self._lose(actor)

    def _lose(self, actor: _Actor) -> None:
        self._ray.kill(actor.handle)
        self._actors.remove(actor)


class _Session:
    """The connection of this process to a cluster, from when Ray was initialized to its shutdown.

    Args:
        ray: Ray's module.

    Attributes:
        address: Host and port of the control service on the head node.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        context = ray.get_runtime_context()
        self.address: str = context.gcs_address
        self._job: str = context.get_job_id()
        node = next(one for one in ray.nodes() if one["NodeID"] == context.get_node_id())
        self._node = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        # Ray's client reaches a cluster through another port; then these say nothing.
        self._is_watched = _listens(self.address)
        self._has_node = _listens(self._node)
        self._looked = self._answered = time.monotonic()

    def is_open(self) -> bool:
        """Whether the process is still connected so: actors of an earlier session are gone."""
        if not self._ray.is_initialized():
            return False
        context = self._ray.get_runtime_context()
        return bool((context.gcs_address, context.get_job_id()) == (self.address, self._job))

    def close(self) -> None:
        """Leaves the cluster; one that was started by this process ends."""
        self._ray.shutdown()

    def has_node(self) -> bool:
        """Whether the node on this machine lives: without it, Ray ends this process when it reads
        an answer from that node's memory.
        """
        return not self._has_node or _listens(self._node)

    def seconds_without_head(self) -> float:
        """Returns how long the head node has not answered, 0 if it does; asks once a second."""
        now = time.monotonic()
        if self._is_watched and now - self._looked >= 1:
            self._looked = now
            if _listens(self.address):
                self._answered = now
        return self._looked - self._answered if self._is_watched else 0.0


@dataclass
class _Batch:
    """Questions that are asked together.

    Attributes:
        rows: Their places among the conversations.
        deaths: Actors that died while they worked at these questions.
    """

    rows: list[int]
    deaths: int = 0


@dataclass(eq=False)
class _Actor:
    """An actor, and the batches that it has, the one it works at first."""

    handle: Any
    ready: Any
    is_ready: bool = False
    batches: dict[Any, _Batch] = field(default_factory=dict)


class _Replica:
    """What an actor is: the models of a pool, in a process of its own."""

    def __init__(self, models: list[Any], has_gpu: bool) -> None:
        self._models = [model.on_this_machine() if has_gpu else model for model in models]

    def ready(self) -> bool:
        """Says that the process is there."""
        return True

    def answer(
        self, place: int, asked: Sequence[tuple[Conversation, int]], sampling: Sampling
    ) -> list[Generation]:
        """Answers questions, each with a seed of its own."""
        by_seed: dict[int, list[int]] = {}
        for index, (_, seed) in enumerate(asked):
            by_seed.setdefault(seed, []).append(index)
        answers: dict[int, Generation] = {}
        for seed, rows in by_seed.items():
            found = self._models[place].generate(
                [asked[index][0] for index in rows], replace(sampling, seed=seed)
            )
            answers |= dict(zip(rows, found, strict=True))
        return [answers[index] for index in range(len(asked))]


def _as_sent(model: Any) -> Any:
    """Returns a model as an actor gets it: without weights, and answering by itself."""
    return model.unloaded() if isinstance(model, SpreadModel) else copy(model)


def _is_of_memory(error: BaseException) -> bool:
    """Whether a model had no memory left, on the GPU or beside it."""
    # torch's class by its name, as a recipe is read without torch; on a CPU it has no class.
    is_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or is_torch


def _first_line(error: Exception) -> str:
    lines: Mapping[int, str] = dict(enumerate(str(error).strip().splitlines()))
    return lines.get(0, type(error).__name__)[:300]


def _not_reached(address: str, why: str) -> ModelError:
    return ModelError(
        f"The Ray cluster can't be reached: {why}",
        received=address or "a cluster that is started on this machine",
        fix="check the address, and that the cluster runs: `ray status` shows it on its machines",
    )


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and "/" not in host and port.isdigit()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
    except OSError:
        return False


def outlive_the_cluster() -> None:
    """Keeps Ray from ending this process, without a Python error, when its cluster is lost. Ray
    reads it where it is loaded or started.
    """
    # How long the head node may be away.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "300")
    # When a node on this machine is gone, Ray looks whether the process lives that this names; in
    # workers that is their node's. Without it Ray looks at the parent, and takes it for dead where
    # it is process 1: under `docker run --init`, systemd, or after a shell that is gone.
    os.environ.setdefault("RAY_RAYLET_PID", str(os.getpid()))


_pools: WeakSet[RayPool] = WeakSet()

_joined: list[_Session] = []
"""The sessions that pools began; those of the user are left to the user."""


def stop_pools() -> None:
    """Ends the actors of every pool, as their memory is needed for something else, and leaves a
    cluster that a pool joined: Ray would end a student's training with the cluster's head node.
    """
    for pool in list(_pools):
        pool.stop()
    while _joined:
        session = _joined.pop()
        if session.is_open():
            session.close()
