"""A real server: llama.cpp serves the demo's base model on loopback, and the same laws hold
there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domainfusion.demo.world import gguf_file
from domainfusion.distillation import (
    CuratedDataGenerator,
    Distiller,
    IntegrationTrainer,
    RunSettings,
)
from domainfusion.errors import ModelError
from domainfusion.models import APIModel, Dialect, Limits, LlamaModel, ResponseStore, ScriptedModel
from domainfusion.types import Conversation, Example, Message, Sampling, user

pytestmark = pytest.mark.slow

QUESTIONS = [user(f"What is {number} plus 1? Answer with the number.") for number in range(6)]
SHORT = Sampling(max_new_tokens=8)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    xllamacpp = pytest.importorskip("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf_file())
    settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = 4096, 4, 2
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    server = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    del server


def model_at(url: str, **settings: Any) -> APIModel:
    return APIModel(
        "SmolLM2-135M-Instruct", base_url=url, limits=Limits(max_concurrency=4), **settings
    )


def test_each_question_gets_its_own_answer_and_each_answer_is_counted(url: str) -> None:
    together, alone = model_at(url), model_at(url)
    answers = together.generate(QUESTIONS, SHORT)
    one_by_one = [alone.generate([question], SHORT)[0].text for question in QUESTIONS]
    # What runs beside it in the server may change a greedy answer, where two tokens are nearly as
    # probable.
    assert (
        sum(answer.text == text for answer, text in zip(answers, one_by_one, strict=True))
        >= len(QUESTIONS) - 2
    )
    assert all(
        answer.text and answer.prompt_tokens > 0 and 0 < answer.completion_tokens <= 8
        for answer in answers
    )
    assert together.usage.completion_tokens == sum(answer.completion_tokens for answer in answers)
    assert together.usage.answers == together.usage.requests == len(QUESTIONS)


def test_an_answer_that_is_cut_says_so_and_one_that_ends_does_too(url: str) -> None:
    [cut] = model_at(url).generate([user("Count from 1 to 100.")], Sampling(max_new_tokens=4))
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 4)
    [whole] = model_at(url, json_schema={"type": "string", "enum": ["yes"]}).generate(
        [user("Say yes.")], Sampling(max_new_tokens=60)
    )
    assert whole.finish_reason == "stop"


def test_samples_differ_and_come_again_with_their_seeds(url: str) -> None:
    warm = Sampling(temperature=1.0, max_new_tokens=12, seed=5)
    story = [user("Tell me a story.")] * 3
    model = APIModel(
        "SmolLM2-135M-Instruct",
        base_url=url,
        limits=Limits(max_concurrency=1),
        dialect=Dialect(extra_body={"cache_prompt": False}),
    )
    first = model.generate(story, warm)
    assert len({answer.text for answer in first}) > 1
    assert [answer.text for answer in model.generate(story, warm)] == [
        answer.text for answer in first
    ]


def test_structured_output_is_structured(url: str) -> None:
    city = {"type": "string", "maxLength": 20}
    schema = {
        "type": "object",
        "properties": {"city": city},
        "required": ["city"],
        "additionalProperties": False,
    }
    [answer] = model_at(url, json_schema=schema).generate(
        [user("What is the capital of France?")], Sampling(max_new_tokens=60)
    )
    assert set(json.loads(answer.text)) == {"city"}


def test_a_conversation_with_several_turns_is_understood(url: str) -> None:
    conversation: Conversation = (
        Message("system", "Be brief."),
        Message("user", "Hello."),
        Message("assistant", "Hello!"),
        Message("user", "Name a colour."),
    )
    [answer] = model_at(url).generate([conversation], SHORT)
    assert (
        answer.prompt_tokens
        > model_at(url).generate([user("Name a colour.")], SHORT)[0].prompt_tokens
    )


def test_what_is_stored_is_not_asked_again(url: str, tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as store:
        model = model_at(url)
        first = store.ask(model, QUESTIONS, SHORT)
        assert store.ask(model, QUESTIONS, SHORT) == first
        assert model.usage.requests == len(QUESTIONS)


def test_a_prompt_beyond_the_context_is_a_clear_error_for_it_alone(url: str) -> None:
    with pytest.raises(ModelError, match="context") as caught:
        model_at(url).generate([QUESTIONS[0], user("word " * 6_000)], SHORT)
    assert len(caught.value.unanswered) == 1


def test_a_served_and_a_local_teacher_are_distilled_into_one_student(
    url: str, tiny_llama: Path, tmp_path: Path
) -> None:
    examples = [
        Example(query=f"What is {number} plus 1?", domains=("sums",)) for number in range(3)
    ]
    examples += [
        Example(query=f"What is {number} plus 1, and what is red?", domains=("sums", "colours"))
        for number in range(3)
    ]
    run = Distiller(
        LlamaModel(tiny_llama, dtype="float32"),
        {
            "sums": model_at(url, system_prompt="Answer in one short sentence."),
            "colours": ScriptedModel("Red is a colour."),
        },
        [CuratedDataGenerator(examples)],
        IntegrationTrainer(epochs=1, batch_size=2, learning_rate=1e-3),
        output_dir=tmp_path / "run",
        settings=RunSettings(response_sampling=Sampling(max_new_tokens=24)),
    )
    student = run.distill()
    records = [
        json.loads(line) for line in (run.output_dir / "records.jsonl").read_text().splitlines()
    ]
    assert len(records) == 6
    assert all(record["responses"][0]["completion_tokens"] > 0 for record in records)
    assert student.generate([user("What is 1 plus 1?")], SHORT)[0].completion_tokens > 0
