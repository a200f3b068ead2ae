"""A program at its place, and what says where that is."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from netbpf.bpf.chain import Target
from netbpf.bpf.fd import FD
from netbpf.bpf.link import Link
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.closing import Closing
from netbpf.elf.spec import ProgramSpec
from netbpf.errors import BpfError, NetbpfError, NotSupportedError
from netbpf.loader.object import Object
from netbpf.netns import NetNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What a program's section leaves open; which of these are wanted goes by its type.

    ``ifindex`` counts in the namespace of the calling thread, which is also that of a netfilter
    hook. ``hook``: ``ingress``, ``egress``, ``primary``, ``peer``; of sk_skb ``stream_parser``,
    ``stream_verdict``, ``verdict``; of netfilter ``input`` and the others. ``before``, ``after``
    and ``first`` are a place in a chain. ``mode`` of xdp: ``native``, ``generic``, ``offload``.
    ``cgroup`` is a folder of cgroup2 or its descriptor, ``netns`` another namespace than the
    thread's own, ``map`` a sockmap or what an iterator goes over, ``socket`` a descriptor.
    ``family`` (``ipv4``, ``ipv6``), ``priority`` and ``defrag`` are those of netfilter. ``target``
    is another program. ``function`` is that program's, or what the section could say as well: a
    function of the kernel, ``path:function`` of a file, ``path:provider:name`` of a probe in one, a
    tracepoint. ``pid``: only in that process. ``cookie`` is what the program is told. ``object`` is
    what a program at a probe was loaded with: its maps need not be looked for then.
    """

    ifindex: int | None = None
    hook: str | None = None
    before: Target | None = None
    after: Target | None = None
    first: bool = False
    mode: str | None = None
    cgroup: str | int | None = None
    netns: NetNS | None = None
    map: Map | None = None
    socket: int | None = None
    family: str | None = None
    priority: int | None = None
    defrag: bool = False
    target: Program | None = None
    function: str | None = None
    pid: int | None = None
    cookie: int = 0
    object: Object | None = None

    def given(self) -> set[str]:
        """Which of them say something."""
        return {f.name for f in fields(self) if getattr(self, f.name) not in (None, False, 0)}


class Attachment(Closing):
    """A program at its place, for as long as this is open.

    Closing takes it away again, unless its ``link`` is pinned or held elsewhere. ``link`` is None
    where the kernel has no link for it; then nothing can be pinned.
    """

    def __init__(
        self, program: str, held: Link | FD | None, undo: Callable[[], None] | None = None
    ) -> None:
        self.program = program
        self.link = held if isinstance(held, Link) else None
        self._held = held
        self._undo = undo

    def pin(self, path: str) -> None:
        """Give the link a name on a bpffs, which keeps the program attached.

        :raises NetbpfError: there is no link. :raises BpfError: the kernel refused.
        """
        if self.link is None:
            raise NetbpfError(f"{self.program} is attached without a link", code="no_link")
        self.link.pin(path)

    def close(self) -> None:
        """Take the program away; a second call does nothing."""
        undo, self._undo = self._undo, None
        try:
            if undo is not None:
                undo()
        finally:
            if self._held is not None:
                self._held.close()

    def __repr__(self) -> str:
        return f"Attachment({self.program!r}, {self.link!r})"


Reasons = Mapping[int, tuple[str, str | None]]


def refused(
    spec: ProgramSpec,
    error: OSError,
    place: str,
    reasons: Reasons | None = None,
    *,
    since: str | None = None,
    config: str | None = None,
    needs: str = "CAP_BPF and CAP_NET_ADMIN",
) -> NetbpfError:
    """Why the kernel did not attach a program; an attach gives a bare errno.

    :param reasons: the conditions that only this kind of attach has, each with a hint.
    :param needs: the capability that EPERM says is missing.
    """
    number = error.errno or errno.EIO
    operation = f"attach {spec.name} to {place}"
    if reasons is not None and number in reasons:
        reason, hint = reasons[number]
        return BpfError(operation, number, reason, hint=hint)
    # 524 is the kernel's own ENOTSUPP, which has no name outside of it.
    if number in (errno.EOPNOTSUPP, errno.ENOSYS, 524):
        return NotSupportedError(f"attaching {spec.section}", since=since, config=config)
    if number == errno.EPERM:
        return BpfError(operation, number, "not permitted", hint=f"needs {needs} (run as root)")
    if number == errno.EINVAL and since is not None:
        what = f"a kernel before Linux {since}" + (f", or without {config}," if config else "")
        return BpfError(operation, number, hint=f"{what} answers so too")
    return BpfError(operation, number)


def wanted(spec: ProgramSpec, what: str) -> ValueError:
    """The mistake of a caller who left out what the program's type wants."""
    return ValueError(f"attach {spec.name} (section {spec.section}): say {what}")
