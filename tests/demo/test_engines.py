"""The demo's experts behind real vLLM, which answers and scores: `make test-engines` builds it and
names its command in `VLLM`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from distillation.builders import record
from domainfusion.demo.questions import build_questions
from domainfusion.demo.world import base_folder, load_world, world_folder
from domainfusion.distillation import (
    CuratedDataGenerator,
    Distiller,
    DistributionObjective,
    IntegrationTrainer,
    LikelihoodObjective,
    RunSettings,
)
from domainfusion.distillation.metrics import stated_parts
from domainfusion.models import APIModel, Engine, Limits, LlamaModel, Prices, ResponseStore
from domainfusion.models.engine import stop_engines
from domainfusion.models.ray_pool import RayPool
from domainfusion.types import Example, Sampling, TrainingRecord, user
from models.ray_actors import leave_ray, wait_for_slow_nodes
from training.lessons import begun, losses_of, tails_of

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif("VLLM" not in os.environ, reason="VLLM names no command"),
]

SHORT = Sampling(max_new_tokens=32)
PER_DOMAIN = 8
SCORED = 20
ADAPTERS = world_folder() / "adapters"
DOMAINS = sorted(folder.name for folder in ADAPTERS.iterdir() if folder.is_dir())


def expert(domain: str, engine: Engine | None) -> LlamaModel:
    return LlamaModel(
        ADAPTERS / domain,
        base_model=base_folder(),
        dtype="float32",
        device="cpu",
        engine=engine,
    )


@pytest.fixture(scope="module")
def engine() -> Engine:
    """vLLM, as it runs on a CPU."""
    return Engine(
        command=(os.environ["VLLM"], "serve"),
        options=("--max-model-len", "1024", "--enforce-eager"),
        environment={"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"},
        start_seconds=1_800,
    )


@pytest.fixture(scope="module")
def served(engine: Engine) -> Iterator[dict[str, LlamaModel]]:
    """The experts on one server."""
    yield {domain: expert(domain, engine) for domain in DOMAINS}
    stop_engines()


@pytest.fixture(scope="module")
def local() -> dict[str, LlamaModel]:
    return {domain: expert(domain, None) for domain in DOMAINS}


@pytest.fixture(scope="module")
def questions() -> Sequence[Example]:
    return build_questions(load_world(world_folder())).test


def scoring(model: LlamaModel, **settings: object) -> APIModel:
    """Returns what asks the model's server for scores, as a user would who started it."""
    client = model._client()
    client.server.ready()
    # Two scoring requests of adapters at once end vLLM 0.32 on a CPU (an error in its logits of LoRA).
    limits = Limits(max_concurrency=1)
    return APIModel(
        client.name,
        base_url=client.server.url,
        scores=True,
        limits=limits,
        **settings,  # type: ignore[arg-type]
    )


def test_the_experts_answer_on_one_server_as_they_do_here(
    served: dict[str, LlamaModel],
    local: dict[str, LlamaModel],
    questions: Sequence[Example],
    tmp_path: Path,
) -> None:
    same, grades = 0, []
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for domain in DOMAINS:
            own = [example for example in questions if example.domains == (domain,)][:PER_DOMAIN]
            asked = [user(example.query) for example in own]
            answers = store.ask(served[domain], asked, SHORT)
            for example, answer in zip(own, answers, strict=True):
                grades.append(stated_parts(example, answer.text).value)
            ours = store.ask(local[domain], asked, SHORT)
            same += sum(a.text == b.text for a, b in zip(answers, ours, strict=True))
        assert served[DOMAINS[0]]._server().starts == 1
        assert len(store) == 2 * len(grades) == 2 * PER_DOMAIN * len(DOMAINS)
    # A near tie between two tokens may fall otherwise.
    assert same >= 0.9 * len(grades)
    known = [grade for grade in grades if grade is not None]
    assert sum(known) / len(known) > 0.8


@pytest.fixture(scope="module")
def records(questions: Sequence[Example]) -> list[TrainingRecord]:
    """Records of one domain, two of them with answers that its expert does not give."""
    own = [example for example in questions if example.domains == (DOMAINS[0],)][:2]
    return [
        record(own[0].query, "Nobody knows, naïve as it is.", (DOMAINS[0],)),
        record(own[1].query, "It is 7 km long: 日本 😀.", (DOMAINS[0],)),
    ]


@dataclass(frozen=True)
class Taught:
    """Objectives that were made ready by a served expert, and by the same one here."""

    distribution: tuple[DistributionObjective, DistributionObjective]
    likelihood: tuple[LikelihoodObjective, LikelihoodObjective]


@pytest.fixture(scope="module")
def base() -> LlamaModel:
    return LlamaModel(base_folder(), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def taught(
    served: dict[str, LlamaModel],
    local: dict[str, LlamaModel],
    base: LlamaModel,
    records: list[TrainingRecord],
    tmp_path_factory: pytest.TempPathFactory,
) -> Taught:
    """All at once: the server is stopped where a student is trained, and started again."""
    domain = DOMAINS[0]
    teachers = (scoring(served[domain]), local[domain])
    made = Taught(
        (DistributionObjective(alpha=1.0), DistributionObjective(alpha=1.0)),
        (
            LikelihoodObjective(alpha=1.0, temperature=10.0),
            LikelihoodObjective(alpha=1.0, temperature=10.0),
        ),
    )
    for pair in (made.distribution, made.likelihood):
        for objective, teacher in zip(pair, teachers, strict=True):
            folder = tmp_path_factory.mktemp("taught")
            found = begun(objective, base, {domain: teacher}, records, folder)
            assert found["signals"].get("rows_not_aligned", 0) == 0
    return made


def test_a_distillation_learns_from_what_it_says_and_scores(
    served: dict[str, LlamaModel], questions: Sequence[Example], taught: Taught, tmp_path: Path
) -> None:
    """Answers by chat, scores of the targets, training toward them, and all of it counted."""
    prices = Prices(price_per_million_input_tokens=1.0, price_per_million_output_tokens=2.0)
    examples = []
    for domain in DOMAINS:
        examples += [example for example in questions if example.domains == (domain,)][:2]
    distiller = Distiller(
        LlamaModel(base_folder(), dtype="float32", device="cpu"),
        {domain: scoring(served[domain], prices=prices) for domain in DOMAINS},
        [CuratedDataGenerator(examples)],
        IntegrationTrainer(
            objective="distribution", adaptation="lora", learning_rate=1e-3, batch_size=2, epochs=2
        ),
        output_dir=tmp_path / "run",
        settings=RunSettings(response_sampling=SHORT),
    )
    distiller.distill()
    trained = (tmp_path / "run" / "training" / "log.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in trained.splitlines()]
    by_teacher = next(line["taught"] for line in lines if "taught" in line)
    divergences = [line["terms"]["forward_kl"] for line in lines if "terms" in line]
    assert divergences[-1] < divergences[0]
    usage = json.loads((tmp_path / "run" / "usage.json").read_text(encoding="utf-8"))
    scored = sum(by_teacher.values())
    assert 0 < scored <= len(examples)
    assert sum(model["calls"] for model in usage) == len(examples) + scored
    for model in usage:
        paid = (model["prompt_tokens"] + 2 * model["completion_tokens"]) / 1e6
        assert model["cost"] == pytest.approx(paid) and model["unknown_cost"] == 0


def test_what_it_scores_is_the_divergence_of_the_local_expert_but_for_the_tail(
    taught: Taught, local: dict[str, LlamaModel], base: LlamaModel, records: list[TrainingRecord]
) -> None:
    found, whole = (
        losses_of(objective, base, records).terms["forward_kl"] for objective in taught.distribution
    )
    tails = tails_of(local[DOMAINS[0]], base, records, SCORED)
    torch.testing.assert_close(found + tails, whole, rtol=5e-3, atol=2e-3)
    assert whole.max() > 0.1, "the expert has something to teach"


def test_the_pieces_that_it_scores_are_as_probable_as_they_are_here(
    taught: Taught, base: LlamaModel, records: list[TrainingRecord]
) -> None:
    found, expected = (
        losses_of(objective, base, records).terms["likelihood"] for objective in taught.likelihood
    )
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=2e-3, equal_nan=True)


@pytest.mark.usefixtures("own_address")
def test_an_actor_of_ray_starts_vllm_and_answers_as_the_experts_do_here(
    engine: Engine, local: dict[str, LlamaModel], questions: Sequence[Example]
) -> None:
    ray = pytest.importorskip("ray")
    stop_engines()  # two servers would want twice the memory
    wait_for_slow_nodes()
    try:
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
        pool = RayPool(replicas=(1, 1), gpus=0, cpus=1, start_seconds=1_800)
        answered, same = 0, 0
        for domain in DOMAINS:
            own = [example for example in questions if example.domains == (domain,)][:PER_DOMAIN]
            asked = [user(example.query) for example in own]
            found = pool.spread(expert(domain, engine)).generate(asked, SHORT)
            ours = local[domain].generate(asked, SHORT)
            answered += len(found)
            same += sum(a.text == b.text for a, b in zip(found, ours, strict=True))
        assert answered == PER_DOMAIN * len(DOMAINS)
        # A near tie between two tokens may fall otherwise.
        assert same >= 0.9 * answered
    finally:
        leave_ray()
