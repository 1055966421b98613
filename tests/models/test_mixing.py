"""Laws of mixed batches: each row gets the answer that its own expert gives when it is asked by
itself.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import (
    Adaptation,
    HuggingFaceModel,
    LanguageModel,
    ScriptedModel,
    answering,
    generate_with,
    rows,
)
from domainfusion.models.shared_base import SharedBase
from domainfusion.types import Conversation, Generation, Sampling, user

MakeAdapter = Callable[..., Path]

QUESTIONS = [
    "What is the capital of France?",
    "Why?",
    "How do aircraft land near a river, and how do muscles recover after it?",
    "?",
]
SHORT = Sampling(max_new_tokens=10)
WARM = Sampling(max_new_tokens=10, temperature=1.0, seed=3)


def load(path: Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, **{"dtype": "float32", "device": "cpu", **options})


@pytest.fixture
def experts(tiny_llama: Path, make_adapter: MakeAdapter) -> list[HuggingFaceModel]:
    """The base, a prompted base, and three adapters of different shapes."""
    return [
        load(tiny_llama),
        load(tiny_llama, system_prompt="Be brief."),
        load(make_adapter("one", 1)),
        load(make_adapter("two", 2, r=8, target_modules=["q_proj", "down_proj"])),
        load(make_adapter("three", 3, use_rslora=True), system_prompt="Be verbose."),
    ]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the mixed batches that are answered."""
    sizes: list[int] = []
    continue_batch = rows.continue_batch

    def counted(module: Any, prompts: Sequence[Any], *rest: Any) -> list[list[int]]:
        sizes.append(len(prompts))
        return continue_batch(module, prompts, *rest)

    for module in (answering, rows):
        monkeypatch.setattr(module, "continue_batch", counted)
    return sizes


def apart(
    models: Sequence[LanguageModel], conversations: Sequence[Conversation], sampling: Sampling
) -> list[Generation]:
    """Returns what each model answers when it is asked by itself, all of its conversations at
    once.
    """
    found: dict[int, Generation] = {}
    for model in {id(model): model for model in models}.values():
        rows = [index for index, other in enumerate(models) if other is model]
        found |= dict(
            zip(
                rows,
                model.generate([conversations[index] for index in rows], sampling),
                strict=True,
            )
        )
    return [found[index] for index in range(len(models))]


@pytest.mark.parametrize("sampling", [SHORT, WARM], ids=["greedy", "warm"])
def test_a_mixed_batch_gives_each_row_the_answer_of_its_own_expert(
    experts: list[HuggingFaceModel], batches: list[int], sampling: Sampling
) -> None:
    models = [expert for _ in QUESTIONS for expert in experts]
    conversations = [user(question) for question in QUESTIONS for _ in experts]
    expected = apart(models, conversations, sampling)
    assert len({answer.text for answer in expected}) > 0.8 * len(
        expected
    )  # the experts do say different things
    assert generate_with(models, conversations, sampling) == expected
    assert batches == [len(models)]


def test_mixing_leaves_every_expert_as_it_was(experts: list[HuggingFaceModel]) -> None:
    conversations = [user(QUESTIONS[0])] * len(experts)
    before = [expert.generate([user(QUESTIONS[2])], SHORT) for expert in experts]
    weights = {
        name: tensor.clone()
        for name, tensor in SharedBase.get(experts[0]._key).module.state_dict().items()
    }
    for _ in range(2):
        generate_with(experts, conversations, SHORT)
        assert [expert.generate([user(QUESTIONS[2])], SHORT) for expert in experts] == before
    generate_with(experts[::-1], conversations, SHORT)
    experts[-1].generate([user(QUESTIONS[2])], SHORT)
    state = SharedBase.get(experts[0]._key).module.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())


def test_the_same_question_asked_twice_of_one_expert_gets_two_samples(
    experts: list[HuggingFaceModel], batches: list[int]
) -> None:
    models = [experts[2], experts[3], experts[2], experts[3]]
    conversations = [user(QUESTIONS[0])] * 4
    found = generate_with(models, conversations, WARM)
    assert found == apart(models, conversations, WARM)
    assert found[0] != found[2]
    assert batches == [4]


@pytest.mark.parametrize(
    ("rows", "batch_size", "expected"),
    [
        ((1, 1, 1), 32, [3]),
        ((2, 1), 3, [3]),
        ((3, 3), 3, []),  # more than one batch: merged weights are faster
        ((2, 2), 3, []),
        ((4, 1, 1), 3, []),
        ((5,), 2, []),
    ],
)
def test_rows_are_mixed_only_where_one_batch_holds_them_all(
    make_adapter: MakeAdapter,
    batches: list[int],
    rows: tuple[int, ...],
    batch_size: int,
    expected: list[int],
) -> None:
    experts = [
        load(make_adapter(name, seed), batch_size=batch_size)
        for seed, name in enumerate("abc"[: len(rows)], start=1)
    ]
    models = [expert for expert, count in zip(experts, rows, strict=True) for _ in range(count)]
    conversations = [user(f"{QUESTIONS[0]} {number}") for number in range(len(models))]
    assert generate_with(models, conversations, SHORT) == apart(models, conversations, SHORT)
    assert batches == expected


def test_models_of_every_kind_are_asked_in_one_go(
    experts: list[HuggingFaceModel],
    make_adapter: MakeAdapter,
    make_llama: Callable[..., Path],
    batches: list[int],
) -> None:
    dora, stranger, scripted = (
        load(make_adapter("dora", 4, use_dora=True)),
        load(make_llama("other", seed=5)),
        ScriptedModel(str.upper),
    )
    student = experts[0].trainable_copy(Adaptation(rank=2))
    models: list[LanguageModel] = [
        scripted,
        experts[2],
        dora,
        experts[0],
        stranger,
        student,
        scripted,
    ]
    conversations = [user(QUESTIONS[index % 4]) for index in range(len(models))]
    expected = apart(models, conversations, SHORT)
    scripted.calls.clear()
    seen: dict[int, Generation] = {}

    def keep(index: int, generation: Generation) -> None:
        assert index not in seen
        seen[index] = generation

    assert generate_with(models, conversations, SHORT, keep) == expected
    assert [seen[index] for index in range(len(models))] == expected
    assert batches == [3]
    assert scripted.calls == [conversations[0], conversations[6]]


def test_experts_with_chat_templates_of_their_own_share_a_batch(
    tiny_llama: Path, make_adapter: MakeAdapter, batches: list[int]
) -> None:
    closed = "{% for m in messages %}{{ m['content'] + '<|endoftext|>' }}{% endfor %}"
    models = [load(make_adapter("one", 1)), load(make_adapter("two", 2), chat_template=closed)]
    assert models[0].end_tokens != models[1].end_tokens
    conversations = [user(QUESTIONS[0])] * 2
    assert generate_with(models, conversations, SHORT) == apart(models, conversations, SHORT)
    assert batches == [2]


def test_a_student_in_training_answers_beside_its_teachers_without_dropout(
    experts: list[HuggingFaceModel], batches: list[int]
) -> None:
    student = experts[0].trainable_copy(Adaptation(rank=2, dropout=0.5))
    module = student.trainable_module().train()
    conversations = [user(QUESTIONS[0])] * 2
    assert generate_with([student, experts[2]], conversations, SHORT) == apart(
        [student, experts[2]], conversations, SHORT
    )
    assert batches == [2] and module.training


def test_nothing_asked_is_nothing_answered() -> None:
    assert generate_with([], []) == []


def test_a_model_for_each_conversation_has_to_be_given(experts: list[HuggingFaceModel]) -> None:
    with pytest.raises(ConfigurationError, match="received 5; allowed: 1 model"):
        generate_with(experts, [user("Why?")])


def test_a_conversation_that_does_not_fit_is_refused(experts: list[HuggingFaceModel]) -> None:
    with pytest.raises(ModelError, match="512 tokens"):
        generate_with(experts[:3], [user("word " * 600)] * 3)
