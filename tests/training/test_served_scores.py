"""Learning from teachers that a server scores for: what is learned is what a local teacher would
teach, but for the tail; each row is asked for once; and whatever a server does wrong is one clear
error or a counted gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from domainfusion.distillation import CuratedDataGenerator, Distiller, IntegrationTrainer
from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models import (
    APIModel,
    Dialect,
    Limits,
    LlamaModel,
    Prices,
    Retries,
    ScriptedModel,
)
from domainfusion.models.projection import Head
from domainfusion.training.batching import encode_record
from domainfusion.training.distribution import DistributionObjective
from domainfusion.training.losses import TaughtTop, token_losses
from domainfusion.types import Example, TrainingRecord
from models.scoring_server import Fault, ScoringServer, as_it_is
from training.lessons import (
    QUICK,
    SHOWN,
    Killed,
    begun,
    cross_domain,
    dying_after,
    losses_of,
    same,
    some_records,
    tails_of,
)

DIVERGENCES: tuple[Any, ...] = ("forward_kl", "reverse_kl", "skew_kl", "jensen_shannon")
QUICKLY = Retries(max_retries=2, backoff_seconds=0.001, max_failures_in_a_row=3)


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def expert(make_adapter: Callable[..., Path]) -> LlamaModel:
    return LlamaModel(make_adapter("chemistry", 2), dtype="float32")


def at(server: ScoringServer, **dialect: Any) -> APIModel:
    return APIModel(
        "chemist", base_url=server.url, scores=True, dialect=Dialect(**dialect), retries=QUICKLY
    )


def chemistry(base: LlamaModel) -> list[TrainingRecord]:
    return [own for own in some_records(base) if own.example.domains == ("chemistry",)]


# The loss


def coarse(log_p: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """Returns the probabilities of the chosen tokens, and of all others together."""
    chosen = log_p.exp().gather(-1, top)
    return torch.cat([chosen, 1 - chosen.sum(-1, keepdim=True)], -1)


def apart(divergence: str, p: torch.Tensor, q: torch.Tensor, beta: float) -> torch.Tensor:
    """The divergence of each token as the papers write it."""
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
@pytest.mark.parametrize("count", [1, 3, 10])
def test_loss_and_gradient_are_those_of_the_distributions_with_the_tail_as_one(
    divergence: Any, count: int
) -> None:
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(6, 4, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(11, 4, generator=generator, dtype=torch.float64).requires_grad_()
    log_p = torch.randn(6, 11, generator=generator, dtype=torch.float64).log_softmax(-1)
    top = log_p.topk(count).indices
    taught = TaughtTop(torch.arange(6), top, log_p.gather(-1, top))
    targets, weights = torch.arange(6), torch.rand(6, generator=generator, dtype=torch.float64)
    found = token_losses(
        hidden, Head(weight), targets, weights, taught=[taught], divergence=divergence, beta=0.3
    )
    log_q = (hidden @ weight.T).log_softmax(-1)
    expected = apart(divergence, coarse(log_p, top), coarse(log_q, top), 0.3)
    torch.testing.assert_close(found.divergence, expected.detach())
    whole = apart(divergence, log_p.exp(), log_q.exp(), 0.3)
    assert (found.divergence <= whole + 1e-9).all(), "merging outcomes brings no distance"
    leaves = (hidden, weight)
    gradients = torch.autograd.grad(found.total, leaves)
    wanted = torch.autograd.grad((weights * expected).sum(), leaves)
    torch.testing.assert_close(gradients, wanted)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_without_a_tail_it_is_the_whole_divergence(divergence: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(6, 4, generator=generator).requires_grad_()
    head = Head(torch.randn(11, 4, generator=generator))
    log_p = torch.randn(6, 11, generator=generator).log_softmax(-1)
    top = torch.stack([torch.randperm(11, generator=generator) for _ in range(6)])
    taught = TaughtTop(torch.arange(6), top, log_p.gather(-1, top))
    found = token_losses(
        hidden, head, torch.arange(6), torch.ones(6), taught=[taught], divergence=divergence
    )
    expected = apart(divergence, log_p.exp(), head.logits(hidden).softmax(-1), 0.5)
    torch.testing.assert_close(found.divergence, expected.detach(), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(found.total, [hidden])
    (wanted,) = torch.autograd.grad(expected.sum(), [hidden])
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5)


# What is learned from


@pytest.mark.parametrize("scoring", ["vllm", "sglang"])
@pytest.mark.parametrize("count", [1, 8, 384])
def test_a_served_teacher_teaches_what_a_local_one_does_but_for_the_tail(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path, scoring: str, count: int
) -> None:
    records = chemistry(base)
    count = min(count, base.vocabulary_size)
    with ScoringServer(expert) as server:
        teacher = at(server, scored_tokens=count, scoring=scoring)
        served = DistributionObjective(alpha=1.0)
        begun(served, base, {"chemistry": teacher}, records, tmp_path / "served")
    local = DistributionObjective(alpha=1.0)
    begun(local, base, {"chemistry": expert}, records, tmp_path / "local")
    found, whole = (losses_of(each, base, records).terms["forward_kl"] for each in (served, local))
    tails = tails_of(expert, base, records, count)
    torch.testing.assert_close(found + tails, whole, rtol=2e-3, atol=5e-4)
    assert (whole > 1e-3).all()


def test_the_integrator_of_a_record_across_domains_may_be_served(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    with ScoringServer(expert) as server:
        integrator = at(server)
        records = [cross_domain(integrator)]
        objective = DistributionObjective()
        begun(objective, base, {}, records, tmp_path, integrator=integrator)
        (messages,) = [asked["messages"] for _, asked in server.asked if "messages" in asked]
    assert messages == [{"role": turn.role, "content": turn.content} for turn in SHOWN]
    assert losses_of(objective, base, records).terms["forward_kl"].isfinite().all()


def test_its_system_prompt_is_read_before_the_question(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    with ScoringServer(expert) as server:
        teacher = APIModel(
            "c", base_url=server.url, scores=True, system_prompt="You are a chemist."
        )
        begun(DistributionObjective(), base, {"chemistry": teacher}, chemistry(base), tmp_path)
        asked = [one["messages"] for _, one in server.asked if "messages" in one]
    assert all(one[0] == {"role": "system", "content": "You are a chemist."} for one in asked)


def test_what_is_kept_is_not_asked_for_again(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    records = chemistry(base)
    with ScoringServer(expert) as server:
        teacher = at(server)
        found = begun(DistributionObjective(), base, {"chemistry": teacher}, records, tmp_path)
        count = len(server.asked)
        assert server.scored == len(records)
        again = DistributionObjective()
        begun(again, base, {"chemistry": teacher}, records, tmp_path)
        assert len(server.asked) == count
    # Nor is the server needed any more.
    last = DistributionObjective()
    begun(last, base, {"chemistry": teacher}, records, tmp_path)
    assert torch.equal(losses_of(again, base, records).total, losses_of(last, base, records).total)
    assert found["taught"] == {"chemist": 2}
    # An id and a logarithm for each of the tokens that are scored.
    assert found["signals"]["bytes_per_token"] == 20 * (8 + 4)


def test_a_training_that_dies_while_it_asks_asks_for_the_rest_alone(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    records = chemistry(base)
    trainer = IntegrationTrainer(**QUICK, objective=DistributionObjective(alpha=0.9))
    with ScoringServer(expert) as server:
        teachers = {"chemistry": at(server)}
        whole = trainer.train(
            base, records, teachers=teachers, directory=tmp_path / "whole", seed=3
        )
        asked = server.scored
        with pytest.raises(Killed):
            trainer.train(
                base,
                records,
                teachers=teachers,
                directory=tmp_path / "killed",
                seed=3,
                progress=dying_after(1, "scoring"),
            )
        resumed = trainer.train(
            base, records, teachers=teachers, directory=tmp_path / "killed", seed=3
        )
    assert same(whole, resumed)
    # The answer that was taken when it died may be asked for once more; no other is.
    assert asked + len(records) <= server.scored <= asked + len(records) + 1


def test_a_teacher_that_is_not_to_score_gives_text_alone(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    with ScoringServer(expert) as server:
        teachers = {"chemistry": APIModel("chemist", base_url=server.url)}
        with pytest.raises(CapabilityError, match=r"chemist gives text alone.*scores=True"):
            begun(DistributionObjective(), base, teachers, chemistry(base), tmp_path)
        assert not server.asked


def test_a_temperature_needs_the_whole_distribution(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    with ScoringServer(expert) as server:
        objective = DistributionObjective(temperature=2.0)
        with pytest.raises(ConfigurationError, match=r"temperature=2, chemist"):
            begun(objective, base, {"chemistry": at(server)}, chemistry(base), tmp_path)
        assert not server.asked


# Faulty servers


def on_scores(change: Callable[[list[Any]], list[Any] | None]) -> Fault:
    """Changes the log-probabilities of each completion."""

    def fault(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
        if path == "/v1/completions":
            choice = answer["choices"][0]
            choice["prompt_logprobs"] = change(choice["prompt_logprobs"])
        return answer

    return fault


def without_field(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
    if path == "/v1/completions":
        del answer["choices"][0]["prompt_logprobs"]
    return answer


def with_values(value: Any) -> Fault:
    return on_scores(
        lambda listed: [
            None if place is None else {token: {"logprob": value} for token in place}
            for place in listed
        ]
    )


def other_ids(listed: list[Any]) -> list[Any]:
    return [
        place and {str((int(token) + 1) % 300): entry for token, entry in place.items()}
        for place in listed
    ]


def status(code: int, where: str) -> Fault:
    return lambda path, asked, answer: code if path == where else answer


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (without_field, CapabilityError, r"no prompt_logprobs.*vLLM.*sequence"),
        (status(404, "/tokenize"), CapabilityError, r"404.*/tokenize.*vLLM"),
        (status(404, "/v1/completions"), CapabilityError, r"404.*/completions.*vLLM"),
        (on_scores(other_ids), CapabilityError, r"scored other tokens than it was sent"),
        (
            on_scores(lambda listed: listed[:-1]),
            CapabilityError,
            r"none of 2.*log-probabilities for",
        ),
        (with_values(math.nan), CapabilityError, r"none of 2.*not a number: nan"),
        (with_values(None), CapabilityError, r"none of 2.*not a number: None"),
        (with_values("-1"), CapabilityError, r"none of 2.*not a number: -1"),
        (with_values(0.5), CapabilityError, r"none of 2.*not log-probabilities"),
        (with_values(-0.1), CapabilityError, r"none of 2.*not log-probabilities: their mass"),
        (with_values(-9999.0), CapabilityError, r"none of 2.*not log-probabilities: their mass"),
        (on_scores(lambda listed: [None] * len(listed)), CapabilityError, r"no log-probabilities"),
        (
            on_scores(
                lambda listed: [place and dict(list(place.items())[-1:]) for place in listed]
            ),
            CapabilityError,
            r"has 1 log-probability, and 20 were asked for|scored other tokens",
        ),
        (status(500, "/v1/completions"), ModelError, r"scored 0 of 2.*given up.*500.*kept"),
        (status(500, "/tokenize"), ModelError, r"scored 0 of 6 texts.*500"),
        (status(401, "/tokenize"), ModelError, r"401"),
    ],
)
def test_a_faulty_server_is_one_clear_error(
    base: LlamaModel,
    expert: LlamaModel,
    tmp_path: Path,
    fault: Fault,
    error: type[Exception],
    message: str,
) -> None:
    with ScoringServer(expert, fault=fault) as server, pytest.raises(error, match=message):
        begun(DistributionObjective(), base, {"chemistry": at(server)}, chemistry(base), tmp_path)


def test_a_server_with_other_tokens(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path, write_chat_model: Callable[..., Path]
) -> None:
    other = LlamaModel(write_chat_model(tmp_path / "other", None), dtype="float32")
    with (
        ScoringServer(expert, tokenizing=other) as server,
        pytest.raises(CapabilityError, match=r"not the student's: ['\"][\s\S]*sequence"),
    ):
        begun(DistributionObjective(), base, {"chemistry": at(server)}, chemistry(base), tmp_path)


def test_more_scores_than_the_server_gives(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    with (
        ScoringServer(expert, most=20) as server,
        pytest.raises(CapabilityError, match=r"max allowed: 20.*scored_tokens.*--max-logprobs"),
    ):
        teachers = {"chemistry": at(server, scored_tokens=50)}
        begun(DistributionObjective(), base, teachers, chemistry(base), tmp_path)


def test_a_row_that_can_not_be_scored_is_a_counted_gap(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = chemistry(base)
    broken = {"count": 0}
    gap = list(encode_record(records[1], base).answer)

    def fault(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
        if path == "/v1/completions" and asked["prompt"][-len(gap) :] == gap:
            broken["count"] += 1
            answer["choices"][0]["prompt_logprobs"][-1] = None
        return answer

    with ScoringServer(expert, fault=fault) as server:
        teachers = {"chemistry": at(server)}
        objective = DistributionObjective(alpha=1.0)
        found = begun(objective, base, teachers, records, tmp_path)
    assert broken["count"] == 3, "it is asked again before it is given up"
    assert found["signals"]["rows_without_scores"] == 1
    assert "did not score" in caplog.text
    terms = losses_of(objective, base, records).terms
    first = len(encode_record(records[0], base).answer)
    assert terms["forward_kl"][:first].isfinite().all()
    assert terms["forward_kl"][first:].isnan().all()
    assert terms["cross_entropy"][first:].isfinite().all()
    # The gap stays one: a resumed training learns what an undisturbed one does.
    again = begun(DistributionObjective(), base, teachers, records, tmp_path)
    assert again["signals"]["rows_without_scores"] == 1


def test_a_server_that_fails_in_the_middle_loses_no_score(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    records = chemistry(base)
    left = {"count": 1}

    def fault(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
        if path != "/v1/completions":
            return answer
        left["count"] -= 1
        return answer if left["count"] >= 0 else 503

    with ScoringServer(expert, fault=fault) as server:
        teachers = {"chemistry": at(server)}
        with pytest.raises(ModelError, match=r"scored 1 of 2"):
            begun(DistributionObjective(), base, teachers, records, tmp_path)
        before = server.scored
        server.fault = as_it_is
        begun(DistributionObjective(), base, teachers, records, tmp_path)
        assert server.scored == before + 1


def test_the_log_tells_who_taught(base: LlamaModel, expert: LlamaModel, tmp_path: Path) -> None:
    with ScoringServer(expert) as server:
        trainer = IntegrationTrainer(**QUICK, objective="distribution")
        trainer.train(
            base, chemistry(base), teachers={"chemistry": at(server)}, directory=tmp_path, seed=1
        )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["taught"] == {"chemist": 2}
    assert any("forward_kl" in line.get("terms", {}) for line in lines)


def test_a_run_counts_what_scores_cost_killed_or_not(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    spent: list[tuple[int, int]] = []

    def note(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
        if "usage" in answer:
            counted = answer["usage"]
            spent.append((counted["prompt_tokens"], counted["completion_tokens"]))
        return answer

    prices = Prices(price_per_million_input_tokens=2e3, price_per_million_output_tokens=5e3)
    examples = [Example(query=f"Question {number}?", domains=("a",)) for number in range(4)]
    other = Example(query="Another question?", domains=("b",))

    def run(server: ScoringServer, **settings: Any) -> Distiller:
        teacher = APIModel(
            "chemist",
            base_url=server.url,
            scores=True,
            prices=prices,
            limits=Limits(max_concurrency=1),
        )
        return Distiller(
            base,
            {"a": teacher, "b": ScriptedModel("Nothing.")},
            [CuratedDataGenerator([*examples, other])],
            IntegrationTrainer(**QUICK, objective="distribution"),
            output_dir=tmp_path / "run",
            **settings,
        )

    with ScoringServer(expert, fault=note) as server:
        with pytest.raises(Killed):
            run(server, progress=dying_after(1, "scoring")).distill()
        run(server).distill()
        scored = server.scored
    assert scored in (4, 5), "all, and at most the one that was in flight"
    usage, _ = json.loads((tmp_path / "run" / "usage.json").read_text())
    assert usage["roles"] == ["expert of a", "scoring for a"]
    read, written = (sum(one[place] for one in spent) for place in (0, 1))
    # What was in flight when it was killed was paid for, and is in no count.
    lost = scored - 4
    assert usage["calls"] == len(spent) - lost
    assert (read - usage["prompt_tokens"] > 0) == bool(lost)
    cost = (read * 2e3 + written * 5e3) / 1e6
    assert usage["cost"] + usage["unknown_cost"] >= cost - 1e-9
    counted = usage["prompt_tokens"] * 2e3 + usage["completion_tokens"] * 5e3
    assert usage["cost"] == pytest.approx(counted / 1e6)
    assert (usage["unknown_cost"] > 0) == bool(lost)
