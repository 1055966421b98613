"""Questions in and across domains: counts add up, domains and their combinations get their share,
the same seed gives the same examples.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import Cut
from distillation.data_generation.scribe import DOMAINS, NO_VARIETY, SchemaScribe, Scribe, in_groups
from domainfusion.distillation.data_generation import (
    AdversarialDataGenerator,
    Generated,
    SyntheticDataGenerator,
    Variety,
    WritingSettings,
)
from domainfusion.distillation.data_generation.generator import check_domains
from domainfusion.distillation.data_generation.synthetic import combinations_in_turn
from domainfusion.distillation.data_generation.writing import DOMAIN_CHECK
from domainfusion.distillation.dataset import HeldOut, assemble, run_generator
from domainfusion.errors import CapabilityError, ConfigurationError, DataError, TemplateError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.base import LanguageModel, OnResult, sample_seeds
from domainfusion.models.store import ResponseStore, ask_directly
from domainfusion.types import Conversation, Example, Generation, Part, Sampling, fingerprint

PLAIN = WritingSettings(variety=NO_VARIETY)


def synthetic(
    writer: LanguageModel | None = None,
    num_examples: int = 12,
    ratio: float = 0.5,
    **options: object,
) -> SyntheticDataGenerator:
    options = {"variety": NO_VARIETY, "verify": False} | options
    return SyntheticDataGenerator(
        writer or Scribe(), DOMAINS, num_examples, ratio, **in_groups(options)
    )


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


@given(count=st.integers(1, 60), sizes=st.sampled_from([(3,), (2, 3), (3, 2), (4,)]))
def test_three_domains_and_more_are_covered_evenly(count: int, sizes: tuple[int, ...]) -> None:
    domains = DOMAINS | {"psychology": "What athletes think"}
    examples = (
        SyntheticDataGenerator(Scribe(), domains, count, 1.0, domains_per_example=sizes)
        .generate()
        .examples
    )
    assert len(examples) == count
    for size in sizes:
        of_size = [example for example in examples if len(example.domains) == size]
        assert abs(len(of_size) - count / len(sizes)) < 1
        seen = Counter(frozenset(example.domains) for example in of_size)
        counts = [seen[frozenset(wanted)] for wanted in itertools.combinations(domains, size)]
        assert max(counts) - min(counts) <= 1


def test_every_prompt_describes_its_domains_and_no_other() -> None:
    writer = Scribe()
    examples = synthetic(writer).generate().examples
    for example, prompt in zip(examples, writer.prompts, strict=True):
        assert {name for name, description in DOMAINS.items() if description in prompt} == set(
            example.domains
        )


# Counts and rounds


def outcome_of_every_third(**options: Any) -> Generated:
    """A writer whose every third reply is a question."""
    writer = Scribe(
        lambda number: (
            f"What becomes of runner {number} in the end?" if number % 3 == 0 else "I can't say."
        )
    )
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
    writer = Scribe(lambda _: "No.")
    outcome = synthetic(writer, num_examples=4, max_rounds=3).generate()
    assert (len(outcome), outcome.asked, writer.written) == (0, 12, 12)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I can't think of one.", "no question"),
        ("Why so?", "too short"),
        ("Why " + "very " * 90 + "so?", "too long"),
        ("Why " + "very " * 25_000 + "so?", "no question"),
        ("", "no question"),
        ("How living things move, is that it?", "repeats the prompt"),
    ],
)
def test_a_useless_reply_is_rejected_for_its_reason(reply: str, reason: str) -> None:
    assert dict(
        synthetic(Scribe(lambda _: reply), num_examples=1, ratio=0, max_rounds=1)
        .generate()
        .rejected
    ) == {reason: 1}


def test_a_repeated_question_is_rejected_whatever_its_case() -> None:
    writer = Scribe(lambda number: ["How do muscles heal?", "how do  muscles heal?"][number % 2])
    outcome = synthetic(writer, num_examples=5, max_rounds=1).generate()
    assert (len(outcome), outcome.rejected) == (1, {"duplicate": 4})


def test_a_question_in_other_words_is_a_near_duplicate_unless_it_names_something_else() -> None:
    asked = [
        "How does protein help tired muscles recover after training?",
        "After training, how could protein help the tired muscles to recover?",
        "How does protein help tired muscles recover after training in Peru?",
        "How does protein help tired muscles recover after training for 3 days?",
    ]
    outcome = synthetic(
        Scribe(lambda number: asked[number - 1]), num_examples=4, ratio=0, max_rounds=1
    ).generate()
    assert [example.query for example in outcome] == [asked[0], *asked[2:]]
    assert outcome.rejected == {"near-duplicate": 1}
    every = synthetic(
        Scribe(lambda number: asked[number - 1]),
        num_examples=4,
        ratio=0,
        max_rounds=1,
        duplicate_threshold=1.0,
    )
    assert len(every.generate()) == 4


@given(budget=st.integers(1, 30), count=st.integers(1, 12))
def test_what_may_be_asked_is_never_exceeded_and_a_shortfall_is_never_silent(
    budget: int, count: int
) -> None:
    writer = Scribe(
        lambda number: f"What becomes of runner {number} in the end?" if number % 2 else "No."
    )
    outcome = synthetic(writer, num_examples=count, max_rounds=99, max_questions=budget).generate()
    assert outcome.asked == writer.written <= budget
    assert outcome.wanted == count
    assert len(outcome) == count or outcome.asked == budget
    assert outcome.asked == len(outcome) + sum(outcome.rejected.values())


@given(budget=st.integers(1, 30), ratio=st.sampled_from([0.2, 0.5, 0.7, 1.0]))
def test_what_is_asked_before_the_budget_is_spent_is_balanced(budget: int, ratio: float) -> None:
    examples = synthetic(num_examples=30, ratio=ratio, max_questions=budget).generate().examples
    assert len(examples) == budget
    assert abs(sum(example.is_cross_domain for example in examples) - budget * ratio) <= 1
    for size in (1, 2):
        seen = Counter(
            frozenset(example.domains) for example in examples if len(example.domains) == size
        )
        counts = [seen[frozenset(wanted)] for wanted in itertools.combinations(DOMAINS, size)]
        assert max(counts) - min(counts) <= 1


def test_a_shortfall_is_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    outcome_of_every_third(num_examples=9, max_rounds=1)
    assert (
        "3 of 9 synthetic questions are there: 9 asked for, as many as max_questions or max_rounds"
        " allow, 6 no question" in caplog.text
    )


def test_a_reply_that_was_cut_before_its_end_says_so() -> None:
    outcome = synthetic(
        Cut("How does the body of"), num_examples=1, ratio=0, max_rounds=1
    ).generate()
    assert outcome.rejected == {"cut before its end": 1}


def test_a_custom_check_rejects_for_its_reason() -> None:
    outcome = synthetic(
        num_examples=6,
        max_rounds=1,
        check=lambda example: "too sporty" if example.is_cross_domain else None,
    ).generate()
    assert (len(outcome), outcome.rejected) == (3, {"too sporty": 3})


def test_a_check_may_add_what_it_knows_of_the_answer() -> None:
    def with_answer(example: Example) -> Example:
        return replace(example, parts=(Part(domain=example.domains[0], answers=("rest",)),))

    outcome = synthetic(num_examples=4, check=with_answer).generate()
    assert [example.parts[0].answers for example in outcome] == [("rest",)] * 4


@pytest.mark.parametrize("returned", [True, False, "", 3])
def test_a_check_that_returns_something_else_is_an_error(returned: object) -> None:
    with pytest.raises(DataError, match=r"neither a reason nor an example; received"):
        synthetic(check=lambda _: returned).generate()


# Checked for their domains


class Judge(ScriptedModel):
    """Names the domains that stand in a question itself, or answers with one text."""

    def __init__(self, reply: str | None = None) -> None:
        super().__init__("", name="judge")
        self._reply = reply

    def _answer(self, question: str) -> str:
        if self._reply is not None:
            return self._reply
        asked = question.split("Question: ")[1].split("\n")[0]
        return ", ".join(name for name in DOMAINS if name in asked) or "None."


class NamingWriter(Scribe):
    """Names in every third question other domains than those that it was asked for."""

    def _write(self, seed: int) -> str:
        self.written += 1
        prompt = self.calls[self.written - 1][-1].content
        asked = [name for name in DOMAINS if f"{name}: " in prompt]
        named = (
            [["nutrition", "physiology"], ["cooking"], asked[:1]][self.written // 3 % 3]
            if self.written % 3 == 0
            else asked
        )
        return f"How do {' and '.join(named)} explain case {seed} of {self.written}?"


def test_a_question_that_is_not_in_its_domains_is_rejected_for_the_reason_and_asked_for_again() -> (
    None
):
    judge = Judge()
    outcome = synthetic(NamingWriter(), 30, verify=True, judge=judge, max_rounds=20).generate()
    assert len(outcome) == 30
    assert all(
        set(example.domains) == {name for name in DOMAINS if name in example.query}
        for example in outcome
    )
    assert {example.metadata[DOMAIN_CHECK] for example in outcome} == {"passed"}
    assert set(outcome.rejected) == {
        "is in none of the domains",
        "does not need each of its domains",
        "needs another domain too",
    }
    assert outcome.judged == len(judge.calls) == 30 + sum(outcome.rejected.values())
    assert sum(example.is_cross_domain for example in outcome) == outcome.wanted_cross_domain == 15


@pytest.mark.parametrize(
    "reply", ["", "I think so.", "yes", "?" * 200, "<think>physiology", '{"a": [', "\ud800"]
)
def test_a_question_without_a_verdict_is_kept_and_says_so(reply: str) -> None:
    outcome = synthetic(num_examples=4, verify=True, judge=Judge(reply)).generate()
    assert (len(outcome), outcome.judged) == (4, 0)
    assert {example.metadata[DOMAIN_CHECK] for example in outcome} == {"no verdict"}


def test_a_name_inside_of_a_longer_name_is_not_named() -> None:
    domains = {"law": "Courts", "tax law": "Taxes"}
    outcome = SyntheticDataGenerator(
        Scribe(), domains, 4, 0.0, judge=Judge("Tax law."), writing=WritingSettings(max_rounds=1)
    ).generate()
    assert [example.domains for example in outcome] == [("tax law",)] * 2
    assert outcome.rejected == {"does not need each of its domains": 2}


def test_a_rule_checks_domains_without_a_model() -> None:
    outcome = synthetic(
        num_examples=6, ratio=0, verify=True, classifier=lambda _: "nutrition", max_rounds=1
    ).generate()
    assert [example.domains for example in outcome] == [("nutrition",)] * 2
    assert (outcome.rejected, outcome.acceptance_rate) == (
        {"does not need each of its domains": 4},
        2 / 6,
    )
    none = synthetic(num_examples=6, verify=True, classifier=lambda _: (), max_rounds=1).generate()
    assert none.rejected == {"is in none of the domains": 6}
    with pytest.raises(DataError, match=r"not a domain; received 'cooking'"):
        synthetic(verify=True, classifier=lambda _: ["cooking"]).generate()


def test_the_writer_judges_where_no_other_is_named_and_a_judge_that_nobody_asks_is_refused() -> (
    None
):
    writer = Scribe()
    synthetic(writer, num_examples=1, ratio=0, verify=True, max_rounds=1).generate()
    assert len(writer.calls) == 2
    with pytest.raises(ConfigurationError, match="need verify"):
        synthetic(judge=Judge(), verify=False)
    with pytest.raises(CapabilityError, match="The judge can't answer"):
        synthetic(verify=True, judge="gpt")


def test_a_share_that_does_not_hold_after_rejections_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    generator = synthetic(
        num_examples=10,
        check=lambda example: "off" if example.is_cross_domain else None,
        max_rounds=1,
    )
    batch = run_generator(generator, ask_directly)
    assemble([batch], HeldOut())
    assert batch.count()["cross_domain"] == {"wanted": 5, "accepted": 0}
    assert "0 of these 5 need several domains, 0 % where 50 % were asked for" in caplog.text


# Several questions in a reply


def in_json(number: int) -> str:
    questions = [
        {"question": f"How does runner {number} reach place {place}?"} for place in range(9)
    ]
    return f"Here they are:\n```json\n{json.dumps({'questions': questions})}\n```"


def test_a_model_that_can_be_held_to_a_schema_writes_json_and_several_at_once() -> None:
    writer = SchemaScribe(in_json)
    outcome = synthetic(writer, num_examples=24, ratio=0).generate()
    assert (len(outcome), outcome.asked) == (24, 24)
    assert (
        len([prompt for prompt in writer.prompts if "questions" in prompt and "JSON" in prompt])
        == 6
    ), "24 in three domains, 5 at once"
    (schema,) = writer.schemas
    assert schema["properties"]["questions"]["items"]["required"] == ["question"]


def test_one_that_can_not_is_asked_for_lines_unless_one_says_otherwise() -> None:
    lines = Scribe(
        lambda number: f"1. How does runner {number} win?\n2. How does runner {number} lose a race?"
    )
    assert len(synthetic(lines, num_examples=6, ratio=0, questions_per_reply=2).generate()) == 6
    assert (lines.written, "JSON" in lines.prompts[0]) == (3, False)
    forced = Scribe(in_json)
    assert (
        len(
            synthetic(
                forced, num_examples=6, ratio=0, reply_format="json", variety=NO_VARIETY
            ).generate()
        )
        == 6
    )
    assert (forced.written, "JSON" in forced.prompts[0]) == (3, True)


def test_a_reply_with_fewer_questions_than_asked_for_counts_what_is_missing() -> None:
    outcome = synthetic(
        Scribe(lambda number: f"How is runner {number} now?"),
        num_examples=6,
        ratio=0,
        questions_per_reply=2,
        max_rounds=1,
    )
    assert (len(made := outcome.generate()), made.rejected) == (3, {"no question": 3})


def test_sub_questions_are_kept_for_the_domains_of_an_example() -> None:
    written = {
        "question": "How do runners and cooks win?",
        "sub_questions": {"physiology": "How do runners win?", "cooking": "And cooks?"},
    }
    writer = SchemaScribe(lambda _: json.dumps([written]))
    options: dict[str, Any] = {
        "num_examples": 1,
        "ratio": 1.0,
        "variety": NO_VARIETY,
        "sub_questions": True,
        "max_rounds": 1,
    }
    domains = {name: DOMAINS[name] for name in ("physiology", "nutrition")}
    divided = replace(PLAIN, sub_questions=True)
    (example,) = SyntheticDataGenerator(
        writer, domains, 1, 1.0, writing=divided, verify=False
    ).generate()
    bare: dict[str, Any] = {"writing": divided, "verify": False}
    single = SyntheticDataGenerator(SchemaScribe(writer._reply), domains, 1, 0.0, **bare).generate()
    assert single.examples[0].sub_questions == {}, (
        "an expert is asked all of a question in its own domain"
    )
    assert example.sub_questions == {"physiology": "How do runners win?"}
    assert example.question_for("nutrition") == "How do runners and cooks win?"
    assert '"sub_questions"' in writer.prompts[0]
    assert "sub_questions" in writer.schemas[0]["properties"]["questions"]["items"]["required"]
    with pytest.raises(ConfigurationError, match="need replies in JSON"):
        synthetic(Scribe(), **options)


@pytest.mark.parametrize("reply_format", ["lines", "json"])
def test_a_real_model_that_knows_nothing_is_counted_and_breaks_nothing(
    tiny_llama: Path, reply_format: Any
) -> None:
    outcome = synthetic(
        LlamaModel(tiny_llama, dtype="float32"),
        num_examples=4,
        reply_format=reply_format,
        variety=Variety(topics_per_domain=2),
        sampling=Sampling(max_new_tokens=12, temperature=0.8),
        max_rounds=2,
    ).generate()
    assert outcome.asked == len(outcome) + sum(outcome.rejected.values())
    assert len(outcome) == 4 or outcome.asked >= 8


# Variety


def test_prompts_differ_in_topic_persona_difficulty_and_form_and_each_comes_as_often() -> None:
    variety = Variety(
        topics_per_domain=2,
        personas=("a coach", "a cook"),
        difficulties=("easy", "hard"),
        forms=("a cause", "a number"),
    )
    writer = Scribe(
        lambda number: (
            "- Running\n- Jumping" if number <= 3 else f"How does runner {number} win the race?"
        )
    )
    outcome = synthetic(writer, num_examples=12, ratio=0, variety=variety).generate()
    assert len(outcome) == 12
    topics, questions = writer.prompts[:3], writer.prompts[3:]
    assert [
        description
        for description in DOMAINS.values()
        if any(description in prompt for prompt in topics)
    ] == list(DOMAINS.values())
    for line in ("Running", "Jumping", "a coach", "a cook", "easy", "hard", "a cause", "a number"):
        assert sum(line in prompt for prompt in questions) == 6, line


def test_a_model_that_lists_no_topics_is_asked_without() -> None:
    outcome = synthetic(
        Scribe(lambda number: f"How does runner {number} win the race?"), variety=Variety()
    ).generate()
    assert len(outcome) == 12


def test_a_local_model_gets_the_same_variety_as_one_behind_an_api() -> None:
    prompts = {}
    for writer in (Scribe(), SchemaScribe()):
        SyntheticDataGenerator(
            writer,
            DOMAINS,
            4,
            0.5,
            verify=False,
            writing=WritingSettings(max_rounds=1, questions_per_reply=1),
        ).generate()
        kinds = ("Topic in", "Asked by", "Difficulty", "Form")
        prompts[type(writer)] = [[kind in prompt for kind in kinds] for prompt in writer.prompts]
    assert prompts[Scribe] == prompts[SchemaScribe]
    assert [True] * 4 in prompts[Scribe]


def test_topics_of_ones_own_are_not_asked_for() -> None:
    topics = {"biomechanics": ("sprinting",), "physiology": ("sleep",)}
    writer = Scribe(
        lambda number: "- bread" if number == 1 else f"How does runner {number} win the race?"
    )
    synthetic(writer, num_examples=3, ratio=0, variety=Variety(topics=topics)).generate()
    assert [prompt.startswith("List") for prompt in writer.prompts] == [True, False, False, False]
    for domain, topic in {
        "biomechanics": "sprinting",
        "physiology": "sleep",
        "nutrition": "bread",
    }.items():
        assert sum(f"Topic in {domain}: {topic}" in prompt for prompt in writer.prompts) == 1
    with pytest.raises(ConfigurationError, match="topics of an unknown domain; received 'cooking'"):
        synthetic(variety=Variety(topics={"cooking": ("bread",)}))


# Languages


@pytest.mark.parametrize(
    "written",
    [
        "跑步者在比赛后多久才能恢复？",
        "ランナーはどのくらいで回復しますか",
        "كم من الوقت يحتاج العداء للتعافي؟",
        "Πόσο γρήγορα αναρρώνει ένας δρομέας;",
        "นักวิ่งฟื้นตัวได้อย่างไรหลังการแข่งขัน",
    ],
)
def test_a_question_in_another_language_is_neither_too_short_nor_none(written: str) -> None:
    outcome = synthetic(Scribe(lambda _: written), num_examples=1, ratio=0, max_rounds=1).generate()
    assert [example.query for example in outcome] == [written]


@given(reply=st.text(), judged=st.text())
def test_whatever_a_small_model_writes_nothing_raises(reply: str, judged: str) -> None:
    options: dict[str, Any] = {
        "verify": True,
        "judge": Judge(judged),
        "variety": Variety(),
        "max_rounds": 1,
    }
    outcome = synthetic(Scribe(lambda _: reply), num_examples=2, **options).generate()
    assert outcome.asked == len(outcome) + sum(outcome.rejected.values())
    for example in outcome:
        example.query.encode()  # it can be written to a file


def test_a_negative_number_of_topics_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="topics_per_domain"):
        Variety(topics_per_domain=-1)


# Killed and started again


@pytest.mark.parametrize("after", [0, 1, 2, 5, 9])
def test_a_run_that_was_killed_asks_nothing_twice_and_ends_with_the_same_examples(
    tmp_path: Path, after: int
) -> None:
    def generator(left: int | None = None) -> SyntheticDataGenerator:
        return synthetic(Mortal(left), num_examples=6, variety=Variety(topics_per_domain=2))

    with ResponseStore(tmp_path / "whole.sqlite") as whole:
        expected, total = generator().generate(whole.ask), whole.asked
    assert expected.rejected, "some are asked for again"
    with ResponseStore(tmp_path / "killed.sqlite") as killed, pytest.raises(ConnectionError):
        generator(after).generate(killed.ask)
    with ResponseStore(tmp_path / "killed.sqlite") as resumed:
        assert generator().generate(resumed.ask) == expected
        assert resumed.asked == total - after


class Mortal(ScriptedModel):
    """Writes by the prompt and the seed alone, every second time nothing of use; dies after so many
    answers.
    """

    def __init__(self, left: int | None) -> None:
        super().__init__("", name="mortal")
        self._left = left

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        written = []
        for place, (conversation, seed) in enumerate(
            zip(conversations, sample_seeds(sampling.seed, conversations), strict=True)
        ):
            if self._left is not None and len(self.calls) >= self._left:
                raise ConnectionError("the line is dead")
            self.calls.append(conversation)
            number = int(fingerprint([seed, conversation]), 16)
            written.append(
                Generation(text=f"What becomes of runner {number}?" if number % 2 else "No.")
            )
            if on_result is not None:
                on_result(place, written[-1])
        return written


# Seeds


def test_the_same_seed_gives_the_same_examples_and_another_others() -> None:
    first, again, other = (synthetic(seed=seed).generate().examples for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_each_round_draws_anew() -> None:
    seeds = set()

    class Stubborn(Scribe):
        def generate(
            self,
            conversations: Sequence[Conversation],
            sampling: Sampling = Sampling(),
            on_result: OnResult | None = None,
        ) -> list[Generation]:
            seeds.add(sampling.seed)
            return [Generation(text="No.") for _ in conversations]

    synthetic(Stubborn(), max_rounds=3).generate()
    assert len(seeds) == 3


# What is refused


@pytest.mark.parametrize(
    "make",
    [
        synthetic,
        lambda **options: AdversarialDataGenerator(Scribe(), DOMAINS, **in_groups(options)),
    ],
)
@pytest.mark.parametrize(
    "option", ["num_examples", "max_rounds", "max_questions", "questions_per_reply"]
)
def test_a_number_that_is_not_positive_is_refused(make: Callable[..., object], option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        make(**{option: 0})


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_that_is_not_a_share_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigurationError, match="cross_domain_ratio"):
        synthetic(ratio=ratio)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"domains_per_example": 1}, "domains_per_example"),
        ({"domains_per_example": ()}, "domains_per_example"),
        ({"domains_per_example": 4}, "need 4 domains"),
        ({"domains_per_example": (2, 4)}, "need 4 domains"),
        ({"reply_format": "xml"}, "reply_format"),
        ({"duplicate_threshold": 0.0}, "threshold"),
        ({"duplicate_threshold": 1.1}, "threshold"),
    ],
)
def test_what_can_not_be_right_is_refused_at_once(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        synthetic(**options)


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
def test_domains_without_or_with_the_same_name_are_refused(
    domains: dict[str, str], what: str
) -> None:
    with pytest.raises(ConfigurationError, match=what):
        check_domains(domains)


def test_two_domains_are_needed_to_cross_them() -> None:
    one = {"sport": "Moving"}
    with pytest.raises(ConfigurationError, match="two domains"):
        SyntheticDataGenerator(Scribe(), one, 2, 0.5)
    with pytest.raises(ConfigurationError, match="two domains"):
        AdversarialDataGenerator(Scribe(), one, 2)
    assert len(SyntheticDataGenerator(Scribe(), one, 2, 0.0).generate()) == 2


def test_a_template_with_a_placeholder_that_nothing_fills_is_an_error() -> None:
    with pytest.raises(TemplateError, match="level"):
        synthetic(prompt_template="Write a question of level {level}", ratio=0).generate()


def test_a_writer_that_can_not_write_is_refused_at_once() -> None:
    with pytest.raises(CapabilityError, match="The generation model can't write; received 'gpt'"):
        synthetic("gpt")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["prompt_template", "cross_domain_template"])
def test_a_placeholder_that_nothing_fills_is_refused_before_anything_is_asked(name: str) -> None:
    options: dict[str, Any] = {name: "Write {count} on {domian}."}
    with pytest.raises(TemplateError, match=r"\{domian\}, which nothing fills"):
        synthetic(**options)


def test_variety_is_made_of_several_texts() -> None:
    with pytest.raises(ConfigurationError, match="personas is one text"):
        Variety(personas="a coach")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="variety is not known"):
        synthetic(variety="topics")


@pytest.mark.parametrize("name", ["sampling", "variety"])
def test_none_stands_for_no_setting_of_how_a_model_writes(name: str) -> None:
    options: dict[str, Any] = {name: None}
    with pytest.raises(ConfigurationError, match=f"{name} is not known"):
        WritingSettings(**options)


# Coverage


@pytest.mark.parametrize(("count", "size"), [(2, 2), (3, 2), (3, 3), (4, 2), (5, 3), (6, 4)])
def test_in_a_whole_cycle_each_combination_is_led_once_by_each_of_its_domains(
    count: int, size: int
) -> None:
    domains = "abcdef"[:count]
    combinations = list(itertools.combinations(domains, size))
    found = list(itertools.islice(combinations_in_turn(domains, [size]), len(combinations) * size))
    assert {(lead, frozenset(rest)) for lead, *rest in found} == {
        (lead, frozenset(combination) - {lead})
        for combination in combinations
        for lead in combination
    }
    assert len({lead for lead, *_ in found}) == count
    assert len(set(Counter(lead for lead, *_ in found).values())) == 1, "all lead as often"
    for start in range(0, len(found), len(combinations)):
        round_of_all = found[start : start + len(combinations)]
        assert {frozenset(item) for item in round_of_all} == set(map(frozenset, combinations))


def test_sizes_take_turns() -> None:
    assert [len(found) for found in itertools.islice(combinations_in_turn("abcd", [2, 3]), 6)] == [
        2,
        3,
        2,
        3,
        2,
        3,
    ]


# A writer that writes no questions


ANSWERING = "Sprinting is \x1b[31mred\x1b[0m hot.\n" + "It is fast. " * 60


def test_a_writer_without_questions_is_shown_with_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    writer = ScriptedModel(ANSWERING, name="the expert")
    generator = SyntheticDataGenerator(
        writer,
        {"law": "Rules", "sport": "Games"},
        4,
        verify=False,
        writing=replace(PLAIN, max_rounds=1),
    )
    made = generator.generate()
    assert (len(made), len(made.replies)) == (0, 3)
    for reply in made.replies:
        assert reply.startswith('"Sprinting is \\x1b[31mred'), "terminal codes are escaped"
        assert "\x1b" not in reply
        assert "\n" not in reply
        assert len(reply) < 200
    assert "the expert wrote no question at all" in caplog.text
    assert "give its base" in caplog.text
    with pytest.raises(
        DataError, match=r"No example is left.*Its first replies: .*generation_model"
    ):
        assemble([run_generator(generator, ask_directly)], HeldOut())


def test_a_writer_with_a_question_shows_no_replies(caplog: pytest.LogCaptureFixture) -> None:
    replies = itertools.cycle(["Sure.", "How fast does a sprinter run?"])
    writer = ScriptedModel(lambda _: next(replies))
    generator = SyntheticDataGenerator(
        writer,
        {"law": "Rules", "sport": "Games"},
        2,
        verify=False,
        writing=replace(PLAIN, max_rounds=1),
    )
    assert generator.generate().replies == ()
    assert "no question at all" not in caplog.text


def test_without_a_model_the_student_writes_in_a_distiller() -> None:
    generator = SyntheticDataGenerator(
        domains={"a": "About a"}, num_examples=2, cross_domain_ratio=0
    )
    with pytest.raises(ConfigurationError, match=r"No model writes.*generation_model=") as error:
        generator.generate()
    assert "student" in str(error.value)
    student = ScriptedModel("x", name="student")
    written = generator.written_by(student)
    assert written.generation_model is student and written.judge is student
    assert generator.generation_model is None, "another distiller may have another student"
    other = ScriptedModel("y", name="other")
    assert written.written_by(other) is written
    with pytest.raises(ConfigurationError, match="domains"):
        SyntheticDataGenerator()
