"""Answers a second of one model: by this library, llama.cpp and vLLM, with the answers compared.

    python benchmarks/engines.py                       # ours and llama.cpp (the package xllamacpp)
    VLLM=.venv-engines/bin/vllm python benchmarks/engines.py    # and vLLM, in an environment of its own

The model is one expert of the demo, merged into its base, in float32 on the CPU; the questions are
those of its frozen test set. Each engine answers a few questions first, which starts its server and
loads the weights. Writes `engines.json` and `engines.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domainfusion.demo.questions import build_questions
from domainfusion.demo.world import base_folder, load_world, world_folder
from domainfusion.models import Engine, LlamaModel, write_gguf
from domainfusion.models.engine import stop_engines
from domainfusion.types import Conversation, Sampling, user

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


def measure(domain: str, count: int, tokens: int) -> dict[str, Any]:
    """Returns all figures, ours first."""
    asked = questions_of(domain, count)
    short = Sampling(max_new_tokens=tokens)
    engines: list[dict[str, Any]] = []
    ours: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models_in(Path(folder), domain).items():
            began = time.perf_counter()
            model.generate(asked[:WARM_UP], short)
            start = time.perf_counter() - began
            busy = os.getloadavg()[0]
            began = time.perf_counter()
            answers = model.generate(asked, short)
            seconds = time.perf_counter() - began
            texts = [answer.text for answer in answers]
            ours = ours or texts
            same = [one == other for one, other in zip(ours, texts, strict=True)]
            different = [
                {"question": asked[place][-1].content, "ours": ours[place], "its": texts[place]}
                for place, is_same in enumerate(same)
                if not is_same
            ]
            engines.append(
                {
                    "engine": name,
                    "start_seconds": round(start, 1),
                    "seconds": round(seconds, 2),
                    "answers_a_second": round(len(asked) / seconds, 2),
                    "tokens_a_second": round(
                        sum(answer.completion_tokens for answer in answers) / seconds, 1
                    ),
                    "same_answers": sum(same),
                    "different": different,
                    "load": round(busy, 1),
                }
            )
            model.release()
            stop_engines()
    return {
        "domain": domain,
        "questions": len(asked),
        "max_new_tokens": tokens,
        "engines": engines,
        "examples": [
            {"question": asked[place][-1].content, "answer": ours[place]} for place in range(3)
        ],
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as there are cores"),
        "date": datetime.now(UTC).date().isoformat(),
    }


def page(found: dict[str, Any]) -> str:
    """Returns the figures as a page."""
    lines = [
        "# Answers a second, by engine",
        "",
        f"Written by `python benchmarks/engines.py` on {found['date']}, {found['machine']};"
        f" `OMP_NUM_THREADS` for PyTorch: {found['threads']}.",
        "",
        f"{found['questions']} questions of the demo's {found['domain']} test set, greedy, at most"
        f" {found['max_new_tokens']} tokens, to one expert merged into its base, in float32. The first"
        " answers, with the start of a server or the loading of weights, are timed apart. The load is"
        " that of the machine when an engine began: other programs ran beside it, and rates taken under"
        " different loads do not compare engines. The texts do.",
        "",
        "| engine | answers a second | tokens a second | first answers (s) | same text as ours | load |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in found["engines"]:
        lines.append(
            f"| {one['engine']} | {one['answers_a_second']:g} | {one['tokens_a_second']:g} |"
            f" {one['start_seconds']:g} | {one['same_answers']} of {found['questions']} |"
            f" {one['load']:g} |"
        )
    named = {one["engine"] for one in found["engines"]}
    if "vLLM" not in named:
        lines += ["", "vLLM was not measured: `VLLM` named no command."]
    lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", default="chemistry")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    found = measure(options.domain, options.questions, options.tokens)
    (HERE / "engines.json").write_text(
        json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (HERE / "engines.md").write_text(page(found), encoding="utf-8")
    print(page(found))


if __name__ == "__main__":
    main()
