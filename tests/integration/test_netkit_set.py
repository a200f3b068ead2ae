"""Every setting of netkit devices at both ends, at creation and after, as ``ip`` sees them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from netbpf import netns
from netbpf.errors import NetlinkError
from netbpf.netkit import change, device, request
from netbpf.netkit.model import Settings
from netbpf.netlink import links
from netbpf.netlink import netkit as uapi
from netbpf.netlink.refusals import explained
from netbpf.netlink.rtnl import Refusal
from tests.netns_fixtures import devices, rawlink
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.devices import rtnl_in
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.packets import ping

pytestmark = pytest.mark.needs("netkit")


def shown(ns, name):
    """What ``ip -d addr`` says of a device."""
    found = json.loads(run(ns, ["ip", "-d", "-j", "addr", "show", name]).stdout)
    return next(link for link in found if link)


def addrs(link):
    return [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]]


@pytest.mark.needs("netkit-headroom")
def test_every_setting_at_both_ends(two_ns):
    a, b = two_ns
    document = ok(
        *("netkit", "add", "-n", a.name, "nk0", "--peer", "eth0", "--peer-netns", b.name),
        *("--mode", "l2", "--mac", "02:00:00:00:00:01", "--peer-mac", "02:00:00:00:00:02"),
        *("--policy", "blackhole", "--peer-scrub", "none", "--headroom", 32, "--tailroom", 16),
        *("--rx-queues", 3, "--peer-rx-queues", 2, "--mtu", 1400, "--peer-mtu", 1300),
        *(
            "--group",
            7,
            "--peer-group",
            (1 << 31) - 1,
            "--alias",
            "to the pod",
            "--peer-alias",
            "up",
        ),
        *("--addr", "10.9.0.1/24", "--peer-addr", "10.9.0.2/24", "--up"),
    )["device"]
    assert document == ok("netkit", "show", "-n", a.name, "nk0")["devices"][0]
    wanted = {
        "a": (a, "nk0", "7", "to the pod", 1400, 3, "02:00:00:00:00:01", "10.9.0.1/24"),
        "b": (b, "eth0", str((1 << 31) - 1), "up", 1300, 2, "02:00:00:00:00:02", "10.9.0.2/24"),
    }
    for ns, name, group, alias, mtu, queues, mac, address in wanted.values():
        link = shown(ns, name)
        assert (link["group"], link["ifalias"], link["mtu"]) == (group, alias, mtu)
        assert (link["num_rx_queues"], link["address"]) == (queues, mac)
        assert (addrs(link), link["operstate"]) == ([address], "UP")
        raw = rawlink.netkit(ns, link["ifindex"])
        assert (raw[rawlink.HEADROOM], raw[rawlink.TAILROOM]) == (32, 16)
    own = {**document, **{key: document[key] for key in ("group", "alias", "state", "unfinished")}}
    assert (own["group"], own["alias"], own["state"], own["unfinished"]) == (
        *(7, "to the pod", "up", None),
    )
    peer = document["peer"]
    assert (peer["group"], peer["alias"], peer["state"], peer["up"]) == (
        (1 << 31) - 1,
        "up",
        "up",
        True,
    )
    assert (peer["mtu"], peer["rx_queues"], peer["mac"]) == (1300, 2, "02:00:00:00:00:02")
    assert (peer["addrs"], peer["scrub"]) == (["10.9.0.2/24"], "none")
    # Seen from the other side, the same two ends the other way round.
    other = ok("netkit", "show", "-n", b.name, "eth0")["devices"][0]
    assert not other["primary"]
    common = [key for key in peer if key not in ("netns",)]
    assert {key: other[key] for key in common} == {key: peer[key] for key in common}
    assert {key: other["peer"][key] for key in common} == {key: own[key] for key in common}


def test_all_that_can_be_changed(two_ns):
    a, b = two_ns
    with devices.netkit_pair(a, b, mode="l2") as (primary, peer):
        changed = ok(
            *("netkit", "set", "-n", a.name, primary.name, "--name", "renamed", "--mtu", 1280),
            *(
                "--mac",
                "02:00:00:00:00:aa",
                "--group",
                9,
                "--alias",
                "a b",
                "--addr",
                "10.8.0.1/16",
            ),
            *("--del-addr", "10.98.0.1/24", "--policy", "blackhole", "--peer-policy", "blackhole"),
        )["device"]
        link = shown(a, "renamed")
        assert (link["mtu"], link["group"], link["ifalias"]) == (1280, "9", "a b")
        assert (link["address"], addrs(link)) == ("02:00:00:00:00:aa", ["10.8.0.1/16"])
        raw = rawlink.netkit(a, primary.ifindex)
        assert (raw[rawlink.POLICY], raw[rawlink.PEER_POLICY]) == (2, 2)
        assert (changed["name"], changed["alias"], changed["addrs"]) == (
            *("renamed", "a b", ["10.8.0.1/16"]),
        )
        changed = ok("netkit", "set", "-n", a.name, "renamed", "--down", "--alias", "")["device"]
        assert (changed["up"], changed["state"], changed["alias"]) == (False, "down", None)
        assert "ifalias" not in shown(a, "renamed")
        # The other end of a device that is down is up, but no packet passes.
        end = ok("netkit", "show", "-n", b.name)["devices"][0]
        assert (end["up"], end["state"] != "up") == (True, True)
        ok("netkit", "set", "-n", b.name, peer.name, "--mtu", 1290, "--group", 3)
        assert (shown(b, peer.name)["mtu"], shown(b, peer.name)["group"]) == (1290, "3")


def test_a_refused_change_is_put_back_whole(two_ns):
    a, b = two_ns
    with devices.netkit_pair(a, b) as (primary, peer):
        before = shown(a, primary.name)
        for words, status, code, what in (
            (
                ["--del-addr", "10.0.0.9/24"],
                1,
                "kernel_error",
                "take the address 10.0.0.9/24 from nk0",
            ),
            (["--addr", "10.98.0.1/24"], 5, "exists", "the address 10.98.0.1/24"),
            (["--mtu", "20"], 1, "invalid", "mtu"),
            (["--name", "lo"], 5, "exists", "set nk0"),
        ):
            result = netbpf(
                *("-j", "netkit", "set", "-n", a.name, primary.name, "--policy", "blackhole"),
                *("--group", 5, "--alias", "x", "--addr", "10.7.0.1/24", *words),
            )
            assert (result.status, result.error["code"]) == (status, code), result.out
            assert what in result.error["message"]
            assert shown(a, primary.name) == before
        assert ping(a, peer.address) == 1


def test_what_is_fixed_is_said_with_words(ns):
    ok("netkit", "add", "-n", ns.name, "nk0", "--peer", "nk1")
    for words, named in (
        (["--mode", "l2"], "mode"),
        (["--scrub", "none"], "scrub"),
        (["--peer-scrub", "none"], "peer scrub"),
        (["--headroom", "8"], "headroom"),
        (["--tailroom", "8"], "tailroom"),
        (["--single"], "pairing"),
        (["--rx-queues", "4"], "rx queues"),
        (["--peer", "x"], "peer"),
    ):
        for dry in ([], ["--dry-run"]):
            result = netbpf("-j", "netkit", "set", "-n", ns.name, "nk0", *words, *dry)
            assert (result.status, result.error["code"]) == (2, "usage"), result.out
            assert f"{named} cannot be changed after a device was made" in result.error["message"]


@pytest.mark.needs("netkit-single")
@pytest.mark.parametrize(
    ("data", "extack"),
    [
        ([("IFLA_NETKIT_MODE", 0)], "netkit link operating mode cannot be changed"),
        ([("IFLA_NETKIT_SCRUB", 0)], "netkit link scrubbing cannot be changed"),
        ([("IFLA_NETKIT_PEER_SCRUB", 0)], "netkit link peer scrubbing cannot be changed"),
        ([("IFLA_NETKIT_PEER_INFO", {"attrs": []})], "netkit link peer info cannot be changed"),
        ([("IFLA_NETKIT_HEADROOM", 8)], "netkit link headroom cannot be changed"),
        ([("IFLA_NETKIT_TAILROOM", 8)], "netkit link tailroom cannot be changed"),
        ([("IFLA_NETKIT_PAIRING", 0)], "netkit link pairing cannot be changed"),
    ],
)
def test_the_kernel_refuses_what_netbpf_does_not_ask(ns, data, extack):
    """Were it asked all the same, its words would come first, and what to do after them."""
    with netns.entered(ns):
        made = device.add("nk0", peer="nk1")
    with rtnl_in(ns) as rtnl, pytest.raises(Refusal) as caught:
        links.change(rtnl, made.ifindex, kind="netkit", data=data)
    error = explained("set nk0", caught.value, change.SET_MEANINGS)
    assert str(error).startswith(f"set nk0: {extack} after device creation (EACCES): ")
    assert error.code == "refused"


@pytest.mark.needs("netkit-single")
@pytest.mark.parametrize(
    ("name", "more", "errno_name", "words"),
    [
        ("rx queues", {"attributes": [("IFLA_NUM_RX_QUEUES", 4097)]}, "EINVAL", "receive queues"),
        ("rx queues", {"attributes": [("IFLA_NUM_RX_QUEUES", 0)]}, "EINVAL", "receive queues"),
        ("rx queues", {"attributes": [("IFLA_NUM_RX_QUEUES", 1025)]}, "EOPNOTSUPP", "at most 1024"),
        ("tx queues", {"attributes": [("IFLA_NUM_TX_QUEUES", 2)]}, "EOPNOTSUPP", "refuses the"),
        ("mac", {"attributes": [("IFLA_ADDRESS", "02:00:00:00:00:01")]}, "EOPNOTSUPP", "L3 mode"),
        (
            "mac",
            {
                "attributes": [("IFLA_ADDRESS", "01:00:00:00:00:01")],
                "data": [("IFLA_NETKIT_MODE", uapi.L2)],
            },
            "EADDRNOTAVAIL",
            "multicast or all zeros",
        ),
        ("policy", {"data": [("IFLA_NETKIT_POLICY", 1)]}, "EINVAL", "xmit policy not supported"),
        ("policy", {"data": [("IFLA_NETKIT_PEER_POLICY", 7)]}, "EINVAL", "policy not supported"),
        ("primary", {"data": [("IFLA_NETKIT_PRIMARY", 1)]}, "EINVAL", "read-only"),
        ("mode", {"data": [("IFLA_NETKIT_MODE", 2)]}, "ERANGE", "out of range"),
        ("scrub", {"data": [("IFLA_NETKIT_SCRUB", 2)]}, "ERANGE", "out of range"),
        ("pairing", {"data": [("IFLA_NETKIT_PAIRING", 2)]}, "ERANGE", "out of range"),
        *(
            (
                "single",
                {"data": [("IFLA_NETKIT_PAIRING", uapi.SINGLE), more]},
                "EOPNOTSUPP",
                "neither a peer nor scrub nor a policy",
            )
            for more in (
                ("IFLA_NETKIT_PEER_INFO", {"attrs": []}),
                ("IFLA_NETKIT_PEER_POLICY", 0),
                ("IFLA_NETKIT_SCRUB", 1),
                ("IFLA_NETKIT_PEER_SCRUB", 1),
                ("IFLA_NETKIT_POLICY", 2),
            )
        ),
    ],
)
def test_what_the_kernel_says_to_a_new_device(ns, name, more, errno_name, words):
    """Also of what netbpf refuses before it asks: each errno has its reason and a next step."""
    with rtnl_in(ns) as rtnl, netns.entered(ns):
        with pytest.raises(Refusal) as caught:
            links.create(rtnl, links.new_body("nk0", "netkit", **more))
        error = request.refused(rtnl, Settings(name="nk0"), caught.value)
    text = str(error)
    assert text.startswith("add nk0: ") and f"({errno_name})" in text
    assert words in text
    assert netbpf("-j", "netkit", "show", "-n", ns.name).json["devices"] == []


@pytest.mark.needs("netkit-single")
class TestRefusedChanges:
    """Each condition of netkit_change_link and of the device's own operations: text and status."""

    @pytest.fixture
    def pair(self, ns):
        ok("netkit", "add", "-n", ns.name, "nk0", "--peer", "nk0p")
        ok("netkit", "add", "-n", ns.name, "nk1", "--single")
        return ns

    @pytest.mark.parametrize(
        ("words", "status", "code", "message", "hint"),
        [
            (
                ["nk0p", "--policy", "blackhole"],
                *(1, "refused"),
                "can be changed only through the primary device (EACCES)",
                "name the primary device",
            ),
            (
                ["nk1", "--policy", "blackhole"],
                *(1, "operation_not_supported"),
                "this device has no such setting (EOPNOTSUPP)",
                "a single device has no policy",
            ),
            (
                ["nk1", "--peer-policy", "blackhole"],
                *(1, "operation_not_supported"),
                "this device has no such setting (EOPNOTSUPP)",
                "a single device has no policy",
            ),
            (
                ["nk0", "--mac", "02:00:00:00:00:01"],
                *(1, "operation_not_supported"),
                "this device has no such setting (EOPNOTSUPP)",
                "an L3 device has no MAC address",
            ),
            (["nk0", "--mtu", "67"], 1, "invalid", "mtu less than device minimum (EINVAL)", None),
            (["nk0", "--mtu", "65536"], 1, "invalid", "mtu greater than device maximum", None),
            (["nk0", "--name", "nk1"], 5, "exists", "the name is taken", "take another name"),
        ],
    )
    def test_one(self, pair, words, status, code, message, hint):
        result = netbpf("-j", "netkit", "set", "-n", pair.name, *words)
        assert (result.status, result.error["code"]) == (status, code), result.out
        assert message in result.error["message"]
        assert (hint is None and result.error["hint"] is None) or hint in result.error["hint"]
        # Where the kernel has words of its own, they are the message.
        if result.error["extack"]:
            assert result.error["extack"] in result.error["message"]


def test_up_of_an_end_without_its_peer_is_told(ns):
    """ENOTCONN cannot be had from outside: the kernel takes both ends at once. The words stand."""
    error = explained("set nk0", Refusal(107), change.SET_MEANINGS)
    assert str(error) == "set nk0: its peer is gone (ENOTCONN)"


def test_a_namespace_of_another_user_for_the_peer(ns):
    """Root in a user namespace may make devices in its own, but not put their peers outside."""
    script = (
        "import sys; from netbpf.errors import KernelError\n"
        "from netbpf.netkit import device; from netbpf.netns import NetNS\n"
        "device.add('mine')\n"
        "with NetNS.from_path(sys.argv[1]) as outside:\n"
        "    try: device.add('nk0', peer='x', peer_netns=outside)\n"
        "    except KernelError as error: print(error.code, error)\n"
        "print([one.name for one in device.show()])\n"
    )
    path = f"/run/netns/{ns.name}"
    argv = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", script, path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("not_permitted add nk0: not permitted (EPERM): it needs CAP_NET")
    assert "for a pair in those of both ends" in done.stdout
    assert done.stdout.endswith("['nk0', 'mine']\n")


def test_the_refusal_of_another_kind_and_a_lost_device(ns):
    with netns.entered(ns):
        device.add("nk0", peer="nk1")
        with rtnl_in(ns) as rtnl:
            with pytest.raises(Refusal) as caught:
                links.change(rtnl, 999, up=True)
            error = explained("set nk0", caught.value, change.SET_MEANINGS)
        assert error.code == "no_such_device"
        assert "the device is gone" in str(error) or error.extack
        with pytest.raises(NetlinkError, match="ENODEV"):
            raise error
