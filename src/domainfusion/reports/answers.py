"""Answers and ledgers as readers of a report see them: wrong answers first, and what was
integrated from several teachers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import Answer, GenerationCount, ModelResult
from domainfusion.errors import printable
from domainfusion.reports.evaluation_tables import label_of
from domainfusion.reports.tables import clipped, percent
from domainfusion.types import Conflict, Example, TrainingRecord
from domainfusion.wording import counted

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
    """Returns the counts of the ledgers' entries; zeros are left out."""
    integrations = [record.integration for record in records]
    found = [integration.ledger for integration in integrations]
    conflicts = [conflict for ledger in found for conflict in ledger.conflicts]
    settled = Counter(conflict.rule for conflict in conflicts if conflict.kept is not None)
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
    in_turn = chain.from_iterable(zip_longest(*kinds))
    return [record for record in in_turn if record is not None][:most]


def _kind(record: TrainingRecord) -> str:
    return (
        "rejected"
        if record.verification == "rejected"
        else "cross-domain"
        if record.example.is_cross_domain
        else "single"
    )


LONGEST_TEXT = 4000
"""Characters of one text on a page; what is longer is cut, with its length named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was said to a question.

    Attributes:
        label: Who said it, or what it is.
        text: The words; empty where there were none.
        mark: `right`, `wrong`, `not graded` or `kept`; empty for none.
        notes: What a reader has to know about it.
    """

    label: str
    text: str
    mark: str = ""
    notes: tuple[str, ...] = ()

    def plain(self) -> list[object]:
        """Returns the line as the page's script reads it."""
        return [self.label, self.text, self.mark, list(self.notes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question as a page shows it, drawn by the template or by the page's script.

    Attributes:
        query: The question.
        about: Where it belongs, in a few words.
        group: The slice or the domains that a reader can choose.
        state: The grade or the fate that a reader can choose.
        before: The turns before the question: who spoke, and the words.
        lines: What was said to it.
        more: What is shown on demand.
    """

    query: str
    about: str
    group: str
    state: str
    before: tuple[Line, ...] = ()
    lines: tuple[Line, ...] = ()
    more: tuple[Line, ...] = ()

    @property
    def size(self) -> int:
        """Characters of all its texts."""
        every = (*self.before, *self.lines, *self.more)
        return len(self.query) + sum(len(line.text) for line in every)

    def plain(self) -> dict[str, object]:
        """Returns the item as the page's script reads it."""
        return {
            "query": self.query,
            "about": self.about,
            "group": self.group,
            "state": self.state,
            "before": [line.plain() for line in self.before],
            "lines": [line.plain() for line in self.lines],
            "more": [line.plain() for line in self.more],
        }


def _shown(text: str) -> str:
    return printable(clipped(text, LONGEST_TEXT))


def _item(
    example: Example,
    *,
    about: str,
    group: str,
    state: str,
    lines: Sequence[Line],
    more: Sequence[Line] = (),
) -> Item:
    return Item(
        query=_shown(example.query),
        about=printable(about),
        group=printable(group),
        state=state,
        before=tuple(Line(label=turn.role, text=_shown(turn.content)) for turn in example.history),
        lines=tuple(lines),
        more=tuple(more),
    )


def comparison_item(found: Comparison, about: str = "") -> Item:
    """Returns a question with what is expected, the student's and the experts' answers; those of
    other models on demand.
    """
    example = found.example
    where = about or slice_of(example)
    if example.apparent_domain and not about:
        where = f"{where}, looks like {example.apparent_domain}"
    return _item(
        example,
        about=where,
        group=slice_of(example),
        state=found.grade,
        lines=(
            *_expected(example),
            _answer_line(found.student),
            *map(_answer_line, found.experts),
        ),
        more=tuple(map(_answer_line, found.others)),
    )


def _expected(example: Example) -> list[Line]:
    if example.parts:
        lines = []
        for part in example.parts:
            others = f"also {', '.join(part.answers[1:])}" if len(part.answers) > 1 else ""
            notes = tuple(printable(note) for note in (part.domain, others) if note)
            text = _shown(part.answers[0]) if part.answers else ""
            lines.append(Line(label="expected", text=text, notes=notes))
        return lines
    if not example.has_reference:
        return []
    return [Line(label="expected", text=_shown(example.reference or ""))]


def _answer_line(found: ModelAnswer) -> Line:
    return Line(
        label=printable(found.label),
        text=_shown(found.answer.text),
        mark=found.grade,
        notes=tuple(printable(note) for note in _notes(found.answer)),
    )


def _notes(answer: Answer) -> list[str]:
    """Returns what a reader has to know about an answer beside its grade."""
    notes = []
    if answer.score is not None and answer.is_overlap:
        notes.append(f"shares {percent(answer.score)} of its words with the reference")
    elif answer.score is not None and 0 < answer.score < 1:
        notes.append(f"{percent(answer.score)} of the parts right")
    if answer.finish_reason == "length":
        notes.append("cut at the token limit")
    elif answer.finish_reason != "stop":
        notes.append(answer.finish_reason)
    if answer.repetitive:
        notes.append("goes round in circles")
    if not answer.readable:
        notes.append("not readable")
    if answer.correct is None and answer.reason:
        notes.append(answer.reason)
    return notes


def record_item(record: TrainingRecord) -> Item:
    """Returns a training question with its responses and its target."""
    example = record.example
    lines = []
    for response in record.responses:
        asked = response.question if response.question != example.query else ""
        lines.append(
            Line(
                label=f"expert: {printable(response.domain)}",
                text=_shown(response.text),
                notes=(f"asked: {_shown(asked)}",) if asked else (),
            )
        )
    reason = f": {record.reason}" if record.reason else ""
    lines.append(
        Line(
            label="target",
            text=_shown(record.target),
            notes=(printable(f"{record.verification}{reason}"),),
        )
    )
    domains = " + ".join(example.domains)
    return _item(
        example,
        about=f"{domains}, {example.source}",
        group=domains,
        state=record.verification,
        lines=lines,
    )


def left_out_items(counts: Sequence[GenerationCount]) -> list[Item]:
    """Returns the questions that were made and left out, with the reason."""
    items = []
    for count in counts:
        for found in count.removed:
            lines = [Line(label="left out", text=_shown(found.reason))]
            if found.contained:
                lines.append(Line(label="because of", text=_shown(found.contained)))
            items.append(
                Item(
                    query=_shown(found.query),
                    about=printable(count.generator),
                    group=printable(count.generator),
                    state="left out",
                    lines=tuple(lines),
                )
            )
    return items


def conflict_item(found: SettledConflict) -> Item:
    """Returns a conflict with its claims and how it was settled."""
    lines = []
    disputed = found.conflict.question
    if disputed and disputed != found.example.query:
        lines.append(Line(label="disputed", text=_shown(disputed)))
    for domain, claim in found.conflict.claims.items():
        mark = "kept" if domain in found.kept else ""
        lines.append(Line(label=printable(domain), text=_shown(claim), mark=mark))
    nothing = "no claim stands: the answer reports that the experts disagree, or there is none"
    lines.append(
        Line(
            label="settled by" if found.kept else "not settled",
            text=_shown(found.conflict.rule),
            notes=() if found.kept else (nothing,),
        )
    )
    domains = " + ".join(found.example.domains)
    return _item(found.example, about=domains, group=domains, state="", lines=lines)
