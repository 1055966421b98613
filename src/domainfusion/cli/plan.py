"""What a recipe would take: calls, tokens, training steps, memory and cost, from files alone and before any model is loaded."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domainfusion.cli.memory import Memory, memory_of
from domainfusion.distillation.data_generation.adversarial import JUDGE_TOKENS
from domainfusion.distillation.data_generation.coverage import combinations_in_turn
from domainfusion.distillation.examples import read_examples
from domainfusion.prompts import CROSS_DOMAIN_PROMPT, DISCUSSION_PROMPT, INTEGRATION_PROMPT, NEEDED_DOMAIN_PROMPT
from domainfusion.recipe.checks import STUDENT, models_of
from domainfusion.recipe.sections import (
    HOLDOUT,
    AdversarialSection,
    APISection,
    CuratedSection,
    IntegrationSection,
    ModelIntegratorSection,
    ModelSection,
    Recipe,
    StudentSection,
    SyntheticSection,
)
from domainfusion.reports.figures import money, size
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
        remote: Whether it is behind an API.
        cost: What they cost, with no answer stored yet; None where the recipe has no prices.
    """

    stage: str
    model: str
    count: int
    read: int
    written: int
    remote: bool = False
    cost: float | None = 0.0


@dataclass(frozen=True)
class Plan:
    """What a recipe would take.

    Attributes:
        calls: Calls by stage and model.
        train: Examples to train on, at most.
        test: Examples to test on.
        steps: Optimiser steps, about.
        memory: Memory by what needs it.
        limits: `max_cost` by the model that has one.
    """

    calls: tuple[Calls, ...]
    train: int
    test: int
    steps: int
    memory: tuple[Memory, ...]
    limits: Mapping[str, float]


def plan_of(recipe: Recipe) -> Plan:
    """Works out what a recipe would take. Files are read, no model is loaded."""
    made = [_Planned.of(example) for generator in recipe.generators for example in _examples_of(recipe, generator)]
    train, test = _split(recipe, made)
    calls = (*_writing(recipe), *_collecting(recipe, train), *_integrating(recipe, train), *_evaluating(recipe, test))
    limits = {section.called: section.max_cost for _, section in models_of(recipe) if isinstance(section, APISection) and section.max_cost}
    made_of = tuple(call for call in calls if call.count)
    return Plan(made_of, len(train), len(test), _steps(recipe, train), memory_of(recipe), limits)


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
    yield from _cost_lines(plan)
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


def _cost_lines(plan: Plan) -> Iterator[str]:
    costs: dict[str, float] = {}
    for call in plan.calls:
        if call.remote and call.cost is not None:
            costs[call.model] = costs.get(call.model, 0.0) + call.cost
    unknown = ", ".join(dict.fromkeys(call.model for call in plan.calls if call.cost is None))
    if not costs:
        yield "Cost:      " + (f"not known, as there are no prices of {unknown}" if unknown else "0, as every model runs on this machine")
        return
    by_model = ", ".join(f"{model} {money(cost)}" for model, cost in costs.items())
    yield f"Cost:      at most about {money(sum(costs.values()))} ({by_model})" + (f", without {unknown}" if unknown else "")
    if plan.limits:
        yield f"           max_cost: {', '.join(f'{model} {money(limit)}' for model, limit in plan.limits.items())}"


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
        yield _calls(recipe, "generate", generator.model, count, count * prompt, written, doing=f", {generator.type}")
        if isinstance(generator, AdversarialSection) and generator.verify:
            judge, verdicts = generator.judge or generator.model, 2 * count
            prompt = _tokens(NEEDED_DOMAIN_PROMPT) + sum(map(_tokens, recipe.domains.values())) + QUESTION_TOKENS
            yield _calls(recipe, "generate", judge, verdicts, verdicts * prompt, verdicts * JUDGE_TOKENS, doing=", judging")


def _collecting(recipe: Recipe, train: Sequence[_Planned]) -> Iterator[Calls]:
    for domain in recipe.teachers:
        asked = [item.asked[domain] for item in train if domain in item.domains]
        yield _calls(recipe, "collect", domain, len(asked), sum(asked), len(asked) * recipe.responses.max_new_tokens)
        if rounds := recipe.integrator.discussion_rounds:
            crossing = [item for item in train if domain in item.domains and len(item.domains) > 1]
            prompt, answer = _tokens(DISCUSSION_PROMPT), recipe.responses.max_new_tokens
            read = sum(prompt + 2 * item.asked[domain] + len(item.domains) * answer for item in crossing)
            count = rounds * len(crossing)
            yield _calls(recipe, "collect", domain, count, rounds * read, count * answer, doing=", discussing")


def _integrating(recipe: Recipe, train: Sequence[_Planned]) -> Iterator[Calls]:
    integrator = recipe.integrator
    if not isinstance(integrator, ModelIntegratorSection):
        return
    crossing = [item for item in train if len(item.domains) > 1]
    prompt = _tokens(integrator.prompt_template or INTEGRATION_PROMPT)
    read = sum(prompt + item.whole + len(item.domains) * recipe.responses.max_new_tokens for item in crossing)
    # An answer that does not hold is asked for once more, with the first one before it.
    twice = integrator.check_claims
    read += twice * (read + len(crossing) * integrator.max_new_tokens)
    count = len(crossing) * (1 + twice)
    yield _calls(recipe, "integrate", integrator.model, count, read, count * integrator.max_new_tokens)


def _evaluating(recipe: Recipe, test: Sequence[_Planned]) -> Iterator[Calls]:
    if recipe.evaluation is None:
        return
    read, written = sum(item.whole for item in test), len(test) * recipe.evaluation.max_new_tokens
    merge = ["the experts' merge"] if all(teacher.is_adapter for teacher in recipe.teachers.values()) else []
    for name in (STUDENT, "its base", *merge):
        yield Calls("evaluate", name, len(test), read, written)
    for domain in recipe.teachers:
        yield _calls(recipe, "evaluate", domain, len(test), read, written)


def _steps(recipe: Recipe, train: Sequence[_Planned]) -> int:
    trainer = recipe.trainer
    phases = [len(train)]
    if isinstance(trainer, IntegrationSection):
        single = sum(len(item.domains) == 1 for item in train)
        crossing = len(train) - single
        phases = [single, crossing + round(trainer.replay * single)] if crossing else [single]
    return sum(math.ceil(rows * trainer.epochs / trainer.batch_size) for rows in phases)


def _calls(
    recipe: Recipe, stage: str, model: str | ModelSection | APISection, count: int, read: int, written: int, *, doing: str = ""
) -> Calls:
    """Returns the calls of a model that is a name or its own section; its system prompt is read with every call."""
    section: StudentSection | APISection = recipe.teachers.get(model, recipe.student) if isinstance(model, str) else model
    name = model if isinstance(model, str) else section.called
    read += count * _tokens(section.system_prompt or "")
    remote = isinstance(section, APISection)
    cost = section.cost(read=read, written=written) if isinstance(section, APISection) else 0.0
    return Calls(stage, f"{name}{doing}", count, read, written, remote, cost)


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
