"""Builds the cases that measure `ResponseIntegrator`'s rules: `development.jsonl` and
`frozen.jsonl`, seed 0, always the same.

    python benchmarks/integration/build_cases.py

Both halves follow the same laws and share neither facts nor words: `development_half.py` may be
read while rules are written, `frozen_half.py` may not. One case a line:

- `id`, `kind`; `template`: kind, variant and relation, the cluster of the bootstrap; `facts`: the
  facts it is made of.
- `query`, `domains`, `primary_domain`, `responses` (domain to text), `sub_questions` (domain to the
  part of the query that its expert was asked; empty where all were asked the query), `reference` (a
  right answer in words, or null), `parts` (accepted answers by domain: a reference of the other
  sort).
- `asks`: the domain that the disputed point belongs to; null where nothing is disputed or no expert
  is of that domain. It is either the `primary_domain` or the domain whose `sub_questions` entry
  asks for the point.
- `copies`: groups of domains whose responses are copies of each other. The integrator is not told.
- `order`: `{domain, text}` of an instruction that was planted in a response, or null.
- `conflicts`: the disputed points. `sides` are two groups of claims, `{domain: sentence}` each;
  `kept` is a domain whose side stands, or null where the experts are to be reported to disagree;
  `winning` and `losing` are the spellings of the value that has to stand in the answer, and of the
  one that must not.
- `covered`: `{domain, spellings}` of everything that a good answer states, one spelling of each.
- `right_answer`: an answer that is right.

What decides a conflict, in this order: the reference, where it supports one side; the expert of the
domain that the point belongs to, if he states it; the majority of the experts, copies counted once;
nothing, and the experts disagree. Two values are the same if one is the other in another unit or
format, rounded to all but its last digit, or a less precise date that agrees.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from development_half import DEVELOPMENT
from frozen_half import FROZEN
from half import Half
from kinds import KINDS
from laws import broken_laws
from writing import Case, Writer

HERE = Path(__file__).parent
HALVES = (DEVELOPMENT, FROZEN)


def build(half: Half) -> list[Case]:
    """Builds the cases of a half; what is ambiguous by chance is drawn again."""
    return [case for kind in KINDS for case in _cases_of(half, kind)]


def _cases_of(half: Half, kind: str) -> Iterator[Case]:
    writer = Writer(half, kind)
    make, number = KINDS[kind]
    seen: set[str] = set()
    for index in range(number):
        for _ in range(100):
            case = make(writer, index)
            case.id, case.kind, case.domains = (
                f"{half.name}-{kind}-{index:02}",
                kind,
                list(case.responses),
            )
            case.template = f"{half.name}/{kind}/{case.template}"
            if not broken_laws(case) and str(case.responses) not in seen:
                break
        else:
            raise RuntimeError(f"no sound case in 100 draws: {case}: {broken_laws(case)}")
        seen.add(str(case.responses))
        yield case


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Builds the cases that measure ResponseIntegrator's rules."
    )
    parser.add_argument(
        "--out", type=Path, default=HERE, help="the folder that they are written to"
    )
    options = parser.parse_args()
    for half in HALVES:
        lines = [json.dumps(asdict(case), ensure_ascii=False) for case in build(half)]
        (options.out / f"{half.name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
