"""Learning from teachers whose tokens are others: both tokenizations are cut where they agree, a
chunk's probability is that of its tokens together, and the gradient is that of the formula.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from conftest import CHAT_TEMPLATE, CORPUS
from distillation.builders import record
from domainfusion.distillation import IntegrationTrainer, LikelihoodObjective
from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.models import APIModel, Dialect, LlamaModel, Retries, ScriptedModel
from domainfusion.models.encoding import encode_text
from domainfusion.models.projection import Head, head_of
from domainfusion.training.batching import Row, collate, encode_record
from domainfusion.training.likelihood import align, chunk_losses
from domainfusion.training.losses import answer_hidden_states
from domainfusion.training.objectives import Answers, Losses
from domainfusion.types import Message, TrainingRecord
from models.scoring_server import Fault, ScoringServer, as_it_is
from training.lessons import QUICK, SHOWN, Killed, begun, cross_domain, dying_after, same

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def metaspace(corpus: Sequence[str], size: int = 400) -> PreTrainedTokenizerFast:
    """A tokenizer as SentencePiece makes them: words with their spaces, other characters as bytes."""
    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.train_from_iterator(
        [text[::-1] for text in corpus],  # merges of its own
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=[*SPECIAL, "<unk>"], show_progress=False
        ),
    )
    model = json.loads(learned.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for number in range(256):
        vocabulary[f"<0x{number:02X}>"] = len(vocabulary)
    merges = [tuple(pair) for pair in model["merges"]]
    raw = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>")
    )
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return wrapped(raw)


def bytewise(corpus: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes and of `size` tokens in all."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return wrapped(raw)


def wrapped(raw: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
    )


FEW = bytewise(CORPUS, 280)
MANY = bytewise([*CORPUS, "日本語の文章 日本語 😀😀 naïve"], 420)
WORDS = metaspace(CORPUS)


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


@pytest.fixture(scope="module")
def expert(make_llama: Callable[..., Path]) -> LlamaModel:
    """A model of its own with a tokenizer of its own."""
    folder = make_llama("other", 5, vocab_size=len(FEW))
    FEW.save_pretrained(folder)
    return LlamaModel(folder, dtype="float32")


# Alignment


def pieces(
    text: str, chunks: Sequence[Any], tokenizer: Any, tokens: Sequence[int], which: int
) -> str:
    ends = [chunk[which] for chunk in chunks]
    return str(
        "".join(
            tokenizer.decode(tokens[start:end], clean_up_tokenization_spaces=False)
            for start, end in zip([0, *ends], ends, strict=False)
        )
    )


TEXTS = [
    "What is the capital of France?",
    "  two  spaces,\ttabs\nand\n\n  lines\r\n",
    "naïve Zürich, Ελλάδα, Москва",
    "日本語の文章です。",
    "😀🏳️‍🌈 family: 👨‍👩‍👧",
    "def f(x):\n    return {'a': [x**2, -1e-9]}",
    "e\u0301 \u200b العربية हिन्दी",
    " leading",
    "trailing ",
    "a\ufffdb \ufffd",
    "a",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("first", "second"), [(FEW, MANY), (MANY, WORDS), (WORDS, FEW)], ids=["few", "many", "words"]
)
def test_a_chunk_is_one_piece_of_text_in_both(
    text: str, first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase
) -> None:
    tokens = [encode_text(each, text) for each in (first, second)]
    chunks = align(text, (first, tokens[0]), (second, tokens[1]))
    assert chunks
    assert chunks[-1] == (len(tokens[0]), len(tokens[1]))
    whole = [
        pieces(text, chunks, each, own, which)
        for which, (each, own) in enumerate(zip((first, second), tokens, strict=True))
    ]
    assert whole == [text, text], "no chunk ends within a character"
    for before, after in zip([(0, 0), *chunks], chunks, strict=False):
        assert before[0] < after[0]
        assert before[1] < after[1]
    starts = [(0, 0), *chunks]
    for start, end in zip(starts, chunks, strict=False):
        spelled = [
            each.decode(own[start[which] : end[which]], clean_up_tokenization_spaces=False)
            for which, (each, own) in enumerate(zip((first, second), tokens, strict=True))
        ]
        assert spelled[0] == spelled[1]


@settings(max_examples=60)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="▁"), min_size=1))
def test_whatever_the_text_chunks_spell_it_in_both(text: str) -> None:
    tokens = [encode_text(each, text) for each in (FEW, WORDS)]
    chunks = align(text, (FEW, tokens[0]), (WORDS, tokens[1]))
    if chunks is None:  # a tokenizer that spells it otherwise
        assert WORDS.decode(tokens[1]) != text or FEW.decode(tokens[0]) != text
        return
    assert pieces(text, chunks, FEW, tokens[0], 0) == text
    assert pieces(text, chunks, WORDS, tokens[1], 1) == text


def test_chunks_are_the_shortest() -> None:
    text = "the brown fox"
    tokens = [encode_text(each, text) for each in (FEW, MANY)]
    chunks = align(text, (FEW, tokens[0]), (MANY, tokens[1]))
    lengths = []
    for each, own in zip((FEW, MANY), tokens, strict=True):
        lengths.append({len(each.decode(own[: count + 1])) for count in range(len(own))})
    assert chunks is not None
    assert len(chunks) == len(lengths[0] & lengths[1])


def test_equal_tokenizers_have_one_chunk_a_token() -> None:
    text = "The symbol Fe stands for iron."
    tokens = encode_text(FEW, text)
    assert align(text, (FEW, tokens), (FEW, tokens)) == [(n, n) for n in range(1, len(tokens) + 1)]


def test_a_text_that_one_of_them_spells_otherwise_has_no_chunks() -> None:
    tokens = encode_text(FEW, "gold")
    assert align("gold", (FEW, tokens), (FEW, encode_text(FEW, "Gold"))) is None
    assert align("gold", (FEW, tokens[:-1]), (FEW, tokens)) is None


# The loss


def formula(log_p: torch.Tensor, log_q: torch.Tensor, temperature: float) -> torch.Tensor:
    """The binarized KL as the paper writes it, times the temperature."""
    p, q = (log_p / temperature).exp(), (log_q / temperature).exp()
    return temperature * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())


@pytest.mark.parametrize("temperature", [1.0, 7.0, 100.0])
def test_value_and_slope_are_those_of_the_formula(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    log_p, log_q = (
        -torch.rand(50, generator=generator, dtype=torch.float64) * 20 - 0.01 for _ in range(2)
    )
    log_q.requires_grad_()
    found = chunk_losses(log_p, log_q.detach(), temperature)
    expected = formula(log_p, log_q, temperature)
    torch.testing.assert_close(found.values, expected.detach(), rtol=1e-6, atol=1e-9)
    (slopes,) = torch.autograd.grad(expected.sum(), [log_q])
    torch.testing.assert_close(found.slopes, slopes, rtol=1e-6, atol=1e-9)
    assert (found.values >= -1e-12).all()
    assert chunk_losses(log_p, log_p, temperature).values.abs().max() < 1e-9


def test_a_high_temperature_compares_the_logarithms() -> None:
    log_p, log_q = torch.tensor([-2.0, -0.5]).double(), torch.tensor([-1.0, -3.0]).double()
    expected = log_p.abs() * (log_p / log_q).log() - log_p.abs() + log_q.abs()
    found = chunk_losses(log_p, log_q, 1e4).values
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("log_p", [0.0, -1e-9, -80.0, -1e4])
@pytest.mark.parametrize("log_q", [0.0, -1e-9, -80.0, -1e4])
def test_no_probability_is_too_large_or_too_small(log_p: float, log_q: float) -> None:
    found = chunk_losses(torch.tensor([log_p]), torch.tensor([log_q]), 100.0)
    assert found.values.isfinite().all()
    assert found.slopes.isfinite().all()


def losses_of(
    objective: LikelihoodObjective, base: LlamaModel, records: Sequence[TrainingRecord]
) -> tuple[Losses, tuple[Row, ...]]:
    module = base.trainable_copy(None).trainable_module()
    rows = tuple(encode_record(own, base) for own in records)
    hidden, targets = answer_hidden_states(module, collate(rows, 0))
    weights = torch.linspace(0.5, 1.5, len(targets))
    return objective.losses(Answers(hidden, head_of(module), targets, weights, rows)), rows


RECORDS = [
    record("The symbol of gold?", "Au, naïve 日本 😀.", ("chemistry",)),
    record("The symbol of iron?", "The symbol Fe stands for iron.", ("chemistry",)),
]


def test_what_is_learned_is_the_teachers_probability_of_each_chunk(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    objective = LikelihoodObjective(alpha=1.0, temperature=10.0)
    found = begun(objective, base, {"chemistry": expert}, RECORDS, tmp_path)
    terms = losses_of(objective, base, RECORDS)[0].terms
    expected = []
    for own in RECORDS:
        conversation = (*own.example.conversation, Message("assistant", own.target))
        (mine,), (its,) = base.score([conversation]), expert.score([conversation])
        chunks = align(
            own.target,
            (base.tokenizer, mine.tokens[:-1]),
            (expert.tokenizer, its.tokens[:-1]),
        )
        assert chunks is not None
        # The token that ends the turn is a chunk too.
        bounds = [(0, 0), *chunks, (len(mine.tokens), len(its.tokens))]
        for before, after in pairwise(bounds):
            log_q = sum(mine.log_probabilities[before[0] : after[0]])
            log_p = sum(its.log_probabilities[before[1] : after[1]])
            both = [torch.tensor(each).double() for each in (log_p, log_q)]
            expected.append(float(formula(both[0], both[1], 10.0)))
    shown = terms["likelihood"]
    torch.testing.assert_close(
        shown[~shown.isnan()].double(), torch.tensor(expected).double(), rtol=1e-3, atol=1e-4
    )
    assert found["signals"]["chunks"] == len(expected)
    assert found["signals"]["rows_not_aligned"] == 0
    # One number and one place a chunk.
    assert found["signals"]["bytes"] == len(expected) * (4 + 8)


def test_the_same_model_has_nothing_to_teach(base: LlamaModel, tmp_path: Path) -> None:
    objective = LikelihoodObjective(alpha=1.0)
    records = [record("The symbol of gold?", "It is Au.", ("chemistry",)), RECORDS[1]]
    begun(objective, base, {"chemistry": base}, records, tmp_path)
    found, rows = losses_of(objective, base, records)
    shown = found.terms["likelihood"]
    assert shown.nansum() < 1e-3
    # Equal tokens are one chunk each, the end of the turn among them, as none ends within a
    # character.
    whole = [len(base.encode_answer(own.target, finished=False)) + 1 for own in records]
    assert int((~shown.isnan()).sum()) == sum(whole)
    assert all(row.lead_length == 0 for row in rows)


def served(server: ScoringServer, **dialect: Any) -> APIModel:
    return APIModel(
        "other",
        base_url=server.url,
        scores=True,
        dialect=Dialect(**dialect),
        retries=Retries(max_retries=1, backoff_seconds=0.001),
    )


@pytest.mark.parametrize("tokenizer", [FEW, WORDS], ids=["bytes", "marked spaces"])
def test_a_served_teacher_with_other_tokens_teaches_what_it_does_here(
    base: LlamaModel,
    make_llama: Callable[..., Path],
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    folder = make_llama(f"served {len(tokenizer)}", 7, vocab_size=len(tokenizer))
    tokenizer.save_pretrained(folder)
    teacher = LlamaModel(folder, dtype="float32")
    found = []
    with ScoringServer(teacher) as server:
        for name, each in (("served", served(server)), ("local", teacher)):
            objective = LikelihoodObjective(alpha=1.0, temperature=10.0)
            noted = begun(objective, base, {"chemistry": each}, RECORDS, tmp_path / name)
            assert noted["signals"]["rows_not_aligned"] == 0
            shown = losses_of(objective, base, RECORDS)[0].terms["likelihood"]
            found.append((noted["signals"]["chunks"], shown))
        asked = len(server.asked)
        again = LikelihoodObjective(alpha=1.0, temperature=10.0)
        begun(again, base, {"chemistry": served(server)}, RECORDS, tmp_path / "served")
        assert len(server.asked) == asked, "each row is asked for once"
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5, equal_nan=True)


def without_names(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
    answer.pop("token_strs", None)
    return answer


def without_an_end(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
    if "token_strs" in answer:
        end = answer["token_strs"].index("<|im_end|>", -3)
        answer |= {name: answer[name][:end] for name in ("tokens", "token_strs")}
    return answer


def too_few(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
    if path == "/v1/completions":
        del answer["choices"][0]["prompt_logprobs"][-1]
    return answer


@pytest.mark.parametrize(
    ("fault", "dialect", "message"),
    [
        (as_it_is, {"scoring": "sglang"}, r"SGLang renders no conversation.*serve.*vLLM"),
        (without_names, {}, r"does not say what its tokens spell: None"),
        (without_an_end, {}, r"none of 2 records.*nothing ends its turn"),
        (too_few, {}, r"none of 2 records.*log-probabilities for"),
    ],
)
def test_a_server_that_does_not_say_enough_is_one_clear_error(
    base: LlamaModel,
    expert: LlamaModel,
    tmp_path: Path,
    fault: Fault,
    dialect: dict[str, str],
    message: str,
) -> None:
    with (
        ScoringServer(expert, fault=fault) as server,
        pytest.raises(CapabilityError, match=message),
    ):
        teachers = {"chemistry": served(server, **dialect)}
        begun(LikelihoodObjective(), base, teachers, RECORDS, tmp_path)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_gradient_is_that_of_finite_differences(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path, alpha: float
) -> None:
    objective = LikelihoodObjective(alpha=alpha, temperature=5.0)
    begun(objective, base, {"chemistry": expert}, RECORDS, tmp_path)
    rows = tuple(encode_record(own, base) for own in RECORDS)
    targets = torch.tensor([token for row in rows for token in row.answer])
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(len(targets), 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(base.vocabulary_size, 8, generator=generator, dtype=torch.float64)
    weights = torch.rand(len(targets), generator=generator, dtype=torch.float64)

    def total(states: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        answers = Answers(states, Head(head), targets, weights, rows)
        return objective.losses(answers).total

    hidden.requires_grad_()
    weight.requires_grad_()
    gradients = torch.autograd.grad(total(hidden, weight), [hidden, weight])
    for tensor, gradient in zip((hidden, weight), gradients, strict=True):
        direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        step = 1e-6
        moved = []
        for sign in (1, -1):
            own = [each.detach() for each in (hidden, weight)]
            place = 0 if tensor is hidden else 1
            own[place] = own[place] + sign * step * direction
            moved.append(float(total(*own)))
        slope = (moved[0] - moved[1]) / (2 * step)
        assert math.isclose(slope, float((gradient * direction).sum()), rel_tol=1e-5)


def test_the_integrator_teaches_what_it_wrote_and_text_alone_stays_text(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    records = [RECORDS[0], cross_domain(expert)]
    objective = LikelihoodObjective()
    teachers = {"chemistry": ScriptedModel("Au.", name="remote")}
    found = begun(objective, base, teachers, records, tmp_path, integrator=expert)
    assert found["taught"] == {"other": 1}
    assert found["word_for_word"] == {"remote gives text alone": 1}
    terms = losses_of(objective, base, records)[0].terms
    first = len(encode_record(RECORDS[0], base).answer)
    assert terms["likelihood"][:first].isnan().all()
    assert not terms["likelihood"][first:].isnan().all()
    assert SHOWN


def test_an_answer_that_was_cut_has_no_end_to_learn(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    own = RECORDS[1]
    cut = replace(own, integration=replace(own.integration, finish_reason="length"))
    counts = []
    for number, each in enumerate((own, cut)):
        found = begun(
            LikelihoodObjective(), base, {"chemistry": expert}, [each], tmp_path / str(number)
        )
        counts.append(found["signals"]["chunks"])
    assert counts[0] == counts[1] + 1


def test_a_training_that_dies_while_a_teacher_reads_resumes_to_the_bit(
    base: LlamaModel, expert: LlamaModel, tmp_path: Path
) -> None:
    trainer = IntegrationTrainer(**QUICK, objective="likelihood", initialization="base")
    teachers = {"chemistry": expert}
    whole = trainer.train(base, RECORDS, teachers=teachers, directory=tmp_path / "a", seed=3)
    with pytest.raises(Killed):
        trainer.train(
            base,
            RECORDS,
            teachers=teachers,
            directory=tmp_path / "b",
            seed=3,
            progress=dying_after(1, "reading"),
        )
    again = trainer.train(base, RECORDS, teachers=teachers, directory=tmp_path / "b", seed=3)
    assert same(whole, again)
    plain = IntegrationTrainer(**QUICK, initialization="base").train(
        base, RECORDS, directory=tmp_path / "c", seed=3
    )
    assert not same(whole, plain)


def test_targets_that_no_tokenizer_spells_are_one_clear_error(
    base: LlamaModel, tmp_path: Path, make_llama: Callable[..., Path]
) -> None:
    lower = bytewise(CORPUS, 280)
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    folder = make_llama("lower", 6, vocab_size=len(lower))
    lower.save_pretrained(folder)
    teacher = LlamaModel(folder, dtype="float32")
    with pytest.raises(CapabilityError, match=r"No target is spelled.*2 records.*sequence"):
        begun(LikelihoodObjective(), base, {"chemistry": teacher}, RECORDS, tmp_path)


@pytest.mark.parametrize(
    "numbers", [{"temperature": 0}, {"temperature": math.inf}, {"alpha": 0}, {"alpha": 1.1}]
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(numbers))):
        LikelihoodObjective(**numbers)
