"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable

from domainfusion.types import Example, Score

AccuracyMetric = Callable[[Example, str], Score]
"""Grades an answer to an example. A metric of your own is any function of this shape."""

CoherenceMetric = Callable[[str], Score]
"""Grades how well a text holds together."""
