"""The fixtures and marks of the test suite, as a pytest plugin."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netbpf.bpf.prog import Program
from netbpf.netns import NetNS, list_names
from tests.netns_fixtures import (
    cgroups,
    descriptors,
    devices,
    hooks,
    namespaces,
    probes,
    programs,
    report,
)
from tests.netns_fixtures.bpffs import bpffs as mounted_bpffs
from tests.netns_fixtures.devices import End


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "needs(*features): what the kernel must have: " + ", ".join(probes.FEATURES),
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for feature in mark.args:
            excuse = probes.excuse(feature)
            if excuse is not None:
                pytest.skip(excuse)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    found: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    path = report.target()
    if path is None or "integration" not in item.path.parts:
        return
    # One line a test: its call, or a setup or teardown that did not pass.
    if found.when != "call" and found.passed:
        return
    reason = None
    if found.skipped and isinstance(found.longrepr, tuple):
        reason = str(found.longrepr[2]).removeprefix("Skipped: ")
    report.append(
        path,
        report.Line(item.nodeid, found.outcome, report.here(), reason, round(found.duration, 3)),
    )


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> Iterator[None]:
    with descriptors.none_leaked():
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_left() -> Iterator[None]:
    """No test namespace of ours and no device of the host's namespace more than before."""
    before = set(socket.if_nameindex())
    names = set(list_names())
    yield
    assert set(socket.if_nameindex()) <= before, "the host's own namespace has new devices"
    left = {name for name in list_names() if name.startswith(namespaces.PREFIX)} - names
    assert not left, f"left over namespaces: {left}"


@pytest.fixture
def ns() -> Iterator[NetNS]:
    """A new namespace."""
    with namespaces.namespace() as made:
        yield made


@pytest.fixture
def two_ns() -> Iterator[tuple[NetNS, NetNS]]:
    """Two new namespaces."""
    with namespaces.namespaces(2) as (a, b):
        yield a, b


@pytest.fixture
def veth(two_ns: tuple[NetNS, NetNS]) -> Iterator[tuple[End, End]]:
    """A veth pair between two new namespaces, addressed and up."""
    with devices.veth_pair(*two_ns) as ends:
        yield ends


@pytest.fixture
def netkit(two_ns: tuple[NetNS, NetNS]) -> Iterator[tuple[End, End]]:
    """A netkit pair between two new namespaces, addressed and up; mark the test needs("netkit")."""
    with devices.netkit_pair(*two_ns) as ends:
        yield ends


@pytest.fixture(
    params=[
        pytest.param(kind, marks=pytest.mark.needs(feature))
        for kind, feature in hooks.SITES.items()
    ]
)
def site(request: pytest.FixtureRequest) -> Iterator[hooks.Site]:
    """Every kind of hook in turn, on a device of its own, with traffic that passes it."""
    with hooks.site(request.param) as made:
        yield made


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of the test's own."""
    with cgroups.cgroup() as folder:
        yield folder


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of the test's own."""
    with mounted_bpffs(tmp_path / "bpffs") as folder:
        yield folder


@pytest.fixture
def load() -> Iterator[Callable[..., Program]]:
    """Loads tc programs of two instructions: ``load(programs.DROP, "name")``; closed at the end."""
    with ExitStack() as stack:

        def made(code: int, name: str = "two_insns") -> Program:
            return stack.enter_context(programs.load_returning(code, name))

        yield made


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compiles a source of tests/bpf: ``compiled("name")`` is the object file of name.c."""
    folder = tmp_path_factory.mktemp("bpf")

    def compile_one(name: str) -> Path:
        return programs.compile_source(programs.SOURCES / f"{name}.c", folder)

    return compile_one
