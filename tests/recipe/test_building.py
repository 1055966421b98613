# mypy: disable-error-code="attr-defined,arg-type"
# of models that are made at run time
from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from domainfusion import distillation
from domainfusion.cli import init
from domainfusion.cli.preflight import LORA_FROM_PARAMETERS
from domainfusion.description import describe
from domainfusion.distillation import DomainRetentionEvaluator
from domainfusion.distillation.data_generation import Variety
from domainfusion.distillation.dataset import Hygiene
from domainfusion.distillation.metrics import Judge, ModelCoherence, Numeric
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
from domainfusion.recipe.derivation import Default, settings_of
from domainfusion.recipe.reference import with_tables
from domainfusion.recipe.sections import ModelSection
from domainfusion.types import Sampling

from .recipes import RECIPE, write

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
    "distillation.data_generation.writing:WritingSettings": (
        sections.SyntheticSection,
        distillation.WritingSettings,
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
    "models.costs:Prices": (sections.APISection, Prices),
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
    for name in ("sampling", "weights", "margin", "resamples", "agreement"):
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
    page = Path(__file__).parents[2] / "docs" / "recipe.md"
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
    assert evaluator.agreement.judge is not None
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
