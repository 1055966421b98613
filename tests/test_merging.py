"""Merges in closed form: what they are by their definitions, and that an order of experts changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainfusion import merging
from domainfusion.distillation import MultiTaskTrainer
from domainfusion.errors import CapabilityError, ConfigurationError, DataError
from domainfusion.merging import Grams, merge, regmean, tsv
from domainfusion.models import LlamaModel
from domainfusion.models.summing import LoraFactors
from domainfusion.types import Conversation, Example, Integration, Message, Response, TrainingRecord

MakeAdapter = Callable[..., Path]


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def update(out: int, size: int, rank: int, seed: int) -> LoraFactors:
    return LoraFactors(drawn(rank, size, seed=seed), drawn(out, rank, seed=seed + 100))


def product(factors: LoraFactors) -> torch.Tensor:
    return factors.b.double() @ factors.a.double()


def grams_of(updates: list[LoraFactors], inputs: list[torch.Tensor]) -> Grams:
    grams = [x.T @ x / len(x) for x in inputs]
    return Grams(
        sum(grams[1:], grams[0]), [own.a @ gram for own, gram in zip(updates, grams, strict=True)]
    )


# The formulas


@given(ranks=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_regmean_is_the_least_squares_solution(ranks: list[int], seed: int) -> None:
    updates = [update(5, 6, rank, seed + 7 * place) for place, rank in enumerate(ranks)]
    inputs = [drawn(30, 6, seed=seed + 1000 + place) for place in range(len(ranks))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "RIDGE", 0.0)
        found = product(regmean(updates, grams_of(updates, inputs)))
    # All experts' outputs on their own inputs, one below the other: X·Δᵀ ≈ Y. Each expert weighs by
    # tokens, which are equal here.
    wanted = torch.cat([x @ product(own).T for x, own in zip(inputs, updates, strict=True)])
    expected = torch.linalg.lstsq(torch.cat(inputs), wanted).solution.T
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_regmean_of_one_expert_is_that_expert() -> None:
    own = update(5, 6, 2, seed=1)
    found = regmean([own], grams_of([own], [drawn(40, 6, seed=2)]))
    torch.testing.assert_close(product(found), product(own), rtol=1e-2, atol=1e-2)


def test_regmean_of_experts_with_the_same_inputs_is_their_mean() -> None:
    updates, inputs = [update(5, 6, 2, seed=1), update(5, 6, 3, seed=2)], drawn(40, 6, seed=3)
    found = regmean(updates, grams_of(updates, [inputs, inputs]))
    torch.testing.assert_close(
        product(found), (product(updates[0]) + product(updates[1])) / 2, rtol=1e-2, atol=1e-2
    )


def test_inputs_that_span_little_or_nothing_give_finite_weights() -> None:
    updates = [update(5, 6, 2, seed=1), update(5, 6, 2, seed=2)]
    for inputs in (torch.zeros(10, 6, dtype=torch.float64), drawn(1, 6, seed=3).repeat(10, 1)):
        assert product(regmean(updates, grams_of(updates, [inputs, inputs]))).isfinite().all()


def test_inputs_that_are_not_finite_are_refused() -> None:
    own = update(5, 6, 2, seed=1)
    with pytest.raises(DataError, match="not finite"):
        regmean([own], Grams(torch.full((6, 6), torch.nan, dtype=torch.float64), [own.a]))


@given(seed=st.integers(0, 10_000), weight=st.floats(0.1, 2))
@settings(max_examples=30, deadline=None)
def test_tsv_of_orthogonal_experts_is_their_sum(seed: int, weight: float) -> None:
    columns, rows = (
        torch.linalg.qr(drawn(8, 4, seed=seed)).Q,
        torch.linalg.qr(drawn(9, 4, seed=seed + 1)).Q.T,
    )
    updates = [LoraFactors(rows[:2], columns[:, :2]), LoraFactors(3 * rows[2:], columns[:, 2:])]
    expected = weight * (product(updates[0]) + product(updates[1]))
    torch.testing.assert_close(product(tsv(updates, weight)), expected, rtol=1e-8, atol=1e-10)


@given(ranks=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_tsv_of_one_is_that_one_and_the_order_changes_nothing(ranks: list[int], seed: int) -> None:
    updates = [update(7, 6, rank, seed + 7 * place) for place, rank in enumerate(ranks)]
    found = tsv(updates)
    assert (len(found.a), found.b.shape[1]) == (sum(ranks), sum(ranks)), (
        "the rank is the sum of the experts'"
    )
    torch.testing.assert_close(product(tsv(updates[:1])), product(updates[0]))
    if sum(ranks) <= 6:  # beyond that, singular vectors are not unique
        torch.testing.assert_close(
            product(tsv(updates[::-1])), product(found), rtol=1e-6, atol=1e-8
        )


# Models


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def experts(tiny_llama: Path, make_adapter: MakeAdapter) -> dict[str, LlamaModel]:
    return {
        domain: LlamaModel(
            make_adapter(domain, seed, r=rank), base_model=tiny_llama, dtype="float32"
        )
        for domain, seed, rank in (("law", 1, 2), ("tax", 2, 4))
    }


def dialogues(domain: str) -> list[Conversation]:
    return [
        (
            Message("user", f"What is {domain} {n}?"),
            Message("assistant", f"It is {domain} {'so ' * n}"),
        )
        for n in range(4)
    ]


READ = {domain: dialogues(domain) for domain in ("law", "tax")}


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: product(own) for name, own in model.lora_factors().items()}


def test_regmean_of_models_is_the_formula_on_the_inputs_of_each_layer(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    merged = merge(base, experts, method="regmean", weight=1.3, conversations=READ)
    updates = {domain: expert.lora_factors() for domain, expert in experts.items()}
    seen: dict[str, dict[str, list[torch.Tensor]]] = {domain: {} for domain in experts}
    for domain, expert in experts.items():
        for conversation in READ[domain]:
            own = seen[domain]

            def see(layer: str, x: torch.Tensor, own: dict[str, list[torch.Tensor]] = own) -> None:
                own.setdefault(layer, []).append(x[0].double())

            with expert.watching_inputs(see):
                expert.hidden_states([expert.encode(conversation, reply=False)])
    for layer, found in state(merged).items():
        weighted, total = (
            torch.zeros_like(found),
            torch.zeros(found.shape[1], found.shape[1], dtype=torch.float64),
        )
        for domain in experts:
            x = torch.cat(seen[domain][layer])
            gram = x.T @ x / len(x)
            gram = merging.OFF_DIAGONAL * gram + (1 - merging.OFF_DIAGONAL) * torch.diag(
                gram.diagonal()
            )
            total += gram
            weighted += product(updates[domain][layer]) @ gram
        total += (
            merging.RIDGE * total.diagonal().mean() * torch.eye(len(total), dtype=torch.float64)
        )
        torch.testing.assert_close(
            found, 1.3 * weighted @ torch.linalg.inv(total), rtol=2e-2, atol=2e-3
        )


@pytest.mark.parametrize("method", ["sum", "tsv", "regmean"])
def test_a_merge_changes_nobody_and_its_experts_order_changes_nothing(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path, method: merging.MergeMethod
) -> None:
    before = [expert.ask("What is law?") for expert in experts.values()]
    asked = base.ask("What is law?")
    merged = merge(base, experts, method=method, conversations=READ)
    turned = merge(base, dict(reversed(experts.items())), method=method, conversations=READ)
    for name, found in state(merged).items():
        torch.testing.assert_close(found, state(turned)[name], rtol=1e-3, atol=1e-4)
    assert [expert.ask("What is law?") for expert in experts.values()] == before
    assert base.ask("What is law?") == asked
    merged.save(tmp_path / method)
    assert LlamaModel(tmp_path / method, dtype="float32").ask("What is law?") == merged.ask(
        "What is law?"
    )


@pytest.mark.parametrize("method", ["sum", "tsv", "regmean"])
def test_an_expert_of_two_domains_counts_once(
    base: LlamaModel, experts: dict[str, LlamaModel], method: merging.MergeMethod
) -> None:
    twice = {**experts, "duty": experts["tax"]}
    read = {**READ, "duty": READ["tax"]}
    one, other = (
        merge(base, given, method=method, conversations=read) for given in (experts, twice)
    )
    for name, found in state(one).items():
        torch.testing.assert_close(found, state(other)[name], rtol=1e-3, atol=1e-4)


def test_what_can_not_be_merged_is_one_clear_error(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    with pytest.raises(ConfigurationError, match="merge method is unknown"):
        merge(base, experts, method="ties")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not finite"):
        merge(base, experts, weight=float("nan"))
    with pytest.raises(CapabilityError, match="Only LoRA adapters"):
        merge(base, {**experts, "base": base})
    with pytest.raises(CapabilityError, match="no experts"):
        merge(base, {})
    with pytest.raises(DataError, match=r"'tax' to read.*method='tsv'"):
        merge(base, experts, method="regmean", conversations={"law": READ["law"]})


# As the start of a training


def test_a_trainer_starts_from_the_merge_of_its_method(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    records = [
        TrainingRecord(
            example=Example(query=conversation[0].content, domains=(domain,)),
            responses=(Response(domain=domain, text=conversation[1].content),),
            integration=Integration(text=conversation[1].content, method="given"),
        )
        for domain, own in READ.items()
        for conversation in own
    ]
    settings: dict[str, Any] = {"learning_rate": 1e-3, "adaptation": "lora", "merge_weight": 1.3}
    for method in ("sum", "tsv", "regmean"):
        student, adaptation = MultiTaskTrainer(**settings, merge_method=method).adapt(
            base, experts, records
        )
        assert adaptation is not None and isinstance(student, LlamaModel)
        expected = merge(base, experts, method=method, weight=1.3, conversations=READ)
        for name, found in state(student).items():
            torch.testing.assert_close(found, state(expected)[name])
    with pytest.raises(CapabilityError, match="merge whole fine-tunes by their sum"):
        MultiTaskTrainer(**settings, merge_method="tsv").adapt(base, {"law": base}, records)
