"""States of a training on disk: a file or a folder stands under its name only when it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from domainfusion.errors import TrainingError, advice_on
from domainfusion.models.base import TrainableModel


def save_state(student: TrainableModel, path: Path) -> None:
    """Writes the trained weights so that a reader, or a crash, sees the old file or the new one and nothing between.

    Raises:
        TrainingError: The file can't be written.
    """
    temporary = path.with_name(f".{path.name}")
    with write_errors(path):
        save_file(student.trained_state(), temporary)
        temporary.replace(path)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Tells in one clear error that a state could not be written.

    Raises:
        TrainingError: It could not.
    """
    try:
        yield
    except (TrainingError, torch.OutOfMemoryError):  # memory that is wanted for gathering a state is no matter of writing
        raise
    except (OSError, RuntimeError, SafetensorError) as error:  # PyTorch reports a full disk as a RuntimeError, and full memory too
        if "can't allocate memory" in str(error):
            raise
        raise TrainingError(
            f"The state of the training could not be written: {error}",
            received=str(path),
            fix=f"{advice_on(error)}; the checkpoint before is kept",
        ) from error


def checkpoints(directory: Path) -> list[Path]:
    """Returns the checkpoints of a phase, the latest last."""
    return sorted(directory.glob("checkpoint-*"), key=steps_done)


def last_checkpoint(directory: Path) -> Path | None:
    """Returns the latest checkpoint of a phase; None where there is none."""
    return next(reversed(checkpoints(directory)), None)


def steps_done(checkpoint: Path | None) -> int:
    """Returns the steps that were made when the checkpoint was written."""
    return 0 if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[1])
