"""Laws of the sampler: its draws follow the softmax, each row from a stream of its own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.models.decoding import RowSampler, nucleus
from domainfusion.types import Sampling

LOGITS = torch.tensor([1.2, 0.3, -0.5, 2.0, -3.0, 0.0])
DRAWS = 40_000


def draw(sampling: Sampling, count: int = DRAWS, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    """Returns how often each token is drawn, by 2,000 rows that each draw several times."""
    rows = 2000
    sampler = RowSampler(sampling, range(rows))
    chosen = [sampler.draw(logits.expand(rows, -1), range(rows)) for _ in range(count // rows)]
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
    shares, tokens = nucleus(logits[None].softmax(-1), top_p)
    kept = torch.zeros(len(logits), dtype=torch.bool)
    kept[tokens[shares > 0]] = True
    probabilities = logits.double().softmax(-1)
    assert probabilities[kept].sum() >= top_p - 1e-6
    assert probabilities[kept].sum() - probabilities[kept].min() < top_p + 1e-6
    assert kept.all() or probabilities[kept].min() > probabilities[~kept].max()


def test_a_nucleus_wider_than_the_tokens_looked_at_first_is_found_whole() -> None:
    logits = torch.linspace(0, 1, 5000)[None]  # nearly flat
    shares, tokens = nucleus(torch.cat([logits, -5 * logits]).softmax(-1), 0.9)
    kept = (shares > 0).sum(-1)
    ordered = torch.cat([logits, -5 * logits]).double().softmax(-1).sort(-1, descending=True)
    assert 64 < kept[1] < kept[0] < 5000
    for row, count in enumerate(kept.tolist()):
        assert ordered.values[row, :count].sum() == pytest.approx(0.9, abs=1e-3)
        assert set(tokens[row, :count].tolist()) == set(ordered.indices[row, :count].tolist())


def test_a_row_draws_the_same_whatever_stands_beside_it() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    for top_p in (1.0, 0.9):
        together = RowSampler(Sampling(temperature=1.0, top_p=top_p), [7, 8, 9])
        alone = RowSampler(Sampling(temperature=1.0, top_p=top_p), [8])
        first = [together.draw(own.expand(3, -1), [0, 1, 2])[1] for own in logits[:2]]
        later = [together.draw(own.expand(2, -1), [2, 1])[1] for own in logits[2:]]
        assert [*first, *later] == [alone.draw(own[None], [0])[0] for own in logits]


def test_rows_steps_and_seeds_draw_differently() -> None:
    flat = torch.zeros(2, 10**6)
    sampler = RowSampler(Sampling(temperature=1.0), [1, 2])
    drawn = torch.cat([sampler.draw(flat, [0, 1]), sampler.draw(flat, [0, 1])])
    assert len(set(drawn.tolist())) == 4


def test_the_global_stream_of_random_numbers_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    draw(Sampling(temperature=1.0), 2000)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_token_that_is_forbidden_is_never_drawn() -> None:
    logits = LOGITS.clone()
    logits[3] = float("-inf")
    assert draw(Sampling(temperature=5.0), 4000, logits)[3] == 0


def test_the_logits_for_transformers_leave_what_is_drawn() -> None:
    logits = LOGITS.expand(3, -1)
    drawn = RowSampler(Sampling(temperature=1.0), [1, 2, 3]).draw(logits, range(3))
    left = RowSampler(Sampling(temperature=1.0), [1, 2, 3])(torch.zeros(3, 1).long(), logits)  # type: ignore[arg-type]
    assert torch.equal(left.argmax(-1), drawn)
    assert (left.isfinite().sum(-1) == 1).all()


@pytest.mark.parametrize("temperature", [1e-30, 1e-3])
def test_a_low_temperature_draws_the_likeliest(temperature: float) -> None:
    for logits in (LOGITS, LOGITS.bfloat16()):
        sampler = RowSampler(Sampling(temperature=temperature), [0])
        assert sampler.draw(logits[None] * 100, [0]).tolist() == [3]


def test_logits_of_half_precision_are_drawn_from_in_full() -> None:
    """Where probabilities were in bfloat16, most of a thousand equal tokens would never be
    drawn.
    """
    flat = torch.zeros(2000, 1000, dtype=torch.bfloat16)
    drawn = RowSampler(Sampling(temperature=1.0), range(2000)).draw(flat, range(2000))
    assert len(set(drawn.tolist())) > 800  # of 1000 · (1 − e⁻²) = 865
