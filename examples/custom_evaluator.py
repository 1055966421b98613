"""Extension point 3: an evaluator of your own, here one that asks everything twice: a student that
knows answers both times alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from domainfusion.distillation import (
    Estimate,
    EvaluationReport,
    Evaluator,
    ExampleLike,
    ModelResult,
    SliceScore,
    check_examples,
    hold_apart,
    slice_of,
)
from domainfusion.distillation.metrics import normalize
from domainfusion.models import Ask, LanguageModel, ScriptedModel, ask_directly
from domainfusion.types import user

QUESTIONS: list[ExampleLike] = [
    {
        "query": "What is the symbol of gold?",
        "domain": "chemistry",
        "metadata": {"again": "Gold: its symbol?"},
    },
    {
        "query": "What is the capital of Kenya?",
        "domain": "geography",
        "metadata": {"again": "Kenya: its capital?"},
    },
]
ANSWERS = {
    "What is the symbol of gold?": "Au",
    "Gold: its symbol?": "Go",
    "What is the capital of Kenya?": "Nairobi",
    "Kenya: its capital?": "Nairobi",
}


class ConsistencyEvaluator(Evaluator):
    """Measures how often the answer to a question and to its other wording, `metadata["again"]`, is
    the same.
    """

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
        """Evaluates the student; `ask` keeps every answer, so that nothing is asked twice."""
        items, overlap = hold_apart(check_examples(examples, teacher_models), trained_on)
        wordings = [
            [user(item.query) for item in items],
            [user(item.metadata["again"]) for item in items],
        ]
        first, second = (ask(student_model, wording) for wording in wordings)
        same = [
            float(normalize(a.text) == normalize(b.text))
            for a, b in zip(first, second, strict=True)
        ]
        slices = {
            name: [value for item, value in zip(items, same, strict=True) if slice_of(item) == name]
            for name in map(slice_of, items)
        }
        means = {name: Estimate(value=sum(values) / len(values)) for name, values in slices.items()}
        scores = {
            name: SliceScore(items=len(slices[name]), strict=mean, partial=mean)
            for name, mean in means.items()
        }
        return EvaluationReport(
            models=(ModelResult(name="student", role="student", slices=scores),),
            metric="consistency",
            overlap=overlap,
        )


def main() -> None:
    student = ScriptedModel(ANSWERS)
    teachers = {"chemistry": student, "geography": student}
    print(ConsistencyEvaluator().evaluate(student, teachers, QUESTIONS))


if __name__ == "__main__":
    main()
