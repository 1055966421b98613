"""Generators: counts add up, domains and pairs get their share, and the same seed gives the same examples."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import Cut
from domainfusion.distillation.data_generation import (
    AdversarialDataGenerator,
    CuratedDataGenerator,
    Generated,
    SyntheticDataGenerator,
    check_domains,
    find_question,
)
from domainfusion.errors import ConfigurationError, DataError, TemplateError
from domainfusion.models import ScriptedModel
from domainfusion.models.base import OnResult
from domainfusion.types import Conversation, Example, Generation, Sampling

DOMAINS = {
    "biomechanics": "How living things move",
    "physiology": "What the body does when it works",
    "nutrition": "What athletes eat",
}


class Writer(ScriptedModel):
    """Writes another question each time, unless the script says otherwise; its seed and its count are in the question."""

    def __init__(self, reply: Callable[[int], str] | None = None) -> None:
        super().__init__("", name="writer")
        self._reply = reply
        self.written = 0

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling = Sampling(), on_result: OnResult | None = None
    ) -> list[Generation]:
        self.calls += conversations
        return [Generation(text=self._write(sampling.seed + place)) for place, _ in enumerate(conversations)]

    def _write(self, seed: int) -> str:
        self.written += 1
        return self._reply(self.written) if self._reply else f"How does the body of number {seed} move?"

    @property
    def prompts(self) -> list[str]:
        return [conversation[-1].content for conversation in self.calls]


def synthetic(writer: ScriptedModel | None = None, num_examples: int = 12, ratio: float = 0.5, **options: object) -> SyntheticDataGenerator:
    return SyntheticDataGenerator(writer or Writer(), DOMAINS, num_examples, ratio, **options)  # type: ignore[arg-type]


def pairs(examples: Sequence[Example]) -> Counter[tuple[str, ...]]:
    return Counter(example.domains for example in examples)


# Shares and coverage


@given(count=st.integers(1, 40), ratio=st.floats(0, 1))
def test_the_share_of_cross_domain_examples_is_the_one_asked_for(count: int, ratio: float) -> None:
    examples = synthetic(num_examples=count, ratio=ratio).generate().examples
    assert len(examples) == count
    assert abs(sum(example.is_cross_domain for example in examples) - count * ratio) <= 0.5


@given(count=st.integers(1, 40), ratio=st.floats(0, 1))
def test_domains_and_pairs_are_covered_evenly(count: int, ratio: float) -> None:
    seen = pairs(synthetic(num_examples=count, ratio=ratio).generate().examples)
    for wanted in ([(name,) for name in DOMAINS], list(itertools.permutations(DOMAINS, 2))):
        counts = [seen[domains] for domains in wanted]
        assert max(counts) - min(counts) <= 1


def test_every_prompt_describes_its_domains_and_no_other() -> None:
    writer = Writer()
    examples = synthetic(writer).generate().examples
    for example, prompt in zip(examples, writer.prompts, strict=True):
        assert {name for name, description in DOMAINS.items() if description in prompt} == set(example.domains)


@given(count=st.integers(1, 30))
def test_an_adversarial_example_looks_like_one_domain_and_needs_another(count: int) -> None:
    examples = AdversarialDataGenerator(Writer(), DOMAINS, count).generate().examples
    seen = Counter((example.apparent_domain, example.primary_domain) for example in examples)
    counts = [seen[pair] for pair in itertools.permutations(DOMAINS, 2)]
    assert sum(counts) == len(examples) == count
    assert max(counts) - min(counts) <= 1
    assert {example.source for example in examples} == {"adversarial"}
    assert not any(example.is_cross_domain for example in examples)


# Counts and rounds


def outcome_of_every_third(**options: object) -> Generated:
    """A writer whose every third reply is a question."""
    writer = Writer(lambda number: f"What becomes of runner {number} in the end?" if number % 3 == 0 else "I can't say.")
    return synthetic(writer, **options).generate()


@given(count=st.integers(1, 20), rounds=st.integers(1, 5))
def test_what_was_asked_was_accepted_or_rejected(count: int, rounds: int) -> None:
    outcome = outcome_of_every_third(num_examples=count, max_rounds=rounds)
    assert outcome.asked == len(outcome) + sum(outcome.rejected.values())
    assert outcome.rejected.get("no question", 0) == outcome.asked - len(outcome)


def test_a_slot_is_asked_for_again_until_it_is_filled() -> None:
    outcome = outcome_of_every_third(num_examples=9, max_rounds=30)
    assert pairs(outcome.examples) == pairs(synthetic(num_examples=9).generate().examples)


def test_no_more_rounds_than_allowed() -> None:
    writer = Writer(lambda _: "No.")
    outcome = synthetic(writer, num_examples=4, max_rounds=3).generate()
    assert (len(outcome), outcome.asked, writer.written) == (0, 12, 12)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I can't think of one.", "no question"),
        ("Why so?", "too short"),
        ("Why " + "very " * 90 + "so?", "too long"),
        ("How living things move, is that it?", "repeats the prompt"),
    ],
)
def test_a_useless_reply_is_rejected_for_its_reason(reply: str, reason: str) -> None:
    assert dict(synthetic(Writer(lambda _: reply), num_examples=1, ratio=0, max_rounds=1).generate().rejected) == {reason: 1}


def test_a_repeated_question_is_rejected_whatever_its_case() -> None:
    writer = Writer(lambda number: ["How do the muscles heal?", "how do muscles heal?"][number % 2])
    outcome = synthetic(writer, num_examples=5, max_rounds=1).generate()
    assert (len(outcome), outcome.rejected) == (1, {"duplicate": 4})


def test_a_reply_that_was_cut_before_its_end_says_so() -> None:
    outcome = synthetic(Cut("How does the body of"), num_examples=1, ratio=0, max_rounds=1).generate()
    assert outcome.rejected == {"cut before its end": 1}


def test_a_check_of_ones_own_rejects_for_its_reason() -> None:
    outcome = synthetic(num_examples=6, max_rounds=1, check=lambda example: "too sporty" if example.is_cross_domain else None).generate()
    assert (len(outcome), outcome.rejected) == (3, {"too sporty": 3})


# Seeds


def test_the_same_seed_gives_the_same_examples_and_another_others() -> None:
    first, again, other = (synthetic(seed=seed).generate().examples for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_each_round_draws_anew() -> None:
    seeds = set()

    class Stubborn(Writer):
        def generate(
            self, conversations: Sequence[Conversation], sampling: Sampling = Sampling(), on_result: OnResult | None = None
        ) -> list[Generation]:
            seeds.add(sampling.seed)
            return [Generation(text="No.") for _ in conversations]

    synthetic(Stubborn(), max_rounds=3).generate()
    assert len(seeds) == 3


# What is refused


@pytest.mark.parametrize("make", [synthetic, lambda **options: AdversarialDataGenerator(Writer(), DOMAINS, **options)])
@pytest.mark.parametrize("option", ["num_examples", "max_rounds"])
def test_a_number_that_is_not_positive_is_refused(make: Callable[..., object], option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        make(**{option: 0})


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigurationError, match="cross_domain_ratio"):
        synthetic(ratio=ratio)


@pytest.mark.parametrize(
    ("domains", "what"),
    [
        ({}, "no domains"),
        ({"": "Nothing"}, "no name"),
        ({" ": "Nothing"}, "no name"),
        ({3: "Nothing"}, "no name"),
        ({"sport": ""}, "no description"),
        ({"sport": None}, "no description"),
        ({"Sport science": "A", "sport  science ": "B"}, "same name"),
    ],
)
def test_domains_without_or_with_the_same_name_are_refused(domains: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        check_domains(domains)


def test_two_domains_are_needed_to_cross_them() -> None:
    one = {"sport": "Moving"}
    with pytest.raises(ConfigurationError, match="two domains"):
        SyntheticDataGenerator(Writer(), one, 2, 0.5)
    with pytest.raises(ConfigurationError, match="two domains"):
        AdversarialDataGenerator(Writer(), one, 2)
    assert len(SyntheticDataGenerator(Writer(), one, 2, 0.0).generate()) == 2


def test_a_template_with_a_placeholder_that_nothing_fills_is_an_error() -> None:
    with pytest.raises(TemplateError, match="level"):
        synthetic(prompt_template="Write a question of level {level}", ratio=0).generate()


# Questions in replies


@pytest.mark.parametrize(
    "reply",
    [
        "Where is Rome?",
        "Sure, here is one: Where is Rome?",
        "1. Where is Rome?\n2. Why?",
        "- **Where is Rome?**",
        "Question: “Where is Rome?”",
        '{"question": "Where is Rome?", "answer": "In Italy."}',
        '```json\n["Where is Rome?"]\n```',
        "Here you are.\n\nWhere is Rome? It is in Italy.",
    ],
)
def test_a_question_is_found_however_a_model_writes_it(reply: str) -> None:
    assert find_question(reply) == "Where is Rome?"


@pytest.mark.parametrize("reply", ["", "Rome is in Italy.", "{}", "[1, 2]"])
def test_no_question_is_found_where_there_is_none(reply: str) -> None:
    assert find_question(reply) is None


@given(reply=st.text())
def test_any_reply_can_be_read(reply: str) -> None:
    question = find_question(reply)
    assert question is None or question.endswith("?")


# Curated examples


def entries(count: int) -> list[dict[str, object]]:
    return [{"query": f"Where is airport {number}?", "domains": ["aviation"]} for number in range(count)]


def test_curated_examples_are_given_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries(3)), encoding="utf-8")
    from_file, from_list = CuratedDataGenerator(file).generate(), CuratedDataGenerator(entries(3)).generate()
    assert from_file == from_list
    assert [example.query for example in from_list] == [entry["query"] for entry in entries(3)]
    assert {example.source for example in from_list} == {"curated"}
    assert CuratedDataGenerator(file).domains == ("aviation",)


def test_a_sample_of_curated_examples_has_its_size_and_its_seed() -> None:
    samples = [CuratedDataGenerator(entries(30), num_examples=10, seed=seed).generate().examples for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert len({example.id for example in samples[0]}) == 10


@pytest.mark.parametrize("count", [0, 4])
def test_a_sample_larger_than_there_is_or_empty_is_refused(count: int) -> None:
    with pytest.raises(ConfigurationError, match="num_examples"):
        CuratedDataGenerator(entries(3), num_examples=count)


def test_no_curated_examples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no curated examples"):
        CuratedDataGenerator([])
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no curated examples"):
        CuratedDataGenerator(tmp_path / "empty.jsonl")
