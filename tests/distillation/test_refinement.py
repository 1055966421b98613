"""Refinement: rounds that go where validation is weak, help or are undone, and end as they would
have without a stop.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from distillation.builders import Writer, example, grouped, record
from domainfusion.distillation import (
    Distiller,
    ExecutionSettings,
    MultiTaskTrainer,
    RunSettings,
    Trainer,
)
from domainfusion.distillation.data_generation import (
    AdversarialDataGenerator,
    CuratedDataGenerator,
    DataGenerator,
    Focus,
    SyntheticDataGenerator,
    WritingSettings,
)
from domainfusion.distillation.dataset import HeldOut, assemble_more, run_generator
from domainfusion.distillation.evaluator import DomainRetentionEvaluator
from domainfusion.distillation.refinement import (
    replayed,
    shortfalls_of,
    trained_records,
)
from domainfusion.distillation.results import Refinement, RefinementRound
from domainfusion.distillation.run import StageFiles, read_refinement
from domainfusion.errors import ConfigurationError, DataError, RunError, TrainingError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.progress import Advance
from domainfusion.records import read_json, read_records
from domainfusion.types import Example, Sampling, Score, TrainingRecord

DOMAINS = {"aviation": "Airports and where they are", "chemistry": "Elements and their symbols"}
AIRPORTS = {"NRT": "Japan", "CDG": "France", "LHR": "Britain", "FCO": "Italy"}
SYMBOLS = {"gold": "Au", "iron": "Fe", "silver": "Ag", "tin": "Sn"}
FIRST = [
    example("Where is NRT?", {"aviation": "Japan"}),
    example("What is the symbol of gold?", {"chemistry": "Au"}),
    example(
        "Where is NRT, and what is the symbol of gold?", {"aviation": "Japan", "chemistry": "Au"}
    ),
]
MORE = [
    *(
        example(f"Where is {code}?", {"aviation": country})
        for code, country in AIRPORTS.items()
        if code != "NRT"
    ),
    *(
        example(f"What is the symbol of {name}?", {"chemistry": symbol})
        for name, symbol in SYMBOLS.items()
        if name != "gold"
    ),
]
VALIDATION = [
    example("Please name where CDG lies.", {"aviation": "France"}),
    example("Please name the symbol that iron has.", {"chemistry": "Fe"}),
    example(
        "Please name where LHR lies and the symbol that tin has.",
        {"aviation": "Britain", "chemistry": "Sn"},
    ),
]
TEST = [
    example("Tell me where FCO is.", {"aviation": "Italy"}),
    example("Tell me the symbol of silver.", {"chemistry": "Ag"}),
]
SHORT = Sampling(max_new_tokens=8)


def knowing(facts: Mapping[str, str]) -> Callable[[str], str]:
    """Answers with what is known about the words of a question."""
    return lambda question: (
        " ".join(f"It is {value}." for key, value in facts.items() if key in question)
        or "I can't say."
    )


def form(given: Example, text: str) -> Score:
    """Grades how an answer begins, which a tiny student learns in a few steps."""
    return Score(sum(word in text for word in ("It", "is", ".")) / 3)


def learning(rate: float) -> Trainer:
    """At 0.005 each round improves how answers begin, and at 1e-6 none does anything."""
    return MultiTaskTrainer(
        learning_rate=rate, epochs=4, batch_size=4, execution=ExecutionSettings(checkpoint_steps=1)
    )


class Pool(DataGenerator):
    """Gives its first examples first, and where it is told so, half of what is left of the
    others.
    """

    has_more = True

    def __init__(self, more: Sequence[Example] = MORE) -> None:
        self._more = more
        self._asked: list[Focus] = []

    def generate(self, ask: Ask = ask_directly, *, focus: Focus | None = None) -> list[Example]:
        if focus is None:
            return FIRST
        self._asked.append(focus)
        known = {given.id for given in focus.earlier}
        fresh = [given for given in self._more if given.id not in known]
        return fresh[: len(fresh) // 2 + 1]


class World:
    def __init__(self, base: LlamaModel, directory: Path) -> None:
        self.base = base
        self.directory = directory

    def distiller(self, **changes: Any) -> Distiller:
        facts = {"aviation": AIRPORTS, "chemistry": SYMBOLS}
        parts: dict[str, Any] = {
            "student_model": self.base,
            "teacher_models": {
                domain: ScriptedModel(knowing(known), name=domain)
                for domain, known in facts.items()
            },
            "data_generators": [Pool()],
            "trainer": learning(5e-3),
            "evaluator": DomainRetentionEvaluator(sampling=SHORT, resamples=100),
            "test_examples": TEST,
            "validation_examples": VALIDATION,
            "response_sampling": SHORT,
            "verifier": form,
            "refinement_rounds": 2,
            "output_dir": self.directory,
        }
        return Distiller(**grouped(**{**parts, **changes}))


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


def refinement_of(world: World) -> Refinement:
    return read_refinement(StageFiles(world.directory))


@pytest.fixture
def world(base: LlamaModel, tmp_path: Path) -> World:
    return World(base, tmp_path / "run")


# Where more is wanted

NAMES = st.sampled_from(["law", "art", "tax"])
WEIGHTS = st.dictionaries(
    st.lists(NAMES, min_size=1, unique=True).map(tuple), st.floats(0.01, 1), min_size=1
)


@given(WEIGHTS, st.integers(1, 200))
def test_a_focus_splits_all_of_what_is_wanted_and_gives_the_weakest_most(
    weights: dict[tuple[str, ...], float], count: int
) -> None:
    found = Focus(weights=weights).apportion(count, ["law", "art", "tax"])
    assert sum(found.values()) == count
    assert found.get(max(weights, key=lambda domains: weights[domains]), 0) == max(found.values())
    for domains, weight in weights.items():
        assert abs(found.get(domains, 0) - count * weight / sum(weights.values())) < 1


@given(WEIGHTS, st.integers(1, 50))
def test_a_focus_wants_only_what_there_can_be(
    weights: dict[tuple[str, ...], float], count: int
) -> None:
    found = Focus(weights=weights).apportion(count, ["law", "art"], most=1)
    assert set(found) <= {("law",), ("art",)}
    assert sum(found.values()) == (count if {("law",), ("art",)} & set(weights) else 0)


@pytest.mark.parametrize(
    "weights", [{}, {("law",): 0.0}, {("law",): -1.0, ("art",): 1.0}, {("law",): float("nan")}]
)
def test_a_focus_without_weight_is_refused(weights: dict[tuple[str, ...], float]) -> None:
    with pytest.raises(ConfigurationError, match="A focus has no weight"):
        Focus(weights=weights)


def test_a_writer_fills_the_slots_of_its_focus_with_other_questions_each_round() -> None:
    generator = SyntheticDataGenerator(Writer(), DOMAINS, 8, cross_domain_ratio=0.0)
    first = generator.generate().examples
    focus = Focus(weights={("aviation",): 0.25, ("aviation", "chemistry"): 0.75}, earlier=first)
    again = generator.generate(focus=focus).examples
    assert Counter(frozenset(made.domains) for made in again) == {
        frozenset(["aviation"]): 2,
        frozenset(DOMAINS): 6,
    }
    assert Counter(made.primary_domain for made in again if made.is_cross_domain) == {
        "aviation": 3,
        "chemistry": 3,
    }
    next_round = generator.generate(
        focus=replace(focus, round=2, earlier=(*first, *again))
    ).examples
    queries = [made.query for made in (*first, *again, *next_round)]
    assert len(queries) == len(set(queries)) == 24


def test_a_writer_asks_again_where_it_writes_what_is_there_already() -> None:
    stubborn = SyntheticDataGenerator(
        ScriptedModel("Where do all the aircraft land?"),
        DOMAINS,
        2,
        writing=WritingSettings(max_rounds=2),
    )
    there = example("Where do all the aircraft land?", domains=["aviation"])
    made = stubborn.generate(focus=Focus(weights={("aviation",): 1.0}, earlier=(there,)))
    assert len(made) == 0
    assert made.rejected == {"duplicate": 4}


def test_adversarial_questions_need_the_weak_domain_and_look_like_the_others() -> None:
    domains = {**DOMAINS, "law": "What is allowed"}
    generator = AdversarialDataGenerator(Writer(), domains, 4, verify=False)
    made = generator.generate(
        focus=Focus(weights={("law",): 1.0, ("aviation", "law"): 9.0})
    ).examples
    assert Counter((given.primary_domain, given.apparent_domain) for given in made) == {
        ("law", "aviation"): 2,
        ("law", "chemistry"): 2,
    }
    several = AdversarialDataGenerator(
        Writer(), domains, 8, verify=False, writing=WritingSettings(max_questions=4)
    )
    begun = several.generate(focus=Focus(weights={("law",): 1.0, ("aviation",): 1.0}))
    assert Counter(given.primary_domain for given in begun.examples) == {
        "law": 2,
        "aviation": 2,
    }, "what is asked first is balanced"
    across = generator.generate(focus=Focus(weights={("aviation", "law"): 1.0}))
    assert (len(across), across.wanted) == (0, 0), "no question of one domain helps across two"


def test_curated_examples_come_from_what_was_not_taken_first() -> None:
    generator = CuratedDataGenerator([*FIRST, *MORE], num_examples=4, seed=1)
    first = generator.generate().examples
    made = generator.generate(
        focus=Focus(weights={("chemistry",): 3.0, ("aviation",): 1.0}, earlier=(MORE[0],))
    ).examples
    assert not {given.id for given in made} & {given.id for given in (*first, MORE[0])}
    left = Counter(given.domains for given in (*FIRST, *MORE[1:]) if given not in first)
    wanted = Counter(
        {("chemistry",): min(3, left["chemistry",]), ("aviation",): min(1, left["aviation",])}
    )
    assert Counter(given.domains for given in made) == wanted


def test_a_generator_says_whether_it_has_more() -> None:
    class Plain(DataGenerator):
        def generate(self, ask: Ask = ask_directly) -> list[Example]:
            return FIRST

    assert Pool().has_more
    assert CuratedDataGenerator(FIRST, num_examples=2).has_more
    assert not CuratedDataGenerator(FIRST).has_more
    assert not CuratedDataGenerator(FIRST, num_examples=len(FIRST)).has_more
    assert not Plain().has_more


# What is weak


def test_what_is_missing_is_retention_of_a_domain_and_accuracy_across_domains() -> None:
    swapped = example("Of both?", domains=["chemistry", "aviation"])
    examples = [
        *VALIDATION,
        swapped,
        example("Where?", domains=["aviation"]),
        example("Ungraded?", domains=["aviation"]),
    ]
    student = [0.25, 0.9, 0.5, 0.0, 0.0, None]
    experts = {"aviation": {0: 1.0, 4: 0.0, 5: 1.0}, "chemistry": {1: 0.6}}
    found = {
        shortfall.domains: shortfall for shortfall in shortfalls_of(examples, student, experts)
    }
    assert found["aviation",].missing == pytest.approx(1 - 0.125 / 0.5)
    assert found["aviation",].items == 2, "what has no grade counts for nothing"
    assert found["chemistry",].missing == 0, "more than the expert knows is nothing to miss"
    assert found["aviation", "chemistry"].missing == pytest.approx(0.75), (
        "in whatever order the domains stand"
    )
    assert [*found] == sorted(found, key=lambda domains: -found[domains].missing)


def test_an_expert_that_knows_nothing_leaves_nothing_to_miss() -> None:
    (found,) = shortfalls_of(VALIDATION[:1], [0.0], {"aviation": {0: 0.0}, "chemistry": {}})
    assert found.missing == 0


@given(
    st.lists(st.sampled_from([("law",), ("art",), ("law", "art"), ("art", "law")]), min_size=1),
    st.integers(0, 20),
    st.integers(),
)
def test_a_replay_has_every_kind_of_earlier_record_and_none_twice(
    kinds: list[tuple[str, ...]], count: int, seed: int
) -> None:
    earlier = [
        record(f"Question {number}?", domains=domains) for number, domains in enumerate(kinds)
    ]
    drawn = replayed(earlier, count, random.Random(seed))
    assert {given.example.domains for given in drawn} == set(kinds)
    assert (
        len({given.example.id for given in drawn})
        == len(drawn)
        == min(len(earlier), max(count, len(set(kinds))))
    )


# What enters


def test_nothing_that_is_there_or_held_out_enters_a_round() -> None:
    wrapped = example("Now then, please name where CDG lies.", {"aviation": "France"})
    of_group = example("Where is Gatwick?", {"aviation": "Britain"}, group="London")
    held = example("Where is LHR?", {"aviation": "Britain"}, group="London")
    fresh = example("Where is FCO?", {"aviation": "Italy"})
    batch = run_generator(
        Pool([FIRST[0], TEST[0], wrapped, of_group, fresh] * 3),
        ask_directly,
        Focus(weights={("aviation",): 1.0}),
    )
    kept = assemble_more([batch], FIRST, HeldOut(test=[*TEST, held], validation=VALIDATION))
    assert kept == [fresh]
    assert batch.kept == [fresh]
    assert {item.reason for item in batch.removed} == {
        "duplicate", "is in the test set", "contains a question of the validation set", "belongs to a group that is held out"
    }  # fmt: skip


def test_a_question_that_is_nearly_a_held_out_one_enters_no_round_where_a_model_wrote_it() -> None:
    held = example(
        "How much protein does a sprinter need after a long race in summer?", {"aviation": "much"}
    )
    words = "After a long race in summer, how much protein does a sprinter need?"
    written = Example(query=words, domains=("aviation",), source="synthetic")
    fresh = Example(
        query="Which gate do flights to Rome leave from?", domains=("aviation",), source="synthetic"
    )
    batch = run_generator(
        Pool([written, fresh] * 3), ask_directly, Focus(weights={("aviation",): 1.0})
    )
    assert (
        assemble_more([batch], FIRST, HeldOut(test=TEST, validation=[held]))
        == [fresh]
        == batch.kept
    )
    assert "is nearly a question that is held out" in {item.reason for item in batch.removed}


# Rounds


def test_a_refinement_that_is_over_is_not_gone_through_again(world: World) -> None:
    distiller = world.distiller()
    student = distiller.distill()
    assert distiller.refine() is student


def test_a_round_that_helps_is_kept_and_the_run_continues_with_its_student(world: World) -> None:
    distiller = world.distiller()
    student = distiller.distill()
    found = refinement_of(world)
    assert [entry.is_kept for entry in found.rounds] == [True, True]
    assert found.stopped == "all rounds that were asked for are over"
    for entry in found.rounds:
        assert entry.after is not None
        assert sum(entry.after.values()) > sum(entry.before.values())
    assert found.rounds[1].before == found.rounds[0].after
    assert student is distiller.student
    assert (
        student.fingerprint
        != world.distiller()
        .train(read_records(world.directory / "records.jsonl", TrainingRecord))
        .fingerprint
    )
    trained = [given.example.id for given in trained_records(world.directory)]
    assert (
        len(trained)
        == len(set(trained))
        == len(FIRST) + sum(entry.examples for entry in found.rounds)
    )
    assert distiller.report is not None
    assert distiller.report.overlap is not None
    assert distiller.report.overlap.trained == len(trained), (
        "what the rounds trained on is no test either"
    )
    with pytest.raises(DataError, match="test queries were trained on"):
        distiller.evaluate(
            examples=read_records(world.directory / "refinement" / "1" / "examples.jsonl", Example)
        )


def test_a_focus_tells_where_the_student_is_weak_and_what_is_there(world: World) -> None:
    pool = Pool()
    world.distiller(data_generators=[pool]).distill()
    rounds = refinement_of(world).rounds
    for entry, focus in zip(rounds, pool._asked, strict=True):
        assert focus.round == entry.number
        assert focus.weights == {
            shortfall.domains: shortfall.missing for shortfall in entry.shortfalls
        }
    assert [len(focus.earlier) for focus in pool._asked] == [
        len(FIRST),
        len(FIRST) + rounds[0].examples,
    ]


def test_a_round_that_does_not_help_leaves_the_student_as_it_was(
    world: World, tmp_path: Path
) -> None:
    plain = world.distiller(
        trainer=learning(1e-6), refinement_rounds=0, output_dir=tmp_path / "plain"
    ).distill()
    distiller = world.distiller(trainer=learning(1e-6))
    assert distiller.distill().fingerprint == plain.fingerprint
    found = refinement_of(world)
    assert [entry.is_kept for entry in found.rounds] == [False], "and there is no second one"
    assert "did not improve" in found.stopped
    assert found.rounds[0].records > 0
    assert len(trained_records(world.directory)) == len(FIRST)


class Refusing(MultiTaskTrainer):
    """Trains once, and finds the next records impossible to learn."""

    def train(  # type: ignore[override]
        self, model: Any, records: Sequence[TrainingRecord], **options: Any
    ) -> Any:
        if any(given.example.query not in {first.query for first in FIRST} for given in records):
            raise TrainingError("The student is too far from its teachers")
        return super().train(model, records, **options)


def test_a_round_that_can_not_be_trained_is_over_and_the_student_before_it_is_kept(
    world: World,
) -> None:
    def refined() -> Distiller:
        return world.distiller(trainer=Refusing(learning_rate=5e-3, epochs=4, batch_size=4))

    first = refined().distill()
    found = refinement_of(world)
    assert [entry.is_kept for entry in found.rounds] == [False]
    assert "too far from its teachers" in found.stopped
    assert refined().distill().fingerprint == first.fingerprint, "and no resume stumbles over it"


def test_a_round_is_judged_by_what_could_be_graded_before_and_after_it() -> None:
    begun = RefinementRound(number=1, shortfalls=(), before={"law": 0.5, "art": 0.1})
    assert begun.means is None and not begun.improves
    assert not replace(begun, after={"law": 0.5}).improves, (
        "art is no longer graded, which is no gain"
    )
    assert replace(begun, after={"law": 0.75, "tax": 0.0}).means == (0.5, 0.75)
    assert not replace(begun, after={"tax": 1.0}).improves


def test_a_second_call_asks_nobody_and_returns_the_same_student(world: World) -> None:
    first = world.distiller().distill()
    before = (world.directory / "refinement.json").read_bytes()
    teachers = {
        domain: ScriptedModel(knowing(facts), name=domain)
        for domain, facts in (("aviation", AIRPORTS), ("chemistry", SYMBOLS))
    }
    pool = Pool()
    assert (
        world.distiller(teacher_models=teachers, data_generators=[pool]).distill().fingerprint
        == first.fingerprint
    )
    assert pool._asked == [] and all(teacher.calls == [] for teacher in teachers.values())
    assert (world.directory / "refinement.json").read_bytes() == before


def test_the_test_set_changes_nothing_in_the_rounds(world: World, tmp_path: Path) -> None:
    others = [
        example("Say in which land Gatwick is.", {"aviation": "Britain"}),
        example("Say what lead is called.", {"chemistry": "Pb"}),
    ]
    student, same = (
        world.distiller().distill(),
        world.distiller(test_examples=others, output_dir=tmp_path / "other").distill(),
    )
    assert refinement_of(world) == read_refinement(StageFiles(tmp_path / "other"))
    assert student.fingerprint == same.fingerprint


@pytest.mark.parametrize(
    ("changes", "stopped", "rounds"),
    [
        ({"verifier": lambda _example, _text: Score(1.0)}, "nothing is missing", 0),
        ({"verifier": lambda _example, _text: Score.unscored("no")}, "could be graded", 0),
        ({"data_generators": [Pool([])]}, "no new example", 1),
        (
            {"data_generators": [Pool([example("What is granite?", {"aviation": "rock"})])]},
            "none of 1 new",
            1,
        ),
    ],
    ids=["nothing missing", "nothing graded", "nothing made", "nothing usable"],
)
def test_the_refinement_stops_where_there_is_nothing_to_gain(
    world: World, changes: dict[str, Any], stopped: str, rounds: int
) -> None:
    world.distiller(trainer=learning(1e-6), **changes).distill()
    found = refinement_of(world)
    assert stopped in found.stopped
    assert len(found.rounds) == rounds
    assert not found.kept


# Killed and started again


class Killed(BaseException):
    """What stops a process at any instant."""


def full_run(world: World, **changes: Any) -> Distiller:
    """A run in whose rounds every stage asks a model."""
    return world.distiller(
        **{
            "data_generators": [Pool(), SyntheticDataGenerator(Writer(), DOMAINS, 4)],
            "refinement_rounds": 1,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def uninterrupted(
    base: LlamaModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], str]:
    """A run that was left in peace: the files of its rounds, and the fingerprint of its student."""
    world = World(base, tmp_path_factory.mktemp("uninterrupted"))
    student = full_run(world).distill()
    assert refinement_of(world).kept, "a round that is undone would prove little"
    return files_of(world), student.fingerprint


def files_of(world: World) -> dict[str, bytes]:
    round_files = (
        "examples.jsonl",
        "generation.json",
        "records.jsonl",
        "training/phase-1-mixture/finished.safetensors",
    )
    names = ("refinement.json", *(f"refinement/1/{name}" for name in round_files))
    return {name: (world.directory / name).read_bytes() for name in names}


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(
    "part", ["validating", "synthetic questions", "asking aviation", "asking chemistry", "mixture"]
)
def test_a_run_that_was_killed_in_a_round_ends_as_one_that_was_not(
    world: World, uninterrupted: tuple[dict[str, bytes], str], part: str, count: int
) -> None:
    killed: list[str] = []

    @contextmanager
    def progress(label: str, total: int, done: int = 0) -> Iterator[Advance]:
        is_round = part == "validating" or (world.directory / "refinement.json").is_file()
        left = min(count, total - 1) if part in label and is_round else None

        def advance(items: int) -> None:
            nonlocal left
            if left is not None:
                left -= items
                if left < 0:
                    killed.append(label)
                    raise Killed

        yield advance

    with pytest.raises(Killed):
        full_run(world, progress=progress).distill()
    assert killed
    student = full_run(world).distill()
    assert (files_of(world), student.fingerprint) == uninterrupted


FILES = (
    "refinement.json",
    "generation.json",
    "examples.jsonl",
    "records.jsonl",
    "inputs.json",
    "checkpoint-2",
    "finished.safetensors",
)


@pytest.mark.parametrize(("name", "time"), [*((name, 1) for name in FILES), ("refinement.json", 2)])
def test_a_run_that_was_killed_at_any_file_of_a_round_ends_as_one_that_was_not(
    world: World,
    uninterrupted: tuple[dict[str, bytes], str],
    name: str,
    time: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, written = Path.replace, 0

    def replace_file(path: Path, target: Path) -> Path:
        nonlocal written
        written += target.name == name and "refinement" in str(target.relative_to(world.directory))
        if written == time:
            raise Killed
        return own(path, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", replace_file)
        full_run(world).distill()
    student = full_run(world).distill()
    assert (files_of(world), student.fingerprint) == uninterrupted


# Where it can't be


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"refinement_rounds": -1}, "refinement_rounds is out of range"),
        ({"validation_examples": None}, "A refinement needs validation examples"),
        ({"data_generators": [CuratedDataGenerator(FIRST)]}, "No generator can make more"),
    ],
)
def test_a_refinement_that_could_do_nothing_is_refused_before_anything_is_done(
    world: World, changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConfigurationError, match=what):
        world.distiller(**changes)
    assert not world.directory.exists()


def test_several_processes_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="A refinement runs in one process"):
        world.distiller()


def test_validation_that_nothing_can_grade_is_refused_before_an_expert_is_asked(
    world: World,
) -> None:
    ungraded = [Example(query="Please name where CDG lies.", domains=("aviation",))]
    distiller = world.distiller(validation_examples=ungraded)
    distiller.settings = replace(distiller.settings, verifier=RunSettings().verifier)
    with pytest.raises(DataError, match="No validation example has a reference answer"):
        distiller.generate()


def test_without_rounds_a_run_is_what_it_was(world: World) -> None:
    distiller = world.distiller(refinement_rounds=0)
    student = distiller.distill()
    assert "refinement_rounds" not in read_json(world.directory / "run.json")["inputs"]
    assert not (world.directory / "refinement.json").exists()
    with pytest.raises(RunError, match=r"nothing to refine.*give refinement_rounds"):
        distiller.refine()
    assert distiller.student is student
    with pytest.raises(RunError, match=r"nothing to refine.*train\(\) first"):
        world.distiller().refine()


def test_a_refinement_is_the_same_in_memory_and_on_disk() -> None:
    entry = RefinementRound(
        number=1,
        shortfalls=shortfalls_of(VALIDATION[2:], [0.5], {"aviation": {}, "chemistry": {}}),
        before={"x": 0.5},
    )
    reader = TypeAdapter(Refinement)
    found = Refinement(rounds=(entry,), stopped="enough")
    assert reader.validate_json(reader.dump_json(found)) == found
