"""Trains the experts of a world: LoRA adapters on the base, each on the facts of its domain.

Run with `python -m domainfusion.demo.train_experts [--data FOLDER] [DOMAIN ...]`. It writes
`FOLDER/adapters/DOMAIN/` in bfloat16 safetensors. The demo's own are committed, so that it starts
from experts as a user does; about six minutes a domain on two cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from domainfusion.demo.world import World, base_folder, load_world, world_folder
from domainfusion.distillation.metrics import states
from domainfusion.distillation.trainer import ExecutionSettings, Phase, Trainer
from domainfusion.errors import ConfigurationError, DomainFusionError
from domainfusion.models import LlamaModel
from domainfusion.types import Example, Integration, Part, Sampling, TrainingRecord, user

UPSTREAM_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
SEED = 0
BATCH_SIZE = 32

EPOCHS, FEWEST_STEPS = 5, 110
"""Passes over the facts, and the steps that there have to be: a small world takes more passes."""

PHRASINGS = 6
"""Of a fact's training phrasings an expert sees at most so many, the first."""

logger = logging.getLogger("domainfusion")


class ExpertTrainer(Trainer):
    """Shows every fact in each of its first training phrasings."""

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the one phase, `facts`."""
        return [Phase(name="facts", records=tuple(records))]


def records_of(world: World, domain: str) -> list[TrainingRecord]:
    """Returns a record for each fact of the domain and each of its first training phrasings; the
    others are for the student, whose questions vary more.
    """
    records = []
    for fact in world.facts:
        if fact.domain != domain:
            continue
        part = Part(domain=domain, answers=fact.answers)
        target = Integration(text=fact.sentence(), method="reference")
        for question in fact.questions("train")[:PHRASINGS]:
            example = Example(query=question, domains=(domain,), parts=(part,), source="curated")
            record = TrainingRecord(
                example=example, responses=(), integration=target, verification="verified"
            )
            records.append(record)
    return records


def epochs_for(records: int) -> int:
    """Returns how many passes over so many records make enough steps."""
    return max(EPOCHS, math.ceil(FEWEST_STEPS / math.ceil(records / BATCH_SIZE)))


def train_expert(world: World, domain: str) -> float:
    """Trains a domain's expert, writes it, and returns its accuracy on the validation phrasings."""
    folder = world.adapter(domain)
    records = records_of(world, domain)
    trainer = ExpertTrainer(
        learning_rate=1e-3,
        epochs=epochs_for(len(records)),
        batch_size=BATCH_SIZE,
        adaptation="lora",
        lora_rank=16,
        initialization="base",
        execution=ExecutionSettings(checkpoint_steps=1000),
    )
    expert = trainer.train(LlamaModel(base_folder()), records, seed=SEED)
    expert.save(folder, merge=False)
    for leftover in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / leftover).unlink(missing_ok=True)
    _to_bfloat16(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = UPSTREAM_BASE
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return accuracy(LlamaModel(folder, base_model=base_folder()), world, domain)


def _to_bfloat16(weights: Path) -> None:
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})


def accuracy(model: LlamaModel, world: World, domain: str) -> float:
    """Returns the share of the domain's facts that the model states in the validation phrasing."""
    facts = [fact for fact in world.facts if fact.domain == domain]
    questions = [user(fact.questions("validation")[0]) for fact in facts]
    answers = model.generate(questions, Sampling(max_new_tokens=32))
    right = 0
    for fact, answer in zip(facts, answers, strict=True):
        right += any(states(answer.text, accepted) for accepted in fact.answers)
    return right / len(facts)


def main() -> None:
    """Trains the experts that the command line names, by default all of the world's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=None, help="the folder of the world (default: the demo's)"
    )
    parser.add_argument(
        "domains", nargs="*", metavar="DOMAIN", help="train the experts of these domains alone"
    )
    arguments = parser.parse_args()
    world = load_world(arguments.data or world_folder())
    for name in arguments.domains:
        if name not in world.domains:
            raise ConfigurationError(
                "The world has no such domain", received=name, allowed=", ".join(world.domains)
            )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in arguments.domains or world.domains:
        found = train_expert(world, name)
        logger.info("%s: states %.1f %% of its facts in the validation phrasing", name, 100 * found)


if __name__ == "__main__":
    try:
        main()
    except DomainFusionError as error:
        sys.exit(f"Error: {error}")
