"""How often the check of a model's answer is wrong, on answers that are made right or wrong from the cases of one half.

    python benchmarks/integration/measure_check.py --half development
    python benchmarks/integration/measure_check.py --half frozen --write

Only cases that some rule settles are used. The right answers, which the check has to take:

- merged: what the merge says.
- shuffled: its sentences in another order.
- other words: the sentences of every expert, but of those that state one thing alike the last one instead of the first; not in the
  near-misses, where one may say less than the other.

The wrong answers, which it has to refuse:

- left out: the merge without one of the sentences that state something, and something that no other one states.
- lost: the merge with the sentence that lost a conflict instead of the one that won.
- made up: the merge and a sentence of another case, about other facts.
- denied: the merge with one sentence denied, or no longer denied.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from measure import HALVES, HERE, SEED, commit_of_the_rules, load, path_of

from domainfusion.distillation.integration.checking import check_answer
from domainfusion.distillation.integration.claims import Claim, claims_of
from domainfusion.distillation.integration.merge import Merged, merge_claims
from domainfusion.distillation.statistics import Resampling
from domainfusion.types import Example, Part, Response

RIGHT = ("merged", "shuffled", "other words")
WRONG = ("left out", "lost", "made up", "denied")


def prepare(case: Mapping[str, Any]) -> tuple[Example, dict[str, Response], Merged]:
    example = Example(
        query=case["query"],
        domains=tuple(case["domains"]),
        primary_domain=case["primary_domain"],
        sub_questions=case["sub_questions"],
        parts=tuple(Part(domain=domain, answers=tuple(answers)) for domain, answers in case["parts"].items()),
        reference=case["reference"],
    )
    asked = {domain: case["sub_questions"].get(domain, case["query"]) for domain in case["responses"]}
    ordered = sorted(case["responses"].items(), key=lambda item: item[0] != case["primary_domain"])
    responses = {domain: Response(domain=domain, text=text, question=asked[domain]) for domain, text in ordered}
    return example, responses, merge_claims(example, responses)


def answers_to(merged: Merged, elsewhere: Sequence[str], draw: random.Random, is_partial: bool) -> Iterator[tuple[str, str]]:
    """Yields answers made from a merge, each with what was done to it."""
    kept = list(merged.kept)
    yield "merged", _text(kept)
    yield "shuffled", _text(draw.sample(kept, len(kept)))
    sides = [side for point in merged.points for side in point.sides]
    alike = {side[0]: side[-1] for side in sides if len(side) > 1 and side[0] in kept}
    if alike and not is_partial:
        yield "other words", _text([alike.get(claim, claim) for claim in kept])
    said_twice = {claim for side in sides if len({*side} & {*kept}) > 1 for claim in side}
    telling = [claim for claim in kept if claim.is_checkable and claim not in said_twice]
    if telling:
        gone = draw.choice(telling)
        yield "left out", _text([claim for claim in kept if claim is not gone])
        changed = draw.choice(telling)
        yield "denied", _text(kept).replace(changed.bare, _denied(changed))
    lost = {side[0]: other[0] for point in merged.points for side in point.sides for other in point.sides if side != other}
    if any(claim in lost for claim in kept):
        yield "lost", _text([lost.get(claim, claim) for claim in kept])
    yield "made up", f"{_text(kept)} {draw.choice(elsewhere)}"


def _text(claims: Sequence[Claim]) -> str:
    return " ".join(claim.bare for claim in claims)


def _denied(claim: Claim) -> str:
    if claim.denies:
        return re.sub(r"\b(?:not|never|no)\s|n't\b|(?<=can)not\b", "", claim.bare).replace("forbidden", "allowed")
    return re.sub(r"\b(is|are|was|were|can|may|should|has|have|does)\b", r"\1 not", claim.bare, count=1)


def measure(half: str) -> dict[str, Any]:
    cases, draw = load(half), random.Random(SEED)
    taken: dict[str, list[int]] = {name: [] for name in (*RIGHT, *WRONG)}
    templates: dict[str, list[str]] = {name: [] for name in (*RIGHT, *WRONG)}
    for case in cases:
        example, responses, merged = prepare(case)
        if any(conflict.kept is None for conflict in merged.integration.ledger.conflicts) or not merged.kept:
            continue
        facts = set(case["facts"])
        elsewhere = [other["right_answer"] for other in cases if other["kind"] == "agreement" and not facts & set(other["facts"])]
        said = [claim for domain, response in responses.items() for claim in claims_of(domain, response.text)]
        for name, text in answers_to(merged, elsewhere, draw, case["kind"] == "near_miss"):
            if name == "denied" and text == _text(merged.kept):
                continue
            taken[name].append(int(check_answer(text, example.query, said, merged).is_sound))
            templates[name].append(case["template"])
    figures = {}
    for name, outcomes in taken.items():
        if outcomes:
            estimate = Resampling(seed=SEED).over(templates[name]).mean(outcomes)
            figures[name] = {"taken": estimate.value, "low": estimate.low, "high": estimate.high, "counts": [sum(outcomes), len(outcomes)]}
    return {
        "command": f"python benchmarks/integration/measure_check.py --half {half} --write",
        "seed": SEED,
        "date": datetime.now(UTC).date().isoformat(),
        "cases_sha256": hashlib.sha256(path_of(half).read_bytes()).hexdigest(),
        "commit": commit_of_the_rules(),
        "figures": figures,
    }


def as_markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    halves = [half for half in HALVES if half in results]
    lines = [
        "# The check of a model's answer",
        "",
        "The share of answers that the check takes; `measure_check.py` says how they are made. 95 % intervals by a bootstrap over",
        "templates.",
        "",
        f"| answers | to be | {' | '.join(halves)} |",
        f"|---|---|{'---|' * len(halves)}",
    ]
    for name in (*RIGHT, *WRONG):
        cells = [_cell(results[half]["figures"].get(name)) for half in halves]
        lines.append(f"| {name} | {'taken' if name in RIGHT else 'refused'} | {' | '.join(cells)} |")
    for half in halves:
        entry = results[half]
        lines += ["", f"{half}: `{entry['command']}`, seed {entry['seed']}, {entry['date']}, rules of commit {entry['commit']}, "
                  f"cases {entry['cases_sha256'][:12]}."]
    return "\n".join(lines) + "\n"


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    interval = "" if figure["low"] is None else f" ({figure['low']:.3f}–{figure['high']:.3f})"
    return f"{figure['taken']:.3f}{interval}, {figure['counts'][0]} of {figure['counts'][1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the check of a model's answer is wrong.")
    parser.add_argument("--half", choices=HALVES, required=True)
    parser.add_argument("--write", action="store_true", help="file the results in check.json and check.md")
    options = parser.parse_args()
    results = {options.half: measure(options.half)}
    print(as_markdown(results))
    if options.write:
        path = HERE / "check.json"
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        stored |= results
        path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        (HERE / "check.md").write_text(as_markdown(stored), encoding="utf-8")


if __name__ == "__main__":
    main()
