"""Metrics: how right an answer is, and how well it holds together."""

from domainfusion.distillation.metrics.metric import AccuracyMetric, CoherenceMetric
from domainfusion.distillation.metrics.overlap import token_f1
from domainfusion.distillation.metrics.stating import stated_parts
from domainfusion.distillation.metrics.surface import surface_coherence
from domainfusion.distillation.metrics.text import normalize, sentences, states

__all__ = ["AccuracyMetric", "CoherenceMetric", "normalize", "sentences", "stated_parts", "states", "surface_coherence", "token_f1"]
