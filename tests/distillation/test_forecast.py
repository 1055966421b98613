"""The time that the whole of a run takes is known from its first answers on, within a factor of two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from domainfusion.distillation import IntegrationTrainer
from domainfusion.distillation.forecast import (
    STEP,
    Forecast,
    Piece,
    kind_of,
    seconds_of_a_step,
    seconds_of_an_answer,
    training_pieces,
    unwritten_records,
)
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.progress import Advance, Foresees, Lines, silent
from domainfusion.types import Example, Sampling
from domainfusion.wording import in_words

STAGES = ("generate", "collect", "integrate", "train", "evaluate")


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Run:
    """A run whose answers take a second and whose steps take five."""

    clock: Clock = field(default_factory=Clock)
    stage: str = "generate"
    told: list[tuple[float, float | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.forecast = Forecast(self._shown, STAGES, lambda: self.stage, clock=self.clock)

    @contextmanager
    def _shown(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        yield lambda _: None

    def plan(self) -> None:
        self.forecast.plan("generate", [])
        self.forecast.plan(
            "collect", [Piece("asking a", 40, "answer"), Piece("asking b", 40, "answer")]
        )
        self.forecast.plan("integrate", [])
        self.forecast.plan(
            "train", [Piece("training: x", 30, STEP), Piece("training: y", 30, STEP)]
        )
        self.forecast.plan("evaluate", [Piece("evaluating s", 50, "answer")])

    def work(self, label: str, items: int, seconds: float) -> None:
        with self.forecast(label, items) as advance:
            for _ in range(items):
                self.clock.now += seconds
                advance(1)
                self.told.append((self.clock.now, self.forecast.seconds_left()))


def test_time_of_the_whole_run_is_within_a_factor_of_two() -> None:
    run = Run()
    assert run.forecast.seconds_left() is None and run.forecast.words() == "stage 1 of 5, generate"
    run.plan()
    assert run.forecast.seconds_left() is None, "nothing was timed yet"
    run.forecast.time(STEP, 4.0)
    run.stage = "collect"
    run.work("asking a", 40, 1.0)
    run.work("asking b", 40, 1.3)
    run.stage = ""
    assert run.forecast.words().startswith("stage 2 of 5, collect, about 5 minutes left")
    run.stage = "train"
    run.work("training: x", 30, 5.0)
    run.work("training: y", 30, 6.0)
    run.stage = "evaluate"
    run.work("evaluating s", 50, 0.8)
    end = run.clock.now
    assert run.told[0][1] is None, "one answer is no rate"
    known = [(now, left) for now, left in run.told if left is not None]
    assert len(known) > len(run.told) - 10
    for now, left in known:
        assert (end - now) / 2 - 5 <= left <= (end - now) * 2 + 5
    assert run.forecast.seconds_left() == 0
    assert run.forecast.words() == "stage 5 of 5, evaluate, less than a minute left"


def test_a_validation_within_a_training_is_not_taken_for_a_slow_step() -> None:
    clock, stage = Clock(), "train"
    forecast = Forecast(Run(clock=clock)._shown, STAGES, lambda: stage, clock=clock)
    for name in STAGES:
        forecast.plan(name, [])
    forecast.plan("train", [Piece("one", 2, STEP), Piece("other", 100, STEP)])
    forecast.name("validating", "answer")
    with forecast("one", 2) as advance:
        for _ in range(2):
            clock.now += 5
            advance(1)
            with forecast("validating", 10) as answered, forecast("loading", 1):
                clock.now += 30
                answered(10)
    assert forecast.seconds_left() == pytest.approx(500)


def test_what_a_training_leaves_out_is_not_waited_for() -> None:
    run = Run()
    run.plan()
    run.forecast.time(STEP, 10.0)
    run.forecast.time("answer", 1.0)
    run.stage = "train"
    assert isinstance(run.forecast, Foresees)
    assert run.forecast.seconds_left() == 600 + 50
    run.forecast.expect([("training: y", 3)])
    assert run.forecast.seconds_left() == 30 + 50
    # What was never announced counts while it is under way, and then no more.
    run.work("reading for the merge", 4, 2.0)
    assert run.forecast.seconds_left() == 30 + 50


def test_lines_of_a_run_say_how_long_all_of_it_takes() -> None:
    clock, written = Clock(), list[str]()
    lines = Lines(written.append, clock=clock)
    forecast = Forecast(lines, ("collect", "train"), lambda: "collect", clock=clock)
    forecast.plan("collect", [Piece("asking a", 20, "answer")])
    forecast.plan("train", [Piece("training: x", 60, STEP)])
    forecast.time(STEP, 3.0)
    with forecast.over(), forecast("asking a", 20) as advance:
        for _ in range(20):
            clock.now += 1
            advance(1)
        forecast.note("loss 1.2")
    forecast.say("collect: done")
    assert written[0] == (
        "asking a: 4 of 20 (20%), 1.0/s, 0:15 left; stage 1 of 2, collect, about 3 minutes left"
    )
    assert written[-1] == "collect: done"
    assert Forecast(silent, ("a",), lambda: "a").is_shown is False


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (60, "about a minute"),
        (90, "about 2 minutes"),
        (5400, "about 1.5 hours"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def examples_of(count: int) -> list[Example]:
    return [
        Example(
            query=f"How heavy is stone number {number}?",
            domains=("a",) if number % 2 else ("a", "b"),
        )
        for number in range(count)
    ]


def test_a_step_and_an_answer_are_timed_on_the_real_model(tiny_llama: Path) -> None:
    model = LlamaModel(tiny_llama)
    trainer = IntegrationTrainer(learning_rate=1e-3, batch_size=4, epochs=2)
    examples = examples_of(20)
    before = model.fingerprint
    asked, short = [example.conversation for example in examples[:2]], Sampling(max_new_tokens=4)
    answers = model.generate(asked, short)
    step = seconds_of_a_step(model, trainer, unwritten_records(examples))
    assert step is not None and 0 < step < 60
    assert model.fingerprint == before and model.generate(asked, short) == answers
    each = seconds_of_an_answer(model, examples, Sampling(max_new_tokens=4), "a")
    assert each is not None and 0 < each < 60
    scripted = ScriptedModel(lambda question: question, name="x")
    assert seconds_of_an_answer(scripted, examples, Sampling()) is None
    assert seconds_of_an_answer(model, [], Sampling()) is None
    assert kind_of(model) != kind_of(scripted)
    pieces = training_pieces(trainer, examples, validation=6, student=model)
    steps = [piece for piece in pieces if piece.kind == STEP]
    assert [piece.label for piece in steps] == ["training: domains", "training: integration"]
    # Ten examples of one domain, twice, in steps of four; and a validation an epoch.
    assert steps[0].items == 5
    assert [piece.items for piece in pieces if piece.kind != STEP] == [6] * 4
