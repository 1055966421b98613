"""Non-inferiority: settled only where the data settle it, and as many more items as are said do
settle it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from domainfusion.distillation.results import NonInferiority
from domainfusion.distillation.statistics import PairedComparison, non_inferiority


def judged(
    student: Sequence[float], expert: Sequence[float], *, margin: float = 0.95
) -> NonInferiority:
    groups = [str(place) for place in range(len(student))]
    retention = PairedComparison(
        [bool(grade) for grade in student], [bool(grade) for grade in expert], groups
    ).ratio()
    return non_inferiority(retention, len(student), margin)


@pytest.mark.parametrize(
    ("items", "verdict"),
    [(1, "not enough data"), (71, "not enough data"), (72, "yes"), (1000, "yes")],
)
def test_a_student_that_lost_nothing_needs_72_items_to_show_it(items: int, verdict: str) -> None:
    """1 − 0.025^(1/72) is the first to stay below a loss of 5 %."""
    found = judged([1.0] * items, [1.0] * items)
    assert found.verdict == verdict
    assert found.more_items == (None if verdict == "yes" else 72 - items)


@pytest.mark.parametrize(("items", "verdict"), [(1, "not enough data"), (6, "no"), (100, "no")])
def test_a_student_that_kept_nothing_is_not_settled_by_one_item(items: int, verdict: str) -> None:
    assert judged([0.0] * items, [1.0] * items).verdict == verdict


def test_one_loss_among_sixty_settles_nothing() -> None:
    """Resampling alone would reach down to 0.95 and say yes; the exact interval of 1 in 60 reaches
    down to 0.911.
    """
    found = judged([0.0] + [1.0] * 59, [1.0] * 60)
    assert found.verdict == "not enough data"
    assert found.low == pytest.approx(1 - 0.0894, abs=0.001)


def test_the_interval_has_to_lie_strictly_above_the_margin() -> None:
    found = judged([1.0] * 72, [1.0] * 72)
    assert found.verdict == "yes" and found.low is not None
    assert judged([1.0] * 72, [1.0] * 72, margin=found.low).verdict == "not enough data"


def test_gains_make_up_for_few_losses() -> None:
    assert judged([1.0] * 40, [1.0] * 10 + [0.0] * 30).verdict == "yes"


def test_a_retention_that_is_undefined_has_no_verdict() -> None:
    found = judged([1.0, 0.0], [0.0, 0.0])
    assert (found.verdict, found.low, found.more_items) == ("undefined", None, None)


BOTH_RIGHT, LOST, GAINED, BOTH_WRONG = (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0)
PILOT = [BOTH_RIGHT] * 246 + [LOST] * 9 + [GAINED] * 3 + [BOTH_WRONG] * 42
"""Grades of student and expert: 249/255 of the expert are kept, 97.6 %."""


def test_the_items_that_are_asked_for_settle_it_four_times_in_five() -> None:
    def judge(pairs: list[tuple[float, float]]) -> NonInferiority:
        return judged([student for student, _ in pairs], [expert for _, expert in pairs])

    more = judge(PILOT).more_items
    assert more is not None
    rng = np.random.default_rng(0)
    samples = [
        [PILOT[place] for place in rng.integers(0, len(PILOT), len(PILOT) + more)]
        for _ in range(100)
    ]
    assert (
        0.68 <= np.mean([judge(sample).verdict == "yes" for sample in samples]) <= 0.92
    )  # 80 % and three standard errors


def test_a_verdict_is_seldom_wrong() -> None:
    """A student that keeps exactly the margin is called sufficient in at most about 2.5 % of the
    cases.
    """
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        expert = [1.0] * 150
        student = [float(value) for value in rng.random(150) >= 0.05]
        wrong += judged(student, expert).verdict == "yes"
    assert wrong / 200 <= 0.058  # 2.5 % and three standard errors
