"""Errors: their words, codes and exit statuses; the exit status of each kind is a contract."""

from __future__ import annotations

import errno

import pytest

from netbpf.cli import exit_status
from netbpf.errors import (
    AmbiguousError,
    BpfError,
    CaptureError,
    ConflictError,
    KernelError,
    NetbpfError,
    NetlinkError,
    NotFoundError,
    NotSupportedError,
    ObjectFileError,
    StaleRevisionError,
    VerifierError,
    errno_name,
)


def test_words() -> None:
    error = BpfError(
        "attach to eth0 ingress",
        errno.EEXIST,
        "already in the chain at position 2",
        hint="load it again to run it twice",
    )
    assert str(error) == (
        "attach to eth0 ingress: already in the chain at position 2 (EEXIST): "
        "load it again to run it twice"
    )
    assert error.code == "exists"


def test_extack_is_verbatim() -> None:
    error = NetlinkError("add nk0", errno.EINVAL, extack="Unknown device type")
    assert error.message == "add nk0: Unknown device type (EINVAL)"
    assert error.extack == "Unknown device type"


def test_errno_names_are_the_kernels() -> None:
    assert errno_name(errno.EOPNOTSUPP) == "EOPNOTSUPP"
    assert errno_name(524) == "ENOTSUPP"
    assert errno_name(9999) == "errno 9999"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotSupportedError("tcx", since="6.6"), 3, "not_supported"),
        (BpfError("x", errno.EPERM), 4, "not_permitted"),
        (NetlinkError("x", errno.EPERM), 4, "not_permitted"),
        (BpfError("x", errno.EEXIST), 5, "exists"),
        (BpfError("x", errno.EBUSY), 5, "busy"),
        (StaleRevisionError("x", expected=3, current=4), 5, "stale_revision"),
        (BpfError("x", errno.EPERM, code="replaced_meanwhile"), 5, "replaced_meanwhile"),
        (ConflictError("x"), 5, "conflict"),
        (KernelError("x", errno.EACCES), 1, "refused"),
        (BpfError("x", errno.EINVAL), 1, "invalid"),
        (VerifierError("x", errno.EACCES), 1, "verifier"),
        (NotFoundError("device", "eth9"), 1, "not_found"),
        (AmbiguousError("program", "name:x", ["id:1", "id:2"]), 1, "ambiguous"),
        (ObjectFileError("x.o", "truncated"), 1, "object_file"),
        (CaptureError("x.pcap", "truncated", packet=3), 1, "capture"),
        (NetbpfError("x"), 1, "error"),
    ],
)
def test_exit_status(error: NetbpfError, status: int, code: str) -> None:
    assert exit_status.of(error) == status
    assert error.code == code


def test_exit_status_of_others() -> None:
    assert exit_status.of(ValueError("x")) == 2
    assert exit_status.of(KeyboardInterrupt()) == 130
    assert exit_status.of(PermissionError(errno.EPERM, "x")) == 4
    assert exit_status.of(OSError(errno.EIO, "x")) == 1
