from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import CoherenceValidation, Estimate, LeftOut, ModelResult
from domainfusion.reports import RunSummary, html, render_html
from domainfusion.reports.evaluation_tables import HEAT_STEPS
from domainfusion.reports.summary import Shipped
from domainfusion.wording import duration
from reports.pages import HOSTILE, Element, Page, page

# What the page may do


@pytest.mark.parametrize("name", ["whole", "hostile"])
def test_the_page_loads_nothing(name: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(name)
    assert not [
        element.tag
        for element in root.all()
        if element.tag in {"link", "img", "iframe", "object", "embed", "base", "image", "use"}
    ]
    for element in root.all():
        assert not {"src", "srcset", "style", "action", "xlink:href"} & set(element.attributes)
        assert not [key for key in element.attributes if key.startswith("on")]
        assert element.attributes.get("href", "#").startswith("#")
    style = root.one("style").text
    assert "url(" not in style and "@import" not in style and "http" not in style


@pytest.mark.parametrize("name", ["whole", "hostile"])
def test_the_only_script_is_the_page_s_own(name: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(name)
    data: list[Element] = []
    code: list[Element] = []
    for element in root.all("script"):
        (data if element.attributes.get("type") == "application/json" else code).append(element)
    script = files("domainfusion.reports").joinpath("report.js").read_text()
    assert [element.text for element in code] == [script]
    assert data
    assert not any(set(element.text) & set("<>&") for element in data)


def test_the_policy_allows_the_page_s_own_style_and_script_and_nothing_else(whole: Element) -> None:
    policy = whole.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    digest = {
        tag: base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        for tag, element in (
            ("script", list(whole.all("script"))[-1]),
            ("style", whole.one("style")),
        )
    }
    assert directives == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest['script']}'",
        "style-src": f"'sha256-{digest['style']}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_hostile_text_is_shown_as_it_was_written(hostile: Element) -> None:
    shown = HOSTILE.replace("\x1b", "�").replace("\u202e", "�")
    texts = [element.text for element in hostile.all("span", "words")]
    assert texts.count(shown) > 50
    every = [item for name in ("answers", "questions") for item in items(hostile, name)]
    assert {item["query"] for item in every if item["query"] != shown} <= {
        "Why is Tokyo's airport code NRT and not TYO?"
    }
    assert not set("\x1b\u202e") & set(json.dumps(every, ensure_ascii=False))
    assert hostile.one("h1").text == shown
    assert not set("\x1b\u202e") & set(hostile.text)


def test_text_with_broken_unicode_can_be_written(run: RunSummary) -> None:
    render_html(replace(run, title="\ud800")).encode("utf-8")


# What the page says


def figure(estimate: Estimate) -> tuple[str, str]:
    """A figure and its interval, written anew from the evaluation."""
    if estimate.value is None:
        return "undefined", estimate.reason
    inside = (
        f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
        if estimate.low is not None and estimate.high is not None
        else ""
    )
    return (
        f"{100 * estimate.value:.1f}",
        "" if estimate.low == estimate.value == estimate.high else inside,
    )


def cell(element: Element) -> tuple[str, str]:
    note = next((child.words for child in element.all("small")), "")
    return element.words.removesuffix(note).strip(), note


def items(root: Element, name: str) -> list[dict[str, Any]]:
    """The questions that the page's script shows."""
    found: list[dict[str, Any]] = json.loads(root.one("div", id=f"{name}-pager").one("script").text)
    return found


def table(root: Element, caption: str) -> Element:
    (found,) = (
        element
        for element in root.all("table")
        if any(caption in title.words for title in element.all("caption"))
    )
    return found


def body(found: Element) -> list[list[tuple[str, str]]]:
    rows = found.one("tbody").all("tr")
    return [
        [
            cell(part)
            for part in row.children
            if isinstance(part, Element) and "bar" not in part.attributes.get("class", "")
        ]
        for row in rows
    ]


def test_the_matrix_is_that_of_the_evaluation(whole: Element, evaluation: EvaluationReport) -> None:
    shown = body(whole.one("table", "heat"))
    assert len(shown) == len(evaluation.models)
    for (_, *cells), model in zip(shown, evaluation.models, strict=True):
        expected = [model.slices.get(name) for name in evaluation.slices]
        assert cells == [
            ("–", "not measured") if score is None else figure(score.strict) for score in expected
        ]
    headers = [cell(element) for element in whole.one("table", "heat").one("thead").all("th")]
    assert headers[1:] == [
        (name, f"{score.items} questions") for name, score in evaluation.student.slices.items()
    ]


def test_shades_grow_with_the_figures_and_a_frame_marks_the_own_domain(
    whole: Element, evaluation: EvaluationReport
) -> None:
    cells = list(whole.one("table", "heat").all("td"))
    shades = [
        (float(cell(element)[0]), int(found[1]))
        for element in cells
        if (found := re.search(r"heat-(\d)", element.attributes["class"]))
    ]
    assert [shade for _, shade in sorted(shades)] == sorted(shade for _, shade in shades)
    assert {shade for _, shade in shades} >= {0, HEAT_STEPS - 1}
    framed = [element for element in cells if "home" in element.attributes["class"]]
    experts = [model for model in evaluation.models if model.role == "expert"]
    assert [cell(element) for element in framed] == [
        figure(model.slices[model.name].strict) for model in experts
    ]


def test_retention_is_that_of_the_evaluation_in_table_and_chart(
    whole: Element, evaluation: EvaluationReport
) -> None:
    for shown, row in zip(
        body(table(whole, "Domain Expertise Retention")), evaluation.retention, strict=True
    ):
        domain, kept, _, student, expert, base, headroom, items = shown
        assert (domain[0], items[0]) == (row.domain, str(row.items))
        assert [kept, headroom] == [
            (f"{value} %", note) for value, note in map(figure, (row.retention, row.headroom))
        ]
        assert [student[0], expert[0], base[0]] == [
            f"{100 * value:.1f} %"
            for value in (row.student, row.expert, row.base)
            if value is not None
        ]
    chart = next(element for element in whole.all("table", "dots"))
    words = [element.words for element in chart.all("td", "figure")]
    assert words == ["{} % ({})".format(*figure(row.retention)) for row in evaluation.retention]


def test_cross_domain_accuracy_is_that_of_the_evaluation(
    whole: Element, evaluation: EvaluationReport
) -> None:
    measured = [model for model in evaluation.models if "cross-domain" in model.slices]
    for (_, *cells), model in zip(
        body(table(whole, "Cross-Domain Accuracy")), measured, strict=True
    ):
        score = model.slices["cross-domain"]
        assert cells == [
            figure(score.strict),
            figure(score.partial),
            *(figure(pair.strict) for pair in model.pairs.values()),
        ]


def test_counts_and_times_are_those_of_the_run(whole: Element, run: RunSummary) -> None:
    generated = [[text for text, _ in row] for row in body(table(whole, "Examples by generator"))]
    assert [row[:2] + row[3:5] + row[6:7] for row in generated] == [
        [
            count.generator,
            count.kind,
            str(count.asked),
            str(count.accepted),
            str(sum(count.rejected.values())),
        ]
        for count in run.generation
    ]
    assert [(row[2], row[8]) for row in generated] == [("–", "–"), ("24", "–"), ("12", "20 %")]
    rejects = {
        (row[0][0], row[1][0]): int(row[2][0]) for row in body(table(whole, "Candidates left out"))
    }
    assert rejects == {
        (count.generator, reason): number
        for count in run.generation
        for reason, number in count.rejected.items()
    }
    *_, together = body(table(whole, "Training records"))
    kinds = [
        sum(record.verification == kind for record in run.records)
        for kind in ("verified", "unverified", "rejected")
    ]
    assert [text for text, _ in together] == ["all", *map(str, kinds), str(len(run.records))]
    *stages, whole_run = body(table(whole, "Time by stage"))
    assert [row[1][0] for row in stages] == [duration(stage.seconds) for stage in run.stages]
    assert whole_run[1][0] == duration(sum(stage.seconds for stage in run.stages))
    conflicts = sum(len(record.integration.ledger.conflicts) for record in run.records)
    assert f"{conflicts} conflicts in" in whole.one("section", id="conflicts").words


def test_borders_between_domains_are_those_of_the_evaluation(
    whole: Element, evaluation: EvaluationReport
) -> None:
    shown = body(table(whole, "Adversarial questions"))
    assert [f"{row[0][0]} → {row[1][0]}" for row in shown] == list(evaluation.student.adversarial)
    assert [row[3] for row in shown] == [
        figure(score.strict) for score in evaluation.student.adversarial.values()
    ]
    experts = {model.name: model for model in evaluation.models if model.role == "expert"}
    assert [row[5] for row in shown] == [
        figure(experts[row[1][0]].adversarial[f"{row[0][0]} → {row[1][0]}"].strict) for row in shown
    ]
    ids = {case.example_id for case in evaluation.edge_cases}
    missed = {example.query for example in evaluation.examples if example.id in ids}
    articles = list(whole.one("section", id="borders").all("article"))
    assert (
        {article.one("p", "query").one("span", "words").text for article in articles}
        == missed
        != set()
    )


def test_the_share_to_keep_is_answered_for_each_domain_at_once(
    whole: Element, evaluation: EvaluationReport
) -> None:
    strip = whole.one("section", id="verdict").one("table", "dots")
    words = [f"{element.words}" for element in strip.all("td", "kept")]
    assert [element.words for element in strip.all("th")] == [
        row.domain for row in evaluation.retention
    ]
    for said, row in zip(words, evaluation.retention, strict=True):
        assert row.non_inferiority is not None and row.non_inferiority.verdict in said
        assert (f"about {row.non_inferiority.more_items} more questions" in said) is (
            row.non_inferiority.more_items is not None
        )


def test_where_each_phase_ended_is_told_by_domain(whole: Element, run: RunSummary) -> None:
    shown = {row[0][0]: row[1:] for row in body(table(whole, "At the end of each phase"))}
    first, second = (line["validation"] for line in run.training_log if "finished" in line)
    assert shown["aviation"] == [
        (f"{first['aviation']:.3f}", "KL 0.0344"),
        (f"{second['aviation']:.3f}", "KL 0.00281"),
    ]
    assert shown["cross-domain"] == [
        (f"{scores['cross-domain']:.3f}", "") for scores in (first, second)
    ]


def test_each_choice_is_told_with_what_spoke_for_it(whole: Element) -> None:
    assert [[text for text, _ in row] for row in body(table(whole, "What the training chose"))] == [
        ["Merge weight", "1.0", "0.5: 0.375, 1: 0.625"],
        ["Order", "chemistry, aviation", "aviation: −2.250, chemistry: −1.500"],
    ]


def test_what_the_start_knew_and_what_was_skipped_is_shown(whole: Element) -> None:
    shown = body(table(whole, "What the student knew before training"))
    assert [[text for text, _ in row] for row in shown] == [["aviation", "40", "30", "20"]]


def test_what_the_training_noted_is_told(whole: Element) -> None:
    shown = {row[0][0]: row[1][0] for row in body(table(whole, "What the training noted"))}
    assert shown == {"objective": "distribution", "taught · the expert of aviation": "16"}


def test_what_is_saved_is_told_and_where_it_was_not_measured_that_is(
    whole: Element, run: RunSummary
) -> None:
    shown = {
        row[0][0]: [text for text, _ in row[1:]]
        for row in body(table(whole, "One student in place of 3 experts"))
    }
    assert shown["Parameters"] == ["144,500,000", "163,900,000", "0.88"]
    assert shown["Tokens per second"] == ["82", "70", "1.17"]
    unmeasured = page(replace(run, savings=None)).one("section", id="savings")
    assert "Memory and time were not measured" in unmeasured.words
    saved = page(replace(run, shipped=Shipped(134_515_008, 269_100_000)))
    rows = {row[0][0]: row[1:] for row in body(table(saved, "One student in place of 3 experts"))}
    assert [text for text, _ in rows["Parameters"]] == ["134,515,008", "163,900,000", "0.82"]
    assert [text for text, _ in rows["Memory of the weights"]] == ["269 MB", "348 MB", "0.77"]
    assert "269 MB" in saved.one("section", id="verdict").words


def test_undefined_figures_give_their_reason(run: RunSummary, evaluation: EvaluationReport) -> None:
    nothing = Estimate(value=None, reason="the expert got nothing right")
    student = evaluation.student
    slices = {
        **student.slices,
        "two-hop": replace(
            student.slices["two-hop"],
            strict=Estimate(value=None, reason="no answer could be graded"),
        ),
    }
    rows = (
        replace(evaluation.retention[0], retention=nothing, headroom=nothing),
        *evaluation.retention[1:],
    )
    shown = page(
        replace(
            run,
            evaluation=replace(
                evaluation,
                models=(replace(student, slices=slices), *evaluation.models[1:]),
                retention=rows,
            ),
        )
    )
    first = body(table(shown, "Domain Expertise Retention"))[0]
    assert first[1] == first[6] == ("undefined", "the expert got nothing right")
    assert body(shown.one("table", "heat"))[0][-2] == ("undefined", "no answer could be graded")
    assert (
        "is undefined, because the expert got nothing right."
        in shown.one("section", id="verdict").words
    )


def test_where_nothing_could_be_graded_that_is_said_once_and_answers_are_open(
    run: RunSummary, evaluation: EvaluationReport
) -> None:
    nothing = Estimate(value=None, reason="no answer could be graded")

    def ungraded(model: ModelResult) -> ModelResult:
        return replace(
            model,
            answers=tuple(replace(answer, correct=None, score=None) for answer in model.answers),
            slices={
                name: replace(score, strict=nothing, partial=nothing)
                for name, score in model.slices.items()
            },
        )

    rows = tuple(replace(row, retention=nothing, headroom=nothing) for row in evaluation.retention)
    shown = page(
        replace(
            run,
            evaluation=replace(
                evaluation, models=tuple(map(ungraded, evaluation.models)), retention=rows
            ),
        )
    )
    assert not {"retention", "accuracy", "merge", "domain-1"} & {
        element.attributes["id"] for element in shown.all("section")
    }
    assert shown.one("section", id="verdict").words.count("no answer could be graded") == 1
    answers = list(shown.one("section", id="answers").all("article"))
    assert len(answers) == html.FIRST_QUESTIONS


@pytest.mark.parametrize("validated", [False, True])
def test_coherence_is_marked_until_it_is_validated(
    run: RunSummary, evaluation: EvaluationReport, validated: bool
) -> None:
    assert evaluation.coherence is not None
    seen = (
        CoherenceValidation(
            metric="m", auroc={"looped": Estimate(value=0.95)}, texts=9, text_set="t"
        )
        if validated
        else None
    )
    shown = page(
        replace(
            run,
            evaluation=replace(
                evaluation, coherence=replace(evaluation.coherence, validation=seen)
            ),
        )
    )
    words = shown.one("section", id="cross-domain").words
    assert "0.814 [0.792, 0.834]" in words
    assert ("not validated" in words) is not validated


def test_every_answer_is_there_and_wrong_ones_come_first(
    whole: Element, evaluation: EvaluationReport
) -> None:
    found = items(whole, "answers")
    assert len(found) == len(evaluation.examples)
    order = [["wrong", "not graded", "right"].index(item["state"]) for item in found]
    assert order == sorted(order)
    by_query = {example.query: example for example in evaluation.examples}
    said = {answer.example_id: answer.text for answer in evaluation.student.answers}
    for item in found:
        example = by_query[item["query"]]
        labels = [line[0] for line in item["lines"]]
        texts = [line[1] for line in item["lines"]]
        assert texts[: len(example.parts)] == [part.answers[0] for part in example.parts]
        assert texts[len(example.parts)] == said[example.id]
        assert set(labels) >= {f"expert: {domain}" for domain in example.domains}


def test_without_scripts_the_first_questions_are_there_and_the_page_says_so(
    whole: Element,
) -> None:
    section = whole.one("section", id="answers")
    shown = [
        article.one("p", "query").one("span", "words").text for article in section.all("article")
    ]
    assert shown == [item["query"] for item in items(whole, "answers")[: html.FIRST_QUESTIONS]]
    assert "the first 8 of 180 questions" in section.one("noscript").words
    assert not [fold for fold in whole.all("details") if "open" in fold.attributes]


def test_each_domain_has_its_figures_its_loss_and_its_wrong_answers(
    whole: Element, evaluation: EvaluationReport
) -> None:
    grades = {answer.example_id: answer.correct for answer in evaluation.student.answers}
    for number, row in enumerate(evaluation.retention, start=1):
        part = whole.one("section", id=f"domain-{number}")
        assert row.conclusion in part.words.replace("\u202f", " ")
        wrong = {
            example.query
            for example in evaluation.examples
            if slice_of(example) == row.domain and grades[example.id] is False
        }
        assert {
            article.one("p", "query").one("span", "words").text for article in part.all("article")
        } == wrong
        assert len(list(part.all("svg", "chart"))) == 1
        link = part.one("a", href="#answers").attributes
        assert link["data-group"] == row.domain


def test_questions_that_were_made_can_be_read_with_why_others_were_left_out(
    run: RunSummary,
) -> None:
    count = replace(
        run.generation[0],
        removed=(
            LeftOut("Where is LHR?", "asks what a test question asks", "Where does LHR lie?"),
        ),
    )
    found = items(page(replace(run, generation=(count,))), "questions")
    assert len(found) == len(run.records) + 1
    targets = {item["query"]: item["lines"][-1][:2] for item in found}
    for record in run.records:
        assert targets[record.example.query] == ["target", record.target]
    rejected = [item for item in found if item["state"] == "rejected"]
    assert all(
        "does not state what the reference states" in item["lines"][-1][3][0] for item in rejected
    )
    left_out = found[-1]
    assert (left_out["query"], left_out["state"]) == ("Where is LHR?", "left out")
    assert [line[1] for line in left_out["lines"]] == [
        "asks what a test question asks",
        "Where does LHR lie?",
    ]


def test_a_chart_of_many_domains_is_left_to_the_parts_of_the_domains(run: RunSummary) -> None:
    log = [
        {
            "phase": "a",
            "step": step,
            "loss": 1.0,
            "domains": {f"d{number}": {"tokens": 3, "cross_entropy": 1.0} for number in range(12)},
        }
        for step in (1, 2)
    ]
    training = page(replace(run, training_log=tuple(log))).one("section", id="training")
    assert len(list(training.all("svg", "chart"))) == 1


def test_what_is_too_much_for_a_page_is_counted(
    run: RunSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MOST_QUESTIONS", 20)
    monkeypatch.setattr(html, "MOST_CONFLICTS", 4)
    shown = page(run)
    assert len(items(shown, "answers")) == 20
    assert (
        "On this page are 20 of 180 questions; all of them are in evaluation.json." in shown.words
    )
    conflicts = shown.one("section", id="conflicts")
    settled = [
        element.words
        for element in conflicts.all("dt")
        if element.words in ("settled by", "not settled")
    ]
    assert len(settled) == 4
    assert "further conflicts in records.jsonl" in conflicts.words


def test_long_answers_make_fewer_questions_fit_and_the_page_says_so(
    run: RunSummary, evaluation: EvaluationReport
) -> None:
    def lengthened(model: ModelResult) -> ModelResult:
        return replace(
            model, answers=tuple(replace(answer, text="word " * 5000) for answer in model.answers)
        )

    long = replace(
        run, evaluation=replace(evaluation, models=tuple(map(lengthened, evaluation.models)))
    )
    written = render_html(long)
    shown = len(items(Page(written).root, "answers"))
    assert 0 < shown < 180 and len(written) < 2 * html.MOST_CHARACTERS
    assert f"On this page are {shown} of 180 questions" in written


# What is not there


EVALUATED = {
    "verdict",
    "retention",
    "accuracy",
    "cross-domain",
    "borders",
    "benchmarks",
    "overall",
    "measurement",
    "answers",
    "merge",
    "domain-1",
    "domain-2",
    "domain-3",
}
PARTS: list[tuple[dict[str, Any], set[str]]] = [
    ({"evaluation": None}, EVALUATED),
    ({"generation": (), "records": ()}, {"data", "conflicts"}),
    ({"training_log": ()}, {"training"}),
    ({"refinement": None}, {"refinement"}),
    ({"stages": ()}, {"cost"}),
    ({"usage": ()}, {"usage"}),
    ({"settings": {}, "student": {}, "teachers": {}, "inputs": {}, "recipe": ""}, {"repeat"}),
]


@pytest.mark.parametrize(("fields", "missing"), PARTS)
def test_a_section_without_data_is_left_out_and_no_other(
    run: RunSummary, whole: Element, fields: dict[str, Any], missing: set[str]
) -> None:
    shown = page(replace(run, **fields))
    before, after = (
        {element.attributes["id"] for element in root.all("section")} for root in (whole, shown)
    )
    assert before - after == missing
    links = [element.attributes["href"] for element in shown.one("nav").all("a")]
    assert links == [f"#{element.attributes['id']}" for element in shown.all("section")]


Without = Callable[[EvaluationReport], EvaluationReport]


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        (
            lambda found: replace(found, retention=()),
            {"retention", "domain-1", "domain-2", "domain-3"},
        ),
        (lambda found: replace(found, examples=()), {"answers", "merge"}),
        (lambda found: replace(found, overall=None), {"overall"}),
        (lambda found: replace(found, benchmarks=(), regressions=()), {"benchmarks"}),
        (
            lambda found: replace(
                found,
                test_set="",
                notes=(),
                resamples=0,
                metric="",
                coherence_metric="",
                examples=(),
                overlap=None,
            ),
            {"answers", "merge"},
        ),
    ],
)
def test_a_part_of_an_evaluation_may_be_missing(
    run: RunSummary,
    whole: Element,
    evaluation: EvaluationReport,
    without: Without,
    missing: set[str],
) -> None:
    shown = page(replace(run, evaluation=without(evaluation)))
    before, after = (
        {element.attributes["id"] for element in root.all("section")} for root in (whole, shown)
    )
    assert before - after == missing


def test_an_empty_run_is_a_page_that_says_so() -> None:
    shown = page(RunSummary())
    assert shown.one("h1").words == "Distillation run"
    assert shown.one("main").words == "The student of this run has not been evaluated."
    assert (
        not list(shown.all("section"))
        and not list(shown.all("script"))
        and not list(shown.all("nav"))
    )
