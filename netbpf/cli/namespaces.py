"""Going through the namespaces that a command looks into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from netbpf.cli.output import note
from netbpf.cli.settings import settings


def each_namespace(everywhere: bool) -> Iterator[str | None]:
    """Be in each namespace in turn and yield how it is written.

    Only where the command runs, unless ``everywhere``; None is the namespace it was started in.
    """
    if not everywhere:
        yield settings.netns
        return
    from netbpf import netns
    from netbpf.errors import KernelError, NotFoundError

    with netns.NetNS.current() as home:
        for found in netns.scan():
            if found.inode == home.inode:
                yield settings.netns
                continue
            with ExitStack() as stack:
                try:
                    stack.enter_context(netns.entered(stack.enter_context(found.open())))
                except NotFoundError:
                    # It went while we looked around.
                    continue
                except KernelError as error:
                    note(f"left out {found.reference}: {error}")
                    continue
                yield found.reference
