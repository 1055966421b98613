"""Local models: any causal language model that Transformers loads, from the hub, a folder, a GGUF
file or a PEFT adapter.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self, cast, get_args

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError, advice_on
from domainfusion.files import make_readable
from domainfusion.models.adapter_settings import SETTINGS_FILE, WEIGHTS_FILE, read_settings
from domainfusion.models.adapters import (
    UNTRAINED,
    changes_nothing,
    check_new_adapter,
)
from domainfusion.models.answering import (
    AnsweringModel,
)
from domainfusion.models.base import Adaptation
from domainfusion.models.engine import stop_engines
from domainfusion.models.placement import DataType, resolve_dtype, saved_dtype
from domainfusion.models.ray_pool import stop_pools
from domainfusion.models.shared_base import (
    SharedBase,
    in_evaluation,
    silent_transformers,
)
from domainfusion.models.summing import (
    LoraFactors,
    TaskVector,
    adapted_layers,
    add_task_vectors,
    check_fine_tune,
    factors_of,
    is_linear,
    is_matrix,
    masks_of,
    own_weights,
    ranks_of,
    write_factors,
)
from domainfusion.types import fingerprint


class HuggingFaceModel(AnsweringModel):
    """A causal language model on this machine: a teacher, a generation model, or a student.

    Construction checks that the model is there; its weights are loaded on first use. Models with
    the same base, data type and device share the base's weights in memory.

    Args:
        model_path: A folder, a `.gguf` file, a hub id, or the folder or hub id of a PEFT adapter.
        base_model: Where an adapter's base is; by default where the adapter's own configuration
            says.
        revision: Branch, tag or commit of a hub id.
        name: What reports call it; by default the last part of `model_path`.
        system_prompt: A system message put before every conversation that has none: a prompted
            model is an expert too.
        chat_template: A Jinja chat template in place of the model's own, which for an adapter is
            the one in its folder, else its base's. A model that has none speaks ChatML
            (`chat_template.CHATML_TEMPLATE`), without a default system message.
        template_arguments: Values of the template's variables, such as `{"enable_thinking":
            False}`.
        date: The date that the template writes, if it writes one, as `YYYY-MM-DD`; by default that
            of the day on which the model, or the run that it is in, was made. So a prompt is the
            same tomorrow, and a student is asked with what it was trained on.
        dtype: `auto`, `float32`, `bfloat16` or `float16`. `auto` keeps weights that were saved in
            float32, and is bfloat16 for others where the device computes in it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        quantization: `4bit` or `8bit`, for models that would not fit otherwise; a student is then
            trained in a LoRA adapter on them.
        device_map: How Accelerate spreads a model that is larger than one device: `auto`,
            `balanced`, `balanced_low_0`, `sequential`, or a device for each part (`cpu` and `disk`
            among them, from where weights come when they are used). Such a model is not trained.
        batch_size: Rows that are generated or scored together; by default as many as hold 16,384
            tokens, from 32 to 256, to generate, and 32 to score.
        engine: `vllm` or `llamacpp`: an inference engine, started as a server of its own on this
            machine, writes the answers; an `Engine` says where its command is. Tokens are scored,
            and a student is trained, without it.

    Raises:
        ModelError: There is no model at `model_path`, or it is of a kind that is not loaded.
        ConfigurationError: An argument is outside of what is allowed.
        MissingDependencyError: Quantization is asked for, and bitsandbytes is not installed.

    Example:
        ```python
        model = HuggingFaceModel("HuggingFaceTB/SmolLM2-135M-Instruct")
        print(model.ask("What is the capital of France?"))
        ```
    """

    # Training

    def trainable_copy(self, adaptation: Adaptation | None) -> Self:
        """Returns a model that starts as this one and can be trained, while this one stays as it
        is.

        An adapter is a student too: it is trained on, in an adapter of its own rank and the new
        one's together, or merged into a copy of all weights. A quantized student is trained in a
        LoRA adapter (QLoRA; Dettmers et al., 2023, arXiv 2305.14314).

        Args:
            adaptation: What is trained, and where it starts; None trains a copy of all weights.

        Raises:
            CapabilityError: See `check_start`; or the model's logits are made in a way that the
                loss does not know.
        """
        adaptation = adaptation or Adaptation(all_weights=True)
        self.check_start(adaptation)
        stop_engines()  # their memory is needed now
        stop_pools()
        if self._adapter:
            self._load()  # the copy starts from this model's adapter
        student = copy(self)
        student._trainable, student.name, student._fingerprint = True, "student", ""
        student._frozen_share = adaptation.frozen_share
        start = [self._adapter, self._fingerprints(adaptation), adaptation.merge_weight]
        student._start = fingerprint([*start, "kept"] if adaptation.keeps_start else start)
        owner = uuid.uuid4().hex
        if adaptation.all_weights or self._whole_experts(adaptation):
            student._start_on_own_base(owner, adaptation)
        if adaptation.all_weights:
            student._load().module.requires_grad_(True)
        else:
            parts = {} if student._key.owner else student._adapters_to_sum(adaptation)
            student._adapter = f"student_{owner}"
            student._create_adapter(adaptation, parts)
            student._held = student._load().lend(student._adapter)
        with student._load().using(None) as module, in_evaluation(module):
            student._check_projection(module)
        return student

    def check_start(self, adaptation: Adaptation) -> None:
        """Looks at whether a copy of this model can be trained so; little is read for it, and
        nothing loaded.

        Args:
            adaptation: What is to be trained, and where it starts.

        Raises:
            CapabilityError: This model is a trained copy itself; all weights of a quantized model
                are to be trained; or an expert to start from is neither a LoRA adapter on this
                model's base nor a whole fine-tune of it, or one that can't be summed exactly.
        """
        if self._trainable:
            raise CapabilityError(
                "A student in training can't be copied",
                received=self.name,
                fix="save it, and load what was saved",
            )
        if self._key.device_map is not None:
            raise CapabilityError(
                "A student is trained on one device",
                received=self._key.device_map,
                fix="leave device_map out",
            )
        wholes = self._whole_experts(adaptation)
        if self._key.quantization and (adaptation.all_weights or wholes):
            raise CapabilityError(
                "The weights of a quantized student stay as they are"
                + (", so no whole fine-tune can be added to them" if wholes else ""),
                received=self._key.quantization,
                allowed="a LoRA adapter on them",
                fix=(
                    "leave quantization out, or use adaptation='lora' with adapters as experts, or"
                    " initialization='base'"
                ),
            )
        adapters = self._adapter_experts(adaptation)
        strangers = [
            expert for expert in adaptation.start_from if expert not in (*adapters, *wholes)
        ]
        if strangers:
            raise CapabilityError(
                "Only adapters on the student's own base, and whole fine-tunes of it, can be merged",
                received=[_placed(one) for one in strangers],
                allowed=(
                    f"LoRA adapters on {self._files.base_path}, in {self._key.dtype} on"
                    f" {self._key.device}, or fine-tunes of it"
                ),
                fix="leave it out, or start a training from the base (initialization='base')",
            )
        if not adaptation.all_weights:
            check_new_adapter(_fresh_adapter(adaptation), self._files.base)
        is_summed = bool(adapters or wholes) or not adaptation.all_weights
        for model in (
            *adapters,
            *([self] if self._files.adapter is not None and is_summed else []),
        ):
            if read_settings(cast(Path, model._files.adapter)).get("use_dora"):
                raise CapabilityError(
                    "A DoRA adapter can't be summed with others: its change is not a product of two"
                    " matrices",
                    received=model.model_path,
                    allowed="LoRA adapters",
                    fix=(
                        "use initialization='base'; to train a DoRA adapter on, use"
                        " adaptation='full' too"
                    ),
                )
        for expert in dict.fromkeys(wholes):
            check_fine_tune(self._files.base, expert._files.base, expert.model_path)

    def _adapter_experts(self, adaptation: Adaptation) -> list[HuggingFaceModel]:
        def fits(expert: HuggingFaceModel) -> bool:
            # On a base of its own the student loads them anew; on a shared one they have to be
            # there as they are.
            return (
                expert._key.path == self._key.path
                if adaptation.all_weights
                else expert._key == self._key
            )

        local = [expert for expert in adaptation.start_from if isinstance(expert, HuggingFaceModel)]
        return [
            expert
            for expert in local
            if expert._files.adapter is not None and not expert._trainable and fits(expert)
        ]

    def _whole_experts(self, adaptation: Adaptation) -> list[HuggingFaceModel]:
        local = [
            expert
            for expert in adaptation.start_from
            if isinstance(expert, HuggingFaceModel) and not expert._trainable
        ]
        return [
            expert
            for expert in local
            if expert._files.adapter is None and expert._files.base != self._files.base
        ]

    def _fingerprints(self, adaptation: Adaptation) -> list[str]:
        return [expert.fingerprint for expert in adaptation.start_from]

    def _start_on_own_base(self, owner: str, adaptation: Adaptation) -> None:
        """Gives a student weights of its own: the base's, with its own adapter, its adapters' and
        its fine-tunes' changes in them.
        """
        folders = {} if self._files.adapter is None else {self._files.adapter: 1.0}
        for expert in self._adapter_experts(adaptation):
            folders.setdefault(cast(Path, expert._files.adapter), adaptation.merge_weight)
        self._adapter = ""
        self._key = replace(
            self._key,
            dtype=torch.float32 if adaptation.all_weights else self._key.dtype,
            owner=owner,
        )
        self._base = base = SharedBase.get(self._key)
        parts = {f"part_{number}": folder for number, folder in enumerate(folders)}
        for part, folder in parts.items():
            base.load_adapter(folder, part)
        if wholes := self._whole_experts(adaptation):
            places = list(dict.fromkeys(expert._files.base for expert in wholes))
            add_task_vectors(base.module, self._files.base, places, adaptation.merge_weight)
        if list(folders.values()) in ([], [1.0]):  # one adapter in full may be of any kind
            start = "part_0"
        else:
            start = "start"
            base.combine_adapters(start, list(parts), list(folders.values()))
            for part in parts:
                base.remove_adapter(part)
        if parts:
            base.absorb(start)

    def _adapters_to_sum(self, adaptation: Adaptation) -> dict[str, float]:
        """Returns the adapters on the base that the student starts as the sum of, each with its
        weight; its own counts in full.
        """
        parts = {self._adapter: 1.0} if self._adapter else {}
        self._load()
        for expert in self._adapter_experts(adaptation):
            expert._load()
            parts.setdefault(
                expert._adapter, adaptation.merge_weight
            )  # who is the expert of two domains counts once
        return parts

    def _create_adapter(self, adaptation: Adaptation, parts: Mapping[str, float]) -> None:
        base = self._base = SharedBase.get(self._key)
        is_fresh = not adaptation.start_from or bool(self._key.owner) or adaptation.keeps_start
        config = _fresh_adapter(adaptation)
        if not parts:
            base.create_adapter(self._adapter, config)
        elif not is_fresh:
            base.combine_adapters(
                self._adapter, list(parts), list(parts.values()), dropout=adaptation.dropout
            )
        else:
            fresh = f"fresh_{self._adapter}"
            base.create_adapter(fresh, config)
            try:
                base.combine_adapters(
                    self._adapter,
                    [*parts, fresh],
                    [*parts.values(), 1.0],
                    dropout=adaptation.dropout,
                )
            finally:
                base.remove_adapter(fresh)
        if adaptation.keeps_start:
            self._kept_ranks = ranks_of(base.module, list(parts))

    def gradient_masks(self) -> dict[str, torch.Tensor]:
        """Returns what the gradients of the weights that are trained in part are multiplied by; see
        `PartlyTrained`.
        """
        module = self._load().module
        by_parameter = {
            id(parameter): mask
            for name, rank in self._kept_ranks.items()
            for parameter, mask in masks_of(module.get_submodule(name), self._adapter, rank)
        }
        return {
            name: by_parameter[id(parameter)]
            for name, parameter in self.trainable_module().named_parameters()
            if parameter.requires_grad and id(parameter) in by_parameter
        }

    # Merging

    def lora_factors(self) -> dict[str, LoraFactors]:
        """Returns the update of every linear layer that this model's LoRA adapter stands on, by the
        layer's name.

        Raises:
            CapabilityError: This model is not a LoRA adapter, or a DoRA adapter.
        """
        return {
            name: factors_of(layer, self._adapter) for name, layer in self._linear_layers().items()
        }

    def load_lora_factors(self, factors: Mapping[str, LoraFactors]) -> None:
        """Puts other updates in the place of a trainable copy's, layer by layer; ranks stay."""
        if not (self._trainable and self._adapter):
            raise CapabilityError(
                "The weights of this model are not for changing",
                received=self,
                fix="use trainable_copy(...) with an adapter",
            )
        module = self._load().module
        for name, update in factors.items():
            write_factors(module.get_submodule(name), self._adapter, update)

    def matrices(self) -> dict[str, OwnWeight]:
        """Returns the model's own weights that can be merged, by their names in its files.

        Raises:
            CapabilityError: Transformers loads this kind of model under other names than those in
                its files.
        """
        module = self._load().module
        users: dict[int, list[tuple[str, torch.nn.Module]]] = {}
        for name, layer in module.named_modules():
            weight = getattr(layer, "weight", None)  # of any module of PyTorch: most have none
            if isinstance(weight, torch.Tensor):
                users.setdefault(id(weight), []).append((name.removesuffix(".base_layer"), layer))
        found = {}
        for name, weight in own_weights(module, self._files.base).items():
            own = users.get(id(weight), [])
            # A weight of tied embeddings is multiplied with in one place, and looked up in another.
            is_one = bool(own) and all(is_matrix(layer) for _, layer in own)
            layer = next((name for name, _ in own), "") if is_one else ""
            found[name] = OwnWeight(layer, any(isinstance(one, Conv1D) for _, one in own))
        return found

    def change_of(self, base: HuggingFaceModel) -> Callable[[str], torch.Tensor | None]:
        """Returns a function that gives what this expert changes of one weight of a base, by the
        weight's name in the base's files; None where it changes nothing.

        Args:
            base: The base, of which this model is an adapter or a whole fine-tune.
        """
        if self.is_whole:
            return TaskVector(base._files.base, self._files.base).change
        # PEFT's wrapper of a bare parameter names it; what it adapts otherwise is called `weight`.
        layers = {
            f"{name.replace('.base_layer', '')}.{getattr(layer, 'parameter_name', 'weight')}": layer
            for name, layer in self._load().tuner_layers()
            if self._adapter in layer.r
        }

        def change(name: str) -> torch.Tensor | None:
            if name not in layers:
                return None
            with torch.no_grad():
                return cast(torch.Tensor, layers[name].get_delta_weight(self._adapter)).double()

        return change

    @torch.no_grad()
    def add_to_weights(self, changes: Iterable[tuple[str, torch.Tensor]], weight: float) -> None:
        """Adds λ times the changes to the weights of a trainable copy on a base of its own; each is
        rounded once.

        Args:
            changes: What is added, by the weight's name in the base's files.
            weight: λ.
        """
        if not (self._trainable and self._key.owner):
            raise CapabilityError(
                "The weights of this model are not for changing",
                received=self,
                fix="use trainable_copy(...)",
            )
        self._load().restore()
        own = own_weights(self._load().module, self._files.base)
        for name, change in changes:
            target = own[name]
            target.copy_(target.double() + weight * change.to(target.device).double())

    def note_merge(self, method: str, weight: float) -> None:
        """Notes in a trainable copy, and in its fingerprint, of which merge it was made."""
        self.merged_as = (method, weight)
        self._start = fingerprint([self._start, method, weight])
        self._fingerprint = ""

    def _linear_layers(self) -> dict[str, Any]:
        if not self._adapter:
            raise CapabilityError(
                "This model is not a LoRA adapter", received=self, allowed="a LoRA adapter"
            )
        base = self._load()
        names = adapted_layers(base.module, [self._adapter])
        layers = {name: base.module.get_submodule(name) for name in names}
        return {name: layer for name, layer in layers.items() if is_linear(layer)}

    def trainable_module(self) -> PreTrainedModel:
        """Returns a module to train; see `TrainableModel`.

        Raises:
            CapabilityError: This model is not a trainable copy.
        """
        base = self._load()
        if not self._trainable:
            raise CapabilityError(
                "This model is not for training",
                received=self,
                fix="train model.trainable_copy(...)",
            )
        stop_engines()
        own = {
            id(parameter) for name, parameter in base.module.named_parameters() if self._owns(name)
        }
        module = base.training_view(self._adapter)
        frozen = {id(parameter) for parameter in _lowest_weights(module, self._frozen_share)}
        for parameter in module.parameters():
            is_own = not self._adapter or id(parameter) in own
            parameter.requires_grad_(is_own and id(parameter) not in frozen)
        return module

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Returns the trained weights by name, on the CPU: a copy of all of them, or of those of
        the adapter.
        """
        return {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in self._trained_state().items()
        }

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what `trained_state` returned."""
        current = self._trained_state()
        if {name: tensor.shape for name, tensor in current.items()} != {
            name: tensor.shape for name, tensor in state.items()
        }:
            raise ModelError(
                "The saved weights are of another model", fix="train it again in a new output_dir"
            )
        if self._adapter:
            self._load().activate(
                self._adapter, merge=False
            )  # or the base would keep the old weights merged in
        with torch.no_grad():
            for name, tensor in state.items():
                current[name].copy_(tensor)

    # Saving

    def save(self, path: str | Path, *, merge: bool = True, dtype: DataType | None = None) -> None:
        """Writes a folder that plain Transformers loads, with tokenizer, chat template and
        generation settings.

        Args:
            path: The folder; it is made if it is not there.
            merge: Merge an adapter into the base's weights; with False the folder is that of a PEFT
                adapter.
            dtype: The numbers of whole weights; by default those that the base was saved in, or
                those that it computes in where they are smaller. Adapters stay as they are.

        What was trained on a quantized base is merged into the base in full precision.

        Raises:
            CapabilityError: The model is a quantized base itself; or an adapter is to be saved
                whose base lies nowhere.
            ConfigurationError: Whole weights would come to lie beside an adapter, which a reader
                would put on them.
            ModelError: The files can't be written.
        """
        folder = Path(path)
        if (folder / SETTINGS_FILE).is_file() and (merge or not self._adapter):
            raise ConfigurationError(
                "The folder holds an adapter",
                received=str(path),
                fix="give another folder, or delete this one",
            )
        if self._key.quantization and not self._adapter:
            raise CapabilityError(
                "A quantized base is not saved",
                received=self._key.quantization,
                fix="copy the folder it came from",
            )
        if self._adapter and self._key.owner and not merge:
            raise CapabilityError(
                "The student's adapter stands on a merge of whole fine-tunes, which lies in no"
                " folder",
                fix="save it with merge=True",
            )
        numbers = self._dtype_to_save(dtype)
        with _save_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if self._adapter and not merge:
                self._save_adapter(folder)
            elif self._key.quantization:
                self._save_in_full_precision(folder, numbers)
            else:
                self._save_weights(folder, numbers)
            self.tokenizer.save_pretrained(folder)
            make_readable(folder)

    def _dtype_to_save(self, dtype: DataType | None) -> torch.dtype:
        if dtype not in (None, "auto"):
            return resolve_dtype(dtype, "cpu")
        computed, saved = self._key.dtype, saved_dtype(self._files.base)
        is_known = saved is not None and saved in get_args(DataType)
        base = resolve_dtype(str(saved), "cpu") if is_known else computed
        return base if base.itemsize < computed.itemsize else computed

    def _save_weights(self, folder: Path, dtype: torch.dtype) -> None:
        settings = cast(Any, GenerationConfig)(
            eos_token_id=sorted(self.end_tokens), pad_token_id=self.tokenizer.pad_token_id
        )
        with self._load().using(self._adapter or None) as module, silent_transformers():
            state = _in_dtype(
                {
                    name.replace(".base_layer", ""): tensor
                    for name, tensor in module.state_dict().items()
                    if "lora_" not in name
                },
                dtype,
            )
            skeleton = _skeleton_of(module, dtype)
            skeleton.generation_config = settings
            # Training switches the cache off for the process, and a resumed one may not train.
            # Some remote configurations do not name it; Transformers then takes it to be on.
            skeleton.config.use_cache = bool(getattr(self._read_config(), "use_cache", True))
            skeleton.save_pretrained(folder, state_dict=state)

    def _save_in_full_precision(self, folder: Path, dtype: torch.dtype) -> None:
        """Saves the base as its files hold it, with the adapter merged into it that was trained on
        its quantized weights.
        """
        whole = copy(self)
        whole._key = replace(self._key, quantization=None)
        whole._base = SharedBase.get(whole._key)
        whole._trainable = True  # its adapter is this one's, and is read from no file
        whole._base.create_adapter(
            self._adapter, deepcopy(self._load().adapter_config(self._adapter))
        )
        try:
            whole.load_trained_state(self.trained_state())
            whole._save_weights(folder, dtype)
        finally:
            whole._base.remove_adapter(self._adapter)

    def _save_adapter(self, folder: Path) -> None:
        config = copy(self._load().adapter_config(self._adapter))
        base = self._files.base_path
        config.base_model_name_or_path = (
            str(Path(base).absolute()) if os.path.exists(base) else base
        )
        if not isinstance(config.target_modules, str):
            config.target_modules = sorted(
                config.target_modules
            )  # a set's order would make two equal adapters differ
        config.save_pretrained(folder)
        state = {
            f"base_model.model.{name}": tensor for name, tensor in self.trained_state().items()
        }
        note = {UNTRAINED: "true"} if changes_nothing(state) else {}
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt", **note})


@contextmanager
def _save_errors(folder: Path) -> Iterator[None]:
    """Raises one clear error where a model can't be written.

    Raises:
        ModelError: It can't.
    """
    try:
        yield
    except Exception as error:
        # Writers in Rust raise errors of their own, tokenizers' a bare Exception, with the system's
        # number in words.
        if not isinstance(error, OSError) and "os error" not in str(error):
            raise
        raise ModelError(
            f"The model could not be saved: {error}", received=str(folder), fix=advice_on(error)
        ) from error


class OwnWeight(NamedTuple):
    """A weight of a model.

    Attributes:
        layer: The linear layer that it is the matrix of; empty where it is something else, such as
            an embedding, also one that is tied to the head.
        is_transposed: Whether it is laid out as (in, out).
    """

    layer: str
    is_transposed: bool


def _placed(model: object) -> object:
    """Returns a model as a message about bases names it: with its base and data type."""
    if not isinstance(model, HuggingFaceModel) or model.is_whole:
        return model
    key = model._key
    return f"{model!r}, an adapter on {key.path} in {key.dtype} on {key.device}"


def _fresh_adapter(adaptation: Adaptation) -> LoraConfig:
    return LoraConfig(
        r=adaptation.rank,
        lora_alpha=adaptation.alpha,
        lora_dropout=adaptation.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _lowest_weights(module: PreTrainedModel, share: float) -> list[torch.nn.Parameter]:
    """Returns the weights of the input embeddings and of the first layers of the decoder, of which
    it is a share; none for a share of 0.

    Raises:
        CapabilityError: The model has no list of layers as long as its settings say.
    """
    if share == 0:
        return []
    count = int(module.config.get_text_config().num_hidden_layers)
    parts = module.get_decoder().modules()  # type: ignore[no-untyped-call]
    lists = (part for part in parts if isinstance(part, torch.nn.ModuleList))
    layers = next((part for part in lists if len(part) == count), None)
    if layers is None:
        raise CapabilityError(
            "The layers of this model are not found, so none of them can be left as they are",
            received=type(module).__name__,
            fix="set frozen_share=0",
        )
    lowest = [module.get_input_embeddings(), *layers[: int(share * count)]]
    return [parameter for part in lowest for parameter in part.parameters()]


def _skeleton_of(module: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Returns a model of the same class and settings without weights of its own: what
    `save_pretrained` needs beside the weights.
    """
    config = deepcopy(module.config)
    if _shares(module.get_input_embeddings()) != _shares(module.get_output_embeddings()):  # type: ignore[no-untyped-call]
        # Where an adapter on one of two tied embeddings is merged, they are two.
        for part in (config, cast(Any, config).get_text_config()):
            part.tie_word_embeddings = False
    with torch.device("meta"):
        return cast(PreTrainedModel, cast(Any, type(module)(cast(Any, config))).to(dtype))


def _in_dtype(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Returns the tensors in another data type; what shared its memory shares it still."""
    converted: dict[tuple[int, torch.Size], torch.Tensor] = {}
    found = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape)
        if not tensor.is_floating_point() or tensor.dtype == dtype:
            found[name] = tensor
        else:
            found[name] = converted.setdefault(place, tensor.to(dtype))
    return found


def _shares(layer: Any) -> int:
    """Returns what two layers have in common that compute with one weight."""
    return id(layer.weight)


class LlamaModel(HuggingFaceModel):
    """A local model of the Llama family, or any other causal language model that Transformers
    loads.

    See `HuggingFaceModel` for the arguments.

    Example:
        ```python
        teacher = LlamaModel(model_path="path/to/biomechanics-expert")
        ```
    """
