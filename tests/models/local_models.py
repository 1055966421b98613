"""Local models, and what plain Transformers computes with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from domainfusion.models import (
    HuggingFaceModel,
)
from domainfusion.models.chat_template import CHATML_TEMPLATE
from domainfusion.types import Message, Sampling, user

MakeAdapter = Callable[..., Path]

QUESTIONS = [
    "What is the capital of France?",
    "Why?",
    (
        "Which element has the symbol Fe, and what is it used for in the muscles of a runner who"
        " recovers after a long race?"
    ),
    "How do aircraft land near a river?",
    "Is the fox quick?",
    "Name seven wizards.",
    "?",
]
CONVERSATIONS = [user(question) for question in QUESTIONS]
SHORT = Sampling(max_new_tokens=12)

MERGING_TOLERANCE = 1e-3
"""How far a logit (of size 10) may move when (x·W + x·A·B) is computed as x·(W + A·B) in
float32.
"""


def load(path: Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, **{"dtype": "float32", "device": "cpu", **options})


def logits_of(model: HuggingFaceModel, *, merge: bool = True) -> torch.Tensor:
    """Returns the model's logits along a fixed conversation."""
    tokens = torch.tensor(
        [model.encode((*CONVERSATIONS[0], Message("assistant", "It is Paris.")), reply=False)]
    )
    with torch.inference_mode(), model._load().using(model._adapter or None, merge=merge) as module:
        return module(tokens).logits.clone()


def plain_logits(module: Any, tokenizer: Any) -> torch.Tensor:
    """Returns what plain Transformers computes along the same conversation."""
    messages = [
        {"role": "user", "content": QUESTIONS[0]},
        {"role": "assistant", "content": "It is Paris."},
    ]
    tokens = torch.tensor(
        [
            tokenizer(
                tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False
            )["input_ids"]
        ]
    )
    with torch.inference_mode():
        return module.eval()(tokens).logits


def perturb(model: HuggingFaceModel) -> None:
    """Moves every weight that is trained."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.trainable_module().parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


CLOSED_BY_END_OF_TEXT = CHATML_TEMPLATE.replace("<|im_end|>", "<|endoftext|>")


# Saving


def _assert_plain_transformers_gives(
    folder: Path, expected: torch.Tensor, tolerance: float = 1e-5
) -> None:
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(
        plain_logits(module, AutoTokenizer.from_pretrained(folder)),
        expected,
        rtol=0,
        atol=tolerance,
    )
