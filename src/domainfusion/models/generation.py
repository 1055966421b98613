"""How a batch of prompts becomes answers: padding, drawing, and where each answer ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from domainfusion.models.base import sample_seeds
from domainfusion.models.sampling import RowSampler
from domainfusion.types import Conversation, Generation, Sampling, fingerprint


def buckets(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yields the indices of rows in batches of up to `size`, rows of similar length together, so that little is padded.

    Example:
        >>> list(buckets([5, 1, 9, 2], 2))
        [[1, 3], [0, 2]]
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]


class Prompt(NamedTuple):
    """A row of a batch: the tokens that are read, and the seed with which the answer is drawn."""

    tokens: list[int]
    seed: int


def row_seeds(seed: int, conversations: Sequence[Conversation]) -> list[int]:
    """Returns a seed for each row that depends on its words and on how often they came before, but not on its batch."""
    seeds = sample_seeds(seed, conversations)
    return [int(fingerprint([own, conversation], length=15), 16) for own, conversation in zip(seeds, conversations, strict=True)]


def answer_batch(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    ends: set[int],
) -> list[Generation]:
    """Answers the prompts of one batch; see `continue_batch` for the arguments."""
    written = continue_batch(module, tokenizer, prompts, sampling, ends=ends)
    return [_read_answer(tokenizer, row, len(prompt.tokens), ends) for row, prompt in zip(written, prompts, strict=True)]


@torch.inference_mode()
def continue_batch(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    ends: set[int],
) -> list[list[int]]:
    """Writes on from the prompts of one batch.

    Args:
        module: The model, as it is to compute.
        tokenizer: Its tokenizer.
        prompts: Rows of any lengths; they are padded on the left, and nothing looks at the padding.
        sampling: How to write the answers.
        ends: Every token that ends an answer.

    Returns:
        The tokens of each answer, up to and with the one that ends it; an answer that was cut has none.
    """
    padded = tokenizer.pad({"input_ids": [prompt.tokens for prompt in prompts]}, padding_side="left", return_tensors="pt").to(module.device)
    settings = cast(Any, GenerationConfig)(
        max_new_tokens=sampling.max_new_tokens, do_sample=False, eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id
    )
    processors = LogitsProcessorList([RowSampler(sampling, [prompt.seed for prompt in prompts])] if sampling.temperature > 0 else [])
    with in_evaluation(module), _contiguous_before_head(module):
        output = cast(Any, module).generate(**padded, generation_config=settings, logits_processor=processors)
    return [_up_to_end(row, ends) for row in output[:, padded["input_ids"].shape[1] :].tolist()]


@contextmanager
def _contiguous_before_head(module: PreTrainedModel) -> Iterator[None]:
    """Gives the head contiguous states: of a slice, as Transformers takes of a prompt, PyTorch would copy the whole head for each row."""
    head = cast(torch.nn.Module, module.get_output_embeddings())  # type: ignore[no-untyped-call]
    handle = head.register_forward_pre_hook(lambda _, given: tuple(states.contiguous() for states in given))
    try:
        yield
    finally:
        handle.remove()


def _up_to_end(tokens: list[int], ends: set[int]) -> list[int]:
    return tokens[: next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))]


def _read_answer(tokenizer: PreTrainedTokenizerBase, tokens: list[int], prompt_tokens: int, ends: set[int]) -> Generation:
    is_finished = bool(tokens) and tokens[-1] in ends
    return Generation(
        text=str(tokenizer.decode(tokens[:-1] if is_finished else tokens, skip_special_tokens=True)).strip(),
        finish_reason="stop" if is_finished else "length",
        prompt_tokens=prompt_tokens,
        completion_tokens=len(tokens),
    )


@contextmanager
def converted_for_autocast(module: PreTrainedModel) -> Iterator[None]:
    """Has the weights in autocast's data type for the time of a block, in place of converting them in every product."""
    kind = module.device.type
    if not torch.is_autocast_enabled(kind):
        yield
        return
    dtype = torch.get_autocast_dtype(kind)
    wide = [(weight, weight.data) for weight in module.parameters() if weight.dtype == torch.float32]
    try:
        for weight, own in wide:
            weight.data = own.to(dtype)
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        for weight, own in wide:
            weight.data = own


@contextmanager
def in_evaluation(module: PreTrainedModel) -> Iterator[None]:
    """Switches dropout off for the time of a block: a student that is asked in the midst of its training answers as after it."""
    training = module.training
    module.train(False)
    try:
        yield
    finally:
        module.train(training)
