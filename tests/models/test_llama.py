"""LlamaModel is HuggingFaceModel under the name that the specification gives it."""

from pathlib import Path

from domainfusion.models import HuggingFaceModel, LlamaModel
from domainfusion.types import Sampling, user


def test_usage_of_the_specification_works(tiny_llama: Path) -> None:
    teacher = LlamaModel(model_path=str(tiny_llama))
    [answer] = teacher.generate(
        [user("What is the capital of France?")], Sampling(max_new_tokens=4)
    )
    assert answer.completion_tokens in range(1, 5)


def test_it_is_the_same_model_under_another_name(tiny_llama: Path) -> None:
    assert issubclass(LlamaModel, HuggingFaceModel)
    llama, plain = LlamaModel(tiny_llama), HuggingFaceModel(tiny_llama)
    assert llama.fingerprint == plain.fingerprint
    assert repr(llama).startswith("LlamaModel(")
