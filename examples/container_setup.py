#!/usr/bin/env python3
"""A container's network on netbpf's API: a namespace, a netkit pair, one program before another.

Does what container-setup.sh does, and takes all of it back when the block ends, however it ends.
Needs root, Linux 6.7, clang and ping.
"""

from __future__ import annotations

import platform
import secrets
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netbpf import Map, NetNS, loader, netkit, netns, progs

SOURCE = Path(__file__).with_name("icmp_guard.c")


@contextmanager
def namespace(name: str) -> Iterator[NetNS]:
    """A new namespace, deleted with the block and the devices in it."""
    netns.add(name)
    try:
        with NetNS.from_name(name) as place:
            yield place
    finally:
        netns.delete(name)


def compiled(folder: str) -> str:
    """The object file of icmp_guard.c."""
    output = f"{folder}/icmp_guard.o"
    headers = f"-I/usr/include/{platform.machine()}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", headers, "-c", str(SOURCE), "-o", output]
    subprocess.run(command, check=True)
    return output


def packets(counters: Map) -> int:
    """What builtin:count has counted, over all CPUs."""
    value = counters.lookup(struct.pack("=I", 0))
    assert value is not None
    return sum(struct.unpack("=QQ", cpu)[0] for cpu in counters.split(value))


def ping(address: str, size: int) -> bool:
    """Whether there is an answer, asked from the namespace where we are."""
    command = ["ping", "-n", "-q", "-c", "3", "-i", "0.2", "-W", "1", "-s", str(size), address]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


def main() -> int:
    """Set it up, show that it works, take it back."""
    name = secrets.token_hex(4)
    with (
        tempfile.TemporaryDirectory() as folder,
        namespace(f"host-{name}") as host,
        namespace(f"container-{name}") as container,
        loader.open(compiled(folder)) as guard,
        loader.open(progs.path("count")) as count,
        # Functions act where the thread stands: for the real host leave this out.
        netns.entered(host),
    ):
        device = netkit.add(
            "nk0",
            addrs=["10.214.0.1/24"],
            peer="eth0",
            peer_netns=container,
            peer_addrs=["10.214.0.2/24"],
            # Until a program is attached nothing that the container sends comes through.
            peer_policy="blackhole",
            up=True,
        )
        guard.set("max_len", 500)
        guard.load()
        count.load()

        # Both sides' programs are attached by way of the primary. A link detaches when it is
        # closed: pin() would keep it.
        policy = netkit.attach(device.ifindex, "peer", guard.programs["icmp_guard"])
        assert policy.link is not None
        with policy.link:
            counted = netkit.attach(
                device.ifindex, "peer", count.programs["count"], before=policy.link
            )
            assert counted.link is not None
            with counted.link:
                for entry in netkit.chain(device.ifindex, "peer").entries:
                    print(entry.position, entry)
                if not ping("10.214.0.2", size=56) or ping("10.214.0.2", size=1000):
                    print("the wrong pings came through", file=sys.stderr)
                    return 1
                print(f"the container sent {packets(count.maps['counters'])} packets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
