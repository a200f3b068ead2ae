"""What a watch tells: a chain changed, something happened to a device, or something was missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from netbpf.bpf.chain import Chain, Entry
from netbpf.bpf.chain_change import Change

What = Literal["appeared", "gone", "renamed", "up", "down", "moved"]
"""What can happen to a device; ``moved`` is to another namespace."""


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """Something happened to a device. ``netns`` is None for the namespace of the watch.

    ``old_name`` is that of a device that was renamed. For one that moved, ``to_netns`` is how its
    new namespace is written, ``nsid:N`` when nothing visible leads there, and ``to_ifindex`` its
    number there.
    """

    what: What
    netns: str | None
    device: str
    ifindex: int
    old_name: str | None = None
    to_netns: str | None = None
    to_ifindex: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The event as a document."""
        moved = {"netns": self.to_netns, "ifindex": self.to_ifindex}
        return {
            "event": f"device_{self.what}",
            "netns": self.netns,
            "device": self.device,
            "ifindex": self.ifindex,
            "old_name": self.old_name,
            "moved_to": moved if self.what == "moved" else None,
        }

    def __str__(self) -> str:
        words = f"{_place(self.netns, self.device)} ({self.ifindex}) {self.what}"
        if self.old_name is not None:
            words += f", it was {self.old_name}"
        return f"{words} to {self.to_netns}" if self.what == "moved" else words


@dataclass(frozen=True, slots=True)
class ChainEvent:
    """A chain changed, between two looks.

    ``before`` is None for the chain of a device that appeared with programs, ``after`` for that of
    one that is gone. Nothing in ``change``: what came went again, and the revision tells of it.
    """

    netns: str | None
    device: str
    ifindex: int
    hook: str
    before: Chain | None
    after: Chain | None
    change: Change

    def as_json(self) -> dict[str, Any]:
        """The event as a document."""
        change = self.change
        return {
            "event": "chain",
            "netns": self.netns,
            "device": self.device,
            "ifindex": self.ifindex,
            "hook": self.hook,
            "revision": {
                "from": None if self.before is None else self.before.revision,
                "to": None if self.after is None else self.after.revision,
            },
            "came": [_entry(each) for each in change.came],
            "went": [_entry(each) for each in change.went],
            "replaced": [{"from": _entry(a), "to": _entry(b)} for a, b in change.replaced],
            "moved": [{"from": a.position, "to": _entry(b)} for a, b in change.moved],
        }

    def __str__(self) -> str:
        place = f"{_place(self.netns, self.device)} {self.hook}"
        phrases = "; ".join(self.change.phrases()) or "changed, and back again"
        if self.after is None:
            return f"{place} is gone: {phrases}"
        if self.before is None:
            return f"{place} revision {self.after.revision}: {phrases}"
        return f"{place} revision {self.before.revision} to {self.after.revision}: {phrases}"


@dataclass(frozen=True, slots=True)
class LostEvent:
    """More happened to devices than the kernel kept: what follows is what became of it."""

    netns: str | None

    def as_json(self) -> dict[str, Any]:
        """The event as a document."""
        return {"event": "lost", "netns": self.netns}

    def __str__(self) -> str:
        return "more happened to devices than could be told; this is what became of it:"


Event = DeviceEvent | ChainEvent | LostEvent


def _place(netns: str | None, device: str) -> str:
    return device if netns is None else f"{netns}:{device}"


def _entry(entry: Entry) -> dict[str, Any]:
    info = entry.program()
    return {
        "position": entry.position,
        "prog": {"id": entry.prog_id, "name": info.name if info else None},
        "link": {"id": entry.link_id} if entry.link_id else None,
    }
