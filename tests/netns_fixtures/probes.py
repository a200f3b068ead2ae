"""What the running kernel has, found out by trying it in a throw-away namespace."""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from netbpf import libc
from netbpf.errors import NotSupportedError
from netbpf.netns.enter import in_thread

SINCE = {
    "tcx": "6.6",
    "netkit": "6.7",
    "netkit-scrub": "6.13",
    "netkit-headroom": "6.14",
    "insn-array": "6.19",
    "netkit-single": "7.1",
    "common-attrs": "7.2",
    "tracing-multi": "7.2",
}
"""The release that brought each feature."""

OPTIONAL = frozenset(
    {"kprobe", "kprobe-multi", "lsm", "fmod_ret", "fentry", "kallsyms-all"}
    | {"module-types", "act-ct", "xfrm-interface", "flower"}
)
"""What any release may be built without; the lab's kernel is not."""


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
    if "NETBPF_LAB" in os.environ and (
        feature in OPTIONAL or (feature in SINCE and _at_least(release, SINCE[feature]))
    ):
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


def _module(*names: str) -> Callable[[], bool]:
    """Whether these modules can be loaded, and tell of their types."""

    def attempt() -> bool:
        modprobe = shutil.which("modprobe")
        if modprobe is not None:
            subprocess.run([modprobe, "-q", "-a", *names], check=False, capture_output=True)
        return all(Path(f"/sys/kernel/btf/{name}").exists() for name in names)

    return attempt


def _kprobe_multi() -> bool | None:
    from netbpf.bpf import link_create, prog, uapi
    from netbpf.bpf.fd import FD

    kind = uapi.BPF_TRACE_KPROBE_MULTI
    insns = bytes.fromhex("b700000000000000 9500000000000000")
    with prog.load(uapi.BPF_PROG_TYPE_KPROBE, insns, expected_attach_type=kind) as made:
        try:
            FD(link_create.kprobe_multi(made.fileno(), kind, ["vfs_read"])).close()
        except OSError as error:
            # kernel/trace/bpf_trace.c: without CONFIG_FPROBE it is not even built.
            return False if error.errno == errno.EOPNOTSUPP else None
    return True


def _decides(prog_type: str, attach_type: str, function: str) -> bool | None:
    from netbpf.bpf import prog, uapi
    from netbpf.btf import types
    from netbpf.errors import BpfError
    from netbpf.loader import kernel_types

    target = kernel_types.running().btf.find(function, types.KIND_FUNC)
    if target is None:
        return False
    try:
        prog.load(
            getattr(uapi, f"BPF_PROG_TYPE_{prog_type}"),
            bytes.fromhex("b700000000000000 9500000000000000"),
            expected_attach_type=getattr(uapi, f"BPF_{attach_type}"),
            attach_btf_id=target,
        ).close()
    except BpfError as error:
        # A machine may forbid programs that decide, to root too.
        return False if error.errno in (errno.EPERM, errno.EINVAL) else None
    return True


def _tracing_multi() -> bool | None:
    from netbpf.bpf import prog, uapi
    from netbpf.errors import BpfError

    try:
        prog.load(
            uapi.BPF_PROG_TYPE_TRACING,
            bytes.fromhex("b700000000000000 9500000000000000"),
            expected_attach_type=uapi.BPF_TRACE_FENTRY_MULTI,
        ).close()
    except BpfError as error:
        return False if error.errno == errno.EINVAL else None
    return True


def _common_attrs() -> bool | None:
    from netbpf.bpf import uapi
    from netbpf.bpf.fd import FD

    attr = uapi.MapCreateAttr(map_type=uapi.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4)
    attr.max_entries = 1
    try:
        number = libc.bpf_told(uapi.BPF_MAP_CREATE | uapi.BPF_COMMON_ATTRS, attr, uapi.CommonAttr())
    except OSError as error:
        return False if error.errno == errno.EINVAL else None
    FD(number).close()
    return True


def _insn_array() -> bool | None:
    from netbpf.bpf import syscall, uapi
    from netbpf.bpf.fd import FD

    attr = uapi.MapCreateAttr(map_type=uapi.BPF_MAP_TYPE_INSN_ARRAY, key_size=4, value_size=16)
    attr.max_entries = 1
    try:
        FD(syscall.map_create(attr)).close()
    except OSError as error:
        return False if error.errno == errno.EINVAL else None
    return True


def _flower() -> bool | None:
    for words in ("qdisc add dev lo clsact", "filter add dev lo ingress protocol ip flower"):
        done = subprocess.run(["tc", *words.split()], capture_output=True, text=True)
        if done.returncode:
            # net/sched/cls_api.c: tcf_proto_lookup_ops.
            return False if "TC classifier not found" in done.stderr else None
    return True


def _kconfig() -> Iterable[object]:
    from netbpf.loader import kconfig

    return kconfig.settings()


_PROBES: dict[str, Callable[[], bool | None]] = {
    "tcx": _tcx,
    "netkit": lambda: _made(peer="nkother"),
    "netkit-scrub": lambda: _made(peer="nkother", scrub="none"),
    "netkit-headroom": lambda: _made(peer="nkother", headroom=16, tailroom=16),
    "netkit-single": lambda: _made(single=True),
    "netdevsim": _netdevsim,
    # One whose initial namespaces nobody else lives in.
    "spare-kernel": lambda: "NETBPF_LAB" in os.environ,
    "flower": _flower,
    "module-types": lambda: len(os.listdir("/sys/kernel/btf")) > 1,
    "act-ct": _module("nf_conntrack", "nf_nat", "act_ct"),
    "xfrm-interface": _module("xfrm_interface"),
    "kprobe": lambda: Path("/sys/bus/event_source/devices/kprobe").exists(),
    "kprobe-multi": _kprobe_multi,
    "lsm": lambda: _decides("LSM", "LSM_MAC", "bpf_lsm_socket_create"),
    "common-attrs": _common_attrs,
    "tracing-multi": _tracing_multi,
    "insn-array": _insn_array,
    # CONFIG_KALLSYMS_ALL: without it variables have types and no addresses.
    "kallsyms-all": lambda: " runqueues\n" in Path("/proc/kallsyms").read_text(),
    # CONFIG_IKCONFIG_PROC, or a distribution's file.
    "kconfig": lambda: any(True for _ in _kconfig()),
    "fentry": lambda: _decides("TRACING", "TRACE_FENTRY", "vfs_read"),
    "fmod_ret": lambda: _decides("TRACING", "MODIFY_RETURN", "security_socket_create"),
}

FEATURES = tuple(_PROBES)
"""What a test can need."""


if __name__ == "__main__":
    print(",".join(feature for feature in _PROBES if has(feature)))
