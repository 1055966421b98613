"""Extension point 4: metrics of your own, here an accuracy for numbers and a coherence for texts
that hang together.
"""

from __future__ import annotations

import re
from itertools import pairwise

from domainfusion.distillation import DomainRetentionEvaluator, ExampleLike
from domainfusion.distillation.metrics import sentences
from domainfusion.models import ScriptedModel
from domainfusion.types import Example, Score

TEST: list[ExampleLike] = [
    {"query": "At how many °C does gold melt?", "domain": "chemistry", "reference": "1064"},
    {"query": "At how many °C does iron melt?", "domain": "chemistry", "reference": "1538"},
    {"query": "How high is Mount Kenya, in meters?", "domain": "geography", "reference": "5199"},
    {
        "query": "How high is Mont Blanc, and where does water boil there?",
        "domains": ["geography", "chemistry"],
        "reference": "4806",
    },
]
KNOWLEDGE = {
    "At how many °C does gold melt?": "Gold melts at 1060 °C.",
    "At how many °C does iron melt?": "I do not know.",
    "How high is Mount Kenya, in meters?": "It is 5,199 m high.",
    "How high is Mont Blanc, and where does water boil there?": (
        "Mont Blanc is 4806 m high. So high up, water boils at 84 °C."
    ),
}
MORE = {"At how many °C does iron melt?": "Iron melts at 1538 °C."}


def within_one_percent(example: Example, text: str) -> Score:
    """Accuracy: full marks where any number of the answer is within 1 % of the reference, none
    where none is.
    """
    if example.reference is None:
        return Score.unscored("there is no reference")
    wanted = float(example.reference)
    stated = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]
    return Score(float(any(abs(number - wanted) <= 0.01 * wanted for number in stated)))


def linked_sentences(text: str) -> Score:
    """Coherence: the share of sentences that take up a word, of four letters or more, of the one
    before.
    """
    words = [set(re.findall(r"\w{4,}", sentence.lower())) for sentence in sentences(text)]
    if len(words) < 2:
        return Score.unscored("one sentence hangs together by itself")
    return Score(sum(bool(before & after) for before, after in pairwise(words)) / (len(words) - 1))


def main() -> None:
    experts = {
        domain: ScriptedModel(KNOWLEDGE | MORE, name=domain)
        for domain in ("chemistry", "geography")
    }
    evaluator = DomainRetentionEvaluator(
        metric=within_one_percent, coherence_metric=linked_sentences, resamples=1_000
    )
    print(evaluator.evaluate(ScriptedModel(KNOWLEDGE), experts, TEST))


if __name__ == "__main__":
    main()
