"""The tables of a training: its losses, phases, choices and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domainfusion.reports.curves import TrainingCurves
from domainfusion.reports.tables import Cell, Table, capitalised, flattened, listed, pairs_table

Log = Sequence[Mapping[str, Any]]
"""The lines of a training log."""


def all_tables(curves: TrainingCurves, log: Log) -> list[Table]:
    """Returns every table of a training that has something to tell, but for its notes."""
    found = (
        training_table(curves),
        domain_losses_table(curves),
        phases_table(log),
        choices_table(log),
        known_table(log),
    )
    return [table for table in found if table]


def training_table(curves: TrainingCurves) -> Table:
    """Returns the steps and the first, lowest and last loss of each phase."""
    rows = []
    for name, start, end in curves.stretches():
        losses = [loss for _, loss in curves.losses.get(name, ())]
        figures = (
            (f"{losses[0]:.4g}", f"{min(losses):.4g}", f"{losses[-1]:.4g}")
            if losses
            else ("–",) * 3
        )
        rows.append((Cell(name), Cell(f"{end - start:,}"), *map(Cell, figures)))
    return Table(
        caption="Training loss by phase",
        header=("Phase", "Steps", "First loss", "Lowest", "Last"),
        align="lrrrr",
        rows=tuple(rows),
    )


def domain_losses_table(curves: TrainingCurves) -> Table | None:
    """Returns where the loss terms of each domain began and ended; None where none was logged."""
    names = list(
        dict.fromkeys(domain for by_domain in curves.terms.values() for domain in by_domain)
    )
    if not names:
        return None
    titles = [f"{_words(term)}, {when}" for term in curves.terms for when in ("first", "last")]
    rows = []
    for name in names:
        found = [by_domain.get(name, ()) for by_domain in curves.terms.values()]
        cells = [
            Cell(f"{means[place][1]:.4g}" if means else "–") for means in found for place in (0, -1)
        ]
        rows.append((Cell(name), *cells))
    steps = f", as means over {curves.window} steps" if curves.window > 1 else ""
    return Table(
        caption=f"Training loss by domain, per answer token{steps}",
        header=("Domain", *titles),
        align="l" + "r" * len(titles),
        rows=tuple(rows),
    )


def phases_table(log: Log) -> Table | None:
    """Returns what each domain scored at the end of each phase, and how far the student then was
    from its base there; None without ends.
    """
    ends = {str(line.get("phase", "")): line for line in log if line.get("finished") is True}
    found = {
        name: (_numbers(line.get("validation")), _numbers(line.get("divergence_from_base")))
        for name, line in ends.items()
    }
    domains = list(
        dict.fromkeys(
            domain for figures in found.values() for by_domain in figures for domain in by_domain
        )
    )
    if not domains:
        return None
    words = (
        "the held-out score of each domain",
        "how far the student is from its base there, KL in nats a token",
    )
    told = [
        said
        for place, said in enumerate(words)
        if any(figures[place] for figures in found.values())
    ]
    return Table(
        caption=f"At the end of each phase: {listed(told)}",
        header=("Domain", *found),
        align="l" + "r" * len(found),
        rows=tuple(
            (Cell(domain), *(_end(domain, *figures) for figures in found.values()))
            for domain in domains
        ),
    )


def _end(domain: str, scores: Mapping[str, float], divergences: Mapping[str, float]) -> Cell:
    score = f"{scores[domain]:.3f}" if domain in scores else "–"
    return Cell(score, f"KL {divergences[domain]:.3g}" if domain in divergences else "")


def _numbers(by_name: object) -> dict[str, float]:
    found = by_name.items() if isinstance(by_name, Mapping) else ()
    return {str(name): value for name, value in found if isinstance(value, int | float)}


def choices_table(log: Log) -> Table | None:
    """Returns what the training chose before its first step, and what spoke for it; None where it
    chose nothing.
    """
    chosen = {str(line["chosen"]): line for line in log if "chosen" in line}
    if not chosen:
        return None
    return Table(
        caption="What the training chose by measuring",
        header=("Setting", "Chosen", "Measured"),
        align="lll",
        rows=tuple(
            (
                Cell(_words(name)),
                Cell(_plainly(line.get("value"))),
                Cell(_evidence(line.get("measured"))),
            )
            for name, line in chosen.items()
        ),
    )


def known_table(log: Log) -> Table | None:
    """Returns how many records of each slice the student knew at its start, and how many of these
    were skipped; None where it was not asked.
    """
    found = next((line["known"] for line in log if "known" in line), None)
    counts = found if isinstance(found, Mapping) else {}
    rows = [
        (str(kind), own.get("records"), own.get("known"), own.get("skipped"))
        for kind, own in counts.items()
        if isinstance(own, Mapping)
    ]
    if not rows:
        return None
    return Table(
        caption="What the student knew before training: records whose target it would have written",
        header=("Records", "All", "Known", "Skipped"),
        align="lrrr",
        rows=tuple(tuple(Cell(str(cell)) for cell in row) for row in rows),
    )


def _plainly(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _evidence(measured: object) -> str:
    """Writes what was measured of each option; of several scores their mean, by which it is
    chosen.
    """
    options = measured.items() if isinstance(measured, Mapping) else ()
    return ", ".join(f"{name}: {found}" for name, value in options if (found := _mean(value)))


def _mean(value: object) -> str:
    values = (
        list(_numbers(value).values())
        if isinstance(value, Mapping)
        else [value]
        if isinstance(value, int | float)
        else []
    )
    return f"{sum(values) / len(values):.3f}".replace("-", "−") if values else ""


def training_notes_table(log: Log) -> Table | None:
    """Returns what else the training noted beside its steps, such as how many records each teacher taught;
    None where it noted nothing.
    """
    rows: dict[str, str] = {}
    for line in log:
        if not {"step", "finished", "chosen", "known"} & line.keys():
            phase = f"{line['phase']} · " if line.get("phase") else ""
            rows |= dict(
                flattened({key: value for key, value in line.items() if key != "phase"}, phase)
            )
    return (
        pairs_table(
            "What the training noted",
            [(name.replace("_", " "), text) for name, text in rows.items()],
        )
        if rows
        else None
    )


def _words(term: str) -> str:
    return capitalised(term.replace("_", " "))
