"""What every test shares: no network, a tiny real Llama made in seconds, and LoRA experts on it."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # read once, when torch is imported; on tiny matrices threads wait for each other

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A shell ignores Ctrl-C for what it starts in the background, and so would every process that a test
# starts; tests that stop a run need Python's own handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, not wrong; and a run that fails fails again.
hypothesis.settings.register_profile("domainfusion", deadline=None, derandomize=True)
hypothesis.settings.load_profile("domainfusion")

CORPUS = [
    "What is the capital of France? The capital of France is Paris.",
    "Which element has the symbol Fe? The symbol Fe stands for iron.",
    "How do muscles recover after a race? Muscles recover with rest, sleep and protein.",
    "Aircraft land at an airport near the river, and the runway is long.",
    "The quick brown fox jumps over the lazy dog while seven wizards box.",
]
"""What the tiny tokenizer learns its merges from."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%"
    " endif %}"
)

LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class NetworkForbidden(RuntimeError):
    """A test tried to leave this machine; no OSError, so that no library takes it for a bad
    connection.
    """


def _refuse_remote(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and name not in LOOPBACK:
        raise NetworkForbidden(f"a test wanted to reach {name!r}; tests talk to loopback alone")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbids look-ups of, and connections to, anything but this machine."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    connect, connect_ex, look_up = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse_remote(address[0])
            return method(self, address)

        return call

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        _refuse_remote(host)
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


@pytest.fixture
def own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allows connections to this machine by the address that Ray gives it."""
    from ray.util import get_node_ip_address

    monkeypatch.setattr("conftest.LOOPBACK", LOOPBACK | {get_node_ip_address()})


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real Llama of some 130,000 weights with its tokenizer and ChatML template."""
    return write_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def make_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes another tiny Llama: `make_llama(name, seed)`; keyword arguments change its
    LlamaConfig.
    """

    def make(name: str, seed: int = 0, **settings: Any) -> Path:
        return write_llama(tmp_path_factory.mktemp("models") / name, seed=seed, **settings)

    return make


@pytest.fixture(scope="session")
def make_adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the folder of a LoRA adapter on the tiny Llama, or on another `base`, with random
    weights that change its answers.

    `make_adapter(name, seed)` gives the same folder for the same arguments; further keyword
    arguments go to PEFT's LoraConfig.
    """
    root = tmp_path_factory.mktemp("adapters")
    made: dict[str, Path] = {}

    def make(name: str, seed: int = 0, *, base: Path = tiny_llama, **options: Any) -> Path:
        key = repr((name, seed, base, sorted(options.items())))
        if key not in made:
            made[key] = write_adapter(base, root / str(len(made)) / name, seed, options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def write_chat_model() -> Callable[..., Path]:
    """Writes a tiny Llama with a chat template of its own: `write_chat_model(folder, template,
    tokens, eos)`.

    The template is None or empty for a base without one; a token with a plus sign before it is
    added without being special.
    """

    def write(
        folder: Path,
        template: str | None,
        tokens: tuple[str, ...] = (),
        eos: str | None = "</s>",
        **settings: Any,
    ) -> Path:
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = _chat_tokenizer(template, tokens, eos, bos=settings.pop("bos", False))
        config = LlamaConfig(
            **{
                "vocab_size": len(tokenizer),
                "hidden_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 128,
                "max_position_embeddings": 512,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": None,
                **settings,
            }
        )
        with _seeded(0):
            LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return write


def _chat_tokenizer(
    template: str | None, tokens: tuple[str, ...], eos: str | None, *, bos: bool
) -> Any:
    """Returns a tokenizer of single bytes with control tokens; with `bos`, it begins every text
    with one, as Llama's and Gemma's do.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    plain = [token.removeprefix("+") for token in tokens if token.startswith("+")]
    special = ["<s>", "</s>", *(token for token in tokens if not token.startswith("+"))]
    vocabulary = {
        token: place
        for place, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    if bos:
        raw.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        **({} if eos is None else {"eos_token": eos}),
        additional_special_tokens=[
            token for token in special[1:] if token != eos and (eos is not None or token != "</s>")
        ],
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    tokenizer.chat_template = template or None
    return tokenizer


def write_llama(folder: Path, *, seed: int = 0, **settings: Any) -> Path:
    """Writes a tiny Llama to `folder`; `settings` change its LlamaConfig."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _train_tokenizer()
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 128,
            "max_position_embeddings": 512,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            "pad_token_id": tokenizer.pad_token_id,
            # Weights of this size give distributions as sharp as a trained model's: the default
            # would make every choice a near tie.
            "initializer_range": 0.2,
            **settings,
        }
    )
    with _seeded(seed):
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_adapter(base: Path, folder: Path, seed: int, options: dict[str, Any]) -> Path:
    """Writes a LoRA adapter on `base` whose weights are random and none of them zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(
        **{
            "r": 4,
            "lora_alpha": 8,
            "target_modules": "all-linear",
            "task_type": "CAUSAL_LM",
            **options,
        }
    )
    with _seeded(seed):
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def _train_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
    )


class _seeded:
    """Seeds torch for the time of a block and leaves its state as it was."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        import torch

        self.state = torch.random.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.random.set_rng_state(self.state)
