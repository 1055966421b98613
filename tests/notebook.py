"""Runs a notebook's code as Jupyter would, and keeps what it prints: `python tests/notebook.py
examples/tour.ipynb` writes the outputs into the file.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(cells: list[dict[str, Any]], folder: Path) -> list[list[dict[str, Any]]]:
    """Runs the code cells in one namespace, and returns the outputs of each.

    Args:
        cells: The cells of a notebook, as nbformat 4 stores them.
        folder: Where it lies: what it imports from there is found.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    sys.path.insert(0, str(folder))
    try:
        return [_outputs("".join(cell["source"]), names, place) for place, cell in enumerate(cells)]
    finally:
        sys.path.remove(str(folder))


def _outputs(source: str, names: dict[str, Any], place: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    value = None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if isinstance(last, ast.Expr):
            # As in Jupyter, the value of the last line is shown.
            exec(compile(ast.Module(tree.body[:-1], []), f"cell {place}", "exec"), names)
            value = eval(compile(ast.Expression(last.value), f"cell {place}", "eval"), names)
        else:
            exec(compile(tree, f"cell {place}", "exec"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        shown = {"text/plain": repr(value).splitlines(keepends=True)}
        outputs.append(
            {
                "output_type": "execute_result",
                "execution_count": place + 1,
                "data": shown,
                "metadata": {},
            }
        )
    return outputs


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def main() -> None:
    file = Path(sys.argv[1])
    notebook = json.loads(file.read_text(encoding="utf-8"))
    cells = code_cells(notebook)
    for place, (cell, outputs) in enumerate(zip(cells, run(cells, file.parent), strict=True)):
        cell["execution_count"], cell["outputs"] = place + 1, outputs
    file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
