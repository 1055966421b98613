"""Laws of comparing tokenizers: what differs is found whatever it is, and distributions are learned
only where tokens mean the same.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domainfusion.models import HuggingFaceModel, LanguageModel, ScriptedModel, compare_tokenizers
from domainfusion.models.chat_template import CHATML_TEMPLATE
from domainfusion.models.tokenizer import Difference, TokenMatch

MakeLlama = Callable[..., Path]


def load(path: Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, dtype="float32", device="cpu", **options)


@pytest.fixture
def retokenized(
    tiny_llama: Path, tmp_path: Path
) -> Callable[[Callable[[dict[str, Any]], None]], HuggingFaceModel]:
    """Makes the tiny Llama with another tokenizer: `retokenized(change)` lets `change` rewrite what
    is in tokenizer.json.
    """

    def make(change: Callable[[dict[str, Any]], None]) -> HuggingFaceModel:
        folder = tmp_path / f"changed-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny_llama, folder)
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))
        return load(folder, name="changed")

    return make


def swap(content: dict[str, Any], first: int, second: int) -> tuple[str, str]:
    vocabulary = content["model"]["vocab"]
    words = {token: word for word, token in vocabulary.items()}
    vocabulary[words[first]], vocabulary[words[second]] = second, first
    return words[first], words[second]


def what(match: TokenMatch) -> str:
    return " | ".join(f"{difference.what} ({difference.count})" for difference in match.differences)


# The same


def test_one_tokenizer_is_itself(tiny_llama: Path, make_adapter: Callable[..., Path]) -> None:
    student = load(tiny_llama)
    for teacher in (
        student,
        load(tiny_llama),
        load(make_adapter("one", 1)),
        load(tiny_llama, system_prompt="You are a chemist."),
    ):
        match = compare_tokenizers(teacher, student)
        assert (match.use, match.differences) == ("identical", ())
        assert (
            match.shared_size == match.teacher_size == match.student_size == student.vocabulary_size
        )


@pytest.mark.parametrize(("teacher_padding", "student_padding"), [(0, 128), (128, 0), (64, 192)])
def test_padded_vocabularies_are_cut_to_the_smaller(
    make_llama: MakeLlama, teacher_padding: int, student_padding: int
) -> None:
    words = len(load(make_llama("plain")).tokenizer)
    teacher, student = (
        load(make_llama("padded", vocab_size=words + padding))
        for padding in (teacher_padding, student_padding)
    )
    match = compare_tokenizers(teacher, student)
    assert (match.use, match.differences) == ("truncate", ())
    assert (match.teacher_size, match.student_size) == (
        words + teacher_padding,
        words + student_padding,
    )
    assert match.shared_size == words + min(teacher_padding, student_padding)


def test_no_weights_are_loaded_to_compare(tiny_llama: Path) -> None:
    models = load(tiny_llama), load(tiny_llama)
    compare_tokenizers(*models)
    assert all(model._base is None for model in models)


# Different tokens


def test_one_swapped_id_is_found_and_named(
    tiny_llama: Path, retokenized: Callable[..., HuggingFaceModel]
) -> None:
    names: list[tuple[str, str]] = []
    teacher = retokenized(lambda content: names.append(swap(content, 200, 201)))
    match = compare_tokenizers(teacher, load(tiny_llama))
    assert match.use == "text"
    assert match.shared_size == 200
    tokens = match.differences[0]
    assert tokens.count == 2
    assert tokens.examples[0] == f"200 is {names[0][1]!r} and {names[0][0]!r}"
    assert tokens.examples[0] in str(match)


@pytest.mark.parametrize("owner", ["teacher", "student"])
def test_tokens_at_the_end_that_one_has_alone_are_cut_off(
    tiny_llama: Path, make_llama: MakeLlama, owner: str
) -> None:
    words = len(load(tiny_llama).tokenizer)
    larger, smaller = (
        load(make_llama("larger", vocab_size=words + 10)),
        load(make_llama("smaller", vocab_size=words + 10)),
    )
    larger.tokenizer.add_tokens(["<extra>", "<more>"])
    match = (
        compare_tokenizers(larger, smaller)
        if owner == "teacher"
        else compare_tokenizers(smaller, larger)
    )
    assert (match.use, match.shared_size) == ("truncate", words)
    assert f"tokens that the {owner} has alone (2)" in what(match)
    assert "'<extra>'" in str(match)


def test_a_token_that_is_missing_in_the_midst_forbids_distributions(
    tiny_llama: Path, retokenized: Callable[..., HuggingFaceModel]
) -> None:
    def lose(content: dict[str, Any]) -> None:
        vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
        word = next(word for word, token in vocabulary.items() if token == 300)
        assert len(word) > 1  # made by a merge, so that the tokenizer can do without it
        content["model"]["merges"] = [pair for pair in merges if word not in "".join(pair)]
        del vocabulary[word]

    match = compare_tokenizers(load(tiny_llama), retokenized(lose))
    assert (match.use, match.shared_size) == ("text", 300)
    assert "tokens that the teacher has alone (1)" in what(match)


def test_one_vocabulary_that_is_cut_in_other_places_is_found(
    tiny_llama: Path, retokenized: Callable[..., HuggingFaceModel]
) -> None:
    match = compare_tokenizers(
        retokenized(
            lambda content: content["model"].update(merges=content["model"]["merges"][:40])
        ),
        load(tiny_llama),
    )
    assert match.use == "text"
    assert "probe texts that become different tokens" in what(match)
    assert "ids that stand for" not in what(match)


# Special tokens and templates


def test_another_end_of_a_turn_forbids_distributions_and_says_what_to_do(tiny_llama: Path) -> None:
    teacher, student = (
        load(tiny_llama, chat_template=CHATML_TEMPLATE.replace("<|im_end|>", "<|endoftext|>")),
        load(tiny_llama),
    )
    match = compare_tokenizers(teacher, student)
    assert match.use == "text"
    assert "the tokens that end an answer" in what(match)
    assert "the teacher's is <|endoftext|>; the student's <|im_end|>" in str(match)
    assert "to change that: give both the same chat_template" in str(match)


def test_another_rendering_forbids_distributions_and_the_same_template_mends_it(
    tiny_llama: Path,
) -> None:
    shouting = CHATML_TEMPLATE.replace("message['role'] +", "message['role'] | upper +")
    match = compare_tokenizers(load(tiny_llama, chat_template=shouting), load(tiny_llama))
    assert match.use == "text"
    assert what(match) == "probe conversations that are rendered differently (3)"
    assert "USER" in str(match) and "give both the same chat_template" in str(match)
    assert (
        compare_tokenizers(*(load(tiny_llama, chat_template=shouting) for _ in range(2))).use
        == "identical"
    )


def test_a_template_that_refuses_a_system_prompt_is_another_one(tiny_llama: Path) -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        + CHATML_TEMPLATE
    )
    match = compare_tokenizers(load(tiny_llama, chat_template=refusing), load(tiny_llama))
    assert (match.use, what(match)) == (
        "text",
        "probe conversations that are rendered differently (1)",
    )
    assert "the teacher refuses, the student writes" in str(match)
    assert (
        compare_tokenizers(*(load(tiny_llama, chat_template=refusing) for _ in range(2))).use
        == "identical"
    )


def test_roles_that_no_distribution_depends_on_are_told_and_forbid_nothing(
    tiny_llama: Path, make_llama: MakeLlama
) -> None:
    teacher, student = load(make_llama("teacher")), load(tiny_llama)
    teacher.tokenizer.pad_token = "<|im_start|>"
    teacher.tokenizer.eos_token = "<|endoftext|>"
    match = compare_tokenizers(teacher, student)
    assert match.use == "identical"
    assert "special tokens that differ in their roles" in what(match)
    assert "eos_token is '<|endoftext|>' and '<|im_end|>'" in str(match)


# Teachers without tokens


def test_a_teacher_that_gives_text_alone_says_so(tiny_llama: Path) -> None:
    teacher: LanguageModel = ScriptedModel("yes", name="oracle")
    match = compare_tokenizers(teacher, load(tiny_llama))
    assert (match.use, match.teacher_size, match.shared_size) == ("text", 0, 0)
    assert "oracle" in str(match) and "gives text, not distributions" in str(match)


# In words


def test_the_comparison_reads_as_sentences(make_llama: MakeLlama) -> None:
    words = len(load(make_llama("plain")).tokenizer)
    teacher, student = (
        load(make_llama("large", vocab_size=words + 1000), name="large"),
        load(make_llama("small"), name="small"),
    )
    assert str(compare_tokenizers(teacher, student)).splitlines() == [
        f"teacher large ({words + 1000:,} tokens wide), student small ({words:,} wide)",
        "- no token, special token or chat rendering differs",
        (
            f"→ the student can learn the teacher's distributions, both cut to the {words:,} tokens"
            " that they share"
        ),
    ]


def test_more_differences_than_are_shown_are_hinted_at() -> None:
    assert str(Difference(what="ids", count=5, examples=("1", "2"))) == "ids (5): 1; 2 …"
    assert str(Difference(what="ids", count=2, examples=("1", "2"))) == "ids (2): 1; 2"
    assert str(Difference(what="nothing to count", count=0)) == "nothing to count"
