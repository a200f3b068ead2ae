"""What can be said of a netkit device before the kernel is asked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.netkit import request
from netbpf.netkit.model import Device, Peer, Settings, check_device_name, check_mac


@pytest.mark.parametrize("name", ["nk0", "a", "x" * 15, "eth0.5", "é" * 7, "nk%d", "-", "..."])
def test_names_that_the_kernel_takes(name):
    assert check_device_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (".", "cannot be called"),
        ("..", "cannot be called"),
        ("x" * 16, "at most 15 bytes"),
        ("é" * 8, "at most 15 bytes"),
        ("a/b", "cannot hold '/'"),
        ("a:b", "cannot hold ':'"),
        ("a b", "cannot hold ' '"),
        ("a\t", "cannot hold"),
        ("a\n", "cannot hold"),
        ("a\x1b[1m", "cannot hold"),
        ("a\0", "cannot hold"),
        ("%s", "'%'"),
        ("%d%d", "'%'"),
        ("100%", "'%'"),
    ],
)
def test_hostile_names(name, why):
    with pytest.raises(ValueError, match=why):
        check_device_name(name)
    with pytest.raises(ValueError, match=why):
        Settings(name="nk0", peer=name)


@given(st.text(max_size=20))
@settings(max_examples=30, deadline=None)
def test_a_name_is_taken_or_refused_with_words(name):
    try:
        check_device_name(name)
    except ValueError as error:
        assert str(error)
    else:
        assert 0 < len(name.encode()) <= 15
        assert not set(name) & set("/: \n\t\0")


@pytest.mark.parametrize(
    ("mac", "why"),
    [
        ("", "no MAC address"),
        ("02:00:00:00:00", "no MAC address"),
        ("02:00:00:00:00:0g", "no MAC address"),
        ("02-00-00-00-00-01", "no MAC address"),
        ("01:00:00:00:00:01", "multicast"),
        ("ff:ff:ff:ff:ff:ff", "multicast"),
        ("00:00:00:00:00:00", "all zeros"),
    ],
)
def test_no_macs(mac, why):
    with pytest.raises(ValueError, match=why):
        check_mac(mac)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"peer": "p0"}, "leave out peer,"),
        ({"peer_policy": "forward"}, "leave out peer policy"),
        ({"peer_scrub": "none", "peer": "p0"}, "leave out peer and peer scrub"),
        ({"peer_rx_queues": 2}, "leave out peer rx queues"),
        ({"peer_mac": "02:00:00:00:00:01", "mode": "l2"}, "leave out peer mac"),
        ({"peer_addrs": ["10.0.0.1/24"]}, "leave out peer address"),
        ({"scrub": "default"}, "leave out scrub"),
        ({"policy": "blackhole"}, "no policy but forward"),
    ],
)
def test_a_single_device_has_nothing_of_a_pair(wanted, why):
    with pytest.raises(ValueError, match=why):
        Settings(name="nk0", single=True, **wanted)
    Settings(name="nk0", **wanted)


@pytest.mark.parametrize(
    ("wanted", "error", "why"),
    [
        ({"mac": "02:00:00:00:00:01"}, ValueError, "leave out mac, or take mode l2"),
        ({"peer_mac": "02:00:00:00:00:01"}, ValueError, "leave out peer mac"),
        ({"peer": "nk0"}, ValueError, "both ends cannot be called nk0"),
        ({"mode": "l4"}, ValueError, "mode is l3 or l2, not 'l4'"),
        ({"policy": "drop"}, ValueError, "policy is forward or blackhole"),
        ({"peer_policy": ""}, ValueError, "peer policy is"),
        ({"scrub": "all"}, ValueError, "scrub is default or none"),
        ({"headroom": -1}, ValueError, "headroom lies between 0 and 65535"),
        ({"tailroom": 65536}, ValueError, "tailroom lies between"),
        ({"rx_queues": 0}, ValueError, "rx queues lies between 1"),
        ({"mtu": 0}, ValueError, "mtu lies between"),
        ({"mtu": "1500"}, TypeError, "mtu is a number"),
        ({"rx_queues": True}, TypeError, "is a number"),
    ],
)
def test_settings_that_mean_nothing(wanted, error, why):
    with pytest.raises(error, match=why):
        Settings(name="nk0", **wanted)


def test_both_ends_get_their_settings_explicitly():
    data = dict(request._data(Settings(name="nk0", peer="p0", mtu=1400, peer_rx_queues=2)))
    assert data == {
        "IFLA_NETKIT_MODE": 1,
        "IFLA_NETKIT_POLICY": 0,
        "IFLA_NETKIT_PEER_POLICY": 0,
        "IFLA_NETKIT_SCRUB": 1,
        "IFLA_NETKIT_PEER_SCRUB": 1,
        "IFLA_NETKIT_PEER_INFO": {
            "attrs": [("IFLA_IFNAME", "p0"), ("IFLA_NUM_RX_QUEUES", 2), ("IFLA_MTU", 1400)]
        },
    }


def test_a_single_device_is_asked_for_without_what_it_refuses():
    data = dict(request._data(Settings(name="nk0", single=True, headroom=8)))
    assert data == {"IFLA_NETKIT_MODE": 1, "IFLA_NETKIT_HEADROOM": 8, "IFLA_NETKIT_PAIRING": 1}


def test_the_document_has_all_keys_also_where_there_is_nothing():
    device = Device(
        name="nk0",
        ifindex=2,
        pairing="single",
        primary=True,
        mode="l3",
        policy="forward",
        scrub="default",
        headroom=0,
        tailroom=0,
        rx_queues=1,
        mtu=1500,
        mac=None,
        up=False,
    )
    document = device.as_json()
    assert " ".join(document) == (
        "name ifindex netns pairing primary mode policy scrub headroom tailroom rx_queues "
        "mtu mac up addrs peer leases"
    )
    assert (document["addrs"], document["leases"], document["peer"]) == ([], [], None)
    peer = Peer(name="p0", ifindex=3, netns=None, policy="blackhole", scrub="none")
    with_peer = Device(**{**vars(device), "peer": peer}).as_json()
    assert with_peer["peer"] == {
        "name": "p0",
        "ifindex": 3,
        "netns": None,
        "policy": "blackhole",
        "scrub": "none",
    }
