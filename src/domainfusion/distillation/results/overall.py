"""One score for the whole student, with the weights and components that make it."""

from __future__ import annotations

from dataclasses import dataclass

from domainfusion.distillation.results.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One of the figures that an overall score is made of.

    Attributes:
        name: `DER`, `CDA` or `IC`.
        score: The figure.
        weight: Its weight; the weights of all components sum to 1.
        about: What it is, and what a reader has to know about it.
    """

    name: str
    score: Estimate
    weight: float
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverallScore:
    """The weighted mean of retention, cross-domain accuracy and coherence.

    Attributes:
        score: The weighted mean; undefined where a component is that has a weight.
        components: What it is made of.
    """

    score: Estimate
    components: tuple[Component, ...]
