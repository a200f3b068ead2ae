"""``netbpf netns``: seen by ``ip netns`` and /proc, and the other way round."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netbpf import netns
from tests.netns_fixtures import devices
from tests.netns_fixtures.cli import netbpf, ok, process
from tests.netns_fixtures.namespaces import namespace, random_name


def ip_names() -> list[str]:
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in listed.stdout.splitlines()]


def test_add_show_del() -> None:
    red, blue = random_name(), random_name()
    added = ok("netns", "add", red, blue)["added"]
    try:
        assert {red, blue} <= set(ip_names())
        shown = {each["name"]: each for each in ok("netns", "show")["namespaces"]}
        for each in added:
            found = shown[each["name"]]
            assert set(found) == {"name", "inode", "nsid", "pids", "devices", "chains", "links"}
            assert found["inode"] == each["inode"]
            assert found["inode"] == os.stat(f"/run/netns/{each['name']}").st_ino
            assert "lo" in found["devices"]
    finally:
        ok("netns", "del", red, blue)
    assert not {red, blue} & set(ip_names())


def test_a_process_is_enough_to_be_shown() -> None:
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo up; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin and holder.stdout
        holder.stdout.readline()
        inode = os.stat(f"/proc/{holder.pid}/ns/net").st_ino
        found = [n for n in ok("netns", "show")["namespaces"] if n["inode"] == inode]
        assert [(each["name"], each["pids"]) for each in found] == [(None, [holder.pid])]
        chains = ok("tcx", "show", "-n", f"pid:{holder.pid}")["chains"]
        assert chains == []
        holder.stdin.close()


def test_exec_runs_inside_with_its_own_status() -> None:
    with namespace() as ns:
        result = process("netns", "exec", ns.name, "--", "readlink", "/proc/self/ns/net")
        assert result.stdout.strip() == f"net:[{ns.inode}]"
        assert process("netns", "exec", ns.name, "--", "sh", "-c", "exit 7").returncode == 7
        assert process("netns", "exec", ns.name, "sh", "-c", "kill -9 $$").returncode == -9
        assert process("netns", "exec", ns.name, "ls", "-d", "/").stdout == "/\n"


def test_adding_one_taken_name_leaves_none_of_the_others() -> None:
    with namespace() as ns:
        fresh = random_name()
        result = netbpf("-j", "netns", "add", fresh, ns.name)
        assert (result.status, result.error["code"]) == (5, "conflict")
        assert fresh not in ip_names()
        assert ns.name in ip_names()


def test_deleting_one_missing_name_deletes_none() -> None:
    with namespace() as ns:
        result = netbpf("-j", "netns", "del", ns.name, "no-such-namespace")
        assert (result.status, result.error["code"]) == (1, "not_found")
        assert ns.name in ip_names()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "x" * 256, "a\nb", "../../etc/passwd"])
def test_hostile_names(name: str) -> None:
    before = netns.list_names()
    for verb in ("add", "del"):
        result = netbpf("-j", "netns", verb, "--", name)
        assert (result.status, result.error["code"]) == (2, "usage"), result.out
    assert netns.list_names() == before


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["netns", "exec", "no-such-namespace", "true"], 1, "not_found"),
        (["netns", "exec", "pid:4000000", "true"], 1, "not_found"),
        (["netns", "exec", "/etc/passwd", "true"], 1, "not_found"),
        (["netns", "exec"], 2, "usage"),
        (["netns", "add"], 2, "usage"),
        (["netns"], 2, "usage"),
    ],
)
def test_bad_input(arguments: list[str], status: int, code: str) -> None:
    result = netbpf("-j", *arguments)
    assert (result.status, result.error["code"]) == (status, code), result.out


def test_a_missing_command_leaves_us_where_we_were() -> None:
    with namespace() as ns:
        result = netbpf("-j", "netns", "exec", ns.name, "no-such-command")
        assert (result.status, result.error["code"]) == (1, "not_found")


def test_dry_run() -> None:
    name = random_name()
    assert ok("netns", "add", name, "--dry-run")["dry_run"] is True
    assert name not in ip_names()
    with namespace() as ns:
        ok("netns", "del", ns.name, "--dry-run")
        assert ns.name in ip_names()


def test_del_takes_what_an_interrupted_add_left() -> None:
    name = random_name()
    (netns.RUN_DIR / name).touch()
    refused = netbpf("tcx", "show", "-n", name)
    assert f"netbpf netns del {name}" in refused.err
    assert ok("netns", "del", name) == {"schema_version": 1, "deleted": [name], "pins": []}
    assert not (netns.RUN_DIR / name).exists()
    assert netbpf("netns", "del", name).status == 1


def test_del_waits_a_while_for_who_cannot_be_seen() -> None:
    """A descriptor alone holds the namespace: its link lives on, and so does its pin."""
    name = random_name()
    netns.add(name)
    with netns.NetNS.from_name(name) as held, devices.device(held, "dev0"):
        made = ok("tcx", "attach", "-n", name, "dev0", "ingress", "builtin:next")["attached"]
        result = netbpf("-j", "netns", "del", name)
        (path,) = made["link"]["pins"]
        assert (result.status, result.json["pins"], os.path.exists(path)) == (0, [], True)
        assert f"something holds the namespace, so its links stay: {path}" in result.err
    os.unlink(path)


@pytest.fixture
def path() -> Iterator[Path]:
    """A free path in the folder of names; what is there afterwards goes away."""
    netns.RUN_DIR.mkdir(exist_ok=True)
    made = netns.RUN_DIR / random_name()
    yield made
    if made.is_dir() and not made.is_symlink():
        made.rmdir()
    else:
        made.unlink(missing_ok=True)


def refused(verb: str, name: str) -> None:
    words = [name, "true"] if verb == "exec" else [name]
    result = netbpf("-j", "netns", verb, *words)
    assert result.status == (5 if verb == "add" else 1), result.out
    assert f"{netns.RUN_DIR / name} " in result.error["hint"]


@pytest.mark.parametrize("kind", ["folder", "fifo", "file", "link"])
def test_what_is_there_and_is_no_namespace(path: Path, kind: str) -> None:
    """It is refused by every verb, without being opened, and stays; only a link can be deleted."""
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "file":
            path.write_text("somebody's")
        case "link":
            path.symlink_to("/etc/passwd")
    for verb in ("add", "exec", "show"):
        refused(verb, path.name)
    assert path.name not in {each["name"] for each in ok("netns", "show")["namespaces"]}
    if kind == "link":
        ok("netns", "del", path.name)
        assert not path.is_symlink() and Path("/etc/passwd").exists()
    else:
        refused("del", path.name)
        assert netbpf("netns", "del", path.name, "--dry-run").status == 1
        assert path.exists()


def test_of_a_link_only_the_link_goes(path: Path) -> None:
    """As `ln -s /proc/PID/ns/net` of container users; ip would unmount what it leads to."""
    with namespace() as ns:
        path.symlink_to(netns.RUN_DIR / str(ns.name))
        (shown,) = ok("netns", "show", path.name)["namespaces"]
        assert shown["inode"] == ns.inode
        assert process("netns", "exec", path.name, "true").returncode == 0
        assert netbpf("netns", "add", path.name).status == 5
        ok("netns", "del", path.name)
        assert not path.is_symlink()
        assert os.stat(netns.RUN_DIR / str(ns.name)).st_ino == ns.inode
    path.symlink_to("nowhere")
    refused("show", path.name)
    refused("add", path.name)
    assert "leads nowhere" in netbpf("netns", "show", path.name).err
    ok("netns", "del", path.name)
    assert not path.is_symlink()


def test_a_link_into_a_process_that_may_not_be_looked_into(path: Path) -> None:
    path.symlink_to("/proc/1/ns/mnt")
    ok("netns", "del", path.name)
    assert not path.is_symlink() and os.path.exists("/proc/1")


@pytest.mark.parametrize(
    "name", ["-x", "--", "-", "a b", " ", "*", "$(id)", "ünï", "\udcff\udcfe", "x" * 255, "..."]
)
def test_odd_names_that_the_kernel_takes(name: str) -> None:
    """Both tools make, find and remove them; what ip made is ours to delete."""
    for add, delete in (("netbpf", "ip"), ("ip", "netbpf")):
        if add == "ip":
            made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
            if made.returncode:
                continue
        else:
            ok("netns", "add", "--", name)
        try:
            inode = os.stat(netns.RUN_DIR / name).st_ino
            (shown,) = ok("netns", "show", "--", name)["namespaces"]
            assert (shown["name"], shown["inode"]) == (name, inode)
            assert process("netns", "exec", "--", name, "true").returncode == 0
            assert process("netns", "show", "--", name).returncode == 0
        finally:
            if delete == "ip":
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            if os.path.lexists(netns.RUN_DIR / name):
                ok("netns", "del", "--", name)
        assert not os.path.lexists(netns.RUN_DIR / name)
