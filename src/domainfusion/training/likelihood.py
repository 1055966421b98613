"""The objective `likelihood`: how probable the teachers find the pieces of the targets, for teachers
whose tokens are not the student's.

Approximate likelihood matching (Minixhofer, Vulić and Ponti, 2025, arXiv 2503.20083): both
tokenizations of a target are aligned into chunks, the shortest pieces of text that end with a token
in both, and the student learns the teacher's probability of each chunk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from domainfusion.checks import check_number
from domainfusion.errors import CapabilityError
from domainfusion.models.base import PieceScores, ServedScorer, TokenScorer
from domainfusion.models.rows import buckets
from domainfusion.progress import Progress
from domainfusion.training.batching import Row
from domainfusion.training.losses import token_losses
from domainfusion.training.objectives import Answers, Losses, Objective, Setting
from domainfusion.training.reading import (
    KeepTensors,
    Lesson,
    SignalStore,
    Teaching,
    ask_for_scores,
    plan_teaching,
    release_unless_needed,
    rows_together,
)
from domainfusion.types import Conversation, Message, TrainingRecord, fingerprint
from domainfusion.wording import counted

logger = logging.getLogger("domainfusion")

_LEAST = 1e-6
"""How far logarithms of probabilities stay below 0, where 1 − p would have no logarithm."""

_ENDS, _LOG_PROBABILITIES = "ends", "log_probabilities"


class Chunk(NamedTuple):
    """Tokens of two tokenizations that stand for one piece of text.

    Attributes:
        first_end: Where it ends in the first one: the number of tokens up to there.
        second_end: Where it ends in the second one.
    """

    first_end: int
    second_end: int


def align(
    text: str,
    first: tuple[PreTrainedTokenizerBase, Sequence[int]],
    second: tuple[PreTrainedTokenizerBase, Sequence[int]],
) -> list[Chunk] | None:
    """Returns the chunks into which two tokenizations of a text can be cut, the shortest ones; None
    where one of them does not spell the text.

    Args:
        text: The text.
        first: A tokenizer, and its tokens of the text.
        second: Another one.

    A token may end within a character, of which it is some bytes; a chunk does not.
    """
    return _cut(text, _ends(text, *first), _ends(text, *second))


def _cut(text: str, first: _Ends, second: _Ends) -> list[Chunk] | None:
    if any(len(text) not in found.of for found in (first, second)):
        return None
    shared = sorted(first.of.keys() & second.of.keys())
    chunks = [Chunk(first.of[place], second.of[place]) for place in shared if place > 0]
    # Tokens after the last character, if any, are of the last chunk.
    if chunks:
        chunks[-1] = Chunk(first.tokens, second.tokens)
    return chunks


class _Ends(NamedTuple):
    """Where tokens end in a text.

    Attributes:
        of: After how many tokens the first n characters of the text are spelled, by n.
        tokens: How many tokens there are.
    """

    of: dict[int, int]
    tokens: int


def _ends(text: str, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> _Ends:
    """Returns where tokens end in a text.

    What a tokenizer spells depends on what stands before (a space that the first token loses, a
    character of several tokens), so that beginnings are decoded, never single tokens. One that
    spells no beginning of the text ends within a character, and is left out.
    """
    found: dict[int, int] = {0: 0}
    for count in range(1, len(tokens) + 1):
        spelled = tokenizer.decode(
            list(tokens[:count]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        # An unfinished character is decoded as this one, which a text may hold itself.
        is_open = str(spelled).endswith("\ufffd") and count < len(tokens)
        if isinstance(spelled, str) and text.startswith(spelled) and not is_open:
            found.setdefault(len(spelled), count)
    return _Ends(found, len(tokens))


def _ends_of_pieces(text: str, pieces: Sequence[bytes]) -> _Ends:
    """Returns where tokens end in a text that they spell, given the bytes of each; one that ends
    within a character is left out.
    """
    # A character ends where no further byte of it follows: those are 0b10xxxxxx.
    whole = text.encode()
    places = [place for place, byte in enumerate(whole) if byte & 0xC0 != 0x80] + [len(whole)]
    character_at = {place: number for number, place in enumerate(places)}
    found: dict[int, int] = {}
    length = 0
    for count, piece in enumerate([b"", *pieces]):
        length += len(piece)
        if length in character_at:
            found.setdefault(character_at[length], count)
    return _Ends(found, len(pieces))


class ChunkLosses(NamedTuple):
    """The binarized divergence of chunks.

    Attributes:
        values: τ·D of each chunk, of shape (chunks,).
        slopes: Its derivative by the logarithm of the student's probability of the chunk.
    """

    values: torch.Tensor
    slopes: torch.Tensor


def chunk_losses(log_p: torch.Tensor, log_q: torch.Tensor, temperature: float) -> ChunkLosses:
    """Returns τ·KL between whether teacher and student write a chunk, a yes or a no.

    With P = p^(1/τ) and Q = q^(1/τ), KL = P·log(P/Q) + (1−P)·log((1−P)/(1−Q)), and its derivative by
    log Q is (Q−P)/(1−Q). The factor τ keeps its size: for large τ it tends to
    |log p|·log(log p / log q) − |log p| + |log q|.

    Args:
        log_p: Logarithms of the teacher's probabilities, of shape (chunks,).
        log_q: Those of the student's.
        temperature: τ.
    """
    a, b = (each.clamp_max(-_LEAST * temperature) / temperature for each in (log_p, log_q))
    p, not_p, not_q = a.exp(), -torch.expm1(a), -torch.expm1(b)
    values = temperature * (p * (a - b) + not_p * (not_p.log() - not_q.log()))
    # The derivative by log q is that by log Q over τ, times τ. It goes on where b is held below 0:
    # a student that is sure has to learn doubt.
    return ChunkLosses(values, (b.exp() - p) / not_q)


class LikelihoodObjective(Objective):
    """(1−α)·cross-entropy + α·the divergence between the teacher's and the student's probability of
    each chunk of a target (arXiv 2503.20083), for teachers of any tokenizer.

    A chunk counts as one token. The teacher of a single-domain record is its domain's; that of a
    cross-domain record is the integrator, which saw the teachers' responses. Before the first step
    each teacher reads its records once, and one number a chunk is kept on disk. Records whose
    teacher gives text alone, or whose target one of the tokenizers spells otherwise, are trained
    with cross-entropy on the target in the same training; the log counts them.

    The authors also leave out chunks whose probability depends on how the text goes on; that is not
    done here.

    Args:
        temperature: What logarithms of probabilities are divided by; at the default, that of the
            authors, it is the ratio of the two logarithms that counts.
        alpha: Share of the divergence in the loss of a token in a chunk; the rest is cross-entropy.
        keep_in: A folder for what is kept of several trainings; by default it goes with the
            training.

    Raises:
        ConfigurationError: A number is out of range.
    """

    def __init__(
        self,
        *,
        temperature: float = 100.0,
        alpha: float = 0.5,
        keep_in: str | Path | None = None,
    ) -> None:
        check_number("temperature", temperature, "(0, inf)")
        check_number("alpha", alpha, "(0, 1]")
        self.temperature = temperature
        self.alpha = alpha
        self._keep_in = None if keep_in is None else Path(keep_in)
        self._kept: _KeptChunks | None = None

    def begin(self, setting: Setting) -> Mapping[str, Any]:
        """Lets every teacher read what it teaches, and returns what is kept of it.

        Raises:
            CapabilityError: No teacher says what is probable, or no target can be aligned.
            ModelError: A prompt with its answer does not fit a teacher.
            TrainingError: What was read can't be kept.
        """
        teaching = plan_teaching(setting, any_tokens=True)
        store = SignalStore(self._keep_in or setting.directory / "chunks")
        self._kept = _KeptChunks(setting, teaching, store)
        found = self._kept.read(setting.progress)
        logger.info("Teacher signals: %d chunks of %d rows.", found["chunks"], found["rows"])
        return {"objective": "likelihood", **teaching.describe(), "signals": found}

    def losses(self, answers: Answers) -> Losses:
        """Returns the divergence of the chunks, mixed with the cross-entropy, which stands alone
        where there are none.
        """
        assert self._kept is not None, "begin() comes first"
        chunks = self._kept.of(answers.rows, answers.hidden.device)
        with torch.no_grad():
            found = token_losses(
                answers.hidden, answers.head, answers.targets, answers.weights
            ).cross_entropy
        # Each chunk's sum over its tokens; the last place gathers what is in no chunk.
        count = len(chunks.log_p)
        log_q = found.new_zeros(count + 1).index_add(0, chunks.of_token, -found)[:-1]
        sizes = found.new_zeros(count + 1).index_add(0, chunks.of_token, torch.ones_like(found))[
            :-1
        ]
        shares = answers.weights.to(found)
        weight = found.new_zeros(count + 1).index_add(0, chunks.of_token, shares)[:-1] / sizes
        divergence = chunk_losses(chunks.log_p.to(found), log_q, self.temperature)
        is_taught = chunks.of_token < count
        plain = torch.where(is_taught, (1 - self.alpha) * shares, shares)
        # The gradient of a chunk's divergence is its slope times that of the sum of its tokens'
        # logarithms: a cross-entropy of these tokens, weighted by minus the slope.
        slopes = torch.cat([self.alpha * weight * divergence.slopes, found.new_zeros(1)])
        surrogate = token_losses(
            answers.hidden, answers.head, answers.targets, plain - slopes[chunks.of_token]
        ).total
        value = plain @ found + self.alpha * (weight @ divergence.values)
        shown = torch.full_like(found, float("nan"))
        shown[chunks.last_token] = divergence.values
        return Losses(
            surrogate + (value - surrogate).detach(),
            {"cross_entropy": found, "likelihood": shown},
        )


class _Chunks(NamedTuple):
    """The chunks of a batch.

    Attributes:
        log_p: Logarithms of the teachers' probabilities, of shape (chunks,).
        of_token: For each answer token its chunk; the number of chunks where it is in none.
        last_token: The last token of each chunk.
    """

    log_p: torch.Tensor
    of_token: torch.Tensor
    last_token: torch.Tensor


class _Aligned(NamedTuple):
    """A row as its teacher reads it, and the key under which its chunks are kept."""

    row: Row
    record: TrainingRecord
    lesson: Lesson
    key: str


def _answered(reading: _Aligned) -> Conversation:
    """Returns what the teacher was asked, with the target as the answer."""
    return (*reading.lesson.conversation, Message("assistant", reading.record.target))


class _KeptChunks:
    """The chunks of a training's rows, with what their teachers find probable, on disk.

    Args:
        setting: Student and records.
        teaching: Which teacher reads which row.
        store: Where they are kept.
    """

    def __init__(self, setting: Setting, teaching: Teaching, store: SignalStore) -> None:
        self._student, self._teaching, self._store = setting.student, teaching, store
        self._readings: dict[Row, _Aligned] = {}
        for row, lesson in teaching.lessons.items():
            record = setting.records[row]
            about = ["chunks", row.record_id, lesson.teacher, lesson.conversation, row.answer]
            key = fingerprint([*about, record.target], length=32)
            self._readings[row] = _Aligned(row, record, lesson, key)

    def read(self, progress: Progress) -> dict[str, Any]:
        """Lets every teacher read its rows unless they are kept already.

        Returns:
            Counts for the log.

        Raises:
            CapabilityError: No target is spelled alike by both tokenizers.
        """
        started = time.perf_counter()
        waiting = list(self._teaching.models)
        for teacher, model in self._teaching.models.items():
            own = [one for one in self._readings.values() if one.lesson.teacher == teacher]
            waiting.remove(teacher)
            if isinstance(model, ServedScorer):
                self._ask(model, own, progress)
                continue
            self._let_read(model, own, progress)
            needed = [self._student, *(self._teaching.models[other] for other in waiting)]
            release_unless_needed(model, needed)
        kept = [self._store.read(one.key) for one in self._readings.values()]
        aligned = [tensors for tensors in kept if tensors]
        if not aligned:
            raise CapabilityError(
                "No target is spelled by its teacher's tokens as by the student's",
                received=f"{counted(len(kept), 'record')}",
                fix="use objective='sequence'",
            )
        return {
            "rows": len(aligned),
            "chunks": sum(len(tensors[_ENDS]) for tensors in aligned),
            "rows_not_aligned": len(kept) - len(aligned),
            "bytes": sum(self._store.bytes_of(one.key) for one in self._readings.values()),
            "seconds": round(time.perf_counter() - started, 2),
        }

    def _let_read(
        self, model: TokenScorer, readings: Sequence[_Aligned], progress: Progress
    ) -> None:
        missing = [one for one in readings if one.key not in self._store]
        label = f"reading: {model.name}"
        with progress(label, len(readings), len(readings) - len(missing)) as advance:
            lengths = [len(one.row.tokens) for one in missing]
            for batch in buckets(lengths, rows_together(model)):
                wanted = [missing[index] for index in batch]
                scores = model.score([_answered(one) for one in wanted])
                for one, found in zip(wanted, scores, strict=True):
                    ends = _ends(one.record.target, model.tokenizer, found.tokens[:-1])
                    tensors = self._chunks_of(one, model.name, ends, found.log_probabilities)
                    self._store.keep(one.key, "", tensors)
                    advance(1)
                if self._store.is_full:
                    self._store.flush()
        self._store.flush()

    def _ask(self, model: ServedScorer, readings: Sequence[_Aligned], progress: Progress) -> None:
        """Has a server score what is not kept yet."""

        def ask(places: Sequence[int], keep: KeepTensors) -> dict[int, str]:
            own = [readings[place] for place in places]

            def keep_chunks(index: int, scores: PieceScores) -> None:
                ends = _ends_of_pieces(own[index].record.target, scores.pieces)
                keep(index, self._chunks_of(own[index], model.name, ends, scores.log_probabilities))

            return model.score_pieces([_answered(one) for one in own], keep_chunks)

        rows, keys = [one.row for one in readings], [one.key for one in readings]
        ask_for_scores(model.name, rows, keys, self._store, ask, progress)

    def _chunks_of(
        self,
        reading: _Aligned,
        teacher: str,
        ends_there: _Ends,
        log_probabilities: Sequence[float],
    ) -> dict[str, torch.Tensor]:
        """Returns where the chunks end among the row's answer tokens, and the logarithm of each
        one's probability; nothing where the text is spelled otherwise.

        Args:
            reading: The row.
            teacher: The name of its teacher.
            ends_there: Where the teacher's tokens of the target end.
            log_probabilities: The logarithms of their probabilities, and of that of the token that
                ends the teacher's turn.
        """
        row, target = reading.row, reading.record.target
        unfinished = self._student.encode_answer(target, finished=False)
        words = unfinished[row.lead_length :]
        chunks = _cut(target, _ends(target, self._student.tokenizer, words), ends_there)
        if not chunks:
            logger.warning("%s is spelled otherwise by %s", row.record_id, teacher)
            return {}
        if len(row.answer) > len(unfinished):
            # Both end their turn: the first token of what the student's template writes for it.
            chunks.append(Chunk(len(words) + 1, len(log_probabilities)))
        sums = torch.tensor([0.0, *log_probabilities], dtype=torch.float64).cumsum(0)
        ends = [chunk.second_end for chunk in chunks]
        starts = [0, *ends[:-1]]
        return {
            _ENDS: torch.tensor([row.lead_length + chunk.first_end for chunk in chunks]),
            _LOG_PROBABILITIES: (sums[ends] - sums[starts]).float(),
        }

    def of(self, rows: Sequence[Row], device: torch.device) -> _Chunks:
        """Returns the chunks of a batch, whose answer tokens follow each other."""
        log_p: list[torch.Tensor] = []
        of_token: list[torch.Tensor] = []
        last_token: list[torch.Tensor] = []
        before = count = 0
        for row in rows:
            own = torch.full((len(row.answer),), -1)
            reading = self._readings.get(row)
            kept = self._store.read(reading.key) if reading is not None else {}
            if kept:
                ends = kept[_ENDS]
                # The chunk of a token is how many chunks ended before it.
                places = torch.arange(row.lead_length, int(ends[-1]))
                own[places] = count + torch.searchsorted(ends, places, right=True)
                last_token.append(before + ends - 1)
                log_p.append(kept[_LOG_PROBABILITIES])
                count += len(ends)
            of_token.append(own)
            before += len(row.answer)
        chunk_of = torch.cat(of_token)
        chunk_of[chunk_of < 0] = count
        nothing = torch.zeros(0)
        return _Chunks(
            torch.cat([nothing, *log_p]).to(device),
            chunk_of.to(device),
            torch.cat([nothing.long(), *last_token]).to(device),
        )
