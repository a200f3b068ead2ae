"""A device's hook, and reading the chain that hangs there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from netbpf.bpf import uapi
from netbpf.bpf.chain import Chain, Entry
from netbpf.bpf.query import Asker

_askers: list[Asker] = []


@dataclass(frozen=True, slots=True)
class Hook:
    """One of a device's hooks.

    ``member`` is its part of BPF_LINK_CREATE's attributes. ``refusals`` are the errnos that only
    this kind of hook gives, each with reason and hint.
    """

    name: str
    attach_type: int
    member: Literal["tcx", "netkit"]
    since: str
    config: str
    refusals: Mapping[int, tuple[str, str | None]] = field(default_factory=dict)
    prog_type: int = uapi.BPF_PROG_TYPE_SCHED_CLS
    """kernel/bpf/syscall.c: attach_type_to_prog_type."""
    section: str = "tc"

    @property
    def words(self) -> str:
        """The hook for a message: ``tcx ingress``."""
        return f"{self.member} {self.name}"


def check_ifindex(ifindex: int) -> None:
    """:raises ValueError: no device has that number."""
    if not 0 < ifindex < 2**31:
        raise ValueError(f"an ifindex is a positive number below 2^31, not {ifindex}")


def query(ifindex: int, hook: Hook) -> Chain:
    """The chain at ``hook`` of the device, in the caller's network namespace.

    Since Linux 6.6 (kernel/bpf/mprog.c: bpf_mprog_query).

    :raises OSError: the kernel's errno.
    """
    check_ifindex(ifindex)
    # Taken out while it is used, so no two threads ask with the same buffers.
    try:
        asker = _askers.pop()
    except IndexError:
        asker = Asker()
    try:
        revision, progs, links = asker.chain(ifindex, hook.attach_type)
    finally:
        _askers.append(asker)
    entries = tuple(
        Entry(position, prog, link or None)
        for position, (prog, link) in enumerate(zip(progs, links, strict=True))
    )
    told = entries or hook.member != "netkit"
    return Chain(ifindex, hook.name, revision if told else 0, entries)
