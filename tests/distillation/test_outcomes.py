"""Each stage says in one line what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from distillation.builders import example
from domainfusion.distillation import outcomes
from domainfusion.distillation.results import GenerationCount, Refinement, RefinementRound
from domainfusion.distillation.run import RunFiles
from domainfusion.records import write_json, write_records
from domainfusion.types import FinishReason, Integration, Response, TrainingRecord

EXAMPLES = [example(f"What is {number}?", {"law": str(number)}) for number in range(6)]


def record(place: int, **changes: object) -> TrainingRecord:
    made = TrainingRecord(
        example=EXAMPLES[place],
        responses=(),
        integration=Integration(text="It is.", method="single"),
        verification="verified",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_generation_counts_examples_and_the_most_frequent_reasons(tmp_path: Path) -> None:
    run = RunFiles(tmp_path)
    write_records(run.examples, EXAMPLES[:4])
    write_records(run.test_examples, EXAMPLES[4:])
    write_records(run.validation_examples, [])
    rejected = [{"a near-duplicate": 2, "no question": 1}, {"a near-duplicate": 3, "b": 1, "c": 1}]
    write_json(
        run.generation,
        [asdict(GenerationCount("questions", "synthetic", 9, 3, counts)) for counts in rejected],
    )
    assert outcomes.generated(run) == (
        "4 examples to train on, 2 to test; 8 rejected (5 × a near-duplicate, 1 × no question,"
        " 1 × b, …)"
    )


def test_collection_counts_responses_and_how_they_ended() -> None:
    ends: tuple[FinishReason, ...] = ("stop", "stop", "length", "failed", "refused")
    responses = [
        Response(domain=domain, text="It is.", finish_reason=end)
        for domain, end in zip("aabbb", ends, strict=True)
    ]
    assert outcomes.collected(responses[:1]) == "1 response from 1 expert"
    assert outcomes.collected(responses) == (
        "5 responses from 2 experts, 1 missing, 1 cut at the token limit, 1 refused"
    )


def test_integration_counts_what_is_verified_rejected_and_merged_in_place_of_a_model() -> None:
    merged = Integration(text="It is.", method="merge")
    records = [
        record(0),
        record(1, verification="unverified", integration=merged),
        record(2, verification="unverified", integration=replace(merged, model="a fingerprint")),
        record(3, verification="rejected", reason="the experts disagree"),
    ]
    assert outcomes.integrated(records) == (
        "4 records, 1 verified by a reference, 1 merged in place of a model's answer; 1 rejected"
        " (1 × the experts disagree)"
    )
    assert outcomes.integrated(records[:1]) == "1 record, 1 verified by a reference"


def test_training_counts_usable_records_and_steps(tmp_path: Path) -> None:
    run = RunFiles(tmp_path)
    records = [record(0), record(1), record(2, verification="rejected", reason="no")]
    assert outcomes.trained(records, run) == "2 records"
    run.training.mkdir()
    log = [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.25}, {"step": 2, "validation": {}}]
    run.training_log.write_text("".join(f"{json.dumps(line)}\n" for line in log))
    assert outcomes.trained(records, run) == ("2 records in 2 steps, loss 2.500 → 1.250")


def test_a_refinement_counts_its_rounds() -> None:
    rounds = [
        RefinementRound(number=number, shortfalls=(), before={}, is_kept=number == 1)
        for number in (1, 2)
    ]
    refinement = Refinement(rounds=tuple(rounds), stopped="the last round did not help")
    assert outcomes.refined(refinement) == "2 rounds, 1 kept; the last round did not help"
