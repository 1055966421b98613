"""Refusals and chatter: what is recognized, what survives, and that text stays as it is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.text.refusals import Screening, is_refusal, without_chatter
from domainfusion.errors import ConfigurationError

REFUSALS = """
I'm sorry, but as an AI language model, I cannot provide medical advice.
I’m sorry, but I can’t help with that.
I cannot assist with that request.
As an AI language model, I don't have personal opinions.
I'm sorry, I can't answer that question. Please consult a lawyer for legal advice.
Sorry, I am unable to provide that information. Is there anything else I can help you with?
I'm sorry. I can't help you with this.
Unfortunately, I cannot fulfill this request. Creating weapons is illegal and dangerous.
I apologize, but I'm not able to discuss that.
I'm just an AI and I cannot diagnose conditions.
I'm an AI language model and do not have access to real-time data.
**I'm sorry**, but I can't assist with that.
I must decline to answer this question.
I'm sorry.
Es tut mir leid, aber dabei kann ich nicht helfen.
Als KI-Sprachmodell kann ich keine medizinische Beratung geben.
Je suis désolé, mais je ne peux pas répondre à cette question.
Lo siento, pero no puedo ayudarte con eso.
Desculpe, mas não posso ajudar com isso.
Mi dispiace, ma non posso aiutarti.
Het spijt me, maar ik kan daar niet bij helpen.
К сожалению, я не могу ответить на этот вопрос.
很抱歉，我无法回答这个问题。
作为一个AI语言模型，我不能提供医疗建议。
申し訳ありませんが、その質問にはお答えできません。
죄송합니다만, 그 질문에는 답변해 드릴 수 없습니다.
""".strip().splitlines()

ANSWERS = """
I'm sorry to hear that you hurt your knee. Rest for two days.
The assistant replied: "I'm sorry, I can't help with that."
"I'm sorry, but I can't help with that" is how a chatbot refuses.
I can't recommend that you run on it: rest instead.
I cannot give you an exact number, but a sprinter needs about 1.6 g per kg.
I'm sorry, but as an AI I can't examine you. However, swelling after a sprain lasts three days.
I'm sorry, but I can't help with that. Gold is a metal.
Unfortunately, there is no cure for it.
Unfortunately, the tax cannot be deducted.
I can't stress this enough: drink water.
I can't help but notice that your squat is too shallow.
As an AI researcher, Turing did not publish this.
Sorry is the title of a song by Justin Bieber.
I'm sorry, I can't tell you the exact value. It is near 300 K.
A lawyer cannot help you with that. Ask a notary.
I'm sorry, the answer is Lima.
I am sorry, but you can't deduct that.
I can't do that in Python 2, since it has no f-strings; use format instead.
I won't give you a long list. Eat pasta.
I don't know.
Leider ist es nicht heilbar.
Leider kann man das nicht absetzen.
Je suis désolé est une formule de politesse.
No puedo responder con certeza. La capital es Lima.
很抱歉的意思是 I'm sorry。
Japan.
""".strip().splitlines()


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_recognized(text: str) -> None:
    assert is_refusal(text)
    assert is_refusal(f"  {text}\n")


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_that_sounds_like_one_survives(text: str) -> None:
    assert not is_refusal(text)
    assert without_chatter(text).text == text


@pytest.mark.parametrize("text", REFUSALS)
@pytest.mark.parametrize(
    "query",
    [
        "Write a polite reply that turns the customer down.",
        "Translate this sentence into English.",
        "How do I decline an invitation?",
    ],
)
def test_a_question_for_wording_may_be_answered_with_one(text: str, query: str) -> None:
    assert not is_refusal(text, query)


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_that_is_quoted_is_none(text: str) -> None:
    for quoting in (f'The model said "{text}"', f"> {text}\n\nThat is a refusal.", f"`{text}`"):
        assert not is_refusal(quoting)


CHATTER = [
    ("Great question!", "Let me know if you have any other questions."),
    ("That's a really great question.", "I hope this helps!"),
    ("Of course! I'd be happy to help.", "Feel free to ask if you need more details!"),
    ("Thank you for your question!", "If you have any further questions, just ask!"),
    ("Sure, I can help with that!", "Is there anything else I can help you with?"),
    ("Gute Frage!", "Wenn du weitere Fragen hast, frag gerne."),
    ("Excellente question !", "N'hésitez pas à me demander."),
    ("¡Buena pregunta!", "Espero que te ayude."),
    ("Отличный вопрос!", "Надеюсь, это поможет!"),
    ("这是一个很好的问题。", "希望这对你有帮助！"),
]
BODIES = [
    "Gold is  Au;  it melts at 1064 °C.",
    "1. Eat.\n2. Sleep.",
    "```python\nprint('Great question!')\n```\nThis prints it.",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "金是Au。",
]


@pytest.mark.parametrize(("opening", "closing"), CHATTER)
@pytest.mark.parametrize("body", BODIES)
def test_chatter_is_removed_and_the_answer_keeps_its_bytes(
    opening: str, closing: str, body: str
) -> None:
    found = without_chatter(f"{opening}\n\n{body}\n\n{closing}")
    assert found.text == body
    assert " ".join(found.removed) == f"{opening} {closing}"
    assert without_chatter(found.text) == (found.text, ())


@pytest.mark.parametrize(
    "text",
    [
        "Absolutely! Creatine helps.",
        "Of course. It rusts.",
        "Let me know if you have pain.",
        "Rest. Let me know if the fever exceeds 39 °C.",
        "Rest. If you have any further questions, ask your doctor.",
        "If you need help, please don't hesitate to call an ambulance.",
        "Rest. Don't hesitate to contact a doctor.",
        "A great question is one that can be answered.",
        "Hamlet asks a great question: to be or not to be?",
        "It means: Let me know if you have any questions, said politely.",
        "```\nLet me know if you have any questions.\n```",
        "> Great question!\n\nThat is what he wrote.",
        "Great question! Let me know if you have any other questions!",
        "Great question!",
        "",
        "  \n",
    ],
)
def test_what_may_be_an_answer_stays_byte_for_byte(text: str) -> None:
    assert without_chatter(text) == (text, ())


def test_a_letter_that_was_asked_for_keeps_its_closing() -> None:
    text = "We ship on Monday. Please let me know if you have any questions."
    assert without_chatter(text, "Write an email about the shipping date.").text == text
    assert without_chatter(text, "When do we ship?").text == "We ship on Monday."


@given(
    text=st.text()
    | st.lists(st.sampled_from([*REFUSALS, *BODIES, "Great question!"])).map(" ".join)
)
def test_any_text_is_a_part_of_what_it_was(text: str) -> None:
    found = without_chatter(text)
    assert found.text in text
    assert found.removed or found.text == text
    is_refusal(text)


@pytest.mark.parametrize(
    "part", ["I'm sorry, ", "as an ai ", "a", "i can't provide ", "let me know if you have any "]
)
def test_an_endless_text_is_read_in_no_time(part: str) -> None:
    started = time.process_time()
    is_refusal(part * 20_000)
    without_chatter(part * 20_000)
    assert time.process_time() - started < 10


def test_a_custom_rule_and_patterns_add_to_the_list() -> None:
    def is_shrug(query: str, text: str) -> bool:
        return query.endswith("?") and text == "¯\\_(ツ)_/¯"

    screening = Screening(patterns=("^no comment$",), rule=is_shrug)
    assert screening.is_refused("Why?", "No comment")
    assert screening.is_refused("Why?", "¯\\_(ツ)_/¯")
    assert not screening.is_refused("Why", "¯\\_(ツ)_/¯")
    assert screening.is_refused("Why?", REFUSALS[0])
    assert not Screening(refusals=False).is_refused("Why?", REFUSALS[0])
    assert (
        Screening(chatter=False).trimmed("Why?", "Great question! So.").text
        == "Great question! So."
    )


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"patterns": "no"}, r"one text instead of several.*write \['no'\]"),
        ({"patterns": ("(",)}, "not a regular expression"),
        ({"patterns": (3,)}, "not a regular expression"),
        ({"rule": "no"}, "not a function"),
    ],
)
def test_settings_that_cannot_be_are_errors(settings: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        Screening(**settings)  # type: ignore[arg-type]
