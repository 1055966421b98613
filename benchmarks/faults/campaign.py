# mypy: ignore-errors
"""What becomes of a run that is struck: killed at every change of a file, on full and broken disks,
with each of its files damaged, by signals, a second writer, a jumping clock and a failing server.

Each fault strikes a run of its own; then the same command is given again, without a fault. Right is a
run folder that equals an undisturbed one to the byte, but for measured times and memory. An error is
one of ours, named; after it the damaged file is put back and the run resumed.

    python benchmarks/faults/campaign.py --write          # resumes where it was stopped
    python benchmarks/faults/campaign.py --share 0.1      # a tenth of each kind
    python benchmarks/faults/campaign.py --fault "kill / rename model / 811"
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import random
import re
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from world import (
    CAN_FAIL,
    Change,
    Outcome,
    Strike,
    World,
    changes_in,
    load_strikes,
    server_failures,
)

from run_folders import differences, state_of  # tests/, which world puts on the path

COMMAND = "python benchmarks/faults/campaign.py --write"
SEED = 0
FOLDER = Path(__file__).resolve().parent
KINDS = {
    "kill": "kill -9 between two changes of files",
    "kill halfway": "kill -9 in the middle of a write",
    "full disk": "ENOSPC from a write on, with a part of its bytes written",
    "one ENOSPC": "ENOSPC at one change, with a part of its bytes written",
    "one EIO": "EIO at one change",
    "power cut": "what was not flushed is lost: bytes, or names, or both",
    "damaged, finished": "a file of a finished run is damaged, and the run resumed",
    "damaged, training": "a file of a run killed in training is damaged",
    "damaged, collected": "a file of a run killed after its answers came is damaged",
    "SIGTERM": "SIGTERM at a change of a file",
    "SIGINT twice": "Ctrl-C at a change of a file, and again at the next",
    "two writers": "two processes start the same run",
    "clock": "the clock jumps by years, days or seconds, forward or back",
    "server": "the server of an expert fails, once, twice or for good",
}
MOST = {
    "kill": 220,
    "kill halfway": 60,
    "full disk": 120,
    "one ENOSPC": 140,
    "one EIO": 140,
    "power cut": 120,
    "damaged, finished": 130,
    "damaged, training": 90,
    "damaged, collected": 60,
    "SIGTERM": 50,
    "SIGINT twice": 50,
}
"""How many faults of a kind are made at most. Of a kind's places, one for each file and kind of call
comes first, then as many of the others, evenly spaced; of damages, each file in turn, with each
damage in turn.
"""


ANSWERS = ("half a character", "wrong usage")
"""Failures of a server that bring an answer all the same, another one than in the undisturbed run: it
is kept, and resuming changes nothing.
"""


LOG = "training/log.jsonl"
"""The one file whose lost lines are warned of: nothing but the report reads them."""


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
        struck: `right`, `named error`, `stopped` by the signal, `warned`; or, each of which is a
            defect, `foreign`, `silent`, `hung`.
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
        return not {self.struck, self.resumed} <= {"right", "named error", "stopped", "warned"}


@dataclass
class Campaign:
    """Undisturbed runs, and the faults that follow from them.

    Attributes:
        world: Where runs are made.
        reference: An undisturbed run.
        expected: Its state.
        asked: How often its server was asked.
        snapshots: Runs that are damaged, by when they ended.
        changes: The changes of files that it makes, in order.
    """

    world: World
    reference: Path
    expected: dict[str, str]
    asked: int
    snapshots: dict[str, Path]
    changes: Sequence[Change]

    # What strikes

    def faults(self) -> list[Fault]:
        """Returns the faults, in an order that mixes the kinds."""
        found = []
        for kind in ("kill", "kill halfway", "full disk", "one ENOSPC", "one EIO", "power cut"):
            found += self._at_changes(kind)
        for state, folder in self.snapshots.items():
            found += _damages(f"damaged, {state}", folder)
        for kind in ("SIGTERM", "SIGINT twice"):
            found += self._at_changes(kind)
        found += [Fault("two writers", f"{n * 40} ms apart", f"{n}") for n in range(12)]
        for jump in ("+10 years", "-10 years", "+1 day", "-1 hour", "-1 second"):
            found += [Fault("clock", jump, f"{n}") for n in (1, 5, 20, 60)]
        for kind in server_failures():
            found += [Fault("server", kind, place) for place in ("0:1", "2:1", "3:2", "1:1000000")]
        random.Random(SEED).shuffle(found)
        # One of each kind in turn, so that a campaign that is stopped has struck in every way.
        by_kind = {kind: [fault for fault in found if fault.kind == kind] for kind in KINDS}
        rounds = zip_longest(*by_kind.values())
        return [fault for each in rounds for fault in each if fault is not None]

    def _at_changes(self, kind: str) -> list[Fault]:
        """Returns the faults of a kind that strike changes of files."""
        threads = [(change.is_main, change) for change in self.changes]
        if kind.startswith(("SIG", "power")):
            threads = [each for each in threads if each[0]]
        numbers, places = Counter[bool](), []
        for is_main, change in threads:
            numbers[is_main] += 1
            fits = {
                "kill halfway": len(change.content) > 1,
                "full disk": change.call in CAN_FAIL,
                "one ENOSPC": change.call in CAN_FAIL,
                "one EIO": change.call in CAN_FAIL,
            }
            if fits.get(kind, True):
                mark = "" if is_main else "thread "
                what = f"{change.call} {self._file(change.path)}"
                places.append(Fault(kind, what, f"{mark}{numbers[is_main]}"))
        if kind == "power cut":
            places = [
                replace(fault, what=f"{fault.what}, {LOST[number % len(LOST)]} lost")
                for number, fault in enumerate(places)
            ]
        return _chosen(places, MOST[kind])

    def _file(self, path: str) -> str:
        """Names a file as it is named in every run."""
        path = path.replace(f"{self.reference}/", "").replace(f"{self.reference.parent}/", "../")
        path = path.replace(str(self.reference), ".")
        path = re.sub(r"\.unfinished-\d+", ".unfinished", path)  # an id of a process
        # The random name that Python gives a temporary folder.
        path = re.sub(r"^/tmp/tmp\w{8}(?=/|$)", "../tmp", path)
        # The random name that safetensors gives a file until it is whole.
        return re.sub(r"/\.tmp\w{6}$", "/.tmp", path)

    # How it strikes

    def strike(self, fault: Fault, *, is_kept: bool = False) -> Finding:
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
            elif fault.kind == "power cut":
                _, _, lost = fault.what.rpartition(", ")
                cut(self.changes, int(fault.where), lost, self.reference.parent, run.parent)
                left = run.parent / self.reference.name
                if left.is_dir():
                    left.rename(run)
                struck = Outcome(-signal.SIGKILL, "", False, 0.0)
            elif fault.kind == "two writers":
                struck = self._two_writers(run, int(fault.where) * 0.04)
            else:
                struck = self.world.distill(run, **self._options(fault))
            expected = self.expected
            if fault.what in ANSWERS and struck.code == 0:
                expected = state_of(run)
            first, message = self._judge(struck, run, fault, expected)
            if first == "named error":
                restore()
            resumed = self.world.distill(run)
            second, later = self._judge(resumed, run, fault, expected, is_resumed=True)
            repeated = sum(self.world.requests(run).values()) - self.asked
            return Finding(
                fault.name,
                fault.kind,
                first,
                second,
                " | ".join(filter(None, (message, later))).replace(str(run), "RUN"),
                repeated,
                round(struck.seconds + resumed.seconds, 2),
            )
        finally:
            if not is_kept:
                shutil.rmtree(run.parent, ignore_errors=True)

    def _options(self, fault: Fault) -> dict[str, Any]:
        if fault.kind == "clock":
            return {"before": partial(_jump, fault.what, int(fault.where))}
        if fault.kind == "server":
            return {"server": f"{fault.what}:{fault.where}"}
        action, value = {
            "kill": ("kill", 0),
            "kill halfway": ("kill halfway", 0),
            "full disk": ("fail from", errno.ENOSPC),
            "one ENOSPC": ("fail once", errno.ENOSPC),
            "one EIO": ("fail once", errno.EIO),
            "SIGTERM": ("signal", signal.SIGTERM),
            "SIGINT twice": ("signal twice", signal.SIGINT),
        }[fault.kind]
        *thread, place = fault.where.split()
        return {"strike": Strike(action, int(place), bool(thread), value)}

    def _two_writers(self, run: Path, apart: float) -> Outcome:
        """Starts the run twice; one has to end it, and the other may be refused."""
        first = self.world.start(run)
        time.sleep(apart)
        second = self.world.start(
            run.with_name(run.name), errors=run.with_name(f"{run.name}.second")
        )
        outcomes = [self.world.finish(started) for started in (first, second)]
        done = [outcome for outcome in outcomes if outcome.code == 0]
        others = [outcome for outcome in outcomes if outcome.code != 0]
        bad = [outcome for outcome in others if outcome.foreign or outcome.code != 1]
        if bad or not done:
            return (bad or others)[0]
        return done[0]

    def _judge(
        self,
        outcome: Outcome,
        run: Path,
        fault: Fault,
        expected: Mapping[str, str],
        *,
        is_resumed: bool = False,
    ) -> tuple[str, str]:
        if outcome.code is None:
            return "hung", outcome.message
        if outcome.foreign:
            return "foreign", outcome.message
        if outcome.code == 0:
            found = differences(expected, state_of(run))
            if fault.what == "deleted" and found == [fault.where] and _is_list(fault.where):
                return "right", ""
            if found == [LOG] and LOG in _warnings_in(run):
                return "warned", ""
            return ("right", "") if not found else ("lost" if is_resumed else "silent", f"{found}")
        if is_resumed:
            return "lost", outcome.message
        stopping = {
            "kill": (-signal.SIGKILL,),
            "kill halfway": (-signal.SIGKILL,),
            "power cut": (-signal.SIGKILL,),
            "SIGTERM": (128 + signal.SIGTERM, -signal.SIGTERM),
            "SIGINT twice": (128 + signal.SIGINT, -signal.SIGINT),
        }
        if outcome.code in stopping.get(fault.kind, ()):
            return "stopped", ""
        if outcome.code == 1 and outcome.message.startswith("Error: "):
            return "named error", outcome.message
        return "foreign", f"exit code {outcome.code}: {outcome.message}"


def _is_list(name: str) -> bool:
    """Whether a file lists checksums: who deletes it wants the files beside it unchecked."""
    return name.endswith("checksums.json")


def _warnings_in(run: Path) -> str:
    lines = (run / "run.log").read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if " WARNING " in line)


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


# A power cut

LOST = ("bytes and names", "bytes", "names")


class _File:
    """A file, or a folder, as it is in memory and on the disk."""

    def __init__(self, *, is_folder: bool) -> None:
        self.is_folder = is_folder
        self.content, self.flushed = b"", b""
        self.names: dict[str, _File] = {}
        self.flushed_names: dict[str, _File] = {}

    def write(self, at: int, content: bytes) -> None:
        before = self.content[:at].ljust(at, b"\0")
        self.content = before + content + self.content[at + len(content) :]

    def flush(self) -> None:
        self.flushed, self.flushed_names = self.content, dict(self.names)


def cut(changes: Sequence[Change], place: int, lost: str, start: Path, target: Path) -> None:
    """Makes the folder that is left of `start` where the power is cut before a change.

    Only what was flushed is sure to be there: the bytes of a file by `fsync` of the file, its name by
    that of its folder. A disk may also keep what was not flushed, so each is lost by turns.

    Args:
        changes: Those of the run, from an empty folder on.
        place: Which change of the main thread is not made any more, from 1.
        lost: One of `LOST`, and the word `lost`.
        start: Where the run was.
        target: The folder to fill.
    """
    root, seen = _File(is_folder=True), 0
    for change in changes:
        seen += change.is_main
        if seen == place:
            break
        if change.path == str(start) or change.path.startswith(f"{start}/"):
            _apply(change, root, start)
    keeps_bytes, keeps_names = lost == "names lost", lost == "bytes lost"
    _lay_out(root, target, keeps_bytes=keeps_bytes, keeps_names=keeps_names)


def _apply(change: Change, root: _File, start: Path) -> None:
    def folder_of(path: str) -> tuple[_File, str]:
        *parents, name = Path(path).relative_to(start).parts
        folder = root
        for parent in parents:
            folder = folder.names[parent]
        return folder, name

    if change.path == str(start):
        root.flush()
        return
    folder, name = folder_of(change.path)
    if name not in folder.names and change.call not in ("open", "mkdir"):
        # safetensors makes a file of another name and renames it, by system calls of its own.
        made = [each for each in folder.names if each.startswith(".tmp")]
        folder.names[name] = folder.names.pop(made[0]) if made else _File(is_folder=False)
    if change.call in ("open", "mkdir"):
        if name in folder.names:
            folder.names[name].content = b""
        else:
            folder.names[name] = _File(is_folder=change.call == "mkdir")
    elif change.call in ("unlink", "rmdir"):
        del folder.names[name]
    elif change.call == "rename":
        target, new_name = folder_of(change.other)
        target.names[new_name] = folder.names.pop(name)
    else:
        file = folder.names[name]
        if change.call == "fsync":
            file.flush()
        elif change.call == "truncate":
            file.content = file.content[: change.at].ljust(change.at, b"\0")
        else:
            file.write(change.at, change.content)


def _lay_out(file: _File, path: Path, *, keeps_bytes: bool, keeps_names: bool) -> None:
    if not file.is_folder:
        path.write_bytes(file.content if keeps_bytes else file.flushed)
        return
    path.mkdir(exist_ok=True)
    for name, inner in (file.names if keeps_names else file.flushed_names).items():
        _lay_out(inner, path / name, keeps_bytes=keeps_bytes, keeps_names=keeps_names)


# The campaign


def _chosen(places: Sequence[Fault], most: int) -> list[Fault]:
    """Returns at most so many: one for each file and call, then the others, evenly spaced."""
    by_what = defaultdict(list)
    for fault in places:
        by_what[fault.what].append(fault)
    # Of those that are alike the middle one, as the first may be of no consequence.
    first = [alike[len(alike) // 2] for alike in by_what.values()]
    first = _spread(first, most)
    others = [fault for fault in places if fault not in set(first)]
    return first + _spread(others, most - len(first))


def _spread(items: Sequence[Fault], most: int) -> list[Fault]:
    count = min(most, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _damages(kind: str, folder: Path) -> list[Fault]:
    names = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if not name.endswith("-shm") and name not in ("lock", "writer"):
            names.append(name)
    found = []
    for turn in range(len(DAMAGES)):
        for number, name in enumerate(names):
            found.append(Fault(kind, list(DAMAGES)[(number + turn) % len(DAMAGES)], name))
    return found[: MOST[kind]]


def prepare(world: World) -> Campaign:
    """Makes the undisturbed run, and those that are damaged."""
    world.build()
    world.warm()
    reference, journal = world.folder / "reference" / "run", world.folder / "journal"
    snapshots = {
        name: world.folder / f"snapshot-{name}" / name
        for name in ("finished", "training", "collected")
    }
    for folder in (reference, *snapshots.values()):
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir()
    outcome = world.distill(reference, strike=Strike(journal=journal))
    assert outcome.code == 0, outcome
    asked = sum(world.requests(reference).values())
    changes = list(changes_in(journal))
    shutil.copytree(reference, snapshots["finished"])
    main_thread = [change for change in changes if change.is_main]
    for name, fits in MOMENTS.items():
        place = next(number for number, change in enumerate(main_thread, 1) if fits(change))
        outcome = world.distill(snapshots[name], strike=Strike("kill", place))
        assert outcome.code == -signal.SIGKILL, outcome
    return Campaign(world, reference, state_of(reference), asked, snapshots, changes)


MOMENTS: dict[str, Callable[[Change], bool]] = {
    # The third checkpoint is begun: two are there.
    "training": lambda change: change.call == "mkdir" and "checkpoint-3" in change.path,
    "collected": lambda change: ".records.jsonl.unfinished" in change.path,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the published table")
    parser.add_argument("--folder", type=Path, default=Path("build/faults"))
    parser.add_argument("--only", help="a kind")
    parser.add_argument("--fault", help="one fault, by its name; its run is kept")
    parser.add_argument("--share", type=float, default=1.0, help="so much of each kind")
    parser.add_argument("--part", default="0/1", help="K/N: every Nth fault, from the Kth on")
    parser.add_argument(
        "--table", nargs="*", type=Path, help="render these findings, and run nothing"
    )
    parser.add_argument("--note", default="", help="words at the end of the table")
    parser.add_argument("--minutes", type=float, default=600.0, help="then stop")
    options = parser.parse_args()
    if options.table:
        findings = [finding for log in options.table for finding in _findings(log)]
        publish(findings, options.write, options.note)
        return
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    load_strikes(folder)
    log = folder / "findings.jsonl"
    done = {finding.fault: finding for finding in _findings(log)}
    until = time.monotonic() + 60 * options.minutes
    world = World(folder)
    try:
        campaign = prepare(world)
        if options.fault:
            kind, what, where = options.fault.split(" / ")
            print(campaign.strike(Fault(kind, what, where), is_kept=True))
            return
        planned = campaign.faults()
        counts, taken, faults = Counter(fault.kind for fault in planned), Counter[str](), []
        for fault in planned:
            taken[fault.kind] += 1
            if taken[fault.kind] <= max(1, options.share * counts[fault.kind]):
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
    publish(list(done.values()), options.write, options.note)


def publish(findings: Sequence[Finding], is_written: bool, note: str = "") -> None:
    """Prints the table of counts, and puts it in its place."""
    table = f"{render(findings).rstrip()} {note}".rstrip() + "\n"
    print(table)
    if is_written:
        (FOLDER / "README.md").write_text(table)
        rows = [asdict(finding) for finding in findings]
        about = {
            "command": COMMAND,
            "seed": SEED,
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
        }
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        text = json.dumps({**about, "findings": []}, indent=1).replace("[]", f"[\n  {lines}\n ]")
        (FOLDER / "results.json").write_text(f"{text}\n")


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
        "warned",
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
        f"Command: `{COMMAND}`; seed {SEED}; {datetime.now(UTC):%Y-%m-%d};"
        f" {platform.system()} {platform.machine()}, {os.cpu_count()} cores;"
        f" Python {platform.python_version()}. CPU time of the runs: {seconds / 60:.0f} minutes."
    )
    return "\n".join([INTRODUCTION, *lines, "", about, ""])


def _counts(findings: Sequence[Finding]) -> Counter[str]:
    counts = Counter[str]()
    for finding in findings:
        counts["faults"] += 1
        counts["right at once"] += finding.struck == "right"
        counts["named error"] += finding.struck == "named error"
        counts["stopped"] += finding.struck == "stopped"
        counts["warned"] += finding.struck == "warned"
        counts["silent"] += finding.struck == "silent"
        counts["right after resuming"] += finding.resumed in ("right", "warned")
        counts["lost"] += finding.resumed == "lost"
        counts["foreign error"] += "foreign" in (finding.struck, finding.resumed)
        counts["hung"] += "hung" in (finding.struck, finding.resumed)
    return counts


INTRODUCTION = """# Faults

Each fault strikes a run of its own: a recipe with an expert behind a server on loopback, a LoRA expert and
a tiny Llama, from questions to the saved student and the report. A library that is loaded before the C library
(`strike.c`) makes the faults of system calls, so they strike SQLite and safetensors as they strike Python. Then the same
command is given again.

*Right* is a run folder that equals that of an undisturbed run to the byte, but for measured times and memory, for costs
(a request that was in flight counts as paid), and for the files that show these; databases are compared by their rows. A
*named error* is one message of ours; after one for a damaged file, the file is put back. *Warned* is a training log that
lost lines and says so: nothing but the report reads it. Deleting a list of checksums is how the files beside it are accepted
as they are, so the list is then shorter. *Lost* is a run that the same
command can't end right; *silent* one that says that all is well and is not right; *foreign* a message of another
library, or a traceback.

A power cut is simulated: of the changes of files that an undisturbed run made until then, with their bytes, those are undone
that no `fsync` of the file (its bytes) or of its folder (its name) had put on the disk; only bytes, only names, or both. No
power was cut. The calls by which safetensors makes and renames a file of its own can't be struck; its writes are.

"""


if __name__ == "__main__":
    main()
