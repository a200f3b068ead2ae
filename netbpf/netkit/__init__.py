"""Netkit: its devices, and the programs on both their sides.

The devices (``add``, ``add_many``, ``set``, ``delete``, ``get``, ``show``, ``show_all``) need
netlink, which is imported when one of them is first used, and so does ``runner``; the chains
(``attach`` and so on) do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netbpf.netkit.hooks import HOOKS, attach, chain, detach, update

if TYPE_CHECKING:
    from netbpf.netkit import lease
    from netbpf.netkit.device import add, add_many, delete, get, set, show, show_all
    from netbpf.netkit.model import Device, Peer, Settings
    from netbpf.netkit.running import runner

_DEVICE = frozenset({"add", "add_many", "delete", "get", "set", "show", "show_all"})
_MODEL = frozenset({"Device", "Peer", "Settings"})


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _DEVICE:
        return getattr(import_module("netbpf.netkit.device"), name)
    if name == "lease":
        return import_module("netbpf.netkit.lease")
    if name in _MODEL:
        return getattr(import_module("netbpf.netkit.model"), name)
    if name == "runner":
        return import_module("netbpf.netkit.running").runner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "HOOKS",
    "Device",
    "Peer",
    "Settings",
    "add",
    "add_many",
    "attach",
    "chain",
    "delete",
    "detach",
    "get",
    "lease",
    "runner",
    "set",
    "show",
    "show_all",
    "update",
]
