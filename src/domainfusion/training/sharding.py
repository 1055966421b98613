"""How the weights of a student lie over the processes that train it: a copy in each, or a part in each (FSDP2).

Where they are shared out, a twin of the student's module is trained, of which each process holds its part, with that part of the
gradients and of the optimiser's state. The student itself stays the plain module that it is, so that nothing else needs to know: it has
its weights where it is asked, saved or kept, and again when the phase is over, and none in between.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.training import processes

T = TypeVar("T")


@contextmanager
def laid_out(module: PreTrainedModel) -> Iterator[Copies | Shards]:
    """Lays a student's weights out as the launch asks for, those of the main process, and leaves them whole in `module` at the end.

    Raises:
        ConfigurationError: They shall be shared out, and the student shares them with other models.
        CapabilityError: They shall be shared out, and layers share them with each other.
    """
    if not processes.shares_out_weights():
        yield Copies(module)
        return
    shards = Shards(module)
    yield shards
    shards.gather()


def refuse_shared_weights(received: object) -> None:
    """Refuses to share out the weights of a student that experts compute with.

    Raises:
        ConfigurationError: Always.
    """
    raise ConfigurationError(
        "FSDP would replace the weights of a LoRA student's base by parts of them, and the experts on that base compute with them",
        received=received,
        allowed="adaptation='full', whose weights are a copy of the student's own",
        fix="set adaptation='full', or launch without FSDP: a LoRA student keeps optimiser state and gradients for its adapter alone",
    )


class Copies:
    """Every process has all weights, and they are kept equal by adding up the gradients.

    Args:
        module: What is trained.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self.module = module
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        processes.take_over(self.trained)

    def passes(self, own: int) -> int:
        """Returns how many passes to make where there are rows for `own`."""
        return own

    def forward(self, compute: Callable[[], T]) -> T:
        """Returns what `compute` makes of the weights; from tensors in it the backward pass may start."""
        return compute()

    def add_up_gradients(self) -> None:
        """Makes each gradient that of all processes' rows."""
        processes.add_up_gradients(self.trained)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Gives the student its weights for the time of a block; all processes have to come."""
        yield

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Returns the state of the optimiser as one process alone would have it; it counts in the main process."""
        return optimizer.state_dict()

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Puts back what `optimizer_state` returned, with however many processes."""
        optimizer.load_state_dict(dict(state))


class Shards:
    """Every process has a part of the weights; those of a layer are whole while it computes. The interface is that of `Copies`.

    Args:
        module: The student's; its weights are taken out of it.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self._own = dict(module.named_parameters())
        if not all(parameter.requires_grad for parameter in self._own.values()):
            refuse_shared_weights(type(module).__name__)
        processes.take_over(list(self._own.values()))
        # The twin begins with the student's own tensors, of which FSDP copies a part; tied weights stay tied.
        memo = {id(parameter): nn.Parameter(parameter.detach()) for parameter in self._own.values()}
        self.module = copy.deepcopy(module, cast(dict[int, Any], memo))
        self._pass = self._share_out()
        self._parts = cast(dict[str, DTensor], dict(self.module.named_parameters()))
        if self._parts.keys() != self._own.keys():
            raise CapabilityError(
                "Layers share weights with each other, so they can't be shared out layer by layer",
                received=sorted(self._parts.keys() - self._own.keys())[0],
                fix="launch without FSDP",
            )
        self.trained = cast(list[nn.Parameter], list(self._parts.values()))
        self._drop()

    def _share_out(self) -> _Pass:
        """Shares out each layer by itself, and all that is in no layer (embeddings, head, the last norm) together."""
        kinds = set(self.module._no_split_modules or ())
        layers = [layer for layer in self.module.modules() if type(layer).__name__ in kinds]
        mesh = init_device_mesh(self.module.device.type, (processes.count(),))
        for layer in reversed(layers):
            fully_shard(layer, mesh=mesh, reshard_after_forward=processes.lets_go_after_forward())
        root = _Pass(self.module)
        fully_shard(root, mesh=mesh)
        for group in root.modules():
            if isinstance(group, FSDPModule):
                group.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all processes
                group.set_force_sum_reduction_for_comms(True)  # Gloo knows no other
        return root

    def passes(self, own: int) -> int:
        """Returns the passes of the process that has most rows: in each of them all send and receive weights."""
        return max(processes.gathered(own))

    def forward(self, compute: Callable[[], T]) -> T:
        """See `Copies.forward`; tensors have to be found in tuples, lists and dicts. Gradients are added up in the backward pass."""
        return cast(T, self._pass(compute))

    def add_up_gradients(self) -> None:
        """Does nothing, as FSDP has done it."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        """See `Copies.whole`; what is changed in the block is lost."""
        self.gather()
        try:
            yield
        finally:
            self._drop()

    def gather(self) -> None:
        """Gives the student its weights; all processes have to come."""
        for name, parameter in self._own.items():
            parameter.data = _whole(self._parts[name])

    def _drop(self) -> None:
        for parameter in self._own.values():
            # One number stands in for all, and whoever computes with it notices.
            parameter.data = parameter.new_full((), torch.nan).expand(parameter.shape)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """See `Copies.optimizer_state`; all processes have to come."""
        state = optimizer.state_dict()
        for number, own in state["state"].items():  # of one parameter after the other, which the main process alone keeps
            wholes = {name: _whole(value) for name, value in own.items()}
            on_cpu = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in wholes.items()}
            state["state"][number] = on_cpu if processes.is_main() else {}
        return state

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """See `Copies.load_optimizer_state`."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        parts = {
            number: {name: _part(value, parameters[number]) for name, value in own.items()}
            for number, own in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": parts})


class _Pass(nn.Module):
    """Makes of a computation a module's forward pass, around which FSDP gathers what belongs to no layer and lets go of it again.

    Embeddings and head are used apart from each other, and the head outside of the model's own forward pass: in the loss.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[[], T]) -> T:
        return compute()


@torch.no_grad()
def _whole(value: Any) -> Any:
    """Returns all of a tensor of which each process has a part; all processes have to ask. Anything else is returned as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _part(value: Any, like: DTensor) -> Any:
    """Returns this process's part of a tensor that each has all of."""
    if not isinstance(value, torch.Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
