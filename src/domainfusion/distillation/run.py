"""The directory of a run: one writer at a time, a file for each stage's outcome, and a record of
what it took.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, TypeAdapter

from domainfusion.description import describe, differences, models_in
from domainfusion.distillation.results import GenerationCount, Refinement
from domainfusion.errors import DataError, RunError, advice_on
from domainfusion.files import checksum_of, remove_unfinished
from domainfusion.models.base import DatedModel, PromptedModel, SizedModel, TrainableModel
from domainfusion.models.store import ResponseStore
from domainfusion.records import (
    CHECKSUMS,
    from_json,
    read_json,
    refuse_changed,
    refuse_immense,
    write_json,
)
from domainfusion.types import Sampling, fingerprint

try:
    import resource
except ImportError:  # Windows does not have it
    resource = None  # type: ignore[assignment]

logger = logging.getLogger("domainfusion")

_CLOCK_SECONDS = 60.0
"""How far the time at which a process began may be off, as clocks are set."""

PACKAGES = ("domainfusion", "torch", "transformers", "peft", "accelerate")


class Publisher(Protocol):
    """Writes what a run has to show: `domainfusion.reports`, or something of a user's own."""

    def write_reports(self, run_directory: Path) -> object:
        """Writes the reports of a run, finished or not, into its directory."""
        ...

    def write_model_card(self, folder: Path, run_directory: Path) -> object:
        """Writes the model card of a run's student, which was saved to `folder`."""
        ...


def default_publisher() -> Publisher:
    """Returns `domainfusion.reports`, by its name: it stands above the distillation, which imports
    nothing of it.
    """
    reports: Publisher = importlib.import_module("domainfusion.reports")
    return reports


class StageFiles:
    """The files of one way through the stages up to training: that of a run, or of a round of its
    refinement.

    Args:
        path: The folder.

    Attributes:
        path: The folder.
        examples: The examples to train on.
        generation: What each generator was asked for and what was rejected.
        records: The training records, rejected ones too.
        samples: The examples whose experts were asked again, where `samples` is above 1.
        training: The folder of checkpoints, phases and the log of the training.
        training_log: A line a step of the training, and one for each validation.
        refinement: The decisions of each round of the refinement.
        checksums: The checksums of the files that are read again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.examples = path / "examples.jsonl"
        self.generation = path / "generation.json"
        self.records = path / "records.jsonl"
        self.samples = path / "samples.json"
        self.training = path / "training"
        self.training_log = self.training / "log.jsonl"
        self.refinement = path / "refinement.json"
        self.checksums = path / CHECKSUMS

    def round(self, number: int) -> StageFiles:
        """Returns the files of a round of the refinement, counted from 1."""
        return StageFiles(self.path / "refinement" / str(number))


class RunFiles(StageFiles):
    """The names of all files of a run. Looking at them touches nothing.

    Args:
        path: The directory of the run.

    Attributes:
        description: What the run is: inputs, versions, machine.
        lock: Locked by the one process that writes to the run.
        writer: The id of that process and when it began: apart from the lock, as Windows lets
            no other process read a locked file.
        test_examples: The examples to evaluate on, frozen before training.
        validation_examples: The examples to choose checkpoints by, frozen before training.
        responses: Every answer of every model.
        evaluation: What the evaluation found.
        savings: What the student saves against running its teachers.
        usage: What each model was asked and what that took, over all sessions.
        stages: Seconds and memory of each finished stage.
        html_report: The report as one HTML file.
        markdown_report: The report as Markdown.
        student: The folder of the student, in a run of the command line.
        student_files: The files in that folder which the run wrote.
        recipe: The recipe of a run that was made with one, every default written out.
        demo: How to build the models of a run of the demo again.
        log: The log of a run of the command line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.description = path / "run.json"
        self.lock = path / "lock"
        self.writer = path / "writer"
        self.test_examples = path / "test_examples.jsonl"
        self.validation_examples = path / "validation_examples.jsonl"
        self.responses = path / "responses.sqlite"
        self.evaluation = path / "evaluation.json"
        self.savings = path / "savings.json"
        self.usage = path / "usage.json"
        self.stages = path / "stages.json"
        self.html_report = path / "report.html"
        self.markdown_report = path / "report.md"
        self.student = path / "model"
        self.student_files = path / "student_files.json"
        self.recipe = path / "recipe.yaml"
        self.demo = path / "demo.json"
        self.log = path / "run.log"

    def made(self, *, has_student: bool) -> list[str]:
        """Names the outputs that the run has; whether there is a student, no file shows."""
        found = {
            "examples": self.examples.is_file(),
            "records": self.records.is_file(),
            "a student": has_student,
            "a report": self.html_report.is_file(),
        }
        return [name for name, is_there in found.items() if is_there]


class DescribedStudent(BaseModel):
    """What `run.json` says of the student, and whatever else stands there."""

    model_config = ConfigDict(extra="allow")
    name: str | None = None
    base_model: str | None = None
    parameters: int | None = None
    system_prompt: str | None = None
    chat_template: str | None = None
    license: str | None = None
    library_name: str | None = None


class RunDescription(BaseModel):
    """What `run.json` holds.

    Attributes:
        title: What reports call the run.
        student: The student; `parameters` is there once it is trained.
        teachers: The name of each domain's expert.
        settings: What is needed to repeat the run.
        inputs: All that decides its outcome.
        held_out: The fingerprints of the examples that were frozen, by use.
    """

    title: str = ""
    student: DescribedStudent = DescribedStudent()
    teachers: dict[str, str] = {}
    settings: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    held_out: dict[str, str] = {}


class DescribedTeacher(BaseModel):
    """What the inputs of a run say of an expert: the fingerprint by which its answers are found."""

    fingerprint: str


class DescribedInputs(BaseModel):
    """Of the inputs of a run, those that show how far it is."""

    teachers: dict[str, DescribedTeacher] = {}
    response_sampling: Sampling = Sampling()
    refinement_rounds: int = 0


class _Described(BaseModel):
    inputs: DescribedInputs = DescribedInputs()


@dataclass(frozen=True, slots=True)
class StageTime:
    """The time and memory of one stage of the run.

    Attributes:
        stage: Its name.
        seconds: Wall-clock time.
        peak_memory_bytes: The most memory that was resident while it ran; None where it was not
            measured.
        finished: Whether it is over.
    """

    stage: str
    seconds: float
    peak_memory_bytes: int | None = None
    finished: bool = True


def read_description(files: RunFiles) -> RunDescription:
    """Returns what `run.json` holds.

    Raises:
        DataError: It is missing or damaged.
    """
    return read_json(files.description, RunDescription)


def read_inputs(files: RunFiles) -> DescribedInputs:
    """Returns the inputs that show how far a run is.

    Raises:
        DataError: `run.json` is missing or damaged.
    """
    return read_json(files.description, _Described).inputs


def read_stages(files: RunFiles) -> tuple[StageTime, ...]:
    """Returns what each stage took so far, in order.

    Raises:
        DataError: `stages.json` is damaged.
    """
    return read_json(files.stages, tuple[StageTime, ...]) if files.stages.is_file() else ()


def read_refinement(files: StageFiles) -> Refinement:
    """Returns the refinement of a run so far; an empty one before it begins.

    Raises:
        DataError: `refinement.json` is damaged.
    """
    return read_json(files.refinement, Refinement) if files.refinement.is_file() else Refinement()


def read_generation(files: StageFiles) -> tuple[GenerationCount, ...]:
    """Returns what each generator was asked for, and what came of it.

    Raises:
        DataError: `generation.json` is missing or damaged.
    """
    return read_json(files.generation, tuple[GenerationCount, ...])


def read_training_log(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a training's log: dicts with `phase`, `step` and figures, or a note.

    Lines that are damaged or not yet whole are left out, with a warning unless it is the last one:
    nothing but reports reads them.
    """
    found: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
    except OSError as error:
        logger.warning("%s can't be read (%s), and is left out.", path, error.strerror or error)
        return found
    for number, line in enumerate(lines, start=1):
        try:
            fields = from_json(line)
            _LINE.validate_python(fields)
            refuse_immense(fields, "")
        except ValueError:
            if number < len(lines):
                logger.warning("%s:%d is damaged and left out.", path, number)
            continue
        found.append(fields)
    return found


class _LogLine(BaseModel):
    """The fields of a line that its readers count on."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    phase: str = ""
    step: int = 0
    loss: float | None = None


_LINE = TypeAdapter(_LogLine)


_NAMES = frozenset(file.name for file in vars(RunFiles(Path())).values())
"""The names of a run's files: what was begun under one of them and left is cleared away."""


_NOT_REPLACED = frozenset({"", "lock", "writer", "run.log", "responses.sqlite", "model"})
"""Of these, what a new run may find in its directory: it adds to a log, answers may be copied there,
and whatever lies in `model/` is kept.
"""

EVALUATED = "evaluated"
"""The key of `run.json` under which stands what the evaluation was made of."""

_EVALUATION_FOLLOWS_FROM = frozenset(
    {
        "examples.jsonl",
        "test_examples.jsonl",
        "validation_examples.jsonl",
        "records.jsonl",
        "refinement.json",
        "finished.safetensors",  # the weights after a phase of the training
    }
)


def date_of_run(path: Path) -> date | None:
    """Returns the day that the models of the run at `path` write into their prompts; None where
    there is no such run.
    """
    try:
        written = from_json(RunFiles(path).description.read_bytes())
        return date.fromisoformat(written["inputs"]["date"])
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # no run, or one without a date: opening it says what is wrong
        return None


def about_student(student: TrainableModel) -> dict[str, Any]:
    """Returns the description of a trained student for `run.json`."""
    return {
        "name": student.name,
        "parameters": student.parameter_count if isinstance(student, SizedModel) else None,
        "system_prompt": student.system_prompt if isinstance(student, PromptedModel) else None,
    }


def pin_dates(parts: object, path: Path | None) -> str | None:
    """Has the models write the day on which the run began into their prompts, so that it can be
    resumed on another day.

    Args:
        parts: Whatever holds the models of the run.
        path: The directory of the run; None where it follows from the inputs.

    Returns:
        The day; None where no model writes it.
    """
    began = None if path is None else date_of_run(path)
    day = began or datetime.now(UTC).date()
    models = models_in(parts)
    is_written = [model.pin_date(day) for model in models if isinstance(model, DatedModel)]
    return day.isoformat() if any(is_written) else None


class RunDirectory(RunFiles):
    """The files of one run, and the right to write them.

    Args:
        path: The directory; it is made if it is not there. None for one in `runs/` whose name
            follows from the inputs; it is then printed to stderr.
        inputs: What decides the outcome of the run; a directory that was made with other inputs is
            refused.
        title: What reports call the run.
        say: Shows a line to the user where the log of the package shows none.
        watch: Gives what watches over the work for as long as the directory is held.

    Raises:
        RunError: The directory belongs to other inputs, another process is writing to it, or it
            can't be written to.
        DataError: A file in it is damaged, or missing.

    Attributes:
        current_stage: The stage that is under way; empty between stages.
    """

    def __init__(
        self,
        path: Path | None,
        inputs: Mapping[str, Any],
        title: str,
        *,
        say: Callable[[str], None] | None = None,
        watch: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__(path or Path("runs") / fingerprint(inputs, length=12))
        self._is_derived, self._is_announced = path is None, False
        self._inputs = dict(inputs)
        self._title = title
        self._say = say
        self._watch = watch
        self._told: set[str] = set()
        self._lock = FileLock(self.lock, thread_local=False)
        self._depth = 0
        self._at_the_end = ExitStack()
        self.current_stage = ""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Holds the directory for this process while a stage writes to it."""
        if os.environ.get("RANK", "0") != "0":
            raise RunError(
                "Only the main process runs the stages of a run",
                received=f"process {os.environ['RANK']}",
                fix="call distill(), which lets the others train beside it",
            )
        if self._depth == 0:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._take_lock()
            except OSError as error:
                what = f"The output directory can't be written to: {error.strerror or error}"
                raise RunError(what, received=str(self.path), fix=advice_on(error)) from error
            try:
                self._check_files()
                self._check_inputs()
                remove_unfinished(self.path, _NAMES)
            except BaseException:
                self._drop_lock()
                raise
        self._depth += 1
        try:
            with self._watch() if self._depth == 1 else nullcontext():
                yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                try:
                    self._at_the_end.close()
                finally:
                    self._drop_lock()

    def announce(self) -> None:
        """Reports once where the run is kept: in the log where one is shown, else on stderr."""
        if self._is_announced:
            return
        self._is_announced = True
        message = f"The run is kept in {self.path}; the same inputs resume it there."
        self.tell(message)
        is_shown = logger.isEnabledFor(logging.INFO) or self._say is not None
        if self._is_derived and not is_shown:
            sys.stderr.write(f"{message}\n")

    def tell(self, message: str) -> None:
        """Reports the outcome of a stage: in the log, and to the user where it is not shown
        there.
        """
        logger.info("%s", message)
        if self._say is not None and not logger.isEnabledFor(logging.INFO):
            self._say(message)

    def tell_made_before(self, stage: str, outcome: str) -> None:
        """Reports once the outcome of a stage that an earlier process ended; it may have been killed
        before it listed the stage.
        """
        if not self.current_stage:
            self._list_stage(stage, 0.0, finished=True)
        if stage not in self._told:
            self._told.add(stage)
            self.tell(f"{stage}: {outcome}, made before")

    def when_let_go(self, call: Callable[[], None]) -> None:
        """Calls `call` when this process releases the directory that it holds."""
        self._at_the_end.callback(call)

    def _take_lock(self) -> None:
        """Locks the directory; the system releases the lock when its process ends, however it
        ends.
        """
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise RunError(
                f"Another process ({writer_of(self.path) or 'unknown'}) is writing to this run",
                received=str(self.path),
                fix="wait for it, or use another output_dir",
            ) from error
        try:
            writer = f"{os.getpid()} {psutil.Process().create_time():.0f}\n"
            self.writer.write_text(writer, encoding="ascii")
        except BaseException:
            self._lock.release()
            raise

    def _drop_lock(self) -> None:
        try:
            self.writer.write_text("", encoding="ascii")
        finally:
            self._lock.release()

    def _check_files(self) -> None:
        """Finds what is lost or damaged before anything is asked or trained.

        Raises:
            DataError: A file was changed, or is missing where others were made with it.
            StoreError: The store of answers is damaged.
        """
        refuse_changed(self.path)
        if not self.description.exists() and not self.checksums.is_file():
            self._refuse_files_of_others()
        if self.examples.is_file() and not self.description.is_file():
            raise DataError(
                "The description of the run is missing, with the models and settings that it is of",
                received=str(self.description),
                fix=(
                    f"restore it from a copy; without one, delete all but {self.responses.name}: the"
                    " run is made again, of the answers that are stored"
                ),
            )
        is_stored = self.responses.is_file() and self.responses.stat().st_size > 0
        if self.usage.is_file() and not is_stored:
            raise DataError(
                "The store of answers is missing, or empty",
                received=str(self.responses),
                fix=(
                    f"restore it from a copy; without one, delete {self.usage.name} too: the models"
                    " are asked again, and max_cost no longer knows what was spent"
                ),
            )
        if is_stored:  # of a finished run nothing else reads it
            ResponseStore(self.responses, read_only=True).close()
        beside = (self.test_examples, self.validation_examples, self.generation)
        lost = [path for path in beside if not path.is_file()]
        if lost and self.examples.is_file():
            raise DataError(
                "A file that was made with the examples is missing",
                received=str(lost[0]),
                fix=(
                    f"restore it from a copy; without one, delete {self.examples.name} too: all of"
                    " them are made again, of the answers that are stored"
                ),
            )
        if not self.refinement.is_file() and self.round(1).path.is_dir():
            raise DataError(
                "The decisions of the refinement are missing",
                received=str(self.refinement),
                fix=(
                    "restore it from a copy; without one, delete the folder refinement/ too: the"
                    " rounds are run again"
                ),
            )

    def _refuse_files_of_others(self) -> None:
        """Makes sure that a new run replaces nothing: its directory may be one that a user keeps
        files in.
        """
        outputs = _NAMES - _NOT_REPLACED
        if found := sorted(name for name in outputs if os.path.lexists(self.path / name)):
            raise RunError(
                "The output directory holds files that are not of a run, and that a run would"
                f" replace: {', '.join(found)}",
                received=str(self.path),
                fix="use another output_dir, such as a folder in it, or move these files away",
            )

    def _check_inputs(self) -> None:
        if not self.description.is_file():
            self._write_description()
            return
        stored = read_description(self).inputs
        found = differences(stored, self._inputs)
        if not found:
            return
        raise RunError(
            f"This directory holds a run with other inputs ({found})",
            received=str(self.path),
            fix=(
                "use another output_dir; to reuse the answers that are stored here, copy"
                " responses.sqlite into it first"
            ),
        )

    def _write_description(self) -> None:
        settings = {
            "seed": self._inputs.get("seed"),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "command": _command(sys.argv),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            **{package: _version_of(package) for package in PACKAGES},
        }
        teachers = {
            domain: teacher["model"] for domain, teacher in self._inputs.get("teachers", {}).items()
        }
        learner = self._inputs.get("student", {})
        student = {"base_model": learner.get("model")}
        if "chat_template" in learner:
            student["chat_template"] = learner["chat_template"]
        write_json(
            self.description,
            {
                "title": self._title,
                "student": student,
                "teachers": teachers,
                "settings": settings,
                "inputs": self._inputs,
            },
            listed=True,
        )

    def sources_of_evaluation(self) -> dict[str, str]:
        """Returns the SHA-256 of each file that the evaluation of the run's student follows from:
        where one of them is deleted, edited or made anew, there is another student to measure.
        """
        places = [
            *self.path.glob("*"),
            *self.training.rglob("*"),
            *self.path.glob("refinement/*/*"),
            *self.path.glob("refinement/*/training/*/*"),
        ]
        files = [path for path in places if path.name in _EVALUATION_FOLLOWS_FROM]
        return {path.relative_to(self.path).as_posix(): checksum_of(path) for path in sorted(files)}

    def evaluation_by(self, evaluator: object) -> dict[str, Any]:
        """Returns what an evaluation of the run's student by this evaluator is made of, and which
        files the training has left: a power cut can bring deleted ones back, to be deleted anew.
        """
        left = (
            path.relative_to(self.training).as_posix()
            for path in self.training.rglob("*")
            if path.name != CHECKSUMS  # one that is deleted is made again only where it is needed
        )
        return {
            "by": fingerprint(describe(evaluator)),
            "version": version("domainfusion"),
            "of": self.sources_of_evaluation(),
            "training": sorted(left),
        }

    def note_evaluation(self, of: Mapping[str, Any]) -> None:
        """Notes in `run.json` what the evaluation is made of."""
        content = read_json(self.description, dict)
        write_json(self.description, {**content, EVALUATED: dict(of)}, listed=True)

    def is_evaluated_by(self, evaluator: object) -> bool:
        """Whether the evaluation is this evaluator's, and nothing that it follows from has changed
        since; usage, stages and counts are there, and every list of checksums of the training
        holds.
        """
        noted = read_json(self.description, dict).get(EVALUATED)
        is_listed = any(stage.stage == "evaluate" for stage in read_stages(self))
        is_there = all(file.is_file() for file in (self.evaluation, self.usage, self.generation))
        if not is_listed or not is_there or noted != self.evaluation_by(evaluator):
            return False
        try:
            for listed in self.training.rglob(CHECKSUMS):
                refuse_changed(listed.parent)
        except DataError:  # the stage that reads the file says so, or makes it again
            return False
        return True

    def add_to_description(self, key: str, fields: Mapping[str, Any]) -> None:
        """Adds to one of the objects in `run.json`."""
        content = read_json(self.description, dict)
        content[key] = {**(content.get(key) or {}), **fields}
        write_json(self.description, content, listed=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Times a stage. An interrupted stage's seconds add up over its runs; a finished one that
        is looked at again is not timed.

        Within another stage, as in a refinement, it is that stage's time.

        Yields:
            Receives the outcome of the stage in one line; it is shown when the stage is over.
        """
        outcomes: list[str] = []
        started, finished, around = time.perf_counter(), False, self.current_stage
        self.current_stage = name
        try:
            yield outcomes.append
            finished = True
        finally:
            self.current_stage = around
            seconds = time.perf_counter() - started
            if not around and self._list_stage(name, seconds, finished=finished):
                if finished:
                    outcomes.append(f"{seconds:.1f} s")
                else:
                    logger.info("%s: %.1f s, not finished", name, seconds)
            if finished and outcomes:
                self._told.add(name)
                self.tell(f"{name}: {'; '.join(outcomes)}")

    def _list_stage(self, name: str, seconds: float, *, finished: bool) -> bool:
        """Adds to what a stage took; returns whether it was not finished before."""
        entries = {entry.stage: entry for entry in read_stages(self)}
        known = entries.get(name, StageTime(name, 0.0, finished=False))
        if known.finished:
            return False
        measured = (known.peak_memory_bytes, peak_memory_bytes())
        peak = max((found for found in measured if found is not None), default=None)
        entries[name] = StageTime(name, round(known.seconds + seconds, 2), peak, finished)
        write_json(self.stages, [asdict(entry) for entry in entries.values()], listed=True)
        return True


def peak_memory_bytes() -> int | None:
    """Returns the most memory that this process has had resident so far; None where the system does
    not measure it.
    """
    if resource is None:
        peak: int | None = getattr(psutil.Process().memory_info(), "peak_wset", None)  # Windows
        return peak
    kibibytes_or_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes_or_bytes if sys.platform == "darwin" else kibibytes_or_bytes * 1024


def writer_of(path: Path) -> str | None:
    """Returns the id of the process of this machine that writes to a run; None where there is none.

    It takes no lock, so that looking at a run never keeps another process from writing to it.

    Args:
        path: The directory of the run.
    """
    try:
        words = RunFiles(path).writer.read_text(encoding="ascii", errors="replace").split()
        process = psutil.Process(int(words[0]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        started = process.create_time()
    except (OSError, ValueError, IndexError, OverflowError, psutil.NoSuchProcess):
        return None
    except psutil.AccessDenied:
        return words[0]
    # Another process may have got the id of one that was killed.
    is_another = (
        len(words) > 1 and words[1].isdecimal() and abs(started - int(words[1])) > _CLOCK_SECONDS
    )
    return None if is_another else words[0]


def _command(argv: Sequence[str]) -> list[str]:
    """Returns the words that made the run; of a program of the user's its name alone, as a secret
    may stand among its arguments.
    """
    program = Path(argv[0]).name
    if program == "domainfusion":
        return [program, *argv[1:]]
    return [program] if program else []


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
