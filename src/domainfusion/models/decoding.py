"""The decoding loop: what prompts have in common is read once, and rows that ended take no further
steps.

Transformers' `generate` reads each row of a batch by itself, copies the cache in every step, and
computes rows that are over until the last one is. This loop does the same arithmetic for models
whose every layer attends to all tokens; `can_decode` says which ones these are.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from transformers import LogitsProcessor, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from domainfusion.errors import ModelError
from domainfusion.models.tree import Tree, by_row, reading
from domainfusion.types import Sampling

_ROOM = 32
"""Tokens of a row for which a cache that is full is enlarged."""

_NARROWED = 0.8
"""Share of the rows still being written at which the others leave the batch: leaving costs a copy
of the cache.
"""

_DRAWN_AT_ONCE = 32
"""Rows whose cumulative distributions are in memory at a time."""

_LIKELIEST = 64
"""Tokens among which the nucleus of top_p is looked for at first."""


class Prompt(NamedTuple):
    """A row of a batch: the tokens that are read, and the seed with which the answer is drawn."""

    tokens: list[int]
    seed: int


class RowSampler(LogitsProcessor):
    """Draws the next token of each row from a stream of its own, by inverting the cumulative
    distribution.

    Args:
        sampling: Temperature (above 0) and top_p.
        seeds: One seed per row.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Returns the drawn tokens, of shape (rows,).

        Args:
            logits: Those of the rows, of shape (rows, vocabulary).
            rows: The place of each row among the seeds.
        """
        points = torch.stack(
            [torch.rand(1, generator=self._generators[row], dtype=torch.float64) for row in rows]
        ).to(logits.device)
        parts = zip(
            torch.split(logits, _DRAWN_AT_ONCE), torch.split(points, _DRAWN_AT_ONCE), strict=True
        )
        return torch.cat([self._invert(part, point) for part, point in parts])

    def _invert(self, logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        # less the largest, or a low temperature would make infinities of them
        logits = (logits - logits.max(-1, keepdim=True).values) / self._temperature
        shares, tokens = logits.softmax(-1), None
        if self._top_p < 1:
            shares, tokens = nucleus(shares, self._top_p)
        reached = shares.cumsum(-1, dtype=torch.float64)
        places = torch.searchsorted(reached, points * reached[:, -1:], right=True)
        places = places.clamp(max=shares.shape[-1] - 1)
        return (places if tokens is None else tokens.gather(-1, places))[:, 0]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Returns logits of shape (rows, vocabulary) that leave nothing but the drawn tokens, for
        Transformers' `generate`.
        """
        drawn = self.draw(scores, range(len(self._generators)))
        only = torch.full(scores.shape, float("-inf"), device=scores.device)
        return cast(torch.FloatTensor, only.scatter(-1, drawn[:, None], 0.0))


def nucleus(shares: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the probabilities of the smallest set of tokens that reaches `top_p`, the largest
    first and then zeros, and the tokens they belong to, each of shape (rows, some).

    The vocabulary is not sorted: the likeliest tokens nearly always hold the set.

    Args:
        shares: Probabilities, of shape (rows, vocabulary).
        top_p: The sum to reach.
    """
    size, count = shares.shape[-1], min(_LIKELIEST, shares.shape[-1])
    while True:
        likeliest, tokens = shares.topk(count, -1)
        before = likeliest.cumsum(-1) - likeliest
        if count == size or bool((before[:, -1] >= top_p).all()):
            return likeliest.masked_fill(before >= top_p, 0), tokens
        count = min(8 * count, size)


# --- Rows in the course of being written


class _RowLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, in memory that has room for the tokens to come.

    Args:
        nodes: The nodes of each row of the tree that is read first, of shape (rows, length).
    """

    def __init__(self, nodes: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._nodes = nodes
        self._length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds keys and values, and returns all that there are, by row."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            key_states = by_row(key_states, self._nodes)
            value_states = by_row(value_states, self._nodes)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        keys, values = cast(torch.Tensor, self.keys), cast(torch.Tensor, self.values)
        end = self._length + key_states.shape[-2]
        if end > keys.shape[-2]:
            keys, values = (self._enlarged(held, end + _ROOM) for held in (keys, values))
            self.keys, self.values = keys, values
        keys[:, :, self._length : end] = key_states
        values[:, :, self._length : end] = value_states
        self._length = end
        return keys[:, :, :end], values[:, :, :end]

    def _enlarged(self, held: torch.Tensor, length: int) -> torch.Tensor:
        enlarged = held.new_empty((*held.shape[:2], length, held.shape[-1]))
        enlarged[:, :, : self._length] = held[:, :, : self._length]
        return enlarged

    def get_seq_length(self) -> int:
        """Returns how many tokens a row has, padding included."""
        return self._length


class Rows:
    """Rows of a batch with what the model has read and written of them.

    Args:
        module: The model, as it is to compute.
        rows: The tokens of each row; they are read at once.

    Attributes:
        logits: Those of each row's next token, of shape (rows, vocabulary).
    """

    def __init__(self, module: PreTrainedModel, rows: Sequence[Sequence[int]]) -> None:
        tree = Tree.of(rows, module.device, pads_left=True)
        count = len(DynamicCache(config=module.config).layers)
        self._cache = Cache(layers=[_RowLayer(tree.nodes) for _ in range(count)])
        self._name_of_cache = _name_of_cache(module)
        self._positions = (~tree.padding).sum(-1)
        self._padding = tree.padding if bool(tree.padding.any()) else None
        with reading(module, tree):
            self.logits = self._compute(
                module,
                input_ids=tree.tokens[None],
                position_ids=tree.positions[None],
                attention_mask=None if self._padding is None else _causal(self._padding),
                logits_to_keep=tree.nodes[:, -1],
            )[0]

    def append(self, module: PreTrainedModel, tokens: torch.Tensor) -> None:
        """Reads one more token of each row.

        Args:
            module: The model, as it computed before.
            tokens: Of shape (rows,).
        """
        mask = None
        if self._padding is not None:
            self._padding = torch.nn.functional.pad(self._padding, (0, 1))
            mask = ~self._padding[:, None, None]
        self.logits = self._compute(
            module,
            input_ids=tokens[:, None],
            position_ids=self._positions[:, None],
            attention_mask=mask,
            logits_to_keep=1,
        )[:, 0]
        self._positions = self._positions + 1

    def keep(self, places: Sequence[int]) -> None:
        """Drops the rows at all other places."""
        chosen = torch.tensor(places, device=self._positions.device)
        self._cache.batch_select_indices(chosen)
        self._positions, self.logits = self._positions[chosen], self.logits[chosen]
        if self._padding is not None:
            self._padding = self._padding[chosen]

    def _compute(self, module: PreTrainedModel, **inputs: Any) -> torch.Tensor:
        inputs[self._name_of_cache] = self._cache
        found = cast(Any, module)(**inputs, use_cache=True)
        return cast(torch.Tensor, found.logits)


def _name_of_cache(module: PreTrainedModel) -> str:
    """Returns the argument that takes the cache, which Transformers renamed in 5.24."""
    names = inspect.signature(module.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def _causal(padding: torch.Tensor) -> torch.Tensor:
    """Returns what each token looks at, of shape (rows, 1, length, length): those before it and
    itself. Padding, which nothing looks at, looks at itself, as a softmax over nothing is no
    number.
    """
    length = padding.shape[-1]
    before = torch.ones((length, length), dtype=torch.bool, device=padding.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=padding.device)
    return ((before & ~padding[:, None]) | itself)[:, None]


def can_decode(module: PreTrainedModel) -> bool:
    """Returns whether the loop here may compute with a model, as far as its settings tell: every
    layer attends to all tokens, through PyTorch's attention, at positions that are given.
    """
    config = cast(Any, module.config)
    takes = set(inspect.signature(module.forward).parameters)
    layers = DynamicCache(config=config).layers
    # Architectures whose attention Transformers has not rewritten, such as BLOOM, lack the mark.
    return (
        config._attn_implementation == "sdpa"
        and bool(getattr(module, "_supports_attention_backend", False))
        and {"position_ids", "logits_to_keep"} <= takes
        and bool(layers)
        and all(type(layer) is DynamicLayer for layer in layers)
    )


class Pause:
    """When all threads that write at once stop, to give what has ended to who asked: some answer
    has, and a time is over.

    Args:
        seconds: The time.

    Attributes:
        has_news: Whether an answer has ended.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._is_forced = False
        self.has_news = False

    @property
    def is_due(self) -> bool:
        """Whether to stop."""
        return self._is_forced or (self.has_news and time.monotonic() >= self._until)

    def force(self) -> None:
        """Makes it due at once, as another thread failed or the user stops it all."""
        self._is_forced = True


class Decoding:
    """Answers to the prompts of one batch, written token by token.

    Args:
        prompts: Rows of any lengths.
        sampling: How to write the answers.
        ends: Every token that ends an answer, for each row.
    """

    def __init__(
        self, prompts: Sequence[Prompt], sampling: Sampling, ends: Sequence[set[int]]
    ) -> None:
        self._prompts = prompts
        self._limit = sampling.max_new_tokens
        self._ends = ends
        seeds = [prompt.seed for prompt in prompts]
        self._sampler = RowSampler(sampling, seeds) if sampling.temperature > 0 else None
        self._written: list[list[int]] = [[] for _ in prompts]
        self._rows: Rows | None = None
        self._tokens = torch.empty(0)
        self._in_batch = list(range(len(prompts)))
        self._left = set(self._in_batch)

    @property
    def is_over(self) -> bool:
        """Whether every answer has ended."""
        return not self._left

    @torch.inference_mode()
    def run(
        self, module: PreTrainedModel, pause: Pause | None = None
    ) -> list[tuple[int, list[int]]]:
        """Writes on, until all answers have ended or a pause is due.

        Args:
            module: The model, as it is to compute: the same in every call.
            pause: When to stop; None for the end.

        Returns:
            The answers that ended, each by its row and with the token that ended it; one that was
            cut has none.
        """
        pause = pause or Pause(math.inf)
        ended: list[tuple[int, list[int]]] = []
        while self._left and not pause.is_due:
            found = [(row, self._written[row]) for row in self._step(module)]
            pause.has_news |= bool(found)
            ended += found
        return ended

    def _step(self, module: PreTrainedModel) -> list[int]:
        """Writes one token of each answer, and returns the rows that ended with it."""
        if self._rows is None:
            self._rows = Rows(module, [prompt.tokens for prompt in self._prompts])
        else:
            self._rows.append(module, self._tokens)
        logits = self._rows.logits
        drawn = (
            logits.float().argmax(-1)  # in bfloat16, PyTorch takes three times as long on a CPU
            if self._sampler is None
            else self._sampler.draw(logits, self._in_batch)
        )
        ended = list[int]()
        for row, token in zip(self._in_batch, drawn.tolist(), strict=True):
            if row not in self._left:
                continue
            self._written[row].append(token)
            if token in self._ends[row] or len(self._written[row]) == self._limit:
                self._left.remove(row)
                ended.append(row)
        self._tokens = drawn
        if self._left and len(self._left) <= _NARROWED * len(self._in_batch):
            places = [place for place, row in enumerate(self._in_batch) if row in self._left]
            self._rows.keep(places)
            self._in_batch = [self._in_batch[place] for place in places]
            self._tokens = drawn[torch.tensor(places, device=drawn.device)]
        return ended


# Whether a model can be decoded so

_ROW = (1, 2, 3)
"""Tokens that every vocabulary has; what comes after them, or stands before them as padding, must
not matter.
"""


@torch.no_grad()
def check_order(module: PreTrainedModel, received: str) -> None:
    """Looks at whether a model reads from left to right: no token may change what was found at
    those before it.

    Raises:
        ModelError: It looks ahead, as encoders such as BERT do; or it can't be run at all.
    """
    tokens = torch.tensor([[*_ROW, 0], [*_ROW, 1]])
    logits = _logits(module, received, input_ids=tokens)
    if _differ(module, logits[0, : len(_ROW)], logits[1, : len(_ROW)]):
        raise ModelError(
            f"{type(module).__name__} looks at tokens that come later, so it does not write text"
            " from left to right",
            received=received,
            allowed="a causal language model",
        )


@torch.no_grad()
def masks_padding(module: PreTrainedModel, received: str) -> bool:
    """Whether padding before a row changes nothing in it: some recurrent models read it as they
    read words.
    """
    mask = torch.tensor([[0, 0, *(1 for _ in _ROW)]])
    padded = {"input_ids": torch.tensor([[0, 0, *_ROW]]), "attention_mask": mask}
    if "position_ids" in inspect.signature(module.forward).parameters:
        padded["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)  # as generation numbers them
    alone = _logits(
        module,
        received,
        input_ids=torch.tensor([_ROW]),
        attention_mask=torch.ones(1, len(_ROW), dtype=torch.long),
    )
    return not _differ(module, _logits(module, received, **padded)[0, -1], alone[0, -1])


def changes_while_reading(module: PreTrainedModel) -> bool:
    """Whether a model keeps something of the text that it reads: frequencies of its positions, which
    some kinds change with the length.
    """
    kinds = [str(part.rope_type) for part in module.modules() if hasattr(part, "rope_type")]
    return any("dynamic" in kind or kind == "longrope" for kind in kinds)


@torch.no_grad()
def decodes_alike(module: PreTrainedModel) -> bool:
    """Whether the decoding loop finds for a model what the model finds by itself: in rows that
    begin alike, that are padded, and of which one ends before the others.
    """
    rows, last = (_ROW, (*_ROW[:2], 0), (0,)), 3
    try:
        if not can_decode(module):
            return False
        batch = Rows(module, rows)
        read = batch.logits
        batch.keep([1, 2])
        batch.append(module, torch.tensor([last, last], device=module.device))
        alone = [_logits(module, "", input_ids=torch.tensor([[*row, last]]))[0] for row in rows]
    except Exception:  # whatever a model of a strange kind stumbles over
        return False
    pairs = [
        *((read[place], found[-2]) for place, found in enumerate(alone)),
        *((written, found[-1]) for written, found in zip(batch.logits, alone[1:], strict=True)),
    ]
    return not any(_differ(module, found.float(), expected) for found, expected in pairs)


def _logits(module: PreTrainedModel, received: str, **inputs: torch.Tensor) -> torch.Tensor:
    try:
        on_device = {name: tensor.to(module.device) for name, tensor in inputs.items()}
        return cast(torch.Tensor, cast(Any, module)(**on_device, use_cache=False).logits.float())
    except Exception as error:  # whatever a model of a strange kind stumbles over
        raise ModelError(
            f"The model can't be run: {type(error).__name__}: {error}", received=received
        ) from error


def _differ(module: PreTrainedModel, one: torch.Tensor, other: torch.Tensor) -> bool:
    # Transformers sets `is_quantized` on quantized models alone.
    is_narrow = module.dtype != torch.float32 or getattr(module, "is_quantized", False)
    allowed = (5e-2 if is_narrow else 1e-4) * float(other.abs().max())
    return not float((one - other).abs().max()) <= allowed
