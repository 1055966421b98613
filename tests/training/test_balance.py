"""The balance of domains: shares are those of the gradients, measuring changes no gradient, and steering comes to its targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distillation.builders import record
from domainfusion.models import LlamaModel
from domainfusion.models.base import TrainableModel
from domainfusion.training.balance import LARGEST_WEIGHT, Balance
from domainfusion.training.batching import Row, encode_record
from domainfusion.training.loop import LoopSettings, train_phase

SETTINGS = LoopSettings(learning_rate=1e-3, batch_size=4, device_batch_size=4, checkpoint_steps=5, evaluation_steps=500)
SHARES = {"aviation": 1.0, "chemistry": 3.0}


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def rows(base: LlamaModel) -> list[Row]:
    targets = [("aviation", "one two three four five six seven"), ("chemistry", "eight")]
    return [encode_record(record(f"Say {place}.", *targets[place % 2][1:], targets[place % 2][:1]), base) for place in range(4)]


def student_of(base: LlamaModel) -> TrainableModel:
    return base.trainable_copy(None)


def logged(
    base: LlamaModel, rows: list[Row], directory: Path, steps: int, settings: LoopSettings
) -> tuple[TrainableModel, list[Mapping[str, Any]]]:
    log: list[Mapping[str, Any]] = []
    student = student_of(base)
    train_phase(student, rows, [0, 1, 2, 3] * steps, name="test", settings=settings, directory=directory, log=log.append)
    return student, log


def distance(one: TrainableModel, other: TrainableModel) -> float:
    states = one.trained_state(), other.trained_state()
    return float(sum((tensor - states[1][name]).norm() for name, tensor in states[0].items()))


def test_a_share_is_the_norm_of_the_gradient_of_the_domain_s_part_of_the_loss() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    balance = Balance([weight], ["a", "b"], None)
    losses: dict[str, Callable[[], torch.Tensor]] = {"a": lambda: 3 * weight[0], "b": lambda: 4 * weight[1] + 3 * weight[0]}
    for domain, loss in losses.items():
        balance.measure(domain, lambda loss=loss: loss().backward())  # type: ignore[misc]
    balance.settle()
    assert balance.take() == {"gradient_shares": {"a": 3 / 8, "b": 5 / 8}}
    assert balance.take() == {}, "nothing was measured since"
    assert weight.grad is not None
    assert weight.grad.tolist() == [6, 4], "the gradient is the sum all the same"


def test_every_so_many_steps_are_measured_that_it_costs_little() -> None:
    for count in (2, 3, 5):
        balance = Balance([], [str(number) for number in range(count)], None)
        measured = [step for step in range(2000) if balance.is_due(step)]
        assert (count - 1) * len(measured) <= 0.05 * 2000
    assert not any(Balance([], ["a"], None).is_due(step) for step in range(100)), "one domain has the whole gradient"


def test_the_last_layers_of_a_large_model_are_measured() -> None:
    large = [nn.Parameter(torch.empty(30_000_000, device="meta")) for _ in range(3)]
    assert Balance(large, ["a", "b"], None)._parameters == [large[2]]
    assert Balance(large[:1] * 1, ["a", "b"], None)._parameters == large[:1]


def test_weights_bring_the_shares_to_their_targets() -> None:
    weight = nn.Parameter(torch.zeros(1))
    balance = Balance([weight], ["a", "b"], {"a": 1, "b": 3})
    slopes = {"a": 6.0, "b": 2.0}
    for _ in range(2):
        for domain, slope in slopes.items():
            balance.measure(domain, lambda domain=domain, slope=slope: (balance.weight(domain) * slope * weight).backward())  # type: ignore[misc]
        balance.settle()
        found = balance.take()
    assert found["gradient_shares"] == pytest.approx({"a": 0.25, "b": 0.75}) == found["target_shares"]
    assert sum(found["loss_weights"][domain] * slopes[domain] for domain in slopes) == pytest.approx(8), "the whole is as large as before"


def test_no_weight_goes_beyond_its_bounds() -> None:
    weight = nn.Parameter(torch.zeros(1))
    balance = Balance([weight], ["a", "b"], {"a": 1, "b": 1})
    for domain, slope in {"a": 1.0, "b": 1e-6}.items():
        balance.measure(domain, lambda slope=slope: (slope * weight).backward())  # type: ignore[misc]
    balance.settle()
    assert balance.weight("b") == LARGEST_WEIGHT


def test_a_domain_without_rows_in_a_step_keeps_its_weight() -> None:
    weight = nn.Parameter(torch.zeros(1))
    balance = Balance([weight], ["a", "b"], {"a": 1, "b": 1})
    for domain in ("a", "b"):
        balance.measure(domain, lambda domain=domain: (weight * {"a": 1.0, "b": 2.0}[domain]).backward())  # type: ignore[misc]
    balance.settle()
    before = balance.state()["weights"]["b"]
    balance.measure("b", lambda: None)
    balance.settle()
    assert balance.state()["weights"]["b"] == before


def test_measuring_leaves_the_training_as_it_is(base: LlamaModel, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = replace(SETTINGS, learning_rate=1e-4)
    measured, log = logged(base, rows, tmp_path / "measured", 1, plain)
    assert set(log[0]["gradient_shares"]) == {"aviation", "chemistry"}
    monkeypatch.setattr(Balance, "is_due", lambda self, step: False)
    unmeasured, log = logged(base, rows, tmp_path / "unmeasured", 1, plain)
    assert "gradient_shares" not in log[0]
    moved, apart = (distance(measured, other) for other in (student_of(base), unmeasured))
    assert apart < 0.05 * moved  # not equal: the processor may round products to 8 bits, in another order


def test_steering_turns_the_shares_of_a_training(base: LlamaModel, rows: list[Row], tmp_path: Path) -> None:
    _, free = logged(base, rows, tmp_path / "free", 41, replace(SETTINGS, learning_rate=1e-6))
    _, steered = logged(base, rows, tmp_path / "steered", 41, replace(SETTINGS, learning_rate=1e-6, gradient_shares=SHARES))
    shares = [[line["gradient_shares"]["chemistry"] for line in log if "gradient_shares" in line] for log in (free, steered)]
    assert [line["step"] for line in steered if "gradient_shares" in line] == [1, 21, 41]
    assert shares[0] == pytest.approx([shares[1][0]] * 3, abs=0.01)
    assert shares[1][0] < 0.5
    assert shares[1][1:] == pytest.approx([0.75] * 2, abs=0.01)


@pytest.mark.parametrize("step", [7, 23])
def test_a_steered_training_that_is_killed_ends_as_one_that_was_not(base: LlamaModel, rows: list[Row], tmp_path: Path, step: int) -> None:
    settings = replace(SETTINGS, gradient_shares=SHARES)
    whole, _ = logged(base, rows, tmp_path / "whole", 24, settings)

    class Killed(BaseException):
        pass

    def kill(fields: Mapping[str, Any]) -> None:
        if fields["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        train_phase(student_of(base), rows, [0, 1, 2, 3] * 24, name="test", settings=settings, directory=tmp_path / "killed", log=kill)
    kept = json.loads((tmp_path / "killed" / f"checkpoint-{step // 5 * 5}" / "balance.json").read_text())
    assert kept["weights"]["chemistry"] > 1
    resumed, _ = logged(base, rows, tmp_path / "killed", 24, settings)
    assert all(torch.equal(tensor, resumed.trained_state()[name]) for name, tensor in whole.trained_state().items())
