"""object show, held against libbpf, bpftool, readelf and llvm-objdump; no kernel is asked."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from netbpf.bpf import uapi
from netbpf.elf import MapSpec, ObjectSpec, open_object
from netbpf.elf.show import document
from tests.netns_fixtures import libbpf
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.objects import build
from tests.unit.test_elf_kernel import REFUSED

TESTS = Path(__file__).resolve().parents[1]
SEEDS = TESTS / "fuzz" / "seeds"
# Since libbpf 1.1, which Debian 12 has.
YOUNGER = ("tc/", "tcx/", "netkit/", "netfilter", "uprobe.multi", "struct_ops.s", "usdt.s")


def source(name: str, *flags: str) -> Path:
    return build((TESTS / "bpf" / f"{name}.c").read_text(), *flags, name=name, head="")


def told(*command: object) -> str:
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True
    ).stdout


def shape(found: MapSpec) -> dict[str, Any]:
    """A map in the words of tests/netns_fixtures/libbpf.py."""
    ringbuf = found.type in (uapi.BPF_MAP_TYPE_RINGBUF, uapi.BPF_MAP_TYPE_USER_RINGBUF)
    return {
        "name": found.name,
        "type": found.type,
        "key_size": found.key_size,
        "value_size": found.value_size,
        "max_entries": None if ringbuf else found.max_entries,
        "flags": found.flags,
        "map_extra": found.map_extra,
        "numa_node": found.numa_node,
        "key_type_id": found.key_type_id,
        "value_type_id": found.value_type_id,
        "pinned": found.pinned_by_name,
        "contents": found.contents,
        "inner": shape(found.inner) if found.inner is not None else None,
    }


def seen(found: dict[str, Any]) -> dict[str, Any]:
    """The same of libbpf's, without what depends on the machine and the process."""
    kept = {k: v for k, v in found.items() if k != "autocreate"}
    if kept["type"] in (uapi.BPF_MAP_TYPE_RINGBUF, uapi.BPF_MAP_TYPE_USER_RINGBUF):
        kept["max_entries"] = None  # whole pages
    if kept["type"] in (uapi.BPF_MAP_TYPE_STRUCT_OPS, uapi.BPF_MAP_TYPE_ARENA):
        kept["contents"] = None  # pointers of libbpf's own
    if "." in kept["name"]:
        kept["flags"] &= ~uapi.BPF_F_MMAPABLE  # older libbpf makes all sections mappable
    if kept["inner"] is not None:
        kept["inner"] = seen(kept["inner"])
    return kept


def known_to(sections: str) -> bool:
    return not sections.removeprefix("?").startswith(YOUNGER)


def compare(spec: ObjectSpec, theirs: dict[str, Any]) -> None:
    # libbpf takes the running kernel's where the file has none.
    assert spec.version in (0, theirs["version"])
    assert len(spec.programs) == len(theirs["programs"])
    for ours, program in zip(spec.programs, theirs["programs"], strict=True):
        assert ours.name == program["name"]
        assert ours.section.removeprefix("?") == program["section"]
        assert (ours.autoload, ours.function.insns) == (program["autoload"], program["insns"])
        if known_to(ours.section):
            expected = (program["type"], program["attach_type"])
            assert (ours.type, ours.expected_attach_type) == expected, ours.section
    autocreate = [m.autocreate for m in spec.maps]
    assert autocreate == [m["autocreate"] for m in theirs["maps"]]
    assert [seen({**shape(m), "autocreate": m.autocreate}) for m in spec.maps] == [
        seen(m) for m in theirs["maps"]
    ]


@pytest.mark.parametrize("cpu", ["v1", "v2", "v3"])
@pytest.mark.parametrize("name", ["obj_all", "obj_more", "obj_optional", "protocols", "trace"])
def test_libbpf_sees_the_same(name: str, cpu: str) -> None:
    file = source(name, f"-mcpu={cpu}")
    theirs = libbpf.opened(file)
    assert theirs is not None
    compare(open_object(file), theirs)


@pytest.mark.parametrize(("first", "second"), [("obj_more", "obj_optional"), ("obj_all", "trace")])
def test_libbpf_sees_the_same_in_linked_objects(first: str, second: str, tmp_path: Path) -> None:
    file = tmp_path / "linked.o"
    told("bpftool", "gen", "object", file, source(first), source(second))
    theirs = libbpf.opened(file)
    assert theirs is not None
    compare(open_object(file), theirs)


@pytest.mark.parametrize("name", sorted(set(REFUSED) - {"two arenas"}))
def test_libbpf_refuses_the_same(name: str) -> None:
    assert libbpf.opened(build(REFUSED[name][0], "-Wno-everything")) is None


@pytest.mark.parametrize("name", ["obj_all", "obj_more", "open_kernel"])
def test_symbols_sections_and_relocations(name: str) -> None:
    file = source(name)
    shown = document(open_object(file))
    functions = {f["name"]: f for f in shown["programs"] + shown["functions"]}
    symbols = re.findall(
        r"^\s+\d+: \w+\s+(\d+) FUNC\s+(\w+)\s+(\w+)\s+\d+ (\S+)$",
        told("readelf", "-sW", file),
        re.MULTILINE,
    )
    assert {s[3]: int(s[0]) // 8 for s in symbols} == {
        f["name"]: f["instructions"] for f in functions.values()
    }
    for _, bind, visibility, symbol in symbols:
        binding = {"LOCAL": "static", "GLOBAL": "global", "WEAK": "weak"}[bind]
        assert functions[symbol]["binding"] == binding
        if "hidden" in functions[symbol]:
            assert functions[symbol]["hidden"] == (visibility == "HIDDEN")
    sections = dict(
        re.findall(r"^\s+\d+ (\.\S+|\S+)\s+([0-9a-f]{8})", told("llvm-objdump", "-h", file), re.M)
    )
    for found in shown["maps"]:
        if found["section"] not in (None, ".kconfig"):
            assert found["value_size"] == int(sections[found["section"]], 16)
    entries = {f["section"] for f in functions.values()}
    listed = re.split(r"RELOCATION RECORDS FOR \[(.*?)\]:", told("llvm-objdump", "-r", file))
    counted = {
        name: len(re.findall(r"R_BPF_64_(?:64|32)", text))
        for name, text in zip(listed[1::2], listed[2::2], strict=True)
        if name in entries
    }
    for section, count in counted.items():
        ours = [r for r in shown["relocations"] if r["section"] == section]
        # Calls within .text need no relocation in the file.
        if section != ".text":
            assert len(ours) == count, section


def test_types_of_the_btf() -> None:
    file = source("obj_all")
    shown = document(open_object(file))
    types = json.loads(told("bpftool", "-j", "btf", "dump", "file", file))["types"]
    assert shown["btf"]["types"] == len(types)
    variables = {t["name"]: t for t in types if t["kind"] == "VAR"}
    assert {g["name"] for g in shown["globals"]} == {
        name for name, t in variables.items() if name not in ("_license", "_version")
    } - {m["name"] for m in shown["maps"]}
    sizes = {
        variable["type_id"]: variable["size"]
        for t in types
        if t["kind"] == "DATASEC"
        for variable in t["vars"]
    }
    for found in shown["globals"]:
        assert found["size"] == sizes[variables[found["name"]]["id"]]


KEYS = {
    "": {
        *("file", "name", "byteorder", "license", "version", "btf", "programs", "functions"),
        *("maps", "globals", "externs", "relocations", "core_relocations", "arena"),
        "jump_tables",
    },
    "programs": {
        *("name", "section", "type", "attach_type", "extra", "autoload", "attach", "flags"),
        *("binding", "instructions", "prototype", "calls", "exception_callback"),
    },
    "functions": {
        *("name", "section", "binding", "hidden", "instructions", "prototype", "calls"),
    },
    "maps": {
        *("name", "type", "key_size", "value_size", "max_entries", "flags", "map_extra"),
        *("numa_node", "key_type", "value_type", "pinned_by_name", "autocreate", "section"),
        *("inner", "slots", "struct_ops"),
    },
    "globals": {"name", "section", "map", "type", "offset", "size", "static", "value"},
    "externs": {"name", "section", "kind", "type", "weak"},
    "relocations": {
        *("function", "section", "instruction", "kind", "target", "offset", "variable"),
    },
    "core_relocations": {"function", "section", "instruction", "asks", "access"},
}


def test_json() -> None:
    file = SEEDS / "linked.o"
    shown = ok("object", "show", str(file))
    assert set(shown) == {"schema_version", "object"}
    found = shown["object"]
    assert set(found) == KEYS[""]
    for part, keys in KEYS.items():
        if part:
            assert found[part], part
            assert all(set(item) == keys for item in found[part]), part
    assert found == json.loads(json.dumps(document(open_object(file))))
    assert ok("object", "show", str(file)) == shown
    traced = next(p for p in found["programs"] if p["name"] == "fetches")
    assert (traced["attach_type"], traced["extra"]) == ("trace_fentry", "tcp_connect")
    assert (traced["attach"], traced["flags"]) == ("trace", ["sleepable"])


def test_text_fits_a_terminal() -> None:
    done = netbpf("object", "show", str(SEEDS / "linked.o"))
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    titles = [line for before, line in pairwise(lines) if not before]
    assert titles == [
        "Programs",
        "Functions",
        "Maps",
        "Globals",
        "Externs",
        "Relocations",
        "CO-RE relocations",
    ]
    assert "byte_off struct sk_buff.len" in done.out
    assert re.search(r"^optional +\?netkit/peer +sched_cls +netkit_peer .*no autoload$",
                     done.out, re.MULTILINE)  # fmt: skip


def test_the_other_byte_order() -> None:
    found = ok("object", "show", str(SEEDS / "big.o"))["object"]
    assert found["byteorder"] == "big"
    values = {g["name"]: g["value"] for g in found["globals"]}
    assert (values["packets"], values["hidden"]) == (5, -3)


def test_what_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "some.o").write_text("int x;\n")
    done = netbpf("object", "show", str(tmp_path / "some.o"))
    assert done.status == 1
    assert "not an ELF file" in done.err
    done = netbpf("object", "show", str(tmp_path / "none.o"))
    assert done.status == 1
    assert "no object file" in done.err
