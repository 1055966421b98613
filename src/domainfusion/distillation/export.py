"""Records in the formats of other trainers, and as tables of pandas."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from domainfusion.checks import check_word
from domainfusion.errors import MissingDependencyError
from domainfusion.records import write_text
from domainfusion.types import Conversation, Example, Message, TrainingRecord

ExportFormat = Literal["messages", "prompt-completion", "sharegpt"]
"""`messages` (TRL, LLaMA-Factory, Axolotl), `prompt-completion` (TRL, which then trains on the
answers alone, as is done here), or `sharegpt` (LLaMA-Factory).
"""


@dataclass(frozen=True)
class Exported:
    """The outcome of an export.

    Attributes:
        written: Rows.
        left_out: How many were left out, by reason.
    """

    written: int
    left_out: Mapping[str, int] = field(default_factory=dict)


def export_messages(
    items: Iterable[TrainingRecord | Example],
    path: str | Path,
    *,
    format: ExportFormat = "messages",
    system_prompt: str | None = None,
) -> Exported:
    """Writes what a student is trained on as JSON Lines, a dialogue each.

    Left out are rejected records, those without an answer, and those whose answer was cut, as
    others would learn it as a whole one; of examples, those without a reference.

    Args:
        items: Records, whose targets are the answers; or examples, whose references are.
        path: The file.
        format: Which format.
        system_prompt: The system message that every dialogue begins with; None for none.

    Raises:
        ConfigurationError: The format is not known.
        DataError: The file can't be written.
    """
    check_word("format", format, get_args(ExportFormat))
    system = () if system_prompt is None else (Message("system", system_prompt),)
    rows, left_out = [], Counter[str]()
    for item in items:
        example = item.example if isinstance(item, TrainingRecord) else item
        answer, problem = _answer_of(item)
        if problem:
            left_out[problem] += 1
        else:
            rows.append(_ROWS[format]((*system, *example.conversation), answer))
    write_text(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Exported(len(rows), dict(left_out))


def _answer_of(item: TrainingRecord | Example) -> tuple[str, str]:
    """Returns the answer, and why there is none to export."""
    if isinstance(item, Example):
        return item.reference or "", "" if item.reference else "without a reference"
    if item.verification == "rejected":
        return "", "rejected"
    if not item.target.strip():
        return "", "without an answer"
    return (
        item.target,
        "cut at the token limit" if item.integration.finish_reason == "length" else "",
    )


def _messages(conversation: Conversation, answer: str) -> dict[str, Any]:
    return {"messages": [*_plain(conversation), *_plain((Message("assistant", answer),))]}


def _prompt_completion(conversation: Conversation, answer: str) -> dict[str, Any]:
    return {"prompt": _plain(conversation), "completion": _plain((Message("assistant", answer),))}


def _sharegpt(conversation: Conversation, answer: str) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    turns = [
        message
        for message in (*conversation, Message("assistant", answer))
        if message.role != "system"
    ]
    system = {"system": conversation[0].content} if conversation[0].role == "system" else {}
    return {
        "conversations": [
            {"from": names[message.role], "value": message.content} for message in turns
        ],
        **system,
    }


def _plain(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in conversation]


_ROWS: Mapping[str, Callable[[Conversation, str], dict[str, Any]]] = {
    "messages": _messages,
    "prompt-completion": _prompt_completion,
    "sharegpt": _sharegpt,
}


def to_pandas(items: Iterable[Example | TrainingRecord]) -> Any:
    """Returns examples or records as a `pandas.DataFrame`, a row each.

    A record has the columns of its example, and then its target and how that came about.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    return frame([_row(item) for item in items])


def _row(item: Example | TrainingRecord) -> dict[str, Any]:
    example = item.example if isinstance(item, TrainingRecord) else item
    row: dict[str, Any] = {
        "id": example.id,
        "query": example.query,
        "domains": list(example.domains),
        "source": example.source,
        "reference": example.reference,
        "parts": {part.domain: list(part.answers) for part in example.parts},
        "group": example.group,
    }
    if isinstance(item, TrainingRecord):
        row |= {
            "target": item.target,
            "method": item.integration.method,
            "verification": item.verification,
            "reason": item.reason,
            "responses": {response.domain: response.text for response in item.responses},
            "conflicts": len(item.integration.ledger.conflicts),
        }
    return row


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns rows as a `pandas.DataFrame`.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError(
            "A DataFrame needs pandas", fix="run: pip install 'domainfusion[data]'"
        ) from error
    return pandas.DataFrame(rows)
