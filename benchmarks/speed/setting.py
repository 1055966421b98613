"""What both sides of the speed benchmark share: models, prompts, scoring."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch

from domainfusion.demo.questions import TRAIN, VALIDATION, Sizes, build_questions
from domainfusion.demo.run import ANSWER
from domainfusion.demo.world import base_folder, load_world, world_folder
from domainfusion.distillation.metrics import stated_parts
from domainfusion.models import LlamaModel
from domainfusion.models.base import LanguageModel
from domainfusion.models.placement import DataType
from domainfusion.types import Example, user

WORLD = load_world(world_folder())

GOAL = 0.97
"""DER that every domain is to reach in the race."""

MARK = "@@ "
"""Begins a line that is meant for the process that started this one."""


def fastest_dtype() -> DataType:
    """Returns what both sides are fastest in: bfloat16 where the processor has units for it,
    float32 elsewhere.
    """
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def base_model(dtype: DataType, kind: type[LlamaModel] = LlamaModel) -> LlamaModel:
    return kind(base_folder(), name="SmolLM2-135M-Instruct", dtype=dtype)


def experts(dtype: DataType) -> dict[str, LlamaModel]:
    """Returns the demo's experts, each an adapter on the base."""
    return {
        domain: LlamaModel(
            WORLD.adapter(domain), base_model=base_folder(), name=f"{domain} expert", dtype=dtype
        )
        for domain in WORLD.domains
    }


# Questions


@dataclass(frozen=True)
class Race:
    """What the contestants train on, and what they are scored on: questions of one domain each."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]

    @classmethod
    def build(cls, singles: int, phrasings: int, validation: int) -> Race:
        """Builds it from the demo's facts: `singles` facts a domain in some phrasings, and
        `validation` items a domain.
        """
        found = build_questions(
            WORLD,
            train=Sizes(
                singles=singles, pairs=TRAIN.pairs, two_hop=TRAIN.two_hop, phrasings=phrasings
            ),
            validation=Sizes(
                singles=validation, pairs=VALIDATION.pairs, two_hop=VALIDATION.two_hop
            ),
            unasked=0.0,
        )
        return cls(
            *(
                tuple(one for one in part if not one.is_cross_domain)
                for part in (found.train, found.validation)
            )
        )


def accuracy(model: LanguageModel, examples: Sequence[Example]) -> dict[str, float]:
    """Returns the share of right parts by domain: the same code for every contestant and expert."""
    grades: dict[str, list[float]] = {}
    answers = model.generate([user(example.query) for example in examples], ANSWER)
    for example, answer in zip(examples, answers, strict=True):
        grades.setdefault(example.primary_domain, []).append(
            stated_parts(example, answer.text).value or 0.0
        )
    return {domain: mean(values) for domain, values in grades.items()}


class RaceOver(Exception):
    """The goal is reached, or the time is over."""


class Referee:
    """Keeps a contestant's clock, which stands still while it is scored, and what it reached when.

    Args:
        race: The questions.
        of_experts: What each expert reaches on its own validation questions.
        limit_minutes: When the race is over.
    """

    def __init__(self, race: Race, of_experts: Mapping[str, float], limit_minutes: float) -> None:
        self._race, self._of_experts, self._limit = race, of_experts, limit_minutes * 60
        self._scored = 0.0
        self._started = time.perf_counter()
        self.scores: list[dict[str, Any]] = []

    @property
    def seconds(self) -> float:
        """The time on the clock."""
        return time.perf_counter() - self._started - self._scored

    def score(self, model: LanguageModel, step: int) -> dict[str, float]:
        """Scores a checkpoint off the clock.

        Raises:
            RaceOver: Every domain is at the goal, or the clock is past the limit.
        """
        on_clock, began = self.seconds, time.perf_counter()
        reached = {
            domain: value / self._of_experts[domain]
            for domain, value in accuracy(model, self._race.validation).items()
        }
        self.scores.append({"step": step, "minutes": on_clock / 60, "der": reached})
        print(
            f"step {step}, {on_clock / 60:.2f} minutes, DER {reached}", file=sys.stderr, flush=True
        )
        self._scored += time.perf_counter() - began
        if min(reached.values()) >= GOAL or on_clock >= self._limit:
            raise RaceOver
        return reached

    def outcome(self) -> dict[str, Any]:
        """Returns all scores, the best of them, and the minutes to the goal (None where it was not
        reached).
        """
        best = max(self.scores, key=lambda score: min(score["der"].values()))
        reached = next(
            (score["minutes"] for score in self.scores if min(score["der"].values()) >= GOAL), None
        )
        return {
            "minutes_to_goal": reached,
            "best": best,
            "minutes": self.scores[-1]["minutes"],
            "scores": self.scores,
        }


# What has to be computed
