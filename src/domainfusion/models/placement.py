"""Where a model computes and in which numbers: device, data type and quantization."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from domainfusion.errors import ConfigurationError, MissingDependencyError
from domainfusion.records import from_json

Quantization = Literal["4bit", "8bit"]
"""How the weights of a teacher are shrunk: to 4-bit NormalFloat (Dettmers et al., 2023, arXiv
2305.14314) or to 8-bit integers (Dettmers et al., 2022, arXiv 2208.07339), by bitsandbytes: on a
GPU, or more slowly on a CPU.
"""


DataType = Literal["auto", "float32", "bfloat16", "float16"]
"""In which numbers a model computes; `auto` is chosen by its files and device."""

DeviceMap = Literal["auto", "balanced", "balanced_low_0", "sequential"]
DEVICE_MAPS = get_args(DeviceMap)
"""The ways in which Accelerate finds by itself what goes to which device."""


def resolve_device(device: str) -> str:
    """Returns `cpu`, `cuda` or `cuda:N`; `auto` is a GPU where there is one.

    Raises:
        ConfigurationError: There is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise ConfigurationError(
            "The device is not known", received=device, allowed="auto, cpu, cuda or cuda:N"
        )
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            "There is no such device here",
            received=device,
            allowed=", ".join(
                ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
            ),
        )
    return device


def resolve_device_map(
    device_map: str | Mapping[str, int | str] | None, device: str
) -> tuple[tuple[str, int | str], ...] | str | None:
    """Returns how a model is spread over devices, in a form that can be compared; None where it is
    on one.

    Raises:
        ConfigurationError: It is not a map of Accelerate's, or a device is given too.
    """
    if device_map is None:
        return None
    if device != "auto":
        raise ConfigurationError(
            "device and device_map both say where the model is",
            received=[device, device_map],
            fix="leave device out",
        )
    if isinstance(device_map, str):
        if device_map not in DEVICE_MAPS:
            raise ConfigurationError(
                "The device_map is not known",
                received=device_map,
                allowed=f"{', '.join(DEVICE_MAPS)}, or a mapping",
            )
        return device_map
    if not device_map:
        raise ConfigurationError(
            "The device_map is empty",
            received=device_map,
            allowed="a device for each part of the model",
        )
    return tuple(sorted(device_map.items()))


def resolve_dtype(dtype: str, device: str, files: Path | None = None) -> torch.dtype:
    """Returns the data type.

    `auto` is float32 for weights that were saved so, as a student of a full training is; for others
    it is bfloat16 where the device computes in it, else float16 on a GPU and float32 on a CPU.

    Raises:
        ConfigurationError: There is no such data type.
    """
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in named:
        return named[dtype]
    if dtype != "auto":
        raise ConfigurationError(
            "The dtype is not known", received=dtype, allowed="auto, " + ", ".join(named)
        )
    if files is not None and saved_dtype(files) == "float32":
        return torch.float32
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _cpu_computes_in_bfloat16() else torch.float32


def saved_dtype(files: Path) -> str | None:
    """Returns the data type that a model's folder was saved in, as its config.json tells it; a GGUF
    file tells none.
    """
    if not files.is_dir():
        return None
    config = from_json((files / "config.json").read_bytes())
    saved = config.get("dtype", config.get("torch_dtype"))
    return saved if isinstance(saved, str) else None


def _cpu_computes_in_bfloat16() -> bool:
    try:
        return " avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def check_quantization(quantization: str | None, files: Path) -> None:
    """Looks at whether a model can be quantized here.

    Raises:
        ConfigurationError: It is asked for in other words, or for a file whose weights are
            quantized already.
        MissingDependencyError: bitsandbytes is not installed.
    """
    if quantization is None:
        return
    if quantization not in ("4bit", "8bit"):
        raise ConfigurationError(
            "The quantization is not known", received=quantization, allowed="None, '4bit' or '8bit'"
        )
    if files.suffix == ".gguf":
        raise ConfigurationError(
            "A GGUF file is quantized already",
            received=quantization,
            fix="leave quantization out, or give the folder of the original",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            "Quantization needs the package bitsandbytes, which is not installed",
            fix="run: pip install 'domainfusion[quantization]'",
        )


def quantization_settings(quantization: Quantization, dtype: torch.dtype) -> Any:
    """Returns what Transformers has to know to quantize while it loads; `dtype` is what is computed
    in.
    """
    build = cast(Any, BitsAndBytesConfig)
    if quantization == "8bit":
        return build(load_in_8bit=True)
    return build(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


LARGEST_PACKED = 2 * 2**30
"""Bytes of weights up to which a model is packed, as its weights then lie in memory twice."""

Packed = Mapping[str, torch.Tensor]
"""The packed weights by the name of their layer."""

_ROWS = 128
"""The number of rows for which oneDNN chooses the order; other numbers are right, too."""


def pack(module: PreTrainedModel) -> Packed:
    """Returns the packed weights of the linear layers that gain by it: none unless the model is in
    bfloat16 on a CPU, small enough, and oneDNN there.
    """
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) is torch.nn.Linear and ".lora_" not in name
    }
    weights = [layer.weight for layer in layers.values()]
    if (
        not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        or any(weight.dtype != torch.bfloat16 or weight.device.type != "cpu" for weight in weights)
        or sum(weight.nbytes for weight in weights) > LARGEST_PACKED
    ):
        return {}
    reorder: Callable[..., torch.Tensor] = torch.ops.mkldnn._reorder_linear_weight
    with torch.inference_mode():
        return {name: reorder(layer.weight, _ROWS) for name, layer in layers.items()}


@contextmanager
def computing_with(module: PreTrainedModel, packed: Packed) -> Iterator[None]:
    """Has the layers compute with their packed weights for the time of a block, in which no
    gradient is asked for.
    """
    layers: list[Any] = [module.get_submodule(name) for name in packed]
    for layer, weight in zip(layers, packed.values(), strict=True):
        layer.forward = _multiplied_by(weight, layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _multiplied_by(
    weight: torch.Tensor, bias: torch.Tensor | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    multiply: Callable[..., torch.Tensor] = torch.ops.mkldnn._linear_pointwise
    return lambda states: multiply(states, weight, bias, "none", [], "")
