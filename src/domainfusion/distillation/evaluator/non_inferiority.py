"""Whether the interval of a retention settles that the student keeps enough of its expert, and how much data is missing if not."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log
from statistics import NormalDist

import numpy as np

from domainfusion.distillation.results import Estimate, NonInferiority
from domainfusion.distillation.statistics import FEW, Bootstrap, most_probable_share

METHOD = (
    "The 95 % interval of DER, a ratio of means, by the paired bootstrap over clusters. Where fewer than 5 of the clusters that the expert "
    "gets right were lost (or kept), the interval reaches as far beyond DER as the exact interval of their share does (Clopper and "
    "Pearson, 1934). Items needed: n · ((z₀.₉₇₅ + z₀.₈₀) · SE / |DER − margin|)², the sample size of a non-inferiority trial with 80 % "
    "power (Julious, 2004, Statistics in Medicine 23:1921), SE being the width of the bootstrap interval over 2 z₀.₉₇₅; where few "
    "were lost, at least as many as bring the exact interval to the margin."
)

_CONFIDENCE = NormalDist().inv_cdf(0.975)
_POWER = NormalDist().inv_cdf(0.8)


def non_inferiority(
    bootstrap: Bootstrap, student: Sequence[float], expert: Sequence[float], retention: Estimate, margin: float
) -> NonInferiority:
    """Holds a retention against its margin.

    Args:
        bootstrap: Resamples the items.
        student: The student's grade of each item.
        expert: The expert's.
        retention: DER over these items.
        margin: The share of the expert that has to be kept.
    """
    if retention.value is None or retention.low is None or retention.high is None:
        return NonInferiority(margin=margin, verdict="undefined", method=METHOD)
    mine, theirs = bootstrap.per_cluster(student), bootstrap.per_cluster(expert)
    known = theirs > 0
    clusters = int(known.sum())
    lost, kept = int((mine < theirs)[known].sum()), int((mine > 0)[known].sum())
    low, high = retention.low, retention.high
    if lost < FEW:
        low = min(low, retention.value - (most_probable_share(lost, clusters) - lost / clusters))
    if kept < FEW:
        high = max(high, retention.value + (most_probable_share(kept, clusters) - kept / clusters))
    if low >= margin or high < margin:
        return NonInferiority(margin=margin, verdict="yes" if low >= margin else "no", low=low, high=high, method=METHOD)
    gap = retention.value - margin
    needed = len(student) * ((_CONFIDENCE + _POWER) * (retention.high - retention.low) / (2 * _CONFIDENCE) / abs(gap)) ** 2 if gap else 0.0
    few = lost if gap > 0 else kept
    if few < FEW and gap:
        needed = max(needed, len(student) / clusters * _clusters_needed(few / clusters, abs(gap)))
    return NonInferiority(
        margin=margin,
        verdict="not enough data",
        low=low,
        high=high,
        more_items=max(1, ceil(needed) - len(student)) if gap else None,
        method=METHOD,
    )


def _clusters_needed(share: float, gap: float) -> float:
    """Returns how many clusters bring the interval of a share to within `gap` of it: exactly for a share of 0, else by the score test."""
    limit = share + gap
    if limit >= 1:
        return 1.0
    if not share:
        return log(0.025) / log(1 - limit)
    return float((_CONFIDENCE + _POWER) ** 2 * limit * (1 - limit) / np.square(gap))
