"""CO-RE in the kernel: programs read what they meant to, and are those that libbpf makes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.bpf.prog import Program
from netbpf.btf import core
from netbpf.btf import core_spec as cs
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.ext import CoreRelo
from netbpf.elf.object import open_object
from netbpf.errors import NotFoundError, ObjectFileError, VerifierError
from netbpf.loader import core as fitting
from netbpf.loader import index_cache, kernel_types
from tests.netns_fixtures import libbpf_core, programs
from tests.netns_fixtures.objects import build

PACKET = bytes(64)
CPUS = ("v1", "v2", "v3")


def source(name: str, *flags: str) -> Path:
    """The object file of a source in tests/bpf."""
    return build((programs.SOURCES / f"{name}.c").read_text(), *flags, name=name, head="")


def run(obj: loader.Object, name: str) -> list[int]:
    """The values that a program of core_all.c puts down."""
    assert obj.programs[name].test_run(PACKET).retval == 0
    values = obj.get("values")
    assert isinstance(values, list)
    return values


@pytest.fixture(scope="module")
def kernel() -> dict[str, tuple[int, int, dict[str, tuple[int, int]]]]:
    """Structs of the kernel as bpftool prints them: id, size, and offset and bits of members."""
    text = subprocess.run(
        ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "raw"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {}
    for name in ("task_struct", "sk_buff", "list_head", "bpf_prog_array"):
        block = re.search(rf"^\[(\d+)\] STRUCT '{name}' size=(\d+).*\n((?:\t.*\n)*)", text, re.M)
        assert block is not None, name
        members = re.findall(
            r"'(\w+)' type_id=\d+ bits_offset=(\d+)(?: bitfield_size=(\d+))?", block[3]
        )
        found[name] = (
            int(block[1]),
            int(block[2]),
            {m: (int(at), int(bits or 0)) for m, at, bits in members},
        )
    return found


@pytest.mark.parametrize("cpu", CPUS)
def test_tags_are_those_of_libbpf(cpu: str, bpffs: Path) -> None:
    file = source("core_all", f"-mcpu={cpu}")
    subprocess.run(["bpftool", "prog", "loadall", file, bpffs / "peer"], check=True)
    with loader.open(file) as obj:
        obj.load()
        assert sorted(obj.programs) == ["enums", "fields", "loads", "types"]
        for name, program in obj.programs.items():
            shown = subprocess.run(
                ["bpftool", "--json", "prog", "show", "pinned", bpffs / "peer" / name],
                check=True,
                capture_output=True,
            )
            assert program.info().tag == json.loads(shown.stdout)["tag"], name


@pytest.mark.parametrize("cpu", CPUS)
def test_fields_are_read_where_they_lie(
    cpu: str, kernel: dict[str, tuple[int, int, dict[str, tuple[int, int]]]]
) -> None:
    task, skb = kernel["task_struct"][2], kernel["sk_buff"][2]
    with loader.open(source("core_all", f"-mcpu={cpu}")) as obj:
        obj.load()
        values = run(obj, "fields")
        # The program runs in this process, and its leader is the process itself.
        assert values[0] == values[1] == os.getpid()
        assert obj.get("comm") == Path("/proc/self/comm").read_text().strip()
        assert values[2:7] == [16, 1, 1, 0, 0]
        assert values[7] == (task["tasks"][0] + 64) // 8
        assert values[8:11] == [1, 0, 0]
        # pkt_type lies in an anonymous struct, which this does not look into.
        shift = 64 - (values[11] + 3)
        assert values[11] + 3 <= 64 and values[12] == 61 and 0 <= shift < 8
        assert values[14] == 1
        assert values[16] == skb["len"][0] // 8
        assert values[17] == skb["cb"][0] // 8 + 5
        assert values[19:21] == [2, 0]
        items = kernel["bpf_prog_array"][2]["items"][0] // 8
        assert values[21] > items and (values[21] - items) % 8 == 0


def test_loads_follow_the_size_of_the_field() -> None:
    with loader.open(source("core_all")) as obj:
        obj.load()
        values = run(obj, "loads")
        assert values[0] == values[1] == os.getpid()
        # The same four bytes, declared as four, eight and two; the ninth field of stat(5) has them.
        flags = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[6])
        assert values[2] == values[3] == values[4]
        assert values[2] & ~0x4000 == flags & ~0x4000  # PF_RANDOMIZE
        assert chr(values[5]) == Path("/proc/self/comm").read_text()[2]


def test_types_and_enums(
    kernel: dict[str, tuple[int, int, dict[str, tuple[int, int]]]],
) -> None:
    with loader.open(source("core_all")) as obj:
        obj.load()
        values = run(obj, "types")
        task, skb = kernel["task_struct"], kernel["sk_buff"]
        assert values[:4] == [1, 0, 1, 0]
        assert values[4:9] == [task[1], task[1], 0, skb[0], 0]
        assert obj.spec.btf is not None
        assert obj.spec.btf.type(values[9]).name == "sk_buff"
        assert values[10] == 1
        assert run(obj, "enums")[:4] == [1, 0, 1, 0]


@pytest.mark.needs("module-types")
def test_types_of_a_module(bpffs: Path) -> None:
    folder = Path("/sys/kernel/btf")
    module = next(path for path in folder.iterdir() if path.name != "vmlinux")
    dumped = subprocess.run(
        ["bpftool", "-B", folder / "vmlinux", "btf", "dump", "file", module, "format", "raw"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    main = kernel_types.running().main
    types = re.compile(
        r"^\[(\d+)\] STRUCT '(\w+)' size=(\d+) .*\n(?:\t.*\n)*?"
        r"\t'(\w+)' type_id=\d+ bits_offset=([1-9]\d*)\n",
        re.MULTILINE,
    )
    # One that the kernel itself does not have.
    found = next(
        m
        for m in types.finditer(dumped)
        if int(m[1]) >= len(main.btf) and not main.candidates(m[2], t.KIND_STRUCT)
    )
    text = f"""
    #include <bpf/bpf_core_read.h>
    struct {found[2]} {{ void *{found[4]}; }} __attribute__((preserve_access_index));
    int values[4];
    SEC("tc") int asks(struct __sk_buff *skb)
    {{
        values[0] = bpf_core_type_exists(struct {found[2]});
        values[1] = bpf_core_type_size(struct {found[2]});
        values[2] = bpf_core_type_id_kernel(struct {found[2]});
        return 0;
    }}
    char _license[] SEC("license") = "GPL";
    """
    file = build(text, name="module")
    subprocess.run(["bpftool", "prog", "loadall", file, bpffs / "peer"], check=True)
    with loader.open(file) as obj:
        obj.load()
        assert run(obj, "asks")[:3] == [1, int(found[3]), int(found[1])]
        with Program.from_pin(str(bpffs / "peer" / "asks")) as peer:
            assert obj.programs["asks"].info().tag == peer.info().tag


@pytest.mark.parametrize(
    ("program", "message", "line"),
    [
        (
            "member",
            r"load program member: relocation \d+: struct task_struct\.inner\.no_such_member is "
            r"not in this kernel \(at core_missing\.c:",
            "no_such_member|helper",
        ),
        ("resized", r"struct task_struct\.tgid cannot be read in one load", "value = task->tgid;"),
        (
            "enumerator",
            r"enum bpf_map_type BPF_MAP_TYPE_NO_SUCH is not in this kernel",
            "enumerator|bpf_core_enum_value",
        ),
    ],
)
def test_what_the_kernel_lacks_is_named(program: str, message: str, line: str) -> None:
    before = set(Program.ids())
    with loader.open(source("core_missing")) as obj:
        with pytest.raises(VerifierError, match=message) as caught:
            obj.load(only=[program])
        assert re.search(line, str(caught.value))
        assert "unknown#195896080" in caught.value.log
        assert "bpf_core_" in (caught.value.hint or "")
    assert not set(Program.ids()) - before


def fitted(data: bytes, btf: Path) -> bytes | None:
    """The instructions of an object's one program; None where a relocation is refused."""
    try:
        spec = open_object("core.o", data)
        function = spec.programs[0].function
        found = fitting.fit(
            spec, fitting.concerned(spec, [function]), lambda: kernel_types.read(btf)
        )
    except ObjectFileError:
        return None
    return found.insns.get(function.key, function.insns)


def younger(btf: Btf, record: libbpf_core.Record) -> bool:
    """Whether netbpf follows a rule that this libbpf does not have yet.

    Since 1.6 the size of one element counts where the field is an array.
    """
    if libbpf_core.version() >= (1, 6) or record[3] != cs.FIELD_BYTE_OFFSET:
        return False
    try:
        step = cs.parse(btf, CoreRelo(0, record[1], btf.string(record[2]), 0)).steps[-1]
    except ValueError:
        return False
    outer = btf.type(step.type_id)
    if step.name is not None and isinstance(outer, t.Struct | t.Union):
        outer = btf.resolve(outer.members[step.position].type_id)[1]
    return isinstance(outer, t.Array)


def test_every_relocation_is_written_as_by_libbpf() -> None:
    target = source("core_target")
    compared = refused = 0
    dice = random.Random(5)
    for cpu in CPUS[::2]:
        data = source("core_local", f"-mcpu={cpu}").read_bytes()
        btf = open_object("core.o", data).btf
        assert btf is not None
        found = libbpf_core.records(data)
        assert len(found) > 350
        types = sorted({r[1] for r in found})
        accesses = sorted({r[2] for r in found})
        wanted = [[r] for r in found]
        # Any kind, any type, any way into it; several relocations of one type.
        for _ in range(400):
            at, type_id, access, kind = dice.choice(found)
            wanted.append([(at, type_id, access, dice.randrange(14))])
            wanted.append([(at, dice.randrange(1, len(btf)), dice.choice(accesses), kind)])
            type_id = dice.choice(types)
            some = sorted(dice.sample(found, 3))
            wanted.append([(r[0], type_id, r[2], r[3]) for r in some])
        # Whole types as TYPE_MATCHES, which this compiler may be too old for.
        wanted += [[(*r[:3], cs.TYPE_MATCHES)] for r in found if r[3] == cs.TYPE_EXISTS]
        for records in wanted:
            changed = libbpf_core.replaced(data, records)
            for at, type_id, access, kind in records:
                try:
                    relo = CoreRelo(at, type_id, btf.string(access), kind)
                    expected = core.resolve(btf, relo, [])[0].old
                except ValueError:
                    continue
                changed = libbpf_core.expecting(changed, "tc", at, expected)
            if any(younger(btf, record) for record in records):
                continue
            theirs = libbpf_core.fitted(changed, target)
            assert fitted(changed, target) == theirs, records
            compared += theirs is not None
            refused += theirs is None
    assert compared > 1000
    assert refused > 300


def test_a_file_stands_for_the_kernels_types(tmp_path: Path) -> None:
    target = source("core_target")
    text = """
    #include <bpf/bpf_core_read.h>
    struct partly { int a; int b; } __attribute__((preserve_access_index));
    SEC("tc") int asks(struct __sk_buff *skb)
    {
        return bpf_core_field_exists(((struct partly *)skb)->a) ? 5 : 6;
    }
    SEC("?tc") int reads(struct __sk_buff *skb)
    {
        return __builtin_preserve_field_info(((struct partly *)skb)->b, BPF_FIELD_BYTE_OFFSET);
    }
    char _license[] SEC("license") = "GPL";
    """
    with loader.open(build(text, name="ambiguous")) as obj:
        obj.load()
        assert obj.programs["asks"].test_run(PACKET).retval == 6
    with loader.open(build(text, name="ambiguous")) as obj:
        # What is not loaded is not looked at.
        obj.load(btf=target)
        assert obj.programs["asks"].test_run(PACKET).retval == 5
    with loader.open(build(text, name="ambiguous")) as obj:
        with pytest.raises(
            ObjectFileError, match=r"program reads: relocation 1: .*ambiguous.* \(at"
        ):
            obj.load(only=["reads"], btf=target)
        with pytest.raises(NotFoundError, match="no file of types"):
            obj.load(btf=tmp_path / "none")
        with pytest.raises(ObjectFileError, match="no BTF magic number"):
            obj.load(btf=programs.SOURCES / "core_local.c")
    with loader.open(build('SEC("tc") int asks_nothing(void *skb) { return 0; }')) as obj:
        with pytest.raises(NotFoundError, match="no file of types"):
            obj.load(btf=tmp_path / "none")
        assert obj.programs == {}
    with loader.open(source("core_all")) as obj:
        # A file with the kernel's own types makes the same program.
        obj.load()
        tags = {name: p.info().tag for name, p in obj.programs.items()}
    raw = tmp_path / "vmlinux"
    raw.write_bytes(Path("/sys/kernel/btf/vmlinux").read_bytes())
    for types in (raw, "/sys/kernel/btf/vmlinux"):
        with loader.open(source("core_all")) as obj:
            obj.load(btf=types)
            assert {name: p.info().tag for name, p in obj.programs.items()} == tags
    message = f"no_such_member is not in {re.escape(str(raw))}"
    with (
        loader.open(source("core_missing")) as obj,
        pytest.raises(VerifierError, match=message),
    ):
        obj.load(only=["member"], btf=raw)


def test_a_second_process_reads_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
import sys
from pathlib import Path
from netbpf import loader
from netbpf.btf import index
from netbpf.loader import index_cache
index_cache.folder = lambda: Path(sys.argv[2])
made = []
parse = index.parse
# Those of modules are read each time.

def counted(data, *base):
    if not base:
        made.append(1)
    return parse(data, *base)

index.parse = counted
with loader.open(sys.argv[1]) as obj:
    obj.load()
    print(len(made), *(p.info().tag for p in obj.programs.values()))
"""
    folder = tmp_path / "cache"
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", text, source("core_all"), folder],
            check=True,
            capture_output=True,
            text=True,
        )
        said.append(done.stdout.split(" ", 1))
    assert [made for made, _ in said] == ["1", "0"]
    assert said[0][1] == said[1][1]
    (file,) = folder.iterdir()
    assert kernel_types.build_id().hex() in file.name
    monkeypatch.setattr(index_cache, "folder", lambda: folder)
    assert index_cache.read(kernel_types.build_id().hex()) == file.read_bytes()
