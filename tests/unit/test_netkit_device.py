"""What can be said of a netkit device before the kernel is asked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.netkit import bulk, change, marks, request
from netbpf.netkit.model import FIXED, Device, Peer, Settings, check_device_name, check_mac


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
        ({"peer_mtu": 1400, "peer_group": 1}, "leave out peer mtu and peer group"),
        ({"peer_alias": "x"}, "leave out peer alias"),
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
        ({"peer_mtu": 0}, ValueError, "peer mtu lies between"),
        ({"group": -1}, ValueError, "group lies between 0 and 4294967295"),
        ({"peer_group": 1 << 32}, ValueError, "peer group lies between"),
        ({"group": 0x37000005}, ValueError, "by which netbpf marks"),
        ({"alias": "x" * 256}, ValueError, "alias has at most 255 bytes"),
        ({"peer_alias": "a\0b"}, ValueError, "peer alias has at most 255 bytes, and no NUL"),
        ({"addrs": ["10.0.0.300/24"]}, ValueError, "is no address"),
        ({"peer_addrs": ["10.0.0.1/24"] * 2}, ValueError, "given twice"),
    ],
)
def test_settings_that_mean_nothing(wanted, error, why):
    with pytest.raises(error, match=why):
        Settings(name="nk0", **wanted)


def test_both_ends_get_their_settings_explicitly():
    wanted = Settings(name="nk0", peer="p0", mtu=1400, peer_rx_queues=2)
    assert dict(request._data(wanted)) == {
        "IFLA_NETKIT_MODE": 1,
        "IFLA_NETKIT_POLICY": 0,
        "IFLA_NETKIT_PEER_POLICY": 0,
        "IFLA_NETKIT_SCRUB": 1,
        "IFLA_NETKIT_PEER_SCRUB": 1,
    }
    assert request._peer(wanted, None) == [("IFLA_NUM_RX_QUEUES", 2), ("IFLA_MTU", 1400)]
    assert dict(request._peer(Settings(name="nk0", peer_mtu=9, peer_group=5), 7)) == {
        "IFLA_MTU": 9,
        "IFLA_GROUP": 7,
    }


def test_messages_packed_in_a_row_are_those_packed_alone():
    several = request.Bodies()
    plain = list(Settings.numbered("nk{}", range(9, 12), peer="p{}"))
    other = Settings(name="other", mtu=1400, peer_group=5, up=True)
    single = Settings(name="one", single=True)
    for wanted in (*plain, other, plain[0], single, Settings(name="x"), other):
        for mark in (None, 7):
            alone = request.Bodies().of(wanted, mark)
            assert several.of(wanted, mark) == alone
            names = [name.encode() + b"\0" for name in (wanted.name, wanted.peer) if name]
            assert all(name in alone for name in names)
    assert several.of(plain[0], None) != several.of(plain[1], None)


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
        "mtu mac up state group alias unfinished addrs peer leases"
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
        "rx_queues": None,
        "mtu": None,
        "mac": None,
        "up": None,
        "state": None,
        "group": None,
        "alias": None,
        "addrs": [],
    }


@pytest.mark.parametrize(("name", "word"), FIXED.items())
def test_what_is_fixed_for_good_is_said_before_the_kernel_is_asked(name, word):
    with pytest.raises(ValueError, match=f"{word} cannot be changed after a device was made"):
        change.set("no-such-device", **{name: "x"})


@pytest.mark.parametrize(
    ("wanted", "error", "why"),
    [
        ({}, ValueError, "nothing to change"),
        ({"addrs": [], "del_addrs": []}, ValueError, "nothing to change"),
        ({"colour": "red"}, TypeError, "no setting 'colour'"),
        ({"policy": "drop"}, ValueError, "policy is forward or blackhole"),
        ({"name": "a/b"}, ValueError, "cannot hold"),
        ({"mac": "01:00:00:00:00:00"}, ValueError, "multicast"),
        ({"group": 0x37400000}, ValueError, "by which netbpf marks"),
        ({"addrs": ["x"]}, ValueError, "is no address"),
        ({"del_addrs": ["10.0.0.1/24"] * 2}, ValueError, "given twice"),
    ],
)
def test_changes_that_mean_nothing(wanted, error, why):
    with pytest.raises(error, match=why):
        change.set("no-such-device", **wanted)


def test_one_message_or_several():
    for wanted in ({}, {"group": 5, "mtu": 1400}, {"mode": "l2", "mac": "02:00:00:00:00:01"}):
        assert not Settings(name="nk0", **wanted).in_steps
    for wanted in (
        *({"up": True}, {"addrs": ["10.0.0.1/24"]}, {"peer_alias": "x"}, {"alias": "x"}),
        # An older kernel passes over these: it has to be looked at what it made.
        *({"single": True}, {"headroom": 1}, {"tailroom": 1}, {"scrub": "none"}),
    ):
        assert Settings(name="nk0", **wanted).in_steps


def test_numbered_settings():
    made = list(Settings.numbered("nk{}", range(2, 4), peer="nk{}p", mtu=1400))
    assert [(one.name, one.peer, one.mtu) for one in made] == [
        ("nk2", "nk2p", 1400),
        ("nk3", "nk3p", 1400),
    ]
    with pytest.raises(ValueError, match="at most 15 bytes"):
        list(Settings.numbered("too-long-a-name-{}", [1]))


def test_a_mark_tells_what_is_being_done():
    assert marks.meaning(0) is marks.meaning(5) is marks.meaning(0xFFFFFFFF) is None
    assert marks.meaning(marks.deleting()) == "del"
    with marks.making() as group, marks.making() as other:
        assert group != other
        assert marks.meaning(group) == "add"
        assert marks.is_held(group) and marks.is_held(other)
    assert not marks.is_held(group)


def test_names_for_peers_are_not_those_that_are_wanted_for_others():
    wanted = [Settings(name=name) for name in ("nk0", "nk2", "uplink")]
    peers = [settings.peer for settings in bulk._named(wanted)]
    assert peers == ["nk1", "nk3", "nk4"]
    with pytest.raises(ValueError, match="nk5 is wanted twice"):
        bulk.add_many([Settings(name="nk5"), Settings(name="nk5")])
