"""Laws of local models: construction validates, batching changes nothing, and experts share a base."""

import gc
import itertools
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import (
    Adaptation,
    HuggingFaceModel,
    LanguageModel,
    TrainableModel,
    generate_with,
    rows,
)
from domainfusion.models.chat_template import CHATML_TEMPLATE
from domainfusion.types import Conversation, Generation, Message, Sampling, user

from .local_models import (
    CLOSED_BY_END_OF_TEXT,
    CONVERSATIONS,
    MERGING_TOLERANCE,
    QUESTIONS,
    SHORT,
    MakeAdapter,
    load,
    logits_of,
    perturb,
)

WARM = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
BATCHING_TOLERANCE = 1e-4
"""How far a logit (of size 10) may move in float32 with the rows that stand beside its own, and
with the padding that they bring.
"""


def plain_tokens(
    folder: Path, question: str, count: int, chat_template: str | None = None
) -> list[int]:
    """Returns what plain Transformers writes greedily, without ever stopping."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(
        messages, chat_template=chat_template, tokenize=False, add_generation_prompt=True
    )
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = len(tokens)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(module(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[prompt:]


def copy_of(folder: Path, target: Path, **replaced: Any) -> Path:
    """Copies a model; keyword arguments change entries of `config`, `generation_config` or
    `adapter_config`.
    """
    shutil.copytree(folder, target)
    for name, entries in replaced.items():
        file = target / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))
    return target


# Importing


@pytest.mark.parametrize("module", ["domainfusion", "domainfusion.models"])
def test_importing_loads_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}; print(sorted({{'torch', 'transformers', 'peft', 'numpy'}} &"
        " sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_what_the_package_does_not_have_is_an_attribute_error() -> None:
    import domainfusion.models

    assert all(hasattr(domainfusion.models, name) for name in domainfusion.models.__all__)
    with pytest.raises(AttributeError, match="GPT9"):
        domainfusion.models.GPT9  # noqa: B018


def test_it_has_the_capabilities_of_a_student(tiny_llama: Path, make_adapter: MakeAdapter) -> None:
    for model in (load(tiny_llama), load(make_adapter("one", 1))):
        assert isinstance(model, LanguageModel)
        assert isinstance(model, TrainableModel)


# Construction


@pytest.mark.parametrize(
    "path",
    [
        "/no/such/folder",
        "./no-such-folder",
        "no-such-folder",
        "a/b/c",
        "../x.gguf",
        "someone/no-such-model",
    ],
)
def test_a_model_that_is_not_there_is_refused_at_once(path: str) -> None:
    with pytest.raises(ModelError) as raised:
        HuggingFaceModel(path)
    assert path in str(raised.value)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        HuggingFaceModel(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"model_type": "no-such-kind"}', "{}"])
def test_a_config_that_can_not_be_used_is_refused(
    tiny_llama: Path, tmp_path: Path, content: str
) -> None:
    folder = copy_of(tiny_llama, tmp_path / "broken")
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="broken"):
        HuggingFaceModel(folder)


def test_weights_that_can_run_code_are_refused_by_name(tiny_llama: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_llama, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle"):
        HuggingFaceModel(folder)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -3}, "batch_size"),
        ({"dtype": "float64"}, "dtype.*float64.*bfloat16"),
        ({"device": "gpu"}, "device.*gpu.*cuda"),
        ({"device": "cpu:1"}, "device.*cpu:1"),
        ({"device": "cuda:99"}, "device.*cuda:99"),
        ({"base_model": "elsewhere"}, "adapter_config.json"),
        ({"revision": "main"}, "revision"),
    ],
)
def test_arguments_that_can_not_be_right_are_refused_at_once(
    tiny_llama: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        HuggingFaceModel(tiny_llama, **options)


def test_construction_loads_no_weights(
    tiny_llama: Path, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    for model in (load(tiny_llama), load(make_adapter("one", 1))):
        assert model.fingerprint and model.encode(CONVERSATIONS[0]) and repr(model)


@pytest.mark.parametrize("base_given", [True, False])
def test_an_adapter_with_pickled_weights_is_refused(
    make_adapter: MakeAdapter, tiny_llama: Path, tmp_path: Path, base_given: bool
) -> None:
    folder = copy_of(make_adapter("one", 1), tmp_path / "pickled")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        load(folder, base_model=tiny_llama if base_given else None)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"lora_bias": True}, "lora_bias"),
        ({"base_model_name_or_path": None}, "base_model"),
    ],
)
def test_an_adapter_that_can_not_share_a_base_is_refused(
    make_adapter: MakeAdapter, tmp_path: Path, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        load(copy_of(make_adapter("one", 1), tmp_path / "odd", adapter_config=settings))


def test_an_adapter_that_brings_weights_of_its_base_is_refused(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    folder = copy_of(make_adapter("one", 1), tmp_path / "heavy")
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.model.embed_tokens.weight"] = torch.zeros(3, 4)
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"embed_tokens.*merge_and_unload"):
        load(folder)


def test_a_damaged_adapter_is_refused(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = copy_of(make_adapter("one", 1), tmp_path / "cut")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cut"):
        load(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config\.json can't be read"):
        load(folder)


def test_an_adapter_whose_base_is_not_there_is_refused(
    make_adapter: MakeAdapter, tmp_path: Path, tiny_llama: Path
) -> None:
    folder = copy_of(
        make_adapter("one", 1),
        tmp_path / "lost",
        adapter_config={"base_model_name_or_path": "/no/such/base"},
    )
    with pytest.raises(ModelError, match="/no/such/base"):
        load(folder)
    assert torch.equal(
        logits_of(load(folder, base_model=tiny_llama)), logits_of(load(make_adapter("one", 1)))
    )


# Encoding


def test_a_conversation_is_encoded_as_its_template_renders_it(tiny_llama: Path) -> None:
    model = load(tiny_llama)
    conversation = (Message("system", "Be brief."), Message("user", "Why?"))
    rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
    assert model.tokenizer.decode(model.encode(conversation, reply=False)) == rendered
    assert (
        model.tokenizer.decode(model.encode(conversation)) == rendered + "<|im_start|>assistant\n"
    )


def test_a_system_prompt_stands_before_conversations_that_have_none(tiny_llama: Path) -> None:
    plain, prompted = load(tiny_llama), load(tiny_llama, system_prompt="Be brief.")
    assert prompted.encode(user("Why?")) == plain.encode(
        (Message("system", "Be brief."), *user("Why?"))
    )
    own = (Message("system", "Be verbose."), *user("Why?"))
    assert prompted.encode(own) == plain.encode(own)


def test_a_model_without_a_template_speaks_chatml(tiny_llama: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_llama, tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    model = load(folder)
    assert model.tokenizer.chat_template == CHATML_TEMPLATE
    assert model.encode(CONVERSATIONS[0]) == load(tiny_llama).encode(CONVERSATIONS[0])


def test_a_template_that_refuses_a_conversation_is_a_model_error(tiny_llama: Path) -> None:
    template = (
        "{{ raise_exception('no system role here') if messages[0]['role'] == 'system' else"
        " messages[0]['content'] }}"
    )
    model = load(tiny_llama, chat_template=template, system_prompt="Be brief.", name="gemma")
    with pytest.raises(ModelError, match=r"gemma.*no system role here.*system"):
        model.encode(user("Why?"))
    with pytest.raises(ModelError, match="chat template"):
        load(tiny_llama, chat_template="{% if %}").encode(user("Why?"))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_can_not_be_read_is_a_model_error(
    tiny_llama: Path, tmp_path: Path, file: str
) -> None:
    folder = copy_of(tiny_llama, tmp_path / "wordless")
    (folder / file).write_text('{"model": 3')
    with pytest.raises(ModelError, match="wordless"):
        load(folder).encode(user("Why?"))


# Generating


def test_greedy_text_is_what_plain_transformers_writes(tiny_llama: Path) -> None:
    model = load(tiny_llama, batch_size=3)
    for question, answer in zip(
        QUESTIONS[:3], model.generate(CONVERSATIONS[:3], SHORT), strict=True
    ):
        expected = plain_tokens(tiny_llama, question, SHORT.max_new_tokens)
        assert not set(expected) & model.end_tokens  # the case is what it claims to be
        assert answer.text == model.tokenizer.decode(expected, skip_special_tokens=True).strip()
        assert (answer.finish_reason, answer.completion_tokens) == ("length", 12)


@pytest.mark.parametrize("sampling", [SHORT, WARM], ids=["greedy", "warm"])
def test_answers_are_the_same_whatever_the_batch_size(tiny_llama: Path, sampling: Sampling) -> None:
    alone = [
        load(tiny_llama).generate([conversation], sampling)[0] for conversation in CONVERSATIONS
    ]
    assert len({answer.text for answer in alone}) == len(CONVERSATIONS)
    for batch_size in (1, 2, 5, 32):
        assert load(tiny_llama, batch_size=batch_size).generate(CONVERSATIONS, sampling) == alone


def logits_written(
    model: HuggingFaceModel, conversations: list[Conversation]
) -> tuple[list[Generation], torch.Tensor]:
    """Returns answers and the logits that they were chosen from, of shape (rows, steps,
    vocabulary), the shortest prompt first.
    """
    steps: list[torch.Tensor] = []
    head = model._load().module.get_output_embeddings()
    hook = head.register_forward_hook(
        lambda module, inputs, output: steps.append(output.flatten(0, 1).clone())
    )
    try:
        answers = model.generate(conversations, SHORT)
    finally:
        hook.remove()
    return answers, torch.stack(steps, dim=1)


@pytest.mark.parametrize(
    "others", [["?"], ["word " * 140], ["?", "word " * 140, "Why?"]], ids=["short", "long", "both"]
)
def test_nothing_looks_at_padding(tiny_llama: Path, others: list[str]) -> None:
    model = load(tiny_llama)
    rows = [CONVERSATIONS[2], *map(user, others)]
    lengths = [len(model.encode(conversation)) for conversation in rows]
    assert max(lengths) / min(lengths) > 2  # the rows are as unlike as the case claims
    together, logits = logits_written(model, rows)
    by_length = sorted(range(len(rows)), key=lambda row: lengths[row])
    for place, row in enumerate(by_length):
        [alone], expected = logits_written(model, [rows[row]])
        assert together[row] == alone
        torch.testing.assert_close(logits[place], expected[0], rtol=0, atol=BATCHING_TOLERANCE)


def test_rows_of_similar_length_share_a_batch(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_llama, batch_size=4)
    batches: list[list[int]] = []
    decoding = rows.Decoding  # type: ignore[attr-defined]

    def watched(prompts: Any, *rest: Any) -> Any:
        batches.append([len(prompt.tokens) for prompt in prompts])
        return decoding(prompts, *rest)

    monkeypatch.setattr(rows, "Decoding", watched)
    model.generate(
        [user("word " * (7 * number % 12)) for number in range(12)], Sampling(max_new_tokens=1)
    )
    assert list(map(len, batches)) == [4, 4, 4]
    assert all(max(earlier) <= min(later) for earlier, later in itertools.pairwise(batches))


def test_answers_come_in_the_order_asked(tiny_llama: Path) -> None:
    model = load(tiny_llama, batch_size=2)
    forwards = model.generate(CONVERSATIONS, SHORT)
    assert model.generate(CONVERSATIONS[::-1], SHORT) == forwards[::-1]
    assert [answer.prompt_tokens for answer in forwards] == [
        len(model.encode(conversation)) for conversation in CONVERSATIONS
    ]


def test_each_answer_is_reported_once_when_its_batch_is_done(tiny_llama: Path) -> None:
    seen: dict[int, Generation] = {}

    def keep(index: int, generation: Generation) -> None:
        assert index not in seen
        seen[index] = generation

    answers = load(tiny_llama, batch_size=3).generate(CONVERSATIONS, SHORT, keep)
    assert [seen[index] for index in range(len(CONVERSATIONS))] == answers


def test_answers_that_were_there_before_an_error_were_reported(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = load(tiny_llama, batch_size=3), []
    decoding, calls = rows.Decoding, []  # type: ignore[attr-defined]

    def fails_later(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return decoding(*arguments)

    monkeypatch.setattr(rows, "Decoding", fails_later)
    with pytest.raises(RuntimeError):
        model.generate(CONVERSATIONS, SHORT, lambda index, _: seen.append(index))
    assert len(seen) == 3


def test_nothing_asked_is_nothing_answered(tiny_llama: Path) -> None:
    assert load(tiny_llama).generate([]) == []


def test_a_prompts_slice_reaches_the_head_in_one_piece(tiny_llama: Path) -> None:
    model, seen = load(tiny_llama), list[bool]()
    head = model._load().module.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, given, __: seen.append(given[0].is_contiguous()))
    model.generate([user("What is gold?"), user("Where?")], Sampling(max_new_tokens=3))
    handle.remove()
    assert seen and all(seen)
    assert not head._forward_pre_hooks  # nothing stays behind


def test_ask_is_generate_for_one_question(tiny_llama: Path) -> None:
    model = load(tiny_llama)
    assert model.ask("Why?", sampling=SHORT) == model.generate([user("Why?")], SHORT)[0].text


def test_seeds_repeats_and_temperatures_give_samples_of_their_own(tiny_llama: Path) -> None:
    model = load(tiny_llama)
    again = [Sampling(max_new_tokens=12, temperature=1.0, seed=seed) for seed in (3, 4, 5)]
    texts = [model.generate([CONVERSATIONS[0]], sampling)[0].text for sampling in again]
    assert len(set(texts)) == 3
    repeats = model.generate([CONVERSATIONS[0]] * 4, again[0])
    assert repeats[0].text == texts[0]
    assert len({answer.text for answer in repeats}) == 4
    assert len({answer.text for answer in model.generate([CONVERSATIONS[0]] * 4, SHORT)}) == 1


def test_a_sample_does_not_depend_on_the_global_seed_nor_change_it(tiny_llama: Path) -> None:
    model = load(tiny_llama)
    torch.manual_seed(1)
    first, after = model.generate(CONVERSATIONS[:2], WARM), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(2)
    assert model.generate(CONVERSATIONS[:2], WARM) == first


def test_settings_that_a_model_ships_with_do_not_bend_its_answers(
    tiny_llama: Path, tmp_path: Path
) -> None:
    shipped = {
        "repetition_penalty": 9.0,
        "do_sample": True,
        "temperature": 3.0,
        "top_k": 1,
        "max_length": 5,
        "suppress_tokens": [70],
    }
    opinionated = load(copy_of(tiny_llama, tmp_path / "opinionated", generation_config=shipped))
    for sampling in (SHORT, WARM):
        assert opinionated.generate(CONVERSATIONS, sampling) == load(tiny_llama).generate(
            CONVERSATIONS, sampling
        )


def test_a_student_that_is_asked_in_the_midst_of_training_answers_without_dropout(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = copy_of(tiny_llama, tmp_path / "dropping", config={"attention_dropout": 0.5})
    student = load(folder).trainable_copy(None)
    module = student.trainable_module().train()
    assert student.generate(CONVERSATIONS, SHORT) == load(folder).generate(CONVERSATIONS, SHORT)
    assert module.training


def test_a_conversation_that_does_not_fit_is_refused_and_never_cut(tiny_llama: Path) -> None:
    model = load(tiny_llama)
    length = len(model.encode(CONVERSATIONS[0]))
    model.generate([CONVERSATIONS[0]], Sampling(max_new_tokens=1))
    with pytest.raises(ModelError, match=rf"{length} tokens .* 512 tokens"):
        model.generate([user("?"), CONVERSATIONS[0]], Sampling(max_new_tokens=512 - length + 1))


# Where an answer ends


def _emitting(folder: Path, target: Path, instead_of: int, token: int, **replaced: Any) -> Path:
    """Copies a model so that it writes `token` where it wrote `instead_of`, and the other way
    round.
    """
    copy_of(folder, target, **replaced)
    weights = load_file(target / "model.safetensors")
    head = weights["lm_head.weight"].clone()
    head[[instead_of, token]] = head[[token, instead_of]]
    save_file(
        {**weights, "lm_head.weight": head}, target / "model.safetensors", metadata={"format": "pt"}
    )
    return target


WITHOUT_SPECIAL_TOKENS = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("declared_by", "settings", "template"),
    [
        ("generation settings", "token", None),
        ("generation settings", "list", None),
        ("tokenizer", None, WITHOUT_SPECIAL_TOKENS),
        ("chat template", None, CLOSED_BY_END_OF_TEXT),
    ],
)
def test_an_answer_stops_at_every_end_token(
    tiny_llama: Path, tmp_path: Path, declared_by: str, settings: str | None, template: str | None
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    written = [
        (question, plain_tokens(tiny_llama, question, 3, template)) for question in QUESTIONS
    ]
    question, tokens = next(
        (question, tokens) for question, tokens in written if tokens[2] not in tokens[:2]
    )
    end = {"tokenizer": tokenizer.eos_token_id, "chat template": tokenizer.pad_token_id}.get(
        declared_by, tokens[2]
    )
    assert end not in tokens[:2]
    declared = {"token": end, "list": [tokenizer.eos_token_id, end], None: None}[settings]
    folder = _emitting(
        tiny_llama, tmp_path / "model", tokens[2], end, generation_config={"eos_token_id": declared}
    )
    model = load(folder, chat_template=template)
    [answer] = model.generate([user(question)], SHORT)
    assert (answer.finish_reason, answer.completion_tokens) == ("stop", 3)
    assert answer.text == tokenizer.decode(tokens[:2], skip_special_tokens=True).strip()
    [cut] = model.generate([user(question)], Sampling(max_new_tokens=2))
    assert (cut.finish_reason, cut.completion_tokens, cut.text) == ("length", 2, answer.text)


def test_the_turn_ends_with_the_token_that_the_template_writes(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    assert load(tiny_llama).turn_end == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert load(
        tiny_llama, chat_template=CLOSED_BY_END_OF_TEXT
    ).turn_end == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert load(tiny_llama, chat_template=WITHOUT_SPECIAL_TOKENS).turn_end == tokenizer.eos_token_id


def test_rows_of_a_batch_stop_each_at_its_own_time(tiny_llama: Path, tmp_path: Path) -> None:
    tokens = [plain_tokens(tiny_llama, question, 12) for question in QUESTIONS]
    end = tokens[0][3]
    folder = copy_of(tiny_llama, tmp_path / "model", generation_config={"eos_token_id": end})
    lengths = [row.index(end) + 1 if end in row else 12 for row in tokens]
    assert len(set(lengths)) > 1
    answers = load(folder).generate(CONVERSATIONS, SHORT)
    assert [answer.completion_tokens for answer in answers] == lengths
    assert [answer.finish_reason for answer in answers] == [
        "stop" if end in row else "length" for row in tokens
    ]


# Experts on a shared base


def test_models_with_one_base_hold_the_same_module(
    tiny_llama: Path, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_llama.parent)
    models = [
        load(tiny_llama),
        load(Path(tiny_llama.name)),
        load(Path("..") / tiny_llama.parent.name / tiny_llama.name),
        load(make_adapter("one", 1)),
        load(make_adapter("two", 2), base_model=tiny_llama.name),
        load(tiny_llama).trainable_copy(Adaptation(rank=2)),
    ]
    assert len({id(model._load().module) for model in models}) == 1
    assert load(tiny_llama, dtype="bfloat16")._load().module is not models[0]._load().module
    assert models[0].trainable_copy(None)._load().module is not models[0]._load().module


def test_models_with_one_base_and_template_hold_the_same_tokenizer(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    models = [
        load(tiny_llama),
        load(make_adapter("one", 1)),
        load(make_adapter("two", 2), system_prompt="Be brief."),
    ]
    assert len({id(model.tokenizer) for model in models}) == 1
    other = load(tiny_llama, chat_template=CLOSED_BY_END_OF_TEXT)
    assert other.tokenizer is not models[0].tokenizer
    assert other.tokenizer.chat_template != models[0].tokenizer.chat_template
    seen = weakref.ref(other.tokenizer)
    del other
    gc.collect()
    assert seen() is None


def test_experts_take_turns_and_none_changes_another(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    models = [load(tiny_llama), load(make_adapter("one", 1)), load(make_adapter("two", 2))]
    before = [logits_of(model) for model in models]
    for index in (1, 2, 0, 2, 1, 1, 0):
        models[index].generate(CONVERSATIONS[:2], WARM)
        assert torch.equal(logits_of(models[index]), before[index])
    assert all(
        torch.equal(logits_of(model), found) for model, found in zip(models, before, strict=True)
    )
    assert len({model.generate(CONVERSATIONS[:1], SHORT)[0].text for model in models}) == 3


def test_merged_and_unmerged_adapters_agree(make_adapter: MakeAdapter) -> None:
    model = load(make_adapter("one", 1))
    torch.testing.assert_close(
        logits_of(model, merge=True), logits_of(model, merge=False), rtol=0, atol=MERGING_TOLERANCE
    )


def test_an_adapter_counts_its_own_weights_and_its_bases(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    bare, one, two = (
        load(tiny_llama),
        load(make_adapter("one", 1)),
        load(make_adapter("two", 2, r=8)),
    )
    weights = sum(tensor.numel() for tensor in load_file(tiny_llama / "model.safetensors").values())
    of_adapter = sum(
        tensor.numel()
        for tensor in load_file(make_adapter("one", 1) / "adapter_model.safetensors").values()
    )
    assert (bare.parameter_count, one.parameter_count, two.parameter_count) == (
        weights,
        weights + of_adapter,
        weights + 2 * of_adapter,
    )
    assert bare.parameter_count == weights


def test_what_is_released_is_gone(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = copy_of(tiny_llama, tmp_path / "base")
    model, experts = (
        load(base),
        [
            load(make_adapter(name, seed), base_model=base)
            for seed, name in enumerate(("one", "two"))
        ],
    )
    for user_of_weights in (model, *experts):
        user_of_weights.generate(CONVERSATIONS[:2], SHORT)
        user_of_weights.score([(*CONVERSATIONS[0], Message("assistant", "It is."))])
    generate_with([model, *experts], [CONVERSATIONS[0]] * 3, SHORT)
    module = weakref.ref(model._load().module)
    of_adapter = weakref.ref(
        dict(module().named_parameters())[
            "model.layers.0.self_attn.q_proj.lora_A." + experts[0]._adapter + ".weight"
        ]
    )
    experts[0].release()
    assert of_adapter() is None and module() is not None
    experts[1].release()
    assert module() is not None  # one model still uses it
    answers = model.generate(CONVERSATIONS[:2], SHORT)
    model.release()
    assert module() is None
    assert model.generate(CONVERSATIONS[:2], SHORT) == answers


RELEASING = """
import gc, sys
import torch
from domainfusion.models import HuggingFaceModel
from domainfusion.types import Sampling, user

def resident():
    gc.collect()
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) * 1024

torch.set_num_threads(1)
path, expert = sys.argv[1:]
models = [HuggingFaceModel(path, dtype="float32", device="cpu"), HuggingFaceModel(expert, base_model=path, dtype="float32", device="cpu")]
before, loaded = 0, 0
for _ in range(2):  # the first time round, Python loads code that it keeps
    before = resident()
    for model in models:
        model.ask("Why?", sampling=Sampling(max_new_tokens=2))
    loaded = resident()
    for model in models:
        model.release()
print(before, loaded, resident())
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="resident memory is read from /proc"
)
def test_released_memory_goes_back_to_the_machine(
    make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_llama("large", hidden_size=512, intermediate_size=2048, num_hidden_layers=6)
    size = (base / "model.safetensors").stat().st_size
    assert size > 80e6
    expert = load(base).trainable_copy(Adaptation(rank=4))
    perturb(expert)
    expert.save(tmp_path / "expert", merge=False)
    command = [sys.executable, "-W", "ignore", "-c", RELEASING, str(base), str(tmp_path / "expert")]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    before, loaded, after = map(int, found.split())
    assert (
        loaded - before > 1.5 * size
    )  # the base, and the weights that are kept aside while an adapter is merged
    assert after - before < 0.1 * size


def test_a_model_that_let_go_of_its_weights_loads_them_again(
    tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    model = load(make_adapter("one", 1))
    before = logits_of(model)
    model.release()
    assert torch.equal(logits_of(model), before)
    student = load(tiny_llama).trainable_copy(None)
    perturb(student)
    trained = logits_of(student)
    student.release()
    assert torch.equal(logits_of(student), trained)


# Fingerprints


def test_the_fingerprint_changes_with_whatever_may_change_the_answers(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    other = _emitting(tiny_llama, tmp_path / "other", 100, 101)
    student, whole = (
        load(tiny_llama).trainable_copy(Adaptation(rank=2)),
        load(tiny_llama).trainable_copy(None),
    )
    models = [
        load(tiny_llama),
        load(other),
        load(make_adapter("one", 1)),
        load(make_adapter("one", 2)),
        load(make_adapter("one", 1), base_model=other),
        load(make_adapter("one", 1, lora_alpha=16)),
        load(tiny_llama, system_prompt="Be brief."),
        load(tiny_llama, system_prompt=""),
        load(tiny_llama, chat_template=CLOSED_BY_END_OF_TEXT),
        load(tiny_llama, dtype="bfloat16"),
    ]
    found = [model.fingerprint for model in models]
    for trained in (student, whole):
        found.append(trained.fingerprint)
        assert trained.fingerprint == found[-1]
        perturb(trained)
        found.append(trained.fingerprint)
    assert len(set(found)) == len(found)


def test_the_fingerprint_is_the_same_wherever_the_files_lie_and_whatever_they_are_called(
    tiny_llama: Path, tmp_path: Path
) -> None:
    copy = load(copy_of(tiny_llama, tmp_path / "elsewhere"), name="another", batch_size=1)
    assert copy.fingerprint == load(tiny_llama).fingerprint


def test_a_changed_tokenizer_changes_the_fingerprint(tiny_llama: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_llama, tmp_path / "retokenized")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["ignore_merges"] = not tokenizer["model"]["ignore_merges"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load(folder).fingerprint != load(tiny_llama).fingerprint
