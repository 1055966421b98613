"""Laws of reading reasoning: whatever its form, it is never part of the answer, and an answer that
mentions a tag keeps its words.
"""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.models.reasoning import (
    Reasoned,
    is_marker,
    lead_after_thought,
    read_content,
    split_reasoning,
)

ANSWER = "Its symbol is Fe."

FORMS = {
    "DeepSeek-R1, Qwen3": "<think>\n{}\n</think>\n\n{}",
    "R1-Zero": "<think> {} </think> <answer> {} </answer>",
    "on one line": "<think>{}</think>{}",
    "thinking": "<thinking>{}</thinking>\n{}",
    "reasoning": "<reasoning>{}</reasoning>\n{}",
    "EXAONE, Gemini": "<thought>{}</thought>\n{}",
    "Magistral": "[THINK]{}[/THINK]{}",
    "Seed-OSS": "<seed:think>{}</seed:think>{}",
    "MiniMax": "<mm:think>{}</mm:think>{}",
    "Kimi": "◁think▷{}◁/think▷{}",
    "Sky-T1": (
        "<|begin_of_thought|>\n{}\n<|end_of_thought|>\n<|begin_of_solution|>\n{}\n<|end_of_solution|>"
    ),
    "Command A": "<|START_THINKING|>{}<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    "gpt-oss": (
        "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"
    ),
    "gpt-oss, with its header": (
        "<|start|>assistant<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}"
    ),
    "gpt-oss, tokens dropped": "analysis{}assistantfinal{}",
    "Granite": "Here is my thought process:\n{}\nHere is my response:\n{}",
    "Apriel": "Here are my reasoning steps:\n{}\n[BEGIN FINAL RESPONSE]\n{}\n[END FINAL RESPONSE]",
}

MENTIONS = [
    (
        "In that format the end of the reasoning is marked with </think>, and what follows is the"
        " answer."
    ),
    "Write `<think>` first and `</think>` last, then the answer.",
    "<think> and </think> are the tags of R1.",
    "<think> is what R1 writes first.",
    "The reasoning ends with </think>.",
    "The closing tag is </think>",
    'Split at "</think>"\n\nThen take the second part.',
    "**</think>** closes what **<think>** opened.",
    "Models write <think>their reasoning</think>and then the answer.",
    "```\n<think>\nHm.\n</think>\n\n4\n```\nThat is the format.",
    "```python\nanswer = text.split('</think>\\n')[1]\n```",
    "gpt-oss writes <|channel|>analysis<|message|> before it thinks.",
    "[THINK] and [/THINK] are Mistral's.",
    "終わりは</think>です。",
    "Here is my thought process: first I look at the units.",
    "analysis of variance compares means.",
]

CUT = [
    "<think>\nThe symbol of iron",
    "<think>",
    "[THINK]The symbol of iron",
    "◁think▷The symbol of iron",
    "<|begin_of_thought|>The symbol of iron",
    "<|channel|>analysis<|message|>The symbol of iron",
    "<|channel|>analysis<|message|>The symbol of iron<|end|>",
    "<think>Easy.</think><think>The symbol of iron",
]

words = st.text(st.characters(categories=("L", "N"), include_characters=" .,\n")).map(str.strip)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_reasoning_is_not_part_of_the_answer(form: str) -> None:
    assert split_reasoning(form.format("I think.\n\nStill.", ANSWER)) == Reasoned(
        "I think.\n\nStill.", ANSWER
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(reasoning=words, answer=words)
def test_whatever_the_words(form: str, reasoning: str, answer: str) -> None:
    found = split_reasoning(form.format(f"I say: {reasoning}.", f"So {answer}."))
    assert found == Reasoned(f"I say: {reasoning}.", f"So {answer}.")


@pytest.mark.parametrize("mention", MENTIONS)
def test_an_answer_that_mentions_a_tag_keeps_every_word(mention: str) -> None:
    assert split_reasoning(mention) == Reasoned("", mention)
    after_a_thought = split_reasoning(f"<think>\nHm.\n</think>\n\nSo: {mention}")
    assert after_a_thought == Reasoned("Hm.", f"So: {mention}")


@given(st.text().filter(lambda text: not set(text) & set("<[◁")))
def test_a_text_without_a_tag_stays_as_it_is(text: str) -> None:
    if not text.strip().lower().startswith(("analysis", "here")):
        assert split_reasoning(text) == Reasoned("", text.strip())


@pytest.mark.parametrize("text", CUT)
def test_reasoning_that_was_never_closed_has_no_answer(text: str) -> None:
    found = split_reasoning(text)
    assert found.is_cut
    assert found.answer == ""
    assert "<" not in found.reasoning


@pytest.mark.parametrize(
    "opening", ["<think>", "<think>\n", "[THINK]", "◁think▷", "<|channel|>analysis<|message|>"]
)
def test_reasoning_may_be_opened_by_the_prompt(opening: str) -> None:
    closing = {"<": "</think>", "[": "[/THINK]", "◁": "◁/think▷"}[opening[0]]
    if "channel" in opening:
        closing = "<|end|><|start|>assistant<|channel|>final<|message|>"
    prompt = f"<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\n{opening}"
    assert split_reasoning(f"I think.{closing}\n{ANSWER}", prompt) == Reasoned("I think.", ANSWER)
    assert split_reasoning("It is Fe", prompt) == Reasoned("It is Fe", "", is_cut=True)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "assistant\n",
        "assistant\n<think>\n\n</think>\n\n",
        "What is <think>?<|im_end|>assistant\n",
    ],
)
def test_a_prompt_that_opens_no_reasoning_asks_for_an_answer(prompt: str) -> None:
    assert split_reasoning(ANSWER, prompt) == Reasoned("", ANSWER)


@pytest.mark.parametrize(
    "text",
    [
        "I think.</think>\n{}",
        "I think.\n</think>\n\n{}",
        "I think </think>\n\n{}",
        "I think.</thinking>{}",
    ],
)
def test_a_closing_tag_alone_ends_reasoning(text: str) -> None:
    found = split_reasoning(text.format(ANSWER))
    assert (found.reasoning.rstrip("."), found.answer) == ("I think", ANSWER)


@pytest.mark.parametrize(
    ("header", "between", "lead"),
    [
        ("<a>", "<a>", ""),
        ("<a><think>\n", "<a>", "\n</think>\n\n"),
        ("<a><think>\n\n</think>\n\n", "<a>", ""),
        (
            "<a><|START_THINKING|>",
            "<a><|START_RESPONSE|>",
            "\n<|END_THINKING|>\n\n<|START_RESPONSE|>",
        ),
        ("<a><|START_THINKING|><|END_THINKING|>", "<a><|START_RESPONSE|>", "<|START_RESPONSE|>"),
        (
            "<|start|>assistant<|channel|>analysis<|message|>",
            "<|start|>assistant<|channel|>final<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        (
            "<|start|>assistant<|channel|>final<|message|>",
            "<|start|>assistant<|channel|>final<|message|>",
            "",
        ),
    ],
)
def test_a_thought_in_the_prompt_is_over_before_the_words_of_an_answer(
    header: str, between: str, lead: str
) -> None:
    assert lead_after_thought(header, between) == lead
    assert split_reasoning(f"{lead}{ANSWER}", header) == Reasoned("", ANSWER)


def test_reasoning_may_mention_its_own_tags() -> None:
    thought = "They ask where </think> goes, and whether `<think>` opens it."
    assert split_reasoning(f"<think>\n{thought}\n</think>\n\n{ANSWER}") == Reasoned(thought, ANSWER)
    assert split_reasoning(f"{thought}\n</think>\n\n{ANSWER}", prompt="<think>\n") == Reasoned(
        thought, ANSWER
    )


def test_parts_of_reasoning_are_told_from_parts_of_text() -> None:
    content = read_content(
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Easy."}]},
            "It ",
            {"type": "text", "text": "is Fe."},
            {"type": "image_url", "image_url": {"url": "x"}},
        ]
    )
    assert "".join(content.texts) == "It is Fe."
    assert content.reasoning == "Hm.\n\nEasy."
    assert content.others == ("image_url",)


@pytest.mark.parametrize(
    "content", [None, 4, {}, [None], [[]], [{"type": 4}], [{"type": "text", "text": 4}]]
)
def test_content_that_is_not_a_text_raises_nothing(content: object) -> None:
    found = read_content(content)
    assert found.texts == ()
    assert len(found.others) == 1


@pytest.mark.parametrize(
    "token",
    [
        "<think>",
        "</think>",
        "[THINK]",
        "<|channel|>",
        "<|START_RESPONSE|>",
        "◁/think▷",
        "<unused94>",
    ],
)
def test_tokens_that_mark_reasoning_are_known(token: str) -> None:
    assert is_marker(token)
    assert not is_marker(token[1:])


@pytest.mark.parametrize(
    "piece",
    [
        "</think>",
        "<think>",
        "<think></think>",
        "`",
        "```a\n",
        "a `",
        " </think> a",
        "<|end|> ",
        "<|start|>assistant ",
        "analysis",
    ],
)
@pytest.mark.parametrize("start", ["", "<think>", "<|channel|>analysis<|message|>"])
def test_a_long_text_of_tags_is_read_at_once(start: str, piece: str) -> None:
    begin = time.perf_counter()
    split_reasoning(start + piece * (200_000 // len(piece)))
    assert time.perf_counter() - begin < 5  # what grows with the square takes minutes
