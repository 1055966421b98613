"""The loss is the library's own, on answer tokens alone; divergences are those of the textbook; and
chunks change nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)

from domainfusion.models import LlamaModel
from domainfusion.models.projection import Head, head_of, project
from domainfusion.training import losses
from domainfusion.training.batching import IGNORED, Batch, Row, collate
from domainfusion.training.losses import (
    Divergence,
    Taught,
    TokenLosses,
    answer_hidden_states,
    answer_hidden_states_of_tree,
    token_losses,
)

ROWS = [
    Row("short", (5, 6, 7, 8), 2),
    Row("long", tuple(range(10, 40)), 11),
    Row("one token", (3, 4, 50), 2),
    Row("middle", tuple(range(60, 75)), 4),
]


@pytest.fixture(scope="module")
def module(tiny_llama: Path) -> PreTrainedModel:
    return LlamaModel(tiny_llama, dtype="float32").trainable_copy(None).trainable_module()


def answers(rows: list[Row]) -> int:
    return sum(len(row.tokens) - row.prompt_length for row in rows)


def loss_of(
    module: PreTrainedModel, rows: list[Row], answer_tokens: int | None = None, pad: int = 0
) -> torch.Tensor:
    return loss_on(
        module, collate(rows, pad), answers(rows) if answer_tokens is None else answer_tokens
    )


def loss_on(module: PreTrainedModel, batch: Batch, answer_tokens: int) -> torch.Tensor:
    hidden, targets = answer_hidden_states(module, batch)
    return token_losses(
        hidden, head_of(module), targets, torch.full((len(targets),), 1 / max(answer_tokens, 1))
    ).total


def gradients(module: PreTrainedModel, *parts: torch.Tensor) -> list[torch.Tensor]:
    module.zero_grad()
    for part in parts:
        part.backward()
    return [
        parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.record_id)
def test_the_loss_of_a_row_is_the_one_that_transformers_computes(
    module: PreTrainedModel, row: Row
) -> None:
    batch = collate([row], 0)
    theirs = module(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    torch.testing.assert_close(loss_of(module, [row]), theirs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.record_id)
def test_the_loss_of_a_row_is_its_answer_s_negative_log_probability(
    module: PreTrainedModel, row: Row
) -> None:
    tokens = torch.tensor([row.tokens])
    log_probabilities = module(input_ids=tokens).logits.float().log_softmax(-1)
    places = range(row.prompt_length, len(row.tokens))
    expected = -sum(log_probabilities[0, place - 1, row.tokens[place]] for place in places) / len(
        places
    )
    torch.testing.assert_close(loss_of(module, [row]), expected)


def test_what_the_prompt_s_own_tokens_would_have_cost_does_not_count(
    module: PreTrainedModel,
) -> None:
    batch = collate(ROWS, 0)
    everything: Batch = {"input_ids": batch["input_ids"], "labels": batch["input_ids"].clone()}
    assert loss_on(module, everything, answers(ROWS)) > loss_of(module, ROWS)
    hidden, targets = answer_hidden_states(module, batch)
    assert len(hidden) == len(targets) == answers(ROWS)


def test_padding_changes_nothing(module: PreTrainedModel) -> None:
    together = loss_of(module, ROWS)
    alone = sum(loss_of(module, [row], answers(ROWS)) for row in ROWS)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, loss_of(module, ROWS, pad=77))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(module: PreTrainedModel, size: int) -> None:
    parts = [ROWS[at : at + size] for at in range(0, len(ROWS), size)]
    whole = gradients(module, loss_of(module, ROWS))
    summed = gradients(module, *(loss_of(module, part, answers(ROWS)) for part in parts))
    for one, other in zip(whole, summed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_rows_read_as_a_tree_have_the_loss_and_the_gradient_of_the_padded_batch(
    module: PreTrainedModel,
) -> None:
    # Two of them begin alike, and the answer of one begins in what they have in common.
    rows = [*ROWS, Row("alike", (*range(10, 35), 80, 81), 11), ROWS[0]]
    hidden, targets = answer_hidden_states(module, collate(rows, 0))
    by_tree, targets_of_tree = answer_hidden_states_of_tree(module, rows)
    assert torch.equal(targets, targets_of_tree)
    torch.testing.assert_close(hidden, by_tree, rtol=0, atol=1e-5)
    weights = torch.linspace(0.1, 1, len(targets))
    whole, of_tree = (
        gradients(module, token_losses(states, head_of(module), targets, weights).total)
        for states in (hidden, by_tree)
    )
    for one, other in zip(whole, of_tree, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_batch_without_an_answer_has_no_loss(module: PreTrainedModel) -> None:
    batch = collate([Row("empty", (5, 6, 7), 3)], 0)
    assert (batch["labels"] == IGNORED).all()
    loss = loss_on(module, batch, 0)
    assert loss.item() == 0
    assert all(gradient.abs().sum() == 0 for gradient in gradients(module, loss))


SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.5, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        pytest.param(
            Gemma2ForCausalLM, Gemma2Config(**SMALL, final_logit_softcapping=2.0), id="soft cap"
        ),
        pytest.param(GraniteForCausalLM, GraniteConfig(**SMALL, logits_scaling=4.0), id="scaling"),
        pytest.param(CohereForCausalLM, CohereConfig(**SMALL, logit_scale=0.25), id="scale"),
    ],
)
def test_logits_are_those_of_the_architecture(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    model = kind(config).eval()
    batch = collate([Row("r", tuple(range(5, 15)), 3)], 0)
    with torch.no_grad():
        hidden, _ = answer_hidden_states(model, batch)
        expected = model(input_ids=batch["input_ids"]).logits[0, 2:-1].float()
    torch.testing.assert_close(project(model, hidden), expected)


# Divergences, held against a plain float64 reference

DIVERGENCES = get_args(Divergence)
TOKENS, HIDDEN, VOCABULARY = 7, 5, 11


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def a_head(vocabulary: int = VOCABULARY, seed: int = 1, **settings: Any) -> Head:
    return Head(drawn(vocabulary, HIDDEN, seed=seed), drawn(vocabulary, seed=seed + 50), **settings)


def a_student(seed: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, targets and weights of some tokens."""
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(seed))
    return drawn(TOKENS, HIDDEN, seed=seed), targets, drawn(TOKENS, seed=seed + 9).abs()


def taught_by(
    teacher: tuple[torch.Tensor, Head],
    places: list[int] | None = None,
    vocabulary: int = VOCABULARY,
) -> Taught:
    where = torch.arange(TOKENS) if places is None else torch.tensor(places)
    hidden, head = teacher
    return Taught(where, hidden[where], head, vocabulary)


def reference(
    divergence: str, logits: torch.Tensor, teacher: torch.Tensor, beta: float, temperature: float
) -> torch.Tensor:
    """The divergence of each token as the papers write it."""
    q, p = (logits / temperature).softmax(-1), (teacher / temperature).softmax(-1)
    m = beta * p + (1 - beta) * q

    def kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one * (one / other).log()).sum(-1)

    found: torch.Tensor = {
        "forward_kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "skew_kl": lambda: kl(p, m),
        "jensen_shannon": lambda: beta * kl(p, m) + (1 - beta) * kl(q, m),
    }[divergence]()
    return found


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(
    "settings", [{}, {"scale": 0.3}, {"cap": 2.0}, {"scale": 3.0, "cap": 4.0}], ids=str
)
def test_loss_and_gradients_are_those_of_the_formula(
    divergence: Any, temperature: float, settings: dict[str, Any]
) -> None:
    (hidden, targets, weights), head, teacher = (
        a_student(),
        a_head(**settings),
        (drawn(TOKENS, HIDDEN, seed=3), a_head(seed=4)),
    )
    leaves = [hidden.requires_grad_(), head.weight.requires_grad_(), head.bias.requires_grad_()]
    aim: dict[str, Any] = {
        "divergence": divergence,
        "beta": 0.3,
        "temperature": temperature,
        "alpha": 0.7,
    }
    found = token_losses(hidden, head, targets, weights, taught=[taught_by(teacher)], **aim)
    logits = head.logits(hidden)
    apart = reference(divergence, logits, teacher[1].logits(teacher[0]), 0.3, temperature)
    cross_entropy = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    expected = (weights * (0.3 * cross_entropy + 0.7 * temperature**2 * apart)).sum()
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.divergence, apart.detach())
    torch.testing.assert_close(found.cross_entropy, cross_entropy.detach())
    for mine, theirs in zip(
        torch.autograd.grad(found.total, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_gradient_is_that_of_finite_differences(divergence: Any) -> None:
    (hidden, targets, weights), head = a_student(), a_head(cap=3.0)
    taught = [taught_by((drawn(TOKENS, HIDDEN, seed=3), a_head(seed=4)), places=[0, 2, 3, 6])]

    def total(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        head = Head(weight, bias, cap=3.0)
        return token_losses(
            hidden,
            head,
            targets,
            weights,
            taught=taught,
            divergence=divergence,
            temperature=1.5,
            alpha=0.4,
        ).total

    assert head.bias is not None
    assert torch.autograd.gradcheck(
        total, [given.detach().requires_grad_() for given in (hidden, head.weight, head.bias)]
    )


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_distribution_is_not_apart_from_itself(divergence: Any) -> None:
    (hidden, targets, weights), head = a_student(), a_head()
    hidden.requires_grad_()
    found = token_losses(
        hidden,
        head,
        targets,
        weights,
        taught=[taught_by((hidden.detach(), head))],
        divergence=divergence,
    )
    assert found.divergence.abs().max() < 1e-15
    (gradient,) = torch.autograd.grad(found.total, [hidden])
    assert gradient.abs().max() < 1e-14


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_distributions_that_differ_are_apart(divergence: Any) -> None:
    (hidden, targets, weights), head = a_student(), a_head()
    taught = [taught_by((drawn(TOKENS, HIDDEN, seed=3), head))]
    assert (
        token_losses(
            hidden, head, targets, weights, taught=taught, divergence=divergence
        ).divergence
        > 1e-3
    ).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("elements", [1, 2 * VOCABULARY, 3 * VOCABULARY])
def test_the_size_of_a_chunk_changes_nothing(
    divergence: Any, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hidden, targets, weights), head = a_student(), a_head()
    leaves = [hidden.requires_grad_(), head.weight.requires_grad_()]
    taught = [taught_by((drawn(TOKENS, HIDDEN, seed=3), a_head(seed=4)), places=[6, 1, 2, 5])]

    def run() -> tuple[TokenLosses, tuple[torch.Tensor, ...]]:
        found = token_losses(
            hidden, head, targets, weights, taught=taught, divergence=divergence, alpha=0.5
        )
        return found, torch.autograd.grad(found.total, leaves)

    (whole, gradients_of_whole), _ = run(), monkeypatch.setattr(losses, "CHUNK_ELEMENTS", elements)
    parts, gradients_of_parts = run()
    for one, other in zip(
        (*whole, *gradients_of_whole), (*parts, *gradients_of_parts), strict=True
    ):
        torch.testing.assert_close(one, other, equal_nan=True)


def test_tokens_count_where_they_are_taught_and_nowhere_else() -> None:
    (hidden, targets, weights), head = a_student(), a_head()
    first, second = (drawn(TOKENS, HIDDEN, seed=seed) for seed in (3, 4))
    taught = [
        taught_by((first, a_head(seed=4)), places=[1, 4]),
        taught_by((second, a_head(seed=5)), places=[3]),
    ]
    found = token_losses(hidden, head, targets, weights, taught=taught, alpha=1.0)
    is_taught = torch.tensor([False, True, False, True, True, False, False])
    assert found.divergence.isnan().equal(~is_taught)
    assert found.cross_entropy.isnan().equal(is_taught)
    expected = (
        torch.where(is_taught, found.divergence.nan_to_num(), found.cross_entropy.nan_to_num())
        @ weights
    )
    torch.testing.assert_close(found.total, expected)


def test_tokens_of_no_weight_change_nothing() -> None:
    (hidden, targets, weights), head = a_student(), a_head()
    leaves = [hidden.requires_grad_(), head.weight.requires_grad_()]
    taught = [taught_by((drawn(TOKENS, HIDDEN, seed=3), a_head(seed=4)))]
    found = token_losses(hidden, head, targets, torch.zeros_like(weights), taught=taught, alpha=0.5)
    assert found.total == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(found.total, leaves))


def test_no_tokens_cost_nothing() -> None:
    head, hidden = a_head(), torch.zeros(0, HIDDEN, dtype=torch.float64, requires_grad=True)
    found = token_losses(hidden, head, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    assert found.total == 0
    found.total.backward()


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(
    "sizes",
    [(11, 14), (14, 11), (14, 13)],
    ids=lambda sizes: f"student {sizes[0]}, teacher {sizes[1]}",
)
def test_vocabularies_that_are_padded_differently_are_cut_to_what_they_share(
    divergence: Any, sizes: tuple[int, int]
) -> None:
    shared, (hidden, targets, weights) = 9, a_student()
    student, teacher, states = (
        a_head(sizes[0]),
        a_head(sizes[1], seed=4),
        drawn(TOKENS, HIDDEN, seed=3),
    )
    taught = [taught_by((states, teacher), vocabulary=shared)]
    found = token_losses(hidden, student, targets, weights, taught=taught, divergence=divergence)
    expected = reference(
        divergence, student.logits(hidden)[:, :shared], teacher.logits(states)[:, :shared], 0.5, 1.0
    )
    torch.testing.assert_close(found.divergence, expected)


def test_a_frozen_head_gets_no_gradient_and_changes_no_other() -> None:
    (hidden, targets, weights), head = a_student(), a_head()
    taught = [taught_by((drawn(TOKENS, HIDDEN, seed=3), a_head(seed=4)))]
    hidden.requires_grad_()
    (frozen,) = torch.autograd.grad(
        token_losses(hidden, head, targets, weights, taught=taught).total, [hidden]
    )
    head.weight.requires_grad_()
    found = token_losses(hidden, head, targets, weights, taught=taught).total
    trainable, _ = torch.autograd.grad(found, [hidden, head.weight])
    assert torch.equal(frozen, trainable)


def test_without_gradients_the_loss_is_the_same() -> None:
    (hidden, targets, weights), head = a_student(), a_head()
    hidden.requires_grad_()
    with torch.no_grad():
        found = token_losses(hidden, head, targets, weights)
    assert not found.total.requires_grad
    assert torch.equal(found.total, token_losses(hidden, head, targets, weights).total.detach())


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_in_bfloat16_the_loss_is_near_that_in_float32(divergence: Any) -> None:
    (hidden, targets, weights), head = a_student(), a_head()
    hidden, head, weights = (
        hidden.float().requires_grad_(),
        head.to(dtype=torch.float32),
        weights.float(),
    )
    taught = [
        taught_by((drawn(TOKENS, HIDDEN, seed=3).float(), a_head(seed=4).to(dtype=torch.float32)))
    ]
    exact = token_losses(hidden, head, targets, weights, taught=taught, divergence=divergence)
    with torch.autocast("cpu", torch.bfloat16):
        rough = token_losses(hidden, head, targets, weights, taught=taught, divergence=divergence)
    assert rough.total.dtype == torch.float32
    # Each logit is a sum of some six products below 2^4, each of which bfloat16 rounds to 8 bits.
    torch.testing.assert_close(rough.divergence, exact.divergence, rtol=0.1, atol=0.1)
    (one,), (other,) = (torch.autograd.grad(found.total, [hidden]) for found in (exact, rough))
    assert (one - other).norm() < 0.1 * one.norm()


def test_memory_does_not_grow_with_tokens_times_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, hidden, vocabulary, elements = 512, 8, 20_000, 1 << 18
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", elements // losses.WITH_TRAINED_HEAD)
    head = Head(drawn(vocabulary, hidden, dtype=torch.float32).requires_grad_())
    states, teacher = (
        drawn(tokens, hidden, dtype=torch.float32).requires_grad_(),
        drawn(tokens, hidden, seed=3, dtype=torch.float32),
    )
    taught = [Taught(torch.arange(tokens), teacher, head.to(), vocabulary)]
    targets, weights = torch.zeros(tokens, dtype=torch.long), torch.ones(tokens)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        token_losses(
            states, head, targets, weights, taught=taught, divergence="jensen_shannon", alpha=0.5
        ).total.backward()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    a_chunk, the_gradients = 4 * elements, 4 * 3 * hidden * vocabulary
    assert peak > a_chunk, "the profiler saw nothing"
    assert peak < 12 * a_chunk + the_gradients
    assert peak < 4 * tokens * vocabulary / 2, "one matrix of logits alone would be twice as large"


# Targets drawn from a teacher
