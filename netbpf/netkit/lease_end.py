"""Ending leases, which the kernel only does by deleting the netkit device that has them.

netkit_queue_unlease in drivers/net/netkit.c runs when the device goes, and at no other time. A
single device can be made again with the leases that are to stay; a pair never is.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from netbpf.errors import ConflictError, NetbpfError, NotFoundError
from netbpf.interrupts import held
from netbpf.netkit import device as devices
from netbpf.netkit import steer
from netbpf.netkit.lease_model import Lease
from netbpf.netkit.lease_reading import survey
from netbpf.netkit.lease_refusal import explained
from netbpf.netkit.lease_sides import lessor_refusals, opened
from netbpf.netkit.model import Device
from netbpf.netns import NetNS

NOT_BROUGHT_BACK = "its ifindex, routes, tcx programs, qdiscs and neighbours"
"""What a device that is made again does not have any more."""


@dataclass(frozen=True)
class Ended:
    """Leases that ended, or would, and what became of the device."""

    device: Device
    """As it is now; before anything is done, as it was."""
    ended: tuple[Lease, ...]
    kept: tuple[Lease, ...]
    """The others; their queues are numbered anew, from 1."""


def plan(netkit: str | int, queue: int | None = None, *, recreate: bool = False) -> Ended:
    """What `delete` with the same words would do; all that can be checked before is checked.

    :raises NotFoundError: there is no such netkit device, or it has no such lease.
    :raises ConflictError: more would go than is asked for, or could not be brought back.
    """
    device = devices.get(netkit)
    ended = tuple(each for each in device.leases if queue in (None, each.netkit.queue))
    kept = tuple(each for each in device.leases if each not in ended)
    gaps = [
        gap for gap in survey().unknown if gap.netns is None and gap.device in (device.name, None)
    ]
    if not ended and not gaps:
        what = device.name if queue is None else f"{device.name}:{queue}"
        has = ", ".join(f"{device.name}:{each.netkit.queue}" for each in device.leases)
        raise NotFoundError("lease", what, hint=f"there are {has}" if has else None)
    operation = f"end {', '.join(_words(each) for each in ended) or f'leases of {device.name}'}"
    if device.pairing == "pair":
        raise ConflictError(
            f"{operation}: the kernel ends a lease only with its device, and {device.name} is one "
            f"of a pair{_toll(device, kept)}",
            hint=f"`netbpf netkit del {device.name}` deletes them all; leases that come and go "
            "are better had by a single device",
        )
    if not recreate:
        raise ConflictError(
            f"{operation}: the kernel ends a lease only with its device{_toll(device, kept)}",
            hint=f"--recreate makes {device.name} again, with the other leases but without "
            f"{NOT_BROUGHT_BACK}; `netbpf netkit del {device.name}` only deletes it",
        )
    if gaps and (kept or not ended):
        raise ConflictError(
            f"{operation}: the others could not be brought back, as it is unknown {gaps[0].reason}",
            hint="bring the NIC up first",
        )
    busy = [each for each in kept if each.user is not None]
    if busy:
        users = ", ".join(f"{_words(each)} ({each.user})" for each in busy)
        raise ConflictError(
            f"{operation}: making {device.name} again would cut off who uses {users}",
            hint="end the programs that use them first",
        )
    _see_that_they_can_be_had(device, kept, operation)
    return Ended(device, ended, kept)


def delete(netkit: str | int, queue: int | None = None, *, recreate: bool = False) -> Ended:
    """End one lease of a netkit device of the calling thread's namespace, or all of them.

    The kernel takes no lease back, so with ``recreate`` a single device is deleted and made again:
    with its name, settings, addresses and state, and with the leases that are to stay; without its
    ifindex, routes, tcx programs, qdiscs and neighbours. Without ``recreate``, and for a pair,
    nothing is done but to say what would go.

    :param queue: the netkit device's queue; None: all that are on lease.
    :raises NotFoundError: there is no such netkit device, or it has no such lease.
    :raises ConflictError: more would go than is asked for, or could not be brought back.
    :raises NetbpfError: the device is deleted and could not be made again; the hint says how.
    """
    planned = plan(netkit, queue, recreate=recreate)
    before = planned.device
    # Held, as an interruption in the middle would leave no device at all.
    with held():
        devices.delete(before.ifindex)
        try:
            made = _make(before)
            for each in planned.kept:
                _lease(made, each)
        except NetbpfError as error:
            raise NetbpfError(
                f"make {before.name} again: {error.message}",
                hint=f"it was deleted; by hand it is {_by_hand(planned)}",
                code="half_done",
            ) from error
    _no_longer_steered(made, planned.ended)
    now = devices.get(made.ifindex)
    return Ended(now, planned.ended, now.leases)


def _make(before: Device) -> Device:
    return devices.add(
        before.name,
        single=True,
        mode=before.mode,
        headroom=before.headroom or None,
        tailroom=before.tailroom or None,
        rx_queues=before.rx_queues,
        mtu=before.mtu,
        mac=before.mac,
        group=before.group or None,
        alias=before.alias,
        addrs=before.addrs,
        up=before.up,
    )


def _lease(made: Device, lease: Lease) -> None:
    # Imported here: lease.py offers what is in this module.
    from netbpf.netkit import lease as leases

    assert lease.nic is not None
    leases.add(made.ifindex, lease.nic.ifindex, lease.nic.queue, nic_netns=lease.nic.netns)


def _no_longer_steered(made: Device, ended: Sequence[Lease]) -> None:
    """Take back what was done at the NICs for the leases that ended, where they are known."""
    for lease in ended:
        if lease.nic is not None:
            with opened(made.ifindex, lease.nic.ifindex, lease.nic.netns) as sides:
                steer.undo(sides.nic, lease.nic.queue)


def _see_that_they_can_be_had(device: Device, kept: Sequence[Lease], operation: str) -> None:
    """Ask the kernel for each lease that is to stay: it may say that it is taken, and no more."""
    for lease in kept:
        assert lease.nic is not None
        with ExitStack() as stack:
            netns = lease.nic.netns
            place = stack.enter_context(NetNS.parse(netns)) if netns else None
            sides = stack.enter_context(opened(device.ifindex, lease.nic.ifindex, place))
            answers = lessor_refusals(sides.nic, [lease.nic.queue])
            refusal = answers[lease.nic.queue]
            if refusal is not None and refusal.errno != errno.EBUSY:
                raise explained(operation, refusal)


def _words(lease: Lease) -> str:
    of = f" ({lease.nic})" if lease.nic else ""
    return f"{lease.netkit.device}:{lease.netkit.queue}{of}"


def _toll(device: Device, kept: Sequence[Lease]) -> str:
    """What else would go with the device, as the end of a sentence."""
    toll = []
    if device.peer is not None:
        name = device.peer.name or f"ifindex {device.peer.ifindex}"
        toll.append(f"its peer {name}" + (f" in {device.peer.netns}" if device.peer.netns else ""))
    toll += [f"its lease {_words(each)}" for each in kept]
    toll += [f"its address {address}" for address in device.addrs]
    return f"; with {device.name} would go {', '.join(toll)}" if toll else ""


def _by_hand(planned: Ended) -> str:
    """The command lines that bring back what was to stay."""
    before = planned.device
    words = ["netbpf netkit add", before.name, "--single", f"--rx-queues {before.rx_queues}"]
    words += [f"--mode {before.mode}", f"--mtu {before.mtu}"]
    words += [f"--mac {before.mac}"] if before.mac else []
    words += [f"--headroom {before.headroom}"] if before.headroom else []
    words += [f"--tailroom {before.tailroom}"] if before.tailroom else []
    words += [f"--addr {address}" for address in before.addrs]
    words += ["--up"] if before.up else []
    lines = [" ".join(words)]
    for each in planned.kept:
        assert each.nic is not None
        where = f" --nic-netns {each.nic.netns}" if each.nic.netns else ""
        lines.append(f"netbpf lease add {before.name} {each.nic.device}:{each.nic.queue}{where}")
    return "; ".join(f"`{line}`" for line in lines)
