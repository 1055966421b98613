"""Merges of LoRA experts on one base into one adapter, in closed form: the sum, TSV-M and RegMean.

Each layer's update of expert k is Δₖ = sₖ·BₖAₖ. Every method here keeps the form of an adapter
whose rank is the sum of the experts'.

- `sum`: λ·ΣΔₖ (task arithmetic; Ilharco et al., 2022, arXiv 2212.04089). Needs no data.
- `tsv`: the experts' singular vectors are orthogonalized against each other before they are added
  (TSV-M; Gargiulo et al., 2024, arXiv 2412.00081). Needs no data.
- `regmean`: the update whose outputs are nearest to each expert's on that expert's own inputs
  (RegMean; Jin et al., 2022, arXiv 2212.09849). Needs some of each expert's questions and answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch.nn.functional import pad

from domainfusion.errors import CapabilityError, ConfigurationError, DataError
from domainfusion.models.base import Adaptation
from domainfusion.models.huggingface import HuggingFaceModel
from domainfusion.models.summing import LoraFactors
from domainfusion.progress import Progress, silent
from domainfusion.types import Conversation

MergeMethod = Literal["sum", "tsv", "regmean"]
"""How experts are merged; see the module."""

OFF_DIAGONAL = 0.9
"""What the off-diagonal elements of a Gram matrix are multiplied with (Jin et al., 2022, section
4.2).
"""

RIDGE = 1e-4
"""What is added to the diagonal of the summed Gram matrix, as a share of its mean, so that it can
be inverted.
"""

READ_AT_ONCE = 4096
"""Tokens of equal rows that are read together."""


def merge(
    base: HuggingFaceModel,
    experts: Mapping[str, HuggingFaceModel],
    *,
    method: MergeMethod = "sum",
    weight: float = 1.0,
    conversations: Mapping[str, Sequence[Conversation]] | None = None,
    progress: Progress = silent,
) -> HuggingFaceModel:
    """Returns one model that computes as the merge of several LoRA experts; base and experts stay
    as they are.

    Args:
        base: The experts' base.
        experts: The LoRA expert of each domain. An expert of two domains counts once.
        method: How they are merged.
        weight: λ, by which the merged update is multiplied.
        conversations: For `regmean`, some dialogues of each domain that end with an answer, such as
            the expert's own. The expert reads them once, and memory grows by one float32 Gram
            matrix per adapted layer, however many experts there are.
        progress: Shows how far the experts have read.

    Returns:
        A model on the shared base whose adapter is the merge; `save()` writes it.

    Raises:
        ConfigurationError: The method is unknown, or the weight is not finite.
        CapabilityError: An expert is not a LoRA adapter on the base, or one that can't be summed,
            such as DoRA.
        DataError: `regmean` has nothing to read for a domain, or a layer's inputs are not finite.

    Example:
        ```python
        merged = merge(base, {"law": law, "tax": tax}, method="regmean", weight=1.3, conversations=dialogues)
        merged.save("merged-model")
        ```
    """
    if method not in get_args(MergeMethod):
        raise ConfigurationError(
            "The merge method is unknown", received=method, allowed=", ".join(get_args(MergeMethod))
        )
    if not math.isfinite(weight):
        raise ConfigurationError(
            "The weight of a merge is not finite", received=weight, allowed="a number"
        )
    check_experts(base, experts)
    merged = base.trainable_copy(
        Adaptation(start_from=tuple(experts.values()), merge_weight=weight)
    )
    write_merge(
        merged,
        experts,
        method=method,
        weight=weight,
        conversations=conversations or {},
        progress=progress,
    )
    return merged


def check_experts(base: object, experts: Mapping[str, object]) -> None:
    """Refuses experts that can't be merged into one adapter.

    Raises:
        CapabilityError: There are none, or one is not a LoRA adapter on the base.
    """
    strangers = [
        name
        for name, expert in experts.items()
        if not (isinstance(expert, HuggingFaceModel) and expert.is_adapter_on(base))
    ]
    if strangers or not experts:
        raise CapabilityError(
            "Only LoRA adapters on the base can be merged into one adapter",
            received=strangers or "no experts",
            allowed=(
                "LoRA adapters on the base's own folder, in the same dtype and on the same device"
            ),
            fix="merge whole fine-tunes by their sum (merge_method='sum')",
        )


def write_merge(
    merged: HuggingFaceModel,
    experts: Mapping[str, HuggingFaceModel],
    *,
    method: MergeMethod,
    weight: float,
    conversations: Mapping[str, Sequence[Conversation]],
    progress: Progress = silent,
) -> None:
    """Writes the merge of experts into a trainable copy that starts as their sum; see `merge`.

    Layers that are not matrices, such as embeddings and fused mixtures of experts, keep the sum.
    """
    if method == "sum":
        return
    distinct = {expert.fingerprint: expert for expert in experts.values()}
    updates = {key: expert.lora_factors() for key, expert in distinct.items()}
    if method == "tsv":
        merged.load_lora_factors(
            {layer: tsv(own, weight) for layer, own in _by_layer(updates).items()}
        )
        return
    grams = read_grams(distinct, updates, _conversations_of(experts, conversations), progress)
    merged.load_lora_factors(
        {layer: regmean(own, grams[layer], weight) for layer, own in _by_layer(updates).items()}
    )


def tsv(updates: Sequence[LoraFactors], weight: float = 1.0) -> LoraFactors:
    """Returns TSV-M's merge of one layer's updates.

    With Δₖ = Uₖ·Sₖ·Vₖᵀ, the columns of [U₁ … Uₙ] and of [V₁ … Vₙ] are made orthogonal by the
    nearest orthogonal matrix (Procrustes): where the experts' directions are orthogonal already,
    the merge is the sum.

    Args:
        updates: The update of each expert.
        weight: λ.
    """
    left, values, right = [], [], []
    for update in updates:
        u, s, v = _svd_of_product(update)
        left.append(u)
        values.append(s)
        right.append(v)
    u, s, v = torch.cat(left, 1), torch.cat(values), torch.cat(right, 1)
    a, b = _nearest_orthogonal(v).T, weight * _nearest_orthogonal(u) * s
    missing = sum(len(update.a) for update in updates) - len(
        a
    )  # of adapters whose rank is above their layer's size
    return LoraFactors(pad(a, (0, 0, 0, missing)), pad(b, (0, missing)))


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


@dataclass(eq=False)
class Grams:
    """What the experts' inputs to one layer add up to.

    With Gₖ = XₖᵀXₖ / tokens for the inputs Xₖ, of shape (tokens, in), that expert k's dialogues
    lead to, and G̃ₖ for Gₖ with its off-diagonal elements multiplied by α:

    Attributes:
        total: Σ G̃ₖ, of shape (in, in).
        weighted: Aₖ·G̃ₖ for each expert, of shape (rank, in); no expert's own Gram matrix has to be
            kept.
    """

    total: torch.Tensor
    weighted: list[torch.Tensor]


def regmean(updates: Sequence[LoraFactors], grams: Grams, weight: float = 1.0) -> LoraFactors:
    """Returns RegMean's merge of one layer's updates: A'ₖ = λ·Aₖ·G̃ₖ·(Σ G̃ⱼ)⁻¹ and B'ₖ = Bₖ.

    It minimizes Σₖ ‖XₖΔᵀ − XₖΔₖᵀ‖² where α is 1. The update keeps the form of an adapter, as each
    Δₖ is multiplied from the right.

    Args:
        updates: The update of each expert.
        grams: What their inputs add up to.
        weight: λ.

    Raises:
        DataError: The inputs are not finite.
    """
    size = len(grams.total)
    ridge = RIDGE * float(grams.total.diagonal().mean())
    total = grams.total + ridge * torch.eye(
        size, dtype=grams.total.dtype, device=grams.total.device
    )
    rows = torch.cat(grams.weighted)
    if not (torch.isfinite(total).all() and torch.isfinite(rows).all()):
        raise DataError(
            "The inputs of a layer are not finite, so experts can't be merged by them",
            fix="use method='tsv' or 'sum'",
        )
    # X·G⁻¹ = (G⁻¹·Xᵀ)ᵀ as G is symmetric and, with the ridge, positive definite; inputs that are
    # all 0 leave nothing to invert.
    factor, failed = torch.linalg.cholesky_ex(total.double())
    if int(failed):
        solved = rows.double() @ torch.linalg.pinv(total.double(), hermitian=True)
    else:
        solved = torch.cholesky_solve(rows.double().T, factor).T
    return LoraFactors(a=weight * solved, b=torch.cat([update.b.double() for update in updates], 1))


@torch.no_grad()
def read_grams(
    experts: Mapping[str, HuggingFaceModel],
    updates: Mapping[str, Mapping[str, LoraFactors]],
    conversations: Mapping[str, Sequence[Conversation]],
    progress: Progress = silent,
) -> dict[str, Grams]:
    """Lets each expert read its dialogues once, and returns what the inputs of every adapted layer
    add up to.

    Args:
        experts: The experts, by fingerprint.
        updates: The update of each expert by layer.
        conversations: The dialogues of each expert, by fingerprint.
        progress: Shows the dialogues.
    """
    found: dict[str, Grams] = {}
    with progress("reading for the merge", sum(map(len, conversations.values()))) as advance:
        for key, expert in experts.items():
            sums: dict[str, torch.Tensor] = {}
            rows = [expert.encode(conversation, reply=False) for conversation in conversations[key]]

            def add(layer: str, inputs: torch.Tensor, sums: dict[str, torch.Tensor] = sums) -> None:
                flat = inputs.reshape(-1, inputs.shape[-1]).float()
                gram = sums.setdefault(
                    layer, torch.zeros(flat.shape[1], flat.shape[1], device=flat.device)
                )
                gram.addmm_(flat.T, flat)

            with expert.watching_inputs(add):
                for batch in _equal_rows(
                    rows
                ):  # rows of one length need no padding, which would count as inputs
                    expert.hidden_states(batch)
                    advance(len(batch))
            tokens = sum(map(len, rows))
            for layer, gram in sums.items():
                gram /= tokens
                diagonal = gram.diagonal().clone()
                gram *= OFF_DIAGONAL
                gram.diagonal().copy_(diagonal)
                grams = found.setdefault(layer, Grams(torch.zeros_like(gram), []))
                grams.total += gram
                if layer in updates[key]:
                    grams.weighted.append(updates[key][layer].a.to(gram) @ gram)
    return found


def _equal_rows(rows: Sequence[Sequence[int]]) -> Iterable[list[Sequence[int]]]:
    by_length: dict[int, list[Sequence[int]]] = {}
    for row in rows:
        by_length.setdefault(len(row), []).append(row)
    for length, own in sorted(by_length.items()):
        size = max(1, READ_AT_ONCE // length)
        for start in range(0, len(own), size):
            yield own[start : start + size]


def _by_layer(updates: Mapping[str, Mapping[str, LoraFactors]]) -> dict[str, list[LoraFactors]]:
    """Returns the updates of each layer, in the order of the experts."""
    layers = dict.fromkeys(layer for own in updates.values() for layer in own)
    return {layer: [own[layer] for own in updates.values() if layer in own] for layer in layers}


def _conversations_of(
    experts: Mapping[str, HuggingFaceModel], conversations: Mapping[str, Sequence[Conversation]]
) -> dict[str, list[Conversation]]:
    """Returns the dialogues of each expert, by fingerprint."""
    found: dict[str, list[Conversation]] = {}
    for domain, expert in experts.items():
        if not conversations.get(domain):
            raise DataError(
                f"There is nothing for the expert of {domain!r} to read",
                received=sorted(conversations),
                fix="give some of its questions and answers, or use method='tsv', which needs none",
            )
        found.setdefault(expert.fingerprint, []).extend(conversations[domain])
    return found
