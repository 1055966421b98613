"""Several processes that train one student together, as `torchrun` and `accelerate launch` start them: who writes, and what they share.

Each goes through its part of a step's rows, and their gradients are added up. Stores, caches, logs and files are the main process's
alone. In one process all of this is nothing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import distributed

from domainfusion.errors import ConfigurationError

LONGEST_WAIT = timedelta(days=7)
"""How long the others wait for what the main process alone does, such as asking the teachers."""

BUCKET_ELEMENTS = 1 << 24
"""Numbers that are sent at a time."""

T = TypeVar("T")


def count() -> int:
    """Returns the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Returns which one this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the one that writes."""
    return rank() == 0


def join() -> None:
    """Meets the other processes, once; each takes the GPU of its local rank.

    Raises:
        ConfigurationError: The processes were started to share out the weights, which is not supported.
    """
    if count() == 1 or distributed.is_initialized():
        return
    for name, what in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(name, "").lower() in ("1", "true"):
            raise ConfigurationError(
                f"{what} shares out the weights of a module, but student, base and experts are one module here, each in its own turn",
                received=f"{name}={os.environ[name]}",
                allowed="data parallelism: torchrun, or accelerate launch --multi_gpu",
                fix="launch without it; a LoRA student keeps optimiser state and gradients for its adapter alone",
            )
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=LONGEST_WAIT)
    atexit.register(distributed.destroy_process_group)


def check_device(device: torch.device) -> None:
    """Refuses a student on a GPU that is another process's.

    Raises:
        ConfigurationError: It is on one.
    """
    own = int(os.environ.get("LOCAL_RANK", "0"))
    if count() > 1 and device.type == "cuda" and device.index not in (None, own):
        what = "Each process trains on a GPU of its own"
        raise ConfigurationError(what, received=str(device), allowed=f"cuda:{own}", fix="name no device")


def wait() -> None:
    """Returns when every process is here."""
    if count() > 1:
        gathered(None)


@contextmanager
def main_first() -> Iterator[None]:
    """Runs its block in the main process, and then in the others, which find what it has written."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def from_main(value: T) -> T:
    """Returns the value that the main process gave."""
    return gathered(value)[0]


def gathered(value: T) -> list[T]:
    """Returns what each process gave, by rank."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, value)
    return found


def own_part(items: Sequence[T]) -> Sequence[T]:
    """Returns every so-manieth item, so that each process has its share and none has two's."""
    return items[rank() :: count()]


def add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Adds tensors up over all processes, in place and many at a time; all processes have to give the same shapes."""
    if count() == 1:
        return
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(each.numel() for each in bucket) >= BUCKET_ELEMENTS:
            _add_up_bucket(bucket)
            bucket = []
    if bucket:
        _add_up_bucket(bucket)


def _add_up_bucket(tensors: Sequence[torch.Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def add_up_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Gives every process the sum of all processes' gradients; where one has none, it is 0."""
    if count() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    add_up([cast(torch.Tensor, parameter.grad) for parameter in parameters])


def take_over(parameters: Sequence[torch.Tensor]) -> None:
    """Gives every process the values of the main one, in place."""
    if count() > 1:
        for parameter in parameters:
            distributed.broadcast(parameter.data, 0)
