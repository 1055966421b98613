"""Students, experts and judges that want to look better than they are: each gets the verdict that
it deserves.

What is tested goes through the evaluator as a user calls it, and through every form in which a
report is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import unescape
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from distillation.builders import Cut
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import DomainRetentionEvaluator
from domainfusion.distillation.metrics import Judge, TokenF1, stated_parts
from domainfusion.models import LanguageModel, ScriptedModel
from domainfusion.reports import RunSummary, render_html, render_markdown, render_terminal
from domainfusion.types import Example, Part

COUNTRIES = (
    "Japan",
    "France",
    "Italy",
    "Peru",
    "Kenya",
    "Norway",
    "Chile",
    "Ghana",
    "Spain",
    "India",
)
METALS = ("Au", "Fe", "Ag", "Sn", "Pb", "Hg", "Cu", "Ni", "Zn", "Ti")
AIRPORTS = {f"Q{place:03}": COUNTRIES[place % 10] for place in range(80)}
ELEMENTS = {f"element {place}": METALS[place % 10] for place in range(80)}


def airport_question(code: str) -> str:
    return f"In which country is the airport {code}?"


def element_question(name: str) -> str:
    return f"What is the symbol of {name}?"


def asked(query: str, domain: str, answer: str) -> Example:
    return Example(query=query, domains=(domain,), parts=(Part(domain=domain, answers=(answer,)),))


AVIATION = [
    asked(airport_question(code), "aviation", country) for code, country in AIRPORTS.items()
]
CHEMISTRY = [
    asked(element_question(name), "chemistry", symbol) for name, symbol in ELEMENTS.items()
]
CROSS = [
    Example(
        query=f"{airport_question(code)} And {element_question(name)}",
        domains=("aviation", "chemistry"),
        sub_questions={"aviation": airport_question(code), "chemistry": element_question(name)},
        parts=(
            Part(domain="aviation", answers=(AIRPORTS[code],)),
            Part(domain="chemistry", answers=(ELEMENTS[name],)),
        ),
    )
    for code, name in list(zip(AIRPORTS, ELEMENTS, strict=True))[:20]
]
TEST = [*AVIATION, *CHEMISTRY, *CROSS]
FACTS = {**AIRPORTS, **ELEMENTS}


def known_in(question: str, facts: Mapping[str, str]) -> list[str]:
    return [facts[key] for key in re.findall(r"Q\d{3}|element \d+", question) if key in facts]


def stated(question: str, facts: Mapping[str, str]) -> str:
    return " ".join(f"It is {found}." for found in known_in(question, facts))


def expert(facts: Mapping[str, str], name: str) -> ScriptedModel:
    """Answers as an expert does: its own questions in a sentence, others not at all."""
    return ScriptedModel(
        lambda question: stated(question, facts) or "I do not know that.", name=name
    )


EXPERTS: dict[str, LanguageModel] = {
    "aviation": expert(AIRPORTS, "aviation"),
    "chemistry": expert(ELEMENTS, "chemistry"),
}
MOST_FREQUENT = Counter(FACTS.values()).most_common(1)[0][0]


def evaluate(
    student: Callable[[str], str] | LanguageModel, examples: Sequence[Any] = TEST, **options: Any
) -> EvaluationReport:
    model: Any = (
        ScriptedModel(student, name="student")
        if callable(student) and not hasattr(student, "generate")
        else student
    )
    experts = options.pop("experts", EXPERTS)
    given = {name: options.pop(name) for name in ("baselines", "trained_on") if name in options}
    return DomainRetentionEvaluator(resamples=200, **options).evaluate(
        model, experts, examples, **given
    )


def verdicts(report: EvaluationReport) -> set[str]:
    return {
        row.non_inferiority.verdict for row in report.retention if row.non_inferiority is not None
    }


def forms_of(report: EvaluationReport) -> list[str]:
    """The report as text: printed, in a terminal, as Markdown, as HTML and as data."""
    summary, console = (
        RunSummary(evaluation=report),
        Console(width=10_000, file=StringIO(), color_system=None),
    )
    console.print(render_terminal(summary, details=True))
    assert isinstance(console.file, StringIO)
    html = unescape(re.sub(r"<[^>]+>", "", render_html(summary))).replace("\u202f", " ")
    markdown = unescape(render_markdown(summary)).replace("\\", "")
    data = report.to_dict()
    return [
        str(report),
        console.file.getvalue(),
        markdown,
        html,
        "\n".join([data["headline"], *data["conclusions"]]),
    ]


def truth(question: str) -> str:
    return stated(question, FACTS)


def is_even(question: str) -> bool:
    return int(re.findall(r"\d+", question)[0]) % 2 == 0


CHEATS: dict[str, Callable[[str], str]] = {
    "always declines": lambda question: "I do not know that.",
    "declines every second question": lambda question: (
        truth(question) if is_even(question) else "I do not know that."
    ),
    "says nothing": lambda question: "",
    "guesses several": lambda question: f"It is {', '.join(COUNTRIES)} or {', '.join(METALS)}.",
    "repeats the question": lambda question: question,
    "gives the majority answer": lambda question: f"It is {MOST_FREQUENT}.",
    "says the opposite": lambda question: truth(question).replace("It is", "It is not"),
    "copies one expert": lambda question: stated(question, AIRPORTS) or "I do not know that.",
    "speaks another language": lambda question: (
        "Das kann ich Ihnen gerne ausführlich auf Deutsch erklären, wenn Sie möchten."
    ),
}


@pytest.mark.parametrize("name", [name for name in CHEATS if name != "copies one expert"])
def test_a_student_that_cheats_keeps_no_expert(name: str) -> None:
    report = evaluate(CHEATS[name])
    assert verdicts(report) == {"no"}, [str(row.retention) for row in report.retention]
    assert report.headline.startswith("The student falls short of 95 %: it keeps ")
    for form in forms_of(report):
        assert report.headline in form
        assert "keeps at least 95 %" not in form
        for row in report.retention:
            assert row.conclusion in form
            assert "does not keep 95 % of its expert" in row.conclusion


def test_a_student_that_knows_everything_keeps_each_expert() -> None:
    report = evaluate(truth)
    assert verdicts(report) == {"yes"}
    assert report.headline == "The student keeps at least 95 % of each of its 2 experts."
    assert all(report.headline in form for form in forms_of(report))


def test_a_student_that_declines_every_second_question_keeps_half() -> None:
    report = evaluate(CHEATS["declines every second question"])
    assert [row.retention.value for row in report.retention] == [0.5, 0.5]
    assert "50 % of the aviation expert" in report.headline


def test_a_student_that_copies_one_expert_keeps_that_one_alone() -> None:
    report = evaluate(CHEATS["copies one expert"])
    assert [row.non_inferiority.verdict for row in report.retention if row.non_inferiority] == [
        "yes",
        "no",
    ]
    assert report.cross_domain_accuracy.value == 0
    for form in forms_of(report):
        assert (
            "keeps at least 95 % of the aviation expert; falls short of 95 %: it keeps 0 % of the"
            " chemistry expert" in form
        )


def test_a_student_that_stops_in_the_middle_keeps_no_expert() -> None:
    report = evaluate(
        Cut(lambda question: "The country in which this airport lies, as far as I can")
    )
    assert verdicts(report) == {"no"}
    assert sum(score.truncated for score in report.student.slices.values()) == len(TEST)
    assert all(
        "cut at the token limit" in form or "ended at the token limit" in form
        for form in forms_of(report)[:4]
    )


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_has_integration_coherence(name: str) -> None:
    """An answer that is whole and right has a coherence of 1; one expert copied has half of it,
    since half of each answer is missing.
    """
    found, whole = evaluate(CHEATS[name], CROSS).coherence, evaluate(truth, CROSS).coherence
    assert whole is not None and whole.score.value == 1
    assert found is not None and found.score.value is not None
    assert found.score.value <= 0.5


def test_words_that_say_the_opposite_of_a_reference_earn_no_verdict() -> None:
    """They share nearly all words with it, and more of them than the expert's own answer does."""
    examples = [
        Example(
            query=airport_question(code),
            domains=("aviation",),
            reference=f"The airport {code} lies in the country {country}.",
        )
        for code, country in AIRPORTS.items()
    ]
    opposite = {
        query.query: query.reference.replace("lies", "lies not")
        for query in examples
        if query.reference
    }
    for metric in (stated_parts, TokenF1(), "rouge_l"):
        report = evaluate(
            ScriptedModel(opposite),
            examples,
            experts={"aviation": EXPERTS["aviation"]},
            metric=metric,
        )
        assert verdicts(report) == {"undefined"}
        assert report.retention[0].retention.value is None
        assert report.student.slices["aviation"].overlap_items == 80
        for form in forms_of(report):
            assert "shared words" in form
            assert not re.search(r"DER [\d.]+ %|keeps at least|205", form)


def test_a_judge_that_always_says_a_gives_no_verdict_for_anyone() -> None:
    """It contradicts itself on every pair, so it has no opinion: neither right nor as good as the
    expert.
    """
    judge = Judge(ScriptedModel("A", name="judge"))
    references = [
        Example(query=one.query, domains=one.domains, reference=f"{truth(one.query)} Of course.")
        for one in AVIATION
    ]
    report = evaluate(
        CHEATS["always declines"],
        references,
        metric=judge,
        experts={"aviation": EXPERTS["aviation"]},
    )
    assert verdicts(report) <= {"no", "undefined"}
    assert not any("keeps at least" in form for form in forms_of(report))


def test_experts_with_each_other_s_domain_are_told_apart() -> None:
    """The student is right; what it is compared with is not the expert of the domain."""
    swapped = {"aviation": EXPERTS["chemistry"], "chemistry": EXPERTS["aviation"]}
    report = evaluate(truth, experts=swapped)
    assert verdicts(report) == {"undefined"}
    for form in forms_of(report):
        assert "are the experts' domains mixed up?" in form
        assert "keeps at least" not in form


def test_a_test_set_that_one_answer_passes_shows_nothing() -> None:
    examples = [
        asked(f"Is fact {place} of this field true?", "aviation", "yes") for place in range(150)
    ]
    yes = ScriptedModel("yes", name="yes")
    report = evaluate(yes, examples, experts={"aviation": yes})
    assert verdicts(report) == {"undefined"}
    assert all(
        "answering every question with 'yes' is right 100 % of the time" in form
        for form in forms_of(report)
    )


def test_questions_that_were_trained_on_in_other_words_are_told() -> None:
    trained = [
        asked(f"Tell me the country of airport {code}, please.", "aviation", country)
        for code, country in AIRPORTS.items()
    ]
    report = evaluate(truth, [*AVIATION, *CHEMISTRY], trained_on=trained[:60])
    assert report.overlap is not None
    assert len(report.overlap.facts) == 60
    said = "60 of 160 test questions ask for what was trained on in other words"
    assert all(said in form for form in forms_of(report)[:4])
    assert evaluate(truth, CHEMISTRY, trained_on=trained).overlap.facts == ()


def test_the_ensemble_is_what_the_student_replaces_and_its_calls_are_counted() -> None:
    """For each pair it asks two experts their own questions, and a model that integrates; the
    student is asked once.
    """
    report = evaluate(truth)
    ensemble = next(model for model in report.models if model.role == "ensemble")
    oracle = next(model for model in report.models if model.role == "oracle")
    assert {name: score.strict.value for name, score in ensemble.slices.items()} == {
        "aviation": 1,
        "chemistry": 1,
        "cross-domain": 1,
    }
    assert oracle.slices["cross-domain"].strict.value == 1
    assert ensemble.cost is not None and report.student.cost is not None
    assert (ensemble.cost.calls, report.student.cost.calls) == (160 + 2 * 20, len(TEST))
    assert all("nsemble" in form for form in forms_of(report)[:4])


# Bad input: undefined, and why


def test_without_a_reference_nothing_is_kept_or_lost() -> None:
    report = evaluate(
        truth,
        [Example(query=one.query, domains=one.domains) for one in AVIATION],
        experts={"aviation": EXPERTS["aviation"]},
    )
    assert verdicts(report) == {"undefined"}
    assert all("no question has a reference" in form for form in forms_of(report))


def test_references_for_half_of_the_questions_are_told() -> None:
    bare = [Example(query=one.query, domains=one.domains) for one in AVIATION[40:]]
    report = evaluate(truth, [*AVIATION[:40], *bare], experts={"aviation": EXPERTS["aviation"]})
    assert report.retention[0].items == 40
    assert all(
        "40 of 80 questions could not be graded as right or wrong" in form
        for form in forms_of(report)
    )


def test_one_question_settles_nothing() -> None:
    report = evaluate(truth, AVIATION[:1], experts={"aviation": EXPERTS["aviation"]})
    assert verdicts(report) == {"not enough data"}
    assert report.retention[0].headroom.value is None


def test_a_domain_without_questions_is_undefined() -> None:
    report = evaluate(truth, AVIATION)
    assert [row.non_inferiority.verdict for row in report.retention if row.non_inferiority] == [
        "yes",
        "undefined",
    ]
    assert all(
        "the test set has no question of chemistry alone" in form for form in forms_of(report)
    )


def test_an_expert_that_knows_nothing_leaves_all_undefined() -> None:
    nobody = ScriptedModel("I do not know that.", name="nobody")
    report = evaluate(truth, AVIATION, experts={"aviation": nobody}, baselines={"base": nobody})
    assert report.retention[0].headroom.value is None
    assert all("the expert got nothing right" in form for form in forms_of(report))


def test_a_base_that_knows_all_leaves_no_headroom() -> None:
    report = evaluate(
        truth,
        AVIATION,
        experts={"aviation": EXPERTS["aviation"]},
        baselines={"base": ScriptedModel(truth, name="base")},
    )
    assert (
        report.retention[0].headroom.reason == "the expert is not measurably better than the base"
    )
    assert all("so does the untrained base" in form for form in forms_of(report))


def test_copies_of_a_question_add_no_certainty() -> None:
    few = AVIATION[:20]

    def copy(one: Example, number: int) -> Example:
        return Example(
            query=f"{one.query}{' ' * number}",
            domains=one.domains,
            parts=one.parts,
            id=f"{number} {one.query}",
        )

    copies = [copy(one, number) for one in few for number in range(10)]
    once, often = (
        evaluate(truth, examples, experts={"aviation": EXPERTS["aviation"]}).retention[0]
        for examples in (few, copies)
    )
    assert often.items == 200
    assert often.retention.low == pytest.approx(once.retention.low)
    assert verdicts(evaluate(truth, copies, experts={"aviation": EXPERTS["aviation"]})) == {
        "not enough data"
    }


def test_a_metric_that_gives_no_number_grades_nothing() -> None:
    report = evaluate(
        truth,
        AVIATION,
        metric=lambda example, text: float("nan"),
        experts={"aviation": EXPERTS["aviation"]},
    )
    assert verdicts(report) == {"undefined"}
    assert all("nan" not in str(model.slices["aviation"].strict.value) for model in report.models)
    assert all("no answer could be graded" in form for form in forms_of(report))
