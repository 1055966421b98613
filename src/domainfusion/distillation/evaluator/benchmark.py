"""How the student, its experts and baselines do on benchmarks of each domain, and on general
ability.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from domainfusion.checks import check_number
from domainfusion.distillation.duplicates import OnOverlap, hold_apart, with_groups
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator.ensemble import Ensemble, routed
from domainfusion.distillation.evaluator.evaluator import (
    MeasuringEvaluator,
    Remembering,
    by_slice,
    role_of,
)
from domainfusion.distillation.evaluator.harness import HarnessTask, LoadedTask
from domainfusion.distillation.examples import (
    ExampleLike,
    read_examples,
    refuse_shared_ids,
    slice_of,
)
from domainfusion.distillation.metrics import Graded, MetricChoice, stated_parts
from domainfusion.distillation.metrics.grading import name_of
from domainfusion.distillation.results import (
    Benchmark,
    Estimate,
    ModelResult,
    Overlap,
    Regression,
    Role,
    SliceScore,
)
from domainfusion.distillation.statistics import regression
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Generation, Sampling, Score, fingerprint

BenchmarkSource = str | Path | HarnessTask | Sequence[ExampleLike]
"""A benchmark: examples, the path of a file of such, or a task of lm-evaluation-harness, by its
name or as a `HarnessTask`.
"""

BenchmarkSources = BenchmarkSource | Sequence[str | Path | HarnessTask | Sequence[ExampleLike]]
"""One benchmark, or a list of several."""

GENERAL = "general"
"""The domain of items that measure general ability."""


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark that was read.

    Attributes:
        slice: The slice that it is reported in.
        domain: The domain that it measures; empty for general ability.
        source: `examples`, a path, or the name of a task.
        examples: Its items.
        task: The task that asks and grades in its own way; None where the evaluator's metric does.
    """

    slice: str
    domain: str
    source: str
    examples: tuple[Example, ...]
    task: LoadedTask | None = None


def normalized(
    sources: BenchmarkSources, name: str
) -> tuple[str | Path | HarnessTask | tuple[Example, ...], ...]:
    """Returns the benchmarks of a list, or the one benchmark, with its examples read; tasks are not
    loaded yet.

    Args:
        sources: What was given.
        name: The domain, or what errors call it.

    Raises:
        DataError: One is empty, can't be read, or is neither a file nor the name of a task.
    """
    if isinstance(sources, str | Path | HarnessTask):
        return (_checked(sources, name),)
    several: list[str | Path | HarnessTask | Sequence[ExampleLike]] = []
    examples: list[ExampleLike] = []
    for item in sources:
        if isinstance(item, Example | Mapping):
            examples.append(item)
        else:
            several.append(item)
    if examples and several:
        raise DataError(
            f"The benchmark of {name!r} mixes examples and benchmarks",
            received=several[0],
            fix="put the examples into a list of their own",
        )
    if not several:
        return (_read(examples, name),)
    return tuple(
        _checked(item, name) if isinstance(item, str | Path | HarnessTask) else _read(item, name)
        for item in several
    )


def load(
    sources: Mapping[str, Sequence[str | Path | HarnessTask | tuple[Example, ...]]],
    *,
    general: bool = False,
) -> Iterator[LoadedBenchmark]:
    """Reads the benchmarks of each domain; a domain with one of them gives its name to the slice,
    else each has its own.

    Raises:
        MissingDependencyError: A task needs lm-evaluation-harness.
        DataError: A file or a task can't be read, or two benchmarks of a domain have the same name.
    """
    for domain, found in sources.items():
        names = [_label(source, position) for position, source in enumerate(found)]
        if len(set(names)) < len(names):
            raise DataError(
                f"Two benchmarks of {domain!r} have the same name",
                received=names,
                fix="name files and tasks differently",
            )
        for label, source in zip(names, found, strict=True):
            name = f"{domain}: {label}" if general or len(found) > 1 else domain
            yield _load(source, name, domain, "" if general else domain)


def _load(
    source: str | Path | HarnessTask | tuple[Example, ...], name: str, needed: str, domain: str
) -> LoadedBenchmark:
    if isinstance(source, tuple):
        return LoadedBenchmark(
            name, domain, "examples", tuple(in_slice(example, name) for example in source)
        )
    if not isinstance(source, HarnessTask) and Path(source).is_file():
        examples = _read(source, needed)
        return LoadedBenchmark(
            name, domain, str(source), tuple(in_slice(example, name) for example in examples)
        )
    task = source if isinstance(source, HarnessTask) else HarnessTask(name=str(source))
    loaded = LoadedTask(task, name, needed)
    return LoadedBenchmark(name, domain, task.name, loaded.examples, loaded)


def _checked(
    source: str | Path | HarnessTask, name: str
) -> str | Path | HarnessTask | tuple[Example, ...]:
    """Reads a file at once, and leaves the name of a task for later."""
    if isinstance(source, HarnessTask):
        return source
    if Path(source).is_file():
        _read(source, name)
        return source
    if (
        isinstance(source, Path)
        or not re.fullmatch(r"[\w.-]+", source)
        or Path(source).suffix in (".json", ".jsonl")
    ):
        raise DataError(
            f"The benchmark of {name!r} is neither a file nor the name of a task",
            received=str(source),
            allowed=(
                "a list of examples, a JSON Lines or JSON file, or a task of lm-evaluation-harness"
            ),
        )
    return source


def _read(source: str | Path | Sequence[ExampleLike], name: str) -> tuple[Example, ...]:
    found = tuple(read_examples(source, domain=name))
    if not found:
        raise DataError(
            f"The benchmark of {name!r} is empty", received=source, fix="give at least one item"
        )
    return found


def _label(source: str | Path | HarnessTask | tuple[Example, ...], position: int) -> str:
    if isinstance(source, tuple):
        return f"examples {position + 1}" if position else "examples"
    if isinstance(source, HarnessTask):
        return source.name
    return Path(source).stem if Path(source).is_file() else str(source)


def in_slice(example: Example, name: str) -> Example:
    """Returns an example that is reported in the slice of that name, under an id of its own
    there.
    """
    return replace(example, metadata={**example.metadata, "slice": name}, id=f"{name}/{example.id}")


class BenchmarkEvaluator(MeasuringEvaluator):
    """Measures the student, its experts and baselines on benchmarks of each domain, side by side.

    Every model answers every item. The routed oracle answers each with the expert of its domain.
    Where there is a base, every benchmark of general ability is compared with it: whether the
    student lost some of it.

    Args:
        benchmarks: For each domain a benchmark, or a list of several: examples or dicts with
            `query` and `answers` or `reference`, the path of a file of such, or a task of
            lm-evaluation-harness (its name, or a `HarnessTask`).
        general: Benchmarks of general ability, likewise.
        metric: Grades an answer: a metric, the name of one, or one for each domain; by default the
            share of the example's parts that it states. An example may name its own in
            `metadata["metric"]`. Tasks of lm-evaluation-harness have their own.
        baselines: Further models to measure beside.
        baseline_scores: Scores of further models that were measured elsewhere: for each its
            accuracy, 0 to 1, by benchmark.
        sampling: How the models answer; by default greedily, up to 256 tokens.
        resamples: Bootstrap resamples behind the 95 % intervals.
        seed: Seed of the bootstrap.
        on_overlap: What to do with items that were trained on: `refuse` to evaluate, or leave them
            out and `report` them.
        tolerance: The loss of general ability up to which none is spoken of.

    Raises:
        DataError: A benchmark is empty or can't be read.
        ConfigurationError: A number is out of range.
    """

    def __init__(
        self,
        benchmarks: Mapping[str, BenchmarkSources],
        *,
        general: BenchmarkSources = (),
        metric: MetricChoice = stated_parts,
        baselines: Mapping[str, LanguageModel] | None = None,
        baseline_scores: Mapping[str, Mapping[str, float]] | None = None,
        sampling: Sampling = Sampling(),
        resamples: int = 10_000,
        seed: int = 0,
        on_overlap: OnOverlap = "refuse",
        tolerance: float = 0.05,
    ) -> None:
        super().__init__(
            metric=metric,
            sampling=sampling,
            resamples=resamples,
            seed=seed,
            baselines=baselines,
            on_overlap=on_overlap,
        )
        check_number("tolerance", tolerance, "[0, 1)")
        if not isinstance(benchmarks, Mapping):
            raise ConfigurationError(
                "benchmarks names no domains",
                received=benchmarks,
                allowed="a dict from each domain to its benchmarks",
                fix='write {"domain": [...]}',
            )
        self.benchmarks = {
            domain: normalized(sources, domain) for domain, sources in benchmarks.items()
        }
        self.general = (
            normalized(general, GENERAL) if isinstance(general, str | Path) or general else ()
        )
        given = [score for scores in (baseline_scores or {}).values() for score in scores.values()]
        if strange := [score for score in given if not 0 <= score <= 1]:
            raise ConfigurationError(
                "baseline_scores are not shares",
                received=strange[0],
                allowed="numbers from 0 to 1",
            )
        if baseline_scores and not self.benchmarks and not self.general:
            raise ConfigurationError(
                "baseline_scores are given and no benchmarks", fix="give benchmarks"
            )
        if not self.benchmarks and not self.general:
            raise DataError(
                "There are no benchmarks", received=benchmarks, fix='give {"domain": [...]}'
            )
        self.baseline_scores = {
            name: dict(scores) for name, scores in (baseline_scores or {}).items()
        }
        self.tolerance = tolerance

    @property
    def own_examples(self) -> Mapping[str, Sequence[Example]]:
        """The items of the benchmarks."""
        return {f"{benchmark.slice} benchmark": benchmark.examples for benchmark in self._loaded}

    @cached_property
    def _loaded(self) -> tuple[LoadedBenchmark, ...]:
        """The benchmarks with their items: tasks are read when they are first needed."""
        general = {GENERAL: self.general} if self.general else {}
        found = (*load(self.benchmarks), *load(general, general=True))
        self._check_scores([benchmark.slice for benchmark in found])
        return found

    def evaluate(
        self,
        student_model: LanguageModel,
        teacher_models: Mapping[str, LanguageModel],
        examples: Sequence[ExampleLike] = (),
        *,
        baselines: Mapping[str, LanguageModel] | None = None,
        trained_on: str | Path | Sequence[ExampleLike] | None = None,
        ask: Ask = ask_directly,
    ) -> EvaluationReport:
        """Evaluates on the benchmarks, and on `examples` beside them, in slices of their own named
        `examples: ...`.

        Raises:
            DataError: A benchmark can't be read, two of its items or of the examples have the same
                id, some were trained on, or a benchmark is of a domain that has no expert.
            ConfigurationError: A given score is of no benchmark, or is not a share.
        """
        self._check_domains(teacher_models)
        given = [
            in_slice(example, f"examples: {slice_of(example)}")
            for example in read_examples(list(examples))
        ]
        items = [item for benchmark in self._loaded for item in benchmark.examples] + given
        refuse_shared_ids(items)
        items, overlap = hold_apart(items, trained_on, self.on_overlap)
        test_set = fingerprint(items)
        items = with_groups(items)
        rows = self._rows(
            student_model,
            {**(baselines or {}), **self.baselines},
            teacher_models,
            items,
            Remembering(ask),
        )
        places = by_slice(items)
        return EvaluationReport(
            models=rows,
            benchmarks=tuple(
                self._about(benchmark, len(places.get(benchmark.slice, ())))
                for benchmark in self._loaded
            ),
            regressions=tuple(
                self._regression(benchmark.slice, places.get(benchmark.slice, ()), items, rows)
                for benchmark in self._loaded
                if not benchmark.domain
            ),
            overlap=overlap,
            examples=tuple(items),
            test_set=test_set,
            seed=self.seed,
            resamples=self.resamples,
            metric=name_of(self.metric),
        )

    def _rows(
        self,
        student: LanguageModel,
        baselines: Mapping[str, LanguageModel],
        teachers: Mapping[str, LanguageModel],
        items: Sequence[Example],
        ask: Ask,
    ) -> tuple[ModelResult, ...]:
        """Asks every model, and returns the rows of the report: the student, what it is compared
        with, the experts, these together, and the scores that were given.
        """
        found: list[ModelResult] = []

        def measure(name: str, role: Role, model: LanguageModel) -> list[Graded]:
            graded = self._grade_all(model, items, ask, name)
            found.append(self._result(name, role, items, graded))
            return graded

        measure("student", "student", student)
        for name, model in baselines.items():
            measure(name, role_of(name), model)
        experts = {domain: measure(domain, "expert", model) for domain, model in teachers.items()}
        if experts:
            graded = self._oracle(items, teachers, experts, ask)
            found.append(replace(self._result("oracle", "oracle", items, graded), answers=()))
        given = [self._given(name, scores) for name, scores in self.baseline_scores.items()]
        return (*found, *given)

    def _regression(
        self,
        name: str,
        places: Sequence[int],
        items: Sequence[Example],
        rows: Sequence[ModelResult],
    ) -> Regression:
        """Compares the student, the first of the rows, with its base."""
        student = rows[0]
        base = next((row for row in rows if row.role == "base"), None)
        before = None if base is None else [base.answers[place].score for place in places]
        return regression(
            name,
            [student.answers[place].score for place in places],
            before,
            [items[place].group for place in places],
            self.tolerance,
            self._resampling,
        )

    def _oracle(
        self,
        items: Sequence[Example],
        teachers: Mapping[str, LanguageModel],
        experts: Mapping[str, Sequence[Graded]],
        ask: Ask,
    ) -> list[Graded]:
        """Grades an item of one domain on its expert's answer, and of several on their experts' own
        parts.
        """
        unasked = Graded(Generation(text=""), Score.unscored("no expert has this domain"))
        found = [unasked] * len(items)
        across: list[int] = []
        for place, item in enumerate(items):
            if not all(domain in experts for domain in item.domains):
                continue
            if item.is_cross_domain:
                across.append(place)
            else:
                found[place] = experts[item.domains[0]][place]
        chosen = [items[place] for place in across]
        if chosen:
            tasks = Ensemble().respond(teachers, chosen, self.sampling, ask)
            own = {name: [graded[place] for place in across] for name, graded in experts.items()}
            for place, graded in zip(
                across, routed(self.metric, chosen, tasks, own, ask), strict=True
            ):
                found[place] = graded
        return found

    def _is_overlap(self, example: Example) -> bool:
        """A task of lm-evaluation-harness grades in its own way."""
        tasks = (benchmark for benchmark in self._loaded if benchmark.task is not None)
        own = any(example.metadata.get("slice") == benchmark.slice for benchmark in tasks)
        return not own and super()._is_overlap(example)

    def _grade_all(
        self, model: LanguageModel, items: Sequence[Example], ask: Ask, name: str
    ) -> list[Graded]:
        """Grades a task's items in the task's own way, and all others by the metric."""
        found: dict[str, Graded] = {}
        rest = list(items)
        for benchmark in self._loaded:
            if benchmark.task is None:
                continue
            own = {example.id for example in benchmark.examples}
            chosen = [item for item in rest if item.id in own]
            rest = [item for item in rest if item.id not in own]
            label = f"evaluating {name} on {benchmark.source}"
            graded = benchmark.task.grade(
                model, chosen, sampling=self.sampling, ask=ask, label=label
            )
            found.update({item.id: grade for item, grade in zip(chosen, graded, strict=True)})
        found.update(
            {
                item.id: grade
                for item, grade in zip(rest, self._grade(model, rest, ask, name), strict=True)
            }
        )
        return [found[item.id] for item in items]

    def _about(self, benchmark: LoadedBenchmark, items: int) -> Benchmark:
        own = "its own, of lm-evaluation-harness" if benchmark.task else name_of(self.metric)
        return Benchmark(
            slice=benchmark.slice,
            domain=benchmark.domain,
            source=benchmark.source,
            items=items,
            metric=own,
        )

    def _given(self, name: str, scores: Mapping[str, float]) -> ModelResult:
        slices = {
            key: SliceScore(items=0, strict=Estimate(value=value), partial=Estimate(value=value))
            for key, value in scores.items()
        }
        return ModelResult(name=name, role="baseline", slices=slices, given=True)

    def _check_domains(self, teachers: Mapping[str, LanguageModel]) -> None:
        strange = [domain for domain in self.benchmarks if domain not in teachers]
        if teachers and strange:
            raise DataError(
                f"There is a benchmark of {strange[0]!r}, which has no expert",
                allowed=", ".join(teachers),
                fix="add its expert, or give it as a benchmark of general ability",
            )

    def _check_scores(self, known: Sequence[str]) -> None:
        for name, scores in self.baseline_scores.items():
            for key, value in scores.items():
                if key not in known:
                    raise ConfigurationError(
                        f"{name} has a score for an unknown benchmark",
                        received=key,
                        allowed=", ".join(known),
                    )
                check_number(f"The score of {name} in {key!r}", value, "[0, 1]")


def joined(report: EvaluationReport, benchmarks: EvaluationReport) -> EvaluationReport:
    """Returns a report with what was found on benchmarks as slices beside its own.

    A benchmark's slice whose name the report has already, such as that of a domain, becomes
    `benchmark: ...`.

    Args:
        report: What was found on the test set.
        benchmarks: What was found on the benchmarks, by the same models.
    """
    names = {
        name: f"benchmark: {name}" if name in report.slices else name for name in benchmarks.slices
    }
    measured = {(model.role, model.name): model for model in benchmarks.models}
    models = [
        _with(model, measured.pop((model.role, model.name), None), names) for model in report.models
    ]
    models += [
        _with(replace(model, slices={}, answers=()), model, names) for model in measured.values()
    ]
    examples = (
        *report.examples,
        *(
            replace(item, metadata={**item.metadata, "slice": names[item.metadata["slice"]]})
            for item in benchmarks.examples
        ),
    )
    return replace(
        report,
        models=tuple(models),
        benchmarks=tuple(
            replace(found, slice=names.get(found.slice, found.slice))
            for found in benchmarks.benchmarks
        ),
        regressions=tuple(
            replace(found, slice=names.get(found.slice, found.slice))
            for found in benchmarks.regressions
        ),
        overlap=_both(report.overlap, benchmarks.overlap),
        examples=examples,
        test_set=fingerprint(examples),
    )


def _with(model: ModelResult, other: ModelResult | None, names: dict[str, str]) -> ModelResult:
    if other is None:
        return model
    more = {names.get(name, name): score for name, score in other.slices.items()}
    return replace(model, slices={**model.slices, **more}, answers=(*model.answers, *other.answers))


def _both(first: Overlap | None, second: Overlap | None) -> Overlap | None:
    if first is None or second is None:
        return first or second
    same, near, facts = (
        (*one, *other) for one, other in zip(_ids(first), _ids(second), strict=True)
    )
    return replace(first, same=same, near=near, facts=facts)


def _ids(overlap: Overlap) -> tuple[tuple[str, ...], ...]:
    return overlap.same, overlap.near, overlap.facts
