"""The models of a run, loaded once to be asked: what `ask`, `chat` and `play` share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from domainfusion.distillation import ResponseIntegrator
    from domainfusion.models import LanguageModel
    from domainfusion.progress import Progress
    from domainfusion.types import Sampling


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide how answers are written."""
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help="the system prompt (default: the one that the student of a run learned with)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=256,
        metavar="N",
        help="tokens after which an answer is cut (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 takes the most probable token, more draws (default: %(default)s)",
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw from the most probable tokens that have this share (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the draws (default: %(default)s)"
    )


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """Returns how answers are written, as the options say."""
    from domainfusion.types import Sampling

    return Sampling(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
    )


class ModelToAsk(NamedTuple):
    """Where a model lies, and the system prompt that it learned with."""

    path: str
    system_prompt: str | None


def student_of(model: str) -> ModelToAsk:
    """Returns the student's folder, and the system prompt that it learned with, where `model` is a
    run; else `model` itself.

    Raises:
        RunError: The run has no student yet.
    """
    from domainfusion.cli.runs import check_student
    from domainfusion.distillation.run import RunFiles
    from domainfusion.errors import RunError
    from domainfusion.records import read_json

    run = RunFiles(Path(model))
    if not run.description.is_file():
        return ModelToAsk(model, None)
    if not (run.student / "config.json").is_file():
        raise RunError(
            "This run has no student yet",
            received=model,
            fix=f"see `domainfusion status {model}`, and run its command again",
        )
    check_student(run.path)
    return ModelToAsk(
        str(run.student), read_json(run.description).get("student", {}).get("system_prompt")
    )


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Who can be asked. Weights are loaded when a model is asked first, and stay.

    Attributes:
        models: `student`, `base`, and the expert of each domain by the domain's name.
        experts: The domains that have an expert here.
        integrator: Makes one answer of the experts'; None where there are no experts.
        domains: The description of each domain.
    """

    models: Mapping[str, LanguageModel]
    experts: tuple[str, ...] = ()
    integrator: ResponseIntegrator | None = None
    domains: Mapping[str, str] = field(default_factory=dict)


def open_panel(model: str, *, system: str | None, progress: Progress) -> Panel:
    """Returns the models of a run; of a model that is not a run, or of a run whose experts can't be
    built again, the student alone.

    Args:
        model: A run, or whatever `ask` takes.
        system: A system prompt in place of the one that the student learned with.
        progress: Shows how far loading is.
    """
    from domainfusion.distillation.run import RunFiles
    from domainfusion.models import HuggingFaceModel

    path, system_prompt = student_of(model)
    prompt = system_prompt if system is None else system
    student = HuggingFaceModel(path, system_prompt=prompt)
    files = RunFiles(Path(model))
    if not (files.recipe.is_file() or files.demo.is_file()):
        return Panel(models={"student": student})
    from domainfusion.cli.runs import rebuild

    distiller = rebuild(Path(model), progress=progress)
    experts = dict(distiller.teacher_models)
    # A domain may be called as the others are; its expert is then asked under another name.
    named = {f"{name} expert" if name in ("student", "base") else name: name for name in experts}
    return Panel(
        models={
            "student": student,
            "base": distiller.student_model,
            **{name: experts[domain] for name, domain in named.items()},
        },
        experts=tuple(named),
        integrator=distiller.integrator,
    )
