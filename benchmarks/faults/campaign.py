# mypy: ignore-errors
"""What becomes of a run that is struck: killed at every change of a file, on full and broken disks,
with each of its files damaged, by signals, a second writer, a jumping clock and a failing server.

Each fault strikes a run of its own; then the same command is given again, without a fault. Right is a
run folder that equals an undisturbed one to the byte, but for measured times and memory. An error is
one of ours, named; after it the damaged file is put back and the run resumed.

    python benchmarks/faults/campaign.py --write          # resumes where it was stopped
    python benchmarks/faults/campaign.py --sample 40      # a few of each kind
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from world import (
    CHANGES,
    WRITES,
    Outcome,
    World,
    _behaviors,
    calls_in,
    can_trace,
    differences,
    inject,
    state_of,
)

SEED = 0
FOLDER = Path(__file__).resolve().parent
KINDS = {
    "kill": "kill -9 before and after each change of a file",
    "full disk": "ENOSPC from each write on",
    "one ENOSPC": "ENOSPC at one write",
    "one EIO": "EIO at one write",
    "damaged, finished": "a file of a finished run is damaged, and the run resumed",
    "damaged, training": "a file of a run killed in training is damaged",
    "damaged, collected": "a file of a run killed after its answers came is damaged",
    "SIGTERM": "SIGTERM at changes of files over all stages",
    "SIGINT twice": "Ctrl-C, and again at the next change of a file",
    "two writers": "two processes start the same run",
    "clock": "the clock jumps by years, days or seconds, forward or back",
    "server": "the server of an expert fails, once, twice or for good",
}


@dataclass(frozen=True)
class Fault:
    """What happens to a run.

    Attributes:
        kind: One of `KINDS`.
        what: Which of its kind.
        where: The place: a call's number, a file, a request's number.
    """

    kind: str
    what: str
    where: str

    @property
    def name(self) -> str:
        """What identifies it in the log of findings."""
        return f"{self.kind} / {self.what} / {self.where}"


@dataclass(frozen=True)
class Finding:
    """What became of it.

    Attributes:
        fault: Its name.
        kind: Its kind.
        struck: `right`, `named error`, `stopped` by the signal; or, each of which is a defect,
            `foreign`, `silent`, `hung`.
        resumed: `right`; or `lost`, `foreign`, `hung`.
        message: The error, or in what the run differs.
        repeated: Requests that were made again.
        seconds: CPU time of both processes.
    """

    fault: str
    kind: str
    struck: str
    resumed: str
    message: str = ""
    repeated: int = 0
    seconds: float = 0.0

    @property
    def is_defect(self) -> bool:
        """Whether something has to be fixed."""
        return self.struck not in ("right", "named error", "stopped") or self.resumed != "right"


@dataclass
class Campaign:
    """Undisturbed runs, and the faults that follow from them.

    Attributes:
        world: Where runs are made.
        reference: An undisturbed run.
        expected: Its state.
        asked: How often its server was asked.
        snapshots: Runs that are damaged, by when they ended.
        changes: The system calls by which its main thread changes files, in order.
    """

    world: World
    reference: Path
    expected: dict[str, str]
    asked: int
    snapshots: dict[str, Path]
    changes: Sequence[str]

    # What strikes

    def faults(self) -> list[Fault]:
        """Returns every fault, in an order that mixes the kinds."""
        every = range(len(self.changes))
        writes = [place for place in every if self.changes[place] in WRITES]
        found = [Fault("kill", self.changes[place], f"{place}") for place in every]
        for kind in ("full disk", "one ENOSPC", "one EIO"):
            found += [Fault(kind, self.changes[place], f"{place}") for place in writes]
        for state, folder in self.snapshots.items():
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = path.relative_to(folder).as_posix()
                if not name.endswith("-shm") and name not in ("lock", "writer"):
                    found += [Fault(f"damaged, {state}", what, name) for what in DAMAGES]
        for kind in ("SIGTERM", "SIGINT twice"):
            found += [Fault(kind, self.changes[place], f"{place}") for place in every[:-1:8]]
        found += [Fault("two writers", f"{n * 40} ms apart", f"{n}") for n in range(12)]
        for jump in ("+10 years", "-10 years", "+1 day", "-1 hour", "-1 second"):
            found += [Fault("clock", jump, f"{n}") for n in (1, 5, 20, 60)]
        for kind in _behaviors():
            found += [Fault("server", kind, place) for place in ("0:1", "2:1", "3:2", "1:1000000")]
        random.Random(SEED).shuffle(found)
        # One of each kind in turn, so that a campaign that is stopped has struck in every way.
        by_kind = {kind: [fault for fault in found if fault.kind == kind] for kind in KINDS}
        rounds = zip_longest(*by_kind.values())
        return [fault for each in rounds for fault in each if fault is not None]

    # How it strikes

    def strike(self, fault: Fault) -> Finding:
        """Makes a run, strikes it, resumes it, and compares."""
        # A folder of its own, as runs side by side share a store of answers.
        name = f"{os.getpid()}-{time.monotonic_ns()}"
        run = self.world.folder / "runs" / name / name
        run.parent.mkdir(parents=True)
        try:
            restore: Callable[[], None] = lambda: None  # noqa: E731
            if fault.kind.startswith("damaged"):
                source = self.snapshots[fault.kind.removeprefix("damaged, ")]
                shutil.copytree(source, run)
                damaged, whole = run / fault.where, (source / fault.where).read_bytes()
                DAMAGES[fault.what](damaged)
                restore = partial(_put_back, damaged, whole)
                struck = self.world.distill(run)
            elif fault.kind == "two writers":
                struck = self._two_writers(run, int(fault.where) * 0.04)
            else:
                struck = self.world.distill(run, **self._options(fault))
            first, message = self._judge(struck, run, fault)
            if first == "named error":
                restore()
            resumed = self.world.distill(run)
            second, later = self._judge(resumed, run, fault, is_resumed=True)
            repeated = sum(self.world.requests(run).values()) - self.asked
            return Finding(
                fault.name,
                fault.kind,
                first,
                second,
                " | ".join(filter(None, (message, later))),
                repeated,
                round(struck.seconds + resumed.seconds, 2),
            )
        finally:
            shutil.rmtree(run.parent, ignore_errors=True)

    def _options(self, fault: Fault) -> dict[str, Any]:
        if fault.kind == "clock":
            return {"before": partial(_jump, fault.what, int(fault.where))}
        if fault.kind == "server":
            return {"server": f"{fault.what}:{fault.where}"}
        place = int(fault.where)
        call, number = fault.what, self._number(place)
        if fault.kind == "full disk":
            return {"strace": inject(self._from(place))}
        if fault.kind == "SIGINT twice":
            following, next_number = self.changes[place + 1], self._number(place + 1)
            when = f"{number}..{next_number}" if following == call else f"{number}"
            effects = {following: f"signal=INT:when={next_number}", call: f"signal=INT:when={when}"}
            return {"strace": inject(effects)}
        effect = {
            "kill": "signal=KILL",
            "SIGTERM": "signal=TERM",
            "one ENOSPC": "error=ENOSPC",
            "one EIO": "error=EIO",
        }[fault.kind]
        return {"strace": inject({call: f"{effect}:when={number}"})}

    def _number(self, place: int) -> int:
        """Returns how many calls of its kind there are up to a call."""
        return _number(self.changes, place)

    def _from(self, place: int) -> dict[str, str]:
        """Returns the effects that let every write from a call on find a full disk."""
        before = Counter(self.changes[:place])
        writes = {call for call in self.changes if call in WRITES}
        return {call: f"error=ENOSPC:when={before[call] + 1}+" for call in sorted(writes)}

    def _two_writers(self, run: Path, apart: float) -> Outcome:
        """Starts the run twice; one has to end it, and the other may be refused."""
        first = self.world.start(run)
        time.sleep(apart)
        second = self.world.start(
            run.with_name(run.name), errors=run.with_name(f"{run.name}.second")
        )
        outcomes = [self.world.finish(started, 60) for started in (first, second)]
        done = [outcome for outcome in outcomes if outcome.code == 0]
        others = [outcome for outcome in outcomes if outcome.code != 0]
        bad = [outcome for outcome in others if outcome.foreign or outcome.code != 1]
        if bad or not done:
            return (bad or others)[0]
        return done[0]

    def _judge(
        self, outcome: Outcome, run: Path, fault: Fault, *, is_resumed: bool = False
    ) -> tuple[str, str]:
        if outcome.code is None:
            return "hung", outcome.message
        if outcome.foreign:
            return "foreign", outcome.message
        if outcome.code == 0:
            found = differences(self.expected, state_of(run))
            # A file of the user's that lies in the run is no difference.
            return ("right", "") if not found else ("lost" if is_resumed else "silent", f"{found}")
        if is_resumed:
            return "lost", outcome.message
        stopping = {
            "kill": (-signal.SIGKILL,),
            "SIGTERM": (128 + signal.SIGTERM, -signal.SIGTERM),
            "SIGINT twice": (128 + signal.SIGINT, -signal.SIGINT),
        }
        if outcome.code in stopping.get(fault.kind, ()):
            return "stopped", ""
        if outcome.code == 1 and outcome.message.startswith("Error: "):
            return "named error", outcome.message
        return "foreign", f"exit code {outcome.code}: {outcome.message}"


def _put_back(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def _swap(path: Path) -> None:
    """Puts the next file of the folder, by name, in the place of this one."""
    others = sorted(each for each in path.parent.iterdir() if each.is_file())
    shutil.copyfile(others[(others.index(path) + 1) % len(others)], path.with_name("swapped"))
    path.with_name("swapped").replace(path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut in half": _cut,
    "emptied": _empty,
    "a bit flipped": _flip,
    "deleted": Path.unlink,
    "another file": _swap,
}


def _jump(what: str, after: int) -> None:
    """Lets the clock of this process jump after it was read a few times."""
    amount, unit = what.split()
    size = {"year": 31_557_600, "day": 86_400, "hour": 3_600, "second": 1}
    jump = float(amount) * size[unit.rstrip("s")]
    now, reads = time.time, [0]

    def read() -> float:
        reads[0] += 1
        return now() + (jump if reads[0] > after else 0)

    time.time = read
    time.time_ns = lambda: int(read() * 1e9)  # type: ignore[misc]

    from domainfusion.distillation import run

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(read(), tz)

    run.datetime = Jumping  # type: ignore[misc]


# The campaign


def prepare(world: World) -> Campaign:
    """Makes the undisturbed run, and those that are damaged."""
    world.build()
    world.warm()
    reference, trace = world.folder / "reference" / "run", world.folder / "trace"
    snapshots = {
        name: world.folder / f"snapshot-{name}" / name
        for name in ("finished", "training", "collected")
    }
    for folder in (reference, *snapshots.values()):
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir()
    outcome = world.distill(reference, strace=["-y", "-o", str(trace), "-e", f"trace={CHANGES}"])
    assert outcome.code == 0, outcome
    asked = sum(world.requests(reference).values())
    calls = list(calls_in(trace))
    threads = [call for call in calls if call.thread == calls[0].thread]
    places = {name: _first(threads, fits) for name, fits in MOMENTS.items()}
    changes = [call.name for call in threads]
    shutil.copytree(reference, snapshots["finished"])
    for name, place in places.items():
        killed = {changes[place]: f"signal=KILL:when={_number(changes, place)}"}
        outcome = world.distill(snapshots[name], strace=inject(killed))
        assert outcome.code == -signal.SIGKILL, outcome
    return Campaign(world, reference, state_of(reference), asked, snapshots, changes)


def _number(changes: Sequence[str], place: int) -> int:
    return Counter(changes[: place + 1])[changes[place]]


def _first(calls: Sequence[Any], fits: Callable[[Any], bool]) -> int:
    return next(number for number, call in enumerate(calls) if fits(call))


MOMENTS: dict[str, Callable[[Any], bool]] = {
    # The third checkpoint is begun: two are there.
    "training": lambda call: call.name == "mkdir" and "checkpoint-3" in call.paths[0],
    "collected": lambda call: ".records.jsonl.unfinished" in call.paths[0],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the published table")
    parser.add_argument("--folder", type=Path, default=Path("build/faults"))
    parser.add_argument("--only", help="a kind")
    parser.add_argument("--sample", type=int, help="so many of each kind at most")
    parser.add_argument("--part", default="0/1", help="K/N: every Nth fault, from the Kth on")
    parser.add_argument(
        "--table", nargs="*", type=Path, help="render these findings, and run nothing"
    )
    parser.add_argument("--minutes", type=float, default=600.0, help="then stop")
    options = parser.parse_args()
    if options.table:
        publish([finding for log in options.table for finding in _findings(log)], options.write)
        return
    if not can_trace():
        raise SystemExit("strace is not there, or not allowed to trace")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "findings.jsonl"
    done = {finding.fault: finding for finding in _findings(log)}
    until = time.monotonic() + 60 * options.minutes
    world = World(folder)
    try:
        campaign = prepare(world)
        faults, taken = [], Counter[str]()
        for fault in campaign.faults():
            taken[fault.kind] += 1
            if options.sample is None or taken[fault.kind] <= options.sample:
                faults.append(fault)
        part, parts = map(int, options.part.split("/"))
        for number, fault in enumerate(faults):
            if number % parts != part:
                continue
            if fault.name in done or (options.only and fault.kind != options.only):
                continue
            if time.monotonic() > until:
                break
            finding = campaign.strike(fault)
            done[finding.fault] = finding
            with log.open("a") as stream:
                stream.write(json.dumps(asdict(finding)) + "\n")
            if finding.is_defect or number % 50 == 0:
                print(number, len(faults), finding if finding.is_defect else "", flush=True)
    finally:
        world.close()
    publish(list(done.values()), options.write)


def publish(findings: Sequence[Finding], is_written: bool) -> None:
    """Prints the table of counts, and puts it in its place."""
    table = render(findings)
    print(table)
    if is_written:
        (FOLDER / "results.md").write_text(table)


def _findings(log: Path) -> Iterator[Finding]:
    if log.is_file():
        for line in log.read_text().splitlines():
            yield Finding(**json.loads(line))


def render(findings: Sequence[Finding]) -> str:
    """Returns the table of counts."""
    by_kind = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    columns = (
        "faults",
        "right at once",
        "named error",
        "stopped",
        "right after resuming",
        "lost",
        "silent",
        "foreign error",
        "hung",
    )
    lines = [f"| fault | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    total = Counter[str]()
    for kind, meaning in KINDS.items():
        counts = _counts(by_kind[kind])
        total.update(counts)
        lines.append(f"| {meaning} | {' | '.join(str(counts[name]) for name in columns)} |")
    lines.append(f"| **all** | {' | '.join(f'**{total[name]}**' for name in columns)} |")
    seconds = sum(finding.seconds for finding in findings)
    about = (
        f"Command: `python benchmarks/faults/campaign.py --write`; seed {SEED}; {datetime.now(UTC):%Y-%m-%d};"
        f" {platform.system()} {platform.machine()}, {os.cpu_count()} cores, one process at a time beside"
        f" other work; Python {platform.python_version()}. CPU time of the runs: {seconds / 60:.0f} minutes."
    )
    return "\n".join([INTRODUCTION, *lines, "", about, ""])


def _counts(findings: Sequence[Finding]) -> Counter[str]:
    counts = Counter[str]()
    for finding in findings:
        counts["faults"] += 1
        counts["right at once"] += finding.struck == "right"
        counts["named error"] += finding.struck == "named error"
        counts["stopped"] += finding.struck == "stopped"
        counts["silent"] += finding.struck == "silent"
        counts["right after resuming"] += finding.resumed == "right"
        counts["lost"] += finding.resumed == "lost"
        counts["foreign error"] += "foreign" in (finding.struck, finding.resumed)
        counts["hung"] += "hung" in (finding.struck, finding.resumed)
    return counts


INTRODUCTION = """# Faults

Each fault strikes a run of its own: a recipe with an expert behind a server on loopback, a LoRA expert and
a tiny Llama, from questions to the saved student and the report. strace makes the faults of system calls, so they
strike SQLite and safetensors as they strike Python. Then the same command is given again. *Right* is a run folder that
equals that of an undisturbed run to the byte, but for measured times, memory and costs; databases are compared by their rows.
A *named error* is one message of ours; after one for a damaged file, the file is put back. *Lost* is a run that the same
command can't end right; *silent* one that says that all is well and is not right; *foreign* a message
of another library, or a traceback.
"""


if __name__ == "__main__":
    main()
