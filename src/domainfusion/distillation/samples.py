"""Asking again: where the target of an experts' first answers is refused, further answers are drawn
until one holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

from domainfusion.distillation.integration import Experts, Task
from domainfusion.distillation.metrics import AccuracyMetric
from domainfusion.distillation.targets import SampledTarget, to_record
from domainfusion.models.base import LanguageModel
from domainfusion.types import Example, Generation, Integration, Response, Sampling, TrainingRecord

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
    the record is not rejected, or for want of an answer.
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
    """Returns what a record is compared by: whether it is verified, and the share of its reference
    that it states.
    """
    score = 0.0
    if record.example.has_reference and record.target.strip():
        score = verifier(record.example, record.target).value or 0.0
    return _RANKS[record.verification], score
