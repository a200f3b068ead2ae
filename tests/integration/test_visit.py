"""Looking into every namespace, with and without the right to enter them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netbpf import netkit, netns
from netbpf.errors import KernelError
from netbpf.netns import NetNS
from tests.netns_fixtures import devices, hooks, namespaces

ALL_BUT = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-m", "netbpf", "-j"]


def here() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def without_entering(*arguments: str) -> tuple[dict[str, list[dict[str, object]]], str]:
    """Run a command as root that may not enter namespaces; it has to succeed."""
    result = subprocess.run(
        [*ALL_BUT, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout), result.stderr


def test_the_thread_is_where_it_says_and_returns(two_ns: tuple[NetNS, NetNS]) -> None:
    home = here()
    seen = {}
    for found, is_home in netns.visit():
        assert found.inode == here()
        seen[found.inode] = (found.name, is_home)
    assert here() == home
    assert next(iter(seen)) == home, "where the thread is comes first"
    assert [is_home for _, is_home in seen.values()] == [True] + [False] * (len(seen) - 1)
    assert {ns.inode: (ns.name, False) for ns in two_ns}.items() <= seen.items()


def test_a_closed_iterator_returns(ns: NetNS) -> None:
    home = here()
    visiting = netns.visit()
    for found, _ in visiting:
        if found.inode == ns.inode:
            break
    assert here() == ns.inode
    visiting.close()
    assert here() == home


def test_a_namespace_that_goes_meanwhile_is_passed_over() -> None:
    names = {netns.add(name): name for name in (namespaces.random_name() for _ in range(3))}
    inodes, seen = set(names), set()
    try:
        for found, _ in netns.visit():
            seen.add(found.inode)
            if found.inode in inodes and len(names) == 3:
                for inode in inodes - {found.inode}:
                    netns.delete(names.pop(inode))
        assert len(seen & inodes) == 1
    finally:
        for name in names.values():
            netns.delete(name)


def test_what_may_not_be_entered_is_told_or_raised(
    ns: NetNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    refusal = KernelError("enter", 1)

    def refuse(_: NetNS) -> None:
        raise refusal

    monkeypatch.setattr("netbpf.netns.enter.enter_for_good", refuse)
    visited = [found.inode for found, _ in netns.visit(lambda *each: told.append(each))]
    assert visited == [here()]
    assert (ns.name, refusal) in [(found.name, error) for found, error in told]
    with pytest.raises(KernelError) as raised:
        list(netns.visit())
    assert raised.value is refusal


@pytest.mark.needs("tcx")
def test_tcx_show_leaves_out_what_may_not_be_entered() -> None:
    with hooks.site("tcx-ingress") as site, netns.entered(site.ns):
        document, words = without_entering("tcx", "show", "--all-netns")
    assert document["chains"] == []
    assert f"left out {site.receiver.ns.name}: enter namespace" in words or (
        f"left out {site.sender.ns.name}: enter namespace" in words
    )


def test_netkit_show_leaves_out_what_may_not_be_entered(ns: NetNS) -> None:
    document, words = without_entering("netkit", "show", "--all-netns")
    assert isinstance(document["devices"], list)
    assert f"left out {ns.name}: enter namespace {ns.name}: Operation not permitted" in words
    assert "CAP_SYS_ADMIN" in words


@pytest.mark.needs("netkit")
def test_netkit_devices_here_are_shown_all_the_same(two_ns: tuple[NetNS, NetNS]) -> None:
    with devices.netkit_pair(*two_ns) as (near, far), netns.entered(two_ns[0]):
        document, words = without_entering("netkit", "show", "--all-netns")
        (shown,) = document["devices"]
        assert (shown["name"], shown["netns"]) == (near.name, None)
        assert isinstance(shown["peer"], dict)
        assert (shown["peer"]["ifindex"], shown["peer"]["name"]) == (far.ifindex, None)
        assert f"left out {two_ns[1].name}" in words
        whole = netkit.show_all()
        assert {(each.name, each.netns) for each in whole} >= {
            (near.name, None),
            (far.name, two_ns[1].name),
        }
