"""What the speed benchmark found, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

SIDES = {"ours": "domainfusion", "trl": "TRL"}
PARTS = ("sampling", "teacher", "student forward", "heads and divergence", "backward", "optimiser")
ADAPTATIONS = {"lora": "LoRA, from the experts' merge", "full": "all weights, from the base"}
NAMES = {
    "ours": "domainfusion, sequence, from the merge",
    "ours on-policy": "domainfusion, on_policy, from the merge",
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
    if steps := _called("steps-", measured):
        lines += _steps(steps, measured)
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


def _steps(steps: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    settings = next(iter(steps.values()))["settings"]
    teacher = "an adapter on the base" if settings["teacher"] == "adapter" else "the same"
    peak = measured.get("peak")
    lines = [
        "## The same steps",
        "",
        (
            "On-policy distillation: the student answers, the demo's chemistry expert says at every"
            " token what it would have found probable,"
        ),
        (
            f"and the reverse KL is learnt. {settings['batch']} prompts a step,"
            f" {settings['tokens']} tokens an answer (no answer ends sooner),"
        ),
        (
            "sampling temperature 1, the same prompts in the same steps, AdamW, the same trained"
            " weights. Each side is a process of its own"
        ),
        (
            "and trains by its own trainer: `MultiTaskTrainer` with `OnPolicyObjective`, and"
            " `DistillationTrainer` without gradient"
        ),
        (
            "checkpointing, which it uses by default and which would slow it here. Both compute in"
            f" {settings['dtype']} and keep trained"
        ),
        (
            f"weights in float32. They take turns of {settings['steps']} steps,"
            f" {settings['rounds']} times each, the order changing."
        ),
        f"TRL's teacher is the expert merged into whole weights; ours is {teacher}.",
        "",
        (
            "| | | seconds a step: median (range) | written tokens a second | peak memory | ratio"
            " to TRL: median (range) |"
        ),
        "|---|---|---:|---:|---:|---:|",
    ]
    for adaptation, found in steps.items():
        lines += _times(adaptation, found)
    lines += [
        "",
        *_losses(measured),
        "### Where the time goes",
        "",
        f"Seconds a step, means over all turns.{_peak_words(peak)}",
        "",
    ]
    lines += [
        f"| | | {' | '.join(PARTS)} | rest | share of peak: step | without sampling |",
        "|---|---|" + "---:|" * (len(PARTS) + 3),
    ]
    for adaptation, found in steps.items():
        for side, name in SIDES.items():
            lines.append(
                f"| {ADAPTATIONS[adaptation]} | {name} | {' | '.join(_split(found, side, peak))} |"
            )
    lines += [
        "",
        (
            "“Heads and divergence” is where hidden states become logits, the divergence, and its"
            " derivative back to hidden states. The share"
        ),
        (
            "of the peak counts the multiplications and additions that the step cannot do without"
            " (`needed_flops` in `setting.py` states the"
        ),
        (
            "formula), padding left out, over the time; “without sampling” leaves the sampled"
            " tokens and their time out."
        ),
        "",
    ]
    return lines


def _times(adaptation: str, found: Mapping[str, Any]) -> list[str]:
    tokens = found["settings"]["batch"] * found["settings"]["tokens"]
    ratio = _spread([turn["trl"]["seconds"] / turn["ours"]["seconds"] for turn in found["rounds"]])
    lines = []
    for side, name in SIDES.items():
        seconds = [turn[side]["seconds"] / found["settings"]["steps"] for turn in found["rounds"]]
        memory = max(turn[side]["peak_bytes"] for turn in found["rounds"]) / 1e9
        cells = [
            _spread(seconds),
            f"{tokens / median(seconds):,.0f}",
            f"{memory:.1f} GB",
            f"{ratio} times" if side == "ours" else "1",
        ]
        lines.append(f"| {ADAPTATIONS[adaptation]} | {name} | {' | '.join(cells)} |")
    return lines


def _losses(measured: Mapping[str, Any]) -> list[str]:
    lines = []
    for adaptation in ADAPTATIONS:
        if found := measured.get(f"losses-{adaptation}"):
            pairs = ", ".join(
                f"{a:.6f} and {b:.6f}" for a, b in zip(found["ours"], found["trl"], strict=True)
            )
            lines += [
                (
                    f"Losses of {len(found['ours'])} steps on the same tokens in float32,"
                    f" {ADAPTATIONS[adaptation]} (ours and TRL's): {pairs};"
                ),
                (
                    "the largest relative difference is"
                    f" {found['largest_relative_difference']:.1e}. A step's loss follows from those"
                    " before."
                ),
                "",
            ]
    return lines


def _split(found: Mapping[str, Any], side: str, peak: Mapping[str, Any] | None) -> list[str]:
    turns = [turn[side] for turn in found["rounds"]]
    steps = len(turns) * found["settings"]["steps"]
    parts = [sum(turn["parts"].get(part, 0.0) for turn in turns) / steps for part in PARTS]
    whole = sum(turn["seconds"] for turn in turns) / steps
    cells = [f"{seconds:.2f}" for seconds in (*parts, whole - sum(parts))]
    if peak is None:
        return [*cells, "–", "–"]
    flops = {name: sum(turn["flops"][name] for turn in turns) / steps for name in turns[0]["flops"]}
    learning = sum(flops.values()) - flops["sampling"]
    shares = (sum(flops.values()) / whole, learning / (whole - parts[0]))
    return [*cells, *(f"{share / peak['flops']:.0%}" for share in shares)]


def _peak_words(peak: Mapping[str, Any] | None) -> str:
    if peak is None:
        return ""
    return (
        f" The machine's matrix peak is {peak['flops'] / 1e9:,.0f} billion operations a second in"
        f" {peak['dtype']}:\nthe fastest product of two matrices of 2,048²."
    )


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
            "domainfusion starts from the experts' merge. With `sequence` it asks them, which is on"
            " its clock, and learns their answers word"
        ),
        (
            "for word; with `on_policy` (reverse KL, up to 32 tokens an answer, batch 16, let on"
            " however far) it asks nobody. TRL's trainer"
        ),
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


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
