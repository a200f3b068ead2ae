"""Netkit devices on a kernel that has them: what was asked for is what the kernel does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netbpf import netns
from netbpf.errors import NetlinkError, NotFoundError, NotSupportedError
from netbpf.netkit import device, request
from netbpf.netlink import links
from tests.netns_fixtures import devices, rawlink
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.packets import Sniffer, ping, send_udp

needs_netkit = pytest.mark.needs("netkit")


def shown(ns, name):
    """What ``ip -d link`` says of a device."""
    return json.loads(run(ns, ["ip", "-d", "-j", "link", "show", name]).stdout)[0]


def names(ns):
    """The devices of a namespace, as ``ip`` sees them."""
    out = run(ns, ["ip", "-br", "link"]).stdout
    return sorted(line.split()[0].split("@")[0] for line in out.splitlines())


def test_not_supported_is_said_where_the_kernel_does_not_know_the_kind(ns):
    """By a second witness: iproute2 asks for the bare kind."""
    witness = run(ns, ["ip", "link", "add", "w0", "type", "netkit"], check=False)
    with netns.entered(ns):
        if "Unknown device type" in witness.stderr:
            with pytest.raises(NotSupportedError) as caught:
                device.add("nk7")
            assert caught.value.feature == "netkit"
            assert caught.value.since == "6.7"
            assert "CONFIG_NETKIT" in str(caught.value)
        else:
            assert device.add("nk7").name == "nk7"


@needs_netkit
@pytest.mark.parametrize(
    ("settings", "attribute"),
    [
        ({"name": "nk0", "single": True}, rawlink.PAIRING),
        ({"name": "alone", "single": True}, rawlink.PAIRING),
        ({"name": "nk0", "scrub": "none"}, rawlink.SCRUB),
        ({"name": "nk0", "headroom": 1}, rawlink.HEADROOM),
    ],
)
def test_a_later_attribute_is_there_or_refused_never_passed_over(ns, settings, attribute):
    """On every kernel with netkit; older ones ignore what they do not know."""
    wanted = 0 if attribute == rawlink.SCRUB else 1
    with netns.entered(ns):
        try:
            made = device.add(**settings)
        except NotSupportedError as error:
            assert error.since in ("7.1", "6.13", "6.14")
            assert names(ns) == ["lo"]
        else:
            assert rawlink.netkit(ns, made.ifindex)[attribute] == wanted


@needs_netkit
class TestPair:
    def test_a_packet_goes_through_and_both_ends_are_as_asked(self, two_ns):
        a, b = two_ns
        with netns.entered(a):
            made = device.add(
                "nk0",
                peer="eth0",
                peer_netns=b,
                rx_queues=2,
                peer_rx_queues=3,
                mtu=1400,
                addrs=["10.1.0.1/24"],
                peer_addrs=["10.1.0.2/24"],
                up=True,
            )
        assert ping(a, "10.1.0.2", count=3) == 3
        assert ping(b, "10.1.0.1", count=3) == 3
        for ns, name, queues, address in ((a, "nk0", 2, "10.1.0.1"), (b, "eth0", 3, "10.1.0.2")):
            link = shown(ns, name)
            assert link["linkinfo"]["info_kind"] == "netkit"
            assert link["mtu"] == 1400
            assert link["num_rx_queues"] == queues
            assert "UP" in link["flags"]
            found = json.loads(run(ns, ["ip", "-j", "addr", "show", name]).stdout)[0]
            assert found["addr_info"][0]["local"] == address
            assert found["addr_info"][0]["prefixlen"] == 24
        assert made.addrs == ("10.1.0.1/24",)
        assert made.peer is not None
        assert (made.peer.name, made.peer.netns) == ("eth0", b.name)

    def test_the_document_has_the_keys_of_the_contract(self, netkit):
        primary, _ = netkit
        with netns.entered(primary.ns):
            document = device.get(primary.name).as_json()
        assert " ".join(document) == (
            "name ifindex netns pairing primary mode policy scrub headroom tailroom rx_queues "
            "mtu mac up state group alias unfinished addrs peer leases"
        )
        assert " ".join(document["peer"]) == (
            "name ifindex netns policy scrub rx_queues mtu mac up state group alias addrs"
        )
        json.dumps(document)

    def test_the_peer_sees_the_primary(self, netkit):
        primary, peer = netkit
        with netns.entered(peer.ns):
            seen = device.get(peer.name)
        assert not seen.primary
        assert seen.peer is not None
        assert (seen.peer.name, seen.peer.ifindex) == (primary.name, primary.ifindex)
        assert seen.peer.netns == primary.ns.name

    @pytest.mark.parametrize("side", ["policy", "peer_policy"])
    def test_a_policy_holds_for_its_own_side(self, two_ns, side):
        a, b = two_ns
        with devices.netkit_pair(a, b, **{side: "blackhole"}) as (primary, peer):
            own = (a, primary.name, peer) if side == "policy" else (b, peer.name, primary)
            raw = rawlink.netkit(a, primary.ifindex)
            wanted = (2, 0) if side == "policy" else (0, 2)
            assert (raw[rawlink.POLICY], raw[rawlink.PEER_POLICY]) == wanted
            # What leaves the side with the policy never arrives; the other way it does.
            for ns, target, arrives in (
                (own[0], own[2], 0),
                (own[2].ns, primary if side == "policy" else peer, 1),
            ):
                with Sniffer(target.ns, target.name, b"marker") as sniffer:
                    send_udp(ns, target.address, 9, b"marker")
                    assert len(sniffer.receive(1, timeout=0.5)) == arrives
            assert ping(a, peer.address) == 0
            with netns.entered(a):
                changed = device.set(primary.name, **{side: "forward"})
            assert (changed.policy, changed.peer.policy) == ("forward", "forward")
            assert ping(a, peer.address) == 1
            with netns.entered(a):
                device.set(primary.ifindex, **{side: "blackhole"})
            assert ping(a, peer.address) == 0

    def test_l2_has_the_macs_asked_for(self, two_ns):
        a, b = two_ns
        with devices.netkit_pair(
            a, b, mode="l2", mac="02:00:00:00:00:aa", peer_mac="02:00:00:00:00:bb"
        ) as (primary, peer):
            assert shown(a, primary.name)["address"] == "02:00:00:00:00:aa"
            assert shown(b, peer.name)["address"] == "02:00:00:00:00:bb"
            assert rawlink.netkit(a, primary.ifindex)[rawlink.MODE] == 0
            assert ping(a, peer.address) == 1
            assert "02:00:00:00:00:bb" in run(a, ["ip", "neigh"]).stdout
            with netns.entered(a):
                device.set(primary.name, mac="02:00:00:00:00:cc")
            assert shown(a, primary.name)["address"] == "02:00:00:00:00:cc"

    def test_an_unnamed_peer_gets_the_first_free_number(self, ns):
        with netns.entered(ns):
            first = device.add("nk0")
            assert (first.peer.name, first.peer.netns) == ("nk1", None)
            assert device.add("nk3").peer.name == "nk2"
            assert device.add("uplink").peer.name == "nk4"
            template = device.add("tap%d")
            assert template.name == "tap0"
        assert names(ns) == ["lo", "nk0", "nk1", "nk2", "nk3", "nk4", "nk5", "tap0", "uplink"]

    def test_the_own_namespace_as_peer_netns_is_no_other(self, ns):
        with netns.entered(ns):
            made = device.add("nk0", peer_netns=ns)
            assert (made.peer.name, made.peer.netns) == ("nk1", None)
            with pytest.raises(ValueError, match="both ends cannot be called x"):
                device.add("x", peer="x", peer_netns=ns.name)

    @pytest.mark.needs("netkit-scrub")
    def test_scrub_is_set_at_each_end(self, two_ns):
        a, b = two_ns
        for scrub, peer_scrub, wanted in (
            ("none", None, (0, 1)),
            (None, "none", (1, 0)),
            ("default", "default", (1, 1)),
        ):
            with devices.netkit_pair(a, b, scrub=scrub, peer_scrub=peer_scrub) as (primary, peer):
                raw = rawlink.netkit(a, primary.ifindex)
                assert (raw[rawlink.SCRUB], raw[rawlink.PEER_SCRUB]) == wanted
                other = rawlink.netkit(b, peer.ifindex)
                assert (other[rawlink.PEER_SCRUB], other[rawlink.SCRUB]) == wanted

    @pytest.mark.needs("netkit-headroom")
    def test_headroom_and_tailroom_hold_at_both_ends(self, two_ns):
        a, b = two_ns
        with devices.netkit_pair(a, b, headroom=64, tailroom=32) as (primary, peer):
            for ns, ifindex in ((a, primary.ifindex), (b, peer.ifindex)):
                raw = rawlink.netkit(ns, ifindex)
                assert (raw[rawlink.HEADROOM], raw[rawlink.TAILROOM]) == (64, 32)
            with netns.entered(b):
                assert (device.get("eth0").headroom, device.get("eth0").tailroom) == (64, 32)

    def test_a_peer_in_a_namespace_without_a_name(self, ns):
        sleeper = subprocess.Popen(["unshare", "--net", "sleep", "60"], stdin=subprocess.DEVNULL)
        try:
            own = os.stat("/proc/self/ns/net").st_ino
            deadline = time.monotonic() + 10
            while os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino == own:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with netns.entered(ns):
                made = device.add("nk0", peer="inside", peer_netns=f"pid:{sleeper.pid}")
            assert (made.peer.name, made.peer.netns) == ("inside", f"pid:{sleeper.pid}")
        finally:
            sleeper.kill()
            sleeper.wait()

    def test_the_death_of_the_guest_takes_the_host_end_along(self, ns):
        from tests.netns_fixtures.namespaces import namespace

        with namespace() as guest, netns.entered(ns):
            device.add("nk0", peer="eth0", peer_netns=guest)
            assert names(ns) == ["lo", "nk0"]
        deadline = time.monotonic() + 10
        while names(ns) != ["lo"]:
            assert time.monotonic() < deadline, "the host end outlived its guest"
            time.sleep(0.05)
        with netns.entered(ns):
            assert device.show() == []


@pytest.mark.needs("netkit-single")
class TestSingle:
    def test_a_single_device_has_queues_and_no_peer(self, ns):
        with devices.netkit_single(ns, "nk0", rx_queues=4) as made:
            assert rawlink.netkit(ns, made.ifindex)[rawlink.PAIRING] == 1
            assert shown(ns, "nk0")["num_rx_queues"] == 4
            assert names(ns) == ["lo", "nk0"]
            assert (made.pairing, made.peer, made.rx_queues) == ("single", None, 4)

    def test_addresses_and_up(self, ns):
        with devices.netkit_single(ns, "nk0", addrs=["10.3.0.1/24"], up=True):
            assert ping(ns, "10.3.0.1") == 1
            assert "UP" in shown(ns, "nk0")["flags"]

    def test_l2_has_its_mac(self, ns):
        with devices.netkit_single(ns, "nk0", mode="l2", mac="02:00:00:00:00:aa"):
            assert shown(ns, "nk0")["address"] == "02:00:00:00:00:aa"

    def test_it_has_no_policy(self, ns):
        refused = pytest.raises(NetlinkError, match="EOPNOTSUPP")
        with devices.netkit_single(ns, "nk0"), netns.entered(ns), refused:
            device.set("nk0", policy="blackhole")


@needs_netkit
class TestRefused:
    def test_the_taken_name_is_told(self, two_ns):
        a, b = two_ns
        with devices.netkit_pair(a, b, names=("nk0", "eth0")), netns.entered(a):
            with pytest.raises(NetlinkError, match=r"add nk0: there is a device nk0 here already"):
                device.add("nk0", peer="x")
            with pytest.raises(NetlinkError, match=rf"a device eth0 in {b.name} already"):
                device.add("nk9", peer="eth0", peer_netns=b.name)
            assert names(a) == ["lo", "nk0"]

    @pytest.mark.parametrize(
        ("settings", "errno_name"),
        [({"mtu": 20}, "EINVAL"), ({"mtu": 70000}, "EINVAL"), ({"rx_queues": 5000}, "EINVAL")],
    )
    def test_values_that_only_the_kernel_knows(self, ns, settings, errno_name):
        with netns.entered(ns), pytest.raises(NetlinkError, match=errno_name) as caught:
            device.add("nk0", **settings)
        if "mtu" in settings:
            assert caught.value.extack in str(caught.value)
            assert "mtu" in caught.value.extack
        assert names(ns) == ["lo"]

    @pytest.mark.needs("netkit-single")
    def test_more_queues_than_netkit_has(self, ns):
        with netns.entered(ns), pytest.raises(NetlinkError, match="at most 1024 rx queues"):
            device.add("nk0", rx_queues=1025)
        assert names(ns) == ["lo"]

    def test_the_peer_end_cannot_be_set(self, netkit):
        _, peer = netkit
        with netns.entered(peer.ns):
            with pytest.raises(NetlinkError, match="EACCES") as caught:
                device.set(peer.name, policy="blackhole")
            assert "primary" in caught.value.extack
            assert "name the primary device" in str(caught.value)

    def test_what_a_refused_set_changed_is_put_back(self, netkit):
        primary, peer = netkit
        with netns.entered(primary.ns), pytest.raises(NetlinkError, match="mtu"):
            device.set(primary.name, policy="blackhole", peer_policy="blackhole", mtu=20)
        raw = rawlink.netkit(primary.ns, primary.ifindex)
        assert (raw[rawlink.POLICY], raw[rawlink.PEER_POLICY]) == (0, 0)
        assert ping(primary.ns, peer.address) == 1

    def test_set_of_nothing_and_of_no_netkit(self, netkit):
        primary, _ = netkit
        with netns.entered(primary.ns):
            with pytest.raises(ValueError, match="nothing to change"):
                device.set(primary.name)
            with pytest.raises(NotFoundError, match="no netkit device lo"):
                device.set("lo", policy="forward")

    def test_without_capabilities_the_message_names_them(self, ns):
        script = (
            "import os, sys; from netbpf import netns; from netbpf.errors import KernelError\n"
            "from netbpf.netkit import device\n"
            "netns.enter_for_good(handle := netns.NetNS.from_name(sys.argv[1])); handle.close()\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: device.add('nk0')\n"
            "except KernelError as error: print(error.code, error)\n"
        )
        done = run(ns, [sys.executable, "-c", script, ns.name])
        assert done.stdout.startswith("not_permitted add nk0")
        assert "CAP_NET_ADMIN" in done.stdout
        assert names(ns) == ["lo"]


@needs_netkit
class TestNothingHalfMade:
    def test_a_refused_address(self, two_ns):
        """IPv6 is off in these namespaces, which the kernel says only when asked."""
        a, b = two_ns
        for side in ("addrs", "peer_addrs"):
            with netns.entered(a), pytest.raises(NetlinkError, match="the address fd00::1/64"):
                device.add(
                    "nk0", peer="eth0", peer_netns=b, **{side: ["10.0.0.1/24", "fd00::1/64"]}
                )
            assert names(a) == names(b) == ["lo"]

    @pytest.mark.parametrize("step", ["get", "change"])
    def test_an_interruption_between_the_steps(self, two_ns, monkeypatch, step):
        a, b = two_ns

        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(links, step, interrupted)
        with netns.entered(a), pytest.raises(KeyboardInterrupt):
            device.add("nk0", peer="eth0", peer_netns=b, up=True)
        assert names(a) == names(b) == ["lo"]

    def test_ctrl_c_at_any_moment(self, ns):
        """Forty tries, each a little later: an interrupted add leaves nothing, or a whole pair."""
        script = (
            "import os, signal, sys, threading\n"
            "from netbpf import netns; from netbpf.netkit import device\n"
            "with netns.NetNS.from_name(sys.argv[1]) as ns: netns.enter_for_good(ns)\n"
            "device.add('warm', up=True); device.delete('warm')\n"
            "interrupted = 0\n"
            "for number in range(40):\n"
            "    timer = threading.Timer(number * 0.0007, os.kill, (os.getpid(), signal.SIGINT))\n"
            "    try:\n"
            "        timer.start()\n"
            "        device.add('nk0', peer='eth0', addrs=['10.0.0.1/24'], up=True)\n"
            "        timer.join(); signal.pause()\n"
            "    except KeyboardInterrupt:\n"
            "        timer.join()\n"
            "    left = {one.name: one for one in device.show()}\n"
            "    if not left: interrupted += 1; continue\n"
            "    whole = left.keys() == {'nk0', 'eth0'} and all(one.up for one in left.values())\n"
            "    if not whole or not left['nk0'].addrs: sys.exit(f'{number}: left {left}')\n"
            "    device.delete('nk0')\n"
            "print(interrupted)\n"
        )
        process = run(ns, [sys.executable, "-c", script, ns.name], check=False)
        assert process.returncode == 0, process.stderr
        assert int(process.stdout) > 5

    @pytest.mark.parametrize(
        ("attribute", "settings", "feature", "since"),
        [
            ("IFLA_NETKIT_PAIRING", {"single": True}, "single netkit devices", "7.1"),
            ("IFLA_NETKIT_SCRUB", {"scrub": "none"}, "netkit scrub", "6.13"),
            ("IFLA_NETKIT_HEADROOM", {"headroom": 16}, "netkit headroom", "6.14"),
            ("IFLA_NETKIT_TAILROOM", {"tailroom": 16}, "netkit tailroom", "6.14"),
        ],
    )
    def test_a_kernel_that_passes_over_an_attribute(
        self, ns, monkeypatch, attribute, settings, feature, since
    ):
        """Older kernels ignore what they do not know: sent without it, this one does the same."""
        whole = request._data
        monkeypatch.setattr(
            request,
            "_data",
            lambda *wanted: [pair for pair in whole(*wanted) if pair[0] != attribute],
        )
        with netns.entered(ns), pytest.raises(NotSupportedError) as caught:
            device.add("nk0", **settings)
        assert (caught.value.feature, caught.value.since) == (feature, since)
        assert names(ns) == ["lo"]


@needs_netkit
class TestDelete:
    def test_either_end_takes_both(self, two_ns):
        a, b = two_ns
        with netns.entered(a):
            device.add("nk0", peer="eth0", peer_netns=b)
        with netns.entered(b):
            assert device.delete("eth0") == ["eth0"]
        assert names(a) == names(b) == ["lo"]

    def test_both_ends_and_others_at_once(self, ns):
        with netns.entered(ns):
            made = device.add("nk0", peer="nk1")
            device.add("nk2", peer="nk3")
            device.add("kept", peer="kept2", group=7)
            assert device.delete("nk0", made.peer.ifindex, "nk2", "nk2") == ["nk0", "nk1", "nk2"]
            assert device.get("kept").group == 7
            device.delete("kept")
        assert names(ns) == ["lo"]

    def test_nothing_is_deleted_when_one_is_no_netkit(self, ns):
        with devices.device(ns, "veth0"), netns.entered(ns):
            device.add("nk0", peer="nk1")
            for wrong, why in (("veth0", "veth0 is a veth device"), ("nope", "nope")):
                with pytest.raises(NotFoundError, match=why):
                    device.delete("nk0", wrong)
            assert names(ns) == ["lo", "nk0", "nk1", "veth0", "veth0p"]


@needs_netkit
class TestShow:
    def test_all_and_one(self, two_ns):
        a, b = two_ns
        with netns.entered(a):
            assert device.show() == []
            with pytest.raises(NotFoundError, match="no netkit device nk0"):
                device.show("nk0")
            device.add("nk0", peer="eth0", peer_netns=b)
            device.add("nk1", peer="nk2", addrs=["10.5.0.1/24"])
            found = device.show()
            assert {entry.name for entry in found} == {"nk0", "nk1", "nk2"}
            by_name = {entry.name: entry for entry in found}
            assert by_name["nk2"].peer.name == "nk1"
            assert by_name["nk1"].addrs == ("10.5.0.1/24",)
            assert device.show("nk1") == [by_name["nk1"]]

    def test_a_renamed_peer_is_shown_by_its_new_name(self, netkit):
        primary, peer = netkit
        run(peer.ns, ["ip", "link", "set", peer.name, "down"])
        run(peer.ns, ["ip", "link", "set", peer.name, "name", "moved"])
        with netns.entered(primary.ns):
            assert device.get(primary.name).peer.name == "moved"


@pytest.mark.needs("netdevsim")
def test_a_netdevsim_nic_appears_and_goes(ns):
    with devices.netdevsim(ns, queues=8) as nics:
        assert len(nics) == 1
        assert shown(ns, nics[0])["num_rx_queues"] == 8
    assert names(ns) == ["lo"]


def test_signals_reach_us():
    """The tests above rely on the default handling of Ctrl-C."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert Path("/proc/self").exists()
