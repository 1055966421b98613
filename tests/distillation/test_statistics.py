"""Intervals: exact ones hold their error, the bootstrap is exact where nothing varies, and clusters
make both wider.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from domainfusion.distillation.statistics import Bootstrap, PairedComparison, Resampling, share

values = st.lists(st.floats(0.01, 1), min_size=2, max_size=20)


def each(count: int) -> list[str]:
    return [f"item {index}" for index in range(count)]


def bootstrap(count: int, resamples: int = 500, seed: int = 0) -> Bootstrap:
    return Resampling(resamples=resamples, seed=seed).over(each(count))


@given(value=st.floats(0, 1), count=st.integers(2, 30))
@settings(max_examples=30)
def test_constant_values_have_an_interval_without_width(value: float, count: int) -> None:
    estimate = bootstrap(count).mean([value] * count)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, value, value))


@given(column=values)
@settings(max_examples=30)
def test_the_ratio_of_a_model_to_itself_is_exactly_one(column: list[float]) -> None:
    estimate = bootstrap(len(column)).ratio(column, column)
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)


@given(column=values)
@settings(max_examples=30)
def test_the_mean_lies_within_the_range_of_its_values_and_so_does_its_interval(
    column: list[float],
) -> None:
    estimate = bootstrap(len(column)).mean(column)
    assert estimate.value == pytest.approx(sum(column) / len(column))
    assert estimate.low is not None and estimate.high is not None
    assert min(column) - 1e-9 <= estimate.low <= estimate.high <= max(column) + 1e-9


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    column = list(np.random.default_rng(0).random(40))
    assert bootstrap(40).mean(column) == bootstrap(40).mean(column)
    assert bootstrap(40).mean(column) != bootstrap(40, seed=1).mean(column)


def test_copies_of_an_item_add_no_certainty_where_they_share_its_cluster() -> None:
    column = [float(value) for value in np.random.default_rng(1).integers(0, 2, 50)]
    copied, names = column * 4, each(50) * 4

    def width(clusters: list[str], data: list[float]) -> float:
        estimate = Resampling(resamples=4000).over(clusters).mean(data)
        assert estimate.low is not None and estimate.high is not None
        return estimate.high - estimate.low

    alone, clustered, pretended = (
        width(each(50), column),
        width(names, copied),
        width(each(200), copied),
    )
    assert clustered == pytest.approx(alone)
    assert pretended == pytest.approx(alone / 2, rel=0.15), "four times the items would halve it"


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(7)
    resampler = bootstrap(60, resamples=400)
    hits = 0
    for _ in range(400):
        estimate = resampler.mean(list(rng.normal(0.5, 0.2, 60)))
        assert estimate.low is not None and estimate.high is not None
        hits += estimate.low <= 0.5 <= estimate.high
    assert (
        0.91 <= hits / 400 <= 0.98
    )  # 95 % give or take three standard errors, and the bootstrap's own lack at 60 items


def test_a_ratio_to_nothing_is_undefined_and_says_why() -> None:
    estimate = bootstrap(3).ratio([1, 0, 1], [0, 0, 0])
    assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
    assert estimate.reason


def test_resamples_without_a_denominator_are_left_out_of_the_interval() -> None:
    estimate = bootstrap(2).ratio([1, 0], [1, 0])
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)


# Memory


def test_chunked_equals_whole() -> None:
    """The counts are those of one draw of the whole matrix, in whatever chunks they come."""
    count, resamples = 60_000, 150
    whole = np.random.default_rng(3).multinomial(count, np.full(count, 1 / count), size=resamples)
    chunks = list(Resampling(resamples=resamples, seed=3).draws(count))
    assert len(chunks) > 1
    assert np.array_equal(np.concatenate(chunks), whole)


@pytest.mark.parametrize(
    "memory_bytes", [0, 400 * 30, 2**30], ids=["none kept", "one kept", "all kept"]
)
def test_what_is_kept_changes_no_interval(memory_bytes: int) -> None:
    resampling, columns = (
        Resampling(resamples=400, memory_bytes=memory_bytes),
        [np.arange(size) / size for size in (20, 30, 20)],
    )
    found = [resampling.over(each(len(column))).mean(list(column)) for column in columns]
    assert found == [bootstrap(len(column), resamples=400).mean(list(column)) for column in columns]
    assert (
        sum(chunk.nbytes for chunks in resampling._kept.values() for chunk in chunks)
        <= memory_bytes
    )


def test_draws_are_made_once_for_each_number_of_clusters() -> None:
    resampling = Resampling(resamples=200)
    first = list(resampling.draws(50))
    assert all(again is chunk for again, chunk in zip(resampling.draws(50), first, strict=True))


@pytest.mark.parametrize("count", [1, 2, 255, 256, 300])
def test_every_resample_has_as_many_clusters_as_there_are(count: int) -> None:
    assert all(
        (chunk.sum(axis=1, dtype=np.int64) == count).all()
        for chunk in Resampling(resamples=200).draws(count)
    )


# Exact intervals of right and wrong


def paired(
    both: int, lost: int, gained: int, neither: int, *, per_cluster: int = 1
) -> PairedComparison:
    student = [True] * both + [False] * lost + [True] * gained + [False] * neither
    expert = [True] * (both + lost) + [False] * (gained + neither)
    return PairedComparison(
        student, expert, [str(place // per_cluster) for place in range(len(student))]
    )


counts = st.integers(0, 40)


@given(both=counts, lost=counts, gained=counts, neither=counts)
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_its_value_and_turns_over_when_the_sides_do(
    both: int, lost: int, gained: int, neither: int
) -> None:
    here, there = (
        paired(both, lost, gained, neither).ratio(),
        paired(both, gained, lost, neither).ratio(),
    )
    if here.value is not None:
        assert here.low is not None and here.high is not None
        assert 0 <= here.low <= here.value <= here.high
    if here.value and there.value:
        assert there.high is not None
        assert here.value == pytest.approx(1 / there.value)
        assert here.low == pytest.approx(1 / there.high, rel=1e-6)
    if both + lost + gained + neither:
        difference = paired(both, lost, gained, neither).difference()
        assert (
            difference.low is not None
            and difference.high is not None
            and difference.value is not None
        )
        assert -1 <= difference.low <= difference.value <= difference.high <= 1


@given(both=counts, lost=counts, gained=counts, neither=counts)
@settings(max_examples=30, deadline=None)
def test_what_neither_gets_right_says_nothing_of_the_ratio(
    both: int, lost: int, gained: int, neither: int
) -> None:
    assert paired(both, lost, gained, 0).ratio() == paired(both, lost, gained, neither).ratio()


@pytest.mark.parametrize(("kept", "lost"), [(72, 0), (59, 1), (290, 10), (40, 20)])
def test_without_gains_the_lower_end_is_clopper_and_pearsons(kept: int, lost: int) -> None:
    exact = binomtest(kept, kept + lost).proportion_ci(method="exact")
    assert paired(kept, lost, 0, 5).ratio().low == pytest.approx(exact.low, abs=1e-6)


def test_more_of_the_same_narrows_the_interval() -> None:
    ends = [paired(19 * n, n, n // 2, n).ratio() for n in (2, 4, 8, 16, 32)]
    lows, highs = [found.low or 0 for found in ends], [found.high or 9 for found in ends]
    assert lows == sorted(lows)
    assert highs == sorted(highs, reverse=True)


@pytest.mark.parametrize(("n", "expert", "gained"), [(100, 1.0, 0.0), (300, 0.9, 0.01)])
def test_what_keeps_exactly_the_margin_passes_in_1_of_40_cases_at_most(
    n: int, expert: float, gained: float
) -> None:
    """`benchmarks/intervals.md` has more of it."""
    kept = 0.95 * expert - gained
    shares = [kept, expert - kept, gained, max(0.0, 1 - expert - gained)]
    draws, times = np.unique(
        np.random.default_rng(0).multinomial(n, shares, size=600), axis=0, return_counts=True
    )
    passed = 0
    for (both, lost, new, neither), count in zip(draws, times, strict=True):
        # An interval's lower end is at most its value, so these can't pass.
        if both + new <= 0.95 * (both + lost):
            continue
        if (paired(both, lost, new, neither).ratio().low or 0) > 0.95:
            passed += count
    assert passed / 600 <= 0.025 + 3 * (0.025 * 0.975 / 600) ** 0.5


def test_questions_of_one_fact_are_worth_one_where_little_is_known_of_them() -> None:
    """Four phrasings of 72 facts, all kept, are 72 items and not 288."""
    alone, phrased = paired(72, 0, 0, 0).ratio(), paired(288, 0, 0, 0, per_cluster=4).ratio()
    assert (phrased.value, phrased.low, phrased.high) == pytest.approx(
        (alone.value, alone.low, alone.high)
    )


def test_the_design_effect_is_measured_where_enough_differs() -> None:
    """Losses that come by whole clusters widen the interval, losses spread evenly hardly do."""
    rng = np.random.default_rng(0)
    student = np.ones(1200, dtype=bool)
    student[:120] = False
    names = [str(place // 4) for place in range(1200)]
    whole = PairedComparison(list(student), [True] * 1200, names).ratio()
    spread = PairedComparison(list(rng.permutation(student)), [True] * 1200, names).ratio()
    alone = PairedComparison(
        list(student), [True] * 1200, [str(place) for place in range(1200)]
    ).ratio()
    widths = [(found.high or 0) - (found.low or 0) for found in (alone, spread, whole)]
    assert widths[0] <= widths[1] < 1.3 * widths[0]
    assert widths[2] == pytest.approx(2 * widths[0], rel=0.1)


@given(hits=st.integers(0, 50), misses=st.integers(0, 50))
@settings(max_examples=40)
def test_a_share_has_the_interval_of_clopper_and_pearson(hits: int, misses: int) -> None:
    if not hits + misses:
        assert share([], []).value is None
        return
    found = share([True] * hits + [False] * misses, each(hits + misses))
    exact = binomtest(hits, hits + misses).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


# The area under the ROC curve


@given(sound=values, corrupted=values)
def test_the_auroc_is_a_share_that_turns_over_when_the_sides_do(
    sound: list[float], corrupted: list[float]
) -> None:
    size = min(len(sound), len(corrupted))
    bootstrap = Resampling(resamples=100).over([str(place) for place in range(size)])
    one, other = (
        bootstrap.auroc(sound[:size], corrupted[:size]),
        bootstrap.auroc(corrupted[:size], sound[:size]),
    )
    assert one.value is not None and other.value is not None
    assert one.value + other.value == pytest.approx(1)
    assert one.low is not None and one.high is not None and 0 <= one.low <= one.high <= 1


def test_the_auroc_agrees_with_counting_pairs() -> None:
    sound, corrupted = [0.9, 0.8, 0.4], [0.1, 0.8, 0.5]
    pairs = [(one > other) + 0.5 * (one == other) for one in sound for other in corrupted]
    assert Resampling(resamples=100).over(list("abc")).auroc(
        sound, corrupted
    ).value == pytest.approx(sum(pairs) / 9)
    assert Resampling(resamples=100).over(list("abc")).auroc([1, 1, 1], [0, 0, 0]).low == 1


def test_items_of_one_cluster_are_resampled_together() -> None:
    sound, corrupted = [0.9, 0.2, 0.7, 0.6], [0.3, 0.8, 0.1, 0.5]
    alone = Resampling(resamples=2000).over(list("abcd")).auroc(sound, corrupted)
    together = Resampling(resamples=2000).over(list("aaaa")).auroc(sound, corrupted)
    assert alone.value == together.value
    assert together.low is None, "one cluster says nothing of how others would differ"
    assert alone.low is not None and alone.value is not None and alone.low < alone.value


def test_a_formula_of_sums_is_the_ratio_where_it_is_one() -> None:
    bootstrap = Resampling(resamples=500).over(list("aabbc"))
    above, below = [1.0, 0, 1, 1, 0], [1.0, 2, 1, 3, 1]
    assert bootstrap.formula(lambda sums: sums[0] / sums[1], [above, below]) == bootstrap.ratio(
        above, below
    )
