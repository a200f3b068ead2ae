"""``netbpf prog load``: pins all or none, bpftool and ls as witnesses."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from netbpf import loader
from netbpf.bpf import bpffs as bpffs_room
from netbpf.bpf import link_create, syscall
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program, loaded
from netbpf.errors import BpfError, ConflictError
from netbpf.loader import pinning
from netbpf.plumbing import attach, attachment
from tests.netns_fixtures import programs
from tests.netns_fixtures.cli import netbpf, ok, process
from tests.netns_fixtures.objects import build

PROGRAM_KEYS = {"id", "name", "tag", "type", "section", "pin"}
MAP_KEYS = {"id", "name", "type", "key_size", "value_size", "max_entries", "flags", "pin"}


def source(name: str) -> Path:
    return build((programs.SOURCES / f"{name}.c").read_text(), name=name, head="")


def listed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def bare(bpffs: Path) -> list[str]:
    """What is on a bpffs, without what the kernel itself puts there (CONFIG_BPF_PRELOAD)."""
    return [name for name in listed(bpffs) if not name.endswith(".debug")]


def bpftool(*args: object) -> Any:
    done = subprocess.run(
        ["bpftool", "-j", *map(str, args)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.mark.parametrize("name", ["obj_all", "obj_more"])
def test_pins_are_those_of_bpftool(name: str, bpffs: Path) -> None:
    file = source(name)
    made = ok("prog", "load", file, "--pin", bpffs / "a" / "ours")["object"]
    bpftool("prog", "loadall", file, bpffs / "peer", "pinmaps", bpffs / "peer")
    assert listed(bpffs / "a" / "ours") == listed(bpffs / "peer")
    assert made["file"] == str(file)
    assert (made["links"], made["not_attached"]) == ([], [])
    for each in made["programs"]:
        assert set(each) == PROGRAM_KEYS
        assert each["pin"] == str(bpffs / "a" / "ours" / each["name"])
        seen = bpftool("prog", "show", "pinned", each["pin"])
        assert (seen["id"], seen["tag"], seen["type"]) == (each["id"], each["tag"], each["type"])
        peer = bpftool("prog", "show", "pinned", bpffs / "peer" / each["name"])
        assert peer["tag"] == each["tag"]
    for each in made["maps"]:
        assert set(each) == MAP_KEYS
        seen = bpftool("map", "show", "pinned", each["pin"])
        assert (seen["id"], seen["type"]) == (each["id"], each["type"])
        assert (seen["bytes_key"], seen["bytes_value"], seen["max_entries"], seen["flags"]) == (
            each["key_size"],
            each["value_size"],
            each["max_entries"],
            each["flags"],
        )


def test_without_a_pin_it_ends_with_the_command() -> None:
    result = process("--json", "prog", "load", source("obj_more"))
    assert result.returncode == 0, result.stderr
    assert "ended with this command" in result.stderr
    made = json.loads(result.stdout)["object"]
    assert {each["pin"] for each in [*made["programs"], *made["maps"]]} == {None}
    alive = {each["id"] for each in bpftool("prog", "show")}
    assert not alive & {each["id"] for each in made["programs"]}


def test_variables_sizes_and_maps_of_others(bpffs: Path) -> None:
    file = source("obj_more")
    first = ok("prog", "load", file, "--pin", bpffs / "a", "--map-size", "recent=9")["object"]
    sizes = {each["name"]: each["max_entries"] for each in first["maps"]}
    assert (sizes["recent"], sizes["hits"]) == (9, 2)
    again = ok(
        *("prog", "load", file, "--pin", bpffs / "b", "--map-size", "recent=9"),
        *("--map", f"recent={bpffs}/a/recent", "--set", "custom=41"),
    )["object"]
    ids = [{each["name"]: each["id"] for each in made["maps"]} for made in (first, again)]
    assert ids[0]["recent"] == ids[1]["recent"]
    assert ids[0]["hits"] != ids[1]["hits"]
    for folder, value in (("a", 3), ("b", 41)):
        with Map.from_pin(str(bpffs / folder / "_data_custom")) as custom:
            assert int.from_bytes(custom.lookup(bytes(4)) or b"", sys.byteorder) == value


def test_dry_run_makes_nothing(bpffs: Path) -> None:
    before = {each["id"] for each in bpftool("prog", "show")}
    would = ok(
        *("prog", "load", source("obj_more"), "--pin", bpffs / "x", "--dry-run"),
        *("--map-size", "hits=5"),
    )
    assert would["dry_run"] is True
    assert bare(bpffs) == []
    assert {each["id"] for each in bpftool("prog", "show")} <= before
    assert all(set(each) == PROGRAM_KEYS for each in would["object"]["programs"])
    assert all(set(each) == MAP_KEYS for each in would["object"]["maps"])
    made = ok("prog", "load", source("obj_more"), "--pin", bpffs / "x", "--map-size", "hits=5")
    told = made["object"]
    for kind in ("programs", "maps"):
        for ours, theirs in zip(would["object"][kind], told[kind], strict=True):
            unknown = {"id": None, **({"tag": None} if kind == "programs" else {})}
            # Whether a section's map can be mapped is decided with the file, the rest too.
            assert ours == {**theirs, **unknown}


@pytest.mark.parametrize("taken", ["strings", "_rodata_str1_1"])
def test_an_existing_pin_refuses_all_of_it(taken: str, bpffs: Path, tmp_path: Path) -> None:
    folder = bpffs / "x"
    folder.mkdir()
    with programs.load_returning(0) as other:
        other.pin(str(folder / taken))
        number = other.id
    for more in ([], ["--dry-run"]):
        result = netbpf("--json", "prog", "load", source("obj_more"), "--pin", folder, *more)
        assert result.status == 5
        assert (result.error["code"], result.error["errno"]) == ("exists", "EEXIST")
        assert str(folder / taken) in result.error["message"]
        assert listed(folder) == [taken]
    with Program.from_pin(str(folder / taken)) as other:
        assert other.id == number


@pytest.mark.parametrize("fail_at", range(9))
def test_a_failure_in_the_middle_leaves_nothing(
    fail_at: int, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = syscall.obj_pin, []

    def sometimes(fd: int, path: str) -> None:
        calls.append(path)
        if len(calls) == fail_at + 1:
            raise OSError(errno.ENOSPC, "no space")
        whole(fd, path)

    with loader.open(source("obj_more")) as obj:
        obj.load()
        monkeypatch.setattr(syscall, "obj_pin", sometimes)
        with pytest.raises(BpfError, match="ENOSPC"):
            pinning.pin_all(obj, str(bpffs / "new" / "deep"))
        assert len(calls) == fail_at + 1
        assert bare(bpffs) == []
        # A folder that was there stays, with what is in it.
        (bpffs / "old" / "other").mkdir(parents=True)
        calls.clear()
        with pytest.raises(BpfError):
            pinning.pin_all(obj, str(bpffs / "old"))
        assert listed(bpffs / "old") == ["other"]
        calls[:] = [""] * 100
        made = pinning.pin_all(obj, str(bpffs / "old"))
        assert len(list(made.paths())) == 9
        assert set(made.paths()) < {str(p) for p in (bpffs / "old").iterdir()}


def test_an_interruption_in_the_middle_leaves_nothing(
    bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = syscall.obj_pin, []

    def interrupted(fd: int, path: str) -> None:
        calls.append(path)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        whole(fd, path)

    with loader.open(source("obj_more")) as obj:
        obj.load()
        monkeypatch.setattr(syscall, "obj_pin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pinning.pin_all(obj, str(bpffs / "new"))
    assert len(calls) == 4
    assert bare(bpffs) == []


def test_killed_in_the_middle_leaves_a_prefix_and_the_next_run_says_so(bpffs: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from netbpf.bpf import syscall\n"
        "whole, left = syscall.obj_pin, [4]\n"
        "def pin(fd, path):\n"
        "    whole(fd, path); left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "syscall.obj_pin = pin\n"
        "from netbpf.cli.main import main\n"
        "main(['prog', 'load', sys.argv[1], '--pin', sys.argv[2]])"
    )
    folder = bpffs / "x"
    done = subprocess.run(
        [sys.executable, "-c", code, source("obj_more"), folder], capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    would = [".data.custom", ".rodata.custom", "hits", "recent"]
    assert listed(folder) == sorted(name.replace(".", "_") for name in would)
    result = netbpf("prog", "load", source("obj_more"), "--pin", folder)
    assert (result.status, "already" in result.err) == (5, True)
    assert len(listed(folder)) == 4
    # They are in nobody's way elsewhere, and link gc takes what is netbpf's own only.
    assert not [g for g in ok("link", "gc")["garbage"] if str(folder) in str(g["pin"])]
    for name in listed(folder):
        (folder / name).unlink()
    ok("prog", "load", source("obj_more"), "--pin", folder)


HOSTILE = [
    ("a b\nc", 0),
    ("日本", 0),
    ("-x", 0),
    ("$(touch x)", 0),
    ("\x1b[31m", 0),
    ("x" * 255, 0),
    ("a/../b//c/", 0),
    ("x" * 256, 1),
    ("a.b", 1),
    ("deep/" * 400 + "x", 0),
    ("x/" * 3000, 1),
]


@pytest.mark.parametrize(("name", "status"), HOSTILE, ids=[repr(n[:9]) for n, _ in HOSTILE])
def test_hostile_folder_names(name: str, status: int, bpffs: Path) -> None:
    folder = f"{bpffs}/{name}"
    result = netbpf("--json", "prog", "load", source("obj_more"), f"--pin={folder}")
    assert result.status == status, result.err
    if status:
        assert result.error["hint"] or result.error["message"]
        assert bare(bpffs) == []
    else:
        assert len(os.listdir(os.path.abspath(folder))) == 9
        shown = netbpf("prog", "load", source("obj_more"), f"--pin={folder}")
        assert "\x1b" not in shown.err


def test_folders_that_cannot_hold_pins(bpffs: Path, tmp_path: Path) -> None:
    file = source("obj_more")
    with programs.load_returning(0) as other:
        other.pin(str(bpffs / "pin"))
    for folder, code in (
        (tmp_path, "not_bpffs"),
        (tmp_path / "new", "not_bpffs"),
        (bpffs / "a.b", "invalid_name"),
        (bpffs / "a.b" / "c", "invalid_name"),
        (bpffs / "pin", "invalid"),
        (bpffs / "pin" / "below", "invalid"),
    ):
        for more in ([], ["--dry-run"]):
            result = netbpf("--json", "prog", "load", file, "--pin", folder, *more)
            assert (result.status, result.error["code"]) == (1, code), folder
    assert netbpf("prog", "load", file, "--pin", "").status == 2
    assert not (tmp_path / "new").exists()
    (bpffs / "way").symlink_to(tmp_path)
    assert netbpf("prog", "load", file, "--pin", bpffs / "way").status == 1
    assert bare(bpffs) == ["pin", "way"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--set", "nonsense"], 2, "VAR=VALUE"),
        (["--set", "nothing=1"], 1, "no variable nothing"),
        (["--map-size", "hits"], 2, "NAME=N"),
        (["--map-size", "hits=0"], 2, "from 1 to"),
        (["--map-size", "hits=4294967296"], 2, "from 1 to"),
        (["--map-size", "hits=²"], 2, "from 1 to"),
        (["--map-size", "no=1"], 1, "no map no"),
        (["--map", "hits=/sys/fs/bpf/nothing-here"], 1, "nothing-here"),
        (["--map", "hits"], 2, "NAME=PIN"),
        (["--btf", "/nothing-here"], 1, "nothing-here"),
    ],
)
def test_refused(arguments: list[str], status: int, words: str) -> None:
    # obj_more asks nothing of the kernel's types, core_all does.
    name = "core_all" if "--btf" in arguments else "obj_more"
    for more in ([], ["--dry-run"]):
        result = netbpf("--json", "prog", "load", source(name), *arguments, *more)
        assert (result.status, words in result.error["message"]) == (status, True), result.out


def test_a_map_of_another_shape_is_a_conflict(bpffs: Path) -> None:
    ok("prog", "load", source("obj_more"), "--pin", bpffs / "a")
    option = f"recent={bpffs}/a/hits"
    result = netbpf("--json", "prog", "load", source("obj_more"), "--map", option)
    assert (result.status, result.error["code"]) == (5, "conflict")


def test_a_program_that_the_verifier_refuses_leaves_nothing(bpffs: Path) -> None:
    file = build('SEC("tc") int bad(void *c) { return *(volatile int *)0; }')
    result = netbpf("--json", "prog", "load", file, "--pin", bpffs / "x")
    assert (result.status, result.error["code"]) == (1, "verifier")
    assert bare(bpffs) == []


PINNED = """
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
    __uint(pinning, LIBBPF_PIN_BY_NAME);
} NAME SEC(".maps");
SEC("tc") int uses(void *c) { __u32 k = 0; return !bpf_map_lookup_elem(&NAME, &k); }
"""


def test_nothing_to_load_is_said(bpffs: Path) -> None:
    optional = build('SEC("?tc") int waits(void *c) { return 0; }', name="optional")
    empty = build("int helper(int a) { return a; }", name="empty")
    for file, words, hint in (
        (optional, "nothing to load: the ? before its section's name leaves out waits", ":waits"),
        (empty, "neither programs nor maps to load", 'SEC("tc")'),
    ):
        for more in ([], ["--dry-run"]):
            result = netbpf("--json", "prog", "load", file, "--pin", bpffs / "x", *more)
            assert (result.status, result.error["code"]) == (1, "object_file")
            assert words in result.error["message"] and hint in result.error["hint"]
        # In Python it is no mistake, as with libbpf.
        with loader.open(file) as obj:
            obj.load()
            assert (obj.loaded, obj.programs) == (True, {})
    assert bare(bpffs) == []


def test_a_section_that_says_nothing_is_told_the_one_most_like_it() -> None:
    for section, hint in (
        ("xdp/foo", "xdp"),
        ("clasifier", "classifier"),
        ("xdp_sock", "xdp"),
        ("prog", "tc"),
    ):
        file = build(f'SEC("{section}") int runs(void *c) {{ return 0; }}')
        result = netbpf("--json", "prog", "load", file)
        assert f'write SEC("{hint}")' in result.error["hint"]


def test_pins_of_long_sections_are_those_of_bpftool(bpffs: Path) -> None:
    file = build(
        'int a SEC(".data.a_long_section_name") = 1; int b SEC(".data.a_long_section-other") = 2;\n'
        'SEC("tc") int uses(void *c) { return a + b; }'
    )
    made = ok("prog", "load", file, "--pin", bpffs / "ours")["object"]
    bpftool("prog", "loadall", file, bpffs / "peer", "pinmaps", bpffs / "peer")
    assert listed(bpffs / "ours") == listed(bpffs / "peer")
    assert "_data_a_long_section-other" in listed(bpffs / "ours")
    names = [m["name"] for m in made["maps"]]
    assert names == [".data.a_long_section_name", ".data.a_long_section-other"]
    assert {bpftool("map", "show", "id", m["id"])["name"] for m in made["maps"]} == {
        ".data.a_long_se"
    }


def test_a_map_pinned_by_name_keeps_its_pin(bpffs: Path) -> None:
    name = f"nbt_{os.getpid()}"
    place = Path(bpffs_room.lasting().path) / name
    file = build(PINNED, f"-DNAME={name}")
    try:
        made = ok("prog", "load", file, "--pin", bpffs / "x")["object"]
        assert made["maps"][0]["pin"] == str(place)
        assert listed(bpffs / "x") == ["uses"]
        # Reused from elsewhere it is no map by name any more.
        other = bpffs / "other"
        bpftool("map", "pin", "id", made["maps"][0]["id"], other)
        place.unlink()
        for more in (["--dry-run"], []):
            again = ok("prog", "load", file, "--pin", bpffs / "y", f"--map={name}={other}", *more)
            assert again["object"]["maps"][0]["pin"] == str(bpffs / "y" / name)
        assert not place.exists()
    finally:
        place.unlink(missing_ok=True)


def test_a_map_pinned_by_name_where_no_bpffs_is_mounted() -> None:
    file = build(PINNED, "-DNAME=nowhere")

    command = [sys.executable, "-m", "netbpf", "prog", "load", str(file)]
    away = 'while umount -l /sys/fs/bpf 2>/dev/null; do :; done; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", away, "sh", *command], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "/sys/fs/bpf is not on a bpffs (ENOENT)" in done.stderr
    assert "mount -t bpf bpf /sys/fs/bpf" in done.stderr


def test_two_of_one_name_are_told_before_anything_is_made(bpffs: Path) -> None:
    file = build('volatile int a SEC(".data.x") = 1;\nSEC("tc") int _data_x(void *c) { return a; }')
    result = netbpf("--json", "prog", "load", file, "--pin", bpffs / "x")
    assert (result.status, result.error["code"]) == (5, "conflict")
    assert bare(bpffs) == []
    with pytest.raises(ConflictError):
        pinning.plan(str(bpffs), ["a.b"], ["a_b"])


def test_from_within_ip_netns_exec_it_stays() -> None:
    # Its mount namespace has no bpffs: the pins go to the one of the machine.
    name = f"nbt-load-{os.getpid()}"
    folder = Path(bpffs_room.lasting().path) / name
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        command = [sys.executable, "-m", "netbpf", "-j", "prog", "load", str(source("obj_more"))]
        done = subprocess.run(
            ["ip", "netns", "exec", name, *command, "--pin", str(folder)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)["object"]
        assert {Path(each["pin"]) for each in [*made["programs"], *made["maps"]]} == set(
            folder.iterdir()
        )
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
        subprocess.run(["rm", "-rf", folder], check=True)


LINK_KEYS = {"id", "type", "program", "pin"}
AUTO = [
    {"program": "later", "missing": "what it is to be attached to"},
    {"program": "filter", "missing": "a device"},
]


def number(folder: Path) -> int:
    with Map.from_pin(str(folder / "auto_bss")) as bss:
        return int.from_bytes((bss.lookup(bytes(4)) or b"")[8:16], sys.byteorder)


def test_autoattach_keeps_links_beside_programs(bpffs: Path) -> None:
    folder = bpffs / "x"
    would = ok("prog", "load", source("auto"), "--autoattach", "--pin", folder, "--dry-run")
    assert bare(bpffs) == []
    result = netbpf("-j", "prog", "load", source("auto"), "--autoattach", "--pin", folder)
    assert result.status == 0, result.out + result.err
    assert "later is not attached: its section does not say" in result.err
    made = result.json["object"]
    assert made["not_attached"] == would["object"]["not_attached"] == AUTO
    assert all(set(each) == LINK_KEYS for each in made["links"])
    assert [(e["program"], e["pin"]) for e in made["links"]] == [
        (name, str(folder / f"{name}_link")) for name in ("enters", "asks")
    ]
    assert [e["pin"] for e in would["object"]["links"]] == [e["pin"] for e in made["links"]]
    links = {each["id"]: each for each in bpftool("link", "show")}
    ids = {each["name"]: each["id"] for each in made["programs"]}
    for each in made["links"]:
        assert links[each["id"]]["prog_id"] == ids[each["program"]]
    before = number(folder)
    ctypes.CDLL(None).l64a(1)
    assert number(folder) == before + 1
    for path in folder.glob("*_link"):
        path.unlink()
    # The kernel lets go of what a pin held a moment later (kernel/bpf/syscall.c: bpf_link_put).
    until = time.monotonic() + 10
    while {e["id"] for e in bpftool("link", "show")} & {e["id"] for e in made["links"]}:
        assert time.monotonic() < until
    before = number(folder)
    ctypes.CDLL(None).l64a(1)
    assert number(folder) == before


def libbpf_attaches(file: Path) -> dict[str, bool]:
    """Which programs libbpf attaches by itself; it runs in a process of its own."""
    code = (
        "import ctypes, json, sys\n"
        "lib, P = ctypes.CDLL('libbpf.so.1', use_errno=True), ctypes.c_void_p\n"
        "names = 'object__open_file object__next_program program__attach'.split()\n"
        "for name in names: getattr(lib, f'bpf_{name}').restype = P\n"
        "lib.bpf_program__name.restype = ctypes.c_char_p\n"
        "obj = P(lib.bpf_object__open_file(sys.argv[1].encode(), None))\n"
        "assert lib.bpf_object__load(obj) == 0\n"
        "found, prog = {}, None\n"
        "while prog := lib.bpf_object__next_program(obj, P(prog)):\n"
        "    link = lib.bpf_program__attach(P(prog))\n"
        "    found[lib.bpf_program__name(P(prog)).decode()] = bool(link)\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file], check=True, capture_output=True, text=True, timeout=60
    )
    found: dict[str, bool] = json.loads(done.stdout)
    return found


def test_autoattach_attaches_what_libbpf_does() -> None:
    names = [
        *("raw_tp/sys_enter", "raw_tp", "raw_tracepoint/sys_exit", "raw_tp.w/bpf_test_finish"),
        *("uprobe", "uretprobe/libc.so.6:getppid"),
        *("uprobe/libc.so.6:getppid+4", "uprobe.s/libc.so.6:getppid"),
        *("kprobe", "kretprobe", "ksyscall", "tp", "tracepoint", "kprobe.multi"),
        *("xdp", "xdp/cpumap", "tc", "classifier", "sk_lookup", "sk_msg", "sk_skb", "socket"),
        *("cgroup/skb", "cgroup/connect4", "cgroup/dev", "cgroup_skb/ingress", "sockops"),
        *("flow_dissector", "lwt_out", "sk_reuseport", "perf_event", "action", "syscall"),
    ]
    source = "\n".join(
        f'SEC("{name}") int p{number}(void *c) {{ return 1; }}' for number, name in enumerate(names)
    )
    file = build(source)
    with loader.open(file) as obj:
        obj.load()
        with attach.attach_all(obj) as made:
            ours = {spec.section: spec.name in made for spec in obj.spec.programs}
            assert set(made) | set(made.open) == set(obj.programs)
            sections = {spec.name: spec.section for spec in obj.spec.programs}
    assert ours == {sections[name]: is_it for name, is_it in libbpf_attaches(file).items()}
    assert sum(ours.values()) >= 6


def test_autoattach_ends_with_the_command() -> None:
    result = process("-j", "prog", "load", source("auto"), "--autoattach")
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout)["object"]
    assert [each["pin"] for each in made["links"]] == [None, None]
    left = {each["id"] for each in bpftool("link", "show")}
    assert not left & {each["id"] for each in made["links"]}


def test_autoattach_that_fails_leaves_nothing(bpffs: Path) -> None:
    file = build(
        'SEC("raw_tp/sys_enter") int good(void *c) { return 0; }\n'
        'SEC("raw_tp/no_such_tracepoint") int bad(void *c) { return 0; }'
    )
    before = {each["id"] for each in bpftool("link", "show")}
    result = netbpf("-j", "prog", "load", file, "--autoattach", "--pin", bpffs / "x")
    assert (result.status, "no such tracepoint" in result.error["message"]) == (1, True)
    assert bare(bpffs) == []
    assert {each["id"] for each in bpftool("link", "show")} <= before


def test_attachments_are_closed_in_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    whole = attachment.Attachment.close

    def close(self: attachment.Attachment) -> None:
        closed.append(self.program)
        whole(self)

    monkeypatch.setattr(attachment.Attachment, "close", close)
    with loader.open(source("auto")) as obj:
        obj.load()
        with attach.attach_all(obj) as made:
            assert list(made) == ["enters", "asks"]
            assert made.open == {each["program"]: each["missing"] for each in AUTO}
        assert closed == ["asks", "enters"]
        made.close()
        assert closed == ["asks", "enters"]


def test_attached_without_a_link_cannot_be_kept(
    bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    # As before Linux 5.15.
    monkeypatch.setattr(link_create, "perf_event", refused)
    result = netbpf("-j", "prog", "load", source("auto"), "--autoattach", "--pin", bpffs / "x")
    assert (result.status, result.error["code"]) == (1, "no_link")
    assert bare(bpffs) == []
    made = ok("prog", "load", source("auto"), "--autoattach")["object"]
    assert made["links"][1] == {"id": None, "type": None, "program": "asks", "pin": None}


OUTER = """
__noinline int verdict(struct __sk_buff *skb) { return skb->len ? 2 : 1; }
SEC("tc") int outer(struct __sk_buff *skb) { return verdict(skb); }
"""
INNER = 'SEC("freplace/verdict") int inner(struct __sk_buff *skb) { return 7; }'


@pytest.fixture
def outer(bpffs: Path) -> Path:
    """A pinned program whose function another can take the place of."""
    folder = bpffs / "outer"
    assert netbpf("prog", "load", build(OUTER), "--pin", folder).status == 0
    return folder / "outer"


def returned(program: Path) -> int:
    (run,) = netbpf("-j", "prog", "run", f"pin:{program}", "--data", "00" * 64).json["runs"]
    return int(run["retval"])


@pytest.mark.needs("fentry")
def test_attach_to_another_program(bpffs: Path, outer: Path) -> None:
    command = ["prog", "load", build(INNER), "--autoattach", "--pin", bpffs / "inner"]
    assert returned(outer) == 2
    result = netbpf("-j", *command, "--attach-to", f"inner=pin:{outer}")
    (link,) = result.json["object"]["links"]
    assert (link["program"], link["type"]) == ("inner", "tracing")
    assert returned(outer) == 7
    (bpffs / "inner" / "inner_link").unlink()
    assert returned(outer) == 2


@pytest.mark.needs("fentry")
def test_attached_while_the_command_runs(outer: Path) -> None:
    # Without --pin it is over with the command, and nothing of it is left.
    result = netbpf("prog", "load", build(INNER), "--autoattach", "--attach-to", f"inner={outer}")
    assert (result.status, "inner attached by link:" in result.out) == (0, True)
    assert returned(outer) == 2


def test_attach_to_in_a_dry_run(bpffs: Path, outer: Path) -> None:
    with Program.from_pin(str(outer)) as program:
        number = program.id
    for ref in (f"pin:{outer}", f"id:{number}", str(outer)):
        result = netbpf(
            *("-j", "prog", "load", build(INNER), "--dry-run", "--autoattach"),
            *("--pin", bpffs / "inner", "--attach-to", f"inner={ref}"),
        )
        assert result.status == 0, result
        (link,) = result.json["object"]["links"]
        assert link["pin"] == str(bpffs / "inner" / "inner_link")
    assert bare(bpffs) == ["outer"]


@pytest.mark.parametrize(
    ("source", "value", "status", "said"),
    [
        (INNER, None, 1, "--attach-to inner=PROG"),
        (INNER, "other={outer}", 1, "no program other"),
        (OUTER, "outer={outer}", 1, "it is not attached to another program"),
        (INNER.replace("verdict", "nothing"), "inner={outer}", 1, "no function nothing in program"),
        (INNER, "inner=name:nobody", 1, "no loaded program name:nobody"),
        (INNER, "inner=7", 2, "id:7 or link:7?"),
        (INNER, "inner", 2, "write NAME=PROG"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_attach_to_what_cannot_be(
    outer: Path, source: str, value: str | None, status: int, said: str, more: tuple[str, ...]
) -> None:
    before = set(Program.ids())
    options = () if value is None else ("--attach-to", value.format(outer=outer))
    result = netbpf("-j", "prog", "load", build(source), *options, *more)
    assert (result.status, said in json.dumps(result.error)) == (status, True), result
    made = [each.name for each in loaded() if each.id not in before]
    assert not {"inner", "outer"} & set(made)


def test_the_quick_way_is_taken(bpffs: Path) -> None:
    """Nothing of the parser is imported: that is what bench/load.py measures."""
    argv = [sys.executable, "-X", "importtime", "-m", "netbpf", "prog", "load"]
    result = subprocess.run(
        [*argv, source("obj_all"), "--pin", bpffs / "quick"],
        check=True,
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "netbpf.loader.object" in imported
    assert not imported & {"typer", "rich", "netbpf.cli.main", "netbpf.cli.references"}


def test_what_the_quick_way_says_the_parsers_says_too() -> None:
    """Also beside the data, and once: what is refused on the quick way is tried a second time."""
    good = source("obj_more")
    bad = build('SEC("tc") int bad(void *c) { return *(volatile int *)0; }')
    # A bpffs of its own mounts, of which the user is told.
    own = 'mount -t bpf bpf /sys/fs/bpf && "$@"; exit $?'
    for file, status, notes in ((good, 0, 1), (bad, 1, 0)):
        answers = []
        for pin in (["--pin", "/sys/fs/bpf/x"], ["--pin=/sys/fs/bpf/x"]):
            command = [sys.executable, "-m", "netbpf", "prog", "load", str(file), *pin]
            done = subprocess.run(
                ["unshare", "-m", "sh", "-c", own, "sh", *command], capture_output=True, text=True
            )
            assert (done.returncode, done.stderr.count("it has its own mounts")) == (status, notes)
            answers.append(re.sub(r"id:\d+|process \d+", "", done.stdout + done.stderr))
        assert answers[0] == answers[1]
