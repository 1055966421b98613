"""Which teacher scores each training row; teachers read the rows once, and what they find probable
at the answers is kept on disk: final hidden states of local ones, and the most probable tokens of
served ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file

from domainfusion.errors import CapabilityError, TrainingError, advice_on
from domainfusion.files import checksum_of, replacing
from domainfusion.models.base import (
    AdapterModel,
    BatchedModel,
    LanguageModel,
    ReleasableModel,
    ServedScorer,
    TokenScorer,
    TopScores,
)
from domainfusion.models.locate import hash_tensors
from domainfusion.models.projection import Head
from domainfusion.models.rows import buckets
from domainfusion.models.tokenizer import compare_tokenizers
from domainfusion.progress import Progress
from domainfusion.records import from_json
from domainfusion.training.batching import Row, refuse_overlong
from domainfusion.training.losses import Taught, TaughtTop
from domainfusion.training.objectives import Setting
from domainfusion.types import Conversation, TrainingRecord, fingerprint
from domainfusion.wording import counted

ROWS_TOGETHER = 32
"""Rows that a teacher reads at once, where it does not say how many."""


class Lesson(NamedTuple):
    """The teacher that scores a row's answer, and the prompt that it reads.

    Attributes:
        teacher: The teacher's fingerprint.
        prompt: The tokens that the teacher reads before the answer; none where its server makes
            them of `conversation`.
        conversation: What it was asked.
    """

    teacher: str
    prompt: tuple[int, ...]
    conversation: Conversation = ()


@dataclass(frozen=True)
class Teaching:
    """Which teacher scores which row.

    Attributes:
        lessons: The lesson of each row that a teacher scores; the others are trained with
            cross-entropy on the target.
        models: The teachers by fingerprint.
        vocabulary: For each teacher, the number of leading token ids that mean the same to the
            student.
        taught: Rows by the name of their teacher.
        untaught: Rows without a teacher, by reason.
    """

    lessons: Mapping[Row, Lesson]
    models: Mapping[str, TokenScorer | ServedScorer]
    vocabulary: Mapping[str, int]
    taught: Mapping[str, int]
    untaught: Mapping[str, int]

    def vocabulary_of(self, row: Row) -> int:
        """Returns how many leading token ids the row's teacher shares with the student."""
        return self.vocabulary[self.lessons[row].teacher]

    @property
    def served(self) -> dict[str, ServedScorer]:
        """The teachers that a server scores for, by fingerprint."""
        return {
            name: model for name, model in self.models.items() if isinstance(model, ServedScorer)
        }

    def describe(self) -> dict[str, Any]:
        """Returns the counts, for the log."""
        return {"taught": dict(self.taught), "word_for_word": dict(self.untaught)}


def plan_teaching(setting: Setting, *, any_tokens: bool = False) -> Teaching:
    """Finds the teacher of each row.

    A single-domain row is scored by its domain's teacher, which reads what it was asked. A
    cross-domain row is scored by the integrator, which reads the prompt that it wrote the target
    from, the teachers' responses included; the student never sees those. Rows whose teacher gives
    text alone have no lesson; a served one may score.

    Args:
        setting: Student, teachers and records.
        any_tokens: Whether teachers may have other tokens than the student; a lesson then has the
            conversation in place of the prompt.

    Raises:
        CapabilityError: A teacher's tokens differ from the student's, or no teacher scores tokens.
        TrainingError: A prompt with its answer does not fit into a teacher's context.
    """
    if not isinstance(setting.student, TokenScorer):
        raise CapabilityError(
            "The student does not score tokens", received=setting.student, allowed="a local model"
        )
    roster = _Roster(setting, setting.student, any_tokens=any_tokens)
    lessons: dict[Row, Lesson] = {}
    taught, untaught = Counter[str](), Counter[str]()
    for row, record in setting.records.items():
        found = roster.lesson_of(record)
        if isinstance(found, str):
            untaught[found] += 1
        else:
            lessons[row] = found
            taught[roster.models[found.teacher].name] += 1
    if not lessons:
        raise CapabilityError(
            "No teacher scores the tokens of any record",
            received=dict(untaught),
            allowed=(
                "local models as teachers, or APIModel(scores=True); for cross-domain records, such"
                " an integrator"
            ),
            fix="use objective='sequence'",
        )
    for teacher, model in roster.models.items():
        if isinstance(model, ServedScorer) or any_tokens:
            continue  # whoever makes the tokens says what is too long
        rows = [
            _as_read(row, lesson) for row, lesson in lessons.items() if lesson.teacher == teacher
        ]
        refuse_overlong(rows, model.context_length, f"the teacher {model.name}")
    return Teaching(lessons, roster.models, roster.vocabulary, taught, untaught)


def _as_read(row: Row, lesson: Lesson) -> Row:
    return Row(row.record_id, (*lesson.prompt, *row.answer), len(lesson.prompt), row.domain)


class _Roster:
    """Finds the teachers of one student, and compares each one's tokenizer with the student's
    once.
    """

    def __init__(self, setting: Setting, student: TokenScorer, *, any_tokens: bool = False) -> None:
        self._any_tokens = any_tokens
        self.models: dict[str, TokenScorer | ServedScorer] = {}
        self.vocabulary: dict[str, int] = {}
        self._student = student
        self._teachers = setting.teachers
        writers = [setting.integrator, *setting.teachers.values(), student]
        self._writers = {
            writer.fingerprint: writer for writer in reversed(writers) if writer is not None
        }

    def lesson_of(self, record: TrainingRecord) -> Lesson | str:
        """Returns the record's lesson, or the reason why it has none."""
        if not record.example.is_cross_domain:
            domain = record.example.primary_domain
            if domain not in self._teachers:
                return f"{domain} has no teacher here"
            return self._lesson(self._teachers[domain], record.example.conversation_for(domain))
        if not record.integration.messages:
            return "no model integrated it"
        if record.integration.method == "merge":
            return "its integrator's answer was not taken"
        if record.integration.model not in self._writers:
            return "the model that integrated it is not here"
        return self._lesson(self._writers[record.integration.model], record.integration.messages)

    def _lesson(self, teacher: LanguageModel, conversation: Conversation) -> Lesson | str:
        fingerprint = teacher.fingerprint
        if isinstance(teacher, ServedScorer) and teacher.scores:
            self.models[fingerprint] = teacher
            # Its tokens are compared when it is asked, which it is not where all is kept.
            self.vocabulary[fingerprint] = self._student.vocabulary_size
            return Lesson(fingerprint, (), conversation)
        if not isinstance(teacher, TokenScorer):
            return f"{teacher.name} gives text alone"
        if self._any_tokens:
            self.models[fingerprint] = teacher
            return Lesson(fingerprint, (), conversation)
        if fingerprint not in self.models:
            match = compare_tokenizers(teacher, self._student)
            if match.use == "text":
                raise CapabilityError(
                    f"A teacher's tokens differ from the student's\n{match}\n",
                    fix=(
                        "use objective='sequence', for which text is enough, or a teacher of the"
                        " student's family"
                    ),
                )
            self.models[fingerprint], self.vocabulary[fingerprint] = teacher, match.shared_size
        return Lesson(fingerprint, tuple(teacher.encode(conversation)))


logger = logging.getLogger("domainfusion")

_ROWS_WAITING = 32
"""Rows of a served teacher after which a shard is written: what was asked for may be paid."""

_DIGITS = 32
"""Of a digest in the name of a file."""

SHARD_BYTES = 16 << 20
"""A shard is written when it has reached this size: about what a kill costs."""


class _Place(NamedTuple):
    """Where a row's signals are: the file, the head that goes with them, their size, and where each
    tensor begins and ends there.
    """

    shard: Path
    head: str
    bytes: int
    spans: Mapping[str, tuple[int, int]]


class SignalStore:
    """Teacher signals in a folder, memory-mapped.

    A file's name is made of a digest of its content, by which damage is noticed: what a damaged one
    held is computed again.

    Args:
        directory: The folder; it is made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._places: dict[str, _Place] = {}
        self._opened: dict[Path, Any] = {}
        self._heads: dict[tuple[str, torch.device, torch.dtype | None], Head] = {}
        self._waiting: dict[str, tuple[str, Mapping[str, torch.Tensor]]] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for shard in sorted(directory.glob("shard-*.safetensors")):
            if shard.stem == f"shard-{checksum_of(shard)[:_DIGITS]}":
                self._index(shard)
            else:
                logger.warning(
                    "%s is damaged; the teacher signals in it are computed again, and it can be"
                    " deleted.",
                    shard,
                )

    def _index(self, shard: Path) -> None:
        header = from_json(self._open(shard).metadata()["rows"])
        self._places |= {key: _Place(shard, *about) for key, about in header.items()}

    def _open(self, file: Path) -> Any:
        if file not in self._opened:
            try:
                self._opened[file] = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as error:
                fix = "delete this file; what was in it is computed again"
                raise TrainingError(
                    f"A file of teacher signals can't be read: {error}", received=str(file), fix=fix
                ) from error
        return self._opened[file]

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._waiting

    def read(self, key: str) -> dict[str, torch.Tensor]:
        """Returns the tensors that were kept under `key`."""
        place = self._places[key]
        file = self._open(place.shard)
        return {
            name: file.get_slice(name)[first:last] for name, (first, last) in place.spans.items()
        }

    def bytes_of(self, key: str) -> int:
        """Returns how much disk the signals under `key` take, the head apart."""
        return self._places[key].bytes

    def head(self, key: str, device: torch.device, dtype: torch.dtype | None = None) -> Head:
        """Returns the head that goes with the signals under `key`; one object for all that share
        it.

        Args:
            key: The key of the signals.
            device: Where the head is wanted.
            dtype: Data type that it is wanted in; None for its own.
        """
        name = self._places[key].head
        wanted = (name, device, dtype)
        if wanted not in self._heads:
            path = self._head_file(name)
            file = self._open(path)
            state = {part: file.get_tensor(part) for part in file.keys()}  # noqa: SIM118 - the file is not a mapping
            settings = from_json(file.metadata()["settings"])
            if fingerprint([hash_tensors(state), settings]) != name:
                raise TrainingError(
                    "A file of teacher signals is damaged",
                    received=str(path),
                    fix="delete it; it is written again, from the teacher's weights",
                )
            head = Head(state["weight"], state.get("bias"), settings["scale"], settings["cap"])
            self._heads[wanted] = head.to(device, dtype)
        return self._heads[wanted]

    def _head_file(self, name: str) -> Path:
        return self._directory / f"head-{name}.safetensors"

    def keep_head(self, head: Head) -> str:
        """Writes a head unless it is there, and returns its name."""
        state = {"weight": head.weight.detach().cpu().contiguous()}
        if head.bias is not None:
            state["bias"] = head.bias.detach().cpu().contiguous()
        settings = {"scale": head.scale, "cap": head.cap}
        name = fingerprint([hash_tensors(state), settings])
        if not self._head_file(name).is_file():
            about = {"settings": json.dumps(settings)}
            self._write(self._head_file(name), lambda path: save_file(state, path, about))
        return name

    def keep(self, key: str, head: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps the signals of a row, on disk when enough are together or `flush` is called.

        Args:
            key: What they are found by.
            head: The name of the head that goes with them.
            tensors: The signals, by name, on the CPU.
        """
        self._waiting[key] = (head, tensors)

    @property
    def waiting(self) -> int:
        """How many rows are not on disk yet."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether what waits would make a shard."""
        return (
            sum(
                tensor.nbytes
                for _, tensors in self._waiting.values()
                for tensor in tensors.values()
            )
            >= SHARD_BYTES
        )

    def flush(self) -> None:
        """Writes what waits as one shard."""
        if not self._waiting:
            return
        header: dict[str, tuple[str, int, dict[str, tuple[int, int]]]] = {}
        columns: dict[str, list[torch.Tensor]] = {}
        lengths: dict[str, int] = {}
        for key, (head, tensors) in self._waiting.items():
            spans: dict[str, tuple[int, int]] = {}
            header[key] = (head, sum(tensor.nbytes for tensor in tensors.values()), spans)
            for name, tensor in tensors.items():
                first = lengths.get(name, 0)
                lengths[name] = first + len(tensor)
                spans[name] = (first, lengths[name])
                columns.setdefault(name, []).append(tensor)
        content = save(
            {name: torch.cat(parts) for name, parts in columns.items()},
            {"rows": json.dumps(header)},
        )
        digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
        shard = self._directory / f"shard-{digest}.safetensors"
        self._write(shard, lambda path: path.write_bytes(content))
        self._waiting = {}
        self._index(shard)

    def _write(self, file: Path, write: Callable[[Path], object]) -> None:
        try:
            with replacing(file, apart=True) as temporary:
                write(temporary)
        except (OSError, SafetensorError) as error:
            fix = f"{advice_on(error)}; what was kept before is not computed again"
            raise TrainingError(
                f"Teacher signals could not be kept: {error}", received=str(file), fix=fix
            ) from error


class Signal(NamedTuple):
    """A teacher's distributions at the answer tokens of a row, as hidden states and a head.

    Attributes:
        hidden: Final hidden states, of shape (answer tokens, hidden).
        head: The head that turns them into logits.
    """

    hidden: torch.Tensor
    head: Head


class TopSignal(NamedTuple):
    """The most probable tokens at the answer tokens of a row, as a server says them.

    Attributes:
        tokens: Their ids, int64 of shape (answer tokens, k).
        log_probabilities: float32, of the same shape.
    """

    tokens: torch.Tensor
    log_probabilities: torch.Tensor


_TOKENS, _LOG_PROBABILITIES = "tokens", "log_probabilities"


class _Reading(NamedTuple):
    """One row as its teacher reads it, and the key under which its signal is kept."""

    row: Row
    lesson: Lesson
    key: str


class KeptSignals:
    """The signals of a training's teachers, on disk.

    Args:
        teaching: Which teacher scores which row.
        store: Where signals are kept.
    """

    def __init__(self, teaching: Teaching, store: SignalStore) -> None:
        self._teaching, self._store = teaching, store
        self._keys = {row: self._key_of(row, lesson) for row, lesson in teaching.lessons.items()}

    def _key_of(self, row: Row, lesson: Lesson) -> str:
        model = self._teaching.models[lesson.teacher]
        if not isinstance(model, ServedScorer):
            return signal_key(row, lesson)
        # Not the tokens of the prompt: only the server knows them.
        asked = [row.record_id, lesson.teacher, lesson.conversation, row.answer]
        return fingerprint([*asked, model.scored_tokens], length=32)

    def read(self, student: TokenScorer, progress: Progress) -> dict[str, Any]:
        """Lets every teacher read its rows unless they are kept already, one teacher after the
        other.

        A teacher that shares no weights with the student or with a later teacher is released when
        it has read.

        Args:
            student: The model whose weights stay in memory.
            progress: Shows how far each teacher is.

        Returns:
            Counts for the log: tokens, bytes, bytes per token, and seconds.
        """
        started = time.perf_counter()
        waiting, held = list(self._teaching.models), list[TokenScorer]()
        for teacher, model in self._teaching.models.items():
            waiting.remove(teacher)
            if isinstance(model, ServedScorer):
                self._ask_for_scores(teacher, model, student, progress)
                continue
            self._let_read(teacher, model, progress)
            held.append(model)
            needed = [student, *(self._teaching.models[other] for other in waiting)]
            held = [own for own in held if not release_unless_needed(own, needed)]
        sizes = {key: len(row.answer) for row, key in self._keys.items()}
        tokens, size = sum(sizes.values()), sum(self._store.bytes_of(key) for key in sizes)
        unscored = sum(not self._store.bytes_of(key) for key in sizes)
        return {
            "tokens": tokens,
            "bytes": size,
            "bytes_per_token": round(size / max(tokens, 1), 1),
            "seconds": round(time.perf_counter() - started, 2),
            **({"rows_without_scores": unscored} if unscored else {}),
        }

    def _ask_for_scores(
        self, teacher: str, model: ServedScorer, student: TokenScorer, progress: Progress
    ) -> None:
        own = [
            (row, lesson)
            for row, lesson in self._teaching.lessons.items()
            if lesson.teacher == teacher
        ]

        def ask(places: Sequence[int], keep: KeepTensors) -> dict[int, str]:
            def keep_top(index: int, scores: TopScores) -> None:
                tensors = {
                    _TOKENS: torch.tensor(scores.tokens),
                    _LOG_PROBABILITIES: torch.tensor(scores.log_probabilities),
                }
                keep(index, tensors)

            answers = [(own[place][1].conversation, own[place][0].answer) for place in places]
            return model.score_answers(answers, student, keep_top)

        rows = [row for row, _ in own]
        ask_for_scores(
            model.name, rows, [self._keys[row] for row in rows], self._store, ask, progress
        )

    def _let_read(self, teacher: str, model: TokenScorer, progress: Progress) -> None:
        """Lets one teacher read. Batches do not depend on what is kept already, so a resumed run
        computes what an undisturbed one does.
        """
        readings = [
            _Reading(row, lesson, self._keys[row])
            for row, lesson in self._teaching.lessons.items()
            if lesson.teacher == teacher
        ]
        missing = {reading.key for reading in readings if reading.key not in self._store}
        if not missing:
            return
        head = self._store.keep_head(model.head())
        lengths = [len(reading.lesson.prompt) + len(reading.row.answer) for reading in readings]
        with progress(
            f"reading: {model.name}", len(readings), len(readings) - len(missing)
        ) as advance:
            for batch in buckets(lengths, rows_together(model)):
                wanted = [readings[index] for index in batch]
                if missing.isdisjoint(reading.key for reading in wanted):
                    continue
                for hidden, reading in zip(_answer_states(model, wanted), wanted, strict=True):
                    if reading.key in missing:
                        self._store.keep(reading.key, head, {"hidden": hidden.cpu().contiguous()})
                        missing.remove(reading.key)
                        advance(1)
                if self._store.is_full:
                    self._store.flush()
        self._store.flush()

    def of(
        self, row: Row, device: torch.device, dtype: torch.dtype | None
    ) -> Signal | TopSignal | None:
        """Returns the signal of a row's teacher; None where it has none.

        Args:
            row: The row.
            device: Where the head is wanted.
            dtype: Data type that the head is wanted in; None for its own.
        """
        if row not in self._keys:
            return None
        key = self._keys[row]
        kept = self._store.read(key)
        if not kept:
            return None
        if _TOKENS in kept:
            return TopSignal(kept[_TOKENS], kept[_LOG_PROBABILITIES])
        return Signal(kept["hidden"], self._store.head(key, device, dtype))


KeepTensors = Callable[[int, Mapping[str, torch.Tensor]], None]
"""Called with the number of a row that was asked for, and what is kept of it."""


def ask_for_scores(
    name: str,
    rows: Sequence[Row],
    keys: Sequence[str],
    store: SignalStore,
    ask: Callable[[Sequence[int], KeepTensors], dict[int, str]],
    progress: Progress,
) -> None:
    """Has a server score the rows that are not kept yet. A row that it can't score is kept as one
    without a signal, so that a resumed training learns what an undisturbed one does.

    Args:
        name: The teacher's name.
        rows: Its rows.
        keys: The keys under which what is said of them is kept.
        store: Where it is kept.
        ask: Asks for rows, given by their places; returns why one has no scores, by its number
            among those.
        progress: Shows how far it is.

    Raises:
        CapabilityError: None of the rows could be scored.
    """
    places = [place for place, key in enumerate(keys) if key not in store]
    with progress(f"scoring: {name}", len(rows), len(rows) - len(places)) as advance:

        def keep(index: int, tensors: Mapping[str, torch.Tensor]) -> None:
            store.keep(keys[places[index]], "", tensors)
            if store.waiting >= _ROWS_WAITING:
                store.flush()
            advance(1)

        try:
            failed = ask(places, keep)
        finally:
            store.flush()
    if failed and len(failed) == len(rows):
        raise CapabilityError(
            f"{name} could score none of {counted(len(rows), 'record')}: {next(iter(failed.values()))}",
            fix="look at what its server says, or use objective='sequence'",
        )
    for index, reason in failed.items():
        place = places[index]
        logger.warning("%s did not score %s: %s", name, rows[place].record_id, reason)
        store.keep(keys[place], "", {})
    store.flush()


def signal_key(row: Row, lesson: Lesson) -> str:
    """Returns the key of a signal: example, teacher, and every token that the teacher
    reads.
    """
    return fingerprint([row.record_id, lesson.teacher, lesson.prompt, row.answer], length=32)


def rows_together(model: TokenScorer) -> int:
    """Returns how many rows a teacher reads at once."""
    return (isinstance(model, BatchedModel) and model.batch_size) or ROWS_TOGETHER


def _answer_states(model: TokenScorer, readings: Sequence[_Reading]) -> list[torch.Tensor]:
    """Returns the hidden states that predict each row's answer, of shape (answer tokens,
    hidden).
    """
    states = model.hidden_states(
        [(*reading.lesson.prompt, *reading.row.answer) for reading in readings]
    )
    return [
        hidden[len(reading.lesson.prompt) - 1 : -1]
        for hidden, reading in zip(states, readings, strict=True)
    ]


def release_unless_needed(model: TokenScorer, needed: Sequence[object]) -> bool:
    """Releases a model unless one that is needed is the same or has the same weights; returns
    whether it did.
    """
    if any(other is model for other in needed):
        return False
    if isinstance(model, AdapterModel) and any(model.is_adapter_on(other) for other in needed):
        return False
    if isinstance(model, ReleasableModel):
        model.release()
    return True


def taught_by(
    rows: Sequence[Row],
    signals: Sequence[Signal | TopSignal | None],
    vocabularies: Sequence[int],
    device: torch.device,
) -> list[Taught | TaughtTop]:
    """Returns the tokens of a batch that teachers score; those with the same head and vocabulary
    are put together, and so are those of servers.

    What the chat template puts before the words of an answer is left out: it is trained with
    cross-entropy on the target.

    Args:
        rows: The batch's rows; their answer tokens follow each other.
        signals: The signal of each row's teacher; None where it has none.
        vocabularies: For each row, the number of token ids that its teacher shares with the
            student.
        device: The student's.
    """
    groups: dict[tuple[int, int], list[tuple[torch.Tensor, Signal]]] = {}
    by_width: dict[int, list[tuple[torch.Tensor, TopSignal]]] = {}
    start = 0
    for row, signal, vocabulary in zip(rows, signals, vocabularies, strict=True):
        places = torch.arange(start + row.lead_length, start + len(row.answer), device=device)
        start += len(row.answer)
        if isinstance(signal, TopSignal):
            top = TopSignal(*(part[row.lead_length :] for part in signal))
            by_width.setdefault(top.tokens.shape[1], []).append((places, top))
        elif signal is not None:
            words = signal._replace(hidden=signal.hidden[row.lead_length :])
            groups.setdefault((vocabulary, id(signal.head)), []).append((places, words))
    taught: list[Taught | TaughtTop] = [
        Taught(
            places=torch.cat([places for places, _ in members]),
            hidden=torch.cat([signal.hidden.to(device) for _, signal in members]),
            head=members[0][1].head,
            vocabulary=vocabulary,
        )
        for (vocabulary, _), members in groups.items()
    ]
    taught += [
        TaughtTop(
            places=torch.cat([places for places, _ in own]),
            tokens=torch.cat([top.tokens.to(device) for _, top in own]),
            log_probabilities=torch.cat([top.log_probabilities.to(device) for _, top in own]),
        )
        for own in by_width.values()
    ]
    return taught
