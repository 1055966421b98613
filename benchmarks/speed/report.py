"""What the speed benchmark found, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    "ours": "domainfusion, sequence, from the merge",
    "trl from the merge": "TRL, from the merge",
    "trl from the base": "TRL, from the base",
}


def as_markdown(results: Mapping[str, Any]) -> str:
    """Returns the results to read; of each part what is there."""
    measured = results["measured"]
    lines = [
        "# Speed beside TRL's DistillationTrainer",
        "",
        f"SmolLM2-135M-Instruct, seed {results['seed']}. Made by `{results['command']}`:",
        "",
        *_circumstances(measured),
        "",
    ]
    if races := _called("race-", measured):
        lines += _races(races, measured["experts"])
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


def _races(races: Mapping[str, Any], experts: Mapping[str, Any]) -> list[str]:
    settings = next(iter(races.values()))["settings"]
    domains = list(experts["accuracy"])
    lines = [
        "## Minutes to DER 0.97 in every domain",
        "",
        (
            f"DER is the student's accuracy over its expert's on {settings['validation']} held-out"
            " questions a domain. Everyone may learn from"
        ),
        (
            f"the same questions of one domain each, up to {settings['singles']} facts a domain in"
            " as many phrasings as the table says, other"
        ),
        (
            "than those that are scored. The clock stands still while models are loaded and"
            " checkpoints are scored,"
        ),
        f"every {settings['every']} steps, by the same code.",
        "",
        (
            "domainfusion starts from the experts' merge, asks them, which is on"
            " its clock, and learns their answers word"
        ),
        ("for word (`sequence`). TRL's trainer"),
        (
            "takes one teacher and has no route from a question to its expert, so it gets the best"
            " that a user can do without changing it:"
        ),
        (
            "every step has the questions of one domain, and a callback sets `teacher_model` to"
            " that domain's expert before the step. It"
        ),
        (
            "learns on-policy (reverse KL, up to 32 tokens an answer, batch 16) at a constant rate,"
            " in LoRA adapters as well: those of the"
        ),
        "merge, or new ones of rank 16 on the base.",
        "",
        (
            "| | phrasings | rate | minutes to the goal | lowest DER at its best, when |"
            f" {' | '.join(domains)} |"
        ),
        "|---|---:|---:|---:|---:|" + "---:|" * len(domains),
    ]
    for found in sorted(
        races.values(), key=lambda found: list(NAMES).index(found["settings"]["contestant"])
    ):
        best, reached = found["best"], found["minutes_to_goal"]
        cells = [
            NAMES[found["settings"]["contestant"]],
            f"{found['settings']['phrasings']}",
            f"{found['settings']['rate']:g}",
            f"not within {found['minutes']:.1f}" if reached is None else f"{reached:.2f}",
            f"{min(best['der'].values()):.3f}, {best['minutes']:.1f} minutes",
            *(f"{best['der'][domain]:.3f}" for domain in domains),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        (
            f"One seed, and {settings['validation']} questions a domain: one answer moves a DER by"
            f" {1 / settings['validation']:.3f}, and"
        ),
        (
            "a small lead is none. Settings were tried by hand: ours first with one phrasing, which"
            " was not enough, then everyone had two;"
        ),
        "TRL had one rate.",
        *(
            f"Of our {found['minutes']:.2f} minutes at {found['settings']['rate']:g},"
            f" {found['minutes_collecting']:.2f} are the experts'."
            for found in races.values()
            if found["settings"]["contestant"] == "ours"
        ),
    ]
    return lines
