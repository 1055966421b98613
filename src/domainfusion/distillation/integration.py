"""Integration: several experts' responses become one answer, with a ledger of who contributed what and how conflicts were settled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from domainfusion.distillation.metrics import normalize, sentences, states
from domainfusion.errors import ConfigurationError, DataError, TemplateError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import INTEGRATION_PROMPT, fields_of, fill, unindent
from domainfusion.types import (
    Conflict,
    Contribution,
    Dropped,
    Example,
    Generation,
    Integration,
    Ledger,
    Response,
    Sampling,
    transcript,
    user,
)

ResponseLike = str | Response | Mapping[str, Any]

Strategy = Callable[[str, Mapping[str, Response]], str | Integration]
"""A way of your own to integrate: from the query and the responses, primary domain first, to the answer."""

_FIELDS = {item.name for item in fields(Response)}

ABSENT = "(this expert was not asked)"
_VALUE = re.compile(r"[+-]?\d[\d.,]*(?:\s?(?:%|°[CF]?|[kcm]?m|k?g|mg|kJ|kcal|km/h|m/s|hours?|minutes?|seconds?|days?|years?))?|\b[A-Z]\w*")
_ONLY_ONE = re.compile(r"▢ (?:is|was|are|were) the\b")
_EMPTY_WORDS = frozenset(
    ("a", "an", "are", "at", "he", "in", "is", "it", "its", "of", "on", "she", "that", "the", "they", "this", "to", "was", "were")
)
_NEGATION = re.compile(r"\b(?:not|never|no|cannot|isn't|aren't|doesn't|don't|won't|can't)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Task:
    """One example's responses, to be integrated.

    Attributes:
        example: The example.
        responses: The experts' responses by domain.
    """

    example: Example
    responses: Mapping[str, Response]


class ResponseIntegrator:
    """Combines the responses of several domain experts into one answer.

    Without a model it merges: the primary domain's sentences first, then the others', repeated sentences dropped. Two experts
    contradict each other where their sentences are the same but for a number, a name or a negation; then the reference decides if
    there is one, else the expert of the primary domain. With a model, the model writes the answer from a prompt; an empty answer
    falls back to the merge, and the ledger says so.

    Args:
        integration_model: Writes the answer; None merges.
        prompt_template: What the model is asked. `{query}` is filled, and either `{responses}` (a block with every response) or a
            placeholder for each domain. Indentation is removed.
        strategy: A function of your own in place of both.
        sampling: How the model writes; by default greedily, up to 512 tokens.

    Raises:
        TemplateError: The template has no `{query}`.
        ConfigurationError: Arguments that do not go together.

    Example:
        >>> answer = ResponseIntegrator().integrate("Where is NRT, and what is Au?", {"aviation": "In Japan.", "chemistry": "Gold."})
        >>> str(answer)
        'In Japan. Gold.'
    """

    def __init__(
        self,
        integration_model: LanguageModel | None = None,
        prompt_template: str | None = None,
        *,
        strategy: Strategy | None = None,
        sampling: Sampling = Sampling(max_new_tokens=512),
    ) -> None:
        if strategy is not None and integration_model is not None:
            raise ConfigurationError("Give an integration model or a strategy, not both", received=strategy)
        if prompt_template is not None and integration_model is None:
            raise ConfigurationError("A prompt template needs an integration_model to read it", received=prompt_template)
        template = unindent(prompt_template or INTEGRATION_PROMPT)
        if "query" not in fields_of(template):
            raise TemplateError("The prompt template has no place for the query", received=template, fix="write {query} where it belongs")
        self.integration_model = integration_model
        self.prompt_template = template
        self.strategy = strategy
        self.sampling = sampling

    def integrate(
        self,
        query: str,
        responses: Mapping[str, ResponseLike],
        *,
        primary_domain: str = "",
        reference: str | None = None,
        ask: Ask = ask_directly,
    ) -> Integration:
        """Integrates the responses to one query.

        Args:
            query: What was asked.
            responses: The responses by domain: texts, `Response` objects, or dicts with a `text`.
            primary_domain: The leading domain; by default the first.
            reference: A right answer, which settles conflicts.
            ask: How the model is called.

        Returns:
            The integrated answer; `str()` of it is its text.

        Raises:
            DataError: There is no response, none of them says anything, one is neither text nor response, or none is of the primary
                domain.
            TemplateError: The template has no place for a response.
        """
        given = {domain: as_response(domain, response) for domain, response in responses.items()}
        if not given:
            raise DataError("There are no responses to integrate", received=query, fix="give at least one expert's response")
        if not any(response.text.strip() for response in given.values()):
            raise DataError("Every response is empty", received=dict.fromkeys(given, ""), fix="ask the experts again")
        primary = primary_domain or next(iter(given))
        if primary not in given:
            raise DataError("There is no response of the primary domain", received=primary, allowed=", ".join(given))
        example = Example(query=query, domains=tuple(given), primary_domain=primary, reference=reference)
        return self.integrate_all([Task(example, given)], ask=ask)[0]

    def integrate_all(self, tasks: Sequence[Task], *, ask: Ask = ask_directly) -> list[Integration]:
        """Integrates many examples; a model is asked for all of them together."""
        outcomes: dict[int, Integration] = {}
        to_ask: list[int] = []
        for index, task in enumerate(tasks):
            ordered = primary_first(task)
            usable = {domain: response for domain, response in ordered.items() if response.text.strip()}
            if self.strategy is not None:
                outcomes[index] = _from_strategy(self.strategy, task.example.query, ordered)
            elif len(usable) <= 1 or self.integration_model is None:
                outcomes[index] = merge(task.example, ordered)
            else:
                to_ask.append(index)
        if to_ask and self.integration_model is not None:
            conversations = [user(self._prompt(tasks[index])) for index in to_ask]
            written = ask(self.integration_model, conversations, self.sampling, label="integrating")
            for index, conversation, generation in zip(to_ask, conversations, written, strict=True):
                integration = self._read(tasks[index], generation)
                outcomes[index] = replace(integration, messages=conversation, model=self.integration_model.fingerprint)
        return [outcomes[index] for index in range(len(tasks))]

    def _prompt(self, task: Task) -> str:
        names = set(fields_of(self.prompt_template))
        texts = {domain: response.text for domain, response in primary_first(task).items()}
        homeless = [domain for domain in texts if domain not in names - {"query", "responses"}]
        if homeless and "responses" not in names:
            raise TemplateError(
                f"The prompt template has no place for the response of {homeless[0]!r}",
                received=sorted(names),
                fix=f"write {{{homeless[0]}}} or {{responses}} where it belongs",
            )
        absent = dict.fromkeys(names - {"query", "responses"}, ABSENT)
        block = "\n\n".join(f"[{domain} expert]\n{text}" for domain, text in texts.items())
        return fill(self.prompt_template, {**absent, **texts, "query": transcript(task.example.conversation), "responses": block})

    def _read(self, task: Task, generation: Generation) -> Integration:
        if not generation.text.strip() or generation.finish_reason in ("refused", "filtered"):
            merged = merge(task.example, primary_first(task))
            note = "the integration model gave no answer; the responses were merged instead"
            return replace(merged, ledger=replace(merged.ledger, notes=(*merged.ledger.notes, note)))
        ledger = Ledger(contributions=_contributions(generation.text, task.responses))
        return Integration(text=generation.text, method="model", ledger=ledger, finish_reason=generation.finish_reason)


def merge(example: Example, responses: Mapping[str, Response]) -> Integration:
    """Merges responses sentence by sentence, in their order; see `ResponseIntegrator`."""
    kept: list[tuple[str, str]] = []
    conflicts: list[Conflict] = []
    dropped: list[Dropped] = []
    for domain, response in responses.items():
        if not response.text.strip():
            dropped.append(Dropped(domain=domain, text="", reason="empty response"))
        for sentence in sentences(response.text):
            if any(normalize(sentence) == normalize(earlier) for _, earlier in kept):
                dropped.append(Dropped(domain=domain, text=sentence, reason="said before"))
                continue
            claim = (domain, sentence)
            rival = next((index for index, other in enumerate(kept) if _in_conflict(example, responses, other, claim)), None)
            if rival is None:
                kept.append(claim)
                continue
            conflict = _settle(example, kept[rival], claim)
            conflicts.append(conflict)
            loser = claim if conflict.kept == kept[rival][0] else kept[rival]
            if conflict.kept == domain:
                kept[rival] = claim
            dropped.append(Dropped(domain=loser[0], text=loser[1], reason=f"contradicts {conflict.kept}: {conflict.rule}"))
    text, contributions = _lay_out(kept)
    cut = any(response.finish_reason == "length" for response in responses.values())
    ledger = Ledger(contributions=contributions, conflicts=tuple(conflicts), dropped=tuple(dropped))
    method = "single" if len(responses) == 1 else "merge"
    return Integration(text=text, method=method, ledger=ledger, finish_reason="length" if cut else "stop")


def contradict(first: str, second: str) -> bool:
    """Whether two sentences say the same but for a number, a name or a negation.

    They have to share a word that says what they are about: "It is Japan." and "It is Au." are two answers. A sentence that differs
    in its first word is about something else, unless only one thing can be what it says, as in "Paris is the capital of France."

    Example:
        >>> contradict("Gold melts at 1064 °C.", "Gold melts at 961 °C."), contradict("It is safe.", "It is not safe.")
        (True, True)
        >>> contradict("Gold melts at 1064 °C.", "Silver melts at 961 °C."), contradict("It is Japan.", "It is Au.")
        (False, False)
    """
    if normalize(first) == normalize(second):
        return False
    if (_NEGATION.search(first) is None) != (_NEGATION.search(second) is None):
        return normalize(_NEGATION.sub(" ", first)) == normalize(_NEGATION.sub(" ", second))
    frames = [_VALUE.sub("▢", sentence) for sentence in (first, second)]
    if frames[0] != frames[1]:
        return False
    values = list(zip(*(_VALUE.findall(sentence) for sentence in (first, second)), strict=True))
    different = [place for place, (one, other) in enumerate(values) if one != other]
    if len(different) != 1 or (different == [0] and frames[0].startswith("▢") and not _ONLY_ONE.match(frames[0])):
        return False
    shared = re.findall(r"\w+", frames[0]) + [one for one, other in values if one == other]
    return any(word.casefold() not in _EMPTY_WORDS for word in shared)


def _in_conflict(example: Example, responses: Mapping[str, Response], earlier: tuple[str, str], later: tuple[str, str]) -> bool:
    """Whether two claims exclude each other: made by two experts on the same question, and not both right by the reference."""
    if earlier[0] == later[0] or not contradict(earlier[1], later[1]):
        return False
    questions = [responses[domain].question for domain, _ in (earlier, later)]
    if questions[0] != questions[1] and "" not in questions and example.query not in questions:
        return False
    return not all(_is_right_of_its_own(example, *claim) for claim in (earlier, later))


def _is_right_of_its_own(example: Example, domain: str, claim: str) -> bool:
    return any(states(claim, answer) for part in example.parts if part.domain == domain for answer in part.answers)


def _settle(example: Example, earlier: tuple[str, str], later: tuple[str, str]) -> Conflict:
    claims = {earlier[0]: earlier[1], later[0]: later[1]}
    accepted = [answer for part in example.parts for answer in part.answers] or ([example.reference] if example.reference else [])
    supported = [domain for domain, text in claims.items() if any(states(text, answer) or states(answer, text) for answer in accepted)]
    if len(supported) == 1:
        return Conflict(claims=claims, kept=supported[0], rule="the reference supports it")
    if later[0] == example.primary_domain:
        return Conflict(claims=claims, kept=later[0], rule="the expert of the primary domain")
    rule = "the expert of the primary domain" if earlier[0] == example.primary_domain else "the expert named first"
    return Conflict(claims=claims, kept=earlier[0], rule=rule)


def _lay_out(kept: Sequence[tuple[str, str]]) -> tuple[str, tuple[Contribution, ...]]:
    contributions = []
    position = 0
    for domain, sentence in kept:
        contributions.append(Contribution(domain=domain, text=sentence, start=position, end=position + len(sentence)))
        position += len(sentence) + 1
    return " ".join(sentence for _, sentence in kept), tuple(contributions)


def _contributions(text: str, responses: Mapping[str, Response]) -> tuple[Contribution, ...]:
    """Finds the experts' sentences that a model took over word for word."""
    found = []
    for domain, response in responses.items():
        for sentence in sentences(response.text):
            start = text.find(sentence)
            if start >= 0:
                found.append(Contribution(domain=domain, text=sentence, start=start, end=start + len(sentence)))
    return tuple(found)


def _from_strategy(strategy: Strategy, query: str, responses: Mapping[str, Response]) -> Integration:
    outcome = strategy(query, responses)
    if isinstance(outcome, Integration):
        return outcome
    if not isinstance(outcome, str):
        raise DataError("The integration strategy returned neither text nor Integration", received=outcome)
    return Integration(text=outcome, method=getattr(strategy, "__name__", type(strategy).__name__))


def primary_first(task: Task) -> dict[str, Response]:
    """Returns the responses in the order in which they count: that of the primary domain, then the others as they are."""
    primary = task.example.primary_domain
    return dict(sorted(task.responses.items(), key=lambda item: item[0] != primary))


def as_response(domain: str, given: ResponseLike) -> Response:
    """Returns a `Response` for a text, a dict with a `text`, or a response."""
    if isinstance(given, Response):
        return given
    if isinstance(given, str):
        return Response(domain=domain, text=given)
    if isinstance(given, Mapping) and isinstance(given.get("text"), str) and given.keys() <= _FIELDS:
        return Response(**{"domain": domain, **given})
    raise DataError(f"The response of {domain!r} can't be read", received=given, allowed='a text, a Response, or {"text": "..."}')

