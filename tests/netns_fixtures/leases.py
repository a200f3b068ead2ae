"""A NIC with queues for a test of leases, and what the kernel says of them, read by hand."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netbpf.netlink import ethtool, links
from netbpf.netns import NetNS, entered
from tests.netns_fixtures.devices import netdevsim, rtnl_in
from tests.netns_fixtures.namespaces import namespaces, run
from tests.netns_fixtures.rawlink import attributes

_NETLINK_GENERIC = 16
_CTRL_GETFAMILY, _QUEUE_GET = 3, 10
_DONE, _ERROR = 3, 2


@dataclass(frozen=True)
class Bench:
    """A NIC in one namespace, and another namespace for netkit devices."""

    host: NetNS
    pod: NetNS
    nic: str

    @property
    def nic_ifindex(self) -> int:
        return ifindex(self.host, self.nic)

    def up(self, up: bool = True) -> None:
        """Set the NIC up, or down."""
        set_up(self.host, self.nic, up)


@contextmanager
def bench(*, queues: int = 4, up: bool = True) -> Iterator[Bench]:
    """A netdevsim NIC with ``queues`` in a namespace of its own, and an empty namespace."""
    with namespaces(2) as (host, pod), netdevsim(host, queues=queues) as (nic,):
        made = Bench(host, pod, nic)
        made.up(up)
        yield made


def ifindex(ns: NetNS, name: str) -> int:
    with rtnl_in(ns) as rtnl:
        return links.get(rtnl, name).ifindex


def set_up(ns: NetNS, name: str, up: bool = True) -> None:
    run(ns, ["ip", "link", "set", name, "up" if up else "down"])


def channels(ns: NetNS, name: str, count: int) -> None:
    """What ``ethtool -L NAME combined COUNT`` does."""
    number = ifindex(ns, name)
    with entered(ns), ethtool.Ethtool() as asking:
        ethtool.set_combined(asking, number, count)


def rx_queues(ns: NetNS, name: str) -> int:
    """The rx queues that the device has now, as sysfs shows them in a mount of its own."""
    script = f"mount -t sysfs sysfs /sys && ls -d /sys/class/net/{name}/queues/rx-* | wc -l"
    return int(run(ns, ["unshare", "-m", "sh", "-c", script]).stdout)


def kernel_leases(ns: NetNS, number: int) -> dict[int, tuple[int, int]]:
    """The leased rx queues of the NIC ``number``: who has them, as ifindex and queue.

    Asked and taken apart without netbpf.
    """
    with entered(ns):
        asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC)
    with asking:
        asking.send(_request(16, 1, _CTRL_GETFAMILY, struct.pack("=HH7sx", 11, 2, b"netdev\0")))
        family = _number(attributes(asking.recv(65536)[20:])[1])
        asking.send(_request(family, 0x301, _QUEUE_GET, struct.pack("=HHI", 8, 2, number)))
        found = {}
        for message in _answers(asking):
            queue = attributes(message[20:])
            if _number(queue[3]) == 0 and 8 in queue:
                lease = attributes(queue[8])
                inner = attributes(lease[2])
                found[_number(queue[1])] = (_number(lease[1]), _number(inner[1]))
        return found


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether the condition came true in time: namespaces die in the background."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def exists(ns: NetNS, name: str) -> bool:
    """Whether ``ip`` finds the device."""
    return run(ns, ["ip", "link", "show", "dev", name], check=False).returncode == 0


def _request(kind: int, flags: int, command: int, payload: bytes) -> bytes:
    body = struct.pack("=BBxx", command, 1) + payload
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _answers(asking: socket.socket) -> Iterator[bytes]:
    while True:
        datagram = asking.recv(1 << 17)
        offset = 0
        while offset < len(datagram):
            length, kind = struct.unpack_from("=IH", datagram, offset)
            if kind == _DONE:
                return
            assert kind != _ERROR, "queue-get was refused"
            yield datagram[offset : offset + length]
            offset += (length + 3) & ~3


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")
