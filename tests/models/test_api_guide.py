"""The guide to teachers behind an API: its code runs, and what it promises holds."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domainfusion.distillation import Distiller
from domainfusion.models import APIModel, Dialect, Limits, Prices, Retries
from domainfusion.types import Sampling
from models.faulty_server import FaultyServer, answer_to, message

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "api_teachers.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def names(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Runs the guide from its first line to its last, on a server of our own, and gives the names
    that it leaves behind.
    """
    found: dict[str, Any] = {"__name__": "guide"}
    thinks = message(content="<think>Two and two.</think>4")
    with (
        pytest.MonkeyPatch.context() as patch,
        FaultyServer({"What is 2 + 2?": [thinks]}) as server,
    ):
        patch.chdir(tmp_path_factory.mktemp("guide"))
        patch.setenv("CLINIC_API_KEY", "")
        lines = [
            {
                "query": f"Question {n}?",
                "domains": ["physiology", "nutrition"] if n % 2 else ["physiology"],
            }
            for n in range(6)
        ]
        Path("questions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        for block in BLOCKS:
            # Two addresses have to differ, and both are this server.
            second = server.url.replace("127.0.0.1", "localhost")
            code = re.sub(r'"https?://(?!two)[^"]+/v1"', f'"{server.url}"', block)
            code = code.replace("https://two.example.com/v1", second)
            code = re.sub(
                r'LlamaModel\("path/to/[^"]+"', f'LlamaModel("{tiny_llama}", dtype="float32"', code
            )
            exec(compile(code, str(GUIDE), "exec"), found)
        yield found | {"server": server}


def test_the_guides_code_runs_and_shows_what_it_says(names: dict[str, Any]) -> None:
    assert names["answer"].text == "4" and names["answer"].reasoning == "Two and two."
    assert [answer.text for answer in names["answers"]] == [
        answer_to("How do muscles recover?"),
        answer_to("What is lactate?"),
    ]
    assert (
        names["teacher"].usage.cost
        <= names["teacher"].estimate(names["questions"], names["Sampling"](max_new_tokens=200)).cost
    )
    assert (
        names["student"].ask("Question 1?", sampling=names["Sampling"](max_new_tokens=2))
        is not None
    )


def test_the_key_of_the_guide_is_sent_only_where_it_is_named(names: dict[str, Any]) -> None:
    keys = {
        exchange.headers.get("authorization")
        for exchange in names["server"].exchanges
        if exchange.body["model"] != "clinic-large"
    }
    assert keys == {None}
    clinic = [
        exchange.headers.get("authorization")
        for exchange in names["server"].exchanges
        if exchange.body["model"] == "clinic-large"
    ]
    assert clinic and all(clinic)


def test_every_setting_that_the_guide_names_exists() -> None:
    settings = {
        name
        for made in (APIModel, Dialect, Limits, Prices, Retries, Distiller, Sampling)
        for name in inspect.signature(made).parameters
    }
    words = set(re.findall(r"`(\w+)(?:=[^`]*)?`", TEXT)) | set(
        re.findall(r"^    (\w+)=", TEXT, re.MULTILINE)
    )
    named = {word for word in words if "_" in word and word.islower()}
    assert named <= settings
    assert len(named) > 12
