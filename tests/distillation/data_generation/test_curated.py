"""Examples that people wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.errors import ConfigurationError, DataError


def entries(count: int) -> list[dict[str, object]]:
    return [{"query": f"Where is airport {number}?", "domains": ["aviation"]} for number in range(count)]


def test_curated_examples_are_given_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries(3)), encoding="utf-8")
    from_file, from_list = CuratedDataGenerator(file).generate(), CuratedDataGenerator(entries(3)).generate()
    assert from_file == from_list
    assert [example.query for example in from_list] == [entry["query"] for entry in entries(3)]
    assert {example.source for example in from_list} == {"curated"}
    assert CuratedDataGenerator(file).domains == ("aviation",)


def test_a_sample_of_curated_examples_has_its_size_and_its_seed() -> None:
    samples = [CuratedDataGenerator(entries(30), num_examples=10, seed=seed).generate().examples for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert len({example.id for example in samples[0]}) == 10


@pytest.mark.parametrize("count", [0, 4])
def test_a_sample_larger_than_there_is_or_empty_is_refused(count: int) -> None:
    with pytest.raises(ConfigurationError, match="num_examples"):
        CuratedDataGenerator(entries(3), num_examples=count)


def test_no_curated_examples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no curated examples"):
        CuratedDataGenerator([])
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no curated examples"):
        CuratedDataGenerator(tmp_path / "empty.jsonl")
