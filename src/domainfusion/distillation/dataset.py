"""From what the generators made to what is trained on, validated on and tested on: no question
twice, none of them in two parts.
"""

from __future__ import annotations

import logging
import random
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from domainfusion.checks import check_number
from domainfusion.distillation.data_generation import DataGenerator, Focus, Generated
from domainfusion.distillation.data_generation.generator import options_for
from domainfusion.distillation.data_generation.writing import no_questions
from domainfusion.distillation.duplicates import Duplicates, EvaluationSets, Leak
from domainfusion.distillation.examples import (
    ExampleSource,
    query_key,
    read_examples,
    refuse_shared_ids,
)
from domainfusion.distillation.metrics import stated_parts
from domainfusion.distillation.run import RunDirectory, read_description
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.store import Ask
from domainfusion.records import read_records, write_json, write_records
from domainfusion.types import Example, domains_of, fingerprint
from domainfusion.wording import counted

logger = logging.getLogger("domainfusion")

GroupBy = str | Callable[[Example], str]
"""What puts examples into one group: `group`, their own field; `query`, the question itself; any
other name, such as `fact` or `template`, is a key of their metadata; or a function that names an
example's group.
"""


class Split(NamedTuple):
    """Three parts of the examples: what is trained on, what checkpoints are chosen by, and what is
    evaluated on.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def grouped(examples: Sequence[Example], group_by: GroupBy) -> list[Example]:
    """Returns the examples with the group that `group_by` puts them into; it is the one that is
    split by and that intervals resample.

    An example without the metadata that is asked for is a group by itself.

    Raises:
        ConfigurationError: No example has this metadata.
        DataError: The function names no group.
    """
    if group_by == "group":
        return list(examples)
    names = [_group_of(example, group_by) for example in examples]
    missing = sum(name is None for name in names)
    if missing and missing == len(names):
        known = sorted({key for example in examples for key in example.metadata})
        raise ConfigurationError(
            f"No example has metadata[{group_by!r}] to group by",
            received=group_by,
            allowed=(
                "group, query, a function, or a key of the metadata:"
                f" {', '.join(known) or 'there is none'}"
            ),
        )
    if missing:
        logger.info(
            "%d of %d examples have no %s: each is a group by itself.",
            missing,
            len(names),
            group_by,
        )
    return [
        replace(example, group=name or query_key(example))
        for example, name in zip(examples, names, strict=True)
    ]


def _group_of(example: Example, group_by: GroupBy) -> str | None:
    if callable(group_by):
        name = group_by(example)
        if not isinstance(name, str) or not name:
            raise DataError(
                "group_by names no group",
                received=name,
                allowed="a text",
                fix=f"look at what it does with {example.query!r}",
            )
        return name
    if group_by == "query":
        return query_key(example)
    found = example.metadata.get(group_by)
    return None if found is None else str(found)


def split(
    examples: Sequence[Example], *, test: float = 0.0, validation: float = 0.0, seed: int = 0
) -> Split:
    """Splits examples by group.

    Each combination of domains gives its share of groups to the test set, and then to the
    validation set: one group at least of each, unless nothing would be left to train on.

    Args:
        examples: The examples.
        test: Share of the groups to evaluate on.
        validation: Share of the groups to choose checkpoints by.
        seed: Seed of the choice.
    """
    strata: dict[tuple[str, ...], set[str]] = {}
    for example in examples:
        strata.setdefault(tuple(sorted(example.domains)), set()).add(example.group)
    tested: set[str] = set()
    validated: set[str] = set()
    for domains, groups in strata.items():
        names = sorted(groups)
        random.Random(f"{seed}/{domains}").shuffle(names)
        first = _count(len(names), len(names), test)
        tested.update(names[:first])
        validated.update(names[first : first + _count(len(names), len(names) - first, validation)])
    return Split(
        train=[example for example in examples if example.group not in tested | validated],
        validation=[example for example in examples if example.group in validated - tested],
        test=[example for example in examples if example.group in tested],
    )


class FactSplit(NamedTuple):
    """Examples by whether they are about something that is held out."""

    kept: list[Example]
    held_out: list[Example]
    mixed: list[Example]


def hold_out(
    examples: ExampleSource,
    *,
    by: str | Callable[[Example], str | Collection[str]],
    share: float = 0.2,
    slice_name: str = "unasked",
    seed: int = 0,
) -> FactSplit:
    """Keeps a share of all facts (or documents, or cases) out of the examples that are trained on.

    Unlike a split by group, it looks at everything that an example is about: a pair of two facts is
    trained on only where neither of them is held out.

    Args:
        examples: The examples, as objects, dicts or a file.
        by: What an example is about: a key of its metadata with a name or several, or a function.
        share: Share of the names that is held out in each domain, or combination of domains where a
            name has no example in one alone; at least one of several.
        slice_name: The slice of the test set in which the held-out examples are reported.
        seed: Seed of the choice.

    Returns:
        `kept`, the examples of which nothing is held out; `held_out`, those that are about nothing
        else, in their slice; and `mixed`, the others, which fit neither training nor that slice.

    Raises:
        ConfigurationError: The share is not between 0 and 1.
        DataError: An example does not say what it is about.

    Example:
        >>> asked = [{"query": f"Who is {name}?", "domains": ["people"], "metadata": {"facts": name}} for name in "ABCDE"]
        >>> apart = hold_out(asked, by="facts", share=0.2)
        >>> len(apart.kept), len(apart.held_out), apart.held_out[0].metadata["slice"]
        (4, 1, 'unasked')
    """
    check_number("share", share, "(0, 1)")
    found = list(read_examples(examples))
    names = [_names_of(example, by) for example in found]
    strata: dict[tuple[str, ...], list[str]] = {}
    seen: set[str] = set()
    for example, own in sorted(
        zip(found, names, strict=True), key=lambda pair: len(pair[0].domains)
    ):
        strata.setdefault(tuple(sorted(example.domains)), []).extend(sorted(own - seen))
        seen |= own
    apart: set[str] = set()
    for domains, listed in strata.items():
        drawn = random.Random(f"{seed}/{domains}").sample(listed, len(listed))
        apart.update(drawn[: _count(len(drawn), len(drawn), share)])
    outcome = FactSplit([], [], [])
    for example, own in zip(found, names, strict=True):
        if not own & apart:
            outcome.kept.append(example)
        elif own <= apart:
            outcome.held_out.append(
                replace(example, metadata={**example.metadata, "slice": slice_name})
            )
        else:
            outcome.mixed.append(example)
    return outcome


def _names_of(example: Example, by: str | Callable[[Example], str | Collection[str]]) -> set[str]:
    given: Any = by(example) if callable(by) else example.metadata.get(by)
    several = given if isinstance(given, list | tuple | set | frozenset) else [given]
    names = {str(name) for name in several if name is not None and str(name)}
    if not names:
        source = "the function" if callable(by) else f"metadata[{by!r}]"
        raise DataError(
            f"An example does not say what it is about: {source} names nothing",
            received=example.query,
            allowed="a name, or a list of names",
        )
    return names


def _count(total: int, left: int, share: float) -> int:
    """Returns how many of the groups that are left make a share of the total."""
    fewest = int(share > 0 and left > 1)
    return min(left, max(fewest, round(total * share)))


WRITTEN_BY_MODELS = frozenset(("synthetic", "adversarial"))
"""Sources whose near-duplicates are dropped; people who ask two similar questions mean two."""


@dataclass(frozen=True, kw_only=True)
class Hygiene:
    """What is removed from the generated examples.

    Attributes:
        duplicate_threshold: Share of content words from which on a question that a model wrote is a
            near-duplicate of another; 1 drops equal questions alone. See `Duplicates`.
        ngram_words: Words of the n-grams by which training questions are compared with evaluation
            sets; 0 removes equal questions alone. See `EvaluationSets`.
        containment: Share of an evaluation question's n-grams from which on a training question
            contains it.

    Raises:
        ConfigurationError: A number is out of range.
    """

    duplicate_threshold: float = 0.8
    ngram_words: int = 8
    containment: float = 0.7

    def __post_init__(self) -> None:
        Duplicates(self.duplicate_threshold)
        EvaluationSets({}, ngram_words=self.ngram_words, containment=self.containment)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What is not trained on.

    Attributes:
        test: The examples to evaluate on; None where a share of the generated ones is held out.
        validation: The examples to choose checkpoints by; None likewise.
        benchmarks: Further examples, by name, that nothing may be trained on.
        test_share: Share of the generated examples that becomes the test set where none is given.
        validation_share: Share of them that becomes the validation set where none is given.
        group_by: What no two parts share; see `GroupBy`.
        seed: Seed of the choice.
    """

    test: Sequence[Example] | None = None
    validation: Sequence[Example] | None = None
    benchmarks: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    test_share: float = 0.0
    validation_share: float = 0.0
    group_by: GroupBy = "group"
    seed: int = 0


@dataclass(frozen=True)
class Removed:
    """A question that was left out for another one.

    Attributes:
        query: The question.
        reason: Why it was left out.
        contained: The evaluation question that stands in it; empty where it came before.
    """

    query: str
    reason: str
    contained: str = ""


@dataclass
class GeneratedBatch:
    """What one generator made, and what is left of it.

    Attributes:
        generator: The generator that made it.
        generated: What it made.
        kept: What is left.
        removed: What was left out, and why.
    """

    generator: DataGenerator
    generated: Generated
    kept: list[Example] = field(default_factory=list)
    removed: list[Removed] = field(default_factory=list)

    def drop(self, leaks: Mapping[str, Leak]) -> None:
        """Leaves out the examples with these ids, which contain an evaluation question each."""
        for example in self.kept:
            if leak := leaks.get(example.id):
                reason = (
                    f"is in the {leak.source} set"
                    if leak.exact
                    else f"contains a question of the {leak.source} set"
                )
                self.removed.append(Removed(example.query, reason, leak.query))
        self.kept = [example for example in self.kept if example.id not in leaks]

    def drop_groups(self, ids: Collection[str]) -> None:
        """Leaves out the examples with these ids, whose groups are held out."""
        self.removed += [
            Removed(example.query, "belongs to a group that is held out")
            for example in self.kept
            if example.id in ids
        ]
        self.kept = [example for example in self.kept if example.id not in ids]

    def drop_alike(self, ids: Collection[str]) -> None:
        """Leaves out the examples with these ids, which are nearly a question that is held out."""
        self.removed += [
            Removed(example.query, "is nearly a question that is held out")
            for example in self.kept
            if example.id in ids
        ]
        self.kept = [example for example in self.kept if example.id not in ids]

    def count(self) -> dict[str, Any]:
        """Returns the entry of `generation.json`."""
        made = self.generated
        kinds = {example.source for example in made.examples}
        rejected = Counter(made.rejected) + Counter(item.reason for item in self.removed)
        several = sum(example.is_cross_domain for example in self.kept)
        return {
            "generator": type(self.generator).__name__,
            "kind": ", ".join(sorted(kinds)) or self.generator.source,
            "wanted": made.wanted,
            "asked": made.asked or len(made),
            "accepted": len(self.kept),
            "cross_domain": {"wanted": made.wanted_cross_domain, "accepted": several},
            "rejected": dict(rejected),
            "judged": made.judged,
            "acceptance_rate": made.acceptance_rate,
            "removed": [asdict(item) for item in self.removed],
        }


@dataclass(frozen=True)
class Dataset:
    """The examples of a run.

    Attributes:
        train: What is trained on.
        validation: What checkpoints are chosen by.
        test: What is evaluated on.
        counts: What each generator was asked for, the outcome, and which questions were
            removed.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    counts: tuple[Mapping[str, Any], ...]

    def check_test(self, accuracy: object, holdout: float) -> None:
        """Refuses a dataset without a test set, and warns where accuracy on it is undefined.

        Args:
            accuracy: The metric that grades answers; None where none does.
            holdout: The share of the examples that was to be held out.

        Raises:
            DataError: The test set is empty.
        """
        if not self.test:
            raise DataError(
                "No example is held out to evaluate on",
                received=f"{counted(len(self.train), 'example')}, holdout={holdout:g}",
                fix="give test_examples, or make more examples",
            )
        if accuracy is stated_parts and not any(example.has_reference for example in self.test):
            logger.warning(
                "None of the %d test examples has a reference answer, so their accuracy is"
                " undefined: a DomainRetentionEvaluator measures agreement with the experts. For"
                " accuracy, give test_examples with `answers`.",
                len(self.test),
            )

    def check_validation(self, accuracy: object) -> None:
        """Raises a `DataError` where `accuracy` can grade no validation example, so that a
        refinement can't tell where the student is weak.
        """
        grades_all = accuracy is not stated_parts
        if not any(grades_all or example.has_reference for example in self.validation):
            raise DataError(
                "No validation example has a reference answer, so a refinement can't tell where the"
                " student is weak",
                received=f"{counted(len(self.validation), 'validation example')}",
                fix="give validation_examples with `answers`, or leave refinement_rounds out",
            )

    def warn_of_idle(self, domains: Iterable[str]) -> None:
        """Warns of domains that no training example needs."""
        idle = [domain for domain in domains if domain not in domains_of(self.train)]
        if idle:
            logger.warning(
                "No training example needs the domain %s: the student can learn nothing from its"
                " expert.",
                ", ".join(idle),
            )

    def write(self, run: RunDirectory) -> None:
        """Writes the examples, the training ones last: they say that all are there. What is held
        out is fingerprinted in `run.json`.
        """
        refuse_shared_ids([*self.train, *self.validation, *self.test])
        write_json(run.generation, list(self.counts), listed=True)
        write_records(run.test_examples, self.test, listed=True)
        write_records(run.validation_examples, self.validation, listed=True)
        prints = {name: fingerprint(getattr(self, name)) for name in ("test", "validation")}
        run.add_to_description("held_out", prints)
        write_records(run.examples, self.train, listed=True)


def read_held_out(run: RunDirectory, name: str) -> list[Example]:
    """Returns the `test` or the `validation` examples of a run as they were frozen.

    Raises:
        DataError: The file was changed since.
    """
    path = run.test_examples if name == "test" else run.validation_examples
    examples = read_records(path, Example)
    frozen = read_description(run).held_out.get(name)
    if frozen is not None and frozen != fingerprint(examples):
        raise DataError(
            f"The {name} examples were changed after they were frozen, before training",
            received=str(path),
            fix="restore the file, or evaluate on another one",
        )
    return examples


def run_generator(generator: DataGenerator, ask: Ask, focus: Focus | None = None) -> GeneratedBatch:
    """Lets a generator make its examples, or more of them where a focus says.

    Raises:
        DataError: It returned something other than examples; or it made none and rejected none,
            without a focus that may want none of its own.
    """
    options = {"ask": ask} if focus is None else {"ask": ask, "focus": focus}
    outcome = generator.generate(**options_for(generator.generate, **options))
    if isinstance(outcome, str) or not isinstance(outcome, Iterable):
        raise DataError(
            f"{type(generator).__name__} returned no examples",
            received=outcome,
            allowed="examples, or dicts of their fields",
        )
    generated = (
        outcome
        if isinstance(outcome, Generated)
        else Generated(tuple(read_examples(list(outcome))))
    )
    if focus is None and not generated.examples and not generated.rejected:
        raise DataError(
            f"{type(generator).__name__} returned no examples", fix="look at its generate()"
        )
    return GeneratedBatch(generator, generated)


def assemble(
    batches: Sequence[GeneratedBatch], held_out: HeldOut, hygiene: Hygiene = Hygiene()
) -> Dataset:
    """Makes the dataset of a run.

    Questions that came before are dropped, near-duplicates of what models wrote too; then what is
    in an evaluation set that is given, or in a benchmark. Of the rest, test and validation sets are
    split off where they are not given, and what contains one of their questions is dropped from the
    other parts.

    Raises:
        DataError: Nothing is left to train on.
        ConfigurationError: No example has the field that they are grouped by.
    """
    _drop_duplicates(batches, hygiene)
    refuse_shared_ids([example for batch in batches for example in batch.kept])
    given = {
        "test": held_out.test or (),
        "validation": held_out.validation or (),
        **held_out.benchmarks,
    }
    candidates = _without(
        given, [example for batch in batches for example in batch.kept], batches, hygiene
    )
    parts = split(
        grouped(candidates, held_out.group_by) if candidates else [],
        test=held_out.test_share if held_out.test is None else 0.0,
        validation=held_out.validation_share if held_out.validation is None else 0.0,
        seed=held_out.seed,
    )
    validation = _without({"test": parts.test}, parts.validation, batches, hygiene)
    train = _without({"test": parts.test, "validation": validation}, parts.train, batches, hygiene)
    counts = tuple(batch.count() for batch in batches)
    if not train:
        reasons = [
            {key: count[key] for key in ("generator", "asked", "rejected")} for count in counts
        ]
        replies = [reply for batch in batches for reply in batch.generated.replies]
        raise DataError(
            "No example is left to train on",
            received=reasons,
            fix=no_questions(replies) if replies else "see what was rejected, and why",
        )
    return Dataset(
        train=tuple(train),
        validation=tuple(validation if held_out.validation is None else held_out.validation),
        test=tuple(parts.test if held_out.test is None else held_out.test),
        counts=counts,
    )


def assemble_more(
    batches: Sequence[GeneratedBatch],
    earlier: Sequence[Example],
    held_out: HeldOut,
    hygiene: Hygiene = Hygiene(),
) -> list[Example]:
    """Returns the training examples that further batches add; there may be none.

    Questions like an earlier one are dropped as `assemble` drops them, and so is what contains a
    question that is held out, belongs to a group that is, or was written by a model and is nearly
    such a question.

    Args:
        batches: What was made; each keeps what is added and notes what is not.
        earlier: What is trained on already.
        held_out: The test and the validation set as they were frozen, and the benchmarks.
        hygiene: What is removed.

    Raises:
        DataError: A new example has the id of an earlier or a held-out one.
    """
    _drop_duplicates(batches, hygiene, earlier)
    sets = {
        "test": held_out.test or (),
        "validation": held_out.validation or (),
        **held_out.benchmarks,
    }
    kept = _without(
        sets, [example for batch in batches for example in batch.kept], batches, hygiene
    )
    refuse_shared_ids([*earlier, *sets["test"], *sets["validation"], *kept])
    added = grouped([*earlier, *kept], held_out.group_by)[len(earlier) :]
    apart = {example.group for name in ("test", "validation") for example in sets[name]}
    near = Duplicates(hygiene.duplicate_threshold)
    for name in ("test", "validation"):
        for example in sets[name]:
            near.add(example)
    alike = {
        example.id for example in kept if example.source in WRITTEN_BY_MODELS and near.find(example)
    }
    groups = {example.id: example.group for example in added}
    for batch in batches:
        batch.drop_groups({identity for identity, group in groups.items() if group in apart})
        batch.drop_alike(alike)
    return [example for example in added if example.group not in apart and example.id not in alike]


def _drop_duplicates(
    batches: Sequence[GeneratedBatch], hygiene: Hygiene, earlier: Sequence[Example] = ()
) -> None:
    by_models = any(
        example.source in WRITTEN_BY_MODELS for batch in batches for example in batch.generated
    )
    seen = Duplicates(hygiene.duplicate_threshold if by_models else 1.0)
    first = {query_key(example): example for example in reversed(earlier)}
    for example in earlier:
        seen.add(example)
    for batch in batches:
        repeated: list[Removed] = []
        for example in batch.generated:
            is_written = example.source in WRITTEN_BY_MODELS
            likeness = seen.find(example, near=is_written)
            if likeness is None:
                seen.add(example)
                batch.kept.append(example)
                first.setdefault(query_key(example), example)
                continue
            before = first.get(query_key(example))
            is_other = before is not None and _differ(before, example)
            removed = Removed(example.query, OTHER_ANSWER if is_other else likeness)
            batch.removed.append(removed)
            if not is_written:
                repeated.append(removed)
        _warn_of_repeated(repeated)


OTHER_ANSWER = "duplicate with another answer"
"""Why a question is left out that came before, where its reference or its domains are others."""


def _differ(before: Example, example: Example) -> bool:
    """Whether two examples of one question have other domains, or other right answers."""
    if set(before.domains) != set(example.domains):
        return True
    if not before.has_reference or not example.has_reference:
        return False
    return (before.reference, before.parts) != (example.reference, example.parts)


def _warn_of_repeated(repeated: Sequence[Removed]) -> None:
    """Warns of questions of people that came before: the first of each is kept."""
    if not repeated:
        return
    others = [item.query for item in repeated if item.reason == OTHER_ANSWER]
    shown = (others or [item.query for item in repeated])[0]
    logger.warning(
        "%d given questions are repeated and left out; the first of each is kept%s. Such as: %s",
        len(repeated),
        f"; {len(others)} of them have another reference or other domains" if others else "",
        textwrap.shorten(shown, 120, placeholder=" …"),
    )


def _without(
    sets: Mapping[str, Sequence[Example]],
    examples: Sequence[Example],
    batches: Sequence[GeneratedBatch],
    hygiene: Hygiene,
) -> list[Example]:
    """Returns the examples that contain no question of the sets; the others are taken from the
    batches that they come from.
    """
    index = EvaluationSets(sets, ngram_words=hygiene.ngram_words, containment=hygiene.containment)
    leaks = {example.id: leak for example in examples if (leak := index.find(example)) is not None}
    for batch in batches:
        batch.drop(leaks)
    return [example for example in examples if example.id not in leaks]
