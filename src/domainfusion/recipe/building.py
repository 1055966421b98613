"""From a recipe to the objects of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainfusion import distillation, models
from domainfusion.distillation import metrics
from domainfusion.distillation.data_generation import Variety
from domainfusion.distillation.dataset import Hygiene
from domainfusion.distillation.evaluator import consistency
from domainfusion.models import LanguageModel
from domainfusion.progress import Progress, silent
from domainfusion.recipe.checks import STUDENT
from domainfusion.recipe.sections import (
    HOLDOUT,
    JUDGE,
    AdversarialSection,
    APISection,
    AutoSection,
    Benchmarks,
    CuratedSection,
    DistributionSection,
    EvaluationSection,
    ModelIntegratorSection,
    ModelSection,
    MultiTaskSection,
    Recipe,
    SequenceSection,
    SequentialSection,
    StudentSection,
    SyntheticSection,
    TrainerSection,
    WritingSection,
    base_of,
    is_adapter,
    is_hub_id,
)
from domainfusion.types import Sampling

if TYPE_CHECKING:
    from domainfusion.distillation.metrics import (
        BatchCoherence,
        CoherenceMetric,
        Metric,
        MetricChoice,
    )
    from domainfusion.models.huggingface import HuggingFaceModel

logger = logging.getLogger("domainfusion")


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
    student = _local(recipe.student)
    teachers = {domain: build_model(section) for domain, section in recipe.teachers.items()}
    named = {**teachers, STUDENT: student}
    evaluation = recipe.evaluation
    return distillation.Distiller(
        student_model=student,
        teacher_models=teachers,
        data_generators=[
            _generator(recipe, position, named) for position in range(len(recipe.generators))
        ],
        trainer=_trainer(recipe.trainer),
        evaluator=None if evaluation is None else _evaluator(recipe, evaluation, named),
        integrator=_integrator(recipe, named),
        refinement_rounds=recipe.refinement_rounds,
        seed=recipe.seed,
        output_dir=output_dir or recipe.output_dir,
        test_examples=evaluation.test_examples if evaluation else None,
        validation_examples=evaluation.validation_examples if evaluation else None,
        holdout=HOLDOUT if evaluation is None or evaluation.holdout is None else evaluation.holdout,
        validation_holdout=(evaluation.validation_holdout or 0.0) if evaluation else 0.0,
        group_by=evaluation.group_by if evaluation else "group",
        hygiene=Hygiene(**recipe.hygiene.model_dump()),
        response_sampling=recipe.responses.sampling(recipe.seed),
        on_teacher_failure=recipe.on_teacher_failure,
        title=recipe.title,
        progress=progress,
    )


def build_model(section: StudentSection | APISection) -> LanguageModel:
    """Builds the model of a section; weights are loaded on first use, and nothing is sent."""
    if isinstance(section, APISection):
        return models.APIModel(**section.model_dump(exclude_none=True))
    return _local(section)


def _local(section: StudentSection) -> HuggingFaceModel:
    settings = section.model_dump(exclude={"path"})
    if is_adapter(section.path):
        # An adapter may name its base by another path than the student's; in the same words they
        # share one base in memory.
        base = settings["base_model"] or base_of(section.path)
        if Path(base).exists():
            settings["base_model"] = os.path.abspath(base)
    for path in (section.path, settings.get("base_model") or ""):
        if is_hub_id(path) and not Path(path).exists():
            logger.info("Looking for %s among the downloaded models, else on the hub.", path)
    return models.HuggingFaceModel(section.path, **settings)


def _generator(
    recipe: Recipe, position: int, named: Mapping[str, LanguageModel]
) -> distillation.DataGenerator:
    section = recipe.generators[position]
    # By default each generator draws from its own stream: two of the same kind must not write the
    # same questions.
    seed = section.seed if section.seed is not None else recipe.seed + position
    if isinstance(section, CuratedSection):
        if section.review is not None:
            return distillation.CuratedDataGenerator.from_review(
                section.review, num_examples=section.num_examples, seed=seed
            )
        source = section.file or section.examples or []
        named_so = _given(domain=section.domain, fields=section.fields)
        return distillation.CuratedDataGenerator(
            source, **named_so, num_examples=section.num_examples, seed=seed
        )
    settings: dict[str, Any] = {
        "generation_model": _model(section.model, named),
        "domains": recipe.domains,
        "num_examples": section.num_examples,
        "reply_format": section.reply_format,
        "questions_per_reply": section.questions_per_reply,
        "variety": variety_of(section),
        "judge": None if section.judge is None else _model(section.judge, named),
        "verify": section.verify,
        "max_rounds": section.max_rounds,
        "max_questions": section.max_questions,
        "duplicate_threshold": section.duplicate_threshold,
        "sampling": section.sampling.sampling(0),
        "seed": seed,
        **_given(prompt_template=section.prompt_template),
    }
    if isinstance(section, AdversarialSection):
        return distillation.AdversarialDataGenerator(**settings)
    assert isinstance(section, SyntheticSection)
    return distillation.SyntheticDataGenerator(
        **settings,
        **_given(cross_domain_template=section.cross_domain_template),
        cross_domain_ratio=section.cross_domain_ratio,
        domains_per_example=section.domains_per_example,
        sub_questions=section.sub_questions,
    )


def variety_of(section: WritingSection) -> Variety:
    """Returns what the prompts of a generator differ in."""
    given = {} if section.variety is None else section.variety.model_dump(exclude_none=True)
    topics = {domain: tuple(listed) for domain, listed in given.pop("topics", {}).items()}
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return Variety(topics=topics, **settings)


def _integrator(
    recipe: Recipe, named: Mapping[str, LanguageModel]
) -> distillation.ResponseIntegrator:
    section = recipe.integrator
    if not isinstance(section, ModelIntegratorSection):
        return distillation.ResponseIntegrator(on_disagreement=section.on_disagreement)
    return distillation.ResponseIntegrator(
        _model(section.model, named),
        section.prompt_template,
        on_disagreement=section.on_disagreement,
        verify=section.verify,
        verifier=_integration_verifier(section, named),
        on_unverified=section.on_unverified,
        sampling=Sampling(max_new_tokens=section.max_new_tokens),
    )


def _integration_verifier(
    section: ModelIntegratorSection, named: Mapping[str, LanguageModel]
) -> LanguageModel | distillation.CrossEncoderVerifier | None:
    if section.cross_encoder is not None:
        return distillation.CrossEncoderVerifier(section.cross_encoder)
    return None if section.verifier is None else _model(section.verifier, named)


def _metrics(
    recipe: Recipe, section: EvaluationSection, named: Mapping[str, LanguageModel]
) -> MetricChoice:
    judge = None if section.judge is None else metrics.Judge(_model(section.judge, named))

    def metric(spec: Any) -> Metric:
        return judge if judge is not None and spec == JUDGE else metrics.metric_named(spec)

    if not section.metrics:
        return metric(section.metric)
    return {
        domain: metric(section.metrics.get(domain, section.metric)) for domain in recipe.domains
    }


def _coherence(
    section: EvaluationSection, named: Mapping[str, LanguageModel]
) -> CoherenceMetric | BatchCoherence:
    if section.coherence == "model":
        return metrics.ModelCoherence(_model(section.reference_model, named))
    if section.coherence == JUDGE and section.judge is not None:
        return metrics.JudgedCoherence(_model(section.judge, named))
    return consistency


def _trainer(section: TrainerSection) -> distillation.Trainer:
    settings = {
        **section.model_dump(exclude={"type", "objective"}),
        "objective": _objective(section.objective),
    }
    if isinstance(section, MultiTaskSection):
        return distillation.MultiTaskTrainer(**settings)
    if isinstance(section, SequentialSection):
        return distillation.SequentialTrainer(**settings)
    return distillation.IntegrationTrainer(**settings)


def _objective(
    section: SequenceSection | AutoSection | DistributionSection,
) -> str | distillation.Objective:
    settings = section.model_dump(exclude={"type"})
    if isinstance(section, DistributionSection):
        return distillation.DistributionObjective(**settings)
    return section.type


def _evaluator(
    recipe: Recipe, section: EvaluationSection, named: Mapping[str, LanguageModel]
) -> distillation.Evaluator:
    shared: dict[str, Any] = {
        "metric": _metrics(recipe, section, named),
        "sampling": Sampling(max_new_tokens=section.max_new_tokens),
        "resamples": section.resamples,
        "seed": recipe.seed,
        "on_overlap": section.on_overlap,
    }
    benchmarks = None
    if section.benchmarks or section.general:
        benchmarks = distillation.BenchmarkEvaluator(
            {domain: _benchmarks(sources) for domain, sources in section.benchmarks.items()},
            general=_benchmarks(section.general),
            baseline_scores=section.baseline_scores,
            tolerance=section.tolerance,
            **shared,
        )
    return distillation.DomainRetentionEvaluator(
        coherence_metric=_coherence(section, named),
        margin=section.margin,
        weights=section.weights.model_dump(),
        agreement_judge=None
        if section.agreement_judge is None
        else _model(section.agreement_judge, named),
        benchmarks=benchmarks,
        **shared,
    )


def _benchmarks(sources: Benchmarks) -> list[Path | distillation.HarnessTask]:
    return [
        Path(source)
        if isinstance(source, str)
        else distillation.HarnessTask(
            name=source.task,
            folder=source.folder or "",
            metric=source.metric or "",
            num_fewshot=source.num_fewshot,
            limit=source.limit,
        )
        for source in sources
    ]


def _model(
    choice: str | ModelSection | APISection, named: Mapping[str, LanguageModel]
) -> LanguageModel:
    return named[choice] if isinstance(choice, str) else build_model(choice)


def _given(**settings: object) -> dict[str, Any]:
    """Leaves out what was not given, so that the class's own default holds."""
    return {name: value for name, value in settings.items() if value is not None}
