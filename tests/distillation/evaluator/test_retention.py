"""Evaluators: the same student as expert keeps everything, nothing ungraded counts as wrong, and
bad test sets are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.builders import Cut, example
from distillation.evaluator.facts import (
    AIRPORTS,
    AVIATION,
    CHEMISTRY,
    CROSS,
    EXPERTS,
    IGNORANT,
    PERFECT,
    SYMBOLS,
    TEST,
    knowing,
)
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import AgreementSettings, DomainRetentionEvaluator
from domainfusion.distillation.evaluator.agreement import consistency
from domainfusion.distillation.metrics.coherence import ValidatedCoherence
from domainfusion.distillation.results import CoherenceValidation, Estimate, ModelResult
from domainfusion.errors import CapabilityError, ConfigurationError, DataError
from domainfusion.models import LanguageModel, ScriptedModel
from domainfusion.types import Example, Score


def evaluate(
    student: LanguageModel, *, examples: Any = TEST, experts: Any = None, **options: Any
) -> EvaluationReport:
    baselines = {"base": options.pop("base")} if "base" in options else None
    evaluator = DomainRetentionEvaluator(resamples=options.pop("resamples", 500), **options)
    return evaluator.evaluate(student, experts or EXPERTS, examples, baselines=baselines)


def result(report: EvaluationReport, role: str, name: str = "") -> ModelResult:
    return next(model for model in report.models if model.role == role and name in ("", model.name))


# Retention


def test_a_student_that_answers_as_its_expert_keeps_exactly_everything() -> None:
    half = knowing(dict(list(AIRPORTS.items())[:2]), name="half")
    row = evaluate(half, experts={"aviation": half, "chemistry": PERFECT}).retention[0]
    assert row.student == row.expert == 0.5
    assert row.retention.value == 1
    assert row.retention.low is not None and row.retention.high is not None
    assert row.retention.low < 1 < row.retention.high, (
        "two questions that the expert knows settle little"
    )


def test_retention_is_the_ratio_of_means_over_the_domain_s_own_examples() -> None:
    student = knowing(dict(list(AIRPORTS.items())[:3]), SYMBOLS)
    aviation, chemistry = evaluate(student).retention
    assert (aviation.domain, aviation.items, aviation.student, aviation.retention.value) == (
        "aviation",
        4,
        0.75,
        0.75,
    )
    assert (chemistry.domain, chemistry.items, chemistry.retention.value) == ("chemistry", 4, 1)


@pytest.mark.parametrize("name", ["student", "baseline base"])
def test_a_domain_may_have_the_name_of_a_row(name: str) -> None:
    examples = [{"query": "NRT?", "domain": name, "answers": ["Japan"]}]
    expert, silent = ScriptedModel("Japan."), ScriptedModel("I can't say.")
    (row,) = evaluate(silent, examples=examples, experts={name: expert}, base=silent).retention
    assert (row.student, row.expert, row.base) == (0, 1, 0)


def test_retention_of_an_expert_that_knows_nothing_is_undefined() -> None:
    row = evaluate(PERFECT, experts={**EXPERTS, "aviation": IGNORANT}).retention[0]
    assert row.retention.value is None
    assert "got nothing right" in row.retention.reason


def test_headroom_is_the_share_of_what_there_was_to_learn() -> None:
    base = knowing(dict(list(AIRPORTS.items())[:2]))
    many = [
        example(f"Where is {code}{number}?", {"aviation": country})
        for code, country in AIRPORTS.items()
        for number in range(10)
    ]
    row = evaluate(knowing(dict(list(AIRPORTS.items())[:3])), examples=many, base=base).retention[0]
    assert row.base == 0.5
    assert row.headroom.value == pytest.approx((0.75 - 0.5) / (1 - 0.5))


@pytest.mark.parametrize("base", [EXPERTS["aviation"], PERFECT], ids=["as the expert", "better"])
def test_headroom_is_undefined_where_there_was_nothing_to_learn(base: LanguageModel) -> None:
    row = evaluate(PERFECT, base=base).retention[0]
    assert row.headroom.value is None
    assert "not measurably better" in row.headroom.reason


def test_headroom_is_undefined_where_the_base_was_not_measured() -> None:
    assert "was not measured" in evaluate(PERFECT).retention[0].headroom.reason


# The oracle and the matrix


def test_the_oracle_is_right_where_each_expert_knows_its_part() -> None:
    oracle = result(evaluate(IGNORANT), "oracle")
    assert {name: score.strict.value for name, score in oracle.slices.items()} == {
        "aviation": 1,
        "chemistry": 1,
        "cross-domain": 1,
    }


def test_the_oracle_counts_a_part_only_where_its_own_expert_states_it() -> None:
    swapped = {"aviation": EXPERTS["chemistry"], "chemistry": EXPERTS["aviation"]}
    oracle = result(evaluate(IGNORANT, experts=swapped), "oracle")
    assert oracle.slices["cross-domain"].partial.value == 0


def test_every_model_answers_every_query() -> None:
    report = evaluate(PERFECT, base=IGNORANT)
    assert [(model.role, len(model.answers)) for model in report.models] == [
        ("student", len(TEST)),
        ("base", len(TEST)),
        ("expert", len(TEST)),
        ("expert", len(TEST)),
        ("oracle", 0),
        ("ensemble", len(TEST)),
    ]
    assert result(report, "expert", "aviation").slices["chemistry"].strict.value == 0
    assert result(report, "expert", "aviation").slices["cross-domain"].partial.value == 0.5


def test_baselines_of_the_evaluator_and_of_the_call_stand_side_by_side() -> None:
    report = evaluate(
        PERFECT, base=IGNORANT, baselines={"merge": PERFECT, "most frequent": IGNORANT}
    )
    assert {model.name: model.role for model in report.models if model.role != "expert"} == {
        "student": "student", "base": "base", "merge": "merge", "most frequent": "baseline", "oracle": "oracle",
        "ensemble": "ensemble",
    }  # fmt: skip


def test_cross_domain_accuracy_is_strict_and_reported_by_pair() -> None:
    one_half = evaluate(EXPERTS["chemistry"])
    assert one_half.cross_domain_accuracy.value == 0
    assert one_half.student.slices["cross-domain"].partial.value == 0.5
    assert evaluate(PERFECT).cross_domain_accuracy.value == 1
    assert list(one_half.student.pairs) == ["aviation + chemistry"]


# Slices


def test_slices_are_domains_first_then_cross_domain_then_the_rest() -> None:
    others = [
        example("Where is gold's airport?", {"aviation": "Japan"}, source="adversarial"),
        example("Which currency has NRT?", {"aviation": "Japan"}, metadata={"slice": "two hops"}),
    ]
    report = evaluate(PERFECT, examples=[*others, *CROSS, *AVIATION, *CHEMISTRY])
    assert report.slices == ("aviation", "chemistry", "cross-domain", "adversarial", "two hops")
    assert {name: score.items for name, score in report.student.slices.items()}["aviation"] == len(
        AVIATION
    )
    assert next(row for row in report.retention if row.domain == "aviation").items == len(AVIATION)


def test_a_truncated_answer_is_counted() -> None:
    report = evaluate(Cut("It is Japan and"), examples=AVIATION)
    assert report.student.slices["aviation"].truncated == len(AVIATION)
    assert {answer.finish_reason for answer in report.student.answers} == {"length"}


# Ungraded is not wrong


def shy(given: Example, text: str) -> Score:
    """Grades nothing about gold."""
    return Score.unscored("gold is not graded") if "gold" in given.query else Score(1.0)


def test_an_answer_that_can_t_be_graded_is_in_no_mean() -> None:
    slices = evaluate(IGNORANT, metric=shy).student.slices
    assert (slices["chemistry"].unscored, slices["chemistry"].items) == (1, 4)
    assert slices["chemistry"].strict.value == slices["chemistry"].partial.value == 1


def test_a_slice_in_which_nothing_could_be_graded_is_undefined_and_not_zero() -> None:
    unknown = [example(f"What of {word}?", domains=["aviation"]) for word in ("it", "them")]
    report = evaluate(PERFECT, examples=unknown)
    assert report.student.slices["aviation"].strict.value is None
    assert report.student.slices["aviation"].unscored == 2
    assert report.retention[0].retention.value is None
    assert [answer.correct for answer in report.student.answers] == [None, None]
    assert all(answer.reason for answer in report.student.answers)
    assert "undefined" in str(report)


@pytest.mark.parametrize("grade", [1.5, -0.1, float("nan")])
def test_a_grade_out_of_range_is_not_a_grade(grade: float) -> None:
    slices = evaluate(PERFECT, metric=lambda given, text: Score(grade)).student.slices
    assert slices["aviation"].unscored == 4


def test_a_metric_may_return_a_bare_number() -> None:
    found = evaluate(PERFECT, metric=lambda given, text: 0.5)
    assert found.student.slices["aviation"].partial.value == 0.5


# Coherence


def test_coherence_comes_with_its_coverage_and_its_validation() -> None:
    coherence = evaluate(EXPERTS["chemistry"], coherence_metric=lambda text: Score(0.8)).coherence
    assert coherence is not None
    assert coherence.score.value == pytest.approx(0.4)
    assert coherence.coverage.value == 0.5
    assert not coherence.validated
    assert coherence.consistency.value == pytest.approx(0.8)
    assert coherence.items == len(CROSS)


def test_without_cross_domain_examples_there_is_no_coherence() -> None:
    assert evaluate(PERFECT, examples=AVIATION).coherence is None


def test_coherence_is_undefined_where_the_metric_grades_nothing() -> None:
    coherence = evaluate(
        PERFECT, coherence_metric=lambda text: Score.unscored("too short")
    ).coherence
    assert coherence is not None
    assert (coherence.score.value, coherence.items, coherence.unscored) == (None, 0, len(CROSS))
    assert coherence.conclusion == "Integration Coherence is undefined, because too short."


@pytest.mark.parametrize(
    "refusal",
    ["I don't know.", "I can't say.", "", "Sorry, I am not able to help with that. Ask an expert!"],
)
def test_a_refusal_has_no_integration_coherence(refusal: str) -> None:
    coherence = evaluate(ScriptedModel(refusal)).coherence
    assert coherence is not None
    assert coherence.score.value == 0


def test_a_second_expert_who_agrees_lowers_no_coherence() -> None:
    """An answer of one expert, the same with the other's added, and both said twice by experts who
    agree.
    """

    def coherence(answer: Callable[[str, str], str]) -> float:
        texts = {
            asked.query: answer(AIRPORTS[code], SYMBOLS[name])
            for asked, code, name in zip(CROSS, AIRPORTS, SYMBOLS, strict=True)
        }
        found = evaluate(ScriptedModel(texts), examples=CROSS).coherence
        assert found is not None and found.score.value is not None
        return found.score.value

    alone = coherence(lambda country, symbol: f"The airport is in {country}.")
    both = coherence(
        lambda country, symbol: f"The airport is in {country}. The symbol is {symbol}."
    )
    agreeing = coherence(
        lambda country, symbol: (
            f"The airport is in {country}. The symbol is {symbol}. The airport lies in {country}."
        )
    )
    assert (alone, both, agreeing) == (0.5, 1, 1)
    torn = coherence(
        lambda country, symbol: (
            f"The symbol is {symbol}. The airport is in {country}. The airport is not in {country}."
        )
    )
    assert torn < alone


@given(
    sentences_=st.lists(
        st.sampled_from(
            ["Gold is dense.", "Tin melts early.", "NRT is in Japan.", "NRT is in China."]
        ),
        max_size=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_consistency_is_a_share_and_one_sentence_agrees_with_itself(sentences_: list[str]) -> None:
    found = consistency(" ".join(sentences_)).value
    if not sentences_:
        assert found is None
        return
    torn = len({"NRT is in Japan.", "NRT is in China."} & set(sentences_)) == 2
    assert found is not None and (found < 1) is torn


# The report


def test_the_same_evaluation_twice_is_the_same_report() -> None:
    assert evaluate(PERFECT, base=IGNORANT) == evaluate(PERFECT, base=IGNORANT)


def test_the_test_set_is_named_by_its_content() -> None:
    assert evaluate(PERFECT).test_set == evaluate(IGNORANT).test_set
    assert evaluate(PERFECT, examples=AVIATION).test_set != evaluate(PERFECT).test_set


def test_the_report_names_its_metrics_and_resamples() -> None:
    report = evaluate(PERFECT, metric=shy, resamples=300, seed=4)
    assert (report.metric, report.coherence_metric, report.resamples, report.seed) == (
        "shy",
        "consistency",
        300,
        4,
    )


# Bad test sets


@pytest.mark.parametrize(
    ("examples", "what"),
    [
        ([], "no examples"),
        ([example("Where is it?", {"geography": "here"})], "'geography', which has no expert"),
        (
            [
                example("One?", {"aviation": "x"}, id="1"),
                example("Two?", {"aviation": "x"}, id="1"),
            ],
            "the same id",
        ),
        ([AVIATION[0], 3], "not an object"),
    ],
)
def test_a_bad_test_set_is_an_error_before_anything_is_asked(
    examples: list[Any], what: str
) -> None:
    student = knowing(AIRPORTS)
    with pytest.raises(DataError, match=what):
        evaluate(student, examples=examples)
    assert student.calls == []


def test_examples_may_be_dicts() -> None:
    assert (
        evaluate(
            PERFECT, examples=[{"query": "Where is NRT?", "domain": "aviation", "answers": "Japan"}]
        )
        .student.answers[0]
        .correct
    )


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="resamples"):
        DomainRetentionEvaluator(resamples=99)


# Chance


def with_choices(count: int, **fields: Any) -> list[Example]:
    """Questions of which each has so many choices."""
    return [
        example(
            f"Where is {code}{number}?",
            {"aviation": country},
            metadata={"choices": list("abcdefgh"[:count])},
            **fields,
        )
        for code, country in AIRPORTS.items()
        for number in range(10)
    ]


def test_retention_is_corrected_for_chance_where_choices_are_given() -> None:
    student = knowing(dict(list(AIRPORTS.items())[:3]))
    row = evaluate(student, examples=with_choices(4)).retention[0]
    assert row.chance == 0.25
    assert row.chance_corrected is not None
    assert row.chance_corrected.value == pytest.approx((0.75 - 0.25) / (1 - 0.25))
    assert evaluate(student, examples=with_choices(4)).student.slices["aviation"].chance == 0.25


def test_a_metric_may_know_the_chance() -> None:
    class Coin:
        chance = 0.5

        def __call__(self, given: Example, text: str) -> Score:
            return Score(1.0)

    assert evaluate(PERFECT, metric=Coin()).retention[0].chance == 0.5


def test_chance_is_unknown_where_it_is_not_known_of_every_item() -> None:
    row = evaluate(PERFECT, examples=[*with_choices(4), *AVIATION]).retention[0]
    assert (row.chance, row.chance_corrected) == (None, None)


def test_an_expert_that_guesses_leaves_nothing_to_correct() -> None:
    half = knowing(dict(list(AIRPORTS.items())[:2]))
    row = evaluate(
        PERFECT, examples=with_choices(2), experts={**EXPERTS, "aviation": half}
    ).retention[0]
    assert row.chance_corrected is not None
    assert row.chance_corrected.value is None
    assert "better than chance" in row.chance_corrected.reason


def test_what_the_base_leaves_ungraded_takes_nothing_from_retention() -> None:
    silent = ScriptedModel("gold", name="base")

    def no_gold(given: Example, text: str) -> Score:
        return Score.unscored("gold") if "gold" in text else Score(float("It is" in text))

    row = evaluate(PERFECT, metric=no_gold, base=silent).retention[0]
    assert (row.items, row.retention.value, row.base) == (4, 1, None)
    assert row.headroom.reason == "no answer of the base could be graded"


# The borders of domains


def test_adversarial_examples_are_reported_by_ordered_pair_with_their_edge_cases() -> None:
    examples = [
        example(
            "What flies on tin?", {"aviation": "tin"}, apparent_domain="chemistry", id="missed"
        ),
        example(
            "Where is NRT's gold?", {"aviation": "Japan"}, apparent_domain="chemistry", id="right"
        ),
        example(
            "Is gold flown to CDG?", {"chemistry": "Au"}, apparent_domain="aviation", id="known"
        ),
    ]
    report = evaluate(knowing(AIRPORTS), examples=examples)
    assert {
        key: (score.items, score.strict.value) for key, score in report.student.adversarial.items()
    } == {
        "aviation → chemistry": (1, 0.0),
        "chemistry → aviation": (2, 0.5),
    }
    assert (
        result(report, "expert", "chemistry").adversarial["aviation → chemistry"].strict.value == 1
    )
    found = [
        (case.example_id, case.apparent, case.needed, case.experts_know)
        for case in report.edge_cases
    ]
    assert found == [
        ("known", "aviation", "chemistry", True),
        ("missed", "chemistry", "aviation", False),
    ]


# Counted apart


def test_a_looping_answer_is_counted() -> None:
    report = evaluate(ScriptedModel("It is in Japan, I think. " * 8), examples=AVIATION)
    assert report.student.slices["aviation"].repetitive == len(AVIATION)
    assert evaluate(PERFECT).student.slices["aviation"].repetitive == 0


# The overall score


def test_the_overall_score_is_the_weighted_mean_of_its_components() -> None:
    student = knowing(dict(list(AIRPORTS.items())[:2]), SYMBOLS)
    seen = CoherenceValidation(
        metric="m", auroc={"contradicted": Estimate(value=0.95)}, texts=81, text_set="t"
    )
    found = evaluate(
        student,
        coherence_metric=ValidatedCoherence(lambda text: Score(0.8), seen),
        weights={"DER": 2, "CDA": 1, "IC": 1},
    ).overall
    assert found is not None
    assert {part.name: (part.weight, part.score.value) for part in found.components} == {
        "DER": (0.5, 0.75),
        "CDA": (0.25, 0.5),
        "IC": (0.25, pytest.approx(0.75 * 0.8)),
    }
    assert found.score.value == pytest.approx(0.5 * 0.75 + 0.25 * 0.5 + 0.25 * 0.6)


@pytest.mark.parametrize("auroc", [None, 0.89])
def test_a_coherence_that_is_not_validated_has_no_weight(auroc: float | None) -> None:
    seen = auroc and CoherenceValidation(
        metric="m", auroc={"contradicted": Estimate(value=auroc)}, texts=81, text_set="t"
    )
    student = knowing(dict(list(AIRPORTS.items())[:2]), SYMBOLS)

    def metric(text: str) -> Score:
        return Score(0.8)

    coherence = ValidatedCoherence(metric, seen) if seen else metric
    found = evaluate(student, coherence_metric=coherence).overall
    assert found is not None
    assert [part.weight for part in found.components] == [
        pytest.approx(0.5 / 0.8),
        pytest.approx(0.3 / 0.8),
        0,
    ]
    assert "validated" in found.components[2].about
    alone = evaluate(student, weights={"IC": 1}).overall
    assert alone is not None and alone.score.value is None and alone.score.reason


def test_the_overall_score_is_undefined_where_a_component_is() -> None:
    found = evaluate(PERFECT, examples=AVIATION).overall
    assert found is not None
    assert found.score.value is None
    assert "CDA and IC" in found.score.reason
    experts = {"aviation": EXPERTS["aviation"]}
    alone = evaluate(PERFECT, examples=AVIATION, experts=experts, weights={"DER": 1}).overall
    assert alone is not None
    assert alone.score.value == 1


def test_a_domain_in_which_the_student_is_better_pays_for_no_other() -> None:
    experts = {**EXPERTS, "aviation": knowing(dict(list(AIRPORTS.items())[:2]))}
    report = evaluate(
        knowing(AIRPORTS, dict(list(SYMBOLS.items())[:2])), experts=experts, weights={"DER": 1}
    )
    assert [row.retention.value for row in report.retention] == [2, 0.5]
    assert report.overall is not None
    assert report.overall.score.value == 0.75


@pytest.mark.parametrize(
    "weights", [{}, {"DER": 0}, {"DER": -1}, {"speed": 1}, {"DER": float("nan")}]
)
def test_weights_that_make_no_mean_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="weights"):
        DomainRetentionEvaluator(weights=weights)


@pytest.mark.parametrize("options", [{"margin": 0}, {"margin": 1.5}, {"on_overlap": "ignore"}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"margin|on_overlap"):
        DomainRetentionEvaluator(**options)


def test_a_second_answer_is_drawn_at_a_temperature() -> None:
    with pytest.raises(ConfigurationError, match="second_temperature"):
        AgreementSettings(second_temperature=0)


def test_agreement_needs_a_function_and_a_model() -> None:
    wrong: Any = 0.9
    with pytest.raises(ConfigurationError, match="The similarity is not a function"):
        AgreementSettings(similarity=wrong)
    with pytest.raises(CapabilityError, match="The judge can't answer"):
        AgreementSettings(judge=wrong)
    with pytest.raises(ConfigurationError, match=r"agreement is not known; .*AgreementSettings"):
        DomainRetentionEvaluator(agreement=wrong)


# What was trained on


def test_trained_queries_are_refused_before_anything_is_asked() -> None:
    student = knowing(AIRPORTS)
    with pytest.raises(DataError, match=r"1 of 12 test queries were trained on, 1 as they are"):
        DomainRetentionEvaluator().evaluate(
            student, EXPERTS, TEST, trained_on=[{"query": "where is  NRT?", "domain": "aviation"}]
        )
    assert student.calls == []


def test_trained_queries_may_be_left_out_and_reported() -> None:
    evaluator = DomainRetentionEvaluator(resamples=200, on_overlap="report")
    report = evaluator.evaluate(PERFECT, EXPERTS, TEST, trained_on=AVIATION[:1])
    assert report.overlap is not None
    assert report.overlap.same == (AVIATION[0].id,)
    assert report.retention[0].items == len(AVIATION) - 1
    assert AVIATION[0].id not in {answer.example_id for answer in report.student.answers}
