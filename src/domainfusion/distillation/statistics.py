"""Intervals: exact ones for answers that are right or wrong, the paired, clustered bootstrap for
all else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import ceil, floor, log, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm
from scipy.stats import t as students_t

from domainfusion.distillation.results import Estimate, NonInferiority, Regression

Values = NDArray[np.float64]
Counts = NDArray[np.uint8]

MEMORY_BYTES = 2**30
"""Memory that the draws of a `Resampling` may take: 10,000 resamples of 100,000 clusters."""

TAIL = 0.025
"""The chance that is left on each side of a 95 % interval."""

FEW = 30
"""With fewer items than these that differ, it can't be measured how much items of one cluster have
in common.
"""

LARGEST_RATIO = 1e6
"""What is searched up to where the interval of a ratio may have no upper end."""

_CHUNK = 2**22
"""Counts that are looked at together: 32 MiB as float64."""


class Resampling:
    """Draws how often each cluster of items comes in each resample, once for each number of
    clusters.

    Figures over the same items are drawn the same way, so that differences between models are
    paired, and as many clusters need no draws of their own. The draws are kept as long as they fit
    in memory, the latest ones first; others are drawn anew each time, to the same counts.

    Args:
        resamples: How many resamples are drawn.
        seed: Seed of the draws.
        memory_bytes: Memory that kept draws may take.
    """

    def __init__(
        self, *, resamples: int = 10_000, seed: int = 0, memory_bytes: int = MEMORY_BYTES
    ) -> None:
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
            # A cluster can't come more than 255 times among fewer than 256 draws, and among more it
            # never does.
            yield rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.uint8)


class Bootstrap:
    """Resamples clusters of items, the same way for every figure over these items, so that
    differences are paired.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, percentile intervals;
    clusters as in Miller, 2024, arXiv 2411.00640.

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
        """Returns the ratio of two sums over the items, or undefined where the denominators sum to
        0.
        """
        above, below = (
            np.array(numerators, dtype=np.float64),
            np.array(denominators, dtype=np.float64),
        )
        if not below.sum():
            return Estimate(value=None, reason="the denominator is 0")
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn_above, drawn_below = self._sums(above, below)
            drawn = drawn_above / drawn_below
        return self._interval(float(above.sum() / below.sum()), drawn)

    def formula(
        self, figure: Callable[[Sequence[Values]], Values], columns: Sequence[Sequence[float]]
    ) -> Estimate:
        """Returns a figure that a formula makes of sums over the items, such as Cohen's kappa;
        undefined where it is not a number.

        Args:
            figure: From the sum of each column, in an array of shape (resamples,), to the figure,
                in another.
            columns: One value an item in each.
        """
        arrays = [np.array(column, dtype=np.float64) for column in columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(figure([array.sum(keepdims=True) for array in arrays])[0])
            drawn = figure(self._sums(*arrays))
        return (
            self._interval(value, drawn)
            if np.isfinite(value)
            else Estimate(value=None, reason="the formula has no value there")
        )

    def auroc(self, sound: Sequence[float], corrupted: Sequence[float]) -> Estimate:
        """Returns the area under the ROC curve: the share of pairs in which a sound value is above
        a corrupted one, ties counting half.

        Source: Hanley and McNeil, 1982, doi 10.1148/radiology.143.1.7063747. Both values of an item
        are resampled with it.

        Args:
            sound: The value of each item as it was.
            corrupted: The value of each item's corrupted version.
        """
        one, other = (
            np.array(sound, dtype=np.float64)[:, None],
            np.array(corrupted, dtype=np.float64)[None, :],
        )
        wins = (one > other) + 0.5 * (one == other)
        member = np.zeros((self._count, len(self._member)))
        member[self._member, np.arange(len(self._member))] = 1
        pairs, sizes = member @ wins @ member.T, member.sum(axis=1)
        drawn = [
            ((counts @ pairs) * counts).sum(axis=1) / (counts @ sizes) ** 2
            for counts in self._resampling.draws(self._count)
        ]
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
        if not finite.size or self._count < 2:
            return Estimate(
                value=value
            )  # one cluster resampled is itself, which says nothing of others
        low, high = np.quantile(finite, [0.025, 0.975])
        return Estimate(value=value, low=float(low), high=float(high))


class PairedCounts(NamedTuple):
    """How two models did on the same items, each answer right or wrong.

    Attributes:
        both: Items that both got right.
        lost: Items that only the reference model (the expert, the base) got right.
        gained: Items that only the model under test (the student) got right.
        neither: Items that neither got right.
    """

    both: int
    lost: int
    gained: int
    neither: int

    @property
    def discordant(self) -> int:
        """Items on which the two differ."""
        return self.lost + self.gained


class PairedComparison:
    """Compares two models on the same items, each right or wrong, with exact tail probabilities.

    The interval holds every value that a test at 2.5 % a side does not reject. The test is the
    approximate unconditional one: the probability, under the most likely way in which the value
    could be true, of counts that speak as much for the student as those at hand (Tang, Tang and
    Chan, 2003, Statistics in Medicine 22:1217; the constrained estimate of Nam and Blackwelder,
    2002, Statistics in Medicine 21:689). Probabilities are binomial, so that few losses need no
    approximation; where nothing was gained, the lower end is that of Clopper and Pearson.

    Items of one cluster (a fact, a template) are not independent. With fewer than 30 discordant
    items they count as one item each cluster (Kish's effective size Σm / Σm², the least that
    clusters can be worth); with more, the counts are divided by the measured design effect
    (Korn and Graubard, 1998, Survey Methodology 24:193).

    Args:
        student: Whether the model under test is right, an item.
        reference: Whether the model that it is compared with is.
        clusters: The cluster of each item.
    """

    def __init__(
        self, student: Sequence[bool], reference: Sequence[bool], clusters: Sequence[str]
    ) -> None:
        self._student = np.array(student, dtype=bool)
        self._reference = np.array(reference, dtype=bool)
        _, self._member = np.unique(np.array(clusters, dtype=object), return_inverse=True)
        self.counts = PairedCounts(
            both=int((self._student & self._reference).sum()),
            lost=int((~self._student & self._reference).sum()),
            gained=int((self._student & ~self._reference).sum()),
            neither=int((~self._student & ~self._reference).sum()),
        )

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self._student)

    def ratio(self) -> Estimate:
        """Returns the student's accuracy over the reference's; undefined where that is 0."""
        right = self.counts.both + self.counts.lost
        if not right:
            return Estimate(value=None, reason="the denominator is 0")
        low = _lowest_ratio(self._worth)
        # Seen from the other side, what was lost is gained, and the ratio is its inverse.
        inverse = _lowest_ratio(self._turned_worth)
        high = 1 / inverse if inverse else LARGEST_RATIO
        return Estimate(value=(self.counts.both + self.counts.gained) / right, low=low, high=high)

    def p_values(self, ratio: float) -> tuple[float, float]:
        """Tests one ratio: the interval lies above it where the first is below 2.5 %, and below it
        where the second is.

        Args:
            ratio: The student's accuracy over the reference's, as somebody supposes.
        """
        return _ratio_tail(self._worth, ratio), _ratio_tail(self._turned_worth, 1 / ratio)

    @cached_property
    def _worth(self) -> PairedCounts:
        """The counts of as many independent items as these are worth."""
        return _shrunk(self.counts, self._ratio_effect)

    @cached_property
    def _turned_worth(self) -> PairedCounts:
        return _shrunk(_turned(self.counts), self._ratio_effect)

    @cached_property
    def _ratio_effect(self) -> float:
        right = self.counts.both + self.counts.lost
        value = (self.counts.both + self.counts.gained) / right if right else 0.0
        return self._design_effect(self._student - value * self._reference)

    def difference(self) -> Estimate:
        """Returns the student's accuracy less the reference's."""
        if not self.items:
            return Estimate(value=None, reason="there are no items")
        value = (self.counts.gained - self.counts.lost) / self.items
        effect = self._design_effect(self._student.astype(float) - self._reference - value)
        low = _lowest_difference(_shrunk(self.counts, effect))
        high = -_lowest_difference(_shrunk(_turned(self.counts), effect))
        return Estimate(value=value, low=low, high=high)

    def _design_effect(self, residuals: Values) -> float:
        return design_effect(residuals, self._member, few=self.counts.discordant < FEW)


def share(right: Sequence[bool], clusters: Sequence[str]) -> Estimate:
    """Returns the share of items that are right, with the interval of Clopper and Pearson (1934).

    Items of one cluster are counted as `PairedComparison` counts them.

    Example:
        >>> print(share([True] * 72, [str(item) for item in range(72)]))
        1.000 [0.950, 1.000]
    """
    if not right:
        return Estimate(value=None, reason="there are no items")
    values = np.array(right, dtype=np.float64)
    _, member = np.unique(np.array(clusters, dtype=object), return_inverse=True)
    value, hits = float(values.mean()), float(values.sum())
    effect = design_effect(values - value, member, few=min(hits, len(values) - hits) < FEW)
    successes, trials = hits / effect, len(values) / effect
    # The interval's ends are quantiles of beta distributions, which take fractions of an item.
    low = float(beta.ppf(TAIL, successes, trials - successes + 1)) if successes else 0.0
    high = (
        float(beta.ppf(1 - TAIL, successes + 1, trials - successes)) if hits < len(values) else 1.0
    )
    return Estimate(value=value, low=low, high=high)


def design_effect(residuals: Values, member: NDArray[np.intp], *, few: bool) -> float:
    """Returns how many times as many clustered items it takes to know as much as from independent
    ones.

    Args:
        residuals: How far each item is from the mean (linearised, for a ratio).
        member: The cluster of each item, from 0.
        few: Whether too few items differ for the effect to be measured; then it is the largest
            possible.
    """
    sizes = np.bincount(member).astype(np.float64)
    largest = float(np.square(sizes).sum() / sizes.sum())
    independent = float(np.square(residuals).sum())
    if few or len(sizes) < 2 or not independent:
        return largest
    within = np.bincount(member, weights=residuals)
    count = len(sizes)
    clustered = count / (count - 1) * float(np.square(within).sum())
    # With few clusters the effect itself is uncertain: Student's t in place of the normal
    # distribution.
    wider = (students_t.ppf(1 - TAIL, count - 1) / norm.ppf(1 - TAIL)) ** 2 if largest > 1 else 1.0
    return float(min(largest, max(1.0, wider * clustered / independent)))


def _shrunk(counts: PairedCounts, effect: float) -> PairedCounts:
    """Divides counts by a design effect; what has to be rounded is rounded against the student."""
    if effect <= 1:
        return counts
    slack = 1e-9
    lost, gained = ceil(counts.lost / effect - slack), floor(counts.gained / effect + slack)
    total = floor(sum(counts) / effect + slack)
    neither = min(floor(counts.neither / effect + slack), max(0, total - lost - gained))
    return PairedCounts(max(0, total - lost - gained - neither), lost, gained, neither)


def _turned(counts: PairedCounts) -> PairedCounts:
    return counts._replace(lost=counts.gained, gained=counts.lost)


def _lowest_ratio(counts: PairedCounts) -> float:
    """Returns the least ratio of accuracies that the test does not reject."""
    student, reference = counts.both + counts.gained, counts.both + counts.lost
    if not student:
        return 0.0
    observed = student / reference if reference else LARGEST_RATIO
    return _crossing(lambda ratio: _ratio_tail(counts, ratio), 0.0, observed)


def _ratio_tail(counts: PairedCounts, ratio: float) -> float:
    """Returns the chance of counts as good for the student as these, or better, if its ratio were
    this.

    Items that neither model gets right say nothing of the ratio and are left out, so that of N
    items the student has N − lost right and the reference N − gained.
    """
    both, lost, gained, _ = counts
    items = both + lost + gained
    student, reference = items - lost, items - gained
    if not student:
        return 1.0
    # Under the hypothesis 1 − l = ratio · (1 − g), for the chances l of a loss and g of a gain.
    # The most likely g is the root of the derivative of lost·log l + gained·log g + both·log(1 − l
    # − g).
    square = -ratio * (1 + ratio) * items
    linear = lost * ratio**2 + gained * (2 * ratio**2 - 1) - both * (1 + ratio) * (1 - ratio)
    gain = _root(square, linear, gained * (1 - ratio) * ratio)
    gain = min(max(gain, 0.0, 1 - 1 / ratio), ratio / (1 + ratio))
    loss = 1 - ratio + ratio * gain
    # As good for the student or better: (N − losses) / (N − gains) at least as observed.
    gains = np.arange(items + 1)
    return _tail(items, gain, loss, gains, _most_losses(items, student, reference, gains))


def _most_losses(items: int, student: int, reference: int, gains: NDArray[np.int_]) -> Values:
    """Returns the losses up to which a ratio is at least the observed one; −1 for none."""
    if not reference:
        return np.where(gains == items, 0.0, -1.0)
    most: Values = np.floor(items - student / reference * (items - gains) + 1e-9)
    return most


def _lowest_difference(counts: PairedCounts) -> float:
    """Returns the least difference of accuracies that the test does not reject."""
    both, lost, gained, neither = counts
    items, same = sum(counts), both + neither
    observed = gained - lost
    if not items or observed == -items:
        return -1.0

    def tail(difference: float) -> float:
        # Under the hypothesis g − l = difference; the most likely g, as for the ratio, is the root
        # of
        # lost·g·(1 − 2g + d) + gained·(g − d)·(1 − 2g + d) − 2·same·g·(g − d).
        linear = lost * (1 + difference) + gained * (1 + 3 * difference) + 2 * same * difference
        gain = _root(-2 * items, linear, -gained * difference * (1 + difference))
        gain = min(max(gain, 0.0, difference), (1 + difference) / 2)
        gains = np.arange(items + 1)
        return _tail(items, gain, gain - difference, gains, gains - observed)

    return _crossing(tail, -1.0, observed / items)


def _root(square: float, linear: float, constant: float) -> float:
    """Returns the larger root of square·x² + linear·x + constant, for a square below 0."""
    return float((-linear - sqrt(max(0.0, linear**2 - 4 * square * constant))) / (2 * square))


def _tail(
    items: int, gain: float, loss: float, gains: NDArray[np.int_], most_losses: NDArray[Any]
) -> float:
    """Returns the chance of at most so many losses for each number of gains, summed over the
    gains.
    """
    chances = binom.pmf(gains, items, gain)
    matter = chances > 1e-12
    share_lost = min(1.0, max(0.0, loss / (1 - gain))) if gain < 1 else 0.0
    losses = binom.cdf(most_losses[matter], items - gains[matter], share_lost)
    return float(chances[matter] @ losses)


def _crossing(tail: Callable[[float], float], least: float, observed: float) -> float:
    """Returns where a tail probability that rises with the hypothesis reaches 2.5 %."""
    inside = least + 1e-9
    if tail(inside) >= TAIL:
        return least
    if tail(observed) <= TAIL:
        return observed
    return float(brentq(lambda value: tail(value) - TAIL, inside, observed, xtol=1e-10))


METHOD = (
    "DER and its 95 % interval are of strict accuracy: an answer is right or wrong. The interval"
    " holds every DER that an exact test of paired answers at 2.5 % a side does not reject (Tang,"
    " Tang and Chan, 2003); questions of one group count together. Yes means that the whole printed"
    " interval lies above the margin. Each verdict is for its own domain and errs in at most about"
    " 1 of 40; that all hold together needs no correction (an intersection-union test, Berger,"
    " 1982). Questions needed: n · ((z₀.₉₇₅ + z₀.₈₀) · SE / |DER − margin|)², a sample size for 80"
    " % power (Julious, 2004, Statistics in Medicine 23:1921), SE being the width of the interval"
    " over 2 z₀.₉₇₅."
)


def non_inferiority(retention: Estimate, items: int, margin: float) -> NonInferiority:
    """Holds the printed interval of a retention against its margin.

    Args:
        retention: DER with its interval.
        items: The items that it was measured on.
        margin: The share of the expert that has to be kept; the interval has to lie strictly above
            it.
    """
    if retention.value is None or retention.low is None:
        return NonInferiority(
            margin=margin, verdict="undefined", method=METHOD, reason=retention.reason
        )
    low, high = retention.low, retention.high
    if low > margin:
        return NonInferiority(margin=margin, verdict="yes", low=low, high=high, method=METHOD)
    if high is not None and high < margin:
        return NonInferiority(margin=margin, verdict="no", low=low, high=high, method=METHOD)
    return NonInferiority(
        margin=margin,
        verdict="not enough data",
        low=low,
        high=high,
        more_items=_more_items(retention.value, low, high, items, margin),
        method=METHOD,
    )


def _more_items(
    value: float, low: float, high: float | None, items: int, margin: float
) -> int | None:
    gap = value - margin
    if not gap:
        return None
    confidence, power = float(norm.ppf(1 - TAIL)), float(norm.ppf(0.8))
    end = low if gap > 0 or high is None else high
    # An interval without much of an upper end says little of how fast it would narrow.
    spread = min(1.0, abs(value - end)) / confidence
    needed = items * ((confidence + power) * spread / abs(gap)) ** 2
    if gap > 0 and value >= 1:
        # Without a loss the exact interval shrinks with n, not with √n: margin^n = 2.5 %.
        needed = items * log(low) / log(margin) if 0 < low < 1 else log(TAIL) / log(margin)
    return max(1, ceil(needed - 1e-9) - items)


GeneralAbility = Literal["no measurable loss", "loss", "not enough data"]


def regression(
    slice_name: str,
    student: Sequence[float | None],
    base: Sequence[float | None] | None,
    clusters: Sequence[str],
    tolerance: float,
    resampling: Resampling,
) -> Regression:
    """Compares the student with its base on the items that both were graded on.

    Where every grade is 0 or 1, the interval of the difference is that of `PairedComparison`, else
    the bootstrap's.

    Args:
        slice_name: The benchmark's slice.
        student: The student's grade of each item; None where there is none.
        base: The base's; None where it was not measured.
        clusters: The cluster of each item.
        tolerance: The loss up to which none is spoken of.
        resampling: Draws the resamples.
    """
    pairs = list(zip(student, base, clusters, strict=True)) if base is not None else []
    graded = [
        (mine, before, cluster)
        for mine, before, cluster in pairs
        if mine is not None and before is not None
    ]
    if not graded:
        reason = "the base was not measured" if base is None else "no answer could be graded"
        return Regression(
            slice=slice_name,
            items=0,
            student=None,
            base=None,
            difference=Estimate(value=None, reason=reason),
            tolerance=tolerance,
            verdict="not enough data",
        )
    mine, before, groups = (list(column) for column in zip(*graded, strict=True))
    if {*mine, *before} <= {0.0, 1.0}:
        comparison = PairedComparison([bool(x) for x in mine], [bool(x) for x in before], groups)
        difference = comparison.difference()
    else:
        changes = [after - earlier for after, earlier in zip(mine, before, strict=True)]
        difference = resampling.over(groups).mean(changes)
    return Regression(
        slice=slice_name,
        items=len(graded),
        student=sum(mine) / len(mine),
        base=sum(before) / len(before),
        difference=difference,
        tolerance=tolerance,
        verdict=_general_ability(difference, tolerance),
    )


def _general_ability(difference: Estimate, tolerance: float) -> GeneralAbility:
    if difference.low is None or difference.high is None:
        return "not enough data"
    if difference.high < 0:
        return "loss"
    return "no measurable loss" if difference.low > -tolerance else "not enough data"
