"""Several processes that train one student, on Accelerate: one writes, all share the rows of a
step.

`torchrun` and `accelerate launch` start them. Stores, caches, logs and files belong to the main
process. In one process every function here returns at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from domainfusion.errors import ConfigurationError

SHORT_ROWS = 128
"""Tokens of a row up to which attention is computed with its scores in memory on a CPU.

Measured on SmolLM2-135M with LoRA, 16 rows, two cores with bfloat16 units, forward and backward:
plain products take 0.74 of the fused kernel's time at 40 tokens, 0.83 at 70, 0.89 at 128, and 1.3
at 256.
"""


def mixed_precision(device: torch.device) -> torch.autocast:
    """Returns the context in which a student on `device` computes: bfloat16 for products, where the
    device has units for it.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(device))


def attention_to_train(device: torch.device, tokens: int) -> AbstractContextManager[None]:
    """Returns the context in which attention over rows of `tokens` is computed forward and
    backward.

    On a CPU the fused kernel's backward pass is slow, and plain products are faster where rows are
    short.
    """
    return (
        sdpa_kernel(SDPBackend.MATH)
        if device.type == "cpu" and tokens <= SHORT_ROWS
        else nullcontext()
    )


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for products in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


LONGEST_WAIT = timedelta(days=7)
"""How long the other processes wait for what the main one does alone, such as asking the
teachers.
"""

T = TypeVar("T")


def world_size() -> int:
    """Returns the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Returns the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the process that asks teachers and writes files."""
    return rank() == 0


def is_sharded() -> bool:
    """Whether the launch asks for weights, gradients and optimizer state to be sharded over the
    processes (FSDP2).
    """
    return world_size() > 1 and _is_set("ACCELERATE_USE_FSDP")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def init_process_group() -> None:
    """Meets the other processes; called again it does nothing.

    Raises:
        ConfigurationError: The launch asks for what is not supported.
    """
    if world_size() == 1:
        return
    check_launch()
    PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST_WAIT)


def check_launch() -> None:
    """Refuses a launch that asks for what is not supported.

    Raises:
        ConfigurationError: It does.
    """
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigurationError(
            "DeepSpeed is not supported: it takes the optimizer over, and a checkpoint here resumes"
            " with any number of processes",
            received="ACCELERATE_USE_DEEPSPEED",
            allowed=(
                "torchrun, accelerate launch --multi_gpu, accelerate launch --use_fsdp"
                " --fsdp_version 2"
            ),
            fix="launch with FSDP2, which shards the same tensors",
        )
    version = os.environ.get("FSDP_VERSION", "1")
    if is_sharded() and version != "2":
        raise ConfigurationError(
            "FSDP 1 makes one flat tensor of many weights, so that trained and frozen ones can't be"
            " told apart",
            received=f"FSDP_VERSION={version}",
            allowed="FSDP_VERSION=2",
            fix="launch with --fsdp_version 2, or without FSDP",
        )


def check_device(device: torch.device) -> None:
    """Refuses a student on a GPU that belongs to another process.

    Raises:
        ConfigurationError: It is on one.
    """
    if (
        world_size() > 1
        and device.type == "cpu"
        and torch.accelerator.is_available()
        and not _is_set("ACCELERATE_USE_CPU")
    ):
        raise ConfigurationError(
            "The processes were launched for this machine's accelerators, and the student is on"
            " the CPU",
            received=str(device),
            fix="name no device, or set ACCELERATE_USE_CPU=true for the launch",
        )
    own = int(os.environ.get("LOCAL_RANK", "0"))
    if world_size() > 1 and device.type == "cuda" and device.index not in (None, own):
        raise ConfigurationError(
            "Each process trains on a GPU of its own",
            received=str(device),
            allowed=f"cuda:{own}",
            fix="name no device",
        )


def barrier() -> None:
    """Returns when every process is here."""
    if world_size() > 1:
        all_gather(None)


@contextmanager
def main_process_first() -> Iterator[None]:
    """Runs its block in the main process, and then in the others, which find what it has
    written.
    """
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def broadcast(value: T) -> T:
    """Returns the main process's value."""
    return all_gather(value)[0]


def all_gather(value: T) -> list[T]:
    """Returns every process's value, by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, value)
    return found


def shard(items: Sequence[T]) -> Sequence[T]:
    """Returns this process's part: every `world_size()`-th item, from the one at its rank on."""
    return items[rank() :: world_size()]


def broadcast_parameters(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Gives every process the main one's values, in place."""
    if world_size() > 1:
        for parameter in parameters:
            distributed.broadcast(parameter.data, 0)


def make_accelerator(device: torch.device, **settings: Any) -> Accelerator:
    """Returns the engine that trains on a device: DDP, FSDP2, mixed precision and trackers as the
    launch configures them.

    Where the launch says nothing of mixed precision, products are computed in bfloat16 if the
    device has units for it.

    Args:
        device: Where the student is.
        **settings: Further settings of `Accelerator`.
    """
    init_process_group()
    check_device(device)
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION") or (
        "bf16" if computes_in_bfloat16(device) else "no"
    )
    if world_size() == 1:
        # Accelerate keeps the device and precision of a process's first engine; here the next
        # student may have others.
        AcceleratorState._reset_state(reset_partial_state=True)
    options = {
        "mixed_precision": precision,
        "cpu": device.type == "cpu",
        "device_placement": False,
        **settings,
    }
    accelerator = Accelerator(
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)], **options
    )
    if is_sharded():
        _shard_weights(accelerator)
    return accelerator


def _shard_weights(accelerator: Accelerator) -> None:
    """Has Accelerate shard weights as the launch says; by itself it does so on accelerators alone,
    and this on CPUs too.
    """
    state: Any = accelerator.state
    if state.distributed_type != DistributedType.FSDP:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = (
            FullyShardedDataParallelPlugin()
        )  # reads the launch's settings from the environment
        if accelerator.mixed_precision != "no":
            state.fsdp_plugin.set_mixed_precision(accelerator.mixed_precision)
    state.fsdp_plugin.cpu_ram_efficient_loading = (
        False  # every process has loaded the weights already
    )


def _placed(mask: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
    """Returns a mask, spread over the processes as the parameter is."""
    if not isinstance(parameter, DTensor):
        return mask
    return distribute_tensor(mask.contiguous(), parameter.device_mesh, parameter.placements)


class TrainedWeights:
    """The student's trained parameters beside those that the engine trains.

    With FSDP the engine trains a shard of each, and the student's own are empty but in `whole`;
    otherwise they are the same tensors.

    Args:
        own: The student's trained parameters, by their names in the module that is trained.
        module: That module, once the engine has prepared it.
        masks: What the gradients of some of them are multiplied by, of shapes that expand to
            theirs.
    """

    def __init__(
        self,
        own: Mapping[str, torch.nn.Parameter],
        module: torch.nn.Module,
        masks: Mapping[str, torch.Tensor] = MappingProxyType({}),
    ) -> None:
        shapes = {name: own[name].shape for name in masks}
        self._own = own
        self._trained = {
            name: parameter for name, parameter in module.named_parameters() if name in own
        }
        self.is_sharded = any(
            isinstance(parameter, DTensor) for parameter in self._trained.values()
        )
        self._masks = {
            name: _placed(mask.expand(shapes[name]), self._trained[name])
            for name, mask in masks.items()
        }
        if self.is_sharded:
            for part in module.modules():
                if isinstance(part, FSDPModule) and distributed.get_backend() == "gloo":
                    part.set_force_sum_reduction_for_comms(True)  # Gloo adds, and can't average
            self._empty()

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that the engine trains."""
        return list(self._trained.values())

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Takes out of the gradients what stays as it is."""
        for name, mask in self._masks.items():
            gradient = self._trained[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Gives the student its weights for the time of a block; every process has to enter it."""
        self.gather()
        try:
            yield
        finally:
            self._empty()

    @torch.no_grad()
    def gather(self) -> None:
        """Gives the student its weights; every process has to call it."""
        if not self.is_sharded:
            return
        for name, parameter in self._own.items():
            shard = self._trained[name]
            assert isinstance(shard, DTensor)
            parameter.data = shard.full_tensor()

    def _empty(self) -> None:
        if not self.is_sharded:
            return
        for parameter in self._own.values():
            # One NaN stands in for all, so that computing with it would be noticed.
            parameter.data = parameter.new_full((), torch.nan).expand(parameter.shape)
