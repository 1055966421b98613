"""One question to many experts: rows for different experts on one base answered in one batch, where
that saves batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel, OnResult
from domainfusion.models.decoding import Prompt
from domainfusion.models.generation import (
    RowWriter,
    buckets,
    continue_batch,
    read_answer,
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
    adapters unmerged, where all questions together fit in one: one question to five experts is one
    batch. Else experts are asked in turn, each merged into the weights, which spares the adapters'
    layers. The two ways agree up to rounding: greedy text
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


def _by_model(models: Mapping[int, LanguageModel]) -> list[list[int]]:
    rows: dict[int, list[int]] = {}
    for index, model in models.items():
        rows.setdefault(id(model), []).append(index)
    return list(rows.values())


def _that_share_batches(models: Mapping[int, HuggingFaceModel]) -> list[list[int]]:
    """Returns the rows of each base whose experts are best asked in one batch."""
    groups: dict[object, list[int]] = {}
    for index, model in models.items():
        if model.can_share_batches():
            groups.setdefault(model._key, []).append(index)
    return [rows for rows in groups.values() if _saves_batches([models[index] for index in rows])]


def _saves_batches(models: Sequence[HuggingFaceModel]) -> bool:
    """Whether one batch holds the rows of several experts that would each have a small one."""
    return len({id(model) for model in models}) > 1 and len(models) <= _batch_size(models)


def _batch_size(models: Sequence[HuggingFaceModel]) -> int:
    return min(model.rows_read_at_once for model in models)


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
            asked, ends = [prompts[index] for index in rows], [writer.ends for writer in writers]
            found = continue_batch(module, asked, sampling, ends)
        for index, writer, tokens in zip(rows, writers, found, strict=True):
            keep(index, read_answer(writer, tokens, len(prompts[index].tokens)))


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
