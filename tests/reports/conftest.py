"""A run over aviation, chemistry and geography, written by hand: its students' and experts' answers, and figures counted from them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import (
    Answer,
    Coherence,
    DomainRetention,
    Estimate,
    EvaluationReport,
    ModelResult,
    Role,
    SliceScore,
)
from domainfusion.reports import GenerationCount, RunSummary, StageTime
from domainfusion.types import Conflict, Contribution, Dropped, Example, Integration, Ledger, Part, Response, TrainingRecord


def rows(text: str) -> dict[str, tuple[str, ...]]:
    """Reads a table: a line a row, its key first."""
    split = ([cell.strip() for cell in line.split("|")] for line in text.strip().splitlines())
    return {key: tuple(values) for key, *values in split}


AIRPORTS = rows("""
    NRT | Japan | Tokyo
    CDG | France | Paris
    FRA | Germany | Frankfurt am Main
    LHR | United Kingdom | London
    BCN | Spain | Barcelona
    FCO | Italy | Rome
    VIE | Austria | Vienna
    ZRH | Switzerland | Zurich
    CPH | Denmark | Copenhagen
    ARN | Sweden | Stockholm
    HEL | Finland | Helsinki
    OTP | Romania | Bucharest
    YYC | Canada | Calgary
    GRU | Brazil | São Paulo
    ADD | Ethiopia | Addis Ababa
    ACC | Ghana | Accra
""")
ELEMENTS = rows("""
    tungsten | W | 74 | Spain
    gallium | Ga | 31 | France
    indium | In | 49 | Germany
    argon | Ar | 18 | United Kingdom
    lithium | Li | 3 | Sweden
    yttrium | Y | 39 | Finland
    nihonium | Nh | 113 | Japan
    tellurium | Te | 52 | Romania
    hafnium | Hf | 72 | Denmark
    technetium | Tc | 43 | Italy
    francium | Fr | 87 | France
    rhenium | Re | 75 | Germany
    holmium | Ho | 67 | Sweden
    krypton | Kr | 36 | United Kingdom
    iridium | Ir | 77 | United Kingdom
    zinc | Zn | 30 | Germany
""")
COUNTRIES = rows("""
    Japan | Tokyo | JPY | 81
    France | Paris | EUR | 33
    Germany | Berlin | EUR | 49
    United Kingdom | London | GBP | 44
    Spain | Madrid | EUR | 34
    Italy | Rome | EUR | 39
    Austria | Vienna | EUR | 43
    Switzerland | Bern | CHF | 41
    Denmark | Copenhagen | DKK | 45
    Sweden | Stockholm | SEK | 46
    Finland | Helsinki | EUR | 358
    Romania | Bucharest | RON | 40
    Canada | Ottawa | CAD | 1
    Brazil | Brasília | BRL | 55
    Ethiopia | Addis Ababa | ETB | 251
    Ghana | Accra | GHS | 233
""")

DOMAINS = ("aviation", "chemistry", "geography")
WRONG = {"aviation": "The plane landed in the United States.", "chemistry": "It is written as Au.", "geography": "Its capital is London."}

Knows = Callable[[Example, Part, int], bool]
"""Whether a model states a part; the number is the example's place in the test set."""


def single(query: str, domain: str, answers: tuple[str, ...]) -> Example:
    return Example(query=query, domains=(domain,), parts=(Part(domain=domain, answers=answers),), source="curated")


def singles() -> list[Example]:
    aliases = {"United Kingdom": ("United Kingdom", "UK", "Great Britain")}
    found = []
    for code, (country, city) in AIRPORTS.items():
        found.append(single(f"A plane has just landed at {code}. What country is it in?", "aviation", aliases.get(country, (country,))))
        found.append(single(f"Which city's airport has the IATA code {code}?", "aviation", (city,)))
    for element, (symbol, number, country) in ELEMENTS.items():
        found.append(single(f"In a chemical formula, how is {element} written?", "chemistry", (symbol,)))
        found.append(single(f"How many protons are in the nucleus of {element}?", "chemistry", (number,)))
        found.append(single(f"Scientists of which country discovered {element}?", "chemistry", aliases.get(country, (country,))))
    for country, (capital, currency, calling_code) in COUNTRIES.items():
        found.append(single(f"Which city serves as the capital of {country}?", "geography", (capital,)))
        found.append(single(f"What money do I need in {country}, as a currency code?", "geography", (currency,)))
        found.append(single(f"What prefix do I dial to phone someone in {country}?", "geography", (calling_code,)))
    return found


def pairs(questions: Sequence[Example], number: int, seed: int = 3) -> list[Example]:
    draw = random.Random(seed)
    by_domain = {domain: [example for example in questions if example.primary_domain == domain] for domain in DOMAINS}
    combinations = [("aviation", "chemistry"), ("aviation", "geography"), ("chemistry", "geography")]
    found = []
    for index in range(number):
        first, second = (draw.choice(by_domain[domain]) for domain in combinations[index % 3])
        found.append(
            Example(
                query=f"Please answer both. {first.query} {second.query}",
                domains=(first.primary_domain, second.primary_domain),
                parts=first.parts + second.parts,
                sub_questions={first.primary_domain: first.query, second.primary_domain: second.query},
                source="curated",
            )
        )
    return found


def two_hops() -> list[Example]:
    return [
        Example(
            query=f"Which currency is used in the country of airport {code}?",
            domains=("aviation", "geography"),
            parts=(Part(domain="geography", answers=(COUNTRIES[country][1],)),),
            source="curated",
            metadata={"slice": "two-hop"},
        )
        for code, (country, _) in AIRPORTS.items()
    ]


def around(values: Sequence[float]) -> Estimate:
    """A share with an interval wide enough to look like one; the figures of this run need no more."""
    if not values:
        return Estimate(value=None, reason="no answer could be graded")
    mean = sum(values) / len(values)
    half = 1.96 * math.sqrt(max(mean * (1 - mean), 0.25 / len(values)) / len(values)) if 0 < mean < 1 else 0.0
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))


def answer_of(example: Example, place: int, knows: Knows) -> Answer:
    stated = [knows(example, part, place) for part in example.parts]
    words = [part.answers[0] if right else WRONG[part.domain] for part, right in zip(example.parts, stated, strict=True)]
    return Answer(
        example_id=example.id, text=" ".join(f"{word.rstrip('.')}." for word in words), score=sum(stated) / len(stated), correct=all(stated)
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


def result(name: str, role: Role, examples: Sequence[Example], answers: Sequence[Answer]) -> ModelResult:
    slices: dict[str, list[Answer]] = {}
    by_pair: dict[str, list[Answer]] = {}
    for example, answer in zip(examples, answers, strict=True):
        slices.setdefault(slice_of(example), []).append(answer)
        if slice_of(example) == "cross-domain":
            by_pair.setdefault(" + ".join(example.domains), []).append(answer)
    return ModelResult(
        name=name,
        role=role,
        slices={key: score_of(found) for key, found in slices.items()},
        pairs={key: score_of(found) for key, found in by_pair.items()},
        answers=tuple(answers),
    )


def expert_in(domain: str) -> Knows:
    return lambda example, part, place: part.domain == domain and slice_of(example) != "two-hop" and place % 60 != 7


def evaluation_of_run() -> EvaluationReport:
    questions = singles()
    examples = [*questions, *pairs(questions, 30), *two_hops()]
    models: list[tuple[str, Role, Knows]] = [
        ("student", "student", lambda example, part, place: place % (3 if slice_of(example) == "two-hop" else 29) != 1),
        ("base", "base", lambda example, part, place: part.domain == "geography" and place % 4 == 0),
        *((domain, "expert", expert_in(domain)) for domain in DOMAINS),
        ("merge", "merge", lambda example, part, place: not example.is_cross_domain and place % 5 > 1),
        ("oracle", "oracle", lambda example, part, place: slice_of(example) != "two-hop" and place % 60 != 7),
    ]
    results = [
        result(name, role, examples, [answer_of(e, place, knows) for place, e in enumerate(examples)]) for name, role, knows in models
    ]
    student = list(results[0].answers)
    student[30] = replace(
        student[30],
        text="The airport is in Ghana and the airport is in Ghana and the airport is in Ghana and",
        finish_reason="length",
        score=0.0,
        correct=False,
    )
    student[-1] = replace(
        student[-1], text="GHS or USD, depending on the shop.", score=None, correct=None, reason="two answers where one is asked for"
    )
    results[0] = result("student", "student", examples, student)
    most_frequent = ModelResult(
        name="most frequent answer",
        role="baseline",
        slices={"two-hop": SliceScore(items=16, strict=Estimate(value=0.375), partial=Estimate(value=0.375))},
    )
    retention = tuple(retention_in(domain, results) for domain in DOMAINS)
    return EvaluationReport(
        models=(*results, most_frequent),
        retention=retention,
        coherence=Coherence(
            score=Estimate(value=0.8137, low=0.7921, high=0.8344),
            coverage=Estimate(value=0.9667, low=0.9167, high=1.0),
            validated=False,
            items=30,
        ),
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
        next(model for model in results if (model.role == role and (role != "expert" or model.name == domain))).slices[domain]
        for role in ("student", "base", "expert")
    )
    kept, known, before = student.strict.value, expert.strict.value, base.strict.value
    return DomainRetention(
        domain=domain,
        items=student.items,
        student=kept,
        expert=known,
        base=before,
        retention=Estimate(value=kept / known, low=kept / known - 0.031, high=kept / known + 0.022),
        headroom=Estimate(value=(kept - before) / (known - before), low=(kept - before) / (known - before) - 0.04, high=1.0),
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
        Contribution(domain=domain, text=words, start=text.index(words), end=text.index(words) + len(words))
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
            dropped=(Dropped(domain=second, text=conflict.claims[second], reason="contradicts the expert of the domain"),),
        )
    if example.is_cross_domain and place % 9 == 3:
        conflict = Conflict(claims=dict(said), kept=None, rule="neither domain is the primary one")
        ledger = replace(ledger, conflicts=(conflict,))
    verification = "unverified" if example.source != "curated" else "verified"
    return TrainingRecord(
        example=example, responses=responses, integration=Integration(text=text, method=method, ledger=ledger), verification=verification
    )


def training_log() -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for phase, start, floor, steps in (("domains", 1.1, 0.004, 180), ("integration", 0.09, 0.006, 90)):
        for step in range(1, steps + 1):
            loss = floor + (start - floor) * math.exp(-4.5 * step / steps) * (1 + 0.18 * math.sin(step * 2.3))
            lines.append({"phase": phase, "step": step, "loss": round(loss, 5), "learning_rate": 1e-3, "seconds": round(1.6 * step, 1)})
            if step % 45 == 0:
                late = 0.04 * (phase == "integration") + 0.01 * step / steps
                scores = {"aviation": 0.94 + late, "chemistry": 0.9 + late, "geography": 0.92 + late, "cross-domain": 0.6 + 7 * late}
                lines.append({"phase": phase, "step": step, "validation": scores})
    return lines


def a_run() -> RunSummary:
    questions = singles()
    asked = [*questions[::2], *pairs(questions, 40, seed=9)]
    written = Example(query="Why is Tokyo's airport code NRT and not TYO?", domains=("aviation", "geography"), source="synthetic")
    records = [record_of(example, place) for place, example in enumerate(asked)]
    records.append(
        TrainingRecord(
            example=written,
            responses=(
                Response(domain="aviation", text="NRT airport serves the city of Tokyo.", example_id=written.id),
                Response(domain="geography", text="The capital of Japan is Tokyo.", example_id=written.id),
            ),
            integration=Integration(text="NRT airport serves the city of Tokyo. The capital of Japan is Tokyo.", method="merge"),
        )
    )
    return RunSummary(
        title="Three experts, one student",
        evaluation=evaluation_of_run(),
        generation=(
            GenerationCount("curated questions", "curated", 104, 104, {}),
            GenerationCount("SyntheticDataGenerator", "synthetic", 24, 5, {"no question": 9, "duplicate": 6, "asks for another domain": 4}),
            GenerationCount("AdversarialDataGenerator", "adversarial", 12, 1, {"looks like the domain that it needs": 7, "duplicate": 4}),
        ),
        records=tuple(records),
        stages=(
            StageTime("generate", 38.2, 1_610_000_000),
            StageTime("collect", 64.7, 1_720_000_000),
            StageTime("integrate", 0.4, 1_720_000_000),
            StageTime("train", 421.9, 3_870_000_000),
            StageTime("evaluate", 117.3, 2_240_000_000),
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
            "command": ["domainfusion", "demo", "--seed", "0", "--output-dir", "runs/demo of three"],
            "seed": 0,
            "versions": {"domainfusion": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0"},
            "machine": "x86-64, 2 cores, no GPU",
            "date": "2026-11-23",
        },
        peak_memory_bytes=3_870_000_000,
    )


@pytest.fixture(scope="session")
def run() -> RunSummary:
    return a_run()


@pytest.fixture(scope="session")
def evaluation(run: RunSummary) -> EvaluationReport:
    assert run.evaluation is not None
    return run.evaluation
