"""From a recipe to the objects of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainfusion import distillation, models
from domainfusion.distillation import metrics
from domainfusion.distillation.data_generation import Variety, WritingSettings
from domainfusion.distillation.dataset import Hygiene
from domainfusion.distillation.evaluator import consistency
from domainfusion.distillation.metrics.grading import metric_named
from domainfusion.models import LanguageModel, ScriptedModel
from domainfusion.progress import Progress, silent
from domainfusion.recipe.derivation import Section
from domainfusion.recipe.sections import (
    JUDGE,
    AdversarialSection,
    APISection,
    Benchmarks,
    Choice,
    CuratedSection,
    DistributionSection,
    EvaluationSection,
    LikelihoodSection,
    ModelIntegratorSection,
    ModelName,
    ModelSection,
    MultiTaskSection,
    RaySection,
    Recipe,
    SequentialSection,
    StudentSection,
    TrainerSection,
)
from domainfusion.recipe.values import base_of, is_hub_id
from domainfusion.types import Sampling

if TYPE_CHECKING:
    from domainfusion.distillation.metrics import Metric, MetricChoice
    from domainfusion.models.huggingface import HuggingFaceModel

logger = logging.getLogger("domainfusion")

STUDENT = "student"
"""The name under which generators and integrator find the student; no domain may have it."""

Pools = dict[str, models.RayPool]
"""The pools of actors of a recipe, by what models have to agree in that share one."""

ModelOf = Callable[[Choice], LanguageModel]
"""Gives the model that a section names or describes."""


def build_distiller(
    recipe: Recipe, *, output_dir: str | Path | None = None, progress: Progress = silent
) -> distillation.Distiller:
    """Builds the distiller that a recipe describes. Models of the hub are downloaded; no weights
    are loaded.

    Args:
        recipe: The recipe.
        output_dir: Where the run is kept, in place of what the recipe says.
        progress: Shows how far each stage is.

    Raises:
        ModelError: There is no model where the recipe says.
        ConfigurationError: The environment variable with the key of an API is not set.
        MissingDependencyError: A model behind an API is asked for, and the package openai is not
            installed.
    """
    pools: Pools = {}
    student = _local(recipe.student, pools)
    teachers = {domain: build_model(section, pools) for domain, section in recipe.teachers.items()}
    named = {**teachers, STUDENT: student}

    def model(choice: Choice) -> LanguageModel:
        return named[choice] if isinstance(choice, str) else build_model(choice, pools)

    evaluation = recipe.evaluation
    given = {} if evaluation is None else evaluation.arguments()
    held_out = ("validation_examples", "holdout", "validation_holdout", "group_by")
    return distillation.Distiller(
        student_model=student,
        teacher_models=teachers,
        data_generators=[
            build_generator(recipe, position, model) for position in range(len(recipe.generators))
        ],
        trainer=build_trainer(recipe.trainer),
        evaluator=build_evaluator(recipe, model),
        integrator=build_integrator(recipe, model),
        seed=recipe.seed,
        output_dir=output_dir or recipe.output_dir,
        test_examples=given.get("test_examples"),
        data=distillation.DataSettings(
            hygiene=build_hygiene(recipe),
            **{name: given[name] for name in held_out if name in given},
        ),
        settings=distillation.RunSettings(
            title=recipe.title,
            response_sampling=recipe.responses.sampling(recipe.seed),
            on_teacher_failure=recipe.on_teacher_failure,
            refinement_rounds=recipe.refinement_rounds,
            samples=recipe.samples,
            answers=recipe.answers,
        ),
        progress=progress,
    )


def build_model(section: StudentSection | APISection, pools: Pools | None = None) -> LanguageModel:
    """Builds the model of a section; weights are loaded on first use, and nothing is sent.

    Args:
        section: What describes it.
        pools: The pools of actors that there are; a new one is added.
    """
    if isinstance(section, APISection):
        return _remote(section)
    return _local(section, {} if pools is None else pools)


def _remote(section: APISection) -> LanguageModel:
    settings = section.arguments()
    groups = {
        "dialect": models.Dialect,
        "limits": models.Limits,
        "retries": models.Retries,
        "prices": models.Prices,
    }
    for name, group in groups.items():
        own = _taken(settings, group)
        if (
            own
        ):  # else the group's default: a model without prices has none, not two that are missing
            settings[name] = group(**own)
    return models.APIModel(**settings)


def _taken(settings: dict[str, Any], group: type) -> dict[str, Any]:
    """Takes out of `settings` what a settings class is made of, and returns it."""
    own = [field.name for field in fields(group) if field.name in settings]
    return {name: settings.pop(name) for name in own}


def _local(section: StudentSection, pools: Pools) -> HuggingFaceModel:
    settings = section.arguments(without=("path", "engine"))
    server = section.engine.server if isinstance(section.engine, RaySection) else section.engine
    if server is not None:
        settings["engine"] = server.engine()
    if section.is_adapter:
        # An adapter may name its base by another path than the student's; in the same words they
        # share one base in memory.
        base = section.base_model or base_of(section.path)
        if os.path.exists(base):
            settings["base_model"] = os.path.abspath(base)
    for path in (section.path, settings.get("base_model") or ""):
        if is_hub_id(path) and not os.path.exists(path):
            logger.info("Looking for %s among the downloaded models, else on the hub.", path)
    model = models.HuggingFaceModel(section.path, **settings)
    if not isinstance(section.engine, RaySection):
        return model
    # Models on one base are one pool: each of its actors has the base's weights once.
    base = settings.get("base_model") or os.path.abspath(section.path)
    key = repr((base, section.dtype, section.quantization, section.engine))
    if key not in pools:
        pools[key] = section.engine.pool()
    return pools[key].spread(model)


def build_hygiene(recipe: Recipe) -> Hygiene:
    """Builds what is removed from the generated examples."""
    return Hygiene(**recipe.hygiene.arguments())


def build_generator(recipe: Recipe, position: int, model: ModelOf) -> distillation.DataGenerator:
    """Builds the generator at a position of the recipe."""
    section = recipe.generators[position]
    # By default each generator draws from its own stream: two of the same kind must not write the
    # same questions.
    seed = recipe.seed + position if section.seed is None else section.seed
    if isinstance(section, CuratedSection):
        settings = section.arguments(without=("type", "file", "examples", "review", "seed"))
        if section.review is not None:
            return distillation.CuratedDataGenerator.from_review(
                section.review, num_examples=section.num_examples, seed=seed
            )
        source = section.file or section.examples or []
        return distillation.CuratedDataGenerator(source, **settings, seed=seed)
    settings = _with_models(section, model, without=("type", "model", "variety", "sampling"))
    is_adversarial = isinstance(section, AdversarialSection)
    build = (
        distillation.AdversarialDataGenerator
        if is_adversarial
        else distillation.SyntheticDataGenerator
    )
    writing = WritingSettings(
        variety=variety_of(section),
        sampling=section.sampling.sampling(0),
        **_taken(settings, WritingSettings),
    )
    return build(
        model(section.model), recipe.domains, **{**settings, "writing": writing, "seed": seed}
    )


def variety_of(section: Section) -> Variety:
    """Returns what the prompts of a generator differ in."""
    given = {} if section.variety is None else section.variety.arguments()
    topics = {domain: tuple(listed) for domain, listed in given.pop("topics", {}).items()}
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return Variety(topics=topics, **settings)


def build_integrator(recipe: Recipe, model: ModelOf) -> distillation.ResponseIntegrator:
    """Builds the integrator."""
    section = recipe.integrator
    if not isinstance(section, ModelIntegratorSection):
        return distillation.ResponseIntegrator(
            on_disagreement=section.on_disagreement, screening=_screening(section)
        )
    own = ("type", "model", "cross_encoder", "max_new_tokens", "screening")
    settings = _with_models(section, model, without=own)
    if section.cross_encoder is not None:
        settings["verifier"] = distillation.CrossEncoderVerifier(section.cross_encoder)
    return distillation.ResponseIntegrator(
        model(section.model),
        sampling=Sampling(max_new_tokens=section.max_new_tokens),
        screening=_screening(section),
        **settings,
    )


def _screening(section: Section) -> distillation.Screening:
    given = {} if section.screening is None else section.screening.arguments()
    return distillation.Screening(**given)


def build_trainer(section: TrainerSection) -> distillation.Trainer:
    """Builds the trainer."""
    settings = section.arguments(without=("type", "objective"))
    settings["objective"] = _objective(section.objective)
    settings["execution"] = distillation.ExecutionSettings(
        **_taken(settings, distillation.ExecutionSettings)
    )
    settings["merge"] = distillation.MergeSettings(
        method=settings.pop("merge_method"),
        weight=settings.pop("merge_weight"),
        keep=settings.pop("keep_merge"),
    )
    if isinstance(section, MultiTaskSection):
        return distillation.MultiTaskTrainer(**settings)
    if isinstance(section, SequentialSection):
        return distillation.SequentialTrainer(**settings)
    return distillation.IntegrationTrainer(**settings)


def _objective(section: Section) -> str | distillation.Objective:
    if isinstance(section, DistributionSection):
        return distillation.DistributionObjective(**section.arguments())
    if isinstance(section, LikelihoodSection):
        return distillation.LikelihoodObjective(**section.arguments())
    return str(section.type)


def build_evaluator(recipe: Recipe, model: ModelOf) -> distillation.DomainRetentionEvaluator | None:
    """Builds the evaluator; None where the recipe leaves the evaluation out."""
    section = recipe.evaluation
    if section is None:
        return None
    shared: dict[str, Any] = {
        "metric": metrics_of(recipe, section, model),
        "sampling": Sampling(max_new_tokens=section.max_new_tokens),
        "resamples": section.resamples,
        "seed": recipe.seed,
        "on_overlap": section.on_overlap,
    }
    benchmarks = None
    if section.benchmarks or section.general or section.baseline_scores:
        benchmarks = distillation.BenchmarkEvaluator(
            {domain: _benchmarks(sources) for domain, sources in section.benchmarks.items()},
            general=_benchmarks(section.general),
            baseline_scores=section.baseline_scores,
            tolerance=section.tolerance,
            **shared,
        )
    own = ("margin", "weights", "notes")
    settings = _with_models(section, model)
    return distillation.DomainRetentionEvaluator(
        coherence_metric=coherence_of(section, model),
        agreement=distillation.AgreementSettings(
            judge=settings.get("agreement_judge"),
            second_temperature=settings["second_temperature"],
        ),
        benchmarks=benchmarks,
        **{name: settings[name] for name in own if name in settings},
        **shared,
    )


def metrics_of(recipe: Recipe, section: EvaluationSection, model: ModelOf) -> MetricChoice:
    """Returns the metric that grades answers, or one for each domain."""
    judge = None if section.judge is None else metrics.Judge(model(section.judge))

    def metric(spec: Any) -> Metric:
        return judge if judge is not None and spec == JUDGE else metric_named(spec)

    if not section.metrics:
        return metric(section.metric)
    return {
        domain: metric(section.metrics.get(domain, section.metric)) for domain in recipe.domains
    }


def coherence_of(
    section: EvaluationSection, model: ModelOf
) -> metrics.CoherenceMetric | metrics.BatchCoherence:
    """Returns the coherence metric."""
    if section.coherence == "model":
        reference = model(section.reference_model)
        # A stand-in has no probabilities, and those of a local model are not to be doubted.
        if isinstance(reference, StandIn) and not isinstance(reference, RemoteStandIn):
            return consistency
        return metrics.ModelCoherence(reference)
    if section.coherence == JUDGE and section.judge is not None:
        return metrics.JudgedCoherence(model(section.judge))
    return consistency


def _benchmarks(sources: Benchmarks) -> list[Path | distillation.HarnessTask]:
    return [
        Path(source)
        if isinstance(source, str)
        else distillation.HarnessTask(name=source.task, **source.arguments(without=("task",)))
        for source in sources
    ]


def _with_models(
    section: Section, model: ModelOf, *, without: tuple[str, ...] = ("type",)
) -> dict[str, Any]:
    """Returns the arguments of a section, its models built."""
    return {
        name: model(value) if isinstance(value, ModelName | ModelSection | APISection) else value
        for name, value in section.arguments(without=without).items()
    }


# Stand-ins for models


class StandIn(ScriptedModel):
    """Stands for a model that is not loaded, in all that looks at models and asks none.

    Args:
        name: What reports call it.
        section: The model's own section.
    """

    def __init__(self, name: str, section: StudentSection | APISection) -> None:
        super().__init__("", name=name)
        self.section = section

    def __repr__(self) -> str:
        return repr(self.name)


class RemoteStandIn(StandIn):
    """Stands for a model that a server answers for, which can be held to a JSON schema."""

    def with_json_schema(self, json_schema: Mapping[str, Any]) -> RemoteStandIn:
        """Returns itself."""
        return self


def stand_ins(recipe: Recipe) -> Callable[[Choice], StandIn]:
    """Returns what gives each model of a recipe a stand-in; a name has one, however often it is
    asked for.
    """
    made: dict[Any, StandIn] = {}

    def stand_in(choice: Choice) -> StandIn:
        key = choice if isinstance(choice, str) else id(choice)
        if key not in made:
            section: StudentSection | APISection
            if isinstance(choice, str):
                name, section = str(choice), recipe.teachers.get(choice, recipe.student)
            else:
                name, section = choice.called, choice
            kind = RemoteStandIn if isinstance(section, APISection) else StandIn
            made[key] = kind(name, section)
        return made[key]

    return stand_in
