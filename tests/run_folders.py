"""What two runs of the same inputs have to have in common: the whole of their folders, to the byte, but
for what a clock measures.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MEASURED = {
    "seconds",
    "peak_memory_bytes",
    "date",
    "command",
    "created",
    "seconds_per_answer",
    "unknown_cost",
    "cost",
}
"""Fields that a clock, the memory or the place of a run fills, in any file."""
_SHOWN = {
    "report.html",
    "report.md",
    "model/README.md",
    "run.log",
    "savings.json",
    "lock",
    "writer",
}
"""Files that show these, which must be there."""


def state_of(run: Path) -> dict[str, str]:
    """Returns each file of a run by its path, with the digest of all that has to be the same in two
    runs: every byte, but for measured times and memory, and the place of the run.
    """
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir():
            found[f"{name}/"] = ""
        elif name.endswith(("sqlite-wal", "sqlite-shm")):
            continue  # parts of the database, which is compared by its rows
        elif name in _SHOWN:
            found[name] = "there" if path.stat().st_size or name in ("lock", "writer") else "empty"
        elif name == "responses.sqlite":
            found[name] = _digest(_rows(path))
        elif path.name == "checksums.json":
            found[name] = _digest(json.dumps(sorted(json.loads(path.read_text()))).encode())
        elif path.suffix in (".json", ".jsonl"):
            found[name] = _digest(_plain(path))
        else:
            found[name] = _digest(path.read_bytes().replace(str(run).encode(), b"RUN"))
    return found


def _rows(path: Path) -> bytes:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        answers = connection.execute("SELECT key, answer FROM answers ORDER BY key").fetchall()
        calls = connection.execute(
            "SELECT model, role, calls, prompt_tokens FROM calls ORDER BY model, role"
        ).fetchall()
        return repr((answers, calls)).encode()
    except sqlite3.DatabaseError as error:  # damage that the run did not notice, a difference
        return f"unreadable: {error}".encode()
    finally:
        connection.close()


# A measured time in a sentence, as in "Choosing and making it took 54 seconds".
_SECONDS = re.compile(r"took [\d,.]+ seconds?")


def _plain(path: Path) -> bytes:
    text = path.read_text()
    lines = text.split("\n") if path.suffix == ".jsonl" else [text]
    values = [_without_measured(json.loads(line)) for line in lines if line.strip()]
    return json.dumps(values).encode()


def _without_measured(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {name: each for name, each in value.items() if name not in _MEASURED}
        return {name: _without_measured(each) for name, each in kept.items()}
    if isinstance(value, list):
        return [_without_measured(each) for each in value]
    if isinstance(value, str):
        return _SECONDS.sub("took some seconds", value)
    return value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Returns the files in which two runs differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
