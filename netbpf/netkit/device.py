"""Netkit devices: made, looked up, shown; what changes and deletes them is imported from here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from netbpf.errors import NotFoundError
from netbpf.netkit.bulk import add_many, make
from netbpf.netkit.change import set
from netbpf.netkit.everywhere import show_all
from netbpf.netkit.model import Device, Mode, Policy, Scrub, Settings
from netbpf.netkit.reading import read, read_all
from netbpf.netkit.removal import delete, gone
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import NetNS

__all__ = ["add", "add_many", "delete", "get", "set", "show", "show_all"]


def add(
    name: str,
    *,
    peer: str | None = None,
    peer_netns: NetNS | str | None = None,
    single: bool = False,
    mode: Mode = "l3",
    policy: Policy = "forward",
    peer_policy: Policy | None = None,
    scrub: Scrub | None = None,
    peer_scrub: Scrub | None = None,
    headroom: int | None = None,
    tailroom: int | None = None,
    rx_queues: int | None = None,
    peer_rx_queues: int | None = None,
    mtu: int | None = None,
    peer_mtu: int | None = None,
    mac: str | None = None,
    peer_mac: str | None = None,
    group: int | None = None,
    peer_group: int | None = None,
    alias: str | None = None,
    peer_alias: str | None = None,
    addrs: Sequence[str] = (),
    peer_addrs: Sequence[str] = (),
    up: bool = False,
) -> Device:
    """Make a netkit pair, or a single device, in the namespace of the calling thread.

    ``name`` becomes the primary end; programs are attached there, for both ends. Without ``peer``
    the other end is called by the first free ``nkN``, as the kernel does it. A peer inherits
    nothing: policy and scrub are set at both ends (forward and default unless named), ``up``,
    ``headroom`` and ``tailroom`` hold for both, ``mtu`` unless ``peer_mtu`` differs, and the others
    have their ``peer_…``.

    When a step fails or is interrupted, the device just made is gone again. When the process is
    killed, a device is left that is marked as unfinished (`Device.unfinished`): adding it again
    begins with removing it, and `delete` removes it.

    :param peer_netns: where the other end goes: a handle, or a name, a path or ``pid:N``.
    :param addrs: addresses with prefix length, ``10.0.0.1/24``.
    :raises ValueError: the settings cannot mean anything; nothing was asked of the kernel.
    :raises NotSupportedError: this kernel has no netkit, or not the setting asked for.
    :raises NotFoundError: there is no namespace ``peer_netns``; or somebody deleted the new device.
    :raises NetlinkError: the kernel refused; EEXIST: a name is taken; EPERM: CAP_NET_ADMIN.

    Since Linux 6.7; ``scrub`` 6.13; ``headroom`` and ``tailroom`` 6.14; ``single`` 7.1
    (drivers/net/netkit.c).
    """
    with ExitStack() as stack:
        if isinstance(peer_netns, str):
            peer_netns = stack.enter_context(NetNS.parse(peer_netns))
        if peer_netns is not None and peer_netns.is_current():
            peer_netns = None
        wanted = Settings(
            name=name,
            peer=peer,
            peer_netns=peer_netns,
            single=single,
            mode=mode,
            policy=policy,
            peer_policy=peer_policy,
            scrub=scrub,
            peer_scrub=peer_scrub,
            headroom=headroom,
            tailroom=tailroom,
            rx_queues=rx_queues,
            peer_rx_queues=peer_rx_queues,
            mtu=mtu,
            peer_mtu=peer_mtu,
            mac=mac,
            peer_mac=peer_mac,
            group=group,
            peer_group=peer_group,
            alias=alias,
            peer_alias=peer_alias,
            addrs=addrs,
            peer_addrs=peer_addrs,
            up=up,
        )
        rtnl = stack.enter_context(Rtnl())
        (made,) = make(rtnl, [wanted])
        try:
            return read(rtnl, made.ifindex)
        except NotFoundError as error:
            raise gone(made.name) from error


def get(device: str | int) -> Device:
    """One netkit device of the namespace of the calling thread, by name or ifindex.

    :raises NotFoundError: there is none.
    """
    with Rtnl() as rtnl:
        return read(rtnl, device)


def show(name: str | None = None) -> list[Device]:
    """All netkit devices of the namespace of the calling thread by ifindex, or the one ``name``.

    :raises NotFoundError: there is no netkit device ``name``.
    """
    with Rtnl() as rtnl:
        return read_all(rtnl) if name is None else [read(rtnl, name)]
