"""The specification holds as it is written: its classes exist where it says, and its usage examples
run from its own text.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import domainfusion.distillation
from domainfusion.distillation import EvaluationReport
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.types import Integration, Sampling, user

SPECIFICATION = Path(__file__).parents[1] / "docs" / "specification.md"
TEXT = SPECIFICATION.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
DOMAINS = {
    "biomechanics": "The study of mechanical laws relating to the movement of living organisms",
    "physiology": "The study of the physiological responses to physical activity",
    "nutrition": "The study of dietary needs and strategies to enhance athletic performance",
}
RESPONSES = {
    "biomechanics_response": "Land softly, so that the calf absorbs less load.",
    "physiology_response": "Lactate is cleared within the hour by easy jogging.",
    "nutrition_response": "Eat carbohydrates within 30 minutes.",
}

IN_SECONDS = {
    # Small weights can't write a question, so a script does; everything else that answers is a real
    # Llama.
    r"generation_model=biomechanics_teacher": "generation_model=question_writer",
    # The text leaves these arguments to the reader.
    r"(SyntheticDataGenerator|AdversarialDataGenerator)\(\.\.\.\)": (
        r"\1(question_writer, domains, num_examples=12)"
    ),
    r"num_examples=500": "num_examples=20",
    r"epochs=3": "epochs=1",
}
"""What is changed in the text of an example, beside its paths."""


@dataclass
class Outcome:
    """What one example of the text left behind."""

    names: dict[str, Any]
    printed: str


def in_seconds(block: str, experts: Path) -> str:
    for pattern, replacement in IN_SECONDS.items():
        block = re.sub(pattern, replacement, block)
    return re.sub(r"path/to/", f"{experts.as_posix()}/", block)


def question_writer() -> ScriptedModel:
    """A model that writes another question each time it is asked."""
    numbers = itertools.count(1)
    return ScriptedModel(
        lambda _: f"How does point {next(numbers)} of this matter to an athlete in training?",
        name="question writer",
    )


@pytest.fixture(scope="module")
def models(
    tiny_llama: Path, make_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder that the text calls path/to: a base that reads long answers, and three experts on
    it.
    """
    root = tmp_path_factory.mktemp("path-to")
    shutil.copytree(tiny_llama, root / "base-model")
    rewrite(root / "base-model" / "config.json", max_position_embeddings=2048)
    for seed, domain in enumerate(DOMAINS, start=1):
        expert = shutil.copytree(make_adapter(domain, seed), root / f"{domain}-expert")
        rewrite(expert / "adapter_config.json", base_model_name_or_path=str(root / "base-model"))
    return root


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8"
    )


@pytest.fixture(scope="module")
def outcomes(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Outcome]]:
    """Runs the examples in the order of the text, in one namespace: each goes on with the names of
    those before it.
    """
    names: dict[str, Any] = {
        "question_writer": question_writer(),
        "domains": DOMAINS,
        "llm_model": ScriptedModel(
            "Jog easily, land softly and eat carbohydrates within 30 minutes.", name="integrator"
        ),
        **{
            f"{domain}_benchmarks": [{"query": f"Name {domain}.", "answers": {domain: ["a", "e"]}}]
            for domain in DOMAINS
        },
        "test_examples": [
            {
                "query": "How do bones and food go together?",
                "domains": ["biomechanics", "nutrition"],
                "reference": "Well.",
            }
        ],
        **RESPONSES,
    }
    found: list[Outcome] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        for block in BLOCKS:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(in_seconds(block, models), str(SPECIFICATION), "exec"), names)
            names.setdefault(
                "teacher_models", {domain: names[f"{domain}_teacher"] for domain in DOMAINS}
            )
            found.append(Outcome({**names}, printed.getvalue()))
        found[0].names["folder"] = Path("distilled_model").resolve()
        yield found


def test_the_text_has_its_four_examples() -> None:
    assert [re.search(r"import (\(\s*)?(\w+)", block).group(2) for block in BLOCKS] == [
        "Distiller", "Distiller", "DomainRetentionEvaluator", "ResponseIntegrator"
    ]  # fmt: skip


def test_every_change_to_the_text_finds_its_place() -> None:
    text = "\n".join(BLOCKS)
    assert all(re.search(pattern, text) for pattern in IN_SECONDS)


def described_classes() -> list[tuple[str, str, str]]:
    """The classes of the section "Files and Components": module, name, description."""
    found = []
    for module, section in re.findall(
        r"^### (\w+)\.py\n(.*?)(?=^##)", TEXT, re.DOTALL | re.MULTILINE
    ):
        found += [
            (module, name, words)
            for name, words in re.findall(r"^- `(\w+)` - (.*)$", section, re.MULTILINE)
        ]
    return found


def test_the_text_describes_four_modules() -> None:
    assert {module for module, _, _ in described_classes()} == {
        "distiller",
        "data_generation",
        "trainer",
        "evaluator",
    }


@pytest.mark.parametrize(("module", "name", "words"), described_classes())
def test_a_described_class_stands_in_its_module_and_in_the_package(
    module: str, name: str, words: str
) -> None:
    here: Any = getattr(importlib.import_module(f"domainfusion.distillation.{module}"), name)
    assert here is getattr(domainfusion.distillation, name)
    assert inspect.isclass(here)
    assert name in domainfusion.distillation.__all__
    if words.startswith("Abstract base class"):
        assert (
            len(inspect.getmembers(here, lambda part: getattr(part, "__isabstractmethod__", False)))
            == 1
        ), "an extension point asks for one method"


def test_basic_distillation_saves_what_plain_transformers_loads(outcomes: list[Outcome]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, student = outcomes[0].names["folder"], outcomes[0].names["distilled_model"]
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    asked = [{"role": "user", "content": "How do muscles recover?"}]
    prompt = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    written = model.float().generate(**prompt, max_new_tokens=12)[0, prompt["input_ids"].shape[1] :]
    with_ours = LlamaModel(folder, dtype="float32").generate(
        [user("How do muscles recover?")], Sampling(max_new_tokens=12)
    )[0]
    assert tokenizer.decode(written, skip_special_tokens=True).strip() == with_ours.text
    assert model.num_parameters() == student.parameter_count


def test_basic_distillation_returns_a_student_that_answers_and_has_learned(
    outcomes: list[Outcome],
) -> None:
    names = outcomes[0].names
    assert isinstance(
        names["distilled_model"].ask(
            "How do muscles recover?", sampling=Sampling(max_new_tokens=8)
        ),
        str,
    )
    assert names["distilled_model"].fingerprint != names["student_model"].fingerprint
    assert names["distiller"].report is None, "no evaluator was given"


def test_basic_distillation_asks_for_the_given_share_of_cross_domain_examples(
    outcomes: list[Outcome],
) -> None:
    examples = outcomes[0].names["distiller"].generate()
    assert len(examples) == 20
    assert sum(example.is_cross_domain for example in examples) == 0.7 * 20
    assert {domain for example in examples for domain in example.domains} == set(DOMAINS)


def test_several_generators_each_give_their_examples(outcomes: list[Outcome]) -> None:
    sources = [example.source for example in outcomes[1].names["distiller"].generate()]
    assert (sources.count("synthetic"), sources.count("adversarial")) == (12, 12)


def test_the_built_in_evaluation_measures_every_teacher(outcomes: list[Outcome]) -> None:
    report = outcomes[2].names["distiller"].report
    assert isinstance(report, EvaluationReport)
    assert {model.name for model in report.models if model.role == "expert"} == set(DOMAINS)
    assert {"student", "base", "merge", "oracle"} <= {model.role for model in report.models}
    assert {row.domain for row in report.retention} <= set(DOMAINS)


def test_benchmark_results_print_as_a_table(outcomes: list[Outcome]) -> None:
    results = outcomes[2].names["benchmark_results"]
    assert isinstance(results, EvaluationReport)
    heading, _, *rows = outcomes[2].printed.splitlines()
    assert all(domain in heading for domain in DOMAINS)
    assert rows[0].startswith("student")
    assert [row.split()[1] for row in rows if row.startswith("expert:")] == list(DOMAINS)
    assert json.loads(json.dumps(results.to_dict()))["models"][0]["name"] == "student"


def test_the_integrator_fills_the_template_of_the_text(outcomes: list[Outcome]) -> None:
    integrated = outcomes[3].names["integrated_response"]
    assert isinstance(integrated, Integration)
    assert str(integrated) == "Jog easily, land softly and eat carbohydrates within 30 minutes."
    prompt = integrated.messages[0].content
    assert prompt.startswith("You need to create an integrated response")
    assert (
        "\nOriginal query: How can sprint athletes optimize their recovery between races?\n"
        in prompt
    )
    for domain in DOMAINS:
        assert f"\n[{domain.title()} Expert]\n{RESPONSES[f'{domain}_response']}\n" in prompt
