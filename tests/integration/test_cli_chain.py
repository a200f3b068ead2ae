"""``netbpf tcx`` and ``netbpf netkit``: the grammar, the documents, and what they change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, netns
from netbpf.bpf import pin as pins
from netbpf.bpf.bpffs import MOUNT
from netbpf.bpf.link import Link
from tests.netns_fixtures import hooks, programs
from tests.netns_fixtures.cli import Result, netbpf, ok, process
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.namespaces import random_name

Load = Callable[..., Program]


def place(site: Site, verb: str) -> list[object]:
    return [site.noun, verb, "-n", site.ns.name, site.device, site.hook]


def run(site: Site, verb: str, *rest: object) -> Result:
    return netbpf("-j", *place(site, verb), *rest)


def attached(site: Site, *rest: object) -> Any:
    return ok(*place(site, "attach"), *rest)["attached"]


def shown(site: Site) -> Any:
    verb = "show" if site.noun == "tcx" else "chain"
    (chain,) = ok(*place(site, verb))["chains"]
    return chain


def names(site: Site) -> list[str]:
    return [entry["prog"]["name"] for entry in shown(site)["entries"]]


def test_attach_prints_what_it_made(site: Site) -> None:
    made = attached(site, "builtin:count")
    assert set(made) == {"device", "ifindex", "hook", "position", "revision", "prog", "link"}
    assert (made["device"], made["ifindex"], made["hook"]) == (site.device, site.ifindex, site.hook)
    assert (made["position"], made["revision"], made["prog"]["name"]) == (0, 2, "count")
    (path,) = made["link"]["pins"]
    with Link.from_pin(path) as link:
        assert (link.id, link.info().prog_id) == (made["link"]["id"], made["prog"]["id"])
        assert link.info().ifindex == site.ifindex
    assert path.startswith(f"{MOUNT}/netbpf/net{site.ns.inode}_")
    assert "." not in os.path.basename(path)


def test_show_document(site: Site) -> None:
    one = attached(site, "builtin:count")
    two = attached(site, "builtin:next", "--no-link", "--before", "name:count")
    assert (two["position"], two["link"]) == (0, None)
    chain = shown(site)
    assert set(chain) == {
        *("netns", "device", "ifindex", "hook", "revision", "entries", "filters", "netkit")
    }
    assert (chain["netns"], chain["revision"]) == (site.ns.name, 3)
    assert [entry["position"] for entry in chain["entries"]] == [0, 1]
    bare, linked = chain["entries"]
    assert set(bare["prog"]) == {"id", "name", "tag", "type"}
    assert (bare["prog"]["name"], bare["prog"]["type"], bare["link"]) == ("next", "sched_cls", None)
    assert linked["link"] == {"id": one["link"]["id"], "pins": one["link"]["pins"], "owners": []}


def test_every_position(site: Site) -> None:
    attached(site, "builtin:count")
    assert attached(site, "builtin:pass", "--first")["position"] == 0
    assert attached(site, "builtin:next", "--after", "name:pass")["position"] == 1
    assert attached(site, "builtin:drop", "--last")["position"] == 3
    assert names(site) == ["pass", "next", "count", "drop"]
    link = shown(site)["entries"][2]["link"]["id"]
    again = attached(site, "builtin:count", "--before", f"link:{link}", "--no-link")
    assert again["position"] == 2
    attached(site, "builtin:next", "--replace", f"id:{again['prog']['id']}", "--no-link")
    assert names(site) == ["pass", "next", "next", "count", "drop"]


def test_drop_update_detach_seen_by_packets(site: Site) -> None:
    attached(site, "builtin:count")
    assert site.passes()
    wall = attached(site, "builtin:drop", "--first")
    assert site.drops()
    updated = ok(*place(site, "update"), "name:drop", "builtin:next")["updated"]
    assert updated["link"] == wall["link"]
    assert (updated["position"], updated["old_prog"]["id"]) == (0, wall["prog"]["id"])
    assert site.passes()
    counted = ok(
        "map",
        "dump",
        f"id:{ok('prog', 'show', f'id:{prog_id(site, 1)}')['programs'][0]['map_ids'][0]}",
    )
    assert sum(cpu["packets"] for cpu in counted["elements"][0]["value"]) >= 6
    gone = ok(*place(site, "detach"), "name:next")["detached"]
    assert gone["link"]["pins"] == wall["link"]["pins"]
    assert not os.path.exists(gone["link"]["pins"][0])
    assert names(site) == ["count"]


def prog_id(site: Site, position: int) -> int:
    return int(shown(site)["entries"][position]["prog"]["id"])


def test_object_file_of_several_programs(
    site: Site, compiled: Callable[[str], Path], tmp_path: Path
) -> None:
    path = compiled("trace")
    several = run(site, "attach", path)
    assert several.status == 1
    assert several.error["code"] == "object_file"
    assert all(name in several.error["message"] for name in ("one", "two", "three"))
    assert attached(site, f"{path}:two")["prog"]["name"] == "two"
    missing = run(site, "attach", f"{path}:four")
    assert (missing.status, missing.error["code"]) == (1, "object_file")


def test_loaded_programs_by_reference(site: Site, load: Load, bpffs: Path) -> None:
    name = f"t{os.getpid()}_{time.monotonic_ns() % 10**6}"[:15]
    prog = load(programs.NEXT, name)
    prog.pin(str(bpffs / "it"))
    for reference in (f"id:{prog.id}", f"name:{name}", f"pin:{bpffs}/it", f"{bpffs}/it"):
        assert attached(site, reference, "--no-link")["prog"]["id"] == prog.id
        ok(*place(site, "detach"), f"id:{prog.id}")
    ok(*place(site, "attach"), f"id:{prog.id}", "--no-link")
    assert run(site, "attach", f"id:{prog.id}").error["errno"] == "EEXIST"


def test_a_name_of_two_lists_them(site: Site, load: Load) -> None:
    name = f"twin{time.monotonic_ns() % 10**9}"
    twins = [load(programs.NEXT, name), load(programs.PASS, name)]
    result = run(site, "attach", f"name:{name}")
    assert (result.status, result.error["code"]) == (1, "ambiguous")
    assert all(f"id:{twin.id}" in result.error["message"] for twin in twins)


def test_pin_where_one_likes(site: Site, bpffs: Path) -> None:
    path = bpffs / "deep" / "link"
    made = attached(site, "builtin:pass", "--pin", path)
    assert made["link"]["pins"] == [str(path)]
    gone = ok(*place(site, "detach"), f"pin:{path}")["detached"]
    assert gone["link"]["pins"] == [str(path)]
    assert not path.exists()


@pytest.mark.parametrize("bad", ["taken", "a.dot", "/tmp/elsewhere", "taken/below"])
def test_bad_pin_attaches_nothing(site: Site, bpffs: Path, load: Load, bad: str) -> None:
    load(programs.NEXT, "x").pin(str(bpffs / "taken"))
    result = run(site, "attach", "builtin:drop", "--pin", bpffs / bad)
    assert result.status == (5 if bad == "taken" else 1), result.out
    assert str(bpffs / bad) in result.error["message"] or bad == "/tmp/elsewhere"
    assert shown(site)["entries"] == []
    assert site.passes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_hold_until_a_signal(site: Site, number: int) -> None:
    argv = [sys.executable, "-m", "netbpf", "-j", *map(str, place(site, "attach"))]
    with subprocess.Popen(
        [*argv, "builtin:drop", "--hold"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        made = json.loads(holder.stdout.readline())["attached"]
        assert made["link"]["pins"] == []
        (owner,) = shown(site)["entries"][0]["link"]["owners"]
        assert owner["pid"] == holder.pid
        assert site.drops()
        holder.send_signal(number)
        assert holder.wait(timeout=30) == 0
    assert shown(site)["entries"] == []
    assert site.passes()
    assert not site.own_pins()


def test_killed_holder_leaves_nothing(site: Site) -> None:
    argv = [sys.executable, "-m", "netbpf", "-j", *map(str, place(site, "attach"))]
    with subprocess.Popen(
        [*argv, "builtin:drop", "--hold"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    assert shown(site)["entries"] == []


def test_dry_run_changes_nothing(site: Site) -> None:
    attached(site, "builtin:count")
    before = shown(site)
    would = ok(*place(site, "attach"), "builtin:drop", "--first", "--dry-run")
    assert would["dry_run"] is True
    assert (would["attached"]["position"], would["attached"]["prog"]["name"]) == (0, "drop")
    ok(*place(site, "update"), "name:count", "builtin:drop", "--dry-run")
    ok(*place(site, "detach"), "name:count", "--dry-run")
    assert shown(site) == before


def test_expected_revision(site: Site) -> None:
    attached(site, "builtin:count", "--no-link")
    stale = run(site, "attach", "builtin:drop", "--expected-revision", 9)
    assert (stale.status, stale.error["code"], stale.error["errno"]) == (
        5,
        "stale_revision",
        "ESTALE",
    )
    assert attached(site, "builtin:next", "--expected-revision", 2)["revision"] == 3


def test_update_refuses_another_old(site: Site) -> None:
    attached(site, "builtin:count")
    other = attached(site, "builtin:next")["prog"]["id"]
    result = run(site, "update", "name:count", "builtin:drop", "--old", f"id:{other}")
    assert (result.status, result.error["code"]) == (5, "conflict")
    assert names(site) == ["count", "next"]


@pytest.mark.parametrize(
    ("rest", "status", "code", "words"),
    [
        (["42"], 2, "usage", "id:42 or link:42"),
        (["nonsense"], 1, "not_found", "nonsense"),
        (["link:1"], 2, "usage", "is a link"),
        (["id:4000000000"], 1, "not_found", "no program with id 4000000000"),
        (["name:no_such_prog"], 1, "not_found", "name:no_such_prog"),
        (["tag:0123456789abcdef"], 1, "not_found", "tag:0123456789abcdef"),
        (["pin:/sys/fs/bpf/no_such_pin"], 1, "not_found", "no_such_pin"),
        (["pin:/etc/passwd"], 1, "not_a_pin", "not a pin"),
        (["builtin:no_such"], 1, "not_found", "no built-in program no_such"),
        (["/etc/passwd"], 1, "object_file", "not an ELF file"),
        (["/no/such/file.o"], 1, "not_found", "/no/such/file.o"),
        (["builtin:drop", "--before", "7"], 2, "usage", "id:7 or link:7"),
        (["builtin:drop", "--before", "name:x"], 1, "not_found", "name:x"),
        (["builtin:drop", "--first", "--last"], 2, "usage", "contradict"),
        (["builtin:drop", "--hold", "--pin", "/sys/fs/bpf/x"], 2, "usage", "contradict"),
        (["builtin:drop", "--no-link", "--hold"], 2, "usage", "--no-link"),
        (["builtin:drop", "--replace", "name:x", "--link"], 2, "usage", "--replace"),
        (["builtin:drop", "--expected-revision", "x"], 2, "usage", "not a valid int"),
        (["builtin:drop", "--set", "x"], 2, "usage", "VAR=VALUE"),
        (["builtin:drop", "--set", "no_such=1"], 1, "not_found", "no_such"),
        (["builtin:drop", "--wrong"], 2, "usage", "--wrong"),
        ([], 2, "usage", "PROG"),
    ],
)
@pytest.mark.needs("tcx")
def test_bad_input(rest: list[str], status: int, code: str, words: str) -> None:
    with hooks.site("tcx-ingress") as site:
        result = run(site, "attach", *rest)
        assert (result.status, result.error["code"]) == (status, code), result.out
        assert words in result.error["message"]
        assert shown(site)["entries"] == []


@pytest.mark.needs("tcx")
def test_bad_places() -> None:
    with hooks.site("tcx-ingress") as site:
        ns = site.ns.name
        for arguments, status, code in (
            (["tcx", "attach", "-n", ns, "nope", "ingress", "builtin:pass"], 1, "not_found"),
            (["tcx", "attach", "-n", ns, "x" * 40, "ingress", "builtin:pass"], 1, "not_found"),
            (["tcx", "attach", "-n", ns, site.device, "sideways", "builtin:pass"], 2, "usage"),
            (
                ["tcx", "attach", "-n", "no-such-ns", site.device, "ingress", "builtin:pass"],
                1,
                "not_found",
            ),
            (["tcx", "show", "-n", "pid:0"], 2, "usage"),
            (["tcx", "show", "-n", "../../etc/passwd"], 1, "not_found"),
            (["tcx", "show", "-n", ns, "nope"], 1, "not_found"),
            (["tcx", "detach", "-n", ns, site.device, "ingress", "name:x"], 1, "not_found"),
            (["tcx", "detach", "-n", ns, site.device, "ingress", "12"], 2, "usage"),
        ):
            result = netbpf("-j", *arguments)
            assert (result.status, result.error["code"]) == (status, code), result.out


@pytest.mark.needs("tcx")
def test_the_options_stand_before_the_noun_or_after_the_verb() -> None:
    with hooks.site("tcx-ingress") as site:
        attached(site, "builtin:count", "--no-link")
        before = netbpf("-j", "-n", site.ns.name, "tcx", "show", site.device)
        after = netbpf("tcx", "show", site.device, "--netns", site.ns.name, "--json")
        by_path = netbpf("tcx", "show", site.device, "-n", f"/run/netns/{site.ns.name}", "-j")
        assert before.json["chains"][0]["entries"] == after.json["chains"][0]["entries"]
        assert by_path.json["chains"][0]["entries"] == after.json["chains"][0]["entries"]
        assert before.out == after.out


@pytest.mark.needs("tcx")
def test_show_all_namespaces() -> None:
    with hooks.site("tcx-ingress") as site:
        attached(site, "builtin:count", "--no-link")
        chains = ok("tcx", "show", "--all-netns")["chains"]
        assert (site.ns.name, site.device) in [(c["netns"], c["device"]) for c in chains]


@pytest.mark.needs("tcx")
def test_show_a_device_in_all_namespaces_that_have_it() -> None:
    with hooks.site("tcx-ingress") as site, netns.entered(site.ns):
        name = f"x{random_name()[-8:]}"
        subprocess.run(["ip", "link", "set", site.device, "down", "name", name], check=True)
        with hooks.site("tcx-ingress") as other:
            words = ["tcx", "show", "-n", other.ns.name, name, "ingress"]
            (chain,) = ok(*words, "--all-netns")["chains"]
            assert (chain["netns"], chain["ifindex"]) == (site.ns.name, site.ifindex)
            assert netbpf("-j", *words).error["code"] == "not_found"
            nowhere = netbpf("-j", *words[:-2], "no_such", "--all-netns")
            assert nowhere.error["message"] == "no device no_such in any network namespace"


@pytest.mark.needs("tcx")
def test_a_table_for_people_is_whole_when_piped() -> None:
    with hooks.site("tcx-ingress") as site:
        made = attached(site, "builtin:count")
        text = process("tcx", "show", "-n", site.ns.name).stdout
        assert all(word in text for word in ("DEVICE", "count", "ingress", made["link"]["pins"][0]))
        assert "\x1b" not in text


@pytest.mark.needs("tcx")
def test_a_hostile_name_does_not_reach_the_terminal() -> None:
    with hooks.site("tcx-ingress") as site, ExitStack() as stack:
        with open("/proc/self/comm") as file:
            before = file.read()
        stack.callback(lambda: Path("/proc/self/comm").write_text(before.rstrip("\n")))
        Path("/proc/self/comm").write_text("\x1b[31mevil")
        prog = stack.enter_context(programs.load_returning(programs.NEXT, "held"))
        stack.enter_context(site.attach(prog).link or pytest.fail("no link"))
        text = netbpf("tcx", "show", "-n", site.ns.name).out
        assert "\x1b" not in text
        assert "\\x1b[31mevil" in text


@pytest.mark.needs("tcx")
def test_link_show_names_the_devices_namespace() -> None:
    with hooks.site("tcx-ingress") as site:
        made = attached(site, "builtin:count")
        (link,) = ok("link", "show", made["link"]["id"])["links"]
        assert set(link) == {
            *("id", "type", "prog_id", "device", "ifindex", "netns", "hook"),
            *("defunct", "reason", "pins", "owners"),
        }
        assert (link["type"], link["hook"], link["defunct"]) == ("tcx", "ingress", False)
        assert (link["netns"], link["device"]) == (site.ns.name, site.device)
        assert link["pins"] == made["link"]["pins"]
        ok("link", "detach", f"link:{link['id']}")
        assert shown(site)["entries"] == []


@pytest.mark.needs("tcx")
@pytest.mark.parametrize("shell", [[], ["sh", "-c", '"$@"; true', "sh"]])
def test_ip_netns_exec_never_loses_an_attach(shell: list[str]) -> None:
    """Its private mounts would take a pin, and the link, away when the command ends."""
    with hooks.site("tcx-ingress") as site:
        argv = [sys.executable, "-m", "netbpf", "-j", "tcx", "attach", site.device, "ingress"]
        result = subprocess.run(
            ["ip", "netns", "exec", str(site.ns.name), *shell, *argv, "builtin:drop"],
            capture_output=True,
            text=True,
            check=False,
        )
        document = json.loads(result.stdout)
        if "attached" in document:
            assert site.drops(), "it said attached"
            assert os.path.exists(document["attached"]["link"]["pins"][0])
            for path in site.own_pins():
                pins.remove(path)
        else:
            assert document["error"]["code"] == "no_lasting_bpffs"
            assert all(
                way in document["error"]["hint"] for way in ("--netns", "--no-link", "--hold")
            )
            assert site.passes()
