"""The closed forms: TSV-M and RegMean of one layer's updates, as adapters and as whole matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import pad

from domainfusion.errors import DataError
from domainfusion.models.summing import LoraFactors

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
        spectra.append((u[:, :kept], s[:kept], vh[:kept].T))
    a, b = _orthogonalized(spectra)
    return b @ a


def _orthogonalized(
    spectra: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the merge b·a of updates that are given as U, S and V."""
    u, s, v = (torch.cat(parts, -1) for parts in zip(*spectra, strict=True))
    return _nearest_orthogonal(v).T, _nearest_orthogonal(u) * s


def _svd_of_product(update: LoraFactors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns U, S and V of B·A from small matrices alone: with B = Q₁R₁ and Aᵀ = Q₂R₂, B·A =
    Q₁·(R₁R₂ᵀ)·Q₂ᵀ.
    """
    q_b, r_b = torch.linalg.qr(update.b.double())
    q_a, r_a = torch.linalg.qr(update.a.double().T)
    u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return q_b @ u, s, q_a @ vh.T


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
    """What the experts' inputs to one layer add up to.

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
