"""Distill several domain experts into one model, and measure what was retained."""

from importlib.metadata import version

__version__ = version("domainfusion")
