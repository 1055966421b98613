"""Laws of the store of answers: what was answered is never asked again, and what is there is what
the model said.
"""

import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainfusion.errors import ModelError, StoreError
from domainfusion.models import ResponseStore, ScriptedModel, ask_directly
from domainfusion.models.base import OnResult, sample_seeds
from domainfusion.models.store import STORE_VERSION
from domainfusion.progress import Advance
from domainfusion.types import Conversation, FinishReason, Generation, Message, Sampling, user

WARM = Sampling(temperature=1.0)


class SeededModel:
    """Answers with the seed it draws by, as every model has to: the k-th repeat in a call is
    another sample.
    """

    name = "seeded"
    fingerprint = "seeded"

    def __init__(self, *, fail_after: int | None = None, backwards: bool = False) -> None:
        self.calls: list[Conversation] = []
        self.batches = 0
        self._fail_after = fail_after
        self._backwards = backwards

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        self.batches += 1
        seeds = sample_seeds(sampling.seed, conversations)
        answers = [
            Generation(text=f"{c[-1].content}/{seed}")
            for c, seed in zip(conversations, seeds, strict=True)
        ]
        order = list(enumerate(conversations))
        for done, (index, conversation) in enumerate(reversed(order) if self._backwards else order):
            if done == self._fail_after:
                raise ModelError("The connection broke")
            self.calls.append(conversation)
            if on_result is not None:
                on_result(index, answers[index])
        return answers


def questions(count: int) -> list[Conversation]:
    return [user(f"question {number}") for number in range(count)]


# Asking once


def test_a_second_ask_asks_nothing(tmp_path: Path) -> None:
    model = ScriptedModel(str.upper)
    with ResponseStore(tmp_path / "s.sqlite") as store:
        first = store.ask(model, questions(5))
        assert (store.asked, store.reused, len(store), len(model.calls)) == (5, 0, 5, 5)
        assert store.ask(model, questions(5)) == first
        assert (store.asked, store.reused, len(store), len(model.calls)) == (5, 5, 5, 5)


def test_what_was_answered_outlives_the_process(tmp_path: Path) -> None:
    model = ScriptedModel(str.upper)
    with ResponseStore(tmp_path / "s.sqlite") as store:
        first = store.ask(model, questions(3))
    with ResponseStore(tmp_path / "s.sqlite") as store:
        assert store.ask(model, list(reversed(questions(3)))) == list(reversed(first))
        assert (store.asked, store.reused) == (0, 3)
    assert len(model.calls) == 3


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(),
    finish=st.sampled_from(["stop", "length", "refused", "filtered"]),
    tokens=st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
)
def test_an_answer_comes_back_as_the_model_gave_it(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    finish: FinishReason,
    tokens: tuple[int, int],
) -> None:
    answer = Generation(
        text=text, finish_reason=finish, prompt_tokens=tokens[0], completion_tokens=tokens[1]
    )

    class Model(SeededModel):
        def generate(self, conversations: Sequence[Conversation], *_: object) -> list[Generation]:
            return [answer for _ in conversations]

    path = tmp_path_factory.mktemp("store") / "s.sqlite"
    with ResponseStore(path) as store:
        assert store.ask(Model(), [user(text)]) == [answer]
    with ResponseStore(path) as store:
        assert store.ask(SeededModel(fail_after=0), [user(text)]) == [answer]


def test_half_a_character_is_replaced_and_its_question_asked_once(tmp_path: Path) -> None:
    """A lone surrogate, which no file can hold: JSON can spell it, and Linux has it in names."""
    half = "a\ud800\x00\udfffb"
    model = ScriptedModel(half, name=f"model {half}")
    asked = [user(f"Why {half}?"), user("Why?")]
    with ResponseStore(tmp_path / "shared.sqlite") as shared:
        with ResponseStore(tmp_path / "s.sqlite", shared=shared) as store:
            answers = store.ask(model, asked)
            assert [answer.text for answer in answers] == ["a\ufffd\x00\ufffdb"] * 2
            assert store.ask(model, asked) == answers and store.asked == 2
            [usage] = store.usage()
            assert usage.calls == 2 and usage.name.encode()
        with ResponseStore(tmp_path / "other.sqlite", shared=shared) as other:
            assert other.ask(model, asked) == answers and other.asked == 0


@pytest.mark.parametrize(
    "other",
    [
        {"model": ScriptedModel(str.upper, version="2")},
        {"conversation": user("question 1")},
        {"conversation": (Message("system", "Be brief."), Message("user", "question 0"))},
        {"sampling": Sampling(max_new_tokens=9)},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(temperature=0.5, seed=1)},
        {"sampling": Sampling(temperature=0.5, top_p=0.5)},
    ],
)
def test_another_model_question_or_sampling_is_another_answer(
    tmp_path: Path, other: dict[str, object]
) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(ScriptedModel(str.upper), [user("question 0")])
        changed = {
            "model": ScriptedModel(str.upper),
            "conversation": user("question 0"),
            "sampling": Sampling(),
        } | other
        store.ask(changed["model"], [changed["conversation"]], changed["sampling"])  # type: ignore[arg-type, list-item]
        assert (store.asked, len(store)) == (2, 2)


def test_asking_nothing_calls_no_model(tmp_path: Path) -> None:
    model = SeededModel()
    with ResponseStore(tmp_path / "s.sqlite") as store:
        assert store.ask(model, []) == []
    assert model.batches == 0


# Samples


def test_greedy_duplicates_in_a_call_are_asked_once(tmp_path: Path) -> None:
    model = ScriptedModel(str.upper)
    with ResponseStore(tmp_path / "s.sqlite") as store:
        answers = store.ask(model, [user("a"), user("b"), user("a"), user("a")])
    assert [answer.text for answer in answers] == ["A", "B", "A", "A"]
    assert model.calls == [user("a"), user("b")]


def test_warm_duplicates_are_samples_of_their_own(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        answers = store.ask(SeededModel(), [user("a")] * 4, WARM)
        assert len({answer.text for answer in answers}) == len(store) == 4
        assert store.ask(SeededModel(fail_after=0), [user("a")] * 4, WARM) == answers


def test_fresh_samples_are_asked_in_one_call(tmp_path: Path) -> None:
    model = SeededModel()
    with ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(model, [user("a"), user("b"), user("a")] * 5, WARM)
    assert model.batches == 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.sampled_from("abc"), min_size=1, max_size=10),
    stored=st.sets(st.integers(0, 9)),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_whatever_is_stored_already_the_answers_are_those_of_a_model_asked_at_once(
    tmp_path_factory: pytest.TempPathFactory, asked: list[str], stored: set[int], temperature: float
) -> None:
    conversations, sampling = [user(letter) for letter in asked], Sampling(temperature=temperature)
    path = tmp_path_factory.mktemp("store") / "s.sqlite"
    expected = SeededModel().generate(conversations, sampling)
    if temperature == 0:
        first = dict(zip(reversed(conversations), reversed(expected), strict=True))
        expected = [first[c] for c in conversations]
    with ResponseStore(path) as store:
        store.ask(SeededModel(), conversations, sampling)
        rows = [
            row for (row,) in store._connection.execute("SELECT key FROM answers ORDER BY rowid")
        ]
        store._connection.executemany(
            "DELETE FROM answers WHERE key = ?",
            [(row,) for n, row in enumerate(rows) if n not in stored],
        )
        kept, model = len(store), SeededModel()
        assert store.ask(model, conversations, sampling) == expected
        assert len(model.calls) == len(rows) - kept


# Failures


def test_kept_answers_survive_an_error_in_the_midst(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(ModelError, match="connection broke"):
            store.ask(SeededModel(fail_after=3), questions(10))
        assert len(store) == store.asked == 3
    with ResponseStore(tmp_path / "s.sqlite") as store:
        second = SeededModel()
        assert store.ask(second, questions(10)) == SeededModel().generate(questions(10))
        assert second.calls == questions(10)[3:]


def test_answers_that_arrive_in_any_order_are_kept_under_their_questions(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(ModelError):
            store.ask(SeededModel(fail_after=3, backwards=True), questions(10))
        model = SeededModel()
        assert store.ask(model, questions(10)) == SeededModel().generate(questions(10))
        assert model.calls == questions(10)[:7]


def test_an_error_is_never_an_answer(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        for _ in range(2):
            with pytest.raises(ModelError):
                store.ask(SeededModel(fail_after=0), questions(1))
        assert len(store) == store.asked == 0
        assert store.ask(SeededModel(), questions(1)) == SeededModel().generate(questions(1))


def test_what_is_flushed_is_in_the_file_itself_and_not_in_its_journal(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        asked = store.ask(SeededModel(), questions(5))
        store.flush()
        shutil.copy(tmp_path / "s.sqlite", tmp_path / "copy.sqlite")  # without its journal
    with ResponseStore(tmp_path / "copy.sqlite") as copy:
        assert len(copy) == 5
        assert copy.ask(SeededModel(fail_after=0), questions(5)) == asked


KILLED = """
import os, sys
from domainfusion.models import ResponseStore, ScriptedModel
from domainfusion.types import user

def answer(question):
    if question == "question 3":
        os._exit(9)
    return question.upper()

ResponseStore(sys.argv[1]).ask(ScriptedModel(answer), [user(f"question {number}") for number in range(10)])
"""


def test_answers_survive_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    assert (
        subprocess.run(
            [sys.executable, "-c", KILLED, str(path)], check=False, timeout=60
        ).returncode
        == 9
    )
    model = ScriptedModel(str.upper)
    with ResponseStore(path) as store:
        store.ask(model, questions(10))
        assert (store.reused, store.asked) == (3, 7)


SLOW = """
import random, sys, time
from domainfusion.models import ResponseStore, ScriptedModel
from domainfusion.types import user

path, log, seed = sys.argv[1:]
chance = random.Random(int(seed))

def answer(question):
    with open(log, "a") as asked:
        asked.write(question + "\\n")
    time.sleep(chance.uniform(0, 0.004))
    return question.upper()

with ResponseStore(path) as store:
    store.ask(ScriptedModel(answer), [user(f"question {number}") for number in range(150)])
"""


def kept_in(path: Path) -> set[str]:
    """Returns the questions whose answers are in the file, read past the product."""
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return set()
        rows = connection.execute(
            "SELECT json_extract(request, '$.messages[0].content') FROM answers"
        ).fetchall()
    return {question for (question,) in rows}


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
)
def test_whenever_processes_are_killed_no_kept_answer_is_asked_again(
    tmp_path: Path, seed: int, at_once: int
) -> None:
    chance, path, kills = random.Random(seed), tmp_path / "s.sqlite", 0
    kept: set[Any] = set()
    everything = {f"question {number}" for number in range(150)}
    asked: list[str] = []
    for attempt in range(1000):
        logs = [tmp_path / f"asked-{attempt}-{process}" for process in range(at_once)]
        command = [sys.executable, "-c", SLOW, str(path)]
        processes = [
            subprocess.Popen([*command, str(log), str(chance.randrange(99))]) for log in logs
        ]
        lines = chance.randint(
            0, 40
        )  # killed after so many questions, at whatever instant that is then
        while any(process.poll() is None for process in processes):
            if (
                kills < 5
                and sum(log.read_text().count("\n") for log in logs if log.exists()) >= lines
            ):
                time.sleep(chance.uniform(0, 0.01))
                for process in processes:
                    process.kill()
                kills += 1
                break
            time.sleep(0.002)
        outcomes = {process.wait(timeout=60) for process in processes}
        now = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
        assert not kept & set(now)
        asked += now
        before, kept = kept, kept_in(path)
        assert before <= kept
        if outcomes == {0}:
            break
    assert kills == 5
    assert kept == set(asked) == everything
    if at_once == 1:
        assert (
            len(asked) <= len(everything) + kills
        )  # of each killed process, the one question that it was at
    with ResponseStore(path) as store:
        answers = store.ask(
            ScriptedModel(lambda question: pytest.fail("asked again")), questions(150)
        )
    assert [answer.text for answer in answers] == [f"QUESTION {number}" for number in range(150)]


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.DatabaseError("disk image is malformed"),
    ],
)
def test_an_answer_that_can_not_be_kept_stops_the_run(tmp_path: Path, code: Exception) -> None:
    class FullDisk:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def execute(self, statement: str, *arguments: object) -> object:
            if statement.startswith("INSERT"):
                raise code
            return self._connection.execute(statement, *arguments)  # type: ignore[arg-type]

        def close(self) -> None:
            self._connection.close()

    with ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(SeededModel(), questions(2))
        store._connection = FullDisk(store._connection)  # type: ignore[assignment]
        with pytest.raises(StoreError, match=str(code)):
            store.ask(SeededModel(), questions(4))
        assert (len(store), store.asked) == (2, 2)


# The file


def test_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with ResponseStore(path) as store:
        store.ask(ScriptedModel("a"), questions(1))
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={STORE_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"received {STORE_VERSION + 1}"):
        ResponseStore(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize(
    "content",
    [b"a text that is long enough to be looked at" * 100, b"SQLite format 3\x00" + b"\xff" * 4096],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"s\.sqlite"):
        ResponseStore(path)
    assert path.read_bytes() == content


def test_damage_inside_the_file_is_told_when_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with ResponseStore(path) as store:
        store.ask(ScriptedModel(lambda question: question * 50), questions(400))
    content = bytearray(path.read_bytes())
    for start in range(8192, len(content) - 4096, 4096):
        content[start : start + 2048] = random.Random(start).randbytes(2048)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"can't be read|could not be kept"):  # noqa: SIM117 - opening and reading may both tell
        with ResponseStore(path) as store:
            store.ask(ScriptedModel(lambda question: question * 50), questions(400))


@pytest.mark.parametrize("answer", ["not json", '{"text": "a", "colour": "b"}', "[]", "3"])
def test_an_answer_that_makes_no_sense_is_told(tmp_path: Path, answer: str) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(ScriptedModel("a"), questions(1))
        store._connection.execute("UPDATE answers SET answer = ?", (answer,))
        with pytest.raises(StoreError, match="can't be read"):
            store.ask(ScriptedModel("a"), questions(1))


def test_a_changed_answer_is_noticed_and_asked_again_once_its_row_is_gone(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        kept = store.ask(ScriptedModel("the river"), questions(2))
        store._connection.execute(
            "UPDATE answers SET answer = replace(answer, 'river', 'rivet') WHERE rowid = 1"
        )
        with pytest.raises(StoreError, match="damaged, or was changed") as caught:
            store.ask(ScriptedModel("the river"), questions(2))
        delete = re.search(r'"(DELETE FROM answers .*)"', str(caught.value))
        assert delete is not None
        store._connection.execute(delete.group(1))
        assert store.ask(ScriptedModel("the river"), questions(2)) == kept
        assert store.asked == 3


def test_an_answer_that_was_stored_without_a_digest_is_read(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        kept = store.ask(ScriptedModel("the river"), questions(1))
        store._connection.execute("UPDATE answers SET answer = json_remove(answer, '$.digest')")
        assert store.ask(ScriptedModel("the river"), questions(1)) == kept
        assert store.asked == 1


def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a store of answers"):
        ResponseStore(path)
    assert path.read_bytes() == before


def test_the_folder_of_a_store_is_made(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "run" / "deep" / "s.sqlite") as store:
        assert len(store) == 0


def test_a_folder_in_place_of_the_file_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        ResponseStore(tmp_path)


def test_what_was_asked_can_be_read_in_the_file(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(ScriptedModel("a", name="expert"), [user("Why?")], Sampling(seed=7))
        [(name, request, answer)] = store._connection.execute(
            "SELECT model, request, answer FROM answers"
        )
    assert name == "expert"
    assert json.loads(request)["messages"] == [{"role": "user", "content": "Why?"}]
    assert json.loads(request)["sampling"]["seed"] == 7
    assert json.loads(answer)["text"] == "a"


BUSY = """
import sys, time
from domainfusion.models import ResponseStore, ScriptedModel
from domainfusion.types import user

def answer(question):
    time.sleep(0.002)
    return question.upper()

with ResponseStore(sys.argv[1]) as store:
    answers = store.ask(ScriptedModel(answer), [user(f"question {number}") for number in range(100)])
    assert [given.text for given in answers] == [f"QUESTION {number}" for number in range(100)]
"""


def test_two_processes_can_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    processes = [
        subprocess.Popen([sys.executable, "-c", BUSY, str(path)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    with ResponseStore(path) as store:
        assert len(store) == 100
        answers = store.ask(ScriptedModel(lambda question: "asked again"), questions(100))
    assert [answer.text for answer in answers] == [f"QUESTION {number}" for number in range(100)]


def test_many_can_open_a_new_store_at_once(tmp_path: Path) -> None:
    opening = (
        "import sys; from domainfusion.models import ResponseStore;"
        " [ResponseStore(f'{sys.argv[1]}/{n}') for n in range(20)]"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", opening, str(tmp_path)], stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint


# Progress


def test_progress_ends_at_the_total_and_starts_where_the_store_is(tmp_path: Path) -> None:
    shown: list[tuple[str, int, int, list[int]]] = []

    @contextmanager
    def progress(label: str, total: int, done: int = 0) -> Iterator[Advance]:
        steps: list[int] = []
        shown.append((label, total, done, steps))
        yield steps.append

    with ResponseStore(tmp_path / "s.sqlite", progress=progress) as store:
        store.ask(SeededModel(), questions(3))
        store.ask(SeededModel(), [*questions(5), *questions(5)], label="teachers")
        store.ask(SeededModel(), questions(5))
    assert [label for label, *_ in shown] == ["asking seeded", "teachers"]
    for _, total, done, steps in shown:
        assert done + sum(steps) == total


# Without a store


def test_asking_directly_is_the_models_own_answer() -> None:
    model = SeededModel()
    assert ask_directly(model, [user("a"), user("a")], WARM, label="x") == SeededModel().generate(
        [user("a"), user("a")], WARM
    )


def test_seeds_of_samples_do_not_meet() -> None:
    seeds = [seed for own in range(100) for seed in sample_seeds(own, [user("a")] * 100)]
    assert len(set(seeds)) == len(seeds)
    assert sample_seeds(5, [user("a"), user("b")]) == [5, 5]


# What asking took


def test_usage_counts_what_models_wrote_in_all_sessions_and_nothing_twice(tmp_path: Path) -> None:
    first, second = ScriptedModel(str.upper, name="first"), ScriptedModel(str.lower, name="second")
    for session in range(3):
        with ResponseStore(tmp_path / "s.sqlite") as store:
            store.ask(first, questions(4 * (session + 1)), role="expert of a")
            store.ask(second, questions(2), role="judge")
            store.ask(first, [user("another")], role="generation")
    with ResponseStore(tmp_path / "s.sqlite") as store:
        found = store.usage()
    assert [(usage.name, usage.roles, usage.calls, usage.cost) for usage in found] == [
        ("first", ("expert of a", "generation"), 13, None),
        ("second", ("judge",), 2, None),
    ]
    answers = [*first.generate([*questions(12), user("another")]), *second.generate(questions(2))]
    assert sum(usage.completion_tokens for usage in found) == sum(
        answer.completion_tokens for answer in answers
    )
    assert sum(usage.prompt_tokens for usage in found) == sum(
        answer.prompt_tokens for answer in answers
    )


def test_what_is_missing_is_what_would_be_asked(tmp_path: Path) -> None:
    model = SeededModel()
    with ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(model, questions(3), WARM)
        for wanted, missing in (
            (questions(3), 0),
            (questions(5), 2),
            (questions(3) * 2, 3),
            (questions(0), 0),
        ):
            assert store.missing(model.fingerprint, wanted, WARM) == missing
        assert store.missing("another", questions(3), WARM) == 3


def test_seconds_are_those_in_which_a_model_was_waited_for(tmp_path: Path) -> None:
    def slow(question: str) -> str:
        time.sleep(0.02)
        return question

    with ResponseStore(tmp_path / "s.sqlite") as store:
        began = time.monotonic()
        store.ask(ScriptedModel(slow), questions(5))
        asked = time.monotonic() - began
        store.ask(ScriptedModel(slow), questions(5))
        assert 0.1 <= store.usage()[0].seconds <= asked + 0.01


@pytest.mark.parametrize("written", ["closed", "open", "new", "empty"])
def test_a_store_can_be_read_without_being_written(written: str, tmp_path: Path) -> None:
    path, model = tmp_path / "a store?.sqlite", ScriptedModel(str.upper)
    if written == "empty":
        path.touch()
    else:
        writer = ResponseStore(path)
        if written != "new":
            writer.ask(model, questions(3), role="judge")
        if written != "open":
            writer.close()
    before = {
        file: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in tmp_path.iterdir()
        if not file.name.endswith("-shm")
    }
    with ResponseStore(path, read_only=True) as store:
        assert [usage.calls for usage in store.usage()] == (
            [3] if written in ("closed", "open") else []
        )
        assert len(store) == (3 if written in ("closed", "open") else 0)
        with pytest.raises(StoreError, match="could not be kept"):
            store.ask(model, [user("another")])
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before
    assert {file for file in tmp_path.iterdir() if not file.name.endswith("-shm")} == before.keys()
    if written == "open":
        writer.close()


def test_a_store_that_is_not_there_is_not_made_to_be_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        ResponseStore(tmp_path / "gone.sqlite", read_only=True)
    assert list(tmp_path.iterdir()) == []


# Advice that fits the cause


def advice_of(path: Path) -> str:
    with pytest.raises(StoreError) as caught, ResponseStore(path) as store:
        store.ask(ScriptedModel("yes"), [user("Why?")])
    return str(caught.value)


HARMFUL = ("move", "delete", "asks its models again")


def test_a_store_that_another_process_writes_to_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domainfusion.models.store._PATIENCE_SECONDS", 0.05)
    ResponseStore(tmp_path / "s.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        told = advice_of(tmp_path / "s.sqlite")
    assert "wait until that is done" in told and not [word for word in HARMFUL if word in told]


def test_a_full_disk_wants_space_and_no_file_to_go(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(ScriptedModel("yes"), [user("Why?")])
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError) as caught:
            store.ask(ScriptedModel("y" * 100_000), [user("How?")])
    told = str(caught.value)
    assert (
        "free disk space" in told
        and "are kept" in told
        and not [word for word in HARMFUL if word in told]
    )


def test_a_damaged_file_is_told_with_what_would_be_lost(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_bytes(b"no database at all" * 1_000)
    told = advice_of(tmp_path / "s.sqlite")
    assert "copy the file first" in told and ".recover" in told and "max_cost" in told


def test_a_path_that_can_not_be_opened_wants_another_path(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").mkdir()
    told = advice_of(tmp_path / "s.sqlite")
    assert "check the path" in told and not [word for word in HARMFUL if word in told]


# Two processes


def test_two_that_ask_at_once_agree_on_the_answer_that_is_kept(tmp_path: Path) -> None:
    """The other process asks the same while this one's model is still writing."""
    question = [user("Why?")]
    others: list[str] = []

    def slow(_: str) -> str:
        with ResponseStore(tmp_path / "s.sqlite") as other:
            others.extend(
                answer.text
                for answer in other.ask(ScriptedModel(lambda _: "the first", name="m"), question)
            )
        return "the second"

    with ResponseStore(tmp_path / "s.sqlite") as store:
        [mine] = store.ask(ScriptedModel(slow, name="m"), question)
        assert [mine.text] == others == ["the first"]
        [again] = store.ask(ScriptedModel(slow, name="m"), question)
        assert again == mine and len(store) == 1


# A store that runs share


def test_what_another_run_asked_is_not_asked_again(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "shared.sqlite") as shared:
        with ResponseStore(tmp_path / "one.sqlite", shared=shared) as one:
            first = one.ask(SeededModel(), questions(3), WARM, role="expert of law")
        model = SeededModel()
        with ResponseStore(tmp_path / "two.sqlite", shared=shared) as two:
            assert two.ask(model, questions(4), WARM)[:3] == first
            assert (two.asked, two.reused, two.taken_over) == (1, 3, 3)
            assert model.calls == questions(4)[3:]
            assert [usage.calls for usage in two.usage()] == [1]
    model = SeededModel()
    with ResponseStore(tmp_path / "two.sqlite") as alone:  # has a copy of its own
        alone.ask(model, questions(4), WARM)
    assert not model.calls


def test_another_model_or_another_setting_is_another_answer(tmp_path: Path) -> None:
    class Other(SeededModel):
        fingerprint = "other"

    with ResponseStore(tmp_path / "shared.sqlite") as shared:
        with ResponseStore(tmp_path / "one.sqlite", shared=shared) as one:
            one.ask(SeededModel(), questions(1), Sampling(seed=0))
            one.ask(SeededModel(), questions(1), Sampling(seed=0, temperature=1.0))
        with ResponseStore(tmp_path / "two.sqlite", shared=shared) as two:
            two.ask(Other(), questions(1))
            two.ask(SeededModel(), questions(1), Sampling(max_new_tokens=7))
            two.ask(SeededModel(), questions(1), Sampling(seed=5, temperature=1.0))
            assert two.taken_over == 0
            two.ask(SeededModel(), questions(1), Sampling(seed=5))  # greedy: a seed draws nothing
            assert (two.asked, two.taken_over) == (3, 1)


def test_runs_that_ask_at_once_keep_the_same_answer(tmp_path: Path) -> None:
    """The second one's answer arrives while the first one's model still writes."""
    with (
        ResponseStore(tmp_path / "shared.sqlite") as shared,
        ResponseStore(tmp_path / "shared.sqlite") as also,
        ResponseStore(tmp_path / "one.sqlite", shared=shared) as one,
        ResponseStore(tmp_path / "two.sqlite", shared=also) as two,
    ):

        def slow(prompt: str) -> str:
            two.ask(ScriptedModel("the faster one", name="expert"), [user(prompt)])
            return "the slower one"

        slower = ScriptedModel(slow, name="expert")
        faster = ScriptedModel("the faster one", name="expert")
        slower.fingerprint = faster.fingerprint
        [answer] = one.ask(slower, [user("?")])
        assert answer.text == "the faster one" == one.ask(slower, [user("?")])[0].text


def test_an_answer_that_only_the_shared_store_had_room_for_counts_for_the_run_that_asked(
    tmp_path: Path,
) -> None:
    """The run finds it there when it is resumed; another run that takes it counts no call."""
    long = ScriptedModel("word " * 4_000, name="expert")
    with ResponseStore(tmp_path / "shared.sqlite") as shared:
        with ResponseStore(tmp_path / "one.sqlite", shared=shared) as one:
            one.ask(SeededModel(), questions(1))
            [pages] = one._connection.execute("PRAGMA page_count").fetchone()
            one._connection.execute(f"PRAGMA max_page_count={pages}")
            with pytest.raises(StoreError, match="free disk space"):
                one.ask(long, questions(1), role="expert of law")
        assert len(shared) == 2
        again = ScriptedModel("another answer", name="expert")
        again.fingerprint = long.fingerprint
        with ResponseStore(tmp_path / "two.sqlite", shared=shared) as two:
            [other] = two.ask(again, questions(1), role="expert of law")
            assert two.usage() == ()
        with ResponseStore(tmp_path / "one.sqlite", shared=shared) as one:
            [kept] = one.ask(again, questions(1), role="expert of law")
            one.ask(again, questions(1), role="expert of law")
            assert kept.text == other.text == "word " * 4_000
            [_, counted] = one.usage()
            assert (counted.calls, counted.roles) == (1, ("expert of law",))
            assert counted.completion_tokens == kept.completion_tokens


@pytest.mark.parametrize("moved", ["copied", "made anew"])
def test_another_store_does_not_count_what_one_asked(tmp_path: Path, moved: str) -> None:
    path, place = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    with ResponseStore(tmp_path / "shared.sqlite") as shared:
        with ResponseStore(path, shared=shared) as one:
            one.ask(SeededModel(), questions(1))
        if moved == "copied":
            shutil.copyfile(path, place)
        else:
            path.unlink()
            place = path
        with ResponseStore(path, shared=shared) as one:
            one.ask(SeededModel(), questions(2))
        with ResponseStore(place, shared=shared) as other:
            before = [usage.calls for usage in other.usage()]
            other.ask(SeededModel(), questions(2))
            assert [usage.calls for usage in other.usage()] == before == [1]


def test_a_student_s_answers_are_kept_with_its_run_alone(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "shared.sqlite") as shared:
        with ResponseStore(tmp_path / "one.sqlite", shared=shared) as one:
            one.ask(SeededModel(), questions(2), is_shared=False)
        assert len(shared) == 0


def test_a_shared_store_that_breaks_stops_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = ResponseStore(tmp_path / "shared.sqlite")
    shared._connection.execute("PRAGMA query_only=ON")
    with shared, ResponseStore(tmp_path / "one.sqlite", shared=shared) as one:
        assert len(one.ask(SeededModel(), questions(2))) == 2
        assert len(one) == 2
    assert "kept with this run alone" in caplog.text
