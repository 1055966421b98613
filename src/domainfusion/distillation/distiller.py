"""The distiller: several experts in, one student out."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from domainfusion.description import describe, models_in
from domainfusion.distillation.asking import AskOverGaps, RunAsk
from domainfusion.distillation.calling import options_for
from domainfusion.distillation.data_generation import DataGenerator, Focus, makes_more
from domainfusion.distillation.dataset import (
    Dataset,
    GroupBy,
    HeldOut,
    Hygiene,
    assemble,
    assemble_more,
    read_held_out,
    run_generator,
)
from domainfusion.distillation.evaluator import Ensemble, Evaluator, check_examples, hold_apart
from domainfusion.distillation.examples import ExampleLike, read_examples
from domainfusion.distillation.integration import Experts, ResponseIntegrator, Task, primary_first
from domainfusion.distillation.metrics import AccuracyMetric, stated_parts
from domainfusion.distillation.parts import check_parts, check_refinement
from domainfusion.distillation.refinement import Refiner, Stages, Validation, trained_records
from domainfusion.distillation.results import EvaluationReport
from domainfusion.distillation.run import (
    Publisher,
    RunDirectory,
    StageFiles,
    date_of_run,
    default_publisher,
)
from domainfusion.distillation.savings import measure_savings
from domainfusion.distillation.trainer import Trainer
from domainfusion.errors import CapabilityError, ConfigurationError, DataError, RunError
from domainfusion.models.base import Adaptation, DatedModel, LanguageModel, TrainableModel
from domainfusion.models.huggingface import choose_speech
from domainfusion.progress import Progress, silent
from domainfusion.records import read_records, write_json, write_records
from domainfusion.training import distributed
from domainfusion.types import (
    Example,
    Integration,
    Response,
    Sampling,
    TrainingRecord,
    Verification,
    domains_of,
    fingerprint,
)

__all__ = ["Distiller", "ResponseIntegrator"]

logger = logging.getLogger("domainfusion")

OnTeacherFailure = Literal["stop", "continue"]
"""What to do where an expert leaves questions unanswered."""

_NO_ANSWER = {
    "refused": "refused",
    "filtered": "was held back by a filter",
    "failed": "did not answer",
}
"""What an expert did that did not end with an answer."""

Collected = Sequence[tuple[Example, Mapping[str, Response]]]


class Distiller:
    """Distills several domain experts into one student.

    `distill()` runs the stages one after the other; each is a method too. What a stage made is a
    file in the output directory: a run that was interrupted resumes where it was, and a finished
    stage is not run again.

    Args:
        student_model: Where the student starts: a local model. It stays as it is; a trained copy is
            returned.
        teacher_models: The expert of each domain.
        data_generators: Make the training examples.
        trainer: Trains the student.
        evaluator: Measures the student; None leaves the evaluation out.
        integrator: Combines the experts' responses; by default a merge without a model.
        seed: Seed of all that is random.
        output_dir: Where the run is kept; by default `runs/` with a name that follows from the
            inputs, so that the same inputs resume; it is then printed to stderr.
        test_examples: Examples to evaluate on, as objects, dicts or a file; by default a share of
            the generated ones is held out.
        validation_examples: Examples to choose checkpoints by, likewise; by default none are held
            out.
        holdout: Share of the generated examples that is held out where no test examples are given.
        validation_holdout: Share of them that checkpoints are chosen by, where no validation
            examples are given.
        group_by: What no two of training, validation and test share: `group` (the examples' own),
            `query`, a key of their metadata such as `fact` or `template`, or a function that names
            an example's group.
        hygiene: What is removed from the generated examples: near-duplicates, and what contains an
            evaluation question.
        response_sampling: How the experts answer; by default greedily, up to 256 tokens.
        verifier: Checks a target against the example's reference; one that it contradicts is never
            trained on.
        on_teacher_failure: What to do where an expert leaves some of its questions unanswered:
            `stop`, after which the same run asks for what is missing, or `continue`: examples to
            train on that need it are rejected with the reason, and what it is measured on has no
            grade there, which the report says.
        rebuttal: Whether experts that contradict each other, where nothing settles it, are asked
            once more on it, each shown what the others say.
        refinement_rounds: How often at most more examples are made where validation shows the
            student weakest, and trained on; a round that does not improve validation is undone, and
            the last. It takes validation examples and a generator that can make more.
        title: What reports call the run.
        progress: Shows how far each stage is; by default nothing is shown.
        publisher: Writes the reports at the end of a run and the model card of a saved student; by
            default `domainfusion.reports`.

    Raises:
        ConfigurationError: No teachers, no generators, a domain that only one side knows, a number
            out of range, or a refinement without validation or without a generator that can make
            more.
        CapabilityError: The student can't be trained.
        DataError: A test or validation example can't be read, or needs a domain that has no
            teacher.

    Attributes:
        student: The trained student, once there is one.
        report: What the evaluation found, once there is an evaluation.
        output_dir: Where the run is kept.
    """

    def __init__(
        self,
        student_model: TrainableModel,
        teacher_models: Mapping[str, LanguageModel],
        data_generators: Sequence[DataGenerator],
        trainer: Trainer,
        evaluator: Evaluator | None = None,
        integrator: ResponseIntegrator | None = None,
        *,
        seed: int = 0,
        output_dir: str | Path | None = None,
        test_examples: str | Path | Sequence[ExampleLike] | None = None,
        validation_examples: str | Path | Sequence[ExampleLike] | None = None,
        holdout: float = 0.1,
        validation_holdout: float = 0.0,
        group_by: GroupBy = "group",
        hygiene: Hygiene = Hygiene(),
        response_sampling: Sampling = Sampling(),
        verifier: AccuracyMetric = stated_parts,
        on_teacher_failure: OnTeacherFailure = "stop",
        rebuttal: bool = False,
        refinement_rounds: int = 0,
        title: str = "Distillation",
        progress: Progress = silent,
        publisher: Publisher | None = None,
    ) -> None:
        check_parts(
            student_model,
            teacher_models,
            data_generators,
            {"holdout": holdout, "validation_holdout": validation_holdout},
        )
        if on_teacher_failure not in get_args(OnTeacherFailure):
            raise ConfigurationError(
                "on_teacher_failure is not known",
                received=on_teacher_failure,
                allowed="stop, continue",
            )
        self.student_model, self._speech = choose_speech(student_model, teacher_models)
        if self._speech:
            logger.info("The student's chat template is %s.", self._speech)
        self.teacher_models = dict(teacher_models)
        self.data_generators = list(data_generators)
        self.trainer = trainer
        self.evaluator = evaluator
        self.integrator = integrator or ResponseIntegrator()
        self.integrator.check_domains(self.teacher_models)
        self.seed = seed
        self.holdout = holdout if evaluator is not None else 0.0
        self.validation_holdout = validation_holdout
        self.group_by = group_by
        self.hygiene = hygiene
        self.response_sampling = response_sampling
        self.verifier = verifier
        self.on_teacher_failure = on_teacher_failure
        self.rebuttal = rebuttal
        self.refinement_rounds = refinement_rounds
        self.progress = progress
        self.publisher = publisher or default_publisher()
        self.student: TrainableModel | None = None
        self._is_refined = False
        self.report: EvaluationReport | None = None
        self._given_test = None if test_examples is None else tuple(read_examples(test_examples))
        self._given_validation = (
            None if validation_examples is None else tuple(read_examples(validation_examples))
        )
        if self._given_test is not None:
            check_examples(self._given_test, teacher_models)
        if self._given_validation:
            check_examples(self._given_validation, teacher_models)
        has_validation = bool(self._given_validation) or validation_holdout > 0
        trainer.check_validation(given=has_validation)
        check_refinement(refinement_rounds, data_generators, has_validation=has_validation)
        self._date = self._pin_dates(output_dir)
        inputs = self._inputs()
        self._directory_is_derived, self._directory_is_told = output_dir is None, False
        self.output_dir = Path(output_dir or Path("runs") / fingerprint(inputs, length=12))
        self._run = RunDirectory(self.output_dir, inputs, title)
        self._ask = RunAsk(self._run, self._role_of, progress)
        self._measured: Mapping[str, LanguageModel] = {}

    def distill(self, *, on_trained: Callable[[], object] = lambda: None) -> TrainableModel:
        """Runs every stage and returns the trained student, which answers at once.

        Args:
            on_trained: Called once there is a `student`, before it is measured; what it saves is
                there whatever the evaluation meets.

        Of several processes that `torchrun` or `accelerate launch` started, the main one runs every
        stage; the others come to train.
        """
        distributed.init_process_group()
        self._check_start()
        if not distributed.is_main_process():
            distributed.barrier()
            self.student = self._train(read_records(self._run.records, TrainingRecord), self._run)
            return self.student
        with self._run.open():
            examples = self.generate()
            responses = self.collect(examples)
            records = self.integrate(responses)
            distributed.barrier()
            student = self.train(records)
            if self.refinement_rounds:
                student = self.refine()
            on_trained()
            if self.evaluator is not None:
                self.evaluate(student)
            self.publisher.write_reports(self.output_dir)
        return student

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds the run's directory for this process, so that no other writes there; in the block,
        stages hold it no second time.

        Raises:
            RunError: Another process holds it, it belongs to other inputs, or it can't be written
                to.
        """
        with self._run.open():
            yield

    def generate(self) -> list[Example]:
        """Lets every generator make its examples, freezes the test set, and returns the examples to
        train on.
        """
        with self._run.open():
            self._tell_directory()
            if not self._run.examples.is_file():
                with self._run.stage("generate"):
                    self._generate()
            return read_records(self._run.examples, Example)

    def collect(self, examples: Sequence[Example]) -> list[tuple[Example, Mapping[str, Response]]]:
        """Asks the expert of each of an example's domains: its sub-question if there is one, else
        the whole query.
        """
        self._check_teachers(examples)
        with self._run.open(), self._run.stage("collect"):
            tasks = self._experts().answer(examples)
            _warn_of_cut_thoughts(
                [response for task in tasks for response in task.responses.values()]
            )
            return [(task.example, task.responses) for task in tasks]

    def integrate(self, collected: Collected) -> list[TrainingRecord]:
        """Makes one target of each example's responses and checks it against the reference, where
        there is one.

        Raises:
            RunError: The run has records of other responses already.
        """
        with self._run.open():
            return self._integrate(collected, self._run)

    def train(self, records: Sequence[TrainingRecord]) -> TrainableModel:
        """Trains the student on the records and returns it."""
        with self._run.open(), self._run.stage("train"):
            self.student, self._is_refined = self._train(records, self._run), False
            about = {
                "name": self.student.name,
                "parameters": getattr(self.student, "parameter_count", None),
                "system_prompt": getattr(self.student, "system_prompt", None),
            }
            self._run.add_to_description("student", about)
            return self.student

    def refine(self) -> TrainableModel:
        """Makes more examples where validation shows the trained student weakest, and trains on;
        returns the student at its best.

        Raises:
            RunError: There is no student yet, or `refinement_rounds` is 0.
        """
        if self.student is None or not self.refinement_rounds:
            fix = "train first" if self.refinement_rounds else "give refinement_rounds=..."
            raise RunError(
                "There is nothing to refine",
                received=f"refinement_rounds={self.refinement_rounds}",
                fix=fix,
            )
        if self._is_refined:
            return self.student
        with self._run.open(), self._run.stage("refine"):
            self.student = Refiner(
                rounds=self.refinement_rounds,
                files=self._run,
                stages=Stages(
                    make=self._make_more, integrate=self._collect_and_integrate, train=self._train
                ),
                validation=self._validation(),
                teachers=self.teacher_models,
                ask=self._over_gaps(),
                seed=self.seed,
            ).refine(self.student)
            self._is_refined = True
            return self.student

    def evaluate(
        self,
        student: TrainableModel | None = None,
        *,
        examples: str | Path | Sequence[ExampleLike] | None = None,
    ) -> EvaluationReport:
        """Measures the student beside its base, every expert, and their weight merge where there is
        one.

        Args:
            student: The student; by default the one that was trained.
            examples: Other examples than the run's test set, as objects, dicts or a file; what is
                found on them is returned and not kept.

        Raises:
            RunError: There is no student, no evaluator, or no test set yet.
            DataError: Examples were trained on, and the evaluator refuses such.
        """
        student = student or self.student
        if student is None or self.evaluator is None:
            missing = "student" if student is None else "evaluator"
            raise RunError(
                f"There is no {missing} to evaluate with",
                fix="train first" if student is None else "give evaluator=...",
            )
        if examples is not None:
            with self._run.open():
                return self._measure(self.evaluator, student, list(read_examples(examples)))
        if not self._run.test_examples.is_file():
            raise RunError("There is no test set yet", fix="call generate() first")
        with self._run.open(), self._run.stage("evaluate"):
            held_out = read_held_out(self._run, "test")
            self.report = self._measure(self.evaluator, student, held_out)
            write_json(self._run.evaluation, self.report, listed=True)
            self._measure_savings(student, held_out)
            return self.report

    def save(self, path: str | Path, *, merge: bool = True) -> None:
        """Writes the student, with a model card, to a folder that plain Transformers loads; with
        `merge=False` an adapter stays an adapter.

        Of several processes the main one writes.

        Raises:
            RunError: There is no student yet.
        """
        if self.student is None:
            raise RunError("There is no student to save", fix="call distill() or train() first")
        if not distributed.is_main_process():
            return
        self.student.save(path, merge=merge)
        self.publisher.write_model_card(Path(path), self.output_dir)

    # The stages' details

    def _train(
        self,
        records: Sequence[TrainingRecord],
        files: StageFiles,
        start: TrainableModel | None = None,
    ) -> TrainableModel:
        validation = self._validation()
        return self.trainer.train(
            self.student_model,
            records,
            start=start,
            teachers=self.teacher_models,
            integrator=getattr(self.integrator, "integration_model", None),
            validate=validation if validation.examples else None,
            directory=files.training,
            seed=self.seed,
            progress=self.progress,
        )

    def _check_start(self) -> None:
        """Tells before anything is asked where the student will start, where that is not the merge
        that its experts suggest.
        """
        why = self.trainer.start_of(self.student_model, self.teacher_models).why_not_merged
        is_adapter = [
            getattr(teacher, "is_adapter_on", None) for teacher in self.teacher_models.values()
        ]
        if why and any(is_on is not None and is_on(self.student_model) for is_on in is_adapter):
            logger.warning(
                "The student starts from its base, not from the merge of its experts: %s", why
            )
        elif why:
            logger.info(
                "The student starts from its base, not from the merge of its experts: %s", why
            )

    def _tell_directory(self) -> None:
        """Reports where the run is kept: in the log where one is shown, else on stderr."""
        if self._directory_is_told:
            return
        self._directory_is_told = True
        message = f"The run is kept in {self.output_dir}; the same inputs resume it there."
        logger.info(message)
        if self._directory_is_derived and not logger.isEnabledFor(logging.INFO):
            sys.stderr.write(f"{message}\n")

    def _generate(self) -> None:
        batches = [run_generator(generator, self._ask) for generator in self.data_generators]
        self._check_teachers([example for batch in batches for example in batch.generated])
        dataset = assemble(batches, self._held_out, self.hygiene)
        self._check_dataset(dataset)
        dataset.write(self._run)

    def _make_more(self, focus: Focus, files: StageFiles) -> list[Example]:
        """Lets every generator that can make more examples where the focus says; they are trained
        on and nothing else.
        """
        if not files.examples.is_file():
            with self._run.stage("generate"):
                batches = [
                    run_generator(generator, self._ask, focus)
                    for generator in self.data_generators
                    if makes_more(generator)
                ]
                self._check_teachers([example for batch in batches for example in batch.generated])
                frozen = replace(
                    self._held_out,
                    test=read_held_out(self._run, "test"),
                    validation=read_held_out(self._run, "validation"),
                )
                examples = assemble_more(batches, focus.earlier, frozen, self.hygiene)
                write_json(files.generation, [batch.count() for batch in batches], listed=True)
                write_records(files.examples, examples, listed=True)
        return read_records(files.examples, Example)

    @property
    def _held_out(self) -> HeldOut:
        return HeldOut(
            test=self._given_test,
            validation=self._given_validation,
            benchmarks={} if self.evaluator is None else self.evaluator.own_examples,
            test_share=self.holdout,
            validation_share=self.validation_holdout,
            group_by=self.group_by,
            seed=self.seed,
        )

    def _check_dataset(self, dataset: Dataset) -> None:
        if self.evaluator is not None and not dataset.test:
            raise DataError(
                "No example is held out to evaluate on",
                received=f"{len(dataset.train)} examples, holdout={self.holdout:g}",
                fix="give test_examples, or make more examples",
            )
        gradable = [
            example
            for example in dataset.validation
            if example.has_reference or self.verifier is not stated_parts
        ]
        if self.refinement_rounds and not gradable:
            raise DataError(
                "No validation example has a reference answer, so a refinement can't tell where the"
                " student is weak",
                received=f"{len(dataset.validation)} validation examples",
                fix="give validation_examples with `answers`, or leave refinement_rounds out",
            )
        if getattr(self.evaluator, "metric", None) is stated_parts and not any(
            example.has_reference for example in dataset.test
        ):
            logger.warning(
                "None of the %d test examples has a reference answer, so their accuracy is"
                " undefined: a DomainRetentionEvaluator measures agreement with the experts. For"
                " accuracy, give test_examples with `answers`.",
                len(dataset.test),
            )
        idle = [domain for domain in self.teacher_models if domain not in domains_of(dataset.train)]
        if idle:
            logger.warning(
                "No training example needs the domain %s: the student can learn nothing from its"
                " expert.",
                ", ".join(idle),
            )

    def _collect_and_integrate(
        self, examples: Sequence[Example], files: StageFiles
    ) -> list[TrainingRecord]:
        return self._integrate(self.collect(examples), files)

    def _integrate(self, collected: Collected, files: StageFiles) -> list[TrainingRecord]:
        if files.records.is_file():
            self._refuse_other_responses(collected, files)
        else:
            with self._run.stage("integrate"):
                tasks = [Task(example, responses) for example, responses in collected]
                rebut = self._experts().rebut if self.rebuttal else None
                options = options_for(
                    self.integrator.integrate_all, domains=self._descriptions(), rebut=rebut
                )
                integrations = self.integrator.integrate_all(tasks, ask=self._ask, **options)
                records = [
                    self._to_record(task, integration)
                    for task, integration in zip(tasks, integrations, strict=True)
                ]
                write_records(files.records, records, listed=True)
        return read_records(files.records, TrainingRecord)

    def _experts(self) -> Experts:
        return Experts(self.teacher_models, self._over_gaps(), self.response_sampling)

    def _descriptions(self) -> dict[str, str]:
        """Returns what the domains are about, as far as the generators say it."""
        described: dict[str, str] = {}
        for generator in self.data_generators:
            domains = getattr(generator, "domains", None)
            if isinstance(domains, Mapping):
                described |= {name: text for name, text in domains.items() if isinstance(text, str)}
        return described

    def _to_record(self, task: Task, integration: Integration) -> TrainingRecord:
        verification, reason = self._verify(task, integration)
        return TrainingRecord(
            example=task.example,
            responses=tuple(primary_first(task).values()),
            integration=integration,
            verification=verification,
            reason=reason,
        )

    def _verify(self, task: Task, integration: Integration) -> tuple[Verification, str]:
        for response in task.responses.values():
            if response.finish_reason in _NO_ANSWER:
                return (
                    "rejected",
                    f"the expert of {response.domain} {_NO_ANSWER[response.finish_reason]}",
                )
        if integration.ledger.verdict == "rejected":
            return "rejected", "the integrated answer was not verified"
        if not integration.text.strip():
            is_open = any(conflict.kept is None for conflict in integration.ledger.conflicts)
            return "rejected", "the experts disagree" if is_open else "there is no answer"
        if not task.example.has_reference:
            return "unverified", ""
        if not task.example.parts and self.verifier is stated_parts:
            return "unverified", "the reference is in words, and the answer may put it in others"
        score = self.verifier(task.example, integration.text)
        if score.value is None:
            return "unverified", score.reason
        wrong = [
            part.domain
            for part, grade in zip(task.example.parts, score.parts, strict=False)
            if grade < 1
        ]
        return (
            ("verified", "")
            if score.value >= 1
            else ("rejected", f"the reference contradicts the answer on {', '.join(wrong) or 'it'}")
        )

    def _validation(self) -> Validation:
        is_frozen = self._run.validation_examples.is_file()
        examples = (
            read_held_out(self._run, "validation")
            if is_frozen
            else list(self._given_validation or ())
        )
        return Validation(
            examples, self.verifier, getattr(self.evaluator, "sampling", self.response_sampling)
        )

    def _baselines(self) -> dict[str, LanguageModel]:
        baselines: dict[str, LanguageModel] = {"base": self.student_model}
        try:
            weight = self.trainer.merge_weight_in(self._run.training)
            start = Adaptation(start_from=tuple(self.teacher_models.values()), merge_weight=weight)
            records = (
                read_records(self._run.records, TrainingRecord)
                if self._run.records.is_file()
                else []
            )
            baselines["merge"] = self.trainer.copy_at(
                start, self.student_model, self.teacher_models, records
            )
        except CapabilityError as error:
            logger.info("There is no weight merge of the experts to compare with: %s", error)
        return baselines

    def _measure(
        self, evaluator: Evaluator, student: TrainableModel, examples: Sequence[Example]
    ) -> EvaluationReport:
        trained_on = (
            [record.example for record in trained_records(self._run.path)]
            if self._run.records.is_file()
            else None
        )
        baselines, ask = self._baselines(), self._over_gaps()
        self._measured = {**getattr(evaluator, "baselines", {}), **baselines, "student": student}
        options = options_for(
            evaluator.evaluate,
            baselines=baselines,
            trained_on=trained_on,
            ensemble=self._ensemble,
            ask=ask,
        )
        if "trained_on" not in options:
            examples, _ = hold_apart(examples, trained_on)
        report = evaluator.evaluate(student, self.teacher_models, examples, **options)
        return replace(
            report, notes=(*report.notes, *(f"{gap}; these have no grade." for gap in ask.gaps))
        )

    @property
    def _ensemble(self) -> Ensemble:
        """What the student replaces: the experts and the integrator."""
        return Ensemble(self.integrator, self.rebuttal, self._descriptions())

    def _measure_savings(self, student: TrainableModel, examples: Sequence[Example]) -> None:
        """Times the student against its experts, once in a run: the times of a busier hour would
        tell something else.
        """
        if self._run.savings.is_file():
            return
        sampling = getattr(self.evaluator, "sampling", self.response_sampling)
        savings = measure_savings(
            student, self.teacher_models, examples, sampling, self._ensemble.answer
        )
        if savings is not None:
            write_json(self._run.savings, savings, listed=True)

    def _refuse_other_responses(self, collected: Collected, files: StageFiles) -> None:
        records = read_records(files.records, TrainingRecord)
        # What failed when the records were written may have been answered since.
        gaps = {
            (record.example.id, r.domain)
            for record in records
            for r in record.responses
            if r.finish_reason == "failed"
        }
        stored = {
            record.example.id: sorted(
                r.text for r in record.responses if r.finish_reason != "failed"
            )
            for record in records
        }
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
                received=f"{len(given)} examples where the run has {len(stored)}",
                fix=f"use another output_dir, or delete {files.records}",
            )

    def _check_teachers(self, examples: Sequence[Example]) -> None:
        strange = [domain for domain in domains_of(examples) if domain not in self.teacher_models]
        if strange:
            raise ConfigurationError(
                f"Examples need the domain {strange[0]!r}, which has no teacher",
                allowed=", ".join(self.teacher_models),
                fix="add its expert",
            )

    def _over_gaps(self) -> AskOverGaps:
        """Returns how models are asked where an expert may leave a gap, if the run is to continue
        over it.
        """
        return AskOverGaps(
            self._ask, self.teacher_models if self.on_teacher_failure == "continue" else {}
        )

    def _role_of(self, model: LanguageModel) -> str:
        """Returns what `usage.json` says that a model is asked as."""
        stage, writers = (
            self._run.current_stage,
            [getattr(generator, "generation_model", None) for generator in self.data_generators],
        )
        if stage == "generate":
            judges = [getattr(generator, "judge", None) for generator in self.data_generators]
            return (
                "judge"
                if any(model is judge for judge in judges) and model not in writers
                else "generation"
            )
        domains = [domain for domain, teacher in self.teacher_models.items() if teacher is model]
        if stage == "integrate" and (
            not domains or model is getattr(self.integrator, "integration_model", None)
        ):
            # By its name: a model that is held to a JSON schema is another object.
            verifier = getattr(self.integrator, "verifier", None)
            return (
                "verification" if model.name == getattr(verifier, "name", None) else "integration"
            )
        if domains:
            return f"expert of {' and '.join(domains)}"
        if model.name == getattr(getattr(self.integrator, "integration_model", None), "name", None):
            return "integration"  # of the ensemble's answers, which the student is compared with
        return next((role for role, one in self._measured.items() if one is model), "judge")

    def _pin_dates(self, output_dir: str | Path | None) -> str | None:
        """Has the models write the day on which the run began, so that it can be resumed on another
        day.

        Returns:
            The day; None where no model writes it.
        """
        began = None if output_dir is None else date_of_run(Path(output_dir))
        day = began or datetime.now(UTC).date()
        models = models_in(
            [
                self.student_model,
                self.teacher_models,
                self.data_generators,
                self.integrator,
                self.evaluator,
            ]
        )
        is_written = [model.pin_date(day) for model in models if isinstance(model, DatedModel)]
        return day.isoformat() if any(is_written) else None

    def _inputs(self) -> dict[str, Any]:
        """Returns what decides the outcome of the run."""
        return {
            **({} if self._date is None else {"date": self._date}),
            "student": (
                describe(self.student_model)
                | ({"chat_template": self._speech} if self._speech else {})
            ),
            "teachers": describe(self.teacher_models),
            "generators": describe(self.data_generators),
            "trainer": describe(self.trainer),
            "integrator": describe(self.integrator),
            "rebuttal": self.rebuttal,
            **({"refinement_rounds": self.refinement_rounds} if self.refinement_rounds else {}),
            "response_sampling": describe(self.response_sampling),
            "verifier": describe(self.verifier),
            "test_examples": None if self._given_test is None else fingerprint(self._given_test),
            "validation_examples": (
                None if self._given_validation is None else fingerprint(self._given_validation)
            ),
            "holdout": self.holdout,
            "validation_holdout": self.validation_holdout,
            "group_by": describe(self.group_by),
            "hygiene": describe(self.hygiene),
            "seed": self.seed,
        }


def _warn_of_cut_thoughts(responses: Sequence[Response]) -> None:
    """Says which experts were cut while they thought, and so gave no answers."""
    cut = [
        response
        for response in responses
        if response.finish_reason == "length" and response.reasoning
    ]
    counts = Counter(response.domain for response in cut if not response.text)
    for domain, count in counts.items():
        logger.warning(
            "%d answers of the expert of %s were cut while it thought, and are empty: raise"
            " max_new_tokens of response_sampling, or switch thinking off, with"
            " template_arguments={'enable_thinking': False} where its chat template knows that.",
            count,
            domain,
        )
