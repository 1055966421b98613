"""Files of a finished run with anything in them, through every verb that reads a run: the outcome is
what it would be without the damage, or one named error.

`FAULTS_RUN=1` tries every damage of every file with every verb, which takes an hour of CPU time; by
default a part of them, each with one verb in turn.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from conftest import write_adapter, write_llama
from domainfusion.cli.main import main
from domainfusion.records import CHECKSUMS
from test_faults_files import DAMAGES as DAMAGES_OF_ANY_FILE

ALL = bool(os.environ.get("FAULTS_RUN"))

RECIPE = """\
title: Animals and colours
domains:
  animals: What animals are and do
  colours: Colours and how they mix
student: base
teachers:
  animals: animals
  colours: colours
generators:
  - type: curated
    num_examples: 4
    examples:
      - {query: "What does a cow eat?", domain: animals}
      - {query: "What does a fox eat?", domain: animals}
      - {query: "What mixes to green?", domain: colours}
      - {query: "What mixes to blue or grey?", domain: colours}
      - {query: "What does a cow eat and what mixes to green?", domains: [animals, colours]}
responses: {max_new_tokens: 8}
refinement_rounds: 1
trainer: {type: sequential, learning_rate: 1e-3, epochs: 1, batch_size: 2, checkpoint_steps: 2}
evaluation:
  test_examples: test.jsonl
  validation_examples: validation.jsonl
  max_new_tokens: 8
  resamples: 100
"""


def _questions(animal: str, colour: str) -> str:
    animals, colours = f"What does a {animal} eat?", f"What mixes to {colour}?"
    lines: list[dict[str, Any]] = [
        {"query": animals, "domain": "animals", "answers": {"animals": "corn"}},
        {"query": colours, "domain": "colours", "answers": {"colours": "red"}},
        {
            "query": f"{animals[:-1]} and {colours}",
            "domains": ["animals", "colours"],
            "answers": {"animals": "corn", "colours": "red"},
        },
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, a recipe and a run of it that is finished."""
    folder = tmp_path_factory.mktemp("world")
    base = write_llama(folder / "base", num_hidden_layers=1)
    write_adapter(base, folder / "animals", 1, {})
    write_adapter(base, folder / "colours", 2, {})
    (folder / "test.jsonl").write_text(_questions("hen", "pink"))
    (folder / "validation.jsonl").write_text(_questions("hare", "puce"))
    (folder / "new.jsonl").write_text('{"query": "What is one and two?"}\n')
    answer = {"numbers": "four"}
    (folder / "new_test.jsonl").write_text(
        f"{json.dumps({'query': 'How many is six less two?', 'answers': answer})}\n"
    )
    (folder / "recipe.yaml").write_text(RECIPE)
    words = ["distill", str(folder / "recipe.yaml"), "--output-dir", str(folder / "run")]
    assert main(words) == 0
    return folder


def verbs(world: Path, run: Path) -> dict[str, list[Any]]:
    """Every verb that reads a run, in the ways in which it reads it."""
    short = ["--max-new-tokens", "3"]
    new = ["--examples", world / "new.jsonl", "--test", world / "new_test.jsonl"]
    recipe = ["distill", world / "recipe.yaml", "--output-dir"]
    return {
        "status": ["status", run],
        "report": ["report", run, "--details"],
        "compare": ["compare", world / "run", run],
        "ask": ["ask", run, "What does a cow eat?", *short],
        "chat": ["chat", run, *short],
        "export": ["export", run],
        "export a model": ["export", run, "--format", "gguf", "--dtype", "f32"],
        "evaluate": ["evaluate", run, "--require", "DER>=0"],
        "extend": ["extend", run, "--expert", f"numbers={world / 'animals'}", *new],
        "extend, counted": ["extend", run, "--expert", f"animals={world / 'colours'}", "--dry-run"],
        "resume": [*recipe, run],
        "continue": [*recipe, run.with_name("other"), "--from", run, "--dry-run"],
    }


CODES = {0, 1, 3}
"""Done, a named error, and a requirement that is not met."""

# A named error: what, the value, and what is allowed or how to fix it.
NAMED = re.compile(r"^Error: .*(received|: ).*(allowed: |To fix it: )", re.MULTILINE | re.DOTALL)


def told_by(words: Sequence[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    """Runs a verb; returns what is wrong with its outcome, or nothing."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("What does a cow eat?\n/quit\n"))
    code = main([str(word) for word in words])
    errors = capsys.readouterr().err
    if code not in CODES or "Unexpected" in errors or "Traceback" in errors:
        return f"{code}: {errors[-1_500:]}"
    if code == 1 and not NAMED.search(errors):
        return f"not a named error: {errors[-500:]}"
    return ""


# Damages of JSON below its top level

WRONG: list[Any] = [
    *(None, True, -1, 1.5, 10**400, float("nan"), "x", "nan", "\ud800", "\x1b[2J"),
    *([], [1], [[]], [None], ["x"], {}, {"a": 1}, {"a": None}),
]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the keys that lead to each value; of a list, to its first entry."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*at, 0))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """Returns a copy with another value at a place, or without what is there."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    if new is LEFT_OUT:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return copy


LEFT_OUT = object()


def wrong_documents(document: Any) -> Iterator[tuple[str, Any]]:
    """Yields a document with each of its values replaced by each wrong one, or left out."""
    yield from ((f"{wrong!r:.20}", wrong) for wrong in WRONG)
    for at in places(document):
        name = ".".join(map(str, at))
        if at:
            yield f"{name} left out", put(document, at, LEFT_OUT)
            yield from ((f"{name} = {wrong!r:.20}", put(document, at, wrong)) for wrong in WRONG)


def wrong_contents(file: Path) -> list[tuple[str, bytes]]:
    """Returns a JSON file, or the first line of a JSON Lines file, with a wrong value in it."""
    if file.suffix == ".json":
        wrong = wrong_documents(json.loads(file.read_bytes()))
        return [(name, json.dumps(document).encode()) for name, document in wrong]
    first, _, rest = file.read_text().partition("\n")
    if not first:
        return []
    wrong = wrong_documents(json.loads(first))
    return [(name, f"{json.dumps(document)}\n{rest}".encode()) for name, document in wrong]


FILES = [
    *(
        "run.json",
        "stages.json",
        "usage.json",
        "generation.json",
        "examples.jsonl",
        "records.jsonl",
    ),
    *("test_examples.jsonl", "validation_examples.jsonl", "evaluation.json", "savings.json"),
    *("refinement.json", "refinement/1/generation.json", "student_files.json", "checksums.json"),
    *("training/log.jsonl", "training/inputs.json", "training/choices.json"),
    *("training/merge_as_model.json", "training/checksums.json", "demo.json"),
]
SHOWN = {
    "usage.json": ["report", "compare", "resume"],
    "savings.json": ["report", "compare"],
    "evaluation.json": ["report", "compare", "evaluate"],
    "demo.json": ["evaluate", "chat"],
}
"""Who reads a file that not all verbs read."""


@pytest.fixture
def strike(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Gives what damages a file of a run and calls a verb."""

    def strike_with(name: str, damage: Callable[[Path], Any], verb: str) -> str:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        run = tmp_path / "runs" / "run"
        shutil.copytree(world / "run", run)
        if name == "demo.json":
            (run / "recipe.yaml").unlink()
            (run / name).write_text('{"small": true, "data": null}')
        damage(run / name)
        told = told_by(verbs(world, run)[verb], monkeypatch, capsys)
        return f"{verb}: {told}" if told else ""

    return strike_with


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FILES)
def test_a_wrong_value_at_any_place_of_a_file_is_read_or_named(
    name: str, world: Path, strike: Callable[..., str]
) -> None:
    source = world / "run" / name
    if name == "demo.json":
        source = world / name
        source.write_text('{"small": true, "data": null}')
    contents = wrong_contents(source)
    assert contents or not source.stat().st_size
    names = SHOWN.get(name, list(verbs(world, world)))
    chosen = contents if ALL else contents[:: max(1, len(contents) // 5)]
    turn, failed = cycle(names), []
    for what, content in chosen:

        def damage(file: Path, content: bytes = content) -> None:
            file.write_bytes(content)
            if file.name != CHECKSUMS:  # how a user accepts what is in the files
                (file.parent / CHECKSUMS).unlink(missing_ok=True)

        for verb in names if ALL else [next(turn)]:
            if told := strike(name, damage, verb):
                failed.append(f"{what}: {told}")
    assert not failed, f"{len(failed)} of {len(chosen)}:\n" + "\n".join(failed[:20])


DEEP = 300_000
"""How deeply a document is nested that no parser of recursive calls survives."""

DAMAGES: dict[str, Callable[[Path], Any]] = {
    **DAMAGES_OF_ANY_FILE,
    "very deep": lambda file: file.write_bytes(b'[{"a":' * DEEP),
    "just too deep": lambda file: file.write_bytes(b"[" * 150 + b"]" * 150),
    "a line of 1 MB": lambda file: file.write_bytes(file.read_bytes() + b"x" * 1_000_000),
    "a string of 1 MB": lambda file: file.write_bytes(b'"' + b"x" * 1_000_000 + b'"'),
    "not a number": lambda file: file.write_bytes(b"NaN"),
    "NUL": lambda file: file.write_bytes(bytes(1_000)),
}
OTHER_FILES = [
    *("recipe.yaml", "responses.sqlite", "model/config.json", "model/model.safetensors"),
    *("model/tokenizer.json", "model/tokenizer_config.json", "model/chat_template.jinja"),
    *("model/generation_config.json", "training/phase-1-animals/finished.safetensors"),
    *("training/phase-1-animals/checksums.json", "writer", "lock", "report.html"),
]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damage_of_any_file_of_a_run_is_the_right_outcome_or_named(
    damage: str, world: Path, strike: Callable[..., str]
) -> None:
    names = [name for name in (*FILES, *OTHER_FILES) if name != "demo.json"]
    turn, failed = cycle(verbs(world, world)), []
    for _ in damage:  # another verb begins for each damage
        next(turn)
    for place, name in enumerate(names, start=len(damage)):
        if not (world / "run" / name).stat().st_size and damage.startswith("a bit"):
            continue  # there is none
        for verb in verbs(world, world) if ALL else [next(turn)]:
            if not ALL and place % 5:
                continue
            if told := strike(name, DAMAGES[damage], verb):
                failed.append(f"{name}: {told}")
    assert not failed, f"{len(failed)}:\n" + "\n".join(failed[:20])
