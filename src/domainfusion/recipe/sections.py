"""The keys of a recipe: what each may hold, and what it is where it is left out."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from domainfusion.distillation.examples import read_examples
from domainfusion.distillation.metrics.named import METRICS, metric_named
from domainfusion.distillation.review import read_review
from domainfusion.errors import ConfigurationError, DomainFusionError
from domainfusion.models.address import check_url
from domainfusion.types import Example, Sampling


def problem(what: str, *, key: str = "", received: object = None, allowed: str = "", fix: str = "") -> PydanticCustomError:
    """Returns the error with which a validator refuses a value; `key` names the one that is wrong inside of it."""
    return PydanticCustomError("recipe", "{what}", {"what": what, "key": key, "received": received, "allowed": allowed, "fix": fix})


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns the advice to write the nearest of the known names; empty where none is near.

    Example:
        >>> suggestion("epoks", ["epochs", "seed"]), suggestion("batch", ["path", "batch_size"]), suggestion("x", ["seed"])
        ('write epochs', 'write batch_size', '')
    """
    names = list(known)
    nearest = [other for other in names if name and other.startswith(name)] or difflib.get_close_matches(name, names, n=1)
    return f"write {nearest[0]}" if nearest else ""


def _within(test: Callable[[Any], bool], allowed: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not test(value):
            raise problem("is out of range", received=value, allowed=allowed)
        return value

    return AfterValidator(check)


def _folder(info: ValidationInfo) -> Path:
    """Returns what relative paths are relative to."""
    return Path((info.context or {}).get("folder", ""))


def _existing_file(path: str, info: ValidationInfo) -> str:
    file = _folder(info) / Path(path).expanduser()
    if not file.is_file():
        raise problem("names a file that is not there", received=path, allowed=f"a file; this one would be {_absolute(file)}")
    return _absolute(file)


def _existing_folder(path: str, info: ValidationInfo) -> str:
    folder = _folder(info) / Path(path).expanduser()
    if not folder.is_dir():
        raise problem("names a folder that is not there", received=path, allowed=f"a folder; this one would be {_absolute(folder)}")
    return _absolute(folder)


def _existing_model(path: str, info: ValidationInfo) -> str:
    found = _folder(info) / Path(path).expanduser()
    if found.is_dir() and not any((found / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise problem("names a folder that is not a model", received=path, allowed="a folder with config.json or adapter_config.json")
    if found.is_file() and found.suffix != ".gguf":
        raise problem("names a file that is not a model", received=path, allowed="a folder, a .gguf file or a hub id")
    if found.exists():
        return _absolute(found)
    if not is_hub_id(path) or (_folder(info) / path.split("/", 1)[0]).is_dir():
        raise problem(
            "names a model that is not there",
            received=path,
            allowed=f"a folder, a .gguf file or a hub id such as owner/name; this one would be {_absolute(found)}",
        )
    return path


def is_hub_id(path: str) -> bool:
    """Whether `path` has the form of a hub id, owner/name.

    Example:
        >>> is_hub_id("HuggingFaceTB/SmolLM2-135M-Instruct"), is_hub_id("./expert"), is_hub_id("a/b/c"), is_hub_id("a/b.gguf")
        (True, False, False, False)
    """
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path) is not None and not path.endswith(".gguf")


def is_adapter(path: str) -> bool:
    """Whether the folder at `path` holds a PEFT adapter."""
    return (Path(path) / "adapter_config.json").is_file()


def base_of(adapter: str) -> str:
    """Returns what the adapter at `adapter` says its base is; empty where it does not say."""
    try:
        content = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(content.get("base_model_name_or_path") or "") if isinstance(content, dict) else ""


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # not resolve(): a link to a model keeps the name that its owner gave it


def _not_blank(text: str) -> str:
    if not text.strip():
        raise problem("is empty", allowed="a text")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
Count = Annotated[int, _within(lambda number: number >= 1, "a whole number from 1")]
Positive = Annotated[float, _within(lambda number: number > 0, "a number above 0")]
Share = Annotated[float, _within(lambda number: 0 <= number <= 1, "a number from 0 to 1")]
Weight = Annotated[float, _within(lambda number: number >= 0, "a number from 0")]
Price = Annotated[float, _within(lambda number: number >= 0, "a number from 0")]
ExistingFile = Annotated[str, AfterValidator(_existing_file)]
ModelPath = Annotated[str, AfterValidator(_existing_model)]
Device = Annotated[str, _within(lambda name: re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is not None, "auto, cpu, cuda or cuda:N")]


class Section(BaseModel):
    """A mapping of the recipe: it has the keys named here and no others, each of its exact type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, given: Any) -> Any:
        if isinstance(given, str) and "path" in cls.model_fields:
            return {"path": given}
        unknown = next((key for key in given if key not in cls.model_fields), None) if isinstance(given, dict) else None
        if unknown is None:
            return given
        known = list(cls.model_fields)
        raise problem("is no key of a recipe", key=unknown, allowed=", ".join(known), fix=suggestion(str(unknown), known))


class StudentSection(Section):
    """A model whose weights are its own. A path alone may stand for it."""

    path: ModelPath
    revision: str | None = None
    name: str | None = None
    system_prompt: str | None = None
    chat_template: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Device = "auto"
    batch_size: Count = 32

    @property
    def called(self) -> str:
        """What reports call the model."""
        return self.name or Path(self.path).name

    @property
    def is_adapter(self) -> bool:
        """Whether the model is an adapter on a base."""
        return is_adapter(self.path)


class ModelSection(StudentSection):
    """Any model: one with weights of its own, or an adapter on a base."""

    base_model: ModelPath | None = None
    quantization: Literal["4bit", "8bit"] | None = None


class APISection(Section):
    """A model behind an API: an `APIModel`, whose arguments these are."""

    model: Text
    base_url: str | None = None
    api_key_env: str | None = None
    name: str | None = None
    system_prompt: str | None = None
    json_schema: dict[str, Any] | None = None
    include_reasoning: bool = False
    omit: list[Literal["temperature", "top_p", "seed"]] = []
    extra_body: dict[str, Any] | None = None
    max_concurrency: Count = 16
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    timeout_seconds: Annotated[float, _within(lambda number: number > 0, "a number above 0")] = 300.0
    max_retries: Annotated[int, _within(lambda number: number >= 0, "a whole number from 0")] = 6
    max_failures_in_a_row: Count = 10
    max_wait_seconds: Annotated[float, _within(lambda number: number >= 0, "a number from 0")] = 120.0
    backoff_seconds: Annotated[float, _within(lambda number: number > 0, "a number above 0")] = 0.5
    price_per_million_input_tokens: Price | None = None
    price_per_million_output_tokens: Price | None = None
    price_per_million_cached_tokens: Price | None = None
    max_cost: Annotated[float, _within(lambda number: number > 0, "a number above 0")] | None = None
    account: Text | None = None
    allow_insecure_http: bool = False

    @field_validator("api_key_env")
    @classmethod
    def _a_variable(cls, given: str | None) -> str | None:
        if given is not None and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", given) is None:
            # What stands there is not shown: it may be the key.
            raise problem("is no name of a variable", allowed="the name of the environment variable that holds the key, never the key")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> APISection:
        try:
            check_url(self.base_url or "https://host", allow_insecure_http=self.allow_insecure_http)
        except ConfigurationError as error:
            raise problem(f"can't be asked: {error}".removesuffix("."), key="base_url") from error
        prices = (self.price_per_million_input_tokens, self.price_per_million_output_tokens)
        if None in prices and prices != (None, None):
            raise problem("has one price", allowed="the prices of input and output tokens, or none", fix="give both; 0 is a price")
        for key in ("max_cost", "price_per_million_cached_tokens"):
            if getattr(self, key) is not None and None in prices:
                fix = "give price_per_million_input_tokens and price_per_million_output_tokens"
                raise problem("needs prices", key=key, received=getattr(self, key), fix=fix)
        return self

    @property
    def called(self) -> str:
        """What reports call the model."""
        return self.name or self.model

    @property
    def is_adapter(self) -> bool:
        """Whether the model is an adapter on a base."""
        return False

    def cost(self, *, read: int, written: int) -> float | None:
        """Returns what so many tokens cost; None without prices."""
        if self.price_per_million_input_tokens is None or self.price_per_million_output_tokens is None:
            return None
        return (read * self.price_per_million_input_tokens + written * self.price_per_million_output_tokens) / 1e6


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
    Annotated[str, Tag("(name)")] | Annotated[ModelSection, Tag("(model)")] | Annotated[APISection, Tag("(api)")],
    Discriminator(_kind_of_model),
]
"""A domain, which stands for its teacher; `student`; or a model of its own."""


class SamplingSection(Section):
    """How the experts answer."""

    max_new_tokens: Count = 256
    temperature: Annotated[float, _within(lambda number: number >= 0, "0 (greedy) or a number above it")] = 0.0
    top_p: Annotated[float, _within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = 1.0

    def sampling(self, seed: int) -> Sampling:
        """Returns the settings with the seed of the draws."""
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, seed=seed)


class QuestionSamplingSection(SamplingSection):
    """How a model writes questions: by default with some variety."""

    max_new_tokens: Count = 96
    temperature: Annotated[float, _within(lambda number: number >= 0, "0 (greedy) or a number above it")] = 0.8
    top_p: Annotated[float, _within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = 0.95


class VarietySection(Section):
    """What the prompts for questions differ in."""

    topics_per_domain: Annotated[int, _within(lambda number: number >= 0, "a whole number from 0")] | None = None
    personas: list[Text] | None = None
    difficulties: list[Text] | None = None
    forms: list[Text] | None = None


class WritingSection(Section):
    """What the generators that let a model write share."""

    model: ModelChoice
    prompt_template: Text | None = None
    reply_format: Literal["auto", "lines", "json"] = "auto"
    questions_per_reply: Count | None = None
    variety: VarietySection | None = None
    max_rounds: Count = 5
    max_questions: Count | None = None
    duplicate_threshold: Annotated[float, _within(lambda number: 0.5 <= number <= 1, "a number from 0.5 to 1")] = 0.8
    seed: int | None = None
    sampling: QuestionSamplingSection = QuestionSamplingSection()


class SyntheticSection(WritingSection):
    """A `SyntheticDataGenerator`."""

    type: Literal["synthetic"]
    num_examples: Count = 100
    cross_domain_ratio: Share = 0.5
    domains_per_example: list[Annotated[int, _within(lambda number: number >= 2, "a whole number from 2")]] = [2]
    cross_domain_template: Text | None = None
    sub_questions: bool = False

    @field_validator("domains_per_example", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return [given] if isinstance(given, int) else given


class AdversarialSection(WritingSection):
    """An `AdversarialDataGenerator`."""

    type: Literal["adversarial"]
    num_examples: Count = 50
    judge: ModelChoice | None = None
    verify: bool = True


class CuratedSection(Section):
    """A `CuratedDataGenerator`: a file of examples, or the examples themselves."""

    type: Literal["curated"]
    file: ExistingFile | None = None
    examples: list[dict[str, Any]] | None = None
    review: ExistingFile | None = None
    domain: Text | None = None
    fields: dict[str, Text] | None = None
    num_examples: Count | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _one_source(self) -> CuratedSection:
        given = [name for name in ("file", "examples", "review") if getattr(self, name) is not None]
        if len(given) != 1:
            raise problem("needs a file, a list of examples or a review, one of the three", fix="write file: ... or examples: [...]")
        if self.review is not None and (self.domain is not None or self.fields is not None):
            raise problem("has a review, whose columns are known", fix="remove domain and fields")
        return self

    def read(self) -> list[Example]:
        """Returns the examples; a `DataError` or `ConfigurationError` names what can't be read."""
        if self.review is not None:
            return list(read_review(self.review).examples)
        return list(read_examples(self.file or self.examples or [], domain=self.domain or "", fields=self.fields))


GeneratorSection = Annotated[SyntheticSection | AdversarialSection | CuratedSection, Field(discriminator="type")]


class IntegrationRulesSection(Section):
    """What every integration takes."""

    on_disagreement: Literal["report", "abstain", "first"] = "report"
    discussion_rounds: Annotated[int, _within(lambda number: number >= 0, "a whole number from 0")] = 0


class MergeSection(IntegrationRulesSection):
    """A `ResponseIntegrator` without a model."""

    type: Literal["merge"] = "merge"


class ModelIntegratorSection(IntegrationRulesSection):
    """A `ResponseIntegrator` that lets a model write."""

    type: Literal["model"]
    model: ModelChoice
    prompt_template: Text | None = None
    check_claims: bool = True
    max_new_tokens: Count = 512


IntegratorSection = Annotated[MergeSection | ModelIntegratorSection, Field(discriminator="type")]


class SequenceSection(Section):
    """A `SequenceObjective`."""

    type: Literal["sequence"] = "sequence"


class AutoSection(Section):
    """The objective that a trainer chooses by itself."""

    type: Literal["auto"]


TeachersChoice = Annotated[
    Annotated[Literal["routed"], Tag("(name)")] | Annotated[dict[str, Positive], Tag("(weights)")],
    Discriminator(lambda given: "(name)" if isinstance(given, str) else "(weights)"),
]
"""The teacher of a record's domain, or a weight for each of some."""


class TaughtSection(Section):
    """What the objectives that learn from teachers' distributions share."""

    divergence: Literal["forward_kl", "reverse_kl", "skew_kl", "jensen_shannon"]
    beta: Annotated[float, _within(lambda number: 0 < number < 1, "a number between 0 and 1")] | None = None
    temperature: Positive = 1.0
    teachers: TeachersChoice = "routed"

    @model_validator(mode="after")
    def _beta_has_a_mixture(self) -> TaughtSection:
        if self.beta is not None and self.divergence in ("forward_kl", "reverse_kl"):
            raise problem(f"has a beta, and {self.divergence} has none", fix="remove it, or write divergence: jensen_shannon")
        if self.teachers == {}:
            raise problem("names no teachers", allowed="routed, or a weight for each of some domains")
        return self


class DistributionSection(TaughtSection):
    """A `DistributionObjective`."""

    type: Literal["distribution"]
    divergence: Literal["forward_kl", "reverse_kl", "skew_kl", "jensen_shannon"] = "forward_kl"
    alpha: Annotated[float, _within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = 0.5
    signals: Literal["hidden", "sampled"] = "hidden"
    draws: Annotated[int, _within(lambda number: 1 <= number <= 32_767, "a whole number from 1 to 32,767")] | None = None
    keep_in: Text | None = None

    @field_validator("keep_in")
    @classmethod
    def _from_the_recipe(cls, given: str | None, info: ValidationInfo) -> str | None:
        return None if given is None else _absolute(_folder(info) / Path(given).expanduser())

    @model_validator(mode="after")
    def _draws_of_what_is_drawn(self) -> DistributionSection:
        if self.signals == "sampled" and self.divergence != "forward_kl":
            raise problem(f"draws its signals, from which {self.divergence} can't be learnt", fix="write signals: hidden")
        if self.signals != "sampled" and self.draws is not None:
            raise problem("has draws, and signals that are not drawn", fix="remove draws, or write signals: sampled")
        return self


class OnPolicySection(TaughtSection):
    """An `OnPolicyObjective`."""

    type: Literal["on_policy"]
    divergence: Literal["forward_kl", "reverse_kl", "skew_kl", "jensen_shannon"] = "reverse_kl"
    max_new_tokens: Count = 128
    sampling_temperature: Annotated[float, _within(lambda number: number >= 0, "0 (greedy) or a number above it")] = 1.0
    max_initial_kl: Positive = 0.1
    pilot_prompts: Count = 32
    resident: Literal["all", "one"] = "all"


ObjectiveSection = Annotated[SequenceSection | AutoSection | DistributionSection | OnPolicySection, Field(discriminator="type")]


class TrainerSection(Section):
    """What every trainer takes."""

    learning_rate: Annotated[float, _within(lambda number: 0 < number < 1, "a number between 0 and 1")] = 2e-5
    epochs: Count = 3
    batch_size: Count = 16
    evaluation_steps: Count = 500
    early_stopping_patience: Count | None = None
    balance: bool | dict[str, Annotated[float, _within(lambda number: number > 0, "a number above 0")]] = False
    adaptation: Literal["auto", "lora", "full"] = "auto"
    lora_rank: Count = 16
    initialization: Literal["auto", "base", "merge"] = "auto"
    merge_weight: float | Annotated[list[float], Field(min_length=1)] | Literal["auto"] = 1.0
    device_batch_size: Count | None = None
    checkpoint_steps: Count = 50
    objective: ObjectiveSection = SequenceSection()
    activation_checkpointing: bool = False

    @field_validator("objective", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"type": given} if isinstance(given, str) else given


class IntegrationSection(TrainerSection):
    """An `IntegrationTrainer`."""

    type: Literal["integration"] = "integration"
    replay: Share = 0.25


class MultiTaskSection(TrainerSection):
    """A `MultiTaskTrainer`."""

    type: Literal["multi_task"]
    shares: dict[str, Annotated[float, _within(lambda number: number >= 0, "a number from 0")]] | None = None


class SequentialSection(TrainerSection):
    """A `SequentialTrainer`."""

    type: Literal["sequential"]
    order: list[str] | None = None
    replay: Share = 0.1
    anchor: Annotated[float, _within(lambda number: number >= 0, "a number from 0")] = 0.0
    merge_back: Share = 0.0


TrainerChoice = Annotated[IntegrationSection | MultiTaskSection | SequentialSection, Field(discriminator="type")]


HOLDOUT = 0.1
"""Share of the generated examples that is held out where there are no test examples."""


class WeightsSection(Section):
    """What each figure weighs in the overall score."""

    DER: Weight = 0.5
    CDA: Weight = 0.3
    IC: Weight = 0.2

    @model_validator(mode="after")
    def _some_weight(self) -> WeightsSection:
        if not self.DER + self.CDA + self.IC > 0:
            raise problem("weigh nothing", allowed="numbers from 0, not all 0")
        return self


class HarnessSection(Section):
    """A `HarnessTask`."""

    task: Text
    folder: Annotated[str, AfterValidator(_existing_folder)] | None = None
    metric: Text | None = None
    num_fewshot: Annotated[int, _within(lambda number: number >= 0, "a whole number from 0")] | None = None
    limit: Count | None = None


Benchmarks = list[
    Annotated[
        Annotated[ExistingFile, Tag("(file)")] | Annotated[HarnessSection, Tag("(task)")],
        Discriminator(lambda given: "(file)" if isinstance(given, str) else "(task)"),
    ]
]
"""Benchmarks: files of examples, and tasks of lm-evaluation-harness."""


JUDGE = "judge"
"""The metric that has no name of its own in the library, because it needs a model: the one that `judge` names."""


def _metric(given: Any) -> Any:
    name = given.get("name") if isinstance(given, dict) else given
    if not isinstance(name, str):
        raise problem("is no metric", received=given, allowed="a name, or {name: ..., and its settings}")
    if given == JUDGE:
        return given
    try:
        metric_named(given)
    except DomainFusionError as error:
        what, known = f"is no metric: {str(error).removesuffix('.')}", (*METRICS, JUDGE)
        raise problem(what, received=given, allowed=", ".join(known), fix=suggestion(name, known)) from error
    return given


MetricSpec = Annotated[Any, AfterValidator(_metric)]
"""The name of a metric, or a mapping of its name and its settings."""


class EvaluationSection(Section):
    """A `DomainRetentionEvaluator`, and what it evaluates on."""

    test_examples: ExistingFile | None = None
    validation_examples: ExistingFile | None = None
    holdout: Annotated[float, _within(lambda number: 0 < number < 1, "a number between 0 and 1")] | None = None
    validation_holdout: Annotated[float, _within(lambda number: 0 < number < 1, "a number between 0 and 1")] | None = None
    group_by: Text = "group"
    max_new_tokens: Count = 256
    resamples: Annotated[int, _within(lambda number: number >= 100, "a whole number from 100")] = 10_000
    margin: Annotated[float, _within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = 0.95
    weights: WeightsSection = WeightsSection()
    on_overlap: Literal["refuse", "report"] = "refuse"
    agreement_judge: ModelChoice | None = None
    benchmarks: dict[str, Benchmarks] = {}
    general: Benchmarks = []
    baseline_scores: dict[str, dict[str, Share]] = {}
    tolerance: Annotated[float, _within(lambda number: 0 <= number < 1, "a number from 0 to below 1")] = 0.05
    metric: MetricSpec = "stated_parts"
    metrics: dict[str, MetricSpec] = {}
    judge: ModelChoice | None = None
    coherence: Literal["surface", "model", "judge"] = "surface"
    reference_model: ModelChoice = "student"

    @model_validator(mode="after")
    def _known_judge(self) -> EvaluationSection:
        if self.judge is None and (JUDGE in (self.metric, *self.metrics.values()) or self.coherence == JUDGE):
            raise problem("has a metric that needs a judge", fix="write judge: and a model")
        return self

    @model_validator(mode="after")
    def _one_test_set(self) -> EvaluationSection:
        if self.test_examples is not None and self.holdout is not None:
            raise problem("has both test_examples and holdout", fix="remove one: with test examples of your own, none are held out")
        if self.validation_examples is not None and self.validation_holdout is not None:
            raise problem("has both validation_examples and validation_holdout", fix="remove one of the two")
        if (self.holdout or HOLDOUT) + (self.validation_holdout or 0) >= 1:
            raise problem("leaves nothing to train on", received=self.validation_holdout, allowed="shares whose sum is below 1")
        return self


class HygieneSection(Section):
    """What is removed from the generated examples."""

    duplicate_threshold: Annotated[float, _within(lambda number: 0.5 <= number <= 1, "a number from 0.5 to 1")] = 0.8
    ngram_words: Annotated[int, _within(lambda number: number == 0 or number >= 4, "0, or a whole number from 4")] = 8
    containment: Annotated[float, _within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = 0.7


class Recipe(Section):
    """A distillation, in the words of its recipe."""

    title: Text = "Distillation"
    seed: int = 0
    output_dir: Text | None = None
    domains: dict[str, Text]
    student: StudentSection
    teachers: dict[str, TeacherChoice]
    generators: list[GeneratorSection]
    hygiene: HygieneSection = HygieneSection()
    responses: SamplingSection = SamplingSection()
    on_teacher_failure: Literal["stop", "continue"] = "stop"
    integrator: IntegratorSection = MergeSection()
    trainer: TrainerChoice = IntegrationSection()
    evaluation: EvaluationSection | None = EvaluationSection()

    @field_validator("output_dir")
    @classmethod
    def _from_the_recipe(cls, given: str | None, info: ValidationInfo) -> str | None:
        return None if given is None else _absolute(_folder(info) / Path(given).expanduser())

    @field_validator("evaluation", mode="before")
    @classmethod
    def _switched_off(cls, given: Any) -> Any:
        if given is False or given in ("off", "no"):
            return None
        return {} if given is None else given
