"""The verdict: what the student keeps and what it misses, in sentences whose every number is in the
evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import (
    MOST_NAMED,
    Estimate,
    ModelResult,
    Regression,
    Role,
    SliceScore,
)
from domainfusion.reports.evaluation_tables import gains, label_of
from domainfusion.reports.summary import RunSummary
from domainfusion.reports.tables import capitalised, interval, percent, size
from domainfusion.wording import counted, listed

MOST_LISTED = 5
"""Domains or kinds of questions that a sentence lists; of more it has the first, or the range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The conclusions of an evaluation.

    Attributes:
        headline: One sentence, that of `EvaluationReport.headline`.
        conclusions: The verdict on each expert, those of `EvaluationReport.conclusions`.
        keeps: What the student can do.
        misses: What it can't, and which figures mean nothing.
        merge: Whether the untrained merge of the experts would have been enough; empty where none
            was measured.
    """

    headline: str
    conclusions: tuple[str, ...]
    keeps: tuple[str, ...]
    misses: tuple[str, ...]
    merge: str = ""


def verdict(report: EvaluationReport) -> Verdict:
    """Returns the evaluation in words.

    Args:
        report: What the evaluation found.

    Returns:
        Sentences; where a figure is undefined they say why.
    """
    return Verdict(
        headline=report.headline,
        conclusions=report.conclusions,
        merge=merge_sentence(report),
        keeps=tuple(sentence for sentence in _kept(report) if sentence),
        misses=tuple(
            sentence
            for sentence in (
                *_not_learnt(report),
                _wrong_answers(report),
                _lost_answers(report),
                _edge_cases(report),
                *_other_slices(report, weak=True),
                *_beaten(report),
                *_regressions(report, lost=True),
                _overlap(report),
                _apart(report),
                _coherence(report),
            )
            if sentence
        ),
    )


def merge_sentence(report: EvaluationReport) -> str:
    """Returns whether the experts merged without training would have been enough; empty where no
    merge was measured.
    """
    found = gains(report)
    if not found:
        return ""
    gained = [row for row in found if row.outcome == "gained"]
    lost = [row for row in found if row.outcome == "lost"]
    same = [row.slice for row in found if row.outcome == "not settled"]
    if gained:
        named = sorted(gained, key=lambda row: -(row.difference.value or 0.0))[:MOST_NAMED]
        figures = [f"{row.slice} ({_figure(row.merge)} → {_figure(row.student)})" for row in named]
        if len(gained) > len(named):
            figures.append(f"{len(gained) - len(named)} more")
        sentence = f"The untrained merge was not enough: training gained on {listed(figures)}."
    elif lost:
        sentence = "The untrained merge is better than the student."
    else:
        sentence = (
            "The untrained merge may have been enough: on no kind of question is the student"
            " measurably better."
        )
    if lost:
        worse = listed(
            f"{row.slice} ({_figure(row.merge)} → {_figure(row.student)})" for row in lost
        )
        sentence += f" Training lost on {worse}."
    if gained and same:
        others = listed(same) if len(same) <= MOST_NAMED else counted(len(same), "other kind")
        sentence += f" No difference is settled on {others}."
    return sentence


def cross_domain_sentence(report: EvaluationReport) -> str:
    """Returns what the student answers across domains, beside the base, the best expert and the
    ensemble; empty where none of it was graded.
    """
    score = report.student.slices.get("cross-domain")
    if score is None or score.strict.value is None:
        return ""
    return _slice_sentence(report, "cross-domain", score)


def savings_sentence(summary: RunSummary) -> str:
    """Returns what the saved student takes beside its experts; empty where it was not measured."""
    if summary.savings is None:
        return ""
    together = summary.savings.experts
    shipped = summary.shipped
    weight = shipped.weight_bytes if shipped else summary.savings.student.weight_bytes
    calls, asked = together.calls, summary.savings.student.calls
    others = "experts and integrator" if summary.savings.integrated else "experts together"
    sentence = (
        f"The {'saved student' if shipped else 'student, as it was trained,'} takes"
        f" {size(weight)} and one call a question; {others} {size(together.weight_bytes)} and"
        f" {calls / asked if asked else 0:.1f} calls"
    )
    if not together.seconds:
        return f"{sentence}."
    return (
        f"{sentence}. It answers in {summary.savings.student.seconds / together.seconds:.2f} of"
        " their time."
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _kept(report: EvaluationReport) -> list[str]:
    return [
        _recovered(report),
        *_other_slices(report, weak=False),
        *_regressions(report, lost=False),
    ]


def introduction(summary: RunSummary) -> str:
    """Describes the run and its measurements for a reader who was not there."""
    base = summary.about_student("base_model")
    names = list(summary.teachers)
    experts = f"{counted(len(names), 'expert')} ({_some(names)})" if names else "domain experts"
    start = f"The model {base} learned" if base else "One model learned"
    sentence = f"{start} from the answers of {experts} and became the student."
    asked = len(summary.evaluation.examples) if summary.evaluation else 0
    return (
        f"{sentence} Student and experts were then asked the same {counted(asked, 'question')}."
        if asked
        else sentence
    )


def _recovered(report: EvaluationReport) -> str:
    found = [
        (row, row.headroom.value) for row in report.retention if row.headroom.value is not None
    ]
    if not found:
        return ""
    if len(found) > MOST_LISTED:
        shares = sorted(value for _, value in found)
        return (
            "Of what its expert knew and the base did not, it recovered"
            f" {percent(shares[0])} to {percent(shares[-1])}, by domain."
        )
    return (
        "Of what its expert knew and the base did not, it recovered "
        + listed(f"{percent(value)} in {row.domain}" for row, value in found)
        + "."
    )


def _other_slices(report: EvaluationReport, *, weak: bool) -> list[str]:
    domains = {row.domain for row in report.retention}
    others = [(name, score) for name, score in report.student.slices.items() if name not in domains]
    return [
        _slice_sentence(report, name, score)
        for name, score in others
        if _is_weak(report, name) is weak
    ]


def _is_weak(report: EvaluationReport, name: str) -> bool:
    mine = report.student.slices[name].strict.value
    return mine is not None and (mine < 0.5 or bool(_better(report, name, mine)))


def _slice_sentence(report: EvaluationReport, name: str, score: SliceScore) -> str:
    if score.strict.value is None:
        return ""
    asked = counted(score.items, f"{name} question")
    sentence = (
        f"It answers {percent(score.strict.value)} of {asked} right in every"
        f" part{_within(score.strict)}"
    )
    others = _others(report, name)
    return f"{sentence}; {listed(others)}." if others else f"{sentence}."


def _others(report: EvaluationReport, name: str) -> list[str]:
    others = [f"the base {percent(value)}" for _, value in _measured(report, name, "base")[:1]]
    experts = _measured(report, name, "expert")
    if experts:
        others.append(f"the best single expert {percent(max(value for _, value in experts))}")
    for role in ("merge", "ensemble"):
        others += [
            f"{_the(model)} {percent(value)}" for model, value in _measured(report, name, role)
        ]
    return others


def _the(model: ModelResult) -> str:
    return f"“{model.name}”" if model.role == "baseline" else f"the {label_of(model)}"


def _measured(report: EvaluationReport, name: str, role: Role) -> list[tuple[ModelResult, float]]:
    scores = [
        (model, model.slices[name].strict.value)
        for model in report.models
        if model.role == role and name in model.slices
    ]
    return [(model, value) for model, value in scores if value is not None]


def _not_learnt(report: EvaluationReport) -> list[str]:
    """Where retention says nothing of learning, since the base was as good before it."""
    domains: dict[str, list[str]] = {}
    for row in report.retention:
        if row.headroom.value is None and row.base is not None and row.retention.value is not None:
            domains.setdefault(row.headroom.reason, []).append(row.domain)
    return [
        f"Headroom in {_some(names)} is undefined, because {reason}."
        for reason, names in domains.items()
        if reason
    ]


def _some(names: Sequence[str]) -> str:
    """Lists names, of many the first ones and how many more there are."""
    if len(names) <= MOST_LISTED:
        return listed(names)
    return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"


def _within(estimate: Estimate) -> str:
    inside = interval(estimate)
    return f" (95 % interval {inside} %)" if inside else ""


def _wrong_answers(report: EvaluationReport) -> str:
    found: list[tuple[int, int, str]] = []
    graded = 0
    for name, score in report.student.slices.items():
        if score.strict.value is None:
            continue
        answers = score.items - score.unscored - score.overlap_items
        graded += answers
        if wrong := round((1 - score.strict.value) * answers):
            found.append((wrong, answers, name))
    if not graded:
        return ""
    if not found:
        return "It misses none of the graded questions."
    if len(found) > MOST_LISTED:
        found.sort(key=lambda row: -row[0] / row[1])
        together = sum(wrong for wrong, _, _ in found)
        worst = listed(
            f"{wrong:,} of {answers:,} {name}" for wrong, answers, name in found[:MOST_NAMED]
        )
        return (
            f"It gets {counted(together, 'question')} wrong, at least in part; the most on {worst}."
        )
    kinds = listed(
        f"{wrong:,} of {counted(answers, f'{name} question')}" for wrong, answers, name in found
    )
    return f"It gets {kinds} wrong, at least in part."


def _lost_answers(report: EvaluationReport) -> str:
    lost = [(_lost_in(report, row.domain), row.domain) for row in report.retention]
    found = [(number, domain) for number, domain in lost if number]
    if not found:
        return ""
    if len(found) > MOST_LISTED:
        found.sort(key=lambda row: -row[0])
        most = listed(f"{number:,} in {domain}" for number, domain in found[:MOST_NAMED])
        words = f"{sum(number for number, _ in found):,}, the most of them {most}"
    else:
        words = listed(f"{number:,} in {domain}" for number, domain in found)
    return f"Questions that the domain's expert answers right and the student wrong: {words}."


def _lost_in(report: EvaluationReport, domain: str) -> int:
    experts = [model for model in report.models if _is_expert(model, domain)]
    answers = [answer for model in experts for answer in model.answers]
    right = {answer.example_id for answer in answers if answer.correct}
    own = {example.id for example in report.examples if slice_of(example) == domain}
    return sum(
        answer.correct is False and answer.example_id in right & own
        for answer in report.student.answers
    )


def _edge_cases(report: EvaluationReport) -> str:
    if not report.edge_cases:
        return ""
    missed = len(report.edge_cases)
    known = sum(case.experts_know is True for case in report.edge_cases)
    answers = "its answer" if missed == 1 else f"the answers of {known:,}"
    who = f"the experts know {answers if known else 'none of the answers'}"
    return f"Between the domains it misses {counted(missed, 'adversarial question')}; {who}."


def _regressions(report: EvaluationReport, *, lost: bool) -> list[str]:
    """Returns what became of general ability: a loss and what is not settled, or else what is as it
    was.
    """
    words = {
        "loss": "It lost general ability on {}.",
        "not enough data": (
            "Whether it lost general ability is not settled on {}: the benchmark is too small."
        ),
        "no measurable loss": "It shows no measurable loss of general ability on {}.",
    }
    rows = [row for row in report.regressions if (row.verdict == "no measurable loss") is not lost]
    by_verdict = {
        verdict: [_difference(row) for row in rows if row.verdict == verdict] for verdict in words
    }
    return [words[verdict].format(listed(found)) for verdict, found in by_verdict.items() if found]


def _difference(row: Regression) -> str:
    if row.student is None or row.base is None:
        return row.slice
    return f"{row.slice} ({percent(row.student)}, the base {percent(row.base)})"


def _overlap(report: EvaluationReport) -> str:
    if report.overlap is None or not (report.overlap.same or report.overlap.near):
        return ""
    same, near = len(report.overlap.same), len(report.overlap.near)
    return (
        f"The figures flatter it: {counted(same, 'test question')} {'was' if same == 1 else 'were'}"
        f" trained on, and {near:,} nearly."
    )


def _is_expert(model: ModelResult, domain: str) -> bool:
    return model.role == "expert" and model.name == domain


def _beaten(report: EvaluationReport) -> list[str]:
    """Whatever is better than the student without knowing which expert to ask."""
    sentences = []
    for name, score in report.student.slices.items():
        mine = score.strict.value
        better = [] if mine is None else _better(report, name, mine)
        if better and mine is not None:
            who = listed(f"{_the(model)} ({percent(value)})" for model, value in better)
            sentences.append(
                f"On {name} questions {who} {'does' if len(better) == 1 else 'do'} better than the"
                f" student ({percent(mine)})."
            )
    return sentences


def _better(report: EvaluationReport, name: str, mine: float) -> list[tuple[ModelResult, float]]:
    rivals: tuple[Role, ...] = ("base", "merge", "baseline")
    measured = chain.from_iterable(_measured(report, name, role) for role in rivals)
    return [(model, share) for model, share in measured if share > mine]


def _apart(report: EvaluationReport) -> str:
    # An answer may be in several slices, so the answers themselves are counted.
    answers = report.student.answers
    ungraded, cut = (
        sum(answer.score is None for answer in answers),
        sum(answer.finish_reason == "length" for answer in answers),
    )
    found = [f"{counted(ungraded, 'answer')} could not be graded"] if ungraded else []
    found += [f"{counted(cut, 'answer')} ended at the token limit"] if cut else []
    empty, loops = (
        sum(not answer.readable for answer in answers),
        sum(answer.repetitive for answer in answers),
    )
    found += (
        [
            f"{counted(empty, 'answer')} held nothing to grade and"
            f" {'counts' if empty == 1 else 'count'} as wrong"
        ]
        if empty
        else []
    )
    found += [f"{counted(loops, 'answer')} went round in circles"] if loops else []
    return f"{capitalised(listed(found))}." if found else ""


def _coherence(report: EvaluationReport) -> str:
    """Coherence is named among the misses until its metric has been validated."""
    if (
        report.coherence is None
        or report.coherence.score.value is None
        or report.coherence.validated
    ):
        return ""
    validation = report.coherence.validation
    if validation is None:
        return (
            "Integration Coherence is not validated: its metric has not been shown to tell sound"
            " texts from corrupted ones."
        )
    return (
        "Integration Coherence is validated in part: its metric does not see texts that are"
        f" {', '.join(validation.missed)}."
    )
