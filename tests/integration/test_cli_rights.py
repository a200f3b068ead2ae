"""What is said to whom lacks a capability: exit status 4, and which one is missing for what."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netbpf import netns
from tests.netns_fixtures import hooks
from tests.netns_fixtures.cli import ok
from tests.netns_fixtures.objects import build

TRACES = 'SEC("raw_tp/sys_enter") int traces(void *ctx) { return 0; }'


def without(capabilities: str, *arguments: object) -> tuple[int, dict[str, object]]:
    """Run netbpf as root without these capabilities; its status and document."""
    argv = ["setpriv", f"--bounding-set={capabilities}", sys.executable, "-m", "netbpf", "-j"]
    result = subprocess.run(
        [*argv, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in result.stderr
    return result.returncode, json.loads(result.stdout)


@pytest.mark.needs("tcx")
@pytest.mark.parametrize(
    ("capabilities", "arguments", "needed"),
    [
        ("-all", ["tcx", "show", "DEV"], "CAP_NET_ADMIN"),
        ("-all", ["tcx", "attach", "DEV", "ingress", "builtin:count"], "CAP_BPF"),
        ("-all", ["tcx", "attach", "DEV", "ingress", "builtin:pass"], "CAP_BPF"),
        ("-all", ["tcx", "attach", "DEV", "ingress", "id:1"], "CAP_SYS_ADMIN"),
        ("-all", ["tcx", "detach", "DEV", "ingress", "id:1"], "CAP_NET_ADMIN"),
        ("-all", ["link", "show"], "CAP_SYS_ADMIN"),
        ("-all", ["prog", "show"], "CAP_SYS_ADMIN"),
        ("-all", ["map", "show"], "CAP_SYS_ADMIN"),
        ("-all", ["netns", "add", "nbt-refused"], "CAP_SYS_ADMIN"),
        ("-all", ["netns", "exec", "NS", "true"], "CAP_SYS_ADMIN"),
        ("-sys_admin", ["tcx", "show", "-n", "NS", "DEV"], "CAP_SYS_ADMIN"),
        (
            "-net_admin,-sys_admin",
            ["tcx", "attach", "DEV", "ingress", "builtin:pass"],
            "CAP_NET_ADMIN",
        ),
        ("-perfmon,-sys_admin", ["prog", "load", "TRACES"], "CAP_PERFMON"),
        ("-bpf,-sys_admin", ["prog", "load", "TRACES"], "CAP_BPF"),
    ],
)
def test_refusal_names_the_capability(capabilities: str, arguments: list[str], needed: str) -> None:
    with hooks.site("tcx-ingress") as site, netns.entered(site.ns):
        words = {"DEV": site.device, "NS": site.ns.name, "TRACES": build(TRACES)}
        status, document = without(capabilities, *(words.get(word, word) for word in arguments))
        error = document["error"]
        assert isinstance(error, dict)
        assert (status, error["code"], error["errno"]) == (4, "not_permitted", "EPERM"), error
        assert f"needs {needed}" in str(error["hint"])
    assert "nbt-refused" not in netns.list_names()


@pytest.mark.needs("netkit")
def test_netkit_needs_net_admin() -> None:
    with hooks.site("netkit-primary") as site, netns.entered(site.ns):
        status, document = without("-net_admin", "netkit", "add", "nk9")
        assert status == 4
        assert "CAP_NET_ADMIN" in json.dumps(document)


@pytest.mark.needs("tcx")
def test_a_chain_is_shown_without_names_to_whom_may_not_see_them() -> None:
    with hooks.site("tcx-ingress") as site, netns.entered(site.ns):
        argv = [
            "-m",
            "netbpf",
            "tcx",
            "attach",
            site.device,
            "ingress",
            "builtin:pass",
            "--no-link",
        ]
        subprocess.run([sys.executable, *argv], check=True, capture_output=True)
        status, document = without("-sys_admin", "tcx", "show", site.device, "ingress")
        assert status == 0
        (chain,) = document["chains"]  # type: ignore[misc]
        (entry,) = chain["entries"]
        assert entry["prog"]["id"] == site.ids()[0]
        assert entry["prog"]["name"] is None


def test_a_refused_entering_is_an_error_not_an_abort() -> None:
    with hooks.site("tcx-ingress") as site:
        status, document = without("-sys_admin", "-n", site.ns.name, "tcx", "show")
        assert status == 4
        assert "enter namespace" in json.dumps(document)


def test_pins_that_others_may_not_see(bpffs: Path) -> None:
    """What may not be looked at is neither "nothing" nor "no pin"."""
    bpffs.chmod(0o755)
    with hooks.site("tcx-ingress") as site, netns.entered(site.ns):
        ok("tcx", "attach", site.device, "ingress", "builtin:pass", "--pin", bpffs / "it")
        for words in (
            ["link", "gc"],
            ["link", "unpin", f"{bpffs}/it"],
            ["link", "show", f"pin:{bpffs}/it"],
        ):
            argv = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all"]
            result = subprocess.run(
                [*argv, sys.executable, "-m", "netbpf", "-j", *words],
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            error = json.loads(result.stdout)["error"]
            assert (result.returncode, error["code"], error["errno"]) == (
                4,
                "not_permitted",
                "EACCES",
            )


def test_who_has_the_capabilities_is_not_told_to_get_them() -> None:
    code = "from netbpf.bpf import rights; print(rights.hint(['CAP_BPF', 'CAP_PERFMON']))"
    said = [
        subprocess.run(
            [*before, sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for before in ([], ["unshare", "--user", "--map-root-user"])
    ]
    assert "a security module or the kernel's lockdown forbids it" in said[0]
    assert "needs CAP_BPF and CAP_PERFMON in the first user namespace" in said[1]
