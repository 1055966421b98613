"""The tally: what is added up comes out as means per token, by term and by domain, and what there
is not is left out.
"""

from __future__ import annotations

import math

import pytest
import torch

from domainfusion.training.batching import Row
from domainfusion.training.objectives import Tally

NAN = math.nan
ROWS = [Row("r1", (1, 2, 3), 1, "a"), Row("r2", (1, 4), 1, "b"), Row("r3", (1, 5), 1, "a")]


def test_means_are_per_token_by_term_and_domain() -> None:
    tally = Tally()
    tally.add(
        ROWS, {"ce": torch.tensor([1.0, 2.0, 3.0, 6.0]), "kl": torch.tensor([NAN, 0.5, NAN, 0.1])}
    )
    found = tally.take()
    assert found["terms"] == {"ce": 3.0, "kl": pytest.approx(0.3)}
    assert found["domains"] == {
        "a": {"tokens": 3, "ce": 3.0, "kl": pytest.approx(0.3)},
        "b": {"tokens": 1, "ce": 3.0},
    }


def test_batches_in_parts_add_up_to_the_whole() -> None:
    whole, parts = Tally(), Tally()
    figures = torch.tensor([1.0, 2.0, 3.0, 6.0])
    whole.add(ROWS, {"ce": figures})
    parts.add(ROWS[:1], {"ce": figures[:2]})
    parts.add(ROWS[1:], {"ce": figures[2:]})
    assert whole.take() == parts.take()


def test_what_was_taken_is_gone() -> None:
    tally = Tally()
    tally.add(ROWS[:1], {"ce": torch.ones(2)})
    tally.take()
    assert tally.take() == {"terms": {}, "domains": {}}
