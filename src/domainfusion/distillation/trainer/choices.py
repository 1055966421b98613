"""What a training chooses before its first step, by what it measures: chosen once, and kept with
the measurements.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from domainfusion.records import read_json, write_json

logger = logging.getLogger("domainfusion")


class Choices:
    """The choices of one training, in a file of its directory: a resumed training measures what is
    missing, and nothing twice.

    Args:
        path: The file; it need not be there.
        log: Receives each choice when it is made.
    """

    def __init__(
        self, path: Path, log: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> None:
        self._path = path
        self._log = log
        self._entries: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}

    def made(self, name: str) -> Any:
        """Returns what was chosen; None where nothing was."""
        return self._entries.get(name, {}).get("value")

    def make(
        self,
        name: str,
        options: Iterable[str],
        measure: Callable[[str], Any],
        decide: Callable[[Mapping[str, Any]], Any],
    ) -> Any:
        """Returns the choice that was made, or makes it.

        Args:
            name: The setting that is chosen.
            options: What there is to measure.
            measure: Returns what speaks for an option, as JSON data.
            decide: Returns the choice, as JSON data, from what was measured for each option.
        """
        entry = self._entries.setdefault(name, {"measured": {}})
        if "value" not in entry:
            for option in options:
                if option not in entry["measured"]:
                    entry["measured"][option] = measure(option)
                    write_json(self._path, self._entries)
            entry["value"] = decide(entry["measured"])
            write_json(self._path, self._entries)
            self._log({"chosen": name, **entry})
            logger.info("%s: chose %s, from %s", name, entry["value"], entry["measured"])
        return entry["value"]
