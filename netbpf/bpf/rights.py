"""The capabilities that the kernel wants for programs and maps, and what to do where they lack."""

from __future__ import annotations

from netbpf.bpf import uapi

# include/uapi/linux/capability.h
_BITS = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
# kernel/bpf/syscall.c: is_net_admin_prog_type
_NET_ADMIN = frozenset(
    {
        uapi.BPF_PROG_TYPE_SCHED_CLS,
        uapi.BPF_PROG_TYPE_SCHED_ACT,
        uapi.BPF_PROG_TYPE_XDP,
        uapi.BPF_PROG_TYPE_LWT_IN,
        uapi.BPF_PROG_TYPE_LWT_OUT,
        uapi.BPF_PROG_TYPE_LWT_XMIT,
        uapi.BPF_PROG_TYPE_LWT_SEG6LOCAL,
        uapi.BPF_PROG_TYPE_SK_SKB,
        uapi.BPF_PROG_TYPE_SK_MSG,
        uapi.BPF_PROG_TYPE_FLOW_DISSECTOR,
        uapi.BPF_PROG_TYPE_CGROUP_DEVICE,
        uapi.BPF_PROG_TYPE_CGROUP_SOCK,
        uapi.BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        uapi.BPF_PROG_TYPE_CGROUP_SOCKOPT,
        uapi.BPF_PROG_TYPE_CGROUP_SYSCTL,
        uapi.BPF_PROG_TYPE_SOCK_OPS,
        uapi.BPF_PROG_TYPE_EXT,
        uapi.BPF_PROG_TYPE_NETFILTER,
    }
)
# kernel/bpf/syscall.c: is_perfmon_prog_type
_PERFMON = frozenset(
    {
        uapi.BPF_PROG_TYPE_KPROBE,
        uapi.BPF_PROG_TYPE_TRACEPOINT,
        uapi.BPF_PROG_TYPE_PERF_EVENT,
        uapi.BPF_PROG_TYPE_RAW_TRACEPOINT,
        uapi.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
        uapi.BPF_PROG_TYPE_TRACING,
        uapi.BPF_PROG_TYPE_LSM,
        uapi.BPF_PROG_TYPE_STRUCT_OPS,
        uapi.BPF_PROG_TYPE_EXT,
    }
)
# What /proc shows of the first user namespace, in which the kernel asks for capabilities.
_ALL_USERS = ["0", "0", "4294967295"]


def for_program(prog_type: int) -> list[str]:
    """The capabilities that loading a program of this type takes."""
    needed = ["CAP_BPF"]
    if prog_type in _NET_ADMIN:
        needed.append("CAP_NET_ADMIN")
    if prog_type in _PERFMON:
        needed.append("CAP_PERFMON")
    return needed


def hint(needed: list[str]) -> str:
    """What to do after EPERM: which of the capabilities is missing, or who else says no."""
    with open("/proc/thread-self/status") as lines:
        effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
    # CAP_SYS_ADMIN stands for each of them.
    missing = [n for n in needed if not effective & (1 << _BITS[n] | 1 << _BITS["CAP_SYS_ADMIN"])]
    if missing:
        return f"needs {' and '.join(missing)} (run as root)"
    with open("/proc/self/uid_map") as users:
        if users.read().split() != _ALL_USERS:
            return (
                f"needs {' and '.join(needed)} in the first user namespace, not in one of its own"
            )
    return "it has the capabilities: a security module or the kernel's lockdown forbids it"
