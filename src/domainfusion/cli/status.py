"""`domainfusion status`: how far a run is, without touching it."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainfusion.wording import clock_time, counted, duration

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation.run import DescribedInputs, RunDescription, RunFiles
    from domainfusion.models.costs import ModelUsage
    from domainfusion.progress import Pace
    from domainfusion.types import Example

SECONDS_BETWEEN_LOOKS = 2.0

_DESCRIPTION = (
    "Show which stages of a run are done, what they made, what they took, and whether a process is"
    " writing to it."
)


@dataclass(frozen=True)
class StageStatus:
    """How far one stage is.

    Attributes:
        name: Its name.
        state: `done`, `begun` or `to do`.
        seconds: Wall-clock time it took so far; None where it has not begun.
        made: What it made, in words.
        done: How many of its items are done; None where that is not known.
        total: How many items it has; None likewise.
    """

    name: str
    state: str
    seconds: float | None
    made: str = ""
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        directory: Where it is kept.
        title: What reports call it.
        stages: Its stages in order.
        usage: What its models were asked so far.
        writer: The id of the process that is writing to it; None if there is none, empty if it is
            not known.
    """

    directory: Path
    title: str
    stages: tuple[StageStatus, ...]
    usage: tuple[ModelUsage, ...]
    writer: str | None


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "status", parents=[shared], help="show the progress of a run", description=_DESCRIPTION
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show it anew every two seconds, for as long as a process writes to the run",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Prints how far the run is."""
    from domainfusion.cli.runs import check_run

    directory = check_run(arguments.directory)
    if not arguments.watch:
        terminal.print(render_status(status_of(directory)))
        return
    paces: dict[str, _Watched] = {}
    with terminal.replacing() as show:
        while True:
            status = status_of(directory)
            show("\n".join([render_status(status), *_time_left(status, paces)]))
            if status.writer is None:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)


@dataclass
class _Watched:
    """What was seen of a stage since it is watched."""

    pace: Pace
    done: int


def _time_left(status: RunStatus, watched: dict[str, _Watched]) -> Iterator[str]:
    """Yields how long the stage under way takes at the pace at which it was watched."""
    from domainfusion.progress import Pace

    now = time.monotonic()
    stage = next((stage for stage in status.stages if stage.state != "done"), None)
    if stage is None or stage.done is None or stage.total is None or status.writer is None:
        return
    seen = watched.setdefault(stage.name, _Watched(Pace(now), stage.done))
    if stage.done > seen.done:
        seen.pace.advance(stage.done - seen.done, now)
        seen.done = stage.done
    left = seen.pace.left(stage.total - stage.done, now)
    if left is not None:
        yield f"About {clock_time(left)} left of {stage.name}."


def status_of(directory: Path) -> RunStatus:
    """Reads how far a run is from the files in its directory."""
    from domainfusion.distillation.run import (
        RunFiles,
        read_description,
        read_inputs,
        read_stages,
        writer_of,
    )

    files = RunFiles(directory)
    description, inputs = read_description(files), read_inputs(files)
    needed, missing = _answers(files, inputs)
    found = {
        "generate": _generated(files),
        "collect": _collected(needed, missing),
        "integrate": _integrated(files),
        "train": _trained(files, description),
        **({"refine": _refined(files)} if inputs.refinement_rounds else {}),
        "evaluate": (files.evaluation.is_file(), ""),
    }
    timed = {entry.stage: entry for entry in read_stages(files)}
    stages = []
    for name, (done, made) in found.items():
        entry = timed.get(name)
        # A process that was killed could not note its last stage as finished, but the stage's file
        # is there.
        is_over = done or (entry is not None and entry.finished)
        state = "done" if is_over else "begun" if made or entry else "to do"
        stage = StageStatus(name, state, None if entry is None else entry.seconds, made)
        if name == "collect" and needed is not None:
            stage = replace(stage, done=needed - missing, total=needed)
        stages.append(stage)
    return RunStatus(
        directory,
        description.title,
        tuple(stages),
        _usage(files),
        writer_of(directory),
    )


def render_status(status: RunStatus) -> str:
    """Returns the status as plain lines."""
    lines = [f"{status.directory}: {status.title}"]
    for stage in status.stages:
        took = "" if stage.seconds is None else duration(stage.seconds)
        lines.append(f"  {stage.name:<10} {stage.state:<6} {took:>12}   {stage.made}".rstrip())
    total = sum(stage.seconds or 0 for stage in status.stages)
    lines.append(f"  {'':<10} {'':<6} {duration(total):>12}   in all")
    lines += [_usage_line(status.usage)] if status.usage else []
    if status.writer is None:
        lines.append("No process is writing to it.")
    else:
        lines.append(f"Process {status.writer or '(unknown)'} is writing to it{_place(status)}.")
    return "\n".join(lines)


def _place(status: RunStatus) -> str:
    """Returns at which stage of how many a run is."""
    for number, stage in enumerate(status.stages, start=1):
        if stage.state != "done":
            return f", at stage {number} of {len(status.stages)}, {stage.name}"
    return ""


def _usage(files: RunFiles) -> tuple[ModelUsage, ...]:
    """Reads from the store itself: a process that was killed, or is at work, has not written
    `usage.json` yet.
    """
    from domainfusion.models.store import ResponseStore

    if not files.responses.is_file():
        return ()
    with ResponseStore(files.responses, read_only=True) as store:
        return store.usage()


def _usage_line(usage: Sequence[ModelUsage]) -> str:
    from domainfusion.models.costs import total_cost
    from domainfusion.reports.tables import money

    calls, read, written = (
        sum(getattr(model, name) for model in usage)
        for name in ("calls", "prompt_tokens", "completion_tokens")
    )
    line = (
        f"{counted(calls, 'answer')} of {counted(len(usage), 'model')}: {counted(read, 'token')} read,"
        f" {written:,} written"
    )
    cost, unknown = total_cost(usage), sum(model.unknown_cost for model in usage)
    if cost is not None:
        line += f"; cost {money(cost)}" + (
            f", and at most {money(unknown)} more" if unknown else ""
        )
    return f"{line}."


def _generated(files: RunFiles) -> tuple[bool, str]:
    if not files.examples.is_file():
        return False, ""
    train, validation, test = map(
        _count_lines, (files.examples, files.validation_examples, files.test_examples)
    )
    between = f", {validation:,} to choose checkpoints by" if validation else ""
    return True, f"{counted(train, 'example')} to train on{between}, {test:,} to test on"


def _count_lines(file: Path) -> int:
    from domainfusion.records import read_lines

    return sum(1 for _ in read_lines(file)) if file.is_file() else 0


def _collected(needed: int | None, missing: int) -> tuple[bool, str]:
    if needed is None:
        return False, ""
    if missing == needed:
        return needed == 0, ""
    return missing == 0, f"{needed - missing:,} of {counted(needed, 'answer')} of the experts"


def _answers(files: RunFiles, inputs: DescribedInputs) -> tuple[int | None, int]:
    """Counts the answers that the examples need, and those of them that are not stored; None where
    there are no examples yet.
    """
    from domainfusion.models.store import ResponseStore
    from domainfusion.records import read_records
    from domainfusion.types import Example

    if not files.examples.is_file() or not files.responses.is_file():
        return None, 0
    examples = read_records(files.examples, Example)
    missing = needed = 0
    with ResponseStore(files.responses, read_only=True) as store:
        for domain, teacher in inputs.teachers.items():
            questions = [
                example.conversation_for(domain) for example in _of_domain(examples, domain)
            ]
            needed += len(questions)
            missing += store.missing(teacher.fingerprint, questions, inputs.response_sampling)
    return needed, missing


def _of_domain(examples: Sequence[Example], domain: str) -> Iterator[Example]:
    return (example for example in examples if domain in example.domains)


def _integrated(files: RunFiles) -> tuple[bool, str]:
    from domainfusion.records import read_lines

    if not files.records.is_file():
        return False, ""
    kinds = Counter(str(record.get("verification")) for _, record in read_lines(files.records))
    return True, f"{counted(kinds.total(), 'record')}: " + ", ".join(
        f"{count:,} {kind}" for kind, count in kinds.most_common()
    )


def _trained(files: RunFiles, description: RunDescription) -> tuple[bool, str]:
    """A student is described in `run.json` once it is trained; before that, the log tells how far
    it is.
    """
    from domainfusion.distillation.run import read_training_log

    lines = read_training_log(files.training_log)
    steps = [fields for fields in lines if "step" in fields and "phase" in fields]
    trained = {(fields["phase"], fields["step"]) for fields in steps}
    made = counted(len(trained), "step") if trained else ""
    done = "parameters" in description.student.model_fields_set
    if steps and not done:
        made += f", now at step {steps[-1]['step']:,} of the phase {steps[-1]['phase']}"
    return done, made


def _refined(files: RunFiles) -> tuple[bool, str]:
    from domainfusion.distillation.run import read_refinement

    if not files.refinement.is_file():
        return False, ""
    found = read_refinement(files)
    rounds = counted(len(found.rounds), "round")
    why = f": {found.stopped}" if found.stopped else ""
    return bool(found.stopped), f"{rounds}, {len(found.kept)} kept{why}"
