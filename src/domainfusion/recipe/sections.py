"""The keys of a recipe: what each may hold, and what it is where it is left out.

A section that stands for a class takes its keys from the arguments of the constructor
(`derived_from`). Written out are the keys that are not arguments, or that a recipe says otherwise:
paths, models, and the kinds of a part. Whether a value is in range is the constructor's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
)

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    field_validator,
    model_validator,
)

from domainfusion.distillation.data_generation.writing import QUESTION_SAMPLING
from domainfusion.distillation.integration.integrator import ANSWER_TOKENS
from domainfusion.distillation.metrics.grading import METRICS, metric_named
from domainfusion.errors import ConfigurationError, DomainFusionError, suggestion
from domainfusion.models.chat_template import with_arguments
from domainfusion.models.engine import Engine
from domainfusion.models.ray_pool import RayPool
from domainfusion.recipe.derivation import Location, Section, derived_from
from domainfusion.recipe.values import (
    BESIDE,
    AnswersPath,
    Day,
    Device,
    ExistingFile,
    ExistingFolder,
    ExistingPath,
    ModelPath,
    NewPath,
    Text,
    is_adapter,
    problem,
)
from domainfusion.types import Sampling

# Models


@derived_from("models.engine:Engine")
class EngineSection(Section):
    """An `Engine`: an inference engine that answers for models on this machine. Its name alone may
    stand for it.

    Keys:
        command: The words of the command that starts its server, in whatever environment it is
            installed; by default `[vllm, serve]` or `[llama-server]`, from the path.
        options: Further words of the command line, such as `["--max-model-len", "4096"]`.
    """

    def engine(self) -> Engine:
        """Returns the engine."""
        given = self.arguments(without=())
        for name in ("command", "options"):
            given[name] = tuple(given[name])
        return Engine(**given)


@derived_from("models.ray_pool:RayPool")
class RaySection(Section):
    """A `RayPool`: actors on a Ray cluster, or on this machine, that answer for models. Models on
    one base whose keys here are the same share one.

    Keys:
        kind: `ray`.
        replicas: The fewest and the most actors, such as `[1, 8]`: more are started while questions
            wait.
        server: An inference engine that each actor starts for itself, `vllm` or `llamacpp` by its
            name or with the keys above; without it, actors answer with the weights. It has
            `batch_size` questions at once.
    """

    kind: Literal["ray"]
    server: Annotated[EngineSection, "a name or a mapping"] | None = None

    @field_validator("server", mode="before")
    @classmethod
    def _server_by_name(cls, given: Any) -> Any:
        return _described(given)

    def pool(self) -> RayPool:
        """Returns a new pool; Ray itself is started when it is first asked."""
        given = self.arguments(without=("kind", "server"))
        return RayPool(**{**given, "replicas": tuple(given["replicas"])})


def _described(given: Any) -> Any:
    """Returns what describes an engine, where its name alone or `type` stands for `kind`."""
    if isinstance(given, dict) and "type" in given and "kind" not in given:
        # Most other parts of a recipe say so.
        return {"kind" if key == "type" else key: value for key, value in given.items()}
    return {"kind": given} if isinstance(given, str) else given


def _kind_of_engine(given: object) -> str:
    kind = given.get("kind") if isinstance(given, dict) else None
    return "(ray)" if kind == "ray" or isinstance(given, RaySection) else "(server)"


@derived_from("models.huggingface:HuggingFaceModel", without=("model_path", "device_map"))
class StudentSection(Section):
    """A model whose weights are on this machine: whole, or an adapter on a base. A path alone may
    stand for it.

    Keys:
        path: A folder, a LoRA adapter's folder, a `.gguf` file or a hub id such as `owner/name`. A
            student that is an adapter is trained on.
        engine: What writes the answers: `vllm` or `llamacpp`, an inference engine that is started
            as a server of its own on this machine, or `ray`, a pool of actors; see
            [engines](#engines). Tokens are scored, and a student is trained, without it.
    """

    path: ModelPath
    engine: (
        Annotated[
            Annotated[EngineSection, Tag("(server)")] | Annotated[RaySection, Tag("(ray)")],
            Discriminator(_kind_of_engine),
            "a name or a mapping",
        ]
        | None
    ) = None
    base_model: ModelPath | None = None
    date: Day | None = None
    device: Device = "auto"

    @field_validator("engine", mode="before")
    @classmethod
    def _engine_by_name(cls, given: Any) -> Any:
        return _described(given)

    @field_validator("template_arguments", check_fields=False)
    @classmethod
    def _usable_in_a_template(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            with_arguments("", given or {})
        except ConfigurationError as error:
            allowed = 'variables of the chat template, such as {"enable_thinking": false}'
            raise problem(f"can't be used: {error}".removesuffix("."), allowed=allowed) from error
        return given

    @property
    def called(self) -> str:
        """The model's name in reports."""
        return str(self.name or Path(self.path).name)

    @property
    def is_adapter(self) -> bool:
        """Whether the model is an adapter on a base."""
        return is_adapter(self.path)


@derived_from("models.huggingface:HuggingFaceModel", only=("device_map",))
class ModelSection(StudentSection):
    """Any other model on this machine: it may be spread over several devices."""


@derived_from("models.costs:Prices")
@derived_from("models.api.limits:Retries")
@derived_from("models.api.limits:Limits")
@derived_from("models.api.dialect:Dialect")
@derived_from("models.api.model:APIModel")
class APISection(Section):
    """A model behind an API: an `APIModel`. Its keys are the arguments of the constructor, and those
    of the settings that the constructor takes.
    """

    @field_validator("api_key_env", check_fields=False)
    @classmethod
    def _a_variable(cls, given: str | None) -> str | None:
        if given is not None and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", given) is None:
            # What stands there is not shown: it may be the key.
            raise problem(
                "is not a name of a variable",
                allowed="the name of the environment variable that holds the key, never the key",
            )
        return given

    @property
    def called(self) -> str:
        """The model's name in reports."""
        return str(self.name or self.model)

    @property
    def is_adapter(self) -> bool:
        """Whether the model is an adapter on a base."""
        return False

    def cost(self, *, read: int, written: int) -> float | None:
        """Returns the price of so many tokens; None without prices."""
        prices = (self.price_per_million_input_tokens, self.price_per_million_output_tokens)
        if None in prices:
            return None
        return float(read * prices[0] + written * prices[1]) / 1e6


class ModelName(str):
    """A domain, which stands for its teacher, or `student`."""

    __slots__ = ()


def _kind_of_model(given: object) -> str:
    if isinstance(given, str):
        return "(name)"
    is_remote = isinstance(given, dict) and ("model" in given or "base_url" in given)
    return "(api)" if is_remote or isinstance(given, APISection) else "(model)"


TeacherChoice = Annotated[
    Annotated[ModelSection, Tag("(model)")] | Annotated[APISection, Tag("(api)")],
    Discriminator(lambda given: _kind_of_model(given).replace("(name)", "(model)")),
]
"""A local model, or one behind an API. A path alone may stand for a local one."""

ModelChoice = Annotated[
    Annotated[str, AfterValidator(ModelName), PlainSerializer(str), Tag("(name)")]
    | Annotated[ModelSection, Tag("(model)")]
    | Annotated[APISection, Tag("(api)")],
    Discriminator(_kind_of_model),
    "a model",
]
"""A domain, which stands for its teacher; `student`; or a model of its own."""

Choice = str | ModelSection | APISection
"""A model as a section names or describes it; a name is a `ModelName`."""


# Sampling and what is removed


@derived_from("types:Sampling", without=("seed",))
class SamplingSection(Section):
    """How the experts answer."""

    def sampling(self, seed: int) -> Sampling:
        """Returns the settings with the seed of the draws."""
        return Sampling(**self.arguments(), seed=seed)


class QuestionSamplingSection(SamplingSection):
    """How a model writes questions: by default with some variety."""

    max_new_tokens: int = QUESTION_SAMPLING.max_new_tokens
    temperature: float = QUESTION_SAMPLING.temperature
    top_p: float = QUESTION_SAMPLING.top_p


@derived_from("distillation.dataset:Hygiene")
class HygieneSection(Section):
    """What is removed from the generated examples."""


# Generators


@derived_from(
    "distillation.data_generation.generator:Variety",
    without=("topics", "personas", "difficulties", "forms"),
)
class VarietySection(Section):
    """What the prompts for questions differ in."""

    topics: dict[str, list[Text]] | None = None
    personas: list[Text] | None = None
    difficulties: list[Text] | None = None
    forms: list[Text] | None = None


class WritingSection(Section):
    """Keys of all generators that let a model write.

    Keys:
        model: Writes the questions; by default the student, as it is before the training.
        variety: What the prompts differ in: a mapping of `topics_per_domain` (how many topics the
            model lists, 20), `topics` of your own by domain, and lists of `personas`,
            `difficulties` and `forms`; an empty list leaves one out.
        seed: Seed of its draws; by default the recipe's, plus its position.
        sampling: How the writer writes, `max_new_tokens` for each question; see
            [sampling](#sampling).
    """

    model: ModelChoice = ModelName("student")
    variety: VarietySection | None = None
    seed: int | None = None
    sampling: QuestionSamplingSection = QuestionSamplingSection()


_NOT_WRITTEN = ("generation_model", "domains")


@derived_from("distillation.data_generation.writing:WritingSettings")
@derived_from(
    "distillation.data_generation.synthetic:SyntheticDataGenerator",
    without=_NOT_WRITTEN,
    models=ModelChoice,
)
class SyntheticSection(WritingSection):
    """A `SyntheticDataGenerator`."""

    type: Literal["synthetic"]


@derived_from("distillation.data_generation.writing:WritingSettings", without=("sub_questions",))
@derived_from(
    "distillation.data_generation.synthetic:AdversarialDataGenerator",
    without=_NOT_WRITTEN,
    models=ModelChoice,
)
class AdversarialSection(WritingSection):
    """An `AdversarialDataGenerator`."""

    type: Literal["adversarial"]


@derived_from("distillation.data_generation.curated:CuratedDataGenerator", without=("examples",))
class CuratedSection(Section):
    """A `CuratedDataGenerator`: a file of examples, or the examples themselves.

    Keys:
        file: A JSON Lines, JSON, CSV or Parquet file of examples, or a folder that `save_to_disk` of
            `datasets` wrote. One of `file`, `examples` and `review` is required.
        examples: The examples themselves.
        review: A review file that an expert has decided on; see [data](guides/data.md).
        fields: Where the file calls a field otherwise: its name there by the name here, such as
            `{query: question}`.
        num_examples: Take a random sample of this size; by default all.
        seed: Seed of the sample; by default the recipe's, plus its position.
    """

    type: Literal["curated"]
    file: ExistingPath | None = None
    examples: list[dict[str, Any]] | None = None
    review: ExistingFile | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _one_source(self) -> CuratedSection:
        given = [name for name in ("file", "examples", "review") if getattr(self, name) is not None]
        if len(given) != 1:
            raise problem(
                "needs a file, a list of examples or a review, one of the three",
                fix="write file: ... or examples: [...]",
            )
        if self.review is not None and (self.domain or self.fields is not None):
            raise problem("has a review, whose columns are known", fix="remove domain and fields")
        return self


GeneratorSection = Annotated[
    SyntheticSection | AdversarialSection | CuratedSection, Field(discriminator="type")
]


# Integration


@derived_from("distillation.text.refusals:Screening", without=("rule", "patterns"))
class ScreeningSection(Section):
    """What is taken for a refusal, and whether chatter is removed; see `Screening`."""

    patterns: list[Text] | None = None


@derived_from("distillation.integration.integrator:ResponseIntegrator", only=("on_disagreement",))
class MergeSection(Section):
    """A `ResponseIntegrator` without a model.

    Keys:
        on_disagreement: What to do with a conflict that nothing settles: `report` in the answer
            that the experts disagree, or `abstain` with no answer, which is never trained on.
        screening: What is taken for a refusal, whose example is not trained on, and whether chatter
            is removed: a mapping of `refusals` (true), `chatter` (true) and `patterns`, a list of
            regular expressions of your own.
    """

    type: Literal["merge"] = "merge"
    screening: ScreeningSection | None = None


@derived_from(
    "distillation.integration.integrator:ResponseIntegrator",
    without=("integration_model", "sampling"),
    models=ModelChoice,
)
class ModelIntegratorSection(Section):
    """A `ResponseIntegrator` that lets a model write.

    Keys:
        model: Reads, relates, writes and verifies.
        prompt_template: What it is asked to write: `{query}`, and `{responses}` or one placeholder
            for each domain; the claims to state follow.
        on_disagreement: What to do with a conflict that nothing settles: `report` in the answer
            that the experts disagree, or `abstain` with no answer, which is never trained on.
        verifier: Another model that verifies.
        cross_encoder: In its place, a folder or hub id of a cross-encoder for natural language
            inference; needs `domainfusion[embeddings]`.
        max_new_tokens: Tokens after which its answer is cut.
        screening: What is taken for a refusal, whose example is not trained on, and whether chatter
            is removed: a mapping of `refusals` (true), `chatter` (true) and `patterns`, a list of
            regular expressions of your own.
    """

    type: Literal["model"]
    screening: ScreeningSection | None = None
    model: ModelChoice
    cross_encoder: Text | None = None
    max_new_tokens: int = ANSWER_TOKENS

    @model_validator(mode="after")
    def _one_verifier(self) -> ModelIntegratorSection:
        if self.verifier is not None and self.cross_encoder is not None:
            raise problem("has two verifiers", fix="remove verifier or cross_encoder")
        return self


IntegratorSection = Annotated[MergeSection | ModelIntegratorSection, Field(discriminator="type")]


# Training


class SequenceSection(Section):
    """A `SequenceObjective`."""

    type: Literal["sequence"] = "sequence"


class AutoSection(Section):
    """The objective that a trainer chooses by itself."""

    type: Literal["auto"]


@derived_from("training.distribution:DistributionObjective")
class DistributionSection(Section):
    """A `DistributionObjective`.

    Keys:
        divergence: How far the student is from its teacher.
    """

    type: Literal["distribution"]
    keep_in: NewPath | None = None


@derived_from("training.likelihood:LikelihoodObjective")
class LikelihoodSection(Section):
    """A `LikelihoodObjective`."""

    type: Literal["likelihood"]
    keep_in: NewPath | None = None


ObjectiveSection = Annotated[
    SequenceSection | AutoSection | DistributionSection | LikelihoodSection,
    Field(discriminator="type"),
    "sequence, distribution, likelihood, auto or a mapping",
]


@derived_from("distillation.trainer.trainer:ExecutionSettings")
@derived_from(
    "distillation.trainer.merging:MergeSettings",
    keys={"method": "merge_method", "weight": "merge_weight", "keep": "keep_merge"},
)
@derived_from("distillation.trainer.trainer:Trainer")
class TrainerSection(Section):
    """Keys of every trainer.

    Keys:
        objective: What the student is trained toward: a name or a mapping; see
            [objectives](#objectives).
        report_to: Trackers that receive the training log: `tensorboard`, `wandb`, `trackio`,
            `mlflow` and whatever else Accelerate knows. Their packages have to be installed.
    """

    objective: ObjectiveSection = SequenceSection()

    @field_validator("objective", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"type": given} if isinstance(given, str) else given


@derived_from("distillation.trainer.trainer:IntegrationTrainer")
class IntegrationSection(TrainerSection):
    """An `IntegrationTrainer`."""

    type: Literal["integration"] = "integration"


@derived_from("distillation.trainer.trainer:MultiTaskTrainer")
class MultiTaskSection(TrainerSection):
    """A `MultiTaskTrainer`."""

    type: Literal["multi_task"]


@derived_from("distillation.trainer.trainer:SequentialTrainer")
class SequentialSection(TrainerSection):
    """A `SequentialTrainer`."""

    type: Literal["sequential"]


TrainerChoice = Annotated[
    IntegrationSection | MultiTaskSection | SequentialSection, Field(discriminator="type")
]


# Evaluation


@derived_from("distillation.evaluator.harness:HarnessTask", without=("name",))
class HarnessSection(Section):
    """A `HarnessTask`.

    Keys:
        task: The task, or a group of tasks.
    """

    task: Text
    folder: ExistingFolder | None = None


Benchmarks = list[
    Annotated[
        Annotated[ExistingFile, Tag("(file)")] | Annotated[HarnessSection, Tag("(task)")],
        Discriminator(lambda given: "(file)" if isinstance(given, str) else "(task)"),
    ]
]
"""Benchmarks: files of examples, and tasks of lm-evaluation-harness."""

JUDGE = "judge"
"""The metric that has no name of its own in the library, because it needs a model: the one that
`judge` names.
"""


def _metric(given: Any) -> Any:
    name = given.get("name") if isinstance(given, dict) else given
    if not isinstance(name, str):
        raise problem(
            "is not a metric", received=given, allowed="a name, or {name: ..., and its settings}"
        )
    if given == JUDGE:
        return given
    try:
        metric_named(given)
    except DomainFusionError as error:
        if name in METRICS:
            raise problem(f"is not a metric: {str(error).removesuffix('.')}") from error
        known = (*METRICS, JUDGE)
        raise problem(
            "is not a metric", received=name, allowed=", ".join(known), fix=suggestion(name, known)
        ) from error
    return given


MetricSpec = Annotated[Any, AfterValidator(_metric), "a name or a mapping"]
"""The name of a metric, or a mapping of its name and its settings."""


@derived_from(
    "distillation.evaluator.benchmark:BenchmarkEvaluator", only=("baseline_scores", "tolerance")
)
@derived_from("distillation.settings:DataSettings", only=("group_by",))
@derived_from(
    "distillation.evaluator.agreement:AgreementSettings",
    models=ModelChoice,
    keys={"judge": "agreement_judge"},
)
@derived_from(
    "distillation.evaluator.retention:DomainRetentionEvaluator", without=("baselines", "seed")
)
class EvaluationSection(Section):
    """A `DomainRetentionEvaluator`, and what it evaluates on.

    Keys:
        test_examples: A file of examples to measure on; by default some are held out.
        holdout: Share of the generated examples that is held out where there are no test examples;
            0.1 where nothing is said.
        validation_examples: A file of examples to choose the best checkpoint by.
        validation_holdout: Share of the generated examples to choose it by, where there is no such
            file.
        group_by: What no two of training, validation and test share: `group` (the examples' own),
            `query`, or a key of their metadata such as `fact` or `template`.
        max_new_tokens: Tokens after which an answer is cut.
        benchmarks: For each domain a list of benchmarks: files of examples, or
            [tasks](#tasks-of-lm-evaluation-harness) of lm-evaluation-harness.
        general: A list of benchmarks of general ability, on which the student is compared with its
            base.
        baseline_scores: Scores that others reached, 0 to 1: by name, then by benchmark, such as
            `gpt-x: {medicine: 0.71}`.
        metric: What grades an answer: a name, or `{name: numeric, unit: km}` with settings; see
            [metrics](guides/metrics.md).
        metrics: Metrics by domain, where one is not enough; the other domains have `metric`.
        judge: The model of the metric `judge` and of `coherence: judge`.
        coherence: What grades how an answer holds together: the `rules` of integration, which see
            sentences that contradict each other, a `model`'s view of its order, or a `judge`.
        reference_model: The model of `coherence: model`.
        weights: What `DER`, `CDA` and `IC` weigh in the overall score, by default 0.5, 0.3 and 0.2;
            one that is left out weighs nothing.
    """

    test_examples: ExistingFile | None = None
    validation_examples: ExistingFile | None = None
    holdout: float | None = None
    validation_holdout: float | None = None
    max_new_tokens: int = Sampling().max_new_tokens
    benchmarks: dict[str, Benchmarks] = Field(default={})
    general: Benchmarks = Field(default=[])
    metric: MetricSpec = "stated_parts"
    metrics: dict[str, MetricSpec] = Field(default={})
    judge: ModelChoice | None = None
    coherence: Literal["rules", "model", "judge"] = "rules"
    reference_model: ModelChoice = ModelName("student")

    @model_validator(mode="after")
    def _known_judge(self) -> EvaluationSection:
        needs_one = JUDGE in (self.metric, *self.metrics.values()) or self.coherence == JUDGE
        if self.judge is None and needs_one:
            raise problem("has a metric that needs a judge", fix="write judge: and a model")
        return self

    @model_validator(mode="after")
    def _one_set_of_each(self) -> EvaluationSection:
        if self.test_examples is not None and self.holdout is not None:
            raise problem(
                "has both test_examples and holdout",
                fix="remove one: with test examples of your own, none are held out",
            )
        if self.validation_examples is not None and self.validation_holdout is not None:
            raise problem(
                "has both validation_examples and validation_holdout", fix="remove one of the two"
            )
        return self


@derived_from("distillation.distiller:Distiller", only=("seed",))
@derived_from(
    "distillation.settings:RunSettings",
    only=("title", "on_teacher_failure", "refinement_rounds", "samples"),
)
class Recipe(Section):
    """A distillation, in the words of its recipe.

    Keys:
        output_dir: Where the run is kept; by default `runs/` and a name that follows from the
            inputs, so that the same inputs resume.
        answers: A store of answers that runs share, so that one with another seed, trainer or
            student asks no expert again: a path, or `beside` for `answers.sqlite` in the folder
            that holds the run's; `off` keeps answers with the run alone.
        domains: A line `name: description` for each domain.
        student: The [model](#models) that is trained.
        teachers: The [model](#models) of each domain, on this machine or
            [behind an API](#models-behind-an-api).
        generators: A list of [generators](#generators) of training examples.
        hygiene: What is [removed](#hygiene) from what they made.
        responses: How the experts answer: [sampling](#sampling).
        integrator: How several answers become one: [integrator](#integrator).
        trainer: How the student is trained: [trainer](#trainer).
        evaluation: How the student is measured: [evaluation](#evaluation); `off` leaves it out.
        on_teacher_failure: What to do where an expert leaves questions unanswered: `stop`, after
            which the same command asks for the rest, or `continue` without them. Examples that need
            them are then not trained on, test questions have no grade, and the report says so.
        refinement_rounds: How often at most more examples are made where validation shows the
            student weakest, and trained on; a round that does not improve validation is undone, and
            the last. Needs `validation_holdout` or `validation_examples`, and a generator that can
            make more: synthetic, adversarial, or curated with `num_examples`.
    """

    output_dir: NewPath | None = None
    answers: AnswersPath = BESIDE
    domains: dict[str, Text]
    student: Annotated[StudentSection, "a path or a mapping"]
    teachers: dict[str, TeacherChoice]
    generators: list[GeneratorSection]
    hygiene: HygieneSection = HygieneSection()
    responses: SamplingSection = SamplingSection()
    integrator: IntegratorSection = MergeSection()
    trainer: TrainerChoice = IntegrationSection()
    evaluation: Annotated[EvaluationSection, "a mapping or off"] | None = EvaluationSection()

    @field_validator("evaluation", mode="before")
    @classmethod
    def _switched_off(cls, given: Any) -> Any:
        if given is False or given in ("off", "no"):
            return None
        return {} if given is None else given

    def models(self) -> Iterator[tuple[Location, ModelName | ModelSection | APISection]]:
        """Yields the models that the recipe names or describes, each with its place; the student is
        not among them.
        """
        for at, value in self.inner():
            if isinstance(value, ModelName | ModelSection | APISection):
                yield at, value
