"""The evaluator: what measures a student."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from domainfusion.distillation.examples import ExampleLike, read_examples, refuse_shared_ids
from domainfusion.distillation.results import EvaluationReport
from domainfusion.errors import DataError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example


class Evaluator(ABC):
    """Measures a student. An evaluator of your own implements `evaluate`, with those of the keyword arguments that it needs.

    A run holds the examples against what was trained on by itself where `trained_on` is left out.
    """

    @property
    def own_examples(self) -> Mapping[str, Sequence[Example]]:
        """Examples that the evaluator brings along, by name: a run removes from its training data whatever contains one of them."""
        return {}

    @abstractmethod
    def evaluate(
        self,
        student_model: LanguageModel,
        teacher_models: Mapping[str, LanguageModel],
        examples: Sequence[ExampleLike],
        *,
        baselines: Mapping[str, LanguageModel] | None = None,
        trained_on: str | Path | Sequence[ExampleLike] | None = None,
        ask: Ask = ask_directly,
    ) -> EvaluationReport:
        """Evaluates the student on `examples`.

        Args:
            student_model: The student.
            teacher_models: The experts by domain.
            examples: Held-out examples: none of them was trained on.
            baselines: Further models to measure beside; `base` is the student before training, `merge` the experts' weight merge.
            trained_on: What the student was trained on, as examples or a file of them, such as the `examples.jsonl` of a run: none of it is
                evaluated on; see `hold_apart`. None where that is not known.
            ask: How a model is called.

        Returns:
            What was found. It prints as a table and turns into a dict.

        Raises:
            DataError: There is nothing to evaluate on, or it was trained on.
        """


def check_examples(examples: Sequence[ExampleLike], teachers: Mapping[str, LanguageModel]) -> list[Example]:
    """Returns the examples to evaluate on.

    Raises:
        DataError: There are none, one needs a domain that has no expert, or two have the same id.
    """
    items = list(read_examples(list(examples)))
    if not items:
        raise DataError("There are no examples to evaluate on", fix="hold some out, or give test_examples")
    for item in items:
        strange = [domain for domain in item.domains if domain not in teachers]
        if strange:
            raise DataError(f"The example {item.id} needs {strange[0]!r}, which has no expert", allowed=", ".join(teachers))
    refuse_shared_ids(items)
    return items
