"""Where benchmarks come from: examples, files, and tasks of lm-evaluation-harness."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from domainfusion.distillation.evaluator.harness import HarnessTask, LoadedTask
from domainfusion.distillation.examples import ExampleLike, read_examples
from domainfusion.errors import DataError
from domainfusion.types import Example

BenchmarkSource = str | Path | HarnessTask | Sequence[ExampleLike]
"""A benchmark: examples, the path of a file of such, or a task of lm-evaluation-harness, by its name or as a `HarnessTask`."""

BenchmarkSources = BenchmarkSource | Sequence[str | Path | HarnessTask | Sequence[ExampleLike]]
"""One benchmark, or a list of several."""

GENERAL = "general"
"""What the items of general ability have for a domain."""


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark that was read.

    Attributes:
        slice: The slice that it is reported in.
        domain: The domain that it measures; empty for general ability.
        source: `examples`, a path, or the name of a task.
        examples: Its items.
        task: The task that asks and grades in its own way; None where the evaluator's metric does.
    """

    slice: str
    domain: str
    source: str
    examples: tuple[Example, ...]
    task: LoadedTask | None = None


def normalized(sources: BenchmarkSources, name: str) -> tuple[str | Path | HarnessTask | tuple[Example, ...], ...]:
    """Returns the benchmarks of a list, or the one benchmark, with its examples read; tasks are not loaded yet.

    Args:
        sources: What was given.
        name: The domain, or what errors call it.

    Raises:
        DataError: One is empty, can't be read, or is neither a file nor the name of a task.
    """
    if isinstance(sources, str | Path | HarnessTask):
        return (_checked(sources, name),)
    several: list[str | Path | HarnessTask | Sequence[ExampleLike]] = []
    examples: list[ExampleLike] = []
    for item in sources:
        if isinstance(item, Example | Mapping):
            examples.append(item)
        else:
            several.append(item)
    if examples and several:
        raise DataError(
            f"The benchmark of {name!r} mixes examples and benchmarks", received=several[0], fix="put the examples into a list of their own"
        )
    if not several:
        return (_read(examples, name),)
    return tuple(_checked(item, name) if isinstance(item, str | Path | HarnessTask) else _read(item, name) for item in several)


def load(
    sources: Mapping[str, Sequence[str | Path | HarnessTask | tuple[Example, ...]]], *, general: bool = False
) -> Iterator[LoadedBenchmark]:
    """Reads the benchmarks of each domain; a domain with one of them gives its name to the slice, else each has its own.

    Raises:
        MissingDependencyError: A task needs lm-evaluation-harness.
        DataError: A file or a task can't be read, or two benchmarks of a domain have the same name.
    """
    for domain, found in sources.items():
        names = [_label(source, position) for position, source in enumerate(found)]
        if len(set(names)) < len(names):
            raise DataError(f"Two benchmarks of {domain!r} have the same name", received=names, fix="name files and tasks differently")
        for label, source in zip(names, found, strict=True):
            name = f"{domain}: {label}" if general or len(found) > 1 else domain
            yield _load(source, name, domain, "" if general else domain)


def _load(source: str | Path | HarnessTask | tuple[Example, ...], name: str, needed: str, domain: str) -> LoadedBenchmark:
    if isinstance(source, tuple):
        return LoadedBenchmark(name, domain, "examples", tuple(in_slice(example, name) for example in source))
    if not isinstance(source, HarnessTask) and Path(source).is_file():
        examples = _read(source, needed)
        return LoadedBenchmark(name, domain, str(source), tuple(in_slice(example, name) for example in examples))
    task = source if isinstance(source, HarnessTask) else HarnessTask(name=str(source))
    loaded = LoadedTask(task, name, needed)
    return LoadedBenchmark(name, domain, task.name, loaded.examples, loaded)


def _checked(source: str | Path | HarnessTask, name: str) -> str | Path | HarnessTask | tuple[Example, ...]:
    """Reads a file at once, and leaves the name of a task for later."""
    if isinstance(source, HarnessTask):
        return source
    if Path(source).is_file():
        _read(source, name)
        return source
    if isinstance(source, Path) or not re.fullmatch(r"[\w.-]+", source) or Path(source).suffix in (".json", ".jsonl"):
        raise DataError(
            f"The benchmark of {name!r} is neither a file nor the name of a task",
            received=str(source),
            allowed="a list of examples, a JSON Lines or JSON file, or a task of lm-evaluation-harness",
        )
    return source


def _read(source: str | Path | Sequence[ExampleLike], name: str) -> tuple[Example, ...]:
    found = tuple(read_examples(source, domain=name))
    if not found:
        raise DataError(f"The benchmark of {name!r} is empty", received=source, fix="give at least one item")
    return found


def _label(source: str | Path | HarnessTask | tuple[Example, ...], position: int) -> str:
    if isinstance(source, tuple):
        return f"examples {position + 1}" if position else "examples"
    if isinstance(source, HarnessTask):
        return source.name
    return Path(source).stem if Path(source).is_file() else str(source)


def in_slice(example: Example, name: str) -> Example:
    """Returns an example that is reported in the slice of that name, under an id of its own there."""
    return replace(example, metadata={**example.metadata, "slice": name}, id=f"{name}/{example.id}")
