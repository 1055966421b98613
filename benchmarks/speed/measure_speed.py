"""How fast training is beside TRL's `DistillationTrainer`: minutes from nothing but the experts to a
student that keeps 0.97 of every expert's accuracy on held-out questions; scoring stops the clock.

    python benchmarks/speed/measure_speed.py race
    python benchmarks/speed/measure_speed.py report --write   # replaces results.json and results.md
    beside this file

What is measured is kept in `--work` and not measured again; what is missing there, a report takes from results.json.

TRL comes with the extra `benchmarks`: `pip install -e ".[benchmarks]"`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import torch
from report import as_markdown
from setting import (
    MARK,
    Race,
    accuracy,
    experts,
    fastest_dtype,
)

from domainfusion.types import fingerprint

RACE: dict[str, Any] = {
    "limit": 10.0,
    "every": 10,
    "epochs": 2,
    "singles": 180,
    "phrasings": 2,
    "validation": 40,
    "seeds": (0, 1, 2),
    "dtype": fastest_dtype(),
}
SMALL_RACE: dict[str, Any] = RACE | {
    "limit": 0.2,
    "every": 1,
    "epochs": 1,
    "singles": 60,
    "validation": 4,
    "seeds": (0,),
}
CONTESTANTS = ("ours", "trl", "merge")


def kept(
    work: Path, name: str, settings: Mapping[str, Any], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Returns what is kept under `name` and these settings, or measures and keeps it."""
    path = work / "measured" / f"{name}-{fingerprint(dict(settings), length=8)}.json"
    if not path.is_file():
        print(f"{datetime.now(UTC):%H:%M} {name}", file=sys.stderr, flush=True)
        about = {
            "name": name,
            "settings": dict(settings),
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "by": circumstances(settings),
        }
        found = {**about, **measure()}
        shutil.rmtree(work / "runs", ignore_errors=True)  # checkpoints, which nobody reads again
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    return dict(found)


class Side:
    """One side as a process of its own."""

    def __init__(self, side: str, job: str, work: Path, threads: int, **settings: Any) -> None:
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(HERE / "measure_speed.py"),
            "side",
            "--work",
            str(work),
            "--threads",
            str(threads),
        ]
        given = json.dumps({"side": side, "job": job, **settings})
        self._log = (work / f"{side}-{job}.log").open("a", encoding="utf-8")
        self._process = subprocess.Popen(
            [*command, "--given", given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def hear(self) -> dict[str, Any]:
        """Waits for what the side has to tell."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return dict(json.loads(line.removeprefix(MARK)))
        raise SystemExit(f"A side ended without telling what it found; see {self._log.name}")


def run_side(given: dict[str, Any], work: Path, pipe: TextIO) -> None:
    """Does what one side has to do, inside of its own process."""
    side, job = given.pop("side"), given.pop("job")
    import ours

    if side == "trl":
        import trls
    module = trls if side == "trl" else ours
    folder = work / "runs" / fingerprint([side, job, given, os.getpid()], length=12)
    start = work / "start"
    if job == "start":
        ours.save_start(start)
    elif job == "race":
        questions = Race.build(
            given.pop("singles"), given.pop("phrasings"), given.pop("validation")
        )
        if side == "trl":
            given["start"] = start
        race = ours.race_of_merge if side == "merge" else module.race
        found = race(questions=questions, directory=folder, **given)
        print(f"{MARK}{json.dumps(found)}", file=pipe, flush=True)
    if job != "race":
        print(f"{MARK}{{}}", file=pipe, flush=True)


def ensure_start(work: Path, threads: int) -> None:
    """Writes the sum of the experts that both sides start from."""
    if not (work / "start" / "adapter_config.json").is_file():
        with Side("ours", "start", work, threads) as side:
            side.hear()


# Race


def measure_race(
    work: Path,
    threads: int,
    contestants: Sequence[str],
    rates: Mapping[str, Sequence[float]],
    settings: Mapping[str, Any],
) -> None:
    ensure_start(work, threads)
    shape, dtype = (
        {name: settings[name] for name in ("singles", "phrasings", "validation")},
        settings["dtype"],
    )

    def of_experts() -> dict[str, Any]:
        questions = Race.build(**shape).validation
        own = {
            domain: [one for one in questions if one.primary_domain == domain]
            for domain in experts(dtype)
        }
        return {
            "accuracy": {
                domain: accuracy(expert, own[domain])[domain]
                for domain, expert in experts(dtype).items()
            }
        }

    reached = kept(work, "experts", shape | {"threads": threads, "dtype": dtype}, of_experts)[
        "accuracy"
    ]
    scored = {"dtype": dtype, "limit": settings["limit"]}
    trained = {**scored, "every": settings["every"]}
    for seed in settings["seeds"]:
        for contestant in contestants:
            # Every rate on the first seed, and on the others the one that was fastest there.
            found = rates.get(contestant, (None,))
            tried = found if seed == settings["seeds"][0] else (fastest(work, contestant, found),)
            for rate in tried:
                given: dict[str, Any] = {**shape, **scored, "seed": seed}
                if contestant != "merge":
                    given |= {**trained, "rate": rate}
                if contestant == "ours":
                    given["epochs"] = settings["epochs"]

                def run(
                    contestant: str = contestant, given: dict[str, Any] = given
                ) -> dict[str, Any]:
                    with Side(
                        contestant, "race", work, threads, **given, of_experts=reached
                    ) as process:
                        return process.hear()

                kept(
                    work,
                    name_of(contestant, rate, seed),
                    given | {"contestant": contestant, "threads": threads},
                    run,
                )


def name_of(contestant: str, rate: float | None, seed: int) -> str:
    """Returns what one run of the race is called."""
    return f"race-{contestant}{'' if rate is None else f'-{rate:g}'}-seed-{seed}"


def fastest(work: Path, contestant: str, rates: Sequence[float | None]) -> float | None:
    """Returns the rate that came first to the goal on the first seed, or nearest to it."""
    measured = results_of(work)["measured"]

    def place(rate: float | None) -> tuple[float, float]:
        found = measured[name_of(contestant, rate, RACE["seeds"][0])]
        reached = found["minutes_to_goal"]
        return (float("inf") if reached is None else reached, -min(found["best"]["der"].values()))

    return min(rates, key=place)


# Results


def results_of(work: Path) -> dict[str, Any]:
    """Returns everything that is kept or committed; of what was measured several times, the
    newest.
    """
    path = HERE / "results.json"
    known = (
        list(json.loads(path.read_text(encoding="utf-8"))["measured"].values())
        if path.is_file()
        else []
    )
    files = sorted((work / "measured").glob("*.json"), key=lambda path: path.stat().st_mtime)
    known += [json.loads(path.read_text(encoding="utf-8")) for path in files]
    # What is committed may be of a race without seeds, which had other contestants.
    known = [one for one in known if one["name"] == "experts" or "seed" in one["settings"]]
    measured = {
        found["name"]: found for found in sorted(known, key=lambda found: str(found["date"]))
    }
    return {
        "command": "python benchmarks/speed/measure_speed.py race|report",
        "measured": measured,
    }


def circumstances(settings: Mapping[str, Any]) -> str:
    """Returns the machine and the versions that something is measured with."""
    machine = (
        f"{settings['threads']} of {os.cpu_count()} cores ({processor()}, {platform.system()}"
        f" {platform.machine()}, no GPU)"
    )
    versions = [
        f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl", "accelerate")
    ]
    return ", ".join([machine, f"Python {platform.python_version()}", *versions])


def processor() -> str:
    """Returns the processor's maker and line."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if "model name" in line
    ]
    return names[0] if names else "unknown processor"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="How fast training is beside TRL's DistillationTrainer."
    )
    parser.add_argument("part", choices=("race", "report", "side"))
    parser.add_argument(
        "--work", type=Path, default=Path("runs/speed"), help="where everything is kept"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--small",
        action="store_true",
        help="a slice of it, to see that everything runs; its figures mean nothing",
    )
    parser.add_argument("--write", action="store_true", help="write the results beside this file")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help=f"what both sides compute in; by default {fastest_dtype()}",
    )
    race = parser.add_argument_group("race")
    race.add_argument("--contestant", nargs="*", choices=CONTESTANTS)
    race.add_argument(
        "--limit-minutes", type=float, dest="limit", help=f"by default {RACE['limit']:g}"
    )
    race.add_argument("--our-rates", type=float, nargs="*", default=[5e-4, 1e-3])
    race.add_argument("--trl-rates", type=float, nargs="*", default=[3e-4, 1e-3])
    for name in ("every", "epochs", "singles", "phrasings", "validation"):
        race.add_argument(f"--{name}", type=int, help=f"by default {RACE[name]}")
    parser.add_argument("--given", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)

    def settings(usual: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
        given = {name: vars(options).get(name) for name in usual}
        given = {name: found for name, found in given.items() if found is not None}
        return (small if options.small else usual) | given

    if options.part == "side":
        pipe, sys.stdout = (
            sys.stdout,
            sys.stderr,
        )  # what libraries print is not for who started this
        run_side(json.loads(options.given), options.work, pipe)
        return
    if options.part == "race":
        contestants = options.contestant or CONTESTANTS
        rates = {
            "ours": options.our_rates,
            "trl": options.trl_rates[:1] if options.small else options.trl_rates,
        }
        measure_race(options.work, options.threads, contestants, rates, settings(RACE, SMALL_RACE))
    results = results_of(options.work)
    text = as_markdown(results)
    print(text)
    if options.write:
        (HERE / "results.md").write_text(text, encoding="utf-8")
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
