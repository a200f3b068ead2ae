"""Captures: Ethernet frames read out of pcap and pcapng files, and written into them.

Whoever wrote a capture is not trusted: a damaged or hostile file is a CaptureError, and no more of
it than one packet is in memory at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netbpf.captures.packet import Packet
    from netbpf.captures.read import Capture, reading
    from netbpf.captures.write import Writer, writing

_HOMES = {
    "Capture": "netbpf.captures.read",
    "Packet": "netbpf.captures.packet",
    "Writer": "netbpf.captures.write",
    "reading": "netbpf.captures.read",
    "writing": "netbpf.captures.write",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if home := _HOMES.get(name):
        return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Capture", "Packet", "Writer", "reading", "writing"]
