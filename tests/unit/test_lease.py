"""Leases without a kernel: words, documents, messages as bytes, what a refusal means."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from netbpf.cli.lease import queue_of
from netbpf.errors import NotSupportedError
from netbpf.netkit import lease, lease_refusal
from netbpf.netkit.lease_model import End, Lease, Survey, Unknown
from netbpf.netlink import netdev
from netbpf.netlink.rtnl import Refusal
from tests.netns_fixtures.rawlink import attributes

NK = End("nk0", 7, None, 1)
NIC = End("eth0", 2, "host", 3)


@pytest.mark.parametrize(
    ("text", "found"),
    [("eth0:3", ("eth0", 3)), ("eth0:0", ("eth0", 0)), ("en:p1:12", ("en:p1", 12))],
)
def test_queues_are_written_with_a_colon(text: str, found: tuple[str, int]) -> None:
    assert queue_of(text) == found


@pytest.mark.parametrize("text", ["eth0", "eth0:", ":3", "eth0:-1", "eth0:x", "eth0:٣", "", ":"])
def test_what_is_no_queue(text: str) -> None:
    with pytest.raises(ValueError, match="NIC:QUEUE"):
        queue_of(text)


def test_the_document_of_a_lease() -> None:
    document = Lease(NK, NIC, "io-uring").as_json()
    assert document == {
        "netkit": {"device": "nk0", "ifindex": 7, "netns": None, "queue": 1},
        "nic": {"device": "eth0", "ifindex": 2, "netns": "host", "queue": 3},
        "user": "io-uring",
    }
    assert Lease(NK, None, None).as_json()["nic"] is None


def test_the_namespace_of_the_asker_is_filled_in() -> None:
    seen = Lease(NK, NIC, None).seen_from("pod")
    assert seen.nic is not None
    assert (seen.netkit.netns, seen.nic.netns) == ("pod", "host")
    assert Lease(NK, None, None).seen_from("pod").nic is None
    assert Lease(NK, NIC, None).seen_from(None) == Lease(NK, NIC, None)


def test_a_survey_is_narrowed_to_a_device() -> None:
    one, two = Lease(NK, NIC, None), Lease(End("nk1", 8, None, 1), None, None)
    gap = Unknown("nk1", None, "why")
    whole = Survey((one, two), (gap,))
    assert lease.of_device(whole, None) is whole
    assert lease.of_device(whole, "eth0") == Survey((one,), ())
    assert lease.of_device(whole, "nk1") == Survey((two,), (gap,))


@pytest.mark.parametrize(
    ("number", "extack", "code"),
    [
        # netdevsim has no memory provider that would provoke this one in the lab.
        (errno.EBUSY, "Device queue in use by memory provider", "queue_memory_provider"),
        (errno.EBUSY, "Device queue in use by AF_XDP", "queue_af_xdp"),
        (
            errno.EINVAL,
            "Lease device does not support queue management operations",
            "nic_no_queue_management",
        ),
        (errno.EINVAL, "Lease device has been removed from the system", "nic_removed"),
        (errno.EINVAL, "Device must have at least one real queue", "no_real_queue"),
        (errno.ENONET, None, "no_such_namespace"),
        (errno.ENODEV, None, "no_such_device"),
        (errno.ENOMEM, None, "no_memory"),
        (errno.EPERM, None, "not_permitted"),
        (errno.EINVAL, "something new", "refused"),
    ],
)
def test_a_refusal_keeps_the_kernels_words(number: int, extack: str | None, code: str) -> None:
    error = lease_refusal.explained("lease eth0:3 to nk0", Refusal(number, extack), "left")
    assert (error.errno, error.extack, error.code) == (number, extack, code)
    assert (extack or "") in error.message
    assert str(error.hint).startswith("left")


class _Family:
    """Stands in for the socket: keeps the request, gives the answer."""

    def __init__(self, answers: list[dict[int, bytes]], commands: set[int]) -> None:
        self.answers, self.commands = answers, commands
        self.asked: tuple[int, bytes] = (0, b"")

    def call(self, command: int, request: bytes) -> list[dict[int, bytes]]:
        self.asked = (command, request)
        if command not in self.commands:
            raise Refusal(errno.EOPNOTSUPP)
        return self.answers

    def has(self, command: int) -> bool:
        return command in self.commands


def test_the_request_for_a_lease() -> None:
    family: Any = _Family([{1: struct.pack("=I", 5)}], {netdev.QUEUE_CREATE})
    assert netdev.create_queue(family, 7, 2, 3, 4) == 5
    command, request = family.asked
    assert command == 16
    sent = attributes(request)
    assert (sent[2], sent[3]) == (struct.pack("=I", 7), struct.pack("=I", 0))
    nest = attributes(sent[8])
    assert (nest[1], nest[3]) == (struct.pack("=I", 2), struct.pack("=i", 4))
    assert attributes(nest[2]) == {1: struct.pack("=I", 3), 3: struct.pack("=I", 0)}
    # Both nests say that they are nests: the kernel checks it.
    assert struct.pack("=H", 8 | 0x8000) in request
    assert struct.pack("=H", 2 | 0x8000) in request
    netdev.create_queue(family, 7, 2, 3, None)
    assert 3 not in attributes(attributes(family.asked[1])[8])


def test_a_kernel_without_the_command() -> None:
    family: Any = _Family([], set())
    with pytest.raises(NotSupportedError, match=r"7\.1"):
        netdev.create_queue(family, 7, 2, 3, None)
