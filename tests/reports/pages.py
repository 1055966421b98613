"""A page as a reader sees it: parsed strictly, by the standard library alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import Estimate, ModelResult
from domainfusion.reports import RunSummary, render_html
from domainfusion.types import Message

VOID = {"meta", "br", "input", "link", "img", "hr"}
HOSTILE = (
    '"><script>document.title = "owned"</script><img src="http://e.org/x.png"'
    ' onerror="alert(1)"></script><!-- \x1b[2J \u202e'
)


@dataclass
class Element:
    """A parsed element: its own tag and attributes, and its children, elements or text."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def words(self) -> str:
        """The text with white space as a browser shows it."""
        return " ".join(self.text.split())

    def all(self, tag: str = "", wanted: str = "", **attributes: str) -> Iterator[Element]:
        """Yields the descendants of a tag, with a class and with attributes, in the order of the
        document.
        """
        for child in self.children:
            if isinstance(child, str):
                continue
            has_class = wanted in child.attributes.get("class", "").split() if wanted else True
            if (
                (not tag or child.tag == tag)
                and has_class
                and all(child.attributes.get(key) == value for key, value in attributes.items())
            ):
                yield child
            yield from child.all(tag, wanted, **attributes)

    def one(self, tag: str = "", wanted: str = "", **attributes: str) -> Element:
        (found,) = self.all(tag, wanted, **attributes)
        return found


class Page(HTMLParser):
    """Parses a page and refuses tags that are not closed in the order in which they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("document")
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice"
        element = Element(tag, {key: value or "" for key, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def page(summary: RunSummary) -> Element:
    return Page(render_html(summary)).root


def hostile_run(run: RunSummary, evaluation: EvaluationReport) -> RunSummary:
    """Returns a run in which every text that others wrote is hostile."""

    def rename(model: ModelResult) -> ModelResult:
        answers = tuple(replace(answer, text=HOSTILE, reason=HOSTILE) for answer in model.answers)
        borders = {f"{HOSTILE} → {HOSTILE}": score for score in model.adversarial.values()}
        return replace(
            model,
            name=model.name if model.role == "student" else HOSTILE,
            answers=answers,
            adversarial=borders,
        )

    examples = tuple(
        replace(
            example,
            query=HOSTILE,
            metadata={"slice": HOSTILE},
            history=(Message("user", HOSTILE), Message("assistant", HOSTILE)),
            apparent_domain=f"looks {HOSTILE}",
            parts=tuple(
                replace(part, answers=(HOSTILE, HOSTILE), domain=HOSTILE) for part in example.parts
            ),
        )
        for example in evaluation.examples
    )
    nothing = Estimate(value=None, reason=HOSTILE)
    records = tuple(
        replace(
            record,
            example=replace(record.example, query=HOSTILE, domains=(HOSTILE,)),
            responses=tuple(
                replace(response, text=HOSTILE, domain=HOSTILE, question=HOSTILE)
                for response in record.responses
            ),
            integration=replace(
                record.integration,
                text=HOSTILE,
                method=HOSTILE,
                ledger=replace(
                    record.integration.ledger,
                    conflicts=tuple(
                        replace(
                            found,
                            claims={HOSTILE: HOSTILE},
                            rule=HOSTILE,
                            question=f"which {HOSTILE}",
                        )
                        for found in record.integration.ledger.conflicts
                    ),
                    dropped=tuple(
                        replace(found, reason=HOSTILE)
                        for found in record.integration.ledger.dropped
                    ),
                ),
            ),
            reason=HOSTILE,
        )
        for record in run.records
    )
    return replace(
        run,
        title=HOSTILE,
        evaluation=replace(
            evaluation,
            models=tuple(map(rename, evaluation.models)),
            examples=examples,
            retention=tuple(
                replace(row, domain=HOSTILE, retention=nothing, headroom=nothing)
                for row in evaluation.retention
            ),
            edge_cases=tuple(
                replace(case, apparent=HOSTILE, needed=HOSTILE) for case in evaluation.edge_cases
            ),
            benchmarks=tuple(
                replace(found, slice=HOSTILE, source=HOSTILE, notes=(HOSTILE,))
                for found in evaluation.benchmarks
            ),
            regressions=tuple(replace(row, slice=HOSTILE) for row in evaluation.regressions),
            overlap=replace(evaluation.overlap, method=HOSTILE) if evaluation.overlap else None,
            notes=(HOSTILE,),
            metric=HOSTILE,
        ),
        generation=tuple(
            replace(count, generator=HOSTILE, kind=HOSTILE, rejected={HOSTILE: 2})
            for count in run.generation
        ),
        records=records,
        stages=tuple(replace(stage, stage=HOSTILE) for stage in run.stages),
        training_log=tuple(
            {
                **line,
                "phase": HOSTILE,
                "domains": {HOSTILE: {"tokens": 1, HOSTILE: 1.0}},
                **({"validation": {HOSTILE: 1.0}} if "finished" in line else {}),
                **(
                    {"chosen": HOSTILE, "measured": {HOSTILE: 1.0}, "value": HOSTILE}
                    if "chosen" in line
                    else {}
                ),
                **({"known": {HOSTILE: {"records": 1}}} if "known" in line else {}),
            }
            for line in run.training_log
        ),
        student={HOSTILE: HOSTILE},
        teachers={HOSTILE: HOSTILE},
        inputs={HOSTILE: HOSTILE},
        recipe=HOSTILE,
        settings={HOSTILE: HOSTILE, "command": HOSTILE, "date": HOSTILE},
    )
