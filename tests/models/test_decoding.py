# mypy: disable-error-code="arg-type,operator,index,attr-defined,func-returns-value"
"""Laws of the decoding loop: it writes what Transformers' `generate` writes, whatever prompts have
in common, and whoever ends first.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from domainfusion.models import HuggingFaceModel
from domainfusion.models import rows as answered_rows
from domainfusion.models.decoding import Decoding, Pause, Prompt, Rows, can_decode, decodes_alike
from domainfusion.models.placement import computing_with, pack
from domainfusion.models.rows import batches, continue_batch
from domainfusion.types import Sampling, user

PROMPTS = [
    [5, 6, 7, 8],
    [5, 6, 7, 9, 10, 11],
    [5, 6],
    [12],
    [5, 6, 7, 8],
    [5, 6, 7, 8, 8, 8, 8, 8, 8],
]
"""Prompts of which some begin alike, one begins another, and two are the same."""


@pytest.fixture
def module(tiny_llama: Path) -> torch.nn.Module:
    loaded = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    loaded.generation_config = GenerationConfig()  # what ends an answer, each test says
    return loaded


def test_the_logits_of_every_row_are_those_of_the_row_alone(module: torch.nn.Module) -> None:
    left, last = [1, 3, 5], [20, 21, 22]
    with torch.no_grad():
        rows = Rows(module, PROMPTS)
        read = rows.logits
        rows.keep(left)
        for token in last:
            rows.append(module, torch.full((len(left),), token))
        alone = [module(torch.tensor([prompt])).logits[0, -1] for prompt in PROMPTS]
        after = [module(torch.tensor([PROMPTS[row] + last])).logits[0, -1] for row in left]
    torch.testing.assert_close(read, torch.stack(alone), rtol=0, atol=1e-4)
    torch.testing.assert_close(rows.logits, torch.stack(after), rtol=0, atol=1e-4)


def test_what_prompts_have_in_common_is_read_once(module: torch.nn.Module) -> None:
    read: list[int] = []
    embedding = module.get_input_embeddings()
    embedding.register_forward_hook(lambda _, given, __: read.append(given[0].numel()))
    with torch.no_grad():
        Rows(module, PROMPTS)
    different = {tuple(prompt[:end]) for prompt in PROMPTS for end in range(1, len(prompt) + 1)}
    assert read == [len(different)]


@pytest.mark.parametrize("warm", [0.0, 1.0])
@pytest.mark.parametrize("ending", [0.0, 0.05, 0.3])
def test_it_writes_what_transformers_writes(
    module: torch.nn.Module, warm: float, ending: float
) -> None:
    """Where a share of all tokens ends an answer, rows end at different times."""
    vocabulary = module.config.vocab_size
    ends = [
        set(
            torch.randperm(vocabulary, generator=torch.Generator().manual_seed(row)).tolist()[
                : int(ending * vocabulary)
            ]
        )
        for row in range(len(PROMPTS))
    ]
    prompts = [Prompt(tokens, seed) for seed, tokens in enumerate(PROMPTS)]
    sampling = Sampling(max_new_tokens=40, temperature=warm, top_p=0.9)
    decoding = Decoding(prompts, sampling, ends)
    written: dict[int, list[int]] = {}
    while not decoding.is_over:
        ended = decoding.run(module, Pause(0.0))
        assert ended and not {row for row, _ in ended} & set(written)
        written |= dict(ended)
    expected = continue_batch(module, prompts, sampling, ends)
    assert [written[row] for row in range(len(prompts))] == expected
    if ending:
        assert len(set(map(len, expected))) > 1


def test_rows_that_ended_take_no_further_steps(module: torch.nn.Module) -> None:
    prompts = [Prompt(tokens, seed) for seed, tokens in enumerate(PROMPTS)]
    free = dict(Decoding(prompts, Sampling(max_new_tokens=5), [set()] * 6).run(module))
    ends = [{free[0][0]}, {free[1][1]}, set(), {free[3][0]}, {free[4][0]}, set()]
    computed: list[int] = []
    head = module.get_output_embeddings()
    head.register_forward_hook(lambda _, given, __: computed.append(given[0].shape[0]))
    Decoding(prompts, Sampling(max_new_tokens=5), ends).run(module)
    assert computed[0] == 1  # the tree
    assert computed[1] < 6 and sorted(computed[1:], reverse=True) == computed[1:]
    assert computed[-1] == 2


def test_the_attention_of_the_model_is_its_own_again(module: torch.nn.Module) -> None:
    with torch.no_grad():
        Rows(module, PROMPTS)
        assert module.config._attn_implementation == "sdpa"
        with pytest.raises(IndexError):
            Rows(module, [[10**6]])
        assert module.config._attn_implementation == "sdpa"


def test_models_of_other_attention_are_left_to_transformers(tiny_llama: Path) -> None:
    eager = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager").eval()
    assert not can_decode(eager) and not decodes_alike(eager)


def test_a_model_that_finds_something_else_is_left_to_transformers(
    module: torch.nn.Module,
) -> None:
    assert decodes_alike(module)
    layer = module.model.layers[0].self_attn
    forward = layer.forward
    # an attention that counts on as many queries as there are keys
    layer.forward = lambda states, **given: forward(states * states.shape[1], **given)
    assert not decodes_alike(module)


def test_answers_are_the_same_by_either_way(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HuggingFaceModel(tiny_llama, dtype="float32")
    questions = [user(question) for question in ("Why?", "Why not?", "Who?", "Why?", "Where?")]
    base = model._load()
    assert base.decodes
    for sampling in (Sampling(max_new_tokens=12), Sampling(max_new_tokens=12, temperature=1.0)):
        found = model.generate(questions, sampling)
        with monkeypatch.context() as context:
            context.setattr(base, "decodes", False)
            assert model.generate(questions, sampling) == found


def test_the_base_can_be_used_otherwise_whenever_an_answer_is_reported(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answered_rows, "SECONDS_BETWEEN_ANSWERS", 0.0)
    model = HuggingFaceModel(tiny_llama, dtype="float32")
    questions = [user(question) for question in ("Why?", "Why not?", "Who?", "Where?")]
    expected = model.generate(questions, Sampling(max_new_tokens=12))
    asked: list[str] = []
    found = model.generate(
        questions, Sampling(max_new_tokens=12), lambda *_: asked.append(model.ask("And?"))
    )
    assert found == expected and len(set(asked)) == 1 and len(asked) == len(questions)


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


MANY = [user(f"What is {number} and {number % 7}?") for number in range(36)]


@pytest.mark.parametrize("warm", [0.0, 1.0])
def test_threads_with_batches_of_their_own_write_what_one_writes(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None, warm: float
) -> None:
    monkeypatch.setattr(answered_rows, "SECONDS_BETWEEN_ANSWERS", 0.0)
    names: set[str] = set()
    decoding = answered_rows.Decoding

    def noted(*arguments: Any) -> Decoding:
        names.add(threading.current_thread().name)
        return decoding(*arguments)

    monkeypatch.setattr(answered_rows, "Decoding", noted)
    model = HuggingFaceModel(tiny_llama, dtype="float32")
    sampling = Sampling(max_new_tokens=12, temperature=warm)
    found = model.generate(MANY, sampling)
    assert len(names) == 2 and all(name.startswith("answers") for name in names)
    assert torch.get_num_threads() == 2
    assert model._load().module.config._attn_implementation == "sdpa"
    monkeypatch.setattr(model._load(), "allows_threads", False)
    assert model.generate(MANY, sampling) == found
    assert "MainThread" in names


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
def test_what_fails_in_one_thread_stops_the_others_and_changes_nothing(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None, error: BaseException
) -> None:
    model = HuggingFaceModel(tiny_llama, dtype="float32")
    sampling = Sampling(max_new_tokens=400)
    expected = model.generate(MANY, Sampling(max_new_tokens=8))
    step, steps = Decoding._step, []

    def failing(self: Decoding, module: torch.nn.Module) -> list[int]:
        steps.append(threading.current_thread().name)
        if len(steps) == 5:
            raise error
        return step(self, module)

    with monkeypatch.context() as context, pytest.raises(type(error)):
        context.setattr(Decoding, "_step", failing)
        model.generate(MANY, sampling)
    assert len(steps) < 20
    assert not [one for one in threading.enumerate() if one.name.startswith("answers")]
    assert model.generate(MANY, Sampling(max_new_tokens=8)) == expected


def test_a_stop_by_the_user_ends_all_threads(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    step, steps = Decoding._step, []

    def slow(self: Decoding, module: torch.nn.Module) -> list[int]:
        steps.append(0)
        if len(steps) == 6:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.02)
        return step(self, module)

    monkeypatch.setattr(Decoding, "_step", slow)
    with pytest.raises(KeyboardInterrupt):
        HuggingFaceModel(tiny_llama, dtype="float32").generate(MANY, Sampling(max_new_tokens=400))
    assert len(steps) < 50
    assert not [one for one in threading.enumerate() if one.name.startswith("answers")]


def test_a_thread_that_reads_changes_nothing_for_one_that_writes(module: torch.nn.Module) -> None:
    def write() -> torch.Tensor:
        with torch.no_grad():
            rows = Rows(module, PROMPTS)
            for token in range(20, 40):
                rows.append(module, torch.full((len(PROMPTS),), token))
        return rows.logits

    expected = write()
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: write(), range(30)):
            torch.testing.assert_close(found, expected)
    assert module.config._attn_implementation == "sdpa"


def test_positions_that_change_with_the_text_are_for_one_thread(
    make_llama: Callable[..., Path],
) -> None:
    changing = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    plain = HuggingFaceModel(make_llama("plain"), dtype="float32")._load()
    dynamic = make_llama("dynamic", rope_parameters=changing)
    assert plain.allows_threads
    assert not HuggingFaceModel(dynamic, dtype="float32")._load().allows_threads


def test_equal_questions_are_answered_once(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    decoding = answered_rows.Decoding
    monkeypatch.setattr(
        answered_rows,
        "Decoding",
        lambda prompts, *rest: rows.append(len(prompts)) or decoding(prompts, *rest),
    )
    model = HuggingFaceModel(tiny_llama, dtype="float32")
    reported: list[int] = []
    answers = model.generate(
        [user("Why?"), user("Who?"), user("Why?")],
        Sampling(max_new_tokens=4),
        lambda index, _: reported.append(index),
    )
    assert rows == [2] and answers[0] == answers[2] and sorted(reported) == [0, 1, 2]
    drawn = model.generate([user("Why?")] * 2, Sampling(max_new_tokens=8, temperature=1.0))
    assert rows == [2, 2] and drawn[0] != drawn[1]


def test_a_batch_is_filled_up_to_its_tokens() -> None:
    lengths = [10] * 300 + [5000] * 40
    found = list(batches(lengths, 100))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    assert [len(batch) for batch in found] == [148, 148, 32, 12]
    for batch in found:
        held = max(lengths[index] for index in batch) + 100
        assert len(batch) <= 32 or len(batch) * held <= answered_rows.TOKENS_IN_BATCH
    assert [len(batch) for batch in batches([1] * 600, 1)] == [256, 256, 88]
    assert [len(batch) for batch in batches(lengths, 100, 200)] == [200, 140]
    assert list(batches([], 5)) == []
    assert [len(batch) for batch in batches([1] * 600, 1, threads=2)] == [75] * 8
    assert [len(batch) for batch in batches([1] * 40, 1, threads=2)] == [20, 20]
    assert [len(batch) for batch in batches([1000] * 40, 24, threads=2)] == [20, 20]


def test_packed_weights_compute_what_the_plain_ones_do(module: torch.nn.Module) -> None:
    assert pack(module) == {}  # float32 gains nothing
    narrow = module.bfloat16()
    packed, tokens = pack(narrow), torch.tensor([PROMPTS[1]])
    if not packed:
        pytest.skip("oneDNN is not there")
    layers = {name for name, layer in narrow.named_modules() if type(layer) is torch.nn.Linear}
    assert set(packed) == layers
    with torch.inference_mode():
        plain = narrow(tokens).logits
        with computing_with(narrow, packed):
            found = narrow(tokens).logits
        again = narrow(tokens).logits
    torch.testing.assert_close(found, plain, rtol=0.05, atol=0.05 * float(plain.abs().max()))
    assert torch.equal(again, plain)


@pytest.mark.slow
def test_the_base_of_the_demo_answers_as_by_transformers() -> None:
    from domainfusion.demo.questions import build_questions
    from domainfusion.demo.run import ANSWER
    from domainfusion.demo.world import base_folder, load_world, world_folder

    world = load_world(world_folder())
    name = next(iter(world.domains))
    expert = HuggingFaceModel(world.adapter(name), base_model=base_folder(), dtype="float32")
    questions = [user(example.query) for example in build_questions(world).test[:40]]
    base = expert._load()
    assert base.decodes
    found = expert.generate(questions, ANSWER)
    base.decodes = False
    try:
        assert expert.generate(questions, ANSWER) == found
    finally:
        base.decodes = True
    assert len({answer.completion_tokens for answer in found}) > 3  # rows end at different times
