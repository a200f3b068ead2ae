"""Programs of cls_bpf become tcx links, and go back: one by one, and with no packet unserved.

Each program is put at its new place first and taken from the old one then, in an order in which
both places are neighbours: going to tcx the first filter becomes the last of the chain, going back
the last link becomes the first filter. So the order never changes, nothing is ever missing, and the
only packets that meet a program twice are those that come between these two steps (some 10 ms, the
kernel's grace period) and that it passes on to the next.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from netbpf.bpf import pin as pins
from netbpf.bpf.alone import alone
from netbpf.bpf.bpffs import BpfFs, lasting
from netbpf.bpf.link import Link
from netbpf.bpf.mprog_refusal import device_name
from netbpf.bpf.pin_name import name_for
from netbpf.bpf.prog import Program
from netbpf.errors import ConflictError, NetbpfError, NetlinkError
from netbpf.interrupts import held
from netbpf.netlink import filters
from netbpf.netlink.filters import Filter
from netbpf.netlink.rtnl import Rtnl
from netbpf.tcx import HOOKS
from netbpf.tcx.migrate_plan import Migration, Move, mark, own_pins, to_clsact, to_tcx

BOTH = ("ingress", "egress")

__all__ = ["BOTH", "Migration", "Move", "back", "migrate", "plan"]


def plan(ifindex: int, hooks: Sequence[str] = BOTH, *, back: bool = False) -> list[Migration]:
    """What `migrate` or `back` would do at these hooks; changes nothing.

    :raises NetbpfError: it would be refused, and why.
    """
    with Rtnl() as rtnl:
        return [(to_clsact if back else to_tcx)(ifindex, hook, rtnl=rtnl) for hook in hooks]


def migrate(
    ifindex: int, hooks: Sequence[str] = BOTH, *, bpffs: Callable[[], BpfFs] = lasting
) -> list[Migration]:
    """Let the cls_bpf programs of a device's clsact become tcx links, in the same order.

    They go behind the programs that tcx has there: clsact ran after them. Each link is pinned in
    netbpf's own folder, and the pin's name says which filter it was. The qdisc and filters of other
    kinds stay as they are. All move or none: when a step is refused, those before it are put back.

    :param bpffs: finds the bpffs for the pins; asked only when there is something to pin.
    :raises NetbpfError: a filter means something that tcx cannot; the message has each.
    :raises ConflictError: somebody changed the filters meanwhile, or another migration goes on.
    :raises BpfError, NetlinkError: the kernel refused.

    Since Linux 6.6.
    """
    return _run(ifindex, hooks, bpffs, back=False)


def back(
    ifindex: int, hooks: Sequence[str] = BOTH, *, bpffs: Callable[[], BpfFs] = lasting
) -> list[Migration]:
    """Let the tcx links that `migrate` made become cls_bpf filters of clsact again.

    Links that were never filters stay, and have to stand before those that go: clsact runs after
    tcx. No qdisc is made. All move or none, as with `migrate`.

    :raises NetbpfError: there is no clsact.
    :raises ConflictError: other programs stand behind one that would go, or another migration goes
        on.
    :raises BpfError, NetlinkError: the kernel refused.
    """
    return _run(ifindex, hooks, bpffs, back=True)


def _run(
    ifindex: int, hooks: Sequence[str], bpffs: Callable[[], BpfFs], *, back: bool
) -> list[Migration]:
    with alone("migrate"), held(), ExitStack() as stack:
        planned = plan(ifindex, hooks, back=back)
        if not any(each.moves for each in planned):
            return planned
        # Also on the way back: what is put back is pinned again.
        fs = bpffs()
        pins.check_writable(fs.path)
        mover = _Mover(ifindex, fs, stack.enter_context(Rtnl()))
        for each in (move for migration in planned for move in migration.moves):
            mover.progs[each.prog_id] = stack.enter_context(Program.from_id(each.prog_id))
        try:
            done = [mover.run(migration) for migration in planned]
        except BaseException as error:
            mover.put_back(error)
            raise
    return [_told(migration) for migration in done]


@dataclass(slots=True)
class _Mover:
    """Moves programs of one device, and knows how to put them back."""

    ifindex: int
    fs: BpfFs
    rtnl: Rtnl
    progs: dict[int, Program] = field(default_factory=dict)
    done: list[tuple[str, Move]] = field(default_factory=list)

    def run(self, migration: Migration) -> Migration:
        """Take all steps at one hook."""
        forth = migration.to == "tcx"
        moved = []
        for move in migration.moves if forth else reversed(migration.moves):
            if forth:
                self._still_first(migration.hook, move)
                moved.append(self.to_tcx(migration.hook, move))
            else:
                self._still_last(migration.hook, move)
                moved.append(self.to_clsact(migration.hook, move))
            self.done.append((migration.to, moved[-1]))
        return replace(migration, moves=tuple(moved if forth else reversed(moved)))

    def to_tcx(self, hook: str, move: Move) -> Move:
        """The link first, pinned; then the filter goes."""
        if move.half:
            own = own_pins(move.link_id or 0)
            self._delete(move.filter)
            return replace(move, pins=tuple(pin.shown for pin in own))
        placed = HOOKS.attach(self.ifindex, hook, self.progs[move.prog_id])
        assert placed.link is not None
        with placed.link as link:
            number, device = link.id, device_name(self.ifindex)
            inode = os.stat("/proc/thread-self/ns/net").st_ino
            name = name_for(
                inode, device, self.ifindex, mark(hook, move.filter), move.prog_name, number
            )
            # Closing the link without a pin takes the program out again.
            path = pins.create_own(link.fileno(), self.fs, name, link.kind)
            try:
                self._delete(move.filter)
            except BaseException:
                self._end(link)
                raise
        return replace(move, link_id=number, pins=(path,))

    def to_clsact(self, hook: str, move: Move) -> Move:
        """The filter first; then the link goes."""
        made = move.filter
        if not move.half:
            made = filters.add(
                self.ifindex,
                hook,
                self.progs[move.prog_id].fileno(),
                name=made.name or move.prog_name or "netbpf",
                priority=made.priority,
                handle=made.handle,
                skip_hw=made.skip_hw,
                rtnl=self.rtnl,
            )
        try:
            with Link.from_id(move.link_id or 0) as link:
                self._end(link)
        except BaseException:
            if not move.half:
                filters.delete(made, rtnl=self.rtnl)
            raise
        return replace(move, filter=made)

    def put_back(self, error: BaseException) -> None:
        """Undo what was done, the last first: each step back is one of the other way."""
        left = []
        for to, move in reversed(self.done):
            step = self.to_clsact if to == "tcx" else self.to_tcx
            try:
                step(move.filter.hook, replace(move, half=False))
            except (NetbpfError, OSError) as second:
                left.append(f"{move.prog_name} (id:{move.prog_id}) stays at {to}: {second}")
                # What comes before it must not overtake it.
                break
        if left and isinstance(error, NetbpfError):
            error.hint = "; ".join([*([error.hint] if error.hint else []), *left])

    def _still_first(self, hook: str, move: Move) -> None:
        """Whether clsact runs this filter first, as it was when the plan was made.

        :raises ConflictError: it does not.
        """
        there = filters.filters(self.ifindex, hook, rtnl=self.rtnl)
        if not there or _same(there[0]) != _same(move.filter):
            raise _changed(self.ifindex, hook, f"{move.filter} is no longer the first filter")

    def _still_last(self, hook: str, move: Move) -> None:
        """Whether tcx runs this link last, and clsact would run its filter first.

        :raises ConflictError: somebody came between.
        """
        entries = HOOKS.chain(self.ifindex, hook).entries
        if not entries or entries[-1].link_id != move.link_id:
            raise _changed(self.ifindex, hook, f"link:{move.link_id} is no longer the last at tcx")
        there = filters.filters(self.ifindex, hook, rtnl=self.rtnl)
        if move.half:
            if not there or _same(there[0]) != _same(move.filter):
                raise _changed(self.ifindex, hook, f"{move.filter} is no longer the first filter")
        elif any(each.chain == 0 and each.priority < move.filter.priority for each in there):
            raise _changed(self.ifindex, hook, f"{there[0]} came before what was to be first")

    def _delete(self, which: Filter) -> None:
        try:
            gone = filters.delete(which, rtnl=self.rtnl)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                raise _changed(self.ifindex, which.hook, f"{which} is gone") from error
            raise
        if gone.prog_id == which.prog_id:
            return
        # Somebody exchanged the program between looking and removing: theirs comes back.
        if gone.prog_id is None or not gone.direct_action or gone.classid or gone.actions:
            raise _changed(self.ifindex, which.hook, f"{gone}, which was new there, was removed")
        with Program.from_id(gone.prog_id) as theirs:
            filters.add(
                self.ifindex,
                gone.hook,
                theirs.fileno(),
                name=gone.name or "",
                priority=gone.priority,
                handle=gone.handle,
                skip_hw=gone.skip_hw,
                rtnl=self.rtnl,
            )
        raise _changed(self.ifindex, which.hook, f"{which} has another program")

    @staticmethod
    def _end(link: Link) -> None:
        """Detach the link, and remove netbpf's own pins of it."""
        own = own_pins(link.id)
        link.detach()
        for pin in own:
            # The step is taken: a pin that stays on keeps an object without effect.
            with suppress(NetbpfError):
                pins.remove(pin.path)


def _same(which: Filter) -> tuple[object, ...]:
    return which.priority, which.handle, which.chain, which.protocol, which.kind, which.prog_id


def _changed(ifindex: int, hook: str, what: str) -> ConflictError:
    return ConflictError(
        f"migrate {device_name(ifindex)} {hook}: somebody changed the filters or the chain: {what}",
        hint="look again (netbpf tcx show), then decide",
    )


def _told(migration: Migration) -> Migration:
    """With the positions and the revision that there are now."""
    chain = HOOKS.chain(migration.ifindex, migration.hook)
    moves = migration.moves
    if migration.to == "tcx":
        moves = tuple(
            replace(move, position=entry.position if entry else move.position)
            for move in moves
            for entry in [chain.with_program(move.prog_id)]
        )
    return replace(migration, revision=chain.revision, moves=moves)
