"""The merges of several experts on one base: experts read dialogues once, layer by layer, and each
layer is solved once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple, get_args

import torch
from safetensors.torch import load_file, save_file

from domainfusion.checks import check_word, is_number
from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.merging.methods import (
    Candidate,
    Grams,
    MergeChoice,
    MergeMethod,
    damped,
    fit,
    over_total,
    regmean,
    search,
    toward,
    tsv,
    tsv_of_matrices,
)
from domainfusion.models.base import Adaptation
from domainfusion.models.huggingface import HuggingFaceModel, OwnWeight
from domainfusion.models.summing import LoraFactors
from domainfusion.progress import Progress, silent
from domainfusion.types import Conversation

TOKENS_READ = 32_768
"""Tokens that are read together, padding included; they bound the memory of a pass."""

LONGEST_READ = 512
"""Tokens of a dialogue that are read, from its beginning."""

Spoken = tuple[HuggingFaceModel, Sequence[Conversation]]
"""Dialogues, and the model that held them: its system prompt and template are part of them."""


class DialogueBatch(NamedTuple):
    """Rows that are read together, padded on the right.

    Attributes:
        rows: Token ids of each row, the shortest first.
        owners: Whose dialogue each row is.
    """

    rows: list[list[int]]
    owners: list[str]

    @classmethod
    def of(cls, dialogues: Mapping[str, Sequence[Spoken]]) -> DialogueBatch:
        """Returns the dialogues of all experts; where they are more than can be read together, as
        many of each expert, evenly spread.

        Args:
            dialogues: The dialogues of each expert, by its key.
        """
        rows = {
            key: [
                model.encode(conversation, reply=False)[:LONGEST_READ]
                for model, own in spoken
                for conversation in own
            ]
            for key, spoken in dialogues.items()
        }
        longest = max(len(row) for own in rows.values() for row in own)
        most = max(1, TOKENS_READ // (longest * len(rows)))
        placed = [(row, key) for key, own in rows.items() for row in _spread(own, most)]
        placed.sort(key=lambda one: len(one[0]))
        return cls([row for row, _ in placed], [key for _, key in placed])

    def part(self, owner: str) -> DialogueBatch:
        """Returns the rows of one expert, in the same order."""
        rows = [row for row, key in zip(self.rows, self.owners, strict=True) if key == owner]
        return DialogueBatch(rows, [owner] * len(rows))

    def tokens_of(self, owner: str) -> torch.Tensor:
        """Returns which places of the batch hold a token of an expert's dialogues, of shape (rows,
        longest row).
        """
        lengths = torch.tensor([len(row) for row in self.rows])
        is_own = torch.tensor([key == owner for key in self.owners])
        return (torch.arange(len(self.rows[-1])) < lengths[:, None]) & is_own[:, None]


def _spread(rows: Sequence[list[int]], most: int) -> list[list[int]]:
    count = min(most, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


@torch.no_grad()
def read_layers(
    model: HuggingFaceModel,
    batch: DialogueBatch,
    layers: Collection[str],
    see: Callable[[str, torch.Tensor], None],
    progress: Progress,
    label: str,
    *,
    is_fixed: bool,
) -> None:
    """Lets a model read a batch once, and shows the inputs of each layer before it computes.

    A layer that does not read the batch's tokens in their places, such as one that a router sends
    some of them to, is not shown.

    Args:
        model: The model.
        batch: What it reads.
        layers: Names of linear layers.
        see: Receives a layer's name and inputs, of shape (rows, longest row, in). It may change the
            layer.
        progress: Shows the layers.
        label: What they are called there.
        is_fixed: Whether `see` leaves the layers as they are, so that an adapter may be merged into
            the weights for the pass.

    Raises:
        ModelError: No layer at all was shown.
    """
    seen = set[str]()
    shape = (len(batch.rows), len(batch.rows[-1]))

    def show(layer: str, inputs: torch.Tensor) -> None:
        if layer not in seen and inputs.shape[:-1] == shape:
            seen.add(layer)
            see(layer, inputs)
            advance(1)

    head = model.head_name()
    with (
        progress(label, len(layers)) as advance,
        model.watching_inputs([layer for layer in layers if layer != head], show),
    ):
        states = model.hidden_states(
            batch.rows, at_once=len(batch.rows), merge=is_fixed, by_row=True
        )
        if head in layers:
            show(head, torch.nn.utils.rnn.pad_sequence(states, batch_first=True))
    if not seen:
        raise ModelError(
            f"No layer of {model.name} reads the tokens of a batch in their places",
            received=f"{len(layers)} layers that an expert changes",
            fix="use method='tsv' or 'sum', which read nothing",
        )


@contextmanager
def released_after(expert: HuggingFaceModel) -> Iterator[None]:
    """Lets go of a whole model's weights after this block, if it was loaded for it: one expert is
    in memory at a time.
    """
    was_loaded = expert.is_loaded
    try:
        yield
    finally:
        if expert.is_whole and not was_loaded:
            expert.release()


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
            own: `regmean` reads them once. Without them, `auto` tries the methods
            that need none.
        validation: Dialogues to choose by; by default, a quarter of `conversations`, which
            `regmean` then does not read. Without either, `tsv` with λ = 1 is taken.
        progress: Shows which layers are merged, and which merges were tried.

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
    if not isinstance(experts, Mapping):
        raise ConfigurationError(
            "experts names no domains",
            received=experts,
            allowed="a dict from each domain to its expert",
            fix='write {"domain": model}',
        )
    _check(method, weight)
    read, validation = (
        held_apart(conversations or {})
        if validation is None and "auto" in (method, weight)
        else (conversations or {}, validation or {})
    )
    with Merger(base, experts, conversations=read, progress=progress) as merger:
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
    check_word("method", method, ("auto", *get_args(MergeMethod)))
    if weight != "auto" and not (is_number(weight) and math.isfinite(weight)):
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
        conversations: What `regmean` reads of each expert, by domain.
        adaptation: How the merged copies are trained later on.
        progress: Shows which layers are merged, and which merges were tried.

    Attributes:
        solved_adapters: What each method made of LoRA experts at λ = 1, by layer, once it was asked
            to: another `Merger` of the same experts and dialogues need not solve it again.
        seconds_before: What it took to solve those that were given to it.

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
        progress: Progress = silent,
    ) -> None:
        self._start = replace(adaptation, start_from=tuple(experts.values()))
        check_experts(base, experts, self._start)
        self._base, self._progress = base, progress
        self._experts: dict[str, HuggingFaceModel] = {}
        dialogues: dict[str, list[Spoken]] = {}
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
        self.solved_adapters: dict[MergeMethod, dict[str, LoraFactors]] = {}
        self.seconds_before = 0.0
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
        if method not in self.solved_adapters:
            updates = {key: expert.lora_factors() for key, expert in self._experts.items()}
            layers = dict.fromkeys(layer for own in updates.values() for layer in own)
            of_layer = {
                layer: [own[layer] for own in updates.values() if layer in own] for layer in layers
            }
            found = (
                {layer: tsv(own) for layer, own in of_layer.items()}
                if method == "tsv"
                else self._regmean_factors(updates)
            )
            self.solved_adapters[method] = found
        return self.solved_adapters[method]

    def _regmean_factors(
        self, updates: Mapping[str, Mapping[str, LoraFactors]]
    ) -> dict[str, LoraFactors]:
        merged = self._base.trainable_copy(
            replace(self._start, merge_weight=1 / len(self._experts))
        )
        before = {} if self._base.is_whole else self._base.lora_factors()
        found: dict[str, LoraFactors] = {}

        def merge_layer(layer: str, grams: Grams) -> None:
            own = [factors[layer] for factors in updates.values() if layer in factors]
            solved = regmean(own, grams)
            found[layer] = LoraFactors(solved.a.float(), solved.b.float())
            merged.load_lora_factors({layer: _after(before.get(layer), found[layer], 1.0)})

        def update(key: str, layer: str) -> torch.Tensor | None:
            own = updates[key].get(layer)
            return None if own is None else own.a

        layers = dict.fromkeys(layer for own in updates.values() for layer in own)
        self._merge_while_reading(merged, layers, update, merge_layer)
        return found

    # Whole fine-tunes

    def _solved_changes(self, method: MergeMethod) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the merge of a method at λ = 1, weight by weight."""
        if method not in self._solved:
            folder = Path(self._folder.name) / method
            folder.mkdir()
            names: list[str] = []

            def keep(name: str, change: torch.Tensor) -> None:
                file = folder / f"{len(names)}.safetensors"
                save_file({"change": change.float().cpu().contiguous()}, file)
                names.append(name)

            self._solve_changes(method, keep)
            (folder / "names").write_text("\n".join(names), encoding="utf-8")
            self._solved[method] = folder
        folder = self._solved[method]
        for place, name in enumerate((folder / "names").read_text(encoding="utf-8").splitlines()):
            yield name, load_file(folder / f"{place}.safetensors")["change"]

    def _solve_changes(
        self, method: MergeMethod, keep: Callable[[str, torch.Tensor], None]
    ) -> None:
        """Makes the merge of a method at λ = 1, weight by weight.

        Args:
            method: How.
            keep: Receives each weight's name and change, laid out as the weight is.
        """
        merged = self._base.trainable_copy(replace(self._start, merge_weight=0.0))
        matrices = merged.matrices()
        changes = {key: expert.change_of(self._base) for key, expert in self._experts.items()}
        left = dict.fromkeys(matrices)

        def settle(name: str, change: torch.Tensor) -> None:
            laid_out = _laid_out(change, matrices[name])
            keep(name, laid_out)
            if method == "regmean":
                merged.add_to_weights([(name, laid_out)], 1.0)
            del left[name]

        def change(key: str, name: str) -> torch.Tensor | None:
            found = changes[key](name)
            return None if found is None else _laid_out(found, matrices[name]).float()

        def average(name: str) -> torch.Tensor | None:
            own = [one for key in changes if (one := change(key, name)) is not None]
            return torch.stack(own).sum(0) / len(changes) if own else None

        def tsv_of(name: str) -> torch.Tensor | None:
            own = [change(key, name) for key in changes]
            present = [one for one in own if one is not None]
            if not present:
                return None
            full = [torch.zeros_like(present[0]) if one is None else one for one in own]
            return tsv_of_matrices([one.to(merged.device) for one in full])

        of_layer = {one.layer: name for name, one in matrices.items() if one.layer}

        def merge_layer(layer: str, grams: Grams) -> None:
            rows = torch.stack(grams.weighted).sum(0)
            settle(of_layer[layer], over_total(rows, grams.total))

        def settle_all(names: Sequence[str], solve: Callable[[str], torch.Tensor | None]) -> None:
            with self._progress(f"merging weights ({method})", len(names)) as advance:
                for name in names:
                    if (found := solve(name)) is not None:
                        settle(name, found)
                    advance(1)

        settle_all([name for name, one in matrices.items() if not one.layer], average)
        if method == "regmean":
            self._merge_while_reading(
                merged, of_layer, lambda key, layer: change(key, of_layer[layer]), merge_layer
            )
        settle_all(list(left), tsv_of if method == "tsv" else average)

    # Reading

    def _merge_while_reading(
        self,
        merged: HuggingFaceModel,
        layers: Collection[str],
        update: Callable[[str, str], torch.Tensor | None],
        merge_layer: Callable[[str, Grams], None],
    ) -> None:
        """Lets the experts read their dialogues, and then the merge, of which each layer is merged
        when it is reached.

        Args:
            merged: The merge as far as it is made.
            layers: Names of linear layers.
            update: Returns an expert's Aₖ or Δₖ, by the expert's key and the layer's name.
            merge_layer: Merges a layer that some expert changes.
        """
        batch = DialogueBatch.of(self._dialogues)
        with TemporaryDirectory(dir=self._folder.name) as folder:
            file_of = {
                (key, layer): Path(folder) / f"{place}-{number}.safetensors"
                for place, key in enumerate(self._experts)
                for number, layer in enumerate(layers)
            }
            self._keep_outputs(batch, layers, update, file_of)
            owned = {key: batch.tokens_of(key) for key in self._experts}
            latest: torch.Tensor | None = None
            read: dict[str, torch.Tensor] = {}
            total = torch.empty(0)

            def see(layer: str, inputs: torch.Tensor) -> None:
                nonlocal latest, read, total
                if inputs is not latest:  # q, k and v share their inputs
                    latest = inputs
                    read = {
                        key: inputs[is_own.to(inputs.device)].float()
                        for key, is_own in owned.items()
                    }
                    total = torch.stack(
                        [damped(own.T @ own / len(own)) for own in read.values()]
                    ).sum(0)
                own = {key: found for key in read if (found := update(key, layer)) is not None}
                # A layer that an expert did not read through, such as one of a mixture, stays.
                if own and all(file_of[key, layer].is_file() for key in own):
                    weighted = [
                        toward(found, load_file(file_of[key, layer])["outputs"], read[key])
                        for key, found in own.items()
                    ]
                    merge_layer(layer, Grams(total, weighted))

            label = "merging layer by layer"
            read_layers(merged, batch, layers, see, self._progress, label, is_fixed=False)

    def _keep_outputs(
        self,
        batch: DialogueBatch,
        layers: Collection[str],
        update: Callable[[str, str], torch.Tensor | None],
        file_of: Mapping[tuple[str, str], Path],
    ) -> None:
        """Lets each expert read its own dialogues, and keeps what its update makes of the inputs of
        each layer.

        Args:
            batch: The dialogues of all experts.
            layers: Names of linear layers.
            update: Returns an expert's Aₖ or Δₖ, by the expert's key and the layer's name.
            file_of: Where outputs are kept, by expert and layer.
        """
        for place, (key, expert) in enumerate(self._experts.items(), start=1):
            part = batch.part(key)
            is_token = part.tokens_of(key)

            def keep_outputs(
                layer: str,
                inputs: torch.Tensor,
                key: str = key,
                is_token: torch.Tensor = is_token,
            ) -> None:
                if (own := update(key, layer)) is not None:
                    read = inputs[is_token.to(inputs.device)].float()
                    outputs = (read @ own.to(read).T).cpu()
                    save_file({"outputs": outputs.contiguous()}, file_of[key, layer])

            label = f"reading for the merge, expert {place} of {len(self._experts)}"
            with released_after(expert):
                read_layers(
                    expert, part, layers, keep_outputs, self._progress, label, is_fixed=True
                )


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
