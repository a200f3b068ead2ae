"""Netlink answers taken apart, and the netkit link kind as bytes."""

from __future__ import annotations

import errno
import struct

import pytest

from netbpf.errors import NetlinkError
from netbpf.netlink import addresses, links, netkit, rtnl
from netbpf.netlink.attributes import unpack
from netbpf.netlink.refusals import Meaning, explained, refusals
from netbpf.netlink.rtnl import Refusal, Rtnl


def attribute(kind: int, payload: bytes) -> bytes:
    padding = b"\0" * (-len(payload) % 4)
    return struct.pack("=HH", 4 + len(payload), kind) + payload + padding


def message(kind: int, payload: bytes, *, flags: int = 0, sequence: int = 1) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload
    return whole + b"\0" * (-len(whole) % 4)


def error(number: int, extack: str | None = None, *, request: bytes = b"", sequence: int = 1):
    """An NLMSG_ERROR as the kernel builds it: capped when no ``request`` is given back."""
    echo = request or struct.pack("=IHHII", 64, 16, 5, sequence, 0)
    payload = struct.pack("=i", -number) + echo
    flags = 0 if request else rtnl.NLM_F_CAPPED
    if extack is not None:
        flags |= rtnl.NLM_F_ACK_TLVS
        payload += attribute(2, struct.pack("=I", 20))
        payload += attribute(1, extack.encode() + b"\0")
    return message(2, payload, flags=flags, sequence=sequence)


class FakeSocket:
    """Answers each request with the next of the prepared datagrams."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> int:
        self.sent.append(bytes(data))
        return len(data)

    def recv_into(self, buffer, size, flags) -> int:
        datagram = self.datagrams.pop(0)
        buffer[: len(datagram)] = datagram[: len(buffer)]
        return len(datagram)

    def close(self) -> None:
        pass


@pytest.fixture
def asking():
    """An Rtnl on a fake socket with the given answers."""
    opened = []

    def make(*datagrams: bytes) -> Rtnl:
        made = Rtnl()
        made._socket.close()
        made._socket = FakeSocket(*datagrams)
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.close()


def link_message(name: str, ifindex: int, *, sequence: int = 1, flags: int = 0) -> bytes:
    payload = struct.pack("=BxHiII", 0, 1, ifindex, 1, 0) + attribute(3, name.encode() + b"\0")
    return message(16, payload, sequence=sequence, flags=flags)


def test_an_acknowledged_request(asking):
    found = links.get(asking(link_message("eth0", 7) + error(0)), "eth0")
    assert (found.name, found.ifindex, found.up, found.kind) == ("eth0", 7, True, None)


def test_a_refusal_carries_the_kernels_words(asking):
    request = b"".join([struct.pack("=IHHII", 41, 16, 5, 1, 0), b"\xff" * 25, b"\0" * 3])
    for answer in (error(22, "mtu too small"), error(22, "mtu too small", request=request)):
        with pytest.raises(Refusal) as caught:
            links.delete(asking(answer), 3)
        assert (caught.value.errno, caught.value.extack) == (22, "mtu too small")


def test_a_refusal_without_words(asking):
    with pytest.raises(Refusal) as caught:
        links.delete(asking(error(errno.EBUSY)), 3)
    assert caught.value.extack is None
    assert caught.value.strerror == "Device or resource busy"


def test_a_dump_refused_at_its_end(asking):
    payload = struct.pack("=i", -95) + attribute(1, b"no such filter\0")
    done = message(3, payload, flags=rtnl.NLM_F_ACK_TLVS | rtnl.NLM_F_MULTI)
    with pytest.raises(NetlinkError, match="list devices: no such filter \\(EOPNOTSUPP\\)"):
        links.dump(asking(done))


def test_answers_to_an_interrupted_request_are_passed_over(asking):
    stale = link_message("old", 1, sequence=0) + error(0, sequence=0)
    assert links.get(asking(stale, link_message("new", 2) + error(0)), "new").name == "new"


def test_a_torn_dump_is_asked_again(asking):
    done = struct.pack("=i", 0)
    torn = link_message("half", 1, flags=rtnl.NLM_F_DUMP_INTR) + message(3, done)
    whole = link_message("a", 2, sequence=2), link_message("b", 1, sequence=2)
    fake = asking(torn, whole[0], whole[1] + message(3, done, sequence=2))
    assert [link.name for link in links.dump(fake)] == ["b", "a"]


def test_a_dump_that_stays_torn_is_taken_in_the_end(asking):
    done = struct.pack("=i", 0)
    datagrams = [
        link_message("a", 1, sequence=number, flags=rtnl.NLM_F_DUMP_INTR)
        + message(3, done, sequence=number)
        for number in range(1, 11)
    ]
    assert [link.name for link in links.dump(asking(*datagrams))] == ["a"]


def test_a_cut_or_an_oversized_answer(asking):
    with pytest.raises(OSError, match="cut short"):
        links.delete(asking(link_message("a", 1)[:-4]), 3)
    with pytest.raises(OSError, match="answer of 70000 bytes"):
        links.delete(asking(b"\0" * 70000), 3)


def test_no_index_is_refused_before_the_kernel_guesses(asking):
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="no ifindex"):
            links.delete(asking(), wrong)


def test_netkit_as_bytes(asking):
    # No echo, as before Linux 6.2: the device is looked up by its name.
    fake = asking(error(0), link_message("nk0", 5, sequence=2) + error(0, sequence=2))
    nest = {"attrs": [("IFLA_IFNAME", "p0"), ("IFLA_NET_NS_FD", 9)]}
    data = [
        ("IFLA_NETKIT_POLICY", netkit.DROP),
        ("IFLA_NETKIT_HEADROOM", 32),
        ("IFLA_NETKIT_PAIRING", netkit.SINGLE),
        ("IFLA_NETKIT_PEER_INFO", nest),
    ]
    assert links.add(fake, "nk0", "netkit", data=data) == 5
    peer = bytes(16) + attribute(3, b"p0\0") + attribute(28, struct.pack("=I", 9))
    encoded = (
        attribute(3, struct.pack("=I", 2))
        + attribute(8, struct.pack("=H", 32))
        + attribute(10, struct.pack("=I", 1))
        + attribute(1, peer)
    )
    info = attribute(1, b"netkit\0") + attribute(2, encoded)
    wanted = bytes(16) + attribute(3, b"nk0\0") + attribute(18, info)
    assert fake._socket.sent[0][16:] == wanted


def test_netkit_from_bytes(asking):
    data = attribute(2, b"\1") + attribute(5, struct.pack("=I", 1)) + attribute(9, b"\x08\x00")
    info = attribute(1, b"netkit\0") + attribute(2, data)
    payload = struct.pack("=BxHiII", 0, 1, 4, 0, 0)
    payload += attribute(3, b"nk0\0") + attribute(18, info) + attribute(37, struct.pack("=i", 3))
    payload += attribute(5, struct.pack("=I", 9))
    found = links.get(asking(message(16, payload) + error(0)), 4)
    assert found.data == {
        "IFLA_NETKIT_PRIMARY": 1,
        "IFLA_NETKIT_MODE": netkit.L3,
        "IFLA_NETKIT_TAILROOM": 8,
    }
    assert (found.peer_ifindex, found.peer_nsid) == (9, 3)


def test_a_device_whole(asking):
    """Its state, group and alias; an alias is bytes, and a state that is newer than we unknown."""
    payload = struct.pack("=BxHiII", 0, 1, 4, 1, 0) + attribute(3, b"d0\0")
    payload += attribute(27, struct.pack("=I", 1 << 31)) + attribute(20, b"a\xff b\0")
    for number, state in ((6, "up"), (2, "down"), (99, "unknown")):
        whole = payload + attribute(16, bytes([number])) + attribute(1, bytes(range(6)))
        found = links.get(asking(message(16, whole) + error(0)), 4)
        assert (found.state, found.group, found.mac) == (state, 1 << 31, "00:01:02:03:04:05")
        assert found.alias == "a\udcff b"


def test_a_broken_attribute_ends_the_list():
    broken = attribute(3, b"d0\0") + struct.pack("=HH", 2, 4) + attribute(4, bytes(4))
    assert unpack(broken) == {3: b"d0\0"}


def test_a_batch_sorts_the_answers(asking):
    """One refused in the middle, answers of another request between, all in one datagram or not."""
    stale = link_message("old", 9, sequence=9)
    one = link_message("a", 1, sequence=1)
    two = error(errno.EEXIST, "taken", sequence=2)
    three = link_message("c", 3, sequence=3) + error(0, sequence=3)
    for datagrams in ((stale + one + two + three,), (one, stale, two, three)):
        fake = asking(*datagrams)
        first, second, third = fake.batch(16, [b"", b"", b""], rtnl.NLM_F_ECHO)
        assert isinstance(first, list) and links.made_in(first[0]) == ("a", 1, None)
        assert isinstance(second, Refusal) and second.extack == "taken"
        assert isinstance(third, list) and links.made_in(third[0]) == ("c", 3, None)
        flags = [struct.unpack_from("=H", fake._socket.sent[0], 6 + 16 * n)[0] for n in range(3)]
        assert flags == [rtnl.NLM_F_REQUEST | rtnl.NLM_F_ECHO] * 2 + [
            rtnl.NLM_F_REQUEST | rtnl.NLM_F_ECHO | rtnl.NLM_F_ACK
        ]


def test_no_group_is_deleted_that_holds_all_others(asking):
    with pytest.raises(ValueError, match="no group to delete"):
        links.delete_group(asking(), 0)


@pytest.mark.parametrize("text", ["10.0.0.1/24", "fd00::1/64", "10.0.0.1/32"])
def test_addresses(text):
    assert str(addresses.parse(text)) == text


@pytest.mark.parametrize("text", ["", "10.0.0.256/24", "10.0.0.1/33", "eth0", "10.0.0.0/24/24"])
def test_no_addresses(text):
    with pytest.raises(ValueError, match="is no address: write it as"):
        addresses.parse(text)


def test_the_kernels_words_come_before_ours():
    meanings = {22: Meaning("ours", "do this")}
    with pytest.raises(NetlinkError) as caught, refusals("change x", meanings):
        raise Refusal(22, "theirs")
    assert str(caught.value) == "change x: theirs (EINVAL): do this"
    assert caught.value.extack == "theirs"
    assert str(explained("change x", Refusal(22), meanings)) == "change x: ours (EINVAL): do this"
    assert "CAP_NET_ADMIN" in str(explained("change x", Refusal(1)))
