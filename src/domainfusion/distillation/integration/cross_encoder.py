"""Verifying by a cross-encoder for natural language inference: does the answer entail each claim,
and do the claims entail the answer?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from domainfusion.distillation.integration.planning import Plan
from domainfusion.distillation.integration.verifying import (
    MOST_CHECKS,
    TOO_MANY,
    Check,
    VerifierFinding,
    checks_of,
    problem_of,
)
from domainfusion.distillation.integration.writing import Draft
from domainfusion.errors import ConfigurationError, MissingDependencyError, ModelError
from domainfusion.models.store import Ask

ENTAILMENT = "entailment"
"""The label, among those of the model's configuration, of what follows from a premise."""


@dataclass(frozen=True)
class CrossEncoderVerifier:
    """Verifies integrated answers with a cross-encoder for natural language inference (NLI), which
    runs on this machine.

    A claim is stated where a sentence of the answer, two in a row or the whole of it entails it; a
    sentence is founded where a claim, or all claims of an expert together, entail it. Small models
    of this kind miss conflicts and see some that are none, so a verdict leads to a repair and a
    mark, and `on_unverified` says what follows. Needs `domainfusion[embeddings]`.

    Args:
        model: A folder or hub id that sentence-transformers loads as a `CrossEncoder` with an
            entailment label, such as `cross-encoder/nli-deberta-v3-small`.
        threshold: The probability of entailment from which on it counts.

    Raises:
        ConfigurationError: The threshold is not between 0 and 1.
        MissingDependencyError: sentence-transformers is not installed.
    """

    model: str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigurationError(
                "threshold is out of range",
                received=self.threshold,
                allowed="a number between 0 and 1",
            )
        _library()

    def verify(
        self, plans: Sequence[Plan], drafts: Sequence[Draft], *, ask: Ask
    ) -> list[VerifierFinding]:
        """Returns a verdict on each draft; all pairs of texts are compared together.

        Raises:
            ModelError: The model can't be loaded, or has no entailment label.
        """
        checks = [checks_of(plan, draft) for plan, draft in zip(plans, drafts, strict=True)]
        premises = [
            {check.id: _premises(check, plan, listed) for check in listed}
            if len(listed) <= MOST_CHECKS
            else {}
            for plan, listed in zip(plans, checks, strict=True)
        ]
        pairs = [
            (premise, check.text)
            for listed, by_check in zip(checks, premises, strict=True)
            for check in listed
            for premise in by_check.get(check.id, ())
        ]
        entailed = _entailment(self.model, list(dict.fromkeys(pairs)))
        return [
            self._verdict(listed, by_check, entailed)
            for listed, by_check in zip(checks, premises, strict=True)
        ]

    def _verdict(
        self,
        checks: Sequence[Check],
        premises: dict[str, list[str]],
        entailed: dict[tuple[str, str], float],
    ) -> VerifierFinding:
        if len(checks) > MOST_CHECKS:
            return VerifierFinding((TOO_MANY,), is_given=False)
        problems = []
        for check in checks:
            if check.kind == "open":
                continue  # that experts are said to disagree is not a matter of entailment
            is_entailed = any(
                entailed[premise, check.text] >= self.threshold for premise in premises[check.id]
            )
            if is_entailed != (check.wanted == "yes"):
                problems.append(problem_of(check))
        return VerifierFinding(tuple(problems))


def _premises(check: Check, plan: Plan, checks: Sequence[Check]) -> list[str]:
    """Returns the texts of which one has to entail what is checked."""
    if check.kind == "supported":
        by_expert: dict[str, list[str]] = {}
        for claim in plan.claims:
            by_expert.setdefault(claim.domain, []).append(claim.quote)
        return [*(claim.quote for claim in plan.claims), *map(" ".join, by_expert.values())]
    answer = [other.text for other in checks if other.kind == "supported"]
    return [*answer, *map(" ".join, pairwise(answer)), " ".join(answer)]


def _entailment(model: str, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Returns the probability that the first text of each pair entails the second."""
    if not pairs:
        return {}
    encoder, label = _load(model)
    probabilities = encoder.predict(list(pairs), apply_softmax=True, show_progress_bar=False)
    return {pair: float(row[label]) for pair, row in zip(pairs, probabilities, strict=True)}


@lru_cache(maxsize=2)
def _load(model: str) -> tuple[Any, int]:
    """Returns a cross-encoder and the place of its entailment label."""
    try:
        encoder = _library().CrossEncoder(model)
        labels = {
            str(name).casefold(): int(place) for place, name in encoder.config.id2label.items()
        }
    except (
        Exception
    ) as error:  # whatever the libraries below it raise for a folder or a hub id that is none
        raise ModelError(
            f"The cross-encoder can't be loaded: {error}",
            received=model,
            allowed="a folder or hub id that sentence-transformers loads",
        ) from error
    if ENTAILMENT not in labels:
        raise ModelError(
            "The cross-encoder has no entailment label",
            received=sorted(labels),
            fix="give one for natural language inference",
        )
    return encoder, labels[ENTAILMENT]


def _library() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingDependencyError(
            "A cross-encoder needs sentence-transformers",
            fix='run: pip install "domainfusion[embeddings]"',
        ) from error
    return sentence_transformers
