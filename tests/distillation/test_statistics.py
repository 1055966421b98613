"""The bootstrap: exact where nothing varies, wider where items come in clusters, and right about 95 % of the time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainfusion.distillation.statistics import Bootstrap, Resampling, most_probable_share

values = st.lists(st.floats(0.01, 1), min_size=1, max_size=20)


def each(count: int) -> list[str]:
    return [f"item {index}" for index in range(count)]


def bootstrap(count: int, resamples: int = 500, seed: int = 0) -> Bootstrap:
    return Resampling(resamples=resamples, seed=seed).over(each(count))


@given(value=st.floats(0, 1), count=st.integers(1, 30))
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
def test_the_mean_lies_within_the_range_of_its_values_and_so_does_its_interval(column: list[float]) -> None:
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

    alone, clustered, pretended = width(each(50), column), width(names, copied), width(each(200), copied)
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
    assert 0.91 <= hits / 400 <= 0.98  # 95 % give or take three standard errors, and the bootstrap's own lack at 60 items


def test_a_ratio_to_nothing_is_undefined_and_says_why() -> None:
    estimate = bootstrap(3).ratio([1, 0, 1], [0, 0, 0])
    assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
    assert estimate.reason


def test_resamples_without_a_denominator_are_left_out_of_the_interval() -> None:
    estimate = bootstrap(2).ratio([1, 0], [1, 0])
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)


def test_a_difference_is_seen_where_it_is_and_not_where_it_is_noise() -> None:
    assert bootstrap(30).excludes_zero([0.1] * 30)
    assert bootstrap(30).excludes_zero([-0.1] * 30)
    assert not bootstrap(30).excludes_zero([0.1, -0.1] * 15)
    assert not bootstrap(1).excludes_zero([0.0])


# Memory


def test_chunked_equals_whole() -> None:
    """The counts are those of one draw of the whole matrix, in whatever chunks they come."""
    count, resamples = 60_000, 150
    whole = np.random.default_rng(3).multinomial(count, np.full(count, 1 / count), size=resamples)
    chunks = list(Resampling(resamples=resamples, seed=3).draws(count))
    assert len(chunks) > 1
    assert np.array_equal(np.concatenate(chunks), whole)


@pytest.mark.parametrize("memory_bytes", [0, 400 * 30, 2**30], ids=["none kept", "one kept", "all kept"])
def test_what_is_kept_changes_no_interval(memory_bytes: int) -> None:
    resampling, columns = Resampling(resamples=400, memory_bytes=memory_bytes), [np.arange(size) / size for size in (20, 30, 20)]
    found = [resampling.over(each(len(column))).mean(list(column)) for column in columns]
    assert found == [bootstrap(len(column), resamples=400).mean(list(column)) for column in columns]
    assert sum(chunk.nbytes for chunks in resampling._kept.values() for chunk in chunks) <= memory_bytes


def test_draws_are_made_once_for_each_number_of_clusters() -> None:
    resampling = Resampling(resamples=200)
    first = list(resampling.draws(50))
    assert all(again is chunk for again, chunk in zip(resampling.draws(50), first, strict=True))


@pytest.mark.parametrize("count", [1, 2, 255, 256, 300])
def test_every_resample_has_as_many_clusters_as_there_are(count: int) -> None:
    assert all((chunk.sum(axis=1, dtype=np.int64) == count).all() for chunk in Resampling(resamples=200).draws(count))


@given(trials=st.integers(1, 200), data=st.data())
@settings(max_examples=50)
def test_the_most_probable_share_leaves_a_tail_of_a_fortieth(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials - 1))
    share = most_probable_share(successes, trials)
    draws = np.random.default_rng(0).binomial(trials, share, size=20_000)
    assert (draws <= successes).mean() == pytest.approx(0.025, abs=0.006)


# The area under the ROC curve


@given(sound=values, corrupted=values)
def test_the_auroc_is_a_share_that_turns_over_when_the_sides_do(sound: list[float], corrupted: list[float]) -> None:
    size = min(len(sound), len(corrupted))
    bootstrap = Resampling(resamples=100).over([str(place) for place in range(size)])
    one, other = bootstrap.auroc(sound[:size], corrupted[:size]), bootstrap.auroc(corrupted[:size], sound[:size])
    assert one.value is not None and other.value is not None
    assert one.value + other.value == pytest.approx(1)
    assert one.low is not None and one.high is not None and 0 <= one.low <= one.high <= 1


def test_the_auroc_agrees_with_counting_pairs() -> None:
    sound, corrupted = [0.9, 0.8, 0.4], [0.1, 0.8, 0.5]
    pairs = [(one > other) + 0.5 * (one == other) for one in sound for other in corrupted]
    assert Resampling(resamples=100).over(list("abc")).auroc(sound, corrupted).value == pytest.approx(sum(pairs) / 9)
    assert Resampling(resamples=100).over(list("abc")).auroc([1, 1, 1], [0, 0, 0]).low == 1


def test_items_of_one_cluster_are_resampled_together() -> None:
    sound, corrupted = [0.9, 0.2, 0.7, 0.6], [0.3, 0.8, 0.1, 0.5]
    alone = Resampling(resamples=2000).over(list("abcd")).auroc(sound, corrupted)
    together = Resampling(resamples=2000).over(list("aaaa")).auroc(sound, corrupted)
    assert alone.value == together.value == together.low == together.high
    assert alone.low is not None and alone.value is not None and alone.low < alone.value


def test_a_formula_of_sums_is_the_ratio_where_it_is_one() -> None:
    bootstrap = Resampling(resamples=500).over(list("aabbc"))
    above, below = [1.0, 0, 1, 1, 0], [1.0, 2, 1, 3, 1]
    assert bootstrap.formula(lambda sums: sums[0] / sums[1], [above, below]) == bootstrap.ratio(above, below)
