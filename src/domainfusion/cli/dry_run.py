"""What `distill --dry-run` shows: the plan of a recipe, and the time of a few answers and steps of
those local models that are small enough.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domainfusion.cli.plan import BASE, MERGE, Calls, RunPlan
from domainfusion.distillation.forecast import (
    MOST_WEIGHTS,
    QUESTIONS_TIMED,
    seconds_of_a_step,
    seconds_of_an_answer,
    unwritten_records,
)
from domainfusion.models import HuggingFaceModel
from domainfusion.progress import doing
from domainfusion.recipe.building import (
    STUDENT,
    build_model,
    build_trainer,
)
from domainfusion.recipe.sections import (
    APISection,
    Recipe,
    StudentSection,
)
from domainfusion.reports.tables import money, size
from domainfusion.types import (
    Sampling,
)
from domainfusion.wording import counted, in_words


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
        table.add_row(call.stage, Text(who), _count(call), f"{call.read:,}", f"{call.written:,}")
    totals = [
        sum(getattr(call, name) for call in plan.calls) for name in ("count", "read", "written")
    ]
    table.add_row("in all", "", *(f"{total:,}" for total in totals), style="bold")
    return Group(table, Text(), Text("\n".join(_closing(plan))))


def _closing(plan: RunPlan) -> Iterator[str]:
    yield (
        f"Training:  up to {counted(plan.train, 'example')}, about {counted(plan.steps, 'step')};"
        f" {counted(plan.test, 'example')} to test on"
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


def _count(call: Calls) -> str:
    if call.fewest < call.count:
        return f"{call.fewest:,} to {call.count:,}"
    return f"{call.count:,}"


class Timed(NamedTuple):
    """How long the work of a plan takes on this machine.

    Attributes:
        answers: Seconds for an answer, by the name of the model; of local models alone.
        step: Seconds for a step of the training; None where it was not timed.
    """

    answers: Mapping[str, float]
    step: float | None


def time_plan(recipe: Recipe, plan: RunPlan) -> Timed:
    """Asks each local model a few questions, trains a copy of the student for two steps, keeps
    nothing, and returns what that took. Models that are not on this machine, are served by an
    engine or have more than `MOST_WEIGHTS` weights are left out.
    """
    answers: dict[str, float] = {}
    test = list(plan.questions)
    trained = [record.example for record in plan.records]
    for domain, section in recipe.teachers.items():
        model = _to_time(section)
        own = [example for example in trained or test if domain in example.domains]
        if model is None:
            continue
        with doing(f"timing the expert of {domain}"):
            seconds = seconds_of_an_answer(
                model, own, recipe.responses.sampling(recipe.seed), domain
            )
        if seconds is not None:
            answers[domain] = seconds
    student = _to_time(recipe.student)
    if student is None:
        return Timed(answers, None)
    evaluation = recipe.evaluation
    with doing("timing the student"):
        tokens = 256 if evaluation is None else evaluation.max_new_tokens
        seconds = seconds_of_an_answer(student, test or trained, Sampling(max_new_tokens=tokens))
    if seconds is not None:
        answers |= dict.fromkeys((STUDENT, BASE, MERGE), seconds)
    with doing("timing a step of the training"):
        # Its targets are as long as the question: those of stand-ins are as long as they may be.
        step = seconds_of_a_step(student, build_trainer(recipe.trainer), unwritten_records(trained))
    return Timed(answers, step)


def _to_time(section: StudentSection | APISection) -> HuggingFaceModel | None:
    """Returns the model of a section where it can be timed in seconds."""
    if isinstance(section, APISection) or section.engine is not None:
        return None
    places = [section.path, *([section.base_model] if section.base_model else [])]
    if not all(os.path.exists(place) for place in places):
        return None  # it would be downloaded
    model = build_model(section)
    if not isinstance(model, HuggingFaceModel) or model.parameter_count > MOST_WEIGHTS:
        return None
    return model


def render_times(plan: RunPlan, timed: Timed) -> str:
    """Returns in lines how long a plan takes, and what was timed for it."""
    if not timed.answers and timed.step is None:
        return (
            "Time:      not known: no model is on this machine, outside of an engine and with at"
            f" most {MOST_WEIGHTS / 1e9:g} billion weights"
        )
    least = sum(call.fewest * timed.answers.get(call.model, 0.0) for call in plan.calls)
    most = sum(call.count * timed.answers.get(call.model, 0.0) for call in plan.calls)
    steps = plan.steps * (timed.step or 0.0)
    low, high = in_words(least + steps), in_words(most + steps)
    lines = [f"Time:      {low}" if low == high else f"Time:      {low}, at most {high}"]
    lines[0] += " on this machine"
    if timed.step is not None:
        lines.append(
            f"           {counted(plan.steps, 'step')}: {in_words(steps)}, at {timed.step:.2g} s each,"
            " as the second of two steps took"
        )
    if timed.answers:
        slowest = max(timed.answers, key=lambda name: timed.answers[name])
        lines.append(
            f"           answers: {in_words(most)}, at {_seconds(timed.answers)} each, as up to"
            f" {QUESTIONS_TIMED} questions took; {slowest} is slowest"
        )
    left_out = {call.model for call in plan.calls if call.model not in timed.answers}
    missing = sorted(left_out) + ([] if timed.step is not None else ["the training"])
    if missing:
        lines.append(f"           without {', '.join(missing)}")
    lines.append("           Loading, merging experts and validating are not in it.")
    return "\n".join(lines)


def _seconds(answers: Mapping[str, float]) -> str:
    low, high = min(answers.values()), max(answers.values())
    return f"{low:.2g} s" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g} s"
