"""examples/many-ports: a real server behind an sk_lookup program, asked from another namespace."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netbpf.netns import list_names
from tests.netns_fixtures.cli import ok
from tests.netns_fixtures.connections import REFUSED, ask
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.programs import compile_source
from tests.netns_fixtures.scripts import BIN, ROOT, run_script

FOLDER = "examples/many-ports"
PREFIX = "198.51.100.0/28"


@contextmanager
def example(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The example, serving; stopped with the block and what it says then looked at."""
    argv = [BIN / "python", f"{FOLDER}/many_ports.py", *map(str, arguments)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"
            yield process
        finally:
            process.terminate()
    assert process.returncode == 0


def answers(client: End, server: End) -> dict[tuple[str, int], str]:
    """What is said to connections to ports and addresses around what is served."""
    places = [
        *((f"198.51.100.{last}", port) for last in (0, 3, 15) for port in (7000, 7002, 7003)),
        ("198.51.100.3", 6999),
        ("198.51.100.3", 7004),
        ("198.51.100.16", 7000),
        (server.address, 7000),
    ]
    return {place: ask(client.ns, *place) for place in places}


def served(client: End, server: End) -> bool:
    """Whether what is to be served has answers, each the right one; all else never has one."""
    found = answers(client, server)
    if set(found.values()) == {REFUSED}:
        return False
    wanted = {
        place: f"{place[0]} port {place[1]}\n" if number < 9 else REFUSED
        for number, place in enumerate(found)
    }
    assert found == wanted
    return True


@pytest.fixture
def ends(veth: tuple[End, End]) -> tuple[End, End]:
    """Server and client; the client sends the whole net of the prefix to the server."""
    server, client = veth
    run(client.ns, ["ip", "route", "add", "198.51.100.0/24", "via", server.address])
    # Beyond the prefix too the server answers for itself: with a reset, if nothing listens.
    run(server.ns, ["ip", "route", "add", "local", "198.51.100.16/28", "dev", "lo"])
    return server, client


def test_by_itself() -> None:
    done = run_script([BIN / "python", f"{FOLDER}/many_ports.py"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "198.51.100.254 port 7009: 198.51.100.254 port 7009\n" in done.stdout
    assert "2001:db8:216::1 port 7000: 2001:db8:216::1 port 7000\n" in done.stdout
    assert "2001:db8:216::1 port 7010: refused\n" in done.stdout
    assert done.stdout.endswith("without the program: refused\n")
    assert not [name for name in list_names() if name.startswith("many-")]


def test_in_a_namespace(ends: tuple[End, End]) -> None:
    server, client = ends
    with example("--netns", server.ns.name, "--ports", "7000-7003", "--prefix", PREFIX):
        found = ok("netns", "show")["namespaces"]
        (shown,) = [each for each in found if each["name"] == server.ns.name]
        assert [each["prog"]["name"] for each in shown["links"]] == ["many_ports"]
        assert served(client, server)
    # It was stopped: its link and its routes went with it.
    run(server.ns, ["ip", "route", "add", "local", PREFIX, "dev", "lo"])
    assert not served(client, server)


def test_it_says_what_is_wrong() -> None:
    done = run_script([BIN / "python", f"{FOLDER}/many_ports.py", "--netns", "many-none"])
    assert done.returncode == 1
    assert done.stderr.startswith("many_ports: ")
    assert "Traceback" not in done.stderr


def test_by_the_command_line(ends: tuple[End, End], bpffs: Path, tmp_path: Path) -> None:
    server, client = ends
    source = shutil.copy(ROOT / FOLDER / "many_ports.c", tmp_path)
    obj = compile_source(Path(source), tmp_path)
    run(server.ns, ["ip", "route", "add", "local", PREFIX, "dev", "lo"])
    settings = ["last_port=7003", "prefix=0xc6336400", "prefix_bits=28"]
    sets = [word for each in settings for word in ("--set", each)]
    pins = bpffs / "many"
    ok("prog", "load", obj, "--pin", pins, *sets)
    at = (server.ns.name, "sk_lookup")
    ok("netns", "attach", *at, f"pin:{pins}/many_ports", "--pin", bpffs / "link")
    assert not served(client, server), "there is no server yet"

    serve = ("--netns", server.ns.name, "--map", pins / "server")
    with example(*serve):
        assert served(client, server)
    assert not served(client, server), "its socket left the map with it"
    with example(*serve) as process:
        assert served(client, server)
        ok("netns", "detach", *at, "name:many_ports")
        assert process.poll() is None
        assert not served(client, server), "the server goes on, and nothing leads to it"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
