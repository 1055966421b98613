"""The guide to resuming: its code runs, and what it says of kills, refusals and stores holds."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from domainfusion.models import ResponseStore, ScriptedModel
from domainfusion.reports import RunSummary
from domainfusion.types import user

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "resuming.md"
TEXT = GUIDE.read_text(encoding="utf-8")
PROGRAM, *BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def with_real_paths(code: str, base: Path, make_adapter: Callable[..., Path]) -> str:
    code = code.replace("max_new_tokens=128", "max_new_tokens=4").replace(
        "checkpoint_steps=20", "checkpoint_steps=1"
    )
    code = code.replace("epochs=1,", "epochs=1, batch_size=2,")
    code = code.replace(
        'LlamaModel("path/to/base-model")', f'LlamaModel({str(base)!r}, dtype="float32")'
    )
    return re.sub(
        r'LlamaModel\("path/to/(\w+)-expert"\)',
        lambda found: f"LlamaModel({str(make_adapter(found[1], len(found[1])))!r})",
        code,
    )


def questions() -> str:
    lines = [
        {
            "query": f"Question {n}?",
            "domains": ["physiology", "nutrition"] if n % 2 else ["physiology"],
        }
        for n in range(8)
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


@pytest.fixture(scope="module")
def guide(
    tiny_llama: Path, make_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Runs the guide from its first line to its last, and gives its folder and the names that it
    leaves behind.
    """
    folder, names = (
        tmp_path_factory.mktemp("resuming"),
        {"__name__": "__main__", "print": lambda *words: said.append(str(words[0]))},
    )
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("questions.jsonl").write_text(questions())
        for block in (PROGRAM, *BLOCKS):
            exec(
                compile(with_real_paths(block, tiny_llama, make_adapter), str(GUIDE), "exec"), names
            )
        yield names | {"folder": folder, "said": said}


def test_the_guides_code_runs_and_shows_what_it_says(guide: dict[str, Any]) -> None:
    assert guide["said"][0].startswith(
        "This directory holds a run with other inputs (trainer: learning_rate was 0.0002, is 0.001)"
    )
    assert guide["said"][1] == "1" and len(guide["answers"]) == 1


def test_a_copied_store_answers_all_and_brings_its_books(guide: dict[str, Any]) -> None:
    first, second = (
        RunSummary.read(guide["folder"] / "runs" / name) for name in ("sports", "other")
    )
    assert first.usage == second.usage != ()
    assert first.records == second.records


@pytest.mark.parametrize("stage", ["integrate", "train"])
def test_what_is_deleted_is_made_again_and_comes_out_the_same(
    guide: dict[str, Any], stage: str, tmp_path: Path
) -> None:
    [row] = re.findall(rf"^\| {stage} \| (.*) \|$", TEXT, re.MULTILINE)[-1:]
    run = tmp_path / "run"
    shutil.copytree(guide["folder"] / "runs" / "sports", run)
    before = RunSummary.read(run)
    for name in re.findall(r"`([^`]+)`", row):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert not (run / "training").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(guide["folder"])
        guide["build"](run).distill()
    after = RunSummary.read(run)
    assert after.records == before.records and after.usage == before.usage
    assert [line.get("loss") for line in after.training_log] == [
        line.get("loss") for line in before.training_log
    ]


def test_two_programs_can_use_one_store(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "s.sqlite") as one, ResponseStore(tmp_path / "s.sqlite") as other:
        one.ask(ScriptedModel(str.upper), [user("a")])
        other.ask(ScriptedModel(str.upper), [user("a")])
        assert (one.asked, other.asked, other.reused) == (1, 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sign", ["runs/sports/responses.sqlite", "runs/sports/training/*/checkpoint-*/checksums.json"]
)
def test_the_guides_program_killed_and_started_again_ends_as_it_would_have(
    guide: dict[str, Any],
    sign: str,
    tiny_llama: Path,
    make_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    (tmp_path / "questions.jsonl").write_text(questions())
    (tmp_path / "distil.py").write_text(with_real_paths(PROGRAM, tiny_llama, make_adapter))
    program = [sys.executable, "distil.py"]
    process = subprocess.Popen(program, cwd=tmp_path)
    while not list(tmp_path.glob(sign)):
        assert process.poll() is None, "the program ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    subprocess.run(program, cwd=tmp_path, check=True)
    ended, whole = (
        RunSummary.read(tmp_path / "runs" / "sports"),
        RunSummary.read(guide["folder"] / "runs" / "sports"),
    )
    assert ended.records == whole.records
    assert [model.calls for model in ended.usage] == [model.calls for model in whole.usage]


def test_every_file_that_the_guide_names_is_one_of_a_run(guide: dict[str, Any]) -> None:
    named = set(re.findall(r"`([a-z_]+\.(?:sqlite|jsonl|json)|[a-z]+/)`", TEXT)) - {"model/"}
    there = {
        file.name + "/" * file.is_dir() for file in (guide["folder"] / "runs" / "sports").iterdir()
    }
    assert {"responses.sqlite", "records.jsonl", "training/", "usage.json"} <= named
    elsewhere = {"evaluation.json", "savings.json", "answers.sqlite", "student_files.json"}
    assert named - elsewhere <= there
