"""Conflicts: the same thing asked, different values; laws of comparing values, and answers of any
length in bounded time.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import parts_of
from domainfusion.distillation.integration import ResponseIntegrator
from domainfusion.distillation.integration.claims import questions_of
from domainfusion.distillation.integration.planning import copies_among
from domainfusion.distillation.integration.words import Value, compare, find_values

METRES_PER = {"km": 1000, "m": 1, "cm": 0.01, "ft": 0.3048, "miles": 1609.344}


def value_in(text: str) -> Value:
    """Returns the one value of a text."""
    (found,) = find_values(text)
    return found.value


# Values


@given(
    number=st.integers(11, 9999),
    unit=st.sampled_from(sorted(METRES_PER)),
    other=st.sampled_from(sorted(METRES_PER)),
)
def test_a_length_is_itself_in_every_unit_and_never_half_of_itself(
    number: int, unit: str, other: str
) -> None:
    converted = number * METRES_PER[unit] / METRES_PER[other]
    length, same, half = (
        value_in(text)
        for text in (f"{number} {unit}", f"{converted:.6f} {other}", f"{converted / 2:.6f} {other}")
    )
    assert compare(length, same) == compare(same, length) == "same"
    assert compare(length, half) == compare(half, length) == "different"


@given(st.dates(dt.date(1000, 1, 1), dt.date(2999, 12, 31)))
def test_a_date_is_itself_in_every_format_and_as_far_as_it_is_said(date: dt.date) -> None:
    dates = [
        value_in(date.strftime(form))
        for form in (
            "%-d %B %Y",
            "%B %-d, %Y",
            "%Y-%m-%d",
            "%-d %b %Y",
            "%-d.%-m.%Y",
            "%B %Y",
            "in %Y",
        )
    ]
    assert all(compare(one, other) == "same" for one in dates for other in dates)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("1538 °C", "2800 °F", "same"),
        ("1,235 kelvin", "962 degrees Celsius", "same"),
        ("about 280 days", "283 days", "same"),
        ("roughly 100 km/h", "104 kilometres per hour", "same"),
        ("100 km/h", "72.8 km/h", "different"),
        ("36.1 to 37.2 °C", "36.8 °C", "same"),
        ("36.1 to 37.2 °C", "39 °C", "different"),
        ("at least four", "95", "same"),
        ("at least four", "3", "different"),
        ("less than 5 kg", "7 kg", "different"),
        ("3.2 million", "3,214,000", "same"),
        ("+380", "+381", "different"),
        ("+380", "+375", "different"),
        ("twenty-one weeks", "147 days", "same"),
        ("5 km", "5 kg", "unrelated"),
        ("6 June 1944", "7 June 1944", "different"),
        ("6 June 1944", "6 June", "same"),
        ("44 BC", "in 1944", "different"),
        ("5 km", "6 June 1944", "unrelated"),
        ("in São Paulo", "in Sao Paulo", "same"),
        ("the USA", "the United States of America", "same"),
        ("in Czechia", "the Czech Republic", "same"),
        ("in Niger", "in Nigeria", "different"),
        ("in North Korea", "in South Korea", "different"),
        ("the Republic of Korea", "in South Korea", "same"),
        ("by Tolstoy", "by Leo Tolstoy", "same"),
        ("in Mexico City", "in Kuwait City", "different"),
    ],
)
def test_values_are_compared_by_what_they_mean(first: str, second: str, expected: str) -> None:
    assert compare(value_in(first), value_in(second)) == expected
    assert compare(value_in(second), value_in(first)) == expected


@given(st.text(max_size=60))
def test_values_stand_where_they_are_said_to_and_do_not_overlap(text: str) -> None:
    found = find_values(text)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))


# Questions


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("How high is K2?", ["quantity"]),
        ("What is the melting point of tin?", ["quantity"]),
        ("When was it, and where was it?", ["date", "name"]),
        ("Is gold magnetic, and does it conduct?", ["yes or no", "yes or no"]),
        ("How can sprinters recover?", ["open"]),
        ("Who wrote War and Peace?", ["name"]),
        ("Name the capital of Peru.", ["any"]),
        ("?", []),
    ],
)
def test_a_query_is_taken_apart_into_what_it_asks(query: str, kinds: list[str]) -> None:
    assert [question.kind for question in questions_of(query)] == kinds


# Conflicts


def conflicts(query: str, first: str, second: str) -> int:
    """Returns how many conflicts there are between two experts, whoever speaks first."""
    found = {
        len(ResponseIntegrator().integrate(query, texts).ledger.conflicts)
        for texts in (
            {"a": first, "b": second},
            {"b": second, "a": first},
            {"a": f"Of course. {first}", "b": f"{second} Ask me more."},
        )
    }
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(
    ("query", "first", "second", "expected"),
    [
        (
            "How fast is a lion?",
            "A lion runs at 80 km/h.",
            "The top speed of a lion is 49.7 mph.",
            0,
        ),
        ("How fast is a lion?", "A lion runs at 80 km/h.", "The top speed of a lion is 60 mph.", 1),
        ("How fast is a lion?", "A lion runs at 80 km/h.", "It is 60 km/h.", 1),
        ("How fast is a lion?", "A lion runs at 80 km/h.", "A lion sleeps 20 hours a day.", 0),
        ("How fast is a lion and a cat?", "A lion runs at 80 km/h.", "A cat runs at 48 km/h.", 0),
        ("Where is NRT, and what is Au?", "It is Japan.", "It is gold.", 0),
        ("Where is NRT?", "It is in Japan.", "NRT is an airport in China.", 1),
        (
            "What is the capital of the country where NRT is?",
            "NRT is in Japan.",
            "Its capital is Tokyo.",
            0,
        ),
        (
            "What is the capital of the country where NRT is?",
            "NRT is in Japan, whose capital is Kyoto.",
            "Its capital is Tokyo.",
            1,
        ),
        ("Who wrote Emma?", "Jane Austen wrote Emma.", "Emma was written by Bram Stoker.", 1),
        (
            "Who wrote Emma?",
            "Jane Austen wrote Emma.",
            "Emma was filmed in London. Jane Austen wrote it.",
            0,
        ),
        (
            "What is the currency of Japan?",
            "The currency of Japan is the yen.",
            "The currency of Japan is the won.",
            1,
        ),
        (
            "Which languages are spoken in Peru?",
            "Spanish is spoken in Peru.",
            "Quechua is spoken in Peru.",
            0,
        ),
        (
            "What can I see in Rome?",
            "In Rome you can see the Pantheon.",
            "In Rome you can see the Colosseum.",
            0,
        ),
        ("When was the landing?", "The landing was on 20 July 1969.", "It was in 1969.", 0),
        ("When was the landing?", "The landing was on 20 July 1969.", "It was in 1972.", 1),
        ("Does gold rust?", "Gold never rusts.", "Yes, it does.", 1),
        ("Does gold rust?", "Gold never rusts.", "No.", 0),
        ("Is honey safe?", "Honey is unsafe.", "Honey is safe.", 1),
        ("Is it allowed?", "Smoking is forbidden.", "Smoking is not allowed.", 0),
        (
            "How long is the Danube?",
            "It flows 2,850 km from the Black Forest to the sea.",
            "The Danube has a length of 1,900 km.",
            1,
        ),
        (
            "How far is the Moon?",
            "The Moon is 384,400 km away.",
            "The distance is 150 million km.",
            1,
        ),
        (
            "What is the capital of Australia?",
            "Sydney is Australia's capital.",
            "It is Canberra.",
            1,
        ),
        ("Can penguins fly?", "Penguins cannot fly.", "Penguins are unable to fly.", 0),
        ("Can penguins fly?", "Penguins cannot fly.", "Penguins are able to fly.", 1),
        (
            "How long is the Nile?",
            "The Nile is 6,650 km long.",
            "The Blue Nile is 1,450 km long.",
            0,
        ),
        (
            "When does water boil?",
            "At sea level, water boils at 100 °C.",
            "On high mountains, water boils at 71 °C.",
            0,
        ),
        ("How hot is it?", "I am not sure, but I think it is 30 °C.", "It is 40 °C.", 0),
        ("How hot is it?", "I do not know that.", "It is 40 °C.", 0),
    ],
)
def test_a_conflict_is_one_question_and_two_values(
    query: str, first: str, second: str, expected: int
) -> None:
    assert conflicts(query, first, second) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # directions
        ("Salt raises blood pressure.", "Salt lowers blood pressure.", 1),
        ("Salt raises blood pressure.", "Salt pushes up blood pressure.", 0),
        ("When rates rise, bond prices fall.", "Rising rates push up bond prices.", 1),
        ("When rates rise, bond prices fall.", "As rates rise, prices of bonds drop.", 0),
        ("An index slows down inserts.", "An extra index speeds up inserts.", 1),
        ("Give the drug before the incision.", "Give the drug after the incision.", 1),
        ("Give the drug before the incision.", "Give the drug after the lunch.", 0),
        ("Raw milk is safe in pregnancy.", "Raw milk is dangerous in pregnancy.", 1),
        # negations, also of other languages, and what only looks like one
        ("Hunde dürfen keine Schokolade essen.", "Hunde dürfen Schokolade essen.", 1),
        ("Es seguro tomar café a diario.", "No es seguro tomar café a diario.", 1),
        ("Le thé ne fait pas grossir les chats.", "Le thé fait grossir les chats.", 1),
        ("孕妇可以吃生鱼片。", "孕妇不可以吃生鱼片。", 1),
        (
            "Propranolol can be given to asthma patients without concern.",
            "Propranolol should not be given to patients with asthma.",
            1,
        ),
        ("A salt makes rainbow tables useless.", "With a salt, rainbow tables do not work.", 0),
        # values with other words, units and languages around them
        (
            "Hold each static stretch for 30 seconds.",
            "A static stretch has to be held for two minutes.",
            1,
        ),
        (
            "Un velocista debe descansar 8 minutos entre series.",
            "Un velocista debe descansar 1 minuto entre series.",
            1,
        ),
        ("健康成年人每天最多可服用4克。", "健康成年人每天最多可服用2克。", 1),
        ("The law has been in force since 25 May 2018.", "The law came into force in May 2016.", 1),
        # hedges and scopes
        ("Vitamin D may improve strength.", "Vitamin D does not improve strength.", 0),
        ("Fasting is likely to harm hard sessions.", "Fasting does not harm hard sessions.", 0),
        (
            "In adults, the dose of the drug is 500 mg.",
            "In children, the dose of the drug is 250 mg.",
            0,
        ),
        ("The drug must not be taken after week 20.", "The drug can be taken before week 20.", 0),
        (
            "Office workers should drink 2 litres of water.",
            "Cyclists should drink 4 litres of water.",
            0,
        ),
        ("The Nile is 6,650 km long.", "The Blue Nile is 1,450 km long.", 0),
    ],
)
def test_opposed_sentences_about_the_same_thing_are_a_conflict_whatever_was_asked(
    first: str, second: str, expected: int
) -> None:
    for texts in ({"a": first, "b": second}, {"b": second, "a": first}):
        assert (
            len(ResponseIntegrator().integrate("What should one know?", texts).ledger.conflicts)
            == expected
        )


def test_what_leans_on_an_earlier_sentence_does_not_answer_the_question() -> None:
    texts = {
        "law": "Retail staff must not work on Sundays.",
        "web": "Copy the array before you change it. It works in all browsers.",
    }
    assert (
        ResponseIntegrator().integrate("May employees work on Sundays?", texts).ledger.conflicts
        == ()
    )


def test_an_answer_of_one_word_is_a_name() -> None:
    texts = {"a": "Sydney is the capital of Australia.", "b": "Canberra."}
    assert (
        len(
            ResponseIntegrator()
            .integrate("What is the capital of Australia?", texts)
            .ledger.conflicts
        )
        == 1
    )


def test_the_sentences_that_repeat_a_value_that_lost_go_with_it() -> None:
    texts = {"a": "Tin melts at 232 °C.", "b": "Tin melts at 300 °C. So heat it to 300 °C."}
    assert (
        ResponseIntegrator()
        .integrate("At what temperature does tin melt?", texts, primary_domain="a")
        .text
        == texts["a"]
    )


def test_the_reference_settles_in_another_unit() -> None:
    texts = {"a": "Denali is 5260 m high.", "b": "Denali is 6190 m high."}
    answer = ResponseIntegrator().integrate(
        "How high is Denali?", texts, reference="Denali is 20310 ft high."
    )
    assert answer.text == texts["b"]


# Copies


def test_a_copy_is_found_in_spite_of_changed_words_and_short_answers_are_not_copies() -> None:
    text = (
        "The gestation of a sheep lasts 221 days. Breeds differ a little from each other, as"
        " farmers know."
    )
    assert copies_among(
        {
            "a": text,
            "b": text.replace("a little", "a bit"),
            "c": "A sheep is pregnant for 147 days.",
        }
    ) == (("a", "b"),)
    assert copies_among({"a": "It is Paris.", "b": "It is Paris."}) == ()


# Length


def babble(seed: int, length: int = 100_000) -> str:
    """Returns sentences full of names, numbers and negations."""
    words = [
        "gold",
        "silver",
        "melts",
        "at",
        "the",
        "of",
        "Paris",
        "Berlin",
        "is",
        "not",
        "5",
        "km",
        "1064",
        "°C",
        "in",
        "1905",
        "was",
    ]
    draw = random.Random(seed)
    sentences = (
        " ".join(draw.choice(words) for _ in range(12)).capitalize() + "." for _ in range(length)
    )
    text = ""
    while len(text) < length:
        text += f" {next(sentences)}"
    return text[:length]


@pytest.mark.parametrize(
    "text",
    [
        babble(1),
        " ".join(f"Gold melts at {degrees} °C." for degrees in range(4500)),
        "A. B. " * 16_000,
        "gold melts at 5 km " * 5_000,
        "9," * 50_000,
        "Is it.\n" * 14_000,
    ],
    ids=["babble", "one frame", "initials", "one sentence", "digits", "lines"],
)
def test_an_answer_of_a_hundred_thousand_characters_is_integrated_in_bounded_time_and_nothing_is_lost(
    text: str,
) -> None:
    started = time.process_time()
    answer = ResponseIntegrator().integrate(
        "At what temperature does gold melt?", {"a": text, "b": "Gold melts at 2 °C."}
    )
    assert time.process_time() - started < 10  # two, and room for coverage and a busy machine
    said = "".join(part.text for part in parts_of(answer.ledger))
    assert len("".join(said.split())) >= len("".join(text.split()))
    assert answer.text


OPPOSITES = [
    ("Blueberries need {} soil.", "acidic", "alkaline"),
    ("Under this law the oral contract is {}.", "valid", "void"),
    ("The reaction in the battery is {}.", "reversible", "irreversible"),
    ("Butter {} lactose.", "contains traces of", "is free of"),
    ("The bolt of the left pedal turns {}.", "clockwise", "counterclockwise"),
    ("Batterien dürfen {} den Hausmüll.", "in", "nicht in"),
    ("Helmets are {} for cyclists in this country.", "mandatory", "optional"),
]


@pytest.mark.parametrize(("form", "one", "other"), OPPOSITES)
def test_opposites_are_a_conflict_in_either_order_and_one_word_is_none(
    form: str, one: str, other: str
) -> None:
    query = "What do we have to know about it?"
    said = {"a": form.format(one), "b": f"{form.format(other)} Ask the office for more."}
    for responses in (said, dict(reversed(said.items()))):
        found = ResponseIntegrator().integrate(query, responses)
        assert len(found.ledger.conflicts) == 1
        assert "Ask the office" in found.text
    agreeing = {"a": form.format(one), "b": f"{form.format(one)} Ask the office for more."}
    assert not ResponseIntegrator().integrate(query, agreeing).ledger.conflicts
