"""The README keeps its word: its example runs, its commands exist, and its links lead somewhere."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domainfusion.cli.demo import MINUTES
from domainfusion.cli.main import main
from domainfusion.distillation import EvaluationReport
from domainfusion.models import ScriptedModel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs(
    tiny_llama: Path,
    make_adapter: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = tmp_path / "path" / "to"
    models.mkdir(parents=True)
    shutil.copytree(tiny_llama, models / "base-model")
    shutil.copytree(make_adapter("physiology", 1), models / "physiology-adapter")
    shutil.copytree(tiny_llama, models / "nutrition-expert")
    example = {
        "query": "What fuels a sprint?",
        "domains": ["nutrition"],
        "answers": {"nutrition": ["glycogen"]},
    }
    (models / "test.jsonl").write_text(json.dumps(example) + "\n", encoding="utf-8")
    for model in ("base-model", "nutrition-expert"):
        config = models / model / "config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 2048}),
            encoding="utf-8",
        )
    monkeypatch.chdir(tmp_path)
    numbers = itertools.count(1)
    names: dict[str, Any] = {
        "writer": ScriptedModel(
            lambda _: f"How does habit {next(numbers)} change a sprint?", name="writer"
        )
    }
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    # Random weights write no questions; and seconds are enough to see that it runs.
    changes = {
        'generation_model=teachers["physiology"]': "generation_model=writer",
        "500": "12",
        "epochs=3": "epochs=1",
    }
    for written, quick in changes.items():
        assert written in block
        block = block.replace(written, quick)
    exec(compile(block, "README.md", "exec"), names)
    assert isinstance(names["distiller"].report, EvaluationReport)
    assert "Domain Expertise Retention" in capsys.readouterr().out
    assert (tmp_path / "distilled_model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "verb", re.findall(r"`domainfusion ((?:\w+ · )+\w+)`", README)[0].split(" · ")
)
def test_every_verb_of_the_command_line_exists(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert verb in capsys.readouterr().out


@pytest.mark.parametrize("target", re.findall(r"make ([a-z-]+)", README))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CHANGELOG.md",
        *(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")),
    ],
)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert "://" in link or (ROOT / page).parent.joinpath(link).exists(), link


def test_no_figure_is_left_open() -> None:
    assert "RESULT" not in README
    assert "<!--" not in README


def test_the_time_of_the_demo_is_that_of_the_published_run() -> None:
    report = (ROOT / "benchmarks" / "demo" / "report.md").read_text(encoding="utf-8")
    # The row of the whole run: | all | 37 min 48 s | … |
    found = re.search(r"^\| all \| (?:(\d+) h )?(\d+) min(?: (\d+) s)? \|", report, re.MULTILINE)
    assert found is not None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    assert round(60 * hours + minutes + seconds / 60) == MINUTES
    assert f"{MINUTES} minutes" in README
