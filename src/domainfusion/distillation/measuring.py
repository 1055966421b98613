"""The student of a run measured: by any evaluator, beside the models that it is compared with, and
by the weights, memory and time that it saves against running its experts together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from domainfusion.distillation.asking import AskOverGaps
from domainfusion.distillation.data_generation.generator import options_for
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import Ensemble, Evaluator, hold_apart
from domainfusion.distillation.refinement import trained_records
from domainfusion.distillation.results import Footprint, Savings
from domainfusion.distillation.run import RunFiles
from domainfusion.distillation.trainer import Trainer
from domainfusion.errors import CapabilityError
from domainfusion.models.base import LanguageModel, LocalWeights, TrainableModel
from domainfusion.models.store import Ask
from domainfusion.progress import Progress, doing, silent
from domainfusion.records import read_records
from domainfusion.types import Conversation, Example, Generation, Sampling, TrainingRecord
from domainfusion.wording import counted

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
    progress: Progress = silent,
) -> UntrainedMerge | None:
    """Returns the weight merge of the teachers: the best as it is of those that the training chose
    its start from, or would have; None where they can't be merged.
    """
    records = read_records(files.records, TrainingRecord) if files.records.is_file() else []
    try:
        with doing("merging the experts, to compare with"):
            options = options_for(trainer.merged, progress=progress)
            model, how = trainer.merged(student, teachers, records, files.training, **options)
    except CapabilityError as error:
        logger.info("There is no weight merge of the experts to compare with: %s", error)
        return None
    note = (
        f"The merge of the experts is {how.name}. Choosing and making it took"
        f" {counted(round(how.seconds), 'second')}, and no part of it is trained."
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
    notes: Sequence[str] = (),
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
        notes: Further notes for the report.

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
    return replace(report, notes=(*report.notes, *gaps, *notes))


MOST_QUESTIONS = 16
"""Questions that the speed is measured on: enough to see a factor, few enough to cost seconds."""


Answering = Callable[[Mapping[str, LanguageModel], Sequence[Example], Sampling, Ask], object]
"""How experts and integrator answer questions together; models are called through the last
argument.
"""


def measure_savings(
    student: LanguageModel,
    teachers: Mapping[str, LanguageModel],
    examples: Sequence[Example],
    sampling: Sampling,
    ensemble: Answering | None = None,
) -> Savings | None:
    """Asks the student and its experts the same questions and times them; nothing is stored.

    Args:
        student: The trained student.
        teachers: The expert of each domain.
        examples: The test examples, of which up to `MOST_QUESTIONS` are asked.
        sampling: How the models answer.
        ensemble: How the experts answer together, integrator included; None leaves the integration
            out.

    Returns:
        The comparison; None where not all of the models have their weights on this machine, or
        there are no examples.
    """
    if not examples or not all(
        isinstance(model, LocalWeights) for model in (student, *teachers.values())
    ):
        return None
    picked = examples[:: -(-len(examples) // MOST_QUESTIONS)]
    asked = {
        domain: [example for example in picked if domain in example.domains] for domain in teachers
    }
    alone = _footprint([(student, [example.conversation for example in picked])], sampling)
    together = [
        (teachers[domain], [example.conversation_for(domain) for example in own])
        for domain, own in asked.items()
    ]
    whole = None if ensemble is None else _ensemble_footprint(ensemble, teachers, picked, sampling)
    experts = _footprint(together, sampling)
    return Savings(
        questions=len(picked),
        student=alone,
        experts=whole or experts,
        integrated=whole is not None,
        adapters=None if whole is None else experts,
    )


def _ensemble_footprint(
    ensemble: Answering,
    teachers: Mapping[str, LanguageModel],
    examples: Sequence[Example],
    sampling: Sampling,
) -> Footprint | None:
    """Times experts and integrator; None where a model of the integrator has its weights
    elsewhere.
    """
    for teacher in teachers.values():
        teacher.generate([examples[0].conversation], replace(sampling, max_new_tokens=1))
    timed = _Timed(dict.fromkeys(teachers.values()))
    started = time.perf_counter()
    try:
        ensemble(teachers, examples, sampling, timed)
    except _ElsewhereError:
        return None
    seconds = time.perf_counter() - started
    sizes = _sizes(timed.models)
    return Footprint(
        parameters=sum(count for count, _ in sizes.values()),
        weight_bytes=sum(size for _, size in sizes.values()),
        calls=timed.calls,
        completion_tokens=timed.completion_tokens,
        seconds=round(seconds, 3),
    )


class _ElsewhereError(Exception):
    """A model would be asked that may cost money: timing goes past the store of answers."""


class _Timed:
    """An `Ask` past every store that counts, remembers which models were asked, and asks none that
    runs elsewhere.
    """

    def __init__(self, models: dict[LanguageModel, None]) -> None:
        self.models = models
        self.calls = self.completion_tokens = 0

    def __call__(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
    ) -> list[Generation]:
        """See `Ask`."""
        if not isinstance(model, LocalWeights):
            raise _ElsewhereError
        self.models[model] = None
        answers = model.generate(conversations, sampling) if conversations else []
        self.calls += len(answers)
        self.completion_tokens += sum(answer.completion_tokens for answer in answers)
        return answers


def _sizes(models: Iterable[LanguageModel]) -> dict[int, tuple[int, int]]:
    """Returns the number and the bytes of each tensor once, however many models share it."""
    local = [model for model in models if isinstance(model, LocalWeights)]
    return {
        id(tensor): (tensor.numel(), tensor.nbytes) for model in local for tensor in model.weights()
    }


def _footprint(
    work: Sequence[tuple[LanguageModel, Sequence[Conversation]]], sampling: Sampling
) -> Footprint:
    sizes = _sizes(model for model, _ in work)
    seconds, tokens = 0.0, 0
    for model, conversations in work:
        if not conversations:
            continue
        model.generate(conversations[:1], replace(sampling, max_new_tokens=1))
        started = time.perf_counter()
        answers = model.generate(conversations, sampling)
        seconds += time.perf_counter() - started
        tokens += sum(answer.completion_tokens for answer in answers)
    return Footprint(
        parameters=sum(count for count, _ in sizes.values()),
        weight_bytes=sum(size for _, size in sizes.values()),
        calls=sum(len(conversations) for _, conversations in work),
        completion_tokens=tokens,
        seconds=round(seconds, 3),
    )
