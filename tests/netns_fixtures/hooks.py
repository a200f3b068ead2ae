"""A hook of every kind, with traffic that passes it: tests of chains are written once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netbpf import loader, netkit, tcx
from netbpf.bpf import pin as pins
from netbpf.bpf.bpffs import FOLDER, MOUNT
from netbpf.bpf.chain import Chain
from netbpf.bpf.mprog import Hooks, Placed
from netbpf.bpf.prog import Program
from netbpf.netns import NetNS, entered
from tests.netns_fixtures import devices, namespaces
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.packets import UdpSink, send_udp

SITES = {
    "tcx-ingress": "tcx",
    "tcx-egress": "tcx",
    "netkit-primary": "netkit",
    "netkit-peer": "netkit",
}
"""Each kind of hook, and the feature that it needs."""

PAYLOAD = bytes(777)
"""What tests/bpf/trace.c takes notice of."""


@dataclass(frozen=True)
class Site:
    """One hook of a device in a namespace, and which way packets pass it."""

    hooks: Hooks
    hook: str
    noun: str
    ns: NetNS
    device: str
    ifindex: int
    sender: End
    receiver: End

    def attach(self, prog: Program, **where: Any) -> Placed:
        """Attach in the device's namespace."""
        with entered(self.ns):
            return self.hooks.attach(self.ifindex, self.hook, prog, **where)

    def chain(self) -> Chain:
        """The chain now."""
        with entered(self.ns):
            return self.hooks.chain(self.ifindex, self.hook)

    def ids(self) -> list[int]:
        """The ids of the chain's programs, in order."""
        return [entry.prog_id for entry in self.chain().entries]

    def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """``detach`` or ``update`` in the device's namespace."""
        with entered(self.ns):
            return getattr(self.hooks, verb)(self.ifindex, self.hook, *args, **kwargs)

    def arrived(self, count: int = 3, timeout: float = 2.0) -> int:
        """Send datagrams through the hook and count those that arrive."""
        with UdpSink(self.receiver.ns, port=9) as sink:
            send_udp(self.sender.ns, self.receiver.address, 9, PAYLOAD, count)
            return len(sink.receive(count, timeout=timeout))

    def own_pins(self) -> list[str]:
        """netbpf's own pins of links in the site's namespace."""
        folder = Path(MOUNT) / FOLDER
        return [str(path) for path in folder.glob(f"net{self.ns.inode}_*")]

    def passes(self) -> bool:
        """Whether packets get through the hook."""
        return self.arrived() == 3

    def drops(self) -> bool:
        """Whether no packet gets through the hook; waits a while for none."""
        return self.arrived(timeout=0.3) == 0


@contextmanager
def site(kind: str) -> Iterator[Site]:
    """A hook of that kind, on a device of its own in a namespace of its own."""
    noun, hook = kind.split("-")
    with namespaces.namespaces(2) as (a, b), ExitStack() as stack:
        if noun == "netkit":
            # Both sides' chains hang on the primary; a side's programs see what it sends.
            near, far = stack.enter_context(devices.netkit_pair(a, b))
            sender, receiver = (near, far) if hook == "primary" else (far, near)
            made = Site(netkit.HOOKS, hook, noun, a, near.name, near.ifindex, sender, receiver)
        else:
            near, far = stack.enter_context(devices.veth_pair(a, b))
            sender, receiver = (far, near) if hook == "ingress" else (near, far)
            made = Site(tcx.HOOKS, hook, noun, a, near.name, near.ifindex, sender, receiver)
        yield made
        # Pins outlive a device: the site's own are taken away, and with them their links.
        for path in made.own_pins():
            pins.remove(path)


@dataclass(frozen=True)
class Tracers:
    """tests/bpf/trace.c, loaded: programs that write down the order in which they run."""

    obj: loader.Object

    def __getitem__(self, name: str) -> Program:
        return self.obj.programs[name]

    def order(self, through: Site) -> list[int]:
        """Send one datagram through the hook and return which programs ran, in order."""
        self.obj.set("trace.count", 0)
        assert through.arrived(1) == 1
        return list(self.obj.get("trace.order")[: self.obj.get("trace.count")])
