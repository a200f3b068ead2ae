"""What the running kernel has, found out by trying it in a throw-away namespace."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from netbpf import libc
from netbpf.errors import NotSupportedError
from netbpf.netns.enter import in_thread

SINCE = {
    "tcx": "6.6",
    "netkit": "6.7",
    "netkit-scrub": "6.13",
    "netkit-headroom": "6.14",
    "netkit-single": "7.1",
}
"""The release that brought each feature."""


@functools.cache
def has(feature: str) -> bool | None:
    """Whether the kernel has ``feature``: True, False, or None when trying it did not tell."""
    try:
        probe = _PROBES[feature]
    except KeyError:
        raise ValueError(f"no probe for {feature}; there are {', '.join(_PROBES)}") from None

    def alone() -> bool | None:
        libc.unshare(libc.CLONE_NEWNET)
        return probe()

    return in_thread(alone)


def excuse(feature: str) -> str | None:
    """Why a test that needs ``feature`` may be skipped here, or None: then it has to run.

    In the lab the kernel is known to be built with all of them: there a release that should have
    the feature is no excuse.
    """
    if has(feature) is not False:
        return None
    release = os.uname().release
    if "NETBPF_LAB" in os.environ and feature in SINCE and _at_least(release, SINCE[feature]):
        return None
    since = f", it came with {SINCE[feature]}" if feature in SINCE else ""
    return f"this kernel ({release}) has no {feature}{since}"


def _at_least(release: str, since: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    assert numbers is not None
    wanted = tuple(int(part) for part in since.split("."))
    return (int(numbers[1]), int(numbers[2])) >= wanted


def _made(**settings: object) -> bool | None:
    from netbpf.netkit import device

    try:
        device.add("nkprobe", **settings)  # type: ignore[arg-type]
    except NotSupportedError:
        return False
    except Exception:
        return None
    return True


def _tcx() -> bool | None:
    from netbpf.bpf import syscall, uapi

    attr = uapi.ProgQueryAttr(attach_type=uapi.BPF_TCX_INGRESS)
    attr.target_ifindex = 1
    try:
        syscall.prog_query(attr)
    except OSError as error:
        # kernel/bpf/syscall.c: an attach type that the kernel does not know.
        return False if error.errno == 22 else None
    return True


def _netdevsim() -> bool | None:
    bus = Path("/sys/bus/netdevsim/new_device")
    modprobe = shutil.which("modprobe")
    if not bus.exists() and modprobe is not None:
        subprocess.run([modprobe, "-q", "netdevsim"], check=False, capture_output=True)
    return bus.exists()


_PROBES: dict[str, Callable[[], bool | None]] = {
    "tcx": _tcx,
    "netkit": lambda: _made(peer="nkother"),
    "netkit-scrub": lambda: _made(peer="nkother", scrub="none"),
    "netkit-headroom": lambda: _made(peer="nkother", headroom=16, tailroom=16),
    "netkit-single": lambda: _made(single=True),
    "netdevsim": _netdevsim,
}
