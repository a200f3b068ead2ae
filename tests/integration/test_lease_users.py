"""Who uses a leased queue: AF_XDP and io_uring, as far as the NIC at hand lets them.

netdevsim has neither zero-copy AF_XDP nor a device that can do DMA: what the kernel says then is
held here. The same on a real NIC: docs/hardware.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from netbpf.errors import NetlinkError
from netbpf.netkit import lease
from netbpf.netns import NetNS, entered
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.devices import netkit_pair, netkit_single
from tests.netns_fixtures.leases import Bench, bench, ifindex, set_up
from tests.netns_fixtures.zerocopy import COPY, ZEROCOPY, xdp_socket, zero_copy_receive

NIC = os.environ.get("NETBPF_TEST_NIC")
"""A real NIC, and the queue of it to use: ``eth0:3`` (docs/hardware.md)."""

on_netdevsim = [pytest.mark.needs("netkit-single"), pytest.mark.needs("netdevsim")]


@pytest.fixture
def nic() -> Iterator[Bench]:
    with bench() as made:
        yield made


class TestNetdevsim:
    pytestmark = on_netdevsim

    def test_an_af_xdp_socket_through_the_lease_is_seen_at_the_nic(self, nic: Bench) -> None:
        with netkit_single(nic.pod, "nk0", rx_queues=3, up=True) as made:
            with entered(nic.pod):
                lease.add("nk0", nic.nic, 1, nic_netns=nic.host, count=2)
            users = [each["user"] for each in ok("lease", "show")["leases"]]
            assert users == [None, None]
            with xdp_socket(nic.pod, made.ifindex, 2, COPY):
                users = [each["user"] for each in ok("lease", "show")["leases"]]
                assert users == [None, "xsk"]
                # Also from the guest's side, where the NIC's is out of sight.
                nic.up(False)
                hidden = ok("lease", "show")["leases"]
                assert [(each["nic"], each["user"]) for each in hidden] == [
                    (None, None),
                    (None, "xsk"),
                ]
                nic.up()
                # A lease in use is not cut off for another's sake.
                result = netbpf("-j", "lease", "del", "-n", nic.pod.name, "nk0:1", "--recreate")
                assert (result.status, result.error["code"]) == (5, "conflict")
                assert "nk0:2" in result.error["message"]
                assert "xsk" in result.error["message"]
            assert ok("lease", "del", "-n", nic.pod.name, "nk0:1", "--recreate")["deleted"]
            with entered(nic.pod):
                from netbpf.netkit import device

                device.delete("nk0")

    def test_a_queue_that_af_xdp_has_is_not_leased(self, nic: Bench) -> None:
        with (
            netkit_single(nic.pod, "nk0", rx_queues=8),
            xdp_socket(nic.host, nic.nic_ifindex, 1, COPY),
        ):
            for up in (True, False):
                nic.up(up)
                with entered(nic.pod):
                    findings = lease.check("nk0", nic.nic, 1, nic_netns=nic.host)
                    (found,) = [each for each in findings if each.blocks]
                    assert (found.code, found.extack) == (
                        "queue_af_xdp",
                        "Device queue in use by AF_XDP",
                    )
                    for count in (1, 2):
                        with pytest.raises(NetlinkError) as refused:
                            lease.add("nk0", nic.nic, 1, nic_netns=nic.host, count=count)
                        assert refused.value.errno == errno.EBUSY
                        assert refused.value.extack == "Device queue in use by AF_XDP"
                        assert "close that socket" in str(refused.value.hint)
                    assert lease.add("nk0", nic.nic, 2 + up, nic_netns=nic.host)

    def test_a_leased_queue_is_not_had_by_way_of_the_nic(self, nic: Bench) -> None:
        with netkit_single(nic.pod, "nk0", rx_queues=3, up=True):
            with entered(nic.pod):
                lease.add("nk0", nic.nic, 1, nic_netns=nic.host)
            with (
                pytest.raises(OSError, match="busy") as refused,
                xdp_socket(nic.host, nic.nic_ifindex, 1, COPY),
            ):
                pass
            assert refused.value.errno == errno.EBUSY

    @pytest.mark.parametrize("single", [True, False])
    def test_zero_copy_af_xdp_is_refused_as_check_says(self, nic: Bench, single: bool) -> None:
        made = (
            netkit_single(nic.pod, "nk0", rx_queues=2, up=True)
            if single
            else netkit_pair(nic.host, nic.pod, names=("nkp", "nk0"), peer_rx_queues=2)
        )
        with made, entered(nic.pod):
            codes = {
                found.code
                for found in lease.check("nk0", nic.nic, 1, nic_netns=nic.host, purpose="af-xdp")
            }
            assert codes == ({"no_zero_copy"} if single else {"no_zero_copy", "pair_for_af_xdp"})
            lease.add("nk0", nic.nic, 1, nic_netns=nic.host)
            with (
                pytest.raises(OSError) as refused,
                xdp_socket(nic.pod, ifindex(nic.pod, "nk0"), 1, ZEROCOPY),
            ):
                pass
            assert refused.value.errno == errno.EOPNOTSUPP

    def test_io_uring_is_refused_for_want_of_dma(self, nic: Bench) -> None:
        with netkit_single(nic.pod, "nk0", rx_queues=2, up=True) as made:
            with entered(nic.pod):
                lease.add("nk0", nic.nic, 1, nic_netns=nic.host)
            for ns, number, queue in (
                (nic.pod, made.ifindex, 1),
                (nic.host, nic.nic_ifindex, 2),
            ):
                with pytest.raises(OSError) as refused, zero_copy_receive(ns, number, queue):
                    pass
                # zcrx_register_netdev (io_uring/zcrx.c): netdevsim's parent has no dma_mask.
                assert refused.value.errno == errno.EOPNOTSUPP


@pytest.mark.needs("netkit-single")
@pytest.mark.real_nic
class TestRealNic:
    def test_io_uring_receives_through_the_lease(self, ns: NetNS) -> None:
        name, queue = str(NIC).rsplit(":", 1)
        with netkit_single(ns, "nk0", rx_queues=2, up=True) as made, NetNS.current() as first:
            set_up(first, name)
            # Not /proc/self/ns/net: netbpf has entered the other namespace when it reads that.
            where = (
                "-n",
                ns.name,
                "nk0",
                str(NIC),
                "--nic-netns",
                f"/proc/self/fd/{first.fileno()}",
            )
            found = netbpf("-j", "lease", "check", *where, "--for", "io-uring")
            assert found.status == 0, found.out
            ok("lease", "add", *where)
            with zero_copy_receive(ns, made.ifindex, 1):
                (shown,) = ok("lease", "show", "nk0")["leases"]
                assert (shown["nic"]["queue"], shown["user"]) == (int(queue), "io-uring")
            (shown,) = ok("lease", "show", "nk0")["leases"]
            assert shown["user"] is None

    def test_af_xdp_without_copies_through_the_lease(self, ns: NetNS) -> None:
        with netkit_single(ns, "nk0", rx_queues=2, up=True) as made, NetNS.current() as first:
            where = (
                "-n",
                ns.name,
                "nk0",
                str(NIC),
                "--nic-netns",
                f"/proc/self/fd/{first.fileno()}",
            )
            found = netbpf("-j", "lease", "check", *where, "--for", "af-xdp")
            codes = [each["code"] for each in found.json["findings"]]
            ok("lease", "add", *where)
            if "no_zero_copy" in codes:
                with pytest.raises(OSError), xdp_socket(ns, made.ifindex, 1, ZEROCOPY):
                    pass
                return
            with xdp_socket(ns, made.ifindex, 1, ZEROCOPY):
                assert ok("lease", "show", "nk0")["leases"][0]["user"] == "xsk"
