"""The notebook runs, and shows what running it gives."""

from __future__ import annotations

import json
from pathlib import Path

from notebook import code_cells, run

FILE = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def test_the_notebook_shows_what_it_gives() -> None:
    cells = code_cells(json.loads(FILE.read_text(encoding="utf-8")))
    stored = [cell["outputs"] for cell in cells]
    assert run(cells, FILE.parent) == stored
    assert sum(map(len, stored)) == len(cells) - 1, "every cell but the imports shows something"
