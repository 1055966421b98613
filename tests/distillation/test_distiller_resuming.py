"""A run that is killed, and a full disk: the same run continues."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distillation.builders import Failing, Writer
from domainfusion.distillation import (
    Distiller,
    ResponseIntegrator,
)
from domainfusion.distillation.data_generation import (
    AdversarialDataGenerator,
    CuratedDataGenerator,
    SyntheticDataGenerator,
)
from domainfusion.errors import (
    DataError,
    StoreError,
)
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.store import ResponseStore
from domainfusion.progress import Advance
from domainfusion.reports import RunSummary

from .world import DOMAINS, PAIRS, SINGLES, SYMBOLS, World, knowing, outcome

# Killed and started again


class Killed(BaseException):
    """What stops a process at any instant."""


def killing(part: str, count: int) -> Callable[..., Any]:
    """A display of progress that kills the work whose label holds `part` after `count` items."""

    @contextmanager
    def progress(label: str, total: int, done: int = 0) -> Iterator[Advance]:
        left = count

        def advance(items: int) -> None:
            nonlocal left
            left -= items
            if part in label and left < 0:
                raise Killed

        yield advance

    return progress


@pytest.fixture(scope="module")
def uninterrupted(
    base: LlamaModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, int]:
    """A run that was left in peace: its directory, the fingerprint of its student, and the answers
    that were asked for.
    """
    world = World(base, tmp_path_factory.mktemp("uninterrupted"))
    distiller = full_run(world)
    student = distiller.distill()
    return world.directory, student.fingerprint, asked_in(world.directory)


def asked_in(directory: Path) -> int:
    """Returns how many answers were asked for, in all sessions of a run."""
    return sum(model.calls for model in RunSummary.read(directory).usage)


def full_run(world: World, **changes: Any) -> Distiller:
    """A run in which every stage asks a model."""
    generators = [
        CuratedDataGenerator([*SINGLES, *PAIRS]),
        SyntheticDataGenerator(Writer(), DOMAINS, 6),
        AdversarialDataGenerator(
            Writer(), DOMAINS, 4, judge=ScriptedModel("I can't say.", name="judge")
        ),
    ]
    integrator = ResponseIntegrator(
        ScriptedModel(lambda prompt: f"It is {len(prompt)} long.", name="integrator")
    )
    return world.evaluated(**{"data_generators": generators, "integrator": integrator, **changes})


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(
    "part",
    [
        "synthetic questions",
        "judging",
        "asking aviation",
        "asking chemistry",
        "integrating",
        "domains",
        "evaluating",
    ],
)
def test_a_run_that_was_killed_in_any_stage_ends_as_one_that_was_not(
    world: World, uninterrupted: tuple[Path, str, int], part: str, count: int
) -> None:
    killed = full_run(world, progress=killing(part, count))
    with pytest.raises(Killed):
        killed.distill()
    resumed = full_run(world)
    student = resumed.distill()
    directory, fingerprint, asked = uninterrupted
    assert outcome(world.directory) == outcome(directory)
    assert student.fingerprint == fingerprint
    assert asked_in(world.directory) == asked, "no answer was asked for twice"


def test_a_teacher_that_breaks_down_loses_no_answer(world: World) -> None:
    teachers = world.teachers() | {
        "chemistry": Failing(knowing(SYMBOLS), after=3, name="chemistry")
    }
    broken = world.distiller(teacher_models=teachers)
    with pytest.raises(ConnectionError):
        broken.distill()
    mended = world.teachers()
    world.distiller(teacher_models=mended).distill()
    assert mended["aviation"].calls == []
    assert len(mended["chemistry"].calls) == 8 - 3


# A full disk


@pytest.mark.parametrize("write", range(6))
def test_a_full_disk_is_one_clear_error_and_the_run_continues_when_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    writes = 0
    own = os.fsync

    def full(descriptor: int) -> None:
        nonlocal writes
        writes += 1
        if writes > write:
            raise OSError(errno.ENOSPC, "No space left on device")
        own(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            DataError, match=r"could not be written: No space left on device.*free disk space"
        ):
            world.distiller().distill()
    assert not [
        file for file in world.directory.rglob("*") if file.name.startswith(".") and file.is_file()
    ], "no half file is left"
    world.distiller().distill()
    assert len(outcome(world.directory)[0]) == 12


def test_a_full_disk_while_answers_arrive_keeps_those_that_did(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = ResponseStore._prepare

    def small(store: ResponseStore) -> None:
        prepare(store)
        store._connection.execute("PRAGMA max_page_count = 4")

    long_winded = {
        domain: ScriptedModel(lambda question: f"{question} " * 60, name=domain)
        for domain in DOMAINS
    }
    with (
        monkeypatch.context() as patch,
        pytest.raises(StoreError, match=r"could not be kept: .*full.*free disk space"),
    ):
        patch.setattr(ResponseStore, "_prepare", small)
        world.distiller(teacher_models=long_winded).distill()
    with ResponseStore(world.directory / "responses.sqlite") as store:
        kept = len(store)
    assert 0 < kept < 16
    resumed = world.distiller(teacher_models=long_winded)
    resumed.collect(resumed.generate())
    with ResponseStore(world.directory / "responses.sqlite") as store:
        assert kept < len(store) == asked_in(world.directory)
