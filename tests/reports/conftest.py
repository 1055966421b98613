"""A run over aviation, chemistry and geography, written by hand: its students' and experts'
answers, and figures counted from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import (
    Answer,
    Benchmark,
    Coherence,
    Component,
    DomainRetention,
    EdgeCase,
    Estimate,
    Footprint,
    ModelResult,
    NonInferiority,
    OverallScore,
    Overlap,
    Refinement,
    RefinementRound,
    Regression,
    Role,
    Savings,
    Shortfall,
    SliceScore,
)
from domainfusion.models.costs import ModelUsage
from domainfusion.reports import GenerationCount, RunSummary, StageTime
from domainfusion.types import (
    Conflict,
    Contribution,
    Dropped,
    Example,
    Integration,
    Ledger,
    Part,
    Response,
    TrainingRecord,
    Verification,
)
from reports.pages import Element, hostile_run, page
from reports.questions import COUNTRIES, DOMAINS, WRONG, borders, pairs, singles, two_hops

Knows = Callable[[Example, Part, int], bool]
"""Whether a model states a part; the number is the example's place in the test set."""


def around(values: Sequence[float]) -> Estimate:
    """A share with an interval wide enough to look like one; the figures of this run need no
    more.
    """
    if not values:
        return Estimate(value=None, reason="no answer could be graded")
    mean = sum(values) / len(values)
    half = (
        1.96 * math.sqrt(max(mean * (1 - mean), 0.25 / len(values)) / len(values))
        if 0 < mean < 1
        else 0.0
    )
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))


def answer_of(example: Example, place: int, knows: Knows) -> Answer:
    stated = [knows(example, part, place) for part in example.parts]
    words = [
        part.answers[0] if right else WRONG[part.domain]
        for part, right in zip(example.parts, stated, strict=True)
    ]
    return Answer(
        example_id=example.id,
        text=" ".join(f"{word.rstrip('.')}." for word in words),
        score=sum(stated) / len(stated),
        correct=all(stated),
    )


def score_of(answers: Sequence[Answer]) -> SliceScore:
    graded = [answer for answer in answers if answer.correct is not None]
    return SliceScore(
        items=len(answers),
        strict=around([float(answer.correct or 0) for answer in graded]),
        partial=around([answer.score or 0.0 for answer in graded]),
        unscored=len(answers) - len(graded),
        truncated=sum(answer.finish_reason == "length" for answer in answers),
    )


def result(
    name: str, role: Role, examples: Sequence[Example], answers: Sequence[Answer]
) -> ModelResult:
    slices: dict[str, list[Answer]] = {}
    by_pair: dict[str, list[Answer]] = {}
    by_border: dict[str, list[Answer]] = {}
    for example, answer in zip(examples, answers, strict=True):
        slices.setdefault(slice_of(example), []).append(answer)
        if slice_of(example) == "cross-domain":
            by_pair.setdefault(" + ".join(example.domains), []).append(answer)
        if example.apparent_domain:
            by_border.setdefault(
                f"{example.apparent_domain} → {example.primary_domain}", []
            ).append(answer)
    return ModelResult(
        name=name,
        role=role,
        slices={key: score_of(found) for key, found in slices.items()},
        pairs={key: score_of(found) for key, found in by_pair.items()},
        adversarial={key: score_of(found) for key, found in by_border.items()},
        answers=tuple(answers),
    )


def expert_in(domain: str) -> Knows:
    return lambda example, part, place: (
        part.domain == domain and slice_of(example) != "two-hop" and place % 60 != 7
    )


def evaluation_of_run() -> EvaluationReport:
    questions = singles()
    examples = [*questions, *pairs(questions, 30), *two_hops(), *borders()]
    models: list[tuple[str, Role, Knows]] = [
        (
            "student",
            "student",
            lambda example, part, place: place % (3 if slice_of(example) == "two-hop" else 29) != 1,
        ),
        (
            "base",
            "base",
            lambda example, part, place: part.domain == "geography" and place % 4 == 0,
        ),
        *((domain, "expert", expert_in(domain)) for domain in DOMAINS),
        (
            "merge",
            "merge",
            lambda example, part, place: not example.is_cross_domain and place % 5 > 1,
        ),
        (
            "oracle",
            "oracle",
            lambda example, part, place: slice_of(example) != "two-hop" and place % 60 != 7,
        ),
    ]
    results = [
        result(
            name, role, examples, [answer_of(e, place, knows) for place, e in enumerate(examples)]
        )
        for name, role, knows in models
    ]
    student = list(results[0].answers)
    student[30] = replace(
        student[30],
        text="The airport is in Ghana and the airport is in Ghana and the airport is in Ghana and",
        finish_reason="length",
        score=0.0,
        correct=False,
    )
    student[177] = replace(student[177], text="Germany.", score=0.0, correct=False)
    student[173] = replace(
        student[173],
        text="GHS or USD, depending on the shop.",
        score=None,
        correct=None,
        reason="two answers where one is asked for",
    )
    results[0] = result("student", "student", examples, student)
    most_frequent = ModelResult(
        name="most frequent answer",
        role="baseline",
        slices={
            "two-hop": SliceScore(
                items=16, strict=Estimate(value=0.375), partial=Estimate(value=0.375)
            )
        },
    )
    retention = tuple(retention_in(domain, results) for domain in DOMAINS)
    return EvaluationReport(
        models=(*results, most_frequent),
        retention=retention,
        coherence=Coherence(
            score=Estimate(value=0.8137, low=0.7921, high=0.8344),
            coverage=Estimate(value=0.9667, low=0.9167, high=1.0),
            consistency=Estimate(value=0.8417, low=0.8121, high=0.8690),
            items=30,
        ),
        overall=OverallScore(
            score=Estimate(value=0.9391, low=0.9102, high=0.9614),
            components=(
                Component(
                    name="DER",
                    score=Estimate(value=0.9822, low=0.9631, high=0.9951),
                    weight=0.5,
                    about="mean over the domains",
                ),
                Component(
                    name="CDA", score=Estimate(value=0.9667, low=0.9024, high=1.0), weight=0.3
                ),
                Component(
                    name="IC",
                    score=Estimate(value=0.8137, low=0.7921, high=0.8344),
                    weight=0.2,
                    about="not validated",
                ),
            ),
        ),
        edge_cases=tuple(
            EdgeCase(
                example_id=example.id,
                apparent=example.apparent_domain,
                needed=example.primary_domain,
                experts_know=place % 2 == 1,
            )
            for place, (example, answer) in enumerate(
                zip(examples, results[0].answers, strict=True)
            )
            if example.apparent_domain and not answer.correct
        ),
        benchmarks=(
            Benchmark(
                slice="common sense", domain="", source="sense.jsonl", items=200, metric="choice"
            ),
        ),
        regressions=(
            Regression(
                slice="common sense",
                items=200,
                student=0.615,
                base=0.61,
                difference=Estimate(value=0.005, low=-0.021, high=0.03),
                tolerance=0.03,
                verdict="no measurable loss",
            ),
        ),
        overlap=Overlap(trained=99, method="13 words in a row"),
        examples=tuple(examples),
        test_set="9f2ab04c51d7e833",
        notes=(
            "Facts are shared between training and test; phrasings and pairings are not.",
            "Two-hop questions are reported apart: no expert knows both halves of one.",
        ),
        seed=0,
        resamples=10_000,
        metric="contains every part",
        coherence_metric="discourse features",
    )


def retention_in(domain: str, results: Sequence[ModelResult]) -> DomainRetention:
    student, base, expert = (
        next(
            model
            for model in results
            if (model.role == role and (role != "expert" or model.name == domain))
        ).slices[domain]
        for role in ("student", "base", "expert")
    )
    kept, known, before = student.strict.value, expert.strict.value, base.strict.value
    assert kept is not None and known is not None and before is not None
    low, high = kept / known - 0.031, kept / known + 0.022
    settled = low >= 0.95
    return DomainRetention(
        domain=domain,
        items=student.items,
        student=kept,
        expert=known,
        base=before,
        retention=Estimate(value=kept / known, low=low, high=high),
        headroom=Estimate(
            value=(kept - before) / (known - before),
            low=(kept - before) / (known - before) - 0.04,
            high=1.0,
        ),
        non_inferiority=NonInferiority(
            margin=0.95,
            verdict="yes" if settled else "not enough data",
            low=low,
            high=high,
            more_items=None if settled else 140,
            method="the lower end of the interval",
        ),
    )


def record_of(example: Example, place: int) -> TrainingRecord:
    said = {part.domain: f"{part.answers[0]}." for part in example.parts}
    responses = tuple(
        Response(
            domain=domain,
            text=said.get(domain, "I don't know."),
            example_id=example.id,
            question=example.question_for(domain),
            teacher="5c1f",
        )
        for domain in example.domains
    )
    text = " ".join(said.values())
    contributions = tuple(
        Contribution(
            domain=domain, text=words, start=text.index(words), end=text.index(words) + len(words)
        )
        for domain, words in said.items()
    )
    ledger = Ledger(contributions=contributions if example.is_cross_domain else ())
    method = "merge" if example.is_cross_domain else "single"
    if place % 17 == 5:
        rejected = replace(responses[0], text=WRONG[example.primary_domain])
        return TrainingRecord(
            example=example,
            responses=(rejected, *responses[1:]),
            integration=Integration(text=rejected.text, method=method),
            verification="rejected",
            reason="the target does not state what the reference states",
        )
    if example.is_cross_domain and place % 4 == 1:
        first, second = example.domains
        conflict = Conflict(
            claims={first: responses[0].text, second: f"That is in {COUNTRIES['Ghana'][0]}."},
            kept=first,
            rule="the expert of the domain in question is trusted",
        )
        ledger = replace(
            ledger,
            conflicts=(conflict,),
            dropped=(
                Dropped(
                    domain=second,
                    text=conflict.claims[second],
                    reason="contradicts the expert of the domain",
                ),
            ),
        )
    if example.is_cross_domain and place % 9 == 3:
        conflict = Conflict(
            claims=dict(said),
            kept=None,
            rule="nothing settles it",
            question=example.query.split("? ")[-1],
        )
        ledger = replace(ledger, conflicts=(conflict,), copies=(example.domains,))
    verification: Verification = "unverified" if example.source != "curated" else "verified"
    return TrainingRecord(
        example=example,
        responses=responses,
        integration=Integration(text=text, method=method, ledger=ledger),
        verification=verification,
    )


def training_log() -> list[dict[str, object]]:
    lines: list[dict[str, object]] = [
        {"objective": "distribution", "taught": {"the expert of aviation": 16}, "word_for_word": {}}
    ]
    scores_of_merges = {
        "0.5": {"aviation": 0.5, "chemistry": 0.25},
        "1": {"aviation": 0.75, "chemistry": 0.5},
    }
    lines.append({"chosen": "merge_weight", "measured": scores_of_merges, "value": 1.0})
    lines.append(
        {
            "chosen": "order",
            "measured": {"aviation": -2.25, "chemistry": -1.5},
            "value": ["chemistry", "aviation"],
        }
    )
    lines.append({"known": {"aviation": {"records": 40, "known": 30, "skipped": 20}}})
    for phase, start, floor, steps in (
        ("domains", 1.1, 0.004, 180),
        ("integration", 0.09, 0.006, 90),
    ):
        for step in range(1, steps + 1):
            loss = floor + (start - floor) * math.exp(-4.5 * step / steps) * (
                1 + 0.18 * math.sin(step * 2.3)
            )
            found = {"loss": round(loss, 5), "learning_rate": 1e-3, "seconds": round(1.6 * step, 1)}
            domains = {
                domain: {"tokens": 40 + step % 7, "cross_entropy": round(loss * factor, 5)}
                for domain, factor in zip(DOMAINS, (0.7, 1.3, 1.0), strict=True)
            }
            lines.append({"phase": phase, "step": step, **found, "domains": domains})
            if step % 45 == 0:
                late = 0.04 * (phase == "integration") + 0.01 * step / steps
                scores = {
                    "aviation": 0.94 + late,
                    "chemistry": 0.9 + late,
                    "geography": 0.92 + late,
                    "cross-domain": 0.6 + 7 * late,
                }
                lines.append({"phase": phase, "step": step, "validation": scores})
        lines.append(
            {
                "phase": phase,
                "finished": True,
                "validation": scores,
                "divergence_from_base": {"aviation": 0.03125 * start},
            }
        )
    return lines


def a_run() -> RunSummary:
    questions = singles()
    asked = [*questions[::2], *pairs(questions, 40, seed=9)]
    written = Example(
        query="Why is Tokyo's airport code NRT and not TYO?",
        domains=("aviation", "geography"),
        source="synthetic",
    )
    records = [record_of(example, place) for place, example in enumerate(asked)]
    records.append(
        TrainingRecord(
            example=written,
            responses=(
                Response(
                    domain="aviation",
                    text="NRT airport serves the city of Tokyo.",
                    example_id=written.id,
                ),
                Response(
                    domain="geography", text="The capital of Japan is Tokyo.", example_id=written.id
                ),
            ),
            integration=Integration(
                text="NRT airport serves the city of Tokyo. The capital of Japan is Tokyo.",
                method="merge",
            ),
        )
    )
    return RunSummary(
        title="Three experts, one student",
        evaluation=evaluation_of_run(),
        generation=(
            GenerationCount("curated questions", "curated", 104, 104, {}),
            GenerationCount(
                "SyntheticDataGenerator",
                "synthetic",
                24,
                5,
                {"no question": 9, "duplicate": 6, "too short": 4},
                24,
            ),
            GenerationCount(
                "AdversarialDataGenerator",
                "adversarial",
                12,
                1,
                {"does not need the domain": 7, "duplicate": 4},
                12,
                0.2,
            ),
        ),
        records=tuple(records),
        stages=(
            StageTime("generate", 38.2, 1_610_000_000),
            StageTime("collect", 64.7, 1_720_000_000),
            StageTime("integrate", 0.4, 1_720_000_000),
            StageTime("train", 421.9, 3_870_000_000),
            StageTime("evaluate", 117.3, 2_240_000_000),
        ),
        usage=(
            ModelUsage(
                name="aviation",
                roles=("generation", "expert of aviation"),
                calls=228,
                prompt_tokens=9_400,
                completion_tokens=5_100,
                seconds=71.2,
            ),
            ModelUsage(
                name="clinic-large",
                roles=("integration", "judge"),
                calls=36,
                prompt_tokens=14_200,
                completion_tokens=2_900,
                seconds=19.5,
                cost=0.0645,
                unknown_cost=0.002,
            ),
        ),
        refinement=Refinement(
            rounds=(
                RefinementRound(
                    number=1,
                    shortfalls=(
                        Shortfall(
                            domains=("aviation", "geography"),
                            items=8,
                            student=0.25,
                            expert=None,
                            missing=0.75,
                        ),
                        Shortfall(
                            domains=("chemistry",), items=6, student=0.5, expert=0.8, missing=0.375
                        ),
                        Shortfall(
                            domains=("aviation",), items=6, student=1.0, expert=1.0, missing=0.0
                        ),
                    ),
                    before={"aviation": 1.0, "chemistry": 0.5, "cross-domain": 0.25},
                    examples=24,
                    records=21,
                    replayed=20,
                    after={"aviation": 1.0, "chemistry": 0.667, "cross-domain": 0.5},
                    is_kept=True,
                ),
                RefinementRound(
                    number=2,
                    shortfalls=(
                        Shortfall(
                            domains=("aviation", "geography"),
                            items=8,
                            student=0.5,
                            expert=None,
                            missing=0.5,
                        ),
                    ),
                    before={"aviation": 1.0, "chemistry": 0.667, "cross-domain": 0.5},
                    examples=17,
                    records=17,
                    replayed=17,
                    after={"aviation": 1.0, "chemistry": 0.5, "cross-domain": 0.5},
                    is_kept=False,
                ),
            ),
            stopped="the round did not improve validation, so the student before it is kept",
        ),
        savings=Savings(
            questions=16,
            student=Footprint(
                parameters=144_500_000,
                weight_bytes=309_000_000,
                calls=16,
                completion_tokens=331,
                seconds=4.02,
            ),
            experts=Footprint(
                parameters=163_900_000,
                weight_bytes=347_800_000,
                calls=24,
                completion_tokens=518,
                seconds=7.38,
            ),
        ),
        training_log=tuple(training_log()),
        student={
            "name": "demo-student",
            "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "parameters": 134_515_008,
            "adaptation": "LoRA of rank 48, started from the sum of the experts",
            "license": "apache-2.0",
        },
        teachers={domain: f"SmolLM2-135M-Instruct + {domain} adapter" for domain in DOMAINS},
        settings={
            "command": [
                "domainfusion",
                "demo",
                "--seed",
                "0",
                "--output-dir",
                "runs/demo of three",
            ],
            "seed": 0,
            "versions": {
                "domainfusion": "0.1.0",
                "torch": "2.13.0",
                "transformers": "5.23.0",
                "peft": "0.21.0",
            },
            "machine": "x86-64, 2 cores, no GPU",
            "date": "2026-11-23",
        },
        inputs={
            "student": {
                "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
                "fingerprint": "b9a2451d9b744602",
            },
            "teachers": {
                domain: {"model": domain, "fingerprint": f"{place}a48aa201369e66"}
                for place, domain in enumerate(DOMAINS)
            },
            "seed": 0,
        },
        recipe="title: Three experts, one student\nseed: 0\n",
        peak_memory_bytes=3_870_000_000,
    )


@pytest.fixture(scope="session")
def run() -> RunSummary:
    return a_run()


@pytest.fixture(scope="session")
def evaluation(run: RunSummary) -> EvaluationReport:
    assert run.evaluation is not None
    return run.evaluation


@pytest.fixture(scope="session")
def whole(run: RunSummary) -> Element:
    return page(run)


@pytest.fixture(scope="session")
def hostile(run: RunSummary, evaluation: EvaluationReport) -> Element:
    return page(hostile_run(run, evaluation))
