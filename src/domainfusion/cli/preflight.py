"""What is known of a recipe before its run begins: keys that are missing, what the report will not be
able to say, settings without effect, and the memory that it takes: every base once, the adapters on
it, and what training adds. Files are read; no model is loaded, and nothing is sent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from safetensors import safe_open

from domainfusion.distillation.examples import read_examples
from domainfusion.errors import ModelError
from domainfusion.recipe.sections import (
    JUDGE,
    APISection,
    CuratedSection,
    EngineSection,
    EvaluationSection,
    ModelSection,
    Recipe,
    StudentSection,
)
from domainfusion.recipe.values import base_of, is_hub_id
from domainfusion.types import Example

LOWEST_SURE = 0.95
"""A lower end of an interval that needs no note: the margin of the verdict."""


def notes_on(recipe: Recipe) -> list[str]:
    """Returns what whoever starts the recipe should know first, a sentence or two each.

    The files of a recipe that was read are known to be readable.
    """
    return [*_keys(recipe), *_tests(recipe), *_without_effect(recipe)]


def check_commands(recipe: Recipe) -> None:
    """Looks for the commands of the recipe's engines.

    Raises:
        ModelError: One is not there, or can't be run.
        MissingDependencyError: The client that asks them is not installed.
    """
    for _, section in recipe.models():
        if isinstance(section, ModelSection) and isinstance(section.engine, EngineSection):
            section.engine.engine().check()


def _keys(recipe: Recipe) -> Iterator[str]:
    """Yields the variables of keys that are not set, each once."""
    needed: dict[str, str] = {}
    for _, section in recipe.models():
        if isinstance(section, APISection) and section.api_key_env is not None:
            needed.setdefault(section.api_key_env, section.called)
    for variable, model in needed.items():
        if not os.environ.get(variable):
            yield f"The environment variable {variable}, with the key of {model}, is not set."


def _tests(recipe: Recipe) -> Iterator[str]:
    evaluation = recipe.evaluation
    if evaluation is None:
        yield "The evaluation is off: the report will not say what the student retained."
        return
    if evaluation.test_examples is None:
        return
    examples = list(read_examples(evaluation.test_examples))
    for domain in recipe.domains:
        own = [example for example in examples if example.domains == (domain,)]
        yield from _of_domain(domain, own)
    if len(recipe.domains) > 1 and not any(example.is_cross_domain for example in examples):
        yield (
            "No test example needs several domains: the report will not say how well the student"
            " joins them."
        )
    yield from _trained_on(recipe, examples)


def _of_domain(domain: str, examples: Sequence[Example]) -> Iterator[str]:
    """Yields what the test examples of a domain leave open."""
    if not examples:
        yield (
            f"{domain} has no test example of its own: the report will not say how much of its"
            " expertise is retained."
        )
        return
    graded = sum(example.has_reference for example in examples)
    if not graded:
        count = "Its only test example" if len(examples) == 1 else f"All {len(examples):,}"
        rest = "has no reference" if len(examples) == 1 else "test examples lack a reference"
        yield f"{domain}: {count} {rest}, so its accuracy and retention will stay unknown."
        return
    # The exact interval of n right answers of n begins at 0.025^(1/n) (Clopper and Pearson).
    lower = 0.025 ** (1 / graded)
    if lower < LOWEST_SURE:
        noun = "test example has" if graded == 1 else "test examples have"
        yield (
            f"{domain}: {graded:,} {noun} a reference. Even where every answer is right, the"
            f" interval of its accuracy begins at {lower:.0%}."
        )


def _trained_on(recipe: Recipe, tests: Sequence[Example]) -> Iterator[str]:
    """Yields how many test examples stand in the files of training examples."""
    trained: set[str] = set()
    for section in recipe.generators:
        if isinstance(section, CuratedSection) and section.review is None:
            source = section.file or section.examples or []
            found = read_examples(source, domain=section.domain, fields=section.fields)
            trained |= {_normal(example) for example in found}
    both = [example for example in tests if _normal(example) in trained]
    if both:
        yield (
            f"{len(both):,} of {len(tests):,} test examples are training examples too, first"
            f" {both[0].query[:60]!r}: they are left out of training."
        )


def _normal(example: Example) -> str:
    return " ".join(example.query.casefold().split())


def _without_effect(recipe: Recipe) -> Iterator[str]:
    """Yields settings that were given and that nothing reads."""
    if recipe.responses.temperature == 0 and recipe.responses.top_p != 1:
        yield "responses.top_p has no effect, as temperature: 0 draws nothing."
    trainer = recipe.trainer
    if trainer.adaptation == "full":
        for key in ("lora_rank", "lora_alpha", "lora_dropout"):
            field = type(trainer).model_fields.get(key)
            if field is not None and getattr(trainer, key) != field.default:
                yield f"trainer.{key} has no effect with adaptation: full."
    field = type(trainer).model_fields.get("merge_method")
    is_given = field is not None and trainer.merge_method != field.default
    if trainer.initialization == "base" and is_given:
        yield "trainer.merge_method has no effect with initialization: base."
    if recipe.evaluation is not None:
        yield from _idle_measures(recipe, recipe.evaluation)


def _idle_measures(recipe: Recipe, evaluation: EvaluationSection) -> Iterator[str]:
    used = (evaluation.metric, *evaluation.metrics.values(), evaluation.coherence)
    if evaluation.judge is not None and JUDGE not in used:
        yield (
            "evaluation.judge has no effect, as neither a metric nor coherence is"
            f" {JUDGE!r}: write metric: judge or coherence: judge."
        )
    fields = type(evaluation).model_fields
    is_default = evaluation.reference_model == fields["reference_model"].default
    if evaluation.coherence != "model" and not is_default:
        yield "evaluation.reference_model has no effect without coherence: model."
    has_all = all(domain in evaluation.metrics for domain in recipe.domains)
    if has_all and evaluation.metric != fields["metric"].default:
        yield "evaluation.metric has no effect, as evaluation.metrics names one for every domain."


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
