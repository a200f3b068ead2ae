"""Watching chains and devices: revisions by asking again and again, devices by rtnetlink.

The kernel tells nobody that a chain changed, but its revision rises. Only that is asked for, of all
chains in turn, some 2 µs each; what changed is looked up where it did. How often is what it costs.
"""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from netbpf import netns, tcx
from netbpf.bpf import mprog_refusal
from netbpf.bpf.chain import Chain
from netbpf.bpf.chain_change import change
from netbpf.bpf.hook import Hook, query
from netbpf.bpf.query import Asker
from netbpf.errors import KernelError, NotFoundError
from netbpf.netkit import hooks as sides
from netbpf.netlink import listing
from netbpf.netlink.listing import Listed
from netbpf.netlink.monitor import Heard, Lost, Monitor
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import Namespace
from netbpf.netns.visit import LeftOut
from netbpf.plumbing.watch_events import ChainEvent, DeviceEvent, Event, LostEvent

_SHARE, _MOST = 0.02, 0.05
"""The part of one processor that the asking takes, and the most where it would be too slow else."""
_QUICK, _SLOW = 0.1, 0.7
"""The seconds from one round to the next: with few chains, and so long as `_MOST` allows."""
_RESCAN = 1.0
"""The least seconds from one look for new namespaces to the next; it goes through /proc."""
_FULL_TURN = 16
"""Every so many rounds a chain is read whole: a tcx chain that was empty in between begins with
revision 1 again, and can have come to the number that it had."""


class _Watched:
    """One chain as it was last seen."""

    __slots__ = ("attach_type", "chain", "hook", "ifindex", "state")

    def __init__(self, ifindex: int, hook: Hook, state: tuple[int, int], chain: Chain) -> None:
        self.ifindex = ifindex
        self.hook = hook
        self.attach_type = hook.attach_type
        self.state = state
        self.chain = chain


class _Place:
    """A namespace, its watched devices and their chains."""

    def __init__(self, namespace: Namespace | None, reference: str | None) -> None:
        self.namespace = namespace
        self.reference = reference
        self.devices: dict[int, Listed] = {}
        self.chains: dict[int, list[_Watched]] = {}


class Watch:
    """Watches the chains and devices of the namespace where the calling thread is, or of all.

    With ``names`` only devices that have, or had when they were seen, one of these names; they need
    not be there yet. The thread has to stay where it was. With ``everywhere`` it visits the other
    namespaces while it asks, holds none of them in between, and learns of their devices only then:
    a device that moves between two of them is gone in one and appeared in the other.

    A change that was undone before the next round is told only if the revision tells of it. Needs
    CAP_NET_ADMIN; names of programs need CAP_SYS_ADMIN. ``here`` is how the events write the
    namespace of the thread, ``left_out`` is told once of each that may not be entered.
    """

    def __init__(
        self,
        names: Collection[str] = (),
        *,
        everywhere: bool = False,
        here: str | None = None,
        left_out: LeftOut | None = None,
    ) -> None:
        self._names = frozenset(names)
        self._everywhere = everywhere
        self._left_out = left_out
        self._asker = Asker()
        self._home = _Place(None, here)
        self._others: dict[int, _Place] = {}
        self._stack = ExitStack()
        self._monitor: Monitor
        self._round = 0
        self._rescan_at = 0.0

    @property
    def devices(self) -> int:
        """How many devices are watched now."""
        return sum(len(place.devices) for place in self._places())

    @property
    def chains(self) -> int:
        """How many chains are watched now, the empty ones included."""
        return sum(len(c) for place in self._places() for c in place.chains.values())

    def __enter__(self) -> Self:
        """Look at what is there, which is not told.

        :raises BpfError, NotSupportedError: chains cannot be asked for, and why.
        """
        self._monitor = self._stack.enter_context(Monitor())
        try:
            self._list(self._home, [])
            self._look_for_namespaces([])
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """What happens, as it is noticed: chains within a second, devices here at once.

        :param timeout: end after so many seconds; None never ends.
        """
        end = None if timeout is None else time.monotonic() + timeout
        waiting = select.poll()
        waiting.register(self._monitor, select.POLLIN)
        while True:
            used = time.thread_time()
            found: list[Event] = []
            self._hear(found)
            self._ask_all(found)
            used = time.thread_time() - used
            yield from found
            pause = min(max(used / _SHARE, _QUICK), max(used / _MOST, _SLOW))
            following = time.monotonic() + pause
            while (left := following - time.monotonic()) > 0:
                if end is not None:
                    left = min(left, end - time.monotonic())
                    if left <= 0:
                        return
                if waiting.poll(left * 1000):
                    found = []
                    self._hear(found)
                    yield from found

    def _places(self) -> list[_Place]:
        return [self._home, *self._others.values()]

    # What is heard, in this namespace.

    def _hear(self, found: list[Event]) -> None:
        try:
            for heard in self._monitor.heard():
                self._take(heard, found)
        except Lost:
            self._monitor.skip()
            found.append(LostEvent(self._home.reference))
            self._list(self._home, found)

    def _take(self, heard: Heard, found: list[Event]) -> None:
        device, home = heard.device, self._home
        if not heard.gone:
            self._there(home, device, found)
        elif device.ifindex in home.devices:
            self._gone(home, device.ifindex, found, heard)

    # What is listed, in any namespace.

    def _list(self, place: _Place, found: list[Event]) -> None:
        """List the devices of the namespace where the thread is, and tell what is new."""
        devices = listing.devices()
        there = {device.ifindex for device in devices}
        for ifindex in [number for number in place.devices if number not in there]:
            self._gone(place, ifindex, found, None)
        for device in devices:
            self._there(place, device, found)

    def _there(self, place: _Place, device: Listed, found: list[Event]) -> None:
        ifindex, name = device.ifindex, device.name
        known = place.devices.get(ifindex)
        if known is None:
            if self._names and name not in self._names:
                return
            place.devices[ifindex] = device
            found.append(DeviceEvent("appeared", place.reference, name, ifindex))
            self._begin(place, device, found)
            return
        place.devices[ifindex] = device
        if known.name != name:
            found.append(DeviceEvent("renamed", place.reference, name, ifindex, known.name))
        if known.up != device.up:
            what = DeviceEvent("up" if device.up else "down", place.reference, name, ifindex)
            found.append(what)

    def _gone(self, place: _Place, ifindex: int, found: list[Event], heard: Heard | None) -> None:
        device = place.devices.pop(ifindex)
        for each in place.chains.pop(ifindex, ()):
            if each.chain.entries:
                went = change(each.chain, Chain(ifindex, each.hook.name, 0, ()))
                found.append(
                    ChainEvent(
                        place.reference,
                        device.name,
                        ifindex,
                        each.hook.name,
                        each.chain,
                        None,
                        went,
                    )
                )
        if heard is not None and heard.nsid is not None:
            found.append(
                DeviceEvent(
                    "moved",
                    place.reference,
                    device.name,
                    ifindex,
                    to_netns=_reference(heard.nsid),
                    to_ifindex=heard.new_ifindex or ifindex,
                )
            )
        else:
            found.append(DeviceEvent("gone", place.reference, device.name, ifindex))

    # Chains.

    def _begin(self, place: _Place, device: Listed, found: list[Event]) -> None:
        """Begin to watch the chains of a device."""
        hooks = [tcx.HOOKS.hook(name) for name in tcx.HOOKS.names]
        if device.netkit:
            hooks += [sides.HOOKS.hook(name) for name in sides.HOOKS.names]
        place.chains[device.ifindex] = watched = []
        for hook in hooks:
            try:
                state = self._asker.state(device.ifindex, hook.attach_type)
                chain = query(device.ifindex, hook)
            except OSError as error:
                if hook.member == "netkit" or error.errno == errno.ENODEV:
                    # No netkit device, a peer or a single; or it has just gone.
                    continue
                raise mprog_refusal.of_query(hook, device.ifindex, error) from error
            watched.append(_Watched(device.ifindex, hook, state, chain))
            _know_programs(chain)
            if chain.entries:
                none = Chain(device.ifindex, hook.name, 0, ())
                found.append(
                    ChainEvent(
                        place.reference,
                        device.name,
                        device.ifindex,
                        hook.name,
                        None,
                        chain,
                        change(none, chain),
                    )
                )

    def _ask_all(self, found: list[Event]) -> None:
        self._round += 1
        self._ask(self._home, found)
        if not self._everywhere:
            return
        now = time.monotonic()
        if now >= self._rescan_at:
            self._look_for_namespaces(found)
        for inode, place in list(self._others.items()):
            self._visit(inode, place, found)

    def _ask(self, place: _Place, found: list[Event]) -> None:
        """Ask for the state of every chain of the namespace where the thread is."""
        state = self._asker.state
        turn = self._round % _FULL_TURN
        for watched in place.chains.values():
            for each in watched:
                try:
                    now = state(each.ifindex, each.attach_type)
                except OSError:
                    # It has gone, which rtnetlink tells in a moment.
                    continue
                if now != each.state or (now[1] and each.ifindex % _FULL_TURN == turn):
                    self._look(place, each, now, found)

    def _look(
        self, place: _Place, each: _Watched, now: tuple[int, int], found: list[Event]
    ) -> None:
        try:
            chain = query(each.ifindex, each.hook)
        except OSError:
            return
        before, each.chain, each.state = each.chain, chain, now
        if chain == before:
            return
        _know_programs(chain)
        found.append(
            ChainEvent(
                place.reference,
                place.devices[each.ifindex].name,
                each.ifindex,
                each.hook.name,
                before,
                chain,
                change(before, chain),
            )
        )

    # Other namespaces.

    def _look_for_namespaces(self, found: list[Event]) -> None:
        if not self._everywhere:
            return
        begin = time.monotonic()
        with netns.NetNS.current() as home:
            inode = home.inode
        there = {each.inode: each for each in netns.scan() if each.inode != inode}
        for gone in [number for number in self._others if number not in there]:
            self._leave(gone, found)
        for number, namespace in there.items():
            if number not in self._others:
                self._others[number] = _Place(namespace, namespace.reference)
                self._visit(number, self._others[number], found)
            elif self._others[number].namespace is not None:
                # It may be known by another name or process by now.
                self._others[number].namespace = namespace
        now = time.monotonic()
        self._rescan_at = now + max(_RESCAN, (now - begin) / _SHARE)

    def _visit(self, inode: int, place: _Place, found: list[Event]) -> None:
        if place.namespace is None:
            # It may not be entered.
            return
        try:
            with place.namespace.open() as ns, netns.entered(ns):
                self._list(place, found)
                self._ask(place, found)
        except NotFoundError:
            self._leave(inode, found)
        except KernelError as error:
            if self._left_out is None:
                raise
            self._left_out(place.namespace, error)
            place.namespace = None

    def _leave(self, inode: int, found: list[Event]) -> None:
        place = self._others.pop(inode)
        for ifindex in list(place.devices):
            self._gone(place, ifindex, found, None)


def _know_programs(chain: Chain) -> None:
    """Ask about the programs while they are there: what went is told with its name."""
    for entry in chain.entries:
        entry.program()


def _reference(nsid: int) -> str:
    from netbpf.netkit.reading import Neighbours

    with Rtnl() as rtnl:
        return Neighbours(rtnl).reference(nsid)
