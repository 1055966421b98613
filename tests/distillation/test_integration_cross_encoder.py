"""Verifying by a cross-encoder: the plumbing, with a model that is made here and knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillation.builders import example, responses
from domainfusion.distillation import CrossEncoderVerifier, ResponseIntegrator
from domainfusion.distillation.integration import Task, Verifier, verifying
from domainfusion.distillation.integration.conflicts import rule_claims, rule_relations
from domainfusion.distillation.integration.planning import plan_answer
from domainfusion.distillation.integration.verifying import checks_of
from domainfusion.distillation.integration.writing import Draft
from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import ScriptedModel
from domainfusion.models.store import ask_directly

EXPERTS = {"law": "Contracts need a signature.", "tax": "Gains are taxed."}
WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "contracts",
    "need",
    "a",
    "signature",
    "gains",
    "are",
    "taxed",
    ".",
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random cross-encoder with the labels of natural language inference."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("models") / "nli"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    labels = {0: "contradiction", 1: "entailment", 2: "neutral"}
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, id2label=labels,
        label2id={name: place for place, name in labels.items()},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


class Entails:
    """In place of a cross-encoder: one text entails another where it has it, word for word."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, pairs: list[tuple[str, str]], **_: Any) -> list[list[float]]:
        self.calls += 1
        return [
            [0.0, 0.9, 0.1] if claim in premise else [0.2, 0.1, 0.7] for premise, claim in pairs
        ]


def verdict_on(answer: str, verifier: Verifier) -> tuple[str, ...]:
    task = Task(example("How?", domains=tuple(EXPERTS)), responses(**EXPERTS))
    plan = plan_answer(task, rule_claims(task), ())
    draft = Draft(answer, answer, (), answer, "stop")
    (verdict,) = verifier.verify([plan], [draft], ask=ask_directly)
    assert verdict.is_given
    return verdict.problems


def test_a_real_cross_encoder_is_loaded_and_asked(encoder: Path) -> None:
    answer = ResponseIntegrator(
        ScriptedModel("Gains are taxed."), verifier=CrossEncoderVerifier(str(encoder))
    ).integrate("How?", EXPERTS)
    assert (answer.text, answer.method) == ("Gains are taxed.", "model")
    assert answer.ledger.verdict in ("verified", "repaired", "unverified")


def test_each_claim_has_to_follow_from_the_answer_and_each_sentence_from_the_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Entails()
    monkeypatch.setattr(verifying, "_load", lambda model: (known, 1))
    verifier = CrossEncoderVerifier("any")
    assert isinstance(verifier, Verifier)
    assert verdict_on("Contracts need a signature. Gains are taxed.", verifier) == ()
    assert verdict_on("Gains are taxed.", verifier) == (
        'It does not say as it is: "Contracts need a signature."',
    )
    assert verdict_on("Contracts need a signature. Gains are taxed. Cats purr.", verifier) == (
        'No expert says this: "Cats purr."',
    )
    assert known.calls == 3


def test_a_claim_that_lost_must_not_follow_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_load", lambda model: (Entails(), 1))
    texts = {"a": "Gold melts at 1064 °C.", "b": "Gold melts at 961 °C."}
    task = Task(
        example("At what temperature does gold melt?", domains=("a", "b"), primary_domain="a"),
        responses(**texts),
    )
    claims = rule_claims(task)
    plan = plan_answer(task, claims, rule_relations(task, claims))
    draft = Draft(" ".join(texts.values()), " ".join(texts.values()), (), "", "stop")
    assert [check.kind for check in checks_of(plan, draft)] == [
        "stated",
        "refused",
        "supported",
        "supported",
    ]
    (verdict,) = CrossEncoderVerifier("any").verify([plan], [draft], ask=ask_directly)
    assert verdict.problems == ('It states what was found to be wrong: "Gold melts at 961 °C."',)


def test_what_is_not_a_cross_encoder_for_inference_is_one_clear_error(
    encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="can't be loaded"):
        verdict_on("Gains are taxed.", CrossEncoderVerifier(str(tmp_path)))
    with pytest.raises(ConfigurationError, match="threshold"):
        CrossEncoderVerifier("any", threshold=1.5)
    config = encoder / "config.json"
    other = tmp_path / "other"
    other.mkdir()
    for file in encoder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "config.json").write_text(config.read_text().replace("entailment", "same"))
    with pytest.raises(ModelError, match="no entailment label"):
        verdict_on("Gains are taxed.", CrossEncoderVerifier(str(other)))
