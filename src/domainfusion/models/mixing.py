"""One question to many experts: rows for different experts on one base answered in one batch, where
that saves batches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from transformers import PreTrainedModel

from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel, OnResult, TokenScorer
from domainfusion.models.generation import (
    Prompt,
    RowWriter,
    answer_batch,
    buckets,
    final_hidden_states,
    in_evaluation,
)
from domainfusion.models.huggingface import HuggingFaceModel
from domainfusion.types import Conversation, Generation, Sampling


def generate_with(
    models: Sequence[LanguageModel],
    conversations: Sequence[Conversation],
    sampling: Sampling = Sampling(),
    on_result: OnResult | None = None,
) -> list[Generation]:
    """Answers each conversation with the model beside it, as if each model had been asked by
    itself.

    Experts that are LoRA adapters on one base, and the base itself, answer in one batch, their
    adapters unmerged, where that takes fewer batches than asking them in turn: one question to five
    experts is one batch. Experts that fill batches of their own are asked in turn, each merged into
    the weights, which spares the adapters' layers. The two ways agree up to rounding: greedy text
    in float32 is the same, in bfloat16 a near tie may fall otherwise.

    Args:
        models: The model of each conversation, of any kinds.
        conversations: What is asked.
        sampling: How to write the answers.
        on_result: Called for each answer as soon as it is there, in any order.

    Returns:
        The answers, in the order of `conversations`.

    Raises:
        ConfigurationError: There is not one model for each conversation.

    Example:
        ```python
        experts = [LlamaModel("chemistry-expert"), LlamaModel("aviation-expert")]
        chemist, pilot = generate_with(experts, [user("Why does ice form on wings?")] * 2)
        ```
    """
    if len(models) != len(conversations):
        raise ConfigurationError(
            "There is not one model for each conversation",
            received=len(models),
            allowed=f"{len(conversations)} models",
        )
    answers: dict[int, Generation] = {}

    def keep(index: int, generation: Generation) -> None:
        if index not in answers:
            answers[index] = generation
            if on_result is not None:
                on_result(index, generation)

    local = {
        index: model for index, model in enumerate(models) if isinstance(model, HuggingFaceModel)
    }
    for rows in _that_share_batches(local):
        _answer_together({index: local[index] for index in rows}, conversations, sampling, keep)
    for rows in _by_model(
        {index: model for index, model in enumerate(models) if index not in answers}
    ):
        _answer_alone(models[rows[0]], rows, conversations, sampling, keep)
    return [answers[index] for index in range(len(models))]


@torch.no_grad()
def hidden_states_with(
    models: Sequence[TokenScorer], rows: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Returns for each row of token ids the final hidden states of the model beside it, of shape
    (tokens, hidden).

    Experts that are LoRA adapters on one base, and the base itself, read in one batch, their
    adapters unmerged: experts that take turns with a student on the same base, step by step, touch
    no weight of it.

    Args:
        models: The model of each row.
        rows: What is read.

    Raises:
        ModelError: A row is longer than its model's context.
    """
    found: dict[int, torch.Tensor] = {}
    shared: dict[object, list[int]] = {}
    for index, model in enumerate(models):
        alone = not (isinstance(model, HuggingFaceModel) and model.can_share_batches())
        shared.setdefault(id(model) if alone else model._key, []).append(index)  # type: ignore[attr-defined]
    for members in shared.values():
        first = models[members[0]]
        if not (isinstance(first, HuggingFaceModel) and first.can_share_batches()):
            found |= dict(
                zip(members, first.hidden_states([rows[index] for index in members]), strict=True)
            )
            continue
        local = {index: cast(HuggingFaceModel, models[index]) for index in members}
        for index, own in local.items():
            own._refuse_overlong([rows[index]], 0)
        for batch in buckets(
            [len(rows[index]) for index in members], _batch_size(list(local.values()))
        ):
            chosen = [members[place] for place in batch]
            adapters = [local[index]._adapter or None for index in chosen]
            base = first._load()
            one_reads = len(set(adapters)) == 1  # who is alone needs no row of a batch picked out
            using = base.using(adapters[0], merge=False) if one_reads else base.mixing(adapters)
            with using as module, in_evaluation(module), _in_its_data_type(module):
                states = final_hidden_states(module, [rows[index] for index in chosen], len(chosen))
            found |= dict(zip(chosen, states, strict=True))
    return [found[index] for index in range(len(rows))]


def _in_its_data_type(module: PreTrainedModel) -> torch.autocast:
    """Returns the context in which adapters, whose weights PEFT keeps in float32, compute in the
    data type of a narrower base.
    """
    is_narrow = module.dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(
        module.device.type, module.dtype if is_narrow else None, enabled=is_narrow
    )


def _by_model(models: Mapping[int, LanguageModel]) -> list[list[int]]:
    rows: dict[int, list[int]] = {}
    for index, model in models.items():
        rows.setdefault(id(model), []).append(index)
    return list(rows.values())


def _that_share_batches(models: Mapping[int, HuggingFaceModel]) -> list[list[int]]:
    """Returns the rows of each base whose experts take fewer batches together than one after the
    other.
    """
    groups: dict[object, list[int]] = {}
    for index, model in models.items():
        if model.can_share_batches():
            groups.setdefault(model._key, []).append(index)
    return [rows for rows in groups.values() if _saves_batches([models[index] for index in rows])]


def _saves_batches(models: Sequence[HuggingFaceModel]) -> bool:
    rows = Counter(id(model) for model in models)
    alone = sum(
        math.ceil(rows[id(model)] / model.batch_size)
        for model in {id(model): model for model in models}.values()
    )
    return math.ceil(len(models) / _batch_size(models)) < alone


def _batch_size(models: Sequence[HuggingFaceModel]) -> int:
    return min(model.batch_size for model in models)


def _answer_together(
    models: Mapping[int, HuggingFaceModel],
    conversations: Sequence[Conversation],
    sampling: Sampling,
    keep: OnResult,
) -> None:
    prompts: dict[int, Prompt] = {}
    for rows in _by_model(models):
        asked = models[rows[0]]._prompts([conversations[index] for index in rows], sampling)
        prompts |= dict(zip(rows, asked, strict=True))
    order = list(models)
    first = models[order[0]]
    for batch in buckets(
        [len(prompts[index].tokens) for index in order], _batch_size(list(models.values()))
    ):
        rows = [order[place] for place in batch]
        with first._load().mixing([models[index]._adapter or None for index in rows]) as module:
            writers = [
                RowWriter(models[index].tokenizer, models[index].end_tokens) for index in rows
            ]
            found = answer_batch(module, writers, [prompts[index] for index in rows], sampling)
        for index, generation in zip(rows, found, strict=True):
            keep(index, generation)


def _answer_alone(
    model: LanguageModel,
    rows: Sequence[int],
    conversations: Sequence[Conversation],
    sampling: Sampling,
    keep: OnResult,
) -> None:
    asked = [conversations[index] for index in rows]
    generations = model.generate(
        asked, sampling, lambda place, generation: keep(rows[place], generation)
    )
    for index, generation in zip(rows, generations, strict=True):
        keep(index, generation)
