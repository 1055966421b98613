"""What a run has to show: a terminal table, one HTML file, Markdown, and the model card of the
student's folder.
"""

from __future__ import annotations

from domainfusion.distillation.results import GenerationCount
from domainfusion.distillation.run import StageTime
from domainfusion.reports.html import render_html, write_model_card, write_reports
from domainfusion.reports.markdown import render_markdown, render_model_card
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.terminal import render_terminal

__all__ = [
    "GenerationCount",
    "RunSummary",
    "StageTime",
    "render_html",
    "render_markdown",
    "render_model_card",
    "render_terminal",
    "write_model_card",
    "write_reports",
]
