"""The distiller: several experts in, one student out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from domainfusion.distillation import outcomes
from domainfusion.distillation.asking import AskOverGaps, Roles, RunAsk, ask_first
from domainfusion.distillation.data_generation import DataGenerator, Focus
from domainfusion.distillation.dataset import (
    GeneratedBatch,
    assemble,
    assemble_more,
    read_held_out,
    run_generator,
)
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import Ensemble, Evaluator
from domainfusion.distillation.examples import ExampleLike, read_examples
from domainfusion.distillation.forecast import (
    Forecast,
    foresee,
    stages_of,
    time_a_step,
    time_answers,
)
from domainfusion.distillation.integration import Experts, ResponseIntegrator, Task
from domainfusion.distillation.measuring import (
    examples_trained_on,
    measure,
    measure_savings,
    merge_of,
)
from domainfusion.distillation.parts import Parts, check_items, check_teachers
from domainfusion.distillation.refinement import (
    Refiner,
    Stages,
    Validation,
)
from domainfusion.distillation.run import (
    RunDirectory,
    StageFiles,
    about_student,
    default_publisher,
    read_refinement,
)
from domainfusion.distillation.settings import DataSettings, RunSettings
from domainfusion.distillation.targets import (
    Collected,
    make_records,
    read_records_of,
    read_samples,
    warn_of_cut_thoughts,
    warn_of_refusals,
)
from domainfusion.distillation.trainer import Trainer
from domainfusion.errors import ConfigurationError, RunError
from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.models.placement import DataType
from domainfusion.progress import ProgressChoice, Speaks, choose_progress, doing
from domainfusion.records import read_records, write_json, write_records
from domainfusion.training import distributed
from domainfusion.types import (
    Example,
    Response,
    TrainingRecord,
)
from domainfusion.wording import listed

__all__ = ["Distiller", "ResponseIntegrator"]

logger = logging.getLogger("domainfusion")


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
        data: What else is held out, and what is removed from the generated examples.
        settings: How the run asks, checks, refines and reports.
        progress: Shows how far each stage is, and a line with its outcome: by default on stderr
            where that is a terminal or a notebook; None shows nothing.

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
        data: DataSettings = DataSettings(),
        settings: RunSettings = RunSettings(),
        progress: ProgressChoice = "auto",
    ) -> None:
        self.progress = choose_progress(progress)
        parts = Parts.checked(
            student_model,
            teacher_models,
            data_generators,
            trainer,
            evaluator,
            integrator,
            test_examples=test_examples,
            data=data,
            settings=settings,
            seed=seed,
        )
        self._parts = parts
        self._forecast = Forecast(self.progress, stages_of(parts), lambda: self._run.current_stage)
        self.student_model = parts.student
        self.teacher_models = parts.teachers
        self.data_generators = parts.generators
        self.trainer = trainer
        self.evaluator = evaluator
        self.integrator = parts.integrator
        self.seed = seed
        self.data = parts.data
        self.settings = settings
        self.publisher = settings.publisher or default_publisher()
        self.student: TrainableModel | None = None
        self._is_refined = False
        self.report: EvaluationReport | None = None
        if not isinstance(output_dir, str | Path | None):
            raise ConfigurationError(
                "output_dir is not a path", received=output_dir, allowed="a path, or None"
            )
        path = None if output_dir is None else Path(output_dir)
        self._run = RunDirectory(
            path,
            parts.inputs(date=parts.pin_date(path)),
            settings.title,
            say=self.progress.say if isinstance(self.progress, Speaks) else None,
            watch=self._forecast.over,
        )
        self.output_dir = self._run.path
        self._roles = Roles(self.teacher_models, self.data_generators, self.integrator)
        self._ask = RunAsk(
            self._run, self._roles, self._forecast, settings.answers_for(self._run.path)
        )
        if settings.on_teacher_failure == "stop" and not self._run.examples.is_file():
            # Before the directory is claimed: a test set that is corrected makes another run.
            parts.lengths.fitting(parts.test, "test")
            parts.lengths.fitting(parts.validation, "validation")

    def __repr__(self) -> str:
        generators = ", ".join(type(generator).__name__ for generator in self.data_generators)
        made = self._run.made(has_student=self.student is not None)
        return (
            f"Distiller({', '.join(self.teacher_models)} → {self.student_model.name}; {generators};"
            f" {type(self.trainer).__name__}; kept in {self.output_dir}, which has"
            f" {listed(made or ['nothing yet'])})"
        )

    def distill(self, *, on_trained: Callable[[], object] = lambda: None) -> TrainableModel:
        """Runs every stage and returns the trained student, which answers at once.

        Args:
            on_trained: Called once there is a `student`, before it is measured; what it saves is
                there whatever the evaluation meets.

        Of several processes that `torchrun` or `accelerate launch` started, the main one runs every
        stage; the others come to train.
        """
        distributed.init_process_group()
        with doing("looking at where the student starts"):
            self._parts.note_start()
        if not distributed.is_main_process():
            distributed.barrier()
            self.student = self._train(read_records(self._run.records, TrainingRecord), self._run)
            return self.student
        with self.hold():
            examples = self.generate()
            time_a_step(self._forecast, self._parts, self._run, examples)
            responses = self.collect(examples)
            time_answers(self._forecast, self._parts, self._run, examples)
            records = self.integrate(responses)
            distributed.barrier()
            student = self.train(records)
            if self.settings.refinement_rounds:
                student = self.refine()
            on_trained()
            if self.evaluator is not None:
                self.evaluate(student)
            else:
                self.publisher.write_reports(self.output_dir)
        return student

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds the run's directory for this process, so that no other writes there; in the block,
        stages hold it no second time.

        Raises:
            ModelError: The command of an engine is missing, or can't be run.
            RunError: Another process holds it, it belongs to other inputs, or it can't be written
                to.
        """
        self._check_commands()
        with self._run.open():
            yield

    def ask_first(self) -> None:
        """Asks every expert behind an API one question, so that a wrong key, address or name shows
        before anything else is done. The answer is stored: each is asked once.

        Raises:
            ModelError: One did not answer, and `on_teacher_failure` is `stop`.
        """
        if self._run.records.is_file():
            return
        with self._run.open():
            ask_first(
                self._ask,
                self.teacher_models,
                self.settings.response_sampling,
                stops=self.settings.on_teacher_failure == "stop",
            )

    def _check_commands(self) -> None:
        """Looks for the commands of engines before anything is asked or written; where the records
        are there, the experts have answered.
        """
        if not self._run.records.is_file():
            self._parts.check_commands()

    def is_finished(self) -> bool:
        """Whether the run was evaluated by this evaluator, and nothing that the evaluation follows
        from was deleted or changed since: then `distill()` would find the same again.

        It loads no model. Where an expert may leave questions unanswered, the answer is no: they
        may be answered now.
        """
        if self.evaluator is None or self.settings.on_teacher_failure == "continue":
            return False
        with self._run.open():
            return self._run.is_evaluated_by(self.evaluator)

    def generate(self) -> list[Example]:
        """Lets every generator make its examples, freezes the test set, and returns the examples to
        train on.
        """
        self._check_commands()
        with self._run.open():
            self._run.announce()
            if self._run.examples.is_file():
                self._run.tell_made_before("generate", outcomes.generated(self._run))
            else:
                with self._run.stage("generate") as tell:
                    self._generate()
                    tell(outcomes.generated(self._run))
            examples = read_records(self._run.examples, Example)
            foresee(self._forecast, self._parts, self._run, examples)
            return examples

    def collect(self, examples: Sequence[Example]) -> list[tuple[Example, Mapping[str, Response]]]:
        """Asks the expert of each of an example's domains: its sub-question if there is one, else
        the whole query.
        """
        check_items("examples", examples, Example, "generate()")
        check_teachers(examples, self.teacher_models)
        with self._run.open(), self._run.stage("collect") as tell:
            tasks = self._experts().answer(examples)
            responses = [response for task in tasks for response in task.responses.values()]
            warn_of_cut_thoughts(responses)
            warn_of_refusals(responses)
            tell(outcomes.collected(responses))
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
        check_items("records", records, TrainingRecord, "integrate()")
        with self._run.open(), self._run.stage("train") as tell:
            self.student, self._is_refined = self._train(records, self._run), False
            tell(outcomes.trained(records, self._run))
            self._run.add_to_description("student", about_student(self.student))
            return self.student

    def refine(self) -> TrainableModel:
        """Makes more examples where validation shows the trained student weakest, and trains on;
        returns the student at its best.

        Raises:
            RunError: There is no student yet, or `refinement_rounds` is 0.
        """
        if self.student is None or not self.settings.refinement_rounds:
            fix = (
                "call distill() or train() first"
                if self.settings.refinement_rounds
                else "give refinement_rounds=..."
            )
            raise RunError(
                "There is nothing to refine",
                received=f"refinement_rounds={self.settings.refinement_rounds}",
                fix=fix,
            )
        if self._is_refined:
            return self.student
        with self._run.open(), self._run.stage("refine") as tell:
            self.student = Refiner(
                rounds=self.settings.refinement_rounds,
                files=self._run,
                stages=Stages(
                    make=self._generate_more,
                    integrate=self._collect_and_integrate,
                    train=self._train,
                ),
                validation=self._validation(),
                teachers=self.teacher_models,
                ask=self._over_gaps(),
                seed=self.seed,
            ).refine(self.student)
            self._is_refined = True
            tell(outcomes.refined(read_refinement(self._run)))
            return self.student

    def evaluate(
        self,
        student: TrainableModel | None = None,
        *,
        examples: str | Path | Sequence[ExampleLike] | None = None,
    ) -> EvaluationReport:
        """Measures the student beside its base, every expert, and their weight merge where there is
        one, and writes the report of the run.

        Args:
            student: The student; by default the one that was trained.
            examples: Other examples than the run's test set, as objects, dicts or a file; what is
                found on them is returned and not kept.

        Raises:
            RunError: There is no student, no evaluator, or no test set yet.
            ConfigurationError: An example needs a domain that has no teacher.
            DataError: Examples were trained on, and the evaluator refuses such.
        """
        student = student or self.student
        if student is None or self.evaluator is None:
            missing = "student" if student is None else "evaluator"
            raise RunError(
                f"There is no {missing} to evaluate with",
                fix="call distill() or train() first" if student is None else "give evaluator=...",
            )
        if examples is not None:
            others = list(read_examples(examples))
            check_teachers(others, self.teacher_models)
            with self._run.open():
                return self._measure(self.evaluator, student, others)
        if not self._run.test_examples.is_file():
            raise RunError("There is no test set yet", fix="call generate() first")
        with self._run.open():
            with self._run.stage("evaluate") as tell:
                held_out = read_held_out(self._run, "test")
                self._run.note_evaluation({})  # until it is there again, whatever ends this process
                self.report = self._measure(self.evaluator, student, held_out)
                write_json(self._run.evaluation, self.report, listed=True)
                self._measure_savings(student, held_out)
                if student is self.student:
                    self._ask.flush()  # a finished run asks nothing again
                    self._run.note_evaluation(self._run.evaluation_by(self.evaluator))
                tell(self.report.headline)
            with doing("writing the report"):
                self.publisher.write_reports(self.output_dir)
            self._run.tell(f"The report is in {self._run.html_report}.")
            return self.report

    def save(self, path: str | Path, *, merge: bool = True, dtype: DataType | None = None) -> Path:
        """Writes the student, with a model card, to a folder that plain Transformers loads, and
        returns the folder.

        Of several processes the main one writes.

        Args:
            path: The folder.
            merge: Merge an adapter into its base; with False it stays an adapter.
            dtype: The numbers of whole weights, such as `bfloat16`; by default those that the base
                was saved in, or smaller ones that it computes in. A student that is not a
                `HuggingFaceModel` chooses them itself.

        Raises:
            RunError: There is no student yet.
        """
        if self.student is None:
            raise RunError("There is no student to save", fix="call distill() or train() first")
        folder = Path(path)
        if distributed.is_main_process():
            numbers = {} if dtype is None else {"dtype": dtype}
            self.student.save(folder, merge=merge, **numbers)
            self.publisher.write_model_card(folder, self.output_dir)
        return folder

    # The stages' details

    def _made_by(
        self, generators: Sequence[DataGenerator], focus: Focus | None = None
    ) -> list[GeneratedBatch]:
        """Runs generators; their examples have teachers for their domains and fit the contexts."""
        batches = [run_generator(generator, self._ask, focus) for generator in generators]
        check_teachers(
            [example for batch in batches for example in batch.generated], self.teacher_models
        )
        lengths = self._parts.lengths
        for batch in batches:
            lengths.check_batch(batch)
        return batches

    def _generate(self) -> None:
        batches = self._made_by(self.data_generators)
        lengths = self._parts.lengths
        held_out = replace(
            self._parts.held_out,
            test=lengths.fitting(self._parts.test, "test"),
            validation=lengths.fitting(self._parts.validation, "validation"),
        )
        dataset = assemble(batches, held_out, self.data.hygiene)
        if self.evaluator is not None:
            dataset.check_test(self.evaluator.metric, self.data.holdout)
        if self.settings.refinement_rounds:
            dataset.check_validation(self.settings.verifier)
        dataset.warn_of_idle(self.teacher_models)
        dataset.write(self._run)

    def _generate_more(self, focus: Focus, files: StageFiles) -> list[Example]:
        """Lets every generator that can make more examples where the focus says; they are trained
        on and nothing else.
        """
        if not files.examples.is_file():
            with self._run.stage("generate"):
                able = [generator for generator in self.data_generators if generator.has_more]
                batches = self._made_by(able, focus)
                frozen = replace(
                    self._parts.held_out,
                    test=read_held_out(self._run, "test"),
                    validation=read_held_out(self._run, "validation"),
                )
                examples = assemble_more(batches, focus.earlier, frozen, self.data.hygiene)
                write_json(files.generation, [batch.count() for batch in batches], listed=True)
                write_records(files.examples, examples, listed=True)
        return read_records(files.examples, Example)

    def _experts(self) -> Experts:
        return Experts(
            self.teacher_models,
            self._over_gaps(),
            self.settings.response_sampling,
            self.integrator.screening,
        )

    def _over_gaps(self) -> AskOverGaps:
        """Returns how models are asked where an expert may leave a gap, if the run is to continue
        over it.
        """
        continues = self.settings.on_teacher_failure == "continue"
        return AskOverGaps(self._ask, self.teacher_models if continues else {})

    def _integrate(self, collected: Collected, files: StageFiles) -> list[TrainingRecord]:
        if files.records.is_file():
            records = read_records_of(collected, files)
            made = outcomes.integrated(records, read_samples(files))
            self._run.tell_made_before("integrate", made)
            return records
        with self._run.stage("integrate") as tell:
            records, sampled = make_records(
                [Task(example, responses) for example, responses in collected],
                partial(
                    self.integrator.integrate_all,
                    domains=self._parts.descriptions,
                    ask=self._ask,
                ),
                samples=self.settings.samples,
                experts=self._experts(),
                verifier=self.settings.verifier,
            )
            if self.settings.samples > 1:
                write_json(files.samples, sampled, listed=True)
            write_records(files.records, records, listed=True)
            tell(outcomes.integrated(records, sampled))
        return read_records(files.records, TrainingRecord)

    def _collect_and_integrate(
        self, examples: Sequence[Example], files: StageFiles
    ) -> list[TrainingRecord]:
        return self._integrate(self.collect(examples), files)

    def _train(
        self,
        records: Sequence[TrainingRecord],
        files: StageFiles,
        start: TrainableModel | None = None,
    ) -> TrainableModel:
        validation = self._validation()
        writer = self.integrator.integration_model
        return self.trainer.train(
            self.student_model,
            records,
            start=start,
            teachers={
                domain: self._ask.booked(teacher, domain)
                for domain, teacher in self.teacher_models.items()
            },
            integrator=None if writer is None else self._ask.booked(writer, "cross-domain targets"),
            validate=validation if validation.examples else None,
            directory=files.training,
            seed=self.seed,
            progress=self._forecast,
        )

    def _validation(self) -> Validation:
        is_frozen = self._run.validation_examples.is_file()
        examples = (
            read_held_out(self._run, "validation")
            if is_frozen
            else list(self._parts.validation or ())
        )
        return Validation(examples, self.settings.verifier, self._parts.sampling, self._forecast)

    def _measure(
        self, evaluator: Evaluator, student: TrainableModel, examples: Sequence[Example]
    ) -> EvaluationReport:
        """Evaluates the student beside its base and the experts' merge."""
        baselines: dict[str, LanguageModel] = {"base": self.student_model}
        merge = merge_of(
            self.trainer, self.student_model, self.teacher_models, self._run, self._forecast
        )
        if merge is not None:
            baselines["merge"] = merge.model
        self._roles.measured = {**evaluator.baselines, **baselines, "student": student}
        return measure(
            evaluator,
            student,
            self.teacher_models,
            examples,
            baselines=baselines,
            trained_on=examples_trained_on(self._run),
            ensemble=self._ensemble,
            ask=self._over_gaps(),
            notes=() if merge is None else (merge.note,),
        )

    def _measure_savings(self, student: TrainableModel, examples: Sequence[Example]) -> None:
        """Times the student against its experts, once in a run: the times of a busier hour would
        differ.
        """
        if self._run.savings.is_file():
            return
        if not self._ask.has_asked_experts():
            # Timing means asking; a second try with the answers of the first asks no expert.
            logger.info("The experts are not timed: their answers were taken from other runs.")
            return
        with doing("timing the student against its experts"):
            savings = measure_savings(
                student, self.teacher_models, examples, self._parts.sampling, self._ensemble.answer
            )
        if savings is not None:
            write_json(self._run.savings, savings, listed=True)

    @property
    def _ensemble(self) -> Ensemble:
        """What the student replaces: the experts and the integrator."""
        return Ensemble(self.integrator, self._parts.descriptions)
