"""Statements: what stands there, what is denied and what is guessed, in many languages and forms,
and no text raises.
"""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.metrics.grading import grade_texts
from domainfusion.distillation.text.denial import is_one_of_guesses
from domainfusion.distillation.text.statements import spans_of, states
from domainfusion.distillation.text.words import (
    Rendered,
    fold,
    fold_character,
    folded,
    identity,
    normalize,
    render,
    words_of,
)
from domainfusion.types import Example, Part

SAID = [
    ("It is Lima.", "Lima"),
    ("No, it is Lima.", "Lima"),
    ("Neither; it is Lima.", "Lima"),
    ("Not Quito, but Lima.", "Lima"),
    ("It is Lima, not Quito.", "Lima"),
    ("It's not Quito; it's Lima.", "Lima"),
    ("It is not only Lima but also Quito", "Lima"),
    ("The capital, which is not large, is Lima.", "Lima"),
    ("There is no doubt that it is Lima.", "Lima"),
    ("I'm not sure, but it is Lima.", "Lima"),
    ("Lima is the capital. Quito is not the capital.", "Lima"),
    ("Nicht Quito, sondern Lima.", "Lima"),
    ("No es Quito, sino Lima.", "Lima"),
    ("不是基多，而是利马。", "利马"),
    ("It does not rust because of chromium.", "chromium"),
    ("The gas that does not react is helium.", "helium"),
    ("Gold does not rust.", "Gold"),
    ("You can't breathe without oxygen.", "oxygen"),
    ("It never rains in Lima, the capital.", "Lima"),
    ("No. 5 is gold.", "gold"),
    ("Unlike iron, it is gold.", "gold"),
    ("Its symbol is Ni.", "Ni"),
    ("日本の首都は東京です。", "東京"),
    ("它位于日本东京附近。", "东京"),
    ("เมืองหลวงคือกรุงเทพมหานครครับ", "กรุงเทพมหานคร"),
    ("수도는 서울입니다.", "서울"),
    ("إنها في القاهرة.", "القاهرة"),
    ("זה בירושלים.", "ירושלים"),
    ("यह दिल्ली है।", "दिल्ली"),
    ("It is **New** **York**.", "New York"),
    ("It is New\u00a0York.", "New York"),
    ("It is To\u200bkyo.", "Tokyo"),
    ("It is photo\u00adsynthesis.", "photosynthesis"),
    ("It is Ohm’s law.", "Ohm's law"),
    ("It is X‑ray diffraction.", "X-ray diffraction"),
    ("It is H₂O.", "H2O"),
    (r"It is $\mathrm{H_2O}$.", "H2O"),
    ("It is Ca²⁺.", "Ca2+"),
    ("It is E = mc².", "mc^2"),
    ("It is AT&amp;T.", "AT&T"),
    ("It is 10 k\u2126.", "10 k\u03a9"),
    ("It is 5 \u00b5m.", "5 \u03bcm"),
    ("It is seventy-nine.", "79"),
    ("It is 1,064 °C.", "1064 °C"),
    (unicodedata.normalize("NFD", "Der Fluss ist die Düna."), "Düna"),
]
DENIED = [
    ("It is not Lima.", "Lima"),
    ("It isn't Lima", "Lima"),
    ("It isn’t **Lima**", "Lima"),
    ("No, not Lima.", "Lima"),
    ("not Lima", "Lima"),
    ("Lima is wrong.", "Lima"),
    ("Lima is not the capital.", "Lima"),
    ("Lima isn't right.", "Lima"),
    ("Neither Quito nor Lima", "Lima"),
    ("Neither Lima nor Quito", "Lima"),
    ("I do not think it is Lima.", "Lima"),
    ("It's false that it is Lima", "Lima"),
    ("It cannot be Lima", "Lima"),
    ("It is anything but Lima.", "Lima"),
    ("Lima was never the capital.", "Lima"),
    ("Many people say Lima, but that's wrong.", "Lima"),
    ("It is anything other than Lima", "Lima"),
    ("The capital is definitely not Lima.", "Lima"),
    ("Es ist nicht Lima.", "Lima"),
    ("Kein Gold", "Gold"),
    ("Ce n'est pas Lima.", "Lima"),
    ("No es Lima.", "Lima"),
    ("Não é Lima.", "Lima"),
    ("Non è Lima", "Lima"),
    ("Het is niet Lima", "Lima"),
    ("Det är inte Lima", "Lima"),
    ("To nie jest Lima", "Lima"),
    ("Это не Лима", "Лима"),
    ("Başkent Ankara değil", "Ankara"),
    ("ليست القاهرة", "القاهرة"),
    ("首都不是利马。", "利马"),
    ("東京ではありません。", "東京"),
    ("서울이 아닙니다", "서울"),
    ("नहीं, यह दिल्ली नहीं है", "दिल्ली"),
    ("ไม่ใช่กรุงเทพ", "กรุงเทพ"),
]
ABSENT = [
    ("It is 10^6.", "10"),
    ("It is –40 °C", "40 °C"),
    ("It is minus 40 °C", "40 °C"),
    ("It is 1 064 °C", "64 °C"),
    ("It is 1 064 °C", "1"),
    ("It is 1/2", "2"),
    ("It is 3.5", "5"),
    ("パリスです", "パリ"),
    ("Это мои книги", "мой"),
    ("el ano", "año"),
    ("かき", "がき"),
    ("की", "का"),
    ("มา", "ม้า"),
    ("It is CO.", "Co"),
]
GUESSED = [
    ("Lima, Quito or Bogotá", "Lima"),
    ("Quito, Lima or Bogotá", "Lima"),
    ("Quito, Bogotá or Lima", "Lima"),
    ("Either Quito or Lima.", "Lima"),
    ("It is Lima or maybe Quito", "Lima"),
    ("It could be Lima, or perhaps Quito.", "Lima"),
    ("Lima/Quito/Bogotá", "Lima"),
    ("Lima; Quito; Bogotá", "Lima"),
    ("Maybe Lima. Maybe Quito.", "Lima"),
    ("Lima? Quito? Bogotá?", "Lima"),
    ("- Lima\n- Quito\n- Bogotá", "Lima"),
    ("1. Lima\n2. Quito\n3. La Paz", "Lima"),
    ("It is Lima. It is Quito.", "Lima"),
    ("The capital is Lima. The capital is Quito.", "Lima"),
    ("The capital is Lima, Quito and Bogotá.", "Lima"),
    ("oxygen or nitrogen", "oxygen"),
    ("iron, copper, or zinc", "copper"),
    ("It is 5 km, 6 km or 7 km.", "6 km"),
    ("The symbol is Fe or Cu.", "Fe"),
    ("Es ist Lima oder Quito.", "Lima"),
    ("Lima ou Quito", "Lima"),
    ("Лима или Кито", "Лима"),
    ("利马或基多", "利马"),
    ("東京または大阪です", "東京"),
]
NOT_GUESSED = [
    ("Lima, Peru", "Lima"),
    ("Its capital is Lima and its symbol is Fe.", "Lima"),
    ("It is iron. It is magnetic.", "iron"),
    ("It is Lima. It is Peru's largest city.", "Lima"),
    ("100 °C or 212 °F", "100 °C"),
    ("sodium chloride, or table salt", "sodium chloride"),
    ("5 or more", "5"),
    ("about 5 or so", "5"),
    ("It takes 5 minutes or less", "5 minutes"),
    ("Lima or thereabouts, I think.", "Lima"),
    ("It is hot or cold in Lima", "Lima"),
    ("The country is Niger. The capital is Niamey.", "Niger"),
    ("Gold is Au. Silver is Ag.", "Au"),
    ("Copper and tin", "Copper"),
    ("| Country | Capital |\n|---|---|\n| Peru | Lima |", "Lima"),
]


@pytest.mark.parametrize(("text", "answer"), SAID)
def test_what_is_said_is_stated(text: str, answer: str) -> None:
    assert states(text, answer)


@pytest.mark.parametrize(("text", "answer"), DENIED)
def test_what_is_denied_is_not_stated(text: str, answer: str) -> None:
    assert list(spans_of(render(text).text, answer))
    assert not states(text, answer)


@pytest.mark.parametrize(("text", "answer"), ABSENT)
def test_what_only_looks_like_it_is_not_stated(text: str, answer: str) -> None:
    assert not states(text, answer)


def guesses(text: str, answer: str) -> list[bool]:
    seen = render(text).text
    return [
        is_one_of_guesses(seen, span, [answer], "What is it?") for span in spans_of(seen, answer)
    ]


@pytest.mark.parametrize(("text", "answer"), GUESSED)
def test_one_of_several_candidates_is_a_guess(text: str, answer: str) -> None:
    assert guesses(text, answer) and all(guesses(text, answer))


@pytest.mark.parametrize(("text", "answer"), NOT_GUESSED)
def test_an_answer_with_more_to_it_is_not_a_guess(text: str, answer: str) -> None:
    assert not all(guesses(text, answer))


def test_a_question_for_what_is_not_so_is_answered_by_a_denial() -> None:
    asked = Example(
        query="Which metal isn't magnetic?",
        domains=("d",),
        parts=(Part(domain="d", answers=("gold",)),),
    )
    other = Example(
        query="Which metal is magnetic?",
        domains=("d",),
        parts=(Part(domain="d", answers=("gold",)),),
    )
    values = [
        grade_texts("stated_parts", [one], ["Gold is not the magnetic one."])[0].value
        for one in (asked, other)
    ]
    assert values == [1, 0]


# Laws

NAMES = [
    "Lima",
    "New York",
    "gold",
    "Fe",
    "H2O",
    "42",
    "1064 °C",
    "Ohm's law",
    "São Paulo",
    "東京",
    "서울",
    "Москва",
    "القاهرة",
    "C++",
]
names = st.sampled_from(NAMES)
METRICS = ["stated_parts", "exact", "contains", "token_f1", "rouge_l"]


def graded(metric: str, gold: str, text: str) -> float | None:
    asked = Example(query="What is it?", domains=("d",), parts=(Part(domain="d", answers=(gold,)),))
    return grade_texts(metric, [asked], [text])[0].value


@given(gold=names, metric=st.sampled_from(METRICS))
def test_every_grader_accepts_its_gold_in_any_markup(gold: str, metric: str) -> None:
    forms = ["{}", "**{}**", "*{}*.", "`{}`", "“{}”", "<b>{}</b>", "\u200b{}\u200f", "- {}", "# {}"]
    texts = [
        *(form.format(gold) for form in forms),
        gold.replace(" ", "&nbsp;"),
        unicodedata.normalize("NFD", gold),
    ]
    assert {graded(metric, gold, text) for text in texts} == {1}


@given(
    gold=names,
    metric=st.sampled_from(["stated_parts", "exact", "contains"]),
    form=st.sampled_from(
        [
            "It is not {}.",
            "It isn't {}.",
            "Not {}.",
            "{} is wrong.",
            "No, it's not **{}**.",
            "I don't think it is {}.",
        ]
    ),
)
def test_every_grader_refuses_the_negation_of_its_gold(gold: str, metric: str, form: str) -> None:
    assert graded(metric, gold, form.format(gold)) == 0


@given(gold=names, others=st.lists(names, min_size=2, max_size=3, unique=True))
def test_several_guesses_are_not_an_answer(gold: str, others: list[str]) -> None:
    alike = [one for one in ("Quito", "Bogotá", "Caracas") if gold != one]
    if gold in ("Lima", "New York", "São Paulo"):
        assert graded("stated_parts", gold, f"{gold}, {alike[0]} or {alike[1]}") == 0
    assert graded("stated_parts", gold, "What is it?") == 0


texts = st.text(
    st.one_of(st.characters(), st.sampled_from("0123456789.,'/^-–± °$ not or A)B*_`&;\\{}\n")),
    max_size=80,
)


@given(
    text=texts,
    gold=st.one_of(names, texts.filter(str.strip)),
    metric=st.sampled_from([*METRICS, "numeric"]),
)
@case("9" * 5000, "9" * 400, "numeric")
@case("3 cm per decade", "3 cm per decade", "numeric")
@case("(" * 500, "([{", "contains")
def test_no_text_raises_in_any_grader(text: str, gold: str, metric: str) -> None:
    value = graded(metric, gold, text)
    assert value is None or 0 <= value <= 1


@given(text=texts)
def test_no_text_raises_where_a_choice_is_wanted(text: str) -> None:
    asked = Example(
        query="Which?",
        domains=("d",),
        reference="Rome",
        metadata={"choices": ["Paris", "Rome", "A) B"]},
    )
    assert grade_texts("choice", [asked], [text])[0].value in (0, 1)


@pytest.mark.parametrize("piece", ["Lima, ", "not Lima ", "東京"])
def test_200_kilobytes_are_graded_in_a_few_seconds(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    began = time.process_time()
    for gold in ("Lima", "東京", "a b"):
        graded("stated_parts", gold, text)
    assert time.process_time() - began < 30  # a text that took quadratic time would take hours


# Words


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Élan", "elan", True),
        ("São Paulo", "sao paulo", True),
        ("Ёлка", "елка", True),
        ("סֵפֶר", "ספר", True),
        ("ﬁne", "fine", True),
        ("ＡＢＣ", "abc", True),
        ("が", "か", False),
        ("й", "и", False),
        ("ñ", "n", False),
        ("มา", "ม้า", False),
        ("की", "का", False),
    ],
)
def test_folding_keeps_letters_that_are_letters_of_their_own(
    one: str, other: str, same: bool
) -> None:
    assert (normalize(one) == normalize(other)) is same
    assert (normalize(unicodedata.normalize("NFD", one)) == normalize(other)) is same


@given(
    text=st.text(st.one_of(st.characters(), st.sampled_from("ab)^ \t\nßİ\u0591ёé")), max_size=30)
)
@case("x^2 \u0591 ^3 a\n\n^ b")
def test_a_text_is_folded_as_its_characters_are(text: str) -> None:
    pieces: list[str] = []
    places: list[int] = []
    last = " "
    for place, character in enumerate(text):
        if character.isspace():
            new = "" if last == " " else " "
        elif character == "^" and (last.isalpha() or last == ")"):
            new = ""
        else:
            new = fold_character(character)
        pieces.append(new)
        places += [place] * len(new)
        last = new[-1:] or last
    found = folded(Rendered(text, range(len(text) + 1)))
    assert (found.text, list(found.places)) == ("".join(pieces), [*places, len(text)])


PROSE = "The mill grinds 3 kg of corn per day. It is not red, said Anna of the Lima. "


@pytest.mark.parametrize("piece", [PROSE, "- a, b\n", "corn ", "x"], ids=repr)
def test_an_accepted_answer_of_a_megabyte_is_graded_in_seconds(piece: str) -> None:
    gold = piece * (1_000_000 // len(piece)) + "end"
    began = time.process_time()
    assert graded("stated_parts", gold, "It is corn, 3 kg.") == 0
    assert graded("stated_parts", gold, f"Well: {gold}") == 1
    assert time.process_time() - began < 20  # two to four; it was more than a minute


def test_a_long_accepted_answer_is_looked_for_as_a_short_one_is() -> None:
    for times in (1, 30, 3_000):
        gold = f"Run it with -a. {PROSE * times}end"
        assert graded("contains", gold, f"Well. **{gold}**, I think.") == 1
        assert graded("contains", gold, f"Well. {gold}ing.") == 0
        assert graded("contains", gold, f"Well. {gold.replace('-a', '-A')}.") == 0
        assert graded("contains", gold, f"Well. {gold[:-9]}.") == 0
        assert graded("contains", gold, f"It is not {gold}.") == 0


@given(text=st.text(max_size=60))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert identity(identity(text)) == identity(text)


@given(
    st.lists(
        st.sampled_from(["Élan", "isn't", "X-ray", "K2", "दिल्ली", "서울", "книга"]), max_size=6
    )
)
def test_words_are_those_that_spaces_set_apart(words: list[str]) -> None:
    assert words_of(" ".join(words)) == [fold(word) for word in words]


# (the text, what was so once, what is so now, what was asked)
OUTDATED = [
    ("It used to be {old}, but it is {new} now.", "What is the capital?"),
    ("Formerly {old}; today the capital is {new}.", "What is the capital?"),
    ("Previously, {old} was the capital. It is {new} today.", "What is the capital?"),
    ("{old} was once the capital, but now it is {new}.", "What is the capital?"),
    ("{old} is the former capital; {new} replaced it.", "What is the capital?"),
    ("{old} was replaced by {new}.", "What is the capital?"),
    ("The capital was {old} until 1990, when it moved to {new}.", "What is the capital?"),
    ("As of 2020 it was {old}; since 2021 it is {new}.", "What is the capital?"),
    ("Früher war es {old}, heute ist es {new}.", "Was ist die Hauptstadt?"),
    ("Antes era {old}, pero ahora es {new}.", "¿Cuál es la capital?"),
    ("Avant c'était {old}, maintenant c'est {new}.", "Quelle est la capitale ?"),
    ("以前是{old},现在是{new}。", "首都是哪里?"),
    ("Many people think it is {old}, but it is {new}.", "What is the capital?"),
    ("~~{old}~~ {new}", "What is the capital?"),
]


def _grade(text: str, answer: str, query: str) -> float | None:
    part = Part(domain="d", answers=(answer,))
    example = Example(query=query, domains=("d",), parts=(part,))
    return grade_texts("stated_parts", [example], [text])[0].value


@pytest.mark.parametrize(("form", "query"), OUTDATED)
@pytest.mark.parametrize(("old", "new"), [("Lima", "Quito"), ("Bonn", "Berlin")])
def test_what_was_so_once_is_wrong_and_what_is_so_now_is_right(
    form: str, query: str, old: str, new: str
) -> None:
    text = form.format(old=old, new=new)
    assert _grade(text, old, query) == 0
    assert _grade(text, new, query) == 1


@pytest.mark.parametrize(
    ("text", "answer", "query"),
    [
        ("Istanbul was formerly known as Constantinople; it is Istanbul now.", "Constantinople", "What is another name of Istanbul?"),
        ("It used to be Bonn, but it is Berlin now.", "Bonn", "What was the capital before 1990?"),
        ("Pluto is no longer considered a planet.", "Pluto", "Which body is no longer a planet?"),
        ("Lima, formerly the City of Kings, is the capital now.", "Lima", "What is the capital?"),
        ("It used to be Lima.", "Lima", "Which city was it?"),
    ],
)  # fmt: skip
def test_the_past_is_right_where_it_is_asked_for(text: str, answer: str, query: str) -> None:
    assert _grade(text, answer, query) == 1


@pytest.mark.parametrize(
    "text",
    ["I doubt it is blue.", "Far from blue, it is red.", "It is wrong to say that it is blue."],
)
def test_a_doubt_is_a_denial(text: str) -> None:
    assert not states(text, "blue")


DATES = [
    "{day} {month} {year}", "{day}th of {month}, {year}", "{month} {day}, {year}", "{month} the {day}th, {year}",
    "{day} {short}. {year}", "{year}-{number:02}-{day:02}", "{day}.{number:02}.{year}", "{number}/{day}/{year}",
]  # fmt: skip
MONTHS = [(1, "January"), (3, "March"), (7, "July"), (9, "September"), (12, "December")]


@given(
    day=st.integers(4, 20),
    month=st.sampled_from(MONTHS),
    year=st.integers(1000, 2099),
    gold=st.sampled_from(DATES[:4]),
    said=st.sampled_from(DATES),
    other=st.integers(1, 3),
)
def test_a_date_is_the_same_in_every_form_and_no_other_day(
    day: int, month: tuple[int, str], year: int, gold: str, said: str, other: int
) -> None:
    number, name = month
    values = {"month": name, "short": name[:3], "number": number, "year": year}
    answer = gold.format(day=day, **values)
    assert states(f"It was on {said.format(day=day, **values)}.", answer)
    assert not states(f"It was on {said.format(day=day + other, **values)}.", answer)
    assert not states(f"It was on {said.format(day=day, **{**values, 'year': year + 1})}.", answer)


@pytest.mark.parametrize(
    ("one", "other", "wrong"),
    [
        ("World War II", "World War 2", "World War I"),
        ("World War 2", "World War Two", "World War 3"),
        ("Henry VIII", "Henry the Eighth", "Henry VII"),
        ("first", "1st", "2nd"),
        ("Mount Everest", "Mt. Everest", "Mt. Elbert"),
        ("St. Petersburg", "Saint Petersburg", "Petersburg"),
        ("44 BC", "44 BCE", "44 AD"),
        ("AD 79", "79 CE", "79 BC"),
        ("$5 million", "5 million dollars", "5 million euros"),
        ("120 km/h", "120 kmph", "120 mph"),
        ("three", "3", "4"),
        ("1,000", "1000", "100"),
    ],
)
def test_two_ways_of_writing_one_thing_are_one(one: str, other: str, wrong: str) -> None:
    for said, answer in ((one, other), (other, one)):
        assert states(f"It is {said}.", answer)
    assert not states(f"It is {wrong}.", one)
