"""Entering a network namespace: with the calling thread for a block, or with a fresh thread."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from netbpf import libc
from netbpf.errors import KernelError
from netbpf.netns.handle import NetNS

T = TypeVar("T")


@contextmanager
def entered(ns: NetNS) -> Iterator[None]:
    """Be in ``ns`` with the calling thread while the block runs, then back where it was.

    Other threads stay where they are; a thread started inside the block starts in ``ns``. A socket
    opened inside belongs to ``ns`` for its whole life. Do not ``await`` inside: other tasks of the
    same thread would run in ``ns`` too. Blocks may be nested.

    A thread that cannot return would do the rest of its work in the wrong namespace, so that is
    fatal by design: a message on stderr, then ``abort()``. Where it can be foreseen, the thread
    does not leave.

    :raises KernelError: EPERM: entering needs CAP_SYS_ADMIN, and so does coming back.
    """
    with NetNS.current() as home:
        if not _may_enter(home):
            # A thread that need not come back tells whether it is this alone that is missing.
            run_in(ns, lambda: None)
            raise KernelError(
                f"enter namespace {ns}",
                errno.EPERM,
                "there would be no way back",
                hint="the namespace that we are in belongs to a user namespace further out; "
                "a thread of its own can enter (run_in)",
            )
        try:
            enter_for_good(ns)
            yield
        finally:
            try:
                _return(home)
            except KeyboardInterrupt:
                # It came before the return was done.
                _return(home)
                raise


def enter_for_good(ns: NetNS) -> None:
    """Move the calling thread into ``ns`` and leave it there.

    For a process or a thread that has nothing else to do; else use `entered`.

    :raises KernelError: EPERM: entering needs CAP_SYS_ADMIN.
    """
    try:
        libc.setns(ns.fileno(), libc.CLONE_NEWNET)
    except OSError as error:
        raise KernelError(
            f"enter namespace {ns}",
            error.errno or 0,
            hint="entering needs CAP_SYS_ADMIN, here and in the user namespace that owns it"
            if error.errno == 1
            else None,
        ) from error


def may_return() -> bool:
    """Whether the calling thread could come back to its namespace after it had left it.

    Not so in a user namespace without a network namespace of its own (``unshare -Ur``).
    """
    with NetNS.current() as home:
        return _may_enter(home)


def _may_enter(home: NetNS) -> bool:
    """To enter the namespace where one is changes nothing, and asks for the same rights."""
    try:
        libc.setns(home.fileno(), libc.CLONE_NEWNET)
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def run_in(ns: NetNS, function: Callable[[], T]) -> T:
    """Call ``function`` in a fresh thread inside ``ns`` and hand back its result or its exception.

    The calling thread never moves. When Ctrl-C interrupts the waiting, ``function`` is left to
    finish in its thread.

    :raises KernelError: EPERM: entering needs CAP_SYS_ADMIN.
    """

    def inside() -> T:
        enter_for_good(ns)
        return function()

    return in_thread(inside)


def in_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in a fresh thread and hand back its result or its exception."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="netbpf-netns")
    thread.start()
    thread.join()
    if errors:
        # Popped, so that no frame keeps the exception that keeps the frame.
        raise errors.pop()
    return results.pop()


def _return(home: NetNS) -> None:
    # Asked, not remembered: entering may have failed, or an interruption come right after it.
    if home.is_current():
        return
    try:
        libc.setns(home.fileno(), libc.CLONE_NEWNET)
    except (OSError, ValueError) as error:
        print(
            f"netbpf: fatal: cannot return from a network namespace: {error}; "
            "going on in the wrong one would be worse",
            file=sys.stderr,
            flush=True,
        )
        os.abort()
