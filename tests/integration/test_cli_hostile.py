"""Surroundings that fight back: streams closed or full, signals at any moment, odd terminals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netns_fixtures import hooks
from tests.netns_fixtures.cli import netbpf, ok, process
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.namespaces import random_name

pytestmark = pytest.mark.needs("tcx")

# A process takes seconds where the processor is emulated.
MOMENTS = 4 if "NETBPF_LAB" in os.environ else 8

NETBPF = f"{sys.executable} -m netbpf"


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )


def attach(site: Site, *rest: str) -> str:
    words = [NETBPF, "-n", str(site.ns.name), "tcx attach", site.device, site.hook, *rest]
    return " ".join(words)


def test_an_empty_namespace_is_not_here() -> None:
    for arguments in (["-n", "", "tcx", "show"], ["tcx", "show", "--netns="]):
        result = netbpf("-j", *arguments)
        assert (result.status, result.error["code"]) == (2, "usage"), result.out


@pytest.mark.parametrize("number", ["18446744073709551616", "99999999999999999999999", "-1"])
def test_a_revision_is_never_cut_to_size(number: str) -> None:
    with hooks.site("tcx-ingress") as site:
        words = ["tcx", "attach", "-n", site.ns.name, site.device, site.hook, "builtin:pass"]
        result = netbpf("-j", *words, f"--expected-revision={number}")
        assert (result.status, result.error["code"]) == (2, "usage")
        assert site.ids() == []


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(redirection: str) -> None:
    with hooks.site("tcx-ingress") as site:
        for flags in ("", "-j"):
            result = shell(f"{attach(site, 'builtin:pass', flags)} {redirection}; echo $? >&2")
            assert "Traceback" not in result.stderr
        assert len(site.ids()) == 2
        failed = shell(f"{NETBPF} tcx show nope {redirection}")
        assert failed.returncode == 1
        assert failed.stdout == ""


def test_a_full_disk_is_told_and_the_change_is_made() -> None:
    with hooks.site("tcx-ingress") as site:
        result = shell(f"{attach(site, '-j', 'builtin:drop')} >/dev/full")
        assert result.returncode == 1
        assert "could not be written" in result.stderr
        assert "what was asked for is done" in result.stderr
        assert "Traceback" not in result.stderr
        assert site.drops()


def test_a_reader_that_left() -> None:
    with hooks.site("tcx-ingress") as site:
        for rest in ("builtin:pass", "builtin:no_such"):
            result = shell(f"{attach(site, '-j', rest)} | true")
            assert result.stderr == "" or result.stderr.startswith("netbpf: ")
            assert "Traceback" not in result.stderr


def test_text_that_the_locale_cannot_write() -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii"}
    result = process("netns", "show", env=environment)
    assert result.returncode == 0, result.stderr


def test_no_color_means_no_escape_codes() -> None:
    with hooks.site("tcx-ingress") as site:
        command = f"{NETBPF} -n {site.ns.name} tcx show {site.device}"
        coloured = shell(f"TERM=xterm script -qec '{command}' /dev/null")
        plain = shell(f"TERM=xterm NO_COLOR=1 script -qec '{command}' /dev/null")
        assert "\x1b[" in coloured.stdout
        assert "\x1b[" not in plain.stdout
        assert "ingress" in plain.stdout


@pytest.mark.parametrize("how", ["", "--no-link"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_before_or_after(how: str, number: int) -> None:
    """Whenever it comes: no document and nothing attached, or one document and all of it."""
    with hooks.site("tcx-ingress") as site:
        argv = [*attach(site, "-j", "builtin:pass").split(), *how.split()]
        outcomes = set()
        start = time.monotonic()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        whole = time.monotonic() - start
        for moment in range(MOMENTS):
            before = len(site.ids())
            with subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as running:
                time.sleep(whole * moment / (MOMENTS - 2))
                running.send_signal(number)
                out, err = running.communicate(timeout=30)
            assert out.count("\n") <= 1, out
            # Python's own start is not ours: a traceback from there names none of our files.
            assert "netbpf/cli" not in err, err
            document = json.loads(out) if out else {}
            made = len(site.ids()) - before
            assert made == ("attached" in document), (out, err)
            assert (running.returncode == 0) is ("attached" in document)
            outcomes.add(made)
        assert outcomes == {0, 1}


def test_killed_at_any_moment_leaves_all_or_nothing() -> None:
    with hooks.site("tcx-ingress") as site:
        argv = attach(site, "builtin:pass").split()
        start = time.monotonic()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        whole = time.monotonic() - start
        for moment in range(MOMENTS):
            with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as running:
                time.sleep(whole * (0.5 + moment / MOMENTS / 2))
                running.kill()
            # A link lives by its pin: what is in the chain is pinned, and what is pinned is in it.
            time.sleep(0.05)
            assert len(site.ids()) == len(site.own_pins())


def test_a_read_only_bpffs_attaches_nothing(bpffs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", bpffs], check=True)
    with hooks.site("tcx-ingress") as site:
        before = site.chain().revision
        words = ["tcx", "attach", "-n", site.ns.name, site.device, site.hook, "builtin:drop"]
        result = netbpf("-j", *words, "--pin", bpffs / "x")
        assert (result.status, result.error["errno"]) == (1, "EROFS")
        longest = netbpf("-j", *words, "--pin", bpffs / ("x" * 300))
        assert longest.error["errno"] == "ENAMETOOLONG"
        assert netbpf("-j", *words, "--pin", "").status == 2
        assert site.chain().revision == before


@pytest.mark.parametrize(
    ("rest", "status", "code"),
    [
        (["builtin:pass", "--expected-revision", "99"], 5, "stale_revision"),
        (["builtin:pass", "--set", "no_such=1"], 1, "not_found"),
        (["builtin:pass", "--replace", "name:count"], 5, "busy"),
        (["builtin:pass", "--before", "name:no_such"], 1, "not_found"),
        (["builtin:no_such"], 1, "not_found"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(rest: list[str], status: int, code: str) -> None:
    with hooks.site("tcx-ingress") as site:
        place = ["-n", site.ns.name, site.device, site.hook]
        ok("tcx", "attach", *place, "builtin:count")
        result = netbpf("-j", "tcx", "attach", *place, *rest, "--dry-run")
        assert (result.status, result.error["code"]) == (status, code), result.out
        other = netbpf("-j", "tcx", "update", *place, "name:count", "builtin:drop", "--dry-run",
                       "--old", "id:1")  # fmt: skip
        assert (other.status, other.error["code"]) == (5, "conflict")


def test_a_dry_run_of_a_taken_namespace() -> None:
    name = random_name()
    ok("netns", "add", name)
    try:
        assert netbpf("-j", "netns", "add", name, "--dry-run").status == 5
        assert ok("netns", "add", f"{name}x", "--dry-run")["added"][0]["name"] == f"{name}x"
    finally:
        ok("netns", "del", name)


def test_a_name_that_would_mean_a_process() -> None:
    result = netbpf("-j", "netns", "add", "pid:1")
    assert (result.status, result.error["code"]) == (2, "usage")


def test_namespaces_that_may_not_be_entered_are_still_listed() -> None:
    with hooks.site("tcx-ingress") as site:
        argv = ["setpriv", "--bounding-set=-all", *NETBPF.split(), "-j", "netns", "show"]
        result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stdout
        found = {each["name"]: each for each in json.loads(result.stdout)["namespaces"]}
        assert found[site.ns.name]["inode"] == site.ns.inode
        assert str(site.ns.name) in result.stderr
