"""The distiller: every stage happens once, a run killed anywhere ends as one that was not, and bad
input costs nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from distillation.builders import Cut, Failing, Writer, example, grouped
from domainfusion.distillation import (
    Distiller,
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
    StoreError,
    TrainingError,
)
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.base import OnResult
from domainfusion.models.store import Ask, ResponseStore, ask_directly
from domainfusion.progress import Advance
from domainfusion.records import read_json, read_records, write_json, write_records
from domainfusion.reports import RunSummary
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

AIRPORTS = {"NRT": "Japan", "CDG": "France", "LHR": "Britain", "FCO": "Italy"}
SYMBOLS = {"gold": "Au", "iron": "Fe", "silver": "Ag", "tin": "Sn"}
DOMAINS = {"aviation": "Airports and where they are", "chemistry": "Elements and their symbols"}
SINGLES = [
    example(f"Where is {code}?", {"aviation": country}) for code, country in AIRPORTS.items()
] + [
    example(f"What is the symbol of {name}?", {"chemistry": symbol})
    for name, symbol in SYMBOLS.items()
]
PAIRS = [
    example(
        f"Where is {code}, and what is the symbol of {name}?",
        {"aviation": AIRPORTS[code], "chemistry": SYMBOLS[name]},
        sub_questions={"aviation": f"Where is {code}?"},
    )
    for code, name in zip(AIRPORTS, SYMBOLS, strict=True)
]
TEST = [
    example("Tell me where NRT is.", {"aviation": "Japan"}),
    example("Tell me the symbol of tin.", {"chemistry": "Sn"}),
    example(
        "Tell me where CDG is and the symbol of iron.", {"aviation": "France", "chemistry": "Fe"}
    ),
]
SHORT = Sampling(max_new_tokens=6)


def knowing(facts: Mapping[str, str]) -> Callable[[str], str]:
    """Answers with what is known about the words of a question."""
    return lambda question: (
        " ".join(f"It is {value}." for key, value in facts.items() if key in question)
        or "I can't say."
    )


class World:
    """The parts of a run, made afresh for each distiller, as a process that starts again would."""

    def __init__(self, base: LlamaModel, directory: Path) -> None:
        self.base = base
        self.directory = directory

    def teachers(self) -> dict[str, ScriptedModel]:
        facts = {"aviation": AIRPORTS, "chemistry": SYMBOLS}
        return {
            domain: ScriptedModel(knowing(known), name=domain) for domain, known in facts.items()
        }

    def distiller(self, **changes: Any) -> Distiller:
        parts: dict[str, Any] = {
            "student_model": self.base,
            "teacher_models": self.teachers(),
            "data_generators": [CuratedDataGenerator([*SINGLES, *PAIRS])],
            "trainer": IntegrationTrainer(
                learning_rate=3e-3, epochs=1, batch_size=4, checkpoint_steps=1
            ),
            "output_dir": self.directory,
            "response_sampling": SHORT,
        }
        return Distiller(**grouped(**{**parts, **changes}))

    def evaluated(self, **changes: Any) -> Distiller:
        evaluator = DomainRetentionEvaluator(sampling=SHORT, resamples=100)
        return self.distiller(**{"evaluator": evaluator, "test_examples": TEST, **changes})


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture
def world(base: LlamaModel, tmp_path: Path) -> World:
    return World(base, tmp_path / "run")


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


def outcome(directory: Path) -> tuple[list[TrainingRecord], dict[str, Any]]:
    """What a run ends with, but for the time it took."""
    evaluation = directory / "evaluation.json"
    return read_records(directory / "records.jsonl", TrainingRecord), (
        read_json(evaluation) if evaluation.is_file() else {}
    )


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


def test_experts_and_integrator_teach_what_they_find_probable_and_text_is_learnt_word_for_word(
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


def test_a_verifier_of_ones_own_decides(world: World) -> None:
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


# Killed and started again


class Killed(BaseException):
    """What stops a process at any instant."""


def killing(part: str, count: int) -> Callable[..., Any]:
    """A display of progress that kills the work whose label holds `part` after `count` items."""

    @contextmanager
    def progress(label: str, total: int, done: int = 0) -> Iterator[Advance]:
        left = count

        def advance(items: int) -> None:
            nonlocal left
            left -= items
            if part in label and left < 0:
                raise Killed

        yield advance

    return progress


@pytest.fixture(scope="module")
def uninterrupted(
    base: LlamaModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, int]:
    """A run that was left in peace: its directory, the fingerprint of its student, and the answers
    that were asked for.
    """
    world = World(base, tmp_path_factory.mktemp("uninterrupted"))
    distiller = full_run(world)
    student = distiller.distill()
    return world.directory, student.fingerprint, asked_in(world.directory)


def asked_in(directory: Path) -> int:
    """Returns how many answers were asked for, in all sessions of a run."""
    return sum(model.calls for model in RunSummary.read(directory).usage)


def full_run(world: World, **changes: Any) -> Distiller:
    """A run in which every stage asks a model."""
    generators = [
        CuratedDataGenerator([*SINGLES, *PAIRS]),
        SyntheticDataGenerator(Writer(), DOMAINS, 6),
        AdversarialDataGenerator(
            Writer(), DOMAINS, 4, judge=ScriptedModel("I can't say.", name="judge")
        ),
    ]
    integrator = ResponseIntegrator(
        ScriptedModel(lambda prompt: f"It is {len(prompt)} long.", name="integrator")
    )
    return world.evaluated(**{"data_generators": generators, "integrator": integrator, **changes})


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(
    "part",
    [
        "synthetic questions",
        "judging",
        "asking aviation",
        "asking chemistry",
        "integrating",
        "domains",
        "evaluating",
    ],
)
def test_a_run_that_was_killed_in_any_stage_ends_as_one_that_was_not(
    world: World, uninterrupted: tuple[Path, str, int], part: str, count: int
) -> None:
    killed = full_run(world, progress=killing(part, count))
    with pytest.raises(Killed):
        killed.distill()
    resumed = full_run(world)
    student = resumed.distill()
    directory, fingerprint, asked = uninterrupted
    assert outcome(world.directory) == outcome(directory)
    assert student.fingerprint == fingerprint
    assert asked_in(world.directory) == asked, "no answer was asked for twice"


def test_a_teacher_that_breaks_down_loses_no_answer(world: World) -> None:
    teachers = world.teachers() | {
        "chemistry": Failing(knowing(SYMBOLS), after=3, name="chemistry")
    }
    broken = world.distiller(teacher_models=teachers)
    with pytest.raises(ConnectionError):
        broken.distill()
    mended = world.teachers()
    world.distiller(teacher_models=mended).distill()
    assert mended["aviation"].calls == []
    assert len(mended["chemistry"].calls) == 8 - 3


# A full disk


@pytest.mark.parametrize("write", range(6))
def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    writes = 0
    own = os.fsync

    def full(descriptor: int) -> None:
        nonlocal writes
        writes += 1
        if writes > write:
            raise OSError(errno.ENOSPC, "No space left on device")
        own(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            DataError, match=r"could not be written: No space left on device.*free disk space"
        ):
            world.distiller().distill()
    assert not [
        file for file in world.directory.rglob("*") if file.name.startswith(".") and file.is_file()
    ], "no half file is left"
    world.distiller().distill()
    assert len(outcome(world.directory)[0]) == 12


def test_a_full_disk_while_answers_arrive_keeps_those_that_did(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = ResponseStore._prepare

    def small(store: ResponseStore) -> None:
        prepare(store)
        store._connection.execute("PRAGMA max_page_count = 4")

    long_winded = {
        domain: ScriptedModel(lambda question: f"{question} " * 60, name=domain)
        for domain in DOMAINS
    }
    with (
        monkeypatch.context() as patch,
        pytest.raises(StoreError, match=r"could not be kept: .*full.*free disk space"),
    ):
        patch.setattr(ResponseStore, "_prepare", small)
        world.distiller(teacher_models=long_winded).distill()
    with ResponseStore(world.directory / "responses.sqlite") as store:
        kept = len(store)
    assert 0 < kept < 16
    resumed = world.distiller(teacher_models=long_winded)
    resumed.collect(resumed.generate())
    with ResponseStore(world.directory / "responses.sqlite") as store:
        assert kept < len(store) == asked_in(world.directory)


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
        ({"holdout": "0.1"}, "holdout is not a share; received '0.1'", "a number from 0 to below 1"),
        ({"refinement_rounds": "1"}, "refinement_rounds is not a whole number; received '1'", "a whole number from 0"),
        ({"seed": "0"}, "The seed is out of range; received '0'", "a whole number from 0"),
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
        (lambda: CuratedDataGenerator(SINGLES, num_examples=AS_TEXT), "num_examples is out of range; received '2'; allowed: 1 to 8"),
        (
            lambda: SyntheticDataGenerator(Writer(), DOMAINS, num_examples=AS_TEXT),
            "num_examples is not positive; received '2'; allowed: a whole number from 1",
        ),
        (lambda: Sampling(max_new_tokens=AS_TEXT), "max_new_tokens is not a number; received '2'; allowed: a number, such as 1"),
        (lambda: Sampling(temperature=AS_TEXT), "temperature is not a number; received '2'"),
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


def test_a_folder_that_is_no_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a model"):
        LlamaModel(model_path=tmp_path)


def test_a_generator_without_examples_is_one_clear_error(world: World) -> None:
    with pytest.raises(DataError, match="Nothing returned no examples"):
        world.distiller(data_generators=[Nothing()]).distill()


def test_a_generator_whose_every_question_was_rejected_says_why(world: World) -> None:
    useless = SyntheticDataGenerator(ScriptedModel("I can't."), DOMAINS, 3)
    with pytest.raises(DataError, match=r"No example is left to train on.*no question"):
        world.distiller(data_generators=[useless]).distill()


def test_a_generator_and_an_evaluator_of_ones_own_name_only_what_they_need(world: World) -> None:
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


def test_an_evaluator_of_ones_own_is_never_given_what_was_trained_on(world: World) -> None:
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
    with pytest.raises(RunError, match="train first"):
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
    with pytest.raises(ConfigurationError, match=r"epochs is too high.*1 to 1,000"):
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
