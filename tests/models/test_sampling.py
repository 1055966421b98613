"""Laws of the sampler: its draws follow the softmax, each row from a stream of its own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.models.generation import RowSampler
from domainfusion.types import Sampling

LOGITS = torch.tensor([1.2, 0.3, -0.5, 2.0, -3.0, 0.0])
DRAWS = 40_000


def draw(sampling: Sampling, count: int = DRAWS, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    """Returns how often each token is drawn, by 2,000 rows that each draw several times."""
    rows = 2000
    sampler = RowSampler(sampling, range(rows))
    chosen = [
        sampler(torch.zeros(rows, 1, dtype=torch.long), logits.expand(rows, -1)).argmax(-1)
        for _ in range(count // rows)
    ]
    return torch.bincount(torch.cat(chosen), minlength=len(logits)) / count


def five_standard_errors(shares: torch.Tensor, count: int = DRAWS) -> torch.Tensor:
    """The tolerance: a right sampler is outside of it for one token in 1.7 million."""
    return 5 * (shares * (1 - shares) / count).sqrt() + 1e-9


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(-1)
    shares = draw(Sampling(temperature=temperature))
    assert ((shares - expected).abs() <= five_standard_errors(expected)).all()


@pytest.mark.parametrize(("top_p", "kept"), [(0.99, 5), (0.75, 2), (0.5, 1), (1e-6, 1)])
def test_draws_follow_the_softmax_of_the_tokens_that_top_p_keeps(top_p: float, kept: int) -> None:
    probabilities = LOGITS.softmax(-1)
    tokens = probabilities.sort(descending=True).indices[:kept]
    assert (
        probabilities[tokens].sum() >= top_p > probabilities[tokens[:-1]].sum()
    )  # the case is what it claims to be
    expected = torch.zeros_like(probabilities)
    expected[tokens] = probabilities[tokens] / probabilities[tokens].sum()
    shares = draw(Sampling(temperature=1.0, top_p=top_p))
    assert ((shares - expected).abs() <= five_standard_errors(expected)).all()
    assert (shares[expected == 0] == 0).all()


@given(
    st.lists(st.integers(-60, 60), min_size=1, max_size=20, unique=True).map(
        lambda tenths: torch.tensor(tenths) / 10
    ),
    st.floats(0.01, 0.99),
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(logits: torch.Tensor, top_p: float) -> None:
    noisy = RowSampler(Sampling(temperature=1.0, top_p=top_p), [0])(
        torch.zeros(1, 1, dtype=torch.long), logits[None]
    )
    kept = torch.isfinite(noisy[0])
    probabilities = logits.double().softmax(-1)
    assert probabilities[kept].sum() >= top_p - 1e-6
    assert probabilities[kept].sum() - probabilities[kept].min() < top_p + 1e-6
    assert kept.all() or probabilities[kept].min() > probabilities[~kept].max()


def test_a_top_p_of_one_keeps_every_token() -> None:
    logits = torch.tensor([[0.0, -20.0, -80.0]])
    assert torch.isfinite(
        RowSampler(Sampling(temperature=1.0), [0])(torch.zeros(1, 1, dtype=torch.long), logits)
    ).all()


def test_a_row_draws_the_same_whatever_stands_beside_it() -> None:
    ids = torch.zeros(3, 1, dtype=torch.long)
    together = RowSampler(Sampling(temperature=1.0), [7, 8, 9])
    alone = RowSampler(Sampling(temperature=1.0), [8])
    for _ in range(3):
        assert torch.equal(together(ids, LOGITS.expand(3, -1))[1], alone(ids[:1], LOGITS[None])[0])


def test_rows_steps_and_seeds_draw_differently() -> None:
    ids, sampler = (
        torch.zeros(2, 1, dtype=torch.long),
        RowSampler(Sampling(temperature=1.0), [1, 2]),
    )
    first, second = sampler(ids, LOGITS.expand(2, -1)), sampler(ids, LOGITS.expand(2, -1))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_the_global_stream_of_random_numbers_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    draw(Sampling(temperature=1.0), 2000)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_token_that_is_forbidden_is_never_drawn() -> None:
    logits = LOGITS.clone()
    logits[3] = float("-inf")
    assert draw(Sampling(temperature=5.0), 4000, logits)[3] == 0


def test_logits_of_half_precision_are_drawn_from_in_full() -> None:
    sampler = RowSampler(Sampling(temperature=1.0), [0])
    assert (
        sampler(torch.zeros(1, 1, dtype=torch.long), LOGITS[None].bfloat16()).dtype == torch.float32
    )
