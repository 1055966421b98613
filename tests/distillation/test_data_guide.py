"""The guide to data: its code runs from its first line to its last, and does what it says."""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from distillation.data_generation.test_curated import decide
from domainfusion import distillation
from domainfusion.distillation.data_generation.curated import read_review
from domainfusion.models import ScriptedModel

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "data.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


DOMAINS: dict[str, str] = {}
"""The guide's domains, once it has named them."""


class Writer(ScriptedModel):
    """Stands for the guide's writer: writes questions in JSON, lists topics, and judges as it was
    asked to write.
    """

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(self._reply, name="writer")
        self._numbers = itertools.count(1)
        self._pairs: dict[str, tuple[str, str]] = {}
        self._needed: dict[str, list[str]] = {}

    def with_json_schema(self, json_schema: Mapping[str, Any]) -> Writer:
        return self

    def _reply(self, prompt: str) -> str:
        if prompt.startswith("List"):
            return "1. sprinting\n2. sleep\n3. food"
        if "Question: " in prompt:
            question = prompt.split("Question: ")[1].split("\n")[0]
            if "In which of these subjects" in prompt:
                return ", ".join(self._needed[question])
            return self._pairs[question]["be an expert" in prompt]
        asked = [f"How does case {next(self._numbers)} go on in the end?" for _ in range(5)]
        sides = re.findall(r"(?:First|Second) subject: (\w+):", prompt)
        self._pairs |= {question: (sides[0], sides[1]) for question in asked if sides}
        self._needed |= {
            question: [name for name in DOMAINS if f"{name}: " in prompt] for question in asked
        }
        return json.dumps({"questions": [{"question": question} for question in asked]})


@pytest.fixture(scope="module")
def names(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the guide leaves behind."""
    found: dict[str, Any] = {"__name__": "guide", "Writer": Writer, "decide": decide, "Path": Path}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guide"))
        Path("questions.csv").write_text(
            "question,gold,template\nWhat is bread rich in?,carbohydrates,rich\n", encoding="utf-8"
        )
        for block in BLOCKS:
            code = block.replace("APIModel(", "Writer(")
            code = re.sub(
                r'LlamaModel\(f?"path/to/[^"]+"\)',
                f'LlamaModel("{tiny_llama}", dtype="float32")',
                code,
            )
            code = code.replace(
                "reviewed =",
                'decide(Path("review.csv"), {"decision": "accept", "comment": "good"})\nreviewed =',
            )
            exec(compile(code, str(GUIDE), "exec"), found)
            DOMAINS.update(found["domains"])
        found["folder"] = Path.cwd()
    return found


def test_there_are_as_many_questions_as_wanted_and_the_edge_cases_pass(
    names: dict[str, Any],
) -> None:
    assert (len(names["made"]), names["made"].wanted) == (60, 60)
    assert (len(names["edge_cases"]), names["edge_cases"].acceptance_rate) == (12, 1.0)


def test_what_people_wrote_is_read_and_reviewed(names: dict[str, Any]) -> None:
    assert names["table"].examples[0].parts[0].answers == ("carbohydrates",)
    assert (names["talk"].query, len(names["talk"].history)) == ("What do I eat on Saturday?", 2)
    assert [
        example.metadata["review"]
        for example in read_review(names["folder"] / "review.csv").examples
    ] == ["good"]


def test_the_run_is_split_by_template_and_exported(names: dict[str, Any]) -> None:
    written = {file.name for file in (names["folder"] / "run").iterdir()}
    assert {
        "generation.json",
        "examples.jsonl",
        "test_examples.jsonl",
        "validation_examples.jsonl",
    } <= written
    assert names["distiller"].data.hygiene == names["hygiene"]
    rows = (names["folder"] / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert 0 < len(rows) <= len(names["examples"]) == len(names["records"])


def test_every_argument_that_the_guide_names_exists() -> None:
    made = (
        distillation.SyntheticDataGenerator,
        distillation.WritingSettings,
        distillation.AdversarialDataGenerator,
        distillation.CuratedDataGenerator,
        distillation.Distiller,
        distillation.Hygiene,
        distillation.export_messages,
        distillation.hold_out,
    )
    known = {name for item in made for name in inspect.signature(item).parameters}
    words = set(re.findall(r"`(\w+)=[^`]*`", TEXT)) | set(
        re.findall(r"^    (\w+)=", TEXT, re.MULTILINE)
    )
    assert words <= known
    assert len(words) > 10
