"""The objective `distribution`: the teachers' distributions at every token of the targets, not the
tokens alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from domainfusion.checks import check_number, check_word
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import TokenScorer
from domainfusion.training.batching import Row
from domainfusion.training.losses import Divergence, token_losses
from domainfusion.training.objectives import Answers, Losses, Objective, Setting
from domainfusion.training.reading import (
    KeptSignals,
    Signal,
    SignalStore,
    Teaching,
    TopSignal,
    plan_teaching,
    taught_by,
)

logger = logging.getLogger("domainfusion")

_BETAS: Mapping[str, float] = {"skew_kl": 0.1, "jensen_shannon": 0.5}


class DistributionObjective(Objective):
    """(1−α)·cross-entropy + α·τ²·divergence from the teacher's distribution, at every token of a
    target (arXiv 1503.02531).

    The teacher of a single-domain record is its domain's; that of a cross-domain record is the
    integrator, which saw the teachers' responses.

    Before the first step each teacher reads its records once. Its final hidden states and head are
    kept on disk, which is exact, so no teacher has to be in memory beside the student. Of a served
    teacher that scores, the most probable tokens are kept; the rest of its distribution is one
    share, for the student too, so the divergence is at most the whole one. Records
    whose teacher gives text alone are trained with cross-entropy on the target in the same
    training; the log counts them.

    Args:
        divergence: How far the student is from its teacher; see `losses.Divergence`.
        beta: The teacher's weight in the mixture of `skew_kl` (by default 0.1) and `jensen_shannon`
            (0.5).
        temperature: What the logits of both are divided by; the divergence is multiplied by its
            square.
        alpha: Share of the divergence in the loss of a token that is taught; the rest is
            cross-entropy.
        keep_in: A folder for the signals of several trainings, such as trials of learning rates; by
            default they go with the training.

    Raises:
        ConfigurationError: A number is out of range, a word is not known, or two settings do not go
            together.
    """

    def __init__(
        self,
        *,
        divergence: Divergence = "forward_kl",
        beta: float | None = None,
        temperature: float = 1.0,
        alpha: float = 0.5,
        keep_in: str | Path | None = None,
    ) -> None:
        check_word("divergence", divergence, get_args(Divergence))
        if beta is not None and divergence not in _BETAS:
            raise ConfigurationError(
                f"{divergence} has no beta",
                received=beta,
                fix=f"leave it out, or use {' or '.join(_BETAS)}",
            )
        beta = _BETAS.get(divergence, 0.5) if beta is None else beta
        check_number("beta", beta, "(0, 1)")
        check_number("temperature", temperature, "(0, inf)")
        check_number("alpha", alpha, "(0, 1]")
        self.divergence: Divergence = divergence
        self.beta = beta
        self.temperature = temperature
        self.alpha = alpha
        self._teaching: Teaching | None = None
        self._keep_in = None if keep_in is None else Path(keep_in)
        self._kept: KeptSignals | None = None

    @property
    def teaching(self) -> Teaching:
        """Who teaches what, once `begin` was called."""
        assert self._teaching is not None, "begin() comes first"
        return self._teaching

    def begin(self, setting: Setting) -> Mapping[str, Any]:
        """Lets every teacher read what it teaches, and returns what is kept of it.

        Raises:
            CapabilityError: Tokens of a teacher are not the student's, or no teacher says what is
                probable.
            ConfigurationError: A temperature is set, and a served teacher scores.
            ModelError: A served teacher was given up; what it scored is kept.
            TrainingError: A prompt with its answer does not fit a teacher, or signals can't be
                kept.
        """
        self._teaching = plan_teaching(setting)
        if self._teaching.served and self.temperature != 1:
            names = [model.name for model in self._teaching.served.values()]
            raise ConfigurationError(
                "A served teacher scores at temperature 1: another needs the whole distribution",
                received=f"temperature={self.temperature:g}, {', '.join(names)}",
                fix="set temperature=1, or load the teacher on this machine",
            )
        self._kept = KeptSignals(
            self._teaching, SignalStore(self._keep_in or setting.directory / "signals")
        )
        assert isinstance(setting.student, TokenScorer)
        found = self._kept.read(setting.student, setting.progress)
        logger.info(
            "Teacher signals: %d tokens, %.0f bytes a token, %.1f MB in all.",
            found["tokens"],
            found["bytes_per_token"],
            found["bytes"] / 1e6,
        )
        return {"objective": "distribution", **self._teaching.describe(), "signals": found}

    def vocabulary_of(self, row: Row) -> int:
        """Returns the ids that the student shares with a row's teachers; 0 where it has none."""
        return self.teaching.vocabulary_of(row) if row in self.teaching.lessons else 0

    def losses(self, answers: Answers) -> Losses:
        """Returns the divergence from the teachers, mixed with the cross-entropy, which stands
        alone where nobody teaches.
        """
        device = answers.hidden.device
        dtype = (
            torch.get_autocast_dtype(device.type)
            if torch.is_autocast_enabled(device.type)
            else None
        )
        signals = [self.signal_of(row, device, dtype) for row in answers.rows]
        found = token_losses(
            answers.hidden,
            answers.head,
            answers.targets,
            answers.weights,
            taught=taught_by(
                answers.rows, signals, [self.vocabulary_of(row) for row in answers.rows], device
            ),
            divergence=self.divergence,
            beta=self.beta,
            temperature=self.temperature,
            alpha=self.alpha,
        )
        return Losses(
            found.total, {"cross_entropy": found.cross_entropy, self.divergence: found.divergence}
        )

    def signal_of(
        self, row: Row, device: torch.device, dtype: torch.dtype | None
    ) -> Signal | TopSignal | None:
        """Returns the signal that is kept for the row."""
        assert self._kept is not None, "begin() comes first"
        return self._kept.of(row, device, dtype)
