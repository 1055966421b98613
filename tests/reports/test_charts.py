from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.results import DomainRetention, Estimate
from domainfusion.reports.charts import (
    LEFT,
    MOST_POINTS,
    RIGHT,
    WINDOWS,
    domain_charts,
    learning_chart,
    loss_chart,
    phase_marks,
    retention_chart,
    thinned,
    training_curves,
    validation_chart,
)

SHARES = st.floats(0, 3)


def row(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    base: float | None = 0.1,
) -> DomainRetention:
    estimate = Estimate(
        value=value,
        low=low,
        high=high,
        reason="" if value is not None else "the expert got nothing right",
    )
    return DomainRetention(
        domain="a",
        items=9,
        student=0.8,
        expert=0.9,
        base=base,
        retention=estimate,
        headroom=Estimate(value=None),
    )


@given(st.lists(st.tuples(SHARES, SHARES, SHARES).map(sorted), min_size=1, max_size=5))
def test_dots_lie_on_the_axis_in_the_order_of_their_figures(estimates: list[list[float]]) -> None:
    chart = retention_chart([row(value, low, high) for low, value, high in estimates], goal=0.95)
    assert chart is not None
    for drawn in chart.rows:
        (mark,) = drawn.marks
        assert drawn.low is not None and drawn.high is not None
        assert LEFT - 0.01 <= drawn.low <= mark.at <= drawn.high <= RIGHT + 0.01
    places = [
        (value, drawn.marks[0].at)
        for (_, value, _), drawn in zip(estimates, chart.rows, strict=True)
    ]
    assert [place for _, place in sorted(places)] == sorted(place for _, place in places)
    assert 2 <= len(chart.ticks) <= 10


def test_a_dot_at_a_tick_is_at_the_figure_that_the_tick_names() -> None:
    chart = retention_chart([row(0.9, 0.8, 1.0)], goal=0.95)
    assert chart is not None
    ticks = {tick.label: tick.at for tick in chart.ticks}
    assert (chart.rows[0].low, chart.rows[0].marks[0].at, chart.rows[0].high) == (
        ticks["80 %"],
        ticks["90 %"],
        ticks["100 %"],
    )
    assert [reference.at for reference in chart.references if reference.label == "the expert"] == [
        ticks["100 %"]
    ]


def test_an_undefined_row_has_no_dot_and_says_so() -> None:
    chart = retention_chart([row(0.9), row(None)], goal=0.95)
    assert chart is not None
    assert chart.rows[1].marks == () and chart.rows[1].figure == "undefined"
    assert retention_chart([row(None)], goal=0.95) is None


def test_what_was_to_be_learned_needs_the_base() -> None:
    assert learning_chart([row(0.9, base=None)]) is None
    chart = learning_chart([row(0.9)])
    assert chart is not None
    assert [mark.kind for mark in chart.rows[0].marks] == ["base", "expert", "student"]


def line(phase: str, step: int, **fields: object) -> dict[str, object]:
    return {"phase": phase, "step": step, **fields}


def test_phases_follow_each_other_though_each_counts_from_one() -> None:
    curves = training_curves(
        [
            line("a", 1, loss=3.0),
            line("a", 2, loss=2.0),
            line("b", 1, loss=1.0),
            line("b", 2, validation={"x": 0.5}),
        ]
    )
    assert curves.phases == (("a", 0), ("b", 2))
    assert curves.losses == {"a": ((1, 3.0), (2, 2.0)), "b": ((3, 1.0),)}
    assert curves.validation == {"x": ((4, 0.5),)}
    assert curves.steps == 4


def test_steps_that_a_resumed_run_repeats_count_once_as_taken_last() -> None:
    curves = training_curves(
        [
            line("a", 1, loss=3.0),
            line("a", 2, loss=9.0),
            line("a", 2, loss=2.0),
            line("a", 3, loss=1.0),
        ]
    )
    assert curves.losses == {"a": ((1, 3.0), (2, 2.0), (3, 1.0))}


def test_a_loss_that_is_not_a_number_is_counted_and_not_drawn() -> None:
    curves = training_curves(
        [line("a", 1, loss=1.0), line("a", 2, loss=math.nan), line("a", 3, loss=math.inf)]
    )
    assert curves.not_finite == 2
    assert curves.losses == {"a": ((1, 1.0),)}


@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"phase": "a"},
        {"step": "x", "loss": 1.0},
        {"step": 1},
        {"step": 1, "validation": [1]},
        {"step": 1, "loss": "x"},
    ],
)
def test_lines_of_another_shape_draw_nothing(strange: dict[str, object]) -> None:
    curves = training_curves([strange])
    assert loss_chart(curves) is None and validation_chart(curves) is None


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_a_lower_loss_lies_lower_and_within_the_plot(losses: list[float]) -> None:
    chart = loss_chart(
        training_curves([line("a", step, loss=loss) for step, loss in enumerate(losses, start=1)])
    )
    assert chart is not None
    heights = [y for _, y in chart.curves[0].points]
    assert all(-0.01 <= y <= 100.01 for y in heights)
    assert [y for _, y in sorted(zip(losses, heights, strict=True))] == sorted(
        heights, reverse=True
    )
    assert len(chart.y_ticks) >= 1
    assert chart.logarithmic is (max(losses) / min(losses) > 20)


@given(st.integers(1, 5000))
def test_a_long_curve_is_thinned_but_ends_where_it_ended(length: int) -> None:
    found = [(step, 1.0 / step) for step in range(1, length + 1)]
    kept = thinned(found)
    assert (kept[0], kept[-1]) == (found[0], found[-1])
    assert len(kept) <= MOST_POINTS + 1
    assert set(kept) <= set(found)


@given(st.integers(1, 100_000))
def test_the_steps_on_the_axis_begin_at_none_and_end_at_the_last(last: int) -> None:
    chart = loss_chart(training_curves([line("a", 1, loss=2.0), line("a", last, loss=1.0)]))
    assert chart is not None
    assert [chart.x_ticks[0].label, chart.x_ticks[-1].label] == ["0", f"{last:,}"]
    assert len(chart.x_ticks) <= 7
    assert [tick.at for tick in chart.x_ticks] == sorted({tick.at for tick in chart.x_ticks})


TOKENS = st.fixed_dictionaries(
    {"tokens": st.integers(1, 50), "cross_entropy": st.floats(0.01, 100)}
)
STEPS = st.lists(
    st.dictionaries(st.sampled_from("abc"), TOKENS, min_size=1), min_size=1, max_size=300
)


@given(STEPS)
def test_the_losses_of_a_domain_are_means_in_which_each_answer_token_counts_once(
    steps: list[dict[str, dict[str, float]]],
) -> None:
    curves = training_curves(
        [
            line("one", step, loss=1.0, domains=domains)
            for step, domains in enumerate(steps, start=1)
        ]
    )
    assert set(curves.terms) == {"cross_entropy"}
    for domain, points in curves.terms["cross_entropy"].items():
        own = [
            (step, found[domain]) for step, found in enumerate(steps, start=1) if domain in found
        ]
        assert len(points) <= WINDOWS
        before = 0
        for end, mean in points:
            inside = [found for step, found in own if before < step <= end]
            tokens = sum(found["tokens"] for found in inside)
            assert mean == pytest.approx(
                sum(found["tokens"] * found["cross_entropy"] for found in inside) / tokens
            )
            before = end
        assert before >= max(step for step, _ in own)


def test_a_window_ends_where_its_phase_does() -> None:
    steps = [
        line(phase, step, domains={"a": {"tokens": 1, "kl": 1.0}})
        for phase in ("one", "two")
        for step in range(1, 101)
    ]
    curves = training_curves(steps)
    assert curves.window == 7
    ends = [step for step, _ in curves.terms["kl"]["a"]]
    assert 100 in ends and ends[-1] == 200


def test_each_term_has_a_chart_and_without_any_there_is_none() -> None:
    domains = {
        "a": {"tokens": 2, "cross_entropy": 3.0, "reverse_kl": 0.5},
        "b": {"tokens": 2, "cross_entropy": 2.0},
    }
    charts = domain_charts(training_curves([line("one", 1, domains=domains)]))
    assert {term: [curve.name for curve in chart.curves] for term, chart in charts.items()} == {
        "cross_entropy": ["a", "b"],
        "reverse_kl": ["a"],
    }
    assert domain_charts(training_curves([line("one", 1, loss=1.0)])) == {}


def test_a_domain_looks_the_same_in_every_chart() -> None:
    domains = {name: {"tokens": 1, "kl": 1.0} for name in ("a", "b")}
    found = {"validation": {"b": 1.0, "d": 0.0}}
    curves = training_curves([line("b", 1, loss=1.0, domains=domains, **found)])
    charts = [loss_chart(curves), validation_chart(curves), *domain_charts(curves).values()]
    looks = {(curve.name, curve.style) for chart in charts if chart for curve in chart.curves}
    assert looks == {("a", 0), ("b", 1), ("d", 2)}


@pytest.mark.parametrize(
    "phases",
    [
        [("domains", 0.0), ("integration", 0.6)],
        [("domains", 0.0), ("integration", 98.0)],
        [(f"domain-{number:02}", number * 100 / 12) for number in range(12)],
        [("a phase with a name as long as a sentence that somebody wrote", 0.0), ("b", 50.0)],
        [("x", 0.0), *((f"p{number}", 99.0) for number in range(5))],
    ],
)
def test_names_of_phases_do_not_run_into_each_other(phases: list[tuple[str, float]]) -> None:
    marks = phase_marks(phases)
    assert [mark.at for mark in marks] == [at for _, at in phases]
    spans: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    for mark in marks:
        width = 1.6 * len(mark.label)
        begin = 100 - width if mark.is_right else mark.at
        if mark.label:
            spans[mark.row].append((max(0.0, begin), min(100.0, begin + width)))
    for own in spans.values():
        assert all(after[0] >= before[1] for before, after in pairwise(sorted(own)))
    shown = [mark.label for mark in marks if mark.label]
    assert len(shown) >= min(2, len(phases))


def test_an_interval_that_goes_on_beyond_the_axis_says_so() -> None:
    chart = retention_chart([row(1.0, 0.4, 2.5), row(1.0, 0.4, 1.2)], goal=0.95)
    assert chart is not None
    assert [drawn.is_cut for drawn in chart.rows] == [True, False]
