"""What students of 1B, 8B and 70B take, on paper: memory as `--dry-run` estimates it, and time from
tokens and the GPU's data sheet.

For each size a base, experts and student are written as safetensors headers over empty (sparse)
files, and the recipe beside `examples/` is read with them: memory is `domainfusion.cli.preflight` on
it, the arithmetic of `domainfusion distill --dry-run`. No weight is computed with.

    python benchmarks/large_models.py --write

writes `large_models.md` beside this file.

    python benchmarks/large_models.py --run 1b

makes a Llama of that size from random weights in bfloat16 and three random LoRA experts, has them
write five answers, sums them, trains two steps and saves the student, all on the CPU, and
writes seconds and peak memory of each stage to `large_models.json`, which the page then shows.
`--run tiny` tries the same on a model of a tenth of a million weights, and prints.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from domainfusion.cli.preflight import memory_of
from domainfusion.recipe import read_recipe
from domainfusion.records import write_text
from domainfusion.wording import counted
from machine import machine

HERE = Path(__file__).parent
RECIPES = HERE.parent / "examples" / "large_models"

# What the times assume.
QUESTIONS = 1_000
"""Training questions of each domain."""
CROSS_DOMAIN = 0.2
"""Questions of two domains for each of one: both of its experts answer."""
PROMPT, ANSWER = 150, 300
"""Tokens."""
EPOCHS = 3
TESTED = 100
"""Test questions of each domain, answered by student, base and experts."""
TERAFLOPS, BANDWIDTH, GPU_MEMORY = 989.0, 3.35, 80.0
"""An H100 SXM's data sheet: dense bfloat16 TFLOP/s, TB/s of memory, GB."""
UTILIZATION = 0.35
"""Share of the FLOPs that training and reading prompts reach."""
BATCH = 64
"""Answers that are written together: each step reads all weights once."""
BANDWIDTH_SHARE = 0.5
"""Share of the bandwidth that decoding reaches."""


class Size(NamedTuple):
    """A Llama, as its config.json has it."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    is_tied: bool


SIZES = {
    "1b": Size(2048, 16, 8192, 32, 8, 64, 128_256, True),
    "8b": Size(4096, 32, 14336, 32, 8, 128, 128_256, False),
    "70b": Size(8192, 80, 28672, 64, 8, 128, 128_256, False),
}
TINY = Size(64, 2, 128, 4, 2, 16, 1_024, True)
"""For trying the run itself."""
RANK = 16
EXPERTS_RUN = 3
ANSWER_RUN = 4
"""Tokens of an answer: enough to pass through every stage."""


def shapes_of(size: Size) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each weight of a Llama."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (size.vocabulary, size.hidden)
    }
    for layer in range(size.layers):
        for name, shape in linear_shapes(size).items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (size.hidden,)
    shapes["model.norm.weight"] = (size.hidden,)
    if not size.is_tied:
        shapes["lm_head.weight"] = (size.vocabulary, size.hidden)
    return shapes


def linear_shapes(size: Size) -> dict[str, tuple[int, int]]:
    """Returns the shapes of the linear layers of one block: out, in."""
    queries = size.heads * size.head_size
    keys = size.key_value_heads * size.head_size
    return {
        "self_attn.q_proj": (queries, size.hidden),
        "self_attn.k_proj": (keys, size.hidden),
        "self_attn.v_proj": (keys, size.hidden),
        "self_attn.o_proj": (size.hidden, queries),
        "mlp.gate_proj": (size.intermediate, size.hidden),
        "mlp.up_proj": (size.intermediate, size.hidden),
        "mlp.down_proj": (size.hidden, size.intermediate),
    }


def adapter_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a LoRA adapter of rank 16 on all linear layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(size.layers):
        for name, (rows, columns) in linear_shapes(size).items():
            place = f"base_model.model.model.layers.{layer}.{name}"
            shapes[f"{place}.lora_A.weight"] = (RANK, columns)
            shapes[f"{place}.lora_B.weight"] = (rows, RANK)
    return shapes


def write_empty(file: Path, shapes: dict[str, tuple[int, ...]], dtype: str, width: int) -> None:
    """Writes the header of a safetensors file, and room for its weights that takes none."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + offset)


def write_models(folder: Path, size: Size, experts: int) -> None:
    """Writes base and experts under the names that the recipes have."""
    base = folder / "base"
    base.mkdir(parents=True)
    settings = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16"}
    (base / "config.json").write_text(json.dumps(settings))
    write_empty(base / "model.safetensors", shapes_of(size), "BF16", 2)
    for number in range(1, experts + 1):
        expert = folder / "experts" / f"domain-{number}"
        expert.mkdir(parents=True)
        (expert / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": RANK, "base_model_name_or_path": str(base)})
        )
        write_empty(expert / "adapter_model.safetensors", adapter_shapes(size), "F32", 4)


def write_data(folder: Path, experts: int) -> None:
    """Writes a question of each domain to train on and one to test: memory depends on none."""
    folder.mkdir()
    for name in ("train", "test"):
        lines = [
            json.dumps({"query": f"A {name} question of {one}?", "domain": f"domain-{one}"}) + "\n"
            for one in range(1, experts + 1)
        ]
        (folder / f"{name}.jsonl").write_text("".join(lines))


@dataclass(frozen=True)
class Row:
    """What one student takes."""

    size: str
    experts: int
    gpus: int
    weights: float
    training: float
    collect: float
    train: float
    evaluate: float

    @property
    def each_gpu(self) -> float:
        """GB on each GPU: the larger of answering and training, without activations."""
        return (self.weights + self.training) / self.gpus

    @property
    def fits(self) -> bool:
        """Whether a fifth of the GPU is left for activations and the cache of keys and values."""
        return self.each_gpu < 0.8 * GPU_MEMORY


def rows() -> Iterator[Row]:
    """Computes the table."""
    for name, size in SIZES.items():
        parameters = sum(map(math.prod, shapes_of(size).values()))
        for experts in (3, 10):
            weights, training = memory_by_recipe(name, size, experts)
            for gpus in (1, 8):
                yield Row(name, experts, gpus, weights, training, *times(parameters, experts, gpus))


def memory_by_recipe(name: str, size: Size, experts: int) -> tuple[float, float]:
    """Returns GB of weights and of training, as `--dry-run` has them for the size's recipe."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_models(folder, size, experts)
        recipe = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
        (folder / "recipe.yaml").write_text(with_experts(recipe, experts))
        write_data(folder / "data", experts)
        found = memory_of(read_recipe(folder / "recipe.yaml"))
    *weights, training = found
    # The device computes in bfloat16, the smaller of the types that are named.
    return sum(one.low for one in weights) / 1e9, training.low / 1e9


def with_experts(recipe: str, experts: int) -> str:
    """Returns a recipe with so many domains and teachers in place of its own."""
    domains = "".join(f"  domain-{one}: Domain number {one}\n" for one in range(1, experts + 1))
    teachers = "".join(f"  domain-{one}: experts/domain-{one}\n" for one in range(1, experts + 1))
    head, _, rest = recipe.partition("domains:\n")
    _, _, rest = rest.partition("student:")
    student, _, rest = rest.partition("teachers:\n")
    _, _, rest = rest.partition("generators:")
    return f"{head}domains:\n{domains}student:{student}teachers:\n{teachers}generators:{rest}"


def times(parameters: int, experts: int, gpus: int) -> tuple[float, float, float]:
    """Returns hours of collecting, training and evaluating."""
    single, crossing = QUESTIONS * experts, round(QUESTIONS * experts * CROSS_DOMAIN)
    collect = answering(parameters, single + 2 * crossing, gpus)
    trained = EPOCHS * (single + crossing) * (PROMPT + ANSWER)
    # 2 for the forward pass, 2 for the gradient of activations; LoRA's own weights are few.
    train = 4 * parameters * trained / (TERAFLOPS * 1e12 * UTILIZATION * gpus) / 3600
    evaluate = answering(parameters, TESTED * experts * 3, gpus)
    return collect, train, evaluate


def answering(parameters: int, answers: int, gpus: int) -> float:
    """Returns hours: reading by FLOPs, writing by the bandwidth that reads the weights."""
    reading = 2 * parameters * answers * PROMPT / (TERAFLOPS * 1e12 * UTILIZATION)
    steps = math.ceil(answers / BATCH) * ANSWER
    writing = steps * 2 * parameters / (BANDWIDTH * 1e12 * BANDWIDTH_SHARE)
    return (reading + writing) / gpus / 3600


def run(name: str, size: Size) -> dict[str, Any]:
    """Takes random models of a size through a run, and returns what each stage took."""
    import torch

    from domainfusion.distillation import (
        CuratedDataGenerator,
        Distiller,
        IntegrationTrainer,
        RunSettings,
    )
    from domainfusion.distillation.run import peak_memory_bytes
    from domainfusion.distillation.trainer import MergeSettings
    from domainfusion.models import LlamaModel
    from domainfusion.types import Example, Sampling

    stages: list[dict[str, Any]] = []
    began = time.monotonic()

    def done(stage: str) -> None:
        nonlocal began
        peak = (peak_memory_bytes() or 0) / 1e9
        seconds = time.monotonic() - began
        stages.append({"stage": stage, "seconds": round(seconds, 1), "peak_gb": round(peak, 2)})
        print(json.dumps(stages[-1]), flush=True)
        began = time.monotonic()

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _in_a_process_of_its_own(write_random_models, folder, size)
        began = time.monotonic()
        base = LlamaModel(folder / "base", dtype="bfloat16", device="cpu")
        domains = [f"domain-{number}" for number in range(1, EXPERTS_RUN + 1)]
        experts = {
            domain: LlamaModel(folder / "experts" / domain, dtype="bfloat16", device="cpu")
            for domain in domains
        }
        examples = [Example(query=f"Question of {one}?", domains=(one,)) for one in domains]
        examples.append(Example(query="Question of two?", domains=tuple(domains[:2])))
        # Drawn nearly evenly: the most probable token of random weights is the last one again,
        # which is a special one, and no text.
        drawn = Sampling(max_new_tokens=ANSWER_RUN, temperature=20.0)
        distiller = Distiller(
            base,
            experts,
            [CuratedDataGenerator(examples)],
            IntegrationTrainer(
                adaptation="lora",
                initialization="merge",
                # Other methods solve for the merge in every layer; `auto` tries several.
                merge=MergeSettings("sum", weight=1.0),
                learning_rate=1e-4,
                epochs=1,
                batch_size=4,
                replay=0.0,
            ),
            output_dir=folder / "run",
            settings=RunSettings(response_sampling=drawn),
        )
        collected = distiller.collect(distiller.generate())
        done(f"load, and collect 5 answers of {ANSWER_RUN} tokens")
        records = distiller.integrate(collected)
        done("integrate")
        student = distiller.train(records)
        log = (folder / "run" / "training" / "log.jsonl").read_text(encoding="utf-8")
        steps = sum("loss" in json.loads(line) for line in log.splitlines())
        done(f"sum the experts, and train {counted(steps, 'step')}")
        student.save(folder / "student")
        done("save, the adapter merged into the weights")
        size_on_disk = sum(file.stat().st_size for file in (folder / "student").iterdir())
    return {
        "size": name,
        "parameters": sum(map(math.prod, shapes_of(size).values())),
        "experts": EXPERTS_RUN,
        "stages": stages,
        "student_gb": round(size_on_disk / 1e9, 2),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _in_a_process_of_its_own(function: Any, *arguments: Any) -> None:
    """Calls a function whose memory is not to count."""
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} ended with {process.exitcode}")


def write_random_models(folder: Path, size: Size) -> None:
    """Writes a base in bfloat16 and LoRA experts on it, of random weights."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from tiny_llama import byte_tokenizer

    others = len(byte_tokenizer())
    words = [f"\u0120w{number}" for number in range(size.vocabulary - others)]
    tokenizer = byte_tokenizer(entries=words)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        head_dim=size.head_size,
        tie_word_embeddings=size.is_tied,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    targets = sorted({name.rpartition(".")[2] for name in linear_shapes(size)})
    for number in range(1, EXPERTS_RUN + 1):
        expert = folder / "experts" / f"domain-{number}"
        expert.mkdir(parents=True)
        settings = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": RANK,
            "lora_alpha": RANK,
            "target_modules": targets,
            "base_model_name_or_path": str(folder / "base"),
        }
        (expert / "adapter_config.json").write_text(json.dumps(settings))
        weights = {
            name: 0.01 * torch.randn(shape, dtype=torch.float32)
            for name, shape in adapter_shapes(size).items()
        }
        save_file(weights, expert / "adapter_model.safetensors", metadata={"format": "pt"})


def _measured_lines() -> Iterator[str]:
    """Yields what the page says of the run, where there was one."""
    file = HERE / "large_models.json"
    if not file.is_file():
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    yield "## One size measured"
    yield ""
    yield (
        f"A Llama of {found['parameters'] / 1e9:.2f} billion random weights (seed 0) in bfloat16 with"
        f" {found['experts']} random LoRA experts of rank 16, on the CPU"
        f" (`python benchmarks/large_models.py --run {found['size']}`, {found['date']},"
        f" {found['machine']}, {counted(found['threads'], 'thread')}, torch"
        f" {found['torch']}; beside other work, at a load of {found['load']:g}: the memory is this"
        " process's own, the seconds are not what a free machine takes). The student on disk has"
        f" {found['student_gb']:g} GB."
    )
    yield ""
    yield "| stage | seconds | peak memory of the process so far, GB |"
    yield "|---|---:|---:|"
    for stage in found["stages"]:
        yield f"| {stage['stage']} | {stage['seconds']:g} | {stage['peak_gb']:g} |"
    yield ""


def render() -> str:
    """Returns the page."""
    lines = [
        "# Large models, on paper",
        "",
        "Nothing in this table was measured. Memory is what `domainfusion distill --dry-run` estimates for the"
        " recipes in [examples/large_models](../examples/large_models), from headers of files of these"
        " shapes (Llama 3's; LoRA experts of rank 16; weights in bfloat16). Made by"
        " `python benchmarks/large_models.py --write`.",
        "",
        "| student | experts | GPUs | weights, GB | training, GB | each GPU, GB | fits 80 GB |"
        " collect, min | train, min | evaluate, min |",
        "|---|---:|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows():
        lines.append(
            f"| {row.size.upper()} | {row.experts} | {row.gpus} | {row.weights:,.1f} |"
            f" {row.training:,.1f} | {row.each_gpu:,.1f} | {'yes' if row.fits else 'no'} |"
            f" {60 * row.collect:,.1f} | {60 * row.train:,.1f} |"
            f" {60 * row.evaluate:,.1f} |"
        )
    lines += [
        "",
        *_measured_lines(),
        "## Assumptions",
        "",
        "- Weights: the base once, a copy of it beside a merged adapter, and every adapter in float32."
        " Training: weight, gradient and Adam's two moments, in four bytes each, of the merged"
        " adapter. Activations and the cache of keys and values are left out; a row fits if a fifth"
        " of the GPU stays free for them.",
        "- On 8 GPUs, weights and training are spread evenly: FSDP2 for training, `device_map` or an"
        " engine to answer. With DDP, which is the default of `accelerate launch`, every GPU needs"
        " what one does.",
        f"- Each domain has {QUESTIONS:,} training questions and {TESTED} test questions, and"
        f" {CROSS_DOMAIN:.0%} as many questions of two domains, which both experts answer. A prompt"
        f" has {PROMPT} tokens, an answer {ANSWER}; training has {EPOCHS} epochs. Questions are"
        " curated: writing them comes on top.",
        f"- An H100: {TERAFLOPS:,.0f} TFLOP/s, of which training and reading reach {UTILIZATION:.0%};"
        f" {BANDWIDTH} TB/s, of which writing answers reaches {BANDWIDTH_SHARE:.0%}, {BATCH} answers at"
        " once. Training takes 4 FLOPs a weight and token (LoRA needs no gradient of frozen"
        " weights), reading 2. Eight GPUs take an eighth of the time.",
        "- Experts that fall short of the batch, loading, verification by a model and the report come"
        " on top.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the page, or writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="write large_models.md")
    parser.add_argument("--run", choices=("tiny", "1b"), help="run this size, and keep the figures")
    given = parser.parse_args()
    if given.run == "tiny":
        print(json.dumps(run("tiny", TINY), indent=1))
    elif given.run:
        found = run(given.run, SIZES[given.run])
        write_text(HERE / "large_models.json", json.dumps(found, indent=1) + "\n")
    elif given.write:
        (HERE / "large_models.md").write_text(render(), encoding="utf-8")
    else:
        print(render())


if __name__ == "__main__":
    main()
