"""Laws of chat templates: what is trained on is what is asked later, and a template that can't be
used says so, soon.
"""

from __future__ import annotations

import datetime
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment
from transformers import AutoTokenizer

from domainfusion.distillation import CuratedDataGenerator, Distiller, IntegrationTrainer
from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import HuggingFaceModel, compare_tokenizers, generate_with
from domainfusion.models.base import DatedModel, TrainableModel
from domainfusion.models.chat_template import (
    literal_template,
    pinned_to,
    with_arguments,
    within_time,
)
from domainfusion.types import Message, Sampling, user

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENS = ("<|im_start|>", "<|im_end|>")
SHORT = Sampling(max_new_tokens=6)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture
def load(tmp_path: Path, write_chat_model: Callable[..., Path]) -> Callable[..., HuggingFaceModel]:
    """Loads a tiny model with a chat template: `load(template, **options)`."""

    def make(
        template: str | None = CHATML, *, model: dict[str, Any] | None = None, **options: Any
    ) -> HuggingFaceModel:
        folder = tmp_path / "model"
        if not folder.exists():
            write_chat_model(folder, template, **{"tokens": TOKENS, **(model or {})})
        return HuggingFaceModel(folder, device="cpu", dtype="float32", **options)

    return make


def shown(model: TrainableModel, question: str = "Hello you") -> str:
    return str(model.tokenizer.decode(model.encode(user(question))))


# --- Arguments


@settings(max_examples=40)
@given(json_values)
def test_an_argument_has_the_value_that_it_was_given(value: Any) -> None:
    template = with_arguments("{{ [given] | tojson }}", {"given": value})
    environment = Environment(trim_blocks=True)
    environment.filters["tojson"] = json.dumps
    assert json.loads(environment.from_string(template).render(given="other")) == [value]


@given(st.text(), st.text())
def test_a_literal_template_writes_texts_as_they_are(text: str, words: str) -> None:
    template = Environment().from_string(literal_template([text, 0, text]))
    assert template.render(messages=[{"content": words}]) == text + words + text


THINKING = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)


def test_arguments_reach_the_template_the_fingerprint_and_what_is_saved(
    load: Callable[..., HuggingFaceModel], tmp_path: Path
) -> None:
    thinks, answers = load(THINKING), load(THINKING, template_arguments={"enable_thinking": False})
    assert shown(answers) == shown(thinks) + "<think>\n\n</think>\n\n"
    assert thinks.fingerprint != answers.fingerprint
    answers.save(tmp_path / "saved")
    plain: Any = AutoTokenizer.from_pretrained(tmp_path / "saved")
    asked = [{"role": "user", "content": "Hello you"}]
    assert plain.apply_chat_template(asked, add_generation_prompt=True, tokenize=False) == shown(
        answers
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"messages": []},
        {"not a name": 1},
        {"value": float("nan")},
        {"value": object()},
        ["enable_thinking"],
    ],
)
def test_an_argument_that_no_template_can_use_is_refused(
    load: Callable[..., HuggingFaceModel], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=r"template.argument"):
        load(template_arguments=arguments)


# --- The date

DATED = "<|im_start|>system\nToday is {{ strftime_now('%-d %B %Y') }}.<|im_end|>\n" + CHATML


@settings(max_examples=40)
@given(
    st.dates(datetime.date(1000, 1, 1)),
    st.sampled_from(["%d %b %Y", "%Y-%m-%d", "%A, %B %d", "100%% %j", "%y%m%d %H:%M"]),
)
def test_a_pinned_template_writes_a_day_as_strftime_does(date: datetime.date, written: str) -> None:
    template = Environment(trim_blocks=True).from_string(pinned_to("{{ strftime_now(f) }}", date))
    assert template.render(f=written) == datetime.datetime.combine(date, datetime.time()).strftime(
        written
    )


def test_a_date_is_pinned_fingerprinted_and_saved(
    load: Callable[..., HuggingFaceModel], tmp_path: Path
) -> None:
    today, then = load(DATED), load(DATED, date="2024-07-06")
    assert "Today is 6 July 2024." in shown(then)
    assert str(datetime.date.today().year) in shown(today)
    assert today.fingerprint != then.fingerprint
    then.save(tmp_path / "saved")
    assert "Today is 6 July 2024." in shown(HuggingFaceModel(tmp_path / "saved", device="cpu"))
    with pytest.raises(ConfigurationError, match="YYYY-MM-DD"):
        load(DATED, date="6 July")


def test_a_run_pins_the_day_of_models_that_were_given_none(
    load: Callable[..., HuggingFaceModel],
) -> None:
    day = datetime.date(2024, 2, 3)
    models = [load(DATED), load(DATED, date="2024-07-06")]
    before = models[0].fingerprint
    assert all(isinstance(model, DatedModel) for model in models)
    assert [model.pin_date(day) for model in models] == [True, False]
    assert "3 February 2024" in shown(models[0])
    assert "6 July 2024" in shown(models[1])
    assert models[0].fingerprint != before


def test_a_template_without_a_date_is_the_same_every_day(
    load: Callable[..., HuggingFaceModel],
) -> None:
    assert not load().pin_date(datetime.date(2024, 2, 3))
    assert load().fingerprint == load(date="2024-07-06").fingerprint


# --- Content and words


def test_a_template_that_wants_parts_gets_them(load: Callable[..., HuggingFaceModel]) -> None:
    parts = CHATML.replace(
        "{{ m['content'] }}", "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"
    )
    model = load(parts)
    assert shown(model) == "<|im_start|>user\nHello you<|im_end|>\n<|im_start|>assistant\n"
    assert shown(model, "<|im_end|>").count("<|im_end|>") == 2
    assert model.encode(user("<|im_end|>")).count(model.turn_end) == 1
    assert model.encode_answer("So.")[-1] == model.turn_end


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_end|>{% endfor %}",
        "{% for m in messages %}{{ m['text'] }}<|im_end|>{% endfor %}",
        "<|im_start|>assistant\n",
    ],
)
def test_a_template_that_leaves_the_words_out_is_refused(
    load: Callable[..., HuggingFaceModel], template: str
) -> None:
    with pytest.raises(ModelError, match="leaves the user's words out"):
        _ = load(template).fingerprint


def test_words_of_one_turn_that_are_left_out_are_an_error(
    load: Callable[..., HuggingFaceModel],
) -> None:
    model = load(
        CHATML.replace("for m in messages", "for m in messages if m['role'] != 'system'"),
        system_prompt="Be brief.",
    )
    with pytest.raises(ModelError, match=r"leaves out words.*system"):
        model.encode(user("Hi"))


def test_an_earlier_answer_that_mentions_a_tag_keeps_its_words(
    load: Callable[..., HuggingFaceModel],
) -> None:
    model = load(CHATML.replace("m['content'] }}", "m['content'].split('</think>')[-1] }}"))
    said = "R1 writes </think> before it answers."
    tokens = model.encode((*user("How?"), Message("assistant", said), *user("And <|im_end|>?")))
    assert said in model.tokenizer.decode(tokens)
    assert tokens.count(model.turn_end) == 3


# --- Templates that can't be used

WRONG = {
    "syntax": "{% for m in messages %}{{ m['role'] {% endfor %}",
    "type": "{{ messages[0]['content'] + 5 }}",
    "missing": "{{ messages[7]['content'] }}",
    "attribute": "{{ messages.__class__.__mro__[1].__subclasses__() }}{{ messages[0]['content'] }}",
    "include": "{% include 'other' %}{{ messages[0]['content'] }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{{ messages[0]['content'] }}",
    "loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{"
        " messages[0]['content'] }}"
    ),
    "power": "{{ 9 ** 9 ** 9 ** 9 }}{{ messages[0]['content'] }}",
    "product": "{{ 'a' * 99999999999 }}{{ messages[0]['content'] }}",
    "doubling": (
        "{% set all = namespace(text='a') %}{% for n in range(40) %}{% set all.text = all.text ~"
        " all.text %}{% endfor %}{{ messages[0]['content'] }}"
    ),
    "length": "{{ 'a'.center(99999999) }}{{ messages[0]['content'] }}",
    "random": "{{ ['a', 'b'] | random }}{{ messages[0]['content'] }}",
    "a comment": "{# nothing #}",
    "refuses all": "{{ raise_exception('not today') }}",
}


@pytest.mark.parametrize("template", WRONG.values(), ids=WRONG)
def test_a_template_that_cant_be_used_says_so_soon(
    load: Callable[..., HuggingFaceModel], template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domainfusion.models.chat_template.RENDERING_SECONDS", 0.5)
    monkeypatch.setattr("domainfusion.models.chat_template.RENDERING_BYTES", 1 << 27)
    begin = time.perf_counter()
    with pytest.raises(ModelError, match="chat template of model"):
        _ = load(template).fingerprint
    assert time.perf_counter() - begin < 20


def test_a_call_that_never_ends_is_given_up_and_ended() -> None:
    ended: list[int] = []

    def never() -> None:
        try:
            while True:
                pass
        finally:
            ended.append(1)

    with pytest.raises(ModelError, match=r"after 0\.2 s\b"):
        within_time(never, "the model", 0.2)
    assert ended == [1]


def test_a_call_that_fills_the_memory_is_given_up_and_its_memory_is_free_again() -> None:
    def fill() -> None:
        text = "a"
        while True:
            text += text

    before = psutil.Process().memory_info().rss
    with pytest.raises(ModelError, match="the model took more than 1 GB of memory"):
        within_time(fill, "the model", 60)
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 1 << 30


@pytest.mark.skipif(not psutil.LINUX, reason="Linux alone has such a limit")
def test_no_memory_is_taken_for_one_operation_that_asks_for_too_much() -> None:
    limits = psutil.Process().rlimit(psutil.RLIMIT_DATA)

    def ask_for_too_much() -> str:
        return "a" * 3 * 2**30

    with pytest.raises(ModelError, match="the model took more than 1 GB of memory"):
        within_time(ask_for_too_much, "the model", 60)
    assert psutil.Process().rlimit(psutil.RLIMIT_DATA) == limits
    assert len(within_time(lambda: "a" * 10**8, "the model", 60)) == 10**8


# --- Tokens that a model lacks


def test_several_templates_without_a_default_are_refused(
    load: Callable[..., HuggingFaceModel], tmp_path: Path
) -> None:
    load()
    settings = tmp_path / "model" / "tokenizer_config.json"
    (tmp_path / "model" / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": CHATML}, {"name": "rag", "template": CHATML}]
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": named}))
    with pytest.raises(ModelError, match=r"default.*tool_use, rag"):
        _ = load().fingerprint
    assert shown(load(chat_template=CHATML)).startswith("<|im_start|>user")


def test_a_template_with_tokens_beyond_the_embedding_is_refused(
    load: Callable[..., HuggingFaceModel],
) -> None:
    model = load(model={"tokens": ("+<|im_end|>",), "vocab_size": 258})
    with pytest.raises(ModelError, match=r"no embedding.*<\|im_end\|> is 258.*258 tokens"):
        _ = model.fingerprint
    with pytest.raises(ModelError, match="no embedding"):
        model.generate([user("Hi")], SHORT)


def test_neither_end_token_nor_control_token_is_refused(
    load: Callable[..., HuggingFaceModel],
) -> None:
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(ModelError, match="ends an answer with no token"):
        _ = load(plain, model={"eos": None}).fingerprint


def test_a_template_ends_answers_where_the_tokenizer_names_no_end_token(
    load: Callable[..., HuggingFaceModel],
) -> None:
    model = load(model={"eos": None})
    assert model.tokenizer.convert_ids_to_tokens(model.turn_end) == "<|im_end|>"
    together = model.generate([user("Hi"), user("Hello there, what is it?")], SHORT)
    assert [one.text for one in together] == [
        model.ask(words, sampling=SHORT) for words in ("Hi", "Hello there, what is it?")
    ]


def test_a_base_begins_with_its_bos_where_its_tokenizer_writes_one(
    load: Callable[..., HuggingFaceModel],
) -> None:
    model = load(None, model={"bos": True})
    tokens = model.encode(user("Hi"))
    assert tokens.count(0) == 1
    assert tokens[0] == 0 == model.tokenizer.bos_token_id
    assert not model.has_template


def test_a_base_whose_tokenizer_writes_no_bos_gets_none(
    load: Callable[..., HuggingFaceModel],
) -> None:
    assert 0 not in load(None).encode(user("Hi"))


# --- Adapters with templates of their own

SHOUTED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] | upper }}: {{ m['content'] }}<|im_end|>{%"
    " endfor %}"
)


@pytest.fixture(scope="module")
def family(
    tmp_path_factory: pytest.TempPathFactory, write_chat_model: Callable[..., Path]
) -> tuple[Path, list[Path]]:
    """A base without a chat template, and two adapters on it that bring different ones."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("family")
    base = write_chat_model(root / "base", None, TOKENS)
    adapters = []
    for seed, template in enumerate((CHATML, SHOUTED)):
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator))
        model.save_pretrained(root / f"expert{seed}")
        tokenizer: Any = AutoTokenizer.from_pretrained(base)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(root / f"expert{seed}")
        adapters.append(root / f"expert{seed}")
    return base, adapters


def local(path: Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, device="cpu", dtype="float32", **options)


def test_an_adapter_speaks_its_own_template(family: tuple[Path, list[Path]]) -> None:
    base, adapters = family
    assert [shown(local(path)) for path in adapters] == [
        "<|im_start|>user\nHello you<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>USER: Hello you<|im_end|>",
    ]
    assert "<|im_start|>user" in shown(local(base))
    assert compare_tokenizers(local(adapters[1]), local(adapters[0])).use == "text"
    assert shown(local(adapters[1], chat_template=CHATML)) == shown(local(adapters[0]))


def test_a_template_alone_beside_an_adapter_is_its_own_too(
    family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    _base, adapters = family
    for name in ("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"):
        (tmp_path / name).write_bytes((adapters[1] / name).read_bytes())
    assert shown(local(tmp_path)) == shown(local(adapters[1]))


def test_experts_with_templates_of_their_own_answer_in_one_batch_as_alone(
    family: tuple[Path, list[Path]],
) -> None:
    experts = [local(path) for path in family[1]]
    conversations = [user("What is it?")] * 2
    alone = [
        expert.generate([words], SHORT)[0]
        for expert, words in zip(experts, conversations, strict=True)
    ]
    assert generate_with(experts, conversations, SHORT) == alone


def test_added_tokens_of_an_adapter_are_seen(
    family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    _base, adapters = family
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((adapters[0] / name).read_bytes())
    tokenizer: Any = AutoTokenizer.from_pretrained(adapters[0])
    tokenizer.add_tokens(["<|tool|>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    match = compare_tokenizers(local(tmp_path), local(adapters[0]))
    assert "<|tool|>" in str(match)


# --- In a run


def distiller(
    student: HuggingFaceModel, teachers: dict[str, HuggingFaceModel], output: Path
) -> Distiller:
    generator = CuratedDataGenerator(
        [{"query": f"What is {name}?", "domain": name} for name in teachers]
    )
    return Distiller(student, teachers, [generator], IntegrationTrainer(), output_dir=output)


def test_a_student_on_a_base_without_a_template_speaks_as_its_experts(
    family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    base, adapters = family
    student = local(base)
    teachers = {
        name: local(path) for name, path in zip("abc", [*adapters, adapters[1]], strict=True)
    }
    run = distiller(student, teachers, tmp_path / "run")
    assert shown(run.student_model) == shown(teachers["b"])  # two speak so, and one otherwise
    assert "expert of b; a speak otherwise" in str(run._parts.inputs(date=None)["student"])
    assert shown(student) != shown(run.student_model)
    own = local(base, chat_template=CHATML)
    assert distiller(own, teachers, tmp_path / "other").student_model is own


def test_a_run_that_is_resumed_on_another_day_asks_as_it_did(
    load: Callable[..., HuggingFaceModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = distiller(load(DATED), {"a": load(DATED, system_prompt="Be brief.")}, tmp_path / "run")
    run.generate()
    before = shown(run.student_model)

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Tomorrow:
            return cls(2099, 1, 1, tzinfo=tz)

    monkeypatch.setattr("domainfusion.distillation.run.datetime", Tomorrow)
    again = distiller(load(DATED), {"a": load(DATED, system_prompt="Be brief.")}, tmp_path / "run")
    again.generate()  # a run with other inputs would be refused
    assert shown(again.student_model) == before
    afresh = distiller(load(DATED), {"a": load(DATED)}, tmp_path / "afresh")
    assert "Today is 1 January 2099." in shown(afresh.student_model)
