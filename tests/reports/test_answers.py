from __future__ import annotations

from domainfusion.reports import RunSummary
from domainfusion.reports.answers import SettledConflict, ledger_counts, worth_reading
from domainfusion.types import (
    Conflict,
    Example,
    Integration,
    IntegrationVerdict,
    Ledger,
    TrainingRecord,
)

EXAMPLE = Example(query="How long?", domains=("a", "b", "c"))


def test_all_who_agree_with_the_claim_that_stands_are_kept() -> None:
    conflict = Conflict(
        claims={"a": "1.", "b": "2.", "c": "1."},
        kept="a",
        rule="the majority",
        sides=(("a", "c"), ("b",)),
    )
    assert SettledConflict(example=EXAMPLE, conflict=conflict).kept == {"a", "c"}


def test_without_sides_one_claim_is_kept_and_without_a_claim_none() -> None:
    assert SettledConflict(
        example=EXAMPLE, conflict=Conflict(claims={}, kept="a", rule="")
    ).kept == {"a"}
    assert (
        SettledConflict(
            example=EXAMPLE, conflict=Conflict(claims={}, kept=None, rule="", sides=(("a",),))
        ).kept
        == frozenset()
    )


def test_what_the_ledgers_hold_is_counted_and_what_they_do_not_is_left_out(run: RunSummary) -> None:
    ledgers = [record.integration.ledger for record in run.records]
    counts = ledger_counts(run.records)
    conflicts = sum(number for name, number in counts.items() if name.startswith("conflicts "))
    assert conflicts == sum(len(found.conflicts) for found in ledgers) > 0
    assert 0 not in counts.values() and "statements that several experts made alike" not in counts
    assert ledger_counts(()) == {}


def test_of_the_records_to_read_there_is_one_of_each_kind_first(run: RunSummary) -> None:
    first = worth_reading(run.records, most=3)
    assert [
        (record.example.is_cross_domain, record.verification == "rejected") for record in first[:2]
    ] == [(False, False), (True, False)]
    assert first[2].verification == "rejected"


def test_what_became_of_a_models_answers_is_counted() -> None:
    def record(
        method: str, verdict: IntegrationVerdict = "", model: str = "writer"
    ) -> TrainingRecord:
        integration = Integration(
            text="Three days.", method=method, model=model, ledger=Ledger(verdict=verdict)
        )
        return TrainingRecord(example=EXAMPLE, responses=(), integration=integration)

    records = [
        record("model", verdict)
        for verdict in ("verified", "repaired", "unverified", "unverified", "rejected")
    ]
    assert ledger_counts(
        [*records, record("merge"), record("merge", model=""), record("single", model="")]
    ) == {
        "answers of the integration model: verified": 1,
        "answers of the integration model: verified after a repair": 1,
        "answers of the integration model: not verified, and kept": 2,
        "answers of the integration model: not verified, and never trained on": 1,
        "answers merged in place of the integration model": 1,
    }
