"""Grading by how near the meanings of two texts are, as an embedding model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from domainfusion.distillation.metrics.accuracy import accepted_answers, against_each, check_share
from domainfusion.errors import MissingDependencyError, ModelError
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Score


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """The cosine between the embeddings of the answer and of the accepted one; below 0 counts as 0.

    Near is not right: "It melts at 961 °C" is near "It melts at 1064 °C". Use it for answers in
    free words, beside a metric that checks what they state. Needs `domainfusion[embeddings]`.

    Args:
        model: A folder or hub id that sentence-transformers loads, such as
            `sentence-transformers/all-MiniLM-L6-v2`.
        right_from: The cosine from which an answer counts as right. The default asks for the same
            words but for rounding.

    Raises:
        ConfigurationError: `right_from` is not above 0 and up to 1.
        MissingDependencyError: sentence-transformers is not installed.
    """

    model: str
    right_from: float = 0.999
    is_overlap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("right_from", self.right_from)
        _library()

    def grade_all(
        self, examples: Sequence[Example], texts: Sequence[str], *, ask: Ask = ask_directly
    ) -> list[Score]:
        """Grades each text; all that is to be embedded is embedded together.

        Raises:
            ModelError: The embedding model can't be loaded.
        """
        wanted = [
            answer
            for example in examples
            for answers in accepted_answers(example)
            for answer in answers
        ]
        vectors = _embed(self.model, list(dict.fromkeys([*texts, *wanted])))

        def cosine(one: str, other: str) -> float:
            return float(vectors[one] @ vectors[other])

        return [
            against_each(example, text, cosine, right_from=self.right_from)
            for example, text in zip(examples, texts, strict=True)
        ]


def _embed(model: str, texts: Sequence[str]) -> dict[str, Any]:
    if not texts:
        return {}
    return dict(
        zip(
            texts,
            _load(model).encode(list(texts), normalize_embeddings=True, show_progress_bar=False),
            strict=True,
        )
    )


@lru_cache(maxsize=2)
def _load(model: str) -> Any:
    try:
        return _library().SentenceTransformer(model)
    except (
        Exception
    ) as error:  # whatever the libraries below it raise for a folder or a hub id that is none
        raise ModelError(
            f"The embedding model can't be loaded: {error}",
            received=model,
            allowed="a folder or hub id that sentence-transformers loads",
        ) from error


def _library() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingDependencyError(
            "Similarity by embeddings needs sentence-transformers",
            fix='run: pip install "domainfusion[embeddings]"',
        ) from error
    return sentence_transformers
