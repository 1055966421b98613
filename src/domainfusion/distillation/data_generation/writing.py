"""What the generators share that let a model write: wanted questions, rounds of asking, checks, and
counts.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Self, get_args

from domainfusion.checks import check_count, check_kind, check_seed, check_word
from domainfusion.distillation.data_generation.generator import (
    DataGenerator,
    Focus,
    Generated,
    Seeds,
    Variety,
    check_domains,
    list_topics,
)
from domainfusion.distillation.data_generation.replies import (
    WrittenQuestion,
    find_questions,
    without_thoughts,
)
from domainfusion.distillation.duplicates import Duplicates
from domainfusion.distillation.metrics import normalize, states
from domainfusion.errors import CapabilityError, ConfigurationError, DataError
from domainfusion.models.base import LanguageModel, SchemaModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import (
    ONE_QUESTION,
    QUESTION_JSON,
    QUESTION_LINES,
    SUB_QUESTION_JSON,
    fill,
)
from domainfusion.types import Example, Generation, Sampling, Source, user

logger = logging.getLogger("domainfusion")

Check = Callable[[Example], "str | Example | None"]
"""Looks at a new example and returns why it is rejected, or None.

It may also return the example with more in it, such as the parts of a right answer."""

ReplyFormat = Literal["auto", "lines", "json"]
"""How a model is asked to write questions: one a line, or JSON; `auto` takes JSON where the model
can be held to a schema.
"""

QUESTION_SAMPLING = Sampling(max_new_tokens=96, temperature=0.8, top_p=0.95)
"""How a model writes a question where nobody says otherwise: with some variety."""
QUESTIONS_PER_JSON_REPLY = 5
FEWEST_WORDS, MOST_WORDS = 4, 80
REPLIES_SHOWN, LONGEST_SHOWN = 3, 160
"""How many replies without a question are shown, and how many characters of each."""
DOMAIN_CHECK = "domain_check"
"""Key of an example's metadata: `passed` where its domains were confirmed, `no verdict` where the
judge gave none.
"""

JUDGE_TOKENS = 32
"""Tokens after which a judge's reply is cut."""

# Scripts that put no spaces between words: Han, kana; Thai, Lao, Burmese, Khmer. An average word of
# the first has about 1.5 characters, of the second about 4.
_SHORT_WORDS = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
)
# Thai and Lao, Burmese, Khmer.
_LONG_WORDS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")

_TEXT = {"type": "string"}
_SUB_QUESTIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"domain": _TEXT, "question": _TEXT},
        "required": ["domain", "question"],
        "additionalProperties": False,
    },
}


@dataclass(frozen=True)
class Slot:
    """An example that is wanted: its domains, primary first, and the domain that it should look
    like.
    """

    domains: tuple[str, ...]
    apparent: str = ""


def mixed(*parts: Sequence[Slot]) -> list[Slot]:
    """Returns all in one order whose every beginning holds its share of each: what is asked first
    is balanced, should the rest not be.
    """
    places = [
        ((place + 0.5) / len(part), number)
        for number, part in enumerate(parts)
        for place in range(len(part))
    ]
    streams = [iter(part) for part in parts]
    return [next(streams[number]) for _, number in sorted(places)]


class CheckedCandidate(NamedTuple):
    """The outcome of a candidate that passed the common checks: as it is kept, why it is not, and
    whether it was judged at all.
    """

    example: Example
    problem: str | None = None
    judged: bool = False


@dataclass
class _Work:
    """What is wanted, from which model and how it is asked for, and the outcome so far:
    accepted examples by slot, and counts.
    """

    slots: Sequence[Slot]
    writer: LanguageModel
    seeds: Seeds
    duplicates: Duplicates
    accepted: dict[int, Example] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    judged: int = 0
    passed: int = 0
    has_questions: bool = False
    unreadable: list[str] = field(default_factory=list)

    @property
    def crossing(self) -> tuple[int, int]:
        """How many cross-domain examples are wanted, and how many are there."""
        places = [index for index, slot in enumerate(self.slots) if len(slot.domains) > 1]
        return len(places), sum(index in self.accepted for index in places)

    def wanted(self, budget: int | None) -> list[int]:
        """Returns the slots that are still to be filled, as many as may still be asked for."""
        left = [index for index in range(len(self.slots)) if index not in self.accepted]
        return left if budget is None else left[: budget - self.asked]

    def outcome(self) -> Generated:
        """Returns the accepted examples."""
        examples = tuple(self.accepted[index] for index in sorted(self.accepted))
        return Generated(
            examples,
            self.asked,
            dict(self.rejected),
            len(self.slots),
            self.judged,
            self.passed,
            wanted_cross_domain=self.crossing[0],
            replies=() if self.has_questions else tuple(self.unreadable),
        )


@dataclass(frozen=True, kw_only=True)
class WritingSettings:
    """How a model is asked for questions, and which of them are kept.

    Args:
        sampling: How the model writes, `max_new_tokens` for each question; by default 96 tokens at
            temperature 0.8.
        reply_format: `json` or `lines`, one question a line; by default JSON where the model can be
            held to a schema (`SchemaModel`).
        sub_questions: Let the model also write, in JSON, what the expert of each domain of a
            cross-domain question is asked.
        questions_per_reply: How many questions of one kind a prompt asks for at most; by default 5
            in JSON and 1 in lines. What a reply holds beyond that is not read.
        variety: What the prompts differ in; by default topics, personas, difficulties and forms.
        max_rounds: How often at most a question is asked for.
        max_questions: How many questions are asked for at most, over all rounds; None for no such
            limit.
        duplicate_threshold: Share of content words from which on two questions are near-duplicates;
            see `Duplicates`.
        check: A check of your own: returns why an example is rejected, None, or the example with
            more in it, such as its `parts`.

    Raises:
        ConfigurationError: A number is out of range, a word is not known, or `check` is not a
            function.
    """

    sampling: Sampling = QUESTION_SAMPLING
    reply_format: ReplyFormat = "auto"
    sub_questions: bool = False
    questions_per_reply: int | None = None
    variety: Variety = field(default_factory=Variety)
    max_rounds: int = 5
    max_questions: int | None = None
    duplicate_threshold: float = 0.8
    check: Check | None = None

    def __post_init__(self) -> None:
        check_kind("sampling", self.sampling, Sampling)
        check_kind("variety", self.variety, Variety)
        if self.check is not None and not callable(self.check):
            raise ConfigurationError(
                "The check is not a function",
                received=self.check,
                allowed="a function of one argument",
                field="check",
            )
        check_count("questions_per_reply", self.questions_per_reply, optional=True)
        check_count("max_rounds", self.max_rounds)
        check_count("max_questions", self.max_questions, optional=True)
        check_word("reply_format", self.reply_format, get_args(ReplyFormat))
        Duplicates(self.duplicate_threshold)


def _check_kinds(model: object, judge: object, classifier: object, writing: object) -> None:
    """Refuses an argument that can't do what it is for."""
    for who, given, what in (
        ("generation model", model, "write"),
        ("judge", judge, "answer"),
    ):
        if given is not None and not isinstance(given, LanguageModel):
            raise CapabilityError(
                f"The {who} can't {what}", received=given, allowed="a model with generate(...)"
            )
    if classifier is not None and not callable(classifier):
        raise ConfigurationError(
            "The classifier is not a function",
            received=classifier,
            allowed="a function of one argument",
        )
    check_kind("writing", writing, WritingSettings)


class WrittenByModel(DataGenerator):
    """Base of the generators that ask a model."""

    source: Source
    domains: dict[str, str]
    generation_model: LanguageModel | None
    judge: LanguageModel | None
    has_more = True

    def __init__(
        self,
        generation_model: LanguageModel | None,
        domains: Mapping[str, str] | None,
        num_examples: int,
        *,
        judge: LanguageModel | None,
        classifier: Callable[..., Any] | None,
        verify: bool,
        writing: WritingSettings,
        seed: int,
    ) -> None:
        _check_kinds(generation_model, judge, classifier, writing)
        if not verify and (judge is not None or classifier is not None):
            raise ConfigurationError(
                "Judge and classifier need verify",
                received="verify=False",
                fix="leave out judge and classifier, or verify",
                field="classifier" if judge is None else "judge",
            )
        check_count("num_examples", num_examples)
        check_seed(seed)
        writes_json = writing.reply_format == "json" or (
            writing.reply_format == "auto" and isinstance(generation_model, SchemaModel)
        )
        if writing.sub_questions and not writes_json:
            raise ConfigurationError(
                "Sub-questions need replies in JSON",
                received=f"reply_format={writing.reply_format!r}",
                fix="set reply_format='json'",
                field="sub_questions",
            )
        self.generation_model = generation_model
        self.domains = check_domains({} if domains is None else domains)
        self.num_examples = num_examples
        self.sampling = writing.sampling
        self.reply_format: ReplyFormat = "json" if writes_json else "lines"
        self.questions_per_reply = writing.questions_per_reply or (
            QUESTIONS_PER_JSON_REPLY if writes_json else 1
        )
        self.sub_questions = writing.sub_questions
        self.variety = writing.variety
        self.variety.check_topics(self.domains)
        self.max_rounds = writing.max_rounds
        self.max_questions = writing.max_questions
        self.duplicate_threshold = writing.duplicate_threshold
        self.check = writing.check
        self.judge = judge or generation_model
        self.classifier = classifier
        self.verify = verify
        self.seed = seed

    def written_by(self, model: LanguageModel) -> Self:
        """Returns this generator; where no model was given to it, a copy that `model` writes and
        judges for.
        """
        if self.generation_model is not None:
            return self
        written = copy(self)
        written.generation_model = model
        written.judge = self.judge or model
        return written

    def _model(self) -> LanguageModel:
        if self.generation_model is None:
            raise ConfigurationError(
                "No model writes the questions",
                received="generation_model=None",
                fix=(
                    "give generation_model=..., or give this generator to a Distiller: the student,"
                    " before it is trained, writes them there"
                ),
            )
        return self.generation_model

    def generate(self, ask: Ask = ask_directly, *, focus: Focus | None = None) -> Generated:
        """Asks the model in rounds until there are enough examples, or what may be asked is spent;
        see `DataGenerator.generate`.

        Args:
            ask: How a model is called.
            focus: What the examples are to need, by its weights; questions like its earlier ones
                are asked for again in other words.
        """
        slots = self._slots() if focus is None else self._focused_slots(focus)
        if not slots:
            return Generated((), wanted=0)
        topics = list_topics(self._model(), self.domains, self.variety, self.sampling, ask)
        begin = (
            0 if focus is None else focus.round * self.max_rounds
        )  # no two times draw with the same seeds
        seeds = Seeds(self.variety, topics, self.seed + 1000 * begin)
        work = _Work(slots, self._writer(), seeds, Duplicates(self.duplicate_threshold))
        for example in () if focus is None else focus.earlier:
            work.duplicates.add(example)
        for number in range(begin, begin + self.max_rounds):
            wanted = work.wanted(self.max_questions)
            if not wanted:
                break
            self._keep(work, self._ask_for(work, wanted, self._sampling(number), ask), ask)
        self._warn(work)
        return work.outcome()

    def _warn(self, work: _Work) -> None:
        """Logs where fewer examples are there than wanted, and where their share across domains is
        another.
        """
        wanted, found = len(work.slots), len(work.accepted)
        if found == wanted:
            return
        if not work.has_questions and work.unreadable:
            logger.warning(
                "%s wrote no question at all. %s",
                self._model().name,
                no_questions(work.unreadable),
            )
        spent = f"{work.asked} asked for, as many as max_questions or max_rounds allow"
        reasons = ", ".join(
            [spent, *(f"{count} {reason}" for reason, count in work.rejected.most_common())]
        )
        logger.warning("%s of %s %s questions are there: %s", found, wanted, self.source, reasons)
        crossing_wanted, crossing = work.crossing
        # A share can't be met more closely than by half an example.
        if found and abs(crossing - crossing_wanted * found / wanted) > 0.5:
            logger.warning(
                "%d of these %d need several domains, %.0f %% where %.0f %% were asked for.",
                crossing,
                found,
                100 * crossing / found,
                100 * crossing_wanted / wanted,
            )

    @abstractmethod
    def _slots(self) -> list[Slot]: ...

    @abstractmethod
    def _focused_slots(self, focus: Focus) -> list[Slot]:
        """Returns the slots of a focus: `num_examples` of them, or none where it wants nothing that
        this generator makes.
        """

    @abstractmethod
    def _task(self, slot: Slot, count: str) -> str:
        """Returns what the prompt asks for, without seeds and form."""

    def _verdicts(self, examples: Sequence[Example], ask: Ask) -> list[CheckedCandidate]:
        """Judges what passed the common checks in one round; by default there is nothing more to
        judge.
        """
        return [CheckedCandidate(example) for example in examples]

    def _ask_for(
        self, work: _Work, wanted: Sequence[int], sampling: Sampling, ask: Ask
    ) -> dict[int, Example]:
        """One round: asks for what is wanted, several questions of a kind in one prompt, and
        returns what passes the common checks.
        """
        calls = _in_groups(work.slots, wanted, self.questions_per_reply)
        prompts = [user(self._prompt(work.slots[call[0]], len(call), work.seeds)) for call in calls]
        replies = ask(work.writer, prompts, sampling, label=f"{self.source} questions")
        work.asked += len(wanted)
        candidates: dict[int, Example] = {}
        for call, reply in zip(calls, replies, strict=True):
            for index, question in itertools.zip_longest(call, _questions_in(reply)[: len(call)]):
                if question is None:
                    work.rejected[_nothing(reply)] += 1
                    if len(work.unreadable) < REPLIES_SHOWN:
                        work.unreadable.append(_shown(reply))
                    continue
                work.has_questions = True
                found = self._checked(
                    self._to_example(work.slots[index], question), work.duplicates
                )
                if isinstance(found, str):
                    work.rejected[found] += 1
                else:
                    work.duplicates.add(found)
                    candidates[index] = found
        return candidates

    def _keep(self, work: _Work, candidates: Mapping[int, Example], ask: Ask) -> None:
        """Judges what passed the common checks, and keeps what passes."""
        for index, verdict in zip(
            candidates, self._verdicts(list(candidates.values()), ask), strict=True
        ):
            work.judged += verdict.judged
            work.passed += verdict.judged and not verdict.problem
            if verdict.problem:
                work.rejected[verdict.problem] += 1
            else:
                work.accepted[index] = verdict.example

    def _writer(self) -> LanguageModel:
        model = self._model()
        if self.reply_format == "json" and isinstance(model, SchemaModel):
            return model.with_json_schema(_schema(self.sub_questions))
        return model

    def _sampling(self, number: int) -> Sampling:
        seed = self.sampling.seed + self.seed + 1000 * number
        return replace(
            self.sampling,
            seed=seed,
            max_new_tokens=self.sampling.max_new_tokens * self.questions_per_reply,
        )

    def _prompt(self, slot: Slot, count: int, seeds: Seeds) -> str:
        counted = "one question" if count == 1 else f"{count} questions, each about something else,"
        if self.reply_format == "json":
            form = (
                SUB_QUESTION_JSON if self.sub_questions and len(slot.domains) > 1 else QUESTION_JSON
            )
        else:
            form = ONE_QUESTION if count == 1 else QUESTION_LINES
        number = "one question" if count == 1 else f"{count} questions"
        ending = fill(form, {"count": number, "domains": " and ".join(slot.domains)})
        return "\n".join(
            part for part in (self._task(slot, counted), seeds.draw(slot.domains), ending) if part
        )

    def _to_example(self, slot: Slot, question: WrittenQuestion) -> Example:
        wants_parts = self.sub_questions and len(slot.domains) > 1
        known = (
            {
                domain: text
                for domain, text in question.sub_questions.items()
                if domain in slot.domains
            }
            if wants_parts
            else {}
        )
        return Example(
            query=question.text,
            domains=slot.domains,
            source=self.source,
            sub_questions=known,
            apparent_domain=slot.apparent,
        )

    def _checked(self, example: Example, duplicates: Duplicates) -> Example | str:
        """Returns a candidate as it passed the common checks, or why it did not."""
        words = count_words(example.query)
        if not FEWEST_WORDS <= words <= MOST_WORDS:
            return "too short" if words < FEWEST_WORDS else "too long"
        if likeness := duplicates.find(example):
            return likeness
        if any(
            normalize(description) in normalize(example.query)
            for description in self.domains.values()
        ):
            return "repeats the prompt"
        found = self.check(example) if self.check else None
        if found is None or isinstance(found, Example):
            return found or example
        if not isinstance(found, str) or not found:
            raise DataError(
                "The check returned neither a reason nor an example",
                received=found,
                allowed="a text that says why the question is rejected, the example, or None",
            )
        return found

    def _ask_judge(self, template: str, examples: Sequence[Example], ask: Ask) -> list[str]:
        """Asks the judge about each example and returns its replies."""
        subjects = "\n".join(
            f"- {name}: {description}" for name, description in self.domains.items()
        )
        values = {"subjects": subjects, "domains": ", ".join(self.domains)}
        prompts = [user(fill(template, {**values, "query": example.query})) for example in examples]
        replies = ask(
            self.judge or self._model(),
            prompts,
            Sampling(max_new_tokens=JUDGE_TOKENS),
            label="judging questions",
        )
        return [without_thoughts(reply.text) for reply in replies]

    def _named_in(self, reply: str) -> list[str]:
        """Returns the domains that a judge's reply names; "tax law" does not name "law"."""
        found = []
        for name in sorted(self.domains, key=len, reverse=True):
            if states(reply, name):
                found.append(name)
                # Taken out as a word of its own, so that no shorter name is found in it.
                reply = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " ", reply, flags=re.IGNORECASE)
        return [name for name in self.domains if name in found]


def noted(example: Example, has_verdict: bool) -> Example:
    """Returns an example whose metadata say whether its domains were confirmed."""
    return replace(
        example,
        metadata={**example.metadata, DOMAIN_CHECK: "passed" if has_verdict else "no verdict"},
    )


def count_words(text: str) -> int:
    """Returns about how many words a text has, in scripts with and without spaces.

    Example:
        >>> count_words("Where is the Seine?"), count_words("塞纳河在哪个国家？")
        (4, 5)
    """
    short, long = len(_SHORT_WORDS.findall(text)), len(_LONG_WORDS.findall(text))
    spaced = _LONG_WORDS.sub(" ", _SHORT_WORDS.sub(" ", text)) if short or long else text
    return sum(bool(re.search(r"\w", word)) for word in spaced.split()) + math.floor(
        short / 1.5 + long / 4
    )


def no_questions(replies: Sequence[str]) -> str:
    """Says what a model wrote in place of questions, and what to do."""
    return (
        f"Its first replies: {'; '.join(replies)}. A model that was fine-tuned to answer is a poor"
        " writer of questions: give its base or another instruction-tuned model as generation_model,"
        " raise max_new_tokens of its sampling if replies are cut, or use a CuratedDataGenerator."
    )


def _shown(reply: Generation) -> str:
    """Returns a reply on one line, shortened, without codes that a terminal would obey."""
    text = reply.text or reply.reasoning
    if not text.strip():
        return f"nothing ({reply.finish_reason})"
    line = " ".join(text[:1_000].split())
    printable = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    short = printable if len(printable) <= LONGEST_SHOWN else printable[:LONGEST_SHOWN] + " …"
    return f'"{short}"'


def _in_groups(slots: Sequence[Slot], wanted: Sequence[int], size: int) -> list[list[int]]:
    """Returns the wanted slots in groups of one kind, each to be asked for in one prompt, in the
    order in which they come.
    """
    groups: list[list[int]] = []
    latest: dict[Slot, list[int]] = {}
    for index in wanted:
        group = latest.get(slots[index])
        if group is None or len(group) == size:
            group = latest[slots[index]] = []
            groups.append(group)
        group.append(index)
    return groups


def _questions_in(reply: Generation) -> list[WrittenQuestion]:
    if reply.finish_reason in ("refused", "filtered"):
        return []
    return find_questions(reply.text)


def _nothing(reply: Generation) -> str:
    """Says why a reply holds fewer questions than it was asked for."""
    return {
        "refused": "the model refused",
        "filtered": "the model refused",
        "length": "cut before its end",
    }.get(reply.finish_reason, "no question")


def _schema(sub_questions: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "question": _TEXT,
        **({"sub_questions": _SUB_QUESTIONS} if sub_questions else {}),
    }
    item = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    listed = {"questions": {"type": "array", "items": item}}
    return {
        "title": "questions",
        "type": "object",
        "properties": listed,
        "required": ["questions"],
        "additionalProperties": False,
    }
