"""Metrics: how right an answer is, and how well it holds together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domainfusion.distillation.metrics.accuracy import (
    AccuracyMetric,
    BatchCoherence,
    BatchMetric,
    CoherenceMetric,
    Contains,
    Exact,
    Graded,
    Metric,
    MetricChoice,
    ModelMetric,
    TokenF1,
    stated_parts,
    token_f1,
)
from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.statements import states
from domainfusion.distillation.text.words import normalize
from domainfusion.lazy import lazy_names

if TYPE_CHECKING:
    from domainfusion.distillation.metrics.accuracy import EmbeddingSimilarity, RougeL, rouge_l
    from domainfusion.distillation.metrics.coherence import (
        ModelCoherence,
        Passage,
        ValidatedCoherence,
        read_passages,
        validate_coherence,
    )
    from domainfusion.distillation.metrics.grading import (
        grade,
        measures_overlap,
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
    from domainfusion.distillation.metrics.numeric import LikelyChoice, NamedChoice, Numeric

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
    "ValidatedCoherence",
    "grade",
    "judge_agreement",
    "measures_overlap",
    "normalize",
    "read_passages",
    "rouge_l",
    "sentences",
    "stated_parts",
    "states",
    "token_f1",
    "validate_coherence",
]

__getattr__, __dir__ = lazy_names(__name__)
