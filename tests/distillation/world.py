"""A world of two experts, and runs in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distillation.builders import example, grouped
from domainfusion.distillation import (
    Distiller,
    ExecutionSettings,
    IntegrationTrainer,
)
from domainfusion.distillation.data_generation import (
    CuratedDataGenerator,
)
from domainfusion.distillation.evaluator import (
    DomainRetentionEvaluator,
)
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.records import read_json, read_records
from domainfusion.types import (
    Sampling,
    TrainingRecord,
)

AIRPORTS = {"NRT": "Japan", "CDG": "France", "LHR": "Britain", "FCO": "Italy"}
SYMBOLS = {"gold": "Au", "iron": "Fe", "silver": "Ag", "tin": "Sn"}
DOMAINS = {"aviation": "Airports and where they are", "chemistry": "Elements and their symbols"}
SINGLES = [
    example(f"Where is {code}?", {"aviation": country}) for code, country in AIRPORTS.items()
] + [
    example(f"What is the symbol of {name}?", {"chemistry": symbol})
    for name, symbol in SYMBOLS.items()
]
PAIRS = [
    example(
        f"Where is {code}, and what is the symbol of {name}?",
        {"aviation": AIRPORTS[code], "chemistry": SYMBOLS[name]},
        sub_questions={"aviation": f"Where is {code}?"},
    )
    for code, name in zip(AIRPORTS, SYMBOLS, strict=True)
]
TEST = [
    example("Tell me where NRT is.", {"aviation": "Japan"}),
    example("Tell me the symbol of tin.", {"chemistry": "Sn"}),
    example(
        "Tell me where CDG is and the symbol of iron.", {"aviation": "France", "chemistry": "Fe"}
    ),
]
SHORT = Sampling(max_new_tokens=6)


def knowing(facts: Mapping[str, str]) -> Callable[[str], str]:
    """Answers with what is known about the words of a question."""
    return lambda question: (
        " ".join(f"It is {value}." for key, value in facts.items() if key in question)
        or "I can't say."
    )


class World:
    """The parts of a run, made afresh for each distiller, as a process that starts again would."""

    def __init__(self, base: LlamaModel, directory: Path) -> None:
        self.base = base
        self.directory = directory

    def teachers(self) -> dict[str, ScriptedModel]:
        facts = {"aviation": AIRPORTS, "chemistry": SYMBOLS}
        return {
            domain: ScriptedModel(knowing(known), name=domain) for domain, known in facts.items()
        }

    def distiller(self, **changes: Any) -> Distiller:
        parts: dict[str, Any] = {
            "student_model": self.base,
            "teacher_models": self.teachers(),
            "data_generators": [CuratedDataGenerator([*SINGLES, *PAIRS])],
            "trainer": IntegrationTrainer(
                learning_rate=3e-3,
                epochs=1,
                batch_size=4,
                execution=ExecutionSettings(checkpoint_steps=1),
            ),
            "output_dir": self.directory,
            "response_sampling": SHORT,
        }
        return Distiller(**grouped(**{**parts, **changes}))

    def evaluated(self, **changes: Any) -> Distiller:
        evaluator = DomainRetentionEvaluator(sampling=SHORT, resamples=100)
        return self.distiller(**{"evaluator": evaluator, "test_examples": TEST, **changes})


def outcome(directory: Path) -> tuple[list[TrainingRecord], dict[str, Any]]:
    """What a run ends with, but for the time it took."""
    evaluation = directory / "evaluation.json"
    return read_records(directory / "records.jsonl", TrainingRecord), (
        read_json(evaluation) if evaluation.is_file() else {}
    )
