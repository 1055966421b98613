"""Teachers read rows: what they find probable at the answers, as signals that are kept or used at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from domainfusion.models.base import TokenScorer
from domainfusion.models.generation import buckets
from domainfusion.models.projection import Head
from domainfusion.progress import Progress
from domainfusion.training import losses
from domainfusion.training.batching import Row
from domainfusion.training.distributions import HiddenTargets, SampledTargets
from domainfusion.training.losses import Taught
from domainfusion.training.teacher_signals import SignalStore
from domainfusion.training.teaching import Lesson, Teaching
from domainfusion.types import fingerprint

Signals = Literal["hidden", "sampled"]
"""What is kept of a teacher's distributions: final hidden states, exactly, or tokens drawn from them."""

MOST_DRAWS = 32_767
"""Counts are kept in 16 bits."""


@dataclass(frozen=True)
class Form:
    """In which form signals are kept.

    Attributes:
        signals: What is kept.
        draws: Tokens drawn at each place, for `sampled`.
        temperature: What logits are divided by before they are drawn from.
        seed: Seed of the draws.
    """

    signals: Signals = "hidden"
    draws: int = 50
    temperature: float = 1.0
    seed: int = 0

    def key(self, row: Row, lesson: Lesson, vocabulary: int) -> str:
        """Returns what the signals of a lesson are found by: example, teacher, and all the words that the teacher reads."""
        drawn = [self.draws, self.temperature, self.seed, vocabulary] if self.signals == "sampled" else []
        return fingerprint([row.record_id, lesson.teacher, lesson.prompt, row.answer, self.signals, *drawn], length=32)


class Signal(NamedTuple):
    """What one teacher finds probable at a row's answer.

    Attributes:
        tensors: `hidden`, of shape (answer tokens, hidden); or what `draw` returns.
        head: The teacher's head; None for draws.
        weight: The teacher's weight in the mixture.
    """

    tensors: Mapping[str, torch.Tensor]
    head: Head | None
    weight: float


def read_answers(model: TokenScorer, lessons: Sequence[tuple[Row, Lesson, str]]) -> list[torch.Tensor]:
    """Returns the hidden states from which the model predicts each row's answer, of shape (answer tokens, hidden)."""
    states = model.hidden_states([(*lesson.prompt, *row.answer) for row, lesson, _ in lessons])
    return [hidden[len(lesson.prompt) - 1 : -1] for hidden, (_, lesson, _) in zip(states, lessons, strict=True)]


class KeptSignals:
    """The signals of a training's teachers, on disk.

    Args:
        teaching: Who teaches what.
        form: In which form signals are kept.
        store: Where.
    """

    def __init__(self, teaching: Teaching, form: Form, store: SignalStore) -> None:
        self._teaching, self._form, self._store = teaching, form, store
        self._keys = {
            row: tuple(form.key(row, lesson, teaching.vocabulary[lesson.teacher]) for lesson in lessons)
            for row, lessons in teaching.lessons.items()
        }

    def read(self, student: object, progress: Progress) -> dict[str, Any]:
        """Lets every teacher read what it teaches, unless that is kept already, one teacher after the other.

        A teacher that shares no weights with the student or with who reads after it lets go of its own.

        Args:
            student: Who keeps its weights.
            progress: Shows how far each teacher is.

        Returns:
            What is kept, for the log: tokens, bytes, bytes per token, and the seconds that it took.
        """
        started = time.perf_counter()
        waiting, held = list(self._teaching.models), list[TokenScorer]()
        for teacher, model in self._teaching.models.items():
            self._let_read(teacher, progress)
            waiting.remove(teacher)
            held.append(model)
            needed = [student, *(self._teaching.models[other] for other in waiting)]
            held = [own for own in held if not let_go(own, needed)]
        sizes = {key: len(row.answer) for row, keys in self._keys.items() for key in keys}
        tokens, size = sum(sizes.values()), sum(self._store.bytes_of(key) for key in sizes)
        return {
            "kept": self._form.signals,
            "tokens": tokens,
            "bytes": size,
            "bytes_per_token": round(size / max(tokens, 1), 1),
            "seconds": round(time.perf_counter() - started, 2),
        }

    def _let_read(self, teacher: str, progress: Progress) -> None:
        """Lets one teacher read. Its batches do not depend on what is kept already, so that a killed run ends as one that was not."""
        lessons = [
            (row, lesson, key)
            for row, own in self._teaching.lessons.items()
            for lesson, key in zip(own, self._keys[row], strict=True)
            if lesson.teacher == teacher
        ]
        missing = {key for _, _, key in lessons if key not in self._store}
        if not missing:
            return
        model, vocabulary = self._teaching.models[teacher], self._teaching.vocabulary[teacher]
        head = model.head()
        name = self._store.keep_head(head)
        with progress(f"reading: {model.name}", len(lessons), len(lessons) - len(missing)) as advance:
            for batch in buckets([len(lesson.prompt) + len(row.answer) for row, lesson, _ in lessons], getattr(model, "batch_size", 32)):
                wanted = [lessons[index] for index in batch]
                if missing.isdisjoint(key for _, _, key in wanted):
                    continue
                for hidden, (_, _, key) in zip(read_answers(model, wanted), wanted, strict=True):
                    if key in missing:
                        found = {"hidden": hidden} if self._form.signals == "hidden" else draw(head, hidden, vocabulary, self._form, key)
                        self._store.keep(key, name, {part: tensor.cpu().contiguous() for part, tensor in found.items()})
                        missing.remove(key)
                        advance(1)
                if self._store.is_full:
                    self._store.flush()
        self._store.flush()

    def of(self, row: Row, device: torch.device, dtype: torch.dtype | None) -> list[Signal]:
        """Returns the signals of all who teach a row; none where nobody does.

        Args:
            row: The row.
            device: Where heads are wanted.
            dtype: Data type that heads are wanted in; None for their own.
        """
        found = []
        for lesson, key in zip(self._teaching.lessons.get(row, ()), self._keys.get(row, ()), strict=True):
            head = self._store.head(key, device, dtype) if self._form.signals == "hidden" else None
            found.append(Signal(self._store.read(key), head, lesson.weight))
        return found


def let_go(model: TokenScorer, needed: Sequence[object]) -> bool:
    """Releases a model unless one that is needed is the same or has the same weights; returns whether it did."""
    shares, release = getattr(model, "is_adapter_on", None), getattr(model, "release", None)
    if any(other is model or (shares is not None and shares(other)) for other in needed):
        return False
    if release is not None:
        release()
    return True


def draw(head: Head, hidden: torch.Tensor, vocabulary: int, form: Form, key: str) -> dict[str, torch.Tensor]:
    """Draws tokens from the distributions that hidden states stand for, each set of a row's with a stream of its own.

    Args:
        head: The teacher's head.
        hidden: Its hidden states, of shape (answer tokens, hidden).
        vocabulary: The ids to draw from: the first ones.
        form: How many draws, at which temperature.
        key: What the stream of draws follows from.

    Returns:
        `ids` and `counts` of the different tokens that were drawn, place after place; `lengths`, how many they are at each place; and
        the `entropies` of the distributions.
    """
    generator = torch.Generator().manual_seed(int(fingerprint([form.seed, key], length=15), 16))
    flat, entropies = [], []
    size = max(1, losses.CHUNK_ELEMENTS // head.vocabulary_size)
    for start in range(0, len(hidden), size):
        log_p = (head.logits(hidden[start : start + size])[:, :vocabulary] / form.temperature).log_softmax(-1).cpu()
        p = log_p.exp()
        entropies.append(-(p * log_p).sum(-1))
        drawn = torch.multinomial(p, form.draws, replacement=True, generator=generator)
        flat.append((drawn + vocabulary * torch.arange(start, start + len(p))[:, None]).flatten())
    different, counts = torch.unique(torch.cat(flat), return_counts=True)
    return {
        "ids": (different % vocabulary).int(),
        "counts": counts.short(),
        "lengths": torch.bincount(different // vocabulary, minlength=len(hidden)).short(),
        "entropies": torch.cat(entropies).float(),
    }


def taught_by(rows: Sequence[Row], signals: Sequence[Sequence[Signal]], vocabularies: Sequence[int], device: torch.device) -> list[Taught]:
    """Returns what a batch's answer tokens are taught; tokens whose teachers have the same heads and weights go together.

    Args:
        rows: The batch's rows, whose answer tokens follow each other.
        signals: For each row the signals of all who teach it; none where nobody does.
        vocabularies: For each row the ids that the student shares with them.
        device: Where the student is.
    """
    groups: dict[Any, list[tuple[torch.Tensor, Sequence[Signal]]]] = {}
    start = 0
    for row, own, vocabulary in zip(rows, signals, vocabularies, strict=True):
        places = torch.arange(start, start + len(row.answer), device=device)
        start += len(row.answer)
        if own:
            groups.setdefault((vocabulary, *((id(signal.head), signal.weight) for signal in own)), []).append((places, own))
    found = []
    for (vocabulary, *_), members in groups.items():
        columns = list(zip(*(own for _, own in members), strict=True))
        is_exact = columns[0][0].head is not None
        distributions = _hidden_targets(columns, device) if is_exact else _sampled_targets(columns, device)
        found.append(Taught(torch.cat([places for places, _ in members]), distributions, vocabulary))
    return found


def _hidden_targets(columns: Sequence[Sequence[Signal]], device: torch.device) -> HiddenTargets:
    teachers = []
    for column in columns:
        head = column[0].head
        assert head is not None
        teachers.append((torch.cat([signal.tensors["hidden"].to(device) for signal in column]), head, column[0].weight))
    return HiddenTargets(teachers)


def _sampled_targets(columns: Sequence[Sequence[Signal]], device: torch.device) -> SampledTargets:
    """Puts the draws of all teachers side by side.

    The divergence is then the weighted mean of those from each teacher: that from the mixture plus what no student changes.
    """
    ids, shares = [], []
    entropies: Any = 0.0
    for column in columns:
        joined = {name: torch.cat([signal.tensors[name] for signal in column]) for name in column[0].tensors}
        lengths, weight = joined["lengths"].long(), column[0].weight
        is_there = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        own_ids = torch.zeros(is_there.shape, dtype=torch.long).masked_scatter_(is_there, joined["ids"].long())
        counts = torch.zeros(is_there.shape).masked_scatter_(is_there, joined["counts"].float())
        ids.append(own_ids)
        shares.append(weight * counts / counts.sum(-1, keepdim=True))
        entropies = entropies + weight * joined["entropies"]
    return SampledTargets(torch.cat(ids, -1).to(device), torch.cat(shares, -1).to(device), entropies.to(device))
