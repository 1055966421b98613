"""What the speed benchmark found, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

NAMES = {
    "ours": "domainfusion, `sequence`, from the sum",
    "trl": "TRL, on-policy, from the sum",
    "merge": "domainfusion, `merge()`, nothing trained",
}


def as_markdown(results: Mapping[str, Any]) -> str:
    """Returns the results to read; of each part what is there."""
    measured = results["measured"]
    lines = [
        "# Speed beside TRL's DistillationTrainer",
        "",
        f"SmolLM2-135M-Instruct. Made by `{results['command']}`:",
        "",
        *_circumstances(measured),
        "",
    ]
    if races := _called("race-", measured):
        lines += _races(races)
    return "\n".join(lines).rstrip() + "\n"


def _circumstances(measured: Mapping[str, Any]) -> list[str]:
    """Returns what was measured when and on what, a line for each day and machine."""
    together: dict[str, list[str]] = {}
    for found in measured.values():
        together.setdefault(f"{found['date']}, {found['by']}", []).append(f"`{found['name']}`")
    return [f"- {', '.join(names)}: {made}." for made, names in together.items()]


def _called(prefix: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): found
        for name, found in measured.items()
        if name.startswith(prefix)
    }


def _races(races: Mapping[str, Any]) -> list[str]:
    settings = next(iter(races.values()))["settings"]
    lines = [
        "## Minutes to DER 0.97 in every domain",
        "",
        (
            f"DER is the student's accuracy over its expert's on {settings['validation']} held-out"
            " questions a domain. Everyone may learn from"
        ),
        (
            f"the same questions of one domain each, up to {settings['singles']} facts a domain in"
            f" {settings['phrasings']} phrasings, other"
        ),
        (
            "than those that are scored. The clock stands still while models are loaded and"
            " checkpoints are scored,"
        ),
        f"every {settings['every']} steps, by the same code.",
        "",
        "domainfusion and TRL both start from the sum of the experts' adapters. domainfusion asks"
        " the experts, which is on its clock, and",
        "learns their answers word for word (`sequence`). TRL's trainer takes one teacher and has no"
        " route from a question to its expert, so",
        "it gets the best that a user can do without changing it: every step has the questions of"
        " one domain, and a callback sets",
        "`teacher_model` to that domain's expert before the step. It learns on-policy (reverse KL,"
        " up to 32 tokens an answer, batch 16) at a",
        "constant rate, in the adapter of the sum as well. Each side had two rates on the first"
        " seed, and the faster one on the others.",
        "",
        "`merge()` chooses method and λ by a quarter of 60 questions a domain, and reads the others; the"
        " experts' answers to all of them, the",
        "choice and the merge are on its clock.",
        "",
        "| | rate | seeds | minutes to the goal | each seed | lowest DER at its best |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for found in races.values():
        own = found["settings"]
        groups.setdefault((own["contestant"], own.get("rate", 0.0)), []).append(found)
    for (contestant, rate), found in sorted(
        groups.items(), key=lambda group: (list(NAMES).index(group[0][0]), group[0][1])
    ):
        runs = sorted(found, key=lambda run: run["settings"]["seed"])
        minutes = [run["minutes_to_goal"] for run in runs]
        reached = [each for each in minutes if each is not None]
        cells = [
            NAMES[contestant],
            f"{rate:g}" if rate else "–",
            f"{len(runs)}",
            f"{mean(reached):.2f}" if len(reached) == len(runs) else "not always",
            ", ".join(
                f"not within {run['minutes']:.1f}" if each is None else f"{each:.2f}"
                for run, each in zip(runs, minutes, strict=True)
            ),
            f"{min(min(run['best']['der'].values()) for run in runs):.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    ours = [run for run in races.values() if run["settings"]["contestant"] == "ours"]
    asked = [run["minutes_collecting"] for run in ours]
    lines += [
        "",
        f"{settings['validation']} questions a domain: one answer moves a DER by"
        f" {1 / settings['validation']:.3f}.",
        *([f"Of our minutes from the sum {mean(asked):.2f} are the experts'."] if ours else []),
    ]
    return lines
