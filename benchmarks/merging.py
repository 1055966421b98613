"""How much of three experts a merge without any training keeps: the sum, TSV-M and RegMean, on
facts in other phrasings than those read.

The experts are the demo's LoRA adapters on SmolLM2-135M-Instruct. RegMean reads the experts' answers
to training questions, drawn anew in each of three draws. Questions are of the test set:
single facts that training asks too (in other phrasings), facts that no training question asks,
pairs and two-hop questions. CPU seconds are those of the merge, the experts' answers included.

    python benchmarks/merging.py --write

writes `merging.json` and `merging.md` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from domainfusion.demo.questions import UNASKED, QuestionSet, build_questions
from domainfusion.demo.world import base_folder, load_world, world_folder
from domainfusion.distillation.examples import CROSS_DOMAIN, slice_of
from domainfusion.distillation.metrics.grading import metric_named
from domainfusion.merging import MergeMethod, merge
from domainfusion.models import LlamaModel
from domainfusion.models.base import LanguageModel
from domainfusion.types import Conversation, Example, Message, Sampling

HERE = Path(__file__).parent
ANSWER = Sampling(max_new_tokens=32)
CANDIDATES: tuple[tuple[MergeMethod, float, int], ...] = (
    ("sum", 1.0, 0),
    ("sum", 0.5, 0),
    ("tsv", 1.0, 0),
    ("regmean", 0.7, 60),
    ("regmean", 1.0, 15),
    ("regmean", 1.0, 60),
    ("regmean", 1.3, 60),
)
"""Method, weight λ, and answers that each expert reads."""


def main() -> None:
    """Measures every candidate, and prints or writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    parser.add_argument(
        "--questions", type=int, default=40, help="questions a slice (default: %(default)s)"
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=3,
        help="draws of what RegMean's experts read (default: %(default)s)",
    )
    options = parser.parse_args()
    world = load_world(world_folder())
    base = LlamaModel(base_folder(), name="SmolLM2-135M-Instruct")
    experts = {
        domain: LlamaModel(world.adapter(domain), base_model=base_folder(), name=f"{domain} expert")
        for domain in world.domains
    }
    questions = build_questions(world)
    slices = slices_of(questions, options.questions)
    rows = [{"model": "experts, each in its domain", "scores": scores_of_experts(experts, slices)}]
    rows.append(
        {"model": "base", "scores": {name: score(base, own) for name, own in slices.items()}}
    )
    for method, weight, count in CANDIDATES:
        draws = options.draws if method == "regmean" and (weight, count) == (1.0, 60) else 1
        for draw in range(draws):
            started = time.process_time()
            read = dialogues(experts, questions.train, count, draw) if count else None
            merged = merge(base, experts, method=method, weight=weight, conversations=read)
            seconds = time.process_time() - started
            scores = {name: score(merged, own) for name, own in slices.items()}
            about: dict[str, Any] = {
                "method": method,
                "weight": weight,
                "read": count,
                "draw": draw,
                "cpu_seconds": round(seconds, 1),
            }
            rows.append({"model": named(method, weight, count), **about, "scores": scores})
            print(json.dumps(rows[-1]), flush=True)
            del merged
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": (
            f"{os.cpu_count()} cores ({platform.system()} {platform.machine()}),"
            f" {torch.get_num_threads()} threads,"
            f" {'bfloat16 units' if torch.cpu._is_avx512_bf16_supported() else 'no bfloat16 units'},"
            f" {base.head().weight.dtype}"
        ),
        "torch": torch.__version__,
        "command": "python benchmarks/merging.py --write",
        "questions": {name: len(own) for name, own in slices.items()},
        "rows": rows,
    }
    text = table(result)
    print(text)
    if options.write:
        (HERE / "merging.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (HERE / "merging.md").write_text(text, encoding="utf-8")


def slices_of(questions: QuestionSet, count: int) -> dict[str, list[Example]]:
    """Returns the questions of each slice, drawn with one seed."""
    slices: dict[str, list[Example]] = {}
    for example in questions.test:
        if example.apparent_domain:
            continue
        name = "pairs" if slice_of(example) == CROSS_DOMAIN else slice_of(example)
        if name == UNASKED:
            name = f"{example.domains[0]}, {UNASKED}"
        slices.setdefault(name, []).append(example)
    return {
        name: random.Random(name).sample(own, min(count, len(own)))
        for name, own in sorted(slices.items())
    }


def score(model: LanguageModel, examples: Sequence[Example]) -> float:
    """Returns the share of questions of which every part is answered right."""
    metric: Any = metric_named("stated_parts")
    answers = model.generate([example.conversation for example in examples], ANSWER)
    grades = [
        metric(example, answer.text).value
        for example, answer in zip(examples, answers, strict=True)
    ]
    return sum(grade == 1 for grade in grades) / len(grades)


def scores_of_experts(
    experts: dict[str, LlamaModel], slices: dict[str, list[Example]]
) -> dict[str, float]:
    """Returns what each expert scores in the slices of its own domain."""
    return {
        name: score(experts[name.split(",")[0]], own)
        for name, own in slices.items()
        if name.split(",")[0] in experts
    }


def dialogues(
    experts: dict[str, LlamaModel], train: Sequence[Example], count: int, draw: int
) -> dict[str, list[Conversation]]:
    """Returns questions of each domain's training set with its expert's answers."""
    found = {}
    for domain, expert in experts.items():
        own = [example for example in train if example.domains == (domain,)]
        asked = [
            example.conversation for example in random.Random(f"{draw}/{domain}").sample(own, count)
        ]
        answers = expert.generate(asked, ANSWER)
        found[domain] = [
            (*said, Message("assistant", answer.text))
            for said, answer in zip(asked, answers, strict=True)
        ]
    return found


def named(method: str, weight: float, count: int) -> str:
    """Returns what the table calls a candidate."""
    return f"{method}, λ = {weight:g}" + (f", {count} answers an expert" if count else "")


def table(result: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    names = list(result["questions"])
    lines = [
        "# What a merge keeps without training",
        "",
        *(__doc__ or "").split("\n\n", 2)[1].splitlines(),
        "",
        (
            "Per cent of questions answered right in every part;"
            f" {min(result['questions'].values())} to {max(result['questions'].values())} questions"
            " a slice. Where there are several draws: mean (lowest–highest)."
        ),
        (
            f"{result['date']}, {result['machine']}, torch {result['torch']}; made by"
            f" `{result['command']}`."
        ),
        "",
        "| model | " + " | ".join(names) + " | CPU s |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        by_model.setdefault(row["model"], []).append(row)
    for model, rows in by_model.items():
        cells = [
            figure([row["scores"][name] for row in rows if name in row["scores"]]) for name in names
        ]
        seconds = [row["cpu_seconds"] for row in rows if "cpu_seconds" in row]
        lines.append(
            f"| {model} | " + " | ".join(cells) + f" | {mean(seconds):.0f} |"
            if seconds
            else f"| {model} | " + " | ".join(cells) + " | |"
        )
    return "\n".join(lines) + "\n"


def figure(values: Sequence[float]) -> str:
    """Returns a cell: a percentage, with its spread where there are several."""
    if not values:
        return "–"
    spread = f" ({100 * min(values):.1f}–{100 * max(values):.1f})" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
