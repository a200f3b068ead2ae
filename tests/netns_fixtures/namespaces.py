"""Network namespaces for a test, with names of their own."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netbpf import netns
from netbpf.netns import NetNS

PREFIX = f"nbt-{os.getpid()}-"
"""What the names of this run's namespaces begin with; other runs may go on beside it."""


def random_name(prefix: str = PREFIX) -> str:
    return f"{prefix}{secrets.token_hex(4)}"


@contextmanager
def namespace(*, ipv6: bool = False, up: bool = True) -> Iterator[NetNS]:
    """A new named namespace; without IPv6 unless asked for, as its chatter disturbs counters.

    :param up: bring the new namespace's own ``lo`` up.
    """
    name = random_name()
    netns.add(name)
    try:
        with NetNS.from_name(name) as ns:
            with netns.entered(ns):
                if not ipv6:
                    for which in ("all", "default"):
                        sysctl = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
                        if sysctl.exists():
                            sysctl.write_text("1")
                if up:
                    _loopback_up()
            yield ns
    finally:
        netns.delete(name)


@contextmanager
def namespaces(count: int, *, ipv6: bool = False) -> Iterator[list[NetNS]]:
    """Several new named namespaces."""
    with ExitStack() as stack:
        yield [stack.enter_context(namespace(ipv6=ipv6)) for _ in range(count)]


def run(ns: NetNS, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command inside ``ns`` (as `nsenter --net`: same mounts), its output as text."""
    with netns.entered(ns):
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    with process:
        out, err = process.communicate(timeout=120)
    if check and process.returncode:
        raise AssertionError(f"{argv} ended with {process.returncode}: {err or out}")
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def _loopback_up() -> None:
    from netbpf.netlink import links
    from netbpf.netlink.rtnl import Rtnl

    with Rtnl() as rtnl:
        links.change(rtnl, 1, up=True)
