"""Making netkit devices, one or thousands, all or none."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from netbpf.errors import KernelError, NetbpfError
from netbpf.interrupts import held
from netbpf.netkit import marks
from netbpf.netkit.model import Settings, check_addresses
from netbpf.netkit.removal import delete_together
from netbpf.netkit.request import (
    Bodies,
    at_peer,
    check_taken,
    create,
    free_names,
    given,
    is_numbered,
    refused,
)
from netbpf.netlink import addresses, links
from netbpf.netlink import netkit as uapi
from netbpf.netlink.links import Made
from netbpf.netlink.refusals import Meaning, refusals
from netbpf.netlink.rtnl import Refusal, Rtnl

_BATCH = 12
"""How many devices are asked for at once: their answers wait in the socket's buffer."""

UP_MEANINGS = {
    errno.ENOTCONN: Meaning("its peer is gone"),
    errno.ENODEV: Meaning("the device is gone"),
}


def add_many(wanted: Iterable[Settings]) -> list[Made]:
    """Make many netkit devices in the namespace of the calling thread, all or none.

    Return them in the order in which they were wanted. `Settings.numbered` makes settings by the
    number. What `netbpf.netkit.add` says of one holds for each; where several things are to be done
    to a device (addresses, an alias, up), it is marked until they are done, and a second run of
    what was killed meanwhile begins with removing it.

    :raises ValueError: a name is wanted twice.
    :raises NotSupportedError: this kernel has no netkit, or not a setting asked for.
    :raises NetlinkError: the kernel refused one; those made before are gone again.

    Since Linux 6.7 (drivers/net/netkit.c).
    """
    with Rtnl() as rtnl:
        return make(rtnl, list(wanted))


def make(rtnl: Rtnl, wanted: Sequence[Settings]) -> list[Made]:
    """Make devices in the namespace of ``rtnl`` and of the calling thread; see `add_many`."""
    wanted = _named(wanted)
    with ExitStack() as stack:
        mark = None
        if any(settings.in_steps for settings in wanted):
            mark = stack.enter_context(marks.making())
        made = stack.enter_context(_taken_back_on_failure())
        bodies = Bodies()
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            with held():
                _create(rtnl, part, mark, bodies, made)
        if mark is not None:
            _check_all(rtnl, wanted, made)
            for settings, device in zip(wanted, made, strict=True):
                if settings.in_steps:
                    _finish(rtnl, settings, device)
        return list(made)


def _named(wanted: Sequence[Settings]) -> Sequence[Settings]:
    """The settings, with names for peers where the kernel's own choice could not work."""
    names = {settings.name for settings in wanted}
    if len(names) < len(wanted):
        often = Counter(settings.name for settings in wanted).items()
        # A name with %d in it is filled in by the kernel.
        if twice := next((name for name, count in often if count > 1 and "%d" not in name), None):
            raise ValueError(f"{twice} is wanted twice")
    if len(wanted) == 1:
        return wanted
    names |= {settings.peer for settings in wanted if settings.peer}
    if not any(is_numbered(name) for name in names):
        return wanted
    free = free_names(names)
    return [
        settings
        if settings.single or settings.peer or settings.peer_netns is not None
        else replace(settings, peer=next(free))
        for settings in wanted
    ]


def _create(
    rtnl: Rtnl, part: Sequence[Settings], mark: int | None, bodies: Bodies, made: list[Made]
) -> None:
    """Ask for devices and note down those that were made, also where one was refused."""
    if len(part) == 1:
        made.append(create(rtnl, part[0], mark if part[0].in_steps else None))
        return
    of = bodies.of
    packed = [of(settings, mark if settings.in_steps else None) for settings in part]
    failed: NetbpfError | None = None
    for settings, outcome in zip(part, links.create_many(rtnl, packed), strict=True):
        if not isinstance(outcome, Refusal):
            made.append(outcome)
            continue
        if failed is not None:
            continue
        try:
            if outcome.errno != errno.EEXIST:
                raise refused(rtnl, settings, outcome) from outcome
            # Perhaps what stands in the way is left of an earlier run.
            made.append(create(rtnl, settings, mark if settings.in_steps else None))
        except NetbpfError as error:
            failed = error
    if failed is not None:
        raise failed


def _check_all(rtnl: Rtnl, wanted: Sequence[Settings], made: Sequence[Made]) -> None:
    if len(made) == 1:
        check_taken(links.get(rtnl, made[0].ifindex), wanted[0])
        return
    found = {link.ifindex: link for link in links.dump(rtnl, kind=uapi.KIND)}
    for settings, device in zip(wanted, made, strict=True):
        if settings.in_steps and device.ifindex in found:
            check_taken(found[device.ifindex], settings)


def _finish(rtnl: Rtnl, settings: Settings, made: Made) -> None:
    """Do what is left to do to a marked device; with the last message the mark goes."""
    if not settings.single:
        if made.peer_ifindex is None:
            raise KernelError(f"add {made.name}", errno.ENOTCONN, "its peer is gone already")
        with at_peer(rtnl, settings) as there:
            label = f"the peer of {made.name}"
            _dress(there, made.peer_ifindex, label, settings.peer_addrs)
            attributes = given(
                IFLA_GROUP=settings.peer_group or 0, IFLA_IFALIAS=settings.peer_alias
            )
            _release(there, made.peer_ifindex, label, attributes, settings.up)
    _dress(rtnl, made.ifindex, made.name, settings.addrs)
    attributes = given(IFLA_GROUP=settings.group or 0, IFLA_IFALIAS=settings.alias)
    _release(rtnl, made.ifindex, made.name, attributes, settings.up)


def _dress(rtnl: Rtnl, ifindex: int, label: str, texts: Sequence[str]) -> None:
    for address in check_addresses(texts):
        with refusals(f"give {label} the address {address}"):
            addresses.add(rtnl, ifindex, address)


def _release(
    rtnl: Rtnl, ifindex: int, label: str, attributes: list[tuple[str, Any]], up: bool
) -> None:
    with refusals(f"bring {label} up" if up else f"finish {label}", UP_MEANINGS):
        links.change(rtnl, ifindex, up=up or None, attributes=attributes)


@contextmanager
def _taken_back_on_failure() -> Iterator[list[Made]]:
    """A list for the devices made in the block; they are deleted again if the block fails."""
    made: list[Made] = []
    try:
        yield made
    except BaseException:
        if made:
            # A socket of its own: an interruption may have come between a question and its answer.
            with held(), suppress(OSError, NetbpfError), Rtnl() as rtnl:
                if len(made) == 1:
                    links.delete(rtnl, made[0].ifindex)
                else:
                    delete_together(rtnl, [(device.ifindex, 0) for device in made])
        raise
