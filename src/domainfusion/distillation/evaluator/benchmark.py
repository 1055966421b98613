"""How the student, its experts and baselines do on benchmarks of each domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from domainfusion.distillation.evaluator.measuring import MeasuringEvaluator, name_of, role_of
from domainfusion.distillation.evaluator.overlap import OnOverlap, hold_apart
from domainfusion.distillation.examples import ExampleLike, read_examples, refuse_shared_ids, slice_of
from domainfusion.distillation.metrics import MetricChoice, stated_parts
from domainfusion.distillation.results import EvaluationReport, Role
from domainfusion.errors import DataError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Sampling, fingerprint


class BenchmarkEvaluator(MeasuringEvaluator):
    """Measures the student, its experts and baselines on benchmarks of each domain.

    Args:
        benchmarks: For each domain its items: examples, dicts with `query` and `answers` or `reference`, or the path of a file of such.
        metric: Grades an answer: a metric, the name of one, or one for each domain; by default the share of the example's parts that it
            states. An example may name its own in `metadata["metric"]`.
        baselines: Further models to measure beside.
        sampling: How the models answer; by default greedily, up to 256 tokens.
        resamples: Bootstrap resamples behind the 95 % intervals.
        seed: Seed of the bootstrap.
        on_overlap: What to do with items that were trained on: `refuse` to evaluate, or leave them out and `report` them.

    Raises:
        DataError: A benchmark is empty or can't be read.
    """

    def __init__(
        self,
        benchmarks: Mapping[str, str | Path | Sequence[ExampleLike]],
        *,
        metric: MetricChoice = stated_parts,
        baselines: Mapping[str, LanguageModel] | None = None,
        sampling: Sampling = Sampling(),
        resamples: int = 10_000,
        seed: int = 0,
        on_overlap: OnOverlap = "refuse",
    ) -> None:
        super().__init__(metric=metric, sampling=sampling, resamples=resamples, seed=seed, baselines=baselines, on_overlap=on_overlap)
        self.benchmarks = {domain: _read_benchmark(domain, items) for domain, items in benchmarks.items()}
        if not self.benchmarks:
            raise DataError("There are no benchmarks", received=benchmarks, fix='give {"domain": [...]}')

    @property
    def own_examples(self) -> Mapping[str, Sequence[Example]]:
        """The items of the benchmarks."""
        return {f"{domain} benchmark": items for domain, items in self.benchmarks.items()}

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
        """Evaluates on the benchmarks, and on `examples` beside them, in slices of their own named `examples: ...`.

        Raises:
            DataError: Two items of a benchmark, or two of the examples, have the same id, or some were trained on.
        """
        extra = [_in_slice(example, f"examples: {slice_of(example)}") for example in read_examples(list(examples))]
        items = [item for benchmark in self.benchmarks.values() for item in benchmark] + extra
        refuse_shared_ids(items)
        items, overlap = hold_apart(items, trained_on, self.on_overlap)
        rows: list[tuple[str, Role, LanguageModel]] = [("student", "student", student_model)]
        rows += [(name, role_of(name), model) for name, model in {**(baselines or {}), **self.baselines}.items()]
        rows += [(domain, "expert", teacher) for domain, teacher in teacher_models.items()]
        models = tuple(self._result(name, role, items, self._grade(model, items, ask, name)) for name, role, model in rows)
        return EvaluationReport(
            models=models,
            overlap=overlap,
            examples=tuple(items),
            test_set=fingerprint(items),
            seed=self.seed,
            resamples=self.resamples,
            metric=name_of(self.metric),
        )


def _read_benchmark(domain: str, items: str | Path | Sequence[ExampleLike]) -> list[Example]:
    read = [_in_slice(example, domain) for example in read_examples(items, domain=domain)]
    if not read:
        raise DataError(f"The benchmark of {domain!r} is empty", received=items, fix="give at least one item")
    return read


def _in_slice(example: Example, name: str) -> Example:
    return replace(example, metadata={**example.metadata, "slice": name}, id=f"{name}/{example.id}")
