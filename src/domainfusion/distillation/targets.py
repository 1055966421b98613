"""From the teachers' responses to records: which targets are trained on, and why others are
not.
"""

from __future__ import annotations

import logging
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from domainfusion.distillation.integration import Task, primary_first
from domainfusion.distillation.metrics import AccuracyMetric, stated_parts
from domainfusion.distillation.run import StageFiles
from domainfusion.errors import RunError
from domainfusion.records import read_json, read_records
from domainfusion.types import Example, Integration, Response, TrainingRecord, Verification

logger = logging.getLogger("domainfusion")

Collected = Sequence[tuple[Example, Mapping[str, Response]]]
"""Examples with the responses of their domains' teachers."""

_NO_ANSWER = {
    "refused": "refused",
    "filtered": "was held back by a filter",
    "failed": "did not answer",
}
"""What a teacher did that did not end with an answer, by finish reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTarget:
    """An example whose experts were asked again.

    Attributes:
        example_id: The example.
        answers: Further answers that were asked for, of all of its experts.
        replaced: The domains whose first answer is not the one that was kept.
        is_saved: Whether a further answer gave a target that is trained on.
    """

    example_id: str
    answers: int
    replaced: tuple[str, ...]
    is_saved: bool


def read_samples(files: StageFiles) -> list[SampledTarget]:
    """Returns the examples whose experts were asked again; none where `samples` was 1.

    Raises:
        DataError: The file is damaged.
    """
    if not files.samples.is_file():
        return []
    return TypeAdapter(list[SampledTarget]).validate_python(read_json(files.samples))


def to_record(task: Task, integration: Integration, verifier: AccuracyMetric) -> TrainingRecord:
    """Returns the record of an example; its verification says whether its target is trained on.

    Args:
        task: The example with its responses.
        integration: The target that was made of them.
        verifier: Compares the target with the example's reference.
    """
    verification, reason = _verify(task, integration, verifier)
    return TrainingRecord(
        example=task.example,
        responses=tuple(primary_first(task).values()),
        integration=integration,
        verification=verification,
        reason=reason,
    )


def _verify(
    task: Task, integration: Integration, verifier: AccuracyMetric
) -> tuple[Verification, str]:
    for response in task.responses.values():
        if response.finish_reason in _NO_ANSWER:
            what = _NO_ANSWER[response.finish_reason]
            return "rejected", f"the expert of {response.domain} {what}"
    if integration.ledger.verdict == "rejected":
        return "rejected", "the integrated answer was not verified"
    if not integration.text.strip():
        is_open = any(conflict.kept is None for conflict in integration.ledger.conflicts)
        return "rejected", "the experts disagree" if is_open else "there is no answer"
    return _compare_with_reference(task.example, integration.text, verifier)


def _compare_with_reference(
    example: Example, target: str, verifier: AccuracyMetric
) -> tuple[Verification, str]:
    if not example.has_reference:
        return "unverified", ""
    if not example.parts and verifier is stated_parts:
        return "unverified", "the reference is in words, and the answer may put it in others"
    score = verifier(example, target)
    if score.value is None:
        return "unverified", score.reason
    if score.value >= 1:
        return "verified", ""
    graded = zip(example.parts, score.parts, strict=False)
    wrong = [part.domain for part, grade in graded if grade < 1]
    return "rejected", f"the reference contradicts the answer on {', '.join(wrong) or 'it'}"


def read_records_of(collected: Collected, files: StageFiles) -> list[TrainingRecord]:
    """Returns the records that were written before, of the same responses.

    Raises:
        RunError: They were made of other responses.
    """
    records = read_records(files.records, TrainingRecord)
    # A further answer may stand in for the first, and a response that failed when the records were
    # written may have been given since.
    gaps = {
        (target.example_id, domain) for target in read_samples(files) for domain in target.replaced
    }
    stored = {}
    for record in records:
        answered = [
            response
            for response in record.responses
            if response.finish_reason != "failed"
            and (record.example.id, response.domain) not in gaps
        ]
        stored[record.example.id] = sorted(response.text for response in answered)
        failed = (one for one in record.responses if one.finish_reason == "failed")
        gaps.update((record.example.id, response.domain) for response in failed)
    given = {
        example.id: sorted(
            response.text
            for domain, response in responses.items()
            if (example.id, domain) not in gaps
        )
        for example, responses in collected
    }
    if given != stored:
        raise RunError(
            "This run has records of other responses",
            received=f"{len(given)} examples where the run has {len(stored)}",
            fix=f"use another output_dir, or delete {files.records}",
        )
    return records


def warn_of_cut_thoughts(responses: Sequence[Response]) -> None:
    """Warns of teachers that were cut while they thought, and so gave no answers."""
    cut = [
        response
        for response in responses
        if response.finish_reason == "length" and response.reasoning and not response.text
    ]
    for domain, count in Counter(response.domain for response in cut).items():
        logger.warning(
            "%d answers of the expert of %s were cut while it thought, and are empty: raise"
            " max_new_tokens of response_sampling, or switch thinking off, with"
            " template_arguments={'enable_thinking': False} where its chat template knows that.",
            count,
            domain,
        )


def warn_of_refusals(responses: Sequence[Response]) -> None:
    """Warns of experts that refused to answer, with the first of their refusals."""
    refused: dict[str, list[str]] = {}
    for response in responses:
        if response.finish_reason == "refused":
            refused.setdefault(response.domain, []).append(response.text)
    for domain, texts in refused.items():
        logger.warning(
            "%d answers of the expert of %s are refusals, so their examples are not trained on. Such"
            " as: %s  Where that is an answer, give the integrator"
            " screening=Screening(refusals=False).",
            len(texts),
            domain,
            ascii(textwrap.shorten(texts[0], 120, placeholder=" …")),
        )
