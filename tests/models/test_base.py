"""Laws of capabilities: a question that costs nothing, asked of what a model can do and never of
its class.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from domainfusion.models import (
    HuggingFaceModel,
    LanguageModel,
    ScriptedModel,
    TokenScorer,
    TrainableModel,
)
from domainfusion.models.base import OnResult
from domainfusion.types import Conversation, Generation, Sampling

CAPABILITIES = (LanguageModel, TokenScorer, TrainableModel)


class Answering:
    """A user's own model, without a base class of ours."""

    def __init__(self) -> None:
        self.name = "own"

    @property
    def fingerprint(self) -> str:
        pytest.fail("asking for a capability computed a fingerprint")

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        pytest.fail("asking for a capability generated")


class Scoring(Answering):
    """A user's own model that scores tokens; everything that could be computed is a trap."""

    @property
    def tokenizer(self) -> object:
        pytest.fail("asking for a capability loaded a tokenizer")

    @property
    def vocabulary_size(self) -> int:
        pytest.fail("asking for a capability read a configuration")

    @property
    def context_length(self) -> int | None:
        pytest.fail("asking for a capability read a configuration")

    encode = score = hidden_states = head = project = Answering.generate


class Training(Answering):
    """A user's own model that can be trained."""

    tokenizer, context_length = Scoring.tokenizer, Scoring.context_length

    ask = encode = encode_answer = trainable_copy = Answering.generate
    trainable_module = device = trained_state = load_trained_state = save = Answering.generate


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Answering(), (LanguageModel,)),
        (Scoring(), (LanguageModel, TokenScorer)),
        (Training(), (LanguageModel, TrainableModel)),
        (ScriptedModel("yes"), (LanguageModel,)),
        ("a text", ()),
        (None, ()),
        (object(), ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_model_can_do_decides_and_nothing_is_computed_to_find_out(
    model: object, expected: tuple[type, ...]
) -> None:
    assert (
        tuple(capability for capability in CAPABILITIES if isinstance(model, capability))
        == expected
    )


@pytest.mark.parametrize("lacking", ["name", "fingerprint", "generate"])
def test_a_model_that_lacks_something_has_not_the_capability(lacking: str) -> None:
    class Incomplete:
        pass

    for name in {"name", "fingerprint", "generate"} - {lacking}:
        setattr(Incomplete, name, None if name != "generate" else Answering.generate)
    assert not isinstance(Incomplete(), LanguageModel)


def test_a_local_model_has_every_capability_and_opens_no_file_to_say_so(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HuggingFaceModel(tiny_llama, device="cpu")
    monkeypatch.setattr("domainfusion.models.loading.hash_files", lambda _: pytest.fail("hashed"))
    monkeypatch.setattr(
        "domainfusion.models.loading.shared_tokenizer", lambda *_, **__: pytest.fail("loaded")
    )
    monkeypatch.setattr("domainfusion.models.loading.read_config", lambda _: pytest.fail("read"))
    assert all(isinstance(model, capability) for capability in CAPABILITIES)
