"""Which domains an example needs: every combination in turn, each of its domains leading in
turn.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence


def combinations_in_turn(domains: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yields combinations of domains without end, the primary domain first.

    Sizes take turns. Of each size every combination comes once before any comes again; each time
    another of its domains leads, and the leads are as even as that allows.

    Args:
        domains: The domains.
        sizes: How many of them a combination has.

    Example:
        >>> [" ".join(found) for found in itertools.islice(combinations_in_turn("abc", [2]), 6)]
        ['a b', 'c a', 'b c', 'b a', 'a c', 'c b']
    """
    leads: Counter[str] = Counter()
    streams = [_of_size(domains, size, leads) for size in sizes]
    for stream in itertools.cycle(streams):
        yield next(stream)


def _of_size(domains: Sequence[str], size: int, leads: Counter[str]) -> Iterator[tuple[str, ...]]:
    combinations = list(itertools.combinations(domains, size))
    left = {combination: list(combination) for combination in combinations}
    for combination in itertools.cycle(combinations):
        waiting = left[combination]
        lead = min(waiting, key=lambda domain: leads[domain])
        waiting.remove(lead)
        left[combination] = waiting or list(combination)
        leads[lead] += 1
        yield (lead, *(domain for domain in combination if domain != lead))
