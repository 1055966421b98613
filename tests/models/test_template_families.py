"""For each family of chat templates: a student that was trained and saved, asked by plain
Transformers, writes the whole form and stops.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from domainfusion.models import HuggingFaceModel
from domainfusion.models.encoding import answer_form
from domainfusion.types import Message, Sampling, user

ANSWERS = {"What is iron?": "It is Fe.", "What is gold?": "Au, since </s> 79."}


class Family(NamedTuple):
    """A kind of chat template.

    Attributes:
        template: A shortened form of the one that its models bring; empty for a base without one.
        tokens: Its control tokens.
        eos: The end token that its tokenizers name.
        written: What a model writes, with `{}` for the words.
    """

    template: str
    tokens: tuple[str, ...]
    eos: str
    written: str


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = {
    "chatml": Family(CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", "{}<|im_end|>"),
    "chatml-on-a-base": Family(CHATML, ("<|im_start|>", "<|im_end|>"), "</s>", "{}<|im_end|>"),
    "llama-3": Family(
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role']"
        " }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}{% if"
        " add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "{}<|eot_id|>",
    ),
    "gemma": Family(
        "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] =="
        " 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if"
        " add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
        "</s>",
        "{}<end_of_turn>",
    ),
    "mistral": Family(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content']"
        " }}[/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]"),
        "</s>",
        " {}</s>",
    ),
    "phi-3": Family(
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        ("<|user|>", "<|assistant|>", "<|end|>"),
        "</s>",
        "{}<|end|>",
    ),
    "qwen-3": Family(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and"
        " loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'].split('</think>')[-1]"
        " }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if"
        " enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif"
        " %}{% endif %}",
        ("<|im_start|>", "<|im_end|>", "+<think>", "+</think>"),
        "<|im_end|>",
        "<think>\n\n</think>\n\n{}<|im_end|>",
    ),
    "deepseek-r1": Family(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{"
        " m['content'] }}{% else %}<｜Assistant｜>{{ m['content'].split('</think>')[-1]"
        " }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}{% if add_generation_prompt"
        " %}<｜Assistant｜><think>\n{% endif %}",
        ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "+<think>", "+</think>"),
        "<｜end▁of▁sentence｜>",
        "\n</think>\n\n{}<｜end▁of▁sentence｜>",
    ),
    "gpt-oss": Family(
        "{% for m in messages %}{% if m['role'] == 'assistant'"
        " %}<|start|>assistant<|channel|>final<|message|>{{ m['content'] }}{% if loop.last and not"
        " add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}{% else %}<|start|>{{"
        " m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}{% if"
        " add_generation_prompt %}<|start|>assistant{% endif %}",
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
        "<|return|>",
        "<|channel|>final<|message|>{}<|return|>",
    ),
    "command-r7b": Family(
        "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>{% if m['role'] =="
        " 'assistant' %}<|CHATBOT_TOKEN|><|START_RESPONSE|>{{ m['content'] }}<|END_RESPONSE|>{%"
        " else %}<|USER_TOKEN|>{{ m['content'] }}{% endif %}<|END_OF_TURN_TOKEN|>{% endfor %}{% if"
        " add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
        (
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
        ),
        "<|END_OF_TURN_TOKEN|>",
        "<|START_RESPONSE|>{}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    ),
    "refuses-to-end-with-an-answer": Family(
        "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('the last turn must be the"
        " user') }}{% endif %}" + CHATML,
        ("<|im_start|>", "<|im_end|>"),
        "</s>",
        "{}<|im_end|>",
    ),
    "end-added-as-a-plain-token": Family(
        CHATML, ("<|im_start|>", "+<|im_end|>"), "</s>", "{}<|im_end|>"
    ),
    "a-base-without-one": Family("", (), "</s>", "{}</s>"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def student(
    family: Family, tmp_path_factory: pytest.TempPathFactory, write_chat_model: Callable[..., Path]
) -> HuggingFaceModel:
    folder = write_chat_model(
        tmp_path_factory.mktemp("family"), family.template, family.tokens, family.eos
    )
    return HuggingFaceModel(folder, device="cpu", dtype="float32").trainable_copy(None)


@pytest.fixture(scope="module")
def saved(student: HuggingFaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the student after it has learned its answers by heart."""
    rows = [
        (student.encode(user(question)), student.encode_answer(answer))
        for question, answer in ANSWERS.items()
    ]
    module: Any = student.trainable_module().train()
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for place, (prompt, answer) in enumerate(rows):
        whole = torch.tensor([*prompt, *answer])
        tokens[place, : len(whole)] = whole
        labels[place, len(prompt) : len(whole)] = whole[len(prompt) :]
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(120):
        loss = module(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.03:
            break
    folder = tmp_path_factory.mktemp("saved")
    student.save(folder)
    return folder


def test_plain_transformers_gets_the_whole_form_and_its_end(family: Family, saved: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(saved)
    model: Any = AutoModelForCausalLM.from_pretrained(saved)
    for question, answer in ANSWERS.items():
        asked = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        written = model.generate(**prompt, max_new_tokens=80, do_sample=False)[
            0, prompt["input_ids"].shape[1] :
        ]
        assert len(written) < 80  # it stops by itself
        assert tokenizer.decode(written) == family.written.format(answer)


def test_the_student_reads_its_own_answers(saved: Path) -> None:
    model = HuggingFaceModel(saved, device="cpu", dtype="float32")
    for question, answer in ANSWERS.items():
        [generation] = model.generate([user(question)], Sampling(max_new_tokens=80))
        assert (generation.text, generation.finish_reason, generation.reasoning) == (
            answer,
            "stop",
            "",
        )


def test_a_trained_row_is_the_prompt_and_what_a_model_writes_after_it(
    family: Family, student: HuggingFaceModel
) -> None:
    tokenizer: Any = student.tokenizer
    for question, answer in ANSWERS.items():
        row = [*student.encode(user(question)), *student.encode_answer(answer)]
        asked = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        assert tokenizer.decode(row) == prompt + family.written.format(answer)
        assert (
            student.encode_answer(answer, finished=False)
            == student.encode_answer(answer)[: -len(answer_form(tokenizer).closing)]
        )
        assert (
            row.count(student.turn_end)
            == student.encode(user(question)).count(student.turn_end) + 1
        )


def test_the_words_alone_are_scored_after_what_the_template_puts_before_them(
    family: Family, student: HuggingFaceModel
) -> None:
    [scores] = student.score([(*user("What is iron?"), Message("assistant", "It is Fe."))])
    assert student.tokenizer.decode(list(scores.tokens[:-1])).strip() == "It is Fe."
    assert len(scores.log_probabilities) == len(scores.tokens)
