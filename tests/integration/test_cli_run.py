"""``prog run``, ``tcx run`` and ``netkit run``: documents, tables, captures in and out."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, captures
from netbpf.captures import Packet
from tests.integration.test_run import CODES, PAYLOAD_AT, frame, payload
from tests.netns_fixtures import programs
from tests.netns_fixtures.cli import Result, netbpf, ok
from tests.netns_fixtures.devices import device
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.packets import UdpSink, send_udp

Load = Callable[..., Program]
FRAME = bytes(range(60))
AFTER = {"mark", "priority", "cut", "error"}


def capture(path: Path, frames: Iterable[bytes], *, link_type: int = 1) -> Path:
    """A pcap file, made by hand; every packet was 1500 bytes long where it is 96 now."""
    made = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type)
    for number, data in enumerate(frames):
        length = 1500 if len(data) == 96 else len(data)
        made += struct.pack("<IIII", 1000 + number, 7, len(data), length) + data
    path.write_bytes(made)
    return path


def packets(path: Path) -> list[Packet]:
    with captures.reading(str(path)) as found:
        return list(found)


def place(site: Site) -> list[object]:
    return [site.noun, "run", "-n", site.ns.name, site.device, site.hook]


def attach(site: Site, obj: Path) -> None:
    for name in ("stamp", "judge", "seal"):
        ok(site.noun, "attach", "-n", site.ns.name, site.device, site.hook, f"{obj}:{name}")


def test_chain_run_document_and_what_comes_out(
    site: Site, compiled: Callable[[str], Path], tmp_path: Path
) -> None:
    attach(site, compiled("run"))
    source = capture(tmp_path / "in.pcap", (frame(site, payload(code)) for code in CODES))
    out = tmp_path / "out.pcapng"
    runs = ok(*place(site), "--pcap", source, "--out", out)["runs"]
    for number, run in enumerate(runs):
        assert set(run) == {"packet", "verdict", "data_out", "programs"} | AFTER
        assert (run["packet"], run["mark"], run["priority"]) == (number, 1000 + number, 5)
        assert (run["cut"], run["error"]) == (False, None)
        for position, step in enumerate(run["programs"]):
            assert set(step) == {"position", "prog", "retval", "verdict", "duration_ns"}
            assert set(step["prog"]) == {"id", "name"}
            assert step["position"] == position
    names = [[step["prog"]["name"] for step in run["programs"]] for run in runs]
    assert names[:2] == [["stamp", "judge", "seal"], ["stamp", "judge"]]

    written = packets(out)
    passing = [run for run in runs if run["verdict"] in ("pass", "next")]
    assert [packet.data.hex() for packet in written] == [run["data_out"] for run in passing]
    times = [(1000 + run["packet"]) * 10**9 + 7000 for run in passing]
    assert [packet.time for packet in written] == times
    with UdpSink(site.receiver.ns, port=9) as sink:
        for code in CODES:
            send_udp(site.sender.ns, site.receiver.address, 9, payload(code))
        arrived = sink.receive(len(CODES), timeout=1.0)
    assert sorted(arrived) == sorted(packet.data[PAYLOAD_AT:] for packet in written)


def test_chain_run_table(site: Site, load: Load, tmp_path: Path) -> None:
    site.attach(load(programs.NEXT, "first"), link=False)
    site.attach(load(programs.DROP, "wall"), link=False)
    site.attach(load(programs.PASS, "late"), link=False)
    result = netbpf(*place(site), "--pcap", capture(tmp_path / "in.pcap", [FRAME, FRAME]))
    assert (result.status, result.err) == (0, "")
    head, one, two, total = result.out.splitlines()
    assert head.split() == ["PACKET", "LENGTH", "0", "first", "1", "wall", "2", "late", "VERDICT"]
    assert one.split() == ["0", "60", "next", "drop", "-", "drop"]
    assert two.split() == ["1", "60", "next", "drop", "-", "drop"]
    assert total == "2 packets: 2 drop"
    alone = netbpf(*place(site), "--data", FRAME.hex(":"))
    assert f"out: {FRAME.hex()}" in alone.out


def test_an_empty_chain(site: Site) -> None:
    (run,) = ok(*place(site), "--data", FRAME.hex())["runs"]
    assert (run["verdict"], run["programs"]) == ("next" if site.noun == "tcx" else "pass", [])
    if site.noun == "netkit":
        policy = "--policy" if site.hook == "primary" else "--peer-policy"
        ok("netkit", "set", "-n", site.ns.name, site.device, policy, "blackhole")
        (run,) = ok(*place(site), "--data", FRAME.hex())["runs"]
        assert run["verdict"] == "drop"


def test_marks_and_limits(site: Site, load: Load, tmp_path: Path) -> None:
    site.attach(load(programs.NEXT), link=False)
    source = capture(tmp_path / "in.pcap", [FRAME] * 5)
    runs = ok(*place(site), "--pcap", source, "--limit", 2, "--mark", 77)["runs"]
    assert [(run["packet"], run["mark"]) for run in runs] == [(0, 77), (1, 77)]


def test_prog_run_document() -> None:
    (run,) = ok("prog", "run", "builtin:drop", "--data", "0x" + FRAME.hex(" "))["runs"]
    keys = {"packet", "retval", "verdict", "data_out", "duration_ns", "flow_keys"} | AFTER
    assert set(run) == keys
    assert (run["packet"], run["retval"], run["verdict"]) == (0, 2, "drop")
    assert run["data_out"] == FRAME.hex()
    assert isinstance(run["duration_ns"], int)


def test_prog_run_by_every_reference(
    load: Load, bpffs: Path, compiled: Callable[[str], Path]
) -> None:
    name = f"t{os.getpid()}"
    program = load(programs.PASS, name)
    program.pin(str(bpffs / "it"))
    references = [f"id:{program.id}", f"name:{name}", f"pin:{bpffs}/it", bpffs / "it"]
    references += [f"tag:{program.info().tag}"] if tags(program) == 1 else []
    for reference in references:
        (run,) = ok("prog", "run", reference, "--data", FRAME.hex())["runs"]
        assert run["verdict"] == "pass"
    result = netbpf("-j", "prog", "run", compiled("run"), "--data", FRAME.hex())
    assert (result.status, result.error["code"]) == (1, "object_file")
    assert "judge" in result.error["message"]
    (run,) = ok("prog", "run", f"{compiled('run')}:queue", "--data", FRAME.hex())["runs"]
    assert (run["verdict"], run["mark"], run["priority"]) == ("pass", None, None)


def tags(program: Program) -> int:
    return len(ok("prog", "show", f"tag:{program.info().tag}")["programs"])


def test_prog_run_at_a_device(site: Site, compiled: Callable[[str], Path]) -> None:
    arguments = ["prog", "run", "-n", site.ns.name, f"{compiled('run')}:queue"]
    (run,) = ok(*arguments, "--data", FRAME.hex(), "--dev", site.device)["runs"]
    assert run["verdict"] == "tx"


def test_repeat_counts_in_maps(compiled: Callable[[str], Path], load: Load, bpffs: Path) -> None:
    from netbpf import loader

    with loader.open(compiled("run")) as obj:
        obj.load()
        udp = bytes(12) + b"\x08\x00\x45" + bytes(8) + b"\x11" + bytes(12) + b"\0\x09" + bytes(60)
        arguments = ["prog", "run", f"id:{obj.programs['stamp'].id}", "--data", udp.hex()]
        (run,) = ok(*arguments, "--repeat", 7)["runs"]
        assert (run["mark"], obj.get("stamped")) == (1000, 7)


def test_packets_that_are_not_taken_are_told_and_the_others_run(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcap", [FRAME, b"", bytes(80_000), FRAME[:13], FRAME])
    out = tmp_path / "out.pcap"
    result = netbpf("-j", "prog", "run", "builtin:next", "--pcap", source, "--out", out)
    assert result.status == 1
    runs = result.json["runs"]
    assert [run["verdict"] for run in runs] == ["next", None, None, None, "next"]
    assert all(set(run) == set(runs[0]) for run in runs)
    assert "0 bytes is shorter than an Ethernet header" in runs[1]["error"]
    assert "netbpf: packet 3: " in result.err
    assert "3 of 5 packets could not be run" in result.err
    assert len(packets(out)) == 2
    table = netbpf("prog", "run", "builtin:next", "--pcap", source)
    assert table.status == 1
    assert "5 packets: 3 not run, 2 next" in table.out
    alone = netbpf("-j", "prog", "run", "builtin:next", "--data", "00")
    assert (alone.status, alone.error["code"]) == (1, "unfit_packet")


def test_a_chain_takes_what_it_can(site: Site, load: Load, tmp_path: Path) -> None:
    site.attach(load(programs.NEXT), link=False)
    source = capture(tmp_path / "in.pcap", [FRAME[:5], FRAME])
    result = netbpf("-j", *place(site), "--pcap", source)
    assert result.status == 1
    first, second = result.json["runs"]
    assert set(first) == set(second)
    assert (first["verdict"], first["programs"]) == (None, [])
    assert second["verdict"] == ("next" if site.noun == "tcx" else "pass")


def test_cut_packets_and_made_headers_are_told(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcap", [FRAME, bytes(96)])
    out = tmp_path / "out.pcap"
    result = netbpf("-j", "prog", "run", "builtin:pass", "--pcap", source, "--out", out)
    assert [run["cut"] for run in result.json["runs"]] == [False, True]
    assert "1 of 2 packets were cut" in result.err
    assert [(len(packet.data), packet.length) for packet in packets(out)] == [(60, 60), (96, 1500)]
    raw = capture(tmp_path / "raw.pcap", [b"\x45" + bytes(39)], link_type=101)
    result = netbpf("-j", "prog", "run", "builtin:pass", "--pcap", raw)
    assert result.json["runs"][0]["data_out"].startswith("00" * 12 + "080045")
    assert "1 IP packets were given an Ethernet header" in result.err


def test_a_damaged_capture_ends_in_one_document_and_no_file(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcap", [FRAME, FRAME])
    source.write_bytes(source.read_bytes()[:-1])
    out = tmp_path / "out.pcap"
    out.write_bytes(b"before")
    result = netbpf("-j", "prog", "run", "builtin:pass", "--pcap", source, "--out", out)
    assert (result.status, result.error["code"]) == (1, "capture")
    assert [run["packet"] for run in result.json["runs"]] == [0]
    assert "packet 1: the file ends within it" in result.error["message"]
    assert out.read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["in.pcap", "out.pcap"]
    table = netbpf("prog", "run", "builtin:pass", "--pcap", source)
    assert table.status == 1
    assert len(table.out.splitlines()) == 2
    assert "packet 1: the file ends within it" in table.err


def test_no_capture_at_all(tmp_path: Path) -> None:
    for source, words in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "directory"),
        (programs.SOURCES / "run.c", "neither pcap nor pcapng"),
        (capture(tmp_path / "sll.pcap", [], link_type=113), "Linux cooked"),
    ):
        result = netbpf("-j", "prog", "run", "builtin:pass", "--pcap", source)
        assert (result.status, result.error["code"]) == (1, "capture")
        assert words in result.error["message"]
    empty = capture(tmp_path / "empty.pcap", [])
    assert ok("prog", "run", "builtin:pass", "--pcap", empty)["runs"] == []
    assert netbpf("prog", "run", "builtin:pass", "--pcap", empty).out == "0 packets\n"


def test_what_is_no_file_is_not_replaced() -> None:
    data = ["--data", FRAME.hex()]
    result = netbpf("-j", "prog", "run", "builtin:pass", *data, "--out", "/dev/null")
    assert (result.status, result.error["code"]) == (1, "capture")
    assert "not a file" in result.error["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "one of --data HEX and --pcap FILE"),
        (["--data", "00", "--pcap", "x"], "one of --data HEX and --pcap FILE"),
        (["--data", "0"], "in hexadecimal"),
        (["--data", "xyz"], "in hexadecimal"),
        (["--data", "00", "--out", "-"], "name a file"),
        (["--data", "00", "--repeat", "0"], "--repeat"),
        (["--data", "00", "--mark", "-1"], "--mark"),
        (["--data", "00", "--limit", "0"], "--limit"),
    ],
)
def test_usage(arguments: list[str], words: str) -> None:
    result = netbpf("-j", "prog", "run", "builtin:pass", *arguments)
    assert result.status == 2, result
    assert words in result.error["message"]


def test_what_a_type_does_not_see(compiled: Callable[[str], Path]) -> None:
    queue = f"{compiled('run')}:queue"
    result = netbpf("-j", "prog", "run", queue, "--data", FRAME.hex(), "--mark", 1)
    assert (result.status, "sees no mark" in result.error["message"]) == (2, True)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "netbpf", *map(str, arguments)]


def test_standard_input_and_output(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcap", [FRAME, FRAME[::-1]])
    first = command("prog", "run", "builtin:pass", "--pcap", "-", "--out", "-")
    passed = subprocess.run(
        first, input=source.read_bytes(), capture_output=True, check=True, timeout=60
    )
    assert passed.stderr == b""
    second = command("-j", "prog", "run", "builtin:drop", "--pcap", "-")
    dropped = subprocess.run(
        second, input=passed.stdout, capture_output=True, check=True, timeout=60
    )
    runs = json.loads(dropped.stdout)["runs"]
    assert [run["data_out"] for run in runs] == [FRAME.hex(), FRAME[::-1].hex()]


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    source = capture(tmp_path / "in.pcap", [FRAME] * 5000)
    line = " ".join(command("prog", "run", "builtin:pass", "--pcap", source))
    result = subprocess.run(
        ["bash", "-c", f"{line} | head -n 2"], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.splitlines()[1].split()[:3] == ["0", "60", "pass"]
    assert result.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_the_document_is_whole_and_no_file_is_left(
    tmp_path: Path, number: signal.Signals
) -> None:
    source = capture(tmp_path / "in.pcap", [FRAME] * 100)
    out = tmp_path / "out.pcap"
    argv = command("-j", "prog", "run", "builtin:pass", "--pcap", "-", "--out", out)
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(source.read_bytes())
        process.stdin.flush()
        start = process.stdout.read(1)
        assert len(os.listdir(tmp_path)) == 2, "a part, under another name"
        process.send_signal(number)
        document = json.loads(start + process.stdout.read())
        process.stdin.close()
        assert process.wait(timeout=60) == 130
    assert document["error"]["code"] == "interrupted"
    assert document["runs"]
    assert os.listdir(tmp_path) == ["in.pcap"]


def without_capabilities(*arguments: object) -> Result:
    argv = ["setpriv", "--bounding-set=-all", *command("-j", *arguments)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return Result(result.returncode, result.stdout, result.stderr)


def test_who_may_not(load: Load, site: Site) -> None:
    program = load(programs.PASS)
    for arguments, needed in (
        ([f"id:{program.id}"], "CAP_SYS_ADMIN"),
        (["builtin:pass"], "CAP_BPF"),
    ):
        result = without_capabilities("prog", "run", *arguments, "--data", FRAME.hex())
        assert (result.status, result.error["code"]) == (4, "not_permitted")
        assert needed in result.error["hint"]


@pytest.mark.needs("tcx")
def test_who_may_not_run_a_chain(ns: Any, load: Load) -> None:
    from netbpf.netns import entered

    with device(ns, "dev0"), entered(ns):
        ok("tcx", "attach", "dev0", "ingress", f"id:{load(programs.PASS).id}", "--no-link")
        result = without_capabilities("tcx", "run", "dev0", "ingress", "--data", FRAME.hex())
        assert (result.status, result.error["code"]) == (4, "not_permitted")
        assert "CAP_NET_ADMIN" in result.error["hint"]


def test_no_such_device_or_hook(site: Site) -> None:
    where = ["-n", site.ns.name]
    result = netbpf("-j", site.noun, "run", *where, "none0", site.hook, "--data", FRAME.hex())
    assert (result.status, result.error["code"]) == (1, "not_found")
    result = netbpf("-j", site.noun, "run", *where, site.device, "sideways", "--data", FRAME.hex())
    assert result.status == 2
