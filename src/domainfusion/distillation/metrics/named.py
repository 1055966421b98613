"""Metrics by the names that recipes and examples know them by."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from domainfusion.distillation.metrics.metric import Metric
from domainfusion.errors import ConfigurationError

METRICS = {
    "stated_parts": "stating.stated_parts",
    "exact": "stating.Exact",
    "contains": "stating.Contains",
    "numeric": "numeric.Numeric",
    "choice": "choice.NamedChoice",
    "likelihood": "choice.LikelyChoice",
    "token_f1": "overlap.TokenF1",
    "rouge_l": "rouge.RougeL",
    "embedding": "embedding.EmbeddingSimilarity",
}
"""What a name stands for, loaded when it is asked for. A judge has no name: it needs a model."""


def metric_named(wanted: str | Mapping[str, Any]) -> Metric:
    """Returns a metric by its name, or by a mapping of its name and its settings.

    Raises:
        ConfigurationError: There is no metric of this name, or it does not have this setting.

    Example:
        >>> metric_named("exact"), metric_named({"name": "token_f1", "right_from": 0.8})
        (Exact(), TokenF1(right_from=0.8))
    """
    given = dict(wanted) if isinstance(wanted, Mapping) else {"name": wanted}
    name = str(given.pop("name", ""))
    if name not in METRICS:
        raise ConfigurationError("There is no metric of this name", received=name, allowed=", ".join(METRICS))
    module, attribute = METRICS[name].split(".")
    found = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    try:
        return cast(Metric, found(**given) if isinstance(found, type) or given else found)
    except TypeError as error:
        raise ConfigurationError(f"The metric {name} can't be made: {error}", received=given, fix="see docs/guides/metrics.md") from error
