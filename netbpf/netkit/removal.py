"""Deleting netkit devices: one, or many for the price of one."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress

from netbpf.errors import NotFoundError
from netbpf.interrupts import held
from netbpf.netkit import marks
from netbpf.netkit.reading import netkit_link
from netbpf.netlink import links
from netbpf.netlink.refusals import Meaning, explained
from netbpf.netlink.rtnl import Refusal, Rtnl

_BATCH = 100


def delete(*devices: str | int) -> list[str]:
    """Delete netkit devices of the namespace of the calling thread; return their names.

    Deleting either end of a pair deletes both. All are looked up before the first is deleted, and
    go together: all or none.

    :param devices: names or ifindexes.
    :raises NotFoundError: one of them is no netkit device; then none was deleted.
    :raises NetlinkError: the kernel refused; EPERM: CAP_NET_ADMIN.
    """
    with Rtnl() as rtnl:
        found = {link.ifindex: link for link in (netkit_link(rtnl, device) for device in devices)}
        listed = list(found.values())
        if len(listed) == 1:
            _delete_one(rtnl, listed[0])
        elif listed:
            delete_together(rtnl, [(link.ifindex, link.group) for link in listed])
        return [link.name for link in listed]


def delete_together(rtnl: Rtnl, devices: Sequence[tuple[int, int]]) -> None:
    """Delete devices, given by ifindex and group, all or none.

    Deleted one by one, each waits for a grace period of RCU, 16 ms. The kernel waits once for a
    namespace or for a group. A namespace to die in costs each device a move, which waits as well;
    a group costs a message that does not. So the devices are put into a group that nobody else has
    (`marks.deleting`), and it is deleted. Killed in between, it leaves them marked.

    :raises NotFoundError: one went meanwhile; the others are as they were.
    :raises NetlinkError: the kernel refused; the devices are as they were.
    """
    group = marks.deleting()
    try:
        with held():
            for ifindex, refusal in _put(rtnl, [(ifindex, group) for ifindex, _ in devices]):
                raise _not_deleted(ifindex, refusal) from refusal
            links.delete_group(rtnl, group)
    except Refusal as error:
        _put_back(rtnl, devices)
        raise explained(f"delete {len(devices)} devices", error, _MEANINGS) from error
    except BaseException:
        _put_back(rtnl, devices)
        raise


_MEANINGS = {errno.ENODEV: Meaning("all went meanwhile")}


def _delete_one(rtnl: Rtnl, link: links.Link) -> None:
    try:
        links.delete(rtnl, link.ifindex)
    except Refusal as error:
        if error.errno == errno.ENODEV:
            raise gone(link.name) from error
        raise explained(f"delete {link.name}", error) from error


def _not_deleted(ifindex: int, refusal: Refusal) -> Exception:
    if refusal.errno == errno.ENODEV:
        return gone(f"with ifindex {ifindex}")
    return explained(f"delete the device with ifindex {ifindex}", refusal)


def gone(name: str) -> NotFoundError:
    """What to raise for a device that was there a moment ago."""
    return NotFoundError("netkit device", name, where="any more", hint="somebody else deleted it")


def _put(rtnl: Rtnl, devices: Sequence[tuple[int, int]]) -> list[tuple[int, Refusal]]:
    """Put devices into groups and return those that the kernel refused."""
    failed = []
    for start in range(0, len(devices), _BATCH):
        part = devices[start : start + _BATCH]
        bodies = [
            links.change_body(ifindex, attributes=[("IFLA_GROUP", group)])
            for ifindex, group in part
        ]
        for (ifindex, _), outcome in zip(part, rtnl.batch(links.RTM_NEWLINK, bodies), strict=True):
            if isinstance(outcome, Refusal):
                failed.append((ifindex, outcome))
    return failed


def _put_back(rtnl: Rtnl, devices: Sequence[tuple[int, int]]) -> None:
    with held(), suppress(OSError):
        _put(rtnl, devices)
