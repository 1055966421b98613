"""The notebook runs, and shows what running it gives."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from notebook import code_cells, run

FILE = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def rows_of(outputs: list[dict[str, Any]]) -> list[str]:
    """Returns the names of the rows of the tables that a cell prints, of which processors of
    different kinds give different figures.
    """
    lines = "".join(outputs[0]["text"]).splitlines()
    return [re.split(r"  +", line)[0] for line in lines if re.search(r"  +[\d.]+", line)]


def test_the_notebook_shows_what_it_gives() -> None:
    cells = code_cells(json.loads(FILE.read_text(encoding="utf-8")))
    for cell, given in zip(cells, run(cells, FILE.parent), strict=True):
        if "figures" in cell["metadata"].get("tags", ()):
            assert rows_of(given) == rows_of(cell["outputs"])
            assert "oracle" in rows_of(given)
        else:
            assert given == cell["outputs"]
    silent = [cell for cell in cells if not cell["outputs"]]
    assert silent == cells[:1], "every cell but the imports shows something"
