"""The evaluation: its examples, benchmarks, metrics and weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from domainfusion.distillation.metrics.grading import METRICS, metric_named
from domainfusion.errors import DomainFusionError
from domainfusion.recipe.sections.models import ModelChoice
from domainfusion.recipe.sections.paths import ExistingFile, ExistingFolder
from domainfusion.recipe.sections.problems import problem, suggestion
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Count, Share, Text, Weight, within

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
            raise problem(
                "must have at least one weight above 0", allowed="numbers from 0, not all 0"
            )
        return self


class HarnessSection(Section):
    """A `HarnessTask`."""

    task: Text
    folder: ExistingFolder | None = None
    metric: Text | None = None
    num_fewshot: (
        Annotated[int, within(lambda number: number >= 0, "a whole number from 0")] | None
    ) = None
    limit: Count | None = None


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
        what, known = f"is not a metric: {str(error).removesuffix('.')}", (*METRICS, JUDGE)
        raise problem(
            what, received=given, allowed=", ".join(known), fix=suggestion(name, known)
        ) from error
    return given


MetricSpec = Annotated[Any, AfterValidator(_metric)]
"""The name of a metric, or a mapping of its name and its settings."""


class EvaluationSection(Section):
    """A `DomainRetentionEvaluator`, and what it evaluates on."""

    test_examples: ExistingFile | None = None
    validation_examples: ExistingFile | None = None
    holdout: (
        Annotated[float, within(lambda number: 0 < number < 1, "a number between 0 and 1")] | None
    ) = None
    validation_holdout: (
        Annotated[float, within(lambda number: 0 < number < 1, "a number between 0 and 1")] | None
    ) = None
    group_by: Text = "group"
    max_new_tokens: Count = 256
    resamples: Annotated[int, within(lambda number: number >= 100, "a whole number from 100")] = (
        10_000
    )
    margin: Annotated[
        float, within(lambda number: 0 < number <= 1, "a number above 0, up to 1")
    ] = 0.95
    weights: WeightsSection = WeightsSection()
    on_overlap: Literal["refuse", "report"] = "refuse"
    agreement_judge: ModelChoice | None = None
    benchmarks: dict[str, Benchmarks] = Field(default={})
    general: Benchmarks = Field(default=[])
    baseline_scores: dict[str, dict[str, Share]] = Field(default={})
    tolerance: Annotated[
        float, within(lambda number: 0 <= number < 1, "a number from 0 to below 1")
    ] = 0.05
    metric: MetricSpec = "stated_parts"
    metrics: dict[str, MetricSpec] = Field(default={})
    judge: ModelChoice | None = None
    coherence: Literal["rules", "model", "judge"] = "rules"
    reference_model: ModelChoice = "student"

    @model_validator(mode="after")
    def _known_judge(self) -> EvaluationSection:
        if self.judge is None and (
            JUDGE in (self.metric, *self.metrics.values()) or self.coherence == JUDGE
        ):
            raise problem("has a metric that needs a judge", fix="write judge: and a model")
        return self

    @model_validator(mode="after")
    def _one_test_set(self) -> EvaluationSection:
        if self.test_examples is not None and self.holdout is not None:
            raise problem(
                "has both test_examples and holdout",
                fix="remove one: with test examples of your own, none are held out",
            )
        if self.validation_examples is not None and self.validation_holdout is not None:
            raise problem(
                "has both validation_examples and validation_holdout", fix="remove one of the two"
            )
        if (self.holdout or HOLDOUT) + (self.validation_holdout or 0) >= 1:
            raise problem(
                "leaves nothing to train on",
                received=self.validation_holdout,
                allowed="shares whose sum is below 1",
            )
        return self
