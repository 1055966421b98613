"""What both sides of the speed benchmark share: models, prompts, scoring, the split of time, and
what a step has to compute.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any, TextIO

import torch

from domainfusion.demo.base import base_folder, world_folder
from domainfusion.demo.questions import TRAIN, VALIDATION, Sizes, build_questions
from domainfusion.demo.run import ANSWER
from domainfusion.demo.world import load_world
from domainfusion.distillation.metrics import stated_parts
from domainfusion.models import LlamaModel
from domainfusion.models.base import LanguageModel
from domainfusion.training.mixtures import interleaved_order
from domainfusion.types import Example, user

SEED = 0
WORLD = load_world(world_folder())
TEACHER = "chemistry"
"""The one expert of the measured steps."""

GOAL = 0.97
"""DER that every domain is to reach in the race."""

MARK = "@@ "
"""Begins a line that is meant for the process that started this one."""


class Unending(LlamaModel):
    """Never stops before it is cut, so that every run writes the same number of tokens."""

    @property
    def end_tokens(self) -> set[int]:
        """A token that no model writes."""
        return {self.vocabulary_size}


def fastest_dtype() -> str:
    """Returns what both sides are fastest in: bfloat16 where the processor has units for it,
    float32 elsewhere.
    """
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def base_model(dtype: str, kind: type[LlamaModel] = LlamaModel) -> LlamaModel:
    return kind(base_folder(), name="SmolLM2-135M-Instruct", dtype=dtype)


def experts(dtype: str) -> dict[str, LlamaModel]:
    """Returns the demo's experts, each an adapter on the base."""
    return {
        domain: LlamaModel(
            WORLD.adapter(domain), base_model=base_folder(), name=f"{domain} expert", dtype=dtype
        )
        for domain in WORLD.domains
    }


# Questions


def step_examples() -> list[Example]:
    """Returns the teacher's own questions among those that the demo trains on."""
    questions = build_questions(WORLD, train=replace(TRAIN, borders=0), unasked=0.0)
    return [example for example in questions.train if example.domains == (TEACHER,)]


def step_order(examples: int, epochs: int) -> list[int]:
    """Returns the order in which `MultiTaskTrainer` shows them, so that the other side can be shown
    the same.
    """
    rng = random.Random(f"{SEED}/1")
    return [
        index
        for _ in range(epochs)
        for index in interleaved_order([TEACHER] * examples, {TEACHER: 1.0}, rng)
    ]


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


# Where the time goes


@dataclass
class Stopwatch:
    """Adds up the time spent in named parts; a part inside of another is counted as the inner one
    alone.
    """

    seconds: Counter[str] = field(default_factory=Counter)
    _running: list[list[Any]] = field(default_factory=list)

    def wrap(self, owner: Any, name: str, part: str | Callable[[], str]) -> None:
        """Times every call of `owner.name`; `part` is what it counts as, or says so when it is
        called.
        """
        plain = getattr(owner, name)

        def timed(*given: Any, **named: Any) -> Any:
            self._running.append([part if isinstance(part, str) else part(), time.perf_counter()])
            try:
                return plain(*given, **named)
            finally:
                now = time.perf_counter()
                own, since = self._running.pop()
                self.seconds[own] += now - since
                if self._running:  # what the inner part took is not the outer one's
                    self.seconds[self._running[-1][0]] -= now - since

        setattr(
            owner,
            name,
            timed
            if not isinstance(owner, type) or not isinstance(vars(owner).get(name), staticmethod)
            else staticmethod(timed),
        )

    def wrap_common(self) -> None:
        """Times what both sides do in the same way: `transformers.Trainer` is under both."""
        from accelerate import Accelerator
        from accelerate.optimizer import AcceleratedOptimizer

        self.wrap(torch.Tensor, "backward", "backward")
        self.wrap(AcceleratedOptimizer, "step", "optimiser")
        self.wrap(Accelerator, "clip_grad_norm_", "optimiser")

    def take(self) -> dict[str, float]:
        """Returns the seconds by part since it was last taken."""
        found: dict[str, float] = dict(self.seconds)
        self.seconds.clear()
        return found


@dataclass
class Turns:
    """Lets a training run a few steps at a time, when the process that started this one says so.

    Args:
        steps: Steps a turn.
        warmup: Steps before the first turn.
        watch: What is measured beside the wall clock.
        pipe: Where outcomes are written to.
    """

    steps: int
    warmup: int
    watch: Stopwatch
    pipe: TextIO
    done: int = 0
    started: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def step_over(self) -> None:
        """To be called after every step."""
        self.done += 1
        if self.done < self.warmup or (self.done - self.warmup) % self.steps:
            return
        turn = {
            "seconds": time.perf_counter() - self.started,
            "parts": self.watch.take(),
            "rows": self.rows,
            "peak_bytes": peak_bytes(),
        }
        tell(self.pipe, {} if self.done == self.warmup else turn)
        if not sys.stdin.readline():
            os._exit(0)  # nobody wants another turn, and there is nothing to be kept
        self.rows = []
        self.watch.take()
        self.started = time.perf_counter()


def tell(pipe: TextIO, what: Mapping[str, Any]) -> None:
    pipe.write(f"{MARK}{json.dumps(what)}\n")
    pipe.flush()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# What has to be computed


def needed_flops(
    rows: Sequence[Mapping[str, int]], config: Any, adaptation: str, rank: int
) -> dict[str, float]:
    """Returns the multiplications and additions of the matrix products that a step cannot do
    without, by part.

    With P weights in the layers' matrices, A in the adapter's, V·H in the head, n tokens read and m
    of them answered, and attention of 4·(layers·width)·T·(T+1)/2 over a row of T tokens:

    - sampling: 2·(P+A) for each prompt token and each written token but the last of a row, 2·V·H
      for each written one, attention;
    - teacher: 2·P·n and attention (an adapter can be merged), 2·V·H·m;
    - student forward: 2·(P+A)·n and attention, 2·V·H·m;
    - backward: the same once more toward activations, and once more toward the weights that are
      trained: 2·A·n, or 2·P·n + 2·V·H·m (attention's is twice its forward).

    Padding, and the step of the optimiser, count nothing.
    """
    width, layers, kv = (
        config.hidden_size,
        config.num_hidden_layers,
        config.hidden_size // config.num_attention_heads * config.num_key_value_heads,
    )
    shapes = [
        (width, width),
        (width, kv),
        (width, kv),
        (width, width),
        *[(width, config.intermediate_size)] * 3,
    ]
    matrices = layers * sum(a * b for a, b in shapes)
    adapter = layers * rank * sum(a + b for a, b in shapes) if adaptation == "lora" else 0
    head = config.vocab_size * width
    n = sum(row["prompt"] + row["answer"] for row in rows)
    m = sum(row["answer"] for row in rows)
    attention = sum(
        2 * layers * width * length * (length + 1)
        for row in rows
        if (length := row["prompt"] + row["answer"])
    )
    trained = 2 * adapter * n if adaptation == "lora" else 2 * matrices * n + 2 * head * m
    forward = 2 * (matrices + adapter) * n + attention + 2 * head * m
    return {
        "sampling": 2 * (matrices + adapter) * (n - len(rows)) + attention + 2 * head * m,
        "teacher": 2 * matrices * n + attention + 2 * head * m,
        "student": 2 * forward + attention + trained,
    }


def matrix_peak(dtype: torch.dtype, size: int, repeats: int = 12) -> float:
    """Returns the operations a second of the fastest of several products of two square matrices."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def read_rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
