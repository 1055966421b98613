"""What a recipe would take: calls, tokens, training steps, memory and cost, from files alone and
before any model is loaded.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domainfusion.cli.memory import Memory, memory_of
from domainfusion.distillation.data_generation.synthetic import combinations_in_turn
from domainfusion.distillation.data_generation.variety import TOKENS_A_TOPIC
from domainfusion.distillation.data_generation.writing import JUDGE_TOKENS
from domainfusion.distillation.evaluator.agreement import AGREEMENT_TOKENS
from domainfusion.distillation.evaluator.benchmark import GENERAL
from domainfusion.distillation.examples import CROSS_DOMAIN, read_examples, slice_of
from domainfusion.distillation.integration.model_reading import (
    ORDERS,
    READING_TOKENS,
    RELATING_TOKENS,
)
from domainfusion.distillation.integration.verifying import VERIFICATION_TOKENS
from domainfusion.distillation.metrics.judge import VERDICT_TOKENS
from domainfusion.prompts import (
    AGREEMENT_PROMPT,
    COHERENCE_PROMPT,
    CROSS_DOMAIN_PROMPT,
    INTEGRATION_PROMPT,
    JUDGE_PROMPT,
    NEEDED_DOMAIN_PROMPT,
    PLAN_PROMPT,
    READING_PROMPT,
    RELATING_PROMPT,
    TOPICS_PROMPT,
    VERIFICATION_PROMPT,
)
from domainfusion.recipe.building import variety_of
from domainfusion.recipe.checks import STUDENT, models_of
from domainfusion.recipe.sections import (
    HOLDOUT,
    JUDGE,
    AdversarialSection,
    APISection,
    CuratedSection,
    EvaluationSection,
    IntegrationSection,
    ModelIntegratorSection,
    ModelSection,
    Recipe,
    StudentSection,
    SyntheticSection,
)
from domainfusion.reports.tables import money, size
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
        doing: As what it is called, where that does not go without saying.
    """

    stage: str
    model: str
    count: int
    read: int
    written: int
    remote: bool = False
    cost: float | None = 0.0
    doing: str = ""


@dataclass(frozen=True)
class RunPlan:
    """What a recipe would take.

    Attributes:
        calls: Calls by stage and model.
        train: Examples to train on, at most; without those of a refinement.
        test: Examples to test on.
        steps: Optimizer steps, about.
        memory: Memory by what needs it.
        limits: `max_cost` by the model that has one.
        uncounted: Tasks of lm-evaluation-harness, whose items are not known before they are loaded.
    """

    calls: tuple[Calls, ...]
    train: int
    test: int
    steps: int
    memory: tuple[Memory, ...]
    limits: Mapping[str, float]
    uncounted: tuple[str, ...] = ()


def plan_of(recipe: Recipe) -> RunPlan:
    """Works out what a recipe would take. Files are read, no model is loaded."""
    made = [
        _Planned.of(example)
        for generator in recipe.generators
        for example in _examples_of(recipe, generator)
    ]
    train, test = _split(recipe, made)
    first = (*_writing(recipe), *_collecting(recipe, train), *_integrating(recipe, train))
    calls = (*first, *_refining(recipe, made), *_evaluating(recipe, test))
    limits = {
        section.called: section.max_cost
        for _, section in models_of(recipe)
        if isinstance(section, APISection) and section.max_cost
    }
    made_of = tuple(call for call in calls if call.count)
    return RunPlan(
        made_of,
        len(train),
        len(test),
        _steps(recipe, train),
        memory_of(recipe),
        limits,
        _tasks(recipe),
    )


def render_plan(plan: RunPlan) -> RenderableType:
    """Returns the plan for a rich console."""
    table = Table(
        title=Text("Calls, at most"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for title in ("stage", "model"):
        table.add_column(title, overflow="fold")
    for title in ("calls", "tokens read, about", "tokens written, at most"):
        table.add_column(title, justify="right")
    for call in plan.calls:
        who = f"{call.model}, {call.doing}" if call.doing else call.model
        table.add_row(
            call.stage, Text(who), f"{call.count:,}", f"{call.read:,}", f"{call.written:,}"
        )
    totals = [
        sum(getattr(call, name) for call in plan.calls) for name in ("count", "read", "written")
    ]
    table.add_row("in all", "", *(f"{total:,}" for total in totals), style="bold")
    return Group(table, Text(), Text("\n".join(_closing(plan))))


def _closing(plan: RunPlan) -> Iterator[str]:
    yield (
        f"Training:  up to {plan.train:,} examples, about {plan.steps:,} steps; {plan.test:,}"
        " examples to test on"
    )
    if any(call.stage == "refine" for call in plan.calls):
        yield (
            "           and what a refinement adds, whose calls are counted as if every new example"
            " needed every domain"
        )
    if plan.uncounted:
        yield (
            "Not counted, as their items are read in the run: tasks of lm-evaluation-harness"
            f" ({', '.join(plan.uncounted)})"
        )
    yield from _cost_lines(plan)
    yield "Memory:"
    for item in plan.memory:
        yield f"  {_range(item.low, item.high):>20}  {item.what}"
    known = [item for item in plan.memory if item.high is not None]
    if known:
        total = _range(sum(item.low for item in known), sum(item.high or 0 for item in known))
        yield f"  {total:>20}  in all" + (
            "" if len(known) == len(plan.memory) else " that is known"
        )
    if len(known) < len(plan.memory):
        yield "A model's memory is known once it is on this machine."
    yield (
        "Beside it come Python with torch, about 0.5 GB, and activations, which grow with the batch"
        " size and the length of texts."
    )


def _cost_lines(plan: RunPlan) -> Iterator[str]:
    costs: dict[str, float] = {}
    for call in plan.calls:
        if call.remote and call.cost is not None:
            costs[call.model] = costs.get(call.model, 0.0) + call.cost
    unknown = ", ".join(dict.fromkeys(call.model for call in plan.calls if call.cost is None))
    if not costs:
        yield "Cost:      " + (
            f"not known, as there are no prices of {unknown}"
            if unknown
            else "0, as every model runs on this machine"
        )
        return
    by_model = ", ".join(f"{model} {money(cost)}" for model, cost in costs.items())
    yield f"Cost:      at most about {money(sum(costs.values()))} ({by_model})" + (
        f", without {unknown}" if unknown else ""
    )
    if plan.limits:
        yield (
            "           max_cost:"
            f" {', '.join(f'{model} {money(limit)}' for model, limit in plan.limits.items())}"
        )


def _range(low: int, high: int | None) -> str:
    if high is None:
        return "not known yet"
    return size(low) if low == high else f"{size(low)} to {size(high)}"


@dataclass(frozen=True)
class _Planned:
    """An example that will be there, and how long its questions and what a judge holds an answer
    against are, in tokens.
    """

    example: Example
    whole: int
    asked: Mapping[str, int]

    @classmethod
    def of(cls, example: Example) -> _Planned:
        asked = {
            domain: _tokens(transcript(example.conversation_for(domain)))
            for domain in example.domains
        }
        return cls(example, _tokens(transcript(example.conversation)), asked)

    @property
    def domains(self) -> tuple[str, ...]:
        return self.example.domains

    @property
    def accepted(self) -> int:
        example = self.example
        return _tokens(
            example.reference
            or "; ".join(answer for part in example.parts for answer in part.answers[:1])
        )


def _unwritten(*domains: str) -> Example:
    return Example(query="?" * QUESTION_TOKENS * CHARACTERS_PER_TOKEN, domains=domains)


def _examples_of(
    recipe: Recipe, generator: SyntheticSection | AdversarialSection | CuratedSection
) -> Iterator[Example]:
    if isinstance(generator, CuratedSection):
        yield from itertools.islice(generator.read(), generator.num_examples)
        return
    if isinstance(generator, AdversarialSection):
        pairs = itertools.cycle(itertools.permutations(recipe.domains, 2))
        yield from (
            _unwritten(needed) for _, needed in itertools.islice(pairs, generator.num_examples)
        )
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
    """Holds some out: they are drawn from every combination of domains, and each n-th of them
    stands for the draw.
    """
    places = {math.floor(index / share) for index in range(round(len(made) * share))}
    return [item for at, item in enumerate(made) if at not in places], [
        item for at, item in enumerate(made) if at in places
    ]


def _writing(recipe: Recipe) -> Iterator[Calls]:
    for generator in recipe.generators:
        if isinstance(generator, CuratedSection):
            continue
        count = min(
            generator.num_examples * generator.max_rounds, generator.max_questions or sys.maxsize
        )
        prompt = _tokens(CROSS_DOMAIN_PROMPT) + 2 * max(map(_tokens, recipe.domains.values()))
        # Of several questions in a reply each may be the only one of its kind that is still wanted,
        # so each counts as a call.
        written = count * generator.sampling.max_new_tokens
        yield _calls(
            recipe,
            "generate",
            generator.model,
            count,
            count * prompt,
            written,
            doing=generator.type,
        )
        variety = variety_of(generator)
        listed = [name for name in recipe.domains if name not in variety.topics]
        if listed and variety.topics_per_domain:
            read = len(listed) * (
                _tokens(TOPICS_PROMPT) + max(map(_tokens, recipe.domains.values()))
            )
            written = len(listed) * TOKENS_A_TOPIC * variety.topics_per_domain
            yield _calls(
                recipe, "generate", generator.model, len(listed), read, written, doing="topics"
            )
        if generator.verify:
            judge = generator.judge or generator.model
            # Of an adversarial question a judge says what it looks like and, by itself, what it
            # needs.
            verdicts = count * (2 if isinstance(generator, AdversarialSection) else 1)
            prompt = (
                _tokens(NEEDED_DOMAIN_PROMPT)
                + sum(map(_tokens, recipe.domains.values()))
                + QUESTION_TOKENS
            )
            yield _calls(
                recipe,
                "generate",
                judge,
                verdicts,
                verdicts * prompt,
                verdicts * JUDGE_TOKENS,
                doing="judging",
            )


def _collecting(recipe: Recipe, train: Sequence[_Planned]) -> Iterator[Calls]:
    for domain in recipe.teachers:
        asked = [item.asked[domain] for item in train if domain in item.domains]
        yield _calls(
            recipe,
            "collect",
            domain,
            len(asked),
            sum(asked),
            len(asked) * recipe.responses.max_new_tokens,
        )


def _integrating(recipe: Recipe, train: Sequence[_Planned]) -> Iterator[Calls]:
    crossing = [item for item in train if len(item.domains) > 1]
    answer = recipe.responses.max_new_tokens
    integrator = recipe.integrator
    if not isinstance(integrator, ModelIntegratorSection):
        return
    shown = sum(item.whole + len(item.domains) * answer for item in crossing)
    yield from _reading(recipe, integrator.model, crossing, shown)
    # An answer that does not hold is written once more, with the first one before it, and verified
    # once more.
    times = 2 if integrator.verify else 1
    prompt, count = (
        _tokens(integrator.prompt_template or INTEGRATION_PROMPT) + _tokens(PLAN_PROMPT),
        len(crossing) * times,
    )
    # The plan states the claims beside the responses themselves.
    read = (
        times * (len(crossing) * prompt + 2 * shown)
        + (times - 1) * len(crossing) * integrator.max_new_tokens
    )
    yield _calls(
        recipe,
        "integrate",
        integrator.model,
        count,
        read,
        count * integrator.max_new_tokens,
        doing="writing",
    )
    if integrator.verify and integrator.cross_encoder is None:
        verifier = integrator.verifier or integrator.model
        read = times * (
            shown + len(crossing) * (_tokens(VERIFICATION_PROMPT) + integrator.max_new_tokens)
        )
        yield _calls(
            recipe,
            "integrate",
            verifier,
            count,
            read,
            count * VERIFICATION_TOKENS,
            doing="verifying",
        )


def _reading(
    recipe: Recipe, model: str | ModelSection | APISection, crossing: Sequence[_Planned], shown: int
) -> Iterator[Calls]:
    """The experts' claims are read once, and related with the experts in one order and in the
    other.
    """
    count = len(crossing)
    read = count * _tokens(READING_PROMPT) + shown
    yield _calls(recipe, "integrate", model, count, read, count * READING_TOKENS, doing="reading")
    orders = len(ORDERS)
    read = orders * (count * _tokens(RELATING_PROMPT) + shown)
    yield _calls(
        recipe,
        "integrate",
        model,
        orders * count,
        read,
        orders * count * RELATING_TOKENS,
        doing="relating",
    )


def _refining(recipe: Recipe, made: Sequence[_Planned]) -> Iterator[Calls]:
    """Every round as if all of its examples needed all domains: which they need is known once
    validation has told.
    """
    rounds, evaluation = recipe.refinement_rounds, recipe.evaluation
    if not rounds or evaluation is None:
        return
    count = sum(
        generator.num_examples or 0 for generator in recipe.generators if generator.makes_more
    )
    new = [_Planned.of(_unwritten(*recipe.domains))] * count
    for call in (*_writing(recipe), *_collecting(recipe, new), *_integrating(recipe, new)):
        cost = None if call.cost is None else call.cost * rounds
        many = {name: getattr(call, name) * rounds for name in ("count", "read", "written")}
        yield replace(call, stage="refine", **many, cost=cost)
    given = evaluation.validation_examples
    validation = (
        [*map(_Planned.of, read_examples(given))]
        if given
        else _drawn(made, evaluation.validation_holdout or 0.0)[1]
    )
    for domain in recipe.teachers:
        asked = [item.whole for item in validation if item.domains == (domain,)]
        written = len(asked) * evaluation.max_new_tokens
        yield _calls(
            recipe, "refine", domain, len(asked), sum(asked), written, doing="on validation"
        )


def _evaluating(recipe: Recipe, test: Sequence[_Planned]) -> Iterator[Calls]:
    if recipe.evaluation is None:
        return
    evaluation, items = recipe.evaluation, [*test, *_benchmark_items(recipe.evaluation)]
    read, written = sum(item.whole for item in items), len(items) * evaluation.max_new_tokens
    merge = (
        ["the experts' merge"]
        if all(teacher.is_adapter for teacher in recipe.teachers.values())
        else []
    )
    measured = (STUDENT, "its base", *merge)
    for name in measured:
        yield Calls("evaluate", name, len(items), read, written)
    for domain in recipe.teachers:
        yield _calls(recipe, "evaluate", domain, len(items), read, written)
    if evaluation.judge is not None:
        graded = [(item, len(measured) + len(recipe.teachers)) for item in items]
        graded += _graded_together(test)
        yield _judging(recipe, evaluation, evaluation.judge, graded)
        yield _judging_coherence(recipe, evaluation, evaluation.judge, test)
    yield from _answering_together(recipe, evaluation, test)
    yield from _agreeing(
        recipe, evaluation, [item for item in test if not item.example.has_reference]
    )


def _answering_together(
    recipe: Recipe, evaluation: EvaluationSection, test: Sequence[_Planned]
) -> Iterator[Calls]:
    """Counts what the ensemble takes: the experts' own sub-questions, and the integrator."""
    for domain in recipe.teachers:
        own = [
            item
            for item in test
            if domain in item.domains and item.example.question_for(domain) != item.example.query
        ]
        read, written = (
            sum(item.asked[domain] for item in own),
            len(own) * evaluation.max_new_tokens,
        )
        yield _calls(recipe, "evaluate", domain, len(own), read, written, doing="asked its part")
    for call in _integrating(recipe, test):
        yield replace(call, stage="evaluate")


def _graded_together(test: Sequence[_Planned]) -> list[tuple[_Planned, int]]:
    """Returns what a judge grades of the experts together: the ensemble's answer across domains,
    and each part on its own expert's.
    """
    graded = []
    for item in test:
        if len(item.domains) > 1:
            graded.append((item, 1))
            for part in item.example.parts:
                graded.append(
                    (replace(item, example=replace(item.example, parts=(part,), reference=None)), 1)
                )
    return graded


def _benchmark_items(evaluation: EvaluationSection) -> Iterator[_Planned]:
    for domain, sources in [*evaluation.benchmarks.items(), (GENERAL, evaluation.general)]:
        for source in sources:
            if isinstance(source, str):
                examples = read_examples(source, domain=domain)
                yield from (
                    _Planned.of(replace(example, metadata={**example.metadata, "slice": domain}))
                    for example in examples
                )


def _tasks(recipe: Recipe) -> tuple[str, ...]:
    if recipe.evaluation is None:
        return ()
    sources = itertools.chain(*recipe.evaluation.benchmarks.values(), recipe.evaluation.general)
    return tuple(dict.fromkeys(source.task for source in sources if not isinstance(source, str)))


def _judging(
    recipe: Recipe,
    evaluation: EvaluationSection,
    judge: str | ModelSection | APISection,
    graded: Sequence[tuple[_Planned, int]],
) -> Calls:
    """Counts the verdicts: each answer that the judge grades is shown beside the accepted one, in
    both orders.

    Args:
        recipe: The recipe.
        evaluation: Its evaluation.
        judge: The judge.
        graded: The examples, each with the number of its answers.
    """
    pairs = [
        (item, answers * _judged_parts(recipe, evaluation, item.example))
        for item, answers in graded
    ]
    count = 2 * sum(number for _, number in pairs)
    read = sum(
        2
        * number
        * (_tokens(JUDGE_PROMPT) + item.whole + evaluation.max_new_tokens + item.accepted)
        for item, number in pairs
    )
    return _calls(recipe, "evaluate", judge, count, read, count * VERDICT_TOKENS, doing="judging")


def _judged_parts(recipe: Recipe, evaluation: EvaluationSection, example: Example) -> int:
    """Returns how often the judge grades an answer: as a whole, or each part of it that is the
    judge's where others grade the rest.
    """
    if not example.has_reference or "metric" in example.metadata:
        return 0
    if not evaluation.metrics:
        return int(evaluation.metric == JUDGE)
    named = [part.domain for part in example.parts] or [example.primary_domain]
    by_judge = [
        evaluation.metrics.get(domain, evaluation.metric) == JUDGE and domain in recipe.domains
        for domain in named
    ]
    return 1 if all(by_judge) else sum(by_judge)


def _judging_coherence(
    recipe: Recipe,
    evaluation: EvaluationSection,
    judge: str | ModelSection | APISection,
    test: Sequence[_Planned],
) -> Calls:
    """Counts the grades of coherence: one for each of the student's cross-domain answers."""
    count = (
        sum(slice_of(item.example) == CROSS_DOMAIN for item in test)
        if evaluation.coherence == JUDGE
        else 0
    )
    read = count * (_tokens(COHERENCE_PROMPT) + evaluation.max_new_tokens)
    return _calls(
        recipe, "evaluate", judge, count, read, count * VERDICT_TOKENS, doing="judging coherence"
    )


def _agreeing(
    recipe: Recipe, evaluation: EvaluationSection, unreferenced: Sequence[_Planned]
) -> Iterator[Calls]:
    """Counts what agreement takes: a second answer of each expert, and three comparisons with the
    first one, in both orders.
    """
    for domain in recipe.teachers:
        own = [item.whole for item in unreferenced if domain in item.domains]
        yield _calls(
            recipe,
            "evaluate",
            domain,
            len(own),
            sum(own),
            len(own) * evaluation.max_new_tokens,
            doing="asked again",
        )
    if evaluation.agreement_judge is not None:
        shown = [
            6 * len(item.domains) for item in unreferenced
        ]  # student, base and the second answer
        prompt = _tokens(AGREEMENT_PROMPT) + 2 * evaluation.max_new_tokens
        read = sum(
            number * (prompt + item.whole) for number, item in zip(shown, unreferenced, strict=True)
        )
        judge, written = evaluation.agreement_judge, sum(shown) * AGREEMENT_TOKENS
        yield _calls(
            recipe, "evaluate", judge, sum(shown), read, written, doing="judging agreement"
        )


def _steps(recipe: Recipe, train: Sequence[_Planned]) -> int:
    trainer = recipe.trainer
    phases = [len(train)]
    if isinstance(trainer, IntegrationSection):
        single = sum(len(item.domains) == 1 for item in train)
        crossing = len(train) - single
        phases = [single, crossing + round(trainer.replay * single)] if crossing else [single]
    return sum(math.ceil(rows * trainer.epochs / trainer.batch_size) for rows in phases)


def _calls(
    recipe: Recipe,
    stage: str,
    model: str | ModelSection | APISection,
    count: int,
    read: int,
    written: int,
    *,
    doing: str = "",
) -> Calls:
    """Returns the calls of a model that is a name or its own section; its system prompt is read
    with every call.
    """
    section: StudentSection | APISection = (
        recipe.teachers.get(model, recipe.student) if isinstance(model, str) else model
    )
    name = model if isinstance(model, str) else section.called
    read += count * _tokens(section.system_prompt or "")
    remote = isinstance(section, APISection)
    cost = section.cost(read=read, written=written) if isinstance(section, APISection) else 0.0
    return Calls(stage, name, count, read, written, remote, cost, doing)


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
