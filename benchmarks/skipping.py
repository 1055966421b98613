"""What skipping known records saves and costs, and what a kept merge does: the demo's training with
each, over seeds.

The records are the demo's, made once; a seed decides the order of training and what is replayed.
Every student starts from the RegMean merge of the demo's experts and is measured on the demo's test
set: per cent of questions answered right in every part. The experts answer all of their domains'
test questions right, so a domain's figure is its DER. CPU seconds are those of training, with
reading what the start knows.

    python benchmarks/skipping.py RUN --seeds 0 1 2 --write

makes the demo's records in the folder RUN, or takes those that are there, and writes
`skipping.json` and `skipping.md` beside this file. With `--only NAME`, one setting is measured and
added to what is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from domainfusion.demo.run import ANSWER, DEMO, build_demo
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.metrics import stated_parts
from domainfusion.distillation.trainer import IntegrationTrainer
from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.records import read_records
from domainfusion.types import Example, TrainingRecord

HERE = Path(__file__).parent
SETTINGS: dict[str, dict[str, Any]] = {
    "start (no training)": {},
    "the demo: known records skipped, merge kept": {},
    "no record skipped": {"known_share": 1.0},
    "merge trained": {"keep_merge": False},
}
"""What differs from the demo's settings."""


def main() -> None:
    """Measures, and prints or writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run of the demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=list(SETTINGS), help="one setting")
    parser.add_argument("--write", action="store_true", help="add to the committed results")
    options = parser.parse_args()
    distiller = build_demo(options.run)
    with distiller.hold():
        records = distiller.integrate(distiller.collect(distiller.generate()))
    test = read_records(options.run / "test_examples.jsonl", Example)
    for name in [options.only] if options.only else list(SETTINGS):
        for seed in options.seeds[:1] if name.startswith("start") else options.seeds:
            row = measure(name, seed, distiller, records, test)
            print(json.dumps(row), flush=True)
            if options.write:
                write(row)


def measure(
    name: str,
    seed: int,
    distiller: Any,
    records: Sequence[TrainingRecord],
    test: Sequence[Example],
) -> dict[str, Any]:
    """Trains with a setting and a seed, and returns what the student scores."""
    trainer = IntegrationTrainer(**{**DEMO, **SETTINGS[name]})
    teachers = distiller.teacher_models
    started = time.process_time()
    student: TrainableModel
    if name.startswith("start"):
        student, _ = trainer.adapt(distiller.student_model, teachers, records)
    else:
        student = trainer.train(distiller.student_model, records, teachers=teachers, seed=seed)
    seconds = time.process_time() - started
    return {
        "setting": name,
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
        "scores": score(student, test),
    }


def score(model: LanguageModel, examples: Sequence[Example]) -> dict[str, float]:
    """Returns the share of questions of each slice of which every part is answered right."""
    answers = model.generate([example.conversation for example in examples], ANSWER)
    grades: dict[str, list[bool]] = {}
    for example, answer in zip(examples, answers, strict=True):
        value = stated_parts(example, answer.text).value
        grades.setdefault(slice_of(example), []).append(value == 1)
    return {name: round(mean(own), 4) for name, own in grades.items()}


def write(row: dict[str, Any]) -> None:
    """Adds a row to the results, or puts it in place of one of its setting and seed, and writes
    them as data and as a table.
    """
    path = HERE / "skipping.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    same = ("setting", "seed")
    rows = [old for old in rows if [old[name] for name in same] != [row[name] for name in same]]
    rows.append(row)
    rows.sort(key=lambda own: (list(SETTINGS).index(own["setting"]), own["seed"]))
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": (
            f"{os.cpu_count()} cores ({platform.system()} {platform.machine()}), beside other work,"
            f" {torch.get_num_threads()} threads,"
            f" {'bfloat16 units' if torch.cpu._is_avx512_bf16_supported() else 'no bfloat16 units'}"
        ),
        "torch": torch.__version__,
        "command": "python benchmarks/skipping.py RUN --write",
        "rows": rows,
    }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (HERE / "skipping.md").write_text(table(result), encoding="utf-8")


def table(result: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    names = list(result["rows"][0]["scores"])
    lines = [
        "# Training only what is missing",
        "",
        *(__doc__ or "").split("\n\n", 2)[1].splitlines(),
        "",
        (
            f"{result['date']}, {result['machine']}, torch {result['torch']}; made by"
            f" `{result['command']}`. Of several seeds: mean (lowest–highest)."
        ),
        "",
        "| setting | seeds | " + " | ".join(names) + " | CPU s |",
        "|---|---|" + "---:|" * (len(names) + 1),
    ]
    for setting in dict.fromkeys(row["setting"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["setting"] == setting]
        seeds = ", ".join(str(row["seed"]) for row in own)
        cells = [figure([100 * row["scores"][name] for row in own], 1) for name in names]
        seconds = figure([row["cpu_seconds"] for row in own], 0)
        lines.append(f"| {setting} | {seeds} | " + " | ".join(cells) + f" | {seconds} |")
    return "\n".join(lines) + "\n"


def figure(values: Sequence[float], digits: int) -> str:
    """Returns a cell: a mean, with its spread where there are several."""
    spread = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main()
