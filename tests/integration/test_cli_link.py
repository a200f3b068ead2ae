"""``netbpf link``: pins given and taken, defunct links recognised; bpftool and ls as witnesses."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, libc, netns
from netbpf.bpf import pin as pins
from netbpf.bpf import prog, syscall, uapi
from netbpf.bpf import unpin as unpinning
from netbpf.bpf.bpffs import FOLDER, MOUNT
from netbpf.bpf.fd import FD
from netbpf.bpf.link import Link
from netbpf.errors import BpfError, NotFoundError
from netbpf.netns import NetNS
from tests.netns_fixtures import devices, hooks, namespaces, programs
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.hooks import Site

Load = Callable[..., Program]


def bpftool_links() -> dict[int, Any]:
    """The machine's links with their pins, as bpftool sees them."""
    listed = subprocess.run(
        ["bpftool", "-j", "-f", "link", "show"], capture_output=True, text=True, check=True
    )
    return {each["id"]: each for each in json.loads(listed.stdout)}


def listed(bpffs: Path) -> list[str]:
    """What is on a bpffs, without what the kernel itself puts there (CONFIG_BPF_PRELOAD)."""
    return sorted(name for name in os.listdir(bpffs) if not name.endswith(".debug"))


def attached(site: Site, what: str = "builtin:next", *more: object) -> Any:
    place = [site.noun, "attach", "-n", site.ns.name, site.device, site.hook]
    return ok(*place, what, *more)["attached"]


def shown(link_id: int) -> Any:
    (found,) = ok("link", "show", link_id)["links"]
    return found


def remove_device(site: Site) -> None:
    subprocess.run(["ip", "-n", str(site.ns.name), "link", "del", site.device], check=True)


def test_unpin_of_a_link_takes_own_pins_and_ends_it(site: Site) -> None:
    made = attached(site, "builtin:drop")
    number, (path,) = made["link"]["id"], made["link"]["pins"]
    assert site.drops()
    would = ok("link", "unpin", f"link:{number}", "--dry-run")
    assert (would["dry_run"], would["unpinned"]["pins"]) == (True, [path])
    assert os.path.exists(path)
    done = ok("link", "unpin", f"link:{number}")["unpinned"]
    assert done == {
        "id": number,
        "prog_id": made["prog"]["id"],
        "defunct": False,
        "pins": [path],
        "remaining": {"pins": [], "owners": []},
        "ended": True,
    }
    assert not os.path.exists(path)
    assert number not in bpftool_links()
    assert (site.ids(), site.passes()) == ([], True)


def test_unpin_of_a_path_says_who_holds_the_link_still(site: Site, bpffs: Path) -> None:
    made = attached(site)
    number, (own,) = made["link"]["id"], made["link"]["pins"]
    other = f"{bpffs}/other"
    ok("link", "pin", number, other)
    done = ok("link", "unpin", other)["unpinned"]
    assert (done["pins"], done["remaining"]["pins"], done["ended"]) == ([other], [own], False)
    assert listed(bpffs) == []
    ok("link", "pin", number, other)
    text = netbpf("link", "unpin", f"link:{number}").out
    assert f"link:{number} stays, held by {other}" in text
    assert number in bpftool_links()
    assert ok("link", "unpin", f"pin:{other}")["unpinned"]["ended"] is True
    assert number not in bpftool_links()


def test_unpin_names_the_processes(site: Site) -> None:
    made = attached(site)
    number = made["link"]["id"]
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from netbpf.bpf.link import Link\n"
            f"with Link.from_id({number}): print('up', flush=True); sys.stdin.readline()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout and holder.stdin and holder.stdout.readline() == "up\n"
        done = ok("link", "unpin", number)["unpinned"]
        assert [owner["pid"] for owner in done["remaining"]["owners"]] == [holder.pid]
        assert (done["ended"], site.ids()) == (False, [made["prog"]["id"]])
        holder.stdin.write("\n")


@pytest.mark.needs("tcx")
def test_what_is_no_pin_of_a_link_is_refused(load: Load, bpffs: Path, tmp_path: Path) -> None:
    load(programs.NEXT).pin(f"{bpffs}/program")
    (bpffs / "folder").mkdir()
    (bpffs / "way").symlink_to(bpffs / "program")
    (tmp_path / "file").write_text("")
    cases = {
        f"{bpffs}/program": ("wrong_kind", "pins a program, not a link"),
        f"{bpffs}/folder": ("not_a_pin", "is a folder"),
        f"{bpffs}/way": ("not_a_pin", "is a symbolic link"),
        f"{bpffs}/nothing": ("not_found", "no pinned link"),
        f"{tmp_path}/file": ("not_a_pin", "is not a pin"),
        "id:1": ("usage", "names a program"),
        "link:4294967295": ("not_found", "no link with id"),
    }
    for path, (code, words) in cases.items():
        result = netbpf("-j", "link", "unpin", path)
        assert (result.error["code"], words in result.error["message"]) == (code, True), path
        assert result.status == (2 if code == "usage" else 1)
    assert listed(bpffs) == ["folder", "program", "way"]


def test_a_link_without_own_pins_names_the_others(site: Site, bpffs: Path) -> None:
    made = attached(site, "builtin:next", "--pin", bpffs / "mine")
    result = netbpf("-j", "link", "unpin", f"link:{made['link']['id']}")
    assert (result.status, result.error["code"]) == (1, "not_found")
    assert f"{bpffs}/mine" in result.error["hint"]
    assert site.ids() == [made["prog"]["id"]]


def test_a_folder_called_as_ours_elsewhere_is_not_ours(site: Site, bpffs: Path) -> None:
    (bpffs / "theirs").mkdir()
    (bpffs / "theirs" / FOLDER).mkdir()
    path = f"{bpffs}/theirs/{FOLDER}/it"
    made = attached(site, "builtin:next", "--pin", path)
    assert netbpf("link", "unpin", f"link:{made['link']['id']}").status == 1
    place = [site.noun, "detach", "-n", site.ns.name, site.device, site.hook]
    ok(*place, f"link:{made['link']['id']}")
    assert os.path.exists(path), "detach removes netbpf's own pins only"


def test_defunct_since_it_was_detached(site: Site) -> None:
    made = attached(site)
    number = made["link"]["id"]
    with Link.from_id(number) as link:
        link.detach()
    assert bpftool_links()[number].get("ifindex", 0) == 0
    found = shown(number)
    assert (found["defunct"], found["reason"]) == (True, "detached")
    assert (found["device"], found["netns"]) == (None, None)
    assert "defunct: it was detached" in netbpf("link", "show", number).out
    again = ok("link", "detach", number)["detached"]
    assert (again["was_defunct"], again["pins"]) == (True, made["link"]["pins"])
    assert number not in bpftool_links()


def test_defunct_since_the_device_is_gone(site: Site) -> None:
    made = attached(site)
    number = made["link"]["id"]
    assert (shown(number)["defunct"], shown(number)["reason"]) == (False, None)
    remove_device(site)
    found = shown(number)
    assert (found["defunct"], found["reason"]) == (True, "device_gone")
    assert found["pins"] == made["link"]["pins"]
    done = ok("link", "unpin", number)["unpinned"]
    assert (done["defunct"], done["ended"]) == (True, True)
    assert not os.path.exists(made["link"]["pins"][0])


@pytest.mark.needs("tcx")
def test_defunct_since_the_namespace_is_gone(load: Load) -> None:
    name = namespaces.random_name()
    netns.add(name)
    with NetNS.from_name(name) as ns, devices.device(ns, "dev0"):
        made = ok("tcx", "attach", "-n", name, "dev0", "ingress", "builtin:next")["attached"]
    # The device went with its fixture; the namespace goes without netbpf's own `netns del`.
    subprocess.run(["ip", "netns", "del", name], check=True)
    number, (path,) = made["link"]["id"], made["link"]["pins"]
    assert shown(number)["reason"] == "netns_gone"
    assert ok("link", "unpin", path)["unpinned"]["ended"]


@contextmanager
def raw_link(prog_type: int, attach_type: int, **target: int) -> Iterator[Link]:
    """A link made by hand, of a program of two instructions."""
    with prog.load(prog_type, programs.returning(1), expected_attach_type=attach_type) as loaded:
        attr = uapi.LinkCreateAttr(prog_fd=loaded.fileno(), attach_type=attach_type, **target)
        opened = FD(syscall.link_create(attr))
    with Link(opened) as link:
        yield link


def test_links_of_xdp(ns: NetNS) -> None:
    with NetNS.current() as outside, devices.device(ns) as ifindex, netns.entered(ns):
        made = raw_link(uapi.BPF_PROG_TYPE_XDP, uapi.BPF_XDP, target_ifindex=ifindex)
        with made as link:
            found = shown(link.id)
            assert (found["type"], found["device"], found["netns"]) == ("xdp", "dev0", None)
            with netns.entered(outside):
                assert (shown(link.id)["device"], shown(link.id)["netns"]) == ("dev0", ns.name)
            assert "prog/xdp" in ip_link("dev0")
            assert ok("link", "detach", link.id)["detached"]["was_defunct"] is False
            assert "prog/xdp" not in ip_link("dev0")
            assert (shown(link.id)["defunct"], shown(link.id)["device"]) == (True, None)


def ip_link(name: str) -> str:
    argv = ["ip", "-d", "link", "show", name]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_links_of_a_namespace(ns: NetNS) -> None:
    made = raw_link(uapi.BPF_PROG_TYPE_SK_LOOKUP, uapi.BPF_SK_LOOKUP, target_fd=ns.fileno())
    with made as link:
        found = shown(link.id)
        assert (found["type"], found["hook"], found["netns"]) == ("netns", "sk_lookup", ns.name)
        ok("link", "detach", link.id)
        assert shown(link.id)["defunct"] is True
        assert ok("link", "detach", link.id)["detached"]["was_defunct"] is True


@pytest.mark.needs("tcx")
def test_inside_ip_netns_exec_the_pins_are_an_ancestors() -> None:
    with hooks.site("tcx-ingress") as site:
        made = attached(site)
        (path,) = made["link"]["pins"]
        inside = ["ip", "netns", "exec", str(site.ns.name), sys.executable, "-m", "netbpf", "-j"]

        def run(*argv: str) -> Any:
            done = subprocess.run([*inside, *argv], capture_output=True, text=True, check=True)
            return json.loads(done.stdout)

        (link,) = run("link", "show", str(made["link"]["id"]))["links"]
        assert (link["pins"], link["device"], link["netns"]) == ([path], site.device, None)
        assert path not in [each["pin"] for each in run("link", "gc")["garbage"]]
        remove_device(site)
        assert path in [each["pin"] for each in run("link", "gc")["garbage"]]
        assert run("link", "unpin", path)["unpinned"]["pins"] == [path]
        assert not os.path.exists(path)


def test_a_type_that_cannot_be_detached_says_so() -> None:
    with prog.load(uapi.BPF_PROG_TYPE_RAW_TRACEPOINT, programs.returning(0)) as loaded:
        name = ctypes.create_string_buffer(b"cgroup_setup_root")
        # BPF_RAW_TRACEPOINT_OPEN takes a name and a program where BPF_OBJ_PIN takes path and fd.
        attr = uapi.ObjPinAttr(pathname=ctypes.addressof(name), bpf_fd=loaded.fileno())
        opened = FD(libc.bpf(uapi.BPF_RAW_TRACEPOINT_OPEN, attr))
    with Link(opened) as link, pytest.raises(BpfError) as raised:
        link.detach()
    assert raised.value.errno == errno.EOPNOTSUPP
    assert "the kernel detaches no link of type raw_tracepoint" in str(raised.value)
    assert "last holder" in (raised.value.hint or "")


@pytest.mark.needs("tcx")
def test_unpin_by_another_mount_of_the_same_bpffs(tmp_path: Path) -> None:
    with hooks.site("tcx-ingress") as site:
        made = attached(site)
        (path,) = made["link"]["pins"]
        again = tmp_path / "again"
        again.mkdir()
        subprocess.run(["mount", "--bind", f"{MOUNT}/{FOLDER}", again], check=True)
        try:
            done = ok("link", "unpin", again / os.path.basename(path))["unpinned"]
        finally:
            subprocess.run(["umount", again], check=True)
        assert (done["pins"], done["ended"], site.ids()) == ([path], True, [])


@pytest.mark.needs("tcx")
def test_a_pin_exchanged_meanwhile_stays(load: Load, bpffs: Path) -> None:
    with hooks.site("tcx-ingress") as site:
        one, two = site.attach(load(programs.NEXT)), site.attach(load(programs.PASS))
        assert one.link and two.link
        with one.link, two.link:
            path = f"{bpffs}/it"
            one.link.pin(path)
            (pin,) = [each for each in pins.scan() if each.path == path]
            two.link.pin(f"{bpffs}/new")
            os.rename(f"{bpffs}/new", path)
            assert not pins.remove_exactly(pin)
            with Link.from_pin(path) as there:
                assert there.id == two.link_id
            assert listed(bpffs) == ["it"]
            with pytest.raises(NotFoundError):
                unpinning.chosen(one.link_id or 0)


@pytest.mark.needs("tcx")
def test_a_pin_exchanged_at_the_last_moment_goes_back(
    load: Load, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hooks.site("tcx-ingress") as site:
        one, two = site.attach(load(programs.NEXT)), site.attach(load(programs.PASS))
        assert one.link and two.link
        with one.link, two.link:
            path = f"{bpffs}/it"
            one.link.pin(path)
            two.link.pin(f"{bpffs}/new")
            (pin,) = [each for each in pins.scan() if each.path == path]
            rename = os.rename

            def between(source: str, target: str) -> None:
                monkeypatch.setattr(os, "rename", rename)
                rename(f"{bpffs}/new", path)
                rename(source, target)

            monkeypatch.setattr(os, "rename", between)
            assert not pins.remove_exactly(pin)
            assert listed(bpffs) == ["it"]
            with Link.from_pin(path) as there:
                assert there.id == two.link_id
