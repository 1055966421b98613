"""Answers a second of one model: by this library, llama.cpp and vLLM, with the answers compared.

    python benchmarks/engines.py                       # ours and llama.cpp (the package xllamacpp)
    VLLM=.venv-engines/bin/vllm python benchmarks/engines.py    # and vLLM, in an environment of its own

The model is one expert of the demo, merged into its base, in float32 on the CPU; the questions are
those of its frozen test set. Each engine first answers a few other questions, which starts its
server and loads the weights. Then they take turns: in each round every engine answers the same
questions, which none has seen, in an order that rotates. CPU seconds are those of the process that
answers, with its children. Writes `engines.json` and `engines.md`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from domainfusion.demo.questions import build_questions
from domainfusion.demo.world import base_folder, load_world, world_folder
from domainfusion.models import Engine, LlamaModel, write_gguf
from domainfusion.models.engine import stop_engines
from domainfusion.types import Conversation, Sampling, user
from machine import machine

HERE = Path(__file__).parent
WARM_UP = 4


def questions_of(domain: str, count: int) -> list[Conversation]:
    """Returns questions of one domain from the demo's test set."""
    tests = build_questions(load_world(world_folder())).test
    own = [example.query for example in tests if example.domains == (domain,)]
    return [user(query) for query in own[:count]]


def models_in(folder: Path, domain: str) -> dict[str, LlamaModel]:
    """Merges the expert, and returns it as each engine has it."""
    expert = LlamaModel(
        world_folder() / "adapters" / domain, base_model=base_folder(), dtype="float32"
    )
    whole = folder / "model"
    expert.trainable_copy(None).save(whole)
    file = write_gguf(whole, folder / "model.gguf", dtype="f32")
    plain: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    found = {
        "domainfusion": LlamaModel(whole, **plain),
        "llama.cpp": LlamaModel(file, engine="llamacpp", **plain),
    }
    if command := os.environ.get("VLLM"):
        engine = Engine(
            command=(command, "serve"),
            options=("--max-model-len", "1024", "--enforce-eager"),
            environment={"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"},
        )
        found["vLLM"] = LlamaModel(whole, engine=engine, **plain)
    return found


def versions() -> str:
    """Returns the versions of what answers, each of its own environment."""
    parts = ["torch", "transformers", "xllamacpp"]
    named = [f"{name} {importlib.metadata.version(name)}" for name in parts]
    if command := os.environ.get("VLLM"):
        asked = "from importlib.metadata import version as v; print(v('vllm'), v('torch'))"
        python = Path(command).with_name("python")
        given = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True)
        vllm, torch = given.stdout.split()
        named.append(f"vLLM {vllm} with torch {torch}")
    return ", ".join(named)


def command_line() -> str:
    """Returns how this program was called."""
    vllm = "VLLM=.venv-engines/bin/vllm " if "VLLM" in os.environ else ""
    return " ".join([f"{vllm}python benchmarks/engines.py", *sys.argv[1:]])


class Answered(NamedTuple):
    """One round of one engine.

    Attributes:
        texts: Its answers.
        tokens: Tokens that it wrote.
        seconds: Wall-clock seconds.
        cpu_seconds: CPU seconds of the process that answers, and of its children.
    """

    texts: list[str]
    tokens: int
    seconds: float
    cpu_seconds: float


def cpu_seconds_of(model: LlamaModel) -> float:
    """Returns the CPU seconds that the process has used that answers for a model."""
    process = psutil.Process()
    processes = [process]
    if model.engine is not None:
        server = model._server()._process
        assert server is not None
        process = psutil.Process(server.pid)
        processes = [process, *process.children(recursive=True)]
    total = 0.0
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def answered(model: LlamaModel, asked: Sequence[Conversation], sampling: Sampling) -> Answered:
    """Lets a model answer, and returns what that took."""
    cpu, began = cpu_seconds_of(model), time.perf_counter()
    answers = model.generate(asked, sampling)
    seconds = time.perf_counter() - began
    return Answered(
        [answer.text for answer in answers],
        sum(answer.completion_tokens for answer in answers),
        seconds,
        cpu_seconds_of(model) - cpu,
    )


def measure(domain: str, count: int, rounds: int, tokens: int) -> dict[str, Any]:
    """Returns all figures, ours first.

    Args:
        domain: Whose expert and questions.
        count: Questions of a round.
        rounds: Rounds.
        tokens: Tokens of an answer, at most.
    """
    asked = questions_of(domain, WARM_UP + count * rounds)
    short = Sampling(max_new_tokens=tokens)
    took: dict[str, list[Answered]] = {}
    starts: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = models_in(Path(folder), domain)
        for name, model in models.items():
            began = time.perf_counter()
            model.generate(asked[:WARM_UP], short)
            starts[name] = time.perf_counter() - began
        load = os.getloadavg()[0]
        names = list(models)
        for number in range(rounds):
            first = WARM_UP + number * count
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                found = answered(models[name], asked[first : first + count], short)
                took.setdefault(name, []).append(found)
                print(name, f"{found.seconds:.1f} s, {found.cpu_seconds:.1f} CPU s", flush=True)
        for model in models.values():
            model.release()
        stop_engines()
    ours = [text for one in took["domainfusion"] for text in one.texts]
    questions = asked[WARM_UP:]
    return {
        "domain": domain,
        "questions": len(questions),
        "rounds": rounds,
        "max_new_tokens": tokens,
        "engines": [_figures(name, took[name], ours, questions, starts[name]) for name in models],
        "examples": [
            {"question": questions[place][-1].content, "answer": ours[place]} for place in range(3)
        ],
        "load": round(load, 1),
        "machine": machine(),
        "versions": versions(),
        "command": command_line(),
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as there are cores"),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _figures(
    name: str,
    rounds: Sequence[Answered],
    ours: Sequence[str],
    questions: Sequence[Conversation],
    start: float,
) -> dict[str, Any]:
    texts = [text for one in rounds for text in one.texts]
    different = []
    for question, own, its in zip(questions, ours, texts, strict=True):
        if own != its:
            different.append({"question": question[-1].content, "ours": own, "its": its})
    return {
        "engine": name,
        "start_seconds": round(start, 1),
        "answers_a_second": _spread([len(one.texts) / one.seconds for one in rounds]),
        "answers_a_cpu_second": _spread([len(one.texts) / one.cpu_seconds for one in rounds]),
        "tokens_a_cpu_second": _spread([one.tokens / one.cpu_seconds for one in rounds]),
        "same_answers": len(texts) - len(different),
        "different": different,
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": round(median(values), 3),
        "lowest": round(min(values), 3),
        "highest": round(max(values), 3),
    }


def page(found: dict[str, Any]) -> str:
    """Returns the figures as a page."""
    lines = [
        "# Answers a second, by engine",
        "",
        f"Written by `{found['command']}` on {found['date']}, {found['machine']};"
        f" `OMP_NUM_THREADS`: {found['threads']}; load of the machine at the start:"
        f" {found['load']:g}. Versions: {found['versions']}.",
        "",
        f"{found['questions']} questions of the demo's {found['domain']} test set, greedy, at most"
        f" {found['max_new_tokens']} tokens, to one expert merged into its base, in float32, in"
        f" {found['rounds']} rounds in which the engines take turns. Medians of the rounds, with the"
        " lowest and the highest. The first answers, with the start of a server or the loading of"
        " weights, are timed apart. Where the load is above the number of cores, other programs ran"
        " beside it, and seconds say little: CPU seconds, of the process that answers with its"
        " children, compare engines better, and the texts do.",
        "",
        "| engine | answers a CPU second | tokens a CPU second | answers a second |"
        " first answers (s) | same text as ours |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in found["engines"]:
        rates = ("answers_a_cpu_second", "tokens_a_cpu_second", "answers_a_second")
        cells = " | ".join(_shown(one[name]) for name in rates)
        lines.append(
            f"| {one['engine']} | {cells} | {one['start_seconds']:g} |"
            f" {one['same_answers']} of {found['questions']} |"
        )
    named = {one["engine"] for one in found["engines"]}
    if "vLLM" not in named:
        lines += ["", "vLLM was not measured: `VLLM` named no command."]
    lines.append("")
    return "\n".join(lines)


def _shown(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3g} ({spread['lowest']:.3g}–{spread['highest']:.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", default="chemistry")
    parser.add_argument("--questions", type=int, default=8, help="questions of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    found = measure(options.domain, options.questions, options.rounds, options.tokens)
    (HERE / "engines.json").write_text(
        json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (HERE / "engines.md").write_text(page(found), encoding="utf-8")
    print(page(found))


if __name__ == "__main__":
    main()
