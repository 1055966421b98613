"""From records to token batches: encoding, the order of rows, and padding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from domainfusion.errors import TrainingError
from domainfusion.models.base import TrainableModel
from domainfusion.models.encoding import encode_text
from domainfusion.types import TrainingRecord

IGNORED = -100
"""Label of a token that is not trained on."""

CROSS_DOMAIN = "cross-domain"
"""What rows that need several domains are counted under."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as tokens.

    Attributes:
        record_id: The example's id, for messages.
        tokens: Prompt, answer and end token.
        prompt_length: How many of them are the prompt; the loss is on the rest.
        domain: What the log counts it under: the record's domain, or `cross-domain`.
    """

    record_id: str
    tokens: tuple[int, ...]
    prompt_length: int
    domain: str = ""

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens of the prompt."""
        return self.tokens[: self.prompt_length]

    @property
    def answer(self) -> tuple[int, ...]:
        """The tokens that are learnt."""
        return self.tokens[self.prompt_length :]


class Batch(TypedDict):
    """A padded batch: `input_ids` and `labels`, both int64 of shape (rows, time); prompt and padding carry the label `IGNORED`."""

    input_ids: torch.Tensor
    labels: torch.Tensor


def encode_record(record: TrainingRecord, student: TrainableModel) -> Row:
    """Returns the record as the student sees it: the earlier turns and the whole query as prompt, the target as answer.

    The end of the turn is trained only where the target was finished, so that a cut answer is not learnt as a whole one. A control
    token inside of query or target is spelt out as text: no target teaches the student to end its turn in the midst of it.
    """
    prompt = student.encode(record.example.conversation)
    answer = encode_text(student.tokenizer, record.target)
    if record.integration.finish_reason == "stop":
        answer.append(student.turn_end)
    domain = CROSS_DOMAIN if record.example.is_cross_domain else record.example.primary_domain
    return Row(record.example.id, (*prompt, *answer), len(prompt), domain)


def refuse_overlong(rows: Sequence[Row], limit: int | None, whose: str = "the student") -> None:
    """Raises a `TrainingError` where a row does not fit a model's context: nothing is cut silently.

    Args:
        rows: What the model is to read.
        limit: The tokens that it can read; None where there is no limit.
        whose: Who reads them, for the message.
    """
    overlong = [row.record_id for row in rows if limit is not None and len(row.tokens) > limit]
    if overlong:
        raise TrainingError(
            f"{len(overlong)} records are longer than the context of {whose}, first {overlong[0]}",
            received=max(len(row.tokens) for row in rows),
            allowed=f"{limit:,} tokens",
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


def bucketed_order(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[int]:
    """Returns a random order in which rows of similar length stand together, so that little is padded.

    Rows are shuffled, sorted by length within windows of eight batches, and the batches shuffled.
    """
    order = list(range(len(lengths)))
    rng.shuffle(order)
    window = batch_size * 8
    batches = []
    for start in range(0, len(order), window):
        block = sorted(order[start : start + window], key=lambda index: lengths[index])
        batches += [block[at : at + batch_size] for at in range(0, len(block), batch_size)]
    short = [batch for batch in batches if len(batch) < batch_size]
    full = [batch for batch in batches if len(batch) == batch_size]
    rng.shuffle(full)
    return [index for batch in full + short for index in batch]
