"""Going through the network namespaces that can be found, with the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack

from netbpf.errors import KernelError, NotFoundError
from netbpf.netns.enter import entered
from netbpf.netns.handle import NetNS
from netbpf.netns.holders import Namespace, scan

LeftOut = Callable[[Namespace, KernelError], None]
"""Told of a namespace that may not be entered."""


def visit(left_out: LeftOut | None = None) -> Generator[tuple[Namespace, bool], None, None]:
    """Be in each namespace in turn; yields it, and whether the thread was in it before.

    That one comes first and needs no rights. One that goes away meanwhile is passed over. Between
    two steps the calling thread is in the namespace: go on to the end, or close the iterator.

    :param left_out: told of each that may not be entered, which is then passed over; None raises.
    :raises KernelError: EPERM or EACCES: it may not be entered.
    """
    with NetNS.current() as home:
        inode = home.inode
    listed = scan()
    yield next((each for each in listed if each.inode == inode), Namespace(inode)), True
    for namespace in listed:
        if namespace.inode == inode:
            continue
        with ExitStack() as stack:
            try:
                stack.enter_context(entered(stack.enter_context(namespace.open())))
            except NotFoundError:
                # It went while we looked around.
                continue
            except KernelError as error:
                if left_out is None:
                    raise
                left_out(namespace, error)
                continue
            yield namespace, False
