from __future__ import annotations

from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import pytest

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.requirements import (
    Requirement,
    check_requirements,
    write_junit,
)
from domainfusion.distillation.results import (
    DomainRetention,
    Estimate,
    ModelResult,
    NonInferiority,
    Regression,
    SliceScore,
)
from domainfusion.errors import ConfigurationError


def kept(
    domain: str, value: float | None, low: float, verdict: Literal["yes", "no"]
) -> DomainRetention:
    return DomainRetention(
        domain=domain,
        items=40,
        student=value,
        expert=1.0,
        base=0.0,
        retention=Estimate(value=value, low=low, high=1.0, reason="the expert knows nothing"),
        headroom=Estimate(value=None),
        non_inferiority=NonInferiority(margin=0.95, verdict=verdict),
    )


def report(law: float | None = 0.97) -> EvaluationReport:
    score = SliceScore(items=40, strict=Estimate(value=0.8), partial=Estimate(value=0.9))
    student = ModelResult(
        name="student", role="student", slices={"law": score, "cross-domain": score}
    )
    lost = Regression(
        slice="general",
        items=40,
        student=0.5,
        base=0.75,
        difference=Estimate(value=-0.25, low=-0.5, high=-0.1),
        tolerance=0.05,
        verdict="loss",
    )
    return EvaluationReport(
        models=(student,),
        retention=(kept("law", law, 0.9, "yes"), kept("tax", 0.99, 0.96, "no")),
        regressions=(lost,),
    )


def met(text: str, law: float | None = 0.97) -> list[bool]:
    return [outcome.met for outcome in check_requirements(report(law), [Requirement.parse(text)])]


@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        ("DER>=0.95", [True, True]),
        ("der >= 97.5 %", [False, True]),
        ("DER[law]>0.97", [False]),
        ("DER[law]>=0.97", [True]),
        ("DER.low>=0.95", [False, True]),
        ("DER[tax].high<=1", [True]),
        ("CDA>=0.8", [True]),
        ("accuracy[law]<0.8", [False]),
        ("IC>=0.1", [False]),
        ("overall>=0", [False]),
        ("general: no loss", [False]),
        ("law: no loss", [True]),
        ("tax: no loss", [False]),
    ],
)
def test_a_requirement_holds_where_the_figure_does(text: str, outcomes: list[bool]) -> None:
    assert met(text) == outcomes


@pytest.mark.parametrize("operator", [">=", ">", "<=", "<"])
def test_an_undefined_figure_meets_no_requirement(operator: str) -> None:
    assert met(f"DER[law]{operator}0.5", law=None) == [False]


@pytest.mark.parametrize(
    "text", ["", "DER", "DER=0.9", "loss>=1", "DER>=95", "DER[law.low>=1", "accuracy>=nan"]
)
def test_a_requirement_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="requirement"):
        Requirement.parse(text)


@pytest.mark.parametrize("text", ["DER[art]>=0.9", "art: no loss"])
def test_a_slice_that_was_not_measured_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"allowed: .*law"):
        met(text)


def test_outcomes_are_test_cases_in_junit(tmp_path: Path) -> None:
    requirements = [Requirement.parse("DER.low>=0.95"), Requirement.parse("CDA>=0.8")]
    file = tmp_path / "requirements.xml"
    write_junit(file, check_requirements(report(), requirements), suite="a <run> \x1b & more")
    suite = ElementTree.parse(file).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    (failed,) = (case for case in suite if case.find("failure") is not None)
    assert failed.get("name") == "DER.low>=0.95 (law)"
