"""``netbpf link gc``, and what a namespace's end leaves: found, removed, nothing else touched."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, libc, netns
from netbpf.bpf import pin as pins
from netbpf.bpf.bpffs import FOLDER, MOUNT
from netbpf.bpf.link import Link
from netbpf.bpf.pin_name import name_for
from netbpf.errors import BpfError
from netbpf.netns import NetNS
from netbpf.plumbing import gc, places
from tests.netns_fixtures import devices, hooks, namespaces, programs
from tests.netns_fixtures.cli import Result, netbpf, ok
from tests.netns_fixtures.hooks import Site

Load = Callable[..., Program]

KEYS = {
    *("kind", "pin", "link", "prog", "device", "ifindex", "hook", "netns"),
    *("position", "first", "reason", "removed"),
}


OURS: set[str] = set()
"""The pins that these tests have made below netbpf's folder."""


@pytest.fixture(autouse=True)
def _only_ours_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever else is on this machine, other tests that run now among it, is left alone."""
    remove, places_of_ours = gc.remove, (str(tmp_path), f"{MOUNT}/{FOLDER}/t_")

    def only_ours(found: Iterable[gc.Garbage]) -> list[gc.Garbage]:
        return remove(
            each
            for each in found
            if each.path in OURS or (each.path or "").startswith(places_of_ours)
        )

    monkeypatch.setattr(gc, "remove", only_ours)


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """netbpf's own folder on the machine's bpffs."""
    folder = Path(MOUNT) / FOLDER
    pins.make_folder(str(folder))
    yield folder
    pins.remove_folders([str(folder)])


@pytest.fixture
def elsewhere(bpffs: Path) -> Iterator[tuple[Path, set[str]]]:
    """A bpffs of others with a program, a folder, a folder of ours, and what is on it."""
    with programs.load_returning(programs.NEXT, "theirs") as prog:
        (bpffs / "empty").mkdir()
        (bpffs / "deep").mkdir()
        (bpffs / "deep" / FOLDER).mkdir()
        prog.pin(f"{bpffs}/prog")
        prog.pin(f"{bpffs}/deep/{FOLDER}/prog")
        os.symlink(f"{MOUNT}/nowhere", bpffs / "way")
        yield bpffs, everything(bpffs)


def everything(folder: Path) -> set[str]:
    """Every path below a folder, by ls."""
    found = subprocess.run(["find", folder], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def bpftool_ids() -> set[int]:
    listed = subprocess.run(["bpftool", "-j", "link"], capture_output=True, text=True, check=True)
    return {each["id"] for each in json.loads(listed.stdout)}


def attached(site: Site, what: object = "builtin:next", *more: object) -> Any:
    place = [site.noun, "attach", "-n", site.ns.name, site.device, site.hook]
    made = ok(*place, what, *more)["attached"]
    if made["link"]:
        OURS.update(made["link"]["pins"])
    return made


def collected(*options: str) -> dict[str | None, Any]:
    """What gc lists, by path; every item has all keys."""
    garbage = ok("link", "gc", *options)["garbage"]
    assert all(set(each) == KEYS for each in garbage)
    return {each["pin"]: each for each in garbage}


def remove_device(site: Site) -> None:
    subprocess.run(["ip", "-n", str(site.ns.name), "link", "del", site.device], check=True)


def age(path: object) -> None:
    """As if it had been made long ago."""
    os.utime(str(path), (1, 1), follow_symlinks=False)


def test_defunct_pins_are_listed_then_removed(site: Site, elsewhere: tuple[Path, set[str]]) -> None:
    others, before = elsewhere
    made = attached(site, "builtin:count")
    foreign = attached(site, "builtin:next", "--pin", others / "link")
    (path,) = made["link"]["pins"]
    assert not {path, f"{others}/link"} & set(collected("--all"))
    remove_device(site)
    for options in ((), ("--dry-run", "--yes")):
        listed = collected(*options)
        assert os.path.exists(path)
        assert not any(each.startswith(str(others)) for each in listed if each)
        found = listed[path]
        assert found == {
            "kind": "defunct_pin",
            "pin": path,
            "link": {"id": made["link"]["id"], "type": site.noun},
            "prog": found["prog"],
            "device": site.device,
            "ifindex": site.ifindex,
            "hook": site.hook,
            "netns": None,
            "position": None,
            "first": None,
            "reason": "device_gone",
            "removed": False,
        }
        assert (found["prog"]["id"], found["prog"]["name"]) == (made["prog"]["id"], "count")
    assert collected("--yes")[path]["removed"] is True
    assert not os.path.exists(path)
    assert everything(others) == before | {f"{others}/link"}
    deadline = time.monotonic() + 5
    while made["link"]["id"] in bpftool_ids() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made["link"]["id"] not in bpftool_ids()
    assert foreign["link"]["id"] in bpftool_ids()
    listed = collected("--all", "--yes")
    assert listed[f"{others}/link"]["removed"] is True
    assert everything(others) == before


def test_a_live_link_is_never_garbage(site: Site) -> None:
    made = attached(site, "builtin:drop")
    before = site.chain()
    listed = collected("--yes")
    assert made["link"]["pins"][0] not in listed
    assert site.chain() == before
    assert site.drops()


def test_a_script_that_ran_twice(site: Site) -> None:
    one, two, three = attached(site), attached(site, "builtin:count"), attached(site)
    (path,) = three["link"]["pins"]
    listed = {key: each for key, each in collected().items() if each["netns"] == site.ns.name}
    assert list(listed) == [path]
    found = listed[path]
    assert (found["kind"], found["position"], found["first"]) == ("double", 2, 0)
    assert found["link"] == {"id": three["link"]["id"], "type": site.noun}
    assert (found["device"], found["hook"], found["ifindex"]) == (
        site.device,
        site.hook,
        site.ifindex,
    )
    words = netbpf("link", "gc")
    assert "at 2 the same as at 0" in words.out
    assert "nothing was removed" in words.err
    assert collected("--yes")[path]["removed"] is True
    assert site.ids() == [one["prog"]["id"], two["prog"]["id"]]
    assert not os.path.exists(path)
    assert site.passes()
    assert path not in collected()


def test_the_same_program_with_other_settings_is_no_double(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "limit.c"
    source.write_text(
        "#include <linux/bpf.h>\n"
        "#define SEC(name) __attribute__((section(name), used))\n"
        "volatile const unsigned int limit = 1;\n"
        "volatile unsigned int more = 7;\n"
        'SEC("tc") int limiter(struct __sk_buff *skb)\n'
        "{ return skb->len > limit + more ? -1 : 0; }\n"
        'char _license[] SEC("license") = "GPL";\n'
    )
    path = programs.compile_source(source, tmp_path)
    attached(site, path)
    other = attached(site, path, "--set", "limit=2")
    again = attached(site, path, "--set", "limit=2")
    listed = {key: each for key, each in collected().items() if each["netns"] == site.ns.name}
    assert [each["position"] for each in listed.values()] == [2]
    assert listed[again["link"]["pins"][0]]["first"] == other["position"] == 1


def test_a_double_that_another_holds_stays(site: Site, bpffs: Path) -> None:
    attached(site)
    two = attached(site)
    ok("link", "pin", two["link"]["id"], bpffs / "mine")
    result = netbpf("-j", "link", "gc", "--yes")
    assert result.status == 5
    assert f"it is held by {bpffs}/mine" in result.err
    mine = [each for each in result.json["garbage"] if each["pin"] in two["link"]["pins"]]
    assert [each["removed"] for each in mine] == [False]
    assert len(site.ids()) == 2


def test_doubles_of_others_are_named_only_with_all(site: Site, bpffs: Path) -> None:
    bare = [attached(site, "builtin:next", "--no-link") for _ in range(2)]
    linked = attached(site, "builtin:next", "--pin", bpffs / "theirs")
    here = [each for each in collected("--yes").values() if each["netns"] == site.ns.name]
    assert here == []
    here = [each for each in collected("--all", "--yes").values() if each["netns"] == site.ns.name]
    assert [each["removed"] for each in here] == [False] * len(here)
    assert f"{bpffs}/theirs" in [each["pin"] for each in here]
    assert len(site.ids()) == len(bare) + 1
    assert linked["prog"]["id"] in site.ids()


def test_programs_in_no_chain_and_empty_folders(
    site: Site, load: Load, own_folder: Path, elsewhere: tuple[Path, set[str]]
) -> None:
    others, before = elsewhere
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["rm", "-rf", *map(str, own_folder.glob("t_*"))], check=True)
        waiting, running = load(programs.NEXT, "waiting"), load(programs.NEXT, "running")
        fresh = load(programs.NEXT, "fresh")
        for prog, name in ((waiting, "t_waiting"), (running, "t_running"), (fresh, "t_fresh")):
            prog.pin(f"{own_folder}/{name}")
        site.attach(running, link=False)
        (own_folder / "t_a" / "t_b").mkdir(parents=True)
        (own_folder / "t_full").mkdir()
        os.symlink("/", own_folder / "t_full" / "way")
        (own_folder / "t_new").mkdir()
        stack.callback(subprocess.run, ["rm", "-rf", *map(str, own_folder.glob("t_*"))], check=True)
        for name in ("t_waiting", "t_running", "t_a/t_b", "t_a", "t_full"):
            age(own_folder / name)
        names = {f"{own_folder}/{name}" for name in ("t_waiting", "t_a/t_b", "t_a")}
        listed = collected()
        assert {each for each in listed if each and "/t_" in each} == names
        assert listed[f"{own_folder}/t_waiting"]["kind"] == "no_chain"
        assert listed[f"{own_folder}/t_waiting"]["prog"]["id"] == waiting.id
        assert listed[f"{own_folder}/t_a"]["kind"] == "empty_folder"
        listed = collected("--all", "--yes")
        assert all(listed[name]["removed"] for name in names)
        assert {path.name for path in own_folder.glob("t_*")} == {
            *("t_running", "t_fresh", "t_full", "t_new"),
        }
        assert everything(others) == before


@pytest.mark.needs("tcx")
def test_our_folder_as_a_way_elsewhere_is_not_followed(load: Load, bpffs: Path) -> None:
    with hooks.site("tcx-ingress") as site:
        (bpffs / "cilium").mkdir()
        attached(site, "builtin:next", "--pin", bpffs / "cilium" / "link")
        (bpffs / FOLDER).symlink_to(bpffs / "cilium")
        remove_device(site)
        assert not any(str(bpffs) in (each or "") for each in collected("--yes"))
        assert os.listdir(bpffs / "cilium") == ["link"]


@pytest.mark.needs("tcx")
def test_what_is_mounted_over_a_bpffs_is_not_looked_through(bpffs: Path) -> None:
    with hooks.site("tcx-ingress") as site:
        attached(site, "builtin:next", "--pin", bpffs / "link")
        libc.mount("tmpfs", str(bpffs), "tmpfs")
        try:
            (bpffs / FOLDER / "empty").mkdir(parents=True)
            age(bpffs / FOLDER / "empty")
            assert not any(str(bpffs) in (each or "") for each in collected("--all", "--yes"))
            assert (bpffs / FOLDER / "empty").is_dir()
        finally:
            libc.umount(str(bpffs))


@pytest.mark.needs("tcx")
def test_hostile_names(tmp_path: Path) -> None:
    """A mount point of any bytes, and a pin's name with an escape sequence."""
    folder = tmp_path / "a b\tü\\040"
    folder.mkdir()
    libc.mount("bpf", str(folder), "bpf")
    try:
        with hooks.site("tcx-ingress") as site:
            os.mkdir(folder / FOLDER)
            path = folder / FOLDER / "\x1b[31mred\udcff"
            attached(site, "builtin:next", "--pin", path)
            remove_device(site)
            result = netbpf("link", "gc")
            assert "\x1b" not in result.out
            assert "\\x1b[31mred" in result.out
            assert netbpf("link", "gc", "--yes").status == 0
            assert not path.exists()
    finally:
        libc.umount(str(folder), libc.MNT_DETACH)


@pytest.mark.needs("tcx")
def test_what_cannot_be_removed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "no")

    with hooks.site("tcx-ingress") as site:
        one, two = attached(site), attached(site, "builtin:count")
        remove_device(site)
        with monkeypatch.context() as patch:
            patch.setattr("netbpf.bpf.pin.os.rename", refuse)
            result = netbpf("-j", "link", "gc", "--yes")
        assert result.status == 1
        assert "Read-only file system (EROFS)" in result.err
        paths = one["link"]["pins"] + two["link"]["pins"]
        mine = [each for each in result.json["garbage"] if each["pin"] in paths]
        assert [each["removed"] for each in mine] == [False, False]
        assert all(os.path.exists(path) for path in paths)


@pytest.mark.needs("tcx")
def test_a_link_in_a_namespace_out_of_sight_stays() -> None:
    name = namespaces.random_name()
    netns.add(name)
    with NetNS.from_name(name) as ns, devices.device(ns, "dev0"):
        made = ok("tcx", "attach", "-n", name, "dev0", "ingress", "builtin:next")["attached"]
        OURS.update(made["link"]["pins"])
        # Only this process's descriptor holds it now.
        subprocess.run(["ip", "netns", "del", name], check=True)
        result: Result = netbpf("-j", "link", "gc", "--yes")
        assert made["link"]["pins"][0] not in [each["pin"] for each in result.json["garbage"]]
        assert f"left alone: link:{made['link']['id']}" in result.err
        with netns.entered(ns):
            assert ok("tcx", "show", "dev0", "ingress")["chains"][0]["entries"]
    assert collected("--yes")[made["link"]["pins"][0]]["reason"] == "netns_gone"


@pytest.mark.needs("tcx")
def test_the_places_of_links_are_a_library_function() -> None:
    with hooks.site("tcx-ingress") as one, hooks.site("tcx-egress") as two:
        made = [attached(each) for each in (one, two)]
        infos = []
        for each in made:
            with Link.from_id(each["link"]["id"]) as link:
                infos.append(link.info())
        assert places.of_links(infos) == {
            info.id: (site.ns.name, site.device)
            for info, site in zip(infos, (one, two), strict=True)
        }
        with netns.entered(one.ns):
            assert places.of_links(infos)[infos[0].id] == (None, one.device)


@pytest.mark.needs("tcx")
def test_two_at_once_remove_each_pin_once() -> None:
    with hooks.site("tcx-ingress") as site:
        made = {attached(site)["link"]["pins"][0] for _ in range(10)}
        remove_device(site)
        both = [gc.find(), gc.find()]
        mine = [each for found in both for each in found.garbage if each.path in made]
        done = gc.remove(mine)
        removed = [str(each.path) for each in done if each.removed]
        assert sorted(removed) == sorted(made)


def test_del_of_a_namespace_takes_our_pins_along(bpffs: Path) -> None:
    names = [namespaces.random_name() for _ in range(2)]
    ok("netns", "add", *names)
    paths = []
    for name in names:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        ip = ["ip", "-n", name, "link", "add", "d0", "type", "veth", "peer", "name", "d1"]
        subprocess.run(ip, check=True)
        for device, hook in (("d0", "ingress"), ("d1", "egress")):
            made = ok("tcx", "attach", "-n", name, device, hook, "builtin:next")["attached"]
            paths += made["link"]["pins"]
    ok("tcx", "attach", "-n", names[0], "d0", "egress", "builtin:next", "--pin", bpffs / "theirs")
    deleted = ok("netns", "del", *names)
    assert deleted["deleted"] == names
    assert sorted(deleted["pins"]) == sorted(paths)
    assert not any(os.path.exists(path) for path in paths)
    assert os.path.exists(bpffs / "theirs")


@pytest.mark.needs("netkit")
def test_del_of_a_namespace_ends_netkit_pairs_and_their_pins() -> None:
    name = namespaces.random_name()
    ok("netns", "add", name)
    with namespaces.namespace() as home:
        ok("netkit", "add", "-n", name, "nk0", "--peer", "eth0", "--peer-netns", home.name)
        made = ok("netkit", "attach", "-n", name, "nk0", "peer", "builtin:next")["attached"]
        assert ok("netns", "del", name)["pins"] == made["link"]["pins"]


def test_a_namespace_that_a_process_holds_keeps_its_links_and_pins() -> None:
    with hooks.site("tcx-ingress") as site, NetNS.from_name(str(site.ns.name)):
        made = attached(site)
        with subprocess.Popen(
            ["ip", "netns", "exec", str(site.ns.name), "cat"], stdin=subprocess.PIPE
        ) as holder:
            inode = f"net:[{site.ns.inode}]"
            while os.readlink(f"/proc/{holder.pid}/ns/net") != inode:
                time.sleep(0.005)
            began = time.monotonic()
            result = netbpf("-j", "netns", "del", site.ns.name)
            assert result.json["pins"] == []
            assert made["link"]["pins"][0] in result.err
            assert "something holds the namespace" in result.err
            assert time.monotonic() - began < 2, "who is seen to hold it is not waited for"
            assert len(site.ids()) == 1
            subprocess.run(
                ["ip", "netns", "attach", str(site.ns.name), str(holder.pid)], check=True
            )
            assert holder.stdin
            holder.stdin.close()


def test_a_thousand_pins_are_quick() -> None:
    with namespaces.namespace() as ns, devices.device(ns) as ifindex, ExitStack() as stack:
        folder = f"{MOUNT}/{FOLDER}"
        pins.make_folder(folder)
        with programs.load_returning(programs.NEXT, "many") as prog, netns.entered(ns):
            from netbpf import tcx

            placed = tcx.attach(ifindex, "ingress", prog)
            assert placed.link is not None
            with placed.link as link:
                link.detach()
                for number in range(1000):
                    name = name_for(ns.inode, "dev0", ifindex, "ingress", "many", number + 1)
                    path = f"{folder}/{name}"
                    link.pin(path)
                    stack.callback(_unlink, path)
        began = time.process_time()
        listed = [each for each in gc.find().garbage if each.prog_id == placed.prog_id]
        looking = time.process_time() - began
        began = time.process_time()
        OURS.update(str(each.path) for each in listed)
        removed = [each for each in gc.remove(listed) if each.removed]
        removing = time.process_time() - began
        assert (len(listed), len(removed)) == (1000, 1000)
        print(f"looking {looking:.3f} s, removing {removing:.3f} s of CPU")
        assert looking < 2
        assert removing < 3


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def test_without_rights_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object, __: object) -> None:
        raise OSError(1, "no")

    with hooks.site("tcx-ingress") as site:
        attached(site)
        monkeypatch.setattr("netbpf.plumbing.places.query", refuse)
        with pytest.raises(BpfError, match="not permitted"):
            gc.find()
