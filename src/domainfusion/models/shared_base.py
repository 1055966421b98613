"""One set of base weights in memory, and the adapters that live on it: N experts cost one base plus
N adapters.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils import logging

from domainfusion.errors import CapabilityError, ModelError
from domainfusion.models.adapter_settings import read_settings
from domainfusion.models.adapters import (
    add_new_adapter,
    as_plain_lora,
    check_copies,
    first_not_finite,
    lora_config,
    put_on,
    read_weights,
)
from domainfusion.models.decoding import (
    changes_while_reading,
    check_order,
    decodes_alike,
    masks_padding,
)
from domainfusion.models.placement import (
    Packed,
    Quantization,
    computing_with,
    pack,
    quantization_settings,
)
from domainfusion.models.summing import adapted_layers, sum_config, write_sum
from domainfusion.models.threads import MOST_THREADS
from domainfusion.progress import doing


@dataclass(frozen=True)
class BaseKey:
    """What makes two models share their base weights.

    Attributes:
        path: Folder or GGUF file.
        dtype: Data type of the weights.
        device: Where they are.
        quantization: How they are shrunk.
        owner: Empty for shared weights; unique for a copy that is trained in full.
        device_map: How Accelerate spreads them over several devices; None where they are on one.
    """

    path: str
    dtype: torch.dtype
    device: str
    quantization: Quantization | None = None
    owner: str = ""
    device_map: tuple[tuple[str, int | str], ...] | str | None = None


_OUTSIDE_INFERENCE = torch.inference_mode(False)
"""Weights that are made inside of `torch.inference_mode` could never be trained, and who calls may
well be inside of it.
"""

_BARE = "__base__"
"""PEFT's name for the base without an adapter, among the adapters of a batch's rows."""

_TRAINED = "student"
"""The name of the adapter in the module that is trained."""

_loaded: weakref.WeakValueDictionary[BaseKey, SharedBase] = weakref.WeakValueDictionary()


class _Replaced(NamedTuple):
    """A weight for which a copy with an adapter merged into it stands in.

    Attributes:
        layer: The adapter's layer, which notes what is merged.
        owner: The module that has the weight.
        attribute: Under which name.
        original: The weight.
    """

    layer: Any
    owner: torch.nn.Module
    attribute: str
    original: torch.nn.Parameter


class Adapter:
    """A hold on an adapter; see `SharedBase.lend`."""


class SharedBase:
    """Base weights and their adapters.

    For the time of a call an adapter can be merged, so that no layers of its own are run. It is
    merged into copies that stand in for the base's weights, and never into those themselves: no
    sequence of calls changes any model, and where a weight is used twice, as that of tied
    embeddings, an adapter on one of its uses leaves the other as it is.
    """

    @_OUTSIDE_INFERENCE
    def __init__(self, key: BaseKey) -> None:
        self.key = key
        self.module: PreTrainedModel = _load_weights(key)
        self.module.requires_grad_(False)
        self.module.train(False)
        check_order(self.module, key.path)
        self.masks_padding = masks_padding(self.module, key.path)
        self.decodes = key.device_map is None and decodes_alike(self.module)
        self.allows_threads = (
            self.decodes
            and key.quantization is None
            and self.module.device.type == "cpu"
            and not changes_while_reading(self.module)
        )
        self.peft: PeftModel | None = None
        self._copies: dict[str, torch.nn.Parameter] = {}
        self._replaced: list[_Replaced] = []
        self._merged: str | None = None
        self._packed: Packed | None = None
        self._dropped: list[str] = []

    @property
    def most_threads(self) -> int:
        """How many threads may compute with it at once, from where this is asked."""
        return min(torch.get_num_threads(), MOST_THREADS) if self.allows_threads else 1

    @classmethod
    def get(cls, key: BaseKey) -> SharedBase:
        """Returns the base of `key`, loaded once however many models use it."""
        base = _loaded.get(key)
        if base is None:
            with doing(f"loading {Path(key.path).name}"):
                base = _loaded[key] = cls(key)
        return base

    @_OUTSIDE_INFERENCE
    def load_adapter(self, folder: Path, name: str) -> None:
        """Puts the adapter in `folder` beside the base under `name`; an adapter that is there
        already is not loaded again.

        Raises:
            ModelError: It does not fit the base, or its numbers are not finite.
        """
        if self.peft is not None and name in self.peft.peft_config:
            return
        if self.is_offloaded:
            raise ModelError(
                "An adapter can't stand on weights that lie in main memory or on disk until they"
                " are used",
                received=str(folder),
                fix=(
                    "merge it into its base and give that folder, or spread the base over devices"
                    " that hold all of it"
                ),
            )
        self._make_room()
        settings, weights = read_settings(folder), read_weights(folder)
        check_copies(weights, self.module, folder)
        config, factors = as_plain_lora(
            self.module, settings, lora_config(settings, folder), weights.factors, folder
        )
        with self._leaving_training_alone(), self._undone_on_error(name):
            self.peft = put_on(self.module, self.peft, name, config, factors, folder)

    @_OUTSIDE_INFERENCE
    def create_adapter(self, name: str, config: LoraConfig) -> None:
        """Adds a new adapter that changes nothing yet.

        Raises:
            CapabilityError: PEFT has no adapter for this kind of model.
        """
        self._make_room()
        with self._leaving_training_alone(), self._undone_on_error(name):
            self.peft = add_new_adapter(self.module, self.peft, name, config)

    @contextmanager
    def _undone_on_error(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._forget(name)
            raise

    def _forget(self, name: str) -> None:
        """Takes what there is of an adapter off its layers, even where it never came on the base as
        a whole.
        """
        layers = [layer for _, layer in self.tuner_layers()]
        if self.peft is None and not layers:
            return
        if self.peft is not None and [other for other in self.peft.peft_config if other != name]:
            if name in self.peft.peft_config:
                self.remove_adapter(name)
            return
        self._take_layers_off()

    def _take_layers_off(self) -> None:
        for parent in list(self.module.modules()):
            for child_name, child in list(parent.named_children()):
                if isinstance(child, BaseTunerLayer):
                    setattr(parent, child_name, child.get_base_layer())
        if hasattr(self.module, "peft_config"):
            del self.module.peft_config
        self.peft = None

    @_OUTSIDE_INFERENCE
    def combine_adapters(
        self, name: str, adapters: Sequence[str], weights: Sequence[float], *, dropout: float = 0.0
    ) -> None:
        """Adds the weighted sum of `adapters` as one new adapter: on each layer of the ranks of
        those that stand on it together.

        Args:
            name: The new adapter.
            adapters: Those to add up.
            weights: The weight of each.
            dropout: Share of its inputs that the new adapter drops in training.

        Raises:
            CapabilityError: They can't be summed exactly.
        """
        self._make_room()
        layers = adapted_layers(self.module, adapters)
        config = sum_config(
            self.module, layers, [self.adapter_config(adapter) for adapter in adapters], dropout
        )
        of_adapter = dict(zip(adapters, weights, strict=True))
        self.create_adapter(name, config)
        made = adapted_layers(self.module, [name])
        for place in {**layers, **made}:
            layer = cast(Any, self.module.get_submodule(place))
            own = layers.get(place, [])
            if (
                place not in made
                or layer.r[name] != sum(layer.r[adapter] for adapter in own)
                or layer.scaling[name] != 1
            ):
                self.remove_adapter(name)
                raise CapabilityError(
                    "PEFT has no adapter that is the sum of these",
                    received=place,
                    fix="use initialization='base'",
                )
            write_sum(layer, name, own, [of_adapter[adapter] for adapter in own])

    @_OUTSIDE_INFERENCE
    def absorb(self, adapter: str) -> None:
        """Makes an adapter a part of the weights, for good; no other may be here. For a base that
        one model alone has.
        """
        assert self.key.owner and self.peft is not None and list(self.peft.peft_config) == [adapter]
        self.activate(adapter, merge=True)
        # the copies are the weights from now on
        self._replaced, self._copies, self._merged, self._packed = [], {}, None, None
        self._take_layers_off()
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)

    def remove_adapter(self, name: str) -> None:
        """Forgets the adapter `name`."""
        self.restore()
        if self.peft is None or name not in self.peft.peft_config:
            return
        others = [other for other in self.peft.peft_config if other != name]
        if not others:
            self._take_layers_off()
            self._copies = {}
            return
        with self._leaving_training_alone():
            self.peft.set_adapter(others[0])
            self.peft.delete_adapter(name)

    def lend(self, name: str) -> Adapter:
        """Returns what keeps the adapter `name` here: when nobody holds it any more, the adapter
        goes before the next one comes.
        """
        adapter = Adapter()
        weakref.finalize(adapter, self._dropped.append, name).atexit = False
        return adapter

    def _make_room(self) -> None:
        """Removes what nobody holds any more. Not at the moment when it is dropped, which may be in
        the midst of a call.
        """
        self.restore()
        while self._dropped:
            self.remove_adapter(self._dropped.pop())

    def adapter_config(self, name: str) -> Any:
        """Returns the PEFT configuration of the adapter `name`."""
        assert self.peft is not None
        return self.peft.peft_config[name]

    @contextmanager
    def using(self, adapter: str | None, *, merge: bool = True) -> Iterator[PreTrainedModel]:
        """Gives the module that computes as the base with `adapter` on it, or as the bare base.

        Args:
            adapter: Name of the adapter; None for the bare base.
            merge: Merge it into the weights for speed; with False its layers stay apart, as
                training needs them. Into quantized weights nothing is merged: they would come back
                as others.
        """
        if self.peft is None:
            yield self.module
            return
        if adapter is None:
            self.restore()
            with self._leaving_training_alone(), self.peft.disable_adapter():
                yield self.module
            return
        self.activate(adapter, merge=merge)
        yield self.module

    @contextmanager
    def writing(self, adapter: str | None) -> Iterator[PreTrainedModel]:
        """Gives the module as `using` does, to write text with: without dropout, and where the
        adapter is merged, with its weights packed.

        Args:
            adapter: Name of the adapter; None for the bare base.
        """
        with self.using(adapter) as module, in_evaluation(module):
            if adapter != self._merged:  # its layers stand apart from quantized weights
                yield module
                return
            if self._packed is None:
                self._packed = pack(module)
            try:
                with computing_with(module, self._packed):
                    yield module
            finally:
                if self.key.owner:  # these weights are others in the next call
                    self._packed = None

    @contextmanager
    def mixing(self, adapters: Sequence[str | None]) -> Iterator[PreTrainedModel]:
        """Gives the module that computes each row of a batch with an adapter of its own, none of
        them merged.

        Args:
            adapters: The adapter of each row; None for the bare base.

        Raises:
            CapabilityError: One of them is a DoRA adapter, whose change depends on the weights that
                it changes.
        """
        if scaled := [
            name for name in adapters if name is not None and self.adapter_config(name).use_dora
        ]:
            raise CapabilityError(
                "A DoRA adapter can't share a batch with others",
                received=scaled[0],
                allowed="LoRA adapters",
            )
        self.restore()
        if self.peft is None:
            yield self.module
            return
        wrapper = cast(Any, self.peft.base_model)
        # PEFT asks the wrapper, which is made to be trained; how the module computes, it says
        # itself
        wrapper.training = False
        with wrapper._enable_peft_forward_hooks(
            adapter_names=[_BARE if name is None else name for name in adapters]
        ):
            yield self.module

    @_OUTSIDE_INFERENCE
    def activate(self, adapter: str, *, merge: bool) -> None:
        """Makes `adapter` the one that the module computes with."""
        assert self.peft is not None
        merge = merge and self.key.quantization is None
        if self._merged == adapter and merge:
            return
        self.restore()
        with self._leaving_training_alone():
            self.peft.set_adapter(adapter)
        if not merge:
            return
        for name, layer in self.tuner_layers():
            if adapter in layer.r:
                self._put_copy_in(name, layer)
                layer.merge(adapter_names=[adapter])
        self._merged = adapter

    def _put_copy_in(self, name: str, layer: Any) -> None:
        """Lets a copy stand in for the weight under an adapter's layer; the same memory serves
        every adapter that is merged here.
        """
        owner, attribute = (
            layer.get_base_layer(),
            layer.parameter_name if isinstance(layer, ParamWrapper) else "weight",
        )
        original = getattr(owner, attribute)
        if name in self._copies:
            self._copies[name].data.copy_(original.detach())
        else:
            self._copies[name] = torch.nn.Parameter(original.detach().clone(), requires_grad=False)
        self._replaced.append(_Replaced(layer, owner, attribute, original))
        setattr(owner, attribute, self._copies[name])

    def restore(self) -> None:
        """Puts the base's own weights in their places, where copies with an adapter merged into
        them stand in for them.
        """
        for replaced in self._replaced:
            setattr(replaced.owner, replaced.attribute, replaced.original)
            replaced.layer.merged_adapters = []
        self._replaced = []
        self._merged = self._packed = None

    @_OUTSIDE_INFERENCE
    def training_view(self, adapter: str) -> PreTrainedModel:
        """Returns a module of its own that computes with `adapter`, or as the base where it is
        empty, on the tensors that are here.

        No tensor is copied. Layers can be wrapped or sharded without a change to this base;
        parameters that are trained in place are changed here too, and merging an adapter here
        changes nothing there.
        """
        self.restore()
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        view = copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors})
        for layer in view.modules():
            if isinstance(layer, BaseTunerLayer):
                _keep_only(layer, adapter)
        return view

    @contextmanager
    def _leaving_training_alone(self) -> Iterator[None]:
        """Undoes PEFT's habit of switching gradients and dropout on and off: what is trained, and
        when, is the trainer's choice.
        """
        # the parameters themselves are held too, so that no new one has the id of one that went
        trained = {
            id(parameter): parameter
            for parameter in self.module.parameters()
            if parameter.requires_grad
        }
        training = self.module.training
        try:
            yield
        finally:
            for parameter in self.module.parameters():
                parameter.requires_grad_(id(parameter) in trained)
            if self.module.training != training:
                self.module.train(training)

    @property
    def is_offloaded(self) -> bool:
        """Whether some of the weights are on no device until they are used."""
        return self.key.device_map is not None and any(
            weight.is_meta for weight in self.module.parameters()
        )

    @property
    def has_fused_layers(self) -> bool:
        """Whether an adapter stands on weights that hold all experts of a mixture in one: their
        rows can't have adapters of their own.
        """
        return any(isinstance(layer, ParamWrapper) for _, layer in self.tuner_layers())

    def tuner_layers(self) -> Iterator[tuple[str, Any]]:
        """Yields every layer that adapters stand on, by its name."""
        for name, module in self.module.named_modules():
            if isinstance(module, BaseTunerLayer):
                yield name, module


def _keep_only(layer: Any, adapter: str) -> None:
    """Removes every other adapter from a layer, and names this one as any training does: a
    checkpoint holds its tensors by name.
    """
    settings = [*vars(layer).values(), *layer._modules.values(), *layer._parameters.values()]
    for by_adapter in settings:
        if (
            not isinstance(by_adapter, dict | torch.nn.ModuleDict | torch.nn.ParameterDict)
            or adapter not in by_adapter
        ):
            continue
        own = by_adapter[adapter]
        by_adapter.clear()
        by_adapter[_TRAINED] = own
    layer.set_adapter([_TRAINED])


def _load_weights(key: BaseKey) -> PreTrainedModel:
    """Loads a model, checks that it is whole, and sets what Transformers leaves open."""
    loader, is_gguf = cast(Any, AutoModelForCausalLM), key.path.endswith(".gguf")
    source = str(Path(key.path).parent) if is_gguf else key.path
    try:
        with silent_transformers():
            model, loading = loader.from_pretrained(
                source, output_loading_info=True, **_loading_options(key)
            )
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        raise ModelError(
            f"The model could not be loaded: {error}",
            received=key.path,
            allowed="a folder with config.json and safetensors weights, a .gguf file, or a hub id",
            fix="check the path, or convert other weights to safetensors",
        ) from error
    _check_loaded(key, model, loading["missing_keys"])
    if is_gguf:
        model = _as_plain_model(model).to(key.dtype)
    _check_finite(key, model)
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # On some CPUs bitsandbytes would repack 4-bit weights when they are first used, with
            # other constants, and no gradient would flow through them from then on.
            layer.support_avx512bf16_for_cpu = False
    # How an answer is written is Sampling's business alone: a repetition penalty that a model ships
    # with would bend it.
    model.generation_config = cast(Any, GenerationConfig)(
        eos_token_id=model.generation_config.eos_token_id
    )
    return cast(
        PreTrainedModel, model if key.quantization or key.device_map else model.to(key.device)
    )


def _loading_options(key: BaseKey) -> dict[str, Any]:
    """Returns the arguments with which Transformers loads a model."""
    options: dict[str, Any] = {"dtype": key.dtype, "trust_remote_code": False}
    if key.path.endswith(".gguf"):
        options |= {"gguf_file": Path(key.path).name, "dtype": torch.float32}
    else:
        options |= {"use_safetensors": True}
    if key.quantization is not None:
        options |= {
            "quantization_config": quantization_settings(key.quantization, key.dtype),
            "device_map": {"": key.device},
        }
    if key.device_map is not None:
        options["device_map"] = (
            key.device_map if isinstance(key.device_map, str) else dict(key.device_map)
        )
    return options


def _check_loaded(key: BaseKey, model: Any, missing_keys: Collection[str]) -> None:
    """Refuses a model that lacks weights, or whose first layer is on no device."""
    if missing := sorted(missing_keys):
        raise ModelError(
            f"Weights are missing: {missing[0]} and {len(missing) - 1} more",
            received=key.path,
            fix="copy the whole model again",
        )
    if key.device_map is not None and model.get_input_embeddings().weight.is_meta:
        raise ModelError(
            "The first layer of a model has to be on a device",
            received=key.device_map,
            fix="give the input embedding a device in device_map",
        )


def _check_finite(key: BaseKey, model: Any) -> None:
    if bad := first_not_finite(model.named_parameters()):
        raise ModelError(
            f"The model holds numbers that are not finite, in {bad}",
            received=key.path,
            fix=(
                "copy or train it again; or choose another dtype, if its weights are too large for"
                f" {key.dtype}"
            ),
        )


def _as_plain_model(model: Any) -> Any:
    """Rebuilds a model that came from a GGUF file, so that it can be trained and saved as any
    other.
    """
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def give_memory_back() -> None:
    """Frees what nobody holds any more, and lets the machine have it."""
    gc.collect()  # modules and their hooks refer to each other, so nothing else would free them now
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(
        OSError, AttributeError
    ):  # glibc alone keeps what is freed, and has a way to ask for it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def in_evaluation(module: PreTrainedModel) -> Iterator[None]:
    """Switches dropout off for the time of a block: a student that is asked in the midst of its
    training answers as after it.
    """
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Keeps the progress bars of Transformers off stderr: the library is silent."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
