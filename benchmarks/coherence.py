"""What the coherence metrics see: AUROC on sound texts against corrupted ones, on texts that they were not made on.

The texts are those of `src/domainfusion/distillation/metrics/passages`: the metrics were made on the development half; figures are of the
held-out half, which is of other fields and was committed before them. The reference model is the demo's base, SmolLM2-135M-Instruct in
bfloat16. Each passage is shuffled, contradicted (by a sentence written for it in other words; by one of its own sentences with a number
changed or denied), looped, truncated, and cut in half and concatenated with half of another; seed 0.

    python benchmarks/coherence.py --write

writes `coherence.json` and `coherence.md` beside this file, and the same figures into the package, where reports look them up. Without
`--write` it prints. `--surface-only` leaves the model out.
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

from domainfusion.demo.base import base_folder
from domainfusion.distillation.metrics import ModelCoherence, read_passages, surface_coherence, validate_coherence
from domainfusion.distillation.results import CoherenceValidation
from domainfusion.models import LlamaModel
from domainfusion.records import write_text

HERE = Path(__file__).parent
MEASURED = HERE.parent / "src" / "domainfusion" / "distillation" / "metrics" / "passages" / "measured.json"
COMMAND = "python benchmarks/coherence.py --write"
REFERENCE = "SmolLM2-135M-Instruct"


def measure(*, surface_only: bool) -> dict[str, CoherenceValidation]:
    found = {
        "surface, development half": validate_coherence(surface_coherence, read_passages("development"), command=COMMAND),
        "surface": validate_coherence(surface_coherence, command=COMMAND),
    }
    if not surface_only:
        model = LlamaModel(base_folder(), name=REFERENCE, dtype="bfloat16", batch_size=16)
        found["model"] = validate_coherence(ModelCoherence(model), command=COMMAND)
    return found


def render(found: dict[str, CoherenceValidation], about: dict[str, Any]) -> str:
    names = list(found["surface"].auroc)
    rows = [f"| corruption | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    rows += [f"| {name} | {' | '.join(str(one.auroc[name]) for one in found.values())} |" for name in names]
    verdicts = [f"- `{one.metric}` is {one}." for key, one in found.items() if "development" not in key]
    return "\n".join(
        [
            "# What the coherence metrics see",
            "",
            "AUROC with 95 % intervals (bootstrap over passages, 10,000 resamples): the chance that a sound text is graded above a",
            "corrupted one. 0.90 is aimed at, 0.50 is chance.",
            "",
            *rows,
            "",
            *verdicts,
            "",
            "*contradicted* adds a sentence that was written to contradict the passage in other words; *contradicted in the same words*",
            "repeats a sentence with a number changed, or denied. Both are seen as sentences that go over the same ground: one that says",
            "an earlier one again in other words, and agrees with it, would cost as much. Neither metric understands what is said.",
            "*concatenated* is the first half of a passage with the second half of one of another field. All numbers in the formulas come",
            "from the development passages, and the model's figures on those are left out.",
            "",
            f"{found['surface'].texts} held-out passages; seed {found['surface'].seed}.",
            f"{about['date']}; {about['machine']}; {about['versions']}.",
            f"`{COMMAND}`",
            "",
        ]
    )


def describe_run() -> dict[str, Any]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
    cores = f"{len(os.sched_getaffinity(0))} cores" if hasattr(os, "sched_getaffinity") else f"{os.cpu_count()} cores"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": COMMAND,
        "machine": f"{platform.system()} on {platform.machine()}, {cores}, {os.environ.get('OMP_NUM_THREADS', 'all')} used",
        "versions": f"Python {platform.python_version()}, {packages}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    parser.add_argument("--surface-only", action="store_true", help="leave the model out")
    arguments = parser.parse_args()
    if arguments.write and arguments.surface_only:
        parser.error("--write keeps all results: leave out --surface-only")
    about, found = describe_run(), measure(surface_only=arguments.surface_only)
    text = render(found, about)
    print(text)
    if arguments.write:
        plain = {name: asdict(one) for name, one in found.items()}
        write_text(HERE / "coherence.json", json.dumps({**about, "results": plain}, indent=1, ensure_ascii=False) + "\n")
        write_text(HERE / "coherence.md", text)
        shipped = [plain[name] for name in found if "development" not in name]
        write_text(MEASURED, json.dumps(shipped, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
