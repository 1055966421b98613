"""The weight of the experts in the merge that a student starts from, chosen by what the merge alone
reaches on validation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from domainfusion.errors import TrainingError
from domainfusion.models.base import TrainableModel
from domainfusion.records import read_json, write_json
from domainfusion.training.loop import Validate
from domainfusion.types import Conversation, Message, TrainingRecord

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
                    write_json(self._path, self._entries, listed=True)
            entry["value"] = decide(entry["measured"])
            write_json(self._path, self._entries, listed=True)
            self._log({"chosen": name, **entry})
            logger.info("%s: chose %s, from %s", name, entry["value"], entry["measured"])
        return entry["value"]


MERGE_WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The weights λ that `merge_weight="auto"` tries."""

CHOICE = "merge_weight"


READ_FOR_MERGE = 64
"""Answers of each expert that it reads for a RegMean merge."""


def answered_by(
    experts: Collection[str], records: Sequence[TrainingRecord]
) -> dict[str, list[Conversation]]:
    """Returns some dialogues of each expert: what it was asked, and what it answered.

    Args:
        experts: The domains.
        records: All that is trained on; the first whole answers of each expert are taken, evenly
            spread over them.
    """
    found: dict[str, list[Conversation]] = {domain: [] for domain in experts}
    for record in records:
        for response in record.responses:
            if (
                response.domain in found
                and response.text.strip()
                and response.finish_reason == "stop"
            ):
                answer = Message("assistant", response.text)
                found[response.domain].append(
                    (*record.example.conversation_for(response.domain), answer)
                )
    return {
        domain: own[:: max(1, len(own) // READ_FOR_MERGE)][:READ_FOR_MERGE]
        for domain, own in found.items()
    }


def choose_merge_weight(
    merged: Callable[[float], TrainableModel],
    weights: Sequence[float],
    validate: Validate,
    choices: Choices,
) -> float:
    """Returns the weight λ whose merge θ + λ·Σ(θₖ − θ) has the best mean score; of equals, the
    smallest.

    Args:
        merged: Returns the merge of a weight.
        weights: What is tried.
        validate: Scores a model on held-out examples.
        choices: Keeps the scores of every merge, and the choice.

    Raises:
        TrainingError: The validation gives no score.
    """
    if (made := choices.made(CHOICE)) is not None:
        return float(made)

    def reached(weight: str) -> dict[str, float]:
        scores = dict(validate(merged(float(weight))))
        if not scores:
            raise TrainingError(
                "merge_weight is chosen by validation, which gives no score",
                fix="give validation examples with answers",
            )
        return scores

    return float(
        choices.make(CHOICE, [f"{weight:g}" for weight in sorted(set(weights))], reached, _best)
    )


def _best(measured: Mapping[str, Any]) -> float:
    return float(
        max(measured, key=lambda weight: sum(measured[weight].values()) / len(measured[weight]))
    )
