"""Trains the demo's three experts: LoRA adapters on the base, each on the facts of its domain.

Run with `python -m domainfusion.demo.train_experts [DOMAIN ...]`. It writes `adapters/DOMAIN/` in bfloat16 safetensors. The adapters
are committed, so that the demo starts from experts as a user does; about six minutes a domain on two cores.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from domainfusion.demo.base import base_folder
from domainfusion.demo.questions import DOMAINS, load_facts
from domainfusion.distillation.metrics import states
from domainfusion.distillation.trainer import Phase, Trainer
from domainfusion.models import LlamaModel
from domainfusion.types import Example, Integration, Part, Sampling, TrainingRecord, user

ADAPTERS = Path(__file__).with_name("adapters")
UPSTREAM_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
SEED = 0

logger = logging.getLogger("domainfusion")


class ExpertTrainer(Trainer):
    """Shows every fact in every training phrasing."""

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the one phase, `facts`."""
        return [Phase(name="facts", records=tuple(records))]


def records_of(domain: str) -> list[TrainingRecord]:
    """Returns a record for each fact of the domain and each training phrasing."""
    return [
        TrainingRecord(
            example=Example(query=question, domains=(domain,), parts=(Part(domain=domain, answers=fact.answers),), source="curated"),
            responses=(),
            integration=Integration(text=fact.sentence(), method="reference"),
            verification="verified",
        )
        for fact in load_facts()
        if fact.domain == domain
        for question in fact.questions("train")
    ]


def train_expert(domain: str, folder: Path) -> float:
    """Trains the expert of a domain, writes it to `folder`, and returns its accuracy on the validation phrasings."""
    base = LlamaModel(base_folder())
    trainer = ExpertTrainer(
        learning_rate=1e-3, epochs=5, batch_size=32, adaptation="lora", lora_rank=16, initialization="base", checkpoint_steps=1000
    )
    expert = trainer.train(base, records_of(domain), seed=SEED)
    expert.save(folder, merge=False)
    for leftover in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / leftover).unlink(missing_ok=True)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = UPSTREAM_BASE
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return accuracy(LlamaModel(folder, base_model=base_folder()), domain)


def accuracy(model: LlamaModel, domain: str) -> float:
    """Returns the share of the domain's facts that the model gets right in the validation phrasing."""
    facts = [fact for fact in load_facts() if fact.domain == domain]
    answers = model.generate([user(fact.questions("validation")[0]) for fact in facts], Sampling(max_new_tokens=32))
    right = [any(states(answer.text, accepted) for accepted in fact.answers) for fact, answer in zip(facts, answers, strict=True)]
    return sum(right) / len(right)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in sys.argv[1:] or DOMAINS:
        logger.info("%s: %.3f of the facts right in the validation phrasing", name, train_expert(name, ADAPTERS / name))
