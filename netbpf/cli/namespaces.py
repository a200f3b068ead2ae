"""Going through the namespaces that a command looks into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from netbpf.cli.output import note
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.errors import KernelError
    from netbpf.netns import Namespace


def each_namespace(everywhere: bool) -> Iterator[str | None]:
    """Be in each namespace in turn and yield how it is written.

    Only where the command runs, unless ``everywhere``; None is the namespace it was started in.
    """
    if not everywhere:
        yield settings.netns
        return
    from netbpf import netns

    for found, home in netns.visit(left_out):
        yield settings.netns if home else found.reference


def left_out(namespace: Namespace, error: KernelError) -> None:
    """Say that a namespace could not be looked into."""
    note(f"left out {namespace.reference}: {error}")
