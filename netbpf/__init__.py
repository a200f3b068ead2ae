"""Linux network plumbing with BPF: the public names, each loaded when it is first used.

``netbpf.netkit`` and ``netbpf.netns`` make devices and namespaces, ``netbpf.loader`` loads object
files, of which ``netbpf.skeleton`` makes typed modules, ``netbpf.tcx`` and ``netbpf.netkit`` attach
programs, order them and run packets through them; ``netbpf.captures`` reads and writes packets.
Functions take an ifindex and act in the network namespace where the calling thread stands.
"""

from __future__ import annotations

# Not from typing: to import it costs a quick command a tenth of its time (bench/show.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from netbpf import captures, loader, netkit, netns, progs, skeleton, tcx
    from netbpf.bpf.chain import Chain, Entry
    from netbpf.bpf.flow_keys import FlowKeys
    from netbpf.bpf.link import Link
    from netbpf.bpf.map import Map
    from netbpf.bpf.mprog import Placed, Removed
    from netbpf.bpf.prog import Program
    from netbpf.bpf.ref import Ref
    from netbpf.bpf.test_lookup import Lookup, LookupResult
    from netbpf.bpf.test_run import RunResult, SkbContext, XdpContext
    from netbpf.errors import (
        AmbiguousError,
        BpfError,
        CaptureError,
        ConflictError,
        KernelError,
        NetbpfError,
        NetlinkError,
        NotFoundError,
        NotSupportedError,
        ObjectFileError,
        StaleRevisionError,
        VerifierError,
    )
    from netbpf.netns import NetNS

_HOMES = {
    "AmbiguousError": "netbpf.errors",
    "BpfError": "netbpf.errors",
    "CaptureError": "netbpf.errors",
    "Chain": "netbpf.bpf.chain",
    "ConflictError": "netbpf.errors",
    "Entry": "netbpf.bpf.chain",
    "FlowKeys": "netbpf.bpf.flow_keys",
    "KernelError": "netbpf.errors",
    "Link": "netbpf.bpf.link",
    "Lookup": "netbpf.bpf.test_lookup",
    "LookupResult": "netbpf.bpf.test_lookup",
    "Map": "netbpf.bpf.map",
    "NetNS": "netbpf.netns",
    "NetbpfError": "netbpf.errors",
    "NetlinkError": "netbpf.errors",
    "NotFoundError": "netbpf.errors",
    "NotSupportedError": "netbpf.errors",
    "ObjectFileError": "netbpf.errors",
    "Placed": "netbpf.bpf.mprog",
    "Program": "netbpf.bpf.prog",
    "Ref": "netbpf.bpf.ref",
    "Removed": "netbpf.bpf.mprog",
    "RunResult": "netbpf.bpf.test_run",
    "SkbContext": "netbpf.bpf.test_run",
    "StaleRevisionError": "netbpf.errors",
    "VerifierError": "netbpf.errors",
    "XdpContext": "netbpf.bpf.test_run",
}
_ROOMS = frozenset({"captures", "loader", "netkit", "netns", "progs", "skeleton", "tcx"})


def __getattr__(name: str) -> Any:
    home = f"netbpf.{name}" if name in _ROOMS else _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import sys

    # What importlib.import_module does, without its package.
    __import__(home)
    module = sys.modules[home]
    return module if name in _ROOMS else getattr(module, name)


__all__ = [
    "AmbiguousError",
    "BpfError",
    "CaptureError",
    "Chain",
    "ConflictError",
    "Entry",
    "FlowKeys",
    "KernelError",
    "Link",
    "Lookup",
    "LookupResult",
    "Map",
    "NetNS",
    "NetbpfError",
    "NetlinkError",
    "NotFoundError",
    "NotSupportedError",
    "ObjectFileError",
    "Placed",
    "Program",
    "Ref",
    "Removed",
    "RunResult",
    "SkbContext",
    "StaleRevisionError",
    "VerifierError",
    "XdpContext",
    "captures",
    "loader",
    "netkit",
    "netns",
    "progs",
    "skeleton",
    "tcx",
]
