"""What is old goes when what is new is on the disk: the calls that a power cut may come between, in
their order. `benchmarks/faults/` strikes whole runs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from domainfusion.files import replacing
from domainfusion.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was done to the disk, in order: the call, and the name of the file or folder."""
    done: list[tuple[str, str]] = []

    def note(module: Any, name: str) -> None:
        call = getattr(module, name)

        def noting(path: Any, *arguments: Any, **settings: Any) -> Any:
            place = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else str(path)
            target = str(arguments[0]) if name == "replace" else place
            done.append((name, Path(target).name))
            return call(path, *arguments, **settings)

        monkeypatch.setattr(module, name, noting)

    note(os, "fsync")
    note(os, "replace")
    note(shutil, "rmtree")
    return done


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names by /proc")


@needs_proc
def test_a_file_is_on_the_disk_before_it_takes_its_name_and_its_name_before_anything_else(
    tmp_path: Path, disk: list[tuple[str, str]]
) -> None:
    with replacing(tmp_path / "new.json") as temporary:
        temporary.write_text("{}")
    assert disk == [
        ("fsync", temporary.name),
        ("replace", "new.json"),
        ("fsync", tmp_path.name),
    ]


@needs_proc
def test_a_checkpoint_is_on_the_disk_file_and_folder_before_the_older_one_goes(
    tmp_path: Path, disk: list[tuple[str, str]]
) -> None:
    for step in (1, 2, 3):
        disk.clear()
        save_checkpoint(tmp_path, Checkpoint(step, {"w": torch.full((2,), step)}, {"step": step}))
    place = disk.index(("replace", "checkpoint-3"))
    before = {name for call, name in disk[:place] if call == "fsync"}
    written = {path.name for path in (tmp_path / "checkpoint-3").iterdir()}
    assert {"student.safetensors", "optimizer.pt"} < written
    assert written <= before
    assert disk[place + 1] == ("fsync", tmp_path.name)
    assert disk.index(("rmtree", "checkpoint-1")) > place + 1
    left = load_checkpoint(tmp_path)
    assert left is not None and left.step == 3
