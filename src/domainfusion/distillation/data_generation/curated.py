"""Examples that people wrote, and files in which people review examples."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from domainfusion.checks import check_count, check_seed
from domainfusion.distillation.data_generation.generator import DataGenerator, Focus, Generated
from domainfusion.distillation.entries import Entry, read_entries
from domainfusion.distillation.examples import ExampleSource, read_examples
from domainfusion.errors import DataError
from domainfusion.models.store import Ask, ask_directly
from domainfusion.records import write_text
from domainfusion.types import Example, Part, domains_of, transcript

DECISIONS = ("accept", "reject", "edit")
_SHOWN = ("query", "domains", "answers", "reference")
_COLUMNS = ("decision", "comment", "before", *_SHOWN, "example")
_FORMULA = tuple("=+-@＝＋－＠\t\r\n")
"""How a cell begins that spreadsheets may take for a formula (OWASP, CSV injection)."""
_READER = TypeAdapter(Example)


@dataclass(frozen=True)
class Reviewed:
    """The outcome of a review.

    Attributes:
        examples: The accepted ones, and the edited ones as they were edited; a comment is kept in
            their metadata.
        left_out: How many were left out, by reason.
    """

    examples: tuple[Example, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def write_review(examples: Iterable[Example], path: str | Path) -> None:
    """Writes a CSV file that any spreadsheet opens, for an expert to review.

    The expert writes `accept`, `reject` or `edit` into `decision`, and, for an edit, changes
    `query`, `domains` (separated by semicolons), `answers` (what a right answer states: a line
    `domain: answer | other spelling` for each part) or `reference`. `before` shows the turns before
    the query; `example` holds everything else and is to be left alone.

    Args:
        examples: What is reviewed.
        path: The file.

    Raises:
        DataError: The file can't be written, or is there already: it may hold an expert's
            decisions.
    """
    if Path(path).exists():
        what = "The review file is there already, perhaps with decisions in it"
        raise DataError(
            what, received=str(path), fix="read it with read_review, or choose another name"
        )
    header = ",".join(f'"{name}"' for name in _COLUMNS) + "\n"
    rows = "".join(map(_row, examples))
    write_text(Path(path), f"\ufeff{header}{rows}")  # the mark by which spreadsheets know UTF-8


def add_to_review(example: Example, path: str | Path) -> bool:
    """Adds an example to the end of a review file, unless it is in it, and makes the file if it is
    not there. What an expert wrote into it stays as it is.

    Args:
        example: What is to be reviewed.
        path: The file.

    Returns:
        Whether it was added.

    Raises:
        DataError: The file is not one of `write_review`, or can't be read or written.
    """
    file = Path(path)
    if not file.exists():
        write_review([example], file)
        return True
    for entry in read_entries(file):
        missing = [name for name in _COLUMNS if name not in (entry.columns or ())]
        if missing:
            raise DataError(
                f"{file} is not a review file: it has no column {missing[0]!r}",
                received=", ".join(entry.columns or ()),
                allowed=", ".join(_COLUMNS),
                fix="choose another name",
            )
        if entry.value["example"] == _whole(example):
            return False
    text = file.read_bytes().decode("utf-8")
    write_text(file, text + ("" if text.endswith("\n") else "\n") + _row(example))
    return True


def _row(example: Example) -> str:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
    before = transcript(example.history) if example.history else ""
    shown = {name: _cell(text) for name, text in {"before": before, **_shown(example)}.items()}
    writer.writerow({**shown, "example": _whole(example)})
    return table.getvalue()


def _whole(example: Example) -> str:
    """Returns all of an example, as a review file keeps it."""
    return json.dumps(asdict(example), ensure_ascii=False)


def read_review(path: str | Path) -> Reviewed:
    """Reads what an expert made of a review file. An example without a decision is left out, and
    counted.

    Raises:
        DataError: A row can't be read, has an unknown decision, or was edited without saying so;
            the message names file and line.
    """
    kept: list[Example] = []
    left_out: Counter[str] = Counter()
    for entry in read_entries(path):
        missing = [name for name in _COLUMNS if name not in (entry.columns or ())]
        if missing:
            what = f"{entry.place} has no column {missing[0]!r}"
            raise DataError(
                what, allowed=", ".join(_COLUMNS), fix="write the file with write_review"
            )
        decision = entry.value.get("decision", "").strip().casefold()
        if decision and decision not in DECISIONS:
            raise DataError(
                f"{entry.place}: the decision is not known",
                received=decision,
                allowed=", ".join(DECISIONS),
            )
        if decision in ("", "reject"):
            left_out["rejected in the review" if decision else "not reviewed"] += 1
        else:
            kept.append(_decided(entry, decision))
    return Reviewed(tuple(kept), dict(left_out))


def _decided(entry: Entry, decision: str) -> Example:
    try:
        example = _READER.validate_json(entry.value.get("example", ""))
    except ValidationError as error:
        raise DataError(
            f"{entry.place}: the column example was changed",
            received=entry.value.get("example"),
            fix="restore it",
        ) from error
    written = {name: _text(entry.value.get(name, "")) for name in _SHOWN}
    changed = {
        name: written[name]
        for name, shown in _shown(example).items()
        if _unformed(written[name]) != _unformed(shown)
    }
    if changed and decision == "accept":
        what = f"{entry.place} was edited ({', '.join(sorted(changed))}), and says accept"
        raise DataError(
            what, received=changed[min(changed)], fix="write edit, or restore what was changed"
        )
    comment = entry.value.get("comment", "").strip()
    noted = {**example.metadata, **({"review": comment} if comment else {})}
    return replace(_edited(example, changed, entry.place), metadata=noted)


def _edited(example: Example, text: Mapping[str, str], place: str) -> Example:
    changes: dict[str, Any] = {}
    domains = (
        tuple(part.strip() for part in text["domains"].split(";") if part.strip())
        if "domains" in text
        else example.domains
    )
    if "query" in text:
        changes |= {
            "query": text["query"],
            "id": "",
            "group": "" if example.group == example.query else example.group,
        }
    if "domains" in text:
        changes |= {
            "domains": domains,
            "id": "",
            "primary_domain": example.primary_domain if example.primary_domain in domains else "",
        }
        changes["sub_questions"] = {
            name: asked for name, asked in example.sub_questions.items() if name in domains
        }
        changes["parts"] = tuple(part for part in example.parts if part.domain in domains)
    if "answers" in text:
        changes["parts"] = tuple(
            _part(line, domains, place) for line in text["answers"].splitlines() if line.strip()
        )
    if "reference" in text:
        changes["reference"] = text["reference"] or None
    if changes.get("query") == "" or not domains:
        raise DataError(
            f"{place} has no {'domains' if not domains else 'query'}",
            received="",
            fix="write it, or reject the example",
        )
    return replace(example, **changes)


def _shown(example: Example) -> dict[str, str]:
    """Returns the columns that an expert may change."""
    answers = "\n".join(f"{part.domain}: {' | '.join(part.answers)}" for part in example.parts)
    return {
        "query": example.query,
        "domains": "; ".join(example.domains),
        "answers": answers,
        "reference": example.reference or "",
    }


def _part(line: str, domains: tuple[str, ...], place: str) -> Part:
    domain = next((name for name in domains if line.strip().startswith(f"{name}:")), "")
    answers = tuple(
        answer.strip() for answer in line.strip()[len(domain) + 1 :].split("|") if answer.strip()
    )
    if not domain or not answers:
        allowed = "a line `domain: answer | other spelling`, its domain one of " + ", ".join(
            domains
        )
        raise DataError(f"{place} has answers that can't be read", received=line, allowed=allowed)
    return Part(domain=domain, answers=answers)


def _cell(text: str) -> str:
    """Returns a text as a spreadsheet shows it: with a mark before what it would take for a formula
    or a number.
    """
    return f"'{text}" if _is_formula(text) else text


def _text(cell: str) -> str:
    if cell.startswith("'") and _is_formula(cell):
        return cell[1:]
    cell = cell.strip()
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    return text.lstrip("' ").startswith(_FORMULA)


def _unformed(text: str) -> str:
    """Returns a text without what spreadsheets change by themselves: the kind of line breaks, and
    white space around it.
    """
    return "\n".join(line.strip() for line in text.strip().splitlines())


class CuratedDataGenerator(DataGenerator):
    """Gives examples that people wrote.

    Args:
        examples: A file (JSON Lines, JSON, CSV, Parquet, a question a line), a Hugging Face dataset
            or the folder that one was saved to, a DataFrame, or a list of `Example`s, tuples of
            question and answer, and dicts with their fields (`query` and `domains`, or `messages`,
            at least); see `read_examples`.
        domain: The domain of entries that name none.
        fields: Where the source calls a field otherwise: its name there by the name here, such as
            `{"query": "question"}`.
        num_examples: Take a random sample of this size; by default all. Where a `Focus` is given,
            others are taken, as many at most.
        seed: Seed of the sample.

    Raises:
        DataError: An entry can't be read; the message names its file and line, or its position.
        ConfigurationError: `num_examples` is out of range, or `fields` contains an unknown field
            name.
        MissingDependencyError: A Parquet file, and the package pyarrow is not installed.
    """

    def __init__(
        self,
        examples: ExampleSource,
        *,
        domain: str = "",
        fields: Mapping[str, str] | None = None,
        num_examples: int | None = None,
        seed: int = 0,
    ) -> None:
        check_seed(seed)
        self.examples = tuple(read_examples(examples, domain=domain, fields=fields))
        self.left_out: Mapping[str, int] = {}
        if not self.examples:
            raise DataError(
                "There are no curated examples", received=str(examples), fix="give at least one"
            )
        check_count("num_examples", num_examples, most=len(self.examples), optional=True)
        self.num_examples = num_examples
        self.seed = seed
        self.domains = domains_of(self.examples)
        self.has_more = num_examples is not None and num_examples < len(self.examples)

    @classmethod
    def from_review(
        cls, path: str | Path, *, num_examples: int | None = None, seed: int = 0
    ) -> Self:
        """Gives the examples that an expert accepted or edited in a review file; see
        `write_review`.

        Raises:
            DataError: A row can't be read, or none was accepted.
        """
        reviewed = read_review(path)
        if not reviewed.examples:
            raise DataError(
                "The review accepts nothing",
                received=dict(reviewed.left_out),
                fix=f"write accept into {path} where it fits",
            )
        generator = cls(reviewed.examples, num_examples=num_examples, seed=seed)
        generator.left_out = reviewed.left_out
        return generator

    def write_review(self, path: str | Path) -> None:
        """Writes the examples to a review file; see `write_review`."""
        write_review(self.examples, path)

    def generate(self, ask: Ask = ask_directly, *, focus: Focus | None = None) -> Generated:
        """Returns the curated examples; no model is asked.

        Args:
            ask: See `DataGenerator.generate`.
            focus: Take others than those of the first sample, by its weights and none of its
                earlier ones; as many as there are.
        """
        if focus is not None:
            return self._others(focus)
        chosen = self._first
        return Generated(chosen, len(chosen) + sum(self.left_out.values()), self.left_out)

    @property
    def _first(self) -> tuple[Example, ...]:
        return (
            self.examples
            if self.num_examples is None
            else tuple(random.Random(self.seed).sample(self.examples, self.num_examples))
        )

    def _others(self, focus: Focus) -> Generated:
        known = {example.id for example in (*self._first, *focus.earlier)}
        drawn = random.Random(f"{self.seed}/{focus.round}").sample(
            self.examples, len(self.examples)
        )
        counts = focus.apportion(self.num_examples or 0, domains_of(self.examples))
        chosen: list[Example] = []
        for needed, count in counts.items():
            fitting = [
                example
                for example in drawn
                if set(example.domains) == set(needed) and example.id not in known
            ]
            chosen += fitting[:count]
        return Generated(tuple(chosen), wanted=sum(counts.values()))
