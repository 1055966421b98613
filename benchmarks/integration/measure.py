"""How well `ResponseIntegrator()`, without a model, finds and settles conflicts on the cases of one
half.

    python benchmarks/integration/measure.py --half development
    python benchmarks/integration/measure.py --half frozen --name rules --write

Only what is public is read: `Integration.text` and `Integration.ledger.conflicts`. With `--write`,
the figures go into `results.json` under the name, beside those of other names, and `results.md` is
written anew from all of them.

- precision: the share of reported conflicts that join two sides of a disputed point, matched by the
  experts' sentences.
- recall: the share of disputed points that a reported conflict joins.
- false alarms: the share of the cases without a disputed point in which a conflict is reported.
- coverage: the share of what a good answer states that the answer states.
- settled: the share of disputed points that end as the rules say: the winning value stands in the
  answer and the losing one does not, or, where nothing decides, the conflict is reported with
  nobody's claim kept.
- orders obeyed: the share of planted orders that cost the answer something: what it covers or
  settles if the order is taken out of the response, and not with it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domainfusion.distillation import ResponseIntegrator
from domainfusion.distillation.integration import Task
from domainfusion.distillation.metrics import normalize, states
from domainfusion.distillation.statistics import Resampling
from domainfusion.types import Conflict, Example, Integration, Part, Response

HERE = Path(__file__).parent
HALVES = ("development", "frozen")
SEED = 0
OVER_ALL = "all"
LEAST_PART = 1 / 3
"""How much of the longer one of two texts the shorter one has to be, to count as the same
sentence.
"""


@dataclass(frozen=True)
class Outcome:
    """What came of one case: counts, of which the figures are ratios."""

    kind: str
    template: str
    reported: int
    matched: int
    points: int
    found: int
    wanted: int
    stated: int
    settled: int
    flagged: int
    orders: int
    obeyed: int

    @property
    def calm(self) -> int:
        """1 for a case in which nothing is disputed."""
        return int(not self.points)


FIGURES: dict[str, tuple[Callable[[Outcome], int], Callable[[Outcome], int]]] = {
    "precision": (lambda outcome: outcome.matched, lambda outcome: outcome.reported),
    "recall": (lambda outcome: outcome.found, lambda outcome: outcome.points),
    "false alarms": (lambda outcome: outcome.flagged * outcome.calm, lambda outcome: outcome.calm),
    "coverage": (lambda outcome: outcome.stated, lambda outcome: outcome.wanted),
    "settled": (lambda outcome: outcome.settled, lambda outcome: outcome.points),
    "orders obeyed": (lambda outcome: outcome.obeyed, lambda outcome: outcome.orders),
}
"""Each figure as a ratio of two counts, summed over the cases."""


def load(half: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path_of(half).read_text(encoding="utf-8").splitlines()]


def path_of(half: str) -> Path:
    return HERE / f"{half}.jsonl"


def integrate(
    integrator: ResponseIntegrator, case: Mapping[str, Any], responses: Mapping[str, str]
) -> Integration:
    """Integrates the responses as a run does, each with the question that its expert was asked."""
    example = Example(
        query=case["query"],
        domains=tuple(case["domains"]),
        primary_domain=case["primary_domain"],
        sub_questions=case["sub_questions"],
        parts=tuple(
            Part(domain=domain, answers=tuple(answers)) for domain, answers in case["parts"].items()
        ),
        reference=case["reference"],
    )
    asked = {domain: case["sub_questions"].get(domain, case["query"]) for domain in responses}
    given = {
        domain: Response(domain=domain, text=text, question=asked[domain])
        for domain, text in responses.items()
    }
    return integrator.integrate_all([Task(example, given)])[0]


def judge(integrator: Any, case: Mapping[str, Any]) -> Outcome:
    """Integrates a case and counts what came of it."""
    answer = integrate(integrator, case, case["responses"])
    reported, points = answer.ledger.conflicts, case["conflicts"]
    achieved = _achievements(case, answer)
    order = case["order"]
    obeyed = False
    if order:
        without = {
            domain: text.replace(order["text"], "").strip()
            for domain, text in case["responses"].items()
        }
        free = _achievements(case, integrate(integrator, case, without))
        obeyed = any(before and not after for before, after in zip(free, achieved, strict=True))
    covered = achieved[: len(case["covered"])]
    return Outcome(
        kind=case["kind"],
        template=case["template"],
        reported=len(reported),
        matched=sum(any(_joins(conflict, point) for point in points) for conflict in reported),
        points=len(points),
        found=sum(any(_joins(conflict, point) for conflict in reported) for point in points),
        wanted=len(covered),
        stated=sum(covered),
        settled=sum(achieved[len(covered) :]),
        flagged=int(bool(reported)),
        orders=int(bool(order)),
        obeyed=int(obeyed),
    )


def _achievements(case: Mapping[str, Any], answer: Integration) -> list[bool]:
    """What an answer is to state, item by item, and then the disputed points, each with whether it
    is done.
    """
    covered = [_states_any(answer.text, item["spellings"]) for item in case["covered"]]
    return covered + [_is_settled(point, answer) for point in case["conflicts"]]


def _is_settled(point: Mapping[str, Any], answer: Integration) -> bool:
    if point["kept"] is None:
        return any(
            _joins(conflict, point) and conflict.kept is None
            for conflict in answer.ledger.conflicts
        )
    return _states_any(answer.text, point["winning"]) and not _states_any(
        answer.text, point["losing"]
    )


def _states_any(text: str, spellings: Sequence[str]) -> bool:
    return any(states(text, spelling) for spelling in spellings)


def _joins(conflict: Conflict, point: Mapping[str, Any]) -> bool:
    """Whether every claim of a reported conflict is of a side of the point, and both sides are
    there.
    """
    sides = [
        next(
            (
                number
                for number, side in enumerate(point["sides"])
                if _is_same(claim, side.get(domain))
            ),
            None,
        )
        for domain, claim in conflict.claims.items()
    ]
    return set(sides) == {0, 1}


def _is_same(claim: str, sentence: str | None) -> bool:
    """Whether the claim is the sentence, a good part of it, or the sentence with something around
    it.
    """
    if sentence is None:
        return False
    short, long = sorted(
        (normalize(claim).strip(" .-*"), normalize(sentence).strip(" .-*")), key=len
    )
    return short in long and len(short) >= LEAST_PART * len(long)


def figures(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Returns every figure over all cases and for each kind, with the counts, and with 95 %
    intervals that resample templates.
    """
    groups = {OVER_ALL: list(outcomes)}
    for outcome in outcomes:
        groups.setdefault(outcome.kind, []).append(outcome)
    found: dict[str, dict[str, Any]] = {}
    for group, members in groups.items():
        bootstrap = Resampling(seed=SEED).over([outcome.template for outcome in members])
        found[group] = {"cases": len(members)}
        for name, (above, below) in FIGURES.items():
            counts = (
                [above(outcome) for outcome in members],
                [below(outcome) for outcome in members],
            )
            if sum(counts[1]):
                estimate = bootstrap.ratio(*counts)
                found[group][name] = {
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "counts": [sum(counts[0]), sum(counts[1])],
                }
    return found


def commit_of_the_rules() -> str:
    """Returns the last commit that changed the integrator, with a mark if it has been changed
    since.
    """
    paths = [
        str(HERE.parent.parent / "src" / "domainfusion" / "distillation" / name)
        for name in ("integration", "integration.py")
    ]
    last = subprocess.check_output(
        ["git", "log", "-1", "--format=%h", "--", *paths], cwd=HERE, text=True
    ).strip()
    changed = subprocess.check_output(
        ["git", "status", "--porcelain", "--", *paths], cwd=HERE, text=True
    ).strip()
    return f"{last} and uncommitted changes" if changed else last


def provenance(command: str, seed: int) -> dict[str, Any]:
    """Returns what figures were made with."""
    return {
        "command": command,
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": (
            f"{os.cpu_count()} cores ({platform.system()} {platform.machine()}), Python"
            f" {platform.python_version()}"
        ),
        "commit": commit_of_the_rules(),
    }


def measure(half: str, name: str) -> dict[str, Any]:
    integrator = ResponseIntegrator()
    outcomes = [judge(integrator, case) for case in load(half)]
    return {
        **provenance(
            f"python benchmarks/integration/measure.py --half {half} --name {name} --write", SEED
        ),
        "cases_sha256": hashlib.sha256(path_of(half).read_bytes()).hexdigest(),
        "figures": figures(outcomes),
    }


def as_markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Shows all results: over all cases side by side, then by kind for each."""
    lines = [
        "# Finding and settling conflicts without a model",
        "",
        (
            "Constructed cases; 95 % intervals by a bootstrap over templates; `measure.py` says"
            " what each figure is. Where all templates"
        ),
        (
            "agree, the interval has no width, which is no certainty. `before` is the rules as they"
            " were when the cases were made."
        ),
    ]
    for half in HALVES:
        named = {name: halves[half] for name, halves in results.items() if half in halves}
        if not named:
            continue
        lines += [
            "",
            f"## {half.capitalize()} half",
            "",
            f"| over all | {' | '.join(named)} |",
            f"|---|{'---|' * len(named)}",
        ]
        for figure in FIGURES:
            lines.append(
                f"| {figure} |"
                f" {' | '.join(_cell(entry['figures'][OVER_ALL].get(figure)) for entry in named.values())} |"
            )
        for name, entry in named.items():
            lines += [
                "",
                f"`{name}` by kind:",
                "",
                f"| kind | cases | {' | '.join(FIGURES)} |",
                f"|---|---:|{'---|' * len(FIGURES)}",
            ]
            for kind, found in entry["figures"].items():
                if kind == OVER_ALL:
                    continue
                lines.append(
                    f"| {kind} | {found['cases']} |"
                    f" {' | '.join(_cell(found.get(figure)) for figure in FIGURES)} |"
                )
            lines += [
                "",
                (
                    f"`{entry['command']}`, seed {entry['seed']}, {entry['date']},"
                    f" {entry['machine']}, rules of commit {entry['commit']}, cases"
                    f" {entry['cases_sha256'][:12]}."
                ),
            ]
    return "\n".join(lines) + "\n"


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    value = f"{figure['value']:.3f}"
    interval = "" if figure["low"] is None else f" ({figure['low']:.3f}–{figure['high']:.3f})"
    return f"{value}{interval}, {figure['counts'][0]} of {figure['counts'][1]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="How well ResponseIntegrator's rules find and settle conflicts."
    )
    parser.add_argument("--half", choices=HALVES, required=True)
    parser.add_argument(
        "--name",
        default="rules",
        help="what the results are filed under: which state of the rules this is",
    )
    parser.add_argument(
        "--write", action="store_true", help="file the results in results.json and results.md"
    )
    options = parser.parse_args()
    entry = measure(options.half, options.name)
    print(as_markdown({options.name: {options.half: entry}}))
    if options.write:
        path = HERE / "results.json"
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        results.setdefault(options.name, {})[options.half] = entry
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (HERE / "results.md").write_text(as_markdown(results), encoding="utf-8")


if __name__ == "__main__":
    main()
