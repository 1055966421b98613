"""Laws of finding models: hub ids by way of the hub's own cache, whole folders only, and no file
that could run code.
"""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import HuggingFaceModel
from domainfusion.models.locate import PICKLES, find_model, locate
from domainfusion.types import Sampling, user

MakeAdapter = Callable[..., Path]

SHORT = Sampling(max_new_tokens=8)
COMMITS = ("1" * 40, "2" * 40)


def load(path: str | Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, **{"dtype": "float32", "device": "cpu", **options})


def embeddings_of(model: HuggingFaceModel) -> torch.Tensor:
    embeddings: Any = model._load().module.get_input_embeddings()
    return torch.as_tensor(embeddings.weight)


class HubCache:
    """A cache of downloads as huggingface_hub lays it out: blobs, snapshots that link to them, and
    refs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, hub_id: str, commit: str, source: Path, *refs: str) -> Path:
        repository = self.root / f"models--{hub_id.replace('/', '--')}"
        snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir(exist_ok=True)
        for file in source.iterdir():
            blob = blobs / f"{commit[:8]}-{file.name}"
            shutil.copy(file, blob)
            (snapshot / file.name).symlink_to(blob)
        for ref in refs:
            (repository / "refs").mkdir(exist_ok=True)
            (repository / "refs" / ref).write_text(commit)
        return snapshot


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return HubCache(tmp_path / "hub")


# Hub ids


def test_a_hub_id_is_the_model_that_was_downloaded(hub: HubCache, tiny_llama: Path) -> None:
    hub.put("someone/tiny", COMMITS[0], tiny_llama, "main")
    downloaded, local = load("someone/tiny"), load(tiny_llama)
    assert downloaded.fingerprint == local.fingerprint
    assert downloaded.generate([user("Why?")], SHORT) == local.generate([user("Why?")], SHORT)
    assert (downloaded.name, repr(downloaded)) == ("tiny", "HuggingFaceModel('someone/tiny')")


@pytest.mark.parametrize(
    ("revision", "expected"), [(None, 0), ("main", 0), ("v2", 1), (COMMITS[0], 0), (COMMITS[1], 1)]
)
def test_a_revision_is_a_branch_a_tag_or_a_commit(
    hub: HubCache,
    tiny_llama: Path,
    make_llama: Callable[..., Path],
    revision: str | None,
    expected: int,
) -> None:
    versions = [tiny_llama, make_llama("second", seed=7)]
    for commit, version, ref in zip(COMMITS, versions, ("main", "v2"), strict=True):
        hub.put("someone/tiny", commit, version, ref)
    model = load("someone/tiny", revision=revision)
    assert model.fingerprint == load(versions[expected]).fingerprint
    assert model.fingerprint != load(versions[1 - expected]).fingerprint
    assert torch.equal(embeddings_of(model), embeddings_of(load(versions[expected])))


@pytest.mark.parametrize(
    ("hub_id", "revision"),
    [("someone/tiny", "v9"), ("someone/other", None), ("someone/tiny", "3" * 40)],
)
def test_what_is_neither_downloaded_nor_to_be_had_is_refused(
    hub: HubCache, tiny_llama: Path, hub_id: str, revision: str | None
) -> None:
    hub.put("someone/tiny", COMMITS[0], tiny_llama, "main")
    with pytest.raises(ModelError, match="hub did not give a model") as raised:
        load(hub_id, revision=revision)
    assert hub_id in str(raised.value)
    assert (revision or "") in str(raised.value)


def test_models_of_one_snapshot_share_a_base(
    hub: HubCache, tiny_llama: Path, make_adapter: MakeAdapter
) -> None:
    hub.put("someone/tiny", COMMITS[0], tiny_llama, "main")
    models = [
        load("someone/tiny"),
        load("someone/tiny", revision=COMMITS[0]),
        load(make_adapter("one", 1), base_model="someone/tiny"),
    ]
    assert len({id(model._load().module) for model in models}) == 1


def test_an_adapter_of_the_hub_finds_its_base_and_the_revision_that_it_names(
    hub: HubCache,
    tiny_llama: Path,
    make_llama: Callable[..., Path],
    make_adapter: MakeAdapter,
    tmp_path: Path,
) -> None:
    hub.put("someone/tiny", COMMITS[0], make_llama("second", seed=7), "main")
    hub.put("someone/tiny", COMMITS[1], tiny_llama, "v1")
    folder = shutil.copytree(make_adapter("one", 1), tmp_path / "adapter")
    settings = json.loads((folder / "adapter_config.json").read_text())
    for name, named, base in (
        ("old", "v1", tiny_llama),
        ("new", None, make_llama("third", seed=7)),
    ):
        (folder / "adapter_config.json").write_text(
            json.dumps({**settings, "base_model_name_or_path": "someone/tiny", "revision": named})
        )
        hub.put(f"someone/{name}", COMMITS[0], folder, "main")
        expert, expected = load(f"someone/{name}"), load(make_adapter("one", 1), base_model=base)
        assert expert.generate([user("Why?")], SHORT) == expected.generate([user("Why?")], SHORT)
        assert expert.generate([user("Why?")], SHORT) != load(base).generate([user("Why?")], SHORT)


def test_only_weights_and_settings_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Path
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "domainfusion.models.locate.snapshot_download",
        lambda hub_id, **options: asked.update(options) or str(tiny_llama),
    )
    load("someone/tiny")
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    offered = [
        *(
            "config.json",
            "model-00001-of-2.safetensors",
            "model.safetensors.index.json",
            "chat_template.jinja",
            "tokenizer.model",
        ),
        *("merges.txt", "adapter_config.json"),
    ]
    refused = [
        *(
            "pytorch_model.bin",
            "modeling_evil.py",
            "training_args.bin",
            "original/consolidated.00.pth",
            "onnx/model.safetensors",
        ),
        *("consolidated.safetensors", "model.Q4.gguf", "optimizer.pt"),
    ]
    patterns = {name: asked[name] for name in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects([*offered, *refused], **patterns)) == offered


# Folders


def test_a_sharded_model_that_lacks_a_part_is_refused_at_once(
    tiny_llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(tiny_llama, tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(folder, max_shard_size="200KB")
    parts = sorted(folder.glob("*.safetensors"))
    assert len(parts) > 2
    assert load(folder).generate([user("Why?")], SHORT) == load(tiny_llama).generate(
        [user("Why?")], SHORT
    )
    parts[1].unlink()
    with pytest.raises(ModelError, match=parts[1].name):
        load(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelError, match=r"index\.json can't be read"):
        load(folder)


# Pickles


class Bomb:
    """An object that leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("suffix", PICKLES)
def test_a_pickle_is_refused_by_name_and_never_opened(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path, suffix: str
) -> None:
    mark = tmp_path / "ran"
    folders = []
    for source, stem in ((tiny_llama, "model"), (make_adapter("one", 1), "adapter_model")):
        folder = shutil.copytree(source, tmp_path / stem)
        (folder / f"{stem}.safetensors").unlink()
        (folder / f"{stem}{suffix}").write_bytes(pickle.dumps(Bomb(mark)))
        folders.append(folder)
        with pytest.raises(ModelError, match=rf"{stem}\{suffix} is a pickle"):
            load(folder)
    for file in (folders[0] / f"model{suffix}", folders[1] / f"adapter_model{suffix}"):
        with pytest.raises(ModelError, match=rf"{file.name} is a pickle.*safetensors"):
            load(file)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["base", "adapter"])
def test_a_pickle_beside_safetensors_is_not_looked_at(
    tiny_llama: Path, make_adapter: MakeAdapter, tmp_path: Path, kind: str
) -> None:
    source = tiny_llama if kind == "base" else make_adapter("one", 1)
    folder = shutil.copytree(source, tmp_path / "both")
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert load(folder).generate([user("Why?")], SHORT) == load(source).generate(
        [user("Why?")], SHORT
    )
    assert not (tmp_path / "ran").exists()


# Code


CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = "own-kind"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}


def _with_code(source: Path, folder: Path, **settings: Any) -> Path:
    shutil.copytree(source, folder)
    (folder / "own.py").write_text(CODE.format(mark=str(folder / "ran")))
    for name, changed in settings.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    return folder


def test_a_model_that_can_only_be_loaded_by_its_own_code_is_refused_and_nothing_is_run(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = _with_code(
        tiny_llama,
        tmp_path / "own",
        config={"auto_map": AUTO_MAP, "model_type": "own-kind", "architectures": ["OwnModel"]},
    )
    with pytest.raises(
        ModelError, match="running code that lies in its folder, and that is never done"
    ):
        load(folder)
    assert not (folder / "ran").exists()


def test_a_known_model_that_brings_code_too_is_loaded_without_it(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = _with_code(
        tiny_llama,
        tmp_path / "own",
        config={"auto_map": AUTO_MAP},
        tokenizer_config={"auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}},
    )
    model = load(folder)
    assert model.generate([user("Why?")], SHORT) == load(tiny_llama).generate([user("Why?")], SHORT)
    assert type(model._load().module).__module__.startswith("transformers.")
    assert not (folder / "ran").exists()


def test_an_adapter_that_names_code_is_loaded_without_it(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    mapping = {"base_model_class": "OwnModel", "parent_library": "own"}
    folder = _with_code(
        make_adapter("one", 1), tmp_path / "own", adapter_config={"auto_mapping": mapping}
    )
    assert load(folder).generate([user("Why?")], SHORT) == load(make_adapter("one", 1)).generate(
        [user("Why?")], SHORT
    )
    assert not (folder / "ran").exists()


def test_a_chat_template_can_reach_nothing(tiny_llama: Path) -> None:
    for reach in (
        "''.__class__.__mro__[1].__subclasses__()",
        "cycler.__init__.__globals__['os'].system('true')",
        "messages.clear()",
    ):
        with pytest.raises(ModelError, match="chat template"):
            load(tiny_llama, chat_template=f"{{{{ {reach} }}}}").encode(user("Why?"))


# What was asked for


def test_what_was_asked_for_is_told(tiny_llama: Path, make_adapter: MakeAdapter) -> None:
    files = find_model(str(make_adapter("one", 1)), tiny_llama, None)
    assert (files.base, files.base_path, files.adapter) == (
        tiny_llama.resolve(),
        str(tiny_llama),
        make_adapter("one", 1).resolve(),
    )
    with pytest.raises(ConfigurationError, match="revision"):
        locate(str(tiny_llama), "main")
