"""What is public: the names in the `__all__` of these modules, and nothing else. A name that comes or
goes here is a change that users see.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "domainfusion": """
        APIModel AdversarialDataGenerator BenchmarkEvaluator CuratedDataGenerator Distiller
        DomainRetentionEvaluator Example HuggingFaceModel IntegrationTrainer LlamaModel
        MultiTaskTrainer Part ResponseIntegrator Sampling SequentialTrainer
        SyntheticDataGenerator __version__
    """,
    "domainfusion.distillation": """
        AdversarialDataGenerator AgreementSettings BenchmarkEvaluator CrossEncoderVerifier
        CuratedDataGenerator DataGenerator DataSettings Distiller DistributionObjective
        DomainRetentionEvaluator Estimate EvaluationReport Evaluator ExampleLike
        ExecutionSettings Focus
        Generated HarnessTask Hygiene IntegrationTrainer LikelihoodObjective MergeSettings ModelResult
        MultiTaskTrainer Objective Phase Publisher Requirement ResponseIntegrator
        RunSettings Screening SequenceObjective SequentialTrainer SliceScore
        SyntheticDataGenerator Trainer Variety WritingSettings check_examples check_requirements
        export_messages hold_apart hold_out slice_of to_pandas
    """,
    "domainfusion.distillation.data_generation": """
        AdversarialDataGenerator Check Classifier CuratedDataGenerator DataGenerator Focus
        Generated ReplyFormat SyntheticDataGenerator Variety
        WritingSettings
    """,
    "domainfusion.distillation.evaluator": """
        AgreementSettings BenchmarkEvaluator DomainRetentionEvaluator Ensemble Evaluator
        HarnessTask OnOverlap check_examples consistency hold_apart
    """,
    "domainfusion.distillation.integration": """
        CrossEncoderVerifier Experts OnDisagreement OnUnverified ResponseIntegrator Strategy
        Task Verifier VerifierFinding contradict
    """,
    "domainfusion.distillation.metrics": """
        AccuracyMetric AnswerPair BatchCoherence BatchMetric CoherenceMetric Contains
        EmbeddingSimilarity Exact Graded Judge JudgeAgreement JudgedCoherence
        JudgedConsistency LikelyChoice Metric MetricChoice ModelCoherence ModelMetric
        NamedChoice Numeric PairVerdict Passage RougeL TokenF1 ValidatedCoherence grade judge_agreement
        measures_overlap normalize read_passages rouge_l sentences stated_parts states
        token_f1 validate_coherence
    """,
    "domainfusion.distillation.trainer": """
        DistributionObjective ExecutionSettings IntegrationTrainer LikelihoodObjective
        MergeSettings MultiTaskTrainer Objective Phase SequenceObjective SequentialTrainer Trainer
    """,
    "domainfusion.errors": """
        CapabilityError ConfigurationError DataError DomainFusionError
        MissingDependencyError ModelError RunError StoreError TemplateError TrainingError
    """,
    "domainfusion.merging": """
        Candidate Dialogues Fit MergeChoice MergeMethod Merger fit merge
    """,
    "domainfusion.models": """
        APIModel Adaptation Ask Dialect Engine HuggingFaceModel LanguageModel Limits
        LlamaModel LocalWeights Prices RayPool ResponseStore Retries SchemaModel
        ScriptedModel TokenMatch TokenScorer TokenScores TrainableModel ask_directly
        compare_tokenizers generate_with push_to_hub write_gguf write_modelfile
        write_vllm_adapter
    """,
    "domainfusion.recipe": """
        Recipe build_distiller read_recipe write_recipe
    """,
    "domainfusion.reports": """
        GenerationCount RunSummary StageTime render_html render_markdown render_model_card
        render_terminal write_model_card write_reports
    """,
    "domainfusion.types": """
        Agreement Conflict Contribution Conversation Dropped Example FinishReason Generation
        Integration IntegrationVerdict Ledger Message Part Response Sampling Score Source
        TrainingRecord Verification domains_of fingerprint transcript user
    """,
}
"""The public modules, each with its sorted names."""


@pytest.mark.parametrize("module", PUBLIC)
def test_these_names_are_public(module: str) -> None:
    loaded = importlib.import_module(module)
    assert list(loaded.__all__) == PUBLIC[module].split()
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []
    assert set(loaded.__all__) <= set(dir(loaded))


def test_names_are_listed_before_they_are_loaded() -> None:
    program = (
        "import sys, domainfusion, domainfusion.distillation as d, domainfusion.models as m;"
        "print('Distiller' in dir(domainfusion), 'Distiller' in dir(d), 'LlamaModel' in dir(m),"
        "'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "True True True False\n"


def test_a_name_that_is_not_offered_is_refused() -> None:
    with pytest.raises(ImportError, match="Nothing"):
        exec("from domainfusion import Nothing")
    with pytest.raises(ImportError, match="Nothing"):
        exec("from domainfusion.distillation import Nothing")


def deep_imports(source: str) -> Iterator[str]:
    """Yields what a program imports of the library that is not public."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("domainfusion") and alias.name not in PUBLIC:
                    yield alias.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("domainfusion"):
            offered = PUBLIC.get(str(node.module), "").split()
            for alias in node.names:
                if alias.name not in offered:
                    yield f"{node.module}.{alias.name}"


def code_of(page: str) -> str:
    """Returns the Python of a Markdown page."""
    # A block between fences that is marked as Python, with the text between them.
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", page, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(map(textwrap.dedent, blocks))


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "examples").rglob("*.py")),
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pages_and_examples_use_public_names_alone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert list(deep_imports(code_of(text) if path.suffix == ".md" else text)) == []


def test_a_deep_import_is_found() -> None:
    program = """
        from domainfusion.distillation import Distiller, HeldOut
        from domainfusion.distillation.run import RunFiles
        import domainfusion.training.loop
    """
    assert list(deep_imports(textwrap.dedent(program))) == [
        "domainfusion.distillation.HeldOut",
        "domainfusion.distillation.run.RunFiles",
        "domainfusion.training.loop",
    ]
