"""``netbpf netns attach|detach|update|show``: as scripts and people use them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netbpf import Link, NetNS, netns
from netbpf.netns import hooks
from tests.netns_fixtures.cli import Result, netbpf, ok
from tests.netns_fixtures.killed import killed_before
from tests.netns_fixtures.leases import wait_until
from tests.netns_fixtures.namespaces import namespace
from tests.netns_fixtures.objects import build

ATTACHED = {"netns", "inode", "hook", "position", "prog", "link"}
SOURCE = """
const volatile int verdict = 0;
SEC("sk_lookup") int looks(struct bpf_sk_lookup *ctx) { return SK_PASS; }
SEC("flow_dissector") int dissects(struct __sk_buff *skb) { return verdict; }
SEC("tc") int chained(struct __sk_buff *skb) { return 0; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def file() -> str:
    return str(build(SOURCE, name="hang"))


@pytest.fixture(params=["flow_dissector", "sk_lookup"])
def hook(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def shown(ns: NetNS) -> list[dict[str, Any]]:
    """What ``netns show`` has of a namespace's hooks."""
    (found,) = [n for n in ok("netns", "show")["namespaces"] if n["inode"] == ns.inode]
    return found["links"]  # type: ignore[no-any-return]


def own_pins(ns: NetNS) -> list[str]:
    """netbpf's own pins of links at the namespace, as the bpffs has them."""
    folder = Path("/sys/fs/bpf/netbpf")
    return sorted(map(str, folder.glob(f"net{ns.inode}_*"))) if folder.exists() else []


@pytest.fixture
def at(ns: NetNS) -> Iterator[NetNS]:
    """A namespace, and no pin of it left."""
    yield ns
    for path in own_pins(ns):
        os.unlink(path)


def test_attach_show_update_detach(at: NetNS, hook: str, file: str) -> None:
    made = ok("netns", "attach", at.name, hook, file)["attached"]
    assert set(made) == ATTACHED
    assert (made["netns"], made["inode"], made["position"]) == (at.name, at.inode, 0)
    (pin,) = made["link"]["pins"]
    assert own_pins(at) == [pin]
    with Link.from_pin(pin) as link:
        info = link.info()
        assert (info.id, info.netns_inode, info.hook) == (made["link"]["id"], at.inode, hook)

    (entry,) = shown(at)
    assert set(entry) == {"hook", "prog", "link"}
    assert set(entry["prog"]) == {"id", "name", "tag", "type"}
    assert entry["link"] == {"id": made["link"]["id"], "pins": [pin], "owners": []}
    listed = {each["id"]: each for each in ok("link", "show")["links"]}[made["link"]["id"]]
    assert (listed["netns"], listed["hook"], listed["defunct"]) == (at.name, hook, False)
    assert listed["pins"] == [pin]

    updated = ok("netns", "update", at.name, hook, f"pin:{pin}", file)["updated"]
    assert set(updated) == ATTACHED | {"old_prog"}
    assert updated["old_prog"]["id"] == made["prog"]["id"]
    assert updated["link"] == {"id": made["link"]["id"], "pins": [pin]}
    assert shown(at)[0]["prog"]["id"] == updated["prog"]["id"]

    gone = ok("netns", "detach", at.name, hook, f"link:{made['link']['id']}")["detached"]
    assert set(gone) == ATTACHED
    assert gone["link"]["pins"] == [pin]
    assert shown(at) == []
    assert own_pins(at) == []
    with pytest.raises(Exception, match="no link with id"):
        Link.from_id(made["link"]["id"])


def test_old_guards_an_update(at: NetNS, hook: str, file: str) -> None:
    first = ok("netns", "attach", at.name, hook, file)["attached"]
    second = ok("netns", "update", at.name, hook, f"id:{first['prog']['id']}", file)["updated"]
    result = netbpf(
        *("-j", "netns", "update", at.name, hook, f"link:{first['link']['id']}", file),
        *("--old", f"id:{first['prog']['id']}"),
    )
    assert (result.status, result.error["code"]) == (5, "conflict")
    assert shown(at)[0]["prog"]["id"] == second["prog"]["id"]


def test_a_second_flow_dissector_is_a_conflict(at: NetNS, file: str) -> None:
    ok("netns", "attach", at.name, "flow_dissector", file)
    for more in ([], ["--no-link"]):
        result = netbpf("-j", "netns", "attach", at.name, "flow_dissector", file, *more)
        assert (result.status, result.error["code"]) == (5, "exists")


def test_a_pin_that_is_not_there(at: NetNS, bpffs: Path) -> None:
    for text in (f"{bpffs}/none", f"pin:{bpffs}/none"):
        result = netbpf("-j", "netns", "attach", at.name, "sk_lookup", text)
        assert (result.status, result.error["code"]) == (1, "not_found")
        assert result.error["message"] == f"no pinned program {bpffs}/none"


def test_set_and_without_a_link(at: NetNS, file: str) -> None:
    made = ok("netns", "attach", at.name, "flow_dissector", file, "--no-link", "--set", "verdict=2")
    assert made["attached"]["link"] is None
    number = made["attached"]["prog"]["id"]
    # bpftool shows what hangs at the namespace it stands in; what it prints as JSON here is none.
    with netns.entered(at):
        seen = subprocess.run(["bpftool", "net"], capture_output=True, text=True, check=True)
    assert f"flow_dissector:\nid {number}\n" in seen.stdout
    again = netbpf("-j", "netns", "attach", at.name, "flow_dissector", file, "--no-link")
    assert (again.status, again.error["code"]) == (5, "exists")
    exchanged = ok("netns", "update", at.name, "flow_dissector", f"id:{number}", file)["updated"]
    assert exchanged["link"] is None
    gone = ok("netns", "detach", at.name, "flow_dissector", "name:dissects")["detached"]
    assert (gone["prog"]["id"], gone["link"]) == (exchanged["prog"]["id"], None)
    assert shown(at) == []


@pytest.mark.parametrize("form", ["path", "pid"])
def test_a_namespace_by_path_and_by_process(at: NetNS, hook: str, file: str, form: str) -> None:
    with netns.entered(at):
        holder = subprocess.Popen(["sleep", "60"])
    try:
        text = f"/run/netns/{at.name}" if form == "path" else f"pid:{holder.pid}"
        made = ok("netns", "attach", text, hook, file)["attached"]
        assert made["inode"] == at.inode
        assert hooks.program_ids(at, hooks.hook_of(hook)) == [made["prog"]["id"]]
        ok("netns", "detach", text, hook, f"id:{made['prog']['id']}")
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("name", ["h.rodata", "a.folder/looks"])
def test_a_pin_that_cannot_be_there(at: NetNS, bpffs: Path, name: str) -> None:
    """The kernel says EPERM to a dot in a name, which is no matter of capabilities."""
    result = netbpf("-j", "netns", "detach", at.name, "sk_lookup", f"pin:{bpffs}/{name}")
    assert (result.status, result.error["code"]) == (1, "not_found")
    assert "dot" in result.error["hint"]


def test_pin_elsewhere(at: NetNS, bpffs: Path, hook: str, file: str) -> None:
    made = ok("netns", "attach", at.name, hook, file, "--pin", bpffs / "deep" / "it")["attached"]
    assert made["link"]["pins"] == [str(bpffs / "deep" / "it")]
    assert own_pins(at) == []
    result = netbpf("-j", "netns", "attach", at.name, hook, file, "--pin", bpffs / "deep" / "it")
    assert result.status == 5
    assert len(shown(at)) == 1


def test_hold_until_a_signal(at: NetNS, hook: str, file: str) -> None:
    argv = [sys.executable, "-m", "netbpf", "-j", "netns", "attach", at.name or "", hook, file]
    with subprocess.Popen([*argv, "--hold"], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        made = json.loads(holder.stdout.readline())["attached"]
        assert made["link"]["pins"] == []
        (entry,) = shown(at)
        assert [owner["pid"] for owner in entry["link"]["owners"]] == [holder.pid]
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(timeout=30) == 0
    assert shown(at) == []


def test_dry_runs_change_nothing_and_refuse_alike(at: NetNS, file: str) -> None:
    would = ok("netns", "attach", at.name, "flow_dissector", file, "--dry-run")
    assert would["dry_run"] is True
    assert would["attached"]["link"] == {"id": None, "pins": []}
    assert (would["attached"]["prog"]["id"], would["attached"]["position"]) == (None, 0)
    assert shown(at) == []
    made = ok("netns", "attach", at.name, "flow_dissector", file)["attached"]
    ref = f"link:{made['link']['id']}"
    for arguments in (
        ["attach", at.name, "flow_dissector", file],
        ["attach", at.name, "flow_dissector", file, "--no-link"],
        ["attach", at.name, "sk_lookup", f"{file}:dissects"],
        ["update", at.name, "flow_dissector", "name:nobody", file],
        ["update", at.name, "flow_dissector", ref, file, "--old", "id:1"],
        ["detach", at.name, "sk_lookup", ref],
    ):
        dry, real = (netbpf("-j", "netns", *arguments, *more) for more in (["--dry-run"], []))
        assert (dry.status, dry.error) == (real.status, real.error), arguments
        assert dry.status in (1, 5)
    before = shown(at)
    would = ok("netns", "update", at.name, "flow_dissector", ref, file, "--dry-run")["updated"]
    assert would["old_prog"]["id"] == made["prog"]["id"]
    would = ok("netns", "detach", at.name, "flow_dissector", ref, "--dry-run")["detached"]
    assert would["link"]["pins"] == made["link"]["pins"]
    assert shown(at) == before


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["attach", "NS", "ingress", "FILE"], 2, "no hook ingress"),
        (["attach", "NS", "sk_lookup", "FILE", "--no-link"], 2, "takes links only"),
        (["attach", "NS", "sk_lookup", "FILE", "--pin", "/x", "--hold"], 2, "contradict"),
        (["attach", "no-such", "sk_lookup", "FILE"], 1, "no namespace no-such"),
        (["attach", "../etc", "sk_lookup", "FILE"], 1, "no namespace"),
        (["attach", "a\nb", "sk_lookup", "FILE"], 2, "control characters"),
        (["attach", "pid:x", "sk_lookup", "FILE"], 2, "write pid:N"),
        (["attach", "NS", "sk_lookup", "builtin:pass"], 1, "it holds pass (section tc)"),
        (["attach", "NS", "sk_lookup", "FILE:chained"], 1, "chained is of type sched_cls"),
        (["attach", "NS", "sk_lookup", "FILE:nobody"], 1, "nobody"),
        (["attach", "NS", "sk_lookup", "/no/such.o"], 1, "no object file"),
        (["attach", "NS", "sk_lookup", "FILE", "--set", "nothing=1"], 1, "nothing"),
        (["attach", "NS", "sk_lookup", "17"], 2, "id:17 or link:17"),
        (["detach", "NS", "sk_lookup", "17"], 2, "id:17 or link:17"),
        (["detach", "NS", "sk_lookup", "name:nobody"], 1, "nothing is attached there"),
        (["update", "NS", "sk_lookup", "link:1", "FILE"], 1, "nothing is attached there"),
        (["attach", "NS", "", "FILE"], 2, "is empty"),
    ],
)
def test_mistakes(at: NetNS, file: str, arguments: list[str], status: int, words: str) -> None:
    put = {"NS": at.name or "", "FILE": file}
    given = [put.get(a) or a.replace("FILE:", f"{file}:") for a in arguments]
    given[2] = arguments[2] if arguments[2] == "" else given[2]
    result = netbpf("-j", "netns", *given)
    assert result.status == status, result.out
    assert words in result.error["message"] + (result.error["hint"] or "")
    assert shown(at) == []
    assert own_pins(at) == []


def test_a_namespace_that_goes_leaves_a_defunct_link(hook: str, file: str, bpffs: Path) -> None:
    with namespace() as ns:
        kept = ok("netns", "attach", ns.name, hook, file, "--pin", bpffs / "kept")["attached"]
    number = kept["link"]["id"]

    def link() -> dict[str, Any]:
        (found,) = ok("link", "show", number)["links"]
        return found  # type: ignore[no-any-return]

    assert wait_until(lambda: link()["defunct"])
    assert (link()["netns"], link()["hook"]) == (None, hook)
    garbage = ok("link", "gc", "--all", "--dry-run")["garbage"]
    (found,) = [each for each in garbage if each["pin"] == str(bpffs / "kept")]
    assert (found["kind"], found["link"]["id"]) == ("defunct_pin", number)
    ok("link", "gc", "--all", "--yes")
    assert not (bpffs / "kept").exists()


def test_our_own_pin_tells_why_a_link_is_defunct(hook: str, file: str) -> None:
    with namespace() as ns:
        made = ok("netns", "attach", ns.name, hook, file)["attached"]
        with Link.from_id(made["link"]["id"]) as link:
            link.detach()
        (found,) = ok("link", "show", link_id := made["link"]["id"])["links"]
        assert (found["defunct"], found["reason"]) == (True, "detached")
        subprocess.run(["ip", "netns", "del", str(ns.name)], check=True)
        subprocess.run(["touch", f"/run/netns/{ns.name}"], check=True)
    assert wait_until(lambda: ok("link", "show", link_id)["links"][0]["reason"] == "netns_gone")
    garbage = {each["pin"]: each for each in ok("link", "gc", "--yes")["garbage"]}
    assert garbage[made["link"]["pins"][0]]["reason"] == "netns_gone"
    assert own_pins(ns) == []


def test_netns_del_takes_our_own_pins_along(hook: str, file: str) -> None:
    with namespace() as ns:
        made = ok("netns", "attach", ns.name, hook, file)["attached"]
        name, inode = str(ns.name), ns
        ns.close()
        gone = ok("netns", "del", name)
        assert gone["pins"] == made["link"]["pins"]
        subprocess.run(["touch", f"/run/netns/{name}"], check=True)
    assert own_pins(inode) == []


def test_links_of_all_namespaces_at_once(at: NetNS, file: str) -> None:
    """Also those of a namespace that only a process holds."""
    argv = ["unshare", "--net", "sh", "-c", "echo up; read x"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin and holder.stdout
        holder.stdout.readline()
        with NetNS.from_pid(holder.pid) as other:
            ok("netns", "attach", at.name, "sk_lookup", file)
            made = ok("netns", "attach", f"pid:{holder.pid}", "sk_lookup", file)["attached"]
            (entry,) = shown(other)
            assert entry["prog"]["id"] == made["prog"]["id"]
            assert len(shown(at)) == 1
            for path in own_pins(other):
                os.unlink(path)
        holder.stdin.close()


def test_what_is_said(at: NetNS, file: str) -> None:
    """For people: the same facts, and where the pin is."""
    said = netbpf("netns", "attach", at.name, "sk_lookup", file)
    assert said.out.startswith(f"{at.name} sk_lookup: looks (id:")
    assert f"pinned at {own_pins(at)[0]}" in said.out
    table = netbpf("netns", "show").out
    (line,) = [each for each in table.splitlines() if each.startswith(f"{at.name} ")]
    assert "sk_lookup: looks (id:" in line


@pytest.mark.parametrize(
    ("capabilities", "arguments", "needed"),
    [
        ("-all", ["netns", "attach", "NS", "sk_lookup", "FILE"], "CAP_BPF"),
        ("-all", ["netns", "detach", "NS", "sk_lookup", "name:looks"], "CAP_NET_ADMIN"),
        ("-sys_admin", ["netns", "detach", "NS", "sk_lookup", "name:looks"], "CAP_SYS_ADMIN"),
        ("-all", ["netns", "update", "NS", "sk_lookup", "name:looks", "FILE"], "CAP_"),
    ],
)
def test_rights(at: NetNS, file: str, capabilities: str, arguments: list[str], needed: str) -> None:
    ok("netns", "attach", at.name, "sk_lookup", file)
    words = {"NS": str(at.name), "FILE": file}
    argv = ["setpriv", f"--bounding-set={capabilities}", sys.executable, "-m", "netbpf", "-j"]
    result = subprocess.run(
        [*argv, *(words.get(word, word) for word in arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    error = Result(result.returncode, result.stdout, result.stderr).error
    assert (result.returncode, error["code"]) == (4, "not_permitted"), error
    assert needed in str(error["hint"]), error


def test_show_for_whom_may_not_see_links(at: NetNS, file: str) -> None:
    ok("netns", "attach", at.name, "sk_lookup", file)
    argv = ["setpriv", "--bounding-set=-sys_admin,-net_admin", sys.executable, "-m", "netbpf"]
    result = subprocess.run(
        [*argv, "-j", "netns", "show"], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stdout
    assert "Traceback" not in result.stderr
    assert all(each["links"] == [] for each in json.loads(result.stdout)["namespaces"])


def test_killed_at_any_step(at: NetNS, hook: str, file: str) -> None:
    """Nothing at all, or attached and pinned; the same for what follows."""
    for step in itertools.count():
        killed = killed_before(step, "-j", "netns", "attach", at.name, hook, file)
        assert wait_until(lambda: len(shown(at)) == len(own_pins(at)))
        for entry in shown(at):
            assert entry["link"]["pins"] == own_pins(at)
            killed_before(step, "-j", "netns", "detach", at.name, hook, ref(entry))
            if own_pins(at) or shown(at):
                ok("netns", "detach", at.name, hook, ref(entry))
        assert shown(at) == []
        if not killed:
            return


def ref(entry: dict[str, Any]) -> str:
    return f"link:{entry['link']['id']}"
