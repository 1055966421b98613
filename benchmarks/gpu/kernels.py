"""How long the losses of a step take on CUDA: our own code beside Liger's kernels, alternating.

    python benchmarks/gpu/kernels.py            # prints JSON
    python benchmarks/gpu/kernels.py --tokens 64 --hidden 32 --vocabulary 300 --device cpu  # tries the script

Random states and heads, of the sizes of a 1B model by default; the head is not trained, as with LoRA.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from statistics import median
from typing import Any

import torch

from domainfusion.models.projection import Head
from domainfusion.training import liger
from domainfusion.training.losses import Taught, token_losses

AIMS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "forward_kl": {"divergence": "forward_kl"},
    "jensen_shannon": {"divergence": "jensen_shannon", "beta": 0.5},
}


def seconds_of(aim: dict[str, Any], options: argparse.Namespace, *, kernels: bool) -> float:
    """Returns the seconds of one loss with its gradient."""
    liger.ENABLED = kernels
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    shared = {"device": options.device, "dtype": dtype}
    hidden = torch.randn(options.tokens, options.hidden, **shared).requires_grad_()
    head = Head(torch.randn(options.vocabulary, options.hidden, **shared))
    targets = torch.randint(options.vocabulary, (options.tokens,), device=options.device)
    weights = torch.rand(options.tokens, device=options.device)
    places = torch.arange(options.tokens, device=options.device)
    teacher = Taught(places, torch.randn_like(hidden), head, options.vocabulary)
    _wait(options.device)
    started = time.perf_counter()
    taught = [teacher] if aim else []
    token_losses(hidden, head, targets, weights, taught=taught, **aim).total.backward()
    _wait(options.device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    """Waits until the device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    torch.manual_seed(0)
    found = []
    for name, aim in AIMS.items():
        taken: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(options.repeats + 1):  # the first one compiles, and does not count
            for kernels in taken:
                taken[kernels].append(seconds_of(aim, options, kernels=kernels))
        found.append(
            {
                "loss": name,
                "ours_seconds": median(taken[False][1:]),
                "liger_seconds": median(taken[True][1:]),
            }
        )
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    print(json.dumps({"device": device, **vars(options), "losses": found}, indent=1))


if __name__ == "__main__":
    main()
