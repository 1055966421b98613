# mypy: ignore-errors
"""The run that the faults strike: a recipe with a server's expert, a LoRA expert and a tiny Llama, run
by the command line in a process forked from one that has loaded everything.

A fault at a change of a file is made by `strike.c`, which is loaded before the C library, so it
strikes SQLite and safetensors as it strikes Python.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
# A fork does not have the threads of its parent, and would wait for them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

SHIM = Path(__file__).with_name("strike.c")
CAN_FAIL = {"write", "pwrite", "fsync", "truncate", "rename", "mkdir", "open"}
"""Changes that fail where a disk is full, or broken."""
ACTIONS = ("nothing", "kill", "kill halfway", "signal", "signal twice", "fail once", "fail from")
"""What `strike.c` can do, by number."""


KEY = "FAULTS_API_KEY"
RECIPE = """\
domains: {{physiology: What bodies do, nutrition: What bodies eat}}
student: {{path: {base}, dtype: float32}}
teachers:
  physiology:
    model: clinic
    base_url: {url}
    api_key_env: {key}
    max_concurrency: 2
    max_retries: 3
    backoff_seconds: 0.001
    timeout_seconds: 2
    price_per_million_input_tokens: 1.0
    price_per_million_output_tokens: 1.0
    max_cost: 1000.0
  nutrition: {{path: {adapter}, base_model: {base}, dtype: float32}}
generators:
  - type: curated
    file: questions.jsonl
responses: {{max_new_tokens: 4}}
trainer:
  type: integration
  adaptation: lora
  learning_rate: 1e-3
  epochs: 2
  batch_size: 3
  checkpoint_steps: 1
  evaluation_steps: 2
  early_stopping_patience: 9
evaluation:
  test_examples: test.jsonl
  validation_holdout: 0.25
  max_new_tokens: 4
  resamples: 100
"""
QUESTIONS = [
    {"query": "How do muscles work?", "domain": "physiology", "answers": {"physiology": "answer"}},
    {"query": "How do they rest?", "domain": "physiology", "answers": {"physiology": "answer"}},
    {"query": "Where is the heart?", "domain": "physiology", "answers": {"physiology": "answer"}},
    {"query": "What is in bread?", "domain": "nutrition"},
    {"query": "What is in rice?", "domain": "nutrition"},
    {"query": "Which fruit is red?", "domain": "nutrition"},
    {"query": "What feeds a muscle?", "domains": ["physiology", "nutrition"]},
    {"query": "What feeds the heart?", "domains": ["physiology", "nutrition"]},
]
TEST = [
    {"query": "How do lungs work?", "domain": "physiology", "answers": {"physiology": "lungs"}},
    {"query": "What is in milk?", "domain": "nutrition", "answers": {"nutrition": "fat"}},
]

# The server


def server_failures() -> dict[str, Any]:
    from models import faulty_server as server

    def slow(exchange: Any) -> None:
        time.sleep(2.5)
        with suppress(OSError):
            server.right(exchange)

    return {
        "reset": server.hang_up,
        "half body": server.cut_off,
        "slow": slow,
        "drip": server.drip,
        "huge body": server.huge,
        "429": server.status(429, Retry_After="0"),
        "500": server.status(500),
        "502": server.status(502),
        "503": server.status(503, Retry_After="0"),
        "401": server.status(401),
        "402": server.status(402, error_code="insufficient_quota"),
        "404": server.status(404),
        "redirect": server.status(307, Location="http://127.0.0.1:9/v1/chat/completions"),
        "not JSON": server.raw(b"<html>busy</html>"),
        "empty body": server.raw(b""),
        "not UTF-8": server.raw(b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
        "deep JSON": server.raw(b"[" * 100_000),
        "wrong JSON": server.says({"choices": "many"}),
        "a list": server.says([1, 2]),
        "no choices": server.says({"choices": []}),
        "null content": server.message(content=None),
        "content a number": server.message(content=17),
        "half a character": server.raw(
            b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant",'
            b' "content": "\\ud800"}}]}'
        ),
        "false gzip": server.raw(b"not gzip", Content_Encoding="gzip"),
        "wrong usage": server.says(
            server.completion(
                {"role": "assistant", "content": "x"}, usage={"prompt_tokens": "many"}
            )
        ),
    }


PERMANENT = {"401", "402", "404", "redirect"}


def start_server(log: Path) -> tuple[str, int]:
    """Starts the expert's server in a process of its own.

    What a request meets stands in its key: `KIND:FIRST:COUNT:RUN`; requests of a run from the FIRST
    on, COUNT of them, meet KIND. Each request is written to `log`, with its key.

    Returns:
        Its address, and its process.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        with os.fdopen(reading) as stream:
            return stream.readline().strip(), process
    from models.faulty_server import FaultyServer, right

    behaviors, seen = server_failures(), Counter[str]()

    def behave(exchange: Any) -> None:
        key = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        with log.open("a") as stream:
            stream.write(json.dumps([key, exchange.question]) + "\n")
        kind, first, count, _ = key.split(":")
        place = seen[key]
        seen[key] += 1
        is_struck = kind != "right" and int(first) <= place < int(first) + int(count)
        (behaviors[kind] if is_struck else right)(exchange)

    with FaultyServer(default=behave) as server:
        os.write(writing, f"{server.url}\n".encode())
        signal.pause()
    os._exit(0)


# A run


@dataclass(frozen=True)
class Outcome:
    """What became of a process.

    Attributes:
        code: Its exit code; minus the signal that ended it; None where it had to be stopped.
        message: What it told the user at its end.
        foreign: Whether that was the error of another library, or a traceback.
        seconds: Its CPU time.
    """

    code: int | None
    message: str
    foreign: bool
    seconds: float


@dataclass
class World:
    """The models, the server and the recipe, in a folder.

    Attributes:
        folder: Where all of it lies.
        url: The server's address.
        asked: The server's log.
    """

    folder: Path
    url: str = ""
    asked: Path = field(init=False)
    server: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.asked = self.folder / "asked.jsonl"
        self.asked.write_text("")
        self.url, self.server = start_server(self.asked)

    def close(self) -> None:
        """Ends the server."""
        os.kill(self.server, signal.SIGTERM)
        os.waitpid(self.server, 0)

    def build(self) -> None:
        """Makes models and recipe, in a process of its own: what has run torch's backward pass or
        threads should not fork.
        """
        process = os.fork()
        if not process:
            from conftest import write_adapter, write_llama

            base, adapter = self.folder / "base", self.folder / "expert"
            if not adapter.is_dir():
                write_adapter(write_llama(base, num_hidden_layers=1), adapter, 1, {})
            for name, lines in (("questions", QUESTIONS), ("test", TEST)):
                text = "".join(f"{json.dumps(line)}\n" for line in lines)
                (self.folder / f"{name}.jsonl").write_text(text)
            recipe = RECIPE.format(base=base, adapter=adapter, url=self.url, key=KEY)
            (self.folder / "recipe.yaml").write_text(recipe)
            os._exit(0)
        assert os.waitpid(process, 0)[1] == 0

    def warm(self) -> None:
        """Does a run in this process, so that what it loads and compiles is there in every fork."""
        from domainfusion.cli.main import main

        run = self.folder / "warming" / "run"
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            os.environ[KEY] = "right:0:0:warming"
            code = main(["distill", str(self.folder / "recipe.yaml"), "--output-dir", str(run)])
        assert code == 0, (run / "run.log").read_text()
        shutil.rmtree(run.parent)
        gc.collect()
        gc.freeze()

    def distill(self, run: Path, **options: Any) -> Outcome:
        """Runs the recipe into `run` by the command line.

        Args:
            run: The run's directory.
            **options: See `start`.
        """
        return self.finish(self.start(run, **options))

    def start(
        self,
        run: Path,
        *,
        strike: Strike | None = None,
        server: str = "right:0:0",
        before: Callable[[], None] | None = None,
        errors: Path | None = None,
    ) -> tuple[int, Path, mmap.mmap]:
        """Starts what `finish` waits for.

        Args:
            run: The run's directory.
            strike: The fault at a change of a file, if there is one.
            server: What the server does.
            before: Called in the process before the run.
            errors: Where its stderr goes.
        """
        told = mmap.mmap(-1, 65_536)
        errors = errors or run.with_name(f"{run.name}.stderr")
        process = os.fork()
        if not process:
            self._run(run, server, errors, told, before, strike or Strike())
        return process, errors, told

    def finish(self, started: tuple[int, Path, mmap.mmap]) -> Outcome:
        """Waits for a process; one that takes `PATIENCE` seconds of CPU, or tenfold that in all,
        is stopped.
        """
        process, errors, told = started
        until, is_hung = time.monotonic() + 10 * PATIENCE, False
        measured = psutil.Process(process)
        while True:
            ended, status, usage = os.wait4(process, os.WNOHANG)
            if ended:
                break
            with suppress(psutil.Error):
                is_hung = sum(measured.cpu_times()[:2]) > PATIENCE or time.monotonic() > until
            if is_hung:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.01)
        message = told[:].rstrip(b"\0").decode(errors="replace")
        told.close()
        shown = errors.read_text(errors="replace") if errors.is_file() else ""
        errors.unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(status)
        foreign = "Traceback" in shown or "Error: Unexpected" in message
        if foreign and "Unexpected" not in message:
            message += shown[-2_000:]
        return Outcome(None if is_hung else code, message, foreign, usage.ru_utime + usage.ru_stime)

    def _run(
        self,
        run: Path,
        server: str,
        errors: Path,
        told: mmap.mmap,
        before: Callable[[], None] | None,
        strike: Strike,
    ) -> None:
        code = 99
        try:
            out = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.close(out)
            os.environ[KEY] = f"{server}:{run.name}"
            signal.signal(signal.SIGINT, signal.default_int_handler)
            from domainfusion.cli.main import main
            from domainfusion.cli.terminal import Terminal

            fail = Terminal.fail

            def tell(terminal: Any, message: str, *, details: str = "") -> None:
                # Kept in memory, as a full disk takes no message.
                kept = message if "Unexpected" not in message else f"{message}\n{details}"
                content = kept.encode(errors="replace")[: len(told)]
                told[: len(content)] = content
                fail(terminal, message, details=details)

            Terminal.fail = tell  # type: ignore[method-assign]
            os.chdir(self.folder)
            if before:
                before()
            strike.begin()
            code = main(["distill", "recipe.yaml", "--output-dir", str(run)])
            with suppress(OSError):
                sys.stdout.flush()
        except BaseException:
            import traceback

            text = ("Error: Unexpected, escaped main: " + traceback.format_exc()).encode()[-60_000:]
            told[: len(text)] = text
        finally:
            os._exit(code)

    def requests(self, run: Path) -> Counter[str]:
        """Returns how often the server was asked each question for a run."""
        lines = (json.loads(line) for line in self.asked.read_text().splitlines())
        return Counter(question for key, question in lines if key.endswith(f":{run.name}"))


PATIENCE = 60.0
"""CPU seconds that no run takes."""


@dataclass(frozen=True)
class Strike:
    """A fault at a change of a file.

    Attributes:
        action: One of `ACTIONS`.
        place: The number of the change, from 1.
        is_elsewhere: Whether changes of other threads than the main one are counted.
        value: The signal, or the error's number.
        journal: Where all changes are noted; None for nowhere.
    """

    action: str = "nothing"
    place: int = 0
    is_elsewhere: bool = False
    value: int = 0
    journal: Path | None = None

    def begin(self) -> None:
        """Begins to count in this process."""
        begin = ctypes.CDLL(None).strike_from_now
        begin.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int]
        descriptor = -1
        if self.journal is not None:
            descriptor = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        begin(ACTIONS.index(self.action), self.place, self.is_elsewhere, self.value, descriptor)


def load_strikes(folder: Path) -> None:
    """Starts this program again with `strike.c` loaded, unless it is."""
    if hasattr(ctypes.CDLL(None), "strike_from_now"):
        os.environ.pop("LD_PRELOAD", None)
        return
    library = folder / "strike.so"
    build = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SHIM)]
    subprocess.run(build, check=True)
    os.environ["LD_PRELOAD"] = str(library)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


# A journal


@dataclass(frozen=True)
class Change:
    """A change of a file, as a journal has it.

    Attributes:
        call: `write`, `pwrite`, `open` (made or emptied), `truncate`, `fsync`, `rename`, `unlink`,
            `mkdir`, `rmdir`.
        is_main: Whether the main thread made it.
        path: The file or folder.
        other: Its new name, of a rename.
        at: Where in the file; of `truncate`, its new size.
        content: The bytes.
    """

    call: str
    is_main: bool
    path: str
    other: str
    at: int
    content: bytes


def changes_in(journal: Path) -> Iterator[Change]:
    """Yields what a journal notes."""
    with journal.open("rb") as stream:
        while line := stream.readline():
            call, is_main, path, other, at, size = line.decode().rstrip("\n").split("\t")
            content = stream.read(int(size))
            yield Change(call, is_main == "1", path, other, int(at), content)
