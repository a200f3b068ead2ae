"""tcx: chains of programs on a device's ingress and egress.

Since Linux 6.6 (kernel/bpf/tcx.c). A tcx chain runs before the filters of clsact on the same device
and direction. Every function takes an ifindex and acts in the network namespace where the calling
thread stands; what they do and raise is said at ``netbpf.bpf.mprog.Hooks``.
"""

from netbpf.bpf import uapi
from netbpf.bpf.hook import Hook
from netbpf.bpf.mprog import Hooks

HOOKS = Hooks(
    Hook("ingress", uapi.BPF_TCX_INGRESS, "tcx", since="6.6", config="CONFIG_NET_XGRESS"),
    Hook("egress", uapi.BPF_TCX_EGRESS, "tcx", since="6.6", config="CONFIG_NET_XGRESS"),
)

attach = HOOKS.attach
detach = HOOKS.detach
update = HOOKS.update
chain = HOOKS.chain

__all__ = ["HOOKS", "attach", "chain", "detach", "update"]
