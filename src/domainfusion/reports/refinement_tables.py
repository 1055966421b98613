"""The tables of a refinement: its rounds, what validation said before and after each, and where the
student was weak.
"""

from __future__ import annotations

from domainfusion.distillation.results import Refinement
from domainfusion.reports.figures import capitalised, points
from domainfusion.reports.tables import Cell, Table

_FATES = {True: "kept", False: "undone", None: "not over"}


def refinement_tables(refinement: Refinement) -> list[Table]:
    """Returns the tables of a refinement that has rounds; none of one that has not."""
    return (
        [rounds_table(refinement), scores_table(refinement), shortfalls_table(refinement)]
        if refinement.rounds
        else []
    )


def refinement_sentence(refinement: Refinement) -> str:
    """Returns why there is no further round."""
    return (
        f"{capitalised(refinement.stopped)}."
        if refinement.stopped
        else "The refinement is not over."
    )


def rounds_table(refinement: Refinement) -> Table:
    """Returns what each round made and whether it was kept."""
    return Table(
        caption=(
            "Rounds of refinement: examples made where validation was weakest, how many of them"
            " have a target to learn, and earlier records that were seen again"
        ),
        header=("Round", "New examples", "Learnt", "Seen again", "Student"),
        align="rrrrl",
        rows=tuple(
            tuple(
                map(
                    Cell,
                    (
                        f"{entry.number}",
                        f"{entry.examples:,}",
                        f"{entry.records:,}",
                        f"{entry.replayed:,}",
                        _FATES[entry.is_kept],
                    ),
                )
            )
            for entry in refinement.rounds
        ),
    )


def scores_table(refinement: Refinement) -> Table:
    """Returns the student's accuracy on validation by slice, before and after each round."""
    slices = list(
        dict.fromkeys(
            name for entry in refinement.rounds for name in (*entry.before, *(entry.after or {}))
        )
    )
    return Table(
        caption=(
            "Accuracy on validation by slice, in per cent, before → after each round; a round is"
            " kept where the mean of the slices that were graded both times rises"
        ),
        header=("Round", *slices, "Mean"),
        align="r" * (len(slices) + 2),
        rows=tuple(
            (
                Cell(f"{entry.number}"),
                *(
                    _change(
                        entry.before.get(name),
                        None if entry.after is None else entry.after.get(name),
                    )
                    for name in slices
                ),
                _change(
                    *(
                        entry.means
                        or (
                            (
                                sum(entry.before.values()) / len(entry.before)
                                if entry.before
                                else None
                            ),
                            None,
                        )
                    )
                ),
            )
            for entry in refinement.rounds
        ),
    )


def _change(before: float | None, after: float | None) -> Cell:
    known = ("–" if value is None else points(value) for value in (before, after))
    return Cell(" → ".join(known))


def shortfalls_table(refinement: Refinement) -> Table:
    """Returns where the student was weak before each round."""
    found = [(entry, shortfall) for entry in refinement.rounds for shortfall in entry.shortfalls]
    return Table(
        caption=(
            "Where the student was weak before each round: of a domain, the share of its expert's"
            " accuracy that is missing; across domains, the accuracy that is missing"
        ),
        header=("Round", "Domains", "Validation examples", "Student", "Expert", "Missing"),
        align="rlrrrr",
        rows=tuple(
            (
                Cell(f"{entry.number}"),
                Cell(" + ".join(shortfall.domains)),
                Cell(f"{shortfall.items:,}"),
                Cell(f"{points(shortfall.student)} %"),
                Cell("–" if shortfall.expert is None else f"{points(shortfall.expert)} %"),
                Cell(f"{points(shortfall.missing)} %"),
            )
            for entry, shortfall in found
        ),
        bars=tuple(shortfall.missing for _, shortfall in found),
    )
