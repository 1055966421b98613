"""The tables of `docs/recipe.md`: the keys of each section, from the section itself and from the
docstring of the class that it stands for.

`python -m domainfusion.recipe.reference docs/recipe.md` writes them anew, between the marks that
are in the page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from domainfusion.recipe import sections
from domainfusion.recipe.derivation import Section, entries_of, settings_of
from domainfusion.recipe.values import in_words
from domainfusion.records import write_text

# <!-- keys: Section --> or <!-- keys: Section beside Other -->, the table, and <!-- end -->.
_TABLE = re.compile(r"(<!-- keys: (\w+)(?: beside (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)
_HEADING = "| key | value | what it is | default |\n|---|---|---|---|\n"


def with_tables(page: str) -> str:
    """Returns a page with the tables between its marks as they have to be.

    A table of one section beside another has the keys that the other does not have, or has with
    another default.
    """

    def replaced(match: re.Match[str]) -> str:
        begin, name, beside, end = match.groups()
        other = _rows(beside) if beside else {}
        rows = [row for key, row in _rows(name).items() if other.get(key) != row]
        return begin + "\n" + _HEADING + "".join(rows) + "\n" + end

    return _TABLE.sub(replaced, page)


def _rows(name: str) -> dict[str, str]:
    """Returns the rows of a section by key; what is required comes first."""
    section = getattr(sections, name)
    about: dict[str, str] = {}
    for source in section.sources:
        for setting in settings_of(source.place):
            about.setdefault(source.keys.get(setting.name, setting.name), setting.about)
    for base in reversed(section.__mro__):
        about |= entries_of(vars(base).get("__doc__") or "", "Keys")
    rows = {}
    fields = section.model_fields
    for key in sorted(fields, key=lambda key: not fields[key].is_required()):
        if key == "type":
            continue
        field = fields[key]
        default = "required" if field.is_required() else _default(field.default)
        value = _value(field)
        rows[key] = f"| `{key}` | {value} | {_plain(about[key])} | {default} |\n"
    return rows


def _value(field: FieldInfo) -> str:
    """Describes the values of a key in a few words."""
    # Of `Annotated`, pydantic keeps what it annotates and the annotations apart.
    said = [item for item in field.metadata if isinstance(item, str)]
    return said[0] if said else in_words(field.annotation)


def _default(value: Any) -> str:
    if value in (None, PydanticUndefined, {}, []) or isinstance(value, Section):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(text: str) -> str:
    """Returns a docstring's text as a cell of a table."""
    for python, yaml in {"None": "`null`", "False": "false", "True": "true"}.items():
        text = re.sub(rf"\b{python}\b", yaml, text)
    return text.replace("|", "\\|").replace("`model_path`", "`path`").removesuffix(".")


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        write_text(path, with_tables(path.read_text(encoding="utf-8")))
