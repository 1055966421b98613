"""All that a report is made of, in memory or read from a run directory, finished or not."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from safetensors import SafetensorError, safe_open

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import GenerationCount, Refinement, Savings
from domainfusion.distillation.run import (
    RunDescription,
    RunFiles,
    StageTime,
    read_stages,
    read_training_log,
)
from domainfusion.distillation.targets import SampledTarget
from domainfusion.errors import DataError
from domainfusion.models.costs import ModelUsage
from domainfusion.records import read_json, read_records
from domainfusion.types import SCHEMA_VERSION, TrainingRecord

logger = logging.getLogger("domainfusion")

T = TypeVar("T")


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Shipped:
    """The weights that a saved student has, as its files hold them.

    Attributes:
        parameters: How many numbers they are.
        weight_bytes: The size of the files.
    """

    parameters: int
    weight_bytes: int


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run as its reports see it. Whatever is empty has no section in them.

    Attributes:
        title: The headline; empty for a neutral one.
        evaluation: What the evaluation found; None before there was one.
        generation: The outcome of the examples asked for, a row a generator.
        records: The training records, the rejected ones too.
        samples: The examples whose experts were asked again, as their target was rejected.
        stages: Time of each stage, in order.
        usage: What each model was asked and what that took, over all sessions of the run.
        refinement: The rounds of the refinement; None where there is none.
        savings: What the student saves against running its experts; None where that was not
            measured.
        shipped: The weights of the saved student in `model/`; None where there is none, or it is
            not in safetensors files.
        training_log: Lines of the logs of the training and of the rounds that were kept: dicts with
            `phase`, `step` and either `loss`, `learning_rate` and `seconds`, or `validation`, a
            figure per domain.
        student: The student: `name`, `base_model`, `parameters`, and, where given, `system_prompt`,
            `license` and `library_name`.
        teachers: The name of each domain's expert.
        settings: What is needed to repeat the run: `command`, seed, versions, machine, date.
        inputs: All that decides its outcome, models and examples by fingerprint.
        recipe: The recipe that it was made with, every default written out; empty for a run without
            one.
        peak_memory_bytes: The most memory that was resident in the whole run.
    """

    title: str = ""
    evaluation: EvaluationReport | None = None
    generation: tuple[GenerationCount, ...] = ()
    records: tuple[TrainingRecord, ...] = ()
    samples: tuple[SampledTarget, ...] = ()
    stages: tuple[StageTime, ...] = ()
    usage: tuple[ModelUsage, ...] = ()
    refinement: Refinement | None = None
    savings: Savings | None = None
    shipped: Shipped | None = None
    training_log: tuple[Mapping[str, Any], ...] = ()
    student: Mapping[str, Any] = field(default_factory=_nothing)
    teachers: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=_nothing)
    inputs: Mapping[str, Any] = field(default_factory=_nothing)
    recipe: str = ""
    peak_memory_bytes: int | None = None

    @classmethod
    def read(cls, run_directory: Path) -> Self:
        """Reads what a run has written so far.

        Args:
            run_directory: The directory of the run.

        Returns:
            The summary; a file that is not there leaves its fields empty.

        Raises:
            DataError: There is no such directory, or a file in it is damaged; the message names the
                file.
        """
        if not run_directory.is_dir():
            raise DataError(
                "There is no such run directory",
                received=str(run_directory),
                fix="name the directory that the run printed",
            )
        files = RunFiles(run_directory)
        run = _read(files.description, RunDescription) or RunDescription()
        stages = read_stages(files)
        refinement = _read(files.refinement, Refinement)
        return cls(
            title=run.title,
            evaluation=_read_evaluation(files.evaluation),
            generation=_read(files.generation, tuple[GenerationCount, ...]) or (),
            records=_read_records(files.records),
            samples=_read(files.samples, tuple[SampledTarget, ...]) or (),
            stages=stages,
            usage=_read(files.usage, tuple[ModelUsage, ...]) or (),
            refinement=refinement,
            savings=_read(files.savings, Savings),
            shipped=_read_shipped(files.student),
            training_log=_training_log(files, refinement),
            student=run.student.model_dump(exclude_unset=True),
            teachers=run.teachers,
            settings=run.settings,
            inputs=run.inputs,
            recipe=_read_text(files.recipe),
            peak_memory_bytes=max(
                (
                    stage.peak_memory_bytes
                    for stage in stages
                    if stage.peak_memory_bytes is not None
                ),
                default=None,
            ),
        )

    def about_student(self, field_name: str) -> Any:
        """Returns one of the fields of `student`, written with spaces or underscores; None where it
        is not known.
        """
        return next(
            (value for key, value in self.student.items() if key.replace(" ", "_") == field_name),
            None,
        )

    @property
    def heading(self) -> str:
        """The title, or a neutral one."""
        return self.title or "Distillation run"


def _read(path: Path, kind: type[T]) -> T | None:
    return read_json(path, kind) if path.exists() else None


def _read_records(path: Path) -> tuple[TrainingRecord, ...]:
    return tuple(read_records(path, TrainingRecord)) if path.exists() else ()


def _read_shipped(folder: Path) -> Shipped | None:
    """Returns the size of a saved student, from the headers of its files; None of an adapter, which
    is not the whole of it.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths or (folder / "adapter_config.json").is_file():
        return None
    parameters = 0
    try:
        for path in paths:
            with safe_open(path, framework="numpy") as weights:
                shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
            parameters += sum(math.prod(shape) for shape in shapes)
    except (OSError, SafetensorError):
        logger.warning("%s is damaged, and left out of the report.", path)
        return None
    return Shipped(parameters, sum(path.stat().st_size for path in paths))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _training_log(files: RunFiles, refinement: Refinement | None) -> tuple[Mapping[str, Any], ...]:
    """Returns the lines of the training, then those of each round of the refinement that was kept,
    whose phases are named after it.
    """
    lines = read_training_log(files.training_log)
    for entry in refinement.kept if refinement else ():
        for fields in read_training_log(files.round(entry.number).training_log):
            if "phase" in fields:
                lines.append({**fields, "phase": f"round {entry.number}: {fields['phase']}"})
    return tuple(lines)


def _read_evaluation(path: Path) -> EvaluationReport | None:
    if not path.exists():
        return None
    plain = read_json(path, dict)
    version = plain.get("schema", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise DataError(
            f"{path} was written by a later version of domainfusion",
            received=version,
            allowed=f"schema {SCHEMA_VERSION} or lower",
            fix="upgrade domainfusion",
        )
    report = read_json(path, EvaluationReport)
    if not any(model.role == "student" for model in report.models):
        raise DataError(
            f"{path} has no student",
            received=[model.name for model in report.models],
            fix="evaluate the run again",
        )
    return report
