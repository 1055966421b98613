"""The merge that a student starts from: by which method and weight, chosen by what the candidates
make of targets that none of them has read.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar, get_args

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file

from domainfusion.checks import check_kind, check_word, is_number
from domainfusion.distillation.examples import CROSS_DOMAIN
from domainfusion.errors import ConfigurationError
from domainfusion.merging import Candidate, Dialogues, MergeChoice, MergeMethod, Merger
from domainfusion.models.base import Adaptation, LanguageModel
from domainfusion.models.huggingface import HuggingFaceModel
from domainfusion.models.summing import LoraFactors
from domainfusion.progress import Progress, silent
from domainfusion.records import read_json, write_json
from domainfusion.training.checkpoints import is_damaged, save_state
from domainfusion.training.distributed import is_main_process
from domainfusion.types import Conversation, Message, TrainingRecord

logger = logging.getLogger("domainfusion")

MERGE = "merge.safetensors"
"""What `regmean` made of LoRA experts, in the training's directory."""

SECONDS = "seconds"
"""The seconds that it took, among the tensors of the file."""

Item = TypeVar("Item")


class Choices:
    """The choices of one training, in a file of its directory: a resumed training measures what is
    missing, and nothing twice.

    Args:
        path: The file; it need not be there.
        log: Receives each choice when it is made.
    """

    def __init__(
        self, path: Path, log: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> None:
        self._path = path
        self.log = log
        self._entries = _read_choices(path) if path.is_file() else {}

    def made(self, name: str) -> Any:
        """Returns the choice; None where none was made."""
        return self._entries.get(name, {}).get("value")

    def measured(self, name: str) -> dict[str, Any]:
        """Returns the figure of each option that was measured so far."""
        return dict(self._entries.get(name, {}).get("measured", {}))

    def keep(self, name: str, option: str, measured: Any) -> None:
        """Keeps what was measured of an option, as JSON data."""
        self._entries.setdefault(name, {"measured": {}})["measured"][option] = measured
        write_json(self._path, self._entries, listed=True)

    def settle(self, name: str, value: Any) -> None:
        """Keeps a choice, as JSON data."""
        self._entries.setdefault(name, {"measured": {}})["value"] = value
        write_json(self._path, self._entries, listed=True)

    def make(
        self,
        name: str,
        options: Iterable[str],
        measure: Callable[[str], Any],
        decide: Callable[[Mapping[str, Any]], Any],
    ) -> Any:
        """Returns the choice that was made, or makes it.

        Args:
            name: The setting that is chosen.
            options: What there is to measure.
            measure: Returns what speaks for an option, as JSON data.
            decide: Returns the choice, as JSON data, from what was measured for each option.
        """
        entry = self._entries.setdefault(name, {"measured": {}})
        if "value" not in entry:
            for option in options:
                if option not in entry["measured"]:
                    self.keep(name, option, measure(option))
            self.settle(name, decide(entry["measured"]))
            self.log({"chosen": name, **entry})
            logger.info("%s: chose %s, from %s", name, entry["value"], entry["measured"])
        return entry["value"]


class _Merges(BaseModel):
    """The merges that were chosen: that which training starts from, and that which is compared."""

    start: Candidate
    product: Candidate


class _ChoiceOfMerge(BaseModel):
    measured: dict[str, Candidate] = {}
    value: _Merges | None = None


class _ChoiceOfOrder(BaseModel):
    measured: dict[str, float] = {}
    value: list[str] | None = None


class _Choice(BaseModel):
    measured: dict[str, Any] = {}
    value: Any = None


class _Choices(BaseModel):
    """What a file of choices holds; a custom trainer may have made others than these two."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Choice]
    merge: _ChoiceOfMerge = _ChoiceOfMerge()
    order: _ChoiceOfOrder = _ChoiceOfOrder()


def _read_choices(path: Path) -> dict[str, dict[str, Any]]:
    read_json(path, _Choices)  # which refuses what is not one
    return read_json(path, dict)


CHOICE = "merge"

READ_FOR_MERGE = 64
"""Answers of each expert that it reads for a RegMean merge."""

COMPARED = 16
"""Targets of each domain, and across domains, by which merges are compared."""


@dataclass(frozen=True)
class MergeSettings:
    """How the experts are merged for a student that starts from their merge.

    Attributes:
        method: How the experts are merged for that start: `sum`, `tsv` (their directions made
            orthogonal first; needs no data), or `regmean` (nearest to each expert on its own
            questions and answers, which experts and merge read once more); see
            `domainfusion.merging`. `auto` starts from the merge of lowest loss on some of the
            targets, which no expert read for it.
        weight: Weight λ of the experts in that merge; several weights, or `auto` (0.4, 0.7 … 1.6),
            choose the one of lowest loss too.
        keep: Keeps the merge of LoRA experts as it is, and trains an adapter of `lora_rank` that is
            added to it: what the merge knows and no record asks about is forgotten less.

    Raises:
        ConfigurationError: The method is not known, or the weight is not a number.
    """

    method: MergeMethod | Literal["auto"] = "auto"
    weight: float | Sequence[float] | Literal["auto"] = "auto"
    keep: bool = False

    def __post_init__(self) -> None:
        check_word("merge_method", self.method, ("auto", *get_args(MergeMethod)))
        check_kind("keep_merge", self.keep, bool)
        if self.weight == "auto":
            return
        given = self.weight if isinstance(self.weight, list | tuple) else [self.weight]
        if not given or not all(map(_is_finite, given)):
            raise ConfigurationError(
                "merge_weight is not a number",
                received=self.weight,
                allowed="a number, a list of numbers, or auto",
            )
        weights = tuple(map(float, given))
        object.__setattr__(self, "weight", weights[0] if len(weights) == 1 else weights)

    @property
    def weights(self) -> tuple[float, ...] | None:
        """The weights to choose from, or the one; None leaves them to the search."""
        if isinstance(self.weight, float):
            return (self.weight,)
        return self.weight if isinstance(self.weight, tuple) else None

    @property
    def usual_weight(self) -> float:
        """The weight where one is given; 1 where it is still to be chosen."""
        return self.weight if isinstance(self.weight, float) else 1.0

    @property
    def is_open(self) -> bool:
        """Whether there is something to choose."""
        return self.method == "auto" or not isinstance(self.weight, float)


def _is_finite(given: object) -> TypeGuard[float]:
    return is_number(given) and math.isfinite(given)


class Material(NamedTuple):
    """The dialogues that a merge is made and chosen by.

    Attributes:
        read: What each expert answered, by domain.
        compared: Targets that no expert reads for the merge, by slice.
    """

    read: dict[str, list[Conversation]]
    compared: dict[str, list[Conversation]]


def material_of(
    domains: Iterable[str], records: Sequence[TrainingRecord], settings: MergeSettings
) -> Material:
    """Returns the dialogues that experts read for a merge, and others to compare merges by.

    Args:
        domains: The experts' domains.
        records: All that is trained on. Few records serve for both.
        settings: Where they leave nothing to choose, nothing is held apart to compare by.
    """
    usable = [record for record in records if record.is_usable and settings.is_open]
    by_slice: dict[str, list[TrainingRecord]] = {}
    for record in usable:
        name = CROSS_DOMAIN if record.example.is_cross_domain else record.example.primary_domain
        by_slice.setdefault(name, []).append(record)
    # A quarter at most is held apart: of few records, the experts need the most.
    held = {
        name: _spread(own, min(COMPARED, max(1, len(own) // 4))) for name, own in by_slice.items()
    }
    apart = {id(record) for own in held.values() for record in own}
    read = {}
    for domain in domains:
        answered = []
        for record in records:
            question = record.example.conversation_for(domain)
            answered += [
                (id(record), (*question, Message("assistant", said.text)))
                for said in record.responses
                if said.domain == domain and said.text.strip() and said.finish_reason == "stop"
            ]
        others = [dialogue for key, dialogue in answered if key not in apart]
        read[domain] = _spread(others or [dialogue for _, dialogue in answered], READ_FOR_MERGE)
    compared = {
        name: [
            (*record.example.conversation, Message("assistant", record.target)) for record in own
        ]
        for name, own in held.items()
    }
    return Material(read, compared)


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """Returns so many items, evenly spread."""
    return list(items[:: max(1, len(items) // count)][:count])


@contextmanager
def merging(
    start: Adaptation,
    student: HuggingFaceModel,
    teachers: Mapping[str, LanguageModel],
    read: Dialogues,
    progress: Progress = silent,
    directory: Path | None = None,
) -> Iterator[Merger]:
    """Gives what merges the experts of a student.

    Args:
        start: What of the student is trained.
        student: Where training starts.
        teachers: The experts; those that are not local are left out.
        read: What `regmean` reads of each expert.
        progress: Shows what is read and tried.
        directory: The training's, which keeps what `regmean` made of LoRA experts, so that a
            resumed training and the evaluation do not make it again.
    """
    experts = {
        domain: teacher
        for domain, teacher in teachers.items()
        if isinstance(teacher, HuggingFaceModel)
    }
    with Merger(
        student, experts, conversations=read, adaptation=start, progress=progress
    ) as merger:
        file = directory / MERGE if directory is not None and directory.is_dir() else None
        is_kept = file is not None and file.is_file() and not is_damaged(file)
        if file is not None and is_kept:
            merger.solved_adapters["regmean"], merger.seconds_before = _read_factors(file)
        began = time.perf_counter()
        yield merger
        solved = merger.solved_adapters.get("regmean")
        if file is not None and solved and not is_kept and is_main_process():
            _write_factors(file, solved, time.perf_counter() - began)


def _write_factors(file: Path, factors: Mapping[str, LoraFactors], seconds: float) -> None:
    tensors = {f"{layer}.a": own.a for layer, own in factors.items()}
    tensors |= {f"{layer}.b": own.b for layer, own in factors.items()}
    state = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    save_state(state | {SECONDS: torch.tensor(seconds)}, file)


def _read_factors(file: Path) -> tuple[dict[str, LoraFactors], float]:
    tensors = load_file(file)
    seconds = float(tensors.pop(SECONDS))
    layers = [name.removesuffix(".a") for name in tensors if name.endswith(".a")]
    factors = {layer: LoraFactors(tensors[f"{layer}.a"], tensors[f"{layer}.b"]) for layer in layers}
    return factors, seconds


def choose_merge(
    merger: Merger, settings: MergeSettings, compared: Dialogues, choices: Choices | None = None
) -> MergeChoice:
    """Returns the merges that do best on targets, or that were chosen before.

    Args:
        merger: Makes the merges.
        settings: What there is to choose.
        compared: The targets.
        choices: Keeps what was measured, and the choice.
    """
    if choices is not None and (made := made_choice(choices)) is not None:
        return made

    def keep(candidate: Candidate) -> None:
        if choices is not None:
            choices.keep(CHOICE, candidate.name, _as_json(candidate))

    known = {} if choices is None else choices.measured(CHOICE)
    choice = merger.choose(
        compared,
        methods=None if settings.method == "auto" else [settings.method],
        weights=settings.weights,
        known={name: Candidate(**one) for name, one in known.items()},
        on_measured=keep,
    )
    if choices is not None:
        keep_choice(choices, choice)
        if choice.candidates:
            _tell(choice, choices)
    return choice


def keep_choice(choices: Choices, choice: MergeChoice) -> None:
    """Keeps which merges were chosen; `made_choice` returns them."""
    choices.settle(CHOICE, {"start": _as_json(choice.start), "product": _as_json(choice.product)})


def made_choice(choices: Choices) -> MergeChoice | None:
    """Returns the merges that were chosen; None where none were."""
    made = choices.made(CHOICE)
    if made is None:
        return None
    measured = [Candidate(**one) for one in choices.measured(CHOICE).values()]
    return MergeChoice(
        start=Candidate(**made["start"]),
        product=Candidate(**made["product"]),
        candidates=tuple(measured),
    )


def _tell(choice: MergeChoice, choices: Choices) -> None:
    """Logs both choices, each with what speaks for it."""
    for name, chosen, measured in (
        (
            "merge to train from",
            choice.start,
            {one.name: dict(one.loss) for one in choice.candidates},
        ),
        (
            "merge as a model",
            choice.product,
            {one.name: dict(one.right) for one in choice.candidates},
        ),
    ):
        choices.log({"chosen": name, "measured": measured, "value": chosen.name})
        logger.info("%s: %s, of %d candidates", name, chosen.name, len(measured))


def _as_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "method": candidate.method,
        "weight": candidate.weight,
        "right": dict(candidate.right),
        "loss": dict(candidate.loss),
        "seconds": candidate.seconds,
    }
