"""What a section's name says of the program in it: libbpf's SEC() table, as data."""

from __future__ import annotations

from netbpf.bpf import macros, uapi
from netbpf.records import record

_SLEEPABLE = macros.BPF_F_SLEEPABLE
_FRAGS = macros.BPF_F_XDP_HAS_FRAGS

# Name, program type, attach type or None, program flags. A "+" at the end of a name: alone, or
# followed by "/" and an extra argument. Names and meanings as in libbpf's section_defs, which all
# BPF C code is written for.
_TABLE: tuple[tuple[str, str, str | None, int], ...] = (
    ("socket", "SOCKET_FILTER", None, 0),
    ("sk_reuseport/migrate", "SK_REUSEPORT", "SK_REUSEPORT_SELECT_OR_MIGRATE", 0),
    ("sk_reuseport", "SK_REUSEPORT", "SK_REUSEPORT_SELECT", 0),
    ("kprobe+", "KPROBE", None, 0),
    ("uprobe+", "KPROBE", None, 0),
    ("uprobe.s+", "KPROBE", None, _SLEEPABLE),
    ("kretprobe+", "KPROBE", None, 0),
    ("uretprobe+", "KPROBE", None, 0),
    ("uretprobe.s+", "KPROBE", None, _SLEEPABLE),
    ("kprobe.multi+", "KPROBE", "TRACE_KPROBE_MULTI", 0),
    ("kretprobe.multi+", "KPROBE", "TRACE_KPROBE_MULTI", 0),
    ("kprobe.session+", "KPROBE", "TRACE_KPROBE_SESSION", 0),
    ("uprobe.multi+", "KPROBE", "TRACE_UPROBE_MULTI", 0),
    ("uretprobe.multi+", "KPROBE", "TRACE_UPROBE_MULTI", 0),
    ("uprobe.session+", "KPROBE", "TRACE_UPROBE_SESSION", 0),
    ("uprobe.multi.s+", "KPROBE", "TRACE_UPROBE_MULTI", _SLEEPABLE),
    ("uretprobe.multi.s+", "KPROBE", "TRACE_UPROBE_MULTI", _SLEEPABLE),
    ("uprobe.session.s+", "KPROBE", "TRACE_UPROBE_SESSION", _SLEEPABLE),
    ("ksyscall+", "KPROBE", None, 0),
    ("kretsyscall+", "KPROBE", None, 0),
    ("usdt+", "KPROBE", None, 0),
    ("usdt.s+", "KPROBE", None, _SLEEPABLE),
    ("tc/ingress", "SCHED_CLS", "TCX_INGRESS", 0),
    ("tc/egress", "SCHED_CLS", "TCX_EGRESS", 0),
    ("tcx/ingress", "SCHED_CLS", "TCX_INGRESS", 0),
    ("tcx/egress", "SCHED_CLS", "TCX_EGRESS", 0),
    ("tc", "SCHED_CLS", None, 0),
    ("classifier", "SCHED_CLS", None, 0),
    ("action", "SCHED_ACT", None, 0),
    ("netkit/primary", "SCHED_CLS", "NETKIT_PRIMARY", 0),
    ("netkit/peer", "SCHED_CLS", "NETKIT_PEER", 0),
    ("tracepoint+", "TRACEPOINT", None, 0),
    ("tp+", "TRACEPOINT", None, 0),
    ("tracepoint.s+", "TRACEPOINT", None, _SLEEPABLE),
    ("tp.s+", "TRACEPOINT", None, _SLEEPABLE),
    ("raw_tracepoint+", "RAW_TRACEPOINT", None, 0),
    ("raw_tp+", "RAW_TRACEPOINT", None, 0),
    ("raw_tracepoint.s+", "RAW_TRACEPOINT", None, _SLEEPABLE),
    ("raw_tp.s+", "RAW_TRACEPOINT", None, _SLEEPABLE),
    ("raw_tracepoint.w+", "RAW_TRACEPOINT_WRITABLE", None, 0),
    ("raw_tp.w+", "RAW_TRACEPOINT_WRITABLE", None, 0),
    ("tp_btf+", "TRACING", "TRACE_RAW_TP", 0),
    ("tp_btf.s+", "TRACING", "TRACE_RAW_TP", _SLEEPABLE),
    ("fentry+", "TRACING", "TRACE_FENTRY", 0),
    ("fmod_ret+", "TRACING", "MODIFY_RETURN", 0),
    ("fexit+", "TRACING", "TRACE_FEXIT", 0),
    ("fentry.s+", "TRACING", "TRACE_FENTRY", _SLEEPABLE),
    ("fmod_ret.s+", "TRACING", "MODIFY_RETURN", _SLEEPABLE),
    ("fexit.s+", "TRACING", "TRACE_FEXIT", _SLEEPABLE),
    ("fsession+", "TRACING", "TRACE_FSESSION", 0),
    ("fsession.s+", "TRACING", "TRACE_FSESSION", _SLEEPABLE),
    ("fentry.multi+", "TRACING", "TRACE_FENTRY_MULTI", 0),
    ("fentry.multi.s+", "TRACING", "TRACE_FENTRY_MULTI", _SLEEPABLE),
    ("fexit.multi+", "TRACING", "TRACE_FEXIT_MULTI", 0),
    ("fexit.multi.s+", "TRACING", "TRACE_FEXIT_MULTI", _SLEEPABLE),
    ("fsession.multi+", "TRACING", "TRACE_FSESSION_MULTI", 0),
    ("fsession.multi.s+", "TRACING", "TRACE_FSESSION_MULTI", _SLEEPABLE),
    ("freplace+", "EXT", None, 0),
    ("lsm+", "LSM", "LSM_MAC", 0),
    ("lsm.s+", "LSM", "LSM_MAC", _SLEEPABLE),
    ("lsm_cgroup+", "LSM", "LSM_CGROUP", 0),
    ("iter+", "TRACING", "TRACE_ITER", 0),
    ("iter.s+", "TRACING", "TRACE_ITER", _SLEEPABLE),
    ("syscall", "SYSCALL", None, _SLEEPABLE),
    ("xdp.frags/devmap", "XDP", "XDP_DEVMAP", _FRAGS),
    ("xdp/devmap", "XDP", "XDP_DEVMAP", 0),
    ("xdp.frags/cpumap", "XDP", "XDP_CPUMAP", _FRAGS),
    ("xdp/cpumap", "XDP", "XDP_CPUMAP", 0),
    ("xdp.frags", "XDP", "XDP", _FRAGS),
    ("xdp", "XDP", "XDP", 0),
    ("perf_event", "PERF_EVENT", None, 0),
    ("lwt_in", "LWT_IN", None, 0),
    ("lwt_out", "LWT_OUT", None, 0),
    ("lwt_xmit", "LWT_XMIT", None, 0),
    ("lwt_seg6local", "LWT_SEG6LOCAL", None, 0),
    ("sockops", "SOCK_OPS", "CGROUP_SOCK_OPS", 0),
    ("sk_skb/stream_parser", "SK_SKB", "SK_SKB_STREAM_PARSER", 0),
    ("sk_skb/stream_verdict", "SK_SKB", "SK_SKB_STREAM_VERDICT", 0),
    ("sk_skb/verdict", "SK_SKB", "SK_SKB_VERDICT", 0),
    ("sk_skb", "SK_SKB", None, 0),
    ("sk_msg", "SK_MSG", "SK_MSG_VERDICT", 0),
    ("lirc_mode2", "LIRC_MODE2", "LIRC_MODE2", 0),
    ("flow_dissector", "FLOW_DISSECTOR", "FLOW_DISSECTOR", 0),
    ("cgroup_skb/ingress", "CGROUP_SKB", "CGROUP_INET_INGRESS", 0),
    ("cgroup_skb/egress", "CGROUP_SKB", "CGROUP_INET_EGRESS", 0),
    ("cgroup/skb", "CGROUP_SKB", None, 0),
    ("cgroup/sock_create", "CGROUP_SOCK", "CGROUP_INET_SOCK_CREATE", 0),
    ("cgroup/sock_release", "CGROUP_SOCK", "CGROUP_INET_SOCK_RELEASE", 0),
    ("cgroup/sock", "CGROUP_SOCK", "CGROUP_INET_SOCK_CREATE", 0),
    ("cgroup/post_bind4", "CGROUP_SOCK", "CGROUP_INET4_POST_BIND", 0),
    ("cgroup/post_bind6", "CGROUP_SOCK", "CGROUP_INET6_POST_BIND", 0),
    ("cgroup/bind4", "CGROUP_SOCK_ADDR", "CGROUP_INET4_BIND", 0),
    ("cgroup/bind6", "CGROUP_SOCK_ADDR", "CGROUP_INET6_BIND", 0),
    ("cgroup/connect4", "CGROUP_SOCK_ADDR", "CGROUP_INET4_CONNECT", 0),
    ("cgroup/connect6", "CGROUP_SOCK_ADDR", "CGROUP_INET6_CONNECT", 0),
    ("cgroup/connect_unix", "CGROUP_SOCK_ADDR", "CGROUP_UNIX_CONNECT", 0),
    ("cgroup/sendmsg4", "CGROUP_SOCK_ADDR", "CGROUP_UDP4_SENDMSG", 0),
    ("cgroup/sendmsg6", "CGROUP_SOCK_ADDR", "CGROUP_UDP6_SENDMSG", 0),
    ("cgroup/sendmsg_unix", "CGROUP_SOCK_ADDR", "CGROUP_UNIX_SENDMSG", 0),
    ("cgroup/recvmsg4", "CGROUP_SOCK_ADDR", "CGROUP_UDP4_RECVMSG", 0),
    ("cgroup/recvmsg6", "CGROUP_SOCK_ADDR", "CGROUP_UDP6_RECVMSG", 0),
    ("cgroup/recvmsg_unix", "CGROUP_SOCK_ADDR", "CGROUP_UNIX_RECVMSG", 0),
    ("cgroup/getpeername4", "CGROUP_SOCK_ADDR", "CGROUP_INET4_GETPEERNAME", 0),
    ("cgroup/getpeername6", "CGROUP_SOCK_ADDR", "CGROUP_INET6_GETPEERNAME", 0),
    ("cgroup/getpeername_unix", "CGROUP_SOCK_ADDR", "CGROUP_UNIX_GETPEERNAME", 0),
    ("cgroup/getsockname4", "CGROUP_SOCK_ADDR", "CGROUP_INET4_GETSOCKNAME", 0),
    ("cgroup/getsockname6", "CGROUP_SOCK_ADDR", "CGROUP_INET6_GETSOCKNAME", 0),
    ("cgroup/getsockname_unix", "CGROUP_SOCK_ADDR", "CGROUP_UNIX_GETSOCKNAME", 0),
    ("cgroup/sysctl", "CGROUP_SYSCTL", "CGROUP_SYSCTL", 0),
    ("cgroup/getsockopt", "CGROUP_SOCKOPT", "CGROUP_GETSOCKOPT", 0),
    ("cgroup/setsockopt", "CGROUP_SOCKOPT", "CGROUP_SETSOCKOPT", 0),
    ("cgroup/dev", "CGROUP_DEVICE", "CGROUP_DEVICE", 0),
    ("struct_ops+", "STRUCT_OPS", None, 0),
    ("struct_ops.s+", "STRUCT_OPS", None, _SLEEPABLE),
    ("sk_lookup", "SK_LOOKUP", "SK_LOOKUP", 0),
    ("netfilter", "NETFILTER", "NETFILTER", 0),
)


# How a program is attached that names its target itself: by the first word of its section's name,
# without what stands behind a dot; with "multi" or "session" behind it, by both.
_ATTACH = {
    "kprobe": "kprobe",
    "kretprobe": "kprobe",
    "uprobe": "uprobe",
    "uretprobe": "uprobe",
    "kprobe.multi": "kprobe_multi",
    "kretprobe.multi": "kprobe_multi",
    "kprobe.session": "kprobe_session",
    "uprobe.multi": "uprobe_multi",
    "uretprobe.multi": "uprobe_multi",
    "uprobe.session": "uprobe_multi",
    "ksyscall": "ksyscall",
    "kretsyscall": "ksyscall",
    "usdt": "usdt",
    "tracepoint": "tracepoint",
    "tp": "tracepoint",
    "raw_tracepoint": "raw_tracepoint",
    "raw_tp": "raw_tracepoint",
    "tp_btf": "trace",
    "fentry": "trace",
    "fexit": "trace",
    "fmod_ret": "trace",
    "fsession": "trace",
    "freplace": "trace",
    "fentry.multi": "tracing_multi",
    "fexit.multi": "tracing_multi",
    "fsession.multi": "tracing_multi",
    "lsm": "lsm",
    "iter": "iter",
}
_TARGET = frozenset({"trace", "lsm", "iter"})
# libbpf's SEC_ATTACHABLE_OPT.
_OPTIONAL = frozenset(
    {
        "xdp",
        "sockops",
        "sk_skb/stream_parser",
        "sk_skb/stream_verdict",
        "sk_skb/verdict",
        "sk_msg",
        "lirc_mode2",
        "flow_dissector",
        "cgroup_skb/ingress",
        "cgroup_skb/egress",
        "cgroup/sock",
        "cgroup/dev",
    }
)


@record(slots=True, frozen=True)
class SectionMeaning:
    """What a section's name says; ``type`` 0 where it says nothing.

    ``extra`` is what stands behind the name (``fentry/tcp_connect``: ``tcp_connect``),
    ``autoload`` is false for a leading ``?``. The others are those of ``ProgramSpec``.
    """

    type: int
    expected_attach_type: int
    flags: int
    extra: str
    autoload: bool
    attach: str = ""
    needs_target: bool = False
    attach_type_optional: bool = False


_ENTRIES = {entry[0].removesuffix("+"): entry for entry in _TABLE}


def _entry(name: str) -> tuple[str, str, str | None, int] | None:
    # An exact name, or what stands before the first "/" of a name that takes an argument.
    exact = _ENTRIES.get(name)
    if exact is not None:
        return exact
    first = _ENTRIES.get(name.partition("/")[0])
    return first if first is not None and first[0].endswith("+") and "/" in name else None


def meaning(section: str) -> SectionMeaning:
    """What the name of a program's section says; an unknown name gives type 0."""
    autoload = not section.startswith("?")
    name = section.removeprefix("?")
    entry = _entry(name)
    if entry is None:
        return SectionMeaning(0, 0, 0, "", autoload)
    pattern, prog, attach_type, flags = entry
    base = pattern.removesuffix("+")
    how = _ATTACH.get(base.removesuffix(".s").removesuffix(".w"), "")
    return SectionMeaning(
        type=getattr(uapi, f"BPF_PROG_TYPE_{prog}"),
        expected_attach_type=getattr(uapi, f"BPF_{attach_type}", 0) if attach_type else 0,
        flags=flags,
        extra=name[len(base) + 1 :],
        autoload=autoload,
        attach=how,
        needs_target=how in _TARGET or base == "lsm_cgroup",
        attach_type_optional=base in _OPTIONAL,
    )


def names() -> list[str]:
    """All names of the table, for an error that lists them and for tests."""
    return [pattern for pattern, *_ in _TABLE]


def nearest(section: str) -> str | None:
    """The name of the table that is most like one which says nothing, None where none is."""
    from difflib import get_close_matches

    wanted = section.removeprefix("?")
    for name in (wanted, wanted.partition("/")[0]):
        if found := get_close_matches(name, list(_ENTRIES), n=1, cutoff=0.8):
            return found[0]
    begins = [n for n in _ENTRIES if wanted.startswith(n) and not wanted[len(n)].isalpha()]
    return max(begins, key=len, default=None)
