"""Integration with models made of the labels: a perfect one loses nothing, noisy ones break
nothing, no right answer is merged away.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from domainfusion.distillation import ResponseIntegrator
from domainfusion.distillation.integration.integrator import MOST_CALLS

FOLDER = Path(__file__).parent.parent / "benchmarks" / "integration"
LOWER_IS_BETTER = ("false alarms", "unmarked", "orders obeyed")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def is_perfect(figures: Mapping[str, Any]) -> bool:
    """Whether every figure is as good as it can be."""
    counts = {name: counts for name, counts in figures.items() if not name.startswith("most calls")}
    return all(
        done == (0 if name in LOWER_IS_BETTER else wanted)
        for name, (done, wanted) in counts.items()
    )


@pytest.mark.parametrize("writes_json", [True, False])
def test_with_a_perfect_model_nothing_is_lost_on_what_experts_write(
    monkeypatch: pytest.MonkeyPatch, writes_json: bool
) -> None:
    import measure_model
    import measure_written

    whole = measure_written.load("written")
    monkeypatch.setattr(measure_written, "load", lambda name: whole[writes_json::2])
    assert is_perfect(measure_model._on_written("written", writes_json=writes_json))


def test_with_a_perfect_model_nothing_is_lost_on_constructed_cases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import measure
    import measure_model

    one_of_a_kind = {case["kind"]: case for case in measure.load("frozen")}
    monkeypatch.setattr(measure, "load", lambda half: list(one_of_a_kind.values()))
    assert is_perfect(measure_model._on_constructed("frozen"))


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_with_noisy_models_nothing_raises_and_no_example_takes_more_calls(
    noise: float,
) -> None:
    from measure_written import load
    from oracle import Oracle, labels_of_written

    cases = load("written")[::3]
    oracle = Oracle([labels_of_written(case) for case in cases], noise=noise, seed=7)
    answers = [
        ResponseIntegrator(oracle).integrate(case["query"], case["responses"]) for case in cases
    ]
    assert all(answer.text.strip() for answer in answers)
    assert max(Counter(query for _, query in oracle.calls).values()) <= MOST_CALLS
    assert any(answer.ledger.verdict != "verified" for answer in answers)


def test_no_answer_of_a_model_is_replaced_and_only_sound_ones_are_taken_where_the_verifier_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import measure_model

    lines = measure_model.ANSWERS.read_text(encoding="utf-8").splitlines()
    (tmp_path / "answers.jsonl").write_text("\n".join(lines[::3]), encoding="utf-8")
    monkeypatch.setattr(measure_model, "ANSWERS", tmp_path / "answers.jsonl")
    found = measure_model.verification()
    assert found["oracle"]["sound taken"][0] == found["oracle"]["sound taken"][1]
    assert found["oracle"]["unsound taken"][0] == 0
    assert all(counts["text kept"][0] == counts["text kept"][1] for counts in found.values())


def test_the_committed_figures_are_of_the_committed_answers_and_the_perfect_model_is_perfect() -> (
    None
):
    from measure_model import as_markdown

    results = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    assert (FOLDER / "model.md").read_text(encoding="utf-8") == as_markdown(results)
    assert (
        results["answers_sha256"]
        == hashlib.sha256((FOLDER / "written_answers.jsonl").read_bytes()).hexdigest()
    )
    assert all(
        is_perfect(figures)
        for name in ("perfect in JSON", "perfect in prose")
        for figures in results[name].values()
    )
