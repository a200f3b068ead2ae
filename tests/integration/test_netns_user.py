"""Inside a user namespace: what works there, and which words there are for what does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from netbpf import netns
from netbpf.netns import NetNS
from tests.netns_fixtures.namespaces import random_name

NETBPF = f"{sys.executable} -m netbpf"


def inside(kinds: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell's as root of a new user namespace."""
    return subprocess.run(
        ["unshare", f"-Ur{kinds}", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def documents(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_with_mounts_and_a_network_of_its_own_all_but_chains_works() -> None:
    one, two = random_name(), random_name()
    script = f"""
set -e
{NETBPF} -j netns add {one} {two}
{NETBPF} netns exec {one} -- readlink /proc/self/ns/net | sed 's/.*/"&"/'
{NETBPF} netns exec {one} -- ls /sys/class/net | sed 's/.*/"&"/'
{NETBPF} -j netns set {one} --nsid 5
ip link add d0 type veth peer name d1
{NETBPF} -j netns move d0 {one} --name eth0
{NETBPF} -j netns show -n {two} {one}
{NETBPF} -j netns del {one} {two}
"""
    done = inside("mn", script)
    assert done.returncode == 0, done.stdout + done.stderr
    added, link, device, given, moved, shown, deleted = documents(done.stdout)
    inode = added["added"][0]["inode"]
    assert (link, device) == (f"net:[{inode}]", "lo")
    assert given["namespace"]["nsid"] == 5
    assert moved["moved"][0]["name"] == "eth0"
    (found,) = shown["namespaces"]
    assert (found["name"], found["inode"], found["chains"]) == (one, inode, [])
    assert set(found["devices"]) == {"lo", "eth0"}
    assert "chains are not shown" in done.stderr
    assert "CAP_NET_ADMIN in the initial user namespace" in done.stderr
    assert deleted["deleted"] == [one, two]
    assert not {one, two} & set(os.listdir(netns.RUN_DIR))


def test_what_belongs_to_another_user_namespace(ns: NetNS) -> None:
    for words, errno, hint in (
        (f"netns exec {ns.name} true", "EPERM", "in the user namespace that owns it"),
        (f"-n {ns.name} tcx show", "EPERM", "in the user namespace that owns it"),
        (f"netns del {ns.name}", "EBUSY", "a user namespace further out"),
        ("netns exec pid:1 true", "EACCES", "CAP_SYS_PTRACE"),
    ):
        done = inside("mn", f"{NETBPF} -j {words}")
        assert errno == "EBUSY" or done.returncode == 4, words
        (document,) = documents(done.stdout)
        assert document["error"]["errno"] == errno, words
        assert hint in document["error"]["hint"]
    done = inside("mn", f"{NETBPF} -j netns show {ns.name}")
    assert done.returncode == 0, done.stdout
    (shown,) = documents(done.stdout)[0]["namespaces"]
    assert (shown["name"], shown["inode"], shown["devices"]) == (ns.name, ns.inode, [])
    assert f"nothing more of {ns.name}: enter namespace" in done.stderr
    assert ns.name in netns.list_names()


def test_without_mounts_of_its_own_there_are_no_names() -> None:
    name = random_name()
    for kinds in ("n", ""):
        done = inside(kinds, f"{NETBPF} -j netns add {name}")
        (document,) = documents(done.stdout)
        assert (done.returncode, document["error"]["errno"]) == (4, "EPERM")
        assert "--mount" in document["error"]["hint"]
        assert name not in os.listdir(netns.RUN_DIR), "nothing is left behind"


def test_without_a_network_of_its_own_there_is_no_way_back() -> None:
    """The thread could enter what it made, and not return: so it does not leave."""
    name = random_name()
    script = f"""
{NETBPF} netns add {name} >/dev/null || exit 9
{NETBPF} -j -n {name} netns show {name} || exit 8
{sys.executable} -c '
from netbpf import netns
from netbpf.errors import KernelError
with netns.NetNS.from_name("{name}") as ns:
    print(str(netns.may_return()).lower())
    print(netns.run_in(ns, lambda: int(ns.is_current())))
    try:
        with netns.entered(ns):
            print("inside")
    except KernelError as error:
        print(chr(34) + error.reason + chr(34))
'
{NETBPF} netns del {name} >/dev/null
"""
    done = inside("m", script)
    assert done.returncode == 0, done.stdout + done.stderr
    shown, may_return, in_thread, reason = documents(done.stdout)
    assert shown["namespaces"][0]["devices"] == ["lo"]
    assert (may_return, in_thread) == (False, 1)
    assert reason == "there would be no way back"
