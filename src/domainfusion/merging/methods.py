"""The closed forms, TSV-M and RegMean, of one layer's updates, as adapters and as whole matrices;
and which merge is best: every candidate reads held-out answers once, and writes none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import pad

from domainfusion.errors import DataError
from domainfusion.models.huggingface import HuggingFaceModel
from domainfusion.models.summing import LoraFactors
from domainfusion.progress import Progress
from domainfusion.types import Conversation

MergeMethod = Literal["sum", "tsv", "regmean"]
"""How experts are merged; see the package."""

OFF_DIAGONAL = 0.9
"""What the off-diagonal elements of a Gram matrix are multiplied with (Jin et al., 2022, section
4.2).
"""

RIDGE = 1e-4
"""What is added to the diagonal of the summed Gram matrix, as a share of its mean, so that it can
be inverted.
"""


# TSV-M


def tsv(updates: Sequence[LoraFactors], weight: float = 1.0) -> LoraFactors:
    """Returns TSV-M's merge of one layer's updates.

    With Δₖ = Uₖ·Sₖ·Vₖᵀ, the columns of [U₁ … Uₙ] and of [V₁ … Vₙ] are made orthogonal by the
    nearest orthogonal matrix (Procrustes): where the experts' directions are orthogonal already,
    the merge is the sum.

    Args:
        updates: The update of each expert.
        weight: λ.
    """
    a, b = _orthogonalized([_svd_of_product(update) for update in updates])
    missing = sum(len(update.a) for update in updates) - len(
        a
    )  # of adapters whose rank is above their layer's size
    return LoraFactors(pad(a, (0, 0, 0, missing)), pad(weight * b, (0, missing)))


def tsv_of_matrices(updates: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns TSV-M's merge of one layer's updates as whole matrices; see `tsv`.

    Of n experts each keeps the first 1/n of its singular values, so that all directions together
    fit the layer, as in the paper.

    Args:
        updates: The update of each expert, of shape (out, in).
    """
    kept = -(-min(updates[0].shape) // len(updates))
    spectra = []
    for update in updates:
        u, s, vh = torch.linalg.svd(update, full_matrices=False)
        spectra.append(_Spectrum(u[:, :kept], s[:kept], vh[:kept].T))
    a, b = _orthogonalized(spectra)
    return b @ a


class _Spectrum(NamedTuple):
    """A singular value decomposition U·diag(S)·Vᵀ, or its largest part.

    Attributes:
        u: Left singular vectors as columns, of shape (out, kept).
        s: Singular values, of shape (kept,).
        v: Right singular vectors as columns, of shape (in, kept).
    """

    u: torch.Tensor
    s: torch.Tensor
    v: torch.Tensor


def _orthogonalized(spectra: Sequence[_Spectrum]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the merge b·a of updates."""
    u, s, v = (torch.cat(parts, -1) for parts in zip(*spectra, strict=True))
    return _nearest_orthogonal(v).T, _nearest_orthogonal(u) * s


def _svd_of_product(update: LoraFactors) -> _Spectrum:
    """Decomposes B·A from small matrices alone: with B = Q₁R₁ and Aᵀ = Q₂R₂, B·A =
    Q₁·(R₁R₂ᵀ)·Q₂ᵀ.
    """
    q_b, r_b = torch.linalg.qr(update.b.double())
    q_a, r_a = torch.linalg.qr(update.a.double().T)
    u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return _Spectrum(q_b @ u, s, q_a @ vh.T)


def _nearest_orthogonal(columns: torch.Tensor) -> torch.Tensor:
    """Returns P·Qᵀ of columns = P·D·Qᵀ: the matrix with orthonormal columns that is nearest to
    them.
    """
    p, _, qh = torch.linalg.svd(columns, full_matrices=False)
    found: torch.Tensor = p @ qh
    return found


# RegMean


def damped(gram: torch.Tensor) -> torch.Tensor:
    """Returns a Gram matrix with its off-diagonal elements multiplied by α."""
    found = OFF_DIAGONAL * gram
    found.diagonal().copy_(gram.diagonal())
    return found


@dataclass(eq=False)
class Grams:
    """Sums over the experts' inputs to one layer.

    Xₖ, of shape (tokens, in), is what the layer reads of expert k's dialogues in the merge, whose
    earlier layers are merged already, and Xₖ* what it reads in the expert itself. With Gₖ =
    XₖᵀXₖ / tokens, and G̃ₖ for Gₖ with its off-diagonal elements multiplied by α:

    Attributes:
        total: Σ G̃ₖ, of shape (in, in).
        weighted: For each expert with an adapter on the layer, what `toward` returns for its Aₖ, of
            shape (rank, in); or, for whole matrices, the sum for all Δₖ, of shape (out, in).
    """

    total: torch.Tensor
    weighted: list[torch.Tensor]


def toward(update: torch.Tensor, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Returns α·(Xₖ*Uₖᵀ)ᵀXₖ / tokens + (1 − α)·Uₖ·diag(Gₖ), which is Uₖ·G̃ₖ where the merge reads
    what the expert reads.

    Args:
        update: Uₖ, of shape (rows, in): the expert's Aₖ or Δₖ.
        outputs: Xₖ*Uₖᵀ, what it makes of the expert's own inputs, of shape (tokens, rows).
        inputs: Xₖ, of shape (tokens, in).
    """
    diagonal = inputs.square().mean(0)
    crossed = outputs.to(inputs).T @ inputs / len(inputs)
    return OFF_DIAGONAL * crossed + (1 - OFF_DIAGONAL) * update.to(inputs) * diagonal


def regmean(updates: Sequence[LoraFactors], grams: Grams, weight: float = 1.0) -> LoraFactors:
    """Returns RegMean's merge of one layer's updates: A'ₖ = λ·Wₖ·(Σ G̃ⱼ)⁻¹ and B'ₖ = Bₖ, for the
    Wₖ of `Grams.weighted`.

    With Yₖ = Xₖ*Δₖᵀ, what expert k's update makes of its own inputs, and Dₖ = diag(Gₖ), it is the
    least of Σₖ α·‖XₖΔᵀ − Yₖ‖² / tokens + (1 − α)·‖(Δ − Δₖ)·Dₖ^½‖² among the updates that are made
    of the Bₖ; without the merge's own inputs (Xₖ = Xₖ*) it is RegMean, of which it is the
    sequential form. The update keeps the form of an adapter, as each Δₖ is multiplied from the
    right.

    Args:
        updates: The update of each expert.
        grams: What their inputs add up to.
        weight: λ.

    Raises:
        DataError: The inputs are not finite.
    """
    solved = over_total(torch.cat(grams.weighted), grams.total)
    return LoraFactors(a=weight * solved, b=torch.cat([update.b.double() for update in updates], 1))


def over_total(rows: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Returns rows·(total + ridge)⁻¹ in float64.

    Args:
        rows: Of shape (rows, in).
        total: A sum of Gram matrices, of shape (in, in).

    Raises:
        DataError: The inputs that it was made from are not finite.
    """
    ridge = RIDGE * float(total.diagonal().mean())
    total = total + ridge * torch.eye(len(total), dtype=total.dtype, device=total.device)
    if not (torch.isfinite(total).all() and torch.isfinite(rows).all()):
        raise DataError(
            "The inputs of a layer are not finite, so experts can't be merged by them",
            fix="use method='tsv' or 'sum'",
        )
    # X·G⁻¹ = (G⁻¹·Xᵀ)ᵀ as G is symmetric and, with the ridge, positive definite; inputs that are
    # all 0 leave nothing to invert.
    factor, failed = torch.linalg.cholesky_ex(total.double())
    if int(failed):
        solved: torch.Tensor = rows.double() @ torch.linalg.pinv(total.double(), hermitian=True)
    else:
        solved = torch.cholesky_solve(rows.double().T, factor).T
    return solved


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
