"""The demo: the experts of a world become one student, on two cores and without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainfusion.demo.questions import (
    FactCheck,
    QuestionSet,
    Sizes,
    build_questions,
)
from domainfusion.demo.world import World, base_folder, load_world, world_folder
from domainfusion.distillation.data_generation import (
    CuratedDataGenerator,
    SyntheticDataGenerator,
    Variety,
    WritingSettings,
)
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.evaluator import DomainRetentionEvaluator
from domainfusion.distillation.settings import DataSettings, RunSettings
from domainfusion.distillation.trainer import IntegrationTrainer, MergeSettings
from domainfusion.errors import DataError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.progress import Progress, silent
from domainfusion.types import Sampling, fingerprint

ANSWER = Sampling(max_new_tokens=32)
SEED = 0

DEMO: Mapping[str, Any] = {
    "learning_rate": 2e-3,
    "epochs": 1,
    "batch_size": 8,
    "evaluation_steps": 10_000,
    "adaptation": "lora",
    "frozen_share": 1 / 6,
    "initialization": "merge",
    "merge": MergeSettings("regmean", weight=1.0, keep=True),
    "known_share": 0.0,
    "replay": 0.25,
}
"""How the demo trains."""

NOTES = (
    "Training and test share the facts, but for the unasked ones. Phrasings, pairings of facts, "
    "and the first facts of the two-hop questions are held out.",
    "Unasked facts: the experts know them, and no training or validation question is about them, "
    "alone or in a pair. That slice shows what is kept beyond the questions that were trained on.",
    "A single fact is asked in one sentence, a cross-domain question asks two facts of two "
    "domains, a two-hop question asks one fact that needs another, and an adversarial question "
    "asks a fact in the words of another domain.",
    "The targets are the experts' own words; the facts only verify them, and a target that no fact "
    "verifies is not trained on. Every model is asked the whole query.",
    "“Most frequent answer” gives, to every question of a kind, the answer that most of the facts "
    "of that kind have.",
)
"""Notes on the test set for the reader of the report."""

SMALL_TRAIN = Sizes(singles=4, pairs=4, two_hop=1, borders=1)
SMALL_TEST = Sizes(singles=4, pairs=2, two_hop=1, borders=1)


def build_demo(
    output_dir: Path | None = None,
    *,
    data: str | Path | None = None,
    progress: Progress = silent,
    small: bool = False,
) -> Distiller:
    """Builds the distiller of a world whose experts are LoRA adapters on SmolLM2-135M-Instruct.

    Args:
        output_dir: Where the run is kept.
        data: The folder of the world; by default the demo's own.
        progress: Shows how far it is.
        small: A slice of a few minutes' work in about one, to see that everything runs; its
            figures mean nothing.

    Raises:
        MissingDependencyError: The base model's wheel is not installed.
        DataError: The world can't be read, or an expert of it is not trained.
    """
    world = load_world(world_folder() if data is None else data)
    missing = [
        name
        for name in world.domains
        if not (world.adapter(name) / "adapter_config.json").is_file()
    ]
    if missing:
        raise DataError(
            f"The expert of {' and of '.join(missing)} is not trained",
            received=str(world.adapter(missing[0])),
            fix=f"run: make experts DATA={world.folder}",
        )
    base = LlamaModel(base_folder(), name="SmolLM2-135M-Instruct")
    experts = {
        domain: LlamaModel(world.adapter(domain), base_model=base_folder(), name=f"{domain} expert")
        for domain in world.domains
    }
    return build_distiller(
        world,
        base,
        experts,
        output_dir=output_dir,
        progress=progress,
        small=small,
    )


def build_distiller(
    world: World,
    student: TrainableModel,
    experts: Mapping[str, LanguageModel],
    *,
    output_dir: Path | None = None,
    progress: Progress = silent,
    small: bool = False,
    **training: Any,
) -> Distiller:
    """Builds the distiller of a world for any student and experts.

    Curated questions come from the facts that the experts know. The student writes a few more by
    itself; one is kept where it asks facts that verify its target.

    Args:
        world: The facts, and how they are asked for.
        student: Where the student starts; it also writes questions.
        experts: The expert of each domain.
        output_dir: Where the run is kept.
        progress: Shows how far it is.
        small: See `build_demo`.
        training: Arguments of the `IntegrationTrainer` in place of those in `DEMO`.
    """
    questions = build_small_questions(world) if small else build_questions(world)
    return Distiller(
        student_model=student,
        teacher_models=experts,
        data_generators=[
            CuratedDataGenerator(questions.train),
            _written(world, student, questions, small),
        ],
        trainer=IntegrationTrainer(**{**DEMO, **training}),
        evaluator=DomainRetentionEvaluator(
            sampling=ANSWER,
            baselines={"most frequent answer": most_frequent_answer(questions.modes)},
            resamples=1_000 if small else 10_000,
            notes=NOTES,
        ),
        seed=SEED,
        output_dir=output_dir,
        test_examples=questions.test,
        data=DataSettings(validation_examples=questions.validation),
        settings=RunSettings(title=world.title, response_sampling=ANSWER),
        progress=progress,
    )


def build_small_questions(world: World) -> QuestionSet:
    """Returns a few questions of each kind."""
    return build_questions(world, train=SMALL_TRAIN, validation=SMALL_TEST, test=SMALL_TEST)


def _written(
    world: World, writer: LanguageModel, questions: QuestionSet, small: bool
) -> SyntheticDataGenerator:
    keys: dict[str, tuple[str, ...]] = dict.fromkeys(world.domains, ())
    for fact in questions.asked:
        if fact.key not in keys[fact.domain]:
            keys[fact.domain] += (fact.key,)
    return SyntheticDataGenerator(
        generation_model=writer,
        domains=world.domains,
        num_examples=6 if small else 24,
        cross_domain_ratio=0.5,
        verify=False,  # the facts judge; the base is too small to
        writing=WritingSettings(
            sampling=Sampling(max_new_tokens=48, temperature=0.8, top_p=0.95),
            # Further words than the topic confuse so small a writer.
            variety=Variety(topics=keys, personas=(), difficulties=(), forms=()),
            max_rounds=1 if small else 2,
            check=FactCheck(questions.asked, questions.unasked),
        ),
        seed=SEED,
    )


def most_frequent_answer(modes: Mapping[str, str]) -> ScriptedModel:
    """Returns a model that gives each test query its most frequent answer, and others none."""
    return ScriptedModel(
        lambda question: modes.get(question, ""),
        name="most frequent answer",
        version=fingerprint(modes),
    )
