"""A local model that is asked and scored, alone or with others on its base in batches that they
share.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Self

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import (
    PreTrainedModel,
)

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models.base import (
    AnswersForModels,
    LanguageModel,
    OnResult,
    TokenScores,
)
from domainfusion.models.decoding import Prompt
from domainfusion.models.encoding import (
    encode_answer,
)
from domainfusion.models.loading import LocalModel
from domainfusion.models.placement import resolve_device
from domainfusion.models.projection import Head, check_projection, head_of, project
from domainfusion.models.rows import (
    RowWriter,
    buckets,
    continue_batch,
    continue_rows,
    final_hidden_states,
    read_answer,
    row_seeds,
    token_log_probabilities,
)
from domainfusion.models.shared_base import (
    in_evaluation,
)
from domainfusion.types import (
    Conversation,
    Generation,
    Message,
    Sampling,
    check_conversations,
)
from domainfusion.wording import counted


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
                own = [rows[index] for index in batch]
                as_tree = self._load().decodes
                states = final_hidden_states(module, own, len(batch), as_tree=as_tree)
                for index, hidden in zip(batch, states, strict=True):
                    found = token_log_probabilities(
                        module, hidden[len(prompts[index]) - 1 : -1], answers[index]
                    )
                    scores[index] = TokenScores(
                        tokens=answers[index], log_probabilities=tuple(found)
                    )
        return [scores[index] for index in range(len(rows))]

    def hidden_states(
        self,
        rows: Sequence[Sequence[int]],
        *,
        at_once: int | None = None,
        merge: bool = True,
        by_row: bool = False,
    ) -> list[torch.Tensor]:
        """Returns for each row of token ids the final hidden states, of shape (tokens, hidden), on
        the model's device.

        Args:
            rows: The rows.
            at_once: How many are read together; by default `rows_read_at_once`.
            merge: Compute with the adapter merged into the weights, which is faster; with False,
                its layers stand apart and may change while the rows are read.
            by_row: Read every row whole, `at_once` of them in one pass, as `watching_inputs` shows
                them: also what several rows begin with alike.

        Raises:
            ModelError: A row is longer than the model's context.
        """
        self._refuse_overlong(rows, 0)
        with self._scoring(merge=merge) as module:
            return final_hidden_states(
                module,
                rows,
                at_once or self.rows_read_at_once,
                as_tree=self._load().decodes and not by_row,
                threads=1 if by_row else self._load().most_threads,
            )

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
            see: Receives the name and the inputs, of shape (rows, tokens, in) where `hidden_states`
                reads `by_row`.
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
