"""Examples as people write them: files and dicts, read into `Example`s with errors that name the place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from domainfusion.distillation.metrics import normalize
from domainfusion.errors import DataError
from domainfusion.records import read_json, read_lines
from domainfusion.types import Example, transcript

ExampleLike = Example | Mapping[str, Any]

CROSS_DOMAIN = "cross-domain"
ADVERSARIAL = "adversarial"

_FIELDS = {item.name for item in fields(Example)} | {"answers", "domain", "schema"}
_READER = TypeAdapter(Example)


def read_examples(source: str | Path | Sequence[ExampleLike], *, domain: str = "") -> Iterator[Example]:
    """Yields examples from a file, or from a list of examples or dicts.

    Args:
        source: The examples. In a dict or a file, `answers` may stand for `parts`: accepted answers by domain, or, where there is one
            domain, the answers alone.
        domain: The domain of entries that name none.

    Raises:
        DataError: An entry can't be read; the message names its file and line, or its position.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        entries = _entries_of_json(path) if path.suffix == ".json" else read_lines(path)
        for place, entry in entries:
            yield _to_example(entry, domain, place)
        return
    for position, item in enumerate(source):
        yield item if isinstance(item, Example) else _to_example(item, domain, f"example {position}")


def refuse_shared_ids(examples: Sequence[Example]) -> None:
    """Raises a `DataError` where two examples have the same id: what is kept by id would be mixed up."""
    seen: dict[str, Example] = {}
    for example in examples:
        other = seen.setdefault(example.id, example)
        if other is not example:
            raise DataError("Two examples have the same id", received=[other.query, example.query], fix="give each query once, or set ids")


def _entries_of_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError("The file does not hold a list of examples", received=str(path), fix="write [{...}, {...}], or use JSON Lines")
    for position, entry in enumerate(content):
        yield f"{path}: entry {position}", entry


def _to_example(entry: object, domain: str, place: str) -> Example:
    if not isinstance(entry, Mapping):
        raise DataError(f"{place} is no object", received=entry, allowed='{"query": "...", "domains": ["..."]}')
    unknown = sorted(set(entry) - _FIELDS)
    if unknown:
        raise DataError(f"{place} has the unknown field {unknown[0]!r}", allowed=", ".join(sorted(_FIELDS)), fix="move it to metadata")
    if not isinstance(entry.get("query"), str) or not entry["query"].strip():
        raise DataError(f"{place} has no query", received=entry.get("query"), fix="give the question as text")
    values = {name: value for name, value in entry.items() if name not in ("schema", "answers", "domain")}
    values["domains"] = _domains_of(entry, domain, place)
    if "answers" in entry:
        if "parts" in entry:
            raise DataError(f"{place} has parts and answers, which say the same", received=entry, fix="leave out one of them")
        values["parts"] = list(_parts_of(entry["answers"], values["domains"], place))
    try:
        example = _READER.validate_python({"source": "curated", **values})
    except ValidationError as error:
        problem = error.errors()[0]
        raise DataError(f"{place}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}", received=problem["input"]) from error
    strange = sorted({example.primary_domain, *example.sub_questions} - set(example.domains))
    if strange:
        raise DataError(f"{place} leads with or asks a domain that is not its own", received=strange[0], allowed=", ".join(example.domains))
    return example


def _domains_of(entry: Mapping[str, Any], default: str, place: str) -> list[str]:
    given = entry.get("domains") or entry.get("domain") or default
    if not given:
        raise DataError(f"{place} names no domain", received=entry.get("domains"), fix='add "domains": ["..."]')
    domains = list(given) if isinstance(given, list | tuple) else [given]
    if not all(isinstance(name, str) and name.strip() for name in domains) or len(set(domains)) < len(domains):
        raise DataError(f"{place} has an empty or repeated domain", received=domains, fix="name each domain once, as a text")
    return domains


def _parts_of(answers: object, domains: Sequence[str], place: str) -> Iterator[dict[str, Any]]:
    if isinstance(answers, str | list | tuple) and len(domains) == 1:
        answers = {domains[0]: answers}
    if not isinstance(answers, Mapping | None):
        raise DataError(f"{place} has answers that can't be read", received=answers, allowed='{"domain": ["an accepted answer", "..."]}')
    for domain, accepted in (answers or {}).items():
        given = [accepted] if isinstance(accepted, str) else accepted
        if not given or (isinstance(given, list | tuple) and any(isinstance(answer, str) and not answer.strip() for answer in given)):
            raise DataError(f"{place} accepts an empty answer of {domain!r}", received=accepted, fix="leave the domain out")
        yield {"domain": domain, "answers": given}


def slice_of(example: Example) -> str:
    """Returns the slice of the test set that an example is reported in.

    It is `metadata["slice"]` where its maker set one, `adversarial` for adversarial examples and for all that look like another domain,
    `cross-domain` for several domains, else the domain.
    """
    if "slice" in example.metadata:
        return str(example.metadata["slice"])
    if example.source == "adversarial" or example.apparent_domain:
        return ADVERSARIAL
    return CROSS_DOMAIN if example.is_cross_domain else example.domains[0]


def query_key(example: Example) -> str:
    """Returns what two examples share that ask the same, case, accents, articles and white space aside: the turns, and the query."""
    return normalize(transcript(example.conversation))
