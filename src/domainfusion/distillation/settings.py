"""The settings of a distillation beside its models: held-out data, and the course of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from domainfusion.checks import check_count, check_number, check_word
from domainfusion.distillation.dataset import GroupBy, Hygiene
from domainfusion.distillation.examples import ExampleLike
from domainfusion.distillation.metrics import AccuracyMetric, stated_parts
from domainfusion.distillation.run import Publisher
from domainfusion.errors import ConfigurationError
from domainfusion.types import Sampling

OnTeacherFailure = Literal["stop", "continue"]
"""What to do where an expert leaves questions unanswered."""

BESIDE, OFF = "beside", "off"
"""Where shared answers are kept, but for a path: beside the run, or with it alone."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is held out from training, and what is removed.

    Attributes:
        holdout: Share of the generated examples that is held out to evaluate on, where no test
            examples are given.
        validation_examples: Examples to choose checkpoints by, as objects, dicts or a file; by
            default none are held out.
        validation_holdout: Share of the generated examples that checkpoints are chosen by, where
            no validation examples are given.
        group_by: What no two of training, validation and test share: `group` (the examples' own),
            `query`, a key of their metadata such as `fact` or `template`, or a function that names
            an example's group.
        hygiene: What is removed from the generated examples: near-duplicates, and what contains an
            evaluation question.

    Raises:
        ConfigurationError: A share is not one, or nothing would be left to train on.
    """

    holdout: float = 0.1
    validation_examples: str | Path | Sequence[ExampleLike] | None = None
    validation_holdout: float = 0.0
    group_by: GroupBy = "group"
    hygiene: Hygiene = field(default_factory=Hygiene)

    def __post_init__(self) -> None:
        check_shares({"holdout": self.holdout, "validation_holdout": self.validation_holdout})


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a run asks, checks, refines and reports.

    Attributes:
        title: What reports call the run.
        response_sampling: How the experts answer; by default greedily, up to 256 tokens.
        verifier: Checks a target against the example's reference; one that it contradicts is never
            trained on.
        on_teacher_failure: What to do where an expert leaves some of its questions unanswered:
            `stop`, after which the same run asks for what is missing, or `continue`: examples to
            train on that need it are rejected with the reason, and what it is measured on has no
            grade there, which the report says. Likewise with questions that are longer than the
            context of an expert or the student: `stop` refuses them at the start by name,
            `continue` leaves them out.
        refinement_rounds: How often at most more examples are made where validation shows the
            student weakest, and trained on; a round that does not improve validation is undone, and
            the last. It takes validation examples and a generator that can make more.
        samples: How many answers of an expert are tried at most where its first gives no target:
            one that the reference contradicts, that the integrator does not verify, or in which it
            declines. Further answers are drawn at the temperature of `response_sampling` or, where
            that is 0, at 0.7; the best target is kept.
        answers: A store of answers that runs share, so that one with another seed, trainer or
            student asks no expert again: a path, or `beside` for `answers.sqlite` in the folder
            that holds the run's; `off` keeps answers with the run alone.
        publisher: Writes the reports at the end of a run and the model card of a saved student; by
            default `domainfusion.reports`.

    Raises:
        ConfigurationError: on_teacher_failure is not known, a number is out of range, or one of the
            others is of another kind.
    """

    title: str = "Distillation"
    response_sampling: Sampling = field(default_factory=Sampling)
    verifier: AccuracyMetric = stated_parts
    on_teacher_failure: OnTeacherFailure = "stop"
    refinement_rounds: int = 0
    samples: int = 1
    answers: str | Path = BESIDE
    publisher: Publisher | None = None

    def __post_init__(self) -> None:
        check_word("on_teacher_failure", self.on_teacher_failure, get_args(OnTeacherFailure))
        check_samples(self.samples)
        check_count("refinement_rounds", self.refinement_rounds, 0)
        if not isinstance(self.response_sampling, Sampling):
            raise ConfigurationError(
                "response_sampling is not a Sampling",
                received=self.response_sampling,
                allowed="an object of Sampling",
                fix="write Sampling(max_new_tokens=...)",
            )
        if not callable(self.verifier):
            raise ConfigurationError(
                "verifier is not a function",
                received=self.verifier,
                allowed="a function of an example and a text that returns a Score",
                fix="write metric_named('exact'), or give a function of your own",
            )
        if not isinstance(self.answers, str | Path):
            raise ConfigurationError(
                "answers is not a path", received=self.answers, allowed=f"a path, {BESIDE} or {OFF}"
            )

    def answers_for(self, run: Path) -> Path | None:
        """Returns the file of the shared answers of a run; None where it shares none."""
        if self.answers == OFF:
            return None
        return run.parent / "answers.sqlite" if self.answers == BESIDE else Path(self.answers)


MOST_SAMPLES = 100


def check_samples(samples: object) -> None:
    """Refuses anything but a number of answers.

    Raises:
        ConfigurationError: It is not a whole number from 1 to `MOST_SAMPLES`.
    """
    check_count("samples", samples, most=MOST_SAMPLES)


def check_shares(shares: Mapping[str, float]) -> None:
    """Refuses shares to hold out that are none, or leave nothing to train on.

    Args:
        shares: The shares of the examples that are held out, by the name of their parameter.

    Raises:
        ConfigurationError: One is not a share, or their sum is 1 or more.
    """
    for name, share in shares.items():
        check_number(name, share, "[0, 1)")
    if sum(shares.values()) >= 1:
        raise ConfigurationError(
            "Nothing would be left to train on",
            received=dict(shares),
            allowed="shares whose sum is below 1",
            field="validation_holdout" if shares.get("validation_holdout") else "holdout",
        )
