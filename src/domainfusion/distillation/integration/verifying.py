"""Verifying: whether an answer says what the experts say, as a model in a fresh context or a small
cross-encoder sees it, and what the rules can see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from domainfusion.checks import check_number
from domainfusion.distillation.integration.model_reading import (
    Caller,
    claim_line,
    entries_of,
    is_answer,
    structure_in,
    text_of,
)
from domainfusion.distillation.integration.planning import Plan
from domainfusion.distillation.integration.reading import Claim
from domainfusion.distillation.integration.words import (
    Date,
    Found,
    Quantity,
    Value,
    compare,
    content,
    find_values,
)
from domainfusion.distillation.integration.writing import Draft, whole_blocks
from domainfusion.distillation.text.sentences import sentences
from domainfusion.errors import MissingDependencyError, ModelError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.prompts import VERIFICATION_PROMPT, fill
from domainfusion.types import Conversation, Generation, Sampling, transcript, user

VERIFICATION_TOKENS = 2048
MOST_CHECKS = 100
"""Checks of one answer; an answer that would need more is not verified."""
NO_VERDICT = "the verifier gave no verdict"
TOO_MANY = f"it would take more than {MOST_CHECKS} checks"

CheckKind = Literal["stated", "refused", "open", "supported"]

CHECKS_SCHEMA: dict[str, Any] = {
    "title": "checks",
    "type": "object",
    "properties": {
        "checks": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "answer": {"type": "string", "enum": ["yes", "no"]},
                    "reason": {"type": "string"},
                },
                "required": ["id", "answer", "reason"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["checks"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class VerifierFinding:
    """The findings of a verifier.

    Attributes:
        problems: What is wrong with an answer, each in words that tell its writer what to do.
        is_given: Whether there is a verdict; without one, nothing is known.
    """

    problems: tuple[str, ...] = ()
    is_given: bool = True


@runtime_checkable
class Verifier(Protocol):
    """Checks that answers state what their plans want, and nothing else."""

    def verify(
        self, plans: Sequence[Plan], drafts: Sequence[Draft], *, ask: Ask
    ) -> Sequence[VerifierFinding]:
        """Returns a verdict on each draft."""
        ...


class Check(NamedTuple):
    """One thing that a verifier decides.

    Attributes:
        id: Its name in the prompt.
        kind: What is to be so: a claim is `stated`, one that lost is `refused`, an `open` point is
            said to be open, or a sentence is `supported`.
        text: The claim's words, what the point is about, or the sentence.
        question: What the verifier is asked.
        wanted: The answer that a sound text gets.
    """

    id: str
    kind: CheckKind
    text: str
    question: str
    wanted: Literal["yes", "no"]


def checks_of(plan: Plan, draft: Draft) -> list[Check]:
    """Returns what there is to check: every claim that the answer has to state or must not, every
    open point, and every sentence.
    """
    blocks = whole_blocks(plan)
    disputed = {claim.id for each in plan.open_points for claim in each.point.claims}
    checks = []
    for claim in plan.stated:
        if claim.id in disputed or any(block.holds(claim) for block in blocks):
            continue
        question = (
            f"Does the answer say what claim {claim.id} says, with its numbers, conditions and"
            " hedges?"
        )
        checks.append(Check(f"c{claim.id}", "stated", claim.quote, question, "yes"))
    for claim in plan.losers:
        question = f"Does the answer state claim {claim.id}, which is wrong, as if it were right?"
        checks.append(Check(f"x{claim.id}", "refused", claim.quote, question, "no"))
    for number, each in enumerate(plan.open_points, start=1):
        ids = " and ".join(claim.id for claim in each.point.claims)
        question = (
            f"Does the answer say that the experts disagree on {ids}, and what each side says?"
        )
        checks.append(Check(f"d{number}", "open", each.point.about or ids, question, "yes"))
    for number, sentence in enumerate(
        _sentences_of(draft, [block.mark for block in blocks]), start=1
    ):
        question = (
            f"Is all that sentence {number} says said by the claims, or plain from the question?"
        )
        checks.append(Check(f"s{number}", "supported", sentence, question, "yes"))
    return checks


def _sentences_of(draft: Draft, marks: Sequence[str]) -> list[str]:
    text = draft.marked
    for mark in marks:
        text = text.replace(mark, "\n")
    return [sentence for sentence in sentences(text) if not _NUMBERED.fullmatch(sentence)]


# By a model


@dataclass(frozen=True)
class ModelVerifier:
    """Lets a model answer every check of an answer with yes or no, in a context in which it did not
    write that answer.

    Attributes:
        model: The model.
    """

    model: LanguageModel

    def verify(
        self, plans: Sequence[Plan], drafts: Sequence[Draft], *, ask: Ask
    ) -> list[VerifierFinding]:
        """Returns a verdict on each draft; none is given where the model leaves a check open."""
        checks = [checks_of(plan, draft) for plan, draft in zip(plans, drafts, strict=True)]
        conversations = {
            place: verification_prompt(plans[place], listed)
            for place, listed in enumerate(checks)
            if 0 < len(listed) <= MOST_CHECKS
        }
        sampling = Sampling(max_new_tokens=VERIFICATION_TOKENS)
        replies = Caller(self.model, ask).call(conversations, sampling, "verifying", CHECKS_SCHEMA)
        return [_verdict(listed, replies.get(place)) for place, listed in enumerate(checks)]


def verification_prompt(plan: Plan, checks: Sequence[Check]) -> Conversation:
    """Returns the prompt of a verifier."""
    claims = "\n".join(f"- {claim_line(claim)} [{claim.domain}]" for claim in plan.claims)
    said = [check for check in checks if check.kind == "supported"]
    listed = "\n".join(
        f"{check.id.removeprefix('s')}. {json.dumps(check.text, ensure_ascii=False)}"
        for check in said
    )
    questions = "\n".join(f"{check.id}: {check.question}" for check in checks)
    query = transcript(plan.task.example.conversation)
    return user(
        fill(
            VERIFICATION_PROMPT,
            {"query": query, "claims": claims, "sentences": listed, "checks": questions},
        )
    )


def _verdict(checks: Sequence[Check], reply: Generation | None) -> VerifierFinding:
    if not checks:
        return VerifierFinding()
    if len(checks) > MOST_CHECKS:
        return VerifierFinding((TOO_MANY,), is_given=False)
    answers = _answers_in(reply)
    problems = [
        problem_of(check, answers[check.id].reason)
        for check in checks
        if check.id in answers and answers[check.id].says != check.wanted
    ]
    is_given = all(check.id in answers for check in checks)
    return VerifierFinding(tuple(problems), is_given=is_given or bool(problems))


class _Answer(NamedTuple):
    says: str
    reason: str


def _answers_in(reply: Generation | None) -> dict[str, _Answer]:
    """Returns the answers in a reply by the checks' ids; one that is answered with both yes and no
    has no answer.
    """
    found: dict[str, _Answer] = {}
    contradictory: set[str] = set()
    if reply is None or not is_answer(reply):
        return found
    for entry in entries_of(structure_in(reply.text), "checks"):
        name = text_of(entry, "id").strip("[]() ")
        says = text_of(entry, "answer").casefold().strip(" .")
        says = {"true": "yes", "false": "no"}.get(str(entry.get("answer")).casefold(), says)
        if says in ("yes", "no"):
            answer = _Answer(says, " ".join(text_of(entry, "reason").split())[:300])
            if found.setdefault(name, answer).says != says:
                contradictory.add(name)
    return {name: answer for name, answer in found.items() if name not in contradictory}


def problem_of(check: Check, reason: str = "") -> str:
    """Returns what is wrong where a check did not come out as it should, in words for whoever
    writes the answer.

    Example:
        >>> problem_of(Check("c1.1", "stated", "It is red.", "", "yes"), "it says blue")
        'It does not say as it is: "It is red." (it says blue)'
    """
    quoted = json.dumps(check.text, ensure_ascii=False)
    problem = {
        "stated": f"It does not say as it is: {quoted}",
        "refused": f"It states what was found to be wrong: {quoted}",
        "open": f"It does not say that the experts disagree, and what each side says, on: {quoted}",
        "supported": f"No expert says this: {quoted}",
    }[check.kind]
    return f"{problem} ({reason})" if reason else problem


# By rules

# Words in quotation marks of one kind, on one line.
_QUOTED = re.compile(r"“([^”\n]{8,300})”|„([^“\n]{8,300})“|«([^»\n]{8,300})»|\"([^\"\n]{8,300})\"")
# The number of a list's item.
_NUMBERED = re.compile(r"\s*\(?\d{1,3}[.)](?:\s|\Z)")
# A sentence that reports the disagreement itself.
_MARKED_AS_OPEN = re.compile(
    r"\b(?:disagree\w*|differ(?:s|ed)?|contradict\w*|disput\w*|according to|expert'?s?)\b",
    re.IGNORECASE,
)
_LEAST_QUOTED_WORDS = 3
_LONGEST = 2000
"""Characters of a sentence in which values are looked for."""


def rule_problems(plan: Plan, draft: Draft) -> tuple[str, ...]:
    """Returns what the rules see to be wrong: numbers, dates and quotations that no expert gave,
    and values that lost a conflict.

    They see no more: not what is left out, nor what is said the other way round.
    """
    given = [
        transcript(plan.task.example.conversation),
        *(response.text for response in plan.task.responses.values()),
    ]
    known = _Known(given)
    lost = list(_lost_values(plan))
    problems: list[str] = []
    for sentence in _sentences_of(draft, [block.mark for block in whole_blocks(plan)]):
        for found in _values(sentence):
            words = _bare(sentence)[found.start : found.end].strip()
            loser = next(
                (claim for claim, value in lost if compare(value, found.value) == "same"), None
            )
            if loser is not None and not _is_marked(sentence, loser):
                problems.append(
                    f"It states {words!r}, which was found to be wrong:"
                    f" {json.dumps(sentence, ensure_ascii=False)}"
                )
            elif not known.has(found.value, words):
                problems.append(
                    f"No expert says {words!r}: {json.dumps(sentence, ensure_ascii=False)}"
                )
        for quoted in _quotations(sentence):
            if not known.quotes(quoted):
                problems.append(
                    f"No expert says this in these words: {json.dumps(quoted, ensure_ascii=False)}"
                )
    return tuple(dict.fromkeys(problems))


class _Known:
    """The text of the experts' answers and of the question."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._folded = [" ".join(text.casefold().split()) for text in texts]
        self._values = [
            found.value
            for text in texts
            for sentence in sentences(text)
            for found in _values(sentence)
        ]

    def has(self, value: Value, words: str) -> bool:
        """Whether one of them has a value, in whatever unit or format, or spells it in the same
        way.
        """
        if any(compare(value, other) == "same" for other in self._values):
            return True
        return self.quotes(words)

    def quotes(self, words: str) -> bool:
        """Whether one of them has these very words."""
        folded = " ".join(words.casefold().split()).strip(" .,;:!?")
        return any(folded in text for text in self._folded)


def _values(sentence: str) -> list[Found]:
    """Returns the quantities and dates in a sentence, without numbers in words that count nothing
    measured: "two reasons".
    """
    bare = _bare(sentence)
    found = [each for each in find_values(bare) if isinstance(each.value, Quantity | Date)]
    return [each for each in found if not _is_word(each, bare)]


def _bare(sentence: str) -> str:
    return (
        _NUMBERED.sub("", sentence[:_LONGEST], count=1)
        if _NUMBERED.match(sentence)
        else sentence[:_LONGEST]
    )


def _is_word(found: Found, bare: str) -> bool:
    return (
        isinstance(found.value, Quantity)
        and not found.value.dimension
        and bare[found.start : found.end].strip().isalpha()
    )


def _lost_values(plan: Plan) -> Iterator[tuple[Claim, Value]]:
    """Yields the values of claims that lost a conflict and that nothing in the answer states, each
    with its claim.
    """
    standing = [found.value for claim in plan.stated for found in _values(claim.quote)]
    for settled in plan.settled:
        for claim in settled.losers:
            for found in _values(claim.quote):
                if not any(compare(found.value, value) == "same" for value in standing):
                    yield claim, found.value


def _is_marked(sentence: str, loser: Claim) -> bool:
    """Whether a sentence says that a value is one expert's, or in dispute, so that it does not
    stand as true.
    """
    return (
        loser.domain.casefold() in sentence.casefold()
        or _MARKED_AS_OPEN.search(sentence) is not None
    )


def _quotations(sentence: str) -> Iterator[str]:
    for match in _QUOTED.finditer(sentence):
        words = next(group for group in match.groups() if group)
        if len(words.split()) >= _LEAST_QUOTED_WORDS:
            yield words


# Nonsense

LEAST_KNOWN = 1 / 3
"""Share of the words of an answer that the experts have to have used, so that it is an answer to
the same question at all.
"""
# Writing without spaces between words, such as Chinese and Japanese.
_UNSPACED = re.compile(r"[\u2e80-\uffef]")


def is_nonsense(plan: Plan, draft: Draft) -> bool:
    """Whether an answer has next to nothing of what the experts say, so that whoever wrote it did
    not read them.

    This tells no right answer from a wrong one. It is asked where no verifier gave a verdict.
    """
    said = set[str]().union(*(_words(response.text) for response in plan.task.responses.values()))
    written = _words(draft.marked)
    return len(written & said) < LEAST_KNOWN * len(written) or not written


def _words(text: str) -> set[str]:
    """Returns the words that carry meaning; of writing without spaces, each two characters in a
    row.
    """
    found = set[str]()
    for word in content(text):
        found |= set(map("".join, pairwise(word))) if _UNSPACED.search(word) else {word}
    return found


ENTAILMENT = "entailment"
"""The label, among those of the model's configuration, of what follows from a premise."""


@dataclass(frozen=True)
class CrossEncoderVerifier:
    """Verifies integrated answers with a cross-encoder for natural language inference (NLI), which
    runs on this machine.

    A claim is stated where a sentence of the answer, two in a row or the whole of it entails it; a
    sentence is founded where a claim, or all claims of an expert together, entail it. Small models
    of this kind miss conflicts and see some that are none, so a verdict leads to a repair and a
    mark, and `on_unverified` says what follows. Needs `domainfusion[embeddings]`.

    Args:
        model: A folder or hub id that sentence-transformers loads as a `CrossEncoder` with an
            entailment label, such as `cross-encoder/nli-deberta-v3-small`.
        threshold: The probability of entailment from which on it counts.

    Raises:
        ConfigurationError: The threshold is not between 0 and 1.
        MissingDependencyError: sentence-transformers is not installed.
    """

    model: str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, "(0, 1)")
        _library()

    def verify(
        self, plans: Sequence[Plan], drafts: Sequence[Draft], *, ask: Ask
    ) -> list[VerifierFinding]:
        """Returns a verdict on each draft; all pairs of texts are compared together.

        Raises:
            ModelError: The model can't be loaded, or has no entailment label.
        """
        checks = [checks_of(plan, draft) for plan, draft in zip(plans, drafts, strict=True)]
        premises = [
            {check.id: _premises(check, plan, listed) for check in listed}
            if len(listed) <= MOST_CHECKS
            else {}
            for plan, listed in zip(plans, checks, strict=True)
        ]
        pairs = [
            (premise, check.text)
            for listed, by_check in zip(checks, premises, strict=True)
            for check in listed
            for premise in by_check.get(check.id, ())
        ]
        entailed = _entailment(self.model, list(dict.fromkeys(pairs)))
        return [
            self._verdict(listed, by_check, entailed)
            for listed, by_check in zip(checks, premises, strict=True)
        ]

    def _verdict(
        self,
        checks: Sequence[Check],
        premises: dict[str, list[str]],
        entailed: dict[tuple[str, str], float],
    ) -> VerifierFinding:
        if len(checks) > MOST_CHECKS:
            return VerifierFinding((TOO_MANY,), is_given=False)
        problems = []
        for check in checks:
            if check.kind == "open":
                continue  # that experts are said to disagree is not a matter of entailment
            is_entailed = any(
                entailed[premise, check.text] >= self.threshold for premise in premises[check.id]
            )
            if is_entailed != (check.wanted == "yes"):
                problems.append(problem_of(check))
        return VerifierFinding(tuple(problems))


def _premises(check: Check, plan: Plan, checks: Sequence[Check]) -> list[str]:
    """Returns the texts of which one has to entail what is checked."""
    if check.kind == "supported":
        by_expert: dict[str, list[str]] = {}
        for claim in plan.claims:
            by_expert.setdefault(claim.domain, []).append(claim.quote)
        return [*(claim.quote for claim in plan.claims), *map(" ".join, by_expert.values())]
    answer = [other.text for other in checks if other.kind == "supported"]
    return [*answer, *map(" ".join, pairwise(answer)), " ".join(answer)]


def _entailment(model: str, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Returns the probability that the first text of each pair entails the second."""
    if not pairs:
        return {}
    encoder, label = _load(model)
    probabilities = encoder.predict(list(pairs), apply_softmax=True, show_progress_bar=False)
    return {pair: float(row[label]) for pair, row in zip(pairs, probabilities, strict=True)}


@lru_cache(maxsize=2)
def _load(model: str) -> tuple[Any, int]:
    """Returns a cross-encoder and the place of its entailment label."""
    try:
        encoder = _library().CrossEncoder(model)
        labels = {
            str(name).casefold(): int(place) for place, name in encoder.config.id2label.items()
        }
    except (
        Exception
    ) as error:  # whatever the libraries below it raise for a folder or a hub id that is none
        raise ModelError(
            f"The cross-encoder can't be loaded: {error}",
            received=model,
            allowed="a folder or hub id that sentence-transformers loads",
        ) from error
    if ENTAILMENT not in labels:
        raise ModelError(
            "The cross-encoder has no entailment label",
            received=sorted(labels),
            fix="give one for natural language inference",
        )
    return encoder, labels[ENTAILMENT]


def _library() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingDependencyError(
            "A cross-encoder needs sentence-transformers",
            fix='run: pip install "domainfusion[embeddings]"',
        ) from error
    return sentence_transformers
