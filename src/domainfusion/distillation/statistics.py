"""Intervals by the paired, clustered bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domainfusion.distillation.results import Estimate

Values = NDArray[np.float64]


class Bootstrap:
    """Resamples clusters of items, the same way for every figure over these items, so that differences are paired.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, percentile intervals; clusters as in Miller, 2024,
    arXiv 2411.00640.

    Args:
        clusters: The cluster of each item.
        resamples: How many resamples are drawn.
        seed: Seed of the draws.
    """

    def __init__(self, clusters: Sequence[str], *, resamples: int = 10_000, seed: int = 0) -> None:
        names = sorted(set(clusters))
        place = {name: index for index, name in enumerate(names)}
        self._member = np.array([place[name] for name in clusters], dtype=np.int64)
        self._count = len(names)
        rng = np.random.default_rng(seed)
        self._draws = rng.multinomial(self._count, np.full(self._count, 1 / self._count), size=resamples).astype(np.float64)

    def mean(self, values: Sequence[float]) -> Estimate:
        """Returns the mean of one value an item."""
        return self.ratio(values, [1.0] * len(values))

    def ratio(self, numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
        """Returns the ratio of two sums over the items, or undefined where the denominators sum to 0."""
        above, below = np.array(numerators, dtype=np.float64), np.array(denominators, dtype=np.float64)
        if not below.sum():
            return Estimate(value=None, reason="the denominator is 0")
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = self._sums(above) / self._sums(below)
        return self._interval(float(above.sum() / below.sum()), drawn)

    def excludes_zero(self, values: Sequence[float]) -> bool:
        """Whether the 95 % interval of the sum of `values` lies on one side of 0."""
        low, high = np.quantile(self._sums(np.array(values, dtype=np.float64)), [0.025, 0.975])
        return bool(low > 0 or high < 0)

    def _sums(self, values: Values) -> Values:
        per_cluster = np.bincount(self._member, weights=values, minlength=self._count)
        return np.asarray(self._draws @ per_cluster)

    def _interval(self, value: float, drawn: Values) -> Estimate:
        finite = drawn[np.isfinite(drawn)]
        if not finite.size:
            return Estimate(value=value)
        low, high = np.quantile(finite, [0.025, 0.975])
        return Estimate(value=value, low=float(low), high=float(high))
