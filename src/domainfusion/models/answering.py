"""Asking and scoring a local model: how a batch of prompts becomes answers, and how probable it
finds the tokens of others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models.base import (
    AnswersForModels,
    LanguageModel,
    OnResult,
    TokenScores,
    sample_seeds,
)
from domainfusion.models.decoding import Decoding, Pause, Prompt, RowSampler
from domainfusion.models.encoding import (
    answer_form,
    decode_answer,
    encode_answer,
)
from domainfusion.models.loading import FEWEST_ROWS, LocalModel
from domainfusion.models.placement import resolve_device
from domainfusion.models.projection import Head, check_projection, head_of, project
from domainfusion.models.reasoning import split_reasoning
from domainfusion.models.shared_base import (
    SharedBase,
    in_evaluation,
)
from domainfusion.models.threads import MOST_THREADS, SideBySide
from domainfusion.types import (
    Conversation,
    Generation,
    Message,
    Sampling,
    check_conversations,
    fingerprint,
)
from domainfusion.wording import counted

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
    threads = 1
    if base.allows_threads:
        wanted = len(prompts) // _FEWEST_ROWS_OF_A_THREAD
        threads = max(1, min(torch.get_num_threads(), MOST_THREADS, wanted))
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


class AnsweringModel(LocalModel):
    """A local model that is asked for text and for the probabilities of tokens."""

    # Asking

    def ask(self, question: str, *, sampling: Sampling = Sampling()) -> str:
        """Returns the answer to one question."""
        return self.generate([(Message("user", question),)], sampling)[0].text

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers each conversation; see `LanguageModel.generate`.

        Rows of similar length share a batch. A conversation that is longer than the model's context
        is an error, never cut.
        """
        check_conversations(conversations, sampling)
        if self._pool is not None and not self._trainable:
            return self._pool.answer(self, conversations, sampling, on_result)
        prompts = self._prompts(conversations, sampling)
        if self.engine is not None and not self._trainable:
            return self._client().generate(conversations, sampling, on_result)
        writer = RowWriter(self.tokenizer, self.end_tokens)
        asked: dict[object, list[int]] = {}
        for index, prompt in enumerate(prompts):
            own = prompt.seed if sampling.temperature > 0 else None
            asked.setdefault((tuple(prompt.tokens), own), []).append(index)
        alike = list(asked.values())
        results: dict[int, Generation] = {}
        for place, tokens in self._continue([prompts[own[0]] for own in alike], sampling):
            for index in alike[place]:
                results[index] = read_answer(writer, tokens, len(prompts[index].tokens))
                if on_result is not None:
                    on_result(index, results[index])
        return [results[index] for index in range(len(prompts))]

    def _prompts(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Prompt]:
        encoded = [self.encode(conversation) for conversation in conversations]
        self._refuse_overlong(encoded, sampling.max_new_tokens)
        return [
            Prompt(*row)
            for row in zip(encoded, row_seeds(sampling.seed, conversations), strict=True)
        ]

    def _refuse_overlong(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        limit = self.context_length
        longest = max(map(len, prompts), default=0)
        if limit is not None and longest + new_tokens > limit:
            answer = f" and an answer of up to {new_tokens:,} do" if new_tokens else " does"
            raise ModelError(
                f"A prompt of {counted(longest, 'token')}{answer} not fit {self.name}",
                allowed=f"{counted(limit, 'token')} together",
                fix="shorten the prompt or lower max_new_tokens",
            )

    def _continue(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, list[int]]]:
        base = self._load()
        if self._trainable:
            base.restore()  # what is merged may have been trained on since
        return continue_rows(
            base,
            self._adapter or None,
            prompts,
            sampling,
            self.end_tokens,
            self.batch_size,
        )

    def is_adapter_on(self, other: object) -> bool:
        """Whether this model is a LoRA adapter whose base is `other`'s."""
        return bool(self._adapter) and isinstance(other, AnsweringModel) and self._key == other._key

    def can_share_batches(self) -> bool:
        """Whether its rows can stand in one batch with those of other experts on its base.

        Those that an engine answers can't, nor those of a DoRA adapter, and none can where an adapter stands on the fused weights of
        a mixture of experts.
        """
        if (self.engine or self._pool) is not None and not self._trainable:
            return False
        base = self._load()
        if base.has_fused_layers:
            return False
        return not (self._adapter and base.adapter_config(self._adapter).use_dora)

    # In other processes

    def answered_by(self, pool: AnswersForModels) -> Self:
        """Returns this model as one for which a pool answers; it still trains and scores here.

        Raises:
            CapabilityError: It was trained in this process, and lies in no file.
        """
        if self._trainable:
            raise CapabilityError(
                "What was trained in this process lies in no file that others could read",
                received=self,
                fix="save it, and spread what was saved",
            )
        spread = copy(self)
        spread._pool = pool
        pool.add(spread)
        return spread

    def unloaded(self) -> Self:
        """Returns a copy without weights and without a pool, to send to another process."""
        sent = copy(self)
        sent._pool = sent._base = sent._held = None
        return sent

    def on_this_machine(self) -> Self:
        """Returns this model on the GPU of this process, in the numbers that it had."""
        placed = copy(self)
        if placed._key.device_map is None:
            placed._key = replace(placed._key, device=resolve_device("auto"))
        return placed

    # Scoring

    def score(self, conversations: Sequence[Conversation]) -> list[TokenScores]:
        """Returns the log-probabilities of each conversation's last turn; see `TokenScorer.score`.

        The turn is scored as the model itself would have written it: after the prompt and what the
        chat template puts before an answer's words (a channel, an empty thought), and with the
        token that ends them.

        Raises:
            ModelError: A conversation is longer than the model's context, or its last turn is not
                the assistant's.
        """
        for conversation in conversations:
            if not conversation or conversation[-1].role != "assistant":
                raise ModelError(
                    "There is no answer to score",
                    received=conversation,
                    fix="end the conversation with a turn of the assistant's",
                )
        encoded = [
            encode_answer(self.tokenizer, conversation[-1].content, self.name)
            for conversation in conversations
        ]
        prompts = [
            [*self.encode(conversation[:-1]), *answer.lead]
            for conversation, answer in zip(conversations, encoded, strict=True)
        ]
        answers = [(*answer.words, answer.closing[0]) for answer in encoded]
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        for row in rows:
            self._refuse_unknown(row)
        scores: dict[int, TokenScores] = {}
        self._refuse_overlong(rows, 0)
        with self._scoring() as module:
            for batch in buckets([len(row) for row in rows], self.rows_read_at_once):
                states = final_hidden_states(module, [rows[index] for index in batch], len(batch))
                for index, hidden in zip(batch, states, strict=True):
                    found = token_log_probabilities(
                        module, hidden[len(prompts[index]) - 1 : -1], answers[index]
                    )
                    scores[index] = TokenScores(
                        tokens=answers[index], log_probabilities=tuple(found)
                    )
        return [scores[index] for index in range(len(rows))]

    def hidden_states(
        self, rows: Sequence[Sequence[int]], *, at_once: int | None = None, merge: bool = True
    ) -> list[torch.Tensor]:
        """Returns for each row of token ids the final hidden states, of shape (tokens, hidden), on
        the model's device.

        Args:
            rows: The rows.
            at_once: How many are read together; by default `rows_read_at_once`.
            merge: Compute with the adapter merged into the weights, which is faster; with False,
                its layers stand apart and may change while the rows are read.

        Raises:
            ModelError: A row is longer than the model's context.
        """
        self._refuse_overlong(rows, 0)
        with self._scoring(merge=merge) as module:
            return final_hidden_states(module, rows, at_once or self.rows_read_at_once)

    def head(self) -> Head:
        """Returns what turns final hidden states into logits: a view of the weights, or a copy
        where the adapter changes them.
        """
        with self._scoring() as module:
            found = head_of(module)
            is_shared = not isinstance(module.get_output_embeddings(), BaseTunerLayer)  # type: ignore[no-untyped-call]
        weight = found.weight.detach()
        return replace(
            found,
            weight=weight if is_shared else weight.clone(),
            bias=None if found.bias is None else found.bias.detach(),
        )

    def head_name(self) -> str:
        """Returns the name of the layer that makes logits."""
        module = self._load().module
        head = module.get_output_embeddings()  # type: ignore[no-untyped-call]
        return next(str(name) for name, layer in module.named_modules() if layer is head)

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the float32 logits of final hidden states, of shape (…, vocabulary)."""
        with self._scoring() as module:
            return project(module, hidden)

    @contextmanager
    def _scoring(self, *, merge: bool = True) -> Iterator[PreTrainedModel]:
        with (
            torch.no_grad(),
            self._load().using(self._adapter or None, merge=merge) as module,
            in_evaluation(module),
        ):
            self._check_projection(module)
            yield module

    def _check_projection(self, module: PreTrainedModel) -> None:
        if not self._projection_checked:
            check_projection(module)
            self._projection_checked = True

    @contextmanager
    def watching_inputs(
        self, layers: Collection[str], see: Callable[[str, torch.Tensor], None]
    ) -> Iterator[None]:
        """Shows the inputs of linear layers in this block, by the layer's name.

        Args:
            layers: The names. The head is among them only if it is called: `hidden_states` stops
                before it, and returns what it would read.
            see: Receives the name and the inputs, of shape (rows, tokens, in).
        """
        with self._scoring() as module:
            # The check of the projection, made once, is not what is watched.
            watched = {name: module.get_submodule(name) for name in layers}
        hooks = [
            layer.register_forward_pre_hook(lambda _, given, name=name: see(name, given[0]))
            for name, layer in watched.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


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
            allowed=counted(len(conversations), "model"),
        )
    answers: dict[int, Generation] = {}

    def keep(index: int, generation: Generation) -> None:
        if index not in answers:
            answers[index] = generation
            if on_result is not None:
                on_result(index, generation)

    local = {
        index: model for index, model in enumerate(models) if isinstance(model, AnsweringModel)
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


def _that_share_batches(models: Mapping[int, AnsweringModel]) -> list[list[int]]:
    """Returns the rows of each base whose experts are best asked in one batch."""
    groups: dict[object, list[int]] = {}
    for index, model in models.items():
        if model.can_share_batches():
            groups.setdefault(model._key, []).append(index)
    return [rows for rows in groups.values() if _saves_batches([models[index] for index in rows])]


def _saves_batches(models: Sequence[AnsweringModel]) -> bool:
    """Whether one batch holds the rows of several experts that would each have a small one."""
    return len({id(model) for model in models}) > 1 and len(models) <= _batch_size(models)


def _batch_size(models: Sequence[AnsweringModel]) -> int:
    return min(model.rows_read_at_once for model in models)


def _answer_together(
    models: Mapping[int, AnsweringModel],
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
