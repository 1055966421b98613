"""How well experts' responses of ordinary length are integrated: paragraphs, lists, code, tables,
and other languages than English.

    python benchmarks/integration/measure_written.py --name rules --write

The cases are in three files: `written.jsonl`, as experts write them, by another author than that of
the rules; `written_development.jsonl`, by the rules' author, who looked at them while the rules
were written; and `written_held_out.jsonl`, by the same author at the same time, not looked at until
the rules were done. A case names the query, the responses by domain, the contradictions in them
(`conflicts`, two patterns each), what an answer has to state (`facts`, patterns), what has to stay
to the letter (`verbatim`), and statements that two experts make in different words (`dup`, two
patterns each).

- found: the share of the contradictions that a conflict of the ledger joins.
- false alarms: conflicts of the ledger that join no labeled contradiction, as a count.
- unmarked: the share of the contradictions of which both sides stand in the answer without a
  conflict in the ledger. What was found and not settled is marked in the answer.
- right side kept: of the contradictions with a label of who is right (`right`, the first or the
  second), the share in which that side stands and the other one does not.
- facts kept, blocks kept: the share of the patterns, and of the verbatim parts, that the answer
  has.
- said once: the share of the statements in different words that the answer makes once.
- order-independent: the share of the cases in which the responses in reverse give the same
  conflicts, settled alike, and the same sentences.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import provenance

from domainfusion.distillation import ResponseIntegrator
from domainfusion.types import Conflict, Integration

HERE = Path(__file__).parent
FILES = ("written", "written_development", "written_held_out")
OVER_ALL = "all"
SEED = 0

Integrate = Callable[[Mapping[str, Any]], Integration]
"""From a case to its answer."""


@dataclass(frozen=True)
class Outcome:
    """What came of one case: each figure as a count and what it is out of."""

    id: str
    category: str
    counts: Mapping[str, tuple[int, int]]


FIGURES = (
    "found",
    "false alarms",
    "unmarked",
    "right side kept",
    "facts kept",
    "blocks kept",
    "said once",
    "order-independent",
)


def load(name: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def by_rules(case: Mapping[str, Any]) -> Integration:
    """Integrates a case without a model."""
    return ResponseIntegrator().integrate(
        case["query"], case["responses"], primary_domain=case["primary"]
    )


def judge(integrate: Integrate, case: Mapping[str, Any]) -> Outcome:
    """Integrates a case, and once more with the responses in reverse, and counts what came of
    it.
    """
    answer = integrate(case)
    reversed_case = {**case, "responses": dict(reversed(case["responses"].items()))}
    conflicts = answer.ledger.conflicts
    pairs = [tuple(pair) for pair in case["conflicts"]]
    found = [any(_joins(conflict, pair) for conflict in conflicts) for pair in pairs]
    both = [all(_has(answer.text, pattern) for pattern in pair) for pair in pairs]
    unmarked = sum(stand and not seen for stand, seen in zip(both, found, strict=True))
    false_alarms = sum(not any(_joins(conflict, pair) for pair in pairs) for conflict in conflicts)
    right = (
        [pair if case["right"][place] == 0 else pair[::-1] for place, pair in enumerate(pairs)]
        if "right" in case
        else []
    )
    settled = sum(
        _has(answer.text, winner) and not _has(answer.text, loser) for winner, loser in right
    )
    repeated = [all(_has(answer.text, pattern) for pattern in pair) for pair in case["dup"]]
    return Outcome(
        case["id"],
        case["cat"],
        {
            "found": (sum(found), len(pairs)),
            "false alarms": (false_alarms, 1),
            "unmarked": (unmarked, len(pairs)),
            "right side kept": (settled, len(right)),
            "facts kept": (
                sum(_has(answer.text, fact) for fact in case["facts"]),
                len(case["facts"]),
            ),
            "blocks kept": (
                sum(part in answer.text for part in case["verbatim"]),
                len(case["verbatim"]),
            ),
            "said once": (repeated.count(False), len(repeated)),
            "order-independent": (
                int(_decisions(answer) == _decisions(integrate(reversed_case))),
                1,
            ),
        },
    )


def _has(text: str, pattern: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _joins(conflict: Conflict, pair: Sequence[str]) -> bool:
    """Whether a conflict has a claim of each side of a contradiction, of two experts."""
    sides = [
        {domain for domain, claim in conflict.claims.items() if _has(claim, pattern)}
        for pattern in pair
    ]
    return any(one != other for one in sides[0] for other in sides[1])


def _decisions(answer: Integration) -> tuple[object, ...]:
    """What an answer says and settles, whatever the order in which it does."""
    conflicts = sorted(
        (sorted(conflict.claims.items()), str(conflict.kept), conflict.rule)
        for conflict in answer.ledger.conflicts
    )
    return conflicts, sorted((part.domain, part.text) for part in answer.ledger.contributions)


def figures(outcomes: Sequence[Outcome]) -> dict[str, dict[str, list[int]]]:
    """Returns every figure as counts, over all cases and for each category."""
    groups: dict[str, list[Outcome]] = {OVER_ALL: list(outcomes)}
    for outcome in outcomes:
        groups.setdefault(outcome.category, []).append(outcome)
    return {
        group: {
            name: [sum(outcome.counts[name][side] for outcome in members) for side in (0, 1)]
            for name in FIGURES
        }
        for group, members in groups.items()
    }


def measure(file: str, integrate: Integrate, command: str) -> dict[str, Any]:
    """Returns the figures of a file with what they were made with."""
    return {
        **provenance(command, SEED),
        "cases_sha256": hashlib.sha256((HERE / f"{file}.jsonl").read_bytes()).hexdigest(),
        "figures": figures([judge(integrate, case) for case in load(file)]),
    }


def as_markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Shows the results of every reader, file by file."""
    lines = [
        "# Integrating responses as experts write them",
        "",
        (
            "`measure_written.py` says what the files and the figures are. False alarms are"
            " conflicts per cases."
        ),
    ]
    for file in FILES:
        named = {name: entries[file] for name, entries in results.items() if file in entries}
        if not named:
            continue
        lines += [
            "",
            f"## {file}.jsonl",
            "",
            f"| reader | {' | '.join(FIGURES)} |",
            f"|---|{'---|' * len(FIGURES)}",
        ]
        for name, entry in named.items():
            lines.append(
                f"| {name} |"
                f" {' | '.join(_cell(entry['figures'][OVER_ALL][figure]) for figure in FIGURES)} |"
            )
        for name, entry in named.items():
            lines += [
                "",
                f"`{name}` by category:",
                "",
                f"| category | {' | '.join(FIGURES)} |",
                f"|---|{'---|' * len(FIGURES)}",
            ]
            for category, found in entry["figures"].items():
                if category != OVER_ALL:
                    lines.append(
                        f"| {category} | {' | '.join(_cell(found[figure]) for figure in FIGURES)} |"
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


def _cell(counts: Sequence[int]) -> str:
    return f"{counts[0]} of {counts[1]}" if counts[1] else "–"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="rules", help="what the figures are kept under")
    parser.add_argument("--file", choices=FILES, action="append", help="the cases; by default all")
    parser.add_argument(
        "--write", action="store_true", help="keep the figures in written.json and written.md"
    )
    parser.add_argument(
        "--show", action="store_true", help="print the cases in which something is missing"
    )
    given = parser.parse_args()
    command = f"python benchmarks/integration/measure_written.py --name {given.name} --write"
    kept = HERE / "written.json"
    results = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for file in given.file or FILES:
        entry = measure(file, by_rules, command)
        results.setdefault(given.name, {})[file] = entry
        print(file, {name: _cell(entry["figures"][OVER_ALL][name]) for name in FIGURES})
        if given.show:
            for outcome in (judge(by_rules, case) for case in load(file)):
                bad = {
                    name: counts for name, counts in outcome.counts.items() if _is_bad(name, counts)
                }
                if bad:
                    print("  ", outcome.id, bad)
    if given.write:
        kept.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (HERE / "written.md").write_text(as_markdown(results), encoding="utf-8")


def _is_bad(name: str, counts: tuple[int, int]) -> bool:
    wanted = 0 if name in ("false alarms", "unmarked") else counts[1]
    return counts[0] != wanted


if __name__ == "__main__":
    main()
