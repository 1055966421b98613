"""Each domain's share of the gradient: measured now and then, and on request steered by weights on the domains' losses.

Losses that are means over tokens starve domains with short answers, losses that are means over answers do the opposite; what a domain
moves is its gradient. A step that is measured runs the rows of one domain after the other, so that what each adds to the gradient can
be told; the gradient is the same sum, and no pass is made twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.nn.utils import get_total_norm

MEASURED_PARAMETERS = 50_000_000
"""Weights whose gradient is measured: the trained ones, from the last back. Adapters are measured whole."""

LARGEST_SHARE_OF_TIME = 0.05
"""Where the rows of a step went through the model at once, a measured step takes as many passes as there are domains: so often at most."""

MOMENTUM = 0.7
"""How much of the mean of earlier gradients' norms is kept: one step's rows are few."""

LARGEST_WEIGHT = 10.0
"""A domain's loss counts at most so many times as much, or as little."""

T = TypeVar("T")


class Balance:
    """The shares of a phase's domains in the gradient; a domain's is ‖g‖ / Σ‖g‖, with g the gradient of its part of the loss.

    Args:
        parameters: What is trained, in the order of the model's layers.
        domains: The domains of the phase's rows.
        targets: The share that each domain's gradient shall have, in any unit; None measures alone.
        norm: Returns the norm of gradients over all processes; it may change them.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        domains: Sequence[str],
        targets: Mapping[str, float] | None,
        norm: Callable[[Sequence[torch.Tensor]], float] = lambda gradients: float(get_total_norm(gradients)),
    ) -> None:
        self.domains = sorted(set(domains))
        self._parameters = _last(parameters)
        self._targets = targets
        self._norm = norm
        self._every = math.ceil((len(self.domains) - 1) / LARGEST_SHARE_OF_TIME)
        self._means: dict[str, float] = {}
        self._measured: dict[str, float] = {}
        self._settled: dict[str, float] = {}
        self._weights = dict.fromkeys(self.domains, 1.0)

    def is_due(self, step: int) -> bool:
        """Whether a step is measured; it follows from its number, so that a resumed training measures the same ones."""
        return len(self.domains) > 1 and step % self._every == 0

    def weight(self, domain: str) -> float:
        """Returns what the loss of a domain is multiplied with."""
        return self._weights.get(domain, 1.0)

    def measure(self, domain: str, add_gradient: Callable[[], T]) -> T:
        """Notes the norm of the gradient that `add_gradient` adds to what is there, and returns what it returns."""
        before = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        result = add_gradient()
        own = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone() for parameter in self._parameters]
        self._measured[domain] = self._norm(own)
        for parameter, kept in zip(self._parameters, before, strict=True):
            if kept is not None:
                parameter.grad = kept if parameter.grad is None else kept.add_(parameter.grad)
        return result

    def settle(self) -> None:
        """Takes what was measured in a step into the means, and sets the weights where there are targets."""
        for domain, norm in self._measured.items():
            if norm > 0:
                plain = norm / self._weights[domain]
                self._means[domain] = MOMENTUM * self._means.get(domain, plain) + (1 - MOMENTUM) * plain
        self._settled, self._measured = self._measured, {}
        if self._targets is None:
            return
        known = [domain for domain in self.domains if domain in self._means]
        whole, targets = sum(self._means.values()), sum(self._targets[domain] for domain in known)
        for domain in known:
            wanted = self._targets[domain] / targets * whole / self._means[domain]
            self._weights[domain] = min(max(wanted, 1 / LARGEST_WEIGHT), LARGEST_WEIGHT)

    def take(self) -> dict[str, Any]:
        """Returns, for the log, what was measured since it was last taken, with targets and weights where there are targets.

        Where nothing was measured, there is nothing.
        """
        total = sum(self._settled.values())
        if not total > 0:
            return {}
        found: dict[str, Any] = {"gradient_shares": {domain: norm / total for domain, norm in self._settled.items()}}
        if self._targets is not None:
            whole = sum(self._targets[domain] for domain in self.domains)
            found["target_shares"] = {domain: self._targets[domain] / whole for domain in self.domains}
            found["loss_weights"] = dict(self._weights)
        self._settled = {}
        return found

    def state(self) -> dict[str, dict[str, float]]:
        """Returns what a checkpoint has to keep, as JSON data."""
        return {"means": self._means, "weights": self._weights}

    def load_state(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Puts back what `state` returned."""
        self._means, self._weights = dict(state["means"]), dict(state["weights"])


def _last(parameters: Sequence[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    chosen: list[torch.nn.Parameter] = []
    for parameter in reversed(parameters):
        if chosen and sum(each.numel() for each in chosen) + parameter.numel() > MEASURED_PARAMETERS:
            break
        chosen.append(parameter)
    return chosen
