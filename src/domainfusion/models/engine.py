"""Local models that an inference engine answers for: vLLM or llama.cpp, run as a server of its own
on this machine, started when it is first asked and stopped when its memory is needed.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from domainfusion.checks import check_count, check_number, check_word
from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models.adapter_settings import read_settings
from domainfusion.models.base import OnResult
from domainfusion.records import from_json
from domainfusion.types import Conversation, Generation, Sampling

if TYPE_CHECKING:
    from domainfusion.models.api import APIModel

logger = logging.getLogger("domainfusion")

EngineName = Literal["vllm", "llamacpp"]

_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "vllm": ("vllm", "serve"),
    "llamacpp": ("llama-server",),
}
_INSTALL: Mapping[str, str] = {
    "vllm": "install vLLM in an environment of its own, and give its command:"
    ' Engine(command=("/path/to/venv/bin/vllm", "serve"))',
    "llamacpp": "install the package xllamacpp, or llama.cpp, and give its command:"
    ' Engine(kind="llamacpp", command=("/path/to/llama-server",))',
}
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values of `--max-lora-rank` that vLLM takes."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens addresses on this machine, to which no proxy leads."""

_TAIL_LINES = 15
_SECONDS_TO_STOP = 20.0
_SECONDS_BETWEEN_NEWS = 15.0

_XLLAMACPP = """
import argparse, threading, xllamacpp
parser = argparse.ArgumentParser()
for option in ("-m", "--alias", "--host", "--chat-template-file"):
    parser.add_argument(option, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--jinja", action="store_true")
parser.add_argument("--ctx-size", type=int, default=16384)
parser.add_argument("--parallel", type=int, default=8)
given = parser.parse_args()
settings = xllamacpp.CommonParams()
settings.model.path, settings.model_alias = given.m, {given.alias}
settings.hostnames, settings.port = [given.host], given.port
settings.n_ctx, settings.n_parallel = given.ctx_size, given.parallel
settings.use_jinja = given.jinja
with open(given.chat_template_file, encoding="utf-8") as template:
    settings.chat_template = template.read()
server = xllamacpp.Server(settings)
threading.Event().wait()
"""
"""The server of the package xllamacpp under the arguments of `llama-server`."""

_SUPERVISOR = """
import ctypes, os, signal, subprocess, sys, threading
follow = None
if sys.platform == "linux":
    prctl, on_parents_death = ctypes.CDLL(None).prctl, 1  # PR_SET_PDEATHSIG
    follow = lambda: prctl(on_parents_death, signal.SIGTERM)
server = subprocess.Popen(
    sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=follow
)
def end(kind):
    try:
        os.killpg(server.pid, kind)
    except ProcessLookupError:
        pass
def watch():
    os.read(0, 1)
    end(signal.SIGTERM)
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        end(signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
code = server.wait()
end(signal.SIGKILL)
os._exit(code if code >= 0 else 128 - code)
"""
"""Runs a server, and ends it with all its processes once the pipe from this process closes: also
where this process is killed, so that no server is left with the memory. Ray kills an actor with
its children, so the kernel ends a server whose supervisor is killed.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An inference engine that the library starts for local models.

    All models on one base are one server: with vLLM, the base and its LoRA adapters.

    Args:
        kind: `vllm` for folders, or `llamacpp` for GGUF files.
        command: What starts its server, in whatever environment it is installed; by default `vllm
            serve` or `llama-server` from the path, or the package xllamacpp.
        options: Further words of the command line, such as `("--max-model-len", "4096")`.
        environment: Environment variables that are set for the server.
        port: The port on loopback; by default a free one.
        start_seconds: The longest that the server may take until it answers.
        max_concurrency: Requests in flight.

    Raises:
        ConfigurationError: A setting is outside of what is allowed.
    """

    kind: EngineName = "vllm"
    command: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    port: int | None = None
    start_seconds: float = 900.0
    max_concurrency: int = 64

    def __post_init__(self) -> None:
        check_word("engine", self.kind, _COMMANDS)
        for name in ("command", "options"):
            if isinstance(getattr(self, name), str):
                raise ConfigurationError(
                    f"{name} is one text",
                    received=getattr(self, name),
                    allowed="a list of the words of a command line",
                )
        check_count("port", self.port, most=65_535, optional=True)
        check_number("start_seconds", self.start_seconds, "(0, inf)")
        check_count("max_concurrency", self.max_concurrency)

    def program(self) -> list[str]:
        """Returns the command line without its arguments.

        Raises:
            ModelError: There is no such command, or it can't be run.
        """
        words = list(self.command or _COMMANDS[self.kind])
        if (
            self.kind == "llamacpp"
            and not self.command
            and shutil.which(words[0]) is None
            and importlib.util.find_spec("xllamacpp") is not None
        ):
            return [sys.executable, "-c", _XLLAMACPP]
        found = shutil.which(words[0])
        if found is None:
            is_file = os.path.isfile(words[0])
            is_there = is_file or os.path.isdir(words[0])
            what = "may not be run" if is_file else "is a folder" if is_there else "is not there"
            raise ModelError(
                f"The command of the engine {self.kind} {what}",
                received=words[0],
                fix=f"run: chmod +x {shlex.quote(words[0])}" if is_file else _INSTALL[self.kind],
            )
        return [found, *words[1:]]

    def check(self) -> None:
        """Looks at whether this machine has what a server needs; none is started.

        Raises:
            ModelError: There is no such command, or it can't be run.
            MissingDependencyError: The client that asks it is not installed.
        """
        self.program()
        importlib.import_module("domainfusion.models.api")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server is started for: what models have to agree in that share one.

    Attributes:
        engine: The engine.
        base: Folder or GGUF file of the weights.
        dtype: Data type of the weights.
        chat_template: The Jinja template of the prompts.
    """

    engine: Engine
    base: Path
    dtype: str
    chat_template: str

    def __hash__(self) -> int:
        return hash((self.engine.kind, self.base, self.dtype, self.chat_template))


class Server:
    """One server process and the models that it answers for.

    Get one by `server_for`; it is started on first use, and again where an adapter is new.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        self._adapters: Mapping[str, Path] = {}
        self._started_with: Mapping[str, Path] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._port = 0
        self.starts = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def serve(self, adapters: Mapping[str, Path]) -> None:
        """Has the server answer for these adapters, by name, from when it is asked next."""
        self._adapters = dict(adapters)

    def ready(self) -> None:
        """Returns once the server answers, for every model that was added.

        Raises:
            ModelError: Its command is missing, its port is taken, it ended or took too long, or
                serves other models.
        """
        if self.is_running and not self._adapters.items() <= self._started_with.items():
            self.stop()
        if not self.is_running:
            self._start()
            self._wait()
        self._check_names()

    def _start(self) -> None:
        self.stop()
        engine = self.served.engine
        program = engine.program()
        self._port = _free_port(engine.port)
        self._folder = tempfile.TemporaryDirectory(prefix="domainfusion-engine-")
        self._started_with = dict(self._adapters)
        arguments = self._vllm() if engine.kind == "vllm" else self._llamacpp()
        command = [*program, *arguments, *engine.options]
        logger.info("Starting %s for %s", engine.kind, self.served.base)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SUPERVISOR, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # The caller's PYTHONPATH is of another environment than the command's.
                env={
                    **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
                    **(engine.environment or {}),
                },
                start_new_session=True,
            )
        self.starts += 1

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "server.log"

    def _vllm(self) -> list[str]:
        served = self.served
        template = self._log.with_name("chat_template.jinja")
        template.write_text(served.chat_template, encoding="utf-8")
        arguments = [str(served.base), "--served-model-name", BASE_NAME, "--dtype", served.dtype]
        arguments += ["--host", "127.0.0.1", "--port", str(self._port)]
        # Without the second, sampling settings in the model's folder would hold where ours are
        # silent.
        arguments += ["--chat-template", str(template), "--generation-config", "vllm"]
        if self._adapters:
            highest = max(map(_rank_of, self._adapters.values()))
            allowed = next((rank for rank in _LORA_RANKS if rank >= highest), highest)
            modules = [f"{name}={folder}" for name, folder in self._adapters.items()]
            arguments += ["--enable-lora", "--max-lora-rank", str(allowed)]
            arguments += ["--max-loras", str(len(modules)), "--lora-modules", *modules]
        return arguments

    def _llamacpp(self) -> list[str]:
        template = self._log.with_name("chat_template.jinja")
        template.write_text(self.served.chat_template, encoding="utf-8")
        return [
            *("-m", str(self.served.base), "--alias", BASE_NAME),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--jinja", "--chat-template-file", str(template)),
        ]

    def _wait(self) -> None:
        """Waits until the server says that it is well."""
        limit = self.served.engine.start_seconds
        started = said = time.monotonic()
        address = f"http://127.0.0.1:{self._port}/health"
        while True:
            if not self.is_running:
                raise self._ended("ended before it answered")
            # Until then it refuses connections, or says 503.
            with suppress(OSError, HTTPException), _direct.open(address, timeout=5):
                logger.info("%s answers after %.0f s", self.served.engine.kind, _since(started))
                return
            if _since(started) > limit:
                error = self._ended(f"did not answer within {limit:g} s", fix="raise start_seconds")
                self.stop()
                raise error
            if _since(said) > _SECONDS_BETWEEN_NEWS:
                said = time.monotonic()
                last = (self._tail() or [""])[-1]
                logger.info("Waiting for the engine, %.0f s: %s", _since(started), last[:120])
            time.sleep(0.1)

    def _check_names(self) -> None:
        """Looks at which models answer at the address: where another program took the port over,
        its answers are not stored.
        """
        try:
            with _direct.open(f"{self.url}/models", timeout=30) as answer:
                listed = [str(each["id"]) for each in from_json(answer.read())["data"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._ended(f"does not list its models ({error})") from None
        missing = [name for name in (BASE_NAME, *self._adapters) if name not in listed]
        if missing:
            raise self._ended(
                f"serves other models: {missing[0]!r} is not among {listed}",
                fix="check the engine's command and options; something else may use its port",
            )

    def error_of_its_end(self) -> ModelError | None:
        """Returns what happened where the server is no longer there; None where it is."""
        if self._process is None:
            return None
        try:
            # A failing request may be seen before the end of the process is.
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            return None
        return self._ended("ended while it was asked")

    def _ended(self, what: str, *, fix: str = "") -> ModelError:
        code = None if self._process is None else self._process.poll()
        ending = "" if code is None else f" (exit code {code})"
        tail = "\n".join(self._tail()) or "(nothing)"
        return ModelError(
            f"The engine {self.served.engine.kind} {what}{ending}. The end of its log:\n{tail}\n",
            fix=fix
            or "see its log above; whatever was answered is kept, and running again asks"
            " for the rest",
        )

    def _tail(self) -> list[str]:
        if self._folder is None or not self._log.exists():
            return []
        text = self._log.read_bytes()[-20_000:].decode("utf-8", "replace")
        return text.splitlines()[-_TAIL_LINES:]

    def stop(self) -> None:
        """Ends the server and frees its memory; it is started again when it is asked."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


BASE_NAME = "base"
"""What the base is called on its server."""

_servers: dict[Served, Server] = {}


def server_for(served: Served) -> Server:
    """Returns the server of all models on one base; it is not started yet."""
    return _servers.setdefault(served, Server(served))


def stop_engines() -> None:
    """Stops every server that this process has started: before a student is trained, and at the
    end.
    """
    while _servers:
        _, server = _servers.popitem()
        server.stop()


atexit.register(stop_engines)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineClient:
    """Asks one model of a server.

    Attributes:
        server: The server.
        name: The model's name on it.
        shown_as: The model's name in messages.
        system_prompt: Put before every conversation that has none.
        end_tokens: Token ids that end an answer.
    """

    server: Server
    name: str
    shown_as: str
    system_prompt: str | None
    end_tokens: tuple[int, ...]

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        on_result: OnResult | None,
    ) -> list[Generation]:
        """Answers each conversation; see `LanguageModel.generate`.

        Raises:
            ModelError: The engine could not be started, or ended; what it answered before was
                handed to `on_result`.
        """
        if not conversations:
            return []
        self.server.ready()
        try:
            return self._model().generate(conversations, sampling, on_result)
        except ModelError as error:
            ended = self.server.error_of_its_end()
            if ended is None:
                raise
            ended.unanswered = error.unanswered
            raise ended from error

    def _model(self) -> APIModel:
        # Its client comes with an extra, which those without engines need not have.
        from domainfusion.models.api import APIModel, Dialect, Limits, Retries

        extra: dict[str, Any] = {}
        if self.server.served.engine.kind == "vllm":
            extra["stop_token_ids"] = list(self.end_tokens)
        return APIModel(
            self.name,
            base_url=self.server.url,
            name=self.shown_as,
            system_prompt=self.system_prompt,
            dialect=Dialect(extra_body=extra, accept_empty=True),
            limits=Limits(max_concurrency=self.server.served.engine.max_concurrency),
            # It is on this machine: what fails three times in a row is gone.
            retries=Retries(
                timeout_seconds=3_600, max_retries=2, max_failures_in_a_row=3, backoff_seconds=0.1
            ),
        )


def engine_of(given: EngineName | Engine | None) -> Engine | None:
    """Returns the engine that a user named or described."""
    return Engine(kind=given) if isinstance(given, str) else given


def check_engine(engine: Engine, base: Path, *, is_adapter: bool, quantization: object) -> None:
    """Looks at whether an engine can serve a model.

    Raises:
        ConfigurationError: It can't.
    """
    is_gguf = base.suffix == ".gguf"
    if is_gguf != (engine.kind == "llamacpp"):
        raise ConfigurationError(
            f"The engine {engine.kind} does not serve this model",
            received=str(base),
            allowed="vllm for folders, llamacpp for .gguf files",
        )
    if is_adapter and engine.kind == "llamacpp":
        raise ConfigurationError(
            "The engine llamacpp reads adapters in its own format alone",
            received=str(base),
            fix="leave engine out, or merge the adapter and convert it to GGUF",
        )
    if quantization is not None:
        raise ConfigurationError(
            "An engine quantizes by options of its own",
            received=quantization,
            fix="leave quantization out, and use Engine(options=...)",
        )


def _rank_of(adapter: Path) -> int:
    settings = read_settings(adapter)
    patterns = settings.get("rank_pattern") or {}
    return max([int(settings.get("r", 8)), *map(int, patterns.values())])


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise ModelError(
                "The engine's port is taken",
                received=wanted,
                fix=f"leave port out for a free one, or stop what uses it ({error.strerror})",
            ) from None
        return int(probe.getsockname()[1])


def _since(moment: float) -> float:
    return time.monotonic() - moment
