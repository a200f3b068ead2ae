"""Which exit status an error ends in."""

from __future__ import annotations

import errno

from netbpf.errors import (
    ConflictError,
    KernelError,
    NetbpfError,
    NotSupportedError,
    StaleRevisionError,
)

DONE = 0
REFUSED = 1
USAGE = 2
NOT_SUPPORTED = 3
NOT_PERMITTED = 4
CONFLICT = 5
CHANGES_PENDING = 6
INTERRUPTED = 130

_CONFLICTS = frozenset({errno.EEXIST, errno.EBUSY, errno.ESTALE})


def of(error: BaseException) -> int:
    """The exit status for an error that ends a command."""
    match error:
        case NotSupportedError():
            return NOT_SUPPORTED
        case ConflictError() | StaleRevisionError():
            return CONFLICT
        case NetbpfError(code="not_permitted"):
            return NOT_PERMITTED
        case NetbpfError(code="replaced_meanwhile" | "exists"):
            return CONFLICT
        case KernelError(errno=number) if number in _CONFLICTS:
            return CONFLICT
        case KeyboardInterrupt():
            return INTERRUPTED
        case ValueError() | TypeError():
            return USAGE
        case PermissionError(errno=errno.EPERM):
            return NOT_PERMITTED
    return REFUSED
