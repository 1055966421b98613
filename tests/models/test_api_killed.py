"""Laws of a run that is killed while it asks a server: no answer that was kept is asked again, and
at most those in flight are.
"""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from domainfusion.models import APIModel, Limits, ResponseStore
from domainfusion.types import user
from models.faulty_server import FaultyServer, answer_to

QUESTIONS = [f"question {number}" for number in range(120)]
CONCURRENCY = 8

RUN = f"""
import sys
from domainfusion.models import APIModel, Limits, ResponseStore
from domainfusion.types import user

model = APIModel("teacher", base_url=sys.argv[1], limits=Limits(max_concurrency={CONCURRENCY}))
with ResponseStore(sys.argv[2]) as store:
    store.ask(model, [user(f"question {{number}}") for number in range({len(QUESTIONS)})])
"""


def kept_in(path: Path) -> set[str]:
    """Returns the questions whose answers are in the store, read past the product."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "SELECT json_extract(request, '$.messages[0].content') FROM answers"
        ).fetchall()
    connection.close()
    return {question for (question,) in rows}


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_killed_run_asks_nothing_again_that_was_kept_and_no_more_than_was_in_flight(
    seed: int, tmp_path: Path
) -> None:
    chance, path, kills = random.Random(seed), tmp_path / "s.sqlite", 0
    with FaultyServer(seconds=0.04) as server:
        while kills < (8 if seed else 2):
            already = len(server.exchanges)
            process = subprocess.Popen([sys.executable, "-c", RUN, server.url, str(path)])
            moment = already + chance.randint(1, 25)
            while len(server.exchanges) < moment and process.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=30) == -signal.SIGKILL
            kills += 1
            time.sleep(0.2)  # what was sent before has arrived
            kept, asked = kept_in(path), server.asked
            assert sum(asked.values()) - len(kept) <= kills * CONCURRENCY

            with FaultyServer(seconds=0.04) as other:  # whoever goes on asks for exactly the rest
                copy = tmp_path / f"copy{kills}.sqlite"
                with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
                    source.backup(target)
                source.close()
                target.close()
                with ResponseStore(copy) as store:
                    original = APIModel(
                        "teacher", base_url=server.url, limits=Limits(max_concurrency=64)
                    )
                    rest = APIModel(
                        "teacher", base_url=other.url, limits=Limits(max_concurrency=64)
                    )
                    rest.fingerprint = original.fingerprint
                    answers = store.ask(rest, [user(question) for question in QUESTIONS])
                assert set(other.asked) == set(QUESTIONS) - kept
                assert [answer.text for answer in answers] == [
                    answer_to(question) for question in QUESTIONS
                ]

        subprocess.run([sys.executable, "-c", RUN, server.url, str(path)], check=True, timeout=60)
        repeated = {question: count - 1 for question, count in server.asked.items() if count > 1}
        assert kept_in(path) == set(server.asked) == set(QUESTIONS)
        assert sum(repeated.values()) <= kills * CONCURRENCY
