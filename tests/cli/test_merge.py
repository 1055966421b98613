from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from domainfusion.cli.main import main
from domainfusion.models import HuggingFaceModel

MakeAdapter = Callable[..., Path]


@pytest.fixture
def words(tiny_llama: Path, make_adapter: MakeAdapter) -> list[str]:
    """The base and its experts, as they are given to the verb."""
    return [
        "merge",
        str(tiny_llama),
        *("--expert", f"law={make_adapter('law', 1)}"),
        *("--expert", f"tax={make_adapter('tax', 2)}"),
    ]


def write_questions(folder: Path, *domains: str) -> Path:
    """Writes eight questions of each domain, every second of them with an answer."""
    lines = []
    for domain in domains:
        for n in range(8):
            line = {"query": f"What is {domain} {n}?", "domain": domain}
            lines.append(line | ({"reference": f"It is {n}."} if n % 2 else {}))
    file = folder / f"{'-'.join(domains)}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def logits_of(folder: Path) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0]


def test_method_and_scale_are_chosen_and_the_model_is_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, output = write_questions(tmp_path, "law", "tax"), tmp_path / "merged"
    given = ["--prompts", str(prompts), "--max-new-tokens", "4", "--output", str(output)]
    assert main([*words, *given]) == 0
    printed = capsys.readouterr().out
    told = json.loads((output / "merge.json").read_text())
    assert {one["method"] for one in told["candidates"]} == {"sum", "tsv", "regmean"}
    assert f"Merged by {told['method']}, λ = {told['weight']:g}: {output}" in printed
    assert all(f"{one['method']}, λ = {one['weight']:g}" in printed for one in told["candidates"])
    assert HuggingFaceModel(output).ask("What is law?") is not None
    assert torch.isfinite(logits_of(output)).all()
    assert not [path for path in tmp_path.iterdir() if path not in (prompts, output)]


def test_what_is_given_is_what_is_merged_as_a_model_and_as_an_adapter(
    words: list[str], tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel

    plain = [*words, "--method", "sum", "--scale", "0.5"]
    assert main([*plain, "--output", str(tmp_path / "whole")]) == 0
    assert main([*plain, "--adapter", "--output", str(tmp_path / "adapter")]) == 0
    assert capsys.readouterr().out.count("Merged by sum, λ = 0.5") == 2
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    with torch.no_grad():
        found = adapted(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0]
    torch.testing.assert_close(found, logits_of(tmp_path / "whole"), rtol=1e-2, atol=1e-2)


def test_without_prompts_a_method_is_taken_that_needs_none_and_that_is_said_once(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--output", str(tmp_path / "merged")]) == 0
    captured = capsys.readouterr()
    assert "Merged by tsv, λ = 1" in captured.out
    assert captured.err.count("merged without RegMean") == 1


def test_whole_fine_tunes_are_merged(
    words: list[str], tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--scale", "0.7", "--method", "sum", "--output", str(tmp_path / "a")]) == 0
    whole = ["merge", str(tiny_llama), "--expert", f"all={tmp_path / 'a'}", "--scale", "1"]
    assert main([*whole, "--method", "sum", "--output", str(tmp_path / "b")]) == 0
    torch.testing.assert_close(logits_of(tmp_path / "b"), logits_of(tmp_path / "a"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*whole, "--adapter", "--output", str(tmp_path / "c")])
    assert stopped.value.code == 2 and "whole fine-tune" in capsys.readouterr().err


def test_a_run_is_merged_by_what_its_experts_answered(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "merged"
    code = main(["merge", str(finished_run), "--method", "sum", "--output", str(output)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "Merged by sum" in captured.out and (output / "config.json").is_file()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--scale", "nan"], 2, "neither a number nor auto"),
        (["--expert", "law"], 2, "is not DOMAIN=PATH"),
        (["--expert", "law=elsewhere"], 2, "given twice"),
        (["--method", "ties"], 2, "invalid choice"),
        (["--expert", "duty=/nowhere/at/all"], 1, "/nowhere/at/all"),
        (["--prompts", "/nowhere.jsonl"], 1, "/nowhere.jsonl"),
    ],
)
def test_misuse_is_one_clear_error_and_nothing_is_written(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    said: str,
) -> None:
    try:
        found: Any = main([*words, *more, "--output", str(tmp_path / "merged")])
    except SystemExit as stopped:
        found = stopped.code
    assert (found, said in capsys.readouterr().err) == (code, True)
    assert not (tmp_path / "merged").exists()


def test_questions_of_a_domain_without_an_expert_and_a_full_folder_are_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write_questions(tmp_path, "sport")
    output = ["--output", str(tmp_path / "merged")]
    assert main([*words, "--prompts", str(prompts), *output]) == 1
    assert "'sport', which has no expert" in capsys.readouterr().err
    assert main([*words, "--output", str(tmp_path)]) == 1
    assert "There is something in the folder" in capsys.readouterr().err
    assert main([*words[:2], "--expert", f"law={words[1]}", *output]) == 1
    assert "own base" in capsys.readouterr().err
