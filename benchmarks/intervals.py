"""What the intervals of DER are worth: how often they hold the truth, and how often a student
passes that should not.

Answers of student and expert are drawn with a known DER, and the interval is the one that reports
print (`domainfusion.distillation.statistics.PairedComparison`). The expert gets 90 % right; the
student gains 2 % of the items that the expert misses. Beside it stands the percentile bootstrap of
the same answers. Clustered items come in fours, as phrasings of one fact: half of the facts have
one outcome for all four.

    python benchmarks/intervals.py --write

writes `intervals.json` and `intervals.md` beside this file; without `--write` it prints. Seed 0,
two minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from domainfusion.distillation.statistics import TAIL, PairedComparison
from domainfusion.records import write_text

HERE = Path(__file__).parent
COMMAND = "python benchmarks/intervals.py --write"
SIZES = (30, 100, 200, 300, 1000)
RETENTIONS = (0.90, 0.95, 0.97, 0.99, 1.00)
MARGIN = 0.95
EXPERT, GAINED = 0.9, 0.02
PER_FACT, ALIKE = 4, 0.5
RESAMPLES = 1000


class Rates(NamedTuple):
    """Shares of the draws.

    Attributes:
        covered: The interval holds the true DER.
        above: The interval lies wholly above the true DER: the student would pass a margin that it
            just misses.
        passes: The interval lies wholly above 0.95.
    """

    covered: float
    above: float
    passes: float


def shares_of(retention: float) -> list[float]:
    """Returns the chances of both right, lost, gained, and neither."""
    both = retention * EXPERT - GAINED
    return [both, EXPERT - both, GAINED, 1 - EXPERT - GAINED]


def comparison(counts: Iterable[int], clusters: list[str] | None = None) -> PairedComparison:
    """Returns the comparison of answers with these counts."""
    both, lost, gained, neither = counts
    student = [True] * both + [False] * lost + [True] * gained + [False] * neither
    expert = [True] * (both + lost) + [False] * (gained + neither)
    return PairedComparison(
        student, expert, clusters or [str(place) for place in range(len(student))]
    )


def exact(size: int, retention: float, draws: int, rng: np.random.Generator) -> Rates:
    """Draws independent answers."""
    drawn = rng.multinomial(size, shares_of(retention), size=draws)
    kinds, times = np.unique(drawn, axis=0, return_counts=True)
    return rates([comparison(counts) for counts in kinds], times, retention)


def clustered(size: int, retention: float, draws: int, rng: np.random.Generator) -> Rates:
    """Draws answers to facts with several phrasings each; `size` is the number of answers."""
    facts = -(-size // PER_FACT)
    found = []
    for _ in range(draws):
        one = rng.choice(4, size=(facts, 1), p=shares_of(retention))
        each = rng.choice(4, size=(facts, PER_FACT), p=shares_of(retention))
        kinds = np.where(rng.random((facts, 1)) < ALIKE, one, each).ravel()
        names = [str(place // PER_FACT) for place in range(kinds.size)]
        found.append(PairedComparison((kinds % 2 == 0).tolist(), (kinds < 2).tolist(), names))
    return rates(found, np.ones(draws), retention)


def rates(found: list[PairedComparison], times: np.ndarray, retention: float) -> Rates:
    """Counts how often the interval holds the truth, lies above it, and lies above the margin."""
    at_truth = np.array([one.p_values(retention) for one in found])
    at_margin = np.array([one.p_values(MARGIN)[0] for one in found])
    above, below = at_truth[:, 0] < TAIL, at_truth[:, 1] < TAIL
    total = times.sum()
    return Rates(
        covered=float(times @ ~(above | below) / total),
        above=float(times @ above / total),
        passes=float(times @ (at_margin < TAIL) / total),
    )


def bootstrap(size: int, retention: float, draws: int, rng: np.random.Generator) -> Rates:
    """Draws independent answers and takes percentile intervals of the paired bootstrap."""
    ends = []
    for counts in rng.multinomial(size, shares_of(retention), size=draws):
        both, lost, gained, _ = rng.multinomial(size, counts / size, size=RESAMPLES).T
        ends.append(np.quantile((both + gained) / np.maximum(1, both + lost), [TAIL, 1 - TAIL]))
    low, high = np.array(ends).T
    held = (low <= retention) & (retention <= high)
    return Rates(float(held.mean()), float((low > retention).mean()), float((low > MARGIN).mean()))


METHODS = {
    "exact": exact,
    "exact, four phrasings a fact": clustered,
    "percentile bootstrap": bootstrap,
}


def measure(draws: int) -> dict[str, dict[str, Rates]]:
    """Returns the rates by method and by size and DER."""
    found: dict[str, dict[str, Rates]] = {}
    for name, method in METHODS.items():
        rng = np.random.default_rng(0)
        fewer = draws // 4 if method is clustered else draws
        found[name] = {
            f"{size}, {retention:.2f}": method(size, retention, fewer, rng)
            for size in SIZES
            for retention in RETENTIONS
        }
    return found


def render(found: dict[str, dict[str, Rates]], about: dict[str, str]) -> str:
    """Returns the tables."""
    lines = ["# What the intervals of DER are worth", ""]
    lines += [" ".join((__doc__ or "").split("\n\n")[1].split()), ""]
    titles = {
        "above": "False yes: the interval lies wholly above the true DER (aimed at: 0.025 at most)",
        "covered": "The interval holds the true DER (aimed at: 0.95 at least)",
        "passes": (
            "Yes: the interval lies wholly above 0.95. At a DER of 0.90 and 0.95 this is false,"
            " above it is power"
        ),
    }
    for field, title in titles.items():
        lines += [
            f"## {title}",
            "",
            f"| method | questions | {' | '.join(f'DER {one:.2f}' for one in RETENTIONS)} |",
        ]
        lines += [f"|---|---|{'---|' * len(RETENTIONS)}"]
        for name, cells in found.items():
            for size in SIZES:
                values = [
                    f"{getattr(cells[f'{size}, {one:.2f}'], field):.3f}" for one in RETENTIONS
                ]
                lines.append(f"| {name} | {size:,} | {' | '.join(values)} |")
        lines.append("")
    lines += [
        about["draws"],
        f"{about['date']}; {about['machine']}; {about['versions']}.",
        f"`{COMMAND}`",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    parser.add_argument("--draws", type=int, default=4000, help="test sets drawn for each cell")
    arguments = parser.parse_args()
    found = measure(arguments.draws)
    error = (TAIL * (1 - TAIL) / arguments.draws) ** 0.5
    about = {
        "draws": (
            f"{arguments.draws:,} test sets a cell, a quarter with clusters; the standard error of"
            f" a rate of 0.025 is {error:.4f} ({2 * error:.4f} with clusters). Seed 0."
        ),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} on {platform.machine()}",
        "versions": (
            f"Python {platform.python_version()}, numpy {version('numpy')}, scipy"
            f" {version('scipy')}"
        ),
    }
    text = render(found, about)
    print(text)
    if arguments.write:
        plain = {
            name: {key: rate._asdict() for key, rate in cells.items()}
            for name, cells in found.items()
        }
        write_text(
            HERE / "intervals.json",
            json.dumps({**about, "command": COMMAND, "results": plain}, indent=1) + "\n",
        )
        write_text(HERE / "intervals.md", text)


if __name__ == "__main__":
    main()
