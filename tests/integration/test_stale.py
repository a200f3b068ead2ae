"""A stale revision: refused, with what changed since the revision that the caller was told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from netbpf import Program
from netbpf.cli import told
from netbpf.errors import StaleRevisionError
from tests.netns_fixtures import programs
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.hooks import Site

Load = Callable[..., Program]


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The note of what was told, in a folder of the test's own."""
    folder = tmp_path / "run"
    monkeypatch.setattr(told, "FOLDER", str(folder))
    monkeypatch.setattr(told, "_FILE", str(folder / "revisions"))
    return folder / "revisions"


def test_the_library_takes_the_chain_that_was_read(site: Site, load: Load) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))
    site.attach(one, link=False)
    site.attach(two, link=False)
    read = site.chain()
    site.call("detach", one)
    site.attach(three, link=False)
    site.call("update", two, load(programs.PASS, "newer"))
    with pytest.raises(StaleRevisionError) as caught:
        site.attach(one, link=False, expected_revision=read)
    assert (caught.value.expected, caught.value.current) == (3, 6)
    went = [words for words in caught.value.changes if words.startswith("went")]
    assert len(went) == 2
    assert any("three" in words for words in caught.value.changes)
    for verb, args in (("detach", (three,)), ("update", (three, one))):
        with pytest.raises(StaleRevisionError, match="came: three"):
            site.call(verb, *args, expected_revision=read)
    assert len(site.ids()) == 2


def test_the_command_line_remembers_what_it_told(site: Site, load: Load) -> None:
    place = ("-n", site.ns.name, site.device, site.hook)
    made = ok(site.noun, "attach", *place, "builtin:count")["attached"]
    view = ok(*(("tcx", "show") if site.noun == "tcx" else ("netkit", "chain")), *place)
    assert [chain["revision"] for chain in view["chains"]] == [made["revision"]]
    # Somebody else changes the chain.
    other = load(programs.NEXT, "other")
    site.attach(other, link=False, first=True)
    site.call("detach", f"id:{made['prog']['id']}")
    guard = ("--expected-revision", made["revision"])
    for verb, *rest in (
        ("attach", "builtin:pass", "--no-link"),
        ("detach", "name:other"),
        ("update", "name:other", "builtin:pass"),
        ("move", "name:other", "--last"),
        ("order", "name:other"),
    ):
        for dry in ([], ["--dry-run"]):
            refused = netbpf("-j", site.noun, verb, *place, *rest, *guard, *dry)
            assert (refused.status, refused.error["errno"]) == (5, "ESTALE"), verb
            assert "came: other" in refused.error["message"]
            # Its program has gone; its name was noted.
            assert "went: count" in refused.error["message"]
    assert site.ids() == [other.id]


def test_without_a_note_it_says_what_is_there(site: Site, load: Load) -> None:
    place = ("-n", site.ns.name, site.device, site.hook)
    site.attach(load(programs.NEXT, "other"), link=False)
    refused = netbpf(
        "-j", site.noun, "attach", *place, "builtin:pass", "--expected-revision", 77
    ).error
    assert "it is at 2 now; now there are: 0 other" in refused["message"]


@pytest.mark.needs("tcx")
def test_what_is_noted_is_only_roots_and_stays_small(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netbpf.bpf.chain import Chain, Entry

    def tell(revision: int) -> None:
        prog = {"id": 2**31, "name": "gone"}
        entry = {"prog": prog, "link": None}
        row = {"ifindex": 7, "hook": "ingress", "revision": revision, "entries": [entry]}
        told.shown([row])

    monkeypatch.setattr(told, "_inode", lambda: 1)
    tell(5)
    assert oct(notes.stat().st_mode & 0o777) == "0o600"
    assert oct(notes.parent.stat().st_mode & 0o777) == "0o700"
    monkeypatch.setattr(told, "_LARGEST", 4000)
    monkeypatch.setattr(told, "_KEPT", 2000)
    for revision in range(6, 206):
        tell(revision)
        assert notes.stat().st_size < 4100
    found = told.expected(7, "ingress", 205)
    assert isinstance(found, Chain)
    assert found.entries == (Entry(0, 2**31, None),)
    assert str(found) == "0 gone (id:2147483648)"
    assert told.expected(7, "ingress", 6) == 6, "what is old was let go"
    # Another's file is not believed, nor is one that others can write.
    notes.chmod(0o666)
    assert told.expected(7, "ingress", 205) == 205
    notes.chmod(0o600)
    os.chown(notes, 65534, 65534)
    assert told.expected(7, "ingress", 205) == 205
    tell(206)


@pytest.mark.needs("tcx")
def test_a_spoilt_note_is_no_error(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "_inode", lambda: 1)
    notes.parent.mkdir()
    notes.write_bytes(b'[1, 7, "ingress", 5, [[\n\xff\xfe\n[1, 7, "ingress", 5, 3]\n')
    notes.chmod(0o600)
    assert told.expected(7, "ingress", 5) == 5
    notes.unlink()
    notes.symlink_to("/etc/passwd")
    assert told.expected(7, "ingress", 5) == 5
    told.shown([])
