from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.reports import RunSummary, render_model_card


def metadata(card: str) -> dict[str, Any]:
    first, header, _ = card.split("---\n", 2)
    assert first == ""
    return dict(yaml.safe_load(header))


def test_the_hub_reads_its_metadata(run: RunSummary) -> None:
    data: Any = ModelCard(render_model_card(run), ignore_metadata_errors=False).data
    assert data.license == "apache-2.0"
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert {"domainfusion", "distillation", "aviation", "chemistry", "geography"} <= set(data.tags)


def test_the_results_of_the_hub_are_those_of_the_evaluation(
    run: RunSummary, evaluation: EvaluationReport
) -> None:
    data: Any = ModelCard(render_model_card(run)).data
    results = data.eval_results
    accuracies = [result.metric_value for result in results if result.metric_type == "accuracy"]
    assert accuracies == [score.strict.value for score in evaluation.student.slices.values()]
    kept = {
        result.dataset_name: result.metric_value
        for result in results
        if result.metric_type == "domain_expertise_retention"
    }
    assert kept == {
        f"held-out {row.domain} questions": row.retention.value for row in evaluation.retention
    }


def test_the_title_of_the_run_is_that_of_the_card(run: RunSummary) -> None:
    card = render_model_card(replace(run, student={**run.student, "name": "student"}))
    assert "\n# Three experts, one student\n" in card
    assert metadata(card)["model-index"][0]["name"] == "Three experts, one student"
    assert "\n# nameless\n" in render_model_card(
        replace(run, title="", student={"name": "nameless"})
    )


def test_what_the_base_is_to_the_student_is_told_where_the_base_is_on_the_hub(
    run: RunSummary,
) -> None:
    assert metadata(render_model_card(run))["base_model_relation"] == "finetune"
    adapter = replace(run, student={**run.student, "library_name": "peft"})
    assert metadata(render_model_card(adapter))["base_model_relation"] == "adapter"
    assert "base_model_relation" not in metadata(
        render_model_card(replace(run, student={"base_model": "./base"}))
    )


def test_a_license_that_nobody_stated_is_not_claimed(run: RunSummary) -> None:
    unlicensed = render_model_card(replace(run, student={"name": "s"}))
    assert "license" not in metadata(unlicensed)
    assert "Its license is not stated" in unlicensed
    assert "not stated" not in render_model_card(run)


def test_what_is_not_known_is_not_claimed(run: RunSummary) -> None:
    found = metadata(
        render_model_card(replace(run, student={"name": "s"}, evaluation=None, teachers={}))
    )
    assert found == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["domainfusion", "distillation"],
    }


@pytest.mark.parametrize(
    "folder", ["/home/someone/base", "runs/base/model", "./base", "C:\\models\\base"]
)
def test_a_folder_is_not_a_base_model_for_the_hub(run: RunSummary, folder: str) -> None:
    assert "base_model" not in metadata(
        render_model_card(replace(run, student={"base_model": folder}))
    )


def test_the_base_model_is_found_as_the_run_directory_writes_it(run: RunSummary) -> None:
    assert (
        metadata(render_model_card(replace(run, student={"base model": "org/base"})))["base_model"]
        == "org/base"
    )


def test_an_adapter_is_loaded_with_peft(run: RunSummary) -> None:
    card = render_model_card(replace(run, student={**run.student, "library_name": "peft"}))
    assert metadata(card)["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM.from_pretrained" in card
    assert "AutoPeftModelForCausalLM" not in render_model_card(run)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_code_of_the_card_is_python(run: RunSummary, adapter: bool) -> None:
    student = {**run.student, "library_name": "peft"} if adapter else run.student
    _, code = render_model_card(replace(run, student=student)).split("```python\n")
    compile(code.split("```")[0], "card", "exec")


def test_hostile_names_stay_names(run: RunSummary) -> None:
    hostile = "x: [y]\n---\nlicense: mit <script>"
    card = render_model_card(
        replace(
            run,
            title=hostile,
            student={"name": hostile, "license": hostile},
            teachers={hostile: hostile},
        )
    )
    found = metadata(card)
    assert found["license"] == found["model-index"][0]["name"] == "x: [y] --- license: mit <script>"
    body = card.split("---\n", 2)[2]
    assert "<script>" not in body
    assert "\n---\n" not in body


def test_misses_and_unvalidated_coherence_are_told(run: RunSummary) -> None:
    card = render_model_card(run)
    assert "What it misses:" in card
    assert "by the metric alone (not validated)" in card
