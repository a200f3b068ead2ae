"""What a lease is: two ends, who uses it, and what could not be found out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

User = Literal["io-uring", "dmabuf", "xsk"]


@dataclass(frozen=True)
class End:
    """A queue of a device: the virtual one of a netkit device, or the real one of a NIC."""

    device: str | None
    """None: it lives in a namespace that we may not look into."""
    ifindex: int
    netns: str | None
    """Where it lives: None for the namespace in which it was asked for, else as `NetNS.parse`
    takes it, or ``nsid:N`` when nothing visible leads there."""
    queue: int

    def __str__(self) -> str:
        device = self.device or f"ifindex {self.ifindex}"
        return f"{device}:{self.queue}" + (f" in {self.netns}" if self.netns else "")

    def as_json(self) -> dict[str, Any]:
        """The end as ``lease show --json`` prints it."""
        return {
            "device": self.device,
            "ifindex": self.ifindex,
            "netns": self.netns,
            "queue": self.queue,
        }


@dataclass(frozen=True)
class Lease:
    """A virtual rx queue of a netkit device that stands for a NIC's."""

    netkit: End
    nic: End | None
    """None: it cannot be known; the kernel tells it at the NIC, and only while that is up."""
    user: User | None
    """What has taken the queue over; None also where it cannot be known: both ends are down."""

    def as_json(self) -> dict[str, Any]:
        """The lease as ``lease show --json`` prints it."""
        return {
            "netkit": self.netkit.as_json(),
            "nic": None if self.nic is None else self.nic.as_json(),
            "user": self.user,
        }

    def seen_from(self, netns: str | None) -> Lease:
        """The same, with ``netns`` as the name of the namespace in which it was asked for."""
        if netns is None:
            return self

        def named(end: End) -> End:
            return replace(end, netns=end.netns or netns)

        return replace(
            self, netkit=named(self.netkit), nic=None if self.nic is None else named(self.nic)
        )


@dataclass(frozen=True)
class Unknown:
    """Something about leases that could not be found out, and why."""

    device: str | None
    """The netkit device; None: the whole namespace."""
    netns: str | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The gap as ``lease show --json`` prints it."""
        return {"device": self.device, "netns": self.netns, "reason": self.reason}


@dataclass(frozen=True)
class Survey:
    """The leases of all namespaces that can be seen, and what stayed unknown."""

    leases: tuple[Lease, ...] = ()
    unknown: tuple[Unknown, ...] = ()
