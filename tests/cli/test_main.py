from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from domainfusion.cli import init
from domainfusion.cli.main import build_parser, main
from domainfusion.errors import DataError

from .conftest import command, start

# In the help, a verb begins a line after four spaces; what it does stands beside it.
VERB_NAMES = re.findall(r"^    ([a-z]+) ", build_parser().format_help(), flags=re.MULTILINE)


def test_help_comes_in_under_a_second_and_tells_the_exit_codes() -> None:
    """A second of computing: on a busy machine it may take longer."""
    before = os.times()
    done = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    after = os.times()
    user = after.children_user - before.children_user
    assert user + after.children_system - before.children_system < 1
    assert all(verb in done.stdout for verb in VERB_NAMES)
    assert all(f"  {code} " in done.stdout for code in ("0", "1", "2", "130", "143"))


def test_help_of_every_verb_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom domainfusion.cli.main import main\nfor words in [['--help'], *([verb,"
        f" '--help'] for verb in {VERB_NAMES!r})]:\n    try:\n        main(words)\n    except"
        " SystemExit as end:\n        assert end.code == 0\nprint([name for name in ('torch',"
        " 'transformers', 'pydantic', 'rich', 'yaml', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("--quiet") >= len(VERB_NAMES)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["destill"],
        ["ask"],
        ["init", "--quiet", "--verbose"],
        ["distill", "r", "--until", "never"],
    ],
)
def test_a_command_that_is_written_wrongly_exits_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "passive 1000"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
        ({"GOMP_SPINCOUNT": "7"}, "passive 7"),
    ],
)
def test_threads_spin_little_while_they_wait_unless_the_user_says_otherwise(
    given: dict[str, str], found: str
) -> None:
    """OpenMP reads the variables when torch is loaded, so torch must not be there yet."""
    code = (
        "import os, sys\nfrom domainfusion.cli.main import main\nassert main(['status', 'nowhere'])"
        "\nprint('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'],"
        " os.environ.get('GOMP_SPINCOUNT'))"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    inherited = {key: value for key, value in os.environ.items() if key not in names}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", *found.split()]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Puts a function in the place of what `init` does."""
    return lambda act: monkeypatch.setattr(init, "run", lambda arguments, terminal: act())


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_an_error_of_ours_is_one_message(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(DataError("It is broken", received=3, fix="mend it")))
    assert main(["init"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "Error: It is broken; received 3. To fix it: mend it.\n"
    assert captured.out == ""


def test_verbose_adds_the_traceback(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(DataError("It is broken")))
    assert main(["init", "--verbose"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("Error: It is broken.\n")


def test_an_error_that_nobody_foresaw_is_one_message_too(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(KeyError("x")))
    assert main(["init"]) == 1
    assert capsys.readouterr().err == "Error: Unexpected KeyError: 'x'\n"


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_in_other_words() -> None:
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def full_disk_further_down() -> None:
    try:
        full_disk()
    except OSError as error:
        raise RuntimeError("the checkpoint could not be written") from error


@pytest.mark.parametrize("act", [full_disk, full_disk_in_other_words, full_disk_further_down])
def test_a_full_disk_is_named(
    act: Callable[[], None], verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(act)
    assert main(["init"]) == 1
    assert "The disk is full. What was finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_with_its_code(
    number: signal.Signals, code: int, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    left_in_order: list[str] = []

    def act() -> None:
        try:
            signal.raise_signal(number)
        except Exception:  # a library that swallows every exception can't swallow a stop
            left_in_order.append("swallowed")
        finally:
            left_in_order.append("cleaned")

    verb(act)
    assert main(["init"]) == code
    assert (
        capsys.readouterr().err
        == "Stopped. What was finished is kept; run the same command to resume.\n"
    )
    assert left_in_order == ["cleaned"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


AGAIN = """
import signal, sys
from domainfusion.cli import init, terminal
from domainfusion.cli.main import main

def stop(*_):
    signal.raise_signal(signal.{number})

def fail(*_, **__):
    print("the message", flush=True)
    stop()

if {is_told}:
    terminal.Terminal.fail = fail
else:
    terminal.Terminal.__exit__ = stop
init.run = stop if {is_first} else lambda *_: 0
sys.exit(main(["init"]))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["status", "LONG"],
        ["report", "LONG"],
        ["evaluate", "LONG"],
        ["ask", "LONG", "Why?"],
        ["init", "LONG"],
        ["distill", "LONG"],
        ["distill", "recipe.yaml", "--dry-run"],
        ["merge", "LONG", "--expert", "a=LONG", "--output", "new"],
        ["export", "LONG", "--format", "gguf", "--output", "new"],
        ["extend", "LONG", "--expert", "a=LONG"],
    ],
)
def test_a_path_that_no_file_system_can_have_is_one_clear_error(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    long = "x" * 300
    (tmp_path / "recipe.yaml").write_text(
        f"domains: {{a: A}}\nstudent: {long}\nteachers: {{a: {long}/y}}\n"
        f"generators: [{{type: curated, file: {long}}}]\nevaluation: {{test_examples: {long}}}\n"
    )
    assert main([word.replace("LONG", long) for word in words]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Error: ") and "Unexpected" not in told
    assert "too long" in told or "not" in told or "no model" in told


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("is_told", [True, False])
def test_a_second_signal_while_the_first_is_told_ends_the_process_without_a_traceback(
    number: str, is_told: bool
) -> None:
    code = AGAIN.format(number=number, is_told=is_told, is_first=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.Signals[number]
    assert "Traceback" not in done.stderr
    assert ("the message" in done.stdout) == is_told


def test_a_signal_after_the_verb_has_ended_is_a_stop_too() -> None:
    code = AGAIN.format(number="SIGINT", is_told=False, is_first=False)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_reader_that_leaves_is_not_an_error(tmp_path: Path) -> None:
    process = start(["init", tmp_path / "recipe.yaml"])
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_results_that_can_not_be_written_are_one_error(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("init", tmp_path / "recipe.yaml"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The disk is full.")
    assert done.stderr.count("\n") == 1


def test_verbs_share_quiet_and_verbose() -> None:
    parser = build_parser()
    of_a_run = [[verb, "run"] for verb in ("status", "evaluate", "report", "export")]
    for words in (["demo"], ["init"], ["distill", "r"], ["ask", "m", "q"], *of_a_run):
        assert parser.parse_args([*words, "--quiet"]).quiet
        assert parser.parse_args([*words, "--verbose"]).verbose


def test_a_word_that_is_not_known_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["status", "run", "\x1b[2J\x1b]0;title\x07"])
    assert "\x1b" not in capsys.readouterr().err
