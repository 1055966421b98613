"""The student of a run measured beside what it is compared with, by any evaluator."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from domainfusion.distillation.asking import AskOverGaps
from domainfusion.distillation.data_generation.generator import options_for
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import Ensemble, Evaluator, hold_apart
from domainfusion.distillation.refinement import trained_records
from domainfusion.distillation.run import RunFiles
from domainfusion.distillation.trainer import Trainer
from domainfusion.errors import CapabilityError
from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.records import read_records
from domainfusion.types import Example, TrainingRecord

logger = logging.getLogger("domainfusion")


class UntrainedMerge(NamedTuple):
    """The experts' merge as a model by itself.

    Attributes:
        model: The merge.
        note: How it was made, and what that took, in a sentence or two.
    """

    model: LanguageModel
    note: str


def merge_of(
    trainer: Trainer,
    student: TrainableModel,
    teachers: Mapping[str, LanguageModel],
    files: RunFiles,
) -> UntrainedMerge | None:
    """Returns the weight merge of the teachers: the best as it is of those that the training chose
    its start from, or would have; None where they can't be merged.
    """
    records = read_records(files.records, TrainingRecord) if files.records.is_file() else []
    try:
        model, how = trainer.merged(student, teachers, records, files.training)
    except CapabilityError as error:
        logger.info("There is no weight merge of the experts to compare with: %s", error)
        return None
    note = (
        f"The merge of the experts is {how.name}. Choosing and making it took"
        f" {how.seconds:,.0f} seconds, and nothing of it is trained."
    )
    return UntrainedMerge(model, note)


def examples_trained_on(files: RunFiles) -> list[Example] | None:
    """Returns the examples of the records that the student was trained on; None where the run has
    no records.
    """
    if not files.records.is_file():
        return None
    return [record.example for record in trained_records(files.path)]


def measure(
    evaluator: Evaluator,
    student: LanguageModel,
    teachers: Mapping[str, LanguageModel],
    examples: Sequence[Example],
    *,
    baselines: Mapping[str, LanguageModel],
    trained_on: Sequence[Example] | None,
    ensemble: Ensemble,
    ask: AskOverGaps,
) -> EvaluationReport:
    """Evaluates a student with those of the options that the evaluator takes.

    Args:
        evaluator: The evaluator. Where it takes no `trained_on`, examples that were trained on are
            removed before.
        student: The student.
        teachers: The teacher of each domain.
        examples: What to evaluate on.
        baselines: Further models to measure.
        trained_on: What the student was trained on; None where that is not known.
        ensemble: How teachers and integrator answer together.
        ask: How models are called. What teachers left unanswered is noted in the report.

    Raises:
        DataError: Examples were trained on, and the evaluator refuses such.
    """
    options = options_for(
        evaluator.evaluate, baselines=baselines, trained_on=trained_on, ensemble=ensemble, ask=ask
    )
    if "trained_on" not in options:
        examples, _ = hold_apart(examples, trained_on)
    report = evaluator.evaluate(student, teachers, examples, **options)
    gaps = (f"{gap}; these have no grade." for gap in ask.gaps)
    return replace(report, notes=(*report.notes, *gaps))
