"""The verb `export`: a run's training data, for other trainers."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest

from domainfusion.cli.main import main
from domainfusion.models import APIModel, Dialect, HuggingFaceModel
from domainfusion.types import Sampling, user

from .conftest import RECIPE, TEST, command
from .test_distill import copy_of


@pytest.mark.parametrize("words", [[], ["--format", "prompt-completion"], ["--format", "sharegpt"]])
def test_what_a_run_trains_on_is_written(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    file = tmp_path / "out.jsonl"
    assert main(["export", str(directory), *words, "--output", str(file)]) == 0
    written = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    records = [
        json.loads(line)
        for line in (directory / "records.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    cut = sum(record["integration"]["finish_reason"] == "length" for record in records)
    assert len(written) == len(records) - cut
    assert capsys.readouterr().out.startswith(
        f"{len(written)} rows in {file}"
        + (f"; left out: {cut} cut at the token limit" if cut else "")
    )


def test_a_run_without_records_says_what_to_do(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "records.jsonl").unlink()
    assert main(["export", str(directory)]) == 1
    assert "no records yet" in capsys.readouterr().err


def test_the_student_as_gguf_with_what_serves_it(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gguf import GGUFReader

    directory = copy_of(finished_run, tmp_path)
    assert main(["export", str(directory), "--format", "gguf", "--dtype", "f16"]) == 0
    [file] = (directory / "export-gguf").glob("*.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}
    assert kinds["blk.1.ffn_up.weight"] == "F16"
    assert f"FROM ./{file.name}" in (file.parent / "Modelfile").read_text()
    out = capsys.readouterr().out
    assert f"llama-server -m {file}" in out
    assert "ollama create" in out


def test_the_student_in_other_numbers(finished_run: Path, tmp_path: Path) -> None:
    directory = copy_of(finished_run, tmp_path)
    words = ["export", str(directory), "--format", "transformers", "--dtype", "bfloat16"]
    assert main(words) == 0
    folder = directory / "export-transformers"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    whole = (directory / "model" / "model.safetensors").stat().st_size
    assert (folder / "model.safetensors").stat().st_size < 0.6 * whole
    assert (folder / "README.md").is_file()
    [answer] = HuggingFaceModel(folder).generate([user("Hello?")], Sampling(max_new_tokens=4))
    assert answer.completion_tokens
    assert main(words) == 1  # what is there is not written over


def test_the_adapter_that_was_trained(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers as the merged student does, and no model was asked for it."""
    recipe = tmp_path / "recipe.yaml"
    text = recipe_file.read_text().replace("test.jsonl", str(recipe_file.parent / "test.jsonl"))
    recipe.write_text(text.replace("epochs: 20", "epochs: 2, adaptation: lora"))
    directory = tmp_path / "run"
    assert main(["distill", str(recipe), "--output-dir", str(directory), "--quiet"]) == 0
    usage = (directory / "usage.json").read_text()
    capsys.readouterr()
    assert main(["export", str(directory), "--format", "adapter"]) == 0
    folder = directory / "export-adapter"
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["rank_pattern"] == settings["alpha_pattern"] == {}
    assert settings["r"] == settings["lora_alpha"]
    assert f"--lora-modules student={folder}" in capsys.readouterr().out
    questions = [user(f"What does a {one} eat?") for one in ("hen", "cow", "fox")]
    answers = [
        [answer.text for answer in HuggingFaceModel(place, dtype="float32").generate(questions)]
        for place in (folder, directory / "model")
    ]
    assert answers[0] == answers[1]
    assert (directory / "usage.json").read_text() == usage


@contextmanager
def started(words: list[str], log: Path) -> Iterator[str]:
    """Starts real vLLM by a command line, and yields its address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    options += ["--max-model-len", "256", "--enforce-eager"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*words, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        while True:
            assert server.poll() is None, log.read_text(errors="replace")[-3_000:]
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.engines
@pytest.mark.timeout(3_600)
@pytest.mark.skipif("VLLM" not in os.environ, reason="VLLM names no command")
def test_vllm_serves_the_adapter_by_the_line_that_is_printed_and_it_answers_as_here(
    make_llama: Callable[..., Path],
    make_adapter: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # vLLM's attention has no heads of fewer than 32 numbers on a CPU.
    base = make_llama("served", seed=3, head_dim=32)
    # Of different ranks: the student is their sum.
    experts = {
        "animals": make_adapter("animals", 1, base=base, r=4),
        "colours": make_adapter("colours", 2, base=base, r=6),
    }
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(each) + "\n" for each in TEST))
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "a run"
    recipe.write_text(RECIPE.format(student=base, **experts))
    words = ["distill", str(recipe), "--output-dir", str(run), "--quiet"]
    words += ["--set", "trainer.adaptation=lora", "--until", "train"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["export", str(run), "--format", "adapter"]) == 0
    [line] = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("vLLM:  vllm serve")
    ]
    asked = [user(f"What does a {animal} eat?") for animal in ("cow", "fox", "hen", "dog", "bee")]
    sampling = Sampling(max_new_tokens=16)
    command = [os.environ["VLLM"], *shlex.split(line)[2:]]
    with started(command, tmp_path / "vllm.log") as address:
        served = APIModel("student", base_url=address, dialect=Dialect(accept_empty=True))
        found = [answer.text for answer in served.generate(asked, sampling)]
    here = HuggingFaceModel(run / "model", dtype="float32", device="cpu")
    assert found == [answer.text for answer in here.generate(asked, sampling)]
    untrained = HuggingFaceModel(base, dtype="float32", device="cpu").generate(asked, sampling)
    assert found != [answer.text for answer in untrained]


def test_a_student_whose_weights_were_all_trained_is_not_an_adapter(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    assert main(["export", str(directory), "--format", "adapter"]) == 1
    assert "--format transformers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hub", "me/model", "--format", "messages"], "--hub"),
        (["--dtype", "f16"], "--dtype"),
        (["--format", "gguf", "--dtype", "float16"], "f32, f16, bf16, q8_0"),
        (["--format", "adapter", "--dtype", "f16"], "stays as it is"),
        (["--public"], "--hub"),
    ],
)
def test_words_that_do_not_go_together(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "run", *words])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_what_has_no_student_says_what_to_do(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), "--format", "gguf"]) == 1
    assert "neither the directory of a run" in capsys.readouterr().err
    directory = copy_of(finished_run, tmp_path)
    (directory / "model" / "config.json").unlink()
    assert main(["export", str(directory), "--format", "gguf"]) == 1
    assert "no student yet" in capsys.readouterr().err


TOKEN = "hf_aSecretTokenOfTheTest"


class _Hub:
    """A stand-in of the hub: repositories in memory, behind the routes that an upload takes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.objects: dict[str, bytes] = {}
        self.refuses = 0

    @contextmanager
    def serving(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self.url
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if self.refuses:
            return self.refuses, {"error": "You may not write here"}
        if method == "PUT":
            self.objects[path.rpartition("/")[2]] = body
            return 200, {}
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            return 200, {"url": f"{self.url}/me/model"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return 200, {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith("safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for one in files
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            uploads = [
                {**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}}
                for one in objects
            ]
            return 200, {"transfer": "basic", "objects": uploads}
        if "/commit/" in path:
            self._commit(body)
            return 200, {"commitUrl": f"{self.url}/me/model/commit/1", "commitOid": "1"}
        return 404, {"error": f"no such route: {method} {path}"}

    def _commit(self, body: bytes) -> None:
        import base64

        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.command != "PUT":
                    hub.tokens.add(self.headers.get("Authorization"))
                status, found = hub.answer(self.command, self.path.partition("?")[0], body)
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_HEAD = reply

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler


def upload(directory: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",  # whose servers cut files into pieces; the rest is the same
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        command("export", directory, "--hub", "me/model", *words),
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_student_goes_to_the_hub_and_its_token_to_nobody_else(
    finished_run: Path, tmp_path: Path
) -> None:
    hub, directory = _Hub(), copy_of(finished_run, tmp_path)
    with hub.serving() as url:
        done = upload(directory, url, "--verbose")
    assert done.returncode == 0, done.stderr
    on_disk = {path.name: path.read_bytes() for path in (directory / "model").iterdir()}
    assert hub.files == on_disk
    [made] = hub.made
    assert made.get("visibility") == "private" or made.get("private") is True
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert f"On the hub: {url}/me/model" in done.stdout
    written = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in one for one in written)


def test_a_hub_that_refuses_is_one_clear_error(finished_run: Path, tmp_path: Path) -> None:
    hub, directory = _Hub(), copy_of(finished_run, tmp_path)
    hub.refuses = 403
    with hub.serving() as url:
        done = upload(directory, url)
    assert done.returncode == 1
    assert "The hub rejected the upload" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_a_hub_that_is_not_there_is_one_clear_error(finished_run: Path, tmp_path: Path) -> None:
    directory = copy_of(finished_run, tmp_path)
    with _Hub().serving() as url:
        pass
    done = upload(directory, url)
    assert done.returncode == 1
    assert "The hub rejected the upload" in done.stderr
