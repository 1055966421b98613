"""Answers and ledgers as readers of a report see them: wrong answers first, and what was
integrated from several teachers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import Answer, ModelResult
from domainfusion.reports.evaluation_tables import label_of
from domainfusion.reports.tables import counted
from domainfusion.types import Conflict, Example, TrainingRecord

ORDER = ("wrong", "not graded", "right")
"""Grades in the order in which a reader wants to see them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """One model's answer under the name that a reader knows it by."""

    label: str
    answer: Answer

    @property
    def grade(self) -> str:
        """`right`, `wrong` or `not graded`."""
        return grade_of(self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One question and what was said to it.

    Attributes:
        example: The question, and what a right answer states.
        student: The student's answer.
        experts: The answers of the experts whose domains the question names.
        others: All other answers.
    """

    example: Example
    student: ModelAnswer
    experts: tuple[ModelAnswer, ...]
    others: tuple[ModelAnswer, ...]

    @property
    def grade(self) -> str:
        """The student's grade."""
        return self.student.grade

    @property
    def texts(self) -> tuple[str, ...]:
        """The question and every answer."""
        return (
            self.example.query,
            *(found.answer.text for found in (self.student, *self.experts, *self.others)),
        )


def grade_of(answer: Answer) -> str:
    """Returns the grade in words: unscored is not wrong."""
    return "not graded" if answer.correct is None else "right" if answer.correct else "wrong"


def comparisons(report: EvaluationReport) -> list[Comparison]:
    """Returns a comparison for each question that the student answered, its wrong answers first,
    then those that were not graded.
    """
    answers = [
        (model, {answer.example_id: answer for answer in model.answers}) for model in report.models
    ]
    found = [
        _comparison(
            example, [(model, by_id[example.id]) for model, by_id in answers if example.id in by_id]
        )
        for example in report.examples
    ]
    return sorted(
        (item for item in found if item is not None), key=lambda item: ORDER.index(item.grade)
    )


def _comparison(
    example: Example, answers: Sequence[tuple[ModelResult, Answer]]
) -> Comparison | None:
    students = [answer for model, answer in answers if model.role == "student"]
    if not students:
        return None
    others = [(model, answer) for model, answer in answers if model.role != "student"]
    return Comparison(
        example=example,
        student=ModelAnswer(label="student", answer=students[0]),
        experts=tuple(
            ModelAnswer(label=label_of(model), answer=answer)
            for model, answer in others
            if _is_asked(model, example)
        ),
        others=tuple(
            ModelAnswer(label=label_of(model), answer=answer)
            for model, answer in others
            if not _is_asked(model, example)
        ),
    )


def _is_asked(model: ModelResult, example: Example) -> bool:
    return model.role == "expert" and model.name in example.domains


WHAT_RULES_SEE = (
    "Where rules alone looked for conflicts, they saw different values, negations and words such as"
    " raise and lower in sentences about the same thing; other contradictions stand in the answers,"
    " unseen."
)
"""Says of conflicts that rules found what rules can't find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledConflict:
    """One conflict, with the question it arose in."""

    example: Example
    conflict: Conflict

    @property
    def kept(self) -> frozenset[str]:
        """Every domain whose claim stands: the one that was kept, and those that agree with it."""
        if self.conflict.kept is None:
            return frozenset()
        side = next((side for side in self.conflict.sides if self.conflict.kept in side), ())
        return frozenset((self.conflict.kept, *side))


def conflicts_in(records: Sequence[TrainingRecord]) -> list[SettledConflict]:
    """Returns every conflict of the records' ledgers, in order."""
    return [
        SettledConflict(example=record.example, conflict=conflict)
        for record in records
        for conflict in record.integration.ledger.conflicts
    ]


def ledger_counts(records: Sequence[TrainingRecord]) -> dict[str, int]:
    """Returns what the ledgers hold; what occurs nowhere is left out."""
    integrations = [record.integration for record in records]
    found = [integration.ledger for integration in integrations]
    settled = Counter(
        conflict.rule
        for ledger in found
        for conflict in ledger.conflicts
        if conflict.kept is not None
    )
    verdicts = Counter(ledger.verdict for ledger in found)
    # A merge that names a model stands in for what that model wrote, or did not write.
    fallbacks = sum(
        integration.method == "merge" and bool(integration.model) for integration in integrations
    )
    counts = {
        "sentences of experts that entered an answer": sum(
            len(ledger.contributions) for ledger in found
        ),
        "statements that several experts made alike": sum(
            len(ledger.agreements) for ledger in found
        ),
        **{f"conflicts settled: {rule}": number for rule, number in sorted(settled.items())},
        "conflicts that nothing settled": sum(
            conflict.kept is None for ledger in found for conflict in ledger.conflicts
        ),
        "possible conflicts, which changed no answer": sum(
            len(ledger.possible_conflicts) for ledger in found
        ),
        "answers in which rules alone looked for conflicts": sum(
            ledger.read_by == "rules" for ledger in found
        ),
        "sentences left out": sum(len(ledger.dropped) for ledger in found),
        "experts' answers that the token limit cut": sum(
            response.finish_reason == "length"
            for record in records
            for response in record.responses
        ),
        "groups of copied answers, each counted once": sum(len(ledger.copies) for ledger in found),
        "answers of the integration model: verified": verdicts["verified"],
        "answers of the integration model: verified after a repair": verdicts["repaired"],
        "answers of the integration model: not verified, and kept": verdicts["unverified"],
        "answers of the integration model: not verified, and never trained on": verdicts[
            "rejected"
        ],
        "answers merged in place of the integration model": fallbacks,
    }
    return {name: number for name, number in counts.items() if number}


def conflicts_sentence(records: Sequence[TrainingRecord]) -> str:
    """Returns how many conflicts were found, and what those who looked for them can't see."""
    found, several = len(conflicts_in(records)), integrated_from_several(records)
    number = counted(found, "conflict") if found else "No conflict was found"
    sentence = f"{number} in {counted(several, 'record')} with the responses of several experts."
    if not any(record.integration.ledger.read_by == "rules" for record in records):
        return sentence
    return f"{sentence} {WHAT_RULES_SEE}"


def dropped_reasons(records: Sequence[TrainingRecord]) -> list[str]:
    """Returns the reason of each sentence or response that did not enter an integrated answer."""
    return [dropped.reason for record in records for dropped in record.integration.ledger.dropped]


def integrated_from_several(records: Sequence[TrainingRecord]) -> int:
    """Returns how many records have the responses of several experts."""
    return sum(len(record.responses) > 1 for record in records)


def worth_reading(records: Sequence[TrainingRecord], most: int = 9) -> list[TrainingRecord]:
    """Returns the first records of each kind in turn: of one domain, cross-domain, rejected; of
    each kind no domains twice.

    Args:
        records: All records.
        most: How many to return at most.
    """
    first: dict[tuple[str, frozenset[str]], TrainingRecord] = {}
    for record in records:
        first.setdefault((_kind(record), frozenset(record.example.domains)), record)
    kinds = [
        [record for (kind, _), record in first.items() if kind == wanted]
        for wanted in ("single", "cross-domain", "rejected")
    ]
    turns = zip_longest(*kinds)
    return [record for turn in turns for record in turn if record is not None][:most]


def _kind(record: TrainingRecord) -> str:
    return (
        "rejected"
        if record.verification == "rejected"
        else "cross-domain"
        if record.example.is_cross_domain
        else "single"
    )
