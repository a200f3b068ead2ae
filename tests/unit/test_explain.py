"""What an errno means: the table is whole, and finds its way from what is typed."""

from __future__ import annotations

import errno

import pytest

from netbpf.bpf.mprog_conditions import ROWS
from netbpf.plumbing.explain import OPERATIONS, explain, number_of
from tests.netns_fixtures.cli import netbpf, ok


@pytest.mark.parametrize("text", ["ESTALE", "estale", "116", "-116"])
def test_an_errno_is_written_by_name_or_number(text: str) -> None:
    assert number_of(text) == errno.ESTALE


@pytest.mark.parametrize("text", ["", "EFOO", "0", "9999", "17x", "1 7", "٣", "--"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no errno"):
        number_of(text)


def test_the_kernels_own() -> None:
    assert number_of("ENOTSUPP") == 524
    assert number_of("EOPNOTSUPP") == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    ("operation", "names"),
    [
        (
            "attach",
            "ESTALE EEXIST ENOENT EBUSY ERANGE EINVAL EAGAIN ENODEV ENXIO EACCES EOPNOTSUPP ENOMEM",
        ),
        ("detach", "ESTALE ENOENT EBUSY ERANGE EPERM ENODEV"),
        ("update", "ESTALE EEXIST ENOLINK EPERM EINVAL"),
        ("show", "EPERM ENODEV EINVAL EACCES"),
        ("netkit-add", "EOPNOTSUPP EINVAL EADDRNOTAVAIL EPERM EEXIST"),
        ("netkit-set", "EACCES EOPNOTSUPP ENOTCONN"),
        ("lease-add", "EPERM ENODEV ENONET ERANGE EINVAL EBUSY EOPNOTSUPP ENOMEM"),
    ],
)
def test_every_errno_of_an_operation_is_known(operation: str, names: str) -> None:
    for name in names.split():
        found = explain(number_of(name), operation)
        assert found, name
        assert all(each.when and each.source for each in found)


def test_the_rows_name_operations_that_can_be_asked_about() -> None:
    assert {operation for row in ROWS for operation in row.operations} <= set(OPERATIONS)


def test_the_command() -> None:
    document = ok("explain", "EBUSY", "--for", "lease-add")
    assert (document["errno"], document["number"]) == ("EBUSY", 16)
    assert "Device queue in use by AF_XDP" in {each["extack"] for each in document["conditions"]}
    assert ok("explain", "EXDEV")["conditions"] == []
    said = netbpf("explain", "ESTALE").out
    assert said.startswith("attach, detach, update: ")
    for arguments in (("EFOO",), ("EPERM", "--for", "flying"), ()):
        assert netbpf("explain", *arguments).status == 2
