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

_shares_out = False


def count() -> int:
    """Returns the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Returns which one this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the one that writes."""
    return rank() == 0


def shares_out_weights() -> bool:
    """Whether each process is to hold a part of the weights (FSDP2), as the launch has asked for."""
    return _shares_out and count() > 1


def lets_go_after_forward() -> bool:
    """Whether a layer's weights are let go of between its forward and its backward pass: less memory, more that is sent."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "").lower() not in ("0", "false")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def join() -> None:
    """Meets the other processes, once; each takes the GPU of its local rank.

    Raises:
        ConfigurationError: The processes were started to share out the weights in a way that is not supported.
    """
    _read_launch()
    if count() == 1 or distributed.is_initialized():
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=LONGEST_WAIT)
    atexit.register(distributed.destroy_process_group)


def _read_launch() -> None:
    """Notes whether weights are to be shared out, and keeps it from Accelerate and Transformers, which would do it in their own way."""
    global _shares_out
    if count() > 1:
        _refuse_unsupported_launch()
    if _is_set("ACCELERATE_USE_FSDP"):
        del os.environ["ACCELERATE_USE_FSDP"]
        _shares_out = True


def _refuse_unsupported_launch() -> None:
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigurationError(
            "DeepSpeed replaces a module's weights and its optimiser, but student, base and experts are one module here, each in its turn",
            received="ACCELERATE_USE_DEEPSPEED",
            allowed="torchrun, accelerate launch --multi_gpu, or FSDP2 for a student that is trained in full",
            fix="launch without it",
        )
    if not _is_set("ACCELERATE_USE_FSDP"):
        return
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ConfigurationError(
            "FSDP 1 makes one flat tensor of many weights, so that none of them can be told apart",
            received=f"FSDP_VERSION={version}",
            allowed="FSDP_VERSION=2 for a student that is trained in full; else torchrun, or accelerate launch --multi_gpu",
            fix="launch with --fsdp_version 2, or without FSDP",
        )
    for name, fix in {
        "FSDP_OFFLOAD_PARAMS": "leave it out",
        "FSDP_ACTIVATION_CHECKPOINTING": "set the trainer's activation_checkpointing instead",
    }.items():
        if _is_set(name):
            raise ConfigurationError("This setting of FSDP is not supported", received=f"{name}={os.environ[name]}", fix=fix)


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
