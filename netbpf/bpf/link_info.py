"""What the kernel tells of a link, taken apart."""

from __future__ import annotations

from netbpf.bpf import uapi
from netbpf.records import record

_ON_DEVICE = {
    uapi.BPF_LINK_TYPE_XDP: "xdp",
    uapi.BPF_LINK_TYPE_TCX: "tcx",
    uapi.BPF_LINK_TYPE_NETKIT: "netkit",
}


@record(frozen=True, slots=True)
class LinkInfo:
    """What the kernel tells of a link.

    ``ifindex`` counts in the namespace of the device, which the kernel does not name. A link whose
    device or namespace is gone, or that was detached, is ``defunct``: an object without effect.
    """

    id: int
    type: int
    prog_id: int
    ifindex: int | None
    attach_type: int | None
    netns_inode: int | None

    @classmethod
    def of(cls, raw: uapi.LinkInfo) -> LinkInfo:
        """Read a ``struct bpf_link_info``."""
        ifindex = attach_type = netns_inode = None
        if member := _ON_DEVICE.get(raw.type):
            detail = getattr(raw, member)
            ifindex, attach_type = detail.ifindex, getattr(detail, "attach_type", None)
        elif raw.type == uapi.BPF_LINK_TYPE_NETNS:
            netns_inode, attach_type = raw.netns.netns_ino, raw.netns.attach_type
        return cls(raw.id, raw.type, raw.prog_id, ifindex, attach_type, netns_inode)

    @property
    def type_name(self) -> str:
        """The link type in the kernel's word, ``tcx``."""
        return uapi.LINK_TYPE_NAMES.get(self.type, str(self.type))

    @property
    def hook(self) -> str | None:
        """Where on its device or namespace it attaches: ``ingress``, ``sk_lookup``."""
        if self.attach_type is None:
            return None
        name = uapi.ATTACH_TYPE_NAMES.get(self.attach_type, str(self.attach_type))
        return name.removeprefix(f"{self.type_name}_")

    @property
    def defunct(self) -> bool:
        """Whether the link is attached to nothing any more."""
        return self.ifindex == 0 or self.netns_inode == 0
