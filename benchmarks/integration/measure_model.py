"""What integration by a model loses by its plumbing, with models made of the labels: a perfect one,
noisy ones, and a writer of answers.

    python benchmarks/integration/measure_model.py --write

No model of weights is asked, so nothing here says how well a real one reads: these figures say what
is lost, or broken, around it.

- perfect: an oracle that reads, relates, writes and verifies from the labels (`oracle.py`), on the
  cases as experts write them and on the constructed ones. Everything has to be found, kept and
  verified; what is missing is the plumbing's. It is measured held to a JSON schema and writing
  prose.
- noisy: the same, of whose replies a share goes wrong: cut, without an end, relations and verdicts
  flipped, ids invented, prose in place of JSON, words shuffled or exchanged. Nothing may raise, and
  no example may take more than `MOST_CALLS` calls.
- verification: 25 answers of a model to the cases as experts write them (`written_answers.jsonl`),
  sound and unsound, by the author of those cases. Taken are the answers that end as verified.
  `rules` is what the rules see by themselves, with a verifier that finds nothing wrong; `oracle` a
  verifier that knows which answers are sound. Whatever the verdict is, the answer is never replaced
  by a merge.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import measure_written
from oracle import Labels, Oracle, labels_of_constructed, labels_of_written

from domainfusion.distillation import ResponseIntegrator
from domainfusion.distillation.integration import VerifierFinding
from domainfusion.distillation.integration.integrator import MOST_CALLS
from domainfusion.types import Conversation, Generation, Integration, Sampling

HERE = Path(__file__).parent
COMMAND = "python benchmarks/integration/measure_model.py --write"
NOISES = (0.1, 0.3, 1.0)
SEEDS = (0, 1, 2)
MOST = "most calls an example"
ANSWERS = HERE / "written_answers.jsonl"


# A perfect reader


def perfect(*, writes_json: bool) -> dict[str, dict[str, list[int]]]:
    """Returns the figures of the perfect model on every file of cases."""
    found = {}
    for file in measure_written.FILES:
        found[f"{file}.jsonl"] = _on_written(file, writes_json=writes_json)
    for half in measure.HALVES:
        found[f"{half}.jsonl"] = _on_constructed(half, writes_json=writes_json)
    return found


def _on_written(
    file: str, *, writes_json: bool = True, noise: float = 0.0, seed: int = 0
) -> dict[str, list[int]]:
    cases = measure_written.load(file)
    oracle = Oracle(
        [labels_of_written(case) for case in cases], writes_json=writes_json, noise=noise, seed=seed
    )
    integrator, verdicts = ResponseIntegrator(oracle), Counter[str]()

    def integrate(case: Any) -> Integration:
        answer = integrator.integrate(
            case["query"], case["responses"], primary_domain=case["primary"]
        )
        verdicts[answer.ledger.verdict] += 1
        return answer

    outcomes = [measure_written.judge(integrate, case) for case in cases]
    figures = measure_written.figures(outcomes)[measure_written.OVER_ALL]
    return {**figures, **_of_calls(oracle, verdicts, times=2)}


def _on_constructed(
    half: str, *, writes_json: bool = True, noise: float = 0.0, seed: int = 0
) -> dict[str, list[int]]:
    cases = measure.load(half)
    # Queries are shared by cases, so each case has an oracle of its own.
    outcomes, verdicts, most = [], Counter[str](), 0
    for case in cases:
        oracle = Oracle(
            [labels_of_constructed(case)], writes_json=writes_json, noise=noise, seed=seed
        )
        integrator = _Counting(ResponseIntegrator(oracle), verdicts)
        outcomes.append(measure.judge(integrator, case))
        most = max(most, len(oracle.calls) // (2 if case["order"] else 1))
    figures = measure.figures(outcomes)[measure.OVER_ALL]
    counts = {name: figures[name]["counts"] for name in measure.FIGURES if name in figures}
    return {**counts, "verified": _verified(verdicts), MOST: [most, MOST_CALLS]}


class _Counting:
    """Counts the verdicts of an integrator."""

    def __init__(self, integrator: ResponseIntegrator, verdicts: Counter[str]) -> None:
        self._integrator, self._verdicts = integrator, verdicts

    def integrate_all(self, tasks: Sequence[Any]) -> list[Integration]:
        answers = self._integrator.integrate_all(tasks)
        self._verdicts.update(answer.ledger.verdict for answer in answers)
        return answers


def _of_calls(oracle: Oracle, verdicts: Counter[str], *, times: int) -> dict[str, list[int]]:
    most = max(Counter(query for _, query in oracle.calls).values(), default=0)
    return {"verified": _verified(verdicts), MOST: [most // times, MOST_CALLS]}


def _verified(verdicts: Counter[str]) -> list[int]:
    return [verdicts["verified"] + verdicts["repaired"], verdicts.total()]


# Noisy ones


def noisy() -> dict[str, dict[str, list[int]]]:
    """Returns the figures of noisy models on the cases as experts write them, summed over the
    seeds.
    """
    found = {}
    for noise in NOISES:
        runs = [
            _on_written("written", writes_json=seed % 2 == 0, noise=noise, seed=seed)
            for seed in SEEDS
        ]
        summed = {
            name: [sum(run[name][side] for run in runs) for side in (0, 1)] for name in runs[0]
        }
        found[f"{noise:g}"] = {**summed, MOST: [max(run[MOST][0] for run in runs), MOST_CALLS]}
    return found


# Verification


class _WritesAnswer(Oracle):
    """Reads and relates as the oracle does, and writes one given answer."""

    def __init__(self, labels: Labels, answer: str) -> None:
        super().__init__([labels], writes_json=False)
        self._answer = answer

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: Any = None,
    ) -> list[Generation]:
        replies = super().generate(conversations, sampling, on_result)
        is_writing = [
            "State each of these claims once" in conversation[0].content
            for conversation in conversations
        ]
        return [
            Generation(text=self._answer) if writes else reply
            for writes, reply in zip(is_writing, replies, strict=True)
        ]


class _SaysAll:
    """A verifier that says the same of every answer."""

    def __init__(self, *problems: str) -> None:
        self._verdict = VerifierFinding(problems)

    def verify(
        self, plans: Sequence[Any], drafts: Sequence[Any], *, ask: Any
    ) -> list[VerifierFinding]:
        """Returns a verdict on each draft."""
        return [self._verdict for _ in drafts]


def verification() -> dict[str, dict[str, list[int]]]:
    """Returns how many sound and unsound answers are taken by the rules alone, and with a verifier
    that knows them.
    """
    cases = {case["id"]: case for case in measure_written.load("written")}
    answers = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    found: dict[str, dict[str, list[int]]] = {}
    for name in ("rules", "oracle"):
        counts = {"sound taken": [0, 0], "unsound taken": [0, 0], "text kept": [0, 0]}
        for answer in answers:
            case = cases[answer["case"]]
            labels = labels_of_written(case, owner=answer["owner"])
            writer = _WritesAnswer(labels, answer["text"])
            verifier = (
                _SaysAll() if name == "rules" or answer["sound"] else _SaysAll(answer["defect"])
            )
            outcome = ResponseIntegrator(writer, verifier=verifier).integrate(
                case["query"], case["responses"]
            )
            column = counts["sound taken" if answer["sound"] else "unsound taken"]
            column[0] += outcome.ledger.verdict in ("verified", "repaired")
            column[1] += 1
            counts["text kept"][0] += outcome.text == answer["text"]
            counts["text kept"][1] += 1
        found[name] = counts
    return found


# The table


def as_markdown(results: dict[str, Any]) -> str:
    """Shows the figures as tables."""
    lines = ["# Integration with models made of the labels", ""]
    lines += ["`measure_model.py` says what the figures are. No model of weights was asked.", ""]
    for title, key in (
        ("Perfect, held to a JSON schema", "perfect in JSON"),
        ("Perfect, writing prose", "perfect in prose"),
    ):
        lines += [f"## {title}", ""]
        for files in (measure_written.FILES, measure.HALVES):
            names = [f"{file}.jsonl" for file in files]
            lines += [*_table("cases", {name: results[key][name] for name in names}), ""]
    lines += [
        (
            "## Noisy: the share of replies that go wrong, three seeds of the cases as experts"
            " write them"
        ),
        "",
    ]
    lines += [
        *_table("share", results["noisy"]),
        "",
        "## Verification of 25 answers",
        "",
        *_table("verifier", results["verification"]),
        "",
    ]
    about = results["about"]
    lines.append(
        f"`{about['command']}`, seeds {', '.join(map(str, SEEDS))}, {about['date']},"
        f" {about['machine']}, code of commit {about['commit']}, answers"
        f" {results['answers_sha256'][:12]}."
    )
    return "\n".join(lines) + "\n"


def _table(head: str, rows: dict[str, dict[str, list[int]]]) -> list[str]:
    columns = list(next(iter(rows.values())))
    lines = [f"| {head} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, figures in rows.items():
        cells = (
            f"{figures[column][0]} of {figures[column][1]}" if figures[column][1] else "–"
            for column in columns
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the figures in model.json and model.md"
    )
    given = parser.parse_args()
    results = {
        "about": measure.provenance(COMMAND, SEEDS[0]),
        "answers_sha256": hashlib.sha256(ANSWERS.read_bytes()).hexdigest(),
        "perfect in JSON": perfect(writes_json=True),
        "perfect in prose": perfect(writes_json=False),
        "noisy": noisy(),
        "verification": verification(),
    }
    print(as_markdown(results))
    if given.write:
        (HERE / "model.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (HERE / "model.md").write_text(as_markdown(results), encoding="utf-8")


if __name__ == "__main__":
    main()
