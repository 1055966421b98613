"""What a step cost, term by term and domain by domain, for the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from domainfusion.training.batching import Row


class Tally:
    """Adds up the loss terms of answer tokens until they are taken."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, tuple[float, int]]] = {}
        self._tokens: dict[str, int] = {}

    @classmethod
    def over(cls, tallies: Sequence[Tally]) -> Tally:
        """Returns what several tallies counted together."""
        whole = cls()
        for tally in tallies:
            for domain, sums in tally._sums.items():
                whole._tokens[domain] = whole._tokens.get(domain, 0) + tally._tokens[domain]
                for name, (total, count) in sums.items():
                    before = whole._sums.setdefault(domain, {}).get(name, (0.0, 0))
                    whole._sums[domain][name] = before[0] + total, before[1] + count
        return whole

    def add(self, rows: Sequence[Row], terms: Mapping[str, torch.Tensor]) -> None:
        """Adds the terms of a batch.

        Args:
            rows: The batch's rows, whose answer tokens follow each other.
            terms: One figure per answer token, of shape (answer tokens,); NaN where a token has no
                such term.
        """
        lengths = [len(row.answer) for row in rows]
        figures = {
            name: torch.split(term.detach().double().cpu(), lengths) for name, term in terms.items()
        }
        for place, row in enumerate(rows):
            self._tokens[row.domain] = self._tokens.get(row.domain, 0) + lengths[place]
            sums = self._sums.setdefault(row.domain, {})
            for name, parts in figures.items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (
                    total + float(parts[place].nansum()),
                    count + int((~parts[place].isnan()).sum()),
                )

    def take(self) -> dict[str, Any]:
        """Returns the means per token since it was last taken: `terms` over all, `domains` by
        domain with their answer tokens.

        A term that no token has is left out: it is not zero.
        """
        totals: dict[str, tuple[float, int]] = {}
        for sums in self._sums.values():
            for name, (total, count) in sums.items():
                before = totals.get(name, (0.0, 0))
                totals[name] = before[0] + total, before[1] + count
        domains = {
            domain: {"tokens": self._tokens[domain], **_means(sums)}
            for domain, sums in sorted(self._sums.items())
        }
        self._sums, self._tokens = {}, {}
        return {"terms": _means(totals), "domains": domains}


def _means(sums: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    return {name: total / count for name, (total, count) in sums.items() if count}
