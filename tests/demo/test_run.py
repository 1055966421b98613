"""A slice of the demo on the real SmolLM2 model: what a broken main job can't pass."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from domainfusion.demo.run import build_demo, most_frequent_answer
from domainfusion.demo.world import world_folder
from domainfusion.distillation import EvaluationReport
from domainfusion.types import user

DOMAINS = ("aviation", "chemistry", "geography")


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_committed_experts_are_small_bfloat16_adapters(domain: str) -> None:
    weights = world_folder() / "adapters" / domain / "adapter_model.safetensors"
    assert weights.stat().st_size <= 10_000_000
    with safe_open(weights, framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118 - the file is not a mapping


def test_the_most_frequent_answer_is_silent_on_questions_of_others() -> None:
    baseline = most_frequent_answer({"Where is NRT?": "Japan"})
    assert [answer.text for answer in baseline.generate([user("Where is NRT?"), user("Why?")])] == [
        "Japan",
        "",
    ]
    assert baseline.fingerprint != most_frequent_answer({"Where is NRT?": "Peru"}).fingerprint


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_small_demo_runs_resumes_and_saves_a_student_that_plain_transformers_loads(
    tmp_path: Path,
) -> None:
    distiller = build_demo(tmp_path / "run", small=True)
    student = distiller.distill()
    assert distiller.report is not None
    assert {row.domain for row in distiller.report.retention} == set(DOMAINS)
    experts = {row.domain: row.expert for row in distiller.report.retention}
    assert all(accuracy is not None and accuracy >= 0.75 for accuracy in experts.values()), experts
    assert (tmp_path / "run" / "report.html").is_file()

    distiller.save(tmp_path / "model")
    question = "What is the capital of Japan?"
    assert _ask_with_plain_transformers(tmp_path / "model", question) == student.ask(question)

    started = time.perf_counter()
    again = build_demo(tmp_path / "run", small=True)
    assert again.distill().fingerprint == student.fingerprint
    assert time.perf_counter() - started < 120
    assert again.report is not None
    assert _without_times(again.report) == _without_times(distiller.report)


def _without_times(report: EvaluationReport) -> dict[str, Any]:
    """Returns a report without the seconds that making the merge took, which are measured anew."""
    found = report.to_dict()
    found["notes"] = [re.sub(r"took [\d.,]+ \w+", "", note) for note in found["notes"]]
    return found


def _ask_with_plain_transformers(folder: Path, question: str) -> str:
    program = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, question = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
messages = [{"role": "user", "content": question}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=256, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), question],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
