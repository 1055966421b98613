"""What the coherence metrics see: AUROC on sound texts against corrupted ones, on texts that they
were not made on.

The texts are those of `src/domainfusion/distillation/metrics/passages`: the metrics were made on
the development half; figures are of the held-out half, which is of other fields and was committed
before them. The reference model is the demo's base, SmolLM2-135M-Instruct in bfloat16. Each passage
is shuffled, contradicted (by a sentence written for it in other words; by one of its own sentences
with a number changed or denied), looped, truncated, and cut in half and concatenated with half of
another; seed 0.

    python benchmarks/coherence.py --write

writes `coherence.json` and `coherence.md` beside this file, and the same figures into the package,
where reports look them up. Without `--write` it prints. `--rules-only` measures the rules anew and
keeps the model's figures, whose day stands beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from domainfusion.demo.world import base_folder
from domainfusion.distillation.evaluator import consistency
from domainfusion.distillation.metrics import ModelCoherence, read_passages, validate_coherence
from domainfusion.distillation.results import CoherenceValidation
from domainfusion.models import LlamaModel
from domainfusion.records import write_text

HERE = Path(__file__).parent
MEASURED = (
    HERE.parent / "src" / "domainfusion" / "distillation" / "metrics" / "passages" / "measured.json"
)
COMMAND = "python benchmarks/coherence.py --write"
REFERENCE = "SmolLM2-135M-Instruct"


def measure(*, rules_only: bool) -> dict[str, CoherenceValidation]:
    found = {
        "rules, development half": validate_coherence(
            consistency, read_passages("development"), command=COMMAND
        ),
        "rules": validate_coherence(consistency, command=COMMAND),
    }
    if rules_only:
        kept = json.loads((HERE / "coherence.json").read_text(encoding="utf-8"))["results"]["model"]
        found["model"] = TypeAdapter(CoherenceValidation).validate_python(kept)
    else:
        model = LlamaModel(base_folder(), name=REFERENCE, dtype="bfloat16", batch_size=16)
        found["model"] = validate_coherence(ModelCoherence(model), command=COMMAND)
    return found


def render(found: dict[str, CoherenceValidation], about: dict[str, Any]) -> str:
    names = list(found["rules"].auroc)
    rows = [f"| corruption | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    rows += [
        f"| {name} | {' | '.join(str(one.auroc[name]) for one in found.values())} |"
        for name in names
    ]
    verdicts = [
        f"- `{one.metric}`, measured on {one.date}, is {one}."
        for key, one in found.items()
        if "development" not in key
    ]
    return "\n".join(
        [
            "# What the coherence metrics see",
            "",
            (
                "AUROC with 95 % intervals (bootstrap over passages, 10,000 resamples): the chance"
                " that a sound text is graded above a"
            ),
            "corrupted one. 0.90 is aimed at, 0.50 is chance.",
            "",
            *rows,
            "",
            *verdicts,
            "",
            (
                "*contradicted* adds a sentence that was written to contradict the passage in other"
                " words; *contradicted in the same"
            ),
            (
                "words* repeats a sentence with a number changed, or denied. *rules* is the default"
                " metric, `consistency`: the share of"
            ),
            (
                "sentences that no other one contradicts, by the rules of integration. It is meant"
                " to see contradictions alone, and sees"
            ),
            (
                "only those in the same words; so it has no weight in the overall score. *model*"
                " sees sentences that go over the same"
            ),
            (
                "ground, and knows not what is said: one that says an earlier one again in other"
                " words, and agrees with it, would cost as"
            ),
            (
                "much. It grades texts of three sentences or more. *concatenated* is the first half"
                " of a passage with the second half of"
            ),
            (
                "one of another field. All numbers in its formula come from the development"
                " passages; its figures on those are left out."
            ),
            *(
                [
                    "Figures of 2026-11-24 still grade texts of two sentences, as 21 of the 81"
                    " looped ones are; no other corruption has such."
                ]
                if any(one.date == "2026-11-24" for one in found.values())
                else []
            ),
            "",
            f"{found['rules'].texts} held-out passages; seed {found['rules'].seed}.",
            f"{about['date']}; {about['machine']}; {about['versions']}.",
            f"`{COMMAND}`",
            "",
        ]
    )


def describe_run() -> dict[str, Any]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
    cores = (
        f"{len(os.sched_getaffinity(0))} cores"
        if hasattr(os, "sched_getaffinity")
        else f"{os.cpu_count()} cores"
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": COMMAND,
        "machine": (
            f"{platform.system()} on {platform.machine()}, {cores},"
            f" {os.environ.get('OMP_NUM_THREADS', 'all')} used"
        ),
        "versions": f"Python {platform.python_version()}, {packages}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    parser.add_argument(
        "--rules-only",
        action="store_true",
        help="measure the rules anew and keep the model's figures",
    )
    arguments = parser.parse_args()
    about, found = describe_run(), measure(rules_only=arguments.rules_only)
    text = render(found, about)
    print(text)
    if arguments.write:
        plain = {name: asdict(one) for name, one in found.items()}
        write_text(
            HERE / "coherence.json",
            json.dumps({**about, "results": plain}, indent=1, ensure_ascii=False) + "\n",
        )
        write_text(HERE / "coherence.md", text)
        shipped = [plain[name] for name in found if "development" not in name]
        write_text(MEASURED, json.dumps(shipped, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
