"""The best state of a phase by validation, and when to wait for a better one no longer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainfusion.models.base import TrainableModel
from domainfusion.records import read_json, write_json
from domainfusion.training.checkpoints import save_state

BEST = "best.safetensors"


class BestState:
    """Keeps the state with the highest mean score, of equals the latest, in the directory of a phase.

    All that it knows is in its file, so that a resumed phase decides as an uninterrupted one.

    Args:
        directory: Of the phase.
        patience: Validations without a better mean after which the phase has no more to gain; None waits for its end.
        evaluation_steps: Steps between two validations.
    """

    def __init__(self, directory: Path, *, patience: int | None, evaluation_steps: int) -> None:
        self._directory = directory
        self._patience = patience
        self._evaluation_steps = evaluation_steps

    @property
    def _about(self) -> dict[str, Any] | None:
        path = self._directory / "best.json"
        return read_json(path) if path.is_file() else None

    @staticmethod
    def scores_in(directory: Path) -> dict[str, float]:
        """Returns what the best state of a phase scored."""
        return dict(read_json(directory / "best.json")["scores"])

    def consider(self, student: TrainableModel, step: int, scores: Mapping[str, float]) -> None:
        """Keeps the student's state where its mean score is at least that of the one that is kept."""
        mean = sum(scores.values()) / max(len(scores), 1)
        known = self._about
        if known is not None and mean < known["mean"]:
            return
        since = min(step, known["since"]) if known is not None and mean == known["mean"] else step
        save_state(student, self._directory / BEST)
        write_json(self._directory / "best.json", {"step": step, "since": since, "mean": mean, "scores": dict(scores)})

    def is_exhausted(self, step: int) -> bool:
        """Whether the mean has not risen in as many validations, up to `step`, as there is patience."""
        known = self._about
        return self._patience is not None and known is not None and step - known["since"] >= self._patience * self._evaluation_steps
