"""Programs that are loaded for a target of the kernel's, attached by ``--autoattach``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.objects import build

TRACED = """
__u64 calls;
SEC("tp_btf/sys_enter") int raw(void *c) { __sync_fetch_and_add(&calls, 1); return 0; }
SEC("iter/bpf_prog") int each(void *c) { return 0; }
SEC("iter/bpf_map_elem") int elements(void *c) { return 0; }
char _license[] SEC("license") = "GPL";
"""
FUNCTIONS = """
__u64 calls;
SEC("fentry/vfs_read") int in(void *c) { __sync_fetch_and_add(&calls, 1); return 0; }
SEC("fexit/vfs_read") int out(void *c) { return 0; }
SEC("lsm/socket_create") int hook(void *c) { return 0; }
char _license[] SEC("license") = "GPL";
"""
CONGESTION = """
#include <bpf/bpf_tracing.h>
struct tcp_congestion_ops {
	__u32 (*ssthresh)(void *sk);
	__u32 (*undo_cwnd)(void *sk);
	void (*cong_avoid)(void *sk, __u32 ack, __u32 acked);
	char name[16];
};
SEC("struct_ops") __u32 half(__u64 *c) { return 2; }
SEC("struct_ops") __u32 undo(__u64 *c) { return 2; }
SEC("struct_ops") void avoid(__u64 *c) { }
SEC("SECTION") struct tcp_congestion_ops cc = {
	.ssthresh = (void *)half, .undo_cwnd = (void *)undo, .cong_avoid = (void *)avoid,
	.name = "nbt_cc_LINK",
};
char _license[] SEC("license") = "GPL";
"""
LISTED = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


def links() -> dict[int, Any]:
    done = subprocess.check_output(["bpftool", "-j", "link", "show"])
    return {each["id"]: each for each in json.loads(done)}


def kept(source: str, folder: Path) -> tuple[dict[str, Any], str]:
    result = netbpf("-j", "prog", "load", build(source), "--autoattach", "--pin", folder)
    assert result.status == 0, result.out + result.err
    return result.json["object"], result.err


def test_targets_without_a_trampoline(bpffs: Path) -> None:
    made, told = kept(TRACED, bpffs / "x")
    assert [(e["program"], e["type"]) for e in made["links"]] == [
        ("raw", "raw_tracepoint"),
        ("each", "iter"),
    ]
    assert made["not_attached"] == [{"program": "elements", "missing": "the map that it goes over"}]
    assert "elements is not attached" in told
    assert {e["id"] for e in made["links"]} <= set(links())
    assert (bpffs / "x" / "each_link").exists()


@pytest.mark.needs("fentry", "lsm")
def test_functions_and_hooks(bpffs: Path) -> None:
    made, _ = kept(FUNCTIONS, bpffs / "x")
    assert [(e["program"], e["type"]) for e in made["links"]] == [
        ("in", "tracing"),
        ("out", "tracing"),
        ("hook", "tracing"),
    ]
    (bss,) = [e["id"] for e in made["maps"] if e["name"].endswith(".bss")]
    before = ok("map", "dump", bss)["elements"]
    Path("/proc/self/comm").read_bytes()
    assert ok("map", "dump", bss)["elements"] != before


@pytest.mark.needs("fentry")
@pytest.mark.parametrize("link", [True, False])
def test_structs_made_of_programs(link: bool, bpffs: Path) -> None:
    section, name = (".struct_ops.link", "nbt_cc_1") if link else (".struct_ops", "nbt_cc_0")
    file = build(CONGESTION.replace("SECTION", section).replace("nbt_cc_LINK", name))
    if not link:
        for more in ([], ["--dry-run"]):
            arguments = ["prog", "load", file, "--autoattach", "--pin", bpffs / "x", *more]
            result = netbpf("-j", *arguments)
            assert (result.status, result.error["code"]) == (1, "no_link"), result.out
        ok("prog", "load", file, "--autoattach")
        assert name not in LISTED.read_text().split()
        return
    made = ok("prog", "load", file, "--autoattach", "--pin", bpffs / "x")["object"]
    assert [(e["program"], e["type"]) for e in made["links"]] == [("cc", "struct_ops")]
    assert name in LISTED.read_text().split()
