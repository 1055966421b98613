"""Rows of tokens in batches: how prompts become answers, and how probable a model finds the tokens of
others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from domainfusion.models.base import (
    sample_seeds,
)
from domainfusion.models.decoding import Decoding, Pause, Prompt, RowSampler
from domainfusion.models.encoding import (
    answer_form,
    decode_answer,
)
from domainfusion.models.loading import FEWEST_ROWS
from domainfusion.models.projection import project
from domainfusion.models.reasoning import split_reasoning
from domainfusion.models.shared_base import (
    SharedBase,
    in_evaluation,
)
from domainfusion.models.threads import SideBySide
from domainfusion.models.tree import read_tree
from domainfusion.types import (
    Conversation,
    Generation,
    Sampling,
    fingerprint,
)

TOKENS_IN_BATCH = 16_384
"""Tokens, of prompts and of answers at their limit, up to which rows are added to the batches that
are answered at once.
"""

MOST_ROWS = 256
"""The most rows in a batch where `batch_size` is open: more no longer speed it up."""

_MOST_ROWS_OF_A_THREAD = 96
"""The same where threads answer batches of their own."""

_FEWEST_ROWS_OF_A_THREAD = 16
"""The fewest rows for which another thread is begun."""


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


def batches(
    lengths: Sequence[int], new_tokens: int, size: int | None = None, threads: int = 1
) -> Iterator[list[int]]:
    """Yields the indices of prompts in the batches in which they are answered, those of similar
    length together.

    Args:
        lengths: Tokens of each prompt.
        new_tokens: Tokens that an answer may have.
        size: Rows in a batch; None for as many as `TOKENS_IN_BATCH` hold, from `FEWEST_ROWS` to
            `MOST_ROWS`.
        threads: How many batches are answered at once; they share these tokens, and each thread
            gets about as many rows.

    Example:
        >>> [len(batch) for batch in batches([100] * 200, 100)]
        [81, 81, 38]
        >>> [len(batch) for batch in batches([10] * 200, 10, threads=2)]
        [50, 50, 50, 50]
    """
    if size is not None:
        yield from buckets(lengths, size)
        return
    fewest, most = FEWEST_ROWS, MOST_ROWS
    if threads > 1:
        own = math.ceil(len(lengths) / threads)
        most = math.ceil(own / math.ceil(own / _MOST_ROWS_OF_A_THREAD))
        fewest = min(fewest, most)
    left = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    while left:
        fitting = sum(
            1
            for count, index in enumerate(left[:most], start=1)
            if threads * count * (lengths[index] + new_tokens) <= TOKENS_IN_BATCH
        )
        count = max(fewest, fitting)
        yield left[:count]
        left = left[count:]


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


SECONDS_BETWEEN_ANSWERS = 1.0
"""How long answers that ended may wait for who asked, while others of their batch are written."""


def continue_rows(
    base: SharedBase,
    adapter: str | None,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    ends: set[int],
    batch_size: int | None,
) -> Iterator[tuple[int, list[int]]]:
    """Writes on from prompts of one model, and yields what was written as it ends.

    While nothing is computed, as whenever something is yielded, the base can be used otherwise.

    Args:
        base: The base.
        adapter: The adapter on it; None for the bare base.
        prompts: Rows of any lengths.
        sampling: How to write the answers.
        ends: Every token that ends an answer.
        batch_size: Rows in a batch; None leaves it open.

    Yields:
        The index of a prompt, and the tokens of its answer up to and with the one that ends it; an
        answer that was cut has none.
    """
    lengths = [len(prompt.tokens) for prompt in prompts]
    if not base.decodes:
        for batch in buckets(lengths, batch_size or FEWEST_ROWS):
            chosen = [prompts[index] for index in batch]
            with base.writing(adapter) as module:
                written = continue_batch(module, chosen, sampling, [ends] * len(batch))
            yield from zip(batch, written, strict=True)
        return
    threads = max(1, min(base.most_threads, len(prompts) // _FEWEST_ROWS_OF_A_THREAD))
    waiting = deque(batches(lengths, sampling.max_new_tokens, batch_size, threads))
    writers = [_BatchWriter(prompts, sampling, ends, waiting) for _ in range(threads)]
    with SideBySide(threads, "answers") as side_by_side:
        while not all(writer.is_over for writer in writers):
            pause = Pause(SECONDS_BETWEEN_ANSWERS)
            failure: BaseException | None = None
            try:
                with base.writing(adapter) as module:
                    side_by_side.call(
                        [partial(writer.run, module, pause) for writer in writers], pause.force
                    )
            except BaseException as error:  # what ended before is told first
                failure = error
            for writer in writers:
                yield from writer.take()
            if failure is not None:
                raise failure


class _BatchWriter:
    """Writes the answers of batch after batch, in one of several threads.

    Args:
        prompts: All prompts.
        sampling: How to write the answers.
        ends: Every token that ends an answer.
        waiting: Indices of prompts by batch, which all threads take their batches from.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        ends: set[int],
        waiting: deque[list[int]],
    ) -> None:
        self._prompts, self._sampling, self._ends = prompts, sampling, ends
        self._waiting = waiting
        self._batch: list[int] = []
        self._decoding: Decoding | None = None
        self._ended: list[tuple[int, list[int]]] = []

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to write."""
        return not self._waiting and (self._decoding is None or self._decoding.is_over)

    def run(self, module: PreTrainedModel, pause: Pause) -> None:
        """Writes on until nothing is left or the pause is due."""
        while not pause.is_due:
            if self._decoding is None or self._decoding.is_over:
                try:
                    self._batch = self._waiting.popleft()
                except IndexError:
                    break
                chosen = [self._prompts[index] for index in self._batch]
                self._decoding = Decoding(chosen, self._sampling, [self._ends] * len(chosen))
            for row, tokens in self._decoding.run(module, pause):
                self._ended.append((self._batch[row], tokens))

    def take(self) -> list[tuple[int, list[int]]]:
        """Returns the answers that ended since the last call, each with the index of its prompt."""
        ended, self._ended = self._ended, []
        return ended


@torch.inference_mode()
def continue_batch(
    module: PreTrainedModel, prompts: Sequence[Prompt], sampling: Sampling, ends: Sequence[set[int]]
) -> list[list[int]]:
    """Writes on from the prompts of one batch by Transformers' `generate`: the way for models that
    the decoding loop can't compute with, and for rows with adapters of their own.

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


TOKENS_AT_ONCE = 512
"""Tokens whose distributions over the whole vocabulary are in memory at a time."""


def final_hidden_states(
    module: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    batch_size: int,
    *,
    as_tree: bool = False,
    threads: int = 1,
) -> list[torch.Tensor]:
    """Returns for each row of token ids the final hidden states, of shape (tokens, hidden), in the
    order of `rows`.

    Args:
        module: The model.
        rows: Rows of any lengths; those of similar length share a batch.
        batch_size: Rows in a batch.
        as_tree: Compute what the rows of a batch begin with alike once; see `models.tree`. Else
            they are padded on the right, where causal attention never looks.
        threads: How many batches are read at once, which share `batch_size`.
    """
    is_grad_enabled = torch.is_grad_enabled()  # which every thread is told by itself

    def read(batch: list[int]) -> list[torch.Tensor]:
        own = [rows[index] for index in batch]
        with torch.set_grad_enabled(is_grad_enabled):
            if as_tree and all(own):
                by_node, paths = read_tree(module, own)
                return [by_node[path] for path in paths]
            padded = torch.zeros((len(own), max(1, *map(len, own))), dtype=torch.long)
            for place, row in enumerate(own):
                padded[place, : len(row)] = torch.tensor(row, dtype=torch.long)
            hidden = cast(Any, module.base_model)(
                input_ids=padded.to(module.device), use_cache=False
            ).last_hidden_state
            # a view would keep the padding in memory
            return [hidden[place, : len(row)].clone() for place, row in enumerate(own)]

    parts = list(buckets([len(row) for row in rows], math.ceil(batch_size / threads)))
    with SideBySide(max(1, min(threads, len(parts))), "reading") as side_by_side:
        found = side_by_side.call([partial(read, batch) for batch in parts])
    states = {
        index: own
        for batch, some in zip(parts, found, strict=True)
        for index, own in zip(batch, some, strict=True)
    }
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
