"""A second world: data files of one's own run through the same code, and errors say what is
wrong.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

import domainfusion
from domainfusion.cli.main import main
from domainfusion.demo.questions import UNASKED, Sizes, build_questions
from domainfusion.demo.run import build_demo, build_distiller, build_small_questions
from domainfusion.demo.train_experts import BATCH_SIZE, FEWEST_STEPS, epochs_for, records_of
from domainfusion.demo.train_experts import main as train_experts
from domainfusion.demo.world import World, load_world, world_folder
from domainfusion.distillation import MergeSettings
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.metrics import states
from domainfusion.errors import ConfigurationError, DataError, DomainFusionError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.records import read_json, read_records
from domainfusion.types import Sampling, TrainingRecord, user

SKY_AND_SONG = Path(__file__).with_name("sky_and_song")


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(SKY_AND_SONG)


def test_the_files_of_a_folder_are_put_together(world: World) -> None:
    assert list(world.domains) == ["mountains", "music", "astronomy"]
    assert world.title == "Mountains, composers and moons"
    assert world.by_id["mountain_height/Mount Fuji"].answers == ("3776",), "numbers are texts"
    assert world.by_id["composer_country/Elgar"].answers == (
        "United Kingdom",
        "England",
        "UK",
        "Great Britain",
    )
    assert world.by_id["moon_planet/Io"].sentence() == "The moon Io orbits Jupiter."


def test_every_kind_of_question_is_made_of_another_world(world: World) -> None:
    found = build_questions(world)
    kinds = {slice_of(example) for example in found.test}
    assert kinds == {*world.domains, "cross-domain", "two-hop", "adversarial", UNASKED}
    unasked = {fact.id for fact in found.unasked}
    assert all(not unasked & set(example.metadata["facts"]) for example in found.train)
    for domain in world.domains:
        own = [fact for fact in world.facts if fact.domain == domain]
        assert 0.1 <= sum(fact.id in unasked for fact in own) / len(own) <= 0.3


def test_a_world_needs_no_joins_borders_pairs_and_title(change: Change) -> None:
    folder = change(
        lambda data: [data.pop(key) for key in ("joins", "borders", "title", "aliases")]
    )
    found = load_world(folder)
    assert found.title == f"The experts of {folder.name}"
    kinds = {slice_of(example) for example in build_questions(found).test}
    assert kinds == {*found.domains, "cross-domain", UNASKED}


def test_an_expert_is_taught_every_fact_in_every_training_phrasing(world: World) -> None:
    records = records_of(world, "astronomy")
    assert len(records) == 2 * 20
    assert all(states(record.target, record.example.parts[0].answers[0]) for record in records)


@pytest.mark.parametrize("records", [1, 31, 32, 33, 700, 5_000])
def test_a_small_world_takes_more_passes(records: int) -> None:
    steps = epochs_for(records) * -(-records // BATCH_SIZE)
    assert steps >= FEWEST_STEPS and epochs_for(records) >= 5


# The whole pipeline


def test_another_world_runs_from_facts_to_report(
    world: World, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {
        question: fact.sentence()
        for fact in world.facts
        for split in ("train", "validation", "test")
        for question in fact.questions(split)
    }

    def expert(domain: str) -> ScriptedModel:
        own = {fact.sentence() for fact in world.facts if fact.domain == domain}

        def answer(question: str) -> str:
            found = [known[part] for part in known if part in question and known[part] in own]
            return " ".join(found) or "The capital of Finland is Finland."

        return ScriptedModel(answer, name=domain)

    def questions(small_world: World) -> Any:
        few = Sizes(singles=2, pairs=1, two_hop=1, borders=1)
        return build_questions(small_world, train=few, validation=few, test=few)

    monkeypatch.setattr("domainfusion.demo.run.build_small_questions", questions)
    distiller = build_distiller(
        world,
        LlamaModel(tiny_llama, dtype="float32"),
        {domain: expert(domain) for domain in world.domains},
        output_dir=tmp_path / "run",
        small=True,
        initialization="base",
        merge=MergeSettings(),
    )
    distiller.distill()
    report = distiller.report
    assert report is not None
    assert {row.domain for row in report.retention} == set(world.domains)
    for model in report.models:
        assert UNASKED in model.slices, model.name
    oracle = next(model for model in report.models if model.role == "oracle")
    assert oracle.slices[UNASKED].strict.value == 1.0
    (written,) = [
        entry
        for entry in read_json(tmp_path / "run" / "generation.json")
        if entry["kind"] == "synthetic"
    ]
    assert written["asked"] == written["accepted"] + sum(written["rejected"].values())
    records = read_records(tmp_path / "run" / "records.jsonl", TrainingRecord)
    assert all(record.verification == "verified" for record in records if record.is_usable)
    assert (tmp_path / "run" / "report.html").is_file()


def test_experts_are_trained_from_a_folder_and_run_from_there(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SKY_AND_SONG, tmp_path / "world")
    monkeypatch.setattr("domainfusion.demo.train_experts.base_folder", lambda: tiny_llama)
    monkeypatch.setattr("domainfusion.demo.run.base_folder", lambda: tiny_llama)
    monkeypatch.setattr("domainfusion.demo.train_experts.EPOCHS", 1)
    monkeypatch.setattr("domainfusion.demo.train_experts.FEWEST_STEPS", 1)
    monkeypatch.setattr("sys.argv", ["train_experts", "--data", str(tmp_path / "world")])
    train_experts()
    for domain in ("mountains", "music", "astronomy"):
        with safe_open(
            tmp_path / "world" / "adapters" / domain / "adapter_model.safetensors", "pt"
        ) as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    distiller = build_demo(tmp_path / "run", data=tmp_path / "world", small=True)
    assert list(distiller.teacher_models) == ["mountains", "music", "astronomy"]
    assert all(
        expert.generate([user("Where is Denali?")], Sampling(max_new_tokens=4))
        for expert in distiller.teacher_models.values()
    )
    monkeypatch.setattr("sys.argv", ["train_experts", "--data", str(tmp_path / "world"), "cooking"])
    with pytest.raises(
        ConfigurationError, match="no such domain; received 'cooking'; allowed: mountains"
    ):
        train_experts()


def test_a_world_whose_experts_are_not_trained_says_how_to_train_them() -> None:
    with pytest.raises(
        DataError, match=r"expert of mountains and of music.*make experts DATA=.*sky_and_song"
    ):
        build_demo(data=SKY_AND_SONG)


def test_a_few_questions_of_each_kind_are_enough_to_see_that_it_runs(world: World) -> None:
    found = build_small_questions(world)
    assert len(found.test) < len(build_questions(world).test)
    assert {slice_of(example) for example in found.test} >= {"cross-domain", "two-hop", UNASKED}


# What is wrong is said clearly

Change = Callable[[Callable[[dict[str, Any]], object]], Path]


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """Writes the world with a change to its data, in one file, and returns the folder."""

    def write(edit: Callable[[dict[str, Any]], object]) -> Path:
        data = yaml.safe_load((SKY_AND_SONG / "world.yaml").read_text(encoding="utf-8"))
        data |= json.loads((SKY_AND_SONG / "facts.json").read_text(encoding="utf-8"), parse_int=str)
        edit(data)
        folder = tmp_path / "changed"
        folder.mkdir()
        (folder / "all.json").write_text(json.dumps(data), encoding="utf-8")
        return folder

    return write


def relation(data: dict[str, Any], name: str = "moon_planet") -> dict[str, Any]:
    found: dict[str, Any] = data["relations"][name]
    return found


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no domains": (lambda data: data.pop("domains"), r"changed: the key domains is missing"),
    "no tables": (lambda data: data.pop("tables"), r"the key tables is missing"),
    "unknown key": (
        lambda data: data.update(join=[]),
        r"the key join is unknown; allowed: .*joins",
    ),
    "unknown key inside": (
        lambda data: relation(data).update(anser="x"),
        r"relations\.moon_planet\.anser is unknown; allowed: .*answer",
    ),
    "one domain": (
        lambda data: data.update(domains={"astronomy": "Moons"}),
        r"fewer than two domains",
    ),
    "domain without a description": (
        lambda data: data["domains"].update(music=""),
        r"'music' has no description",
    ),
    "domain without a relation": (
        lambda data: data["domains"].update(cooking="Food"),
        r"no relation belongs to the domain 'cooking'",
    ),
    "domain that is no folder": (
        lambda data: data["domains"].update({"a/b": "Food"}),
        r"can't be that of a folder.*'a/b'",
    ),
    "unknown domain": (
        lambda data: relation(data).update(domain="moons"),
        r"relations\.moon_planet\.domain is not known; received 'moons'; allowed: mountains",
    ),
    "unknown table": (
        lambda data: relation(data).update(table="moon"),
        r"relations\.moon_planet\.table is not known; received 'moon'",
    ),
    "table without rows": (
        lambda data: data["tables"].update(moons=[]),
        r"tables\.moons has no rows",
    ),
    "answer that every text states": (
        lambda data: data["tables"]["moons"][0].update(planet="not"),
        (
            r"finds the answer 'not' \(moon_planet/Io\) even in 'I do not know\.'.*add the value to"
            r" not_asked"
        ),
    ),
    "unknown column": (
        lambda data: relation(data).update(value="star"),
        r"tables\.moons, row 1 has no 'star', which the relation moon_planet needs",
    ),
    "empty cell": (
        lambda data: data["tables"]["moons"][3].update(planet=" "),
        r"tables\.moons, row 4 has no 'planet'",
    ),
    "cell that is no text": (
        lambda data: data["tables"]["moons"][3].update(planet=True),
        r"tables\.moons\.3\.planet: .*string.*received True",
    ),
    "no test question": (
        lambda data: relation(data)["questions"].pop("test"),
        r"relations\.moon_planet\.questions\.test is missing.*at least one question for test",
    ),
    "empty list of test questions": (
        lambda data: relation(data)["questions"].update(test=[]),
        r"relations\.moon_planet\.questions\.test: .*at least 1 item",
    ),
    "phrasing in two splits": (
        lambda data: relation(data)["questions"].update(test=relation(data)["questions"]["train"]),
        r"a phrasing of test is one of train too",
    ),
    "question without a key": (
        lambda data: relation(data)["questions"].update(test=["Which planet is it?"]),
        (
            r"questions\.test has wrong placeholders; received 'Which planet is it\?'; allowed:"
            r" \{key\}"
        ),
    ),
    "answer without a value": (
        lambda data: relation(data).update(answer="{key} orbits a planet."),
        r"answer has wrong placeholders",
    ),
    "answer that hides its value": (
        lambda data: relation(data).update(answer="The moon {key} orbits planet{value}."),
        r"does not state the value.*words of its own",
    ),
    "two answers to one fact": (
        lambda data: data["tables"]["moons"].append(
            {**data["tables"]["moons"][0], "planet": "Saturn"}
        ),
        r"moon_planet of 'Io' is 'Saturn' here and 'Jupiter' in an earlier row",
    ),
    "two facts in one question": (
        lambda data: relation(data)["questions"].update(train=["Who discovered the moon {key}?"]),
        r"'Who discovered the moon Io\?' asks two facts: 'Jupiter' \(moon_planet\) and 'Galileo",
    ),
    "border with the words of its relation": (
        lambda data: data["borders"][0]["questions"].update(test=["When was {key} born?"]),
        (
            r"'When was Mozart born\?' asks two facts: '1756' \(composer_year\) and '1756'"
            r" \(borders\.0\)"
        ),
    ),
    "join of unknown relations": (
        lambda data: data["joins"][0].update(final="astronomer_country"),
        r"joins\.0\.final is not known",
    ),
    "join that joins nothing": (
        lambda data: [
            row.update(astronomer=f"Dr {row['astronomer']}")
            for row in data["tables"]["astronomers"]
        ],
        (
            r"joins\.0 joins nothing: no value of moon_discoverer is a key of discoverer_country;"
            r" received \['Galileo"
        ),
    ),
    "join in one domain": (
        lambda data: relation(data, "discoverer_country").update(domain="astronomy"),
        r"joins two facts of one domain",
    ),
    "border to itself": (
        lambda data: data["borders"][0].update(looks_like="music"),
        r"borders\.0 looks like the domain that it needs",
    ),
    "alias of nothing": (
        lambda data: data["aliases"].update(Atlantis=["A"]),
        r"aliases\.Atlantis is the value of no fact",
    ),
    "relations as a list": (
        lambda data: data.update(relations=list(data["relations"].values())),
        r"relations: .*dictionary",
    ),
}


@pytest.mark.parametrize(("edit", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_world_is_said_with_its_place(
    change: Change, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(DomainFusionError, match=message):
        load_world(change(edit))


def test_a_folder_that_is_not_there_and_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        load_world(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no data files"):
        load_world(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {a: [", r"world\.yaml:2: this is not YAML"),
        ("domains: 1\ndomains: 2", r"world\.yaml:2: .*'domains' is there twice"),
        ("- 1\n- 2", r"world\.yaml holds no keys"),
        ("", r"world\.yaml holds no keys"),
        ("a: &a [*a]", r"world\.yaml.*"),
        ("title: again", r"world\.yaml: the key 'title' is in .*facts\.json too"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "facts.json").write_text('{"title": "One"}', encoding="utf-8")
    (tmp_path / "world.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_world(tmp_path)


def test_values_are_read_as_they_are_written(tmp_path: Path) -> None:
    shutil.copytree(SKY_AND_SONG, tmp_path / "world")
    facts = json.loads((tmp_path / "world" / "facts.json").read_text(encoding="utf-8"))
    facts["tables"]["moons"][0]["planet"] = "PLACE"
    (tmp_path / "world" / "facts.json").unlink()
    for value in ("+49", "no", "1e3", "007", "1_000", "2024-01-01", "12:30", "null"):
        text = yaml.safe_dump(facts).replace("PLACE", value)
        (tmp_path / "world" / "facts.yaml").write_text(text, encoding="utf-8")
        assert load_world(tmp_path / "world").by_id["moon_planet/Io"].answers == (value,)


def test_the_demo_is_a_world_like_any_other() -> None:
    world = load_world(world_folder())
    assert {path.name for path in (world_folder() / "adapters").iterdir()} == set(world.domains)


def test_without_the_demos_data_it_is_said_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("domainfusion.demo.world.importlib.util.find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 1
    assert "run `pip install ./demo` in the repository, or `make demo`" in capsys.readouterr().err


def test_the_library_is_small_without_them() -> None:
    library = Path(domainfusion.__file__).parent
    files = [path for path in library.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(len(zlib.compress(path.read_bytes())) for path in files) < 1_000_000


def test_the_world_of_the_guide_is_one(tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "guides" / "demo.md"
    (text,) = re.findall(r"```yaml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "world.yaml").write_text(text, encoding="utf-8")
    world = load_world(tmp_path)
    assert world.by_id["birth_country/William Lassell"].answers == ("United Kingdom", "England")
    found = build_questions(world, unasked=0.0)
    assert {slice_of(example) for example in found.train} >= {"astronomy", "music", "adversarial"}
