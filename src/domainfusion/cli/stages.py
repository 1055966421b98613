"""The stages of a run, one after the other, up to the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domainfusion.distillation import Distiller

STAGES = ("generate", "collect", "integrate", "train", "refine", "evaluate")


def run_stages(distiller: Distiller, until: str, *, on_start: Callable[[], None]) -> None:
    """Runs the stages of a distiller up to `until`; those that are done are not done again. The
    student is saved before it is measured.

    Args:
        distiller: The distiller.
        until: The last stage to run, one of `STAGES`.
        on_start: Called as soon as the run's directory is known to be this distiller's.
    """
    from domainfusion.cli.outcome import save_student

    wanted = STAGES[: STAGES.index(until) + 1]
    examples = distiller.generate()
    on_start()
    if wanted == STAGES:
        # This holds the directory from the first stage to the last.
        distiller.distill(on_trained=lambda: save_student(distiller))
        return
    if "collect" in wanted:
        collected = distiller.collect(examples)
    if "integrate" in wanted:
        records = distiller.integrate(collected)
    if "train" in wanted:
        distiller.train(records)
    if distiller.refinement_rounds and (
        "refine" in wanted or ("train" in wanted and _is_refined(distiller))
    ):
        # where it is over, this loads the student of the run: no other may take its place
        distiller.refine()
    if distiller.student is not None:
        save_student(distiller)


def _is_refined(distiller: Distiller) -> bool:
    from domainfusion.distillation.refinement import read_refinement
    from domainfusion.distillation.run import RunFiles

    return bool(read_refinement(RunFiles(distiller.output_dir)).stopped)
