"""What is old goes when what is new is on the disk: the calls that a power cut may come between, in
their order. `benchmarks/faults/` strikes whole runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from domainfusion.distillation.trainer.training import JsonLog
from domainfusion.files import remove_unfinished, replacing
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
def test_the_log_is_on_the_disk_before_what_keeps_its_lines_from_being_logged_again(
    tmp_path: Path, disk: list[tuple[str, str]]
) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    log({"step": 1, "loss": 0.5})
    assert disk == []
    log.flush()
    assert disk == [("fsync", "log.jsonl"), ("fsync", tmp_path.name)]
    log({"phase": "domains", "finished": True})
    assert disk[2:] == [("fsync", "log.jsonl"), ("fsync", tmp_path.name)]


def test_what_a_writer_makes_beside_its_file_goes_with_it(tmp_path: Path) -> None:
    """safetensors writes a file with a random name, and leaves it where it is killed."""
    script = (
        "import os, signal, sys; from pathlib import Path; from domainfusion.files import replacing\n"
        "with replacing(Path(sys.argv[1]), apart=True) as temporary:\n"
        "    temporary.with_name('.tmpX1').write_text('a part')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "finished.safetensors"
    path.write_text("old")
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    remove_unfinished(tmp_path)
    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == {path.name: "old"}
    with replacing(path, apart=True) as temporary:
        temporary.write_text("new")
    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == {path.name: "new"}


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


CAMPAIGN = Path(__file__).parents[1] / "benchmarks" / "faults" / "campaign.py"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="the faults are made in C"
)
def test_a_few_faults_of_each_kind_lose_nothing_and_pass_nothing_by(tmp_path: Path) -> None:
    """Kills, full and broken disks, power cuts, damage, signals, two writers, a jumping clock and
    failing servers; whole run folders are compared to the byte.
    """
    command = [sys.executable, str(CAMPAIGN), "--folder", str(tmp_path), "--share", "0.04"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "findings.jsonl").read_text().splitlines()
    findings = [json.loads(line) for line in lines]
    assert len({finding["kind"] for finding in findings}) == 14
    assert len(findings) > 40
    right = {"right", "named error", "stopped", "warned"}
    defects = [one for one in findings if not {one["struck"], one["resumed"]} <= right]
    assert defects == []
