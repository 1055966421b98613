"""`domainfusion merge`: several experts as one model, without training."""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from domainfusion.wording import counted

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.merging import Dialogues, MergeChoice
    from domainfusion.models import HuggingFaceModel
    from domainfusion.types import Conversation, Example

QUESTIONS = 80
"""Questions of each domain that are read; a quarter of them are held apart to choose by."""

_DESCRIPTION = """Merge experts on one base, LoRA adapters or whole fine-tunes, into one model, without training. With some questions of
each domain, each expert reads them with its own answers, and method and weight are chosen by how many answers each merge would give too.
BASE may be a run: its experts are merged, by what they answered there."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "merge",
        parents=[shared],
        help="merge experts into one model without training",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "base", metavar="BASE", help="the experts' base: a folder or a hub id; or a run"
    )
    parser.add_argument(
        "--expert",
        action="append",
        default=[],
        type=_named,
        metavar="DOMAIN=PATH",
        help="an adapter on the base, or a whole fine-tune of it; once for each domain",
    )
    parser.add_argument(
        "--prompts",
        action="append",
        default=[],
        type=_perhaps_named,
        metavar="[DOMAIN=]FILE",
        help="questions that the experts read, with `domain` or of one domain; an expert answers"
        " those that have no `reference`",
    )
    parser.add_argument(
        "--validation",
        action="append",
        default=[],
        type=_perhaps_named,
        metavar="[DOMAIN=]FILE",
        help="questions to choose by (default: a quarter of --prompts)",
    )
    parser.add_argument(
        "--method",
        choices=("auto", "sum", "tsv", "regmean"),
        default="auto",
        help="how they are merged; sum and tsv need no prompts (default: %(default)s)",
    )
    parser.add_argument(
        "--scale",
        type=_scale,
        default="auto",
        metavar="NUMBER",
        help="what the merged change is multiplied by, often 0.4 to 1.6 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=256,
        metavar="N",
        help="tokens of an expert's answer (default: %(default)s)",
    )
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="write a PEFT adapter in place of a whole model; every expert has to be one",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the folder to write; a new one"
    )
    parser.set_defaults(run=run, misused=parser.error)


class _Named(NamedTuple):
    domain: str
    path: str


def _named(text: str) -> _Named:
    domain, separator, path = text.partition("=")
    if not (separator and domain.strip() and path.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not DOMAIN=PATH, as in law=experts/law")
    return _Named(domain.strip(), path.strip())


def _perhaps_named(text: str) -> _Named:
    # A path that is there is meant as it is, whatever characters it has.
    return _Named("", text) if "=" not in text or os.path.exists(text) else _named(text)


def _scale(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto")
    return found


class _Given(NamedTuple):
    """What is merged, and by what."""

    base: HuggingFaceModel
    experts: dict[str, HuggingFaceModel]
    read: dict[str, list[Conversation]]
    compared: dict[str, list[Conversation]]


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Merges, writes the model and prints what was tried."""
    is_run = (Path(arguments.base) / "run.json").is_file()
    if is_run and arguments.expert:
        arguments.misused("argument --expert: not allowed with a run, which has its own")
    if not is_run and not arguments.expert:
        arguments.misused("the following arguments are required: --expert")
    if arguments.method == "regmean" and not (is_run or arguments.prompts):
        arguments.misused("argument --method: regmean reads questions; give --prompts FILE")
    domains = [one.domain for one in arguments.expert]
    if twice := next((name for name in domains if domains.count(name) > 1), None):
        arguments.misused(f"argument --expert: {twice} is given twice")
    _check_output(arguments.output)
    from domainfusion.files import unfinished
    from domainfusion.merging import Merger
    from domainfusion.merging.merger import held_apart

    given = (
        _from_run(Path(arguments.base), terminal) if is_run else _from_paths(arguments, terminal)
    )
    if arguments.adapter and any(one.is_whole for one in given.experts.values()):
        arguments.misused("argument --adapter: an expert is a whole fine-tune, and so is the merge")
    is_open = "auto" in (arguments.method, arguments.scale)
    read: Dialogues = given.read
    compared: Dialogues = given.compared
    if is_open and not compared:
        read, compared = held_apart(read)
    with Merger(
        given.base, given.experts, conversations=read, progress=terminal.progress
    ) as merger:
        choice = merger.choose(
            compared if is_open else {},
            methods=None if arguments.method == "auto" else [arguments.method],
            weights=None if arguments.scale == "auto" else [arguments.scale],
        )
        merged = merger.merge(choice.product.method, choice.product.weight)
        made_as = merged.merged_as
        fresh = unfinished(arguments.output)
        try:
            merged.save(fresh, merge=not arguments.adapter)
            _write_card(fresh, given, choice, made_as)
            fresh.replace(arguments.output)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    if choice.candidates:
        terminal.print(_table(choice))
    method, weight = made_as or (choice.product.method, choice.product.weight)
    terminal.print(f"Merged by {method}, λ = {weight:g}: {arguments.output}")


def _check_output(folder: Path) -> None:
    from domainfusion.errors import ConfigurationError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            "There is something in the folder that the merge would be written to",
            received=str(folder),
            fix="name a new folder",
        )


def _from_paths(arguments: argparse.Namespace, terminal: Terminal) -> _Given:
    from domainfusion.models import HuggingFaceModel

    base = HuggingFaceModel(arguments.base)
    experts = {
        one.domain: HuggingFaceModel(
            one.path, base_model=arguments.base if _is_adapter(one.path) else None
        )
        for one in arguments.expert
    }
    base = _speaking_like(base, experts)
    prompts = _questions(arguments.prompts, experts, arguments.max_new_tokens, terminal)
    compared = _questions(arguments.validation, experts, arguments.max_new_tokens, terminal)
    return _Given(base, experts, prompts, compared)


def _is_adapter(path: str) -> bool:
    folder = Path(path)
    return (folder / "adapter_config.json").is_file() or not folder.exists()


def _speaking_like(
    base: HuggingFaceModel, experts: dict[str, HuggingFaceModel]
) -> HuggingFaceModel:
    """Returns the base with the chat template that its experts learned, where it has none."""
    from domainfusion.models.loading import choose_speech

    speech: HuggingFaceModel = choose_speech(base, experts).student
    return speech


def _questions(
    files: Sequence[_Named],
    experts: dict[str, HuggingFaceModel],
    max_new_tokens: int,
    terminal: Terminal,
) -> dict[str, list[Conversation]]:
    """Returns the questions in files as dialogues: with the reference as the answer, or with that
    of the domain's expert.
    """
    from domainfusion.distillation.examples import read_examples
    from domainfusion.errors import DataError
    from domainfusion.types import Message, Sampling

    by_domain: dict[str, list[Example]] = {}
    for file in files:
        for example in read_examples(file.path, domain=file.domain):
            for domain in example.domains:
                if domain not in experts:
                    raise DataError(
                        f"A question is of the domain {domain!r}, which has no expert",
                        received=file.path,
                        allowed=", ".join(experts),
                        fix=f"add --expert {domain}=PATH, or leave the question out",
                    )
            if len(example.domains) == 1:
                by_domain.setdefault(example.domains[0], []).append(example)
    found: dict[str, list[Conversation]] = {}
    for domain, examples in by_domain.items():
        step = max(1, len(examples) // QUESTIONS)
        chosen = examples[::step][:QUESTIONS]
        unanswered = [one for one in chosen if not one.reference]
        said: dict[str, str] = {}
        if unanswered:
            sampling = Sampling(max_new_tokens=max_new_tokens)
            with terminal.progress(f"asking the expert of {domain}", len(unanswered)) as advance:
                answers = experts[domain].generate(
                    [one.conversation for one in unanswered], sampling, lambda *_: advance(1)
                )
            said = {one.id: answer.text for one, answer in zip(unanswered, answers, strict=True)}
        for one in chosen:
            text = one.reference or said[one.id]
            if text.strip():
                found.setdefault(domain, []).append((*one.conversation, Message("assistant", text)))
    return found


def _from_run(directory: Path, terminal: Terminal) -> _Given:
    """Returns the base and the experts of a run, and what they answered there."""
    from domainfusion.cli.runs import rebuild
    from domainfusion.distillation.trainer.merging import MergeSettings, material_of
    from domainfusion.errors import CapabilityError, RunError
    from domainfusion.models import HuggingFaceModel
    from domainfusion.records import read_records
    from domainfusion.types import TrainingRecord

    distiller = rebuild(directory, progress=terminal.progress)
    local = {
        domain: teacher
        for domain, teacher in distiller.teacher_models.items()
        if isinstance(teacher, HuggingFaceModel)
    }
    remote = sorted(set(distiller.teacher_models) - set(local))
    base = distiller.student_model
    if remote or not isinstance(base, HuggingFaceModel):
        raise CapabilityError(
            "Only models with weights on this machine can be merged", received=remote or base
        )
    records = directory / "records.jsonl"
    if not records.is_file():
        raise RunError(
            "This run has no answers of its experts yet",
            received=str(directory),
            fix="run it until `integrate` at least, or give the experts' paths",
        )
    material = material_of(local, read_records(records, TrainingRecord), MergeSettings())
    return _Given(base, local, material.read, material.compared)


def _table(choice: MergeChoice) -> Any:
    """Returns the candidates: the share of answers that each gets right, its loss and its time."""
    from rich.table import Table

    slices = list(choice.candidates[0].right)
    table = Table(title="Answers right in every token, in %", title_justify="left")
    table.add_column("merge")
    for name in (*slices, "mean", "loss", "seconds"):
        table.add_column(name, justify="right")
    for one in choice.candidates:
        mark = " ←" if one.name == choice.product.name else ""
        table.add_row(
            one.name + mark,
            *(f"{100 * one.right[name]:.0f}" for name in slices),
            f"{100 * one.score:.0f}",
            f"{one.mean_loss:.3f}",
            f"{one.seconds:.0f}",
        )
    return table


def _write_card(
    folder: Path, given: _Given, choice: MergeChoice, made_as: tuple[str, float] | None
) -> None:
    """Writes a model card, and what was tried as JSON."""
    from domainfusion.description import describe
    from domainfusion.records import write_json, write_text

    method, weight = made_as or (choice.product.method, choice.product.weight)
    write_json(
        folder / "merge.json",
        {
            "method": method,
            "weight": weight,
            "base": given.base.model_path,
            "experts": {domain: one.model_path for domain, one in given.experts.items()},
            "candidates": [describe(one) for one in choice.candidates],
        },
    )
    experts = "\n".join(f"- {domain}: `{one.model_path}`" for domain, one in given.experts.items())
    write_text(
        folder / "README.md",
        f"---\ntags:\n- merge\n---\n\n# Merge of {counted(len(given.experts), 'expert')}\n\n"
        f"Merged by domainfusion ({method}, λ = {weight:g}) on `{given.base.model_path}`, without"
        f" training, from:\n\n{experts}\n\nWhat was tried is in `merge.json`.\n",
    )
