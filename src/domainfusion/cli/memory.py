"""The memory that a recipe takes: every base once, the adapters on it, and what training adds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from safetensors import safe_open

from domainfusion.errors import ModelError
from domainfusion.recipe.sections import ModelSection, Recipe, StudentSection
from domainfusion.recipe.values import base_of, is_hub_id

LORA_FROM_PARAMETERS = 100_000_000
"""The size from which on the trainer's `adaptation: auto` is LoRA."""

BYTES_TO_TRAIN = 16
"""Weight, gradient and the two moments of Adam, four bytes each, for every parameter that is
trained.
"""


BYTES_WHEN_QUANTIZED = {"8bit": 1.0, "4bit": 0.5 + 0.127 / 8}
"""Of a weight in a linear layer; 4-bit weights have 0.127 bits of constants each (QLoRA, arXiv
2305.14314, double quantization).
"""


@dataclass(frozen=True)
class Memory:
    """The memory of one thing, in bytes: it depends on the data type that the device computes in.

    Attributes:
        what: What needs it.
        low: With the smallest data type it may get.
        high: With the largest; None where the size is not known.
    """

    what: str
    low: int
    high: int | None


def memory_of(recipe: Recipe) -> tuple[Memory, ...]:
    """Estimates the memory that a recipe takes, from the sizes that the files of its models
    declare.
    """
    return (*_weights(recipe), _training(recipe))


def _weights(recipe: Recipe) -> Iterator[Memory]:
    sections: list[StudentSection] = [
        recipe.student,
        *(model for _, model in recipe.models() if isinstance(model, ModelSection)),
    ]
    bases: dict[_Base, list[StudentSection]] = {}
    for section in sections:
        bases.setdefault(_Base.of(section), []).append(section)
    for base, users in bases.items():
        in_words = f" in {base.quantization}" if base.quantization else ""
        yield Memory(f"weights of {Path(base.path).name}{in_words}", *base.size())
        # Into quantized weights no adapter is merged, so nothing of them is kept aside.
        if not base.quantization and any(user.is_adapter for user in users):
            yield Memory(f"copy of {Path(base.path).name} beside a merged adapter", *base.size())
    for adapter in sorted({section.path for section in sections if section.is_adapter}):
        yield Memory(f"adapter {Path(adapter).name}", *_bytes(_parameters(adapter), "float32"))


class _Base(NamedTuple):
    """Weights that models share: what is loaded, in which numbers, and where."""

    path: str
    dtype: str
    device: str
    quantization: str | None

    @classmethod
    def of(cls, section: StudentSection) -> _Base:
        return cls(_base_path(section), section.dtype, section.device, section.quantization)

    def size(self) -> tuple[int, int | None]:
        shapes = _shapes(self.path)
        if shapes is None:
            return 0, None
        quantized = sum(map(math.prod, _linear(shapes))) if self.quantization else 0
        low, high = _bytes(sum(map(math.prod, shapes.values())) - quantized, self.dtype)
        shrunk = math.ceil(quantized * BYTES_WHEN_QUANTIZED.get(self.quantization or "", 0))
        return low + shrunk, None if high is None else high + shrunk


def _training(recipe: Recipe) -> Memory:
    shapes = _shapes(_base_path(recipe.student))
    if shapes is None:
        return Memory("training", 0, None)
    trainer, parameters = recipe.trainer, sum(map(math.prod, shapes.values()))
    is_small = parameters < LORA_FROM_PARAMETERS and not recipe.student.quantization
    if trainer.adaptation == "full" or (trainer.adaptation == "auto" and is_small):
        return Memory("training of all weights", *[parameters * BYTES_TO_TRAIN] * 2)
    adapters = [
        teacher.path
        for teacher in recipe.teachers.values()
        if isinstance(teacher, ModelSection) and teacher.is_adapter
    ]
    if trainer.initialization != "base" and len(adapters) == len(recipe.teachers):
        own = [recipe.student.path] if recipe.student.is_adapter else []
        trained = sum(_parameters(path) or 0 for path in dict.fromkeys([*own, *adapters]))
        return Memory("training of the experts' merged adapter", *[trained * BYTES_TO_TRAIN] * 2)
    trained = sum(trainer.lora_rank * sum(shape) for shape in _linear(shapes))
    return Memory(
        f"training of an adapter of rank {trainer.lora_rank}", *[trained * BYTES_TO_TRAIN] * 2
    )


def _linear(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Returns the shapes of the layers that adapters stand on and that are quantized: all matrices
    but embedding and head.
    """
    return [
        shape
        for name, shape in shapes.items()
        if len(shape) == 2 and not any(word in name for word in ("embed", "lm_head"))
    ]


def _base_path(section: StudentSection) -> str:
    if not section.is_adapter:
        return section.path
    return section.base_model or base_of(section.path)


def _bytes(parameters: int | None, dtype: str) -> tuple[int, int | None]:
    if parameters is None:
        return 0, None
    low, high = {"auto": (2, 4), "float32": (4, 4)}.get(dtype, (2, 2))
    return parameters * low, parameters * high


def _parameters(path: str) -> int | None:
    """Returns the number of weights in a folder or GGUF file; None where it is not on this
    machine.
    """
    shapes = _shapes(path)
    return None if shapes is None else sum(map(math.prod, shapes.values()))


def _shapes(path: str) -> dict[str, tuple[int, ...]] | None:
    """Returns the shape of each weight, from the headers of the files alone."""
    place = Path(path)
    if place.suffix == ".gguf" and place.is_file():
        return _gguf_shapes(place)
    if not place.is_dir() and is_hub_id(path):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(path, "config.json")
        place = Path(found).parent if isinstance(found, str) else place
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else []
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with cast(Any, safe_open)(file, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 - the file is not a mapping
                shapes[name] = tuple(weights.get_slice(name).get_shape())
    return shapes or None


def _gguf_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each weight of a GGUF file.

    Raises:
        ModelError: Its header is damaged, or tells of more than the file holds.
    """
    from gguf import GGUFReader

    class Bounded(GGUFReader):
        """A reader that ends at the end of the file: the library's own reads nothing from there
        on, as often as a header's count says, which can be 2⁶⁴ times.
        """

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            size = np.dtype(dtype).itemsize * int(count)
            if offset + size > len(self.data):
                raise ValueError("it describes more than the file holds")
            return super()._get(offset, dtype, count, override_order)

    try:
        tensors = Bounded(path).tensors
        return {tensor.name: tuple(int(length) for length in tensor.shape) for tensor in tensors}
    # Whatever a damaged header makes the library raise.
    except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"The header of the GGUF file can't be read: {error}",
            received=str(path),
            fix="download or convert it again",
        ) from error
