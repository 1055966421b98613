"""The guide to integration keeps its word: its code runs, prints what it says, and names the calls
that are made.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from domainfusion.distillation.integration.integrator import CALLS_UNVERIFIED, MOST_CALLS

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "integration.md").read_text(
    encoding="utf-8"
)


def test_the_code_of_the_guide_prints_what_the_guide_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
    names: dict[str, Any] = {}
    exec(compile(code, "integration.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == re.findall(r"^# (?=[Aa]thletes|the )(.*)$", code, re.MULTILINE)
    assert printed[2] == "unverified ('the verifier gave no verdict',)"
    assert printed[3] == "Sleep eight hours."
    assert str(names["answer"]) == names["model"].generate([names["model"].calls[0]])[0].text


def test_the_guide_names_the_number_of_calls() -> None:
    words = {4: "four", 7: "seven"}
    assert (
        f"at most {words[MOST_CALLS]} calls an example, {words[CALLS_UNVERIFIED]} with"
        " `verify=False`" in GUIDE
    )
