"""Which teacher scores each training row, and the prompt that it reads before the row's answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from domainfusion.errors import CapabilityError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.tokenizer import compare_tokenizers
from domainfusion.training.batching import Row, refuse_overlong
from domainfusion.training.objectives import Setting
from domainfusion.types import Conversation, TrainingRecord


class Lesson(NamedTuple):
    """The teacher that scores a row's answer, and the prompt that it reads.

    Attributes:
        teacher: The teacher's fingerprint.
        prompt: The tokens that the teacher reads before the answer.
    """

    teacher: str
    prompt: tuple[int, ...]


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
    models: Mapping[str, TokenScorer]
    vocabulary: Mapping[str, int]
    taught: Mapping[str, int]
    untaught: Mapping[str, int]

    def vocabulary_of(self, row: Row) -> int:
        """Returns how many leading token ids the row's teacher shares with the student."""
        return self.vocabulary[self.lessons[row].teacher]

    def describe(self) -> dict[str, Any]:
        """Returns the counts, for the log."""
        return {"taught": dict(self.taught), "word_for_word": dict(self.untaught)}


def plan_teaching(setting: Setting) -> Teaching:
    """Finds the teacher of each row.

    A single-domain row is scored by its domain's teacher, which reads what it was asked. A
    cross-domain row is scored by the integrator, which reads the prompt that it wrote the target
    from, the teachers' responses included; the student never sees those. Rows whose teacher gives
    text alone have no lesson.

    Args:
        setting: Student, teachers and records.

    Raises:
        CapabilityError: A teacher's tokens differ from the student's, or no teacher scores tokens.
        TrainingError: A prompt with its answer does not fit into a teacher's context.
    """
    if not isinstance(setting.student, TokenScorer):
        raise CapabilityError(
            "The student does not score tokens", received=setting.student, allowed="a local model"
        )
    roster = _Roster(setting, setting.student)
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
                "local models as teachers; for cross-domain records, an integrator that is a local"
                " model"
            ),
            fix="use objective='sequence'",
        )
    for fingerprint, model in roster.models.items():
        rows = [
            _as_read(row, lesson)
            for row, lesson in lessons.items()
            if lesson.teacher == fingerprint
        ]
        refuse_overlong(rows, model.context_length, f"the teacher {model.name}")
    return Teaching(lessons, roster.models, roster.vocabulary, taught, untaught)


def _as_read(row: Row, lesson: Lesson) -> Row:
    return Row(row.record_id, (*lesson.prompt, *row.answer), len(lesson.prompt), row.domain)


class _Roster:
    """Finds the teachers of one student, and compares each one's tokenizer with the student's
    once.
    """

    def __init__(self, setting: Setting, student: TokenScorer) -> None:
        self.models: dict[str, TokenScorer] = {}
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
        if not isinstance(teacher, TokenScorer):
            return f"{teacher.name} gives text alone"
        fingerprint = teacher.fingerprint
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
