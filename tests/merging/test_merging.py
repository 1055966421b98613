"""Merges in closed form: what they are by their definitions, and that an order of experts changes
nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from domainfusion.distillation import MergeSettings, MultiTaskTrainer
from domainfusion.errors import CapabilityError, ConfigurationError, DataError, ModelError
from domainfusion.merging import Candidate, MergeChoice, MergeMethod, Merger, fit, merge, methods
from domainfusion.merging.merger import LONGEST_READ, TOKENS_READ, DialogueBatch, read_layers
from domainfusion.merging.methods import Grams, damped, regmean, toward, tsv, tsv_of_matrices
from domainfusion.models import HuggingFaceModel, LlamaModel
from domainfusion.models.summing import LoraFactors
from domainfusion.types import (
    Conversation,
    Example,
    Integration,
    Message,
    Response,
    Sampling,
    TrainingRecord,
)

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
        patch.setattr(methods, "RIDGE", 0.0)
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


def inputs_of(
    model: HuggingFaceModel, layers: list[str], conversations: list[Conversation]
) -> dict[str, torch.Tensor]:
    """Returns what each layer reads of some dialogues, one after the other, of shape (tokens, in)."""
    seen: dict[str, list[torch.Tensor]] = {}

    def see(layer: str, x: torch.Tensor) -> None:
        seen.setdefault(layer, []).append(x[0].double())

    with model.watching_inputs(layers, see):
        for conversation in conversations:
            model.hidden_states([model.encode(conversation, reply=False)])
    return {layer: torch.cat(own) for layer, own in seen.items()}


@pytest.mark.parametrize("is_adapter", [False, True])
def test_regmean_of_models_is_the_formula_on_what_the_merge_itself_reads(
    base: LlamaModel, experts: dict[str, LlamaModel], make_adapter: MakeAdapter, is_adapter: bool
) -> None:
    path = Path(base.model_path)
    own_adapter = LlamaModel(make_adapter("own", 9, r=3), base_model=path, dtype="float32")
    before = state(own_adapter) if is_adapter else {}
    student = own_adapter if is_adapter else base
    merged = merge(student, experts, method="regmean", weight=1.0, conversations=READ)
    updates = {domain: state(expert) for domain, expert in experts.items()}
    layers = list(state(merged))
    own = {domain: inputs_of(expert, layers, READ[domain]) for domain, expert in experts.items()}
    read = {domain: inputs_of(merged, layers, READ[domain]) for domain in experts}
    alpha = methods.OFF_DIAGONAL
    for layer, found in state(merged).items():
        left, total = torch.zeros_like(found), torch.zeros(found.shape[1], found.shape[1]).double()
        for domain in experts:
            x, expected = read[domain][layer], own[domain][layer] @ updates[domain][layer].T
            diagonal = torch.diag((x.T @ x / len(x)).diagonal())
            total += alpha * x.T @ x / len(x) + (1 - alpha) * diagonal
            left += alpha * expected.T @ x / len(x)
            left += (1 - alpha) * updates[domain][layer] @ diagonal
        total += methods.RIDGE * total.diagonal().mean() * torch.eye(len(total)).double()
        expected = before.get(layer, 0) + left @ torch.linalg.inv(total)
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-3)


def test_regmean_scales_with_its_weight(base: LlamaModel, experts: dict[str, LlamaModel]) -> None:
    one = state(merge(base, experts, method="regmean", weight=1.0, conversations=READ))
    more = state(merge(base, experts, method="regmean", weight=1.3, conversations=READ))
    for layer, found in more.items():
        torch.testing.assert_close(found, 1.3 * one[layer], rtol=1e-4, atol=1e-6)


def test_threads_change_no_merge(base: LlamaModel, experts: dict[str, LlamaModel]) -> None:
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            merged = merge(base, experts, method="regmean", weight=1.0, conversations=READ)
        finally:
            torch.set_num_threads(threads)
        found.append(state(merged))
    for layer, weight in found[0].items():
        torch.testing.assert_close(found[1][layer], weight, rtol=1e-3, atol=1e-5)


def test_a_model_of_which_no_layer_can_be_read_is_one_clear_error(
    base: LlamaModel, experts: dict[str, LlamaModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = LlamaModel.hidden_states

    def one_by_one(model: LlamaModel, rows: Any, **how: Any) -> list[torch.Tensor]:
        return at_once(model, rows, **{**how, "at_once": 1})

    monkeypatch.setattr(LlamaModel, "hidden_states", one_by_one)
    with pytest.raises(ModelError, match=r"No layer of .* reads the tokens"):
        merge(base, experts, method="regmean", weight=1.0, conversations=READ)


def test_a_layer_that_an_expert_does_not_read_through_stays_the_mean(
    base: LlamaModel, experts: dict[str, LlamaModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = "model.layers.0.mlp.down_proj"

    def read(model: Any, batch: Any, layers: Any, *others: Any, is_fixed: bool) -> None:
        seen = [one for one in layers if one != unread or model is not experts["law"]]
        read_layers(model, batch, seen, *others, is_fixed=is_fixed)

    monkeypatch.setattr("domainfusion.merging.merger.read_layers", read)
    merged = state(merge(base, experts, method="regmean", weight=1.0, conversations=READ))
    mean = sum(state(expert)[unread] for expert in experts.values()) / 2
    torch.testing.assert_close(merged[unread], mean, rtol=1e-4, atol=1e-6)


def test_toward_equal_inputs_is_the_update_times_the_damped_gram_matrix() -> None:
    x, own = drawn(50, 6, seed=1), drawn(3, 6, seed=2)
    torch.testing.assert_close(toward(own, x @ own.T, x), own @ damped(x.T @ x / len(x)))


@pytest.mark.parametrize("method", ["sum", "tsv", "regmean"])
def test_a_merge_changes_nobody_and_its_experts_order_changes_nothing(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path, method: MergeMethod
) -> None:
    before = [expert.ask("What is law?") for expert in experts.values()]
    asked = base.ask("What is law?")
    merged = merge(base, experts, method=method, weight=1.0, conversations=READ)
    turned = merge(
        base, dict(reversed(experts.items())), method=method, weight=1.0, conversations=READ
    )
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
    base: LlamaModel, experts: dict[str, LlamaModel], method: MergeMethod
) -> None:
    twice = {**experts, "duty": experts["tax"]}
    read = {**READ, "duty": READ["tax"]}
    one, other = (
        merge(base, given, method=method, weight=1.0, conversations=read)
        for given in (experts, twice)
    )
    for name, found in state(one).items():
        torch.testing.assert_close(found, state(other)[name], rtol=1e-3, atol=1e-4)


def test_what_can_not_be_merged_is_one_clear_error(
    base: LlamaModel, experts: dict[str, LlamaModel], make_llama: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigurationError, match="method is not known"):
        merge(base, experts, method="ties")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not finite"):
        merge(base, experts, method="sum", weight=float("nan"))
    with pytest.raises(CapabilityError, match="own base"):
        merge(base, {**experts, "base": base})
    with pytest.raises(CapabilityError, match="nothing to merge"):
        merge(base, {})
    other = LlamaModel(make_llama("other", seed=7), dtype="float32")
    with pytest.raises(CapabilityError, match=r"own base.*an adapter on .*tiny-llama"):
        merge(other, experts)
    with pytest.raises(CapabilityError, match="is not a fine-tune"):
        merge(base, {**experts, "other": other})


@pytest.mark.filterwarnings(
    "ignore:`lora_bias=True` was passed", "ignore:Adapter .* have invalid shape"
)
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ],
)
def test_an_adapter_that_no_sum_can_hold_is_refused(
    base: LlamaModel,
    experts: dict[str, LlamaModel],
    make_adapter: MakeAdapter,
    options: dict[str, Any],
    error: str,
) -> None:
    folder = make_adapter("odd", 3, **options)
    with pytest.raises((CapabilityError, ModelError), match=error):
        odd = LlamaModel(folder, base_model=Path(base.model_path), dtype="float32")
        merge(base, {**experts, "odd": odd}, method="sum")
    assert merge(base, experts, method="sum").ask("What is law?") is not None, "nothing is lost"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    base: LlamaModel, make_adapter: MakeAdapter, tmp_path: Path, bad: float
) -> None:
    adapter = shutil.copytree(make_adapter("law", 1), tmp_path / "adapter")
    factors = load_file(adapter / "adapter_model.safetensors")
    name = sorted(factors)[0]
    factors[name][0, 0] = bad
    save_file(factors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"not finite.*q_proj|not finite.*layers"):
        LlamaModel(adapter, base_model=Path(base.model_path), dtype="float32")
    whole = fine_tune(Path(base.model_path), tmp_path / "whole", 1)
    weights = load_file(whole / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = bad
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    experts = {"law": LlamaModel(whole, dtype="float32")}
    with pytest.raises((ModelError, CapabilityError), match=r"layers\.1\.mlp\.up_proj"):
        merge(base, experts, method="sum")


def test_without_something_to_read_regmean_is_replaced_and_that_is_said_once(
    base: LlamaModel, experts: dict[str, LlamaModel], caplog: pytest.LogCaptureFixture
) -> None:
    with Merger(base, experts, conversations={"law": READ["law"]}) as merger:
        found = [merger.merge("regmean", weight) for weight in (1.0, 0.5)]
        assert merger.methods == ["sum", "tsv"]
        chosen = merger.choose(READ)
    assert {one.method for one in chosen.candidates} == {"sum", "tsv"}
    assert [line.getMessage() for line in caplog.records if "nothing to read" in line.message] == [
        "The experts are merged without RegMean, as there is nothing to read for tax; give some of"
        " its questions and answers"
    ]
    for name, own in state(found[0]).items():
        torch.testing.assert_close(own, state(merge(base, experts, method="tsv", weight=1.0))[name])


# Whole fine-tunes


def fine_tune(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    """Writes a copy of a model whose weights were moved a little."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * noise * parameter.std().nan_to_num(0.1))
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, **options)
    return folder


def weights_of(model: HuggingFaceModel) -> dict[str, torch.Tensor]:
    """Returns the weights that a model computes with, adapters merged."""
    with model._load().using(model._adapter or None) as module:
        state = {
            name.replace(".base_layer", ""): tensor.double().clone()
            for name, tensor in module.state_dict().items()
        }
    return {name: tensor for name, tensor in state.items() if "lora_" not in name}


def close(one: HuggingFaceModel, other: HuggingFaceModel, **tolerance: Any) -> None:
    theirs = weights_of(other)
    for name, tensor in weights_of(one).items():
        torch.testing.assert_close(
            tensor, theirs[name], msg=partial("{}: {}".format, name), **tolerance
        )


METHODS: tuple[MergeMethod, ...] = ("sum", "tsv", "regmean")


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def whole(
    request: pytest.FixtureRequest,
    make_llama: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[LlamaModel, dict[str, LlamaModel]]:
    """A base and two fine-tunes of it, one of them in several files."""
    folder, root = (
        make_llama("base", tie_word_embeddings=request.param),
        tmp_path_factory.mktemp("whole"),
    )
    made = [
        fine_tune(folder, root / "law", 1),
        fine_tune(folder, root / "tax", 2, max_shard_size="100KB"),
    ]
    return LlamaModel(folder, dtype="float32"), {
        domain: LlamaModel(path, dtype="float32")
        for domain, path in zip(("law", "tax"), made, strict=True)
    }


@pytest.mark.parametrize("method", METHODS)
def test_the_merge_of_one_fine_tune_is_that_fine_tune(
    whole: tuple[LlamaModel, dict[str, LlamaModel]], method: MergeMethod
) -> None:
    base, experts = whole
    one = {"law": experts["law"]}
    merged = merge(base, one, method=method, weight=1.0, conversations=READ)
    close(merged, experts["law"], rtol=1e-2, atol=1e-3)
    twice = {"law": experts["law"], "duty": experts["law"]}
    read = {**READ, "duty": READ["tax"]}
    close(
        merge(base, twice, method=method, weight=1.0, conversations=read),
        merged,
        rtol=1e-2,
        atol=1e-3,
    )


@pytest.mark.parametrize("method", METHODS)
def test_identical_fine_tunes_in_two_folders_average_to_themselves_and_sum_to_twice_the_change(
    whole: tuple[LlamaModel, dict[str, LlamaModel]], tmp_path: Path, method: MergeMethod
) -> None:
    base, experts = whole
    copy = LlamaModel(
        shutil.copytree(experts["law"].model_path, tmp_path / "copy"), dtype="float32"
    )
    both = {"law": experts["law"], "tax": copy}
    merged = merge(base, both, method=method, weight=1.0, conversations=READ)
    if method == "regmean":
        close(merged, experts["law"], rtol=1e-2, atol=1e-3)
    if method == "sum":
        start, own, found = (weights_of(model) for model in (base, copy, merged))
        for name, tensor in found.items():
            torch.testing.assert_close(
                tensor - start[name], 2 * (own[name] - start[name]), rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_fine_tunes_changes_nothing_and_the_merge_is_saved_as_it_is(
    whole: tuple[LlamaModel, dict[str, LlamaModel]], tmp_path: Path, method: MergeMethod
) -> None:
    base, experts = whole
    merged, turned = (
        merge(base, given, method=method, weight=0.8, conversations=READ)
        for given in (experts, dict(reversed(experts.items())))
    )
    close(merged, turned, rtol=1e-3, atol=1e-4)
    merged.save(tmp_path / "merged")
    close(LlamaModel(tmp_path / "merged", dtype="float32"), merged, rtol=0, atol=0)
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    rows = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        found = plain(input_ids=rows).logits[0]
    torch.testing.assert_close(
        found, merged.project(merged.hidden_states(rows.tolist())[0]), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("method", ["sum", "regmean"])
def test_adapters_and_the_whole_models_that_they_make_merge_alike(
    base: LlamaModel, experts: dict[str, LlamaModel], tmp_path: Path, method: MergeMethod
) -> None:
    as_adapters = merge(base, experts, method=method, weight=1.3, conversations=READ)
    wholes = {}
    for domain, expert in experts.items():
        expert.save(tmp_path / domain)
        wholes[domain] = LlamaModel(tmp_path / domain, dtype="float32")
    mixed = {"law": experts["law"], "tax": wholes["tax"]}
    for several in (wholes, mixed):
        found = merge(base, several, method=method, weight=1.3, conversations=READ)
        close(found, as_adapters, rtol=1e-2, atol=2e-3)


def test_every_weight_that_is_not_a_matrix_of_a_layer_is_averaged(
    whole: tuple[LlamaModel, dict[str, LlamaModel]],
) -> None:
    base, experts = whole
    merged = weights_of(merge(base, experts, method="regmean", weight=1.0, conversations=READ))
    start, own = weights_of(base), [weights_of(expert) for expert in experts.values()]
    for name in ("model.embed_tokens.weight", "model.norm.weight"):
        mean = start[name] + sum(one[name] - start[name] for one in own) / 2
        torch.testing.assert_close(merged[name], mean, rtol=0, atol=1e-6)
    tied = "lm_head.weight" not in load_file(Path(base.model_path) / "model.safetensors")
    is_same = torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])
    assert is_same == tied


def test_one_fine_tune_is_in_memory_at_a_time(
    whole: tuple[LlamaModel, dict[str, LlamaModel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, experts = whole
    for expert in experts.values():
        expert.release()
    most = 0
    encode = LlamaModel.hidden_states

    def counted(self: LlamaModel, rows: Any, **how: Any) -> Any:
        nonlocal most
        found = encode(self, rows, **how)
        most = max(most, sum(expert.is_loaded for expert in experts.values()))
        return found

    monkeypatch.setattr(LlamaModel, "hidden_states", counted)
    merge(base, experts, method="regmean", weight=1.0, conversations=READ)
    assert most == 1


# Reading


def test_a_batch_holds_every_token_once_and_says_whose_it_is(base: LlamaModel) -> None:
    batch = DialogueBatch.of({domain: [(base, own)] for domain, own in READ.items()})
    assert [len(row) for row in batch.rows] == sorted(len(row) for row in batch.rows)
    for domain, own in READ.items():
        rows = [base.encode(conversation, reply=False) for conversation in own]
        assert sorted(batch.part(domain).rows) == sorted(rows)
        assert int(batch.tokens_of(domain).sum()) == sum(map(len, rows))
    assert not (batch.tokens_of("law") & batch.tokens_of("tax")).any()


def test_of_more_dialogues_than_fit_each_expert_is_read_as_much(
    base: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = (Message("user", "why " * 2 * LONGEST_READ), Message("assistant", "so"))
    monkeypatch.setattr(type(base), "encode", lambda *_, **__: [1] * 2 * LONGEST_READ)
    batch = DialogueBatch.of({"law": [(base, [long] * 999)], "tax": [(base, [long] * 99)]})
    assert {len(row) for row in batch.rows} == {LONGEST_READ}
    assert len(batch.rows) * LONGEST_READ <= TOKENS_READ
    assert batch.owners.count("law") == batch.owners.count("tax") > 20


# Choosing


def test_what_fits_is_what_greedy_decoding_writes(base: LlamaModel) -> None:
    asked = [(Message("user", f"What is law {n}?"),) for n in range(4)]
    said = [answer.text for answer in base.generate(asked, Sampling(max_new_tokens=8))]
    own = [(*one, Message("assistant", text)) for one, text in zip(asked, said, strict=True)]
    other = [(*one, Message("assistant", "quite otherwise")) for one in asked]
    # An answer that was cut does not end where the model would end it.
    whole = [
        conversation
        for conversation, answer in zip(
            own, base.generate(asked, Sampling(max_new_tokens=8)), strict=True
        )
        if answer.finish_reason == "stop"
    ]
    found = fit(base, {"own": whole or own, "other": other})
    assert found.right["other"] == 0
    assert found.right["own"] == (1 if whole else 0)
    scores = base.score(other)
    tokens = [value for one in scores for value in one.log_probabilities]
    assert found.loss["other"] == pytest.approx(-sum(tokens) / len(tokens), rel=0.3)


@given(scores=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=15, max_size=15))
def test_the_product_is_right_most_often_and_the_start_has_the_lowest_loss(
    scores: list[tuple[int, int]],
) -> None:
    candidates = [
        Candidate(method="sum", weight=1.0 + place, right={"law": right}, loss={"law": loss})
        for place, (right, loss) in enumerate(scores)
    ]
    choice = MergeChoice.among(candidates)
    assert choice.product.score == max(one.score for one in candidates)
    assert choice.start.mean_loss == min(one.mean_loss for one in candidates)
    equal = [one for one in candidates if one.score == choice.product.score]
    assert choice.product.mean_loss == min(one.mean_loss for one in equal)


def test_the_choice_is_the_best_of_what_was_measured_and_measures_nothing_twice(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    measured: list[Candidate] = []
    with Merger(base, experts, conversations=READ) as merger:
        choice = merger.choose(READ, on_measured=measured.append)
        assert list(choice.candidates) == measured
        assert {one.method for one in measured} == set(METHODS)
        assert len({one.name for one in measured}) == len(measured)
        known = {one.name: one for one in measured}
        again = merger.choose(
            READ, known=known, on_measured=lambda _: pytest.fail("measured again")
        )
        assert again == choice
        found = fit(merger.merge(choice.start.method, choice.start.weight), READ)
    assert found.loss == pytest.approx(dict(choice.start.loss), rel=1e-3)
    for method in METHODS:
        own = {one.weight: one for one in measured if one.method == method}
        assert 1.0 in own
    automatic = merge(base, experts, conversations=READ, validation=READ)
    expected = merge(
        base,
        experts,
        method=choice.product.method,
        weight=choice.product.weight,
        conversations=READ,
    )
    for name, found_weights in state(automatic).items():
        torch.testing.assert_close(found_weights, state(expected)[name])


def test_one_expert_is_its_own_merge_whatever_is_measured(
    base: LlamaModel, experts: dict[str, LlamaModel]
) -> None:
    merged = merge(base, {"law": experts["law"]}, conversations=READ)
    close(merged, experts["law"], rtol=1e-3, atol=1e-4)


def test_sums_at_1_add_up_the_changes(base: LlamaModel, experts: dict[str, LlamaModel]) -> None:
    merged, start = weights_of(merge(base, experts, method="sum", weight=1.0)), weights_of(base)
    own = [weights_of(expert) for expert in experts.values()]
    for name, tensor in merged.items():
        change = sum(one[name] - start[name] for one in own)
        torch.testing.assert_close(tensor, start[name] + change, rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_adapter_under_two_prompts_counts_once(
    base: LlamaModel, experts: dict[str, LlamaModel], method: MergeMethod
) -> None:
    tax = experts["tax"]
    prompted = LlamaModel(
        tax.model_path, base_model=Path(base.model_path), dtype="float32", system_prompt="Be brief."
    )
    merged = merge(
        base, {**experts, "duty": prompted}, method=method, weight=1.0, conversations=READ
    )
    expected = merge(base, experts, method=method, weight=1.0, conversations=READ)
    close(merged, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["sum", "tsv"])
def test_an_adapter_is_merged_on_top_of_the_students_own(
    base: LlamaModel, experts: dict[str, LlamaModel], make_adapter: MakeAdapter, method: MergeMethod
) -> None:
    student = LlamaModel(
        make_adapter("own", 9, r=3), base_model=Path(base.model_path), dtype="float32"
    )
    merged = merge(student, experts, method=method, weight=0.7, conversations=READ)
    plain = merge(base, experts, method=method, weight=0.7, conversations=READ)
    start, own, found, alone = (weights_of(one) for one in (base, student, merged, plain))
    for name, tensor in found.items():
        expected = own[name] + alone[name] - start[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_heads_and_embeddings_can_be_merged(
    base: LlamaModel, make_adapter: MakeAdapter, method: MergeMethod
) -> None:
    experts = {
        domain: LlamaModel(
            make_adapter(domain, seed, target_modules=["embed_tokens", "lm_head", "v_proj"]),
            base_model=Path(base.model_path),
            dtype="float32",
        )
        for domain, seed in (("law", 21), ("tax", 22))
    }
    merged, turned = (
        merge(base, given, method=method, weight=1.0, conversations=READ)
        for given in (experts, dict(reversed(experts.items())))
    )
    close(merged, turned, rtol=1e-3, atol=1e-4)
    one = merge(base, {"law": experts["law"]}, method=method, weight=1.0, conversations=READ)
    close(one, experts["law"], rtol=1e-2, atol=2e-3)


def test_tsv_of_one_matrix_is_that_matrix_and_of_orthogonal_ones_their_sum() -> None:
    one = drawn(6, 8, seed=1)
    torch.testing.assert_close(tsv_of_matrices([one]), one)
    u, v = torch.linalg.qr(drawn(6, 6, seed=2)).Q, torch.linalg.qr(drawn(8, 8, seed=3)).Q
    parts = [u[:, :3] @ v[:, :3].T, 2 * u[:, 3:] @ v[:, 3:6].T]
    torch.testing.assert_close(tsv_of_matrices(parts), parts[0] + parts[1])


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
    settings: dict[str, Any] = {"learning_rate": 1e-3, "adaptation": "lora"}
    for method in METHODS:
        student, adaptation = MultiTaskTrainer(
            **settings, merge=MergeSettings(method, weight=1.3)
        ).adapt(base, experts, records)
        assert adaptation is not None and isinstance(student, LlamaModel)
        expected = merge(base, experts, method=method, weight=1.3, conversations=READ)
        for name, found in state(student).items():
            torch.testing.assert_close(found, state(expected)[name])
