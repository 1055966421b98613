"""What a recipe would take: calls, tokens, training steps, memory and cost, from files alone.

The stages themselves are run, with stand-ins that answer at once and are counted. Where the number
of calls depends on the answers, the stand-ins answer so that there are as many as there can be:
judges turn every question down, experts contradict each other, and no integrated answer holds.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from domainfusion.cli.preflight import Memory, memory_of
from domainfusion.distillation.data_generation import CuratedDataGenerator, DataGenerator, Focus
from domainfusion.distillation.data_generation.writing import WrittenByModel
from domainfusion.distillation.dataset import GeneratedBatch, HeldOut, assemble, run_generator
from domainfusion.distillation.evaluator import Ensemble
from domainfusion.distillation.examples import read_examples
from domainfusion.distillation.integration import Experts, Task
from domainfusion.models.base import LanguageModel
from domainfusion.prompts import ANSWER_JSON
from domainfusion.recipe.building import (
    STUDENT,
    StandIn,
    build_evaluator,
    build_generator,
    build_hygiene,
    build_integrator,
    build_trainer,
    stand_ins,
)
from domainfusion.recipe.derivation import settings_of
from domainfusion.recipe.sections import (
    APISection,
    Benchmarks,
    DistributionSection,
    LikelihoodSection,
    ModelName,
    Recipe,
)
from domainfusion.types import (
    Conversation,
    Example,
    Generation,
    Message,
    Sampling,
    TrainingRecord,
    fingerprint,
    transcript,
)

CHARACTERS_PER_TOKEN = 4
QUESTION_WORDS = 20
"""Words of a question that is not written yet."""
FEWEST_RESAMPLES = 100
HOLDOUT = next(
    setting.default
    for setting in settings_of("distillation.settings:DataSettings")
    if setting.name == "holdout"
)


@dataclass
class Calls:
    """The calls of one model in one stage.

    Attributes:
        stage: The stage.
        model: Which model is called.
        doing: What it is called for, where that does not go without saying.
        remote: Whether it is behind an API.
        count: How often, at most.
        fewest: How often at least.
        read: Tokens it reads, estimated.
        written: Tokens it writes, at most.
        cost: What they cost, with no answer stored yet; None where the recipe has no prices.
    """

    stage: str
    model: str
    doing: str = ""
    remote: bool = False
    count: int = 0
    fewest: int = 0
    read: int = 0
    written: int = 0
    cost: float | None = 0.0


@dataclass(frozen=True)
class RunPlan:
    """What a recipe would take.

    Attributes:
        calls: Calls by stage and model.
        train: Examples to train on, at most; without those of a refinement.
        test: Examples to test on.
        steps: Optimizer steps, about.
        memory: Memory by what needs it.
        limits: `max_cost` by the model that has one.
        uncounted: Tasks of lm-evaluation-harness, whose items are not known before they are loaded.
        records: What is trained on, with what stands for its targets.
        questions: Examples to test on.
    """

    calls: tuple[Calls, ...]
    train: int
    test: int
    steps: int
    memory: tuple[Memory, ...]
    limits: Mapping[str, float]
    uncounted: tuple[str, ...] = ()
    records: tuple[TrainingRecord, ...] = field(default=(), repr=False)
    questions: tuple[Example, ...] = field(default=(), repr=False)


def plan_of(recipe: Recipe) -> RunPlan:
    """Works out what a recipe would take. Files are read, no model is loaded."""
    tasks, recipe = _without_tasks(recipe)
    with _without_warnings():
        return _Planning(recipe).plan(tasks)


BASE, MERGE = "its base", "the experts' merge"
"""What stands beside the student in the evaluation."""


class _Planning:
    """Runs the stages of a recipe with stand-ins for its models."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.model = stand_ins(recipe)
        self.ask = _CountingAsk()
        self.teachers = {domain: self.model(ModelName(domain)) for domain in recipe.teachers}
        self.integrator = build_integrator(recipe, self.model)
        self.evaluator = build_evaluator(recipe, self.model)
        self.generators = [
            build_generator(recipe, position, self.model)
            for position in range(len(recipe.generators))
        ]

    def plan(self, tasks: tuple[str, ...]) -> RunPlan:
        """Returns what the recipe takes; `tasks` are those that are not counted."""
        recipe = self.recipe
        self.ask.stage = "generate"
        batches = [self._made_by(generator) for generator in self.generators]
        held_out = self._held_out()
        dataset = assemble(batches, held_out, build_hygiene(recipe))
        records = self._trained_on(dataset.train)
        self._score(records, "train")
        self._refine(dataset.validation)
        self._evaluate(dataset.test)
        limits = {
            section.called: section.max_cost
            for _, section in recipe.models()
            if isinstance(section, APISection) and section.max_cost
        }
        return RunPlan(
            calls=self.ask.calls(),
            train=len(dataset.train),
            test=len(dataset.test),
            steps=self._steps(records),
            memory=memory_of(recipe),
            limits=limits,
            uncounted=tasks,
            records=tuple(records),
            questions=tuple(dataset.test),
        )

    def _made_by(self, generator: DataGenerator, focus: Focus | None = None) -> GeneratedBatch:
        """Returns what a generator makes where everything it asks for is accepted, and counts what
        it asks where nothing is.
        """
        with self.ask.counting(is_least=True):
            made = run_generator(generator, self.ask, focus)
        if isinstance(generator, WrittenByModel):
            self.ask.rejecting = "judge" if generator.verify else "reader"
            generator.generate(self.ask, focus=focus)
            self.ask.rejecting = ""
        return made

    def _held_out(self) -> HeldOut:
        evaluation = self.recipe.evaluation
        if evaluation is None or self.evaluator is None:
            return HeldOut()
        test, validation = evaluation.test_examples, evaluation.validation_examples
        return HeldOut(
            test=None if test is None else tuple(read_examples(test)),
            validation=None if validation is None else tuple(read_examples(validation)),
            benchmarks=self.evaluator.own_examples,
            test_share=HOLDOUT if evaluation.holdout is None else evaluation.holdout,
            validation_share=evaluation.validation_holdout or 0.0,
            group_by=evaluation.group_by,
            seed=self.recipe.seed,
        )

    def _trained_on(self, examples: Sequence[Example], stage: str = "") -> list[TrainingRecord]:
        """Collects and integrates."""
        recipe = self.recipe
        sampling = recipe.responses.sampling(recipe.seed)
        experts = Experts(self.teachers, self.ask, sampling)
        self.ask.stage = stage or "collect"
        tasks: list[Task] = experts.answer(examples)
        self.ask.stage = stage or "integrate"
        integrations = self.integrator.integrate_all(
            tasks,
            domains=recipe.domains,
            ask=self.ask,
        )
        self._ask_again(examples, sampling, stage)
        return [
            TrainingRecord(
                example=task.example,
                responses=tuple(task.responses.values()),
                integration=integration,
            )
            for task, integration in zip(tasks, integrations, strict=True)
        ]

    def _ask_again(self, examples: Sequence[Example], sampling: Sampling, stage: str) -> None:
        """Counts further answers: at most of every expert, as if none gave a target, and at least
        none.
        """
        for number in range(2, self.recipe.samples + 1):
            drawn = replace(sampling, seed=sampling.seed + number)
            with self.ask.counting_extra():
                self.ask.stage = stage or "collect"
                tasks = Experts(self.teachers, self.ask, drawn).answer(examples)
                self.ask.stage = stage or "integrate"
                self.integrator.integrate_all(tasks, domains=self.recipe.domains, ask=self.ask)

    def _refine(self, validation: Sequence[Example]) -> None:
        """Counts every round as if all of its examples needed all domains: which they need is known
        once the student was validated.
        """
        recipe, rounds = self.recipe, self.recipe.refinement_rounds
        evaluation = recipe.evaluation
        if not rounds or evaluation is None:
            return
        self.ask.stage, self.ask.times = "refine", rounds
        every = tuple(recipe.domains)
        focus = Focus(weights={every: 1.0, **{(domain,): 1.0 for domain in every}})
        count = 0
        for generator in self.generators:
            if not generator.has_more:
                continue
            if isinstance(generator, WrittenByModel):
                self._made_by(generator, focus)
                count += generator.num_examples
            elif isinstance(generator, CuratedDataGenerator):
                count += generator.num_examples or 0
        questions = itertools.islice(_questions("refined"), count)
        examples = [Example(query=query, domains=every) for query in questions]
        self._score(self._trained_on(examples, "refine"), "refine")
        self.ask.times = 1
        sampling = Sampling(max_new_tokens=evaluation.max_new_tokens)
        for domain, teacher in self.teachers.items():
            own = [example for example in validation if example.domains == (domain,)]
            asked = [example.conversation for example in own]
            self.ask(teacher, asked, sampling, label=f"validating {domain}")

    def _score(self, records: Sequence[TrainingRecord], stage: str) -> None:
        """Counts the targets that servers score for an objective that learns from scores: at most
        all of them, and at least none, as targets may be rejected.
        """
        objective = self.recipe.trainer.objective
        if not isinstance(objective, DistributionSection | LikelihoodSection):
            return
        self.ask.stage = stage
        writer = self.integrator.integration_model
        scored: dict[StandIn, list[Conversation]] = {}
        for record in records:
            example = record.example
            if example.is_cross_domain:
                teacher, asked = writer, record.integration.messages
            else:
                domain = example.primary_domain
                teacher, asked = self.teachers.get(domain), example.conversation_for(domain)
            if not asked or not isinstance(teacher, StandIn):
                continue
            if isinstance(teacher.section, APISection) and teacher.section.scores:
                whole = (*asked, Message("assistant", record.target))
                scored.setdefault(teacher, []).append(whole)
        with self.ask.counting_extra():
            for teacher, conversations in scored.items():
                # The one token that a server writes beside the scores.
                self.ask(teacher, conversations, Sampling(max_new_tokens=1), label="scoring")

    def _evaluate(self, test: Sequence[Example]) -> None:
        if self.evaluator is None:
            return
        self.ask.stage = "evaluate"
        recipe, student = self.recipe, self.model(ModelName(STUDENT))
        baselines: dict[str, LanguageModel] = {"base": StandIn(BASE, recipe.student)}
        if all(teacher.is_adapter for teacher in recipe.teachers.values()):
            baselines["merge"] = StandIn(MERGE, recipe.student)
        ensemble = Ensemble(self.integrator, recipe.domains)
        self.evaluator.evaluate(
            student, self.teachers, test, baselines=baselines, ensemble=ensemble, ask=self.ask
        )

    def _steps(self, records: Sequence[TrainingRecord]) -> int:
        """Returns the optimizer steps of all phases."""
        trainer = build_trainer(self.recipe.trainer)
        rows = [len(phase.shown(random.Random(0))) for phase in trainer.phases(records)]
        return sum(math.ceil(count * trainer.epochs / trainer.batch_size) for count in rows)


class _CountingAsk:
    """An `Ask` that counts, and answers for the stand-ins.

    Attributes:
        stage: What is counted now.
        times: How often each call is counted.
        rejecting: What turns every question down: a `judge`, or the `reader` of replies, which
            finds no question in them; empty where nothing does.
    """

    def __init__(self) -> None:
        self.stage = ""
        self.times = 1
        self.rejecting = ""
        self._is_least = False
        self._is_extra = False
        self._calls: dict[tuple[str, str, str], Calls] = {}
        self._questions = _questions("written")
        self._names: dict[str, int] = {}

    @contextmanager
    def counting(self, *, is_least: bool) -> Iterator[None]:
        """Counts what is asked in this block as what is asked at least, not at most."""
        self._is_least = is_least
        try:
            yield
        finally:
            self._is_least = False

    @contextmanager
    def counting_extra(self) -> Iterator[None]:
        """Counts what is asked in this block as what may not be asked at all."""
        self._is_extra = True
        try:
            yield
        finally:
            self._is_extra = False

    def calls(self) -> tuple[Calls, ...]:
        """Returns what was counted."""
        return tuple(call for call in self._calls.values() if call.count)

    def __call__(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
    ) -> list[Generation]:
        """See `Ask`."""
        assert isinstance(model, StandIn)
        doing = _doing(label, self.stage)
        key = (self.stage, model.name, doing)
        is_remote = isinstance(model.section, APISection)
        call = self._calls.setdefault(key, Calls(*key, remote=is_remote))
        count = self.times * len(conversations)
        if self._is_least or not self._varies(label):
            call.fewest += count
        if not self._is_least:
            system = _tokens(model.section.system_prompt or "")
            read = sum(system + _tokens(transcript(each)) for each in conversations) * self.times
            written = count * sampling.max_new_tokens
            call.count, call.read = call.count + count, call.read + read
            call.written += written
            if isinstance(model.section, APISection) and call.cost is not None:
                cost = model.section.cost(read=read, written=written)
                call.cost = None if cost is None else call.cost + cost
        return [
            Generation(text=self._reply(model, each, sampling, label)) for each in conversations
        ]

    def _varies(self, label: str) -> bool:
        """Whether how often this is asked depends on answers."""
        return self._is_extra or bool(self.rejecting) or label == "integrating once more"

    def _reply(
        self, model: StandIn, conversation: Conversation, sampling: Sampling, label: str
    ) -> str:
        prompt = conversation[-1].content
        if label.endswith("questions") and not label.startswith("judging"):
            if self.rejecting == "reader":
                return "…"
            most = max(1, sampling.max_new_tokens // (2 * QUESTION_WORDS))
            return "\n".join(itertools.islice(self._questions, most))
        if label == "judging questions":
            return _turned_down(prompt) if self.rejecting else "?"
        if label.startswith("integrating"):
            # A number that no expert gave: what is written does not hold, and is written again.
            text = "It is 987654321 km. " + _filler(model.name, sampling)
            return json.dumps({"sentences": [{"text": text}]}) if ANSWER_JSON in prompt else text
        if label.startswith(("judging", "reading", "relating", "verifying", "topics")):
            return "3"
        place = self._names.setdefault(model.name, len(self._names) + 2)
        claims = (
            f"The length is {place} km. The mass is {place} kg. The duration is {place} hours."
            f" The share is {place} percent."
        )
        about = f"{model.name} on {prompt} at {sampling.temperature}"
        return f"{claims} {_filler(about, sampling)}"


_DOING = {
    "synthetic questions": "synthetic",
    "adversarial questions": "adversarial",
    "judging questions": "judging",
    "reading responses": "reading",
    "relating claims": "relating",
    "integrating": "writing",
    "integrating once more": "writing",
}
"""What calls are for, by the label that their stage gives them."""


def _doing(label: str, stage: str) -> str:
    if label.startswith("asking the expert of") and label.endswith("again"):
        return "asked again"
    if label.startswith("validating"):
        return "on validation"
    if label.startswith("asking"):
        return "asked its part" if stage == "evaluate" else ""
    return _DOING.get(label, "" if label.startswith("evaluating") else label)


def _turned_down(prompt: str) -> str:
    """Returns the verdict with which a judge turns any question down: that it needs no domain, or
    where it is to name one, the first, which can't be both what a question looks like and what it
    needs.
    """
    if '"none"' in prompt:
        return "none"
    return prompt.rpartition("nothing else: ")[2].partition(",")[0].strip(" .")


def _questions(kind: str) -> Iterator[str]:
    """Yields questions without end, no two of them alike."""
    for number in itertools.count():
        words = " ".join(f"{kind}{number}x{place}" for place in range(QUESTION_WORDS // 2))
        yield f"What is {words}?"


def _filler(name: str, sampling: Sampling) -> str:
    """Returns a text as long as an answer may be, which no other name has."""
    word = fingerprint(name, length=8)
    length = max(0, sampling.max_new_tokens * CHARACTERS_PER_TOKEN - 120)
    return f"{word} " * (length // (len(word) + 1)) + f"{word}."


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def _without_tasks(recipe: Recipe) -> tuple[tuple[str, ...], Recipe]:
    """Returns the tasks of lm-evaluation-harness, whose items are not read here, and the recipe
    without them.
    """
    evaluation = recipe.evaluation
    if evaluation is None:
        return (), recipe
    tasks: list[str] = []

    def files(sources: Benchmarks) -> Benchmarks:
        tasks.extend(source.task for source in sources if not isinstance(source, str))
        return [source for source in sources if isinstance(source, str)]

    by_domain = {domain: files(sources) for domain, sources in evaluation.benchmarks.items()}
    left = {domain: sources for domain, sources in by_domain.items() if sources}
    changed = {
        "benchmarks": left,
        "general": files(evaluation.general),
        "resamples": FEWEST_RESAMPLES,
    }
    if not left and not changed["general"]:
        changed["baseline_scores"] = None
    planned = evaluation.model_copy(update=changed)
    return tuple(dict.fromkeys(tasks)), recipe.model_copy(update={"evaluation": planned})


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps what stages say of the stand-ins' answers from the log."""
    logger = logging.getLogger("domainfusion")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
