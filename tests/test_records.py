"""Laws of the records on disk: what is written is read, a write is whole or not at all, and errors
name file and line.
"""

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainfusion.errors import DataError
from domainfusion.files import replacing
from domainfusion.records import (
    CHECKSUMS,
    file_name,
    read_json,
    read_lines,
    read_records,
    write_json,
    write_records,
    write_text,
)
from domainfusion.types import (
    SCHEMA_VERSION,
    Agreement,
    Conflict,
    Contribution,
    Dropped,
    Example,
    Integration,
    Ledger,
    Message,
    Part,
    Response,
    Sampling,
    TrainingRecord,
)

# Line separators that are no line feed are drawn often: they have broken readers of JSON Lines
# before.
text = st.text() | st.text(st.sampled_from('ab \n\r\t\v\f\x1c\x85\u2028\u2029\ufeff"\\{}é漢😀'))
counts = st.integers(min_value=0, max_value=2**40)
finishes = st.sampled_from(["stop", "length", "refused", "filtered"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def tuples(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=2).map(tuple)


samplings = st.builds(
    Sampling,
    max_new_tokens=st.integers(1, 4096),
    temperature=st.floats(0, 5),
    top_p=st.floats(0, 1, exclude_min=True),
    seed=st.integers(0, 2**62),
)
examples = st.builds(
    Example,
    query=text,
    domains=st.lists(text, min_size=1, max_size=3).map(tuple),
    primary_domain=text,
    source=st.sampled_from(["synthetic", "adversarial", "curated", "custom"]),
    sub_questions=st.dictionaries(text, text, max_size=2),
    parts=tuples(st.builds(Part, domain=text, answers=tuples(text))),
    reference=st.none() | text,
    group=text,
    metadata=st.dictionaries(text, json_values, max_size=2),
    id=text,
)
responses = st.builds(
    Response,
    domain=text,
    text=text,
    example_id=text,
    question=text,
    finish_reason=finishes,
    prompt_tokens=counts,
    completion_tokens=counts,
    teacher=text,
    sampling=st.none() | samplings,
)
said = st.dictionaries(text, text, max_size=2)
ledgers = st.builds(
    Ledger,
    contributions=tuples(st.builds(Contribution, domain=text, text=text, start=counts, end=counts)),
    agreements=tuples(st.builds(Agreement, claims=said)),
    conflicts=tuples(
        st.builds(
            Conflict,
            claims=said,
            kept=st.none() | text,
            rule=text,
            question=text,
            sides=tuples(tuples(text)),
        )
    ),
    dropped=tuples(st.builds(Dropped, domain=text, text=text, reason=text)),
    copies=tuples(tuples(text)),
    notes=tuples(text),
)
messages = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=text)
integrations = st.builds(
    Integration,
    text=text,
    method=text,
    ledger=ledgers,
    messages=tuples(messages),
    model=text,
    finish_reason=finishes,
)
training_records = st.builds(
    TrainingRecord,
    example=examples,
    responses=tuples(responses),
    integration=integrations,
    verification=st.sampled_from(["verified", "unverified", "rejected"]),
    reason=text,
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(training_records, max_size=3))
def test_any_training_record_comes_back_as_it_was(
    tmp_path: Path, records: list[TrainingRecord]
) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, records)
    assert read_records(path, TrainingRecord) == records
    assert len(path.read_bytes().splitlines()) == path.read_bytes().count(b"\n") == len(records)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values)
def test_any_json_value_comes_back_as_it_was(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value


def test_a_dataclass_is_written_as_an_object(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"sampling": Sampling(seed=3)})
    assert read_json(tmp_path / "value.json")["sampling"]["seed"] == 3
    write_json(tmp_path / "value.json", Sampling(seed=4))
    assert read_json(tmp_path / "value.json")["seed"] == 4


def test_every_line_says_its_schema(tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", [Message("user", "a"), Message("user", "b")])
    assert [fields["schema"] for _, fields in read_lines(tmp_path / "r.jsonl")] == [
        SCHEMA_VERSION,
        SCHEMA_VERSION,
    ]


def test_a_line_without_a_schema_is_of_this_version(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"role": "user", "content": "a"}')
    assert read_records(tmp_path / "r.jsonl", Message) == [Message("user", "a")]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('\n{"a": 1}\n\n  \r\n{"a": 2}\n')
    assert [place.rsplit(":", 1)[1] for place, _ in read_lines(tmp_path / "r.jsonl")] == ["2", "5"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"role": "user", "content": ', "not JSON"),
        ('["user", "a"]', "not a JSON object"),
        ('{"role": "user"}', "content"),
        ('{"role": "judge", "content": "a"}', "role"),
        ('{"role": "user", "content": 3}', "content"),
        ('{"role": "user", "content": "a", "contents": "b"}', "contents"),
        ('{"role": "user", "content": "a", "schema": "new"}', "schema"),
        (f'{{"role": "user", "content": "a", "schema": {SCHEMA_VERSION + 1}}}', "later version"),
    ],
)
def test_a_bad_line_is_refused_with_its_file_its_number_and_the_field(
    tmp_path: Path, line: str, complaint: str
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"role": "user", "content": "a"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=complaint) as raised:
        read_records(path, Message)
    assert f"{path}:3" in str(raised.value)


def test_a_later_schema_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        json.dumps({"schema": SCHEMA_VERSION + 5, "role": "user", "content": "a"})
    )
    with pytest.raises(DataError, match=f"received {SCHEMA_VERSION + 5}.*upgrade domainfusion"):
        read_records(tmp_path / "r.jsonl", Message)


def test_settings_that_can_not_be_right_are_refused_on_reading_too(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        '{"domain": "a", "text": "b", "sampling": {"temperature": -1}}'
    )
    with pytest.raises(DataError, match=r"r\.jsonl:1: sampling.*temperature"):
        read_records(tmp_path / "r.jsonl", Response)


@pytest.mark.parametrize(
    "read",
    [read_json, lambda path: list(read_lines(path)), lambda path: read_records(path, Message)],
)
@pytest.mark.parametrize("kind", ["missing", "folder", "latin-1"])
def test_a_file_that_can_not_be_read_is_a_data_error_that_names_it(
    tmp_path: Path, read: Any, kind: str
) -> None:
    path = tmp_path / "file.jsonl"
    if kind == "folder":
        path.mkdir()
    if kind == "latin-1":
        path.write_bytes('{"role": "user", "content": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"file\.jsonl"):
        read(path)


def _full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace"), (Path, "open")])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, call: str
) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [Message("user", "old")])
    before = path.read_bytes()
    monkeypatch.setattr(owner, call, _full_disk)
    with pytest.raises(DataError, match="No space left on device") as raised:
        write_records(path, [Message("user", "new")])
    monkeypatch.undo()
    assert str(path) in str(raised.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [Message("user", "old")])
    before = path.read_bytes()

    def broken() -> Any:
        yield Message("user", "new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(path, broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_character_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="half a character"):
        write_records(tmp_path / "r.jsonl", [Message("user", "broken \ud83d emoji")])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def test_a_file_in_the_way_of_a_folder_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(DataError, match=r"c\.txt"):
        write_text(tmp_path / "a" / "c.txt", "text")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_never_has_a_number_that_json_does_not_have(number: float, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    write_json(tmp_path / "a.json", {"loss": number, "é": [1.5, number]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8"), parse_constant=refuse) == {
        "loss": None,
        "é": [1.5, None],
    }
    with pytest.raises(DataError, match="NaN is none"):
        Example(query="Why?", domains=("a",), metadata={"level": number})


def test_a_byte_order_mark_is_not_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert [line for _, line in read_lines(tmp_path / "a.json")] == [{"a": 1}]


NAMES = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.from_regex(r"[a-z0-9_]{1,60}", fullmatch=True)


@given(st.lists(NAMES | NAMES.map(str.upper), unique=True, min_size=1, max_size=20))
def test_any_text_has_a_file_name_of_its_own_on_every_file_system(names: list[str]) -> None:
    names += sorted(
        {file_name(name) for name in names} - set(names)
    )  # what was made for one is no name of another
    found = [file_name(name) for name in names]
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert re.fullmatch(r"[a-z0-9_][a-z0-9_-]{0,99}", name)


@given(
    PLAIN.filter(
        lambda name: (
            name not in ("con", "nul", "aux", "prn") and not re.fullmatch("(com|lpt).", name)
        )
    )
)
def test_a_plain_name_is_its_own_file_name(name: str) -> None:
    assert file_name(name) == name


ODD_NAMES = [
    "con",
    "CON",
    "nul",
    "com1",
    "a.",
    "a ",
    ".",
    "..",
    "",
    "a/b",
    "a\\b",
    "a\0b",
    "x" * 300,
    "法律",
    "Law",
    "law",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_that_file_systems_take_for_something_else(name: str, tmp_path: Path) -> None:
    folder = tmp_path / file_name(name)
    folder.mkdir()
    assert folder.parent == tmp_path and folder.resolve().parent == tmp_path.resolve()
    assert file_name(name) not in ("con", "nul", "com1")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "folder") as fresh:
        (fresh / "inner").mkdir(parents=True)
        (fresh / "inner" / "file").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with replacing(tmp_path / "folder") as fresh:
        fresh.mkdir()
        (fresh / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "file").read_text() == "whole"


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[str, bool]] = []
    target, real = tmp_path / "a.txt", os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(
            ("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file", target.exists())
        )
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(target, "text")
    assert flushed == [("file", False), ("folder", True)]


@pytest.mark.parametrize("at", [0, 5, -1])
def test_a_listed_file_is_read_as_it_was_written_or_not_at_all(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"before": 1}, listed=True)
    write_json(path, {"number": 1}, listed=True)
    content = path.read_bytes()
    changed = bytearray(content)
    changed[at] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DataError, match=r"damaged, or was changed .*a\.json.*checksums\.json"):
        read_json(path)
    path.write_bytes(content)
    assert read_json(path) == {"number": 1}


def test_a_file_whose_line_is_deleted_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"number": 1}, listed=True)
    path.write_text('{"number": 2}')
    listed = tmp_path / CHECKSUMS
    listed.write_text(json.dumps({"other.json": json.loads(listed.read_text())["a.json"]}))
    assert read_json(path) == {"number": 2}
    write_json(path, {"number": 3}, listed=True)
    assert read_json(path) == {"number": 3}


def test_a_writer_that_is_killed_before_the_file_is_in_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"number": 1}, listed=True)
    replace = Path.replace

    def die(self: Path, target: Path) -> Path:
        if target == path:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"number": 2}, listed=True)
    assert read_json(path) == {"number": 1}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a.json": [', "\x00"])
def test_a_damaged_list_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"number": 1}, listed=True)
    (tmp_path / CHECKSUMS).write_text(content)
    for use in (lambda: read_json(path), lambda: write_json(path, {}, listed=True)):
        with pytest.raises(DataError, match=r"list of checksums is damaged.*delete it"):
            use()
