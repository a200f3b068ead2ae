"""Ctrl-C and SIGTERM wait while something is made."""

from __future__ import annotations

import signal
import threading

import pytest

from netbpf.interrupts import held


def test_ctrl_c_comes_after_the_block():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with held():
            signal.raise_signal(signal.SIGINT)
            steps.append("still making")
        steps.append("never")
    assert steps == ["still making"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_came_twice_is_delivered_once_and_other_handlers_see_it():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with held():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_default_action_of_sigterm_is_restored():
    with held():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with held():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_in_the_block_is_not_lost():
    with pytest.raises(KeyboardInterrupt) as caught, held():
        signal.raise_signal(signal.SIGINT)
        raise LookupError("while making")
    assert isinstance(caught.value.__context__, LookupError)


def test_blocks_nest():
    with pytest.raises(KeyboardInterrupt), held():
        with held():
            signal.raise_signal(signal.SIGINT)
        inner_left = True
    assert inner_left


def test_other_threads_are_not_touched():
    errors = []

    def work():
        try:
            with held():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
