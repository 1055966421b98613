"""Windows: the library imports, and runs are written to, without the modules that only Unix has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WITHOUT_UNIX = """
import sys

import psutil  # before the modules are gone: on Windows it does without them, on Linux it does not

for name in ("fcntl", "resource"):
    sys.modules[name] = None  # importing it raises ImportError
"""
WRITE = """
from pathlib import Path

import domainfusion.distillation
from domainfusion.distillation import Distiller, run as module
from domainfusion.models import LlamaModel
from domainfusion.records import read_json

run = module.RunDirectory(Path(sys.argv[1]), {"seed": 0}, "test")
with run.open(), run.stage("generate"):
    assert module.writer_of(run.path)
[stage] = read_json(run.stages)
assert stage["finished"] and stage["peak_memory_bytes"] is None, stage
assert module.writer_of(run.path) is None

from domainfusion.cli.main import main

assert main(["status", sys.argv[1]]) == 0
main(["--help"])
"""


def test_a_run_is_written_and_looked_at_without_unix_modules(tmp_path: Path) -> None:
    program = [sys.executable, "-c", WITHOUT_UNIX + WRITE, str(tmp_path / "run")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "No process is writing to it." in done.stdout
    assert "usage: domainfusion" in done.stdout
