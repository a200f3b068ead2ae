"""Where links are: the chains of every namespace, and each link's place in them.

The kernel tells a link's ifindex without its namespace, so the chains are asked for the link.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from netbpf import netkit, netns, tcx
from netbpf.bpf import mprog_refusal, uapi
from netbpf.bpf.chain import Chain
from netbpf.bpf.hook import query
from netbpf.bpf.link_info import LinkInfo
from netbpf.bpf.mprog import Hooks
from netbpf.bpf.pin_name import OwnName
from netbpf.errors import KernelError
from netbpf.netns import Namespace
from netbpf.netns.visit import LeftOut

Reason = Literal["detached", "device_gone", "netns_gone"]
"""Why a link is defunct."""

Spot = tuple[str, str, int]
"""A chain without its namespace: ``tcx`` or ``netkit``, hook, ifindex."""

HOOKS: Mapping[str, Hooks] = {"tcx": tcx.HOOKS, "netkit": netkit.HOOKS}
"""The hooks of devices, by the type of their links."""


@dataclass(frozen=True, slots=True)
class Place:
    """A chain and where it is; ``netns`` is None in the namespace where the look began."""

    namespace: Namespace
    netns: str | None
    device: str
    kind: str
    chain: Chain


def chains(
    wanted: Collection[Spot] | None = None, left_out: LeftOut | None = None
) -> Iterator[Place]:
    """The chains of every namespace that can be seen, those without a program left out.

    Between two steps the calling thread is in the place's namespace.

    :param wanted: ask only these, in whichever namespace; None asks all.
    :param left_out: told of each namespace that may not be entered; None raises.
    :raises BpfError: EPERM: a chain may not be asked for.
    """
    if wanted is not None and not wanted:
        return
    by_ifindex: dict[int, list[Spot]] = {}
    for spot in wanted or ():
        by_ifindex.setdefault(spot[2], []).append(spot)
    everything = [(kind, hook) for kind, hooks in HOOKS.items() for hook in hooks.names]
    without: set[str] = set()
    for namespace, home in netns.visit(left_out):
        reference = None if home else namespace.reference
        for ifindex, device in socket.if_nameindex():
            asked = everything
            if wanted is not None:
                asked = [(kind, hook) for kind, hook, _ in by_ifindex.get(ifindex, ())]
            for kind, hook in asked:
                if kind in without:
                    continue
                place = HOOKS[kind].hook(hook)
                try:
                    chain = query(ifindex, place)
                except OSError as error:
                    if error.errno == errno.EPERM:
                        raise mprog_refusal.of_query(place, ifindex, error) from error
                    if error.errno == errno.EINVAL:
                        # The kernel does not know this kind of hook (mprog_refusal.of_query).
                        without.add(kind)
                    # Else the device is of another kind, or has just gone.
                    continue
                if chain.entries:
                    yield Place(namespace, reference, device, kind, chain)


def of_links(
    links: Collection[LinkInfo], left_out: LeftOut | None = None
) -> dict[int, tuple[str | None, str]]:
    """The namespace and the device of each link that is at a device, by the link's id.

    Links of tcx and netkit are looked for in the chains, those of XDP by their program.

    A link in a namespace that nothing visible leads to has no place here.

    :raises BpfError, KernelError: as ``chains``.
    """
    missing = {(spot, link.id) for link in links if (spot := spot_of(link))}
    found: dict[int, tuple[str | None, str]] = {}
    for place in chains({spot for spot, _ in missing}, left_out):
        spot = (place.kind, place.chain.hook, place.chain.ifindex)
        for entry in place.chain.entries:
            if entry.link_id is not None and (spot, entry.link_id) in missing:
                found[entry.link_id] = (place.netns, place.device)
    xdp = [link for link in links if link.type == uapi.BPF_LINK_TYPE_XDP and link.ifindex]
    if xdp:
        found.update(_of_xdp(xdp, left_out))
    return found


def _of_xdp(
    links: Collection[LinkInfo], left_out: LeftOut | None
) -> Iterator[tuple[int, tuple[str | None, str]]]:
    from netbpf.netlink import xdp
    from netbpf.netlink.rtnl import Rtnl

    for namespace, home in netns.visit(left_out):
        devices = dict(socket.if_nameindex())
        here = [link for link in links if link.ifindex in devices]
        if not here:
            continue
        with Rtnl() as rtnl:
            for link in here:
                ifindex = link.ifindex or 0
                try:
                    found = link.prog_id in xdp.program_ids(rtnl, ifindex)
                except KernelError:
                    # The device has just gone.
                    continue
                if found:
                    yield link.id, (None if home else namespace.reference, devices[ifindex])


def spot_of(link: LinkInfo) -> Spot | None:
    """Where a link is, without its namespace; None where that is no chain."""
    if link.type_name not in HOOKS or not link.ifindex or link.hook is None:
        return None
    return link.type_name, link.hook, link.ifindex


def reasons(names: Mapping[int, OwnName]) -> dict[int, Reason]:
    """Why links are defunct, by the link's id, as far as it can be told.

    The kernel tells nothing of a defunct link but that it is. So what the names of netbpf's own
    pins say is looked for: where the device is still there, the link was detached. A namespace
    that is new and has the number of one that is gone may mislead.

    :param names: what the pins of the links are called, by the link's id.
    """
    if not names:
        return {}
    inodes = {name.netns_inode for name in names.values()}
    devices: dict[int, dict[int, str]] = {}
    unseen: set[int] = set()

    def refused(namespace: Namespace, error: Exception) -> None:
        unseen.add(namespace.inode)

    for namespace, _ in netns.visit(refused):
        if namespace.inode in inodes:
            devices[namespace.inode] = dict(socket.if_nameindex())
    found: dict[int, Reason] = {}
    for link_id, name in names.items():
        if name.netns_inode in unseen:
            continue
        if name.netns_inode not in devices:
            found[link_id] = "netns_gone"
        elif name.ifindex is None or name.ifindex in devices[name.netns_inode]:
            found[link_id] = "detached"
        else:
            found[link_id] = "device_gone"
    return found
