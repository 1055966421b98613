"""The merges of several experts on one base, each made of what is read and solved once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import torch
from safetensors.torch import load_file, save_file

from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.merging.choosing import Candidate, MergeChoice, fit, search
from domainfusion.merging.methods import (
    Grams,
    MergeMethod,
    over_total,
    regmean,
    tsv,
    tsv_of_matrices,
)
from domainfusion.merging.reading import (
    GRAM_MEMORY,
    GramReader,
    groups_of,
    read_grams,
    released_after,
)
from domainfusion.models.base import Adaptation
from domainfusion.models.huggingface import HuggingFaceModel, OwnWeight
from domainfusion.models.summing import LoraFactors
from domainfusion.progress import Progress, silent
from domainfusion.types import Conversation

logger = logging.getLogger("domainfusion")

Dialogues = Mapping[str, Sequence[Conversation]]
"""Dialogues of each domain that end with an answer."""

HELD_OUT = 4
"""Every so many dialogues one is held out to choose by, where no others are given."""


def merge(
    base: HuggingFaceModel,
    experts: Mapping[str, HuggingFaceModel],
    *,
    method: MergeMethod | Literal["auto"] = "auto",
    weight: float | Literal["auto"] = "auto",
    conversations: Dialogues | None = None,
    validation: Dialogues | None = None,
    gram_memory: int = GRAM_MEMORY,
    progress: Progress = silent,
) -> HuggingFaceModel:
    """Returns one model that computes as the merge of several experts; base and experts stay as
    they are.

    Args:
        base: The experts' base.
        experts: The expert of each domain: a LoRA adapter on the base, or a whole fine-tune of it.
            An expert of two domains counts once.
        method: How they are merged; `auto` chooses by validation.
        weight: λ, by which the merged update is multiplied; `auto` chooses by validation.
        conversations: Some dialogues of each domain that end with an answer, such as the expert's
            own: `regmean` has each expert read its own once. Without them, `auto` tries the methods
            that need none.
        validation: Dialogues to choose by; by default, a quarter of `conversations`, which
            `regmean` then does not read. Without either, `tsv` with λ = 1 is taken.
        gram_memory: Bytes that Gram matrices may take at once. Where those of all layers do not
            fit, the experts read their dialogues several times, for a group of layers each.
        progress: Shows how far the experts have read, and which merges were tried.

    Returns:
        A model whose adapter, or whose weights where an expert is a whole fine-tune, are the merge;
        `save()` writes it.

    Raises:
        ConfigurationError: The method is unknown, or the weight is not finite.
        CapabilityError: An expert is not a LoRA adapter on the base or a fine-tune of it, or one
            that can't be summed, such as DoRA.
        ModelError: A weight of an expert is not finite.
        DataError: A layer's inputs are not finite.

    Example:
        ```python
        merged = merge(base, {"law": law, "tax": tax}, conversations=dialogues)
        merged.save("merged-model")
        ```
    """
    _check(method, weight)
    read, validation = (
        held_apart(conversations or {})
        if validation is None and "auto" in (method, weight)
        else (conversations or {}, validation or {})
    )
    with Merger(
        base, experts, conversations=read, gram_memory=gram_memory, progress=progress
    ) as merger:
        if "auto" not in (method, weight):
            return merger.merge(method, float(weight))  # type: ignore[arg-type]
        choice = merger.choose(
            validation,
            methods=None if method == "auto" else [method],
            weights=None if weight == "auto" else [weight],
        )
        return merger.merge(choice.product.method, choice.product.weight)


def held_apart(dialogues: Dialogues) -> tuple[Dialogues, Dialogues]:
    """Returns dialogues to read and, of each domain, every fourth to choose by."""
    read = {
        domain: [one for place, one in enumerate(own) if place % HELD_OUT or len(own) < HELD_OUT]
        for domain, own in dialogues.items()
    }
    held = {
        domain: [own[place] for place in range(0, len(own), HELD_OUT)]
        for domain, own in dialogues.items()
        if len(own) >= HELD_OUT
    }
    return read, held


def _check(method: str, weight: float | str) -> None:
    if method not in (*get_args(MergeMethod), "auto"):
        raise ConfigurationError(
            "The merge method is unknown",
            received=method,
            allowed=", ".join(("auto", *get_args(MergeMethod))),
        )
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if weight != "auto" and not (is_number and math.isfinite(float(weight))):
        raise ConfigurationError(
            "The weight of a merge is not finite", received=weight, allowed="a number, or auto"
        )


class Merger:
    """Merges several experts by several methods and weights; what a method reads and solves, it
    reads and solves once.

    It is a context manager: while it is open, the merged updates of whole fine-tunes lie in a
    temporary folder, four bytes for each of the base's weights and each method.

    Args:
        base: The experts' base, or an adapter on it, on top of which the merge then stands.
        experts: The expert of each domain.
        conversations: What each expert reads for `regmean`, by domain.
        adaptation: How the merged copies are trained later on.
        gram_memory: Bytes that Gram matrices may take at once.
        progress: Shows how far the experts have read, and which merges were tried.

    Raises:
        CapabilityError: There are no experts, or they can't be merged on this base.
    """

    def __init__(
        self,
        base: HuggingFaceModel,
        experts: Mapping[str, HuggingFaceModel],
        *,
        conversations: Dialogues | None = None,
        adaptation: Adaptation = Adaptation(),
        gram_memory: int = GRAM_MEMORY,
        progress: Progress = silent,
    ) -> None:
        self._start = replace(adaptation, start_from=tuple(experts.values()))
        check_experts(base, experts, self._start)
        self._base, self._memory, self._progress = base, gram_memory, progress
        self._experts: dict[str, HuggingFaceModel] = {}
        dialogues: dict[str, list[tuple[HuggingFaceModel, Sequence[Conversation]]]] = {}
        self._unread: list[str] = []
        for domain, expert in experts.items():
            key = expert.weights_id
            if key == base.weights_id:
                continue  # the base has its own adapter already
            self._experts.setdefault(key, expert)
            own = list((conversations or {}).get(domain, ()))
            dialogues.setdefault(key, []).append((expert, own))
        self._dialogues = {
            key: [(model, own) for model, own in parts if own] for key, parts in dialogues.items()
        }
        self._unread = [
            domain
            for domain, expert in experts.items()
            if expert.weights_id in self._experts and not self._dialogues[expert.weights_id]
        ]
        self._is_whole = adaptation.all_weights or any(
            expert.is_whole for expert in self._experts.values()
        )
        self._adapters: dict[MergeMethod, dict[str, LoraFactors]] = {}
        self._folder = TemporaryDirectory(prefix="domainfusion-merge-")
        self._solved: dict[MergeMethod, Path] = {}
        self._is_told = False

    def __enter__(self) -> Merger:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def methods(self) -> list[MergeMethod]:
        """The methods that can be tried: `regmean` needs something to read for every expert."""
        if len(self._experts) < 2:
            return ["sum"]  # one expert is the merge
        return ["sum", "tsv"] if self._unread else ["sum", "tsv", "regmean"]

    def merge(self, method: MergeMethod, weight: float = 1.0) -> HuggingFaceModel:
        """Returns a trainable copy of the base that is the merge.

        Where `regmean` has nothing to read for an expert, `tsv` takes its place, and a warning says
        so.

        Args:
            method: How the experts are merged.
            weight: λ.
        """
        _check(method, weight)
        if method == "regmean" and self._unread and self._experts:
            self._tell_unread()
            method = "tsv"
        merged = self._made(method, weight)
        merged.note_merge(method, weight)
        return merged

    def _made(self, method: MergeMethod, weight: float) -> HuggingFaceModel:
        if method == "sum" or not self._experts:
            return self._base.trainable_copy(replace(self._start, merge_weight=weight))
        if self._is_whole:
            changes = self._solved_changes(method)
            merged = self._base.trainable_copy(replace(self._start, merge_weight=0.0))
            merged.add_to_weights(changes, weight)
            return merged
        factors = self._solved_factors(method)
        merged = self._base.trainable_copy(
            replace(self._start, merge_weight=weight / len(self._experts))
        )
        before = {} if self._base.is_whole else self._base.lora_factors()
        merged.load_lora_factors(
            {layer: _after(before.get(layer), own, weight) for layer, own in factors.items()}
        )
        return merged

    def choose(
        self,
        validation: Dialogues,
        *,
        methods: Sequence[MergeMethod] | None = None,
        weights: Sequence[float] | None = None,
        known: Mapping[str, Candidate] | None = None,
        on_measured: Callable[[Candidate], None] = lambda _: None,
    ) -> MergeChoice:
        """Returns the merges that do best on dialogues that no method has read: the best as it is,
        and the best to train from.

        Args:
            validation: The dialogues, by slice.
            methods: The methods to try; by default all that can be.
            weights: The weights λ to try; by default 0.4, 0.7 … 1.6, from 1 on in both directions as
                long as it gets better.
            known: Candidates that were measured before, by name.
            on_measured: Called with each candidate.
        """
        if methods is None or "regmean" in methods:
            if self._unread and len(self._experts) > 1:
                self._tell_unread()
            methods = [one for one in methods or self.methods if one in self.methods] or ["tsv"]
        rows = {domain: list(own) for domain, own in validation.items() if own}
        if not rows or not self._experts or (len(self._experts) < 2 and weights is None):
            return MergeChoice.unmeasured(
                "sum" if len(self._experts) < 2 else methods[-1],
                1.0 if weights is None else weights[0],
            )

        def measure(method: MergeMethod, weight: float) -> Candidate:
            began = time.perf_counter()
            found = fit(self.merge(method, weight), rows)
            seconds = round(time.perf_counter() - began, 2)
            candidate = Candidate(
                method=method, weight=weight, right=found.right, loss=found.loss, seconds=seconds
            )
            on_measured(candidate)
            return candidate

        return search(methods, weights, measure, known or {}, self._progress)

    def _tell_unread(self) -> None:
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "The experts are merged without RegMean, as there is nothing to read for %s; give"
                " some of its questions and answers",
                ", ".join(self._unread),
            )

    # Adapters

    def _solved_factors(self, method: MergeMethod) -> dict[str, LoraFactors]:
        """Returns the merge of a method at λ = 1, by layer."""
        if method not in self._adapters:
            updates = {key: expert.lora_factors() for key, expert in self._experts.items()}
            layers = dict.fromkeys(layer for own in updates.values() for layer in own)
            of_layer = {
                layer: [own[layer] for own in updates.values() if layer in own] for layer in layers
            }
            if method == "tsv":
                found = {layer: tsv(own) for layer, own in of_layer.items()}
            else:
                found = {}
                for layer, grams in self._grams(
                    list(layers), lambda key, layer: _first_factor(updates[key].get(layer))
                ):
                    found[layer] = regmean(of_layer[layer], grams)
            self._adapters[method] = found
        return self._adapters[method]

    # Whole fine-tunes

    def _solved_changes(self, method: MergeMethod) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the merge of a method at λ = 1, weight by weight."""
        if method not in self._solved:
            folder = Path(self._folder.name) / method
            folder.mkdir()
            names: list[str] = []
            for name, change in self._changes(method):
                file = folder / f"{len(names)}.safetensors"
                save_file({"change": change.float().cpu().contiguous()}, file)
                names.append(name)
            (folder / "names").write_text("\n".join(names), encoding="utf-8")
            self._solved[method] = folder
        folder = self._solved[method]
        for place, name in enumerate((folder / "names").read_text(encoding="utf-8").splitlines()):
            yield name, load_file(folder / f"{place}.safetensors")["change"]

    def _changes(self, method: MergeMethod) -> Iterator[tuple[str, torch.Tensor]]:
        base = self._base.trainable_copy(replace(self._start, merge_weight=0.0))
        matrices = base.matrices()
        sizes = {one.layer: base.input_size(one.layer) for one in matrices.values() if one.layer}
        del base
        changes = {key: expert.change_of(self._base) for key, expert in self._experts.items()}
        of_layer = {one.layer: name for name, one in matrices.items() if one.layer}

        def change(key: str, name: str) -> torch.Tensor | None:
            found = changes[key](name)
            return None if found is None else _laid_out(found, matrices[name]).float()

        left = dict.fromkeys(matrices)
        if method == "regmean":
            grams = self._grams(
                list(sizes),
                lambda key, layer: change(key, of_layer[layer]),
                sizes=sizes,
            )
            for layer, found in grams:
                name = of_layer[layer]
                del left[name]
                rows = found.weighted[0] if found.weighted else None
                if rows is not None:
                    yield name, _laid_out(over_total(rows, found.total), matrices[name])
        with self._progress(f"merging weights ({method})", len(left)) as advance:
            for name in left:
                own = [change(key, name) for key in changes]
                present = [one for one in own if one is not None]
                advance(1)
                if not present:
                    continue
                if method == "tsv" and matrices[name].layer:
                    device = self._base.device
                    full = [torch.zeros_like(present[0]) if one is None else one for one in own]
                    merged = tsv_of_matrices([one.to(device) for one in full])
                else:
                    merged = torch.stack(present).sum(0) / len(own)
                yield name, _laid_out(merged, matrices[name])

    # Reading

    def _grams(
        self,
        layers: Sequence[str],
        update: Callable[[str, str], torch.Tensor | None],
        sizes: Mapping[str, int] | None = None,
    ) -> Iterator[tuple[str, Grams]]:
        """Yields what the inputs of each layer add up to; a layer that was never called is left
        out.

        Args:
            layers: The layers.
            update: Returns what an expert's Gram matrix of a layer is multiplied with, of shape
                (rows, in), by the expert's key and the layer's name.
            sizes: The width of each layer's inputs, where it is known.
        """
        first = next(iter(self._experts.values()))
        sizes = sizes or {layer: first.input_size(layer) for layer in layers}
        readers = {
            key: GramReader.of(expert, self._dialogues[key])
            for key, expert in self._experts.items()
        }
        is_summed = sizes is not None and self._is_whole
        groups = list(groups_of({layer: sizes[layer] for layer in layers}, self._memory))
        for number, group in enumerate(groups, start=1):
            part = f", part {number} of {len(groups)}" if len(groups) > 1 else ""
            totals: dict[str, torch.Tensor] = {}
            source: dict[str, str] = {}
            weighted: dict[str, list[torch.Tensor]] = {layer: [] for layer in group}
            for place, (key, reader) in enumerate(readers.items(), start=1):
                label = f"reading for the merge, expert {place} of {len(readers)}{part}"
                with released_after(reader.expert):
                    read = read_grams(reader, group, self._progress, label)
                source |= read.source
                for layer, gram in read.grams.items():
                    totals[layer] = totals[layer] + gram if layer in totals else gram
                for layer, origin in read.source.items():
                    rows = update(key, layer)
                    if rows is None:
                        continue
                    gram = read.grams[origin]
                    product = rows.to(gram) @ gram
                    if is_summed and weighted[layer]:
                        weighted[layer][0] += product
                    else:
                        weighted[layer].append(product)
                del read
            for layer, origin in source.items():
                if weighted[layer]:
                    yield layer, Grams(totals[origin], weighted[layer])


def check_experts(base: HuggingFaceModel, experts: Mapping[str, object], start: Adaptation) -> None:
    """Refuses experts that can't be merged on a base.

    Raises:
        CapabilityError: There are none, or one is neither a LoRA adapter on the base nor a whole
            fine-tune of it, or one that can't be summed.
    """
    if not experts:
        raise CapabilityError(
            "There is nothing to merge", received="no experts", fix="give the expert of each domain"
        )
    base.check_start(start)


def _first_factor(factors: LoraFactors | None) -> torch.Tensor | None:
    return None if factors is None else factors.a


def _after(before: LoraFactors | None, own: LoraFactors, weight: float) -> LoraFactors:
    """Returns λ times a merge as an adapter, after the adapter that the base has itself."""
    if before is None:
        return LoraFactors(weight * own.a, own.b)
    return LoraFactors(
        torch.cat([before.a.to(own.a), weight * own.a]), torch.cat([before.b.to(own.b), own.b], 1)
    )


def _laid_out(change: torch.Tensor, matrix: OwnWeight) -> torch.Tensor:
    """Returns a change of a weight as (out, in), or one of that shape as the weight is laid out."""
    return change.T if matrix.is_transposed else change
