"""No text raises, anywhere: sentences of numbers, units and words that almost make sense, in several
languages and scripts, through all that reads what a model wrote.

`FAULTS_TEXTS=3000` tries so many texts for each.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainfusion.distillation.duplicates import Duplicates, EvaluationSets
from domainfusion.distillation.evaluator import consistency
from domainfusion.distillation.integration import ResponseIntegrator, contradict
from domainfusion.distillation.metrics import sentences, states
from domainfusion.distillation.metrics.grading import metric_named
from domainfusion.distillation.text.digits import _FOREIGN_VALUES, SCALES
from domainfusion.distillation.text.quantities import read_quantities
from domainfusion.distillation.text.refusals import is_refusal, without_chatter
from domainfusion.distillation.text.sentences import blocks_of
from domainfusion.distillation.text.structures import structures_in
from domainfusion.types import Example, Part

_UNITS = """
    % ‰ percent per mille cm mm³ km/h m/s² m^2 kg·m^-3 μg/dL °C °F K per decade pro Jahr par an al año
    в год 年 パーセント ″ ' dB/dB pH eV/c^2 L·mol⁻¹·s⁻¹ ppm ly M☉ h min Uhr o'clock a.m. BCE v. Chr. € $ ₹
    USD EUR/kg million mıllion Mrd. тысяч 万 億 lakh dozen score -fold ×10 times x10^ square cubic
"""
UNITS = _UNITS.split()
NUMBERS = [
    *("1e999", "1E-999", "9" * 400, f"0.{'0' * 400}1", "1" + "0" * 309, "1,2,3,4,,", "1.2.3.4"),
    *("1/0", "0/0", f"1/{'9' * 320}", "½", "⅒", "⁵⁄₀", "²", "10²³⁴⁵", "10^10^10", "2^99999999999"),
    *("10⁻⁹⁹⁹⁹⁹⁹", "3×10^400", "3·10**999", "0x1F", "१२३", "١٢٣٫٤"),
    *("１２３", "二十三", "百万億兆京"),
    *("MMXXIV", "ↁ", "12:99:99", "24:60", "1999-02-30", "0000-00-00", "29 February 1900", "22nd"),
    *("one hundred " * 30, "миллион " * 50, "nan", "∞", "1'000'000.00", "5..7", "3 to", "3–8–"),
    *("+-3", "3 ± ± 4", "4 of 0", "a third of", "⅔rds", "①", "㉈", "㎢", "㏕", "ℓ"),
]
_WORDS = """
    The declines is not never about at least temperature Der sinkt um etwa Le baisse de environ La tasa
    Значение на 温度 は 下降 约 그것은 النسبة حوالي दर है or oder et and neither nor but if when Paris before
    instead of rather than wrong correct between to – ± ~ ≈ < ≥ per and of
"""
WORDS = _WORDS.split()
GLUE = [
    *" \n\t.;()[]{}*`$|\\!?…—-'\"„»\u200b\u00a0\u202f\ufeff\u202e\u0301\x00\x85\u2028",
    *("", "  ", "\n\n", "\r\n", ". ", ", ", ": ", "**", "```", "$$", "\n|---|\n", "\n# ", "\n- "),
    *("\n1. ", "\n> ", "\x1b[2J", "\\frac{", "^{", "_{"),
]
word = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from([*SCALES, *_FOREIGN_VALUES]),
    st.sampled_from(UNITS),
    st.sampled_from(WORDS),
    st.text("0123456789.,-/^:e", min_size=1, max_size=12),
    # Digits and numerals of all scripts, then anything.
    st.text(st.characters(categories=("Nd", "Nl", "No")), min_size=1, max_size=6),
    st.text(max_size=6),
)
pieces = st.lists(st.tuples(word, st.sampled_from(GLUE)), max_size=20)
texts = pieces.map(lambda found: "".join(each for pair in found for each in pair))


def example_of(query: str, answer: str, other: str) -> Example:
    return Example(
        query=query or "Why?",
        domains=("a", "b"),
        parts=(Part(domain="a", answers=(answer,)), Part(domain="b", answers=(other, answer))),
        reference=other,
        metadata={"choices": [f"the {answer} one", f"not {answer}", other]},
    )


def graded_by(name: str) -> Callable[[str, str, str], Any]:
    metric: Any = metric_named(name)

    def grade(text: str, answer: str, query: str) -> None:
        score = metric(example_of(query, answer, "4 km"), text)
        assert score.value is None or 0 <= score.value <= 1

    return grade


def integrated(text: str, other: str, query: str) -> None:
    if not text.strip() and not other.strip():
        return  # there is nothing to integrate, which is refused
    answer = ResponseIntegrator().integrate(query, {"a": text, "b": other})
    for part in answer.ledger.contributions:
        assert answer.text[part.start : part.end] == part.text


def coherent(text: str, other: str, query: str) -> None:
    found = consistency(f"{text} {other}").value
    assert found is None or 0 <= found <= 1


def found_among(text: str, other: str, query: str) -> None:
    seen, one, two = Duplicates(), example_of(text, "x", "y"), example_of(other, "x", "y")
    for each in (one, two):
        seen.find(each)
        seen.add(each)
    EvaluationSets({"test": [one]}).find(two)


def quantities(text: str, other: str, query: str) -> None:
    for found in read_quantities(text):
        assert not math.isnan(found.first) and found.start < found.end


READERS: dict[str, Callable[[str, str, str], Any]] = {
    "quantities": quantities,
    "statements": lambda text, other, query: states(text, other),
    "refusals": lambda text, other, query: (is_refusal(text, query), without_chatter(text, query)),
    "sentences": lambda text, other, query: (sentences(text), blocks_of(text)),
    "structures": lambda text, other, query: list(structures_in(text)),
    "contradictions": lambda text, other, query: contradict(text, other),
    "integration": integrated,
    "coherence": coherent,
    "duplicates": found_among,
    **{
        f"grading by {name}": graded_by(name)
        for name in (
            *("stated_parts", "exact", "contains", "numeric", "choice", "token_f1", "rouge_l"),
        )
    },
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@settings(
    max_examples=int(os.environ.get("FAULTS_TEXTS", "40")),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(text=texts, other=texts, query=texts)
def test_no_text_raises(
    reader: Callable[[str, str, str], Any], text: str, other: str, query: str
) -> None:
    reader(text, other, query)
