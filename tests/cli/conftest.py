"""A recipe of two experts on the tiny Llama, and a run of it that is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from domainfusion.cli.main import main

RECIPE = """\
title: Animals and colours
domains:
  animals: What animals are and do
  colours: Colours and how they mix
student: {student}
teachers:
  animals: {animals}
  colours: {colours}
generators:
  - type: curated
    examples:
      - {{query: "What does a cow eat?", domain: animals}}
      - {{query: "What does a fox eat?", domain: animals}}
      - {{query: "What mixes to green?", domain: colours}}
      - {{query: "What does a cow eat and what mixes to green?", domains: [animals, colours]}}
responses: {{max_new_tokens: 8}}
trainer: {{type: integration, learning_rate: 1e-3, epochs: 20, batch_size: 2, checkpoint_steps: 5}}
evaluation: {{test_examples: test.jsonl, max_new_tokens: 8, resamples: 100}}
"""
"""Thirty steps for the single domains (3 rows, 20 epochs, batches of 2), twenty for both (1 row and
1 replayed).
"""

TEST = [
    {"query": "What does a hen eat?", "domain": "animals", "answers": {"animals": "corn"}},
    {"query": "What mixes to pink?", "domain": "colours", "answers": {"colours": "red"}},
    {
        "query": "What does a hen eat and what mixes to pink?",
        "domains": ["animals", "colours"],
        "answers": {"animals": "corn", "colours": "red"},
    },
]


@pytest.fixture(scope="session")
def recipe_file(
    tiny_llama: Path, make_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A recipe whose experts are adapters on the student's base."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "test.jsonl").write_text("".join(json.dumps(example) + "\n" for example in TEST))
    text = RECIPE.format(
        student=tiny_llama, animals=make_adapter("animals", 1), colours=make_adapter("colours", 2)
    )
    (folder / "recipe.yaml").write_text(text)
    return folder / "recipe.yaml"


@pytest.fixture(scope="session")
def finished_run(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that went through without a stop; tests read it and leave its files as
    they are.
    """
    directory = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["distill", str(recipe_file), "--output-dir", str(directory), "--quiet"]) == 0
    return directory


def command(*words: str | Path) -> list[str]:
    """Returns the command line that runs domainfusion in a process of its own."""
    return [sys.executable, "-m", "domainfusion", *map(str, words)]


def start(words: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    """Starts domainfusion in a process of its own, on one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(*words),
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
