"""The student's folder: a new student takes the place of the old one, and nothing else that lies
there is lost.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domainfusion.cli.main import main
from domainfusion.cli.runs import check_student, check_student_folder, save_student
from domainfusion.errors import DataError, RunError
from domainfusion.files import unfinished
from domainfusion.recipe import read_recipe

OLD = {
    "config.json": "old",
    "model-00001-of-00002.safetensors": "old 1",
    "model-00002-of-00002.safetensors": "old 2",
}
NEW = {"config.json": "new", "model.safetensors": "new", "README.md": "card"}


def distiller(run: Path, files: Mapping[str, str]) -> Any:
    def save(folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)

    return SimpleNamespace(output_dir=run, save=save)


def content_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def hidden(run: Path) -> list[str]:
    return [path.name for path in run.iterdir() if path.name.startswith(".")]


def test_the_new_student_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for files in (OLD, NEW, OLD, NEW):
        save_student(distiller(tmp_path, files))
        assert content_of(tmp_path / "model") == files
        assert hidden(tmp_path) == []


def test_what_the_run_did_not_write_is_kept(tmp_path: Path) -> None:
    save_student(distiller(tmp_path, OLD))
    (tmp_path / "model" / "gguf").mkdir()
    mine = {"gguf/student.gguf": "converted", "notes.txt": "mine", ".cache": "x"}
    for name, text in mine.items():
        (tmp_path / "model" / name).write_text(text)
    (tmp_path / "model" / "config.json").write_text("edited")  # what the run wrote is replaced
    save_student(distiller(tmp_path, NEW))
    assert content_of(tmp_path / "model") == {**NEW, **mine}
    save_student(distiller(tmp_path, OLD))
    assert content_of(tmp_path / "model") == {**OLD, **mine}
    assert hidden(tmp_path) == []


def test_a_custom_file_with_the_name_of_a_new_one_is_kept_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_student(distiller(tmp_path, OLD))
    (tmp_path / "model" / "README.md").write_text("mine")
    save_student(distiller(tmp_path, NEW))
    assert content_of(tmp_path / "model") == {**NEW, "README.md.kept": "mine"}
    assert "README.md.kept" in caplog.text


def test_a_folder_that_no_run_wrote_is_kept_whole(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("mine")
    save_student(distiller(tmp_path, NEW))
    assert content_of(tmp_path / "model") == {**NEW, "config.json.kept": "mine"}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("has_old", [True, False])
def test_whatever_operation_is_the_last_one_a_whole_student_stands_and_nothing_of_ones_own_is_lost(
    has_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends at each renaming and each removal in turn, without any cleaning up, and then saves
    again.
    """
    for last in range(20):
        run = tmp_path / str(last)
        run.mkdir()
        if has_old:
            save_student(distiller(run, OLD))
            (run / "model" / "notes.txt").write_text("mine")
        with monkeypatch.context() as patch:
            done = [0]

            def counted(
                name: str,
                patch: pytest.MonkeyPatch = patch,
                done: list[int] = done,
                last: int = last,
            ) -> None:
                original = getattr(Path, name)

                def operation(self: Path, *arguments: Any, **options: Any) -> Any:
                    if done[0] >= last:  # a process that has ended does nothing more
                        raise Killed
                    done[0] += 1
                    return original(self, *arguments, **options)

                patch.setattr(Path, name, operation)

            for name in ("rename", "replace", "unlink"):
                counted(name)
            patch.setattr("domainfusion.cli.runs.shutil.rmtree", lambda *_, **__: None)
            try:
                save_student(distiller(run, NEW))
                is_over = True
            except Killed:
                is_over = False
        standing = [
            content_of(folder)
            for folder in (run / "model", run / ".model.replaced")
            if folder.is_dir()
        ]
        if (run / "model").is_dir():
            check_student(run)
        whole = [
            files
            for files in standing
            if any(files.items() >= student.items() for student in (OLD, NEW))
        ]
        assert whole or not has_old, standing
        shutil.rmtree(
            unfinished(run / "model"), ignore_errors=True
        )  # as a run does that opens its directory
        save_student(distiller(run, NEW))
        check_student(run)
        assert content_of(run / "model") == {**NEW, **({"notes.txt": "mine"} if has_old else {})}
        if is_over:
            return
    raise AssertionError("it does not end")


def test_a_student_that_can_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("half")
        raise OSError("full")

    save_student(distiller(tmp_path, OLD))
    with pytest.raises(OSError, match="full"):
        save_student(SimpleNamespace(output_dir=tmp_path, save=fail))  # type: ignore[arg-type]
    assert content_of(tmp_path / "model") == OLD and hidden(tmp_path) == []


def test_a_ledger_that_leads_out_of_the_folder_removes_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    save_student(distiller(tmp_path, OLD))
    (tmp_path / "student_files.json").write_text(
        f'{{"written": ["../precious", "{tmp_path}/precious"]}}'
    )
    save_student(distiller(tmp_path, NEW))
    assert (tmp_path / "precious").read_text() == "x"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "[" * 100_000,
        '{"written": 3}',
        '{"written": ["a", 3]}',
        '{"next": {"a": "b"}}',
        '{"checksums": {"model.safetensors": "0"}}',
        '{"checksums": ["model.safetensors"]}',
    ],
)
def test_a_damaged_ledger_is_named_before_anything_and_can_be_deleted(
    content: str, tmp_path: Path
) -> None:
    save_student(distiller(tmp_path, OLD))
    ledger = tmp_path / "student_files.json"
    ledger.write_text(content)
    for look in (check_student_folder, check_student):
        with pytest.raises(
            DataError, match=r"list of the student's files is damaged.*or delete it"
        ):
            look(tmp_path)
    with pytest.raises(DataError, match="or delete it"):
        save_student(distiller(tmp_path, NEW))
    assert content_of(tmp_path / "model") == OLD and hidden(tmp_path) == []
    ledger.unlink()
    save_student(distiller(tmp_path, NEW))
    kept = {f"{name}.kept" if name in NEW else name: text for name, text in OLD.items()}
    assert content_of(tmp_path / "model") == {**NEW, **kept}


def test_a_file_of_the_student_that_was_changed_is_named(tmp_path: Path) -> None:
    save_student(distiller(tmp_path, NEW))
    check_student(tmp_path)
    (tmp_path / "model" / "README.md").write_text("another card")
    (tmp_path / "model" / "notes.json").write_text("{}")
    check_student(tmp_path)
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_text("nex")
    with pytest.raises(DataError, match=r"model\.safetensors.*saves the student anew"):
        check_student(tmp_path)
    save_student(distiller(tmp_path, NEW))
    check_student(tmp_path)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        ("model/model.safetensors", ["ask", "RUN", "What does a cow eat?"]),
        ("model/model.safetensors", ["evaluate", "RUN"]),
        ("model/model.safetensors", ["evaluate", "RUN", "--against", "test.jsonl"]),
        ("model/model.safetensors", ["distill", "recipe.yaml", "--from", "RUN", "--dry-run"]),
        ("model/model.safetensors", ["extend", "RUN", "--expert", "animals=EXPERT", "--dry-run"]),
        ("model/model.safetensors", ["export", "RUN", "--format", "gguf", "--output", "new"]),
        ("model/tokenizer.json", ["ask", "RUN", "What does a cow eat?"]),
        ("recipe.yaml", ["evaluate", "RUN"]),
        ("recipe.yaml", ["extend", "RUN", "--expert", "animals=EXPERT", "--dry-run"]),
    ],
)
def test_a_flipped_bit_is_noticed_by_whatever_reads_the_file(
    damaged: str,
    words: list[str],
    finished_run: Path,
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    flip(run / damaged)
    monkeypatch.chdir(recipe_file.parent)
    expert = read_recipe(recipe_file).teachers["animals"].path
    replaced = [word.replace("RUN", str(run)).replace("EXPERT", str(expert)) for word in words]
    assert main(replaced) == 1
    error = capsys.readouterr().err
    assert "is damaged, or was changed after the run wrote it" in error
    assert str(run / damaged) in error


def test_a_linked_folder_or_a_file_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    check_student_folder(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"is a link.*model.*move it away"):
        check_student_folder(tmp_path)
    (tmp_path / "model").unlink()
    (tmp_path / "model").write_text("")
    with pytest.raises(RunError, match="is a file"):
        check_student_folder(tmp_path)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("responses.sqlite", lambda path: path.write_bytes(b"")),
        ("responses.sqlite", lambda path: path.write_bytes(path.read_bytes()[: 10 * 1024])),
        ("responses.sqlite", Path.unlink),
    ],
    ids=["emptied", "cut", "deleted"],
)
def test_a_finished_run_whose_answers_are_lost_is_not_called_finished(
    file: str,
    damage: Callable[[Path], Any],
    finished_run: Path,
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    monkeypatch.chdir(recipe_file.parent)
    damage(run / file)
    assert main(["distill", str(recipe_file), "--output-dir", str(run)]) == 1
    error = capsys.readouterr().err
    assert "Error: The store of answers" in error and str(run / file) in error
    assert "max_cost no longer knows" in error, "what would be lost is said"
    shutil.copy(finished_run / file, run / file)
    assert main(["distill", str(recipe_file), "--output-dir", str(run)]) == 0


def test_a_damaged_checksum_is_not_kept_beside_that_of_the_student_saved_anew(
    tmp_path: Path,
) -> None:
    save_student(distiller(tmp_path, NEW))
    ledger = tmp_path / "student_files.json"
    whole = json.loads(ledger.read_text())
    (name,) = (name for name in whole["checksums"] if name.endswith(".safetensors"))
    (sums,) = whole["checksums"][name]
    damaged = {**whole["checksums"], name: [f"0{sums[1:]}" if sums[0] != "0" else f"1{sums[1:]}"]}
    ledger.write_text(json.dumps({**whole, "checksums": damaged}))
    with pytest.raises(DataError, match=r"model\.safetensors"):
        check_student(tmp_path)
    save_student(distiller(tmp_path, NEW))
    assert json.loads(ledger.read_text()) == whole


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names by /proc")
def test_a_disk_that_fails_while_the_student_is_flushed_is_one_error(
    finished_run: Path,
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "model")
    monkeypatch.chdir(recipe_file.parent)
    flushed, weights = os.fsync, unfinished(run / "model") / "model.safetensors"

    def fail(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve() == weights:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flushed(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    assert main(["distill", str(recipe_file), "--output-dir", str(run)]) == 1
    error = capsys.readouterr().err
    assert "Error: A file or folder can't be used: Input/output error" in error
    assert str(weights) in error and "before anything is deleted" in error
    assert not (run / "model").exists() and hidden(run) == []
    monkeypatch.setattr(os, "fsync", flushed)
    assert main(["distill", str(recipe_file), "--output-dir", str(run)]) == 0
    check_student(run)
