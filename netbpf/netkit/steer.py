"""What arrives at a queue on lease: the NIC's RSS table without it, rules that send flows to it.

What was done is written down before it is done, in a file for each NIC, so that also what a killed
run left is taken back, and that only: an entry of the table, or a rule, that somebody has changed
since stays as it is.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from netbpf.errors import KernelError, NetbpfError, NetlinkError
from netbpf.interrupts import held
from netbpf.netkit.lease_check import Finding
from netbpf.netkit.lease_sides import Side, opened
from netbpf.netlink import ethtool
from netbpf.netlink.ntuple import TCP4, TCP6, UDP4, UDP6, IPAddress, Ntuple, Rule
from netbpf.netns import NetNS, entered

RECORDS = Path("/run/netbpf/steer")
"""Where it is written down: gone with a reboot, as are the NIC's settings."""

ONLY_RSS = "rss"
"""Instead of a flow: nothing is sent to the queue, it is only kept free."""

_SO_NETNS_COOKIE = 71
_KINDS = {
    "tcp4": (TCP4,),
    "udp4": (UDP4,),
    "tcp6": (TCP6,),
    "udp6": (UDP6,),
    "tcp": (TCP4, TCP6),
    "udp": (UDP4, UDP6),
}


@dataclass
class _Steered:
    """What was done for one queue."""

    entries: dict[int, int] = field(default_factory=dict)
    """The places in the RSS table that were the queue's, and which queue has each instead."""
    flows: list[str] = field(default_factory=list)
    """The rules that were added, each as the one word that means just it."""


def flows(words: Sequence[str]) -> list[str]:
    """The flows that ``words`` mean, each as one word that means one rule.

    A word is ``PROTO[:ADDRESS]:PORT``: what arrives at that port, and at that address if there is
    one, which for IPv6 is in brackets. PROTO is tcp4, udp4, tcp6 or udp6, or tcp or udp for what
    the address is, or for both. ``rss`` is no flow.

    :raises ValueError: a word is none of these.
    """
    found: dict[str, None] = {}
    for word in words:
        if word != ONLY_RSS:
            found.update(dict.fromkeys(_rule_words(word)))
    return list(found)


def check(
    netkit: str | int,
    nic: str | int,
    queues: Sequence[int],
    words: Sequence[str],
    *,
    nic_netns: NetNS | str | None = None,
) -> list[Finding]:
    """As `refusals`, for the devices of a lease by name.

    :raises ValueError: a word is no flow.
    :raises NotFoundError: there is no such device or namespace.
    """
    wanted = flows(words)
    with opened(netkit, nic, nic_netns) as sides:
        return list(refusals(sides.nic, queues, wanted))


def refusals(nic: Side, queues: Sequence[int], wanted: Sequence[str]) -> Iterator[Finding]:
    """Why the NIC could not be made to steer ``wanted`` to the queues; nothing is changed."""
    name = nic.link.name
    if wanted and len(queues) > 1:
        yield Finding(
            "steer_many",
            "a flow goes to one queue",
            f"lease them one by one, or `--steer {ONLY_RSS}`",
            errno.EINVAL,
        )
    with _at(nic), _refusals(nic), ethtool.Ethtool() as asking:
        table = ethtool.rss_table(asking, nic.link.ifindex)
        if table is None:
            yield Finding(
                "nic_no_rss",
                f"NIC {name} cannot keep other traffic off a queue: it has no RSS table",
                "its driver tells none (`ethtool -x`); lease without --steer",
                errno.EOPNOTSUPP,
            )
        elif not set(table) - set(queues):
            yield Finding(
                "no_other_queue",
                f"the RSS table of {name} has no other queue for the rest of the traffic",
                "`ethtool -L` gives the NIC more, `ethtool -X` spreads over more of them",
                errno.EBUSY,
            )
        with Ntuple(name) as rules:
            if wanted and rules.count() is None:
                yield Finding(
                    "nic_no_ntuple",
                    f"NIC {name} cannot steer flows: it has no ntuple rules",
                    f"`ethtool -K {name} ntuple on` where its driver can (`ethtool -k` tells), or "
                    f"`--steer {ONLY_RSS}`",
                    errno.EOPNOTSUPP,
                )


def apply(nic: Side, queues: Sequence[int], wanted: Sequence[str]) -> None:
    """Keep other traffic off the queues, and send the flows ``wanted`` to the first: all or none.

    What an earlier run did for them is taken back before.

    :raises NetlinkError: the NIC or the kernel refused.
    """
    with (
        held(),
        _at(nic),
        _locked(),
        _refusals(nic),
        ethtool.Ethtool() as asking,
        Ntuple(nic.link.name) as rules,
    ):
        for queue in queues:
            _undo(nic, queue, asking, rules)
        try:
            _free(nic, queues, asking)
            _send(nic, queues[0], wanted, rules)
        except BaseException:
            for queue in queues:
                _undo(nic, queue, asking, rules)
            raise


def undo(nic: Side, queue: int) -> bool:
    """Take back what `apply` did for a queue; whether it had done anything.

    Entries and rules that were changed since are left alone.

    :raises NetlinkError: the NIC or the kernel refused.
    """
    with held(), _at(nic), _locked():
        if queue not in _read(_file(nic)):
            return False
        with ethtool.Ethtool() as asking, Ntuple(nic.link.name) as rules, _refusals(nic):
            return _undo(nic, queue, asking, rules)


def undo_at(nic: str | int, queue: int) -> bool:
    """As `undo`, for a NIC of the calling thread's namespace.

    :raises NotFoundError: there is no such device.
    """
    with opened(nic, nic, None) as sides:
        return undo(sides.nic, queue)


def _rule_words(word: str) -> Iterator[str]:
    protocol, _, rest = word.partition(":")
    text, _, port = rest.rpartition(":")
    if (
        protocol not in _KINDS
        or not (port.isascii() and port.isdecimal() and len(port) < 6)
        or not 0 < int(port) < 0x10000
    ):
        raise ValueError(_no_flow(word))
    address: IPAddress | None = None
    try:
        if text.startswith("[") and text.endswith("]"):
            address = ipaddress.IPv6Address(text[1:-1])
        elif text:
            address = ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError(_no_flow(word)) from None
    if address is not None and protocol in ("tcp", "udp"):
        protocol += str(address.version)
    if address is not None and protocol[-1] != str(address.version):
        raise ValueError(f"{word!r} is no flow: {protocol} has no such addresses")
    where = "" if address is None else f":{address}" if address.version == 4 else f":[{address}]"
    versions = "46" if protocol in ("tcp", "udp") else ""
    for version in versions or [""]:
        yield f"{protocol}{version}{where}:{int(port)}"


def _no_flow(word: str) -> str:
    return (
        f"{word!r} is no flow: write PROTO[:ADDRESS]:PORT, as in tcp:443, udp4:10.0.0.5:53 or "
        f"tcp6:[2001:db8::1]:443, or {ONLY_RSS}"
    )


def _rule(word: str, queue: int) -> Rule:
    """The rule that one of the words of `flows` means."""
    protocol, _, rest = word.partition(":")
    text, _, port = rest.rpartition(":")
    address = ipaddress.ip_address(text.strip("[]")) if text else None
    (kind,) = _KINDS[protocol]
    return Rule(kind, address, int(port), queue)


def _free(nic: Side, queues: Sequence[int], asking: ethtool.Ethtool) -> None:
    """Give the places that the queues have in the RSS table to others, in turn."""
    table = ethtool.rss_table(asking, nic.link.ifindex) or []
    records = _read(_file(nic))
    others = sorted(set(table) - set(queues) - set(records)) or sorted(set(table) - set(queues))
    if not others:
        raise OSError(errno.EBUSY, "no other queue is left for the rest of the traffic")
    records.update({queue: _Steered() for queue in queues})
    after = list(table)
    taken = 0
    for place, queue in enumerate(table):
        if queue not in queues:
            continue
        after[place] = others[taken % len(others)]
        taken += 1
        # A place that was another steered queue's before it was this one's goes back to that.
        first = next((r for r in records.values() if r.entries.get(place) == queue), None)
        (first or records[queue]).entries[place] = after[place]
    _write(_file(nic), records)
    if after != table:
        ethtool.set_rss_table(asking, nic.link.ifindex, after)


def _send(nic: Side, queue: int, wanted: Sequence[str], rules: Ntuple) -> None:
    there = rules.rules() if wanted else []
    # A rule that somebody made before is not ours to delete.
    added = [word for word in wanted if not any(each.says(_rule(word, queue)) for each in there)]
    records = _read(_file(nic))
    records[queue].flows = added
    _write(_file(nic), records)
    for word in added:
        try:
            rules.insert(_rule(word, queue))
        except OSError as error:
            raise OSError(error.errno, f"{word}: {error.strerror}") from error


def _undo(nic: Side, queue: int, asking: ethtool.Ethtool, rules: Ntuple) -> bool:
    records = _read(_file(nic))
    done = records.get(queue)
    if done is None:
        return False
    ours = [_rule(word, queue) for word in done.flows]
    for each in rules.rules() if ours else ():
        if any(each.says(rule) for rule in ours):
            rules.delete(each.location)
    table = ethtool.rss_table(asking, nic.link.ifindex) or []
    back = [queue if done.entries.get(place) == now else now for place, now in enumerate(table)]
    if back != table:
        ethtool.set_rss_table(asking, nic.link.ifindex, back)
    del records[queue]
    _write(_file(nic), records)
    return True


@contextmanager
def _refusals(nic: Side) -> Iterator[None]:
    """What the kernel refuses within the block is about the steering of this NIC."""
    operation = f"steer at {nic.link.name}"
    try:
        yield
    except NetlinkError as error:
        raise NetlinkError(
            operation, error.errno, error.reason, hint=error.hint, extack=error.extack
        ) from error
    except OSError as error:
        hint = None
        if error.errno == errno.EPERM:
            hint = "it needs CAP_NET_ADMIN in the namespace of the NIC"
        elif error.errno == errno.EOPNOTSUPP:
            hint = f"`ethtool -K {nic.link.name} ntuple on`, or the NIC has no such rules"
        raise NetlinkError(operation, error.errno or 0, error.strerror, hint=hint) from error


@contextmanager
def _at(nic: Side) -> Iterator[None]:
    # Entering, even where one is, needs CAP_SYS_ADMIN.
    with entered(nic.ns) if nic.netns else nullcontext():
        yield


@contextmanager
def _locked() -> Iterator[None]:
    """Keep other runs of netbpf from changing the same in between."""
    try:
        RECORDS.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(RECORDS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"write to {RECORDS} what is steered", error.errno or 0) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _file(nic: Side) -> Path:
    """The file of a NIC, in the namespace of the calling thread.

    The cookie of a namespace is, unlike its inode, never given to another.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        (cookie,) = struct.unpack("=Q", asking.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
    return RECORDS / f"{cookie}-{nic.link.ifindex}.json"


def _read(file: Path) -> dict[int, _Steered]:
    try:
        document = json.loads(file.read_bytes())
        return {
            int(queue): _Steered(
                {int(place): int(to) for place, to in each["entries"].items()},
                [word for known in each["flows"] for word in flows([known])],
            )
            for queue, each in document.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NetbpfError(f"{file} is not as netbpf left it", hint="delete it") from error


def _write(file: Path, records: dict[int, _Steered]) -> None:
    """Replace the file as a whole: whoever is killed leaves the old or the new."""
    if not records:
        file.unlink(missing_ok=True)
        return
    document = {
        queue: {"entries": each.entries, "flows": each.flows} for queue, each in records.items()
    }
    new = file.with_suffix(".new")
    new.write_text(json.dumps(document))
    new.replace(file)
