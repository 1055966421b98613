"""Mistakes: one clear error each, before anything is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distillation.builders import Writer, example
from domainfusion.distillation import (
    IntegrationTrainer,
    MultiTaskTrainer,
    ResponseIntegrator,
)
from domainfusion.distillation.data_generation import (
    CuratedDataGenerator,
    DataGenerator,
    SyntheticDataGenerator,
)
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import (
    DomainRetentionEvaluator,
    Evaluator,
)
from domainfusion.distillation.results import Estimate, ModelResult, SliceScore
from domainfusion.errors import (
    CapabilityError,
    ConfigurationError,
    DataError,
    ModelError,
    RunError,
    TrainingError,
)
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.records import read_json, read_records, write_json, write_records
from domainfusion.types import (
    Example,
    Sampling,
    Score,
    TrainingRecord,
    user,
)

from .world import DOMAINS, PAIRS, SHORT, SINGLES, TEST, World, outcome

# Bad input


class Nothing(DataGenerator):
    """Makes no examples."""

    def generate(self, ask: Ask = ask_directly) -> list[Example]:
        return []


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        pytest.param({"teacher_models": {}}, ConfigurationError, "no teachers", id="no domains"),
        pytest.param({"teacher_models": {"": ScriptedModel("x")}}, ConfigurationError, "no name", id="empty name"),
        pytest.param(
            {"teacher_models": {"Aviation": ScriptedModel("x"), "aviation ": ScriptedModel("x")}}, ConfigurationError, "same name",
            id="same name",
        ),
        pytest.param({"teacher_models": {"aviation": "gpt"}}, CapabilityError, "can't answer", id="a teacher that is no model"),
        pytest.param(
            {"teacher_models": {"aviation": ScriptedModel("x"), "chemistry": ScriptedModel("x"), "geology": ScriptedModel("x")}},
            ConfigurationError, "No generator makes examples of 'geology'", id="a teacher for an unknown domain",
        ),
        pytest.param(
            {"teacher_models": {"aviation": ScriptedModel("x")}}, ConfigurationError, "'chemistry', which has no teacher",
            id="a domain without a teacher",
        ),
        pytest.param({"data_generators": []}, ConfigurationError, "no data generators", id="no generators"),
        pytest.param({"student_model": ScriptedModel("x")}, CapabilityError, "can't be trained", id="a student that can't be trained"),
        pytest.param({"test_examples": []}, DataError, "no examples to evaluate on", id="no test examples"),
        pytest.param({"holdout": 1.0}, ConfigurationError, "holdout", id="holdout"),
        pytest.param({"holdout": float("nan")}, ConfigurationError, "holdout", id="holdout that is not a number"),
        pytest.param(
            {"test_examples": [example("?", {"geology": "x"})]}, DataError, "'geology', which has no expert", id="strange test example"
        ),
        pytest.param({"test_examples": TEST + TEST[:1] * 2}, DataError, "the same id", id="repeated test example"),
        pytest.param({"validation_examples": [{"query": "Where?"}]}, DataError, "names no domain", id="broken validation example"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error_before_anything_is_done(
    world: World, changes: dict[str, Any], error: type, what: str
) -> None:
    if what == "the same id":
        changes = {
            "test_examples": [TEST[0], example("Another?", {"aviation": "x"}, id=TEST[0].id)]
        }
    with pytest.raises(error, match=what):
        world.evaluated(**changes)
    assert not world.directory.exists()


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"data_generators": CuratedDataGenerator(SINGLES)}, "data_generators is not a list; received", "write [generator]"),
        ({"data_generators": [SINGLES]}, "An entry of data_generators is not a DataGenerator; received", "CuratedDataGenerator(...)"),
        ({"data_generators": [CuratedDataGenerator]}, "data_generators[0] is a class, not an object", "CuratedDataGenerator(...)"),
        ({"student_model": LlamaModel}, "student_model is a class, not an object; received", "write LlamaModel(...)"),
        ({"teacher_models": {"aviation": ScriptedModel}}, "teacher_models['aviation'] is a class", "write ScriptedModel(...)"),
        ({"teacher_models": [ScriptedModel("x")]}, "teacher_models names no domains; received", 'write {"domain": model}'),
        ({"trainer": MultiTaskTrainer}, "trainer is a class, not an object; received", "write MultiTaskTrainer(...)"),
        ({"trainer": "multi_task"}, "trainer has the wrong type; received 'multi_task'", "an object of Trainer or a subclass"),
        ({"evaluator": DomainRetentionEvaluator}, "evaluator is a class", "write DomainRetentionEvaluator(...)"),
        ({"evaluator": True}, "evaluator has the wrong type; received True", "an object of Evaluator or a subclass"),
        ({"integrator": ResponseIntegrator}, "integrator is a class", "write ResponseIntegrator(...)"),
        ({"holdout": "0.1"}, "holdout is out of range; received '0.1'", "a number from 0 to below 1"),
        ({"refinement_rounds": "1"}, "refinement_rounds is out of range; received '1'", "a whole number from 0"),
        ({"seed": "0"}, "seed is out of range; received '0'", "a whole number from 0"),
        ({"progress": True}, "progress is not a display; received True", 'write progress="auto"'),
    ],
)  # fmt: skip
def test_misuse_says_what_was_given_and_what_to_write(
    world: World, changes: dict[str, Any], what: str, fix: str
) -> None:
    with pytest.raises(ConfigurationError) as failure:
        world.evaluated(**changes)
    assert str(failure.value).startswith(what) and fix in str(failure.value)
    assert not world.directory.exists()


AS_TEXT: Any = "2"


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (
            lambda: CuratedDataGenerator(SINGLES, num_examples=AS_TEXT),
            "num_examples is out of range; received '2'; allowed: a whole number from 1 to 8",
        ),
        (
            lambda: SyntheticDataGenerator(Writer(), DOMAINS, num_examples=AS_TEXT),
            "num_examples is out of range; received '2'; allowed: a whole number from 1",
        ),
        (lambda: Sampling(max_new_tokens=AS_TEXT), "max_new_tokens is out of range; received '2'; allowed: a whole number from 1"),
        (lambda: Sampling(temperature=AS_TEXT), "temperature is out of range; received '2'"),
    ],
)  # fmt: skip
def test_a_number_as_text_is_refused_where_it_is_given(
    build: Callable[[], object], what: str
) -> None:
    with pytest.raises(ConfigurationError) as failure:
        build()
    assert str(failure.value).startswith(what)


def test_a_distiller_shows_what_it_distills_and_how_far_it_is(world: World) -> None:
    distiller = world.distiller()
    start = (
        f"Distiller(aviation, chemistry → {world.base.name}; CuratedDataGenerator;"
        f" IntegrationTrainer; kept in {world.directory}, which has"
    )
    assert repr(distiller) == f"{start} nothing yet)"
    distiller.distill()
    assert repr(distiller) == f"{start} examples, records, a student and a report)"


def test_an_adapter_is_a_student_that_is_trained_on(
    world: World, make_adapter: Callable[..., Path]
) -> None:
    student = world.distiller(
        student_model=LlamaModel(make_adapter("aviation", 1), dtype="float32")
    ).distill()
    assert student.ask("Where?") is not None


def test_a_merge_that_can_not_be_is_told_before_anything_is_asked(
    world: World, make_adapter: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    experts = {
        "aviation": LlamaModel(make_adapter("aviation", 1, use_dora=True), dtype="float32"),
        "chemistry": LlamaModel(make_adapter("chemistry", 2), dtype="float32"),
    }
    trainer = IntegrationTrainer(learning_rate=1e-3, adaptation="lora", initialization="merge")
    with pytest.raises(CapabilityError, match="DoRA"):
        world.distiller(
            teacher_models=experts, trainer=trainer, output_dir=world.directory / "asked"
        ).distill()
    assert not (world.directory / "asked" / "examples.jsonl").exists()
    trainer = IntegrationTrainer(learning_rate=1e-3, adaptation="lora", epochs=1)
    anything = {"verifier": lambda *_: Score(1.0)}
    world.distiller(
        teacher_models=experts, trainer=trainer, output_dir=world.directory / "auto", **anything
    ).distill()
    told = [record.message for record in caplog.records if "starts from its base" in record.message]
    assert len(told) == 1 and "DoRA" in told[0]
    log = (world.directory / "auto" / "training" / "log.jsonl").read_text()
    assert "why_not_merged" in log


def test_a_folder_that_is_not_a_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a model"):
        LlamaModel(model_path=tmp_path)


def test_a_generator_without_examples_is_one_clear_error(world: World) -> None:
    with pytest.raises(DataError, match="Nothing returned no examples"):
        world.distiller(data_generators=[Nothing()]).distill()


def test_a_generator_whose_every_question_was_rejected_says_why(world: World) -> None:
    useless = SyntheticDataGenerator(ScriptedModel("I can't."), DOMAINS, 3)
    with pytest.raises(DataError, match=r"No example is left to train on.*no question"):
        world.distiller(data_generators=[useless]).distill()


def test_a_custom_generator_and_an_evaluator_name_only_what_they_need(world: World) -> None:
    class Own(DataGenerator):
        def generate(self) -> list[Example]:  # type: ignore[override]
            return [*SINGLES, *PAIRS]

    class Shouting(Evaluator):
        def evaluate(  # type: ignore[override]
            self, student_model: Any, teacher_models: Any, examples: Any
        ) -> EvaluationReport:
            answer, *_ = student_model.generate([examples[0].conversation], SHORT)
            part = SliceScore(
                items=1,
                strict=Estimate(value=float(answer.text.isupper())),
                partial=Estimate(value=0.0),
            )
            return EvaluationReport(
                models=(ModelResult(name="student", role="student", slices={"loud": part}),)
            )

    distiller = world.evaluated(data_generators=[Own()], evaluator=Shouting())
    distiller.distill()
    assert distiller.report is not None
    assert distiller.report.slices == ("loud",)


@pytest.mark.parametrize("made", [None, "What is gold?", ["What is gold?"], 3])
def test_a_generator_that_returns_no_examples_is_one_clear_error(world: World, made: Any) -> None:
    class Own(DataGenerator):
        def generate(self) -> Any:  # type: ignore[override]
            return made

    with pytest.raises(DataError, match=r"no examples|can't be read|names no domain"):
        world.distiller(data_generators=[Own()]).distill()


def test_a_custom_evaluator_is_never_given_what_was_trained_on(world: World) -> None:
    class Blind(Evaluator):
        def evaluate(  # type: ignore[override]
            self, student_model: Any, teacher_models: Any, examples: Any
        ) -> EvaluationReport:
            raise AssertionError("it was asked")

    distiller = world.evaluated(evaluator=Blind(), test_examples=None, holdout=0.4)
    student = distiller.train(distiller.integrate(distiller.collect(distiller.generate())))
    records = read_records(world.directory / "records.jsonl", TrainingRecord)
    held_out = read_records(world.directory / "test_examples.jsonl", Example)[0]
    write_records(
        world.directory / "records.jsonl",
        [*records, replace(records[0], example=replace(held_out, id="leaked"))],
        listed=True,
    )
    with pytest.raises(DataError, match="trained on"):
        distiller.evaluate(student)


def test_too_few_examples_to_hold_any_out_is_an_error_before_anything_is_trained(
    world: World,
) -> None:
    generator = CuratedDataGenerator([SINGLES[0], SINGLES[4]])
    with pytest.raises(DataError, match=r"No example is held out .*2 examples.*test_examples"):
        world.evaluated(data_generators=[generator], test_examples=None).distill()
    assert not (world.directory / "training").exists()


def test_a_domain_of_a_custom_generator_without_a_teacher_is_one_clear_error(world: World) -> None:
    class Strange(DataGenerator):
        def generate(self, ask: Ask = ask_directly) -> list[Example]:
            return [example("What is granite?", domains=["geology"])]

    with pytest.raises(ConfigurationError, match="'geology', which has no teacher"):
        world.distiller(data_generators=[Strange()]).distill()


def test_two_examples_with_one_id_are_one_clear_error(world: World) -> None:
    twins = [
        example("One question?", {"aviation": "x"}, id="1"),
        example("Another?", {"chemistry": "x"}, id="1"),
    ]
    with pytest.raises(DataError, match="the same id"):
        world.distiller(data_generators=[CuratedDataGenerator(twins)]).distill()


def test_experts_that_say_nothing_are_one_clear_error_and_their_records_stay(world: World) -> None:
    silent = {domain: ScriptedModel("", name=domain) for domain in DOMAINS}
    with pytest.raises(TrainingError, match=r"none of 12 records is usable.*there is no answer"):
        world.distiller(teacher_models=silent).distill()
    records, _ = outcome(world.directory)
    assert {record.verification for record in records} == {"rejected"}


def test_other_inputs_in_the_same_directory_are_refused_and_the_run_is_kept(world: World) -> None:
    world.distiller().distill()
    before = outcome(world.directory)
    with pytest.raises(RunError, match="seed: was 0, is 1"):
        world.distiller(seed=1).distill()
    assert outcome(world.directory) == before


def test_other_responses_than_those_of_the_run_are_refused(world: World) -> None:
    distiller = world.distiller()
    collected = distiller.collect(distiller.generate())
    distiller.integrate(collected)
    assert len(distiller.integrate(collected)) == 12
    with pytest.raises(RunError, match="records of other responses"):
        distiller.integrate(collected[1:])


def test_other_records_than_those_that_were_trained_on_are_refused(world: World) -> None:
    distiller = world.distiller()
    records = distiller.integrate(distiller.collect(distiller.generate()))
    distiller.train(records)
    with pytest.raises(RunError, match=r"other inputs \(records: count was 12, is 11"):
        distiller.train(records[1:])


def test_evaluating_on_what_was_trained_on_is_refused(world: World) -> None:
    distiller = world.evaluated()
    distiller.distill()
    test_set = world.directory / "test_examples.jsonl"
    test_set.write_text(
        (world.directory / "examples.jsonl").read_text(encoding="utf-8"), encoding="utf-8"
    )
    about = read_json(world.directory / "run.json")
    write_json(world.directory / "run.json", {**about, "held_out": {}})
    (world.directory / "checksums.json").unlink()
    with pytest.raises(DataError, match="test queries were trained on"):
        distiller.evaluate()


def test_what_is_not_there_yet_says_what_to_do(world: World) -> None:
    distiller = world.evaluated()
    with pytest.raises(RunError, match="call distill"):
        distiller.save("nowhere")
    with pytest.raises(RunError, match=r"train\(\) first"):
        distiller.evaluate()
    with pytest.raises(RunError, match=r"call generate\(\) first"):
        distiller.evaluate(world.base)
    with pytest.raises(RunError, match="give evaluator"):
        world.distiller().evaluate(world.base)


class NotedPublisher:
    """Notes what it is asked to write."""

    def __init__(self) -> None:
        self.written: list[tuple[Path, ...]] = []

    def write_reports(self, run_directory: Path) -> None:
        self.written.append((run_directory,))

    def write_model_card(self, folder: Path, run_directory: Path) -> None:
        self.written.append((folder, run_directory))


def test_another_publisher_writes_in_place_of_the_reports(world: World, tmp_path: Path) -> None:
    publisher = NotedPublisher()
    distiller = world.distiller(publisher=publisher)
    distiller.distill()
    assert distiller.save(str(tmp_path / "saved")) == tmp_path / "saved"
    run = distiller.output_dir
    assert publisher.written == [(run,), (tmp_path / "saved", run)]
    assert not (run / "report.html").exists()
    assert not (tmp_path / "saved" / "README.md").exists()


@pytest.mark.parametrize(
    "name", ["run.json", "examples.jsonl", "test_examples.jsonl", "records.jsonl", "stages.json"]
)
def test_a_changed_byte_is_named_before_anything_is_asked(world: World, name: str) -> None:
    distiller = world.evaluated()
    distiller.integrate(distiller.collect(distiller.generate()))
    path = world.directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"damaged, or was changed .*{name}"):
        world.evaluated().distill()
    assert not (world.directory / "training").exists()


def test_records_that_somebody_edits_are_trained_on_once_their_line_is_deleted(
    world: World,
) -> None:
    distiller = world.distiller()
    distiller.integrate(distiller.collect(distiller.generate()))
    path, listed = world.directory / "records.jsonl", world.directory / "checksums.json"
    records = read_records(path, TrainingRecord)
    integration = replace(records[0].integration, text="Edited by hand.")
    write_records(path, [replace(records[0], integration=integration), *records[1:]])
    sums = json.loads(listed.read_text())
    del sums["records.jsonl"]
    listed.write_text(json.dumps(sums))
    edited = distiller.integrate(distiller.collect(distiller.generate()))
    assert edited[0].target == "Edited by hand."
    distiller.train(edited)


LONG = " ".join(["Where is the airport on the river?"] * 80)


def test_a_test_question_that_is_too_long_is_refused_before_the_run_begins(world: World) -> None:
    too_long = [*TEST, example(LONG, {"aviation": "Japan"})]
    with pytest.raises(
        DataError,
        match=r"1 of 4 test examples are too long: 'Where is the .*context of the student",
    ):
        world.evaluated(test_examples=too_long)
    assert not world.directory.exists()
    assert world.evaluated(test_examples=TEST).generate()


def test_a_training_question_that_is_too_long_is_named_before_anything_is_asked(
    world: World,
) -> None:
    teachers = {**world.teachers(), "aviation": world.base}
    generator = CuratedDataGenerator([*SINGLES, example(LONG, {"aviation": "Japan"})])
    distiller = world.distiller(teacher_models=teachers, data_generators=[generator])
    with pytest.raises(
        DataError, match=r"1 of .* training examples are too long: .*expert of aviation, by \d+"
    ):
        distiller.distill()
    assert not (world.directory / "examples.jsonl").exists()


def test_questions_that_are_too_long_are_left_out_where_that_is_set(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    generator = CuratedDataGenerator([*SINGLES, example(LONG, {"aviation": "Japan"})])
    distiller = world.evaluated(
        data_generators=[generator],
        test_examples=[*TEST, example(f"{LONG} Where?", {"aviation": "Japan"})],
        on_teacher_failure="continue",
    )
    examples = distiller.generate()
    assert {each.query for each in examples} == {each.query for each in SINGLES}
    removed = read_json(world.directory / "generation.json")[0]["removed"]
    assert [entry["query"] for entry in removed] == [LONG]
    assert "does not fit the context of the student" in removed[0]["reason"]
    assert "1 of 4 test examples are left out" in caplog.text
    frozen = read_records(world.directory / "test_examples.jsonl", Example)
    assert [each.query for each in frozen] == [each.query for each in TEST]


@pytest.mark.parametrize("seed", [-1, 2**32, True, 1.5])
def test_a_seed_that_nothing_can_be_drawn_with_is_refused_at_once(world: World, seed: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"seed is out of range.*0 to 4,294,967,295"):
        world.distiller(seed=seed)


def test_epochs_that_would_never_end_are_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"epochs is out of range.*1 to 1,000"):
        IntegrationTrainer(epochs=10**7)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_weights_that_are_replaced_before_they_are_used_are_noticed(
    make_llama: Callable[..., Path], suffix: str
) -> None:
    folder, other = make_llama("one", 11), make_llama("other", 12)
    model = LlamaModel(folder, dtype="float32")
    assert model.fingerprint
    if suffix == ".safetensors":
        (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    else:
        (folder / "new.json").write_text("{}")
    with pytest.raises(ModelError, match="replaced after it was set up"):
        model.generate([user("Where is NRT?")], SHORT)
