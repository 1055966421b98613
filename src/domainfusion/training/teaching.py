"""Who teaches what: for each row the models that say what is probable at its answer, and what each of them reads before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.tokens import compare_tokenizers
from domainfusion.training.batching import Row, refuse_overlong
from domainfusion.training.objectives import Setting
from domainfusion.types import Conversation, TrainingRecord

Teachers = Literal["routed"] | Mapping[str, float]
"""Who teaches a row: the expert of its domain, and of a cross-domain row the integrator; or a mixture of experts by weight."""


class Lesson(NamedTuple):
    """One teacher's part in the teaching of a row.

    Attributes:
        teacher: The teacher's fingerprint.
        prompt: The tokens that the teacher reads before the answer.
        weight: Its weight in the mixture; 1 where it teaches alone.
    """

    teacher: str
    prompt: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class Teaching:
    """Who teaches what.

    Attributes:
        lessons: The lessons of each row that is taught; the other rows are learnt word for word.
        models: The teachers by fingerprint.
        vocabulary: For each teacher, the ids below which its tokens are the student's.
        taught: Rows by the name of who teaches them.
        untaught: Rows that nobody teaches, by reason.
    """

    lessons: Mapping[Row, tuple[Lesson, ...]]
    models: Mapping[str, TokenScorer]
    vocabulary: Mapping[str, int]
    taught: Mapping[str, int]
    untaught: Mapping[str, int]

    def vocabulary_of(self, row: Row) -> int:
        """Returns the ids that the student shares with all who teach `row`."""
        return min(self.vocabulary[lesson.teacher] for lesson in self.lessons[row])

    def describe(self) -> dict[str, Any]:
        """Returns the counts, for the log."""
        return {"taught": dict(self.taught), "word_for_word": dict(self.untaught)}


def plan_teaching(setting: Setting, teachers: Teachers, *, answer_tokens: int | None = None) -> Teaching:
    """Finds who teaches each row.

    The expert of a row's domain reads what it was asked. The integrator of a cross-domain row reads what it wrote the target from, the
    experts' responses included, which the student never sees. A teacher that gives text alone teaches word for word.

    Args:
        setting: Student, teachers and records.
        teachers: Who teaches.
        answer_tokens: The longest answer that a teacher reads; by default those of the rows.

    Raises:
        CapabilityError: Tokens of a teacher are not the student's, or no teacher says what is probable.
        ConfigurationError: The mixture names no teacher of this training.
        TrainingError: A prompt with its answer does not fit a teacher.
    """
    if not isinstance(setting.student, TokenScorer):
        raise CapabilityError("The student's distributions are not known", received=setting.student, allowed="a local model")
    pupil = _Pupil(setting, setting.student)
    lessons: dict[Row, tuple[Lesson, ...]] = {}
    taught, untaught = Counter[str](), Counter[str]()
    for row, record in setting.records.items():
        found = pupil.routed(record) if teachers == "routed" else pupil.mixed(record, teachers)
        if isinstance(found, str):
            untaught[found] += 1
            continue
        lessons[row] = found
        taught[" + ".join(pupil.models[lesson.teacher].name for lesson in found)] += 1
    if not lessons:
        raise CapabilityError(
            "No teacher says how probable it finds the tokens of any record",
            received=dict(untaught),
            allowed="local models as teachers; for cross-domain records, an integrator that is a local model",
            fix="use objective='sequence'",
        )
    for fingerprint, model in pupil.models.items():
        rows = [_as_read(row, lesson, answer_tokens) for row, own in lessons.items() for lesson in own if lesson.teacher == fingerprint]
        refuse_overlong(rows, model.context_length, f"the teacher {model.name}")
    return Teaching(lessons, pupil.models, pupil.vocabulary, taught, untaught)


def _as_read(row: Row, lesson: Lesson, answer_tokens: int | None) -> Row:
    answer = row.answer if answer_tokens is None else (0,) * answer_tokens
    return Row(row.record_id, (*lesson.prompt, *answer), len(lesson.prompt), row.domain)


class _Pupil:
    """Looks for the teachers of one student, and compares each one's tokens with the student's once."""

    def __init__(self, setting: Setting, student: TokenScorer) -> None:
        self.models: dict[str, TokenScorer] = {}
        self.vocabulary: dict[str, int] = {}
        self._student = student
        self._experts = setting.teachers
        writers = [setting.integrator, *setting.teachers.values(), student]
        self._writers = {writer.fingerprint: writer for writer in reversed(writers) if writer is not None}

    def routed(self, record: TrainingRecord) -> tuple[Lesson, ...] | str:
        """Returns the lesson of the record's one teacher, or why it has none."""
        if not record.example.is_cross_domain:
            domain = record.example.primary_domain
            if domain not in self._experts:
                return f"{domain} has no expert here"
            return self._lesson(self._experts[domain], record.example.conversation_for(domain))
        if not record.integration.messages:
            return "no model integrated it"
        if record.integration.method == "merge":
            return "its integrator's answer was not taken"
        if record.integration.model not in self._writers:
            return "the model that integrated it is not here"
        return self._lesson(self._writers[record.integration.model], record.integration.messages)

    def mixed(self, record: TrainingRecord, weights: Mapping[str, float]) -> tuple[Lesson, ...]:
        """Returns a lesson of each teacher of the mixture."""
        strange = [domain for domain in weights if domain not in self._experts]
        if strange:
            raise ConfigurationError("The mixture of teachers names a stranger", received=strange[0], allowed=", ".join(self._experts))
        lessons: list[Lesson] = []
        for domain, weight in weights.items():
            found = self._lesson(self._experts[domain], record.example.conversation, weight / sum(weights.values()))
            if isinstance(found, str):
                raise CapabilityError(f"The teacher of {domain!r} can't be mixed with others: {found}", fix="leave it out of the mixture")
            lessons += found
        return tuple(lessons)

    def _lesson(self, teacher: LanguageModel, conversation: Conversation, weight: float = 1.0) -> tuple[Lesson, ...] | str:
        if not isinstance(teacher, TokenScorer):
            return f"{teacher.name} gives text alone"
        fingerprint = teacher.fingerprint
        if fingerprint not in self.models:
            match = compare_tokenizers(teacher, self._student)
            if match.use == "text":
                raise CapabilityError(
                    f"The tokens of a teacher are not the student's\n{match}\n",
                    fix="use objective='sequence', for which text is enough, or a teacher of the student's family",
                )
            self.models[fingerprint], self.vocabulary[fingerprint] = teacher, match.shared_size
        return (Lesson(fingerprint, tuple(teacher.encode(conversation)), weight),)


def check_teachers(teachers: Teachers) -> Teachers:
    """Returns `teachers`, or raises a `ConfigurationError` where they are neither `routed` nor weights."""
    if teachers == "routed":
        return teachers
    if not isinstance(teachers, Mapping) or not teachers or not all(_is_weight(weight) for weight in teachers.values()):
        allowed = '"routed", or weights above 0 such as {"a": 0.7, "b": 0.3}'
        raise ConfigurationError("It is not clear who teaches", received=teachers, allowed=allowed)
    return dict(teachers)


def _is_weight(weight: object) -> bool:
    return isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < float("inf")
