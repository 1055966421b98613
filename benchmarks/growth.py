"""How time, memory and files grow with the number of examples, with scripted experts, so that all of
it is the library's own: near-duplicates and contamination of questions made by one template; the
stages of a run up to its report, and the report in a browser; the store of answers; domains.

CPU seconds of a process of its own for each measurement, with its peak memory; a second measurement
in the same table, four times as many examples or more, says whether a step is linear.

    python benchmarks/growth.py --write            # all sizes
    python benchmarks/growth.py --only run --sizes 1000
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domainfusion.distillation import Distiller, IntegrationTrainer, RunSettings
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.duplicates import Duplicates, EvaluationSets, hold_apart
from domainfusion.distillation.evaluator import DomainRetentionEvaluator
from domainfusion.models import LlamaModel, ResponseStore, ScriptedModel
from domainfusion.records import write_text
from domainfusion.types import Example, Part, Sampling, user

HERE = Path(__file__).parent
COMMAND = "python benchmarks/growth.py --write"
SEED = 0
SIZES = {
    "duplicates": (1_000, 5_000, 10_000, 50_000, 100_000),
    "contamination": (1_000, 5_000, 10_000, 50_000, 100_000),
    "run": (1_000, 5_000, 10_000, 100_000),
    "domains": (2, 5, 20),
    "store": (10_000, 100_000, 1_000_000),
}
"""Examples; of `domains` the domains of a run with 1,000 examples, of `store` answers."""
SYLLABLES = ("ka", "ro", "mi", "ten", "sul", "var", "pel", "on", "dri", "esk")
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def word(number: int) -> str:
    """Returns a made-up name; no two numbers have the same."""
    made = ""
    while True:
        number, rest = divmod(number, len(SYLLABLES))
        made = SYLLABLES[rest] + made
        if not number:
            return made


def questions(count: int, domains: int = 2, *, first: int = 0) -> Iterator[Example]:
    """Yields questions that one template makes; every tenth is about two domains."""
    draw = random.Random(SEED + first)
    for number in range(first, first + count):
        thing, place = word(number), word(draw.randrange(1_000))
        own = f"field{number % domains}"
        text = (
            f"How much {thing} does a worker near {place} need for a day at {number % 97} degrees?"
        )
        crossing = number % 10 == 0 and domains > 1
        other = f"field{(number + 1) % domains}"
        parts = [Part(domain=own, answers=(f"{number % 89} grams",))]
        if crossing:
            text = f"{text} And what does {word(number + 7)} cost there?"
            parts.append(Part(domain=other, answers=(f"{number % 83} coins",)))
        yield Example(
            query=text,
            domains=(own, other) if crossing else (own,),
            parts=tuple(parts),
        )


def answer(question: str) -> str:
    """Returns an answer of four sentences, with figures that differ between questions."""
    number = sum(map(ord, question))
    return (
        f"A worker there needs {number % 89} grams for a day. It is taken with {number % 7 + 2} cups"
        f" of water in the morning. In winter, {number % 13} grams less are enough. It costs"
        f" {number % 83} coins on most markets."
    )


def measure_duplicates(count: int, folder: Path, note: Callable[..., None]) -> None:
    """Finds each question among those before it, and remembers it."""
    asked = list(questions(count))
    with timed(note, "find and add"):
        seen, alike = Duplicates(), 0
        for example in asked:
            alike += seen.find(example) is not None
            seen.add(example)
    note("near-duplicates", alike)


def measure_contamination(count: int, folder: Path, note: Callable[..., None]) -> None:
    """Looks for a tenth as many test questions in the training questions, before training and, with
    what was asked in other words, before evaluation.
    """
    test = list(questions(count // 10, first=10**6))
    trained = [*questions(count - 5), *test[:5]]
    with timed(note, "find leaks"):
        index = EvaluationSets({"test": test})
        leaks = sum(index.find(example) is not None for example in trained)
    with timed(note, "hold apart"):
        kept = hold_apart(test, trained, "report")
    note("leaks", leaks)
    note("kept", len(kept.examples))


def measure_run(count: int, folder: Path, note: Callable[..., None], domains: int = 2) -> None:
    """Goes through the stages of a run: its test set is a tenth of the examples."""
    names = [f"field{number}" for number in range(domains)]
    test = list(questions(count // 10, domains, first=10**6))
    distiller = Distiller(
        LlamaModel(str(_base(folder))),
        {name: ScriptedModel(answer, name=name) for name in names},
        [CuratedDataGenerator(list(questions(count, domains)))],
        IntegrationTrainer(),
        seed=SEED,
        output_dir=folder / "run",
        test_examples=test,
        settings=RunSettings(answers="off"),
        evaluator=DomainRetentionEvaluator(
            on_overlap="report",
            sampling=Sampling(max_new_tokens=1),  # the base is asked too, and scripts ignore it
        ),
    )
    with timed(note, "generate"):
        examples = distiller.generate()
    with timed(note, "collect"):
        collected = distiller.collect(examples)
    with timed(note, "integrate"):
        records = distiller.integrate(collected)
    note("examples", len(examples))
    note("records", len(records))
    student = ScriptedModel(lambda text: answer(text)[:90], name="student")
    with timed(note, "evaluate and report"):
        distiller.evaluate(student)  # type: ignore[arg-type]
    for name in ("records.jsonl", "responses.sqlite", "evaluation.json", "report.html"):
        note(f"{name}, MB", round((folder / "run" / name).stat().st_size / 1e6, 2))
    note("report in Chromium, s", opened(folder / "run" / "report.html"))


def opened(page: Path) -> float:
    """Returns the CPU seconds that Chromium's main thread takes to parse, lay out and show a page."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab = browser.new_page()
        session = tab.context.new_cdp_session(tab)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        tab.goto(page.as_uri(), timeout=600_000)
        tab.screenshot(timeout=600_000)  # waits for what is shown first
        metrics = session.send("Performance.getMetrics")["metrics"]
        browser.close()
    return round(next(each["value"] for each in metrics if each["name"] == "TaskDuration"), 2)


def measure_domains(count: int, folder: Path, note: Callable[..., None]) -> None:
    """A run of 1,000 examples with so many domains."""
    measure_run(1_000, folder, note, domains=count)


def measure_store(count: int, folder: Path, note: Callable[..., None]) -> None:
    """Writes so many answers, and reads them again."""
    path = folder / "responses.sqlite"
    asked = [user(f"What is {word(number)}?") for number in range(count)]
    with ResponseStore(path) as store:
        with timed(note, "write"):
            store.ask(ScriptedModel(answer, name="expert"), asked)
        with timed(note, "read"):
            store.ask(ScriptedModel(answer, name="expert"), asked)
        with timed(note, "usage"):
            store.usage()
        note("answers", len(store))
    note("file, MB", round(path.stat().st_size / 1e6, 1))


MEASURES: dict[str, Callable[[int, Path, Callable[..., None]], None]] = {
    "duplicates": measure_duplicates,
    "contamination": measure_contamination,
    "run": measure_run,
    "domains": measure_domains,
    "store": measure_store,
}


def _base(folder: Path) -> Path:
    """Writes a tiny Llama, which a run names and none of these stages asks."""
    sys.path.append(str(HERE.parent / "tests"))
    from conftest import write_llama

    return write_llama(folder / "base", num_hidden_layers=1)


@contextmanager
def timed(note: Callable[..., None], name: str) -> Iterator[None]:
    """Notes the CPU seconds of a block."""
    before = time.process_time()
    yield
    note(f"{name}, s", round(time.process_time() - before, 2))


def one(name: str, size: int) -> None:
    """Measures one size in this process, and prints what was found."""
    found: dict[str, Any] = {"measure": name, "size": size}
    with tempfile.TemporaryDirectory() as folder:
        MEASURES[name](size, Path(folder), found.__setitem__)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["peak memory, MB"] = round(peak / 1e6)
    print(json.dumps(found), flush=True)


def measured(name: str, size: int) -> dict[str, Any]:
    """Measures one size in a process of its own."""
    command = [sys.executable, __file__, "--one", name, str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def render(results: dict[str, Any]) -> str:
    """Returns the tables."""
    lines = ["# Growth", "", (__doc__ or "").split("\n\n    ")[0], ""]
    for name in MEASURES:
        rows = [row for row in results["rows"] if row["measure"] == name]
        if not rows:
            continue
        columns = [column for column in rows[0] if column not in ("measure", "size")]
        lines += [f"## {name}", "", inspect.getdoc(MEASURES[name]) or "", ""]
        size = {"domains": "domains", "store": "answers asked"}.get(name, "examples given")
        lines += [f"| {size} | {' | '.join(columns)} |", f"|---:|{'---:|' * len(columns)}"]
        for row in rows:
            cells = " | ".join(f"{row.get(column, '')}" for column in columns)
            lines.append(f"| {row['size']:,} | {cells} |")
        lines.append("")
    lines += [results["about"], ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the published results")
    parser.add_argument("--only", choices=MEASURES)
    parser.add_argument("--sizes", type=int, nargs="*")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], int(options.one[1]))
        return
    file, rows = HERE / "growth.json", []
    for name in [options.only] if options.only else MEASURES:
        for size in options.sizes or SIZES[name]:
            rows.append(measured(name, size))
            print(json.dumps(rows[-1]), flush=True)
    if options.write:
        before = json.loads(file.read_text())["rows"] if file.is_file() else []
        new = {(row["measure"], row["size"]) for row in rows}
        rows += [row for row in before if (row["measure"], row["size"]) not in new]
        rows.sort(key=lambda row: (list(MEASURES).index(row["measure"]), row["size"]))
        about = (
            f"Command: `{COMMAND}`; seed {SEED}; {datetime.now(UTC):%Y-%m-%d}; {platform.system()}"
            f" {platform.machine()}, one of {os.cpu_count()} cores, beside other work; Python"
            f" {platform.python_version()}."
        )
        results = {"about": about, "rows": rows}
        write_text(file, json.dumps(results, indent=1) + "\n")
        write_text(HERE / "growth.md", render(results))


if __name__ == "__main__":
    main()
