from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from domainfusion.distillation.data_generation.curated import write_review
from domainfusion.distillation.examples import read_examples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the recipe names: models that look like models, and examples."""
    for name in ("base", "expert"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    (tmp_path / "models" / "adapter").mkdir()
    (tmp_path / "models" / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "gone"})
    )
    (tmp_path / "models" / "empty").mkdir()
    examples: list[dict[str, Any]] = [
        {"query": "Which joint bends the leg?", "domain": "biomechanics"},
        {
            "query": "Which joint bends, and which food is rich in iron?",
            "domains": ["biomechanics", "nutrition"],
        },
    ]
    (tmp_path / "examples.jsonl").write_text(
        "".join(json.dumps(example) + "\n" for example in examples)
    )
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"query": "What is a tendon?", "domain": "biomechanics"}) + "\n"
    )
    (tmp_path / "strange.jsonl").write_text(
        json.dumps({"query": "What is a quark?", "domain": "physics"}) + "\n"
    )
    (tmp_path / "broken.jsonl").write_text(
        '{"query": "Fine?", "domain": "nutrition"}\n{"query": \n'
    )
    (tmp_path / "twice.jsonl").write_text(
        (json.dumps({"query": "What is a tendon?", "domain": "biomechanics"}) + "\n") * 2
    )
    (tmp_path / "none.jsonl").write_text("")
    write_review(read_examples(examples), tmp_path / "review.csv")
    return tmp_path
