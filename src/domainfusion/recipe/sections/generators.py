"""The generators of questions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from domainfusion.distillation.examples import read_examples
from domainfusion.distillation.review import read_review
from domainfusion.recipe.sections.models import ModelChoice
from domainfusion.recipe.sections.paths import ExistingFile
from domainfusion.recipe.sections.problems import problem
from domainfusion.recipe.sections.sampling import QuestionSamplingSection
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Count, Share, Text, within
from domainfusion.types import Example


class VarietySection(Section):
    """What the prompts for questions differ in."""

    topics_per_domain: (
        Annotated[int, within(lambda number: number >= 0, "a whole number from 0")] | None
    ) = None
    topics: dict[str, list[Text]] | None = None
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
    judge: ModelChoice | None = None
    verify: bool = True
    max_rounds: Count = 5
    max_questions: Count | None = None
    duplicate_threshold: Annotated[
        float, within(lambda number: 0.5 <= number <= 1, "a number from 0.5 to 1")
    ] = 0.8
    seed: int | None = None
    sampling: QuestionSamplingSection = QuestionSamplingSection()

    @property
    def makes_more(self) -> bool:
        """Whether it can make more examples for a refinement."""
        return True


class SyntheticSection(WritingSection):
    """A `SyntheticDataGenerator`."""

    type: Literal["synthetic"]
    num_examples: Count = 100
    cross_domain_ratio: Share = 0.5
    domains_per_example: list[
        Annotated[int, within(lambda number: number >= 2, "a whole number from 2")]
    ] = Field(default=[2])
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
            raise problem(
                "needs a file, a list of examples or a review, one of the three",
                fix="write file: ... or examples: [...]",
            )
        if self.review is not None and (self.domain is not None or self.fields is not None):
            raise problem("has a review, whose columns are known", fix="remove domain and fields")
        return self

    @property
    def makes_more(self) -> bool:
        """Whether it can make more examples for a refinement: where a part of them was taken at
        first.
        """
        return self.num_examples is not None and self.num_examples < len(self.read())

    def read(self) -> list[Example]:
        """Returns the examples; a `DataError` or `ConfigurationError` names what can't be read."""
        if self.review is not None:
            return list(read_review(self.review).examples)
        return list(
            read_examples(
                self.file or self.examples or [], domain=self.domain or "", fields=self.fields
            )
        )


GeneratorSection = Annotated[
    SyntheticSection | AdversarialSection | CuratedSection, Field(discriminator="type")
]
