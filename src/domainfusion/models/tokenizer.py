"""The tokenizer of a model: where it is, and which chat template it speaks."""

from __future__ import annotations

import datetime
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from domainfusion.errors import ModelError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.chat_template import (
    CHATML_TEMPLATE,
    choose_template,
    pinned_to,
    with_arguments,
)
from domainfusion.models.encoding import control_tokens, encode_conversation, encode_text, turn_end
from domainfusion.records import from_json
from domainfusion.types import Conversation, Message, user
from domainfusion.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_shared: weakref.WeakValueDictionary[object, PreTrainedTokenizerBase] = (
    weakref.WeakValueDictionary()
)


def shared_tokenizer(
    files: Path,
    chat_template: str | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    date: datetime.date | None = None,
    vocabulary_size: int | None = None,
) -> PreTrainedTokenizerBase:
    """Returns what `load_tokenizer` returns, loaded once for all models that use it.

    A large vocabulary takes more memory than an adapter.
    """
    key = (files, chat_template, with_arguments("", arguments or {}), date, vocabulary_size)
    tokenizer = _shared.get(key)
    if tokenizer is None:
        tokenizer = load_tokenizer(
            files, chat_template, arguments=arguments, date=date, vocabulary_size=vocabulary_size
        )
        _shared[key] = tokenizer
    return tokenizer


def load_tokenizer(
    files: Path,
    chat_template: str | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    date: datetime.date | None = None,
    vocabulary_size: int | None = None,
) -> PreTrainedTokenizerBase:
    """Returns a tokenizer with a chat template and a padding token, padding on the left.

    Args:
        files: The folder or GGUF file.
        chat_template: A Jinja template in place of the tokenizer's own. A tokenizer that has none
            speaks `CHATML_TEMPLATE`, after the token with which it begins every text, if it does.
        arguments: Values of variables of the template, such as `{"enable_thinking": False}`.
        date: The date that the template writes, if it writes one; None for that of the day.
        vocabulary_size: How many tokens the model has embeddings for; None where that is not known.
            A padding token beyond is replaced.

    Raises:
        ModelError: It can't be loaded, or none of several templates is the default.
        ConfigurationError: An argument can't be given to a template.
    """
    source, options = (
        (files.parent, {"gguf_file": files.name}) if files.suffix == ".gguf" else (files, {})
    )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        raise ModelError(
            f"The tokenizer can't be loaded: {error}",
            received=str(files),
            fix="copy the whole model again",
        ) from error
    template = choose_template(chat_template, tokenizer.chat_template)
    if template is None:
        template = _default_template(tokenizer)
    if date is not None:
        template = pinned_to(template, date)
    tokenizer.chat_template = with_arguments(template, arguments or {})
    tokenizer.padding_side = "left"
    has_padding = tokenizer.pad_token_id is not None and (
        vocabulary_size is None or tokenizer.pad_token_id < vocabulary_size
    )
    if not has_padding:
        # Nothing looks at padding, so any token that the model knows will do. The first one is
        # there always.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer  # type: ignore[no-any-return]


class TokenizerFiles(NamedTuple):
    """Where the tokenizer of a model is.

    Attributes:
        folder: The folder or GGUF file.
        chat_template: The chat template of an adapter that has no tokenizer of its own; None for
            the one that is with the tokenizer.
    """

    folder: Path
    chat_template: str | None = None


def tokenizer_of(base: Path, adapter: Path | None) -> TokenizerFiles:
    """Returns where a model's tokenizer is: in the adapter's folder, if it brings one, else the
    base's.

    The commonest adapter is made by instruction tuning on a base without a chat template, and the
    base's tokenizer knows nothing of it.

    Raises:
        ModelError: The adapter's settings of its tokenizer can't be read.
    """
    if adapter is None:
        return TokenizerFiles(base)
    template = _template_in(adapter)
    if not (adapter / "tokenizer.json").is_file() and not (adapter / "tokenizer.model").is_file():
        return TokenizerFiles(base, template)
    if template is None or _same_file(adapter / "tokenizer.json", base / "tokenizer.json"):
        # An adapter without a template speaks its base's; one with its base's words shares them in
        # memory.
        if template is not None and _same_file(
            adapter / "tokenizer_config.json", base / "tokenizer_config.json"
        ):
            return TokenizerFiles(base, template)
        return TokenizerFiles(adapter, template or _template_in(base))
    return TokenizerFiles(adapter, template)


def has_own_template(files: Path) -> bool:
    """Returns whether a tokenizer brings a chat template; a GGUF file is taken to bring one."""
    return not files.is_dir() or _template_in(files) is not None


def _template_in(folder: Path) -> str | None:
    """Returns the chat template in a folder, beside the tokenizer or among its settings."""
    if not folder.is_dir():
        return None
    beside, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        if beside.is_file():
            return beside.read_text(encoding="utf-8")
        own = from_json(settings.read_bytes()).get("chat_template") if settings.is_file() else None
        if isinstance(own, list):
            own = {entry["name"]: entry["template"] for entry in own}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(
            f"The settings of the tokenizer can't be read: {error}",
            received=str(folder),
            fix="copy them again",
        ) from error
    return choose_template(None, own)


def _same_file(first: Path, second: Path) -> bool:
    return first.is_file() and second.is_file() and first.read_bytes() == second.read_bytes()


def _default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns ChatML, after the token with which the tokenizer begins every text, if it has one."""
    begins: list[int] = tokenizer("a")["input_ids"]
    if tokenizer.bos_token_id is not None and begins[:1] == [tokenizer.bos_token_id]:
        return "{{ bos_token }}" + CHATML_TEMPLATE
    return CHATML_TEMPLATE


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
            f"teacher {self.teacher} ({counted(self.teacher_size, 'token')} wide), student {self.student}"
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
                f" {counted(self.shared_size, 'token')} that they share"
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
