"""What a recipe would take: calls, tokens, training steps, memory and cost, from files alone and before any model is loaded."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domainfusion.cli.memory import Memory, memory_of
from domainfusion.distillation.data_generation.adversarial import JUDGE_TOKENS
from domainfusion.distillation.data_generation.coverage import combinations_in_turn
from domainfusion.distillation.examples import read_examples
from domainfusion.prompts import CROSS_DOMAIN_PROMPT, DISCUSSION_PROMPT, INTEGRATION_PROMPT, NEEDED_DOMAIN_PROMPT
from domainfusion.recipe.sections import (
    HOLDOUT,
    AdversarialSection,
    CuratedSection,
    IntegrationSection,
    ModelIntegratorSection,
    Recipe,
    StudentSection,
    SyntheticSection,
    is_adapter,
)
from domainfusion.reports.figures import size
from domainfusion.types import Example, transcript

CHARACTERS_PER_TOKEN = 4
QUESTION_TOKENS = 30
"""Assumed length of a question that is not written yet."""


@dataclass(frozen=True)
class Calls:
    """The calls of one model in one stage.

    Attributes:
        stage: The stage.
        model: Who is called.
        count: How often, at most.
        read: Tokens it reads, estimated.
        written: Tokens it writes, at most.
    """

    stage: str
    model: str
    count: int
    read: int
    written: int


@dataclass(frozen=True)
class Plan:
    """What a recipe would take.

    Attributes:
        calls: Calls by stage and model.
        train: Examples to train on, at most.
        test: Examples to test on.
        steps: Optimiser steps, about.
        memory: Memory by what needs it.
    """

    calls: tuple[Calls, ...]
    train: int
    test: int
    steps: int
    memory: tuple[Memory, ...]


def plan_of(recipe: Recipe) -> Plan:
    """Works out what a recipe would take. Files are read, no model is loaded."""
    made = [_Planned.of(example) for generator in recipe.generators for example in _examples_of(recipe, generator)]
    train, test = _split(recipe, made)
    calls = (*_writing(recipe), *_collecting(recipe, train), *_integrating(recipe, train), *_evaluating(recipe, test))
    return Plan(tuple(call for call in calls if call.count), len(train), len(test), _steps(recipe, train), memory_of(recipe))


def render_plan(plan: Plan) -> RenderableType:
    """Returns the plan for a rich console."""
    table = Table(title=Text("Calls, at most"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("stage", "model"):
        table.add_column(title, overflow="fold")
    for title in ("calls", "tokens read, about", "tokens written, at most"):
        table.add_column(title, justify="right")
    for call in plan.calls:
        table.add_row(call.stage, Text(call.model), f"{call.count:,}", f"{call.read:,}", f"{call.written:,}")
    totals = [sum(getattr(call, name) for call in plan.calls) for name in ("count", "read", "written")]
    table.add_row("in all", "", *(f"{total:,}" for total in totals), style="bold")
    return Group(table, Text(), Text("\n".join(_closing(plan))))


def _closing(plan: Plan) -> Iterator[str]:
    yield f"Training:  up to {plan.train:,} examples, about {plan.steps:,} steps; {plan.test:,} examples to test on"
    yield "Cost:      0, as every model runs on this machine"
    yield "Memory:"
    for item in plan.memory:
        yield f"  {_range(item.low, item.high):>20}  {item.what}"
    known = [item for item in plan.memory if item.high is not None]
    if known:
        total = _range(sum(item.low for item in known), sum(item.high or 0 for item in known))
        yield f"  {total:>20}  in all" + ("" if len(known) == len(plan.memory) else " that is known")
    if len(known) < len(plan.memory):
        yield "A model's memory is known once it is on this machine."
    yield "Beside it come Python with torch, about 0.5 GB, and activations, which grow with the batch size and the length of texts."


def _range(low: int, high: int | None) -> str:
    if high is None:
        return "not known yet"
    return size(low) if low == high else f"{size(low)} to {size(high)}"


@dataclass(frozen=True)
class _Planned:
    """An example that will be there: its domains, and how long the question of each expert is, in tokens."""

    domains: tuple[str, ...]
    whole: int
    asked: Mapping[str, int]

    @classmethod
    def of(cls, example: Example) -> _Planned:
        asked = {domain: _tokens(transcript(example.conversation_for(domain))) for domain in example.domains}
        return cls(example.domains, _tokens(transcript(example.conversation)), asked)


def _unwritten(*domains: str) -> Example:
    return Example(query="?" * QUESTION_TOKENS * CHARACTERS_PER_TOKEN, domains=domains)


def _examples_of(recipe: Recipe, generator: SyntheticSection | AdversarialSection | CuratedSection) -> Iterator[Example]:
    if isinstance(generator, CuratedSection):
        yield from itertools.islice(generator.read(), generator.num_examples)
        return
    if isinstance(generator, AdversarialSection):
        pairs = itertools.cycle(itertools.permutations(recipe.domains, 2))
        yield from (_unwritten(needed) for _, needed in itertools.islice(pairs, generator.num_examples))
        return
    crossing = round(generator.num_examples * generator.cross_domain_ratio)
    singles = itertools.islice(itertools.cycle(recipe.domains), generator.num_examples - crossing)
    yield from (_unwritten(domain) for domain in singles)
    combined = combinations_in_turn(tuple(recipe.domains), generator.domains_per_example)
    yield from (_unwritten(*domains) for domains in itertools.islice(combined, crossing))


def _split(recipe: Recipe, made: Sequence[_Planned]) -> tuple[list[_Planned], list[_Planned]]:
    evaluation = recipe.evaluation
    if evaluation is None:
        return list(made), []
    left, _ = _drawn(made, evaluation.validation_holdout or 0.0)
    if evaluation.test_examples:
        return left, [_Planned.of(example) for example in read_examples(evaluation.test_examples)]
    share = HOLDOUT if evaluation.holdout is None else evaluation.holdout
    return _drawn(left, share * len(made) / max(1, len(left)))


def _drawn(made: Sequence[_Planned], share: float) -> tuple[list[_Planned], list[_Planned]]:
    """Holds some out: they are drawn from every combination of domains, and each n-th of them stands for the draw."""
    places = {math.floor(index / share) for index in range(round(len(made) * share))}
    return [item for at, item in enumerate(made) if at not in places], [item for at, item in enumerate(made) if at in places]


def _writing(recipe: Recipe) -> Iterator[Calls]:
    for generator in recipe.generators:
        if isinstance(generator, CuratedSection):
            continue
        count = min(generator.num_examples * generator.max_rounds, generator.max_questions or sys.maxsize)
        prompt = _tokens(CROSS_DOMAIN_PROMPT) + 2 * max(map(_tokens, recipe.domains.values()))
        # Of several questions in a reply each may be the only one of its kind that is still wanted, so each counts as a call.
        written = count * generator.sampling.max_new_tokens
        yield Calls("generate", f"{_called(generator.model)}, {generator.type}", count, count * prompt, written)
        if isinstance(generator, AdversarialSection) and generator.verify:
            judge, verdicts = _called(generator.judge or generator.model), 2 * count
            prompt = _tokens(NEEDED_DOMAIN_PROMPT) + sum(map(_tokens, recipe.domains.values())) + QUESTION_TOKENS
            yield Calls("generate", f"{judge}, judging", verdicts, verdicts * prompt, verdicts * JUDGE_TOKENS)


def _collecting(recipe: Recipe, train: Sequence[_Planned]) -> Iterator[Calls]:
    for domain in recipe.teachers:
        asked = [item.asked[domain] for item in train if domain in item.domains]
        yield Calls("collect", domain, len(asked), sum(asked), len(asked) * recipe.responses.max_new_tokens)
        if rounds := recipe.integrator.discussion_rounds:
            crossing = [item for item in train if domain in item.domains and len(item.domains) > 1]
            prompt, answer = _tokens(DISCUSSION_PROMPT), recipe.responses.max_new_tokens
            read = sum(prompt + 2 * item.asked[domain] + len(item.domains) * answer for item in crossing)
            yield Calls("collect", f"{domain}, discussing", rounds * len(crossing), rounds * read, rounds * len(crossing) * answer)


def _integrating(recipe: Recipe, train: Sequence[_Planned]) -> Iterator[Calls]:
    integrator = recipe.integrator
    if not isinstance(integrator, ModelIntegratorSection):
        return
    crossing = [item for item in train if len(item.domains) > 1]
    prompt = _tokens(integrator.prompt_template or INTEGRATION_PROMPT)
    read = sum(prompt + item.whole + len(item.domains) * recipe.responses.max_new_tokens for item in crossing)
    name = integrator.model if isinstance(integrator.model, str) else _name(integrator.model)
    # An answer that does not hold is asked for once more, with the first one before it.
    twice = integrator.check_claims
    read += twice * (read + len(crossing) * integrator.max_new_tokens)
    count = len(crossing) * (1 + twice)
    yield Calls("integrate", name, count, read, count * integrator.max_new_tokens)


def _evaluating(recipe: Recipe, test: Sequence[_Planned]) -> Iterator[Calls]:
    if recipe.evaluation is None:
        return
    merge = ["the experts' merge"] if all(is_adapter(teacher.path) for teacher in recipe.teachers.values()) else []
    for name in ("student", "its base", *merge, *recipe.teachers):
        yield Calls("evaluate", name, len(test), sum(item.whole for item in test), len(test) * recipe.evaluation.max_new_tokens)


def _steps(recipe: Recipe, train: Sequence[_Planned]) -> int:
    trainer = recipe.trainer
    phases = [len(train)]
    if isinstance(trainer, IntegrationSection):
        single = sum(len(item.domains) == 1 for item in train)
        crossing = len(train) - single
        phases = [single, crossing + round(trainer.replay * single)] if crossing else [single]
    return sum(math.ceil(rows * trainer.epochs / trainer.batch_size) for rows in phases)


def _called(model: str | StudentSection) -> str:
    return model if isinstance(model, str) else _name(model)


def _name(section: StudentSection) -> str:
    return section.name or Path(section.path).name


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
