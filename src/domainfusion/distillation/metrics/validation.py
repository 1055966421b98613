"""Measures a coherence metric: can it tell sound texts from corrupted ones?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources

from pydantic import TypeAdapter

from domainfusion.distillation.metrics.corruptions import Passage, corrupt
from domainfusion.distillation.metrics.grading import grade_coherence, name_of
from domainfusion.distillation.metrics.metric import BatchCoherence, CoherenceMetric
from domainfusion.distillation.metrics.passages import read_passages
from domainfusion.distillation.results import CoherenceValidation, Estimate
from domainfusion.distillation.statistics import Resampling
from domainfusion.errors import DataError
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import fingerprint


def validate_coherence(
    metric: CoherenceMetric | BatchCoherence,
    passages: Sequence[Passage] | None = None,
    *,
    ask: Ask = ask_directly,
    seed: int = 0,
    resamples: int = 10_000,
    command: str = "",
) -> CoherenceValidation:
    """Measures how well a coherence metric tells sound texts from shuffled, contradicted, looped,
    truncated and concatenated ones.

    Args:
        metric: The metric.
        passages: The sound texts; by default the held-out ones, which no metric here was made on.
        ask: How a judge is called.
        seed: Seed of the corruptions and the bootstrap.
        resamples: Bootstrap resamples behind the 95 % intervals; a passage is resampled with all
            its versions.
        command: What measures, for the record.

    Returns:
        The AUROC on each corruption, with its interval.

    Raises:
        DataError: There are fewer than two passages.
    """
    sound = read_passages("held_out") if passages is None else tuple(passages)
    if len(sound) < 2:
        raise DataError(
            "There are too few texts to measure a metric on",
            received=len(sound),
            allowed="two or more",
        )
    corrupted = corrupt(sound, seed=seed)
    texts = [passage.text for passage in sound] + [
        text for texts in corrupted.values() for text in texts if text is not None
    ]
    grades = iter(score.value for score in grade_coherence(metric, texts, ask=ask))
    whole = [next(grades) for _ in sound]
    resampling = Resampling(resamples=resamples, seed=seed)
    found: dict[str, Estimate] = {}
    unscored = sum(grade is None for grade in whole)
    for name, versions in corrupted.items():
        broken = [next(grades) if version is not None else None for version in versions]
        unscored += sum(
            grade is None and version is not None
            for grade, version in zip(broken, versions, strict=True)
        )
        pairs = enumerate(zip(whole, broken, strict=True))
        found[name] = _auroc(
            resampling,
            [
                (str(i), one, other)
                for i, (one, other) in pairs
                if one is not None and other is not None
            ],
        )
    return CoherenceValidation(
        metric=name_of(metric),
        auroc=found,
        texts=len(sound),
        text_set=fingerprint(sound),
        seed=seed,
        unscored=unscored,
        date=datetime.now(UTC).date().isoformat(),
        command=command,
        meant=tuple(getattr(metric, "sees", ())),
    )


def known_validation(metric: CoherenceMetric | BatchCoherence) -> CoherenceValidation | None:
    """Returns what was measured of a metric of this package, as `benchmarks/coherence.py` keeps it;
    None for any other.

    A metric that looks through a model is another one with another model.
    """
    return next((found for found in _measured() if found.metric == name_of(metric)), None)


@cache
def _measured() -> tuple[CoherenceValidation, ...]:
    content = (
        resources.files(f"{__package__}.passages")
        .joinpath("measured.json")
        .read_text(encoding="utf-8")
    )
    return TypeAdapter(tuple[CoherenceValidation, ...]).validate_json(content)


def _auroc(resampling: Resampling, graded: Sequence[tuple[str, float, float]]) -> Estimate:
    if not graded:
        return Estimate(value=None, reason="no text has both grades")
    names, sound, broken = zip(*graded, strict=True)
    return resampling.over(list(names)).auroc(list(sound), list(broken))
