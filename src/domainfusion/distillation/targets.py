"""From the teachers' responses to records: which targets are trained on and why others are not, and
further answers of the experts where a target is rejected.
"""

from __future__ import annotations

import logging
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from domainfusion.distillation.integration import Experts, Task
from domainfusion.distillation.integration.reading import primary_first
from domainfusion.distillation.metrics import AccuracyMetric, stated_parts
from domainfusion.distillation.run import StageFiles
from domainfusion.errors import RunError
from domainfusion.models.base import LanguageModel
from domainfusion.records import read_json, read_records
from domainfusion.types import (
    Example,
    Generation,
    Integration,
    Response,
    Sampling,
    TrainingRecord,
    Verification,
)
from domainfusion.wording import counted

logger = logging.getLogger("domainfusion")

Collected = Sequence[tuple[Example, Mapping[str, Response]]]
"""Examples with the responses of their domains' teachers."""

_NO_ANSWER = {
    "refused": "refused",
    "filtered": "was held back by a filter",
    "failed": "did not answer",
}
"""Why a teacher gave no answer, in words, by finish reason."""


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
    return read_json(files.samples, list[SampledTarget])


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
            received=f"{counted(len(given), 'example')} where the run has {len(stored)}",
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


RETRY_TEMPERATURE = 0.7
"""The temperature of further answers where the first is greedy: drawn greedily, they would be the
same.
"""

_RANKS = {"rejected": 0, "unverified": 1, "verified": 2}


class Sampled(NamedTuple):
    """Records, and what asking again did for them.

    Attributes:
        records: The records, each of the best answers.
        targets: The examples whose experts were asked again.
    """

    records: list[TrainingRecord]
    targets: list[SampledTarget]


def make_records(
    tasks: Sequence[Task],
    integrate: Callable[[Sequence[Task]], list[Integration]],
    *,
    samples: int,
    experts: Experts,
    verifier: AccuracyMetric,
) -> Sampled:
    """Makes a target of each example's responses and checks it against the reference; where it is
    rejected, experts are asked again.

    Args:
        tasks: The examples with their responses.
        integrate: Makes targets of responses.
        samples: Answers of an expert at most, the first included.
        experts: Whom to ask again, and how the first answers were drawn.
        verifier: Compares a target with the example's reference.
    """
    records = [
        to_record(task, target, verifier)
        for task, target in zip(tasks, integrate(tasks), strict=True)
    ]
    if samples == 1:
        return Sampled(records, [])
    return ask_until_verified(
        tasks, records, samples=samples, experts=experts, integrate=integrate, verifier=verifier
    )


def ask_until_verified(
    tasks: Sequence[Task],
    records: Sequence[TrainingRecord],
    *,
    samples: int,
    experts: Experts,
    integrate: Callable[[Sequence[Task]], list[Integration]],
    verifier: AccuracyMetric,
) -> Sampled:
    """Asks again where a target was rejected, and keeps the best target of each example.

    Only the experts that a rejection is due to are asked: those that declined, else those whose
    answer the reference contradicts, else all of the example's. An expert that left a question unanswered is
    not: the run asks it again by itself. Which answers are asked for follows from the stored ones
    alone, so that a run that was interrupted makes the same targets.

    Args:
        tasks: The examples with their first responses.
        records: Their records, in the same order.
        samples: Answers of an expert at most, the first included.
        experts: Whom to ask, and how the first answers were drawn.
        integrate: Makes targets of responses.
        verifier: Compares a target with the example's reference.
    """
    first = list(tasks)
    best_tasks, best = list(tasks), list(records)
    answers = [0] * len(first)
    for number in range(2, samples + 1):
        wanted = {place: refusing(record, verifier) for place, record in enumerate(best)}
        wanted = {place: domains for place, domains in wanted.items() if domains}
        if not wanted:
            break
        again = [best_tasks[place] for place in wanted]
        tried = answer_again(again, list(wanted.values()), experts, number)
        targets = integrate(tried)
        for place, task, target in zip(wanted, tried, targets, strict=True):
            answers[place] += len(wanted[place])
            record = to_record(task, target, verifier)
            if _worth(record, verifier) > _worth(best[place], verifier):
                best_tasks[place], best[place] = task, record
    sampled = [
        SampledTarget(
            example_id=task.example.id,
            answers=answers[place],
            replaced=tuple(
                domain
                for domain, response in task.responses.items()
                if response != best_tasks[place].responses[domain]
            ),
            is_saved=best[place].verification != "rejected",
        )
        for place, task in enumerate(first)
        if answers[place]
    ]
    return Sampled(best, sampled)


def answer_again(
    tasks: Sequence[Task], domains: Sequence[Sequence[str]], experts: Experts, number: int
) -> list[Task]:
    """Returns the tasks with a further answer of some of their experts.

    Args:
        tasks: The tasks.
        domains: For each task the domains whose experts are asked.
        experts: Whom to ask, and how the first answers were drawn.
        number: Which answer it is, from 2.
    """
    drawn = experts.sampling
    # Answers that are drawn at a temperature are numbered from 1; a greedy one is not among them.
    count = number
    if drawn.temperature == 0:
        drawn, count = replace(drawn, temperature=RETRY_TEMPERATURE), number - 1
    collected = [dict(task.responses) for task in tasks]
    for domain, teacher in experts.teachers.items():
        places = [place for place, asked in enumerate(domains) if domain in asked]
        if not places:
            continue
        found = _answers(
            teacher, [tasks[place].example for place in places], domain, drawn, count, experts
        )
        for place, answer in zip(places, found, strict=True):
            example = tasks[place].example
            collected[place][domain] = Response(
                domain=domain,
                example_id=example.id,
                question=example.question_for(domain),
                teacher=teacher.fingerprint,
                sampling=drawn,
                **asdict(answer),
            )
    return [Task(task.example, responses) for task, responses in zip(tasks, collected, strict=True)]


def _answers(
    teacher: LanguageModel,
    examples: Sequence[Example],
    domain: str,
    sampling: Sampling,
    count: int,
    experts: Experts,
) -> list[Generation]:
    """Returns the `count`-th draw of each example's answer. Earlier draws are in the store, which
    counts them by the repeats of a conversation; so each conversation stands there once.
    """
    conversations = [example.conversation_for(domain) for example in examples]
    unique = list(dict.fromkeys(conversations))
    repeated = [conversation for conversation in unique for _ in range(count)]
    answers = experts.ask(teacher, repeated, sampling, label=f"asking {domain} once more")
    last = dict(zip(unique, answers[count - 1 :: count], strict=True))
    return [last[conversation] for conversation in conversations]


def refusing(record: TrainingRecord, verifier: AccuracyMetric) -> tuple[str, ...]:
    """Returns the domains whose experts a rejection is due to, as far as one can see; empty where
    the record is not rejected, or has no answer.
    """
    given = {response.domain: response.finish_reason for response in record.responses}
    if record.verification != "rejected" or "failed" in given.values():
        return ()
    declined = tuple(
        domain for domain, reason in given.items() if reason in ("refused", "filtered")
    )
    if declined:
        return declined
    wrong = tuple(
        response.domain
        for response in record.responses
        if _misses_its_part(record.example, response, verifier)
    )
    return wrong or tuple(given)


def _misses_its_part(example: Example, response: Response, verifier: AccuracyMetric) -> bool:
    """Whether an expert's own answer is not what the reference wants of its domain."""
    own = tuple(part for part in example.parts if part.domain == response.domain)
    if not own:
        return False
    value = verifier(replace(example, parts=own), response.text).value
    return value is not None and value < 1


def _worth(record: TrainingRecord, verifier: AccuracyMetric) -> tuple[int, float]:
    """Returns the rank of a record among those of the same example: whether it is verified, and the
    share of its reference that it states.
    """
    score = 0.0
    if record.example.has_reference and record.target.strip():
        score = verifier(record.example, record.target).value or 0.0
    return _RANKS[record.verification], score
