"""The errors that netbpf raises, and what an errno is called.

::

    NetbpfError                      .code .hint
    ├── KernelError                  .operation .errno .reason
    │   ├── BpfError                 bpf(2) refused
    │   │   ├── VerifierError        .log
    │   │   └── StaleRevisionError   .expected .current
    │   └── NetlinkError             .extack
    ├── NotSupportedError            .feature .since
    ├── NotFoundError                .kind .name
    ├── AmbiguousError               .kind .name .matches
    ├── ConflictError                what was asked for stands in the way of something else
    ├── ObjectFileError              .path .section
    └── CaptureError                 .path .packet

A caller's mistake (a wrong type, a value that cannot mean anything) is a TypeError or a ValueError.
"""

from __future__ import annotations

import errno as _errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CODES: dict[int, str] = {
    _errno.EPERM: "not_permitted",
    _errno.EACCES: "refused",
    _errno.EEXIST: "exists",
    _errno.ESTALE: "stale_revision",
    _errno.EBUSY: "busy",
    _errno.EAGAIN: "try_again",
    _errno.ENODEV: "no_such_device",
    _errno.ENXIO: "wrong_device",
    _errno.EROFS: "read_only",
    _errno.ENOENT: "not_found",
    _errno.ENOLINK: "defunct_link",
    _errno.ERANGE: "out_of_range",
    _errno.EINVAL: "invalid",
    _errno.EOPNOTSUPP: "operation_not_supported",
    _errno.ENOSPC: "no_space",
    _errno.ENOMEM: "no_memory",
    _errno.E2BIG: "too_many",
}
"""The stable code of an errno, where a raiser has none that says more."""


def errno_name(number: int) -> str:
    """The name of an errno as the kernel's headers spell it (``EEXIST``), or its number."""
    # EOPNOTSUPP and ENOTSUP share a number; the kernel's word is the first.
    if number == _errno.EOPNOTSUPP:
        return "EOPNOTSUPP"
    if number == 524:
        return "ENOTSUPP"
    return _errno.errorcode.get(number, f"errno {number}")


class NetbpfError(Exception):
    """The root of all that netbpf raises on purpose.

    ``code`` is a stable snake_case word for programs, ``hint`` says what to do next.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class KernelError(NetbpfError):
    """The kernel refused ``operation`` with ``errno`` (a positive number).

    :param reason: the condition that held; without it the C library's text for the errno.
    """

    def __init__(
        self,
        operation: str,
        errno: int,
        reason: str | None = None,
        *,
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        self.operation = operation
        self.errno = errno
        self.reason = reason or os.strerror(errno)
        if errno == 524 and reason is None:
            self.reason = "operation is not supported"
        super().__init__(
            f"{operation}: {self.reason} ({errno_name(errno)})",
            hint=hint,
            code=code or CODES.get(errno, "kernel_error"),
        )


class BpfError(KernelError):
    """bpf(2) refused."""


class VerifierError(BpfError):
    """The verifier refused a program; ``log`` is the whole verifier log."""

    def __init__(
        self,
        operation: str,
        errno: int,
        reason: str | None = None,
        *,
        hint: str | None = None,
        code: str | None = None,
        log: str = "",
    ) -> None:
        super().__init__(operation, errno, reason, hint=hint, code=code or "verifier")
        self.log = log


class StaleRevisionError(BpfError):
    """The chain is not at revision ``expected``; ``current`` is its revision now, if known.

    ``expected`` is None where the caller named none, and the chain changed at every try.
    ``changes`` says what happened since, a phrase each ("came: first (id:42) at position 0"), where
    the chain is known that was at ``expected``; ``now`` is what it holds, where it is not.
    """

    def __init__(
        self,
        operation: str,
        *,
        expected: int | None,
        current: int | None = None,
        changes: Sequence[str] = (),
        now: str | None = None,
    ) -> None:
        self.expected = expected
        self.current = current
        self.changes = tuple(changes)
        is_at = "" if current is None else f", it is at {current} now"
        reason = (
            f"the chain is not at revision {expected}{is_at}"
            if expected is not None
            else f"others keep changing the chain{is_at}"
        )
        if changes:
            reason += f"; {'; '.join(changes)}"
        elif now is not None:
            reason += f"; now there are: {now}" if now else "; now it is empty"
        super().__init__(
            operation, _errno.ESTALE, reason, hint="look at the chain again, then decide"
        )


class NetlinkError(KernelError):
    """Netlink refused; ``extack`` is the kernel's own text, when it gave one."""

    def __init__(
        self,
        operation: str,
        errno: int,
        reason: str | None = None,
        *,
        hint: str | None = None,
        code: str | None = None,
        extack: str | None = None,
    ) -> None:
        super().__init__(operation, errno, reason or extack, hint=hint, code=code)
        self.extack = extack


class NotSupportedError(NetbpfError):
    """This kernel lacks ``feature``; ``since`` is the release that brought it, when known.

    :param config: the kernel option that it depends on.
    """

    code = "not_supported"

    def __init__(
        self,
        feature: str,
        *,
        since: str | None = None,
        config: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.feature = feature
        self.since = since
        self.config = config
        needs = [f"Linux {since} or later"] if since else []
        needs += [config] if config else []
        super().__init__(
            f"{feature} is not supported by this kernel ({os.uname().release})"
            + (f": it needs {' with '.join(needs)}" if needs else ""),
            hint=hint,
        )


class NotFoundError(NetbpfError):
    """There is no ``kind`` called ``name``."""

    code = "not_found"

    def __init__(
        self, kind: str, name: str, *, where: str | None = None, hint: str | None = None
    ) -> None:
        self.kind = kind
        self.name = name
        super().__init__(f"no {kind} {name}" + (f" {where}" if where else ""), hint=hint)


class AmbiguousError(NetbpfError):
    """More than one ``kind`` answers to ``name``; ``matches`` says which."""

    code = "ambiguous"

    def __init__(self, kind: str, name: str, matches: Sequence[str]) -> None:
        self.kind = kind
        self.name = name
        self.matches = tuple(matches)
        super().__init__(
            f"{name} could be any of {len(self.matches)} {kind}s: {', '.join(self.matches)}",
            hint="name one of them",
        )


class ConflictError(NetbpfError):
    """What was asked for meets something that is already there."""

    code = "conflict"


class ObjectFileError(NetbpfError):
    """The object file at ``path`` cannot be used; ``section`` is where, when one is to blame."""

    code = "object_file"

    def __init__(
        self, path: str, reason: str, *, section: str | None = None, hint: str | None = None
    ) -> None:
        self.path = path
        self.section = section
        where = f"{path}: section {section}" if section else path
        super().__init__(f"{where}: {reason}", hint=hint)


class CaptureError(NetbpfError):
    """The capture at ``path`` cannot be read or written; ``packet`` is where, counted from 0."""

    code = "capture"

    def __init__(
        self, path: str, reason: str, *, packet: int | None = None, hint: str | None = None
    ) -> None:
        self.path = path
        self.packet = packet
        where = path if packet is None else f"{path}: packet {packet}"
        super().__init__(f"{where}: {reason}", hint=hint)
