"""Scores of a served model: which tokens it finds most probable at each token of an answer, asked
of vLLM or SGLang; and how probable it finds the pieces of an answer, asked of vLLM.

vLLM gives them with a completion (`prompt_logprobs`), SGLang with its own call (`/generate` with
`return_logprob`). What a token spells is said by vLLM's `/tokenize` (`return_token_strs`), which also
renders conversations; SGLang has no such call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from domainfusion.models.api.answers import Reply, brief, count_tokens
from domainfusion.models.api.dialect import RequestWriter
from domainfusion.models.api.endpoint import Endpoint, Endpoints
from domainfusion.models.api.failures import AttemptFailed, CantScore
from domainfusion.models.base import PieceScores, TokenScorer, TopScores
from domainfusion.models.costs import Account, most_prompt_tokens
from domainfusion.models.encoding import encode_text
from domainfusion.models.tokenizer import PROBE_TEXTS
from domainfusion.types import Conversation, Generation
from domainfusion.wording import counted

_ROUNDING = 1e-2
"""By how much probabilities may exceed 1 together: servers compute in bfloat16."""

_NO_ROUTE = (404, 405, 501)
_OTHER_TOKENS = (
    "use a student of the teacher's family, or objective='sequence', for which text is enough"
)


@dataclass(frozen=True, slots=True)
class ScoredReply(Reply):
    """A reply with scores; the one token that the server writes beside them is left.

    Attributes:
        scores: What the model finds most probable at each token of the answer.
    """

    scores: TopScores


@dataclass(frozen=True, slots=True)
class PiecesReply(Reply):
    """A reply with how probable the pieces of an answer are.

    Attributes:
        scores: How probable they are.
    """

    scores: PieceScores


_NOTHING = Generation(text="")


@dataclass(frozen=True)
class Scoring:
    """Makes the requests for scores of one model.

    Attributes:
        writer: Knows the model's name, its system prompt and how its server is asked.
        account: What the requests cost.
    """

    writer: RequestWriter
    account: Account

    async def tokenize(self, endpoint: Endpoint | Endpoints, **text: Any) -> dict[str, Any]:
        """Returns the server's reply about the tokens of a text or a conversation; its `tokens` are
        numbers.
        """
        body = {"model": self.writer.model, **text}
        payload = await _post(endpoint, "/tokenize", body, from_root=True)
        tokens = payload.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise CantScore(f"it does not say its tokens: {brief(str(payload))}")
        return payload

    async def prompt_of(self, endpoint: Endpoint | Endpoints, whole: Conversation) -> list[int]:
        """Returns the tokens of a conversation up to where an answer begins."""
        found = await self.tokenize(endpoint, messages=_turns(whole), add_generation_prompt=True)
        return list(found["tokens"])

    async def complete(
        self, endpoint: Endpoint | Endpoints, row: list[int], count: int
    ) -> dict[str, Any]:
        """Has the server read a row of tokens, say the `count` most probable ones at each place,
        and write one.
        """
        body = {
            "model": self.writer.model,
            "prompt": row,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": count,
            "stream": False,
        }
        return await _post(endpoint, "/completions", body)


def _turns(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in conversation]


@dataclass(frozen=True)
class TokenScoring(Scoring):
    """Makes the requests for the most probable tokens.

    Attributes:
        student: Whose tokens are scored.
    """

    student: TokenScorer

    def probes(self) -> list[Probe]:
        """Returns the requests that show whether the server's tokens are the student's."""
        return [Probe(self, text) for text in PROBE_TEXTS]

    def requests(self, answers: Sequence[tuple[Conversation, Sequence[int]]]) -> list[ScoreRequest]:
        """Returns the request for each answer's scores."""
        return [ScoreRequest(self, each, list(answer)) for each, answer in answers]


class _Free:
    """What requests for scores have in common: nothing in them can be said otherwise."""

    def adapts(self, failure: AttemptFailed) -> bool:
        return False

    def advice(self, failure: AttemptFailed) -> str:
        return ""


@dataclass(frozen=True)
class Probe(_Free):
    """A text whose tokens have to be the student's."""

    scoring: TokenScoring
    text: str

    @property
    def most_tokens(self) -> int:
        """What it reads at most."""
        return len(self.text.encode())

    @property
    def worst_cost(self) -> float:
        """What it costs at most."""
        return 0.0

    async def send(self, endpoint: Endpoint | Endpoints) -> Reply:
        """Compares the tokens of the text.

        Raises:
            AttemptFailed: They are others, or the server does not say.
        """
        reply = await self.scoring.tokenize(endpoint, prompt=self.text, add_special_tokens=False)
        found = reply["tokens"]
        expected = encode_text(self.scoring.student.tokenizer, self.text)
        if found != expected:
            raise CantScore(
                f"its tokens are not the student's: {self.text!r} is {brief(str(found), 80)} on the"
                f" server and {brief(str(expected), 80)} here",
                _OTHER_TOKENS,
            )
        return Reply(_NOTHING, None)


@dataclass(frozen=True)
class ScoreRequest(_Free):
    """A conversation, and the answer whose tokens are scored."""

    scoring: TokenScoring
    conversation: Conversation
    answer: list[int]

    @property
    def _whole(self) -> Conversation:
        return self.scoring.writer.conversation(self.conversation)

    @property
    def most_tokens(self) -> int:
        """What it reads at most."""
        return most_prompt_tokens(self._whole) + len(self.answer) + 1

    @property
    def worst_cost(self) -> float:
        """What it costs at most."""
        return self.scoring.account.worst_cost(self._whole, 1, also_read=len(self.answer))

    async def send(self, endpoint: Endpoint | Endpoints) -> ScoredReply:
        """Asks for the scores.

        Raises:
            AttemptFailed: There are none.
        """
        dialect = self.scoring.writer.dialect
        count = dialect.scored_tokens
        if dialect.scoring == "sglang":
            prompt = self.scoring.student.encode(self._whole)
            body: dict[str, Any] = {
                "model": self.scoring.writer.model,
                "input_ids": [*prompt, *self.answer],
                "sampling_params": {"temperature": 0.0, "max_new_tokens": 1},
                "return_logprob": True,
                "logprob_start_len": len(prompt) - 1,
                "top_logprobs_num": count,
                "stream": False,
            }
            payload = await _post(endpoint, "/generate", body, from_root=True)
            rows = _sglang_rows(payload, len(self.answer))
        else:
            prompt = await self.scoring.prompt_of(endpoint, self._whole)
            row = [*prompt, *self.answer]
            payload = await self.scoring.complete(endpoint, row, count)
            rows = _vllm_rows(payload, len(row), len(self.answer))
        scores = _checked(rows, self.answer, count, self.scoring.student.vocabulary_size)
        counted = count_tokens(payload.get("usage"))
        if counted is not None:
            scores = scores._replace(
                prompt_tokens=counted.prompt, completion_tokens=counted.completion
            )
        return ScoredReply(_NOTHING, counted, scores)


@dataclass(frozen=True)
class PiecesRequest(_Free):
    """A conversation that ends with an answer, whose pieces are scored."""

    scoring: Scoring
    conversation: Conversation

    @property
    def _whole(self) -> Conversation:
        return self.scoring.writer.conversation(self.conversation)

    @property
    def most_tokens(self) -> int:
        """What it reads at most."""
        return most_prompt_tokens(self._whole) + 1

    @property
    def worst_cost(self) -> float:
        """What it costs at most."""
        return self.scoring.account.worst_cost(self._whole, 1)

    async def send(self, endpoint: Endpoint | Endpoints) -> PiecesReply:
        """Asks for the scores.

        Raises:
            AttemptFailed: There are none.
        """
        if self.scoring.writer.dialect.scoring != "vllm":
            raise CantScore(
                "SGLang renders no conversation and does not say what its tokens spell",
                "serve the teacher with vLLM, or use objective='sequence'",
            )
        prompt = await self.scoring.prompt_of(endpoint, self._whole[:-1])
        said = await self.scoring.tokenize(
            endpoint,
            messages=_turns(self._whole),
            add_generation_prompt=False,
            return_token_strs=True,
        )
        row, names = said["tokens"], said.get("token_strs")
        if not isinstance(names, list) or len(names) != len(row):
            raise CantScore(f"it does not say what its tokens spell: {brief(str(names), 80)}")
        if row[: len(prompt)] != prompt:
            raise _unusable("its template writes the prompt otherwise where an answer follows")
        place = _find(self._whole[-1].content.encode(), names[len(prompt) :])
        if place is None:
            raise _unusable("its tokens do not spell the answer, or nothing ends its turn")
        first, pieces = len(prompt) + place.first, place.pieces
        row = row[: first + len(pieces) + 1]
        payload = await self.scoring.complete(endpoint, row, 0)
        answer = row[first:]
        logarithms: list[float] = []
        rows = _vllm_rows(payload, len(row), len(answer))
        for own, found in zip(answer, rows, strict=True):
            if own not in found:
                raise CantScore(f"it scored other tokens than it was sent: {own} is not among them")
            if found[own] > _ROUNDING:
                raise _unusable(f"a log-probability is above 0: {found[own]:g}")
            logarithms.append(min(found[own], 0.0))
        counted = count_tokens(payload.get("usage"))
        scores = PieceScores(pieces, logarithms)
        if counted is not None:
            scores = scores._replace(
                prompt_tokens=counted.prompt, completion_tokens=counted.completion
            )
        return PiecesReply(_NOTHING, counted, scores)


class _Spelled(NamedTuple):
    """Where an answer's words are among tokens.

    Attributes:
        first: The first of their tokens.
        pieces: The bytes of each of them.
    """

    first: int
    pieces: list[bytes]


def _find(words: bytes, names: list[Any]) -> _Spelled | None:
    """Returns where tokens spell an answer's words, with a token after them that ends the turn;
    None where they do not.

    Args:
        words: The words.
        names: The tokens as the tokenizer's vocabulary writes them.
    """
    if not all(isinstance(name, str) for name in names):
        return None
    for spelled in (_bytewise(names), _with_spaces_marked(names)):
        for first in range(len(spelled)):
            if (pieces := _beginning(words, spelled[first:])) is not None:
                return _Spelled(first, pieces) if first + len(pieces) < len(spelled) else None
    return None


def _beginning(words: bytes, spelled: list[bytes]) -> list[bytes] | None:
    """Returns the tokens at the beginning that spell the words; None where they do not."""
    pieces: list[bytes] = []
    left = words
    for piece in spelled:
        if not left:
            break
        # SentencePiece puts a space before a text, which is none of its own.
        is_added = not pieces and piece.startswith(b" ") and not words.startswith(b" ")
        own = piece[1:] if is_added else piece
        if not left.startswith(own):
            return None
        left = left[len(own) :]
        pieces.append(own)
    return pieces if words and not left else None


def _byte_of() -> dict[str, int]:
    """Returns the byte of each letter with which GPT-2's vocabulary, and those made like it, write
    bytes: printable ones stand for themselves, and the others, in order, are written as the
    characters from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_of()

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A byte as SentencePiece writes it, such as <0x0A>."""


def _bytewise(names: list[str]) -> list[bytes]:
    """Returns what tokens of bytes spell; others, such as special ones, spell their name."""
    spelled: list[bytes] = []
    for name in names:
        is_of_bytes = all(letter in _BYTE_OF for letter in name)
        spelled.append(bytes(map(_BYTE_OF.__getitem__, name)) if is_of_bytes else name.encode())
    return spelled


def _with_spaces_marked(names: list[str]) -> list[bytes]:
    """Returns what tokens spell of a vocabulary that marks spaces, as SentencePiece's do."""
    spelled: list[bytes] = []
    for name in names:
        byte = _BYTE_TOKEN.fullmatch(name)
        spelled.append(bytes.fromhex(byte[1]) if byte else name.replace("▁", " ").encode())
    return spelled


async def _post(
    endpoint: Endpoint | Endpoints, path: str, body: dict[str, Any], *, from_root: bool = False
) -> dict[str, Any]:
    """Sends one call.

    Raises:
        AttemptFailed: There is no reply, or the server does not know the call.
    """
    try:
        return await endpoint.post(path, body, from_root=from_root)
    except AttemptFailed as failure:
        if failure.status in _NO_ROUTE:
            raise CantScore(f"{failure.reason} ({path})") from None
        if failure.status == 400 and "logprobs" in failure.complaint:
            raise CantScore(
                failure.reason,
                "lower scored_tokens, or start vLLM with a higher --max-logprobs",
            ) from None
        raise


_Row = dict[int, float]
"""The log-probabilities at one place, by token id."""


def _vllm_rows(payload: dict[str, Any], length: int, count: int) -> list[_Row]:
    """Returns the log-probabilities at the last `count` tokens of a row of `length`."""
    choices = payload.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    listed = first.get("prompt_logprobs") if isinstance(first, dict) else None
    listed = payload.get("prompt_logprobs") if listed is None else listed
    if not isinstance(listed, list):
        raise CantScore("its completion has no prompt_logprobs")
    if len(listed) != length:
        raise _unusable(
            f"it has {counted(len(listed), 'log-probability', 'log-probabilities')} for {counted(length, 'token')}"
        )
    found: list[_Row] = []
    for place in listed[-count:]:
        if not isinstance(place, dict):
            raise _unusable(f"a token has no log-probabilities: {brief(str(place), 80)}")
        found.append({_token(token): _logarithm(entry) for token, entry in place.items()})
    return found


def _sglang_rows(payload: dict[str, Any], count: int) -> list[_Row]:
    """Returns the log-probabilities at the last `count` tokens that SGLang read."""
    about = payload.get("meta_info")
    about = about if isinstance(about, dict) else {}
    own, top = about.get("input_token_logprobs"), about.get("input_top_logprobs")
    if not isinstance(own, list) or not isinstance(top, list):
        raise CantScore("its reply has no input_top_logprobs")
    if min(len(own), len(top)) < count:
        raise _unusable(
            f"it has {counted(min(len(own), len(top)), 'log-probability', 'log-probabilities')} for"
            f" {counted(count, 'token')}"
        )
    found: list[_Row] = []
    for mine, best in zip(own[-count:], top[-count:], strict=True):
        if not isinstance(best, list) or not isinstance(mine, list):
            raise _unusable(f"a token has no log-probabilities: {brief(str(best), 80)}")
        # An entry is the logarithm, the token's id, and its text.
        found.append({_token(entry[1]): _logarithm(entry[0]) for entry in [*best, mine]})
    return found


def _token(given: Any) -> int:
    try:
        return int(given)
    except (TypeError, ValueError):
        raise _unusable(f"a token is not a number: {brief(str(given), 80)}") from None


def _logarithm(given: Any) -> float:
    value = given.get("logprob") if isinstance(given, dict) else given
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _unusable(f"a log-probability is not a number: {brief(str(value), 80)}")
    return float(value)


def _unusable(what: str) -> AttemptFailed:
    return AttemptFailed(what, answered=True)


def _checked(rows: list[_Row], answer: list[int], count: int, vocabulary: int) -> TopScores:
    """Returns the `count` most probable tokens at each place, the answer's own among them.

    Raises:
        AttemptFailed: These are not the log-probabilities of these tokens.
    """
    wanted = min(count, vocabulary)
    tokens: list[list[int]] = []
    logarithms: list[list[float]] = []
    for own, row in zip(answer, rows, strict=True):
        if own not in row:
            raise CantScore(
                f"it scored other tokens than it was sent: {own} is not among {sorted(row)[:5]} …",
                _OTHER_TOKENS,
            )
        if max(row) >= vocabulary:
            raise CantScore(
                f"it knows a token {max(row):,}, and the student has {vocabulary:,}", _OTHER_TOKENS
            )
        if len(row) < wanted:
            raise _unusable(
                f"a token has {counted(len(row), 'log-probability', 'log-probabilities')}, and {wanted} were asked for"
            )
        mass = sum(math.exp(min(value, 1.0)) for value in row.values())
        # The most probable of V tokens has at least a V-th.
        least = math.log(1 / vocabulary) - _ROUNDING
        if max(row.values()) > _ROUNDING or mass > 1 + _ROUNDING or max(row.values()) < least:
            raise _unusable(f"what it gives are not log-probabilities: their mass is {mass:.3g}")
        best = sorted(row, key=lambda token: (token != own, -row[token], token))[:wanted]
        tokens.append(best)
        logarithms.append([min(row[token], 0.0) for token in best])
    return TopScores(tokens, logarithms)
