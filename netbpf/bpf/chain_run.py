"""Running a chain without traffic: a packet through its programs, as far as the kernel would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from netbpf.bpf.chain import Chain
from netbpf.bpf.mprog import Hooks
from netbpf.bpf.prog import Program, ProgramInfo
from netbpf.bpf.test_run import SkbContext, verdict
from netbpf.errors import NotFoundError

_TRIES = 8
_NEXT = -1
# The only codes besides NEXT that a chain knows, at either kind of hook (include/uapi/linux/bpf.h).
_ENDS = {0: "pass", 2: "drop", 7: "redirect"}
# What the kernel does after the last NEXT, and after a code that the hook does not know
# (include/net/tcx.h: tcx_action_code, net/core/dev.c: tcx_run; drivers/net/netkit.c: netkit_xmit).
_AFTER_NEXT = {"tcx": "next", "netkit": "pass"}
_AFTER_UNKNOWN = {"tcx": "next", "netkit": "drop"}


@dataclass(frozen=True, slots=True)
class Step:
    """One program's part: what it returned, the word for that, and how long it took in ns."""

    position: int
    prog_id: int
    name: str
    retval: int
    verdict: str
    duration: int


@dataclass(frozen=True, slots=True)
class ChainResult:
    """What became of a packet: the verdict, the packet and its context, and each program's part.

    ``verdict`` is ``pass``, ``drop`` or ``redirect``; at tcx also ``next``, when no program
    decided: the filters of clsact come then, and without them the packet passes. An empty netkit
    chain has the verdict of the device's policy, or ``policy`` where nobody looked it up.
    """

    verdict: str
    data_out: bytes
    context: SkbContext
    steps: tuple[Step, ...]

    @property
    def passes(self) -> bool:
        """Whether the packet goes on, as far as the chain is concerned."""
        return self.verdict in ("pass", "next")


class ChainRunner:
    """A chain as it was read once, its programs held open until ``opened`` ends.

    ``context`` is where and what a packet is at the start, ``empty`` the verdict of a chain without
    programs; both may be set.
    """

    def __init__(
        self, chain: Chain, programs: list[Program], kind: str, context: SkbContext
    ) -> None:
        self.chain = chain
        self.context = context
        self.empty = "policy" if kind == "netkit" else _AFTER_NEXT[kind]
        self.infos: tuple[ProgramInfo, ...] = tuple(program.info() for program in programs)
        self._programs = programs
        self._kind = kind

    def run(self, data: bytes, context: SkbContext | None = None) -> ChainResult:
        """Take an Ethernet frame through the chain.

        What one program leaves of the packet and of its context the next one gets; what the kernel
        does not tell of a test run is lost on the way: ``tc_index``, ``tc_classid``, the queue
        mapping, and a VLAN tag beside the packet. Maps are changed as by traffic; a redirect is
        only told.

        :param context: without it ``self.context``: the packet is at the chain's device.
        :raises BpfError: a program could not be run; with code ``unfit_packet`` over this packet.
        :raises NotFoundError: the device of the context is not in the caller's namespace.
        """
        context = self.context if context is None else context
        steps: list[Step] = []
        end = _AFTER_NEXT[self._kind] if self._programs else self.empty
        for position, (program, info) in enumerate(zip(self._programs, self.infos, strict=True)):
            result = program.test_run(data, context=context)
            assert isinstance(result.context, SkbContext)
            data = result.data_out
            # Without a wire_len the next run takes the packet's own length; gso_size is not told.
            context = replace(result.context, wire_len=0, gso_size=context.gso_size)
            word = verdict(info.type, result.retval)
            steps.append(Step(position, info.id, info.name, result.retval, word, result.duration))
            if result.retval != _NEXT:
                end = _ENDS.get(result.retval, _AFTER_UNKNOWN[self._kind])
                break
        return ChainResult(end, data, context, tuple(steps))


@contextmanager
def opened(hooks: Hooks, ifindex: int, hook: str) -> Iterator[ChainRunner]:
    """The chain at a device's hook, ready to be run, in the namespace where the thread stands.

    Needs CAP_SYS_ADMIN, to open programs by their ids.

    :raises BpfError, NotFoundError, NotSupportedError: the chain cannot be read or opened.
    """
    kind = hooks.hook(hook).member
    with ExitStack() as held:
        chain, programs = _held(hooks, ifindex, hook, held)
        # A netkit's packet is at the other end when the programs run, and only the peer's other
        # end, the primary, is sure to be in this namespace.
        context = SkbContext(
            ifindex=ifindex if hook != "primary" else 0,
            ingress_ifindex=ifindex if hook == "ingress" else 0,
        )
        yield ChainRunner(chain, programs, kind, context)


def _held(hooks: Hooks, ifindex: int, hook: str, held: ExitStack) -> tuple[Chain, list[Program]]:
    """The chain and its programs, open; read again where one went before it could be opened."""
    for attempt in range(_TRIES):
        chain = hooks.chain(ifindex, hook)
        with ExitStack() as opening:
            try:
                programs = [
                    opening.enter_context(Program.from_id(entry.prog_id)) for entry in chain.entries
                ]
            except NotFoundError:
                if attempt < _TRIES - 1:
                    continue
                raise
            held.push(opening.pop_all())
            return chain, programs
    raise AssertionError("the last try returns or raises")
