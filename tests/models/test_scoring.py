"""Laws of scores: they are what plain Transformers computes, batches change nothing, and the head
makes of the hidden states what it is.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
)

from domainfusion.errors import CapabilityError, ModelError
from domainfusion.models import Adaptation, HuggingFaceModel, TokenScorer
from domainfusion.models.base import TokenScores
from domainfusion.models.projection import check_projection, head_of, project
from domainfusion.models.rows import TOKENS_AT_ONCE, token_log_probabilities
from domainfusion.types import Conversation, Message, user

EXACT = 1e-5
"""How far a log-probability in float32 may be from the one that plain Transformers computes, row by
row and without padding.
"""

MERGING_TOLERANCE = 1e-3
"""How far it may be where an adapter was merged into the weights."""


def answered(question: str, answer: str) -> Conversation:
    return (*user(question), Message("assistant", answer))


CONVERSATIONS = [
    answered("What is the capital of France?", "The capital of France is Paris."),
    answered("Why?", "a"),
    answered("?", ""),
    answered(
        "How do muscles recover after a race? " * 8,
        "Muscles recover with rest, sleep and protein. " * 6,
    ),
    (
        Message("system", "Be brief."),
        *answered("Is the fox quick?", "Yes."),
        *answered("And the dog?", "The dog is lazy 😀."),
    ),
]


def load(path: Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, **{"dtype": "float32", "device": "cpu", **options})


def plain_scores(module: Any, tokenizer: Any, conversation: Conversation) -> list[float]:
    """Returns the log-probabilities of the last turn and its end as plain Transformers gives them
    for this row alone.
    """
    messages = [{"role": message.role, "content": message.content} for message in conversation]
    prompt = tokenizer.apply_chat_template(
        messages[:-1], add_generation_prompt=True, return_dict=False
    )
    answer = [
        *tokenizer(messages[-1]["content"], add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    with torch.no_grad():
        logits = module.eval()(torch.tensor([prompt + answer])).logits[0].float()
    distribution = logits.log_softmax(-1)
    return [
        float(distribution[len(prompt) + place - 1, token]) for place, token in enumerate(answer)
    ]


def assert_close(found: list[TokenScores], expected: list[list[float]], tolerance: float) -> None:
    assert [len(scores.tokens) for scores in found] == list(map(len, expected))
    for scores, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(
            torch.tensor(scores.log_probabilities), torch.tensor(wanted), rtol=0, atol=tolerance
        )


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_scores_are_what_plain_transformers_computes_for_each_row_alone(
    tiny_llama: Path, batch_size: int
) -> None:
    module, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32),
        AutoTokenizer.from_pretrained(tiny_llama),
    )
    expected = [plain_scores(module, tokenizer, conversation) for conversation in CONVERSATIONS]
    assert max(map(len, expected)) > 10 * min(
        map(len, expected)
    )  # the rows are as unlike as the case claims
    assert_close(load(tiny_llama, batch_size=batch_size).score(CONVERSATIONS), expected, EXACT)


def test_an_expert_is_scored_with_its_adapter_and_the_base_without(
    tiny_llama: Path, make_adapter: Callable[..., Path]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    everywhere = ["q_proj", "down_proj", "lm_head"]
    base, expert = load(tiny_llama), load(make_adapter("one", 1, target_modules=everywhere))
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    bare = [plain_scores(plain, tokenizer, conversation) for conversation in CONVERSATIONS]
    adapted = PeftModel.from_pretrained(
        plain, str(make_adapter("one", 1, target_modules=everywhere))
    )
    for _ in range(2):
        assert_close(
            expert.score(CONVERSATIONS),
            [plain_scores(adapted, tokenizer, c) for c in CONVERSATIONS],
            MERGING_TOLERANCE,
        )
        assert_close(base.score(CONVERSATIONS), bare, EXACT)


def test_a_turn_is_scored_with_its_end(tiny_llama: Path) -> None:
    model = load(tiny_llama)
    [scores] = model.score([answered("Why?", "It is so.")])
    assert scores.tokens == (*model.tokenizer("It is so.")["input_ids"], model.turn_end)
    assert scores.total == pytest.approx(sum(scores.log_probabilities))
    assert all(number <= 0 for number in scores.log_probabilities)


def test_a_system_prompt_is_what_precedes(tiny_llama: Path) -> None:
    prompted, plain = load(tiny_llama, system_prompt="Be brief."), load(tiny_llama)
    asked = answered("Why?", "It is so.")
    assert prompted.score([asked]) == plain.score([(Message("system", "Be brief."), *asked)])
    assert prompted.score([asked]) != plain.score([asked])


def test_an_answer_that_greedy_decoding_writes_is_the_likeliest_token_by_token(
    tiny_llama: Path,
) -> None:
    model = load(tiny_llama)
    tokens = model.encode(user("Why?"))
    prompt = len(tokens)
    for _ in range(6):
        [states] = model.hidden_states([tokens])
        tokens.append(int(model.project(states[-1]).argmax()))
    [states] = model.hidden_states([tokens])
    best = model.project(states[prompt - 1 : -1]).log_softmax(-1).max(-1)
    assert best.indices.tolist() == tokens[prompt:]


def test_nothing_to_score_is_not_a_score(tiny_llama: Path) -> None:
    assert load(tiny_llama).score([]) == []
    assert load(tiny_llama).hidden_states([]) == []


@pytest.mark.parametrize(
    "conversation", [user("Why?"), (), (Message("assistant", "a"), Message("user", "b"))]
)
def test_a_conversation_that_does_not_end_in_an_answer_is_refused(
    tiny_llama: Path, conversation: Conversation
) -> None:
    with pytest.raises(ModelError, match="no answer to score"):
        load(tiny_llama).score([conversation])


def test_what_does_not_fit_the_context_is_refused_and_never_cut(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match="512 tokens"):
        load(tiny_llama).score([answered("Why?", "word " * 600)])
    with pytest.raises(ModelError, match="513 tokens does not fit"):
        load(tiny_llama).hidden_states([[5] * 513])
    assert load(tiny_llama).hidden_states([[5] * 512])[0].shape == (512, 64)


# Hidden states and the head


def test_hidden_states_and_head_make_the_models_own_logits(tiny_llama: Path) -> None:
    model: TokenScorer = load(tiny_llama, batch_size=2)
    rows = [model.encode(conversation) for conversation in CONVERSATIONS]
    module = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    for row, states in zip(rows, model.hidden_states(rows), strict=True):
        with torch.no_grad():
            expected = module(torch.tensor([row])).logits[0]
        found = model.project(states)
        assert (found.dtype, found.shape) == (torch.float32, (len(row), model.vocabulary_size))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_hidden_states_can_be_kept_and_trained_on(tiny_llama: Path) -> None:
    model = load(tiny_llama)
    first = model.hidden_states([model.encode(user("Why?"))])[0]
    kept = first.clone()
    model.hidden_states([model.encode(user("What is the capital of France?"))])
    assert torch.equal(first, kept)
    assert not first.is_inference() and not first.requires_grad
    assert (
        first.untyped_storage().nbytes() == first.numel() * first.element_size()
    )  # no padding is kept alive


def test_a_student_is_scored_without_dropout_and_continues_training(
    tiny_llama: Path, make_llama: Callable[..., Path]
) -> None:
    folder = make_llama("dropping", attention_dropout=0.5)
    student = load(folder).trainable_copy(None)
    module = student.trainable_module().train()
    assert student.score(CONVERSATIONS[:2]) == load(folder).score(CONVERSATIONS[:2])
    assert module.training


@pytest.mark.parametrize("padding", [0, 7, 128])
def test_the_width_of_a_distribution_is_the_models_and_not_the_tokenizers(
    make_llama: Callable[..., Path], padding: int
) -> None:
    words = len(AutoTokenizer.from_pretrained(make_llama("words")))
    model = load(make_llama("padded", vocab_size=words + padding))
    assert model.vocabulary_size == words + padding
    assert model._base is None  # no weights were loaded to tell
    assert model.project(model.hidden_states([[5, 6]])[0]).shape == (2, words + padding)


def test_long_answers_are_scored_in_pieces_that_change_nothing(tiny_llama: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    hidden, tokens = (
        torch.randn(2 * TOKENS_AT_ONCE + 3, 64, generator=generator),
        [5, 8, 300] * (2 * TOKENS_AT_ONCE // 3 + 1),
    )
    tokens = tokens[: len(hidden)]
    with torch.no_grad():
        whole = project(module, hidden).log_softmax(-1)[
            torch.arange(len(tokens)), torch.tensor(tokens)
        ]
        found = token_log_probabilities(module, hidden, tokens)
    torch.testing.assert_close(torch.tensor(found), whole, rtol=0, atol=EXACT)


# Architectures

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL),
        GraniteConfig(**SMALL, logits_scaling=8.0),
        CohereConfig(**SMALL, logit_scale=0.0625),
        Gemma2Config(**SMALL, head_dim=16, final_logit_softcapping=0.05),
    ],
    ids=lambda config: config.model_type,
)
def test_the_projection_is_that_of_the_architecture(config: Any) -> None:
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.tensor([[4, 9, 30, 2]])
    with torch.no_grad():
        found = project(module, module.base_model(tokens).last_hidden_state)
        torch.testing.assert_close(found, module(tokens).logits.float(), rtol=0, atol=1e-6)
    check_projection(module)
    check_projection(module.bfloat16())


def test_an_architecture_that_does_something_else_is_refused(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def scaled(self: Any, *arguments: Any, **options: Any) -> Any:
        output = forward(self, *arguments, **options)
        output.logits = output.logits * 0.9
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    for use in (
        lambda model: model.score(CONVERSATIONS[:1]),
        lambda model: model.trainable_copy(None),
    ):
        with pytest.raises(CapabilityError, match="LlamaForCausalLM"):
            use(load(tiny_llama))
    load(tiny_llama).generate([user("Why?")])


@pytest.mark.parametrize("targets", ["all-linear", ["lm_head", "q_proj"]], ids=["layers", "head"])
def test_the_head_is_the_one_that_the_model_projects_with(
    tiny_llama: Path, make_adapter: Callable[..., Path], tmp_path: Path, targets: str | list[str]
) -> None:
    # A base of its own: on one that other tests hold, their adapters may stand on the head.
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    plain = load(base)
    expert = load(make_adapter("expert", 3, target_modules=targets), base_model=base)
    head, states = expert.head(), expert.hidden_states([[5, 6, 7]])[0]
    expected = expert.project(states)
    plain.score(CONVERSATIONS[:1])  # the base is as it was again
    torch.testing.assert_close(head.logits(states), expected)
    is_the_base_s = torch.equal(head.weight, plain.head().weight)
    assert is_the_base_s == (targets == "all-linear")
    if is_the_base_s:
        assert head.weight.data_ptr() == plain.head().weight.data_ptr(), (
            "experts on one base share its head"
        )


def test_a_head_that_an_adapter_changes_is_trained_through_the_adapter(
    tiny_llama: Path, make_adapter: Callable[..., Path]
) -> None:
    expert = load(make_adapter("expert", 3, target_modules=["lm_head"]))
    student = load(tiny_llama).trainable_copy(Adaptation(start_from=(expert,)))
    module = student.trainable_module()
    hidden = torch.randn(3, 64)
    found, expected = head_of(module).logits(hidden), module.get_output_embeddings()(hidden)
    torch.testing.assert_close(found, expected)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert trained
    for one, other in zip(
        torch.autograd.grad(found.sum(), trained),
        torch.autograd.grad(expected.sum(), trained),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
