"""Whether a teacher and a student mean the same by the same token, what differs, and what can be
done then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from domainfusion.errors import ModelError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.encoding import control_tokens, encode_conversation, encode_text, turn_end
from domainfusion.types import Conversation, Message, user

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Use = Literal["identical", "truncate", "text"]
"""What a student can learn from a teacher: its distributions as they are, its distributions cut to
the shared vocabulary, or its text.
"""

PROBE_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "In 1969, 3.14159 % of 12,345,678 — don't they'll?",
    "  two  spaces,\ttabs\nand\n\n  lines\r\n",
    "def f(x):\n    return {'a': [x**2, -1e-9], 'b': None}",
    "naïve Zürich, ¿qué?, Ελλάδα, Москва, 日本語, العربية, हिन्दी, 😀🏳️‍🌈",
    "HTTPServerErrorXMLParser_snake_case-kebab/path\\to://x?y=z&q#",
)
"""Texts that show whether two tokenizers with one vocabulary also cut words in the same places."""

PROBE_CONVERSATIONS: tuple[Conversation, ...] = (
    user("What is it?"),
    (*user("What is it?"), Message("assistant", "It is so."), *user("Why?")),
    (Message("system", "Be brief."), *user("What is it?")),
)
"""Conversations that show whether two chat templates write the same; one that both refuse counts as
the same.
"""

_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One way in which two tokenizers differ.

    Attributes:
        what: What differs, as the name of a list.
        count: How long the list is; 0 where there is nothing to count.
        examples: A few of them.
        fix: What to do about it; empty where nothing can be done.
        forbids: Whether distributions can't be learned because of it.
    """

    what: str
    count: int
    examples: tuple[str, ...] = ()
    fix: str = ""
    forbids: bool = True

    def __str__(self) -> str:
        counted = f" ({self.count:,})" if self.count else ""
        shown = (
            f": {'; '.join(self.examples)}{' …' if self.count > len(self.examples) else ''}"
            if self.examples
            else ""
        )
        return f"{self.what}{counted}{shown}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMatch:
    """How the tokens of a teacher and a student go together; `str()` of it says so in words.

    Attributes:
        teacher: The teacher's name.
        student: The student's name.
        teacher_size: Width of the teacher's distributions; 0 where it gives text alone.
        student_size: Width of the student's distributions.
        shared_size: The ids below this one mean the same to both.
        differences: What differs, apart from the padding of the vocabularies.
    """

    teacher: str
    student: str
    teacher_size: int
    student_size: int
    shared_size: int
    differences: tuple[Difference, ...] = ()

    @property
    def use(self) -> Use:
        """What the student can learn from the teacher."""
        if any(difference.forbids for difference in self.differences):
            return "text"
        return (
            "identical"
            if self.teacher_size == self.student_size == self.shared_size
            else "truncate"
        )

    def __str__(self) -> str:
        lines = [
            f"teacher {self.teacher} ({self.teacher_size:,} tokens wide), student {self.student}"
            f" ({self.student_size:,} wide)"
        ]
        lines += [f"- {difference}" for difference in self.differences] or [
            "- no token, special token or chat rendering differs"
        ]
        lines.append(f"→ {self._conclusion()}")
        lines += [f"  to change that: {d.fix}" for d in self.differences if d.forbids and d.fix]
        return "\n".join(lines)

    def _conclusion(self) -> str:
        if self.use == "text":
            return "the student can learn from the teacher's text alone"
        if self.use == "truncate":
            return (
                "the student can learn the teacher's distributions, both cut to the"
                f" {self.shared_size:,} tokens that they share"
            )
        return "the student can learn the teacher's distributions as they are"


def compare_tokenizers(teacher: LanguageModel, student: TokenScorer) -> TokenMatch:
    """Says whether a student can learn a teacher's distributions over the next token, or its text
    alone.

    They can be learned where the same tokens stand at the same ids, texts are cut in the same
    places, and the chat templates render the same and end a turn alike. Models pad their
    vocabularies to different sizes, which does no harm: both distributions are cut to what they
    share. A system prompt of the teacher's is not a difference: it is what makes it an expert.

    Args:
        teacher: Any model; one that does not score tokens gives text.
        student: The model that learns.

    Raises:
        ModelError: A tokenizer can't be loaded.
    """
    if not isinstance(teacher, TokenScorer):
        text_only = Difference(what="the teacher gives text, not distributions", count=0)
        return TokenMatch(
            teacher=teacher.name,
            student=student.name,
            teacher_size=0,
            student_size=student.vocabulary_size,
            shared_size=0,
            differences=(text_only,),
        )
    sizes = teacher.vocabulary_size, student.vocabulary_size
    words = _words(teacher.tokenizer), _words(student.tokenizer)
    shared = next(
        (token for token in range(min(sizes)) if words[0].get(token) != words[1].get(token)),
        min(sizes),
    )
    return TokenMatch(
        teacher=teacher.name,
        student=student.name,
        teacher_size=sizes[0],
        student_size=sizes[1],
        shared_size=shared,
        differences=(
            *_different_tokens(*words),
            *_lonely_tokens(*words, shared),
            *_different_cuts(teacher.tokenizer, student.tokenizer),
            *_different_ends(teacher.tokenizer, student.tokenizer),
            *_different_special_tokens(teacher.tokenizer, student.tokenizer),
            *_different_renderings(teacher.tokenizer, student.tokenizer),
        ),
    )


def _words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return {token: word for word, token in vocabulary.items()}


def _different_tokens(teacher: dict[int, str], student: dict[int, str]) -> Iterator[Difference]:
    different = sorted(
        token for token in teacher.keys() & student.keys() if teacher[token] != student[token]
    )
    if different:
        examples = tuple(
            f"{token} is {teacher[token]!r} and {student[token]!r}"
            for token in different[:_EXAMPLES]
        )
        yield Difference(
            what="ids that stand for different tokens", count=len(different), examples=examples
        )


def _lonely_tokens(
    teacher: dict[int, str], student: dict[int, str], shared: int
) -> Iterator[Difference]:
    """Yields the tokens that one of them has and the other has not: no harm at the end of a
    vocabulary, where they can be cut off.
    """
    lost = any(
        teacher[token] == student[token]
        for token in teacher.keys() & student.keys()
        if token >= shared
    )
    for owner, words, lacking in (("teacher", teacher, student), ("student", student, teacher)):
        if lonely := sorted(words.keys() - lacking.keys()):
            examples = tuple(f"{token} is {words[token]!r}" for token in lonely[:_EXAMPLES])
            yield Difference(
                what=f"tokens that the {owner} has alone",
                count=len(lonely),
                examples=examples,
                forbids=lost,
            )


def _different_cuts(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase
) -> Iterator[Difference]:
    different = [text for text in PROBE_TEXTS if _encoded(teacher, text) != _encoded(student, text)]
    if different:
        yield Difference(
            what="probe texts that become different tokens",
            count=len(different),
            examples=tuple(map(repr, different[:_EXAMPLES])),
        )


def _different_ends(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase
) -> Iterator[Difference]:
    ends = turn_end(teacher), turn_end(student)
    if ends[0] != ends[1]:
        named = [
            str(tokenizer.convert_ids_to_tokens(end))
            for tokenizer, end in zip((teacher, student), ends, strict=True)
        ]
        yield Difference(
            what="the tokens that end an answer",
            count=2,
            examples=(f"the teacher's is {named[0]}", f"the student's {named[1]}"),
            fix="give both the same chat_template, if the model that changes was trained on it",
        )


def _different_special_tokens(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase
) -> Iterator[Difference]:
    """Yields what changes how texts are shown or padded, and no distribution."""
    sets = [
        {(token, str(one.convert_ids_to_tokens(token))) for token in control_tokens(one)}
        for one in (teacher, student)
    ]
    declared = [f"{word} is special for one alone" for _, word in sorted(sets[0] ^ sets[1])]
    roles = [
        f"{role} is {first!r} and {second!r}"
        for role in ("bos_token", "eos_token", "pad_token", "unk_token")
        if (first := getattr(teacher, role)) != (second := getattr(student, role))
    ]
    if found := roles + declared:
        what = "special tokens that differ in their roles, to no harm"
        yield Difference(
            what=what, count=len(found), examples=tuple(found[:_EXAMPLES]), forbids=False
        )


def _different_renderings(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase
) -> Iterator[Difference]:
    pairs = [
        (_rendered(teacher, conversation), _rendered(student, conversation))
        for conversation in PROBE_CONVERSATIONS
    ]
    different = [(first, second) for first, second in pairs if first != second]
    if different:
        first, second = (
            "refuses" if tokens is None else f"writes {tokenizer.decode(list(tokens))!r}"
            for tokenizer, tokens in zip((teacher, student), different[0], strict=True)
        )
        yield Difference(
            what="probe conversations that are rendered differently",
            count=len(different),
            examples=(f"the teacher {first}, the student {second}",),
            fix="give both the same chat_template",
        )


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> Sequence[int] | None:
    try:
        return encode_text(tokenizer, text)
    except ModelError:
        return None


def _rendered(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation
) -> Sequence[int] | None:
    try:
        return encode_conversation(tokenizer, conversation)
    except ModelError:
        return None
