"""Metrics: how right an answer is, and how well it holds together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from domainfusion.distillation.metrics.metric import (
    AccuracyMetric,
    BatchCoherence,
    BatchMetric,
    CoherenceMetric,
    Graded,
    Metric,
    MetricChoice,
    ModelMetric,
    is_extraction_failure,
    not_extracted,
)
from domainfusion.distillation.metrics.overlap import TokenF1, token_f1
from domainfusion.distillation.metrics.stating import Contains, Exact, stated_parts
from domainfusion.distillation.metrics.surface import surface_coherence
from domainfusion.distillation.metrics.text import normalize, sentences, states

if TYPE_CHECKING:
    from domainfusion.distillation.metrics.choice import LikelyChoice, NamedChoice
    from domainfusion.distillation.metrics.embedding import EmbeddingSimilarity
    from domainfusion.distillation.metrics.grading import check_metric, grade, grade_coherence, grade_texts, name_of
    from domainfusion.distillation.metrics.judge import Comparison, Judge, JudgeAgreement, Pair, judge_agreement
    from domainfusion.distillation.metrics.judged_coherence import JudgedCoherence
    from domainfusion.distillation.metrics.named import metric_named
    from domainfusion.distillation.metrics.numeric import Numeric
    from domainfusion.distillation.metrics.rouge import RougeL, rouge_l

__all__ = [
    "AccuracyMetric",
    "BatchCoherence",
    "BatchMetric",
    "CoherenceMetric",
    "Comparison",
    "Contains",
    "EmbeddingSimilarity",
    "Exact",
    "Graded",
    "Judge",
    "JudgeAgreement",
    "JudgedCoherence",
    "LikelyChoice",
    "Metric",
    "MetricChoice",
    "ModelMetric",
    "NamedChoice",
    "Numeric",
    "Pair",
    "RougeL",
    "TokenF1",
    "check_metric",
    "grade",
    "grade_coherence",
    "grade_texts",
    "is_extraction_failure",
    "judge_agreement",
    "metric_named",
    "name_of",
    "normalize",
    "not_extracted",
    "rouge_l",
    "sentences",
    "stated_parts",
    "states",
    "surface_coherence",
    "token_f1",
]

_HOMES = {
    "Comparison": "judge",
    "EmbeddingSimilarity": "embedding",
    "Judge": "judge",
    "JudgeAgreement": "judge",
    "JudgedCoherence": "judged_coherence",
    "LikelyChoice": "choice",
    "NamedChoice": "choice",
    "Numeric": "numeric",
    "Pair": "judge",
    "RougeL": "rouge",
    "check_metric": "grading",
    "grade": "grading",
    "grade_coherence": "grading",
    "grade_texts": "grading",
    "judge_agreement": "judge",
    "metric_named": "named",
    "name_of": "grading",
    "rouge_l": "rouge",
}
"""What brings a library along that reading texts does not need; it is loaded when it is asked for."""


def __getattr__(name: str) -> Any:
    """Loads a name's module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
