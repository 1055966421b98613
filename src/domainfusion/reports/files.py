"""The reports of a run as files in its directory."""

from __future__ import annotations

from pathlib import Path

from domainfusion.records import write_text
from domainfusion.reports.html import render_html
from domainfusion.reports.markdown import render_markdown
from domainfusion.reports.model_card import render_model_card
from domainfusion.reports.summary import RunSummary

MODEL = "model"
"""The folder of the student within a run."""


def write_reports(run_directory: Path) -> RunSummary:
    """Writes `report.html`, `report.md` and, where the run holds its student, the student's model
    card.

    Args:
        run_directory: The directory of the run, finished or not.

    Returns:
        What the reports are made of.

    Raises:
        DataError: The directory, or a file in it, can't be read or written.
    """
    summary = RunSummary.read(run_directory)
    write_text(run_directory / "report.html", render_html(summary))
    write_text(run_directory / "report.md", render_markdown(summary))
    if (run_directory / MODEL).is_dir():
        write_text(run_directory / MODEL / "README.md", render_model_card(summary))
    return summary
