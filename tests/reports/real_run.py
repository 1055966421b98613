"""A real run in seconds: scripted experts in three domains, a tiny Llama that learns from them, and
all that a run can hold.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from domainfusion.distillation import (
    AdversarialDataGenerator,
    CuratedDataGenerator,
    DataSettings,
    Distiller,
    DomainRetentionEvaluator,
    IntegrationTrainer,
    RunSettings,
    SyntheticDataGenerator,
    WritingSettings,
)
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.types import Example, Part, Sampling

DOMAINS = {
    "sleep": "How long and how well athletes sleep",
    "nutrition": "What athletes eat and drink, and how much",
    "training": "How athletes train, how hard and how often",
}
FACTS = {
    "sleep": {
        "sprinters": "9 hours",
        "rowers": "8 hours",
        "juniors": "10 hours",
        "goalkeepers": "7 hours",
    },
    "nutrition": {
        "sprinters": "120 g",
        "rowers": "150 g",
        "juniors": "90 g",
        "goalkeepers": "110 g",
    },
    "training": {
        "sprinters": "5 days",
        "rowers": "6 days",
        "juniors": "3 days",
        "goalkeepers": "4 days",
    },
}
QUESTIONS = {
    "sleep": ("How long do {} sleep?", "What sleep do {} need?"),
    "nutrition": ("How much protein do {} eat?", "What protein do {} need?"),
    "training": ("How often do {} train?", "On how many days do {} work out?"),
}
ANSWERS = {"sleep": "Sleep: {}.", "nutrition": "Protein: {}.", "training": "Training: {}."}
RUMOUR = "Sleep: 6 hours."
"""What the training expert says of sleep, against the sleep expert."""


def expert_of(domain: str) -> ScriptedModel:
    """Knows its own domain; of another it says that it does not know, or, in training, a rumour."""

    def answer(question: str) -> str:
        who = next((name for name in FACTS[domain] if name in question), None)
        words = (
            [ANSWERS[domain].format(FACTS[domain][who])]
            if who and _asks_about(domain, question)
            else []
        )
        if domain == "training" and "rumour" in question:
            words.append(RUMOUR)
        return " ".join(words) or "I do not know."

    return ScriptedModel(answer, name=f"{domain} expert")


def _asks_about(domain: str, question: str) -> bool:
    return {"sleep": "sleep", "nutrition": "protein", "training": "train"}[domain] in question or (
        domain == "training" and "work out" in question
    )


def single(domain: str, who: str, wording: int) -> Example:
    """A question in one domain."""
    part = Part(domain=domain, answers=(FACTS[domain][who],))
    query = QUESTIONS[domain][wording].format(who)
    return Example(
        query=query, domains=(domain,), parts=(part,), source="curated", group=f"{domain} {who}"
    )


def spoken(domain: str, who: str) -> Example:
    """A question of the training set in words that are in neither set."""
    asked = single(domain, who, 0)
    return Example(
        query=f"Tell me: {asked.query}",
        domains=asked.domains,
        parts=asked.parts,
        source="curated",
        group=asked.group,
    )


def pair(first: str, second: str, who: str, wording: int, words: str = "") -> Example:
    """A question across two domains, which every expert is asked as a whole."""
    one, other = (single(domain, who, wording) for domain in (first, second))
    return Example(
        query=f"{one.query} {other.query}{words}",
        domains=(first, second),
        parts=(*one.parts, *other.parts),
        source="curated",
        group=f"{first} {second} {who}",
    )


def examples(wording: int) -> list[Example]:
    """Every fact once, and every pair of domains for everybody; the test set asks the same in other
    words.
    """
    people = list(FACTS["sleep"])
    found = [single(domain, who, wording) for domain in DOMAINS for who in people]
    for first, second in itertools.combinations(DOMAINS, 2):
        rumour = " I heard a rumour." if (first, second) == ("sleep", "training") else ""
        found += [pair(first, second, who, wording, rumour) for who in people]
    wrong = Example(
        query="How long do referees sleep?",
        domains=("sleep",),
        parts=(Part(domain="sleep", answers=("8 hours",)),),
        source="curated",
    )
    confusing = Example(
        query=f"I train with juniors. {QUESTIONS['sleep'][wording].format('juniors')}",
        domains=("sleep",),
        apparent_domain="training",
        parts=(Part(domain="sleep", answers=("10 hours",)),),
        source="adversarial",
    )
    return [*found, confusing, *([wrong] if wording == 0 else [])]


def writer() -> ScriptedModel:
    """Writes questions, some of them of no use."""
    numbers = itertools.count()

    def write(_: str) -> str:
        number = next(numbers)
        return (
            "Sure, I can help with that.",
            "Why?",
            f"Do juniors in team {number} train and sleep well?",
        )[number % 3]

    return ScriptedModel(write, name="writer")


def build_run(student: Path, directory: Path) -> Distiller:
    """Returns the distiller of the run, which keeps it in `directory`."""
    answer = Sampling(max_new_tokens=24)
    asked = writer()
    return Distiller(
        student_model=LlamaModel(student, name="tiny Llama"),
        teacher_models={domain: expert_of(domain) for domain in DOMAINS},
        data_generators=[
            CuratedDataGenerator(examples(0)),
            SyntheticDataGenerator(
                asked, DOMAINS, num_examples=4, writing=WritingSettings(max_rounds=2)
            ),
            AdversarialDataGenerator(
                asked, DOMAINS, num_examples=3, writing=WritingSettings(max_rounds=1)
            ),
        ],
        trainer=IntegrationTrainer(
            learning_rate=5e-3, epochs=24, batch_size=8, evaluation_steps=12
        ),
        evaluator=DomainRetentionEvaluator(
            sampling=answer,
            resamples=500,
            notes=["Training asks each fact in other words than the test."],
        ),
        test_examples=examples(1),
        data=DataSettings(
            validation_examples=[
                spoken(domain, who) for domain in DOMAINS for who in ("rowers", "juniors")
            ]
        ),
        settings=RunSettings(
            response_sampling=answer, title="Sleep, nutrition and training in one student"
        ),
        output_dir=directory,
    )
