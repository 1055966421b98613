"""Which merge is best: every candidate reads held-out answers once, in batches, and writes none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import NamedTuple

import torch

from domainfusion.merging.methods import MergeMethod
from domainfusion.models.huggingface import HuggingFaceModel
from domainfusion.progress import Progress
from domainfusion.types import Conversation

WEIGHTS = (0.4, 0.7, 1.0, 1.3, 1.6)
"""The weights λ that are tried."""


class Fit(NamedTuple):
    """How well a model fits answers that it reads token by token.

    Attributes:
        right: For each slice, the share of answers of which every token is the most probable one
            after those before it: those that greedy decoding would write.
        loss: For each slice, the cross-entropy of its answers, in nats a token.
    """

    right: dict[str, float]
    loss: dict[str, float]


@torch.no_grad()
def fit(model: HuggingFaceModel, dialogues: Mapping[str, Sequence[Conversation]]) -> Fit:
    """Returns how well a model fits the answers that dialogues end with.

    Args:
        model: The model.
        dialogues: The dialogues, by slice.
    """
    rows: list[list[int]] = []
    starts: list[int] = []
    slices: list[str] = []
    for name, own in dialogues.items():
        for conversation in own:
            prompt = model.encode(conversation[:-1])
            answer = model.encode_answer(conversation[-1].content)
            rows.append([*prompt, *answer])
            starts.append(len(prompt))
            slices.append(name)
    whole: dict[str, list[float]] = {}
    losses: dict[str, list[torch.Tensor]] = {}
    states = model.hidden_states(rows)
    head = model.head()
    for row, start, name, hidden in zip(rows, starts, slices, states, strict=True):
        wanted = torch.tensor(row[start:], device=hidden.device)
        scores = head.logits(hidden[start - 1 : -1])
        whole.setdefault(name, []).append(float((scores.argmax(-1) == wanted).all()))
        losses.setdefault(name, []).append(
            torch.nn.functional.cross_entropy(scores, wanted, reduction="none")
        )
    return Fit(
        right={name: mean(own) for name, own in whole.items()},
        loss={name: float(torch.cat(own).mean()) for name, own in losses.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A merge, and how it does.

    Attributes:
        method: How the experts are merged.
        weight: λ.
        right: See `Fit`; empty where it was not measured.
        loss: See `Fit`.
        seconds: What it took to make and measure it.
    """

    method: MergeMethod
    weight: float
    right: Mapping[str, float] = field(default_factory=dict)
    loss: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Method and weight."""
        return f"{self.method}, λ = {self.weight:g}"

    @property
    def score(self) -> float:
        """Mean of `right` over the slices."""
        return mean(self.right.values()) if self.right else 0.0

    @property
    def mean_loss(self) -> float:
        """Mean of `loss` over the slices."""
        return mean(self.loss.values()) if self.loss else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeChoice:
    """Which merges are best.

    Attributes:
        product: The best as a model: most answers right; of equals, the one of lower loss.
        start: The best to train from: of lowest loss, which is what training lowers.
        candidates: All that were measured, in the order in which they were; empty where there was
            nothing to measure by.
    """

    product: Candidate
    start: Candidate
    candidates: tuple[Candidate, ...] = ()

    @classmethod
    def unmeasured(cls, method: MergeMethod, weight: float) -> MergeChoice:
        """Returns the choice of a merge that nothing was compared with."""
        only = Candidate(method=method, weight=weight)
        return cls(product=only, start=only)

    @classmethod
    def among(cls, candidates: Sequence[Candidate]) -> MergeChoice:
        """Returns the best of several."""
        return cls(
            product=max(candidates, key=lambda one: (one.score, -one.mean_loss)),
            start=min(candidates, key=lambda one: one.mean_loss),
            candidates=tuple(candidates),
        )


def search(
    methods: Sequence[MergeMethod],
    weights: Sequence[float] | None,
    measure: Callable[[MergeMethod, float], Candidate],
    known: Mapping[str, Candidate],
    progress: Progress,
) -> MergeChoice:
    """Returns the best candidates of some methods.

    Args:
        methods: What is tried.
        weights: The weights λ, all of which are tried; None tries `WEIGHTS` from 1 on, in each
            direction as long as the neighbor of the best is better by either measure.
        measure: Returns a candidate.
        known: Candidates that were measured before, by name.
        progress: Shows the candidates.
    """
    found: list[Candidate] = []

    def candidate(method: MergeMethod, weight: float) -> Candidate:
        name = Candidate(method=method, weight=weight).name
        return known.get(name) or measure(method, weight)

    places = sorted(set(weights or WEIGHTS))
    with progress("trying merges", len(methods) * len(places)) as advance:
        for method in methods:
            own: dict[int, Candidate] = {}
            left = list(range(len(places))) if weights else [places.index(1.0)]
            while left:
                own[left[0]] = candidate(method, places[left[0]])
                advance(1)
                left = left[1:] if weights else _neighbors_of_best(own, len(places))
            advance(len(places) - len(own))
            found += own.values()
    return MergeChoice.among(found)


def _neighbors_of_best(own: Mapping[int, Candidate], count: int) -> list[int]:
    """Returns the places beside the best candidates by either measure that were not visited."""
    best = max(own, key=lambda place: (own[place].score, -own[place].mean_loss))
    lowest = min(own, key=lambda place: own[place].mean_loss)
    beside = {best - 1, best + 1, lowest - 1, lowest + 1}
    return sorted(place for place in beside if 0 <= place < count and place not in own)
