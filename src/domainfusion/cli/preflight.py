"""What is said before a run begins: keys that are missing, what the report will not be able to say,
and settings without effect. Files are read; no model is loaded, and nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from domainfusion.distillation.examples import read_examples
from domainfusion.recipe.sections import (
    JUDGE,
    APISection,
    CuratedSection,
    EvaluationSection,
    Recipe,
)
from domainfusion.types import Example

LOWEST_SURE = 0.95
"""A lower end of an interval that needs no note: the margin of the verdict."""


def notes_on(recipe: Recipe) -> list[str]:
    """Returns what whoever starts the recipe should know first, a sentence or two each.

    The files of a recipe that was read are known to be readable.
    """
    return [*_keys(recipe), *_tests(recipe), *_without_effect(recipe)]


def _keys(recipe: Recipe) -> Iterator[str]:
    """Yields the variables of keys that are not set, each once."""
    needed: dict[str, str] = {}
    for _, section in recipe.models():
        if isinstance(section, APISection) and section.api_key_env is not None:
            needed.setdefault(section.api_key_env, section.called)
    for variable, model in needed.items():
        if not os.environ.get(variable):
            yield f"The environment variable {variable}, with the key of {model}, is not set."


def _tests(recipe: Recipe) -> Iterator[str]:
    evaluation = recipe.evaluation
    if evaluation is None:
        yield "The evaluation is off: the report will not say what the student retained."
        return
    if evaluation.test_examples is None:
        return
    examples = list(read_examples(evaluation.test_examples))
    for domain in recipe.domains:
        own = [example for example in examples if example.domains == (domain,)]
        yield from _of_domain(domain, own)
    if len(recipe.domains) > 1 and not any(example.is_cross_domain for example in examples):
        yield (
            "No test example needs several domains: the report will not say how well the student"
            " joins them."
        )
    yield from _trained_on(recipe, examples)


def _of_domain(domain: str, examples: Sequence[Example]) -> Iterator[str]:
    """Yields what the test examples of a domain leave open."""
    if not examples:
        yield (
            f"{domain} has no test example of its own: the report will not say how much of its"
            " expertise is retained."
        )
        return
    graded = sum(example.has_reference for example in examples)
    if not graded:
        count = "Its only test example" if len(examples) == 1 else f"All {len(examples):,}"
        rest = "has no reference" if len(examples) == 1 else "test examples lack a reference"
        yield f"{domain}: {count} {rest}, so its accuracy and retention will stay unknown."
        return
    # The exact interval of n right answers of n begins at 0.025^(1/n) (Clopper and Pearson).
    lower = 0.025 ** (1 / graded)
    if lower < LOWEST_SURE:
        noun = "test example has" if graded == 1 else "test examples have"
        yield (
            f"{domain}: {graded:,} {noun} a reference. Even where every answer is right, the"
            f" interval of its accuracy begins at {lower:.0%}."
        )


def _trained_on(recipe: Recipe, tests: Sequence[Example]) -> Iterator[str]:
    """Yields how many test examples stand in the files of training examples."""
    trained: set[str] = set()
    for section in recipe.generators:
        if isinstance(section, CuratedSection) and section.review is None:
            source = section.file or section.examples or []
            found = read_examples(source, domain=section.domain, fields=section.fields)
            trained |= {_normal(example) for example in found}
    both = [example for example in tests if _normal(example) in trained]
    if both:
        yield (
            f"{len(both):,} of {len(tests):,} test examples are training examples too, first"
            f" {both[0].query[:60]!r}: they are left out of training."
        )


def _normal(example: Example) -> str:
    return " ".join(example.query.casefold().split())


def _without_effect(recipe: Recipe) -> Iterator[str]:
    """Yields settings that were given and that nothing reads."""
    if recipe.responses.temperature == 0 and recipe.responses.top_p != 1:
        yield "responses.top_p has no effect, as temperature: 0 draws nothing."
    trainer = recipe.trainer
    if trainer.adaptation == "full":
        for key in ("lora_rank", "lora_alpha", "lora_dropout"):
            field = type(trainer).model_fields.get(key)
            if field is not None and getattr(trainer, key) != field.default:
                yield f"trainer.{key} has no effect with adaptation: full."
    field = type(trainer).model_fields.get("merge_method")
    is_given = field is not None and trainer.merge_method != field.default
    if trainer.initialization == "base" and is_given:
        yield "trainer.merge_method has no effect with initialization: base."
    if recipe.evaluation is not None:
        yield from _idle_measures(recipe, recipe.evaluation)


def _idle_measures(recipe: Recipe, evaluation: EvaluationSection) -> Iterator[str]:
    used = (evaluation.metric, *evaluation.metrics.values(), evaluation.coherence)
    if evaluation.judge is not None and JUDGE not in used:
        yield (
            "evaluation.judge has no effect, as neither a metric nor coherence is"
            f" {JUDGE!r}: write metric: judge or coherence: judge."
        )
    fields = type(evaluation).model_fields
    is_default = evaluation.reference_model == fields["reference_model"].default
    if evaluation.coherence != "model" and not is_default:
        yield "evaluation.reference_model has no effect without coherence: model."
    has_all = all(domain in evaluation.metrics for domain in recipe.domains)
    if has_all and evaluation.metric != fields["metric"].default:
        yield "evaluation.metric has no effect, as evaluation.metrics names one for every domain."
