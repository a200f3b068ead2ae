"""The kernel's requests that change a chain, one function each; they raise plain OSError."""

from __future__ import annotations

from netbpf.bpf import syscall, uapi
from netbpf.bpf.anchor import Landing
from netbpf.bpf.fd import FD
from netbpf.bpf.hook import Hook
from netbpf.bpf.link import Link
from netbpf.bpf.macros import BPF_F_REPLACE
from netbpf.bpf.prog import Program


def create_link(
    hook: Hook, ifindex: int, prog: Program, landing: Landing, revision: int = 0
) -> Link:
    """BPF_LINK_CREATE: attach by a link, which takes the program with it when it ends."""
    attr = uapi.LinkCreateAttr(attach_type=hook.attach_type, flags=landing.flags)
    attr.prog_fd, attr.target_ifindex = prog.fileno(), ifindex
    order = getattr(attr, hook.member)
    order.relative_id, order.expected_revision = landing.relative_id, revision
    return Link(FD(syscall.link_create(attr)))


def attach_program(
    hook: Hook,
    ifindex: int,
    prog: Program,
    landing: Landing,
    revision: int = 0,
    replaced: Program | None = None,
) -> None:
    """BPF_PROG_ATTACH: the program itself; ``replaced`` where the landing is in its place."""
    attr = uapi.ProgAttachAttr(
        attach_type=hook.attach_type, attach_flags=landing.flags, expected_revision=revision
    )
    attr.target_ifindex, attr.attach_bpf_fd = ifindex, prog.fileno()
    attr.relative_id = landing.relative_id
    if replaced is not None:
        attr.replace_bpf_fd = replaced.fileno()
    syscall.prog_attach(attr)


def replace_program(
    hook: Hook, ifindex: int, prog: Program, replaced: Program, revision: int = 0
) -> None:
    """BPF_PROG_ATTACH with BPF_F_REPLACE: in the place of ``replaced``, which no link owns.

    Takes effect at once: no RCU grace period is waited for.
    """
    landing = Landing(position=0, flags=BPF_F_REPLACE, relative_id=0, replaced=None)
    attach_program(hook, ifindex, prog, landing, revision, replaced)


def detach_program(hook: Hook, ifindex: int, prog: Program, revision: int = 0) -> None:
    """BPF_PROG_DETACH of this program, never of another."""
    attr = uapi.ProgAttachAttr(attach_type=hook.attach_type, expected_revision=revision)
    attr.target_ifindex, attr.attach_bpf_fd = ifindex, prog.fileno()
    syscall.prog_detach(attr)
