"""From records to token batches: encoding, what goes through the model together, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from domainfusion.errors import TrainingError
from domainfusion.models.base import TrainableModel
from domainfusion.types import TrainingRecord
from domainfusion.wording import counted

IGNORED = -100
"""Label of a token that is not trained on."""

CROSS_DOMAIN = "cross-domain"
"""The name under which rows that need several domains are counted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as tokens.

    Attributes:
        record_id: The example's id, for messages.
        tokens: Prompt, answer and end token.
        prompt_length: How many of them are the prompt; the loss is on the rest.
        domain: What the log counts it under: the record's domain, or `cross-domain`.
        lead_length: How many tokens of the answer stand before its words because the chat template
            puts them there, such as an empty thought. A teacher that would think there has nothing
            to teach about them.
    """

    record_id: str
    tokens: tuple[int, ...]
    prompt_length: int
    domain: str = ""
    lead_length: int = 0

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens of the prompt."""
        return self.tokens[: self.prompt_length]

    @property
    def answer(self) -> tuple[int, ...]:
        """The tokens that are learned."""
        return self.tokens[self.prompt_length :]

    @property
    def lead(self) -> tuple[int, ...]:
        """The tokens of the answer that stand before its words."""
        return self.answer[: self.lead_length]


class Batch(TypedDict):
    """A padded batch: `input_ids` and `labels`, both int64 of shape (rows, time); prompt and
    padding carry the label `IGNORED`.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor


def encode_record(record: TrainingRecord, student: TrainableModel) -> Row:
    """Returns the record as the student sees it: the earlier turns and the whole query as prompt,
    the target as answer.

    What the chat template puts between the prompt and the words of an answer is trained too:
    nothing else would write it. The end of the turn is trained only where the target was finished,
    so that a cut answer is not learned as a whole one. A control token inside of query or target is
    spelled out as text: no target teaches the student to end its turn in the midst of it.
    """
    prompt = student.encode(record.example.conversation)
    answer = student.encode_answer(
        record.target, finished=record.integration.finish_reason == "stop"
    )
    domain = CROSS_DOMAIN if record.example.is_cross_domain else record.example.primary_domain
    lead_length = len(student.encode_answer("", finished=False))
    return Row(record.example.id, (*prompt, *answer), len(prompt), domain, lead_length)


def refuse_overlong(rows: Sequence[Row], limit: int | None, whose: str = "the student") -> None:
    """Raises a `TrainingError` where a row does not fit a model's context: nothing is cut silently.

    Args:
        rows: What the model is to read.
        limit: The tokens that it can read; None where there is no limit.
        whose: Who reads them, for the message.
    """
    if limit is None:
        return
    overlong = [row.record_id for row in rows if len(row.tokens) > limit]
    if overlong:
        raise TrainingError(
            f"{counted(len(overlong), 'record')} {'is' if len(overlong) == 1 else 'are'} longer than"
            f" the context of {whose}, first {overlong[0]}",
            received=max(len(row.tokens) for row in rows),
            allowed=counted(limit, "token"),
            fix="shorten the targets with a lower max_new_tokens, or leave these records out",
        )


def collate(rows: Sequence[Row], pad_token: int) -> Batch:
    """Pads rows on the right; causal attention never looks there, so no mask is needed."""
    length = max(len(row.tokens) for row in rows)
    input_ids = torch.full((len(rows), length), pad_token)
    labels = torch.full((len(rows), length), IGNORED)
    for position, row in enumerate(rows):
        tokens = torch.tensor(row.tokens)
        input_ids[position, : len(tokens)] = tokens
        labels[position, row.prompt_length : len(tokens)] = tokens[row.prompt_length :]
    return {"input_ids": input_ids, "labels": labels}


def passes_of(lengths: Sequence[int], most: int, overhead: int) -> list[list[int]]:
    """Splits the rows of a step into passes through the model, so that little of them is padding.

    A step's gradient is a sum over its rows, so it does not matter which of them go through
    together; rows of similar length do. Which rows make a step is not decided here: steps of rows
    of one length would be steps of one kind of record.

    Args:
        lengths: The length of each row, in tokens.
        most: Rows that go through together at most.
        overhead: What a pass of its own costs, in tokens that could be read instead.

    Returns:
        The indices of the rows of each pass, with the least padding and overhead together; the
        largest pass comes first, so that what does not fit into memory is known at once.

    Example:
        >>> passes_of([90, 30, 90, 30], most=4, overhead=64)
        [[2, 0], [3, 1]]
        >>> passes_of([90, 80, 90, 80], most=4, overhead=64)
        [[2, 0, 3, 1]]
    """
    by_length = sorted(range(len(lengths)), key=lambda index: lengths[index])
    cheapest = [
        (0, 0)
        # at each position, for as many of the shortest rows: what they cost, and where their last pass
        # begins
    ]
    for end, last in enumerate(by_length, start=1):
        starts = range(max(0, end - most), end)
        cheapest.append(
            min(
                (cheapest[start][0] + (end - start) * lengths[last] + overhead, start)
                for start in starts
            )
        )
    passes, end = [], len(by_length)
    while end:
        start = cheapest[end][1]
        passes.append(by_length[start:end][::-1])
        end = start
    return sorted(passes, key=lambda own: -len(own) * lengths[own[0]])
