"""Skeletons of compiled objects: made, type-checked, and run on this kernel."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from netbpf import skeleton
from netbpf.bpf import map as bpf_map
from netbpf.errors import BpfError, NetbpfError, NotFoundError
from netbpf.netns import entered
from netbpf.skeleton.generate import module
from tests.netns_fixtures import programs
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.hooks import PAYLOAD, Site
from tests.netns_fixtures.objects import build
from tests.netns_fixtures.packets import UdpSink, send_udp
from tests.unit.test_skeleton import HOSTILE, crafted

ROOT = Path(__file__).resolve().parents[2]
# What the device sees of a datagram: Ethernet, IPv4 and UDP around it.
FRAME = 14 + 20 + 8 + len(PAYLOAD)
COUNT = """
__u64 packets;
SEC("{section}")
int counts(struct __sk_buff *skb) {{ packets++; return -1; }}
char _license[] SEC("license") = "GPL";
"""


def made(file: Path) -> ModuleType:
    """The skeleton of an object file, imported from its text."""
    found = ModuleType("made")
    # Dataclasses look their module up.
    sys.modules["made"] = found
    exec(compile(skeleton.of_file(file), "made.py", "exec", dont_inherit=True), found.__dict__)
    return found


@pytest.fixture
def everything(compiled: Callable[[str], Path]) -> Any:
    """The module of tests/bpf/skeleton.c."""
    return made(compiled("skeleton"))


def send(near: End, far: End, count: int) -> None:
    with UdpSink(near.ns, port=9) as sink:
        send_udp(far.ns, near.address, 9, PAYLOAD, count)
        assert len(sink.receive(count)) == count


def test_packets_through_tcx_are_read_typed(everything: Any, veth: tuple[End, End]) -> None:
    near, far = veth
    with everything.open() as skel, entered(near.ns):
        skel.rodata.limit = FRAME - 1
        skel.rodata.device = "eth0"
        skel.rodata.settings = replace(skel.rodata.settings, enabled=True, grid=((1, 2, 3),) * 2)
        assert skel.data.packets == 5
        skel.load()
        made = skel.attach(ifindex=near.ifindex)
        assert set(made) == {"came", "went"}
        assert set(made.open) == {"yield"}, "a tc section does not say which hook"
        assert [link.info().prog_id for link in skel.links] == [
            skel.progs.came.id,
            skel.progs.went.id,
        ]
        send(near, far, 3)
        flow = next(f for f in skel.maps.flows if f.length == FRAME)
        assert flow == everything.Flow(length=FRAME, mac=bytes([2, 1, 0, 0, 0, 0]), protocol=8)
        assert skel.maps.flows[flow] == everything.CounterT(packets=3, bytes=3 * FRAME)
        # Others than the datagrams pass too: what came and went is counted everywhere alike.
        total = skel.bss.total
        assert total.packets == skel.data.packets - 5 == sum(skel.bss.per_hook) >= 3
        assert total.bytes == skel.data_custom.wide[1]
        assert sum(c.packets for c in skel.maps.flows.values()) == total.packets
        assert sum(skel.maps.each_cpu[0]) == total.packets
        assert len(skel.maps.each_cpu[0]) == bpf_map.possible_cpus()
        assert skel.bss.None_ >= 3
        seen = skel.bss.seen
        assert seen.verdict is everything.Verdict.DROP
        assert (seen.enabled, seen.grid, seen.small, seen.negative) == (
            True,
            ((1, 2, 3),) * 2,
            5,
            -3,
        )
        assert seen.address.struct.port == 443
        # The second look: bpftool reads the same map.
        dump = json.loads(
            subprocess.run(
                ["bpftool", "-j", "map", "dump", "id", str(skel.maps.flows.map.id)],
                check=True,
                capture_output=True,
            ).stdout
        )
        shown = {e["formatted"]["key"]["length"]: e["formatted"]["value"] for e in dump}
        assert shown[FRAME] == {"packets": 3, "bytes": 3 * FRAME}
        ids = {link.id for link in skel.links}
    with entered(near.ns):
        left = subprocess.run(["bpftool", "-j", "link"], check=True, capture_output=True).stdout
        assert ids.isdisjoint(entry["id"] for entry in json.loads(left))
        send(near, far, 1)


def test_every_kind_of_hook_through_its_section(site: Site) -> None:
    """tcx and netkit: by the section's name, and by ``hook`` for a section that says none."""
    for section, hook in ((f"{site.noun}/{site.hook}", None), ("tc", site.hook)):
        found: Any = made(build(COUNT.format(section=section), name="counts"))
        with found.open() as skel:
            skel.load()
            with entered(site.ns):
                skel.attach(ifindex=site.ifindex, hook=hook)
            assert site.ids() == [skel.progs.counts.id]
            assert site.passes()
            assert skel.bss.packets >= 3
        assert site.ids() == []


def test_attach_is_all_or_none(everything: Any, veth: tuple[End, End]) -> None:
    near, _ = veth
    with everything.open() as skel, entered(near.ns):
        with pytest.raises(ValueError, match="not loaded"):
            skel.attach(ifindex=near.ifindex)
        skel.load()
        with pytest.raises(NetbpfError, match="came: a device"):
            skel.attach()
        with pytest.raises(ValueError, match="no hook sideways"):
            skel.attach(ifindex=near.ifindex, hook="sideways")
        with pytest.raises(NetbpfError):
            # netkit's hook is none of a veth: what was attached before is taken away.
            skel.attach(ifindex=near.ifindex, hook="primary")
        assert skel.links == ()
        links = subprocess.run(
            ["bpftool", "-j", "net"], check=True, capture_output=True, text=True
        ).stdout
        assert "came" not in links
        skel.attach(ifindex=near.ifindex, hook="egress")
        assert len(skel.links) == 3


def test_xdp_at_a_device(veth: tuple[End, End]) -> None:
    near, far = veth
    source = """
    __u64 packets;
    SEC("xdp") int early(struct xdp_md *ctx) { packets++; return XDP_PASS; }
    char _license[] SEC("license") = "GPL";
    """
    found: Any = made(build(source, name="early"))
    with found.open() as skel, entered(near.ns):
        skel.load()
        skel.attach(ifindex=near.ifindex)
        send(near, far, 3)
        assert skel.bss.packets >= 3
        with found.open() as second:
            second.load()
            with pytest.raises(BpfError, match="another xdp program"):
                second.attach(ifindex=near.ifindex)


def test_variables_of_every_kind_come_back(everything: Any) -> None:
    m = everything
    with m.open() as skel:
        value = m.Settings(
            address=m.Address.holding(m.Address.v4, 0x01020304),
            verdict=m.Verdict.class_,
            low=-7,
            high=7,
            union=m.SettingsUnion.holding(m.SettingsUnion.octets, b"abcd"),
            small=7,
            negative=-16,
            enabled=True,
            bytes="12345678",
            raw=b"\0\1\2\3",
            points=(m.SettingsPoints(1, 2), m.SettingsPoints(3, 4)),
            grid=((1, 2, 3), (4, 5, 6)),
            from_=2**64 - 1,
            ratio=math.pi,
            half=0.5,
            lambda_=9,
            x__quiet=10,
        )
        skel.bss.seen = value
        assert skel.bss.seen == value
        skel.load()
        assert skel.bss.seen == value
        changed = replace(value, small=1, negative=1, verdict=m.Verdict(55))
        skel.bss.seen = changed
        assert skel.bss.seen == changed
        # By names and BTF, another way through the same bytes.
        told = skel.object.get("seen")
        assert told["from"] == 2**64 - 1
        assert (told["small"], told["negative"], told["verdict"]) == (1, 1, 55)
        assert (told["points"], told["grid"]) == (
            [{"x": 1, "y": 2}, {"x": 3, "y": 4}],
            [[1, 2, 3], [4, 5, 6]],
        )
        assert skel.object.get("seen.address.v6")[:4] == [4, 3, 2, 1]
        with pytest.raises(FrozenInstanceError):
            skel.bss.seen.small = 2
        with pytest.raises(AttributeError):
            skel.bss.sene = value
        with pytest.raises(ValueError, match="constant once the object is loaded"):
            skel.rodata.limit = 1


def test_values_that_do_not_fit_are_the_callers_mistake(everything: Any) -> None:
    m = everything
    with m.open() as skel:
        for wrong in ("5", 5.0, True, None):
            with pytest.raises(TypeError, match="limit is a number"):
                skel.rodata.limit = wrong
        for wrong in (-1, 2**32):
            with pytest.raises(ValueError, match="limit has 32 bits"):
                skel.rodata.limit = wrong
        with pytest.raises(ValueError, match="room for 16 bytes"):
            skel.rodata.device = "x" * 17
        with pytest.raises(TypeError, match="seen is a Settings"):
            skel.bss.seen = {}
        with pytest.raises(ValueError, match=r"seen\.small has 3 bits"):
            skel.bss.seen = m.Settings(small=8)
        with pytest.raises(ValueError, match=r"seen\.grid has 2 elements"):
            skel.bss.seen = m.Settings(grid=((0, 0, 0),))
        with pytest.raises(ValueError, match="the object is not loaded"):
            skel.maps.flows.get(m.Flow())
        with pytest.raises(ValueError, match="the object is not loaded"):
            skel.progs.came.info()
        assert skel.rodata.limit == 1000, "nothing was written half"


def test_maps_are_read_and_written(everything: Any) -> None:
    m = everything
    with m.open() as skel:
        skel.maps.flows.resize(2)
        skel.load()
        flows = skel.maps.flows
        one, two = m.Flow(length=1), m.Flow(length=2, mac=b"123456")
        assert (len(flows), bool(flows), one in flows, flows.get(one)) == (0, True, False, None)
        flows[one] = m.CounterT(packets=1)
        flows.update(two, m.CounterT(bytes=2), 1)
        with pytest.raises(BpfError, match="EEXIST"):
            flows.update(two, m.CounterT(), 1)
        with pytest.raises(BpfError, match="E2BIG"):
            flows[m.Flow(length=3)] = m.CounterT()
        assert dict(flows.items()) == {one: m.CounterT(packets=1), two: m.CounterT(bytes=2)}
        assert set(flows) == {one, two} == set(flows.keys())
        assert flows.delete(one) and not flows.delete(one)
        with pytest.raises(KeyError):
            flows[one]
        with pytest.raises(NotFoundError, match=r"no key Flow\(length=1.* in map flows"):
            del flows[one]
        del flows[two]
        cpus = bpf_map.possible_cpus()
        skel.maps.each_cpu[1] = list(range(cpus))
        assert skel.maps.each_cpu[1] == list(range(cpus))
        with pytest.raises(ValueError, match=f"values of {cpus} CPUs, not {cpus + 1}"):
            skel.maps.each_cpu[1] = [0] * (cpus + 1)
        verdicts = skel.maps.import_
        verdicts[1] = m.Verdict.DROP
        program = skel.progs.yield_
        assert program.test_run(bytes(64)).retval == m.Verdict.DROP
        assert [v.name for v in verdicts.values()] == ["PASS", "DROP"]
        skel.maps.untyped[b"abcd"] = b"12345678"
        assert list(skel.maps.untyped.items()) == [(b"abcd", b"12345678")]
        assert skel.maps.events.info().type_name == "ringbuf"
    with pytest.raises(ValueError, match="not loaded"):
        skel.maps.flows.get(one)


USER = """
from dataclasses import replace
import made

def use() -> int:
    with made.open() as skel:
        skel.rodata.limit = 5
        skel.rodata.verdict = made.Verdict.DROP
        skel.rodata.settings = replace(skel.rodata.settings, enabled=True)
        skel.load()
        for name, attachment in skel.attach(ifindex=1).items():
            print(name.upper(), attachment.link)
        for flow, counter in skel.maps.flows.items():
            print(flow.mac.hex(), counter.bytes + counter.packets)
        cpus: list[int] = skel.maps.each_cpu[0]
        port: int = skel.bss.seen.address.struct.port
        text: str = skel.rodata.device
        grid: tuple[tuple[int, ...], ...] = skel.bss.seen.grid
        print(skel.maps.events.id, skel.progs.came.info().tag, text, grid)
        made.Address.holding(made.Address.v4, 4)
        return skel.bss.total.packets + sum(cpus) + port
"""
WRONG = {
    'skel.rodata.limit = "five"': 'expression has type "str"',
    "skel.rodata.limt = 5": 'no attribute "limt"',
    "skel.bss.seen.small = 5": "read-only",
    "skel.maps.flows[5]": 'expected type "Flow"',
    "skel.maps.flows[made.Flow()] = 5": 'has type "CounterT"',
    "skel.maps.each_cpu[0] + 1": '"list" matches argument type "int"',
    "made.Flow(lenght=1)": '"lenght"',
    "skel.progs.cane": 'no attribute "cane"',
    'made.Address.holding(made.Address.v4, "x")': "Cannot infer",
    "skel.rodata.verdict = 5": 'expression has type "int"',
}


def checked(folder: Path, name: str) -> tuple[int, str]:
    """What mypy --strict says of a file in ``folder``."""
    config = folder / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\nexplicit_package_bases = True\n")
    options = ["--no-error-summary", f"--config-file={config}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, f"{name}.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(folder / "cache")},
    )
    return done.returncode, done.stdout + done.stderr


def all_wrong(folder: Path, wrong: dict[str, str]) -> None:
    """mypy refuses each line that uses the ``skel`` of ``made``, in these words."""
    lines = ["import made", "def use(skel: made.Skeleton) -> None:"]
    lines += [f"    {line}" for line in wrong]
    (folder / "wrong.py").write_text("\n".join(lines) + "\n")
    status, out = checked(folder, "wrong")
    assert status == 1
    told = {int(line.split(":")[1]): line for line in out.splitlines() if ": error:" in line}
    for number, (line, words) in enumerate(wrong.items(), 3):
        assert words in told.get(number, ""), (line, out)


def test_mypy_knows_what_is_there_and_what_is_not(
    compiled: Callable[[str], Path], tmp_path: Path
) -> None:
    assert skeleton.write(skeleton.of_file(compiled("skeleton")), tmp_path / "made.py")
    (tmp_path / "use.py").write_text(USER)
    assert checked(tmp_path, "use") == (0, "")
    all_wrong(tmp_path, WRONG)


def test_mypy_reads_modules_of_odd_names(tmp_path: Path) -> None:
    for number in range(0, len(HOSTILE), 8):
        names = [n.replace("\0", "") or "_" for n in HOSTILE[number : number + 8]]
        (tmp_path / f"made{number}.py").write_text(module(crafted(names), b""))
    imports = "".join(f"import made{number}\n" for number in range(0, len(HOSTILE), 8))
    (tmp_path / "use.py").write_text(imports)
    assert checked(tmp_path, "use") == (0, "")


def test_ruff_has_nothing_to_say(compiled: Callable[[str], Path], tmp_path: Path) -> None:
    file = tmp_path / "made.py"
    skeleton.write(skeleton.of_file(compiled("skeleton")), file)
    for verb in (["check", "--isolated", "--select=E,F,W,I", "--line-length=100"],):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *verb, str(file)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("source", ["obj_all", "obj_more", "core_all", "run", "protocols"])
def test_skeletons_of_other_objects_load(source: str) -> None:
    text = (programs.SOURCES / f"{source}.c").read_text()
    found: Any = made(build(text, name=source, head=""))
    with found.open() as skel:
        skel.load()
        for name in skel.object.programs:
            assert getattr(skel.progs, name).id == skel.object.programs[name].id


def test_what_needs_no_device_goes_where_its_section_says() -> None:
    source = """
    __u64 calls;
    SEC("raw_tp/sys_enter") int entered(void *ctx) { calls++; return 0; }
    SEC("tc") int idle(struct __sk_buff *skb) { return 0; }
    char _license[] SEC("license") = "GPL";
    """
    found: Any = made(build(source, name="self"))
    with found.open() as skel:
        skel.load()
        attached = skel.attach()
        assert (set(attached), set(attached.open)) == ({"entered"}, {"idle"})
        os.stat("/")
        assert skel.bss.calls > 0
        skel.close()
        with pytest.raises(ValueError, match="not loaded"):
            skel.attach()
        skel.load()
        assert skel.attach()["entered"].link in skel.links
