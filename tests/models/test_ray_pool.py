"""Answers from a pool of Ray actors: those of the models themselves, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models import Engine, HuggingFaceModel, ResponseStore
from domainfusion.models.base import Adaptation
from domainfusion.models.ray_pool import RayPool
from domainfusion.recipe import build_distiller, read_recipe
from domainfusion.types import Generation, Sampling, user
from models.ray_actors import (
    MARKS,
    Spreadable,
    leave_ray,
    send_classes_of,
    wait_for_slow_nodes,
)
from models.test_engine import FAKE, lives, wait_for_the_end_of

ray = pytest.importorskip("ray")
pytestmark = MARKS

SHORT = Sampling(max_new_tokens=8)
QUESTIONS = [user(f"What is {number} plus one?") for number in range(12)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    wait_for_slow_nodes()
    try:
        ray.init(
            "local",  # and not what another cluster on this machine left
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100_000_000,
        )
        send_classes_of(__name__)
        yield
    finally:  # also of a node that did not start
        leave_ray()


class Deadly(Spreadable):
    """Answers with the question, and ends its process at some of them.

    Args:
        flag: A file that is made before the process ends: a question in `once` does so once.
        once: Words at which it ends, the first time.
        ever: Words at which it ends every time.
        seconds: The time that an answer takes.
        by: How it ends: its process exits, the kernel kills it, or there is no memory for an answer.
    """

    def __init__(
        self,
        flag: Path,
        once: str = "",
        ever: str = "",
        seconds: float = 0.0,
        by: str = "exit",
    ) -> None:
        super().__init__("deadly")
        self.flag, self.once, self.ever, self.seconds = flag, once, ever, seconds
        self.by = by

    def reply(self, text: str, sampling: Sampling) -> str:
        time.sleep(self.seconds)
        if self.ever and self.ever in text:
            self.end()
        if self.once and self.once in text and not self.flag.exists():
            self.flag.touch()
            self.end()
        return f"{text} {sampling.seed}"

    def end(self) -> None:
        if self.by == "memory":
            bytearray(2**62)
        elif self.by == "kernel":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)


@pytest.fixture
def pool() -> Iterator[Callable[..., RayPool]]:
    made: list[RayPool] = []

    def make(**settings: Any) -> RayPool:
        made.append(RayPool(**{"replicas": (2, 2), "cpus": 0.5, "batch_size": 2, **settings}))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_two_experts_in_one_pool_answer_as_they_do_alone(
    make_adapter: Callable[..., Path], tiny_llama: Path, pool: Callable[..., RayPool]
) -> None:
    experts = [HuggingFaceModel(make_adapter(name, 7 + len(name))) for name in ("a", "bb")]
    both = pool()
    for expert in [both.spread(one) for one in experts]:
        own = next(one for one in experts if one.name == expert.name)
        told: list[tuple[int, Generation]] = []
        found = expert.generate(QUESTIONS, SHORT, lambda *one, told=told: told.append(one))
        assert found == own.generate(QUESTIONS, SHORT)
        assert dict(told) == dict(enumerate(found))
        assert expert.fingerprint == own.fingerprint
    assert not experts[0].unloaded().is_loaded


def test_samples_are_those_that_the_model_draws(
    tiny_llama: Path, pool: Callable[..., RayPool]
) -> None:
    model = HuggingFaceModel(tiny_llama)
    warm = Sampling(temperature=1.0, max_new_tokens=6, seed=3)
    asked = [QUESTIONS[0]] * 3 + [QUESTIONS[1]] * 2
    found = pool().spread(model).generate(asked, warm)
    assert found == model.generate(asked, warm)
    assert len({one.text for one in found[:3]}) > 1


@pytest.mark.parametrize("by", ["exit", "kernel", "memory"])
def test_an_actor_that_is_killed_loses_nothing_that_was_answered(
    tmp_path: Path, pool: Callable[..., RayPool], by: str
) -> None:
    """One of two actors dies in the middle; every question has its answer, each told once."""
    flag = tmp_path / "died"
    model = pool().spread(Deadly(flag, once="7 plus", seconds=0.02, by=by))
    told: list[int] = []
    found = model.generate(QUESTIONS, SHORT, lambda index, _: told.append(index))
    assert flag.exists()
    assert [one.text for one in found] == [f"{one[-1].content} 0" for one in QUESTIONS]
    assert sorted(told) == list(range(len(QUESTIONS)))


@pytest.mark.parametrize("by", ["exit", "memory"])
def test_a_question_that_kills_every_actor_is_given_up_and_no_other(
    tmp_path: Path, pool: Callable[..., RayPool], by: str
) -> None:
    model = pool().spread(Deadly(tmp_path / "never", ever="7 plus", by=by))
    with ResponseStore(tmp_path / "answers.sqlite") as store:
        with pytest.raises(ModelError, match="given up") as caught:
            store.ask(model, QUESTIONS, SHORT)
        assert list(caught.value.unanswered) == [QUESTIONS[7]]
        others = [*QUESTIONS[:7], *QUESTIONS[8:]]
        model.pool = None  # what is asked again from here on would end this process
        assert len(store.ask(model, others, SHORT)) == len(others)


def test_what_the_model_raises_is_raised_here(
    tiny_llama: Path, pool: Callable[..., RayPool]
) -> None:
    model = pool().spread(HuggingFaceModel(tiny_llama))
    with pytest.raises(ModelError, match="not fit"):
        model.generate([QUESTIONS[0], user("word " * 2_000)], SHORT)


def test_an_actor_starts_one_server_for_all_experts_and_it_ends_with_the_actor(
    make_adapter: Callable[..., Path], pool: Callable[..., RayPool]
) -> None:
    engine = Engine(command=FAKE)
    both = pool(replicas=(1, 1))
    experts = [
        both.spread(HuggingFaceModel(make_adapter(name, 7 + len(name)), engine=engine))
        for name in ("a", "bb")
    ]
    said = [
        json.loads(answer.text)
        for expert in (*experts, *experts)
        for answer in expert.generate(QUESTIONS[:3], SHORT)
    ]
    [pid] = {one["pid"] for one in said}
    assert len({one["model"] for one in said}) == 2
    assert lives(pid)
    assert all(expert._server().starts == 0 for expert in experts)
    both.stop()
    wait_for_the_end_of(pid)


def test_a_student_trained_here_is_refused_and_ends_the_actors(
    tiny_llama: Path, pool: Callable[..., RayPool]
) -> None:
    actors = pool()
    model = actors.spread(HuggingFaceModel(tiny_llama))
    model.generate(QUESTIONS[:2], SHORT)
    assert actors._actors
    student = model.trainable_copy(Adaptation(rank=2))
    assert not actors._actors
    with pytest.raises(CapabilityError, match="save it"):
        actors.spread(student)
    # It answers here, with the weights that it has.
    assert student.generate(QUESTIONS[:2], SHORT) == model.generate(QUESTIONS[:2], SHORT)


def test_a_cluster_without_room_is_one_clear_error(
    tmp_path: Path, pool: Callable[..., RayPool]
) -> None:
    model = pool(cpus=64, start_seconds=2).spread(Deadly(tmp_path / "never"))
    with pytest.raises(ModelError, match="no actor within 2 s"):
        model.generate(QUESTIONS, SHORT)


@pytest.mark.parametrize(
    "settings",
    [
        {"replicas": (0, 1)},
        {"replicas": (3, 2)},
        {"replicas": 1},
        {"replicas": ("1", "8")},
        {"gpus": -1},
        {"batch_size": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RayPool(**settings)


def test_a_recipe_has_all_experts_on_one_base_answer_from_one_pool(
    make_adapter: Callable[..., Path], tiny_llama: Path, tmp_path: Path
) -> None:
    examples = [
        {"query": f"What is {number} plus {domain}?", "domain": domain}
        for number in range(4)
        for domain in ("law", "tax")
    ]
    (tmp_path / "examples.jsonl").write_text(
        "".join(json.dumps(example) + "\n" for example in examples), encoding="utf-8"
    )
    experts = {name: make_adapter(name, seed) for seed, name in enumerate(("law", "tax"), 7)}
    paths = {"student": tiny_llama, "examples": tmp_path / "examples.jsonl", **experts}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(**paths), encoding="utf-8")
    distiller = build_distiller(read_recipe(recipe))
    teachers: list[Any] = list(distiller.teacher_models.values())
    shared = teachers[0]._pool
    assert shared is teachers[1]._pool
    assert isinstance(shared, RayPool)
    assert (shared.replicas, shared.gpus) == ((1, 2), 0)
    collected = distiller.collect(distiller.generate())
    shared.stop()
    # They are the answers of the experts themselves, under their names: none would ask them again.
    own = {name: HuggingFaceModel(path) for name, path in experts.items()}
    for example, responses in collected:
        name = example.primary_domain
        expected = own[name].generate([example.conversation], SHORT)
        assert responses[name].text == expected[0].text
    assert [one.fingerprint for one in teachers] == [one.fingerprint for one in own.values()]


RECIPE = """
output_dir: run
answers: off
domains: {{law: Statutes., tax: Taxes.}}
student: {student}
teachers:
  law: {{path: {law}, engine: {{type: ray, replicas: [1, 2], gpus: 0, cpus: 0.5}}}}
  tax: {{path: {tax}, engine: {{kind: ray, replicas: [1, 2], gpus: 0, cpus: 0.5}}}}
generators: [{{type: curated, file: {examples}}}]
responses: {{max_new_tokens: 8}}
trainer: {{type: integration, learning_rate: 1e-3, epochs: 1, adaptation: lora, batch_size: 4}}
evaluation: off
"""
