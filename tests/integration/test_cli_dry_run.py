"""``--dry-run`` of what changes a chain: what it tells comes true, and so does what it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from netbpf.bpf import uapi
from netbpf.bpf.prog import load
from tests.netns_fixtures import hooks, programs
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.hooks import Site


def words(site: Site, verb: str, *rest: object) -> list[object]:
    return [site.noun, verb, "-n", site.ns.name, site.device, site.hook, *rest]


def foretold(site: Site, verb: str, *rest: object) -> tuple[Any, Any]:
    """What a dry run says, and what the same command does then; nothing happens in between."""
    before = site.chain()
    would = ok(*words(site, verb, *rest, "--dry-run"))
    assert would.pop("dry_run") is True
    assert site.chain() == before
    return would, ok(*words(site, verb, *rest))


def test_attach_tells_the_place_and_the_pin(site: Site, bpffs: Path) -> None:
    ok(*words(site, "attach", "builtin:count"))
    path = str(bpffs / "folder" / "it")
    would, done = foretold(site, "attach", "builtin:next", "--first", "--pin", path)
    assert would["attached"]["link"] == {"id": None, "pins": [path]}
    assert done["attached"]["link"]["pins"] == [path]
    assert would["attached"]["position"] == done["attached"]["position"] == 0
    plain = netbpf(*words(site, "attach", "builtin:drop", "--no-link", "--dry-run"))
    assert plain.out.endswith("at position 2 without a link\n")


@pytest.mark.parametrize("bad", ["/tmp/x", "{bpffs}/a.b", "{bpffs}"])
def test_attach_refuses_the_pin_that_the_run_would(site: Site, bpffs: Path, bad: str) -> None:
    rest = ("builtin:next", "--pin", bad.format(bpffs=bpffs))
    would = netbpf("-j", *words(site, "attach", *rest, "--dry-run"))
    done = netbpf("-j", *words(site, "attach", *rest))
    assert (would.status, would.error) == (done.status, done.error)
    assert would.status != 0


def test_attach_refuses_another_type_as_the_run_does(site: Site) -> None:
    with load(uapi.BPF_PROG_TYPE_XDP, programs.returning(2), name="an_xdp") as prog:
        for more, code in (((), "wrong_type"), (("--set", "a=1"), "usage")):
            would = netbpf("-j", *words(site, "attach", f"id:{prog.id}", *more, "--dry-run"))
            done = netbpf("-j", *words(site, "attach", f"id:{prog.id}", *more))
            assert (would.status, would.error) == (done.status, done.error)
            assert done.error["code"] == code


def test_update_tells_both_programs(site: Site) -> None:
    old = ok(*words(site, "attach", "builtin:count"))["attached"]
    would, done = foretold(site, "update", "name:count", "builtin:next")
    assert would["updated"]["prog"] == {"id": None, "name": "next"}
    assert would["updated"]["old_prog"] == done["updated"]["old_prog"] == {"id": old["prog"]["id"]}
    assert would["updated"]["link"] == done["updated"]["link"] == old["link"]


def test_order_tells_the_chain_to_come(site: Site) -> None:
    for name in ("count", "next", "pass"):
        ok(*words(site, "attach", f"builtin:{name}"))
    would, done = foretold(site, "order", "name:pass", "name:count")
    for document in (would, done):
        entries = document["ordered"]["entries"]
        assert [each["prog"]["name"] for each in entries] == ["pass", "next", "count"]
        assert [each["position"] for each in entries] == [0, 1, 2]
        assert all(len(each["link"]["pins"]) == 1 for each in entries)
    assert set(would["ordered"]["moves"][0]) == set(done["ordered"]["moves"][0])


def test_move_refuses_the_link_of_another(site: Site, bpffs: Path) -> None:
    ok(*words(site, "attach", "builtin:count", "--pin", bpffs / "theirs"))
    ok(*words(site, "attach", "builtin:next"))
    would = netbpf("-j", *words(site, "move", "name:count", "--last", "--dry-run"))
    done = netbpf("-j", *words(site, "move", "name:count", "--last"))
    assert (would.status, would.error) == (done.status, done.error) == (5, would.error)
    theirs, own = foretold(site, "move", f"pin:{bpffs}/theirs", "--last")
    assert theirs["moved"]["link"]["pins"] == own["moved"]["link"]["pins"]


def test_detach_tells_the_pins_that_go(site: Site) -> None:
    made = ok(*words(site, "attach", "builtin:count"))["attached"]
    would = ok("link", "detach", made["link"]["id"], "--dry-run")["detached"]
    assert would["pins"] == made["link"]["pins"]
    would, done = foretold(site, "detach", "name:count")
    assert would["detached"]["link"] == done["detached"]["link"] == made["link"]
    assert not os.path.exists(made["link"]["pins"][0])


def test_a_document_says_dry_run_only_of_one(bpffs: Path) -> None:
    with hooks.site("tcx-ingress") as site:
        number = ok(*words(site, "attach", "builtin:count"))["attached"]["link"]["id"]
        assert ok("link", "pin", number, bpffs / "x", "--dry-run")["dry_run"] is True
        assert set(ok("link", "pin", number, bpffs / "x")) == {"schema_version", "pinned"}
        assert set(ok("link", "detach", number)) == {"schema_version", "detached"}
        assert ok("link", "show", number)["links"][0]["ifindex"] is None
        assert netbpf("link", "pin", number, "").status == 2
