"""The outcome of each stage, in one line for the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from domainfusion.distillation.integration.reading import CHATTER
from domainfusion.distillation.results import Refinement
from domainfusion.distillation.run import (
    RunFiles,
    StageFiles,
    read_generation,
    read_training_log,
)
from domainfusion.distillation.targets import SampledTarget
from domainfusion.types import Response, TrainingRecord
from domainfusion.wording import counted

_REASONS_SHOWN = 3


def generated(run: RunFiles) -> str:
    """Says how many examples there are, and why others were left out."""
    parts = [f"{counted(_lines_in(run, run.examples.name), 'example')} to train on"]
    for file, use in ((run.validation_examples, "to validate"), (run.test_examples, "to test")):
        if count := _lines_in(run, file.name):
            parts.append(f"{count:,} {use}")
    reasons: Counter[str] = Counter()
    for generator in read_generation(run):
        reasons.update(generator.rejected)
    return ", ".join(parts) + _left_out(reasons, "rejected")


def _lines_in(run: RunFiles, name: str) -> int:
    with (run.path / name).open("rb") as file:
        return sum(bool(line.strip()) for line in file)


def collected(responses: Sequence[Response]) -> str:
    """Says how many responses there are, and how many ended without an answer or were cut."""
    experts = len({response.domain for response in responses})
    ends = Counter(response.finish_reason for response in responses)
    shown = {"length": "cut at the token limit", "failed": "missing"}
    others = [f"{ends[end]:,} {shown.get(end, end)}" for end in sorted(ends) if end != "stop"]
    told = f"{counted(len(responses), 'response')} from {counted(experts, 'expert')}"
    return ", ".join([told, *others])


def integrated(records: Sequence[TrainingRecord], sampled: Sequence[SampledTarget] = ()) -> str:
    """Says how many records there are, how many a reference verifies, which were rejected and why,
    where a merge stands in for a model's answer, and what asking again saved.
    """
    verified = sum(record.verification == "verified" for record in records)
    parts = [counted(len(records), "record"), f"{verified:,} verified by a reference"]
    # A merge that names a model stands in for what that model wrote, or did not write.
    stand_ins = sum(
        record.integration.method == "merge" and bool(record.integration.model)
        for record in records
    )
    if stand_ins:
        parts.append(f"{stand_ins:,} merged in place of a model's answer")
    if sampled:
        parts.append(saved(sampled))
    trimmed = sum(
        any(dropped.reason == CHATTER for dropped in record.integration.ledger.dropped)
        for record in records
    )
    if trimmed:
        parts.append(f"{trimmed:,} without the chatter around an answer")
    reasons = Counter(record.reason for record in records if record.verification == "rejected")
    return ", ".join(parts) + _left_out(reasons, "rejected")


def saved(sampled: Sequence[SampledTarget]) -> str:
    """Says how many rejected targets a further answer of an expert saved."""
    number = sum(target.is_saved for target in sampled)
    return f"{number:,} of {counted(len(sampled), 'rejected target')} saved by further answers"


def trained(records: Iterable[TrainingRecord], files: StageFiles) -> str:
    """Says on how many records the student was trained, in how many steps, and the last loss."""
    usable = sum(record.is_usable for record in records)
    told = counted(usable, "record")
    lines = read_training_log(files.training_log)
    losses = [fields["loss"] for fields in lines if fields.get("loss") is not None]
    if not losses:
        return told
    return f"{told} in {counted(len(losses), 'step')}, loss {losses[0]:.3f} → {losses[-1]:.3f}"


def refined(refinement: Refinement) -> str:
    """Says how many rounds there were, how many of them were kept, and why there are no more."""
    rounds = counted(len(refinement.rounds), "round")
    return f"{rounds}, {len(refinement.kept):,} kept; {refinement.stopped}"


def _left_out(reasons: Mapping[str, int], what: str) -> str:
    """Returns the number and the most frequent reasons; nothing where there is none."""
    ordered = Counter(reasons).most_common()
    if not ordered:
        return ""
    shown = [f"{count:,} × {reason}" for reason, count in ordered[:_REASONS_SHOWN]]
    if len(ordered) > _REASONS_SHOWN:
        shown.append("…")
    return f"; {sum(reasons.values()):,} {what} ({', '.join(shown)})"
