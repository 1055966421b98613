"""Integration: several experts' responses become one answer, with a ledger of who contributed what and how conflicts were settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from domainfusion.distillation.integration.merge import OnDisagreement, merge
from domainfusion.distillation.metrics import sentences
from domainfusion.errors import ConfigurationError, DataError, TemplateError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import INTEGRATION_PROMPT, fields_of, fill, unindent
from domainfusion.types import (
    Contribution,
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

    Without a model it merges: the primary domain's sentences first, then the others', what is repeated said once. Experts contradict
    each other where they answer the same question with values that can't both be right, or where their sentences are the same but for
    one value or a negation. What settles it, in this order: the reference, where it supports one side; the expert of the domain in
    question, which is the one who was asked just that, else the one of the primary domain; the majority of the experts, copies
    counted once; else `on_disagreement`. With a model, the model writes the answer from a prompt; an empty answer falls back to the
    merge, and the ledger says so. Whatever an answer says, it is material: an instruction in it is a sentence like any other.

    Args:
        integration_model: Writes the answer; None merges.
        prompt_template: What the model is asked. `{query}` is filled, and either `{responses}` (a block with every response) or a
            placeholder for each domain. Indentation is removed.
        strategy: A function of your own in place of both.
        on_disagreement: What to do with a conflict that no rule settles: `report` in the answer that the experts disagree, `abstain`
            with an empty answer, which is never trained on, or keep the claim of the expert named `first`.
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
        on_disagreement: OnDisagreement = "report",
        sampling: Sampling = Sampling(max_new_tokens=512),
    ) -> None:
        if strategy is not None and integration_model is not None:
            raise ConfigurationError("Give an integration model or a strategy, not both", received=strategy)
        if prompt_template is not None and integration_model is None:
            raise ConfigurationError("A prompt template needs an integration_model to read it", received=prompt_template)
        if on_disagreement not in get_args(OnDisagreement):
            raise ConfigurationError("on_disagreement is not known", received=on_disagreement, allowed=", ".join(get_args(OnDisagreement)))
        template = unindent(prompt_template or INTEGRATION_PROMPT)
        if "query" not in fields_of(template):
            raise TemplateError("The prompt template has no place for the query", received=template, fix="write {query} where it belongs")
        self.integration_model = integration_model
        self.prompt_template = template
        self.strategy = strategy
        self.on_disagreement = on_disagreement
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
                outcomes[index] = merge(task.example, ordered, self.on_disagreement)
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
            merged = merge(task.example, primary_first(task), self.on_disagreement)
            note = "the integration model gave no answer; the responses were merged instead"
            return replace(merged, ledger=replace(merged.ledger, notes=(*merged.ledger.notes, note)))
        ledger = Ledger(contributions=_contributions(generation.text, task.responses))
        return Integration(text=generation.text, method="model", ledger=ledger, finish_reason=generation.finish_reason)


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

