"""The merge: blocks go through to the byte, nothing is torn apart, and the order of the responses
decides nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import parts_of
from domainfusion.distillation.integration import ResponseIntegrator, Task
from domainfusion.distillation.integration.reading import CUT, without_cut
from domainfusion.distillation.text.sentences import blocks_of
from domainfusion.models import ScriptedModel
from domainfusion.types import Example, Integration, Response

QUERY = "How hot is tin when it melts, and what is it used for?"
BLOCKS = (
    "```python\nif a:\n    return None\nif b:\n    return None\n```",
    "1. Heat the tin.\n   - slowly\n\n   Wait.\n2. Pour it.",
    "  1. Articles\n  2. Shareholders\n     - with classes",
    "| metal | melts at |\n|---|---|\n| tin | 232 °C |\n| lead | 327 °C |",
    "> Assume breach.\n> Always.",
    "$$\na = b\n\n- c\n$$",
    "<div>\n  <b>x</b>\n</div>",
    "# Tin",
    "## Steps",
    "**Note**",
    "    indented code",
)
PARAGRAPHS = (
    "Tin melts at 232 °C. It is soft.",
    "Tin melts at 300 °C.",
    "Tin does not rust. It is used for cans. They last.",
    "Heat it slowly:",
    "Solder is an alloy of tin.",
    "Tin melts at 232 °C.",
    "I am not sure about that.",
    "锡在232°C熔化。它很软。",
    "Zinn schmilzt nicht bei 100 °C.  \nEs ist weich.",
)
responses = st.dictionaries(
    st.sampled_from(["chemistry", "history", "trade"]),
    st.lists(st.sampled_from([*BLOCKS, *PARAGRAPHS]), max_size=5).map("\n\n".join),
    min_size=1,
).filter(lambda texts: any(texts.values()))
any_text = st.text(max_size=120) | st.text(
    alphabet=st.sampled_from("aA1.:!?。 \n\t-*#>|`$'\0\u2028\ud7ff5°C"), max_size=120
)


def integrate(texts: Mapping[str, str], query: str = QUERY) -> Integration:
    return ResponseIntegrator().integrate(query, texts)


@given(
    text=any_text.filter(str.strip), others=st.lists(st.sampled_from(["", " ", "\n"]), max_size=2)
)
def test_one_answer_is_taken_to_the_byte_beside_empty_ones_and_with_a_model(
    text: str, others: list[str]
) -> None:
    texts = {"a": text, **{f"empty {place}": other for place, other in enumerate(others)}}
    for integrator in (ResponseIntegrator(), ResponseIntegrator(ScriptedModel("Something else."))):
        assert integrator.integrate(QUERY, texts).text == text


@given(texts=responses)
def test_a_block_that_is_not_a_paragraph_is_in_the_answer_to_the_byte(
    texts: dict[str, str],
) -> None:
    answer = integrate(texts).text
    for text in texts.values():
        for block in blocks_of(text):
            assert block.is_prose or block.kind == "heading" or block.text in answer


@given(texts=responses)
def test_every_sentence_and_block_is_in_the_answer_or_accounted_for(texts: dict[str, str]) -> None:
    answer = integrate(texts)
    for domain, text in texts.items():
        told = [part.text for part in parts_of(answer.ledger) if part.domain == domain]
        kinds = [block.kind for block in blocks_of(text)]
        if "heading" not in kinds:  # one whose whole section is left out goes with it
            assert len("".join("".join(told).split())) >= len("".join(text.split()))
    for part in answer.ledger.contributions:
        assert answer.text[part.start : part.end] == part.text
        assert part.text in texts[part.domain]


@given(texts=responses)
def test_nothing_is_torn_out_of_one_experts_answer(texts: dict[str, str]) -> None:
    for domain, text in texts.items():
        if text:
            assert integrate({domain: text}).text == text


@given(texts=responses)
def test_the_order_of_the_responses_decides_nothing(texts: dict[str, str]) -> None:
    one, other = integrate(texts), integrate(dict(reversed(texts.items())))
    said = [
        Counter((part.domain, part.text) for part in answer.ledger.contributions)
        for answer in (one, other)
    ]
    decided = [
        sorted(
            (sorted(each.claims.items()), str(each.kept), each.rule)
            for each in answer.ledger.conflicts
        )
        for answer in (one, other)
    ]
    assert said[0] == said[1] and decided[0] == decided[1]


@given(
    texts=st.dictionaries(st.sampled_from(["a", "b", "c"]), any_text, min_size=1).filter(
        lambda texts: "".join(texts.values()).strip()
    )
)
def test_no_text_is_too_odd(texts: dict[str, str]) -> None:
    answer = integrate(texts, query=next(iter(texts.values())) or "?")
    assert all(
        answer.text[part.start : part.end] == part.text for part in answer.ledger.contributions
    )


def test_what_leans_on_a_repeated_sentence_keeps_it() -> None:
    texts = {"a": "Tin melts at 232 °C.", "b": "Tin melts at 232 °C. It is soft."}
    assert integrate(texts).text == "Tin melts at 232 °C. It is soft."


def test_what_leans_on_a_sentence_that_lost_goes_with_it() -> None:
    texts = {
        "chemistry": "Tin melts at 232 °C.",
        "trade": "Tin melts at 300 °C. It is then poured. Cans are made of steel.",
    }
    answer = ResponseIntegrator().integrate(
        "How hot is tin when it melts?", texts, reference="232 °C"
    )
    assert answer.text == "Tin melts at 232 °C. Cans are made of steel."
    assert [part.reason for part in answer.ledger.dropped if part.domain == "trade"] == [
        "contradicts chemistry: the reference supports it",
        "goes with the sentence before it",
    ]


def test_what_leans_on_one_side_of_an_open_conflict_is_told_with_it() -> None:
    texts = {
        "chemistry": "Tin melts at 232 °C. It flows then.",
        "trade": "Tin melts at 300 °C. It is soft. Cans are steel.",
    }
    assert (
        integrate(texts, "How hot is tin when it melts?").text
        == "The experts disagree. According to chemistry: Tin melts at 232 °C. It flows then. "
        "According to trade: Tin melts at 300 °C. It is soft. Cans are steel."
    )


def test_a_list_keeps_the_item_that_lost_and_the_answer_says_so() -> None:
    listed = "Facts:\n- Tin melts at 300 °C.\n- Cans are steel."
    answer = ResponseIntegrator().integrate(
        "How hot is tin when it melts?",
        {"trade": listed, "chemistry": "Tin melts at 232 °C."},
        reference="232 °C",
    )
    assert answer.ledger.conflicts[0].kept == "chemistry"
    assert listed in answer.text
    assert (
        "The experts disagree. According to chemistry: Tin melts at 232 °C. According to trade: Tin"
        " melts at 300 °C." in answer.text
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("# A\n\nTin is soft.", "Lead is heavy.", "# A\n\nTin is soft.\n\n---\n\nLead is heavy."),
        (
            "# A\n\nTin is soft.",
            "# B\n\nLead is heavy.",
            "# A\n\nTin is soft.\n\n# B\n\nLead is heavy.",
        ),
        (
            "# A\n\nTin is soft.",
            "## B\n\nLead is heavy.",
            "# A\n\nTin is soft.\n\n---\n\n## B\n\nLead is heavy.",
        ),
        ("- tin", "- lead", "- tin\n\n---\n\n- lead"),
        ("```\ntin", "Lead is heavy.", "```\ntin\n```\n\nLead is heavy."),
        (
            "Tin is soft.\n\nZinc is not.",
            "Lead is heavy.",
            "Tin is soft.\n\nZinc is not.\n\nLead is heavy.",
        ),
        ("Tin is soft.", "Lead is heavy.", "Tin is soft. Lead is heavy."),
        ("锡很软。", "铅很重。", "锡很软。铅很重。"),
    ],
)
def test_experts_stay_apart_where_markdown_would_join_them(
    first: str, second: str, expected: str
) -> None:
    assert integrate({"a": first, "b": second}).text == expected


def test_a_heading_keeps_its_section_and_does_not_stay_without_it() -> None:
    repeated = {
        "a": "Tin is a soft metal.",
        "b": "## Tin\n\nTin is a soft metal.\n\n## Lead\n\nLead is heavy.",
    }
    assert "## Tin\n\nTin is a soft metal.\n\n## Lead" in integrate(repeated).text
    lost = {
        "a": "Tin melts at 232 °C.",
        "b": "## Tin\n\nTin melts at 300 °C.\n\n## Lead\n\nLead is heavy.",
    }
    answer = (
        ResponseIntegrator()
        .integrate("How hot is tin when it melts?", lost, reference="232 °C")
        .text
    )
    assert answer == "Tin melts at 232 °C.\n\n## Lead\n\nLead is heavy."


# Cut answers


def cut_task(**said: tuple[str, bool]) -> Task:
    """Returns a task of answers, each with whether the token limit cut it."""
    given_responses = {
        domain: Response(domain=domain, text=text, finish_reason="length" if is_cut else "stop")
        for domain, (text, is_cut) in said.items()
    }
    return Task(Example(query=QUERY, domains=tuple(said)), given_responses)


def test_a_cut_answer_is_left_out_where_another_one_is_whole() -> None:
    task, dropped = without_cut(
        cut_task(a=("Tin melts at 232 °C. It is us", True), b=("Lead is heavy.", False))
    )
    assert {domain: response.text for domain, response in task.responses.items()} == {
        "b": "Lead is heavy."
    }
    assert [(part.domain, part.text, part.reason) for part in dropped] == [
        ("a", "Tin melts at 232 °C. It is us", CUT)
    ]


def test_where_all_are_cut_each_ends_with_its_last_whole_sentence() -> None:
    task, dropped = without_cut(
        cut_task(
            a=("Tin is soft. It is us", True), b=("Lead:\n\n```\nx = ", True), c=("Zinc", True)
        )
    )
    assert {domain: response.text for domain, response in task.responses.items()} == {
        "a": "Tin is soft.",
        "b": "Lead:",
    }
    assert [(part.domain, part.text) for part in dropped] == [
        ("a", "It is us"),
        ("b", "```\nx ="),
        ("c", "Zinc"),
    ]


def test_a_cut_answer_by_itself_stays_as_it_is() -> None:
    alone, beside_an_empty_one = (
        cut_task(a=("Tin is us", True)),
        cut_task(a=("Tin is us", True), b=("", False)),
    )
    without_a_whole_sentence = cut_task(a=("Tin", True), b=("Le", True))
    for task in (alone, beside_an_empty_one, without_a_whole_sentence):
        assert without_cut(task) == (task, ())


# Length


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"- Tin melts at {degrees} °C." for degrees in range(7000)),
        "\n\n".join(f"Tin melts at {degrees} °C. It is not soft." for degrees in range(4500)),
        "Tin does not rust and raises the price. " * 5000,
        "# a\n\n" * 40_000,
        "它不会生锈。" * 33_000,
        "```\n" + "x = 1\n" * 33_000 + "```",
    ],
    ids=["list", "paragraphs", "one paragraph", "headings", "chinese", "code"],
)
def test_a_response_of_two_hundred_thousand_characters_is_merged_in_bounded_time(text: str) -> None:
    started = time.process_time()
    answer = integrate({"a": text, "b": "Tin melts at 232 °C. It rusts."})
    assert time.process_time() - started < 10  # two, and room for coverage and a busy machine
    assert "Tin melts at 232 °C." in answer.text


def test_two_experts_with_the_same_answer_are_both_moved_where_they_are_contradicted() -> None:
    said = "```python\nreturn\n```\n\nTin melts at 300 °C.\n\nTin melts at 300 °C."
    texts = {"chemistry": said, "history": said, "trade": "Tin melts at 232 °C."}
    for given_texts in (texts, dict(reversed(texts.items()))):
        assert integrate(given_texts).text.count("Tin melts at 300 °C.") == 2
