"""Laws of the errors: one root, a fitting standard class each, and messages that say what,
received, allowed and how to fix it.
"""

import errno
import os
import pickle

import pytest

from domainfusion import errors
from domainfusion.errors import ConfigurationError, DomainFusionError, advice_on

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DomainFusionError)
]
NAMED = [kind for kind in KINDS if kind is not DomainFusionError]


@pytest.mark.parametrize("kind", NAMED)
def test_every_error_is_also_the_standard_one_that_the_tree_names(
    kind: type[DomainFusionError],
) -> None:
    [line] = [line for line in str(errors.__doc__).splitlines() if f"── {kind.__name__} (" in line]
    standard = line.split("(")[1].split(")")[0]
    assert kind.__bases__[0] is DomainFusionError
    assert kind.__bases__[1].__name__ == standard


def test_the_tree_names_every_error() -> None:
    assert str(errors.__doc__).count("── ") == len(NAMED) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_has_its_four_parts_in_order(kind: type[DomainFusionError]) -> None:
    message = str(kind("It broke", received={"a": 1}, allowed="whole things", fix="mend it"))
    places = [message.index(part) for part in ("It broke", "{'a': 1}", "whole things", "mend it")]
    assert places == sorted(places)
    assert message.endswith(".") and not message.endswith("..")


@pytest.mark.parametrize("received", [0, "", False, [], 0.0])
def test_a_value_that_is_false_is_still_a_value_received(received: object) -> None:
    assert repr(received) in str(ConfigurationError("It broke", received=received))


def test_parts_that_are_not_given_are_not_mentioned() -> None:
    assert str(ConfigurationError("It broke")) == "It broke."


def test_a_long_value_is_shortened_and_its_length_told() -> None:
    message = str(ConfigurationError("It broke", received="x" * 5000))
    assert len(message) < 300
    assert "5,002" in message  # the quotation marks belong to the repr


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_between_two_processes(kind: type[DomainFusionError]) -> None:
    error = kind("It broke", received=3, allowed="4", fix="add 1")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)


CONTROLS = "\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\u202e\u2066\ud800"


@pytest.mark.parametrize("part", ["what", "allowed", "fix"])
def test_no_message_steers_a_terminal(part: str) -> None:
    message = str(ConfigurationError(**{"what": "It broke", part: f"a{CONTROLS}b"}))
    assert not set(CONTROLS) & set(message) - set("[2J]0;title31m")
    message.encode()


def test_a_line_of_a_million_characters_is_cut_and_survives_another_process() -> None:
    error = ConfigurationError("x" * 1_000_000, fix="mend it")
    assert len(str(error)) < 10_000 and "1,000,0" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free disk space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "allow this user"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "before anything is deleted"),
        (errno.ENAMETOOLONG, "shorter path"),
    ],
)
def test_each_cause_has_its_own_advice(code: int, advice: str) -> None:
    assert advice in advice_on(OSError(code, os.strerror(code)))
    assert advice in advice_on(RuntimeError(f"I/O error: {os.strerror(code)} (os error {code})"))
    assert "delete" not in advice_on(OSError(code, "")).replace("before anything is deleted", "")
