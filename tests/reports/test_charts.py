from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.results import DomainRetention, Estimate
from domainfusion.reports.charts import LEFT, RIGHT, learning_chart, retention_chart

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


def test_what_was_to_be_learnt_needs_the_base() -> None:
    assert learning_chart([row(0.9, base=None)]) is None
    chart = learning_chart([row(0.9)])
    assert chart is not None
    assert [mark.kind for mark in chart.rows[0].marks] == ["base", "expert", "student"]
