"""All that handles the packets of a device in one direction, in the order in which it runs.

tcx comes first, then the filters of clsact (net/core/dev.c: sch_handle_ingress, sch_handle_egress),
and on a netkit device the programs of the side that sends (drivers/net/netkit.c: netkit_xmit).
What is looked at by thousands is made of plain classes, and imported only where it is needed.
"""

from __future__ import annotations

import _socket
import errno

from netbpf.bpf import uapi
from netbpf.bpf.query import Asker, Facts, facts
from netbpf.netlink import listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from netbpf.bpf.hook import Hook
    from netbpf.netlink.filters import Filter

HOOKS = {"ingress": uapi.BPF_TCX_INGRESS, "egress": uapi.BPF_TCX_EGRESS}
SIDES = {"primary": uapi.BPF_NETKIT_PRIMARY, "peer": uapi.BPF_NETKIT_PEER}

_NOT_THERE = {errno.ENXIO, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV}
"""Another kind of device, a single, a kernel without netkit, and a device that went meanwhile."""


class Step:
    """One entry of a chain; ``facts`` is None where the program has gone or we may not look."""

    __slots__ = ("facts", "link_id", "position", "prog_id")

    def __init__(self, position: int, prog_id: int, link_id: int | None, of: Facts | None) -> None:
        self.position = position
        self.prog_id = prog_id
        self.link_id = link_id
        self.facts = of


class Path:
    """What the packets of one direction meet at a device.

    ``hook`` is tcx's ingress or egress, with the ``filters`` that follow and, at the egress of a
    netkit device, the ``netkit`` path of its side where that can be read from here; or one of
    netkit's sides, primary or peer, and then ``ifindex`` is the primary's. ``revision`` is 0 for an
    empty netkit side (see `netbpf.bpf.chain.Chain`).
    """

    __slots__ = ("device", "filters", "hook", "ifindex", "netkit", "revision", "steps")

    def __init__(
        self,
        device: str,
        ifindex: int,
        hook: str,
        revision: int,
        steps: Sequence[Step],
        filters: Sequence[Filter] = (),
        netkit: Path | None = None,
    ) -> None:
        self.device = device
        self.ifindex = ifindex
        self.hook = hook
        self.revision = revision
        self.steps = steps
        self.filters = filters
        self.netkit = netkit

    def __bool__(self) -> bool:
        """Whether anything is there."""
        return bool(self.steps or self.filters or self.netkit)

    @property
    def end(self) -> str:
        """Where a packet goes that nothing here keeps.

        ``stack``, ``device``, ``netkit`` (the programs of this side) or ``other_end`` (of a pair).
        """
        if self.hook in SIDES:
            return "other_end"
        if self.hook == "ingress":
            return "stack"
        return "netkit" if self.netkit else "device"

    def then(self, position: int) -> dict[str, str]:
        """What follows after each verdict of the entry at ``position``.

        ``program`` is the next entry, ``filters`` those of clsact, ``drop`` and ``redirect`` are
        what they say, and the others are those of `end`. ``other`` are return codes that tcx and
        netkit do not know (PIPE, STOLEN …): tcx passes over the rest of its chain, netkit drops.
        """
        over = "filters" if self.filters else self.end
        return {
            "next": "program" if position + 1 < len(self.steps) else over,
            "pass": self.end,
            "drop": "drop",
            "redirect": "redirect",
            "other": "drop" if self.hook in SIDES else over,
        }

    def after_filter(self, index: int) -> dict[str, str | None] | None:
        """As `then` for a filter of cls_bpf in direct-action mode; None for others.

        ``next`` is UNSPEC. ``other`` is None, as it is of several kinds: STOLEN and TRAP keep the
        packet, the rest is taken for UNSPEC (net/sched/cls_bpf.c: cls_bpf_exec_opcode).
        """
        this = self.filters[index]
        if this.foreign or not this.direct_action:
            return None
        following = self.filters[index + 1 : index + 2]
        again = bool(following) and following[0].chain == this.chain
        return {
            "next": "filter" if again else self.end,
            "pass": self.end,
            "drop": "drop",
            "redirect": "redirect",
            "other": None,
        }


class Reader:
    """Reads paths in the network namespace where the calling thread is; for one thread.

    Programs are asked about once each, however many chains they are in.
    """

    def __init__(self) -> None:
        self._asker = Asker()
        self._facts: dict[int, Facts | None] = {}

    def paths(self, device: str | None = None, hooks: Iterable[str] = HOOKS) -> list[Path]:
        """The paths at these hooks of one device, or of all; also those where nothing is.

        :raises NotFoundError: there is no such device.
        :raises BpfError, NotSupportedError: refused, and why; needs CAP_NET_ADMIN.
        """
        if device is None:
            devices = listing.devices()
        else:
            devices = [listing.Listed(ifindex_of(device), device, True)]
        try:
            clsact = listing.with_clsact()
        except OSError as error:
            # A kernel without qdiscs has no filters either.
            if error.errno != errno.EOPNOTSUPP:
                raise
            clsact = set()
        names = list(hooks)
        found = []
        for each in devices:
            for hook in names:
                try:
                    path = self._path((each.ifindex, each.name), hook)
                except OSError as error:
                    if error.errno == errno.ENODEV and device is None:
                        # It went while we looked around.
                        break
                    raise _refused(hook, each.ifindex, error) from error
                if each.ifindex in clsact:
                    path.filters = _filters(each.ifindex, hook)
                if each.netkit and hook == "egress":
                    path.netkit = self._netkit(each)
                found.append(path)
        return found

    def sides(self, device: str, hooks: Iterable[str] = SIDES) -> list[Path]:
        """The paths at the sides of a netkit device, which is named by its primary.

        :raises NotFoundError: there is no such device.
        :raises BpfError, NotSupportedError: refused, and why; needs CAP_NET_ADMIN.
        """
        ifindex = ifindex_of(device)
        found = []
        for hook in hooks:
            try:
                found.append(self._path((ifindex, device), hook))
            except OSError as error:
                raise _refused(hook, ifindex, error) from error
        return found

    def _path(self, device: tuple[int, str], hook: str) -> Path:
        ifindex, name = device
        attach_type = HOOKS.get(hook)
        side = attach_type is None
        revision, progs, links = self._asker.chain(ifindex, attach_type or SIDES[hook])
        if not progs:
            return Path(name, ifindex, hook, 0 if side else revision, ())
        steps = [
            Step(position, prog, links[position] or None, self.facts(prog))
            for position, prog in enumerate(progs)
        ]
        return Path(name, ifindex, hook, revision, steps)

    def facts(self, prog_id: int) -> Facts | None:
        """What the kernel told of a program when it was first asked about it."""
        if prog_id not in self._facts:
            self._facts[prog_id] = facts(prog_id)
        return self._facts[prog_id]

    def _netkit(self, device: listing.Listed) -> Path | None:
        """The programs that netkit runs on what the device sends, where they can be read here."""
        try:
            return self._path((device.ifindex, device.name), "primary")
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            if error.errno != errno.EACCES:
                raise _refused("primary", device.ifindex, error) from error
        primary = _other_end(device.ifindex)
        if primary is None:
            return None
        try:
            return self._path(primary, "peer")
        except OSError:
            # The other end has just gone, or another device got its number.
            return None


def ifindex_of(device: str) -> int:
    """The number of a device of the calling thread's namespace.

    :raises NotFoundError: there is none of that name.
    """
    try:
        return _socket.if_nametoindex(device)
    except OSError as error:
        from netbpf.errors import NotFoundError

        raise NotFoundError(
            "device",
            device,
            where="in this network namespace",
            hint="netbpf -n NS looks in another",
        ) from error


def _other_end(ifindex: int) -> tuple[int, str] | None:
    """Number and name of the other end of a pair, if it is in this namespace."""
    from netbpf.errors import NetbpfError
    from netbpf.netlink import links
    from netbpf.netlink.rtnl import Rtnl

    try:
        with Rtnl() as rtnl:
            link = links.get(rtnl, ifindex)
            if link.peer_ifindex is None or link.peer_nsid is not None:
                return None
            return link.peer_ifindex, links.get(rtnl, link.peer_ifindex).name
    except NetbpfError:
        return None


def _filters(ifindex: int, hook: str) -> Sequence[Filter]:
    from netbpf.netlink import filters

    return filters.filters(ifindex, hook)


def _refused(hook: str, ifindex: int, error: OSError) -> Exception:
    from netbpf.bpf import mprog_refusal

    return mprog_refusal.of_query(_hook(hook), ifindex, error)


def _hook(name: str) -> Hook:
    if name in SIDES:
        from netbpf.netkit.hooks import HOOKS as SIDES_OF_NETKIT

        return SIDES_OF_NETKIT.hook(name)
    from netbpf import tcx

    return tcx.HOOKS.hook(name)
