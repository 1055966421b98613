"""The states of a training on disk: checkpoints of a phase, its best state by validation, and the
student that it ends with.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from domainfusion.errors import DataError, TrainingError, advice_on
from domainfusion.files import checksum_of, replacing
from domainfusion.models.base import TrainableModel
from domainfusion.records import CHECKSUMS, expect, is_changed, read_json, write_json

logger = logging.getLogger("domainfusion")

STUDENT_FILE = "student.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
BEST = "best.safetensors"
BEST_SCORES = "best.json"

KEPT_CHECKPOINTS = 2
"""Where the last one turns out to be damaged, training resumes from the one before."""


class Checkpoint(NamedTuple):
    """A phase between two steps.

    Attributes:
        step: Steps that are done.
        student: The student's trained weights by name.
        optimizer: The optimizer's state, as `torch.distributed.checkpoint.state_dict` gives it.
    """

    step: int
    student: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint of a phase, then removes all but the last two.

    Args:
        directory: The phase's folder.
        checkpoint: What is kept.

    Raises:
        TrainingError: It can't be written; those before it are kept.
    """
    target = directory / f"checkpoint-{checkpoint.step}"
    with write_errors(directory), replacing(target) as folder:
        folder.mkdir()
        save_file(checkpoint.student, folder / STUDENT_FILE)
        torch.save(checkpoint.optimizer, folder / OPTIMIZER_FILE)
        names = (STUDENT_FILE, OPTIMIZER_FILE)
        write_json(folder / CHECKSUMS, {name: checksum_of(folder / name) for name in names})
        shutil.rmtree(target, ignore_errors=True)  # a damaged one that was passed over
    for older in checkpoints(directory)[:-KEPT_CHECKPOINTS]:
        shutil.rmtree(older)


def load_checkpoint(directory: Path) -> Checkpoint | None:
    """Returns the last checkpoint of a phase that is whole; None where there is none.

    A damaged checkpoint is passed over with a warning, so that training resumes from the one before
    it.
    """
    for folder in reversed(checkpoints(directory)):
        if _is_whole(folder):
            optimizer = torch.load(folder / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
            return Checkpoint(steps_done(folder), load_file(folder / STUDENT_FILE), optimizer)
        logger.warning("%s is damaged; training resumes from before it.", folder)
    return None


def _is_whole(folder: Path) -> bool:
    try:
        checksums = read_json(folder / CHECKSUMS)
        return bool(checksums) and all(
            checksum_of(folder / name) == found for name, found in checksums.items()
        )
    except Exception:  # whatever a damaged file makes its reader raise
        return False


def checkpoints(directory: Path) -> list[Path]:
    """Returns the checkpoints of a phase, the latest last."""
    numbered = [
        found
        for found in directory.glob("checkpoint-*")
        if found.name.removeprefix("checkpoint-").isdecimal()
    ]
    return sorted(numbered, key=steps_done)


def steps_done(checkpoint: Path) -> int:
    """Returns the steps that were done when the checkpoint was written."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def remove_states_between(directory: Path) -> None:
    """Removes what nothing reads once a phase has its outcome: checkpoints, and the best state.

    Raises:
        TrainingError: A file can't be removed.
    """
    with write_errors(directory):
        for checkpoint in checkpoints(directory):
            shutil.rmtree(checkpoint)
        for name in (BEST, BEST_SCORES):
            (directory / name).unlink(missing_ok=True)


def save_state(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes weights by name, and lists their checksum; a reader finds the old file or the new one,
    never a part.

    Raises:
        TrainingError: The file can't be written.
    """
    # Where it is killed, safetensors leaves a file with a random name beside the one it writes.
    with write_errors(path), replacing(path, apart=True) as temporary:
        save_file(dict(state), temporary)
        expect(path, checksum_of(temporary))


def is_damaged(path: Path) -> bool:
    """Whether a state is there that is not what was written; if so, it is warned of.

    Args:
        path: A file of `save_state`; it need not be there.
    """
    try:
        is_whole = not is_changed(path)
    except DataError as error:
        logger.warning("%s", error)
        is_whole = False
    if not is_whole:
        logger.warning("%s is damaged; what it holds is made again.", path)
    return not is_whole


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raises one clear error where a state can't be written.

    Raises:
        TrainingError: It can't.
    """
    try:
        yield
    except (
        TrainingError,
        torch.OutOfMemoryError,
    ):  # memory to gather a state in has nothing to do with the disk
        raise
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # PyTorch reports both a full disk and full memory as RuntimeError
        if "can't allocate memory" in str(error):
            raise
        raise TrainingError(
            f"The state of the training could not be written: {error}",
            received=str(path),
            fix=f"{advice_on(error)}; the checkpoint before is kept",
        ) from error


@dataclass(frozen=True)
class _Scores:
    """What `best.json` says of the best state.

    Attributes:
        step: The step at which it was measured.
        since: The first step that reached its mean.
        mean: The mean of its scores.
        scores: Each score, by slice.
    """

    step: int
    since: int
    mean: float
    scores: dict[str, float]


class BestState:
    """Keeps the state with the highest mean score, of equals the latest, in the directory of a
    phase.

    All that it knows is in its file, so a resumed phase decides as an undisturbed one.

    Args:
        directory: Of the phase.
        patience: Validations without a better mean after which the phase ends, as it does where
            every score is 1; None trains it to its end.
        evaluation_steps: Steps between two validations.
    """

    def __init__(self, directory: Path, *, patience: int | None, evaluation_steps: int) -> None:
        self._directory = directory
        self._patience = patience
        self._evaluation_steps = evaluation_steps

    @property
    def _about(self) -> _Scores | None:
        path = self._directory / BEST_SCORES
        return read_json(path, _Scores) if path.is_file() else None

    @staticmethod
    def scores_in(directory: Path) -> dict[str, float]:
        """Returns the scores of the best state of a phase."""
        return read_json(directory / BEST_SCORES, _Scores).scores

    def consider(self, student: TrainableModel, step: int, scores: Mapping[str, float]) -> None:
        """Keeps the student's state where its mean score is at least that of the kept one."""
        mean = sum(scores.values()) / max(len(scores), 1)
        known = self._about
        if known is not None and mean < known.mean:
            return
        since = min(step, known.since) if known is not None and mean == known.mean else step
        save_state(student.trained_state(), self._directory / BEST)
        about = _Scores(step, since, mean, dict(scores))
        write_json(self._directory / BEST_SCORES, about, listed=True)

    def is_exhausted(self, step: int) -> bool:
        """Whether there is nothing left to gain: the mean has not risen for as many validations, up
        to `step`, as there is patience, or can't.
        """
        known = self._about
        if self._patience is None or known is None:
            return False
        if known.scores and min(known.scores.values()) >= 1:
            return True
        return bool(step - known.since >= self._patience * self._evaluation_steps)
