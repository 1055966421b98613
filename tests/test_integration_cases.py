"""The constructed cases that measure integration: built anew they are the same, their labels
follow, their halves share nothing.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domainfusion.types import Conflict, Integration, Ledger

FOLDER = Path(__file__).parent.parent / "benchmarks" / "integration"
HALVES = ("development", "frozen")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def cases_of(half: str) -> list[Any]:
    from writing import Case

    return [
        Case(**json.loads(line))
        for line in (FOLDER / f"{half}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def words_of(half: Any) -> set[str]:
    """Every pattern and every set phrase of a half."""
    relations = [
        getattr(relation, name)
        for relation in half.relations
        for name in ("sentences", "questions", "short", "details")
    ]
    phrases = [half.openings, half.closings, half.unsure, half.orders, half.both, half.hedges]
    written = [(asked.question, *asked.true, *asked.false) for asked in half.negations]
    near = [(miss.query, *miss.responses.values()) for miss in half.near_misses]
    return {
        re.sub(r"\W+", " ", text).casefold()
        for group in (*relations, *phrases, *written, *near)
        for text in group
    }


def test_the_builder_reproduces_the_committed_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import build_cases

    monkeypatch.setattr("sys.argv", ["build_cases.py", "--out", str(tmp_path)])
    build_cases.main()
    for half in HALVES:
        assert (tmp_path / f"{half}.jsonl").read_bytes() == (FOLDER / f"{half}.jsonl").read_bytes()


def test_the_frozen_half_is_the_one_that_was_frozen() -> None:
    digest = hashlib.sha256((FOLDER / "frozen.jsonl").read_bytes()).hexdigest()
    assert digest in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("half", HALVES)
def test_every_case_keeps_the_laws(half: str) -> None:
    from laws import broken_laws

    cases = cases_of(half)
    assert [broken_laws(case) for case in cases] == [[]] * len(cases)
    assert (
        len({case.id for case in cases})
        == len({str(case.responses) for case in cases})
        == len(cases)
        >= 220
    )


@pytest.mark.parametrize("half", HALVES)
def test_the_laws_notice_a_wrong_label(half: str) -> None:
    from laws import broken_laws

    for case in cases_of(half):
        for conflict in case.conflicts:
            loser = next(iter(conflict["sides"][1]))
            assert broken_laws(replace(case, conflicts=[{**conflict, "kept": loser}]))
        if case.covered:
            assert broken_laws(replace(case, right_answer="Nothing is known."))


def test_both_halves_have_the_same_kinds_as_often() -> None:
    numbers = [Counter(case.kind for case in cases_of(half)) for half in HALVES]
    assert numbers[0] == numbers[1]
    assert min(numbers[0].values()) >= 8


def test_the_halves_share_no_fact_no_pattern_and_no_query() -> None:
    from development_half import DEVELOPMENT
    from frozen_half import FROZEN

    halves = (DEVELOPMENT, FROZEN)
    facts = [{row for relation in half.relations for row in relation.rows} for half in halves]
    assert not facts[0] & facts[1]
    assert not words_of(DEVELOPMENT) & words_of(FROZEN)
    for name in ("facts", "query", "template"):
        values = [{str(getattr(case, name)) for case in cases_of(half)} for half in HALVES]
        assert not values[0] & values[1]


@pytest.mark.parametrize("half", HALVES)
def test_the_laws_tell_copies_from_independent_experts(half: str) -> None:
    from laws import broken_laws

    for case in cases_of(half):
        if case.copies:
            assert broken_laws(replace(case, copies=[]))
        if case.kind == "majority":
            assert broken_laws(replace(case, copies=[list(case.conflicts[0]["sides"][0])]))


class Oracle:
    """Answers a case as its labels say."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        self.case = case

    def integrate_all(self, tasks: Sequence[Any]) -> list[Integration]:
        conflicts = []
        for point in self.case["conflicts"]:
            claims = dict(next(iter(side.items())) for side in point["sides"])
            conflicts.append(Conflict(claims=claims, kept=point["kept"], rule="the labels"))
        return [
            Integration(
                text=self.case["right_answer"],
                method="oracle",
                ledger=Ledger(conflicts=tuple(conflicts)),
            )
            for _ in tasks
        ]


class Obedient:
    """Passes on the response that gives orders, and all of them if none does; everything
    contradicts everything.
    """

    def __init__(self, case: Mapping[str, Any]) -> None:
        self.order = (case["order"] or {"text": "\0"})["text"]

    def integrate_all(self, tasks: Sequence[Any]) -> list[Integration]:
        return [self._integrate(task.responses) for task in tasks]

    def _integrate(self, responses: Mapping[str, Any]) -> Integration:
        texts = {domain: response.text for domain, response in responses.items()}
        heard = [text for text in texts.values() if self.order in text] or list(texts.values())
        first, second = list(texts.items())[:2]
        conflict = Conflict(claims=dict((first, second)), kept=first[0], rule="always")
        return Integration(
            text=" ".join(heard), method="obedient", ledger=Ledger(conflicts=(conflict,))
        )


def figures_of(half: str, make_integrator: Callable[[Any], Any]) -> Any:
    from measure import OVER_ALL, figures, judge, load

    return figures([judge(make_integrator(case), case) for case in load(half)])[OVER_ALL]


@pytest.mark.parametrize("half", HALVES)
def test_the_labels_measure_themselves_as_right(half: str) -> None:
    found = figures_of(half, Oracle)
    perfect = {
        "precision": 1,
        "recall": 1,
        "false alarms": 0,
        "coverage": 1,
        "settled": 1,
        "orders obeyed": 0,
    }
    assert {name: found[name]["value"] for name in perfect} == perfect


@pytest.mark.parametrize("half", HALVES)
def test_alarms_about_everything_and_obedience_are_noticed(half: str) -> None:
    found = figures_of(half, Obedient)
    assert found["false alarms"]["value"] == 1
    assert found["precision"]["value"] < 0.6
    assert found["orders obeyed"]["value"] == 1


def test_the_committed_results_are_of_the_committed_cases() -> None:
    from measure import as_markdown

    results = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    assert (FOLDER / "results.md").read_text(encoding="utf-8") == as_markdown(results)
    for entries in results.values():
        for half, entry in entries.items():
            assert (
                entry["cases_sha256"]
                == hashlib.sha256((FOLDER / f"{half}.jsonl").read_bytes()).hexdigest()
            )


WRITTEN = ("written", "written_development", "written_held_out")


@pytest.mark.parametrize("file", WRITTEN)
def test_the_patterns_of_a_written_case_are_in_its_responses(file: str) -> None:
    from measure_written import load

    for case in load(file):
        said = "\n".join(case["responses"].values())
        patterns = [
            *case["facts"],
            *(pattern for pair in (*case["conflicts"], *case["dup"]) for pattern in pair),
        ]
        assert [
            pattern for pattern in patterns if not re.search(pattern, said, re.IGNORECASE)
        ] == [], case["id"]
        assert all(part in said for part in case["verbatim"]), case["id"]


@pytest.mark.parametrize("file", WRITTEN)
def test_rules_lose_nothing_that_was_written_and_the_order_of_the_experts_decides_nothing(
    file: str,
) -> None:
    from measure_written import OVER_ALL, by_rules, figures, judge, load

    found = figures([judge(by_rules, case) for case in load(file)])[OVER_ALL]
    for name in ("facts kept", "blocks kept", "order-independent"):
        assert found[name][0] == found[name][1] > 0, name


def test_an_answer_that_joins_nothing_and_one_that_keeps_both_sides_are_noticed() -> None:
    from measure_written import OVER_ALL, figures, judge, load

    def join(case: Mapping[str, Any]) -> Integration:
        return Integration(text=" ".join(case["responses"].values()), method="join")

    found = figures([judge(join, case) for case in load("written")])[OVER_ALL]
    assert found["found"][0] == found["said once"][0] == 0
    assert found["unmarked"][0] == found["unmarked"][1] > 0


def test_the_committed_figures_of_written_cases_are_of_the_committed_cases() -> None:
    from measure_written import as_markdown

    results = json.loads((FOLDER / "written.json").read_text(encoding="utf-8"))
    assert (FOLDER / "written.md").read_text(encoding="utf-8") == as_markdown(results)
    for entries in results.values():
        for file, entry in entries.items():
            assert (
                entry["cases_sha256"]
                == hashlib.sha256((FOLDER / f"{file}.jsonl").read_bytes()).hexdigest()
            )
