"""Going through the namespaces that a command looks into."""

from __future__ import annotations

from collections.abc import Iterator

from netbpf.cli.settings import settings


def each_namespace(everywhere: bool) -> Iterator[str | None]:
    """Be in each namespace in turn and yield how it is written.

    Only where the command runs, unless ``everywhere``; None is the namespace it was started in.
    """
    if not everywhere:
        yield settings.netns
        return
    from netbpf import netns
    from netbpf.errors import NotFoundError

    with netns.NetNS.current() as home:
        for found in netns.scan():
            if found.inode == home.inode:
                yield settings.netns
                continue
            try:
                place = found.open()
            except NotFoundError:
                # It went while we looked around.
                continue
            with place, netns.entered(place):
                yield found.reference
