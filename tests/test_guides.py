"""The guides keep their word: their code runs from the first line to the last, and their recipes
are valid.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domainfusion.distillation import (
    CuratedDataGenerator,
    Distiller,
    DomainRetentionEvaluator,
    EvaluationReport,
    Focus,
    MultiTaskTrainer,
    RunSettings,
    SequentialTrainer,
)
from domainfusion.distillation.trainer.trainer import OBJECTIVES
from domainfusion.merging.methods import WEIGHTS
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.recipe import build_distiller, read_recipe
from domainfusion.types import Example, Integration, Sampling, TrainingRecord

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
DOMAINS = ("biomechanics", "physiology", "nutrition")
SHORT = Sampling(max_new_tokens=4)


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(
        rf"```{language}\n(.*?)```", (GUIDES / guide).read_text(encoding="utf-8"), re.DOTALL
    )


def run_code(
    guide: str, names: dict[str, Any], quick: dict[str, str] | None = None
) -> dict[str, Any]:
    """Runs a guide's code with the changes that make it quick, each of which has to be there to be
    changed.
    """
    code = "\n".join(blocks(guide, "python"))
    for written, instead in (quick or {}).items():
        assert written in code, written
        code = code.replace(written, instead)
    exec(compile(code, guide, "exec"), names)
    return names


def test_the_figures_of_the_trainers_guide_are_those_of_the_benchmark() -> None:
    published = (GUIDES.parents[1] / "benchmarks" / "quality" / "quality.md").read_text(
        encoding="utf-8"
    )
    told = re.findall(
        r"\d\.\d{3} \(\d\.\d{3}–\d\.\d{3}\)",
        (GUIDES / "trainers_and_objectives.md").read_text(encoding="utf-8"),
    )
    assert len(told) > 12
    assert [figure for figure in told if figure not in published] == []


@pytest.fixture
def models(
    tiny_llama: Path,
    make_adapter: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A working directory in which the guides' paths lead to a tiny base and adapters on it."""
    folder = tmp_path / "path" / "to"
    folder.mkdir(parents=True)
    (folder / "base-model").symlink_to(tiny_llama)
    for seed, domain in enumerate(DOMAINS):
        (folder / f"{domain}-adapter").symlink_to(make_adapter(domain, seed))
    monkeypatch.chdir(tmp_path)
    return folder


def write_questions(path: str, wording: str) -> None:
    singles = [(domain,) for domain in DOMAINS]
    pairs = [(first, second) for first in DOMAINS for second in DOMAINS if first < second]
    lines = [
        {
            "query": f"{wording} {' and '.join(names)}?",
            "domains": names,
            "answers": {name: name[0] for name in names},
        }
        for names in (*singles, *pairs)
    ]
    Path(path).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def test_three_lora_experts_become_one(models: Path) -> None:
    write_questions("questions.jsonl", "What is there to know of")
    write_questions("test.jsonl", "Tell me something about")
    writer = (
        "ScriptedModel(lambda prompt: f'What follows from number {len(prompt)} in a long race?')"
    )
    quick = {
        "generation_model=base": f"generation_model={writer}",
        "num_examples=200": "num_examples=2",
        "num_examples=40": "num_examples=1",
        "epochs=3": "epochs=1",
        "DomainRetentionEvaluator()": "DomainRetentionEvaluator(sampling=SHORT, resamples=100)",
        "settings=RunSettings(": "settings=RunSettings(response_sampling=SHORT, ",
    }
    names = run_code(
        "three_lora_experts.md", {"ScriptedModel": ScriptedModel, "SHORT": SHORT}, quick
    )
    assert isinstance(names["distiller"].report, EvaluationReport)
    assert (
        Path("sports-model/model.safetensors").is_file()
        and Path("sports-adapter/adapter_config.json").is_file()
    )
    assert "merge" in {model.role for model in names["distiller"].report.models}


def test_the_recipe_of_the_three_experts_is_the_run_of_the_guide(models: Path) -> None:
    write_questions("questions.jsonl", "What is there to know of")
    write_questions("test.jsonl", "Tell me something about")
    (text,) = blocks("three_lora_experts.md", "yaml")
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    distiller = build_distiller(read_recipe(Path("recipe.yaml")))
    assert tuple(distiller.teacher_models) == DOMAINS
    assert distiller.output_dir.parts[-2:] == ("runs", "sports")


def test_the_questions_of_the_guide_can_be_read(models: Path) -> None:
    (text,) = blocks("three_lora_experts.md", "json")
    lines = text.replace(",\n ", ", ").splitlines()
    generator = CuratedDataGenerator([json.loads(line) for line in lines])
    assert [example.domains for example in generator.examples] == [
        ("biomechanics",),
        ("biomechanics", "nutrition"),
    ]
    assert generator.examples[1].question_for("nutrition") == "Which sugar do muscles store?"


def test_a_report_is_read_as_the_guide_says(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_questions("questions.jsonl", "What is there to know of")
    write_questions("test.jsonl", "Tell me something about")
    Distiller(
        student_model=LlamaModel(models / "base-model"),
        teacher_models={
            domain: ScriptedModel(f"It begins with {domain[0]}", name=domain) for domain in DOMAINS
        },
        data_generators=[CuratedDataGenerator("questions.jsonl")],
        trainer=MultiTaskTrainer(learning_rate=1e-3, epochs=1, batch_size=3),
        evaluator=DomainRetentionEvaluator(sampling=SHORT, resamples=100),
        settings=RunSettings(response_sampling=SHORT),
        test_examples="test.jsonl",
        output_dir="runs/sports",
    ).distill()
    run_code("reading_the_report.md", {})
    said = capsys.readouterr().out
    assert all(f"{domain}" in said.lower() for domain in DOMAINS)
    assert "held back by ['DER>=0.95 (biomechanics): 0.000" in said
    assert Path("report-to-send.html").read_text(encoding="utf-8") == Path(
        "runs/sports/report.html"
    ).read_text(encoding="utf-8")


def test_trainers_and_objectives_are_as_the_guide_says(
    models: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "law-expert").symlink_to(tiny_llama)
    names = run_code("trainers_and_objectives.md", {"__name__": "guide"})
    assert (
        "the student can learn the teacher's distributions as they are" in capsys.readouterr().out
    )
    assert tuple(names["in_turn"].order) == ("law", "tax") and names["together"].shares == {
        "law": 0.5,
        "tax": 0.5,
    }
    assert names["steady"].early_stopping_patience == 3
    assert names["careful"].replay == 0.2
    assert (
        names["richer"].objective.__class__
        is names["softer"].objective.__class__
        is names["DistributionObjective"]
    )
    forum = names["FromOurForum"]()
    more = forum.generate(
        focus=Focus(
            weights={("nutrition",): 1.0, ("physiology",): 0.0}, earlier=tuple(forum.generate())
        )
    )
    assert [given.query for given in more] == names["QUESTIONS"]["nutrition",][
        1:
    ] and forum.has_more
    targets = [Integration(text="a" * length, method="given") for length in range(1, 5)]
    records = [
        TrainingRecord(
            example=Example(query=f"{t.text}?", domains=("law",)), responses=(), integration=t
        )
        for t in targets
    ]
    assert [
        [len(record.target) for record in phase.records]
        for phase in names["trainer"].phases(records)
    ] == [[1, 2], [1, 2, 3, 4]]
    assert names["trainer"].train(LlamaModel(tiny_llama), records).ask("1?") is not None


def test_experts_are_merged_as_the_guide_says(
    models: Path,
    tiny_llama: Path,
    make_adapter: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("law", "tax"):
        Path(f"{name}-expert").symlink_to(make_adapter(name, ord(name[0])))
    Path("base").symlink_to(tiny_llama)
    names = run_code("merging.md", {})
    assert Path("merged-model/config.json").is_file()
    candidates = names["choice"].candidates
    assert len(candidates) == 4 and candidates[0].name in capsys.readouterr().out


def test_every_setting_against_forgetting_has_a_row_in_the_guide() -> None:
    text = (GUIDES / "trainers_and_objectives.md").read_text(encoding="utf-8")
    own = inspect.signature(SequentialTrainer).parameters.keys() - {"settings"}
    assert all(
        re.search(rf"^\| `{name}=", text, re.MULTILINE)
        for name in (*own, "early_stopping_patience", "merge")
    )
    assert f"{WEIGHTS[0]:g}, {WEIGHTS[1]:g} … {WEIGHTS[-1]:g}" in text


def test_what_the_guide_says_of_choices_and_phase_ends_is_what_a_training_writes(
    tiny_llama: Path, tmp_path: Path
) -> None:
    answers = [Integration(text=f"{domain}.", method="given") for domain in ("law", "tax")]
    records = [
        TrainingRecord(
            example=Example(query="?", domains=(a.text[:-1],)), responses=(), integration=a
        )
        for a in answers
    ]
    student = LlamaModel(tiny_llama, dtype="float32")
    trainer = SequentialTrainer(learning_rate=1e-3, epochs=1)
    trainer.train(student, records, validate=lambda _: {"law": 1.0, "tax": 0.5}, directory=tmp_path)
    chosen = json.loads((tmp_path / "choices.json").read_text())["order"]
    assert set(chosen["value"]) == set(chosen["measured"]) == {"law", "tax"}
    ends = [
        line
        for line in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
        if line.get("finished") is True
    ]
    assert [line["phase"] for line in ends] == chosen["value"]
    assert all(
        set(line["validation"]) == set(line["divergence_from_base"]) == {"law", "tax"}
        for line in ends
    )


def test_every_objective_has_a_row_in_the_guide() -> None:
    text = (GUIDES / "trainers_and_objectives.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in OBJECTIVES)


def test_the_code_of_the_exporting_guide_runs(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student").symlink_to(tiny_llama)
    run_code("exporting.md", {})
    assert (tmp_path / "out" / "student.gguf").is_file()
    assert 'SYSTEM """Answer in one sentence."""' in (tmp_path / "out" / "Modelfile").read_text()
