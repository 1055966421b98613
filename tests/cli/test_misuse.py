"""Misuse of the command line, by kind: what was given, what is allowed, and an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainfusion.cli.main import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["destill", "RECIPE"], "invalid choice: 'destill'"),
        (["destill", "RECIPE"], "write distill"),
        (["distill", "RECIPE", "--until", "training"], "write train"),
        (["distill", "RECIPE", "--dryrun"], "unrecognized arguments: --dryrun; write --dry-run"),
        (["status", "RUN", "--wath"], "write --watch"),
        (["compare", "RUN"], "arguments are required: RUN"),
        (["ask", "RUN", "Hi", "--temperature", "-1"], "temperature is out of range; received -1.0"),
        (["ask", "RUN", "Hi", "--max-new-tokens", "0"], "max_new_tokens is out of range; received 0"),
        (["chat", "RUN", "--top-p", "2"], "top_p is out of range; received 2.0"),
        (["play", "RUN", "--port", "99999"], "'99999' is not a port, a number from 0 to 65535"),
        (["play", "RUN", "--port", "web"], "'web' is not a port"),
        (["export", "RUN", "--format", "gguf", "--dtype", "q4"], "'q4' with --format gguf (choose from f32"),
        (["export", "RUN", "--dtype", "float16"], "goes with a model"),
        (["export", "RUN", "--public"], "goes with --hub"),
        (["extend", "RUN", "--expert", "law"], "'law' is not DOMAIN=MODEL"),
        (["extend", "RUN", "--expert", "law=x", "--replay", "2"], "'2' is not a share, a number from 0 to 1"),
        (["extend", "RUN", "--expert", "law=x", "--replay", "half"], "'half' is not a share"),
        (["merge", "MODEL", "--expert", "a=x", "--expert", "b=y", "--output", "NEW", "--method", "regmean"], "give --prompts FILE"),
        (["evaluate", "RUN", "--junit", "x.xml"], "go with --require"),
    ],
)  # fmt: skip
def test_words_that_can_not_be_meant_end_with_2_and_say_what_is_allowed(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["distill", "RECIPE", "--set", "seed=1", "--set", "seed=2"], "seed is set twice; received ['seed=1', 'seed=2']", "with commas"),
        (["distill", "RECIPE", "--seed", "2", "--set", "seed=1"], "seed is set twice", "make a run each"),
        (["distill", "RECIPE", "--seed", "x"], "--seed x: seed is of the wrong kind; received 'x'", "a whole number"),
        (["distill", "RECIPE", "--output-dir", "FILE"], "The output directory can't be written to", "name a folder"),
        (["distill", "RECIPE", "--output-dir", "RUN", "--seed", "3"], "[0].seed was 0, is 3; response_sampling", "use another output_dir"),
        (["init", "FOLDER"], "The recipe is a file, and this is a folder", "recipe.yaml"),
        (["demo", "--data", "NEW"], "The folder of the world is not there", "check the path"),
        (["play", "RUN", "--review", "FOLDER"], "The review is a CSV file, and this is a folder", "review.csv"),
        (["export", "RUN", "--format", "gguf", "--output", "FOLDER"], "GGUF is one file, and this is a folder", ".gguf"),
        (["export", "RUN", "--hub", "my model"], "not the name of a repository on the hub; received 'my model'", "owner/name"),
        (["export", "RUN", "--hub", "a/b/c"], "not the name of a repository", "owner/name"),
        (["evaluate", "RUN", "--require", "DER[law]>=0.5"], "a slice that was not measured", "name one of them"),
        (["evaluate", "RUN", "--against", "FOREIGN"], "Examples need the domain 'animal', which has no teacher", "write animals"),
        (["ask", "FILE", "Hi"], "There is no model here", "check the path"),
        (["ask", "BROKEN", "Hi"], "The configuration can't be read", "copied whole"),
        (["ask", "BROKEN_GGUF", "Hi"], "magic bytes", "copied whole"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_one_message_with_what_to_do(
    words: list[str],
    what: str,
    fix: str,
    recipe_file: Path,
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {
        "RECIPE": recipe_file,
        "RUN": finished_run,
        "NEW": tmp_path / "new",
        "FOLDER": tmp_path / "folder",
        "FILE": tmp_path / "file.txt",
        "FOREIGN": tmp_path / "foreign.jsonl",
        "BROKEN": tmp_path / "broken",
        "BROKEN_GGUF": tmp_path / "broken.gguf",
    }
    for name in ("FOLDER", "BROKEN"):
        places[name].mkdir()
    places["BROKEN"].joinpath("config.json").write_text("{}")
    for name in ("FILE", "BROKEN_GGUF"):
        places[name].write_text("neither a run nor a model")
    places["FOREIGN"].write_text('{"query": "Q?", "domain": "animal", "answers": {"animal": "x"}}')
    before = sorted(finished_run.rglob("*"))
    assert main([str(places.get(word, word)) for word in words]) == 1
    told = capsys.readouterr().err
    error = told[told.index("Error: ") :]
    assert what in error and fix in error
    assert "Traceback" not in told and "Unexpected" not in told
    assert sorted(finished_run.rglob("*")) == before
