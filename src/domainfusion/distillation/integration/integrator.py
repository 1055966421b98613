"""The integrator: responses are read, related, settled, written and verified; by a model, by rules,
or by a strategy of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from domainfusion.checks import check_kind, check_word
from domainfusion.distillation.integration.conflicts import rule_claims, rule_limits, rule_relations
from domainfusion.distillation.integration.merge import render
from domainfusion.distillation.integration.model_reading import ModelReader, ModelRelater
from domainfusion.distillation.integration.planning import (
    ABSTAINED,
    OnDisagreement,
    Plan,
    ledger_of,
    plan_answer,
    word_for_word,
)
from domainfusion.distillation.integration.reading import (
    Claim,
    ResponseLike,
    Task,
    as_response,
    primary_first,
    screened,
    without_cut,
)
from domainfusion.distillation.integration.verifying import (
    NO_VERDICT,
    ModelVerifier,
    Verifier,
    is_nonsense,
    rule_problems,
)
from domainfusion.distillation.integration.writing import (
    REFUSED_TO_WRITE,
    RESERVED,
    Assignment,
    Draft,
    ModelWriter,
    NoDraft,
    absent_in,
    contributions_to,
    require_places,
    writing_prompt,
)
from domainfusion.distillation.text.refusals import Screening
from domainfusion.errors import CapabilityError, ConfigurationError, DataError, TemplateError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import INTEGRATION_PROMPT, fields_of, unindent
from domainfusion.types import (
    Contribution,
    Dropped,
    Example,
    Integration,
    Response,
    Sampling,
)

ANSWER_TOKENS = 1024
"""Tokens after which a model's integrated answer is cut, where nobody says otherwise."""
MOST_CALLS = 7
"""Calls of an integration model for one example, those of the verifier counted: it reads, relates
twice, writes and verifies; and where the answer does not hold, it writes and verifies once more.
"""
CALLS_UNVERIFIED = 4
"""Calls for one example where nothing is verified."""

OnUnverified = Literal["keep", "merge", "reject"]
"""What to do with a model's answer that is not verified: keep it and mark it, merge the responses
instead, or never train on it.
"""
Strategy = Callable[[str, Mapping[str, Response]], str | Integration]
"""A way of your own to integrate: from the query and the responses, primary domain first, to the
answer.
"""

NOT_READ = "the integration model's reading could not be used, so each sentence counts as a claim"
NOT_RELATED = (
    "the integration model did not relate the claims, so the rules looked for conflicts, which see"
    " values and negations alone"
)
NONSENSE = (
    "the integration model's answer has next to nothing of what the experts say, and nobody gave a"
    " verdict on it"
)
MERGED = "the responses were merged instead"


@dataclass(frozen=True)
class _Attempt:
    """A draft, and what is wrong with it: nothing is known where no verdict is given."""

    draft: Draft
    problems: tuple[str, ...]
    is_given: bool

    @property
    def is_verified(self) -> bool:
        """Whether a verifier found nothing wrong."""
        return self.is_given and not self.problems


class ResponseIntegrator:
    """Combines the responses of several domain experts into one answer.

    The experts' claims are read and related to each other; claims that can't both be right are
    settled; what is left is written, and the answer is verified. With a model, the model reads,
    relates, writes and verifies. Without one, rules read and relate: they compare values and
    negations alone, and the answer is made of the experts' own sentences. One response is the
    answer, byte for byte, but for the chatter around it that `screening` removes.

    What settles a conflict, in this order: the reference, where it supports one side; the expert of
    the domain that the point belongs to, or of the primary domain, if somebody named it; the
    majority of the experts, copies counted once; else `on_disagreement`. The order of the responses settles nothing.

    A model finds a conflict for sure where it finds it with the experts in one order and in the
    other. It is called at most `MOST_CALLS` times for an example. Where its reply can't be used,
    the rules stand in, and the ledger says so; so does the merge where it writes no answer. Code,
    tables and lists go into the answer as they are. Whatever a response says is material: an
    instruction in it is a sentence like any other.

    Args:
        integration_model: Reads, relates and writes; None merges by rules.
        prompt_template: What the model is asked to write. `{query}` is filled, and either
            `{responses}` (a block with every response) or a placeholder for each domain; what the
            answer has to state follows. Indentation is removed.
        strategy: A function of your own in place of all that.
        on_disagreement: What to do with a conflict that nothing settles: `report` in the answer
            that the experts disagree, or `abstain` with an empty answer, which is never trained on.
        verify: Whether the model's answer is verified, and repaired once if it does not hold.
        verifier: What verifies: another model, or a `CrossEncoderVerifier`; by default the
            integration model, in a fresh context.
        on_unverified: What to do with an answer that is not verified in the end: `keep` it, marked
            in the ledger; `merge` the responses instead; or `reject` it, so that it is never
            trained on.
        sampling: How the model writes; by default greedily, up to 1024 tokens.
        screening: What is taken for a refusal, whose example is never trained on, and whether
            chatter around an answer is removed; see `Screening`.

    Raises:
        TemplateError: The template has no `{query}`.
        ConfigurationError: Arguments that do not go together, or a strategy that is not a function.
        CapabilityError: The integration model or the verifier can't do what it is for.

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
        verify: bool = True,
        verifier: LanguageModel | Verifier | None = None,
        on_unverified: OnUnverified = "keep",
        sampling: Sampling = Sampling(max_new_tokens=ANSWER_TOKENS),
        screening: Screening = Screening(),
    ) -> None:
        _check_kinds(integration_model, strategy, verifier, screening)
        _check_combination(integration_model, prompt_template, strategy, verifier, verify=verify)
        check_word("on_disagreement", on_disagreement, get_args(OnDisagreement))
        check_word("on_unverified", on_unverified, get_args(OnUnverified))
        self.integration_model = integration_model
        self.prompt_template = _template(prompt_template)
        self.strategy = strategy
        self.on_disagreement = on_disagreement
        self.verify = verify
        self.verifier = verifier
        self.on_unverified = on_unverified
        self.sampling = sampling
        self.screening = screening

    def integrate(
        self,
        query: str,
        responses: Mapping[str, ResponseLike],
        *,
        primary_domain: str = "",
        reference: str | None = None,
        domains: Mapping[str, str] | None = None,
        ask: Ask = ask_directly,
    ) -> Integration:
        """Integrates the responses to one query.

        Args:
            query: What was asked.
            responses: The responses by domain: texts, `Response` objects, or dicts with a `text`.
            primary_domain: The leading domain, whose expert settles what belongs to nobody else.
                Without it the first one speaks first, and settles nothing.
            reference: A right answer, which settles conflicts.
            domains: What the domains are about, from which a model knows whose point a point is.
            ask: How the model is called.

        Returns:
            The integrated answer; `str()` of it is its text.

        Raises:
            DataError: There is no response, they are not a mapping, none of them says anything, one
                is neither text nor response, or none is of the primary domain.
            TemplateError: The template has no place for a response.
        """
        if not isinstance(query, str):
            raise DataError("The query is not a text", received=query, allowed="a text")
        if not isinstance(responses, Mapping):
            raise DataError(
                "The responses have no domains",
                received=responses,
                allowed='{"domain": "its expert\'s answer"}',
            )
        given = {domain: as_response(domain, response) for domain, response in responses.items()}
        if not given:
            raise DataError(
                "There are no responses to integrate",
                received=query,
                fix="give at least one expert's response",
            )
        if not any(response.text.strip() for response in given.values()):
            raise DataError(
                "Every response is empty",
                received=dict.fromkeys(given, ""),
                fix="ask the experts again",
            )
        if primary_domain and primary_domain not in given:
            raise DataError(
                "There is no response of the primary domain",
                received=primary_domain,
                allowed=", ".join(given),
            )
        example = Example(
            query=query, domains=tuple(given), primary_domain=primary_domain, reference=reference
        )
        return self.integrate_all([Task(example, given)], domains=domains, ask=ask)[0]

    def integrate_all(
        self,
        tasks: Sequence[Task],
        *,
        domains: Mapping[str, str] | None = None,
        ask: Ask = ask_directly,
    ) -> list[Integration]:
        """Integrates many examples; every step asks a model for all of them together.

        Args:
            tasks: The examples with their responses.
            domains: What the domains are about.
            ask: How a model is called.
        """
        outcomes: dict[int, Integration] = {}
        several: dict[int, Task] = {}
        cut: dict[int, tuple[Dropped, ...]] = {}
        for place, given in enumerate(tasks):
            if self.strategy is not None:
                outcomes[place] = _from_strategy(
                    self.strategy, given.example.query, primary_first(given)
                )
                continue
            task, left_out = screened(given, self.screening)
            task, broken_off = without_cut(task)
            cut[place] = (*left_out, *broken_off)
            if sum(bool(response.text.strip()) for response in task.responses.values()) <= 1:
                outcomes[place] = _single(task)
            else:
                several[place] = task
                if self.integration_model is not None:
                    require_places(self.prompt_template, task.responses)
        plans = self._plan(list(several.values()), domains or {}, ask)
        to_write: dict[int, Plan] = {}
        for place, plan in zip(several, plans, strict=True):
            if plan.open_points and self.on_disagreement == "abstain":
                outcomes[place] = _abstained(plan)
            elif self.integration_model is None:
                outcomes[place] = _merged(plan)
            else:
                to_write[place] = plan
        if self.integration_model is not None and to_write:
            written = self._write(self.integration_model, list(to_write.values()), ask)
            outcomes |= dict(zip(to_write, written, strict=True))
        return [_with_dropped(outcomes[place], cut.get(place, ())) for place in range(len(tasks))]

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
                f"The prompt template has the placeholder {{{strange[0]}}}, which is not a domain",
                allowed=", ".join(f"{{{name}}}" for name in (*RESERVED, *domains)),
                fix="rename the placeholder",
                field="prompt_template",
            )
        require_places(self.prompt_template, domains)

    # Reading, relating and settling

    def _plan(self, tasks: Sequence[Task], domains: Mapping[str, str], ask: Ask) -> list[Plan]:
        """Reads the responses, relates their claims, and settles what is in conflict."""
        model = self.integration_model
        if model is None or not tasks:
            return [_plan_by_rules(task, rule_claims(task)) for task in tasks]
        read = ModelReader(model).read(tasks, ask=ask)
        claims = [
            rule_claims(task) if found is None else found
            for task, found in zip(tasks, read, strict=True)
        ]
        related = ModelRelater(model, domains).relate(tasks, claims, ask=ask)
        plans = []
        for place, task in enumerate(tasks):
            notes = [] if read[place] is not None else [NOT_READ]
            relations = related[place]
            if relations is None:
                plan = _plan_by_rules(task, claims[place], [*notes, NOT_RELATED])
            else:
                plan = plan_answer(task, claims[place], relations, read_by="model", notes=notes)
            plans.append(plan)
        return plans

    # Writing and verifying

    def _write(self, model: LanguageModel, plans: Sequence[Plan], ask: Ask) -> list[Integration]:
        """Lets the model write the answers, verifies them, and has those that do not hold written
        once more.
        """
        writer = ModelWriter(model, self.prompt_template, self.sampling)
        drafts = [
            self._unless_refused(plan, draft)
            for plan, draft in zip(
                plans, writer.write([Assignment(plan) for plan in plans], ask=ask), strict=True
            )
        ]
        first = self._verified(plans, drafts, ask)
        second: dict[int, _Attempt | NoDraft] = {}
        flawed = {
            place: attempt
            for place, attempt in enumerate(first)
            if isinstance(attempt, _Attempt) and attempt.problems
        }
        if flawed:
            again = writer.write(
                [
                    Assignment(plans[place], each.draft, each.problems)
                    for place, each in flawed.items()
                ],
                ask=ask,
            )
            repaired = self._verified([plans[place] for place in flawed], again, ask)
            second = dict(zip(flawed, repaired, strict=True))
        return [
            self._outcome(model, plan, first[place], second.get(place))
            for place, plan in enumerate(plans)
        ]

    def _unless_refused(self, plan: Plan, draft: Draft | NoDraft) -> Draft | NoDraft:
        """Returns a draft, unless the model refused to write one."""
        if isinstance(draft, NoDraft):
            return draft
        is_refused = self.screening.is_refused(plan.task.example.query, draft.text)
        return REFUSED_TO_WRITE if is_refused else draft

    def _verified(
        self, plans: Sequence[Plan], drafts: Sequence[Draft | NoDraft], ask: Ask
    ) -> list[_Attempt | NoDraft]:
        """Returns each draft with what is wrong with it."""
        if not self.verify:
            return [
                draft if isinstance(draft, NoDraft) else _Attempt(draft, (), is_given=False)
                for draft in drafts
            ]
        given = self.verifier or self.integration_model
        verifier = ModelVerifier(given) if isinstance(given, LanguageModel) else given
        written = {place: draft for place, draft in enumerate(drafts) if isinstance(draft, Draft)}
        outcome: list[_Attempt | NoDraft] = [
            draft if isinstance(draft, NoDraft) else NoDraft("") for draft in drafts
        ]
        if verifier is None or not written:
            return outcome
        verdicts = verifier.verify(
            [plans[place] for place in written], list(written.values()), ask=ask
        )
        for (place, draft), verdict in zip(written.items(), verdicts, strict=True):
            problems = tuple(
                dict.fromkeys([*rule_problems(plans[place], draft), *verdict.problems])
            )
            outcome[place] = _Attempt(draft, problems, is_given=verdict.is_given)
        return outcome

    def _outcome(
        self,
        model: LanguageModel,
        plan: Plan,
        first: _Attempt | NoDraft,
        second: _Attempt | NoDraft | None,
    ) -> Integration:
        """Returns the better one of a model's answers, or what stands in for it."""
        absent = [
            f"the prompt expects a response from {name}, but there is none"
            for name in absent_in(self.prompt_template, plan.task)
        ]
        plan = replace(plan, notes=(*plan.notes, *absent))
        messages = writing_prompt(self.prompt_template, plan)
        if isinstance(first, NoDraft):
            return replace(
                _merged(plan, first.reason, MERGED), messages=messages, model=model.fingerprint
            )
        best = first
        if isinstance(second, _Attempt) and len(second.problems) <= len(first.problems):
            best = second
        if self.verify and not best.is_given and is_nonsense(plan, best.draft):
            return replace(
                _merged(plan, NONSENSE, MERGED), messages=messages, model=model.fingerprint
            )
        ledger = ledger_of(plan, contributions_to(best.draft, plan))
        if self.verify and not best.is_verified:
            problems = best.problems or (NO_VERDICT,)
            if self.on_unverified == "merge":
                merged = _merged(
                    plan, "the integration model's answer was not verified", *problems, MERGED
                )
                return replace(merged, messages=messages, model=model.fingerprint)
            ledger = replace(
                ledger,
                verdict="rejected" if self.on_unverified == "reject" else "unverified",
                problems=problems,
            )
        elif self.verify:
            was_wrong = [f"repaired: {problem}" for problem in first.problems]
            ledger = replace(
                ledger,
                verdict="verified" if best is first else "repaired",
                notes=(*ledger.notes, *was_wrong),
            )
        return Integration(
            text=best.draft.text,
            method="model",
            ledger=ledger,
            messages=messages,
            model=model.fingerprint,
            finish_reason=best.draft.finish_reason,
        )


def _plan_by_rules(task: Task, claims: Sequence[Claim], notes: Sequence[str] = ()) -> Plan:
    return plan_answer(
        task, claims, rule_relations(task, claims), notes=(*notes, *rule_limits(task))
    )


def _single(task: Task) -> Integration:
    """Returns the one answer that there is, byte for byte."""
    said = [response for response in task.responses.values() if response.text.strip()] or list(
        task.responses.values()
    )
    response = said[0]
    whole = Contribution(
        domain=response.domain, text=response.text, start=0, end=len(response.text)
    )
    ledger = ledger_of(plan_answer(task, (), ()), (whole,) if response.text.strip() else ())
    is_cut = response.finish_reason == "length"
    ledger = replace(ledger, read_by="")
    return Integration(
        text=response.text,
        method="single",
        ledger=ledger,
        finish_reason="length" if is_cut else "stop",
    )


def _merged(plan: Plan, *notes: str) -> Integration:
    """Returns the answer that the rules write from a plan."""
    plan = word_for_word(plan)
    text, contributions = render(plan)
    is_cut = any(response.finish_reason == "length" for response in plan.task.responses.values())
    ledger = ledger_of(replace(plan, notes=(*plan.notes, *notes)), contributions)
    return Integration(
        text=text, method="merge", ledger=ledger, finish_reason="length" if is_cut else "stop"
    )


def _with_dropped(outcome: Integration, dropped: Sequence[Dropped]) -> Integration:
    ledger = replace(outcome.ledger, dropped=(*outcome.ledger.dropped, *dropped))
    return replace(outcome, ledger=ledger) if dropped else outcome


def _abstained(plan: Plan) -> Integration:
    left_out = {claim.id: plan.left_out.get(claim.id, ABSTAINED) for claim in plan.claims}
    return Integration(text="", method="merge", ledger=ledger_of(replace(plan, left_out=left_out)))


def _check_kinds(model: object, strategy: object, verifier: object, screening: object) -> None:
    """Refuses an argument that can't do what it is for."""
    if model is not None and not isinstance(model, LanguageModel):
        raise CapabilityError(
            "The integration model can't answer",
            received=model,
            allowed="a model with generate(...)",
        )
    if verifier is not None and not isinstance(verifier, LanguageModel | Verifier):
        raise CapabilityError(
            "The verifier can't verify",
            received=verifier,
            allowed="a model, or an object with verify(...)",
        )
    if strategy is not None and not callable(strategy):
        raise ConfigurationError(
            "The strategy is not a function",
            received=strategy,
            allowed="a function of query and responses",
        )
    check_kind("screening", screening, Screening)


def _check_combination(
    model: LanguageModel | None,
    template: str | None,
    strategy: Strategy | None,
    verifier: LanguageModel | Verifier | None,
    *,
    verify: bool,
) -> None:
    """Refuses arguments that do not go together."""
    if strategy is not None and model is not None:
        raise ConfigurationError(
            "Give an integration model or a strategy, not both", received=strategy
        )
    if template is not None and model is None:
        raise ConfigurationError(
            "A prompt template needs an integration_model to read it", received=template
        )
    if verifier is not None and (model is None or not verify):
        raise ConfigurationError(
            "There is nothing for the verifier to verify",
            received=verifier,
            fix=(
                "give an integration_model, or leave the verifier out"
                if model is None
                else "set verify=True"
            ),
            field="verifier",
        )


def _template(given: str | None) -> str:
    """Returns the prompt template without indentation; it has a place for the query."""
    template = unindent(INTEGRATION_PROMPT if given is None else given)
    if "query" not in fields_of(template):
        raise TemplateError(
            "The prompt template has no place for the query",
            received=template,
            fix="write {query} where it belongs",
            field="prompt_template",
        )
    return template


def _from_strategy(
    strategy: Strategy, query: str, responses: Mapping[str, Response]
) -> Integration:
    outcome = strategy(query, responses)
    if isinstance(outcome, Integration):
        return outcome
    if not isinstance(outcome, str):
        raise DataError(
            "The integration strategy returned neither text nor Integration", received=outcome
        )
    # A function has a name; an object that is called is known by its class.
    return Integration(text=outcome, method=getattr(strategy, "__name__", type(strategy).__name__))
