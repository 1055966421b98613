"""The verdict: what the student keeps and what it misses, in sentences whose every number is in the evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import (
    Coherence,
    DomainRetention,
    Estimate,
    EvaluationReport,
    ModelResult,
    Regression,
    Role,
    SliceScore,
)
from domainfusion.reports.evaluation_tables import goal_of, is_graded, label_of
from domainfusion.reports.figures import capitalised, counted, interval, listed, percent
from domainfusion.reports.summary import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an evaluation says.

    Attributes:
        headline: One sentence.
        keeps: What the student can do.
        misses: What it can't, and which figures mean nothing.
    """

    headline: str
    keeps: tuple[str, ...]
    misses: tuple[str, ...]


def verdict(report: EvaluationReport) -> Verdict:
    """Returns the evaluation in words.

    Args:
        report: What the evaluation found.

    Returns:
        Sentences; where a figure is undefined they say why.
    """
    return Verdict(
        headline=_headline(report),
        keeps=tuple(sentence for sentence in _kept(report) if sentence),
        misses=tuple(
            sentence
            for sentence in (
                _undefined(report),
                _short(report),
                _unsettled(report),
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


def _kept(report: EvaluationReport) -> list[str]:
    return [_kept_domains(report), _recovered(report), *_other_slices(report, weak=False), *_regressions(report, lost=False)]


def introduction(summary: RunSummary) -> str:
    """Returns what was done and how it was measured, for a reader who was not there."""
    base = summary.about_student("base_model")
    names = list(summary.teachers)
    experts = f"{counted(len(names), 'expert')}{f' ({listed(names)})' if names else ''}" if names else "domain experts"
    start = f"The model {base} learnt" if base else "One model learnt"
    sentence = f"{start} from the answers of {experts} and became the student."
    asked = len(summary.evaluation.examples) if summary.evaluation else 0
    return f"{sentence} Student and experts were then asked the same {counted(asked, 'question')}." if asked else sentence


def _defined(rows: Iterable[DomainRetention]) -> list[tuple[DomainRetention, float]]:
    return [(row, row.retention.value) for row in rows if row.retention.value is not None]


def _headline(report: EvaluationReport) -> str:
    kept, goal = _defined(report.retention), goal_of(report)
    across = report.cross_domain_accuracy.value
    pairs = "" if across is None else f"answers {percent(across)} of the cross-domain questions in full"
    if not kept and not pairs and report.agreement:
        return _agreement_headline(report)
    if not kept:
        return f"The student {pairs}." if pairs else f"The student was measured on {listed(_sizes(report))}."
    short = [(row, value) for row, value in kept if value < goal]
    if short:
        losses = listed(f"{percent(value)} of the {row.domain} expert" for row, value in short)
        return f"The student falls short: it keeps {losses}{f', and {pairs}' if pairs else ''}."
    claim = f"{percent(kept[0][1])} of the {kept[0][0].domain} expert"
    if len(kept) > 1:
        claim = f"at least {percent(min(value for _, value in kept))} of each of its {len(kept)} experts"
    return f"The student keeps {claim}{f' and {pairs}' if pairs else ''}."


def _agreement_headline(report: EvaluationReport) -> str:
    measure = report.agreement[0].measure
    found = [row.relative.value for row in report.agreement if row.measure == measure and row.relative.value is not None]
    if not found:
        return "Nobody says what is right, and agreement with the experts is undefined."
    return (
        f"Nobody says what is right; by {measure}, the student agrees with its experts at least {percent(min(found))} as much as they do "
        "with themselves."
    )


def _sizes(report: EvaluationReport) -> list[str]:
    return [f"{counted(score.items, f'{name} question')}" for name, score in report.student.slices.items()] or ["no questions"]


def _kept_domains(report: EvaluationReport) -> str:
    kept = [(row, value) for row, value in _defined(report.retention) if value >= goal_of(report)]
    if not kept:
        return ""
    sentence = f"It keeps {listed(f'{percent(value)} of the {row.domain} expert' for row, value in kept)}."
    lows = [(row.retention.low, row.domain) for row, _ in kept if row.retention.low is not None]
    if not lows:
        return sentence
    low, domain = min(lows)
    if len(lows) == 1:
        return f"{sentence} Its 95 % interval reaches down to {percent(low)}."
    return f"{sentence} The 95 % intervals reach down to {percent(low)}, in {domain}."


def _recovered(report: EvaluationReport) -> str:
    found = [(row, row.headroom.value) for row in report.retention if row.headroom.value is not None]
    if not found:
        return ""
    return (
        "Of what its expert knew and the base did not, it recovered "
        + listed(f"{percent(value)} in {row.domain}" for row, value in found)
        + "."
    )


def _other_slices(report: EvaluationReport, *, weak: bool) -> list[str]:
    domains = {row.domain for row in report.retention}
    others = [(name, score) for name, score in report.student.slices.items() if name not in domains]
    return [_slice_sentence(report, name, score) for name, score in others if _is_weak(report, name) is weak]


def _is_weak(report: EvaluationReport, name: str) -> bool:
    mine = report.student.slices[name].strict.value
    return mine is not None and (mine < 0.5 or bool(_better(report, name, mine)))


def _slice_sentence(report: EvaluationReport, name: str, score: SliceScore) -> str:
    if score.strict.value is None:
        return ""
    asked = counted(score.items, f"{name} question")
    sentence = f"It answers {percent(score.strict.value)} of {asked} right in every part{_within(score.strict)}"
    others = _others(report, name)
    return f"{sentence}; {listed(others)}." if others else f"{sentence}."


def _others(report: EvaluationReport, name: str) -> list[str]:
    others = [f"the base {percent(value)}" for _, value in _measured(report, name, "base")[:1]]
    experts = _measured(report, name, "expert")
    if experts:
        others.append(f"the best single expert {percent(max(value for _, value in experts))}")
    for role in ("merge", "baseline", "oracle"):
        others += [f"{_the(model)} {percent(value)}" for model, value in _measured(report, name, role)]
    return others


def _the(model: ModelResult) -> str:
    return f"“{model.name}”" if model.role == "baseline" else f"the {label_of(model)}"


def _measured(report: EvaluationReport, name: str, role: Role) -> list[tuple[ModelResult, float]]:
    scores = [(model, model.slices[name].strict.value) for model in report.models if model.role == role and name in model.slices]
    return [(model, value) for model, value in scores if value is not None]


def _undefined(report: EvaluationReport) -> str:
    if report.retention and not is_graded(report):
        return "Retention and accuracy are undefined: no answer could be graded."
    rows = [row for row in report.retention if row.retention.value is None]
    missing = [f"{row.domain}{f' ({row.retention.reason})' if row.retention.reason else ''}" for row in rows]
    return f"Retention is undefined in {listed(missing)}." if missing else ""


def _short(report: EvaluationReport) -> str:
    short = [(row, value) for row, value in _defined(report.retention) if value < goal_of(report)]
    found = [f"{percent(value)} of the {row.domain} expert{_within(row.retention)}" for row, value in short]
    return f"It keeps only {listed(found)}." if found else ""


def _within(estimate: Estimate) -> str:
    inside = interval(estimate)
    return f" (95 % interval {inside} %)" if inside else ""


def _unsettled(report: EvaluationReport) -> str:
    tested = [(row.domain, row.non_inferiority) for row in report.retention]
    found = [(domain, test.more_items) for domain, test in tested if test is not None and test.verdict == "not enough data"]
    if not found:
        return ""
    where = listed(f"{domain}{f' (about {more:,} more questions would)' if more else ''}" for domain, more in found)
    return f"The test set is too small to settle whether {percent(goal_of(report))} is kept in {where}."


def _wrong_answers(report: EvaluationReport) -> str:
    found, graded = [], 0
    for name, score in report.student.slices.items():
        if score.strict.value is None:
            continue
        answers = score.items - score.unscored
        wrong = round((1 - score.strict.value) * answers)
        graded += answers
        found += [f"{wrong:,} of {answers:,} {name} questions"] if wrong else []
    if not graded:
        return ""
    return f"It gets {listed(found)} wrong, at least in part." if found else "It misses none of the graded questions."


def _lost_answers(report: EvaluationReport) -> str:
    lost = [(row.domain, _lost_in(report, row.domain)) for row in report.retention]
    found = [f"{number:,} in {domain}" for domain, number in lost if number]
    return f"Questions that the domain's expert answers right and the student wrong: {listed(found)}." if found else ""


def _lost_in(report: EvaluationReport, domain: str) -> int:
    right = {answer.example_id for model in report.models if _is_expert(model, domain) for answer in model.answers if answer.correct}
    own = {example.id for example in report.examples if slice_of(example) == domain}
    return sum(answer.correct is False and answer.example_id in right & own for answer in report.student.answers)


def _edge_cases(report: EvaluationReport) -> str:
    if not report.edge_cases:
        return ""
    wrong = counted(len(report.edge_cases), "adversarial question")
    known = sum(case.experts_know is True for case in report.edge_cases)
    return f"Between the domains it misses {wrong}; of {'it' if len(report.edge_cases) == 1 else 'them'} the experts know {known:,}."


def _regressions(report: EvaluationReport, *, lost: bool) -> list[str]:
    """Returns what became of general ability: a loss and what is not settled, or else what is as it was."""
    words = {
        "loss": "It lost general ability on {}.",
        "not enough data": "Whether it lost general ability is not settled on {}: the benchmark is too small.",
        "no measurable loss": "It shows no measurable loss of general ability on {}.",
    }
    rows = [row for row in report.regressions if (row.verdict == "no measurable loss") is not lost]
    by_verdict = {verdict: [_difference(row) for row in rows if row.verdict == verdict] for verdict in words}
    return [words[verdict].format(listed(found)) for verdict, found in by_verdict.items() if found]


def _difference(row: Regression) -> str:
    if row.student is None or row.base is None:
        return row.slice
    return f"{row.slice} ({percent(row.student)}, the base {percent(row.base)})"


def _overlap(report: EvaluationReport) -> str:
    if report.overlap is None or not (report.overlap.same or report.overlap.near):
        return ""
    same, near = len(report.overlap.same), len(report.overlap.near)
    return f"The figures flatter it: {counted(same, 'test question')} {'was' if same == 1 else 'were'} trained on, and {near:,} nearly."


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
            sentences.append(f"On {name} questions {who} {'does' if len(better) == 1 else 'do'} better than the student ({percent(mine)}).")
    return sentences


def _better(report: EvaluationReport, name: str, mine: float) -> list[tuple[ModelResult, float]]:
    rivals: tuple[Role, ...] = ("base", "merge", "baseline")
    return [pair for role in rivals for pair in _measured(report, name, role) if pair[1] > mine]


def _apart(report: EvaluationReport) -> str:
    # An answer may be in several slices, so the answers themselves are counted.
    answers = report.student.answers
    ungraded, cut = sum(answer.correct is None for answer in answers), sum(answer.finish_reason == "length" for answer in answers)
    found = [f"{counted(ungraded, 'answer')} could not be graded"] if ungraded else []
    found += [f"{counted(cut, 'answer')} ended at the token limit"] if cut else []
    empty, loops = sum(not answer.extracted for answer in answers), sum(answer.repetitive for answer in answers)
    found += [f"{counted(empty, 'answer')} held nothing to grade"] if empty else []
    found += [f"{counted(loops, 'answer')} went round in circles"] if loops else []
    return f"{capitalised(listed(found))}." if found else ""


def _coherence(report: EvaluationReport) -> str:
    """Coherence is named among the misses until its metric has been validated."""
    if report.coherence is None or report.coherence.validated:
        return ""
    validation = report.coherence.validation
    if validation is None:
        return "Integration Coherence is not validated: its metric has not been shown to tell sound texts from corrupted ones."
    return f"Integration Coherence is validated in part: its metric does not see texts that are {', '.join(validation.missed)}."


def coherence_sentence(found: Coherence) -> str:
    """Writes Integration Coherence with its coverage, and what is known of its metric.

    Example:
        >>> coherence_sentence(Coherence(score=Estimate(value=0.8), coverage=Estimate(value=0.9), validated=False, items=12))
        'Integration Coherence (not validated): 0.800 over 12 answers. They state 90 % of what a right answer states.'
    """
    return (
        f"Integration Coherence ({found.standing}): {found.score}{_because(found.score)} over {counted(found.items, 'answer')}. "
        f"They state {_share(found.coverage)} of what a right answer states."
    )


def _because(estimate: Estimate) -> str:
    return f" ({estimate.reason})" if estimate.value is None and estimate.reason else ""


def _share(estimate: Estimate) -> str:
    return f"an undefined share{_because(estimate)}" if estimate.value is None else percent(estimate.value)
