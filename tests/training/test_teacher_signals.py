"""Signals on disk: what comes out is what went in, to the bit; whole files or none; and found by
what was asked, never by a step.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.errors import TrainingError
from domainfusion.models.projection import Head
from domainfusion.training import reading as teacher_signals
from domainfusion.training.reading import SignalStore

CPU = torch.device("cpu")


def a_head(seed: int = 0, **settings: Any) -> Head:
    generator = torch.Generator().manual_seed(seed)
    return Head(
        torch.randn(7, 4, generator=generator), torch.randn(7, generator=generator), **settings
    )


def hidden(
    tokens: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    return {
        "hidden": torch.randn(tokens, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_is_what_was_kept_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    store = SignalStore(tmp_path)
    head = a_head(scale=0.5, cap=3.0)
    name = store.keep_head(head)
    kept = {f"row {length}": hidden(length, length, dtype) for length in (3, 1, 8)}
    for key, tensors in kept.items():
        store.keep(key, name, tensors)
    store.flush()
    for reader in (store, SignalStore(tmp_path)):
        for key, tensors in kept.items():
            found = reader.read(key)
            assert torch.equal(found["hidden"], tensors["hidden"])
            assert found["hidden"].dtype == dtype
            assert reader.bytes_of(key) == tensors["hidden"].nbytes
            mine = reader.head(key, CPU)
            assert torch.equal(mine.weight, head.weight)
            assert mine.bias is not None
            assert torch.equal(mine.bias, head.bias)  # type: ignore[arg-type]
            assert (mine.scale, mine.cap) == (0.5, 3.0)


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    flushes=st.lists(st.integers(0, 11), max_size=4),
)
def test_however_rows_are_spread_over_shards_each_finds_its_own(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], flushes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("signals")
    store = SignalStore(folder)
    name = store.keep_head(a_head())
    for place, length in enumerate(lengths):
        store.keep(
            str(place), name, {**hidden(length, place), "lengths": torch.full((length,), place)}
        )
        if place in flushes:
            store.flush()
    store.flush()
    reader = SignalStore(folder)
    for place, length in reversed(list(enumerate(lengths))):
        found = reader.read(str(place))
        assert torch.equal(found["hidden"], hidden(length, place)["hidden"])
        assert found["lengths"].tolist() == [place] * length


def test_heads_that_are_the_same_are_kept_once_and_are_one_object(tmp_path: Path) -> None:
    store = SignalStore(tmp_path)
    names = [store.keep_head(head) for head in (a_head(), a_head(), a_head(1), a_head(scale=2.0))]
    assert names[0] == names[1]
    assert len(set(names)) == len(list(tmp_path.glob("head-*"))) == 3
    for key, name in enumerate(names):
        store.keep(str(key), name, hidden(1))
    store.flush()
    assert store.head("0", CPU) is store.head("1", CPU)
    assert store.head("0", CPU) is not store.head("2", CPU)
    assert store.head("0", CPU, torch.bfloat16).weight.dtype == torch.bfloat16


def test_what_was_not_flushed_is_lost_and_nothing_else(tmp_path: Path) -> None:
    store = SignalStore(tmp_path)
    name = store.keep_head(a_head())
    store.keep("kept", name, hidden(2))
    store.flush()
    store.keep("lost", name, hidden(2))
    assert "kept" in store
    assert "lost" in store
    reader = SignalStore(tmp_path)
    assert "kept" in reader
    assert "lost" not in reader


def test_a_file_that_was_not_finished_is_not_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SignalStore(tmp_path)
    name = store.keep_head(a_head())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store.keep("row", name, hidden(2))
    with pytest.raises(TrainingError, match=r"No space left on device.*free disk space"):
        store.flush()
    assert "row" not in SignalStore(tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "no tensors"])
def test_what_a_damaged_file_held_is_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    store = SignalStore(tmp_path)
    name = store.keep_head(a_head())
    for key in "ab":
        store.keep(key, name, hidden(2, ord(key)))
        store.flush()
    shard = store._places["a"].shard
    whole = shard.read_bytes()
    shard.write_bytes(
        {
            "flipped": whole[:-1] + bytes([whole[-1] ^ 1]),
            "cut": whole[: len(whole) // 2],
            "emptied": b"",
            "no tensors": b"no tensors",
        }[damage]
    )
    reader = SignalStore(tmp_path)
    assert ("a" in reader, "b" in reader) == (False, True)
    assert f"{shard} is damaged" in caplog.text
    reader.keep("a", name, hidden(2, ord("a")))
    reader.flush()
    assert shard.read_bytes() == whole
    assert "a" in SignalStore(tmp_path)


def test_a_damaged_head_is_named(tmp_path: Path) -> None:
    store = SignalStore(tmp_path)
    name = store.keep_head(a_head())
    store.keep("a", name, hidden(2))
    store.flush()
    [file] = tmp_path.glob("head-*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(TrainingError, match=r"damaged.*head-.*delete it"):
        SignalStore(tmp_path).head("a", CPU)


def test_a_shard_is_full_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_signals, "SHARD_BYTES", 3 * 16)
    store = SignalStore(tmp_path)
    name = store.keep_head(a_head())
    fullness = []
    for key in "abc":
        store.keep(key, name, hidden(1))
        fullness.append(store.is_full)
    assert fullness == [False, False, True]
    store.flush()
    assert not store.is_full
