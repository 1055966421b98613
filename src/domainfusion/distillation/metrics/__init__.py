"""Metrics: how right an answer is, and how well it holds together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from domainfusion.distillation.metrics.accuracy import (
    Contains,
    Exact,
    TokenF1,
    stated_parts,
    token_f1,
)
from domainfusion.distillation.metrics.metric import (
    AccuracyMetric,
    BatchCoherence,
    BatchMetric,
    CoherenceMetric,
    Graded,
    Metric,
    MetricChoice,
    ModelMetric,
)
from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.statements import states
from domainfusion.distillation.text.words import normalize

if TYPE_CHECKING:
    from domainfusion.distillation.metrics.accuracy import RougeL, rouge_l
    from domainfusion.distillation.metrics.choice import LikelyChoice, NamedChoice
    from domainfusion.distillation.metrics.continuity import ModelCoherence
    from domainfusion.distillation.metrics.embedding import EmbeddingSimilarity
    from domainfusion.distillation.metrics.grading import (
        check_metric,
        grade,
        grade_coherence,
        grade_texts,
        measures_overlap,
        metric_named,
        name_of,
        reads_texts,
    )
    from domainfusion.distillation.metrics.judge import (
        AnswerPair,
        Judge,
        JudgeAgreement,
        JudgedCoherence,
        JudgedConsistency,
        PairVerdict,
        judge_agreement,
    )
    from domainfusion.distillation.metrics.numeric import Numeric
    from domainfusion.distillation.metrics.validation import (
        Passage,
        known_validation,
        read_passages,
        validate_coherence,
    )

__all__ = [
    "AccuracyMetric",
    "AnswerPair",
    "BatchCoherence",
    "BatchMetric",
    "CoherenceMetric",
    "Contains",
    "EmbeddingSimilarity",
    "Exact",
    "Graded",
    "Judge",
    "JudgeAgreement",
    "JudgedCoherence",
    "JudgedConsistency",
    "LikelyChoice",
    "Metric",
    "MetricChoice",
    "ModelCoherence",
    "ModelMetric",
    "NamedChoice",
    "Numeric",
    "PairVerdict",
    "Passage",
    "RougeL",
    "TokenF1",
    "check_metric",
    "grade",
    "grade_coherence",
    "grade_texts",
    "judge_agreement",
    "known_validation",
    "measures_overlap",
    "metric_named",
    "name_of",
    "normalize",
    "read_passages",
    "reads_texts",
    "rouge_l",
    "sentences",
    "stated_parts",
    "states",
    "token_f1",
    "validate_coherence",
]

_HOMES = {
    "PairVerdict": "judge",
    "EmbeddingSimilarity": "embedding",
    "Judge": "judge",
    "JudgeAgreement": "judge",
    "JudgedCoherence": "judge",
    "JudgedConsistency": "judge",
    "LikelyChoice": "choice",
    "ModelCoherence": "continuity",
    "NamedChoice": "choice",
    "Numeric": "numeric",
    "AnswerPair": "judge",
    "Passage": "validation",
    "RougeL": "accuracy",
    "check_metric": "grading",
    "grade": "grading",
    "grade_coherence": "grading",
    "grade_texts": "grading",
    "judge_agreement": "judge",
    "known_validation": "validation",
    "measures_overlap": "grading",
    "metric_named": "grading",
    "name_of": "grading",
    "read_passages": "validation",
    "reads_texts": "grading",
    "rouge_l": "accuracy",
    "validate_coherence": "validation",
}
"""What brings a library along that reading texts does not need; it is loaded when it is asked
for.
"""


def __getattr__(name: str) -> Any:
    """Loads a name's module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
