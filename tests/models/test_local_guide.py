"""The guide to models on this machine: its code runs, and what it shows is there."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domainfusion.models import HuggingFaceModel, LlamaModel
from domainfusion.models.chat_template import CHATML_TEMPLATE
from domainfusion.models.encoding import encode_conversation
from domainfusion.models.tokenizer import load_tokenizer
from domainfusion.types import user

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "local_teachers.md"
TEXT = GUIDE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names(make_adapter: Callable[..., Path]) -> dict[str, Any]:
    """Runs the guide from its first line to its last, and gives the names that it leaves behind."""
    found: dict[str, Any] = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        for seed, domain in enumerate(("chemistry", "aviation")):
            block = block.replace(
                f'LlamaModel("path/to/{domain}-expert"',
                f'LlamaModel("{make_adapter(domain, seed)}", dtype="float32"',
            )
        exec(compile(block, str(GUIDE), "exec"), found)
    return found


def test_the_guides_code_runs_and_shows_what_it_says(names: dict[str, Any]) -> None:
    expected = [
        expert.generate(
            [user("Why does ice form on a wing?")], names["Sampling"](max_new_tokens=32)
        )[0]
        for expert in (names["chemist"], names["pilot"])
    ]
    assert names["answers"] == expected
    assert len(names["score"].tokens) > 3
    assert names["match"].use == "identical"
    assert "enable_thinking = false" in names["brief"].tokenizer.chat_template


def test_the_default_template_is_the_one_that_the_guide_shows(tiny_llama: Path) -> None:
    tokenizer: Any = load_tokenizer(tiny_llama, CHATML_TEMPLATE)
    assert tokenizer.decode(encode_conversation(tokenizer, user("What is it?"))) in TEXT


def test_both_names_are_one_class() -> None:
    assert issubclass(LlamaModel, HuggingFaceModel)
    assert {name for name in vars(LlamaModel) if not name.startswith("__")} == set()
