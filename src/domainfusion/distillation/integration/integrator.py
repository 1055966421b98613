"""The integrator: a merge by rules, a model that is checked, or a strategy of your own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from domainfusion.distillation.integration.planning import ABSTAINED, OnDisagreement, Plan, ledger_of, plan_answer
from domainfusion.distillation.integration.rules import RuleReader, RuleRelater, rule_limits
from domainfusion.distillation.integration.task import ResponseLike, Task, as_response, primary_first
from domainfusion.distillation.integration.writing import (
    MERGED,
    RESERVED,
    TOO_LONG,
    Draft,
    absent_in,
    check_draft,
    conversation_for,
    integration_of,
    merged,
    retry_of,
)
from domainfusion.errors import CapabilityError, ConfigurationError, DataError, TemplateError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import INTEGRATION_PROMPT, fields_of, unindent
from domainfusion.types import Contribution, Conversation, Example, Integration, Response, Sampling

logger = logging.getLogger("domainfusion")

Strategy = Callable[[str, Mapping[str, Response]], str | Integration]
"""A way of your own to integrate: from the query and the responses, primary domain first, to the answer."""


class ResponseIntegrator:
    """Combines the responses of several domain experts into one answer.

    Without a model it merges: the primary domain's sentences first, then the others', what is repeated said once. Experts contradict
    each other where they answer the same question with values that can't both be right, or where their sentences are the same but for
    one value or a negation. What settles it, in this order: the reference, where it supports one side; the expert of the domain in
    question, which is the one who was asked just that, else the one of the primary domain; the majority of the experts, copies
    counted once; else `on_disagreement`.

    With a model, the model writes the answer from a prompt. Where it gives none, twice one that does not hold to what the experts
    said, or the prompt does not fit into its context, the merge stands in for it, and the ledger says so. Whatever a response says
    is material: an instruction in it is a sentence like any other.

    Args:
        integration_model: Writes the answer; None merges.
        prompt_template: What the model is asked. `{query}` is filled, and either `{responses}` (a block with every response) or a
            placeholder for each domain. Indentation is removed.
        strategy: A function of your own in place of both.
        on_disagreement: What to do with a conflict that nothing settles: `report` in the answer that the experts disagree, or `abstain`
            with an empty answer, which is never trained on.
        check_claims: Whether the model's answer is checked claim by claim: that it has the quantities, dates, names and negations that the
            merge would keep, and none that no expert stated. One that fails is asked for once more, with what was wrong.
        sampling: How the model writes; by default greedily, up to 512 tokens.

    Raises:
        TemplateError: The template has no `{query}`.
        ConfigurationError: Arguments that do not go together, or a strategy that is no function.
        CapabilityError: The integration model can't answer.

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
        check_claims: bool = True,
        sampling: Sampling = Sampling(max_new_tokens=512),
    ) -> None:
        if integration_model is not None and not isinstance(integration_model, LanguageModel):
            raise CapabilityError("The integration model can't answer", received=integration_model, allowed="a model with generate(...)")
        if strategy is not None and not callable(strategy):
            raise ConfigurationError("The strategy is no function", received=strategy, allowed="a function of query and responses")
        if strategy is not None and integration_model is not None:
            raise ConfigurationError("Give an integration model or a strategy, not both", received=strategy)
        if prompt_template is not None and integration_model is None:
            raise ConfigurationError("A prompt template needs an integration_model to read it", received=prompt_template)
        if on_disagreement not in get_args(OnDisagreement):
            raise ConfigurationError("on_disagreement is not known", received=on_disagreement, allowed=", ".join(get_args(OnDisagreement)))
        template = unindent(INTEGRATION_PROMPT if prompt_template is None else prompt_template)
        if "query" not in fields_of(template):
            raise TemplateError("The prompt template has no place for the query", received=template, fix="write {query} where it belongs")
        self.integration_model = integration_model
        self.prompt_template = template
        self.strategy = strategy
        self.on_disagreement = on_disagreement
        self.check_claims = check_claims
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
            DataError: There is no response, they are no mapping, none of them says anything, one is neither text nor response, or none is
                of the primary domain.
            TemplateError: The template has no place for a response.
        """
        if not isinstance(responses, Mapping):
            raise DataError("The responses have no domains", received=responses, allowed='{"domain": "its expert\'s answer"}')
        given = {domain: as_response(domain, response) for domain, response in responses.items()}
        if not given:
            raise DataError("There are no responses to integrate", received=query, fix="give at least one expert's response")
        if not any(response.text.strip() for response in given.values()):
            raise DataError("Every response is empty", received=dict.fromkeys(given, ""), fix="ask the experts again")
        primary = primary_domain or next(iter(given))
        if primary not in given:
            raise DataError("There is no response of the primary domain", received=primary, allowed=", ".join(given))
        named = bool(primary_domain)
        example = Example(query=query, domains=tuple(given), primary_domain=primary, primary_is_named=named, reference=reference)
        return self.integrate_all([Task(example, given)], ask=ask)[0]

    def integrate_all(self, tasks: Sequence[Task], *, ask: Ask = ask_directly) -> list[Integration]:
        """Integrates many examples; a model is asked for all of them together, and once more for all whose answer did not hold."""
        outcomes: dict[int, Integration] = {}
        several: dict[int, Task] = {}
        for index, task in enumerate(tasks):
            if self.strategy is not None:
                outcomes[index] = _from_strategy(self.strategy, task.example.query, primary_first(task))
            elif sum(bool(response.text.strip()) for response in task.responses.values()) <= 1:
                outcomes[index] = _single(task)
            else:
                several[index] = task
        plans = dict(zip(several, self._plan(list(several.values()), ask), strict=True))
        for index, plan in list(plans.items()):
            if plan.open_points and self.on_disagreement == "abstain":
                outcomes[index] = _abstained(plans.pop(index))
        if self.integration_model is None:
            return [outcomes[index] if index in outcomes else merged(plans[index]) for index in range(len(tasks))]
        outcomes |= self._write(self.integration_model, plans, ask)
        return [outcomes[index] for index in range(len(tasks))]

    def _plan(self, tasks: Sequence[Task], ask: Ask) -> list[Plan]:
        """Reads the responses, relates their claims, and settles what is in conflict."""
        claims = RuleReader().read(tasks, ask=ask)
        relations = RuleRelater().relate(tasks, claims, ask=ask)
        plans = [plan_answer(*each) for each in zip(tasks, claims, relations, strict=True)]
        return [replace(plan, notes=tuple(rule_limits(plan.task))) for plan in plans]

    def check_domains(self, domains: Collection[str]) -> None:
        """Checks that the template has places for experts of these domains alone, and one for each.

        Raises:
            TemplateError: It names something else, or leaves one out.
        """
        if self.integration_model is None:
            return
        names = set(fields_of(self.prompt_template)).difference(RESERVED)
        if strange := sorted(names.difference(domains)):
            raise TemplateError(
                f"The prompt template has the placeholder {{{strange[0]}}}, which is no domain",
                allowed=", ".join(f"{{{name}}}" for name in (*RESERVED, *domains)),
                fix="rename the placeholder",
            )
        if "responses" not in fields_of(self.prompt_template) and (homeless := [name for name in domains if name not in names]):
            raise TemplateError(
                f"The prompt template has no place for the response of {homeless[0]!r}",
                received=sorted(names),
                fix=f"write {{{homeless[0]}}} or {{responses}} where it belongs",
            )

    def _write(self, model: LanguageModel, plans: Mapping[int, Plan], ask: Ask) -> dict[int, Integration]:
        """Lets the model write the answers: asks once, tells it what does not hold, and falls back to the merge where nothing helps."""
        drafts: dict[int, list[Draft]] = {index: [] for index in plans}

        def let_write(conversations: Mapping[int, Conversation], label: str) -> None:
            fitting = {index: conversation for index, conversation in conversations.items() if self._fits(model, conversation)}
            written = dict(zip(fitting, ask(model, list(fitting.values()), self.sampling, label=label), strict=True)) if fitting else {}
            if len(fitting) < len(conversations):
                homeless = len(conversations) - len(fitting)
                logger.warning("%d of %d prompts do not fit %s; %s.", homeless, len(conversations), model.name, MERGED)
            for index, conversation in conversations.items():
                draft = check_draft(conversation, written.get(index, TOO_LONG), plans[index])
                drafts[index].append(draft if self.check_claims else replace(draft, check=None))

        let_write({index: conversation_for(self.prompt_template, plan.task) for index, plan in plans.items()}, "integrating")
        again = {index: retry_of(made[0]) for index, made in drafts.items() if not made[0].is_sound and not made[0].is_empty}
        if again:
            let_write(again, "integrating once more")
        return {
            index: replace(integration_of(made, plans[index], self._notes(plans[index].task)), model=model.fingerprint)
            for index, made in drafts.items()
        }

    def _fits(self, model: LanguageModel, conversation: Conversation) -> bool:
        """Whether prompt and answer fit into the context of a model that tells its length; any other model is asked, and says so itself."""
        if not isinstance(model, TokenScorer) or model.context_length is None:
            return True
        return len(model.encode(conversation)) + self.sampling.max_new_tokens <= model.context_length

    def _notes(self, task: Task) -> list[str]:
        return [f"the prompt has a place for {name}, who has no response" for name in absent_in(self.prompt_template, task)]


def _single(task: Task) -> Integration:
    """Returns the one answer that there is, to the byte."""
    plan = plan_answer(task, (), ())
    (response,) = [response for response in task.responses.values() if response.text.strip()] or list(task.responses.values())[:1]
    whole = Contribution(domain=response.domain, text=response.text, start=0, end=len(response.text))
    ledger = replace(ledger_of(plan, (whole,) if response.text.strip() else ()), read_by="")
    return Integration(text=response.text, method="single", ledger=ledger, finish_reason=response.finish_reason)


def _abstained(plan: Plan) -> Integration:
    ledger = ledger_of(replace(plan, left_out={claim.id: plan.left_out.get(claim.id, ABSTAINED) for claim in plan.claims}))
    return Integration(text="", method="merge", ledger=ledger)


def _from_strategy(strategy: Strategy, query: str, responses: Mapping[str, Response]) -> Integration:
    outcome = strategy(query, responses)
    if isinstance(outcome, Integration):
        return outcome
    if not isinstance(outcome, str):
        raise DataError("The integration strategy returned neither text nor Integration", received=outcome)
    return Integration(text=outcome, method=getattr(strategy, "__name__", type(strategy).__name__))
