"""A recipe, and the file that it is written to."""

from __future__ import annotations

from pathlib import Path

RECIPE = """\
title: Two fields
seed: 3
domains:
  biomechanics: The study of movement
  nutrition: The study of food
student:
  path: models/base
teachers:
  biomechanics:
    path: models/expert
  nutrition: {path: models/expert, system_prompt: You know food.}
generators:
  - type: synthetic
    model: biomechanics
    num_examples: 10
    cross_domain_ratio: 0.5
  - type: adversarial
    model: student
    num_examples: 4
  - type: curated
    file: examples.jsonl
integrator:
  type: model
  model: nutrition
trainer:
  type: integration
  learning_rate: 1e-4
  epochs: 2
evaluation:
  test_examples: test.jsonl
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path
