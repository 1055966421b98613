"""What experts that share a base cost: memory with 1 to 8 of them, generation against the bare
base, and mixed batches.

The base is SmolLM2-135M-Instruct, the experts are the demo's adapters; there are eight of them
because copies with weights slightly moved (by normal noise of 0.001, seed 0) stand for more. Memory
is that of a process which loads the experts and asks each of them.

    python benchmarks/shared_base_memory.py --write

writes `shared_base_memory.json` and `shared_base_memory.md` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from domainfusion.demo.world import base_folder, world_folder
from domainfusion.models import LlamaModel, generate_with
from domainfusion.models.placement import DataType
from domainfusion.models.shared_base import give_memory_back
from domainfusion.types import Conversation, Sampling, user

HERE = Path(__file__).parent
COUNTS = (0, 1, 2, 4, 8)
SEED = 0
MEGABYTE = 1e6


class Unending(LlamaModel):
    """Never stops before it is cut, so that every run writes the same number of tokens."""

    @property
    def end_tokens(self) -> set[int]:
        """A token that no model writes."""
        return {self.vocabulary_size}


def make_experts(folder: Path, count: int) -> list[Path]:
    """Copies the demo's adapters in turn, each copy with its weights slightly moved, and returns
    their folders.
    """
    originals = sorted(path for path in (world_folder() / "adapters").iterdir() if path.is_dir())
    generator = torch.Generator().manual_seed(SEED)
    made = []
    for number in range(count):
        target = folder / f"expert-{number}"
        shutil.copytree(originals[number % len(originals)], target)
        file = target / "adapter_model.safetensors"
        weights = {
            name: tensor + torch.randn(tensor.shape, generator=generator).mul(1e-3).to(tensor)
            for name, tensor in load_file(file).items()
        }
        save_file(weights, file, metadata={"format": "pt"})
        made.append(target)
    return made


def questions(count: int) -> list[Conversation]:
    return [user(f"Tell me a long story about the number {number}.") for number in range(count)]


# Memory


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def measure_memory_here(adapters: Sequence[str], dtype: DataType) -> dict[str, int]:
    """Loads the base and the experts, asks each, and returns what the process then holds."""
    base = LlamaModel(base_folder(), dtype=dtype)
    before = resident_bytes()
    experts = [LlamaModel(adapter, base_model=base_folder(), dtype=dtype) for adapter in adapters]
    for model in (base, *experts):
        model.generate(questions(1), Sampling(max_new_tokens=4))
    give_memory_back()
    named = dict(base._load().module.named_parameters())
    sizes = {
        name: parameter.numel() * parameter.element_size() for name, parameter in named.items()
    }
    of_adapters = sum(size for name, size in sizes.items() if "lora_" in name)
    return {
        "experts": len(experts),
        "resident": resident_bytes() - before,
        "base_weights": sum(sizes.values()) - of_adapters,
        "adapter_weights": of_adapters,
        "adapter_files": sum(
            (Path(adapter) / "adapter_model.safetensors").stat().st_size for adapter in adapters
        ),
    }


def measure_memory(adapters: Sequence[Path], dtype: DataType) -> list[dict[str, int]]:
    """Measures each number of experts in a process of its own."""
    rows = []
    for count in COUNTS:
        command = [
            sys.executable,
            "-W",
            "ignore",
            __file__,
            "--dtype",
            dtype,
            "--memory-of",
            *map(str, adapters[:count]),
        ]
        rows.append(
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        )
    return rows


# Speed


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_throughput(
    adapters: Sequence[Path], dtype: DataType, rows: int, tokens: int, repeats: int
) -> dict[str, Any]:
    """Lets base and expert take turns; the expert's time is measured with and without the switch to
    it.
    """
    base = Unending(base_folder(), dtype=dtype, batch_size=rows)
    expert = Unending(adapters[0], base_model=base_folder(), dtype=dtype, batch_size=rows)
    asked, sampling = questions(rows), Sampling(max_new_tokens=tokens)
    for model in (expert, base):
        model.generate(asked, Sampling(max_new_tokens=2))
    runs = []
    shared = base._load()
    for _ in range(repeats):
        to_base = seconds(shared.restore)
        bare = seconds(lambda: base.generate(asked, sampling))
        to_expert = seconds(lambda: shared.activate(expert._adapter, merge=True))
        merged = seconds(lambda: expert.generate(asked, sampling))
        runs.append(
            {
                "base": bare,
                "expert": merged,
                "switch_to_expert": to_expert,
                "switch_to_base": to_base,
            }
        )
    written = rows * tokens
    ratios = [run["base"] / run["expert"] for run in runs]
    with_switch = [
        run["base"] / (run["expert"] + run["switch_to_expert"] + run["switch_to_base"])
        for run in runs
    ]
    return {
        "rows": rows,
        "tokens": tokens,
        "repeats": repeats,
        "base_tokens_per_second": written / median(run["base"] for run in runs),
        "expert_tokens_per_second": written / median(run["expert"] for run in runs),
        "ratio": spread(ratios),
        "ratio_with_switches": spread(with_switch),
        "switch_seconds": median(run["switch_to_expert"] for run in runs),
        "runs": runs,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    lower, _, upper = quantiles(values, n=4)
    return {
        "median": median(values),
        "lower_quartile": lower,
        "upper_quartile": upper,
        "lowest": min(values),
        "highest": max(values),
    }


def _ask_in_turn(
    experts: Sequence[LlamaModel], asked: Sequence[Conversation], sampling: Sampling
) -> None:
    for expert in experts:
        expert.generate(asked, sampling)


def measure_mixing(
    adapters: Sequence[Path], dtype: DataType, tokens: int, repeats: int
) -> list[dict[str, Any]]:
    """Asks several experts in one batch and in turn, alternating."""
    experts = [Unending(adapter, base_model=base_folder(), dtype=dtype) for adapter in adapters]
    sampling = Sampling(max_new_tokens=tokens)
    found = []
    for count, each in ((2, 1), (4, 1), (8, 1), (2, 4), (4, 4), (8, 4), (2, 16)):
        asked = questions(each)
        models = [expert for expert in experts[:count] for _ in asked]
        together, in_turn = [], []
        for _ in range(repeats):
            together.append(seconds(partial(generate_with, models, asked * count, sampling)))
            in_turn.append(seconds(partial(_ask_in_turn, experts[:count], asked, sampling)))
        found.append(
            {
                "experts": count,
                "rows_each": each,
                "together_seconds": median(together),
                "in_turn_seconds": median(in_turn),
            }
        )
    return found


# Results


def as_markdown(results: dict[str, Any]) -> str:
    memory, speed, mixing = results["memory"], results["throughput"], results["mixing"]
    by_count = {row["experts"]: row for row in memory}
    grown, weights = (
        by_count[8][what] - by_count[1][what] for what in ("resident", "adapter_weights")
    )
    bases = 7 * by_count[0]["base_weights"]
    grown, weights, bases = (f"{size / MEGABYTE:,.0f} MB" for size in (grown, weights, bases))
    ratio, switched = speed["ratio"], speed["ratio_with_switches"]
    lines = [
        "# Experts that share a base",
        "",
        (
            f"SmolLM2-135M-Instruct in {results['dtype']} with LoRA experts of rank 16 on all of"
            " its linear layers: the demo's, copied with"
        ),
        (
            f"slightly moved weights (seed {SEED}). {results['date']}, {results['machine']}; Python"
            f" {results['python']}, torch"
        ),
        f"{results['torch']}, peft {results['peft']}. Made by `{results['command']}`.",
        "",
        "## Memory",
        "",
        (
            "What a process holds more than before it loaded anything, after every expert has"
            " answered and freed memory was given back."
        ),
        "",
        "| experts | resident | of it adapters | adapter files |",
        "|---:|---:|---:|---:|",
    ]
    for row in memory:
        resident, adapter, files = (
            row[what] / MEGABYTE for what in ("resident", "adapter_weights", "adapter_files")
        )
        lines.append(
            f"| {row['experts']} | {resident:,.0f} MB | {adapter:,.0f} MB | {files:,.0f} MB |"
        )
    lines += [
        "",
        (
            f"From 1 to 8 experts the process grows by {grown}; the seven adapters are {weights},"
            " in float32 as PEFT"
        ),
        (
            f"keeps them. Seven more bases would be {bases}. The first expert also brings the copy"
            " of the"
        ),
        "weights that experts are merged into, which all share.",
        "",
        "## Speed of one expert",
        "",
        (
            f"{speed['rows']} rows in a batch, {speed['tokens']} tokens each; base and expert take"
            f" turns {speed['repeats']} times in"
        ),
        "one process.",
        "",
        "| | tokens a second | times the base: median (quartiles; range) |",
        "|---|---:|---:|",
        f"| base | {speed['base_tokens_per_second']:,.0f} | 1 |",
        f"| expert | {speed['expert_tokens_per_second']:,.0f} | {in_words(ratio)} |",
        f"| expert, switching to it and back each time | | {in_words(switched)} |",
        "",
        (
            f"Switching to an expert (merging it) takes {speed['switch_seconds']:.2f} s, once for"
            " any number of questions."
        ),
        "",
        "## One batch for several experts",
        "",
        (
            f"`generate_with` against asking the experts in turn, {results['mixing_tokens']} tokens"
            " each, medians of"
        ),
        f"{results['mixing_repeats']} alternating runs.",
        "",
        "| experts | rows each | in one batch | in turn | times faster |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in mixing:
        together, in_turn = row["together_seconds"], row["in_turn_seconds"]
        lines.append(
            f"| {row['experts']} | {row['rows_each']} | {together:.2f} s | {in_turn:.2f} s |"
            f" {in_turn / together:.2f} |"
        )
    return "\n".join(lines) + "\n"


def in_words(found: dict[str, float]) -> str:
    quartiles, whole = (
        f"{found[low]:.2f}–{found[high]:.2f}"
        for low, high in (("lower_quartile", "upper_quartile"), ("lowest", "highest"))
    )
    return f"{found['median']:.2f} ({quartiles}; {whole})"


def main() -> None:
    parser = argparse.ArgumentParser(description="What experts that share a base cost.")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--mixing-tokens", type=int, default=12)
    parser.add_argument("--mixing-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the results beside this file")
    parser.add_argument("--memory-of", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of is not None:
        print(json.dumps(measure_memory_here(options.memory_of, options.dtype)))
        return
    with tempfile.TemporaryDirectory() as folder:
        adapters = make_experts(Path(folder), max(COUNTS))
        results = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": (
                f"{options.threads} of {os.cpu_count()} cores ({platform.system()}"
                f" {platform.machine()})"
            ),
            "python": platform.python_version(),
            "torch": version("torch"),
            "peft": version("peft"),
            "command": " ".join(["python", "benchmarks/shared_base_memory.py", *sys.argv[1:]]),
            "seed": SEED,
            "dtype": (
                str(LlamaModel(base_folder(), dtype=options.dtype)._key.dtype).removeprefix(
                    "torch."
                )
            ),
            "memory": measure_memory(adapters, options.dtype),
            "throughput": measure_throughput(
                adapters, options.dtype, options.rows, options.tokens, options.repeats
            ),
            "mixing": measure_mixing(
                adapters, options.dtype, options.mixing_tokens, options.mixing_repeats
            ),
            "mixing_tokens": options.mixing_tokens,
            "mixing_repeats": options.mixing_repeats,
        }
    text = as_markdown(results)
    print(text)
    if options.write:
        (HERE / "shared_base_memory.md").write_text(text, encoding="utf-8")
        (HERE / "shared_base_memory.json").write_text(
            json.dumps(results, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
