"""Running packets through the chain of a netkit device's side, without traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from netbpf.bpf import chain_run
from netbpf.netkit.device import get
from netbpf.netkit.hooks import HOOKS


@contextmanager
def runner(ifindex: int, hook: str) -> Iterator[chain_run.ChainRunner]:
    """The chain of a side, ready for packets (``runner.run(frame)``), closed with the block.

    A side's programs see a packet when it is at the other end already. The primary's see it at
    the peer, if that is in the namespace of the calling thread: a test run cannot be in another,
    and is at loopback then. A side without programs has the verdict of its policy.

    :raises BpfError, NotFoundError, NotSupportedError: the chain cannot be read or opened.
    """
    with chain_run.opened(HOOKS, ifindex, hook) as made:
        device = get(ifindex)
        policy = device.policy
        if device.peer is not None and hook == "peer":
            policy = device.peer.policy
        elif device.peer is not None and device.peer.netns is None:
            made.context = replace(made.context, ifindex=device.peer.ifindex)
        made.empty = "pass" if policy == "forward" else "drop"
        yield made
