"""Liger's kernels give the losses and gradients of our own code.

They need CUDA and the extra `liger`. Where Triton is installed, its interpreter runs them on a CPU:
`TRITON_INTERPRET=1 python -m pytest -m gpu tests/training/test_liger.py`.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from domainfusion.models.projection import Head
from domainfusion.training import liger
from domainfusion.training.losses import Taught, TokenLosses, token_losses

TOKENS, HIDDEN, VOCABULARY = 33, 24, 150
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def losses_and_gradients(
    head_settings: dict[str, Any], taught_tokens: int, **aim: Any
) -> tuple[TokenLosses, list[torch.Tensor]]:
    """Computes the losses of the same random student, of which a teacher scores the first
    tokens.
    """
    hidden = drawn(TOKENS, HIDDEN, seed=1).requires_grad_()
    weight = drawn(VOCABULARY, HIDDEN, seed=2).requires_grad_()
    bias = drawn(VOCABULARY, seed=3).requires_grad_()
    targets = torch.arange(TOKENS, device=DEVICE) * 3 % VOCABULARY
    weights = drawn(TOKENS, seed=4).abs()
    teacher = Head(drawn(VOCABULARY, HIDDEN, seed=5))
    places = torch.arange(taught_tokens, device=DEVICE)
    taught = [Taught(places, drawn(taught_tokens, HIDDEN, seed=6), teacher, VOCABULARY)]
    found = token_losses(
        hidden,
        Head(weight, bias, **head_settings),
        targets,
        weights,
        taught=taught if taught_tokens else (),
        **aim,
    )
    total = 3 * found.total
    return found, list(torch.autograd.grad(total, [hidden, weight, bias]))


CASES: list[tuple[dict[str, Any], int, dict[str, Any]]] = [
    ({}, 0, {}),
    ({"cap": 3.0}, 0, {}),
    ({"scale": 0.3}, 0, {}),
    ({}, TOKENS, {"divergence": "forward_kl"}),
    ({}, 20, {"divergence": "reverse_kl", "alpha": 0.6, "temperature": 2.0}),
    ({"cap": 3.0}, 20, {"divergence": "jensen_shannon", "beta": 0.3}),
    ({}, 20, {"divergence": "skew_kl", "beta": 0.3}),
]


@pytest.mark.gpu
@pytest.mark.parametrize(("head", "taught", "aim"), CASES)
def test_kernels_and_our_code_agree(
    head: dict[str, Any], taught: int, aim: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("liger_kernel", reason="needs the extra liger")
    if DEVICE == "cpu" and not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("needs CUDA, or Triton's interpreter")
    if DEVICE == "cpu" and "cap" in head and not taught:
        pytest.skip("the interpreter cannot run the kernel of capped logits")
    monkeypatch.setattr(liger, "ENABLED", False)
    expected, expected_gradients = losses_and_gradients(head, taught, **aim)
    calls: list[str] = []
    for name in ("weighted_cross_entropy", "compare"):
        original = getattr(liger, name)

        def counted(*given: Any, original: Any = original, name: str = name, **options: Any) -> Any:
            calls.append(name)
            return original(*given, **options)

        monkeypatch.setattr(liger, name, counted)
    monkeypatch.setattr(liger, "is_used", lambda tensor: True)
    found, gradients = losses_and_gradients(head, taught, **aim)
    wanted = "compare" if taught else "weighted_cross_entropy"
    is_ours = aim.get("divergence") == "skew_kl" or "scale" in head
    assert set(calls) == (set() if is_ours else {wanted})
    for one, other in zip([*found, *gradients], [*expected, *expected_gradients], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_on_a_cpu_our_own_code_computes() -> None:
    tensor = torch.zeros(2, 3)
    assert not liger.is_used(tensor)


def test_without_the_extra_our_own_code_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCuda:
        is_cuda, dtype = True, torch.float32

    on_cuda: Any = OnCuda()
    monkeypatch.setattr(liger, "_module", lambda name: None)
    assert not liger.is_used(on_cuda)
    monkeypatch.setattr(liger, "_module", lambda name: object())
    assert liger.is_used(on_cuda)
    monkeypatch.setattr(liger, "ENABLED", False)
    assert not liger.is_used(on_cuda)
