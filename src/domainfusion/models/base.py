"""What a model can do, as capabilities: it generates text, it scores tokens, it can be trained.

Whoever uses a model asks for a capability with `isinstance` and never for a class, so a model of a
user's own needs no base class. Such a question costs nothing: it looks for names and computes no
property. (That is how Python 3.12 does it; `typing_extensions` brings it to 3.11, whose own
protocols would hash a model's files to find out whether it has a fingerprint.)
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from typing_extensions import Protocol, runtime_checkable

from domainfusion.types import Conversation, Generation, Sampling

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from domainfusion.models.projection import Head

OnResult = Callable[[int, Generation], None]
"""Called with the index of a conversation and its answer, the moment it is there."""

SAMPLE_STRIDE = 1_000_003
"""How far apart the seeds of two samples of one conversation are: wide, so that the seeds 0, 1, 2 …
of a user never meet them.
"""


def sample_seeds(seed: int, conversations: Sequence[Conversation]) -> list[int]:
    """Returns the seed that each conversation draws with, so that one that is asked several times
    gets several samples.

    The k-th repeat draws as the first one would under `seed + k * SAMPLE_STRIDE`. A store that
    holds the first samples of a conversation relies on it to ask for the later ones alone.
    """
    repeats: Counter[Conversation] = Counter()
    seeds = []
    for conversation in conversations:
        seeds.append(seed + repeats[conversation] * SAMPLE_STRIDE)
        repeats[conversation] += 1
    return seeds


@runtime_checkable
class LanguageModel(Protocol):
    """Generates text: all that a teacher, a generation model or a judge has to do.

    Attributes:
        name: What people call it.
        fingerprint: Changes whenever its answers might: weights, adapter, template, system prompt.
            Answers are stored under it.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers each conversation.

        Args:
            conversations: What is asked; the last turn is the user's.
            sampling: How to write the answers.
            on_result: Called for each answer as soon as it is there, in any order.

        Returns:
            The answers, in the order of `conversations`.
        """
        ...


@runtime_checkable
class LocalWeights(LanguageModel, Protocol):
    """Has its weights on this machine."""

    def weights(self) -> Iterable[torch.Tensor]:
        """Returns every weight it computes with, each once; models that share weights return the
        same tensors.
        """
        ...


@runtime_checkable
class BatchedModel(LanguageModel, Protocol):
    """Answers and reads several rows together."""

    @property
    def batch_size(self) -> int | None:
        """How many rows go together; None leaves it to their length."""
        ...


@runtime_checkable
class DatedModel(LanguageModel, Protocol):
    """May write the date of the day into its prompts, as many chat templates do."""

    def pin_date(self, date: datetime.date) -> bool:
        """Has every prompt carry this date, if it carries one and no other was chosen: a resumed
        run asks as it did before.

        Returns:
            Whether its prompts carry the date.
        """
        ...


@runtime_checkable
class SchemaModel(LanguageModel, Protocol):
    """Writes JSON of a given schema: a model whose server holds it to one."""

    def with_json_schema(self, json_schema: Mapping[str, Any]) -> LanguageModel:
        """Returns this model as one whose answers are JSON of `json_schema`; limits, prices and
        what was spent stay shared.
        """
        ...


@runtime_checkable
class SizedModel(LanguageModel, Protocol):
    """Knows how many weights it has."""

    @property
    def parameter_count(self) -> int:
        """The number of weights, those of an adapter included."""
        ...


@runtime_checkable
class PromptedModel(LanguageModel, Protocol):
    """Answers under a system prompt of its own; None where it has none."""

    @property
    def system_prompt(self) -> str | None: ...


@runtime_checkable
class AdapterModel(LanguageModel, Protocol):
    """May be an adapter on a base that it shares with other models."""

    def is_adapter_on(self, other: object) -> bool:
        """Whether it is an adapter on the base of another model."""
        ...


@runtime_checkable
class AnswersForModels(Protocol):
    """Answers in a model's place, as a pool of actors does."""

    def add(self, model: LanguageModel) -> None:
        """Has it answer for a model."""
        ...

    def answer(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers for a model that was added; see `LanguageModel.generate`."""
        ...


@runtime_checkable
class SpreadModel(LanguageModel, Protocol):
    """May be answered for by copies of itself in other processes."""

    def answered_by(self, pool: AnswersForModels) -> Self:
        """Returns this model as one for which a pool answers."""
        ...

    def unloaded(self) -> Self:
        """Returns a copy without weights and without a pool, to send to another process."""
        ...

    def on_this_machine(self) -> Self:
        """Returns this model on the GPU of the process that it was sent to."""
        ...


@runtime_checkable
class ReleasableModel(LanguageModel, Protocol):
    """Can free the memory of its weights; they are loaded again when they are needed."""

    def release(self) -> None:
        """Frees the memory of the weights."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """How probable a model finds each token of the last turn of a conversation, given all that
    stands before it.

    Attributes:
        tokens: The turn's token ids, the one that ends it included.
        log_probabilities: The natural logarithm of each token's probability.
    """

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]

    @property
    def total(self) -> float:
        """The logarithm of the probability of the whole turn."""
        return sum(self.log_probabilities)


@runtime_checkable
class TokenScorer(LanguageModel, Protocol):
    """Scores tokens: a white-box model, whose distributions over the next token can be had."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def vocabulary_size(self) -> int:
        """The width of a distribution; models pad it, so it may be larger than the tokenizer's
        vocabulary.
        """
        ...

    @property
    def context_length(self) -> int | None:
        """The tokens that a row may have; None where there is no limit."""
        ...

    def encode(self, conversation: Conversation, *, reply: bool = True) -> list[int]:
        """Returns the token ids of `conversation` as its chat template renders them; with `reply`,
        up to where an answer begins.
        """
        ...

    def score(self, conversations: Sequence[Conversation]) -> list[TokenScores]:
        """Returns the log-probabilities of each conversation's last turn, which is the assistant's,
        in order.
        """
        ...

    def hidden_states(self, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Returns for each row of token ids the final hidden states, of shape (tokens, hidden)."""
        ...

    def head(self) -> Head:
        """Returns what turns final hidden states into logits."""
        ...

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the float32 logits of final hidden states, of shape (…, vocabulary): their
        softmax is the model's distribution.
        """
        ...


class TopScores(NamedTuple):
    """What a model finds most probable at each token of an answer.

    Attributes:
        tokens: For each token of the answer, the ids of the most probable ones; the answer's own
            token is always among them.
        log_probabilities: The natural logarithms of their probabilities.
        prompt_tokens: Tokens that the server counted as read for them.
        completion_tokens: Tokens that it counted as written.
    """

    tokens: list[list[int]]
    log_probabilities: list[list[float]]
    prompt_tokens: int = 0
    completion_tokens: int = 0


OnScores = Callable[[int, TopScores], None]
"""Called with the index of an answer and its scores, the moment they are there."""


class PieceScores(NamedTuple):
    """How probable a model finds the pieces of an answer, cut by its own tokens.

    Attributes:
        pieces: The bytes that each token of the answer's words stands for; together they are the
            words.
        log_probabilities: The natural logarithms of their probabilities, and that of the token that
            ends the turn after them.
        prompt_tokens: Tokens that the server counted as read for them.
        completion_tokens: Tokens that it counted as written.
    """

    pieces: list[bytes]
    log_probabilities: list[float]
    prompt_tokens: int = 0
    completion_tokens: int = 0


OnPieces = Callable[[int, PieceScores], None]
"""Called with the index of an answer and how probable its pieces are."""


@runtime_checkable
class ServedScorer(LanguageModel, Protocol):
    """May score tokens where it is served: its server says which are the most probable ones."""

    @property
    def scores(self) -> bool:
        """Whether its server is asked for scores."""
        ...

    @property
    def scored_tokens(self) -> int:
        """How many tokens are scored at each place."""
        ...

    def score_answers(
        self,
        answers: Sequence[tuple[Conversation, Sequence[int]]],
        student: TokenScorer,
        on_scores: OnScores,
    ) -> dict[int, str]:
        """Scores the tokens of answers, each after its conversation.

        Args:
            answers: Conversations, each with the token ids of an answer to it.
            student: Whose tokens they are.
            on_scores: Called for each answer in the calling thread, in any order.

        Returns:
            Why an answer has no scores, by index; those of all others were handed over.

        Raises:
            CapabilityError: Its tokens are not the student's, or its server gives no scores.
            ModelError: The server was given up; what it scored before was handed over.
        """
        ...

    def score_pieces(
        self, conversations: Sequence[Conversation], on_pieces: OnPieces
    ) -> dict[int, str]:
        """Scores the last turn of each conversation by the model's own tokens, whatever they are.

        Args:
            conversations: Conversations that end with an answer.
            on_pieces: Called for each answer in the calling thread, in any order.

        Returns:
            Why an answer has no scores, by index; those of all others were handed over.

        Raises:
            CapabilityError: Its server gives no scores, or does not say what its tokens spell.
            ModelError: The server was given up; what it scored before was handed over.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What of a student is trained, and where it starts: by default a LoRA adapter (Hu et al.,
    2021, arXiv 2106.09685).

    Attributes:
        rank: Rank of the adapter, where it starts from nothing.
        alpha: Its scale: the update is multiplied by alpha / rank.
        dropout: Share of its inputs that are dropped in training.
        start_from: Experts whose weighted sum it starts as, a task-arithmetic merge (Ilharco et
            al., 2022, arXiv 2212.04089). Where they are adapters on the student's base, the adapter
            is that sum and has the ranks of all of them together. Whole fine-tunes of the base are
            added into a copy of its weights.
        merge_weight: The weight λ of each expert in that sum.
        keeps_start: Keep the sum of adapters as it is, and train `rank` further ranks beside it.
        all_weights: Train a copy of all weights in place of an adapter.
        frozen_share: Share of the layers, from the input on, that are not trained, in [0, 1): 0.3
            leaves 9 of 30 layers as they are, and the embeddings with them. The backward pass ends
            above them.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    start_from: tuple[LanguageModel, ...] = ()
    merge_weight: float = 1.0
    keeps_start: bool = False
    all_weights: bool = False
    frozen_share: float = 0.0


@runtime_checkable
class PartlyTrained(Protocol):
    """A trainable model of whose weights some are trained in part."""

    def gradient_masks(self) -> Mapping[str, torch.Tensor]:
        """Returns what the gradients of such weights of `trainable_module` are multiplied by: 0
        where they stay as they are and 1 elsewhere, of shapes that expand to theirs.
        """
        ...


@runtime_checkable
class TrainableModel(LanguageModel, Protocol):
    """Can be trained: what a student has to do."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def context_length(self) -> int | None:
        """The tokens that a row may have; None where there is no limit."""
        ...

    def encode(self, conversation: Conversation, *, reply: bool = True) -> list[int]:
        """Returns the token ids of `conversation` as its chat template renders them; with `reply`,
        up to where an answer begins.
        """
        ...

    def encode_answer(self, text: str, *, finished: bool = True) -> list[int]:
        """Returns the token ids of an answer as the model is to write it after a prompt.

        Args:
            text: The answer's words.
            finished: Add what ends it; an answer that was cut goes without.

        Returns:
            What the chat template puts before the words (a channel, an empty thought), the words,
            and the end.
        """
        ...

    def ask(self, question: str) -> str:
        """Returns the answer to one question."""
        ...

    def trainable_copy(self, adaptation: Adaptation | None) -> TrainableModel:
        """Returns a model that starts as this one and can be trained, while this one stays as it
        is; None trains all weights.
        """
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def trainable_module(self) -> PreTrainedModel:
        """Returns a module of the student's own to train: parameters with `requires_grad` are the
        student's, in place.

        Frozen parameters are those of the base, without a copy, so whatever wraps the module
        changes no teacher on that base.
        """
        ...

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Returns the trained weights by name."""
        ...

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what `trained_state` returned."""
        ...

    def save(self, path: str | Path, *, merge: bool = True) -> None:
        """Writes a folder that `transformers` loads; with `merge=False` an adapter stays an
        adapter.
        """
        ...


@runtime_checkable
class StartChecker(Protocol):
    """Says before it loads any weights whether it can start as an adaptation asks."""

    def check_start(self, adaptation: Adaptation) -> None:
        """Raises a `CapabilityError` where it can't."""
        ...


@runtime_checkable
class ServedByCommand(Protocol):
    """May be answered for by a server that a command on this machine starts."""

    def check_command(self) -> None:
        """Raises a `ModelError` where the command can't be run; none is run."""
        ...
