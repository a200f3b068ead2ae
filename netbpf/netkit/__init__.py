"""Netkit: its devices, and the programs on both their sides.

The devices (``add``, ``set``, ``delete``, ``get``, ``show``) need netlink and with it pyroute2,
which is imported when one of them is first used; the chains (``attach`` and so on) need neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netbpf.netkit.hooks import HOOKS, attach, chain, detach, update

if TYPE_CHECKING:
    from netbpf.netkit import lease
    from netbpf.netkit.device import add, delete, get, set, show
    from netbpf.netkit.model import Device, Peer

_DEVICE = frozenset({"add", "delete", "get", "set", "show"})
_MODEL = frozenset({"Device", "Peer"})


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _DEVICE:
        return getattr(import_module("netbpf.netkit.device"), name)
    if name == "lease":
        return import_module("netbpf.netkit.lease")
    if name in _MODEL:
        return getattr(import_module("netbpf.netkit.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "HOOKS",
    "Device",
    "Peer",
    "add",
    "attach",
    "chain",
    "delete",
    "detach",
    "get",
    "lease",
    "set",
    "show",
    "update",
]
