"""Local models behind an inference engine: a real process on a real socket, which stands for vLLM
and fails on command.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import Adaptation, Engine, HuggingFaceModel, generate_with
from domainfusion.models.engine import stop_engines
from domainfusion.recipe.sections import ModelSection, RaySection
from domainfusion.types import Conversation, Generation, Sampling, user

FAKE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))
MakeAdapter = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_server_is_left() -> Iterator[None]:
    yield
    stop_engines()


def fake(failure: str = "", **settings: Any) -> Engine:
    return Engine(command=FAKE, environment={"FAKE_ENGINE": failure}, **settings)


def served(path: Path, engine: Engine, **settings: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, dtype="float32", device="cpu", engine=engine, **settings)


def said(answer: str | Generation) -> dict[str, Any]:
    return json.loads(answer if isinstance(answer, str) else answer.text)


def questions(count: int) -> list[Conversation]:
    return [user(f"question {number}") for number in range(count)]


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 60
    while lives(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.05)


def test_all_experts_on_one_base_are_one_server(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    engine = fake()
    experts = [served(make_adapter(name, seed), engine) for seed, name in enumerate(("one", "two"))]
    models = [served(tiny_llama, engine, system_prompt="Be brief."), *experts]
    answers = [said(answer) for answer in generate_with(models, questions(3))]
    assert len({answer["pid"] for answer in answers}) == 1
    assert len({answer["model"] for answer in answers}) == 3
    assert models[0]._server().starts == 1
    prompts = [answer["asked"]["messages"] for answer in answers]
    assert prompts[0] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "question 0"},
    ]
    assert prompts[2] == [{"role": "user", "content": "question 2"}]
    assert not any(model.is_loaded for model in models)


def test_an_expert_that_comes_later_is_answered_for_too(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    engine = fake()
    base = served(tiny_llama, engine)
    base.ask("Why?")
    expert = served(make_adapter("late", 3), engine)
    assert said(expert.ask("Why?"))["model"] != said(base.ask("Why?"))["model"]
    assert base._server().starts == 2


def test_its_memory_is_free_before_a_student_is_trained(tiny_llama: Path) -> None:
    model = served(tiny_llama, fake())
    pid = said(model.ask("Why?"))["pid"]
    student = model.trainable_copy(Adaptation(rank=2))
    assert not lives(pid)
    again = said(model.ask("Why?"))["pid"]
    assert again != pid
    student.trainable_module()
    assert not lives(again)
    # The student's weights are in this process alone.
    student.generate(questions(1), Sampling(max_new_tokens=2))
    assert not model._server().is_running


def test_a_model_that_is_released_stops_its_server(tiny_llama: Path) -> None:
    model = served(tiny_llama, fake())
    pid = said(model.ask("Why?"))["pid"]
    model.release()
    assert not lives(pid)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-engine", r"is not there.*no-such-engine.*install vLLM"),
        ("{folder}/no-such-engine", r"is not there.*no-such-engine.*install vLLM"),
        ("{folder}/engine", r"may not be run.*engine.*chmod \+x \S*engine"),
        ("{folder}", r"is a folder.*install vLLM"),
    ],
)
def test_a_command_that_can_not_be_run(
    tiny_llama: Path, tmp_path: Path, command: str, message: str
) -> None:
    (tmp_path / "engine").write_text("#!/bin/sh\n")
    model = served(tiny_llama, Engine(command=(command.format(folder=tmp_path), "serve")))
    with pytest.raises(ModelError, match=message):
        model.check_command()
    with pytest.raises(ModelError, match=message):
        model.ask("Why?")


def test_a_port_that_is_taken(tiny_llama: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ModelError, match=rf"port is taken.*{port}.*leave port out"):
            served(tiny_llama, fake(port=port)).ask("Why?")


def test_a_server_that_ends_before_it_answers(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match=r"exit code 3[\s\S]*no memory for the weights"):
        served(tiny_llama, fake("exits")).ask("Why?")


def test_a_server_that_never_answers(tiny_llama: Path) -> None:
    model = served(tiny_llama, fake("never", start_seconds=1.5))
    with pytest.raises(ModelError, match=r"within 1.5 s[\s\S]*raise start_seconds"):
        model.ask("Why?")
    assert not model._server().is_running


def test_a_server_that_serves_another_model(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match=r"serves other models.*somebody-else"):
        served(tiny_llama, fake("other model")).ask("Why?")


def test_a_server_that_dies_in_the_middle_loses_no_answer(tiny_llama: Path) -> None:
    model = served(tiny_llama, fake("dies", max_concurrency=1))
    kept: dict[int, Generation] = {}
    asked = questions(20)
    with pytest.raises(ModelError, match=r"exit code 9[\s\S]*out of memory") as caught:
        model.generate(asked, on_result=kept.__setitem__)
    assert len(kept) == 5
    assert set(caught.value.unanswered) == {
        question for index, question in enumerate(asked) if index not in kept
    }
    # The rest is asked of a new process.
    assert said(model.generate(asked[5:7])[0])["asked"]["messages"][0]["content"] == "question 5"


def test_an_answer_without_words_is_an_answer_as_it_is_of_a_local_model(tiny_llama: Path) -> None:
    [answer] = served(tiny_llama, fake("is silent")).generate(questions(1))
    assert (answer.text, answer.finish_reason) == ("", "stop")


KILLED = """
import json, os, signal, sys
from domainfusion.models import Engine, HuggingFaceModel
engine = Engine(command=(sys.executable, sys.argv[1]))
model = HuggingFaceModel(sys.argv[2], dtype="float32", device="cpu", engine=engine)
print(json.loads(model.ask("Why?"))["pid"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_server_outlives_a_process_that_is_killed(tiny_llama: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED, FAKE[1], str(tiny_llama)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    wait_for_the_end_of(int(found.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_no_server_outlives_its_supervisor_which_ray_kills_with_an_actor(tiny_llama: Path) -> None:
    model = served(tiny_llama, fake())
    pid = said(model.ask("Why?"))["pid"]
    supervisor = model._server()._process.pid
    assert supervisor != pid
    os.kill(supervisor, signal.SIGKILL)
    wait_for_the_end_of(pid)


def test_what_an_engine_answers_is_stored_apart(tiny_llama: Path) -> None:
    plain = HuggingFaceModel(tiny_llama, dtype="float32", device="cpu")
    by_engine = served(tiny_llama, fake())
    assert by_engine.fingerprint != plain.fingerprint
    assert by_engine.fingerprint == served(tiny_llama, fake(port=1234)).fingerprint
    quick = served(tiny_llama, fake(options=("--quantization", "fp8")))
    assert quick.fingerprint != by_engine.fingerprint


@pytest.mark.parametrize(
    "setting",
    [
        {"kind": "vllms"},
        {"command": "vllm serve"},
        {"port": 0},
        {"start_seconds": 0},
        {"max_concurrency": 0},
    ],
)
def test_a_setting_that_can_not_be_right_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Engine(**setting)


def test_a_model_that_an_engine_can_not_serve_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"vllm for folders, llamacpp for \.gguf"):
        HuggingFaceModel(tiny_llama, engine="llamacpp")


def test_a_recipe_names_or_describes_an_engine(tiny_llama: Path) -> None:
    named = ModelSection.model_validate({"path": str(tiny_llama), "engine": "vllm"})
    assert named.engine.engine() == Engine()
    described = {"kind": "vllm", "command": list(FAKE), "options": ["--x", "1"], "port": 5_000}
    section = ModelSection.model_validate({"path": str(tiny_llama), "engine": described})
    assert section.engine.engine() == Engine(command=FAKE, options=("--x", "1"), port=5_000)


@pytest.mark.parametrize("key", ["kind", "type"])
def test_a_recipe_describes_a_pool_of_ray(tiny_llama: Path, key: str) -> None:
    described = {key: "ray", "replicas": [1, 8], "gpus": 1}
    section = ModelSection.model_validate({"path": str(tiny_llama), "engine": described}).engine
    assert isinstance(section, RaySection)
    assert (section.replicas, section.gpus, section.batch_size) == ([1, 8], 1, 16)
    with pytest.raises(ValidationError, match="is not a key of a recipe"):
        ModelSection.model_validate(
            {"path": str(tiny_llama), "engine": {**described, "command": ["ray"]}}
        )
    assert ModelSection.model_validate({"path": str(tiny_llama), "engine": "ray"}).engine == (
        RaySection(kind="ray")
    )


@pytest.mark.parametrize("server", ["vllm", {"type": "vllm", "command": ["x", "serve"]}])
def test_a_recipe_names_the_engine_of_a_pools_actors(tiny_llama: Path, server: Any) -> None:
    described = {"kind": "ray", "gpus": 1, "server": server}
    section = ModelSection.model_validate({"path": str(tiny_llama), "engine": described}).engine
    assert isinstance(section, RaySection)
    words = ("x", "serve") if isinstance(server, dict) else ()
    assert section.server.engine() == Engine(command=words)


@pytest.mark.parametrize("replicas", [[3, 2], [0, 1], [1], [1, 2, 3]])
def test_a_range_of_actors_that_is_invalid_is_refused(replicas: list[int]) -> None:
    with pytest.raises(ConfigurationError, match="replicas are not a range"):
        RaySection.model_validate({"kind": "ray", "replicas": replicas}).pool()
