# mypy: disable-error-code="attr-defined,arg-type"
# of models that are made at run time
from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticUndefined

from domainfusion import distillation
from domainfusion.cli import init
from domainfusion.cli.preflight import LORA_FROM_PARAMETERS
from domainfusion.description import describe
from domainfusion.distillation import DomainRetentionEvaluator
from domainfusion.distillation.data_generation import Variety
from domainfusion.distillation.data_generation.curated import write_review
from domainfusion.distillation.dataset import Hygiene
from domainfusion.distillation.examples import read_examples
from domainfusion.distillation.metrics import Judge, ModelCoherence, Numeric
from domainfusion.errors import ConfigurationError
from domainfusion.models import (
    APIModel,
    Dialect,
    Engine,
    HuggingFaceModel,
    Limits,
    LlamaModel,
    Prices,
    RayPool,
    Retries,
)
from domainfusion.recipe import Recipe, build_distiller, read_recipe, sections, write_recipe
from domainfusion.recipe.building import build_trainer, coherence_of, metrics_of
from domainfusion.recipe.document import read_document, to_yaml
from domainfusion.recipe.reference import with_tables
from domainfusion.recipe.sections import ModelSection
from domainfusion.recipe.values import Default, settings_of
from domainfusion.types import Sampling

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the recipe names: models that look like models, and examples."""
    for name in ("base", "expert"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    (tmp_path / "models" / "adapter").mkdir()
    (tmp_path / "models" / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "gone"})
    )
    (tmp_path / "models" / "empty").mkdir()
    examples: list[dict[str, Any]] = [
        {"query": "Which joint bends the leg?", "domain": "biomechanics"},
        {
            "query": "Which joint bends, and which food is rich in iron?",
            "domains": ["biomechanics", "nutrition"],
        },
    ]
    (tmp_path / "examples.jsonl").write_text(
        "".join(json.dumps(example) + "\n" for example in examples)
    )
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"query": "What is a tendon?", "domain": "biomechanics"}) + "\n"
    )
    (tmp_path / "strange.jsonl").write_text(
        json.dumps({"query": "What is a quark?", "domain": "physics"}) + "\n"
    )
    (tmp_path / "broken.jsonl").write_text(
        '{"query": "Fine?", "domain": "nutrition"}\n{"query": \n'
    )
    (tmp_path / "twice.jsonl").write_text(
        (json.dumps({"query": "What is a tendon?", "domain": "biomechanics"}) + "\n") * 2
    )
    (tmp_path / "none.jsonl").write_text("")
    write_review(read_examples(examples), tmp_path / "review.csv")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_expert_behind_an_api_is_not_merged(folder: Path) -> None:
    remote = RECIPE.replace(
        "    path: models/expert\n", "    model: far\n    base_url: https://far.example\n", 1
    )
    with pytest.raises(ConfigurationError, match="teacher of 'biomechanics' has none"):
        read_recipe(write(folder, remote.replace("epochs: 2", "initialization: merge")))


def test_all_weights_of_a_quantized_student_are_not_trained(folder: Path) -> None:
    quantized = RECIPE.replace(
        "  path: models/base\n", "  path: models/base\n  quantization: 4bit\n", 1
    )
    assert read_recipe(write(folder, quantized)).student.quantization == "4bit"
    with pytest.raises(ConfigurationError, match="quantized student stay"):
        read_recipe(write(folder, quantized.replace("epochs: 2", "adaptation: full")))


def test_a_recipe_is_read_with_absolute_paths_and_defaults(folder: Path) -> None:
    recipe = read_recipe(write(folder, RECIPE))
    assert recipe.student.path == str(folder / "models" / "base")
    assert recipe.teachers["nutrition"].system_prompt == "You know food."
    assert recipe.trainer.learning_rate == 1e-4
    assert recipe.trainer.batch_size == 16
    assert recipe.evaluation is not None
    assert recipe.evaluation.test_examples == str(folder / "test.jsonl")


def test_paths_are_relative_to_the_recipe_wherever_it_is_read_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, RECIPE + "output_dir: runs/one\n")
    monkeypatch.chdir(folder.parent)
    recipe = read_recipe(Path(folder.name) / "recipe.yaml")
    assert recipe.output_dir == str(folder / "runs" / "one")
    teacher = recipe.teachers["biomechanics"]
    assert isinstance(teacher, ModelSection)
    assert teacher.path == str(folder / "models" / "expert")


def test_a_path_alone_stands_for_a_model(folder: Path) -> None:
    short = RECIPE.replace("student:\n  path: models/base", "student: models/base").replace(
        "  biomechanics:\n    path: models/expert", "  biomechanics: models/expert"
    )
    assert read_recipe(write(folder, short)) == read_recipe(write(folder, RECIPE))


# Each case: what is replaced in the recipe, by what, the text whose line the error names, and what
# the error says.
MISTAKES = {
    "unknown key": (
        "epochs: 2",
        "epoks: 2",
        "epoks: 2",
        ["trainer.epoks is not a key", "write epochs"],
    ),
    "unknown key at the top": (
        "seed: 3",
        "sead: 3",
        "sead: 3",
        ["sead is not a key", "write seed"],
    ),
    "unknown key of a teacher": (
        "{path: models/expert, sys",
        "{path: models/expert, batch: 1, sys",
        "batch: 1",
        ["nutrition.batch is no"],
    ),
    "unknown key of a pool": (
        "{path: models/expert, sys",
        "{path: models/expert, engine: {type: ray, gpu: 1}, sys",
        "gpu: 1",
        ["nutrition.engine.gpu is not a key", "write gpus"],
    ),
    "unknown key of an engine": (
        "{path: models/expert, sys",
        "{path: models/expert, engine: {option: []}, sys",
        "option: []",
        ["nutrition.engine.option is not a key", "write options"],
    ),
    "missing file": (
        "file: examples",
        "file: exampels",
        "exampels",
        ["generators[2].file names a file that is not there"],
    ),
    "missing test set": (
        "test_examples: test",
        "test_examples: tset",
        "tset",
        ["evaluation.test_examples names a file that is not there"],
    ),
    "missing model": (
        "    path: models/expert",
        "    path: models/expret",
        "models/expret",
        ["teachers.biomechanics.path", "not there"],
    ),
    "missing GGUF file": (
        "  path: models/base",
        "  path: base.gguf",
        "base.gguf",
        ["student.path names a model that is not there"],
    ),
    "folder that is no model": (
        "path: models/base",
        "path: models/empty",
        "models/empty",
        ["folder that is not a model"],
    ),
    "file that is no model": (
        "path: models/base",
        "path: test.jsonl",
        "path: test.jsonl",
        ["file that is not a model"],
    ),
    "base of the student gone": (
        "path: models/base",
        "path: models/adapter",
        "student:",
        ["base of this adapter is not there", "gone"],
    ),
    "base of an adapter gone": (
        "    path: models/expert",
        "    path: models/adapter",
        "  biomechanics:\n    path",
        ["'gone'"],
    ),
    "base for a whole model": (
        "{path: models/expert,",
        "{path: models/expert, base_model: models/base,",
        "base_model",
        ["goes with an adapter"],
    ),
    "refinement without validation": (
        "seed: 3",
        "seed: 3\nrefinement_rounds: 2",
        "refinement_rounds",
        ["A refinement needs validation", "validation_holdout: 0.1"],
    ),
    "refinement that is negative": (
        "seed: 3",
        "seed: 3\nrefinement_rounds: -1",
        "refinement_rounds",
        ["a whole number from 0"],
    ),
    "domain without a teacher": (
        "nutrition: The study of food",
        "nutrition: The study of food\n  physics: Matter",
        "physics: Matter",
        ["'physics' has no teacher"],
    ),
    "teacher without a domain": (
        "teachers:\n",
        "teachers:\n  nutritoin: models/expert\n",
        "nutritoin",
        ["teacher's domain is not among the domains", "write nutrition"],
    ),
    "domain listed twice": (
        "  nutrition: The study of food",
        "  nutrition: The study of food\n  biomechanics: Again",
        "biomechanics: Again",
        ["the domain 'biomechanics' is listed twice, first in line 4"],
    ),
    "key given twice": (
        "seed: 3",
        "seed: 3\ntitle: Again",
        "title: Again",
        ["the key 'title' is listed twice, first in line 1"],
    ),
    "domain without a description": (
        "biomechanics: The study of movement",
        "biomechanics:",
        "biomechanics:",
        ["has no value", "a text"],
    ),
    "two verifiers": (
        "  model: nutrition\n",
        "  model: nutrition\n  verifier: nutrition\n  cross_encoder: some/nli\n",
        "integrator:",
        ["has two verifiers", "remove verifier or cross_encoder"],
    ),
    "a verifier of nothing": (
        "  model: nutrition\n",
        "  model: nutrition\n  verify: false\n  verifier: nutrition\n",
        "verifier:",
        ["integrator.verifier", "nothing for the verifier", "verify: true"],
    ),
    "an unknown verifier": (
        "  model: nutrition\n",
        "  model: nutrition\n  verifier: nutritoin\n",
        "verifier: nutritoin",
        ["there is no model of this name", "nutrition"],
    ),
    "blank description": (
        "biomechanics: The study of movement",
        "biomechanics: ' '",
        "biomechanics: ' '",
        ["is empty"],
    ),
    "reserved domain": (
        "  nutrition: The study of food",
        "  student: Itself",
        "student: Itself",
        ["can't have this name", "'student'"],
    ),
    "domain listed in two cases": (
        "  nutrition: The study of food",
        "  nutrition: The study of food\n  Nutrition: Again",
        "Nutrition: Again",
        ["'nutrition' is listed twice, but for case"],
    ),
    "domain without examples": (
        RECIPE[RECIPE.index("  - type: synthetic") : RECIPE.index("integrator:")],
        (
            "  - type: curated\n    examples: [{query: 'Which joint bends the leg?', domain:"
            " biomechanics}]\n"
        ),
        "nutrition: The",
        ["domains.nutrition", "so its teacher would never be asked"],
    ),
    "domains in a list": (
        "domains:\n  biomechanics: The study of movement\n  nutrition: The study of food",
        "domains: [biomechanics, nutrition]",
        "domains:",
        ["domains is of the wrong kind", "a mapping"],
    ),
    "no domains": (
        "domains:\n  biomechanics: The study of movement\n  nutrition: The study of food",
        "domains: {}",
        "domains:",
        ["there are no domains"],
    ),
    "number as key": (
        "  nutrition: The study of food",
        "  7: The study of food",
        "7: The",
        ["a key is not text", "quotes"],
    ),
    "text for a whole number": (
        "epochs: 2",
        "epochs: two",
        "epochs: two",
        ["trainer.epochs", "received 'two'", "a whole number"],
    ),
    "broken number": (
        "epochs: 2",
        "epochs: 2.5",
        "epochs: 2.5",
        ["trainer.epochs", "a whole number"],
    ),
    "truth for a number": (
        "epochs: 2",
        "epochs: true",
        "epochs: true",
        ["trainer.epochs", "a whole number"],
    ),
    "zero epochs": (
        "epochs: 2",
        "epochs: 0",
        "epochs: 0",
        ["trainer.epochs is out of range", "a whole number from 1"],
    ),
    "no number": (
        "learning_rate: 1e-4",
        "learning_rate: .nan",
        ".nan",
        ["trainer.learning_rate", "a number"],
    ),
    "zero examples": (
        "num_examples: 10",
        "num_examples: 0",
        "num_examples: 0",
        ["generators[0].num_examples", "from 1"],
    ),
    "ratio above 1": (
        "ratio: 0.5",
        "ratio: 1.5",
        "ratio: 1.5",
        ["generators[0].cross_domain_ratio", "received 1.5", "from 0 to 1"],
    ),
    "too many domains at once": (
        "ratio: 0.5",
        "ratio: 0.5\n    domains_per_example: [2, 3]",
        "domains_per",
        ["domains_per_example", "examples need three domains", "cross_domain_ratio: 0"],
    ),
    "no domains at once": (
        "ratio: 0.5",
        "ratio: 0.5\n    domains_per_example: []",
        "domains_per",
        ["domains_per_example is out of range"],
    ),
    "one domain at once": (
        "ratio: 0.5",
        "ratio: 0.5\n    domains_per_example: 1",
        "domains_per",
        ["a whole number from 2"],
    ),
    "sub-questions in lines": (
        "ratio: 0.5",
        "ratio: 0.5\n    reply_format: lines\n    sub_questions: true",
        "sub_q",
        ["generators[0].sub_questions need replies in JSON", "set reply_format: json"],
    ),
    "unknown judge": (
        "num_examples: 4",
        "judge: nutritoin",
        "judge: nutritoin",
        ["no model of this name", "write nutrition"],
    ),
    "judge that nobody asks": (
        "num_examples: 4",
        "judge: student\n    verify: false",
        "judge",
        ["generators[1].judge and classifier need verify", "leave out judge and classifier"],
    ),
    "unknown kind of variety": (
        "ratio: 0.5",
        "ratio: 0.5\n    variety: {topic: 3}",
        "topic: 3",
        ["variety.topic", "write topics"],
    ),
    "review with fields": (
        "file: examples.jsonl",
        "review: review.csv\n    domain: nutrition",
        "type: cur",
        ["columns are known"],
    ),
    "fields that are none": (
        "file: examples.jsonl",
        "file: examples.jsonl\n    fields: {querry: q}",
        "fields:",
        ["unknown field name"],
    ),
    "column that is not there": (
        "file: examples.jsonl",
        "file: examples.jsonl\n    fields: {reference: gold}",
        "file: ex",
        ["'gold'"],
    ),
    "review that accepts nothing": (
        "file: examples.jsonl",
        "review: review.csv",
        "review: review",
        ["generators[2].review accepts nothing"],
    ),
    "two validation sets": (
        "test_examples: test.jsonl",
        "validation_examples: test.jsonl\n  validation_holdout: 0.1",
        "evaluation",
        ["both validation_examples and validation_holdout"],
    ),
    "benchmark of no domain": (
        "test.jsonl",
        "test.jsonl\n  benchmarks: {physics: [test.jsonl]}",
        "physics",
        ["is not of a domain"],
    ),
    "broken benchmark": (
        "test.jsonl",
        "test.jsonl\n  benchmarks: {nutrition: [broken.jsonl]}",
        "broken",
        ["an example can't be read"],
    ),
    "empty benchmark": (
        "test.jsonl",
        "test.jsonl\n  benchmarks: {nutrition: [none.jsonl]}",
        "none.jsonl",
        ["holds no examples"],
    ),
    "missing benchmark": (
        "test.jsonl",
        "test.jsonl\n  general: [gone.jsonl]",
        "gone.jsonl",
        ["names a file that is not there"],
    ),
    "missing folder of tasks": (
        "test.jsonl",
        "test.jsonl\n  general: [{task: arc, folder: gone}]",
        "gone",
        ["names a folder that is"],
    ),
    "scores without benchmarks": (
        "test.jsonl",
        "test.jsonl\n  baseline_scores: {x: {nutrition: 0.5}}",
        "scores",
        ["no benchmarks"],
    ),
    "score that is no share": (
        "test.jsonl",
        "test.jsonl\n  baseline_scores: {x: {nutrition: 71}}",
        "scores",
        ["received 71"],
    ),
    "weights that weigh nothing": (
        "test.jsonl",
        "test.jsonl\n  weights: {DER: 0, CDA: 0, IC: 0}",
        "weights",
        ["evaluation.weights", "not all 0"],
    ),
    "unknown agreement judge": (
        "test.jsonl",
        "test.jsonl\n  agreement_judge: chef",
        "chef",
        ["no model of this name"],
    ),
    "everything held out": (
        "test_examples: test.jsonl",
        "holdout: 0.5\n  validation_holdout: 0.5",
        "validation_holdout",
        ["left to train on", "below 1"],
    ),
    "ratio below 0": ("ratio: 0.5", "ratio: -0.1", "ratio: -0.1", ["received -0.1", "from 0 to 1"]),
    "unknown model": (
        "model: biomechanics",
        "model: biomechanic",
        "biomechanic\n",
        ["no model of this name", "write biomechanics"],
    ),
    "unknown integration model": (
        "model: nutrition",
        "model: chef",
        "model: chef",
        ["no model of this name", "nutrition, student"],
    ),
    "model of its own without a path": (
        "model: student",
        "model: {name: x}",
        "{name: x}",
        ["generators[1].model has no path"],
    ),
    "unknown key of such a model": (
        "model: student",
        "model: {paht: x}",
        "paht",
        ["generators[1].model.paht", "write path"],
    ),
    "unknown type": (
        "type: adversarial",
        "type: adversary",
        "type: adversary",
        ["generators[1].type is not known", "write adversarial"],
    ),
    "no type": (
        "  - type: adversarial\n    model",
        "  - model",
        "- model: student",
        ["generators[1] has no type", "curated"],
    ),
    "no generators": (
        RECIPE[RECIPE.index("generators:") : RECIPE.index("integrator:")],
        "generators: []\n",
        "generators",
        ["no generators"],
    ),
    "missing section": (
        "student:\n  path: models/base\n",
        "",
        "title:",
        ["the recipe has no student"],
    ),
    "empty section": (
        "student:\n  path: models/base\n",
        "student:\n",
        "student:",
        ["student has no value"],
    ),
    "unknown word": (
        "epochs: 2",
        "adaptation: lroa",
        "lroa",
        ["trainer.adaptation is not known", "write lora"],
    ),
    "unknown objective": (
        "epochs: 2",
        "objective: sequences",
        "sequences",
        ["trainer.objective.type is not known", "write sequence"],
    ),
    "setting of another objective": (
        "epochs: 2",
        "objective: {type: distribution, max_new_tokens: 3}",
        "max_new_tokens",
        ["trainer.objective.max_new_tokens is not a key"],
    ),
    "share of the divergence": (
        "epochs: 2",
        "objective: {type: distribution, alpha: 2}",
        "alpha",
        ["trainer.objective.alpha is out of range", "up to 1"],
    ),
    "beta without a mixture": (
        "epochs: 2",
        "objective: {type: distribution, beta: 0.5}",
        "objective",
        ["trainer.objective.beta: forward_kl has no beta", "leave it out"],
    ),
    "device": (
        "path: models/base",
        "path: models/base\n  device: gpu",
        "gpu",
        ["student.device", "cuda:N"],
    ),
    "two sources": (
        "file: examples.jsonl",
        "file: examples.jsonl\n    examples: []",
        "- type: curated",
        ["one of the three"],
    ),
    "two test sets": (
        "test_examples: test.jsonl",
        "test_examples: test.jsonl\n  holdout: 0.1",
        "evaluation:",
        ["both test_examples"],
    ),
    "sample too large": (
        "file: examples.jsonl",
        "file: examples.jsonl\n    num_examples: 3",
        "num_examples: 3",
        ["allowed: 1 to 2"],
    ),
    "example of no domain": (
        "file: examples",
        "file: strange",
        "strange",
        ["What is a quark?", "a domain that the recipe does not have"],
    ),
    "example that is broken": (
        "file: examples",
        "file: broken",
        "broken",
        ["broken.jsonl:2", "not JSON"],
    ),
    "test set with doubles": (
        "test_examples: test",
        "test_examples: twice",
        "twice",
        ["two of the examples are the same"],
    ),
    "empty test set": (
        "test_examples: test",
        "test_examples: none",
        "none.jsonl",
        ["holds no examples"],
    ),
    "prompt without query": (
        "model: nutrition",
        "model: nutrition\n  prompt_template: '{responses}'",
        "prompt_template",
        ["no place for the query"],
    ),
    "prompt without a response": (
        "model: nutrition",
        "model: nutrition\n  prompt_template: '{query} {nutrition}'",
        "prompt_template",
        ["no place for the response of 'biomechanics'"],
    ),
    "unknown placeholder": (
        "model: student",
        "model: student\n    prompt_template: '{needs}'",
        "prompt_template",
        ["{needs}, which nothing fills", "{needed}"],
    ),
    "weight of no merge": (
        "epochs: 2",
        "merge_weight: [0.5, 1]\n  initialization: base",
        "merge_weight",
        ["applies only to a start"],
    ),
    "patience without validation": (
        "epochs: 2",
        "early_stopping_patience: 2",
        "early_stopping_patience",
        ["when to stop early"],
    ),
    "no weight": ("epochs: 2", "merge_weight: []", "merge_weight", []),
    "empty order": ("integration\n", "sequential\n  order: []\n", "order", ["leaves out"]),
    "empty shares": (
        "integration\n",
        "multi_task\n  shares: {}\n",
        "shares",
        ["trainer.shares do not make a mixture", "at least one above 0"],
    ),
    "batch that does not divide": (
        "epochs: 2",
        "device_batch_size: 5",
        "device_batch_size",
        ["does not divide batch_size", "a divisor of 16"],
    ),
    "order that leaves out": (
        "integration\n",
        "sequential\n  order: [nutrition]\n",
        "order",
        ["leaves out 'biomechanics'"],
    ),
    "order of no domain": (
        "integration\n",
        "sequential\n  order: [nutrition, bio, biomechanics]\n",
        "order",
        ["unknown domain", "'bio'"],
    ),
    "share of no domain": (
        "integration\n",
        "multi_task\n  shares:\n    bio: 1\n",
        "bio: 1",
        ["a share is not of a domain"],
    ),
    "unknown metric": (
        "test_examples: test",
        "metric: numerical\n  test_examples: test",
        "metric",
        ["evaluation.metric", "write numeric"],
    ),
    "setting of another metric": (
        "test_examples: test",
        "metric: {name: exact, unit: km}\n  test_examples: test",
        "metric",
        ["evaluation.metric is not a metric", "unit"],
    ),
    "metric of no domain": (
        "test_examples: test",
        "metrics: {physics: exact}\n  test_examples: test",
        "metrics",
        ["not of a domain"],
    ),
    "judge that is missing": (
        "test_examples: test",
        "metric: judge\n  test_examples: test",
        "evaluation",
        ["needs a judge"],
    ),
    "judge of coherence": (
        "test_examples: test",
        "coherence: judge\n  test_examples: test",
        "evaluation",
        ["needs a judge"],
    ),
    "judge that is not there": (
        "test_examples: test",
        "judge: nobody\n  test_examples: test",
        "judge",
        ["no model of this name"],
    ),
    "key of another trainer": (
        "epochs: 2",
        "shares: {nutrition: 1}",
        "shares",
        ["trainer.shares is not a key"],
    ),
    "tab": ("  epochs: 2", "\tepochs: 2", "\tepochs", ["not YAML", "not tabs"]),
    "colon in a text": (
        "title: Two fields",
        "title: Two: fields",
        "title",
        ["not YAML", "in quotes"],
    ),
    "foreign tag": ("title: Two fields", "title: !!python/name:os.system", "title", ["not YAML"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_error_with_its_line(folder: Path, mistake: str) -> None:
    old, new, marked, parts = MISTAKES[mistake]
    assert old in RECIPE
    text = RECIPE.replace(old, new, 1)
    path = write(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        read_recipe(path)
    message = str(caught.value)
    line = text[: text.index(marked)].count("\n") + 1
    assert message.startswith(f"{path}:{line}:"), message
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "cross_domain_ratio: 0.5",
            "cross_domain_ratio: 0.5",
            "Cross-domain examples need two domains",
        ),
        (
            "cross_domain_ratio: 0.5",
            "cross_domain_ratio: 0",
            "Adversarial examples need two domains",
        ),
    ],
)
def test_one_domain_can_not_be_crossed(folder: Path, old: str, new: str, message: str) -> None:
    text = RECIPE.replace("  - type: curated\n    file: examples.jsonl\n", "").replace(
        "model: nutrition", "model: student"
    )
    for line in (
        "  nutrition: The study of food\n",
        "  nutrition: {path: models/expert, system_prompt: You know food.}\n",
    ):
        text = text.replace(line, "")
    text = text.replace(old, new)
    with pytest.raises(ConfigurationError, match=message):
        read_recipe(write(folder, text))


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list\n", "# a comment alone\n"])
def test_a_file_without_keys_is_one_error(folder: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="holds no keys"):
        read_recipe(write(folder, text))


def test_a_file_that_is_not_there_or_no_text_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        read_recipe(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_recipe(tmp_path / "binary.yaml")
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "a: &a [*a]\n",
        "domains: &d\n  x: *d\n",
        "a: \x00",
        "a: *gone\n",
        "a: 1\n---\nb: 2\n",
    ],
)
def test_a_file_that_is_twisted_is_one_error(folder: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        read_recipe(write(folder, text))


BOMBS = {
    "aliases": "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)),
    "aliases as keys": "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    + "? *a29\n: x\n",
    "merged mappings": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)),
    "a value that holds itself": "a: &a {b: *a}\n",
    "deep lists": "a: " + "[" * 100_000,
    "deep mappings": "".join(f"{' ' * n}a:\n" for n in range(900)),
    "nested dashes": "a:\n" + "- " * 100_000,
    "a long text": "title: " + "x" * 3_000_000,
    "many values": "a: [" + "x," * 400_000 + "x]",
    "a long number": "seed: " + "9" * 900_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_would_take_long_is_refused_at_once(folder: Path, bomb: str) -> None:
    path = write(folder, BOMBS[bomb])
    begin = time.process_time()
    with pytest.raises(ConfigurationError) as caught:
        read_recipe(path)
    assert time.process_time() - begin < (8 if bomb == "many values" else 1)
    assert len(str(caught.value)) < 1_500


def test_the_first_mistake_in_the_file_is_the_one_that_is_told(folder: Path) -> None:
    text = (
        RECIPE.replace("epochs: 2", "epochs: 0")
        .replace("num_examples: 4", "num_examples: 0")
        .replace("seed: 3", "seed: x")
    )
    path = write(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}:2:1: seed is of the wrong kind")


def test_mistakes_that_do_not_follow_from_each_other_are_reported_together(folder: Path) -> None:
    text = RECIPE.replace("num_examples: 10", "num_examples: 0").replace(
        "num_examples: 4", "max_rounds: 0"
    )
    path = write(folder, text.replace("model: nutrition", "model: nutrition\n  max_new_tokens: 0"))
    with pytest.raises(ConfigurationError) as caught:
        read_recipe(path)
    lines = str(caught.value).replace(str(path), "").splitlines()
    assert [line.split(": ")[1].split(" is ")[0] for line in lines] == [
        "generators[0].num_examples",
        "generators[1].max_rounds",
        "integrator.max_new_tokens",
    ]
    assert [int(line.split(":")[1]) for line in lines] == [15, 19, 25]


def test_plain_values_follow_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("no: [no, 2026-11-23, 1e-4, 017, 1_000, true, ~, 12:30]\n")
    assert read_document(path).content == {
        "no": ["no", "2026-11-23", 1e-4, 17, "1_000", True, None, "12:30"]
    }


def test_keys_that_are_merged_in_are_keys_like_others(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("one: &model\n  path: a\n  device: cpu\ntwo:\n  <<: *model\n  path: b\n")
    document = read_document(path)
    assert document.content["two"] == {"path": "b", "device": "cpu"}
    assert (document.place_of(("two", "path")).line, document.place_of(("two", "device")).line) == (
        6,
        3,
    )


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(content=st.dictionaries(st.text(), plain_data, min_size=1, max_size=3))
def test_what_is_written_as_yaml_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(to_yaml(content), encoding="utf-8", newline="")
    assert read_document(path).content == content


@pytest.mark.parametrize(
    "evaluation",
    [
        "evaluation:\n  test_examples: test.jsonl",
        "evaluation: off",
        "evaluation:",
        "evaluation: {holdout: 0.2}",
    ],
)
def test_a_written_recipe_is_read_as_the_same_from_another_folder(
    folder: Path, tmp_path: Path, evaluation: str
) -> None:
    recipe = read_recipe(
        write(folder, RECIPE.replace("evaluation:\n  test_examples: test.jsonl", evaluation))
    )
    elsewhere = tmp_path / "elsewhere" / "recipe.yaml"
    write_recipe(recipe, elsewhere)
    assert read_recipe(elsewhere) == recipe
    assert (recipe.evaluation is None) == evaluation.endswith("off")


def test_mistakes_are_told_before_torch_is_imported(folder: Path) -> None:
    """All but those of the trainer's numbers, and of what the parts are to each other in a run."""
    (folder / "gone.yaml").write_text(RECIPE.replace("models/base", "models/gone"))
    (folder / "none.yaml").write_text(RECIPE.replace("num_examples: 10", "num_examples: 0"))
    recipes = [str(folder / "gone.yaml"), str(folder / "none.yaml")]
    code = (
        "import sys\nfrom domainfusion.cli.main import main\n"
        f"codes = [main(['distill', recipe]) for recipe in {recipes!r}]\n"
        "sys.exit(0 if codes == [1, 1] and 'torch' not in sys.modules else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 2
    assert "Traceback" not in done.stderr


# The schema and the classes that it builds

DERIVED = {
    "distillation.trainer.trainer:IntegrationTrainer": (
        sections.IntegrationSection,
        distillation.IntegrationTrainer,
    ),
    "distillation.trainer.trainer:MultiTaskTrainer": (
        sections.MultiTaskSection,
        distillation.MultiTaskTrainer,
    ),
    "distillation.trainer.trainer:SequentialTrainer": (
        sections.SequentialSection,
        distillation.SequentialTrainer,
    ),
    "training.distribution:DistributionObjective": (
        sections.DistributionSection,
        distillation.DistributionObjective,
    ),
    "training.likelihood:LikelihoodObjective": (
        sections.LikelihoodSection,
        distillation.LikelihoodObjective,
    ),
    "distillation.data_generation.synthetic:SyntheticDataGenerator": (
        sections.SyntheticSection,
        distillation.SyntheticDataGenerator,
    ),
    "distillation.data_generation.synthetic:AdversarialDataGenerator": (
        sections.AdversarialSection,
        distillation.AdversarialDataGenerator,
    ),
    "distillation.data_generation.curated:CuratedDataGenerator": (
        sections.CuratedSection,
        distillation.CuratedDataGenerator,
    ),
    "distillation.integration.integrator:ResponseIntegrator": (
        sections.ModelIntegratorSection,
        distillation.ResponseIntegrator,
    ),
    "distillation.evaluator.retention:DomainRetentionEvaluator": (
        sections.EvaluationSection,
        distillation.DomainRetentionEvaluator,
    ),
    "models.huggingface:HuggingFaceModel": (ModelSection, HuggingFaceModel),
    "models.api.model:APIModel": (sections.APISection, APIModel),
    "models.api.dialect:Dialect": (sections.APISection, Dialect),
    "models.api.limits:Limits": (sections.APISection, Limits),
    "models.api.limits:Retries": (sections.APISection, Retries),
    "models.api.costs:Prices": (sections.APISection, Prices),
    "models.engine:Engine": (sections.EngineSection, Engine),
    "models.ray_pool:RayPool": (sections.RaySection, RayPool),
    "types:Sampling": (sections.SamplingSection, Sampling),
    "distillation.dataset:Hygiene": (sections.HygieneSection, Hygiene),
    "distillation.distiller:Distiller": (Recipe, distillation.Distiller),
    "distillation.settings:DataSettings": (sections.EvaluationSection, distillation.DataSettings),
    "distillation.settings:RunSettings": (Recipe, distillation.RunSettings),
}


@pytest.mark.parametrize("place", DERIVED)
def test_what_is_read_of_a_source_is_what_the_class_says(place: str) -> None:
    section, built = DERIVED[place]
    parameters = dict(inspect.signature(built).parameters)
    handed_on = [name for name, one in parameters.items() if one.kind is one.VAR_KEYWORD]
    for name in handed_on:
        del parameters[name]
        parameters = {**inspect.signature(distillation.Trainer).parameters, **parameters}
    read = {setting.name: setting for setting in settings_of(place)}
    assert read.keys() == parameters.keys()
    for name, setting in read.items():
        if setting.default is Default.NONE_GIVEN:
            assert parameters[name].default is inspect.Parameter.empty
        elif setting.default is not Default.ITS_OWN:
            assert parameters[name].default == setting.default
        assert setting.about, name
    shared = [name for name in section.model_fields if name in read and name not in OWN]
    defaults = {name: section.model_fields[name].default for name in shared}
    for name, default in defaults.items():
        if default is not None and default is not PydanticUndefined:
            known = parameters[name].default
            assert default == (list(known) if isinstance(known, tuple) else known), name


OWN = {"objective", "sampling", "metric", "benchmarks", "hygiene", "evaluator", "trainer"} | {
    "integrator",
    "weights",
}
"""Keys with a section or a form of their own."""


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("sequence", distillation.SequenceObjective()),
        ("auto", distillation.SequenceObjective()),
        ("distribution", distillation.DistributionObjective()),
        (
            (
                "{type: distribution, divergence: jensen_shannon, beta: 0.2, temperature: 2, alpha:"
                " 0.9}"
            ),
            distillation.DistributionObjective(
                divergence="jensen_shannon", beta=0.2, temperature=2.0, alpha=0.9
            ),
        ),
    ],
)
def test_an_objective_is_what_the_recipe_says(
    folder: Path, tmp_path: Path, written: str, expected: distillation.Objective
) -> None:
    recipe = read_recipe(write(folder, RECIPE.replace("epochs: 2", f"objective: {written}")))
    assert describe(build_trainer(recipe.trainer).objective) == describe(expected)
    write_recipe(recipe, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == recipe


def test_what_is_left_out_is_what_the_classes_take(folder: Path, tiny_llama: Path) -> None:
    text = RECIPE.replace("models/base", str(tiny_llama)).replace("models/expert", str(tiny_llama))
    distiller = build_distiller(read_recipe(write(folder, text)), output_dir=folder / "run")
    synthetic, adversarial, _ = distiller.data_generators
    domains = {"biomechanics": "Movement", "nutrition": "Food"}
    usual = distillation.SyntheticDataGenerator(_Model(), domains)
    assert isinstance(synthetic, distillation.SyntheticDataGenerator)
    assert isinstance(adversarial, distillation.AdversarialDataGenerator)
    for generator in (synthetic, adversarial):
        assert (generator.sampling, generator.variety) == (usual.sampling, Variety())
    assert synthetic.cross_domain_template == usual.cross_domain_template
    assert distiller.integrator.sampling == distillation.ResponseIntegrator(_Model()).sampling
    assert distiller.settings.response_sampling == Sampling(seed=3)
    evaluator = distillation.DomainRetentionEvaluator()
    assert isinstance(distiller.evaluator, distillation.DomainRetentionEvaluator)
    for name in ("sampling", "weights", "margin", "resamples", "second_temperature"):
        assert getattr(distiller.evaluator, name) == getattr(evaluator, name)
    assert (distiller.data.holdout, distiller.data.group_by) == (0.1, "group")


def test_the_memory_estimate_knows_from_where_on_lora_is_trained() -> None:
    from domainfusion.distillation.trainer import trainer

    assert trainer.LORA_FROM_PARAMETERS == LORA_FROM_PARAMETERS


class _Model:
    name = fingerprint = "model"

    def generate(self, *_: Any) -> list[Any]:
        return []


def test_the_reference_of_the_recipe_is_up_to_date() -> None:
    page = Path(__file__).parents[1] / "docs" / "recipe.md"
    text = page.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run `make reference`"


def test_the_recipe_of_init_is_valid_and_names_defaults_truly(tmp_path: Path) -> None:
    text = init.TEMPLATE.read_text(encoding="utf-8")
    recipe = read_recipe(write(tmp_path, text))
    assert list(recipe.teachers) == ["biomechanics", "physiology", "nutrition"]
    # A key that is commented out shows its default: with it, the recipe is the same.
    for key, value in (
        ("seed", "0"),
        ("  dtype", "auto"),
        ("  temperature", "0"),
        ("  adaptation", "auto"),
        ("  initialization", "auto"),
    ):
        shown = f"{' ' * (len(key) - len(key.strip()))}# {key.strip()}: {value}"
        assert shown in text
        assert read_recipe(write(tmp_path, text.replace(shown, f"{key}: {value}"))) == recipe


def test_a_recipe_says_who_verifies_and_what_becomes_of_what_fails(
    tiny_llama: Path, make_adapter: Callable[..., Path], folder: Path
) -> None:
    adapter = make_adapter("expert", 1)
    text = RECIPE.replace("models/base", str(tiny_llama)).replace("models/expert", str(adapter))
    own = "  model: nutrition\n  verifier: biomechanics\n  on_unverified: reject\n"
    distiller = build_distiller(
        read_recipe(write(folder, text.replace("  model: nutrition\n", own))),
        output_dir=folder / "run",
    )
    integrator = distiller.integrator
    assert integrator.verifier is distiller.teacher_models["biomechanics"]
    assert (integrator.on_unverified, integrator.verify) == ("reject", True)
    local = text.replace("  model: nutrition\n", "  model: nutrition\n  cross_encoder: some/nli\n")
    verifier = build_distiller(
        read_recipe(write(folder, local)), output_dir=folder / "run"
    ).integrator.verifier
    assert verifier == distillation.CrossEncoderVerifier("some/nli")


def test_a_recipe_builds_what_it_says(
    tiny_llama: Path, make_adapter: Callable[..., Path], folder: Path
) -> None:
    adapter = make_adapter("expert", 1)
    text = RECIPE.replace("models/base", str(tiny_llama)).replace("models/expert", str(adapter))
    text = text.replace(
        "  type: integration",
        "  type: sequential\n  order: [nutrition, biomechanics]\n  initialization: merge",
    )
    distiller = build_distiller(read_recipe(write(folder, text)), output_dir=folder / "run")
    synthetic, adversarial, curated = distiller.data_generators
    assert isinstance(synthetic, distillation.SyntheticDataGenerator)
    assert isinstance(adversarial, distillation.AdversarialDataGenerator)
    assert isinstance(curated, distillation.CuratedDataGenerator)
    assert synthetic.generation_model is distiller.teacher_models["biomechanics"]
    assert adversarial.generation_model is distiller.student_model
    assert (
        synthetic.num_examples,
        synthetic.cross_domain_ratio,
        synthetic.seed,
        adversarial.seed,
    ) == (10, 0.5, 3, 4)
    assert distiller.integrator.integration_model is distiller.teacher_models["nutrition"]
    assert isinstance(distiller.trainer, distillation.SequentialTrainer)
    assert distiller.trainer.order == ("nutrition", "biomechanics")
    assert distiller.trainer.learning_rate == 1e-4
    assert distiller.output_dir == folder / "run"
    # Every expert is an adapter on the student's own base, so a merge of them can start the
    # student.
    for teacher in distiller.teacher_models.values():
        assert isinstance(teacher, HuggingFaceModel)
        assert teacher.is_adapter_on(distiller.student_model)


WRITING = """\
    reply_format: json
    questions_per_reply: 7
    max_questions: 90
    duplicate_threshold: 0.9
    variety: {topics_per_domain: 3, personas: [a cook, a coach], forms: []}
"""


def test_how_questions_are_written_and_judged_is_said_in_a_recipe(
    tiny_llama: Path, folder: Path
) -> None:
    text = RECIPE.replace("models/base", str(tiny_llama)).replace("models/expert", str(tiny_llama))
    text = text.replace(
        "    num_examples: 10\n", f"{WRITING}    domains_per_example: 2\n    sub_questions: true\n"
    )
    text = text.replace("    num_examples: 4\n", f"{WRITING}    judge: nutrition\n")
    distiller = build_distiller(read_recipe(write(folder, text)), output_dir=folder / "run")
    synthetic, adversarial, _ = distiller.data_generators
    assert isinstance(synthetic, distillation.SyntheticDataGenerator)
    assert isinstance(adversarial, distillation.AdversarialDataGenerator)
    for generator in (synthetic, adversarial):
        assert (generator.reply_format, generator.questions_per_reply, generator.max_questions) == (
            "json",
            7,
            90,
        )
        assert generator.duplicate_threshold == 0.9
        assert (
            generator.variety.topics_per_domain,
            generator.variety.personas,
            generator.variety.forms,
        ) == (3, ("a cook", "a coach"), ())
        assert generator.variety.difficulties == Variety().difficulties
    assert (synthetic.domains_per_example, synthetic.sub_questions) == ((2,), True)
    assert adversarial.judge is distiller.teacher_models["nutrition"]


def test_where_curated_examples_come_from_is_said_in_a_recipe(
    tiny_llama: Path, folder: Path
) -> None:
    (folder / "table.csv").write_text(
        "question,topic,level\nWhich joint bends the arm?,biomechanics,3\n", encoding="utf-8"
    )
    text = RECIPE.replace("models/base", str(tiny_llama)).replace("models/expert", str(tiny_llama))
    mapped = text.replace(
        "file: examples.jsonl", "file: table.csv\n    fields: {query: question, domains: topic}"
    )
    *_, curated = build_distiller(
        read_recipe(write(folder, mapped)), output_dir=folder / "mapped"
    ).data_generators
    assert isinstance(curated, distillation.CuratedDataGenerator)
    assert [(example.query, example.metadata) for example in curated.examples] == [
        ("Which joint bends the arm?", {"level": "3"})
    ]
    blank, row = (
        (folder / "review.csv").read_text(encoding="utf-8-sig"),
        '"","","Which joint bends the leg?"',
    )
    assert blank.count(f'"",{row}') == 1
    (folder / "review.csv").write_text(
        blank.replace(f'"",{row}', f'"accept",{row}'), encoding="utf-8"
    )
    reviewed = text.replace("file: examples.jsonl", "review: review.csv")
    *_, curated = build_distiller(
        read_recipe(write(folder, reviewed)), output_dir=folder / "reviewed"
    ).data_generators
    assert isinstance(curated, distillation.CuratedDataGenerator)
    assert ([example.query for example in curated.examples], curated.left_out) == (
        ["Which joint bends the leg?"],
        {"not reviewed": 1},
    )


def test_what_is_held_out_and_removed_is_said_in_a_recipe(tiny_llama: Path, folder: Path) -> None:
    text = RECIPE.replace("models/base", str(tiny_llama)).replace("models/expert", str(tiny_llama))
    text += (
        "  validation_holdout: 0.2\n  group_by: template\nhygiene: {ngram_words: 5, containment:"
        " 0.9}\n"
    )
    distiller = build_distiller(read_recipe(write(folder, text)), output_dir=folder / "run")
    assert (distiller.data.validation_holdout, distiller.data.group_by) == (0.2, "template")
    assert distiller.data.hygiene == Hygiene(ngram_words=5, containment=0.9)


def test_how_the_student_is_measured_is_said_in_a_recipe(tiny_llama: Path, folder: Path) -> None:
    text = RECIPE.replace("models/base", str(tiny_llama)).replace("models/expert", str(tiny_llama))
    text += (
        "  margin: 0.9\n  weights: {DER: 1, CDA: 0, IC: 0}\n  on_overlap: report\n "
        " agreement_judge: student\n"
    )
    text += (
        "  benchmarks: {biomechanics: [test.jsonl]}\n  general: [{task: arc_easy, limit: 10}]\n "
        " tolerance: 0.1\n"
    )
    text += "  baseline_scores: {gpt-x: {biomechanics: 0.71}}\n"
    evaluator = build_distiller(
        read_recipe(write(folder, text)), output_dir=folder / "run"
    ).evaluator
    assert isinstance(evaluator, distillation.DomainRetentionEvaluator)
    assert (evaluator.margin, evaluator.weights, evaluator.on_overlap) == (
        0.9,
        {"DER": 1},
        "report",
    )
    assert evaluator.agreement_judge is not None
    assert evaluator.benchmarks is not None
    assert evaluator.benchmarks.benchmarks == {"biomechanics": (folder / "test.jsonl",)}
    assert evaluator.benchmarks.general == (distillation.HarnessTask(name="arc_easy", limit=10),)
    assert (evaluator.benchmarks.tolerance, evaluator.benchmarks.on_overlap) == (0.1, "report")
    assert evaluator.benchmarks.baseline_scores == {"gpt-x": {"biomechanics": 0.71}}


def test_the_base_of_an_adapter_is_the_students_by_whatever_path(
    tiny_llama: Path,
    make_adapter: Callable[..., Path],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = make_adapter("wanderer", 2)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = tiny_llama.name
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    monkeypatch.chdir(tiny_llama.parent)
    text = RECIPE.replace("models/base", str(tiny_llama)).replace("models/expert", str(adapter))
    distiller = build_distiller(read_recipe(write(folder, text)))
    for teacher in distiller.teacher_models.values():
        assert isinstance(teacher, HuggingFaceModel)
        assert teacher.is_adapter_on(distiller.student_model)


def test_metrics_are_built_as_the_recipe_says(folder: Path, tiny_llama: Path) -> None:
    keys = """
  metric: {name: numeric, unit: km}
  metrics: {nutrition: judge}
  judge: student
  coherence: model
  reference_model: nutrition"""
    recipe = read_recipe(
        write(
            folder,
            RECIPE.replace("  test_examples: test.jsonl", f"  test_examples: test.jsonl{keys}"),
        )
    )
    assert recipe.evaluation is not None
    named = {
        name: LlamaModel(tiny_llama, name=name) for name in ("student", "biomechanics", "nutrition")
    }
    assert metrics_of(recipe, recipe.evaluation, named.__getitem__) == {
        "biomechanics": Numeric(unit="km"),
        "nutrition": Judge(named["student"]),
    }
    assert coherence_of(recipe.evaluation, named.__getitem__) == ModelCoherence(named["nutrition"])


def test_without_a_word_the_metrics_are_those_of_the_evaluator(folder: Path) -> None:
    recipe = read_recipe(write(folder, RECIPE))
    assert recipe.evaluation is not None
    usual = inspect.signature(DomainRetentionEvaluator).parameters
    assert metrics_of(recipe, recipe.evaluation, {}.__getitem__) is usual["metric"].default
    assert coherence_of(recipe.evaluation, {}.__getitem__) is usual["coherence_metric"].default
