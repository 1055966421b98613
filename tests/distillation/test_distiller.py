"""The distiller: every stage happens once, a run killed anywhere ends as one that was not, and bad
input costs nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from distillation.builders import Cut, Failing, Writer, example
from domainfusion.distillation import (
    IntegrationTrainer,
    MultiTaskTrainer,
    ResponseIntegrator,
)
from domainfusion.distillation.data_generation import (
    AdversarialDataGenerator,
    CuratedDataGenerator,
    DataGenerator,
    SyntheticDataGenerator,
)
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import (
    BenchmarkEvaluator,
)
from domainfusion.errors import (
    DataError,
)
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.base import OnResult
from domainfusion.models.store import Ask, ask_directly
from domainfusion.progress import Advance
from domainfusion.records import read_json, read_records
from domainfusion.types import (
    Conversation,
    Example,
    Generation,
    Message,
    Sampling,
    Score,
    TrainingRecord,
    user,
)

from .world import (
    AIRPORTS,
    DOMAINS,
    PAIRS,
    SHORT,
    SINGLES,
    SYMBOLS,
    TEST,
    World,
    knowing,
    outcome,
)


class Watch:
    """A display of progress that keeps what was begun and what was said."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        self.labels.append(label)
        yield lambda _: None


# A whole run


def test_a_run_leaves_every_arrow_as_a_file(world: World) -> None:
    distiller = world.evaluated()
    student = distiller.distill()
    assert student is distiller.student
    assert len(student.generate([user(SINGLES[0].query)], SHORT)) == 1
    written = {file.name for file in world.directory.iterdir()}
    assert {
        "run.json", "examples.jsonl", "test_examples.jsonl", "generation.json", "responses.sqlite", "records.jsonl", "training",
        "evaluation.json", "stages.json", "report.html",
    } <= written  # fmt: skip
    stored = TypeAdapter(EvaluationReport).validate_python(
        read_json(world.directory / "evaluation.json")
    )
    assert stored == distiller.report
    assert [entry["stage"] for entry in read_json(world.directory / "stages.json")] == [
        "generate", "collect", "integrate", "train", "evaluate"
    ]  # fmt: skip


def test_a_second_call_asks_no_model_and_trains_nothing(world: World) -> None:
    first = world.evaluated()
    student = first.distill()
    watch = Watch()
    silent = {domain: Failing(knowing({}), after=0, name=domain) for domain in DOMAINS}
    again = world.evaluated(teacher_models=silent, progress=watch)
    assert again.distill().fingerprint == student.fingerprint
    assert watch.labels == []
    assert again.report == first.report
    assert all(model.calls == [] for model in silent.values())


def test_step_by_step_is_the_same_as_at_once(world: World, tmp_path: Path) -> None:
    at_once = world.evaluated()
    at_once.distill()
    stepwise = world.evaluated(output_dir=tmp_path / "steps")
    student = stepwise.train(stepwise.integrate(stepwise.collect(stepwise.generate())))
    report = stepwise.evaluate(student)
    assert outcome(tmp_path / "steps") == outcome(world.directory)
    assert report == at_once.report
    assert (tmp_path / "steps" / "report.html").is_file()


def test_every_stage_says_in_a_line_what_came_of_it(world: World) -> None:
    first, again = Watch(), Watch()
    world.evaluated(progress=first).distill()
    resumed = world.evaluated(progress=again)
    resumed.distill()
    assert resumed.report is not None
    without_seconds = [re.sub(r"; [0-9.]+ s$", "", line) for line in first.lines]
    kept = f"The run is kept in {world.directory}; the same inputs resume it there."
    written = f"The report is in {world.directory / 'report.html'}."
    assert without_seconds[:4] == [
        kept,
        "generate: 12 examples to train on, 3 to test",
        "collect: 16 responses from 2 experts",
        "integrate: 12 records, 12 verified by a reference",
    ]
    assert re.fullmatch(r"train: 12 records in 4 steps, loss [0-9.]+ → [0-9.]+", without_seconds[4])
    assert without_seconds[5:] == [f"evaluate: {resumed.report.headline}", written]
    assert again.lines == [
        kept,
        "generate: 12 examples to train on, 3 to test, made before",
        "collect: 16 responses from 2 experts",
        "integrate: 12 records, 12 verified by a reference, made before",
        without_seconds[4],
        *without_seconds[5:],
    ]


class Overseer(Watch):
    """A display that watches over the run, and notes how far all of it is at each answer."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: list[str] = []
        self._words: Callable[[], str] = str

    @contextmanager
    def over(self, whole: Callable[[], str] | None = None) -> Iterator[None]:
        self._words = whole or self._words
        yield

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        with super().__call__(label, total, done) as advance:

            def show(count: int) -> None:
                advance(count)
                self.whole.append(self._words())

            yield show


def test_how_long_the_whole_run_takes_is_known_before_it_trains(
    world: World, tmp_path: Path
) -> None:
    overseer = Overseer()
    student = world.evaluated(progress=overseer).distill()
    first_step = next(place for place, words in enumerate(overseer.whole) if "train" in words)
    before = overseer.whole[:first_step]
    assert any(re.fullmatch(r"stage 2 of 5, collect, .* left", words) for words in before)
    assert overseer.whole[-1] == "stage 5 of 5, evaluate, less than a minute left"
    # The step that was timed for it left no trace.
    unseen = World(world.base, tmp_path / "unseen").evaluated(progress=None).distill()
    found, wanted = student.trained_state(), unseen.trained_state()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
    assert found.keys() == wanted.keys()


def test_what_the_log_shows_is_not_said_twice(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch()
    with caplog.at_level("INFO", logger="domainfusion"):
        world.distiller(progress=watch).generate()
    assert watch.lines == []
    assert any(message.startswith("generate: 12 examples") for message in caplog.messages)


def test_where_nobody_looks_on_nothing_is_shown(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.evaluated().distill()
    assert capfd.readouterr() == ("", "")


def test_the_same_inputs_have_the_same_directory_and_others_another(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    first, same, other = (world.distiller(output_dir=None, seed=seed) for seed in (0, 0, 1))
    assert first.output_dir == same.output_dir != other.output_dir
    assert first.output_dir.parent == Path("runs")
    assert not first.output_dir.exists(), "nothing is written before there is work"


def test_the_student_given_stays_as_it_is(world: World) -> None:
    before = world.base.fingerprint
    assert world.distiller().distill().fingerprint != before
    assert world.base.fingerprint == before


# Asking


def test_an_expert_is_asked_about_its_own_domain_alone_and_its_sub_question_first(
    world: World,
) -> None:
    teachers = world.teachers()
    world.distiller(teacher_models=teachers).distill()
    asked = {
        domain: Counter(conversation[-1].content for conversation in model.calls)
        for domain, model in teachers.items()
    }
    assert asked["aviation"] == Counter(f"Where is {code}?" for code in AIRPORTS), (
        "each once: a sub-question may be a question, too"
    )
    wholes = [f"What is the symbol of {name}?" for name in SYMBOLS] + [pair.query for pair in PAIRS]
    assert asked["chemistry"] == Counter(wholes)


def test_the_student_learns_and_is_asked_the_whole_query(world: World) -> None:
    records = (distiller := world.evaluated()).integrate(distiller.collect(distiller.generate()))
    pair = next(record for record in records if record.example.query == PAIRS[0].query)
    assert pair.target == "It is Japan. It is Au."
    assert [response.question for response in pair.responses] == ["Where is NRT?", PAIRS[0].query]
    student = ScriptedModel("I can't say.")
    distiller.evaluate(student)  # type: ignore[arg-type]
    assert [conversation[-1].content for conversation in student.calls] == [
        given.query for given in TEST
    ]


TURNS = (*user("I fly to NRT."), Message("assistant", "Have a good trip!"))


def test_experts_integrator_and_student_are_asked_after_the_turns_before(world: World) -> None:
    talk = example(
        "Where is it, and what is gold?", {"aviation": "Japan", "chemistry": "Au"}, history=TURNS
    )
    teachers = {
        domain: ScriptedModel(f"It is {answer}.")
        for domain, answer in (("aviation", "Japan"), ("chemistry", "Au"))
    }
    writer = ScriptedModel("It is Japan, and Au.")
    distiller = world.evaluated(
        teacher_models=teachers,
        data_generators=[CuratedDataGenerator([talk])],
        test_examples=[example("And tin?", {"chemistry": "Sn"}, history=TURNS)],
        integrator=ResponseIntegrator(writer),
    )
    (record,) = distiller.integrate(distiller.collect(distiller.generate()))
    assert record.example == talk
    assert {model.calls[0] for model in teachers.values()} == {talk.conversation}
    assert (
        "User: I fly to NRT.\nAssistant: Have a good trip!\nUser: Where is it, and what is gold?"
        in writer.calls[0][0].content
    )
    student = ScriptedModel("I can't say.")
    distiller.evaluate(student)  # type: ignore[arg-type]
    assert student.calls == [(*TURNS, *user("And tin?"))]


def test_the_same_question_after_other_turns_is_another_one(world: World) -> None:
    alone, after = (
        example("Where is it?", domains=["aviation"], history=turns) for turns in ((), TURNS)
    )
    distiller = world.evaluated(
        data_generators=[CuratedDataGenerator([*SINGLES, after])], test_examples=[*TEST, alone]
    )
    assert after in distiller.generate()


class NeverCut(LlamaModel):
    """Has random weights that never end an answer, and calls each whole: an answer that is cut
    would not be integrated.
    """

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        def whole(found: Generation) -> Generation:
            return replace(found, finish_reason="stop")

        def told(index: int, found: Generation) -> None:
            if on_result is not None:
                on_result(index, whole(found))

        return list(map(whole, super().generate(conversations, sampling, told)))


def test_experts_and_integrator_teach_what_they_find_probable_and_text_is_trained_with_cross_entropy(
    world: World, make_adapter: Callable[..., Path]
) -> None:
    examples = [example(f"{item.query} Why?", domains=item.domains) for item in (*SINGLES, *PAIRS)]
    integrator = LlamaModel(make_adapter("integrator", 9), dtype="float32")
    distiller = world.distiller(
        teacher_models={
            **world.teachers(),
            "aviation": NeverCut(make_adapter("aviation", 8), dtype="float32"),
        },
        data_generators=[CuratedDataGenerator(examples)],
        integrator=ResponseIntegrator(
            integrator, "{query}\n{responses}", verify=False, sampling=SHORT
        ),
        trainer=MultiTaskTrainer(
            learning_rate=3e-3, epochs=1, batch_size=4, objective="distribution"
        ),
    )
    distiller.distill()
    said = json.loads((world.directory / "training" / "log.jsonl").read_text().splitlines()[0])
    assert said["taught"] == {"aviation": len(AIRPORTS), "integrator": len(PAIRS)}
    assert said["word_for_word"] == {"chemistry gives text alone": len(SYMBOLS)}


def test_responses_stand_primary_domain_first(world: World) -> None:
    led = example(
        "Where is CDG, and the symbol of tin?",
        {"aviation": "France", "chemistry": "Sn"},
        primary_domain="chemistry",
    )
    distiller = world.distiller(data_generators=[CuratedDataGenerator([led])])
    (record,) = distiller.integrate(distiller.collect(distiller.generate()))
    assert [response.domain for response in record.responses] == ["chemistry", "aviation"]
    assert record.target == "It is Sn. It is France."


# Verification


class Noticing(MultiTaskTrainer):
    """Keeps the records that the phases are made of."""

    def phases(self, records: Sequence[TrainingRecord]) -> list[Any]:
        self._seen = [record.example.query for record in records]
        return super().phases(records)


def test_a_target_that_the_reference_contradicts_is_kept_for_the_report_and_never_trained_on(
    world: World,
) -> None:
    teachers = world.teachers() | {
        "chemistry": ScriptedModel(knowing({**SYMBOLS, "gold": "Go"}), name="chemistry")
    }
    trainer = Noticing(learning_rate=3e-3, epochs=1)
    distiller = world.distiller(teacher_models=teachers, trainer=trainer)
    distiller.distill()
    records, _ = outcome(world.directory)
    wrong = [record for record in records if record.verification == "rejected"]
    assert {record.example.query for record in wrong} == {
        "What is the symbol of gold?",
        PAIRS[0].query,
    }
    assert all("chemistry" in record.reason for record in wrong)
    assert len(records) == 12
    assert sorted(trainer._seen) == sorted(
        {record.example.query for record in records} - {record.example.query for record in wrong}
    )


class Refusing(Cut):
    finish_reason = "refused"


@pytest.mark.parametrize(
    ("chemist", "reason"),
    [
        (Refusing("I can't help."), "refused"),
        (ScriptedModel(" "), "reference contradicts|no answer"),
    ],
)
def test_a_refusal_or_an_empty_response_is_never_trained_on(
    world: World, chemist: ScriptedModel, reason: str
) -> None:
    distiller = world.distiller(teacher_models=world.teachers() | {"chemistry": chemist})
    records = distiller.integrate(distiller.collect(distiller.generate()))
    touched = [record for record in records if "chemistry" in record.example.domains]
    assert {record.verification for record in touched} == {"rejected"}
    assert all(any(word in record.reason for word in reason.split("|")) for record in touched)


def test_without_a_reference_a_target_is_unverified_and_trained_on(world: World) -> None:
    open_question = example("Why do people fly?", domains=["aviation"])
    in_words = example("Where is LHR, in words?", domains=["aviation"], reference="In London.")
    distiller = world.distiller(
        data_generators=[CuratedDataGenerator([*SINGLES, open_question, in_words])]
    )
    records = {
        record.example.query: record
        for record in distiller.integrate(distiller.collect(distiller.generate()))
    }
    assert (
        records[open_question.query].verification
        == records[in_words.query].verification
        == "unverified"
    )


def test_a_custom_verifier_decides(world: World) -> None:
    in_words = example("Where is LHR, in words?", domains=["aviation"], reference="In London.")

    def strict(given: Example, text: str) -> Score:
        return Score(0.0) if given.reference else Score.unscored("no reference")

    distiller = world.distiller(
        data_generators=[CuratedDataGenerator([*SINGLES, in_words])], verifier=strict
    )
    records = {
        record.example.query: record
        for record in distiller.integrate(distiller.collect(distiller.generate()))
    }
    assert records[in_words.query].verification == "rejected"
    assert records[SINGLES[0].query].verification == "unverified"


# Generating


def test_test_and_validation_queries_are_removed_from_the_training_data_and_counted(
    world: World,
) -> None:
    leaks = [
        example("tell me where  NRT is.", {"aviation": "Japan"}),
        example("where is  LHR?", {"aviation": "Britain"}),
        SINGLES[1],
    ]
    generators = [CuratedDataGenerator([*SINGLES, *PAIRS]), CuratedDataGenerator(leaks)]
    distiller = world.evaluated(data_generators=generators, validation_examples=[SINGLES[0]])
    queries = [given.query for given in distiller.generate()]
    assert not {given.query for given in (*leaks[:2], SINGLES[0])} & set(queries)
    assert len(queries) == len(set(queries)) == 11
    for count in read_json(world.directory / "generation.json"):
        assert count["asked"] == count["accepted"] + sum(count["rejected"].values())


def test_counts_of_every_generator_add_up(world: World) -> None:
    generators = [
        SyntheticDataGenerator(Writer(), DOMAINS, 6),
        AdversarialDataGenerator(ScriptedModel("What is it then?"), DOMAINS, 4),
    ]
    curated = CuratedDataGenerator(
        [
            {"query": "Where is NRT?", "domain": "aviation"},
            {"query": "where is  NRT?", "domain": "aviation"},
        ]
    )
    distiller = world.distiller(data_generators=[curated, *generators])
    examples = distiller.generate()
    counts = read_json(world.directory / "generation.json")
    assert [count["kind"] for count in counts] == ["curated", "synthetic", "adversarial"]
    assert [count["accepted"] for count in counts] == [1, 6, 1]
    assert sum(count["accepted"] for count in counts) == len(examples)
    assert all(
        count["asked"] == count["accepted"] + sum(count["rejected"].values()) for count in counts
    )


def test_a_share_of_the_examples_is_held_out_where_no_test_set_is_given(world: World) -> None:
    distiller = world.evaluated(test_examples=None, holdout=0.25)
    kept = distiller.generate()
    held = read_records(world.directory / "test_examples.jsonl", Example)
    assert Counter(given.domains for given in held) == {
        ("aviation",): 1,
        ("chemistry",): 1,
        ("aviation", "chemistry"): 1,
    }
    (count,) = read_json(world.directory / "generation.json")
    removed = {item["query"] for item in count["removed"]}
    assert {given.query for given in kept} | {given.query for given in held} | removed == {
        given.query for given in (*SINGLES, *PAIRS)
    }
    (symbol,) = (given.query for given in held if given.domains == ("chemistry",))
    assert not any(symbol[1:] in given.query for given in kept), "no pair holds a test question"


def test_a_share_of_the_examples_is_what_checkpoints_are_chosen_by(world: World) -> None:
    trainer = IntegrationTrainer(learning_rate=3e-3, epochs=1, batch_size=4, evaluation_steps=1)
    distiller = world.evaluated(validation_holdout=0.25, trainer=trainer)
    distiller.distill()
    held = read_records(world.directory / "validation_examples.jsonl", Example)
    assert Counter(given.domains for given in held) == {
        ("aviation",): 1,
        ("chemistry",): 1,
        ("aviation", "chemistry"): 1,
    }
    trained = {record.example.id for record in outcome(world.directory)[0]}
    assert not trained & {given.id for given in held}
    log = [
        json.loads(line)
        for line in (
            (world.directory / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        )
    ]
    assert all(
        set(line["validation"]) <= {"aviation", "chemistry", "cross-domain"}
        for line in log
        if "validation" in line
    )
    assert any("validation" in line for line in log)


def test_nothing_that_contains_a_benchmarks_question_is_trained_on(world: World) -> None:
    asked = {"query": "And what is the symbol of gold?", "answers": ["Au"]}
    evaluator = BenchmarkEvaluator({"chemistry": [asked]}, sampling=SHORT, resamples=100)
    queries = [
        given.query for given in world.distiller(evaluator=evaluator, test_examples=TEST).generate()
    ]
    assert not any("symbol of gold" in query for query in queries if query.startswith("Where"))
    (count,) = read_json(world.directory / "generation.json")
    assert [item["reason"] for item in count["removed"]] == [
        "contains a question of the chemistry benchmark set"
    ]
    assert count["removed"][0]["contained"] == asked["query"]


@pytest.mark.parametrize("name", ["test", "validation"])
def test_held_out_examples_that_were_changed_by_hand_are_noticed(world: World, name: str) -> None:
    distiller = world.evaluated(validation_holdout=0.25)
    records = distiller.integrate(distiller.collect(distiller.generate()))
    file = world.directory / f"{name}_examples.jsonl"
    whole = file.read_text(encoding="utf-8")
    file.write_text(
        whole.replace("Japan", "Nippon").replace("Au", "Go").replace("France", "Gaul"),
        encoding="utf-8",
    )
    assert file.read_text(encoding="utf-8") != whole
    with pytest.raises(DataError, match=rf"damaged, or was changed .*{name}_examples"):
        distiller.evaluate(world.base) if name == "test" else distiller.train(records)
    (world.directory / "checksums.json").unlink()
    with pytest.raises(DataError, match=f"The {name} examples were changed"):
        distiller.evaluate(world.base) if name == "test" else distiller.train(records)
    file.write_text(whole, encoding="utf-8")
    distiller.evaluate(world.base) if name == "test" else distiller.train(records)


def test_a_derived_directory_is_told_once(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    distiller = world.distiller(output_dir=None)
    distiller.collect(distiller.generate())
    distiller.generate()
    assert capsys.readouterr().err.count(str(distiller.output_dir)) == 1


def test_a_test_set_that_can_not_be_graded_is_spoken_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ungraded = [Example(query="Tell me where NRT is.", domains=("aviation",))]
    world.evaluated(test_examples=ungraded).generate()
    assert "None of the 1 test examples has a reference answer" in caplog.text


def test_a_test_set_that_can_be_graded_is_not(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.evaluated().generate()
    assert "has a reference answer" not in caplog.text


def test_an_expert_that_no_example_needs_is_spoken_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Aviation(DataGenerator):
        def generate(self, ask: Ask = ask_directly) -> list[Example]:
            return SINGLES[:4]

    world.distiller(data_generators=[Aviation()]).generate()
    assert "No training example needs the domain chemistry" in caplog.text


# The student as a folder


@pytest.mark.parametrize("merge", [True, False])
def test_a_saved_student_answers_as_it_did(world: World, tmp_path: Path, merge: bool) -> None:
    trainer = IntegrationTrainer(
        learning_rate=1e-2, epochs=3, batch_size=4, adaptation="lora", initialization="base"
    )
    distiller = world.evaluated(trainer=trainer)
    student = distiller.distill()
    distiller.save(tmp_path / "saved", merge=merge)
    loaded = LlamaModel(tmp_path / "saved", dtype="float32")
    asked = [user(given.query) for given in (*SINGLES, *PAIRS)]
    assert [answer.text for answer in loaded.generate(asked, SHORT)] == [
        answer.text for answer in student.generate(asked, SHORT)
    ]
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "aviation" in card and "chemistry" in card
    assert json.loads(
        (tmp_path / "saved" / ("config.json" if merge else "adapter_config.json")).read_text()
    )


@pytest.mark.parametrize(
    "name", ["test_examples.jsonl", "validation_examples.jsonl", "generation.json"]
)
def test_a_file_that_is_lost_is_named_before_anything_is_asked(world: World, name: str) -> None:
    distiller = world.evaluated(validation_holdout=0.25)
    examples = distiller.generate()
    frozen = {path.name: path.read_bytes() for path in world.directory.glob("*examples.jsonl")}
    (world.directory / name).unlink()
    with pytest.raises(DataError, match=rf"missing; received .*{name}.*delete examples.jsonl"):
        distiller.collect(examples)
    (world.directory / "examples.jsonl").unlink()
    assert distiller.generate() == examples
    assert frozen == {
        path.name: path.read_bytes() for path in world.directory.glob("*examples.jsonl")
    }
