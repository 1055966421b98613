"""Losses over answer tokens: cross-entropy and divergences from teachers, in chunks, so that
(tokens, vocabulary) is never held; which answers a student knows already, and how far it went from
its base.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, pad
from transformers import PreTrainedModel

from domainfusion.models.base import TokenScorer, TrainableModel
from domainfusion.models.projection import Head
from domainfusion.models.tree import read_tree
from domainfusion.progress import Progress, silent
from domainfusion.training import liger
from domainfusion.training.batching import IGNORED, Batch, Row
from domainfusion.training.distributed import all_gather, shard

Divergence = Literal["forward_kl", "reverse_kl", "skew_kl", "jensen_shannon"]
"""How far the student's distribution q is from the teacher's p; m is the mixture β·p + (1−β)·q.

- `forward_kl`: KL(p‖q) covers all that the teacher may say (Hinton et al., 2015, arXiv 1503.02531).
- `reverse_kl`: KL(q‖p) keeps to what the teacher finds probable (Gu et al., 2023, arXiv
  2306.08543).
- `skew_kl`: KL(p‖m), bounded where q vanishes (Ko et al., 2024, arXiv 2402.03898, who write α for
  β).
- `jensen_shannon`: β·KL(p‖m) + (1−β)·KL(q‖m) (Agarwal et al., 2023, arXiv 2306.13649).
"""

ROWS_READ = 128
"""Rows whose hidden states are in memory together, to find what a student knows."""

CHUNK_ELEMENTS = 1 << 22
"""Logits that are in memory at a time: 16 MiB in float32, of which a chunk with a teacher needs
about five.

Of the sizes from 2^20 to 2^25 this one is the fastest on a CPU: what a chunk needs stays near the
caches.
"""

WITH_TRAINED_HEAD = 4
"""How many times as many there are where the head learns too, as each chunk then adds a gradient of
the head's whole size.
"""


def answer_hidden_states(
    module: PreTrainedModel, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs the model and keeps what predicts answer tokens.

    Returns:
        Final hidden states of shape (answer tokens, hidden) and the tokens they predict, of shape
        (answer tokens,).
    """
    hidden: torch.Tensor = module.base_model(
        input_ids=batch["input_ids"], use_cache=False
    ).last_hidden_state[:, :-1]
    targets = batch["labels"][:, 1:]
    answers = targets != IGNORED
    return hidden[answers], targets[answers]


def answer_hidden_states_of_tree(
    module: PreTrainedModel, rows: Sequence[Row]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Does the same for rows that are read as one tree, in which what they begin with alike is
    computed once; the model must be one that `decodes_alike`.
    """
    hidden, paths = read_tree(module, [row.tokens for row in rows])
    predicting = [path[row.prompt_length - 1 : -1] for path, row in zip(paths, rows, strict=True)]
    targets = torch.tensor([token for row in rows for token in row.answer], device=hidden.device)
    return embedding(torch.cat(predicting), hidden), targets


@dataclass(frozen=True, eq=False)
class Taught:
    """The answer tokens of a batch that one teacher scores.

    Attributes:
        places: Which tokens, of shape (tokens,): indices into the batch's answer tokens.
        hidden: The teacher's final hidden states there, of shape (tokens, teacher's hidden size).
        head: The teacher's head, which turns them into logits.
        vocabulary: Ids below this one mean the same to teacher and student; the others are cut off.
    """

    places: torch.Tensor
    hidden: torch.Tensor
    head: Head
    vocabulary: int

    def log_probabilities(
        self, tokens: slice, temperature: float, computed_in: torch.dtype | None
    ) -> torch.Tensor:
        """Returns log p over the shared vocabulary, of shape (tokens, vocabulary).

        Args:
            tokens: Which of the tokens, as a slice of `places`.
            temperature: Divides the logits.
            computed_in: Data type of the product with the head; None for the head's own.
        """
        head = self.head.to(dtype=computed_in)
        logits = head.logits(self.hidden[tokens].to(head.weight))[:, : self.vocabulary]
        return (logits / temperature).log_softmax(-1)


@dataclass(frozen=True, eq=False)
class TaughtTop:
    """The answer tokens of a batch of which a teacher's most probable tokens are known.

    Attributes:
        places: Which tokens, of shape (tokens,): indices into the batch's answer tokens.
        tokens: The ids of the most probable ones, int64 of shape (tokens, k), none twice in a row.
        log_probabilities: Their log p, of shape (tokens, k).
    """

    places: torch.Tensor
    tokens: torch.Tensor
    log_probabilities: torch.Tensor


class TokenLosses(NamedTuple):
    """Losses of answer tokens.

    Attributes:
        total: What is minimized: the weighted sum over tokens, a scalar with a gradient.
        cross_entropy: Of each token, of shape (tokens,), without gradient or weight; NaN where it
            does not count.
        divergence: Likewise; NaN where no teacher says anything.
    """

    total: torch.Tensor
    cross_entropy: torch.Tensor
    divergence: torch.Tensor


def token_losses(
    hidden: torch.Tensor,
    head: Head,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    taught: Sequence[Taught | TaughtTop] = (),
    divergence: Divergence = "forward_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
    alpha: float = 1.0,
) -> TokenLosses:
    """Returns Σ wᵢ·((1−α)·CEᵢ + α·τ²·Dᵢ) over tokens that are taught by a teacher, plus Σ wᵢ·CEᵢ
    over the others.

    Logits are made, used and dropped chunk by chunk, and the gradient with them, so memory grows
    with (tokens + vocabulary) alone. The gradient goes to the student's hidden states and head, and
    is exact; it can be taken once, not twice.

    Args:
        hidden: The student's final hidden states, of shape (tokens, hidden).
        head: The student's head.
        targets: The tokens that are written, of shape (tokens,).
        weights: What each token counts, of shape (tokens,), without gradient.
        taught: Where teachers say what; no token is in two of them. With `TaughtTop`, D is between
            the probabilities of those tokens and of all others together, of both models, which is
            at most D between the whole distributions; τ is 1.
        divergence: D.
        beta: β, the teacher's weight in the mixture of `skew_kl` and `jensen_shannon`, strictly
            between 0 and 1.
        temperature: τ, which divides the logits of both (Hinton et al., 2015).
        alpha: α, the share of the divergence, above 0.

    Under autocast the products with the heads are computed in autocast's data type, all else in
    float32.
    """
    kind = hidden.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    alone = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
    for each in taught:
        alone[each.places] = False
    aim = (divergence, beta, temperature, alpha)
    plan = _Plan(
        targets,
        weights,
        head,
        alone.nonzero()[:, 0],
        taught,
        *aim,
        autocast,
        torch.is_grad_enabled(),
    )
    return TokenLosses(*cast(Any, _ChunkedLoss).apply(hidden, head.weight, head.bias, plan))


class _Plan(NamedTuple):
    """What `token_losses` was asked for, with the places of the tokens that no teacher says
    anything about.
    """

    targets: torch.Tensor
    weights: torch.Tensor
    head: Head
    alone: torch.Tensor
    taught: Sequence[Taught | TaughtTop]
    divergence: Divergence
    beta: float
    temperature: float
    alpha: float
    autocast: torch.dtype | None
    with_gradient: bool


class _ChunkedLoss(torch.autograd.Function):
    """The loss and its gradient in one pass over chunks of tokens: logits that are dropped need not
    be made a second time.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, plan: _Plan
    ) -> Any:
        head = plan.head.to(dtype=plan.autocast)
        wide = torch.promote_types(head.weight.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        cross_entropies, divergences = torch.full(
            (2, len(hidden)), math.nan, dtype=wide, device=hidden.device
        )
        gradients = _Gradients.of(
            hidden, weight, bias, ctx.needs_input_grad if plan.with_gradient else (False,) * 3, wide
        )
        learns = plan.with_gradient and ctx.needs_input_grad[1]
        if plan.with_gradient and not plan.taught and head.scale == 1 and liger.is_used(hidden):
            with torch.autocast(hidden.device.type, enabled=False):
                fused = liger.weighted_cross_entropy(
                    hidden.to(head.weight.dtype),
                    head.weight,
                    head.bias,
                    plan.targets,
                    plan.weights.to(wide),
                    cap=head.cap,
                    trains_head=learns,
                )
            kept = (fused.hidden, fused.weight, fused.bias)
            ctx.save_for_backward(
                *(
                    gradient if wanted else None
                    for gradient, wanted in zip(kept, ctx.needs_input_grad, strict=False)
                )
            )
            ctx.dtypes = [
                None if given is None else given.dtype for given in (hidden, weight, bias)
            ]
            ctx.mark_non_differentiable(fused.losses, divergences)
            return plan.weights.to(wide) @ fused.losses.to(wide), fused.losses, divergences
        size = max(1, CHUNK_ELEMENTS * (WITH_TRAINED_HEAD if learns else 1) // head.vocabulary_size)
        parts: list[tuple[Taught | TaughtTop | None, torch.Tensor]] = [
            (None, plan.alone),
            *((each, each.places) for each in plan.taught),
        ]
        for taught, every in parts:
            alpha = 0.0 if taught is None else plan.alpha
            for start in range(0, len(every), size):
                places = every[start : start + size]
                states, weights = (
                    hidden[places].to(head.weight.dtype),
                    plan.weights[places].to(wide),
                )
                with torch.autocast(hidden.device.type, enabled=False):
                    logits = head.logits(states)
                    slopes = []
                    if alpha < 1:
                        share = (1 - alpha) * weights
                        found, slope = _cross_entropy(logits, plan.targets[places], share)
                        cross_entropies[places] = found
                        total += share @ found
                        slopes.append(slope)
                    if taught is not None:
                        share = alpha * plan.temperature**2 * weights
                        tokens = slice(start, start + size)
                        if isinstance(taught, TaughtTop):
                            found, slope = _divergence_at_top(logits, taught, tokens, plan, share)
                        else:
                            found, slope = _divergence(logits, taught, tokens, plan, share)
                        divergences[places] = found
                        total += share @ found
                        slopes.append(slope)
                    gradients.add(_sum(slopes, logits), logits, head, states, places)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [None if given is None else given.dtype for given in (hidden, weight, bias)]
        ctx.mark_non_differentiable(cross_entropies, divergences)
        return total, cross_entropies, divergences

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: torch.Tensor, *_: torch.Tensor) -> Any:
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (
            *(
                None if found is None else (found * outer.to(found.dtype)).to(dtype)
                for found, dtype in pairs
            ),
            None,
        )


def _cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns each token's cross-entropy, and its weighted derivative by the logits."""
    log_q = logits.log_softmax(-1)
    found = -log_q.gather(-1, targets[:, None])[:, 0]
    slope = log_q.exp_().mul_(weights[:, None])
    return found, slope.scatter_add_(-1, targets[:, None], -weights[:, None])


def _divergence(
    logits: torch.Tensor, taught: Taught, tokens: slice, plan: _Plan, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns each token's divergence D, and its weighted derivative by the logits of the shared
    vocabulary.

    With u = q·∂D/∂q, the derivative by the logits is (u − q·Σu) / τ.
    """
    log_p = taught.log_probabilities(tokens, plan.temperature, plan.autocast)
    log_q = (logits[:, : taught.vocabulary] / plan.temperature).log_softmax(-1)
    q = log_q.exp()
    if liger.is_used(log_q) and liger.computes(plan.divergence):
        found, u = liger.compare(plan.divergence, plan.beta, log_p, log_q)
    else:
        found, u = _compare(plan.divergence, plan.beta, log_p, log_q, q)
    u = torch.addcmul(u, q, u.sum(-1, keepdim=True), value=-1)
    return found, u.mul_(weights[:, None] / plan.temperature)


_LEAST_TAIL = 1e-6
"""The least probability of all other tokens: a sum of float32 logarithms knows no smaller one."""


def _divergence_at_top(
    logits: torch.Tensor, taught: TaughtTop, tokens: slice, plan: _Plan, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns each token's divergence D between k tokens and one share for all others, and its
    weighted derivative by the logits.

    With T the others, q_T = Σ_{j∈T} q_j and u_c = q_c·∂D/∂q_c for each of the k+1 outcomes, the
    derivative by the logit of j is u_j − q_j·Σu where j is one of the k, and
    (q_j/q_T)·u_T − q_j·Σu where it is in T.
    """
    top, log_p = taught.tokens[tokens], taught.log_probabilities[tokens].to(logits.dtype)
    rest_p = (1 - log_p.exp().sum(-1, keepdim=True)).clamp_min(_LEAST_TAIL).log()
    log_q = logits.log_softmax(-1)
    others = log_q.scatter(-1, top, -math.inf)
    rest_q = others.logsumexp(-1, keepdim=True)
    is_whole = rest_q.isneginf()  # the k tokens are all that there are
    rest_q = torch.where(is_whole, rest_p, rest_q)
    coarse_p = torch.cat([log_p, rest_p], -1)
    coarse_q = torch.cat([log_q.gather(-1, top), rest_q], -1)
    found, u = _compare(plan.divergence, plan.beta, coarse_p, coarse_q, coarse_q.exp())
    # An outcome of no tokens has no part in the derivative.
    u_rest = torch.where(is_whole, torch.zeros_like(rest_q), u[:, -1:])
    u_top = u[:, :-1]
    share_of_rest = torch.where(is_whole, torch.zeros_like(others), (others - rest_q).exp())
    total = u_top.sum(-1, keepdim=True) + u_rest
    slope = share_of_rest * u_rest - log_q.exp() * total
    slope.scatter_add_(-1, top, u_top)
    return found, slope.mul_(weights[:, None])


def _sum(slopes: Sequence[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """Returns the sum of derivatives by the logits, of which some are by the first ones alone; one
    that is alone is not copied.
    """
    first = (
        slopes[0]
        if slopes[0].shape == logits.shape
        else pad(slopes[0], (0, logits.shape[1] - slopes[0].shape[1]))
    )
    for slope in slopes[1:]:
        first[:, : slope.shape[1]] += slope
    return first


def _compare(
    divergence: Divergence, beta: float, log_p: torch.Tensor, log_q: torch.Tensor, q: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns D of each token, and u = q·∂D/∂q up to a multiple of q."""
    if divergence == "reverse_kl":
        u = q * (log_q - log_p)
        return u.sum(-1), u
    p = log_p.exp()
    if divergence == "forward_kl":
        return (p * (log_p - log_q)).sum(-1), -p
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    from_teacher = (p * (log_p - log_m)).sum(-1)
    if divergence == "skew_kl":
        return from_teacher, -(1 - beta) * (log_p + log_q - log_m).exp()
    u = q * (log_q - log_m)
    return beta * from_teacher + (1 - beta) * u.sum(-1), (1 - beta) * u


class _Gradients(NamedTuple):
    """The gradients that are wanted, as they grow chunk by chunk."""

    hidden: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None

    @classmethod
    def of(
        cls,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        wanted: Sequence[bool],
        wide: torch.dtype,
    ) -> _Gradients:
        return cls(
            torch.zeros_like(hidden) if wanted[0] else None,
            torch.zeros_like(weight, dtype=wide) if wanted[1] else None,
            torch.zeros_like(bias, dtype=wide) if bias is not None and wanted[2] else None,
        )

    def add(
        self,
        slopes: torch.Tensor,
        logits: torch.Tensor,
        head: Head,
        states: torch.Tensor,
        places: torch.Tensor,
    ) -> None:
        """Carries a chunk's derivative by the logits on, through cap and scale, to hidden states,
        weight and bias.
        """
        if all(gradient is None for gradient in self):
            return
        if head.cap is not None:
            slopes *= 1 - (logits / head.cap) ** 2
        if head.scale != 1:
            slopes *= head.scale
        narrow = slopes.to(states.dtype)
        if self.hidden is not None:
            self.hidden[places] = (narrow @ head.weight).to(self.hidden.dtype)
        if self.weight is not None:
            self.weight.add_(narrow.T @ states)
        if self.bias is not None:
            self.bias.add_(slopes.sum(0))


@torch.no_grad()
def find_known(
    student: TrainableModel, rows: Sequence[Row], *, progress: Progress = silent
) -> list[bool]:
    """Returns for each row whether the student knows its answer: whether every token of it is the
    most probable one after those before it, so that decoding greedily would write it.

    Several processes read a part each, and all return the same.

    Args:
        student: A trainable copy, as it starts. One that scores no tokens knows nothing.
        rows: What it reads.
        progress: Shows the rows.
    """
    if not isinstance(student, TokenScorer):
        return [False] * len(rows)
    if not rows:
        return []
    by_length = sorted(range(len(rows)), key=lambda place: len(rows[place].tokens))
    groups = [by_length[at : at + ROWS_READ] for at in range(0, len(rows), ROWS_READ)]
    # Short and long ones mixed: from the shortest to the longest, the time left would be told far
    # too short.
    random.Random(0).shuffle(groups)
    found: dict[int, bool] = {}
    own = shard(groups)
    with progress("training: what the start knows", sum(map(len, own)), 0) as advance:
        for group in own:
            states = student.hidden_states([rows[place].tokens for place in group])
            head = student.head()
            # The hidden state of a token predicts the token after it.
            predicting = [
                hidden[rows[place].prompt_length - 1 : -1]
                for place, hidden in zip(group, states, strict=True)
            ]
            lengths = [len(hidden) for hidden in predicting]
            likeliest = _most_probable(torch.cat(predicting), head).tolist()
            for place, length in zip(group, lengths, strict=True):
                own, likeliest = likeliest[:length], likeliest[length:]
                found[place] = own == list(rows[place].answer)
            advance(len(group))
    everywhere = {place: knows for part in all_gather(found) for place, knows in part.items()}
    return [everywhere[place] for place in range(len(rows))]


def _most_probable(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """Returns the most probable token after each hidden state; logits are made chunk by chunk."""
    size = max(1, CHUNK_ELEMENTS // head.vocabulary_size)
    return torch.cat([head.logits(states).argmax(-1) for states in torch.split(hidden, size)])


# How far a student is from its base

ROWS_COMPARED = 16
"""Rows of a domain at which base and student are compared."""


def sample_by_domain(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Returns a few rows of each domain, drawn with the seed."""
    domains = {
        domain: [row for row in rows if row.domain == domain]
        for domain in sorted({row.domain for row in rows})
    }
    return {
        domain: random.Random(f"{seed}/{domain}").sample(own, min(ROWS_COMPARED, len(own)))
        for domain, own in domains.items()
    }


def divergence_from(
    base: TokenScorer, student: TokenScorer, rows: Mapping[str, Sequence[Row]]
) -> dict[str, float]:
    """Returns KL(base‖student) for each domain, in nats, as the mean over the answer tokens of its
    rows.

    Args:
        base: The model before it was trained.
        student: The model as it is now, with the base's tokenizer.
        rows: Rows of each domain.
    """
    # One model after the other: on a base that both share, each change between them takes seconds.
    known, base_head = _answer_states(base, rows), base.head()
    learned, own_head = _answer_states(student, rows), student.head()
    vocabulary = min(base.vocabulary_size, student.vocabulary_size)
    return {
        domain: _mean_divergence(
            Taught(
                places=torch.arange(len(learned[domain]), device=learned[domain].device),
                hidden=known[domain],
                head=base_head,
                vocabulary=vocabulary,
            ),
            learned[domain],
            own_head,
            [token for row in own for token in row.answer],
        )
        for domain, own in rows.items()
    }


@torch.no_grad()
def _mean_divergence(
    taught: Taught, learned: torch.Tensor, head: Head, answers: Sequence[int]
) -> float:
    targets = torch.tensor(answers, device=learned.device)
    weights = torch.ones(len(targets), device=learned.device)
    return float(token_losses(learned, head, targets, weights, taught=[taught]).divergence.mean())


def _answer_states(
    model: TokenScorer, rows: Mapping[str, Sequence[Row]]
) -> dict[str, torch.Tensor]:
    """Returns the hidden states that predict the answers' tokens, by domain."""
    together = [row for own in rows.values() for row in own]
    states = iter(model.hidden_states([row.tokens for row in together]))
    return {
        domain: torch.cat([next(states)[row.prompt_length - 1 : -1] for row in own])
        for domain, own in rows.items()
    }
