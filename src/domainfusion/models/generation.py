"""How a batch of prompts becomes answers: padding, drawing, and where each answer ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from domainfusion.models.base import sample_seeds
from domainfusion.models.encoding import answer_form, decode_answer
from domainfusion.models.projection import project
from domainfusion.models.reasoning import split_reasoning
from domainfusion.types import Conversation, Generation, Sampling, fingerprint


class RowSampler(LogitsProcessor):
    """Turns greedy decoding into sampling: adds Gumbel noise to the logits, whose argmax is then a
    draw from their softmax.

    Source: the Gumbel-max trick, Maddison et al., "A* Sampling", 2014.

    Args:
        sampling: Temperature (above 0) and top_p.
        seeds: One seed per row.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.FloatTensor:
        """Returns the noisy logits of shape (rows, vocabulary)."""
        logits = scores.float() / self._temperature
        if self._top_p < 1:
            logits = _keep_top_p(logits, self._top_p)
        draws = torch.empty(logits.shape)
        for row, generator in zip(draws, self._generators, strict=True):
            torch.rand(row.shape, generator=generator, out=row)
        noise = (
            draws.clamp_(1e-20, 1 - 1e-7).log_().neg_().log_()
        )  # in place: the vocabulary is wide, and there is a step a token
        return logits.sub_(noise.to(logits.device))  # type: ignore[return-value]


def _keep_top_p(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered, order = logits.softmax(-1).sort(-1, descending=True)
    dropped = ordered.cumsum(-1) - ordered >= top_p
    return logits.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))


def buckets(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yields the indices of rows in batches of up to `size`, rows of similar length together, so
    that little is padded.

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
    """Returns a seed for each row that depends on its words and on how often they came before, but
    not on its batch.
    """
    seeds = sample_seeds(seed, conversations)
    return [
        int(fingerprint([own, conversation], length=15), 16)
        for own, conversation in zip(seeds, conversations, strict=True)
    ]


class RowWriter(NamedTuple):
    """Whose answer a row of a batch is.

    Attributes:
        tokenizer: The tokenizer, with its chat template.
        ends: Every token that ends an answer.
    """

    tokenizer: PreTrainedTokenizerBase
    ends: set[int]


def answer_batch(
    module: PreTrainedModel,
    writers: Sequence[RowWriter],
    prompts: Sequence[Prompt],
    sampling: Sampling,
) -> list[Generation]:
    """Answers the prompts of one batch; see `continue_batch`.

    Args:
        module: The model, as it is to compute.
        writers: Whose answer each row is: adapters on one base may have tokenizers and chat
            templates of their own.
        prompts: Rows of any lengths.
        sampling: How to write the answers.
    """
    written = continue_batch(module, prompts, sampling, [writer.ends for writer in writers])
    return [
        read_answer(writer, row, len(prompt.tokens))
        for writer, row, prompt in zip(writers, written, prompts, strict=True)
    ]


@torch.inference_mode()
def continue_batch(
    module: PreTrainedModel, prompts: Sequence[Prompt], sampling: Sampling, ends: Sequence[set[int]]
) -> list[list[int]]:
    """Writes on from the prompts of one batch.

    Args:
        module: The model, as it is to compute.
        prompts: Rows of any lengths; they are padded on the left, and nothing looks at the padding.
        sampling: How to write the answers.
        ends: Every token that ends an answer, for each row.

    Returns:
        The tokens of each answer, up to and with the one that ends it; an answer that was cut has
        none.
    """
    length = max(len(prompt.tokens) for prompt in prompts)
    tokens = torch.zeros((len(prompts), length), dtype=torch.long)
    looked_at = torch.zeros((len(prompts), length), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt.tokens) :] = torch.tensor(prompt.tokens, dtype=torch.long)
        looked_at[row, length - len(prompt.tokens) :] = 1
    settings = cast(Any, GenerationConfig)(
        max_new_tokens=sampling.max_new_tokens, do_sample=False, pad_token_id=0
    )
    processors = LogitsProcessorList(
        [RowSampler(sampling, [prompt.seed for prompt in prompts])]
        if sampling.temperature > 0
        else []
    )
    with in_evaluation(module), _contiguous_before_head(module):
        output = cast(Any, module).generate(
            input_ids=tokens.to(module.device),
            attention_mask=looked_at.to(module.device),
            generation_config=settings,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([_RowEnds(ends)]),
        )
    return [
        _up_to_end(row, own) for row, own in zip(output[:, length:].tolist(), ends, strict=True)
    ]


class _RowEnds(StoppingCriteria):
    """Ends each row of a batch at a token that ends an answer of its own expert."""

    def __init__(self, ends: Sequence[set[int]]) -> None:
        self._ends = ends
        # Transformers pads rows that are over where it finds this name: rows that continue beside
        # them must not see what they write.
        self.eos_token_id = sorted(set().union(*ends))

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any
    ) -> torch.Tensor:
        over = [
            token in ends for token, ends in zip(input_ids[:, -1].tolist(), self._ends, strict=True)
        ]
        return torch.tensor(over, device=input_ids.device)


@contextmanager
def _contiguous_before_head(module: PreTrainedModel) -> Iterator[None]:
    """Gives the head contiguous states: of a slice, as Transformers takes of a prompt, PyTorch
    would copy the whole head for each row.
    """
    head = cast(torch.nn.Module, module.get_output_embeddings())  # type: ignore[no-untyped-call]
    handle = head.register_forward_pre_hook(
        lambda _, given: tuple(states.contiguous() for states in given)
    )
    try:
        yield
    finally:
        handle.remove()


def _up_to_end(tokens: list[int], ends: set[int]) -> list[int]:
    return tokens[
        : next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
    ]


def read_answer(writer: RowWriter, tokens: list[int], prompt_tokens: int) -> Generation:
    """Returns what was written as an answer with its reasoning apart; a thought that was cut, or
    never ended, is not an answer.
    """
    is_finished = bool(tokens) and tokens[-1] in writer.ends
    written = decode_answer(writer.tokenizer, tokens[:-1] if is_finished else tokens)
    found = split_reasoning(written, prompt=answer_form(writer.tokenizer).header)
    return Generation(
        text=found.answer,
        finish_reason="stop" if is_finished and not found.is_cut else "length",
        prompt_tokens=prompt_tokens,
        completion_tokens=len(tokens),
        reasoning=found.reasoning,
    )


@contextmanager
def in_evaluation(module: PreTrainedModel) -> Iterator[None]:
    """Switches dropout off for the time of a block: a student that is asked in the midst of its
    training answers as after it.
    """
    training = module.training
    module.train(False)
    try:
        yield
    finally:
        module.train(training)


TOKENS_AT_ONCE = 512
"""Tokens whose distributions over the whole vocabulary are in memory at a time."""


def final_hidden_states(
    module: PreTrainedModel, rows: Sequence[Sequence[int]], batch_size: int
) -> list[torch.Tensor]:
    """Returns for each row of token ids the final hidden states, of shape (tokens, hidden), in the
    order of `rows`.

    Rows of similar length share a batch. They are padded on the right, where causal attention never
    looks.
    """
    states: dict[int, torch.Tensor] = {}
    for batch in buckets([len(row) for row in rows], batch_size):
        padded = torch.zeros(
            (len(batch), max(1, *(len(rows[index]) for index in batch))), dtype=torch.long
        )
        for place, index in enumerate(batch):
            padded[place, : len(rows[index])] = torch.tensor(rows[index], dtype=torch.long)
        hidden = cast(Any, module.base_model)(
            input_ids=padded.to(module.device), use_cache=False
        ).last_hidden_state
        for place, index in enumerate(batch):
            states[index] = hidden[
                place, : len(rows[index])
            ].clone()  # a view would keep the padding in memory
    return [states[index] for index in range(len(rows))]


def token_log_probabilities(
    module: PreTrainedModel, hidden: torch.Tensor, tokens: Sequence[int]
) -> list[float]:
    """Returns the natural logarithm of each token's probability under the distribution that its
    hidden state stands for.

    Args:
        module: The model.
        hidden: The hidden states that predict the tokens, of shape (tokens, hidden).
        tokens: The tokens.
    """
    wanted = torch.tensor(tokens, dtype=torch.long)
    found: list[float] = []
    for states, targets in zip(
        torch.split(hidden, TOKENS_AT_ONCE), torch.split(wanted, TOKENS_AT_ONCE), strict=True
    ):
        distribution = project(module, states).log_softmax(-1)
        found += distribution.gather(-1, targets[:, None].to(distribution.device))[:, 0].tolist()
    return found
