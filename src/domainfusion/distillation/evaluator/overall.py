"""The weighted overall score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from domainfusion.distillation.results import Coherence, Component, DomainRetention, Estimate, OverallScore
from domainfusion.errors import ConfigurationError

WEIGHTS: Mapping[str, float] = {"DER": 0.5, "CDA": 0.3, "IC": 0.2}
"""What each figure weighs where nobody says: a convention, which every report states."""


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Returns the weights that are not 0, scaled to a sum of 1.

    Raises:
        ConfigurationError: One is not of a known figure, is negative, or all are 0.
    """
    strange = [name for name, weight in weights.items() if name not in WEIGHTS or not (isfinite(weight) and weight >= 0)]
    if strange or not sum(weights.values()) > 0:
        raise ConfigurationError(
            "These are no weights of an overall score",
            received=dict(weights),
            allowed=f"numbers from 0, not all 0, for {', '.join(WEIGHTS)}",
        )
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items() if weight}


def overall(
    weights: Mapping[str, float], retention: Sequence[DomainRetention], cross_domain: Estimate, coherence: Coherence | None
) -> OverallScore:
    """Returns the weighted mean of what was found; undefined where a figure that has a weight is."""
    figures = {
        "DER": (_mean_retention(retention), "mean over the domains, each counted up to 1"),
        "CDA": (cross_domain, "every part right"),
        "IC": _coherence(coherence),
    }
    components = tuple(
        Component(name=name, score=figures[name][0], weight=weight, about=figures[name][1]) for name, weight in weights.items()
    )
    missing = [part.name for part in components if part.score.value is None]
    if missing:
        return OverallScore(score=Estimate(value=None, reason=f"{' and '.join(missing)} undefined"), components=components)
    return OverallScore(score=Estimate(value=sum(part.weight * (part.score.value or 0.0) for part in components)), components=components)


def _mean_retention(rows: Sequence[DomainRetention]) -> Estimate:
    values = [row.retention.value for row in rows if row.retention.value is not None]
    if not rows or len(values) < len(rows):
        undefined = [row.domain for row in rows if row.retention.value is None]
        return Estimate(value=None, reason=f"DER is undefined in {', '.join(undefined)}" if undefined else "no domain was measured")
    return Estimate(value=sum(min(1.0, value) for value in values) / len(values))


def _coherence(found: Coherence | None) -> tuple[Estimate, str]:
    if found is None:
        return Estimate(value=None, reason="there are no cross-domain answers to measure"), ""
    if found.validated:
        return found.score, ""
    return found.score, f"its metric is {'not validated' if found.validation is None else 'validated in part'}"
