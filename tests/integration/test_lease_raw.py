"""Requests for a lease that no command of netbpf makes: the kernel's answers, and their words."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from netbpf.netkit.lease_refusal import explained
from netbpf.netlink import netdev, nsids
from netbpf.netlink.netdev import Netdev
from netbpf.netlink.rtnl import Refusal
from netbpf.netns import entered
from tests.netns_fixtures.devices import netkit_single, rtnl_in
from tests.netns_fixtures.leases import Bench, bench

pytestmark = [pytest.mark.needs("netkit-single"), pytest.mark.needs("netdevsim")]


@pytest.fixture
def nic() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.mark.parametrize(
    ("ours", "theirs", "queue", "nsid", "number", "code"),
    [
        (9999, None, 1, None, errno.ENODEV, "no_such_device"),
        (None, 9999, 1, None, errno.ENODEV, "no_such_device"),
        (None, None, 1, 4242, errno.ENONET, "no_such_namespace"),
        (None, None, 99, None, errno.ERANGE, "queue_out_of_range"),
        (0, None, 1, None, errno.ERANGE, "queue_out_of_range"),
    ],
)
def test_the_kernel_refuses(
    nic: Bench,
    ours: int | None,
    theirs: int | None,
    queue: int,
    nsid: int | None,
    number: int,
    code: str,
) -> None:
    with netkit_single(nic.pod, rx_queues=2) as device:
        with rtnl_in(nic.pod) as rtnl:
            known = nsids.ensure(rtnl, nic.host)
        with entered(nic.pod), Netdev() as family, pytest.raises(Refusal) as caught:
            netdev.create_queue(
                family,
                device.ifindex if ours is None else ours,
                nic.nic_ifindex if theirs is None else theirs,
                queue,
                known if nsid is None else nsid,
            )
        assert caught.value.errno == number
        assert explained("lease", caught.value).code == code
        with entered(nic.host), Netdev() as family:
            assert all(found.lessee is None for found in netdev.queues(family, nic.nic_ifindex))
