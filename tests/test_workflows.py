"""The workflows of GitHub parse, and call targets that the Makefile has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def targets() -> set[str]:
    # A target of the Makefile: a name at the beginning of a line, a colon, no equal sign after it.
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_every_step_runs_a_target_that_is_there(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    called = [step["run"] for step in steps(workflow) if "run" in step]
    assert called
    for line in called:
        program, *words = line.split()
        assert program == "make"
        wanted = [word for word in words if "=" not in word]
        assert wanted
        assert set(wanted) <= targets(), line


def test_a_submission_runs_targets_that_are_there() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    # Comments name targets too, but run none.
    called = re.findall(r"^[^#\n]*\bmake ([a-z-]+)", script, re.MULTILINE)
    assert {"test", "test-slow", "test-engines"} <= set(called) <= targets()


def test_the_wheel_is_tried_on_every_python_that_is_supported() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # "Programming Language :: Python :: 3.12" gives 3.12.
    supported = {
        line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)
    }
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    [setup] = [
        step
        for step in workflow["jobs"]["wheel"]["steps"]
        if "setup-python" in str(step.get("uses"))
    ]
    assert set(setup["with"]["python-version"].split()) == supported
    assert set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"]) == supported
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [tried] = re.findall(r"^PYTHONS \?= (.*)$", makefile, re.MULTILINE)
    assert {name.removeprefix("python") for name in tried.split()} == supported
