"""Coherence falls with every corruption it claims to see, and what is claimed of it was measured on
other texts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.evaluator import consistency
from domainfusion.distillation.metrics import (
    JudgedCoherence,
    ModelCoherence,
    Passage,
    read_passages,
    sentences,
    validate_coherence,
)
from domainfusion.distillation.metrics.coherence import (
    CORRUPTIONS,
    corrupt,
    dangling,
    form,
    freshness,
    known_validation,
    likelihood,
    repetition,
)
from domainfusion.distillation.metrics.grading import grade_coherence, name_of
from domainfusion.distillation.results import Coherence, CoherenceValidation, Estimate
from domainfusion.errors import CapabilityError, DataError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.types import Score

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HELD_OUT = "fc9fe71a6e819f091c25e387940990c55226f54724a2f5ffe81a71175e2dbc34"
"""SHA-256 of the held-out passages as they were put away, before any metric was made."""

SOUND = "Sprinters land on the forefoot. Their calves store energy at each step. Rest restores it."


# The passages


def test_the_held_out_passages_are_those_that_were_put_away() -> None:
    content = (
        resources.files("domainfusion.distillation.metrics")
        .joinpath("passages", "held_out.txt")
        .read_bytes()
    )
    assert hashlib.sha256(content).hexdigest() == HELD_OUT


def test_the_halves_share_no_field_and_no_text() -> None:
    one, other = read_passages("development"), read_passages("held_out")
    assert len(one) >= 70 and len(other) >= 80
    assert not {passage.field for passage in one} & {passage.field for passage in other}
    assert not {passage.text for passage in one} & {passage.text for passage in other}


@pytest.mark.parametrize("half", ["development", "held_out"])
def test_every_passage_has_sentences_to_corrupt_and_ends(half: str) -> None:
    for passage in read_passages(half):  # type: ignore[arg-type]
        assert 4 <= len(sentences(passage.text)) <= 7, passage.text
        assert passage.text.endswith(".") and passage.contradiction.endswith(".")
        assert len(sentences(passage.contradiction)) == 1, passage.contradiction


# The corruptions


def test_each_corruption_does_what_it_says() -> None:
    passages = read_passages("development")
    found = corrupt(passages, seed=3)
    for place, passage in enumerate(passages):
        given = sentences(passage.text)
        shuffled, contradicted, truncated = (
            str(found[name][place]) for name in ("shuffled", "contradicted", "truncated")
        )
        assert sentences(shuffled) != given and sorted(sentences(shuffled)) == sorted(given)
        assert [
            sentence for sentence in sentences(contradicted) if sentence != passage.contradiction
        ] == given
        assert (
            passage.text.startswith(truncated)
            and truncated[-1] not in ".!?"
            and len(truncated) > len(passage.text) / 3
        )
        assert repetition(str(found["looped"][place])) > 0.05
        half = sentences(str(found["concatenated"][place]))
        assert half[0] == given[0] and half[-1] not in given
        denied = found["contradicted in the same words"][place]
        assert denied is None or (
            len(sentences(denied)) == len(given) + 1 and set(given) < set(sentences(denied))
        )


def test_equal_seeds_make_equal_corruptions() -> None:
    passages = read_passages("development")
    assert corrupt(passages, seed=1) == corrupt(passages, seed=1) != corrupt(passages, seed=2)


def test_what_can_not_be_corrupted_has_no_version() -> None:
    single = Passage("one", "It stands.", "It lies.")
    found = corrupt([single, single], seed=0)
    assert (
        found["shuffled"]
        == found["concatenated"]
        == found["contradicted in the same words"]
        == [None, None]
    )


# The surface


# What can be seen without a model


def seen(text: str) -> float:
    return form(text) * freshness(sentences(text)) * likelihood(-dangling(sentences(text)))


@pytest.mark.parametrize(
    "corrupted",
    [
        pytest.param(f"{SOUND} Rest restores it.", id="repeated"),
        pytest.param(" ".join([SOUND] * 5), id="looped"),
        pytest.param(SOUND[:-12], id="broken off"),
        pytest.param("the calves the calves the calves the calves the calves.", id="stuttering"),
        pytest.param(f"{SOUND} Their calves do not store energy at each step.", id="denied"),
        pytest.param(" ".join(sentences(SOUND)[::-1]), id="turned round"),
    ],
)
def test_what_can_be_seen_without_a_model_falls_with_it(corrupted: str) -> None:
    assert 0 <= seen(corrupted) < seen(SOUND)


@given(text=st.text())
def test_what_can_be_seen_is_a_share(text: str) -> None:
    assert 0 <= seen(text) <= 1


def test_an_empty_answer_has_no_coherence_rather_than_a_bad_one(reference: LlamaModel) -> None:
    assert consistency(" \n").value is None
    assert [
        score.value is None
        for score in grade_coherence(ModelCoherence(reference), ["", SOUND, " "])
    ] == [True, False, True]


def test_two_sentences_have_no_order(reference: LlamaModel) -> None:
    for text in ("It rains.", "It rains. The street is wet."):
        (found,) = grade_coherence(ModelCoherence(reference), [text])
        assert (found.value, found.reason) == (
            None,
            "fewer than 3 sentences have no order to grade",
        )


# A model's view


@pytest.fixture(scope="module")
def reference(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


def test_a_models_view_is_a_share_that_does_not_depend_on_the_company(
    reference: LlamaModel,
) -> None:
    texts = [
        SOUND,
        "Rain falls. Rivers rise. Boats float. Fish swim.",
        "Gold melts. Iron rusts. Salt dissolves.",
        SOUND,
    ]
    together = grade_coherence(ModelCoherence(reference), texts)
    alone = [grade_coherence(ModelCoherence(reference), [text])[0] for text in texts]
    assert [score.value for score in together] == pytest.approx(
        [score.value for score in alone], rel=1e-4
    )
    assert all(score.value is not None and 0 <= score.value <= 1 for score in together)


def test_of_two_sentences_one_order_gains_what_the_other_loses(reference: LlamaModel) -> None:
    given = tuple(sentences("The calf stores energy. Rest restores it."))
    views = ModelCoherence(reference)._views([given, given[::-1]])
    assert views[given].order == pytest.approx(-views[given[::-1]].order, abs=0.05)


def test_a_text_beyond_the_models_context_is_unscored_and_the_others_are_not(
    reference: LlamaModel,
) -> None:
    long, short = grade_coherence(ModelCoherence(reference), [" ".join([SOUND] * 40), SOUND])
    assert long.value is None and "context" in long.reason
    assert short.value is not None


def test_a_model_of_text_alone_has_no_view() -> None:
    with pytest.raises(CapabilityError, match="JudgedCoherence"):
        ModelCoherence(ScriptedModel("fine"))


# What is known of a metric


def few() -> list[Passage]:
    return [*read_passages("held_out")[:6], *read_passages("held_out")[-6:]]


def test_a_metric_that_knows_the_sound_texts_is_validated() -> None:
    sound = {passage.text for passage in few()}
    found = validate_coherence(lambda text: Score(float(text in sound)), few(), resamples=200)
    assert found.passed and found.reached == tuple(CORRUPTIONS) and found.missed == ()
    assert all(estimate.value == estimate.low == 1 for estimate in found.auroc.values())
    assert str(found).startswith("validated: AUROC shuffled 1.00")


def test_a_metric_that_knows_nothing_is_at_chance_and_named_for_it() -> None:
    found = validate_coherence(lambda text: Score(0.5), few(), resamples=200)
    assert not found.passed and found.missed == tuple(CORRUPTIONS)
    assert all(estimate.value == 0.5 for estimate in found.auroc.values())
    assert (
        str(found)
        == f"validated in part: not reached on {', '.join(f'{name} 0.50' for name in CORRUPTIONS)}"
    )


def test_texts_without_a_grade_are_counted_and_in_no_figure() -> None:
    found = validate_coherence(lambda text: Score.unscored("shy"), few(), resamples=200)
    assert all(estimate.value is None for estimate in found.auroc.values())
    assert found.unscored >= 6 * len(few()) and not found.passed


def test_a_judge_is_measured_like_any_metric() -> None:
    sound = {passage.text for passage in few()}
    judge = JudgedCoherence(
        ScriptedModel(lambda prompt: "5" if any(text in prompt for text in sound) else "2")
    )
    assert {
        name
        for name in CORRUPTIONS
        if name in validate_coherence(judge, few(), resamples=200).reached
    } >= {"shuffled", "truncated"}


def test_one_text_is_too_few() -> None:
    with pytest.raises(DataError, match="too few"):
        validate_coherence(consistency, few()[:1])


def test_a_custom_metric_is_not_known() -> None:
    def own(text: str) -> Score:
        return Score(1.0)

    assert known_validation(own) is None


@pytest.mark.slow
def test_what_is_known_of_the_rules_is_what_is_measured() -> None:
    known = known_validation(consistency)
    assert known is not None and known.command and known.date
    found = validate_coherence(consistency, resamples=200)
    assert {name: estimate.value for name, estimate in found.auroc.items()} == pytest.approx(
        {name: estimate.value for name, estimate in known.auroc.items()}
    )
    assert (found.texts, found.text_set, found.meant) == (known.texts, known.text_set, known.meant)


def test_a_metric_answers_for_what_it_is_meant_to_see() -> None:
    """Other corruptions are measured too, and take nothing from its standing."""
    areas = {"contradicted": Estimate(value=0.95), "shuffled": Estimate(value=0.5)}
    found = CoherenceValidation(
        metric="m", auroc=areas, texts=9, text_set="t", meant=("contradicted",)
    )
    assert found.passed and not replace(found, meant=()).passed
    measured = validate_coherence(consistency, few(), resamples=100)
    assert measured.meant == ("contradicted", "contradicted in the same words")


def test_the_default_metric_has_weight_where_it_is_validated_alone() -> None:
    known = known_validation(consistency)
    assert known is not None
    assert known.passed is all((known.auroc[name].value or 0) >= 0.9 for name in known.meant)


def test_the_published_figures_are_those_that_reports_use() -> None:
    published = json.loads((BENCHMARKS / "coherence.json").read_text(encoding="utf-8"))
    shipped = (
        resources.files("domainfusion.distillation.metrics")
        .joinpath("passages", "measured.json")
        .read_text(encoding="utf-8")
    )
    assert [
        found for name, found in published["results"].items() if "development" not in name
    ] == json.loads(shipped)
    assert known_validation(consistency) is not None
    prose = (BENCHMARKS / "coherence.md").read_text(encoding="utf-8")
    for found in published["results"].values():
        assert all(str(Estimate(**estimate)) in prose for estimate in found["auroc"].values())


def test_the_metric_is_known_by_its_model(reference: LlamaModel) -> None:
    assert name_of(ModelCoherence(reference)).startswith(f"ModelCoherence({reference.name}, ")
    assert known_validation(ModelCoherence(reference)) is None


@pytest.mark.parametrize(
    ("auroc", "words"),
    [
        (0.95, "validated: AUROC looped 0.95"),
        (0.7, "validated in part: not reached on looped 0.70"),
    ],
)
def test_a_report_says_what_is_known(auroc: float, words: str) -> None:
    validation = CoherenceValidation(
        metric="m", auroc={"looped": Estimate(value=auroc)}, texts=9, text_set="t"
    )
    whole = Estimate(value=1.0)
    coherence = Coherence(
        score=Estimate(value=0.8), coverage=whole, consistency=whole, items=3, validation=validation
    )
    assert coherence.standing == words


@pytest.mark.slow
def test_the_demos_base_sees_what_is_published() -> None:
    from domainfusion.demo.world import base_folder

    known = known_validation(
        ModelCoherence(LlamaModel(base_folder(), name="SmolLM2-135M-Instruct", dtype="bfloat16"))
    )
    assert known is not None
    # A processor without units for bfloat16 takes a hundred times as long in it; float32 there sees
    # the same.
    metric = ModelCoherence(LlamaModel(base_folder(), name="SmolLM2-135M-Instruct", batch_size=16))
    found = validate_coherence(metric, read_passages("held_out")[::8], resamples=200)
    for name in known.reached:
        assert (found.auroc[name].value or 0) > 0.8
