from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from domainfusion.cli.dry_run import Timed, render_times, time_plan
from domainfusion.cli.main import main
from domainfusion.cli.plan import RunPlan, plan_of
from domainfusion.cli.preflight import _gguf_shapes, memory_of
from domainfusion.distillation.integration.integrator import (
    CALLS_UNVERIFIED,
    MOST_CALLS,
)
from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import HuggingFaceModel
from domainfusion.recipe import read_recipe
from domainfusion.records import read_records
from domainfusion.reports.tables import money
from domainfusion.types import TrainingRecord
from domainfusion.wording import in_words


def with_(recipe_file: Path, old: str, new: str) -> Path:
    path = recipe_file.with_name("planned.yaml")
    text = recipe_file.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_the_calls_of_a_plan_are_those_of_the_run(recipe_file: Path, finished_run: Path) -> None:
    plan = plan_of(read_recipe(recipe_file))
    records = read_records(finished_run / "records.jsonl", TrainingRecord)
    asked = Counter(response.domain for record in records for response in record.responses)
    assert {call.model: call.count for call in plan.calls if call.stage == "collect"} == asked
    models = json.loads((finished_run / "evaluation.json").read_text())["models"]
    # The ensemble of this run asks nobody anew: no question has a part for each expert, and no
    # model integrates.
    measured = [
        model["name"] for model in models if model["answers"] and model["role"] != "ensemble"
    ]
    assert len([call for call in plan.calls if call.stage == "evaluate"]) == len(measured)
    assert all(call.count == plan.test == 3 for call in plan.calls if call.stage == "evaluate")
    assert plan.train == len(records)
    log = (finished_run / "training" / "log.jsonl").read_text().splitlines()
    assert plan.steps == sum("loss" in json.loads(line) for line in log)
    written = {
        record.example.id: max(response.completion_tokens for response in record.responses)
        for record in records
    }
    assert max(written.values()) <= 8
    assert all(call.written == 8 * call.count for call in plan.calls)


@pytest.mark.parametrize(("ratio", "crossing"), [(0, 0), (0.5, 5), (1, 10)])
def test_questions_across_domains_are_put_to_both_experts(
    recipe_file: Path, ratio: float, crossing: int
) -> None:
    generator = (
        f"  - {{type: synthetic, model: student, num_examples: 10, cross_domain_ratio: {ratio},"
        " max_rounds: 2}\n"
    )
    plan = plan_of(read_recipe(with_(recipe_file, "responses:", generator + "responses:")))
    curated = 5
    assert (
        sum(call.count for call in plan.calls if call.stage == "collect") == curated + 10 + crossing
    )
    generating = {call.doing: call.count for call in plan.calls if call.stage == "generate"}
    assert generating == {"synthetic": 20, "topics": 2, "judging": 20}


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        (
            "",
            [("student", "topics", 2), ("student", "adversarial", 20), ("student", "judging", 40)],
        ),
        (
            "judge: animals, max_questions: 7, variety: {topics: {animals: [cats]}}",
            [("student", "topics", 1), ("student", "adversarial", 7), ("animals", "judging", 14)],
        ),
        ("verify: false, variety: {topics_per_domain: 0}", [("student", "adversarial", 20)]),
    ],
)
def test_adversarial_questions_are_judged_twice_each(
    recipe_file: Path, settings: str, calls: list[tuple[str, str, int]]
) -> None:
    generator = f"  - {{type: adversarial, model: student, num_examples: 10, max_rounds: 2, {settings}}}\n".replace(
        ", }", "}"
    )
    plan = plan_of(read_recipe(with_(recipe_file, "responses:", generator + "responses:")))
    assert [
        (call.model, call.doing, call.count) for call in plan.calls if call.stage == "generate"
    ] == calls


PRICES = "price_per_million_input_tokens: 3, price_per_million_output_tokens: 9"
JUDGE = f"judge: {{model: judge-large, base_url: 'http://127.0.0.1:9/v1', {PRICES}}}"
MEASURED = 5
"""Student, base, the experts' merge, and two experts."""


def judged(plan: RunPlan) -> dict[str, int]:
    return {call.doing: call.count for call in plan.calls if call.model == "judge-large"}


@pytest.mark.parametrize(
    ("settings", "answers", "together"),
    [
        (
            "metric: judge",
            3,
            3,
        ),  # together: the ensemble's answer across domains, and each part on its own expert's
        (
            "metrics: {animals: judge}",
            2,
            1,
        ),  # of the question across domains one part is the judge's, which saw it of the expert
        ("metric: judge, metrics: {animals: exact}", 2, 1),
        (
            "metrics: {animals: judge, colours: judge}",
            3,
            3,
        ),  # which then grades the two parts as one
        ("coherence: rules", 0, 0),
    ],
)
def test_a_judge_sees_every_graded_answer_of_every_model_in_both_orders(
    recipe_file: Path, settings: str, answers: int, together: int
) -> None:
    plan = plan_of(
        read_recipe(with_(recipe_file, "resamples: 100", f"resamples: 100, {JUDGE}, {settings}"))
    )
    assert judged(plan) == ({"judging": 2 * (MEASURED * answers + together)} if answers else {})


def test_coherence_is_judged_once_for_each_answer_of_the_student_across_domains(
    recipe_file: Path,
) -> None:
    plan = plan_of(
        read_recipe(
            with_(recipe_file, "resamples: 100", f"resamples: 100, {JUDGE}, coherence: judge")
        )
    )
    assert judged(plan) == {"judging coherence": 1}


def test_agreement_is_judged_where_nobody_says_what_is_right(recipe_file: Path) -> None:
    unreferenced = [
        {"query": "What does a dog eat?", "domain": "animals"},
        {
            "query": "What does an ape eat and what mixes to brown?",
            "domains": ["animals", "colours"],
        },
    ]
    questions = [
        recipe_file.with_name("test.jsonl").read_text(),
        *(json.dumps(question) + "\n" for question in unreferenced),
    ]
    recipe_file.with_name("unreferenced.jsonl").write_text("".join(questions))
    settings = f"test_examples: unreferenced.jsonl, agreement_{JUDGE}"
    plan = plan_of(read_recipe(with_(recipe_file, "test_examples: test.jsonl", settings)))
    pairs = 3  # an answer and the expert's: one of the first question, two of the second
    assert judged(plan) == {"judging agreement": 2 * 3 * pairs}
    assert {call.model: call.count for call in plan.calls if call.doing == "asked again"} == {
        "animals": 2,
        "colours": 1,
    }


def test_a_judge_has_its_cost_and_is_named_once(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = with_(
        recipe_file, "resamples: 100", f"resamples: 100, {JUDGE}, metric: judge, coherence: judge"
    )
    plan = plan_of(read_recipe(recipe))
    calls = [call for call in plan.calls if call.model == "judge-large"]
    assert all(call.cost == (3 * call.read + 9 * call.written) / 1e6 for call in calls)
    assert all(call.written == 16 * call.count for call in calls)
    assert main(["distill", str(recipe), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    [line] = [line for line in shown.splitlines() if line.startswith("Cost:")]
    assert line.count("judge-large") == 1 and money(sum(call.cost or 0 for call in calls)) in line
    assert "judge-large, judging coherence" in shown


def test_the_items_of_benchmarks_are_asked_and_judged_too(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [
        {"query": f"What does a {who} eat?", "answers": {"animals": "corn"}}
        for who in ("goose", "duck")
    ]
    recipe_file.with_name("bench.jsonl").write_text(
        "".join(json.dumps(item) + "\n" for item in items)
    )
    benchmarks = "benchmarks: {animals: [bench.jsonl]}, general: [{task: some_task}]"
    recipe = with_(
        recipe_file, "resamples: 100", f"resamples: 100, {JUDGE}, metric: judge, {benchmarks}"
    )
    plan = plan_of(read_recipe(recipe))
    assert {call.count for call in plan.calls if call.stage == "evaluate" and not call.doing} == {5}
    assert judged(plan) == {"judging": 2 * (MEASURED * 5 + 3)}
    assert main(["distill", str(recipe), "--dry-run"]) == 0
    assert "tasks of lm-evaluation-harness (some_task)" in capsys.readouterr().out


def test_what_checkpoints_are_chosen_by_is_not_trained_on_either(recipe_file: Path) -> None:
    generator = "  - {type: adversarial, model: student, num_examples: 36}\n"
    held = recipe_file.read_text().replace(
        "test_examples: test.jsonl", "holdout: 0.25, validation_holdout: 0.1"
    )
    recipe_file.with_name("planned.yaml").write_text(
        held.replace("responses:", generator + "responses:")
    )
    plan = plan_of(read_recipe(recipe_file.with_name("planned.yaml")))
    assert (plan.train, plan.test) == (25, 10)


def test_what_is_held_out_is_not_trained_on(recipe_file: Path) -> None:
    generator = "  - {type: adversarial, model: student, num_examples: 36}\n"
    held = (
        recipe_file.read_text()
        .replace("test_examples: test.jsonl", "holdout: 0.25")
        .replace("responses:", generator + "responses:")
    )
    recipe_file.with_name("planned.yaml").write_text(held)
    plan = plan_of(read_recipe(recipe_file.with_name("planned.yaml")))
    assert (plan.train, plan.test) == (30, 10)


def integrating(recipe_file: Path, integrator: str) -> list[tuple[str, str, int]]:
    plan = plan_of(
        read_recipe(with_(recipe_file, "responses:", f"integrator: {{{integrator}}}\nresponses:"))
    )
    return [
        (call.model, call.doing, call.count) for call in plan.calls if call.stage == "integrate"
    ]


def test_integration_by_a_model_is_counted_where_experts_meet(recipe_file: Path) -> None:
    read = [("animals", "reading", 1), ("animals", "relating", 2)]
    verified = integrating(recipe_file, "type: model, model: animals")
    assert verified == [*read, ("animals", "writing", 2), ("animals", "verifying", 2)]
    assert sum(count for _, _, count in verified) == MOST_CALLS
    plain = integrating(recipe_file, "type: model, model: animals, verify: false")
    assert plain == [*read, ("animals", "writing", 1)]
    assert sum(count for _, _, count in plain) == CALLS_UNVERIFIED


def test_who_verifies_is_counted(recipe_file: Path) -> None:
    assert integrating(recipe_file, "type: model, model: animals, verifier: colours")[-1] == (
        "colours",
        "verifying",
        2,
    )


def test_the_weights_of_a_shared_base_count_once(recipe_file: Path, tiny_llama: Path) -> None:
    recipe = read_recipe(recipe_file)
    memory = {item.what: item for item in memory_of(recipe)}
    parameters = HuggingFaceModel(tiny_llama).parameter_count
    weights = [item for what, item in memory.items() if what.startswith("weights of")]
    assert [(item.low, item.high) for item in weights] == [(2 * parameters, 4 * parameters)]
    assert len([what for what in memory if what.startswith("adapter ")]) == 2
    # Below 100 million parameters all weights are trained, in float32 with the moments of Adam.
    assert memory["training of all weights"].high == 16 * parameters


def test_training_an_adapter_takes_less_than_all_weights(recipe_file: Path) -> None:
    ways = (
        "adaptation: lora, initialization: base, lora_rank: 2",
        "adaptation: lora, initialization: merge",
        "adaptation: full",
    )
    recipes = [
        read_recipe(with_(recipe_file, "type: integration,", f"type: integration, {way},"))
        for way in ways
    ]
    training = [memory_of(recipe)[-1].low for recipe in recipes]
    assert training == sorted(training)
    assert training[0] < training[-1]


def test_a_model_that_is_not_here_has_no_known_size(recipe_file: Path, tiny_llama: Path) -> None:
    recipe = read_recipe(with_(recipe_file, f"student: {tiny_llama}", "student: someone/something"))
    memory = {item.what: item.high for item in memory_of(recipe)}
    assert memory["weights of something"] is None
    assert memory["training"] is None


def test_a_quantized_teacher_takes_what_its_linear_layers_shrink_to_and_no_copy(
    recipe_file: Path, tiny_llama: Path
) -> None:
    text = recipe_file.read_text()
    [adapter] = [
        line.split(": ")[1]
        for line in text.splitlines()
        if line.startswith("  animals: ") and "/" in line
    ]
    sizes = {}
    for quantization in ("4bit", "8bit", None):
        section = f"{{path: {adapter}, base_model: {tiny_llama}" + (
            f", quantization: {quantization}}}" if quantization else "}"
        )
        memory = memory_of(
            read_recipe(with_(recipe_file, f"  animals: {adapter}", f"  animals: {section}"))
        )
        weights = {
            item.what: item
            for item in memory
            if "adapter" not in item.what and "training" not in item.what
        }
        sizes[quantization] = weights.get(
            f"weights of {tiny_llama.name} in {quantization}",
            weights[f"weights of {tiny_llama.name}"],
        )
        copies = [item for item in memory if item.what.startswith("copy of")]
        assert len(copies) == 1, "that of the other teacher's base, which is the student's"
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    linear = sum(
        layer.weight.numel()
        for layer in model.model.layers.modules()
        if isinstance(layer, torch.nn.Linear)
    )
    rest = model.num_parameters() - linear
    assert (sizes["8bit"].low, sizes["8bit"].high) == (2 * rest + linear, 4 * rest + linear)
    assert 2 * rest + 0.5 * linear < sizes["4bit"].low < 2 * rest + 0.55 * linear
    assert sizes[None].low == 2 * (rest + linear)


def test_a_refinement_is_counted_as_if_every_new_example_needed_every_domain(
    recipe_file: Path,
) -> None:
    generator = "  - {type: synthetic, model: student, num_examples: 10, max_rounds: 2}\n"
    text = recipe_file.read_text().replace(
        "responses:", generator + "refinement_rounds: 3\nresponses:"
    )
    recipe_file.with_name("planned.yaml").write_text(
        text.replace("test_examples:", "validation_examples: test.jsonl, test_examples:")
    )
    plan = plan_of(read_recipe(recipe_file.with_name("planned.yaml")))
    assert [
        (call.model, call.doing, call.count) for call in plan.calls if call.stage == "refine"
    ] == [
        ("student", "topics", 3 * 2),
        ("student", "synthetic", 3 * 20),
        ("student", "judging", 3 * 20),
        ("animals", "", 3 * 10),
        ("colours", "", 3 * 10),
        ("animals", "on validation", 1),
        ("colours", "on validation", 1),
    ]
    without = plan_of(read_recipe(with_(recipe_file, "responses:", generator + "responses:")))
    assert [call for call in plan.calls if call.stage != "refine"] == list(without.calls)


def test_further_answers_are_counted_at_most_and_none_at_least(recipe_file: Path) -> None:
    once = plan_of(read_recipe(recipe_file))
    thrice = plan_of(read_recipe(with_(recipe_file, "responses:", "samples: 3\nresponses:")))
    for before, after in zip(once.calls, thrice.calls, strict=True):
        is_more = before.stage == "collect"
        assert after.count == (3 * before.count if is_more else before.count)
        assert after.fewest == before.fewest
    assert [problem for problem in ("0", "-1", "101") if _is_taken(recipe_file, problem)] == []


def test_targets_that_a_server_scores_are_counted_at_most_and_none_at_least(
    recipe_file: Path, make_adapter: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    served = (
        "{model: served, base_url: 'http://127.0.0.1:9/v1', scores: true,"
        " price_per_million_input_tokens: 3, price_per_million_output_tokens: 9}"
    )
    remote = with_(recipe_file, f"animals: {make_adapter('animals', 1)}", f"animals: {served}")
    assert not [call for call in plan_of(read_recipe(remote)).calls if call.doing == "scoring"]
    taught = with_(remote, "learning_rate: 1e-3", "learning_rate: 1e-3, objective: distribution")
    plan = plan_of(read_recipe(taught))
    [call] = [call for call in plan.calls if call.doing == "scoring"]
    # Two of the four examples are of animals alone; that across domains has no integrator.
    assert (call.stage, call.model, call.fewest, call.count) == ("train", "animals", 0, 2)
    assert call.written == 2
    # A question of 20 letters or so, and an answer of 8 tokens.
    assert 2 * 8 < call.read < 2 * 40
    assert call.cost == (3 * call.read + 9 * call.written) / 1e6
    assert main(["distill", str(taught), "--dry-run"]) == 0
    assert "animals, scoring" in capsys.readouterr().out


def _is_taken(recipe_file: Path, samples: str) -> bool:
    try:
        read_recipe(with_(recipe_file, "responses:", f"samples: {samples}\nresponses:"))
    except ConfigurationError as error:
        assert "samples" in str(error)
        return False
    return True


def _header(*fields: bytes, tensors: int = 0) -> bytes:
    """Returns the header of a GGUF file with these fields, followed by nothing."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(fields)) + b"".join(fields)


_ARRAY, _BYTE = 9, 0
_NAME = struct.pack("<Q", 1) + b"a"
"""The name of a field, with its length."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        _header(tensors=2**60),
        _header(_NAME + struct.pack("<IIQ", _ARRAY, _BYTE, 2**60)),
        _header(_NAME + struct.pack("<IIQ", _ARRAY, _ARRAY, 2**60) * 3_000),
        _header(struct.pack("<Q", 2**63)),
        _header(_NAME + struct.pack("<I", 99)),
        _header(tensors=1) + _NAME + struct.pack("<I", 2**31),
    ],
    ids=["empty", "cut", "tensors", "array", "nested", "string", "type", "dimensions"],
)
def test_a_header_that_tells_of_more_than_the_file_holds_is_one_error_in_time(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="header of the GGUF file can't be read"):
        _gguf_shapes(path)


def test_time_is_estimated_from_answers_and_steps_that_were_timed(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = read_recipe(recipe_file)
    plan = plan_of(recipe)
    timed = time_plan(recipe, plan)
    assert timed.step is not None and timed.step > 0
    assert set(timed.answers) >= {*recipe.teachers, "student"}
    shown = render_times(plan, Timed({"animals": 2.0}, 3.0))
    calls = {call.model: 0 for call in plan.calls}
    for call in plan.calls:
        calls[call.model] += call.count
    assert f"{plan.steps:,} steps: {in_words(3.0 * plan.steps)}, at 3 s each" in shown
    assert f"answers: {in_words(2.0 * calls['animals'])}, at 2 s each" in shown
    assert "without colours" in shown and "the training" not in shown
    assert "the training" in render_times(plan, Timed({"animals": 2.0}, None))
    assert render_times(plan, Timed({}, None)).startswith("Time:      not known")
    capsys.readouterr()
    assert main(["distill", str(recipe_file), "--dry-run"]) == 0
    assert re.search(r"^Time: .* on this machine$", capsys.readouterr().out, re.MULTILINE)
