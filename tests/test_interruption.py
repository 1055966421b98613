"""A signal waits for the end of a block; a second one does not."""

from __future__ import annotations

import signal
import threading

import pytest

from domainfusion.interruption import DeferredSignals


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), DeferredSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        reached = True
    assert reached


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), DeferredSignals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second signal was held back")


def test_an_error_in_the_block_is_not_replaced() -> None:
    with pytest.raises(ValueError, match="own"), DeferredSignals():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("own")


def test_the_handlers_of_before_are_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with DeferredSignals():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_changes_nothing() -> None:
    found = []

    def work() -> None:
        with DeferredSignals() as signals:
            found.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
