"""Moving devices from the calling thread's namespace to another: all of them, or none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from netbpf.bpf import pin as pins
from netbpf.bpf.pin_name import name_for
from netbpf.errors import ConflictError, NetlinkError, NotFoundError
from netbpf.netkit.model import check_device_name
from netbpf.netlink import addresses, filters, links, routes
from netbpf.netlink.refusals import NEEDS_NET_ADMIN, Meaning, refusals
from netbpf.netlink.rtnl import Refusal, Rtnl
from netbpf.netns import NetNS, entered

_LOOPBACK = 1
"""include/net/flow.h: LOOPBACK_IFINDEX"""

_MEANINGS = {
    errno.EINVAL: Meaning(
        "a device of this kind cannot leave its namespace",
        "its driver keeps it with its hardware, or with the device that it belongs to",
    ),
    errno.EEXIST: Meaning(
        "the name is taken there", "give it another with --name; an altname has to be taken away"
    ),
    errno.EPERM: Meaning(
        "Operation not permitted", f"{NEEDS_NET_ADMIN}, that of the source and that of the target"
    ),
}


@dataclass(frozen=True, slots=True)
class Moved:
    """A device that was moved, and what it lost by that.

    The kernel takes it down and forgets its addresses, routes and qdiscs, clsact with all its
    filters among them; programs of tcx, netkit and XDP go along with it
    (dev_change_net_namespace in net/core/dev.c).
    """

    name: str
    ifindex: int
    old_name: str
    old_ifindex: int
    was_up: bool
    addrs: tuple[str, ...]
    routes: tuple[str, ...]
    had_clsact: bool
    pins: tuple[str, ...] = ()
    """netbpf's own pins of its links, as they are called now."""


def move(
    devices: Sequence[str],
    to: NetNS,
    *,
    name: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> tuple[Moved, ...]:
    """Move devices to the namespace ``to``; each is renamed on the way, if ``name`` is given.

    The new name is given in the same step: there is no moment at which the device is there under
    the old one. When one is refused, those before it are moved back, down and without what they
    lost on the way. netbpf's own pins are renamed, as their names tell namespace and device.

    :param force: also a device that a default route goes through.
    :param dry_run: only look whether it could be done. ``ifindex`` is the old one then, as the
        kernel keeps it where it is free.
    :raises ValueError: several devices cannot get one name, or one is named twice.
    :raises NotFoundError: there is no such device.
    :raises ConflictError: it is in that namespace already, the name is taken there, or a default
        route goes through it.
    :raises NetlinkError: refused; EINVAL: not a device that can move; EPERM.
    """
    if name is not None and len(devices) > 1:
        raise ValueError(f"{len(devices)} devices cannot all be called {name}: move one at a time")
    if name is not None and "%" in check_device_name(name):
        raise ValueError(f"a name is wanted here, not a pattern: {name!r}")
    if len(set(devices)) < len(devices):
        raise ValueError("a device is named twice")
    with Rtnl() as here, NetNS.current() as home:
        with entered(to):
            there = Rtnl()
        with there:
            wanted = [_looked_up(here, device, name or device) for device in devices]
            _check(wanted, there, home, to)
            if not force:
                _spare_default_routes(wanted, to)
            if dry_run:
                return tuple(wanted)
            done: list[Moved] = []
            with _undoing(done, there, home):
                for each in wanted:
                    done.append(_moved(here, there, each, to))
    return tuple(_repinned(each, home, to) for each in done)


def _looked_up(here: Rtnl, device: str, name: str) -> Moved:
    found = links.get(here, device)
    return Moved(
        name=name if name != device else found.name,
        ifindex=found.ifindex,
        old_name=found.name,
        old_ifindex=found.ifindex,
        was_up=found.up,
        addrs=tuple(addresses.by_device(here, found.ifindex).get(found.ifindex, ())),
        routes=tuple(routes.through(here, found.ifindex)),
        had_clsact=found.ifindex in filters.with_clsact(rtnl=here),
    )


def _check(wanted: Sequence[Moved], there: Rtnl, home: NetNS, to: NetNS) -> None:
    """What can be told before anything is changed."""
    for each in wanted:
        if home == to:
            raise ConflictError(f"move {each.old_name}: it is in namespace {to} already")
        if each.old_ifindex == _LOOPBACK:
            raise NetlinkError(
                f"move {each.old_name} to namespace {to}",
                errno.EINVAL,
                "a namespace's loopback device stays in it",
            )
        with suppress(NotFoundError):
            links.get(there, each.name)
            raise ConflictError(
                f"move {each.old_name} to namespace {to}: there is a device {each.name} already",
                hint="give it another name with --name",
            )


def _spare_default_routes(wanted: Sequence[Moved], to: NetNS) -> None:
    """Without its uplink a machine may be out of reach, for whoever typed this too."""
    for each in wanted:
        for route in each.routes:
            if route.startswith("default "):
                raise ConflictError(
                    f"move {each.old_name} to namespace {to}: a default route goes through it "
                    f"({route})",
                    hint="this namespace would lose it; --force moves the device all the same",
                    code="default_route",
                )


def _moved(here: Rtnl, there: Rtnl, each: Moved, to: NetNS) -> Moved:
    with refusals(f"move {each.old_name} to namespace {to}", _MEANINGS):
        _send(here, each.ifindex, to, each.name)
    try:
        return replace(each, ifindex=links.get(there, each.name).ifindex)
    except NotFoundError:
        # Another has moved it on, renamed or deleted it.
        return each


def _send(rtnl: Rtnl, ifindex: int, to: NetNS, name: str) -> None:
    attributes = [("IFLA_NET_NS_FD", to.fileno()), ("IFLA_IFNAME", name)]
    links.change(rtnl, ifindex, attributes=attributes)


def _repinned(each: Moved, home: NetNS, to: NetNS) -> Moved:
    """Rename netbpf's own pins of the device's links; one that cannot be renamed stays a pin."""
    shown = []
    for pin in list(pins.own_in({home.inode})):
        name = pin.name
        if name is None or name.ifindex != each.old_ifindex or not pin.link or pin.link.defunct:
            continue
        new = name_for(to.inode, each.name, each.ifindex, name.hook, name.prog, name.link)
        with suppress(OSError):
            os.rename(pin.path, os.path.join(os.path.dirname(pin.path), new))
            shown.append(os.path.join(os.path.dirname(pin.shown), new))
    return replace(each, pins=tuple(shown))


@contextmanager
def _undoing(done: Sequence[Moved], there: Rtnl, home: NetNS) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for each in reversed(done):
            # As far as it goes: the refusal that began it is what is told.
            with suppress(Refusal):
                _send(there, each.ifindex, home, each.old_name)
        raise
