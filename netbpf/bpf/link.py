"""Links: the kernel objects that keep a program attached."""

from __future__ import annotations

import errno

from netbpf.bpf import syscall, uapi
from netbpf.bpf.kobject import KernelObject, refused
from netbpf.bpf.link_info import LinkInfo
from netbpf.bpf.macros import BPF_F_REPLACE
from netbpf.bpf.prog import Program
from netbpf.errors import BpfError

__all__ = ["Link", "LinkInfo"]


class Link(KernelObject):
    """A bpf_link."""

    kind = "link"
    _next_id_cmd = uapi.BPF_LINK_GET_NEXT_ID
    _fd_by_id_cmd = uapi.BPF_LINK_GET_FD_BY_ID

    @property
    def id(self) -> int:
        """The link's id."""
        return self.info().id

    def info(self) -> LinkInfo:
        """Ask the kernel about the link.

        Since Linux 5.8 (kernel/bpf/syscall.c: bpf_link_get_info_by_fd).
        """
        raw = uapi.LinkInfo()
        try:
            syscall.obj_get_info(self.fileno(), raw)
        except OSError as error:
            raise refused("ask about a link", error) from error
        return LinkInfo.of(raw)

    def update(self, prog: Program, *, old: Program | None = None) -> None:
        """Put ``prog`` in the place of the link's program, with no packet unserved.

        :param old: only if this is the link's program now.
        :raises BpfError: ENOLINK the link is defunct, EPERM ``old`` is not its program, EEXIST
            ``prog`` stands elsewhere in the chain, EINVAL it has another type.
        """
        try:
            syscall.link_update(
                self.fileno(),
                prog.fileno(),
                None if old is None else old.fileno(),
                0 if old is None else BPF_F_REPLACE,
            )
        except OSError as error:
            number = error.errno or errno.EIO
            reason, hint = _UPDATE_REFUSALS.get(number, (None, None))
            raise BpfError(
                f"update link {self.id}",
                number,
                reason,
                hint=hint,
                code="replaced_meanwhile" if number == errno.EPERM else None,
            ) from error

    def detach(self) -> None:
        """Detach the program now, whoever else holds the link; the link becomes defunct.

        A link that is defunct already stays so.

        :raises BpfError: EOPNOTSUPP the kernel detaches no link of its type.

        Since Linux 5.9 (kernel/bpf/syscall.c: link_detach).
        """
        try:
            syscall.link_detach(self.fileno())
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise refused(f"detach link {self.id}", error) from error
            info = self.info()
            raise BpfError(
                f"detach link {info.id}",
                errno.EOPNOTSUPP,
                f"the kernel detaches no link of type {info.type_name}",
                hint="it ends when its last holder lets go of it: unpin it, end the processes that "
                "`netbpf link show` names",
            ) from error


_UPDATE_REFUSALS: dict[int, tuple[str, str | None]] = {
    errno.ENOLINK: (
        "the link is defunct: its device is gone or it was detached",
        "remove its pins, and attach anew",
    ),
    errno.EPERM: ("another program took the place meanwhile", "look again, then decide"),
    errno.EEXIST: (
        "the program is in the chain already, and each may be there once",
        "load it again to run it twice",
    ),
    errno.EINVAL: ("the program has another type than the one in its place", None),
}
