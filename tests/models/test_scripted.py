"""Laws of the scripted model: the same question gives the same answer, and it can be used wherever
a model can.
"""

import pytest

from domainfusion.errors import ModelError
from domainfusion.models import LanguageModel, ScriptedModel, TrainableModel
from domainfusion.types import Generation, Message, user


def test_it_is_a_language_model_and_can_not_be_trained() -> None:
    assert isinstance(ScriptedModel("yes"), LanguageModel)
    assert not isinstance(ScriptedModel("yes"), TrainableModel)


@pytest.mark.parametrize(
    "script", [{"2 + 2?": "4", "3 + 3?": "6"}, lambda question: str(2 * int(question[0]))]
)
def test_answers_come_in_the_order_of_the_questions(script: object) -> None:
    model = ScriptedModel(script)  # type: ignore[arg-type]
    assert [answer.text for answer in model.generate([user("3 + 3?"), user("2 + 2?")])] == [
        "6",
        "4",
    ]


def test_one_text_answers_everything() -> None:
    assert (
        ScriptedModel("yes").generate([user("a")])[0].text
        == ScriptedModel("yes").generate([user("b")])[0].text
        == "yes"
    )


def test_the_last_message_is_the_question() -> None:
    conversation = (
        Message("system", "a"),
        Message("user", "b"),
        Message("assistant", "c"),
        Message("user", "d"),
    )
    assert ScriptedModel({"d": "right"}).generate([conversation])[0].text == "right"


def test_every_conversation_it_was_asked_is_kept() -> None:
    model = ScriptedModel("yes")
    model.generate([user("a"), user("b")])
    model.generate([user("a")])
    assert model.calls == [user("a"), user("b"), user("a")]


def test_each_answer_is_reported_the_moment_it_is_there() -> None:
    seen: list[tuple[int, Generation]] = []

    def answer(question: str) -> str:
        assert len(seen) == int(question)
        return question * 2

    answers = ScriptedModel(answer).generate(
        [user(str(number)) for number in range(4)], on_result=lambda *result: seen.append(result)
    )
    assert seen == list(enumerate(answers))


def test_a_question_that_is_not_in_the_script_is_an_error_that_shows_it() -> None:
    with pytest.raises(ModelError, match="unheard of"):
        ScriptedModel({"a": "b"}).generate([user("unheard of")])


def test_the_fingerprint_changes_with_whatever_may_change_the_answers() -> None:
    models = [
        ScriptedModel("a"),
        ScriptedModel("b"),
        ScriptedModel({"q": "a"}),
        ScriptedModel({"q": "b"}),
        ScriptedModel({"r": "a"}),
        ScriptedModel(str.upper),
        ScriptedModel(str.upper, version="2"),
        ScriptedModel("a", name="other"),
    ]
    assert len({model.fingerprint for model in models}) == len(models)
    assert (
        ScriptedModel({"q": "a", "r": "b"}).fingerprint
        == ScriptedModel({"r": "b", "q": "a"}).fingerprint
    )
