from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.errors import ConfigurationError
from domainfusion.recipe import read_recipe, write_recipe
from domainfusion.recipe.document import read_document, to_yaml
from domainfusion.recipe.sections import ModelSection

from .recipes import RECIPE, write


def test_a_recipe_is_read_with_absolute_paths_and_defaults(folder: Path) -> None:
    recipe = read_recipe(write(folder, RECIPE))
    assert recipe.student.path == str(folder / "models" / "base")
    assert recipe.teachers["nutrition"].system_prompt == "You know food."
    assert recipe.trainer.learning_rate == 1e-4
    assert recipe.trainer.batch_size == 16
    assert recipe.evaluation is not None
    assert recipe.evaluation.test_examples == str(folder / "test.jsonl")


def test_paths_are_relative_to_the_recipe_wherever_it_is_read_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, RECIPE + "output_dir: runs/one\n")
    monkeypatch.chdir(folder.parent)
    recipe = read_recipe(Path(folder.name) / "recipe.yaml")
    assert recipe.output_dir == str(folder / "runs" / "one")
    teacher = recipe.teachers["biomechanics"]
    assert isinstance(teacher, ModelSection)
    assert teacher.path == str(folder / "models" / "expert")


def test_a_path_alone_stands_for_a_model(folder: Path) -> None:
    short = RECIPE.replace("student:\n  path: models/base", "student: models/base").replace(
        "  biomechanics:\n    path: models/expert", "  biomechanics: models/expert"
    )
    assert read_recipe(write(folder, short)) == read_recipe(write(folder, RECIPE))


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list\n", "# a comment alone\n"])
def test_a_file_without_keys_is_one_error(folder: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="holds no keys"):
        read_recipe(write(folder, text))


def test_a_file_that_is_not_there_or_no_text_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        read_recipe(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_recipe(tmp_path / "binary.yaml")
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "a: &a [*a]\n",
        "domains: &d\n  x: *d\n",
        "a: \x00",
        "a: *gone\n",
        "a: 1\n---\nb: 2\n",
    ],
)
def test_a_file_that_is_twisted_is_one_error(folder: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        read_recipe(write(folder, text))


BOMBS = {
    "aliases": "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)),
    "aliases as keys": "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    + "? *a29\n: x\n",
    "merged mappings": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)),
    "a value that holds itself": "a: &a {b: *a}\n",
    "deep lists": "a: " + "[" * 100_000,
    "deep mappings": "".join(f"{' ' * n}a:\n" for n in range(900)),
    "nested dashes": "a:\n" + "- " * 100_000,
    "a long text": "title: " + "x" * 3_000_000,
    "many values": "a: [" + "x," * 400_000 + "x]",
    "a long number": "seed: " + "9" * 900_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_would_take_long_is_refused_at_once(folder: Path, bomb: str) -> None:
    path = write(folder, BOMBS[bomb])
    begin = time.process_time()
    with pytest.raises(ConfigurationError) as caught:
        read_recipe(path)
    assert time.process_time() - begin < (8 if bomb == "many values" else 1)
    assert len(str(caught.value)) < 1_500


def test_plain_values_follow_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("no: [no, 2026-11-23, 1e-4, 017, 1_000, true, ~, 12:30]\n")
    assert read_document(path).content == {
        "no": ["no", "2026-11-23", 1e-4, 17, "1_000", True, None, "12:30"]
    }


def test_keys_that_are_merged_in_are_keys_like_others(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("one: &model\n  path: a\n  device: cpu\ntwo:\n  <<: *model\n  path: b\n")
    document = read_document(path)
    assert document.content["two"] == {"path": "b", "device": "cpu"}
    assert (document.place_of(("two", "path")).line, document.place_of(("two", "device")).line) == (
        6,
        3,
    )


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(content=st.dictionaries(st.text(), plain_data, min_size=1, max_size=3))
def test_what_is_written_as_yaml_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(to_yaml(content), encoding="utf-8", newline="")
    assert read_document(path).content == content


@pytest.mark.parametrize(
    "evaluation",
    [
        "evaluation:\n  test_examples: test.jsonl",
        "evaluation: off",
        "evaluation:",
        "evaluation: {holdout: 0.2}",
    ],
)
def test_a_written_recipe_is_read_as_the_same_from_another_folder(
    folder: Path, tmp_path: Path, evaluation: str
) -> None:
    recipe = read_recipe(
        write(folder, RECIPE.replace("evaluation:\n  test_examples: test.jsonl", evaluation))
    )
    elsewhere = tmp_path / "elsewhere" / "recipe.yaml"
    write_recipe(recipe, elsewhere)
    assert read_recipe(elsewhere) == recipe
    assert (recipe.evaluation is None) == evaluation.endswith("off")
