"""Programs at probes (USDT): the arguments that they find, beside what the C source gave."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netbpf import features, loader
from netbpf.bpf import link_create
from netbpf.bpf.link import Link
from netbpf.elf import usdt
from netbpf.errors import (
    BpfError,
    ConflictError,
    NetbpfError,
    NotFoundError,
    NotSupportedError,
    ObjectFileError,
)
from netbpf.loader import programs as loading
from netbpf.plumbing import attach as attaching
from netbpf.plumbing import attach_usdt
from netbpf.plumbing.attachment import Attachment
from tests.netns_fixtures import libbpf_usdt, probed, programs
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.objects import build

HIT = struct.Struct("=12q2q")
NO_ARGUMENT = -errno.ENOENT


def source(name: str, *flags: str) -> Path:
    return build(
        (programs.SOURCES / f"{name}.c").read_text(),
        "-D__TARGET_ARCH_x86",
        *flags,
        name=name,
        head="",
    )


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probed.build(tmp_path_factory.mktemp("probed"))


@pytest.fixture
def obj() -> Iterator[loader.Object]:
    with loader.open(source("usdt")) as opened:
        opened.load()
        yield opened


def attach(obj: loader.Object, where: str, name: str = "later", **more: int) -> Attachment:
    return attaching.attach(obj.spec.program(name), obj.programs[name], function=where, **more)


def hits(obj: loader.Object) -> list[tuple[list[int], int]]:
    """What the program found each time: the arguments and the cookie."""
    found = []
    for number in range(obj.get("next")):
        value = obj.maps["hits"].lookup(struct.pack("=I", number))
        assert value is not None
        *arguments, count, cookie = HIT.unpack(value)
        assert all(error == NO_ARGUMENT for error in arguments[count:])
        found.append((arguments[:count], cookie))
    obj.set("next", 0)
    return found


def specs(obj: loader.Object) -> list[bytes]:
    """The specs that are taken."""
    return [s for s in libbpf_usdt.contents(obj.maps["__bpf_usdt_specs"].fileno()) if any(s)]


@pytest.mark.parametrize("flags", [(), ("-no-pie",), ("-static",), ("-static-pie",)])
def test_arguments_of_every_kind(
    obj: loader.Object, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    made = probed.build(tmp_path, *flags)
    with attach(obj, f"{made}:netbpf:kinds", cookie=77) as attached:
        assert attached.link is not None
        assert attached.link.info().type_name == "uprobe_multi"
        assert probed.run(made) == [1, 1]
        assert hits(obj) == [(probed.KINDS, 77)]
    # Nobody looks any more, and the room is free again.
    assert probed.run(made) == [0, 0]
    assert (hits(obj), specs(obj)) == ([], [])


def test_probes_of_a_library(obj: loader.Object, tmp_path: Path) -> None:
    library, main = probed.build_library(tmp_path)
    with attach(obj, f"{library}:netbpf:kinds", cookie=1):
        assert probed.run(main) == [1, 1]
        assert hits(obj) == [(probed.KINDS, 1)]


def test_all_places_of_a_probe(obj: loader.Object, target: Path) -> None:
    sites = usdt.find(target, "netbpf", "places").sites
    assert len({site.arguments for site in sites}) == 3
    with attach(obj, f"{target}:netbpf:places", cookie=5):
        probed.run(target)
        assert hits(obj) == [([value], 5) for value in probed.PLACES]
        assert len(specs(obj)) == 3
    # Alike: one spec for both.
    with attach(obj, f"{target}:netbpf:bare"):
        probed.run(target)
        assert hits(obj) == [([], 0)] * 2
        assert len(specs(obj)) == 1


def test_an_index_needs_a_newer_header(obj: loader.Object, target: Path) -> None:
    # As with libbpf: the program is told that it cannot read the argument.
    with attach(obj, f"{target}:netbpf:indexed"):
        probed.run(target)
        assert hits(obj) == [([-errno.EINVAL] * 2, 0)]
    with loader.open(source("usdt_indexed")) as newer:
        newer.load()
        with attach(newer, f"{target}:netbpf:indexed"):
            probed.run(target)
        # table[2 + 1], and two bytes beyond the start.
        assert (newer.get("first"), newer.get("second")) == (-13, -11)


@pytest.mark.parametrize("name", ["kinds", "places", "bare"])
def test_libbpf_finds_the_same(obj: loader.Object, target: Path, name: str) -> None:
    theirs = libbpf_usdt.attached(
        source("usdt"), "later", target, name, 9, lambda: probed.run(target) and None
    )
    with attach(obj, f"{target}:netbpf:{name}", cookie=9):
        probed.run(target)
        ours = {each: libbpf_usdt.contents(obj.maps[each].fileno()) for each in theirs}
    assert ours["hits"] == theirs["hits"]
    assert ours["__bpf_usdt_specs"] == theirs["__bpf_usdt_specs"]


def test_one_process(obj: loader.Object, target: Path) -> None:
    one, other = probed.Running(target), probed.Running(target)
    with attach(obj, f"{target}:netbpf:kinds", pid=one.pid):
        other.go()
        assert (hits(obj), other.semaphores) == ([], [0, 0])
        one.go()
        assert (hits(obj), one.semaphores) == ([(probed.KINDS, 0)], [0, 1])
    with pytest.raises(BpfError, match=f"no process {one.pid}"):
        attach(obj, f"{target}:netbpf:kinds", pid=one.pid)
    assert specs(obj) == []


def test_several_at_one_probe(obj: loader.Object, target: Path) -> None:
    where = f"{target}:netbpf:kinds"
    with attach(obj, where, cookie=1), attach(obj, where, "named", cookie=2):
        # The kernel counts places there, not programs.
        assert probed.run(target) == [1, 1]
        assert sorted(hits(obj)) == [(probed.KINDS, 1), (probed.KINDS, 2)]


def test_room_is_used_again(target: Path) -> None:
    where = f"{target}:netbpf:bare"
    with loader.open(source("usdt", "-DBPF_USDT_MAX_SPEC_CNT=2")) as obj, ExitStack() as stack:
        obj.load()
        for cookie in range(5):
            attach(obj, where, cookie=cookie).close()
        kept = [stack.enter_context(attach(obj, where)) for _ in range(2)]
        with pytest.raises(NetbpfError, match="room for 2 specs, and 0 of 1") as refused:
            attach(obj, where)
        assert refused.value.code == "no_space"
        with pytest.raises(NetbpfError, match="0 of 3 that are wanted"):
            attach(obj, f"{target}:netbpf:places")
        kept.pop().close()
        attach(obj, where).close()


def test_a_pin_keeps_what_the_program_reads(obj: loader.Object, target: Path, bpffs: Path) -> None:
    pin = bpffs / "probe"
    with attach(obj, f"{target}:netbpf:kinds", cookie=3) as made:
        made.pin(str(pin))
    probed.run(target)
    assert hits(obj) == [(probed.KINDS, 3)]
    with Link.from_pin(str(pin)):
        pin.unlink()
    probed.run(target)
    assert hits(obj) == []


def test_a_program_that_reads_nothing(obj: loader.Object, target: Path) -> None:
    with attach(obj, f"{target}:netbpf:places", "counts", cookie=1):
        probed.run(target)
    assert obj.get("counted") == len(probed.PLACES)
    assert specs(obj) == []


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Linux 6.6: there is no link for many places."""

    def refused(*_: object, **__: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(link_create, "uprobe_multi", refused)
    monkeypatch.setattr(loading, "_attach_type", lambda *_: 0)


def test_before_there_was_one_link(older: None, target: Path) -> None:
    with loader.open(source("usdt")) as obj:
        obj.load()
        with attach(obj, f"{target}:netbpf:kinds", cookie=8) as made:
            assert made.link is not None
            assert made.link.info().type_name == "perf_event"
            assert probed.run(target) == [1, 1]
            assert hits(obj) == [(probed.KINDS, 8)]
        with attach(obj, f"{target}:netbpf:places", cookie=8) as made:
            assert made.link is None
            probed.run(target)
            assert hits(obj) == [([value], 8) for value in probed.PLACES]
        assert probed.run(target) == [0, 0]
        assert (hits(obj), specs(obj)) == ([], [])


def test_semaphores_that_the_kernel_cannot_count(
    older: None, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach_usdt, "_SEMAPHORES", "/nothing-here")
    with loader.open(source("usdt")) as obj:
        obj.load()
        with pytest.raises(NotSupportedError, match=r"needs Linux 4\.20"):
            attach(obj, f"{target}:netbpf:kinds")
        assert specs(obj) == []


def test_before_there_were_cookies(
    older: None, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # LINUX_HAS_BPF_COOKIE is false then, and the program looks for the address.
    monkeypatch.setitem(features._known, "bpf_cookie", False)
    fixed = probed.build(tmp_path, "-no-pie")
    with loader.open(source("usdt")) as obj:
        obj.load()
        places = obj.maps["__bpf_usdt_ip_to_spec_id"]
        with attach(obj, f"{fixed}:netbpf:places", cookie=6):
            probed.run(fixed)
            assert hits(obj) == [([value], 6) for value in probed.PLACES]
            assert len(list(places.keys())) == 3
            with pytest.raises(ConflictError, match="no cookie"):
                attach(obj, f"{fixed}:netbpf:places")
            assert len(list(places.keys())) == 3
        assert (list(places.keys()), specs(obj)) == ([], [])
        with pytest.raises(NetbpfError, match="say pid"):
            attach(obj, f"{target}:netbpf:kinds")
        running = probed.Running(target)
        with attach(obj, f"{target}:netbpf:kinds", pid=running.pid, cookie=6):
            running.go()
            assert hits(obj) == [(probed.KINDS, 6)]
        with pytest.raises(NotFoundError, match="no process"):
            attach(obj, f"{target}:netbpf:kinds", pid=running.pid)
        with pytest.raises(NotFoundError, match="in the memory of process"):
            attach(obj, f"{target}:netbpf:kinds", pid=os.getpid())
        assert specs(obj) == []


def test_what_cannot_be_attached(obj: loader.Object, target: Path) -> None:
    for where, error, said in (
        (f"{target}:netbpf:nothing", NotFoundError, "netbpf:bare, netbpf:indexed"),
        (f"{target}:other:kinds", NotFoundError, "no probe other:kinds"),
        ("/nothing-here:a:b", NotFoundError, "no file"),
        ("nothing-here:a:b", NotFoundError, "no file"),
        ("/usr/bin/env:a:b", NotFoundError, r"\.note\.stapsdt"),
        ("/etc/passwd:a:b", ObjectFileError, "not an ELF file"),
        (f"{target}:kinds", ValueError, "path:provider:name"),
        (f"{target}:a:b:c", ValueError, "path:provider:name"),
    ):
        with pytest.raises(error, match=said):
            attach(obj, where)
    assert attaching.left_open(obj.spec.program("later")) == "what it is to be attached to"
    assert specs(obj) == []


def test_files_that_make_no_sense(obj: loader.Object, target: Path, tmp_path: Path) -> None:
    whole, broken = target.read_bytes(), tmp_path / "broken"
    number = struct.pack("<H", 0xB7)
    for data, said in (
        (whole[:18] + number + whole[20:], "it is made for aarch64"),
        (whole.replace(b"4@$71", b"4@#71"), r"section \.note\.stapsdt: probe .*: argument 7 is of"),
        (
            whole.replace(b"\3\0\0\0stapsdt", b"\3\0\0\0nothing"),
            r"section \.note\.stapsdt: note 0: it is none",
        ),
    ):
        broken.write_bytes(data)
        with pytest.raises(ObjectFileError, match=said):
            attach(obj, f"{broken}:netbpf:kinds")
    assert specs(obj) == []


FEW_RIGHTS = """
import sys
from netbpf import loader
from netbpf.errors import BpfError
from netbpf.plumbing import attach
from tests.netns_fixtures import probed

with loader.open(sys.argv[1]) as obj:
    obj.load()
    for _ in range(2):
        with attach.attach_all(obj):
            probed.run(sys.argv[2])
    try:
        attach.attach(obj.spec.program("named"), obj.programs["named"])
    except BpfError as error:
        print(obj.get("next"), error)
"""


def test_without_the_right_to_open_by_id(in_path: Path) -> None:
    few = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon"]
    said = subprocess.check_output(
        [*few, sys.executable, "-c", FEW_RIGHTS, source("usdt"), in_path], text=True
    )
    assert said.startswith("2 open map ")
    assert "not permitted (EPERM): needs CAP_SYS_ADMIN" in said


@pytest.fixture
def in_path(target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program where a name without a slash is looked for."""
    monkeypatch.setenv("PATH", f"{target.parent}:{os.environ['PATH']}")
    return target


def test_autoattach(obj: loader.Object, in_path: Path) -> None:
    with attaching.attach_all(obj) as made:
        assert list(made) == ["named"]
        assert probed.run(in_path) == [1, 1]
        assert hits(obj) == [(probed.KINDS, 0)]
    assert probed.run(in_path) == [0, 0]


def test_autoattach_and_pin(in_path: Path, bpffs: Path) -> None:
    file = source("usdt")
    planned = netbpf("prog", "load", file, "--autoattach", "--pin", bpffs / "x", "--dry-run", "-j")
    result = netbpf("prog", "load", file, "--autoattach", "--pin", bpffs / "x", "-j")
    (link,) = result.json["object"]["links"]
    assert (link["program"], link["type"]) == ("named", "uprobe_multi")
    (would,) = planned.json["object"]["links"]
    assert would["pin"] == link["pin"] == str(bpffs / "x" / "named_link")
    assert probed.run(in_path) == [1, 1]
    dumped = subprocess.check_output(
        ["bpftool", "-j", "map", "lookup", "pinned", bpffs / "x" / "hits", "key", *["0"] * 4]
    )
    value = bytes(int(byte, 16) for byte in json.loads(dumped)["value"])
    assert list(HIT.unpack(value)) == [*probed.KINDS, 12, 0]
    (bpffs / "x" / "named_link").unlink()
    assert probed.run(in_path) == [0, 0]
