"""The demo: three real experts, one student, on two cores and without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from domainfusion.demo.base import base_folder
from domainfusion.demo.questions import DOMAINS, Sizes, build_questions, vocabulary
from domainfusion.distillation.data_generation import AdversarialDataGenerator, CuratedDataGenerator, SyntheticDataGenerator
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.evaluator import DomainRetentionEvaluator
from domainfusion.distillation.metrics import states
from domainfusion.distillation.trainer import IntegrationTrainer
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.progress import Progress, silent
from domainfusion.types import Example, Sampling, fingerprint

ADAPTERS = Path(__file__).with_name("adapters")
ANSWER = Sampling(max_new_tokens=32)
SEED = 0
TITLE = "Three experts, one student: aviation, chemistry and geography"

NOTES = (
    "Training and test share the facts. Phrasings, pairings of facts, and the airports and elements of the two-hop questions are "
    "held out.",
    "A single fact is asked in one sentence, a cross-domain question asks two facts of two domains, a two-hop question asks one fact that "
    "needs another: the country of an airport or of an element, then its capital, currency or calling code.",
    "The targets are the experts' own words; the facts only verify them. Every model is asked the whole query.",
    "“Most frequent answer” gives, to every question of a kind, the answer that most of the facts of that kind have.",
)
"""What a reader of the demo's report has to know."""

SMALL_TRAIN = Sizes(singles=4, pairs=4, two_hop=1)
SMALL_TEST = Sizes(singles=4, pairs=2, two_hop=1)


def build_demo(output_dir: Path | None = None, *, progress: Progress = silent, small: bool = False) -> Distiller:
    """Builds the demo's distiller.

    The experts are LoRA adapters on SmolLM2-135M-Instruct, which is the student too. Curated questions come from the facts that the
    experts know; the base model writes a few more by itself, of which only those that mention something the experts know are kept.

    Args:
        output_dir: Where the run is kept.
        progress: Shows how far it is.
        small: A slice of a few minutes' work in about one, to see that everything runs; its figures mean nothing.

    Raises:
        MissingDependencyError: The base model's wheel is not installed.
    """
    base = LlamaModel(base_folder(), name="SmolLM2-135M-Instruct")
    teachers = {domain: LlamaModel(ADAPTERS / domain, base_model=base_folder(), name=f"{domain} expert") for domain in DOMAINS}
    questions = build_questions(train=SMALL_TRAIN, validation=SMALL_TEST, test=SMALL_TEST) if small else build_questions()
    synthetic = SyntheticDataGenerator(
        generation_model=base,
        domains=DOMAINS,
        num_examples=6 if small else 24,
        cross_domain_ratio=0.5,
        max_rounds=1 if small else 2,
        check=mentions_something_known,
        sampling=Sampling(max_new_tokens=48, temperature=0.8, top_p=0.95),
        seed=SEED,
    )
    adversarial = AdversarialDataGenerator(
        generation_model=base,
        domains=DOMAINS,
        num_examples=6 if small else 12,
        max_rounds=1 if small else 2,
        check=mentions_something_known,
        verify=False,  # the base is too small to judge
        sampling=Sampling(max_new_tokens=48, temperature=0.8, top_p=0.95),
        seed=SEED,
    )
    return Distiller(
        student_model=base,
        teacher_models=teachers,
        data_generators=[CuratedDataGenerator(questions.train), synthetic, adversarial],
        trainer=IntegrationTrainer(
            learning_rate=1e-3,
            epochs=1 if small else 2,
            batch_size=16,
            evaluation_steps=10_000,
            adaptation="lora",
            initialization="merge",
            merge_weight=1.0,
            replay=0.5,
        ),
        evaluator=DomainRetentionEvaluator(
            sampling=ANSWER,
            baselines={"most frequent answer": most_frequent_answer(questions.modes)},
            resamples=1_000 if small else 10_000,
            notes=NOTES,
        ),
        seed=SEED,
        output_dir=output_dir,
        test_examples=questions.test,
        validation_examples=questions.validation,
        response_sampling=ANSWER,
        title=TITLE,
        progress=progress,
    )


def most_frequent_answer(modes: Mapping[str, str]) -> ScriptedModel:
    """Returns a model that answers each of the demo's test queries with what is most often right, and any other with nothing."""
    return ScriptedModel(lambda question: modes.get(question, ""), name="most frequent answer", version=fingerprint(modes))


def mentions_something_known(example: Example) -> str | None:
    """Rejects a generated question that mentions no airport, element or country of the experts' facts."""
    return None if any(states(example.query, name) for name in vocabulary()) else "mentions nothing that the experts know"
