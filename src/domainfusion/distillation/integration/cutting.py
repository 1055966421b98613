"""Cut answers: what the token limit broke off is not merged into the middle of an answer."""

from __future__ import annotations

from dataclasses import replace

from domainfusion.distillation.integration.structure import units_of
from domainfusion.distillation.integration.task import Task
from domainfusion.types import Dropped, Response

CUT = "cut at the token limit"
_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟", "।", '"', "”", "’", ")", "`")
"""What a finished sentence ends with."""


def without_cut(task: Task) -> tuple[Task, tuple[Dropped, ...]]:
    """Leaves out what the token limit broke off, where several experts have something to say.

    Where an expert's answer is whole, those that were cut are left out. Where all of them were cut,
    each is taken up to its last whole sentence or block. One answer by itself stays as it is.

    Args:
        task: An example and its responses.

    Returns:
        The task with what is left, and what was left out.
    """
    said = {
        domain: response for domain, response in task.responses.items() if response.text.strip()
    }
    cut = {
        domain: response for domain, response in said.items() if response.finish_reason == "length"
    }
    if not cut or len(said) < 2:
        return task, ()
    if len(cut) < len(said):
        rest = {
            domain: response for domain, response in task.responses.items() if domain not in cut
        }
        return Task(task.example, rest), tuple(
            Dropped(domain=domain, text=said.text, reason=CUT) for domain, said in cut.items()
        )
    whole = {domain: _whole_part(response) for domain, response in cut.items()}
    if not any(whole.values()):
        return task, ()
    rest = {
        domain: replace(response, text=whole[domain])
        for domain, response in cut.items()
        if whole[domain]
    }
    ends = {domain: response.text[len(whole[domain]) :].strip() for domain, response in cut.items()}
    return Task(task.example, rest), tuple(
        Dropped(domain=domain, text=end, reason=CUT) for domain, end in ends.items() if end
    )


def _whole_part(response: Response) -> str:
    """Returns a cut response up to its last whole sentence or block."""
    units = units_of(response.text)
    last = response.text[units[-1].start : units[-1].end]
    if units[-1].block.is_prose and last.endswith(_ENDS):
        return response.text
    return response.text[: units[-2].end] if len(units) > 1 else ""
