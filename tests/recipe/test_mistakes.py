from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from domainfusion.errors import ConfigurationError
from domainfusion.recipe import read_recipe

from .recipes import RECIPE, write


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
    "key of a section at the top": (
        "seed: 3",
        "test_examples: t.jsonl",
        "test_examples: t.jsonl",
        ["test_examples is not a key", "write it under evaluation"],
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
        ["allowed: a whole number from 1 to 2"],
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
