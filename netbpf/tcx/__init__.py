"""tcx: chains of programs on a device's ingress and egress.

Since Linux 6.6 (kernel/bpf/tcx.c). A tcx chain runs before the filters of clsact on the same device
and direction. Every function takes an ifindex and acts in the network namespace where the calling
thread stands; what they do and raise is said at ``netbpf.bpf.mprog.Hooks``.
"""

from __future__ import annotations

from netbpf.bpf import uapi
from netbpf.bpf.hook import Hook
from netbpf.bpf.mprog import Hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from netbpf.bpf.chain_run import ChainRunner

HOOKS = Hooks(
    Hook("ingress", uapi.BPF_TCX_INGRESS, "tcx", since="6.6", config="CONFIG_NET_XGRESS"),
    Hook("egress", uapi.BPF_TCX_EGRESS, "tcx", since="6.6", config="CONFIG_NET_XGRESS"),
)

attach = HOOKS.attach
detach = HOOKS.detach
update = HOOKS.update
chain = HOOKS.chain


def runner(ifindex: int, hook: str) -> AbstractContextManager[ChainRunner]:
    """The chain, ready to be run over packets without traffic: ``runner.run(frame)``.

    It is read once, and its programs are held open until the block ends.

    :raises BpfError, NotFoundError, NotSupportedError: the chain cannot be read or opened.
    """
    from netbpf.bpf import chain_run

    return chain_run.opened(HOOKS, ifindex, hook)


__all__ = ["HOOKS", "attach", "chain", "detach", "runner", "update"]
