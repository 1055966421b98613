"""Intervals by the paired, clustered bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, comb, log
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainfusion.distillation.results import Answer, Estimate, ModelResult, NonInferiority, Regression

Values = NDArray[np.float64]
Counts = NDArray[np.uint8]

MEMORY_BYTES = 2**30
"""Memory that the draws of a `Resampling` may take: 10,000 resamples of 100,000 clusters."""

FEW = 5
"""Where something happened to fewer items than these, resampling them tells too little of how often it might happen."""

_CHUNK = 2**22
"""Counts that are looked at together: 32 MiB as float64."""


class Resampling:
    """Draws how often each cluster of items comes in each resample, once for each number of clusters.

    Figures over the same items are drawn the same way, so that differences between models are paired, and as many clusters need no draws of
    their own. The draws are kept as long as they fit in memory, the latest ones first; others are drawn anew each time, to the same counts.

    Args:
        resamples: How many resamples are drawn.
        seed: Seed of the draws.
        memory_bytes: Memory that kept draws may take.
    """

    def __init__(self, *, resamples: int = 10_000, seed: int = 0, memory_bytes: int = MEMORY_BYTES) -> None:
        self.resamples = resamples
        self.seed = seed
        self._memory_bytes = memory_bytes
        self._kept: dict[int, list[Counts]] = {}

    def over(self, clusters: Sequence[str]) -> Bootstrap:
        """Returns the bootstrap of items whose clusters these are."""
        return Bootstrap(clusters, self)

    def draws(self, count: int) -> Iterator[Counts]:
        """Yields the draws of `count` clusters in chunks of shape (resamples, clusters)."""
        if count in self._kept:
            self._kept[count] = self._kept.pop(count)
        elif count * self.resamples <= self._memory_bytes:
            while (sum(self._kept) + count) * self.resamples > self._memory_bytes:
                self._kept.pop(next(iter(self._kept)))
            self._kept[count] = list(self._drawn(count))
        yield from self._kept[count] if count in self._kept else self._drawn(count)

    def _drawn(self, count: int) -> Iterator[Counts]:
        rng, rows = np.random.default_rng(self.seed), max(1, _CHUNK // count)
        for start in range(0, self.resamples, rows):
            size = min(rows, self.resamples - start)
            # A cluster can't come more than 255 times among fewer than 256 draws, and among more it never does.
            yield rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.uint8)


class Bootstrap:
    """Resamples clusters of items, the same way for every figure over these items, so that differences are paired.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, percentile intervals; clusters as in Miller, 2024,
    arXiv 2411.00640.

    Args:
        clusters: The cluster of each item.
        resampling: Draws the resamples; by default 10,000.
    """

    def __init__(self, clusters: Sequence[str], resampling: Resampling | None = None) -> None:
        names = sorted(set(clusters))
        place = {name: index for index, name in enumerate(names)}
        self._member = np.array([place[name] for name in clusters], dtype=np.int64)
        self._count = len(names)
        self._resampling = resampling or Resampling()

    def mean(self, values: Sequence[float]) -> Estimate:
        """Returns the mean of one value an item."""
        return self.ratio(values, [1.0] * len(values))

    def ratio(self, numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
        """Returns the ratio of two sums over the items, or undefined where the denominators sum to 0."""
        above, below = np.array(numerators, dtype=np.float64), np.array(denominators, dtype=np.float64)
        if not below.sum():
            return Estimate(value=None, reason="the denominator is 0")
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn_above, drawn_below = self._sums(above, below)
            drawn = drawn_above / drawn_below
        return self._interval(float(above.sum() / below.sum()), drawn)

    def excludes_zero(self, values: Sequence[float]) -> bool:
        """Whether the 95 % interval of the sum of `values` lies on one side of 0."""
        low, high = np.quantile(self._sums(np.array(values, dtype=np.float64))[0], [0.025, 0.975])
        return bool(low > 0 or high < 0)

    def formula(self, figure: Callable[[Sequence[Values]], Values], columns: Sequence[Sequence[float]]) -> Estimate:
        """Returns a figure that a formula makes of sums over the items, such as Cohen's kappa; undefined where it is not a number.

        Args:
            figure: From the sum of each column, in an array of shape (resamples,), to the figure, in another.
            columns: One value an item in each.
        """
        arrays = [np.array(column, dtype=np.float64) for column in columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(figure([array.sum(keepdims=True) for array in arrays])[0])
            drawn = figure(self._sums(*arrays))
        return self._interval(value, drawn) if np.isfinite(value) else Estimate(value=None, reason="the formula has no value there")

    def auroc(self, sound: Sequence[float], corrupted: Sequence[float]) -> Estimate:
        """Returns the area under the ROC curve: the share of pairs in which a sound value is above a corrupted one, ties counting half.

        Source: Hanley and McNeil, 1982, doi 10.1148/radiology.143.1.7063747. Both values of an item are
        resampled with it.

        Args:
            sound: The value of each item as it was.
            corrupted: The value of each item's corrupted version.
        """
        one, other = np.array(sound, dtype=np.float64)[:, None], np.array(corrupted, dtype=np.float64)[None, :]
        wins = (one > other) + 0.5 * (one == other)
        member = np.zeros((self._count, len(self._member)))
        member[self._member, np.arange(len(self._member))] = 1
        pairs, sizes = member @ wins @ member.T, member.sum(axis=1)
        drawn = [((counts @ pairs) * counts).sum(axis=1) / (counts @ sizes) ** 2 for counts in self._resampling.draws(self._count)]
        return self._interval(float(wins.mean()), np.concatenate(drawn))

    def per_cluster(self, values: Sequence[float] | Values) -> Values:
        """Returns the sum of one value an item over each cluster."""
        weights = np.array(values, dtype=np.float64)
        return np.bincount(self._member, weights=weights, minlength=self._count).astype(np.float64)

    def _sums(self, *columns: Values) -> list[Values]:
        """Returns for each column its sum in each resample."""
        clusters = [self.per_cluster(column) for column in columns]
        found: list[list[Values]] = [[] for _ in columns]
        for chunk in self._resampling.draws(self._count):
            counts = chunk.astype(np.float64)
            for sums, per_cluster in zip(found, clusters, strict=True):
                sums.append(counts @ per_cluster)
        return [np.concatenate(sums) for sums in found]

    def _interval(self, value: float, drawn: Values) -> Estimate:
        finite = drawn[np.isfinite(drawn)]
        if not finite.size:
            return Estimate(value=value)
        low, high = np.quantile(finite, [0.025, 0.975])
        return Estimate(value=value, low=float(low), high=float(high))


def most_probable_share(successes: int, trials: int) -> float:
    """Returns the upper end of the exact 95 % interval of a share: Clopper and Pearson, 1934, Biometrika 26.

    After n trials without a success it is 1 − 0.025^(1/n), the rule of three's exact form.

    Example:
        >>> round(most_probable_share(0, 72), 3), round(most_probable_share(1, 60), 3), most_probable_share(5, 5)
        (0.05, 0.089, 1.0)
    """
    if successes >= trials:
        return 1.0
    low, high = successes / trials, 1.0
    for _ in range(50):
        share = (low + high) / 2
        tail = sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes + 1))
        low, high = (share, high) if tail > 0.025 else (low, share)
    return high


METHOD = (
    "The 95 % interval of DER, a ratio of means, by the paired bootstrap over clusters. Where fewer than 5 of the clusters that the expert "
    "gets right were lost (or kept), the interval reaches as far beyond DER as the exact interval of their share does (Clopper and "
    "Pearson, 1934). Items needed: n · ((z₀.₉₇₅ + z₀.₈₀) · SE / |DER − margin|)², the sample size of a non-inferiority trial with 80 % "
    "power (Julious, 2004, Statistics in Medicine 23:1921), SE being the width of the bootstrap interval over 2 z₀.₉₇₅; where few "
    "were lost, at least as many as bring the exact interval to the margin."
)

_CONFIDENCE = NormalDist().inv_cdf(0.975)
_POWER = NormalDist().inv_cdf(0.8)


def non_inferiority(
    bootstrap: Bootstrap,
    student: Sequence[float],
    expert: Sequence[float],
    retention: Estimate,
    margin: float,
) -> NonInferiority:
    """Holds a retention against its margin.

    Args:
        bootstrap: Resamples the items.
        student: The student's grade of each item.
        expert: The expert's.
        retention: DER over these items.
        margin: The share of the expert that has to be kept.
    """
    if retention.value is None or retention.low is None or retention.high is None:
        return NonInferiority(margin=margin, verdict="undefined", method=METHOD)
    mine, theirs = bootstrap.per_cluster(student), bootstrap.per_cluster(expert)
    known = theirs > 0
    clusters = int(known.sum())
    lost, kept = int((mine < theirs)[known].sum()), int((mine > 0)[known].sum())
    low, high = retention.low, retention.high
    if lost < FEW:
        low = min(low, retention.value - (most_probable_share(lost, clusters) - lost / clusters))
    if kept < FEW:
        high = max(high, retention.value + (most_probable_share(kept, clusters) - kept / clusters))
    if low >= margin or high < margin:
        return NonInferiority(
            margin=margin,
            verdict="yes" if low >= margin else "no",
            low=low,
            high=high,
            method=METHOD,
        )
    gap = retention.value - margin
    needed = (
        len(student)
        * ((_CONFIDENCE + _POWER) * (retention.high - retention.low) / (2 * _CONFIDENCE) / abs(gap))
        ** 2
        if gap
        else 0.0
    )
    few = lost if gap > 0 else kept
    if few < FEW and gap:
        needed = max(needed, len(student) / clusters * _clusters_needed(few / clusters, abs(gap)))
    return NonInferiority(
        margin=margin,
        verdict="not enough data",
        low=low,
        high=high,
        more_items=max(1, ceil(needed) - len(student)) if gap else None,
        method=METHOD,
    )


def _clusters_needed(share: float, gap: float) -> float:
    """Returns how many clusters bring the interval of a share to within `gap` of it: exactly for a share of 0, else by the score test."""
    limit = share + gap
    if limit >= 1:
        return 1.0
    if not share:
        return log(0.025) / log(1 - limit)
    return float((_CONFIDENCE + _POWER) ** 2 * limit * (1 - limit) / np.square(gap))


Verdict = Literal["no measurable loss", "loss", "not enough data"]


def regression(
    slice_name: str,
    places: Sequence[int],
    student: ModelResult,
    base: ModelResult | None,
    tolerance: float,
    bootstrap: Callable[[Sequence[int]], Bootstrap],
) -> Regression:
    """Compares the student with its base on the items that both were graded on.

    Args:
        slice_name: The benchmark's slice.
        places: Where its items are among the answers.
        student: The student.
        base: The base; None where it was not measured.
        tolerance: The loss up to which none is spoken of.
        bootstrap: Resamples the items at the given places.
    """

    def unknown(reason: str) -> Regression:
        return Regression(
            slice=slice_name,
            items=0,
            student=None,
            base=None,
            difference=Estimate(value=None, reason=reason),
            tolerance=tolerance,
            verdict="not enough data",
        )

    if base is None:
        return unknown("the base was not measured")
    graded = [
        place
        for place in places
        if student.answers[place].score is not None and base.answers[place].score is not None
    ]
    if not graded:
        return unknown("no answer could be graded")
    mine, before = ([_score(model.answers[place]) for place in graded] for model in (student, base))
    difference = bootstrap(graded).mean(
        [after - earlier for after, earlier in zip(mine, before, strict=True)]
    )
    return Regression(
        slice=slice_name,
        items=len(graded),
        student=sum(mine) / len(mine),
        base=sum(before) / len(before),
        difference=difference,
        tolerance=tolerance,
        verdict=_regression_verdict(difference, mine, before, tolerance),
    )


def _regression_verdict(
    difference: Estimate, mine: Sequence[float], before: Sequence[float], tolerance: float
) -> Verdict:
    if difference.value is None or difference.low is None or difference.high is None:
        return "not enough data"
    items = len(mine)
    lost = sum(after < earlier for after, earlier in zip(mine, before, strict=True))
    gained = sum(after > earlier for after, earlier in zip(mine, before, strict=True))
    low, high = difference.low, difference.high
    if lost < FEW:
        low = min(low, difference.value - (most_probable_share(lost, items) - lost / items))
    if gained < FEW:
        high = max(high, difference.value + (most_probable_share(gained, items) - gained / items))
    if high < 0:
        return "loss"
    return "no measurable loss" if low >= -tolerance else "not enough data"


def _score(answer: Answer) -> float:
    return answer.score or 0.0
