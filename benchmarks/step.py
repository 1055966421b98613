"""The seconds of one training step: with the rows of a pass read as one tree, with padded rows, and
by TRL's `SFTTrainer`, on the same rows from the same adapter.

    python benchmarks/step.py --write

Each side is a process of its own that is started once; they take turns. TRL comes with the extra
`benchmarks`: `pip install -e ".[benchmarks]"`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from domainfusion.demo.questions import build_questions
from domainfusion.demo.world import base_folder, load_world, world_folder
from domainfusion.models import LlamaModel
from domainfusion.models.base import Adaptation
from domainfusion.training import loop
from domainfusion.training.batching import Row, encode_record
from domainfusion.types import Example, Integration, TrainingRecord
from threads import WAYS, Worker

SEED = 0
BATCH = 8
STEPS = 12
"""Steps that are timed in a round; one before them is not."""
RATE = 1e-4
RESULTS = Path(__file__).with_suffix(".json")

SIDES = {
    "tree": "domainfusion, the rows of a pass as one tree",
    "padded": "domainfusion, padded rows",
    "trl": "TRL's SFTTrainer",
}


def lessons() -> list[tuple[str, str]]:
    """Returns the demo's questions of two domains, drawn with the seed, and their answers in the
    sentences that the experts were taught.
    """
    world = load_world(world_folder())
    sentences = {fact.id: fact.sentence() for fact in world.facts}
    questions = [one for one in build_questions(world).train if one.is_cross_domain]
    drawn = random.Random(SEED).sample(questions, BATCH * (STEPS + 1))
    return [
        (one.query, " ".join(sentences[fact] for fact in one.metadata["facts"])) for one in drawn
    ]


def student() -> Any:
    """Returns the student that all sides start from: the sum of the demo's experts, an adapter."""
    world = load_world(world_folder())
    experts = [
        LlamaModel(world.adapter(name), base_model=base_folder(), name=name)
        for name in world.domains
    ]
    base = LlamaModel(base_folder(), name="base")
    return base.trainable_copy(Adaptation(start_from=tuple(experts)))


def our_side(*, as_tree: bool) -> Callable[[], dict[str, Any]]:
    """Returns what trains the steps by this library, and tells their seconds and first loss."""
    if not as_tree:
        loop._reads_trees = lambda *_: False
    trained = student()
    rows = []
    for query, answer in lessons():
        target = Integration(text=answer, method="reference")
        example = Example(query=query, domains=("aviation",))
        rows.append(
            encode_record(
                TrainingRecord(example=example, responses=(), integration=target), trained
            )
        )
    settings = loop.LoopSettings(
        learning_rate=RATE, warmup_share=0, batch_size=BATCH, checkpoint_steps=1_000
    )

    def train() -> dict[str, Any]:
        ends, losses = list[float](), list[float]()

        def log(line: Mapping[str, Any]) -> None:
            ends.append(time.perf_counter())
            losses.append(line["loss"])

        with tempfile.TemporaryDirectory() as directory:
            loop.train_phase(
                trained,
                rows,
                range(len(rows)),
                name="step",
                settings=settings,
                directory=Path(directory),
                log=log,
            )
        return {
            "seconds": (ends[STEPS] - ends[0]) / STEPS,
            "loss": losses[0],
            "gigaflop": gigaflop_of_step(trained.trainable_module(), rows),
        }

    return train


def gigaflop_of_step(module: torch.nn.Module, rows: Sequence[Row]) -> float:
    """Returns what the products of a step take: of every token forward and back to its inputs, of
    an adapter's weights their gradient too, and of answer tokens the head.
    """
    shapes = [(name, each.numel()) for name, each in module.named_parameters() if each.ndim == 2]
    adapter = sum(count for name, count in shapes if ".lora_" in name)
    (embedding,) = (count for name, count in shapes if "embed_tokens" in name)
    body = sum(count for _, count in shapes) - adapter - embedding
    tokens = sum(len(row.tokens) for row in rows)
    answered = sum(len(row.answer) for row in rows)
    total = tokens * (4 * body + 6 * adapter) + answered * 4 * embedding
    return total / (STEPS + 1) / 1e9


def peak() -> float:
    """Returns the GFLOP/s of large products in the data type in which steps are computed."""
    dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    factor = torch.randn(4096, 4096, dtype=dtype)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        factor @ factor
        seconds.append(time.perf_counter() - began)
    return 2 * 4096**3 / min(seconds) / 1e9


def their_side(folder: Path) -> Callable[[], dict[str, Any]]:
    """Returns what trains the same steps by TRL, without what only costs time here."""
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    base = AutoModelForCausalLM.from_pretrained(base_folder(), dtype=dtype)
    trained = PeftModel.from_pretrained(base, str(folder), is_trainable=True)
    rows = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": query}],
                "completion": [{"role": "assistant", "content": answer}],
            }
            for query, answer in lessons()
        ]
    )

    class Times(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    def train() -> dict[str, Any]:
        times = Times()
        with tempfile.TemporaryDirectory() as directory:
            settings = SFTConfig(
                output_dir=directory,
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                max_length=None,
                gradient_checkpointing=False,
                bf16=dtype == torch.bfloat16,
                use_cpu=True,
                dataloader_pin_memory=False,
                save_strategy="no",
                report_to="none",
                logging_steps=1,
                disable_tqdm=True,
                weight_decay=0.0,
                seed=SEED,
            )
            trainer = InOrder(
                model=trained,
                args=settings,
                train_dataset=rows,
                processing_class=AutoTokenizer.from_pretrained(base_folder()),
                callbacks=[times],
            )
            trainer.train()
        loss = float(next(line["loss"] for line in trainer.state.log_history if "loss" in line))
        return {"seconds": (times.ends[STEPS] - times.ends[0]) / STEPS, "loss": loss}

    return train


def work(side: str, folder: Path) -> None:
    """Trains as stdin asks, a line each time."""
    pipe, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not for who started this
    train = their_side(folder) if side == "trl" else our_side(as_tree=side == "tree")
    print(json.dumps("ready"), file=pipe, flush=True)
    for _ in sys.stdin:
        print(json.dumps(train()), file=pipe, flush=True)


def measure(sides: Sequence[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Returns what each side told in each round."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        folder = Path(directory) / "start"
        student().save(folder, merge=False)
        waiting = WAYS["passive, 1,000 spins"]
        workers = {
            side: Worker(waiting, __file__, "--worker", side, "--folder", str(folder))
            for side in sides
        }
        for worker in workers.values():
            stack.callback(worker.stop)
        for number in range(rounds):
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                found[side].append(workers[side].measure("train"))
                print(f"{side}: {found[side][-1]}", file=sys.stderr, flush=True)
    return found


def to_markdown(report: Mapping[str, Any]) -> str:
    """Returns the page of the results."""
    sides = report["sides"]
    tree = [round_["seconds"] for round_ in sides["tree"]]
    work_of_step = sides["tree"][0]["gigaflop"]
    lines = [
        "# A training step",
        "",
        f"SmolLM2-135M-Instruct in the adapter of the sum of the demo's experts, {BATCH} of the"
        " demo's questions that span domains a step, cross-entropy on",
        f"the right answers: {STEPS} steps a round after one that is not timed, the sides in turn,"
        f" {report['rounds']} rounds. Median seconds a step, lowest and highest; how",
        "many times as long as the tree, round by round; share of the rate of a large matrix product"
        f" ({report['peak']:.0f} GFLOP/s, all cores), every row counted by",
        "itself and without padding. The first loss is of the same rows and weights; TRL counts the"
        " line break after an answer's end too.",
        f"{report['date']}, seed {SEED}, {report['machine']}; made by"
        " `python benchmarks/step.py --write`.",
        "",
        "| | seconds a step | times the tree's | share of the peak | first loss |",
        "|---|---:|---:|---:|---:|",
    ]
    for side, rounds in sides.items():
        seconds = [round_["seconds"] for round_ in rounds]
        times = [own / first for own, first in zip(seconds, tree, strict=True)]
        lines.append(
            f"| {SIDES[side]} | {statistics.median(seconds):.2f}"
            f" ({min(seconds):.2f}–{max(seconds):.2f}) | {statistics.median(times):.2f}"
            f" ({min(times):.2f}–{max(times):.2f}) |"
            f" {work_of_step / statistics.median(seconds) / report['peak']:.0%} |"
            f" {rounds[0]['loss']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.folder)
        return
    from importlib.metadata import version

    versions = [f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl")]
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()}, bfloat16"
        f" {'built in' if torch.cpu._is_avx512_bf16_supported() else 'emulated'}),"
        f" {', '.join(versions)}",
        "rounds": arguments.rounds,
        "peak": peak(),
        "sides": measure(arguments.sides, arguments.rounds),
    }
    page = to_markdown(report)
    print(page)
    if arguments.write:
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        RESULTS.with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
