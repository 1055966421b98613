"""The tables of a run: its data, its training and refinement, time and memory, and what is needed
to repeat it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from domainfusion.distillation.outcomes import saved
from domainfusion.distillation.results import GenerationCount, Refinement, Savings
from domainfusion.distillation.run import StageTime
from domainfusion.distillation.targets import SampledTarget
from domainfusion.models.costs import ModelUsage, total_cost
from domainfusion.reports.charts import TrainingCurves
from domainfusion.reports.summary import RunSummary, Shipped
from domainfusion.reports.tables import (
    Cell,
    Table,
    capitalised,
    command_line,
    descending,
    flattened,
    money,
    pairs_table,
    percent,
    points,
    size,
)
from domainfusion.types import TrainingRecord, Verification
from domainfusion.wording import counted, duration, listed

Number = TypeVar("Number", int, float)


def generation_table(counts: Sequence[GenerationCount]) -> Table:
    """Returns the outcome of the examples asked for, a row a generator."""
    return Table(
        caption=(
            "Examples by generator; kept is the share of its candidates that entered the run,"
            " judged right that of the judged questions that agree with the domains that they were"
            " written for"
        )
        + "".join(_shares_missed(counts)),
        header=(
            "Generator",
            "Kind",
            "Wanted",
            "Asked for",
            "Accepted",
            "Cross-domain",
            "Rejected",
            "Kept",
            "Judged right",
        ),
        align="llrrrrrrr",
        rows=tuple(
            (
                Cell(count.generator),
                Cell(count.kind),
                Cell("–" if count.wanted is None else f"{count.wanted:,}"),
                Cell(f"{count.asked:,}"),
                Cell(f"{count.accepted:,}"),
                Cell(_crossing(count)),
                Cell(f"{sum(count.rejected.values()):,}"),
                Cell(_kept(count)),
                Cell("–" if count.acceptance_rate is None else percent(count.acceptance_rate)),
            )
            for count in counts
        ),
    )


def _crossing(count: GenerationCount) -> str:
    accepted, wanted = count.cross_domain.get("accepted"), count.cross_domain.get("wanted")
    if accepted is None:
        return "–"
    return f"{accepted:,}" if wanted is None else f"{accepted:,} of {wanted:,}"


def _shares_missed(counts: Sequence[GenerationCount]) -> Iterator[str]:
    """Reports where the share of cross-domain examples differs from the one asked for."""
    for count in counts:
        accepted, wanted = count.cross_domain.get("accepted"), count.cross_domain.get("wanted")
        if accepted is None or wanted is None or not count.wanted or not count.accepted:
            continue
        # A share can't be met more closely than by half an example.
        if abs(accepted - wanted * count.accepted / count.wanted) > 0.5:
            found, asked = percent(accepted / count.accepted), percent(wanted / count.wanted)
            yield (
                f"; of {count.generator}, {found} need several domains where {asked} were asked for"
            )


def _kept(count: GenerationCount) -> str:
    candidates = count.accepted + sum(count.rejected.values())
    return percent(count.accepted / candidates) if candidates else "–"


def rejects_table(counts: Sequence[GenerationCount]) -> Table | None:
    """Returns the candidates left out, by generator and reason; None where all were accepted."""
    found: list[tuple[str, str, int]] = []
    for count in counts:
        reasons = [(reason, number) for reason, number in descending(count.rejected) if number]
        found += [(count.generator, reason, number) for reason, number in reasons]
    if not found:
        return None
    most = max(number for _, _, number in found)
    return Table(
        caption="Candidates left out, by reason",
        header=("Generator", "Reason", "Candidates"),
        align="llr",
        rows=tuple(
            (Cell(generator), Cell(reason), Cell(f"{number:,}"))
            for generator, reason, number in found
        ),
        bars=tuple(number / most for _, _, number in found),
    )


def records_table(
    records: Sequence[TrainingRecord], sampled: Sequence[SampledTarget] = ()
) -> Table:
    """Returns the training records by domains and verification, and what asking again saved."""
    kinds: tuple[Verification, ...] = ("verified", "unverified", "rejected")
    counts = Counter((_domains_of(record), record.verification) for record in records)
    names = list(dict.fromkeys(domains for domains, _ in counts))
    rows = [
        (name, [counts[name, kind] for kind in kinds])
        for name in sorted(names, key=lambda name: name.count(" + "))
    ]
    if len(rows) > 1:
        rows.append(
            ("all", [sum(numbers[column] for _, numbers in rows) for column in range(len(kinds))])
        )
    return Table(
        caption=(
            "Training records: verified against a reference, without a reference, or rejected and"
            f" never trained on{f'; {saved(sampled)}' if sampled else ''}"
        ),
        header=("Domains", *(capitalised(kind) for kind in kinds), "Together"),
        align="lrrrr",
        rows=tuple(
            (Cell(name), *(Cell(f"{number:,}") for number in (*numbers, sum(numbers))))
            for name, numbers in rows
        ),
    )


def sources_table(records: Sequence[TrainingRecord]) -> Table | None:
    """Returns the training records by domains and kind of generator; None where all are of one
    kind.
    """
    counts = Counter((_domains_of(record), record.example.source) for record in records)
    kinds, names = (
        sorted({source for _, source in counts}),
        list(dict.fromkeys(_domains_of(record) for record in records)),
    )
    if len(kinds) < 2:
        return None
    names.sort(key=lambda name: name.count(" + "))
    return Table(
        caption="Where the questions of the training records came from",
        header=("Domains", *map(capitalised, kinds)),
        align="l" + "r" * len(kinds),
        rows=tuple(
            (Cell(name), *(Cell(f"{counts[name, kind]:,}") for kind in kinds)) for name in names
        ),
    )


def _domains_of(record: TrainingRecord) -> str:
    return " + ".join(record.example.domains)


def ledger_table(counts: Mapping[str, int]) -> Table:
    """Returns what the ledgers of the integrated answers hold, as `answers.ledger_counts` counts
    it.
    """
    rows = tuple((Cell(capitalised(name)), Cell(f"{number:,}")) for name, number in counts.items())
    return Table(
        caption="What the ledgers of the integrated answers hold",
        header=("Entry", "Number"),
        align="lr",
        rows=rows,
    )


def stages_table(stages: Sequence[StageTime], peak_memory_bytes: int | None) -> Table:
    """Returns time and memory, a row a stage, and their total."""
    total = sum(stage.seconds for stage in stages)
    measured = peak_memory_bytes is not None or any(
        stage.peak_memory_bytes is not None for stage in stages
    )
    rows = [(stage.stage, stage.seconds, stage.peak_memory_bytes) for stage in stages]
    if len(stages) > 1:
        rows.append(("all", total, peak_memory_bytes))
    longest = max((stage.seconds for stage in stages), default=0.0)
    return Table(
        caption="Time by stage"
        + (", and the most memory that was resident up to its end" if measured else ""),
        header=("Stage", "Time", *(["Peak memory"] if measured else [])),
        align="lrr" if measured else "lr",
        rows=tuple(
            (
                Cell(name),
                Cell(duration(seconds)),
                *([Cell("–" if memory is None else size(memory))] if measured else []),
            )
            for name, seconds, memory in rows
        ),
        bars=(
            tuple(stage.seconds / longest for stage in stages) + (0.0,) * (len(rows) - len(stages))
            if longest
            else ()
        ),
    )


def usage_table(usage: Sequence[ModelUsage]) -> Table:
    """Returns the questions to each model and their cost, a row a model, and the sum where there
    are several.
    """
    priced = any(model.cost is not None for model in usage)
    rows = [
        (Cell(model.name), Cell(", ".join(model.roles)), *_usage_cells([model], priced))
        for model in usage
    ]
    if len(usage) > 1:
        rows.append((Cell("all"), Cell(""), *_usage_cells(usage, priced)))
    return Table(
        caption="What the models were asked, over all sessions of the run"
        + ("; cost where prices are known" if priced else ""),
        header=(
            "Model",
            "Asked as",
            "Answers",
            "Tokens read",
            "Tokens written",
            "Time",
            *(["Cost"] if priced else []),
        ),
        align="llrrrr" + ("r" if priced else ""),
        rows=tuple(rows),
    )


def _usage_cells(usage: Sequence[ModelUsage], priced: bool) -> list[Cell]:
    counts = [
        sum(getattr(model, name) for model in usage)
        for name in ("calls", "prompt_tokens", "completion_tokens")
    ]
    cells = [
        *(Cell(f"{count:,}") for count in counts),
        Cell(duration(sum(model.seconds for model in usage))),
    ]
    if priced:
        cost, unknown = total_cost(usage), sum(model.unknown_cost for model in usage)
        cells.append(
            Cell(
                "–" if cost is None else money(cost),
                f"and at most {money(unknown)} more" if unknown else "",
            )
        )
    return cells


def savings_table(savings: Savings, experts: int, shipped: Shipped | None = None) -> Table:
    """Returns the student beside its experts, with and without the integrator.

    Args:
        savings: What was measured.
        experts: How many experts there are.
        shipped: The weights of the saved student, which are those that are served; None takes those
            it was trained with.
    """
    student = savings.student
    weights = shipped or student
    columns = [("Student, merged" if shipped else "Student", student, weights)]
    if savings.adapters is not None:
        columns.append(("Base and experts", savings.adapters, savings.adapters))
    last = "Ensemble with integrator" if savings.integrated else "Base and experts"
    columns.append((last, savings.experts, savings.experts))
    rows = [
        ("Parameters", [f"{size_of.parameters:,}" for _, _, size_of in columns]),
        ("Memory of the weights", [size(size_of.weight_bytes) for _, _, size_of in columns]),
        ("Questions asked", [f"{found.calls:,}" for _, found, _ in columns]),
        ("Tokens written", [f"{found.completion_tokens:,}" for _, found, _ in columns]),
        ("Time", [duration(found.seconds) for _, found, _ in columns]),
        ("Tokens per second", [f"{found.tokens_per_second:,.0f}" for _, found, _ in columns]),
    ]
    ratios = [
        (weights.parameters, savings.experts.parameters),
        (weights.weight_bytes, savings.experts.weight_bytes),
        (student.calls, savings.experts.calls),
        (student.completion_tokens, savings.experts.completion_tokens),
        (student.seconds, savings.experts.seconds),
        (student.tokens_per_second, savings.experts.tokens_per_second),
    ]
    return Table(
        caption=(
            f"One student in place of {counted(experts, 'expert')}:"
            f" {counted(savings.questions, 'test question')}; each is answered once by the student,"
            " and by the experts of its domains one after the other. Weights that several experts"
            " share count once. Measured once, on the machine of this run"
        ),
        header=("", *(name for name, _, _ in columns), f"Student ÷ {last.lower()}"),
        align="l" + "r" * (len(columns) + 1),
        rows=tuple(
            (Cell(name), *map(Cell, cells), Cell(_ratio(one, other)))
            for (name, cells), (one, other) in zip(rows, ratios, strict=True)
        ),
    )


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "–"


def participants_table(summary: RunSummary) -> Table | None:
    """Returns the student and its teachers, with the fingerprints of their weights; None where
    neither is known.
    """
    known = {key: value for key, value in summary.student.items() if value is not None}
    rows = [
        (f"Student: {key.replace('_', ' ')}", _parameters(key, text))
        for key, text in flattened(known)
    ]
    rows += (
        [("Base: fingerprint", found)]
        if (found := _fingerprint(summary.inputs.get("student")))
        else []
    )
    experts = summary.inputs.get("teachers")
    for domain, name in summary.teachers.items():
        found = _fingerprint(experts.get(domain)) if isinstance(experts, Mapping) else ""
        rows.append((f"Expert: {domain}", f"{name}, fingerprint {found}" if found else name))
    return pairs_table("Student and experts", rows) if rows else None


def _fingerprint(model: object) -> str:
    return str(model.get("fingerprint", "")) if isinstance(model, Mapping) else ""


def _parameters(key: str, text: str) -> str:
    return f"{int(text):,}" if key == "parameters" and text.isdigit() else text


def settings_table(summary: RunSummary) -> Table | None:
    """Returns the settings of the run but for its command; None where none is known."""
    rows = flattened(
        {
            key: value
            for key, value in summary.settings.items()
            if key != "command" or not command_line(summary.settings)
        }
    )
    return pairs_table("Settings of the run", rows) if rows else None


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
    """Returns the outcome of each round, and whether it was kept."""
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


Log = Sequence[Mapping[str, Any]]
"""The lines of a training log."""


def training_tables(curves: TrainingCurves, log: Log) -> list[Table]:
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
