"""Leases of rx queues: made, shown, checked, ended.

A netkit device gets a virtual rx queue that stands for one of a NIC's. Since Linux 7.1
(net/core/netdev-genl.c, drivers/net/netkit.c).
"""

from __future__ import annotations

from collections.abc import Sequence

from netbpf.errors import ConflictError, NotFoundError
from netbpf.interrupts import held
from netbpf.netkit import steer as steering
from netbpf.netkit.lease_check import Finding, Purpose, check, half_done, peer_hint
from netbpf.netkit.lease_end import Ended, delete, plan
from netbpf.netkit.lease_model import End, Lease, Survey, Unknown
from netbpf.netkit.lease_reading import survey
from netbpf.netkit.lease_refusal import PRIMARY, explained
from netbpf.netkit.lease_sides import Sides, opened, own_leases
from netbpf.netkit.model import check_range
from netbpf.netlink.rtnl import Refusal
from netbpf.netns import NetNS

__all__ = [
    "End",
    "Ended",
    "Finding",
    "Lease",
    "Purpose",
    "Survey",
    "Unknown",
    "add",
    "check",
    "delete",
    "of_device",
    "plan",
    "show",
    "survey",
]


def add(
    netkit: str | int,
    nic: str | int,
    queue: int,
    *,
    nic_netns: NetNS | str | None = None,
    count: int = 1,
    steer: Sequence[str] | None = None,
) -> list[Lease]:
    """Lease rx queues of a NIC to a netkit device of the calling thread's namespace.

    The device is a single one, or the peer of a pair; its queue 0 stays its own, and all its leases
    are of one NIC. Both may be down. The kernel takes no lease back: it ends with the netkit
    device, or with the NIC, which takes all netkit devices that lease from it along.

    With ``count``, it is ``queue`` and those after it, all or none: what would be refused is found
    out before the first is leased. Those of them that the device has already count in, so that
    what an interrupted run left is completed by another.

    :param netkit: name or ifindex.
    :param queue: the NIC's rx queue.
    :param nic_netns: where the NIC is: a handle, or a name, a path or ``pid:N``.
    :param steer: keep what RSS spreads off the queues, and send these flows to the queue
        (`steer.flows`); done before the lease, and taken back when that is refused.
    :raises ValueError: a number or a flow that cannot mean anything.
    :raises NotSupportedError: this kernel knows no leases.
    :raises NotFoundError: there is no such device or namespace.
    :raises ConflictError: the device has all these queues already.
    :raises NetlinkError: the kernel refused; EBUSY: the queue is taken; EPERM: CAP_NET_ADMIN in the
        initial user namespace.

    Since Linux 7.1 (netdev_nl_queue_create_doit in net/core/netdev-genl.c).
    """
    check_range("queue", queue, 0, 0xFFFFFFFF)
    check_range("count", count, 1, 0xFFFF)
    queues = range(queue, queue + count)
    flows = steering.flows(steer or ())
    with opened(netkit, nic, nic_netns) as sides:
        made: dict[int, int] = own_leases(sides, queues) if count > 1 else {}
        wanted = [number for number in queues if number not in made]
        if not wanted:
            raise ConflictError(
                f"{_operation(sides, queue)}: it has all {count} queues already",
                hint="`netbpf lease show` lists them",
            )
        if len(wanted) > 1:
            for finding in half_done(sides, wanted):
                if finding.blocks:
                    raise finding.as_error(_operation(sides, finding.queue or queue))
        if steer is not None:
            for finding in steering.refusals(sides.nic, wanted, flows):
                raise finding.as_error(_operation(sides, queue))
        number = queue
        try:
            if steer is not None:
                steering.apply(sides.nic, wanted, flows)
            nsid = sides.nsid()
            for number in wanted:
                with held():
                    made[number] = sides.create(number, nsid)
        except BaseException as error:
            if steer is not None:
                for spare in wanted:
                    if spare not in made:
                        steering.undo(sides.nic, spare)
            if not isinstance(error, Refusal):
                raise
            refusal = error
            left = _left(sides, {number: made[number] for number in wanted if number in made})
            hint = peer_hint(sides) if refusal.extack == PRIMARY else None
            raise explained(_operation(sides, number), refusal, left, hint) from refusal
        return [sides.lease(number, made[number]) for number in queues]


def show(device: str | None = None) -> list[Lease]:
    """The leases of all namespaces, or those with ``device`` at one of their ends.

    What the kernel does not tell is None in them; `survey` also says why.

    :raises NotFoundError: there is no device of that name.
    """
    return list(of_device(survey(), device).leases)


def of_device(found: Survey, device: str | None) -> Survey:
    """What of ``found`` has to do with the device of that name; all of it without a name.

    :raises NotFoundError: there is no device of that name here, and none in ``found``.
    """
    if device is None:
        return found
    leases = tuple(
        lease
        for lease in found.leases
        if device == lease.netkit.device or (lease.nic and device == lease.nic.device)
    )
    unknown = tuple(gap for gap in found.unknown if gap.device in (device, None))
    if not leases and not unknown:
        _exists(device)
    return Survey(leases, unknown)


def _exists(device: str) -> None:
    import socket

    if all(name != device for _, name in socket.if_nameindex()):
        raise NotFoundError("device", device, hint="no lease anywhere has to do with one either")


def _operation(sides: Sides, queue: int) -> str:
    return f"lease {sides.nic.link.name}:{queue} to {sides.netkit.link.name}"


def _left(sides: Sides, made: dict[int, int]) -> str | None:
    """What a request that was refused in the middle leaves behind."""
    if not made:
        return None
    name, nic = sides.netkit.link.name, sides.nic.link.name
    pairs = ", ".join(f"{nic}:{number} as {name}:{virtual}" for number, virtual in made.items())
    return f"leased before that, and still: {pairs}"
