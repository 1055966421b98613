"""A YAML file whose every value knows its line."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from domainfusion.errors import ConfigurationError

Location = Sequence[object]
"""The keys and positions that lead to a value, from the top."""

MOST_BYTES = 1_000_000
MOST_VALUES = 50_000
"""Keys and values of a file, each counted as often as aliases repeat it."""
DEEPEST = 50
"""Mappings and lists inside of each other."""

_START = "`domainfusion init` writes a recipe to start from"
_TOO_MUCH = "put examples into a file of their own, and name it: {type: curated, file: ...}"


class Place(NamedTuple):
    """Where a value stands in its file, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Change:
    """A value that takes the place of the one in the file.

    Attributes:
        at: The keys and positions that lead there.
        value: The value, as YAML says it.
        text: How it was written.
        option: The option that it was written after.
    """

    at: tuple[str | int, ...]
    value: Any
    text: str
    option: str = "--set"

    def __str__(self) -> str:
        return f"{self.option} {self.text}".lstrip()


# A step of a path: a key up to the next dot or bracket, or a position in brackets.
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def read_changes(text: str) -> list[Change]:
    """Reads `key=value`, with the values by the rules of a recipe.

    Args:
        text: The keys that lead to a value, such as `trainer.epochs` or
            `generators[0].num_examples`, `=`, and a value, or several with commas between them.

    Returns:
        A change for each of the values; the rest of a recipe stays.

    Raises:
        ConfigurationError: It has no `=`, or the value is not YAML.

    Example:
        >>> [change.value for change in read_changes("trainer.learning_rate=1e-4, 3e-4")]
        [0.0001, 0.0003]
        >>> read_changes("trainer.order=[law, medicine]")[0].value
        ['law', 'medicine']
    """
    path, is_given, written = text.partition("=")
    at = tuple(int(place) if place else key.strip() for key, place in _STEP.findall(path))
    if not is_given or not at:
        raise ConfigurationError(
            f"--set {text}: there is no key with a value",
            allowed="key=value, such as trainer.epochs=3 or seed=1,2,3",
        )
    try:
        values = _values_in(written)
    except yaml.YAMLError as error:
        problem = str(error).splitlines()[0]
        raise ConfigurationError(
            f"--set {text}: the value is not YAML: {problem}", fix="put a text in quotes"
        ) from error
    if len(values) == 1:
        return [Change(at, values[0], text)]
    return [Change(at, value, f"{path}={to_yaml_line(value)}") for value in values]


def _values_in(written: str) -> list[Any]:
    """Reads values with commas between them; what is not a list of values is one value."""
    try:
        found = _load(f"[{written}]")
    except yaml.YAMLError:
        return [_load(written)]
    return found or [None]


def _load(text: str) -> Any:
    loader = _RecipeLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def to_yaml_line(value: Any) -> str:
    """Returns a value as one line of YAML."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6
    )
    return text.removesuffix("\n").removesuffix("\n...")


@dataclass(frozen=True)
class Document:
    """A YAML file, read.

    Attributes:
        path: The file.
        content: Its plain data, with the values that were set in its place.
        root: Its nodes, which know their lines.
        changes: The values that were set.
    """

    path: Path
    content: Any
    root: yaml.Node
    changes: tuple[Change, ...] = ()

    def place_of(self, location: Location) -> Place:
        """Returns where a value stands; what encloses it where it is not in the file."""
        node, mark = self.root, self.root.start_mark
        for step in location:
            found = _step_into(node, step)
            if found is None:
                break
            mark, node = found
        return Place(mark.line + 1, mark.column + 1)

    def source_of(self, location: Location) -> str:
        """Returns the words with which an error names where a value stands."""
        for change in self.changes:
            if tuple(location[: len(change.at)]) == change.at:
                return str(change)
        place = self.place_of(location)
        return f"{self.path}:{place.line}:{place.column}"

    def has(self, location: Location) -> bool:
        """Whether a value stands in the file, or was set."""
        if any(tuple(location) == change.at for change in self.changes):
            return True
        node: yaml.Node = self.root
        for step in location:
            found = _step_into(node, step)
            if found is None:
                return False
            _, node = found
        return True


def read_document(path: Path) -> Document:
    """Reads a YAML file that holds one mapping.

    A file that is too long, too deep, or grows too much by its aliases is refused before it is
    looked into.

    Raises:
        ConfigurationError: The file can't be read, is not YAML or too large, holds no mapping, or a
            mapping has a key twice.
    """
    text = _text_of(path)
    loader: _RecipeLoader | None = None
    try:
        loader = _RecipeLoader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise ConfigurationError(
                f"{path}:1: the recipe holds no keys", received=text[:40] or None, fix=_START
            )
        _check_size(root, path)
        _check_keys(root, path, "", set())
        return Document(path, loader.construct_document(root), root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigurationError(
            f"{path}:{line}: the file is not YAML: {error.problem}", fix=_hint(error)
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(
            f"{path}: the file is not YAML: {str(error).splitlines()[0]}"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()


def changed(document: Document, changes: Sequence[Change]) -> Document:
    """Returns a document with other values; what it had in their places is gone.

    Raises:
        ConfigurationError: A key leads into a value that is not a mapping or a list.
    """
    content = copy.deepcopy(document.content)
    for change in changes:
        inside = content
        for depth, step in enumerate(change.at):
            is_place = isinstance(inside, list) and isinstance(step, int) and step < len(inside)
            if not is_place and not (isinstance(inside, dict) and isinstance(step, str)):
                raise _no_way(change, depth, inside)
            if depth == len(change.at) - 1:
                inside[step] = change.value
            elif isinstance(inside, dict) and inside.get(step) is None:
                # A section that is left out has its defaults.
                inside[step] = inside = {}
            else:
                inside = inside[step]
    return replace(document, content=content, changes=(*document.changes, *changes))


def _no_way(change: Change, depth: int, inside: object) -> ConfigurationError:
    """Returns the error for a key that leads nowhere."""
    within = ".".join(map(str, change.at[:depth])) or "the recipe"
    if isinstance(inside, list):
        allowed = f"[0] to [{len(inside) - 1}]" if inside else "nothing: the list is empty"
    else:
        allowed = "the keys of a mapping"
    return ConfigurationError(
        f"{change}: {within} has no {change.at[depth]!r}",
        received=clipped(inside),
        allowed=allowed,
        fix="" if isinstance(inside, list) else f"set the whole of {within}",
    )


def clipped(value: object) -> str:
    """Returns a value as an error shows it, cut where it is long."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            allowed = f"{MOST_BYTES:,} bytes"
            raise ConfigurationError(
                f"{path}: the recipe is too long", allowed=allowed, fix=_TOO_MUCH
            )
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            "The recipe can't be read: it is not UTF-8 text",
            received=str(path),
            fix="save it as UTF-8, or check the path",
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"The recipe can't be read: {error.strerror or error}",
            received=str(path),
            fix=f"check the path; {_START}",
        ) from error


def _check_size(root: yaml.Node, path: Path) -> None:
    """Refuses a file that aliases make too large, and one whose aliases hold themselves."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size_of(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            line = node.start_mark.line + 1
            raise ConfigurationError(f"{path}:{line}: a value holds itself", fix="write it out")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            sizes[id(node)] = 1 + sum(size_of(inner) for inner in _parts(node))
            open_nodes.remove(id(node))
        return sizes[id(node)]

    if size_of(root) > MOST_VALUES:
        raise ConfigurationError(
            f"{path}: the recipe is too large with all of its aliases",
            received=f"{size_of(root):,} values" if size_of(root) < 10**15 else "countless values",
            allowed=f"{MOST_VALUES:,} keys and values",
            fix="write aliases out, or leave them out",
        )


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


class _RecipeLoader(yaml.SafeLoader):
    """Reads plain data by the rules of YAML 1.2: `no` is a text, 1e-4 a number, and a date no
    date.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way; its class holds the rules of YAML 1.1

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Composes a node, as long as the file is neither too deep nor too large."""
        self._depth += 1
        self._count += 1
        if self._depth > DEEPEST or self._count > MOST_VALUES:
            what = (
                f"more than {DEEPEST} mappings and lists stand inside of each other"
                if self._depth > DEEPEST
                else f"it holds more than {MOST_VALUES:,} keys and values; {_TOO_MUCH}"
            )
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, what, mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


_PLAIN_VALUES = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (r"[-+]?[0-9]{1,18}", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}
for _tag, (_pattern, _first) in _PLAIN_VALUES.items():
    _RecipeLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )
_RecipeLoader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(str(node.value), 10)
)


class _Dumper(yaml.SafeDumper):
    """Writes plain data so that `_RecipeLoader` reads the same."""

    yaml_implicit_resolvers = _RecipeLoader.yaml_implicit_resolvers


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Only in double quotes are all characters safe: PyYAML breaks lines at U+0085 and U+2028
    # elsewhere, and folds them on reading.
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    )


_Dumper.add_representer(str, _represent_text)


def to_yaml(content: object) -> str:
    """Returns plain data as YAML that `read_document` reads back as it was."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _check_keys(node: yaml.Node, path: Path, within: str, seen: set[int]) -> None:
    """Refuses keys that are not text, and keys that a mapping has twice: YAML would silently keep
    the last.
    """
    if id(node) in seen:  # an alias: the same node, and perhaps one that holds itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (
                "tag:yaml.org,2002:str",
                "tag:yaml.org,2002:merge",
            ):
                raise ConfigurationError(
                    f"{path}:{line}: a key is not text",
                    received=key.value if isinstance(key, yaml.ScalarNode) else None,
                    fix="write it in quotes",
                )
            if key.value in lines:
                what = "the domain" if within == "domains" else "the key"
                raise ConfigurationError(
                    f"{path}:{line}: {what} {key.value!r} is listed twice, first in line"
                    f" {lines[key.value]}",
                    fix="remove one of the two",
                )
            lines[key.value] = line
    for name, child in _children(node):
        _check_keys(child, path, name, seen)


def _children(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from (("", child) for child in node.value)


def _step_into(node: yaml.Node, step: object) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        # The last of them counts: a key of the mapping's own stands behind those that `<<` merged
        # in.
        found = [(key.start_mark, value) for key, value in node.value if key.value == step]
        return found[-1] if found else None
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None


def _hint(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem)
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in problem:
        return "put a text that contains a colon in quotes"
    return "check indentation, quotes and colons there"
