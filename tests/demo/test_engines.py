"""The demo's experts behind real vLLM: `make test-engines` builds it and names its command in `VLLM`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domainfusion.demo.questions import build_questions
from domainfusion.demo.world import base_folder, load_world, world_folder
from domainfusion.distillation.metrics import stated_parts
from domainfusion.models import Engine, LlamaModel, ResponseStore
from domainfusion.models.engine import stop_engines
from domainfusion.types import Sampling, user

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif("VLLM" not in os.environ, reason="VLLM names no command"),
]

SHORT = Sampling(max_new_tokens=32)
PER_DOMAIN = 8


def test_the_experts_answer_on_one_server_as_they_do_here(tmp_path: Path) -> None:
    world = load_world(world_folder())
    tests = build_questions(world).test
    engine = Engine(
        command=(os.environ["VLLM"], "serve"),
        options=("--max-model-len", "1024", "--enforce-eager"),
        environment={"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    adapters = world_folder() / "adapters"
    domains = sorted(folder.name for folder in adapters.iterdir() if folder.is_dir())
    served, local = (
        {
            domain: LlamaModel(
                adapters / domain,
                base_model=base_folder(),
                dtype="float32",
                device="cpu",
                engine=each,
            )
            for domain in domains
        }
        for each in (engine, None)
    )
    same, grades = 0, []
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for domain in domains:
            own = [example for example in tests if example.domains == (domain,)][:PER_DOMAIN]
            asked = [user(example.query) for example in own]
            answers = store.ask(served[domain], asked, SHORT)
            for example, answer in zip(own, answers, strict=True):
                grades.append(stated_parts(example, answer.text).value)
            ours = store.ask(local[domain], asked, SHORT)
            same += sum(a.text == b.text for a, b in zip(answers, ours, strict=True))
        assert served[domains[0]]._server().starts == 1
        assert len(store) == 2 * len(grades) == 2 * PER_DOMAIN * len(domains)
    stop_engines()
    # A near tie between two tokens may fall otherwise.
    assert same >= 0.9 * len(grades)
    known = [grade for grade in grades if grade is not None]
    assert sum(known) / len(known) > 0.8
