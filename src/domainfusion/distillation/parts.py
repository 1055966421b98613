"""The parts of a distillation: what each has to be, alone and together with the others, and what
follows from them; mistakes are refused before anything is done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domainfusion.checks import check_count, check_seed
from domainfusion.description import describe, models_in
from domainfusion.distillation.data_generation import DataGenerator
from domainfusion.distillation.data_generation.generator import check_names
from domainfusion.distillation.data_generation.writing import WrittenByModel
from domainfusion.distillation.dataset import GeneratedBatch, HeldOut, Removed
from domainfusion.distillation.evaluator import Evaluator, check_examples
from domainfusion.distillation.examples import ExampleLike, read_examples
from domainfusion.distillation.integration import ResponseIntegrator
from domainfusion.distillation.run import pin_dates
from domainfusion.distillation.settings import DataSettings, RunSettings
from domainfusion.distillation.trainer import Trainer
from domainfusion.errors import CapabilityError, ConfigurationError, DataError, suggestion
from domainfusion.models.base import (
    AdapterModel,
    LanguageModel,
    ServedByCommand,
    TokenScorer,
    TrainableModel,
)
from domainfusion.models.loading import choose_speech
from domainfusion.training import distributed
from domainfusion.types import Conversation, Example, Sampling, domains_of, fingerprint, user
from domainfusion.wording import counted

logger = logging.getLogger("domainfusion")

_SHOWN = 3
"""Questions that an error names."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The checked arguments of a distillation.

    Attributes:
        student: Where the student starts, with the chat template that it is trained in.
        speech: The name of that template, where its own is not used; else empty.
        teachers: The expert of each domain.
        generators: Make the training examples.
        trainer: Trains the student.
        evaluator: Measures the student; None leaves the evaluation out.
        integrator: Combines the experts' responses.
        test: The examples to evaluate on; None where a share of the generated ones is held out.
        validation: The examples to choose checkpoints by; None likewise.
        data: What else is held out, and what is removed.
        settings: How the run asks, checks, refines and reports.
        seed: Seed of all that is random.
    """

    student: TrainableModel
    speech: str
    teachers: dict[str, LanguageModel]
    generators: list[DataGenerator]
    trainer: Trainer
    evaluator: Evaluator | None
    integrator: ResponseIntegrator
    test: tuple[Example, ...] | None
    validation: tuple[Example, ...] | None
    data: DataSettings
    settings: RunSettings
    seed: int

    @classmethod
    def checked(
        cls,
        student: TrainableModel,
        teachers: Mapping[str, LanguageModel],
        generators: Sequence[DataGenerator],
        trainer: Trainer,
        evaluator: Evaluator | None,
        integrator: ResponseIntegrator | None,
        *,
        test_examples: str | Path | Sequence[ExampleLike] | None,
        data: DataSettings,
        settings: RunSettings,
        seed: int,
    ) -> Parts:
        """Returns the parts of a distillation; see `Distiller` for arguments and errors."""
        check_parts(student, teachers, generators)
        check_part("trainer", trainer, Trainer)
        if evaluator is not None:
            check_part("evaluator", evaluator, Evaluator)
        if integrator is not None:
            check_part("integrator", integrator, ResponseIntegrator)
        check_part("data", data, DataSettings)
        check_part("settings", settings, RunSettings)
        check_seed(seed)
        student, speech = choose_speech(student, teachers)
        if speech:
            logger.info("The student's chat template is %s.", speech)
        integrator = integrator or ResponseIntegrator()
        integrator.check_domains(teachers)
        test = _read(test_examples)
        validation = _read(data.validation_examples)
        if test is not None:
            check_examples(test, teachers)
        if validation:
            check_examples(validation, teachers)
        has_validation = bool(validation) or data.validation_holdout > 0
        trainer.check_validation(given=has_validation)
        check_refinement(settings.refinement_rounds, generators, has_validation=has_validation)
        return cls(
            student=student,
            speech=speech,
            teachers=dict(teachers),
            generators=[
                generator.written_by(student)
                if isinstance(generator, WrittenByModel)
                else generator
                for generator in generators
            ],
            trainer=trainer,
            evaluator=evaluator,
            integrator=integrator,
            test=test,
            validation=validation,
            # Without an evaluator nothing is held out to evaluate on.
            data=data if evaluator is not None else replace(data, holdout=0.0),
            settings=settings,
            seed=seed,
        )

    @property
    def held_out(self) -> HeldOut:
        """The examples that are not trained on."""
        return HeldOut(
            test=self.test,
            validation=self.validation,
            benchmarks={} if self.evaluator is None else self.evaluator.own_examples,
            test_share=self.data.holdout,
            validation_share=self.data.validation_holdout,
            group_by=self.data.group_by,
            seed=self.seed,
        )

    @property
    def sampling(self) -> Sampling:
        """How models answer where they are measured."""
        own = None if self.evaluator is None else self.evaluator.sampling
        return own or self.settings.response_sampling

    @property
    def descriptions(self) -> dict[str, str]:
        """The descriptions of the domains, as far as the generators have them."""
        described: dict[str, str] = {}
        for generator in self.generators:
            if isinstance(generator.domains, Mapping):
                described.update(generator.domains)
        return described

    @property
    def lengths(self) -> Lengths:
        """Compares questions with the contexts of the models that read them."""
        return Lengths(
            self.teachers,
            self.student,
            expert_tokens=self.settings.response_sampling.max_new_tokens,
            student_tokens=self.sampling.max_new_tokens,
            leaves_out=self.settings.on_teacher_failure == "continue",
        )

    def pin_date(self, path: Path | None) -> str | None:
        """Has all models write the day on which the run began into their prompts; see
        `pin_dates`.
        """
        holders = [self.student, self.teachers, self.generators, self.integrator, self.evaluator]
        return pin_dates(holders, path)

    def inputs(self, *, date: str | None) -> dict[str, Any]:
        """Returns the inputs that decide the outcome; settings that are off are left out.

        Args:
            date: The day that the models write into their prompts; None where none does.
        """
        student = describe(self.student)
        if self.speech:
            student |= {"chat_template": self.speech}
        inputs: dict[str, Any] = {} if date is None else {"date": date}
        inputs |= {
            "student": student,
            "teachers": describe(self.teachers),
            "generators": describe(self.generators),
            "trainer": describe(self.trainer),
            "integrator": describe(self.integrator),
            "response_sampling": describe(self.settings.response_sampling),
            "verifier": describe(self.settings.verifier),
            "test_examples": None if self.test is None else fingerprint(self.test),
            "validation_examples": None
            if self.validation is None
            else fingerprint(self.validation),
            "holdout": self.data.holdout,
            "validation_holdout": self.data.validation_holdout,
            "group_by": describe(self.data.group_by),
            "hygiene": describe(self.data.hygiene),
            "seed": self.seed,
        }
        if self.settings.refinement_rounds:
            inputs["refinement_rounds"] = self.settings.refinement_rounds
        if self.settings.samples > 1:
            inputs["samples"] = self.settings.samples
        return inputs

    def check_commands(self) -> None:
        """Looks for the commands of the engines that answer for models.

        Raises:
            ModelError: One is missing, or can't be run.
        """
        for model in models_in(self):
            if isinstance(model, ServedByCommand):
                model.check_command()

    def note_start(self) -> None:
        """Logs why the student does not start from the merge of its experts, where it does not: as
        a warning where the experts are adapters on the student, which suggests it.
        """
        why = self.trainer.start_of(self.student, self.teachers).why_not_merged
        if not why:
            return
        is_suggested = any(
            isinstance(teacher, AdapterModel) and teacher.is_adapter_on(self.student)
            for teacher in self.teachers.values()
        )
        level = logging.WARNING if is_suggested else logging.INFO
        message = "The student starts from its base, not from the merge of its experts: %s"
        logger.log(level, message, why)


def _read(source: str | Path | Sequence[ExampleLike] | None) -> tuple[Example, ...] | None:
    return None if source is None else tuple(read_examples(source))


def check_parts(
    student: object,
    teachers: Mapping[str, LanguageModel],
    generators: Sequence[DataGenerator],
) -> None:
    """Refuses what can't be distilled.

    Args:
        student: The model to train.
        teachers: The expert of each domain.
        generators: The generators of the examples.

    Raises:
        ConfigurationError: There are no teachers or no generators, a domain is known to one side
            alone.
        CapabilityError: The student can't be trained, or a teacher can't answer.
    """
    _refuse_classes(
        {
            "student_model": student,
            **_entries("teacher_models", teachers),
            **_entries("data_generators", generators),
        }
    )
    if not isinstance(student, TrainableModel):
        raise CapabilityError(
            "The student can't be trained",
            received=student,
            allowed="a local model, such as LlamaModel(...)",
            fix=_model_of(student),
        )
    if not teachers:
        raise ConfigurationError(
            "There are no teachers", received=teachers, fix='give {"domain": model}'
        )
    if not isinstance(teachers, Mapping):
        raise ConfigurationError(
            "teacher_models names no domains",
            received=teachers,
            allowed="a dict from each domain to its expert",
            fix='write {"domain": model}',
        )
    check_names(teachers)
    for domain, teacher in teachers.items():
        if not isinstance(teacher, LanguageModel):
            raise CapabilityError(
                f"The teacher of {domain!r} can't answer",
                received=teacher,
                allowed="a model with generate(...)",
                fix=_model_of(teacher),
            )
    if not generators:
        raise ConfigurationError(
            "There are no data generators", received=generators, fix="give at least one"
        )
    if not isinstance(generators, Sequence) or isinstance(generators, str):
        raise ConfigurationError(
            "data_generators is not a list",
            received=generators,
            allowed="a list of data generators",
            fix="write [generator]",
        )
    for generator in generators:
        if not isinstance(generator, DataGenerator):
            raise ConfigurationError(
                "An entry of data_generators is not a DataGenerator",
                received=generator,
                allowed="objects of DataGenerator's subclasses, such as CuratedDataGenerator(...)",
            )
    check_coverage(teachers, generators)


def check_items(name: str, items: object, kind: type, source: str) -> None:
    """Refuses what a stage was not made for.

    Args:
        name: The parameter.
        items: What was given for it.
        kind: What its entries have to be.
        source: What returns such.

    Raises:
        ConfigurationError: It is not a list of these.
    """
    if not isinstance(items, list | tuple) or not all(isinstance(item, kind) for item in items):
        raise ConfigurationError(
            f"{name} are not a list of {kind.__name__}",
            received=items,
            allowed=f"what {source} returned",
        )


def _model_of(given: object) -> str:
    """Returns how to write a model where its path was given."""
    return f"write LlamaModel({str(given)!r})" if isinstance(given, str | Path) else ""


def check_part(name: str, given: object, kind: type) -> None:
    """Refuses what is not of the kind that a parameter takes.

    Args:
        name: The parameter.
        given: What was given for it.
        kind: What it has to be an object of.

    Raises:
        ConfigurationError: It is a class, or of another kind.
    """
    _refuse_classes({name: given})
    if not isinstance(given, kind):
        raise ConfigurationError(
            f"{name} has the wrong type",
            received=given,
            allowed=f"an object of {kind.__name__} or a subclass",
        )


def _entries(name: str, given: object) -> dict[str, object]:
    """Returns the values of a dict or a list by the expressions that name them."""
    if isinstance(given, Mapping):
        return {f"{name}[{key!r}]": value for key, value in given.items()}
    if isinstance(given, list | tuple):
        return {f"{name}[{place}]": value for place, value in enumerate(given)}
    return {name: given}


def _refuse_classes(parts: Mapping[str, object]) -> None:
    """Refuses a class where one of its objects is meant: it has the methods, and can't answer."""
    for name, given in parts.items():
        if isinstance(given, type):
            raise ConfigurationError(
                f"{name} is a class, not an object",
                received=given,
                allowed="an object",
                fix=f"write {given.__name__}(...)",
            )


def check_coverage(
    teachers: Mapping[str, LanguageModel], generators: Sequence[DataGenerator]
) -> None:
    """Compares the domains of the teachers with those of the generators that name theirs.

    Raises:
        ConfigurationError: A domain is known to one side alone.
    """
    known = [generator.domains for generator in generators if generator.domains is not None]
    wanted = dict.fromkeys(name for domains in known for name in domains)
    homeless = [name for name in wanted if name not in teachers]
    if homeless:
        raise ConfigurationError(
            f"A generator makes examples of {homeless[0]!r}, which has no teacher",
            allowed=", ".join(teachers),
            fix=suggestion(homeless[0], teachers) or "add its expert",
        )
    idle = [name for name in teachers if name not in wanted]
    if idle and len(known) == len(generators):
        raise ConfigurationError(
            f"No generator makes examples of {idle[0]!r}, so its teacher would never be asked",
            allowed=", ".join(wanted),
            fix="add the domain to a generator, or leave the teacher out",
        )


def check_refinement(
    rounds: int, generators: Sequence[DataGenerator], *, has_validation: bool
) -> None:
    """Refuses a refinement that could do nothing.

    Args:
        rounds: The most rounds; with 0, nothing else is looked at.
        generators: The generators of the examples.
        has_validation: Whether there are, or will be, validation examples.

    Raises:
        ConfigurationError: There is no validation, no generator can make more, or several processes
            train.
    """
    check_count("refinement_rounds", rounds, 0)
    if rounds == 0:
        return
    if not has_validation:
        fix = "give validation_examples, or validation_holdout=0.1"
        raise ConfigurationError(
            "A refinement needs validation examples",
            received=f"refinement_rounds={rounds}",
            fix=fix,
            field="refinement_rounds",
        )
    if not any(generator.has_more for generator in generators):
        raise ConfigurationError(
            "No generator can make more examples for a refinement",
            received=[type(generator).__name__ for generator in generators],
            allowed=(
                "one that has_more, and of curated examples one that takes a part"
                " of them at first (num_examples)"
            ),
            fix="add a SyntheticDataGenerator, or leave refinement_rounds out",
            field="refinement_rounds",
        )
    if distributed.world_size() > 1:
        raise ConfigurationError(
            "A refinement runs in one process",
            received=f"{distributed.world_size()} processes",
            fix="start one, or leave refinement_rounds out",
        )


def check_teachers(examples: Sequence[Example], teachers: Mapping[str, LanguageModel]) -> None:
    """Raises a `ConfigurationError` where examples need a domain that has no teacher."""
    strange = [domain for domain in domains_of(examples) if domain not in teachers]
    if strange:
        raise ConfigurationError(
            f"Examples need the domain {strange[0]!r}, which has no teacher",
            allowed=", ".join(teachers),
            fix=suggestion(strange[0], teachers) or "add its expert",
        )


class QuestionReader:
    """A model that is to answer questions.

    Args:
        model: The model; one that tells no context length takes everything.
        whose: What messages call it.
        new_tokens: The tokens that its answer may have.
    """

    def __init__(self, model: LanguageModel, whose: str, new_tokens: int) -> None:
        self.whose = whose
        scorer = model if isinstance(model, TokenScorer) else None
        limit = None if scorer is None else scorer.context_length
        self._room = None if limit is None else limit - new_tokens
        self._scorer = scorer
        self._turn = 0 if scorer is None or limit is None else len(scorer.encode(user("")))

    def excess(self, conversation: Conversation) -> int:
        """Returns by how many tokens a conversation is too long; 0 where it fits."""
        if self._scorer is None or self._room is None:
            return 0
        # No token stands for less than a byte, and the template writes no more around any turn than
        # around the first. So most questions need not be encoded.
        size = sum(len(turn.content.encode(errors="replace")) for turn in conversation)
        if size + self._turn * (len(conversation) + 1) <= self._room:
            return 0
        return max(0, len(self._scorer.encode(conversation)) - self._room)


class Lengths:
    """Compares questions with the contexts of those that are to read them.

    Args:
        experts: The expert of each domain, which reads its own question of an example.
        student: The student, which reads the whole of each.
        expert_tokens: The tokens that an expert's answer may have.
        student_tokens: The tokens that the student's answer may have, where it is measured.
        leaves_out: Leave out what is too long, in place of refusing it.
    """

    def __init__(
        self,
        experts: Mapping[str, LanguageModel],
        student: LanguageModel,
        *,
        expert_tokens: int,
        student_tokens: int,
        leaves_out: bool,
    ) -> None:
        self._experts = {
            domain: QuestionReader(expert, f"the expert of {domain}", expert_tokens)
            for domain, expert in experts.items()
        }
        # Of a training question the student learns a target, of which one token is the least.
        self._learns = QuestionReader(student, "the student", 1)
        self._answers = QuestionReader(student, "the student", student_tokens)
        self._leaves_out = leaves_out

    def check_batch(self, batch: GeneratedBatch) -> None:
        """Refuses, or leaves out with the reason, what a generator made that is too long.

        Raises:
            DataError: It is refused; the message names the first examples.
        """
        examples = batch.generated.examples
        reasons = self._reasons(examples, self._learns)
        self._refuse(examples, reasons, "training")
        batch.removed += [
            Removed(example.query, reasons[example.id])
            for example in examples
            if example.id in reasons
        ]
        kept = tuple(example for example in examples if example.id not in reasons)
        batch.generated = replace(batch.generated, examples=kept)

    def fitting(self, examples: Sequence[Example] | None, what: str) -> Sequence[Example] | None:
        """Returns the examples to measure on without those that are too long, of which it warns.

        Args:
            examples: The examples; None stays None.
            what: What they are for.

        Raises:
            DataError: They are refused; the message names the first examples.
        """
        reasons = self._reasons(examples or (), self._answers)
        if examples is None or not reasons:
            return examples
        self._refuse(examples, reasons, what)
        named = next(example for example in examples if example.id in reasons)
        logger.warning(
            "%d of %d %s examples are left out: %r %s",
            len(reasons),
            len(examples),
            what,
            named.query[:60],
            reasons[named.id],
        )
        return [example for example in examples if example.id not in reasons]

    def _reasons(self, examples: Sequence[Example], student: QuestionReader) -> dict[str, str]:
        found: dict[str, str] = {}
        for example in examples:
            readers = [
                (self._experts[domain], example.conversation_for(domain))
                for domain in example.domains
                if domain in self._experts
            ]
            for reader, conversation in [*readers, (student, example.conversation)]:
                if excess := reader.excess(conversation):
                    found[example.id] = (
                        f"does not fit the context of {reader.whose}, by {counted(excess, 'token')}"
                    )
                    break
        return found

    def _refuse(self, examples: Sequence[Example], reasons: Mapping[str, str], what: str) -> None:
        if not reasons or self._leaves_out:
            return
        named = [
            f"{example.query[:60]!r} {reasons[example.id]}"
            for example in examples
            if example.id in reasons
        ]
        shown = "; ".join(named[:_SHOWN])
        raise DataError(
            f"{len(named)} of {len(examples)} {what} examples are too long: {shown}",
            fix=(
                "shorten them, lower max_new_tokens, or set on_teacher_failure to continue, which"
                " leaves them out"
            ),
        )
